//! `cargo xtask generate`: the files in this repository that are made from its code. Tests fail
//! when one of them is not what the code makes.

use anyhow::Context;

use crate::test::repository;

pub(crate) fn run() -> anyhow::Result<()> {
    let directory = repository().join("config/crd");
    std::fs::create_dir_all(&directory)?;
    for (name, content) in checkpoint_keeper_api::crds::crd_files() {
        let path = directory.join(&name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        println!("config/crd/{name}");
    }
    Ok(())
}

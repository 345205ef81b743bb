//! `cargo xtask generate`: the files in this repository that are made from its code. Tests fail
//! when one of them is not what the code makes.

use std::process::Stdio;

use anyhow::{Context, ensure};

use crate::cargo::cargo;
use crate::chart_files;
use crate::repository::repository;

pub(crate) fn run() -> anyhow::Result<()> {
    for (name, content) in checkpoint_keeper_api::crds::crd_files() {
        let path = repository().join("config").join(&name);
        std::fs::create_dir_all(path.parent().context("a file is in a folder")?)?;
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        println!("config/{name}");
    }
    for (path, content) in chart_files::files()? {
        let whole = repository().join(&path);
        std::fs::create_dir_all(whole.parent().context("a file is in a folder")?)?;
        std::fs::write(&whole, content).with_context(|| format!("cannot write {}", path.display()))?;
        println!("{}", path.display());
    }
    // The tests that hold these against the code write them when they are told to.
    for (package, target, test) in [
        ("checkpoint-keeper", "--lib", "signals::"),
        ("checkpoint-keeper-core", "--lib", "schema::"),
        ("checkpoint-keeper", "--test=book", "reference::"),
    ] {
        let mut cargo = cargo();
        cargo.args(["test", "--quiet", "--locked", "--package", package, target, "--", test]);
        let status = cargo.env("CHECKPOINT_KEEPER_GENERATE", "1").stdout(Stdio::null()).status();
        ensure!(
            status.context("cannot run cargo")?.success(),
            "docs/signals.md, docs/gc.schema.json and docs/book/src/reference cannot be made"
        );
    }
    println!("docs/signals.md\ndocs/gc.schema.json\ndocs/book/src/reference");
    Ok(())
}

//! `cargo xtask manifests`: `config/deploy`, rendered from the chart by helm. A test fails when one of them is not what the
//! chart renders.

use anyhow::Context;
use checkpoint_keeper_testcluster::chart;
use checkpoint_keeper_testcluster::paths::Cache;
use checkpoint_keeper_testcluster::tools::Tools;

use crate::repository::repository;

pub(crate) fn run() -> anyhow::Result<()> {
    let tools = Tools::provide(&Cache::of_user()?)?;
    for (name, content) in chart::manifests(&tools.helm(), &repository())? {
        let path = repository().join("config/deploy").join(name);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        println!("config/deploy/{name}");
    }
    Ok(())
}

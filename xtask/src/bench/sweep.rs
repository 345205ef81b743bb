//! A sweep in which nothing has changed: list, stat, compare, plan.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, ensure};
use checkpoint_keeper_core::engine::View;
use checkpoint_keeper_core::engine::config::EngineConfig;
use checkpoint_keeper_core::plan::plan;
use checkpoint_keeper_node::driver::{Driver, Event};

use super::directory::Bench;
use super::row::{Budget, Row};
use super::timing::{self, milliseconds, silently};
use super::{first_index, policies};

const ID: &str = "sweep-unchanged";
const POLICIES: usize = 20;

/// How many times longer than `find` it may take.
const TIMES: f64 = 1.5;

pub(super) fn rows(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let archives = bench.either(10_000, 2_000);
    let directory = bench.population(archives)?;
    let row = row(ID, &directory, archives, bench.either(21, 11))?;
    Ok(vec![row.budget(Budget::TimesBaseline(TIMES))])
}

/// The sweep of a population.
pub(super) fn row(id: &'static str, directory: &Path, archives: usize, rounds: usize) -> anyhow::Result<Row> {
    let mut driver = first_index::look(directory, archives)?;
    driver.configure(EngineConfig::policies(policies::set(POLICIES)));
    let find = || silently(Command::new("find").arg(directory).args(["-printf", "%i %s %T@\\n"]));
    sweep(&mut driver)?;
    find()?;
    let (sweeps, finds) = timing::in_turns(rounds, || sweep(&mut driver).map(drop), find)?;
    let view = sweep(&mut driver)?;
    let now = jiff::Timestamp::now();
    let plans = timing::rounds(7, || Ok(plan(&view.snapshot, &view.policies, now)))?.median();
    let what = format!("{archives} unchanged archives, {POLICIES} policies: list, compare, plan");
    Ok(Row::new(id, what, milliseconds(sweeps.median()), "ms")
        .baseline("find -printf '%i %s %T@\\n'", milliseconds(finds.median()))
        .samples(sweeps.len())
        .note(format!("the plan alone {:.1} ms", milliseconds(plans))))
}

fn sweep(driver: &mut Driver) -> anyhow::Result<Arc<View>> {
    let (mut problems, mut last) = (Vec::new(), None);
    driver.plan(|event| match event {
        Event::Planned(view) => last = Some(Arc::clone(view)),
        Event::Problem(problem) => problems.push(problem.to_string()),
        _ => {}
    });
    ensure!(problems.is_empty(), "{problems:?}");
    let view = last.context("no plan was made")?;
    ensure!(view.plan.deletions().count() == 0, "the plan takes something");
    Ok(view)
}

//! A sweep in which nothing has changed: list, stat, compare, plan.

use std::path::Path;
use std::process::Command;

use anyhow::ensure;
use checkpoint_keeper_core::plan::plan;
use checkpoint_keeper_core::policy::PolicySet;
use checkpoint_keeper_node::clock::Now;
use checkpoint_keeper_node::collector::Collector;

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
    let policies = policies::set(POLICIES);
    let mut collector = first_index::look(directory, archives)?;
    let find = || silently(Command::new("find").arg(directory).args(["-printf", "%i %s %T@\\n"]));
    sweep(&mut collector, &policies)?;
    find()?;
    let (sweeps, finds) = timing::in_turns(rounds, || sweep(&mut collector, &policies), find)?;
    let what = format!("{archives} unchanged archives, {POLICIES} policies: look, snapshot, plan");
    Ok(Row::new(id, what, milliseconds(sweeps.median()), "ms")
        .baseline("find -printf '%i %s %T@\\n'", milliseconds(finds.median()))
        .samples(sweeps.len())
        .note(parts(&mut collector, &policies)?))
}

fn sweep(collector: &mut Collector, policies: &PolicySet) -> anyhow::Result<()> {
    let now = Now::read();
    let problems = collector.look(now, &mut |_, _| {});
    let (snapshot, more) = collector.snapshot(now);
    ensure!(problems.is_empty() && more.is_empty(), "{problems:?} {more:?}");
    let plan = plan(&snapshot, policies, now.wall);
    ensure!(plan.deletions().count() == 0, "the plan takes something");
    Ok(())
}

/// What each part of it takes.
fn parts(collector: &mut Collector, policies: &PolicySet) -> anyhow::Result<String> {
    let now = Now::read();
    let rounds = 7;
    let looks = timing::rounds(rounds, || Ok(collector.look(now, &mut |_, _| {})))?.median();
    let snapshots = timing::rounds(rounds, || Ok(collector.snapshot(now)))?.median();
    let (snapshot, _) = collector.snapshot(now);
    let plans = timing::rounds(rounds, || Ok(plan(&snapshot, policies, now.wall)))?.median();
    let [look, snapshot, plan] = [looks, snapshots, plans].map(milliseconds);
    Ok(format!("look {look:.1} ms, snapshot {snapshot:.1} ms, plan {plan:.1} ms"))
}

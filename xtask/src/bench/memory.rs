//! Resident memory of a collector at work, without a cluster; `--cluster` measures the agent's.

use std::path::Path;
use std::thread;
use std::time::Duration;

use super::directory::Bench;
use super::engine::Engine;
use super::process;
use super::row::{Budget, Row};

const ID: &str = "memory";
const POLICIES: usize = 200;

/// MiB with no archive, with 10 000 and with 100 000.
pub(super) const MOST_IDLE: f64 = 16.0;
pub(super) const MOST_10K: f64 = 30.0;
pub(super) const MOST_100K: f64 = 90.0;

/// Seconds between two sweeps, more than one takes on a busy machine, and time for a few of them.
const INTERVAL: u64 = 3;
const SWEEPS: Duration = Duration::from_secs(10);

pub(super) fn rows(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let mut rows = vec![row(bench, &bench.empty("idle")?, 0, MOST_IDLE)?];
    // A smaller directory has to make do with the same memory.
    for (archives, quick, most) in [(10_000, 2_000, MOST_10K), (100_000, 10_000, MOST_100K)] {
        let archives = bench.either(archives, quick);
        let directory = bench.population(archives)?;
        rows.push(row(bench, &directory, archives, most)?);
    }
    Ok(rows)
}

fn row(bench: &Bench, directory: &Path, archives: usize, most: f64) -> anyhow::Result<Row> {
    let engine = Engine::start(bench, directory, POLICIES, INTERVAL, None)?;
    thread::sleep(SWEEPS);
    let (resident, highest) = process::resident(engine.pid())?;
    let what = format!("{archives} archives, {POLICIES} policies, after a few sweeps: resident");
    Ok(Row::new(ID, what, resident, "MiB")
        .budget(Budget::AtMost(most))
        .note(format!("at most {highest:.1} MiB; {}", engine.what)))
}

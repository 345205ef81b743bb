//! The first look at a directory: every archive has to be identified.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use checkpoint_keeper_node::clock::Now;
use checkpoint_keeper_node::collector::Collector;
use checkpoint_keeper_node::store::Store;

use super::directory::Bench;
use super::policies;
use super::row::{Budget, Row};
use super::timing::{self, milliseconds, silently};

const ID: &str = "first-index";

/// Milliseconds for each archive: a second for 10 000.
const EACH: f64 = 0.1;

pub(super) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let archives = bench.either(10_000, 1_000);
    let (directory, bytes) = bench.real(archives)?;
    let rows = measure(bench, &directory, archives, bytes);
    // Gigabytes, and nobody else asks for them.
    std::fs::remove_dir_all(&directory)?;
    rows
}

fn measure(bench: &Bench, directory: &Path, archives: usize, bytes: u64) -> anyhow::Result<Vec<Row>> {
    let budget = Budget::AtMost(EACH * archives as f64);
    let note = format!("{archives} written copies of this repository's real archives, {} MiB", bytes >> 20);
    let mut rows = Vec::new();
    let find = || silently(Command::new("find").arg(directory).args(["-printf", "%f\\n"]));
    // Once for the page cache.
    look(directory, archives)?;
    find()?;
    let (looks, finds) = timing::in_turns(5, || look(directory, archives), find)?;
    rows.push(
        Row::new(ID, "engine: list and identify", milliseconds(looks.median()), "ms")
            .baseline("find -printf '%f\\n'", milliseconds(finds.median()))
            .budget(budget)
            .samples(looks.len())
            .note(note.clone()),
    );
    let what = "gc --dry-run --output json, the whole command";
    if let Some(binary) = &bench.binary {
        let policies = policies::write(bench.path(), 1)?;
        let collect = || {
            let mut command = Command::new(binary);
            command.arg("gc").arg(directory).arg("--policy").arg(&policies);
            silently(command.args(["--dry-run", "--output", "json"]))
        };
        let (collections, finds) = timing::in_turns(5, collect, find)?;
        rows.push(
            Row::new(ID, what, milliseconds(collections.median()), "ms")
                .baseline("find -printf '%f\\n'", milliseconds(finds.median()))
                .budget(budget)
                .samples(collections.len())
                .note(note),
        );
    } else {
        rows.push(Row::skipped(ID, what, "checkpoint-keeper is not built"));
    }
    Ok(rows)
}

/// One first look.
pub(super) fn look(directory: &Path, archives: usize) -> anyhow::Result<Collector> {
    let now = Now::read();
    let mut collector = Collector::new(Store::open(directory)?, Duration::from_secs(5));
    let problems = collector.look(now, &mut |_, _| {});
    ensure!(problems.is_empty(), "{problems:?}");
    let read = collector.index().iter().filter(|(_, known)| known.read.is_some()).count();
    ensure!(read == archives, "{read} of {archives} archives were read");
    Ok(collector)
}

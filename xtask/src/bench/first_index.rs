//! The first look at a directory, warm and cold: every archive has to be identified.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::ensure;
use checkpoint_keeper_core::engine::Settings;
use checkpoint_keeper_node::driver::{CatalogUse, Driver, Event};
use checkpoint_keeper_node::store::Store;

use super::directory::Bench;
use super::machine;
use super::policies;
use super::reads::Reads;
use super::row::{Budget, Row};
use super::timing::{self, milliseconds, silently};

const ID: &str = "first-index";

/// Milliseconds for each archive, warm: a quarter of a second for 10 000.
const EACH: f64 = 0.025;

/// How many times longer than the reads alone it may take, cold.
const TIMES_COLD: f64 = 2.0;

pub(super) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let archives = bench.either(10_000, 1_000);
    let (directory, bytes) = bench.real(archives)?;
    let rows = measure(bench, &directory, archives, bytes);
    // It holds gigabytes that no other measurement needs.
    std::fs::remove_dir_all(&directory)?;
    rows
}

fn measure(bench: &Bench, directory: &Path, archives: usize, bytes: u64) -> anyhow::Result<Vec<Row>> {
    let note = format!("{archives} written copies of this repository's real archives, {} MiB", bytes >> 20);
    // Also what fills the page cache.
    let reads = Reads::of(directory)?;
    let look = || look(directory, archives).map(drop);
    let mut rows = vec![warm("engine: list and identify", directory, archives, &reads, &note, look)?];
    if let Some(binary) = &bench.binary {
        let what = "gc --dry-run --output json, the whole command";
        let policies = policies::write(bench.path(), 1)?;
        let collect = || {
            let mut command = Command::new(binary);
            command.arg("gc").arg(directory).arg("--policy").arg(&policies);
            silently(command.args(["--dry-run", "--output", "json"]))
        };
        // Reading the program itself is no part of it.
        let load = || silently(Command::new(binary).arg("--version"));
        rows.push(warm(what, directory, archives, &reads, &note, collect)?);
        rows.push(cold(what, &reads, load, collect)?);
    } else {
        rows.push(Row::skipped(ID, "gc --dry-run", "checkpoint-keeper is not built"));
        rows.push(cold("engine: list and identify", &reads, || Ok(()), look)?);
    }
    Ok(rows)
}

fn warm(
    what: &str,
    directory: &Path,
    archives: usize,
    reads: &Reads,
    note: &str,
    mut index: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Row> {
    let find = || silently(Command::new("find").arg(directory).args(["-printf", "%f\\n"]));
    index()?;
    find()?;
    let (indexes, finds) = timing::in_turns(5, index, find)?;
    let reads = timing::rounds(5, || reads.again())?;
    let what = format!("{what}, warm");
    Ok(Row::new(ID, what, milliseconds(indexes.median()), "ms")
        .baseline("find -printf '%f\\n'", milliseconds(finds.median()))
        .budget(Budget::AtMost(EACH * archives as f64))
        .samples(indexes.len())
        .note(format!("{note}; the reads alone {:.1} ms", milliseconds(reads.median()))))
}

fn cold(
    what: &str,
    reads: &Reads,
    load: impl Fn() -> anyhow::Result<()>,
    index: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Row> {
    let what = format!("{what}, cold");
    if let Err(error) = machine::forget_files() {
        return Ok(Row::skipped(
            ID,
            what,
            format!("the kernel cannot be told to forget what it read: {error}"),
        ));
    }
    let forget = || {
        machine::forget_files()?;
        load()
    };
    let (indexes, alone) = timing::in_prepared_turns(3, forget, index, || reads.again())?;
    let baseline = format!("the same reads alone, {} KiB, {} readers", reads.bytes >> 10, reads.readers);
    Ok(Row::new(ID, what, milliseconds(indexes.median()), "ms")
        .baseline(baseline, milliseconds(alone.median()))
        .budget(Budget::TimesBaseline(TIMES_COLD))
        .samples(indexes.len())
        .note("the kernel's caches were dropped before each"))
}

/// One first look.
pub(super) fn look(directory: &Path, archives: usize) -> anyhow::Result<Driver> {
    let settings = Settings { settle: Duration::from_secs(5), ..Settings::default() };
    let (mut driver, _) = Driver::new(Store::open(directory)?, settings, CatalogUse::None);
    let mut problems = Vec::new();
    driver.plan(|event| {
        if let Event::Problem(problem) = event {
            problems.push(problem.to_string());
        }
    });
    ensure!(problems.is_empty(), "{problems:?}");
    let read = driver.engine().index().iter().filter(|(_, known)| known.read.is_some()).count();
    ensure!(read == archives, "{read} of {archives} archives were read");
    Ok(driver)
}

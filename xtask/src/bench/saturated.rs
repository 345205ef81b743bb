//! How long after an archive was closed the surplus one is gone, while the catalog's disk is kept busy.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::close_to_unlink::{INTERVAL, POLICIES, displace_again_and_again, row};
use super::directory::{self, Bench, PER_CONTAINER};
use super::engine::Engine;
use super::row::Row;
use super::saturation::{self, Saturation};
use super::timing::milliseconds;

const ID: &str = "close-to-unlink-saturated";

/// Milliseconds, at the 99th percentile.
const MOST: f64 = 50.0;

/// Where archives lie that are on no disk.
const MEMORY: &str = "/dev/shm";

/// Until all writers are at it.
const BEGIN: Duration = Duration::from_secs(2);

/// How many small writes tell how busy the disk is.
const PROBES: usize = 20;

pub(super) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let archives = bench.either(10_000, 2_000);
    let what = format!(
        "{archives} archives present, the catalog's disk saturated, one more closed: until the surplus one is gone"
    );
    let disk = bench.empty("saturated")?;
    // The archives lie on another file system: what their own disk takes is not the collector's doing.
    let memory = match other_file_system(&disk) {
        Ok(memory) => memory,
        Err(why) => return Ok(vec![Row::skipped(ID, what, why)]),
    };
    if let Err(error) = directory::populate(memory.path(), archives, PER_CONTAINER) {
        let why = format!("the archives do not fit into {MEMORY}: {error:#}");
        return Ok(vec![Row::skipped(ID, what, why)]);
    }
    let state = disk.join("catalog");
    let engine = Engine::start(bench, memory.path(), POLICIES, INTERVAL, Some(&state))?;
    let quiet = saturation::writes(&disk, PROBES)?;
    let saturation = Saturation::start(&disk)?;
    thread::sleep(BEGIN);
    let busy = saturation::writes(&disk, PROBES)?;
    let times = displace_again_and_again(memory.path(), archives, bench.either(400, 50))?;
    saturation.end()?;
    let [quiet, busy] = [quiet, busy].map(|writes| milliseconds(writes.median()));
    let note = format!(
        "archives in {MEMORY}; on the catalog's disk a write of 4 KiB with its fsync took {quiet:.1} ms before \
         and {busy:.1} ms meanwhile; {}",
        engine.what
    );
    Ok(vec![row(ID, what, MOST, &times, &note)])
}

/// A directory in memory; why there is none where `disk` lies there, too.
fn other_file_system(disk: &Path) -> Result<tempfile::TempDir, String> {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).map_err(|error| error.to_string());
    if device(disk)? == device(Path::new(MEMORY))? {
        return Err("the temporary directory is on no disk: --dir names one that is".to_owned());
    }
    let mut builder = tempfile::Builder::new();
    builder.prefix("checkpoint-keeper-bench-").tempdir_in(MEMORY).map_err(|error| error.to_string())
}

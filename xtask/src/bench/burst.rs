//! Many archives that arrive at once: what that costs, and how long until all is decided.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use jiff::Timestamp;

use super::close_to_unlink::Deletions;
use super::directory::{self, Bench, PER_CONTAINER};
use super::engine::Engine;
use super::process::{self, TICK};
use super::row::{Budget, Row};
use super::timing::{Times, milliseconds};

const ID: &str = "burst";
const POLICIES: usize = 20;

/// How many arrive, and within which time.
const ARRIVING: usize = 1_000;
const WITHIN: Duration = Duration::from_millis(100);

/// How many arrive at one moment.
const TOGETHER: usize = 10;

/// Milliseconds beside 10 000 and beside 100 000: of CPU time, and until all is decided.
const MOST_10K: f64 = 200.0;
const MOST_100K: f64 = 500.0;

/// No look at everything falls between.
const INTERVAL: u64 = 3_600;

/// What it still does once all are gone belongs to it.
const AFTERWARDS: Duration = Duration::from_millis(500);

pub(super) fn rows(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    // A smaller directory has to make do with the same time.
    for (archives, quick, most) in [(10_000, 2_000, MOST_10K), (100_000, 10_000, MOST_100K)] {
        let archives = bench.either(archives, quick);
        rows.extend(beside(bench, archives, most)?);
    }
    Ok(rows)
}

fn beside(bench: &mut Bench, archives: usize, most: f64) -> anyhow::Result<Vec<Row>> {
    let directory = bench.population(archives)?;
    let nursery = bench.empty(&format!("arriving-{archives}"))?;
    let engine = Engine::start(bench, &directory, POLICIES, INTERVAL, None)?;
    let (mut cpu, mut decided, mut after) = (Vec::new(), Vec::new(), Vec::new());
    for burst in 0..bench.either(7, 3) {
        let arriving = prepare(&nursery, burst, archives / PER_CONTAINER)?;
        let took = arrive(&directory, &arriving, &engine)?;
        cpu.push(took.cpu);
        decided.push(took.decided);
        after.push(took.after);
    }
    let [cpu, decided, after] = [cpu, decided, after].map(Times::new);
    let what = format!("{ARRIVING} archives within {WITHIN:?} beside {archives}");
    let row = |what, times: &Times, note| {
        let most = Budget::AtMost(most);
        Row::new(ID, what, milliseconds(times.median()), "ms").budget(most).samples(times.len()).note(note)
    };
    let most_cpu = milliseconds(cpu.percentile(100));
    let (last, most_decided) = (milliseconds(after.median()), milliseconds(decided.percentile(100)));
    Ok(vec![
        row(
            format!("{what}: CPU time"),
            &cpu,
            format!("in steps of {TICK:?}; max {most_cpu} ms; {}", engine.what),
        ),
        row(
            format!("{what}: from the first one until the last surplus one is gone"),
            &decided,
            format!("max {most_decided:.0} ms; {last:.0} ms from the last one; {}", engine.what),
        ),
    ])
}

/// What a burst took.
struct Took {
    cpu: Duration,
    /// From the first arrival, and from the last one.
    decided: Duration,
    after: Duration,
}

/// Writes what is to arrive: each displaces the oldest archive of its container.
fn prepare(nursery: &Path, burst: usize, containers: usize) -> anyhow::Result<Vec<PathBuf>> {
    // Newer than any of the population, and no two of the same name.
    let begin = Timestamp::now().checked_sub(Duration::from_hours(24))?;
    let arriving = (0..ARRIVING).map(|place| {
        let after = Duration::from_secs((burst * ARRIVING + place) as u64);
        Ok(directory::archive(place % containers, begin.checked_add(after)?).write_to(nursery)?)
    });
    arriving.collect()
}

/// Moves them into place, a few at a time, and waits until as many are gone.
fn arrive(directory: &Path, arriving: &[PathBuf], engine: &Engine) -> anyhow::Result<Took> {
    let deletions = Deletions::watch(directory)?;
    let before = process::cpu_of_all(engine.pid())?;
    let start = Instant::now();
    let moments = arriving.chunks(TOGETHER);
    let step = WITHIN / u32::try_from(moments.len())?;
    for (due, together) in (0..).map(|moment| step * moment).zip(moments) {
        thread::sleep(due.saturating_sub(start.elapsed()));
        for archive in together {
            let name = archive.file_name().unwrap_or_default();
            std::fs::rename(archive, directory.join(name))?;
        }
    }
    let arrived = start.elapsed();
    deletions.wait_for(arriving.len())?;
    let decided = start.elapsed();
    thread::sleep(AFTERWARDS);
    ensure!(deletions.gone()? == 0, "more were deleted than are surplus");
    let cpu = process::cpu_of_all(engine.pid())?.saturating_sub(before);
    Ok(Took { cpu, decided, after: decided.saturating_sub(arrived) })
}

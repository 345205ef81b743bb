//! How long after an archive was closed the surplus one is gone.

use std::fs::File;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use super::directory::{self, Bench, PER_CONTAINER};
use super::engine::Engine;
use super::row::{Budget, Row};
use super::timing::{Times, milliseconds};

const ID: &str = "close-to-unlink";
/// Milliseconds, at the 99th percentile.
pub(super) const MOST: f64 = 20.0;
pub(super) const POLICIES: usize = 20;

/// An engine that has not deleted by then does not.
const DEADLINE: Duration = Duration::from_secs(10);

/// A look at everything falls between the samples now and then, as it does on a node.
pub(super) const INTERVAL: u64 = 5;

pub(super) fn rows(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let archives = bench.either(10_000, 2_000);
    let samples = bench.either(400, 50);
    let directory = bench.population(archives)?;
    let engine = Engine::start(bench, &directory, POLICIES, INTERVAL, None)?;
    let times = displace_again_and_again(&directory, archives, samples)?;
    let what = format!("{archives} archives present, one more closed: until the surplus one is gone");
    Ok(vec![row(ID, what, MOST, &times, engine.what)])
}

/// A row of such times.
pub(super) fn row(id: &'static str, what: String, most: f64, times: &Times, note: &str) -> Row {
    let [half, longest] = [50, 100].map(|percent| milliseconds(times.percentile(percent)));
    Row::new(id, what, milliseconds(times.percentile(99)), "ms")
        .budget(Budget::AtMost(most))
        .samples(times.len())
        .note(format!("p99; p50 {half:.1} ms, max {longest:.1} ms; the unlink included; {note}"))
}

/// Closes one archive after the other in a population; how long each time until one is gone.
pub(super) fn displace_again_and_again(
    directory: &Path,
    archives: usize,
    samples: usize,
) -> anyhow::Result<Times> {
    let deletions = Deletions::watch(directory)?;
    let mut times = Vec::new();
    for sample in 0..samples {
        // Every container has as many archives as it may: one more, and its oldest goes.
        let container = sample * 7 % (archives / PER_CONTAINER);
        times.push(displace(directory, container, &deletions)?);
    }
    Ok(Times::new(times))
}

/// Closes one more archive of a container; how long until one is gone.
pub(super) fn displace(
    directory: &Path,
    container: usize,
    deletions: &Deletions,
) -> anyhow::Result<Duration> {
    let archive = directory::archive(container, Timestamp::now());
    let bytes = archive.build()?;
    let mut file = File::create(directory.join(archive.file_name()))?;
    file.write_all(&bytes)?;
    let closed = Instant::now();
    drop(file);
    deletions.wait_for(1)?;
    Ok(closed.elapsed())
}

/// Notice of deletions in a directory.
pub(super) struct Deletions(OwnedFd);

impl Deletions {
    pub(super) fn watch(directory: &Path) -> anyhow::Result<Self> {
        let notices = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        inotify::add_watch(&notices, directory, WatchFlags::DELETE)?;
        Ok(Self(notices))
    }

    /// Waits until so many are gone. An error where there are more.
    pub(super) fn wait_for(&self, surplus: usize) -> anyhow::Result<()> {
        let timeout = Timespec::try_from(DEADLINE).context("a deadline")?;
        let mut gone = 0;
        while gone < surplus {
            if poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout))? == 0 {
                bail!(
                    "{gone} archives were deleted where {surplus} are surplus, and no more in {DEADLINE:?}"
                );
            }
            gone += self.gone()?;
        }
        ensure!(gone == surplus, "{gone} archives were deleted where {surplus} are surplus");
        Ok(())
    }

    /// How many are gone since the last call; does not wait.
    pub(super) fn gone(&self) -> anyhow::Result<usize> {
        let mut buffer = [MaybeUninit::uninit(); 4 << 10];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let mut gone = 0;
        loop {
            match reader.next() {
                Ok(event) => gone += usize::from(event.events().contains(ReadFlags::DELETE)),
                Err(Errno::WOULDBLOCK) => return Ok(gone),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

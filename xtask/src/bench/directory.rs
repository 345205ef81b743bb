//! Directories of archives to measure with, all below one that is removed at the end.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use checkpoint_keeper_testkit::ArchiveBuilder;
use jiff::Timestamp;
use tempfile::TempDir;

use crate::image::{self, Architecture, Program};

/// The repository.
pub(super) const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// How many archives each container of a population has: the limit of all policies here.
pub(super) const PER_CONTAINER: usize = 20;

/// How many namespaces a population is spread over, at most.
pub(super) const NAMESPACES: usize = 1_000;

/// Real archives are used up to this size: 10 000 of them then fit into any page cache.
const LARGEST_COPY: u64 = 400_000;

/// The run: where it happens and how thorough it is.
pub(super) struct Bench {
    directory: TempDir,
    /// Whether a first impression is enough.
    pub(super) quick: bool,
    /// The program that users run, if it has been built.
    pub(super) binary: Option<PathBuf>,
    populations: HashMap<usize, PathBuf>,
}

impl Bench {
    pub(super) fn new(below: Option<&Path>, quick: bool) -> anyhow::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("checkpoint-keeper-bench-");
        let directory = match below {
            Some(below) => builder.tempdir_in(below),
            None => builder.tempdir(),
        };
        let directory = directory.context("failed to make a temporary directory")?;
        // This program and that one are built into the same directory.
        let binary =
            Some(image::program(Program::Operator, Architecture::Amd64)).filter(|program| program.is_file());
        Ok(Self { directory, quick, binary, populations: HashMap::new() })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// One or the other.
    pub(super) fn either<T>(&self, thorough: T, quick: T) -> T {
        if self.quick { quick } else { thorough }
    }

    /// A directory of its own.
    pub(super) fn empty(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path().join(name);
        fs::create_dir(&path)?;
        Ok(path)
    }

    /// A directory of so many archives: 20 of each container, an hour apart, the containers spread
    /// over up to 1 000 namespaces. Made once for all who ask for it.
    pub(super) fn population(&mut self, archives: usize) -> anyhow::Result<PathBuf> {
        if let Some(path) = self.populations.get(&archives) {
            return Ok(path.clone());
        }
        let path = self.empty(&format!("population-{archives}"))?;
        populate(&path, archives, PER_CONTAINER)?;
        self.populations.insert(archives, path.clone());
        Ok(path)
    }

    /// A directory of so many copies of real archives, and their bytes.
    pub(super) fn real(&self, archives: usize) -> anyhow::Result<(PathBuf, u64)> {
        let path = self.empty("real")?;
        let models: Vec<Vec<u8>> = real_archives()?
            .into_iter()
            .filter(|model| model.metadata().is_ok_and(|metadata| metadata.len() <= LARGEST_COPY))
            .map(fs::read)
            .collect::<Result<_, _>>()?;
        let mut bytes = 0;
        for (place, model) in models.iter().cycle().take(archives).enumerate() {
            let (minute, second) = (place / 60 % 60, place % 60);
            let (day, hour) = (1 + place / 86_400, place / 3_600 % 24);
            let time = format!("2026-01-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
            let file =
                path.join(format!("checkpoint-web-b97f476fd-{:05}_shop-server-{time}.tar", place % 500));
            write_aged(&file, model, long_ago())?;
            bytes += model.len() as u64;
        }
        Ok((path, bytes))
    }
}

/// Writes so many archives into a directory, so many of each container.
pub(super) fn populate(path: &Path, archives: usize, per_container: usize) -> anyhow::Result<()> {
    let oldest = Timestamp::now().checked_sub(Duration::from_hours(30 * 24))?;
    let threads = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        let write = |first: usize| -> anyhow::Result<()> {
            for place in (first..archives).step_by(threads) {
                let after = Duration::from_secs((place % per_container) as u64 * 3_600);
                write_archive(path, place / per_container, oldest.checked_add(after)?)?;
            }
            Ok(())
        };
        let writers: Vec<_> = (0..threads).map(|first| scope.spawn(move || write(first))).collect();
        writers.into_iter().try_for_each(|writer| {
            writer.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread that writes archives panicked")))
        })
    })
}

/// The kubelet's archives that lie in the repository.
pub(super) fn real_archives() -> anyhow::Result<Vec<PathBuf>> {
    let directory = Path::new(ROOT).join("tests/archives");
    let mut paths = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))? {
        let entry = entry?;
        if entry.file_name().as_encoded_bytes().starts_with(b"checkpoint-") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

/// An archive of container number `container` to be.
pub(super) fn archive(container: usize, at: Timestamp) -> ArchiveBuilder {
    let namespace = format!("team-{}", container % NAMESPACES);
    ArchiveBuilder::new(&namespace, &format!("app-{container}-5dfj4"), "server")
        .uid(&format!("5744a2df-d174-487a-aa0c-{container:012}"))
        .at(&format!("{at:.9}"))
        .pages(512)
}

fn write_archive(directory: &Path, container: usize, at: Timestamp) -> anyhow::Result<()> {
    let archive = archive(container, at);
    write_aged(&directory.join(archive.file_name()), &archive.build()?, at.into())
}

/// A file that was last written long ago, so that it counts as settled.
pub(super) fn write_aged(path: &Path, bytes: &[u8], at: SystemTime) -> anyhow::Result<()> {
    let mut file = File::create(path)?;
    std::io::Write::write_all(&mut file, bytes)?;
    Ok(file.set_modified(at)?)
}

pub(super) fn long_ago() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_750_000_000)
}

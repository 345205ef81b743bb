//! The reads that a first look consists of, without anything else: what it cannot be faster than.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::Context as _;
use checkpoint_keeper_core::archive;
use rustix::fs::{Advice, fadvise};

use super::identify::Counted;

/// As many as a collector has at most.
const MOST_READERS: usize = 4;

/// What is read of each archive of a directory, in the order in which the directory lists them.
pub(super) struct Reads {
    files: Vec<(PathBuf, Vec<Range>)>,
    pub(super) bytes: u64,
    pub(super) readers: usize,
}

/// Where in a file, and how much.
pub(super) type Range = (u64, usize);

impl Reads {
    /// Identifies each archive, and notes what is read for that.
    pub(super) fn of(directory: &Path) -> anyhow::Result<Self> {
        let readers = thread::available_parallelism()?.get().min(MOST_READERS);
        let mut reads = Self { files: Vec::new(), bytes: 0, readers };
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let mut source = Counted::new(File::open(&path)?);
            archive::read(&mut source)?;
            reads.bytes += source.bytes;
            reads.files.push((path, source.ranges));
        }
        Ok(reads)
    }

    /// Reads the same again.
    pub(super) fn again(&self) -> anyhow::Result<()> {
        let next = AtomicUsize::new(0);
        let work = || -> anyhow::Result<()> {
            let mut buffer = Vec::new();
            while let Some((path, ranges)) = self.files.get(next.fetch_add(1, Ordering::Relaxed)) {
                let file = File::open(path)?;
                // These bytes, and none that the kernel thinks may be asked for next.
                fadvise(&file, 0, None, Advice::Random)?;
                for &(offset, length) in ranges {
                    buffer.resize(length.max(buffer.len()), 0);
                    file.read_exact_at(buffer.get_mut(..length).context("a buffer")?, offset)?;
                }
            }
            Ok(())
        };
        thread::scope(|scope| {
            let readers: Vec<_> = (0..self.readers).map(|_| scope.spawn(work)).collect();
            readers.into_iter().try_for_each(|reader| {
                reader
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a thread that reads archives panicked")))
            })
        })
    }
}

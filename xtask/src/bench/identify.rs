//! What it takes to tell whose checkpoint an archive is: bytes read, and time.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use checkpoint_keeper_core::archive;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_node::store::Store;

use super::directory::{self, Bench};
use super::reads::Range;
use super::row::{Budget, Row};
use super::timing::{self, Times, microseconds};

const KIB: u64 = 1 << 10;
const GIB: u64 = 1 << 30;

/// What may be read besides the JSON members, and for each member.
const BYTES: u64 = 64 * KIB;
const BYTES_PER_MEMBER: u64 = 512;

/// Microseconds, up to how many members, and for each further one.
const TIME: f64 = 200.0;
const TIME_MEMBERS: u64 = 100;
const TIME_PER_MEMBER: f64 = 2.0;

/// Rounds of a streamed 2 GiB archive: half a second each.
const STREAMS: usize = 3;

/// An archive to identify.
pub(super) struct Subject {
    pub(super) what: String,
    pub(super) path: PathBuf,
    /// Whether streaming it takes reasonable time.
    pub(super) streamed: bool,
    members: u64,
    json_bytes: u64,
}

/// Bytes read, by counting them.
pub(super) fn bytes(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    subjects(bench, "identify-bytes")?.iter().map(bytes_row).collect()
}

fn bytes_row(subject: &Subject) -> anyhow::Result<Row> {
    let budget = BYTES + subject.json_bytes + BYTES_PER_MEMBER * subject.members;
    let read = count(&subject.path)?;
    let mut row = Row::new("identify-bytes", &subject.what, read.bytes as f64, "B");
    if subject.streamed {
        row = row.baseline("streaming the tar", stream(&subject.path)? as f64);
    }
    let (members, reads, json) = (subject.members, read.ranges.len(), subject.json_bytes);
    let note = format!("{members} members, {json} B of JSON, {reads} reads");
    Ok(row.budget(Budget::AtMost(budget as f64)).note(note))
}

/// Time, through the store as a collector does it: open, stat, read, close.
pub(super) fn time(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let rounds = bench.either(500, 100);
    subjects(bench, "identify-time")?.iter().map(|subject| time_row(subject, rounds)).collect()
}

fn time_row(subject: &Subject, rounds: usize) -> anyhow::Result<Row> {
    let further = subject.members.saturating_sub(TIME_MEMBERS);
    let budget = TIME + TIME_PER_MEMBER * further as f64;
    let times = identify_again_and_again(&subject.path, rounds)?;
    let mut row = Row::new("identify-time", &subject.what, microseconds(times.median()), "µs");
    if subject.streamed {
        let streams = timing::rounds(STREAMS, || stream(&subject.path))?;
        row = row.baseline("streaming the tar", microseconds(streams.median()));
    }
    let p99 = microseconds(times.percentile(99));
    let note = format!("{} members; p99 {p99:.0} µs", subject.members);
    Ok(row.budget(Budget::AtMost(budget)).samples(times.len()).note(note))
}

/// Times the identification of an archive through its directory's store.
pub(super) fn identify_again_and_again(path: &Path, rounds: usize) -> anyhow::Result<Times> {
    let store = Store::open(path.parent().context("an archive lies in a directory")?)?;
    let name = path.file_name().and_then(|name| FileName::new(name.as_encoded_bytes()));
    let name = name.context("an archive has a name")?;
    let stat = store.stat(&name)?.context("the archive is gone")?;
    let identify = || {
        let contents = store.read(&name, &stat)?.context("the archive changed")?;
        ensure!(contents.state.is_archive(), "the archive cannot be read");
        Ok(contents)
    };
    identify()?;
    timing::rounds(rounds, identify)
}

/// All archives that are identified: sparse ones of two sizes, one of many members, real ones.
fn subjects(bench: &Bench, directory: &str) -> anyhow::Result<Vec<Subject>> {
    let directory = bench.empty(directory)?;
    let mut subjects = sparse(&directory)?;
    let many = directory::archive(3, jiff::Timestamp::now()).extra_members(1_000);
    subjects.push(Subject::new("1 000 small members more", many.write_to(&directory)?, true)?);
    for path in directory::real_archives()? {
        let size = path.metadata()?.len();
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let kept = file.trim_start_matches("checkpoint-").trim_end_matches(".tar").to_owned();
        subjects.push(Subject::new(&format!("real, {} KiB: {kept}", size / KIB), path, true)?);
    }
    Ok(subjects)
}

/// Archives whose memory pages are a hole.
pub(super) fn sparse(directory: &Path) -> anyhow::Result<Vec<Subject>> {
    let mut subjects = Vec::new();
    for (container, gib) in [2, 28].into_iter().enumerate() {
        let archive = directory::archive(container, jiff::Timestamp::now());
        let path = archive.write_sparse(directory, gib * GIB)?;
        subjects.push(Subject::new(&format!("{gib} GiB, sparse"), path, gib < 10)?);
    }
    Ok(subjects)
}

impl Subject {
    fn new(what: &str, path: PathBuf, streamed: bool) -> anyhow::Result<Self> {
        let mut tar = tar::Archive::new(File::open(&path)?);
        let (mut members, mut json_bytes) = (0, 0);
        // A truncated archive has members up to where it ends.
        for entry in tar.entries_with_seek()?.map_while(Result::ok) {
            members += 1;
            if matches!(&*entry.path_bytes(), b"config.dump" | b"spec.dump") {
                json_bytes += entry.size();
            }
        }
        Ok(Self { what: what.to_owned(), path, streamed, members, json_bytes })
    }
}

/// Reads all of an archive in order, as a program does that cannot seek; how many bytes that is.
fn stream(path: &Path) -> anyhow::Result<u64> {
    let mut tar = tar::Archive::new(Counted::new(File::open(path)?));
    for entry in tar.entries()? {
        // A truncated archive ends within an entry, or between two.
        let Ok(mut entry) = entry else { break };
        if io::copy(&mut entry, &mut io::sink()).is_err() {
            break;
        }
    }
    Ok(tar.into_inner().bytes)
}

fn count(path: &Path) -> anyhow::Result<Counted> {
    let mut source = Counted::new(File::open(path)?);
    archive::read(&mut source)?;
    Ok(source)
}

/// A file, and what was read of it.
pub(super) struct Counted {
    file: File,
    position: u64,
    pub(super) bytes: u64,
    pub(super) ranges: Vec<Range>,
}

impl Counted {
    pub(super) fn new(file: File) -> Self {
        Self { file, position: 0, bytes: 0, ranges: Vec::new() }
    }
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.ranges.push((self.position, read));
        self.position += read as u64;
        self.bytes += read as u64;
        Ok(read)
    }
}

impl Seek for Counted {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = self.file.seek(to)?;
        Ok(self.position)
    }
}

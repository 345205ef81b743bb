//! The directory that archives lie in, by a handle that is held, and the only `unlinkat`.
//!
//! Everything here goes by a name relative to the held handle and follows no symbolic link, so
//! that nothing outside the directory can be read or removed, whatever happens to the path.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use checkpoint_keeper_core::archive::{self, Contents, Format, Inspection, ReadOptions};
use checkpoint_keeper_core::engine::file::{Listing, Looked, Removal, Sighting, Stat};
use checkpoint_keeper_core::name::{FileName, NameKind};
use checkpoint_keeper_core::plan::{FileSystem, Release};
use checkpoint_keeper_sys::lease::ReadLease;
use rustix::fs::{Advice, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

/// A directory of archives.
#[derive(Debug)]
pub struct Store {
    handle: OwnedFd,
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Why leases do not work here, once that was found out: then it is unknown whether a process writes to a file.
    no_leases: OnceLock<io::Error>,
    /// Held while an archive is read that takes much memory, so that only one is at a time: a window or a JSON member is
    /// up to 16 MiB, and an agent's pod has a memory limit.
    large: Mutex<()>,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be opened.
    #[error("cannot open the directory {path}")]
    Open {
        /// The directory's path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It cannot be looked at.
    #[error("cannot look at the directory {path}")]
    Look {
        /// The directory's path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another collector works there.
    #[error("another collector works on {0}; two on one directory would each delete")]
    Locked(PathBuf),
}

/// Whether the path still leads to the directory that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It does.
    Here,
    /// It leads to another one.
    Replaced,
    /// It leads nowhere.
    Gone,
    /// The system does not say where it leads.
    Unknown(Errno),
    /// It leads here, and the directory was removed: a mount holds it, and nothing new comes in.
    Dead,
}

/// A file as the system describes it.
fn stat_of(stat: &rustix::fs::Stat) -> Stat {
    let nanoseconds = |value: u64| u32::try_from(value).unwrap_or(0);
    Stat {
        device: stat.st_dev,
        inode: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        modified: (stat.st_mtime, nanoseconds(stat.st_mtime_nsec)),
        changed: (stat.st_ctime, nanoseconds(stat.st_ctime_nsec)),
        // `stat` counts in 512 bytes whatever the file system's blocks are.
        allocated: match stat.st_nlink {
            0 | 1 => u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
            _ => 0,
        },
    }
}

impl Store {
    /// Opens a directory and holds its handle.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let fail = |source: Errno| OpenError::Open { path: path.to_owned(), source: source.into() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = rustix::fs::open(path, flags, Mode::empty()).map_err(fail)?;
        let stat = rustix::fs::fstat(&handle).map_err(fail)?;
        Ok(Self {
            handle,
            path: path.to_owned(),
            device: stat.st_dev,
            inode: stat.st_ino,
            no_leases: OnceLock::new(),
            large: Mutex::new(()),
        })
    }

    /// Keeps every other collector off this directory for as long as the store lives.
    pub fn lock(&self) -> Result<(), OpenError> {
        match rustix::fs::flock(&self.handle, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(()),
            Err(Errno::WOULDBLOCK) => Err(OpenError::Locked(self.path.clone())),
            Err(source) => Err(OpenError::Open { path: self.path.clone(), source: source.into() }),
        }
    }

    /// The path that it was opened by, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn handle(&self) -> &OwnedFd {
        &self.handle
    }

    /// Whether the path still leads here.
    pub fn presence(&self) -> Presence {
        match rustix::fs::stat(&self.path) {
            Ok(stat) if (stat.st_dev, stat.st_ino) == (self.device, self.inode) => {
                // A directory that was removed has no name; only a mount of it leads here.
                if stat.st_nlink == 0 { Presence::Dead } else { Presence::Here }
            }
            Ok(_) => Presence::Replaced,
            Err(Errno::NOENT | Errno::NOTDIR) => Presence::Gone,
            Err(error) => Presence::Unknown(error),
        }
    }

    /// Lists and looks at everything that could be an archive.
    pub fn list(&self) -> io::Result<Listing> {
        let mut listing = Listing::default();
        let mut unfinished = Vec::new();
        for entry in Dir::read_from(&self.handle)? {
            let entry = entry?;
            if !matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown | FileType::Directory)
                && !entry.file_name().to_bytes().ends_with(b".keep")
            {
                continue;
            }
            let Some(name) = FileName::new(entry.file_name().to_bytes()) else { continue };
            match name.kind() {
                NameKind::Marker { archive } => _ = listing.pinned.insert(archive),
                NameKind::MarkerBeingWritten => unfinished.push(name),
                NameKind::Other
                    if name.as_bytes().starts_with(b"checkpoint-") && name.as_bytes().ends_with(b".keep") =>
                {
                    listing.misnamed_markers.push(name);
                }
                NameKind::Kubelet | NameKind::OtherTar if entry.file_type() != FileType::Directory => {
                    match self.stat(&name) {
                        Ok(Some(stat)) => listing.files.push((name, stat)),
                        Ok(None) => {}
                        Err(error) => listing.failures.push((name, error)),
                    }
                }
                _ => {}
            }
        }
        listing.strays = self.strays(&listing, unfinished);
        Ok(listing)
    }

    /// The markers without an archive.
    fn strays(&self, listing: &Listing, unfinished: Vec<FileName>) -> Vec<(FileName, Stat)> {
        if listing.pinned.is_empty() && unfinished.is_empty() {
            return Vec::new();
        }
        let mut there: HashSet<&FileName> = listing.files.iter().map(|(name, _)| name).collect();
        // A file whose `stat` failed may still be there.
        there.extend(listing.failures.iter().map(|(name, _)| name));
        let markers = listing.pinned.iter().filter(|archive| !there.contains(archive)).map(FileName::marker);
        // Only regular files are litter.
        let is_file = |marker: FileName| Some((marker.clone(), self.stat(&marker).ok()??));
        markers.chain(unfinished).filter_map(is_file).collect()
    }

    /// How the file of that name looks now; none where the name is of no interest.
    pub fn look(&self, name: &FileName, sighting: Sighting) -> Option<Looked> {
        match name.kind() {
            NameKind::Marker { archive } => {
                let is_pinned = self.is_pinned(&archive);
                Some(Looked::Marker { archive, is_pinned })
            }
            NameKind::Kubelet | NameKind::OtherTar => {
                let (stat, is_pinned) = (self.stat(name), self.is_pinned(name));
                Some(Looked::Archive { name: name.clone(), sighting, stat, is_pinned })
            }
            NameKind::MarkerBeingWritten | NameKind::Other => None,
        }
    }

    /// Looks at one name; none where no regular file has it.
    pub fn stat(&self, name: &FileName) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.handle, name.as_bytes(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok(Some(stat_of(&stat)))
            }
            Ok(_) | Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a marker lies beside the archive. An error counts as a pin. A name that is too long for a file does
    /// not: else archives of pods with long names could never be deleted.
    pub fn is_pinned(&self, archive: &FileName) -> bool {
        let marker = archive.marker();
        let found = rustix::fs::statat(&self.handle, marker.as_bytes(), AtFlags::SYMLINK_NOFOLLOW);
        !matches!(found, Err(Errno::NOENT | Errno::NAMETOOLONG))
    }

    /// Reads what an archive holds; none where the file is no longer the one that `expected`
    /// describes. An error is the system's, and may be gone at the next try. Several may be read at once, but
    /// of those that take much memory only one.
    pub fn read(&self, name: &FileName, expected: &Stat) -> io::Result<Option<Contents>> {
        self.open_archive(name, Some(expected), |source| self.read_alone(source, archive::read_with))
    }

    /// Reads all that an archive can tell.
    pub fn inspect(&self, name: &FileName) -> io::Result<(Stat, Inspection)> {
        let stat = self.stat(name)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        let found = self.open_archive(name, None, |source| self.read_alone(source, archive::inspect_with))?;
        found.map(|inspection| (stat, inspection)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Reads an archive, from where it takes much memory while no other does.
    fn read_alone<T>(
        &self,
        source: &mut ArchiveFile,
        read: impl FnOnce(&mut ArchiveFile, ReadOptions<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut alone = None;
        let occupied = source.occupied()?;
        let mut before_large = || {
            alone.get_or_insert_with(|| self.large.lock().unwrap_or_else(PoisonError::into_inner));
        };
        read(source, ReadOptions { occupied, before_large: &mut before_large })
    }

    fn open_archive<T>(
        &self,
        name: &FileName,
        expected: Option<&Stat>,
        read: impl FnOnce(&mut ArchiveFile) -> io::Result<T>,
    ) -> io::Result<Option<T>> {
        // NONBLOCK: opening a pipe of that name must not hang.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = match rustix::fs::openat(&self.handle, name.as_bytes(), flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::LOOP) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some((stat, mut source)) = ArchiveFile::new(file.into())? else {
            return Ok(None);
        };
        if expected.is_some_and(|expected| !expected.is_same(&stat)) {
            return Ok(None);
        }
        guarded(|| read(&mut source)).map(Some)
    }

    /// Removes an archive, if it still is the very file that was decided about.
    pub fn remove(&self, name: &FileName, expected: &Stat) -> Removal {
        match self.presence() {
            Presence::Here => {}
            Presence::Replaced | Presence::Gone | Presence::Dead => return Removal::DirectoryMoved,
            Presence::Unknown(error) => return Removal::Failed(error.into()),
        }
        match self.stat(name) {
            Ok(Some(stat)) if stat.is_same(expected) => {}
            Ok(Some(_)) => return Removal::Changed,
            Ok(None) => return Removal::AlreadyGone,
            Err(error) => return Removal::Failed(error),
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        let file = match rustix::fs::openat(&self.handle, name.as_bytes(), flags, Mode::empty()) {
            Ok(file) => Some(file),
            Err(Errno::NOENT) => return Removal::AlreadyGone,
            // Another process has a lease, which it loses while the file is being opened for writing.
            Err(Errno::WOULDBLOCK) => return Removal::InUse,
            // What cannot be opened may well be removed.
            Err(_) => None,
        };
        let lease = match file.as_ref().map(|file| ReadLease::take(file.as_fd())) {
            Some(Ok(lease)) => Some(lease),
            Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Removal::InUse,
            Some(Err(error)) => {
                let _ = self.no_leases.set(error);
                None
            }
            None => None,
        };
        // From here on no process begins to write, but one may have written before the lease was taken.
        let is_same = |file| rustix::fs::fstat(file).is_ok_and(|stat| stat_of(&stat).is_same(expected));
        if !file.as_ref().is_none_or(is_same) {
            return Removal::Changed;
        }
        // Last, so that a marker counts until the very end.
        if self.is_pinned(name) {
            return Removal::Pinned;
        }
        if lease.as_ref().is_some_and(ReadLease::is_waited_for) {
            return Removal::InUse;
        }
        match rustix::fs::unlinkat(&self.handle, name.as_bytes(), AtFlags::empty()) {
            Ok(()) => Removal::Removed,
            Err(Errno::NOENT) => Removal::AlreadyGone,
            Err(error) => Removal::Failed(error.into()),
        }
    }

    /// Why leases do not work in this directory, as far as that was tried.
    pub fn no_leases(&self) -> Option<&io::Error> {
        self.no_leases.get()
    }

    /// The file system's size and what is free of it, as an ordinary process sees it.
    pub fn filesystem(&self) -> io::Result<FileSystem> {
        let usage = rustix::fs::fstatvfs(&self.handle)?;
        Ok(FileSystem {
            total_bytes: usage.f_blocks.saturating_mul(usage.f_frsize),
            available_bytes: usage.f_bavail.saturating_mul(usage.f_frsize),
            total_inodes: usage.f_files,
            available_inodes: usage.f_favail,
            release: Release::Shown,
        })
    }
}

/// Reads all that the archive at `path` can tell, wherever that is. Symbolic links are followed:
/// a user who gives a path means the file to which it leads.
pub fn inspect_file(path: &Path) -> io::Result<(Stat, Inspection)> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let (stat, mut source) =
        ArchiveFile::new(file.into())?.ok_or_else(|| io::Error::other("is not a file"))?;
    let inspection = guarded(|| {
        let options = ReadOptions { occupied: source.occupied()?, before_large: &mut || {} };
        archive::inspect_with(&mut source, options)
    })?;
    Ok((stat, inspection))
}

/// Runs a reader. A panicking parse is one archive's error, not a dead collector.
fn guarded<T>(read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|_| {
        Err(io::Error::other("the archive reader panicked on its contents; please report this"))
    })
}

/// An archive's bytes: one `pread` for each read, and no system call for a seek.
struct ArchiveFile {
    file: File,
    position: u64,
    length: u64,
    /// The blocks that the file system counts for it, in bytes.
    blocks: u64,
}

impl ArchiveFile {
    /// An open file; none where it is not a regular one.
    fn new(file: File) -> io::Result<Option<(Stat, Self)>> {
        let found = rustix::fs::fstat(&file)?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Ok(None);
        }
        // Headers lie far apart: reading ahead would fetch the memory pages between them.
        let _ = rustix::fs::fadvise(&file, 0, None, Advice::Random);
        let stat = stat_of(&found);
        let blocks = u64::try_from(found.st_blocks).unwrap_or(0).saturating_mul(512);
        Ok(Some((stat, Self { file, position: 0, length: stat.size, blocks })))
    }

    /// How many of its bytes take room on the disk, as far as that matters: what a plain tar costs does not go by that.
    fn occupied(&self) -> io::Result<u64> {
        let mut start = [0; 6];
        let read = std::os::unix::fs::FileExt::read_at(&self.file, &mut start, 0)?;
        if self.blocks >= self.length || Format::of(&start[..read]) == Format::Tar {
            return Ok(self.length);
        }
        Ok(self.blocks.max(data(&self.file, self.length)))
    }
}

/// So many stretches of data are looked for at most. A packed archive that is whole has one.
const MOST_STRETCHES: u32 = 1_000;

/// How many bytes of a file of that size are no holes, which its blocks alone do not say: some file systems count none
/// that were written a moment ago (zfs), that lie beside the file's entry, or that they packed. Where a file system does
/// not know of holes, all are data (lseek(2)).
fn data(file: &File, size: u64) -> u64 {
    let mut data = 0_u64;
    let mut position = 0;
    for _ in 0..MOST_STRETCHES {
        let Ok(begin) = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(position)) else { break };
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(begin)).unwrap_or(size);
        data = data.saturating_add(end.min(size).saturating_sub(begin));
        if end <= position || end >= size {
            break;
        }
        position = end;
    }
    data
}

impl Read for ArchiveFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(&self.file, buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for ArchiveFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.length.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;

    use checkpoint_keeper_core::archive::State;
    use checkpoint_keeper_testkit as testkit;

    use super::*;

    /// What is read of a file, and how far into it reading came.
    fn read(directory: &Path, file: &str) -> (Contents, u64) {
        let store = Store::open(directory).unwrap();
        let name = FileName::new(file.as_bytes()).unwrap();
        let read = |source: &mut ArchiveFile| {
            let contents = store.read_alone(source, archive::read_with)?;
            Ok((contents, source.position))
        };
        store.open_archive(&name, None, read).unwrap().unwrap()
    }

    /// A file of these bytes, and of that length.
    fn write(directory: &Path, file: &str, start: &[u8], length: u64) -> File {
        let path = directory.join(file);
        std::fs::write(&path, start).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.set_len(length).unwrap();
        file
    }

    /// A Zstandard frame of whatever follows: its header alone.
    const FRAME: &[u8] = b"\x28\xb5\x2f\xfd\x00\x58";

    /// The holes of a file read as zeros, which are empty blocks of Zstandard.
    #[test]
    fn a_sparse_file_costs_what_it_occupies_and_not_what_it_says() {
        let directory = tempfile::tempdir().unwrap();
        let most = directory.path().join("most");
        // As large as this file system takes.
        let huge = (30..63)
            .rev()
            .map(|power| 1_u64 << power)
            .find(|length| File::create(&most).unwrap().set_len(*length).is_ok())
            .unwrap();
        let skippable = |length: u32| [&b"\x50\x2a\x4d\x18"[..], &length.to_le_bytes()].concat();
        let whole = testkit::ArchiveBuilder::new("shop", "web-0", "server").gzip().unwrap();
        for (number, (start, length)) in [
            (FRAME.to_vec(), 16 << 30),
            (FRAME.to_vec(), huge),
            (skippable(u32::MAX), 8 << 30),
            ([skippable(7), vec![0; 7], skippable(u32::MAX)].concat(), huge),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("{number}.tar.zst");
            write(directory.path(), &name, &start, length);
            let (contents, position) = read(directory.path(), &name);
            let told = (contents.state, contents.problem.as_deref());
            assert_eq!(told, (State::Foreign, Some("takes too much work to unpack")), "{number}");
            assert!(position < 1 << 20, "{number}: read as far as {position}");
        }
        // What is whole is read, whatever follows.
        write(directory.path(), "a.tar.gz", &whole, huge);
        let (contents, position) = read(directory.path(), "a.tar.gz");
        assert_eq!(contents.state, State::Complete);
        assert!(position < 1 << 20, "read as far as {position}");
    }

    #[test]
    fn what_is_no_hole_counts_whatever_the_file_system_says_of_blocks() {
        let directory = tempfile::tempdir().unwrap();
        let full = write(directory.path(), "full", &vec![7; 3 << 20], 3 << 20);
        assert_eq!(data(&full, 3 << 20), 3 << 20);
        // A packed archive that was written a moment ago, and has no blocks yet, and one that is sparse.
        let occupied = |length: u64| {
            let file = write(directory.path(), "packed", &[FRAME, &[7; 1_000]].concat(), length);
            let (_, file) = ArchiveFile::new(file).unwrap().unwrap();
            ArchiveFile { blocks: 0, ..file }.occupied().unwrap()
        };
        assert_eq!(occupied(1_006), 1_006);
        assert!((1_006..1 << 20).contains(&occupied(1 << 30)), "{}", occupied(1 << 30));
        let end = write(directory.path(), "end", b"", 1 << 30);
        end.write_all_at(&vec![7; 1 << 20], (1 << 30) - (1 << 20)).unwrap();
        assert!((1 << 20..2 << 20).contains(&data(&end, 1 << 30)), "{}", data(&end, 1 << 30));
        assert_eq!(data(&write(directory.path(), "empty", b"", 0), 0), 0);
        assert_eq!(data(&write(directory.path(), "hole", b"", 1 << 30), 1 << 30), 0);
        // Of very many pieces not all are looked for.
        let pieces = write(directory.path(), "pieces", b"", 1 << 30);
        for number in 0..2_000 {
            pieces.write_all_at(b"x", number << 18).unwrap();
        }
        let found = data(&pieces, 1 << 30);
        assert!((1..=1_000 << 18).contains(&found), "{found}");
    }

    #[test]
    fn what_takes_much_memory_is_read_by_one_at_a_time() {
        let directory = tempfile::tempdir().unwrap();
        let archive = || testkit::ArchiveBuilder::new("shop", "web-0", "server");
        let spec = format!(r#"{{"process": {{"env": ["A={}"]}}}}"#, "x".repeat(1 << 20));
        let config = format!(r#"{{"\n{}": 1}}"#, "x".repeat(1 << 20));
        for (file, bytes, alone) in [
            ("small.tar", archive().build(), false),
            ("spec.tar", archive().spec_json(spec).build(), true),
            ("config.tar", archive().config_json(config).build(), true),
            ("packed.tar.gz", archive().gzip(), true),
            ("packed.tar.zst", archive().zstd(), true),
        ] {
            std::fs::write(directory.path().join(file), bytes.unwrap()).unwrap();
            let store = Store::open(directory.path()).unwrap();
            let read = |source: &mut ArchiveFile| {
                store.read_alone(source, |source, options| {
                    let state = archive::read_with(source, options)?.state;
                    Ok((state, store.large.try_lock().is_err()))
                })
            };
            let name = FileName::new(file.as_bytes()).unwrap();
            let read = store.open_archive(&name, None, read).unwrap().unwrap();
            assert_eq!(read, (State::Complete, alone), "{file}");
            assert!(store.large.try_lock().is_ok());
        }
    }
}

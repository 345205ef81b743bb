//! The markers beside archives: reading, writing and removing them.
//!
//! Whatever lies there pins the archive. Only what this program wrote does it change or remove.

use std::fs::File;
use std::io::{self, Read, Write};

use checkpoint_keeper_core::hold::{Hold, Marker};
use checkpoint_keeper_core::name::{FileName, NameKind};
use checkpoint_keeper_core::plan::FileId;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::store::Store;

/// No marker of ours is larger, in bytes.
const LARGEST_MARKER: u64 = 64 << 10;

/// Under this name a marker is written whose archive has so long a name that none fits beside the marker's. What is left
/// of it, the next such hold writes over.
const SHORT_NAME: &[u8] = b"checkpoint-.tar.keep.tmp";

/// What this program writes as `managedBy` into its markers.
const MANAGER: &str = "checkpoint-keeper";

/// The contents of a marker that this program writes.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Contents {
    managed_by: String,
    #[serde(flatten)]
    hold: Option<Hold>,
}

/// Why a hold could not be put beside an archive.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// There is no such archive any more.
    #[error("the archive is gone")]
    Gone,
    /// The name of its marker is longer than the file system allows.
    #[error("the name of the archive's file is too long for a marker beside it")]
    NameTooLong,
    /// Someone at the node pinned it meanwhile.
    #[error("a marker that this program did not write lies beside it")]
    Foreign,
    /// The system refused.
    #[error("the marker cannot be written: {0}")]
    Io(#[from] io::Error),
}

impl From<Errno> for HoldError {
    fn from(error: Errno) -> Self {
        if error == Errno::NAMETOOLONG { Self::NameTooLong } else { Self::Io(error.into()) }
    }
}

impl Store {
    /// What lies beside an archive.
    pub fn marker_of(&self, archive: &FileName) -> Marker {
        if !self.is_pinned(archive) {
            return Marker::None;
        }
        match self.marker_contents(&archive.marker()).and_then(|contents| contents.hold) {
            Some(hold) => Marker::Hold(hold),
            None => Marker::Foreign,
        }
    }

    /// Puts a hold beside the archive, in place of an earlier one. Afterwards it is certain that the archive is there:
    /// it must not be deleted by this program meanwhile, which the caller sees to.
    pub fn write_hold(&self, archive: &FileName, file: FileId, hold: &Hold) -> Result<(), HoldError> {
        if !self.is_same_file(archive, file)? {
            return Err(HoldError::Gone);
        }
        let before = self.marker_of(archive);
        if before == Marker::Foreign {
            return Err(HoldError::Foreign);
        }
        let contents = Contents { managed_by: MANAGER.to_owned(), hold: Some(hold.clone()) };
        let text = serde_json::to_vec(&contents).map_err(io::Error::from)?;
        let marker = archive.marker();
        self.write_marker(archive, &text)?;
        rustix::fs::fsync(self.handle())?;
        if self.is_same_file(archive, file)? {
            return Ok(());
        }
        if before == Marker::None {
            self.remove_file(&marker);
        }
        Err(HoldError::Gone)
    }

    /// Removes the hold beside an archive. What this program did not write stays. Returns whether there is none now.
    pub fn remove_hold(&self, archive: &FileName) -> io::Result<bool> {
        match self.marker_of(archive) {
            Marker::None => Ok(true),
            Marker::Foreign => Ok(false),
            Marker::Hold(_) => {
                let marker = archive.marker();
                rustix::fs::unlinkat(self.handle(), marker.as_bytes(), AtFlags::empty())?;
                rustix::fs::fsync(self.handle())?;
                Ok(true)
            }
        }
    }

    /// Removes a marker whose archive is gone, if it is empty or was written by this program. Other contents may be of
    /// use to a user, so such a marker stays. Returns whether it was removed.
    pub fn remove_litter(&self, marker: &FileName) -> bool {
        let archive = match marker.kind() {
            NameKind::Marker { archive } => Some(archive),
            NameKind::MarkerBeingWritten => None,
            _ => return false,
        };
        let Ok(Some(stat)) = self.stat(marker) else { return false };
        if stat.size > 0 && self.marker_contents(marker).is_none() {
            return false;
        }
        // The archive may have come back since the directory was listed.
        let is_stray = archive.is_none_or(|archive| {
            let found = rustix::fs::statat(self.handle(), archive.as_bytes(), AtFlags::SYMLINK_NOFOLLOW);
            found.is_err_and(|error| error == Errno::NOENT)
        });
        is_stray && self.remove_file(marker)
    }

    /// What a marker of this program holds; none where it is not this program's.
    fn marker_contents(&self, marker: &FileName) -> Option<Contents> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.handle(), marker.as_bytes(), flags, Mode::empty()).ok()?;
        let text = File::from(file).take(LARGEST_MARKER);
        let contents: Contents = serde_json::from_reader(text).ok()?;
        (contents.managed_by == MANAGER).then_some(contents)
    }

    fn is_same_file(&self, archive: &FileName, file: FileId) -> io::Result<bool> {
        Ok(self.stat(archive)?.is_some_and(|stat| stat.id() == file))
    }

    /// Puts a marker beside an archive, in place of an earlier one: whole, or not at all.
    fn write_marker(&self, archive: &FileName, text: &[u8]) -> Result<(), Errno> {
        let mut unfinished = archive.marker_being_written();
        let mut written = self.write_new_file(&unfinished, text);
        // That name may be too long where the marker's is not.
        if written == Err(Errno::NAMETOOLONG)
            && let Some(short) = FileName::new(SHORT_NAME)
        {
            unfinished = short;
            written = self.write_new_file(&unfinished, text);
        }
        let marker = archive.marker();
        let put = written.and_then(|()| {
            rustix::fs::renameat(self.handle(), unfinished.as_bytes(), self.handle(), marker.as_bytes())
        });
        if put.is_err() {
            self.remove_file(&unfinished);
        }
        put
    }

    /// Writes a file that was not there before. What has its name is removed: it is left over, or a pipe, a link or
    /// another name of another file, which would be waited for, followed or overwritten.
    fn write_new_file(&self, name: &FileName, text: &[u8]) -> Result<(), Errno> {
        match rustix::fs::unlinkat(self.handle(), name.as_bytes(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(self.handle(), name.as_bytes(), flags | OFlags::CLOEXEC, mode)?;
        let mut file = File::from(file);
        let written = file.write_all(text).and_then(|()| file.sync_all());
        written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }

    fn remove_file(&self, name: &FileName) -> bool {
        rustix::fs::unlinkat(self.handle(), name.as_bytes(), AtFlags::empty()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const NAME: &str = "checkpoint-web-0_shop-server-2026-11-27T10:00:00Z.tar";

    fn store(directory: &Path) -> (Store, FileName, FileId) {
        std::fs::write(directory.join(NAME), "archive").unwrap();
        let (store, name) = (Store::open(directory).unwrap(), FileName::new(NAME.as_bytes()).unwrap());
        let file = store.stat(&name).unwrap().unwrap().id();
        (store, name, file)
    }

    fn hold(reason: &str) -> Hold {
        Hold { reason: reason.to_owned(), until: None, by: Some("alice".to_owned()) }
    }

    #[test]
    fn a_hold_is_a_marker_that_says_why_and_that_this_program_may_remove() {
        let directory = tempfile::tempdir().unwrap();
        let (store, name, file) = store(directory.path());
        store.write_hold(&name, file, &hold("incident 4711")).unwrap();
        assert!(store.is_pinned(&name));
        assert_eq!(store.marker_of(&name), Marker::Hold(hold("incident 4711")));
        let text = std::fs::read_to_string(directory.path().join(format!("{NAME}.keep"))).unwrap();
        assert_eq!(text, r#"{"managedBy":"checkpoint-keeper","reason":"incident 4711","by":"alice"}"#);
        store.write_hold(&name, file, &hold("appeal")).unwrap();
        assert_eq!(store.marker_of(&name), Marker::Hold(hold("appeal")));
        assert!(store.remove_hold(&name).unwrap());
        assert_eq!(store.marker_of(&name), Marker::None);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left behind");
    }

    /// `touch archive.tar.keep`, by which people pin.
    #[test]
    fn a_hold_whose_marker_is_touched_is_the_same_hold_still() {
        let directory = tempfile::tempdir().unwrap();
        let (store, name, file) = store(directory.path());
        store.write_hold(&name, file, &hold("incident 4711")).unwrap();
        let marker = directory.path().join(format!("{NAME}.keep"));
        let before = std::fs::read(&marker).unwrap();
        let touched = std::fs::File::options().create(true).append(true).open(&marker).unwrap();
        touched.set_modified(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(std::fs::read(&marker).unwrap(), before);
        assert_eq!(store.marker_of(&name), Marker::Hold(hold("incident 4711")));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2, "one archive, one marker");
        // It can be changed and ended as before.
        store.write_hold(&name, file, &hold("appeal")).unwrap();
        assert!(store.remove_hold(&name).unwrap() && !store.is_pinned(&name));
    }

    #[test]
    fn a_pin_of_someone_at_the_node_is_neither_changed_nor_removed() {
        let directory = tempfile::tempdir().unwrap();
        let (store, name, file) = store(directory.path());
        let marker = directory.path().join(format!("{NAME}.keep"));
        for theirs in ["", "evidence, ask Bob", r#"{"managedBy":"someone else","reason":"x"}"#, "{"] {
            std::fs::write(&marker, theirs).unwrap();
            assert_eq!(store.marker_of(&name), Marker::Foreign, "{theirs}");
            assert!(matches!(store.write_hold(&name, file, &hold("mine")), Err(HoldError::Foreign)));
            assert!(!store.remove_hold(&name).unwrap());
            assert_eq!(std::fs::read_to_string(&marker).unwrap(), theirs);
        }
        std::fs::remove_file(&marker).unwrap();
        std::fs::create_dir(&marker).unwrap();
        assert_eq!(store.marker_of(&name), Marker::Foreign);
    }

    /// Waits for what another thread does, and fails the test where that hangs.
    fn within_a_minute<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(work()));
        told.recv_timeout(std::time::Duration::from_mins(1)).expect("it hangs")
    }

    #[test]
    fn what_has_the_name_of_an_unfinished_marker_neither_stops_a_hold_nor_is_written_to() {
        let short = String::from_utf8(SHORT_NAME.to_vec()).unwrap();
        let long = format!("checkpoint-{}_shop-server-2026-11-27T10:00:00Z.tar", "p".repeat(201));
        assert_eq!(long.len(), 249);
        for (archive, unfinished) in [(NAME.to_owned(), format!("{NAME}.keep.tmp")), (long, short)] {
            let directory = tempfile::tempdir().unwrap();
            let at = |name: &str| directory.path().join(name);
            let (secret, other) = (at("checkpoint-other.tar"), at("notes"));
            std::fs::write(&secret, "another archive").unwrap();
            std::fs::write(&other, "notes").unwrap();
            std::fs::write(at(&archive), "archive").unwrap();
            let in_the_way = at(&unfinished);
            let marker = at(&format!("{archive}.keep"));
            let puts: [&dyn Fn(&Path); 5] = [
                &|path| rustix::fs::mkfifoat(rustix::fs::CWD, path, Mode::RWXU).unwrap(),
                &|path| std::fs::hard_link(&secret, path).unwrap(),
                &|path| std::os::unix::fs::symlink(&other, path).unwrap(),
                &|path| std::os::unix::fs::symlink(at("nowhere"), path).unwrap(),
                &|path| std::fs::write(path, "half of a mar").unwrap(),
            ];
            for (number, put) in puts.iter().enumerate() {
                put(&in_the_way);
                let path = directory.path().to_owned();
                let name = FileName::new(archive.as_bytes()).unwrap();
                within_a_minute(move || {
                    let store = Store::open(&path).unwrap();
                    let file = store.stat(&name).unwrap().unwrap().id();
                    store.write_hold(&name, file, &hold("incident 4711")).unwrap();
                    assert_eq!(store.marker_of(&name), Marker::Hold(hold("incident 4711")), "{number}");
                });
                assert_eq!(std::fs::read_to_string(&secret).unwrap(), "another archive", "{number}");
                assert_eq!(std::fs::read_to_string(&other).unwrap(), "notes", "{number}");
                assert!(std::fs::symlink_metadata(&marker).unwrap().is_file());
                std::fs::remove_file(&marker).unwrap();
                assert_eq!(
                    std::fs::read_dir(directory.path()).unwrap().count(),
                    3,
                    "{number}: nothing is left"
                );
            }
            // A hold that takes the place of another one has a file of its own, too.
            let (path, link) = (directory.path().to_owned(), at("link"));
            let name = FileName::new(archive.as_bytes()).unwrap();
            within_a_minute(move || {
                let store = Store::open(&path).unwrap();
                let file = store.stat(&name).unwrap().unwrap().id();
                store.write_hold(&name, file, &hold("incident 4711")).unwrap();
                std::fs::hard_link(&marker, &link).unwrap();
                let before = std::fs::read(&link).unwrap();
                store.write_hold(&name, file, &hold("appeal")).unwrap();
                assert_eq!(store.marker_of(&name), Marker::Hold(hold("appeal")));
                assert_eq!(std::fs::read(&link).unwrap(), before);
            });
        }
    }

    #[test]
    fn a_directory_in_the_way_of_an_unfinished_marker_is_an_error_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let (store, name, file) = store(directory.path());
        let in_the_way = directory.path().join(format!("{NAME}.keep.tmp"));
        std::fs::create_dir(&in_the_way).unwrap();
        assert!(matches!(store.write_hold(&name, file, &hold("mine")), Err(HoldError::Io(_))));
        assert!(in_the_way.is_dir() && !store.is_pinned(&name));
    }

    #[test]
    fn a_hold_is_for_the_very_file_and_says_that_it_came_too_late() {
        let directory = tempfile::tempdir().unwrap();
        let (store, name, file) = store(directory.path());
        let other = FileId { inode: file.inode + 1, ..file };
        assert!(matches!(store.write_hold(&name, other, &hold("evidence")), Err(HoldError::Gone)));
        std::fs::remove_file(directory.path().join(NAME)).unwrap();
        assert!(matches!(store.write_hold(&name, file, &hold("evidence")), Err(HoldError::Gone)));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "no marker is left behind");
    }

    #[test]
    fn names_that_are_nearly_too_long_are_held_and_longer_ones_say_why_not() {
        let directory = tempfile::tempdir().unwrap();
        for length in [246, 250, 251, 255] {
            let end = "_shop-server-2026-11-27T10:00:00Z.tar";
            let text = format!("checkpoint-{}{end}", "p".repeat(length - end.len() - 11));
            std::fs::write(directory.path().join(&text), "archive").unwrap();
            let store = Store::open(directory.path()).unwrap();
            let name = FileName::new(text.as_bytes()).unwrap();
            let file = store.stat(&name).unwrap().unwrap().id();
            let held = store.write_hold(&name, file, &hold("evidence"));
            if length <= 250 {
                held.unwrap();
                assert_eq!(store.marker_of(&name), Marker::Hold(hold("evidence")));
            } else {
                assert!(matches!(held, Err(HoldError::NameTooLong)), "{held:?}");
            }
        }
    }
}

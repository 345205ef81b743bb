//! Files of the directory, as the driver reports them to the engine: what lies there, and the outcome of deletions.

use std::collections::HashSet;
use std::io;

use jiff::Timestamp;

use crate::archive::Contents;
use crate::name::FileName;
use crate::plan::{Archive, Draw, FileId, Verdict};

/// How an archive came to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sighting {
    /// It lay there at the first look of all.
    First,
    /// It was looked at again, or is new.
    Again,
    /// A writer closed it, or moved it into place whole.
    Closed,
}

/// What the system says of a file: enough to notice that it is another one, or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stat {
    /// The device that it lies on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its size in bytes.
    pub size: u64,
    /// When its bytes last changed: seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
    /// When anything about it last changed.
    pub changed: (i64, u32),
    /// What its removal gives back in bytes: what it occupies, or nothing while it has another name.
    /// Not part of what tells files apart: file systems settle it late.
    pub allocated: u64,
}

impl Stat {
    /// Which file it is, and with which bytes.
    pub fn id(&self) -> FileId {
        FileId { inode: self.inode, modified: self.modified }
    }

    /// Whether this is the same file with the same contents.
    pub fn is_same(&self, other: &Self) -> bool {
        let what = |stat: &Self| (stat.device, stat.inode, stat.size, stat.modified, stat.changed);
        what(self) == what(other)
    }

    /// Whether this is the same file with bytes of the same time: its owner, mode or links may differ.
    pub fn has_same_bytes(&self, other: &Self) -> bool {
        let what = |stat: &Self| (stat.device, stat.inode, stat.size, stat.modified);
        what(self) == what(other)
    }

    /// Whether this is the same file, whatever was done to it.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// When its bytes last changed.
    pub fn modified_at(&self) -> Timestamp {
        timestamp(self.modified)
    }

    /// When anything about it last changed.
    pub fn changed_at(&self) -> Timestamp {
        timestamp(self.changed)
    }
}

/// Times that no calendar has are as early as can be: the file is then old, and not just written.
fn timestamp((seconds, nanoseconds): (i64, u32)) -> Timestamp {
    Timestamp::new(seconds, i32::try_from(nanoseconds).unwrap_or(0)).unwrap_or(Timestamp::MIN)
}

/// What lies in a directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// Regular files whose names could be an archive's.
    pub files: Vec<(FileName, Stat)>,
    /// The archives that a marker lies beside.
    pub pinned: HashSet<FileName>,
    /// Markers without an archive, and markers that were not written to their end.
    pub strays: Vec<(FileName, Stat)>,
    /// Names that look like a marker's and stand beside no archive's name: they pin nothing.
    pub misnamed_markers: Vec<FileName>,
    /// Files that could not be looked at.
    pub failures: Vec<(FileName, io::Error)>,
}

/// The result of removing an archive's file.
#[derive(Debug)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// Another process removed it first.
    AlreadyGone,
    /// It is not the file that was decided about, or its contents changed: it stays.
    Changed,
    /// A marker lies beside it by now, or might: it stays.
    Pinned,
    /// It stays, as a process has it open for writing.
    InUse,
    /// The path leads to another directory by now, or nowhere: what was moved away is left alone.
    DirectoryMoved,
    /// The deletion was withdrawn before it began: it stays.
    Withdrawn,
    /// The system refused.
    Failed(io::Error),
}

impl Removal {
    /// Whether the file is away, whoever removed it.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Removed | Self::AlreadyGone)
    }
}

/// An archive that is to go.
#[derive(Debug, Clone)]
pub struct Deletion {
    /// The archive as it was decided about.
    pub archive: Archive,
    /// Its file as it was decided about.
    pub stat: Stat,
    /// Why it goes.
    pub verdict: Verdict,
    /// The generation of the policy that decided so: the policy's object may change while the deletion waits or is
    /// carried out.
    pub policy_generation: Option<i64>,
    /// What pays for it.
    pub draw: Draw,
}

impl Deletion {
    /// The namespace of the archive's pod; empty where that is not known.
    pub fn namespace(&self) -> &str {
        self.archive.identity.as_ref().map_or("", |identity| identity.namespace.as_str())
    }
}

/// The outcome of a deletion.
#[derive(Debug)]
pub struct Outcome {
    /// The deletion.
    pub deletion: Deletion,
    /// What became of it.
    pub removal: Removal,
}

impl Outcome {
    /// What the file system gets back, in bytes: nothing but for an archive that this removed itself.
    pub fn freed_bytes(&self) -> u64 {
        if matches!(self.removal, Removal::Removed) { self.deletion.stat.allocated } else { 0 }
    }
}

/// How a file looks at this moment.
#[derive(Debug)]
pub enum Looked {
    /// The marker of an archive.
    Marker {
        /// The archive.
        archive: FileName,
        /// Whether the marker is there, or might be.
        is_pinned: bool,
    },
    /// An archive.
    Archive {
        /// Its name.
        name: FileName,
        /// How it came to be looked at.
        sighting: Sighting,
        /// Its file; none where there is none.
        stat: io::Result<Option<Stat>>,
        /// Whether it has a marker, or might have.
        is_pinned: bool,
    },
}

/// An archive that was read.
#[derive(Debug)]
pub struct ReadArchive {
    /// Its name.
    pub name: FileName,
    /// The file that was to be read.
    pub stat: Stat,
    /// What it holds; none where it is another file by now, or changed meanwhile.
    pub contents: io::Result<Option<Contents>>,
}

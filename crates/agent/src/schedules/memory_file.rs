//! The file in which the scheduler's memory outlives the process. It is small, and written whole each time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use checkpoint_keeper_core::schedule::Memory;
use serde::{Deserialize, Serialize};

/// Of a larger one nothing is read: it is not ours.
const LARGEST: u64 = 64 << 20;

/// The format, so that another version's is told apart.
const VERSION: u32 = 1;

/// Where the memory is kept.
#[derive(Debug)]
pub(super) struct MemoryFile {
    path: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    memory: Memory,
}

/// Why what was kept cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is not what this version writes.
    #[error("{path} is not a memory of schedules that this version knows")]
    Unknown {
        /// The file.
        path: String,
    },
}

impl MemoryFile {
    /// The file beside the catalog.
    pub(super) fn beside(catalog: &Path) -> Self {
        Self { path: catalog.with_file_name("schedules.json") }
    }

    /// What was kept; nothing where there is no file. One that cannot be used is set aside by the next writing.
    pub(super) fn read(&self) -> Result<Memory, MemoryError> {
        let path = || self.path.display().to_string();
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            File::open(&self.path)?.take(LARGEST).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = match read() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Memory::default()),
            Err(source) => return Err(MemoryError::Read { path: path(), source }),
        };
        let kept: Option<Kept> = serde_json::from_slice(&bytes).ok();
        let kept = kept.filter(|kept| kept.version == VERSION);
        kept.map(|kept| kept.memory).ok_or_else(|| MemoryError::Unknown { path: path() })
    }

    /// Keeps it, so that a crash leaves this or what was there before.
    pub(super) fn write(&self, memory: Memory) -> io::Result<()> {
        let bytes = serde_json::to_vec(&Kept { version: VERSION, memory })?;
        let new = self.path.with_extension("json.new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_core::schedule::ScheduleMemory;

    use super::*;

    #[test]
    fn what_is_kept_is_there_again_and_what_is_not_ours_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = MemoryFile::beside(&folder.path().join("catalog"));
        assert_eq!(file.read().unwrap(), Memory::default());
        let mut memory = Memory::default();
        memory.schedules.insert("uid".to_owned(), ScheduleMemory::default());
        file.write(memory.clone()).unwrap();
        assert_eq!(file.read().unwrap(), memory);
        for other in ["", "{", "[]", r#"{"version": 2, "memory": {}}"#] {
            fs::write(folder.path().join("schedules.json"), other).unwrap();
            assert!(matches!(file.read(), Err(MemoryError::Unknown { .. })), "{other}");
        }
        file.write(memory.clone()).unwrap();
        assert_eq!(file.read().unwrap(), memory);
    }
}

//! The file in which the scheduler's memory outlives the process. It is small, and written whole each time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_core::schedule::Memory;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// Of a larger one nothing is read: it is not ours.
const LARGEST: u64 = 32 << 20;

/// Has a file opened without waiting for anything.
const NONBLOCK: i32 = OFlags::NONBLOCK.bits().cast_signed();

/// The format, so that another version's is told apart.
const VERSION: u32 = 1;

/// Where the memory is kept.
#[derive(Debug)]
pub(super) struct MemoryFile {
    path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Kept {
    version: u32,
    memory: Memory,
}

#[derive(Debug, Serialize)]
struct ToBeKept<'a> {
    version: u32,
    memory: &'a Memory,
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
            // A pipe of that name is not waited for.
            let file = OpenOptions::new().read(true).custom_flags(NONBLOCK).open(&self.path)?;
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("it is not a file"));
            }
            file.take(LARGEST).read_to_end(&mut bytes)?;
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
    pub(super) fn write(&self, memory: &Memory) -> io::Result<()> {
        let bytes = serde_json::to_vec(&ToBeKept { version: VERSION, memory })?;
        let new = self.path.with_extension("json.new");
        // What has that name is left over, or a link that would be followed, or a pipe that would be waited for.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// How long decisions wait for the disk. What is decided after that may be decided again after a crash.
const WRITTEN_WITHIN: Duration = Duration::from_secs(2);

/// Writes memories one after the other; of those that wait for the disk only the latest counts.
pub(super) struct MemoryWriter {
    latest: watch::Sender<(u64, Arc<Memory>)>,
    written: watch::Receiver<(u64, Option<String>)>,
}

/// Keeps a memory.
type KeepMemory = dyn Fn(&Memory) -> io::Result<()> + Send + Sync;

/// Does the writing, for as long as it is polled.
pub(super) struct MemoryWriting {
    file: Arc<KeepMemory>,
    latest: watch::Receiver<(u64, Arc<Memory>)>,
    written: watch::Sender<(u64, Option<String>)>,
}

/// Both sides of writing memories, each of which `write` keeps.
pub(super) fn writing(
    write: impl Fn(&Memory) -> io::Result<()> + Send + Sync + 'static,
) -> (MemoryWriter, MemoryWriting) {
    let (latest, latest_read) = watch::channel((0, Arc::default()));
    let (written, written_read) = watch::channel((0, None));
    let writing = MemoryWriting { file: Arc::new(write), latest: latest_read, written };
    (MemoryWriter { latest, written: written_read }, writing)
}

impl MemoryWriter {
    /// Has it written, and waits a moment for that. The error says why it is not known to be written.
    pub(super) async fn write(&mut self, memory: Arc<Memory>) -> Result<(), String> {
        let number = self.latest.borrow().0 + 1;
        self.latest.send_replace((number, memory));
        match timeout(WRITTEN_WITHIN, self.written.wait_for(|(written, _)| *written >= number)).await {
            Ok(Ok(written)) => written.1.clone().map_or(Ok(()), Err),
            Ok(Err(_)) => Err("its writing has ended".to_owned()),
            Err(_) => Err(format!("the disk did not take it within {WRITTEN_WITHIN:?}")),
        }
    }
}

impl MemoryWriting {
    /// Writes what there is to write, for as long as it is polled.
    pub(super) async fn run(mut self) {
        while self.latest.changed().await.is_ok() {
            let (number, memory) = self.latest.borrow_and_update().clone();
            let file = Arc::clone(&self.file);
            let failed = match spawn_blocking(move || file(&memory)).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(error) => Some(error.to_string()),
            };
            self.written.send_replace((number, failed));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use checkpoint_keeper_core::schedule::ScheduleMemory;

    use super::*;

    #[test]
    fn what_is_kept_is_there_again_and_what_is_not_ours_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = MemoryFile::beside(&folder.path().join("catalog"));
        assert_eq!(file.read().unwrap(), Memory::default());
        let mut memory = Memory::default();
        memory.schedules.insert("uid".to_owned(), ScheduleMemory::default());
        file.write(&memory).unwrap();
        assert_eq!(file.read().unwrap(), memory);
        for other in ["", "{", "[]", r#"{"version": 2, "memory": {}}"#] {
            fs::write(folder.path().join("schedules.json"), other).unwrap();
            assert!(matches!(file.read(), Err(MemoryError::Unknown { .. })), "{other}");
        }
        file.write(&memory).unwrap();
        assert_eq!(file.read().unwrap(), memory);
    }

    #[test]
    fn what_has_the_name_of_a_file_that_is_written_is_neither_waited_for_nor_written_to() {
        use rustix::fs::{CWD, Mode, mkfifoat};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let other = at("other");
        fs::write(&other, "another file").unwrap();
        let (kept, new) = (at("schedules.json"), at("schedules.json.new"));
        let fifo = |path: &Path| mkfifoat(CWD, path, Mode::RWXU).unwrap();
        let puts: [&dyn Fn(&Path); 3] = [&fifo, &|path| fs::hard_link(&other, path).unwrap(), &|path| {
            std::os::unix::fs::symlink(&other, path).unwrap();
        }];
        let run = |work: fn(MemoryFile)| {
            let file = MemoryFile::beside(&folder.path().join("catalog"));
            let (tell, told) = mpsc::channel();
            std::thread::spawn(move || {
                work(file);
                tell.send(())
            });
            told.recv_timeout(Duration::from_mins(1)).expect("it hangs, or failed");
        };
        for put in puts {
            put(&new);
            run(|file| {
                file.write(&memory("a")).unwrap();
                assert_eq!(file.read().unwrap(), *memory("a"));
            });
            assert_eq!(fs::read_to_string(&other).unwrap(), "another file");
            fs::remove_file(&kept).unwrap();
        }
        fifo(&kept);
        run(|file| {
            assert!(matches!(file.read(), Err(MemoryError::Read { .. })));
            file.write(&memory("b")).unwrap();
            assert_eq!(file.read().unwrap(), *memory("b"));
        });
    }

    fn memory(uid: &str) -> Arc<Memory> {
        let mut memory = Memory::default();
        memory.schedules.insert(uid.to_owned(), ScheduleMemory::default());
        Arc::new(memory)
    }

    /// A disk that hangs holds up a decision for a moment only, and takes the latest once it works again.
    #[tokio::test]
    async fn a_disk_that_hangs_is_not_waited_for_and_takes_the_latest_later() {
        let (works, disk) = mpsc::channel();
        let (disk, taken) = (Mutex::new(disk), Arc::new(Mutex::new(Vec::new())));
        let seen = Arc::clone(&taken);
        let (mut writer, writing) = writing(move |memory| {
            disk.lock().unwrap().recv().unwrap();
            seen.lock().unwrap().push(Arc::new(memory.clone()));
            Ok(())
        });
        let running = tokio::spawn(writing.run());
        works.send(()).unwrap();
        assert_eq!(writer.write(memory("a")).await, Ok(()));
        assert!(writer.write(memory("b")).await.unwrap_err().contains("within 2s"));
        (0..2).for_each(|_| works.send(()).unwrap());
        assert_eq!(writer.write(memory("c")).await, Ok(()));
        assert_eq!(*taken.lock().unwrap(), [memory("a"), memory("b"), memory("c")]);
        running.abort();
    }
}

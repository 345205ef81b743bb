//! What was learned about archives and their pods, kept across restarts in one crash-safe file.
//!
//! Losing it costs a second reading and restarted grace periods, never a wrong deletion: a record
//! counts only for the very file it was made for, told by device, inode, size and times.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use checkpoint_keeper_core::engine::memory::{Changes, Memory};
use checkpoint_keeper_core::name::FileName;
use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, StorageBackend, StorageError,
    Table, TableDefinition,
};
use serde::Serialize;

use crate::overlay::Overlay;

/// The archives by file name. The number changes with the records' layout, so that an older or
/// newer program's records are not misread but made anew.
const ARCHIVES: TableDefinition<&[u8], &[u8]> = TableDefinition::new("archives-2");

/// The pods whose archives are here, by their keys as JSON.
const PODS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("pods-1");

/// What every file of redb begins with (redb `src/tree_store/page_store/header.rs`).
const MAGIC: [u8; 9] = *b"redb\x1a\x0a\xa9\x0d\x0a";

/// What stands in its bytes 12 to 15. The magic is written last: without it, making the file was broken off.
const PAGE_SIZE: [u8; 4] = 4096_u32.to_le_bytes();
/// Markers without an archive.
const STRAYS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("strays-1");

/// Requests to discard a file.
const DISCARDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("discards-1");

/// Which policy governs each container's archives, by the container's identity as JSON.
const GOVERNING: TableDefinition<&[u8], &[u8]> = TableDefinition::new("governors-1");

/// What is known once and for all: under `cluster`, the UID of the cluster that said what is known of pods; under
/// `reclaim`, what became of the watermark's rounds.
const FACTS: TableDefinition<&str, &str> = TableDefinition::new("facts-1");

/// Has a file opened without waiting for anything.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// How much of the file redb keeps in memory: little, as it is read once and then written to.
const CACHE: usize = 4 << 20;

/// How many damaged catalogs are kept: more than that, and the disk is at fault.
const MOST_SET_ASIDE: u32 = 10;

/// The open file.
#[derive(Debug)]
pub struct Catalog {
    database: Database,
    path: PathBuf,
}

/// What the administrator should know of a catalog.
#[derive(Debug, thiserror::Error)]
pub enum CatalogProblem {
    /// It was damaged, or written in a format of another version; it was moved there, and a new one made.
    #[error("the catalog was damaged, or another version wrote it; it was moved to {}, and a new one was begun", .0.display())]
    SetAside(PathBuf),
    /// It cannot be used.
    #[error(transparent)]
    Unusable(#[from] CatalogError),
}

/// Why a catalog cannot be used. Collecting goes on without one.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Another process has it open.
    #[error("another process uses the catalog {0}")]
    InUse(PathBuf),
    /// The file cannot be opened or made.
    #[error("cannot open the catalog {path}: {source}")]
    Open {
        /// The catalog's path.
        path: PathBuf,
        /// What went wrong.
        source: Box<redb::Error>,
    },
    /// The file was not made by this program, and is left as it is.
    #[error("{path} {what}; it is left as it is", path = path.display())]
    NotACatalog {
        /// The catalog's path.
        path: PathBuf,
        /// What is wrong with it, as the end of a sentence: `is not a file`.
        what: &'static str,
    },
    /// A damaged catalog cannot be moved aside.
    #[error("cannot move the damaged catalog {path} aside")]
    SetAside {
        /// The catalog's path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write the catalog {path}: {source}")]
    Write {
        /// The catalog's path.
        path: PathBuf,
        /// What went wrong.
        source: Box<redb::Error>,
    },
    /// It could not be written in time.
    #[error("writing the catalog {0} takes too long; what was learned last may have to be learned again")]
    Slow(PathBuf),
    /// The thread that writes it could not be started.
    #[error("cannot start the thread that writes the catalog")]
    Thread(#[source] io::Error),
}

/// A catalog, and what it remembers.
pub struct Opened {
    /// The catalog, for writing to.
    pub catalog: Catalog,
    /// What it remembered.
    pub memory: Memory,
    /// Where a damaged catalog went.
    pub set_aside: Option<PathBuf>,
}

/// How opening failed.
enum Failure {
    /// The file is damaged.
    Damaged,
    Other(redb::Error),
}

impl Catalog {
    /// Fails unless there is a catalog at `path`, damaged or not, or nothing: other files must not be overwritten.
    pub fn check(path: &Path) -> Result<(), CatalogError> {
        let wrong = |what| Err(CatalogError::NotACatalog { path: path.to_owned(), what });
        // A pipe would be waited for.
        match std::fs::metadata(path) {
            Ok(found) if !found.is_file() => return wrong("is not a file"),
            Ok(found) if found.len() == 0 => return Ok(()),
            _ => {}
        }
        let Ok(mut file) = File::options().read(true).custom_flags(NONBLOCK).open(path) else {
            return Ok(());
        };
        let mut begin = [0; 16];
        let is_ours = file.read_exact(&mut begin).is_ok()
            && (begin.starts_with(&MAGIC)
                || (begin[..MAGIC.len()] == [0; MAGIC.len()] && begin[12..] == PAGE_SIZE));
        if is_ours { Ok(()) } else { wrong("is not a catalog") }
    }

    /// Opens the catalog, or makes one. A damaged one is moved aside; a file that is none is an error.
    pub fn open(path: &Path) -> Result<Opened, CatalogError> {
        Self::check(path)?;
        let error = |failure| match failure {
            Failure::Other(redb::Error::DatabaseAlreadyOpen) => CatalogError::InUse(path.to_owned()),
            Failure::Other(source) => CatalogError::Open { path: path.to_owned(), source: Box::new(source) },
            Failure::Damaged => CatalogError::Open {
                path: path.to_owned(),
                source: Box::new(redb::Error::Corrupted("a new catalog is damaged".to_owned())),
            },
        };
        match open_and_load(path) {
            Ok((database, memory)) => {
                let catalog = Self { database, path: path.to_owned() };
                Ok(Opened { catalog, memory, set_aside: None })
            }
            Err(Failure::Damaged) => {
                let aside = set_aside(path)
                    .map_err(|source| CatalogError::SetAside { path: path.to_owned(), source })?;
                let (database, memory) = open_and_load(path).map_err(error)?;
                let catalog = Self { database, path: path.to_owned() };
                Ok(Opened { catalog, memory, set_aside: Some(aside) })
            }
            Err(failure) => Err(error(failure)),
        }
    }

    /// What a catalog remembers, without touching it; nothing where it cannot be read, is damaged or in use.
    /// It is checked as [`Catalog::open`] checks it: what a flipped bit made of a record is not believed.
    pub fn peek(path: &Path) -> Memory {
        let read = || {
            Self::check(path).ok()?;
            let file = File::options().read(true).custom_flags(NONBLOCK).open(path).ok()?;
            file.metadata().ok().filter(|found| found.is_file() && found.len() > 0)?;
            let reader = Database::builder().set_cache_size(CACHE).open_read_only(path);
            if matches!(reader, Err(DatabaseError::DatabaseAlreadyOpen)) {
                return None;
            }
            drop(reader);
            let database = Database::builder()
                .set_cache_size(CACHE)
                .set_check_integrity_on_open(true)
                .create_with_backend(Overlay::new(file).ok()?)
                .ok()?;
            load(&database).ok()
        };
        catch_unwind(AssertUnwindSafe(read)).ok().flatten().unwrap_or_default()
    }

    /// A new catalog that lies in `backend`, whatever that is, and is called `path` in messages.
    pub fn create_in(backend: impl StorageBackend, path: &Path) -> Result<Self, CatalogError> {
        match Database::builder().create_with_backend(backend) {
            Ok(database) => Ok(Self { database, path: path.to_owned() }),
            Err(source) => Err(CatalogError::Open { path: path.to_owned(), source: Box::new(source.into()) }),
        }
    }

    /// The path that it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Remembers and forgets, all or nothing.
    pub fn update(&self, changes: &Changes) -> Result<(), CatalogError> {
        if changes.is_empty() {
            return Ok(());
        }
        let write = || -> Result<(), redb::Error> {
            let transaction = self.database.begin_write()?;
            {
                let mut table = transaction.open_table(ARCHIVES)?;
                for (name, record) in &changes.records {
                    put(&mut table, name.as_bytes(), record.as_ref())?;
                }
                let mut table = transaction.open_table(PODS)?;
                for (key, record) in &changes.pods {
                    put(&mut table, &json(key)?, record.as_ref())?;
                }
                let mut table = transaction.open_table(STRAYS)?;
                for (name, stray) in &changes.strays {
                    put(&mut table, name.as_bytes(), stray.as_ref())?;
                }
                let mut table = transaction.open_table(DISCARDS)?;
                for (name, discard) in &changes.discards {
                    put(&mut table, name.as_bytes(), discard.as_ref())?;
                }
                let mut table = transaction.open_table(GOVERNING)?;
                for (identity, policy) in &changes.governing {
                    put(&mut table, &json(identity)?, policy.as_ref())?;
                }
                if let Some(reclaim) = &changes.reclaim {
                    let text = serde_json::to_string(reclaim).map_err(io::Error::from)?;
                    transaction.open_table(FACTS)?.insert("reclaim", text.as_str())?;
                }
                if let Some(cluster) = &changes.cluster {
                    transaction.open_table(FACTS)?.insert("cluster", cluster.as_str())?;
                }
            }
            Ok(transaction.commit()?)
        };
        let damaged = || redb::Error::Corrupted("the catalog is damaged".to_owned());
        catch_unwind(AssertUnwindSafe(write))
            .unwrap_or_else(|_| Err(damaged()))
            .map_err(|source| CatalogError::Write { path: self.path.clone(), source: Box::new(source) })
    }
}

fn put(
    table: &mut Table<'_, &'static [u8], &'static [u8]>,
    key: &[u8],
    value: Option<&impl Serialize>,
) -> Result<(), redb::Error> {
    match value {
        Some(value) => table.insert(key, json(value)?.as_slice())?,
        None => table.remove(key)?,
    };
    Ok(())
}

fn json(value: &impl Serialize) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(value)?)
}

/// Moves a damaged catalog to `<path>.damaged`, or the first such name with a number that is
/// free: neither the catalog nor an earlier damaged one is overwritten, as both may still be needed.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    for number in 0..MOST_SET_ASIDE {
        let mut name = path.as_os_str().to_owned();
        name.push(".damaged");
        if number > 0 {
            name.push(format!(".{number}"));
        }
        match renameat_with(CWD, path, CWD, &name, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(name.into()),
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "too many have been moved aside already"))
}

/// Opens or makes the file. What took its place since it was looked at, a pipe for example, is not waited for.
fn open_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).custom_flags(NONBLOCK);
    let file = options.open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a file")) }
}

fn open_and_load(path: &Path) -> Result<(Database, Memory), Failure> {
    // A damaged file may make redb panic where it trusts what it once wrote.
    let open = || -> Result<_, Failure> {
        let file = open_file(path).map_err(|error| Failure::Other(redb::Error::Io(error)))?;
        // A flipped bit in a name would have the wrong policy govern: checksums are looked at.
        let database = Database::builder()
            .set_cache_size(CACHE)
            .set_check_integrity_on_open(true)
            .create_with_backend(FileBackend::new(file).map_err(opening)?)
            .map_err(opening)?;
        let memory = load(&database).map_err(|error| match error {
            redb::Error::Io(_) => Failure::Other(error),
            _ => Failure::Damaged,
        })?;
        Ok((database, memory))
    };
    catch_unwind(AssertUnwindSafe(open)).unwrap_or(Err(Failure::Damaged))
}

fn opening(error: DatabaseError) -> Failure {
    match error {
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            Failure::Damaged
        }
        DatabaseError::Storage(StorageError::Corrupted(_))
        | DatabaseError::UpgradeRequired(_)
        | DatabaseError::RepairAborted => Failure::Damaged,
        error => Failure::Other(error.into()),
    }
}

fn load(database: &impl ReadableDatabase) -> Result<Memory, redb::Error> {
    let transaction = database.begin_read()?;
    // A record that is not understood is as good as none.
    let records = entries(&transaction, ARCHIVES, |name, value| {
        Some((FileName::new(name)?, serde_json::from_slice(value).ok()?))
    })?;
    let pods = entries(&transaction, PODS, |key, value| {
        Some((serde_json::from_slice(key).ok()?, serde_json::from_slice(value).ok()?))
    })?;
    let strays = entries(&transaction, STRAYS, |name, value| {
        Some((FileName::new(name)?, serde_json::from_slice(value).ok()?))
    })?;
    let discards = entries(&transaction, DISCARDS, |name, value| {
        Some((FileName::new(name)?, serde_json::from_slice(value).ok()?))
    })?;
    let governing = entries(&transaction, GOVERNING, |key, value| {
        Some((serde_json::from_slice(key).ok()?, serde_json::from_slice(value).ok()?))
    })?;
    let (cluster, reclaim) = match transaction.open_table(FACTS) {
        Ok(table) => {
            let fact = |name: &str| table.get(name).map(|fact| fact.map(|fact| fact.value().to_owned()));
            (fact("cluster")?, fact("reclaim")?)
        }
        Err(redb::TableError::TableDoesNotExist(_)) => (None, None),
        Err(error) => return Err(error.into()),
    };
    let reclaim = reclaim.and_then(|text| serde_json::from_str(&text).ok());
    Ok(Memory { records, pods, strays, discards, cluster, governing, reclaim })
}

/// All entries of a table that are understood; none where there is no such table yet.
fn entries<Entry, All: FromIterator<Entry>>(
    transaction: &ReadTransaction,
    table: TableDefinition<&[u8], &[u8]>,
    understand: impl Fn(&[u8], &[u8]) -> Option<Entry>,
) -> Result<All, redb::Error> {
    let table = match transaction.open_table(table) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(std::iter::empty().collect()),
        Err(error) => return Err(error.into()),
    };
    let mut entries = Vec::new();
    for entry in table.iter()? {
        let (key, value) = entry?;
        entries.extend(understand(key.value(), value.value()));
    }
    Ok(entries.into_iter().collect())
}

//! What a collector meets that the administrator should know.

use std::fmt;
use std::io;
use std::path::PathBuf;

use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::owners::Question;
use jiff::Timestamp;

use crate::catalog::CatalogError;

/// Something that the administrator should know. Nothing is deleted because of it.
#[derive(Debug)]
pub enum Problem {
    /// The directory could not be listed.
    List(io::Error),
    /// A file could not be looked at.
    Look(FileName, io::Error),
    /// An archive could not be read.
    Read(FileName, io::Error),
    /// The wall clock was set: rules by time wait.
    Clock,
    /// The wall clock strays from the API server's: rules by time wait.
    ServerClock,
    /// The API did not answer a question, and why.
    Unanswered(Question, String),
    /// An archive claims to be from the future.
    Future(FileName, Timestamp),
    /// The file system did not tell its size.
    FileSystem(io::Error),
    /// The catalog was damaged, or none; it was moved there, and a new one made.
    CatalogSetAside(PathBuf),
    /// The catalog cannot be used.
    Catalog(CatalogError),
}

impl Problem {
    /// Whether something could not be done, and not only looks odd.
    pub fn is_failure(&self) -> bool {
        !matches!(
            self,
            Self::Future(..)
                | Self::CatalogSetAside(_)
                | Self::Clock
                | Self::ServerClock
                | Self::Unanswered(..)
        )
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(error) => write!(formatter, "cannot list the directory: {error}"),
            Self::Look(file, error) => write!(formatter, "cannot look at {file}: {error}"),
            Self::Read(file, error) => write!(formatter, "cannot read {file}: {error}"),
            Self::Clock => formatter.write_str(
                "the clock was set by more than five minutes: rules by time wait until it is set back, or has run well for an hour",
            ),
            Self::ServerClock => formatter.write_str(
                "the clock differs from the API server's by more than five minutes: rules by time wait",
            ),
            Self::Unanswered(question, why) => {
                write!(formatter, "nothing known of {question}, so what depends on it stays: {why}")
            }
            Self::Future(file, corrected) => {
                write!(formatter, "{file} claims to be from the future; taken for one of {corrected:.0}")
            }
            Self::FileSystem(error) => write!(formatter, "cannot ask the file system for its size: {error}"),
            Self::CatalogSetAside(path) => {
                write!(
                    formatter,
                    "the catalog was damaged or is none; moved it to {} and began a new one",
                    path.display()
                )
            }
            Self::Catalog(error) => error.fmt(formatter),
        }
    }
}

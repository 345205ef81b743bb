//! What the administrator should know of a directory, its clock and its cluster.

use std::fmt;
use std::io;

use crate::name::FileName;
use crate::pods::Lookup;
use jiff::Timestamp;

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
    /// The API did not answer a lookup, and why.
    Unanswered(Lookup, String),
    /// A file that is named nearly as a marker.
    PinsNothing(FileName),
    /// The wall clock shows an earlier time than that at which a file here was last changed.
    ClockIsBehind,
    /// When an archive was taken cannot be told: what it claims is not plausible.
    Undated(FileName, Timestamp),
    /// The file system did not show what the watermark deleted, so many times in a row.
    WatermarkIneffective(u32),
    /// The file system has no leases, so it does not tell whether a process writes to a file.
    NoLeases(String),
    /// The file system did not tell its size.
    FileSystem(io::Error),
}

impl Problem {
    /// Whether something could not be done, and not only looks odd.
    pub fn is_failure(&self) -> bool {
        !matches!(
            self,
            Self::Undated(..)
                | Self::ClockIsBehind
                | Self::WatermarkIneffective(_)
                | Self::PinsNothing(_)
                | Self::NoLeases(_)
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
                "the clock was set by more than five minutes: rules by time wait until it is set back, or has run well for an hour, and what is dated later than it is left alone",
            ),
            Self::ServerClock => formatter.write_str(
                "the clock differs from the API server's by more than five minutes: rules by time wait, and what is dated later than it is left alone",
            ),
            Self::ClockIsBehind => formatter.write_str(
                "the clock is behind: a file here was changed later than it shows, or it shows a time before 2018; rules by time wait, and what is dated later than it is left alone (if the clock is right: --trust-clock)",
            ),
            Self::Unanswered(lookup, why) => {
                write!(formatter, "nothing known of {lookup}, so what depends on it stays: {why}")
            }
            Self::PinsNothing(file) => write!(
                formatter,
                "{file} pins nothing: a marker has the whole name of its archive, .tar included, before its .keep"
            ),
            Self::Undated(file, claimed) => write!(
                formatter,
                "{file} claims to be of {claimed:.0}, which cannot be: it displaces no other archive, and its age counts from when it was first seen"
            ),
            Self::WatermarkIneffective(rounds) => write!(
                formatter,
                "deleting archives frees nothing: the file system did not show what was deleted, {rounds} times in a row (a snapshot, a reflink or an open file may hold the space, or another process uses it up as fast); from now on one archive is deleted at a time, at growing intervals"
            ),
            Self::NoLeases(error) => write!(
                formatter,
                "the file system does not tell whether a process writes to an archive ({error}): only the archive's times do"
            ),
            Self::FileSystem(error) => write!(formatter, "cannot ask the file system for its size: {error}"),
        }
    }
}

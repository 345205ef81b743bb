//! A fact about the cluster: what is known, since when, and who said so.
//!
//! Whether a fact is fresh enough is not decided here, as that depends on what it is used for.

use std::time::Duration;

use jiff::Timestamp;

/// Something that is known about the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fact<T> {
    /// What is known.
    pub value: T,
    /// When its source last said so; [`Timestamp::MIN`] where that was not kept.
    pub as_of: Timestamp,
    /// Who said so.
    pub source: Source,
}

/// How a fact became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The API server answered a request for this very object.
    Answer,
    /// A watch shows it. Such a fact is dropped when the watch ends, and may be late until then.
    Watch,
    /// The catalog kept it from an earlier run.
    Catalog,
}

impl<T> Fact<T> {
    /// A fact from the API server's answer at that time.
    pub fn answered(value: T, as_of: Timestamp) -> Self {
        Self { value, as_of, source: Source::Answer }
    }

    /// A fact that the catalog kept, without its time.
    pub fn remembered(value: T) -> Self {
        Self { value, as_of: Timestamp::MIN, source: Source::Catalog }
    }

    /// Whether it is at most that old. One from the future is of unknown age, so it is not.
    pub fn is_within(&self, age: Duration, now: Timestamp) -> bool {
        let elapsed = now.duration_since(self.as_of);
        !elapsed.is_negative() && elapsed.unsigned_abs() <= age
    }
}

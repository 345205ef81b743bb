//! When a checkpoint was taken, from the three places that may say so.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How far ahead of the clock a checkpoint may claim to be before its claim counts as wrong. Clocks
/// are slewed and stepped by less than this all the time.
const TOLERANCE: std::time::Duration = std::time::Duration::from_mins(1);

/// What claims to know when a checkpoint was taken, the most trustworthy first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims {
    /// The time inside the archive (`config.dump`).
    pub inside: Option<Timestamp>,
    /// The time in the file's name.
    pub name: Option<Timestamp>,
    /// When the file's bytes last changed.
    pub modified: Timestamp,
}

/// When a checkpoint was taken, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// The time to go by.
    pub at: Timestamp,
    /// Where it comes from.
    pub source: Source,
}

/// Where the time of a checkpoint comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The archive says so.
    Inside,
    /// The file's name says so.
    Name,
    /// It is the file's modification time.
    Modified,
    /// What said so lies in the future; it is when the archive was first seen, or last modified.
    Corrected,
}

/// Decides when a checkpoint was taken.
///
/// The first claim there is decides. A claim that lies in the future is replaced by `first_seen`,
/// where that is known, else by the modification time; whoever keeps the answer keeps it for good,
/// so that a wrong clock does not make an archive young again later.
pub fn taken(claims: Claims, first_seen: Option<Timestamp>, now: Timestamp) -> Taken {
    let (at, source) = match (claims.inside, claims.name) {
        (Some(inside), _) => (inside, Source::Inside),
        (None, Some(name)) => (name, Source::Name),
        (None, None) => (claims.modified, Source::Modified),
    };
    if at <= now.checked_add(TOLERANCE).unwrap_or(Timestamp::MAX) {
        return Taken { at, source };
    }
    Taken { at: first_seen.unwrap_or(claims.modified).min(now), source: Source::Corrected }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_first_claim_decides_unless_it_lies_in_the_future() {
        let claims = |inside: Option<i64>, name: Option<i64>, modified| Claims {
            inside: inside.map(at),
            name: name.map(at),
            modified: at(modified),
        };
        let table = [
            (claims(Some(100), Some(200), 300), None, (100, Source::Inside)),
            (claims(None, Some(200), 300), None, (200, Source::Name)),
            (claims(None, None, 300), None, (300, Source::Modified)),
            (claims(Some(1_060), None, 300), None, (1_060, Source::Inside)),
            (claims(Some(1_061), Some(200), 300), None, (300, Source::Corrected)),
            (claims(Some(9_000), None, 300), Some(500), (500, Source::Corrected)),
            (claims(Some(9_000), None, 9_000), None, (1_000, Source::Corrected)),
            (claims(None, None, 9_000), Some(990), (990, Source::Corrected)),
        ];
        for (claims, first_seen, (second, source)) in table {
            let expected = Taken { at: at(second), source };
            assert_eq!(taken(claims, first_seen.map(at), at(1_000)), expected, "{claims:?}");
        }
    }
}

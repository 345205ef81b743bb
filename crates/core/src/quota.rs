//! What a namespace may hold over all nodes, and whether one more checkpoint fits. Pure.

use std::fmt;

use crate::quantity::{Share, human};

/// Archives, and their bytes together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Held {
    /// How many archives.
    pub count: u64,
    /// Their bytes, as files have them.
    pub bytes: u64,
}

impl Held {
    /// Both together; what is too much to be counted stays the most.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { count: self.count.saturating_add(other.count), bytes: self.bytes.saturating_add(other.bytes) }
    }

    /// What is left without the other, of each at least nothing.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self { count: self.count.saturating_sub(other.count), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

/// What a namespace may hold at most; none of a figure is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hard {
    /// How many archives.
    pub count: Option<u64>,
    /// How many bytes they may have together.
    pub bytes: Option<u64>,
}

/// What is done where one more checkpoint would exceed a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnExceed {
    /// It is not made.
    #[default]
    Reject,
    /// It is made, and an event says so.
    Warn,
}

/// A quota of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// The namespace that it is for, and in.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What the namespace may hold.
    pub hard: Hard,
    /// From which share of that on it is nearly exceeded; none: never.
    pub warn_at: Option<Share>,
    /// What is done where it would be exceeded.
    pub on_exceed: OnExceed,
}

/// `CheckpointQuota/team/evidence`
impl fmt::Display for Quota {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CheckpointQuota/{}/{}", self.namespace, self.name)
    }
}

/// How what a namespace holds compares to one of its limits, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It is below the share from which on it warns.
    Below,
    /// It has reached that share.
    Near,
    /// It has reached the limit: no more fits.
    Reached,
    /// It has more.
    Exceeded,
}

impl Quota {
    /// How the number of archives compares to its limit, and how their bytes do; of what has no limit, none.
    pub fn levels(&self, held: Held) -> (Option<Level>, Option<Level>) {
        let level = |held: u64, hard: u64| {
            let is_near = self.warn_at.is_some_and(|share| held > 0 && held >= share.of(hard));
            match held {
                held if held > hard => Level::Exceeded,
                held if held == hard => Level::Reached,
                _ if is_near => Level::Near,
                _ => Level::Below,
            }
        };
        (
            self.hard.count.map(|hard| level(held.count, hard)),
            self.hard.bytes.map(|hard| level(held.bytes, hard)),
        )
    }

    /// Why one more archive does not fit beside what the namespace holds, with figures; none: it fits. Of an archive of
    /// unknown size it is only known that it has some bytes.
    pub fn excess(&self, held: Held, expected: Option<u64>) -> Option<String> {
        let with_it = held.plus(Held { count: 1, bytes: expected.unwrap_or(1) });
        let count = self
            .hard
            .count
            .filter(|hard| with_it.count > *hard)
            .map(|hard| format!("{} of {hard} archives are there", held.count));
        let bytes = self.hard.bytes.filter(|hard| with_it.bytes > *hard).map(|hard| {
            let expected = expected.map_or_else(String::new, |expected| {
                format!(", and {} are expected to be needed", human(expected))
            });
            format!("{} of {} are used{expected}", human(held.bytes), human(hard))
        });
        let told: Vec<String> = count.into_iter().chain(bytes).collect();
        (!told.is_empty()).then(|| format!("{self}: {}", told.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(count: Option<u64>, bytes: Option<u64>) -> Quota {
        Quota {
            namespace: "team".to_owned(),
            name: "q".to_owned(),
            hard: Hard { count, bytes },
            warn_at: Share::percent(80),
            on_exceed: OnExceed::Reject,
        }
    }

    fn held(count: u64, bytes: u64) -> Held {
        Held { count, bytes }
    }

    #[test]
    fn one_more_fits_up_to_the_limit_and_not_beyond_it() {
        let both = quota(Some(3), Some(3 << 20));
        assert_eq!(both.excess(held(2, 2 << 20), Some(1 << 20)), None);
        let told = both.excess(held(3, 3 << 20), Some(1 << 20)).unwrap();
        assert_eq!(
            told,
            "CheckpointQuota/team/q: 3 of 3 archives are there; 3Mi of 3Mi are used, and 1Mi are expected to be needed"
        );
        assert_eq!(
            quota(None, Some(3 << 20)).excess(held(9, 3 << 20), None).unwrap(),
            "CheckpointQuota/team/q: 3Mi of 3Mi are used"
        );
        assert_eq!(quota(None, Some(3 << 20)).excess(held(9, (3 << 20) - 1), None), None);
        assert!(quota(Some(0), None).excess(held(0, 0), None).is_some(), "nothing may be made");
        assert!(quota(Some(u64::MAX), Some(5)).excess(held(u64::MAX, u64::MAX), Some(u64::MAX)).is_some());
        assert_eq!(quota(None, None).excess(held(u64::MAX, u64::MAX), None), None);
    }

    #[test]
    fn what_is_held_compares_to_each_limit_by_itself() {
        let both = quota(Some(10), Some(1_000));
        for (count, bytes, levels) in [
            (7, 799, (Level::Below, Level::Below)),
            (8, 800, (Level::Near, Level::Near)),
            (10, 999, (Level::Reached, Level::Near)),
            (11, 1_000, (Level::Exceeded, Level::Reached)),
        ] {
            assert_eq!(both.levels(held(count, bytes)), (Some(levels.0), Some(levels.1)), "{count} {bytes}");
        }
        assert_eq!(quota(None, Some(10)).levels(held(99, 0)), (None, Some(Level::Below)));
        // A share of a small limit may be less than one.
        assert_eq!(quota(Some(1), None).levels(held(0, 0)).0, Some(Level::Below));
        let silent = Quota { warn_at: None, ..quota(Some(10), None) };
        assert_eq!(silent.levels(held(9, 0)).0, Some(Level::Below));
    }
}

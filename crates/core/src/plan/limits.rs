//! Limits on a group of archives: what goes first, and what a limit never takes.

use super::facts::Facts;
use super::verdict::{Detail, Reason};
use super::working::{By, Working};
use crate::archive::State;

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measure {
    /// Archives.
    Count,
    /// Bytes.
    TotalSize,
}

impl Measure {
    fn of(self, archive: &Facts) -> u64 {
        match self {
            Self::Count => 1,
            Self::TotalSize => archive.size,
        }
    }

    fn detail(self, have: u64, limit: u64) -> Detail {
        match self {
            Self::Count => Detail::Count { have, limit },
            Self::TotalSize => Detail::TotalSize { have, limit },
        }
    }
}

/// The order in which a limit takes: each pass oldest first, and each only if those before it were
/// not enough.
const PASSES: [Pass; 3] = [Pass::Incomplete, Pass::Surplus, Pass::Floor];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Cut-off archives, so that they never displace a complete one.
    Incomplete,
    /// Complete ones that are not among the newest of their lineage.
    Surplus,
    /// Those too, but never the newest of the limited group itself.
    Floor,
}

impl Working<'_> {
    /// Takes what a limit on `group` (oldest first) has too much of.
    ///
    /// `keep_newest` complete unpinned archives of the group are never taken by its own limit.
    pub(super) fn limit(
        &mut self,
        group: &[usize],
        measure: Measure,
        limit: u64,
        keep_newest: u32,
        (reason, by): (Reason, By),
    ) {
        if measure == Measure::Count && group.len() as u64 <= limit {
            return;
        }
        let counted = group.iter().filter(|&&place| self.counts(place));
        // Wider than any one size, so that a sum of absurd ones is still a sum.
        let have: u128 = counted.map(|&place| u128::from(measure.of(&self.archives[place]))).sum();
        let limited = u128::from(limit);
        if have <= limited {
            return;
        }
        let newest: Vec<usize> = group
            .iter()
            .rev()
            .copied()
            .filter(|&place| self.is_candidate_for_newest(place))
            .take(usize::try_from(keep_newest).unwrap_or(usize::MAX))
            .collect();
        // Newest first: the last of them bounds what may be taken.
        let first_kept = newest.last().copied();
        let kept = |place: usize| first_kept.is_some_and(|first| place >= first);
        let mut left = have;
        let have = u64::try_from(have).unwrap_or(u64::MAX);
        for pass in PASSES {
            for &place in group {
                if left <= limited {
                    return;
                }
                if !self.may_take(place) || !self.counts(place) {
                    continue;
                }
                let archive = self.archives[place];
                let turn = match (archive.state, self.floor[place]) {
                    (State::Complete, true) => Pass::Floor,
                    (State::Complete, false) => Pass::Surplus,
                    _ => Pass::Incomplete,
                };
                let untouchable = archive.state == State::Complete && kept(place);
                if (turn == pass && untouchable) || (turn == Pass::Floor && pass == Pass::Surplus) {
                    // It was next, and only its place among the newest saved it.
                    self.spare(place, reason, by);
                } else if turn == pass {
                    left -= u128::from(measure.of(&archive));
                    self.take(place, reason, by, measure.detail(have, limit));
                }
            }
        }
    }
}

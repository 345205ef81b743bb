//! Limits on a group of archives: what goes first, and what a limit never takes.

use std::time::Duration;

use super::Unreachable;
use super::facts::Facts;
use super::planner::{By, Planner, Scope};
use super::snapshot::Clock;
use super::verdict::{Detail, Reason};
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
    pub(super) fn of(self, archive: &Facts) -> u64 {
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

/// One limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    pub(super) measure: Measure,
    /// How much may be.
    pub(super) most: u64,
    /// So many of the newest complete unpinned archives of the group are never taken.
    pub(super) keep_newest: u32,
    /// Younger ones are not taken.
    pub(super) min_age: Duration,
    pub(super) scope: Scope,
    pub(super) reason: Reason,
    pub(super) by: By,
}

/// The order in which a limit takes: each pass oldest first, and each only if those before it were
/// not enough.
const PASSES: [Pass; 3] = [Pass::WorthLess, Pass::Surplus, Pass::Floor];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pass {
    /// Archives of which nothing or little can be restored, so that they never displace a complete one.
    WorthLess,
    /// Complete ones that are not among the newest of their lineage.
    Surplus,
    /// Those too, but never the newest of the limited group itself.
    Floor,
}

impl Planner<'_> {
    /// Takes what a limit on `group` (oldest first) has too much of.
    pub(super) fn limit(&mut self, group: &[usize], limit: Limit) {
        let is_watched = self.watch_limit(group, (limit.measure, limit.scope), limit.by, limit.most);
        let taken = self.take_by_limit(group, limit);
        if is_watched {
            self.watch_taken(taken);
        }
    }

    /// Takes it, and returns how many archives these are.
    fn take_by_limit(&mut self, group: &[usize], limit: Limit) -> u64 {
        let Limit { measure, most, scope, reason, by, .. } = limit;
        let mut taken = 0;
        if measure == Measure::Count && group.len() as u64 <= most {
            return taken;
        }
        let counted = group.iter().filter(|&&place| self.counts(place, scope));
        // Wider than any one size, so that a sum of absurd ones is still a sum.
        let have: u128 = counted.map(|&place| u128::from(measure.of(&self.archives[place]))).sum();
        let limited = u128::from(most);
        if have <= limited {
            return taken;
        }
        let keep = usize::try_from(limit.keep_newest).unwrap_or(usize::MAX);
        let newest = group.iter().rev().filter(|&&place| self.is_candidate_for_newest(place)).take(keep);
        // Newest first: the last of them bounds what may be taken.
        let first_kept = newest.last().copied();
        let mut left = have;
        let have = u64::try_from(have).unwrap_or(u64::MAX);
        for pass in PASSES {
            for &place in group {
                if left <= limited {
                    return taken;
                }
                if !self.may_take(place) || !self.counts(place, scope) {
                    continue;
                }
                let archive = self.archives[place];
                let turn = match (archive.state, self.floor[place]) {
                    (State::Complete, true) => Pass::Floor,
                    (State::Complete, false) => Pass::Surplus,
                    _ => Pass::WorthLess,
                };
                let is_kept = first_kept.is_some_and(|first| place >= first);
                let is_untouchable = is_kept && self.is_candidate_for_newest(place);
                if turn == pass && self.is_too_young(place, &limit) {
                    continue;
                }
                if (turn == pass && is_untouchable) || (turn == Pass::Floor && pass == Pass::Surplus) {
                    // It was next, and only its place among the newest saved it.
                    self.keep_as_newest(place, reason, by);
                } else if turn == pass {
                    left -= u128::from(measure.of(&archive));
                    taken += 1;
                    self.take(place, reason, by, measure.detail(have, most));
                }
            }
        }
        if left > limited {
            self.note_pins(group, limit, left);
        }
        taken
    }

    /// Whether the limit may not take the archive yet, as it is younger than `minAge`, or may be; notes that.
    pub(super) fn is_too_young(&mut self, place: usize, limit: &Limit) -> bool {
        if limit.min_age.is_zero() {
            return false;
        }
        let would = Detail::Would(limit.reason);
        if self.snapshot.clock == Clock::Suspect {
            self.note(place, Reason::ClockSuspect, limit.by, would);
            return true;
        }
        let is_young = !self.is_due(self.archives[place].taken, limit.min_age);
        if is_young {
            self.note(place, Reason::MinAge, limit.by, would);
        }
        is_young
    }

    /// Notes that a limit is not reached because of pins, where that is why.
    pub(super) fn note_pins(&mut self, group: &[usize], limit: Limit, left: u128) {
        let pinned: Vec<usize> = group
            .iter()
            .copied()
            .filter(|&place| self.is_counted_pin(place) && self.counts(place, limit.scope))
            .collect();
        let held: u128 =
            pinned.iter().map(|&place| u128::from(limit.measure.of(&self.archives[place]))).sum();
        // Without pins among them, it is not for these that it is not reached.
        if left - held > u128::from(limit.most) {
            return;
        }
        if let Some(policy) = self.policy_ref(limit.by) {
            let left = u64::try_from(left).unwrap_or(u64::MAX);
            let detail = limit.measure.detail(left, limit.most);
            self.unreachable.push(Unreachable { policy, limit: limit.reason, detail, pinned });
        }
    }
}

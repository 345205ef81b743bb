//! The floor: which archives are the newest of their lineage, and until when that counts.

use jiff::Timestamp;

use super::planner::{FloorRule, Planner};
use crate::policy::{DEFAULT_KEEP_LATEST, KeepFor};

impl Planner<'_> {
    /// Marks the newest complete archives of each lineage that are still there.
    pub(super) fn raise_floor(&mut self) {
        self.floor_taken = false;
        self.floor.fill(false);
        for lineage in self.groups.lineages() {
            // The lineage has left the node when that is confirmed for all that is known of it.
            let idle_since = lineage
                .iter()
                .map(|&place| self.archive(place).idle_since)
                .try_fold(Timestamp::MIN, |latest, idle| Some(latest.max(idle?)));
            // Where the clock is wrong, so may be what is dated ahead of it: then both readings have a newest.
            for is_candidate in [Self::is_candidate_for_newest, Self::is_candidate_ahead] {
                let newest = lineage.iter().rev().copied().filter(|&place| is_candidate(self, place));
                let newest: Vec<usize> = newest.collect();
                let mut newer = 0;
                for place in newest {
                    self.floor[place] = self.is_on_floor(place, newer, idle_since);
                    // What its own policy is about to take for its age stands in for no other.
                    newer += usize::from(self.floor[place] || !self.is_about_to_go(place));
                }
            }
        }
    }

    /// Whether an archive stays that has so many newer ones in its lineage.
    fn is_on_floor(&self, place: usize, newer: usize, idle_since: Option<Timestamp>) -> bool {
        let retention = self.policy(place).map(|(_, policy)| &policy.retention);
        let (keep, keep_for) = match (self.floor_rule, retention) {
            (FloorRule::Storage, _) => (self.storage.protect_latest(), KeepFor::default()),
            (FloorRule::Retention, Some(retention)) => (retention.keep_latest, retention.keep_latest_for),
            (FloorRule::Retention, None) => (DEFAULT_KEEP_LATEST, KeepFor::default()),
        };
        let has_ended = match keep_for {
            KeepFor::Forever => false,
            KeepFor::For(length) => idle_since.is_some_and(|idle| self.has_passed(idle, length)),
        };
        !has_ended && newer < usize::try_from(keep).unwrap_or(usize::MAX)
    }

    /// Whether its policy takes it for its age, unless it is a newest that stays.
    fn is_about_to_go(&self, place: usize) -> bool {
        let limit = self.policy(place).and_then(|(_, policy)| policy.retention.max_age);
        self.floor_rule == FloorRule::Retention
            && limit.is_some_and(|limit| !limit.is_zero() && self.is_due(self.archives[place].taken, limit))
    }

    /// Marks them again where a limit took some, so that the rules after it spare the newest of
    /// what it left.
    pub(super) fn renew_floor(&mut self) {
        if self.floor_taken {
            self.raise_floor();
        }
    }

    /// From here on the storage policies say which are the newest that stay.
    pub(super) fn raise_storage_floor(&mut self) {
        self.floor_rule = FloorRule::Storage;
        self.raise_floor();
    }
}

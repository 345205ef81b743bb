//! The floor: which archives are the newest of their lineage, and until when that counts.

use jiff::Timestamp;

use super::planner::{FloorRule, Planner, end_of};
use super::rules::max_age;
use crate::policy::{DEFAULT_KEEP_LATEST, KeepFor};

impl Planner<'_> {
    /// Marks the newest complete archives of each lineage that are still there.
    pub(super) fn raise_floor(&mut self) {
        self.floor_taken = false;
        self.floor.fill(false);
        for lineage in self.groups.lineages() {
            let idle_since = self.idle_since(lineage);
            // Where the clock is wrong, so may be what is dated ahead of it: then both readings have a newest.
            for is_candidate in [Self::is_candidate_for_newest, Self::is_candidate_ahead] {
                let newest = lineage.iter().rev().copied().filter(|&place| is_candidate(self, place));
                let newest: Vec<usize> = newest.collect();
                let mut newer = 0;
                for place in newest {
                    self.floor[place] = self.is_on_floor(place, newer, idle_since);
                    newer += usize::from(self.stands_in(place, newer, idle_since));
                }
            }
        }
    }

    /// Since when a lineage has left the node: that is confirmed for all that is known of it.
    pub(super) fn idle_since(&self, lineage: &[usize]) -> Option<Timestamp> {
        let mut idle = lineage.iter().map(|&place| self.archive(place).idle_since);
        idle.try_fold(Timestamp::MIN, |latest, idle| Some(latest.max(idle?)))
    }

    /// Whether an archive stays that has so many newer ones in its lineage.
    pub(super) fn is_on_floor(&self, place: usize, newer: usize, idle_since: Option<Timestamp>) -> bool {
        let (keep, _) = self.floor_of(place);
        let has_ended = self.floor_end(place, idle_since).is_some_and(|end| self.has_come(end));
        !has_ended && newer < usize::try_from(keep).unwrap_or(usize::MAX)
    }

    /// Whether an archive that has so many newer ones in its lineage can stand in for older ones. What its own policy
    /// is about to take for its age stands in for no other.
    pub(super) fn stands_in(&self, place: usize, newer: usize, idle_since: Option<Timestamp>) -> bool {
        self.is_on_floor(place, newer, idle_since) || !self.is_about_to_go(place)
    }

    /// When the floor ends for an archive of a lineage that has left the node; none: it does not.
    pub(super) fn floor_end(&self, place: usize, idle_since: Option<Timestamp>) -> Option<Timestamp> {
        match self.floor_of(place).1 {
            KeepFor::Forever => None,
            KeepFor::For(length) => idle_since.map(|idle| end_of(idle, length)),
        }
    }

    /// How many of the newest stay in the lineage of an archive, and for how long after it left the node.
    fn floor_of(&self, place: usize) -> (u32, KeepFor) {
        let retention = self.policy(place).map(|(_, policy)| &policy.retention);
        match (self.floor_rule, retention) {
            (FloorRule::Storage, _) => (self.storage.protect_latest(), KeepFor::default()),
            (FloorRule::Retention, Some(retention)) => (retention.keep_latest, retention.keep_latest_for),
            (FloorRule::Retention, None) => (DEFAULT_KEEP_LATEST, KeepFor::default()),
        }
    }

    /// Whether its policy takes it for its age, unless it is a newest that stays.
    fn is_about_to_go(&self, place: usize) -> bool {
        let limit = self.policy(place).and_then(|(_, policy)| max_age(policy));
        self.floor_rule == FloorRule::Retention
            && limit.is_some_and(|limit| self.is_due(self.archives[place].taken, limit))
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

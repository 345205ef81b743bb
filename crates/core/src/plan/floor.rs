//! The floor: which archives are the newest of their lineage, and until when that counts.

use jiff::Timestamp;

use super::working::Working;
use crate::policy::{DEFAULT_KEEP_LATEST, KeepFor};

impl Working<'_> {
    /// Marks the newest complete archives of each lineage that are still there.
    pub(super) fn raise_floor(&mut self) {
        for lineage in self.cells.lineages() {
            // The lineage has left the node when that is confirmed for all that is known of it.
            let idle_since = lineage
                .iter()
                .map(|&place| self.archive(place).idle_since)
                .try_fold(Timestamp::MIN, |latest, idle| Some(latest.max(idle?)));
            let newest: Vec<usize> =
                lineage.iter().rev().copied().filter(|&place| self.is_candidate_for_newest(place)).collect();
            for (newer, place) in newest.into_iter().enumerate() {
                let retention = self.policy(place).map(|(_, policy)| &policy.retention);
                let keep = retention.map_or(DEFAULT_KEEP_LATEST, |retention| retention.keep_latest);
                let ended =
                    match retention.map_or_else(KeepFor::default, |retention| retention.keep_latest_for) {
                        KeepFor::Forever => false,
                        KeepFor::For(length) => idle_since.is_some_and(|idle| self.has_passed(idle, length)),
                    };
                self.floor[place] = !ended && newer < usize::try_from(keep).unwrap_or(usize::MAX);
            }
        }
    }

    /// Marks them again where a limit took some, so that the rules after it spare the newest of
    /// what it left.
    pub(super) fn renew_floor(&mut self) {
        if std::mem::take(&mut self.floor_taken) {
            self.raise_floor();
        }
    }
}

//! How fresh a fact has to be for what it is used for: all such rules stand here.

use std::time::Duration;

use jiff::Timestamp;

use crate::fact::{Fact, Source};

/// For how long a list of the pods on this node counts, and an answer about a namespace's labels where no watch
/// would show sooner that they changed.
pub const LIVE: Duration = Duration::from_mins(10);

/// For how long the answer that something is gone counts: long enough for a plan to be made from it, too short
/// for a pod to come back and be at work unnoticed.
pub const CONFIRMED: Duration = Duration::from_mins(2);

/// What a fact is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Selecting archives by the labels that a namespace has now, on a node whose pods are not watched.
    SelectByLabels,
    /// The same on a node whose pods are watched.
    SelectByLabelsBesideWatch,
    /// Deciding that a pod without a UID is from the namespace that has the name now.
    PlaceInNamespace {
        /// The latest time at which the pod may have run.
        ran_until: Timestamp,
    },
    /// Deleting an archive because its pod, workload or namespace is gone.
    DeleteOrphan,
    /// Noting that no pod of a lineage runs on this node.
    NoteIdle {
        /// The latest time at which one may have run, by its archives.
        ran_until: Timestamp,
    },
    /// Ending the floor of a lineage, as no pod of it runs on this node.
    EndFloor,
    /// Believing which cluster it is that says that something is gone.
    TrustCluster,
}

impl Use {
    /// Whether the fact is fresh enough for this use.
    pub(super) fn allows<T>(self, fact: &Fact<T>, now: Timestamp) -> bool {
        // Nothing from the catalog counts: since it was kept, the cluster may have changed, or the node may have
        // joined another one.
        match self {
            Self::SelectByLabels => match fact.source {
                // It shows a change when it happens, and what it showed is dropped when it ends.
                Source::Watch => true,
                // Labels change rarely, and every round of lookups asks again.
                Source::Answer => fact.is_within(LIVE, now),
                Source::Catalog => false,
            },
            Self::SelectByLabelsBesideWatch => match fact.source {
                Source::Watch => true,
                // Watches are usual here, so an answer only bridges the time until one shows the labels.
                Source::Answer => fact.is_within(CONFIRMED, now),
                Source::Catalog => false,
            },
            Self::PlaceInNamespace { ran_until } => match fact.source {
                // A namespace that was asked about before the pod ran may have been another one of that name.
                Source::Answer => fact.as_of >= ran_until,
                // A watch may be late, and show the namespace before this one.
                Source::Watch | Source::Catalog => false,
            },
            Self::DeleteOrphan => match fact.source {
                // Only the API server's own "not found" makes an orphan, and what is gone may come back.
                Source::Answer => fact.is_within(CONFIRMED, now),
                // A watch that does not show an object may be late or incomplete.
                Source::Watch | Source::Catalog => false,
            },
            Self::NoteIdle { ran_until } => match fact.source {
                // A list from before the pod ran does not say that it has ended.
                Source::Answer | Source::Watch => fact.as_of >= ran_until,
                Source::Catalog => false,
            },
            Self::EndFloor => match fact.source {
                // Longer than for orphans, as the floor only ends `keepLatestFor` (days) after the last pod did.
                Source::Answer | Source::Watch => fact.is_within(LIVE, now),
                Source::Catalog => false,
            },
            // The UID of a cluster does not change while this process runs, so its age does not matter. No watch
            // shows it.
            Self::TrustCluster => fact.source == Source::Answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);
    const RAN_UNTIL: Timestamp = Timestamp::constant(1_700_000_000, 0);

    /// Which facts a use allows from one source.
    #[derive(Debug, Clone, Copy)]
    enum Allowed {
        Never,
        Always,
        /// Those that are at most that old, and not from the future.
        Within(Duration),
        /// Those from then on.
        Since(Timestamp),
    }

    #[test]
    fn a_fact_counts_only_from_the_sources_and_for_the_time_that_its_use_allows() {
        use Allowed::{Always, Never, Since, Within};
        // Use; answer, watch, catalog.
        let table = [
            (Use::SelectByLabels, [Within(LIVE), Always, Never]),
            (Use::SelectByLabelsBesideWatch, [Within(CONFIRMED), Always, Never]),
            (Use::PlaceInNamespace { ran_until: RAN_UNTIL }, [Since(RAN_UNTIL), Never, Never]),
            (Use::DeleteOrphan, [Within(CONFIRMED), Never, Never]),
            (Use::NoteIdle { ran_until: RAN_UNTIL }, [Since(RAN_UNTIL), Since(RAN_UNTIL), Never]),
            (Use::EndFloor, [Within(LIVE), Within(LIVE), Never]),
            (Use::TrustCluster, [Always, Never, Never]),
        ];
        let moment = Duration::from_nanos(1);
        for (wanted, by_source) in table {
            for (source, allowed) in
                [Source::Answer, Source::Watch, Source::Catalog].into_iter().zip(by_source)
            {
                let allows = |as_of| wanted.allows(&Fact { value: (), as_of, source }, NOW);
                let what = format!("{wanted:?} {source:?}");
                let (inside, outside) = match allowed {
                    Never => (vec![], vec![NOW, Timestamp::MIN, Timestamp::MAX]),
                    Always => (vec![NOW, Timestamp::MIN], vec![]),
                    Within(age) => (vec![NOW, NOW - age], vec![NOW - age - moment, NOW + moment]),
                    Since(then) => (vec![NOW, then], vec![then - moment]),
                };
                assert!(inside.into_iter().all(allows), "{what}");
                assert!(!outside.into_iter().any(allows), "{what}");
            }
        }
    }
}

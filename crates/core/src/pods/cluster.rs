//! Which cluster answers: what another cluster reported as gone does not count in this one.

use jiff::Timestamp;

use super::freshness::Use;
use super::{Confirmed, PodIndex};
use crate::fact::Fact;

/// The cluster that answers.
#[derive(Debug, Default)]
pub(super) struct ClusterIdentity {
    /// The UID of the one that was last asked.
    uid: Option<Fact<String>>,
    /// Whether the catalog does not have that UID yet.
    is_changed: bool,
}

impl ClusterIdentity {
    /// Whether the cluster is known, so that what it reports as gone counts.
    pub(super) fn is_known(&self) -> bool {
        self.uid.as_ref().is_some_and(|uid| Use::TrustCluster.allows(uid, uid.as_of))
    }

    /// Whether no cluster with a UID ever answered. One that had a UID and now has none is still being set up.
    pub(super) fn had_no_uid(&self) -> bool {
        self.uid.as_ref().is_none_or(|uid| uid.value.is_empty())
    }

    /// Marks it as changed, so that an empty catalog gets it.
    pub(super) fn remember_anew(&mut self) {
        self.is_changed = self.is_known();
    }
}

impl PodIndex {
    /// Takes from the catalog which cluster its absences are from; none where that is unknown.
    pub fn remember_cluster(&mut self, uid: Option<String>) {
        self.cluster.uid = uid.map(Fact::remembered);
    }

    /// Whether it is known which cluster answers, so that its "not found" answers count.
    pub fn knows_cluster(&self) -> bool {
        self.cluster.is_known()
    }

    /// The cluster's UID, if that changed since the last call.
    pub fn take_cluster(&mut self) -> Option<String> {
        let is_changed = std::mem::take(&mut self.cluster.is_changed);
        self.cluster.uid.as_ref().filter(|_| is_changed).map(|uid| uid.value.clone())
    }

    /// Notes which cluster answers, and drops the absences that another one reported.
    pub(super) fn cluster_is(&mut self, uid: &str, now: Timestamp) {
        let before = self.cluster.uid.replace(Fact::answered(uid.to_owned(), now));
        if before.is_some_and(|before| before.value == uid) {
            return;
        }
        self.cluster.is_changed = true;
        for (key, pod) in &mut self.pods {
            let before = pod.record.clone();
            pod.record.forget_absences();
            pod.confirmed = Confirmed::default();
            if pod.record != before {
                self.changed.insert(key.clone());
            }
        }
    }
}

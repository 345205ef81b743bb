//! Which cluster is asked: what another one said to be gone says nothing of this one.

use jiff::Timestamp;

use super::freshness::Use;
use super::{Confirmed, PodIndex};
use crate::fact::Fact;

/// Which cluster is asked.
#[derive(Debug, Default)]
pub(super) struct ClusterIdentity {
    /// The UID of the one that was last asked.
    uid: Option<Fact<String>>,
    /// Whether the catalog does not have that UID yet.
    is_changed: bool,
}

impl ClusterIdentity {
    /// Whether something can count as gone: which cluster says so is known.
    pub(super) fn is_known(&self) -> bool {
        self.uid.as_ref().is_some_and(|uid| Use::TrustCluster.allows(uid, uid.as_of))
    }

    /// Whether no cluster was ever asked that has a UID. One that had, and says that it has none, is being built.
    pub(super) fn had_no_uid(&self) -> bool {
        self.uid.as_ref().is_none_or(|uid| uid.value.is_empty())
    }

    /// Has it remembered anew, as in a memory that was lost.
    pub(super) fn remember_anew(&mut self) {
        self.is_changed = self.is_known();
    }
}

impl PodIndex {
    /// Takes from the catalog which cluster its absences are from; none where that is unknown.
    pub fn remember_cluster(&mut self, uid: Option<String>) {
        self.cluster.uid = uid.map(Fact::remembered);
    }

    /// Whether it is known which cluster is asked, so that what it says to be gone counts.
    pub fn knows_cluster(&self) -> bool {
        self.cluster.is_known()
    }

    /// The cluster that said so, if that changed since the last call.
    pub fn take_cluster(&mut self) -> Option<String> {
        let is_changed = std::mem::take(&mut self.cluster.is_changed);
        self.cluster.uid.as_ref().filter(|_| is_changed).map(|uid| uid.value.clone())
    }

    /// Which cluster answers is known now. What another one said to be gone says nothing of this one.
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

//! Which cluster is asked: what another one said to be gone says nothing of this one.

use super::{Confirmed, PodIndex};

/// Which cluster is asked.
#[derive(Debug, Default)]
pub(super) struct ClusterIdentity {
    /// The UID of the one that was last asked.
    uid: Option<String>,
    /// Whether it said so itself since the start.
    is_confirmed: bool,
    /// Whether that is yet to be remembered.
    is_changed: bool,
}

impl ClusterIdentity {
    /// Whether something can count as gone: which cluster says so is known.
    pub(super) fn is_known(&self) -> bool {
        self.is_confirmed
    }

    /// Whether no cluster was ever asked that has a UID. One that had, and says that it has none, is being built.
    pub(super) fn had_no_uid(&self) -> bool {
        self.uid.as_deref().is_none_or(str::is_empty)
    }

    /// Has it remembered anew, as in a memory that was lost.
    pub(super) fn remember_anew(&mut self) {
        self.is_changed = self.is_confirmed;
    }
}

impl PodIndex {
    /// Knows which cluster it was that said what was remembered; none: nobody knows.
    pub fn remember_cluster(&mut self, uid: Option<String>) {
        self.cluster.uid = uid;
    }

    /// Whether it is known which cluster is asked, so that what it says to be gone counts.
    pub fn knows_cluster(&self) -> bool {
        self.cluster.is_known()
    }

    /// The cluster that said so, if that changed since the last call.
    pub fn take_cluster(&mut self) -> Option<String> {
        let is_changed = std::mem::take(&mut self.cluster.is_changed);
        self.cluster.uid.clone().filter(|_| is_changed)
    }

    /// Which cluster answers is known now. What another one said to be gone says nothing of this one.
    pub(super) fn cluster_is(&mut self, uid: &str) {
        let is_another = self.cluster.uid.as_deref() != Some(uid);
        self.cluster.is_confirmed = true;
        if !is_another {
            return;
        }
        (self.cluster.uid, self.cluster.is_changed) = (Some(uid.to_owned()), true);
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

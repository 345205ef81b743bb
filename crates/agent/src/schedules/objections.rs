//! What speaks against a dump before it begins: a quota of its namespace, too little room, or a policy that would take its
//! archive at once.

use std::time::Duration;

use checkpoint_keeper_core::policy::Labels;
use checkpoint_keeper_core::quantity::human;
use checkpoint_keeper_core::schedule::{ContainerId, Dump, Outcome};
use checkpoint_keeper_node::clock;
use checkpoint_keeper_runtime::kubelet::ContainerKey;
use checkpoint_keeper_runtime::liveness::now;
use tokio::time::{sleep, timeout};

use super::archives::{Room, SeenArchives};
use super::dumping::Dumper;
use crate::quotas::Reservation;

/// A runtime writes the images before it packs them: until it is done, there are both.
const STAGING: u64 = 2;

/// How long a dump waits for room while archives are being deleted.
const ROOM_WITHIN: Duration = Duration::from_secs(30);

/// How long the kubelet may take to say what a container uses: a dump for a pod that is about to end does not wait.
const USAGE_WITHIN: Duration = Duration::from_millis(100);

impl Dumper {
    /// What the dump holds of its namespace's quotas, where nothing speaks against it as far as is known; else why it should
    /// not begin. Where there is too little room and archives are being deleted, it waits for these.
    pub(super) async fn permission(&self, dump: &Dump) -> Result<Reservation, Outcome> {
        let container = &dump.container;
        let last = self.archives.last_size(container);
        // By what the container has in memory this would be a guess: caches are in it that are not dumped.
        if let Some(size) = last {
            let labels = self.labels_of(container);
            let oversized = self.archives.oversize_objection(container, labels, size, clock::now().wall);
            if let Some(oversized) = oversized {
                return Err(Outcome::TooLarge(oversized));
            }
        }
        let expected = match last {
            Some(size) => Some(size),
            None => self.working_set(container).await,
        };
        let reserved = self.quotas.reserve(&container.namespace, expected).await;
        let reserved = reserved.map_err(Outcome::QuotaExceeded)?;
        if let Some(shortage) = shortage_in_the_end(&self.archives, expected).await {
            return Err(Outcome::InsufficientStorage(shortage));
        }
        self.warnings.warn(container, &reserved.warnings);
        Ok(reserved)
    }

    /// What the container has in memory; none where the kubelet does not say so at once.
    async fn working_set(&self, container: &ContainerId) -> Option<u64> {
        let usage = timeout(USAGE_WITHIN, self.usage.recent()).await.ok()??;
        let ContainerId { namespace, pod, container, .. } = container.clone();
        usage.get(&ContainerKey { namespace, pod, container })?.memory_bytes
    }

    fn labels_of(&self, container: &ContainerId) -> Option<Labels> {
        let pods = self.pods.pods(now())?;
        pods.into_iter().find(|pod| pod.uid == container.pod_uid).map(|pod| pod.labels)
    }
}

/// What is missing for a dump of that size, also after the archives are gone that are being deleted.
pub(super) async fn shortage_in_the_end(archives: &SeenArchives, expected: Option<u64>) -> Option<String> {
    let mut views = archives.views();
    let waited = sleep(ROOM_WITHIN);
    tokio::pin!(waited);
    loop {
        views.mark_unchanged();
        let room = archives.room()?;
        let shortage = shortage(room, expected)?;
        if room.deletions == 0 {
            return Some(shortage);
        }
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return Some(shortage) },
            () = &mut waited => return Some(shortage),
        }
    }
}

/// What is missing for a dump of that size; none: there is room, as far as is known.
fn shortage(room: Room, expected: Option<u64>) -> Option<String> {
    let needed = expected.unwrap_or(0).saturating_mul(STAGING);
    let usable = room.available.saturating_sub(room.min_free);
    if needed <= usable && (usable > 0 || room.min_free == 0) {
        return None;
    }
    let (available, min_free) = (human(room.available), human(room.min_free));
    Some(format!(
        "{available} are available, of which {min_free} are to stay free, and {} are expected to be needed",
        human(needed)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_dump_where_what_it_needs_would_not_leave_what_is_to_stay_free() {
        let room = |available, min_free| Room { available, min_free, deletions: 0 };
        assert_eq!(shortage(room(100, 0), None), None);
        assert_eq!(shortage(room(100, 0), Some(50)), None);
        assert!(shortage(room(100, 0), Some(51)).is_some());
        assert_eq!(shortage(room(100, 40), Some(30)), None);
        assert!(shortage(room(100, 41), Some(30)).is_some());
        assert!(shortage(room(100, 100), None).is_some(), "nothing is left to use");
        assert!(shortage(room(100, 200), Some(u64::MAX)).is_some());
    }
}

//! What the plan is given of what is known.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::idle::Lineage;
use super::record::{OwnerId, OwnerRef, PodKey};
use super::{CONFIRMED, Owners, Pod, is_live, is_within};
use crate::identity::Identity;
use crate::plan::{Absence, Absences, Namespace, Origin, Snapshot, Workload};
use crate::policy::Labels;

impl Owners {
    /// Gives a snapshot's archives what is known about their pods, and the snapshot its namespaces.
    pub fn fill(&self, snapshot: &mut Snapshot, now: Timestamp) {
        let mut known: HashMap<(*const Identity, Origin), Known> = HashMap::new();
        let mut workloads: HashMap<OwnerId, Arc<Workload>> = HashMap::new();
        let idle = self.idle_lineages(now);
        let mut found: HashMap<*const Identity, Option<(&PodKey, &Pod)>> = HashMap::new();
        for archive in &mut snapshot.archives {
            let Some(identity) = &archive.identity else { continue };
            // Archives of one container share their identity: each is looked up once.
            let found = found.entry(Arc::as_ptr(identity));
            let found = found.or_insert_with(|| self.pods.get_key_value(&PodKey::of(identity)));
            let Some((key, pod)) = *found else { continue };
            let origin = pod.origin(archive.taken);
            let known = known.entry((Arc::as_ptr(identity), origin)).or_insert_with(|| {
                let mut known = match origin {
                    Origin::Former => pod.former(key, now),
                    // Without a UID what is known may be of the pod that has the name now.
                    Origin::Uncertain if key.uid.is_none() => {
                        Known { labels: None, owner: None, ..pod.current(now) }
                    }
                    Origin::Present | Origin::Uncertain => pod.current(now),
                };
                known.workload = known.owner.take().map(|owner| {
                    let workload = || Arc::new(owner.workload());
                    Arc::clone(workloads.entry(owner.id()).or_insert_with(workload))
                });
                let running = self.running.as_ref().filter(|running| running.is_known);
                let node_is_known = running.is_some_and(|running| is_live(running.at, now));
                known.idle_since = match &pod.record.namespace {
                    Some(namespace) if origin == Origin::Former => namespace.since.filter(|_| node_is_known),
                    _ => idle.get(&Lineage::of(key, &pod.record)).copied().flatten(),
                };
                known
            });
            archive.pod_labels.clone_from(&known.labels);
            archive.workload.clone_from(&known.workload);
            archive.absences.clone_from(&known.absences);
            archive.idle_since = known.idle_since;
            archive.seen_in = pod.record.seen_in;
        }
        for (key, pod) in &self.pods {
            let labels = self.namespace_labels.get(&key.namespace);
            let created = pod.record.namespace.map(|namespace| namespace.created);
            let is_doubted = self.doubted.contains_key(&key.namespace);
            if labels.is_some() || created.is_some() || is_doubted || self.is_curious {
                let namespace = snapshot
                    .namespaces
                    .entry(key.namespace.clone())
                    .or_insert_with(|| Namespace { labels: labels.cloned(), created: None, is_doubted });
                namespace.created = namespace.created.max(created);
            }
        }
        if self.is_curious {
            // It is being asked about, and until there is an answer it may be another's.
            for namespace in snapshot.namespaces.values_mut() {
                namespace.is_doubted |= namespace.created.is_none();
            }
        }
    }
}

/// What the plan is given about a pod's archives.
#[derive(Default)]
struct Known {
    labels: Option<Arc<Labels>>,
    owner: Option<OwnerRef>,
    workload: Option<Arc<Workload>>,
    absences: Option<Arc<Absences>>,
    idle_since: Option<Timestamp>,
}

impl Pod {
    /// What is known for archives from the namespace that is there.
    fn current(&self, now: Timestamp) -> Known {
        let (record, confirmed) = (&self.record, &self.confirmed);
        let absences = Absences {
            pod: record.pod_gone.map(|since| absence(since, confirmed.pod, now)),
            workload: record.workload_gone.map(|since| absence(since, confirmed.workload, now)),
            namespace: record.namespace_gone.map(|since| absence(since, confirmed.namespace, now)),
        };
        Known {
            labels: record.labels.clone(),
            owner: record.owner.topmost().cloned(),
            absences: (absences != Absences::default()).then(|| Arc::new(absences)),
            ..Known::default()
        }
    }

    /// What is known for archives from a namespace that is gone.
    fn former(&self, key: &PodKey, now: Timestamp) -> Known {
        let since = self.record.namespace.and_then(|namespace| namespace.since);
        let gone = since.map(|since| absence(since, self.confirmed.namespace, now));
        // Without a UID what is known may be of the pod that has the name now.
        let is_its_own = key.uid.is_some();
        Known {
            labels: self.record.labels.clone().filter(|_| is_its_own),
            owner: self.record.owner.topmost().filter(|_| is_its_own).cloned(),
            absences: Some(Arc::new(Absences { pod: gone, workload: gone, namespace: gone })),
            ..Known::default()
        }
    }
}

/// An absence, as confirmed only if that was just now.
fn absence(since: Timestamp, confirmed: Option<Timestamp>, now: Timestamp) -> Absence {
    match confirmed.filter(|confirmed| is_within(CONFIRMED, *confirmed, now)) {
        Some(confirmed) => Absence { since, confirmed },
        None => Absence::unconfirmed(since),
    }
}

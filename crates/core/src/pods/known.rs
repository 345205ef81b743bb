//! Known facts, as the plan gets them.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::freshness::Use;
use super::idle::Lineage;
use super::record::{OwnerId, OwnerRef, PodKey};
use super::{Gone, Pod, PodIndex};
use crate::fact::Fact;
use crate::identity::Identity;
use crate::plan::{Absence, Absences, Namespace, Origin, Snapshot, Workload};
use crate::policy::{FormerLabels, Labels};

impl PodIndex {
    /// Gives a snapshot's archives what is known about their pods, and the snapshot its namespaces.
    pub fn fill(&self, snapshot: &mut Snapshot, now: Timestamp) {
        let mut known: HashMap<(*const Identity, Origin), Known> = HashMap::new();
        let mut workloads: HashMap<OwnerId, Arc<Workload>> = HashMap::new();
        let idle = self.idle_lineages(now);
        let select = if self.pods_watched { Use::SelectByLabelsBesideWatch } else { Use::SelectByLabels };
        let mut found: HashMap<*const Identity, Option<(&PodKey, &Pod)>> = HashMap::new();
        for archive in &mut snapshot.archives {
            let Some(identity) = &archive.identity else { continue };
            // Archives of one container share their identity: each is looked up once.
            let found = found.entry(Arc::as_ptr(identity));
            let found = found.or_insert_with(|| self.pods.get_key_value(&PodKey::of(identity)));
            let Some((key, pod)) = *found else { continue };
            archive.seen_in = pod.record.seen_in;
            let origin = archive.origin(pod.record.namespace.map(|namespace| namespace.created));
            let known = known.entry((Arc::as_ptr(identity), origin)).or_insert_with(|| {
                let mut known = pod.known(key, origin, self.cluster.is_known(), now);
                let is_invalidated = self.invalidated.contains_key(&key.namespace);
                let current = self.namespace_labels.get(&key.namespace);
                let current =
                    current.filter(|current| !is_invalidated && select.allows(&current.labels, now));
                known.namespace_labels = pod.namespace_labels(key, origin, current, self.cluster.is_known());
                known.workload = known.owner.take().map(|owner| {
                    let workload = || Arc::new(owner.workload());
                    Arc::clone(workloads.entry(owner.id()).or_insert_with(workload))
                });
                known.idle_since = idle.get(&Lineage::of(key, &pod.record)).copied().flatten();
                known
            });
            archive.namespace_labels.clone_from(&known.namespace_labels);
            archive.pod_labels.clone_from(&known.labels);
            archive.former_labels.clone_from(&known.former_labels);
            archive.workload.clone_from(&known.workload);
            archive.absences.clone_from(&known.absences);
            archive.idle_since = known.idle_since;
        }
        for (key, pod) in &self.pods {
            let created = pod.record.namespace.map(|namespace| namespace.created);
            let is_invalidated = self.invalidated.contains_key(&key.namespace);
            if created.is_some() || is_invalidated || self.eager_lookups {
                let namespace = snapshot
                    .namespaces
                    .entry(key.namespace.clone())
                    .or_insert_with(|| Namespace { created: None, is_invalidated });
                namespace.created = namespace.created.max(created);
            }
        }
        if self.eager_lookups {
            // It is being asked about, and until there is an answer it may be another's.
            for namespace in snapshot.namespaces.values_mut() {
                namespace.is_invalidated |= namespace.created.is_none();
            }
        }
    }
}

/// What the plan is given about a pod's archives.
#[derive(Default)]
struct Known {
    labels: Option<Arc<Labels>>,
    former_labels: Option<Arc<FormerLabels>>,
    namespace_labels: Option<Arc<Labels>>,
    owner: Option<OwnerRef>,
    workload: Option<Arc<Workload>>,
    absences: Option<Arc<Absences>>,
    idle_since: Option<Timestamp>,
}

impl Pod {
    /// What is known for archives from that one of the namespaces of its name. What is gone is so by its name:
    /// also of a namespace that was made anew, as one is that was restored from a backup.
    fn known(&self, key: &PodKey, origin: Origin, cluster_is_known: bool, now: Timestamp) -> Known {
        let (record, confirmed) = (&self.record, &self.confirmed);
        // Without a UID what is known may be of the pod that has the name now.
        let is_its_own = origin == Origin::Present || key.uid.is_some();
        let absence = |since: Option<Timestamp>, confirmed: Option<Fact<Gone>>| {
            since.map(|since| absence(since, confirmed.filter(|_| cluster_is_known), now))
        };
        let absences = Absences {
            pod: absence(record.pod_gone, confirmed.pod),
            workload: absence(record.workload_gone.filter(|_| is_its_own), confirmed.workload),
            namespace: absence(record.namespace_gone, confirmed.namespace),
        };
        Known {
            labels: record.labels.clone().filter(|_| is_its_own),
            former_labels: record.former_labels.clone().filter(|_| is_its_own),
            owner: record.owner.topmost().filter(|_| is_its_own).cloned(),
            absences: (absences != Absences::default()).then(|| Arc::new(absences)),
            ..Known::default()
        }
    }
}

/// An absence for the plan, confirmed only if the confirmation is fresh enough to delete by.
fn absence(since: Timestamp, confirmed: Option<Fact<Gone>>, now: Timestamp) -> Absence {
    match confirmed.filter(|gone| Use::DeleteOrphan.allows(gone, now)) {
        Some(gone) => Absence { since, confirmed: gone.as_of },
        None => Absence::unconfirmed(since),
    }
}

//! Which lineages have no pod on this node.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use super::freshness::Use;
use super::record::{OwnerId, OwnerRef, PodKey, PodRecord};
use super::{Gone, LivePod, Pod, PodIndex};
use crate::fact::Fact;
use crate::plan::Clock;

/// The pods that run on this node, as the last list named them.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) pods: Fact<Vec<LivePod>>,
    /// Whether the time of that list is to be trusted.
    clock: Clock,
    /// Whether nothing has failed since then that would have shown a change.
    pub(super) is_known: bool,
}

/// What one checkpoint can stand in for, all its containers together: the plan's rule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Lineage {
    /// All pods of a topmost owner.
    Owner(String, OwnerId),
    /// A `StatefulSet`'s pod, a bare one, or one of an unknown owner.
    Pod(String, String),
}

impl Lineage {
    pub(super) fn of(key: &PodKey, record: &PodRecord) -> Self {
        Self::new(&key.namespace, &key.pod, record.owner.topmost())
    }

    fn new(namespace: &str, pod: &str, topmost: Option<&OwnerRef>) -> Self {
        match topmost.filter(|owner| !owner.is_stateful()) {
            Some(owner) => Self::Owner(namespace.to_owned(), owner.id()),
            None => Self::Pod(namespace.to_owned(), pod.to_owned()),
        }
    }
}

impl PodIndex {
    /// Notes which lineages run on this node, and which do not.
    pub(super) fn note_idle(&mut self) {
        let Some(running) = self.running.as_ref().filter(|running| running.is_known) else { return };
        let mut busy = BTreeSet::new();
        // Namespaces with a pod that could be of any owner.
        let mut unsure = BTreeSet::new();
        for pod in &running.pods.value {
            busy.insert(Lineage::new(&pod.namespace, &pod.name, None));
            match pod.controller.as_ref().map(|controller| self.climb(&pod.namespace, controller)) {
                Some(Ok(owner)) => _ = busy.insert(Lineage::new(&pod.namespace, &pod.name, Some(&owner))),
                Some(Err(_)) => _ = unsure.insert(pod.namespace.clone()),
                None => {}
            }
        }
        let idle = Fact { value: Gone, as_of: running.pods.as_of, source: running.pods.source };
        let is_known = running.clock == Clock::Trusted && self.cluster.is_known();
        // Those from a former namespace, too: what was made anew by their names may be theirs, restored.
        for (key, pod) in self.pods.iter_mut().filter(|(_, pod)| pod.needs.idle) {
            let lineage = Lineage::of(key, &pod.record);
            let note = Use::NoteIdle { ran_until: pod.newest };
            let before = pod.record.idle_since;
            pod.confirmed.idle = None;
            if busy.contains(&lineage) {
                pod.record.idle_since = None;
            } else if is_known
                && note.allows(&idle, idle.as_of)
                && !matches!(&lineage, Lineage::Owner(namespace, _) if unsure.contains(namespace))
            {
                pod.record.idle_since.get_or_insert(idle.as_of);
                pod.confirmed.idle = Some(idle);
            }
            if pod.record.idle_since != before {
                self.changed.insert(key.clone());
            }
        }
    }

    /// Nothing is known of this node for now.
    pub(super) fn invalidate_idle(&mut self) {
        if let Some(running) = &mut self.running {
            running.is_known = false;
        }
        self.pods.values_mut().for_each(|pod| pod.confirmed.idle = None);
    }

    /// The owners to ask about, so that it is known of which lineage running pods are that have no
    /// archive here: whether it runs here, and whether it may have gone when one of them ends.
    pub(super) fn unplaced_runners(&self) -> impl Iterator<Item = (&String, OwnerRef)> {
        let by_owner = |(key, pod): (&PodKey, &Pod)| match Lineage::of(key, &pod.record) {
            Lineage::Owner(namespace, _) if pod.needs.idle || pod.needs.owner => Some(namespace),
            _ => None,
        };
        let asking: BTreeSet<String> = self.pods.iter().filter_map(by_owner).collect();
        let running = self.running.iter().flat_map(|running| &running.pods.value);
        running.filter(move |pod| asking.contains(&pod.namespace)).filter_map(|pod| {
            let above = self.climb(&pod.namespace, pod.controller.as_ref()?).err()?;
            Some((&pod.namespace, above))
        })
    }

    /// Since when each lineage has no pod on this node: the same for all its archives, and none
    /// where it is not known of all of them, just now.
    pub(super) fn idle_lineages(&self, now: Timestamp) -> HashMap<Lineage, Option<Timestamp>> {
        let mut idle: HashMap<Lineage, Option<Timestamp>> = HashMap::new();
        for (key, pod) in &self.pods {
            let live = pod.confirmed.idle.is_some_and(|idle| Use::EndFloor.allows(&idle, now));
            let since = pod.record.idle_since.filter(|_| live);
            idle.entry(Lineage::of(key, &pod.record))
                .and_modify(|known| *known = known.zip(since).map(|(one, other)| one.max(other)))
                .or_insert(since);
        }
        idle
    }

    /// What of a node's pods is kept: all of them, as the next archive may be of any, without what
    /// takes room.
    pub(super) fn keep_running(live: Fact<Vec<LivePod>>, clock: Clock) -> Running {
        let pods = live.value.into_iter().map(|pod| LivePod { labels: None, ..pod });
        Running { pods: Fact { value: pods.collect(), ..live }, clock, is_known: true }
    }
}

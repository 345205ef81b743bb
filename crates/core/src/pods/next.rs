//! The lookups that are due next, and the way from a pod up to its topmost owner.

use std::collections::{BTreeMap, BTreeSet};

use super::record::{Owner, OwnerId, OwnerRef, PodKey, PodRecord};
use super::{Lookup, MOST_ABOVE, Pod, PodIndex, RequestBudget, ask_owner, in_namespace_mut};

impl PodIndex {
    /// The lookups to send next, within that budget; empty when the round is over. Results may lead to further ones.
    pub fn lookups(&mut self, budget: RequestBudget) -> Vec<Lookup> {
        let mut needed = self.needed();
        // First what decides how the others are to be understood, then what may answer many of them.
        let is_first = |lookup: &Lookup| {
            matches!(lookup, Lookup::Cluster | Lookup::Namespace(_)) && self.asked.is_new(lookup)
        };
        if needed.keys().any(is_first) {
            needed.retain(|lookup, _| is_first(lookup));
        } else if needed.contains_key(&Lookup::NodePods) && self.asked.is_open(&Lookup::NodePods) {
            needed.retain(|lookup, _| *lookup == Lookup::NodePods);
        }
        let lookups = self.asked.ask(needed, budget);
        for lookup in &lookups {
            if let Lookup::Namespace(name) = lookup
                && let Some(is_asked) = self.invalidated.get_mut(name)
            {
                *is_asked = true;
            }
            if let Lookup::Namespace(name) = lookup {
                self.shown_since.remove(name);
                self.namespace_labels.note_lookup(name);
                in_namespace_mut(&mut self.pods, name).for_each(|(_, pod)| pod.is_asked_about = true);
            }
        }
        lookups
    }

    /// One lookup for each object that is to be known, and whether anything waits for it.
    pub(super) fn needed(&self) -> BTreeMap<Lookup, bool> {
        let mut needed = BTreeMap::new();
        let mut need = |lookup: Lookup, is_awaited: bool| {
            *needed.entry(lookup).or_default() |= is_awaited;
        };
        let shown = self.running.iter().filter(|_| self.pods_watched).flat_map(|running| &running.pods.value);
        let shown: BTreeSet<_> = shown.map(|pod| (&pod.namespace, &pod.name)).collect();
        for (key, pod) in &self.pods {
            let namespace = &key.namespace;
            // One list of what runs here answers for every pod of it.
            if !self.pods_watched && (pod.needs.idle || (pod.needs.pod && self.knows_node)) {
                need(Lookup::NodePods, true);
            }
            if pod.needs.namespace || self.invalidated.contains_key(namespace) {
                need(Lookup::Namespace(namespace.clone()), true);
            }
            if pod.needs.pod || pod.may_prove_its_origin(key) {
                let is_unknown = pod.record.owner == Owner::Unknown && pod.record.pod_gone.is_none();
                let is_awaited = is_unknown && !pod.is_replaced;
                if is_awaited || (!pod.is_told(key) && !shown.contains(&(namespace, &key.pod))) {
                    let lookup = Lookup::Pod { namespace: namespace.clone(), name: key.pod.clone() };
                    need(lookup, is_awaited);
                }
            }
            if (pod.needs.owner || pod.needs.idle)
                && let Owner::Controlled { controller, topmost } = &pod.record.owner
            {
                match topmost {
                    Some(topmost) if pod.needs.owner => need(ask_owner(namespace, topmost.clone()), false),
                    Some(_) => {}
                    None => {
                        let above = self.climb(namespace, controller).err();
                        above.into_iter().for_each(|owner| need(ask_owner(namespace, owner), true));
                    }
                }
            }
        }
        for (namespace, owner) in self.unplaced_runners() {
            need(ask_owner(namespace, owner), true);
        }
        if !needed.is_empty() && !self.cluster.is_known() {
            needed.insert(Lookup::Cluster, true);
        }
        needed
    }

    /// The topmost owner from a controller upwards; else the one to be asked about next.
    pub(super) fn climb(&self, namespace: &str, controller: &OwnerRef) -> Result<OwnerRef, OwnerRef> {
        let mut owner = controller;
        for _ in 0..MOST_ABOVE {
            if owner.is_workload() {
                return Ok(owner.clone());
            }
            match self.above.get(&(namespace.to_owned(), owner.id())) {
                Some(Some(above)) => owner = above,
                Some(None) => return Ok(owner.clone()),
                None => return Err(owner.clone()),
            }
        }
        Ok(owner.clone())
    }

    /// The owners that climbing passes.
    pub(super) fn passed(&self, namespace: &str, controller: &OwnerRef) -> Vec<(String, OwnerId)> {
        let mut passed = vec![(namespace.to_owned(), controller.id())];
        while let Some(Some(above)) = passed.last().and_then(|last| self.above.get(last))
            && passed.len() < MOST_ABOVE
        {
            passed.push((namespace.to_owned(), above.id()));
        }
        passed
    }

    /// Notes the topmost owners that have become known.
    pub(super) fn resolve(&mut self) {
        let found: Vec<(PodKey, OwnerRef)> = self
            .pods
            .iter()
            .filter_map(|(key, pod)| match &pod.record.owner {
                Owner::Controlled { controller, topmost: None } => {
                    Some((key.clone(), self.climb(&key.namespace, controller).ok()?))
                }
                _ => None,
            })
            .collect();
        for (key, owner) in found {
            if let Some(Pod { record: PodRecord { owner: Owner::Controlled { topmost, .. }, .. }, .. }) =
                self.pods.get_mut(&key)
            {
                *topmost = Some(owner);
                self.changed.insert(key);
            }
        }
    }
}

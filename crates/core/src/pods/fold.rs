//! Results of lookups and updates from watches, and what they change.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;

use super::idle::Running;
use super::record::{Owner, OwnerRef, PodKey, PodRecord, SeenLabels, SeenNamespace};
use super::{Gone, LivePod, Lookup, LookupResult, Pod, PodIndex};
use crate::fact::{Fact, Source};
use crate::plan::{Clock, Origin};

impl PodIndex {
    /// Takes the results of lookups, each with the time at which it arrived and whether the clock was trusted then.
    /// While the clock is not trusted, no absence is noted or confirmed; that an object exists counts with any clock.
    pub fn fold(&mut self, answers: impl IntoIterator<Item = (Lookup, LookupResult, Timestamp, Clock)>) {
        for (lookup, result, now, clock) in answers {
            self.fold_one(&lookup, result, now, clock);
        }
        self.resolve();
        self.note_idle();
    }

    fn fold_one(&mut self, lookup: &Lookup, result: LookupResult, now: Timestamp, clock: Clock) {
        match (lookup, &result) {
            (Lookup::Cluster, LookupResult::Cluster(uid)) => self.cluster_is(uid, now),
            // Clusters without this namespace differ from all that have it, but not from each other.
            (Lookup::Cluster, LookupResult::NotFound) if self.cluster.had_no_uid() => {
                self.cluster_is("", now);
            }
            _ => {}
        }
        let counts = self.cluster.is_known();
        let gone = (clock == Clock::Trusted && counts).then_some(Fact::answered(Gone, now));
        match &result {
            _ if *lookup == Lookup::Cluster && !counts => self.asked.failed(lookup),
            // Until it is known which cluster answers, nothing counts as gone.
            LookupResult::NotFound if !counts => self.asked.failed(lookup),
            LookupResult::Failed(_) => self.asked.failed(lookup),
            LookupResult::NotAsked => self.asked.was_not_asked(lookup),
            _ => self.asked.succeeded(lookup),
        }
        match (lookup, result) {
            (Lookup::Cluster, _) => {}
            (Lookup::NodePods, LookupResult::NodePods(pods)) => {
                self.pods_run(Fact::answered(pods, now), clock);
            }
            (Lookup::NodePods, _) => self.invalidate_idle(),
            // A watch has shown the namespace since the lookup was sent, so the result is older.
            (Lookup::Namespace(name), LookupResult::Namespace { .. }) if self.shown_since.contains(name) => {
                self.asked.was_not_asked(lookup);
            }
            (Lookup::Namespace(name), LookupResult::Namespace { labels, created }) => {
                self.is_asked_about(name);
                let seen = SeenLabels { created, labels: Arc::new(labels) };
                self.namespace_labels.note_answer(name, &seen, now);
                self.namespace_is_there(name, &seen, true);
            }
            (Lookup::Namespace(name), result) => {
                self.namespace_labels.forget(name);
                // Without watches, a new namespace of that name is not noticed until the next lookup.
                if result == LookupResult::NotFound && !self.eager_lookups {
                    self.is_asked_about(name);
                }
                let gone = gone.filter(|_| result == LookupResult::NotFound);
                self.change(name, |_, pod| {
                    pod.confirmed.namespace = gone;
                    note_since(&mut pod.record.namespace_gone, gone);
                });
            }
            (Lookup::Pod { namespace, name }, LookupResult::Pod(live)) => {
                self.pod_is_there(namespace, name, &live);
            }
            (Lookup::Pod { namespace, name }, result) => {
                let gone = gone.filter(|_| result == LookupResult::NotFound);
                self.change_named(namespace, name, |_, pod| {
                    pod.confirmed.pod = gone;
                    note_since(&mut pod.record.pod_gone, gone);
                    pod.bare_pod_is_gone(gone);
                });
            }
            (Lookup::Owner { namespace, owner }, result) => {
                self.owner_answered(namespace, owner, result, gone);
            }
        }
    }

    /// Takes the pods that run on this node.
    fn pods_run(&mut self, pods: Fact<Vec<LivePod>>, clock: Clock) {
        for pod in &pods.value {
            self.pod_is_there(&pod.namespace, &pod.name, pod);
            let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
            self.asked.was_answered(Lookup::Pod { namespace, name });
        }
        if let Some(before) = self.running.replace(Self::keep_running(pods, clock)) {
            self.ask_about_ended(&before);
        }
    }

    /// Looks up at once what may be gone: pods that ran here and do not any more, their owners and namespaces.
    fn ask_about_ended(&mut self, before: &Running) {
        let Some(now) = &self.running else { return };
        let run: BTreeSet<_> = now.pods.value.iter().map(|pod| (&pod.namespace, &pod.name)).collect();
        let in_use: BTreeSet<&String> = now.pods.value.iter().map(|pod| &pod.namespace).collect();
        let mut gone = BTreeSet::new();
        for ended in before.pods.value.iter().filter(|pod| !run.contains(&(&pod.namespace, &pod.name))) {
            let topmost = ended.controller.as_ref();
            let topmost = topmost.and_then(|controller| self.climb(&ended.namespace, controller).ok());
            gone.extend(topmost.map(|owner| super::ask_owner(&ended.namespace, owner)));
            if !in_use.contains(&ended.namespace) {
                gone.insert(Lookup::Namespace(ended.namespace.clone()));
            }
            gone.insert(Lookup::Pod { namespace: ended.namespace.clone(), name: ended.name.clone() });
        }
        gone.iter().for_each(|lookup| self.asked.enqueue_now(lookup));
    }

    /// Applies what a watch shows: the pods of this node; none while the watch fails.
    pub fn apply_pods(&mut self, pods: Option<Vec<LivePod>>, now: Timestamp, clock: Clock) {
        match pods {
            Some(pods) => {
                self.asked.succeeded(&Lookup::NodePods);
                self.pods_run(Fact { value: pods, as_of: now, source: Source::Watch }, clock);
                self.resolve();
                self.note_idle();
            }
            None => self.invalidate_idle(),
        }
    }

    /// Applies what a watch shows of namespaces. One that is gone is only looked up at once. Returns whether any
    /// of them has archives here.
    pub fn apply_namespaces(&mut self, shown: Vec<(String, LookupResult)>, now: Timestamp) -> bool {
        let mut concerns = false;
        for (name, result) in shown {
            let lookup = Lookup::Namespace(name);
            let Lookup::Namespace(name) = &lookup else { continue };
            if super::in_namespace(&self.pods, name).next().is_none() {
                continue;
            }
            concerns = true;
            let LookupResult::Namespace { labels, created } = result else {
                // Whether or not a policy goes by it: who has the name from now on has no right to what is here.
                self.invalidated.entry(name.clone()).or_insert(false);
                self.asked.enqueue_now(&lookup);
                continue;
            };
            let known = super::in_namespace(&self.pods, name);
            let is_older =
                known.filter_map(|(_, pod)| pod.record.namespace).any(|known| created < known.created);
            // A watch may be late, so it cannot validate a namespace again: only a lookup can.
            if !is_older && !self.invalidated.contains_key(name) {
                self.asked.succeeded(&lookup);
                let seen = SeenLabels { created, labels: Arc::new(labels) };
                self.namespace_labels.note_shown(name, &seen, now);
                self.namespace_is_there(name, &seen, false);
                self.shown_since.insert(name.clone());
            }
        }
        concerns
    }

    /// Applies a watch's list of all namespaces; those missing from it are looked up at once. Returns whether any
    /// of them has archives here.
    pub fn apply_all_namespaces(&mut self, shown: Vec<(String, LookupResult)>, now: Timestamp) -> bool {
        let there: BTreeSet<&String> = shown.iter().map(|(name, _)| name).collect();
        let known: BTreeSet<&String> = self.pods.keys().map(|key| &key.namespace).collect();
        let missing: Vec<String> = known.difference(&there).map(|name| (*name).clone()).collect();
        let is_any_missing = !missing.is_empty();
        missing.into_iter().for_each(|name| self.asked.enqueue_now(&Lookup::Namespace(name)));
        self.apply_namespaces(shown, now) || is_any_missing
    }

    /// Drops the current labels of all namespaces, as no watch shows them any more.
    pub fn invalidate_labels(&mut self) {
        self.namespace_labels.forget_all();
    }

    /// Marks a namespace as valid again, unless the lookup was sent before the namespace was invalidated.
    fn is_asked_about(&mut self, namespace: &str) {
        if self.invalidated.get(namespace) == Some(&true) {
            self.invalidated.remove(namespace);
        }
    }

    /// Notes that a namespace of that name exists: no archive of that name is then orphaned, however new the
    /// namespace is.
    fn namespace_is_there(&mut self, name: &str, seen: &SeenLabels, is_answer: bool) {
        self.change(name, |key, pod| {
            (pod.confirmed.namespace, pod.record.namespace_gone) = (None, None);
            pod.record.namespace = Some(SeenNamespace { created: seen.created });
            pod.remember_labels(key, seen, is_answer);
        });
    }

    fn pod_is_there(&mut self, namespace: &str, name: &str, live: &LivePod) {
        let controller = live.controller.as_ref().filter(|controller| !controller.is_node());
        let labels = live.labels.clone().map(Arc::new);
        let created = super::in_namespace(&self.pods, namespace)
            .filter_map(|(_, pod)| pod.record.namespace.map(|namespace| namespace.created))
            .max();
        self.change_named(namespace, name, |key, pod| {
            let may_follow = pod.record.namespace.is_some();
            if live.uid.is_some() && key.uid == live.uid {
                pod.record.seen_in = created.or(pod.record.seen_in);
            }
            let is_of_former_namespace = pod.is_of_former_namespace(key);
            let is_certain = pod.is_dated() && pod.origin(pod.oldest) == Origin::Present;
            let record = &mut pod.record;
            (record.pod_gone, pod.confirmed.pod) = (None, None);
            if record.owner == Owner::Bare {
                // A bare pod that was created again under its name, as by a restore, is not gone.
                (record.workload_gone, pod.confirmed.workload) = (None, None);
            }
            let same_uid = live.uid.is_none() || key.uid == live.uid;
            if is_of_former_namespace {
                // The archives are from an earlier namespace, so this is another pod.
            } else if same_uid || (key.uid.is_none() && may_follow) {
                if record.labels != labels {
                    record.labels.clone_from(&labels);
                }
                if let Some(controller) = controller {
                    record.belongs_to(controller);
                } else {
                    record.owner = Owner::Bare;
                    record.workload_gone = None;
                }
            } else if key.uid.is_some() {
                pod.is_replaced |= may_follow;
                // Another pod of that name. A StatefulSet gives its pods the names of those before
                // them, so this one's owner is theirs; of other owners that cannot be told.
                if record.owner == Owner::Unknown
                    && may_follow
                    && is_certain
                    && let Some(controller) = controller.filter(|controller| controller.is_stateful())
                {
                    record.belongs_to(controller);
                    record.labels = record.labels.take().or_else(|| labels.clone());
                }
            }
        });
    }

    fn owner_answered(
        &mut self,
        namespace: &str,
        owner: &OwnerRef,
        result: LookupResult,
        gone: Option<Fact<Gone>>,
    ) {
        let id = (namespace.to_owned(), owner.id());
        let (gone, is_there, live_uid) = match result {
            LookupResult::NotFound => (gone, false, None),
            LookupResult::Owner { uid, controller } => {
                self.above.insert(id, controller);
                (None, true, uid)
            }
            // A custom resource that this process may not read is an owner all the same. It counts as the topmost
            // one, and its absence is never confirmed.
            LookupResult::Forbidden(_) if !owner.is_built_in() => {
                self.above.entry(id).or_insert(None);
                (None, false, None)
            }
            _ => (None, false, None),
        };
        self.change(namespace, |_, pod| {
            let record = &mut pod.record;
            if let Owner::Controlled { topmost: Some(topmost), .. } = &mut record.owner
                && topmost.is(owner)
            {
                pod.confirmed.workload = gone;
                record.workload_gone = record.workload_gone.filter(|_| !is_there);
                note_since(&mut record.workload_gone, gone);
                if live_uid.is_some() {
                    topmost.uid.clone_from(&live_uid);
                }
            }
        });
        if gone.is_some() {
            self.forget_way_through(namespace, owner);
        }
    }

    /// An owner was deleted before its own owner was looked up, so the topmost owner stays unknown.
    fn forget_way_through(&mut self, namespace: &str, owner: &OwnerRef) {
        let lost: Vec<PodKey> = super::in_namespace(&self.pods, namespace)
            .filter(|(_, pod)| match &pod.record.owner {
                Owner::Controlled { controller, topmost: None } => {
                    self.climb(namespace, controller).is_err_and(|next| next.is(owner))
                }
                _ => false,
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in lost {
            if let Some(pod) = self.pods.get_mut(&key) {
                (pod.record.owner, pod.record.workload_gone) = (Owner::Unknown, None);
                self.changed.insert(key);
            }
        }
    }

    /// Changes what is known of all pods of a namespace.
    fn change(&mut self, namespace: &str, with: impl FnMut(&PodKey, &mut Pod)) {
        let first = PodKey { namespace: namespace.to_owned(), pod: String::new(), uid: None };
        self.change_from(first, |key| key.namespace == namespace, with);
    }

    /// Changes what is known of all pods of a name.
    fn change_named(&mut self, namespace: &str, name: &str, with: impl FnMut(&PodKey, &mut Pod)) {
        let first = PodKey { namespace: namespace.to_owned(), pod: name.to_owned(), uid: None };
        self.change_from(first, |key| key.namespace == namespace && key.pod == name, with);
    }

    fn change_from(
        &mut self,
        first: PodKey,
        among: impl Fn(&PodKey) -> bool,
        mut with: impl FnMut(&PodKey, &mut Pod),
    ) {
        let pods: &mut BTreeMap<PodKey, Pod> = &mut self.pods;
        let range = pods.range_mut((Bound::Included(first), Bound::Unbounded));
        for (key, pod) in range.take_while(|(key, _)| among(key)) {
            let before = pod.record.clone();
            with(key, pod);
            if pod.record != before {
                self.changed.insert(key.clone());
            }
        }
    }
}

impl Pod {
    /// The pod is gone, and if it is a bare one, it is its own workload.
    fn bare_pod_is_gone(&mut self, gone: Option<Fact<Gone>>) {
        if self.record.owner == Owner::Bare {
            self.confirmed.workload = gone;
            note_since(&mut self.record.workload_gone, gone);
        }
    }
}

/// Notes since when something is gone, where it is and that was not noted before.
fn note_since(since: &mut Option<Timestamp>, gone: Option<Fact<Gone>>) {
    *since = since.or(gone.map(|gone| gone.as_of));
}

impl PodRecord {
    /// The pod names that controller now. What stands above it stays known as long as it is the
    /// same, also when an owner between them is gone.
    fn belongs_to(&mut self, controller: &OwnerRef) {
        match &mut self.owner {
            Owner::Controlled { controller: known, .. } if known.is(controller) => {
                known.clone_from(controller);
            }
            owner => {
                *owner = Owner::Controlled { controller: controller.clone(), topmost: None };
                self.workload_gone = None;
            }
        }
    }
}

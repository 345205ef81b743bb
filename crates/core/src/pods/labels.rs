//! The labels of namespaces: those that they have now, while policies select by them, and those that are
//! remembered of the pods whose archives are here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::Pod;
use super::freshness::Use;
use super::record::{PodKey, SeenLabels};
use crate::fact::{Fact, Source};
use crate::plan::Origin;
use crate::policy::{LabelSelector, Labels, PolicyRef, PolicySet};

/// The labels that namespaces have now. Nothing is known of them but while a policy selects by labels.
#[derive(Debug, Default)]
pub(super) struct CurrentLabels {
    /// The policies that select by labels.
    selecting: Vec<(PolicyRef, LabelSelector)>,
    /// Namespaces that were asked about since the last of those policies came up.
    asked: BTreeSet<String>,
    known: BTreeMap<String, Current>,
}

/// The labels of one namespace.
#[derive(Debug)]
pub(super) struct Current {
    /// The labels; from a watch also where an answer came since, as long as the watch shows the same namespace.
    pub(super) labels: Fact<SeenLabels>,
    /// When the namespace was created, as an answer last said it.
    created: Option<Fact<Timestamp>>,
}

impl CurrentLabels {
    /// Goes by these policies from now on, and says whether any selects by labels that did not before. What was
    /// answered before that may be of any age, so it does not count for it.
    pub(super) fn follow(&mut self, policies: &PolicySet) -> bool {
        let selecting = || {
            let policies =
                policies.retention.iter().filter(|policy| policy.selector.needs_namespace_labels());
            policies.map(|policy| (&policy.id, &policy.selector.namespace_labels))
        };
        if selecting().eq(self.selecting.iter().map(|(id, selector)| (id, selector))) {
            return false;
        }
        let now: Vec<_> = selecting().map(|(id, selector)| (id.clone(), selector.clone())).collect();
        let is_new = now.iter().any(|policy| !self.selecting.contains(policy));
        if now.is_empty() {
            self.known.clear();
        }
        if is_new {
            self.asked.clear();
            self.known.retain(|_, current| current.labels.source == Source::Watch);
        }
        self.selecting = now;
        is_new
    }

    pub(super) fn are_selected_by(&self) -> bool {
        !self.selecting.is_empty()
    }

    pub(super) fn note_lookup(&mut self, namespace: &str) {
        if self.are_selected_by() {
            self.asked.insert(namespace.to_owned());
        }
    }

    /// Notes the answer to a lookup that was sent after [`Self::note_lookup`].
    pub(super) fn note_answer(&mut self, namespace: &str, seen: &SeenLabels, at: Timestamp) {
        if self.asked.contains(namespace) {
            let before = self.known.get(namespace).map(|known| &known.labels);
            let before = before.filter(|labels| labels.value.created == seen.created);
            let source = before.map_or(Source::Answer, |labels| labels.source);
            let labels = Fact { value: seen.clone(), as_of: at, source };
            let created = Some(Fact::answered(seen.created, at));
            self.known.insert(namespace.to_owned(), Current { labels, created });
        }
    }

    /// Notes what a watch shows.
    pub(super) fn note_shown(&mut self, namespace: &str, seen: &SeenLabels, at: Timestamp) {
        if self.are_selected_by() {
            let created = self.known.get(namespace).and_then(|known| known.created);
            let created = created.filter(|created| created.value == seen.created);
            let labels = Fact { value: seen.clone(), as_of: at, source: Source::Watch };
            self.known.insert(namespace.to_owned(), Current { labels, created });
        }
    }

    pub(super) fn forget(&mut self, namespace: &str) {
        self.known.remove(namespace);
    }

    /// Drops all labels, as no watch shows them any more.
    pub(super) fn forget_all(&mut self) {
        self.known.clear();
    }

    pub(super) fn retain(&mut self, is_here: impl Fn(&String) -> bool) {
        self.known.retain(|namespace, _| is_here(namespace));
        self.asked.retain(is_here);
    }

    /// Those of a namespace, however old.
    pub(super) fn get(&self, namespace: &str) -> Option<&Current> {
        self.known.get(namespace)
    }
}

impl Pod {
    /// The labels of its namespace by which policies select an archive of this pod; none while they are unknown. Then
    /// it is uncertain whether a policy that selects by labels governs the archive, which is not the same as that
    /// the namespace has no labels. This is the one place that decides it:
    ///
    /// * While the namespace that the archive is from exists, they are its current labels, from a watch that is alive
    ///   or from an answer to a lookup that was sent after the policy appeared. So a changed label also applies to
    ///   the archives that are there.
    /// * Once that namespace is gone, whether or not another one has its name, they are those that were last seen
    ///   while it existed, from this pod's record. The labels of a new namespace, the same or others, do not apply
    ///   to what the one before left.
    /// * They are unknown for an archive that may be from either of two namespaces, for one whose namespace was never
    ///   seen while it existed, for one without its pod's UID whose namespace is gone, and for a pod's first archive
    ///   until its namespace is looked up, as that may be another one by then.
    ///
    /// `origin`: which of the namespaces of that name the archive is from, by the time at which it was taken.
    /// `current`: the labels of the namespace that has the name now, where they are known and valid.
    /// `is_gone`: whether the absences in the record count.
    pub(super) fn namespace_labels(
        &self,
        key: &PodKey,
        origin: Origin,
        current: Option<&Current>,
        is_gone: bool,
    ) -> Option<Arc<Labels>> {
        let there = self.record.namespace?.created;
        let current = current.filter(|current| current.labels.value.created == there);
        let labels = || current.map(|current| Arc::clone(&current.labels.value.labels));
        let has_gone = self.record.namespace_gone.is_some();
        match &self.record.namespace_labels {
            Some(own) if own.created != there || (has_gone && is_gone) => Some(Arc::clone(&own.labels)),
            Some(_) => labels(),
            None if key.uid.is_none() && origin == Origin::Present && !has_gone => {
                let created = current.and_then(|current| current.created);
                let place = Use::PlaceInNamespace { ran_until: self.newest };
                labels().filter(|_| created.is_some_and(|created| place.allows(&created, created.as_of)))
            }
            None => None,
        }
    }

    /// Remembers the labels of the namespace that is there, if that is the one that the pod is from.
    /// `is_answer`: the API said so itself just now.
    pub(super) fn remember_labels(&mut self, key: &PodKey, seen: &SeenLabels, is_answer: bool) {
        let is_its_own = match &self.record.namespace_labels {
            // Without their UID, pods of several namespaces may have had that name.
            _ if key.uid.is_none() => false,
            // A pod lives in one namespace.
            Some(own) => own.created == seen.created || self.record.seen_in == Some(seen.created),
            // What is shown may be late, and what was asked for before the archive came may be about the one before.
            None => {
                is_answer
                    && self.is_asked_about
                    && self.is_dated()
                    && self.origin(self.oldest) == Origin::Present
            }
        };
        if is_its_own && self.record.namespace_labels.as_ref() != Some(seen) {
            self.record.namespace_labels = Some(seen.clone());
        }
    }
}

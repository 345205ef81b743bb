//! The labels of namespaces: those that they have now, while policies select by them, and those that are
//! remembered of the pods whose archives are here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::record::{PodKey, SeenLabels};
use super::{Pod, is_within};
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
    seen: SeenLabels,
    /// When an answer said so; none: a watch shows them for as long as it lives.
    answered: Option<Timestamp>,
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
            self.known.retain(|_, current| current.answered.is_none());
        }
        self.selecting = now;
        is_new
    }

    pub(super) fn are_selected_by(&self) -> bool {
        !self.selecting.is_empty()
    }

    pub(super) fn note_question(&mut self, namespace: &str) {
        if self.are_selected_by() {
            self.asked.insert(namespace.to_owned());
        }
    }

    /// An answer came at that time, to a question that [`Self::note_question`] was told of.
    pub(super) fn note_answer(&mut self, namespace: &str, seen: &SeenLabels, at: Timestamp) {
        if self.asked.contains(namespace) {
            let is_shown = self
                .known
                .get(namespace)
                .is_some_and(|known| known.answered.is_none() && known.seen.created == seen.created);
            let answered = (!is_shown).then_some(at);
            self.known.insert(namespace.to_owned(), Current { seen: seen.clone(), answered });
        }
    }

    /// A watch shows them.
    pub(super) fn note_shown(&mut self, namespace: &str, seen: &SeenLabels) {
        if self.are_selected_by() {
            self.known.insert(namespace.to_owned(), Current { seen: seen.clone(), answered: None });
        }
    }

    pub(super) fn forget(&mut self, namespace: &str) {
        self.known.remove(namespace);
    }

    /// Nobody shows them any more.
    pub(super) fn forget_all(&mut self) {
        self.known.clear();
    }

    pub(super) fn retain(&mut self, is_here: impl Fn(&String) -> bool) {
        self.known.retain(|namespace, _| is_here(namespace));
        self.asked.retain(is_here);
    }

    /// Those of a namespace, unless the answer that said so is older than `age`.
    pub(super) fn get(&self, namespace: &str, now: Timestamp, age: Duration) -> Option<&SeenLabels> {
        let current = self.known.get(namespace)?;
        current.answered.is_none_or(|at| is_within(age, at, now)).then_some(&current.seen)
    }
}

impl Pod {
    /// The labels of its namespace by which policies select an archive of this pod; none: they are not known,
    /// and a policy that asks for them governs the archive for certain no more than it certainly does not.
    /// This is the one place that decides it:
    ///
    /// * While the namespace is there that the archive is from, they are those that it has now, if somebody says
    ///   so now: a watch that lives, or an answer from after the policy came up. Whoever labels his namespace
    ///   anew means the archives that are there, too.
    /// * Once that namespace is gone, whether or not another has its name, they are those that were last seen
    ///   while it was there, by this pod's record. The labels of a namespace made anew, the same or others, say
    ///   nothing of what the one before left.
    /// * Of an archive that is from nobody knows which of two namespaces, and of one whose namespace nobody saw
    ///   while it was there, they are not known. "Not known" is never "has none".
    ///
    /// `current` are those that the namespace of that name has now, where that is known and not in doubt;
    /// `is_gone` says whether what the record says to be gone counts.
    pub(super) fn namespace_labels(
        &self,
        key: &PodKey,
        taken: Timestamp,
        current: Option<&SeenLabels>,
        is_gone: bool,
    ) -> Option<Arc<Labels>> {
        let there = self.record.namespace?.created;
        let origin = self.origin(taken);
        let current = current.filter(|current| current.created == there).map(|current| &current.labels);
        // A pod lives in one namespace. Without its UID, there may have been several of that name.
        let is_its_own = |own: &&SeenLabels| {
            let is_from_it = || Origin::of(taken, self.record.seen_in, Some(own.created)) == Origin::Present;
            key.uid.is_some() || (is_from_it() && (own.created == there || origin == Origin::Former))
        };
        let has_gone = self.record.namespace_gone.is_some();
        match self.record.namespace_labels.as_ref().filter(is_its_own) {
            Some(own) if own.created != there || (has_gone && is_gone) => Some(Arc::clone(&own.labels)),
            Some(_) => current.cloned(),
            None if origin == Origin::Present && !has_gone => current.cloned(),
            None => None,
        }
    }

    /// Remembers the labels of the namespace that is there, if that is the one that the pod is from.
    pub(super) fn remember_labels(&mut self, key: &PodKey, seen: &SeenLabels) {
        let is_from_it = self.is_dated() && self.origin(self.oldest) == Origin::Present;
        let was_seen_in_it = self.record.seen_in == Some(seen.created);
        let may_be = match &self.record.namespace_labels {
            Some(own) if own.created == seen.created => own.labels != seen.labels,
            // A pod lives in one namespace.
            Some(_) if key.uid.is_some() => was_seen_in_it,
            _ => is_from_it,
        };
        if may_be {
            self.record.namespace_labels = Some(seen.clone());
        }
    }
}

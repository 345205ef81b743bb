//! Which policy governs an archive: exactly one, or none, or none that can be told for certain.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::snapshot::Namespace;
use crate::identity::Identity;
use crate::policy::{InvalidPolicy, Kind, Labels, Mode, Policy, PolicyRef, PolicySet, Selector};

/// What governs an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Governing<'a> {
    /// This policy, by its place in [`Governors::ranked`].
    Policy(usize),
    /// Nothing.
    Nothing,
    /// This policy perhaps: labels that it selects by are not known.
    Doubtful(usize),
    /// This policy perhaps: its namespace may be another of the same name.
    Unasked(usize),
    /// An object that does not parse might.
    Invalid(&'a InvalidPolicy),
}

/// The policies that act, most binding first.
pub(super) struct Governors<'a> {
    ranked: Vec<&'a Policy>,
    by_namespace: HashMap<&'a str, Vec<usize>>,
    cluster_wide: Vec<usize>,
    invalid_by_namespace: HashMap<&'a str, &'a InvalidPolicy>,
    invalid_cluster_wide: Option<&'a InvalidPolicy>,
    namespaces: &'a BTreeMap<String, Namespace>,
}

/// What of an archive decides who governs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    /// None: an incomplete archive of unknown identity.
    pub(super) identity: Option<&'a Identity>,
    /// Whether its namespace is an earlier one of the same name.
    pub(super) vanished: bool,
    pub(super) pod_labels: Option<&'a Labels>,
}

/// Whether a selector matches, where labels may not be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    Unknown,
}

impl<'a> Governors<'a> {
    pub(super) fn new(policies: &'a PolicySet, namespaces: &'a BTreeMap<String, Namespace>) -> Self {
        let mut ranked: Vec<&Policy> =
            policies.retention.iter().filter(|policy| policy.mode == Mode::Enforce).collect();
        ranked.sort_by_cached_key(|policy| precedence(policy));
        let mut by_namespace: HashMap<&str, Vec<usize>> = HashMap::new();
        let mut cluster_wide = Vec::new();
        for (place, policy) in ranked.iter().enumerate() {
            match &policy.namespace {
                Some(namespace) => by_namespace.entry(namespace).or_default().push(place),
                None => cluster_wide.push(place),
            }
        }
        // Of several, the first by name stands for all, so that the order given does not matter.
        let mut invalid: Vec<&InvalidPolicy> = policies.invalid.iter().collect();
        invalid.sort_by(|one, other| other.id.cmp(&one.id));
        let mut invalid_by_namespace = HashMap::new();
        let mut invalid_cluster_wide = None;
        for policy in invalid {
            match &policy.namespace {
                Some(namespace) => _ = invalid_by_namespace.insert(namespace.as_str(), policy),
                None => invalid_cluster_wide = Some(policy),
            }
        }
        Self { ranked, by_namespace, cluster_wide, invalid_by_namespace, invalid_cluster_wide, namespaces }
    }

    /// The policies that act, most binding first.
    pub(super) fn ranked(&self) -> &[&'a Policy] {
        &self.ranked
    }

    /// When the namespace that has this name now was created: an archive older than that belonged
    /// to another.
    pub(super) fn created(&self, namespace: &str) -> Option<Timestamp> {
        self.namespaces.get(namespace).and_then(|namespace| namespace.created)
    }

    pub(super) fn governing(&self, subject: Subject<'a>) -> Governing<'a> {
        let namespace =
            subject.identity.filter(|_| !subject.vanished).map(|identity| identity.namespace.as_str());
        // Looked up once, for all the policies that ask.
        let known = namespace.and_then(|namespace| self.namespaces.get(namespace));
        let is_doubted = known.is_some_and(|namespace| namespace.is_doubted);
        let labels = known.filter(|_| !is_doubted).and_then(|namespace| namespace.labels.as_ref());
        if let Some(namespace) = namespace {
            if let Some(invalid) = self.invalid_by_namespace.get(namespace) {
                return Governing::Invalid(invalid);
            }
            let local = self.by_namespace.get(namespace).map_or(&[][..], Vec::as_slice);
            match self.first_match(local, subject, labels) {
                Some(Governing::Policy(policy)) if is_doubted => return Governing::Unasked(policy),
                Some(found) => return found,
                None => {}
            }
        }
        if let Some(invalid) = self.invalid_cluster_wide {
            return Governing::Invalid(invalid);
        }
        self.first_match(&self.cluster_wide, subject, labels).unwrap_or(Governing::Nothing)
    }

    fn first_match(
        &self,
        places: &[usize],
        subject: Subject<'a>,
        namespace_labels: Option<&Labels>,
    ) -> Option<Governing<'a>> {
        places.iter().find_map(|&place| {
            match matches(&self.ranked[place].selector, subject, namespace_labels) {
                Match::Yes => Some(Governing::Policy(place)),
                Match::Unknown => Some(Governing::Doubtful(place)),
                Match::No => None,
            }
        })
    }
}

/// Whether a selector matches. `namespace_labels` are none where they are not known.
fn matches(selector: &Selector, subject: Subject<'_>, namespace_labels: Option<&Labels>) -> Match {
    let Some(identity) = subject.identity else {
        return if selector.is_empty() { Match::Yes } else { Match::No };
    };
    let names = |wanted: &[String], name: &String| wanted.is_empty() || wanted.contains(name);
    if !names(&selector.namespaces, &identity.namespace)
        || !names(&selector.pods, &identity.pod)
        || !names(&selector.containers, &identity.container)
    {
        return Match::No;
    }
    let mut outcome = Match::Yes;
    if !selector.namespace_labels.0.is_empty() {
        // A namespace that is gone has no labels, and never will have.
        if subject.vanished {
            return Match::No;
        }
        match namespace_labels {
            Some(labels) if selector.namespace_labels.matches(labels) => {}
            Some(_) => return Match::No,
            None => outcome = Match::Unknown,
        }
    }
    if !selector.pod_labels.0.is_empty() {
        match subject.pod_labels {
            Some(labels) if selector.pod_labels.matches(labels) => {}
            Some(_) => return Match::No,
            None => outcome = Match::Unknown,
        }
    }
    outcome
}

/// Sorts the most binding policy first: namespaced before cluster-wide, then by what it names,
/// native before `v1`, older before younger, and by name last.
fn precedence(policy: &Policy) -> impl Ord + use<> {
    let selector = &policy.selector;
    // `true` at an earlier place is more specific.
    let specificity = [
        !selector.containers.is_empty(),
        !selector.pods.is_empty(),
        !selector.pod_labels.0.is_empty(),
        !selector.namespaces.is_empty() || !selector.namespace_labels.0.is_empty(),
    ];
    let id: &PolicyRef = &policy.id;
    (
        policy.namespace.is_none(),
        Reverse(specificity),
        id.kind == Kind::CheckpointRestoreOperator,
        policy.created.unwrap_or(Timestamp::MAX),
        (id.name.clone(), id.namespace.clone(), id.kind, id.part.clone()),
    )
}

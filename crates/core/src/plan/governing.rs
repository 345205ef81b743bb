//! Which policy governs an archive: exactly one, or none, or none that can be told for certain.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::snapshot::{Archive, Namespace, Origin};
use super::verdict::Detail;
use crate::identity::Identity;
use crate::policy::{
    FormerLabels, InvalidPolicy, Kind, Labels, Mode, NAMESPACE_NAME, Policy, PolicyRef, PolicySet,
    Precedence, Selector,
};

/// What governs an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Governing<'a> {
    /// This policy, by its place in [`PolicyIndex::ranked`].
    Policy(usize),
    /// Nothing.
    Nothing,
    /// This policy soon: until a moment ago another one did, which was deleted or does not select the archive any
    /// more. A user may be about to create it again.
    Handover(usize),
    /// This policy perhaps, and why that is not certain.
    Uncertain(usize, Detail),
    /// Perhaps this object, which does not parse.
    Invalid(&'a InvalidPolicy),
}

/// The policies that act, most binding first.
pub(super) struct PolicyIndex<'a> {
    ranked: Vec<&'a Policy>,
    /// Those cluster-wide ones that go before namespaced ones.
    overriding: Vec<usize>,
    by_namespace: HashMap<&'a str, Vec<usize>>,
    cluster_wide: Vec<usize>,
    invalid_by_namespace: HashMap<&'a str, &'a InvalidPolicy>,
    invalid_cluster_wide: Option<&'a InvalidPolicy>,
    invalid_overriding: Option<&'a InvalidPolicy>,
    namespaces: &'a BTreeMap<String, Namespace>,
    /// Whether policies act at once that take over from others.
    pub(super) is_handover_over: bool,
}

/// The policies that may govern the archives of one namespace. What depends only on the namespace is computed once
/// for all of its pods.
pub(super) struct Candidates<'g, 'a> {
    policy_index: &'g PolicyIndex<'a>,
    /// An object that does not parse and could govern them.
    invalid: Option<&'a InvalidPolicy>,
    /// Why its namespaced policies may belong to another namespace of the same name; none: they do not.
    uncertainty: Option<Detail>,
    overriding: Vec<Candidate>,
    local: Vec<Candidate>,
    cluster_wide: Vec<Candidate>,
}

/// What is known of a pod's labels.
#[derive(Debug, Clone, Copy)]
pub(super) struct PodLabels<'s> {
    /// As they were last seen; none: never.
    present: Option<&'s Labels>,
    /// By which overriding policies selected it before.
    former: Option<&'s FormerLabels>,
}

impl<'s> PodLabels<'s> {
    pub(super) fn of(archive: &'s Archive) -> Self {
        Self { present: archive.pod_labels.as_deref(), former: archive.former_labels.as_deref() }
    }
}

/// A policy that may govern what lies in a namespace.
#[derive(Clone, Copy)]
struct Candidate {
    /// Its place in [`PolicyIndex::ranked`].
    place: usize,
    /// What its selector says about the namespace; never [`Match::No`].
    by_namespace: Match,
}

/// Whether a selector matches, where labels may not be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Match {
    Yes,
    No,
    Unknown,
}

impl Match {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Unknown,
        }
    }
}

impl<'a> PolicyIndex<'a> {
    pub(super) fn new(policies: &'a PolicySet, namespaces: &'a BTreeMap<String, Namespace>) -> Self {
        let mut ranked: Vec<&Policy> =
            policies.retention.iter().filter(|policy| policy.mode == Mode::Enforce).collect();
        ranked.sort_by_cached_key(|policy| precedence(policy));
        let mut by_namespace: HashMap<&str, Vec<usize>> = HashMap::new();
        let (mut overriding, mut cluster_wide) = (Vec::new(), Vec::new());
        for (place, policy) in ranked.iter().enumerate() {
            match &policy.namespace {
                Some(namespace) => by_namespace.entry(namespace).or_default().push(place),
                None if policy.overrides() => overriding.push(place),
                None => cluster_wide.push(place),
            }
        }
        // Of several, the first by name stands for all, so that the order given does not matter.
        let mut invalid: Vec<&InvalidPolicy> = policies.invalid.iter().collect();
        invalid.sort_by(|one, other| other.id.cmp(&one.id));
        let mut invalid_by_namespace = HashMap::new();
        let (mut invalid_cluster_wide, mut invalid_overriding) = (None, None);
        for policy in invalid {
            match &policy.namespace {
                Some(namespace) => _ = invalid_by_namespace.insert(namespace.as_str(), policy),
                None if policy.precedence == Precedence::Override => invalid_overriding = Some(policy),
                None => invalid_cluster_wide = Some(policy),
            }
        }
        Self {
            ranked,
            overriding,
            by_namespace,
            cluster_wide,
            invalid_by_namespace,
            invalid_cluster_wide,
            invalid_overriding,
            namespaces,
            is_handover_over: false,
        }
    }

    /// The policies that act, most binding first.
    pub(super) fn ranked(&self) -> &[&'a Policy] {
        &self.ranked
    }

    /// Whether the policy at that place goes before those of namespaces.
    pub(super) fn is_overriding(&self, place: usize) -> bool {
        self.ranked[place].overrides()
    }

    /// Whether there is a policy that goes before those of namespaces, or one that does so once it parses.
    pub(super) fn may_override(&self) -> bool {
        !self.overriding.is_empty() || self.invalid_overriding.is_some()
    }

    /// When the namespace that has this name now was created: an archive older than that belonged
    /// to another.
    pub(super) fn created(&self, namespace: &str) -> Option<Timestamp> {
        self.namespaces.get(namespace).and_then(|namespace| namespace.created)
    }

    /// Those that may govern what is from that one of the namespaces of that name, which has these labels, or
    /// had them; none: they are not known.
    pub(super) fn candidates(
        &self,
        namespace: &str,
        origin: Origin,
        labels: Option<&Labels>,
    ) -> Candidates<'_, 'a> {
        let by_namespace = |selector: &Selector| by_namespace(selector, namespace, labels);
        if origin == Origin::Former {
            return self.candidates_of(&[], by_namespace, None, None);
        }
        let known = self.namespaces.get(namespace);
        let uncertainty = if known.is_some_and(|namespace| namespace.is_invalidated) {
            Some(Detail::NamespaceUnasked)
        } else {
            (origin == Origin::Uncertain).then_some(Detail::NamespaceUncertain)
        };
        let local = self.by_namespace.get(namespace).map_or(&[][..], Vec::as_slice);
        let invalid = self.invalid_by_namespace.get(namespace).copied();
        self.candidates_of(local, by_namespace, invalid, uncertainty)
    }

    /// The policies that may govern an archive of unknown identity: those without a namespace and a selector.
    pub(super) fn candidates_for_unknown(&self) -> Candidates<'_, 'a> {
        let everything = |selector: &Selector| if selector.is_empty() { Match::Yes } else { Match::No };
        self.candidates_of(&[], everything, None, None)
    }

    fn candidates_of(
        &self,
        local: &[usize],
        by_namespace: impl Fn(&Selector) -> Match,
        invalid: Option<&'a InvalidPolicy>,
        uncertainty: Option<Detail>,
    ) -> Candidates<'_, 'a> {
        let candidates = |places: &[usize]| {
            let candidate = |&place: &usize| Candidate {
                place,
                by_namespace: by_namespace(&self.ranked[place].selector),
            };
            let candidates = places.iter().map(candidate);
            candidates.filter(|candidate| candidate.by_namespace != Match::No).collect()
        };
        Candidates {
            policy_index: self,
            invalid,
            uncertainty,
            overriding: candidates(&self.overriding),
            local: candidates(local),
            cluster_wide: candidates(&self.cluster_wide),
        }
    }
}

impl<'a> Candidates<'_, 'a> {
    /// What governs an archive that lies in this namespace, and until a moment ago was governed by that
    /// policy. Without an identity it is one that has lost the end, where its identity would be: of that no
    /// selector knows anything.
    pub(super) fn governing(
        &self,
        identity: Option<&Identity>,
        labels: PodLabels<'_>,
        governed_by: Option<&PolicyRef>,
    ) -> Governing<'a> {
        let found = self.first_that_selects(identity, labels);
        match (found, governed_by) {
            (Governing::Policy(place), Some(before))
                if !self.policy_index.is_handover_over
                    && !self.policy_index.ranked[place].id.is_same_object(before)
                    && !self.selects(before, identity, labels) =>
            {
                Governing::Handover(place)
            }
            _ => found,
        }
    }

    /// Whether any policy of that object is there and selects the archive for certain.
    fn selects(&self, object: &PolicyRef, identity: Option<&Identity>, labels: PodLabels<'_>) -> bool {
        let candidates = self.overriding.iter().chain(&self.local).chain(&self.cluster_wide);
        candidates.into_iter().any(|candidate| {
            self.policy_index.ranked[candidate.place].id.is_same_object(object)
                && self.selects_by(candidate, identity, labels) == Match::Yes
        })
    }

    fn selects_by(&self, candidate: &Candidate, identity: Option<&Identity>, labels: PodLabels<'_>) -> Match {
        let policy = self.policy_index.ranked[candidate.place];
        let former = labels.former.filter(|_| policy.overrides());
        let former = former.and_then(|former| former.get(&policy.id.name));
        let by_pod = |identity| match by_pod(&policy.selector, identity, labels.present) {
            Match::Yes => Match::Yes,
            // What an overriding policy has once selected, no change of the pod's labels takes away from it.
            other => match former.map(|former| by_pod(&policy.selector, identity, Some(former))) {
                Some(Match::Yes) => Match::Yes,
                _ => other,
            },
        };
        candidate.by_namespace.and(identity.map_or(Match::Yes, by_pod))
    }

    fn first_that_selects(&self, identity: Option<&Identity>, labels: PodLabels<'_>) -> Governing<'a> {
        let first = |candidates: &[Candidate]| {
            candidates.iter().find_map(|candidate| match self.selects_by(candidate, identity, labels) {
                Match::Yes => Some(Governing::Policy(candidate.place)),
                Match::Unknown => Some(Governing::Uncertain(candidate.place, Detail::LabelsUnknown)),
                Match::No => None,
            })
        };
        if let Some(invalid) = self.policy_index.invalid_overriding {
            return Governing::Invalid(invalid);
        }
        if let Some(found) = first(&self.overriding) {
            return found;
        }
        if let Some(invalid) = self.invalid {
            return Governing::Invalid(invalid);
        }
        match (first(&self.local), self.uncertainty) {
            (Some(Governing::Policy(policy)), Some(uncertainty)) => {
                return Governing::Uncertain(policy, uncertainty);
            }
            (Some(found), _) => return found,
            (None, _) => {}
        }
        if let Some(invalid) = self.policy_index.invalid_cluster_wide {
            return Governing::Invalid(invalid);
        }
        first(&self.cluster_wide).unwrap_or(Governing::Nothing)
    }
}

/// What a selector says about the namespace, whose labels may not be known, but whose name always is.
fn by_namespace(selector: &Selector, namespace: &str, labels: Option<&Labels>) -> Match {
    if !selector.namespaces.is_empty() && !selector.namespaces.iter().any(|name| name == namespace) {
        return Match::No;
    }
    let requirements = selector.namespace_labels.0.iter().map(|requirement| {
        let holds = if requirement.key == NAMESPACE_NAME {
            Some(requirement.holds(Some(namespace)))
        } else {
            labels.map(|labels| requirement.holds(labels.get(&requirement.key).map(String::as_str)))
        };
        match holds {
            Some(true) => Match::Yes,
            Some(false) => Match::No,
            None => Match::Unknown,
        }
    });
    requirements.fold(Match::Yes, Match::and)
}

/// What a selector says about the pod and the container.
fn by_pod(selector: &Selector, identity: &Identity, labels: Option<&Labels>) -> Match {
    let names = |wanted: &[String], name: &String| wanted.is_empty() || wanted.contains(name);
    let wanted = &selector.pod_labels;
    if !names(&selector.pods, &identity.pod) || !names(&selector.containers, &identity.container) {
        return Match::No;
    }
    match labels {
        _ if wanted.0.is_empty() => Match::Yes,
        Some(labels) if wanted.matches(labels) => Match::Yes,
        Some(_) => Match::No,
        None => Match::Unknown,
    }
}

/// Sorts the most binding policy first: those that override, namespaced before cluster-wide, then by what it
/// names, native before `v1`, older before younger, and by name last.
pub(crate) fn precedence(policy: &Policy) -> impl Ord + use<> {
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
        !policy.overrides(),
        policy.namespace.is_none(),
        Reverse(specificity),
        id.kind == Kind::CheckpointRestoreOperator,
        policy.created.unwrap_or(Timestamp::MAX),
        (id.name.clone(), id.namespace.clone(), id.kind, id.part.clone()),
    )
}

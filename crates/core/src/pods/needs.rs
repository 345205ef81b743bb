//! The facts about a pod that policies could need; nothing else is looked up.

use super::record::{Owner, PodRecord};
use crate::identity::Identity;
use crate::policy::{KeepFor, Limit, OrphanWhen, Policy, PolicySet, Retention, Tiers};

/// What is to be known about a pod and what it belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Needs {
    /// Whether its namespace is there, since when, and with which labels.
    pub(super) namespace: bool,
    /// Whether it is there, and with which labels.
    pub(super) pod: bool,
    /// Whether it is still there, even if its owner is known.
    pub(super) pod_gone: bool,
    /// Who its topmost owner is, and whether that is there.
    pub(super) owner: bool,
    /// Whether any pod of its lineage runs on this node.
    pub(super) idle: bool,
}

impl Needs {
    pub(super) fn any(self) -> bool {
        self != Self::default()
    }

    pub(super) fn and(self, other: Self) -> Self {
        Self {
            namespace: self.namespace || other.namespace,
            pod: self.pod || other.pod,
            pod_gone: self.pod_gone || other.pod_gone,
            owner: self.owner || other.owner,
            idle: self.idle || other.idle,
        }
    }

    /// What is yet to be learned of a pod, if it still can be; `is_over`: it will not be seen any more;
    /// `is_placed`: it is from the namespace that is there, whose labels can be learned.
    pub(super) fn to_learn(record: Option<&PodRecord>, is_over: bool, is_placed: bool) -> Self {
        let is_new = record.is_none_or(|record| {
            let is_gone = record.pod_gone.is_some() || record.namespace_gone.is_some();
            record.owner == Owner::Unknown && !is_gone && !is_over
        });
        let is_climbing =
            record.is_some_and(|record| matches!(record.owner, Owner::Controlled { topmost: None, .. }));
        // Only the age of the namespace tells whether the pod is the one that the archives are from.
        let namespace = is_new
            || record.is_some_and(|record| {
                let is_unlabelled = is_placed && record.namespace_labels.is_none();
                (record.namespace.is_none() || is_unlabelled) && record.namespace_gone.is_none()
            });
        Self { namespace, pod: is_new, pod_gone: false, owner: is_new || is_climbing, idle: false }
    }

    /// What a policy could need of an archive that it governs. Dry runs ask as well: their report
    /// is what they would do.
    fn of(policy: &Policy) -> Self {
        let when = policy.orphans.map(|rule| rule.when);
        let owner =
            when == Some(OrphanWhen::WorkloadDeleted) || policy.retention.per_workload != Limit::default();
        let pod = owner || when == Some(OrphanWhen::PodDeleted) || !policy.selector.pod_labels.0.is_empty();
        // Only the age of the namespace tells whether the pod is the one that the archives are from.
        let namespace =
            pod || when == Some(OrphanWhen::NamespaceDeleted) || policy.selector.needs_namespace_labels();
        let pod_gone = when == Some(OrphanWhen::PodDeleted);
        Self { namespace, pod, pod_gone, owner, idle: rests_on_floor(&policy.retention) }
    }
}

/// Whether some rule would take more if the floor ended.
fn rests_on_floor(retention: &Retention) -> bool {
    let floor_ends = retention.keep_latest > 0 && matches!(retention.keep_latest_for, KeepFor::For(_));
    let limits =
        [retention.per_container, retention.per_workload, retention.per_pod, retention.per_namespace];
    floor_ends
        && (retention.max_age.is_some()
            || retention.tiers.is_some_and(|tiers| tiers != Tiers::default())
            || limits.iter().any(|limit| *limit != Limit::default()))
}

/// The policies, each with what it could need.
pub(super) struct Asking<'a> {
    policies: Vec<(&'a Policy, Needs)>,
    /// What is needed for every archive, whichever policy governs it.
    always: Needs,
}

impl<'a> Asking<'a> {
    /// `knows_node`: whether it can be asked which pods run on this node.
    pub(super) fn new(policies: &'a PolicySet, knows_node: bool) -> Self {
        let needs = |policy: &'a Policy| {
            let needs = Needs::of(policy);
            (policy, Needs { idle: needs.idle && knows_node, ..needs })
        };
        let storage = knows_node && !policies.storage.is_empty();
        Self {
            policies: policies.retention.iter().map(needs).filter(|(_, needs)| needs.any()).collect(),
            always: Needs { idle: storage, ..Needs::default() },
        }
    }

    /// What could be needed of an archive.
    pub(super) fn about(&self, identity: &Identity) -> Needs {
        self.policies
            .iter()
            .filter(|(policy, _)| could_govern(policy, identity))
            .fold(self.always, |needs, (_, more)| needs.and(*more))
    }
}

/// Whether a policy could govern the archive, whatever the labels turn out to be.
fn could_govern(policy: &Policy, identity: &Identity) -> bool {
    let selector = &policy.selector;
    let names = |wanted: &[String], name: &String| wanted.is_empty() || wanted.contains(name);
    policy.namespace.as_ref().is_none_or(|namespace| *namespace == identity.namespace)
        && names(&selector.namespaces, &identity.namespace)
        && names(&selector.pods, &identity.pod)
        && names(&selector.containers, &identity.container)
}

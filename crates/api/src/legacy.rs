//! `criu.org/v1 CheckpointRestoreOperator`: the older operator's retention kind.
//!
//! Field names, defaults and meanings are those of checkpoint-restore-operator v0.1.0; what is new is
//! optional. One object becomes several policies: its global one, and one an entry.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use checkpoint_keeper_core::policy::{self, Kind, PolicyRef, Size};
use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{FieldError, Problems};
use crate::parts::{PolicyStatus, count, grace, keep_latest};
use crate::scalars::{ExactName, LengthOfTime, LengthOfTimeOrForever, ListedSizeText, SizeText};

/// Retention as the older checkpoint-restore-operator has it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "criu.org",
    version = "v1",
    kind = "CheckpointRestoreOperator",
    plural = "checkpointrestoreoperators",
    shortname = "cro",
    namespaced,
    category = "checkpoints",
    status = "PolicyStatus",
    derive = "PartialEq",
    doc = "Which checkpoint archives stay, in the terms of the older checkpoint-restore-operator. The most specific entry for an archive governs it: container, then pod, then namespace, then globalPolicy.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(name = "Dry run", type_ = "boolean", json_path = ".spec.dryRun"),
    printcolumn(name = "Directory", type_ = "string", json_path = ".spec.checkpointDirectory", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointRestoreOperatorSpec {
    /// The directory of the archives on the node. Default /var/lib/kubelet/checkpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub checkpoint_directory: Option<String>,
    /// Whether a change of this object takes effect at once, rather than with the next new archive or
    /// periodic sweep. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_policies_immediately: Option<bool>,
    /// Whether the object only reports what it would delete. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
    /// For archives that no entry below is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_policy: Option<GlobalPolicySpec>,
    /// For single containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub container_policies: Vec<ContainerPolicySpec>,
    /// For single pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub pod_policies: Vec<PodPolicySpec>,
    /// For single namespaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub namespace_policies: Vec<NamespacePolicySpec>,
}

/// Declares a struct of policy fields: what it says first, then what every level has.
macro_rules! level {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $($(#[$attribute])* pub $field: $type,)*
            /// Whether archives stay when their pod is gone; in namespacePolicies, when their namespace is.
            /// Default true.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub retain_orphan: Option<bool>,
            /// How long they stay after that, where retainOrphan is false: a length of time. Default 1h.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub orphan_grace_period: Option<LengthOfTime>,
            /// Older archives go: a length of time such as 24h or 30d. Default: no limit.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub max_age: Option<LengthOfTime>,
            /// How many of the newest complete archives of each workload's container survive age and disk
            /// pressure. Default 1; 0 protects none.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 0, max = 10_000))]
            pub keep_latest: Option<i32>,
            /// How long keepLatest still holds after the last pod of that workload left the node: a length
            /// of time, or Forever. Default 7d.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub keep_latest_for: Option<LengthOfTimeOrForever>,
        }

        impl $name {
            /// What all levels have in common; `when`: what must be gone for an archive to be an orphan.
            fn read_shared(
                &self,
                when: policy::OrphanWhen,
                path: &str,
                problems: &mut Problems,
            ) -> (policy::Retention, Option<policy::OrphanRule>) {
                let path_grace = format!("{path}.orphanGracePeriod");
                let grace = grace(self.orphan_grace_period.as_ref(), &path_grace, DEFAULT_ORPHAN_GRACE, problems);
                let retention = policy::Retention {
                    keep_latest: keep_latest(self.keep_latest, &format!("{path}.keepLatest"), problems),
                    keep_latest_for: self
                        .keep_latest_for
                        .as_ref()
                        .and_then(|time| time.read(&format!("{path}.keepLatestFor"), problems))
                        .unwrap_or_default(),
                    max_age: self.max_age.as_ref().and_then(|age| age.read(&format!("{path}.maxAge"), problems)),
                    ..policy::Retention::default()
                };
                let orphans = (self.retain_orphan == Some(false))
                    .then_some(policy::OrphanRule { when, grace });
                (retention, orphans)
            }
        }
    };
}

/// Declares an entry: the names that it is for, and the limits of that one level.
macro_rules! entry {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident),* } limits $level:ident, orphans when $when:ident) => {
        level! {
            $(#[$doc])*
            $name {
                $($(#[$attribute])* $field: ExactName,)*
                /// How many archives stay. Default, and 0: no limit.
                #[serde(default, skip_serializing_if = "Option::is_none")]
                #[schemars(range(min = 0))]
                max_checkpoints: Option<i64>,
                /// Larger archives go: a size such as 20Gi; a number without a suffix is bytes. Default: no limit.
                #[serde(default, skip_serializing_if = "Option::is_none")]
                max_checkpoint_size: Option<ListedSizeText>,
                /// How much they may have together: a size such as 50Gi; a number without a suffix is bytes.
                /// Default: no limit.
                #[serde(default, skip_serializing_if = "Option::is_none")]
                max_total_size: Option<ListedSizeText>,
            }
        }

        impl $name {
            fn read(&self, path: &str, problems: &mut Problems) -> (policy::Retention, Option<policy::OrphanRule>) {
                let when = policy::OrphanWhen::$when;
                let (mut retention, orphans) = self.read_shared(when, path, problems);
                retention.max_archive_size = self
                    .max_checkpoint_size
                    .as_ref()
                    .and_then(|size| size.read(&format!("{path}.maxCheckpointSize"), problems));
                retention.$level = policy::Limit {
                    max_count: count(self.max_checkpoints, &format!("{path}.maxCheckpoints"), problems),
                    max_total_size: self
                        .max_total_size
                        .as_ref()
                        .and_then(|size| size.read(&format!("{path}.maxTotalSize"), problems))
                        .map(Size::Bytes),
                };
                (retention, orphans)
            }
        }
    };
}

level! {
    /// What stays of archives that no entry is for. 0 turns one limit off.
    GlobalPolicySpec {
        /// How many archives of one namespace stay on a node. Default 30.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 0))]
        max_checkpoints_per_namespace: Option<i64>,
        /// How many archives of one pod stay on a node. Default 20.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 0))]
        max_checkpoints_per_pod: Option<i64>,
        /// How many archives of one container stay on a node. Default 10.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(range(min = 0))]
        max_checkpoints_per_container: Option<i64>,
        /// Larger archives go: a size such as 20Gi; a number without a suffix is bytes. Default: no limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_checkpoint_size: Option<SizeText>,
        /// How much the archives of one namespace may have on a node: a size. Default: no limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_total_size_per_namespace: Option<SizeText>,
        /// How much the archives of one pod may have on a node: a size. Default: no limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_total_size_per_pod: Option<SizeText>,
        /// How much the archives of one container may have on a node: a size. Default: no limit.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_total_size_per_container: Option<SizeText>,
    }
}

entry! {
    /// What stays of one container's archives; all three names are exact.
    ContainerPolicySpec {
        /// The container's namespace.
        namespace,
        /// The container's pod.
        pod,
        /// The container's name.
        container
    } limits per_container, orphans when PodDeleted
}
entry! {
    /// What stays of one pod's archives; both names are exact.
    PodPolicySpec {
        /// The pod's namespace.
        namespace,
        /// The pod's name.
        pod
    } limits per_pod, orphans when PodDeleted
}
entry! {
    /// What stays of one namespace's archives; the name is exact.
    NamespacePolicySpec {
        /// The namespace's name.
        namespace
    } limits per_namespace, orphans when NamespaceDeleted
}

/// Effective defaults of the older operator, once an object exists.
const DEFAULT_PER_NAMESPACE: i64 = 30;
const DEFAULT_PER_POD: i64 = 20;
const DEFAULT_PER_CONTAINER: i64 = 10;
/// How long orphans stay where the object does not say.
const DEFAULT_ORPHAN_GRACE: Duration = Duration::from_hours(1);
/// Where the kubelet puts archives.
const DEFAULT_DIRECTORY: &str = "/var/lib/kubelet/checkpoints";

/// Whether two paths name the same directory by their parts: `/a/b`, `/a/b/` and `//a/./b` do.
pub fn is_same_path(one: &str, other: &str) -> bool {
    Path::new(one).components().eq(Path::new(other).components())
}

/// What an object in a given namespace may govern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Governs<'a> {
    /// Every namespace: an object in the operator's own namespace, or in a file.
    Cluster,
    /// Only this one; entries that name another are left out and reported.
    Namespace(&'a str),
}

/// What one object means to the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyPolicies {
    /// One policy of each entry, and the global one last.
    pub policies: Vec<policy::Policy>,
    /// Entries that name a namespace which the object does not govern: `containerPolicies[1]`.
    pub foreign: Vec<String>,
    /// Entries for what an earlier entry is already for, with that one: the earlier is in force.
    pub repeated: Vec<(String, String)>,
}

/// What an object sets beside retention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacySettings {
    /// Which object.
    pub id: PolicyRef,
    /// When it was created; of several, the oldest is in force.
    pub created: Option<Timestamp>,
    /// The directory of the archives on the node, or the default one.
    pub checkpoint_directory: String,
    /// The same where the object names one.
    pub named_directory: Option<String>,
    /// Whether a change takes effect at once.
    pub apply_policies_immediately: bool,
    /// Whether this is the object in force, rather than one that an older one supersedes.
    pub effective: bool,
}

impl CheckpointRestoreOperator {
    /// Which object this is, in verdicts and reports.
    pub fn policy_ref(&self) -> PolicyRef {
        PolicyRef {
            kind: Kind::CheckpointRestoreOperator,
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone().unwrap_or_default(),
            part: None,
        }
    }

    /// What it sets beside retention, taken to be in force.
    pub fn settings(&self) -> LegacySettings {
        // Empty is as good as absent.
        let named_directory = self.spec.checkpoint_directory.clone().filter(|path| !path.trim().is_empty());
        LegacySettings {
            id: self.policy_ref(),
            created: self.metadata.creation_timestamp.as_ref().map(|time| time.0),
            checkpoint_directory: named_directory.clone().unwrap_or_else(|| DEFAULT_DIRECTORY.to_owned()),
            named_directory,
            apply_policies_immediately: self.spec.apply_policies_immediately.unwrap_or(false),
            effective: true,
        }
    }

    /// What it means to the engine; all that is wrong with it otherwise.
    pub fn to_policies(&self, governs: Governs<'_>) -> Result<LegacyPolicies, Vec<FieldError>> {
        let (spec, mut problems) = (&self.spec, Problems::default());
        let mut found = Collected {
            governs,
            base: self.empty_policy(governs),
            first: BTreeMap::new(),
            into: LegacyPolicies { policies: Vec::new(), foreign: Vec::new(), repeated: Vec::new() },
        };
        for (index, entry) in spec.container_policies.iter().enumerate() {
            let part = format!("containerPolicies[{index}]");
            let read = entry.read(&format!("spec.{part}"), &mut problems);
            found.add(
                part,
                [Some(&entry.namespace), Some(&entry.pod), Some(&entry.container)],
                read,
                &mut problems,
            );
        }
        for (index, entry) in spec.pod_policies.iter().enumerate() {
            let part = format!("podPolicies[{index}]");
            let read = entry.read(&format!("spec.{part}"), &mut problems);
            found.add(part, [Some(&entry.namespace), Some(&entry.pod), None], read, &mut problems);
        }
        for (index, entry) in spec.namespace_policies.iter().enumerate() {
            let part = format!("namespacePolicies[{index}]");
            let read = entry.read(&format!("spec.{part}"), &mut problems);
            found.add(part, [Some(&entry.namespace), None, None], read, &mut problems);
        }
        let global = spec.global_policy.clone().unwrap_or_default();
        let (retention, orphans) = global.read("spec.globalPolicy", &mut problems);
        let Collected { base, into: mut policies, .. } = found;
        policies.policies.push(policy::Policy { retention, orphans, ..base });
        problems.unless(policies)
    }

    /// A policy of this object for everything that it governs, with no rule.
    fn empty_policy(&self, governs: Governs<'_>) -> policy::Policy {
        policy::Policy {
            id: self.policy_ref(),
            created: self.metadata.creation_timestamp.as_ref().map(|time| time.0),
            namespace: match governs {
                Governs::Cluster => None,
                Governs::Namespace(namespace) => Some(namespace.to_owned()),
            },
            mode: if self.spec.dry_run == Some(true) { policy::Mode::DryRun } else { policy::Mode::Enforce },
            selector: policy::Selector::default(),
            retention: policy::Retention::default(),
            orphans: None,
            incomplete_grace: None,
            damaged_grace: None,
            precedence: policy::Precedence::Default,
        }
    }
}

/// Entries on their way into policies.
struct Collected<'a> {
    governs: Governs<'a>,
    base: policy::Policy,
    /// The entry that each combination of names was first seen in.
    first: BTreeMap<Vec<String>, String>,
    into: LegacyPolicies,
}

impl Collected<'_> {
    fn add(
        &mut self,
        part: String,
        names: [Option<&ExactName>; 3],
        (retention, orphans): (policy::Retention, Option<policy::OrphanRule>),
        problems: &mut Problems,
    ) {
        let [namespace, pod, container] = names;
        let mut read = |name: Option<&ExactName>, field: &str| {
            name.map(|name| name.read(&format!("spec.{part}.{field}"), problems))
                .into_iter()
                .collect::<Vec<_>>()
        };
        let selector = policy::Selector {
            namespaces: read(namespace, "namespace"),
            pods: read(pod, "pod"),
            containers: read(container, "container"),
            ..policy::Selector::default()
        };
        if matches!(self.governs, Governs::Namespace(own) if selector.namespaces.iter().any(|name| name != own))
        {
            self.into.foreign.push(part);
            return;
        }
        let key = [&selector.namespaces[..], &selector.pods, &selector.containers].concat();
        if let Some(first) = self.first.get(&key) {
            self.into.repeated.push((part, first.clone()));
            return;
        }
        self.first.insert(key, part.clone());
        let mut policy = policy::Policy { selector, retention, orphans, ..self.base.clone() };
        policy.id.part = Some(part);
        self.into.policies.push(policy);
    }
}

impl GlobalPolicySpec {
    fn read(&self, path: &str, problems: &mut Problems) -> (policy::Retention, Option<policy::OrphanRule>) {
        let when = policy::OrphanWhen::PodDeleted;
        let (mut retention, orphans) = self.read_shared(when, path, problems);
        let mut bytes = |size: &Option<SizeText>, field: &str| {
            size.as_ref().and_then(|size| size.read(&format!("{path}.{field}"), problems))
        };
        retention.max_archive_size = bytes(&self.max_checkpoint_size, "maxCheckpointSize");
        let per_namespace = bytes(&self.max_total_size_per_namespace, "maxTotalSizePerNamespace");
        let per_pod = bytes(&self.max_total_size_per_pod, "maxTotalSizePerPod");
        let per_container = bytes(&self.max_total_size_per_container, "maxTotalSizePerContainer");
        let mut limit = |value: Option<i64>, default: i64, field: &str, bytes: Option<u64>| policy::Limit {
            max_count: count(Some(value.unwrap_or(default)), &format!("{path}.{field}"), problems),
            max_total_size: bytes.map(Size::Bytes),
        };
        retention.per_namespace = limit(
            self.max_checkpoints_per_namespace,
            DEFAULT_PER_NAMESPACE,
            "maxCheckpointsPerNamespace",
            per_namespace,
        );
        retention.per_pod =
            limit(self.max_checkpoints_per_pod, DEFAULT_PER_POD, "maxCheckpointsPerPod", per_pod);
        retention.per_container = limit(
            self.max_checkpoints_per_container,
            DEFAULT_PER_CONTAINER,
            "maxCheckpointsPerContainer",
            per_container,
        );
        (retention, orphans)
    }
}

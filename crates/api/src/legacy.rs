//! `criu.org/v1 CheckpointRestoreOperator`: the older operator's retention kind.
//!
//! Field names, defaults and meanings are those of checkpoint-restore-operator v0.1.0, with not one field
//! more: what this project adds are annotations. One object becomes several policies: its global one, and one
//! an entry.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use checkpoint_keeper_core::policy::{self, Kind, PolicyRef, Size};
use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{FieldError, Problems};
use crate::legacy_annotations::{ANNOTATION_PREFIX, KEEP_LATEST, KEEP_LATEST_FOR, MODE, ORPHAN_GRACE_PERIOD};
use crate::parts::{count, grace};
use crate::scalars::{ExactName, LengthOfTime, LengthOfTimeOrForever, ListedSizeText, SizeText};
use crate::status::PolicyStatus;

/// The older operator's lease (its `main.go`, `LeaderElectionID`).
pub const OTHER_OPERATOR_LEASE: &str = "f1499914.criu.org";

/// The namespaces into which the older operator is installed by default. Its `config/default/kustomization.yaml` had
/// the second one until July 2026, before its first release, and has had the first one since.
pub const OTHER_OPERATOR_NAMESPACES: [&str; 2] =
    ["checkpoint-restore-operator", "checkpoint-restore-operator-system"];

/// Retention as the older checkpoint-restore-operator defines it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "criu.org",
    version = "v1",
    kind = "CheckpointRestoreOperator",
    plural = "checkpointrestoreoperators",
    namespaced,
    status = "PolicyStatus",
    derive = "PartialEq",
    doc = "Which checkpoint archives stay, in the terms of the older checkpoint-restore-operator. The most specific entry for an archive governs it: container, then pod, then namespace, then globalPolicy. Every limit is per node.",
    printcolumn(
        name = "Accepted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Accepted")].reason"#
    ),
    printcolumn(name = "Directory", type_ = "string", json_path = ".spec.checkpointDirectory", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointRestoreOperatorSpec {
    /// checkpointDirectory is the directory of the archives on the nodes. Default
    /// /var/lib/kubelet/checkpoints. An object that names another directory than the agents' is not in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub checkpoint_directory: Option<String>,
    /// applyPoliciesImmediately true makes a change of this object take effect at once; false, with the next
    /// new archive on the node or its next periodic sweep. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub apply_policies_immediately: Option<bool>,
    /// globalPolicy is for archives that no entry of the lists is for. Absent: its defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub global_policy: Option<GlobalPolicySpec>,
    /// containerPolicies are for single containers, which they name exactly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "atomic"))]
    pub container_policies: Vec<ContainerPolicySpec>,
    /// podPolicies are for single pods, which they name exactly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "atomic"))]
    pub pod_policies: Vec<PodPolicySpec>,
    /// namespacePolicies are for single namespaces, which they name exactly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), extend("x-kubernetes-list-type" = "atomic"))]
    pub namespace_policies: Vec<NamespacePolicySpec>,
}

/// What stays of archives that no entry is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GlobalPolicySpec {
    /// retainOrphan false deletes archives whose pod is gone, after a grace period of 1h. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain_orphan: Option<bool>,
    /// maxCheckpointsPerNamespace is how many archives of one namespace stay on a node. Default 30; 0: no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_checkpoints_per_namespace: Option<i64>,
    /// maxCheckpointsPerPod is how many archives of one pod stay on a node. Default 20; 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_checkpoints_per_pod: Option<i64>,
    /// maxCheckpointsPerContainer is how many archives of one container stay on a node. Default 10; 0: no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_checkpoints_per_container: Option<i64>,
    /// maxCheckpointSize is the size above which an archive goes, such as 20Gi; a number without a suffix is
    /// bytes. Default, and 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_checkpoint_size: Option<SizeText>,
    /// maxTotalSizePerNamespace is how much the archives of one namespace may have together on a node, such
    /// as 100Gi; a number without a suffix is bytes. Default, and 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_size_per_namespace: Option<SizeText>,
    /// maxTotalSizePerPod is how much the archives of one pod may have together on a node, such as 50Gi; a
    /// number without a suffix is bytes. Default, and 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_size_per_pod: Option<SizeText>,
    /// maxTotalSizePerContainer is how much the archives of one container may have together on a node, such
    /// as 20Gi; a number without a suffix is bytes. Default, and 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_size_per_container: Option<SizeText>,
}

/// Declares an entry: the names that it is for, and the limits of that one level.
macro_rules! entry {
    ($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident),* } $(#[$retain:meta])* limits $level:ident, orphans when $when:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "camelCase")]
        pub struct $name {
            $($(#[$attribute])* pub $field: ExactName,)*
            $(#[$retain])*
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub retain_orphan: Option<bool>,
            /// maxCheckpoints is how many archives stay on a node. Default, and 0: no limit.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            #[schemars(range(min = 0))]
            pub max_checkpoints: Option<i64>,
            /// maxCheckpointSize is the size above which an archive goes, such as 20Gi; a number without a
            /// suffix is bytes. Default, and 0: no limit.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub max_checkpoint_size: Option<ListedSizeText>,
            /// maxTotalSize is how much the archives may have together on a node, such as 50Gi; a number
            /// without a suffix is bytes. Default, and 0: no limit.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub max_total_size: Option<ListedSizeText>,
        }

        impl $name {
            fn read(&self, path: &str, additions: &Additions, problems: &mut Problems) -> Rules {
                let mut bytes = |size: &Option<ListedSizeText>, field: &str| {
                    size.as_ref().and_then(|size| size.read(&format!("{path}.{field}"), problems))
                };
                let max_archive_size = bytes(&self.max_checkpoint_size, "maxCheckpointSize");
                let max_total_size = bytes(&self.max_total_size, "maxTotalSize").map(Size::Bytes);
                let max_count = count(self.max_checkpoints, &format!("{path}.maxCheckpoints"), problems);
                let retention = policy::Retention {
                    max_archive_size,
                    $level: policy::Limit { max_count, max_total_size },
                    ..additions.retention()
                };
                let orphans = additions.orphans(policy::OrphanWhen::$when, self.retain_orphan);
                Rules { retention, orphans }
            }
        }
    };
}

entry! {
    /// What stays of one container's archives; all three names are exact.
    ContainerPolicySpec {
        /// namespace is the exact name of the container's namespace.
        namespace,
        /// pod is the exact name of the container's pod.
        pod,
        /// container is the exact name of the container.
        container
    }
    /// retainOrphan false deletes archives whose pod is gone, after a grace period of 1h. Default true.
    limits per_container, orphans when PodDeleted
}
entry! {
    /// What stays of one pod's archives; both names are exact.
    PodPolicySpec {
        /// namespace is the exact name of the pod's namespace.
        namespace,
        /// pod is the exact name of the pod.
        pod
    }
    /// retainOrphan false deletes archives whose pod is gone, after a grace period of 1h. Default true.
    limits per_pod, orphans when PodDeleted
}
entry! {
    /// What stays of one namespace's archives; the name is exact.
    NamespacePolicySpec {
        /// namespace is the exact name of the namespace.
        namespace
    }
    /// retainOrphan false deletes archives whose namespace is gone, after a grace period of 1h. Default true.
    limits per_namespace, orphans when NamespaceDeleted
}

/// What one level of an object means to the engine.
struct Rules {
    retention: policy::Retention,
    orphans: Option<policy::OrphanRule>,
}

/// What an object's annotations add to all of its levels. The older operator's definition has no place for it,
/// and the annotations stay when that definition is applied again.
#[derive(Debug)]
struct Additions {
    mode: policy::Mode,
    keep_latest: u32,
    keep_latest_for: policy::KeepFor,
    orphan_grace: Duration,
}

impl Additions {
    /// Reads the annotations. One with the prefix that is not known is refused: a mistyped `mode` would delete.
    fn read(annotations: &BTreeMap<String, String>, problems: &mut Problems) -> Self {
        let mut additions = Self {
            mode: policy::Mode::Enforce,
            keep_latest: policy::DEFAULT_KEEP_LATEST,
            keep_latest_for: policy::KeepFor::default(),
            orphan_grace: DEFAULT_ORPHAN_GRACE,
        };
        for (key, value) in annotations.iter().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX)) {
            let path = format!("metadata.annotations.{key}");
            match key.as_str() {
                MODE => match value.as_str() {
                    "Enforce" => additions.mode = policy::Mode::Enforce,
                    "DryRun" => additions.mode = policy::Mode::DryRun,
                    other => problems.add(&path, format!("{other:?} is none of Enforce, DryRun"), None),
                },
                KEEP_LATEST => match value.parse() {
                    Ok(latest) => additions.keep_latest = latest,
                    Err(_) => problems.add(&path, format!("{value:?} is not a whole number"), None),
                },
                KEEP_LATEST_FOR => {
                    if let Some(time) = LengthOfTimeOrForever(value.clone()).read(&path, problems) {
                        additions.keep_latest_for = time;
                    }
                }
                ORPHAN_GRACE_PERIOD => {
                    let time = LengthOfTime(value.clone());
                    additions.orphan_grace = grace(Some(&time), &path, DEFAULT_ORPHAN_GRACE, problems);
                }
                _ => {
                    let known = [MODE, KEEP_LATEST, KEEP_LATEST_FOR, ORPHAN_GRACE_PERIOD].join(", ");
                    problems.add(&path, "is an unknown annotation", Some(format!("known are {known}")));
                }
            }
        }
        additions
    }

    fn retention(&self) -> policy::Retention {
        policy::Retention {
            keep_latest: self.keep_latest,
            keep_latest_for: self.keep_latest_for,
            ..policy::Retention::default()
        }
    }

    fn orphans(&self, when: policy::OrphanWhen, retain: Option<bool>) -> Option<policy::OrphanRule> {
        (retain == Some(false)).then_some(policy::OrphanRule { when, grace: self.orphan_grace })
    }
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
        let none = BTreeMap::new();
        let additions = Additions::read(self.metadata.annotations.as_ref().unwrap_or(&none), &mut problems);
        let mut found = Collected {
            governs,
            base: self.empty_policy(governs, additions.mode),
            first: BTreeMap::new(),
            into: LegacyPolicies { policies: Vec::new(), foreign: Vec::new(), repeated: Vec::new() },
        };
        for (index, entry) in spec.container_policies.iter().enumerate() {
            let part = format!("containerPolicies[{index}]");
            let read = entry.read(&format!("spec.{part}"), &additions, &mut problems);
            found.add(
                part,
                [Some(&entry.namespace), Some(&entry.pod), Some(&entry.container)],
                read,
                &mut problems,
            );
        }
        for (index, entry) in spec.pod_policies.iter().enumerate() {
            let part = format!("podPolicies[{index}]");
            let read = entry.read(&format!("spec.{part}"), &additions, &mut problems);
            found.add(part, [Some(&entry.namespace), Some(&entry.pod), None], read, &mut problems);
        }
        for (index, entry) in spec.namespace_policies.iter().enumerate() {
            let part = format!("namespacePolicies[{index}]");
            let read = entry.read(&format!("spec.{part}"), &additions, &mut problems);
            found.add(part, [Some(&entry.namespace), None, None], read, &mut problems);
        }
        let global = spec.global_policy.clone().unwrap_or_default();
        let Rules { retention, orphans } = global.read("spec.globalPolicy", &additions, &mut problems);
        let Collected { base, into: mut policies, .. } = found;
        policies.policies.push(policy::Policy { retention, orphans, ..base });
        problems.unless(policies)
    }

    /// A policy of this object for everything that it governs, with no rule.
    fn empty_policy(&self, governs: Governs<'_>, mode: policy::Mode) -> policy::Policy {
        policy::Policy {
            id: self.policy_ref(),
            created: self.metadata.creation_timestamp.as_ref().map(|time| time.0),
            namespace: match governs {
                Governs::Cluster => None,
                Governs::Namespace(namespace) => Some(namespace.to_owned()),
            },
            mode,
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
        Rules { retention, orphans }: Rules,
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
    fn read(&self, path: &str, additions: &Additions, problems: &mut Problems) -> Rules {
        let mut retention = additions.retention();
        let orphans = additions.orphans(policy::OrphanWhen::PodDeleted, self.retain_orphan);
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
        Rules { retention, orphans }
    }
}

//! `NodeCheckpointStore`: what one node's checkpoint directory holds, as its agent sees it.
//!
//! Every list in the status is bounded. The agent, which writes the status, keeps to the bounds, and keeps the whole
//! status below [`LARGEST_STATUS`].

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::parts::Mode;
use crate::scalars::{FileNameText, QuantityText};
use crate::status::{DryRunUsage, PolicyReference};
use crate::storage_limits::StorageLimits;

/// The most namespaces that the status names; the largest are.
pub const MOST_NAMESPACES: usize = 40;
/// The most namespaces with a quota that the status names; the largest are.
pub const MOST_QUOTAS: usize = 256;
/// The most policies that the status names.
pub const MOST_POLICIES: usize = 100;
/// The most deletions that the status remembers; the latest are.
pub const MOST_DELETIONS: usize = 16;
/// The most discarded files in a status: as many as a spec may name.
pub const MOST_DISCARDS: usize = 100;
/// The most archives without a namespace that the status names.
pub const MOST_WITHOUT_NAMESPACE: usize = 20;
/// The most schedules that the status names.
pub const MOST_SCHEDULES: usize = 100;
/// The most limits that the status names which pins make unreachable.
pub const MOST_UNREACHABLE: usize = 4;
/// The most pinned archives that are named with such a limit.
pub const MOST_PINNED: usize = 3;
/// The most problems that the status names.
pub const MOST_PROBLEMS: usize = 10;
/// The longest message of a problem, in bytes.
pub const LONGEST_MESSAGE: usize = 256;
/// The largest status, in bytes of its JSON.
pub const LARGEST_STATUS: usize = 32 << 10;

/// What people ask of a node's checkpoint directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "checkpoint-keeper.io",
    version = "v1alpha1",
    kind = "NodeCheckpointStore",
    plural = "nodecheckpointstores",
    shortname = "nckstore",
    category = "checkpoint-keeper",
    status = "NodeCheckpointStoreStatus",
    derive = "PartialEq",
    doc = "The checkpoint directory of the node of the same name: what it holds, what was deleted there and why. Its status is written by that node's agent only.",
    printcolumn(name = "Archives", type_ = "integer", json_path = ".status.archives"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "Used%", type_ = "integer", json_path = ".status.filesystem.usedPercent"),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.deletionPending"),
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
    printcolumn(name = "Pinned", type_ = "integer", json_path = ".status.pinned", priority = 1),
    printcolumn(name = "Incomplete", type_ = "integer", json_path = ".status.incomplete", priority = 1),
    printcolumn(name = "Agent", type_ = "string", json_path = ".status.agentVersion", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct NodeCheckpointStoreSpec {
    /// discard names files in the checkpoint directory of this node to delete, of archives that have no
    /// namespace, as it is not known whose they are. Each name is for the file that has it when the agent first
    /// sees the name here; status.discards says what came of it. A pin holds a file all the same. Empty: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub discard: Vec<FileNameText>,
}

/// What a node's checkpoint directory holds.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCheckpointStoreStatus {
    /// observedGeneration is the metadata.generation that the agent last carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// agentVersion is the version of the agent on the node.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub agent_version: String,
    /// directory is the checkpoint directory on the node.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub directory: String,
    /// archives is the number of archives in the directory.
    #[serde(default)]
    pub archives: i64,
    /// size is the size of all archives together, rounded up to three digits.
    #[serde(default)]
    pub size: QuantityText,
    /// pinned is the number of archives that a pin holds.
    #[serde(default)]
    pub pinned: i64,
    /// incomplete is the number of archives from which nothing can be restored, as they were cut off, are damaged
    /// or hold no process images.
    #[serde(default)]
    pub incomplete: i64,
    /// unknown is the number of archives of which it is not known whose container they are of.
    #[serde(default)]
    pub unknown: i64,
    /// unlisted is the number of archives of namespaces that are there which have no ContainerCheckpoint, as there are
    /// more than the agent shows.
    #[serde(default)]
    pub unlisted: i64,
    /// withoutNamespace are archives that no namespace has: it is gone or was made anew, or it is not known whose
    /// container they are of. The largest are named; spec.discard of this object deletes them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub without_namespace: Vec<ArchiveStatus>,
    /// moreWithoutNamespace is the number of further such archives.
    #[serde(default)]
    pub more_without_namespace: i64,
    /// deletionPending is the number of archives that are to be deleted and wait, as policies may only delete so
    /// many a minute on a node.
    #[serde(default)]
    pub deletion_pending: i64,
    /// filesystem is the file system that the directory is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<FileSystemStatus>,
    /// storageLimits are the limits in effect on this node: of all CheckpointStoragePolicies for it the strictest
    /// value of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_limits: Option<StorageLimits>,
    /// namespaces are those with the most bytes on this node, by size.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 40))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub namespaces: Vec<NamespaceUsage>,
    /// moreNamespaces is the number of further namespaces with archives on this node.
    #[serde(default)]
    pub more_namespaces: i64,
    /// quotas are the namespaces with archives on this node that have a CheckpointQuota, by name, with exact figures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub quotas: Vec<QuotaUsage>,
    /// moreQuotas is the number of further such namespaces.
    #[serde(default)]
    pub more_quotas: i64,
    /// latestQuotaTime is the metadata.creationTimestamp of the newest CheckpointQuota that the agent knows of: what is in
    /// neither namespaces nor quotas has no archives on this node where its quotas are not newer. Absent: namespaces names
    /// all that have archives here, or the agent knows of no CheckpointQuota.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest_quota_time: Option<Time>,
    /// policies are the policies by which the agent acts on this node: those of the cluster, and those of
    /// namespaces that have archives here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub policies: Vec<PolicyUsage>,
    /// morePolicies is the number of further such policies.
    #[serde(default)]
    pub more_policies: i64,
    /// unreachableLimits are limits that stay exceeded on this node, as too many of the archives that they count
    /// are pinned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub unreachable_limits: Vec<UnreachableLimit>,
    /// moreUnreachableLimits is the number of further limits that pins make unreachable.
    #[serde(default)]
    pub more_unreachable_limits: i64,
    /// schedules are the CheckpointSchedules that select a container on this node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub schedules: Vec<ScheduleUsage>,
    /// moreSchedules is the number of further such schedules.
    #[serde(default)]
    pub more_schedules: i64,
    /// deletions are the latest deletions on this node, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub deletions: Vec<DeletionRecord>,
    /// discards say what came of each file that spec.discard names. A name is for the file that had it when the
    /// agent first saw it there; to ask for another one, take the name out, and put it in again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub discards: Vec<DiscardRecord>,
    /// problems are what is wrong on this node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub problems: Vec<ProblemStatus>,
    /// moreProblems is the number of further problems.
    #[serde(default)]
    pub more_problems: i64,
    /// conditions: Ready says whether archives are collected on this node as policies want it, and if not, why;
    /// it is Unknown while no agent runs there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// Why archives are collected on a node as policies want it, or not: the reason of the condition `Ready`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadyReason {
    /// The policies in force are enforced.
    Collecting,
    /// The directory has not been looked at yet.
    Starting,
    /// There is no directory.
    DirectoryGone,
    /// The policies are not known yet.
    PoliciesUnknown,
    /// The policies cannot be confirmed.
    PolicyStale,
    /// Something else of the cluster cannot be watched.
    NotWatching,
    /// No agent is at work: the controller says so.
    AgentNotReady,
    /// The directory cannot be listed.
    DirectoryUnreadable,
    /// The clock is not trusted.
    ClockSuspect,
    /// A policy of the cluster is not understood.
    PolicyInvalid,
    /// A storage policy selects nodes, and the node's labels are not known.
    StoragePolicyUnjudged,
    /// The file system does not tell its size.
    FileSystemUnknown,
    /// Deleting archives frees nothing.
    WatermarkIneffective,
    /// The file system is too full, and not enough may be deleted.
    WatermarkUnreachable,
    /// Archives cannot be deleted.
    DeletionsFailing,
    /// The catalog cannot be written.
    CatalogFailing,
}

impl ReadyReason {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Collecting,
        Self::Starting,
        Self::DirectoryGone,
        Self::PoliciesUnknown,
        Self::PolicyStale,
        Self::NotWatching,
        Self::AgentNotReady,
        Self::DirectoryUnreadable,
        Self::ClockSuspect,
        Self::PolicyInvalid,
        Self::StoragePolicyUnjudged,
        Self::FileSystemUnknown,
        Self::WatermarkIneffective,
        Self::WatermarkUnreachable,
        Self::DeletionsFailing,
        Self::CatalogFailing,
    ];

    /// That of a condition; none where it is not one of these, as another version may write it.
    pub fn of(condition: &Condition) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == condition.reason)
    }

    /// Its name in a condition.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Collecting => "Collecting",
            Self::Starting => "Starting",
            Self::DirectoryGone => "DirectoryGone",
            Self::PoliciesUnknown => "PoliciesUnknown",
            Self::PolicyStale => "PolicyStale",
            Self::NotWatching => "NotWatching",
            Self::AgentNotReady => "AgentNotReady",
            Self::DirectoryUnreadable => "DirectoryUnreadable",
            Self::ClockSuspect => "ClockSuspect",
            Self::PolicyInvalid => "PolicyInvalid",
            Self::StoragePolicyUnjudged => "StoragePolicyUnjudged",
            Self::FileSystemUnknown => "FileSystemUnknown",
            Self::WatermarkIneffective => "WatermarkIneffective",
            Self::WatermarkUnreachable => "WatermarkUnreachable",
            Self::DeletionsFailing => "DeletionsFailing",
            Self::CatalogFailing => "CatalogFailing",
        }
    }

    /// Whether it is a fault of this node, which an event tells of. Of a policy the controller tells, and while the API is
    /// away many nodes would tell of the same.
    pub const fn is_fault_of_node(self) -> bool {
        match self {
            Self::DirectoryGone
            | Self::DirectoryUnreadable
            | Self::ClockSuspect
            | Self::StoragePolicyUnjudged
            | Self::FileSystemUnknown
            | Self::WatermarkIneffective
            | Self::WatermarkUnreachable
            | Self::DeletionsFailing
            | Self::CatalogFailing => true,
            Self::Collecting
            | Self::Starting
            | Self::PoliciesUnknown
            | Self::PolicyStale
            | Self::NotWatching
            | Self::AgentNotReady
            | Self::PolicyInvalid => false,
        }
    }

    /// Whether the agent then goes by the policies that the status names, as they are now for all that is known.
    pub const fn acts_by_policies(self) -> bool {
        match self {
            Self::Starting
            | Self::DirectoryGone
            | Self::PoliciesUnknown
            | Self::PolicyStale
            | Self::NotWatching
            | Self::AgentNotReady => false,
            Self::Collecting
            | Self::DirectoryUnreadable
            | Self::ClockSuspect
            | Self::PolicyInvalid
            | Self::StoragePolicyUnjudged
            | Self::FileSystemUnknown
            | Self::WatermarkIneffective
            | Self::WatermarkUnreachable
            | Self::DeletionsFailing
            | Self::CatalogFailing => true,
        }
    }
}

impl NodeCheckpointStoreStatus {
    /// The condition `Ready`.
    pub fn ready(&self) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == "Ready")
    }

    /// Whether the agent goes by the policies that the status names, as they are now for all that is known.
    pub fn acts_by_policies(&self) -> bool {
        self.ready().and_then(ReadyReason::of).is_some_and(ReadyReason::acts_by_policies)
    }
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileSystemStatus {
    /// capacity is the size of the file system, rounded up to three digits.
    pub capacity: QuantityText,
    /// available is what ordinary processes may still use of it, to the percent of its size.
    pub available: QuantityText,
    /// usedPercent is how much of it is used, in percent of its size.
    pub used_percent: i32,
}

/// What one namespace has on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceUsage {
    /// name is the namespace.
    #[schemars(length(max = 63))]
    pub name: String,
    /// archives is the number of its archives on this node.
    pub archives: i64,
    /// size is the size of its archives on this node together, rounded up to three digits.
    pub size: QuantityText,
}

/// One archive, for the cluster's administrators.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArchiveStatus {
    /// file is the name of the archive's file.
    #[schemars(length(max = 255))]
    pub file: String,
    /// namespace is the name of the namespace that it is from. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// pod is the name of the pod that it is a checkpoint of. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod: Option<String>,
    /// container is the name of the container. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub container: Option<String>,
    /// size is the size of the archive, rounded up to three digits.
    pub size: QuantityText,
    /// checkpointedAt is when the checkpoint was taken. Absent: nothing that says so is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpointed_at: Option<Time>,
}

/// What one namespace with a quota has on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaUsage {
    /// namespace is the namespace.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// archives is the number of its archives on this node.
    pub archives: i64,
    /// bytes is the size of its archives on this node together, in bytes.
    pub bytes: i64,
}

/// What one schedule does on a node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleUsage {
    /// apiVersion is the API group and version of the schedule.
    #[schemars(length(max = 63))]
    pub api_version: String,
    /// namespace is the namespace of the schedule.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// name is the name of the schedule.
    #[schemars(length(max = 253))]
    pub name: String,
    /// generation is the metadata.generation of the schedule by which the agent acts.
    pub generation: i64,
    /// containers is the number of containers on this node that it selects.
    pub containers: i64,
    /// active is the number of checkpoints for it that are under way on this node.
    #[serde(default)]
    pub active: i64,
    /// lastScheduleTime is the last time at which its interval or schedule asked on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// lastIntervalTime is when its interval last asked on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_interval_time: Option<Time>,
    /// lastSuccessTime is when a checkpoint for it last succeeded on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_time: Option<Time>,
    /// nextScheduleTime is when its interval or schedule asks next on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// intervalCheckpoints is the number of checkpoints on this node that its interval asked for.
    #[serde(default)]
    pub interval_checkpoints: i64,
    /// failures is the number of requests that have failed on this node since the last success.
    #[serde(default)]
    pub failures: i64,
    /// reason is why the last checkpoint failed, in one word. Absent: it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub reason: Option<String>,
    /// message is the same in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
}

/// What one policy does on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyUsage {
    /// policyRef is the policy.
    pub policy_ref: PolicyReference,
    /// generation is the metadata.generation of the policy by which the agent acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// mode is whether the policy deletes or only reports.
    pub mode: Mode,
    /// archives is the number of archives on this node that the policy governs.
    #[serde(default)]
    pub archives: i64,
    /// size is the size of these archives together, rounded up to three digits.
    #[serde(default)]
    pub size: QuantityText,
    /// deletionPending is the number of archives on this node that are to be deleted by the policy and wait.
    #[serde(default)]
    pub deletion_pending: i64,
    /// dryRun is what a policy of mode DryRun would change on this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<DryRunUsage>,
}

/// A limit that cannot be kept on a node, as too much of what it counts is pinned.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnreachableLimit {
    /// policyRef is the policy that has the limit.
    pub policy_ref: PolicyReference,
    /// limit is the limit, by the reason for which it deletes.
    #[schemars(length(max = 63))]
    pub limit: String,
    /// groups is the number of containers, pods, workloads or namespaces that exceed it; have, pinned and files
    /// are about one of them.
    #[serde(default)]
    pub groups: i64,
    /// have is what there is: a number of archives, or their size.
    pub have: QuantityText,
    /// max is what there may be: a number of archives, or their size.
    pub max: QuantityText,
    /// pinned is the number of pinned archives among those that are counted.
    pub pinned: i64,
    /// files are the names of some of the pinned archives.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), inner(length(max = 255)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub files: Vec<String>,
}

/// What came of a file that was to be discarded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiscardRecord {
    /// file is the file's name.
    #[schemars(length(max = 255))]
    pub file: String,
    /// result is what came of it.
    pub result: DiscardOutcome,
    /// time is since when that is so.
    pub time: Time,
}

/// What comes of a file that is to be discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DiscardOutcome {
    /// The file is still here, as it is pinned, being written or waits for its turn.
    Waiting,
    /// The file was deleted.
    Deleted,
    /// There is no such file.
    NotFound,
    /// Another file has the name by now, and stays.
    Changed,
    /// It is known whose checkpoint it is, and so it stays.
    IdentityKnown,
}

/// One deletion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeletionRecord {
    /// time is when the archive was deleted.
    pub time: Time,
    /// file is the name of the archive's file.
    #[schemars(length(max = 255))]
    pub file: String,
    /// namespace is the namespace of the pod that it was a checkpoint of, where that was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// pod is the name of that pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub pod: Option<String>,
    /// container is the name of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub container: Option<String>,
    /// size is the size of the archive, rounded up to three digits.
    pub size: QuantityText,
    /// reason is why it was deleted.
    #[schemars(length(max = 63))]
    pub reason: String,
    /// message says the figures behind the reason, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub message: String,
    /// policyRef is the policy that wanted it deleted. Absent: spec.discard of this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_ref: Option<PolicyReference>,
}

/// Something that is wrong on a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProblemStatus {
    /// type is what kind of problem it is.
    #[serde(rename = "type")]
    #[schemars(length(max = 63))]
    pub type_: String,
    /// subject is what the problem is about: a file, a policy, a kind of object. Empty: the node.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub subject: String,
    /// message says what is wrong, for people.
    #[schemars(length(max = 256))]
    pub message: String,
    /// since is when the problem was first reported.
    pub since: Time,
}

//! `NodeCheckpointStore`: what one node's checkpoint directory holds, as its agent sees it.
//!
//! Everything in the status is bounded, so that an object stays below 32 KiB whatever lies on the node;
//! the bounds are constants here, and whoever fills the status keeps to them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::parts::Mode;
use crate::scalars::FileNameText;

/// The most namespaces that the status names; the largest are.
pub const MOST_NAMESPACES: usize = 40;
/// The most policies whose archives the status counts.
pub const MOST_POLICIES: usize = 32;
/// The most deletions that the status remembers; the latest are.
pub const MOST_DELETIONS: usize = 16;

/// The most discarded files in a status: as many as a spec may name.
pub const MOST_DISCARDED: usize = 100;
/// The most limits that the status names which pins make unreachable.
pub const MOST_UNREACHABLE: usize = 4;
/// The most pinned archives that are named with such a limit.
pub const MOST_PINNED: usize = 3;
/// The most problems that the status names.
pub const MOST_PROBLEMS: usize = 10;
/// The longest message of a problem, in bytes.
pub const LONGEST_MESSAGE: usize = 256;

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
    printcolumn(name = "Disk used", type_ = "string", json_path = ".status.filesystem.used"),
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
    /// The metadata.generation that was carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The directory on the node.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub directory: String,
    /// How many archives there are.
    #[serde(default)]
    pub archives: i64,
    /// How many bytes they have together.
    #[serde(default)]
    pub bytes: i64,
    /// The same for people.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub size: String,
    /// How many of them are pinned.
    #[serde(default)]
    pub pinned: i64,
    /// How many of them were cut off.
    #[serde(default)]
    pub incomplete: i64,
    /// How many of them are of a container that is not known.
    #[serde(default)]
    pub unknown: i64,
    /// How many are to go and wait, as policies may only delete so many a minute.
    #[serde(default)]
    pub deletion_pending: i64,
    /// The file system that they lie on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<FileSystemStatus>,
    /// Who has them: the namespaces with the most bytes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 40))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub namespaces: Vec<NamespaceUsage>,
    /// How many more namespaces have archives here.
    #[serde(default)]
    pub more_namespaces: i64,
    /// What each policy governs here, and a dry run would change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub policies: Vec<PolicyUsage>,
    /// How many more policies govern archives here.
    #[serde(default)]
    pub more_policies: i64,
    /// Limits that are exceeded and stay so, as too much of what they count is pinned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub unreachable_limits: Vec<UnreachableLimit>,
    /// How many more limits pins make unreachable.
    #[serde(default)]
    pub more_unreachable_limits: i64,
    /// The latest deletions, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub deletions: Vec<DeletionRecord>,
    /// What came of each file that spec.discard names. A name is for the file that had it when the agent first
    /// saw it there; to ask for another one, take the name out, and put it in again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["file"]))]
    pub discarded: Vec<DiscardRecord>,
    /// What is wrong on the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(max = 256)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub problems: Vec<String>,
    /// Whether archives are collected on the node, and if not, why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// A file system.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileSystemStatus {
    /// Its size in bytes.
    pub capacity_bytes: i64,
    /// Bytes that ordinary processes may still use, to the nearest percent of the size.
    pub available_bytes: i64,
    /// How much of it is used, for people: 88%.
    #[schemars(length(max = 8))]
    pub used: String,
}

/// What one namespace has on the node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceUsage {
    /// The namespace.
    #[schemars(length(max = 63))]
    pub name: String,
    /// How many archives.
    pub archives: i64,
    /// How many bytes together.
    pub bytes: i64,
}

/// What one policy governs on the node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyUsage {
    /// The policy's kind.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// The policy's namespace, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// The policy's name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Whether it acts.
    pub mode: Mode,
    /// How many archives it governs; for a dry run, would govern.
    pub archives: i64,
    /// How many bytes these have together.
    pub bytes: i64,
    /// How many of them are to go and wait; for a dry run, how many more archives would go.
    #[serde(default)]
    pub pending: i64,
    /// For a dry run: how many archives would stay that now go.
    #[serde(default)]
    pub spared: i64,
}

/// A limit that cannot be kept on the node, as too much of what it counts is pinned.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnreachableLimit {
    /// The kind of the policy that has the limit.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// The policy's namespace, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// The policy's name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// The limit, by the reason for which it deletes.
    #[schemars(length(max = 63))]
    pub limit: String,
    /// How many containers, pods, workloads or namespaces exceed it; what follows is about one of them.
    #[serde(default)]
    pub groups: i64,
    /// What there is, and what may be.
    #[schemars(length(max = 128))]
    pub detail: String,
    /// How many archives that it counts are pinned.
    pub pinned: i64,
    /// The files of some of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), inner(length(max = 255)))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub files: Vec<String>,
}

/// What came of a file that was wanted gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiscardRecord {
    /// The file.
    #[schemars(length(max = 255))]
    pub file: String,
    /// Waiting: it is still here, as it is pinned, being written or waits for its turn. Deleted: it was deleted
    /// for this. NotFound: it is not there. Changed: it is another file by now, which stays. IdentityKnown: it is
    /// known whose it is, and so it stays.
    #[schemars(length(max = 63))]
    pub result: String,
}

/// One deletion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeletionRecord {
    /// When.
    pub time: Time,
    /// The archive's file.
    #[schemars(length(max = 255))]
    pub file: String,
    /// Whose checkpoint it was: namespace/pod/container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub container: Option<String>,
    /// Its bytes.
    pub bytes: i64,
    /// Why.
    #[schemars(length(max = 63))]
    pub reason: String,
    /// The figures behind the reason.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 128))]
    pub detail: String,
    /// The policy that gave the reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 400))]
    pub policy: Option<String>,
}

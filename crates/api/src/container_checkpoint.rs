//! `ContainerCheckpoint`: one archive of a container of the namespace, as the agent of its node sees it.
//!
//! Its status says what the archive is and never what becomes of it: a policy's edit must not rewrite the objects of a
//! whole cluster. The one exception is `expiresAt`, by which a user plans.

use checkpoint_keeper_core::archive::State;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules::{self, validations};
use crate::scalars::{QuantityText, ReasonText, UserName, end_time};

/// The label of a `ContainerCheckpoint` that names its node: by [`node_label`].
pub const NODE_LABEL: &str = "checkpoint-keeper.io/node";

/// The longest value of a label.
const LONGEST_LABEL: usize = 63;

/// How [`NODE_LABEL`] names a node: by its name, or, where that is too long for a label, by its beginning and a hash
/// of all of it.
pub fn node_label(node: &str) -> String {
    if node.len() <= LONGEST_LABEL {
        return node.to_owned();
    }
    let hash = format!("{:08x}", fnv(&[node.as_bytes()]));
    let begin: String = node.chars().take(LONGEST_LABEL - 1 - hash.len()).collect();
    format!("{}-{hash}", begin.trim_end_matches(['-', '.']))
}

/// A 32-bit FNV-1a hash of these texts and where each ends. It tells names apart and protects nothing.
pub fn fnv(parts: &[&[u8]]) -> u32 {
    let bytes = parts.iter().flat_map(|part| part.iter().copied().chain([0xff]));
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// What a user asks for an archive.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "checkpoint-keeper.io",
    version = "v1alpha1",
    kind = "ContainerCheckpoint",
    plural = "containercheckpoints",
    namespaced,
    shortname = "cckpt",
    status = "ContainerCheckpointStatus",
    derive = "PartialEq",
    doc = "One checkpoint archive of a container of this namespace, on one node's disk. It is there while the archive is: the node's agent makes it and takes it away, and deleting it deletes no archive.",
    selectable = ".status.nodeName",
    selectable = ".status.podName",
    selectable = ".status.containerName",
    selectable = ".status.state",
    printcolumn(name = "Pod", type_ = "string", json_path = ".status.podName"),
    printcolumn(name = "Container", type_ = "string", json_path = ".status.containerName"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.nodeName"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(
        name = "Held",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Held")].status"#
    ),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.expiresAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".status.checkpointedAt"),
    printcolumn(name = "Owner", type_ = "string", json_path = ".status.owner.name", priority = 1),
    printcolumn(name = "Runtime", type_ = "string", json_path = ".status.runtime", priority = 1),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.image", priority = 1),
    printcolumn(name = "File", type_ = "string", json_path = ".status.file", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[&rules::HOLD_OR_DISCARD, &rules::DISCARD_IS_FINAL])))]
pub struct ContainerCheckpointSpec {
    /// hold keeps the archive from every rule and from discard, until hold is taken out again or its until is over. It
    /// is written to the node's disk, so that it outlives this object. Who may set it needs the verb hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<HoldSpec>,
    /// discard has the archive deleted, unless it is pinned or being written; it cannot be changed or taken back. It is
    /// for the very file that this object is about. Who may set it needs the verb discard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub discard: Option<DiscardSpec>,
}

/// That an archive is to be kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[&rules::UNTIL_IN_TIME])))]
pub struct HoldSpec {
    /// reason is why the archive is kept, for people.
    pub reason: ReasonText,
    /// until is when the hold ends by itself, before the year 9999. Absent: it does not.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "end_time")]
    pub until: Option<Time>,
    /// by is the user who asked for it. The API server rejects any name but that of the user who writes it. Absent: not
    /// said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserName>,
}

/// That an archive is to be deleted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiscardSpec {
    /// reason is why the archive is deleted, for people.
    pub reason: ReasonText,
    /// by is the user who asked for it. The API server rejects any name but that of the user who writes it. Absent: not
    /// said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<UserName>,
}

/// What an archive is, as the agent of its node sees it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerCheckpointStatus {
    /// nodeName is the node that the archive lies on.
    #[schemars(length(max = 253))]
    pub node_name: String,
    /// file is the name of the archive's file in the node's checkpoint directory.
    #[schemars(length(max = 255))]
    pub file: String,
    /// podName is the name of the pod that it is a checkpoint of.
    #[schemars(length(max = 253))]
    pub pod_name: String,
    /// podUID is the UID of that pod. Absent: the archive does not say.
    #[serde(default, rename = "podUID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub pod_uid: Option<String>,
    /// containerName is the name of the container.
    #[schemars(length(max = 63))]
    pub container_name: String,
    /// owner is the topmost owner of the pod, such as its Deployment. Absent: it has none, or that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<OwnerReference>,
    /// checkpointedAt is when the checkpoint was taken. Absent: nothing that says so is believed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpointed_at: Option<Time>,
    /// size is the size of the archive's file, rounded up to three digits.
    pub size: QuantityText,
    /// image is the image of the container, as its runtime names it. Absent: the archive does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub image: Option<String>,
    /// runtime is the OCI runtime that wrote the checkpoint, such as runc. Absent: the archive does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub runtime: Option<String>,
    /// state says whether the archive is complete, and if not, what is wrong with it.
    pub state: CheckpointState,
    /// createdBy is the request that the checkpoint was made for. Absent: it was not made by a schedule, or that is not
    /// known any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<CreatedBy>,
    /// expiresAt is when a rule by age will delete the archive if nothing changes until then. Absent: none will; limits
    /// and a full disk may delete it all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// observedGeneration is the metadata.generation of the spec that the conditions are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// conditions: Held says whether the archive is kept from every rule, by spec.hold or by a marker that someone put
    /// beside it on the node. Discarded is there once spec.discard is, and says why the archive is still there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// The condition that says whether an archive is kept from every rule.
pub const HELD: &str = "Held";

/// The condition that says what came of `spec.discard`.
pub const DISCARDED: &str = "Discarded";

impl ContainerCheckpointStatus {
    /// The condition of that type.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }
}

/// A pod's topmost owner.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnerReference {
    /// apiGroup is the API group of the owner; empty for the core group.
    #[schemars(length(max = 253))]
    pub api_group: String,
    /// kind is the kind of the owner.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// name is the name of the owner.
    #[schemars(length(max = 253))]
    pub name: String,
}

/// The request that a checkpoint was made for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreatedBy {
    /// apiVersion is the API group and version of the schedule.
    #[schemars(length(max = 63))]
    pub api_version: String,
    /// schedule is the name of the schedule, in the namespace of this object.
    #[schemars(length(max = 253))]
    pub schedule: String,
    /// trigger is what asked: Interval, Schedule, Annotation, …
    #[schemars(length(max = 63))]
    pub trigger: String,
    /// requestedAt is when the checkpoint was due.
    pub requested_at: Time,
}

/// Whether an archive is complete, and if not, what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum CheckpointState {
    /// A whole archive with all that a restore needs.
    Complete,
    /// A whole archive without CRIU's images: nothing can be restored from it.
    NoImages,
    /// Cut off, as by a full disk.
    Incomplete,
    /// It begins as an archive and contradicts itself.
    Damaged,
    /// The system refused to have it read.
    Unreadable,
    /// It is no archive at all.
    Foreign,
    /// It was not judged yet.
    #[default]
    Unread,
}

impl CheckpointState {
    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "Complete",
            Self::NoImages => "NoImages",
            Self::Incomplete => "Incomplete",
            Self::Damaged => "Damaged",
            Self::Unreadable => "Unreadable",
            Self::Foreign => "Foreign",
            Self::Unread => "Unread",
        }
    }
}

impl From<State> for CheckpointState {
    fn from(state: State) -> Self {
        match state {
            State::Complete => Self::Complete,
            State::NoImages => Self::NoImages,
            State::Incomplete => Self::Incomplete,
            State::Damaged => Self::Damaged,
            State::Unreadable => Self::Unreadable,
            State::Foreign => Self::Foreign,
            State::Unread => Self::Unread,
        }
    }
}

/// Whether an archive is held, and why: the reason of the condition `Held`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldReason {
    /// The hold that the spec asks for is in force.
    Held,
    /// A hold is in force that the object lacks; it gets it back.
    Restoring,
    /// A marker that was put there on the node pins it.
    PinnedOnNode,
    /// Nothing keeps it but policies.
    NotHeld,
    /// The hold that the spec asks for is over.
    HoldExpired,
    /// Its namespace holds as much as it may.
    MaxHeldExceeded,
    /// The archive was deleted before it could be held.
    ArchiveGone,
    /// The marker could not be written yet.
    HoldFailed,
}

impl HeldReason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Held,
        Self::Restoring,
        Self::PinnedOnNode,
        Self::NotHeld,
        Self::HoldExpired,
        Self::MaxHeldExceeded,
        Self::ArchiveGone,
        Self::HoldFailed,
    ];

    /// Its name in a condition.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Held => "Held",
            Self::Restoring => "Restoring",
            Self::PinnedOnNode => "PinnedOnNode",
            Self::NotHeld => "NotHeld",
            Self::HoldExpired => "HoldExpired",
            Self::MaxHeldExceeded => "MaxHeldExceeded",
            Self::ArchiveGone => "ArchiveGone",
            Self::HoldFailed => "HoldFailed",
        }
    }

    /// The condition's status.
    pub const fn status(self) -> &'static str {
        match self {
            Self::Held | Self::Restoring | Self::PinnedOnNode => "True",
            Self::NotHeld
            | Self::HoldExpired
            | Self::MaxHeldExceeded
            | Self::ArchiveGone
            | Self::HoldFailed => "False",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_every_node_and_no_two_alike() {
        assert_eq!(node_label("node-1.example"), "node-1.example");
        let long = |end: &str| format!("{}{end}", "n.".repeat(60));
        let (one, other) = (node_label(&long("one")), node_label(&long("other")));
        assert!(one.len() <= LONGEST_LABEL && rules::is_label_value(&one), "{one}");
        assert_ne!(one, other);
    }
}

//! What is remembered about a pod whose archives are here, across restarts.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::identity::Identity;
use crate::plan::Workload;
use crate::policy::{FormerLabels, Labels};

/// A pod as its archives name it. Two pods of one name that follow each other differ in their UID.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its UID; none where the runtime did not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

impl PodKey {
    /// The pod of an identity.
    pub fn of(identity: &Identity) -> Self {
        Self {
            namespace: identity.namespace.clone(),
            pod: identity.pod.clone(),
            uid: identity.pod_uid.clone(),
        }
    }
}

/// What cannot be learned again once the pod is gone, and since when what is gone. Losing it costs
/// restarted grace periods, never a wrong deletion: no absence counts before it is confirmed anew.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodRecord {
    /// Its labels as they were last seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<Arc<Labels>>,
    /// The labels by which overriding policies selected it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub former_labels: Option<Arc<FormerLabels>>,
    /// The labels of its namespace as they were last seen while that namespace was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_labels: Option<SeenLabels>,
    /// Who owns it.
    pub owner: Owner,
    /// Since when no pod has this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_gone: Option<Timestamp>,
    /// Since when its topmost owner is gone; for a bare pod, itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_gone: Option<Timestamp>,
    /// Since when no namespace has this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace_gone: Option<Timestamp>,
    /// The namespace that last had this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<SeenNamespace>,
    /// When the namespace was created in which this very pod, by its UID, was seen alive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen_in: Option<Timestamp>,
    /// Since when no pod of its lineage runs on this node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<Timestamp>,
}

/// A namespace that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenNamespace {
    /// When it was created.
    pub created: Timestamp,
}

/// The labels of a namespace that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenLabels {
    /// When the namespace was created.
    pub created: Timestamp,
    /// The labels.
    pub labels: Arc<Labels>,
}

impl PodRecord {
    /// Forgets since when anything is gone: that was said by another cluster.
    pub(super) fn forget_absences(&mut self) {
        (self.pod_gone, self.workload_gone, self.namespace_gone, self.idle_since) = (None, None, None, None);
    }
}

/// Who owns a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// Unknown: the pod was never seen alive, or an owner was gone before it could be looked up.
    #[default]
    Unknown,
    /// None: a bare pod, or a static pod, whose only owner is its node.
    Bare,
    /// A controller.
    Controlled {
        /// The one that the pod itself names.
        controller: OwnerRef,
        /// The topmost one; none while some above are yet to be asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topmost: Option<OwnerRef>,
    },
}

impl Owner {
    /// The topmost owner, where there is one and it is known.
    pub fn topmost(&self) -> Option<&OwnerRef> {
        match self {
            Self::Controlled { topmost, .. } => topmost.as_ref(),
            Self::Unknown | Self::Bare => None,
        }
    }
}

/// An owner as those below it refer to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OwnerRef {
    /// `apps/v1`
    pub api_version: String,
    /// `Deployment`
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID, where it is known. It decides nothing: a Deployment that is deleted and created
    /// anew by the same name is the same workload, and its checkpoints are one lineage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// What makes an owner the same owner: group, kind and name.
pub(super) type OwnerId = (String, String, String);

impl OwnerRef {
    /// The API group: `apps`; empty for the core group.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    pub(super) fn id(&self) -> OwnerId {
        (self.group().to_owned(), self.kind.clone(), self.name.clone())
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.name == other.name && self.kind == other.kind && self.group() == other.group()
    }

    /// Whether climbing ends here. One object may own several workloads, whose containers may well
    /// have the same names: their checkpoints cannot stand in for each other.
    pub(super) fn is_workload(&self) -> bool {
        matches!(
            (self.group(), self.kind.as_str()),
            ("apps", "Deployment" | "StatefulSet" | "DaemonSet") | ("batch", "CronJob")
        )
    }

    /// Whether every cluster has this kind.
    pub fn is_built_in(&self) -> bool {
        matches!(self.group(), "" | "apps" | "batch")
    }

    /// Whether its pods come back by their names, each with its own state.
    pub(super) fn is_stateful(&self) -> bool {
        self.kind == "StatefulSet"
    }

    /// Whether it is the node that owns the mirror of a static pod.
    pub(super) fn is_node(&self) -> bool {
        self.kind == "Node" && self.group().is_empty()
    }

    pub(super) fn workload(&self) -> Workload {
        Workload { group: self.group().to_owned(), kind: self.kind.clone(), name: self.name.clone() }
    }
}

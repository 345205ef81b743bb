//! Lookups: requests for one object each, and their results.

use std::fmt;

use jiff::Timestamp;

use super::record::OwnerRef;
use crate::policy::Labels;

/// A request to the API server, not answered from a cache. The order is the one in which they are best sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lookup {
    /// The UID of the cluster: what another cluster reported as gone does not count in this one.
    Cluster,
    /// A namespace. Its age tells whether a pod in it may be the one that an archive is from.
    Namespace(String),
    /// All pods that run on this node: one answer for many of those that follow.
    NodePods,
    /// A pod.
    Pod {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A pod's owner, or an owner's.
    Owner {
        /// The namespace of what it owns.
        namespace: String,
        /// The owner. Its UID is left out: it is asked for by its name.
        owner: OwnerRef,
    },
}

impl fmt::Display for Lookup {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => formatter.write_str("which cluster it is"),
            Self::NodePods => formatter.write_str("the pods of this node"),
            Self::Namespace(name) => write!(formatter, "namespace {name}"),
            Self::Pod { namespace, name } => write!(formatter, "pod {namespace}/{name}"),
            Self::Owner { namespace, owner } => {
                write!(formatter, "{} {namespace}/{}", owner.kind, owner.name)
            }
        }
    }
}

/// The result of a lookup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupResult {
    /// The API server answered "not found" for this very object. No other answer counts as this.
    NotFound,
    /// The cluster is the one with this UID: the one of its namespace `kube-system`, as is usual.
    Cluster(String),
    /// The namespace is there.
    Namespace {
        /// Its labels.
        labels: Labels,
        /// When it was created.
        created: Timestamp,
    },
    /// A pod of that name is there.
    Pod(LivePod),
    /// All pods that run on this node.
    NodePods(Vec<LivePod>),
    /// An owner of that name is there.
    Owner {
        /// Its UID.
        uid: Option<String>,
        /// What controls it in turn.
        controller: Option<OwnerRef>,
    },
    /// The API does not let us read it.
    Forbidden(String),
    /// No answer, or none that can be trusted.
    Failed(String),
    /// It was not sent, as the lookups before it had no answer.
    NotAsked,
}

impl LookupResult {
    /// The reason for a missing answer; none where there is an answer, or where the lookup was not sent.
    pub fn failure(&self) -> Option<&str> {
        match self {
            Self::Forbidden(why) | Self::Failed(why) => Some(why),
            _ => None,
        }
    }
}

/// A pod as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LivePod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID. None for the mirror of a static pod: the kubelet and its archives know such a pod
    /// by another.
    pub uid: Option<String>,
    /// Its labels; none where they are more than are read.
    pub labels: Option<Labels>,
    /// What controls it.
    pub controller: Option<OwnerRef>,
}

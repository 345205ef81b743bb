//! What the controller keeps of the status of one node's `NodeCheckpointStore`.

use checkpoint_keeper_api::node_store::{PolicyUsage, ScheduleUsage, UnreachableLimit};
use checkpoint_keeper_core::quota::Held;
use jiff::Timestamp;

/// What one node's agent reports, as far as it concerns policies.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NodeReport {
    /// The node, by whose name its store goes.
    pub node: String,
    /// The UID of the store.
    pub uid: String,
    /// Which version of the store this is from.
    pub resource_version: String,
    /// The status of its condition `Ready`; empty where there is none.
    pub ready: String,
    /// Whether the agent is there and goes by the policies that it names.
    pub acts_by_policies: bool,
    /// What each policy does there.
    pub policies: Vec<PolicyUsage>,
    /// How many more policies there are.
    pub more_policies: i64,
    /// Limits that pins make unreachable there.
    pub unreachable: Vec<UnreachableLimit>,
    /// What each schedule does there.
    pub schedules: Vec<ScheduleUsage>,
    /// How many more schedules there are.
    pub more_schedules: i64,
    /// What namespaces have there.
    pub held: Vec<NamespaceHeld>,
    /// Which namespaces are named there.
    pub named: Named,
    /// Since when what namespaces have is old, as no agent sees the directory; none: it is not.
    pub stale_since: Option<Timestamp>,
}

/// What a namespace has on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceHeld {
    /// The namespace.
    pub namespace: Box<str>,
    /// What it has.
    pub held: Held,
}

/// Which namespaces a node's report names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Named {
    /// All that have archives there.
    All,
    /// Of the others only all that have a quota that is not newer than this.
    WithQuotas(Timestamp),
    /// Some.
    #[default]
    Some,
}

impl Named {
    /// Whether a namespace with a quota that is that old has no archives there if it is not named.
    pub(super) fn is_complete(self, created: Timestamp) -> bool {
        match self {
            Self::All => true,
            Self::WithQuotas(latest) => created <= latest,
            Self::Some => false,
        }
    }
}

//! What the controller keeps of the status of one node's `NodeCheckpointStore`.

use checkpoint_keeper_api::node_store::{
    NodeCheckpointStoreStatus, PolicyUsage, ReadyReason, ScheduleUsage, UnreachableLimit,
};
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
    /// Of which namespaces it says what they have.
    pub coverage: Coverage,
    /// Since when what namespaces have is old, as no agent sees the directory; none: it is not.
    pub stale_since: Option<Timestamp>,
}

impl NodeReport {
    /// What the status of a node's store says.
    pub fn of(
        node: String,
        uid: String,
        resource_version: String,
        status: NodeCheckpointStoreStatus,
    ) -> Self {
        Self {
            node,
            uid,
            resource_version,
            ready: status.ready().map(|ready| ready.status.clone()).unwrap_or_default(),
            acts_by_policies: status.acts_by_policies(),
            held: held_by_namespaces(&status),
            coverage: Coverage::of(&status),
            stale_since: stale_since(&status),
            policies: status.policies,
            more_policies: status.more_policies,
            unreachable: status.unreachable_limits,
            schedules: status.schedules,
            more_schedules: status.more_schedules,
        }
    }
}

/// What a namespace has on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceHeld {
    /// The namespace.
    pub namespace: Box<str>,
    /// What it has.
    pub held: Held,
}

/// What namespaces have: exactly of those that the agent knows to have a quota, and rounded up of others.
fn held_by_namespaces(status: &NodeCheckpointStoreStatus) -> Vec<NamespaceHeld> {
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    let exact = status.quotas.iter().map(|usage| NamespaceHeld {
        namespace: usage.namespace.as_str().into(),
        held: Held { count: count(usage.archives), bytes: count(usage.bytes) },
    });
    let others = status
        .namespaces
        .iter()
        .filter(|usage| !status.quotas.iter().any(|exact| exact.namespace == usage.name));
    let rounded = others.map(|usage| NamespaceHeld {
        namespace: usage.name.as_str().into(),
        held: Held { count: count(usage.archives), bytes: usage.size.value() },
    });
    exact.chain(rounded).collect()
}

/// Of which namespaces with archives on its node a report says what they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Coverage {
    /// All.
    All,
    /// All that have a quota that is not newer than this, and some others.
    WithQuotas(Timestamp),
    /// Some.
    #[default]
    Some,
}

impl Coverage {
    fn of(status: &NodeCheckpointStoreStatus) -> Self {
        let Some(ready) = status.ready() else { return Self::Some };
        let has_not_looked =
            matches!(ReadyReason::of(ready), Some(ReadyReason::Starting | ReadyReason::PoliciesUnknown));
        // One that never looked, and has nothing to go by from before.
        if has_not_looked && status.archives == 0 {
            return Self::Some;
        }
        if status.more_namespaces <= 0 {
            return Self::All;
        }
        let latest = status.latest_quota_time.as_ref().filter(|_| status.more_quotas <= 0);
        latest.map_or(Self::Some, |latest| Self::WithQuotas(latest.0))
    }

    /// Whether a namespace with a quota made at that time has no archives there if the report does not name it.
    pub(super) fn includes_quota_of(self, created: Timestamp) -> bool {
        match self {
            Self::All => true,
            Self::WithQuotas(latest) => created <= latest,
            Self::Some => false,
        }
    }
}

/// Since when the figures of a report are old, as no agent sees the directory; none: they are not.
fn stale_since(status: &NodeCheckpointStoreStatus) -> Option<Timestamp> {
    let ready = status.ready()?;
    let is_stale = matches!(
        ReadyReason::of(ready),
        Some(
            ReadyReason::Starting
                | ReadyReason::PoliciesUnknown
                | ReadyReason::DirectoryGone
                | ReadyReason::DirectoryUnreadable
                | ReadyReason::AgentNotReady
        )
    );
    is_stale.then_some(ready.last_transition_time.0)
}

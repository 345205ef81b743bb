//! `CheckpointQuota`: what a namespace may hold over all nodes.
//!
//! How far it can be exceeded is said where users read it: in the fields `onExceed` and `used`.

use checkpoint_keeper_core::quantity::Share;
use checkpoint_keeper_core::quota::{self, Hard, Held, Quota};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{FieldError, Problems};
use crate::parts::natural;
use crate::rules::{self, validations};
use crate::scalars::{QuantityText, QuotaSizeText, ShareText};

/// The most nodes that a status names; those with the most bytes are.
pub const MOST_NODES: usize = 100;

/// From which share of a quota on it is nearly exceeded, where it does not say.
const DEFAULT_WARN_AT: u32 = 80;

/// The condition that says whether a quota is understood and what its namespace holds is known.
pub const READY: &str = "Ready";
/// The condition that says whether a namespace holds more than its quota.
pub const EXCEEDED: &str = "Exceeded";
/// The condition that says whether a namespace holds nearly as much as its quota, or more.
pub const NEARLY_EXCEEDED: &str = "NearlyExceeded";

/// What a namespace may hold over all nodes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "checkpoint-keeper.io",
    version = "v1alpha1",
    kind = "CheckpointQuota",
    plural = "checkpointquotas",
    namespaced,
    shortname = "ckquota",
    category = "checkpoint-keeper",
    status = "CheckpointQuotaStatus",
    derive = "PartialEq",
    doc = "How many checkpoint archives its namespace may hold, and how many bytes, over all nodes together. Administrators write it. Of several in one namespace each holds, so of each figure the smallest. It binds checkpoints that schedules and pods' annotations ask for; what is made through a kubelet by others is bounded by CheckpointStoragePolicy, and counts here.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.used.count"),
    printcolumn(name = "Hard", type_ = "integer", json_path = ".spec.hard.count"),
    printcolumn(name = "Used bytes", type_ = "string", json_path = ".status.used.bytes"),
    printcolumn(name = "Hard bytes", type_ = "string", json_path = ".spec.hard.bytes"),
    printcolumn(
        name = "Exceeded",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Exceeded")].status"#
    ),
    printcolumn(
        name = "NearlyExceeded",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="NearlyExceeded")].status"#,
        priority = 1
    ),
    printcolumn(name = "On exceed", type_ = "string", json_path = ".spec.onExceed", priority = 1),
    printcolumn(name = "Stale nodes", type_ = "integer", json_path = ".status.staleNodes", priority = 1),
    printcolumn(name = "Partial", type_ = "boolean", json_path = ".status.partial", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointQuotaSpec {
    /// hard is what the namespace may hold over all nodes together.
    pub hard: QuotaHardSpec,
    /// warnAt is the share of hard from which on the quota is nearly exceeded, which a condition and an event say.
    /// Default 80%; 0%: neither says so before hard is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "80%"))]
    pub warn_at: Option<ShareText>,
    /// onExceed Reject makes no checkpoint that would exceed hard: the schedule, and the annotation that asked for it, say
    /// QuotaExceeded. Warn makes it, and an event says so. Default Reject. Each node's agent counts what is on its own
    /// node exactly, with what it is about to make, and takes what is on the other nodes from status, which may be two
    /// minutes old, and with many nodes four. So by what it makes itself no node ever exceeds hard, and all nodes together
    /// do by at most what the others have made since, and are making.
    #[serde(default)]
    pub on_exceed: OnExceed,
}

/// What a namespace may hold; at least one of the two.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[&rules::QUOTA_THERE])))]
pub struct QuotaHardSpec {
    /// count is how many archives the namespace may hold over all nodes together. 0: no checkpoint is made. Absent: any
    /// number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub count: Option<i64>,
    /// bytes is how much they may have together: a size such as 100Gi (a number without a suffix is bytes). 0: no
    /// checkpoint is made. Absent: any size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<QuotaSizeText>,
}

/// What is done where one more checkpoint would exceed a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum OnExceed {
    /// It is not made.
    #[default]
    Reject,
    /// It is made, and an event says so.
    Warn,
}

impl From<OnExceed> for quota::OnExceed {
    fn from(on_exceed: OnExceed) -> Self {
        match on_exceed {
            OnExceed::Reject => Self::Reject,
            OnExceed::Warn => Self::Warn,
        }
    }
}

/// What a namespace holds over all nodes together, and how that compares to its quota.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointQuotaStatus {
    /// conditions: Ready says whether the quota is understood and all that its namespace holds is known, Exceeded whether
    /// that is more than hard, NearlyExceeded whether it has reached warnAt.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// observedGeneration is the metadata.generation that the conditions are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// used is what the namespace holds over all nodes together. Nodes report at most once a minute, and this is written
    /// at most twice a minute, so it may be two minutes old. The more than 250 nodes there are, the less often it is
    /// written, from 1000 on once in two minutes: then it may be four minutes old. That it comes to warnAt or hard is
    /// written at once. Archives on nodes that are down count as last reported.
    /// Absent: it was not counted yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<QuotaUsed>,
    /// usedPercent is the same in percent of hard, rounded down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_percent: Option<QuotaUsedPercent>,
    /// partial is true while used may be too small, as the report of some node leaves the namespace out. That node's agent
    /// counts what is there all the same.
    #[serde(default)]
    pub partial: bool,
    /// nodes are those with archives of the namespace, by name: those with the most bytes where there are more than 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    // Not by key: its only writer writes it as a whole, and managedFields would repeat each row to all who watch.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub nodes: Vec<QuotaNode>,
    /// moreNodes is the number of further nodes with archives of the namespace.
    #[serde(default)]
    pub more_nodes: i64,
    /// staleNodes is the number of nodes with archives of the namespace whose figures are old, as no agent is at work there
    /// or it does not see the directory.
    #[serde(default)]
    pub stale_nodes: i64,
    /// staleSince is since when the oldest of these figures are. Absent: none are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_since: Option<Time>,
}

/// What a namespace holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaUsed {
    /// count is the number of archives.
    pub count: i64,
    /// bytes is their size together: exact where the nodes report it exactly, and at most one percent too much where an
    /// agent does not know of the quota yet.
    pub bytes: QuantityText,
}

/// Shares of a quota.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaUsedPercent {
    /// count is the number of archives in percent of hard.count. Absent: that has no limit, or is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
    /// bytes is their size in percent of hard.bytes. Absent: that has no limit, or is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,
}

/// What a namespace holds on one node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct QuotaNode {
    /// name is the name of the node.
    #[schemars(length(max = 253))]
    pub name: String,
    /// count is the number of archives there.
    pub count: i64,
    /// bytes is their size together.
    pub bytes: QuantityText,
    /// staleSince is since when these figures are old, as no agent is at work there or it does not see the directory.
    /// Absent: they are not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_since: Option<Time>,
}

impl QuotaUsed {
    /// As it is counted.
    pub fn held(&self) -> Held {
        Held { count: u64::try_from(self.count).unwrap_or(0), bytes: self.bytes.value() }
    }
}

impl From<Held> for QuotaUsed {
    fn from(held: Held) -> Self {
        Self { count: whole(held.count), bytes: QuantityText::exact_bytes(held.bytes) }
    }
}

impl QuotaNode {
    /// As it is counted.
    pub fn held(&self) -> Held {
        Held { count: u64::try_from(self.count).unwrap_or(0), bytes: self.bytes.value() }
    }
}

impl CheckpointQuota {
    /// What it means; all that is wrong with it otherwise, of which there is at least one.
    pub fn to_quota(&self) -> Result<Quota, Vec<FieldError>> {
        let (spec, mut problems) = (&self.spec, Problems::default());
        let at = &mut problems;
        let warn_at = match &spec.warn_at {
            Some(share) => share.read("spec.warnAt", at),
            None => Share::percent(DEFAULT_WARN_AT),
        };
        let quota = Quota {
            namespace: self.metadata.namespace.clone().unwrap_or_default(),
            name: self.metadata.name.clone().unwrap_or_default(),
            hard: spec.hard.read(at),
            warn_at,
            on_exceed: spec.on_exceed.into(),
        };
        problems.unless(quota)
    }
}

impl QuotaHardSpec {
    fn read(&self, problems: &mut Problems) -> Hard {
        if self.count.is_none() && self.bytes.is_none() {
            problems.add(&"spec.hard", rules::QUOTA_THERE.message, None);
        }
        Hard {
            count: self.count.map(|count| natural(count, "spec.hard.count", problems)),
            bytes: self.bytes.as_ref().and_then(|bytes| bytes.read("spec.hard.bytes", problems)),
        }
    }
}

/// Why a quota is judged by all that its namespace holds or not: the reason of the condition [`READY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QuotaReadyReason {
    /// It is understood, and all that the namespace holds is known.
    Accepted,
    /// Some node's report leaves the namespace out.
    UsagePartial,
    /// A field is not understood. The quota binds nothing.
    InvalidQuota,
}

impl QuotaReadyReason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Accepted, Self::UsagePartial, Self::InvalidQuota];

    /// Its name in a condition.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::UsagePartial => "UsagePartial",
            Self::InvalidQuota => "InvalidQuota",
        }
    }

    /// The condition's status.
    pub const fn status(self) -> &'static str {
        match self {
            Self::Accepted => "True",
            Self::UsagePartial => "Unknown",
            Self::InvalidQuota => "False",
        }
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

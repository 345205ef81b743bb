//! `CheckpointStoragePolicy`: what checkpoints may use on a node, whatever other policies say.

use std::time::Duration;

use checkpoint_keeper_core::policy::{
    self, DeletionLimit, Kind, LabelSelector, PartialDeletionLimit, PolicyRef,
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{FieldError, Problems};
use crate::parts::{LabelSelectorSpec, LimitSpec, Mode, count, labels, natural};
use crate::rules::{self, validations};
use crate::scalars::{
    FreeSizeText, HeldSizeText, LengthOfTime, Period, ShareText, SizeOrShareText, WatermarkText,
};
use crate::status::PolicyStatus;

/// What checkpoints may use on a node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "checkpoint-keeper.io",
    version = "v1alpha1",
    kind = "CheckpointStoragePolicy",
    plural = "checkpointstoragepolicies",
    shortname = "ckstorage",
    category = "checkpoint-keeper",
    status = "PolicyStatus",
    derive = "PartialEq",
    selectable = ".spec.mode",
    doc = "What checkpoint archives may use on a node, and ceilings per namespace that bind whatever other policies say. Of several for one node the strictest value wins, field by field.",
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
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "High", type_ = "string", json_path = ".spec.highWatermark"),
    printcolumn(name = "Low", type_ = "string", json_path = ".spec.lowWatermark"),
    printcolumn(name = "Max total", type_ = "string", json_path = ".spec.maxTotalSize"),
    printcolumn(
        name = "Enforced",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Enforced")].message"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[&rules::LOW_NEEDS_HIGH, &rules::LOW_BELOW_HIGH, &rules::CRITICAL_NOT_BELOW_HIGH])))]
pub struct CheckpointStoragePolicySpec {
    /// mode Enforce deletes; DryRun only reports what the policy would delete. Default Enforce.
    #[serde(default)]
    pub mode: Mode,
    /// nodeSelector selects the nodes that it is for by their labels. Absent: every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelectorSpec>,
    /// highWatermark is the use of the node's file system above which archives go, as a share such as 88%,
    /// at least 50%. Best between the kubelet's image garbage collection (85%) and its eviction (90%).
    /// Default, and 0%: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high_watermark: Option<WatermarkText>,
    /// lowWatermark is the use of the node's file system at which that ends, as a share below
    /// highWatermark. Default, and 0%: highWatermark less 3 points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_watermark: Option<ShareText>,
    /// criticalWatermark is the use of the node's file system from which on highWatermark and minFree
    /// delete without the limit of so many a minute, as a share, at least 50% and not below
    /// highWatermark. They also do when less than half of minFree is free. 0%: they always keep to the limit,
    /// whatever other policies say.
    /// Absent on all policies of a node: 95%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical_watermark: Option<WatermarkText>,
    /// minFree is the free space of the node's file system below which archives go. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_free: Option<MinFreeSpec>,
    /// reserved is a share of the node's file system: while checkpoints use less, neither highWatermark nor
    /// minFree takes any, as other people's data fills the disk. 0%: they may take all. Absent on
    /// all policies of a node: 5%.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<ShareText>,
    /// maxTotalSize is how much all archives of a node may have together: a size such as 200Gi (a number
    /// without a suffix is bytes), or a share of the file system such as 20%. Default, and 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_size: Option<SizeOrShareText>,
    /// perNamespace is what any one namespace may have on a node, whatever other policies say. Absent: no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_namespace: Option<NamespaceCeilingSpec>,
    /// protectLatest is how many of the newest complete archives of each workload's container the rules of
    /// this kind spare, per node, whatever keepLatest a policy asks for. 0 spares none. Absent on all policies of a node:
    /// 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 10_000))]
    pub protect_latest: Option<i32>,
    /// deletionLimit is how fast policies may delete on a node, so that a mistyped policy does not empty it at once. Of
    /// several policies for a node the least burst, the least percent and the slowest rate count; what one leaves out it
    /// takes from the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_limit: Option<DeletionLimitSpec>,
}

/// Free space below which archives go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MinFreeSpec {
    /// bytes is how many must be free, a size such as 10Gi (a number without a suffix is bytes). Default, and 0: no
    /// limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<FreeSizeText>,
    /// inodes is how many must be free. Default, and 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 9_007_199_254_740_991_i64))]
    pub inodes: Option<i64>,
}

/// What any one namespace may have on a node; 0 or absent turns a ceiling off, but for maxHeld.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceCeilingSpec {
    /// maxCount is how many archives a namespace may have on a node. Default, and 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub max_count: Option<i64>,
    /// maxTotalSize is how much they may have together on a node: a size such as 50Gi, or a share of the
    /// file system such as 10%. Default, and 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_size: Option<SizeOrShareText>,
    /// maxAge is how long an archive may lie around, the newest included: a length of time such as 90d.
    /// Default, and 0: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<LengthOfTime>,
    /// maxHeld is how much of a namespace its users may hold on a node with spec.hold of ContainerCheckpoints: a hold
    /// beyond it is refused, and the condition Held says so. What is held already stays held. Absent: no limit; here 0
    /// is none: nothing may be held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_held: Option<HeldLimitSpec>,
}

/// What a namespace's users may hold on a node; 0 allows no hold, absent is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldLimitSpec {
    /// maxCount is how many archives the users of a namespace may hold on a node. 0: nothing may be held. Absent: any
    /// number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub max_count: Option<i64>,
    /// maxTotalSize is how much the archives that they hold may have together on a node: a size such as 50Gi (a number
    /// without a suffix is bytes), or a share of the file system such as 10%. 0: nothing may be held. Absent: any size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_size: Option<HeldSizeText>,
}

/// How fast policies may delete: a bucket of max(burst, percent of the archives) deletions that fills
/// within a period.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[&rules::DELETION_LIMIT_NOT_ZERO])))]
pub struct DeletionLimitSpec {
    /// burst is how many deletions may begin at once, at least. Absent on all policies of a node: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub burst: Option<i64>,
    /// percent is the same as a percentage of the archives on the node; the larger of the two counts, and at
    /// least one archive. Absent on all policies of a node: 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i32>,
    /// period is how long it takes until so many may go again: a length of time. Absent on all policies of a node: 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Period>,
}

impl CheckpointStoragePolicy {
    /// Which object this is, in verdicts and reports.
    pub fn policy_ref(&self) -> PolicyRef {
        PolicyRef {
            kind: Kind::CheckpointStoragePolicy,
            namespace: None,
            name: self.metadata.name.clone().unwrap_or_default(),
            part: None,
        }
    }

    /// What it means to the engine, exactly as it is written: what is absent is none, 0% is a share of
    /// nothing, and defaults are filled in where several policies have become one. All that is wrong with it
    /// otherwise.
    pub fn to_policy(&self) -> Result<policy::StoragePolicy, Vec<FieldError>> {
        let (spec, mut problems) = (&self.spec, Problems::default());
        let at = &mut problems;
        let mut watermark =
            |text: &Option<WatermarkText>, path: &str| text.as_ref().and_then(|text| text.read(path, at));
        let high_watermark = watermark(&spec.high_watermark, "spec.highWatermark");
        let critical_watermark = watermark(&spec.critical_watermark, "spec.criticalWatermark");
        let mut share = |text: &Option<ShareText>, path: &str| {
            text.as_ref().and_then(|text| text.read_with_zero(path, at))
        };
        let low_watermark = share(&spec.low_watermark, "spec.lowWatermark");
        let reserved = share(&spec.reserved, "spec.reserved");
        if spec.low_watermark.is_some() && spec.high_watermark.is_none() {
            at.add(&"spec.lowWatermark", rules::LOW_NEEDS_HIGH.message, None);
        }
        if let Some(high) = high_watermark.filter(|high| !high.is_zero()) {
            if low_watermark.is_some_and(|low| low >= high) {
                at.add(&"spec.lowWatermark", rules::LOW_BELOW_HIGH.message, None);
            }
            if critical_watermark.is_some_and(|critical| !critical.is_zero() && critical < high) {
                at.add(&"spec.criticalWatermark", rules::CRITICAL_NOT_BELOW_HIGH.message, None);
            }
        }
        let min_free = spec.min_free.clone().unwrap_or_default();
        let policy = policy::StoragePolicy {
            id: self.policy_ref(),
            node_selector: labels(spec.node_selector.as_ref(), "spec.nodeSelector", at),
            mode: spec.mode.into(),
            high_watermark,
            low_watermark,
            critical_watermark,
            protect_latest: spec.protect_latest.map(|count| natural(count, "spec.protectLatest", at)),
            min_free_bytes: min_free.bytes.as_ref().and_then(|size| size.read("spec.minFree.bytes", at)),
            min_free_inodes: count(min_free.inodes, "spec.minFree.inodes", at),
            reserved,
            max_total_size: spec.max_total_size.as_ref().and_then(|size| size.read("spec.maxTotalSize", at)),
            per_namespace: spec
                .per_namespace
                .as_ref()
                .map(|ceiling| ceiling.read("spec.perNamespace", at))
                .unwrap_or_default(),
            deletion_limit: spec.deletion_limit.as_ref().map(|limit| limit.read("spec.deletionLimit", at)),
        };
        problems.unless(policy)
    }

    /// What of one that is not understood binds all the same: without its deletion limit more would go.
    pub(crate) fn limit_alone(&self) -> policy::StoragePolicy {
        let mut problems = Problems::default();
        let nodes = labels(self.spec.node_selector.as_ref(), "spec.nodeSelector", &mut problems);
        // Where it is not known which nodes it is for, it is for all.
        let nodes = if problems.0.is_empty() { nodes } else { LabelSelector::default() };
        let deletion_limit = self.spec.deletion_limit.as_ref().map(DeletionLimitSpec::or_slowest);
        policy::StoragePolicy {
            // What it spares, others must not take for want of it.
            protect_latest: self.spec.protect_latest.and_then(|count| count.try_into().ok()),
            mode: self.spec.mode.into(),
            ..limit_alone(self.policy_ref(), nodes, deletion_limit)
        }
    }
}

/// The deletion limit of an object that cannot be read as a whole, and so for every node.
pub(crate) fn unparsable_limit(id: PolicyRef, limit: Option<&serde_json::Value>) -> policy::StoragePolicy {
    let read =
        |limit| DeletionLimitSpec::deserialize(limit).map_or(SLOWEST.into(), |limit| limit.or_slowest());
    limit_alone(id, LabelSelector::default(), limit.map(read))
}

fn limit_alone(
    id: PolicyRef,
    node_selector: LabelSelector,
    deletion_limit: Option<PartialDeletionLimit>,
) -> policy::StoragePolicy {
    policy::StoragePolicy { deletion_limit, ..policy::StoragePolicy::silent(id, node_selector) }
}

/// In place of a limit that is not understood: an archive that arrives still displaces another one.
const SLOWEST: DeletionLimit = DeletionLimit { burst: 1, percent: 0, period: Duration::from_mins(1) };

impl NamespaceCeilingSpec {
    fn read(&self, path: &str, problems: &mut Problems) -> policy::Ceiling {
        let limit = LimitSpec { max_count: self.max_count, max_total_size: self.max_total_size.clone() };
        policy::Ceiling {
            limit: LimitSpec::read(Some(&limit), path, problems),
            max_age: self.max_age.as_ref().and_then(|age| age.read(&format!("{path}.maxAge"), problems)),
            max_held: self
                .max_held
                .as_ref()
                .map(|limit| limit.read(&format!("{path}.maxHeld"), problems))
                .unwrap_or_default(),
        }
    }
}

impl HeldLimitSpec {
    fn read(&self, path: &str, problems: &mut Problems) -> policy::HeldLimit {
        policy::HeldLimit {
            max_count: self.max_count.map(|count| natural(count, &format!("{path}.maxCount"), problems)),
            max_total_size: self
                .max_total_size
                .as_ref()
                .and_then(|size| size.read(&format!("{path}.maxTotalSize"), problems)),
        }
    }
}

impl DeletionLimitSpec {
    fn or_slowest(&self) -> PartialDeletionLimit {
        let mut problems = Problems::default();
        let limit = self.read("spec.deletionLimit", &mut problems);
        problems.unless(limit).unwrap_or(SLOWEST.into())
    }

    fn read(&self, path: &str, problems: &mut Problems) -> PartialDeletionLimit {
        let limit = PartialDeletionLimit {
            burst: self.burst.map(|burst| natural(burst, &format!("{path}.burst"), problems)),
            percent: self.percent.map(|percent| natural(percent, &format!("{path}.percent"), problems)),
            period: self.period.as_ref().and_then(|period| period.read(&format!("{path}.period"), problems)),
        };
        if let Some(percent) = limit.percent.filter(|percent| *percent > 100) {
            problems.add(&format!("{path}.percent"), format!("{percent} is more than 100"), None);
        }
        if self.burst == Some(0) && self.percent == Some(0) {
            problems.add(&path, rules::DELETION_LIMIT_NOT_ZERO.message, None);
        }
        limit
    }
}

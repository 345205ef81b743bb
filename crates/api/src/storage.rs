//! `CheckpointStoragePolicy`: what checkpoints may use on a node, whatever other policies say.

use std::time::Duration;

use checkpoint_keeper_core::policy::{self, DeletionLimit, Kind, LabelSelector, PolicyRef};
use checkpoint_keeper_core::quantity::Share;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{FieldError, Problems};
use crate::parts::{LabelSelectorSpec, LimitSpec, PolicyStatus, count, labels, natural};
use crate::rules::{self, validations};
use crate::scalars::{LengthOfTime, Period, ShareText, SizeOrShareText, SizeText};

/// What checkpoints may use on a node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "criu.org",
    version = "v1alpha1",
    kind = "CheckpointStoragePolicy",
    plural = "checkpointstoragepolicies",
    shortname = "csp",
    category = "checkpoints",
    status = "PolicyStatus",
    derive = "PartialEq",
    doc = "What checkpoint archives may use on a node, and ceilings per namespace that bind whatever other policies say. Of several for one node the strictest value wins, field by field.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "High", type_ = "string", json_path = ".spec.highWatermark"),
    printcolumn(name = "Low", type_ = "string", json_path = ".spec.lowWatermark"),
    printcolumn(name = "Max total", type_ = "string", json_path = ".spec.maxTotalSize"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[&rules::LOW_BELOW_HIGH])))]
pub struct CheckpointStoragePolicySpec {
    /// Labels of the nodes it is for. Absent: every node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelectorSpec>,
    /// Use of the file system above which archives go, as a share such as 88%. Best between the
    /// kubelet's image garbage collection (85%) and its eviction (90%). Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high_watermark: Option<ShareText>,
    /// Use of the file system at which that ends, as a share. Default: highWatermark less 3 points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low_watermark: Option<ShareText>,
    /// Free space below which archives go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_free: Option<MinFreeSpec>,
    /// While checkpoints use less than this share of the file system, neither highWatermark nor minFree
    /// takes any: other people's data fills the disk. Default 5% where one of the two is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<ShareText>,
    /// How much all archives of a node may have together: a size such as 200Gi (a number without a
    /// suffix is bytes), or a share of the file system such as 20%. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_size: Option<SizeOrShareText>,
    /// What any one namespace may have on a node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_namespace: Option<NamespaceCeilingSpec>,
    /// How fast policies may delete on a node, so that a mistyped policy does not empty it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_limit: Option<DeletionLimitSpec>,
}

/// Free space below which archives go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MinFreeSpec {
    /// Free bytes, a size such as 10Gi. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<SizeText>,
    /// Free inodes. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub inodes: Option<i64>,
}

/// What any one namespace may have on a node; 0 or absent turns a ceiling off.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceCeilingSpec {
    /// How many archives. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_count: Option<i64>,
    /// How much they may have together: a size such as 50Gi, or a share of the file system such as 10%.
    /// Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_size: Option<SizeOrShareText>,
    /// How long an archive may lie around, the newest included: a length of time such as 90d.
    /// Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<LengthOfTime>,
}

/// How fast policies may delete: a bucket of max(burst, percent of the archives) deletions that fills
/// within a period.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[&rules::DELETION_LIMIT_NOT_ZERO])))]
pub struct DeletionLimitSpec {
    /// The bucket's least size, in archives. Default 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub burst: Option<i64>,
    /// The bucket's size as a percentage of the archives on the node. Default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i32>,
    /// How long an empty bucket takes to fill: a length of time. Default 1m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period: Option<Period>,
}

/// Percent of the file system that checkpoints may use before the watermark takes any, by default.
const DEFAULT_RESERVED: Option<Share> = Share::percent(5);
/// Points between the watermarks, by default.
const DEFAULT_WATERMARK_GAP: u32 = 3;

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

    /// What it means to the engine; all that is wrong with it otherwise.
    pub fn to_policy(&self) -> Result<policy::StoragePolicy, Vec<FieldError>> {
        let (spec, mut problems) = (&self.spec, Problems::default());
        let at = &mut problems;
        let mut share =
            |text: &Option<ShareText>, path: &str| text.as_ref().and_then(|text| text.read(path, at));
        let high_watermark = share(&spec.high_watermark, "spec.highWatermark");
        let low_watermark = share(&spec.low_watermark, "spec.lowWatermark");
        let reserved = share(&spec.reserved, "spec.reserved");
        if high_watermark.is_some() && low_watermark.is_some_and(|low| Some(low) >= high_watermark) {
            at.add(&"spec.lowWatermark", rules::LOW_BELOW_HIGH.message, None);
        }
        let min_free = spec.min_free.clone().unwrap_or_default();
        let min_free_bytes = min_free.bytes.as_ref().and_then(|size| size.read("spec.minFree.bytes", at));
        let min_free_inodes = count(min_free.inodes, "spec.minFree.inodes", at);
        let guarded = high_watermark.is_some() || min_free_bytes.is_some() || min_free_inodes.is_some();
        let policy = policy::StoragePolicy {
            id: self.policy_ref(),
            node_selector: labels(spec.node_selector.as_ref(), "spec.nodeSelector", at),
            mode: policy::Mode::Enforce,
            critical_watermark: None,
            protect_latest: None,
            high_watermark,
            low_watermark: low_watermark
                .or(high_watermark.map(|high| high.minus_percent(DEFAULT_WATERMARK_GAP))),
            min_free_bytes,
            min_free_inodes,
            // An explicit 0% means what it says; only silence means the default.
            reserved: if spec.reserved.is_none() && guarded { DEFAULT_RESERVED } else { reserved },
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
        limit_alone(
            self.policy_ref(),
            nodes,
            self.spec.deletion_limit.as_ref().map(DeletionLimitSpec::or_slowest),
        )
    }
}

/// The deletion limit of an object that cannot be read as a whole, and so for every node.
pub(crate) fn unparsable_limit(id: PolicyRef, limit: Option<&serde_json::Value>) -> policy::StoragePolicy {
    let read = |limit| DeletionLimitSpec::deserialize(limit).map_or(SLOWEST, |limit| limit.or_slowest());
    limit_alone(id, LabelSelector::default(), limit.map(read))
}

fn limit_alone(
    id: PolicyRef,
    node_selector: LabelSelector,
    deletion_limit: Option<DeletionLimit>,
) -> policy::StoragePolicy {
    policy::StoragePolicy {
        id,
        node_selector,
        mode: policy::Mode::Enforce,
        high_watermark: None,
        low_watermark: None,
        critical_watermark: None,
        protect_latest: None,
        min_free_bytes: None,
        min_free_inodes: None,
        reserved: None,
        max_total_size: None,
        per_namespace: policy::Ceiling::default(),
        deletion_limit,
    }
}

/// In place of a limit that is not understood: an archive that arrives still displaces another one.
const SLOWEST: DeletionLimit = DeletionLimit { burst: 1, percent: 0, period: Duration::from_mins(1) };

impl NamespaceCeilingSpec {
    fn read(&self, path: &str, problems: &mut Problems) -> policy::Ceiling {
        let limit = LimitSpec { max_count: self.max_count, max_total_size: self.max_total_size.clone() };
        policy::Ceiling {
            limit: LimitSpec::read(Some(&limit), path, problems),
            max_age: self.max_age.as_ref().and_then(|age| age.read(&format!("{path}.maxAge"), problems)),
        }
    }
}

impl DeletionLimitSpec {
    fn or_slowest(&self) -> DeletionLimit {
        let mut problems = Problems::default();
        let limit = self.read("spec.deletionLimit", &mut problems);
        problems.unless(limit).unwrap_or(SLOWEST)
    }

    fn read(&self, path: &str, problems: &mut Problems) -> policy::DeletionLimit {
        let defaults = policy::DeletionLimit::default();
        let limit = policy::DeletionLimit {
            burst: self
                .burst
                .map_or(defaults.burst, |burst| natural(burst, &format!("{path}.burst"), problems)),
            percent: self
                .percent
                .map_or(defaults.percent, |percent| natural(percent, &format!("{path}.percent"), problems)),
            period: self
                .period
                .as_ref()
                .and_then(|period| period.read(&format!("{path}.period"), problems))
                .unwrap_or(defaults.period),
        };
        if limit.percent > 100 {
            problems.add(&format!("{path}.percent"), format!("{} is more than 100", limit.percent), None);
        }
        if self.burst == Some(0) && self.percent == Some(0) {
            problems.add(&path, rules::DELETION_LIMIT_NOT_ZERO.message, None);
        }
        limit
    }
}

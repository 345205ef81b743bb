//! The storage limits in effect on a node, as its `NodeCheckpointStore` shows them.

use checkpoint_keeper_core::plan::EffectiveStorage;
use checkpoint_keeper_core::{duration, quantity};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalars::QuantityText;

/// The limits of all `CheckpointStoragePolicy` objects for a node, of each the strictest; absent is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StorageLimits {
    /// highWatermark is the use of the file system above which archives go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 7))]
    pub high_watermark: Option<String>,
    /// lowWatermark is the use of the file system at which that ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 7))]
    pub low_watermark: Option<String>,
    /// criticalWatermark is the use of the file system from which on that does not wait for deletionLimit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 7))]
    pub critical_watermark: Option<String>,
    /// minFree is the free space below which archives go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_free: Option<MinFreeInEffect>,
    /// reserved is the use by checkpoints below which neither highWatermark nor minFree takes any.
    #[schemars(length(max = 7))]
    pub reserved: String,
    /// maxTotalSize is how much all archives may have together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_size: Option<QuantityText>,
    /// perNamespace is what any one namespace may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_namespace: Option<NamespaceCeilingInEffect>,
    /// protectLatest is how many of the newest archives of each workload's container these limits spare.
    pub protect_latest: i64,
    /// deletionLimit is how fast policies may delete.
    pub deletion_limit: DeletionLimitInEffect,
}

/// Free space below which archives go.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MinFreeInEffect {
    /// bytes is how many must be free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<QuantityText>,
    /// inodes is how many must be free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inodes: Option<i64>,
}

/// What any one namespace may have on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceCeilingInEffect {
    /// maxCount is how many archives a namespace may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_count: Option<i64>,
    /// maxTotalSize is how much they may have together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_total_size: Option<QuantityText>,
    /// maxAge is how old an archive may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub max_age: Option<String>,
    /// maxHeldCount is how many archives its users may hold. 0: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_held_count: Option<i64>,
    /// maxHeldSize is how much the archives that they hold may have together. 0: none may be held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_held_size: Option<QuantityText>,
}

/// How fast policies may delete on a node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeletionLimitInEffect {
    /// burst is how many deletions may begin at once, at least.
    pub burst: i64,
    /// percent is the same as a percentage of the archives on the node; the larger of the two counts.
    pub percent: i64,
    /// period is how long it takes until so many may go again. Of several policies the slowest rate counts, which may
    /// depend on the number of archives: with as many as there were at the last look.
    #[schemars(length(max = 64))]
    pub period: String,
}

impl StorageLimits {
    /// Those on a node with so many archives.
    pub fn new(storage: &EffectiveStorage, archives: u64) -> Self {
        let deletion_limit = storage.deletion_limits.among(archives);
        let bytes = |asked: &Option<(u64, _)>| asked.as_ref().map(|(bytes, _)| QuantityText::bytes(*bytes));
        let number = |asked: &Option<(u64, _)>| asked.as_ref().map(|(number, _)| whole(*number));
        let share = |asked: &Option<(quantity::Share, _)>| asked.as_ref().map(|(share, _)| share.to_string());
        let min_free = MinFreeInEffect {
            bytes: bytes(&storage.min_free_bytes),
            inodes: number(&storage.min_free_inodes),
        };
        let per_namespace = NamespaceCeilingInEffect {
            max_count: number(&storage.namespace_count),
            max_total_size: bytes(&storage.namespace_size),
            max_age: storage.namespace_age.as_ref().map(|(age, _)| duration::exact(*age)),
            max_held_count: number(&storage.held_count),
            max_held_size: bytes(&storage.held_size),
        };
        Self {
            high_watermark: share(&storage.high_watermark),
            low_watermark: share(&storage.low_watermark),
            critical_watermark: storage.critical_watermark().map(|share| share.to_string()),
            min_free: (min_free != MinFreeInEffect::default()).then_some(min_free),
            reserved: storage.reserved().to_string(),
            max_total_size: bytes(&storage.max_total_size),
            per_namespace: (per_namespace != NamespaceCeilingInEffect::default()).then_some(per_namespace),
            protect_latest: i64::from(storage.protect_latest()),
            deletion_limit: DeletionLimitInEffect {
                burst: whole(deletion_limit.burst),
                percent: whole(deletion_limit.percent),
                period: duration::exact(deletion_limit.period),
            },
        }
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

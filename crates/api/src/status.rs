//! What the statuses of several kinds share.

use checkpoint_keeper_core::policy::PolicyRef;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalars::QuantityText;

/// What became of a policy, and what it does on the nodes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyStatus {
    /// conditions: Accepted says whether the policy is understood and in force, Enforced whether every node acts by
    /// it as it is now, and Ready sums both up. DeletionPending says whether archives are to be deleted by it and
    /// wait, LimitsUnreachable whether pins keep one of its limits from being reached, WithoutEffect whether a part of it
    /// can never act.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// observedGeneration is the metadata.generation that the conditions are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// totals are what the policy governs on all nodes together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<PolicyTotals>,
}

/// What a policy governs on all nodes together.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyTotals {
    /// nodes is the number of nodes with archives that it governs, or that it would change.
    pub nodes: i64,
    /// archives is the number of archives that it governs.
    pub archives: i64,
    /// size is the size of these archives together, rounded up.
    pub size: QuantityText,
    /// deletionPending is the number of archives that are to be deleted by it and wait, as policies may only
    /// delete so many a minute on each node.
    pub deletion_pending: i64,
    /// dryRun is what a policy of mode DryRun would change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<DryRunUsage>,
    /// partial is true while the figures are too small, as the report of some node does not name the policy.
    #[serde(default)]
    pub partial: bool,
}

/// What a policy would change if it were enforced.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DryRunUsage {
    /// wouldDelete is the number of archives that would be deleted and now stay.
    pub would_delete: i64,
    /// wouldDeleteSize is the size of these archives together, rounded up to three digits.
    pub would_delete_size: QuantityText,
    /// wouldKeep is the number of archives that would stay and are now to be deleted.
    pub would_keep: i64,
}

/// A policy object, or one entry of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReference {
    /// kind is the kind of the policy.
    #[schemars(length(max = 63))]
    pub kind: String,
    /// namespace is the namespace of the policy. Absent: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub namespace: Option<String>,
    /// name is the name of the policy.
    #[schemars(length(max = 253))]
    pub name: String,
    /// entry is the entry of a CheckpointRestoreOperator, such as `containerPolicies[1]`. Absent: the whole object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub entry: Option<String>,
}

impl From<&PolicyRef> for PolicyReference {
    fn from(policy: &PolicyRef) -> Self {
        Self {
            kind: policy.kind.name().to_owned(),
            namespace: policy.namespace.clone(),
            name: policy.name.clone(),
            entry: policy.part.clone(),
        }
    }
}

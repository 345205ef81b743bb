//! `CheckpointPolicy`: retention by the team that owns a namespace.

use checkpoint_keeper_core::policy::{self, Kind, PolicyRef};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{FieldError, Problems};
use crate::parts::{
    DamagedSpec, IncompleteSpec, LabelSelectorSpec, Mode, OrphansSpec, RetentionSpec, labels, names,
};
use crate::scalars::ExactName;
use crate::status::PolicyStatus;

/// What a team wants kept of the checkpoint archives of its namespace.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "checkpoint-keeper.io",
    version = "v1alpha1",
    kind = "CheckpointPolicy",
    plural = "checkpointpolicies",
    namespaced,
    shortname = "ckpol",
    category = "checkpoint-keeper",
    status = "PolicyStatus",
    derive = "PartialEq",
    selectable = ".spec.mode",
    doc = "Which checkpoint archives of a namespace stay on the nodes, as its owner wants it.",
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
    printcolumn(name = "Max age", type_ = "string", json_path = ".spec.retention.maxAge"),
    printcolumn(
        name = "Per container",
        type_ = "integer",
        json_path = ".spec.retention.perContainer.maxCount"
    ),
    printcolumn(name = "Archives", type_ = "integer", json_path = ".status.totals.archives"),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.totals.size"),
    printcolumn(
        name = "Pending",
        type_ = "integer",
        json_path = ".status.totals.deletionPending",
        priority = 1
    ),
    printcolumn(
        name = "Enforced",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Enforced")].message"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointPolicySpec {
    /// mode Enforce deletes; DryRun only reports the difference that the policy would make. Default Enforce.
    #[serde(default)]
    pub mode: Mode,
    /// selector says which archives the policy is for: all parts must match. Absent: every archive of the
    /// namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<SelectorSpec>,
    /// retention says what stays on each node. Absent: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<RetentionSpec>,
    /// orphans says what becomes of archives whose workload, pod or namespace is gone. Absent: they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orphans: Option<OrphansSpec>,
    /// incomplete says what becomes of archives that were cut off, by a full disk or a failed checkpoint.
    /// Absent: they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<IncompleteSpec>,
    /// damaged says what becomes of archives that begin as archives and contradict themselves.
    /// Absent: they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<DamagedSpec>,
}

/// Which archives of its namespace a policy is for.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SelectorSpec {
    /// podSelector selects by labels of the pod, as they were last seen. Absent: any pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_selector: Option<LabelSelectorSpec>,
    /// pods are exact names of pods. Absent or empty: any pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub pods: Vec<ExactName>,
    /// containers are exact names of containers. Absent or empty: any container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub containers: Vec<ExactName>,
}

impl CheckpointPolicy {
    /// Which object this is, in verdicts and reports.
    pub fn policy_ref(&self) -> PolicyRef {
        PolicyRef {
            kind: Kind::CheckpointPolicy,
            namespace: self.metadata.namespace.clone(),
            name: self.metadata.name.clone().unwrap_or_default(),
            part: None,
        }
    }

    /// What it means to the engine; all that is wrong with it otherwise.
    pub fn to_policy(&self) -> Result<policy::Policy, Vec<FieldError>> {
        let (spec, mut problems) = (&self.spec, Problems::default());
        let at = &mut problems;
        let selector = spec.selector.as_ref().map(|selector| policy::Selector {
            namespaces: Vec::new(),
            namespace_labels: policy::LabelSelector::default(),
            pod_labels: labels(selector.pod_selector.as_ref(), "spec.selector.podSelector", at),
            pods: names(&selector.pods, "spec.selector.pods", at),
            containers: names(&selector.containers, "spec.selector.containers", at),
        });
        let policy = policy::Policy {
            id: self.policy_ref(),
            created: self.metadata.creation_timestamp.as_ref().map(|time| time.0),
            // Without a namespace of its own it affects none, rather than all.
            namespace: Some(self.metadata.namespace.clone().unwrap_or_default()),
            mode: spec.mode.into(),
            selector: selector.unwrap_or_default(),
            retention: spec
                .retention
                .as_ref()
                .map(|part| part.read("spec.retention", at))
                .unwrap_or_default(),
            orphans: spec.orphans.as_ref().and_then(|part| part.read("spec.orphans", at)),
            incomplete_grace: spec.incomplete.as_ref().and_then(|part| part.read("spec.incomplete", at)),
            damaged_grace: spec.damaged.as_ref().and_then(|part| part.read("spec.damaged", at)),
            precedence: policy::Precedence::Default,
        };
        problems.unless(policy)
    }
}

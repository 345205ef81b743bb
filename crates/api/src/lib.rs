//! The custom resources: their types, their CRDs, and what they mean to the policy engine.
//!
//! One file a kind; [`parts`] and [`scalars`] are what the kinds share, [`rules`] what both the API
//! server (as CEL) and this crate (as code) refuse. [`manifest`] reads policies from files,
//! [`crds`] writes the CRDs. No cluster, no disk, no clock.

// What documents a field is what `kubectl explain` shows: plain text.
#![allow(clippy::doc_markdown)]
// Every printer column has a name and a type of its own.
#![allow(clippy::duplicated_attributes)]

pub mod api_object;
mod cluster_policy;
pub mod container_checkpoint;
pub mod crds;
pub mod effective;
mod error;
pub mod legacy;
pub mod legacy_annotations;
pub mod legacy_migration;
pub mod legacy_schedule;
pub mod manifest;
pub mod node_store;
pub mod parts;
mod policy;
pub mod quota;
pub mod record;
pub mod rules;
pub mod scalars;
pub mod schedule;
pub mod schedule_status;
pub mod status;
mod storage;
pub mod storage_limits;
pub mod unknown;

pub use cluster_policy::{ClusterCheckpointPolicy, ClusterCheckpointPolicySpec, ClusterSelectorSpec};
pub use container_checkpoint::{ContainerCheckpoint, ContainerCheckpointSpec, ContainerCheckpointStatus};
pub use error::FieldError;
pub use legacy::{
    CheckpointRestoreOperator, CheckpointRestoreOperatorSpec, ContainerPolicySpec, GlobalPolicySpec, Governs,
    LegacyPolicies, LegacySettings, NamespacePolicySpec, PodPolicySpec, is_same_path,
};
pub use legacy_schedule::{LegacyCheckpointSchedule, LegacySchedule};
pub use node_store::{NodeCheckpointStore, NodeCheckpointStoreSpec, NodeCheckpointStoreStatus};
pub use policy::{CheckpointPolicy, CheckpointPolicySpec, SelectorSpec};
pub use quota::{CheckpointQuota, CheckpointQuotaSpec, CheckpointQuotaStatus};
pub use schedule::{CheckpointSchedule, CheckpointScheduleSpec};
pub use schedule_status::{CheckpointScheduleStatus, ScheduleError};
pub use storage::{
    CheckpointStoragePolicy, CheckpointStoragePolicySpec, DeletionLimitSpec, HeldLimitSpec, MinFreeSpec,
    NamespaceCeilingSpec,
};

pub use checkpoint_keeper_core::policy::{GROUP, LEGACY_GROUP, LEGACY_VERSION, VERSION};

/// The category of the native kinds but `ContainerCheckpoint`, of which there may be very many: `kubectl get
/// checkpoint-keeper` lists what people write, and each node's report.
pub const CATEGORY: &str = "checkpoint-keeper";

/// The namespace that the manifests below `config/deploy` install the operator in.
pub const NAMESPACE: &str = "checkpoint-keeper";

/// The agents' service account in those manifests.
pub const AGENT_ACCOUNT: &str = "checkpoint-keeper-agent";

/// The labels of the agents' pods and `DaemonSet`s in those manifests.
pub const AGENT_SELECTOR: &str = "app.kubernetes.io/name=checkpoint-keeper,app.kubernetes.io/component=agent";

/// The port at which an agent shows its archives, inside its pod, unless it is told another one.
pub const AGENT_VIEW_PORT: u16 = 9091;

/// The controller's service account in those manifests.
pub const CONTROLLER_ACCOUNT: &str = "checkpoint-keeper-controller";

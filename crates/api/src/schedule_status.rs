//! The status of a `CheckpointSchedule`: its fields, and the reasons of its conditions.

use checkpoint_keeper_core::schedule::TOO_MANY_SCHEDULES;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::FieldError;

/// The condition that says whether a schedule is understood and carried out.
pub const READY: &str = "Ready";
/// The condition that says whether the last checkpoints of a schedule succeeded.
pub const HEALTHY: &str = "Healthy";

/// What became of a schedule, and what it did on all nodes together.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointScheduleStatus {
    /// conditions: Ready says whether the schedule is understood and carried out, Healthy whether its last checkpoints
    /// succeeded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
    /// observedGeneration is the metadata.generation that the conditions are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// lastScheduleTime is the last time at which interval or schedule asked on any node. The other triggers do not
    /// change it, as the next interval is counted from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_schedule_time: Option<Time>,
    /// lastSuccessTime is when a checkpoint last succeeded on any node, by whichever trigger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_time: Option<Time>,
    /// nextScheduleTime is when interval or schedule ask next on any node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_schedule_time: Option<Time>,
    /// active is how many checkpoints are under way on all nodes together.
    #[serde(default)]
    pub active: i64,
}

/// What a condition's status is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nothing can be said yet.
    Unknown,
}

impl ConditionStatus {
    /// Its name in a condition.
    pub const fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Why a schedule is carried out or not: the reason of the condition [`READY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScheduleReadyReason {
    /// It is carried out.
    Accepted,
    /// It is understood, makes nothing, and reports what it would make.
    DryRun,
    /// It makes nothing for now, as its author wants it.
    Suspended,
    /// Its cron expression, or another field, is not understood.
    InvalidSchedule,
    /// Its time zone is not known.
    InvalidTimeZone,
    /// It is for pods of another namespace, which only schedules in the operator's own may be.
    ForeignNamespace,
}

impl ScheduleReadyReason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Accepted,
        Self::DryRun,
        Self::Suspended,
        Self::InvalidSchedule,
        Self::InvalidTimeZone,
        Self::ForeignNamespace,
    ];

    /// Its name in a condition.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::DryRun => "DryRun",
            Self::Suspended => "Suspended",
            Self::InvalidSchedule => "InvalidSchedule",
            Self::InvalidTimeZone => "InvalidTimeZone",
            Self::ForeignNamespace => "ForeignNamespace",
        }
    }

    /// The condition's status: whether all of the schedule is as its author wants it.
    pub const fn status(self) -> ConditionStatus {
        match self {
            Self::Accepted | Self::DryRun | Self::Suspended => ConditionStatus::True,
            Self::InvalidSchedule | Self::InvalidTimeZone | Self::ForeignNamespace => ConditionStatus::False,
        }
    }
}

/// Why the last checkpoints of a schedule count as good or not: the reason of the condition [`HEALTHY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ScheduleHealthyReason {
    /// The last one of each node succeeded.
    Succeeded,
    /// None was asked for yet.
    NotYetDue,
    /// No running container on any node is selected.
    NothingSelected,
    /// None is asked for, as the schedule is suspended.
    Suspended,
    /// On some node the last one failed.
    CheckpointFailed,
    /// On some node there was too little room for the last one.
    InsufficientStorage,
    /// On some node a quota of the namespace had no room for the last one.
    QuotaExceeded,
    /// On some node times were missed since the last one that succeeded.
    ScheduleMissed,
    /// On some node the runtime went away in the middle of a checkpoint, and may have left the container frozen.
    ContainerMayBeFrozen,
    /// On some node it is not carried out, as too many older ones of its namespace are.
    TooManySchedules,
    /// No node names it, and some node has more schedules than it names.
    NodesNotReporting,
}

impl ScheduleHealthyReason {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Succeeded,
        Self::NotYetDue,
        Self::NothingSelected,
        Self::Suspended,
        Self::CheckpointFailed,
        Self::InsufficientStorage,
        Self::QuotaExceeded,
        Self::ScheduleMissed,
        Self::ContainerMayBeFrozen,
        Self::TooManySchedules,
        Self::NodesNotReporting,
    ];

    /// Its name in a condition. Of failures it is that of the result, which events have as well.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::NotYetDue => "NotYetDue",
            Self::NothingSelected => "NothingSelected",
            Self::Suspended => "Suspended",
            Self::CheckpointFailed => "CheckpointFailed",
            Self::InsufficientStorage => "InsufficientStorage",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::ScheduleMissed => "ScheduleMissed",
            Self::ContainerMayBeFrozen => "ContainerMayBeFrozen",
            Self::TooManySchedules => TOO_MANY_SCHEDULES,
            Self::NodesNotReporting => "NodesNotReporting",
        }
    }

    /// The condition's status.
    pub const fn status(self) -> ConditionStatus {
        match self {
            Self::Succeeded => ConditionStatus::True,
            Self::NotYetDue | Self::NothingSelected | Self::Suspended | Self::NodesNotReporting => {
                ConditionStatus::Unknown
            }
            Self::CheckpointFailed
            | Self::InsufficientStorage
            | Self::QuotaExceeded
            | Self::ScheduleMissed
            | Self::ContainerMayBeFrozen
            | Self::TooManySchedules => ConditionStatus::False,
        }
    }
}

/// Why a schedule cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// These fields are not understood; there is at least one.
    #[error("{}", in_words(.0))]
    InvalidSchedule(Vec<FieldError>),
    /// The time zone is not known, and nothing else is wrong.
    #[error(transparent)]
    InvalidTimeZone(FieldError),
    /// It is for pods of another namespace, which it may not be where it is.
    #[error(transparent)]
    ForeignNamespace(FieldError),
}

fn in_words(fields: &[FieldError]) -> String {
    fields.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl ScheduleError {
    /// The reason of the condition [`READY`].
    pub const fn reason(&self) -> ScheduleReadyReason {
        match self {
            Self::InvalidSchedule(_) => ScheduleReadyReason::InvalidSchedule,
            Self::InvalidTimeZone(_) => ScheduleReadyReason::InvalidTimeZone,
            Self::ForeignNamespace(_) => ScheduleReadyReason::ForeignNamespace,
        }
    }

    /// Each field that is wrong.
    pub fn fields(&self) -> &[FieldError] {
        match self {
            Self::InvalidSchedule(fields) => fields,
            Self::InvalidTimeZone(field) | Self::ForeignNamespace(field) => std::slice::from_ref(field),
        }
    }

    /// The same, owned.
    pub fn into_fields(self) -> Vec<FieldError> {
        match self {
            Self::InvalidSchedule(fields) => fields,
            Self::InvalidTimeZone(field) | Self::ForeignNamespace(field) => vec![field],
        }
    }
}

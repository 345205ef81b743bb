//! `criu.org/v1 CheckpointSchedule`: the older operator's schedules.
//!
//! Field names, defaults and meanings are those of checkpoint-restore-operator v0.1.0, with not one field more: what this
//! project adds are annotations. What of a schedule cannot be acted on is said beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use checkpoint_keeper_core::policy::Mode;
use checkpoint_keeper_core::schedule::{
    ArchiveRetention, Disruption, Dumping, ResourceTrigger, Schedule, ScheduleKind, ScheduleRef, Thresholds,
    Triggers,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{FieldError, Problems};
use crate::legacy_annotations::{ANNOTATION_PREFIX, MODE, SUSPEND};
use crate::parts::LabelSelectorSpec;
use crate::rules::SHORTEST_POLL;
use crate::scalars::Interval;
use crate::schedule::{DEFAULT_COOLDOWN, DEFAULT_POLL};
use crate::schedule_status::ScheduleError;

/// The finalizer that the older operator puts on its schedules. Where that operator is gone, nothing else takes it
/// off.
pub const FINALIZER: &str = "criu.org/checkpoint-schedule-finalizer";

/// What `pollIntervalSeconds` may be, in seconds: no busy loop, and no sum with a time that overflows.
const POLL_SECONDS: RangeInclusive<u64> = SHORTEST_POLL.as_secs()..=86_400;

/// Schedules as the older checkpoint-restore-operator defines them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "criu.org",
    version = "v1",
    kind = "CheckpointSchedule",
    plural = "checkpointschedules",
    namespaced,
    status = "LegacyScheduleStatus",
    derive = "PartialEq",
    root = "LegacyCheckpointSchedule",
    doc = "When checkpoints are made, in the terms of the older checkpoint-restore-operator.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Last Checkpoint", type_ = "date", json_path = ".status.lastCheckpointTime"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct LegacyScheduleSpec {
    /// namespace is the namespace of the pods. Another one than the schedule's own is acted on only where the schedule is
    /// in the operator's namespace.
    #[schemars(length(max = 63))]
    pub namespace: String,
    /// selector selects running pods of that namespace by their labels. An empty one selects all of them.
    pub selector: LabelSelectorSpec,
    /// containerNames are exact names of containers. Absent or empty: all of a pod's spec.containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub container_names: Vec<String>,
    /// triggers say when. Each one works by itself.
    pub triggers: LegacyTriggersSpec,
}

/// When a schedule asks for checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LegacyTriggersSpec {
    /// interval asks so often: a length of time of at least 1s. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// onAnnotation true asks when a selected pod gets the annotation checkpoint.criu.org/trigger with the value true.
    /// Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_annotation: Option<bool>,
    /// onKubernetesEvents ask when one of NodeDrain, PodEviction and Preemption is about to end a pod. Others are not
    /// acted on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 253)), extend("x-kubernetes-list-type" = "atomic"))]
    pub on_kubernetes_events: Vec<String>,
    /// resourceThreshold asks when what a container uses crosses a threshold. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_threshold: Option<LegacyThresholdSpec>,
}

/// Thresholds of what a container uses, in percent of its limits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LegacyThresholdSpec {
    /// cpuPercent is about CPU time. Absent: no threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<LegacyBoundsSpec>,
    /// memoryPercent is about memory. Absent: no threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_percent: Option<LegacyBoundsSpec>,
    /// pollIntervalSeconds is how often each node looks at it, in seconds. Default 30; below 5 and above 86400 it
    /// is not acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll_interval_seconds: Option<i64>,
}

/// Two thresholds in percent.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LegacyBoundsSpec {
    /// upper asks from this percentage on. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upper: Option<i64>,
    /// lower asks up to this percentage. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lower: Option<i64>,
}

/// What a schedule did on all nodes together.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LegacyScheduleStatus {
    /// conditions: Ready says whether the schedule is understood and carried out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// lastCheckpointTime is when the interval last asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_checkpoint_time: Option<Time>,
    /// checkpointsCreated is how many checkpoints the interval has made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoints_created: Option<i64>,
}

/// A schedule of the older operator as it is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacySchedule {
    /// What it means to the scheduler.
    pub schedule: Schedule,
    /// What of it is not acted on.
    pub ignored: Vec<FieldError>,
}

impl LegacyCheckpointSchedule {
    /// Which object this is, in events and reports.
    pub fn schedule_ref(&self) -> ScheduleRef {
        ScheduleRef {
            kind: ScheduleKind::Legacy,
            namespace: self.metadata.namespace.clone().unwrap_or_default(),
            name: self.metadata.name.clone().unwrap_or_default(),
        }
    }

    /// What it means to the scheduler; all that is wrong with it otherwise. Only in the operator's own namespace it may
    /// name another namespace than its own.
    pub fn to_schedule(
        &self,
        operator_namespace: &str,
        now: Timestamp,
    ) -> Result<LegacySchedule, ScheduleError> {
        let (spec, mut problems) = (&self.spec, Problems::default());
        let mut ignored = Problems::default();
        let id = self.schedule_ref();
        if spec.namespace != id.namespace && id.namespace != operator_namespace {
            return Err(ScheduleError::ForeignNamespace(FieldError {
                path: "spec.namespace".to_owned(),
                message: format!(
                    "{:?} is another namespace than that of the schedule; only schedules in {operator_namespace} \
                     may be for other namespaces",
                    spec.namespace
                ),
                hint: None,
            }));
        }
        let additions = Additions::read(self.metadata.annotations.as_ref(), &mut problems);
        let reported = self.status.as_ref().and_then(|status| status.last_checkpoint_time.as_ref());
        let schedule = Schedule {
            id,
            uid: self.metadata.uid.clone().unwrap_or_default(),
            generation: self.metadata.generation.unwrap_or_default(),
            created: self.metadata.creation_timestamp.as_ref().map_or(now, |created| created.0),
            last_reported: reported.map(|time| time.0),
            pods_namespace: spec.namespace.clone(),
            selector: spec.selector.read("spec.selector", &mut problems),
            containers: spec.container_names.clone(),
            triggers: spec.triggers.read(&mut problems, &mut ignored),
            mode: additions.mode,
            // On its way out nothing more is made by it.
            suspend: additions.suspend || self.metadata.deletion_timestamp.is_some(),
            dumping: Dumping::default(),
            retention: ArchiveRetention::default(),
        };
        let schedule = problems.unless(schedule).map_err(ScheduleError::InvalidSchedule)?;
        Ok(LegacySchedule { schedule, ignored: ignored.0 })
    }
}

/// What an object's annotations add to it.
#[derive(Debug, Default)]
struct Additions {
    mode: Mode,
    suspend: bool,
}

impl Additions {
    /// Reads the annotations. One with the prefix that is not known is refused: a mistyped `suspend` would go on.
    fn read(annotations: Option<&BTreeMap<String, String>>, problems: &mut Problems) -> Self {
        let mut additions = Self::default();
        let ours = annotations.into_iter().flatten().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX));
        for (key, value) in ours {
            let path = format!("metadata.annotations.{key}");
            match (key.as_str(), value.as_str()) {
                (MODE, "Enforce") => additions.mode = Mode::Enforce,
                (MODE, "DryRun") => additions.mode = Mode::DryRun,
                (MODE, other) => {
                    problems.add(&path, format!("{other:?} is none of Enforce, DryRun"), None);
                }
                (SUSPEND, "true") => additions.suspend = true,
                (SUSPEND, "false") => additions.suspend = false,
                (SUSPEND, other) => problems.add(&path, format!("{other:?} is none of true, false"), None),
                _ => {
                    let hint = format!("known are {MODE}, {SUSPEND}");
                    problems.add(&path, "is an unknown annotation", Some(hint));
                }
            }
        }
        additions
    }
}

impl LegacyTriggersSpec {
    fn read(&self, problems: &mut Problems, ignored: &mut Problems) -> Triggers {
        let interval = self.interval.as_ref().and_then(|time| time.read("spec.triggers.interval", problems));
        let mut on_disruption = BTreeSet::new();
        for (index, event) in self.on_kubernetes_events.iter().enumerate() {
            match event.as_str() {
                "NodeDrain" => _ = on_disruption.insert(Disruption::NodeDrain),
                // There any deletion counts as one.
                "PodEviction" => on_disruption.extend([Disruption::PodEviction, Disruption::PodDeletion]),
                "Preemption" => _ = on_disruption.insert(Disruption::Preemption),
                other => {
                    let message = format!("{other:?} is none of NodeDrain, PodEviction, Preemption");
                    ignored.add(&format!("spec.triggers.onKubernetesEvents[{index}]"), message, None);
                }
            }
        }
        Triggers {
            interval,
            on_annotation: self.on_annotation.unwrap_or_default(),
            on_disruption,
            resources: self.resource_threshold.as_ref().map(|threshold| threshold.read(ignored)),
            ..Triggers::default()
        }
    }
}

impl LegacyThresholdSpec {
    fn read(&self, ignored: &mut Problems) -> ResourceTrigger {
        let path = "spec.triggers.resourceThreshold";
        let mut thresholds = |bounds: Option<&LegacyBoundsSpec>, name: &str| {
            let mut percent = |value: Option<i64>, bound: &str| {
                let value = value?;
                let percent = u32::try_from(value).ok().filter(|percent| *percent <= 100);
                if percent.is_none() {
                    let message = format!("{value} is not a percentage between 0 and 100");
                    ignored.add(&format!("{path}.{name}.{bound}"), message, None);
                }
                percent
            };
            bounds.map_or(Thresholds::default(), |bounds| Thresholds {
                above: percent(bounds.upper, "upper"),
                below: percent(bounds.lower, "lower"),
            })
        };
        let (cpu, memory) = (
            thresholds(self.cpu_percent.as_ref(), "cpuPercent"),
            thresholds(self.memory_percent.as_ref(), "memoryPercent"),
        );
        let poll = match self.poll_interval_seconds.map(u64::try_from) {
            Some(Ok(seconds)) if POLL_SECONDS.contains(&seconds) => Duration::from_secs(seconds),
            None => DEFAULT_POLL,
            Some(_) => {
                let message = format!(
                    "is not between {} and {}, and not acted on; it is {} instead",
                    POLL_SECONDS.start(),
                    POLL_SECONDS.end(),
                    DEFAULT_POLL.as_secs()
                );
                ignored.add(&format!("{path}.pollIntervalSeconds"), message, None);
                DEFAULT_POLL
            }
        };
        ResourceTrigger { cpu, memory, poll, cooldown: DEFAULT_COOLDOWN }
    }
}

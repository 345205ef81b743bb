//! `CheckpointSchedule`: when checkpoints of a namespace's containers are made.

use std::collections::BTreeSet;
use std::time::Duration;

use checkpoint_keeper_core::schedule::cron::{Cron, CronError};
use checkpoint_keeper_core::schedule::{self, ScheduleKind, ScheduleRef};
use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Problems;
use crate::parts::{LabelSelectorSpec, Mode, names, natural};
use crate::rules::{self, validations};
use crate::scalars::{
    CronText, ExactName, Interval, LengthOfTime, Period, PollInterval, TimeZoneText, Timeout,
};
use crate::schedule_status::{CheckpointScheduleStatus, ScheduleError};

/// When checkpoints are made of a namespace's containers, and which of them are kept.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "checkpoint-keeper.io",
    version = "v1alpha1",
    kind = "CheckpointSchedule",
    plural = "checkpointschedules",
    namespaced,
    shortname = "cksched",
    category = "checkpoint-keeper",
    status = "CheckpointScheduleStatus",
    derive = "PartialEq",
    selectable = ".spec.mode",
    doc = "When checkpoints of a namespace's running containers are made. Each node's agent carries a schedule out for the pods of its node.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(name = "Schedule", type_ = "string", json_path = ".spec.triggers.schedule"),
    printcolumn(name = "Interval", type_ = "string", json_path = ".spec.triggers.interval"),
    printcolumn(name = "Suspend", type_ = "boolean", json_path = ".spec.suspend"),
    printcolumn(name = "Active", type_ = "integer", json_path = ".status.active"),
    printcolumn(name = "Last Success", type_ = "date", json_path = ".status.lastSuccessTime"),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.nextScheduleTime"),
    printcolumn(
        name = "Healthy",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Healthy")].status"#
    ),
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode", priority = 1),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Healthy")].reason"#,
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointScheduleSpec {
    /// mode Enforce makes checkpoints; DryRun only reports which ones it would make. Default Enforce.
    #[serde(default)]
    pub mode: Mode,
    /// selector selects running pods of this namespace by their labels. An empty one selects all of them.
    pub selector: LabelSelectorSpec,
    /// containers are exact names of containers, which may be init, sidecar and ephemeral ones. Absent or empty: all of
    /// a pod's spec.containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub containers: Vec<ExactName>,
    /// triggers say when. Each one works by itself; requests for one container at the same time are served by one
    /// checkpoint.
    pub triggers: TriggersSpec,
    /// suspend true makes nothing until it is false again. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub suspend: Option<bool>,
    /// jitter is the longest delay of the times that interval and schedule name: a length of time. Each node has its
    /// own part of it, so that not all of them write at once. Default 0s: no delay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "0s"))]
    pub jitter: Option<LengthOfTime>,
    /// startingDeadline is how late a time that interval and schedule name may still be served, as after an outage: a
    /// length of time. Later ones are reported as missed. Default, and 0: however late, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting_deadline: Option<LengthOfTime>,
    /// timeout is how long the kubelet may take for one checkpoint: a length of time from 1s to 1h. Default 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "10m"))]
    pub timeout: Option<Timeout>,
    /// maxConcurrentPerNode is how many checkpoints of this namespace may be under way on a node when one of this
    /// schedule begins, itself included: each one freezes its container, and fills the disk. The agents' option
    /// --max-concurrent-checkpoints limits all namespaces together. Default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100), extend("default" = 1))]
    pub max_concurrent_per_node: Option<i32>,
    /// retries say how often a checkpoint that failed is tried again. Absent: its defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<RetriesSpec>,
    /// retention says which of the archives that this schedule made stay, for each container and on each node. The
    /// others go once a newer one is complete. Absent: all stay, as far as this schedule goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<ScheduleRetentionSpec>,
}

/// When a schedule asks for checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[&rules::TRIGGER_THERE, &rules::TIME_ZONE_NEEDS_SCHEDULE])))]
pub struct TriggersSpec {
    /// interval asks so often: a length of time of at least 1s. The first time is one interval after the schedule was
    /// created. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// schedule asks at the times of a cron expression of five fields: minute, hour, day of month, month, day of week.
    /// Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<CronText>,
    /// timeZone is the time zone of schedule, as the IANA database names it. A time in the hour that clocks skip is left
    /// out, and one in the hour that they repeat is there twice. Absent: UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<TimeZoneText>,
    /// onAnnotation true asks when a selected pod gets the annotation checkpoint.criu.org/trigger with the value true. The
    /// annotation checkpoint.criu.org/result then says what came of it. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = false))]
    pub on_annotation: Option<bool>,
    /// onDisruption asks when one of these is about to end a selected pod. Absent or empty: never.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4), extend("x-kubernetes-list-type" = "set"))]
    pub on_disruption: Vec<Disruption>,
    /// resources ask when what a container uses crosses a threshold. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
}

/// What may end a pod's run on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Disruption {
    /// Its node is marked unschedulable, as a drain begins with.
    NodeDrain,
    /// It is evicted: by the eviction API, a taint, or its kubelet.
    PodEviction,
    /// The scheduler makes room for a pod of a higher priority.
    Preemption,
    /// It is deleted.
    PodDeletion,
}

/// Thresholds of what a container uses. A container without the limit that a threshold is a share of is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[&rules::THRESHOLD_THERE])))]
pub struct ResourcesSpec {
    /// cpuPercent is about CPU time, in percent of the container's limit. Absent: no threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<ThresholdsSpec>,
    /// memoryPercent is about the working set of memory, in percent of the container's limit. Absent: no threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_percent: Option<ThresholdsSpec>,
    /// poll is how often each node looks at it: a length of time of at least 5s. Default 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "30s"))]
    pub poll: Option<PollInterval>,
    /// cooldown is how long after a checkpoint a container is left alone by the thresholds: a length of time. Default 5m;
    /// 0: not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "5m"))]
    pub cooldown: Option<LengthOfTime>,
}

/// Two thresholds in percent of a limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[&rules::ABOVE_OR_BELOW])))]
pub struct ThresholdsSpec {
    /// above asks from this percentage on. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub above: Option<i32>,
    /// below asks up to this percentage. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub below: Option<i32>,
}

/// How often a checkpoint that failed is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetriesSpec {
    /// limit is how many new tries there are. Default 3; 0: none. What a pod's annotation asks for is tried as long as
    /// the annotation is there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100), extend("default" = 3))]
    pub limit: Option<i32>,
    /// backoff is how long it takes until the first new try: a length of time. Each further one takes twice as long,
    /// up to 5m. Default 10s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "10s"))]
    pub backoff: Option<Period>,
}

/// Which of the archives that a schedule made stay: one that is among the newest, and one that is young.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = validations(&[&rules::SCHEDULE_RETENTION_THERE])))]
pub struct ScheduleRetentionSpec {
    /// keepLatest is how many of the newest archives of each container stay on a node, however old they are. Absent:
    /// the newest one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000))]
    pub keep_latest: Option<i32>,
    /// maxAge is the age up to which further ones stay on a node: a length of time such as 7d. Absent: they go whatever
    /// their age.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Period>,
}

impl CheckpointSchedule {
    /// Which object this is, in events and reports.
    pub fn schedule_ref(&self) -> ScheduleRef {
        ScheduleRef {
            kind: ScheduleKind::Native,
            namespace: self.metadata.namespace.clone().unwrap_or_default(),
            name: self.metadata.name.clone().unwrap_or_default(),
        }
    }

    /// What it means to the scheduler; all that is wrong with it otherwise. By `now` its cron expression has to name a
    /// time that comes.
    pub fn to_schedule(&self, now: Timestamp) -> Result<schedule::Schedule, ScheduleError> {
        let (spec, mut problems) = (&self.spec, Problems::default());
        let at = &mut problems;
        let cron = cron(&spec.triggers, now);
        let is_zone_unknown = matches!(cron, Err(CronError::TimeZone(_)));
        let id = self.schedule_ref();
        let reported = self.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
        let schedule = schedule::Schedule {
            pods_namespace: id.namespace.clone(),
            id,
            uid: self.metadata.uid.clone().unwrap_or_default(),
            generation: self.metadata.generation.unwrap_or_default(),
            created: self.metadata.creation_timestamp.as_ref().map_or(now, |created| created.0),
            last_reported: reported.map(|time| time.0),
            selector: spec.selector.read("spec.selector", at),
            containers: names(&spec.containers, "spec.containers", at),
            triggers: triggers(spec, cron, at),
            mode: spec.mode.into(),
            suspend: spec.suspend.unwrap_or_default(),
            dumping: dumping(spec, at),
            retention: spec.retention.as_ref().map(|retention| retention.read(at)).unwrap_or_default(),
        };
        problems.unless(schedule).map_err(|mut fields| match fields.pop() {
            Some(field) if is_zone_unknown && fields.is_empty() => ScheduleError::InvalidTimeZone(field),
            last => ScheduleError::InvalidSchedule(fields.into_iter().chain(last).collect()),
        })
    }
}

/// The cron expression in its time zone; none where there is none.
fn cron(triggers: &TriggersSpec, now: Timestamp) -> Result<Option<Cron>, CronError> {
    let zone = triggers.time_zone.as_ref().map_or("UTC", |zone| zone.0.as_str());
    triggers.schedule.as_ref().map(|fields| Cron::parse(&fields.0, zone, now)).transpose()
}

fn triggers(
    spec: &CheckpointScheduleSpec,
    cron: Result<Option<Cron>, CronError>,
    problems: &mut Problems,
) -> schedule::Triggers {
    let triggers = &spec.triggers;
    if let Err(error) = &cron {
        let path = match error {
            CronError::TimeZone(_) => "spec.triggers.timeZone",
            CronError::FieldCount(_) | CronError::Field { .. } | CronError::Never => "spec.triggers.schedule",
        };
        problems.add(&path, error.to_string(), None);
    }
    if triggers.time_zone.is_some() && triggers.schedule.is_none() {
        problems.add(&"spec.triggers.timeZone", rules::TIME_ZONE_NEEDS_SCHEDULE.message, None);
    }
    let optional = |time: Option<&LengthOfTime>, path: &str, problems: &mut Problems| {
        time.and_then(|time| time.read(path, problems))
    };
    let read = schedule::Triggers {
        interval: triggers.interval.as_ref().and_then(|time| time.read("spec.triggers.interval", problems)),
        cron: cron.ok().flatten(),
        jitter: optional(spec.jitter.as_ref(), "spec.jitter", problems).unwrap_or_default(),
        starting_deadline: optional(spec.starting_deadline.as_ref(), "spec.startingDeadline", problems),
        on_annotation: triggers.on_annotation.unwrap_or_default(),
        on_disruption: triggers
            .on_disruption
            .iter()
            .map(|disruption| (*disruption).into())
            .collect::<BTreeSet<_>>(),
        resources: triggers
            .resources
            .as_ref()
            .map(|resources| resources.read("spec.triggers.resources", problems)),
    };
    if !read.any() && problems.0.is_empty() {
        problems.add(&"spec.triggers", rules::TRIGGER_THERE.message, None);
    }
    read
}

fn dumping(spec: &CheckpointScheduleSpec, problems: &mut Problems) -> schedule::Dumping {
    let defaults = schedule::Dumping::default();
    let retries = spec.retries.clone().unwrap_or_default();
    let backoff = retries.backoff.as_ref().and_then(|time| time.read("spec.retries.backoff", problems));
    let timeout = spec.timeout.as_ref().and_then(|time| time.read("spec.timeout", problems));
    schedule::Dumping {
        timeout: timeout.unwrap_or(defaults.timeout),
        max_concurrent_per_node: spec
            .max_concurrent_per_node
            .and_then(|count| at_least_one(count, "spec.maxConcurrentPerNode", problems))
            .unwrap_or(defaults.max_concurrent_per_node),
        retries: retries
            .limit
            .map_or(defaults.retries, |limit| natural(limit, "spec.retries.limit", problems)),
        backoff: backoff.unwrap_or(defaults.backoff),
    }
}

impl ResourcesSpec {
    fn read(&self, path: &str, problems: &mut Problems) -> schedule::ResourceTrigger {
        let poll = self.poll.as_ref().and_then(|time| time.read(&format!("{path}.poll"), problems));
        let cooldown = self.cooldown.as_ref();
        let cooldown = cooldown.and_then(|time| time.read_with_zero(&format!("{path}.cooldown"), problems));
        if self.cpu_percent.is_none() && self.memory_percent.is_none() {
            problems.add(&path, rules::THRESHOLD_THERE.message, None);
        }
        let mut thresholds = |spec: Option<&ThresholdsSpec>, name: &str| {
            spec.map(|spec| spec.read(&format!("{path}.{name}"), problems)).unwrap_or_default()
        };
        schedule::ResourceTrigger {
            cpu: thresholds(self.cpu_percent.as_ref(), "cpuPercent"),
            memory: thresholds(self.memory_percent.as_ref(), "memoryPercent"),
            poll: poll.unwrap_or(DEFAULT_POLL),
            cooldown: cooldown.unwrap_or(DEFAULT_COOLDOWN),
        }
    }
}

/// How often usage is looked at where a schedule does not say.
pub(crate) const DEFAULT_POLL: Duration = Duration::from_secs(30);
/// How long a container is left alone after a checkpoint where a schedule does not say.
pub(crate) const DEFAULT_COOLDOWN: Duration = Duration::from_mins(5);

impl ThresholdsSpec {
    fn read(&self, path: &str, problems: &mut Problems) -> schedule::Thresholds {
        if self.above.is_none() && self.below.is_none() {
            problems.add(&path, rules::ABOVE_OR_BELOW.message, None);
        }
        let mut percent = |value: Option<i32>, name: &str| {
            let value = value?;
            let percent = u32::try_from(value).ok().filter(|percent| *percent <= 100);
            if percent.is_none() {
                let message = format!("{value} is not a percentage between 0 and 100");
                problems.add(&format!("{path}.{name}"), message, None);
            }
            percent
        };
        schedule::Thresholds { above: percent(self.above, "above"), below: percent(self.below, "below") }
    }
}

impl ScheduleRetentionSpec {
    fn read(&self, problems: &mut Problems) -> schedule::ArchiveRetention {
        if self.keep_latest.is_none() && self.max_age.is_none() {
            problems.add(&"spec.retention", rules::SCHEDULE_RETENTION_THERE.message, None);
        }
        schedule::ArchiveRetention {
            keep_latest: self
                .keep_latest
                .and_then(|count| at_least_one(count, "spec.retention.keepLatest", problems)),
            max_age: self.max_age.as_ref().and_then(|age| age.read("spec.retention.maxAge", problems)),
        }
    }
}

/// A number that is more than 0.
fn at_least_one(count: i32, path: &str, problems: &mut Problems) -> Option<u32> {
    let read = u32::try_from(count).ok().filter(|count| *count > 0);
    if read.is_none() {
        problems.add(&path, format!("{count} is less than 1"), None);
    }
    read
}

impl From<Disruption> for schedule::Disruption {
    fn from(disruption: Disruption) -> Self {
        match disruption {
            Disruption::NodeDrain => Self::NodeDrain,
            Disruption::PodEviction => Self::PodEviction,
            Disruption::Preemption => Self::Preemption,
            Disruption::PodDeletion => Self::PodDeletion,
        }
    }
}

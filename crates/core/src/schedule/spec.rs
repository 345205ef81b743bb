//! What a schedule asks for, whichever kind of object it came from.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::cron::Cron;
use super::messages::Trigger;
use crate::policy::{Kind, LabelSelector, Mode, PolicyRef, ScheduleRetention};

/// The kinds that ask for checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ScheduleKind {
    /// `checkpoint-keeper.io/v1alpha1 CheckpointSchedule`.
    Native,
    /// `criu.org/v1 CheckpointSchedule`, the older operator's.
    Legacy,
}

impl ScheduleKind {
    /// The API group and version of its objects.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::Native => "checkpoint-keeper.io/v1alpha1",
            Self::Legacy => "criu.org/v1",
        }
    }
}

/// Which object a schedule came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ScheduleRef {
    /// The object's kind.
    pub kind: ScheduleKind,
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

impl fmt::Display for ScheduleRef {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "CheckpointSchedule {}/{}", self.namespace, self.name)?;
        match self.kind {
            ScheduleKind::Native => Ok(()),
            ScheduleKind::Legacy => formatter.write_str(" (criu.org)"),
        }
    }
}

/// A valid schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// The object.
    pub id: ScheduleRef,
    /// The object's UID: one made anew under the same name is another schedule.
    pub uid: String,
    /// The object's generation.
    pub generation: i64,
    /// When the object was created.
    pub created: Timestamp,
    /// The last due time of its time triggers that any node has reported, as its status says.
    pub last_reported: Option<Timestamp>,
    /// The namespace of the pods.
    pub pods_namespace: String,
    /// Which pods of that namespace, by their labels.
    pub selector: LabelSelector,
    /// The containers' names; empty: all of `spec.containers`.
    pub containers: Vec<String>,
    /// When.
    pub triggers: Triggers,
    /// Whether it acts, or only reports what it would have done.
    pub mode: Mode,
    /// Whether it does nothing for now.
    pub suspend: bool,
    /// How a dump is made.
    pub dumping: Dumping,
    /// Which of the archives that it made are kept.
    pub retention: ArchiveRetention,
}

impl Schedule {
    /// What it keeps of the archives that it had made; none: all of them. While it only reports what it would do, it
    /// lets none go.
    pub fn archive_retention(&self) -> Option<ScheduleRetention> {
        let ArchiveRetention { keep_latest, max_age } = self.retention;
        if self.mode == Mode::DryRun || self.id.kind != ScheduleKind::Native {
            return None;
        }
        let is_limited = keep_latest.is_some() || max_age.is_some();
        is_limited.then(|| ScheduleRetention {
            id: PolicyRef {
                kind: Kind::CheckpointSchedule,
                namespace: Some(self.id.namespace.clone()),
                name: self.id.name.clone(),
                part: None,
            },
            uid: self.uid.clone(),
            keep_latest: keep_latest.unwrap_or(1),
            max_age,
        })
    }
}

/// When a schedule asks for checkpoints. Each one works by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Triggers {
    /// So often: first one interval after the object was created, then after each time it was due.
    pub interval: Option<Duration>,
    /// At these times.
    pub cron: Option<Cron>,
    /// The longest delay of a due time, so that not all nodes dump at once: each node has its own part of it.
    pub jitter: Duration,
    /// How late a due time may still be served; none: however late.
    pub starting_deadline: Option<Duration>,
    /// Whether by the annotation [`super::TRIGGER_ANNOTATION`] on a pod.
    pub on_annotation: bool,
    /// By these disruptions.
    pub on_disruption: BTreeSet<Disruption>,
    /// By what containers use.
    pub resources: Option<ResourceTrigger>,
}

impl Triggers {
    /// Whether this one is among them.
    pub(super) fn has(&self, trigger: Trigger) -> bool {
        match trigger {
            Trigger::Interval => self.interval.is_some(),
            Trigger::Cron => self.cron.is_some(),
            Trigger::Annotation => self.on_annotation,
            Trigger::Disruption(disruption) => self.on_disruption.contains(&disruption),
            Trigger::Cpu => self.resources.is_some_and(|resources| resources.cpu.any()),
            Trigger::Memory => self.resources.is_some_and(|resources| resources.memory.any()),
        }
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        self.interval.is_some()
            || self.cron.is_some()
            || self.on_annotation
            || !self.on_disruption.is_empty()
            || self.resources.is_some()
    }
}

/// What may end a pod's run on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Disruption {
    /// The node is marked unschedulable: a cordon is how a drain begins.
    NodeDrain,
    /// The pod is evicted: by the eviction API, a taint or its kubelet.
    PodEviction,
    /// The scheduler makes room for a pod of a higher priority.
    Preemption,
    /// The pod is deleted.
    PodDeletion,
}

impl Disruption {
    /// Its name in manifests, events and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::NodeDrain => "NodeDrain",
            Self::PodEviction => "PodEviction",
            Self::Preemption => "Preemption",
            Self::PodDeletion => "PodDeletion",
        }
    }
}

/// Thresholds of what a container uses, in percent of its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResourceTrigger {
    /// CPU time.
    pub cpu: Thresholds,
    /// The working set of memory.
    pub memory: Thresholds,
    /// How often it is looked at.
    pub poll: Duration,
    /// How long after a success a container is left alone.
    pub cooldown: Duration,
}

/// Two thresholds in percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Thresholds {
    /// It fires from this use on.
    pub above: Option<u32>,
    /// It fires up to this use.
    pub below: Option<u32>,
}

/// How many dumps a node makes at once, unless its administrator says otherwise.
pub const MOST_DUMPS: u32 = 4;

/// How a dump is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dumping {
    /// How long the kubelet may take for one.
    pub timeout: Duration,
    /// The most dumps of its namespace that may be under way on the node when one of this schedule starts, itself
    /// included.
    pub max_concurrent_per_node: u32,
    /// How often a failed one is tried again.
    pub retries: u32,
    /// How long until the first new try; each further one waits twice as long.
    pub backoff: Duration,
}

impl Default for Dumping {
    fn default() -> Self {
        Self {
            timeout: Duration::from_mins(10),
            max_concurrent_per_node: 1,
            retries: 3,
            backoff: Duration::from_secs(10),
        }
    }
}

/// Which of the archives that a schedule had made stay, of each container; all of them where neither is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArchiveRetention {
    /// So many of the newest stay, whatever their age; none: one, where there is a `max_age`.
    pub keep_latest: Option<u32>,
    /// Others stay up to this age; none: they go whatever their age, where there is a `keep_latest`.
    pub max_age: Option<Duration>,
}

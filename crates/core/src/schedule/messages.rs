//! What the scheduler is told, and what it wants done.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::memory::Memory;
use super::spec::{Disruption, Schedule, ScheduleRef};
use crate::creation::CreationRequest;
use crate::plan::Clock;
use crate::policy::Labels;

/// What the scheduler is told.
#[derive(Debug, Clone)]
pub enum Input {
    /// All schedules there are.
    Schedules(Vec<Arc<Schedule>>),
    /// The pods of this node; none while no watch shows them.
    Pods(Option<Vec<NodePod>>),
    /// Whether the node is marked unschedulable.
    Node {
        /// Marked so, as a cordon does.
        is_unschedulable: bool,
    },
    /// Whether the wall clock can be trusted.
    Clock(Clock),
    /// What containers used at this moment. Those that are missing have no figures yet.
    Usage(BTreeMap<ContainerId, Usage>),
    /// How a dump ended.
    Ended {
        /// Which one.
        dump: DumpId,
        /// How.
        outcome: Outcome,
    },
    /// Time has passed.
    Tick,
}

/// A pod of this node, as far as schedules are concerned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodePod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its labels.
    pub labels: Labels,
    /// Whether its phase is `Running`: only then is there anything to dump.
    pub is_running: bool,
    /// Its containers.
    pub containers: Vec<PodContainer>,
    /// Whether [`super::TRIGGER_ANNOTATION`] asks for a checkpoint.
    pub is_annotated: bool,
    /// What [`super::RESULT_ANNOTATION`] says.
    pub answer: Option<String>,
    /// Whether it is being deleted.
    pub is_deleted: bool,
    /// The reason of its condition `DisruptionTarget`, where that is true.
    pub disruption_target: Option<String>,
}

/// A container of a pod.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodContainer {
    /// Its name.
    pub name: String,
    /// Whether it is one of `spec.containers`, and not an init, sidecar or ephemeral one.
    pub is_main: bool,
    /// Its CPU limit in thousandths of a core; none: there is no limit.
    pub cpu_limit: Option<u64>,
    /// Its memory limit in bytes.
    pub memory_limit: Option<u64>,
}

/// One container of one pod on this node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerId {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID.
    pub pod_uid: String,
    /// The container's name.
    pub container: String,
}

/// What a container used, up to some moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// CPU time since it began, in seconds; none: it is not known yet.
    pub cpu_seconds: Option<f64>,
    /// Its working set in bytes; none: it is not known yet.
    pub memory_bytes: Option<u64>,
    /// The uptime of that moment.
    pub at: Duration,
}

/// One dump, within this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DumpId(pub u64);

/// How a dump ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// There is a whole archive.
    Done {
        /// Its file name.
        file: String,
    },
    /// It met another dump of that container: a moment later it may succeed.
    Collided(String),
    /// It failed, and may succeed later.
    Failed(String),
    /// It failed, and will again.
    FailedForGood(String),
    /// There is too little room for it: later there may be more.
    InsufficientStorage(String),
    /// Its archive would be larger than its policy allows, and would be deleted at once: no later try helps.
    TooLarge(String),
    /// A quota of its namespace has no room for it. It is refused, and not tried again by itself.
    QuotaExceeded(String),
    /// The runtime went away in the middle of it, or did not finish it: the container may have been left frozen.
    RuntimeLost(String),
}

/// Why a schedule asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Trigger {
    /// Its interval is over.
    Interval,
    /// Its cron expression names this time.
    Cron,
    /// The pod's annotation asks.
    Annotation,
    /// The pod is about to end.
    Disruption(Disruption),
    /// CPU use crossed a threshold.
    Cpu,
    /// Memory use crossed a threshold.
    Memory,
}

impl Trigger {
    /// Its name in events, annotations and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interval => "Interval",
            Self::Cron => "Schedule",
            Self::Annotation => "Annotation",
            Self::Disruption(disruption) => disruption.name(),
            Self::Cpu => "CPU",
            Self::Memory => "Memory",
        }
    }
}

/// What one dump is for: a schedule that asked at some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The schedule.
    pub schedule: ScheduleRef,
    /// The schedule's UID.
    pub schedule_uid: String,
    /// Why it asked.
    pub trigger: Trigger,
    /// When it was due.
    pub due: Timestamp,
}

impl Request {
    /// The same, as it is kept with the archive that comes of it.
    pub fn creation(&self) -> CreationRequest {
        CreationRequest {
            api_version: self.schedule.kind.api_version().to_owned(),
            namespace: self.schedule.namespace.clone(),
            name: self.schedule.name.clone(),
            uid: self.schedule_uid.clone(),
            trigger: self.trigger.name().to_owned(),
            due: self.due,
        }
    }
}

/// A dump to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dump {
    /// Which one; its end is told by this.
    pub id: DumpId,
    /// Of which container.
    pub container: ContainerId,
    /// How long it may take.
    pub timeout: Duration,
    /// What it is for.
    pub requests: Vec<Request>,
    /// When it began.
    pub started: Timestamp,
}

/// What the scheduler wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Keep this across restarts, before what follows is done.
    Persist(Arc<Memory>),
    /// Make a dump, and tell its end.
    Dump(Dump),
    /// A dump was under way when the program before this one ended. Look for its archive, and tell its end.
    Recover(Dump),
    /// Tell people what came of a request.
    Report(Report),
    /// Answer the annotation of a pod.
    Answer(Answer),
}

/// What came of a request: each one ends with exactly one of these whose `result` is final. One may stand for the same of
/// several containers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The request; of several, the first one.
    pub request: Request,
    /// The container; none for a due time that never led to one, and for several containers.
    pub container: Option<ContainerId>,
    /// What came of it.
    pub result: RunResult,
    /// For how many containers it stands; 1 for a due time that never led to one.
    pub count: u32,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunResult {
    /// There is an archive of this file name.
    Done(String),
    /// A dry run: it would have been dumped.
    WouldDump,
    /// A try failed, and there will be another one. This is not final.
    Retrying(String),
    /// The runtime died in the middle of a dump, or did not finish it: the container may have been left frozen. This is
    /// not final.
    MayBeFrozen(String),
    /// It failed for good.
    Failed(String),
    /// There was too little room, whenever it was tried.
    InsufficientStorage(String),
    /// A quota of its namespace had no room for it.
    QuotaExceeded(String),
    /// Nothing was dumped.
    Skipped(SkipReason),
}

impl RunResult {
    /// What kind of result it is.
    pub fn kind(&self) -> RunResultKind {
        match self {
            Self::Done(_) => RunResultKind::Done,
            Self::WouldDump => RunResultKind::WouldDump,
            Self::Retrying(_) => RunResultKind::Retrying,
            Self::MayBeFrozen(_) => RunResultKind::MayBeFrozen,
            Self::Failed(_) => RunResultKind::Failed,
            Self::InsufficientStorage(_) => RunResultKind::InsufficientStorage,
            Self::QuotaExceeded(_) => RunResultKind::QuotaExceeded,
            Self::Skipped(SkipReason::Missed(_)) => RunResultKind::Missed,
            Self::Skipped(SkipReason::PodEnded) => RunResultKind::PodEnded,
            Self::Skipped(SkipReason::ScheduleChanged) => RunResultKind::ScheduleChanged,
            Self::Skipped(SkipReason::RequestWithdrawn) => RunResultKind::RequestWithdrawn,
        }
    }

    /// Its name in events and metrics.
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// Whether nothing more comes of the request.
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Retrying(_) | Self::MayBeFrozen(_))
    }
}

/// A [`RunResult`] without its words and figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RunResultKind {
    /// There is an archive.
    Done,
    /// A dry run: it would have been dumped.
    WouldDump,
    /// A try failed, and there will be another one.
    Retrying,
    /// The container may have been left frozen.
    MayBeFrozen,
    /// It failed for good.
    Failed,
    /// There was too little room.
    InsufficientStorage,
    /// A quota had no room for it.
    QuotaExceeded,
    /// Due times passed unserved.
    Missed,
    /// The pod ended before.
    PodEnded,
    /// The schedule does not ask for it any more.
    ScheduleChanged,
    /// The annotation that asked was taken off.
    RequestWithdrawn,
}

impl RunResultKind {
    /// Its name in events, conditions and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "CheckpointCreated",
            Self::WouldDump => "CheckpointDryRun",
            Self::Retrying => "CheckpointRetrying",
            Self::MayBeFrozen => "ContainerMayBeFrozen",
            Self::Failed => "CheckpointFailed",
            Self::InsufficientStorage => "InsufficientStorage",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::Missed => "ScheduleMissed",
            Self::PodEnded => "PodEnded",
            Self::ScheduleChanged => "ScheduleChanged",
            Self::RequestWithdrawn => "RequestWithdrawn",
        }
    }

    /// Whether all went as it was asked for: its events are no warnings.
    pub const fn is_good(self) -> bool {
        match self {
            Self::Done | Self::WouldDump | Self::ScheduleChanged | Self::RequestWithdrawn => true,
            Self::Retrying
            | Self::MayBeFrozen
            | Self::Failed
            | Self::InsufficientStorage
            | Self::QuotaExceeded
            | Self::Missed
            | Self::PodEnded => false,
        }
    }
}

/// Why nothing was dumped for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// So many due times passed unserved: nothing ran here, the clock was not trusted, the next one came before
    /// they had their turn, or too much waited already.
    Missed(u32),
    /// The pod ended, or its container is not there any more.
    PodEnded,
    /// The schedule was deleted, suspended or changed, and asks for this no more.
    ScheduleChanged,
    /// The annotation that asked was taken off.
    RequestWithdrawn,
}

/// What the annotation of a pod is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's UID: another one of that name is not answered.
    pub pod_uid: String,
    /// The value of [`super::RESULT_ANNOTATION`]: JSON.
    pub text: String,
    /// Whether the request is over, so that its annotation goes.
    pub is_over: bool,
}

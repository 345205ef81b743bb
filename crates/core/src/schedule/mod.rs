//! When checkpoints are made, and of which containers: everything but the making itself.

mod annotations;
pub mod cron;
mod memory;
mod messages;
mod occasions;
mod runs;
mod scheduler;
mod spec;
mod timers;
mod turns;
mod usage;

pub use memory::{Failure, Memory, NoticedDisruption, RunMemory, ScheduleMemory};
pub use messages::{
    Answer, ContainerId, Dump, DumpId, Effect, Input, NodePod, Outcome, PodContainer, Report, Request,
    RunResult, SkipReason, Trigger, Usage,
};
pub use scheduler::{ScheduleState, Scheduler};
pub use spec::{
    ArchiveRetention, Disruption, Dumping, MOST_DUMPS, ResourceTrigger, Schedule, ScheduleKind, ScheduleRef,
    Thresholds, Triggers,
};

/// The annotation by which a user asks for a checkpoint of a pod; the value `true` asks.
pub const TRIGGER_ANNOTATION: &str = "checkpoint.criu.org/trigger";
/// The annotation that says what came of it.
pub const RESULT_ANNOTATION: &str = "checkpoint.criu.org/result";

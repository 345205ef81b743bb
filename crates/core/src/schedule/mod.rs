//! When checkpoints are made, and of which containers: everything but the making itself.

mod annotations;
pub mod cron;
mod keeping;
mod memory;
mod messages;
mod occasions;
mod runs;
mod scheduler;
mod spec;
mod tally;
mod timers;
mod turns;
mod usage;

pub use memory::{Failure, Memory, NoticedDisruption, RunMemory, ScheduleMemory};
pub use messages::{
    Answer, ContainerId, Dump, DumpId, Effect, Input, NodePod, Outcome, PodContainer, Report, Request,
    RunResult, RunResultKind, SkipReason, Trigger, Usage,
};
pub use scheduler::{ScheduleState, Scheduler};
pub use spec::{
    ArchiveRetention, Disruption, Dumping, MOST_DUMPS, ResourceTrigger, Schedule, ScheduleKind, ScheduleRef,
    Thresholds, Triggers,
};

/// Why a schedule fails that is not carried out on a node, as too many of its namespace are already: in conditions and metrics.
pub const TOO_MANY_SCHEDULES: &str = "TooManySchedules";
/// The annotation by which a user asks for a checkpoint of a pod; the value `true` asks.
pub const TRIGGER_ANNOTATION: &str = "checkpoint.criu.org/trigger";
/// The annotation that says what came of it.
pub const RESULT_ANNOTATION: &str = "checkpoint.criu.org/result";

//! The agent's metrics: read from the observations when they are asked for, so that nothing is counted twice.
//!
//! No label names an archive or a pod: what there is of each metric is bounded by the reasons, and by a number of schedules.

use std::fmt::Error;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use checkpoint_keeper_core::archive::inspect;
use checkpoint_keeper_core::plan::Reason;
use checkpoint_keeper_core::schedule::{Failure, ScheduleKind, ScheduleRef, ScheduleState};
use checkpoint_keeper_node::driver::Operation;
use checkpoint_keeper_runtime::telemetry;
use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::schedule_turns::in_turn;
use super::state::{AgentState, Observations};
use super::summary::{PIN_AGES, Summary, Tokens};

/// The most schedules that have a series of their own.
const MOST_SCHEDULES: usize = 200;

/// How long operations take, and how large their results are.
#[derive(Debug, Clone)]
pub(super) struct Timings {
    sweep: Histogram,
    read: Histogram,
    plan: Histogram,
    unlink: Histogram,
    close_to_unlink: Histogram,
    checkpoint: Histogram,
    checkpoint_frozen: Histogram,
    checkpoint_size: Histogram,
}

impl Default for Timings {
    fn default() -> Self {
        // 100 µs, 400 µs … 26 s.
        let histogram = || Histogram::new(exponential_buckets(0.0001, 4.0, 10));
        Self {
            sweep: histogram(),
            read: histogram(),
            plan: histogram(),
            unlink: histogram(),
            close_to_unlink: histogram(),
            // 100 ms, 300 ms … 30 min.
            checkpoint: Histogram::new(exponential_buckets(0.1, 3.0, 10)),
            // 1 ms, 4 ms … 4 min.
            checkpoint_frozen: Histogram::new(exponential_buckets(0.001, 4.0, 10)),
            // 1 MiB, 4 MiB … 256 GiB.
            checkpoint_size: Histogram::new(exponential_buckets(1_048_576.0, 4.0, 10)),
        }
    }
}

impl Timings {
    /// Notes that an operation took that long.
    pub(super) fn observe(&self, operation: Operation, took: Duration) {
        let histogram = match operation {
            Operation::Sweep => &self.sweep,
            Operation::Read => &self.read,
            Operation::Plan => &self.plan,
            Operation::Unlink => &self.unlink,
            Operation::CloseToUnlink => &self.close_to_unlink,
        };
        histogram.observe(took.as_secs_f64());
    }

    /// Notes that a dump took that long, from its request to the proof that its archive is whole.
    pub(super) fn checkpointed(&self, took: Duration) {
        self.checkpoint.observe(took.as_secs_f64());
    }

    /// Notes the figures of a new archive that a schedule had made: its size, and how long CRIU held its processes. One
    /// that cannot be read any more is not counted.
    pub(super) fn made(&self, file: &Path) {
        let Ok(mut file) = File::open(file) else { return };
        let Ok(size) = file.metadata().map(|metadata| metadata.len()) else { return };
        self.checkpoint_size.observe(size as f64);
        let statistics = inspect(&mut file).ok().and_then(|inspection| inspection.statistics);
        if let Some(statistics) = statistics {
            let frozen = Duration::from_micros(u64::from(statistics.frozen_time));
            self.checkpoint_frozen.observe(frozen.as_secs_f64());
        }
    }

    fn register(&self, registry: &mut Registry) {
        for (name, help, histogram) in [
            ("sweep", "Time to list the directory and look at each file", &self.sweep),
            ("read", "Time to read a batch of new archives", &self.read),
            ("plan", "Time to make a plan", &self.plan),
            ("unlink", "Time to delete one archive", &self.unlink),
            (
                "close_to_unlink",
                "Time from the close of an archive to the first deletion by the plan that knows of it",
                &self.close_to_unlink,
            ),
            (
                "checkpoint",
                "Time from the request for a checkpoint to the proof that its archive is whole, or to its failure",
                &self.checkpoint,
            ),
            (
                "checkpoint_frozen",
                "Time for which CRIU held the processes of a container that a schedule checkpointed, as CRIU says",
                &self.checkpoint_frozen,
            ),
        ] {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
        let help = "Size of the archives that schedules had made";
        registry.register_with_unit("checkpoint_size", help, Unit::Bytes, self.checkpoint_size.clone());
    }
}

/// The agent's metrics and the shared ones.
pub(super) fn registry(state: AgentState, timings: &Timings, sources: telemetry::Sources) -> Registry {
    let mut registry = telemetry::registry(sources);
    let ours = registry.sub_registry_with_prefix(telemetry::PREFIX);
    timings.register(ours);
    ours.register_collector(Box::new(Observed(state)));
    registry
}

#[derive(Debug)]
struct Observed(AgentState);

impl Collector for Observed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        self.0.read(|observed| encode(observed, Timestamp::now(), &mut encoder))
    }
}

fn encode(observed: &Observations, now: Timestamp, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let known = observed.summary.is_some();
    gauge(
        encoder,
        "policies_known",
        "1 once policies are loaded; while 0 nothing is deleted.",
        u64::from(known),
    )?;
    let swept = observed.swept.map_or(0, |swept| u64::try_from(swept.as_second()).unwrap_or_default());
    let help = "Time of the last sweep, in seconds since 1970; 0 before the first one.";
    with_unit(encoder, "last_sweep_timestamp", help, &Unit::Seconds, swept)?;
    locked(encoder, false)?;
    counter(encoder, "plans", "Number of plans made.", observed.plans)?;
    counter(encoder, "deletion_failures", "Number of deletions that the system refused.", observed.failed)?;
    let counts = observed.problem_counts();
    let counts = counts.iter().map(|(kind, count)| (kind.name().to_owned(), *count));
    family(encoder, "problems", ("type", "Number of problems that the node has now, by type."), counts)?;
    let figures = |reason| observed.deleted.get(&reason).copied().unwrap_or_default();
    let (help, kind) = ("Number of archives deleted, by reason.", MetricType::Counter);
    let mut deletions = encoder.encode_descriptor("deletions", help, None, kind)?;
    for reason in deletion_reasons() {
        let labels = [("reason", reason.to_string())];
        ConstCounter::new(figures(reason).0).encode(deletions.encode_family(&labels)?)?;
    }
    let help = "Size of the archives deleted, by reason.";
    let mut deleted = encoder.encode_descriptor("deleted", help, Some(&Unit::Bytes), kind)?;
    for reason in deletion_reasons() {
        let labels = [("reason", reason.to_string())];
        ConstCounter::new(figures(reason).1).encode(deleted.encode_family(&labels)?)?;
    }
    encode_schedules(observed, now, encoder)?;
    observed.summary.as_ref().map_or(Ok(()), |summary| encode_summary(summary, now, encoder))
}

/// Whether another collector keeps this one out of the directory.
fn locked(encoder: &mut DescriptorEncoder<'_>, is_locked: bool) -> Result<(), Error> {
    let help =
        "1 while another collector works on the directory and this agent waits for its end, 0 otherwise.";
    gauge(encoder, "directory_locked", help, u64::from(is_locked))
}

/// The metrics of an agent that waits for the end of another collector.
pub(super) fn waiting_registry(sources: telemetry::Sources) -> Registry {
    let mut registry = telemetry::registry(sources);
    let ours = registry.sub_registry_with_prefix(telemetry::PREFIX);
    ours.register_collector(Box::new(Waiting));
    registry
}

#[derive(Debug)]
struct Waiting;

impl Collector for Waiting {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        locked(&mut encoder, true)
    }
}

/// What schedules have done.
fn encode_schedules(
    observed: &Observations,
    now: Timestamp,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), Error> {
    let help =
        "Number of results of requests for checkpoints, by trigger and result; one dump may serve several.";
    let mut requests = encoder.encode_descriptor("checkpoint_requests", help, None, MetricType::Counter)?;
    for ((trigger, result), count) in &observed.requests {
        ConstCounter::new(*count)
            .encode(requests.encode_family(&[("trigger", *trigger), ("result", *result)])?)?;
    }
    let help = "Number of events about schedules, and of lines about them in the log, that were left out, as a namespace or \
                the node had too many.";
    let mut left_out =
        encoder.encode_descriptor("schedule_messages_left_out", help, None, MetricType::Counter)?;
    for (to, count) in [("events", observed.left_out.0), ("log", observed.left_out.1)] {
        ConstCounter::new(count).encode(left_out.encode_family(&[("to", to)])?)?;
    }
    let schedules = &observed.schedules;
    let count = |is: fn(&ScheduleState) -> bool| schedules.iter().filter(|one| is(one)).count() as u64;
    gauge(
        encoder,
        "schedules",
        "Number of schedules that select a container here.",
        count(|one| one.containers > 0),
    )?;
    let help = "Number of schedules that select a container here whose last request failed.";
    gauge(encoder, "schedules_failing", help, count(|one| one.containers > 0 && one.failures > 0))?;
    let active = schedules.iter().map(|one| u64::from(one.active)).max().unwrap_or(0);
    gauge(
        encoder,
        "checkpoints_under_way",
        "Number of dumps under way, of the schedule with the most.",
        active,
    )?;
    let failing = schedules.iter().filter(|one| one.containers > 0 && one.failures > 0);
    // Other containers of it may succeed meanwhile.
    let since = failing.filter_map(|one| one.last_success.into_iter().chain(one.failing_since).min()).min();
    let age = since.map_or(0, |at| u64::try_from(now.duration_since(at).as_secs()).unwrap_or_default());
    let help = "Time since the schedule that has been failing for longest was well: since its last success before it failed, or \
                since its first failure where that is not known; 0 while none fails.";
    with_unit(encoder, "schedule_failing_age", help, &Unit::Seconds, age)?;
    let help = "Time of the last checkpoint that each schedule made here, in seconds since 1970, of up to 200 schedules.";
    let name = "schedule_last_success_timestamp";
    let mut last = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Gauge)?;
    let succeeded = in_turn(schedules.iter().filter(|one| one.last_success.is_some()), MOST_SCHEDULES);
    for (schedule, at) in succeeded.into_iter().filter_map(|one| Some((&one.schedule, one.last_success?))) {
        let labels = [
            ("api_version", schedule.kind.api_version()),
            ("schedule_namespace", schedule.namespace.as_str()),
            ("schedule", schedule.name.as_str()),
        ];
        ConstGauge::new(at.as_second()).encode(last.encode_family(&labels)?)?;
    }
    let help = "Number of requests that have failed since the last success, of each schedule that selects a container \
                here and fails, by the reason of the last failure, of up to 200 schedules.";
    let mut failures = encoder.encode_descriptor("schedule_failures", help, None, MetricType::Gauge)?;
    let failing = schedules.iter().filter(|one| one.containers > 0 && one.failures > 0);
    for state in in_turn(failing, MOST_SCHEDULES) {
        let reason = state.last_failure.as_ref().map_or("Unknown", |failure| failure.reason.as_str());
        let labels = [
            ("api_version", state.schedule.kind.api_version()),
            ("schedule_namespace", state.schedule.namespace.as_str()),
            ("schedule", state.schedule.name.as_str()),
            ("reason", reason),
        ];
        ConstGauge::new(i64::from(state.failures)).encode(failures.encode_family(&labels)?)?;
    }
    Ok(())
}

/// The figures of the last plan.
fn encode_summary(
    summary: &Summary,
    now: Timestamp,
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), Error> {
    for (name, help, count) in [
        ("archives", "Number of archives in the directory.", summary.archives),
        ("archives_pinned", "Number of archives that a marker pins.", summary.pinned),
        ("archives_incomplete", "Number of archives that are incomplete or damaged.", summary.incomplete),
        ("archives_unreadable", "Number of archives that cannot be read.", summary.unreadable),
        ("archives_unknown", "Number of archives whose container is not known.", summary.unknown),
        (
            "deletions_pending",
            "Number of archives that are to be deleted and wait, as policies may only delete so many a minute.",
            summary.pending(),
        ),
    ] {
        gauge(encoder, name, help, count)?;
    }
    for (name, help, bytes) in [
        ("archives_size", "Size of all archives.", summary.bytes),
        ("archives_pinned_size", "Size of the archives that a marker pins.", summary.pinned_bytes),
        (
            "archives_incomplete_size",
            "Size of the archives that are incomplete or damaged.",
            summary.incomplete_bytes,
        ),
        (
            "archives_unknown_size",
            "Size of the archives whose container is not known.",
            summary.unknown_bytes,
        ),
    ] {
        with_unit(encoder, name, help, &Unit::Bytes, bytes)?;
    }
    let help = "Size of the pinned archives whose checkpoint is older than so many days: 7, 30 and 90.";
    let mut old =
        encoder.encode_descriptor("archives_pinned_old_size", help, Some(&Unit::Bytes), MetricType::Gauge)?;
    for (days, bytes) in PIN_AGES.iter().zip(summary.old_pinned_bytes) {
        let labels = [("older_than_days", days.to_string())];
        ConstGauge::new(signed(bytes)).encode(old.encode_family(&labels)?)?;
    }
    let age = |taken: Option<Timestamp>| {
        taken.map_or(0, |taken| u64::try_from(now.duration_since(taken).as_secs()).unwrap_or_default())
    };
    for (name, help, taken) in [
        ("oldest_archive_age", "Age of the oldest archive; 0 while there is none.", summary.oldest),
        (
            "oldest_pinned_age",
            "Age of the oldest archive that is pinned; 0 while there is none.",
            summary.oldest_pinned,
        ),
    ] {
        with_unit(encoder, name, help, &Unit::Seconds, age(taken))?;
    }
    let verdicts = summary.verdicts.iter().map(|(reason, count)| (reason.to_string(), *count));
    family(encoder, "verdicts", ("reason", "Number of archives by the reason of their verdict."), verdicts)?;
    if let Some(Tokens { policies, watermark }) = summary.tokens {
        let tokens = [("policies".to_owned(), policies), ("watermark".to_owned(), watermark)];
        let help = "Number of deletions that might begin when the last plan was made.";
        family(encoder, "deletion_tokens", ("of", help), tokens.into_iter())?;
    }
    if let Some((total, available)) = summary.filesystem {
        let help = "Size of the file system that the directory is on.";
        with_unit(encoder, "filesystem_size", help, &Unit::Bytes, total)?;
        let help = "Space on that file system that ordinary processes may still use.";
        with_unit(encoder, "filesystem_available", help, &Unit::Bytes, available)?;
    }
    let (wanted, freed) = summary.watermark.map_or((0, 0), |round| (round.wanted_bytes, round.freed_bytes));
    let help = "Space that the storage policies want freed.";
    with_unit(encoder, "watermark_wanted", help, &Unit::Bytes, wanted)?;
    let help = "Space that the deletions of the last plan free for them.";
    with_unit(encoder, "watermark_freed", help, &Unit::Bytes, freed)
}

/// The reasons to delete; a new one does not compile before it stands here.
fn deletion_reasons() -> impl Iterator<Item = Reason> {
    std::iter::successors(Some(Reason::Discarded), |reason| {
        Some(match reason {
            Reason::Discarded => Reason::FailedDump,
            Reason::FailedDump => Reason::Orphaned,
            Reason::Orphaned => Reason::Incomplete,
            Reason::Incomplete => Reason::Damaged,
            Reason::Damaged => Reason::MaxArchiveSize,
            Reason::MaxArchiveSize => Reason::ScheduleRetention,
            Reason::ScheduleRetention => Reason::Tiers,
            Reason::Tiers => Reason::MaxAge,
            Reason::MaxAge => Reason::MaxCountPerContainer,
            Reason::MaxCountPerContainer => Reason::MaxCountPerWorkload,
            Reason::MaxCountPerWorkload => Reason::MaxCountPerPod,
            Reason::MaxCountPerPod => Reason::MaxCountPerNamespace,
            Reason::MaxCountPerNamespace => Reason::MaxTotalSizePerContainer,
            Reason::MaxTotalSizePerContainer => Reason::MaxTotalSizePerWorkload,
            Reason::MaxTotalSizePerWorkload => Reason::MaxTotalSizePerPod,
            Reason::MaxTotalSizePerPod => Reason::MaxTotalSizePerNamespace,
            Reason::MaxTotalSizePerNamespace => Reason::NamespaceCeiling,
            Reason::NamespaceCeiling => Reason::StorageWatermark,
            Reason::StorageWatermark
            | Reason::NoPolicy
            | Reason::WithinLimits
            | Reason::KeepLatest
            | Reason::MinAge
            | Reason::Pinned
            | Reason::Settling
            | Reason::UnknownIdentity
            | Reason::Undated
            | Reason::TierKept
            | Reason::OrphanGracePeriod
            | Reason::DeletionPending
            | Reason::Handover
            | Reason::ClockSuspect
            | Reason::PolicyStale
            | Reason::PolicyInvalid => return None,
        })
    })
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), Error> {
    let gauge = ConstGauge::new(signed(value));
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

fn with_unit(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: &Unit,
    value: u64,
) -> Result<(), Error> {
    let gauge = ConstGauge::new(signed(value));
    gauge.encode(encoder.encode_descriptor(name, help, Some(unit), gauge.metric_type())?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), Error> {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
}

/// Gauges by one label.
fn family(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    (label, help): (&str, &str),
    counts: impl Iterator<Item = (String, u64)>,
) -> Result<(), Error> {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (value, count) in counts {
        ConstGauge::new(signed(count)).encode(family.encode_family(&[(label, value)])?)?;
    }
    Ok(())
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// All metrics that there can be, with one value of each label, as they are served.
pub fn example() -> String {
    let state = AgentState::new();
    let summary = Summary {
        filesystem: Some((2, 1)),
        tokens: Some(Tokens { policies: 1, watermark: 1 }),
        verdicts: [(Reason::WithinLimits, 1)].into(),
        ..Summary::default()
    };
    state.planned(summary, std::time::Instant::now());
    state.counted_requests("Interval", "CheckpointCreated", 1);
    state.scheduled(vec![example_schedule()]);
    let mut text = String::new();
    let registry = registry(state, &Timings::default(), telemetry::example());
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

/// A schedule that fails, and did not always.
pub(super) fn example_schedule() -> ScheduleState {
    let reason = "CheckpointFailed".to_owned();
    ScheduleState {
        schedule: ScheduleRef {
            kind: ScheduleKind::Native,
            namespace: "shop".to_owned(),
            name: "hourly".to_owned(),
        },
        generation: 1,
        last_due: None,
        last_interval: None,
        last_success: Some(Timestamp::UNIX_EPOCH),
        interval_successes: 1,
        next: None,
        active: 0,
        failures: 1,
        failing_since: Some(Timestamp::UNIX_EPOCH),
        last_failure: Some(Failure {
            reason,
            message: String::new(),
            at: Timestamp::UNIX_EPOCH,
            container: None,
        }),
        containers: 1,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use checkpoint_keeper_core::plan::Action;
    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::problem_type::ProblemType;

    #[test]
    fn no_metric_grows_with_archives_pods_or_namespaces() {
        let text = |namespaces: u32| {
            let state = AgentState::new();
            let mut summary = Summary { archives: u64::from(namespaces), ..Summary::default() };
            for number in 0..namespaces {
                summary.namespaces.insert(format!("team-{number}"), (1, 1));
            }
            state.planned(summary, Instant::now());
            let mut text = String::new();
            encode(&mut text, &registry(state, &Timings::default(), telemetry::example())).unwrap();
            text
        };
        let (few, many) = (text(1), text(10_000));
        assert_eq!(few.lines().count(), many.lines().count(), "{many}");
        assert!(many.contains("checkpoint_keeper_archives 10000\n"), "{many}");
        assert!(!many.contains("team-"), "{many}");
    }

    #[test]
    fn counters_exist_from_the_start_and_each_problem_is_counted_by_its_type() {
        let state = AgentState::new();
        let page = || {
            let mut text = String::new();
            encode(&mut text, &registry(state.clone(), &Timings::default(), telemetry::example())).unwrap();
            text
        };
        let before = page();
        for line in [
            "deletions_total{reason=\"Discarded\"} 0",
            "deletions_total{reason=\"StorageWatermark\"} 0",
            "deleted_bytes_total{reason=\"MaxAge\"} 0",
            "problems{type=\"WatermarkIneffective\"} 0",
            "problems{type=\"FileUnreadable\"} 0",
            "plans_total 0",
            "plan_seconds_count 0",
            "last_sweep_timestamp_seconds 0",
        ] {
            assert!(before.contains(&format!("checkpoint_keeper_{line}\n")), "lacks {line}: {before}");
        }
        assert!(deletion_reasons().all(|reason| reason.action() == Action::Delete));
        for file in ["a", "b"] {
            let what = "it cannot be read".to_owned();
            state.problem(ProblemType::FileUnreadable, file.to_owned(), what, Instant::now());
        }
        state.gone(Some("the directory is gone".to_owned()));
        state.swept(Timestamp::from_second(7).unwrap());
        let after = page();
        assert!(after.contains("problems{type=\"FileUnreadable\"} 2\n"), "{after}");
        assert!(after.contains("problems{type=\"DirectoryGone\"} 1\n"), "{after}");
        assert!(after.contains("last_sweep_timestamp_seconds 7\n"), "{after}");
        assert_eq!(before.lines().count(), after.lines().count(), "{after}");
    }

    #[test]
    fn a_schedule_that_fails_is_named_with_the_reason_until_it_succeeds_and_only_so_many_are() {
        let state = |number: usize, failures, reason: &str| {
            let mut state = ScheduleState { failures, ..example_schedule() };
            state.schedule.name = format!("hourly-{number}");
            state.last_failure.as_mut().unwrap().reason = reason.to_owned();
            state
        };
        let failures = |states: Vec<ScheduleState>| {
            let observed = AgentState::new();
            observed.scheduled(states);
            let mut text = String::new();
            encode(&mut text, &registry(observed, &Timings::default(), telemetry::example())).unwrap();
            let lines =
                text.lines().filter_map(|line| line.strip_prefix("checkpoint_keeper_schedule_failures{"));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let line = "api_version=\"checkpoint-keeper.io/v1alpha1\",schedule_namespace=\"shop\",schedule=\"hourly-1\",\
                    reason=\"ScheduleMissed\"} 3";
        assert_eq!(failures(vec![state(1, 3, "ScheduleMissed"), state(2, 0, "CheckpointRetrying")]), [line]);
        let nowhere = ScheduleState { containers: 0, ..state(1, 3, "CheckpointFailed") };
        assert!(failures(vec![nowhere]).is_empty());
        let many = (0..1_000).map(|number| state(number, 1, "CheckpointFailed")).collect();
        assert_eq!(failures(many).len(), MOST_SCHEDULES);
        // However many of one namespace fail, those of another one are named.
        let greedy = (0..1_000).map(|number| {
            let mut state = state(number, 1, "CheckpointFailed");
            "a-greedy".clone_into(&mut state.schedule.namespace);
            state
        });
        let named = failures(greedy.chain([state(1, 3, "ScheduleMissed")]).collect());
        assert!(named.iter().any(|one| one == line), "{named:?}");
    }

    #[test]
    fn a_schedule_that_has_never_succeeded_fails_since_its_first_failure() {
        let age = |last_success: Option<i64>, failing_since: Option<i64>, failures| {
            let time =
                |ago: Option<i64>| ago.map(|ago| Timestamp::now() - jiff::SignedDuration::from_secs(ago));
            let observed = AgentState::new();
            observed.scheduled(vec![ScheduleState {
                last_success: time(last_success),
                failing_since: time(failing_since),
                failures,
                ..example_schedule()
            }]);
            let mut text = String::new();
            encode(&mut text, &registry(observed, &Timings::default(), telemetry::example())).unwrap();
            let line = "checkpoint_keeper_schedule_failing_age_seconds ";
            let age: u64 = text.lines().find_map(|said| said.strip_prefix(line)).unwrap().parse().unwrap();
            age / 10 * 10
        };
        assert_eq!(age(None, Some(7_200), 3), 7_200);
        assert_eq!(age(Some(9_000), Some(7_200), 3), 9_000);
        assert_eq!(age(Some(60), Some(7_200), 3), 7_200, "another container of it succeeds");
        assert_eq!(age(Some(9_000), None, 0), 0);
    }

    #[test]
    fn ages_and_sizes_are_those_of_the_last_plan() {
        let state = AgentState::new();
        let taken = Timestamp::now() - jiff::SignedDuration::from_hours(1);
        let summary =
            Summary { oldest: Some(taken), pinned_bytes: 5, unknown_bytes: 6, ..Summary::default() };
        state.planned(summary, Instant::now());
        let timings = Timings::default();
        timings.observe(Operation::Unlink, Duration::from_millis(1));
        let mut text = String::new();
        encode(&mut text, &registry(state, &timings, telemetry::example())).unwrap();
        let value = |name: &str| {
            let name = format!("checkpoint_keeper_{name} ");
            text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse::<f64>().unwrap()
        };
        assert!((3_600.0..3_700.0).contains(&value("oldest_archive_age_seconds")), "{text}");
        assert!(value("oldest_pinned_age_seconds") < 0.5, "{text}");
        assert!((value("archives_pinned_size_bytes") - 5.0).abs() < 0.5, "{text}");
        assert!((value("archives_unknown_size_bytes") - 6.0).abs() < 0.5, "{text}");
        assert!((value("unlink_seconds_count") - 1.0).abs() < 0.5, "{text}");
    }
}

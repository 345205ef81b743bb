//! The status of this node's `NodeCheckpointStore`, made from the observations. Pure, and bounded
//! whatever lies on the node.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use checkpoint_keeper_api::node_store::{
    DeletionRecord, DiscardOutcome, DiscardRecord, FileSystemStatus, LARGEST_STATUS, LONGEST_MESSAGE,
    MOST_DISCARDS, MOST_NAMESPACES, MOST_POLICIES, MOST_PROBLEMS, MOST_QUOTAS, MOST_SCHEDULES,
    MOST_UNREACHABLE, NamespaceUsage, NodeCheckpointStoreStatus, PolicyUsage, ProblemStatus, QuotaUsage,
    ReadyReason, ScheduleUsage, UnreachableLimit,
};
use checkpoint_keeper_api::parts;
use checkpoint_keeper_api::scalars::QuantityText;
use checkpoint_keeper_api::status::DryRunUsage;
use checkpoint_keeper_core::engine::discard::{DiscardReport, DiscardResult};
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::Detail;
use checkpoint_keeper_core::policy::{Mode, PolicyRef};
use checkpoint_keeper_core::schedule::ScheduleState;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::Serialize;

use super::problem_type::ProblemType;
use super::schedule_turns::in_turn;
use super::state::{Deleted, Observations};
use super::summary::{HeldLimit, Share, Summary};

/// What goes into a status beside the observations.
#[derive(Debug, Clone, Default)]
pub(super) struct StatusContext {
    /// The directory.
    pub(super) directory: String,
    /// The generation of the spec that was carried out.
    pub(super) generation: Option<i64>,
    /// What keeps the agent from seeing what it goes by; none: it sees all of it.
    pub(super) not_ready_reasons: Vec<String>,
    /// Whether the policies can be confirmed.
    pub(super) stale: Staleness,
    /// The namespaces that have quotas, and when the newest of these was created; none: there are no quotas.
    pub(super) quotas: Option<(BTreeSet<String>, Timestamp)>,
}

/// Whether policies can be confirmed, and why not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Staleness {
    /// They are.
    #[default]
    Current,
    /// Not of late: an archive goes only if those last confirmed want it gone as well.
    Stale(Vec<String>),
    /// Not for so long that they delete nothing.
    Paused(Vec<String>),
}

/// The problems because of which not all is done that policies want: each with the condition's reason. The first
/// that is there counts.
const HINDRANCES: [(ProblemType, ReadyReason); 10] = [
    (ProblemType::DirectoryUnreadable, ReadyReason::DirectoryUnreadable),
    (ProblemType::ClockSet, ReadyReason::ClockSuspect),
    (ProblemType::ServerClockDiffers, ReadyReason::ClockSuspect),
    (ProblemType::PolicyInvalid, ReadyReason::PolicyInvalid),
    (ProblemType::NodeLabelsUnknown, ReadyReason::StoragePolicyUnjudged),
    (ProblemType::FileSystemUnknown, ReadyReason::FileSystemUnknown),
    (ProblemType::WatermarkIneffective, ReadyReason::WatermarkIneffective),
    (ProblemType::WatermarkUnreachable, ReadyReason::WatermarkUnreachable),
    (ProblemType::DeletionFailed, ReadyReason::DeletionsFailing),
    (ProblemType::CatalogUnusable, ReadyReason::CatalogFailing),
];

/// The status as it should be, after the one that there is.
pub(super) fn status(
    observed: &Observations,
    context: &StatusContext,
    before: Option<&NodeCheckpointStoreStatus>,
    now: Timestamp,
) -> NodeCheckpointStoreStatus {
    let nothing = Summary::default();
    let summary = observed.summary.as_ref().unwrap_or(&nothing);
    let discards = before.map(|before| &before.discards[..]).unwrap_or_default();
    let (problems, more_problems) = problems(observed, context, before, now);
    let (quotas, more_quotas) = quotas(summary, context);
    let schedules: Vec<_> = observed.schedules.iter().filter(|state| state.containers > 0).collect();
    let mut status = NodeCheckpointStoreStatus {
        observed_generation: context.generation,
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        directory: context.directory.clone(),
        archives: whole(summary.archives),
        size: QuantityText::bytes(summary.bytes),
        pinned: whole(summary.pinned),
        incomplete: whole(summary.incomplete),
        unknown: whole(summary.unknown),
        unlisted: whole(summary.unlisted.left_out),
        without_namespace: summary.unlisted.homeless.clone(),
        more_without_namespace: whole(summary.unlisted.more_homeless),
        deletion_pending: whole(summary.pending()),
        filesystem: summary.filesystem.map(filesystem),
        storage_limits: summary.storage_limits.clone(),
        more_namespaces: whole(summary.namespaces.len().saturating_sub(MOST_NAMESPACES) as u64),
        namespaces: namespaces(summary),
        latest_quota_time: context.quotas.as_ref().map(|(_, latest)| seconds(*latest)),
        more_quotas,
        quotas,
        more_policies: whole(
            summary.policies.len().saturating_sub(MOST_POLICIES) as u64 + summary.dry_runs_waiting,
        ),
        policies: policies(summary),
        unreachable_limits: summary.unreachable.iter().take(MOST_UNREACHABLE).map(unreachable).collect(),
        more_unreachable_limits: whole(summary.unreachable.len().saturating_sub(MOST_UNREACHABLE) as u64),
        schedules: in_turn(schedules.iter().copied(), MOST_SCHEDULES).into_iter().map(schedule).collect(),
        more_schedules: whole(schedules.len().saturating_sub(MOST_SCHEDULES) as u64),
        deletions: observed.deletions.iter().map(deletion).collect(),
        discards: observed
            .discarded
            .iter()
            // As many as `spec.discard` may name. There they can be counted, also those that `fit` leaves out.
            .take(MOST_DISCARDS)
            .map(|(file, result)| discard(file, *result, discards, now))
            .collect(),
        problems,
        more_problems,
        conditions: vec![ready(observed, context, before, now)],
    };
    if let Some(before) = before.filter(|_| observed.summary.is_none()) {
        as_last_seen(&mut status, before);
    }
    fit(&mut status);
    if status.more_namespaces == 0 {
        status.latest_quota_time = None;
    }
    status
}

/// Before the directory was looked at, there is what was there at last: nobody is to take it for gone.
fn as_last_seen(status: &mut NodeCheckpointStoreStatus, before: &NodeCheckpointStoreStatus) {
    (status.archives, status.size) = (before.archives, before.size.clone());
    (status.pinned, status.incomplete, status.unknown) = (before.pinned, before.incomplete, before.unknown);
    (status.namespaces, status.more_namespaces) = (before.namespaces.clone(), before.more_namespaces);
    status.without_namespace.clone_from(&before.without_namespace);
    status.more_without_namespace = before.more_without_namespace;
    (status.quotas, status.more_quotas) = (before.quotas.clone(), before.more_quotas);
    status.latest_quota_time.clone_from(&before.latest_quota_time);
    if status.discards.is_empty() {
        status.discards.clone_from(&before.discards);
    }
}

/// The most bytes that namespaces with quotas may take: what is less than this they have for themselves.
const QUOTA_BYTES: usize = LARGEST_STATUS / 2;

/// What namespaces with quotas have here, and how many of them are left out.
fn quotas(summary: &Summary, context: &StatusContext) -> (Vec<QuotaUsage>, i64) {
    let Some((with_quota, _)) = &context.quotas else { return (Vec::new(), 0) };
    let here = summary.namespaces.iter().filter(|(name, _)| with_quota.contains(*name));
    let usage = |(name, (archives, bytes)): (&String, &(u64, u64))| QuotaUsage {
        namespace: name.clone(),
        archives: whole(*archives),
        bytes: whole(*bytes),
    };
    let mut all: Vec<_> = here.map(usage).collect();
    let count = all.len();
    all.sort_by(|one, other| {
        (Reverse(one.bytes), &one.namespace).cmp(&(Reverse(other.bytes), &other.namespace))
    });
    all.truncate(MOST_QUOTAS);
    let mut total = 0;
    let fitting = sizes(&all).into_iter().take_while(|size| {
        total += size + 1;
        total <= QUOTA_BYTES
    });
    all.truncate(fitting.count());
    let left_out = whole((count - all.len()) as u64);
    // By name, so that a size that changes does not move the others.
    all.sort_by(|one, other| one.namespace.cmp(&other.namespace));
    (all, left_out)
}

/// How many bytes the counters of what was left out may grow by.
const COUNTERS: usize = 100;

/// Leaves out what does not fit: the list with the most bytes loses its last entry, until all fits.
fn fit(status: &mut NodeCheckpointStoreStatus) {
    let mut total = bytes(status);
    let mut lists = [
        sizes(&status.deletions),
        sizes(&status.policies),
        sizes(&status.namespaces),
        sizes(&status.discards),
        sizes(&status.unreachable_limits),
        sizes(&status.schedules),
        sizes(&status.without_namespace),
    ];
    while total > LARGEST_STATUS - COUNTERS
        && let Some(longest) = lists.iter_mut().max_by_key(|list| list.iter().sum::<usize>())
        && let Some(last) = longest.pop()
    {
        // With the comma before it.
        total = total.saturating_sub(last + 1);
    }
    let [deletions, policies, namespaces, discards, unreachable, schedules, homeless] =
        lists.map(|list| list.len());
    status.deletions.truncate(deletions);
    status.more_policies += whole((status.policies.len() - policies) as u64);
    status.policies.truncate(policies);
    status.more_namespaces += whole((status.namespaces.len() - namespaces) as u64);
    status.namespaces.truncate(namespaces);
    status.discards.truncate(discards);
    status.more_unreachable_limits += whole((status.unreachable_limits.len() - unreachable) as u64);
    status.unreachable_limits.truncate(unreachable);
    status.more_schedules += whole((status.schedules.len() - schedules) as u64);
    status.schedules.truncate(schedules);
    status.more_without_namespace += whole((status.without_namespace.len() - homeless) as u64);
    status.without_namespace.truncate(homeless);
}

fn schedule(state: &ScheduleState) -> ScheduleUsage {
    let time = |time: Option<Timestamp>| time.map(seconds);
    let failure = state.last_failure.as_ref();
    ScheduleUsage {
        api_version: state.schedule.kind.api_version().to_owned(),
        namespace: state.schedule.namespace.clone(),
        name: state.schedule.name.clone(),
        generation: state.generation,
        containers: whole(state.containers as u64),
        active: i64::from(state.active),
        last_schedule_time: time(state.last_due),
        last_interval_time: time(state.last_interval),
        last_success_time: time(state.last_success),
        next_schedule_time: time(state.next),
        interval_checkpoints: whole(state.interval_successes),
        failures: i64::from(state.failures),
        reason: failure.map(|failure| failure.reason.clone()),
        message: failure.map(|failure| short(&failure.message)),
    }
}

fn sizes<T: Serialize>(list: &[T]) -> Vec<usize> {
    list.iter().map(bytes).collect()
}

/// How many bytes something has as JSON.
fn bytes<T: Serialize>(value: &T) -> usize {
    serde_json::to_vec(value).map_or(0, |text| text.len())
}

/// What is wrong, each since when it was first reported, and how much more is.
fn problems(
    observed: &Observations,
    context: &StatusContext,
    before: Option<&NodeCheckpointStoreStatus>,
    now: Timestamp,
) -> (Vec<ProblemStatus>, i64) {
    let before = before.map(|before| &before.problems[..]).unwrap_or_default();
    let watches = context.not_ready_reasons.iter().map(|why| ("NotWatching", "", why.as_str()));
    let problems = observed.problems().map(|(kind, subject, message)| (kind.name(), subject, message));
    let all: Vec<_> = watches.chain(problems).collect();
    let more = whole(all.len().saturating_sub(MOST_PROBLEMS) as u64);
    let problem = |(type_, subject, message): (&str, &str, &str)| {
        let (subject, message) = (short(subject), short(message));
        // Watches are told apart by what is said of them.
        let is_same = |known: &&ProblemStatus| {
            known.type_ == type_
                && known.subject == subject
                && (!subject.is_empty() || known.message == message)
        };
        let since = before.iter().find(is_same).map_or_else(|| seconds(now), |known| known.since.clone());
        ProblemStatus { type_: type_.to_owned(), subject, message, since }
    };
    (all.into_iter().take(MOST_PROBLEMS).map(problem).collect(), more)
}

fn unreachable(limit: &HeldLimit) -> UnreachableLimit {
    let (have, max) = match limit.detail {
        Detail::Count { have, limit } => (QuantityText::number(have), QuantityText::number(limit)),
        Detail::TotalSize { have, limit } | Detail::Size { have, limit } => {
            (QuantityText::bytes(have), QuantityText::bytes(limit))
        }
        // No other rule has a limit that pins could make unreachable.
        _ => (QuantityText::default(), QuantityText::default()),
    };
    UnreachableLimit {
        policy_ref: (&limit.policy).into(),
        limit: limit.limit.to_string(),
        groups: whole(limit.groups as u64),
        have,
        max,
        pinned: whole(limit.pinned as u64),
        files: limit.files.iter().map(|file| file.to_json_text().into_owned()).collect(),
    }
}

/// What a status says of each file of `spec.discard`.
pub(super) fn reported_discards(status: &NodeCheckpointStoreStatus) -> BTreeMap<FileName, DiscardReport> {
    let report = |record: &DiscardRecord| {
        let result = match record.result {
            DiscardOutcome::Waiting => None,
            DiscardOutcome::Deleted => Some(DiscardResult::Deleted),
            DiscardOutcome::NotFound => Some(DiscardResult::NotFound),
            DiscardOutcome::Changed => Some(DiscardResult::Changed),
            DiscardOutcome::IdentityKnown => Some(DiscardResult::IdentityKnown),
        };
        let report = DiscardReport { result, since: record.time.0 };
        FileName::new(record.file.as_bytes()).map(|file| (file, report))
    };
    status.discards.iter().filter_map(report).collect()
}

fn discard(
    file: &FileName,
    result: Option<DiscardResult>,
    before: &[DiscardRecord],
    now: Timestamp,
) -> DiscardRecord {
    let file = file.to_json_text().into_owned();
    let result = match result {
        None => DiscardOutcome::Waiting,
        Some(DiscardResult::Deleted) => DiscardOutcome::Deleted,
        Some(DiscardResult::NotFound) => DiscardOutcome::NotFound,
        Some(DiscardResult::Changed) => DiscardOutcome::Changed,
        Some(DiscardResult::IdentityKnown) => DiscardOutcome::IdentityKnown,
    };
    let same = before.iter().find(|known| known.file == file && known.result == result);
    let time = same.map_or_else(|| seconds(now), |same| same.time.clone());
    DiscardRecord { file, result, time }
}

/// Whether archives are collected here.
fn ready(
    observed: &Observations,
    context: &StatusContext,
    before: Option<&NodeCheckpointStoreStatus>,
    now: Timestamp,
) -> Condition {
    let stale = |before: &str, why: &[String]| {
        ("False", ReadyReason::PolicyStale, format!("{before}: {}", why.join("; ")))
    };
    let hindrance =
        || HINDRANCES.iter().find_map(|(kind, reason)| Some((*reason, observed.problem_of(*kind)?)));
    let (status, reason, message) = if let Some(why) = &observed.gone {
        ("False", ReadyReason::DirectoryGone, why.clone())
    } else if observed.summary.is_none() && !context.not_ready_reasons.is_empty() {
        ("False", ReadyReason::PoliciesUnknown, context.not_ready_reasons.join("; "))
    } else if observed.summary.is_none() {
        ("False", ReadyReason::Starting, "The directory has not been looked at yet.".to_owned())
    } else if let Staleness::Paused(why) = &context.stale {
        stale("Policies could not be confirmed for long and delete nothing; storage policies act", why)
    } else if let Staleness::Stale(why) = &context.stale {
        stale("An archive goes only if the policies last confirmed want it gone as well", why)
    } else if !context.not_ready_reasons.is_empty() {
        let not_ready_reasons = context.not_ready_reasons.join("; ");
        (
            "False",
            ReadyReason::NotWatching,
            format!("Decisions go by what was last seen of the cluster: {not_ready_reasons}"),
        )
    } else if let Some((reason, what)) = hindrance() {
        ("False", reason, what.to_owned())
    } else {
        (
            "True",
            ReadyReason::Collecting,
            "The policies in force are enforced; without one nothing is deleted.".to_owned(),
        )
    };
    let conditions = before.map(|before| &before.conditions[..]).unwrap_or_default();
    let same = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == status);
    Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.name().to_owned(),
        message: short(&message),
        observed_generation: context.generation,
        last_transition_time: same.map_or_else(|| seconds(now), |same| same.last_transition_time.clone()),
    }
}

fn namespaces(summary: &Summary) -> Vec<NamespaceUsage> {
    let mut all: Vec<_> = summary.namespaces.iter().collect();
    all.sort_by_key(|(name, (_, bytes))| (Reverse(*bytes), name.as_str()));
    all.truncate(MOST_NAMESPACES);
    let usage = |(name, (archives, bytes)): (&String, &(u64, u64))| NamespaceUsage {
        name: name.clone(),
        archives: whole(*archives),
        size: QuantityText::bytes(*bytes),
    };
    all.into_iter().map(usage).collect()
}

fn policies(summary: &Summary) -> Vec<PolicyUsage> {
    let mut all: Vec<_> = summary.policies.iter().collect();
    all.sort_by_key(|(id, share)| (Reverse((share.pending, share.archives)), *id));
    all.truncate(MOST_POLICIES);
    // By name again, so that a count that changes does not move the others.
    all.sort_by_key(|(id, _)| *id);
    all.into_iter().map(policy_usage).collect()
}

fn policy_usage((id, share): (&PolicyRef, &Share)) -> PolicyUsage {
    let usage = PolicyUsage { policy_ref: id.into(), generation: share.generation, ..PolicyUsage::default() };
    match share.mode {
        Mode::Enforce => PolicyUsage {
            mode: parts::Mode::Enforce,
            archives: whole(share.archives),
            size: QuantityText::bytes(share.bytes),
            deletion_pending: whole(share.pending),
            ..usage
        },
        Mode::DryRun => PolicyUsage {
            mode: parts::Mode::DryRun,
            dry_run: Some(DryRunUsage {
                would_delete: whole(share.pending),
                would_delete_size: QuantityText::bytes(share.bytes),
                would_keep: whole(share.spared),
            }),
            ..usage
        },
    }
}

/// Rounded to the percent, so that the status does not change with every byte that other processes write.
fn filesystem((total, available): (u64, u64)) -> FileSystemStatus {
    let percent = (total / 100).max(1);
    let free = available.div_ceil(percent).min(100);
    FileSystemStatus {
        capacity: QuantityText::bytes(total),
        available: QuantityText::bytes((free * percent).min(total)),
        used_percent: i32::try_from(100 - free).unwrap_or(0),
    }
}

fn deletion(deleted: &Deleted) -> DeletionRecord {
    let identity = deleted.identity.as_ref();
    DeletionRecord {
        time: seconds(deleted.at),
        file: deleted.file.chars().take(255).collect(),
        namespace: identity.map(|identity| identity.namespace.clone()),
        pod: identity.map(|identity| identity.pod.clone()),
        container: identity.map(|identity| identity.container.clone()),
        size: QuantityText::bytes(deleted.bytes),
        reason: deleted.verdict.reason.to_string(),
        message: deleted.verdict.detail.to_string().chars().take(128).collect(),
        policy_ref: deleted.verdict.policy.as_deref().map(Into::into),
    }
}

/// The API keeps times of whole seconds.
fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

fn short(text: impl AsRef<str>) -> String {
    let text = text.as_ref();
    let end =
        text.char_indices().map(|(at, sign)| at + sign.len_utf8()).take_while(|end| *end <= LONGEST_MESSAGE);
    text[..end.last().unwrap_or(0)].to_owned()
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use checkpoint_keeper_api::node_store::MOST_PINNED;
    use checkpoint_keeper_core::plan::{Detail, Reason};
    use checkpoint_keeper_core::policy::{Kind, PolicyRef};

    use super::*;
    use crate::state::AgentState;

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    /// As much of everything as a node could have.
    fn much() -> Summary {
        let mut summary = Summary { archives: u64::MAX, filesystem: Some((100, 13)), ..Summary::default() };
        for number in 0..5_000_u64 {
            summary.namespaces.insert(format!("{number:0>63}"), (1, number));
            let id = PolicyRef {
                kind: Kind::CheckpointRestoreOperator,
                namespace: Some(format!("{number:0>63}")),
                name: format!("{number:0>253}"),
                part: None,
            };
            let share = Share { archives: number, bytes: u64::MAX, ..Share::default() };
            summary.policies.insert(id.clone(), share);
            summary.unreachable.push(HeldLimit {
                policy: id,
                limit: Reason::MaxTotalSizePerContainer,
                groups: usize::MAX,
                detail: Detail::TotalSize { have: u64::MAX, limit: u64::MAX },
                pinned: usize::MAX,
                files: vec![FileName::new("x".repeat(255).as_bytes()).unwrap(); MOST_PINNED],
            });
        }
        summary
    }

    #[test]
    fn a_status_stays_below_32_kib_whatever_lies_on_the_node() {
        let state = AgentState::new();
        state.planned(much(), Instant::now());
        for number in 0..1_000 {
            state.problem(
                ProblemType::FileUnreadable,
                number.to_string(),
                format!("{number} {}", "ü".repeat(1_000)),
                Instant::now(),
            );
        }
        let name = |number: usize| FileName::new(format!("{number:x>255}").as_bytes()).unwrap();
        state.discarded(&(0..200).map(|number| (name(number), Some(DiscardResult::IdentityKnown))).collect());
        let context = StatusContext {
            directory: "/".repeat(4_096),
            generation: Some(i64::MAX),
            not_ready_reasons: vec!["x".repeat(10_000); 5],
            stale: Staleness::Stale(vec!["x".repeat(10_000); 5]),
            quotas: None,
        };
        let made = state.read(|observed| status(observed, &context, None, now()));
        let size = serde_json::to_vec(&made).unwrap().len();
        assert!(size < 32 << 10, "{size} bytes");
        assert_eq!(made.policies.len() as u64 + made.more_policies.unsigned_abs(), 5_000);
        assert!(made.policies.len() > 10 && made.discards.len() > 20, "{made:?}");
        assert_eq!((made.problems.len(), made.more_problems), (MOST_PROBLEMS, 995));
    }

    #[test]
    fn namespaces_with_a_quota_are_named_to_the_byte_however_small_and_however_many_there_are() {
        let state = AgentState::new();
        state.planned(much(), Instant::now());
        let name = |number: u64| format!("{number:0>63}");
        let with_quotas = |names: &[String], latest: &str| {
            let quotas = names.iter().cloned().collect();
            let context = StatusContext {
                quotas: Some((quotas, latest.parse().unwrap())),
                directory: "/".repeat(4_096),
                ..StatusContext::default()
            };
            let made = state.read(|observed| status(observed, &context, None, now()));
            let size = serde_json::to_vec(&made).unwrap().len();
            assert!(size < LARGEST_STATUS, "{size} bytes");
            made
        };
        // The smallest of all, one that is not rounded, and one that has nothing here.
        let few = with_quotas(&[name(0), name(4_321), "empty".to_owned()], "2026-11-24T11:00:00.5Z");
        let usage = |number: u64| QuotaUsage { namespace: name(number), archives: 1, bytes: whole(number) };
        assert_eq!((few.quotas.as_slice(), few.more_quotas), (&[usage(0), usage(4_321)][..], 0));
        assert_eq!(few.latest_quota_time, Some(Time("2026-11-24T11:00:00Z".parse().unwrap())));
        assert!(few.namespaces.iter().all(|one| one.name != name(0)), "it is not among the largest");
        // Where not even these fit, the largest do, and it is said how many are left out.
        let all: Vec<_> = (0..5_000).map(name).collect();
        let many = with_quotas(&all, "2026-11-24T11:00:00Z");
        assert!(many.quotas.len() > 100, "{}", many.quotas.len());
        assert_eq!(many.quotas.len() as u64 + many.more_quotas.unsigned_abs(), 5_000);
        assert_eq!(many.quotas.last().unwrap(), &usage(4_999));
        assert!(many.policies.len() > 5, "{}", many.policies.len());
    }

    /// Where all namespaces are named, a new quota changes nothing: no node has to write its status for it.
    #[test]
    fn when_the_newest_quota_was_created_is_said_only_where_namespaces_are_left_out() {
        let state = AgentState::new();
        let few = Summary { namespaces: [("a".to_owned(), (1, 5))].into(), ..Summary::default() };
        state.planned(few, Instant::now());
        let context = StatusContext {
            quotas: Some((BTreeSet::from(["b".to_owned()]), now())),
            ..StatusContext::default()
        };
        let made = state.read(|observed| status(observed, &context, None, now()));
        assert_eq!((made.latest_quota_time, made.quotas.len(), made.namespaces.len()), (None, 0, 1));
    }

    /// An agent that begins has not looked yet: what is there is not gone.
    #[test]
    fn before_the_directory_was_looked_at_the_status_says_what_was_there_at_last() {
        let context = StatusContext {
            quotas: Some((BTreeSet::from([format!("{:0>63}", 7)]), now())),
            ..StatusContext::default()
        };
        let state = AgentState::new();
        state.planned(much(), Instant::now());
        let before = state.read(|observed| status(observed, &context, None, now()));
        let began = AgentState::new();
        let context = StatusContext::default();
        let first = began.read(|observed| status(observed, &context, Some(&before), now()));
        assert_eq!(first.ready().unwrap().reason, "Starting");
        assert_eq!((&first.quotas, &first.namespaces), (&before.quotas, &before.namespaces));
        assert_eq!((first.archives, first.more_namespaces), (before.archives, before.more_namespaces));
        assert_eq!(first.latest_quota_time, before.latest_quota_time);
        began.planned(Summary::default(), Instant::now());
        let looked = began.read(|observed| status(observed, &context, Some(&first), now()));
        assert_eq!((looked.archives, looked.quotas.len(), looked.namespaces.len()), (0, 0, 0));
    }

    /// However many schedules a namespace has, and however much else there is to report.
    #[test]
    fn no_namespace_keeps_the_schedules_of_another_one_from_being_reported() {
        let of = |namespace: &str, number: usize| {
            let mut state = crate::metrics::example_schedule();
            (state.schedule.namespace, state.schedule.name) =
                (namespace.to_owned(), format!("{number:0>253}"));
            state
        };
        let state = AgentState::new();
        state.planned(much(), Instant::now());
        state.scheduled((0..500).map(|number| of("a-greedy", number)).chain([of("shop", 0)]).collect());
        let made = state.read(|observed| status(observed, &StatusContext::default(), None, now()));
        assert!(made.schedules.iter().any(|one| one.namespace == "shop"), "{:?}", made.schedules);
        assert_eq!(made.schedules.len() as u64 + made.more_schedules.unsigned_abs(), 501);
    }

    #[test]
    fn policies_that_were_not_computed_yet_are_counted_among_those_left_out() {
        let state = AgentState::new();
        state.planned(Summary { dry_runs_waiting: 7, ..much() }, Instant::now());
        let made = state.read(|observed| status(observed, &StatusContext::default(), None, now()));
        assert_eq!(made.policies.len() as u64 + made.more_policies.unsigned_abs(), 5_007);
    }

    #[test]
    fn what_came_of_each_file_that_is_to_be_discarded_stands_in_the_status() {
        let state = AgentState::new();
        let name = |number: usize| FileName::new(format!("checkpoint-{number:0>3}.tar").as_bytes()).unwrap();
        let results = [None, Some(DiscardResult::Deleted), Some(DiscardResult::Changed)];
        state.discarded(&(0..200).map(|number| (name(number), results[number % 3])).collect());
        let made = state.read(|observed| status(observed, &StatusContext::default(), None, now()));
        let told: Vec<_> = made.discards.iter().take(3).map(|one| (one.file.as_str(), one.result)).collect();
        let expected = [
            ("checkpoint-000.tar", DiscardOutcome::Waiting),
            ("checkpoint-001.tar", DiscardOutcome::Deleted),
            ("checkpoint-002.tar", DiscardOutcome::Changed),
        ];
        assert_eq!((told.as_slice(), made.discards.len()), (&expected[..], MOST_DISCARDS));
        // The next agent may have nothing else to go by, and its first status says the same.
        let reported = reported_discards(&made);
        assert_eq!(reported.len(), MOST_DISCARDS);
        let expected = |number: usize| DiscardReport { result: results[number], since: now() };
        assert!((0..3).all(|number| reported[&name(number)] == expected(number)));
        let first = AgentState::new()
            .read(|observed| status(observed, &StatusContext::default(), Some(&made), now()));
        assert_eq!(first.discards, made.discards);
        // Since when that is so does not change until something else is.
        let later: Timestamp = "2026-11-24T13:00:00Z".parse().unwrap();
        let next = [(name(0), Some(DiscardResult::Deleted)), (name(1), Some(DiscardResult::Deleted))];
        state.discarded(&next.into());
        let next = state.read(|observed| status(observed, &StatusContext::default(), Some(&made), later));
        assert_eq!([next.discards[0].time.0, next.discards[1].time.0], [later, now()]);
    }

    #[test]
    fn equal_observations_make_equal_statuses_so_that_none_is_written_twice() {
        let state = AgentState::new();
        state.planned(much(), Instant::now());
        let context = StatusContext::default();
        let first = state.read(|observed| status(observed, &context, None, now()));
        let later: Timestamp = "2026-11-24T13:00:00Z".parse().unwrap();
        let second = state.read(|observed| status(observed, &context, Some(&first), later));
        assert_eq!(first, second);
    }

    #[test]
    fn a_node_is_not_ready_while_less_is_done_than_policies_want() {
        let reason = |problem: Option<ProblemType>, stale: Staleness| {
            let state = AgentState::new();
            state.planned(Summary::default(), Instant::now());
            if let Some(kind) = problem {
                state.problem(kind, "about".to_owned(), format!("what is wrong: {kind:?}"), Instant::now());
            }
            let context = StatusContext { stale, ..StatusContext::default() };
            let made = state.read(|observed| status(observed, &context, None, now()));
            let ready = &made.conditions[0];
            assert_eq!(ready.status == "True", ready.reason == "Collecting", "{ready:?}");
            if let Some(kind) = problem.filter(|_| ready.reason != "PolicyStale" && ready.status != "True") {
                assert_eq!(ready.message, format!("what is wrong: {kind:?}"));
            }
            ready.reason.clone()
        };
        for (kind, expected) in [
            (ProblemType::DirectoryUnreadable, "DirectoryUnreadable"),
            (ProblemType::ClockSet, "ClockSuspect"),
            (ProblemType::ServerClockDiffers, "ClockSuspect"),
            (ProblemType::PolicyInvalid, "PolicyInvalid"),
            (ProblemType::NodeLabelsUnknown, "StoragePolicyUnjudged"),
            (ProblemType::FileSystemUnknown, "FileSystemUnknown"),
            (ProblemType::WatermarkIneffective, "WatermarkIneffective"),
            (ProblemType::WatermarkUnreachable, "WatermarkUnreachable"),
            (ProblemType::DeletionFailed, "DeletionsFailing"),
            (ProblemType::CatalogUnusable, "CatalogFailing"),
            // One archive that cannot be read keeps nothing else from being collected.
            (ProblemType::FileUnreadable, "Collecting"),
        ] {
            assert_eq!(reason(Some(kind), Staleness::Current), expected);
        }
        let why = || vec!["checkpointpolicies cannot be watched: refused".to_owned()];
        assert_eq!(reason(Some(ProblemType::ClockSet), Staleness::Stale(why())), "PolicyStale");
        assert_eq!(reason(None, Staleness::Paused(why())), "PolicyStale");
    }

    #[test]
    fn a_problem_has_a_type_a_subject_and_the_time_since_when_it_is_reported() {
        let state = AgentState::new();
        let context =
            StatusContext { not_ready_reasons: vec!["cannot watch".to_owned()], ..Default::default() };
        let problem = |what: &str| {
            state.problem(ProblemType::FileUnreadable, "a.tar".to_owned(), what.to_owned(), Instant::now());
        };
        problem("refused");
        let first = state.read(|observed| status(observed, &context, None, now()));
        let later: Timestamp = "2026-11-24T13:00:00Z".parse().unwrap();
        problem("refused again");
        state.problem(
            ProblemType::DirectoryUnreadable,
            String::new(),
            "cannot list".to_owned(),
            Instant::now(),
        );
        let second = state.read(|observed| status(observed, &context, Some(&first), later));
        let told: Vec<_> = second
            .problems
            .iter()
            .map(|one| (one.type_.as_str(), one.subject.as_str(), one.message.as_str(), one.since.0))
            .collect();
        let expected = [
            ("NotWatching", "", "cannot watch", now()),
            ("DirectoryUnreadable", "", "cannot list", later),
            ("FileUnreadable", "a.tar", "refused again", now()),
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_keeps_a_node_from_collecting_is_its_condition() {
        let state = AgentState::new();
        let told = |state: &AgentState, not_ready_reasons: &[&str]| {
            let not_ready_reasons = not_ready_reasons.iter().map(ToString::to_string).collect();
            let context = StatusContext { not_ready_reasons, ..StatusContext::default() };
            let made = state.read(|observed| status(observed, &context, None, now()));
            (made.conditions[0].status.clone(), made.conditions[0].reason.clone())
        };
        let pair = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
        assert_eq!(told(&state, &[]), pair("False", "Starting"));
        assert_eq!(told(&state, &["forbidden"]), pair("False", "PoliciesUnknown"));
        state.planned(Summary::default(), Instant::now());
        assert_eq!(told(&state, &[]), pair("True", "Collecting"));
        assert_eq!(told(&state, &["stale"]), pair("False", "NotWatching"));
        state.gone(Some("the directory is gone".to_owned()));
        assert_eq!(told(&state, &["stale"]), pair("False", "DirectoryGone"));
        assert!(state.read(|observed| observed.problems().eq([(
            ProblemType::DirectoryGone,
            "",
            "the directory is gone"
        )])));
        state.planned(Summary::default(), Instant::now());
        assert_eq!(told(&state, &[]), pair("True", "Collecting"));
    }

    #[test]
    fn the_disk_is_told_to_the_percent() {
        let full = filesystem((1_000_000, 119_999));
        assert_eq!((full.used_percent, full.available.0.as_str()), (88, "118Ki"));
        assert_eq!(filesystem((1_000_000, 0)).used_percent, 100);
        assert_eq!(filesystem((0, 0)).used_percent, 100);
        assert_eq!(filesystem((1_000_000, 1_000_000)).used_percent, 0);
    }
}

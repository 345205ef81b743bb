//! The status of this node's `NodeCheckpointStore`, made from the observations. Pure, and bounded
//! whatever lies on the node.

use std::cmp::Reverse;

use checkpoint_keeper_api::node_store::{
    DeletionRecord, DiscardRecord, FileSystemStatus, LONGEST_MESSAGE, MOST_DISCARDED, MOST_NAMESPACES,
    MOST_POLICIES, MOST_PROBLEMS, MOST_UNREACHABLE, NamespaceUsage, NodeCheckpointStoreStatus, PolicyUsage,
    UnreachableLimit,
};
use checkpoint_keeper_api::parts;
use checkpoint_keeper_core::engine::discard::DiscardResult;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::policy::Mode;
use checkpoint_keeper_core::quantity;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::state::Observations;
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
const HINDRANCES: [(&str, &str); 9] = [
    ("list", "DirectoryUnreadable"),
    ("clock", "ClockSuspect"),
    ("server clock", "ClockSuspect"),
    ("policy", "PolicyInvalid"),
    ("labels", "StoragePolicyUnjudged"),
    ("file system", "FileSystemUnknown"),
    ("watermark", "WatermarkIneffective"),
    ("delete", "DeletionsFailing"),
    ("catalog", "CatalogFailing"),
];

/// The status as it should be.
pub(super) fn status(
    observed: &Observations,
    context: &StatusContext,
    before: Option<&NodeCheckpointStoreStatus>,
    now: Timestamp,
) -> NodeCheckpointStoreStatus {
    let nothing = Summary::default();
    let summary = observed.summary.as_ref().unwrap_or(&nothing);
    let mut problems: Vec<String> =
        context.not_ready_reasons.iter().map(String::as_str).chain(observed.problems()).map(short).collect();
    let more = problems.len().saturating_sub(MOST_PROBLEMS);
    if more > 0 {
        problems.truncate(MOST_PROBLEMS - 1);
        problems.push(format!("and {} more", more + 1));
    }
    let conditions = vec![ready(observed, context, before, now)];
    NodeCheckpointStoreStatus {
        observed_generation: context.generation,
        directory: context.directory.clone(),
        archives: whole(summary.archives),
        bytes: whole(summary.bytes),
        size: quantity::human(summary.bytes),
        pinned: whole(summary.pinned),
        incomplete: whole(summary.incomplete),
        unknown: whole(summary.unknown),
        deletion_pending: whole(summary.pending()),
        filesystem: summary.filesystem.map(filesystem),
        more_namespaces: whole(summary.namespaces.len().saturating_sub(MOST_NAMESPACES) as u64),
        namespaces: namespaces(summary),
        more_policies: whole(
            summary.policies.len().saturating_sub(MOST_POLICIES) as u64 + summary.unreckoned,
        ),
        policies: policies(summary),
        unreachable_limits: summary.unreachable.iter().take(MOST_UNREACHABLE).map(unreachable).collect(),
        more_unreachable_limits: whole(summary.unreachable.len().saturating_sub(MOST_UNREACHABLE) as u64),
        deletions: observed.deletions.iter().map(deletion).collect(),
        discarded: observed.discarded.iter().take(MOST_DISCARDED).map(discarded).collect(),
        problems,
        conditions,
    }
}

fn unreachable(limit: &HeldLimit) -> UnreachableLimit {
    UnreachableLimit {
        kind: limit.policy.kind.name().to_owned(),
        namespace: limit.policy.namespace.clone(),
        name: limit.policy.name.clone(),
        limit: limit.limit.to_string(),
        groups: whole(limit.groups as u64),
        detail: limit.detail.to_string(),
        pinned: whole(limit.pinned as u64),
        files: limit.files.iter().map(|file| file.to_json_text().into_owned()).collect(),
    }
}

fn discarded((file, result): (&FileName, &Option<DiscardResult>)) -> DiscardRecord {
    let result = match result {
        None => "Waiting",
        Some(DiscardResult::Deleted) => "Deleted",
        Some(DiscardResult::NotFound) => "NotFound",
        Some(DiscardResult::Changed) => "Changed",
        Some(DiscardResult::IdentityKnown) => "IdentityKnown",
    };
    DiscardRecord { file: file.to_json_text().into_owned(), result: result.to_owned() }
}

/// Whether archives are collected here.
fn ready(
    observed: &Observations,
    context: &StatusContext,
    before: Option<&NodeCheckpointStoreStatus>,
    now: Timestamp,
) -> Condition {
    let stale =
        |before: &str, why: &[String]| ("False", "PolicyStale", format!("{before}: {}", why.join("; ")));
    let hindrance =
        || HINDRANCES.iter().find_map(|(kind, reason)| Some((*reason, observed.problem_of(kind)?)));
    let (status, reason, message) = if let Some(why) = &observed.gone {
        ("False", "DirectoryGone", why.clone())
    } else if observed.summary.is_none() && !context.not_ready_reasons.is_empty() {
        ("False", "PoliciesUnknown", context.not_ready_reasons.join("; "))
    } else if observed.summary.is_none() {
        ("False", "Starting", "The directory has not been looked at yet.".to_owned())
    } else if let Staleness::Paused(why) = &context.stale {
        stale("Policies could not be confirmed for long and delete nothing; storage policies act", why)
    } else if let Staleness::Stale(why) = &context.stale {
        stale("An archive goes only if the policies last confirmed want it gone as well", why)
    } else if !context.not_ready_reasons.is_empty() {
        let not_ready_reasons = context.not_ready_reasons.join("; ");
        ("False", "NotWatching", format!("What was last seen of the cluster is gone by: {not_ready_reasons}"))
    } else if let Some((reason, what)) = hindrance() {
        ("False", reason, what.to_owned())
    } else {
        ("True", "Collecting", "The policies in force are enforced.".to_owned())
    };
    let conditions = before.map(|before| &before.conditions[..]).unwrap_or_default();
    let same = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == status);
    Condition {
        type_: "Ready".to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
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
        bytes: whole(*bytes),
    };
    all.into_iter().map(usage).collect()
}

fn policies(summary: &Summary) -> Vec<PolicyUsage> {
    let mut all: Vec<_> = summary.policies.iter().collect();
    all.sort_by_key(|(id, share)| (Reverse((share.pending, share.archives)), *id));
    all.truncate(MOST_POLICIES);
    // By name again, so that a count that changes does not move the others.
    all.sort_by_key(|(id, _)| *id);
    let usage = |(id, share): (&checkpoint_keeper_core::policy::PolicyRef, &Share)| PolicyUsage {
        kind: id.kind.name().to_owned(),
        namespace: id.namespace.clone(),
        name: id.name.clone(),
        mode: match share.mode {
            Mode::Enforce => parts::Mode::Enforce,
            Mode::DryRun => parts::Mode::DryRun,
        },
        archives: whole(share.archives),
        bytes: whole(share.bytes),
        pending: whole(share.pending),
        spared: whole(share.spared),
    };
    all.into_iter().map(usage).collect()
}

/// To the percent, so that a status is not written for every byte that somebody else writes.
fn filesystem((total, available): (u64, u64)) -> FileSystemStatus {
    let percent = (total / 100).max(1);
    let free = available.div_ceil(percent).min(100);
    FileSystemStatus {
        capacity_bytes: whole(total),
        available_bytes: whole((free * percent).min(total)),
        used: format!("{}%", 100 - free),
    }
}

fn deletion(deleted: &super::state::Deleted) -> DeletionRecord {
    DeletionRecord {
        time: seconds(deleted.at),
        file: deleted.file.chars().take(255).collect(),
        container: deleted.container.clone(),
        bytes: whole(deleted.bytes),
        reason: deleted.verdict.reason.to_string(),
        detail: deleted.verdict.detail.to_string().chars().take(128).collect(),
        policy: deleted.verdict.policy.as_ref().map(ToString::to_string),
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
                "read",
                number.to_string(),
                format!("{number} {}", "ü".repeat(1_000)),
                Instant::now(),
            );
        }
        let context = StatusContext {
            directory: "/".repeat(4_096),
            generation: Some(i64::MAX),
            not_ready_reasons: vec!["x".repeat(10_000); 5],
            stale: Staleness::Stale(vec!["x".repeat(10_000); 5]),
        };
        let made = state.read(|observed| status(observed, &context, None, now()));
        let size = serde_json::to_vec(&made).unwrap().len();
        assert!(size < 32 << 10, "{size} bytes");
        assert_eq!((made.namespaces.len(), made.more_namespaces), (MOST_NAMESPACES, 4_960));
        assert_eq!(made.namespaces[0].bytes, 4_999);
        assert_eq!(made.problems.len(), MOST_PROBLEMS);
        assert_eq!(made.problems[MOST_PROBLEMS - 1], "and 996 more");
    }

    #[test]
    fn policies_that_were_not_reckoned_yet_are_counted_among_those_left_out() {
        let state = AgentState::new();
        state.planned(Summary { unreckoned: 7, ..much() }, Instant::now());
        let made = state.read(|observed| status(observed, &StatusContext::default(), None, now()));
        assert_eq!(made.more_policies, whole(5_007 - MOST_POLICIES as u64));
    }

    #[test]
    fn what_came_of_each_file_that_is_to_be_discarded_stands_in_the_status() {
        let state = AgentState::new();
        let name = |number: usize| FileName::new(format!("checkpoint-{number:0>3}.tar").as_bytes()).unwrap();
        let results = [None, Some(DiscardResult::Deleted), Some(DiscardResult::Changed)];
        state.discarded(&(0..200).map(|number| (name(number), results[number % 3])).collect());
        let made = state.read(|observed| status(observed, &StatusContext::default(), None, now()));
        let told: Vec<_> =
            made.discarded.iter().take(3).map(|one| (one.file.as_str(), one.result.as_str())).collect();
        let expected = [
            ("checkpoint-000.tar", "Waiting"),
            ("checkpoint-001.tar", "Deleted"),
            ("checkpoint-002.tar", "Changed"),
        ];
        assert_eq!((told.as_slice(), made.discarded.len()), (&expected[..], MOST_DISCARDED));
    }

    #[test]
    fn equal_boards_make_equal_statuses_so_that_none_is_written_twice() {
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
        let reason = |problem: Option<&'static str>, stale: Staleness| {
            let state = AgentState::new();
            state.planned(Summary::default(), Instant::now());
            if let Some(kind) = problem {
                state.problem(kind, "about".to_owned(), format!("what is wrong: {kind}"), Instant::now());
            }
            let context = StatusContext { stale, ..StatusContext::default() };
            let made = state.read(|observed| status(observed, &context, None, now()));
            let ready = &made.conditions[0];
            assert_eq!(ready.status == "True", ready.reason == "Collecting", "{ready:?}");
            if let Some(kind) = problem.filter(|_| ready.reason != "PolicyStale" && ready.status != "True") {
                assert_eq!(ready.message, format!("what is wrong: {kind}"));
            }
            ready.reason.clone()
        };
        for (kind, expected) in [
            ("list", "DirectoryUnreadable"),
            ("clock", "ClockSuspect"),
            ("server clock", "ClockSuspect"),
            ("policy", "PolicyInvalid"),
            ("labels", "StoragePolicyUnjudged"),
            ("file system", "FileSystemUnknown"),
            ("watermark", "WatermarkIneffective"),
            ("delete", "DeletionsFailing"),
            ("catalog", "CatalogFailing"),
            // One archive that cannot be read keeps nothing else from being collected.
            ("read", "Collecting"),
        ] {
            assert_eq!(reason(Some(kind), Staleness::Current), expected);
        }
        let why = || vec!["checkpointpolicies cannot be watched: refused".to_owned()];
        assert_eq!(reason(Some("clock"), Staleness::Stale(why())), "PolicyStale");
        assert_eq!(reason(None, Staleness::Paused(why())), "PolicyStale");
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
        assert!(state.read(|observed| observed.problems().eq(["the directory is gone"])));
        state.planned(Summary::default(), Instant::now());
        assert_eq!(told(&state, &[]), pair("True", "Collecting"));
    }

    #[test]
    fn the_disk_is_told_to_the_percent() {
        let full = filesystem((1_000_000, 119_999));
        assert_eq!((full.used.as_str(), full.available_bytes), ("88%", 120_000));
        assert_eq!(filesystem((1_000_000, 0)).used, "100%");
        assert_eq!(filesystem((0, 0)).used, "100%");
        assert_eq!(filesystem((1_000_000, 1_000_000)).used, "0%");
    }
}

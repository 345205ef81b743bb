//! Events on the policies that had archives deleted: one for each reason and now and then, with what was deleted
//! since the last one; not one for each archive.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use checkpoint_keeper_api::node_store::ReadyReason;
use checkpoint_keeper_core::plan::Reason;
use checkpoint_keeper_core::policy::PolicyRef;
use checkpoint_keeper_core::quantity;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::state::{AgentState, Cause};
use super::summary::{HeldLimit, whole};
use checkpoint_keeper_runtime::events::Note;

/// What events say was done.
const ACTION: &str = "DeleteArchives";

/// The shortest time between two events about one policy and reason.
const MIN_INTERVAL: Duration = Duration::from_mins(1);

/// So many events are sent at a time.
const AT_A_TIME: usize = 10;

/// How long a fault of the node, or a limit that pins made unreachable, must have been over to be told of once more.
const FORGOTTEN: Duration = Duration::from_hours(1);

/// What is told, and when it was told of last.
#[derive(Debug, Default)]
pub(super) struct Events {
    sent: BTreeMap<Cause, Instant>,
    /// The limits that were said to be unreachable, and when each last was so.
    unreachable: BTreeMap<(PolicyRef, Reason), Instant>,
    /// The faults of the node that were told of, and when each was last there.
    faults: BTreeMap<&'static str, Instant>,
    /// Whether the last thing that was told of the node is a fault.
    is_faulty: bool,
}

impl Events {
    /// What is to be told of now. Deletions of what was told of a moment ago wait, and add up.
    pub(super) fn due(&mut self, state: &AgentState, now: Instant) -> Vec<(Cause, (u64, u64))> {
        self.sent.retain(|_, at| now.saturating_duration_since(*at) < MIN_INTERVAL);
        let due = state.take_pending_events(AT_A_TIME, |cause| !self.sent.contains_key(cause));
        self.sent.extend(due.iter().map(|(cause, _)| (cause.clone(), now)));
        due
    }

    /// Whether what a status says of its node is to be told: a fault once while it lasts, and that all is well after one that
    /// was told.
    pub(super) fn is_ready_due(&mut self, ready: &Condition, now: Instant) -> bool {
        self.faults.retain(|_, last| now.saturating_duration_since(*last) < FORGOTTEN);
        match ReadyReason::of(ready) {
            Some(ReadyReason::Collecting) => std::mem::take(&mut self.is_faulty),
            Some(reason) if reason.is_fault_of_node() => {
                let is_new = self.faults.insert(reason.name(), now).is_none();
                self.is_faulty |= is_new;
                is_new
            }
            _ => false,
        }
    }

    /// The limits of which it is to be said that pins make them unreachable.
    pub(super) fn unreachable_due(&mut self, limits: &[HeldLimit], now: Instant) -> Vec<HeldLimit> {
        self.unreachable.retain(|_, last| now.saturating_duration_since(*last) < FORGOTTEN);
        let mut due = Vec::new();
        for limit in limits {
            let key = (limit.policy.clone(), limit.limit);
            let is_told = self.unreachable.contains_key(&key);
            if is_told || due.len() < AT_A_TIME {
                self.unreachable.insert(key, now);
            }
            if !is_told && due.len() < AT_A_TIME {
                due.push(limit.clone());
            }
        }
        due
    }
}

/// That pins make a limit unreachable, told of its policy. Events of what has no namespace are in `default`, so that of a
/// policy for several namespaces it is not told which archives are pinned: the node's store says so.
pub(super) fn unreachable(limit: &HeldLimit, node: &str, uids: &BTreeMap<PolicyRef, String>) -> Note {
    Note {
        about: reference(&limit.policy, uids.get(&whole(&limit.policy)).cloned()),
        is_good: false,
        reason: "LimitUnreachable".to_owned(),
        action: ACTION,
        note: format!("On {node}, {}", limit.without_others_files()),
    }
}

/// What a status says of its node, told of the node's store. The names of archives stay in the status, which fewer may
/// read than the events of the namespace `default`.
pub(super) fn node_ready(ready: &Condition, (name, uid): (&str, Option<&str>)) -> Note {
    Note {
        about: store_reference(name, uid),
        is_good: ready.status == "True",
        reason: ready.reason.clone(),
        action: "Collect",
        note: if ready.reason == ReadyReason::DeletionsFailing.name() {
            "Archives cannot be deleted; status.problems says which, and why.".to_owned()
        } else {
            ready.message.clone()
        },
    }
}

/// That archives were deleted, told of the policy that wanted it; of the node's store where none did.
pub(super) fn deleted(
    (policy, reason): &Cause,
    (count, bytes): (u64, u64),
    (name, uid): (&str, Option<&str>),
    uids: &BTreeMap<PolicyRef, String>,
) -> Note {
    let noun = if count == 1 { "archive" } else { "archives" };
    let part = policy.as_ref().and_then(|policy| policy.part.as_deref());
    let part = part.map(|part| format!(" by {part}")).unwrap_or_default();
    let note =
        format!("Deleted {count} checkpoint {noun} ({}) on {}{part}: {reason}", quantity::human(bytes), name);
    let about = match policy {
        Some(policy) => reference(policy, uids.get(&whole(policy)).cloned()),
        None => store_reference(name, uid),
    };
    Note { about, is_good: true, reason: reason.to_string(), action: ACTION, note }
}

/// How the API refers to a node's store.
fn store_reference(name: &str, uid: Option<&str>) -> ObjectReference {
    ObjectReference {
        api_version: Some("checkpoint-keeper.io/v1alpha1".to_owned()),
        kind: Some("NodeCheckpointStore".to_owned()),
        name: Some(name.to_owned()),
        uid: uid.map(str::to_owned),
        ..ObjectReference::default()
    }
}

/// How the API refers to a policy's object.
fn reference(policy: &PolicyRef, uid: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some(policy.kind.api_version().to_owned()),
        kind: Some(policy.kind.name().to_owned()),
        namespace: policy.namespace.clone(),
        name: Some(policy.name.clone()),
        uid,
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_core::name::FileName;
    use checkpoint_keeper_core::plan::Detail;

    use checkpoint_keeper_core::policy::Kind;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn policy() -> PolicyRef {
        let (kind, namespace) = (Kind::CheckpointRestoreOperator, Some("team".to_owned()));
        PolicyRef { kind, namespace, name: "main".to_owned(), part: Some("containerPolicies[1]".to_owned()) }
    }

    #[test]
    fn every_deletion_is_told_of_with_its_reason_and_none_twice() {
        let (state, begin) = (AgentState::new(), Instant::now());
        let at = |second| begin + Duration::from_secs(second);
        let mut events = Events::default();
        let cause = |reason| (Some(policy()), reason);
        state.return_pending_events(cause(Reason::MaxAge), (1, 10));
        state.return_pending_events(cause(Reason::Orphaned), (2, 20));
        let due = events.due(&state, at(0));
        assert_eq!(due, [(cause(Reason::Orphaned), (2, 20)), (cause(Reason::MaxAge), (1, 10))]);
        for second in 1..500 {
            state.return_pending_events(cause(Reason::MaxAge), (1, 10));
            let due = events.due(&state, at(second));
            let expected = if second % 60 == 0 { vec![(cause(Reason::MaxAge), (60, 600))] } else { vec![] };
            assert_eq!(due, expected, "{second}");
        }
    }

    #[test]
    fn a_limit_that_pins_make_unreachable_is_told_of_once_while_it_is_so() {
        let begin = Instant::now();
        let at = |minute| begin + Duration::from_mins(minute);
        let limit = |limit, pinned| HeldLimit {
            policy: policy(),
            limit,
            groups: 1,
            detail: Detail::Count { have: 3, limit: 1 },
            pinned,
            files: vec![FileName::new(&b"a.tar"[..]).unwrap()],
        };
        let (count, size) = (limit(Reason::MaxCountPerPod, 2), limit(Reason::MaxTotalSizePerPod, 2));
        let mut events = Events::default();
        let mut told = |limits: &[&HeldLimit], minute| -> Vec<Reason> {
            let limits: Vec<HeldLimit> = limits.iter().map(|limit| (*limit).clone()).collect();
            events.unreachable_due(&limits, at(minute)).iter().map(|limit| limit.limit).collect()
        };
        assert_eq!(told(&[&count], 0), [count.limit]);
        assert_eq!(told(&[&count, &size], 50), [size.limit]);
        // With another pin it is the same limit.
        assert_eq!(told(&[&limit(Reason::MaxCountPerPod, 3), &size], 100), []);
        // It was within reach for a moment, then for long.
        assert_eq!(told(&[], 110), []);
        assert_eq!(told(&[&size], 120), []);
        assert_eq!(told(&[&count, &size], 165), [count.limit]);
        let uids = BTreeMap::from([(whole(&policy()), "uid-1".to_owned())]);
        let note = unreachable(&count, "n1", &uids);
        assert_eq!(note.about.uid.as_deref(), Some("uid-1"));
        assert!(note.note.starts_with("On n1, CheckpointRestoreOperator/team/main"), "{}", note.note);
        // However many there are, not all are told of at once, and none is left out.
        let many: Vec<HeldLimit> = (0..25)
            .map(|number| HeldLimit {
                policy: PolicyRef { name: format!("p{number}"), ..policy() },
                ..count.clone()
            })
            .collect();
        let told: Vec<usize> =
            (0..4).map(|minute| events.unreachable_due(&many, at(200 + minute)).len()).collect();
        assert_eq!(told, [10, 10, 5, 0]);
    }

    #[test]
    fn a_fault_of_the_node_is_told_of_once_while_it_lasts_and_so_is_its_end() {
        let begin = Instant::now();
        let at = |minute| begin + Duration::from_mins(minute);
        let ready = |reason: ReadyReason| Condition {
            type_: "Ready".to_owned(),
            status: if reason == ReadyReason::Collecting { "True" } else { "False" }.to_owned(),
            reason: reason.name().to_owned(),
            message: "what is so".to_owned(),
            observed_generation: None,
            last_transition_time: Time(jiff::Timestamp::UNIX_EPOCH),
        };
        let mut events = Events::default();
        let mut told = |reason, minute| events.is_ready_due(&ready(reason), at(minute));
        let (good, fault) = (ReadyReason::Collecting, ReadyReason::WatermarkIneffective);
        assert!(!told(ReadyReason::Starting, 0) && !told(good, 0), "all is as it is to be");
        assert!(told(fault, 1) && !told(fault, 2) && told(ReadyReason::ClockSuspect, 3));
        assert!(told(good, 4) && !told(good, 5));
        // One that comes and goes is one.
        assert!(!told(fault, 50) && !told(good, 51) && !told(fault, 100) && !told(good, 101));
        assert!(told(fault, 161) && told(good, 162));
        // What is so of many nodes at once, no node tells.
        let others = [ReadyReason::PolicyStale, ReadyReason::NotWatching, ReadyReason::PolicyInvalid];
        assert!(others.into_iter().all(|reason| !told(reason, 200)) && !told(good, 201));
        let note = node_ready(&ready(fault), ("n1", Some("uid-2")));
        assert_eq!((note.reason.as_str(), note.is_good), ("WatermarkIneffective", false));
        assert_eq!(note.note, "what is so");
        let failing = node_ready(&ready(ReadyReason::DeletionsFailing), ("n1", None));
        assert!(!failing.note.contains("what is so"), "{}", failing.note);
        assert_eq!(note.about.uid.as_deref(), Some("uid-2"));
    }

    #[test]
    fn an_event_of_a_policy_for_several_namespaces_names_no_archives() {
        for (kind, namespace, names) in [
            (Kind::CheckpointPolicy, Some("team"), true),
            (Kind::CheckpointSchedule, Some("team"), true),
            (Kind::ClusterCheckpointPolicy, None, false),
            (Kind::CheckpointStoragePolicy, None, false),
            (Kind::CheckpointRestoreOperator, Some("team"), false),
        ] {
            let limit = HeldLimit {
                policy: PolicyRef {
                    kind,
                    namespace: namespace.map(str::to_owned),
                    name: "main".to_owned(),
                    part: None,
                },
                limit: Reason::MaxCountPerPod,
                groups: 2,
                detail: Detail::Count { have: 7, limit: 5 },
                pinned: 3,
                files: vec![FileName::new(&b"checkpoint-web-0_shop.tar"[..]).unwrap()],
            };
            let note = unreachable(&limit, "n1", &BTreeMap::new()).note;
            assert_eq!(note.contains("web-0"), names, "{note}");
            assert!(note.contains("(7 archives, limit 5), as 3 are pinned"), "{note}");
            assert!(note.ends_with("; so it is in another place"), "{note}");
            // The status of the node's store and its problems go on naming them.
            assert!(limit.to_string().contains("are pinned: checkpoint-web-0_shop.tar, …"));
        }
    }

    #[test]
    fn an_event_says_how_many_and_which_entry_and_is_on_the_object_with_its_uid() {
        let uids = BTreeMap::from([(whole(&policy()), "uid-1".to_owned())]);
        let note = deleted(&(Some(policy()), Reason::MaxAge), (500, 2 << 30), ("n1", Some("uid-2")), &uids);
        assert_eq!(note.note, "Deleted 500 checkpoint archives (2Gi) on n1 by containerPolicies[1]: MaxAge");
        assert_eq!((note.reason.as_str(), note.about.uid.as_deref()), ("MaxAge", Some("uid-1")));
        let note = deleted(&(None, Reason::Discarded), (1, 10), ("n1", Some("uid-2")), &uids);
        assert_eq!((note.about.name.as_deref(), note.about.uid.as_deref()), (Some("n1"), Some("uid-2")));
    }
}

//! What the status of each policy object should say, and which of them say something else. Pure: carrying it
//! out is `writer`'s part.

use std::sync::Arc;

use checkpoint_keeper_api::effective::{Acceptance, EffectivePolicies, Objects};
use checkpoint_keeper_api::node_store::UnreachableLimit;
use checkpoint_keeper_api::parts::PolicyStatus;
use checkpoint_keeper_core::policy::PolicyRef;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::totals::{NodeReport, Totals, Usage};

/// Whether a policy is in force as its author wants it.
pub const READY: &str = "Ready";
/// Whether archives are to go by it and wait.
pub const DELETION_PENDING: &str = "DeletionPending";

/// Whether pins keep one of its limits from being reached.
pub const LIMITS_UNREACHABLE: &str = "LimitsUnreachable";

/// The longest message of a condition, in bytes; the API takes eight times that.
const LONGEST_MESSAGE: usize = 4096;

/// A status to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusWrite {
    /// Of which object.
    pub id: PolicyRef,
    /// Which object of that name.
    pub uid: String,
    /// The version of it that this follows from: no other is written over.
    pub resource_version: String,
    /// All of the status.
    pub status: PolicyStatus,
    /// Whether it says anything new about the policy, or just other figures: those may wait.
    pub is_urgent: bool,
    /// What to tell beside it.
    pub news: Option<News>,
}

/// That a policy became ready, or why it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    /// Whether it is as its author wants it.
    pub is_good: bool,
    /// Why.
    pub reason: &'static str,
    /// The same in words.
    pub message: String,
}

/// The statuses that are not as they should be.
pub fn desired(
    objects: &Objects,
    effective: &EffectivePolicies,
    reports: &[Arc<NodeReport>],
    now: Timestamp,
) -> Vec<StatusWrite> {
    let totals = Totals::of(reports);
    let mut writes = Vec::new();
    for record in objects.records() {
        // One without these was not given by an API.
        let (Some(uid), Some(version)) = (record.uid, record.resource_version) else { continue };
        let Some((generation, acceptance)) = effective.acceptances.get(&record.id) else { continue };
        let before = record.status.cloned().unwrap_or_default();
        let usage = totals.usage(&record.id);
        let status = status(&before, &record.id, *generation, acceptance, &usage, now);
        if status == before {
            continue;
        }
        let told = |status: &PolicyStatus| {
            condition(status, READY).map(|ready| (ready.reason.clone(), ready.message.clone()))
        };
        // That a new policy is in force is no news to whoever made it; another error of the same kind is.
        let is_news = told(&before).map_or(!acceptance.is_ready(), |before| Some(before) != told(&status));
        writes.push(StatusWrite {
            uid: uid.to_owned(),
            resource_version: version.to_owned(),
            is_urgent: says(&before) != says(&status),
            news: is_news.then(|| News {
                is_good: acceptance.is_ready(),
                reason: acceptance.reason(),
                message: acceptance.message(&record.id),
            }),
            status,
            id: record.id,
        });
    }
    writes
}

/// The status that an object should have, after the one that it has.
fn status(
    before: &PolicyStatus,
    id: &PolicyRef,
    generation: Option<i64>,
    acceptance: &Acceptance,
    usage: &Usage,
    now: Timestamp,
) -> PolicyStatus {
    let (pending, message) = match (usage.waiting, usage.waiting_nodes) {
        (0, _) => (("False", "NothingPending"), "No archive waits for its deletion.".to_owned()),
        (archives, nodes) => (
            ("True", "DeletionLimit"),
            format!(
                "{} on {} wait for deletion, as policies may delete only so many a minute on each node.",
                counted(archives, "archive"),
                counted(nodes, "node")
            ),
        ),
    };
    let (held, held_message) = match &usage.first_unreachable {
        None => (("False", "NoneUnreachable"), "Pins keep no limit from being reached.".to_owned()),
        Some((node, limit)) => (("True", "ArchivesPinned"), unreachable(node, limit, usage.unreachable)),
    };
    let ready = (if acceptance.is_ready() { "True" } else { "False" }, acceptance.reason());
    let mut conditions = before.conditions.clone();
    for (kind, (status, reason), message) in [
        (READY, ready, acceptance.message(id)),
        (DELETION_PENDING, pending, message),
        (LIMITS_UNREACHABLE, held, held_message),
    ] {
        let mut condition = Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: shortened(message),
            observed_generation: generation,
            // The API keeps seconds.
            last_transition_time: Time(Timestamp::from_second(now.as_second()).unwrap_or(now)),
        };
        match conditions.iter_mut().find(|condition| condition.type_ == kind) {
            Some(old) => {
                if old.status == condition.status {
                    condition.last_transition_time = old.last_transition_time.clone();
                }
                *old = condition;
            }
            None => conditions.push(condition),
        }
    }
    PolicyStatus { conditions, observed_generation: generation, totals: Some(usage.totals.clone()) }
}

/// What a status says but for figures.
fn says(status: &PolicyStatus) -> Vec<(&str, &str, &str, Option<i64>)> {
    let conditions = [READY, DELETION_PENDING, LIMITS_UNREACHABLE].map(|kind| condition(status, kind));
    let told = conditions.into_iter().flatten();
    told.map(|condition| {
        // The messages of the others are nothing but figures.
        let message = if condition.type_ == READY { condition.message.as_str() } else { "" };
        (condition.status.as_str(), condition.reason.as_str(), message, condition.observed_generation)
    })
    .collect()
}

fn condition<'a>(status: &'a PolicyStatus, kind: &str) -> Option<&'a Condition> {
    status.conditions.iter().find(|condition| condition.type_ == kind)
}

/// That pins make limits unreachable: one of them, and how many more there are.
fn unreachable(node: &str, limit: &UnreachableLimit, limits: usize) -> String {
    let verb = if limit.pinned == 1 { "is" } else { "are" };
    let more = if limits > 1 {
        format!(" ({} more such limits over all nodes.)", limits - 1)
    } else {
        String::new()
    };
    let hidden = if whole(limit.files.len()) < limit.pinned { ", …" } else { "" };
    format!(
        "On {node}, {} is not reached ({}), as {} {verb} pinned: {}{hidden}.{more}",
        limit.limit,
        limit.detail,
        limit.pinned,
        limit.files.join(", ")
    )
}

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn counted(number: i64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn shortened(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        message.truncate(message.floor_char_boundary(LONGEST_MESSAGE - '…'.len_utf8()));
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_api::effective::{Scope, Seen, Unparsable, effective_policies};
    use checkpoint_keeper_api::node_store::PolicyUsage;
    use checkpoint_keeper_api::parts::{Mode, PolicyTotals};
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn policy(name: &str, spec: &Value, status: Option<&PolicyStatus>) -> Value {
        json!({
            "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "ClusterCheckpointPolicy",
            "metadata": {"name": name, "uid": format!("uid-{name}"), "resourceVersion": "7", "generation": 3},
            "spec": spec, "status": status,
        })
    }

    fn cluster(objects: &[Value]) -> Objects {
        let parsed =
            objects.iter().map(|object| Seen::Parsed(serde_json::from_value(object.clone()).unwrap()));
        Objects { cluster: parsed.collect(), ..Objects::default() }
    }

    fn writes(objects: &Objects, reports: &[Arc<NodeReport>], second: i64) -> Vec<StatusWrite> {
        desired(objects, &effective_policies(objects, &Scope::default()), reports, at(second))
    }

    fn report(archives: i64, pending: i64) -> Arc<NodeReport> {
        let usage = PolicyUsage {
            kind: "ClusterCheckpointPolicy".to_owned(),
            namespace: None,
            name: "a".to_owned(),
            mode: Mode::Enforce,
            archives,
            bytes: archives * 10,
            pending,
            spared: 0,
        };
        Arc::new(NodeReport {
            node: "n1".to_owned(),
            policies: vec![usage],
            more_policies: 0,
            unreachable: Vec::new(),
        })
    }

    fn ready(status: &PolicyStatus) -> &Condition {
        condition(status, READY).unwrap()
    }

    #[test]
    fn a_new_policy_learns_that_it_is_in_force_and_what_it_governs() {
        let objects = cluster(&[policy("a", &json!({}), None)]);
        let writes = writes(&objects, &[report(4, 2)], 0);
        let [write] = writes.as_slice() else { panic!("{writes:?}") };
        assert_eq!((write.uid.as_str(), write.resource_version.as_str()), ("uid-a", "7"));
        assert!(write.is_urgent && write.news.is_none());
        let status = &write.status;
        assert_eq!(status.observed_generation, Some(3));
        assert_eq!(
            status.totals,
            Some(PolicyTotals { nodes: 1, archives: 4, bytes: 40, pending: 2, partial: false })
        );
        let told: Vec<(&str, &str, &str, Option<i64>)> = status
            .conditions
            .iter()
            .map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str(), c.observed_generation))
            .collect();
        assert_eq!(
            told,
            [
                ("Ready", "True", "Accepted", Some(3)),
                ("DeletionPending", "True", "DeletionLimit", Some(3)),
                ("LimitsUnreachable", "False", "NoneUnreachable", Some(3)),
            ]
        );
        assert!(status.conditions[1].message.starts_with("2 archives on 1 node wait"), "{status:?}");
    }

    #[test]
    fn a_limit_that_pins_make_unreachable_is_a_condition_of_its_policy() {
        let objects = cluster(&[policy("a", &json!({}), None)]);
        let limit = |limit: &str, pinned| UnreachableLimit {
            kind: "ClusterCheckpointPolicy".to_owned(),
            namespace: None,
            name: "a".to_owned(),
            limit: limit.to_owned(),
            groups: 1,
            detail: "3 archives, limit 1".to_owned(),
            pinned,
            files: vec!["one.tar".to_owned()],
        };
        let on = |node: &str, unreachable| {
            Arc::new(NodeReport { node: node.to_owned(), unreachable, ..(*report(4, 0)).clone() })
        };
        let reports = [
            on("n2", vec![limit("MaxCountPerPod", 1)]),
            on("n1", vec![limit("MaxCountPerPod", 2), limit("MaxCountPerContainer", 2)]),
        ];
        let written = writes(&objects, &reports, 0).remove(0).status;
        let held = condition(&written, LIMITS_UNREACHABLE).unwrap();
        assert_eq!((held.status.as_str(), held.reason.as_str()), ("True", "ArchivesPinned"));
        assert_eq!(
            held.message,
            "On n1, MaxCountPerContainer is not reached (3 archives, limit 1), as 2 are pinned: one.tar, …. \
             (2 more such limits over all nodes.)"
        );
        let objects = cluster(&[policy("a", &json!({}), Some(&written))]);
        let write = writes(&objects, &[on("n1", vec![])], 60).remove(0);
        let held = condition(&write.status, LIMITS_UNREACHABLE).unwrap();
        assert_eq!((held.status.as_str(), write.is_urgent), ("False", true));
    }

    #[test]
    fn a_status_that_is_as_it_should_be_is_not_written() {
        let objects = cluster(&[policy("a", &json!({}), None)]);
        let written = writes(&objects, &[report(4, 2)], 0).remove(0).status;
        let objects = cluster(&[policy("a", &json!({}), Some(&written))]);
        assert_eq!(writes(&objects, &[report(4, 2)], 1000), []);
    }

    #[test]
    fn other_figures_can_wait_and_move_no_transition_time() {
        let objects = cluster(&[policy("a", &json!({}), None)]);
        let before = writes(&objects, &[report(4, 2)], 0).remove(0).status;
        let objects = cluster(&[policy("a", &json!({}), Some(&before))]);
        let figures = writes(&objects, &[report(5, 3)], 1000).remove(0);
        assert!(!figures.is_urgent && figures.news.is_none());
        assert!(figures.status.conditions.iter().all(|condition| condition.last_transition_time.0 == at(0)));
        // That nothing waits any more is more than a figure.
        let done = writes(&objects, &[report(4, 0)], 1000).remove(0);
        assert!(done.is_urgent);
        let pending = condition(&done.status, DELETION_PENDING).unwrap();
        assert_eq!((pending.status.as_str(), pending.last_transition_time.0), ("False", at(1000)));
        assert_eq!(ready(&done.status).last_transition_time.0, at(0));
    }

    #[test]
    fn another_reason_is_news_and_another_status_moves_the_transition_time() {
        let objects = cluster(&[policy("a", &json!({}), None)]);
        let before = writes(&objects, &[], 0).remove(0).status;
        let broken = json!({"retention": {"maxArchiveSize": 10}});
        for (what, spec, time, reason, is_good) in [
            ("a dry run is ready all the same", json!({"mode": "DryRun"}), at(0), "DryRun", true),
            ("what is wrong is not", broken, at(50), "Invalid", false),
        ] {
            let objects = cluster(&[policy("a", &spec, Some(&before))]);
            let write = writes(&objects, &[], 50).remove(0);
            assert_eq!(ready(&write.status).last_transition_time.0, time, "{what}");
            let news = write.news.unwrap();
            assert_eq!((news.reason, news.is_good), (reason, is_good), "{what}");
            assert!(write.is_urgent, "{what}");
        }
    }

    #[test]
    fn a_second_and_different_error_of_a_policy_is_news() {
        let size = |size: u32| json!({"retention": {"maxArchiveSize": size}});
        let before = writes(&cluster(&[policy("a", &size(10), None)]), &[], 0).remove(0).status;
        let age = json!({"retention": {"maxAge": "forever"}});
        let write = writes(&cluster(&[policy("a", &age, Some(&before))]), &[], 50).remove(0);
        let news = write.news.unwrap();
        assert_eq!(news.reason, "Invalid");
        assert!(news.message.contains("maxAge"), "{news:?}");
    }

    #[test]
    fn an_object_that_does_not_parse_is_told_so_once() {
        let unparsable = |status: Option<PolicyStatus>| {
            let object = Unparsable {
                name: "a".to_owned(),
                uid: Some("u".to_owned()),
                resource_version: Some("9".to_owned()),
                generation: Some(2),
                status,
                error: "spec.mode: unknown variant".to_owned(),
                ..Unparsable::default()
            };
            Objects { cluster: vec![Seen::Unparsable(Box::new(object))], ..Objects::default() }
        };
        let write = writes(&unparsable(None), &[], 0).remove(0);
        let told = ready(&write.status);
        assert_eq!((told.status.as_str(), told.reason.as_str()), ("False", "Invalid"));
        assert!(told.message.starts_with("spec.mode: unknown variant."), "{}", told.message);
        assert_eq!(write.status.observed_generation, Some(2));
        assert!(write.news.as_ref().is_some_and(|news| !news.is_good));
        assert_eq!(writes(&unparsable(Some(write.status)), &[], 1000), []);
    }

    #[test]
    fn conditions_of_others_are_left_alone() {
        let theirs = Condition {
            type_: "Audited".to_owned(),
            status: "True".to_owned(),
            reason: "Somebody".to_owned(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(at(-5)),
        };
        let before = PolicyStatus { conditions: vec![theirs.clone()], ..PolicyStatus::default() };
        let write = writes(&cluster(&[policy("a", &json!({}), Some(&before))]), &[], 0).remove(0);
        assert_eq!(write.status.conditions.len(), 4);
        assert_eq!(write.status.conditions[0], theirs);
    }

    #[test]
    fn no_message_is_longer_than_the_api_takes() {
        let text = shortened("ä".repeat(10_000));
        assert!(text.len() <= LONGEST_MESSAGE && text.ends_with("ä…"), "{}", text.len());
    }
}

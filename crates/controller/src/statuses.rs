//! What the status of each policy object should say, and which of them say something else. Pure: carrying it
//! out is `writer`'s part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use checkpoint_keeper_api::effective::{Acceptance, EffectivePolicies, Objects};
use checkpoint_keeper_api::node_store::UnreachableLimit;
use checkpoint_keeper_api::status::PolicyStatus;
use checkpoint_keeper_api::{
    CheckpointPolicy, CheckpointRestoreOperator, CheckpointSchedule, CheckpointStoragePolicy,
    ClusterCheckpointPolicy,
};
use checkpoint_keeper_core::policy::{Kind, PolicyRef};
use checkpoint_keeper_core::policy_lint;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ApiResource;

use super::condition::{self, ConditionContent};
use super::enforcement::{Enforced, EnforcedReason, Enforcement, Reach};
use super::node_report::NodeReport;
use super::status_write::{ObjectId, StatusEvent, StatusWrite};
use super::throttle::MIN_INTERVAL;
use super::totals::{Totals, Usage};

/// The type of the problem that a status cannot be written.
pub const PROBLEM: &str = "StatusUnwritten";

/// Whether a policy is understood and in force as its author wants it.
pub const ACCEPTED: &str = "Accepted";
/// Whether every node that it concerns acts by it as it is now.
pub const ENFORCED: &str = "Enforced";
/// Both in one.
pub const READY: &str = "Ready";
/// Whether archives are to go by it and wait.
pub const DELETION_PENDING: &str = "DeletionPending";

/// Whether pins keep one of its limits from being reached.
pub const LIMITS_UNREACHABLE: &str = "LimitsUnreachable";

/// Whether a part of it can never act.
pub const WITHOUT_EFFECT: &str = "WithoutEffect";

/// The status of a policy to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyWrite {
    /// The policy object.
    pub id: PolicyRef,
    /// The object's UID.
    pub uid: String,
    /// The version of the object that the status was computed from; no other version is overwritten.
    pub resource_version: String,
    /// The whole status.
    pub status: PolicyStatus,
    /// Whether more than figures has changed. Other figures alone may wait.
    pub is_urgent: bool,
    /// The change of the policy's acceptance: it became ready, or it is not ready any more, or for another reason. None:
    /// it did not change.
    pub transition: Option<StatusEvent>,
}

impl From<PolicyWrite> for StatusWrite {
    fn from(write: PolicyWrite) -> Self {
        let PolicyWrite { id, uid, resource_version, status, is_urgent, transition } = write;
        let resource = match id.kind {
            Kind::ClusterCheckpointPolicy => ApiResource::erase::<ClusterCheckpointPolicy>(&()),
            Kind::CheckpointPolicy => ApiResource::erase::<CheckpointPolicy>(&()),
            Kind::CheckpointStoragePolicy => ApiResource::erase::<CheckpointStoragePolicy>(&()),
            Kind::CheckpointRestoreOperator => ApiResource::erase::<CheckpointRestoreOperator>(&()),
            Kind::CheckpointSchedule => ApiResource::erase::<CheckpointSchedule>(&()),
        };
        Self {
            object: ObjectId { resource, namespace: id.namespace, name: id.name, uid },
            resource_version,
            status: serde_json::to_value(status).unwrap_or_default(),
            is_urgent,
            figures_wait: MIN_INTERVAL,
            event: transition,
            problem: PROBLEM,
        }
    }
}

/// The statuses that are not as they should be.
pub fn desired(
    objects: &Objects,
    effective: &EffectivePolicies,
    reports: &[Arc<NodeReport>],
    now: Timestamp,
) -> Vec<PolicyWrite> {
    let (totals, enforcement) = (Totals::of(reports), Enforcement::of(reports));
    let selecting = effective.policies.storage.iter().filter(|policy| !policy.node_selector.0.is_empty());
    let selecting: BTreeSet<&PolicyRef> = selecting.map(|policy| &policy.id).collect();
    let mut without_effect: BTreeMap<PolicyRef, Vec<String>> = BTreeMap::new();
    for found in policy_lint::without_effect(&effective.policies) {
        let text = found.without_name();
        without_effect.entry(PolicyRef { part: None, ..found.policy }).or_default().push(text);
    }
    let mut writes = Vec::new();
    for record in objects.records() {
        // One without these was not given by an API.
        let (Some(uid), Some(version)) = (record.uid, record.resource_version) else { continue };
        let Some((generation, acceptance)) = effective.acceptances.get(&record.id) else { continue };
        let before = record.status.cloned().unwrap_or_default();
        let reach = if record.id.namespace.is_some() || selecting.contains(&record.id) {
            Reach::NodesThatNameIt
        } else {
            Reach::EveryNode
        };
        let observed = Observed {
            acceptance,
            without_effect: without_effect.remove(&record.id).unwrap_or_default(),
            generation: *generation,
            usage: totals.usage(&record.id),
            enforced: enforcement.enforced(&record.id, *generation, reach),
            reach,
        };
        let status = status(&before, &record.id, &observed, now);
        if status == before {
            continue;
        }
        let accepted = |status: &PolicyStatus| {
            condition_of(status, ACCEPTED).map(|accepted| (accepted.reason.clone(), accepted.message.clone()))
        };
        let is_as_expected = acceptance.is_ready() && observed.without_effect.is_empty();
        // A new policy that is accepted needs no event: its author expects that. Another error of the same kind
        // does, which differs only in the message.
        let is_transition =
            accepted(&before).map_or(!is_as_expected, |before| Some(before) != accepted(&status));
        writes.push(PolicyWrite {
            uid: uid.to_owned(),
            resource_version: version.to_owned(),
            is_urgent: says(&before) != says(&status),
            transition: is_transition.then(|| StatusEvent {
                is_good: acceptance.is_ready(),
                reason: acceptance.reason(),
                note: observed.accepted_message(&record.id),
            }),
            status,
            id: record.id,
        });
    }
    writes
}

/// What is known of a policy.
struct Observed<'a> {
    acceptance: &'a Acceptance,
    /// What of it can never act.
    without_effect: Vec<String>,
    generation: Option<i64>,
    usage: Usage,
    enforced: Enforced,
    reach: Reach,
}

impl Observed<'_> {
    fn accepted(&self, id: &PolicyRef) -> ConditionContent {
        let status = if self.acceptance.is_ready() { "True" } else { "False" };
        ConditionContent { status, reason: self.acceptance.reason(), message: self.accepted_message(id) }
    }

    fn accepted_message(&self, id: &PolicyRef) -> String {
        let message = self.acceptance.message(id);
        match self.without_effect.as_slice() {
            [] => message,
            found => format!("{message} But: {}.", found.join("; ")),
        }
    }

    fn enforced(&self) -> ConditionContent {
        if !self.acceptance.is_in_force() {
            let reason = EnforcedReason::NotAccepted;
            let message = "It is not in force: see the condition Accepted.".to_owned();
            return ConditionContent { status: reason.status(), reason: reason.name(), message };
        }
        let reason = self.enforced.reason(self.reach);
        let message = self.enforced.message(self.reach, self.generation);
        ConditionContent { status: reason.status(), reason: reason.name(), message }
    }

    /// The policy stays ready if a node does not report while all others act by it: the node's own status shows that.
    fn ready(&self, id: &PolicyRef) -> ConditionContent {
        let (accepted, enforced) = (self.accepted(id), self.enforced());
        if accepted.status != "True" || enforced.status == "True" || self.is_enforced_where_known() {
            accepted
        } else {
            // That it is on its way is no fault.
            ConditionContent { status: "Unknown", ..enforced }
        }
    }

    fn is_enforced_where_known(&self) -> bool {
        self.enforced.acting > 0 && self.enforced.lagging == 0
    }

    fn deletion_pending(&self) -> ConditionContent {
        match (self.usage.totals.deletion_pending, self.usage.waiting_nodes) {
            (0, _) => ConditionContent {
                status: "False",
                reason: "NothingPending",
                message: "No node reports archives that wait for their deletion.".to_owned(),
            },
            (archives, nodes) => ConditionContent {
                status: "True",
                reason: "DeletionLimit",
                message: format!(
                    "{} on {} wait for deletion, as policies may delete only so many a minute on each node.",
                    counted(archives, "archive"),
                    counted(nodes, "node")
                ),
            },
        }
    }

    fn without_effect(&self) -> ConditionContent {
        match self.without_effect.as_slice() {
            [] => ConditionContent {
                status: "False",
                reason: "AllCanAct",
                message: "No part of the policy is without effect.".to_owned(),
            },
            found => ConditionContent {
                status: "True",
                reason: "CanNeverAct",
                message: format!("{}.", found.join("; ")),
            },
        }
    }

    fn limits_unreachable(&self) -> ConditionContent {
        match &self.usage.first_unreachable {
            None => ConditionContent {
                status: "False",
                reason: "NoneUnreachable",
                message: "Pins keep no limit from being reached.".to_owned(),
            },
            Some((node, limit)) => ConditionContent {
                status: "True",
                reason: "ArchivesPinned",
                message: unreachable(node, limit, self.usage.unreachable),
            },
        }
    }
}

/// The status that an object should have, after the one that it has.
fn status(before: &PolicyStatus, id: &PolicyRef, observed: &Observed<'_>, now: Timestamp) -> PolicyStatus {
    let mut conditions = before.conditions.clone();
    for (kind, content) in [
        (ACCEPTED, observed.accepted(id)),
        (ENFORCED, observed.enforced()),
        (READY, observed.ready(id)),
        (DELETION_PENDING, observed.deletion_pending()),
        (LIMITS_UNREACHABLE, observed.limits_unreachable()),
        (WITHOUT_EFFECT, observed.without_effect()),
    ] {
        condition::set(&mut conditions, kind, content, observed.generation, now);
    }
    let totals = Some(observed.usage.totals.clone());
    PolicyStatus { conditions, observed_generation: observed.generation, totals }
}

/// What a status says but for figures.
fn says(status: &PolicyStatus) -> Vec<(&str, &str, &str, Option<i64>)> {
    let kinds = [ACCEPTED, ENFORCED, READY, DELETION_PENDING, LIMITS_UNREACHABLE, WITHOUT_EFFECT];
    let conditions = kinds.map(|kind| condition_of(status, kind));
    let told = conditions.into_iter().flatten();
    told.map(|condition| {
        // The messages of the others are nothing but figures.
        let message = if condition.type_ == ACCEPTED { condition.message.as_str() } else { "" };
        (condition.status.as_str(), condition.reason.as_str(), message, condition.observed_generation)
    })
    .collect()
}

fn condition_of<'a>(status: &'a PolicyStatus, kind: &str) -> Option<&'a Condition> {
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
        "On {node}, {} is not reached ({} of {}), as {} {verb} pinned: {}{hidden}.{more}",
        limit.limit,
        limit.have.0,
        limit.max.0,
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

#[cfg(test)]
mod tests {
    use checkpoint_keeper_api::effective::{Scope, Seen, Unparsable, effective_policies};
    use checkpoint_keeper_api::node_store::PolicyUsage;
    use checkpoint_keeper_api::scalars::QuantityText;
    use checkpoint_keeper_api::status::{PolicyReference, PolicyTotals};
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
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

    fn writes(objects: &Objects, reports: &[Arc<NodeReport>], second: i64) -> Vec<PolicyWrite> {
        desired(objects, &effective_policies(objects, &Scope::default()), reports, at(second))
    }

    fn reference() -> PolicyReference {
        let (kind, name) = ("ClusterCheckpointPolicy".to_owned(), "a".to_owned());
        PolicyReference { kind, name, ..PolicyReference::default() }
    }

    fn report(archives: i64, pending: i64) -> Arc<NodeReport> {
        let usage = PolicyUsage {
            policy_ref: reference(),
            generation: Some(3),
            archives,
            size: QuantityText::number(archives.unsigned_abs() * 10),
            deletion_pending: pending,
            ..PolicyUsage::default()
        };
        Arc::new(NodeReport {
            node: "n1".to_owned(),
            acts_by_policies: true,
            policies: vec![usage],
            ..NodeReport::default()
        })
    }

    fn ready(status: &PolicyStatus) -> &Condition {
        condition_of(status, READY).unwrap()
    }

    #[test]
    fn a_new_policy_learns_that_it_is_in_force_and_what_it_governs() {
        let objects = cluster(&[policy("a", &json!({}), None)]);
        let writes = writes(&objects, &[report(4, 2)], 0);
        let [write] = writes.as_slice() else { panic!("{writes:?}") };
        assert_eq!((write.uid.as_str(), write.resource_version.as_str()), ("uid-a", "7"));
        assert!(write.is_urgent && write.transition.is_none());
        let status = &write.status;
        assert_eq!(status.observed_generation, Some(3));
        assert_eq!(
            status.totals,
            Some(PolicyTotals {
                nodes: 1,
                archives: 4,
                size: QuantityText::number(40),
                deletion_pending: 2,
                dry_run: None,
                partial: false,
            })
        );
        let told: Vec<(&str, &str, &str, Option<i64>)> = status
            .conditions
            .iter()
            .map(|c| (c.type_.as_str(), c.status.as_str(), c.reason.as_str(), c.observed_generation))
            .collect();
        assert_eq!(
            told,
            [
                ("Accepted", "True", "Accepted", Some(3)),
                ("Enforced", "True", "AllNodes", Some(3)),
                ("Ready", "True", "Accepted", Some(3)),
                ("DeletionPending", "True", "DeletionLimit", Some(3)),
                ("LimitsUnreachable", "False", "NoneUnreachable", Some(3)),
                ("WithoutEffect", "False", "AllCanAct", Some(3)),
            ]
        );
        assert!(status.conditions[3].message.starts_with("2 archives on 1 node wait"), "{status:?}");
    }

    #[test]
    fn what_of_a_policy_can_never_act_is_said_in_its_condition_and_in_an_event_once() {
        let narrow = json!({"selector": {"pods": ["web-0"]}, "retention": {
            "perContainer": {"maxCount": 9}, "perPod": {"maxCount": 2},
        }});
        let before = writes(&cluster(&[policy("a", &narrow, None)]), &[], 0).remove(0);
        let limit = "The policy is in force. But: perContainer.maxCount has no effect: perPod.maxCount is lower, \
                     and for more archives.";
        assert!(before.transition.is_some(), "also of a new policy");
        let accepted = |write: &PolicyWrite| condition_of(&write.status, ACCEPTED).unwrap().clone();
        assert_eq!((accepted(&before).status.as_str(), accepted(&before).message.as_str()), ("True", limit));
        let without_effect = condition_of(&before.status, WITHOUT_EFFECT).unwrap();
        let told = (without_effect.status.as_str(), without_effect.reason.as_str());
        assert_eq!(told, ("True", "CanNeverAct"));
        assert!(limit.ends_with(&without_effect.message), "{without_effect:?}");
        let wide = json!({"precedence": "Override"});
        let objects = cluster(&[policy("a", &narrow, Some(&before.status)), policy("b", &wide, None)]);
        let all = writes(&objects, &[], 1);
        let [shadowed, first] = all.as_slice() else { panic!("{all:?}") };
        let expected = "The policy is in force. But: governs nothing: ClusterCheckpointPolicy/b goes before it \
                        for every archive that it is for.";
        assert_eq!(accepted(shadowed).message, expected);
        let told = shadowed.transition.as_ref().unwrap();
        assert_eq!((told.is_good, told.note.as_str()), (true, expected));
        assert!(first.transition.is_none());
        let objects = cluster(&[policy("a", &narrow, Some(&shadowed.status)), policy("b", &wide, None)]);
        assert!(writes(&objects, &[], 2).iter().all(|write| write.id.name == "b"));
    }

    #[test]
    fn a_limit_that_pins_make_unreachable_is_a_condition_of_its_policy() {
        let objects = cluster(&[policy("a", &json!({}), None)]);
        let limit = |limit: &str, pinned| UnreachableLimit {
            policy_ref: reference(),
            limit: limit.to_owned(),
            groups: 1,
            have: QuantityText::number(3),
            max: QuantityText::number(1),
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
        let held = condition_of(&written, LIMITS_UNREACHABLE).unwrap();
        assert_eq!((held.status.as_str(), held.reason.as_str()), ("True", "ArchivesPinned"));
        assert_eq!(
            held.message,
            "On n1, MaxCountPerContainer is not reached (3 of 1), as 2 are pinned: one.tar, …. \
             (2 more such limits over all nodes.)"
        );
        let objects = cluster(&[policy("a", &json!({}), Some(&written))]);
        let write = writes(&objects, &[on("n1", vec![])], 60).remove(0);
        let held = condition_of(&write.status, LIMITS_UNREACHABLE).unwrap();
        assert_eq!((held.status.as_str(), write.is_urgent), ("False", true));
    }

    #[test]
    fn ready_is_unknown_until_nodes_act_by_the_newest_generation_and_then_whatever_becomes_of_some() {
        let with = |node: &str, change: fn(&mut NodeReport)| {
            let mut report = NodeReport { node: node.to_owned(), ..(*report(4, 0)).clone() };
            change(&mut report);
            Arc::new(report)
        };
        let acting = || with("n1", |_| {});
        let lagging = with("n2", |report| report.policies[0].generation = Some(2));
        let away = with("n3", |report| report.acts_by_policies = false);
        for (reports, enforced, ready) in [
            (vec![], ("Unknown", "NoNodes"), ("Unknown", "NoNodes")),
            (vec![acting()], ("True", "AllNodes"), ("True", "Accepted")),
            (vec![acting(), lagging], ("False", "NodesLag"), ("Unknown", "NodesLag")),
            (vec![acting(), Arc::clone(&away)], ("Unknown", "NodesNotReporting"), ("True", "Accepted")),
            (vec![away], ("Unknown", "NodesNotReporting"), ("Unknown", "NodesNotReporting")),
        ] {
            let objects = cluster(&[policy("a", &json!({}), None)]);
            let write = writes(&objects, &reports, 0).remove(0);
            let said = |kind| {
                let condition = condition_of(&write.status, kind).unwrap();
                (condition.status.as_str(), condition.reason.as_str())
            };
            assert_eq!((said(ENFORCED), said(READY)), (enforced, ready), "{reports:?}");
            assert!(
                write.transition.is_none(),
                "that it is accepted is no news, whatever nodes do: {write:?}"
            );
        }
        let broken = json!({"retention": {"maxArchiveSize": 10}});
        let write = writes(&cluster(&[policy("a", &broken, None)]), &[acting()], 0).remove(0);
        let reasons: Vec<_> = write.status.conditions.iter().take(3).map(|one| one.reason.as_str()).collect();
        assert_eq!(reasons, ["Invalid", "NotAccepted", "Invalid"]);
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
        assert!(!figures.is_urgent && figures.transition.is_none());
        assert!(figures.status.conditions.iter().all(|condition| condition.last_transition_time.0 == at(0)));
        // That nothing waits any more is more than a figure.
        let done = writes(&objects, &[report(4, 0)], 1000).remove(0);
        assert!(done.is_urgent);
        let pending = condition_of(&done.status, DELETION_PENDING).unwrap();
        assert_eq!((pending.status.as_str(), pending.last_transition_time.0), ("False", at(1000)));
        assert_eq!(ready(&done.status).last_transition_time.0, at(0));
    }

    #[test]
    fn another_reason_is_news_and_another_status_moves_the_transition_time() {
        let objects = cluster(&[policy("a", &json!({}), None)]);
        let before = writes(&objects, &[report(4, 2)], 0).remove(0).status;
        let broken = json!({"retention": {"maxArchiveSize": 10}});
        for (what, spec, time, reason, is_good) in [
            ("a dry run is ready all the same", json!({"mode": "DryRun"}), at(0), "DryRun", true),
            ("what is wrong is not", broken, at(50), "Invalid", false),
        ] {
            let objects = cluster(&[policy("a", &spec, Some(&before))]);
            let write = writes(&objects, &[report(4, 2)], 50).remove(0);
            assert_eq!(ready(&write.status).last_transition_time.0, time, "{what}");
            let transition = write.transition.unwrap();
            assert_eq!((transition.reason, transition.is_good), (reason, is_good), "{what}");
            assert!(write.is_urgent, "{what}");
        }
    }

    #[test]
    fn a_second_and_different_error_of_a_policy_is_news() {
        let size = |size: u32| json!({"retention": {"maxArchiveSize": size}});
        let before = writes(&cluster(&[policy("a", &size(10), None)]), &[], 0).remove(0).status;
        let age = json!({"retention": {"maxAge": "forever"}});
        let write = writes(&cluster(&[policy("a", &age, Some(&before))]), &[], 50).remove(0);
        let transition = write.transition.unwrap();
        assert_eq!(transition.reason, "Invalid");
        assert!(transition.note.contains("maxAge"), "{transition:?}");
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
        assert!(write.transition.as_ref().is_some_and(|transition| !transition.is_good));
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
        assert_eq!(write.status.conditions.len(), 7);
        assert_eq!(write.status.conditions[0], theirs);
    }
}

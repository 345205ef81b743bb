//! What the status of each schedule should say, and which of them say something else. Pure: carrying it out is
//! `writer`'s part.

use std::collections::BTreeMap;
use std::sync::Arc;

use checkpoint_keeper_api::FieldError;
use checkpoint_keeper_api::node_store::ScheduleUsage;
use checkpoint_keeper_api::schedule_status::{
    HEALTHY, READY, ScheduleError, ScheduleHealthyReason, ScheduleReadyReason,
};
use checkpoint_keeper_api::{CheckpointSchedule, LegacyCheckpointSchedule};
use checkpoint_keeper_core::policy::Mode;
use checkpoint_keeper_core::schedule::{Schedule, ScheduleKind, ScheduleRef};
use checkpoint_keeper_runtime::schedule_objects::AllSchedules;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};
use kube::api::ApiResource;
use serde_json::{Value, json};

use super::condition::{self, ConditionContent};
use super::node_report::NodeReport;
use super::status_write::{ObjectId, StatusWrite};
use super::throttle::MIN_INTERVAL;

/// The type of the problem that a status cannot be written.
pub const PROBLEM: &str = "ScheduleUnwritten";

/// Why a schedule is not carried out.
#[derive(Debug)]
struct Unusable {
    reason: ScheduleReadyReason,
    message: String,
}

impl From<ScheduleError> for Unusable {
    fn from(error: ScheduleError) -> Self {
        Self { reason: error.reason(), message: error.to_string() }
    }
}

impl Unusable {
    /// It is not what its kind says.
    fn unread(error: &str) -> Self {
        Self { reason: ScheduleReadyReason::InvalidSchedule, message: error.to_owned() }
    }
}

/// What all nodes report of a schedule together.
#[derive(Debug, Default)]
struct Sum {
    containers: i64,
    active: i64,
    interval_checkpoints: i64,
    last_due: Option<Timestamp>,
    last_interval: Option<Timestamp>,
    last_success: Option<Timestamp>,
    next: Option<Timestamp>,
    /// The nodes on which it fails: how many, and the one that is shown with what is wrong there.
    failing: usize,
    failure: Option<(String, ScheduleUsage)>,
    /// How many nodes name it that do not name all of their schedules.
    partial: usize,
}

/// The statuses that are not as they should be.
pub fn desired(
    objects: &AllSchedules,
    operator_namespace: &str,
    other_operator: bool,
    reports: &[Arc<NodeReport>],
    now: Timestamp,
) -> Vec<StatusWrite> {
    let sums = sums(reports);
    let partial = reports.iter().filter(|report| report.more_schedules > 0).count();
    let mut writes = Vec::new();
    for native in &objects.native {
        let (metadata, id, read, before) = match native {
            Ok(object) => {
                let read = object.to_schedule(now).map_err(Unusable::from);
                let before = serde_json::to_value(&object.status).unwrap_or_default();
                (&object.metadata, object.schedule_ref(), read, before)
            }
            Err(broken) => {
                let before = broken.status.clone().unwrap_or_default();
                (
                    &broken.metadata,
                    reference(ScheduleKind::Native, &broken.metadata),
                    Err(Unusable::unread(&broken.error)),
                    before,
                )
            }
        };
        let sum = sums.get(&key(&id));
        let is_suspended = read.as_ref().is_ok_and(|schedule| schedule.suspend);
        let contents =
            vec![(READY, ready(read.as_ref(), &[])), (HEALTHY, healthy(sum, partial, is_suspended))];
        let last =
            |name: &str, time: fn(&Sum) -> Option<Timestamp>| last(&before[name], sum.and_then(time), now);
        let fields = json!({
            "observedGeneration": metadata.generation,
            "lastScheduleTime": last("lastScheduleTime", |sum| sum.last_due),
            "lastSuccessTime": last("lastSuccessTime", |sum| sum.last_success),
            "nextScheduleTime": sum.and_then(|sum| sum.next).map(|time| time.to_string()),
            "active": sum.map_or(0, |sum| sum.active),
        });
        writes.extend(write(metadata, id, &before, fields, contents, now));
    }
    for legacy in &objects.legacy {
        let (metadata, id, read, before) = match legacy {
            Ok(object) => {
                let read = object.to_schedule(operator_namespace, now).map_err(Unusable::from);
                let before = serde_json::to_value(&object.status).unwrap_or_default();
                (&object.metadata, object.schedule_ref(), read, before)
            }
            Err(broken) => {
                let before = broken.status.clone().unwrap_or_default();
                (
                    &broken.metadata,
                    reference(ScheduleKind::Legacy, &broken.metadata),
                    Err(Unusable::unread(&broken.error)),
                    before,
                )
            }
        };
        if other_operator {
            // It is that one's own, its status included.
            continue;
        }
        let sum = sums.get(&key(&id));
        let ignored = read.as_ref().map(|legacy| legacy.ignored.clone()).unwrap_or_default();
        let ready = ready(read.as_ref().map(|legacy| &legacy.schedule), &ignored);
        let made = before["checkpointsCreated"].as_i64().unwrap_or_default();
        let fields = json!({
            // A node that is gone takes none of its figures back.
            "lastCheckpointTime": last(
                &before["lastCheckpointTime"],
                sum.and_then(|sum| sum.last_interval),
                now,
            ),
            "checkpointsCreated": sum.map_or(0, |sum| sum.interval_checkpoints).max(made),
        });
        writes.extend(write(metadata, id, &before, fields, vec![(READY, ready)], now));
    }
    writes
}

/// The later of what the status says and what nodes report: agents count from it where they have nothing of their
/// own, on a node that is new, or after the older operator. What is ahead of the clock is not believed.
fn last(before: &Value, reported: Option<Timestamp>, now: Timestamp) -> Option<String> {
    let before = before.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let last = reported.max(before.filter(|before| *before <= now));
    last.map(|time| time.to_string())
}

fn sums(reports: &[Arc<NodeReport>]) -> BTreeMap<(String, String, String), Sum> {
    let mut sums: BTreeMap<(String, String, String), Sum> = BTreeMap::new();
    for report in reports {
        for usage in &report.schedules {
            let key = (usage.api_version.clone(), usage.namespace.clone(), usage.name.clone());
            let sum = sums.entry(key).or_default();
            sum.add(&report.node, usage);
            sum.partial += usize::from(report.more_schedules > 0);
        }
    }
    sums
}

impl Sum {
    fn add(&mut self, node: &str, usage: &ScheduleUsage) {
        let time = |time: &Option<Time>| time.as_ref().map(|time| time.0);
        self.containers = self.containers.saturating_add(usage.containers.max(0));
        self.active = self.active.saturating_add(usage.active.max(0));
        self.interval_checkpoints =
            self.interval_checkpoints.saturating_add(usage.interval_checkpoints.max(0));
        self.last_due = self.last_due.max(time(&usage.last_schedule_time));
        self.last_interval = self.last_interval.max(time(&usage.last_interval_time));
        self.last_success = self.last_success.max(time(&usage.last_success_time));
        self.next = self.next.into_iter().chain(time(&usage.next_schedule_time)).min();
        if usage.failures > 0 {
            self.failing += 1;
            let is_shown = |(_, known): &(String, ScheduleUsage)| weight(known) >= weight(usage);
            if !self.failure.as_ref().is_some_and(is_shown) {
                self.failure = Some((node.to_owned(), usage.clone()));
            }
        }
    }
}

/// Which of two failures is shown: that of a container that may be frozen, as a user has to act, and else the later one.
fn weight(usage: &ScheduleUsage) -> (bool, Option<Timestamp>) {
    let is_frozen = usage.reason.as_deref() == Some(ScheduleHealthyReason::ContainerMayBeFrozen.name());
    (is_frozen, usage.last_schedule_time.as_ref().map(|time| time.0))
}

fn ready(read: Result<&Schedule, &Unusable>, ignored: &[FieldError]) -> ConditionContent {
    let (reason, message) = match read {
        Err(why) => (why.reason, why.message.clone()),
        Ok(schedule) if schedule.suspend => {
            (ScheduleReadyReason::Suspended, "The schedule is suspended.".to_owned())
        }
        Ok(schedule) if schedule.mode == Mode::DryRun => (
            ScheduleReadyReason::DryRun,
            "The schedule only reports which checkpoints it would make.".to_owned(),
        ),
        Ok(_) => (ScheduleReadyReason::Accepted, "The schedule is carried out by the agents.".to_owned()),
    };
    let ignored = match text(ignored) {
        text if text.is_empty() => text,
        text => format!(" Not acted on: {text}."),
    };
    let message = format!("{message}{ignored}");
    ConditionContent { status: reason.status().name(), reason: reason.name(), message }
}

/// What the nodes say of a schedule, of which so many do not name all of their schedules.
fn healthy(sum: Option<&Sum>, partial: usize, is_suspended: bool) -> ConditionContent {
    let unknown = match partial.saturating_sub(sum.map_or(0, |sum| sum.partial)) {
        0 => String::new(),
        1 => "; unknown on 1 node, whose report has no room for all schedules".to_owned(),
        nodes => {
            format!("; unknown on {nodes} nodes, whose reports have no room for all schedules")
        }
    };
    let content = |reason: ScheduleHealthyReason, message: String| ConditionContent {
        status: reason.status().name(),
        reason: reason.name(),
        message,
    };
    let failure = sum.and_then(|sum| sum.failure.as_ref());
    if is_suspended && failure.is_none() {
        let message = "The schedule is suspended: it asks for no checkpoints.".to_owned();
        return content(ScheduleHealthyReason::Suspended, message);
    }
    let Some(sum) = sum else {
        if partial > 0 {
            let message = format!("No node names it{unknown}.");
            return content(ScheduleHealthyReason::NodesNotReporting, message);
        }
        let message = "No node reports a running container that it selects.".to_owned();
        return content(ScheduleHealthyReason::NothingSelected, message);
    };
    if let Some((node, usage)) = &sum.failure {
        let reason = usage.reason.as_deref();
        let known = ScheduleHealthyReason::ALL.into_iter().find(|known| Some(known.name()) == reason);
        let message = usage.message.as_deref().unwrap_or_default();
        let more = match sum.failing {
            1 => String::new(),
            count => format!(" ({} more nodes fail)", count - 1),
        };
        let reason = known.unwrap_or(ScheduleHealthyReason::CheckpointFailed);
        return content(reason, format!("On {node}: {message}{more}{unknown}"));
    }
    let containers = sum.containers;
    if sum.last_success.is_some() {
        let message = format!("The last checkpoints of {containers} containers succeeded{unknown}.");
        return content(ScheduleHealthyReason::Succeeded, message);
    }
    let message = format!("No checkpoint was made yet; {containers} containers are selected{unknown}.");
    content(ScheduleHealthyReason::NotYetDue, message)
}

/// The write that makes the status say this, if it does not.
fn write(
    metadata: &ObjectMeta,
    id: ScheduleRef,
    before: &Value,
    mut fields: Value,
    contents: Vec<(&'static str, ConditionContent)>,
    now: Timestamp,
) -> Option<StatusWrite> {
    // One without these was not given by an API.
    let (uid, resource_version) = (metadata.uid.clone()?, metadata.resource_version.clone()?);
    let known: Vec<Condition> = serde_json::from_value(before["conditions"].clone()).unwrap_or_default();
    let mut conditions = known.clone();
    for (type_, content) in contents {
        condition::set(&mut conditions, type_, content, metadata.generation, now);
    }
    let is_urgent = conditions != known;
    fields["conditions"] = serde_json::to_value(conditions).unwrap_or_default();
    let is_same = fields.as_object()?.iter().all(|(name, value)| same(&before[name.as_str()], value));
    let resource = match id.kind {
        ScheduleKind::Native => ApiResource::erase::<CheckpointSchedule>(&()),
        ScheduleKind::Legacy => ApiResource::erase::<LegacyCheckpointSchedule>(&()),
    };
    (!is_same).then_some(StatusWrite {
        object: ObjectId { resource, namespace: Some(id.namespace), name: id.name, uid },
        resource_version,
        status: fields,
        is_urgent,
        figures_wait: MIN_INTERVAL,
        event: None,
        problem: PROBLEM,
    })
}

/// Whether both say the same: times may be written in several ways.
fn same(before: &Value, now: &Value) -> bool {
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<Timestamp>().ok());
    before == now || (time(before).is_some() && time(before) == time(now))
}

fn key(id: &ScheduleRef) -> (String, String, String) {
    (id.kind.api_version().to_owned(), id.namespace.clone(), id.name.clone())
}

fn reference(kind: ScheduleKind, metadata: &ObjectMeta) -> ScheduleRef {
    ScheduleRef {
        kind,
        namespace: metadata.namespace.clone().unwrap_or_default(),
        name: metadata.name.clone().unwrap_or_default(),
    }
}

fn text(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_780_000_000, 0);

    fn native(triggers: &Value, status: &Value) -> AllSchedules {
        let object = json!({
            "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointSchedule",
            "metadata": {"namespace": "shop", "name": "s", "uid": "u", "resourceVersion": "1", "generation": 2},
            "spec": {"selector": {}, "triggers": triggers}, "status": status,
        });
        let object: CheckpointSchedule = serde_json::from_value(object).unwrap();
        AllSchedules { native: vec![Ok(Arc::new(object))], ..AllSchedules::default() }
    }

    fn report(node: &str, failures: i64, asked: i64) -> Arc<NodeReport> {
        let time = |seconds| Some(Time(Timestamp::from_second(1_780_000_000 + seconds).unwrap()));
        let usage = ScheduleUsage {
            api_version: "checkpoint-keeper.io/v1alpha1".to_owned(),
            namespace: "shop".to_owned(),
            name: "s".to_owned(),
            generation: 2,
            containers: 3,
            active: 1,
            last_schedule_time: time(asked),
            last_success_time: time(asked - 10),
            next_schedule_time: time(asked + 60),
            failures,
            reason: (failures > 0).then(|| "CheckpointFailed".to_owned()),
            message: (failures > 0).then(|| "500: no".to_owned()),
            ..ScheduleUsage::default()
        };
        Arc::new(NodeReport { node: node.to_owned(), schedules: vec![usage], ..NodeReport::default() })
    }

    fn suspended() -> AllSchedules {
        let mut objects = native(&json!({"interval": "1h"}), &json!(null));
        let schedule = Arc::make_mut(objects.native[0].as_mut().unwrap());
        schedule.spec.suspend = Some(true);
        objects
    }

    fn one(objects: &AllSchedules, reports: &[Arc<NodeReport>]) -> Option<StatusWrite> {
        let mut writes = desired(objects, "checkpoint-keeper", false, reports, NOW);
        assert!(writes.len() <= 1);
        writes.pop()
    }

    fn said(write: &StatusWrite, type_: &str) -> String {
        let conditions = write.status["conditions"].as_array().unwrap();
        let condition = conditions.iter().find(|condition| condition["type"] == type_).unwrap();
        format!("{} {}: {}", condition["status"], condition["reason"], condition["message"]).replace('"', "")
    }

    #[test]
    fn what_the_nodes_report_is_added_up_and_written_once() {
        let hourly = json!({"interval": "1h"});
        let reports = [report("n1", 0, 0), report("n2", 0, 30)];
        let write = one(&native(&hourly, &json!(null)), &reports).unwrap();
        assert!(said(&write, "Ready").starts_with("True Accepted"), "{write:?}");
        assert!(said(&write, "Healthy").starts_with("True Succeeded"), "{write:?}");
        assert_eq!(write.status["active"], 2);
        assert_eq!(write.status["lastScheduleTime"], "2026-05-28T20:27:10Z");
        assert_eq!(write.status["lastSuccessTime"], "2026-05-28T20:27:00Z");
        assert_eq!(write.status["nextScheduleTime"], "2026-05-28T20:27:40Z");
        assert!(write.is_urgent);
        assert_eq!(one(&native(&hourly, &write.status), &reports), None);
        let failing = [report("n1", 2, 0), report("n2", 0, 30)];
        let next = one(&native(&hourly, &write.status), &failing).unwrap();
        assert_eq!(said(&next, "Healthy"), "False CheckpointFailed: On n1: 500: no");
    }

    #[test]
    fn a_schedule_that_is_suspended_is_neither_well_nor_failing() {
        let objects = suspended();
        let shown = said(&one(&objects, &[]).unwrap(), "Healthy");
        assert_eq!(shown, "Unknown Suspended: The schedule is suspended: it asks for no checkpoints.");
        let mut frozen = (*report("n1", 1, 30)).clone();
        frozen.schedules[0].reason = Some("ContainerMayBeFrozen".to_owned());
        let shown = said(&one(&objects, &[Arc::new(frozen)]).unwrap(), "Healthy");
        assert!(shown.starts_with("False ContainerMayBeFrozen"), "{shown}");
    }

    #[test]
    fn each_kind_of_failure_is_a_reason_and_a_container_that_may_be_frozen_goes_first() {
        use ScheduleHealthyReason::{
            CheckpointFailed, ContainerMayBeFrozen, InsufficientStorage, QuotaExceeded, ScheduleMissed,
        };
        let failing = |node: &str, reason: ScheduleHealthyReason, asked| {
            let mut report = (*report(node, 1, asked)).clone();
            report.schedules[0].reason = Some(reason.name().to_owned());
            Arc::new(report)
        };
        let shown = |reports: &[Arc<NodeReport>]| {
            said(&one(&native(&json!({"interval": "1h"}), &json!(null)), reports).unwrap(), "Healthy")
        };
        let reasons =
            [CheckpointFailed, InsufficientStorage, QuotaExceeded, ScheduleMissed, ContainerMayBeFrozen];
        for reason in reasons {
            let told = shown(&[failing("n1", reason, 0)]);
            assert!(told.starts_with(&format!("False {}: On n1: ", reason.name())), "{told}");
        }
        let later = failing("n2", CheckpointFailed, 60);
        assert!(shown(&[failing("n1", ScheduleMissed, 0), Arc::clone(&later)]).contains("On n2"));
        assert!(shown(&[failing("n1", ContainerMayBeFrozen, 0), later]).contains("On n1"));
    }

    /// What a node does not name may fail there.
    #[test]
    fn a_report_that_does_not_name_all_schedules_is_no_proof_that_nothing_is_selected() {
        let shown = |reports: &[Arc<NodeReport>]| {
            said(&one(&native(&json!({"interval": "1h"}), &json!(null)), reports).unwrap(), "Healthy")
        };
        let nothing = |more_schedules| Arc::new(NodeReport { more_schedules, ..NodeReport::default() });
        assert!(shown(&[nothing(0)]).starts_with("Unknown NothingSelected"), "{}", shown(&[nothing(0)]));
        assert_eq!(
            shown(&[nothing(0), nothing(400), nothing(1)]),
            "Unknown NodesNotReporting: No node names it; unknown on 2 nodes, whose reports have no room for all \
             schedules."
        );
        let named = Arc::new(NodeReport { more_schedules: 7, ..(*report("n1", 0, 0)).clone() });
        let told = shown(&[Arc::clone(&named), nothing(0)]);
        assert_eq!(told, "True Succeeded: The last checkpoints of 3 containers succeeded.");
        assert_eq!(
            shown(&[named, nothing(1)]),
            "True Succeeded: The last checkpoints of 3 containers succeeded; unknown on 1 node, whose report has no room \
             for all schedules."
        );
    }

    #[test]
    fn what_is_wrong_with_a_schedule_is_told_with_its_place() {
        let write = one(&native(&json!({"schedule": "0 25 * * *"}), &json!(null)), &[]).unwrap();
        let told = said(&write, "Ready");
        assert!(
            told.starts_with("False InvalidSchedule: spec.triggers.schedule: value must be in range 0..=23"),
            "{told}"
        );
        let write =
            one(&native(&json!({"schedule": "0 1 * * *", "timeZone": "Mars/Base"}), &json!(null)), &[]);
        let told = said(&write.unwrap(), "Ready");
        assert!(told.contains("spec.triggers.timeZone: unknown time zone"), "{told}");
    }

    #[test]
    fn the_older_operators_schedules_are_its_own_while_it_runs() {
        let object = json!({
            "apiVersion": "criu.org/v1", "kind": "CheckpointSchedule",
            "metadata": {"namespace": "shop", "name": "s", "uid": "u", "resourceVersion": "1"},
            "spec": {"namespace": "shop", "selector": {}, "triggers": {
                "interval": "1h", "onKubernetesEvents": ["NodeDrain", "Flood"]}},
            "status": {"checkpointsCreated": 7, "other": true},
        });
        let object: LegacyCheckpointSchedule = serde_json::from_value(object).unwrap();
        let objects = AllSchedules { legacy: vec![Ok(Arc::new(object))], ..AllSchedules::default() };
        assert_eq!(desired(&objects, "checkpoint-keeper", true, &[], NOW), []);
        let write = one(&objects, &[]).unwrap();
        assert!(said(&write, "Ready").contains("\\Flood\\ is none of"), "{}", said(&write, "Ready"));
        assert_eq!(write.status["checkpointsCreated"], 7);
    }

    /// B2.3: a node that is new, or has been with the older operator, counts from these.
    #[test]
    fn what_no_node_reports_any_more_stays_the_last_time() {
        let before = json!({
            "lastScheduleTime": "2026-05-27T00:00:00Z", "lastSuccessTime": "2026-05-27T00:00:05Z",
            "nextScheduleTime": "2026-05-28T00:00:00Z", "active": 1,
        });
        let write = one(&native(&json!({"interval": "1d"}), &before), &[]).unwrap();
        assert_eq!(write.status["lastScheduleTime"], "2026-05-27T00:00:00Z");
        assert_eq!(write.status["lastSuccessTime"], "2026-05-27T00:00:05Z");
        assert_eq!((&write.status["nextScheduleTime"], &write.status["active"]), (&json!(null), &json!(0)));
        let ahead = json!({"lastScheduleTime": "2036-05-27T00:00:00Z"});
        let write = one(&native(&json!({"interval": "1d"}), &ahead), &[report("n1", 0, 0)]).unwrap();
        assert_eq!(write.status["lastScheduleTime"], "2026-05-28T20:26:40Z");
        let object = json!({
            "apiVersion": "criu.org/v1", "kind": "CheckpointSchedule",
            "metadata": {"namespace": "shop", "name": "s", "uid": "u", "resourceVersion": "1"},
            "spec": {"namespace": "shop", "selector": {}, "triggers": {"interval": "1h"}},
            "status": {"lastCheckpointTime": "2026-05-28T20:00:00Z", "checkpointsCreated": 7},
        });
        let object: LegacyCheckpointSchedule = serde_json::from_value(object).unwrap();
        let objects = AllSchedules { legacy: vec![Ok(Arc::new(object))], ..AllSchedules::default() };
        assert_eq!(one(&objects, &[]).unwrap().status["lastCheckpointTime"], "2026-05-28T20:00:00Z");
    }
}

//! What schedules of both kinds mean, and what is wrong with those that mean nothing.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::time::Duration;

use checkpoint_keeper_api::schedule_status::{ConditionStatus, ScheduleHealthyReason, ScheduleReadyReason};
use checkpoint_keeper_api::{
    CheckpointSchedule, CheckpointScheduleStatus, LegacyCheckpointSchedule, LegacySchedule, ScheduleError,
};
use checkpoint_keeper_core::policy::{LabelSelector, Mode};
use checkpoint_keeper_core::schedule::{
    ArchiveRetention, Disruption, Dumping, ResourceTrigger, RunResult, Schedule, ScheduleKind, SkipReason,
    TOO_MANY_SCHEDULES, Thresholds, Triggers,
};
use jiff::Timestamp;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::constant(1_780_000_000, 0); // 2026-05-28

/// The operator's own namespace.
const OPERATOR: &str = "checkpoint-keeper";

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn metadata() -> Value {
    json!({
        "name": "hourly", "namespace": "shop", "uid": "u-1", "generation": 7,
        "creationTimestamp": "2026-05-01T00:00:00Z",
    })
}

fn native(spec: &Value) -> Result<Schedule, ScheduleError> {
    let object: CheckpointSchedule = serde_json::from_value(json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointSchedule",
        "metadata": metadata(), "spec": spec,
        "status": {"lastScheduleTime": "2026-05-27T12:00:00Z", "active": 1},
    }))
    .unwrap();
    object.to_schedule(NOW)
}

fn triggered(triggers: &Value) -> Result<Schedule, ScheduleError> {
    native(&json!({"selector": {}, "triggers": triggers}))
}

fn legacy_object(changed: impl Fn(&mut Value)) -> LegacyCheckpointSchedule {
    let mut object = json!({
        "apiVersion": "criu.org/v1", "kind": "CheckpointSchedule", "metadata": metadata(),
        "spec": {"namespace": "shop", "selector": {}, "triggers": {"interval": "1h"}},
    });
    changed(&mut object);
    serde_json::from_value(object).unwrap()
}

fn legacy(changed: impl Fn(&mut Value)) -> Result<LegacySchedule, ScheduleError> {
    legacy_object(changed).to_schedule(OPERATOR, NOW)
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn every_field_of_a_schedule_arrives() {
    let read = native(&json!({
        "mode": "DryRun",
        "selector": {"matchLabels": {"app": "db"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]},
        "containers": ["engine", "sidecar"],
        "triggers": {
            "interval": "1d",
            "schedule": "30 4 * * 1",
            "timeZone": "Europe/Berlin",
            "onAnnotation": true,
            "onDisruption": ["NodeDrain", "PodEviction", "Preemption", "PodDeletion"],
            "resources": {
                "cpuPercent": {"above": 90},
                "memoryPercent": {"above": 80, "below": 0},
                "poll": "5s",
                "cooldown": "1h",
            },
        },
        "suspend": true,
        "jitter": "90s",
        "startingDeadline": "2h",
        "timeout": "30m",
        "maxConcurrentPerNode": 4,
        "retries": {"limit": 0, "backoff": "1m"},
        "retention": {"keepLatest": 3, "maxAge": "7d"},
    }))
    .unwrap();
    assert_eq!(
        (read.id.kind, read.id.namespace.as_str(), read.id.name.as_str()),
        (ScheduleKind::Native, "shop", "hourly")
    );
    assert_eq!((read.uid.as_str(), read.generation, read.pods_namespace.as_str()), ("u-1", 7, "shop"));
    assert_eq!(
        (read.created, read.last_reported),
        (time("2026-05-01T00:00:00Z"), Some(time("2026-05-27T12:00:00Z")))
    );
    assert_eq!((read.mode, read.suspend, read.selector.0.len()), (Mode::DryRun, true, 2));
    assert_eq!(read.containers, ["engine", "sidecar"]);
    let triggers = read.triggers;
    assert_eq!((triggers.interval, triggers.jitter), (Some(seconds(86_400)), seconds(90)));
    assert_eq!(triggers.starting_deadline, Some(seconds(7_200)));
    assert_eq!(triggers.cron.unwrap().to_string(), "30 4 * * 1 Europe/Berlin");
    assert!(triggers.on_annotation);
    let all =
        [Disruption::NodeDrain, Disruption::PodEviction, Disruption::Preemption, Disruption::PodDeletion];
    assert_eq!(triggers.on_disruption, BTreeSet::from(all));
    let resources = ResourceTrigger {
        cpu: Thresholds { above: Some(90), below: None },
        memory: Thresholds { above: Some(80), below: Some(0) },
        poll: seconds(5),
        cooldown: seconds(3_600),
    };
    assert_eq!(triggers.resources, Some(resources));
    let dumping =
        Dumping { timeout: seconds(1_800), max_concurrent_per_node: 4, retries: 0, backoff: seconds(60) };
    assert_eq!(read.dumping, dumping);
    let retention = ArchiveRetention { keep_latest: Some(3), max_age: Some(seconds(604_800)) };
    assert_eq!(read.retention, retention);
}

#[test]
fn a_schedule_that_says_little_has_the_documented_defaults() {
    let read =
        triggered(&json!({"schedule": "0 * * * *", "resources": {"cpuPercent": {"below": 5}}})).unwrap();
    assert_eq!((read.mode, read.suspend, &read.selector), (Mode::Enforce, false, &LabelSelector::default()));
    assert_eq!(read.containers, Vec::<String>::new());
    assert_eq!(read.triggers.cron.as_ref().unwrap().to_string(), "0 * * * * UTC");
    let resources = read.triggers.resources.unwrap();
    assert_eq!((resources.poll, resources.cooldown), (seconds(30), seconds(300)));
    assert_eq!((read.triggers.jitter, read.triggers.starting_deadline), (Duration::ZERO, None));
    assert!(!read.triggers.on_annotation && read.triggers.on_disruption.is_empty());
    let defaults =
        Dumping { timeout: seconds(600), max_concurrent_per_node: 1, retries: 3, backoff: seconds(10) };
    assert_eq!((read.dumping, Dumping::default()), (defaults, defaults));
    assert_eq!(read.retention, ArchiveRetention::default());
    // A deadline of 0 is none, and a cooldown of 0 is one of no length.
    let zero = native(&json!({
        "selector": {}, "startingDeadline": "0", "jitter": "0s",
        "triggers": {"resources": {"cpuPercent": {"below": 5}, "cooldown": "0"}},
    }))
    .unwrap();
    assert_eq!(zero.triggers.starting_deadline, None);
    assert_eq!(zero.triggers.resources.unwrap().cooldown, Duration::ZERO);
}

/// What the API server refuses, an object may still hold that was stored before.
#[test]
fn what_is_wrong_with_a_schedule_is_told_with_the_fields_path() {
    let cron = |text: &str| json!({"selector": {}, "triggers": {"schedule": text}});
    let resources = |resources: Value| json!({"selector": {}, "triggers": {"resources": resources}});
    for (spec, expected) in [
        (
            json!({"selector": {}, "triggers": {"interval": "0s"}}),
            "spec.triggers.interval: interval must be at least 1s",
        ),
        (
            json!({"selector": {}, "triggers": {"interval": "0.1s"}}),
            "spec.triggers.interval: interval must be at least 1s",
        ),
        (
            json!({"selector": {}, "triggers": {"interval": "hourly"}}),
            "spec.triggers.interval: \"hourly\" is not a length of time; write for example 30m, 24h or 7d",
        ),
        (
            json!({"selector": {}, "triggers": {}}),
            "spec.triggers: must have one of interval, schedule, onAnnotation true, onDisruption and resources",
        ),
        (
            cron("* * * *"),
            "spec.triggers.schedule: has 4 fields; write five: minute, hour, day of month, month, day of week",
        ),
        (cron("0 25 * * *"), "spec.triggers.schedule: value must be in range 0..=23; found 25 at \"25\""),
        (cron("0 0 31 2 *"), "spec.triggers.schedule: names no time within the next four years"),
        (
            json!({"selector": {}, "triggers": {"interval": "1h", "timeZone": "UTC"}}),
            "spec.triggers.timeZone: timeZone is for schedule, which is not there",
        ),
        (resources(json!({})), "spec.triggers.resources: must have cpuPercent or memoryPercent"),
        (
            resources(json!({"cpuPercent": {}})),
            "spec.triggers.resources.cpuPercent: must have above or below",
        ),
        (
            resources(json!({"cpuPercent": {"above": 101}})),
            "spec.triggers.resources.cpuPercent.above: 101 is not a percentage between 0 and 100",
        ),
        (
            resources(json!({"memoryPercent": {"below": -1}})),
            "spec.triggers.resources.memoryPercent.below: -1 is not a percentage between 0 and 100",
        ),
        (
            resources(json!({"cpuPercent": {"above": 1}, "poll": "4s"})),
            "spec.triggers.resources.poll: poll must be at least 5s",
        ),
        (
            json!({"selector": {}, "triggers": {"interval": "1h"}, "timeout": "0"}),
            "spec.timeout: timeout must be at least 1s",
        ),
        (
            json!({"selector": {}, "triggers": {"interval": "1h"}, "timeout": "40m40m"}),
            "spec.timeout: timeout must be at most 1h",
        ),
        (
            json!({"selector": {}, "triggers": {"interval": "1h"}, "maxConcurrentPerNode": 0}),
            "spec.maxConcurrentPerNode: 0 is less than 1",
        ),
        (
            json!({"selector": {}, "triggers": {"interval": "1h"}, "retries": {"backoff": "0s"}}),
            "spec.retries.backoff: must be longer than 0, for example 1m",
        ),
        (
            json!({"selector": {}, "triggers": {"interval": "1h"}, "containers": ["a*"]}),
            "spec.containers[0]: \"a*\" must be an exact name (lower-case letters, digits, '-' and '.'); it can neither be empty nor a pattern",
        ),
        (
            json!({"selector": {"matchLabels": {"a": "-"}}, "triggers": {"interval": "1h"}}),
            "spec.selector.matchLabels.a: \"-\" must be a label's value: at most 63 letters, digits, '-', '_' and '.'",
        ),
        (
            json!({"selector": {}, "triggers": {"interval": "1h"}, "retention": {}}),
            "spec.retention: must have keepLatest or maxAge; leave retention out to keep all",
        ),
        (
            json!({"selector": {}, "triggers": {"interval": "1h"}, "retention": {"keepLatest": 0}}),
            "spec.retention.keepLatest: 0 is less than 1",
        ),
    ] {
        let error = native(&spec).unwrap_err();
        assert_eq!(error.to_string(), expected, "{spec}");
        assert_eq!(error.reason(), ScheduleReadyReason::InvalidSchedule, "{spec}");
        let path = expected.split_once(": ").unwrap().0;
        assert_eq!(error.fields()[0].path, path, "{spec}");
    }
    let two =
        native(&json!({"selector": {}, "timeout": "1", "triggers": {"schedule": "x", "interval": "0s"}}));
    let paths: Vec<_> = two.unwrap_err().fields().iter().map(|field| field.path.clone()).collect();
    assert_eq!(paths, ["spec.triggers.schedule", "spec.triggers.interval", "spec.timeout"]);
}

#[test]
fn an_unknown_time_zone_has_a_reason_of_its_own_unless_more_is_wrong() {
    let mut spec = json!({"selector": {}, "triggers": {"schedule": "0 * * * *", "timeZone": "Mars/Base"}});
    let error = native(&spec).unwrap_err();
    assert!(
        matches!(&error, ScheduleError::InvalidTimeZone(field) if field.path == "spec.triggers.timeZone")
    );
    assert_eq!(error.reason().name(), "InvalidTimeZone");
    assert!(error.to_string().contains("unknown time zone \"Mars/Base\""), "{error}");
    spec["timeout"] = json!("0s");
    let error = native(&spec).unwrap_err();
    assert_eq!((error.reason().name(), error.fields().len()), ("InvalidSchedule", 2));
}

/// B7.2: what the older operator takes, and what its fields mean.
#[test]
fn every_field_of_an_older_schedule_arrives() {
    let LegacySchedule { schedule, ignored } = legacy(|object| {
        object["spec"] = json!({
            "namespace": "shop",
            "selector": {"matchLabels": {"app": "db"}, "matchExpressions": [{"key": "x", "operator": "In", "values": ["y"]}]},
            "containerNames": ["engine"],
            "triggers": {
                "interval": "15m",
                "onAnnotation": true,
                "onKubernetesEvents": ["NodeDrain", "PodEviction", "Preemption"],
                "resourceThreshold": {
                    "cpuPercent": {"upper": 90, "lower": 5},
                    "memoryPercent": {"upper": 100},
                    "pollIntervalSeconds": 10,
                },
            },
        });
        object["status"] = json!({"lastCheckpointTime": "2026-05-27T12:00:00Z", "checkpointsCreated": 3});
    })
    .unwrap();
    assert_eq!(ignored, []);
    assert_eq!((schedule.id.kind, schedule.pods_namespace.as_str()), (ScheduleKind::Legacy, "shop"));
    assert_eq!((schedule.uid.as_str(), schedule.generation), ("u-1", 7));
    assert_eq!(schedule.last_reported, Some(time("2026-05-27T12:00:00Z")));
    assert_eq!((schedule.selector.0.len(), &schedule.containers[..]), (2, &["engine".to_owned()][..]));
    assert_eq!(
        (schedule.mode, schedule.suspend, schedule.dumping),
        (Mode::Enforce, false, Dumping::default())
    );
    // Any deletion counts as an eviction there.
    let all =
        [Disruption::NodeDrain, Disruption::PodEviction, Disruption::Preemption, Disruption::PodDeletion];
    let expected = Triggers {
        interval: Some(seconds(900)),
        on_annotation: true,
        on_disruption: BTreeSet::from(all),
        resources: Some(ResourceTrigger {
            cpu: Thresholds { above: Some(90), below: Some(5) },
            memory: Thresholds { above: Some(100), below: None },
            poll: seconds(10),
            cooldown: seconds(300),
        }),
        ..Triggers::default()
    };
    assert_eq!(schedule.triggers, expected);
}

/// B7.2: no trigger is legal, and does nothing. B1.9: an empty selector selects every pod.
#[test]
fn an_older_schedule_without_a_trigger_is_legal() {
    let read = legacy(|object| object["spec"]["triggers"] = json!({})).unwrap();
    assert!(!read.schedule.triggers.any());
    assert_eq!((read.ignored, read.schedule.selector), (vec![], LabelSelector::default()));
    let threshold = legacy(|object| object["spec"]["triggers"] = json!({"resourceThreshold": {}})).unwrap();
    assert_eq!(threshold.schedule.triggers.resources.unwrap().poll, seconds(30));
}

/// B7.3: that operator takes any of these in silence, and one of them ends it.
#[test]
fn what_of_an_older_schedule_is_not_acted_on_is_told_and_the_rest_is() {
    let read = legacy(|object| {
        object["spec"]["triggers"] = json!({
            "interval": "1h",
            "onKubernetesEvents": ["NodeDrain", "nodedrain", "PodDeletion"],
            "resourceThreshold": {
                "cpuPercent": {"upper": 101, "lower": -1}, "memoryPercent": {"upper": 80}, "pollIntervalSeconds": 0,
            },
        });
    })
    .unwrap();
    let told: Vec<_> = read.ignored.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "spec.triggers.onKubernetesEvents[1]: \"nodedrain\" is none of NodeDrain, PodEviction, Preemption",
            "spec.triggers.onKubernetesEvents[2]: \"PodDeletion\" is none of NodeDrain, PodEviction, Preemption",
            "spec.triggers.resourceThreshold.cpuPercent.upper: 101 is not a percentage between 0 and 100",
            "spec.triggers.resourceThreshold.cpuPercent.lower: -1 is not a percentage between 0 and 100",
            "spec.triggers.resourceThreshold.pollIntervalSeconds: is not between 5 and 86400, and not acted on; it is 30 instead",
        ]
    );
    let triggers = read.schedule.triggers;
    assert_eq!(triggers.interval, Some(seconds(3_600)));
    assert_eq!(triggers.on_disruption, BTreeSet::from([Disruption::NodeDrain]));
    let resources = triggers.resources.unwrap();
    assert_eq!((resources.cpu, resources.memory.above), (Thresholds::default(), Some(80)));
    assert_eq!(resources.poll, seconds(30));
    for (poll, expected) in [(4, 30), (5, 5), (-1, 30), (86_400, 86_400), (86_401, 30), (i64::MAX, 30)] {
        let threshold = json!({"cpuPercent": {"upper": 1}, "pollIntervalSeconds": poll});
        let read = legacy(|object| object["spec"]["triggers"]["resourceThreshold"] = threshold.clone());
        assert_eq!(read.unwrap().schedule.triggers.resources.unwrap().poll, seconds(expected), "{poll}");
    }
}

/// From any namespace, a schedule of the older operator freezes any other namespace's pods.
#[test]
fn only_in_the_operators_own_namespace_an_older_schedule_may_be_for_another_one() {
    let foreign = |own: &str| {
        legacy(|object| {
            object["metadata"]["namespace"] = json!(own);
            object["spec"]["namespace"] = json!("payments");
        })
    };
    let error = foreign("shop").unwrap_err();
    assert!(matches!(&error, ScheduleError::ForeignNamespace(_)));
    assert_eq!(
        (error.reason().name(), error.fields()[0].path.as_str()),
        ("ForeignNamespace", "spec.namespace")
    );
    assert_eq!(
        error.to_string(),
        "spec.namespace: \"payments\" is another namespace than that of the schedule; only schedules in \
         checkpoint-keeper may be for other namespaces"
    );
    assert_eq!(foreign(OPERATOR).unwrap().schedule.pods_namespace, "payments");
}

#[test]
fn annotations_add_what_the_older_schedule_lacks_and_a_mistyped_one_makes_nothing() {
    let annotated = |key: &str, value: &str| {
        legacy(|object| object["metadata"]["annotations"] = json!({key: value, "other.io/suspend": "yes"}))
    };
    let read = annotated("checkpoint-keeper.io/suspend", "true").unwrap().schedule;
    assert_eq!((read.suspend, read.mode), (true, Mode::Enforce));
    assert!(!annotated("checkpoint-keeper.io/suspend", "false").unwrap().schedule.suspend);
    let read = annotated("checkpoint-keeper.io/mode", "DryRun").unwrap().schedule;
    assert_eq!((read.suspend, read.mode), (false, Mode::DryRun));
    for (key, value, expected) in [
        ("checkpoint-keeper.io/suspend", "True", "\"True\" is none of true, false"),
        ("checkpoint-keeper.io/mode", "dryrun", "\"dryrun\" is none of Enforce, DryRun"),
        ("checkpoint-keeper.io/suspended", "true", "is an unknown annotation"),
    ] {
        let error = annotated(key, value).unwrap_err();
        assert_eq!(error.to_string(), format!("metadata.annotations.{key}: {expected}"));
        assert_eq!(error.reason().name(), "InvalidSchedule");
    }
}

/// B3.2: after its deletion nothing more is dumped, finalizer or not.
#[test]
fn an_older_schedule_on_its_way_out_makes_nothing() {
    let read = legacy(|object| object["metadata"]["deletionTimestamp"] = json!("2026-05-28T00:00:00Z"));
    assert!(read.unwrap().schedule.suspend);
}

/// B7.1, with that operator's words.
#[test]
fn an_interval_below_a_second_is_refused() {
    let error = legacy(|object| object["spec"]["triggers"]["interval"] = json!("0s")).unwrap_err();
    assert_eq!(error.to_string(), "spec.triggers.interval: interval must be at least 1s");
}

#[test]
fn a_status_is_read_as_it_was_written() {
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-05-01T00:00:00Z",
    });
    let whole = json!({
        "conditions": [condition],
        "observedGeneration": 3,
        "lastScheduleTime": "2026-05-27T12:00:00Z",
        "lastSuccessTime": "2026-05-27T12:00:07Z",
        "nextScheduleTime": "2026-05-28T12:00:00Z",
        "active": 2,
    });
    for status in [whole, json!({"active": 0})] {
        let read: CheckpointScheduleStatus = serde_json::from_value(status.clone()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), status);
    }
    let read: CheckpointScheduleStatus = serde_json::from_value(json!({})).unwrap();
    assert_eq!(read, CheckpointScheduleStatus::default());
}

#[test]
fn reasons_have_names_of_their_own_and_those_of_failures_are_the_events() {
    let ready: BTreeSet<_> = ScheduleReadyReason::ALL.map(ScheduleReadyReason::name).into();
    let healthy: BTreeSet<_> = ScheduleHealthyReason::ALL.map(ScheduleHealthyReason::name).into();
    assert_eq!(
        (ready.len(), healthy.len()),
        (ScheduleReadyReason::ALL.len(), ScheduleHealthyReason::ALL.len())
    );
    for result in [
        RunResult::Failed(String::new()),
        RunResult::InsufficientStorage(String::new()),
        RunResult::QuotaExceeded(String::new()),
        RunResult::Skipped(SkipReason::Missed(1)),
    ] {
        let reason = ScheduleHealthyReason::ALL.into_iter().find(|reason| reason.name() == result.name());
        assert_eq!(reason.unwrap().status(), ConditionStatus::False, "{result:?}");
    }
    let reason = ScheduleHealthyReason::ALL.into_iter().find(|reason| reason.name() == TOO_MANY_SCHEDULES);
    assert_eq!(
        reason.unwrap().status(),
        ConditionStatus::False,
        "a scheduler's reason is known to the condition"
    );
    let names =
        [ConditionStatus::True, ConditionStatus::False, ConditionStatus::Unknown].map(ConditionStatus::name);
    assert_eq!(names, ["True", "False", "Unknown"]);
    assert_eq!(ScheduleReadyReason::Suspended.status(), ConditionStatus::True);
    assert_eq!(ScheduleReadyReason::ForeignNamespace.status(), ConditionStatus::False);
}

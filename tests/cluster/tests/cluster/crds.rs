//! That the real API server takes our definitions, and refuses what they say is wrong, in words that
//! help.

use std::path::Path;

use anyhow::ensure;
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::wait;
use serde_json::{Value, json};

use crate::agents::{keep, policy};
use crate::support::{DEADLINE, NODES, REPOSITORY, cluster, install_crds};

const CLUSTER: (&str, &str) =
    ("checkpoint-keeper.io/v1alpha1/clustercheckpointpolicies", "ClusterCheckpointPolicy");
const NAMESPACED: (&str, &str) =
    ("checkpoint-keeper.io/v1alpha1/namespaces/default/checkpointpolicies", "CheckpointPolicy");
const STORAGE: (&str, &str) =
    ("checkpoint-keeper.io/v1alpha1/checkpointstoragepolicies", "CheckpointStoragePolicy");
const LEGACY: (&str, &str) =
    ("criu.org/v1/namespaces/default/checkpointrestoreoperators", "CheckpointRestoreOperator");
const SCHEDULE: (&str, &str) =
    ("checkpoint-keeper.io/v1alpha1/namespaces/default/checkpointschedules", "CheckpointSchedule");
const QUOTA: (&str, &str) =
    ("checkpoint-keeper.io/v1alpha1/namespaces/default/checkpointquotas", "CheckpointQuota");
const OLDER_SCHEDULE: (&str, &str) =
    ("criu.org/v1/namespaces/default/checkpointschedules", "CheckpointSchedule");
const STORE: (&str, &str) = ("checkpoint-keeper.io/v1alpha1/nodecheckpointstores", "NodeCheckpointStore");

/// A schedule with these triggers.
fn triggered(triggers: &Value) -> Value {
    json!({"selector": {}, "triggers": triggers})
}

/// A schedule that asks every hour, with one more field.
fn hourly(field: &str, value: Value) -> Value {
    let mut spec = triggered(&json!({"interval": "1h"}));
    spec[field] = value;
    spec
}

/// A schedule of the older operator with these triggers.
fn older(triggers: &Value) -> Value {
    json!({"namespace": "default", "selector": {}, "triggers": triggers})
}

/// What the API server says to an object, without keeping it.
fn try_create((path, kind): (&str, &str), spec: &Value) -> anyhow::Result<(u16, String)> {
    let version: Vec<&str> = path.split('/').take(2).collect();
    let object = json!({
        "apiVersion": version.join("/"), "kind": kind, "metadata": {"name": "try"}, "spec": spec,
    });
    let (status, answer) =
        cluster().create(&format!("/apis/{path}?dryRun=All&fieldValidation=Strict"), &object)?;
    Ok((status, answer["message"].as_str().unwrap_or_default().to_owned()))
}

#[test]
fn the_api_server_takes_every_definition_and_every_example() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install_crds()?;
    for namespace in ["shop-eu", "checkpoint-restore-operator-system"] {
        cluster().apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}}}}}"))?;
    }
    let mut examples = 0;
    for entry in std::fs::read_dir(Path::new(REPOSITORY).join("examples"))? {
        let path = entry?.path();
        if !path.is_file() {
            continue;
        }
        let path = path.to_string_lossy().into_owned();
        let said = output(&mut cluster().kubectl(&[
            "apply",
            "--dry-run=server",
            "--validate=strict",
            "--filename",
            &path,
        ]))?;
        ensure!(said.contains("created"), "{path}: {said}");
        examples += 1;
    }
    ensure!(examples >= 4, "only {examples} examples were found");
    Ok(())
}

#[test]
fn the_api_server_takes_what_is_right() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install_crds()?;
    let entry =
        |limit: Value| json!({"podPolicies": [{"namespace": "team", "pod": "db-0", "maxTotalSize": limit}]});
    let right = [
        (CLUSTER, json!({})),
        (CLUSTER, json!({"retention": {"maxArchiveSize": 0, "maxAge": "2w", "keepLatestFor": "Forever"}})),
        (CLUSTER, json!({"retention": {"perPod": {"maxTotalSize": "12.5%"}}})),
        (NAMESPACED, json!({"retention": {"tiers": {"hourly": 24}}, "mode": "DryRun"})),
        (STORAGE, json!({"highWatermark": "88%", "lowWatermark": "85%", "maxTotalSize": "200Gi"})),
        (LEGACY, entry(json!(0))),
        (LEGACY, entry(json!(1024))),
        (LEGACY, entry(json!("0"))),
        (LEGACY, entry(json!("2048"))),
        (LEGACY, entry(json!("2Gi"))),
        (LEGACY, entry(json!("1.5M"))),
        (LEGACY, entry(json!("1e6"))),
        (LEGACY, json!({"globalPolicy": {"maxCheckpointSize": "4Gi", "maxCheckpointsPerPod": 0}})),
        (CLUSTER, json!({"selector": {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "db"}}}})),
        (CLUSTER, json!({"orphans": {"action": "Delete"}})),
        (STORE, json!({"discard": ["checkpoint-a.tar"]})),
        (SCHEDULE, triggered(&json!({"interval": "1s"}))),
        (SCHEDULE, triggered(&json!({"interval": "1.5h"}))),
        (SCHEDULE, triggered(&json!({"schedule": "*/5 0-12/2,20 1 * mon-fri", "timeZone": "Etc/GMT+9"}))),
        (
            SCHEDULE,
            triggered(&json!({"onDisruption": ["NodeDrain", "PodEviction", "Preemption", "PodDeletion"]})),
        ),
        (
            SCHEDULE,
            triggered(&json!({"resources": {"cpuPercent": {"above": 100, "below": 0}, "poll": "5s"}})),
        ),
        (
            SCHEDULE,
            triggered(&json!({"resources": {"cpuPercent": {"above": 1}, "poll": "1m", "cooldown": "0"}})),
        ),
        (SCHEDULE, hourly("retention", json!({"keepLatest": 3, "maxAge": "7d"}))),
        (SCHEDULE, hourly("timeout", json!("1s"))),
        // What CEL's duration() of the API server has to read; the evaluator of other tests is not its.
        (SCHEDULE, hourly("timeout", json!("59m60s"))),
        (SCHEDULE, hourly("timeout", json!("+.5h1.5s1000µs1000μs7us5ns"))),
        (SCHEDULE, triggered(&json!({"interval": "0.5d"}))),
        (SCHEDULE, triggered(&json!({"interval": "99999999m999999h"}))),
        (QUOTA, json!({"hard": {"count": 0}})),
        (QUOTA, json!({"hard": {"count": 200, "bytes": "100Gi"}, "warnAt": "80%", "onExceed": "Reject"})),
        (QUOTA, json!({"hard": {"bytes": 0}, "warnAt": "0%", "onExceed": "Warn"})),
        (OLDER_SCHEDULE, older(&json!({}))),
        (OLDER_SCHEDULE, older(&json!({"interval": "12h", "onKubernetesEvents": ["NodeDrain", "Unknown"]}))),
        (
            OLDER_SCHEDULE,
            older(&json!({"resourceThreshold": {"cpuPercent": {"lower": 50}, "pollIntervalSeconds": 10}})),
        ),
    ];
    for (kind, spec) in right {
        let (status, message) = try_create(kind, &spec)?;
        ensure!(status == 201, "{} {spec} is refused: {status} {message}", kind.1);
    }
    Ok(())
}

#[test]
fn the_api_server_refuses_what_is_wrong_in_words_that_help() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install_crds()?;
    let entry =
        |limit: Value| json!({"podPolicies": [{"namespace": "team", "pod": "db-0", "maxTotalSize": limit}]});
    let small = "is below 1Ki: the value is in bytes, and so small a limit would delete every archive; \
                 write a unit, for example 10Mi";
    let duration = "must be a length of time such as 30m, 24h, 7d or 2w";
    let name = "must be an exact name (lower-case letters, digits, '-' and '.'); it can neither be empty nor a pattern";
    let wrong = [
        (CLUSTER, json!({"retention": {"maxArchiveSize": 10}}), small),
        (CLUSTER, json!({"retention": {"maxArchiveSize": "1000"}}), small),
        (
            CLUSTER,
            json!({"retention": {"maxArchiveSize": "20GB"}}),
            "must be a size such as 500Mi, 20Gi or 1Ti",
        ),
        (CLUSTER, json!({"retention": {"maxAge": "30 days"}}), duration),
        (
            CLUSTER,
            json!({"retention": {"maxAge": "7d", "tiers": {"daily": 7}}}),
            "tiers and maxAge exclude each other",
        ),
        (CLUSTER, json!({"retention": {"maxage": "7d"}}), "unknown field \"spec.retention.maxage\""),
        (CLUSTER, json!({"mode": "Dry"}), "supported values: \"Enforce\", \"DryRun\""),
        (CLUSTER, json!({"selector": {"pods": ["db-*"]}}), name),
        (CLUSTER, json!({"retention": {"keepLatest": -1}}), "should be greater than or equal to 0"),
        (NAMESPACED, json!({"retention": {"tiers": {"daily": 0}}}), "tiers that are all 0 keep nothing"),
        (
            NAMESPACED,
            json!({"selector": {"namespaceSelector": {}}}),
            "unknown field \"spec.selector.namespaceSelector\"",
        ),
        (
            STORAGE,
            json!({"highWatermark": "85%", "lowWatermark": "88%"}),
            "lowWatermark must be below highWatermark",
        ),
        (STORAGE, json!({"lowWatermark": "85%"}), "set highWatermark as well"),
        (
            STORAGE,
            json!({"highWatermark": "85x", "lowWatermark": "80%"}),
            "must be a share between 0% and 100%",
        ),
        (CLUSTER, json!({"orphans": {"when": "PodDeleted"}}), "spec.orphans.action: Required value"),
        (CLUSTER, json!({"retention": {"maxAge": "10000w"}}), "is too long; the most are 9999w"),
        (
            CLUSTER,
            json!({"selector": {"podSelector": {"matchLabels": {"a b": "c"}}}}),
            "each key must be a label's key",
        ),
        (STORE, json!({"discard": ["../passwd"]}), "must be the name of a file in the checkpoint directory"),
        (STORAGE, json!({"highWatermark": "88"}), "must be a share between 0% and 100%"),
        (STORAGE, json!({"highWatermark": "8%"}), "must be at least 50%"),
        (
            STORAGE,
            json!({"highWatermark": "90%", "criticalWatermark": "85%"}),
            "criticalWatermark must not be below highWatermark",
        ),
        (LEGACY, json!({"globalPolicy": {"maxCheckpointSize": 10}}), small),
        (LEGACY, entry(json!(10)), small),
        (LEGACY, entry(json!(-1)), small),
        (LEGACY, entry(json!("10")), small),
        (LEGACY, entry(json!("0.5Ki")), small),
        (LEGACY, json!({"dryRun": true}), "unknown field \"spec.dryRun\""),
        (LEGACY, entry(json!("10 Gi")), "should match"),
        (
            LEGACY,
            json!({"podPolicies": [{"namespace": "team", "maxCheckpoints": 1}]}),
            "spec.podPolicies[0].pod: Required value",
        ),
        (LEGACY, json!({"podPolicies": [{"namespace": "team", "pod": "*", "maxCheckpoints": 1}]}), name),
        (SCHEDULE, json!({"triggers": {"interval": "1h"}}), "spec.selector: Required value"),
        (SCHEDULE, triggered(&json!({})), "must have one of interval, schedule, onAnnotation true"),
        (SCHEDULE, triggered(&json!({"onAnnotation": false})), "must have one of interval, schedule"),
        (SCHEDULE, triggered(&json!({"interval": "0s"})), "interval must be at least 1s"),
        (SCHEDULE, triggered(&json!({"interval": "500ms"})), "interval must be at least 1s"),
        (SCHEDULE, triggered(&json!({"interval": "hourly"})), duration),
        (SCHEDULE, triggered(&json!({"schedule": "* * * *"})), "must have five fields"),
        (SCHEDULE, triggered(&json!({"schedule": "@daily"})), "must have five fields"),
        (
            SCHEDULE,
            triggered(&json!({"schedule": "0 0 * * *", "timeZone": "Mars Base"})),
            "must be the name of a time zone",
        ),
        (SCHEDULE, triggered(&json!({"interval": "1h", "timeZone": "UTC"})), "timeZone is for schedule"),
        (SCHEDULE, triggered(&json!({"onDisruption": ["Reboot"]})), "supported values: \"NodeDrain\""),
        (SCHEDULE, triggered(&json!({"onDisruption": ["NodeDrain", "NodeDrain"]})), "Duplicate value"),
        (SCHEDULE, triggered(&json!({"resources": {}})), "must have cpuPercent or memoryPercent"),
        (SCHEDULE, triggered(&json!({"resources": {"cpuPercent": {}}})), "must have above or below"),
        (
            SCHEDULE,
            triggered(&json!({"resources": {"cpuPercent": {"above": 101}}})),
            "should be less than or equal to 100",
        ),
        (
            SCHEDULE,
            triggered(&json!({"resources": {"cpuPercent": {"above": 1}, "poll": "4s"}})),
            "poll must be at least 5s",
        ),
        (SCHEDULE, hourly("timeout", json!("0s")), "timeout must be at least 1s"),
        (SCHEDULE, hourly("timeout", json!("0.5s")), "timeout must be at least 1s"),
        (SCHEDULE, hourly("timeout", json!("60m1s")), "timeout must be at most 1h"),
        (SCHEDULE, hourly("timeout", json!("1d")), "timeout must be at most 1h"),
        (SCHEDULE, hourly("retries", json!({"backoff": "0s"})), "must be longer than 0"),
        (SCHEDULE, hourly("maxConcurrentPerNode", json!(0)), "should be greater than or equal to 1"),
        (SCHEDULE, hourly("retention", json!({})), "must have keepLatest or maxAge"),
        (SCHEDULE, hourly("retention", json!({"keepLatest": 0})), "should be greater than or equal to 1"),
        (SCHEDULE, hourly("containers", json!(["app*"])), name),
        (QUOTA, json!({}), "spec.hard: Required value"),
        (QUOTA, json!({"hard": {}}), "must have count or bytes"),
        (QUOTA, json!({"hard": {"count": -1}}), "should be greater than or equal to 0"),
        (QUOTA, json!({"hard": {"bytes": 100}}), "so little would reject every checkpoint"),
        (QUOTA, json!({"hard": {"bytes": "100GB"}}), "must be a size such as"),
        (QUOTA, json!({"hard": {"count": 1}, "warnAt": "80"}), "must be a share between 0% and 100%"),
        (
            QUOTA,
            json!({"hard": {"count": 1}, "onExceed": "Delete"}),
            "supported values: \"Reject\", \"Warn\"",
        ),
        (OLDER_SCHEDULE, older(&json!({"interval": "0s"})), "interval must be at least 1s"),
        (OLDER_SCHEDULE, json!({"selector": {}, "triggers": {}}), "spec.namespace: Required value"),
    ];
    for (kind, spec, words) in wrong {
        let (status, message) = try_create(kind, &spec)?;
        // Unknown fields are a bad request, the rest is unprocessable.
        ensure!(status == 422 || status == 400, "{} {spec} is accepted: {status} {message}", kind.1);
        ensure!(message.contains(words), "{} {spec}: {message:?} does not say {words:?}", kind.1);
        ensure!(!message.contains("no such overload"), "{} {spec}: {message:?}", kind.1);
    }
    Ok(())
}

#[test]
fn kubectl_explains_and_lists_our_kinds() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install_crds()?;
    let explain = |path: &str| output(&mut cluster().kubectl(&["explain", path]));
    // What is explained is served a moment after a definition is established.
    wait::until(
        "the definitions to be explained",
        DEADLINE,
        || Ok(explain("cckpol.spec.retention").is_ok()),
    )?;
    let retention = explain("cckpol.spec.retention")?;
    ensure!(
        retention.contains("keepLatest\t<integer>")
            && retention.contains("keepLatest is how many of the newest"),
        "{retention}"
    );
    for path in [
        "ckpol.spec",
        "ckstorage.spec",
        "cksched.spec",
        "ckquota.spec",
        "nckstore.spec",
        "checkpointrestoreoperators.spec",
    ] {
        let fields = wait::for_value(path, DEADLINE, || explain(path).map(Some))?;
        ensure!(!fields.contains("<no description>"), "{path} has a field without a description: {fields}");
    }
    let namespace = cluster().namespace("listed")?;
    policy(&namespace, "mine", &keep(1))?;
    let listed = output(&mut cluster().kubectl(&["get", "checkpoint-keeper", "--all-namespaces"]))?;
    let is_listed = |line: &str| line.starts_with(namespace.name()) && line.contains("mine");
    ensure!(listed.lines().any(is_listed), "{listed}");
    // What nobody has looked at says so.
    let path = format!(
        "/apis/checkpoint-keeper.io/v1alpha1/namespaces/{}/checkpointpolicies/mine",
        namespace.name()
    );
    let conditions = &cluster().get(&path)?["status"]["conditions"];
    ensure!(conditions[0]["status"] == "Unknown" && conditions[0]["reason"] == "Pending", "{conditions}");
    Ok(())
}

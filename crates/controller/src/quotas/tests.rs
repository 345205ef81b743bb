//! Quotas and reports in, statuses out.

use checkpoint_keeper_api::{CheckpointQuota, NodeCheckpointStoreStatus};
use checkpoint_keeper_runtime::guarded::Broken;

use super::*;

const NOW: Timestamp = Timestamp::constant(1_780_000_000, 0); // 2026-05-28T20:26:40Z

#[allow(clippy::unnecessary_wraps, reason = "one that cannot be read is seen as well")]
fn quota(spec: &Value, status: &Value) -> SeenQuota {
    let object: CheckpointQuota = serde_json::from_value(json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointQuota",
        "metadata": {
            "namespace": "shop", "name": "q", "uid": "u", "resourceVersion": "1", "generation": 2,
            "creationTimestamp": "2026-05-01T00:00:00Z",
        },
        "spec": spec, "status": status,
    }))
    .unwrap();
    Ok(Arc::new(object))
}

fn counts(count: i64) -> SeenQuota {
    quota(&json!({"hard": {"count": count}}), &json!(null))
}

/// A node's report, as it is read of its store's status.
fn node(name: &str, reason: &str, status: &Value) -> Arc<NodeReport> {
    let mut status: NodeCheckpointStoreStatus = serde_json::from_value(status.clone()).unwrap();
    let ready = json!({
        "type": "Ready", "status": "True", "reason": reason, "message": "",
        "lastTransitionTime": "2026-05-28T10:00:00Z",
    });
    status.conditions = vec![serde_json::from_value(ready).unwrap()];
    Arc::new(NodeReport::of(name.to_owned(), String::new(), String::new(), status))
}

fn exact(archives: i64, bytes: i64) -> Value {
    json!({"quotas": [{"namespace": "shop", "archives": archives, "bytes": bytes}]})
}

fn one(seen: &SeenQuota, reports: &[Arc<NodeReport>]) -> Option<StatusWrite> {
    let judged = desired(std::slice::from_ref(seen), reports, NOW);
    assert_eq!(judged.states.len(), 1);
    judged.writes.into_iter().next()
}

fn said(write: &StatusWrite, type_: &str) -> String {
    let conditions = write.status["conditions"].as_array().unwrap();
    let one = conditions.iter().find(|one| one["type"] == type_).unwrap();
    format!("{} {}", one["status"].as_str().unwrap(), one["reason"].as_str().unwrap())
}

/// The same object once the write is in it.
fn written(spec: &Value, write: &StatusWrite) -> SeenQuota {
    quota(spec, &write.status)
}

#[test]
fn the_nodes_add_up_and_each_is_named() {
    let spec = json!({"hard": {"count": 200, "bytes": "100Gi"}});
    let reports = [
        node("n2", "Collecting", &exact(4, 1_001)),
        node("n1", "Collecting", &exact(8, 3 << 30)),
        node("n3", "Collecting", &json!({"quotas": [{"namespace": "other", "archives": 9, "bytes": 9}]})),
        // An agent that does not know of the quota yet: rounded up, and not counted twice where both name it.
        node("n4", "Collecting", &json!({"namespaces": [{"name": "shop", "archives": 1, "size": "2Ki"}]})),
    ];
    let write = one(&quota(&spec, &json!(null)), &reports).unwrap();
    assert_eq!(
        write.status["used"],
        json!({"count": 13, "bytes": (3_u64 << 30).saturating_add(3_049).to_string()})
    );
    assert_eq!(write.status["usedPercent"], json!({"count": 6, "bytes": 3}));
    let nodes: Vec<_> =
        write.status["nodes"].as_array().unwrap().iter().map(|node| node["name"].clone()).collect();
    assert_eq!(nodes, ["n1", "n2", "n4"]);
    assert_eq!(write.status["nodes"][0], json!({"name": "n1", "count": 8, "bytes": "3Gi"}));
    assert_eq!((&write.status["partial"], &write.status["observedGeneration"]), (&json!(false), &json!(2)));
    assert_eq!(said(&write, "Ready"), "True Accepted");
    assert_eq!(said(&write, "Exceeded"), "False WithinHard");
    assert_eq!(said(&write, "NearlyExceeded"), "False BelowWarnAt");
    assert!(write.is_urgent && write.event.is_none());
    assert_eq!(one(&written(&spec, &write), &reports), None, "what is so already is not written again");
}

#[test]
fn a_namespace_that_a_node_names_twice_counts_once_and_by_the_exact_figures() {
    let mut both = exact(3, 1_001);
    both["namespaces"] = json!([{"name": "shop", "archives": 3, "size": "1010"}]);
    let write = one(&counts(5), &[node("n1", "Collecting", &both)]).unwrap();
    assert_eq!(write.status["used"], json!({"count": 3, "bytes": "1001"}));
}

#[test]
fn archives_on_a_node_that_is_down_count_and_are_shown_as_old() {
    let spec = json!({"hard": {"count": 10}});
    let reports = |reason: &str| [node("n1", "Collecting", &exact(1, 10)), node("n2", reason, &exact(2, 20))];
    for reason in ["AgentNotReady", "DirectoryGone", "DirectoryUnreadable", "Starting", "PoliciesUnknown"] {
        let mut status = exact(2, 20);
        status["archives"] = json!(2);
        let down = [node("n1", "Collecting", &exact(1, 10)), node("n2", reason, &status)];
        let write = one(&quota(&spec, &json!(null)), &down).unwrap();
        assert_eq!(write.status["used"]["count"], 3, "{reason}");
        assert_eq!(
            (&write.status["staleNodes"], &write.status["staleSince"]),
            (&json!(1), &json!("2026-05-28T10:00:00Z"))
        );
        assert_eq!(write.status["nodes"][1]["staleSince"], "2026-05-28T10:00:00Z", "{reason}");
        assert!(write.status["nodes"][0]["staleSince"].is_null());
        assert_eq!(said(&write, "Ready"), "True Accepted");
        let back = one(&written(&spec, &write), &reports("Collecting")).unwrap();
        assert_eq!((&back.status["staleNodes"], &back.status["staleSince"]), (&json!(0), &json!(null)));
        assert!(!back.is_urgent, "figures may wait");
    }
    // Of a node that is deleted there is no report any more.
    let before = one(&quota(&spec, &json!(null)), &reports("AgentNotReady")).unwrap();
    let gone = one(&written(&spec, &before), &reports("Collecting")[..1]).unwrap();
    assert_eq!((&gone.status["used"]["count"], &gone.status["staleNodes"]), (&json!(1), &json!(0)));
}

#[test]
fn what_a_report_may_leave_out_makes_the_sum_partial() {
    let more = |more: Value| {
        let mut status = json!({"moreNamespaces": 3});
        for (name, value) in more.as_object().unwrap() {
            status[name] = value.clone();
        }
        status
    };
    let late = json!("2026-05-01T00:00:00Z");
    let early = json!("2026-04-30T23:59:59Z");
    let named = exact(2, 20)["quotas"].clone();
    for (what, status, is_partial) in [
        ("nothing is left out", json!({}), false),
        ("the agent knows of no quota", more(json!({})), true),
        ("it knew of none as new as this one", more(json!({"latestQuotaTime": early})), true),
        ("it knew of it, and there is nothing", more(json!({"latestQuotaTime": late})), false),
        ("not even those with quotas fit", more(json!({"latestQuotaTime": late, "moreQuotas": 1})), true),
        ("it is named all the same", more(json!({"moreQuotas": 1, "quotas": named})), false),
    ] {
        let reports = [node("n1", "Collecting", &exact(1, 10)), node("n2", "Collecting", &status)];
        let write = one(&counts(10), &reports).unwrap();
        assert_eq!(write.status["partial"], is_partial, "{what}");
        let ready = if is_partial { "Unknown UsagePartial" } else { "True Accepted" };
        assert_eq!(said(&write, "Ready"), ready, "{what}");
    }
    // An agent that never looked says nothing of what is there; one that is down and had nothing does.
    for (reason, is_partial) in [("Starting", true), ("PoliciesUnknown", true), ("AgentNotReady", false)] {
        let write = one(&counts(10), &[node("n1", reason, &json!({}))]).unwrap();
        assert_eq!(write.status["partial"], is_partial, "{reason}");
    }
    let write = one(&counts(10), &[Arc::new(NodeReport::default())]).unwrap();
    assert_eq!(write.status["partial"], true, "a store without a status");
}

#[test]
fn each_transition_is_told_once() {
    let spec = json!({"hard": {"count": 10}});
    let mut seen = quota(&spec, &json!(null));
    let mut told = Vec::new();
    for count in [7, 8, 9, 10, 11, 12, 10, 7, 11] {
        let write = one(&seen, &[node("n1", "Collecting", &exact(count, 1))]).unwrap();
        seen = written(&spec, &write);
        let event = write.event.as_ref().map_or("", |event| event.reason);
        told.push((count, said(&write, "Exceeded"), said(&write, "NearlyExceeded"), event));
        assert!(event.is_empty() || write.is_urgent);
    }
    let told: Vec<_> = told
        .iter()
        .map(|(count, exceeded, near, event)| (*count, exceeded.as_str(), near.as_str(), *event))
        .collect();
    let within = "False WithinHard";
    assert_eq!(
        told,
        [
            (7, within, "False BelowWarnAt", ""),
            (8, within, "True WarnAtReached", "QuotaNearlyExceeded"),
            (9, within, "True WarnAtReached", ""),
            (10, within, "True HardReached", ""),
            (11, "True CountExceeded", "True HardReached", "QuotaExceeded"),
            (12, "True CountExceeded", "True HardReached", ""),
            (10, within, "True HardReached", ""),
            (7, within, "False BelowWarnAt", ""),
            (11, "True CountExceeded", "True HardReached", "QuotaExceeded"),
        ]
    );
}

#[test]
fn which_limit_is_exceeded_is_the_reason() {
    let spec = json!({"hard": {"count": 3, "bytes": "1Ki"}});
    for (archives, bytes, reason) in [
        (4, 1, "True CountExceeded"),
        (1, 1_025, "True BytesExceeded"),
        (4, 1_025, "True CountAndBytesExceeded"),
        (3, 1_024, "False WithinHard"),
    ] {
        let write =
            one(&quota(&spec, &json!(null)), &[node("n1", "Collecting", &exact(archives, bytes))]).unwrap();
        assert_eq!(said(&write, "Exceeded"), reason);
    }
}

#[test]
fn a_quota_that_is_not_understood_is_told_so_and_still_shows_what_is_used() {
    let reports = [node("n1", "Collecting", &exact(4, 1))];
    let write = one(&quota(&json!({"hard": {}}), &json!(null)), &reports).unwrap();
    assert_eq!(said(&write, "Ready"), "False InvalidQuota");
    assert_eq!(said(&write, "Exceeded"), "Unknown InvalidQuota");
    assert_eq!((&write.status["used"]["count"], &write.status["usedPercent"]), (&json!(4), &json!(null)));
    let SeenQuota::Ok(object) = counts(1) else { panic!() };
    let metadata = object.metadata.clone();
    let broken = Broken { metadata, error: "spec.size: unknown field".to_owned(), ..Broken::default() };
    let write = one(&Err(Arc::new(broken)), &reports).unwrap();
    assert_eq!(said(&write, "Ready"), "False InvalidQuota");
    assert!(write.status["conditions"][0]["message"].as_str().unwrap().contains("spec.size: unknown field"));
}

#[test]
fn of_many_nodes_those_with_the_most_are_named() {
    let reports: Vec<_> =
        (0..150).map(|number| node(&format!("n{number:03}"), "Collecting", &exact(1, number))).collect();
    let write = one(&counts(1_000), &reports).unwrap();
    let nodes = write.status["nodes"].as_array().unwrap();
    assert_eq!((nodes.len(), &write.status["moreNodes"]), (MOST_NODES, &json!(50)));
    assert_eq!((&nodes[0]["name"], &nodes[99]["name"]), (&json!("n050"), &json!("n149")));
    assert_eq!(write.status["used"]["count"], 150);
}

#[test]
fn the_states_and_ratios_of_all_quotas_are_told() {
    let reports = [node("n1", "Collecting", &exact(8, 512))];
    let spec = json!({"hard": {"count": 10, "bytes": "1Ki"}});
    let all = [
        quota(&spec, &json!(null)),
        counts(7),
        counts(100),
        quota(&json!({"hard": {}}), &json!(null)),
        counts(0),
    ];
    let judged = desired(&all, &reports, NOW);
    assert_eq!(
        judged.states,
        [
            QuotaState::NearlyExceeded,
            QuotaState::Exceeded,
            QuotaState::Fine,
            QuotaState::Invalid,
            QuotaState::Exceeded
        ]
    );
    let ratios: Vec<_> =
        judged.ratios.iter().map(|one| (one.resource, (one.ratio * 100.0).round())).collect();
    assert_eq!(
        ratios,
        [("count", 80.0), ("bytes", 50.0), ("count", 114.0), ("count", 8.0), ("count", 800.0)]
    );
}

//! What each command says, on both streams, and its exit code; with nothing of the user's own environment.
#![allow(
    clippy::unwrap_used,
    clippy::needless_pass_by_value,
    reason = "tests, and what they make objects of"
)]

mod support;

use insta::assert_snapshot;
use serde_json::{Value, json};
use support::{
    ALL_CHECKPOINTS, ALL_QUOTAS, CHECKPOINTS, QUOTAS, STORES, World, ago, checkpoint, held, status, store,
};

/// A namespace with three checkpoints.
fn shop() -> World {
    let world = World::new();
    let mut first = checkpoint("web-0-app-1", "web-0", 30, "28Gi");
    first["status"]["conditions"] = json!([held("True", "Held", "Held: incident 4711", 1)]);
    let mut second = checkpoint("web-1-app-2", "web-1", 3, "1.68Mi");
    second["status"]["state"] = "Incomplete".into();
    second["status"]["createdBy"] = json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "schedule": "hourly", "trigger": "Interval",
        "requestedAt": "2026-01-01T00:00:00Z",
    });
    let mut third = checkpoint("db-0-app-3", "db-0", 0, "286Ki");
    third["status"]["expiresAt"] = ago(-51).into();
    world.list(CHECKPOINTS, &[first, second, third]);
    world
}

#[test]
fn list_says_which_where_how_big_how_old_and_until_when() {
    let world = shop();
    world.list(STORES, &[store("node-1", json!({"unlisted": 17}))]);
    assert_snapshot!("list", world.run(&["list"]));
    assert_snapshot!("list_wide", world.run(&["list", "-o", "wide", "--sort-by", "size"]));
    assert_snapshot!("list_name", world.run(&["list", "-o", "name", "--sort-by", "name"]));
}

#[test]
fn list_of_all_namespaces_needs_a_right_and_says_so() {
    let world = World::new();
    world.refuse(&format!("GET {ALL_CHECKPOINTS}"));
    assert_snapshot!("list_refused", world.run(&["list", "-A"]));
}

#[test]
fn list_where_there_is_nothing_says_so() {
    let world = World::new();
    world.list(CHECKPOINTS, &[]);
    assert_snapshot!("list_empty", world.run(&["list"]));
    for filter in [["-l", "app=web"], ["--pod", "web-0"]] {
        let said = world.run(&[&["list"], &filter[..]].concat());
        assert!(said.contains("note: no checkpoints in the namespace shop match\n"), "{said}");
    }
}

#[test]
fn a_cluster_without_the_kinds_gets_a_hint() {
    let world = World::new();
    let message = "the server could not find the requested resource";
    world.on(&format!("GET {CHECKPOINTS}"), 404, status(404, "NotFound", message));
    assert_snapshot!("list_not_installed", world.run(&["list"]));
}

#[test]
fn a_kind_that_was_defined_a_moment_ago_is_waited_for() {
    let world = World::new();
    let not_yet = status(429, "TooManyRequests", "storage is (re)initializing");
    world.on(&format!("GET {CHECKPOINTS}"), 429, not_yet.clone());
    world.list(CHECKPOINTS, &[checkpoint("web-0-app-1", "web-0", 1, "1Gi")]);
    let said = world.run(&["list"]);
    assert!(said.contains("exit code 0") && said.contains("web-0-app-1"), "{said}");
    let world = World::new();
    world.on(&format!("GET {CHECKPOINTS}"), 429, not_yet);
    assert_snapshot!("list_not_ready", world.run(&["list", "--request-timeout", "1s"]));
}

#[test]
fn what_comes_from_the_cluster_does_nothing_to_the_terminal() {
    let world = World::new();
    let mut evil = checkpoint("evil-app-1", "evil", 1, "1Ki");
    evil["status"]["image"] = "a\u{1b}[2J\u{202e}b".into();
    evil["status"]["file"] = "x\ny".into();
    world.list(CHECKPOINTS, std::slice::from_ref(&evil));
    world.on(&format!("GET {CHECKPOINTS}/evil-app-1"), 200, evil);
    for arguments in [&["list", "-o", "wide"][..], &["show", "evil-app-1"]] {
        let said = world.run(arguments);
        assert!(!said.contains('\u{1b}') && !said.contains('\u{202e}'), "{said}");
        assert!(said.contains(r"a\x1b[2J\u{202e}b"), "{said}");
    }
}

#[test]
fn show_tells_all_and_of_what_is_not_there_how_to_find_it() {
    let world = World::new();
    let mut object = checkpoint("web-0-app-1", "web-0", 0, "28Gi");
    object["status"]["checkpointedAt"] = Value::Null;
    object["spec"] =
        json!({"hold": {"reason": "incident 4711", "until": "2027-01-01T00:00:00Z", "by": "alice"}});
    object["status"]["conditions"] = json!([held("True", "Held", "Held until 2027: incident 4711", 1)]);
    world.on(&format!("GET {CHECKPOINTS}/web-0-app-1"), 200, object);
    assert_snapshot!("show", world.run(&["show", "web-0-app-1"]));
    assert_snapshot!("show_not_found", world.run(&["show", "web-0-app-9"]));
    // A kind that is not there is told apart by what the API says for programs, whatever its words are.
    let message = "the resource of web-0-app-9 was not found";
    world.on(&format!("GET {CHECKPOINTS}/web-0-app-9"), 404, status(404, "NotFound", message));
    assert_snapshot!("show_not_installed", world.run(&["show", "web-0-app-9"]));
}

#[test]
fn show_says_whose_schedule_made_it_and_whether_policies_decide() {
    let world = World::new();
    let mut object = checkpoint("web-0-app-1", "web-0", 3, "28Gi");
    object["status"]["checkpointedAt"] = Value::Null;
    object["status"]["createdBy"] = json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "schedule": "databases", "trigger": "Annotation",
        "requestedAt": "2026-01-01T00:00:00Z",
    });
    world.on(&format!("GET {CHECKPOINTS}/web-0-app-1"), 200, object.clone());
    assert_snapshot!("show_created_by", world.run(&["show", "web-0-app-1"]));
    object["status"]["createdBy"]["apiVersion"] = "criu.org/v1".into();
    world.on(&format!("GET {CHECKPOINTS}/web-0-app-2"), 200, object);
    let said = world.run(&["show", "web-0-app-2"]);
    assert!(said.contains("the CheckpointSchedule databases (criu.org): Annotation at 2026-01-01"), "{said}");
}

#[test]
fn a_checkpoint_is_found_by_its_files_name_as_well() {
    let world = shop();
    world.on(
        "GET /v1alpha1/explain",
        200,
        json!({"verdict": {"verdict": "Keep", "reason": "NoPolicy"}, "rules": []}),
    );
    let said = world.run(&["show", "checkpoint-web-1_shop-app-3.tar"]);
    assert!(said.contains("Name:         web-1-app-2\n"), "{said}");
    let explained = world.run(&["explain", "checkpoint-web-1_shop-app-3.tar", &world.agent()]);
    assert_snapshot!("explain_no_rule", explained);
    let other = world.run(&["show", "checkpoint-web-1_shop-app-4.tar"]);
    assert!(
        other.contains("there is no checkpoint checkpoint-web-1_shop-app-4.tar in the namespace shop"),
        "{other}"
    );
    // Two nodes may have a file of that name.
    let world = World::new();
    let of_pod = |name: &str| checkpoint(name, "web-1", 3, "1Gi");
    world.list(CHECKPOINTS, &[of_pod("a"), of_pod("b")]);
    let several = world.run(&["pin", "checkpoint-web-1_shop-app-3.tar", "--reason", "evidence"]);
    assert!(several.contains("exit code 1") && several.contains("several nodes have a file"), "{several}");
}

fn quota(name: &str, hard: Value, status: Value) -> Value {
    json!({"apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointQuota",
           "metadata": {"name": name, "namespace": "shop"}, "spec": {"hard": hard}, "status": status})
}

#[test]
fn usage_adds_up_and_says_what_it_leaves_out() {
    let world = shop();
    let namespaces = json!([
        {"name": "shop", "archives": 12, "size": "30Gi"}, {"name": "blog", "archives": 3, "size": "100Mi"},
    ]);
    let first = json!({"archives": 15, "size": "30.1Gi", "namespaces": namespaces, "moreNamespaces": 2,
                       "unknown": 2});
    let second =
        json!({"archives": 1, "size": "1Gi", "namespaces": [{"name": "blog", "archives": 1, "size": "1Gi"}]});
    world.list(STORES, &[store("node-1", first), store("node-2", second)]);
    let exceeded = json!([{"type": "Exceeded", "status": "True", "reason": "Exceeded", "message": "",
                           "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    let counted = json!({"used": {"count": 12, "bytes": "30Gi"}, "usedPercent": {"count": 120, "bytes": 30},
                         "conditions": exceeded});
    let small = quota("small", json!({"count": 10, "bytes": "100Gi"}), counted);
    let uncounted = quota("uncounted", json!({"bytes": "50Gi"}), json!({}));
    let used_up = json!({"used": {"count": 12, "bytes": "30Gi"}, "usedPercent": {"count": 100},
                         "conditions": [{"type": "NearlyExceeded", "status": "True", "reason": "NearlyExceeded",
                                         "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    let full = quota("full", json!({"count": 12}), used_up);
    for path in [ALL_QUOTAS, QUOTAS] {
        world.list(path, &[uncounted.clone(), small.clone(), full.clone()]);
    }
    assert_snapshot!("usage_namespace", world.run(&["usage"]));
    assert_snapshot!("usage_node", world.run(&["usage", "--by", "node"]));
    assert_snapshot!("usage_workload", world.run(&["usage", "--by", "workload"]));
    // Of the namespace that is named.
    assert_snapshot!("usage_one_namespace", world.run(&["usage", "-n", "shop"]));
    assert_snapshot!("usage_node_of_namespace", world.run(&["usage", "--by", "node", "-n", "blog"]));
}

/// That nothing is reported, or named, is not that nothing is there.
#[test]
fn usage_does_not_say_that_there_is_nothing_where_that_is_not_known() {
    let world = World::new();
    world.list(CHECKPOINTS, &[]);
    world.list(STORES, &[]);
    let no_report = world.run(&["usage"]);
    assert_snapshot!("usage_no_report", no_report);
    let nothing = world.run(&["usage", "--by", "workload"]);
    assert!(nothing.contains("note: there are no checkpoints of the namespace shop\n"), "{nothing}");
    let world = World::new();
    world.list(CHECKPOINTS, &[]);
    let namespaces = json!([{"name": "blog", "archives": 3, "size": "100Mi"}]);
    let status =
        json!({"archives": 5, "size": "101Mi", "namespaces": namespaces, "moreNamespaces": 2, "unlisted": 5});
    world.list(STORES, &[store("node-1", status)]);
    assert_snapshot!("usage_not_named", world.run(&["usage", "-n", "shop"]));
    assert_snapshot!("usage_unlisted", world.run(&["usage", "--by", "workload"]));
}

#[test]
fn usage_by_workload_works_for_who_sees_a_namespace_only() {
    let world = shop();
    world.refuse(&format!("GET {STORES}"));
    world.refuse(&format!("GET {QUOTAS}"));
    assert_snapshot!("usage_workload_refused", world.run(&["usage", "--by", "workload"]));
    assert_snapshot!("usage_refused", world.run(&["usage"]));
}

/// A checkpoint whose spec is changed, and whose agent then says this of its hold.
fn changed(condition: Value) -> World {
    let world = World::new();
    let before = checkpoint("web-0-app-1", "web-0", 1, "1Gi");
    let mut after = before.clone();
    after["metadata"]["generation"] = 2.into();
    let mut answered = after.clone();
    answered["status"]["conditions"] = json!([condition]);
    let path = format!("{CHECKPOINTS}/web-0-app-1");
    world.on(&format!("PATCH {path}"), 200, after.clone());
    for object in [before, after, answered] {
        world.on(&format!("GET {path}"), 200, object);
    }
    world
}

#[test]
fn pin_waits_until_the_disk_has_it() {
    let world = changed(held("True", "Held", "Held: evidence", 2));
    assert_snapshot!(
        "pin",
        world.run(&["pin", "web-0-app-1", "--reason", "evidence", "--until", "2127-01-01T00:00:00Z"])
    );
    let hold = json!({"reason": "evidence", "until": "2127-01-01T00:00:00Z", "by": "alice"});
    assert!(world.written().contains(&json!({"spec": {"hold": hold}})), "{:?}", world.written());
}

#[test]
fn pin_that_is_refused_says_the_figure() {
    let message = "Not held: this would be archive 6 that the namespace holds on this node, of at most 5.";
    let world = changed(held("False", "MaxHeldExceeded", message, 2));
    assert_snapshot!("pin_refused", world.run(&["pin", "web-0-app-1", "--reason", "evidence"]));
    assert_snapshot!("pin_until", world.run(&["pin", "x", "--reason", "evidence", "--until", "yesterday"]));
}

#[test]
fn unpin_ends_a_hold_and_leaves_a_pin_on_the_node() {
    let world = changed(held("False", "NotHeld", "", 2));
    assert_snapshot!("unpin", world.run(&["unpin", "web-0-app-1"]));
    assert!(world.written().contains(&json!({"spec": {"hold": null}})));
    let world = changed(held("True", "PinnedOnNode", "A marker beside the archive pins it.", 2));
    assert_snapshot!("unpin_on_node", world.run(&["unpin", "web-0-app-1"]));
}

#[test]
fn discard_asks_and_without_a_terminal_refuses() {
    let world = changed(held("False", "NotHeld", "", 2));
    assert_snapshot!("discard_unasked", world.run(&["discard", "web-0-app-1", "--reason", "too much"]));
    assert_eq!(world.written(), Vec::<Value>::new());
}

#[test]
fn discard_of_what_is_held_is_refused() {
    let world = World::new();
    let mut object = checkpoint("web-0-app-1", "web-0", 1, "1Gi");
    object["status"]["conditions"] = json!([held("True", "Held", "Held: incident 4711", 1)]);
    world.on(&format!("GET {CHECKPOINTS}/web-0-app-1"), 200, object);
    assert_snapshot!("discard_held", world.run(&["discard", "web-0-app-1", "--reason", "too much", "--yes"]));
}

#[test]
fn discard_waits_until_the_archive_is_gone() {
    let world = World::new();
    let object = checkpoint("web-0-app-1", "web-0", 1, "1Gi");
    let path = format!("{CHECKPOINTS}/web-0-app-1");
    world.on(&format!("PATCH {path}"), 200, object.clone());
    world.on(&format!("GET {path}"), 200, object.clone());
    world.on(&format!("GET {path}"), 200, object);
    world.on(&format!("GET {path}"), 404, status(404, "NotFound", "not found"));
    assert_snapshot!("discard", world.run(&["discard", "web-0-app-1", "--reason", "too much", "--yes"]));
    let discard = json!({"spec": {"discard": {"reason": "too much", "by": "alice"}}});
    assert!(world.written().contains(&discard), "{:?}", world.written());
}

fn pod(annotations: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-0", "namespace": "shop", "annotations": annotations},
           "spec": {"containers": [{"name": "app"}, {"name": "proxy"}], "initContainers": [{"name": "init"}],
                    "ephemeralContainers": [{"name": "debugger"}]}})
}

#[test]
fn create_says_what_came_of_each_container() {
    let world = World::new();
    let path = "/api/v1/namespaces/shop/pods/web-0";
    let asking = json!({"checkpoint.criu.org/trigger": "true"});
    let answer = json!({"time": "2026-11-27T10:00:00Z", "containers": [
        {"name": "app", "archive": "checkpoint-web-0_shop-app-2026-11-27T10:00:00Z.tar"},
        {"name": "proxy", "error": "QuotaExceeded"},
    ]});
    world.on(&format!("PATCH {path}"), 200, pod(asking.clone()));
    for annotations in [json!({}), asking, json!({"checkpoint.criu.org/result": answer.to_string()})] {
        world.on(&format!("GET {path}"), 200, pod(annotations));
    }
    // Other commands take the name of its object.
    let mut made = checkpoint("web-0-app-20261127100000-0a1b2c3d", "web-0", 0, "1Gi");
    made["status"]["file"] = "checkpoint-web-0_shop-app-2026-11-27T10:00:00Z.tar".into();
    world.list(CHECKPOINTS, &[]);
    world.list(CHECKPOINTS, &[checkpoint("web-0-app-1", "web-0", 30, "1Gi"), made]);
    assert_snapshot!("create", world.run(&["create", "web-0", "--wait"]));
    assert_snapshot!("create_no_container", world.run(&["create", "web-0", "--wait", "-c", "nginx"]));
}

#[test]
fn create_waits_for_one_container_of_whatever_kind_and_says_where_none_was_made_of_it() {
    let path = "/api/v1/namespaces/shop/pods/web-0";
    let pod_of = |is_over: bool| {
        let answer = json!({"time": "2026-11-27T10:00:00Z", "containers": [
            {"name": "app", "error": "QuotaExceeded"}, {"name": "init", "archive": "checkpoint-web-0_shop-init.tar"},
        ]});
        let mut annotations = json!({"checkpoint.criu.org/result": answer.to_string()});
        if !is_over {
            annotations["checkpoint.criu.org/trigger"] = "true".into();
        }
        pod(annotations)
    };
    let world = |is_over: bool| {
        let world = World::new();
        world.on(&format!("PATCH {path}"), 200, pod(json!({})));
        world.on(&format!("GET {path}"), 200, pod(json!({})));
        world.on(&format!("GET {path}"), 200, pod_of(is_over));
        world
    };
    // The other container is still tried, and is not waited for.
    let said = world(false).run(&["create", "web-0", "--wait", "-c", "init"]);
    assert!(
        said.contains("exit code 0\n--- stdout\nweb-0/init: checkpoint-web-0_shop-init.tar\n--- stderr\n"),
        "{said}"
    );
    let said = world(true).run(&["create", "web-0", "--wait", "-c", "debugger"]);
    assert_snapshot!("create_other_containers", said);
}

#[test]
fn create_says_what_it_would_annotate_and_asks_for_nothing() {
    let path = "/api/v1/namespaces/shop/pods/web-0";
    let world = World::new();
    world.on(&format!("GET {path}"), 200, pod(json!({})));
    assert_snapshot!("create_dry_run_client", world.run(&["create", "web-0", "--dry-run=client"]));
    assert_eq!(world.asked("PATCH"), Vec::<String>::new());
    world.on(&format!("PATCH {path}"), 200, pod(json!({})));
    assert_snapshot!("create_dry_run_server", world.run(&["create", "web-0", "--dry-run=server"]));
    let asked = world.asked("PATCH");
    assert!(asked.len() == 1 && asked[0].contains("dryRun=All"), "{asked:?}");
    let refused = world.run(&["create", "web-0", "--dry-run=server", "--wait"]);
    assert!(refused.contains("exit code 2"), "{refused}");
}

#[test]
fn create_refuses_what_only_means_something_to_whoever_waits() {
    for option in [&["-c", "app"][..], &["--timeout", "1m"]] {
        let world = World::new();
        let said = world.run(&[&["create", "web-0"], option].concat());
        assert!(said.contains("exit code 2") && said.contains("--wait"), "{said}");
        assert_eq!(world.written(), Vec::<Value>::new());
    }
}

#[test]
fn create_says_once_why_it_is_tried_again_and_again_when_it_gives_up() {
    let world = World::new();
    let path = "/api/v1/namespaces/shop/pods/web-0";
    let tried = |time: &str| {
        let answer = json!({"time": time, "containers": [
            {"name": "app", "error": "2Gi are available, of which 10Gi are to stay free"},
        ]});
        pod(json!({"checkpoint.criu.org/trigger": "true", "checkpoint.criu.org/result": answer.to_string()}))
    };
    world.on(&format!("PATCH {path}"), 200, pod(json!({})));
    world.on(&format!("GET {path}"), 200, pod(json!({})));
    world.on(&format!("GET {path}"), 200, tried("2026-11-27T10:00:00Z"));
    world.on(&format!("GET {path}"), 200, tried("2026-11-27T10:00:30Z"));
    let said = world.run(&["create", "web-0", "--wait", "--timeout", "1s"]);
    let why = "app: 2Gi are available, of which 10Gi are to stay free";
    assert_eq!(said.matches(&format!("note: web-0: {why}\n")).count(), 1, "{said}");
    assert!(said.contains(&format!("and it is tried on: {why}")), "{said}");
}

/// The answer of the request before is the same annotation: it says why that is tried on.
#[test]
fn create_says_at_once_why_what_was_asked_for_before_is_not_done_yet() {
    let world = World::new();
    let path = "/api/v1/namespaces/shop/pods/web-0";
    let answer = json!({"time": "2026-11-27T10:00:00Z", "containers": [
        {"name": "app", "error": "2Gi are available, of which 10Gi are to stay free; it is tried again"},
    ]});
    let under_way =
        pod(json!({"checkpoint.criu.org/trigger": "true", "checkpoint.criu.org/result": answer.to_string()}));
    world.on(&format!("PATCH {path}"), 200, under_way.clone());
    world.on(&format!("GET {path}"), 200, under_way);
    assert_snapshot!("create_under_way", world.run(&["create", "web-0", "--wait", "--timeout", "0s"]));
}

/// What an agent says of its archives.
fn archives() -> Value {
    json!({"node": "node-1", "archives": [
        {"file": "a.tar", "namespace": "shop", "pod": "web-0", "container": "app", "sizeBytes": 1024, "state": "Complete",
         "verdict": "Keep", "reason": "WithinLimits", "policy": "ClusterCheckpointPolicy/default", "detail": "", "runtime": "io.containerd.runc.v2",
         "checkpointedAt": ago(2), "podUid": "0a1b", "createdBy": {"schedule": "hourly", "trigger": "Interval"}},
        {"file": "b.tar", "namespace": "shop", "pod": "web-0", "container": "app", "sizeBytes": 30_000_000_000_u64,
         "state": "Complete", "verdict": "Delete", "reason": "MaxAge", "policy": "ClusterCheckpointPolicy/default",
         "checkpointedAt": ago(720), "detail": "older than 30d"},
        {"file": "c.tar", "namespace": "shop", "pod": "web-0", "container": "app", "sizeBytes": 2_000_000, "state": "Complete",
         "verdict": "Keep", "reason": "DeletionPending", "policy": "ClusterCheckpointPolicy/default",
         "checkpointedAt": ago(700), "detail": "else MaxAge"},
    ]})
}

#[test]
fn an_agent_is_asked_for_all_that_it_knows() {
    let world = World::new();
    world.on("GET /v1alpha1/archives", 200, archives());
    let agent = world.agent();
    assert_snapshot!("list_node", world.run(&["list", "--node", "node-1", &agent]));
    assert_snapshot!("plan_now", world.run(&["plan", &agent]));
    // In the order that is asked for, and of the namespace that is named.
    let by_size = world.run(&["list", "--node", "node-1", &agent, "-o", "name", "--sort-by", "size"]);
    assert!(by_size.contains("b.tar\nc.tar\na.tar\n"), "{by_size}");
    let of_another = world.run(&["list", "--node", "node-1", &agent, "-o", "name", "-n", "blog"]);
    assert!(!of_another.contains(".tar"), "{of_another}");
    let refused = world.run(&["list", "--node", "node-1", &agent, "-l", "a=b"]);
    assert!(refused.contains("exit code 2"), "{refused}");
    assert_snapshot!("list_node_wide", world.run(&["list", "--node", "node-1", &agent, "-o", "wide"]));
    // What is for programs has the same archives in the same order.
    let json = world.run(&["list", "--node", "node-1", &agent, "-o", "json", "--sort-by", "size"]);
    assert!(json.find("b.tar") < json.find("a.tar") && json.contains("node-1"), "{json}");
    let json = world.run(&["list", "--node", "node-1", &agent, "-o", "json", "--pod", "db-0"]);
    assert!(json.contains("\"archives\": []"), "{json}");
}

#[test]
fn a_command_takes_no_format_that_it_does_not_have() {
    let world = World::new();
    for arguments in [
        &["plan", "-o", "name"][..],
        &["usage", "-o", "name"],
        &["usage", "-o", "wide"],
        &["show", "x", "-o", "name"],
        &["show", "x", "-o", "wide"],
        &["explain", "x", "-o", "name"],
    ] {
        let said = world.run(arguments);
        assert!(said.contains("exit code 2") && said.contains("[possible values: "), "{said}");
    }
    assert_snapshot!("plan_name", world.run(&["plan", "-o", "name"]));
}

#[test]
fn explain_names_each_rule_and_what_is_next() {
    let world = World::new();
    let rule = |rule: &str, outcome: &str, policy: Option<&str>, detail: &str| json!({"rule": rule, "outcome": outcome, "policy": policy, "detail": detail});
    let keep = Some("ClusterCheckpointPolicy/default");
    let explanation = json!({
        "verdict": {"verdict": "Keep", "reason": "WithinLimits", "policy": keep, "detail": ""},
        "rules": [
            rule("Pinned", "Passes", None, "no marker lies beside it"),
            rule("Tiers", "DoesNotApply", None, "the policy has no tiers"),
            rule("MaxAge", "Passes", keep, "29d old, limit 30d"),
            rule("MaxCountPerContainer", "Passes", keep, "4 archives, limit 10"),
        ],
        "dryRuns": [
            {"policy": "CheckpointPolicy/shop/strict", "effect": "Deletes",
             "verdict": {"verdict": "Delete", "reason": "MaxAge", "policy": keep, "detail": "29d old, limit 7d"}},
            {"policy": "ClusterCheckpointPolicy/other", "effect": "Nothing",
             "verdict": {"verdict": "Keep", "reason": "WithinLimits", "policy": keep, "detail": ""}},
        ],
        "next": {"at": "2026-12-27T10:00:00Z", "reason": "MaxAge", "policy": keep}, "waitsFor": "Time",
        "nextText": "It goes at 2026-12-27T10:00:00Z by MaxAge of ClusterCheckpointPolicy/default.",
    });
    world.on("GET /v1alpha1/explain", 200, explanation);
    let object = checkpoint("web-0-app-1", "web-0", 1, "1Gi");
    world.on(&format!("GET {CHECKPOINTS}/web-0-app-1"), 200, object);
    assert_snapshot!("explain", world.run(&["explain", "web-0-app-1", &world.agent()]));
    let waits =
        json!({"verdict": "Keep", "reason": "DeletionPending", "policy": keep, "detail": "else MaxAge"});
    let world = World::new();
    world.on("GET /v1alpha1/explain", 200, json!({"verdict": waits, "rules": []}));
    let said = world.run(&["explain", "a.tar", "--node", "node-1", &world.agent()]);
    assert!(said.contains("It waits to be deleted: MaxAge, by cckpol/default.\n"), "{said}");
    let world = World::new();
    let error = "there is no archive x.tar\n  hint: did you mean y.tar?";
    world.on("GET /v1alpha1/explain", 404, json!({"error": error}));
    let arguments = ["explain", "x.tar", "--node", "node-1", &world.agent()];
    assert_snapshot!("explain_not_found", world.run(&arguments));
}

#[test]
fn a_policy_is_tried_before_it_is_applied() {
    let world = World::new();
    let keep = json!({"verdict": "Keep", "reason": "NoPolicy", "policy": null, "detail": ""});
    let delete = json!({"verdict": "Delete", "reason": "MaxCountPerContainer", "policy": "CheckpointPolicy/shop/three",
                        "detail": "4 archives, limit 3"});
    let pending = json!({"verdict": "Delete", "reason": "MaxAge", "policy": "ClusterCheckpointPolicy/default",
                         "detail": "older than 30d"});
    let kept = json!({"verdict": "Keep", "reason": "WithinLimits", "policy": "CheckpointPolicy/shop/three", "detail": ""});
    let change = |file: &str, hours: i64, before: &Value, after: &Value| {
        json!({"file": file, "namespace": "shop", "pod": "web-0", "container": "app", "sizeBytes": 1_073_741_824,
               "checkpointedAt": ago(hours), "before": before, "after": after})
    };
    let mut unknown = change("c.tar", 1, &keep, &delete);
    unknown
        .as_object_mut()
        .unwrap()
        .retain(|field, _| !["namespace", "pod", "container"].contains(&field.as_str()));
    world.on("POST /v1alpha1/preview", 200, json!({
        "node": "node-1", "problems": ["CheckpointPolicy shop/three is a dry run; it is tried as if it were enforced"],
        "changes": [
            change("b.tar", 40, &pending, &kept), change("a.tar", 3, &keep, &delete), change("older.tar", 26, &keep, &delete),
            unknown,
        ],
    }));
    let policy = world.file("policy.yaml", "kind: CheckpointPolicy\n");
    assert_snapshot!("plan_preview", world.run(&["plan", "-f", &policy, &world.agent()]));
    assert_snapshot!("plan_preview_wide", world.run(&["plan", "-f", &policy, "-o", "wide", &world.agent()]));
    assert_snapshot!("plan_no_file", world.run(&["plan", "-f", "/nowhere/policy.yaml", &world.agent()]));
}

#[test]
fn what_the_older_operators_objects_will_mean_is_said_before_anything_goes() {
    let world = World::new();
    world.list("/apis/criu.org/v1/checkpointrestoreoperators", &[json!({
        "apiVersion": "criu.org/v1", "kind": "CheckpointRestoreOperator",
        "metadata": {"name": "sample", "namespace": "default"},
        "spec": {"globalPolicy": {"retainOrphan": false, "maxCheckpointsPerPod": 0, "maxTotalSizePerPod": "1Gi"}},
    })]);
    let keep = json!({"verdict": "Keep", "reason": "NoPolicy", "policy": null, "detail": ""});
    let delete = json!({"verdict": "Delete", "reason": "MaxCountPerContainer",
                        "policy": "CheckpointRestoreOperator/default/sample", "detail": "11 archives, limit 10"});
    world.on(
        "POST /v1alpha1/preview",
        200,
        json!({"node": "node-1", "problems": [], "changes": [
            {"file": "a.tar", "namespace": "default", "pod": "web-0", "container": "app", "sizeBytes": 1024,
             "before": keep, "after": delete},
        ]}),
    );
    assert_snapshot!(
        "plan_from_older_operator",
        world.run(&["plan", "--from-older-operator", &world.agent()])
    );
    let world = World::new();
    world.on("POST /v1alpha1/preview", 200, json!({"node": "node-1", "problems": [], "changes": []}));
    assert_snapshot!("plan_no_older_operator", world.run(&["plan", "--from-older-operator", &world.agent()]));
}

#[test]
fn a_policy_that_is_not_understood_is_told_as_the_agent_tells_it() {
    let world = World::new();
    world.on(
        "POST /v1alpha1/preview",
        400,
        json!({"error": "line 4: spec.retention.maxAge: must be a length of time"}),
    );
    let policy = world.file("policy.yaml", "kind: CheckpointPolicy\n");
    assert_snapshot!("plan_invalid", world.run(&["plan", "-f", &policy, &world.agent()]));
}

#[test]
fn no_agent_is_an_error_with_a_hint() {
    let world = World::new();
    world.list("/api/v1/namespaces/checkpoint-keeper/pods", &[]);
    assert_snapshot!("no_agent", world.run(&["plan"]));
    let said = world.run(&["list", "--node", "nosuch"]);
    assert!(said.contains("error: there is no node nosuch\n"), "{said}");
    world.on("GET /api/v1/nodes/node-1", 200, json!({"metadata": {"name": "node-1"}}));
    world.refuse("GET /api/v1/nodes/node-2");
    for node in ["node-1", "node-2"] {
        let said = world.run(&["list", "--node", node]);
        assert!(said.contains(&format!("error: no agent runs on the node {node}\n")), "{said}");
    }
}

#[test]
fn a_plan_names_each_node_that_could_not_be_asked() {
    let world = World::new();
    let pods = "/api/v1/namespaces/checkpoint-keeper/pods";
    let agent = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent-1"},
                       "spec": {"nodeName": "node-1", "containers": []}});
    world.list(pods, &[agent]);
    world.list(STORES, &[store("node-1", json!({})), store("node-2", json!({}))]);
    world.refuse(&format!("GET {pods}/agent-1/portforward"));
    assert_snapshot!("plan_not_asked", world.run(&["plan"]));
}

/// A user of one namespace, who may see its policies and nothing of the cluster.
#[test]
fn doctor_says_what_it_could_not_see() {
    let world = World::new();
    world.list("/apis/checkpoint-keeper.io/v1alpha1/namespaces/shop/checkpointpolicies", &[]);
    world.on(
        "GET /apis/criu.org/v1",
        404,
        status(404, "NotFound", "the server could not find the requested resource"),
    );
    let all = [
        "clustercheckpointpolicies",
        "checkpointpolicies",
        "checkpointstoragepolicies",
        "checkpointschedules",
    ];
    for kind in all {
        world.refuse(&format!("GET /apis/checkpoint-keeper.io/v1alpha1/{kind}"));
    }
    world.refuse(&format!("GET {STORES}"));
    world.refuse("GET /api/v1/namespaces/checkpoint-keeper/pods");
    world.refuse("GET /apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies");
    for namespaces in
        ["", "namespaces/checkpoint-restore-operator/", "namespaces/checkpoint-restore-operator-system/"]
    {
        world.refuse(&format!("GET /apis/apps/v1/{namespaces}deployments"));
    }
    world.on("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 201, json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {}, "status": {"allowed": true},
    }));
    world.on("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 201, json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {}, "status": {"allowed": false},
    }));
    assert_snapshot!("doctor_restricted", world.run(&["doctor"]));
}

#[test]
fn doctor_names_what_is_wrong() {
    let world = World::new();
    world.list("/apis/checkpoint-keeper.io/v1alpha1/namespaces/shop/checkpointpolicies", &[]);
    world.on(
        "GET /apis/criu.org/v1",
        200,
        json!({
            "kind": "APIResourceList", "groupVersion": "criu.org/v1",
            "resources": [{"name": "checkpointrestoreoperators", "singularName": "", "namespaced": true,
                           "kind": "CheckpointRestoreOperator", "verbs": ["list"]}],
        }),
    );
    let ready = |status: &str, reason: &str, message: &str| {
        json!([{"type": "Ready", "status": status, "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    };
    let disk = |percent: i32| json!({"capacity": "2Gi", "available": "100Mi", "usedPercent": percent});
    let limits = json!({"highWatermark": "88%", "reserved": "0%", "protectLatest": 1,
                        "deletionLimit": {"burst": 60, "percent": 1, "period": "1m"}});
    world.list(
        STORES,
        &[
            store("node-1", json!({"moreWithoutNamespace": 3, "schedules": [
                {"apiVersion": "checkpoint-keeper.io/v1alpha1", "namespace": "shop", "name": "hourly", "generation": 1, "containers": 2, "active": 0, "intervalCheckpoints": 0, "failures": 3,
                 "reason": "CheckpointFailed", "message": "the kubelet finds nothing to checkpoint (its feature gate \
                  ContainerCheckpoint is off): 404 Not Found"},
                {"apiVersion": "checkpoint-keeper.io/v1alpha1", "namespace": "shop", "name": "nightly", "generation": 1, "containers": 2, "active": 0, "intervalCheckpoints": 0, "failures": 1,
                 "reason": "QuotaExceeded", "message": "10 of 10 archives are used"}], "problems": [
                {"type": "MinFreeUnreachable", "since": ago(26), "message":
                 "CheckpointStoragePolicy/disk minFree.bytes has no effect: 4Ei is more than the 252Gi of this disk"}]})),
            store(
                "node-2",
                json!({"conditions": ready("Unknown", "AgentNotReady", "No agent is at work on this node."),
                       "size": "1.92Gi", "filesystem": disk(95)}),
            ),
            store("node-5", json!({"filesystem": disk(91)})),
            store("node-6", json!({"filesystem": disk(91), "storageLimits": limits.clone()})),
            store("node-7", json!({"filesystem": disk(97), "storageLimits": limits})),
        ],
    );
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    world.refuse("GET /apis/apps/v1/namespaces/checkpoint-keeper/daemonsets");
    // The agent of node-2 is gone, and its report is not.
    let pod = |name: &str, status: Value| {
        let node = if name == "agent-1" { "node-1" } else { "node-3" };
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "checkpoint-keeper"},
               "spec": {"nodeName": node, "containers": []}, "status": status})
    };
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s"}});
    let last = json!({"terminated": {"exitCode": 2}});
    let container = json!({"name": "agent", "image": "", "imageID": "", "ready": false, "restartCount": 7,
                           "state": waiting, "lastState": last});
    let condition = |kind: &str, status: &str, reason: &str, message: &str| json!({"type": kind, "status": status, "reason": reason, "message": message});
    let unscheduled = condition("PodScheduled", "False", "Unschedulable", "0/4 nodes are available");
    world.list(
        "/api/v1/namespaces/checkpoint-keeper/pods",
        &[
            pod("agent-1", json!({"conditions": [condition("Ready", "True", "", "")]})),
            pod("agent-3", json!({"phase": "Running", "containerStatuses": [container]})),
            pod("agent-4", json!({"phase": "Pending", "conditions": [unscheduled]})),
            json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": []}, "metadata": {
                "name": "controller-1", "labels": {"app.kubernetes.io/component": "controller"}},
                "status": {"phase": "Pending", "conditions": [condition("Ready", "False", "ContainersNotReady", "")]}}),
        ],
    );
    let rules = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic";
    let names = ["agent-own-node", "status-by-agent", "agent-pod-annotations", "controller-finalizer"];
    let mut policies = names.map(|name| json!({"metadata": {"name": format!("a-{name}")}})).to_vec();
    let mut bindings = policies.clone();
    for (binding, name) in bindings.iter_mut().zip(names) {
        binding["spec"] = json!({"policyName": format!("a-{name}")});
    }
    policies.push(json!({"metadata": {"name": "a-agent-own-checkpoints"}}));
    world.list(&format!("{rules}ies"), &policies);
    world.list(&format!("{rules}ybindings"), &bindings);
    let mut virtual_node = node("virtual-1");
    virtual_node["metadata"]["labels"] = json!({"type": "virtual-kubelet"});
    world.list("/api/v1/nodes", &[node("node-1"), node("node-2"), node("node-3"), virtual_node]);
    world.list("/apis/checkpoint-keeper.io/v1alpha1/clustercheckpointpolicies", &[json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "ClusterCheckpointPolicy",
        "metadata": {"name": "default"}, "spec": {},
        "status": {"conditions": ready("False", "Invalid", "spec.retention.maxAge: must be a length of time")},
    }), json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "ClusterCheckpointPolicy",
        "metadata": {"name": "shadowed"}, "spec": {},
        "status": {"conditions": [{
            "type": "WithoutEffect", "status": "True", "reason": "CanNeverAct",
            "message": "governs nothing: ClusterCheckpointPolicy/default goes before it for every archive that it is for.",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]},
    })]);
    for kind in ["checkpointpolicies", "checkpointstoragepolicies"] {
        world.list(&format!("/apis/checkpoint-keeper.io/v1alpha1/{kind}"), &[]);
    }
    let schedule = |name: &str, status: &str, reason: &str| {
        json!({"apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointSchedule", "spec": {"triggers": {}},
               "metadata": {"name": name, "namespace": "shop"},
               "status": {"conditions": [{"type": "Healthy", "status": status, "reason": reason, "message": "as it is",
                                          "lastTransitionTime": "2026-01-01T00:00:00Z"}]}})
    };
    // Where a node says why one fails, it is not said once more.
    let schedules = [
        schedule("hourly", "False", "CheckpointFailed"),
        schedule("idle", "Unknown", "NothingSelected"),
        schedule("well", "True", "Succeeding"),
    ];
    world.list("/apis/checkpoint-keeper.io/v1alpha1/checkpointschedules", &schedules);
    world.list("/apis/criu.org/v1/checkpointschedules", &[]);
    let workload = |namespace: &str, image: &str, status: Value| {
        json!({"metadata": {"name": "controller-manager", "namespace": namespace}, "status": status,
               "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "manager", "image": image}]}}}})
    };
    let image = "quay.io/criu/checkpoint-restore-operator:v0.1.0";
    let mut own_build = workload("build", "registry.example/ours:1", json!({"readyReplicas": 1}));
    own_build["metadata"]["labels"] = json!({"app.kubernetes.io/part-of": "checkpoint-restore-operator",
                                             "app.kubernetes.io/component": "manager"});
    let mut scaled_down = workload("checkpoint-restore-operator-system", image, json!({}));
    scaled_down["spec"]["replicas"] = 0.into();
    world.list(
        "/apis/apps/v1/deployments",
        &[
            workload("checkpoint-restore-operator", image, json!({"readyReplicas": 1})),
            scaled_down,
            own_build,
            workload("shop", "registry.example/web:1", json!({"readyReplicas": 1})),
        ],
    );
    let starting = json!({"desiredNumberScheduled": 2, "numberReady": 0, "currentNumberScheduled": 2,
                          "numberMisscheduled": 0});
    world.list("/apis/apps/v1/daemonsets", &[workload("elsewhere", image, starting)]);
    world.list("/apis/criu.org/v1/checkpointrestoreoperators", &[json!({
        "apiVersion": "criu.org/v1", "kind": "CheckpointRestoreOperator",
        "metadata": {"name": "sample", "namespace": "default"}, "spec": {},
        "status": {"conditions": ready("False", "OtherOperator", "The older checkpoint-restore-operator is running.")},
    })]);
    world.list(LEASES, &[lease("checkpoint-restore-operator", 0)]);
    world.on("POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", 201, json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {}, "status": {"allowed": true},
    }));
    assert_snapshot!("doctor", world.run(&["doctor"]));
}

const LEASES: &str = "/apis/coordination.k8s.io/v1/leases";

/// The older operator's lease in a namespace, renewed so many hours ago.
fn lease(namespace: &str, hours: i64) -> Value {
    let renewed = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(hours);
    let renewed = format!("{renewed:.6}");
    json!({"metadata": {"name": "f1499914.criu.org", "namespace": namespace},
           "spec": {"holderIdentity": "one", "renewTime": renewed}})
}

#[test]
fn doctor_knows_where_agents_look_for_the_older_operator() {
    let agents = json!({"metadata": {"name": "agent"}, "spec": {"selector": {}, "template": {"spec": {"containers": [
        {"name": "agent", "args": ["agent", "--other-operator-namespace=build,test"]}]}}}});
    let running = |namespace: &str| {
        json!({"metadata": {"name": "manager", "namespace": namespace}, "status": {"readyReplicas": 1},
               "spec": {"selector": {}, "template": {"spec": {"containers": [
                   {"name": "manager", "image": "criu/checkpoint-restore-operator@sha256:0011"}]}}}})
    };
    let said_with = |lease: Value| {
        let world = World::new();
        let agents = [agents.clone()];
        world.list("/apis/apps/v1/namespaces/checkpoint-keeper/daemonsets", &agents);
        world.list("/apis/apps/v1/deployments", &[running("test"), running("checkpoint-restore-operator")]);
        world.list("/apis/apps/v1/daemonsets", &[]);
        world.list(LEASES, &[lease]);
        world.run(&["doctor"])
    };
    let said = said_with(lease("test", 0));
    let (there, elsewhere) =
        (said.find("runs in test: Deployment manager"), said.find("agents do not see it there"));
    assert!(there.is_some() && there < elsewhere && said.matches("agents do not see").count() == 1, "{said}");
    // One that elects no leader is there, and nothing but its pods shows it.
    for lease in [lease("another", 0), lease("test", 24)] {
        let said = said_with(lease);
        assert!(said.contains("agents do not see that it runs, as it holds no lease"), "{said}");
    }
}

#[test]
fn doctor_is_not_content_where_there_is_no_agent_at_all() {
    let world = World::new();
    world.list("/apis/checkpoint-keeper.io/v1alpha1/namespaces/shop/checkpointpolicies", &[]);
    world.list(STORES, &[]);
    world.list("/apis/apps/v1/namespaces/checkpoint-keeper/daemonsets", &[]);
    world.list(
        "/api/v1/nodes",
        &[json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-1"}})],
    );
    world.list("/api/v1/namespaces/checkpoint-keeper/pods", &[]);
    let said = world.run(&["doctor"]);
    assert!(said.contains("error    the controller has no pod"), "{said}");
    assert!(said.contains("exit code 1") && said.contains("error    0 of 1 nodes have an agent"), "{said}");
}

#[test]
fn words_are_completed_with_the_names_that_there_are() {
    let world = shop();
    assert_snapshot!("complete_names", world.run(&["__complete", "show", "web"]));
    assert_snapshot!("complete_commands", world.run(&["__complete", "p"]));
    assert!(world.run(&["completion", "bash"]).contains("complete -F"));
    assert!(world.run(&["completion"]).contains("kubectl checkpoints __complete -- "));
}

#[test]
fn options_before_and_after_the_command_say_which_names_complete_it() {
    let world = shop();
    world.list(&CHECKPOINTS.replace("/shop/", "/other/"), &[checkpoint("db-0-app-9", "db-0", 1, "1Ki")]);
    let candidates = |words: &[&str]| {
        let said = world.run(&[&["__complete", "--"], words].concat());
        let names = said.lines().skip_while(|line| *line != "--- stdout").skip(1);
        names.take_while(|line| *line != ":4").map(str::to_owned).collect::<Vec<_>>()
    };
    for words in
        [&["-n", "other", "show", ""][..], &["show", "--namespace=other", ""], &["show", "-nother", "d"]]
    {
        assert_eq!(candidates(words), ["db-0-app-9"], "{words:?}");
    }
    assert_eq!(candidates(&["-n", "other", "pi"]), ["pin"]);
    world.list(
        "/api/v1/namespaces",
        &[json!({"metadata": {"name": "shop"}}), json!({"metadata": {"name": "test"}})],
    );
    assert_eq!(candidates(&["show", "-n", "s"]), ["shop"]);
}

#[test]
fn manual_pages_are_written_for_the_program_and_each_command() {
    let folder = tempfile::tempdir().expect("a directory");
    let pages = folder.path().join("man1");
    World::new().run(&["man", &pages.to_string_lossy()]);
    let page = std::fs::read_to_string(pages.join("kubectl-checkpoints.1")).expect("the program's page");
    assert!(page.contains("kubectl\\-checkpoints\\-explain(1)"), "{page}");
    let page =
        std::fs::read_to_string(pages.join("kubectl-checkpoints-explain.1")).expect("a command's page");
    assert!(page.contains("rule by rule"), "{page}");
}

#[test]
fn the_help_shows_what_there_is() {
    let world = World::new();
    assert_snapshot!("help", world.run(&["--help"]));
}

#[test]
fn a_cluster_that_is_not_there_is_an_error_with_a_hint() {
    let world = World::new();
    let said = world.run(&["--kubeconfig", "/nowhere/config", "list"]);
    assert!(said.contains("exit code 1") && said.contains("hint: name a file with --kubeconfig"), "{said}");
}

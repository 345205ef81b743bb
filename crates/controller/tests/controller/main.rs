//! Replicas of the controller against an API server in memory, by a clock that jumps whenever everybody waits.

#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value)]

mod fake;
mod quotas;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::Method;
use checkpoint_keeper_controller::{Controller, Settings};
use checkpoint_keeper_runtime::election::Lost;
use fake::{Asked, Fake, Fault, words};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

const POLICIES: &str = "clustercheckpointpolicies";
const STORES: &str = "nodecheckpointstores";

struct Replica {
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<(), Lost>>,
    /// What `/readyz` says.
    not_ready_reasons: Box<dyn Fn() -> Vec<String>>,
}

impl Replica {
    fn start(fake: &Fake, name: &str) -> Self {
        let settings = Settings {
            namespace: "keeper".to_owned(),
            identity: name.to_owned(),
            cluster_policy_namespaces: Vec::new(),
            other_operator_namespaces: vec!["elsewhere".to_owned(), "theirs".to_owned()],
            directory: "/var/lib/kubelet/checkpoints".to_owned(),
        };
        let (stop, stopped) = watch::channel(false);
        let controller = Controller::new(&fake.client(name), settings);
        let not_ready_reasons = Box::new(controller.not_ready_reasons());
        let task = tokio::spawn(controller.run(stopped));
        Self { stop, task, not_ready_reasons }
    }

    /// Stops it as SIGTERM does, and waits for its end.
    async fn stop(self) -> Result<(), Lost> {
        self.stop.send_replace(true);
        self.task.await.unwrap()
    }
}

/// Waits until something holds, by the clock that jumps.
async fn until(what: &str, limit: u64, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(limit);
    while !condition() {
        assert!(Instant::now() < end, "never came true: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

fn add_policy(fake: &Fake, name: &str, spec: Value) {
    let object = json!({"apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "ClusterCheckpointPolicy", "spec": spec});
    fake.put(POLICIES, "", name, object);
}

fn add_node(fake: &Fake, name: &str) {
    fake.put("nodes", "", name, json!({"apiVersion": "v1", "kind": "Node"}));
}

fn add_store(fake: &Fake, node: &str, policies: Value) {
    let ready = json!({"type": "Ready", "status": "True", "reason": "Collecting", "message": "",
                       "lastTransitionTime": "2026-11-24T12:00:00Z"});
    let status = json!({"policies": policies, "conditions": [ready]});
    let object = json!({"apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "NodeCheckpointStore", "spec": {}, "status": status});
    fake.put(STORES, "", node, object);
}

/// The pod of an agent that is ready.
fn add_agent(fake: &Fake, node: &str) {
    let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let spec = json!({"nodeName": node, "containers": []});
    fake.put(
        "pods",
        "keeper",
        node,
        json!({"apiVersion": "v1", "kind": "Pod", "spec": spec, "status": status}),
    );
}

fn usage(policy: &str, archives: i64, pending: i64) -> Value {
    json!({"policyRef": {"kind": "ClusterCheckpointPolicy", "name": policy}, "generation": 1, "mode": "Enforce",
           "archives": archives, "size": (archives * 100).to_string(), "deletionPending": pending})
}

/// A condition of a policy: status and reason.
fn condition(fake: &Fake, policy: &str, kind: &str) -> Option<(String, String)> {
    let status = fake.get(POLICIES, "", policy)?["status"].clone();
    let condition =
        status["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)?.clone();
    let text = |field: &str| condition[field].as_str().unwrap().to_owned();
    Some((text("status"), text("reason")))
}

fn is_told(fake: &Fake, policy: &str, reason: &str) -> bool {
    condition(fake, policy, "Accepted").is_some_and(|(_, told)| told == reason)
}

fn leader(fake: &Fake) -> Option<String> {
    let lease = fake.get("leases", "keeper", "checkpoint-keeper")?;
    lease["spec"]["holderIdentity"].as_str().map(str::to_owned)
}

fn patches<'a>(writes: &'a [Asked], policy: &str) -> Vec<&'a Asked> {
    writes.iter().filter(|asked| asked.method == Method::PATCH && asked.key.2 == policy).collect()
}

#[tokio::test(start_paused = true)]
async fn a_policy_is_told_what_became_of_it_and_what_it_governs() {
    let fake = Fake::default();
    add_node(&fake, "n1");
    add_node(&fake, "n2");
    add_policy(&fake, "good", json!({}));
    add_policy(&fake, "old", json!({"retention": {"maxArchiveSize": 10}}));
    add_policy(&fake, "broken", json!({"mode": 5}));
    add_store(&fake, "n1", json!([usage("good", 3, 2)]));
    add_store(&fake, "n2", json!([usage("good", 4, 0), usage("other", 9, 9)]));
    let _replica = Replica::start(&fake, "a");
    until("all are told", 10, || {
        ["good", "old", "broken"].iter().all(|name| condition(&fake, name, "Ready").is_some())
    })
    .await;
    let told = |name: &str, kind: &str| condition(&fake, name, kind).unwrap();
    let pair = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
    assert_eq!(told("good", "Ready"), pair("True", "Accepted"));
    assert_eq!(told("good", "Enforced"), pair("True", "AllNodes"));
    assert_eq!(told("good", "DeletionPending"), pair("True", "DeletionLimit"));
    assert_eq!(told("old", "Ready"), pair("False", "Invalid"));
    assert_eq!(told("broken", "Ready"), pair("False", "Invalid"));
    assert_eq!(told("broken", "DeletionPending"), pair("False", "NothingPending"));
    let status = fake.get(POLICIES, "", "good").unwrap()["status"].clone();
    assert_eq!(
        status["totals"],
        json!({"nodes": 2, "archives": 7, "size": "700", "deletionPending": 2, "partial": false})
    );
    assert_eq!(status["observedGeneration"], 1);
    // Another spec, another generation.
    add_policy(&fake, "good", json!({"mode": "DryRun"}));
    until("it is told of the dry run", 5, || is_told(&fake, "good", "DryRun")).await;
    assert_eq!(fake.get(POLICIES, "", "good").unwrap()["status"]["observedGeneration"], 2);
    until("an event", 5, || fake.writes().iter().any(|asked| asked.body["reason"] == "DryRun")).await;
    let events: Vec<(String, String)> = fake
        .writes()
        .iter()
        .filter(|asked| asked.key.0 == "events")
        .map(|asked| (asked.body["regarding"]["name"].to_string(), asked.body["reason"].to_string()))
        .collect();
    assert_eq!(events.len(), 3, "{events:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_agent_is_gone_is_said_to_have_none_until_it_reports_again() {
    let fake = Fake::default();
    add_policy(&fake, "a", json!({}));
    for node in ["n1", "n2"] {
        add_agent(&fake, node);
        add_store(&fake, node, json!([usage("a", 3, 0)]));
    }
    let _replica = Replica::start(&fake, "a");
    until("it is enforced", 10, || condition_is(&fake, "Enforced", "True", "AllNodes")).await;
    sleep(Duration::from_mins(5)).await;
    fake.delete("pods", "keeper", "n2");
    // Its pod may only be replaced.
    sleep(Duration::from_secs(100)).await;
    let ready = |node: &str| fake.get(STORES, "", node).unwrap()["status"]["conditions"][0].clone();
    assert_eq!(ready("n2")["status"], "True");
    until("it is said", 60, || ready("n2")["reason"] == "AgentNotReady").await;
    assert_eq!(
        (ready("n2")["status"].as_str(), ready("n1")["status"].as_str()),
        (Some("Unknown"), Some("True"))
    );
    let status = fake.get(STORES, "", "n2").unwrap()["status"].clone();
    assert_eq!(status["policies"], json!([usage("a", 3, 0)]), "the rest is as it was");
    until("it is not known there", 61, || condition_is(&fake, "Enforced", "Unknown", "NodesNotReporting"))
        .await;
    assert!(condition_is(&fake, "Ready", "True", "Accepted"));
    let before = fake.writes().len();
    sleep(Duration::from_mins(10)).await;
    assert_eq!(fake.writes()[before..].iter().filter(|asked| asked.key.0 == STORES).count(), 0, "said once");
    add_agent(&fake, "n2");
    add_store(&fake, "n2", json!([usage("a", 3, 0)]));
    until("it is enforced again", 61, || condition_is(&fake, "Enforced", "True", "AllNodes")).await;
    sleep(Duration::from_mins(5)).await;
    assert_eq!(ready("n2")["status"], "True");
}

/// What was last seen of the pods counts for a moment, and not for good.
#[tokio::test(start_paused = true)]
async fn a_replica_whose_watch_of_the_agents_pods_fails_is_not_ready_until_it_works_again() {
    let (list, watch) = (0, 1);
    for allowed in [list, watch] {
        let fake = Fake::default();
        let requests = AtomicUsize::new(0);
        fake.set_faults(move |asked| {
            let is_refused = asked.key.0 == "pods" && requests.fetch_add(1, Ordering::SeqCst) >= allowed;
            is_refused.then(|| Fault::Reply(403, words(403, "Forbidden", "pods", "")))
        });
        let replica = Replica::start(&fake, "a");
        let says_so = || {
            let reasons = (replica.not_ready_reasons)();
            reasons.iter().any(|reason| reason.starts_with("pods cannot be watched: "))
        };
        until("it says why it is not ready", 600, says_so).await;
        fake.set_faults(|_| None);
        until("it is ready", 600, || (replica.not_ready_reasons)().is_empty()).await;
        replica.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_the_api_refuses_keeps_no_other_from_being_written() {
    let fake = Fake::default();
    for node in ["n1", "n2", "n3"] {
        add_store(&fake, node, json!([]));
    }
    // The first and the last, whichever way they are gone through.
    fake.set_faults(|asked| {
        let is_refused = asked.method == Method::PATCH && ["n1", "n3"].contains(&asked.key.2.as_str());
        is_refused.then(|| Fault::Reply(422, words(422, "Invalid", STORES, &asked.key.2)))
    });
    let replica = Replica::start(&fake, "a");
    let reason =
        |node: &str| fake.get(STORES, "", node).unwrap()["status"]["conditions"][0]["reason"].clone();
    until("the other one is written", 200, || reason("n2") == "AgentNotReady").await;
    assert_eq!((reason("n1"), reason("n3")), ("Collecting".into(), "Collecting".into()));
    fake.set_faults(|_| None);
    until("all are written", 61, || reason("n1") == "AgentNotReady" && reason("n3") == "AgentNotReady").await;
    replica.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn statuses_that_are_not_answered_keep_no_store_from_being_written() {
    let fake = Fake::default();
    add_store(&fake, "n1", json!([]));
    for number in 0..40 {
        add_policy(&fake, &format!("p{number}"), json!({}));
    }
    // As where a webhook for them does not work.
    fake.set_faults(|asked| {
        let is_policy = asked.method == Method::PATCH && asked.key.2.starts_with('p');
        is_policy.then(|| Fault::Reply(500, words(500, "InternalError", POLICIES, &asked.key.2)))
    });
    let replica = Replica::start(&fake, "a");
    let told = || fake.get(STORES, "", "n1").unwrap()["status"]["conditions"][0]["reason"] == "AgentNotReady";
    until("the store says that it has no agent", 200, told).await;
    replica.stop().await.unwrap();
}

/// Whether a condition of the policy `a` says this.
fn condition_is(fake: &Fake, kind: &str, status: &str, reason: &str) -> bool {
    condition(fake, "a", kind) == Some((status.to_owned(), reason.to_owned()))
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_while_nothing_changes() {
    let fake = Fake::default();
    add_node(&fake, "n1");
    for name in ["a", "b", "c"] {
        add_policy(&fake, name, json!({}));
    }
    add_policy(&fake, "broken", json!({"mode": 5}));
    add_store(&fake, "n1", json!([usage("a", 3, 2)]));
    add_agent(&fake, "n1");
    let replicas = [Replica::start(&fake, "a"), Replica::start(&fake, "b")];
    until("all are told", 10, || is_told(&fake, "c", "Accepted") && is_told(&fake, "broken", "Invalid"))
        .await;
    sleep(Duration::from_secs(5)).await;
    let before = fake.asked().len();
    // A node's heartbeat, and a store with nothing new in it.
    sleep(Duration::from_mins(5)).await;
    add_node(&fake, "n1");
    add_store(&fake, "n1", json!([usage("a", 3, 2)]));
    sleep(Duration::from_mins(5)).await;
    let writes: Vec<Asked> = fake.asked().split_off(before).into_iter().filter(Asked::is_write).collect();
    assert!(writes.is_empty(), "{writes:#?}");
    let writes = fake.writes();
    assert!(["a", "b", "c", "broken"].iter().all(|name| patches(&writes, name).len() == 1), "{writes:#?}");
    for replica in replicas {
        replica.stop().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn figures_that_change_all_the_time_are_written_now_and_then() {
    let fake = Fake::default();
    add_node(&fake, "n1");
    add_policy(&fake, "a", json!({}));
    add_store(&fake, "n1", json!([usage("a", 1, 0)]));
    let _replica = Replica::start(&fake, "a");
    until("it is told", 10, || is_told(&fake, "a", "Accepted")).await;
    for second in 0..120 {
        add_store(&fake, "n1", json!([usage("a", second, 0)]));
        sleep(Duration::from_secs(1)).await;
    }
    let written = patches(&fake.writes(), "a").len();
    assert!((3..=6).contains(&written), "{written}");
    until("the last figures", 61, || {
        fake.get(POLICIES, "", "a").unwrap()["status"]["totals"]["archives"] == 119
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn only_the_lease_in_its_own_namespace_says_that_the_older_operator_runs() {
    let fake = Fake::default();
    let operators = "checkpointrestoreoperators";
    let object = json!({"apiVersion": "criu.org/v1", "kind": "CheckpointRestoreOperator", "spec": {}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"});
    fake.put("customresourcedefinitions", "", "checkpointrestoreoperators.criu.org", definition);
    fake.put(operators, "keeper", "retention", object);
    let lease = || {
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
               "spec": {"holderIdentity": "somebody", "leaseDurationSeconds": i32::MAX}})
    };
    // Whoever may edit a namespace may create a lease in it.
    fake.put("leases", "tenant", "f1499914.criu.org", lease());
    let replica = Replica::start(&fake, "one");
    let reason = || {
        let conditions = fake.get(operators, "keeper", "retention")?["status"]["conditions"].clone();
        let accepted =
            conditions.as_array()?.iter().find(|condition| condition["type"] == "Accepted")?.clone();
        accepted["reason"].as_str().map(str::to_owned)
    };
    until("the object has a status", 60, || reason().is_some()).await;
    assert_eq!(reason().as_deref(), Some("Accepted"));
    fake.put("leases", "theirs", "f1499914.criu.org", lease());
    until("the older operator was seen", 60, || reason().as_deref() == Some("OtherOperator")).await;
    replica.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_leader_whose_lease_somebody_else_takes_stops_for_good() {
    let fake = Fake::default();
    add_node(&fake, "n1");
    let replica = Replica::start(&fake, "a");
    until("it leads", 5, || leader(&fake).as_deref() == Some("a")).await;
    let mut lease = fake.get("leases", "keeper", "checkpoint-keeper").unwrap();
    lease["spec"]["holderIdentity"] = "thief".into();
    fake.put("leases", "keeper", "checkpoint-keeper", lease);
    assert_eq!(replica.task.await.unwrap(), Err(Lost::Taken("thief".to_owned())));
    assert_eq!(leader(&fake).as_deref(), Some("thief"));
    let before = fake.asked().len();
    add_policy(&fake, "late", json!({}));
    sleep(Duration::from_mins(5)).await;
    assert!(fake.asked()[before..].iter().all(|asked| !asked.is_write()));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_writes_no_more_and_then_stops_for_good() {
    let fake = Fake::default();
    add_node(&fake, "n1");
    let replica = Replica::start(&fake, "a");
    until("it leads", 5, || leader(&fake).as_deref() == Some("a")).await;
    fake.set_faults(|asked| (asked.key.0 == "leases" && asked.method == Method::PUT).then_some(Fault::Hang));
    // The first writing made it the leader, and counts from when it was begun.
    let held =
        fake.asked().iter().rfind(|asked| asked.status == Some(201) && asked.key.0 == "leases").unwrap().at;
    let mut number = 0;
    while !replica.task.is_finished() {
        add_policy(&fake, &format!("p{number}"), json!({}));
        number += 1;
        sleep(Duration::from_millis(500)).await;
    }
    assert_eq!(replica.task.await.unwrap(), Err(Lost::NotRenewed));
    assert!(Instant::now() <= held + Duration::from_secs(16));
    let writes = fake.writes();
    let last = writes.iter().map(|asked| asked.at).max().unwrap();
    // It may take four seconds, and a second is left over.
    assert!(last <= held + Duration::from_secs(10), "{:?}", last - held);
    assert!(last >= held + Duration::from_secs(7), "it wrote while it could: {:?}", last - held);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_whose_reply_is_lost_is_no_reason_to_stop() {
    let fake = Fake::default();
    add_node(&fake, "n1");
    let replica = Replica::start(&fake, "a");
    until("it leads", 5, || leader(&fake).as_deref() == Some("a")).await;
    let begin = Instant::now();
    fake.set_faults(move |asked| {
        let is_renewal = asked.key.0 == "leases" && asked.method == Method::PUT;
        (is_renewal && asked.at < begin + Duration::from_secs(7)).then_some(Fault::LoseReply)
    });
    sleep(Duration::from_mins(2)).await;
    assert!(!replica.task.is_finished());
    replica.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn one_replica_is_killed_and_the_other_takes_over_and_nothing_is_written_twice() {
    let fake = Fake::default();
    add_node(&fake, "n1");
    let first = Replica::start(&fake, "a");
    until("a leads", 5, || leader(&fake).as_deref() == Some("a")).await;
    let second = Replica::start(&fake, "b");
    for number in 0..100 {
        add_policy(&fake, &format!("p{number}"), json!({}));
        if number == 50 {
            first.task.abort();
        }
        sleep(Duration::from_millis(400)).await;
    }
    until("b goes on", 20, || (0..100).all(|number| is_told(&fake, &format!("p{number}"), "Accepted"))).await;
    assert_eq!(leader(&fake).as_deref(), Some("b"));
    let writes = fake.writes();
    for number in 0..100 {
        assert_eq!(patches(&writes, &format!("p{number}")).len(), 1, "p{number}");
    }
    let ended = writes.iter().filter(|asked| asked.who == "a").map(|asked| asked.at).max().unwrap();
    let began = writes.iter().filter(|asked| asked.who == "b").map(|asked| asked.at).min().unwrap();
    assert!(began - ended >= Duration::from_secs(10), "{:?}", began - ended);
    assert!(began - ended <= Duration::from_secs(19), "{:?}", began - ended);
    second.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn whoever_is_told_to_stop_finishes_its_writing_and_hands_over_at_once() {
    let fake = Fake::default();
    add_node(&fake, "n1");
    let first = Replica::start(&fake, "a");
    until("a leads", 5, || leader(&fake).as_deref() == Some("a")).await;
    let second = Replica::start(&fake, "b");
    sleep(Duration::from_secs(3)).await;
    fake.set_faults(|asked| (asked.who == "a" && asked.method == Method::PATCH).then_some(Fault::Delay(3)));
    add_policy(&fake, "p1", json!({}));
    add_policy(&fake, "p2", json!({}));
    until("a writes", 5, || !patches(&fake.writes(), "p1").is_empty()).await;
    let told = Instant::now();
    first.stop().await.unwrap();
    assert!(is_told(&fake, "p1", "Accepted"), "what was under way is finished");
    assert!(Instant::now() - told >= Duration::from_secs(2));
    assert_eq!(leader(&fake), None);
    until("b goes on", 4, || is_told(&fake, "p2", "Accepted")).await;
    let writes = fake.writes();
    assert!(patches(&writes, "p1").iter().all(|asked| asked.who == "a"));
    let [only] = patches(&writes, "p2")[..] else { panic!("{writes:#?}") };
    assert_eq!(only.who, "b");
    second.stop().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_status_that_the_api_refuses_keeps_no_other_from_being_written() {
    let fake = Fake::default();
    add_node(&fake, "n1");
    fake.set_faults(|asked| {
        let refused = asked.key.2 == "a" && asked.method == Method::PATCH;
        refused.then(|| Fault::Reply(422, words(422, "Invalid", POLICIES, "a")))
    });
    add_policy(&fake, "a", json!({}));
    add_policy(&fake, "b", json!({}));
    let _replica = Replica::start(&fake, "r");
    until("b is told", 5, || is_told(&fake, "b", "Accepted")).await;
    for number in 0..60 {
        add_policy(&fake, &format!("p{number}"), json!({}));
        sleep(Duration::from_secs(1)).await;
    }
    let tries = patches(&fake.writes(), "a").len();
    assert!((2..=3).contains(&tries), "{tries}");
}

#[tokio::test(start_paused = true)]
async fn an_object_that_changed_meanwhile_is_not_written_over() {
    let fake = Fake::default();
    add_node(&fake, "n1");
    let again = fake.clone();
    let once = std::sync::atomic::AtomicBool::new(true);
    fake.set_faults(move |asked| {
        let first = asked.method == Method::PATCH && once.swap(false, std::sync::atomic::Ordering::SeqCst);
        first.then_some(Fault::Delay(1))
    });
    add_policy(&fake, "a", json!({}));
    let _replica = Replica::start(&fake, "r");
    until("it is being written", 5, || !patches(&fake.writes(), "a").is_empty()).await;
    add_policy(&again, "a", json!({"mode": "DryRun"}));
    until("what is new is told", 10, || is_told(&fake, "a", "DryRun")).await;
    let writes = fake.writes();
    let statuses: Vec<Option<u16>> = patches(&writes, "a").iter().map(|asked| asked.status).collect();
    assert_eq!(statuses, [Some(409), Some(200)]);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_gone_is_no_trouble() {
    let fake = Fake::default();
    add_node(&fake, "n1");
    add_policy(&fake, "a", json!({}));
    fake.set_faults(|asked| (asked.method == Method::PATCH && asked.key.2 == "a").then_some(Fault::Delay(1)));
    let replica = Replica::start(&fake, "r");
    until("it is being written", 5, || !patches(&fake.writes(), "a").is_empty()).await;
    fake.delete(POLICIES, "", "a");
    add_policy(&fake, "b", json!({}));
    until("the other is told", 5, || is_told(&fake, "b", "Accepted")).await;
    replica.stop().await.unwrap();
}

//! Quotas: what the controller says in them of what the nodes report.

use super::*;

const QUOTAS: &str = "checkpointquotas";

fn add_quota(fake: &Fake, spec: Value) {
    let object = json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointQuota",
        "metadata": {"creationTimestamp": "2026-11-24T12:00:00Z"}, "spec": spec,
    });
    fake.put(QUOTAS, "shop", "q", object);
}

fn report(fake: &Fake, node: &str, archives: i64) {
    let ready = json!({"type": "Ready", "status": "True", "reason": "Collecting", "message": "",
                       "lastTransitionTime": "2026-11-24T12:00:00Z"});
    let quotas = json!([{"namespace": "shop", "archives": archives, "bytes": archives * 1024}]);
    let status = json!({"archives": archives, "quotas": quotas, "conditions": [ready]});
    let object = json!({"apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "NodeCheckpointStore", "spec": {}, "status": status});
    fake.put(STORES, "", node, object);
}

fn status(fake: &Fake) -> Value {
    fake.get(QUOTAS, "shop", "q").unwrap()["status"].clone()
}

fn used(fake: &Fake) -> Value {
    status(fake)["used"]["count"].clone()
}

fn is_said(fake: &Fake, type_: &str, is: &str) -> bool {
    let status = status(fake);
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.any(|one| one["type"] == type_ && one["status"] == is)
}

fn events(fake: &Fake) -> Vec<String> {
    let events = fake.writes().into_iter().filter(|asked| asked.key.0 == "events");
    events.map(|asked| format!("{} {}", asked.body["regarding"]["name"], asked.body["reason"])).collect()
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_told_what_its_namespace_holds_and_each_transition_is_one_event() {
    let fake = Fake::default();
    for node in ["n1", "n2"] {
        add_agent(&fake, node);
    }
    report(&fake, "n1", 1);
    report(&fake, "n2", 2);
    add_quota(&fake, json!({"hard": {"count": 5}}));
    let replica = Replica::start(&fake, "a");
    until("it is counted", 10, || used(&fake) == json!(3)).await;
    assert!(is_said(&fake, "Ready", "True") && is_said(&fake, "Exceeded", "False"));
    assert_eq!(status(&fake)["used"]["bytes"], "3Ki");
    assert_eq!(events(&fake), [""; 0]);
    sleep(Duration::from_mins(2)).await;
    report(&fake, "n1", 2);
    until("it is nearly exceeded", 5, || is_said(&fake, "NearlyExceeded", "True")).await;
    report(&fake, "n1", 4);
    until("it is exceeded", 5, || is_said(&fake, "Exceeded", "True")).await;
    sleep(Duration::from_mins(5)).await;
    let told = ["\"q\" \"QuotaNearlyExceeded\"", "\"q\" \"QuotaExceeded\""];
    assert_eq!(events(&fake), told);
    // Another replica, or the same one later, does not tell it again.
    replica.stop().await.unwrap();
    let _replica = Replica::start(&fake, "b");
    sleep(Duration::from_mins(5)).await;
    assert_eq!(events(&fake), told);
    // With a node go its archives.
    fake.delete(STORES, "", "n2");
    until("they count no more", 40, || used(&fake) == json!(4)).await;
    assert!(is_said(&fake, "Exceeded", "False"));
}

/// Thousands of nodes report each minute.
#[tokio::test(start_paused = true)]
async fn figures_that_change_all_the_time_are_written_now_and_then() {
    let fake = Fake::default();
    add_agent(&fake, "n1");
    report(&fake, "n1", 0);
    add_quota(&fake, json!({"hard": {"count": 1_000_000}}));
    let _replica = Replica::start(&fake, "a");
    until("it is counted", 10, || used(&fake) == json!(0)).await;
    let before = fake.writes().len();
    for archives in 1..=100 {
        report(&fake, "n1", archives);
        sleep(Duration::from_secs(3)).await;
    }
    until("the last is told", 31, || used(&fake) == json!(100)).await;
    let writes = fake.writes()[before..].iter().filter(|asked| asked.key.0 == QUOTAS).count();
    assert!((8..=12).contains(&writes), "{writes} writes in five minutes");
    sleep(Duration::from_mins(10)).await;
    let after = fake.writes()[before..].iter().filter(|asked| asked.key.0 == QUOTAS).count();
    assert_eq!(after, writes, "what does not change is not written");
}

#[tokio::test(start_paused = true)]
async fn archives_on_a_node_without_an_agent_count_on_and_are_said_to_be_old() {
    let fake = Fake::default();
    add_agent(&fake, "n1");
    report(&fake, "n1", 3);
    add_quota(&fake, json!({"hard": {"count": 5}}));
    let _replica = Replica::start(&fake, "a");
    until("it is counted", 10, || used(&fake) == json!(3)).await;
    fake.delete("pods", "keeper", "n1");
    until("it is said", 240, || status(&fake)["staleNodes"] == json!(1)).await;
    assert_eq!(used(&fake), json!(3));
    assert!(status(&fake)["staleSince"].is_string());
    assert_eq!(status(&fake)["nodes"][0]["staleSince"], status(&fake)["staleSince"]);
}

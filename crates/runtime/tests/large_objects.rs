//! Objects that tenants write, as many and as large as the API takes them: what an agent keeps of them is little, and other
//! namespaces' policies and schedules are in force all the same. A process of its own, as its memory is measured.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use axum::extract::Request;
use checkpoint_keeper_api::effective::Seen;
use checkpoint_keeper_runtime::bounds::MOST_OBJECTS;
use checkpoint_keeper_runtime::policy_objects::PolicyObjects;
use checkpoint_keeper_runtime::schedule_objects::ScheduleObjects;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::timeout;

/// So many policies of that size there are in one namespace, from before lists had the maxima that they have now.
const LARGE: usize = 300;

/// So many small schedules there are in another one.
const SMALL: usize = MOST_OBJECTS + 100;

/// The most memory that may be needed for them, in KiB, about half of it for the pages of the fake API. An agent has 128 MiB.
const MOST_KIB: u64 = 72 << 10;

/// The most memory that this process ever had resident, in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn selector() -> Value {
    let values: Vec<String> = (0..64).map(|number| format!("{number:063}")).collect();
    let expressions: Vec<Value> = (0..64)
        .map(|number| json!({"key": format!("k{number}"), "operator": "In", "values": values}))
        .collect();
    json!({"matchExpressions": expressions})
}

fn metadata(namespace: &str, name: &str) -> Value {
    json!({"namespace": namespace, "name": name, "uid": format!("{namespace}/{name}"), "resourceVersion": "1", "generation": 1})
}

fn policy(namespace: &str, name: &str, selector: &Value) -> Value {
    json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointPolicy",
        "metadata": metadata(namespace, name), "spec": {"selector": selector, "retention": {"maxAge": "7d"}},
    })
}

/// As text: it is made once.
fn large_policy() -> String {
    let names: Vec<String> = (0..256).map(|number| format!("{number:0253}")).collect();
    let selector = json!({"pods": names, "containers": names, "podSelector": selector()});
    policy("greedy", "NAME", &selector).to_string()
}

fn schedule(namespace: &str, name: &str, selector: &Value) -> Value {
    json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointSchedule",
        "metadata": metadata(namespace, name), "spec": {"selector": selector, "triggers": {"interval": "1h"}},
    })
}

/// An API with as many objects of each kind, page by page; the other namespace's are last. Its watch of schedules says, once it
/// is told, that so many of the small ones are gone.
fn api(gone: tokio::sync::watch::Receiver<usize>) -> Client {
    let large = large_policy();
    let large_schedule = schedule("greedy", "NAME", &selector()).to_string();
    let answer = move |request: Request| {
        let (mut gone, large, large_schedule) = (gone.clone(), large.clone(), large_schedule.clone());
        async move {
            let reply = |body: String| axum::response::Response::new(axum::body::Body::from(body));
            let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
            let of = |name: &str| {
                let mut values = query.split('&').filter_map(|part| part.strip_prefix(name));
                values.find_map(|value| value.strip_prefix('=')?.parse::<usize>().ok())
            };
            let is_schedules = path.ends_with("checkpoint-keeper.io/v1alpha1/checkpointschedules");
            let small = |number: usize| schedule("many", &format!("{number:04}"), &json!({}));
            let before = *gone.borrow();
            if query.contains("watch=") {
                if is_schedules
                    && of("resourceVersion") == Some(1)
                    && gone.wait_for(|gone| *gone > 0).await.is_ok()
                {
                    let line = |number| {
                        let mut object = small(number);
                        object["metadata"]["resourceVersion"] = json!("2");
                        format!("{}\n", json!({"type": "DELETED", "object": object}))
                    };
                    return reply((0..*gone.borrow()).map(line).collect());
                }
                return std::future::pending().await;
            }
            let (from, limit) = (of("continue").unwrap_or(0), of("limit").unwrap_or(500));
            let named = |text: &str, at: usize| text.replacen("NAME", &at.to_string(), 1);
            let item = |at: usize| match at {
                at if at < LARGE && is_schedules => Some(named(&large_schedule, at)),
                at if at < LARGE + SMALL - before && is_schedules => {
                    Some(small(at - LARGE + before).to_string())
                }
                at if at == LARGE + SMALL - before && is_schedules => {
                    Some(schedule("team", "small", &json!({})).to_string())
                }
                at if at < LARGE && path.ends_with("/checkpointpolicies") => Some(named(&large, at)),
                LARGE if path.ends_with("/checkpointpolicies") => {
                    Some(policy("team", "small", &json!({})).to_string())
                }
                _ => None,
            };
            let items: Vec<String> = (from..from + limit).map_while(item).collect();
            let next = if items.len() == limit { (from + limit).to_string() } else { String::new() };
            let metadata = json!({"resourceVersion": (before + 1).to_string(), "continue": next});
            let items = items.join(",");
            reply(format!(r#"{{"kind":"List","apiVersion":"v1","metadata":{metadata},"items":[{items}]}}"#))
        }
    };
    Client::new(axum::Router::new().fallback(answer), "default")
}

#[tokio::test(start_paused = true)]
async fn as_many_objects_as_large_as_can_be_need_little_memory_and_concern_no_other_namespace() {
    let gone = tokio::sync::watch::Sender::new(0);
    let client = api(gone.subscribe());
    let (policies, schedules) = (PolicyObjects::new(&[]), ScheduleObjects::new("operator".to_owned()));
    let mut changes = (policies.changes(), schedules.changes());
    let before = peak();
    let checks = async {
        while policies.all().is_none() || schedules.all().is_none() {
            tokio::select! { _ = changes.0.changed() => {}, _ = changes.1.changed() => {} }
        }
        let needed = peak() - before;
        assert!(needed < MOST_KIB, "{needed} KiB");

        let all = policies.all().unwrap().namespaced;
        let read = |of: &[Seen<_>]| -> Vec<String> {
            let parsed = of.iter().filter_map(|one| match one {
                Seen::Parsed(object) => {
                    Some(checkpoint_keeper_api::CheckpointPolicy::namespace(object).unwrap())
                }
                Seen::Unparsable(_) => None,
            });
            parsed.collect()
        };
        assert_eq!(all.len(), LARGE + 1, "each is known, so that its namespace fails closed");
        assert_eq!(read(&all), ["greedy", "team"], "there is room for one of them");
        let told = all.iter().find_map(|one| match one {
            Seen::Unparsable(broken) => Some((broken.namespace.clone(), broken.error.clone())),
            Seen::Parsed(_) => None,
        });
        let (namespace, error) = told.unwrap();
        assert_eq!(namespace.as_deref(), Some("greedy"));
        assert!(error.contains("more than 500, or larger than 512 KiB together"), "{error}");

        let wall = jiff::Timestamp::UNIX_EPOCH;
        let carried_out = |namespace: &str| {
            let all = schedules.schedules(false, wall).unwrap();
            all.iter().filter(|one| one.id.namespace == namespace).count()
        };
        assert_eq!(["greedy", "many", "team"].map(carried_out), [1, MOST_OBJECTS, 1]);
        // What was left out is read once there is room for all of it.
        gone.send_replace(SMALL - MOST_OBJECTS);
        changes.1.changed().await.unwrap();
        while carried_out("many") < MOST_OBJECTS {
            changes.1.changed().await.unwrap();
        }
        assert_eq!(carried_out("team"), 1);
    };
    tokio::select! {
        () = policies.watch(&client) => {},
        () = schedules.watch(&client) => {},
        done = timeout(Duration::from_hours(1), checks) => done.unwrap(),
    }
}

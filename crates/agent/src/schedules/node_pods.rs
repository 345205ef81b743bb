//! This node's pods as schedules need them, and whether the node is being drained. They are watched only while there
//! is a schedule: on other nodes it costs nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use checkpoint_keeper_api::api_object::ApiObject;
use checkpoint_keeper_core::quantity;
use checkpoint_keeper_core::schedule::{
    ContainerId, NodePod, PodContainer, RESULT_ANNOTATION, TRIGGER_ANNOTATION,
};
use checkpoint_keeper_runtime::cache::{Cache, kept};
use checkpoint_keeper_runtime::cluster;
use checkpoint_keeper_runtime::liveness::{now, other_watch};
use checkpoint_keeper_runtime::problem_log::Problem;
use checkpoint_keeper_runtime::watch::{Change, follow, objects_of};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Client;
use kube::runtime::watcher::watcher;
use serde::Deserialize;
use tokio::sync::watch;

use super::name_watch::{NameWatch, NameWatches};

/// So many pods are listed at a time. Each may be large, and little of it is kept.
const PAGE: u32 = 20;

/// What was seen; shared by whoever watches and whoever asks.
#[derive(Debug, Clone)]
pub(super) struct NodePods {
    seen: Arc<Mutex<Seen>>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Seen {
    pods: Cache<Option<NodePod>>,
    node: Cache<bool>,
    names: NameWatches,
}

impl Default for NodePods {
    fn default() -> Self {
        Self { seen: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl NodePods {
    /// Watches both, for as long as it is polled.
    pub(super) async fn watch(&self, client: &Client, node: &str) {
        tokio::join!(self.watch_pods(client, node), self.watch_node(client, node));
    }

    /// Forgets what was seen, as it is not watched any more.
    pub(super) fn forget(&self) {
        let mut seen = self.seen();
        seen.names.note_gap();
        (seen.pods, seen.node) = (Cache::default(), Cache::default());
        drop(seen);
        self.changed.send_replace(());
    }

    async fn watch_pods(&self, client: &Client, node: &str) {
        let config = other_watch().fields(&cluster::running_on(node)).page_size(PAGE);
        let events = watcher(objects_of::<Pod>(client), config);
        follow(kept(events, node_pod), |change| {
            let mut seen = self.seen();
            match &change {
                Change::Applied((_, pod)) => pod.iter().for_each(|pod| seen.names.note(pod)),
                // Between two listings pods may have come and gone.
                Change::Listed(_) => seen.names.note_gap(),
                Change::Deleted(_) | Change::Failed(_) => {}
            }
            let is_change = seen.pods.note_kept(change, now());
            drop(seen);
            if is_change {
                self.changed.send_replace(());
            }
        })
        .await;
    }

    async fn watch_node(&self, client: &Client, node: &str) {
        let config = other_watch().fields(&format!("metadata.name={node}"));
        let events = watcher(objects_of::<Node>(client), config);
        follow(events, |change| {
            let before = self.is_unschedulable();
            self.seen().node.note(change, now(), is_unschedulable);
            if self.is_unschedulable() != before {
                self.changed.send_replace(());
            }
        })
        .await;
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change from here on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// The pods of this node; none while that cannot be told.
    pub(super) fn pods(&self, now: Instant) -> Option<Vec<NodePod>> {
        let seen = self.seen();
        seen.pods.is_up(now).then(|| seen.pods.objects.values().flatten().cloned().collect())
    }

    /// Watches from now on whether another container of this node has archives of the same names as this one.
    pub(super) fn watch_name(&self, container: &ContainerId, now: Instant) -> NameWatch {
        let mut seen = self.seen();
        let Seen { pods, names, .. } = &mut *seen;
        let known = pods.is_up(now).then(|| pods.objects.values().flatten());
        names.begin(container, known)
    }

    /// Whether the node is marked unschedulable; none while that is not known.
    pub(super) fn is_unschedulable(&self) -> Option<bool> {
        self.seen().node.objects.values().next().copied()
    }

    /// What is wrong with each watch, where that counts.
    pub(super) fn watch_errors(&self, now: Instant) -> Vec<String> {
        let seen = self.seen();
        let errors =
            [seen.pods.error("pods for schedules", now), seen.node.error("the node for schedules", now)];
        errors.into_iter().flatten().collect()
    }

    /// What is wrong with each watch at this moment, for the log.
    pub(super) fn watch_problems(&self, now: Instant) -> Vec<Problem> {
        let seen = self.seen();
        let problems =
            [seen.pods.problem("pods for schedules", now), seen.node.problem("the node for schedules", now)];
        problems.into_iter().flatten().collect()
    }
}

/// The parts of a pod that count here. Any of them may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodParts {
    spec: SpecParts,
    status: StatusParts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct SpecParts {
    containers: Vec<ContainerParts>,
    init_containers: Vec<ContainerParts>,
    ephemeral_containers: Vec<ContainerParts>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerParts {
    name: String,
    resources: ResourceParts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceParts {
    limits: LimitParts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct LimitParts {
    cpu: Option<String>,
    memory: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StatusParts {
    phase: String,
    conditions: Vec<ConditionParts>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ConditionParts {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    reason: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeParts {
    spec: NodeSpecParts,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct NodeSpecParts {
    unschedulable: bool,
}

/// What of a pod counts here; none of one that cannot be read, or that has no UID. A static pod is known to the
/// kubelet by another UID than its mirror's, and by the same names, which are what is asked for.
fn node_pod(object: ApiObject) -> Option<NodePod> {
    let ApiObject { metadata, data, has_too_many_labels } = object;
    if has_too_many_labels {
        // Which schedules select it cannot be told.
        return None;
    }
    let parts: PodParts = serde_json::from_value(data).ok()?;
    let annotation = |name: &str| metadata.annotations.as_ref().and_then(|all| all.get(name)).cloned();
    let main = parts.spec.containers.into_iter().map(|container| container.kept(true));
    let others = parts.spec.init_containers.into_iter().chain(parts.spec.ephemeral_containers);
    let target = parts.status.conditions.into_iter().find(|condition| condition.kind == "DisruptionTarget");
    Some(NodePod {
        namespace: metadata.namespace.clone()?,
        name: metadata.name.clone()?,
        uid: metadata.uid.clone()?,
        is_running: parts.status.phase == "Running",
        containers: main.chain(others.map(|container| container.kept(false))).collect(),
        is_annotated: annotation(TRIGGER_ANNOTATION).as_deref() == Some("true"),
        answer: annotation(RESULT_ANNOTATION),
        is_deleted: metadata.deletion_timestamp.is_some(),
        disruption_target: target.filter(|target| target.status == "True").map(|target| target.reason),
        labels: metadata.labels.unwrap_or_default().into_iter().collect(),
    })
}

impl ContainerParts {
    fn kept(self, is_main: bool) -> PodContainer {
        let LimitParts { cpu, memory } = self.resources.limits;
        let bytes = |text: String| quantity::parse(&text).ok();
        PodContainer {
            name: self.name,
            is_main,
            cpu_limit: cpu.and_then(|text| thousandths(&text)),
            memory_limit: memory.and_then(bytes),
        }
    }
}

/// A CPU limit in thousandths of a core: `500m`, `2`, `0.5`, or a larger unit.
fn thousandths(text: &str) -> Option<u64> {
    if let Some(millis) = text.strip_suffix('m') {
        return millis.parse().ok();
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.bytes().all(|digit| digit.is_ascii_digit())
        && whole.bytes().all(|digit| digit.is_ascii_digit())
    {
        let fraction: String = fraction.chars().chain("000".chars()).take(3).collect();
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        return whole.checked_mul(1_000)?.checked_add(fraction.parse().ok()?);
    }
    quantity::parse(text).ok()?.checked_mul(1_000)
}

fn is_unschedulable(object: ApiObject) -> bool {
    let parts: NodeParts = serde_json::from_value(object.data).unwrap_or_default();
    parts.spec.unschedulable
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(pod: Value) -> Option<NodePod> {
        node_pod(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn of_a_pod_is_kept_what_schedules_go_by() {
        let pod = read(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "namespace": "shop", "name": "db-0", "uid": "u", "labels": {"app": "db"},
                "annotations": {"checkpoint.criu.org/trigger": "true", "checkpoint.criu.org/result": "{}", "x": "y"},
                "deletionTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {
                "containers": [{"name": "app", "resources": {"limits": {"cpu": "500m", "memory": "500Mi"}}}, {"name": "b"}],
                "initContainers": [{"name": "init"}], "ephemeralContainers": [{"name": "debug"}],
            },
            "status": {"phase": "Running", "conditions": [
                {"type": "Ready", "status": "True"},
                {"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"},
            ]},
        }))
        .unwrap();
        assert!(pod.is_running && pod.is_annotated && pod.is_deleted);
        assert_eq!(pod.disruption_target.as_deref(), Some("PreemptionByScheduler"));
        assert_eq!(pod.answer.as_deref(), Some("{}"));
        let names: Vec<(&str, bool)> =
            pod.containers.iter().map(|container| (container.name.as_str(), container.is_main)).collect();
        assert_eq!(names, [("app", true), ("b", true), ("init", false), ("debug", false)]);
        assert_eq!(
            (pod.containers[0].cpu_limit, pod.containers[0].memory_limit),
            (Some(500), Some(500 << 20))
        );
        assert_eq!((pod.containers[1].cpu_limit, pod.containers[1].memory_limit), (None, None));
    }

    #[test]
    fn what_asks_for_nothing_is_told_apart() {
        let with = |annotation: &str, status: &str| {
            read(json!({
                "metadata": {"namespace": "a", "name": "b", "uid": "u",
                    "annotations": {"checkpoint.criu.org/trigger": annotation}},
                "status": {"phase": "Pending", "conditions": [
                    {"type": "DisruptionTarget", "status": status, "reason": "EvictionByEvictionAPI"}]},
            }))
            .unwrap()
        };
        for value in ["false", "True", "", "1"] {
            assert!(!with(value, "True").is_annotated, "{value}");
        }
        let pod = with("true", "False");
        assert_eq!((pod.disruption_target, pod.is_running), (None, false));
        assert_eq!(read(json!({"metadata": {"name": "b"}})), None);
        assert_eq!(read(json!({"metadata": {"namespace": "a", "name": "b", "uid": "u"}, "spec": 1})), None);
    }

    #[test]
    fn limits_of_cpu_are_read_in_thousandths() {
        for (text, millis) in [
            ("500m", Some(500)),
            ("2", Some(2_000)),
            ("0.5", Some(500)),
            (".25", Some(250)),
            ("1k", Some(1_000_000)),
        ] {
            assert_eq!(thousandths(text), millis, "{text}");
        }
        assert_eq!(thousandths("much"), None);
    }

    /// An API that shows these pods, and then by its watch what it is told, in one piece.
    fn api(listed: Vec<Value>, told: watch::Receiver<Vec<(&'static str, Value)>>) -> Client {
        let answer = move |request: axum::extract::Request| {
            let (listed, mut told) = (listed.clone(), told.clone());
            async move {
                let reply = |body: String| axum::response::Response::new(axum::body::Body::from(body));
                let query = request.uri().query().unwrap_or_default();
                let is_pods = request.uri().path().ends_with("/pods");
                if query.contains("watch=") {
                    if !is_pods || !query.contains("resourceVersion=1") {
                        return std::future::pending().await;
                    }
                    let Ok(told) = told.wait_for(|told| !told.is_empty()).await else {
                        return std::future::pending().await;
                    };
                    let line =
                        |(what, pod): &(&str, Value)| format!("{}\n", json!({"type": what, "object": pod}));
                    return reply(told.iter().map(line).collect());
                }
                let (items, metadata) =
                    (if is_pods { listed } else { Vec::new() }, json!({"resourceVersion": "1"}));
                let list = json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items});
                reply(list.to_string())
            }
        };
        Client::new(axum::Router::new().fallback(answer), "default")
    }

    fn pod_of(namespace: &str, container: &str) -> Value {
        json!({
            "metadata": {"namespace": namespace, "name": "a", "uid": namespace, "resourceVersion": "2"},
            "spec": {"containers": [{"name": container}]}, "status": {"phase": "Running"},
        })
    }

    /// Whether a file of the name of container `c-d` in namespace `b` is that one's, where namespace `b-c` has these pods at
    /// the beginning of the dump, and this is told of it until the end, when it has none.
    async fn is_name_certain(listed: Vec<Value>, told: Vec<(&'static str, Value)>) -> bool {
        let (sender, receiver) = watch::channel(Vec::new());
        let client = api(listed.into_iter().chain([pod_of("b", "c-d")]).collect(), receiver);
        let pods = NodePods::default();
        let container = ContainerId {
            namespace: "b".to_owned(),
            pod: "a".to_owned(),
            pod_uid: "b".to_owned(),
            container: "c-d".to_owned(),
        };
        let mut changes = pods.changes();
        let dump = async {
            while pods.pods(now()).is_none() {
                changes.changed().await.unwrap();
            }
            let name = pods.watch_name(&container, now());
            sender.send_replace(told);
            // The change of our own pod is the last one.
            let is_over = |pods: Vec<NodePod>| pods.len() == 1 && pods[0].is_annotated;
            while !pods.pods(now()).is_some_and(is_over) {
                changes.changed().await.unwrap();
            }
            name.is_unambiguous()
        };
        tokio::select! { () = pods.watch(&client, "n") => panic!("it ends"), is_certain = dump => is_certain }
    }

    #[tokio::test(start_paused = true)]
    async fn who_had_the_name_at_any_time_of_a_dump_leaves_its_file_in_doubt() {
        let mut last = pod_of("b", "c-d");
        last["metadata"]["annotations"] = json!({"checkpoint.criu.org/trigger": "true"});
        let last = ("MODIFIED", last);
        let other = || pod_of("b-c", "d");
        assert!(is_name_certain(vec![], vec![last.clone()]).await);
        assert!(
            is_name_certain(vec![pod_of("b-c", "e")], vec![("DELETED", pod_of("b-c", "e")), last.clone()])
                .await
        );
        assert!(!is_name_certain(vec![other()], vec![("DELETED", other()), last.clone()]).await);
        assert!(!is_name_certain(vec![], vec![("ADDED", other()), ("DELETED", other()), last.clone()]).await);
    }
}

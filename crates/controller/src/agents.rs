//! Which nodes have an agent at work, by the agents' pods in the operator's own namespace.
//!
//! An agent reports itself what keeps it from working, for as long as it can. That it is gone, only others can say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use checkpoint_keeper_api::AGENT_SELECTOR;
use checkpoint_keeper_api::api_object::ApiObject;
use checkpoint_keeper_runtime::cache::Cache;
use checkpoint_keeper_runtime::guarded;
use checkpoint_keeper_runtime::problem_log::Problem;
use checkpoint_keeper_runtime::watch::follow;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ApiResource;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use super::node_report::NodeReport;

/// How long an agent may be away until that is said: longer than it takes to replace its pod.
const GRACE: Duration = Duration::from_mins(2);

/// How an agent is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AgentHealth {
    /// It has no pod that runs.
    Missing,
    /// Its pod runs and is not ready.
    NotReady,
    /// Its pod is ready.
    Ready,
}

/// What was seen of one pod.
#[derive(Debug, Clone, PartialEq, Eq)]
struct AgentPod {
    node: String,
    health: AgentHealth,
}

/// The agents' pods, shared by the task that watches them and those that read them.
#[derive(Debug, Clone)]
pub(super) struct Agents {
    pods: Arc<Mutex<Cache<AgentPod>>>,
    changed: watch::Sender<()>,
}

impl AgentHealth {
    /// Its name in metrics.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Missing => "Missing",
            Self::NotReady => "NotReady",
            Self::Ready => "Ready",
        }
    }
}

impl Default for Agents {
    fn default() -> Self {
        Self { pods: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl Agents {
    /// Watches them, for as long as it is polled.
    pub(super) async fn watch(&self, client: &Client, namespace: &str) {
        let kind = ApiResource::erase::<Pod>(&());
        let api: Api<ApiObject> = Api::namespaced_with(client.clone(), namespace, &kind);
        let events = watcher(api, watcher::Config::default().labels(AGENT_SELECTOR));
        let mut before = self.health();
        follow(events.modify(strip), |change| {
            if !self.pods().note(change, now(), |pod| agent_pod(&pod)) {
                return;
            }
            let health = self.health();
            if health != before {
                before = health;
                self.changed.send_replace(());
            }
        })
        .await;
    }

    fn pods(&self) -> MutexGuard<'_, Cache<AgentPod>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A receiver that is notified of each later change.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What is wrong with the watch.
    pub(super) fn not_ready_reasons(&self, now: std::time::Instant) -> Vec<String> {
        self.pods().error("pods", now).into_iter().collect()
    }

    /// What is wrong with the watch, for the log.
    pub(super) fn watch_problem(&self, now: std::time::Instant) -> Option<Problem> {
        self.pods().problem("pods", now)
    }

    /// The agent of each node that has one; nothing before all were listed.
    pub(super) fn health(&self) -> Option<BTreeMap<String, AgentHealth>> {
        let pods = self.pods();
        let mut health: BTreeMap<String, AgentHealth> = BTreeMap::new();
        for pod in pods.objects.values() {
            // While one takes another's place, the better one counts.
            let known = health.entry(pod.node.clone()).or_insert(AgentHealth::Missing);
            *known = (*known).max(pod.health);
        }
        pods.is_listed().then_some(health)
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

/// Leaves of a pod what is looked at.
fn strip(pod: &mut ApiObject) {
    let deleted = pod.metadata.deletion_timestamp.take();
    guarded::strip(&mut pod.metadata);
    pod.metadata.deletion_timestamp = deleted;
    for (part, needed) in [("spec", &["nodeName"][..]), ("status", &["phase", "conditions"][..])] {
        if let Some(fields) = pod.data.get_mut(part).and_then(Value::as_object_mut) {
            fields.retain(|name, _| needed.contains(&name.as_str()));
        }
    }
}

fn agent_pod(pod: &ApiObject) -> AgentPod {
    let text = |path: &str| pod.data.pointer(path).and_then(Value::as_str);
    let runs = text("/status/phase") == Some("Running") && pod.metadata.deletion_timestamp.is_none();
    let conditions = pod.data.pointer("/status/conditions").and_then(Value::as_array);
    let is_ready = |condition: &Value| condition["type"] == "Ready" && condition["status"] == "True";
    let is_ready = conditions.is_some_and(|conditions| conditions.iter().any(is_ready));
    let health = match (runs, is_ready) {
        (false, _) => AgentHealth::Missing,
        (true, false) => AgentHealth::NotReady,
        (true, true) => AgentHealth::Ready,
    };
    AgentPod { node: text("/spec/nodeName").unwrap_or_default().to_owned(), health }
}

/// The nodes that have no agent that is ready, and when the grace period of each ends.
#[derive(Debug, Default)]
pub(super) struct Absences(BTreeMap<String, Instant>);

/// What follows from the agents' health.
#[derive(Debug, Default, PartialEq)]
pub(super) struct WithoutAgent {
    /// The nodes that have been without an agent that is ready for the grace period: those where it is missing first,
    /// and each kind by name, so that the first ones are always the same.
    pub(super) nodes: Vec<(String, AgentHealth)>,
    /// The reports of those whose stores do not say so yet.
    pub(super) untold: Vec<Arc<NodeReport>>,
    /// When the next grace period ends.
    pub(super) next: Option<Instant>,
}

impl Absences {
    /// Looks at every node that has a report.
    pub(super) fn look(
        &mut self,
        reports: &[Arc<NodeReport>],
        agents: &BTreeMap<String, AgentHealth>,
        now: Instant,
    ) -> WithoutAgent {
        let health = |node: &str| agents.get(node).copied().unwrap_or(AgentHealth::Missing);
        let away = reports.iter().filter(|report| health(&report.node) != AgentHealth::Ready);
        let ends = away.map(|report| {
            // Of one whose store says it already, another replica has waited.
            let first = if report.ready == "Unknown" { now } else { now + GRACE };
            (report.node.clone(), self.0.get(&report.node).copied().unwrap_or(first))
        });
        self.0 = ends.collect();
        let mut without = WithoutAgent::default();
        for report in reports {
            let Some(end) = self.0.get(&report.node).copied() else { continue };
            if now < end {
                without.next = Some(without.next.map_or(end, |next| next.min(end)));
                continue;
            }
            without.nodes.push((report.node.clone(), health(&report.node)));
            // What an agent that runs says of itself is better than what others say of it.
            let is_told = match health(&report.node) {
                AgentHealth::Missing => report.ready == "Unknown",
                AgentHealth::NotReady | AgentHealth::Ready => report.ready != "True",
            };
            if !is_told {
                without.untold.push(Arc::clone(report));
            }
        }
        without.nodes.sort_unstable_by(|(one, health), (other, its)| (health, one).cmp(&(its, other)));
        without
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(node: &str, ready: &str) -> Arc<NodeReport> {
        Arc::new(NodeReport { node: node.to_owned(), ready: ready.to_owned(), ..NodeReport::default() })
    }

    #[test]
    fn a_pod_says_how_its_nodes_agent_is() {
        let health = |status: serde_json::Value, deleted: Option<&str>| {
            let mut pod: ApiObject = serde_json::from_value(json!({
                "metadata": {"name": "a", "deletionTimestamp": deleted, "annotations": {"long": "x"}},
                "spec": {"nodeName": "n1", "containers": []}, "status": status,
            }))
            .unwrap();
            strip(&mut pod);
            assert!(pod.metadata.annotations.is_none());
            agent_pod(&pod)
        };
        let pod = |health| AgentPod { node: "n1".to_owned(), health };
        let running =
            |ready: &str| json!({"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]});
        assert_eq!(health(running("True"), None), pod(AgentHealth::Ready));
        assert_eq!(health(running("False"), None), pod(AgentHealth::NotReady));
        assert_eq!(health(json!({"phase": "Running"}), None), pod(AgentHealth::NotReady));
        assert_eq!(health(json!({"phase": "Pending"}), None), pod(AgentHealth::Missing));
        assert_eq!(health(running("True"), Some("2026-11-24T12:00:00Z")), pod(AgentHealth::Missing));
    }

    #[test]
    fn a_node_without_an_agent_is_told_of_after_a_grace_period_and_once() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let agents: BTreeMap<_, _> = [
            ("ready", AgentHealth::Ready),
            ("unready", AgentHealth::NotReady),
            ("dead", AgentHealth::Missing),
        ]
        .into_iter()
        .map(|(node, health)| (node.to_owned(), health))
        .collect();
        let nodes = ["ready", "unready", "dead", "none"];
        let stores = |ready: &str| nodes.map(|node| report(node, ready));
        let mut absences = Absences::default();
        let first = absences.look(&stores("True"), &agents, at(0));
        assert_eq!(first, WithoutAgent { next: Some(at(120)), ..WithoutAgent::default() });
        let untold = |absences: &mut Absences, ready: &str, second| {
            let without = absences.look(&stores(ready), &agents, at(second));
            let untold: Vec<_> = without.untold.iter().map(|report| report.node.as_str()).collect();
            let nodes: Vec<_> = without.nodes.iter().map(|(node, _)| node.as_str()).collect();
            // Those without any agent come first: of very many nodes not all are named in metrics.
            assert!(nodes.is_empty() || nodes == ["dead", "none", "unready"], "{nodes:?}");
            (nodes.len(), untold.join(" "))
        };
        assert_eq!(untold(&mut absences, "True", 119), (0, String::new()));
        assert_eq!(untold(&mut absences, "True", 120), (3, "unready dead none".to_owned()));
        // One that runs has said itself what is wrong.
        assert_eq!(untold(&mut absences, "False", 120), (3, "dead none".to_owned()));
        assert_eq!(untold(&mut absences, "Unknown", 120), (3, String::new()));
        // A replica that leads from now on goes on where the last one was.
        assert_eq!(untold(&mut Absences::default(), "Unknown", 120), (3, String::new()));
        // Its pod was only replaced.
        let all: BTreeMap<_, _> = nodes.map(|node| (node.to_owned(), AgentHealth::Ready)).into();
        assert_eq!(absences.look(&stores("True"), &all, at(130)), WithoutAgent::default());
        assert_eq!(untold(&mut absences, "True", 240), (0, String::new()));
    }
}

//! Quotas: what a namespace may hold over all nodes, filled by many pods at once through real kubelets.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::{Namespace, Node, wait};
use serde_json::{Value, json};

use crate::agents::Agent;
use crate::controller::Replica;
use crate::install;
use crate::schedules::{annotate, answered, schedule};
use crate::support::{DEADLINE, NODES, cluster, counting_pod, files_of, inspect};

/// What the namespace may hold.
const HARD: usize = 3;

/// So many pods ask at once.
const PODS: usize = 10;

/// How long a quota may take to say what the nodes have: these report every few seconds here.
const COUNTED_WITHIN: Duration = Duration::from_mins(2);

pub(crate) fn quota(namespace: &Namespace<'_>, spec: &Value) -> anyhow::Result<()> {
    let metadata = json!({"name": "evidence", "namespace": namespace.name()});
    let object = json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointQuota", "metadata": metadata, "spec": spec,
    });
    cluster().apply(&object.to_string())
}

fn status(namespace: &Namespace<'_>) -> anyhow::Result<Value> {
    let group = "/apis/checkpoint-keeper.io/v1alpha1";
    let path = format!("{group}/namespaces/{}/checkpointquotas/evidence", namespace.name());
    Ok(cluster().get(&path)?["status"].clone())
}

/// Waits until the quota says that so many archives are there.
pub(crate) fn counted(namespace: &Namespace<'_>, count: usize) -> anyhow::Result<Value> {
    wait::until("the quota to say what is used", COUNTED_WITHIN, || {
        let status = status(namespace)?;
        ensure!(status["used"]["count"] == count, "not {count}: {status}");
        Ok(true)
    })?;
    status(namespace)
}

fn condition<'a>(status: &'a Value, type_: &str) -> &'a Value {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    conditions.find(|condition| condition["type"] == type_).unwrap_or(&Value::Null)
}

/// What came of a request: the archive, or what the answer says instead.
fn outcome(answer: &Value) -> anyhow::Result<Result<String, String>> {
    let container = &answer["containers"][0];
    let text = |field: &str| container[field].as_str().map(str::to_owned);
    match text("archive") {
        Some(file) => Ok(Ok(file)),
        None => Ok(Err(text("error").with_context(|| format!("neither an archive nor an error: {answer}"))?)),
    }
}

fn start_agents() -> anyhow::Result<Vec<Agent<'static>>> {
    cluster().nodes().into_iter().map(Agent::start).collect()
}

/// What the namespace has on each node; all of it whole.
fn held(namespace: &str) -> anyhow::Result<BTreeMap<String, Vec<String>>> {
    let on = |node: Node<'_>| {
        let files = files_of(node, namespace)?;
        for file in &files {
            ensure!(inspect(node, file)?["state"] == "Complete", "{file} on {}", node.name());
        }
        Ok((node.name().to_owned(), files))
    };
    cluster().nodes().into_iter().map(on).collect()
}

/// No node exceeds the quota by what it makes itself, and all nodes together exceed it by at most what the others made
/// before its status said so. A request that is refused stays so, also after everything was restarted.
#[test]
fn ten_pods_that_ask_at_once_get_no_more_than_the_quota_and_what_it_may_be_exceeded_by() -> anyhow::Result<()>
{
    let _alone = NODES.write();
    install::agents()?;
    let (nodes, namespace) = (cluster().nodes(), cluster().namespace("quota")?);
    let name = namespace.name();
    let replica = Replica::start(name, "one", 9465)?;
    let agents = start_agents()?;
    let pods: Vec<String> = (0..PODS).map(|number| format!("web-{number}")).collect();
    for (pod, node) in pods.iter().zip(nodes.iter().cycle()) {
        namespace.apply(&counting_pod(pod, *node, &["app"]))?;
    }
    pods.iter().try_for_each(|pod| namespace.wait_until_running(pod))?;
    quota(&namespace, &json!({"hard": {"count": HARD}}))?;
    let empty = counted(&namespace, 0)?;
    ensure!(condition(&empty, "Exceeded")["status"] == "False", "{empty}");
    let spec = json!({"maxConcurrentPerNode": PODS, "triggers": {"onAnnotation": true}});
    schedule(name, "on-demand", &spec)?;
    pods.iter().try_for_each(|pod| annotate(name, pod, "true"))?;
    let mut made = 0;
    for pod in &pods {
        match outcome(&answered(name, pod)?)? {
            Ok(_) => made += 1,
            Err(error) => {
                let is_told = error.contains("QuotaExceeded") && error.contains("of 3 archives are there");
                ensure!(is_told, "{pod}: {error}");
            }
        }
    }
    let first = held(name)?;
    let all: usize = first.values().map(Vec::len).sum();
    ensure!(all == made, "{made} were answered with an archive: {first:?}");
    ensure!(first.values().all(|files| files.len() <= HARD), "a node exceeds it by itself: {first:?}");
    ensure!((HARD..=HARD * nodes.len()).contains(&made), "{made} were made: {first:?}");
    let told = counted(&namespace, made)?;
    ensure!(condition(&told, "NearlyExceeded")["status"] == "True", "{told}");
    let exceeded = if made > HARD { "True" } else { "False" };
    ensure!(condition(&told, "Exceeded")["status"] == exceeded, "{told}");
    ensure!(told["partial"] == false && told["staleNodes"] == 0, "{told}");
    wait::until("the events to tell", DEADLINE, || {
        let events = namespace.events()?;
        let of =
            |kind: &str| events.lines().any(|line| line.contains(kind) && line.contains("QuotaExceeded"));
        ensure!(of("Pod/web-") && of("CheckpointSchedule/on-demand"), "{events}");
        Ok(true)
    })?;

    // Begun anew, nobody takes what is there for gone.
    agents.into_iter().try_for_each(|agent| agent.stop().map(drop))?;
    replica.stop()?;
    let replica = Replica::start(name, "two", 9465)?;
    let agents = start_agents()?;
    for pod in &pods[..nodes.len()] {
        annotate(name, pod, "true")?;
    }
    for pod in &pods[..nodes.len()] {
        let error = outcome(&answered(name, pod)?)?;
        ensure!(error.as_ref().is_err_and(|error| error.contains("QuotaExceeded")), "{pod}: {error:?}");
    }
    ensure!(held(name)? == first, "more was made after a restart");
    counted(&namespace, made)?;

    // With more room the same pods get theirs.
    quota(&namespace, &json!({"hard": {"count": made + 1}}))?;
    wait::until("the larger quota to be judged", COUNTED_WITHIN, || {
        let status = status(&namespace)?;
        ensure!(condition(&status, "Exceeded")["status"] == "False", "{status}");
        Ok(true)
    })?;
    annotate(name, &pods[0], "true")?;
    let more = outcome(&answered(name, &pods[0])?)?;
    ensure!(more.is_ok(), "{more:?}");
    agents.into_iter().try_for_each(|agent| agent.stop().map(drop))?;
    replica.stop().map(drop)
}

#[test]
fn a_quota_that_only_warns_lets_all_be_made_and_an_event_says_so() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("warned")?;
    let name = namespace.name();
    namespace.apply(&counting_pod("web", node, &["app"]))?;
    namespace.wait_until_running("web")?;
    quota(&namespace, &json!({"hard": {"count": 0}, "onExceed": "Warn"}))?;
    schedule(name, "on-demand", &json!({"triggers": {"onAnnotation": true}}))?;
    annotate(name, "web", "true")?;
    let made = outcome(&answered(name, "web")?)?;
    ensure!(made.is_ok(), "{made:?}");
    wait::until("the event", DEADLINE, || {
        let events = namespace.events()?;
        let is_told = |line: &str| line.contains("QuotaExceeded") && line.contains("Pod/web");
        ensure!(events.lines().any(is_told), "{events}");
        Ok(true)
    })?;
    agent.stop().map(drop)
}

/// What the roles of Kubernetes grant of our kinds is what ours add to them.
#[test]
fn who_may_edit_a_namespace_may_not_change_its_quotas() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install::rights()?;
    let namespace = cluster().namespace("tenant")?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "tenant", "namespace": namespace.name()},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "tenant"}],
    });
    cluster().apply(&binding.to_string())?;
    let may = |verb: &str, resource: &str| -> anyhow::Result<bool> {
        let asked = ["auth", "can-i", verb, resource, "--as=tenant", "--namespace", namespace.name()];
        // It ends with 1 where the answer is no.
        let answer = cluster().kubectl(&asked).output()?;
        match String::from_utf8_lossy(&answer.stdout).trim() {
            "yes" => Ok(true),
            "no" => Ok(false),
            other => anyhow::bail!("{verb} {resource}: {other:?}"),
        }
    };
    let readable = "checkpointquotas.checkpoint-keeper.io";
    wait::until(
        "the roles to count",
        DEADLINE,
        || Ok(may("create", "configmaps")? && may("get", readable)?),
    )?;
    for resource in ["checkpointquotas.checkpoint-keeper.io", "checkpointquotas.checkpoint-keeper.io/status"]
    {
        for verb in ["create", "update", "patch", "delete", "deletecollection"] {
            ensure!(!may(verb, resource)?, "who edits a namespace may {verb} {resource}");
        }
    }
    // What is asked about is there.
    output(&mut cluster().kubectl(&["explain", "ckquota.spec.hard"])).map(drop)
}

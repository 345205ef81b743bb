//! Checkpoints by schedule: an agent has the real kubelet make real archives.

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::{Fault, Node, wait};
use serde_json::{Value, json};

use crate::agents::Agent;
use crate::controller::Replica;
use crate::install;
use crate::support::{DEADLINE, NODES, cluster, connected_pod, counting_pod, files_of, inspect};

const SCHEDULES: &str = "/apis/checkpoint-keeper.io/v1alpha1/namespaces";

/// A schedule for all pods of a namespace.
pub(crate) fn schedule(namespace: &str, name: &str, spec: &Value) -> anyhow::Result<()> {
    let mut all = json!({"selector": {}});
    for (field, value) in spec.as_object().into_iter().flatten() {
        all[field] = value.clone();
    }
    let object = json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointSchedule",
        "metadata": {"name": name}, "spec": all,
    });
    let path = format!("{SCHEDULES}/{namespace}/checkpointschedules/{name}?fieldManager=test&force=true");
    let (status, answer) = cluster().administrator().apply(&path, &object)?;
    ensure!(status == 200 || status == 201, "{status} {answer}");
    Ok(())
}

pub(crate) fn annotate(namespace: &str, pod: &str, value: &str) -> anyhow::Result<()> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}");
    let change = json!({"metadata": {"annotations": {"checkpoint.criu.org/trigger": value}}});
    let (status, answer) = cluster().administrator().merge(&path, &change)?;
    ensure!(status == 200, "{status} {answer}");
    Ok(())
}

pub(crate) fn annotation(namespace: &str, pod: &str, name: &str) -> anyhow::Result<Option<String>> {
    let pod = cluster().get(&format!("/api/v1/namespaces/{namespace}/pods/{pod}"))?;
    let annotation = &pod["metadata"]["annotations"][format!("checkpoint.criu.org/{name}")];
    Ok(annotation.as_str().map(str::to_owned))
}

/// Waits until the annotation of a pod is answered and taken off; the answer.
pub(crate) fn answered(namespace: &str, pod: &str) -> anyhow::Result<Value> {
    let answer = wait::for_value("the answer to the annotation", DEADLINE, || {
        let is_open = annotation(namespace, pod, "trigger")?.is_some();
        Ok(annotation(namespace, pod, "result")?.filter(|_| !is_open))
    })?;
    Ok(serde_json::from_str(&answer)?)
}

/// Waits until a dump in a namespace has begun, as the agent keeps it.
pub(crate) fn begun(node: Node<'_>, namespace: &str) -> anyhow::Result<()> {
    wait::until("the dump to begin", DEADLINE, || {
        let memory: Value = serde_json::from_str(&node.run("cat", &["/var/lib/kubelet/schedules.json"])?)?;
        let runs = memory["memory"]["runs"].as_array().context("no runs")?;
        let is_begun = |run: &Value| run["container"]["namespace"] == namespace && run["started"].is_string();
        Ok(runs.iter().any(is_begun))
    })
}

/// Waits until a namespace has so many archives here, all of them whole.
pub(crate) fn archives(node: Node<'_>, namespace: &str, least: usize) -> anyhow::Result<Vec<String>> {
    wait::for_value("the archives", DEADLINE, || {
        let files = files_of(node, namespace)?;
        if files.len() < least {
            return Ok(None);
        }
        for file in &files {
            if inspect(node, file)?["state"] != "Complete" {
                return Ok(None);
            }
        }
        Ok(Some(files))
    })
}

#[test]
fn an_annotation_is_answered_with_the_archive_and_only_where_a_schedule_allows_it() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[1];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("asked")?;
    let name = namespace.name();
    for pod in ["one", "other"] {
        namespace.apply(&counting_pod(pod, node, &["app", "side"]))?;
    }
    namespace.wait_until_running("one")?;
    namespace.wait_until_running("other")?;
    // Nothing allows it.
    annotate(name, "other", "true")?;
    schedule(
        name,
        "on-demand",
        &json!({
            "selector": {"matchExpressions": [{"key": "none", "operator": "Exists"}]}, "triggers": {"onAnnotation": true},
        }),
    )?;
    let relabel = json!({"metadata": {"labels": {"none": "here"}}});
    let path = format!("/api/v1/namespaces/{name}/pods/one");
    let (status, answer) = cluster().administrator().merge(&path, &relabel)?;
    ensure!(status == 200, "{status} {answer}");
    annotate(name, "one", "true")?;
    let answer = answered(name, "one")?;
    let containers = answer["containers"].as_array().with_context(|| format!("{answer}"))?;
    let files: Vec<&str> = containers.iter().filter_map(|one| one["archive"].as_str()).collect();
    ensure!(files.len() == 2, "{answer}");
    for (file, container) in files.iter().zip(["app", "side"]) {
        let inspected = inspect(node, file)?;
        ensure!(inspected["state"] == "Complete" && inspected["container"] == container, "{inspected}");
    }
    ensure!(annotation(name, "other", "trigger")?.as_deref() == Some("true"), "nobody may take it off");
    ensure!(annotation(name, "other", "result")?.is_none(), "nobody may answer it");
    // Asked again, it is made again; one of a container that is not there is answered, too.
    annotate(name, "one", "true")?;
    let again = answered_after(name, "one", &answer)?;
    ensure!(again["containers"][0]["archive"] != answer["containers"][0]["archive"], "{again}");
    schedule(name, "on-demand", &json!({"containers": ["nobody"], "triggers": {"onAnnotation": true}}))?;
    annotate(name, "one", "true")?;
    let nothing = answered_after(name, "one", &again)?;
    ensure!(
        nothing["message"].as_str().is_some_and(|text| text.contains("names none of the pod's containers")),
        "{nothing}"
    );
    wait::until("the event", DEADLINE, || Ok(namespace.events()?.contains("CheckpointCreated")))?;
    agent.stop().map(drop)
}

/// The same once it is another answer.
pub(crate) fn answered_after(namespace: &str, pod: &str, before: &Value) -> anyhow::Result<Value> {
    wait::for_value("another answer", DEADLINE, || {
        let answer = answered(namespace, pod)?;
        Ok((answer != *before).then_some(answer))
    })
}

#[test]
fn an_interval_makes_archives_until_it_is_suspended_and_none_in_a_dry_run() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("interval")?;
    let dry = cluster().namespace("dry")?;
    for namespace in [&namespace, &dry] {
        namespace.apply(&counting_pod("web", node, &["app"]))?;
        namespace.wait_until_running("web")?;
    }
    schedule(dry.name(), "often", &json!({"mode": "DryRun", "triggers": {"interval": "2s"}}))?;
    schedule(namespace.name(), "often", &json!({"triggers": {"interval": "3s"}}))?;
    archives(node, namespace.name(), 3)?;
    schedule(namespace.name(), "often", &json!({"suspend": true, "triggers": {"interval": "3s"}}))?;
    wait::until("the dry run's event", DEADLINE, || Ok(dry.events()?.contains("CheckpointDryRun")))?;
    ensure!(files_of(node, dry.name())?.is_empty(), "a dry run made an archive");
    agent.stop().map(drop)
}

#[test]
fn a_cordon_has_every_selected_pod_of_the_node_archived() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[1];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("cordon")?;
    let name = namespace.name();
    for number in 0..5 {
        namespace.apply(&counting_pod(&format!("web-{number}"), node, &["app"]))?;
    }
    for number in 0..5 {
        namespace.wait_until_running(&format!("web-{number}"))?;
    }
    schedule(name, "drain", &json!({"triggers": {"onDisruption": ["NodeDrain"]}}))?;
    let path = format!("/api/v1/nodes/{}", node.name());
    let cordon = |is: bool| cluster().administrator().merge(&path, &json!({"spec": {"unschedulable": is}}));
    cordon(true)?;
    let found = archives(node, name, 5);
    cordon(false)?;
    let found = found?;
    ensure!(found.len() == 5, "{found:?}");
    agent.stop().map(drop)
}

#[test]
fn what_cannot_be_dumped_is_told_in_the_kubelets_words_and_harms_no_other() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("cannot")?;
    let name = namespace.name();
    namespace.apply(&connected_pod("tcp", node))?;
    namespace.apply(&counting_pod("web", node, &["app"]))?;
    namespace.wait_until_running("tcp")?;
    namespace.wait_until_running("web")?;
    let controllers = cluster().namespace("controllers")?;
    let replica = Replica::start(controllers.name(), "a", 9471)?;
    schedule(name, "wrong", &json!({"triggers": {"schedule": "0 25 * * *"}}))?;
    condition(name, "wrong", "Ready", "False", "spec.triggers.schedule: value must be in range 0..=23")?;
    let retries = json!({"limit": 1, "backoff": "1s"});
    schedule(name, "all", &json!({"retries": retries, "triggers": {"interval": "5s"}}))?;
    wait::until("the failure to be told", DEADLINE, || {
        let events = namespace.events()?;
        Ok(events.contains("CheckpointFailed") && events.contains("CheckpointRetrying"))
    })?;
    let events = namespace.events()?;
    ensure!(events.contains("500: checkpointing of"), "the kubelet's words: {events}");
    archives(node, name, 1)?;
    condition(name, "all", "Ready", "True", "carried out")?;
    condition(name, "all", "Healthy", "False", "500: checkpointing of")?;
    let status = status(name, "all")?;
    for time in ["lastScheduleTime", "lastSuccessTime", "nextScheduleTime"] {
        ensure!(status[time].is_string(), "{time}: {status}");
    }
    replica.stop()?;
    agent.stop().map(drop)
}

fn status(namespace: &str, schedule: &str) -> anyhow::Result<Value> {
    Ok(cluster().get(&format!("{SCHEDULES}/{namespace}/checkpointschedules/{schedule}"))?["status"].take())
}

/// Waits until a condition of a schedule says this.
fn condition(namespace: &str, schedule: &str, kind: &str, is: &str, words: &str) -> anyhow::Result<()> {
    wait::until("the condition", DEADLINE, || {
        let status = status(namespace, schedule)?;
        let conditions = status["conditions"].as_array().context("no conditions")?;
        let condition = conditions.iter().find(|condition| condition["type"] == kind);
        let condition = condition.with_context(|| format!("no {kind}: {status}"))?;
        let message = condition["message"].as_str().unwrap_or_default();
        ensure!(condition["status"] == is && message.contains(words), "{condition}");
        Ok(true)
    })
}

/// The older operator's, which names another namespace: only from the operator's own it may.
#[test]
fn the_older_operators_schedules_are_carried_out_as_they_are() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let agent = Agent::start(node)?;
    let (namespace, other) = (cluster().namespace("legacy")?, cluster().namespace("foreign")?);
    for namespace in [&namespace, &other] {
        namespace.apply(&counting_pod("web", node, &["app"]))?;
        namespace.wait_until_running("web")?;
    }
    let legacy = |of: &str| {
        let (home, kind) = (namespace.name(), "CheckpointSchedule");
        let object = json!({
            "apiVersion": "criu.org/v1", "kind": kind, "metadata": {"name": format!("for-{of}")},
            "spec": {"namespace": of, "selector": {}, "triggers": {"interval": "2s"}},
        });
        let path = format!("/apis/criu.org/v1/namespaces/{home}/checkpointschedules/for-{of}");
        let (status, answer) =
            cluster().administrator().apply(&format!("{path}?fieldManager=test&force=true"), &object)?;
        ensure!(status == 200 || status == 201, "{status} {answer}");
        anyhow::Ok(())
    };
    legacy(other.name())?;
    legacy(namespace.name())?;
    archives(node, namespace.name(), 2)?;
    ensure!(files_of(node, other.name())?.is_empty(), "it reached into another namespace");
    agent.stop().map(drop)
}

/// It is taken up by the next agent: the archive is claimed, or the failure told, and nothing is made twice.
#[test]
fn an_agent_that_is_killed_in_the_middle_of_a_dump_leaves_nothing_untold() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[1];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("killed")?;
    let name = namespace.name();
    namespace.apply(&counting_pod("web", node, &["app"]))?;
    namespace.wait_until_running("web")?;
    schedule(name, "on-demand", &json!({"timeout": "20s", "triggers": {"onAnnotation": true}}))?;
    let slow = cluster().inject(Fault::SlowCriu { node: node.name().to_owned(), seconds: 3 })?;
    annotate(name, "web", "true")?;
    begun(node, name)?;
    agent.kill()?;
    drop(slow);
    let agent = Agent::start(node)?;
    let answer = answered(name, "web")?;
    let container = &answer["containers"][0];
    ensure!(container["archive"].is_string() || container["error"].is_string(), "{answer}");
    let mut whole = 0;
    for file in files_of(node, name)? {
        whole += usize::from(inspect(node, &file)?["state"] == "Complete");
    }
    ensure!(whole <= 1, "it was made twice: {:?}", files_of(node, name)?);
    agent.stop().map(drop)
}

//! More of what happens to schedules: a container that is restarted in the middle of a dump, a kubelet that hangs, memory
//! that fills, and `kubectl drain` as people run it. What else happens is in `schedule_proofs`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::{Daemon, Fault, wait};
use serde_json::json;

use crate::agents::{Agent, next_round};
use crate::install;
use crate::schedule_proofs::{PreStop, archived, patient_pod, running};
use crate::schedules::{annotate, annotation, answered, answered_after, begun, schedule};
use crate::support::{
    DEADLINE, NODES, busybox, cluster, counting_pod, files_of, inspect, wait_until_criu_runs,
};

/// The runtime has paused the container by then, so it ends when it is let go on, in the middle or right after.
#[test]
fn a_container_that_is_restarted_in_the_middle_of_a_dump_ends_in_one_result_and_the_next_dump_works()
-> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[1];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("restarted")?;
    let name = namespace.name();
    running(&namespace, &counting_pod("web", node, &["app"]), "web")?;
    let before = node.containers(name, "web")?.pop().context("no container runs")?;
    let root = node.root_of(&before)?;
    let process = root.split('/').nth(2).context("no process")?;
    let retries = json!({"limit": 0});
    schedule(name, "on-demand", &json!({"retries": retries, "triggers": {"onAnnotation": true}}))?;
    let slow = cluster().inject(Fault::SlowCriu { node: node.name().to_owned(), seconds: 3 })?;
    annotate(name, "web", "true")?;
    begun(node, name)?;
    wait_until_criu_runs(node)?;
    node.run("kill", &["-KILL", process])?;
    let first = answered(name, "web")?;
    drop(slow);
    let container = &first["containers"][0];
    ensure!(container["archive"].is_string() != container["error"].is_string(), "{first}");
    wait::until("the container to run again", DEADLINE, || {
        Ok(node.containers(name, "web")?.first().is_some_and(|now| now.id != before.id))
    })?;
    namespace.wait_until_running("web")?;
    wait::until("no dump to be under way", DEADLINE, || Ok(agent.metric("checkpoints_under_way")? == 0.0))?;
    let told = |reason: &str| -> anyhow::Result<usize> {
        let events = namespace.events()?;
        Ok(events.lines().filter(|line| line.contains("Pod/web") && line.contains(reason)).count())
    };
    wait::until("the result to be told", DEADLINE, || {
        Ok(told("CheckpointCreated")? + told("CheckpointFailed")? == 1)
    })?;
    annotate(name, "web", "true")?;
    let second = answered_after(name, "web", &first)?;
    let file = second["containers"][0]["archive"].as_str().with_context(|| format!("{second}"))?;
    ensure!(inspect(node, file)?["state"] == "Complete", "{second}");
    // What the first dump left that is not whole, goes.
    wait::until("only whole archives to be left", DEADLINE, || {
        let files = files_of(node, name)?;
        let states = files.iter().map(|file| Ok(inspect(node, file)?["state"] == "Complete"));
        Ok(states.collect::<anyhow::Result<Vec<bool>>>()?.into_iter().all(|is_whole| is_whole))
    })?;
    agent.stop().map(drop)
}

/// The kernel accepts connections in its name, and then nobody answers. What was never asked for is not a try that counts.
#[test]
fn a_kubelet_that_hangs_costs_each_try_bounded_time_and_the_request_succeeds_afterwards() -> anyhow::Result<()>
{
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[1];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("kubelet-hangs")?;
    let name = namespace.name();
    running(&namespace, &counting_pod("web", node, &["app"]), "web")?;
    let spec = json!({"timeout": "2m", "retries": {"limit": 0}, "triggers": {"onAnnotation": true}});
    schedule(name, "on-demand", &spec)?;
    let hung = cluster().inject(Fault::Hung { machine: node.name().to_owned(), daemon: Daemon::Kubelet })?;
    let begin = Instant::now();
    annotate(name, "web", "true")?;
    // Plans go on meanwhile.
    next_round(&agent)?;
    wait::until("the failure to be told", DEADLINE, || {
        let result = annotation(name, "web", "result")?.unwrap_or_default();
        ensure!(result.contains("tried again") && result.contains("timed out"), "{result}");
        Ok(true)
    })?;
    let took = begin.elapsed();
    ensure!(took < Duration::from_secs(20), "far from the two minutes that a dump may take, but {took:?}");
    ensure!(agent.metric("checkpoints_under_way")? == 0.0, "it still waits for a kubelet that hangs");
    ensure!(annotation(name, "web", "trigger")?.is_some(), "the request stands");
    ensure!(files_of(node, name)?.is_empty(), "there is an archive");
    drop(hung);
    let answer = answered(name, "web")?;
    let file = answer["containers"][0]["archive"].as_str().with_context(|| format!("{answer}"))?;
    ensure!(inspect(node, file)?["state"] == "Complete", "{answer}");
    ensure!(files_of(node, name)?.len() == 1, "it was made more than once");
    agent.stop().map(drop)
}

#[test]
fn a_container_that_fills_its_memory_is_archived_and_one_that_does_not_is_not() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("fills-memory")?;
    let name = namespace.name();
    let pod = |pod: &str, script: &str| {
        let limits = "resources: {limits: {cpu: 500m, memory: 128Mi}},";
        format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {pod}}}
spec:
  nodeName: {}
  terminationGracePeriodSeconds: 1
  containers:
{}",
            node.name(),
            busybox("app", script, limits)
        )
    };
    let big = r#"x=$(head -c 40000000 /dev/zero | tr "\0" x); while :; do sleep 1; done"#;
    running(&namespace, &pod("big", big), "big")?;
    running(&namespace, &pod("small", "while :; do sleep 1; done"), "small")?;
    let resources = json!({"memoryPercent": {"above": 20}, "poll": "5s", "cooldown": "1h"});
    schedule(name, "memory", &json!({"triggers": {"resources": resources}}))?;
    wait::until("the big one to be archived", DEADLINE, || Ok(archived(node, name)?.contains("big")))?;
    // When one that comes later is archived, the others were looked at again and again.
    running(&namespace, &pod("later", big), "later")?;
    wait::until("the later one to be archived", DEADLINE, || Ok(archived(node, name)?.contains("later")))?;
    ensure!(archived(node, name)? == ["big", "later"].map(str::to_owned).into());
    ensure!(files_of(node, name)?.len() == 2, "each is left alone for an hour");
    let page = agent.page("metrics")?;
    ensure!(page.contains(r#"trigger="Memory",result="CheckpointCreated"} 2"#), "{page}");
    agent.stop().map(drop)
}

/// Pods can be scheduled to the node again when this is dropped.
struct Drained(&'static str);

impl Drop for Drained {
    fn drop(&mut self) {
        if let Err(error) = output(&mut cluster().kubectl(&["uncordon", self.0])) {
            eprintln!("{} stays cordoned: {error:#}", self.0);
        }
    }
}

/// As an administrator does it; pods of no workload take `--force`.
#[test]
fn kubectl_drain_ends_as_ever_and_each_selected_pod_is_archived_before_it_is_gone() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[1];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("kubectl-drain")?;
    let name = namespace.name();
    let pods: BTreeSet<String> = (0..3).map(|number| format!("web-{number}")).collect();
    for pod in &pods {
        let manifest = patient_pod(pod, node, 10, PreStop::Waits);
        namespace.apply(&manifest.replacen("metadata: {", "metadata: {labels: {of: this-drain}, ", 1))?;
    }
    pods.iter().try_for_each(|pod| namespace.wait_until_running(pod))?;
    schedule(name, "drain", &json!({"triggers": {"onDisruption": ["NodeDrain", "PodEviction"]}}))?;
    // Other tests' pods that are about to go are left alone.
    let drain = ["drain", node.name(), "--force", "--ignore-daemonsets", "--timeout=60s"];
    let _drained = Drained(node.name());
    let said = output(&mut cluster().kubectl(&[&drain[..], &["--pod-selector=of=this-drain"]].concat()))?;
    ensure!(said.contains("drained"), "{said}");
    for pod in &pods {
        ensure!(said.contains(&format!("pod/{pod} evicted")), "{said}");
    }
    let done = archived(node, name)?;
    ensure!(done == pods, "archived: {done:?}\n{}", namespace.events()?);
    agent.stop().map(drop)
}

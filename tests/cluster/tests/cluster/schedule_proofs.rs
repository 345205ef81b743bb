//! What schedules do when something happens meanwhile: pods that are evicted, deleted or restarted, a kubelet that is
//! down, a disk that fills; and what they keep of what they had made.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::machine::PKI;
use checkpoint_keeper_testcluster::{Daemon, Fault, Namespace, Node, Runtime, wait};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::agents::Agent;
use crate::install;
use crate::schedules::{annotate, annotation, answered, answered_after, archives, begun, schedule};
use crate::support::{
    DEADLINE, NODES, busybox, cluster, counting_pod, files_of, inspect, wait_until_criu_runs,
};

/// What a container does before it is told to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PreStop {
    Nothing,
    Waits,
}

/// A pod that runs on for a while when it is told to end, as a real one does that has work to finish.
pub(crate) fn patient_pod(name: &str, node: Node<'_>, grace_seconds: u32, pre_stop: PreStop) -> String {
    let more = match pre_stop {
        PreStop::Nothing => "",
        PreStop::Waits => "lifecycle: {preStop: {exec: {command: [sleep, \"15\"]}}},",
    };
    let script = "trap \"\" TERM; i=0; while :; do i=$((i+1)); echo $i >/tmp/n; sleep 1; done";
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {}
  terminationGracePeriodSeconds: {grace_seconds}
  containers:
{}",
        node.name(),
        busybox("app", script, more)
    )
}

pub(crate) fn running(namespace: &Namespace<'_>, manifest: &str, pod: &str) -> anyhow::Result<()> {
    namespace.apply(manifest)?;
    namespace.wait_until_running(pod)
}

fn evict(namespace: &str, pod: &str) -> anyhow::Result<()> {
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"namespace": namespace, "name": pod},
    });
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
    let (status, answer) = cluster().create(&path, &eviction)?;
    ensure!(status == 201, "{status} {answer}");
    Ok(())
}

/// Which pods have a whole archive here.
pub(crate) fn archived(node: Node<'_>, namespace: &str) -> anyhow::Result<BTreeSet<String>> {
    let mut pods = BTreeSet::new();
    for file in files_of(node, namespace)? {
        let inspected = inspect(node, &file)?;
        if inspected["state"] == "Complete" {
            pods.insert(inspected["pod"].as_str().context("no pod")?.to_owned());
        }
    }
    Ok(pods)
}

/// CRI-O dumps no container that it was told to stop: there it takes a hook before that.
#[test]
fn a_pod_that_is_evicted_or_deleted_is_archived_within_its_grace_period() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("ends")?;
    let name = namespace.name();
    for (pod, pre_stop) in [
        ("evicted", PreStop::Waits),
        ("deleted", PreStop::Waits),
        ("preempted", PreStop::Nothing),
        ("hookless", PreStop::Nothing),
    ] {
        running(&namespace, &patient_pod(pod, node, 20, pre_stop), pod)?;
    }
    schedule(
        name,
        "ends",
        // With CRI-O the one without a hook holds its place until it has ended.
        &json!({
            "maxConcurrentPerNode": 4,
            "triggers": {"onDisruption": ["PodEviction", "Preemption", "PodDeletion"]},
        }),
    )?;
    evict(name, "evicted")?;
    for pod in ["deleted", "hookless"] {
        let (status, answer) =
            cluster().request("DELETE", &format!("/api/v1/namespaces/{name}/pods/{pod}"))?;
        ensure!(status == 200, "{status} {answer}");
    }
    // As the scheduler writes it before it deletes the pod (Kubernetes: pkg/scheduler/framework/preemption). Of one that is
    // older than two minutes Kubernetes would say at once that it is over (pkg/controller/disruption).
    let condition = json!({"status": {"conditions": [{
        "type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler",
        "message": "", "lastTransitionTime": Timestamp::from_second(Timestamp::now().as_second())?,
    }]}});
    let path = format!("/api/v1/namespaces/{name}/pods/preempted/status");
    let change = "application/strategic-merge-patch+json";
    let (status, answer) = cluster().administrator().patch(&path, change, &condition)?;
    ensure!(status == 200, "{status} {answer}");
    wait::until("the archive of each", DEADLINE, || {
        let (mut done, events) = (archived(node, name)?, namespace.events()?);
        let is_told = events.lines().any(|line| line.contains("PodEnded") && line.contains("Pod/hookless"));
        let is_archived = done.remove("hookless");
        ensure!(is_archived || (node.runtime() == Runtime::CriO && is_told), "{events}");
        let conditions = &namespace.pod("preempted")?["status"]["conditions"];
        ensure!(
            done == ["deleted", "evicted", "preempted"].map(str::to_owned).into(),
            "{done:?} {events}; preempted: {conditions}"
        );
        Ok(true)
    })?;
    agent.stop().map(drop)
}

/// What could be dumped before its process ended is archived; of each other pod an event says why not.
#[test]
fn a_drain_of_ten_pods_archives_them_or_says_why_not() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[1];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("drain")?;
    let name = namespace.name();
    let pods: BTreeSet<String> = (0..10).map(|number| format!("web-{number}")).collect();
    for pod in &pods {
        namespace.apply(&patient_pod(pod, node, 5, PreStop::Nothing))?;
    }
    pods.iter().try_for_each(|pod| namespace.wait_until_running(pod))?;
    schedule(name, "drain", &json!({"triggers": {"onDisruption": ["NodeDrain", "PodEviction"]}}))?;
    let path = format!("/api/v1/nodes/{}", node.name());
    let cordon = |is: bool| cluster().administrator().merge(&path, &json!({"spec": {"unschedulable": is}}));
    cordon(true)?;
    let drained = pods.iter().try_for_each(|pod| evict(name, pod)).and_then(|()| {
        wait::until("each pod to be archived, or an event that says why not", DEADLINE, || {
            let done = archived(node, name)?;
            let events = namespace.events()?;
            let is_told = |pod: &&String| {
                events.lines().any(|line| {
                    line.contains(pod.as_str())
                        && ["PodEnded", "CheckpointFailed"].iter().any(|reason| line.contains(reason))
                })
            };
            let untold: Vec<_> = pods.iter().filter(|pod| !done.contains(*pod) && !is_told(pod)).collect();
            ensure!(untold.is_empty(), "neither archived nor told of: {untold:?}\n{events}");
            Ok(!done.is_empty())
        })
    });
    cordon(false)?;
    drained?;
    agent.stop().map(drop)
}

/// The kubelet answers when its runtime is done, and the pod goes after that.
#[test]
fn a_pod_that_is_deleted_in_the_middle_of_a_dump_ends_in_one_result_and_the_next_dump_works()
-> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("middle")?;
    let name = namespace.name();
    running(&namespace, &counting_pod("web", node, &["app"]), "web")?;
    let retries = json!({"limit": 0});
    schedule(name, "on-demand", &json!({"retries": retries, "triggers": {"onAnnotation": true}}))?;
    let slow = cluster().inject(Fault::SlowCriu { node: node.name().to_owned(), seconds: 3 })?;
    annotate(name, "web", "true")?;
    begun(node, name)?;
    namespace.delete_pod("web")?;
    let ends = || -> anyhow::Result<usize> {
        let events = namespace.events()?;
        let reasons = ["CheckpointCreated", "CheckpointFailed", "PodEnded", "RequestWithdrawn"];
        let is_told =
            |reason: &&&str| events.lines().any(|line| line.contains("Pod/web") && line.contains(**reason));
        Ok(reasons.iter().filter(is_told).count())
    };
    wait::until("a result to be told", DEADLINE, || Ok(ends()? > 0))?;
    drop(slow);
    wait::until("no dump to be under way", DEADLINE, || Ok(agent.metric("checkpoints_under_way")? == 0.0))?;
    running(&namespace, &counting_pod("next", node, &["app"]), "next")?;
    annotate(name, "next", "true")?;
    let answer = answered(name, "next")?;
    ensure!(answer["containers"][0]["archive"].is_string(), "{answer}");
    ensure!(ends()? == 1, "of one request two results are told: {}", namespace.events()?);
    agent.stop().map(drop)
}

#[test]
fn while_the_kubelet_is_down_a_request_is_tried_again_and_succeeds_afterwards() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[1];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("down")?;
    let name = namespace.name();
    running(&namespace, &counting_pod("web", node, &["app"]), "web")?;
    let retries = json!({"limit": 10, "backoff": "1s"});
    schedule(name, "on-demand", &json!({"retries": retries, "triggers": {"onAnnotation": true}}))?;
    let down = cluster().inject(Fault::Down { machine: node.name().to_owned(), daemon: Daemon::Kubelet })?;
    annotate(name, "web", "true")?;
    wait::until("the failure to be told", DEADLINE, || {
        let result = annotation(name, "web", "result")?.unwrap_or_default();
        Ok(result.contains("tried again"))
    })?;
    ensure!(annotation(name, "web", "trigger")?.is_some(), "the request stands");
    drop(down);
    let answer = answered(name, "web")?;
    ensure!(answer["containers"][0]["archive"].is_string(), "{answer}");
    let file = answer["containers"][0]["archive"].as_str().context("no archive")?;
    ensure!(inspect(node, file)?["state"] == "Complete", "{answer}");
    agent.stop().map(drop)
}

#[test]
fn a_disk_that_fills_in_the_middle_of_a_dump_costs_nothing_that_was_there() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("fills")?;
    let name = namespace.name();
    running(&namespace, &counting_pod("web", node, &["app"]), "web")?;
    let (retention, retries) = (json!({"keepLatest": 1}), json!({"limit": 10, "backoff": "1s"}));
    schedule(
        name,
        "on-demand",
        &json!({"retention": retention, "retries": retries, "triggers": {"onAnnotation": true}}),
    )?;
    annotate(name, "web", "true")?;
    let first = answered(name, "web")?;
    let old = first["containers"][0]["archive"].as_str().context("no archive")?.to_owned();
    let slow = cluster().inject(Fault::SlowCriu { node: node.name().to_owned(), seconds: 3 })?;
    annotate(name, "web", "true")?;
    begun(node, name)?;
    let full = cluster().inject(Fault::DiskFull { node: node.name().to_owned(), free_kib: 64 })?;
    wait::until("the failure to be told", DEADLINE, || {
        let result = annotation(name, "web", "result")?.unwrap_or_default();
        Ok(result.contains("no space left on device"))
    })?;
    // What the failed dump left goes, without any policy. The old archive is there, though only one is to stay.
    wait::until("what was cut off to go", DEADLINE, || {
        Ok(agent.metric("deletions_total{reason=\"FailedDump\"}")? >= 1.0
            && files_of(node, name)? == [old.clone()])
    })?;
    ensure!(inspect(node, &old)?["state"] == "Complete");
    // There is too little room, and the next try says so before it begins.
    wait::until("the want of room to be told", DEADLINE, || {
        Ok(annotation(name, "web", "result")?.unwrap_or_default().contains("are expected to be needed"))
    })?;
    drop(full);
    drop(slow);
    let new = wait::for_value("the archive", DEADLINE, || {
        let answer = answered(name, "web")?;
        Ok(answer["containers"][0]["archive"].as_str().map(str::to_owned))
    })?;
    wait::until("the old one to be replaced", DEADLINE, || Ok(files_of(node, name)? == [new.clone()]))?;
    ensure!(inspect(node, &new)?["state"] == "Complete");
    agent.stop().map(drop)
}

#[test]
fn a_schedule_keeps_as_many_as_it_says_of_its_own_archives_and_no_others_go() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[1];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("keeps")?;
    let name = namespace.name();
    running(&namespace, &counting_pod("web", node, &["app"]), "web")?;
    let by_hand = node.checkpoint(name, "web", "app")?.file()?;
    let spec = json!({"retention": {"keepLatest": 2}, "triggers": {"interval": "2s"}});
    schedule(name, "often", &spec)?;
    wait::until("some to be replaced", DEADLINE, || {
        let files = files_of(node, name)?;
        ensure!(files.contains(&by_hand), "it is of no schedule: {files:?}");
        Ok(agent.metric("deletions_total{reason=\"ScheduleRetention\"}")? >= 3.0)
    })?;
    // The agent's successor knows from its catalog which are the schedule's.
    agent.stop()?;
    let agent = Agent::start(node)?;
    let mut suspended = spec;
    suspended["suspend"] = json!(true);
    schedule(name, "often", &suspended)?;
    wait::until("two to be left", DEADLINE, || {
        let files = files_of(node, name)?;
        Ok(files.len() == 3 && files.contains(&by_hand))
    })?;
    archives(node, name, 3)?;
    // Also by the field's own tools.
    let listed = node.run("checkpointctl", &["list"])?;
    let files = files_of(node, name)?;
    ensure!(files.iter().all(|file| listed.contains(file.as_str())), "{files:?}: {listed}");
    agent.stop().map(drop)
}

#[test]
fn a_container_that_uses_much_of_its_limit_is_archived_once_a_cooldown() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("uses")?;
    let name = namespace.name();
    let limits = "resources: {limits: {cpu: 100m, memory: 64Mi}},";
    let pod = |pod: &str, script: &str| {
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
    running(&namespace, &pod("busy", "while :; do :; done"), "busy")?;
    running(&namespace, &pod("calm", "while :; do sleep 1; done"), "calm")?;
    let resources = json!({"cpuPercent": {"above": 50}, "poll": "5s", "cooldown": "1h"});
    schedule(name, "busy", &json!({"triggers": {"resources": resources}}))?;
    wait::until("the busy one to be archived", DEADLINE, || Ok(archived(node, name)?.contains("busy")))?;
    // When one that comes later is archived, the others were looked at again and again.
    running(&namespace, &pod("later", "while :; do :; done"), "later")?;
    wait::until("the later one to be archived", DEADLINE, || Ok(archived(node, name)?.contains("later")))?;
    ensure!(archived(node, name)? == ["busy", "later"].map(str::to_owned).into());
    ensure!(files_of(node, name)?.len() == 2, "each is left alone for an hour");
    agent.stop().map(drop)
}

/// From the API's answer to the annotation until the agent's own answer is there: more than until the kubelet is asked.
/// No container matches, so that no dump's time is in it.
#[test]
fn an_annotation_is_acted_on_within_moments() -> anyhow::Result<()> {
    const ROUNDS: usize = 100;
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("moments")?;
    let name = namespace.name();
    running(&namespace, &counting_pod("web", node, &["app"]), "web")?;
    schedule(name, "on-demand", &json!({"containers": ["none"], "triggers": {"onAnnotation": true}}))?;
    annotate(name, "web", "true")?;
    let mut before = answered(name, "web")?;
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        annotate(name, "web", "true")?;
        let begin = Instant::now();
        // Asked again at once: the pauses of other waits would be in it.
        before = loop {
            let is_open = annotation(name, "web", "trigger")?.is_some();
            let result = annotation(name, "web", "result")?.filter(|_| !is_open);
            let result = result.map(|result| serde_json::from_str::<Value>(&result)).transpose()?;
            if let Some(answer) = result.filter(|result| *result != before) {
                break answer;
            }
            ensure!(begin.elapsed() < DEADLINE, "it is not answered");
        };
        took.push(begin.elapsed());
    }
    took.sort();
    let (median, p99) = (took[ROUNDS / 2], took[ROUNDS * 99 / 100 - 1]);
    println!("annotation to answer: median {median:?}, p99 {p99:?}");
    // A busy machine has outliers.
    let is_quick = median < Duration::from_millis(200) && p99 < Duration::from_secs(1);
    ensure!(is_quick, "median {median:?}, p99 {p99:?}");
    agent.stop().map(drop)
}

/// The kubelet's certificate is of the cluster's authority, which these agents do not know: to them it is as good as one
/// that the kubelet signed itself.
#[test]
fn a_kubelet_that_no_authority_vouches_for_is_known_by_its_own_certificate_and_no_other() -> anyhow::Result<()>
{
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let namespace = cluster().namespace("pinned")?;
    let name = namespace.name();
    running(&namespace, &counting_pod("web", node, &["app"]), "web")?;
    let retries = json!({"limit": 0});
    schedule(name, "often", &json!({"retries": retries, "triggers": {"interval": "3s"}}))?;
    let agent = |pinned: &str| {
        let mut arguments = install::kubelet_arguments(node).to_vec();
        // A file that is not there names no authority.
        arguments.retain(|argument| !argument.starts_with("--kubelet-authorities"));
        arguments.push(format!("--kubelet-authorities={PKI}/none.crt"));
        arguments.push(format!("--kubelet-certificate={PKI}/kubelet-{pinned}.crt"));
        Agent::spawn_by_kubelet(node, &arguments)
    };
    let wrong = agent(cluster().nodes()[1].name())?;
    wait::until("the refusal to be told", DEADLINE, || {
        let events = namespace.events()?;
        ensure!(events.contains("its certificate is neither the cluster's"), "{events}");
        Ok(true)
    })?;
    ensure!(files_of(node, name)?.is_empty(), "it was shown the token");
    wrong.stop()?;
    let right = agent(node.name())?;
    archives(node, name, 1)?;
    right.stop().map(drop)
}

#[test]
fn a_right_that_is_missing_is_told_at_once() -> anyhow::Result<()> {
    const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/checkpoint-keeper-agent";
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[1];
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("right")?;
    let name = namespace.name();
    running(&namespace, &counting_pod("web", node, &["app"]), "web")?;
    schedule(name, "on-demand", &json!({"triggers": {"onAnnotation": true}}))?;
    let rules = cluster().get(ROLE)?["rules"].take();
    let with = |rules: &Value| cluster().administrator().merge(ROLE, &json!({"rules": rules}));
    let mut fewer = rules.clone();
    let is_it = |rule: &Value| {
        rule["resources"].as_array().is_some_and(|all| all.contains(&json!("nodes/checkpoint")))
    };
    fewer.as_array_mut().context("no rules")?.retain(|rule| !is_it(rule));
    ensure!(fewer != rules, "the role does not name nodes/checkpoint alone: {rules}");
    with(&fewer)?;
    // Roles, and what the kubelet remembers of them, are up to date a moment later. No later try of one request would
    // help, and so there is none.
    let told = wait::for_value("the missing right to be told", DEADLINE, || {
        annotate(name, "web", "true")?;
        let answer = answered(name, "web")?;
        let error = answer["containers"][0]["error"].as_str().unwrap_or_default();
        ensure!(error.contains("has not the right") && error.contains("403"), "{answer}");
        Ok(Some(answer))
    });
    with(&rules)?;
    let told = told?;
    wait::until("an archive", DEADLINE, || {
        annotate(name, "web", "true")?;
        Ok(answered_after(name, "web", &told)?["containers"][0]["archive"].is_string())
    })?;
    agent.stop().map(drop)
}

/// With CRI-O, which freezes a container itself, this one would stay frozen for good, and so would its pod.
#[test]
fn a_runtime_that_dies_in_the_middle_is_told_of_as_it_may_have_left_the_container_frozen()
-> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    if node.runtime() != Runtime::Containerd {
        return Ok(());
    }
    let agent = Agent::start(node)?;
    let namespace = cluster().namespace("dies")?;
    let name = namespace.name();
    running(&namespace, &counting_pod("web", node, &["app"]), "web")?;
    let retries = json!({"limit": 10, "backoff": "1s"});
    schedule(name, "on-demand", &json!({"retries": retries, "triggers": {"onAnnotation": true}}))?;
    let slow = cluster().inject(Fault::SlowCriu { node: node.name().to_owned(), seconds: 5 })?;
    annotate(name, "web", "true")?;
    begun(node, name)?;
    // The kubelet has asked the runtime once CRIU is there.
    wait_until_criu_runs(node)?;
    let down =
        cluster().inject(Fault::Down { machine: node.name().to_owned(), daemon: Daemon::Containerd })?;
    let told = wait::until("what may be frozen to be told", DEADLINE, || {
        let events = namespace.events()?;
        ensure!(events.contains("ContainerMayBeFrozen"), "{events}");
        Ok(true)
    });
    drop(down);
    drop(slow);
    told?;
    let page = agent.page("metrics")?;
    ensure!(page.contains("result=\"ContainerMayBeFrozen\"}"), "{page}");
    agent.stop().map(drop)
}

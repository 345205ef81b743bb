//! What an agent costs that runs as it is installed: its pod, its rights, a real API server and up to 100 000
//! archives.

use std::time::Duration;

use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::{Cluster, Node, wait};
use serde_json::{Value, json};

use super::close_to_unlink::{self, Deletions, MOST, displace};
use super::directory::{self, Bench, NAMESPACES, ROOT};
use super::memory::{MOST_10K, MOST_100K, MOST_IDLE};
use super::process;
use super::row::{Budget, Row};
use super::timing::Times;
use crate::cluster::Up;
use crate::image;

/// The cluster's name, so that it meets no other.
const NAME: &str = "bench";
const AGENT: &str = "system:serviceaccount:checkpoint-keeper:checkpoint-keeper-agent";

/// A hundred pods to ask about, not more: an agent asks about each once, and only so many a minute.
const PER_CONTAINER: usize = 100;
const POLICIES: usize = 200;

/// Of an idle agent: requests a minute but for watches, and writes in all.
const MOST_REQUESTS: f64 = 1.0;
const MOST_WRITES: f64 = 0.0;

const DEADLINE: Duration = Duration::from_mins(20);
/// How long there must be few requests until all agents count as idle: longer than a round of lookups.
const QUIET: Duration = Duration::from_secs(75);
/// How long an idle one is watched.
const WINDOW: Duration = Duration::from_mins(4);

pub(super) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let archives = bench.either(10_000, 1_000);
    let image = image::build_archive()?;
    let up = Up::new(NAME, &[])?;
    let cluster = &up.cluster;
    let [full, empty] = cluster.nodes()[..] else { anyhow::bail!("the cluster has not two nodes") };
    directory::populate(&full.checkpoints(), archives, PER_CONTAINER)?;
    cluster.load(&image)?;
    install(cluster)?;
    until_read(cluster, full, archives)?;
    until_idle(cluster)?;

    let mut rows = Vec::new();
    let begin = cluster.requests_of_pods()?.len();
    std::thread::sleep(WINDOW);
    let asked = cluster.requests_of_pods()?.split_off(begin);
    for (node, present) in [(full, archives), (empty, 0)] {
        rows.extend(requests(&asked, node, present));
        rows.push(memory(node, present, if present == 0 { MOST_IDLE } else { MOST_10K })?);
    }
    rows.push(latency(full, archives)?);

    // At last, as there are ten times as many pods to ask about, which takes ten times as long.
    let many = bench.either(100_000, 2_000);
    directory::populate(&empty.checkpoints(), many, PER_CONTAINER)?;
    until_read(cluster, empty, many)?;
    until_idle(cluster)?;
    rows.push(memory(empty, many, MOST_100K)?);
    Ok(rows)
}

fn until_read(cluster: &Cluster, node: Node<'_>, archives: usize) -> anyhow::Result<()> {
    wait::until("the agent to have read all archives", DEADLINE, || {
        let path = format!("/apis/checkpoint-keeper.io/v1alpha1/nodecheckpointstores/{}", node.name());
        Ok(cluster.get(&path)?["status"]["archives"].as_u64() == Some(archives as u64))
    })
}

/// All of `config`, many namespaces, and many policies, one of which is for everything.
fn install(cluster: &Cluster) -> anyhow::Result<()> {
    let kubectl = |arguments: &[&str]| output(&mut cluster.kubectl(arguments)).map(drop);
    let folder = |name: &str| format!("{ROOT}/config/{name}");
    kubectl(&["apply", "--filename", &folder("crd")])?;
    kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "--filename", &folder("crd")])?;
    // Not those of the archives: these are older than any namespace that is made now, and so another's.
    let name = |number: usize| format!("other-{number}");
    let namespaces = (0..NAMESPACES)
        .map(|number| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name(number)}}));
    let spec = json!({"retention": {"perContainer": {"maxCount": PER_CONTAINER}}});
    let cluster_wide = |name: &str, spec: Value| {
        json!({
            "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "ClusterCheckpointPolicy",
            "metadata": {"name": name}, "spec": spec,
        })
    };
    // One has it asked about every pod, and one has all namespaces watched.
    let orphans = json!({"action": "Delete", "when": "PodDeleted", "gracePeriod": "24h"});
    let selector = json!({"namespaceSelector": {"matchLabels": {"env": "none"}}, "pods": ["none"]});
    let policy = |number: usize| match number {
        0 => cluster_wide("limit", json!({"retention": spec["retention"], "orphans": orphans})),
        1 => cluster_wide("selects", json!({"retention": spec["retention"], "selector": selector})),
        _ => json!({
            "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointPolicy",
            "metadata": {"name": "limit", "namespace": name(number)}, "spec": spec,
        }),
    };
    for items in [namespaces.collect::<Vec<_>>(), (0..POLICIES).map(policy).collect()] {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
        cluster.apply(&list.to_string())?;
    }
    kubectl(&["apply", "--filename", &folder("deploy")])?;
    let status = ["--namespace", "checkpoint-keeper", "rollout", "status", "--timeout=120s", "daemonset"];
    kubectl(&status)
}

/// Waits until the agents ask for no more than each does in each round.
fn until_idle(cluster: &Cluster) -> anyhow::Result<()> {
    let asked = || -> anyhow::Result<usize> {
        let events = cluster.requests_of_pods()?;
        Ok(events.iter().filter(|event| is_agents(event) && verb(event) != "watch").count())
    };
    wait::until("the agents to be idle", DEADLINE, || {
        let before = asked()?;
        std::thread::sleep(QUIET);
        Ok(asked()? - before <= 2 * cluster.nodes().len())
    })
}

fn is_agents(event: &Value) -> bool {
    event["user"]["username"] == AGENT
}

fn verb(event: &Value) -> &str {
    event["verb"].as_str().unwrap_or_default()
}

/// What a node's agent asked of the API: per minute, and what of that was to change anything.
fn requests(asked: &[Value], node: Node<'_>, present: usize) -> [Row; 2] {
    let node_of = |event: &Value| event["user"]["extra"]["authentication.kubernetes.io/node-name"][0].clone();
    let own: Vec<&Value> =
        asked.iter().filter(|event| is_agents(event) && node_of(event) == node.name()).collect();
    let watches = own.iter().filter(|event| verb(event) == "watch").count();
    let writes = own.iter().filter(|event| !["watch", "get", "list"].contains(&verb(event))).count();
    let minutes = WINDOW.as_secs_f64() / 60.0;
    let what = |what| format!("pod with {present} archives, idle: {what}");
    let others = (own.len() - watches) as f64 / minutes;
    [
        Row::new("cluster-requests", what("requests a minute but for watches"), others, "1/min")
            .budget(Budget::AtMost(MOST_REQUESTS))
            .note(format!("{watches} watches begun in {minutes} min")),
        Row::new("cluster-requests", what("writes"), writes as f64, "writes")
            .budget(Budget::AtMost(MOST_WRITES))
            .note(format!("in {minutes} min")),
    ]
}

/// Resident memory of a node's agent.
fn memory(node: Node<'_>, present: usize, most: f64) -> anyhow::Result<Row> {
    let process = node.run("pgrep", &["--full", "--oldest", "checkpoint-keeper agent"])?;
    let status = node.run("cat", &[&format!("/proc/{}/status", process.trim())])?;
    let (resident, highest) = process::resident_by(&status)?;
    let what = format!("pod with {present} archives, {NAMESPACES} namespaces, {POLICIES} policies: resident");
    Ok(Row::new("cluster-memory", what, resident, "MiB")
        .budget(Budget::AtMost(most))
        .note(format!("at most {highest:.1} MiB; {}", node.oci_runtime())))
}

fn latency(node: Node<'_>, archives: usize) -> anyhow::Result<Row> {
    let directory = node.checkpoints();
    let deletions = Deletions::watch(&directory)?;
    // Every container has as many archives as it may: one more, and its oldest goes. No container twice, as its
    // second one could be of the same second, and so of the same name.
    let times: Vec<Duration> = (0..archives / PER_CONTAINER)
        .map(|container| displace(&directory, container, &deletions))
        .collect::<Result<_, _>>()?;
    let what = format!("pod with {archives} archives, one more closed: until the surplus one is gone");
    Ok(close_to_unlink::row("cluster-latency", what, MOST, &Times::new(times), node.oci_runtime()))
}

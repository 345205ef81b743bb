//! Every rule on checkpoints of real pods, on every node: what it takes, and what it leaves.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::lifecycle::BUSYBOX;
use checkpoint_keeper_testcluster::{Fault, Namespace, Node, wait};
use serde_json::{Value, json};

use crate::agents::{Agent, Applied, checkpoints, keep, left, policy, stays, store, thread_per_node};
use crate::install;
use crate::support::{
    DEADLINE, NODES, checkpoint_alone, cluster, counting_pod, empty, files_of, pod, run_every_kind,
};

/// A container that has a MiB of memory for each in `mebibytes`, of a shell's variable.
fn memory(mebibytes: u32) -> String {
    format!("x=$(head -c {mebibytes}000000 /dev/zero | tr \"\\\\0\" x); while :; do sleep 1; done")
}

fn size(node: Node<'_>, file: &str) -> anyhow::Result<u64> {
    Ok(std::fs::metadata(node.checkpoints().join(file))?.len())
}

/// A policy for some of a namespace's pods.
fn of_pods(namespace: &Namespace<'_>, name: &str, pods: &[&str], mut spec: Value) -> anyhow::Result<()> {
    spec["selector"] = json!({"pods": pods});
    policy(namespace, name, &spec)
}

/// Why the agent deleted each of a namespace's archives, by its audit lines.
fn reasons(audit: &[Value], namespace: &str) -> Vec<(String, String)> {
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or_default().to_owned();
    let ours = audit.iter().filter(|line| line["namespace"] == namespace);
    ours.map(|line| (text(line, "file"), text(line, "reason"))).collect()
}

#[test]
fn each_rule_takes_what_it_says_and_says_why() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    thread_per_node(|node| {
        let namespace = cluster().namespace("rules")?;
        let agent = Agent::start(node)?;
        for name in ["aged", "tiered", "total", "small"] {
            namespace.apply(&counting_pod(name, node, &["server"]))?;
        }
        namespace.apply(&pod("large", node, &["server"], &memory(24)))?;
        namespace.apply(&counting_pod("two", node, &["one", "other"]))?;
        let mut made = std::collections::BTreeMap::new();
        for name in ["aged", "tiered", "total", "small", "large"] {
            namespace.wait_until_running(name)?;
            let count = if ["small", "large"].contains(&name) { 1 } else { 3 };
            made.insert(name, checkpoints(node, namespace.name(), name, count)?);
        }
        namespace.wait_until_running("two")?;
        let mut two = Vec::new();
        for container in ["one", "other", "one", "other"] {
            two.push(checkpoint_alone(node, namespace.name(), "two", container)?);
        }
        // Nothing governs them yet: all are here.
        let all: Vec<String> = made.values().flatten().chain(&two).cloned().collect();
        left(node, namespace.name(), &all)?;

        let mut expected: BTreeSet<(String, String)> = BTreeSet::new();
        let mut goes = |files: &[String], reason: &str| {
            expected.extend(files.iter().map(|file| (file.clone(), reason.to_owned())));
        };
        of_pods(&namespace, "age", &["aged"], json!({"retention": {"maxAge": "1s"}}))?;
        goes(&made["aged"][..2], "MaxAge");
        // Without a floor, so that only the tier keeps the newest.
        let tiers = json!({"retention": {"keepLatest": 0, "tiers": {"yearly": 1}}});
        of_pods(&namespace, "tiers", &["tiered"], tiers)?;
        goes(&made["tiered"][..2], "Tiers");
        let newest = size(node, &made["total"][1])? + size(node, &made["total"][2])?;
        let total = json!({"retention": {"perContainer": {"maxTotalSize": newest + 1}}});
        of_pods(&namespace, "total", &["total"], total)?;
        goes(&made["total"][..1], "MaxTotalSizePerContainer");
        ensure!(size(node, &made["large"][0])? > 20_000_000, "the large one is not");
        let large = json!({"retention": {"maxArchiveSize": "16Mi"}});
        of_pods(&namespace, "size", &["large", "small"], large)?;
        goes(&made["large"], "MaxArchiveSize");
        of_pods(&namespace, "pod", &["two"], json!({"retention": {"perPod": {"maxCount": 2}}}))?;
        goes(&two[..2], "MaxCountPerPod");

        let gone: BTreeSet<&String> = expected.iter().map(|(file, _)| file).collect();
        let stay: Vec<String> = all.iter().filter(|file| !gone.contains(file)).cloned().collect();
        left(node, namespace.name(), &stay)?;
        let told = reasons(&agent.stop()?, namespace.name());
        ensure!(told.len() == expected.len(), "told more than once: {told:?}");
        ensure!(told.iter().cloned().collect::<BTreeSet<_>>() == expected, "{told:?}, expected {expected:?}");
        Ok(())
    })
}

#[test]
fn containers_of_every_kind_are_rotated_each_for_itself_and_are_no_orphans() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    thread_per_node(|node| {
        let namespace = cluster().namespace("kinds")?;
        let agent = Agent::start(node)?;
        run_every_kind(&namespace, node, "")?;
        let mut spec = keep(1);
        spec["orphans"] = json!({"action": "Delete", "when": "PodDeleted", "gracePeriod": "0s"});
        policy(&namespace, "one", &spec)?;
        let mut newest = Vec::new();
        for container in ["sidecar", "main", "ephemeral"] {
            checkpoint_alone(node, namespace.name(), "kinds", container)?;
            newest.push(checkpoint_alone(node, namespace.name(), "kinds", container)?);
        }
        stays(&agent, node, namespace.name(), &newest)?;
        namespace.delete_pod("kinds")?;
        left(node, namespace.name(), &[])
    })
}

#[test]
fn a_pod_of_a_stateful_set_that_is_made_anew_goes_on_with_its_checkpoints() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let namespace = cluster().namespace("stateful")?;
    let name = namespace.name();
    let node = cluster().nodes()[0];
    let agent = Agent::start(node)?;
    let set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db", "namespace": name},
        "spec": {
            "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {
                "nodeName": node.name(), "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "server", "image": BUSYBOX, "imagePullPolicy": "Never",
                    "command": ["/bin/sh", "-c", "while :; do sleep 1; done"],
                }],
            }},
        },
    });
    cluster().apply(&set.to_string())?;
    let uid = |before: Option<&Value>| {
        wait::for_value("the pod", DEADLINE, || {
            let uid = namespace.pod("db-0")?["metadata"]["uid"].clone();
            Ok(Some(uid).filter(|uid| Some(uid) != before))
        })
    };
    let first = uid(None)?;
    namespace.wait_until_running("db-0")?;
    let orphans = json!({"action": "Delete", "when": "PodDeleted", "gracePeriod": "0s"});
    let mut spec = keep(2);
    spec["orphans"] = orphans;
    policy(&namespace, "two", &spec)?;
    let mut made = checkpoints(node, name, "db-0", 2)?;
    cluster().request("DELETE", &format!("/api/v1/namespaces/{name}/pods/db-0"))?;
    uid(Some(&first))?;
    namespace.wait_until_running("db-0")?;
    made.extend(checkpoints(node, name, "db-0", 1)?);
    // The new pod's counts together with the old pod's, which are nobody's orphans: the name is taken.
    stays(&agent, node, name, &made[1..])?;
    cluster().request("DELETE", &format!("/apis/apps/v1/namespaces/{name}/statefulsets/db"))?;
    left(node, name, &[])
}

#[test]
fn each_orphan_setting_waits_for_what_it_names() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let namespace = cluster().namespace("orphans")?;
    let name = namespace.name();
    let node = cluster().nodes()[1];
    let agent = Agent::start(node)?;
    let pods = ["pod-deleted", "workload-deleted", "retained"];
    // Namespaced policies go with their namespace, and names of pods are all that is left to select by.
    let last = format!("last-of-{name}");
    let mut made = Vec::new();
    for pod in pods.iter().copied().chain([last.as_str()]) {
        namespace.apply(&counting_pod(pod, node, &["server"]))?;
    }
    for pod in pods.iter().copied().chain([last.as_str()]) {
        namespace.wait_until_running(pod)?;
        made.push(checkpoint_alone(node, name, pod, "server")?);
    }
    let when = |when: &str| json!({"orphans": {"action": "Delete", "when": when, "gracePeriod": "0s"}});
    of_pods(&namespace, "pod", &["pod-deleted"], when("PodDeleted"))?;
    of_pods(&namespace, "workload", &["workload-deleted"], when("WorkloadDeleted"))?;
    of_pods(&namespace, "retained", &["retained"], json!({"orphans": {"action": "Retain"}}))?;
    let mut spec = when("NamespaceDeleted");
    spec["selector"] = json!({"pods": [last]});
    let _policy = Applied::new(
        "/apis/checkpoint-keeper.io/v1alpha1/clustercheckpointpolicies",
        &json!({
            "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "ClusterCheckpointPolicy",
            "metadata": {"name": last}, "spec": spec,
        }),
    )?;
    for pod in pods.iter().copied().chain([last.as_str()]) {
        namespace.delete_pod(pod)?;
    }
    // Even now that their pods are gone for a while, these stay, until the namespace is gone as well.
    stays(&agent, node, name, &made[2..])?;
    cluster().request("DELETE", &format!("/api/v1/namespaces/{name}"))?;
    stays(&agent, node, name, &made[2..3])
}

#[test]
fn the_watermark_frees_what_it_must_from_whoever_uses_most_and_stops() -> anyhow::Result<()> {
    let _broken = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    // What other tests left would be taken first, as its pods are gone.
    empty(node)?;
    let namespace = cluster().namespace("watermark")?;
    let name = namespace.name();
    namespace.apply(&pod("large", node, &["server"], &memory(40)))?;
    namespace.apply(&counting_pod("small", node, &["server"]))?;
    namespace.wait_until_running("large")?;
    namespace.wait_until_running("small")?;
    let small = checkpoints(node, name, "small", 1)?;
    let large = checkpoints(node, name, "large", 5)?;
    std::fs::write(node.checkpoints().join(format!("{}.keep", large[0])), "evidence")?;
    // So that after the shrinking, used over total is around 70 %: 80 MiB are free of it.
    let _full = cluster().inject(Fault::DiskFull { node: node.name().to_owned(), free_kib: 80 << 10 })?;
    let (total, available) = room(node)?;
    let used = total - available;
    ensure!(used * 100 / total > 60, "the disk is not full enough: {used} of {total}");
    // One and a half of the large ones.
    let low = (used - size(node, &large[1])? * 3 / 2) * 100 / total;
    let high = low + 5;
    let agent = Agent::start(node)?;
    let storage =
        json!({"highWatermark": format!("{high}%"), "lowWatermark": format!("{low}%"), "reserved": "1%"});
    let _policy = Applied::storage_policy("watermark", &storage)?;
    let mut stay = small;
    stay.extend([large[0].clone(), format!("{}.keep", large[0])]);
    stay.extend_from_slice(&large[3..]);
    stays(&agent, node, name, &stay)?;
    let (total, available) = room(node)?;
    ensure!((total - available) * 100 / total <= low, "{available} of {total} are free");
    let told = reasons(&agent.stop()?, name);
    let expected: Vec<(String, String)> =
        large[1..3].iter().map(|file| (file.clone(), "StorageWatermark".to_owned())).collect();
    ensure!(told == expected, "{told:?}");
    Ok(())
}

/// The bytes of the disk for checkpoints, and how many of them are free.
fn room(node: Node<'_>) -> anyhow::Result<(u64, u64)> {
    let text = node.run("df", &["--block-size=1", "--output=size,avail", node.directory()])?;
    let line = text.lines().nth(1).context("df says nothing")?;
    let mut numbers = line.split_whitespace().map(str::parse);
    Ok((numbers.next().context("no size")??, numbers.next().context("no room")??))
}

#[test]
fn a_workload_that_moved_leaves_each_node_to_decide_about_its_own() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let namespace = cluster().namespace("moved")?;
    let name = namespace.name();
    let nodes = cluster().nodes();
    let agents: Vec<Agent> = nodes.iter().copied().map(Agent::start).collect::<Result<_, _>>()?;
    let mut made = Vec::new();
    for node in &nodes {
        namespace.apply(&counting_pod("traveller", *node, &["server"]))?;
        namespace.wait_until_running("traveller")?;
        made.push(checkpoints(*node, name, "traveller", 3)?);
        if node.name() != nodes[nodes.len() - 1].name() {
            namespace.delete_pod("traveller")?;
        }
    }
    let mut spec = keep(2);
    spec["orphans"] = json!({"action": "Delete", "when": "PodDeleted", "gracePeriod": "0s"});
    policy(&namespace, "two", &spec)?;
    // Limits hold for each node, and a pod that runs elsewhere is not gone.
    for (node, made) in nodes.iter().zip(&made) {
        left(*node, name, &made[1..])?;
    }
    for (node, made) in nodes.iter().zip(&made) {
        wait::until("the report of what is left", DEADLINE, || {
            let namespaces = store(*node)?["status"]["namespaces"].as_array().cloned().unwrap_or_default();
            let usage = namespaces.iter().find(|usage| usage["name"] == name);
            ensure!(usage.is_some_and(|usage| usage["archives"] == made.len() - 1), "{namespaces:?}");
            Ok(true)
        })?;
    }
    for (agent, made) in agents.into_iter().zip(&made) {
        let told = reasons(&agent.stop()?, name);
        ensure!(told == [(made[0].clone(), "MaxCountPerContainer".to_owned())], "{told:?}");
    }
    for (node, made) in nodes.iter().zip(&made) {
        ensure!(files_of(*node, name)?.len() == made.len() - 1, "something else went");
    }
    Ok(())
}

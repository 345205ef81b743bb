//! Whether anything works at all: checkpoints are made, understood and collected, with both OCI runtimes.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::{Node, Runtime, wait};
use serde_json::Value;

use crate::support::{
    DEADLINE, NODES, Watching, checkpoint_alone, cluster, counting_pod, files_of, inspect, policy,
    run_every_kind, run_keeper,
};

#[test]
fn inspect_agrees_with_checkpointctl_for_every_kind_of_container() -> anyhow::Result<()> {
    let _whole = NODES.read();
    for node in cluster().nodes() {
        let namespace = cluster().namespace("kinds")?;
        // What a tenant annotates is copied into the archive, and decides nothing.
        let annotations = ", annotations: {io.kubernetes.cri.sandbox-namespace: victim}";
        run_every_kind(&namespace, node, annotations)?;
        let uid = namespace.pod("kinds")?["metadata"]["uid"].as_str().context("no UID")?.to_owned();
        let listed = node.run("checkpointctl", &["list"])?;
        ensure!(!listed.contains(namespace.name()), "a new namespace has checkpoints: {listed}");
        for container in node.containers(namespace.name(), "kinds")? {
            let file = node.checkpoint(namespace.name(), "kinds", &container.name)?.file()?;
            let ours = inspect(node, &file)?;
            let theirs = checkpointctl(node, &file)?;
            let same = |ours: &Value, theirs: &Value, what: &str| {
                ensure!(
                    !ours.is_null() && ours == theirs,
                    "{what} of {file}: {ours}, checkpointctl: {theirs}"
                );
                Ok(())
            };
            same(&ours["container"], &theirs["container_name"], "container")?;
            same(&ours["image"], &theirs["image"], "image")?;
            same(&ours["containerId"], &theirs["id"], "ID")?;
            same(&ours["runtime"], &theirs["runtime"], "runtime")?;
            same(&ours["engine"], &theirs["engine"], "engine")?;
            same(&seconds(&ours["checkpointedAt"])?, &theirs["checkpointed"], "time")?;
            let created = match node.runtime() {
                Runtime::Containerd => theirs["created"].clone(),
                // There checkpointctl shows when CRI-O began to make the container: a moment before.
                Runtime::CriO => seconds(&config_dump(node, &file)?["createdTime"])?,
            };
            same(&seconds(&ours["createdAt"])?, &created, "creation")?;
            for (field, their_field) in [
                ("freezingMicroseconds", "freezing_time"),
                ("frozenMicroseconds", "frozen_time"),
                ("memdumpMicroseconds", "memdump_time"),
                ("memwriteMicroseconds", "memwrite_time"),
                ("pagesScanned", "pages_scanned"),
                ("pagesWritten", "pages_written"),
            ] {
                same(&ours["statistics"][field], &theirs["statistics"][their_field], field)?;
            }
            // Whose it is, checkpointctl shows in its list only.
            let listed = node.run("checkpointctl", &["list"])?;
            let line = listed.lines().find(|line| line.contains(&file));
            let line = line.with_context(|| format!("checkpointctl does not list {file}"))?;
            let columns: Vec<&str> = line.split_whitespace().take(4).collect();
            let engine = node.runtime().engine();
            ensure!(columns == [namespace.name(), "kinds", container.name.as_str(), engine], "{line}");
            ensure!(ours["namespace"] == namespace.name() && ours["pod"] == "kinds", "{ours}");
            // What only the API knows for certain.
            ensure!(ours["podUid"] == uid.as_str() && ours["containerId"] == container.id.as_str(), "{ours}");
            ensure!(ours["state"] == "Complete" && ours["problem"].is_null(), "{ours}");
        }
    }
    Ok(())
}

/// `2026-11-24T17:58:15.5Z` as checkpointctl shows it: without fractions.
fn seconds(time: &Value) -> anyhow::Result<Value> {
    let time: jiff::Timestamp = time.as_str().context("no time")?.parse()?;
    Ok(Value::String(jiff::Timestamp::from_second(time.as_second())?.to_string()))
}

fn config_dump(node: Node<'_>, file: &str) -> anyhow::Result<Value> {
    let path = format!("{}/{file}", node.directory());
    // The colons of the name are no host's.
    let text = node.run("tar", &["--force-local", "-xOf", &path, "config.dump"])?;
    Ok(serde_json::from_str(&text)?)
}

fn checkpointctl(node: Node<'_>, file: &str) -> anyhow::Result<Value> {
    let path = format!("{}/{file}", node.directory());
    let text = node.run("checkpointctl", &["inspect", "--stats", "--metadata", "--format", "json", &path])?;
    Ok(serde_json::from_str::<Value>(&text)?[0].clone())
}

#[test]
fn watching_while_twenty_checkpoints_are_made_leaves_what_the_plan_keeps() -> anyhow::Result<()> {
    let _whole = NODES.write();
    let nodes = cluster().nodes();
    std::thread::scope(|scope| {
        let watches: Vec<_> = nodes.iter().map(|node| scope.spawn(|| twenty_checkpoints(*node))).collect();
        watches.into_iter().try_for_each(|watch| watch.join().expect("a thread of this test panicked"))
    })
}

fn twenty_checkpoints(node: Node<'_>) -> anyhow::Result<()> {
    let namespace = cluster().namespace("twenty")?;
    let name = namespace.name();
    let policy = policy(
        &format!("{}-twenty", node.name()),
        &format!(
            "apiVersion: checkpoint-keeper.io/v1alpha1
kind: CheckpointPolicy
metadata: {{name: newest-three, namespace: {name}}}
spec: {{retention: {{perContainer: {{maxCount: 3}}}}}}
"
        ),
    )?;
    let watching = Watching::start(node, &policy)?;
    namespace.apply(&counting_pod("web", node, &["front", "back"]))?;
    namespace.wait_until_running("web")?;
    // Ten of each, the two containers at once.
    let made: Vec<Vec<String>> = std::thread::scope(|scope| {
        let containers = ["front", "back"].map(|container| {
            scope.spawn(move || -> anyhow::Result<Vec<String>> {
                (0..10).map(|_| checkpoint_alone(node, name, "web", container)).collect()
            })
        });
        let made = containers.into_iter().map(|made| made.join().expect("a thread of this test panicked"));
        made.collect::<anyhow::Result<_>>()
    })?;
    let newest = |made: &Vec<String>| made[made.len() - 3..].to_vec();
    let expected: BTreeSet<String> = made.iter().flat_map(newest).collect();
    ensure!(made.iter().flatten().collect::<BTreeSet<_>>().len() == 20, "names were shared: {made:?}");
    wait::until("the surplus to go", DEADLINE, || {
        let here: BTreeSet<String> = files_of(node, name)?.into_iter().collect();
        ensure!(expected.is_subset(&here), "too much was deleted: {here:?} of {expected:?}");
        ensure!(here == expected, "still here: {here:?}");
        Ok(true)
    })?;
    let deletions = watching.stop(node)?;
    let ours: Vec<&Value> = deletions.iter().filter(|deletion| deletion["namespace"] == name).collect();
    ensure!(ours.len() == 14, "14 deletions are to be told of: {ours:?}");
    ensure!(ours.iter().all(|deletion| deletion["reason"] == "MaxCountPerContainer"), "{ours:?}");
    // Planning again finds nothing to do.
    let (report, _) =
        run_keeper(node, &["gc", "--dry-run", "--output", "json", "--policy", &policy, node.directory()])?;
    let report: Value = serde_json::from_str(&report)?;
    ensure!(report["totals"]["deleteArchives"] == 0, "{report}");
    Ok(())
}

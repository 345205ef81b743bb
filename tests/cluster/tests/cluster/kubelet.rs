//! What the kubelet does, as `docs/kubelet.md` tells it, and what we do then.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::{Fault, Node, RunningContainer, Runtime, wait};
use jiff::Timestamp;
use serde_json::Value;

use crate::support::{
    DEADLINE, NODES, cluster, connected_pod, counting_pod, files_of, inspect, policy, run_keeper,
    wait_until_criu_runs,
};

#[test]
fn two_checkpoints_within_one_second_share_a_file_and_count_as_one() -> anyhow::Result<()> {
    let _whole = NODES.read();
    for node in cluster().nodes() {
        let namespace = cluster().namespace("second")?;
        let name = namespace.name();
        namespace.apply(&counting_pod("web", node, &["server"]))?;
        namespace.wait_until_running("web")?;
        // Begun at a second's first moment; on a slow machine the second one may miss it, and is tried again.
        let file = wait::for_value("two checkpoints within one second", DEADLINE, || {
            let start = Timestamp::now().as_second();
            wait::until("the next second", DEADLINE, || Ok(Timestamp::now().as_second() > start))?;
            let first = node.checkpoint(name, "web", "server")?.file()?;
            let second = node.checkpoint(name, "web", "server")?.file()?;
            Ok((first == second).then_some(second))
        })?;
        let inspected = inspect(node, &file)?;
        ensure!(inspected["state"] == "Complete" && inspected["namespace"] == name, "{inspected}");
        let policy = policy(
            "second",
            &format!(
                "apiVersion: checkpoint-keeper.io/v1alpha1
kind: CheckpointPolicy
metadata: {{name: one, namespace: {name}}}
spec: {{retention: {{perContainer: {{maxCount: 100}}}}}}
"
            ),
        )?;
        let (report, _) = run_keeper(
            node,
            &["gc", "--dry-run", "--settle", "0s", "--output", "json", "--policy", &policy, node.directory()],
        )?;
        // Each file is one archive that counts, and this one is of the second checkpoint.
        let here: BTreeSet<String> = files_of(node, name)?.into_iter().collect();
        let report: Value = serde_json::from_str(&report)?;
        let archives = report["archives"].as_array().context("the report has no archives")?;
        let of_pod = archives.iter().filter(|archive| archive["namespace"] == name);
        let shown: BTreeSet<String> =
            of_pod.filter_map(|archive| archive["file"].as_str().map(str::to_owned)).collect();
        ensure!(shown == here && here.contains(&file), "here: {here:?}, the report: {report}");
    }
    Ok(())
}

#[test]
fn a_container_that_cannot_be_dumped_leaves_nothing_behind_and_runs_on() -> anyhow::Result<()> {
    let _whole = NODES.read();
    for node in cluster().nodes() {
        let namespace = cluster().namespace("tcp")?;
        namespace.apply(&connected_pod("tcp", node))?;
        namespace.wait_until_running("tcp")?;
        let container = node.containers(namespace.name(), "tcp")?.remove(0);
        wait::until("the connection", DEADLINE, || {
            let exec = ["-n", namespace.name(), "exec", "tcp", "--", "cat", "/proc/net/tcp"];
            let connections = checkpoint_keeper_testcluster::process::output(&mut cluster().kubectl(&exec))?;
            // The fourth column is the state, and 01 is ESTABLISHED (Linux, net/tcp_states.h).
            Ok(connections.lines().any(|line| line.split_whitespace().nth(3) == Some("01")))
        })?;
        let answer = node.checkpoint(namespace.name(), "tcp", "talker")?;
        ensure!(answer.status == 500 && answer.body.contains("failed"), "{answer:?}");
        ensure!(files_of(node, namespace.name())?.is_empty(), "something was left behind");
        let after = node.containers(namespace.name(), "tcp")?.remove(0);
        ensure!(after.id == container.id, "the container was restarted");
    }
    Ok(())
}

#[test]
fn a_pod_deleted_while_it_is_dumped_leaves_a_whole_archive_or_none() -> anyhow::Result<()> {
    let _broken = NODES.write();
    for node in cluster().nodes() {
        let namespace = cluster().namespace("deleted")?;
        let name = namespace.name();
        namespace.apply(&counting_pod("web", node, &["server"]))?;
        namespace.wait_until_running("web")?;
        let uid = namespace.pod("web")?["metadata"]["uid"].as_str().context("no UID")?.to_owned();
        let container = node.containers(name, "web")?.remove(0);
        let slow = cluster().inject(Fault::SlowCriu { node: node.name().to_owned(), seconds: 2 })?;
        let answer = std::thread::scope(|scope| {
            let dump = scope.spawn(|| node.checkpoint(name, "web", "server"));
            wait_until_criu_runs(node)?;
            namespace.delete_pod("web")?;
            if (node.runtime(), node.oci_runtime()) == (Runtime::CriO, "crun") {
                thaw_when_dumped(node, name, &container)?;
            }
            dump.join().expect("a thread of this test panicked")
        })?;
        drop(slow);
        let files = files_of(node, name)?;
        if answer.status == 200 {
            ensure!(files == [answer.file()?], "{files:?}");
        } else {
            ensure!(answer.status == 500, "{answer:?}");
        }
        // Whatever is left is known for what it is, and nobody's policy: it stays.
        for file in files {
            let inspected = inspect(node, &file)?;
            if answer.status == 200 {
                ensure!(
                    inspected["state"] == "Complete" && inspected["podUid"] == uid.as_str(),
                    "{inspected}"
                );
            } else {
                ensure!(inspected["state"] != "Complete", "an archive that nobody was told of: {inspected}");
            }
        }
    }
    Ok(())
}

/// CRI-O freezes a container before CRIU begins, and then kills it on behalf of the deletion before it would
/// have thawed it. runc thaws whom it kills; with crun the container stays frozen, the kubelet gives up after
/// two minutes, and nobody is told of the archive.
fn thaw_when_dumped(node: Node<'_>, namespace: &str, container: &RunningContainer) -> anyhow::Result<()> {
    wait::until("the archive", DEADLINE, || {
        let files = files_of(node, namespace)?;
        let file = files.first().context("there is no archive yet")?;
        let inspected = inspect(node, file)?;
        ensure!(inspected["state"] == "Complete", "{inspected}");
        Ok(true)
    })?;
    Fault::Frozen { node: node.name().to_owned(), container: container.id.clone() }.undo(cluster())
}

//! The collector on real nodes, when things go wrong.

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::Fault;

use crate::support::{
    NODES, checkpoint_alone, cluster, counting_pod, files_of, inspect, keeper, policy, run_keeper, verdict,
};

const KEEP: &str = "apiVersion: checkpoint-keeper.io/v1alpha1
kind: ClusterCheckpointPolicy
metadata: {name: keeps-incomplete}
spec: {retention: {maxAge: 3650d}}
";

const REMOVE: &str = "apiVersion: checkpoint-keeper.io/v1alpha1
kind: ClusterCheckpointPolicy
metadata: {name: removes-incomplete}
spec: {incomplete: {action: Delete, gracePeriod: 1h}}
";

#[test]
fn a_full_disk_leaves_an_incomplete_archive_that_goes_by_its_own_rule_only() -> anyhow::Result<()> {
    let _broken = NODES.write();
    let keep = policy("keep", KEEP)?;
    let remove = policy("remove", REMOVE)?;
    for node in cluster().nodes() {
        let namespace = cluster().namespace("full")?;
        namespace.apply(&counting_pod("web", node, &["server"]))?;
        namespace.wait_until_running("web")?;
        let whole = checkpoint_alone(node, namespace.name(), "web", "server")?;
        let size = std::fs::metadata(node.checkpoints().join(&whole))?.len();
        let full =
            cluster().inject(Fault::DiskFull { node: node.name().to_owned(), free_kib: size / 2 / 1024 })?;
        let answer = node.checkpoint(namespace.name(), "web", "server")?;
        ensure!(answer.status == 500 && answer.body.contains("no space left on device"), "{answer:?}");
        let files = files_of(node, namespace.name())?;
        let cut = files.iter().find(|file| **file != whole).context("the kubelet left nothing behind")?;
        let inspected = inspect(node, cut)?;
        ensure!(inspected["state"] == "Incomplete", "{inspected}");
        ensure!(inspected["problem"].is_string(), "{inspected}");

        let gc = |policy: &str, more: &[&str]| {
            let arguments =
                ["gc", "--yes", "--output", "json", "--settle", "0s", "--policy", policy, node.directory()];
            run_keeper(node, &[&arguments[..], more].concat())
        };
        // By default it stays, however old it gets.
        let (report, _) = gc(&keep, &["--dry-run", "--now", "2027-12-01T00:00:00Z"])?;
        let kept = verdict(&report, cut)?.context("the archive is not in the report")?;
        ensure!(kept["reason"] == "WithinLimits" && kept["state"] == "Incomplete", "{kept}");
        // By its own rule it stays for the grace period, also on a full disk,
        let (report, _) = gc(&remove, &[])?;
        let kept = verdict(&report, cut)?.context("the archive is not in the report")?;
        ensure!(kept["reason"] == "WithinLimits" && kept["deleted"] == false, "{kept}");
        ensure!(files_of(node, namespace.name())?.contains(cut), "it was deleted within its grace period");
        // and goes after it, and nothing else does.
        let mut later = node.command_by_clock(keeper(), "+2h")?;
        later.args(["gc", "--yes", "--output", "json", "--policy", &remove, node.directory()]);
        let report = checkpoint_keeper_testcluster::process::output(&mut later)?;
        let gone = verdict(&report, cut)?.context("the archive is not in the report")?;
        ensure!(gone["reason"] == "Incomplete" && gone["deleted"] == true, "{gone}");
        ensure!(files_of(node, namespace.name())? == [whole.clone()], "not exactly the whole one is left");
        drop(full);
        // With room again the next checkpoint is whole.
        let next = node.checkpoint(namespace.name(), "web", "server")?.file()?;
        ensure!(inspect(node, &next)?["state"] == "Complete", "{next}");
    }
    Ok(())
}

#[test]
fn a_read_only_disk_is_reported_and_healed_by_the_next_pass() -> anyhow::Result<()> {
    let _broken = NODES.write();
    for node in cluster().nodes() {
        let namespace = cluster().namespace("readonly")?;
        let name = namespace.name();
        namespace.apply(&counting_pod("web", node, &["server"]))?;
        namespace.wait_until_running("web")?;
        let old = checkpoint_alone(node, name, "web", "server")?;
        let new = node.checkpoint(name, "web", "server")?.file()?;
        let policy = policy(
            "readonly",
            &format!(
                "apiVersion: checkpoint-keeper.io/v1alpha1
kind: CheckpointPolicy
metadata: {{name: one, namespace: {name}}}
spec: {{retention: {{perContainer: {{maxCount: 1}}}}}}
"
            ),
        )?;
        let gc = ["gc", "--yes", "--output", "json", "--settle", "0s", "--policy", &policy, node.directory()];
        let read_only = cluster().inject(Fault::ReadOnly { node: node.name().to_owned() })?;
        let refused = node.checkpoint(name, "web", "server")?;
        ensure!(refused.status == 500, "{refused:?}");
        let (report, code) = run_keeper(node, &gc)?;
        let failed = verdict(&report, &old)?.context("the archive is not in the report")?;
        ensure!(code == 1 && failed["verdict"] == "Delete" && failed["deleted"] == false, "{code} {failed}");
        drop(read_only);
        let (_, code) = run_keeper(node, &gc)?;
        ensure!(code == 0 && files_of(node, name)? == [new], "the surplus archive is still there");
    }
    Ok(())
}

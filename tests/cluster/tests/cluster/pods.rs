//! What the operator's pods can reach of their node, by the manifests that users apply. A shell runs in them
//! in the operator's place: what a shell cannot do there, no bug of ours can.

use std::io::Write;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::lifecycle::BUSYBOX;
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::{Node, Runtime, wait};
use serde_json::{Value, json};

use crate::install::{self, NAMESPACE};
use crate::support::{DEADLINE, NODES, REPOSITORY, cluster};

/// Runs a script in a pod of this manifest's on a node; what it said.
fn run(manifest: &str, node: Node<'_>, script: &str) -> anyhow::Result<String> {
    let file = format!("{REPOSITORY}/config/deploy/{manifest}");
    let workload = output(&mut cluster().kubectl(&[
        "create",
        "--dry-run=server",
        "--validate=strict",
        "--output=json",
        "--filename",
        &file,
    ]))?;
    // Beside the workload there may be what is about it. Each object is a document of its own.
    let objects = serde_json::Deserializer::from_str(&workload).into_iter::<Value>();
    let objects = objects.collect::<Result<Vec<_>, _>>()?;
    let of_pods = objects.into_iter().find(|object| object["spec"]["template"].is_object());
    let mut spec = of_pods.context("no workload")?["spec"]["template"]["spec"].take();
    spec["nodeName"] = json!(node.name());
    spec["restartPolicy"] = json!("Never");
    let container = &mut spec["containers"][0];
    container["image"] = json!(BUSYBOX);
    container["command"] = json!(["/bin/sh", "-ec", script]);
    for served in ["args", "livenessProbe", "readinessProbe"] {
        container.as_object_mut().context("no container")?.remove(served);
    }
    let name = format!("shell-{}-{}-{}", manifest.replace('.', "-"), node.name(), std::process::id());
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    let (status, answer) = cluster().create(&path, &pod)?;
    ensure!(status == 201, "{status} {answer}");
    let ended = wait::for_value("the shell to end", DEADLINE, || {
        let status = cluster().get(&format!("{path}/{name}"))?["status"].clone();
        Ok((status["phase"] == "Succeeded" || status["phase"] == "Failed").then_some(status))
    });
    let said = cluster().get(&format!("{path}/{name}/log"));
    cluster().request("DELETE", &format!("{path}/{name}"))?;
    let (ended, said) = (ended?, said?);
    let said = said.as_str().unwrap_or_default().to_owned();
    ensure!(ended["phase"] == "Succeeded", "{said}\n{ended}");
    Ok(said)
}

/// Prints what the kernel says of the process, and what it sees of the node.
const LOOK: &str = "
grep -E '^(Uid|CapPrm|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
echo NODE $NODE_NAME
echo OWN $POD_NAMESPACE
if touch /written 2>/dev/null; then echo the root file system can be written; exit 1; fi
if [ $(ls -d /proc/[0-9]* | wc -l) -gt 9 ]; then echo foreign processes are seen; exit 1; fi
";

fn check(node: Node<'_>, said: &str, uid: &str) -> anyhow::Result<()> {
    let empty = "0000000000000000";
    let uid = format!("Uid:\t{uid}\t");
    let caps = ["CapPrm", "CapEff", "CapBnd"].map(|set| format!("{set}:\t{empty}\n"));
    ensure!(said.contains(&uid) && caps.iter().all(|set| said.contains(set)), "{said}");
    ensure!(said.contains("NoNewPrivs:\t1\n"), "{said}");
    ensure!(said.contains(&format!("Seccomp:\t{}\n", filtered(node)?)), "{said}");
    ensure!(said.contains(&format!("OWN {NAMESPACE}\n")), "{said}");
    Ok(())
}

/// What the kernel says of a process whose system calls are to be filtered as the runtime does by default.
fn filtered(node: Node<'_>) -> anyhow::Result<u8> {
    match node.runtime() {
        Runtime::Containerd => Ok(2),
        Runtime::CriO => {
            // Not captured, as what is printed would be.
            let why =
                "CRI-O is built here without libseccomp and filters no system call: that was not tested";
            writeln!(std::io::stderr(), "{}: {why}", node.name())?;
            Ok(0)
        }
    }
}

#[test]
fn an_agents_pod_reaches_two_directories_of_its_node_without_any_capability() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install::rights()?;
    for node in cluster().nodes() {
        let mark = format!("pods-{}", std::process::id());
        node.run("sh", &["-c", &format!("echo old >{}/{mark}; chmod 600 {0}/{mark}", node.directory())])?;
        // Reads, and deletes, what the kubelet wrote as root; and keeps its own state.
        let script = format!(
            "{LOOK}
cd /var/lib/kubelet/checkpoints
grep old {mark}
rm {mark}
ls -ld /var/lib/checkpoint-keeper
echo new >/var/lib/checkpoint-keeper/{mark}
ls /var/lib/kubelet
"
        );
        let said = run("5-agent.yaml", node, &script)?;
        check(node, &said, "0")?;
        ensure!(said.contains(&format!("NODE {}\n", node.name())), "{said}");
        ensure!(said.ends_with("\ncheckpoints\n"), "more of the kubelet's is seen: {said}");
        ensure!(!node.files()?.contains(&mark), "{mark} is still there");
        node.run("rm", &[&format!("/var/lib/checkpoint-keeper/{mark}")])?;
    }
    Ok(())
}

#[test]
fn a_controllers_pod_is_nobody_and_sees_nothing_of_its_node() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install::rights()?;
    for node in cluster().nodes() {
        let said =
            run("6-controller.yaml", node, &format!("{LOOK}\nif ls /var/lib/kubelet; then exit 1; fi"))?;
        check(node, &said, "65532")?;
    }
    Ok(())
}

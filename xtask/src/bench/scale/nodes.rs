//! The nodes of the simulation: objects of the API without a machine behind them, and what their agents need.
//!
//! Each has a Node, the pod of its agent, to which the agent's token is bound as in a real cluster (so the API server
//! knows by the token which node it is), and a directory of archives.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::machine::SHARED;
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::{Client, Cluster, wait};
use checkpoint_keeper_testkit::ArchiveBuilder;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::agents::{self, NodePlan};
use crate::bench::directory::{ROOT, write_aged};

/// The operator's own namespace.
pub(super) const NAMESPACE: &str = "checkpoint-keeper";
const AGENT: &str = "checkpoint-keeper-agent";
const CONTROLLER: &str = "checkpoint-keeper-controller";

/// How many archives each container has.
pub(super) const PER_CONTAINER: usize = 10;

/// How many namespaces the pods are of.
const NAMESPACES: usize = 20;

/// How many write to the API server at once, of which there is one, on the same machine.
const WRITERS: usize = 4;

/// The folder of all this among what the machines share.
const FOLDER: &str = "scale";

/// Where the controller's kubeconfig is, as the machines see it.
pub(super) fn controller_kubeconfig() -> String {
    format!("{SHARED}/{}", kubeconfig_file(CONTROLLER))
}

/// Applies what a cluster's administrator applies, but for what runs: definitions, rights and admission policies.
pub(super) fn install(cluster: &Cluster) -> anyhow::Result<()> {
    let definitions = format!("--filename={ROOT}/config/crd");
    let kubectl = |arguments: &[&str]| output(&mut cluster.kubectl(arguments)).map(drop);
    kubectl(&["apply", &definitions])?;
    kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &definitions])?;
    let files = ["0-namespace", "1-accounts", "2-agent-rights", "3-controller-rights", "4-admission"];
    let files = files.map(|name| format!("--filename={ROOT}/config/deploy/{name}.yaml"));
    output(cluster.kubectl(&["apply"]).args(files))?;
    for number in 0..NAMESPACES {
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace(number)}});
        created(cluster.create("/api/v1/namespaces", &namespace)?)?;
    }
    let token = token(cluster.administrator(), CONTROLLER, &Value::Null)?;
    cluster.write_kubeconfig(&kubeconfig_file(CONTROLLER), &token)
}

/// How much older than an archive a namespace must be to count as the one that it is from, as clocks may differ. Only
/// then is the archive shown in it.
pub(super) const OLDER: Duration = Duration::from_secs(5 * 60 + 5);

/// Makes so many nodes with so many archives each, and says what their agents are told. The namespaces, which were made
/// just now, are to be older than their archives by that much: this takes as long.
pub(super) fn make(
    cluster: &Cluster,
    nodes: usize,
    archives: usize,
    older: Duration,
) -> anyhow::Result<Vec<NodePlan>> {
    let begin = Timestamp::now().checked_add(older)?;
    fs::create_dir_all(cluster.state().shared().join(FOLDER))?;
    let plans: Vec<NodePlan> = (0..nodes).map(node_plan).collect();
    in_threads(&plans, |(_, plan)| register(cluster, plan))?;
    let youngest = begin.checked_add(Duration::from_secs(PER_CONTAINER as u64))?;
    // An archive from the future would be believed by nobody.
    wait::until("the archives' times to have passed", older + Duration::from_mins(1), || {
        Ok(Timestamp::now() > youngest)
    })?;
    in_threads(&plans, |(place, plan)| populate(cluster, plan, agents::user(place)?, archives, begin))?;
    Ok(plans)
}

fn in_threads(
    plans: &[NodePlan],
    work: impl Fn((usize, &NodePlan)) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    let work = &work;
    thread::scope(|scope| {
        let part =
            |first: usize| move || plans.iter().enumerate().skip(first).step_by(WRITERS).try_for_each(work);
        let threads: Vec<_> = (0..WRITERS).map(|first| scope.spawn(part(first))).collect();
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread that makes nodes panicked")))
        })
    })
}

fn node_plan(number: usize) -> NodePlan {
    let name = format!("sim-{:04}", number + 1);
    let inside = |what: &str| PathBuf::from(format!("{SHARED}/{FOLDER}/{name}{what}"));
    let kubeconfig = PathBuf::from(format!("{SHARED}/{}", kubeconfig_file(&name)));
    let (directory, state) = (inside("/checkpoints"), inside("/catalog"));
    NodePlan { name, kubeconfig, directory, state }
}

fn kubeconfig_file(of: &str) -> String {
    format!("{FOLDER}-{of}.kubeconfig")
}

fn namespace(number: usize) -> String {
    format!("team-{number:02}")
}

/// Makes the objects of a node, and the token of its agent.
fn register(cluster: &Cluster, plan: &NodePlan) -> anyhow::Result<()> {
    let (client, name) = (cluster.administrator(), &plan.name);
    let node = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}},
    });
    created(client.create("/api/v1/nodes", &node)?)?;
    let pods = format!("/api/v1/namespaces/{NAMESPACE}/pods");
    let labels =
        json!({"app.kubernetes.io/name": "checkpoint-keeper", "app.kubernetes.io/component": "agent"});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("{AGENT}-{name}"), "labels": labels},
        "spec": {
            "nodeName": name, "serviceAccountName": AGENT, "automountServiceAccountToken": false,
            "containers": [{"name": "agent", "image": "localhost/checkpoint-keeper:dev"}],
        },
    });
    let pod = created(client.create(&pods, &pod)?)?;
    // There is no kubelet that would say so. Of a node whose agent is not ready the controller says that it is away.
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    let (code, answer) = client.merge(&format!("{pods}/{AGENT}-{name}/status"), &status)?;
    ensure!(code == 200, "the pod of {name} cannot be made ready: {code} {answer}");
    let metadata = &pod["metadata"];
    let bound = json!({"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]});
    cluster.write_kubeconfig(&kubeconfig_file(name), &token(client, AGENT, &bound)?)
}

/// A token of an account, bound to an object, or for null to nothing.
fn token(client: &Client, account: &str, bound: &Value) -> anyhow::Result<String> {
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [], "boundObjectRef": bound, "expirationSeconds": 4 * 3_600},
    });
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token");
    let answer = created(client.create(&path, &request)?)?;
    Ok(answer["status"]["token"].as_str().context("no token")?.to_owned())
}

fn created((status, answer): (u16, Value)) -> anyhow::Result<Value> {
    ensure!(status == 201, "{status} {answer}");
    Ok(answer)
}

/// Writes the archives of a node, so many of each container, a second apart. All is its agent's.
fn populate(
    cluster: &Cluster,
    plan: &NodePlan,
    user: u32,
    archives: usize,
    begin: Timestamp,
) -> anyhow::Result<()> {
    let directory = on_host(cluster, &plan.directory)?;
    fs::create_dir_all(&directory)?;
    let own = |path: &Path| chown(path, Some(user), None).context("cannot give the agent its directory");
    for folder in [Some(directory.as_path()), directory.parent()].into_iter().flatten() {
        own(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
    }
    for place in 0..archives {
        let at = begin.checked_add(Duration::from_secs((place % PER_CONTAINER) as u64))?;
        let archive = archive(&plan.name, place / PER_CONTAINER, at);
        let path = directory.join(archive.file_name());
        write_aged(&path, &archive.build()?, at.into())?;
        own(&path)?;
    }
    Ok(())
}

fn archive(node: &str, container: usize, at: Timestamp) -> ArchiveBuilder {
    let digits: String = node.chars().filter(char::is_ascii_digit).collect();
    ArchiveBuilder::new(&namespace(container % NAMESPACES), &format!("app-{container}-{node}"), "server")
        .uid(&format!("5744a2df-d174-487a-{digits:0>4}-{container:012}"))
        .at(&format!("{at:.9}"))
        .pages(512)
}

/// The same path as this process sees it.
fn on_host(cluster: &Cluster, inside: &Path) -> anyhow::Result<PathBuf> {
    Ok(cluster
        .state()
        .shared()
        .join(inside.strip_prefix(SHARED).context("it is not among what machines share")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_nodes_share_a_file_and_no_two_archives_of_a_node_a_name() {
        let plans: Vec<NodePlan> = (0..3).map(node_plan).collect();
        let mut paths: Vec<_> =
            plans.iter().flat_map(|plan| [&plan.kubeconfig, &plan.directory, &plan.state]).collect();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), 9);
        let begin = Timestamp::UNIX_EPOCH;
        let names = (0..100).map(|place| {
            let at = begin + Duration::from_secs((place % PER_CONTAINER) as u64);
            archive("sim-0001", place / PER_CONTAINER, at).file_name()
        });
        let names: std::collections::BTreeSet<String> = names.collect();
        assert_eq!(names.len(), 100);
    }
}

//! What the tests share: the cluster, the collector's program, and pods to checkpoint.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{OnceLock, RwLock};
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use checkpoint_keeper_testcluster::lifecycle::BUSYBOX;
use checkpoint_keeper_testcluster::machine::CONTROL_PLANE;
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::{Cluster, Namespace, Node, wait};
use jiff::Timestamp;
use serde_json::{Value, json};

/// Longer than a busy machine needs.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// Written by tests that break a node; read by those that need it whole.
pub(crate) static NODES: RwLock<()> = RwLock::new(());

/// The cluster that all tests share.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::join(program()).expect("there is no cluster, and none can be brought up"))
}

/// The program that brings clusters up.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_testcluster"))
}

/// The collector's program, where every machine sees it.
pub(crate) fn keeper() -> &'static str {
    static KEEPER: OnceLock<String> = OnceLock::new();
    KEEPER.get_or_init(|| {
        let program = program().with_file_name("checkpoint-keeper");
        cluster().share(&program).expect("first: cargo build --package checkpoint-keeper")
    })
}

/// This repository.
pub(crate) const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// The processes of a node that are CRIU at a dump, or are about to become it.
fn criu(node: Node<'_>) -> anyhow::Result<BTreeSet<String>> {
    // An exit code of 1 says that there is none.
    let found = node.run("sh", &["-c", "pgrep --full 'criu.*[s]wrk' || [ $? = 1 ]"])?;
    Ok(found.lines().map(str::to_owned).collect())
}

/// Waits until a container is being dumped.
pub(crate) fn wait_until_criu_runs(node: Node<'_>) -> anyhow::Result<()> {
    wait::until("CRIU to run", DEADLINE, || Ok(!criu(node)?.is_empty()))
}

/// Waits until a dump begins: one that is under way may be about to end.
pub(crate) fn wait_until_criu_starts(node: Node<'_>) -> anyhow::Result<()> {
    let before = criu(node)?;
    wait::until("CRIU to be started", DEADLINE, || Ok(!criu(node)?.is_subset(&before)))
}

/// Applies the definitions as users do, once.
pub(crate) fn install_crds() -> anyhow::Result<()> {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    let install = || {
        for folder in ["crd", "crd-legacy"] {
            let folder = format!("{REPOSITORY}/config/{folder}");
            output(&mut cluster().kubectl(&["apply", "--filename", &folder]))?;
            let wait = ["wait", "--for=condition=Established", "--timeout=30s", "--filename", &folder];
            output(&mut cluster().kubectl(&wait))?;
        }
        Ok(())
    };
    let installed = INSTALLED.get_or_init(|| install().map_err(|error: anyhow::Error| format!("{error:#}")));
    installed.clone().map_err(anyhow::Error::msg)
}

/// A pod on one node with these containers, each a busybox that counts.
pub(crate) fn counting_pod(name: &str, node: Node<'_>, containers: &[&str]) -> String {
    pod(name, node, containers, "i=0; while :; do i=$((i+1)); echo $i >/tmp/n; sleep 1; done")
}

/// A pod whose container `talker` has an established connection: CRIU refuses it unless told otherwise, and the
/// runtimes do not.
pub(crate) fn connected_pod(name: &str, node: Node<'_>) -> String {
    // A client that finds no listener ends when it next writes, and tries again.
    let script = "(while :; do nc -l -p 7777 -e /bin/cat; done) & \
                  while :; do (while sleep 1; do echo x; done) | nc 127.0.0.1 7777; done";
    pod(name, node, &["talker"], script)
}

/// A pod on one node with these containers, each of which runs this script.
pub(crate) fn pod(name: &str, node: Node<'_>, containers: &[&str], script: &str) -> String {
    let containers: String = containers.iter().map(|container| busybox(container, script, "")).collect();
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {}
  terminationGracePeriodSeconds: 1
  containers:
{containers}",
        node.name()
    )
}

/// A container of a manifest.
pub(crate) fn busybox(name: &str, script: &str, more: &str) -> String {
    format!(
        "  - {{name: {name}, image: \"{BUSYBOX}\", imagePullPolicy: Never, {more} \
         command: [/bin/sh, -c, '{script}']}}\n"
    )
}

/// Runs a pod named `kinds` with a container of every kind: a sidecar (an init container that stays), an
/// ordinary and an ephemeral one. `metadata` is what else its metadata says.
pub(crate) fn run_every_kind(
    namespace: &Namespace<'_>,
    node: Node<'_>,
    metadata: &str,
) -> anyhow::Result<()> {
    let script = "i=0; while :; do i=$((i+1)); echo $i >/tmp/n; sleep 1; done";
    let manifest = format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: kinds{metadata}}}
spec:
  nodeName: {}
  terminationGracePeriodSeconds: 1
  initContainers:
{}  containers:
{}",
        node.name(),
        busybox("sidecar", script, "restartPolicy: Always,"),
        busybox("main", script, "")
    );
    namespace.apply(&manifest)?;
    namespace.wait_until_running("kinds")?;
    debug_container(namespace.name(), "kinds", "ephemeral")?;
    wait::until("the ephemeral container to run", DEADLINE, || {
        Ok(node.containers(namespace.name(), "kinds")?.len() == 3)
    })
}

/// Puts an ephemeral container into a running pod.
fn debug_container(namespace: &str, pod: &str, name: &str) -> anyhow::Result<()> {
    let image = format!("--image={}", checkpoint_keeper_testcluster::lifecycle::BUSYBOX);
    let mut command = cluster().kubectl(&[
        "--namespace",
        namespace,
        "debug",
        pod,
        &image,
        "--image-pull-policy=Never",
        "--container",
        name,
        "--quiet",
        "--",
        "/bin/sh",
        "-c",
        "while :; do sleep 1; done",
    ]);
    checkpoint_keeper_testcluster::process::output(&mut command).map(drop)
}

/// Changes an object in etcd, past everything that the API server would refuse.
pub(crate) fn smuggle(key: &str, change: impl Fn(&mut Value)) -> anyhow::Result<()> {
    let etcd = |call: &str, body: Value| -> anyhow::Result<Value> {
        let url = format!("http://127.0.0.1:2379/v3/kv/{call}");
        let mut command = cluster().command(CONTROL_PLANE, "curl")?;
        command.args(["--silent", "--fail", "--max-time", "10", "--data", &body.to_string(), &url]);
        Ok(serde_json::from_str(&output(&mut command)?)?)
    };
    let key = BASE64.encode(key);
    let found = etcd("range", json!({"key": key}))?;
    let value = found["kvs"][0]["value"].as_str().context("etcd has no such object")?;
    let mut object: Value = serde_json::from_slice(&BASE64.decode(value)?)?;
    change(&mut object);
    etcd("put", json!({"key": key, "value": BASE64.encode(object.to_string())})).map(drop)
}

/// Runs the collector on a node to its end; its standard output, and its exit code.
pub(crate) fn run_keeper(node: Node<'_>, arguments: &[&str]) -> anyhow::Result<(String, i32)> {
    let output = node.command(keeper())?.args(arguments).stdin(Stdio::null()).output()?;
    let code = output.status.code().context("the collector was killed")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(code <= 1, "{arguments:?} ended with {code}: {said}");
    Ok((String::from_utf8(output.stdout)?, code))
}

/// What `inspect` says of one archive on a node.
pub(crate) fn inspect(node: Node<'_>, file: &str) -> anyhow::Result<Value> {
    let path = format!("{}/{file}", node.directory());
    let (text, _) = run_keeper(node, &["inspect", "--output", "json", &path])?;
    let list: Value = serde_json::from_str(&text)?;
    ensure!(list.as_array().is_some_and(|list| list.len() == 1), "not one archive: {list}");
    Ok(list[0].clone())
}

/// What `gc` says of one archive on a node, or nothing where it does not name it.
pub(crate) fn verdict(report: &str, file: &str) -> anyhow::Result<Option<Value>> {
    let report: Value = serde_json::from_str(report)?;
    let archives = report["archives"].as_array().context("the report has no archives")?;
    Ok(archives.iter().find(|archive| archive["file"] == file).cloned())
}

/// Writes a policy where a node sees it.
pub(crate) fn policy(name: &str, yaml: &str) -> anyhow::Result<String> {
    let mut file = tempfile::Builder::new().prefix(name).suffix(".yaml").tempfile()?;
    file.write_all(yaml.as_bytes())?;
    cluster().share(file.path())
}

/// A collector that watches a node's directory until it is told to stop.
pub(crate) struct Watching {
    process: Child,
}

impl Watching {
    pub(crate) fn start(node: Node<'_>, policy: &str) -> anyhow::Result<Self> {
        let mut command = node.command(keeper())?;
        command.args(["gc", "--watch", "--output", "json", "--policy", policy]);
        let process = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        Ok(Self { process })
    }

    /// Stops it as a service manager would, and gives the deletions that it told of.
    pub(crate) fn stop(mut self, node: Node<'_>) -> anyhow::Result<Vec<Value>> {
        // nsenter hands no signal on: the collector itself gets it, by its name on this node.
        node.run("pkill", &["-TERM", "--full", "gc --watch"])?;
        let mut said = String::new();
        std::io::Read::read_to_string(&mut self.process.stdout.take().context("no output")?, &mut said)?;
        let status = self.process.wait()?;
        ensure!(status.success(), "the collector ended with {status}");
        said.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Makes a checkpoint that does not share its file name's second with one before.
pub(crate) fn checkpoint_alone(
    node: Node<'_>,
    namespace: &str,
    pod: &str,
    container: &str,
) -> anyhow::Result<String> {
    let file = node.checkpoint(namespace, pod, container)?.file()?;
    // The name is from some moment before the answer.
    let answered = Timestamp::now().as_second();
    wait::until("the next second", DEADLINE, || Ok(Timestamp::now().as_second() > answered))?;
    Ok(file)
}

/// Removes all archives of a node, with their markers: those that earlier tests left.
pub(crate) fn empty(node: Node<'_>) -> anyhow::Result<()> {
    node.run("find", &[node.directory(), "-mindepth", "1", "-delete"])?;
    Ok(())
}

/// Whose files of a directory a namespace's archives are, by the names that the kubelet gives.
pub(crate) fn files_of(node: Node<'_>, namespace: &str) -> anyhow::Result<Vec<String>> {
    let of = format!("_{namespace}-");
    Ok(node.files()?.into_iter().filter(|file| file.contains(&of)).collect())
}

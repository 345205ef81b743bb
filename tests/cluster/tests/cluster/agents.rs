//! What tests of the agent share: the agent on a node, policies in the API, and what they leave on the disk.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::{Namespace, Node, wait};
use serde_json::{Value, json};

use crate::install;
use crate::support::{DEADLINE, checkpoint_alone, cluster, files_of, keeper};

/// Where an agent that is started here remembers what it cannot learn again.
pub(crate) const CATALOG: &str = "/var/lib/kubelet/checkpoint-keeper-catalog";

/// A policy of a namespace.
pub(crate) fn policy(namespace: &Namespace<'_>, name: &str, spec: &Value) -> anyhow::Result<()> {
    let metadata = json!({"name": name, "namespace": namespace.name()});
    let object = json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointPolicy", "metadata": metadata, "spec": spec,
    });
    cluster().apply(&object.to_string())
}

pub(crate) fn keep(count: u32) -> Value {
    json!({"retention": {"perContainer": {"maxCount": count}}})
}

/// As many checkpoints of a pod's container, each with a name of its own.
pub(crate) fn checkpoints(
    node: Node<'_>,
    namespace: &str,
    pod: &str,
    count: usize,
) -> anyhow::Result<Vec<String>> {
    (0..count).map(|_| checkpoint_alone(node, namespace, pod, "server")).collect()
}

/// Waits until exactly these are left of a namespace's archives.
pub(crate) fn left(node: Node<'_>, namespace: &str, expected: &[String]) -> anyhow::Result<()> {
    let expected: BTreeSet<String> = expected.iter().cloned().collect();
    wait::until("exactly what the policies keep", DEADLINE, || {
        let here: BTreeSet<String> = files_of(node, namespace)?.into_iter().collect();
        ensure!(here == expected, "here: {here:?}, expected: {expected:?}");
        Ok(true)
    })
}

/// Waits until exactly these are left, and then until the agent has decided about everything twice more: they
/// are left still.
pub(crate) fn stays(
    agent: &Agent<'_>,
    node: Node<'_>,
    namespace: &str,
    expected: &[String],
) -> anyhow::Result<()> {
    left(node, namespace, expected)?;
    next_round(agent)?;
    let here: BTreeSet<String> = files_of(node, namespace)?.into_iter().collect();
    let expected: BTreeSet<String> = expected.iter().cloned().collect();
    ensure!(here == expected, "two rounds later here: {here:?}, expected: {expected:?}");
    Ok(())
}

pub(crate) fn store(node: Node<'_>) -> anyhow::Result<Value> {
    cluster().get(&format!("/apis/checkpoint-keeper.io/v1alpha1/nodecheckpointstores/{}", node.name()))
}

/// As many copies of an archive, each under the name of a later year, moved into place whole. Their contents
/// are as old as the original's, and equal times go by the file's name.
pub(crate) fn copies(node: Node<'_>, file: &str, count: usize) -> anyhow::Result<Vec<String>> {
    // The year stands right before `-MM-DDT`; anything else in the name may look like one.
    let year = file.rfind('T').and_then(|time| time.checked_sub("2026-11-25".len()));
    let year = year.context("the name has no time")?;
    let (before, rest) = (&file[..year], &file[year + "2026".len()..]);
    let names: Vec<String> = (0..count).map(|number| format!("{before}2{:03}{rest}", 100 + number)).collect();
    for name in &names {
        let script = format!("cd {} && cp -p '{file}' '.{name}' && mv '.{name}' '{name}'", node.directory());
        node.run("sh", &["-ec", &script])?;
    }
    Ok(names)
}

/// An object that is gone when this is dropped: what is the cluster's is everybody's.
pub(crate) struct Applied {
    path: String,
}

impl Applied {
    /// Applies a storage policy.
    pub(crate) fn storage_policy(name: &str, spec: &Value) -> anyhow::Result<Self> {
        let object = json!({
            "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointStoragePolicy",
            "metadata": {"name": name}, "spec": spec,
        });
        Self::new("/apis/checkpoint-keeper.io/v1alpha1/checkpointstoragepolicies", &object)
    }

    /// Applies the object, which lies below this path in the API.
    pub(crate) fn new(below: &str, object: &Value) -> anyhow::Result<Self> {
        let name = object["metadata"]["name"].as_str().context("the object has no name")?;
        cluster().apply(&object.to_string())?;
        Ok(Self { path: format!("{below}/{name}") })
    }
}

impl Drop for Applied {
    fn drop(&mut self) {
        if let Err(error) = cluster().request("DELETE", &self.path) {
            eprintln!("{} could not be deleted: {error:#}", self.path);
        }
    }
}

/// The same on every node at once, so that both runtimes are seen in the time of one.
pub(crate) fn thread_per_node(
    test: impl Fn(Node<'static>) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let test = &test;
        let start = |node: Node<'static>| {
            (node, scope.spawn(move || test(node).with_context(|| format!("on {}", node.name()))))
        };
        let threads: Vec<_> = cluster().nodes().into_iter().map(start).collect();
        let outcomes = threads.into_iter().map(|(node, thread)| {
            thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the test panicked on {}", node.name())))
        });
        outcomes.collect::<Vec<_>>().into_iter().collect()
    })
}

/// Waits until the agent has looked at everything once more.
pub(crate) fn next_round(agent: &Agent<'_>) -> anyhow::Result<()> {
    // One that was just started may not show its figures yet.
    let begin = wait::for_value("the agent's figures", DEADLINE, || agent.metric("plans_total").map(Some))?;
    wait::until("the agent's next rounds", DEADLINE, || Ok(agent.metric("plans_total")? >= begin + 2.0))
}

/// An agent that runs on a node as a program, with the rights that it would have in its pod there.
pub(crate) struct Agent<'a> {
    node: Node<'a>,
    process: Child,
    said: PathBuf,
    _files: tempfile::TempDir,
}

impl<'a> Agent<'a> {
    /// Starts one, and waits until it knows the policies.
    pub(crate) fn start(node: Node<'a>) -> anyhow::Result<Self> {
        let agent = Self::spawn(node)?;
        wait::until(
            "the agent to know the policies",
            DEADLINE,
            || Ok(agent.metric("policies_known")? > 0.0),
        )?;
        Ok(agent)
    }

    /// Starts one in the kubelet's directory.
    pub(crate) fn spawn(node: Node<'a>) -> anyhow::Result<Self> {
        Self::spawn_in(node, node.directory())
    }

    /// Starts one.
    pub(crate) fn spawn_in(node: Node<'a>, directory: &str) -> anyhow::Result<Self> {
        Self::run(node, node.command(keeper())?, directory, &install::kubelet_arguments(node))
    }

    /// Starts one that knows the kubelet by these arguments.
    pub(crate) fn spawn_by_kubelet(node: Node<'a>, arguments: &[String]) -> anyhow::Result<Self> {
        Self::run(node, node.command(keeper())?, node.directory(), arguments)
    }

    /// Starts one that takes the machine for having been up for so much longer, which its wall clock does not show.
    pub(crate) fn spawn_by_uptime(node: Node<'a>, later: Duration) -> anyhow::Result<Self> {
        let mut command = node.command("unshare")?;
        command.args(["--time", "--boottime", &later.as_secs().to_string(), keeper()]);
        Self::run(node, command, node.directory(), &install::kubelet_arguments(node))
    }

    /// Starts one that goes by a clock that can be set.
    pub(crate) fn spawn_by_clock(node: Node<'a>, offset: &str) -> anyhow::Result<Self> {
        node.set_clock(offset)?;
        let command = node.command_by_set_clock(keeper())?;
        Self::run(node, command, node.directory(), &install::kubelet_arguments(node))
    }

    fn run(
        node: Node<'a>,
        mut command: Command,
        directory: &str,
        kubelet: &[String],
    ) -> anyhow::Result<Self> {
        let files = tempfile::tempdir()?;
        let said = files.path().join("said");
        let kubeconfig = install::agent_kubeconfig(node);
        command.args(["agent", "--node-name", node.name(), "--namespace", "checkpoint-keeper"]);
        command.args(["--kubeconfig", &kubeconfig, "--directory", directory, "--interval", "2s"]);
        command.args(["--status-interval", "1s"]);
        command.args(kubelet);
        command.args(["--state", CATALOG, "--listen", "0.0.0.0:9464"]);
        let out = std::fs::File::create(&said)?;
        let process = command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).spawn()?;
        Ok(Self { node, process, said, _files: files })
    }

    /// Whether it is ready; the error says what it lacks.
    pub(crate) fn ready(&self) -> anyhow::Result<()> {
        let answer = self.page("readyz")?;
        ensure!(answer.trim() == "ok", "not ready: {answer}");
        Ok(())
    }

    /// One of its metrics, by the name after the prefix.
    pub(crate) fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let page = self.page("metrics")?;
        let wanted = format!("checkpoint_keeper_{name} ");
        let line = page.lines().find_map(|line| line.strip_prefix(&wanted));
        Ok(line.with_context(|| format!("no metric {name}: {page}"))?.trim().parse()?)
    }

    /// A page of its port.
    pub(crate) fn page(&self, name: &str) -> anyhow::Result<String> {
        self.node.run("curl", &["--silent", "--max-time", "5", &format!("http://127.0.0.1:9464/{name}")])
    }

    /// Kills it, as a crash would.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.signal("-KILL")?;
        self.process.wait()?;
        Ok(())
    }

    /// Stops it as a node does, and gives the audit lines that it wrote.
    pub(crate) fn stop(mut self) -> anyhow::Result<Vec<Value>> {
        self.signal("-TERM")?;
        let status = self.process.wait()?;
        let said = std::fs::read_to_string(&self.said)?;
        ensure!(status.success(), "the agent ended with {status}: {said}");
        Ok(said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Waits until it ends by itself; its exit code, and what it said.
    pub(crate) fn end(mut self) -> anyhow::Result<(Option<i32>, String)> {
        let status = wait::for_value("the agent to end", DEADLINE, || Ok(self.process.try_wait()?))?;
        Ok((status.code(), std::fs::read_to_string(&self.said)?))
    }

    fn signal(&self, signal: &str) -> anyhow::Result<()> {
        self.node.run("pkill", &[signal, "--full", "checkpoint-keeper agent"]).map(drop)
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            // Tests that succeed stop their agents. Of others, this tells what the agent knew.
            println!("decisions: {}", self.page("metrics").unwrap_or_else(|error| format!("{error:#}")));
            println!("its log: {}", std::fs::read_to_string(&self.said).unwrap_or_default());
            let _ = self.signal("-KILL");
            let _ = self.process.wait();
        }
    }
}

//! A node as tests use it: its kubelet, its checkpoint directory, its programs.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde_json::Value;

use crate::client::agent;
use crate::cluster::Cluster;
use crate::lifecycle::NodeDescription;
use crate::machine::CHECKPOINTS;
use crate::process::output;
use crate::runtime::Runtime;
use crate::wait;

/// How long the kubelet may take for a checkpoint.
const CHECKPOINT: Duration = Duration::from_mins(2);

/// Debian's library that shows another time to the program it is loaded into.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// What it shows, where that may change while the program runs.
const CLOCK: &str = "/run/clock";

/// A node of a running cluster.
#[derive(Debug, Clone, Copy)]
pub struct Node<'a> {
    cluster: &'a Cluster,
    description: &'a NodeDescription,
    kubelet_port: u16,
}

/// What the kubelet answered to a request for a checkpoint.
#[derive(Debug, Clone)]
pub struct Checkpoint {
    /// The HTTP status.
    pub status: u16,
    /// The answer's body.
    pub body: String,
}

impl Checkpoint {
    /// The archive's file name, if one was made.
    pub fn file(&self) -> anyhow::Result<String> {
        ensure!(self.status == 200, "no checkpoint: {} {}", self.status, self.body);
        let answer: Value = serde_json::from_str(&self.body)?;
        let path = answer["items"][0].as_str().context("the kubelet named no archive")?;
        Ok(path.rsplit('/').next().unwrap_or(path).to_owned())
    }
}

/// A container that runs on a node.
#[derive(Debug, Clone)]
pub struct RunningContainer {
    /// Its name in the pod.
    pub name: String,
    /// Its ID at the runtime.
    pub id: String,
}

impl<'a> Node<'a> {
    pub(crate) fn new(cluster: &'a Cluster, description: &'a NodeDescription, kubelet_port: u16) -> Self {
        Self { cluster, description, kubelet_port }
    }

    /// Its address, at which its kubelet is reached.
    pub fn address(&self) -> String {
        self.description.ip()
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        &self.description.name
    }

    /// `runc` or `crun`.
    pub fn oci_runtime(&self) -> &'a str {
        &self.description.oci_runtime
    }

    /// Its container runtime.
    pub fn runtime(&self) -> Runtime {
        self.cluster.description().runtime
    }

    /// Waits until the node is Ready by a heartbeat after `since`: the API may remember an older one.
    pub fn wait_until_ready(&self, since: Timestamp, limit: Duration) -> anyhow::Result<()> {
        let path = format!("/api/v1/nodes/{}", self.name());
        wait::until(&format!("{} to be Ready", self.name()), limit, || {
            let node = self.cluster.get(&path)?;
            let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
            let ready = ready.context("the node has no condition Ready yet")?;
            let heartbeat: Timestamp =
                ready["lastHeartbeatTime"].as_str().context("there is no heartbeat")?.parse()?;
            Ok(ready["status"] == "True" && heartbeat >= since)
        })
    }

    /// Asks the kubelet for a checkpoint.
    pub fn checkpoint(&self, namespace: &str, pod: &str, container: &str) -> anyhow::Result<Checkpoint> {
        let (port, path) = (self.kubelet_port, format!("{namespace}/{pod}/{container}"));
        let agent = agent(self.cluster.state(), "apiserver-kubelet", CHECKPOINT)?;
        let answer = agent.post(format!("https://127.0.0.1:{port}/checkpoint/{path}")).send_empty();
        let mut answer = answer.with_context(|| format!("checkpoint of {path}"))?;
        Ok(Checkpoint { status: answer.status().as_u16(), body: answer.body_mut().read_to_string()? })
    }

    /// Its checkpoint directory, as this process reaches it.
    pub fn checkpoints(&self) -> PathBuf {
        let keeper = self.cluster.keeper().process.pid;
        let path = self.cluster.state().machine(self.name()).join("checkpoints");
        let path = path.strip_prefix("/").map(ToOwned::to_owned).unwrap_or(path);
        PathBuf::from(format!("/proc/{keeper}/root")).join(path)
    }

    /// The names of what lies in its checkpoint directory.
    pub fn files(&self) -> anyhow::Result<Vec<String>> {
        let entries = std::fs::read_dir(self.checkpoints()).context("cannot list the checkpoints")?;
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    /// A program to be run on the node.
    pub fn command(&self, program: &str) -> anyhow::Result<Command> {
        self.cluster.command(self.name(), program)
    }

    /// Runs a program on the node to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        output(self.command(program)?.args(arguments))
    }

    /// The same, for a program that is linked dynamically: by a clock that is off by this much
    /// (`+1h`, `-30d`). The node's own clock is the host's, and that is nobody's to move.
    pub fn command_by_clock(&self, program: &str, offset: &str) -> anyhow::Result<Command> {
        self.command_by(program, &[&format!("FAKETIME={offset}")])
    }

    /// The same, by the clock that [`Self::set_clock`] sets.
    pub fn command_by_set_clock(&self, program: &str) -> anyhow::Result<Command> {
        self.command_by(program, &[&format!("FAKETIME_TIMESTAMP_FILE={CLOCK}"), "FAKETIME_NO_CACHE=1"])
    }

    fn command_by(&self, program: &str, clock: &[&str]) -> anyhow::Result<Command> {
        let mut command = self.command("env")?;
        command.arg(format!("LD_PRELOAD={FAKETIME}")).args(clock);
        // Only what the clock says: time goes on as it does.
        command.arg("FAKETIME_DONT_FAKE_MONOTONIC=1").arg(program);
        Ok(command)
    }

    /// Has the clock of programs that go by it be off by this much from now on (`+1h`, `-30d`).
    pub fn set_clock(&self, offset: &str) -> anyhow::Result<()> {
        // In one step: nobody reads half of it.
        let script = "echo \"$1\" > \"$2.new\" && mv \"$2.new\" \"$2\"";
        self.run("/bin/sh", &["-ec", script, "sh", offset, CLOCK]).map(drop)
    }

    /// A running container's root file system, as the node sees it.
    pub fn root_of(&self, container: &RunningContainer) -> anyhow::Result<String> {
        let name = self.runtime().cgroup(&container.id);
        let script = "cat $(find /sys/fs/cgroup/freezer -type d -name \"$1\")/cgroup.procs";
        let processes = self.run("/bin/sh", &["-ec", script, "sh", &name])?;
        let first = processes.lines().next().context("no process of the container runs")?;
        Ok(format!("/proc/{first}/root"))
    }

    /// Where the kubelet writes checkpoints, as the node sees it.
    pub fn directory(&self) -> &'static str {
        CHECKPOINTS
    }

    /// The containers of a pod that run now, of every kind.
    pub fn containers(&self, namespace: &str, pod: &str) -> anyhow::Result<Vec<RunningContainer>> {
        let object = self.cluster.get(&format!("/api/v1/namespaces/{namespace}/pods/{pod}"))?;
        let kinds = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
        let statuses = kinds.iter().filter_map(|kind| object["status"][kind].as_array()).flatten();
        let running = statuses.filter(|status| status["state"]["running"].is_object());
        running
            .map(|status| {
                let id = status["containerID"].as_str().and_then(|id| id.split_once("://"));
                let name = status["name"].as_str().context("a container has no name")?;
                Ok(RunningContainer {
                    name: name.to_owned(),
                    id: id.context("a container has no ID")?.1.to_owned(),
                })
            })
            .collect()
    }
}

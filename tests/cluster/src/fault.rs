//! What can be broken on purpose, and mended again.

use std::fmt;
use std::process::Command;

use anyhow::Context;
use clap::{Subcommand, ValueEnum};

use crate::cgroups::Cgroups;
use crate::cluster::Cluster;
use crate::machine::{CHECKPOINTS, CONTROL_PLANE, RUN};
use crate::network;
use crate::paths::read_json;
use crate::process::output;
use crate::recovery::Recovery;

/// A daemon of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "kebab-case")]
pub enum Daemon {
    /// The cluster's store, on the control plane
    Etcd,
    /// The API server, on the control plane
    KubeApiserver,
    /// On the control plane
    KubeControllerManager,
    /// On the control plane
    KubeScheduler,
    /// On every machine
    KubeProxy,
    /// On every node
    Kubelet,
    /// On every node that has it
    Containerd,
    /// On every node that has it
    Crio,
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().as_ref().map_or("", |value| value.get_name()))
    }
}

/// A fault that lasts until it is undone.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Fault {
    /// A daemon is killed, and stays down
    Down {
        /// Where
        machine: String,
        /// Which
        daemon: Daemon,
    },
    /// A daemon hangs (SIGSTOP): connections stay open, nobody answers
    Hung {
        /// Where
        machine: String,
        /// Which
        daemon: Daemon,
    },
    /// A machine is powered off; its disks stay
    Off {
        /// Which
        machine: String,
    },
    /// A node's network cable is pulled
    Cut {
        /// Which node
        node: String,
    },
    /// The pods of a node cannot reach the API server; its kubelet can
    Blocked {
        /// Which node
        node: String,
    },
    /// The disk for checkpoints has only so much room left
    DiskFull {
        /// Which node
        node: String,
        /// How much is still free, in KiB
        free_kib: u64,
    },
    /// The disk for checkpoints is read-only
    ReadOnly {
        /// Which node
        node: String,
    },
    /// A container is frozen
    Frozen {
        /// Which node
        node: String,
        /// The container's ID at the runtime
        container: String,
    },
    /// CRIU takes this much longer to start
    SlowCriu {
        /// Which node
        node: String,
        /// How much longer
        seconds: u32,
    },
}

/// The size of the disk for checkpoints while nothing is broken.
const DISK: &str = "2g";

/// Found before Debian's own CRIU, by the machines' program path.
const SLOW_CRIU: &str = "/usr/local/sbin/criu";

impl Fault {
    /// Breaks it.
    pub fn inject(&self, cluster: &Cluster) -> anyhow::Result<()> {
        match self {
            Self::Down { machine, daemon } => {
                shell(cluster, machine, &format!("touch {RUN}/{daemon}.hold"))?;
                kill(cluster, machine, *daemon)
            }
            Self::Hung { machine, daemon } => signal(cluster, machine, *daemon, "STOP"),
            Self::Off { machine } => cluster.keeper().power_off(machine),
            Self::Cut { node } => network::set_cable(cluster.machine(CONTROL_PLANE)?, node, false),
            Self::Blocked { node } => block(cluster, node, "-I"),
            Self::DiskFull { node, free_kib } => {
                let used = format!("$(df --block-size=1K --output=used {CHECKPOINTS} | tail -n 1)");
                let size = format!("size=$(({used} + {free_kib}))k");
                shell(cluster, node, &format!("mount -o remount,{size} {CHECKPOINTS}"))
            }
            Self::ReadOnly { node } => remount(cluster, node, "ro"),
            Self::Frozen { node, container } => freeze(cluster, node, container, "FROZEN"),
            Self::SlowCriu { node, seconds } => {
                let wrapper = format!("printf '#!/bin/sh\\nsleep {seconds}\\nexec /usr/sbin/criu \"$@\"\\n'");
                shell(cluster, node, &format!("{wrapper} >{SLOW_CRIU} && chmod 755 {SLOW_CRIU}"))
            }
        }
    }

    /// Mends it.
    pub fn undo(&self, cluster: &Cluster) -> anyhow::Result<()> {
        match self {
            Self::Down { machine, daemon } => shell(cluster, machine, &format!("rm -f {RUN}/{daemon}.hold")),
            Self::Hung { machine, daemon } => signal(cluster, machine, *daemon, "CONT"),
            Self::Off { machine } => cluster.keeper().boot(machine),
            Self::Cut { node } => network::set_cable(cluster.machine(CONTROL_PLANE)?, node, true),
            Self::Blocked { node } => block(cluster, node, "-D"),
            Self::DiskFull { node, .. } => {
                shell(cluster, node, &format!("mount -o remount,size={DISK} {CHECKPOINTS}"))
            }
            Self::ReadOnly { node } => remount(cluster, node, "rw"),
            Self::Frozen { node, container } => freeze(cluster, node, container, "THAWED"),
            Self::SlowCriu { node, .. } => shell(cluster, node, &format!("rm -f {SLOW_CRIU}")),
        }
    }

    /// Whether others have to recover from it once it is mended: those that watch the API.
    fn takes_the_api_away(&self) -> bool {
        match self {
            Self::Down { daemon, .. } | Self::Hung { daemon, .. } => daemon.serves_the_api(),
            Self::Off { machine } => machine == CONTROL_PLANE,
            _ => false,
        }
    }
}

impl Daemon {
    fn serves_the_api(self) -> bool {
        matches!(self, Self::Etcd | Self::KubeApiserver)
    }
}

impl Cluster {
    /// Kills a daemon; it is back half a second later. What watches it is waited for when the answer is dropped.
    pub fn kill(&self, machine: &str, daemon: Daemon) -> anyhow::Result<Recovery<'_>> {
        kill(self, machine, daemon)?;
        Ok(Recovery::new(self, daemon.serves_the_api()))
    }
}

/// Kills a daemon and waits until its process is gone.
fn kill(cluster: &Cluster, machine: &str, daemon: Daemon) -> anyhow::Result<()> {
    let gone = "while kill -0 $pid 2>/dev/null; do sleep 0.02; done";
    shell(cluster, machine, &format!("pid=$(cat {RUN}/{daemon}.pid); kill -KILL $pid; {gone}"))
}

/// Has a daemon begin anew, unless it is down on purpose.
pub(crate) fn start_anew(cluster: &Cluster, machine: &str, daemon: Daemon) -> anyhow::Result<()> {
    let script = format!("[ -e {RUN}/{daemon}.hold ] || kill -KILL $(cat {RUN}/{daemon}.pid) || true");
    shell(cluster, machine, &script)
}

fn shell(cluster: &Cluster, machine: &str, script: &str) -> anyhow::Result<()> {
    output(cluster.command(machine, "/bin/sh")?.args(["-ec", script])).map(drop)
}

fn signal(cluster: &Cluster, machine: &str, daemon: Daemon, signal: &str) -> anyhow::Result<()> {
    shell(cluster, machine, &format!("kill -{signal} $(cat {RUN}/{daemon}.pid)"))
}

fn block(cluster: &Cluster, node: &str, change: &str) -> anyhow::Result<()> {
    shell(cluster, node, &format!("iptables --wait {change} FORWARD -p tcp --dport 6443 -j DROP"))
}

/// The file system itself, wherever it is mounted: running pods see it as well.
fn remount(cluster: &Cluster, node: &str, how: &str) -> anyhow::Result<()> {
    let keeper = cluster.keeper().process.pid.to_string();
    let disk = cluster.state().machine(node).join("checkpoints");
    let mut command = Command::new("nsenter");
    command.args(["--target", &keeper, "--mount", "--", "mount", "-o", &format!("remount,{how}")]);
    output(command.arg(disk)).map(drop)
}

fn freeze(cluster: &Cluster, node: &str, container: &str, state: &str) -> anyhow::Result<()> {
    let parents: Vec<std::path::PathBuf> = read_json(&cluster.state().root().join(crate::keeper::CGROUPS))?;
    let name = cluster.description().runtime.cgroup(container);
    let folder = Cgroups::of(&parents, node).find_freezer(&name);
    let folder = folder.with_context(|| format!("{node} runs no container {container}"))?;
    std::fs::write(folder.join("freezer.state"), state)
        .with_context(|| format!("cannot write {}", folder.display()))
}

/// A fault that is mended when this is dropped. One that took the API away is over when the whole control plane works
/// again ([`Cluster::wait_until_whole`]).
#[derive(Debug)]
pub struct Injected<'a> {
    cluster: &'a Cluster,
    fault: Fault,
    is_mended: bool,
}

impl<'a> Injected<'a> {
    pub(crate) fn new(cluster: &'a Cluster, fault: Fault) -> Self {
        Self { cluster, fault, is_mended: false }
    }

    /// Mends it now, for a test that is about the first moments after it.
    pub fn mend(mut self) -> anyhow::Result<Recovery<'a>> {
        self.undo()
    }

    fn undo(&mut self) -> anyhow::Result<Recovery<'a>> {
        self.fault.undo(self.cluster)?;
        self.is_mended = true;
        Ok(Recovery::new(self.cluster, self.fault.takes_the_api_away()))
    }
}

impl Drop for Injected<'_> {
    fn drop(&mut self) {
        if self.is_mended {
            return;
        }
        match self.undo() {
            Ok(recovery) => drop(recovery),
            Err(error) => eprintln!("{:?} could not be undone: {error:#}", self.fault),
        }
    }
}

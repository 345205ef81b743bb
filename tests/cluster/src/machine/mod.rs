//! What runs inside a machine as its first process: it assembles the machine's root file system,
//! waits for the cable, starts the daemons and keeps them running.
//!
//! The daemons' command lines and configurations are in `control_plane`, `worker`, `containerd` and `crio`.

mod containerd;
mod control_plane;
mod crio;
mod root;
mod supervisor;
mod worker;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::lifecycle::{Description, NodeDescription};
use crate::paths;
use crate::wait;
pub use root::PROGRAM_PATH;
use supervisor::Supervisor;

/// The certificates, inside.
pub const PKI: &str = "/cluster/pki";
/// The machine's own folder, inside.
pub const MACHINE: &str = "/cluster/machine";
/// The images to import, inside.
pub const IMAGES: &str = "/cluster/images";
/// What all machines and the host share, inside.
pub const SHARED: &str = "/cluster/shared";
/// Where the kubelet writes checkpoints.
pub const CHECKPOINTS: &str = "/var/lib/kubelet/checkpoints";
/// Where daemons' process numbers and hold files lie, inside.
pub const RUN: &str = "/run/cluster";

/// The name of the control plane's machine.
pub const CONTROL_PLANE: &str = "control-plane";

/// The API server's record of what service accounts asked for, among the control plane's logs.
pub(crate) const AUDIT_LOG: &str = "audit.log";

/// The files by which a machine and the keeper tell each other how far they are.
pub const BOOTED: &str = "booted";
/// See [`BOOTED`].
pub const PLUGGED: &str = "plugged";

/// What a machine is told about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// The cluster's folder on the host.
    pub state: PathBuf,
    /// The Debian tree.
    pub debian: PathBuf,
    /// Kubernetes' programs.
    pub kubernetes: PathBuf,
    /// CRI-O's programs, if nodes have it.
    pub crio: Option<PathBuf>,
    /// The cluster that it is part of.
    pub cluster: Description,
}

impl Spec {
    /// What it is as a node; none for the control plane.
    pub fn node(&self) -> Option<&NodeDescription> {
        self.cluster.nodes.iter().find(|node| node.name == self.name)
    }
}

/// Runs as PID 1 until the machine is powered off.
pub fn run(spec: &Path) -> anyhow::Result<()> {
    ensure!(std::process::id() == 1, "only the first process of a machine does this");
    let spec: Spec = paths::read_json(spec)?;
    root::assemble(&spec).context("cannot assemble the root file system")?;
    std::fs::create_dir_all(RUN)?;
    let supervisor = Supervisor::start();
    supervisor.run("ip", &["link", "set", "lo", "up"])?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot switch forwarding on")?;
    if spec.node().is_none() {
        for arguments in [
            &["link", "add", "nodes", "type", "bridge"][..],
            &["address", "add", "10.77.0.1/24", "dev", "nodes"],
            &["link", "set", "nodes", "up"],
            &["route", "add", "default", "dev", "nodes"],
        ] {
            supervisor.run("ip", arguments)?;
        }
    }
    let machine = Path::new(MACHINE);
    std::fs::write(machine.join(BOOTED), "")?;
    wait::until("the cable", wait::SOON, || Ok(machine.join(PLUGGED).exists()))?;
    match spec.node() {
        None => control_plane::start(&supervisor, &spec.cluster),
        Some(node) => worker::start(&supervisor, node, spec.cluster.runtime)?,
    }
    loop {
        std::thread::sleep(Duration::from_hours(1));
    }
}

/// kube-proxy, which every machine runs: Services work as in production, webhooks too.
fn kube_proxy(supervisor: &Supervisor, machine: &str) -> anyhow::Result<()> {
    let file = format!("{RUN}/kube-proxy.yaml");
    std::fs::write(
        &file,
        format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
hostnameOverride: {machine}
clientConnection: {{kubeconfig: {PKI}/kube-proxy.kubeconfig}}
# The limits are the host's, and the host's they stay.
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
clusterCIDR: 10.88.0.0/16
iptables: {{minSyncPeriod: 0s, syncPeriod: 10s}}
"
        ),
    )?;
    supervisor.keep("kube-proxy", daemon("kube-proxy", &[format!("--config={file}")]));
    Ok(())
}

/// How a daemon is started, again and again.
fn daemon(program: &str, arguments: &[String]) -> impl Fn() -> Command + Send + 'static {
    let (program, arguments) = (program.to_owned(), arguments.to_vec());
    move || {
        let mut command = Command::new(&program);
        command.args(&arguments);
        command
    }
}

//! The cables: a bridge in the control plane, and a pair of interfaces from each node to it.

use std::process::Command;

use anyhow::Context;

use crate::lifecycle::{Description, NodeDescription};
use crate::process::{Process, find_program, output};

/// Runs `ip` in a machine's network.
fn ip(machine: Process, arguments: &str) -> anyhow::Result<()> {
    let pid = machine.pid.to_string();
    // The host's program and the host's /proc: it has to find other machines by their processes.
    let ip = find_program("ip").context("this machine has no ip")?;
    let mut command = Command::new("nsenter");
    command.args(["--target", &pid, "--net", "--"]).arg(ip);
    output(command.args(arguments.split_whitespace())).map(drop)
}

/// Tells the control plane the way to every node's pods.
pub(crate) fn route_to_all(machine: Process, cluster: &Description) -> anyhow::Result<()> {
    cluster.nodes.iter().try_for_each(|node| route(machine, node))
}

/// Plugs a node in.
pub(crate) fn plug(
    control_plane: Process,
    machine: Process,
    node: &NodeDescription,
    cluster: &Description,
) -> anyhow::Result<()> {
    let (name, address) = (&node.name, node.ip());
    // After a reboot the old cable may hang there still.
    let _ = ip(control_plane, &format!("link delete {name}"));
    ip(control_plane, &format!("link add {name} type veth peer name eth0 netns {}", machine.pid))?;
    ip(control_plane, &format!("link set {name} master nodes up"))?;
    ip(machine, &format!("address add {address}/24 dev eth0"))?;
    ip(machine, "link set eth0 up")?;
    ip(machine, "route add default via 10.77.0.1")?;
    cluster.nodes.iter().filter(|other| other.name != node.name).try_for_each(|other| route(machine, other))
}

/// Pulls a node's cable, or puts it back.
pub(crate) fn set_cable(control_plane: Process, node: &str, connected: bool) -> anyhow::Result<()> {
    ip(control_plane, &format!("link set {node} {}", if connected { "up" } else { "down" }))
}

fn route(machine: Process, to: &NodeDescription) -> anyhow::Result<()> {
    ip(machine, &format!("route replace {} via {}", to.pod_network(), to.ip()))
}

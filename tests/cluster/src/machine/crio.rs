//! CRI-O on a node.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::supervisor::Supervisor;
use super::worker::import_images;
use super::{RUN, daemon};
use crate::lifecycle::{BUSYBOX, NodeDescription};
use crate::runtime::{Runtime, STORAGE, STORAGE_RUN};
use crate::wait;

const OCI_RUNTIMES: [&str; 2] = ["runc", "crun"];

/// Imports the images that are there, which takes no daemon, and starts it.
pub(super) fn start(supervisor: &Supervisor, node: &NodeDescription) -> anyhow::Result<()> {
    import_images(supervisor, Runtime::CriO)?;
    for name in OCI_RUNTIMES {
        write_wrapper(name)?;
    }
    let file = format!("{RUN}/crio.toml");
    fs::write(&file, configuration(node))?;
    let arguments = ["--config", &file, "--config-dir", ""].map(str::to_owned);
    supervisor.keep("crio", daemon("crio", &arguments));
    let socket = Path::new(Runtime::CriO.socket());
    wait::until("CRI-O's socket", wait::SOON, || Ok(socket.exists()))
}

/// Where the OCI runtimes are as CRI-O finds them.
const WRAPPERS: &str = "/run/cluster/oci";

/// An OCI runtime that lowers no container's score for the kernel's hunt for memory: that takes
/// `CAP_SYS_RESOURCE`, which not every root has, and CRI-O cannot be told to leave it.
fn write_wrapper(name: &str) -> anyhow::Result<()> {
    fs::create_dir_all(WRAPPERS)?;
    let file = Path::new(WRAPPERS).join(name);
    let script = format!(
        r#"#!/bin/sh
own=$(cat /proc/self/oom_score_adj)
for word in "$@"; do
  [ "$before" != --bundle ] || sed -i "s/\"oomScoreAdj\": *-[0-9]*/\"oomScoreAdj\":$own/" "$word/config.json"
  before=$word
done
exec {name} "$@"
"#
    );
    fs::write(&file, script)?;
    Ok(fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?)
}

/// What is not said here is CRI-O's own.
fn configuration(node: &NodeDescription) -> String {
    let socket = Runtime::CriO.socket();
    let mut text = format!(
        "[crio]
root = '{STORAGE}'
runroot = '{STORAGE_RUN}'
storage_driver = 'overlay'
# Gone with the machine's memory, whereby CRI-O knows that it was rebooted and forgets its containers.
version_file = '/run/crio/version'
# Images are there before it is started, and nothing has to reach a disk.
version_file_persist = ''
clean_shutdown_file = ''
[crio.api]
listen = '{socket}'
[crio.runtime]
default_runtime = '{}'
cgroup_manager = 'cgroupfs'
conmon_cgroup = 'pod'
drop_infra_ctr = true
enable_criu_support = true
# The limits are the host's.
default_ulimits = []
apparmor_profile = ''
selinux = false
namespaces_dir = '/run/crio/namespaces'
[crio.image]
pause_image = '{BUSYBOX}'
pause_command = ''
[crio.network]
network_dir = '/etc/cni/net.d'
plugin_dirs = ['/usr/lib/cni']
",
        node.oci_runtime
    );
    for name in OCI_RUNTIMES {
        let _ = write!(
            text,
            "[crio.runtime.runtimes.{name}]
runtime_path = '{WRAPPERS}/{name}'
runtime_type = 'oci'
runtime_root = '/run/{name}'
monitor_path = '/usr/bin/conmon'
monitor_cgroup = 'pod'
"
        );
    }
    text
}

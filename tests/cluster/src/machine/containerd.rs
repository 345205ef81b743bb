//! containerd on a node.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::supervisor::Supervisor;
use super::worker::import_images;
use super::{RUN, daemon};
use crate::lifecycle::{BUSYBOX, NodeDescription};
use crate::runtime::Runtime;
use crate::wait;

/// Starts it, and has it import the images that are there.
pub(super) fn start(supervisor: &Supervisor, node: &NodeDescription) -> anyhow::Result<()> {
    let file = format!("{RUN}/containerd.toml");
    fs::write(&file, configuration(node))?;
    supervisor.keep("containerd", daemon("containerd", &["--config".to_owned(), file]));
    let socket = Path::new(Runtime::Containerd.socket());
    wait::until("containerd's socket", wait::SOON, || Ok(socket.exists()))?;
    import_images(supervisor, Runtime::Containerd)
}

fn configuration(node: &NodeDescription) -> String {
    let socket = Runtime::Containerd.socket();
    let runtime = "plugins.'io.containerd.cri.v1.runtime'";
    let mut text = format!(
        "version = 3
[grpc]
  address = '{socket}'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{BUSYBOX}'
[{runtime}]
  # Lowering a score takes CAP_SYS_RESOURCE, which not every root has.
  restrict_oom_score_adj = true
[{runtime}.cni]
  bin_dirs = ['/usr/lib/cni']
  conf_dir = '/etc/cni/net.d'
[{runtime}.containerd]
  default_runtime_name = '{}'
",
        node.oci_runtime
    );
    for name in ["runc", "crun"] {
        let table = format!("{runtime}.containerd.runtimes.{name}");
        let _ = write!(
            text,
            "[{table}]
  runtime_type = 'io.containerd.runc.v2'
[{table}.options]
  BinaryName = '{name}'
  SystemdCgroup = false
"
        );
    }
    text
}

//! The daemons of a node: containerd and the kubelet.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;

use super::supervisor::Supervisor;
use super::{IMAGES, PKI, RUN, daemon, kube_proxy};
use crate::lifecycle::{BUSYBOX, NodeDescription};
use crate::pki::API_SERVER;
use crate::wait;

const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// Starts them, and imports the images that are there.
pub(super) fn start(supervisor: &Supervisor, node: &NodeDescription) -> anyhow::Result<()> {
    kube_proxy(supervisor, &node.name)?;
    configure_network(node)?;
    let containerd = format!("{RUN}/containerd.toml");
    fs::write(&containerd, containerd_configuration(node))?;
    supervisor.keep("containerd", daemon("containerd", &["--config".to_owned(), containerd]));
    wait::until("containerd's socket", wait::SOON, || Ok(Path::new(CONTAINERD_SOCKET).exists()))?;
    let mut images: Vec<_> = fs::read_dir(IMAGES)?.flatten().map(|entry| entry.path()).collect();
    images.sort();
    for image in images.iter().filter(|path| path.extension().is_some_and(|extension| extension == "tar")) {
        let path = image.to_string_lossy();
        // The socket is there before those who answer.
        wait::until("an image to be imported", wait::SOON, || {
            supervisor.run("ctr", &["--namespace=k8s.io", "images", "import", &path]).map(|()| true)
        })?;
    }
    let kubelet = format!("{RUN}/kubelet.yaml");
    fs::write(&kubelet, kubelet_configuration(node))?;
    fs::create_dir_all("/var/lib/kubelet/static")?;
    // A kubelet that meets no API server at its start backs off for seconds.
    let ready = format!("{API_SERVER}/readyz");
    let certificate = format!("{PKI}/ca.crt");
    let ask =
        ["--silent", "--fail", "--max-time", "2", "--output", "/dev/null", "--cacert", &certificate, &ready];
    let _ = wait::until("the API server", Duration::from_secs(10), || {
        supervisor.run("curl", &ask).map(|()| true)
    });
    let flags = [
        format!("--config={kubelet}"),
        format!("--kubeconfig={PKI}/kubelet-{}.kubeconfig", node.name),
        format!("--hostname-override={}", node.name),
        format!("--node-ip={}", node.ip()),
        "--root-dir=/var/lib/kubelet".to_owned(),
        "--v=2".to_owned(),
    ];
    supervisor.keep("kubelet", daemon("kubelet", &flags));
    Ok(())
}

fn configure_network(node: &NodeDescription) -> anyhow::Result<()> {
    fs::create_dir_all("/etc/cni/net.d").context("cannot make /etc/cni/net.d")?;
    let network = serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": node.pod_network()}]],
                "dataDir": "/run/cni-addresses",
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    });
    Ok(fs::write("/etc/cni/net.d/10-pods.conflist", network.to_string())?)
}

fn containerd_configuration(node: &NodeDescription) -> String {
    let runtime = "plugins.'io.containerd.cri.v1.runtime'";
    let mut text = format!(
        "version = 3
[grpc]
  address = '{CONTAINERD_SOCKET}'
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

fn kubelet_configuration(node: &NodeDescription) -> String {
    let name = &node.name;
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 0.0.0.0
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true, cacheTTL: 1s}}
  x509: {{clientCAFile: {PKI}/ca.crt}}
authorization: {{mode: Webhook, webhook: {{cacheAuthorizedTTL: 1s, cacheUnauthorizedTTL: 1s}}}}
tlsCertFile: {PKI}/kubelet-{name}.crt
tlsPrivateKeyFile: {PKI}/kubelet-{name}.key
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
containerRuntimeEndpoint: unix://{CONTAINERD_SOCKET}
resolvConf: /etc/resolv.conf
makeIPTablesUtilChains: false
enforceNodeAllocatable: [pods]
# The disks are small and in memory: tests fill them on purpose.
evictionHard: {{memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%, nodefs.inodesFree: 1%}}
imageGCHighThresholdPercent: 99
imageGCLowThresholdPercent: 98
staticPodPath: /var/lib/kubelet/static
nodeStatusUpdateFrequency: 5s
featureGates: {{ContainerCheckpoint: true}}
"
    )
}

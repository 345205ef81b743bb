//! The daemons of a node: its container runtime and the kubelet.

use std::fs;
use std::time::Duration;

use anyhow::Context;

use super::supervisor::Supervisor;
use super::{IMAGES, PKI, RUN, containerd, crio, daemon, kube_proxy};
use crate::lifecycle::NodeDescription;
use crate::pki::API_SERVER;
use crate::runtime::Runtime;
use crate::wait;

/// Starts them, and imports the images that are there.
pub(super) fn start(supervisor: &Supervisor, node: &NodeDescription, runtime: Runtime) -> anyhow::Result<()> {
    kube_proxy(supervisor, &node.name)?;
    configure_network(node)?;
    match runtime {
        Runtime::Containerd => containerd::start(supervisor, node)?,
        Runtime::CriO => crio::start(supervisor, node)?,
    }
    let kubelet = format!("{RUN}/kubelet.yaml");
    fs::write(&kubelet, kubelet_configuration(node, runtime))?;
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

/// Imports the images that are there.
pub(super) fn import_images(supervisor: &Supervisor, runtime: Runtime) -> anyhow::Result<()> {
    let mut images: Vec<_> = fs::read_dir(IMAGES)?.flatten().map(|entry| entry.path()).collect();
    images.sort();
    for image in images.iter().filter(|path| path.extension().is_some_and(|extension| extension == "tar")) {
        let words = runtime.import(image, &image.to_string_lossy())?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (program, arguments) = words.split_first().context("images are imported by no program")?;
        // A daemon's socket is there before those who answer.
        wait::until("an image to be imported", wait::SOON, || {
            supervisor.run(program, arguments).map(|()| true)
        })?;
    }
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

fn kubelet_configuration(node: &NodeDescription, runtime: Runtime) -> String {
    let (name, socket) = (&node.name, runtime.socket());
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
containerRuntimeEndpoint: unix://{socket}
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

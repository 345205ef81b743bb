//! That the program needs nothing of an image but itself.

use anyhow::ensure;
use checkpoint_keeper_testcluster::wait;

use crate::install::{self, IMAGE};
use crate::support::{DEADLINE, NODES, cluster};

#[test]
fn the_program_runs_alone_in_an_image_on_every_node() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install::image()?;
    let namespace = cluster().namespace("image")?;
    for node in cluster().nodes() {
        // As restricted as an agent is.
        namespace.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  nodeName: {name}
  restartPolicy: Never
  securityContext: {{runAsUser: 0, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
  - name: main
    image: {IMAGE}
    imagePullPolicy: Never
    args: [--version]
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {{drop: [ALL]}}
",
            name = node.name()
        ))?;
        let ended = wait::for_value("the program to end", DEADLINE, || {
            let status = namespace.pod(node.name())?["status"].clone();
            Ok((status["phase"] == "Succeeded" || status["phase"] == "Failed").then_some(status))
        })?;
        ensure!(ended["phase"] == "Succeeded", "{ended}");
        let path = format!("/api/v1/namespaces/{}/pods/{}/log", namespace.name(), node.name());
        let said = cluster().get(&path)?;
        let said = said.as_str().unwrap_or_default();
        ensure!(said.trim_end().starts_with("checkpoint-keeper "), "{said:?}");
    }
    Ok(())
}

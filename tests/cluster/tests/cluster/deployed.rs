//! That the operator runs as `config/deploy` installs it: its image, its pods, its rights and its probes.

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::wait;

use crate::agents::{keep, policy};
use crate::install::{self, NAMESPACE};
use crate::support::{DEADLINE, NODES, REPOSITORY, cluster};

/// What a file of `config/deploy` runs, until it is dropped: other tests want the nodes for themselves.
pub(crate) struct Deployed(String);

impl Deployed {
    pub(crate) fn apply(file: &str) -> anyhow::Result<Self> {
        let file = format!("{REPOSITORY}/config/deploy/{file}");
        output(&mut cluster().kubectl(&["apply", "--validate=strict", "--filename", &file]))?;
        Ok(Self(file))
    }
}

impl Drop for Deployed {
    fn drop(&mut self) {
        let delete = ["delete", "--wait", "--cascade=foreground", "--filename", &self.0];
        let _ = output(&mut cluster().kubectl(&delete));
    }
}

/// What the pods of this component said, for whoever looks into a failure.
fn logs(component: &str) -> String {
    let selector = format!("--selector=app.kubernetes.io/component={component}");
    // With a selector, kubectl shows ten lines unless told otherwise.
    let logs = ["--namespace", NAMESPACE, "logs", "--prefix", "--tail=-1", &selector];
    let said = output(&mut cluster().kubectl(&logs));
    said.unwrap_or_else(|error| format!("{error:#}"))
}

/// Waits until the agents' pods are ready.
pub(crate) fn agents_are_ready() -> anyhow::Result<()> {
    let rollout = ["--namespace", NAMESPACE, "rollout", "status", "daemonset", "--timeout=60s"];
    output(&mut cluster().kubectl(&rollout)).with_context(|| logs("agent")).map(drop)
}

#[test]
fn the_agents_that_are_installed_are_ready_and_report_of_their_nodes() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::rights()?;
    install::image()?;
    for node in cluster().nodes() {
        let path = format!("/apis/checkpoint-keeper.io/v1alpha1/nodecheckpointstores/{}", node.name());
        cluster().request("DELETE", &path)?;
    }
    let _agents = Deployed::apply("5-agent.yaml")?;
    agents_are_ready()?;
    for node in cluster().nodes() {
        let path = format!("/apis/checkpoint-keeper.io/v1alpha1/nodecheckpointstores/{}", node.name());
        wait::until("the agent's report", DEADLINE, || {
            let store = cluster().get(&path)?;
            let conditions = store["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
            ensure!(ready.is_some_and(|ready| ready["status"] == "True"), "{}", store["status"]);
            Ok(true)
        })
        .with_context(|| logs("agent"))?;
    }
    let said = logs("agent");
    ensure!(!said.contains("forbidden"), "{said}");
    Ok(())
}

#[test]
fn the_controller_that_is_installed_says_what_became_of_a_policy() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::rights()?;
    install::image()?;
    let namespace = cluster().namespace("installed")?;
    let _controller = Deployed::apply("6-controller.yaml")?;
    let rollout = ["--namespace", NAMESPACE, "rollout", "status", "deployment", "--timeout=60s"];
    output(&mut cluster().kubectl(&rollout)).with_context(|| logs("controller"))?;
    policy(&namespace, "mine", &keep(2))?;
    let path = format!(
        "/apis/checkpoint-keeper.io/v1alpha1/namespaces/{}/checkpointpolicies/mine",
        namespace.name()
    );
    wait::until("the policy's condition", DEADLINE, || {
        let status = &cluster().get(&path)?["status"];
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted");
        ensure!(accepted.is_some_and(|accepted| accepted["status"] == "True"), "{status}");
        Ok(true)
    })
    .with_context(|| logs("controller"))?;
    let said = logs("controller");
    ensure!(said.contains("leads from now on") && !said.contains("forbidden"), "{said}");
    Ok(())
}

//! The operator installed as users do it, from `config`. What is installed is for all tests, once, and stays.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::machine::{PKI, SHARED};
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::{Node, wait};
use serde_json::{Value, json};

use crate::support::{DEADLINE, REPOSITORY, cluster, install_crds, program};

/// Where its parts live.
pub(crate) const NAMESPACE: &str = "checkpoint-keeper";
/// The agents' service account.
pub(crate) const AGENT: &str = "checkpoint-keeper-agent";
/// The controller's.
pub(crate) const CONTROLLER: &str = "checkpoint-keeper-controller";

/// All of `config/deploy` but what runs.
const RIGHTS: [&str; 8] = [
    "0-namespace.yaml",
    "0-priority-quota.yaml",
    "1-accounts.yaml",
    "2-agent-rights.yaml",
    "3-controller-rights.yaml",
    "4-admission.yaml",
    "7-user-roles.yaml",
    "8-operator-roles.yaml",
];

/// The image that `config/deploy` names.
pub(crate) const IMAGE: &str = "localhost/checkpoint-keeper:dev";

/// The image that users get, on every node.
pub(crate) fn image() -> anyhow::Result<()> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    once(&LOADED, || cluster().load(&image_archive()).context("first: cargo xtask image"))
}

/// Its archive.
pub(crate) fn image_archive() -> PathBuf {
    let built = program().with_file_name("../image/checkpoint-keeper-amd64.tar");
    std::env::var_os("CHECKPOINT_KEEPER_IMAGE").map_or(built, PathBuf::from)
}

/// The custom resources, the namespace, the accounts and what they may; nothing that runs.
pub(crate) fn rights() -> anyhow::Result<()> {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    install_crds()?;
    once(&INSTALLED, || {
        let files = RIGHTS.map(|name| format!("--filename={REPOSITORY}/config/deploy/{name}"));
        let mut command = cluster().kubectl(&["apply", "--validate=strict"]);
        output(command.args(files))?;
        for account in [AGENT, CONTROLLER] {
            // A role is in force a moment after it was applied.
            let client = cluster().with_token(&token(account, &Value::Null)?)?;
            let path = "/apis/checkpoint-keeper.io/v1alpha1/clustercheckpointpolicies";
            wait::until("the accounts' rights", DEADLINE, || client.get(path).map(|_| true))?;
        }
        Ok(())
    })
}

/// All that an agent needs to run as a program on a node, by the rights of the agent in that node's pod.
pub(crate) fn agents() -> anyhow::Result<()> {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    rights()?;
    once(&INSTALLED, || {
        for node in cluster().nodes() {
            let token = token(AGENT, &json!({"kind": "Node", "apiVersion": "v1", "name": node.name()}))?;
            cluster().write_kubeconfig(&format!("agent-{}.kubeconfig", node.name()), &token)?;
            let file = cluster().state().shared().join(format!("agent-{}.token", node.name()));
            std::fs::write(file, &token)?;
        }
        Ok(())
    })
}

/// Where [`agents`] writes the kubeconfig for an agent on this node, as the node sees it.
pub(crate) fn agent_kubeconfig(node: Node<'_>) -> String {
    format!("{SHARED}/agent-{}.kubeconfig", node.name())
}

/// What tells an agent that runs as a program how to reach the kubelet of its node.
pub(crate) fn kubelet_arguments(node: Node<'_>) -> [String; 3] {
    [
        format!("--kubelet-host={}", node.address()),
        format!("--kubelet-token={SHARED}/agent-{}.token", node.name()),
        format!("--kubelet-authorities={PKI}/ca.crt"),
    ]
}

/// A token of an account, bound to an object, or for null to nothing.
pub(crate) fn token(account: &str, bound: &Value) -> anyhow::Result<String> {
    let request = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": [], "boundObjectRef": bound, "expirationSeconds": 7200},
    });
    let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}/token");
    let (status, answer) = cluster().create(&path, &request)?;
    ensure!(status == 201, "{status} {answer}");
    Ok(answer["status"]["token"].as_str().context("no token")?.to_owned())
}

fn once(
    done: &OnceLock<Result<(), String>>,
    install: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    done.get_or_init(|| install().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

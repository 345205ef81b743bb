//! The operator installed as users do it, from `config`. What is installed is for all tests, once, and stays.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::Context;
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::wait;

use crate::support::{DEADLINE, cluster, program};

/// This repository.
pub(crate) const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// Where its parts live.
pub(crate) const NAMESPACE: &str = "checkpoint-keeper";
/// The agents' service account.
pub(crate) const AGENT: &str = "checkpoint-keeper-agent";
/// The controller's.
pub(crate) const CONTROLLER: &str = "checkpoint-keeper-controller";

/// All of `config/deploy` but what runs.
const RIGHTS: [&str; 5] = [
    "0-namespace.yaml",
    "1-accounts.yaml",
    "2-agent-rights.yaml",
    "3-controller-rights.yaml",
    "4-admission.yaml",
];

/// The image that `config/deploy` names.
pub(crate) const IMAGE: &str = "localhost/checkpoint-keeper:dev";

/// The program as an image, on every node.
pub(crate) fn image() -> anyhow::Result<()> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    once(&LOADED, || cluster().load(&static_program(), IMAGE).context("first: cargo xtask image"))
}

/// The program that an image holds.
pub(crate) fn static_program() -> PathBuf {
    let built = program().with_file_name("../x86_64-unknown-linux-gnu/release/checkpoint-keeper");
    std::env::var_os("CHECKPOINT_KEEPER_STATIC").map_or(built, PathBuf::from)
}

/// The custom resources.
pub(crate) fn definitions() -> anyhow::Result<()> {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    once(&INSTALLED, || {
        let folder = format!("{REPOSITORY}/config/crd");
        output(&mut cluster().kubectl(&["apply", "--filename", &folder]))?;
        let wait = ["wait", "--for=condition=Established", "--timeout=30s", "--filename", &folder];
        output(&mut cluster().kubectl(&wait)).map(drop)
    })
}

/// The custom resources, the namespace, the accounts and what they may; nothing that runs.
pub(crate) fn rights() -> anyhow::Result<()> {
    static INSTALLED: OnceLock<Result<(), String>> = OnceLock::new();
    definitions()?;
    once(&INSTALLED, || {
        let files = RIGHTS.map(|name| format!("--filename={REPOSITORY}/config/deploy/{name}"));
        let mut command = cluster().kubectl(&["apply", "--validate=strict"]);
        output(command.args(files))?;
        for account in [AGENT, CONTROLLER] {
            let path = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{account}");
            wait::until("the service accounts", DEADLINE, || cluster().get(&path).map(|_| true))?;
        }
        Ok(())
    })
}

fn once(
    done: &OnceLock<Result<(), String>>,
    install: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    done.get_or_init(|| install().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

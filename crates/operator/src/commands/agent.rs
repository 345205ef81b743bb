//! `checkpoint-keeper agent`: the agent of one node, with its audit lines on standard output.

use std::io::Write;

use checkpoint_keeper_agent::{Error, Settings};
use jiff::Timestamp;

use crate::cli::AgentArguments;
use crate::failure::Failure;
use crate::output::json;

/// Runs until SIGTERM or SIGINT.
pub fn run(arguments: AgentArguments) -> Result<(), Failure> {
    let mut operator_namespaces = arguments.cluster_policy_namespaces;
    operator_namespaces.push(arguments.namespace);
    let node = arguments.node_name.clone();
    let settings = Settings {
        node_name: arguments.node_name,
        operator_namespaces: operator_namespaces.into_iter().collect(),
        other_operator_namespaces: arguments.other_operator_namespaces,
        policy_staleness: arguments.policy_staleness,
        directory: arguments.directory,
        state: arguments.state,
        interval: arguments.interval,
        settle: arguments.settle,
        status_interval: arguments.status_interval,
        listen: arguments.listen,
        kubeconfig: arguments.kubeconfig,
        audit: Box::new(move |outcome, policy_generation| {
            let in_cluster = json::InCluster { node: node.clone(), policy_generation };
            let deletion = json::deletion(outcome, Timestamp::now()).in_cluster(in_cluster);
            let mut out = std::io::stdout().lock();
            json::line(&mut out, &deletion).and_then(|()| out.flush())
        }),
    };
    checkpoint_keeper_agent::run(settings).map_err(|error| match error {
        Error::DirectoryDead => Failure::Named,
        error => Failure::Failed(anyhow::Error::new(error)),
    })
}

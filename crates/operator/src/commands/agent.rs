//! `checkpoint-keeper agent`: the agent of one node, with its audit lines on standard output.

use std::io::Write;

use checkpoint_keeper_agent::{Error, Settings};
use jiff::Timestamp;

use crate::cli::AgentArguments;
use crate::failure::Failure;
use crate::logging::LogArguments;
use crate::output::json;

/// Runs until SIGTERM or SIGINT.
pub fn run(arguments: AgentArguments) -> Result<(), Failure> {
    log_start(&arguments);
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

/// What this process is, and with which options it was started.
fn log_start(arguments: &AgentArguments) {
    let AgentArguments {
        node_name,
        namespace,
        cluster_policy_namespaces,
        other_operator_namespaces,
        policy_staleness,
        directory,
        state,
        interval,
        settle,
        status_interval,
        listen,
        kubeconfig,
        log: LogArguments { log_format: _, log_level },
    } = arguments;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        role = "agent",
        node = node_name,
        namespace,
        ?cluster_policy_namespaces,
        ?other_operator_namespaces,
        ?policy_staleness,
        ?directory,
        ?state,
        ?interval,
        ?settle,
        ?status_interval,
        %listen,
        ?kubeconfig,
        %log_level,
        "checkpoint-keeper starts"
    );
}

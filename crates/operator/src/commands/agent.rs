//! `checkpoint-keeper agent`: the agent of one node, with its audit lines on standard output.

use std::io::Write;
use std::net::SocketAddr;

use checkpoint_keeper_agent::{Error, Settings};
use checkpoint_keeper_runtime::kubelet::{KubeletConfig, Trust};
use jiff::Timestamp;

use crate::cli::{AgentArguments, ClusterArguments, KubeletArguments};
use crate::failure::Failure;
use crate::logging::LogArguments;
use crate::output::json;

/// Runs until SIGTERM or SIGINT.
pub fn run(arguments: AgentArguments) -> Result<(), Failure> {
    log_start(&arguments);
    let ClusterArguments {
        namespace,
        cluster_policy_namespaces: mut operator_namespaces,
        other_operator_namespaces,
        listen,
        kubeconfig,
    } = arguments.cluster;
    operator_namespaces.push(namespace.clone());
    let node = arguments.node_name.clone();
    let settings = Settings {
        kubelet: kubelet(arguments.kubelet, &arguments.node_name),
        node_name: arguments.node_name,
        namespace,
        operator_namespaces: operator_namespaces.into_iter().collect(),
        other_operator_namespaces,
        policy_staleness: arguments.policy_staleness,
        directory: arguments.directory,
        state: arguments.state,
        interval: arguments.interval,
        settle: arguments.settle,
        status_interval: arguments.status_interval,
        inventory_limit: arguments.inventory_limit,
        max_concurrent_checkpoints: arguments.max_concurrent_checkpoints,
        listen,
        view_listen: arguments.view_listen,
        kubeconfig,
        audit: Box::new(move |outcome, asked| {
            let policy_generation = outcome.deletion.policy_generation;
            let in_cluster = json::InCluster { node: node.clone(), policy_generation };
            let deletion = json::deletion(outcome, Timestamp::now()).in_cluster(in_cluster).asked(asked);
            let mut out = std::io::stdout().lock();
            json::line(&mut out, &deletion).and_then(|()| out.flush())
        }),
    };
    checkpoint_keeper_agent::run(settings).map_err(|error| match error {
        Error::DirectoryDead => Failure::AlreadyReported,
        error => Failure::Failed(anyhow::Error::new(error)),
    })
}

/// How the node's kubelet is reached; none where its address is not told.
fn kubelet(arguments: KubeletArguments, node_name: &str) -> Option<KubeletConfig> {
    let trust = if arguments.kubelet_insecure_skip_verify {
        Trust::InsecureSkipVerify
    } else {
        Trust::Verify { authorities: arguments.kubelet_authorities, pinned: arguments.kubelet_certificate }
    };
    Some(KubeletConfig {
        address: SocketAddr::new(arguments.kubelet_host?, arguments.kubelet_port),
        node_name: node_name.to_owned(),
        token_file: arguments.kubelet_token,
        trust,
    })
}

/// What this process is, and with which options it was started.
fn log_start(arguments: &AgentArguments) {
    let AgentArguments {
        node_name,
        cluster:
            ClusterArguments {
                namespace,
                cluster_policy_namespaces,
                other_operator_namespaces,
                listen,
                kubeconfig,
            },
        policy_staleness,
        directory,
        state,
        interval,
        settle,
        status_interval,
        inventory_limit,
        max_concurrent_checkpoints,
        view_listen,
        kubelet,
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
        inventory_limit,
        max_concurrent_checkpoints,
        %listen,
        %view_listen,
        ?kubelet,
        ?kubeconfig,
        %log_level,
        "checkpoint-keeper starts"
    );
}

//! `checkpoint-keeper controller`: a replica of the controller, with its probes, metrics and signals.

use std::sync::Arc;

use anyhow::Context;
use kube::Client;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::cli::{ClusterArguments, ControllerArguments};
use crate::failure::Failure;
use crate::logging::LogArguments;
use checkpoint_keeper_controller::{Controller, Settings};
use checkpoint_keeper_runtime::admin::{self, AdminServer};
use checkpoint_keeper_runtime::cluster;

/// Runs until SIGTERM or SIGINT, or until the lease is lost.
pub fn run(arguments: ControllerArguments) -> Result<(), Failure> {
    log_start(&arguments);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start a runtime")?;
    let client = cluster::client(&runtime, arguments.cluster.kubeconfig.as_deref()).map_err(|error| {
        let option =
            arguments.cluster.kubeconfig.as_ref().map(|path| format!("--kubeconfig {}: ", path.display()));
        Failure::Usage(vec![format!("{}{error}", option.unwrap_or_default())])
    })?;
    runtime.block_on(serve(client, arguments))
}

async fn serve(client: Client, arguments: ControllerArguments) -> Result<(), Failure> {
    let stop = watch::Sender::new(false);
    let stopped = stop.subscribe();
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let signals = async move {
        let signal = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal, "received a signal; stopping");
        stop.send_replace(true);
        // A replica that was told to stop ends by itself.
        std::future::pending::<()>().await;
    };
    let ClusterArguments { namespace, cluster_policy_namespaces, other_operator_namespaces, listen, .. } =
        arguments.cluster;
    let controller = Controller::new(
        &client,
        Settings {
            namespace,
            identity: arguments.identity,
            cluster_policy_namespaces,
            other_operator_namespaces,
            directory: arguments.directory,
        },
    );
    let admin_server = AdminServer {
        metrics: controller.registry(),
        not_ready_reasons: Box::new(controller.not_ready_reasons()),
        is_alive: Box::new(controller.is_alive()),
    };
    tokio::select! {
        ended = controller.run(stopped) => {
            ended.map_err(|lost| Failure::Failed(anyhow::Error::new(lost).context("this replica must not go on")))
        }
        served = admin::serve(listen, Arc::new(admin_server)) => {
            served.with_context(|| format!("cannot listen on {listen}"))?;
            Err(Failure::Failed(anyhow::anyhow!("the server of probes and metrics on {listen} stopped")))
        }
        () = signals => Ok(()),
    }
}

/// What this process is, and with which options it was started.
fn log_start(arguments: &ControllerArguments) {
    let ControllerArguments {
        identity,
        cluster:
            ClusterArguments {
                namespace,
                cluster_policy_namespaces,
                other_operator_namespaces,
                listen,
                kubeconfig,
            },
        directory,
        log: LogArguments { log_format: _, log_level },
    } = arguments;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        role = "controller",
        identity,
        namespace,
        ?cluster_policy_namespaces,
        ?other_operator_namespaces,
        directory,
        %listen,
        ?kubeconfig,
        %log_level,
        "checkpoint-keeper starts"
    );
}

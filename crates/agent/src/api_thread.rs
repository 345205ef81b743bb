//! The thread that speaks with the API, and serves probes, metrics and views. It is put together here; what runs on it
//! is [`Api`](super::api::Api)'s part.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use checkpoint_keeper_api::effective::Scope;
use checkpoint_keeper_node::mailbox::Sender;
use kube::Client;
use tokio::runtime::{Builder, Runtime};

use super::api::Api;
use super::cluster_watch::ClusterWatch;
use super::config_source::ConfigSource;
use super::context::ApiContext;
use super::inventory::{Inventory, ShownArchives};
use super::metrics::{self, Timings};
use super::own_objects::OwnObjects;
use super::schedules::{Dependencies, Schedules, SeenArchives};
use super::state::AgentState;
use super::status_publisher::StatusPublisher;
use super::view::{self, LatestView, ViewServer};
use super::{Error, Settings, start_error};
use checkpoint_keeper_runtime::admin::{self, AdminServer};
use checkpoint_keeper_runtime::cluster;
use checkpoint_keeper_runtime::kubelet::Kubelet;
use checkpoint_keeper_runtime::liveness;
use checkpoint_keeper_runtime::policy_objects::PolicyObjects;
use checkpoint_keeper_runtime::quota_objects::QuotaObjects;
use checkpoint_keeper_runtime::requests::RequestCounts;
use checkpoint_keeper_runtime::telemetry;

/// What this thread and the engine's share.
#[derive(Clone)]
pub(super) struct Shared {
    /// What the engine's thread has observed, and this one.
    pub(super) state: AgentState,
    /// Sends to the engine.
    pub(super) engine: Sender,
    /// Counts the requests of both.
    pub(super) requests: RequestCounts,
    pub(super) timings: Timings,
    pub(super) archives: SeenArchives,
    pub(super) shown: ShownArchives,
    pub(super) latest: LatestView,
}

/// Starts the thread.
pub(super) fn spawn(settings: &Settings, shared: Shared) -> Result<(), Error> {
    let runtime =
        Builder::new_current_thread().enable_all().build().map_err(start_error("cannot start a runtime"))?;
    let context = context(settings, client(settings, &runtime, &shared.requests)?, &shared);
    let view = view_router(settings, &context, &shared);
    let admin_server = admin_server(settings, &context, &shared);
    let api = api(settings, context, &shared)?;
    let (address, view_address) = (settings.listen, settings.view_listen);
    let work = move || {
        runtime.block_on(async {
            tokio::join!(
                async {
                    if let Err(error) = admin::serve(address, Arc::new(admin_server)).await {
                        tracing::error!("cannot serve probes and metrics on {address}: {error}");
                    }
                },
                async {
                    let served = admin::serve_loopback(view_address, view, view::CONNECTION).await;
                    if let Err(error) = served {
                        tracing::error!("cannot serve archives and explanations on {view_address}: {error}");
                    }
                },
                api.run(shared.engine),
            )
        });
    };
    std::thread::Builder::new()
        .name("api".to_owned())
        .spawn(work)
        .map_err(start_error("cannot start a thread"))?;
    Ok(())
}

/// A client whose requests are counted.
fn client(settings: &Settings, runtime: &Runtime, requests: &RequestCounts) -> Result<Client, Error> {
    let client = cluster::client(runtime, settings.kubeconfig.as_deref())?;
    let _inside = runtime.enter();
    Ok(requests.counted(&client))
}

fn context(settings: &Settings, client: Client, shared: &Shared) -> ApiContext {
    ApiContext {
        client,
        node: settings.node_name.clone(),
        objects: PolicyObjects::new(&settings.other_operator_namespaces),
        quotas: QuotaObjects::new(Some(settings.node_name.clone())),
        own: OwnObjects::default(),
        cluster_watch: ClusterWatch::default(),
        state: shared.state.clone(),
    }
}

fn directory(settings: &Settings) -> String {
    settings.directory.to_string_lossy().into_owned()
}

/// What decides which policies are in force, but for whether the older operator runs.
fn scope(settings: &Settings) -> Scope {
    Scope {
        operator_namespaces: settings.operator_namespaces.clone(),
        other_operator: false,
        directory: directory(settings),
    }
}

/// What shows archives, explanations and previews.
fn view_router(settings: &Settings, context: &ApiContext, shared: &Shared) -> Router {
    let engine = shared.engine.clone();
    let (objects, scope) = (context.objects.clone(), scope(settings));
    view::router(ViewServer {
        node: settings.node_name.clone(),
        directory: directory(settings),
        latest: shared.latest.clone(),
        request_plan: Box::new(move || engine.request_plan()),
        objects: Box::new(move || {
            let other_operator = objects.other_operator_runs();
            Some((objects.all()?, Scope { other_operator, ..scope.clone() }))
        }),
    })
}

/// What answers probes, and requests for metrics.
fn admin_server(settings: &Settings, context: &ApiContext, shared: &Shared) -> AdminServer {
    let (for_metrics, objects) = (context.clone(), context.objects.clone());
    let sources = telemetry::Sources {
        requests: shared.requests.clone(),
        is_ready: Box::new(move || for_metrics.not_ready_reasons(liveness::now()).is_empty()),
        watch_ages: Box::new(move || objects.watch_ages(liveness::now())),
    };
    let (for_probes, state) = (context.clone(), shared.state.clone());
    let (started, limit) = (Instant::now(), stuck(settings.interval));
    AdminServer {
        metrics: metrics::registry(shared.state.clone(), &shared.timings, sources),
        not_ready_reasons: Box::new(move || for_probes.not_ready_reasons(liveness::now())),
        is_alive: Box::new(move || {
            let looked = state.read(|observed| observed.looked).unwrap_or(started);
            looked.elapsed() < limit || state.read(|observed| observed.summary.is_none())
        }),
    }
}

/// So long without a look at everything, and the engine is stuck for good: reading the largest archive takes minutes.
fn stuck(interval: Duration) -> Duration {
    Duration::from_mins(30).max(interval.saturating_mul(3))
}

/// What follows the cluster, and writes to it.
fn api(settings: &Settings, context: ApiContext, shared: &Shared) -> Result<Api, Error> {
    let schedules = schedules(settings, &context, shared)?;
    Ok(Api {
        source: ConfigSource {
            context: context.clone(),
            scope: scope(settings),
            schedules: schedules.as_ref().map(Schedules::objects),
            staleness: settings.policy_staleness,
        },
        publisher: StatusPublisher {
            context: context.clone(),
            directory: directory(settings),
            interval: settings.status_interval,
        },
        schedules,
        inventory: Inventory::new(context.clone(), shared.shown.clone(), shared.engine.clone()),
        context,
    })
}

/// What makes checkpoints by schedules; none where the kubelet's address is not told.
fn schedules(settings: &Settings, context: &ApiContext, shared: &Shared) -> Result<Option<Schedules>, Error> {
    let Some(kubelet) = settings.kubelet.clone() else {
        tracing::debug!("the kubelet's address is not told: no checkpoints are made by schedules");
        return Ok(None);
    };
    let dependencies = Dependencies {
        operator_namespace: settings.namespace.clone(),
        kubelet: Kubelet::new(kubelet)?,
        archives: shared.archives.clone(),
        engine: shared.engine.clone(),
        timings: shared.timings.clone(),
        directory: settings.directory.clone(),
        most_dumps: settings.max_concurrent_checkpoints,
    };
    Ok(Some(Schedules::new(context.clone(), dependencies, &settings.state)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_that_looks_rarely_is_not_stuck() {
        assert_eq!(stuck(Duration::from_mins(1)), Duration::from_mins(30));
        assert!(stuck(Duration::from_hours(2)) > Duration::from_hours(4));
    }
}

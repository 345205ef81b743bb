//! The agent: one a node. The engine collects in the node's directory by what it is told, on a thread
//! that waits for no API; the API's side tells it, and publishes what it does.

mod api;
mod api_write;
mod cluster_watch;
mod config_source;
mod context;
mod deciding;
mod dry_runs;
mod events;
mod inventory;
mod lock;
pub mod metrics;
mod own_objects;
mod own_watch;
mod problem_type;
mod problems;
mod quotas;
mod reporter;
mod schedules;
mod state;
mod status;
mod status_publisher;
mod summary;
mod throttle;
mod view;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use checkpoint_keeper_api::effective::Scope;
use checkpoint_keeper_core::deletion_limiter::DeletionLimiter;
use checkpoint_keeper_core::engine::file::Outcome;
use checkpoint_keeper_core::engine::{self, ClusterSettings, NodePods};
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::driver::{CatalogUse, Driver, RunError, SPARING};
use checkpoint_keeper_node::mailbox::{self, Sender};
use checkpoint_keeper_node::store::OpenError;
use tokio::runtime::Builder;

use self::api::Api;
use self::cluster_watch::ClusterWatch;
use self::config_source::ConfigSource;
use self::context::ApiContext;
use self::deciding::Deciding;
use self::dry_runs::DryRuns;
use self::inventory::{Inventory, ShownArchives};
use self::metrics::Timings;
use self::own_objects::OwnObjects;
use self::reporter::{Reporter, note_catalog_problem};
use self::schedules::{Means, Schedules, SeenArchives};
use self::state::AgentState;
use self::status_publisher::StatusPublisher;
use self::view::{LatestView, ViewServer};
use checkpoint_keeper_runtime::admin::{self, AdminServer};
use checkpoint_keeper_runtime::cluster::{self, Cluster, ConnectError};
use checkpoint_keeper_runtime::kubelet::{Kubelet, KubeletConfig, SetupError};
use checkpoint_keeper_runtime::liveness;
use checkpoint_keeper_runtime::policy_objects::PolicyObjects;
use checkpoint_keeper_runtime::quota_objects::QuotaObjects;
use checkpoint_keeper_runtime::requests::RequestCounts;
use checkpoint_keeper_runtime::signals;
use checkpoint_keeper_runtime::telemetry;

/// So long without a look at everything, and the engine is stuck for good: reading the largest archive
/// takes minutes.
fn stuck(interval: Duration) -> Duration {
    Duration::from_mins(30).max(interval.saturating_mul(3))
}

/// What the agent of a node is told.
pub struct Settings {
    /// The node's name.
    pub node_name: String,
    /// The operator's own namespace.
    pub namespace: String,
    /// The node's kubelet, by which checkpoints are made; none: none are made.
    pub kubelet: Option<KubeletConfig>,
    /// The namespaces whose objects of the older operator govern the cluster.
    pub operator_namespaces: BTreeSet<String>,
    /// The namespaces that the older operator may be installed in.
    pub other_operator_namespaces: Vec<String>,
    /// For how long policies may go unconfirmed until they pause.
    pub policy_staleness: Duration,
    /// The directory that archives lie in.
    pub directory: PathBuf,
    /// The catalog's file.
    pub state: PathBuf,
    /// How often everything is looked at.
    pub interval: Duration,
    /// How long an archive must have been left alone to count as written.
    pub settle: Duration,
    /// The shortest time between two writes of the status, unless a problem appears.
    pub status_interval: Duration,
    /// The most archives that are shown as `ContainerCheckpoint`s; 0: none.
    pub inventory_limit: usize,
    /// The most checkpoints that are made at once.
    pub max_concurrent_checkpoints: u32,
    /// Where probes and metrics are served.
    pub listen: SocketAddr,
    /// Where archives, explanations and previews are served: a loopback address.
    pub view_listen: SocketAddr,
    /// The kubeconfig of the cluster; none: the one around this pod.
    pub kubeconfig: Option<PathBuf>,
    /// Writes the audit line of a deletion, with the generation of the policy that decided.
    pub audit: Audit,
}

/// Writes the audit line of a deletion, with the generation of the policy that decided.
pub type Audit = Box<dyn Fn(&Outcome, Option<i64>) -> io::Result<()>>;

/// Why an agent cannot begin, or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be used.
    #[error(transparent)]
    Directory(#[from] OpenError),
    /// The cluster cannot be asked.
    #[error(transparent)]
    Cluster(#[from] ConnectError),
    /// The system refused what the agent needs to begin.
    #[error("{what}")]
    Start {
        /// What it cannot do.
        what: &'static str,
        /// The error of the system.
        source: io::Error,
    },
    /// The kubelet cannot be asked.
    #[error(transparent)]
    Kubelet(#[from] SetupError),
    /// The engine cannot go on.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The directory was removed under its mount, which was said when it was seen.
    #[error("the directory was removed under its mount")]
    DirectoryDead,
}

/// Collects until SIGTERM or SIGINT.
pub fn run(arguments: Settings) -> Result<(), Error> {
    let (stop, trigger) = signals::until_told().map_err(start("cannot listen for signals"))?;
    let Some(store) = lock::lock(&arguments.directory, arguments.listen, &stop)? else {
        tracing::info!("received a signal; stopping");
        return Ok(());
    };
    let settings = engine::Settings {
        settle: arguments.settle,
        needs_server_clock: true,
        limiter: Some(DeletionLimiter::empty(clock::now().uptime)),
        cluster: Some(ClusterSettings { budget: SPARING, node_pods: NodePods::Watched, eager: true }),
        ..engine::Settings::default()
    };
    let state = AgentState::new();
    let (mut driver, problems) = Driver::new(store, settings, CatalogUse::File(arguments.state.clone()));
    for problem in &problems {
        note_catalog_problem(&state, problem, Instant::now());
    }
    let node = Some(arguments.node_name.clone());
    let mut asked = Cluster::new(arguments.kubeconfig.as_deref(), node, clock::now)?;
    let requests = RequestCounts::default();
    asked.count_requests(&requests);
    driver.ask_by(Box::new(move |lookups| asked.ask(lookups)));
    let (sender, mailbox) = mailbox::channel().map_err(start("cannot make a mailbox for the engine"))?;
    let timings = Timings::default();
    let archives = SeenArchives::default();
    let shown = ShownArchives::new(arguments.node_name.clone(), arguments.inventory_limit);
    let latest = LatestView::default();
    let measures = Measures {
        requests,
        timings: timings.clone(),
        archives: archives.clone(),
        shown: shown.clone(),
        latest: latest.clone(),
    };
    start_api_side(&arguments, state.clone(), sender, measures)?;
    let mut reporter = Reporter {
        state,
        audit: arguments.audit,
        dry_runs: DryRuns::new(arguments.status_interval),
        timings,
        interval: arguments.interval,
        deciding: Deciding::default(),
        archives,
        shown,
        latest,
        is_dead: false,
        end: Box::new(move || {
            let _ = (&trigger).write_all(b"x");
        }),
    };
    driver.run(&mailbox, arguments.interval, stop, |event| reporter.note(&event))?;
    if reporter.is_dead {
        return Err(Error::DirectoryDead);
    }
    tracing::info!("received a signal; stopping");
    Ok(())
}

fn start(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Start { what, source }
}

/// What is measured by the engine's side.
struct Measures {
    requests: RequestCounts,
    timings: Timings,
    archives: SeenArchives,
    shown: ShownArchives,
    latest: LatestView,
}

/// Starts the thread that speaks with the API and serves probes and metrics.
fn start_api_side(
    arguments: &Settings,
    state: AgentState,
    engine: Sender,
    measures: Measures,
) -> Result<(), Error> {
    let runtime =
        Builder::new_current_thread().enable_all().build().map_err(start("cannot start a runtime"))?;
    let client = cluster::client(&runtime, arguments.kubeconfig.as_deref())?;
    let client = {
        let _inside = runtime.enter();
        measures.requests.counted(&client)
    };
    let objects = PolicyObjects::new(&arguments.other_operator_namespaces);
    let directory = arguments.directory.to_string_lossy().into_owned();
    let context = ApiContext {
        client,
        node: arguments.node_name.clone(),
        objects,
        quotas: QuotaObjects::new(Some(arguments.node_name.clone())),
        own: OwnObjects::default(),
        cluster_watch: ClusterWatch::default(),
        state: state.clone(),
    };
    let scope = Scope {
        operator_namespaces: arguments.operator_namespaces.clone(),
        other_operator: false,
        directory: directory.clone(),
    };
    let staleness = arguments.policy_staleness;
    let view = view::router(ViewServer {
        node: arguments.node_name.clone(),
        directory: directory.clone(),
        latest: measures.latest,
        request_plan: {
            let engine = engine.clone();
            Box::new(move || engine.request_plan())
        },
        objects: {
            let (objects, scope) = (context.objects.clone(), scope.clone());
            Box::new(move || {
                let other_operator = objects.other_operator_runs();
                Some((objects.all()?, Scope { other_operator, ..scope.clone() }))
            })
        },
    });
    let view_address = arguments.view_listen;
    let publisher =
        StatusPublisher { context: context.clone(), directory, interval: arguments.status_interval };
    let schedules = if let Some(kubelet) = arguments.kubelet.clone() {
        let kubelet = Kubelet::new(kubelet)?;
        let (operator_namespace, archives) = (arguments.namespace.clone(), measures.archives);
        let timings = measures.timings.clone();
        let means = Means {
            operator_namespace,
            kubelet,
            archives,
            engine: engine.clone(),
            timings,
            directory: arguments.directory.clone(),
            most_dumps: arguments.max_concurrent_checkpoints,
        };
        Some(Schedules::new(context.clone(), means, &arguments.state))
    } else {
        tracing::debug!("the kubelet's address is not told: no checkpoints are made by schedules");
        None
    };
    let objects = context.objects.clone();
    let source = ConfigSource {
        context: context.clone(),
        scope,
        schedules: schedules.as_ref().map(Schedules::objects),
        staleness,
    };
    let inventory = Inventory::new(context.clone(), measures.shown, engine.clone());
    let api = Api { context: context.clone(), source, publisher, schedules, inventory };
    let seen = state.clone();
    let started = Instant::now();
    let limit = stuck(arguments.interval);
    let asked = context.clone();
    let admin_server = AdminServer {
        metrics: metrics::registry(
            state,
            &measures.timings,
            telemetry::Sources {
                requests: measures.requests,
                is_ready: Box::new(move || asked.not_ready_reasons(liveness::now()).is_empty()),
                watch_ages: Box::new(move || objects.watch_ages(liveness::now())),
            },
        ),
        not_ready_reasons: Box::new(move || context.not_ready_reasons(liveness::now())),
        is_alive: Box::new(move || {
            let looked = seen.read(|observed| observed.looked).unwrap_or(started);
            looked.elapsed() < limit || seen.read(|observed| observed.summary.is_none())
        }),
    };
    let address = arguments.listen;
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
                api.run(engine),
            )
        });
    };
    std::thread::Builder::new().name("api".to_owned()).spawn(work).map_err(start("cannot start a thread"))?;
    Ok(())
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

//! The agent of a node. One thread runs the engine, which collects in the node's directory and never waits for the API.
//! Another one speaks with the API: it sends the engine its configuration, and publishes what the engine does.

mod api;
mod api_thread;
mod api_write;
mod cluster_watch;
mod config_source;
mod context;
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
mod schedule_turns;
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
use std::time::{Duration, Instant};

use checkpoint_keeper_core::deletion_limiter::DeletionLimiter;
use checkpoint_keeper_core::engine::file::Outcome;
use checkpoint_keeper_core::engine::{self, ClusterSettings, NodePods};
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::driver::{CatalogUse, Driver, RunError, SPARING};
use checkpoint_keeper_node::mailbox;
use checkpoint_keeper_node::store::{OpenError, Store};

use self::api_thread::Shared;
use self::dry_runs::DryRuns;
use self::inventory::ShownArchives;
use self::metrics::Timings;
use self::reporter::{Reporter, note_catalog_problem};
use self::schedules::SeenArchives;
use self::state::AgentState;
use self::view::LatestView;
use checkpoint_keeper_runtime::cluster::{Cluster, ConnectError};
use checkpoint_keeper_runtime::kubelet::{KubeletConfig, SetupError};
use checkpoint_keeper_runtime::requests::RequestCounts;
use checkpoint_keeper_runtime::signals;

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
    /// Writes the audit line of a deletion.
    pub audit: Audit,
}

/// Writes the audit line of a deletion; of one that a user asked for through its object, with who that was and why.
pub type Audit = Box<dyn Fn(&Outcome, Option<String>) -> io::Result<()>>;

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
pub fn run(settings: Settings) -> Result<(), Error> {
    let (stop, trigger) = signals::until_told().map_err(start_error("cannot listen for signals"))?;
    let Some(store) = lock::lock(&settings.directory, settings.listen, &stop)? else {
        tracing::info!("received a signal; stopping");
        return Ok(());
    };
    let state = AgentState::new();
    let requests = RequestCounts::default();
    let driver = driver(&settings, store, &state, &requests)?;
    let (engine, mailbox) =
        mailbox::channel().map_err(start_error("cannot make a mailbox for the engine"))?;
    let shared = Shared {
        state,
        engine,
        requests,
        timings: Timings::default(),
        archives: SeenArchives::default(),
        shown: ShownArchives::new(settings.node_name.clone(), settings.inventory_limit),
        latest: LatestView::default(),
    };
    api_thread::spawn(&settings, shared.clone())?;
    let interval = settings.interval;
    let mut reporter = Reporter {
        state: shared.state,
        audit: settings.audit,
        dry_runs: DryRuns::new(settings.status_interval),
        timings: shared.timings,
        interval,
        archives: shared.archives,
        shown: shared.shown,
        latest: shared.latest,
        is_dead: false,
        end: Box::new(move || {
            let _ = (&trigger).write_all(b"x");
        }),
    };
    driver.run(&mailbox, interval, stop, |event| reporter.note(&event))?;
    if reporter.is_dead {
        return Err(Error::DirectoryDead);
    }
    tracing::info!("received a signal; stopping");
    Ok(())
}

/// A driver of the engine in the directory, which asks the cluster, and remembers in the catalog.
fn driver(
    settings: &Settings,
    store: Store,
    state: &AgentState,
    requests: &RequestCounts,
) -> Result<Driver, Error> {
    let engine_settings = engine::Settings {
        settle: settings.settle,
        needs_server_clock: true,
        limiter: Some(DeletionLimiter::empty(clock::now().uptime)),
        cluster: Some(ClusterSettings { budget: SPARING, node_pods: NodePods::Watched, eager: true }),
        ..engine::Settings::default()
    };
    let (mut driver, problems) =
        Driver::new(store, engine_settings, CatalogUse::File(settings.state.clone()));
    for problem in &problems {
        note_catalog_problem(state, problem, Instant::now());
    }
    let node = Some(settings.node_name.clone());
    let mut cluster = Cluster::new(settings.kubeconfig.as_deref(), node, clock::now)?;
    cluster.count_requests(requests);
    driver.ask_by(Box::new(move |lookups| cluster.ask(lookups)));
    Ok(driver)
}

fn start_error(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Start { what, source }
}

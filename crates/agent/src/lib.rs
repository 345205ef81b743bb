//! The agent: one a node. The engine collects in the node's directory by what it is told, on a thread
//! that waits for no API; the API's side tells it, and publishes what it does.

mod api;
mod cluster_watch;
mod deciding;
mod dry_runs;
mod events;
pub mod metrics;
mod state;
mod status;
mod summary;
mod throttle;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use checkpoint_keeper_api::effective::Scope;
use checkpoint_keeper_core::deletion_limiter::DeletionLimiter;
use checkpoint_keeper_core::engine::file::{Outcome, Removal};
use checkpoint_keeper_core::engine::problem::Problem;
use checkpoint_keeper_core::engine::{self, ClusterSettings, NodePods, View};
use checkpoint_keeper_node::catalog::CatalogProblem;
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::driver::{CatalogUse, Driver, Event, RunError, SPARING};
use checkpoint_keeper_node::mailbox::{self, Sender};
use checkpoint_keeper_node::store::{OpenError, Store};
use jiff::Timestamp;
use tokio::runtime::Builder;

use self::api::ApiSide;
use self::cluster_watch::ClusterWatch;
use self::deciding::Deciding;
use self::dry_runs::{DryRuns, reckon};
use self::state::AgentState;
use self::summary::Summary;
use checkpoint_keeper_runtime::admin::{self, AdminServer};
use checkpoint_keeper_runtime::cluster::{self, Cluster, ConnectError};
use checkpoint_keeper_runtime::liveness;
use checkpoint_keeper_runtime::objects::PolicyObjects;
use checkpoint_keeper_runtime::say::say;
use checkpoint_keeper_runtime::signals;

/// So long without a look at everything, and the engine is stuck for good: reading the largest archive
/// takes minutes.
fn stuck(interval: Duration) -> Duration {
    Duration::from_mins(30).max(interval.saturating_mul(3))
}

/// What the agent of a node is told.
pub struct Settings {
    /// The node's name.
    pub node_name: String,
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
    /// How long the status rests after it was written, unless a problem appears.
    pub status_interval: Duration,
    /// Where probes and metrics are served.
    pub listen: SocketAddr,
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
        /// Why.
        source: io::Error,
    },
    /// The engine cannot go on.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The directory was removed under its mount, which was said when it was seen.
    #[error("the directory was removed under its mount")]
    DirectoryDead,
}

/// Collects until SIGTERM or SIGINT.
pub fn run(arguments: Settings) -> Result<(), Error> {
    let store = Store::open(&arguments.directory)?;
    store.lock()?;
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
        say("error", problem);
        note_catalog_problem(&state, problem, Instant::now());
    }
    let node = Some(arguments.node_name.clone());
    let mut asked = Cluster::new(arguments.kubeconfig.as_deref(), node)?;
    driver.ask_by(Box::new(move |lookups| asked.ask(lookups)));
    let (sender, mailbox) =
        mailbox::channel().map_err(start("cannot make a mailbox for the engine"))?;
    let (stop, trigger) = signals::until_told().map_err(start("cannot listen for signals"))?;
    start_api_side(&arguments, state.clone(), sender)?;
    let mut reporter = Reporter {
        state,
        audit: arguments.audit,
        dry_runs: DryRuns::new(arguments.status_interval),
        interval: arguments.interval,
        deciding: Deciding::default(),
        is_dead: AtomicBool::new(false),
        end: Box::new(move || {
            let _ = (&trigger).write_all(b"x");
        }),
    };
    driver.run(&mailbox, arguments.interval, stop, |event| reporter.note(&event))?;
    if reporter.is_dead.load(Ordering::Relaxed) {
        return Err(Error::DirectoryDead);
    }
    Ok(())
}

fn start(what: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Start { what, source }
}

/// Starts the thread that speaks with the API and serves probes and metrics.
fn start_api_side(arguments: &Settings, state: AgentState, engine: Sender) -> Result<(), Error> {
    let runtime =
        Builder::new_current_thread().enable_all().build().map_err(start("cannot start a runtime"))?;
    let client = cluster::client(&runtime, arguments.kubeconfig.as_deref())?;
    let objects = PolicyObjects::new(&arguments.other_operator_namespaces);
    let side = ApiSide {
        client,
        node: arguments.node_name.clone(),
        scope: Scope {
            operator_namespaces: arguments.operator_namespaces.clone(),
            other_operator: false,
            directory: arguments.directory.to_string_lossy().into_owned(),
        },
        objects,
        state: state.clone(),
        own: api::Own::default(),
        cluster_watch: ClusterWatch::default(),
        rest: arguments.status_interval,
        staleness: arguments.policy_staleness,
    };
    let seen = state.clone();
    let started = Instant::now();
    let limit = stuck(arguments.interval);
    let asked = side.clone();
    let page = AdminServer {
        metrics: metrics::registry(state),
        not_ready_reasons: Box::new(move || asked.not_ready_reasons(liveness::now())),
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
                    if let Err(error) = admin::serve(address, Arc::new(page)).await {
                        say("error", format!("cannot serve probes and metrics on {address}: {error}"));
                    }
                },
                side.run(engine),
            )
        });
    };
    std::thread::Builder::new().name("api".to_owned()).spawn(work).map_err(start("cannot start a thread"))?;
    Ok(())
}

/// Reports what the engine does.
struct Reporter {
    state: AgentState,
    audit: Audit,
    dry_runs: DryRuns,
    interval: Duration,
    deciding: Deciding,
    is_dead: AtomicBool,
    end: Box<dyn Fn()>,
}

impl Reporter {
    fn note(&mut self, event: &Event<'_>) {
        let now = Instant::now();
        if let Event::Planned(view) = event {
            let View { snapshot, policies, plan } = &***view;
            for place in plan.deletions() {
                let (Some(archive), Some(verdict)) = (snapshot.archives.get(place), plan.verdicts.get(place))
                else {
                    continue;
                };
                self.deciding.begin(&archive.file, verdict.policy.as_deref(), policies);
            }
            let mut summary = Summary::of(snapshot, policies, plan);
            for limit in summary.unreachable.iter().take(MOST_UNREACHABLE) {
                let about = format!("{} {}", limit.policy, limit.limit);
                self.state.problem("pins", about, limit.to_string(), now);
            }
            let wall = Timestamp::now();
            self.dry_runs
                .add_to(&mut summary, policies, now, |id| reckon(snapshot, policies, plan, wall, id));
            self.state.planned(summary, now);
        }
        let state = &self.state;
        let wrong = |kind, about, what| state.problem(kind, about, what, now);
        match event {
            Event::Planned(view) => {
                let plan = &view.plan;
                if let Some(round) = plan.watermark.filter(|round| !round.is_satisfied() && !round.waiting) {
                    use checkpoint_keeper_core::quantity::human;
                    let (wanted, freed) = (human(round.wanted_bytes), human(round.freed_bytes));
                    let what = format!("the disk is too full: wanted {wanted}, freed {freed}");
                    wrong("watermark", String::new(), what);
                }
                for policy in &plan.unjudged_storage {
                    let what = format!("{policy} selects nodes, and this node's labels are not known");
                    wrong("labels", policy.to_string(), what);
                }
                // What is still wrong was said again at the last look, or will be at the next.
                let age = (self.interval * 2 + Duration::from_secs(1)).max(api::TICK * 3);
                self.state.forget_problems(age, now);
            }
            Event::Finished(outcome) => {
                let generation = self.deciding.end(&outcome.deletion.archive.file);
                self.audit(outcome, generation);
                if let Removal::Failed(error) = &outcome.removal {
                    let file = outcome.deletion.archive.file.to_string();
                    let what = format!("cannot delete {file}: {error}");
                    wrong("delete", file, what);
                }
                self.state.finished(outcome, Timestamp::now());
            }
            Event::Discards(discarded) => self.state.discarded(discarded),
            Event::Problem(problem) => note_problem(state, problem, now),
            Event::Catalog(problem) => note_catalog_problem(state, problem, now),
            Event::Reading(_) => {}
            Event::DirectoryGone => self.state.gone(Some("the directory is gone".to_owned())),
            Event::DirectoryReplaced => {
                say("note", "another directory took the place of the old one");
                self.state.gone(None);
            }
            Event::DirectoryUnusable(error) => self.state.gone(Some(error.to_string())),
            Event::NoDirWatcher(error) => {
                wrong(
                    "directory watcher",
                    String::new(),
                    format!("the system gives no notice of changes: {error}"),
                );
            }
            Event::DirectoryDead => {
                say(
                    "error",
                    "the directory was removed under its mount: ending, so that the restart mounts the new one",
                );
                self.is_dead.store(true, Ordering::Relaxed);
                (self.end)();
            }
        }
    }

    /// One line for each deletion, for good.
    fn audit(&self, outcome: &Outcome, policy_generation: Option<i64>) {
        if !matches!(outcome.removal, Removal::Removed) {
            return;
        }
        // A full disk may stop the log, and must not stop what frees it.
        if let Err(error) = (self.audit)(outcome, policy_generation) {
            let what = format!("cannot write the audit line of a deletion: {error}");
            self.state.problem("audit", String::new(), what, Instant::now());
        }
    }
}

/// So many limits that pins make unreachable are told of at a time.
const MOST_UNREACHABLE: usize = 100;

fn note_problem(state: &AgentState, problem: &Problem, now: Instant) {
    let (kind, about) = match problem {
        Problem::List(_) => ("list", String::new()),
        Problem::Look(file, _) => ("look", file.to_string()),
        Problem::Read(file, _) => ("read", file.to_string()),
        Problem::Clock => ("clock", String::new()),
        Problem::ServerClock => ("server clock", String::new()),
        Problem::Unanswered(question, _) => ("unanswered", question.to_string()),
        Problem::PinsNothing(file) => ("marker", file.to_string()),
        Problem::Undated(file, _) => ("undated", file.to_string()),
        Problem::ClockIsBehind => ("clock is behind", String::new()),
        Problem::WatermarkIneffective(_) => ("watermark ineffective", String::new()),
        Problem::NoLeases(_) => ("leases", String::new()),
        Problem::FileSystem(_) => ("file system", String::new()),
    };
    state.problem(kind, about, problem.to_string(), now);
}

fn note_catalog_problem(state: &AgentState, problem: &CatalogProblem, now: Instant) {
    let kind = match problem {
        CatalogProblem::SetAside(_) => "catalog set aside",
        CatalogProblem::Unusable(_) => "catalog",
    };
    state.problem(kind, String::new(), problem.to_string(), now);
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

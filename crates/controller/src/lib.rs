//! `checkpoint-keeper controller`: what one of a cluster needs only one of, and no disk.
//!
//! It says in every policy object whether that is in force and what it governs. Several replicas may run; the one
//! with the lease works.
//!
//! Deciding is pure: [`statuses`] and [`totals`] (what policy objects should say), [`throttle`] (when they say it).
//! Doing is [`writer`] and [`store_cache`]; [`work`] puts them together.

mod agents;
mod condition;
pub mod enforcement;
pub mod finalizers;
pub mod metrics;
pub mod node_report;
pub mod quota_sums;
pub mod quotas;
pub mod schedules;
pub mod status_write;
pub mod statuses;
pub mod store_cache;
pub mod throttle;
pub mod totals;
pub mod work;
pub mod writer;

use std::collections::BTreeSet;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, interval};

use agents::{Absences, Agents};
use checkpoint_keeper_runtime::election::{LeaseTimings, Lost};
use checkpoint_keeper_runtime::lease::LeaderElector;
use checkpoint_keeper_runtime::liveness;
use checkpoint_keeper_runtime::policy_objects::PolicyObjects;
use checkpoint_keeper_runtime::problem_log::{Entry, ProblemLog};
use checkpoint_keeper_runtime::quota_objects::QuotaObjects;
use checkpoint_keeper_runtime::requests::RequestCounts;
use checkpoint_keeper_runtime::schedule_objects::ScheduleObjects;
use checkpoint_keeper_runtime::telemetry;
use metrics::Metrics;
use prometheus_client::registry::Registry;
use store_cache::StoreCache;
use throttle::Throttle;
use work::Work;
use writer::Writer;

/// By whom fields are written.
pub const FIELD_MANAGER: &str = "checkpoint-keeper-controller";

/// How long the lease holds after it was renewed.
pub const LEASE: Duration = Duration::from_secs(15);

/// How long the work may stand still until it is stuck for good.
const STUCK: Duration = Duration::from_mins(5);

/// How often it is looked which watches fail.
const TICK: Duration = Duration::from_secs(5);

/// What a replica is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The operator's own namespace: the lease is there.
    pub namespace: String,
    /// This replica's name.
    pub identity: String,
    /// More namespaces whose `CheckpointRestoreOperator`s govern the cluster.
    pub cluster_policy_namespaces: Vec<String>,
    /// The namespaces that the older operator may be installed in.
    pub other_operator_namespaces: Vec<String>,
    /// The directory that agents collect in.
    pub directory: String,
}

/// A replica.
pub struct Controller {
    client: Client,
    settings: Settings,
    objects: PolicyObjects,
    schedules: ScheduleObjects,
    quotas: QuotaObjects,
    stores: StoreCache,
    agents: Agents,
    metrics: Metrics,
    requests: RequestCounts,
    pulse: watch::Sender<Instant>,
}

impl Controller {
    /// One that has not begun yet.
    pub fn new(client: &Client, settings: Settings) -> Self {
        let objects = PolicyObjects::new(&settings.other_operator_namespaces);
        let requests = RequestCounts::default();
        let schedules = ScheduleObjects::new(settings.namespace.clone());
        Self {
            client: requests.counted(client),
            settings,
            objects,
            schedules,
            quotas: QuotaObjects::new(None),
            stores: StoreCache::default(),
            agents: Agents::default(),
            metrics: Metrics::default(),
            requests,
            pulse: watch::Sender::new(Instant::now()),
        }
    }

    /// A registry with its metrics.
    pub fn registry(&self) -> Registry {
        let (objects, not_ready_reasons) = (self.objects.clone(), self.not_ready_reasons());
        metrics::registry(
            &self.metrics,
            telemetry::Sources {
                requests: self.requests.clone(),
                is_ready: Box::new(move || not_ready_reasons().is_empty()),
                watch_ages: Box::new(move || objects.watch_ages(liveness::now())),
            },
        )
    }

    /// What keeps it from working, or from taking over.
    pub fn not_ready_reasons(&self) -> impl Fn() -> Vec<String> + Send + Sync + use<> {
        let (objects, stores, agents) = (self.objects.clone(), self.stores.clone(), self.agents.clone());
        move || {
            let now = liveness::now();
            [objects.not_ready_reasons(now), stores.not_ready_reasons(now), agents.not_ready_reasons(now)]
                .concat()
        }
    }

    /// Whether it is stuck for good.
    pub fn is_alive(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let pulse = self.pulse.subscribe();
        move || pulse.borrow().elapsed() < STUCK
    }

    /// Leads whenever possible, until it is told to stop. Who lost the lease stops for good: what it
    /// began while it led may be under way still.
    pub async fn run(self, stop: watch::Receiver<bool>) -> Result<(), Lost> {
        let Self {
            client,
            settings,
            objects,
            schedules,
            quotas,
            stores,
            agents,
            metrics,
            pulse,
            requests: _,
        } = self;
        let Settings { namespace, identity, cluster_policy_namespaces, directory, .. } = settings;
        let mut elector =
            LeaderElector::new(&client, &namespace, identity.clone(), FIELD_MANAGER, LeaseTimings::of(LEASE));
        let mut operator_namespaces: BTreeSet<String> = cluster_policy_namespaces.into_iter().collect();
        operator_namespaces.insert(namespace.clone());
        let work = Work {
            writer: Writer::new(client.clone(), identity),
            objects: objects.clone(),
            schedules: schedules.clone(),
            stores: stores.clone(),
            agents: agents.clone(),
            absences: Absences::default(),
            operator_namespaces,
            directory,
            metrics: metrics.clone(),
            held: elector.held_until(),
            stop,
            pulse,
            quotas: quotas.clone(),
            throttle: Throttle::default(),
            problems: ProblemLog::default(),
        };
        let watches = async {
            tokio::join!(
                objects.watch(&client),
                schedules.watch(&client),
                quotas.watch(&client),
                stores.watch(&client),
                agents.watch(&client, &namespace),
                log_watches(&objects, &schedules, &quotas, &stores, &agents),
            );
            // Watches do not end.
            std::future::pending::<()>().await;
        };
        let lost = tokio::select! {
            biased;
            lost = elector.keep() => Some(lost),
            () = work.run() => None,
            () = watches => None,
        };
        metrics.leads(false);
        if let Some(lost) = lost {
            return Err(lost);
        }
        elector.release().await;
        Ok(())
    }
}

/// Logs which watches fail, for as long as it is polled.
async fn log_watches(
    objects: &PolicyObjects,
    schedules: &ScheduleObjects,
    quotas: &QuotaObjects,
    stores: &StoreCache,
    agents: &Agents,
) {
    let mut log = ProblemLog::default();
    let mut tick = interval(TICK);
    loop {
        tick.tick().await;
        let now = std::time::Instant::now();
        let mut problems = objects.watch_problems(now);
        problems.extend(schedules.watch_problems(now));
        problems.extend(quotas.watch_problem(now));
        problems.extend(stores.watch_problem(now));
        problems.extend(agents.watch_problem(now));
        log.update(problems, now).iter().for_each(Entry::log);
    }
}

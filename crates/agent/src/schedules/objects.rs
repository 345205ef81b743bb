//! The schedules that the API shows, of both kinds.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use checkpoint_keeper_api::{CheckpointSchedule, LegacyCheckpointSchedule};
use checkpoint_keeper_core::schedule::{Schedule, ScheduleKind, ScheduleRef};
use checkpoint_keeper_runtime::cache::Cache;
use checkpoint_keeper_runtime::definition::Definition;
use checkpoint_keeper_runtime::guarded;
use checkpoint_keeper_runtime::liveness::now;
use checkpoint_keeper_runtime::problem_log::Problem;
use checkpoint_keeper_runtime::watch::{follow, objects_of};
use jiff::Timestamp;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, CustomResourceExt, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// So many objects are listed at a time.
const PAGE: u32 = 20;

/// The schedules, as far as they were seen; shared by whoever watches and whoever asks.
#[derive(Debug, Clone)]
pub(super) struct ScheduleObjects {
    caches: Arc<Mutex<Caches>>,
    legacy_definition: Definition,
    changed: watch::Sender<()>,
    /// The operator's own namespace, whose objects of the older operator may name other namespaces.
    operator_namespace: String,
}

/// Both kinds; none for an object that cannot be read.
#[derive(Debug, Default)]
struct Caches {
    native: Cache<Option<CheckpointSchedule>>,
    legacy: Cache<Option<LegacyCheckpointSchedule>>,
}

impl ScheduleObjects {
    /// None seen yet.
    pub(super) fn new(operator_namespace: String) -> Self {
        let changed = watch::Sender::new(());
        Self {
            caches: Arc::default(),
            legacy_definition: Definition::new(LegacyCheckpointSchedule::crd_name(), changed.clone()),
            changed,
            operator_namespace,
        }
    }

    /// Watches both, for as long as it is polled.
    pub(super) async fn watch(&self, client: &Client) {
        tokio::join!(
            self.watch_kind(client, |caches| &mut caches.native),
            self.legacy_definition.watch(client),
            self.watch_legacy(client),
        );
    }

    async fn watch_kind<K>(
        &self,
        client: &Client,
        of: impl Fn(&mut Caches) -> &mut Cache<Option<K>> + Copy + Send,
    ) where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
    {
        let config = watcher::Config::default().page_size(PAGE);
        let events = watcher(objects_of::<K>(client), config);
        follow(events.modify(|object| guarded::strip(&mut object.metadata)), |change| {
            if of(&mut self.caches()).note(change, now(), |object| guarded::read(object).ok()) {
                self.changed.send_replace(());
            }
        })
        .await;
    }

    /// Watches the older operator's kind while the API defines it.
    async fn watch_legacy(&self, client: &Client) {
        loop {
            self.legacy_definition.until(true).await;
            tokio::select! {
                () = self.watch_kind(client, |caches| &mut caches.legacy) => {}
                () = self.legacy_definition.until(false) => {}
            }
            self.caches().legacy = Cache::default();
            self.changed.send_replace(());
        }
    }

    fn caches(&self) -> MutexGuard<'_, Caches> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change from here on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether there is any.
    pub(super) fn any(&self) -> bool {
        let caches = self.caches();
        !caches.native.objects.is_empty() || !caches.legacy.objects.is_empty()
    }

    /// All that can be carried out, once both kinds have been listed in full; nothing before. While the older operator
    /// runs, its schedules are its own.
    pub(super) fn all(&self, other_operator: bool, now: Timestamp) -> Option<Vec<Arc<Schedule>>> {
        let is_defined = self.legacy_definition.is_defined()?;
        let caches = self.caches();
        if !caches.native.is_listed() || (is_defined && !caches.legacy.is_listed()) {
            return None;
        }
        let native =
            caches.native.objects.values().flatten().filter_map(|schedule| schedule.to_schedule(now).ok());
        let legacy = caches.legacy.objects.values().flatten().filter(|_| !other_operator);
        let legacy = legacy.filter_map(|schedule| schedule.to_schedule(&self.operator_namespace, now).ok());
        Some(native.chain(legacy.map(|legacy| legacy.schedule)).map(Arc::new).collect())
    }

    /// The UID of one of them, for references to it.
    pub(super) fn uid_of(&self, schedule: &ScheduleRef) -> Option<String> {
        let caches = self.caches();
        let key = (schedule.namespace.clone(), schedule.name.clone());
        match schedule.kind {
            ScheduleKind::Native => caches.native.objects.get(&key)?.as_ref()?.uid(),
            ScheduleKind::Legacy => caches.legacy.objects.get(&key)?.as_ref()?.uid(),
        }
    }

    /// What is wrong with each watch at this moment, for the log.
    pub(super) fn watch_problems(&self, now: Instant) -> Vec<Problem> {
        let caches = self.caches();
        let problems = [
            caches.native.problem("checkpointschedules", now),
            caches.legacy.problem("checkpointschedules.criu.org", now),
        ];
        problems.into_iter().flatten().chain(self.legacy_definition.problem(now)).collect()
    }
}

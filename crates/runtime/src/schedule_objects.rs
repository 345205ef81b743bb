//! The schedules that the API shows, of both kinds.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use checkpoint_keeper_api::{CheckpointSchedule, LegacyCheckpointSchedule};
use checkpoint_keeper_core::policy::ScheduleRetention;
use checkpoint_keeper_core::schedule::{Schedule, ScheduleKind, ScheduleRef};
use jiff::Timestamp;
use kube::{Client, CustomResourceExt, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::bounded_watch::{Read, watch_bounded};
use super::cache::Cache;
use super::definition::Definition;
use super::guarded::Broken;
use super::liveness::{now, other_watch};
use super::problem_log::Problem;
use super::watch::Change;

/// So many objects are listed at a time.
const PAGE: u32 = 20;

/// The schedules, as far as they were seen; shared by whoever watches and whoever asks.
#[derive(Debug, Clone)]
pub struct ScheduleObjects {
    caches: Arc<Mutex<Caches>>,
    legacy_definition: Definition,
    changed: watch::Sender<()>,
    /// The operator's own namespace, whose objects of the older operator may name other namespaces.
    operator_namespace: String,
}

/// An object as its kind, or what is left of it.
pub type SeenSchedule<K> = Result<Arc<K>, Arc<Broken>>;

#[derive(Debug, Default)]
struct Caches {
    native: Cache<SeenSchedule<CheckpointSchedule>>,
    legacy: Cache<SeenSchedule<LegacyCheckpointSchedule>>,
}

/// All objects of both kinds.
#[derive(Debug, Default)]
pub struct AllSchedules {
    /// Our own.
    pub native: Vec<SeenSchedule<CheckpointSchedule>>,
    /// The older operator's.
    pub legacy: Vec<SeenSchedule<LegacyCheckpointSchedule>>,
}

impl ScheduleObjects {
    /// None seen yet.
    pub fn new(operator_namespace: String) -> Self {
        let changed = watch::Sender::new(());
        Self {
            caches: Arc::default(),
            legacy_definition: Definition::new(LegacyCheckpointSchedule::crd_name(), changed.clone()),
            changed,
            operator_namespace,
        }
    }

    /// Watches both, for as long as it is polled.
    pub async fn watch(&self, client: &Client) {
        tokio::join!(
            self.watch_kind(client, |caches| &mut caches.native),
            self.legacy_definition.watch(client),
            self.watch_legacy(client),
        );
    }

    async fn watch_kind<K>(
        &self,
        client: &Client,
        of: impl Fn(&mut Caches) -> &mut Cache<SeenSchedule<K>> + Copy + Send + Sync,
    ) where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
    {
        watch_bounded(client, other_watch().page_size(PAGE), |change: Change<(_, Read<K>)>| {
            let change = change.map(|(key, read)| (key, read.map(Arc::new).map_err(Arc::from)));
            if of(&mut self.caches()).note_kept(change, now()) {
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
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Whether there is any.
    pub fn any(&self) -> bool {
        let caches = self.caches();
        !caches.native.objects.is_empty() || !caches.legacy.objects.is_empty()
    }

    /// All objects, once both kinds have been listed in full; nothing before.
    pub fn all(&self) -> Option<AllSchedules> {
        let is_defined = self.legacy_definition.is_defined()?;
        let caches = self.caches();
        if !caches.native.is_listed() || (is_defined && !caches.legacy.is_listed()) {
            return None;
        }
        Some(AllSchedules {
            native: caches.native.objects.values().cloned().collect(),
            legacy: caches.legacy.objects.values().cloned().collect(),
        })
    }

    /// All schedules that can be carried out, once both kinds have been listed in full; nothing before. While the older
    /// operator runs, its schedules are its own.
    pub fn schedules(&self, other_operator: bool, now: Timestamp) -> Option<Vec<Arc<Schedule>>> {
        let all = self.all()?;
        let native = all.native.iter().flatten().filter_map(|schedule| schedule.to_schedule(now).ok());
        let legacy = all.legacy.iter().flatten().filter(|_| !other_operator);
        let legacy = legacy.filter_map(|schedule| schedule.to_schedule(&self.operator_namespace, now).ok());
        Some(native.chain(legacy.map(|legacy| legacy.schedule)).map(Arc::new).collect())
    }

    /// What schedules keep of the archives that they had made, as far as the watch shows it for certain at this moment;
    /// otherwise nothing is said, and so all archives stay.
    pub fn retention(&self, now: Instant, wall: Timestamp) -> Vec<ScheduleRetention> {
        let caches = self.caches();
        if !caches.native.is_up(now) {
            return Vec::new();
        }
        let schedules = caches.native.objects.values().flatten();
        let schedules = schedules.filter_map(|schedule| schedule.to_schedule(wall).ok());
        schedules.filter_map(|schedule| schedule.archive_retention()).collect()
    }

    /// The operator's own namespace, whose objects of the older operator may name other namespaces.
    pub fn operator_namespace(&self) -> &str {
        &self.operator_namespace
    }

    /// The UID of one of them, for references to it.
    pub fn uid_of(&self, schedule: &ScheduleRef) -> Option<String> {
        let caches = self.caches();
        let key = (schedule.namespace.clone(), schedule.name.clone());
        match schedule.kind {
            ScheduleKind::Native => caches.native.objects.get(&key)?.as_ref().ok()?.uid(),
            ScheduleKind::Legacy => caches.legacy.objects.get(&key)?.as_ref().ok()?.uid(),
        }
    }

    /// What is wrong with each watch, if that is so for so long that it counts: schedules may be out of date.
    pub fn watch_errors(&self, now: Instant) -> Vec<String> {
        let caches = self.caches();
        let is_defined = self.legacy_definition.is_defined().unwrap_or_default();
        let legacy = caches.legacy.error("checkpointschedules.criu.org", now).filter(|_| is_defined);
        caches.native.error("checkpointschedules", now).into_iter().chain(legacy).collect()
    }

    /// What is wrong with each watch at this moment, for the log.
    pub fn watch_problems(&self, now: Instant) -> Vec<Problem> {
        let caches = self.caches();
        let problems = [
            caches.native.problem("checkpointschedules", now),
            caches.legacy.problem("checkpointschedules.criu.org", now),
        ];
        problems.into_iter().flatten().chain(self.legacy_definition.problem(now)).collect()
    }
}

//! The objects that say what may be deleted, as the API shows them now and from then on.
//!
//! Each kind is watched by itself: a kind that may not be read, or that is not installed, does not keep
//! the others from being seen. Objects that are not what their kind says are seen as such.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use checkpoint_keeper_api::in_force::{Objects, Seen, Unparsable};
use checkpoint_keeper_api::{
    CheckpointPolicy, CheckpointRestoreOperator, CheckpointStoragePolicy, ClusterCheckpointPolicy,
};
use checkpoint_keeper_core::policy::PolicyRef;
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::guarded::Guarded;

/// The older operator's lease (its `main.go`, `LeaderElectionID`).
const OTHER_OPERATOR: &str = "f1499914.criu.org";

/// How long a lease counts as renewed after it was, where it does not say itself.
const LEASE: Duration = Duration::from_secs(15);

/// How long a watch may fail until what it showed is old news.
const STALE: Duration = Duration::from_mins(5);

/// What a watch shows.
#[derive(Debug)]
pub enum Change<T> {
    /// These are all there are.
    Listed(Vec<T>),
    /// This one is new, or changed.
    Applied(T),
    /// This one is gone.
    Deleted(T),
    /// Nothing, at the moment.
    Failed(String),
}

/// Follows a watch for as long as it is polled. It backs off by itself.
pub async fn follow<T: Send>(
    events: impl Stream<Item = watcher::Result<watcher::Event<T>>> + Send,
    mut tell: impl FnMut(Change<T>),
) {
    let mut events = pin!(events.default_backoff());
    let mut listing = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listing.clear(),
            Ok(watcher::Event::InitApply(object)) => listing.push(object),
            Ok(watcher::Event::InitDone) => tell(Change::Listed(std::mem::take(&mut listing))),
            Ok(watcher::Event::Apply(object)) => tell(Change::Applied(object)),
            Ok(watcher::Event::Delete(object)) => tell(Change::Deleted(object)),
            Err(error) => tell(Change::Failed(error.to_string())),
        }
    }
}

/// One kind, as far as it was seen.
#[derive(Debug)]
pub(crate) struct Shelf<T> {
    /// By namespace and name.
    pub(crate) objects: BTreeMap<(String, String), T>,
    /// Whether all of them were seen once.
    pub(crate) is_listed: bool,
    /// Since when the watch fails, and why.
    failing: Option<(Instant, String)>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), is_listed: false, failing: None }
    }
}

impl<T> Shelf<T> {
    /// Notes a change; says whether it is one.
    pub(crate) fn note<O: ResourceExt>(&mut self, change: Change<O>, keep: impl Fn(O) -> T) -> bool {
        let key = |object: &O| (object.namespace().unwrap_or_default(), object.name_any());
        if let Change::Failed(why) = change {
            self.failing.get_or_insert_with(|| (Instant::now(), String::new())).1 = why;
            return false;
        }
        self.failing = None;
        match change {
            Change::Listed(objects) => {
                self.objects = objects.into_iter().map(|object| (key(&object), keep(object))).collect();
                self.is_listed = true;
            }
            Change::Applied(object) => _ = self.objects.insert(key(&object), keep(object)),
            Change::Deleted(object) => _ = self.objects.remove(&key(&object)),
            Change::Failed(_) => {}
        }
        true
    }

    /// What is wrong with the watch, if that is so for so long that it counts.
    pub(crate) fn trouble(&self, kind: &str, now: Instant) -> Option<String> {
        match &self.failing {
            Some((since, why)) if !self.is_listed || now.duration_since(*since) >= STALE => {
                Some(format!("{kind} cannot be watched: {why}"))
            }
            None if !self.is_listed => Some(format!("{kind} were not listed yet")),
            _ => None,
        }
    }
}

#[derive(Debug, Default)]
struct Shelves {
    cluster: Shelf<Seen<ClusterCheckpointPolicy>>,
    namespaced: Shelf<Seen<CheckpointPolicy>>,
    storage: Shelf<Seen<CheckpointStoragePolicy>>,
    legacy: Shelf<Seen<CheckpointRestoreOperator>>,
    /// The older operator's leases: when each was seen renewed, and for how long that counts.
    leases: Shelf<(Instant, Duration)>,
}

/// What was seen of all kinds; shared by whoever watches and whoever asks.
#[derive(Debug, Clone)]
pub struct PolicyObjects {
    shelves: Arc<Mutex<Shelves>>,
    changed: watch::Sender<()>,
}

impl Default for PolicyObjects {
    fn default() -> Self {
        Self { shelves: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl PolicyObjects {
    /// Watches everything, for as long as it is polled.
    pub async fn watch(&self, client: &Client) {
        tokio::join!(
            self.watch_kind(Api::all(client.clone()), |shelves| &mut shelves.cluster),
            self.watch_kind(Api::all(client.clone()), |shelves| &mut shelves.namespaced),
            self.watch_kind(Api::all(client.clone()), |shelves| &mut shelves.storage),
            self.watch_kind(Api::all(client.clone()), |shelves| &mut shelves.legacy),
            self.watch_leases(Api::all(client.clone())),
        );
    }

    async fn watch_kind<K>(
        &self,
        api: Api<Guarded<K>>,
        of: impl Fn(&mut Shelves) -> &mut Shelf<Seen<K>> + Copy,
    ) where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
    {
        follow(watcher(api, watcher::Config::default()), |change| {
            if of(&mut self.shelves()).note(change, seen) {
                self.changed.send_replace(());
            }
        })
        .await;
    }

    async fn watch_leases(&self, api: Api<Lease>) {
        let config = watcher::Config::default().fields(&format!("metadata.name={OTHER_OPERATOR}"));
        follow(watcher(api, config), |change| {
            // By our own clock: whoever renews a lease need not agree with it on what time it is. One
            // that was just listed counts as renewed, as nothing says that it was not.
            let renewed = |lease: Lease| {
                let spec = lease.spec.unwrap_or_default();
                let held = spec.holder_identity.is_some_and(|holder| !holder.is_empty());
                let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
                let counts = seconds.map_or(LEASE, Duration::from_secs);
                (Instant::now(), if held { counts } else { Duration::ZERO })
            };
            if self.shelves().leases.note(change, renewed) {
                self.changed.send_replace(());
            }
        })
        .await;
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change from here on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// All objects, once every kind has been listed in full; nothing before.
    pub fn all(&self) -> Option<Objects> {
        let shelves = self.shelves();
        let is_complete = shelves.cluster.is_listed
            && shelves.namespaced.is_listed
            && shelves.storage.is_listed
            && shelves.legacy.is_listed
            && shelves.leases.is_listed;
        is_complete.then(|| Objects {
            cluster: shelves.cluster.objects.values().cloned().collect(),
            namespaced: shelves.namespaced.objects.values().cloned().collect(),
            storage: shelves.storage.objects.values().cloned().collect(),
            legacy: shelves.legacy.objects.values().cloned().collect(),
        })
    }

    /// Whether the older operator renews its lease: seen to within twice the time that it holds.
    pub fn other_operator_runs(&self, now: Instant) -> bool {
        let shelves = self.shelves();
        shelves.leases.objects.values().any(|(renewed, counts)| now.duration_since(*renewed) < *counts * 2)
    }

    /// Tells those who wait for changes that something changed beside the objects.
    pub fn touch(&self) {
        self.changed.send_replace(());
    }

    /// The UIDs of all objects, for references to them.
    pub fn uids(&self) -> BTreeMap<PolicyRef, String> {
        let shelves = self.shelves();
        let mut uids = BTreeMap::new();
        uids.extend(uids_of(&shelves.cluster, ClusterCheckpointPolicy::policy_ref));
        uids.extend(uids_of(&shelves.namespaced, CheckpointPolicy::policy_ref));
        uids.extend(uids_of(&shelves.storage, CheckpointStoragePolicy::policy_ref));
        uids.extend(uids_of(&shelves.legacy, CheckpointRestoreOperator::policy_ref));
        uids
    }

    /// The UIDs of the objects in each namespace that say what may be deleted there.
    pub fn governors(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut governors: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (id, uid) in self.uids() {
            if let Some(namespace) = id.namespace {
                governors.entry(namespace).or_default().insert(uid);
            }
        }
        governors
    }

    /// What is wrong with the watches.
    pub fn troubles(&self, now: Instant) -> Vec<String> {
        let shelves = self.shelves();
        [
            shelves.cluster.trouble("clustercheckpointpolicies", now),
            shelves.namespaced.trouble("checkpointpolicies", now),
            shelves.storage.trouble("checkpointstoragepolicies", now),
            shelves.legacy.trouble("checkpointrestoreoperators", now),
            shelves.leases.trouble("leases", now),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

fn uids_of<K: ResourceExt>(
    shelf: &Shelf<Seen<K>>,
    id: impl Fn(&K) -> PolicyRef,
) -> impl Iterator<Item = (PolicyRef, String)> {
    shelf.objects.values().filter_map(move |object| match object {
        Seen::Parsed(object) => Some((id(object), object.uid()?)),
        Seen::Unparsable(_) => None,
    })
}

fn seen<K>(object: Guarded<K>) -> Seen<K> {
    match object.0 {
        Ok(object) => Seen::Parsed(object),
        Err(broken) => Seen::Unparsable(Box::new(Unparsable {
            namespace: broken.metadata.namespace,
            name: broken.metadata.name.unwrap_or_default(),
            uid: broken.metadata.uid,
            resource_version: broken.metadata.resource_version,
            generation: broken.metadata.generation,
            status: broken.status.and_then(|status| serde_json::from_value(status).ok()),
            error: broken.error,
        })),
    }
}

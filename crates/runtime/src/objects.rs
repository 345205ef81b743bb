//! The objects that say what may be deleted, as the API shows them now and from then on.
//!
//! Each kind is watched by itself: a kind that may not be read, or that is not installed, does not keep
//! the others from being seen. Objects that are not what their kind says are seen as such.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use checkpoint_keeper_api::effective::{Objects, Seen, Unparsable};
use checkpoint_keeper_api::{
    CheckpointPolicy, CheckpointRestoreOperator, CheckpointStoragePolicy, ClusterCheckpointPolicy,
};
use checkpoint_keeper_core::policy::PolicyRef;
use futures_util::future::join_all;
use futures_util::{Stream, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{interval, sleep, timeout};

use super::guarded::{self, Guarded};
use super::liveness::{Heard, RESUMED, SILENCE, WATCH_SECONDS, listened, now};
use super::renewal::Renewal;
use super::say::say;

/// The older operator's lease (its `main.go`, `LeaderElectionID`).
const OTHER_OPERATOR: &str = "f1499914.criu.org";

/// The namespaces that the older operator is installed in unless somebody chose another: its
/// `config/default/kustomization.yaml` said the second one until July 2026, before its first release, and says the
/// first one since.
pub const OTHER_OPERATOR_NAMESPACES: [&str; 2] =
    ["checkpoint-restore-operator", "checkpoint-restore-operator-system"];

/// So many objects are listed at a time. Each may be a megabyte, of which next to nothing is kept.
const PAGE: u32 = 20;

/// How long a watch may fail until what it showed is old news.
const STALE: Duration = Duration::from_mins(5);

/// How long policies may go unconfirmed until that is said: a watch that was cut is open again by then.
const UNCONFIRMED: Duration = Duration::from_mins(1);

/// How soon one error follows the other where a watch fails: a reply that does not come is waited for, and
/// then comes a pause.
const REPEATED: Duration = Duration::from_mins(3);

/// How often it is looked whether a lease has gone quiet.
const TICK: Duration = Duration::from_secs(5);

/// How often it is asked for a kind that the API does not serve.
const ABSENT: Duration = Duration::from_mins(1);

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);

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

/// An object's metadata, of whichever kind: one type for all, as each makes a watch of its own in the program.
pub type Metadata = PartialObjectMeta<DynamicObject>;

/// All objects of a kind, as far as their metadata go.
pub fn metadata_of<K: Resource<DynamicType = ()>>(client: &Client) -> Api<Metadata> {
    Api::all_with(client.clone(), &ApiResource::erase::<K>(&()))
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

/// Whether a watch is up, as far as its changes tell. One that is taken up again after an error says so by
/// nothing but that no other error follows.
#[derive(Debug, Default)]
pub struct WatchHealth {
    /// Whether all was seen once.
    is_listed: bool,
    failing: Option<Failing>,
    /// Whether somebody listens to the connection itself.
    is_listened: bool,
    /// When the API last opened the watch, and when anything last came of it.
    opened: Option<Instant>,
    heard: Option<Instant>,
    /// When what it showed was last known to be how things are.
    confirmed: Option<Instant>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    why: String,
}

impl WatchHealth {
    /// Notes a change that the watch showed at that time.
    pub fn note<T>(&mut self, change: &Change<T>, now: Instant) {
        match change {
            Change::Failed(why) => {
                let since = self.failing(now).map_or(now, |failing| failing.since);
                self.failing = Some(Failing { since, last: now, why: why.clone() });
            }
            Change::Listed(_) => {
                (self.is_listed, self.failing) = (true, None);
                self.heard = Some(now);
            }
            Change::Applied(_) | Change::Deleted(_) => self.failing = None,
        }
    }

    /// From here on what is heard on the connection is noted.
    fn listen(&mut self) {
        self.is_listened = true;
    }

    /// Notes what was heard on the connection.
    fn note_heard(&mut self, heard: Heard, now: Instant) {
        self.heard = Some(now);
        if heard == Heard::Opened {
            self.opened = Some(now);
        }
    }

    /// The errors of now, if there are any. One that nothing is known of but that no other followed is over after
    /// a while; where the connection is listened to, when the watch was opened again.
    fn failing(&self, now: Instant) -> Option<&Failing> {
        self.failing.as_ref().filter(|failing| {
            if self.is_listened {
                let opened = self.opened.filter(|opened| *opened > failing.last);
                opened.is_none_or(|opened| now.saturating_duration_since(opened) < RESUMED)
            } else {
                now.saturating_duration_since(failing.last) < REPEATED
            }
        })
    }

    /// Whether nothing is heard on a watch that must say something by now.
    fn hangs(&self, now: Instant) -> bool {
        self.is_listened && self.heard.is_some_and(|heard| now.saturating_duration_since(heard) >= SILENCE)
    }

    /// Why what it showed need not be how things are, if so; and since when.
    pub fn doubt(&mut self, kind: &'static str, now: Instant) -> Option<Doubt> {
        let why = match self.failing(now) {
            Some(failing) => Some(failing.why.clone()),
            None if !self.is_listed => Some("not listed yet".to_owned()),
            None => self.hangs(now).then(|| "nothing is heard of the watch".to_owned()),
        };
        let Some(why) = why else {
            self.confirmed = Some(now);
            return None;
        };
        Some(Doubt { kind, why, since: self.confirmed.unwrap_or(now) })
    }

    /// Whether all was seen once.
    pub fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// Whether what it showed is how things are.
    fn is_up(&self, now: Instant) -> bool {
        self.is_listed && self.failing(now).is_none()
    }

    /// What is wrong with the watch, if that is so for so long that it counts.
    pub fn error(&self, kind: &str, now: Instant) -> Option<String> {
        match self.failing(now) {
            Some(Failing { since, why, .. }) if !self.is_listed || now.duration_since(*since) >= STALE => {
                Some(format!("{kind} cannot be watched: {why}"))
            }
            None if !self.is_listed => Some(format!("{kind} were not listed yet")),
            None if self.hangs(now) => Some(format!("nothing is heard of the watch of {kind}")),
            _ => None,
        }
    }
}

/// That what was seen of a kind need not be how things are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    /// The kind's plural name.
    pub kind: &'static str,
    /// What is wrong.
    pub why: String,
    /// Since when.
    pub since: Instant,
}

/// One kind, as far as it was seen.
#[derive(Debug)]
pub struct Cache<T> {
    /// By namespace and name.
    pub objects: BTreeMap<(String, String), T>,
    health: WatchHealth,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), health: WatchHealth::default() }
    }
}

impl<T> Cache<T> {
    /// Notes a change; says whether it is one.
    pub fn note<O: ResourceExt>(&mut self, change: Change<O>, now: Instant, keep: impl Fn(O) -> T) -> bool {
        let key = |object: &O| (object.namespace().unwrap_or_default(), object.name_any());
        self.health.note(&change, now);
        match change {
            Change::Listed(objects) => {
                self.objects = objects.into_iter().map(|object| (key(&object), keep(object))).collect();
            }
            Change::Applied(object) => _ = self.objects.insert(key(&object), keep(object)),
            Change::Deleted(object) => _ = self.objects.remove(&key(&object)),
            Change::Failed(_) => return false,
        }
        true
    }

    /// Whether these are all that there are, now.
    pub fn is_up(&self, now: Instant) -> bool {
        self.health.is_up(now)
    }

    /// Whether all of them were seen once.
    pub fn is_listed(&self) -> bool {
        self.health.is_listed
    }

    /// What is wrong with the watch, if that is so for so long that it counts.
    pub fn error(&self, kind: &str, now: Instant) -> Option<String> {
        self.health.error(kind, now)
    }
}

#[derive(Debug, Default)]
struct Caches {
    cluster: Cache<Seen<ClusterCheckpointPolicy>>,
    namespaced: Cache<Seen<CheckpointPolicy>>,
    storage: Cache<Seen<CheckpointStoragePolicy>>,
    legacy: Cache<Seen<CheckpointRestoreOperator>>,
    /// The older operator's lease in each namespace where it may be installed.
    leases: BTreeMap<String, Cache<Renewal>>,
}

impl Caches {
    fn leases_are_listed(&self) -> bool {
        self.leases.values().all(Cache::is_listed)
    }

    fn lease_is_held(&self) -> bool {
        self.leases.values().any(Cache::is_held)
    }
}

/// What was seen of all kinds; shared by whoever watches and whoever asks.
#[derive(Debug, Clone)]
pub struct PolicyObjects {
    caches: Arc<Mutex<Caches>>,
    changed: watch::Sender<()>,
}

impl PolicyObjects {
    /// None seen yet. Whoever may write the lease in one of those namespaces says whether the older operator runs.
    pub fn new(other_operator_namespaces: &[String]) -> Self {
        let leases = other_operator_namespaces.iter().map(|namespace| (namespace.clone(), Cache::default()));
        let caches = Caches { leases: leases.collect(), ..Caches::default() };
        Self { caches: Arc::new(Mutex::new(caches)), changed: watch::Sender::new(()) }
    }

    /// Watches everything, for as long as it is polled.
    pub async fn watch(&self, client: &Client) {
        let namespaces: Vec<String> = self.caches().leases.keys().cloned().collect();
        let leases = namespaces
            .iter()
            .map(|namespace| self.watch_leases(namespace, Api::namespaced(client.clone(), namespace), TICK));
        tokio::join!(
            self.watch_kind(client, |caches| &mut caches.cluster, |_| None),
            self.watch_kind(client, |caches| &mut caches.namespaced, |_| None),
            self.watch_kind(client, |caches| &mut caches.storage, |_| None),
            self.watch_legacy(client),
            join_all(leases),
        );
    }

    /// Watches the older operator's kind. Its definition is another project's: where the API says that there is
    /// none, there are no objects either.
    async fn watch_legacy(&self, client: &Client) {
        let absent_since = Mutex::new(None::<Instant>);
        self.watch_kind(
            client,
            |caches| &mut caches.legacy,
            |event| {
                let mut since = absent_since.lock().unwrap_or_else(PoisonError::into_inner);
                // Each attempt begins with one of these.
                if matches!(event, Ok(watcher::Event::Init)) {
                    return None;
                }
                if !is_not_served(event) {
                    if since.take().is_some() && event.is_ok() {
                        say("note", "checkpointrestoreoperators.criu.org is defined now, and is watched");
                    }
                    return None;
                }
                let is_new = since.is_none();
                let since = *since.get_or_insert_with(now);
                if is_new {
                    say(
                        "note",
                        "checkpointrestoreoperators.criu.org is not defined here: no such object is in force",
                    );
                }
                Some(Absent { is_new, since })
            },
        )
        .await;
    }

    /// Watches a kind. `absence` tells of an event whether it says that the kind is not served at all.
    async fn watch_kind<K>(
        &self,
        client: &Client,
        of: impl Fn(&mut Caches) -> &mut Cache<Seen<K>> + Copy + Send + Sync + 'static,
        absence: impl Fn(&watcher::Result<watcher::Event<Guarded<K>>>) -> Option<Absent> + Send + Sync,
    ) where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
    {
        let caches = Arc::clone(&self.caches);
        of(&mut self.caches()).health.listen();
        let client = listened(client, move |heard| {
            let mut caches = caches.lock().unwrap_or_else(PoisonError::into_inner);
            of(&mut caches).health.note_heard(heard, now());
        });
        let api = Api::<Guarded<K>>::all(client);
        let events = watcher(api, watcher::Config::default().page_size(PAGE).timeout(WATCH_SECONDS));
        let events = events.modify(|object: &mut Guarded<K>| guarded::strip(object.meta_mut()));
        let absent = Mutex::new(None);
        let events = events.then(|event| {
            let found = absence(&event);
            *absent.lock().unwrap_or_else(PoisonError::into_inner) = found;
            async move {
                if found.is_some_and(|absent| !absent.is_new) {
                    sleep(ABSENT).await;
                }
                event
            }
        });
        follow(events, |change| {
            let absent = *absent.lock().unwrap_or_else(PoisonError::into_inner);
            let mut caches = self.caches();
            // Objects that were there are not gone because of one such reply.
            let are_none = absent.is_some_and(|absent| {
                of(&mut caches).objects.is_empty() || now().saturating_duration_since(absent.since) >= STALE
            });
            let change = if are_none { Change::Listed(Vec::new()) } else { change };
            let is_change = of(&mut caches).note(change, now(), seen);
            drop(caches);
            if is_change {
                self.changed.send_replace(());
            }
        })
        .await;
    }

    async fn watch_leases(&self, namespace: &str, api: Api<Lease>, tick: Duration) {
        let only = format!("metadata.name={OTHER_OPERATOR}");
        let config = watcher::Config::default().fields(&only);
        let only = ListParams::default().fields(&only);
        let is_missing = AtomicBool::new(false);
        let events = watcher(api.clone(), config)
            .inspect(|event| is_missing.store(is_not_found(event), Ordering::Relaxed));
        tokio::join!(
            follow(events, |change| {
                // Where the API knows of no such place, nobody renews a lease; who was seen to do so may all the
                // same.
                let is_free = is_missing.load(Ordering::Relaxed)
                    && !self.caches().leases.get(namespace).is_some_and(Cache::is_held);
                match change {
                    Change::Failed(_) if is_free => {
                        self.note_lease(namespace, Change::Listed(Vec::new()), now());
                    }
                    change => self.note_lease(namespace, change, now()),
                }
            }),
            self.ask_about_quiet_leases(namespace, &api, &only, tick),
        );
    }

    /// Asks whether a lease was renewed of which nothing is heard: that it was not is nothing to conclude from
    /// a watch.
    async fn ask_about_quiet_leases(
        &self,
        namespace: &str,
        api: &Api<Lease>,
        only: &ListParams,
        tick: Duration,
    ) {
        let mut tick = interval(tick);
        loop {
            tick.tick().await;
            if !self.caches().leases.get(namespace).is_some_and(|leases| leases.is_quiet(now())) {
                continue;
            }
            if let Ok(Ok(list)) = timeout(REQUEST, api.list(only)).await {
                self.note_lease(namespace, Change::Listed(list.items), now());
            }
        }
    }

    fn note_lease(&self, namespace: &str, change: Change<Lease>, now: Instant) {
        let mut caches = self.caches();
        let said = |caches: &Caches| (caches.leases_are_listed(), caches.lease_is_held());
        let said_before = said(&caches);
        let leases = caches.leases.entry(namespace.to_owned()).or_default();
        let before = leases.objects.clone();
        let seen = |lease: Lease| {
            let key = (lease.namespace().unwrap_or_default(), lease.name_any());
            Renewal::seen(lease.spec.unwrap_or_default(), before.get(&key), now)
        };
        leases.note(change, now, seen);
        // That it was renewed once more is no news.
        let is_news = said(&caches) != said_before;
        drop(caches);
        if is_news {
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

    /// All objects, once every kind has been listed in full; nothing before.
    pub fn all(&self) -> Option<Objects> {
        let caches = self.caches();
        let is_complete = caches.cluster.is_listed()
            && caches.namespaced.is_listed()
            && caches.storage.is_listed()
            && caches.legacy.is_listed()
            && caches.leases_are_listed();
        is_complete.then(|| Objects {
            cluster: caches.cluster.objects.values().cloned().collect(),
            namespaced: caches.namespaced.objects.values().cloned().collect(),
            storage: caches.storage.objects.values().cloned().collect(),
            legacy: caches.legacy.objects.values().cloned().collect(),
        })
    }

    /// Whether the older operator renews its lease. While that cannot be seen, it is as it was last seen.
    pub fn other_operator_runs(&self) -> bool {
        self.caches().lease_is_held()
    }

    /// Tells those who wait for changes that something changed beside the objects.
    pub fn notify(&self) {
        self.changed.send_replace(());
    }

    /// The UIDs of all objects, for references to them.
    pub fn uids(&self) -> BTreeMap<PolicyRef, String> {
        let caches = self.caches();
        let mut uids = BTreeMap::new();
        uids.extend(uids_of(&caches.cluster, ClusterCheckpointPolicy::policy_ref));
        uids.extend(uids_of(&caches.namespaced, CheckpointPolicy::policy_ref));
        uids.extend(uids_of(&caches.storage, CheckpointStoragePolicy::policy_ref));
        uids.extend(uids_of(&caches.legacy, CheckpointRestoreOperator::policy_ref));
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
    pub fn not_ready_reasons(&self, now: Instant) -> Vec<String> {
        let stale = self.stale(now);
        let caches = self.caches();
        let unlisted = [
            (caches.cluster.is_listed(), caches.cluster.error("clustercheckpointpolicies", now)),
            (caches.namespaced.is_listed(), caches.namespaced.error("checkpointpolicies", now)),
            (caches.storage.is_listed(), caches.storage.error("checkpointstoragepolicies", now)),
            (caches.legacy.is_listed(), caches.legacy.error("checkpointrestoreoperators", now)),
        ];
        let unlisted = unlisted.into_iter().filter_map(|(is_listed, trouble)| trouble.filter(|_| !is_listed));
        let leases = caches.leases.values().filter_map(|leases| leases.error("leases", now));
        unlisted.chain(stale).chain(leases).collect()
    }

    /// What keeps policies from being confirmed, where that lasts.
    pub fn stale(&self, now: Instant) -> Vec<String> {
        let lasts = |doubt: &Doubt| now.saturating_duration_since(doubt.since) >= UNCONFIRMED;
        let doubts = self.doubts(now).into_iter().filter(lasts);
        doubts.map(|doubt| format!("{} cannot be watched: {}", doubt.kind, doubt.why)).collect()
    }

    /// The kinds of policies of which what was seen need not be how things are; none: all are confirmed.
    pub fn doubts(&self, now: Instant) -> Vec<Doubt> {
        let mut caches = self.caches();
        [
            caches.cluster.health.doubt("clustercheckpointpolicies", now),
            caches.namespaced.health.doubt("checkpointpolicies", now),
            caches.storage.health.doubt("checkpointstoragepolicies", now),
            caches.legacy.health.doubt("checkpointrestoreoperators", now),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// That the API does not serve a kind.
#[derive(Debug, Clone, Copy)]
struct Absent {
    /// Whether it said so for the first time.
    is_new: bool,
    since: Instant,
}

/// Whether the API itself said that it does not serve a kind.
fn is_not_served<T>(event: &watcher::Result<T>) -> bool {
    use watcher::Error::{InitialListFailed, WatchStartFailed};
    matches!(event, Err(InitialListFailed(kube::Error::Api(status)) | WatchStartFailed(kube::Error::Api(status)))
        if status.code == 404 && status.reason == "NotFound")
}

/// Whether the API itself said that there is nothing to list.
fn is_not_found<T>(event: &watcher::Result<T>) -> bool {
    matches!(event, Err(watcher::Error::InitialListFailed(kube::Error::Api(status)))
        if status.code == 404 && status.reason == "NotFound")
}

fn uids_of<K: ResourceExt>(
    cache: &Cache<Seen<K>>,
    id: impl Fn(&K) -> PolicyRef,
) -> impl Iterator<Item = (PolicyRef, String)> {
    cache.objects.values().filter_map(move |object| match object {
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
            deletion_limit: broken.deletion_limit,
            precedence: broken.precedence,
            error: broken.error,
        })),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::json;

    use super::*;

    /// One that is looked at.
    fn namespaces() -> Vec<String> {
        vec![OTHER_OPERATOR_NAMESPACES[0].to_owned()]
    }

    fn lease(holder: &str, seconds: i64, renewed: &str) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"namespace": OTHER_OPERATOR_NAMESPACES[0], "name": OTHER_OPERATOR},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": renewed},
        }))
        .unwrap()
    }

    const ONE: &str = "2026-11-24T12:00:00.000000Z";
    const OTHER: &str = "2026-11-24T12:00:02.000000Z";

    #[test]
    fn the_older_operator_runs_for_as_long_as_its_lease_is_seen_renewed() {
        let objects = PolicyObjects::new(&namespaces());
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let quiet = |second| objects.caches().leases[OTHER_OPERATOR_NAMESPACES[0]].is_quiet(at(second));
        let mut changes = objects.changes();
        objects.note_lease(OTHER_OPERATOR_NAMESPACES[0], Change::Listed(vec![lease("it", 15, ONE)]), at(0));
        assert!(objects.other_operator_runs() && !quiet(14) && quiet(15));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        objects.note_lease(OTHER_OPERATOR_NAMESPACES[0], Change::Applied(lease("it", 15, OTHER)), at(20));
        assert!(!changes.has_changed().unwrap(), "a renewal is no news");
        // A watch that hangs shows nothing. Only what was seen not to be renewed is not.
        assert!(objects.other_operator_runs() && quiet(35));
        let listed = |second| {
            objects.note_lease(
                OTHER_OPERATOR_NAMESPACES[0],
                Change::Listed(vec![lease("it", 15, OTHER)]),
                at(second),
            );
            objects.other_operator_runs()
        };
        assert!(listed(35) && !quiet(49) && listed(49) && !listed(50));
        assert!(changes.has_changed().unwrap() && !quiet(3_600), "who died is not asked about");
        // What died and was never deleted is listed again and again.
        assert!(!listed(60));
        objects.note_lease(OTHER_OPERATOR_NAMESPACES[0], Change::Applied(lease("", 15, OTHER)), at(70));
        assert!(!objects.other_operator_runs());
        let long = || vec![lease("it", i64::from(i32::MAX), ONE)];
        objects.note_lease(OTHER_OPERATOR_NAMESPACES[0], Change::Listed(long()), at(100));
        assert!(objects.other_operator_runs() && !quiet(159) && quiet(160));
        objects.note_lease(OTHER_OPERATOR_NAMESPACES[0], Change::Listed(long()), at(219));
        assert!(objects.other_operator_runs());
        objects.note_lease(OTHER_OPERATOR_NAMESPACES[0], Change::Listed(long()), at(220));
        assert!(!objects.other_operator_runs());
    }

    #[test]
    fn a_watch_is_in_trouble_while_its_errors_repeat() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let failed = Change::<()>::Failed("refused".to_owned());
        let trouble = |health: &WatchHealth, second| health.error("nodes", at(second));
        let mut health = WatchHealth::default();
        assert_eq!(trouble(&health, 0).as_deref(), Some("nodes were not listed yet"));
        health.note(&failed, at(0));
        assert_eq!(trouble(&health, 0).as_deref(), Some("nodes cannot be watched: refused"));
        health.note(&Change::<()>::Listed(vec![]), at(0));
        assert_eq!(trouble(&health, 0), None);
        // A connection was reset, and the watch goes on where nothing happens.
        health.note(&failed, at(10));
        for second in 10..3_600 {
            assert_eq!(trouble(&health, second), None, "{second}");
        }
        // The API is away. A reply that never comes is an error every minute and a half at the latest.
        for round in 0..4 {
            assert_eq!(trouble(&health, 4_000 + 90 * round), None);
            health.note(&failed, at(4_000 + 90 * round));
        }
        assert_eq!(trouble(&health, 4_300).as_deref(), Some("nodes cannot be watched: refused"));
        health.note(&Change::Applied(()), at(4_301));
        assert_eq!(trouble(&health, 4_301), None);
    }

    #[tokio::test]
    async fn of_large_objects_few_are_listed_at_a_time_and_little_is_kept() {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let answer = move |request: axum::extract::Request| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let is_watch = query.contains("watch=");
            let is_policies = request.uri().path().ends_with("/checkpointpolicies");
            if is_policies && !is_watch {
                seen.lock().unwrap().push(query);
            }
            async move {
                if is_watch {
                    return std::future::pending().await;
                }
                let spec = |number: u32| json!({"mode": if number == 0 { "Dry" } else { "DryRun" }});
                let item = |number: u32| {
                    json!({
                        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointPolicy", "spec": spec(number),
                        "metadata": {
                            "namespace": "team", "name": number.to_string(), "uid": "u", "generation": 1,
                            "annotations": {"a": "x".repeat(1_000)}, "labels": {"l": "x"}, "finalizers": ["f"],
                            "managedFields": [{"manager": "m"}],
                        },
                    })
                };
                let items: Vec<_> = (0..2).filter(|_| is_policies).map(item).collect();
                let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
                axum::response::Response::new(axum::body::Body::from(list.to_string()))
            }
        };
        let client = Client::new(axum::Router::new().fallback(answer), "default");
        let objects = PolicyObjects::new(&namespaces());
        let mut changes = objects.changes();
        let listed = async {
            while objects.all().is_none() {
                changes.changed().await.unwrap();
            }
        };
        tokio::select! { () = objects.watch(&client) => {}, () = listed => {} }
        let asked = asked.lock().unwrap().concat();
        assert!(asked.contains("limit=20"), "{asked}");
        let expected = ObjectMeta {
            namespace: Some("team".to_owned()),
            name: Some("1".to_owned()),
            uid: Some("u".to_owned()),
            generation: Some(1),
            ..ObjectMeta::default()
        };
        let [Seen::Unparsable(_), Seen::Parsed(policy)] = &objects.all().unwrap().namespaced[..] else {
            panic!("{:?}", objects.all())
        };
        assert_eq!(policy.metadata, expected);
    }

    #[test]
    fn while_the_lease_cannot_be_seen_the_last_answer_holds() {
        let objects = PolicyObjects::new(&namespaces());
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        objects.note_lease(OTHER_OPERATOR_NAMESPACES[0], Change::Listed(vec![lease("it", 15, ONE)]), begin);
        // Renewed ever since, for all that is known.
        objects.note_lease(OTHER_OPERATOR_NAMESPACES[0], Change::Failed("refused".to_owned()), at(10));
        objects.note_lease(OTHER_OPERATOR_NAMESPACES[0], Change::Failed("refused".to_owned()), at(3_600));
        assert!(objects.other_operator_runs());
        objects.note_lease(
            OTHER_OPERATOR_NAMESPACES[0],
            Change::Listed(vec![lease("it", 15, ONE)]),
            at(3_601),
        );
        assert!(!objects.other_operator_runs());
    }

    /// A watch that hangs is found out, and who renews the lease all the while goes on running.
    #[tokio::test]
    async fn a_lease_of_which_nothing_is_heard_is_asked_about() {
        let asked = Arc::new(Mutex::new(0_u32));
        let seen = Arc::clone(&asked);
        let answer = move |request: axum::extract::Request| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let seen = Arc::clone(&seen);
            async move {
                if query.contains("watch=") {
                    return std::future::pending().await;
                }
                assert!(query.contains("metadata.name%3Df1499914.criu.org"), "{query}");
                let count = {
                    let mut seen = seen.lock().unwrap();
                    *seen += 1;
                    *seen
                };
                // It holds for a second, and is renewed in between, but not after the third time.
                let items = json!([lease("it", 1, &format!("2026-11-24T12:00:0{}.000000Z", count.min(3)))]);
                let list = json!({"kind": "LeaseList", "apiVersion": "coordination.k8s.io/v1", "metadata": {"resourceVersion": "1"}, "items": items});
                axum::response::Response::new(axum::body::Body::from(list.to_string()))
            }
        };
        let client = Client::new(axum::Router::new().fallback(answer), "default");
        let objects = PolicyObjects::new(&namespaces());
        let mut changes = objects.changes();
        let ended = async {
            while changes.changed().await.is_ok() {
                if objects.caches().leases_are_listed() && !objects.other_operator_runs() {
                    return;
                }
            }
        };
        let watching = objects.watch_leases(
            OTHER_OPERATOR_NAMESPACES[0],
            Api::namespaced(client, OTHER_OPERATOR_NAMESPACES[0]),
            Duration::from_millis(100),
        );
        tokio::select! { () = watching => {}, () = ended => {} }
        let asked = *asked.lock().unwrap();
        assert!(asked > 3, "it ran for as long as it was renewed: {asked}");
    }

    #[test]
    fn the_older_operator_is_seen_in_each_namespace_that_it_may_be_installed_in() {
        let objects = PolicyObjects::new(&OTHER_OPERATOR_NAMESPACES.map(str::to_owned));
        let [here, there] = OTHER_OPERATOR_NAMESPACES;
        let now = Instant::now();
        objects.note_lease(there, Change::Listed(vec![lease("it", 15, ONE)]), now);
        assert!(!objects.caches().leases_are_listed() && objects.other_operator_runs());
        // That there is none here says nothing of there.
        objects.note_lease(here, Change::Listed(vec![]), now);
        assert!(objects.caches().leases_are_listed() && objects.other_operator_runs());
        objects.note_lease(there, Change::Listed(vec![]), now);
        assert!(!objects.other_operator_runs());
    }

    #[test]
    fn a_watch_that_is_listened_to_is_well_again_when_it_was_opened_again() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let failed = || Change::<()>::Failed("refused".to_owned());
        let mut health = WatchHealth::default();
        health.listen();
        health.note(&Change::<()>::Listed(vec![]), at(0));
        health.note_heard(Heard::Opened, at(0));
        assert_eq!(health.doubt("policies", at(100)), None);
        health.note(&failed(), at(120));
        let doubt = |health: &mut WatchHealth, second| health.doubt("policies", at(second));
        let refused = Some(Doubt { kind: "policies", why: "refused".to_owned(), since: at(100) });
        assert_eq!(doubt(&mut health, 120), refused);
        assert_eq!(doubt(&mut health, 3_000), refused, "silence is no sign of life");
        // Opened, and told at once that its version is too old.
        health.note_heard(Heard::Opened, at(3_010));
        assert_eq!(doubt(&mut health, 3_011), refused);
        health.note(&failed(), at(3_011));
        assert_eq!(doubt(&mut health, 3_015), refused);
        health.note_heard(Heard::Opened, at(3_020));
        assert_eq!(doubt(&mut health, 3_022), None);
        // It says nothing more, not even that it was opened again.
        assert_eq!(doubt(&mut health, 3_169), None);
        assert_eq!(doubt(&mut health, 3_170).map(|doubt| doubt.since), Some(at(3_169)));
        health.note_heard(Heard::Something, at(3_200));
        assert_eq!(doubt(&mut health, 3_201), None);
    }

    /// What is told once all was listed by an API that replies so to lists below this path.
    async fn told_by(path: &'static str, status: u16, reason: &'static str) -> Option<bool> {
        let answer = move |request: axum::extract::Request| async move {
            let reply = |status: u16, body: serde_json::Value| {
                let body = axum::body::Body::from(body.to_string());
                axum::response::Response::builder().status(status).body(body).unwrap()
            };
            if request.uri().query().unwrap_or_default().contains("watch=") {
                return std::future::pending().await;
            }
            if request.uri().path().contains(path) {
                let failure = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": "no", "reason": reason, "code": status});
                return reply(status, failure);
            }
            reply(
                200,
                json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []}),
            )
        };
        let client = Client::new(axum::Router::new().fallback(answer), "default");
        let objects = PolicyObjects::new(&OTHER_OPERATOR_NAMESPACES.map(str::to_owned));
        tokio::select! { () = objects.watch(&client) => {}, () = tokio::time::sleep(Duration::from_mins(2)) => {} }
        objects.all().map(|_| objects.other_operator_runs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_that_the_api_does_not_know_holds_no_lease_and_keeps_nothing_waiting() {
        let there = OTHER_OPERATOR_NAMESPACES[1];
        assert_eq!(Box::pin(told_by(there, 404, "NotFound")).await, Some(false));
        assert_eq!(Box::pin(told_by(there, 403, "Forbidden")).await, None);
        assert_eq!(Box::pin(told_by(there, 500, "InternalError")).await, None);
    }

    /// A definition of ours must be there; the older operator's need not.
    #[tokio::test(start_paused = true)]
    async fn without_the_older_operators_definition_there_are_none_of_its_objects_and_nothing_waits() {
        let (legacy, native) =
            ("/apis/criu.org/v1/", "/apis/checkpoint-keeper.io/v1alpha1/checkpointpolicies");
        assert_eq!(Box::pin(told_by(legacy, 404, "NotFound")).await, Some(false));
        assert_eq!(Box::pin(told_by(legacy, 404, "")).await, None, "a proxy's words are not the API's");
        assert_eq!(Box::pin(told_by(legacy, 403, "Forbidden")).await, None);
        assert_eq!(Box::pin(told_by(native, 404, "NotFound")).await, None);
    }

    /// An API that knows the older operator's kind only while `is_served`, and has one object of it; how often it
    /// was asked for a list.
    fn legacy_api(is_served: Arc<AtomicBool>, lists: Arc<AtomicU32>) -> Client {
        let answer = move |request: axum::extract::Request| {
            let (is_served, lists) = (Arc::clone(&is_served), Arc::clone(&lists));
            async move {
                let reply = |status: u16, body: serde_json::Value| {
                    let body = axum::body::Body::from(body.to_string());
                    axum::response::Response::builder().status(status).body(body).unwrap()
                };
                if !is_served.load(Ordering::Relaxed) {
                    lists.fetch_add(1, Ordering::Relaxed);
                    let failure = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                        "message": "no", "reason": "NotFound", "code": 404});
                    return reply(404, failure);
                }
                if request.uri().query().unwrap_or_default().contains("watch=") {
                    // A watch ends after a while, as the API's do.
                    tokio::time::sleep(Duration::from_mins(1)).await;
                    return reply(
                        200,
                        json!({"type": "ERROR", "object": {"kind": "Status", "code": 410,
                        "reason": "Expired", "status": "Failure", "message": "", "metadata": {}}}),
                    );
                }
                let object = json!({"metadata": {"name": "a", "namespace": "n", "uid": "u",
                    "annotations": {"checkpoint-keeper.io/mode": "DryRun", "other": "x"}}, "spec": {}});
                reply(
                    200,
                    json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [object]}),
                )
            }
        };
        Client::new(axum::Router::new().fallback(answer), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn a_definition_of_the_older_operator_that_comes_and_goes_is_followed() {
        let (is_served, lists) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let client = legacy_api(Arc::clone(&is_served), Arc::clone(&lists));
        let objects = PolicyObjects::new(&namespaces());
        let watched = |seconds| {
            let (objects, client) = (objects.clone(), client.clone());
            async move {
                let watching = objects.watch_legacy(&client);
                tokio::select! { () = watching => {}, () = tokio::time::sleep(Duration::from_secs(seconds)) => {} }
            }
        };
        let known = || {
            let caches = objects.caches();
            (caches.legacy.is_listed(), caches.legacy.objects.len())
        };
        watched(3_600).await;
        assert_eq!(known(), (true, 0));
        let asked = lists.load(Ordering::Relaxed);
        assert!((30..=62).contains(&asked), "about once a minute: {asked}");
        is_served.store(true, Ordering::Relaxed);
        watched(120).await;
        assert_eq!(known(), (true, 1));
        let annotations =
            objects.caches().legacy.objects.values().next().cloned().and_then(|seen| match seen {
                Seen::Parsed(object) => object.metadata.annotations,
                Seen::Unparsable(_) => None,
            });
        assert_eq!(annotations, Some([("checkpoint-keeper.io/mode".to_owned(), "DryRun".to_owned())].into()));
        // One that is not served for a moment has its objects still.
        is_served.store(false, Ordering::Relaxed);
        watched(120).await;
        assert_eq!(known(), (true, 1));
    }
}

//! The objects that say what may be deleted, as the API shows them now and from then on.
//!
//! Each kind is watched by itself: a kind that may not be read, or that is not installed, does not keep
//! the others from being seen. Objects that are not what their kind says are seen as such.
//!
//! The older operator's kind is another project's. It is watched while its definition is there, and the definition
//! itself always: that the API has none says for certain that there are no such objects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use checkpoint_keeper_api::api_object::Metadata;
use checkpoint_keeper_api::effective::{Objects, Seen, Unparsable};
use checkpoint_keeper_api::{
    CheckpointPolicy, CheckpointRestoreOperator, CheckpointStoragePolicy, ClusterCheckpointPolicy,
};
use checkpoint_keeper_core::policy::PolicyRef;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::runtime::watcher::watcher;
use kube::{Client, CustomResourceExt, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use super::bounded_watch::{Read, watch_bounded};
use super::cache::Cache;
use super::liveness::{listened, now, policy_watch};
use super::other_operator::OtherOperator;
use super::problem_log::Problem;
use super::telemetry::WatchAge;
use super::watch::{Unconfirmed, WatchHealth, follow_anew, metadata_of};

/// So many objects are listed at a time. Each may be a megabyte, of which next to nothing is kept.
const PAGE: u32 = 20;

/// How long policies may be unconfirmed before that is reported. A watch that was interrupted works again by then.
const TOLERATED: Duration = Duration::from_mins(1);

#[derive(Debug, Default)]
struct Caches {
    cluster: Cache<Seen<ClusterCheckpointPolicy>>,
    namespaced: Cache<Seen<CheckpointPolicy>>,
    storage: Cache<Seen<CheckpointStoragePolicy>>,
    legacy: Cache<Seen<CheckpointRestoreOperator>>,
    /// The definition of the older operator's kind; empty where the API has none.
    legacy_definition: Cache<()>,
}

impl Caches {
    /// Whether the API defines the older operator's kind; none while that is not known.
    fn legacy_is_defined(&self) -> Option<bool> {
        self.legacy_definition.is_listed().then_some(!self.legacy_definition.objects.is_empty())
    }

    /// Whether every kind was listed in full.
    fn are_listed(&self) -> bool {
        let legacy_is_listed = self.legacy.is_listed() || self.legacy_is_defined() == Some(false);
        let native = [self.cluster.is_listed(), self.namespaced.is_listed(), self.storage.is_listed()];
        native.into_iter().all(|is_listed| is_listed) && legacy_is_listed
    }

    /// Every kind's plural name, and the health of the watch that says what objects of it there are.
    fn health(&mut self) -> [(&'static str, &mut WatchHealth); 4] {
        let legacy = if self.legacy_is_defined() == Some(true) {
            ("checkpointrestoreoperators", &mut self.legacy.health)
        } else {
            ("customresourcedefinitions", &mut self.legacy_definition.health)
        };
        [
            ("clustercheckpointpolicies", &mut self.cluster.health),
            ("checkpointpolicies", &mut self.namespaced.health),
            ("checkpointstoragepolicies", &mut self.storage.health),
            legacy,
        ]
    }
}

/// The policy objects of all kinds, shared by the tasks that watch them and those that read them.
#[derive(Debug, Clone)]
pub struct PolicyObjects {
    caches: Arc<Mutex<Caches>>,
    other_operator: OtherOperator,
    changed: watch::Sender<()>,
}

impl PolicyObjects {
    /// No objects were seen yet. `other_operator_namespaces`: where the lease of the older operator may be; a user who
    /// can write a lease there decides whether the older operator counts as running.
    pub fn new(other_operator_namespaces: &[String]) -> Self {
        let changed = watch::Sender::new(());
        let other_operator = OtherOperator::new(other_operator_namespaces, changed.clone());
        Self { caches: Arc::default(), other_operator, changed }
    }

    /// Watches everything, for as long as it is polled.
    pub async fn watch(&self, client: &Client) {
        tokio::join!(
            self.watch_kind(client, |caches| &mut caches.cluster),
            self.watch_kind(client, |caches| &mut caches.namespaced),
            self.watch_kind(client, |caches| &mut caches.storage),
            self.watch_legacy_definition(client),
            self.watch_legacy(client),
            self.other_operator.watch(client),
        );
    }

    async fn watch_kind<K>(
        &self,
        client: &Client,
        of: impl Fn(&mut Caches) -> &mut Cache<Seen<K>> + Copy + Send + Sync + 'static,
    ) where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
    {
        let client = self.listened(client, move |caches| &mut of(caches).health);
        watch_bounded(&client, policy_watch().page_size(PAGE), |change| {
            let change = change.map(|(key, read)| (key, seen(read)));
            if of(&mut self.caches()).note_kept(change, now()) {
                self.changed.send_replace(());
            }
        })
        .await;
    }

    async fn watch_legacy_definition(&self, client: &Client) {
        let client = self.listened(client, |caches| &mut caches.legacy_definition.health);
        let only = format!("metadata.name={}", CheckpointRestoreOperator::crd_name());
        let config = policy_watch().fields(&only);
        let begin = || watcher(metadata_of::<CustomResourceDefinition>(&client), config.clone());
        follow_anew(begin, |change| {
            if self.caches().legacy_definition.note(change, now(), |_: Metadata| ()) {
                self.changed.send_replace(());
            }
        })
        .await;
    }

    /// Watches the older operator's kind while the API defines it.
    async fn watch_legacy(&self, client: &Client) {
        let name = CheckpointRestoreOperator::crd_name();
        loop {
            if self.until_legacy_definition_is_known().await {
                tokio::select! {
                    () = self.watch_kind(client, |caches| &mut caches.legacy) => {}
                    () = self.until_legacy_is_defined(false) => {}
                }
                self.caches().legacy = Cache::default();
                self.changed.send_replace(());
            } else {
                tracing::info!("{name} is not defined here: there are no policies of that kind");
                self.until_legacy_is_defined(true).await;
                tracing::info!("{name} is defined now, and is watched");
            }
        }
    }

    /// Waits until it is known whether the older operator's kind is defined, and says whether it is.
    async fn until_legacy_definition_is_known(&self) -> bool {
        let mut changes = self.changes();
        loop {
            if let Some(is_defined) = self.caches().legacy_is_defined() {
                return is_defined;
            }
            // The sender lives as long as this does.
            let _ = changes.changed().await;
        }
    }

    /// Waits until the older operator's kind is known to be defined, or not to be.
    async fn until_legacy_is_defined(&self, wanted: bool) {
        let mut changes = self.changes();
        while self.caches().legacy_is_defined() != Some(wanted) {
            let _ = changes.changed().await;
        }
    }

    /// A client that notes what is heard of a kind's watch.
    fn listened(
        &self,
        client: &Client,
        of: impl Fn(&mut Caches) -> &mut WatchHealth + Send + Sync + 'static,
    ) -> Client {
        of(&mut self.caches()).listen();
        let caches = Arc::clone(&self.caches);
        listened(client, move |heard| {
            let mut caches = caches.lock().unwrap_or_else(PoisonError::into_inner);
            of(&mut caches).note_heard(heard, now());
        })
    }

    fn caches(&self) -> MutexGuard<'_, Caches> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A receiver that is notified of each later change.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// All objects, once every kind has been listed in full; nothing before.
    pub fn all(&self) -> Option<Objects> {
        let caches = self.caches();
        (caches.are_listed() && self.other_operator.is_listed()).then(|| Objects {
            cluster: caches.cluster.objects.values().cloned().collect(),
            namespaced: caches.namespaced.objects.values().cloned().collect(),
            storage: caches.storage.objects.values().cloned().collect(),
            legacy: caches.legacy.objects.values().cloned().collect(),
        })
    }

    /// Whether the older operator renews its lease. While that cannot be seen, it is as it was last seen.
    pub fn other_operator_runs(&self) -> bool {
        self.other_operator.runs()
    }

    /// Notifies the receivers of changes of something other than the objects.
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
    pub fn policies_by_namespace(&self) -> BTreeMap<String, BTreeSet<String>> {
        let mut policies_by_namespace: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (id, uid) in self.uids() {
            if let Some(namespace) = id.namespace {
                policies_by_namespace.entry(namespace).or_default().insert(uid);
            }
        }
        policies_by_namespace
    }

    /// What is wrong with the watches.
    pub fn not_ready_reasons(&self, now: Instant) -> Vec<String> {
        let mut reasons: Vec<String> = {
            let mut caches = self.caches();
            let unlisted = caches.health().into_iter().filter(|(_, health)| !health.is_listed());
            unlisted.filter_map(|(kind, health)| health.error(kind, now)).collect()
        };
        reasons.extend(self.stale(now));
        reasons.extend(self.other_operator.errors(now));
        reasons
    }

    /// What is wrong with each watch at this moment, for the log.
    pub fn watch_problems(&self, now: Instant) -> Vec<Problem> {
        let mut problems: Vec<Problem> = {
            let mut caches = self.caches();
            caches.health().into_iter().filter_map(|(kind, health)| health.problem(kind, now)).collect()
        };
        problems.extend(self.other_operator.watch_problems(now));
        problems
    }

    /// How long ago the API was last heard on the watch of each kind.
    pub fn watch_ages(&self, now: Instant) -> Vec<WatchAge> {
        let mut caches = self.caches();
        let ages = caches.health().into_iter();
        ages.filter_map(|(kind, health)| Some(WatchAge { kind, age: health.age(now)? })).collect()
    }

    /// Why policies may be out of date, for those that have been so for more than a moment.
    pub fn stale(&self, now: Instant) -> Vec<String> {
        let lasts = |kind: &Unconfirmed| now.saturating_duration_since(kind.since) >= TOLERATED;
        let stale = self.unconfirmed(now).into_iter().filter(lasts);
        stale.map(|Unconfirmed { kind, why, .. }| format!("{kind} cannot be watched: {why}")).collect()
    }

    /// The kinds of policies that may be out of date; empty: all are current.
    pub fn unconfirmed(&self, now: Instant) -> Vec<Unconfirmed> {
        let mut caches = self.caches();
        caches.health().into_iter().filter_map(|(kind, health)| health.unconfirmed(kind, now)).collect()
    }
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

fn seen<K>(read: Read<K>) -> Seen<K> {
    match read {
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
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde_json::json;

    use super::super::other_operator::OTHER_OPERATOR_NAMESPACES;
    use super::*;
    use tokio::time::{sleep, timeout};

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
        let objects = PolicyObjects::new(&[]);
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

    fn reply(status: u16, body: &serde_json::Value) -> axum::response::Response {
        let body = axum::body::Body::from(body.to_string());
        axum::response::Response::builder().status(status).body(body).unwrap()
    }

    fn list(items: &[serde_json::Value]) -> axum::response::Response {
        list_at(1, items)
    }

    fn list_at(version: u32, items: &[serde_json::Value]) -> axum::response::Response {
        let metadata = json!({"resourceVersion": version.to_string()});
        reply(200, &json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
    }

    /// What an API server says of a path that it does not serve.
    fn not_served() -> axum::response::Response {
        axum::response::Response::builder().status(404).body("404 page not found\n".into()).unwrap()
    }

    const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    const LEGACY: &str = "/apis/criu.org/v1/checkpointrestoreoperators";

    /// Whether the older operator is said to run once all was listed by an API that replies so to lists below this
    /// path, has no objects, and does not define the older operator's kind.
    async fn told_by(path: &'static str, status: u16, reason: &'static str) -> Option<bool> {
        let answer = move |request: axum::extract::Request| async move {
            if request.uri().query().unwrap_or_default().contains("watch=") {
                return std::future::pending().await;
            }
            match request.uri().path() {
                LEGACY => not_served(),
                asked if asked.contains(path) => {
                    let failure = json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
                        "status": "Failure", "message": "no", "reason": reason, "code": status});
                    reply(status, &failure)
                }
                _ => list(&[]),
            }
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

    /// The kinds of ours must be there, the older operator's need not; whether it is must be known.
    #[tokio::test(start_paused = true)]
    async fn only_the_api_says_that_the_older_operators_kind_is_not_there() {
        let native = "/apis/checkpoint-keeper.io/v1alpha1/checkpointpolicies";
        assert_eq!(Box::pin(told_by("nothing", 404, "NotFound")).await, Some(false));
        assert_eq!(Box::pin(told_by(native, 404, "NotFound")).await, None);
        assert_eq!(Box::pin(told_by(DEFINITIONS, 403, "Forbidden")).await, None);
        assert_eq!(Box::pin(told_by(DEFINITIONS, 404, "NotFound")).await, None);
    }

    /// An API that defines the older operator's kind at even versions, and has an object of it then. Its watches end
    /// after a minute, or with an event.
    fn legacy_api(version: watch::Receiver<u32>) -> Client {
        let definition =
            |version: u32| json!({"metadata": {"name": "it", "resourceVersion": version.to_string()}});
        let answer = move |request: axum::extract::Request| {
            let mut current = version.clone();
            async move {
                let query = request.uri().query().unwrap_or_default();
                let is_watch = query.contains("watch=");
                let is_defined = current.borrow().is_multiple_of(2);
                match request.uri().path() {
                    LEGACY if !is_defined => not_served(),
                    DEFINITIONS if is_watch => {
                        let is_news = |version: &u32| {
                            !query.split('&').any(|part| part == format!("resourceVersion={version}"))
                        };
                        match timeout(Duration::from_mins(1), current.wait_for(is_news)).await {
                            Ok(Ok(version)) => {
                                let happened = if version.is_multiple_of(2) { "ADDED" } else { "DELETED" };
                                reply(200, &json!({"type": happened, "object": definition(*version)}))
                            }
                            _ => axum::response::Response::default(),
                        }
                    }
                    _ if is_watch => {
                        sleep(Duration::from_mins(1)).await;
                        axum::response::Response::default()
                    }
                    DEFINITIONS => {
                        let version = *current.borrow();
                        let definitions: Vec<_> =
                            is_defined.then(|| definition(version)).into_iter().collect();
                        list_at(version, &definitions)
                    }
                    LEGACY => {
                        list(&[json!({"spec": {}, "metadata": {"name": "a", "namespace": "n", "uid": "u",
                        "annotations": {"checkpoint-keeper.io/mode": "DryRun", "other": "x"}}})])
                    }
                    _ => list(&[]),
                }
            }
        };
        Client::new(axum::Router::new().fallback(answer), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn the_older_operators_kind_is_followed_when_it_comes_and_goes() {
        let version = watch::Sender::new(1);
        let client = legacy_api(version.subscribe());
        let objects = PolicyObjects::new(&[]);
        let legacy = || objects.all().map(|objects| objects.legacy);
        let checks = async {
            let after = |minutes| sleep(Duration::from_mins(minutes));
            after(2).await;
            assert_eq!(legacy().map(|legacy| legacy.len()), Some(0));
            // That there are none is confirmed all the while.
            after(600).await;
            assert_eq!((objects.unconfirmed(now()), objects.not_ready_reasons(now())), (vec![], vec![]));
            version.send_replace(2);
            after(3).await;
            let listed = legacy();
            let Some([Seen::Parsed(object)]) = listed.as_deref() else { panic!("{listed:?}") };
            let kept = [("checkpoint-keeper.io/mode".to_owned(), "DryRun".to_owned())];
            assert_eq!(object.metadata.annotations, Some(kept.into()));
            version.send_replace(3);
            after(3).await;
            assert_eq!(legacy().map(|legacy| legacy.len()), Some(0));
            assert_eq!(objects.not_ready_reasons(now()), Vec::<String>::new());
        };
        tokio::select! { () = objects.watch(&client) => {}, () = checks => {} }
    }
}

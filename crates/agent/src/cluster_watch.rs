//! What the API shows of this node's pods and of namespaces, for the engine, which asks for the rest.
//!
//! Which pods run here is watched always. Namespaces are watched only while a policy selects them by their
//! labels: their labels may change at any time, and one question a minute would take long to notice. That
//! something is gone is never concluded from a watch.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use checkpoint_keeper_core::engine::cluster::{ClusterUpdate, TimedUpdate};
use checkpoint_keeper_core::pods::{LivePod, LookupResult};
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::mailbox::Sender;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::core::ObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watcher;
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::{interval, sleep};

use checkpoint_keeper_api::api_object::Metadata;
use checkpoint_keeper_runtime::cache::Cache;
use checkpoint_keeper_runtime::cluster;
use checkpoint_keeper_runtime::liveness::other_watch;
use checkpoint_keeper_runtime::problem_log::Problem;
use checkpoint_keeper_runtime::watch::{Change, WatchHealth, follow, metadata_of};

/// How many objects are listed at a time. The metadata of one may be as large as the API allows.
const PAGE: u32 = 20;

/// How long changes are collected before they are sent.
const DEBOUNCE: Duration = Duration::from_secs(1);

/// How often the engine gets the pods even if none changed: that a lineage has no pod here counts only for a limited
/// time after a list of the pods.
const RESEND_INTERVAL: Duration = Duration::from_mins(1);

/// When a policy begins to select namespaces, each node starts listing them after a random time of at most this, so
/// that thousands of nodes do not list at once. Until then, each node looks its own namespaces up.
const MAX_START_DELAY: Duration = Duration::from_secs(30);

/// How often to check for changes that come with time alone.
const TICK: Duration = Duration::from_secs(5);

/// The pods and namespaces, shared by the tasks that watch them and those that read them.
#[derive(Debug, Clone)]
pub(super) struct ClusterWatch {
    seen: Arc<Mutex<Seen>>,
    changed: watch::Sender<()>,
    /// Whether namespaces are to be watched.
    wants_namespaces: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Seen {
    pods: Cache<LivePod>,
    /// Of the watch of namespaces; none while it is not wanted.
    namespaces: Option<WatchHealth>,
}

impl Default for ClusterWatch {
    fn default() -> Self {
        let (changed, wants_namespaces) = (watch::Sender::new(()), watch::Sender::new(false));
        Self { seen: Arc::default(), changed, wants_namespaces }
    }
}

impl ClusterWatch {
    /// Watches, and sends updates, for as long as it is polled.
    pub(super) async fn run(&self, client: &Client, node: &str, updates: &Sender) {
        tokio::join!(
            self.watch_pods(client, node),
            self.watch_namespaces(client, updates),
            self.send_pods(updates),
        );
    }

    /// Sets whether namespaces are watched: they are while a policy selects them by their labels.
    pub(super) fn want_namespaces(&self, wanted: bool) {
        self.wants_namespaces.send_if_modified(|before| std::mem::replace(before, wanted) != wanted);
    }

    /// What is wrong with the watches.
    pub(super) fn not_ready_reasons(&self, now: Instant) -> impl Iterator<Item = String> {
        let seen = self.seen();
        let namespaces = seen.namespaces.as_ref().and_then(|health| health.error("namespaces", now));
        [seen.pods.error("pods", now), namespaces].into_iter().flatten()
    }

    /// What is wrong with each watch at this moment, for the log.
    pub(super) fn watch_problems(&self, now: Instant) -> impl Iterator<Item = Problem> {
        let seen = self.seen();
        let namespaces = seen.namespaces.as_ref().and_then(|health| health.problem("namespaces", now));
        [seen.pods.problem("pods", now), namespaces].into_iter().flatten()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn watch_pods(&self, client: &Client, node: &str) {
        let api = metadata_of::<Pod>(client);
        let config = other_watch().fields(&cluster::running_on(node)).page_size(PAGE);
        follow(watcher(api, config).modify(|pod| slim(&mut pod.metadata)), |change| {
            self.seen().pods.note(change, Instant::now(), cluster::live_pod);
            self.changed.send_replace(());
        })
        .await;
    }

    /// Which pods run here; none where that cannot be told.
    fn pods(&self, now: Instant) -> Option<Vec<LivePod>> {
        let seen = self.seen();
        seen.pods.is_up(now).then(|| seen.pods.objects.values().cloned().collect())
    }

    async fn send_pods(&self, updates: &Sender) {
        let mut changes = self.changed.subscribe();
        let mut tick = interval(TICK);
        let mut last: Option<(Option<Vec<LivePod>>, Instant)> = None;
        loop {
            tokio::select! {
                ended = changes.changed() => if ended.is_err() { return } else { sleep(DEBOUNCE).await },
                _ = tick.tick() => {}
            }
            let now = Instant::now();
            let pods = self.pods(now);
            let is_news =
                last.as_ref().is_none_or(|(before, at)| *before != pods || now - *at >= RESEND_INTERVAL);
            if is_news {
                updates
                    .send_update(TimedUpdate { at: clock::now(), what: ClusterUpdate::Pods(pods.clone()) });
                last = Some((pods, now));
            }
        }
    }

    /// Until what was listed of namespaces is old news. A watch that is taken up again after that does not say
    /// what it missed; one that begins anew does.
    async fn until_stale(&self) {
        let mut tick = interval(TICK);
        loop {
            tick.tick().await;
            let seen = self.seen();
            let health = seen.namespaces.as_ref().filter(|health| health.is_listed());
            if health.is_some_and(|health| health.error("namespaces", Instant::now()).is_some()) {
                return;
            }
        }
    }

    async fn watch_namespaces(&self, client: &Client, updates: &Sender) {
        let mut wanted = self.wants_namespaces.subscribe();
        let mut unwanted = self.wants_namespaces.subscribe();
        while wanted.wait_for(|wanted| *wanted).await.is_ok() {
            tokio::select! {
                () = sleep(random_part_of(MAX_START_DELAY)) => {}
                _ = unwanted.wait_for(|wanted| !wanted) => continue,
            }
            self.seen().namespaces = Some(WatchHealth::default());
            let api = metadata_of::<Namespace>(client);
            let config = other_watch().page_size(PAGE);
            let events = watcher(api, config).modify(|namespace| slim(&mut namespace.metadata));
            let follows = follow(events, |change| {
                if let Some(health) = &mut self.seen().namespaces {
                    health.note(&change, Instant::now());
                }
                if let Some(what) = update_of(change) {
                    updates.send_update(TimedUpdate { at: clock::now(), what });
                }
            });
            tokio::select! {
                () = follows => {}
                () = self.until_stale() => {}
                _ = unwanted.wait_for(|wanted| !wanted) => {}
            }
            // However it ended, changes are missed from here on, until the namespaces are listed again.
            updates.send_update(TimedUpdate { at: clock::now(), what: ClusterUpdate::NamespacesUnknown });
            self.seen().namespaces = None;
        }
    }
}

/// A random part of `length`.
fn random_part_of(length: Duration) -> Duration {
    // Each `RandomState` has random keys.
    length.mul_f64((RandomState::new().hash_one(()) % 1_000) as f64 / 1_000.0)
}

/// What a change of namespaces shows.
fn update_of(change: Change<Metadata>) -> Option<ClusterUpdate> {
    let there = |namespace: Metadata| Some((namespace.name_any(), cluster::namespace(namespace)?));
    match change {
        Change::Listed(all) => {
            Some(ClusterUpdate::AllNamespaces(all.into_iter().filter_map(there).collect()))
        }
        Change::Applied(one) => Some(ClusterUpdate::Namespaces(there(one).into_iter().collect())),
        Change::Deleted(one) => {
            Some(ClusterUpdate::Namespaces(vec![(one.name_any(), LookupResult::NotFound)]))
        }
        Change::Failed(_) => None,
    }
}

/// Removes the metadata that this program does not need.
fn slim(metadata: &mut ObjectMeta) {
    if let Some(annotations) = &mut metadata.annotations {
        annotations.retain(|name, _| name == cluster::MIRROR);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// An API with one pod and one namespace, whose watches show nothing more.
    fn client() -> Client {
        let answer = |request: axum::extract::Request| async move {
            let query = request.uri().query().unwrap_or_default().to_owned();
            if query.contains("watch=") {
                return std::future::pending().await;
            }
            let item = if request.uri().path().ends_with("/pods") {
                assert!(query.contains("spec.nodeName%3Dnode-1"), "{query}");
                json!({"metadata": {
                    "namespace": "shop", "name": "web-0", "uid": "u1", "labels": {"app": "web"},
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "r1", "controller": true,
                    }],
                }})
            } else {
                json!({"metadata": {
                    "name": "shop", "labels": {"env": "prod"}, "creationTimestamp": "2026-01-01T00:00:00Z",
                }})
            };
            let list = json!({
                "kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [item],
            });
            axum::response::Response::new(axum::body::Body::from(list.to_string()))
        };
        Client::new(axum::Router::new().fallback(answer), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn pods_are_shown_again_and_again_and_namespaces_only_while_they_are_wanted() {
        let watch = ClusterWatch::default();
        let (update_sender, receiver) = checkpoint_keeper_node::mailbox::channel().unwrap();
        let (client, not_ready_reasons) =
            (client(), || watch.not_ready_reasons(Instant::now()).collect::<Vec<_>>());
        let told = || receiver.take().updates.into_iter().map(|shown| shown.what).collect::<Vec<_>>();
        let watched = async {
            sleep(TICK * 2).await;
            let shown = told();
            let Some(ClusterUpdate::Pods(Some(pods))) = shown.last() else { panic!("{shown:?}") };
            let [pod] = &pods[..] else { panic!("{pods:?}") };
            assert_eq!(
                (pod.name.as_str(), pod.uid.as_deref(), &pod.labels.as_ref().unwrap()["app"][..]),
                ("web-0", Some("u1"), "web")
            );
            assert_eq!(pod.controller.as_ref().map(|owner| owner.name.as_str()), Some("web-1"));
            assert!(shown.iter().all(|what| matches!(what, ClusterUpdate::Pods(_))), "{shown:?}");
            assert_eq!(not_ready_reasons(), [""; 0]);
            watch.want_namespaces(true);
            sleep(MAX_START_DELAY + TICK).await;
            let shown = told();
            let labels = |what: &ClusterUpdate| match what {
                ClusterUpdate::AllNamespaces(all) => match &all[..] {
                    [(name, LookupResult::Namespace { labels, .. })] => {
                        Some(format!("{name} {}", labels["env"]))
                    }
                    other => panic!("{other:?}"),
                },
                _ => None,
            };
            assert_eq!(shown.iter().find_map(labels), Some("shop prod".to_owned()), "{shown:?}");
            watch.want_namespaces(false);
            sleep(TICK).await;
            assert!(watch.seen().namespaces.is_none());
            assert!(
                told().contains(&ClusterUpdate::NamespacesUnknown),
                "what was shown may change unseen from here on"
            );
            assert_eq!(not_ready_reasons(), [""; 0]);
        };
        tokio::select! { () = watch.run(&client, "node-1", &update_sender) => {}, () = watched => {} }
    }
}

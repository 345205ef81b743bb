//! The nodes, and what their agents report of them; and taking away the reports of nodes that are gone.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use checkpoint_keeper_api::{NodeCheckpointStore, NodeCheckpointStoreStatus};
use http::Request;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Preconditions};
use kube::client::Body;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::timeout;

use super::departed::{Answer, StoreId};
use super::totals::NodeReport;
use checkpoint_keeper_runtime::guarded::{self, Guarded};
use checkpoint_keeper_runtime::objects::{Cache, Change, Metadata, follow, metadata_of};
use checkpoint_keeper_runtime::plain;

/// How long a question or a deletion may take.
pub const REQUEST: Duration = Duration::from_secs(4);

type Store = Guarded<NodeCheckpointStore>;

#[derive(Debug, Default)]
struct Caches {
    stores: Cache<Arc<NodeReport>>,
    nodes: Cache<()>,
}

/// What was seen of the nodes; shared by whoever watches and whoever asks.
#[derive(Debug, Clone)]
pub struct NodeCache {
    caches: Arc<Mutex<Caches>>,
    changed: watch::Sender<()>,
}

impl Default for NodeCache {
    fn default() -> Self {
        Self { caches: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl NodeCache {
    /// Watches them, for as long as it is polled.
    pub async fn watch(&self, client: &Client) {
        tokio::join!(self.watch_stores(client), self.watch_nodes(client));
    }

    async fn watch_stores(&self, client: &Client) {
        // A report is large and there are thousands: what is not needed is dropped before they are gathered.
        let events = watcher(Api::<Store>::all(client.clone()), watcher::Config::default());
        follow(events.modify(strip), |change| {
            let is_news = match &change {
                Change::Applied(store) => {
                    let caches = self.caches();
                    let known = caches.stores.objects.get(&(String::new(), store.name_any()));
                    known.is_none_or(|known| **known != report(store))
                }
                _ => true,
            };
            if self.caches().stores.note(change, Instant::now(), |store| Arc::new(report(&store))) && is_news
            {
                self.changed.send_replace(());
            }
        })
        .await;
    }

    async fn watch_nodes(&self, client: &Client) {
        let events = watcher(metadata_of::<Node>(client), watcher::Config::default());
        let events = events.modify(|node: &mut Metadata| {
            let name = node.metadata.name.take();
            node.metadata = ObjectMeta { name, ..ObjectMeta::default() };
        });
        follow(events, |change| {
            let is_news = match &change {
                // A node's heartbeat.
                Change::Applied(node) => {
                    !self.caches().nodes.objects.contains_key(&(String::new(), node.name_any()))
                }
                _ => true,
            };
            if self.caches().nodes.note(change, Instant::now(), |_| ()) && is_news {
                self.changed.send_replace(());
            }
        })
        .await;
    }

    fn caches(&self) -> MutexGuard<'_, Caches> {
        self.caches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change from here on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What every node reports, and which nodes there are; nothing before both have been listed in full.
    pub fn all(&self) -> Option<(Vec<Arc<NodeReport>>, BTreeSet<String>)> {
        let caches = self.caches();
        (caches.stores.is_listed() && caches.nodes.is_listed()).then(|| {
            let nodes = caches.nodes.objects.keys().map(|(_, name)| name.clone()).collect();
            (caches.stores.objects.values().cloned().collect(), nodes)
        })
    }

    /// What is wrong with the watches.
    pub fn not_ready_reasons(&self, now: Instant) -> Vec<String> {
        let caches = self.caches();
        let not_ready_reasons =
            [caches.stores.error("nodecheckpointstores", now), caches.nodes.error("nodes", now)];
        not_ready_reasons.into_iter().flatten().collect()
    }
}

/// Leaves of a store what a report needs.
fn strip(store: &mut Store) {
    guarded::strip(store.meta_mut());
    match &mut store.0 {
        Ok(store) => {
            let status = store.status.take().unwrap_or_default();
            let NodeCheckpointStoreStatus { policies, more_policies, unreachable_limits, .. } = status;
            store.status = Some(NodeCheckpointStoreStatus {
                policies,
                more_policies,
                unreachable_limits,
                ..NodeCheckpointStoreStatus::default()
            });
        }
        Err(broken) => broken.status = None,
    }
}

/// A store that is not what its kind says reports nothing, and goes with its node all the same.
fn report(store: &Store) -> NodeReport {
    let status = store.0.as_ref().ok().and_then(|store| store.status.as_ref());
    let policies = status.map(|status| status.policies.clone()).unwrap_or_default();
    let more_policies = status.map_or(0, |status| status.more_policies);
    let unreachable = status.map(|status| status.unreachable_limits.clone()).unwrap_or_default();
    let uid = store.uid().unwrap_or_default();
    NodeReport { node: store.name_any(), uid, policies, more_policies, unreachable }
}

/// Asks the API itself whether a node exists.
pub async fn ask(client: &Client, node: &str) -> Answer {
    let request = Request::get(format!("/api/v1/nodes/{node}"))
        .header("accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
        .body(Body::empty());
    let request = match request {
        Ok(request) => request,
        Err(error) => return Answer::Failed(error.to_string()),
    };
    let exchange = async {
        let response = client.send(request).await?;
        let status = response.status().as_u16();
        Ok::<_, kube::Error>((status, response.into_body().collect_bytes().await?))
    };
    match timeout(REQUEST, exchange).await {
        Ok(Ok((status, body))) => answer(node, status, &body),
        Ok(Err(error)) => Answer::Failed(plain(&error)),
        Err(_) => Answer::Failed("no answer in time".to_owned()),
    }
}

/// What a reply says of a node. Only the API's own words about that very node count: a proxy on the way
/// may answer 404 as well.
fn answer(node: &str, status: u16, body: &[u8]) -> Answer {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let is_missing = body["kind"] == "Status"
        && body["reason"] == "NotFound"
        && body["details"]["kind"] == "nodes"
        && body["details"]["name"] == node
        && body["details"]["group"].as_str().unwrap_or_default().is_empty();
    match status {
        200 if body["metadata"]["name"] == node => Answer::Exists,
        404 if is_missing => Answer::Missing,
        _ => Answer::Failed(format!("the reply {status} says nothing about the node")),
    }
}

/// Deletes a store, if it is still that one.
pub async fn remove(client: &Client, store: &StoreId) -> Result<(), String> {
    let api: Api<Store> = Api::all(client.clone());
    let same = Preconditions { uid: Some(store.uid.clone()), resource_version: None };
    let how = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
    match timeout(REQUEST, api.delete(&store.node, &how)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(plain(&error)),
        Err(_) => Err("no answer in time".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_apis_own_words_about_that_very_node_say_that_it_is_missing() {
        let missing =
            json!({"kind": "Status", "reason": "NotFound", "details": {"name": "n1", "kind": "nodes"}});
        let with = |path: &str, value: Value| {
            let mut body = missing.clone();
            *body.pointer_mut(path).unwrap() = value;
            body
        };
        assert_eq!(answer("n1", 404, missing.to_string().as_bytes()), Answer::Missing);
        assert_eq!(answer("n1", 200, br#"{"metadata": {"name": "n1"}}"#), Answer::Exists);
        for (status, body) in [
            (404, json!("404 page not found")),
            (404, json!({})),
            (403, missing.clone()),
            (500, missing.clone()),
            (200, missing.clone()),
            (404, with("/details/name", json!("n2"))),
            (404, with("/details/kind", json!("nodecheckpointstores"))),
            (404, with("/reason", json!("Forbidden"))),
            (404, with("/kind", json!("Node"))),
            (200, json!({"metadata": {"name": "n2"}})),
        ] {
            let answer = answer("n1", status, body.to_string().as_bytes());
            assert!(matches!(answer, Answer::Failed(_)), "{status} {body}: {answer:?}");
        }
    }
}

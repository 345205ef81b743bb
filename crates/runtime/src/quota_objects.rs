//! The quotas that the API shows.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use checkpoint_keeper_api::CheckpointQuota;
use checkpoint_keeper_api::api_object::ApiObject;
use jiff::Timestamp;
use kube::Client;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watcher;
use serde_json::Value;
use tokio::sync::watch;

use super::cache::Cache;
use super::guarded::{self, Broken};
use super::liveness::{now, other_watch};
use super::problem_log::Problem;
use super::watch::{follow, objects_of};

/// So many objects are listed at a time.
const PAGE: u32 = 50;

/// An object as its kind, or what is left of it.
pub type SeenQuota = Result<Arc<CheckpointQuota>, Arc<Broken>>;

/// The quotas, as far as they were seen; shared by whoever watches and whoever asks.
#[derive(Debug, Clone)]
pub struct QuotaObjects {
    cache: Arc<Mutex<Cache<SeenQuota>>>,
    changed: watch::Sender<()>,
    /// The node that their statuses are of interest for; none: all are.
    node: Option<String>,
}

impl QuotaObjects {
    /// None seen yet. Of their statuses' nodes only the one of that name is kept, where one is given.
    pub fn new(node: Option<String>) -> Self {
        Self { cache: Arc::default(), changed: watch::Sender::new(()), node }
    }

    /// Watches them, for as long as it is polled.
    pub async fn watch(&self, client: &Client) {
        let config = other_watch().page_size(PAGE);
        let events = watcher(objects_of::<CheckpointQuota>(client), config);
        let node = self.node.clone();
        follow(events.modify(move |object| strip(object, node.as_deref())), |change| {
            let read = |object| guarded::read(object).map(Arc::new).map_err(Arc::from);
            if self.cache().note(change, now(), read) {
                self.changed.send_replace(());
            }
        })
        .await;
    }

    fn cache(&self) -> MutexGuard<'_, Cache<SeenQuota>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change from here on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// All of them, once they have been listed in full; nothing before.
    pub fn all(&self) -> Option<Vec<SeenQuota>> {
        let cache = self.cache();
        cache.is_listed().then(|| cache.objects.values().cloned().collect())
    }

    /// Waits until they have been listed in full.
    pub async fn listed(&self) {
        let mut changes = self.changes();
        while !self.cache().is_listed() && changes.changed().await.is_ok() {}
    }

    /// Those of a namespace that are what their kind says, as far as they were seen.
    pub fn of(&self, namespace: &str) -> Vec<Arc<CheckpointQuota>> {
        let cache = self.cache();
        let from = cache.objects.range((namespace.to_owned(), String::new())..);
        let of_namespace = from.take_while(|((its, _), _)| its == namespace);
        of_namespace.filter_map(|(_, seen)| seen.as_ref().ok()).cloned().collect()
    }

    /// The namespaces that have any, and when the newest was created; none where there are none. Also of one that is not
    /// what its kind says: it may be mended.
    pub fn namespaces(&self) -> Option<(BTreeSet<String>, Timestamp)> {
        let cache = self.cache();
        let created = |seen: &SeenQuota| {
            let metadata = match seen {
                Ok(object) => &object.metadata,
                Err(broken) => &broken.metadata,
            };
            metadata.creation_timestamp.as_ref().map(|created| created.0)
        };
        let latest = cache.objects.values().filter_map(created).max()?;
        Some((cache.objects.keys().map(|(namespace, _)| namespace.clone()).collect(), latest))
    }

    /// What is wrong with the watch, if that is so for so long that it counts: quotas may be out of date.
    pub fn watch_error(&self, now: Instant) -> Option<String> {
        self.cache().error("checkpointquotas", now)
    }

    /// What is wrong with the watch at this moment, for the log.
    pub fn watch_problem(&self, now: Instant) -> Option<Problem> {
        self.cache().problem("checkpointquotas", now)
    }
}

/// Leaves of a quota what is looked at: its status names up to a hundred nodes.
fn strip(object: &mut ApiObject, node: Option<&str>) {
    guarded::strip(&mut object.metadata);
    let nodes = object.data.pointer_mut("/status/nodes").and_then(Value::as_array_mut);
    if let (Some(node), Some(nodes)) = (node, nodes) {
        nodes.retain(|one| one["name"] == node);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::watch::Change;
    use super::*;

    fn object(namespace: &str, name: &str, created: &str) -> ApiObject {
        let nodes = ["n1", "n2"].map(|name| json!({"name": name, "count": 1, "bytes": "5"}));
        serde_json::from_value(json!({
            "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointQuota",
            "metadata": {"namespace": namespace, "name": name, "creationTimestamp": created},
            "spec": {"hard": {"count": 1}},
            "status": {"used": {"count": 2, "bytes": "10"}, "nodes": nodes},
        }))
        .unwrap()
    }

    fn seen(objects: &[(&str, &str, &str)]) -> QuotaObjects {
        let quotas = QuotaObjects::new(Some("n2".to_owned()));
        let listed = objects.iter().map(|(namespace, name, created)| {
            let mut object = object(namespace, name, created);
            strip(&mut object, Some("n2"));
            object
        });
        let read = |object| guarded::read(object).map(Arc::new).map_err(Arc::from);
        quotas.cache().note(Change::Listed(listed.collect()), now(), read);
        quotas
    }

    #[test]
    fn a_namespace_has_its_own_quotas_and_no_others() {
        let (early, late) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
        let quotas = seen(&[("b", "x", early), ("a", "x", late), ("b", "y", early), ("b-c", "x", early)]);
        let names = |namespace: &str| {
            let of = quotas.of(namespace).into_iter();
            of.map(|quota| quota.metadata.name.clone().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!((names("b"), names("b-c")), (vec!["x".to_owned(), "y".to_owned()], vec!["x".to_owned()]));
        assert_eq!((names("a"), names("c"), names("")), (vec!["x".to_owned()], vec![], vec![]));
        let (namespaces, latest) = quotas.namespaces().unwrap();
        assert_eq!(namespaces, ["a", "b", "b-c"].map(str::to_owned).into());
        assert_eq!(latest, late.parse::<Timestamp>().unwrap());
        assert_eq!(seen(&[]).namespaces(), None);
    }

    /// Thousands of agents watch them.
    #[test]
    fn of_a_status_only_the_own_nodes_part_is_kept() {
        let quotas = seen(&[("a", "x", "2026-01-01T00:00:00Z")]);
        let status = quotas.of("a")[0].status.clone().unwrap();
        assert_eq!(status.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>(), ["n2"]);
        assert_eq!(status.used.unwrap().count, 2);
    }
}

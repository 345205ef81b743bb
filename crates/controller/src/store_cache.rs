//! What the agents report of their nodes.
//!
//! The store of a node that is gone goes with it: it has an owner reference to the node, and Kubernetes collects it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use checkpoint_keeper_api::NodeCheckpointStore;
use checkpoint_keeper_api::api_object::ApiObject;
use checkpoint_keeper_runtime::cache::{Cache, kept};
use checkpoint_keeper_runtime::problem_log::Problem;
use checkpoint_keeper_runtime::watch::{Change, follow, objects_of};
use kube::runtime::watcher::{self, watcher};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::sync::watch;

use super::node_report::NodeReport;

/// So many stores are listed at a time: each is up to 32 KiB, there are thousands, and little of each is kept.
const PAGE: u32 = 100;

/// The nodes' reports, shared by the task that watches them and those that read them.
#[derive(Debug, Clone)]
pub struct StoreCache {
    stores: Arc<Mutex<Cache<Arc<NodeReport>>>>,
    changed: watch::Sender<()>,
}

impl Default for StoreCache {
    fn default() -> Self {
        Self { stores: Arc::default(), changed: watch::Sender::new(()) }
    }
}

impl StoreCache {
    /// Watches them, for as long as it is polled.
    pub async fn watch(&self, client: &Client) {
        let config = watcher::Config::default().page_size(PAGE);
        let events = watcher(objects_of::<NodeCheckpointStore>(client), config);
        follow(kept(events, |store| Arc::new(report(store))), |change| {
            let is_news = match &change {
                Change::Applied((key, report)) => self.stores().objects.get(key) != Some(report),
                _ => true,
            };
            if self.stores().note_kept(change, Instant::now()) && is_news {
                self.changed.send_replace(());
            }
        })
        .await;
    }

    fn stores(&self) -> MutexGuard<'_, Cache<Arc<NodeReport>>> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change from here on.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What every node reports; nothing before all have been listed.
    pub fn all(&self) -> Option<Vec<Arc<NodeReport>>> {
        let stores = self.stores();
        stores.is_listed().then(|| stores.objects.values().cloned().collect())
    }

    /// What is wrong with the watch at this moment, for the log.
    pub fn watch_problem(&self, now: Instant) -> Option<Problem> {
        self.stores().problem("nodecheckpointstores", now)
    }

    /// What is wrong with the watch.
    pub fn not_ready_reasons(&self, now: Instant) -> Vec<String> {
        self.stores().error("nodecheckpointstores", now).into_iter().collect()
    }
}

/// A store whose status is not what its kind says reports nothing.
fn report(mut store: ApiObject) -> NodeReport {
    let node = store.name_any();
    let (uid, resource_version) =
        (store.uid().unwrap_or_default(), store.resource_version().unwrap_or_default());
    let status = store.data.get_mut("status").map(Value::take).map(serde_json::from_value);
    let Some(Ok(status)) = status else {
        return NodeReport { node, uid, resource_version, ..NodeReport::default() };
    };
    NodeReport::of(node, uid, resource_version, status)
}

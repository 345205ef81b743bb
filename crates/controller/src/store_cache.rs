//! What the agents report of their nodes.
//!
//! The store of a node that is gone goes with it: it has an owner reference to the node, and Kubernetes collects it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use checkpoint_keeper_api::{NodeCheckpointStore, NodeCheckpointStoreStatus};
use kube::api::DynamicObject;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, ResourceExt};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

use super::node_report::NodeReport;
use super::quota_sums;
use checkpoint_keeper_runtime::cache::Cache;
use checkpoint_keeper_runtime::guarded;
use checkpoint_keeper_runtime::problem_log::Problem;
use checkpoint_keeper_runtime::watch::{Change, follow, objects_of};

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
        // A report is large and there are thousands: what is not needed is dropped before they are gathered.
        let events = watcher(objects_of::<NodeCheckpointStore>(client), watcher::Config::default());
        follow(events.modify(strip), |change| {
            let is_news = match &change {
                Change::Applied(store) => {
                    let stores = self.stores();
                    let known = stores.objects.get(&(String::new(), store.name_any()));
                    known.is_none_or(|known| **known != report(store))
                }
                _ => true,
            };
            if self.stores().note(change, Instant::now(), |store| Arc::new(report(&store))) && is_news {
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

/// Leaves of a store what a report needs.
fn strip(store: &mut DynamicObject) {
    guarded::strip(&mut store.metadata);
    if let Some(fields) = store.data.as_object_mut() {
        fields.retain(|name, _| name == "status");
    }
    if let Some(status) = store.data.get_mut("status").and_then(Value::as_object_mut) {
        const NEEDED: [&str; 12] = [
            "archives",
            "conditions",
            "latestQuotaTime",
            "moreNamespaces",
            "morePolicies",
            "moreQuotas",
            "moreSchedules",
            "namespaces",
            "policies",
            "quotas",
            "schedules",
            "unreachableLimits",
        ];
        status.retain(|name, _| NEEDED.contains(&name.as_str()));
    }
}

/// A store whose status is not what its kind says reports nothing.
fn report(store: &DynamicObject) -> NodeReport {
    let node = store.name_any();
    let (uid, resource_version) =
        (store.uid().unwrap_or_default(), store.resource_version().unwrap_or_default());
    let status = store.data.get("status").map(NodeCheckpointStoreStatus::deserialize);
    let Some(Ok(status)) = status else {
        return NodeReport { node, uid, resource_version, ..NodeReport::default() };
    };
    NodeReport {
        node,
        uid,
        resource_version,
        ready: status.ready().map(|ready| ready.status.clone()).unwrap_or_default(),
        acts_by_policies: status.acts_by_policies(),
        held: quota_sums::namespaces(&status),
        named: quota_sums::named(&status),
        stale_since: quota_sums::stale_since(&status),
        policies: status.policies,
        more_policies: status.more_policies,
        unreachable: status.unreachable_limits,
        schedules: status.schedules,
        more_schedules: status.more_schedules,
    }
}

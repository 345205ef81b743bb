//! What the API shows of this node: the `Node`, and the `NodeCheckpointStore` in which the agent reports.
//! [`own_watch`](super::own_watch) keeps it up to date.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use checkpoint_keeper_api::NodeCheckpointStore;
use checkpoint_keeper_core::engine::discard::DiscardReport;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::FileId;
use checkpoint_keeper_core::policy::Labels;
use checkpoint_keeper_runtime::problem_log::Problem;
use checkpoint_keeper_runtime::watch::WatchHealth;

use super::api_write::is_earlier;
use super::status;

/// The API objects of this node, shared by the tasks that watch them and those that read them.
#[derive(Clone, Default)]
pub(super) struct OwnObjects(Arc<Mutex<Seen>>, Arc<Mutex<Watches>>);

/// The health of the watches of the two.
#[derive(Debug, Default)]
pub(super) struct Watches {
    pub(super) node: WatchHealth,
    pub(super) store: WatchHealth,
}

/// What was seen of the node and its store.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    /// The node's labels and UID, once they were seen.
    pub(super) node: Option<(Labels, String)>,
    /// The node's `NodeCheckpointStore`, if there is one.
    pub(super) store: Option<NodeCheckpointStore>,
    /// The UID of the store that was here last and is gone.
    gone: Option<String>,
    /// Whether it is known whether there is one.
    pub(super) is_listed: bool,
    /// The generation of its spec that was sent to the engine.
    pub(super) sent: Option<i64>,
    /// What its status said of each file of `spec.discard` when it was first listed; none before.
    pub(super) reported_discards: Option<Arc<BTreeMap<FileName, DiscardReport>>>,
    /// The archives whose deletion was asked for through their `ContainerCheckpoint`s.
    pub(super) discards: Arc<BTreeMap<FileName, FileId>>,
    /// Whether policies are paused, as they could not be confirmed for long.
    pub(super) is_paused: bool,
}

impl Seen {
    /// The node's UID; none before it was seen.
    pub(super) fn node_uid(&self) -> Option<&str> {
        self.node.as_ref().map(|(_, uid)| uid.as_str()).filter(|uid| !uid.is_empty())
    }

    /// Whether there is a store, and it goes with the node of that UID.
    pub(super) fn belongs_to(&self, uid: &str) -> bool {
        let owners = self.store.as_ref().and_then(|store| store.metadata.owner_references.as_ref());
        owners.is_some_and(|owners| owners.iter().any(|owner| owner.kind == "Node" && owner.uid == uid))
    }

    /// Takes the store that there is, if any.
    pub(super) fn listed(&mut self, store: Option<NodeCheckpointStore>) {
        if self.reported_discards.is_none() {
            let status = store.as_ref().and_then(|store| store.status.as_ref());
            let reported = status.map(status::reported_discards).unwrap_or_default();
            self.reported_discards = Some(Arc::new(reported));
        }
        let before = self.store.take();
        let before = before.as_ref().and_then(uid);
        if before != store.as_ref().and_then(uid) {
            self.gone = before.map(str::to_owned);
        }
        (self.store, self.is_listed) = (store, true);
    }

    /// Takes the store as the watch shows it; what was written a moment ago, it may show later.
    pub(super) fn applied(&mut self, store: NodeCheckpointStore) {
        let is_older = self.store.as_ref().is_some_and(|known| {
            let version = known.metadata.resource_version.as_deref().unwrap_or_default();
            uid(known) == uid(&store)
                && is_earlier(&store, version, known.metadata.generation.unwrap_or_default())
        });
        if !is_older {
            self.gone.take_if(|gone| uid(&store) == Some(gone));
            self.store = Some(store);
        }
    }

    /// Takes the store as the API had it when it was written. What the watch showed meanwhile may be later: another spec,
    /// or its end.
    pub(super) fn written(&mut self, store: NodeCheckpointStore) {
        if self.gone.is_none() || self.gone.as_deref() != uid(&store) {
            self.applied(store);
        }
    }

    /// Notes that the store of that UID is gone.
    pub(super) fn deleted(&mut self, gone: Option<&str>) {
        self.store.take_if(|store| uid(store) == gone);
        self.gone = gone.map(str::to_owned);
    }

    /// Whether the engine goes by the same: a node's heartbeat, and what was written here, change nothing.
    pub(super) fn means_the_same_as(&self, other: &Self) -> bool {
        let spec = |own: &Self| {
            own.store.as_ref().map(|store| (store.metadata.generation, store.spec.discard.clone()))
        };
        self.node == other.node && spec(self) == spec(other)
    }
}

fn uid(store: &NodeCheckpointStore) -> Option<&str> {
    store.metadata.uid.as_deref()
}

impl OwnObjects {
    /// Notes something.
    pub(super) fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The health of the watches.
    pub(super) fn watches(&self) -> MutexGuard<'_, Watches> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The UID of the node's store, if there is one.
    pub(super) fn store_uid(&self) -> Option<String> {
        let seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.store.as_ref().and_then(uid).map(str::to_owned)
    }

    /// What was seen by now.
    pub(super) fn now(&self) -> Seen {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is wrong with the watches.
    pub(super) fn not_ready_reasons(&self, now: Instant) -> impl Iterator<Item = String> {
        let watches = self.watches();
        let errors = [watches.node.error("nodes", now), watches.store.error("nodecheckpointstores", now)];
        errors.into_iter().flatten()
    }

    /// What is wrong with each watch at this moment, for the log.
    pub(super) fn watch_problems(&self, now: Instant) -> impl Iterator<Item = Problem> {
        let watches = self.watches();
        let problems =
            [watches.node.problem("nodes", now), watches.store.problem("nodecheckpointstores", now)];
        problems.into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_api::node_store::NodeCheckpointStoreStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_written_here_changes_nothing_for_the_engine() {
        let mut store = NodeCheckpointStore::new("node-1", serde_json::from_value(json!({})).unwrap());
        let before = Seen { store: Some(store.clone()), ..Seen::default() };
        store.status = Some(NodeCheckpointStoreStatus::default());
        let written = Seen { store: Some(store.clone()), sent: Some(1), ..before.clone() };
        assert!(written.means_the_same_as(&before));
        store.spec.discard = vec!["file".into()];
        assert!(!Seen { store: Some(store), ..written }.means_the_same_as(&before));
        let node = Some((Labels::default(), "uid".to_owned()));
        assert!(!Seen { node, ..before.clone() }.means_the_same_as(&before));
    }

    #[test]
    fn an_answer_that_comes_late_undoes_nothing_that_the_watch_has_shown() {
        let store = |uid: &str, version: &str, file: &str| {
            let mut store = NodeCheckpointStore::new(
                "node-1",
                serde_json::from_value(json!({"discard": [file]})).unwrap(),
            );
            store.metadata.uid = Some(uid.to_owned());
            store.metadata.resource_version = Some(version.to_owned());
            store
        };
        let is = |seen: &Seen| {
            seen.store.as_ref().map(|store| serde_json::to_value(&store.spec.discard[0]).unwrap())
        };
        let mut seen = Seen::default();
        seen.listed(Some(store("one", "9", "a.tar")));
        seen.written(store("one", "10", "b.tar"));
        assert_eq!(is(&seen), Some(json!("b.tar")));
        // A user has changed it since, and the watch is as far.
        seen.applied(store("one", "12", "c.tar"));
        seen.written(store("one", "11", "b.tar"));
        assert_eq!(is(&seen), Some(json!("c.tar")));
        // The other way round.
        seen.applied(store("one", "10", "b.tar"));
        assert_eq!(is(&seen), Some(json!("c.tar")));
        seen.deleted(Some("one"));
        seen.written(store("one", "13", "c.tar"));
        assert_eq!(is(&seen), None);
        // It was made anew, and that the old one is gone may be seen later.
        seen.written(store("two", "14", "d.tar"));
        seen.deleted(Some("one"));
        assert_eq!(is(&seen), Some(json!("d.tar")));
        // A list is all that there is.
        seen.listed(None);
        seen.written(store("two", "15", "e.tar"));
        assert_eq!(is(&seen), None);
        seen.applied(store("two", "15", "e.tar"));
        seen.written(store("two", "16", "f.tar"));
        assert_eq!(is(&seen), Some(json!("f.tar")));
    }

    #[test]
    fn a_store_belongs_to_the_node_of_that_uid_and_not_to_one_made_anew_by_its_name() {
        let mut store = NodeCheckpointStore::new("node-1", serde_json::from_value(json!({})).unwrap());
        let seen = |store: &NodeCheckpointStore| Seen { store: Some(store.clone()), ..Seen::default() };
        assert!(!Seen::default().belongs_to("u1"));
        assert!(!seen(&store).belongs_to("u1"));
        let owner = |kind: &str| OwnerReference {
            kind: kind.to_owned(),
            uid: "u1".to_owned(),
            ..OwnerReference::default()
        };
        store.metadata.owner_references = Some(vec![owner("ConfigMap")]);
        assert!(!seen(&store).belongs_to("u1"));
        store.metadata.owner_references = Some(vec![owner("Node")]);
        assert!(seen(&store).belongs_to("u1") && !seen(&store).belongs_to("u2"));
    }
}

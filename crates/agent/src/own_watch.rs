//! Watching this node's own objects: the `Node`, and its `NodeCheckpointStore`.

use checkpoint_keeper_api::NodeCheckpointStore;
use checkpoint_keeper_api::api_object::{ApiObject, Metadata};
use checkpoint_keeper_core::policy::Labels;
use checkpoint_keeper_runtime::liveness::{now, other_watch};
use checkpoint_keeper_runtime::watch::{Change, WatchHealth, follow, metadata_of, objects_of};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::runtime::watcher::watcher;

use super::context::ApiContext;
use super::problem_type::ProblemType;

impl ApiContext {
    /// Watches the node, for as long as it is polled.
    pub(super) async fn watch_node(&self) {
        let config = other_watch().fields(&format!("metadata.name={}", self.node));
        let api = metadata_of::<Node>(&self.client);
        follow(watcher(api, config), |change| {
            let before = self.own.now();
            let why = note(&mut self.own.watches().node, &change);
            self.note_watch(ProblemType::NodeUnwatched, "the node", why);
            // Of one with more labels than are read nothing is known: a policy may select it by any.
            let seen = |node: Metadata| {
                let uid = node.uid().unwrap_or_default();
                let labels = node.metadata.labels.unwrap_or_default().into_iter().collect::<Labels>();
                (!node.has_too_many_labels).then_some((labels, uid))
            };
            match change {
                Change::Listed(nodes) => {
                    let node = nodes.into_iter().next().and_then(seen);
                    self.own.note(|own| own.node = node);
                }
                Change::Applied(node) => self.own.note(|own| own.node = seen(node)),
                // Its labels are as they were when it was last seen; a plan needs some.
                Change::Deleted(_) | Change::Failed(_) => {}
            }
            if !self.own.now().means_the_same_as(&before) {
                self.objects.notify();
            }
        })
        .await;
    }

    /// Watches its store, for as long as it is polled.
    pub(super) async fn watch_store(&self) {
        let config = other_watch().fields(&format!("metadata.name={}", self.node));
        let api = objects_of::<NodeCheckpointStore>(&self.client);
        follow(watcher(api, config), |change| {
            let before = self.own.now();
            let why = note(&mut self.own.watches().store, &change);
            self.note_watch(ProblemType::StoreUnwatched, "the node's NodeCheckpointStore", why);
            match change.map(store) {
                Change::Listed(stores) => {
                    let store = stores.into_iter().next();
                    self.own.note(|own| own.listed(store));
                }
                Change::Applied(store) => self.own.note(|own| own.applied(store)),
                Change::Deleted(store) => self.own.note(|own| own.deleted(store.metadata.uid.as_deref())),
                Change::Failed(_) => {}
            }
            if !self.own.now().means_the_same_as(&before) {
                self.objects.notify();
            }
        })
        .await;
    }
}

/// Notes what a watch showed; returns why it fails, if that lasts.
fn note<T>(health: &mut WatchHealth, change: &Change<T>) -> Option<String> {
    health.note(change, now());
    health.lasting_error(now()).map(str::to_owned)
}

/// A store as far as it can be read: a status that is not what the kind says, as another version wrote it, is left out, and of
/// such a spec nothing is carried out.
fn store(object: ApiObject) -> NodeCheckpointStore {
    let part = |name: &str| object.data.get(name).cloned().unwrap_or_default();
    NodeCheckpointStore {
        spec: serde_json::from_value(part("spec")).unwrap_or_default(),
        status: serde_json::from_value(part("status")).ok(),
        metadata: object.metadata,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_store_whose_status_another_version_wrote_is_read_without_it() {
        let read = |status: serde_json::Value| {
            let object = json!({"metadata": {"name": "n"}, "spec": {"discard": ["a.tar"]}, "status": status});
            store(serde_json::from_value(object).unwrap())
        };
        let known = read(json!({"archives": 3}));
        assert_eq!((known.status.unwrap().archives, known.spec.discard.len()), (3, 1));
        let other = read(json!({"archives": 3, "problems": ["as text"]}));
        assert_eq!((other.status, other.spec.discard.len()), (None, 1));
    }
}

//! The agent's side of the API: it learns the policies in force and tells the engine, and it publishes
//! what is on the board. Everything here may fail for as long as it likes; the engine goes on by what it
//! was told last.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use checkpoint_keeper_api::NodeCheckpointStore;
use checkpoint_keeper_api::in_force::{Scope, in_force};
use checkpoint_keeper_api::node_store::NodeCheckpointStoreStatus;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::policy::{Confidence, Labels, PolicyRef, PolicySet};
use checkpoint_keeper_node::orders::{OrderSender, Orders};
use checkpoint_keeper_node::shown::ShownSender;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::board::{Board, Notes};
use super::events::Events;
use super::pace::{News, Pace};
use super::sights::Sights;
use super::status::{Circumstances, status};
use crate::runtime::objects::{Change, Health, Metadata, PolicyObjects, follow, metadata_of};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);

/// How often what only time brings about is looked at.
const TICK: Duration = Duration::from_secs(5);

/// Who writes, in the objects' managed fields.
const WRITER: &str = "checkpoint-keeper-agent";

/// The agent's side of the API.
#[derive(Clone)]
pub(super) struct ApiSide {
    pub(super) client: Client,
    pub(super) node: String,
    pub(super) scope: Scope,
    pub(super) objects: PolicyObjects,
    pub(super) board: Board,
    pub(super) own: Own,
    pub(super) sights: Sights,
    /// How long the status rests after it was written, unless a problem appears.
    pub(super) rest: Duration,
}

/// What the API shows of this node, shared by those who watch it.
#[derive(Clone, Default)]
pub(super) struct Own(Arc<Mutex<OwnObjects>>, Arc<Mutex<Watches>>);

/// The watches of the two.
#[derive(Debug, Default)]
struct Watches {
    node: Health,
    store: Health,
}

#[derive(Debug, Default, Clone)]
struct OwnObjects {
    /// The node's labels and UID, once they were seen.
    node: Option<(Labels, String)>,
    /// The node's `NodeCheckpointStore`, if there is one.
    store: Option<NodeCheckpointStore>,
    /// Whether it is known whether there is one.
    is_listed: bool,
    /// The generation of its spec that the engine was told.
    told: Option<i64>,
}

impl OwnObjects {
    /// Whether the engine goes by the same: a node's heartbeat, and what was written here, change nothing.
    fn orders_as(&self, other: &Self) -> bool {
        let spec = |own: &Self| {
            own.store.as_ref().map(|store| (store.metadata.generation, store.spec.discard.clone()))
        };
        self.node == other.node && spec(self) == spec(other)
    }
}

impl Own {
    fn note(&self, change: impl FnOnce(&mut OwnObjects)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn watches(&self) -> MutexGuard<'_, Watches> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> OwnObjects {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ApiSide {
    /// Does all of it, for as long as it is polled.
    pub(super) async fn run(&self, orders: OrderSender, shown: ShownSender) {
        tokio::join!(
            self.sights.run(&self.client, &self.node, &shown),
            self.objects.watch(&self.client),
            self.watch_node(),
            self.watch_store(),
            self.tell(orders),
            self.publish(),
            self.send_events(),
        );
    }

    /// What keeps it from doing its work.
    pub(super) fn troubles(&self, now: Instant) -> Vec<String> {
        let gone = self.board.read(|notes| notes.gone.clone());
        gone.into_iter().chain(self.api_troubles(now)).collect()
    }

    fn api_troubles(&self, now: Instant) -> Vec<String> {
        let watches = self.own.watches();
        let own = [watches.node.trouble("nodes", now), watches.store.trouble("nodecheckpointstores", now)];
        let own = own.into_iter().flatten();
        self.objects.troubles(now).into_iter().chain(own).chain(self.sights.troubles(now)).collect()
    }

    async fn watch_node(&self) {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.node));
        let api = metadata_of::<Node>(&self.client);
        follow(watcher(api, config), |change| {
            let before = self.own.now();
            self.own.watches().node.note(&change, Instant::now());
            let seen = |node: Metadata| {
                let uid = node.uid().unwrap_or_default();
                (node.metadata.labels.unwrap_or_default().into_iter().collect::<Labels>(), uid)
            };
            match change {
                Change::Listed(nodes) => {
                    let node = nodes.into_iter().next().map(seen);
                    self.own.note(|own| own.node = node);
                }
                Change::Applied(node) => self.own.note(|own| own.node = Some(seen(node))),
                // Its labels are as they were when it was last seen; a plan needs some.
                Change::Deleted(_) => {}
                Change::Failed(error) => {
                    self.say("watch node", format!("the node cannot be watched: {error}"));
                }
            }
            if !self.own.now().orders_as(&before) {
                self.objects.touch();
            }
        })
        .await;
    }

    async fn watch_store(&self) {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.node));
        let api = Api::<NodeCheckpointStore>::all(self.client.clone());
        follow(watcher(api, config), |change| {
            let before = self.own.now();
            self.own.watches().store.note(&change, Instant::now());
            match change {
                Change::Listed(stores) => {
                    let store = stores.into_iter().next();
                    self.own.note(|own| (own.store, own.is_listed) = (store, true));
                }
                Change::Applied(store) => self.own.note(|own| own.store = Some(store)),
                Change::Deleted(_) => self.own.note(|own| own.store = None),
                Change::Failed(error) => {
                    let what = format!("the node's NodeCheckpointStore cannot be watched: {error}");
                    self.say("watch store", what);
                }
            }
            if !self.own.now().orders_as(&before) {
                self.objects.touch();
            }
        })
        .await;
    }

    fn say(&self, kind: &'static str, what: String) {
        self.board.problem(kind, String::new(), what, Instant::now());
    }

    /// Tells the engine what is in force, whenever that changes. Before every kind was listed in full it
    /// is told nothing, and so deletes nothing.
    async fn tell(&self, orders: OrderSender) {
        let mut changes = self.objects.changes();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told: Option<(Orders, BTreeSet<PolicyRef>)> = None;
        let mut looked = None;
        loop {
            let has_changed = tokio::select! {
                ended = changes.changed() => if ended.is_err() { return } else { true },
                _ = tick.tick() => false,
            };
            // All that only time brings about.
            let other_operator = self.objects.other_operator_runs();
            if !has_changed && looked == Some(other_operator) {
                continue;
            }
            let Some(objects) = self.objects.all() else { continue };
            looked = Some(other_operator);
            let found = in_force(&objects, &Scope { other_operator, ..self.scope.clone() });
            self.sights.want_namespaces(selects_namespaces(&found.policies));
            let own = self.own.now();
            let generation = own.store.as_ref().and_then(|store| store.metadata.generation);
            let discard = own.store.map(|store| store.spec.discard).unwrap_or_default();
            let discard = discard.iter().filter_map(|file| FileName::new(file.as_bytes())).collect();
            let next = Orders {
                policies: Arc::new(found.policies),
                confidence: Confidence::Current,
                governors: Arc::new(self.objects.governors()),
                node_labels: own.node.map(|(labels, _)| labels),
                discard: own.is_listed.then(|| Arc::new(discard)),
            };
            let at_once = match &told {
                Some((before, _)) if *before == next => None,
                Some((before, patient)) => Some(!only_patient(before, &next, patient, &found.patient)),
                None => Some(true),
            };
            let looked_at = found.standings.iter();
            let generations =
                looked_at.filter_map(|(id, (generation, _))| Some((id.clone(), (*generation)?)));
            self.board.told(generations.collect());
            if let Some(at_once) = at_once {
                orders.tell(next.clone(), at_once);
                told = Some((next, found.patient));
            }
            self.own.note(|own| own.told = generation);
        }
    }

    /// Keeps the node's `NodeCheckpointStore` as the board says.
    async fn publish(&self) {
        let mut changes = self.board.changes();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut pace = Pace::new(self.rest);
        loop {
            tokio::select! {
                ended = changes.changed() => if ended.is_err() { return },
                _ = tick.tick() => {}
            }
            let own = self.own.now();
            if !own.is_listed {
                continue;
            }
            let before = own.store.as_ref().and_then(|store| store.status.as_ref());
            let now = Instant::now();
            let circumstances = self.circumstances(&own, now);
            let next = self.board.read(|notes| status(notes, &circumstances, before, Timestamp::now()));
            let news = News {
                reason: next.conditions.first().map(|ready| ready.reason.clone()).unwrap_or_default(),
                problems: self.board.read(Notes::kinds_of_problems),
            };
            if before == Some(&next) || !pace.is_due(&news, now) {
                continue;
            }
            let written = self.write(&own, &next).await;
            pace.note(news, written.is_err(), Instant::now());
            match written {
                // What was written is seen by the watch a moment later; until then it would be written again.
                Ok(store) => self.own.note(|own| own.store = Some(store)),
                Err(error) => {
                    let what = format!("the node's NodeCheckpointStore cannot be written: {error}");
                    self.say("write store", what);
                }
            }
        }
    }

    fn circumstances(&self, own: &OwnObjects, now: Instant) -> Circumstances {
        let before = own.store.as_ref().and_then(|store| store.status.as_ref());
        Circumstances {
            directory: self.scope.directory.clone(),
            // Until the engine is told anything, what it was told before a restart.
            generation: own.told.or(before.and_then(|before| before.observed_generation)),
            troubles: self.api_troubles(now),
        }
    }

    async fn write(
        &self,
        own: &OwnObjects,
        status: &NodeCheckpointStoreStatus,
    ) -> Result<NodeCheckpointStore, String> {
        let api = Api::<NodeCheckpointStore>::all(self.client.clone());
        let params = PatchParams::apply(WRITER).force();
        let kind = json!({"apiVersion": "criu.org/v1alpha1", "kind": "NodeCheckpointStore"});
        if own.store.is_none() {
            let mut object = kind.clone();
            object["metadata"] = json!({"name": self.node});
            object["spec"] = json!({});
            // With the node goes what is known of its disk.
            if let Some((_, uid)) = own.node.as_ref().filter(|(_, uid)| !uid.is_empty()) {
                object["metadata"]["ownerReferences"] =
                    json!([{"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": uid}]);
            }
            within(api.patch(&self.node, &params, &Patch::Apply(&object))).await?;
        }
        let mut object = kind;
        object["metadata"] = json!({"name": self.node});
        object["status"] = serde_json::to_value(status).map_err(|error| error.to_string())?;
        within(api.patch_status(&self.node, &params, &Patch::Apply(&object))).await
    }

    async fn send_events(&self) {
        let events = Events::new(self.client.clone(), self.node.clone());
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let fresh = self.board.take_fresh();
            if fresh.is_empty() {
                continue;
            }
            let uids: BTreeMap<PolicyRef, String> = self.objects.uids();
            for (policy, reason, count, bytes) in fresh {
                let sent = events.deleted(policy.as_ref(), &uids, reason, count, bytes);
                // An event is a courtesy: the audit line was written, and the counters have it.
                let _ = timeout(REQUEST, sent).await;
            }
        }
    }
}

/// Whether a policy goes by the labels of namespaces.
fn selects_namespaces(policies: &PolicySet) -> bool {
    policies.retention.iter().any(|policy| policy.selector.needs_namespace_labels())
}

/// Whether nothing changed but what may wait: policies of objects whose author left it so.
fn only_patient(
    before: &Orders,
    next: &Orders,
    patient_before: &BTreeSet<PolicyRef>,
    patient: &BTreeSet<PolicyRef>,
) -> bool {
    let may_wait = |id: &PolicyRef| {
        let whole = PolicyRef { part: None, ..id.clone() };
        patient_before.contains(&whole) || patient.contains(&whole)
    };
    let urgent = |orders: &Orders| {
        let policies = orders.policies.retention.iter().filter(|policy| !may_wait(&policy.id));
        policies.cloned().collect::<Vec<_>>()
    };
    urgent(before) == urgent(next)
        && before.policies.storage == next.policies.storage
        && before.policies.invalid == next.policies.invalid
        && before.node_labels == next.node_labels
        && before.discard == next.discard
}

async fn within<T>(request: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match timeout(REQUEST, request).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no reply within {} s", REQUEST.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_node::orders;
    use checkpoint_keeper_node::shown::Sight;

    use super::*;
    use crate::runtime::objects::OTHER_OPERATOR_NAMESPACE;

    /// An agent's side whose lists are answered, with nothing in them, once that is so.
    fn side(may_list: &tokio::sync::watch::Sender<bool>) -> ApiSide {
        let may_list = may_list.subscribe();
        let answer = move |request: axum::extract::Request| {
            let mut may_list = may_list.clone();
            async move {
                if request.uri().query().unwrap_or_default().contains("watch=") {
                    return std::future::pending().await;
                }
                may_list.wait_for(|may| *may).await.unwrap();
                let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []});
                axum::response::Response::new(axum::body::Body::from(list.to_string()))
            }
        };
        ApiSide {
            client: Client::new(axum::Router::new().fallback(answer), "default"),
            node: "node-1".to_owned(),
            scope: Scope::default(),
            objects: PolicyObjects::new(OTHER_OPERATOR_NAMESPACE.to_owned()),
            board: Board::new(),
            own: Own::default(),
            sights: Sights::default(),
            rest: Duration::from_mins(1),
        }
    }

    #[test]
    fn what_was_written_here_is_no_order() {
        let mut store = NodeCheckpointStore::new("node-1", serde_json::from_value(json!({})).unwrap());
        let before = OwnObjects { store: Some(store.clone()), ..OwnObjects::default() };
        store.status = Some(NodeCheckpointStoreStatus::default());
        let written = OwnObjects { store: Some(store.clone()), told: Some(1), ..before.clone() };
        assert!(written.orders_as(&before));
        store.spec.discard = vec!["file".to_owned()];
        assert!(!OwnObjects { store: Some(store), ..written }.orders_as(&before));
        let node = Some((Labels::default(), "uid".to_owned()));
        assert!(!OwnObjects { node, ..before.clone() }.orders_as(&before));
    }

    #[tokio::test(start_paused = true)]
    async fn a_spec_counts_as_seen_once_the_engine_was_told() {
        let may_list = tokio::sync::watch::Sender::new(false);
        let side = side(&may_list);
        let mut store = NodeCheckpointStore::new("node-1", serde_json::from_value(json!({})).unwrap());
        store.metadata.generation = Some(5);
        side.own.note(|own| own.store = Some(store));
        let (teller, line) = orders::line().unwrap();
        let observed = || side.circumstances(&side.own.now(), Instant::now()).generation;
        let seen = async {
            tokio::time::sleep(TICK * 3).await;
            assert_eq!(observed(), None);
            may_list.send_replace(true);
            tokio::time::sleep(TICK * 3).await;
        };
        tokio::select! { () = Box::pin(side.objects.watch(&side.client)) => {}, () = side.tell(teller) => {}, () = seen => {} }
        assert!(line.latest().is_some());
        assert_eq!(observed(), Some(5));
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_is_ready_once_everything_was_listed_and_while_it_has_a_directory() {
        let may_list = tokio::sync::watch::Sender::new(true);
        let side = side(&may_list);
        tokio::select! {
            () = Box::pin(side.objects.watch(&side.client)) => {},
            () = tokio::time::sleep(TICK) => {},
        }
        let troubles = || side.troubles(Instant::now());
        assert_eq!(
            troubles(),
            [
                "nodes were not listed yet",
                "nodecheckpointstores were not listed yet",
                "pods were not listed yet"
            ]
        );
        let (shown, line) = checkpoint_keeper_node::shown::line().unwrap();
        tokio::select! {
            () = side.watch_node() => {},
            () = side.watch_store() => {},
            () = side.sights.run(&side.client, "node-1", &shown) => {},
            () = tokio::time::sleep(TICK) => {},
        }
        assert_eq!(troubles(), [""; 0]);
        let seen: Vec<_> = line.told().map(|shown| shown.what).collect();
        assert_eq!(seen.last(), Some(&Sight::Pods(Some(Vec::new()))), "{seen:?}");
        side.board.gone(Some("the directory is gone".to_owned()));
        assert_eq!(troubles(), ["the directory is gone"]);
    }
}

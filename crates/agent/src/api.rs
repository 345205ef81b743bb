//! The agent's side of the API: it learns the policies in force and tells the engine, and it publishes
//! what is observed. Everything here may fail for as long as it likes; the engine goes on by what it
//! was told last.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use checkpoint_keeper_api::NodeCheckpointStore;
use checkpoint_keeper_api::effective::{Acceptance, EffectivePolicies, Scope, effective_policies};
use checkpoint_keeper_api::node_store::NodeCheckpointStoreStatus;
use checkpoint_keeper_core::confidence::Certainty;
use checkpoint_keeper_core::engine::Haste;
use checkpoint_keeper_core::engine::config::EngineConfig;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::policy::{Confidence, Kind, Labels, PolicyRef, PolicySet};
use checkpoint_keeper_node::mailbox::Sender;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

use super::cluster_watch::ClusterWatch;
use super::events::{Events, deleted, unreachable};
use super::state::{AgentState, Observations};
use super::status::{Staleness, StatusContext, status};
use super::throttle::{News, StatusThrottle};
use checkpoint_keeper_runtime::events::Publisher;
use checkpoint_keeper_runtime::liveness::{self, now};
use checkpoint_keeper_runtime::objects::{Change, Metadata, PolicyObjects, WatchHealth, follow, metadata_of};

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);

/// How often what only time brings about is looked at.
pub(super) const TICK: Duration = Duration::from_secs(5);

/// Who writes, in the objects' managed fields.
const WRITER: &str = "checkpoint-keeper-agent";

/// The agent's side of the API.
#[derive(Clone)]
pub(super) struct ApiSide {
    pub(super) client: Client,
    pub(super) node: String,
    pub(super) scope: Scope,
    pub(super) objects: PolicyObjects,
    pub(super) state: AgentState,
    pub(super) own: Own,
    pub(super) cluster_watch: ClusterWatch,
    /// How long the status rests after it was written, unless a problem appears.
    pub(super) rest: Duration,
    /// For how long policies may go unconfirmed until they pause.
    pub(super) staleness: Duration,
}

/// What the API shows of this node, shared by those who watch it.
#[derive(Clone, Default)]
pub(super) struct Own(Arc<Mutex<OwnObjects>>, Arc<Mutex<Watches>>);

/// The watches of the two.
#[derive(Debug, Default)]
struct Watches {
    node: WatchHealth,
    store: WatchHealth,
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
    /// Whether policies are paused, as they could not be confirmed for long.
    is_paused: bool,
}

impl OwnObjects {
    /// The node's UID; none before it was seen.
    fn node_uid(&self) -> Option<&str> {
        self.node.as_ref().map(|(_, uid)| uid.as_str()).filter(|uid| !uid.is_empty())
    }

    /// Whether there is a store, and it goes with the node of that UID.
    fn belongs_to(&self, uid: &str) -> bool {
        let owners = self.store.as_ref().and_then(|store| store.metadata.owner_references.as_ref());
        owners.is_some_and(|owners| owners.iter().any(|owner| owner.kind == "Node" && owner.uid == uid))
    }

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
    pub(super) async fn run(&self, engine: Sender) {
        tokio::join!(
            self.cluster_watch.run(&self.client, &self.node, &engine),
            self.objects.watch(&self.client),
            self.watch_node(),
            self.watch_store(),
            self.configure(&engine),
            self.publish(),
            self.send_events(),
        );
    }

    /// What keeps it from doing its work.
    pub(super) fn not_ready_reasons(&self, now: Instant) -> Vec<String> {
        let gone = self.state.read(|observed| observed.gone.clone());
        gone.into_iter().chain(self.api_not_ready_reasons(now)).collect()
    }

    fn api_not_ready_reasons(&self, now: Instant) -> Vec<String> {
        let watches = self.own.watches();
        let own = [watches.node.error("nodes", now), watches.store.error("nodecheckpointstores", now)];
        let own = own.into_iter().flatten();
        self.objects
            .not_ready_reasons(now)
            .into_iter()
            .chain(own)
            .chain(self.cluster_watch.not_ready_reasons(now))
            .collect()
    }

    async fn watch_node(&self) {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.node));
        let api = metadata_of::<Node>(&self.client);
        follow(watcher(api, config), |change| {
            let before = self.own.now();
            self.own.watches().node.note(&change, now());
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
                self.objects.notify();
            }
        })
        .await;
    }

    async fn watch_store(&self) {
        let config = watcher::Config::default().fields(&format!("metadata.name={}", self.node));
        let api = Api::<NodeCheckpointStore>::all(self.client.clone());
        follow(watcher(api, config), |change| {
            let before = self.own.now();
            self.own.watches().store.note(&change, now());
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
                self.objects.notify();
            }
        })
        .await;
    }

    fn say(&self, kind: &'static str, what: String) {
        self.state.problem(kind, String::new(), what, now());
    }

    /// Tells the engine what is in force, whenever that changes. Before every kind was listed in full it
    /// is told nothing, and so deletes nothing.
    async fn configure(&self, engine: &Sender) {
        let mut changes = self.objects.changes();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told: Option<(EngineConfig, BTreeSet<PolicyRef>)> = None;
        let mut looked = None;
        let mut certainty = Certainty::new(self.staleness);
        let begin = now();
        let mut known: Option<Known> = None;
        loop {
            let settles = certainty.settles_at().map(|elapsed| begin + elapsed);
            let has_changed = tokio::select! {
                ended = changes.changed() => if ended.is_err() { return } else { true },
                () = sleep_until(settles.unwrap_or_else(now).into()), if settles.is_some() => false,
                _ = tick.tick() => false,
            };
            // Before the objects are read: what they say is then at least as new.
            let is_confirmed = self.objects.doubts(now()).is_empty();
            let other_operator = self.objects.other_operator_runs();
            if has_changed || looked != Some(other_operator) {
                let Some(objects) = self.objects.all() else { continue };
                looked = Some(other_operator);
                let found = effective_policies(&objects, &Scope { other_operator, ..self.scope.clone() });
                self.cluster_watch.want_namespaces(selects_namespaces(&found.policies));
                known = Some(Known::of(found));
            }
            let Some(known) = &known else { continue };
            for (policy, why) in &known.invalid {
                self.state.problem("policy", policy.clone(), format!("{policy}: {why}"), now());
            }
            let own = self.own.now();
            let generation = own.store.as_ref().and_then(|store| store.metadata.generation);
            let discard = own.store.map(|store| store.spec.discard).unwrap_or_default();
            let discard = discard.iter().filter_map(|file| FileName::new(file.as_bytes())).collect();
            let next = EngineConfig {
                policies: Arc::clone(&known.policies),
                confidence: certainty.judge(
                    &known.policies,
                    is_confirmed,
                    now().saturating_duration_since(begin),
                ),
                governors: Arc::new(self.objects.governors()),
                node_labels: own.node.map(|(labels, _)| labels),
                discard: own.is_listed.then(|| Arc::new(discard)),
            };
            self.own.note(|own| own.is_paused = next.confidence == Confidence::Paused);
            let haste = match &told {
                Some((before, _)) if *before == next => None,
                Some((before, patient)) if only_patient(before, &next, patient, &known.patient) => {
                    Some(Haste::NextPlan)
                }
                Some(_) | None => Some(Haste::AtOnce),
            };
            if let Some(haste) = haste {
                engine.send_config(next.clone(), haste);
                told = Some((next, known.patient.clone()));
            }
            self.own.note(|own| own.told = generation);
        }
    }

    /// Keeps the status of the node's `NodeCheckpointStore` as was observed.
    async fn publish(&self) {
        let mut changes = self.state.changes();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut throttle = StatusThrottle::new(self.rest);
        loop {
            tokio::select! {
                ended = changes.changed() => if ended.is_err() { return },
                _ = tick.tick() => {}
            }
            let own = self.own.now();
            // Before the node's UID is known, nobody could tell when a new store is to go.
            if !own.is_listed || (own.store.is_none() && own.node_uid().is_none()) {
                continue;
            }
            let before = own.store.as_ref().and_then(|store| store.status.as_ref());
            let now = now();
            let context = self.context(&own, now);
            let next = self.state.read(|observed| status(observed, &context, before, Timestamp::now()));
            let news = News {
                reason: next.conditions.first().map(|ready| ready.reason.clone()).unwrap_or_default(),
                problems: self.state.read(Observations::kinds_of_problems),
            };
            if before == Some(&next) || !throttle.is_due(&news, now) {
                continue;
            }
            let written = self.write(&own, &next).await;
            throttle.note(news, written.is_err(), liveness::now());
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

    fn context(&self, own: &OwnObjects, now: Instant) -> StatusContext {
        let before = own.store.as_ref().and_then(|store| store.status.as_ref());
        StatusContext {
            directory: self.scope.directory.clone(),
            // Until the engine is told anything, what it was told before a restart.
            generation: own.told.or(before.and_then(|before| before.observed_generation)),
            not_ready_reasons: self.api_not_ready_reasons(now),
            stale: match self.objects.stale(now) {
                stale if own.is_paused => Staleness::Paused(stale),
                stale if stale.is_empty() => Staleness::Current,
                stale => Staleness::Stale(stale),
            },
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
        if let Some(uid) = own.node_uid().filter(|uid| !own.belongs_to(uid)) {
            let mut object = kind.clone();
            // With the node goes what is known of its disk: Kubernetes collects it.
            let owner = json!({"apiVersion": "v1", "kind": "Node", "name": self.node, "uid": uid});
            object["metadata"] = json!({"name": self.node, "ownerReferences": [owner]});
            object["spec"] = json!({});
            within(api.patch(&self.node, &params, &Patch::Apply(&object))).await?;
        }
        let mut object = kind;
        object["metadata"] = json!({"name": self.node});
        object["status"] = serde_json::to_value(status).map_err(|error| error.to_string())?;
        within(api.patch_status(&self.node, &params, &Patch::Apply(&object))).await
    }

    async fn send_events(&self) {
        let publisher = Publisher::new(self.client.clone(), WRITER, self.node.clone());
        let mut events = Events::default();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let due = events.due(&self.state, now());
            let limits = |observed: &Observations| {
                let limits = observed.summary.as_ref().map(|summary| &summary.unreachable[..]);
                events.unreachable_due(limits.unwrap_or_default(), now())
            };
            let unreachable_due = self.state.read(limits);
            if due.is_empty() && unreachable_due.is_empty() {
                continue;
            }
            let uids = self.objects.uids();
            for limit in unreachable_due {
                let note = unreachable(&limit, &self.node, &uids);
                // The status says it as well, and goes on saying it.
                let _ = timeout(REQUEST, publisher.publish(note)).await;
            }
            let store = self.own.now().store.and_then(|store| store.metadata.uid);
            let mut answers = true;
            for (cause, figures) in due {
                if answers {
                    let note = deleted(&cause, figures, (&self.node, store.as_deref()), &uids);
                    match timeout(REQUEST, publisher.publish(note)).await {
                        // What is refused will be refused again: the audit lines were written.
                        Ok(Ok(()) | Err(kube::Error::Api(_))) => continue,
                        Ok(Err(_)) | Err(_) => answers = false,
                    }
                }
                self.state.return_pending_events(cause, figures);
            }
        }
    }
}

/// The most policies that are said not to be understood.
const MOST_INVALID: usize = 100;

/// What is in force, as it was last read.
struct Known {
    policies: Arc<PolicySet>,
    patient: BTreeSet<PolicyRef>,
    /// The policies of the whole cluster that are not understood, and what follows.
    invalid: Vec<(String, String)>,
}

impl Known {
    fn of(found: EffectivePolicies) -> Self {
        // A tenant's is told in its own status: it hinders nobody else.
        let is_ours = |id: &PolicyRef| {
            id.kind == Kind::CheckpointStoragePolicy
                || found
                    .policies
                    .invalid
                    .iter()
                    .any(|invalid| invalid.id == *id && invalid.namespace.is_none())
        };
        let invalid = found
            .acceptances
            .iter()
            .filter(|(_, (_, acceptance))| matches!(acceptance, Acceptance::Invalid(_)));
        let invalid = invalid.filter(|(id, _)| is_ours(id));
        let invalid = invalid.map(|(id, (_, acceptance))| (id.to_string(), acceptance.message(id)));
        Self {
            invalid: invalid.take(MOST_INVALID).collect(),
            policies: Arc::new(found.policies),
            patient: found.patient,
        }
    }
}

/// Whether a policy goes by the labels of namespaces.
fn selects_namespaces(policies: &PolicySet) -> bool {
    policies.retention.iter().any(|policy| policy.selector.needs_namespace_labels())
}

/// Whether nothing changed but what may wait: policies of objects whose author left it so.
fn only_patient(
    before: &EngineConfig,
    next: &EngineConfig,
    patient_before: &BTreeSet<PolicyRef>,
    patient: &BTreeSet<PolicyRef>,
) -> bool {
    let may_wait = |id: &PolicyRef| {
        let whole = PolicyRef { part: None, ..id.clone() };
        patient_before.contains(&whole) || patient.contains(&whole)
    };
    let urgent = |policies: &PolicySet| {
        let retention = policies.retention.iter().filter(|policy| !may_wait(&policy.id)).cloned();
        (retention.collect::<Vec<_>>(), policies.storage.clone(), policies.invalid.clone())
    };
    let certain = |config: &EngineConfig| match &config.confidence {
        Confidence::Current => Some(urgent(&config.policies)),
        Confidence::Stale { confirmed } => Some(urgent(confirmed)),
        Confidence::Paused => None,
    };
    urgent(&before.policies) == urgent(&next.policies)
        && certain(before) == certain(next)
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
    use std::collections::BTreeMap;

    use checkpoint_keeper_core::engine::cluster::ClusterUpdate;
    use checkpoint_keeper_node::mailbox::{self, Receiver};

    use super::*;
    use checkpoint_keeper_runtime::objects::OTHER_OPERATOR_NAMESPACES;

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
            objects: PolicyObjects::new(&OTHER_OPERATOR_NAMESPACES.map(str::to_owned)),
            state: AgentState::new(),
            own: Own::default(),
            cluster_watch: ClusterWatch::default(),
            rest: Duration::from_mins(1),
            staleness: Duration::from_hours(1),
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
        let (sender, receiver) = mailbox::channel().unwrap();
        let observed = || side.context(&side.own.now(), now()).generation;
        let seen = async {
            tokio::time::sleep(TICK * 3).await;
            assert_eq!(observed(), None);
            may_list.send_replace(true);
            tokio::time::sleep(TICK * 3).await;
        };
        tokio::select! { () = Box::pin(side.objects.watch(&side.client)) => {}, () = side.configure(&sender) => {}, () = seen => {} }
        assert!(receiver.take().config.is_some());
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
        let not_ready_reasons = || side.not_ready_reasons(now());
        assert_eq!(
            not_ready_reasons(),
            [
                "nodes were not listed yet",
                "nodecheckpointstores were not listed yet",
                "pods were not listed yet"
            ]
        );
        let (shown, receiver) = mailbox::channel().unwrap();
        tokio::select! {
            () = side.watch_node() => {},
            () = side.watch_store() => {},
            () = side.cluster_watch.run(&side.client, "node-1", &shown) => {},
            () = tokio::time::sleep(TICK) => {},
        }
        assert_eq!(not_ready_reasons(), [""; 0]);
        let seen: Vec<_> = receiver.take().updates.into_iter().map(|shown| shown.what).collect();
        assert_eq!(seen.last(), Some(&ClusterUpdate::Pods(Some(Vec::new()))), "{seen:?}");
        side.state.gone(Some("the directory is gone".to_owned()));
        assert_eq!(not_ready_reasons(), ["the directory is gone"]);
    }

    /// An API whose lists are empty, whose watches say what they are told to, and of which some kinds fail.
    #[derive(Clone, Default)]
    struct Watched {
        watches: Arc<Mutex<BTreeMap<String, Vec<tokio::sync::mpsc::UnboundedSender<String>>>>>,
        broken: Arc<Mutex<BTreeSet<String>>>,
    }

    impl Watched {
        fn client(&self) -> Client {
            let api = self.clone();
            let answer = move |request: axum::extract::Request| {
                let api = api.clone();
                async move {
                    let kind = request.uri().path().rsplit('/').next().unwrap().to_owned();
                    let reply = |status: u16, body: axum::body::Body| {
                        axum::response::Response::builder().status(status).body(body).unwrap()
                    };
                    if api.broken.lock().unwrap().contains(&kind) {
                        return reply(500, "broken".into());
                    }
                    if request.uri().query().unwrap_or_default().contains("watch=") {
                        let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
                        api.watches.lock().unwrap().entry(kind).or_default().push(sender);
                        let lines = futures_util::stream::unfold(receiver, |mut receiver| async {
                            let line: String = receiver.recv().await?;
                            Some((Ok::<_, std::convert::Infallible>(line), receiver))
                        });
                        return reply(200, axum::body::Body::from_stream(lines));
                    }
                    let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": []});
                    reply(200, list.to_string().into())
                }
            };
            Client::new(axum::Router::new().fallback(answer), "default")
        }

        fn set_broken(&self, kind: &str, is_broken: bool) {
            let mut broken = self.broken.lock().unwrap();
            if is_broken {
                broken.insert(kind.to_owned())
            } else {
                broken.remove(kind)
            };
            self.watches.lock().unwrap().remove(kind);
        }

        fn apply_policy(&self, version: u32) {
            let object = json!({
                "apiVersion": "criu.org/v1alpha1", "kind": "ClusterCheckpointPolicy", "spec": {},
                "metadata": {"name": "a", "uid": "u", "generation": version, "resourceVersion": version.to_string()},
            });
            let line = format!("{}\n", json!({"type": "ADDED", "object": object}));
            for watch in &self.watches.lock().unwrap()["clustercheckpointpolicies"] {
                let _ = watch.send(line.clone());
            }
        }
    }

    /// What the engine is told once it is told this.
    async fn told(receiver: &Receiver, is_it: impl Fn(&EngineConfig) -> bool) -> EngineConfig {
        for _ in 0..20_000 {
            if let Some((config, _)) = receiver.take().config.filter(|(config, _)| is_it(config)) {
                return config;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        panic!("the engine was not told");
    }

    #[tokio::test(start_paused = true)]
    async fn while_one_kind_cannot_be_watched_anothers_news_counts_beside_what_was_confirmed() {
        let api = Watched::default();
        let side = ApiSide { client: api.client(), ..side(&tokio::sync::watch::Sender::new(true)) };
        let (sender, receiver) = mailbox::channel().unwrap();
        let is_stale = |config: &EngineConfig| matches!(config.confidence, Confidence::Stale { .. });
        let seen = async {
            let first = told(&receiver, |config| config.confidence == Confidence::Current).await;
            assert!(first.policies.retention.is_empty());
            api.set_broken("checkpointpolicies", true);
            told(&receiver, is_stale).await;
            api.apply_policy(2);
            let news = told(&receiver, |config| !config.policies.retention.is_empty()).await;
            assert_eq!(news.confidence, Confidence::Stale { confirmed: first.policies });
            let begin = now();
            told(&receiver, |config| config.confidence == Confidence::Paused).await;
            let minutes = (now() - begin).as_secs() / 60;
            assert!((58..=60).contains(&minutes), "{minutes}");
            let context = side.context(&side.own.now(), now());
            assert!(
                matches!(context.stale, Staleness::Paused(why) if why[0].starts_with("checkpointpolicies"))
            );
            assert!(
                side.not_ready_reasons(now())
                    .iter()
                    .any(|trouble| trouble.starts_with("checkpointpolicies cannot be"))
            );
            api.set_broken("checkpointpolicies", false);
            let back = told(&receiver, |config| config.confidence == Confidence::Current).await;
            assert_eq!(back.policies.retention.len(), 1);
        };
        tokio::select! { () = Box::pin(side.objects.watch(&side.client)) => {}, () = side.configure(&sender) => {}, () = seen => {} }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_certain_once_other_kinds_had_time_to_tell_theirs() {
        let api = Watched::default();
        let side = ApiSide { client: api.client(), ..side(&tokio::sync::watch::Sender::new(true)) };
        let (sender, receiver) = mailbox::channel().unwrap();
        let seen = async {
            let first = told(&receiver, |config| config.confidence == Confidence::Current).await;
            // Hours in which nothing happens change nothing: watches are opened again and again.
            tokio::time::sleep(Duration::from_hours(3)).await;
            assert!(receiver.take().config.is_none());
            api.apply_policy(2);
            let news = told(&receiver, |config| !config.policies.retention.is_empty()).await;
            assert_eq!(news.confidence, Confidence::Stale { confirmed: first.policies });
            let begin = now();
            told(&receiver, |config| config.confidence == Confidence::Current).await;
            assert!(now() - begin <= Duration::from_secs(3));
        };
        tokio::select! { () = Box::pin(side.objects.watch(&side.client)) => {}, () = side.configure(&sender) => {}, () = seen => {} }
    }
}

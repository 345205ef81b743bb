//! Publishing what the engine does: the status of the node's `NodeCheckpointStore`, and events.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use checkpoint_keeper_api::NodeCheckpointStore;
use checkpoint_keeper_api::node_store::NodeCheckpointStoreStatus;
use checkpoint_keeper_runtime::events::Publisher;
use checkpoint_keeper_runtime::liveness::{self, now};
use checkpoint_keeper_runtime::problem_log::{Entry, Problem, ProblemLog};
use jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::api_write::{WRITER, WriteError, within_timeout};
use super::context::{ApiContext, TICK};
use super::events::{Events, deleted, node_ready, unreachable};
use super::own_objects::Seen;
use super::problem_type::ProblemType;
use super::state::Observations;
use super::status::{Staleness, StatusContext, status};
use super::throttle::{StatusThrottle, UrgentPart};

/// The types of problems with writes, in the log.
const STORE_UNWRITTEN: &str = "StoreUnwritten";
const EVENTS_UNWRITTEN: &str = "EventsUnwritten";

/// What publishes the agent's state.
pub(super) struct StatusPublisher {
    pub(super) context: ApiContext,
    /// The directory that is reported of.
    pub(super) directory: String,
    /// How long changed figures wait after the status was written. New problems do not wait.
    pub(super) interval: Duration,
}

impl StatusPublisher {
    /// Publishes for as long as it is polled.
    pub(super) async fn run(&self) {
        tokio::join!(self.publish_status(), self.send_events());
    }

    /// Keeps the status of the node's `NodeCheckpointStore` as was observed.
    async fn publish_status(&self) {
        let mut changes = self.context.state.changes();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Each `RandomState` has random keys.
        let mut throttle = StatusThrottle::new(self.interval, RandomState::new().hash_one(()));
        let mut log = ProblemLog::default();
        let mut wake: Option<Instant> = None;
        loop {
            tokio::select! {
                ended = changes.changed() => if ended.is_err() { return },
                () = sleep_until(wake.unwrap_or_else(now).into()), if wake.is_some() => {}
                _ = tick.tick() => {}
            }
            wake = None;
            let own = self.context.own.now();
            // A new store needs the node's UID, as its owner: it is deleted together with the node.
            if !own.is_listed || (own.store.is_none() && own.node_uid().is_none()) {
                continue;
            }
            let before = own.store.as_ref().and_then(|store| store.status.as_ref());
            let now = now();
            let context = self.status_context(&own, now);
            let next =
                self.context.state.read(|observed| status(observed, &context, before, Timestamp::now()));
            let urgent = UrgentPart {
                reason: next.conditions.first().map(|ready| ready.reason.clone()).unwrap_or_default(),
                problems: self.context.state.read(Observations::kinds_of_problems),
            };
            if before == Some(&next) {
                throttle.note_same();
                continue;
            }
            let due = throttle.due(&urgent, now);
            if due > now {
                wake = Some(due);
                continue;
            }
            let written = self.write(&own, &next).await;
            throttle.note(urgent, written.is_err(), liveness::now());
            match written {
                // What was written is seen by the watch a moment later; until then it would be written again.
                Ok(store) => {
                    self.note(|own| own.written(store));
                    log.end(STORE_UNWRITTEN, "", liveness::now()).iter().for_each(Entry::log);
                }
                Err(error) => {
                    if is_not_found(&error) {
                        // The next write makes it anew.
                        let uid = own.store.as_ref().and_then(|store| store.metadata.uid.as_deref());
                        self.note(|own| own.deleted(uid));
                    }
                    let what = format!("the node's NodeCheckpointStore cannot be written: {error}");
                    log.begin(problem(STORE_UNWRITTEN, what.clone()), liveness::now())
                        .iter()
                        .for_each(Entry::log);
                    self.context.problem(ProblemType::StoreUnwritten, what);
                }
            }
        }
    }

    /// Notes what came of a write. The engine is told where it goes by that: the watch shows nothing new then.
    fn note(&self, change: impl FnOnce(&mut Seen)) {
        let before = self.context.own.now();
        self.context.own.note(change);
        if !self.context.own.now().means_the_same_as(&before) {
            self.context.objects.notify();
        }
    }

    pub(super) fn status_context(&self, own: &Seen, now: Instant) -> StatusContext {
        let before = own.store.as_ref().and_then(|store| store.status.as_ref());
        StatusContext {
            directory: self.directory.clone(),
            // Until the engine is told anything, what it was told before a restart.
            generation: own.sent.or(before.and_then(|before| before.observed_generation)),
            not_ready_reasons: self.context.api_not_ready_reasons(now),
            quotas: self.context.quotas.namespaces(),
            stale: match self.context.objects.stale(now) {
                stale if own.is_paused => Staleness::Paused(stale),
                stale if stale.is_empty() => Staleness::Current,
                stale => Staleness::Stale(stale),
            },
        }
    }

    async fn write(
        &self,
        own: &Seen,
        status: &NodeCheckpointStoreStatus,
    ) -> Result<NodeCheckpointStore, WriteError> {
        let api = Api::<NodeCheckpointStore>::all(self.context.client.clone());
        let params = PatchParams::apply(WRITER).force();
        let kind = json!({"apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "NodeCheckpointStore"});
        if let Some(uid) = own.node_uid().filter(|uid| !own.belongs_to(uid)) {
            let mut object = kind.clone();
            // With the node goes what is known of its disk: Kubernetes collects it.
            let owner = json!({"apiVersion": "v1", "kind": "Node", "name": self.context.node, "uid": uid});
            object["metadata"] = json!({"name": self.context.node, "ownerReferences": [owner]});
            object["spec"] = json!({});
            within_timeout(api.patch(&self.context.node, &params, &Patch::Apply(&object))).await?;
        }
        let mut object = kind;
        object["metadata"] = json!({"name": self.context.node});
        object["status"] = serde_json::to_value(status).map_err(kube::Error::SerdeError)?;
        within_timeout(api.patch_status(&self.context.node, &params, &Patch::Apply(&object))).await
    }

    async fn send_events(&self) {
        let publisher = Publisher::new(self.context.client.clone(), WRITER, self.context.node.clone());
        let mut events = Events::default();
        let mut log = ProblemLog::default();
        let mut note_outcome = |outcome: Result<&(), &WriteError>| {
            let entry = match outcome {
                Ok(&()) => log.end(EVENTS_UNWRITTEN, "", now()),
                Err(error) => {
                    log.begin(problem(EVENTS_UNWRITTEN, format!("events cannot be written: {error}")), now())
                }
            };
            entry.iter().for_each(Entry::log);
        };
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let due = events.due(&self.context.state, now());
            let limits = |observed: &Observations| {
                let limits = observed.summary.as_ref().map(|summary| &summary.unreachable[..]);
                events.unreachable_due(limits.unwrap_or_default(), now())
            };
            let unreachable_due = self.context.state.read(limits);
            // What the status says by now.
            let store = self.context.own.now().store;
            let ready = store.as_ref().and_then(|store| store.status.as_ref()?.ready().cloned());
            let ready = ready.filter(|ready| events.is_ready_due(ready, now()));
            let store = store.and_then(|store| store.metadata.uid);
            if let Some(ready) = ready {
                let note = node_ready(&ready, (&self.context.node, store.as_deref()));
                let outcome = within_timeout(publisher.publish(note)).await;
                note_outcome(outcome.as_ref());
            }
            if due.is_empty() && unreachable_due.is_empty() {
                continue;
            }
            let uids = self.context.objects.uids();
            for limit in unreachable_due {
                let note = unreachable(&limit, &self.context.node, &uids);
                // The status says it as well, and goes on saying it.
                let outcome = within_timeout(publisher.publish(note)).await;
                note_outcome(outcome.as_ref());
            }
            let mut answers = true;
            for (cause, figures) in due {
                if answers {
                    let note = deleted(&cause, figures, (&self.context.node, store.as_deref()), &uids);
                    let outcome = within_timeout(publisher.publish(note)).await;
                    note_outcome(outcome.as_ref());
                    match outcome {
                        // What is refused will be refused again: the audit lines were written.
                        Ok(()) | Err(WriteError::Api(kube::Error::Api(_))) => continue,
                        Err(_) => answers = false,
                    }
                }
                self.context.state.return_pending_events(cause, figures);
            }
        }
    }
}

fn is_not_found(error: &WriteError) -> bool {
    matches!(error, WriteError::Api(kube::Error::Api(status)) if status.code == 404)
}

fn problem(kind: &'static str, message: String) -> Problem {
    Problem { kind, subject: String::new(), message }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::body::Body;
    use axum::extract::Request;
    use axum::response::Response;
    use checkpoint_keeper_core::policy::Labels;
    use checkpoint_keeper_runtime::policy_objects::PolicyObjects;
    use checkpoint_keeper_runtime::quota_objects::QuotaObjects;
    use kube::Client;
    use serde_json::Value;

    use super::*;
    use crate::cluster_watch::ClusterWatch;
    use crate::own_objects::OwnObjects;
    use crate::state::AgentState;

    /// What the API has of the node, and what was written to it.
    #[derive(Default)]
    struct Stored {
        store: Option<Value>,
        written: Vec<&'static str>,
    }

    impl Stored {
        fn write(&mut self, path: &str, object: Value) -> Option<Value> {
            let is_status = path.ends_with("/status");
            self.written.push(if is_status { "status" } else { "store" });
            if is_status {
                self.store.as_mut()?["status"] = object["status"].clone();
            } else {
                self.store = Some(object);
                self.store.as_mut()?["metadata"]["uid"] = "new".into();
                // A user asks for this before the watch has shown the store.
                self.store.as_mut()?["spec"] = json!({"discard": ["a.tar"]});
            }
            self.store.clone()
        }
    }

    fn client(stored: &Arc<Mutex<Stored>>) -> Client {
        let stored = Arc::clone(stored);
        let answer = move |request: Request| {
            let stored = Arc::clone(&stored);
            async move {
                let path = request.uri().path().to_owned();
                let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
                let object = serde_json::from_slice(&body).unwrap();
                let missing = json!({
                    "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "not found",
                    "reason": "NotFound", "code": 404,
                });
                let (code, answer) = match stored.lock().unwrap().write(&path, object) {
                    Some(object) => (200, object),
                    None => (404, missing),
                };
                Response::builder().status(code).body(Body::from(answer.to_string())).unwrap()
            }
        };
        Client::new(axum::Router::new().fallback(answer), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_turns_out_to_be_gone_is_made_anew() {
        let stored = Arc::new(Mutex::new(Stored::default()));
        let context = ApiContext {
            client: client(&stored),
            node: "node-1".to_owned(),
            objects: PolicyObjects::new(&[]),
            quotas: QuotaObjects::new(None),
            state: AgentState::new(),
            own: OwnObjects::default(),
            cluster_watch: ClusterWatch::default(),
        };
        // So it was when it was listed.
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "node"});
        let store = json!({
            "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "NodeCheckpointStore", "spec": {},
            "metadata": {"name": "node-1", "uid": "old", "ownerReferences": [owner]},
        });
        context.own.note(|own| {
            own.node = Some((Labels::new(), "node".to_owned()));
            own.listed(Some(serde_json::from_value(store).unwrap()));
        });
        let (own, changes) = (context.own.clone(), context.objects.changes());
        let publisher =
            StatusPublisher { context, directory: "/archives".to_owned(), interval: Duration::from_secs(10) };
        let is_written = async {
            let begin = now();
            loop {
                let store = own.now().store;
                if store.as_ref().is_some_and(|store| store.metadata.uid.as_deref() == Some("new")) {
                    return store.unwrap().status;
                }
                let written = stored.lock().unwrap().written.clone();
                assert!(now() - begin < Duration::from_mins(10), "{written:?}");
                tokio::time::sleep(TICK).await;
            }
        };
        let status =
            tokio::select! { status = is_written => status, () = publisher.publish_status() => None };
        assert_eq!(status.unwrap().directory, "/archives");
        assert!(changes.has_changed().unwrap(), "the engine is to be told what its user asks for");
        assert_eq!(stored.lock().unwrap().written[..3], ["status", "store", "status"]);
    }
}

//! Whether one more checkpoint fits into the quotas of its namespace, before it is made.
//!
//! What is on the other nodes is known from the quota's status, which may be two minutes old, and with many nodes four.
//! What is on this node is counted anew each time, with what is about to be made here: that is reserved before it begins.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use checkpoint_keeper_api::CheckpointQuotaStatus;
use checkpoint_keeper_core::quota::{Held, OnExceed};
use checkpoint_keeper_runtime::quota_objects::QuotaObjects;
use tokio::time::timeout;

use super::state::AgentState;

/// How long a checkpoint waits after the start for the quotas to be listed. Where they cannot be, it is made: it may be
/// evidence, and there may be no quota at all.
const LISTED_WITHIN: Duration = Duration::from_secs(10);

/// Decides by the quotas of a namespace whether a checkpoint may be made.
#[derive(Clone)]
pub(super) struct QuotaGate {
    objects: QuotaObjects,
    /// Where this node's own archives are counted.
    state: AgentState,
    /// The node's name.
    node: String,
    /// What is about to be made here, by namespace.
    reserved: Arc<Mutex<BTreeMap<String, Held>>>,
}

/// What a checkpoint that may be made holds of its namespace's quotas until its archive is counted.
#[derive(Debug)]
pub(super) struct Reservation {
    namespace: String,
    held: Held,
    reserved: Arc<Mutex<BTreeMap<String, Held>>>,
    /// The quotas that it exceeds and that only warn, in words.
    pub(super) warnings: Vec<String>,
}

impl QuotaGate {
    /// One for a node.
    pub(super) fn new(objects: QuotaObjects, state: AgentState, node: String) -> Self {
        Self { objects, state, node, reserved: Arc::default() }
    }

    /// Reserves room for one more archive of a namespace, of that size, as far as it is known. The error says which quotas
    /// have no room for it.
    pub(super) async fn reserve(
        &self,
        namespace: &str,
        expected: Option<u64>,
    ) -> Result<Reservation, String> {
        // Where they are not listed in time, the checkpoint is made.
        let _ = timeout(LISTED_WITHIN, self.objects.listed()).await;
        let quotas = self.objects.of(namespace);
        // Locked until the room is reserved, so that no two checkpoints take the same room.
        let mut reserved = self.reserved();
        let own = self.own(namespace);
        let here = reserved.get(namespace).copied().unwrap_or_default();
        let (mut refusals, mut warnings) = (Vec::new(), Vec::new());
        for object in quotas {
            let Ok(quota) = object.to_quota() else { continue };
            let used = used(object.status.as_ref(), &self.node, own).plus(here);
            match (quota.excess(used, expected), quota.on_exceed) {
                (Some(excess), OnExceed::Reject) => refusals.push(excess),
                (Some(excess), OnExceed::Warn) => warnings.push(excess),
                (None, _) => {}
            }
        }
        if !refusals.is_empty() {
            return Err(refusals.join("; "));
        }
        Ok(self.hold(&mut reserved, namespace, expected, warnings))
    }

    /// Reserves room for one whatever quotas say, as it was begun already.
    pub(super) fn reserve_anyway(&self, namespace: &str, expected: Option<u64>) -> Reservation {
        self.hold(&mut self.reserved(), namespace, expected, Vec::new())
    }

    fn hold(
        &self,
        reserved: &mut BTreeMap<String, Held>,
        namespace: &str,
        expected: Option<u64>,
        warnings: Vec<String>,
    ) -> Reservation {
        // Where the size is not known, one byte stands for it: no archive is empty.
        let held = Held { count: 1, bytes: expected.unwrap_or(1) };
        let before = reserved.entry(namespace.to_owned()).or_default();
        *before = before.plus(held);
        let (namespace, all) = (namespace.to_owned(), Arc::clone(&self.reserved));
        Reservation { namespace, held, reserved: all, warnings }
    }

    /// What the namespace has on this node; none before the directory was looked at.
    fn own(&self, namespace: &str) -> Option<Held> {
        self.state.read(|observed| {
            let (count, bytes) =
                observed.summary.as_ref()?.namespaces.get(namespace).copied().unwrap_or_default();
            Some(Held { count, bytes })
        })
    }

    fn reserved(&self) -> MutexGuard<'_, BTreeMap<String, Held>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut reserved = self.reserved.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = reserved.get_mut(&self.namespace) {
            *held = held.minus(self.held);
            if held.count == 0 {
                reserved.remove(&self.namespace);
            }
        }
    }
}

/// What a namespace holds over all nodes, where that on this node is known better than its quota's status says. A quota
/// of which no status was written yet is judged by this node alone. That the status is for another generation does not
/// matter: what is used does not depend on what may be.
fn used(status: Option<&CheckpointQuotaStatus>, node: &str, own: Option<Held>) -> Held {
    let told = status.and_then(|status| Some((status, status.used.as_ref()?.held())));
    let Some((status, used)) = told else { return own.unwrap_or_default() };
    match status.nodes.iter().find(|one| one.name == node) {
        Some(reported) => {
            let reported = reported.held();
            used.minus(reported).plus(own.unwrap_or(reported))
        }
        // It is not among those that are counted there.
        None if status.more_nodes <= 0 => used.plus(own.unwrap_or_default()),
        // It may be: what was made here since is not known, but it is never less than this.
        None => {
            let own = own.unwrap_or_default();
            Held { count: used.count.max(own.count), bytes: used.bytes.max(own.bytes) }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use checkpoint_keeper_api::CheckpointQuota;
    use kube::Client;
    use serde_json::{Value, json};

    use super::super::summary::Summary;
    use super::*;

    fn quota(name: &str, spec: &Value, status: &Value) -> Value {
        json!({
            "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointQuota",
            "metadata": {"namespace": "shop", "name": name, "uid": name, "resourceVersion": "1", "generation": 2},
            "spec": spec, "status": status,
        })
    }

    /// A gate that has seen these quotas, on a node where the namespace has this.
    async fn gate(quotas: Vec<Value>, own: Option<(u64, u64)>) -> QuotaGate {
        let answer = move |request: axum::extract::Request| {
            let is_watch = request.uri().query().unwrap_or_default().contains("watch=");
            let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": quotas});
            async move {
                if is_watch {
                    return std::future::pending().await;
                }
                list.to_string()
            }
        };
        let client = Client::new(axum::Router::new().fallback(answer), "default");
        let objects = QuotaObjects::new(Some("n1".to_owned()));
        tokio::select! { () = objects.watch(&client) => {}, () = objects.listed() => {} }
        let state = AgentState::new();
        if let Some(own) = own {
            let namespaces = [("shop".to_owned(), own)].into();
            state.planned(Summary { namespaces, ..Summary::default() }, Instant::now());
        }
        QuotaGate::new(objects, state, "n1".to_owned())
    }

    fn counts(count: i64, status: &Value) -> Value {
        quota("q", &json!({"hard": {"count": count}}), status)
    }

    /// What the status says of this node.
    fn status(all: u64, here: u64) -> Value {
        json!({
            "observedGeneration": 1, "used": {"count": all, "bytes": "0"},
            "nodes": [{"name": "n1", "count": here, "bytes": "0"}],
        })
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_that_begin_at_once_no_more_get_a_place_than_there_are() {
        let gate = gate(vec![counts(3, &Value::Null)], Some((1, 10))).await;
        let (first, second) = (gate.reserve("shop", Some(5)).await, gate.reserve("shop", None).await);
        assert!(first.is_ok() && second.is_ok());
        let refused = gate.reserve("shop", None).await.unwrap_err();
        assert_eq!(refused, "CheckpointQuota/shop/q: 3 of 3 archives are there");
        assert!(gate.reserve("other", None).await.is_ok(), "it is another namespace");
        // One that came to nothing leaves its place to another.
        drop(first);
        let third = gate.reserve("shop", None).await;
        assert!(third.is_ok() && gate.reserve("shop", None).await.is_err());
        drop((second, third));
        assert!(gate.reserved().is_empty());
        // What was begun before a restart counts as well.
        let begun = [gate.reserve_anyway("shop", None), gate.reserve_anyway("shop", None)];
        assert!(gate.reserve("shop", None).await.is_err());
        drop(begun);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_on_other_nodes_is_taken_from_the_status_and_what_is_here_is_counted_anew() {
        // Five are on others. Here there were two when it was written.
        for (own, fits) in [((2, 0), true), ((4, 0), true), ((5, 0), false), ((0, 0), true)] {
            let gate = gate(vec![counts(10, &status(7, 2))], Some(own)).await;
            assert_eq!(gate.reserve("shop", None).await.is_ok(), fits, "{own:?}");
        }
        // Before the directory was looked at, what the status says of it counts.
        assert!(gate(vec![counts(7, &status(7, 2))], None).await.reserve("shop", None).await.is_err());
        assert!(gate(vec![counts(8, &status(7, 2))], None).await.reserve("shop", None).await.is_ok());
    }

    /// That the status is for an older generation makes no difference: the limits of now are those of the spec.
    #[tokio::test(start_paused = true)]
    async fn without_a_status_the_node_goes_by_its_own_figures() {
        let pending = json!({"conditions": []});
        assert!(gate(vec![counts(3, &pending)], Some((3, 0))).await.reserve("shop", None).await.is_err());
        assert!(gate(vec![counts(3, &pending)], Some((2, 0))).await.reserve("shop", None).await.is_ok());
        assert!(gate(vec![counts(3, &pending)], None).await.reserve("shop", None).await.is_ok());
    }

    #[test]
    fn a_node_that_the_status_may_leave_out_counts_at_least_its_own() {
        let told = |more_nodes: i64| -> CheckpointQuotaStatus {
            let status = json!({"used": {"count": 7, "bytes": "70"}, "moreNodes": more_nodes});
            serde_json::from_value(status).unwrap()
        };
        let own = |count, bytes| Some(Held { count, bytes });
        assert_eq!(used(Some(&told(0)), "n1", own(2, 20)), Held { count: 9, bytes: 90 });
        assert_eq!(used(Some(&told(5)), "n1", own(2, 20)), Held { count: 7, bytes: 70 });
        assert_eq!(used(Some(&told(5)), "n1", own(8, 20)), Held { count: 8, bytes: 70 });
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_quotas_the_tighter_holds_and_one_that_only_warns_refuses_nothing() {
        let spec = |hard: Value, on_exceed: &str| json!({"hard": hard, "onExceed": on_exceed});
        let quotas = vec![
            quota("bytes", &spec(json!({"count": 100, "bytes": "1Mi"}), "Reject"), &Value::Null),
            quota("count", &spec(json!({"count": 2, "bytes": "1Gi"}), "Reject"), &Value::Null),
            quota("warn", &spec(json!({"count": 1}), "Warn"), &Value::Null),
        ];
        let with =
            async |own, expected| gate(quotas.clone(), Some(own)).await.reserve("shop", expected).await;
        assert_eq!(with((0, 0), Some(10)).await.unwrap().warnings, Vec::<String>::new());
        let warned = with((1, 0), Some(1 << 20)).await.unwrap();
        assert_eq!(warned.warnings, ["CheckpointQuota/shop/warn: 1 of 1 archives are there"]);
        let too_large = with((1, 10), Some(1 << 20)).await.unwrap_err();
        assert!(too_large.starts_with("CheckpointQuota/shop/bytes: 10 of 1Mi are used"), "{too_large}");
        let too_many = with((2, 0), Some(1)).await.unwrap_err();
        assert_eq!(too_many, "CheckpointQuota/shop/count: 2 of 2 archives are there");
    }

    /// A quota that is not understood binds nothing, and its condition says so; a missing watch holds nothing up for long.
    #[tokio::test(start_paused = true)]
    async fn what_is_not_known_refuses_nothing() {
        let broken = quota("q", &json!({"hard": {}}), &Value::Null);
        let read: CheckpointQuota = serde_json::from_value(broken.clone()).unwrap();
        assert!(read.to_quota().is_err());
        assert!(gate(vec![broken], Some((9, 9))).await.reserve("shop", None).await.is_ok());
        let begin = tokio::time::Instant::now();
        let unseen = QuotaGate::new(QuotaObjects::new(None), AgentState::new(), "n1".to_owned());
        assert!(unseen.reserve("shop", None).await.is_ok());
        assert_eq!(begin.elapsed(), LISTED_WITHIN);
    }
}

//! Whether the older operator runs, by its lease: who renews it is at work.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use checkpoint_keeper_api::api_object::ApiObject;
use checkpoint_keeper_api::legacy::OTHER_OPERATOR_LEASE;
pub use checkpoint_keeper_api::legacy::OTHER_OPERATOR_NAMESPACES;
use futures_util::StreamExt;
use futures_util::future::join_all;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::{ApiResource, ListParams};
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use super::cache::Cache;
use super::liveness::{now, other_watch};
use super::problem_log::Problem;
use super::watch::{Change, follow};

/// How long a lease counts as renewed after it was, where it does not say itself.
const DURATION: Duration = Duration::from_secs(15);

/// The longest that is believed: one that is never renewed again must not hold for years.
const LONGEST_DURATION: Duration = Duration::from_mins(1);

/// How often it is looked whether a lease has gone quiet.
const TICK: Duration = Duration::from_secs(5);

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);

/// The older operator's lease in each namespace where it may be installed.
#[derive(Debug, Clone)]
pub(super) struct OtherOperator {
    leases: Arc<Mutex<BTreeMap<String, Cache<Renewal>>>>,
    changed: watch::Sender<()>,
}

impl OtherOperator {
    /// Nothing seen yet in these namespaces. `changed` is notified when it begins or ceases to run.
    pub(super) fn new(namespaces: &[String], changed: watch::Sender<()>) -> Self {
        let leases = namespaces.iter().map(|namespace| (namespace.clone(), Cache::default()));
        Self { leases: Arc::new(Mutex::new(leases.collect())), changed }
    }

    /// Watches the leases, for as long as it is polled.
    pub(super) async fn watch(&self, client: &Client) {
        let namespaces: Vec<String> = self.leases().keys().cloned().collect();
        let watches = namespaces.iter().map(|namespace| self.watch_namespace(namespace, client, TICK));
        join_all(watches).await;
    }

    async fn watch_namespace(&self, namespace: &str, client: &Client, tick: Duration) {
        let kind = ApiResource::erase::<Lease>(&());
        let api: Api<ApiObject> = Api::namespaced_with(client.clone(), namespace, &kind);
        let only = format!("metadata.name={OTHER_OPERATOR_LEASE}");
        let config = other_watch().fields(&only);
        let only = ListParams::default().fields(&only);
        let is_missing = AtomicBool::new(false);
        let events = watcher(api.clone(), config)
            .inspect(|event| is_missing.store(is_not_found(event), Ordering::Relaxed));
        tokio::join!(
            follow(events, |change| {
                let change = change.map(lease);
                // Where the API has no such namespace, there is no lease, unless one was seen to be held before: the
                // answer may then be wrong.
                let is_free = is_missing.load(Ordering::Relaxed)
                    && !self.leases().get(namespace).is_some_and(Cache::is_held);
                match change {
                    Change::Failed(_) if is_free => self.note(namespace, Change::Listed(Vec::new()), now()),
                    change => self.note(namespace, change, now()),
                }
            }),
            self.ask_about_quiet_leases(namespace, &api, &only, tick),
        );
    }

    /// Asks whether a lease was renewed of which nothing is heard: that it was not is nothing to conclude from
    /// a watch.
    async fn ask_about_quiet_leases(
        &self,
        namespace: &str,
        api: &Api<ApiObject>,
        only: &ListParams,
        tick: Duration,
    ) {
        let mut tick = interval(tick);
        loop {
            tick.tick().await;
            if !self.leases().get(namespace).is_some_and(|leases| leases.is_quiet(now())) {
                continue;
            }
            if let Ok(Ok(list)) = timeout(REQUEST, api.list(only)).await {
                self.note(namespace, Change::Listed(list.items).map(lease), now());
            }
        }
    }

    pub(super) fn note(&self, namespace: &str, change: Change<Lease>, now: Instant) {
        let before = (self.is_listed(), self.runs());
        {
            let mut leases = self.leases();
            let leases = leases.entry(namespace.to_owned()).or_default();
            let known = leases.objects.clone();
            let seen = |lease: Lease| {
                let key = (lease.namespace().unwrap_or_default(), lease.name_any());
                Renewal::seen(lease.spec.unwrap_or_default(), known.get(&key), now)
            };
            leases.note(change, now, seen);
        }
        // That it was renewed once more is no news.
        if (self.is_listed(), self.runs()) != before {
            self.changed.send_replace(());
        }
    }

    fn leases(&self) -> MutexGuard<'_, BTreeMap<String, Cache<Renewal>>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the lease was looked for in every namespace.
    pub(super) fn is_listed(&self) -> bool {
        self.leases().values().all(Cache::is_listed)
    }

    /// Whether the older operator renews its lease. While that cannot be seen, it is as it was last seen.
    pub(super) fn runs(&self) -> bool {
        self.leases().values().any(Cache::is_held)
    }

    /// What is wrong with each watch at this moment, for the log.
    pub(super) fn watch_problems(&self, now: Instant) -> Vec<Problem> {
        let leases = self.leases();
        let problems = leases
            .iter()
            .filter_map(|(namespace, leases)| leases.problem(&format!("leases in {namespace}"), now));
        problems.collect()
    }

    /// What is wrong with the watches.
    pub(super) fn errors(&self, now: Instant) -> Vec<String> {
        self.leases().values().filter_map(|leases| leases.error("leases", now)).collect()
    }
}

/// A lease as it was when it was last seen to change.
#[derive(Debug, Clone, PartialEq)]
struct Renewal {
    spec: LeaseSpec,
    at: Instant,
    /// When it was last seen at all. Silence is no proof: a watch can hang.
    seen: Instant,
}

impl Renewal {
    /// Notes a lease that was seen. Times are by this process's clock, as the holder's may differ. A lease that is
    /// seen for the first time, or has changed, counts as renewed just now; an unchanged one does not.
    fn seen(spec: LeaseSpec, before: Option<&Self>, now: Instant) -> Self {
        let same = before.filter(|before| before.spec == spec);
        Self { at: same.map_or(now, |same| same.at), seen: now, spec }
    }

    /// For how long it counts as renewed.
    fn counts(&self) -> Duration {
        let seconds = self.spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        seconds.map_or(DURATION, Duration::from_secs).min(LONGEST_DURATION)
    }

    /// Whether it has a holder who, when the lease was last seen, had renewed it within twice its duration.
    fn is_held(&self) -> bool {
        let held = self.spec.holder_identity.as_ref().is_some_and(|holder| !holder.is_empty());
        held && self.seen.saturating_duration_since(self.at) < self.counts() * 2
    }

    fn is_quiet(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.seen) >= self.counts()
    }
}

impl Cache<Renewal> {
    fn is_held(&self) -> bool {
        self.objects.values().any(Renewal::is_held)
    }

    /// Whether it is held, and was last seen so long ago that it has to be read again.
    fn is_quiet(&self, now: Instant) -> bool {
        self.objects.values().any(|renewal| renewal.is_held() && renewal.is_quiet(now))
    }
}

/// An object as a lease. One without the fields of a lease has no holder.
fn lease(object: ApiObject) -> Lease {
    let spec = object.data.get("spec").and_then(|spec| LeaseSpec::deserialize(spec).ok());
    Lease { metadata: object.metadata, spec }
}

/// Whether the API itself said that there is nothing to list.
fn is_not_found<T>(event: &watcher::Result<T>) -> bool {
    matches!(event, Err(watcher::Error::InitialListFailed(kube::Error::Api(status)))
        if status.code == 404 && status.reason == "NotFound")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ONE: &str = "2026-11-24T12:00:00.000000Z";
    const OTHER: &str = "2026-11-24T12:00:02.000000Z";

    /// One that may be installed in one namespace.
    fn operator() -> OtherOperator {
        OtherOperator::new(&[OTHER_OPERATOR_NAMESPACES[0].to_owned()], watch::Sender::new(()))
    }

    fn lease(holder: &str, seconds: i64, renewed: &str) -> Lease {
        serde_json::from_value(json!({
            "metadata": {"namespace": OTHER_OPERATOR_NAMESPACES[0], "name": OTHER_OPERATOR_LEASE},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": seconds, "renewTime": renewed},
        }))
        .unwrap()
    }

    #[test]
    fn the_older_operator_runs_for_as_long_as_its_lease_is_seen_renewed() {
        let operator = operator();
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let quiet = |second| operator.leases()[OTHER_OPERATOR_NAMESPACES[0]].is_quiet(at(second));
        let mut changes = operator.changed.subscribe();
        operator.note(OTHER_OPERATOR_NAMESPACES[0], Change::Listed(vec![lease("it", 15, ONE)]), at(0));
        assert!(operator.runs() && !quiet(14) && quiet(15));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        operator.note(OTHER_OPERATOR_NAMESPACES[0], Change::Applied(lease("it", 15, OTHER)), at(20));
        assert!(!changes.has_changed().unwrap(), "a renewal is no news");
        // A watch that hangs shows nothing. Only what was seen not to be renewed is not.
        assert!(operator.runs() && quiet(35));
        let listed = |second| {
            operator.note(
                OTHER_OPERATOR_NAMESPACES[0],
                Change::Listed(vec![lease("it", 15, OTHER)]),
                at(second),
            );
            operator.runs()
        };
        assert!(listed(35) && !quiet(49) && listed(49) && !listed(50));
        assert!(changes.has_changed().unwrap() && !quiet(3_600), "who died is not asked about");
        // What died and was never deleted is listed again and again.
        assert!(!listed(60));
        operator.note(OTHER_OPERATOR_NAMESPACES[0], Change::Applied(lease("", 15, OTHER)), at(70));
        assert!(!operator.runs());
        let long = || vec![lease("it", i64::from(i32::MAX), ONE)];
        operator.note(OTHER_OPERATOR_NAMESPACES[0], Change::Listed(long()), at(100));
        assert!(operator.runs() && !quiet(159) && quiet(160));
        operator.note(OTHER_OPERATOR_NAMESPACES[0], Change::Listed(long()), at(219));
        assert!(operator.runs());
        operator.note(OTHER_OPERATOR_NAMESPACES[0], Change::Listed(long()), at(220));
        assert!(!operator.runs());
    }

    #[test]
    fn while_the_lease_cannot_be_seen_the_last_answer_holds() {
        let operator = operator();
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        operator.note(OTHER_OPERATOR_NAMESPACES[0], Change::Listed(vec![lease("it", 15, ONE)]), begin);
        // Renewed ever since, for all that is known.
        operator.note(OTHER_OPERATOR_NAMESPACES[0], Change::Failed("refused".to_owned()), at(10));
        operator.note(OTHER_OPERATOR_NAMESPACES[0], Change::Failed("refused".to_owned()), at(3_600));
        assert!(operator.runs());
        operator.note(OTHER_OPERATOR_NAMESPACES[0], Change::Listed(vec![lease("it", 15, ONE)]), at(3_601));
        assert!(!operator.runs());
    }

    /// A watch that hangs is found out, and who renews the lease all the while goes on running.
    #[tokio::test]
    async fn a_lease_of_which_nothing_is_heard_is_asked_about() {
        let asked = Arc::new(Mutex::new(0_u32));
        let seen = Arc::clone(&asked);
        let answer = move |request: axum::extract::Request| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let seen = Arc::clone(&seen);
            async move {
                if query.contains("watch=") {
                    return std::future::pending().await;
                }
                assert!(query.contains("metadata.name%3Df1499914.criu.org"), "{query}");
                let count = {
                    let mut seen = seen.lock().unwrap();
                    *seen += 1;
                    *seen
                };
                // It holds for a second, and is renewed in between, but not after the third time.
                let items = json!([lease("it", 1, &format!("2026-11-24T12:00:0{}.000000Z", count.min(3)))]);
                let list = json!({"kind": "LeaseList", "apiVersion": "coordination.k8s.io/v1", "metadata": {"resourceVersion": "1"}, "items": items});
                axum::response::Response::new(axum::body::Body::from(list.to_string()))
            }
        };
        let client = Client::new(axum::Router::new().fallback(answer), "default");
        let operator = operator();
        let mut changes = operator.changed.subscribe();
        let ended = async {
            while changes.changed().await.is_ok() {
                if operator.is_listed() && !operator.runs() {
                    return;
                }
            }
        };
        let tick = Duration::from_millis(100);
        let watching = operator.watch_namespace(OTHER_OPERATOR_NAMESPACES[0], &client, tick);
        tokio::select! { () = watching => {}, () = ended => {} }
        let asked = *asked.lock().unwrap();
        assert!(asked > 3, "it ran for as long as it was renewed: {asked}");
    }

    #[test]
    fn the_older_operator_is_seen_in_each_namespace_that_it_may_be_installed_in() {
        let namespaces = OTHER_OPERATOR_NAMESPACES.map(str::to_owned);
        let operator = OtherOperator::new(&namespaces, watch::Sender::new(()));
        let [here, there] = OTHER_OPERATOR_NAMESPACES;
        let now = Instant::now();
        operator.note(there, Change::Listed(vec![lease("it", 15, ONE)]), now);
        assert!(!operator.is_listed() && operator.runs());
        // That there is none here says nothing of there.
        operator.note(here, Change::Listed(vec![]), now);
        assert!(operator.is_listed() && operator.runs());
        operator.note(there, Change::Listed(vec![]), now);
        assert!(!operator.runs());
    }
}

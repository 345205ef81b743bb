//! What is known about the pods whose archives are here, and what to ask the API next.
//!
//! [`PodIndex`] is told which archives there are ([`PodIndex::begin_round`]), says what is to be asked
//! ([`PodIndex::lookups`]), folds the answers in ([`PodIndex::fold`]) and gives the plan what it knows
//! ([`PodIndex::fill`]). Who asks, and how, is not its business, and neither is the time.
//!
//! Nothing counts as gone but what the API itself said is not found, since the first time it said
//! so. A lookup that fails makes nothing known, and what was known to be gone is then not to be
//! acted on until it is confirmed again. What a rule would delete for it is asked about at once
//! ([`PodIndex::confirm`]); what may be gone unnoticed, now and then.
//!
//! What is asked for is asked for by its name, and whatever has that name keeps what is here: a pod with another
//! UID or a namespace younger than its archives may be the same ones, restored from a backup. What another
//! cluster said to be gone says nothing of this one. A younger namespace is another one, though, to policies:
//! neither its labels nor whose pods live in it say anything of an archive from before it. Where two clocks
//! cannot tell that for certain, only the pod can: seen alive in the namespace, it is from there.

mod cluster;
mod fold;
mod freshness;
mod idle;
mod known;
mod labels;
mod lookup;
mod needs;
mod next;
mod record;
mod request_budget;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;

pub use freshness::{CONFIRMED, LIVE};
pub use lookup::{LivePod, Lookup, LookupResult};
pub use record::{Owner, OwnerRef, PodKey, PodRecord, SeenLabels, SeenNamespace};
pub use request_budget::RequestBudget;

use crate::fact::Fact;
use crate::identity::Identity;
use crate::plan::Origin;
use crate::policy::{Labels, OrphanWhen, PolicySet};
use cluster::ClusterIdentity;
use idle::Running;
use labels::CurrentLabels;
use needs::{Asking, Needs};
use record::OwnerId;
use request_budget::Asked;

/// More owners above each other than this, and they go in circles.
const MOST_ABOVE: usize = 8;

/// What is known about the pods whose archives are here.
#[derive(Debug, Default)]
pub struct PodIndex {
    pods: BTreeMap<PodKey, Pod>,
    /// The cluster that is asked.
    cluster: ClusterIdentity,
    namespace_labels: CurrentLabels,
    /// Namespaces in which a policy came up since they were last asked about, and whether they were asked
    /// about since: an answer to an earlier lookup may be about the one before.
    invalidated: BTreeMap<String, bool>,
    /// Namespaces that were shown since they were last asked about.
    shown_since: BTreeSet<String>,
    /// What controls an owner; none: it is the topmost.
    above: HashMap<(String, OwnerId), Option<OwnerRef>>,
    /// Whether it can be asked which pods run on this node.
    knows_node: bool,
    /// Whether they are shown unasked.
    pods_watched: bool,
    /// Whether each pod is asked about once, whatever the policies need now: later ones may need to
    /// know what only lives as long as the pod.
    eager_lookups: bool,
    running: Option<Running>,
    asked: Asked,
    changed: BTreeSet<PodKey>,
    forgotten: BTreeSet<PodKey>,
}

/// When an archive was taken, for what it tells of its pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenWhen {
    /// Then, for certain.
    At(Timestamp),
    /// At an unknown time, and by then at the latest.
    Before(Timestamp),
    /// That is unknown, and may be now.
    Unknown,
}

impl TakenWhen {
    /// When its pod ran for certain; [`Timestamp::MAX`] where that is unknown.
    fn earliest(self) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Before(_) | Self::Unknown => Timestamp::MAX,
        }
    }

    /// When its pod may have run at the latest.
    fn latest(self) -> Timestamp {
        match self {
            Self::At(time) | Self::Before(time) => time,
            Self::Unknown => Timestamp::MAX,
        }
    }
}

/// One pod.
#[derive(Debug)]
struct Pod {
    record: PodRecord,
    needs: Needs,
    /// When the oldest of its archives was taken, of those of which that is certain.
    oldest: Timestamp,
    /// When the newest was at the latest: the pod may have run until then.
    newest: Timestamp,
    /// Whether another was seen by its name: it will not be seen any more.
    is_replaced: bool,
    /// Whether its namespace was asked about since it is known.
    is_asked_about: bool,
    confirmed: Confirmed,
}

/// Absences as they were last confirmed; none where they were not, or the last lookup failed.
#[derive(Debug, Clone, Copy, Default)]
struct Confirmed {
    pod: Option<Fact<Gone>>,
    workload: Option<Fact<Gone>>,
    namespace: Option<Fact<Gone>>,
    /// No pod of the lineage runs on this node.
    idle: Option<Fact<Gone>>,
}

/// An object that is not there.
#[derive(Debug, Clone, Copy)]
struct Gone;

impl PodIndex {
    /// Knows what was remembered, and asks about this node's pods if `knows_node`.
    pub fn new(knows_node: bool, remembered: BTreeMap<PodKey, PodRecord>) -> Self {
        let pod = |record| Pod {
            record,
            needs: Needs::default(),
            oldest: Timestamp::MAX,
            newest: Timestamp::MIN,
            is_replaced: false,
            is_asked_about: false,
            confirmed: Confirmed::default(),
        };
        // Pods of one namespace share its labels in memory.
        let mut shared: HashMap<Arc<Labels>, Arc<Labels>> = HashMap::new();
        let mut share = |mut record: PodRecord| {
            if let Some(SeenLabels { labels, .. }) = &mut record.namespace_labels {
                *labels = Arc::clone(shared.entry(Arc::clone(labels)).or_insert_with(|| Arc::clone(labels)));
            }
            record
        };
        let pods = remembered.into_iter().map(|(key, record)| (key, pod(share(record)))).collect();
        Self { pods, knows_node, ..Self::default() }
    }

    /// From here on each pod is asked about once, whether or not a policy needs it.
    pub fn set_eager_lookups(&mut self) {
        self.eager_lookups = true;
    }

    /// From here on somebody shows which pods run on this node, and nobody asks.
    pub fn set_pods_watched(&mut self) {
        self.pods_watched = true;
    }

    /// Begins a round, in which each lookup is asked once at most. `archives` are those whose
    /// identity is known; where these are `all` that are here, what was known of other pods is
    /// forgotten.
    pub fn begin_round<'a>(
        &mut self,
        archives: impl Iterator<Item = (&'a Arc<Identity>, TakenWhen)>,
        all: bool,
        policies: &PolicySet,
    ) {
        self.asked.begin_round();
        self.go_on(archives, all, policies);
    }

    /// The same within the round that was begun: only what is new leads to lookups.
    pub fn go_on<'a>(
        &mut self,
        archives: impl Iterator<Item = (&'a Arc<Identity>, TakenWhen)>,
        all: bool,
        policies: &PolicySet,
    ) {
        if self.namespace_labels.follow(policies) {
            for key in self.pods.keys() {
                self.asked.forget(&Lookup::Namespace(key.namespace.clone()));
            }
        }
        let asking = Asking::new(policies, self.knows_node);
        let mut here: HashMap<*const Identity, (&Identity, Timestamp, Timestamp)> = HashMap::new();
        for (identity, taken) in archives {
            let (earliest, latest) = (taken.earliest(), taken.latest());
            let (_, oldest, newest) =
                here.entry(Arc::as_ptr(identity)).or_insert((&**identity, earliest, latest));
            (*oldest, *newest) = (earliest.min(*oldest), latest.max(*newest));
        }
        let mut pods: BTreeMap<PodKey, (Needs, Timestamp, Timestamp)> = BTreeMap::new();
        for (identity, oldest, newest) in here.into_values() {
            let entry = pods.entry(PodKey::of(identity)).or_insert((Needs::default(), oldest, newest));
            *entry = (entry.0.and(asking.about(identity)), entry.1.min(oldest), entry.2.max(newest));
        }
        let others: Vec<PodKey> = self.pods.keys().filter(|key| !pods.contains_key(key)).cloned().collect();
        for key in others {
            if all {
                self.pods.remove(&key);
                self.changed.remove(&key);
                self.forgotten.insert(key);
            } else if let Some(pod) = self.pods.get_mut(&key) {
                pod.needs = Needs::default();
            }
        }
        // The namespace that last had each name, as far as any pod's record says.
        let mut namespaces: HashMap<String, SeenNamespace> = HashMap::new();
        if pods.keys().any(|key| !self.pods.contains_key(key)) {
            for (key, pod) in &self.pods {
                if let Some(seen) = pod.record.namespace {
                    let known = namespaces.entry(key.namespace.clone()).or_insert(seen);
                    known.created = known.created.max(seen.created);
                }
            }
        }
        for (key, (mut needs, oldest, newest)) in pods {
            if self.eager_lookups {
                let pod = self.pods.get(&key);
                let is_over = pod.is_some_and(|pod| pod.is_replaced || pod.is_of_former_namespace(&key));
                let is_placed =
                    key.uid.is_some() && pod.is_some_and(|pod| pod.origin(oldest) == Origin::Present);
                needs = needs.and(Needs::to_learn(pod.map(|pod| &pod.record), is_over, is_placed));
            }
            needs.namespace |= self.invalidated.contains_key(&key.namespace);
            if let Some(pod) = self.pods.get_mut(&key) {
                (pod.needs, pod.oldest, pod.newest) = (needs, oldest, newest);
            } else if needs.any() {
                // What was answered about the name in this round, nobody has noted for this pod.
                self.asked.forget(&Lookup::Pod { namespace: key.namespace.clone(), name: key.pod.clone() });
                if self.eager_lookups || self.namespace_labels.are_selected_by() {
                    // Its labels are to be remembered as they are now.
                    self.asked.forget(&Lookup::Namespace(key.namespace.clone()));
                }
                let namespace = namespaces.get(&key.namespace).copied();
                let record = PodRecord { namespace, ..PodRecord::default() };
                let (confirmed, is_replaced, is_asked_about) = (Confirmed::default(), false, false);
                let pod = Pod { record, needs, oldest, newest, is_replaced, is_asked_about, confirmed };
                self.pods.insert(key, pod);
            }
        }
        self.resolve();
        self.prune(policies);
    }

    /// A policy came up in this namespace, whose name may by now be another's: until it is asked about,
    /// nothing is known of it for certain.
    pub fn invalidate_namespace(&mut self, namespace: &str) {
        self.invalidated.insert(namespace.to_owned(), false);
        self.asked.forget(&Lookup::Namespace(namespace.to_owned()));
    }

    /// What rules would delete, were it confirmed once more that what it belonged to is gone: in this round
    /// that is asked before what may wait.
    pub fn confirm<'a>(&mut self, orphans: impl Iterator<Item = (&'a Identity, OrphanWhen)>) {
        let asked_about = orphans.filter_map(|(identity, when)| {
            let (key, pod) = self.pods.get_key_value(&PodKey::of(identity))?;
            Some(pod.confirmed_by(key, when))
        });
        let lookups = asked_about.collect();
        self.asked.want(lookups);
    }

    /// Forgets what only pods that are gone from here were about.
    fn prune(&mut self, policies: &PolicySet) {
        let needed = self.needed();
        self.asked.retain(|lookup| needed.contains_key(lookup));
        let pods = &self.pods;
        let is_here = |namespace: &String| in_namespace(pods, namespace).next().is_some();
        self.namespace_labels.retain(is_here);
        self.shown_since.retain(is_here);
        // Of a namespace that has a policy, the first archive may yet come.
        let governed: BTreeSet<&String> =
            policies.retention.iter().filter_map(|policy| policy.namespace.as_ref()).collect();
        self.invalidated.retain(|namespace, _| governed.contains(namespace) || is_here(namespace));
        let controllers = self.pods.iter().filter_map(|(key, pod)| match &pod.record.owner {
            Owner::Controlled { controller, .. } => Some((&key.namespace, controller)),
            Owner::Unknown | Owner::Bare => None,
        });
        let running = self.running.iter().flat_map(|running| &running.pods.value);
        let running = running.filter_map(|pod| Some((&pod.namespace, pod.controller.as_ref()?)));
        let used: BTreeSet<(String, OwnerId)> = controllers
            .chain(running)
            .flat_map(|(namespace, controller)| self.passed(namespace, controller))
            .collect();
        self.above.retain(|owner, _| used.contains(owner));
    }

    /// What changed since the last call, for whoever remembers it: records, and pods to forget.
    pub fn take_changes(&mut self) -> (Vec<(PodKey, PodRecord)>, Vec<PodKey>) {
        let changed = std::mem::take(&mut self.changed).into_iter();
        let records = changed.filter_map(|key| {
            let record = self.pods.get(&key)?.record.clone();
            Some((key, record))
        });
        (records.collect(), std::mem::take(&mut self.forgotten).into_iter().collect())
    }

    /// Has everything written anew, as into a memory that was lost.
    pub fn remember_all(&mut self) {
        self.cluster.remember_anew();
        self.changed = self.pods.keys().cloned().collect();
    }
}

impl Pod {
    /// Whether it is known when its archives were taken.
    fn is_dated(&self) -> bool {
        self.oldest != Timestamp::MAX
    }

    /// Which namespace an archive of it is from.
    fn origin(&self, taken: Timestamp) -> Origin {
        let created = self.record.namespace.map(|namespace| namespace.created);
        Origin::of(taken, self.record.seen_in, created)
    }

    /// Whether the pod itself is from a former namespace: no pod lives in two.
    fn is_of_former_namespace(&self, key: &PodKey) -> bool {
        key.uid.is_some() && self.origin(self.oldest) == Origin::Former
    }

    /// Whether all that its owner decides is known, and no rule goes by the pod itself.
    fn is_told(&self, key: &PodKey) -> bool {
        let is_controlled = matches!(self.record.owner, Owner::Controlled { .. });
        let is_open = self.needs.pod_gone || self.may_prove_its_origin(key);
        key.uid.is_some() && is_controlled && self.record.labels.is_some() && !is_open
    }

    /// Whether it is from the present namespace if it is seen, and nothing else can tell.
    fn may_prove_its_origin(&self, key: &PodKey) -> bool {
        let is_gone = self.record.pod_gone.is_some() || self.record.namespace_gone.is_some();
        key.uid.is_some() && !is_gone && !self.is_replaced && self.origin(self.oldest) == Origin::Uncertain
    }

    /// What to ask to hear whether that is gone which an archive of it belonged to.
    fn confirmed_by(&self, key: &PodKey, when: OrphanWhen) -> Lookup {
        let namespace = key.namespace.clone();
        match &self.record.owner {
            _ if when == OrphanWhen::NamespaceDeleted => Lookup::Namespace(namespace),
            Owner::Controlled { topmost: Some(topmost), .. } if when == OrphanWhen::WorkloadDeleted => {
                ask_owner(&namespace, topmost.clone())
            }
            _ => Lookup::Pod { namespace, name: key.pod.clone() },
        }
    }
}

fn ask_owner(namespace: &str, owner: OwnerRef) -> Lookup {
    Lookup::Owner { namespace: namespace.to_owned(), owner: OwnerRef { uid: None, ..owner } }
}

/// The pods of a namespace.
fn in_namespace<'a>(
    pods: &'a BTreeMap<PodKey, Pod>,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a PodKey, &'a Pod)> {
    let first = PodKey { namespace: namespace.to_owned(), pod: String::new(), uid: None };
    pods.range((Bound::Included(first), Bound::Unbounded))
        .take_while(move |(key, _)| key.namespace == namespace)
}

fn in_namespace_mut<'a>(
    pods: &'a mut BTreeMap<PodKey, Pod>,
    namespace: &'a str,
) -> impl Iterator<Item = (&'a PodKey, &'a mut Pod)> {
    let first = PodKey { namespace: namespace.to_owned(), pod: String::new(), uid: None };
    pods.range_mut((Bound::Included(first), Bound::Unbounded))
        .take_while(move |(key, _)| key.namespace == namespace)
}

//! The pods whose archives are here: what is known about them, and what to look up next.
//!
//! [`PodIndex`] takes the list of archives ([`PodIndex::begin_round`]), returns the lookups that are due
//! ([`PodIndex::lookups`]), takes their results ([`PodIndex::fold`]) and fills what it knows into the plan's snapshot
//! ([`PodIndex::fill`]). It sends no requests and reads no clock.
//!
//! An object counts as gone only after the API answered "not found" for it, and since the first such answer. A
//! lookup that fails tells nothing, and suspends what was known to be gone until that is confirmed again. Where a
//! rule would delete because of an absence, the absence is looked up at once ([`PodIndex::confirm`]); all others
//! are looked up from time to time.
//!
//! Objects are looked up by name, and an object of that name keeps the archives even if it is another one: a pod
//! with another UID, or a namespace younger than its archives, may have been restored from a backup. What another
//! cluster reported as gone does not count in this one. For policies, however, a younger namespace is another
//! namespace: its labels and pods say nothing about an archive from before it. Where the clocks of node and API
//! server are too close to tell which of the two an archive is from, a live pod with the archive's UID decides it.

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

/// Longest chain of owners that is followed; a longer one is taken for a circle.
const MOST_ABOVE: usize = 8;

/// What is known about the pods whose archives are here.
#[derive(Debug, Default)]
pub struct PodIndex {
    pods: BTreeMap<PodKey, Pod>,
    /// The cluster that is asked.
    cluster: ClusterIdentity,
    namespace_labels: CurrentLabels,
    /// Namespaces with a new policy, each with whether a lookup of it was sent since. Until one that was is
    /// answered, the namespace may be another one of that name.
    invalidated: BTreeMap<String, bool>,
    /// Namespaces that a watch has shown since their last lookup was sent, so that its result is older.
    shown_since: BTreeSet<String>,
    /// The controller of each owner; none where the owner is the topmost one.
    above: HashMap<(String, OwnerId), Option<OwnerRef>>,
    /// Whether this node's name is known, so that its pods can be listed.
    knows_node: bool,
    /// Whether a watch shows them, so that they are not looked up.
    pods_watched: bool,
    /// Whether each pod is looked up once even if no policy needs it: later policies may need what is only known
    /// while the pod lives.
    eager_lookups: bool,
    running: Option<Running>,
    asked: Asked,
    changed: BTreeSet<PodKey>,
    forgotten: BTreeSet<PodKey>,
}

/// When an archive was taken, as far as that tells when its pod ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakenWhen {
    /// At exactly that time.
    At(Timestamp),
    /// At an unknown time, at the latest then.
    Before(Timestamp),
    /// At an unknown time, perhaps just now.
    Unknown,
}

impl TakenWhen {
    /// A time at which its pod certainly ran; [`Timestamp::MAX`] where that is unknown.
    fn earliest(self) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::Before(_) | Self::Unknown => Timestamp::MAX,
        }
    }

    /// The latest time at which its pod may have run.
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
    /// When the oldest of its archives with a certain time was taken.
    oldest: Timestamp,
    /// When the newest was taken at the latest: the pod may have run until then.
    newest: Timestamp,
    /// Whether another pod has its name now, so that it will not be seen any more.
    is_replaced: bool,
    /// Whether a lookup of its namespace was sent since the pod is known.
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
    /// An index of what the catalog kept; `knows_node`: whether this node's pods can be listed.
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

    /// Looks up each pod once from now on, whether or not a policy needs it.
    pub fn set_eager_lookups(&mut self) {
        self.eager_lookups = true;
    }

    /// Relies on a watch for the pods of this node from now on, instead of lookups.
    pub fn set_pods_watched(&mut self) {
        self.pods_watched = true;
    }

    /// Begins a round, in which each lookup is sent once at most. `archives` are those whose identity is known;
    /// if these are `all` archives of the directory, the records of other pods are dropped.
    pub fn begin_round<'a>(
        &mut self,
        archives: impl Iterator<Item = (&'a Arc<Identity>, TakenWhen)>,
        all: bool,
        policies: &PolicySet,
    ) {
        self.asked.begin_round();
        self.go_on(archives, all, policies);
    }

    /// Updates the archives within the current round: only new ones lead to lookups.
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
                // An answer about this name that came earlier in this round was not noted for this pod.
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

    /// Invalidates what is known about a namespace until it is looked up, as a new policy appeared in it: it may have
    /// been deleted and created again.
    pub fn invalidate_namespace(&mut self, namespace: &str) {
        self.invalidated.insert(namespace.to_owned(), false);
        self.asked.forget(&Lookup::Namespace(namespace.to_owned()));
    }

    /// Sets the lookups that deletions wait for, which confirm that an orphan still is one. They come first.
    pub fn confirm<'a>(&mut self, orphans: impl Iterator<Item = (&'a Identity, OrphanWhen)>) {
        let asked_about = orphans.filter_map(|(identity, when)| {
            let (key, pod) = self.pods.get_key_value(&PodKey::of(identity))?;
            Some(pod.confirmed_by(key, when))
        });
        let lookups = asked_about.collect();
        self.asked.set_awaited(lookups);
    }

    /// Drops what was only needed for pods that have no archive here any more.
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

    /// What the catalog is to write since the last call: records, and pods to forget.
    pub fn take_changes(&mut self) -> (Vec<(PodKey, PodRecord)>, Vec<PodKey>) {
        let changed = std::mem::take(&mut self.changed).into_iter();
        let records = changed.filter_map(|key| {
            let record = self.pods.get(&key)?.record.clone();
            Some((key, record))
        });
        (records.collect(), std::mem::take(&mut self.forgotten).into_iter().collect())
    }

    /// Remembers by which labels the overriding policy of that name selected a pod.
    pub fn remember_selection(&mut self, key: &PodKey, policy: &str, labels: &Labels) {
        let Some(pod) = self.pods.get_mut(key) else { return };
        let known = pod.record.former_labels.as_ref().and_then(|former| former.get(policy));
        if known != Some(labels) {
            let former = pod.record.former_labels.get_or_insert_default();
            Arc::make_mut(former).insert(policy.to_owned(), labels.clone());
            self.changed.insert(key.clone());
        }
    }

    /// Marks everything as changed, so that an empty catalog gets it all.
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

    /// Whether its lookup can wait: its owner and labels are known, and no rule needs the pod itself.
    fn is_told(&self, key: &PodKey) -> bool {
        let is_controlled = matches!(self.record.owner, Owner::Controlled { .. });
        let is_open = self.needs.pod_gone || self.may_prove_its_origin(key);
        key.uid.is_some() && is_controlled && self.record.labels.is_some() && !is_open
    }

    /// Whether only seeing it alive could tell that it is from the present namespace.
    fn may_prove_its_origin(&self, key: &PodKey) -> bool {
        let is_gone = self.record.pod_gone.is_some() || self.record.namespace_gone.is_some();
        key.uid.is_some() && !is_gone && !self.is_replaced && self.origin(self.oldest) == Origin::Uncertain
    }

    /// The lookup that confirms that its archives are orphans.
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

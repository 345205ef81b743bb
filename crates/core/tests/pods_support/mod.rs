//! A cluster made of tables that answers lookups, and a node that asks it.
#![allow(dead_code)] // each test crate uses its own part

#[cfg(test)]
pub(crate) mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_core::identity::Identity;
use checkpoint_keeper_core::plan::{Archive, Clock, Reason, Snapshot, plan};
use checkpoint_keeper_core::pods::{
    LivePod, Lookup, LookupResult, OwnerRef, PodIndex, PodKey, PodRecord, RequestBudget, TakenWhen,
};
use checkpoint_keeper_core::policy::{Labels, OrphanRule, OrphanWhen, Policy, PolicySet};
use jiff::Timestamp;

use crate::plan_support::{ago, archive, cluster, labels, with};

/// What is there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cluster {
    pub(crate) uid: String,
    pub(crate) namespaces: BTreeMap<String, (Labels, Timestamp)>,
    /// By namespace and name, and whether it runs on this node.
    pub(crate) pods: BTreeMap<(String, String), (LivePod, bool)>,
    /// What controls each, by namespace, kind and name.
    pub(crate) owners: BTreeMap<(String, String, String), Option<OwnerRef>>,
    /// Pods that have ended, by namespace and name, and UID.
    pub(crate) ended: BTreeSet<((String, String), String)>,
    /// Kinds that may not be read.
    pub(crate) forbidden: BTreeSet<String>,
    /// Nothing is answered.
    pub(crate) is_down: bool,
    /// It has no namespace whose UID would be its own.
    pub(crate) is_nameless: bool,
}

/// `apps/v1 Deployment web`
pub(crate) fn owner(text: &str) -> OwnerRef {
    let mut parts = text.split(' ').map(str::to_owned);
    let mut part = || parts.next().unwrap();
    OwnerRef { api_version: part(), kind: part(), name: part(), uid: None }
}

impl Cluster {
    pub(crate) fn answer(&self, lookup: &Lookup) -> LookupResult {
        if self.is_down {
            return LookupResult::Failed("down".to_owned());
        }
        match lookup {
            Lookup::Cluster if self.forbidden.contains("Cluster") => {
                LookupResult::Forbidden("forbidden".to_owned())
            }
            Lookup::Cluster if self.is_nameless => LookupResult::NotFound,
            Lookup::Cluster => LookupResult::Cluster(self.uid.clone()),
            Lookup::Namespace(name) => match self.namespaces.get(name) {
                Some((labels, created)) => {
                    LookupResult::Namespace { labels: labels.clone(), created: *created }
                }
                None => LookupResult::NotFound,
            },
            Lookup::NodePods => {
                let here = self.pods.values().filter(|(_, is_here)| *is_here);
                LookupResult::NodePods(here.map(|(pod, _)| pod.clone()).collect())
            }
            Lookup::Pod { namespace, name } => {
                let found = self.pods.get(&(namespace.clone(), name.clone()));
                found.map_or(LookupResult::NotFound, |(pod, _)| LookupResult::Pod(pod.clone()))
            }
            Lookup::Owner { owner, .. } if self.forbidden.contains(&owner.kind) => {
                LookupResult::Forbidden("forbidden".to_owned())
            }
            Lookup::Owner { namespace, owner } => {
                let key = (namespace.clone(), owner.kind.clone(), owner.name.clone());
                match self.owners.get(&key) {
                    Some(controller) => LookupResult::Owner { uid: None, controller: controller.clone() },
                    None => LookupResult::NotFound,
                }
            }
        }
    }

    pub(crate) fn create_namespace(&mut self, name: &str, created: Timestamp) {
        self.namespaces.insert(name.to_owned(), (labels(&[("env", "prod")]), created));
    }

    pub(crate) fn label_namespace(&mut self, name: &str, env: &str) {
        self.namespaces.get_mut(name).unwrap().0 = labels(&[("env", env)]);
    }

    /// A namespace is deleted with all that is in it.
    pub(crate) fn delete_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
        self.pods.retain(|(namespace, _), _| namespace != name);
        self.owners.retain(|(namespace, ..), _| namespace != name);
    }

    /// `shop/web-0`, on this node.
    pub(crate) fn run(&mut self, path: &str, uid: &str, controller: Option<&str>) {
        let (namespace, name) = path.split_once('/').unwrap();
        let pod = LivePod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: (!uid.is_empty()).then(|| uid.to_owned()),
            labels: Some(labels(&[("uid", uid)])),
            controller: controller.map(owner),
        };
        self.pods.insert((namespace.to_owned(), name.to_owned()), (pod, true));
    }

    pub(crate) fn stop(&mut self, path: &str) {
        let (namespace, name) = path.split_once('/').unwrap();
        assert!(self.pods.remove(&(namespace.to_owned(), name.to_owned())).is_some(), "{path} ran");
    }

    pub(crate) fn create_owner(&mut self, namespace: &str, kind: &str, name: &str, above: Option<&str>) {
        self.owners.insert((namespace.into(), kind.into(), name.into()), above.map(owner));
    }

    pub(crate) fn delete_owner(&mut self, namespace: &str, kind: &str, name: &str) {
        let key = (namespace.to_owned(), kind.to_owned(), name.to_owned());
        assert!(self.owners.remove(&key).is_some(), "{kind} {name} was there");
    }

    /// `shop/web-1` of Deployment web, through a `ReplicaSet`.
    pub(crate) fn deploy(&mut self, pod: &str, uid: &str) {
        self.create_owner("shop", "Deployment", "web", None);
        self.create_owner("shop", "ReplicaSet", "web-1", Some("apps/v1 Deployment web"));
        self.run(pod, uid, Some("apps/v1 ReplicaSet web-1"));
    }
}

/// A node with archives that asks the cluster.
pub(crate) struct Node {
    pub(crate) cluster: Cluster,
    pub(crate) pod_index: PodIndex,
    pub(crate) archives: Vec<Archive>,
    pub(crate) policies: PolicySet,
    pub(crate) now: Timestamp,
    pub(crate) clock: Clock,
    pub(crate) is_named: bool,
    /// Whether it is shown which pods run on it.
    pub(crate) is_shown: bool,
    pub(crate) budget: RequestBudget,
    /// Whether the identity of every archive is known.
    pub(crate) all_are_known: bool,
    /// What is remembered on the disk.
    pub(crate) records: BTreeMap<PodKey, PodRecord>,
    pub(crate) cluster_uid: Option<String>,
    /// When what was said not to be found, and what was said to be there, by which cluster; by a clock that is
    /// trusted.
    pub(crate) said: Vec<(Timestamp, Lookup, bool, String)>,
    /// The lookups of the last round.
    pub(crate) asked: Vec<Lookup>,
}

/// An archive taken yesterday.
pub(crate) fn of(short: &str, path: &str, uid: &str) -> Archive {
    let mut parts = path.split('/').map(str::to_owned);
    let mut part = || parts.next().unwrap();
    let identity = Identity {
        namespace: part(),
        pod: part(),
        pod_uid: (!uid.is_empty()).then(|| uid.to_owned()),
        container: part(),
    };
    let yesterday = ago(Duration::from_hours(24));
    Archive { identity: Some(Arc::new(identity)), taken: yesterday, changed: yesterday, ..archive(short) }
}

pub(crate) fn orphans(when: OrphanWhen, grace: Duration) -> Policy {
    with(cluster("orphans"), |policy| policy.orphans = Some(OrphanRule { when, grace }))
}

impl Node {
    pub(crate) fn new(policy: Policy, archives: impl IntoIterator<Item = Archive>) -> Self {
        let mut cluster = Cluster::default();
        cluster.create_namespace("shop", ago(Duration::from_hours(24 * 100)));
        Self {
            cluster,
            pod_index: PodIndex::new(false, BTreeMap::new()),
            archives: archives.into_iter().collect(),
            policies: PolicySet { retention: vec![policy], ..PolicySet::default() },
            now: crate::plan_support::now(),
            clock: Clock::Trusted,
            is_named: false,
            is_shown: false,
            budget: RequestBudget::EVERYTHING,
            all_are_known: true,
            records: BTreeMap::new(),
            cluster_uid: None,
            said: Vec::new(),
            asked: Vec::new(),
        }
    }

    /// Knows which pods run on it.
    pub(crate) fn named(mut self) -> Self {
        self.is_named = true;
        self.pod_index = PodIndex::new(true, BTreeMap::new());
        self
    }

    /// Asks as an agent does, which is shown what runs on its node.
    pub(crate) fn sparing(mut self) -> Self {
        self = self.named();
        self.pod_index.set_pods_watched();
        (self.is_shown, self.budget) = (true, RequestBudget { new: 100, again: 20, idle: 1 });
        self
    }

    pub(crate) fn later(&mut self, length: Duration) -> &mut Self {
        self.now = self.now.checked_add(length).unwrap();
        self
    }

    /// Asks all there is to ask in a round.
    pub(crate) fn ask(&mut self) -> &mut Self {
        self.asked.clear();
        let archives = self.archives.iter();
        let known =
            archives.filter_map(|archive| Some((archive.identity.as_ref()?, TakenWhen::At(archive.taken))));
        self.pod_index.begin_round(known, self.all_are_known, &self.policies);
        if self.is_shown {
            let shown = match self.cluster.answer(&Lookup::NodePods) {
                LookupResult::NodePods(pods) => Some(pods),
                _ => None,
            };
            self.pod_index.apply_pods(shown, self.now, self.clock);
        }
        self.ask_on();
        self.confirm();
        self.ask_on();
        let (records, forgotten) = self.pod_index.take_changes();
        self.records.extend(records);
        self.records.retain(|key, _| !forgotten.contains(key));
        self.cluster_uid = self.pod_index.take_cluster().or(self.cluster_uid.take());
        self
    }

    /// Goes by what there is and by its policies, as before each plan, and asks nothing.
    pub(crate) fn look(&mut self) -> &mut Self {
        let archives = self.archives.iter();
        let known =
            archives.filter_map(|archive| Some((archive.identity.as_ref()?, TakenWhen::At(archive.taken))));
        self.pod_index.go_on(known, self.all_are_known, &self.policies);
        self
    }

    /// Is shown the namespace, or that it is not there, as a watch would.
    pub(crate) fn show(&mut self, namespace: &str) -> &mut Self {
        let result = self.cluster.answer(&Lookup::Namespace(namespace.to_owned()));
        self.pod_index.apply_namespaces(vec![(namespace.to_owned(), result)], self.now);
        self
    }

    /// Asks all that is left to ask in this round.
    pub(crate) fn ask_on(&mut self) {
        loop {
            let lookups = self.pod_index.lookups(self.budget);
            if lookups.is_empty() {
                break;
            }
            // Which cluster it is is asked with whatever else there is to ask.
            for lookup in lookups.iter().filter(|lookup| **lookup != Lookup::Cluster) {
                assert!(!self.asked.contains(lookup), "asked twice: {lookup}");
                self.asked.push(lookup.clone());
            }
            self.pod_index.fold(lookups.into_iter().map(|lookup| {
                let result = self.cluster.answer(&lookup);
                let is_gone = result == LookupResult::NotFound && self.clock == Clock::Trusted;
                if is_gone || (result.failure().is_none() && result != LookupResult::NotFound) {
                    self.said.push((self.now, lookup.clone(), is_gone, self.cluster.uid.clone()));
                }
                (lookup, result, self.now, self.clock)
            }));
        }
    }

    /// Has it asked whether the orphans still are orphans that would go if they were.
    fn confirm(&mut self) {
        let snapshot = self.snapshot();
        if self.clock == Clock::Suspect {
            return;
        }
        let plan = plan(&snapshot, &self.policies, self.now);
        let unconfirmed = plan.unconfirmed_orphans(self.now).map(|place| {
            let archive = &snapshot.archives[place];
            let rule = self.policies.retention.iter().find_map(|policy| policy.orphans);
            let when = rule.unwrap().when;
            (&**archive.identity.as_ref().unwrap(), when)
        });
        self.pod_index.confirm(unconfirmed);
    }

    /// Ends, and begins again with what is on the disk.
    pub(crate) fn restart(&mut self) -> &mut Self {
        let text = serde_json::to_string(&self.records.iter().collect::<Vec<_>>()).unwrap();
        let records: Vec<(PodKey, PodRecord)> = serde_json::from_str(&text).unwrap();
        let records: BTreeMap<PodKey, PodRecord> = records.into_iter().collect();
        assert_eq!(records, self.records, "a record comes back as it was written");
        self.pod_index = PodIndex::new(self.is_named, records);
        self.pod_index.remember_cluster(self.cluster_uid.clone());
        if self.is_shown {
            self.pod_index.set_pods_watched();
        }
        self
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut snapshot =
            Snapshot { archives: self.archives.clone(), clock: self.clock, ..Snapshot::default() };
        self.pod_index.fill(&mut snapshot, self.now);
        snapshot
    }

    /// The archive as the plan gets it.
    pub(crate) fn filled(&self, short: &str) -> Archive {
        let place = self.archives.iter().position(|known| known.file == archive(short).file).unwrap();
        self.snapshot().archives[place].clone()
    }

    /// What the plan says of each archive, in the order given.
    pub(crate) fn reasons(&self) -> Vec<Reason> {
        let plan = plan(&self.snapshot(), &self.policies, self.now);
        plan.verdicts.iter().map(|verdict| verdict.reason).collect()
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.iter().map(ToString::to_string).collect()
    }
}

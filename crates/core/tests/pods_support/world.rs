//! A namespace, its pods and their owners, that come, go and are made anew, and a node that asks about them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::{Archive, Clock, Plan, Reason, Snapshot, plan};
use checkpoint_keeper_core::pods::{CONFIRMED, Lookup, LookupResult};
use checkpoint_keeper_core::policy::{OrphanWhen, Policy};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;

use crate::plan_support::{DAY, HOUR, ago, cluster, label_is, with};
use crate::pods_support::{Node, of, orphans, owner};

/// What can happen.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    CreateNamespace(&'static str),
    DeleteNamespace,
    LabelNamespace(&'static str),
    /// Deleted with all that is in it, and all of it made anew, as a restore from a backup does.
    Restore(&'static str),
    /// Another cluster answers from now on, to another process.
    OtherCluster,
    Run(usize),
    Stop(usize),
    CreateOwners,
    DeleteOwner(&'static str, &'static str),
    /// The pod is checkpointed.
    Take(usize),
    /// The policy that selects by labels comes or goes.
    Policy(bool),
    WatchBegins,
    WatchEnds,
    /// The watch shows the next change.
    WatchShows,
    Down(bool),
    Clock(Clock),
    Wait(u32),
    Restart,
    Ask,
}

/// Each with the owner that it names.
pub(crate) const PODS: [(&str, Option<&str>); 3] =
    [("db-0", Some("apps/v1 StatefulSet db")), ("web-1-x", Some("apps/v1 ReplicaSet web-1")), ("tool", None)];
pub(crate) const OWNERS: [(&str, &str); 3] =
    [("StatefulSet", "db"), ("ReplicaSet", "web-1"), ("Deployment", "web")];
pub(crate) const LABELS: [&str; 2] = ["prod", "dev"];

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let env = || select(LABELS.to_vec());
    prop_oneof![
        2 => env().prop_map(Step::CreateNamespace),
        1 => Just(Step::DeleteNamespace),
        2 => env().prop_map(Step::LabelNamespace),
        2 => env().prop_map(Step::Restore),
        1 => Just(Step::OtherCluster),
        4 => (0..PODS.len()).prop_map(Step::Run),
        2 => (0..PODS.len()).prop_map(Step::Stop),
        2 => Just(Step::CreateOwners),
        1 => select(OWNERS.to_vec()).prop_map(|(kind, name)| Step::DeleteOwner(kind, name)),
        4 => (0..PODS.len()).prop_map(Step::Take),
        3 => any::<bool>().prop_map(Step::Policy),
        2 => Just(Step::WatchBegins),
        1 => Just(Step::WatchEnds),
        3 => Just(Step::WatchShows),
        1 => any::<bool>().prop_map(Step::Down),
        1 => select(vec![Clock::Trusted, Clock::Trusted, Clock::Suspect]).prop_map(Step::Clock),
        4 => (0_u32..90).prop_map(Step::Wait),
        1 => Just(Step::Restart),
        8 => Just(Step::Ask),
    ]
}

/// A namespace `shop` from when it was made until it was deleted.
pub(crate) struct Life {
    /// Its labels, each since when.
    pub(crate) labels: Vec<(Timestamp, &'static str)>,
    pub(crate) ended: Option<Timestamp>,
}

pub(crate) struct World {
    pub(crate) node: Node,
    pub(crate) lives: Vec<Life>,
    /// The life of the namespace that each archive is from.
    pub(crate) life_of: BTreeMap<FileName, usize>,
    /// What the watch has yet to show; none: there is none.
    pub(crate) watch: Option<VecDeque<LookupResult>>,
    /// Since when there is a policy that selects by labels.
    pub(crate) selecting_since: Option<Timestamp>,
    pub(crate) uids: u32,
}

pub(crate) fn prod() -> Policy {
    with(cluster("prod"), |policy| {
        policy.selector.namespace_labels = label_is("env", "prod");
        policy.retention.max_age = Some(DAY * 3650);
    })
}

impl World {
    pub(crate) fn new(when: OrphanWhen, grace: Duration, env: &'static str, is_sparing: bool) -> Self {
        let all = with(orphans(when, grace), |policy| policy.retention.max_age = Some(HOUR * 36));
        let mut node = Node::new(all, []);
        if is_sparing {
            node = node.sparing();
            node.pod_index.set_eager_lookups();
        }
        let created = ago(DAY * 100);
        node.cluster.label_namespace("shop", env);
        node.cluster.uid = "c0".into();
        let lives = vec![Life { labels: vec![(created, env)], ended: None }];
        let mut world =
            Self { node, lives, life_of: BTreeMap::new(), watch: None, selecting_since: None, uids: 0 };
        world.create_owners();
        (0..PODS.len()).for_each(|pod| world.run(pod));
        (0..PODS.len()).for_each(|pod| world.take(pod, ago(DAY)));
        world
    }

    pub(crate) fn is_there(&self) -> bool {
        self.node.cluster.namespaces.contains_key("shop")
    }

    fn create_owners(&mut self) {
        for (kind, name) in OWNERS {
            let above = (kind == "ReplicaSet").then_some("apps/v1 Deployment web");
            self.node.cluster.create_owner("shop", kind, name, above);
        }
    }

    fn run(&mut self, pod: usize) {
        self.uids += 1;
        let (name, controller) = PODS[pod];
        self.node.cluster.run(&format!("shop/{name}"), &format!("u{}", self.uids), controller);
    }

    fn take(&mut self, pod: usize, taken: Timestamp) {
        let (name, _) = PODS[pod];
        let Some((live, _)) = self.node.cluster.pods.get(&("shop".to_owned(), name.to_owned())) else {
            return;
        };
        let uid = live.uid.clone().unwrap();
        let short = format!("{}", self.node.archives.len());
        let archive = Archive { taken, changed: taken, ..of(&short, &format!("shop/{name}/c"), &uid) };
        self.life_of.insert(archive.file.clone(), self.lives.len() - 1);
        self.node.archives.push(archive);
    }

    fn create(&mut self, env: &'static str) {
        let now = self.node.now;
        self.node.cluster.create_namespace("shop", now);
        self.node.cluster.label_namespace("shop", env);
        self.lives.push(Life { labels: vec![(now, env)], ended: None });
        self.changed();
    }

    fn delete(&mut self) {
        if self.is_there() {
            self.lives.last_mut().unwrap().ended = Some(self.node.now);
        }
        self.node.cluster.delete_namespace("shop");
        self.changed();
    }

    /// The watch will show it.
    fn changed(&mut self) {
        let result = match self.node.cluster.namespaces.get("shop") {
            Some((labels, created)) => LookupResult::Namespace { labels: labels.clone(), created: *created },
            None => LookupResult::NotFound,
        };
        if let Some(watch) = &mut self.watch {
            watch.push_back(result);
        }
    }

    pub(crate) fn end_watch(&mut self) {
        if self.watch.take().is_some() {
            self.node.pod_index.invalidate_labels();
        }
    }

    pub(crate) fn do_one(&mut self, step: &Step) {
        let is_there = self.is_there();
        match *step {
            Step::CreateNamespace(env) if !is_there => self.create(env),
            Step::DeleteNamespace => self.delete(),
            Step::LabelNamespace(env) if is_there => {
                self.node.cluster.label_namespace("shop", env);
                let now = self.node.now;
                self.lives.last_mut().unwrap().labels.push((now, env));
                self.changed();
            }
            Step::Restore(env) => {
                self.delete();
                self.create(env);
                self.create_owners();
                (0..PODS.len()).for_each(|pod| self.run(pod));
            }
            Step::OtherCluster => {
                self.delete();
                self.uids += 1;
                self.node.cluster.uid = format!("c{}", self.uids);
                self.restart();
            }
            Step::Run(pod) if is_there => self.run(pod),
            Step::Stop(pod) => {
                let name = PODS[pod].0.to_owned();
                self.node.cluster.pods.remove(&("shop".to_owned(), name));
            }
            Step::CreateOwners if is_there => self.create_owners(),
            Step::DeleteOwner(kind, name) => {
                self.node.cluster.owners.remove(&("shop".into(), kind.into(), name.into()));
            }
            Step::Take(pod) if is_there => self.take(pod, self.node.now),
            Step::Policy(true) if self.selecting_since.is_none() => {
                self.node.policies.retention.push(prod());
                self.selecting_since = Some(self.node.now);
            }
            Step::Policy(false) => {
                self.node.policies.retention.truncate(1);
                self.selecting_since = None;
                self.end_watch();
            }
            Step::WatchBegins if self.selecting_since.is_some() && self.watch.is_none() => {
                self.watch = Some(VecDeque::new());
                let shown = match self.node.cluster.namespaces.get("shop") {
                    Some((labels, created)) => {
                        let (labels, created) = (labels.clone(), *created);
                        vec![("shop".to_owned(), LookupResult::Namespace { labels, created })]
                    }
                    None => Vec::new(),
                };
                self.node.pod_index.apply_all_namespaces(shown, self.node.now);
            }
            Step::WatchEnds => self.end_watch(),
            Step::WatchShows => {
                if let Some(result) = self.watch.as_mut().and_then(VecDeque::pop_front) {
                    self.node.pod_index.apply_namespaces(vec![("shop".to_owned(), result)], self.node.now);
                }
            }
            Step::Down(is_down) => self.node.cluster.is_down = is_down,
            Step::Clock(clock) => self.node.clock = clock,
            Step::Wait(minutes) => _ = self.node.later(Duration::from_mins(minutes.into())),
            Step::Restart => self.restart(),
            Step::Ask => _ = self.node.ask(),
            _ => {}
        }
    }

    pub(crate) fn restart(&mut self) {
        self.watch = None;
        self.node.restart();
        if self.node.is_shown {
            self.node.pod_index.set_eager_lookups();
        }
        if self.selecting_since.is_some() {
            self.selecting_since = Some(self.node.now);
        }
    }

    /// The labels by which an archive may be judged now: of a namespace that is there, those that it has had
    /// since there is reason to ask for them, and no old ones; of one that is gone, any that it had.
    pub(crate) fn labels_of(&self, archive: &Archive) -> BTreeSet<&'static str> {
        let life = &self.lives[self.life_of[&archive.file]];
        let recently = self.node.now.checked_sub(CONFIRMED).unwrap();
        let age = if self.node.is_shown { recently } else { Timestamp::MIN };
        let asked = self.selecting_since.unwrap_or(Timestamp::MIN);
        let since = match (life.ended, &self.watch) {
            (Some(_), _) => Timestamp::MIN,
            (None, Some(_)) => asked,
            (None, None) => asked.max(age),
        };
        let ends = life.labels.iter().skip(1).map(|(at, _)| *at).chain([Timestamp::MAX]);
        life.labels.iter().zip(ends).filter(|(_, end)| *end >= since).map(|((_, env), _)| *env).collect()
    }

    /// Whether the API said twice of what the rule goes by that it is not found, over the grace period, and
    /// nothing else in between.
    pub(crate) fn was_said_to_be_gone(&self, archive: &Archive, when: OrphanWhen, grace: Duration) -> bool {
        let identity = archive.identity.as_ref().unwrap();
        let about = match (when, archive.workload.as_deref()) {
            (OrphanWhen::NamespaceDeleted, _) => Lookup::Namespace("shop".to_owned()),
            (OrphanWhen::WorkloadDeleted, Some(workload)) => Lookup::Owner {
                namespace: "shop".to_owned(),
                owner: owner(&format!("apps/v1 {} {}", workload.kind, workload.name)),
            },
            _ => Lookup::Pod { namespace: "shop".to_owned(), name: identity.pod.clone() },
        };
        let said = self.node.said.iter().filter(|(_, lookup, _, _)| *lookup == about);
        let gone: Vec<Timestamp> = said
            .rev()
            .take_while(|(_, _, is_gone, cluster)| *is_gone && *cluster == self.node.cluster.uid)
            .map(|(at, ..)| *at)
            .collect();
        let (Some(last), Some(first)) = (gone.first(), gone.last()) else { return false };
        last.duration_since(*first).unsigned_abs() >= grace
            && self.node.now.duration_since(*last).unsigned_abs() <= CONFIRMED
    }

    pub(crate) fn check(&mut self, when: OrphanWhen, grace: Duration) -> Result<(), TestCaseError> {
        let snapshot = self.node.look().snapshot();
        let plan = plan(&snapshot, &self.node.policies, self.node.now);
        self.check_plan(&snapshot, &plan, when, grace)
    }

    /// No orphan but what the API twice said to be one, and no policy by labels that the namespace did not have.
    pub(crate) fn check_plan(
        &self,
        snapshot: &Snapshot,
        plan: &Plan,
        when: OrphanWhen,
        grace: Duration,
    ) -> Result<(), TestCaseError> {
        for (archive, verdict) in snapshot.archives.iter().zip(&plan.verdicts) {
            if verdict.reason == Reason::Orphaned {
                prop_assert!(self.was_said_to_be_gone(archive, when, grace), "{archive:?}");
            }
            let policy = verdict.policy.as_ref().filter(|_| verdict.reason != Reason::NoPolicy);
            let policy = policy.filter(|policy| policy.namespace.is_none());
            if let Some(policy) = policy.filter(|_| self.selecting_since.is_some()) {
                let may_be = self.labels_of(archive);
                let is_so = may_be.iter().any(|env| (*env == "prod") == (policy.name == "prod"));
                prop_assert!(is_so, "{} governs what has {may_be:?}: {archive:?}", policy.name);
            }
        }
        Ok(())
    }
}

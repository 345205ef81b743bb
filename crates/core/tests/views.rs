//! What holds while all that a node sees of its cluster fails, ends, lags and returns by itself: the watches of two
//! kinds of policies, that of namespaces, the pods and whoever answers; while namespaces, pods, policies and the
//! cluster are deleted and made anew; while the clock is wrong, and the agent is started anew.
#![allow(clippy::unwrap_used, clippy::panic)]

mod plan_support;
mod pods_support;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_core::confidence::Certainty;
use checkpoint_keeper_core::handover::GoverningHistory;
use checkpoint_keeper_core::identity::Identity;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::{
    Action, Archive, Clock, Governed, Plan, Reason, Snapshot, plan, plan_with,
};
use checkpoint_keeper_core::policy::{Confidence, OrphanWhen, Policy, PolicyRef, PolicySet};
use jiff::Timestamp;
use plan_support::{DAY, HOUR, cluster, local, tries, with};
use pods_support::orphans;
use pods_support::world::{LABELS, Step as WorldStep, World, prod, step as world_step};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// How far a watch lags at most: less than what the agent allows for.
const LATE: Duration = Duration::from_millis(1_500);

/// How long the next policy waits for what another one governed before.
const HANDOVER: Duration = Duration::from_mins(5);

/// How long a step takes.
const TICK: Duration = Duration::from_millis(500);

/// What can happen.
#[derive(Debug, Clone)]
enum Step {
    World(WorldStep),
    /// Somebody writes the cluster's policies.
    Cluster(Cluster),
    /// Somebody writes, or deletes and creates, the policy in the namespace.
    Local(Option<Local>),
    Tell(usize),
    Ends(usize),
    Returns(usize),
}

/// The cluster's policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cluster {
    Nothing,
    /// One that deletes.
    Strict,
    /// That one, and one that protects what its labels select.
    StrictButProduction,
    /// One that keeps everything.
    Lenient,
}

/// The policy in the namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Local {
    Strict,
    Lenient,
}

/// What a watch tells of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    cluster: Cluster,
    /// The policy in the namespace, and which object of that name it is.
    local: Option<(Local, u32)>,
}

impl Seen {
    fn policies(self, when: OrphanWhen, grace: Duration) -> PolicySet {
        let strict = || with(orphans(when, grace), |policy| policy.retention.max_age = Some(HOUR * 36));
        let lenient = |policy: Policy| with(policy, |policy| policy.retention.max_age = Some(DAY * 3_650));
        let mut retention = match self.cluster {
            Cluster::Nothing => vec![],
            Cluster::Strict => vec![strict()],
            Cluster::StrictButProduction => vec![strict(), prod()],
            Cluster::Lenient => vec![lenient(cluster("lenient"))],
        };
        let own = local("shop", "own");
        retention.extend(self.local.map(|(local, _)| match local {
            Local::Strict => with(own, |policy| policy.retention.max_age = Some(HOUR)),
            Local::Lenient => lenient(own),
        }));
        PolicySet { retention, ..PolicySet::default() }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let cluster = select(vec![
        Cluster::Nothing,
        Cluster::Strict,
        Cluster::Strict,
        Cluster::StrictButProduction,
        Cluster::StrictButProduction,
        Cluster::Lenient,
    ]);
    let local = select(vec![None, Some(Local::Strict), Some(Local::Lenient)]);
    prop_oneof![
        // What it does to policies is done here.
        24 => world_step().prop_filter_map("policies", |step| {
            (!matches!(step, WorldStep::Policy(_))).then_some(Step::World(step))
        }),
        4 => cluster.prop_map(Step::Cluster),
        4 => local.prop_map(Step::Local),
        6 => (0..2_usize).prop_map(Step::Tell),
        2 => (0..2_usize).prop_map(Step::Ends),
        3 => (0..2_usize).prop_map(Step::Returns),
    ]
}

/// One kind's watch.
#[derive(Default)]
struct Watch {
    untold: VecDeque<(Timestamp, Seen)>,
    is_broken: bool,
}

struct Views {
    world: World,
    when: OrphanWhen,
    grace: Duration,
    /// What was in force, each since when.
    truth: Vec<(Timestamp, Seen)>,
    watches: [Watch; 2],
    shown: Seen,
    certainty: Certainty,
    confidence: Confidence,
    /// When all was last certain.
    was_certain: Timestamp,
    history: GoverningHistory,
    /// What is on the disk of it.
    remembered: BTreeMap<Identity, PolicyRef>,
    /// Which policy last governed each archive, and when.
    governed: BTreeMap<FileName, (PolicyRef, Timestamp)>,
    /// The life of the namespace in which each policy there was created, by its number.
    life_of_local: Vec<usize>,
}

impl Views {
    fn new(when: OrphanWhen, grace: Duration, env: &'static str) -> Self {
        let world = World::new(when, grace, env, true);
        let now = world.node.now;
        let first = Seen { cluster: Cluster::Lenient, local: None };
        let mut views = Self {
            world,
            when,
            grace,
            truth: vec![(Timestamp::MIN, first)],
            watches: Default::default(),
            shown: first,
            certainty: Certainty::new(HOUR),
            confidence: Confidence::Paused,
            was_certain: now,
            history: GoverningHistory::default(),
            remembered: BTreeMap::new(),
            governed: BTreeMap::new(),
            life_of_local: Vec::new(),
        };
        views.go_by(first);
        views.world.node.ask();
        views
    }

    fn now(&self) -> Timestamp {
        self.world.node.now
    }

    fn in_force(&self) -> Seen {
        self.truth.last().unwrap().1
    }

    fn write(&mut self, next: Seen) {
        let now = self.now();
        let before = self.in_force();
        self.truth.push((now, next));
        for (kind, is_news) in [(0, next.cluster != before.cluster), (1, next.local != before.local)] {
            if is_news {
                self.watches[kind].untold.push_back((now, next));
            }
        }
    }

    /// A policy in a namespace goes with it.
    fn follow_namespace(&mut self) {
        let next = Seen { local: None, ..self.in_force() };
        let was_made_in = self.in_force().local.map(|(_, number)| self.life_of_local[number as usize]);
        let is_there = self.world.is_there() && was_made_in == Some(self.world.lives.len() - 1);
        if was_made_in.is_some() && !is_there {
            self.write(next);
        }
    }

    fn do_one(&mut self, step: &Step) {
        match *step {
            Step::World(WorldStep::Wait(minutes)) => {
                // So that watches that are alive tell what is old by then.
                (0..8).for_each(|_| self.pass(TICK));
                self.world.node.later(Duration::from_mins(minutes.into()));
            }
            Step::World(WorldStep::Restart) => self.restart(),
            Step::World(WorldStep::OtherCluster) => {
                self.world.do_one(&WorldStep::OtherCluster);
                self.follow_namespace();
                self.restart();
            }
            Step::World(ref step) => {
                self.world.do_one(step);
                self.follow_namespace();
            }
            Step::Cluster(cluster) => self.write(Seen { cluster, ..self.in_force() }),
            Step::Local(None) => self.write(Seen { local: None, ..self.in_force() }),
            Step::Local(Some(local)) if self.world.is_there() => {
                let number = if let Some((_, number)) = self.in_force().local {
                    number
                } else {
                    self.life_of_local.push(self.world.lives.len() - 1);
                    u32::try_from(self.life_of_local.len()).unwrap() - 1
                };
                self.write(Seen { local: Some((local, number)), ..self.in_force() });
            }
            Step::Tell(kind) if !self.watches[kind].is_broken => self.tell(kind),
            Step::Ends(kind) => self.watches[kind].is_broken = true,
            Step::Returns(kind) if self.watches[kind].is_broken => {
                // It lists everything anew.
                self.watches[kind].is_broken = false;
                while !self.watches[kind].untold.is_empty() {
                    self.tell(kind);
                }
            }
            Step::Local(Some(_)) | Step::Tell(_) | Step::Returns(_) => {}
        }
        self.judge();
    }

    fn restart(&mut self) {
        self.world.do_one(&WorldStep::Restart);
        self.watches = Default::default();
        self.certainty = Certainty::new(HOUR);
        self.history = GoverningHistory::new(self.remembered.clone());
        // Every policy is news to it.
        self.shown.local = None;
        self.go_by(self.in_force());
    }

    /// Time passes, and what watches that are alive have to tell becomes old.
    fn pass(&mut self, length: Duration) {
        self.world.node.later(length);
        let late = self.now().checked_sub(LATE).unwrap();
        for kind in [0, 1] {
            let is_late = |views: &Self| {
                let watch = &views.watches[kind];
                !watch.is_broken && watch.untold.front().is_some_and(|(at, _)| *at <= late)
            };
            while is_late(self) {
                self.tell(kind);
            }
        }
        self.judge();
    }

    fn tell(&mut self, kind: usize) {
        let Some((_, seen)) = self.watches[kind].untold.pop_front() else { return };
        let next = match kind {
            0 => Seen { cluster: seen.cluster, ..self.shown },
            _ => Seen { local: seen.local, ..self.shown },
        };
        self.go_by(next);
    }

    /// Goes by these policies from now on.
    fn go_by(&mut self, next: Seen) {
        let number = |seen: Seen| seen.local.map(|(_, number)| number);
        if next.local.is_some() && number(next) != number(self.shown) {
            self.world.node.pod_index.invalidate_namespace("shop");
        }
        self.shown = next;
        self.world.node.policies = next.policies(self.when, self.grace);
        if next.cluster == Cluster::StrictButProduction {
            let now = self.now();
            self.world.selecting_since.get_or_insert(now);
        } else {
            self.world.selecting_since = None;
            self.world.end_watch();
        }
        self.judge();
    }

    fn judge(&mut self) {
        let is_confirmed = self.watches.iter().all(|watch| !watch.is_broken);
        let uptime = self.uptime();
        let newest = Arc::new(self.shown.policies(self.when, self.grace));
        self.confidence = self.certainty.judge(&newest, is_confirmed, uptime);
        if self.confidence == Confidence::Current {
            self.was_certain = self.now();
        }
    }

    fn uptime(&self) -> Duration {
        self.now().duration_since(plan_support::now()).unsigned_abs()
    }

    /// What was in force at some time since all was last certain.
    fn were_in_force(&self) -> impl Iterator<Item = Seen> + '_ {
        let since = self.was_certain.checked_sub(LATE + TICK).unwrap();
        let ends = self.truth.iter().skip(1).map(|(at, _)| *at).chain([Timestamp::MAX]);
        self.truth.iter().zip(ends).filter(move |(_, end)| *end >= since).map(|((_, seen), _)| *seen)
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let mut snapshot = self.world.node.look().snapshot();
        let unfilled = snapshot.clone();
        self.history.fill(&mut snapshot, self.uptime());
        let (policies, now) = (&self.world.node.policies, self.world.node.now);
        let plan = plan_with(&snapshot, policies, &self.confidence, now);
        let changes = self.history.note(&snapshot, &plan, self.uptime());
        changes.forget.iter().for_each(|identity| _ = self.remembered.remove(identity));
        self.remembered.extend(changes.remember);
        self.world.check_plan(&snapshot, &plan, self.when, self.grace)?;
        let mut by_others: Vec<Plan> = Vec::new();
        if plan.deletions().next().is_some() {
            by_others.extend(self.were_in_force().map(|seen| self.plan_by(&unfilled, seen)));
        }
        for (place, (archive, verdict)) in snapshot.archives.iter().zip(&plan.verdicts).enumerate() {
            if verdict.action() == Action::Delete {
                self.check_deletion(archive, verdict.reason, verdict.policy.as_ref().unwrap())?;
                let wanted = by_others.iter().any(|plan| plan.verdicts[place].action() == Action::Delete);
                prop_assert!(
                    wanted,
                    "{:?} wanted it gone: {archive:?}",
                    self.were_in_force().collect::<Vec<_>>()
                );
            }
            if let Governed::By(policy) = &plan.governed[place] {
                self.governed.insert(archive.file.clone(), ((**policy).clone(), self.now()));
            }
        }
        Ok(())
    }

    fn plan_by(&self, snapshot: &Snapshot, seen: Seen) -> Plan {
        plan(snapshot, &seen.policies(self.when, self.grace), self.now())
    }

    fn check_deletion(
        &self,
        archive: &Archive,
        reason: Reason,
        policy: &PolicyRef,
    ) -> Result<(), TestCaseError> {
        prop_assert!(matches!(reason, Reason::Orphaned | Reason::MaxAge), "{reason}");
        prop_assert_eq!(self.world.node.clock, Clock::Trusted);
        // The newest by its name stays.
        if reason == Reason::MaxAge {
            let pod = &archive.identity.as_ref().unwrap().pod;
            let of_pod = self.world.node.archives.iter();
            let of_pod = of_pod.filter(|other| other.identity.as_ref().unwrap().pod == *pod);
            let newest = of_pod.map(|other| other.taken).max().unwrap();
            prop_assert!(archive.taken < newest, "{archive:?}");
        }
        // A policy in the namespace governs only what is from the namespace in which it was created.
        if policy.namespace.is_some() {
            let (_, number) = self.shown.local.unwrap();
            let (life, from) = (self.life_of_local[number as usize], self.world.life_of[&archive.file]);
            prop_assert_eq!(life, from, "{:?}", archive);
        }
        // Where another policy governed it, which is gone or does not select it any more, it has waited.
        if let Some((before, last)) = self.governed.get(&archive.file).filter(|(before, _)| before != policy)
        {
            // One that is there and selects it still was outranked by a new one, which acts at once.
            let stays = |other: &Policy| {
                let selector = &other.selector.namespace_labels;
                let selects =
                    archive.namespace_labels.as_ref().is_some_and(|labels| selector.matches(labels));
                other.id == *before && (selector.0.is_empty() || selects)
            };
            let is_outranked = self.world.node.policies.retention.iter().any(stays);
            let waited = self.now().duration_since(*last).unsigned_abs();
            prop_assert!(is_outranked || waited >= HANDOVER, "{before} until {waited:?} ago: {archive:?}");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(tries(500))]

    #[test]
    fn however_its_views_of_the_cluster_fail_and_lag_nothing_goes_that_no_policy_in_force_wants_gone(
        steps in vec(step(), 1..120),
        when in select(vec![OrphanWhen::PodDeleted, OrphanWhen::WorkloadDeleted, OrphanWhen::NamespaceDeleted]),
        grace in select(vec![Duration::ZERO, HOUR]),
        env in select(LABELS.to_vec()),
    ) {
        let mut views = Views::new(when, grace, env);
        for step in &steps {
            views.do_one(step);
            views.check()?;
            views.pass(TICK);
            views.check()?;
        }
    }
}

/// The property above is about something: all that it forbids can come about.
#[test]
fn what_a_policy_in_force_wants_gone_goes_in_the_end() {
    for local in [None, Some(Local::Strict)] {
        let mut views = Views::new(OrphanWhen::PodDeleted, Duration::ZERO, "dev");
        views.do_one(&Step::World(WorldStep::Take(0)));
        views.do_one(&Step::Cluster(Cluster::StrictButProduction));
        views.do_one(&Step::Local(local));
        let mut deleted = 0;
        for _ in 0..40 {
            views.do_one(&Step::World(WorldStep::Wait(60)));
            views.do_one(&Step::World(WorldStep::Ask));
            views.check().unwrap();
            let mut snapshot = views.world.node.look().snapshot();
            views.history.fill(&mut snapshot, views.uptime());
            let plan = plan_with(&snapshot, &views.world.node.policies, &views.confidence, views.now());
            deleted = plan.deletions().count();
        }
        assert_eq!(deleted, 1, "{local:?}");
    }
}

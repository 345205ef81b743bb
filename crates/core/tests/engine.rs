//! Whatever happens to the engine in whatever order: what it must never want, and where it ends.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::io;
use std::time::Duration;

use checkpoint_keeper_core::archive::{Contents, State};
use checkpoint_keeper_core::engine::clock::Now;
use checkpoint_keeper_core::engine::cluster::{ClusterUpdate, Resolved, TimedUpdate};
use checkpoint_keeper_core::engine::config::EngineConfig;
use checkpoint_keeper_core::engine::file::{
    Deletion, Listing, Looked, Outcome, ReadArchive, Removal, Sighting, Stat,
};
use checkpoint_keeper_core::engine::memory::Memory;
use checkpoint_keeper_core::engine::{
    ClusterSettings, Effect, Engine, Haste, Input, NodePods, Settings, View,
};
use checkpoint_keeper_core::identity::Identity;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::{Action, FileSystem, Release, plan};
use checkpoint_keeper_core::pods::{LivePod, Lookup, LookupResult, RequestBudget};
use checkpoint_keeper_core::policy::{
    Kind, LabelSelector, Labels, Limit, Mode, Operator, OrphanRule, OrphanWhen, Policy, PolicyRef, PolicySet,
    Precedence, Requirement, Retention, Selector,
};
use proptest::collection::vec;
use proptest::prelude::*;

const SETTLE: Duration = Duration::from_secs(5);
const CONTAINERS: u8 = 2;
const SECONDS: u8 = 8;

/// Whether the engine is told of a change at once, or learns of it by the next sweep.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Notice {
    Given,
    Lost,
}

/// Whether notices get lost, deletions fail, and the directory is moved away.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Luck {
    Good,
    Bad,
}

/// What may happen next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// The directory is where it should be, and looked at.
    Sweep,
    /// It was moved away.
    Away,
    Tick,
    Pass(u64),
    /// So many of the effects are carried out.
    CarryOut(usize),
    /// One of the deletions in flight ends; or the system refuses it.
    Finish(usize, bool),
    Answer(Answer),
    /// Which of the configurations.
    Configure(usize, Haste),
    Put(u8, Notice),
    Remove(u8, Notice),
    TogglePin(u8, Notice),
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Right,
    Twice,
    /// None of the lookups has one.
    Lost,
    Failed,
}

fn step() -> impl Strategy<Value = Step> {
    let notice = || prop_oneof![Just(Notice::Given), Just(Notice::Lost)];
    let haste = prop_oneof![Just(Haste::AtOnce), Just(Haste::NextPlan)];
    let file = || 0..CONTAINERS * SECONDS;
    let answer =
        prop_oneof![Just(Answer::Right), Just(Answer::Twice), Just(Answer::Lost), Just(Answer::Failed)];
    prop_oneof![
        2 => Just(Step::Sweep),
        1 => Just(Step::Away),
        3 => Just(Step::Tick),
        1 => (0_u64..8).prop_map(Step::Pass),
        6 => (1_usize..6).prop_map(Step::CarryOut),
        3 => (0_usize..4, prop::bool::weighted(0.1)).prop_map(|(which, fails)| Step::Finish(which, fails)),
        2 => answer.prop_map(Step::Answer),
        2 => (0_usize..5, haste).prop_map(|(which, haste)| Step::Configure(which, haste)),
        3 => (file(), notice()).prop_map(|(file, notice)| Step::Put(file, notice)),
        1 => (file(), notice()).prop_map(|(file, notice)| Step::Remove(file, notice)),
        2 => (file(), notice()).prop_map(|(file, notice)| Step::TogglePin(file, notice)),
    ]
}

/// One configuration of each kind: none, two limits, whole containers, and orphans.
fn config(which: usize) -> EngineConfig {
    let mut policies = match which {
        0 => PolicySet::default(),
        1 => policy(Some(3), None),
        2 => policy(Some(1), None),
        3 => policy(Some(2), Some(OrphanRule { when: OrphanWhen::PodDeleted, grace: Duration::ZERO })),
        _ => policy(None, Some(OrphanRule { when: OrphanWhen::PodDeleted, grace: Duration::ZERO })),
    };
    // Each configuration is another generation of the same policy.
    let generation = |policy: &Policy| (policy.id.clone(), i64::try_from(which).unwrap());
    policies.generations = policies.retention.iter().map(generation).collect();
    EngineConfig::policies(policies)
}

fn policy(max_count: Option<u64>, orphans: Option<OrphanRule>) -> PolicySet {
    let id = PolicyRef {
        kind: Kind::ClusterCheckpointPolicy,
        namespace: None,
        name: "default".to_owned(),
        part: None,
    };
    let retention =
        Retention { per_container: Limit { max_count, max_total_size: None }, ..Retention::default() };
    let policy = Policy {
        id,
        created: None,
        namespace: None,
        mode: Mode::Enforce,
        selector: Selector::default(),
        retention,
        orphans,
        incomplete_grace: None,
        damaged_grace: None,
        precedence: Precedence::Default,
    };
    PolicySet { retention: vec![policy], ..PolicySet::default() }
}

fn file_name(file: u8) -> FileName {
    let (container, second) = (file % CONTAINERS, file / CONTAINERS);
    FileName::new(format!("checkpoint-web-{container}_team-app-2026-01-01T06:00:{second:02}Z.tar").as_bytes())
        .unwrap()
}

fn contents(name: &FileName) -> Contents {
    let pod = name.to_string()["checkpoint-".len()..][..5].to_owned();
    Contents {
        state: State::Complete,
        problem: None,
        identity: Some(Identity {
            namespace: "team".to_owned(),
            pod,
            pod_uid: None,
            container: "app".to_owned(),
        }),
        checkpointed_at: name.checkpoint_time(),
        runtime: None,
        image: None,
    }
}

/// A directory with whoever carries out what the engine wants.
struct World {
    engine: Engine,
    now: Now,
    files: BTreeMap<FileName, Stat>,
    pins: BTreeSet<FileName>,
    inodes: u64,
    effects: VecDeque<Effect>,
    /// What is being deleted, and whether that was withdrawn before it began.
    in_flight: Vec<(Deletion, bool)>,
    /// What is asked, round by round: one that is answered twice may overtake the next.
    lookups: VecDeque<Vec<Lookup>>,
    /// What the engine was told of pins last.
    told_pinned: HashSet<FileName>,
    config: Option<EngineConfig>,
    view: Option<std::sync::Arc<View>>,
    is_pod_gone: bool,
    is_away: bool,
    /// Whether the engine was told of everything, and each deletion ended as it should.
    is_well_told: bool,
    luck: Luck,
}

impl World {
    fn new(is_pod_gone: bool, luck: Luck) -> Self {
        let cluster =
            ClusterSettings { budget: RequestBudget::EVERYTHING, node_pods: NodePods::Unknown, eager: false };
        let settings = Settings { settle: SETTLE, cluster: Some(cluster), ..Settings::default() };
        let now = Now { wall: "2026-06-01T00:00:00Z".parse().unwrap(), uptime: Duration::from_secs(1_000) };
        Self {
            engine: Engine::new(settings, Memory::default()),
            now,
            files: BTreeMap::new(),
            pins: BTreeSet::new(),
            inodes: 0,
            effects: VecDeque::new(),
            in_flight: Vec::new(),
            lookups: VecDeque::new(),
            told_pinned: HashSet::new(),
            config: None,
            view: None,
            is_pod_gone,
            is_away: false,
            is_well_told: true,
            luck,
        }
    }

    fn pass(&mut self, length: Duration) {
        self.now = Now { wall: self.now.wall + length, uptime: self.now.uptime + length };
    }

    fn input(&mut self, input: Input) {
        match &input {
            Input::Listed(Ok(listing)) => self.told_pinned.clone_from(&listing.pinned),
            Input::Looked(files) => files.iter().for_each(|looked| self.hear_of_pin(looked)),
            Input::Sweep => self.is_away = false,
            Input::DirectoryAway => (self.is_away, self.is_well_told) = (true, false),
            Input::Config(config, _) => self.config = Some(config.clone()),
            _ => {}
        }
        let effects = self.engine.handle(input, self.now);
        for effect in effects {
            match &effect {
                Effect::Publish(view) => {
                    self.check_being_deleted(view);
                    self.view = Some(view.clone());
                }
                Effect::Unlink(deletion) => self.check(deletion),
                _ => {}
            }
            self.effects.push_back(effect);
        }
    }

    fn hear_of_pin(&mut self, looked: &Looked) {
        let (Looked::Marker { archive: name, is_pinned } | Looked::Archive { name, is_pinned, .. }) = looked;
        if *is_pinned {
            self.told_pinned.insert(name.clone());
        } else {
            self.told_pinned.remove(name);
        }
    }

    /// What must hold of each deletion at the moment at which it is wanted.
    fn check(&self, deletion: &Deletion) {
        let name = &deletion.archive.file;
        assert!(!self.is_away, "{name} is deleted in a directory that was moved away");
        let newest = &self.config.as_ref().expect("nothing is deleted without a configuration").policies;
        let view = self.view.as_ref().expect("nothing is deleted without a plan");
        assert_eq!(&view.policies, newest, "{name} is deleted by former policies");
        let place = view.snapshot.archives.iter().position(|archive| archive.file == *name);
        let verdicts = plan(&view.snapshot, newest, self.now.wall).verdicts;
        assert_eq!(verdicts[place.unwrap()].action(), Action::Delete, "{name}");
        assert!(!self.told_pinned.contains(name), "{name} is pinned");
        let generation = deletion.verdict.policy.as_deref().and_then(|policy| newest.generation(policy));
        assert_eq!(deletion.policy_generation, generation, "{name} is deleted by a former generation");
        for other in self.under_way() {
            let is_same = other.archive.file == *name && other.stat.is_same(&deletion.stat);
            assert!(!is_same, "{name} is being deleted already");
        }
    }

    /// The deletions that the engine has begun, and of which it knows no outcome.
    fn under_way(&self) -> impl Iterator<Item = &Deletion> {
        let waiting = self.effects.iter().filter_map(|effect| match effect {
            Effect::Unlink(deletion) => Some(deletion),
            _ => None,
        });
        self.in_flight.iter().map(|(deletion, _)| deletion).chain(waiting)
    }

    /// What must hold of each plan: what is being deleted is what has begun, as long as it is known to lie there.
    fn check_being_deleted(&self, view: &View) {
        let is_known = |deletion: &&Deletion| {
            let known = self.engine.index().get(&deletion.archive.file);
            known.is_some_and(|known| known.stat.is_same(&deletion.stat))
        };
        let begun = self.under_way().filter(is_known).map(|deletion| deletion.archive.file.clone());
        assert_eq!(view.snapshot.being_deleted, begun.collect::<BTreeSet<_>>());
        for archive in &view.snapshot.archives {
            assert!(!view.snapshot.being_deleted.contains(&archive.file), "{} is seen twice", archive.file);
        }
    }

    fn look(&self, name: &FileName, sighting: Sighting) -> Looked {
        let (stat, is_pinned) = (Ok(self.files.get(name).copied()), self.pins.contains(name));
        Looked::Archive { name: name.clone(), sighting, stat, is_pinned }
    }

    fn carry_out(&mut self, effect: Effect) {
        let input = match effect {
            Effect::List => {
                let files = self.files.iter().map(|(name, stat)| (name.clone(), *stat)).collect();
                let pinned =
                    self.pins.iter().filter(|name| self.files.contains_key(*name)).cloned().collect();
                Input::Listed(Ok(Listing { files, pinned, ..Listing::default() }))
            }
            Effect::Look(names) => {
                Input::Looked(names.iter().map(|name| self.look(name, Sighting::Again)).collect())
            }
            Effect::Stat(names) => {
                let stat = |name: FileName| (name.clone(), Ok(self.files.get(&name).copied()));
                Input::Stats(names.into_iter().map(stat).collect())
            }
            Effect::Read(archives) => {
                let read = |(name, stat): (FileName, Stat)| {
                    let is_there = self.files.get(&name).is_some_and(|there| there.is_same(&stat));
                    let contents = Ok(is_there.then(|| contents(&name)));
                    ReadArchive { name, stat, contents }
                };
                Input::Read(archives.into_iter().map(read).collect())
            }
            Effect::MeasureFileSystem => Input::FileSystem(Ok(FileSystem {
                total_bytes: 1 << 40,
                available_bytes: 1 << 39,
                total_inodes: 0,
                available_inodes: 0,
                release: Release::Shown,
            })),
            Effect::Unlink(deletion) => {
                self.in_flight.push((deletion, false));
                return;
            }
            Effect::Withdraw => {
                // The first has begun.
                self.in_flight.iter_mut().skip(1).for_each(|(_, is_withdrawn)| *is_withdrawn = true);
                return;
            }
            Effect::LookUp(lookups) => {
                self.lookups.push_back(lookups);
                return;
            }
            _ => return,
        };
        self.input(input);
    }

    fn finish(&mut self, which: usize, fails: bool) {
        if self.in_flight.is_empty() {
            return;
        }
        let (deletion, is_withdrawn) = self.in_flight.remove(which % self.in_flight.len());
        let name = &deletion.archive.file;
        let removal = match self.files.get(name) {
            _ if is_withdrawn => Removal::Withdrawn,
            None => Removal::AlreadyGone,
            Some(there) if !there.is_same(&deletion.stat) => Removal::Changed,
            Some(_) if self.pins.contains(name) => Removal::Pinned,
            Some(_) if fails => Removal::Failed(io::ErrorKind::PermissionDenied.into()),
            Some(_) => {
                self.files.remove(name);
                Removal::Removed
            }
        };
        self.is_well_told &= matches!(removal, Removal::Removed | Removal::Withdrawn | Removal::AlreadyGone);
        self.input(Input::Deleted(Outcome { deletion, removal }));
    }

    fn answer(&mut self, how: Answer) {
        let Some(lookups) = self.lookups.pop_front() else { return };
        let answer = |lookup: Lookup| {
            let result = match &lookup {
                _ if matches!(how, Answer::Failed) => LookupResult::Failed("refused".to_owned()),
                Lookup::Cluster => LookupResult::Cluster("one".to_owned()),
                Lookup::Namespace(_) => LookupResult::Namespace {
                    labels: BTreeMap::new(),
                    created: "2025-01-01T00:00:00Z".parse().unwrap(),
                },
                _ if self.is_pod_gone => LookupResult::NotFound,
                _ => LookupResult::Failed("nobody knows".to_owned()),
            };
            Resolved { lookup, result, at: self.now, server_time: Some(self.now.wall) }
        };
        let answers: Vec<_> = lookups.into_iter().map(answer).collect();
        match how {
            Answer::Lost => self.input(Input::Resolved(Vec::new())),
            Answer::Twice => {
                self.input(Input::Resolved(answers.clone()));
                self.input(Input::Resolved(answers));
            }
            Answer::Right | Answer::Failed => self.input(Input::Resolved(answers)),
        }
    }

    fn notice(&mut self, looked: Looked, notice: Notice) {
        let is_given = notice == Notice::Given || self.luck == Luck::Good;
        self.is_well_told &= is_given;
        if is_given {
            self.input(Input::Looked(vec![looked]));
        }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Sweep => self.input(Input::Sweep),
            Step::Away if self.luck == Luck::Good => {}
            Step::Away => self.input(Input::DirectoryAway),
            Step::Tick => self.input(Input::Tick),
            Step::Pass(seconds) => self.pass(Duration::from_secs(seconds)),
            Step::CarryOut(count) => {
                for _ in 0..count {
                    let Some(effect) = self.effects.pop_front() else { return };
                    self.carry_out(effect);
                }
            }
            Step::Finish(which, fails) => self.finish(which, fails && self.luck == Luck::Bad),
            Step::Answer(how) => self.answer(how),
            Step::Configure(which, haste) => self.input(Input::Config(config(which), haste)),
            Step::Put(file, notice) => {
                self.inodes += 1;
                let time = (1_767_247_200 + i64::try_from(self.inodes).unwrap(), 0);
                let stat = Stat {
                    device: 1,
                    inode: self.inodes,
                    size: 1_024,
                    modified: time,
                    changed: time,
                    allocated: 1_024,
                };
                self.files.insert(file_name(file), stat);
                let looked = self.look(&file_name(file), Sighting::Closed);
                self.notice(looked, notice);
            }
            Step::Remove(file, notice) => {
                self.files.remove(&file_name(file));
                let looked = self.look(&file_name(file), Sighting::Closed);
                self.notice(looked, notice);
            }
            Step::TogglePin(file, notice) => {
                let name = file_name(file);
                if !self.pins.remove(&name) {
                    self.pins.insert(name.clone());
                }
                let is_pinned = self.pins.contains(&name);
                self.notice(Looked::Marker { archive: name, is_pinned }, notice);
            }
        }
    }

    /// Everything that is under way comes to its end.
    fn come_to_rest(&mut self) {
        for _ in 0..10_000 {
            if let Some(effect) = self.effects.pop_front() {
                self.carry_out(effect);
                continue;
            }
            self.input(Input::Tick);
            if !self.effects.is_empty() {
                continue;
            }
            if !self.in_flight.is_empty() {
                self.finish(0, false);
            } else if !self.lookups.is_empty() {
                self.answer(Answer::Right);
            } else {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Of what the last plan saw, all that was to go is gone, and nothing else.
    fn check_end(&self, config_of_the_end: usize) {
        let view = self.view.as_ref().unwrap();
        let policies = config(config_of_the_end).policies;
        assert_eq!(view.policies, policies);
        let verdicts = plan(&view.snapshot, &policies, self.now.wall).verdicts;
        let planned = view.snapshot.archives.iter().zip(&verdicts);
        let kept = planned.filter(|(_, verdict)| verdict.action() != Action::Delete);
        let kept: BTreeSet<_> = kept.map(|(archive, _)| &archive.file).collect();
        assert_eq!(kept, self.files.keys().collect());
        for (name, known) in self.engine.index().iter() {
            assert_eq!(known.pinned, self.pins.contains(name), "{name}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_happens_in_whatever_order_only_what_the_newest_policies_want_gone_goes_and_all_of_that(
        steps in vec(step(), 0..120),
        is_pod_gone in any::<bool>(),
        luck in prop_oneof![Just(Luck::Good), Just(Luck::Bad)],
        last in 0_usize..5,
    ) {
        let mut world = World::new(is_pod_gone, luck);
        for file in 0..CONTAINERS * SECONDS {
            world.take(Step::Put(file, Notice::Given));
        }
        for step in steps {
            world.take(step);
        }
        // All is well from now on: it is configured, looks twice, so that what is new has settled, and once more
        // after whatever the system refused can be tried again.
        world.input(Input::Config(config(last), Haste::AtOnce));
        world.come_to_rest();
        if world.is_well_told {
            // Without any sweep that heals what was missed.
            world.check_end(last);
        }
        for _ in 0..3 {
            world.pass(Duration::from_mins(10));
            world.input(Input::Sweep);
            world.come_to_rest();
        }
        prop_assert_eq!(world.engine.wakes_in(world.now), None);
        world.check_end(last);
    }
}

/// The plan has more deletions than may be in flight. One of those that wait is removed by somebody else, which is
/// noticed, and its marker lies there still: the next file of that name is pinned.
#[test]
fn what_was_seen_to_be_gone_while_its_deletion_waited_is_not_deleted() {
    for file in 0..CONTAINERS * SECONDS {
        let mut world = World::new(true, Luck::Good);
        for file in 0..CONTAINERS * SECONDS {
            world.take(Step::Put(file, Notice::Given));
        }
        world.take(Step::Configure(3, Haste::AtOnce));
        while world.in_flight.is_empty() {
            world.take(Step::Tick);
            let before = world.effects.len();
            world.take(Step::CarryOut(1));
            if before == 0 && world.effects.is_empty() {
                world.take(Step::Answer(Answer::Right));
                world.pass(Duration::from_secs(1));
            }
        }
        while !world.effects.is_empty() {
            world.take(Step::CarryOut(1));
        }
        if world.in_flight.iter().any(|(deletion, _)| deletion.archive.file == file_name(file)) {
            continue;
        }
        world.pins.insert(file_name(file));
        world.take(Step::Remove(file, Notice::Given));
        // Whatever is wanted from here on is checked as it is wanted.
        while !world.in_flight.is_empty() {
            world.take(Step::Finish(0, false));
            world.take(Step::Tick);
            while !world.effects.is_empty() {
                world.take(Step::CarryOut(1));
            }
        }
    }
}

/// Who may label pods must not take from an overriding policy what it has selected by their labels.
#[test]
fn what_an_overriding_policy_has_once_selected_no_change_of_the_pods_labels_takes_away_from_it() {
    let labels = |state: &str| Labels::from([("investigation".to_owned(), state.to_owned())]);
    let policies = |selected: &str| {
        let mut policies = policy(None, None);
        let evidence = &mut policies.retention[0];
        evidence.precedence = Precedence::Override;
        evidence.selector.pod_labels = LabelSelector(vec![Requirement {
            key: "investigation".to_owned(),
            operator: Operator::In(vec![selected.to_owned()]),
        }]);
        let mut own = policy(Some(1), None).retention.remove(0);
        own.namespace = Some("team".to_owned());
        own.id.kind = Kind::CheckpointPolicy;
        own.id.namespace = Some("team".to_owned());
        policies.retention.push(own);
        EngineConfig::policies(policies)
    };
    let mut world = World::new(false, Luck::Good);
    for second in 0..3 {
        world.take(Step::Put(second * CONTAINERS, Notice::Given));
    }
    let pods_are = |world: &mut World, labels: Labels| {
        let (namespace, name) = ("team".to_owned(), "web-0".to_owned());
        let pod = LivePod { namespace, name, uid: None, labels: Some(labels), controller: None };
        let what = ClusterUpdate::Pods(Some(vec![pod]));
        world.input(Input::Cluster(TimedUpdate { at: world.now, what }));
        world.come_to_rest();
    };
    let ten_minutes_later = |world: &mut World| {
        for _ in 0..20 {
            world.pass(Duration::from_secs(30));
            world.take(Step::Sweep);
            world.come_to_rest();
        }
        world.files.len()
    };
    world.take(Step::Sweep);
    world.input(Input::Config(policies("open"), Haste::AtOnce));
    world.come_to_rest();
    pods_are(&mut world, labels("open"));
    assert_eq!(ten_minutes_later(&mut world), 3);
    for other in [labels("closed"), Labels::new()] {
        pods_are(&mut world, other);
        assert_eq!(ten_minutes_later(&mut world), 3);
    }
    // A change of the policy does.
    world.input(Input::Config(policies("closed"), Haste::AtOnce));
    assert_eq!(ten_minutes_later(&mut world), 1);
}

//! What the tests of this crate share.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use checkpoint_keeper_core::engine::clock::Now;
use checkpoint_keeper_core::engine::cluster::Resolved;
use checkpoint_keeper_core::engine::config::EngineConfig;
use checkpoint_keeper_core::engine::file::{Deletion, ReadArchive, Sighting};
use checkpoint_keeper_core::engine::index::Index;
use checkpoint_keeper_core::engine::problem::Problem;
use checkpoint_keeper_core::engine::{DeletionTiming, DiscardResults, Effect, Engine, Input, Settings, View};
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::FileSystem;
use checkpoint_keeper_core::policy::{
    Kind, Limit, Mode, Policy, PolicyRef, PolicySet, Precedence, Retention, Selector,
};
use checkpoint_keeper_node::catalog::Catalog;
use checkpoint_keeper_node::driver::{CatalogUse, Driver, Event};
use checkpoint_keeper_node::store::Store;
use checkpoint_keeper_testkit::ArchiveBuilder;

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn name(text: impl AsRef<[u8]>) -> FileName {
    FileName::new(text.as_ref()).unwrap()
}

/// An archive of `container` in `team/web-0`, taken at that second of a morning long ago.
pub(crate) fn archive(container: &str, second: u32) -> ArchiveBuilder {
    let (minute, second) = (second / 60, second % 60);
    ArchiveBuilder::new("team", "web-0", container).at(&format!("2026-01-01T06:{minute:02}:{second:02}Z"))
}

/// Writes it as if it had been there for long.
pub(crate) fn write_old(directory: &Path, archive: &ArchiveBuilder) -> PathBuf {
    let path = archive.write_to(directory).unwrap();
    age(&path);
    path
}

/// Makes a file look as if it had last changed long ago.
pub(crate) fn age(path: &Path) {
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    std::fs::File::options().append(true).open(path).unwrap().set_modified(long_ago).unwrap();
}

/// A policy for everything.
pub(crate) fn policy(retention: Retention) -> PolicySet {
    let id = PolicyRef {
        kind: Kind::ClusterCheckpointPolicy,
        namespace: None,
        name: "default".to_owned(),
        part: None,
    };
    let policy = Policy {
        id,
        created: None,
        namespace: None,
        mode: Mode::Enforce,
        selector: Selector::default(),
        retention,
        orphans: None,
        incomplete_grace: None,
        damaged_grace: None,
        precedence: Precedence::Default,
    };
    PolicySet { retention: vec![policy], ..PolicySet::default() }
}

pub(crate) fn per_container(max_count: u64) -> PolicySet {
    policy(Retention {
        per_container: Limit { max_count: Some(max_count), max_total_size: None },
        ..Retention::default()
    })
}

/// The names of all files in a directory.
pub(crate) fn files(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Waits until `condition` holds, and says what is wrong if it never does.
pub(crate) fn wait_until<T: std::fmt::Debug>(
    what: &str,
    observe: impl Fn() -> T,
    condition: impl Fn(&T) -> bool,
) -> T {
    let begin = Instant::now();
    loop {
        let seen = observe();
        if condition(&seen) {
            return seen;
        }
        assert!(begin.elapsed() < DEADLINE, "never came true: {what}; last seen: {seen:#?}");
        std::thread::yield_now();
    }
}

/// How long archives are left alone before they count as whole.
pub(crate) const SETTLE: Duration = Duration::from_secs(5);

/// Such settings, and a driver that deletes only when it is told to.
pub(crate) fn by_hand() -> Settings {
    Settings { settle: SETTLE, deletion_timing: DeletionTiming::WhenTold, ..Settings::default() }
}

/// A driver that a test drives by hand, at moments of its choosing.
pub(crate) struct Hand {
    pub(crate) driver: Driver,
    clock: Arc<Mutex<Now>>,
    config: EngineConfig,
    /// What was said since the last look at it.
    pub(crate) problems: Vec<String>,
    /// Deletions since the last look at it.
    pub(crate) deleted: usize,
    pub(crate) view: Option<Arc<View>>,
    pub(crate) discards: DiscardResults,
}

impl Hand {
    pub(crate) fn new(directory: &Path, settings: Settings, catalog: CatalogUse, now: Now) -> Self {
        let clock = Arc::new(Mutex::new(now));
        let read = Arc::clone(&clock);
        let store = Store::open(directory).unwrap();
        let (driver, problems) =
            Driver::with_clock(store, settings, catalog, Box::new(move || *read.lock().unwrap()));
        let mut hand = Self {
            driver,
            clock,
            config: EngineConfig::default(),
            problems: problems.iter().map(ToString::to_string).collect(),
            deleted: 0,
            view: None,
            discards: DiscardResults::new(),
        };
        hand.configure(EngineConfig::default(), now);
        hand
    }

    fn set(&mut self, now: Now) {
        *self.clock.lock().unwrap() = now;
    }

    fn work(&mut self, now: Now, work: impl FnOnce(&mut Driver, &mut dyn FnMut(Event<'_>))) -> Vec<String> {
        self.set(now);
        let before = self.problems.len();
        let Self { driver, problems, deleted, view, discards, .. } = self;
        work(driver, &mut |event| match event {
            Event::Planned(made) => *view = Some(Arc::clone(made)),
            Event::Finished(_) => *deleted += 1,
            Event::Problem(problem) => problems.push(problem.to_string()),
            Event::Catalog(problem) => problems.push(problem.to_string()),
            Event::Discards(results) => discards.clone_from(results),
            _ => {}
        });
        self.problems.split_off(before)
    }

    /// Looks at everything, with all that follows; says what is wrong.
    pub(crate) fn look(&mut self, now: Now) -> Vec<String> {
        self.work(now, |driver, report| driver.plan(report))
    }

    /// Hands something in, with all that follows; says what is wrong.
    pub(crate) fn input(&mut self, input: Input, now: Now) -> Vec<String> {
        self.work(now, |driver, report| driver.input(input, report))
    }

    /// Looks at one file.
    pub(crate) fn look_at(&mut self, file: &FileName, sighting: Sighting, now: Now) -> Vec<String> {
        let looked = self.driver.store().look(file, sighting).into_iter().collect();
        self.input(Input::Looked(looked), now)
    }

    pub(crate) fn tick(&mut self, now: Now) -> Vec<String> {
        self.input(Input::Tick, now)
    }

    pub(crate) fn learn(&mut self, answers: Vec<Resolved>, now: Now) -> Vec<String> {
        self.input(Input::Resolved(answers), now)
    }

    /// Goes by these policies from the next plan on.
    pub(crate) fn go_by(&mut self, policies: &PolicySet, now: Now) {
        let policies = Arc::new(policies.clone());
        self.configure(EngineConfig { policies, ..self.config.clone() }, now);
    }

    pub(crate) fn configure(&mut self, config: EngineConfig, now: Now) {
        self.set(now);
        self.driver.configure(config.clone());
        self.config = config;
    }

    /// Goes by these policies, and returns the plan.
    pub(crate) fn plan(&mut self, policies: &PolicySet, now: Now) -> Arc<View> {
        self.go_by(policies, now);
        self.view = None;
        let problems = self.tick(now);
        self.problems.extend(problems);
        Arc::clone(self.view.as_ref().unwrap())
    }

    /// What lies here, for a plan by what it went by before. What is wrong is among the problems.
    pub(crate) fn snapshot(&mut self, now: Now) -> Arc<View> {
        self.problems.clear();
        let policies = PolicySet::clone(&self.config.policies);
        self.plan(&policies, now)
    }

    /// Wants these files gone, whatever policies say.
    pub(crate) fn discard(&mut self, files: BTreeSet<FileName>, now: Now) -> Vec<String> {
        self.configure(EngineConfig { discard: Some(Arc::new(files)), ..self.config.clone() }, now);
        self.tick(now)
    }

    /// Carries out the last plan, and says how much that deleted.
    pub(crate) fn carry_out(&mut self, now: Now) -> usize {
        self.deleted = 0;
        let problems = self.work(now, |driver, report| driver.carry_out_plan(report));
        self.problems.extend(problems);
        self.deleted
    }

    /// Has everything remembered, and says what is wrong with that.
    pub(crate) fn flush(&mut self) -> Vec<String> {
        let now = *self.clock.lock().unwrap();
        self.work(now, |driver, report| driver.flush(report))
    }

    pub(crate) fn index(&self) -> &Index {
        self.driver.engine().index()
    }
}

/// An engine without a driver: a test hands in the inputs and carries out the deletions.
pub(crate) struct EngineOnly {
    pub(crate) engine: Engine,
    pub(crate) store: Store,
    /// What the file system shows; none: what it really does.
    pub(crate) filesystem: Option<FileSystem>,
    /// Where records are written; none: nowhere.
    pub(crate) catalog: Option<Catalog>,
}

/// What followed from an input.
#[derive(Default)]
pub(crate) struct Followed {
    /// The deletions that are to be carried out.
    pub(crate) deletions: Vec<Deletion>,
    /// The last plan.
    pub(crate) view: Option<Arc<View>>,
    pub(crate) problems: Vec<Problem>,
}

impl EngineOnly {
    /// Hands in an input, and the results of all effects but deletions.
    pub(crate) fn handle(&mut self, input: Input, now: Now) -> Followed {
        let mut followed = Followed::default();
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            for effect in self.engine.handle(input, now) {
                match effect {
                    Effect::List => inputs.push(Input::Listed(self.store.list())),
                    Effect::MeasureFileSystem => {
                        let filesystem = self.filesystem.map_or_else(|| self.store.filesystem(), Ok);
                        inputs.push(Input::FileSystem(filesystem));
                    }
                    Effect::Look(files) => {
                        let looked = files.iter().filter_map(|file| self.store.look(file, Sighting::Again));
                        inputs.push(Input::Looked(looked.collect()));
                    }
                    Effect::Read(archives) => {
                        let read = |(name, stat)| {
                            let contents = self.store.read(&name, &stat);
                            ReadArchive { name, stat, contents }
                        };
                        inputs.push(Input::Read(archives.into_iter().map(read).collect()));
                    }
                    Effect::Unlink(deletion) => followed.deletions.push(deletion),
                    Effect::Persist(changes) => {
                        if let Some(catalog) = &self.catalog {
                            catalog.update(&changes).unwrap();
                        }
                    }
                    Effect::Publish(made) => followed.view = Some(made),
                    Effect::Report(problem) => followed.problems.push(problem),
                    _ => {}
                }
            }
        }
        followed
    }
}

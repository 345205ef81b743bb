//! Driving the engine: [`Driver`] hands in what happens, and carries out the engine's effects with system calls.
//!
//! It does so once ([`Driver::plan`], then [`Driver::carry_out_plan`]), or until it is stopped ([`Driver::run`], in
//! `run`).

mod run;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use checkpoint_keeper_core::engine::clock::Now;
use checkpoint_keeper_core::engine::config::EngineConfig;
use checkpoint_keeper_core::engine::file::{Deletion, Outcome, ReadArchive, Sighting, Stat};
use checkpoint_keeper_core::engine::memory::Memory;
use checkpoint_keeper_core::engine::problem::Problem;
use checkpoint_keeper_core::engine::{
    DiscardResults, Effect, Engine, Haste, Input, Progress, Settings, View,
};
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::pods::RequestBudget;
use rustix::io::Errno;

use crate::catalog::{Catalog, CatalogProblem};
use crate::catalog_writer::CatalogWriter;
use crate::clock;
use crate::dir_watcher::DirWatcher;
use crate::reading;
use crate::resolver::{Ask, Resolver};
use crate::store::{OpenError, Store};
use crate::sweeper::Sweeper;
pub use run::RunError;

/// The most lookups in one round. A node has at most some hundred pods, and all of them are asked about
/// within a few intervals; an orphan has hours of grace.
pub const UNHURRIED: RequestBudget = RequestBudget { new: 100, again: 100, idle: 100 };

/// The same where thousands of nodes ask the same API. What of a mass deletion waits for its confirmation can
/// wait, and what may have gone unnoticed has its turn.
pub const SPARING: RequestBudget = RequestBudget { new: 100, again: 20, idle: 1 };

/// For how long effects are carried out before it is looked whether something else has happened: reading what
/// lies on a slow disk takes long.
const SLICE: Duration = Duration::from_millis(100);

/// Something that happened, to be reported.
#[derive(Debug)]
pub enum Event<'a> {
    /// A plan was made.
    Planned(&'a Arc<View>),
    /// A deletion was carried out, or was not.
    Finished(&'a Outcome),
    /// What came of the requests to discard a file has changed: this is all of it.
    Discards(&'a DiscardResults),
    /// Archives are being read.
    Reading(Progress),
    /// Something took that long.
    Timed(Operation, Duration),
    /// Something is wrong.
    Problem(&'a Problem),
    /// Something is wrong with the catalog.
    Catalog(&'a CatalogProblem),
    /// The directory is not there.
    DirectoryGone,
    /// The directory was removed, and a mount still holds it. The directory that replaced it can only be seen after
    /// mounting again.
    DirectoryDead,
    /// Another directory took its place, and collecting goes on there.
    DirectoryReplaced,
    /// The directory to which the path leads cannot be used, or it is unknown where it leads.
    DirectoryUnusable(&'a OpenError),
    /// The system gives no notice of changes: only the timer looks. It is asked again, and this said again, at each look.
    NoDirWatcher(Errno),
}

/// An operation whose duration is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Listing the directory, with a look at each file.
    Sweep,
    /// Reading a batch of archives.
    Read,
    /// Making a plan.
    Plan,
    /// Deleting one archive, where another thread does that and the archive was there until then.
    Unlink,
    /// From the first close of an archive that a plan is about to the end of the first deletion of that plan.
    CloseToUnlink,
}

/// Where a driver remembers what was learned.
#[derive(Debug)]
pub enum CatalogUse {
    /// Nowhere.
    None,
    /// It knows what the file remembers, and writes nothing.
    ReadOnly(PathBuf),
    /// In that file.
    File(PathBuf),
    /// In a catalog that is open already, and new.
    New(Catalog),
}

/// What carries out deletions.
#[derive(Debug)]
enum DeletionExecutor {
    /// The driver itself, which waits for it.
    Inline,
    Thread(Sweeper),
}

/// What carries out lookups.
enum LookupExecutor {
    /// Nothing: there is no cluster to ask.
    None,
    /// The driver itself, which waits for the answers.
    Inline(Ask),
    Thread(Resolver),
}

/// What has the system tell of changes of a directory.
type Watch = Box<dyn FnMut(&Store) -> rustix::io::Result<DirWatcher> + Send>;

/// An engine with the directory that it is about.
pub struct Driver {
    engine: Engine,
    store: Arc<Store>,
    catalog: Option<CatalogWriter>,
    deletion_executor: DeletionExecutor,
    lookup_executor: LookupExecutor,
    /// What is to be done.
    effects: VecDeque<Effect>,
    now: Box<dyn Fn() -> Now + Send>,
    /// What has the system tell of changes of the directory.
    watch_by: Watch,
    /// For how long it carries out effects before it looks whether something else has happened.
    slice: Duration,
    /// When the first of the archives was closed that no plan knows of yet.
    first_close: Option<Instant>,
    /// When the first of those was closed that the last plan knows of, until its first deletion begins.
    first_close_planned: Option<Instant>,
    /// The same, by the archive whose deletion has begun, until that ends.
    first_close_of: BTreeMap<FileName, Instant>,
}

impl Driver {
    /// Drives an engine with these settings in `store`, and says what is wrong with the catalog.
    pub fn new(store: Store, settings: Settings, catalog: CatalogUse) -> (Self, Vec<CatalogProblem>) {
        Self::with_clock(store, settings, catalog, Box::new(clock::now))
    }

    /// The same by another clock.
    pub fn with_clock(
        store: Store,
        mut settings: Settings,
        catalog: CatalogUse,
        now: Box<dyn Fn() -> Now + Send>,
    ) -> (Self, Vec<CatalogProblem>) {
        let (memory, catalog, problems) = open_catalog(catalog);
        settings.remembers = catalog.is_some();
        if settings.boot.is_empty() {
            settings.boot = clock::boot();
        }
        let driver = Self {
            engine: Engine::new(settings, memory),
            store: Arc::new(store),
            catalog,
            deletion_executor: DeletionExecutor::Inline,
            lookup_executor: LookupExecutor::None,
            effects: VecDeque::new(),
            now,
            watch_by: Box::new(DirWatcher::new),
            slice: SLICE,
            first_close: None,
            first_close_planned: None,
            first_close_of: BTreeMap::new(),
        };
        (driver, problems)
    }

    /// Has the cluster asked by this.
    pub fn ask_by(&mut self, ask: Ask) {
        self.lookup_executor = LookupExecutor::Inline(ask);
    }

    /// Carries out effects for so long before it looks whether something else has happened, but one at least.
    pub fn set_slice(&mut self, slice: Duration) {
        self.slice = slice;
    }

    /// Goes by this from now on.
    pub fn configure(&mut self, config: EngineConfig) {
        self.handle(Input::Config(config, Haste::AtOnce));
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The directory.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Looks at everything, asks what there is to ask, and plans until there is nothing left to learn. The last
    /// plan that is reported is the one that counts.
    pub fn plan(&mut self, mut report: impl FnMut(Event<'_>)) {
        self.sweep(&mut report);
        self.work(&mut report);
    }

    /// Carries out the last plan, for an engine that deletes when it is told to.
    pub fn carry_out_plan(&mut self, mut report: impl FnMut(Event<'_>)) {
        self.handle(Input::CarryOut);
        self.work(&mut report);
    }

    /// Hands something in, and does all that follows from it.
    pub fn input(&mut self, input: Input, mut report: impl FnMut(Event<'_>)) {
        self.handle(input);
        self.work(&mut report);
    }

    /// Brings the catalog up to date, unless that takes long.
    pub fn flush(&mut self, mut report: impl FnMut(Event<'_>)) {
        let last = self.engine.handle(Input::Stop, (self.now)());
        // Nothing else is begun any more.
        let effects = std::mem::take(&mut self.effects).into_iter().chain(last);
        self.effects =
            effects.filter(|effect| matches!(effect, Effect::Persist(_) | Effect::PersistAnew(_))).collect();
        self.carry_out(None, &mut report);
        let problems = self.catalog.as_ref().map(CatalogWriter::flush).unwrap_or_default();
        problems.iter().for_each(|problem| report(Event::Catalog(problem)));
    }

    /// Looks at everything.
    fn sweep(&mut self, report: &mut impl FnMut(Event<'_>)) {
        if self.catalog.as_ref().is_some_and(|catalog| !catalog.is_open()) {
            self.handle(Input::MemoryLost);
        }
        if let Some(error) = self.store.no_leases() {
            report(Event::Problem(&Problem::NoLeases(error.to_string())));
        }
        self.handle(Input::Sweep);
    }

    fn handle(&mut self, input: Input) {
        self.effects.extend(self.engine.handle(input, (self.now)()));
    }

    /// Works until there is nothing to do.
    fn work(&mut self, report: &mut impl FnMut(Event<'_>)) {
        loop {
            self.carry_out(None, report);
            self.handle(Input::Tick);
            if self.effects.is_empty() {
                return;
            }
        }
    }

    /// Carries out what is to be done, or as much of it as is done in that time.
    fn carry_out(&mut self, within: Option<Duration>, report: &mut impl FnMut(Event<'_>)) {
        let begin = Instant::now();
        while let Some(effect) = self.effects.pop_front() {
            if let Some(input) = self.do_one(effect, report) {
                self.handle(input);
            }
            if within.is_some_and(|within| begin.elapsed() >= within) {
                return;
            }
        }
    }

    /// Carries out one effect, and returns what came of it where that is known at once.
    fn do_one(&mut self, effect: Effect, report: &mut impl FnMut(Event<'_>)) -> Option<Input> {
        match effect {
            Effect::List => {
                let begin = Instant::now();
                let listing = self.store.list();
                report(Event::Timed(Operation::Sweep, begin.elapsed()));
                return Some(Input::Listed(listing));
            }
            Effect::Look(names) => {
                let looked = names.iter().filter_map(|name| self.store.look(name, Sighting::Again));
                return Some(Input::Looked(looked.collect()));
            }
            Effect::Stat(names) => {
                let stat = |name: FileName| (name.clone(), self.store.stat(&name));
                return Some(Input::Stats(names.into_iter().map(stat).collect()));
            }
            Effect::Read(archives) => {
                report(Event::Reading(self.engine.progress()));
                let begin = Instant::now();
                let read = self.read(archives);
                report(Event::Timed(Operation::Read, begin.elapsed()));
                return Some(Input::Read(read));
            }
            Effect::MeasureFileSystem => {
                let begin = Instant::now();
                let before = self.effects.len();
                self.handle(Input::FileSystem(self.store.filesystem()));
                // Where something came meanwhile, it makes none.
                if self.effects.iter().skip(before).any(|effect| matches!(effect, Effect::Publish(_))) {
                    report(Event::Timed(Operation::Plan, begin.elapsed()));
                }
            }
            Effect::RemoveMarkers(mut markers) => {
                markers.retain(|marker| self.store.remove_litter(marker));
                return Some(Input::MarkersRemoved(markers));
            }
            Effect::Unlink(deletion) => return self.delete(deletion, report),
            Effect::Withdraw => {
                if let DeletionExecutor::Thread(sweeper) = &self.deletion_executor {
                    sweeper.withdraw();
                }
            }
            Effect::LookUp(lookups) => match &mut self.lookup_executor {
                LookupExecutor::None => {}
                LookupExecutor::Inline(ask) => return Some(Input::Resolved(ask(lookups))),
                LookupExecutor::Thread(resolver) => resolver.ask(lookups),
            },
            Effect::Persist(changes) => {
                if let Some(catalog) = &self.catalog {
                    catalog.write(changes);
                }
            }
            Effect::PersistAnew(everything) => {
                if let Some(catalog) = &self.catalog {
                    catalog.reopen(everything);
                }
            }
            Effect::Publish(view) => {
                self.first_close_planned = self.first_close.take();
                report(Event::Planned(&view));
            }
            Effect::PublishDiscards(results) => report(Event::Discards(&results)),
            Effect::Report(problem) => report(Event::Problem(&problem)),
        }
        None
    }

    fn read(&self, archives: Vec<(FileName, Stat)>) -> Vec<ReadArchive> {
        let files: Vec<_> = archives.iter().map(|(name, stat)| (name, stat)).collect();
        let contents = reading::read_all(&self.store, &files);
        let read = archives.into_iter().zip(contents);
        read.map(|((name, stat), contents)| ReadArchive { name, stat, contents }).collect()
    }

    fn delete(&mut self, deletion: Deletion, report: &mut impl FnMut(Event<'_>)) -> Option<Input> {
        match &self.deletion_executor {
            DeletionExecutor::Thread(sweeper) => {
                if let Some(closed) = self.first_close_planned.take() {
                    self.first_close_of.insert(deletion.archive.file.clone(), closed);
                }
                sweeper.delete(&self.store, deletion);
                None
            }
            DeletionExecutor::Inline => {
                let removal = self.store.remove(&deletion.archive.file, &deletion.stat);
                let outcome = Outcome { deletion, removal };
                report(Event::Finished(&outcome));
                Some(Input::Deleted(outcome))
            }
        }
    }
}

fn open_catalog(catalog: CatalogUse) -> (Memory, Option<CatalogWriter>, Vec<CatalogProblem>) {
    let mut problems = Vec::new();
    let (memory, catalog, path) = match catalog {
        CatalogUse::None => return (Memory::default(), None, problems),
        CatalogUse::ReadOnly(path) => return (Catalog::peek(&path), None, problems),
        CatalogUse::New(catalog) => {
            let path = catalog.path().to_owned();
            (Memory::default(), Some(catalog), path)
        }
        CatalogUse::File(path) => match Catalog::open(&path) {
            Ok(opened) => {
                problems.extend(opened.set_aside.map(CatalogProblem::SetAside));
                (opened.memory, Some(opened.catalog), path)
            }
            Err(error) => {
                problems.push(error.into());
                (Memory::default(), None, path)
            }
        },
    };
    let writer = CatalogWriter::start(catalog, path).map_err(|error| problems.push(error.into())).ok();
    (memory, writer, problems)
}

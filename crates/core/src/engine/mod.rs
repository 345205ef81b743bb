//! The engine: all decisions of a node, without I/O. It knows the archives of one directory and what was found out
//! about the cluster, and decides which archives to delete.
//!
//! [`Engine::handle`] is its only entry: it takes an [`Input`], something that happened, and returns [`Effect`]s,
//! things to do. The caller hands in all inputs that have arrived and then [`Input::Tick`], so a burst of changes
//! leads to one plan. The engine has no clock, no file system and no client of its own, so a test can hand in any
//! inputs in any order.

mod archives;
pub mod clock;
pub mod cluster;
pub mod config;
mod dating;
mod deciding;
mod deletions;
pub mod discard;
mod dumps;
pub mod file;
pub mod index;
mod litter;
mod lookups;
pub mod memory;
mod messages;
pub mod problem;
mod remembering;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

pub use messages::{
    ClusterSettings, DeletionTiming, DiscardResults, Effect, Haste, Input, NodePods, Progress, Settings, View,
};

use self::clock::{ClockWatch, Now};
use self::config::EngineConfig;
use self::deletions::Deletions;
use self::discard::Discards;
use self::dumps::RecentDumps;
use self::index::Index;
pub use self::litter::Stray;
use self::litter::Strays;
use self::memory::{Memory, Record};
use self::problem::Problem;
use crate::deletion_limiter::DeletionLimiter;
use crate::handover::GoverningHistory;
use crate::identity::Identity;
use crate::name::FileName;
use crate::pods::PodIndex;
use crate::policy::PolicyRef;
use crate::reclaim::Reclaim;

/// Decides about the archives of one directory.
#[derive(Debug)]
pub struct Engine {
    settings: Settings,
    /// Effects that were not returned yet.
    effects: Vec<Effect>,
    /// The configuration. None until it is known: archives are then listed and read, and none is deleted.
    config: Option<EngineConfig>,
    index: Index,
    clock: ClockWatch,
    /// What is known of a cluster; none where there is none to ask.
    pod_index: Option<PodIndex>,
    /// Which policy governed each container's archives until a moment ago.
    history: GoverningHistory,
    /// How fast policies may delete; none: as fast as they want.
    limiter: Option<DeletionLimiter>,
    deletions: Deletions,
    /// Markers without an archive.
    strays: Strays,
    /// Archives of unknown identity that are wanted gone.
    discards: Discards,
    /// What was last published of them.
    published_discards: DiscardResults,
    /// What became of the watermark's rounds.
    reclaim: Reclaim,

    /// What was remembered of archives that have not been looked at yet.
    remembered: HashMap<FileName, Record>,
    /// What became of the watermark's rounds, as it is remembered.
    reclaim_remembered: Reclaim,
    /// Records of archives that are not remembered yet.
    unwritten: Vec<(FileName, Record)>,
    /// Archives that are still remembered, and gone.
    forgotten: Vec<FileName>,
    /// Which policy governs a container's archives, where that is not remembered yet.
    governing_changes: HashMap<Identity, Option<PolicyRef>>,

    /// Whether the directory is where it should be.
    is_here: bool,
    has_looked: bool,
    /// Whether something happened that may change what is decided.
    has_news: bool,
    /// Whether the file system is being measured for a plan.
    is_planning: bool,
    /// Whether the next plan begins a new round of lookups.
    is_new_round: bool,
    /// Whether the cluster is being asked.
    is_asking: bool,
    /// Whether something was asked in this round only to hear what time it is.
    has_asked_time: bool,
    /// How many more times orphans may be confirmed, where only one plan is carried out.
    confirmations_left: u32,
    /// The last plan, where deletions wait for [`Input::CarryOut`].
    last_view: Option<Arc<View>>,
    /// Whether some archive's time depends on a clock that is not trusted yet.
    has_undecided_times: bool,
    /// How many archives of each namespace arrived since the last plan; the empty name stands for those whose
    /// namespace is unknown.
    arrivals: BTreeMap<String, u64>,
    next_to_settle: NextToSettle,
    /// Dumps that ended a moment ago, whose archives may still have to be read.
    dumps: RecentDumps,
    /// Archives that have settled and are to be read.
    to_read: VecDeque<FileName>,
    /// Whether some of them are being read.
    is_reading: bool,
    progress: Progress,
}

/// When the next archive may have settled, by uptime. Cached, as computing it visits every archive.
#[derive(Debug, Clone, Copy)]
enum NextToSettle {
    /// Something changed since that was computed.
    Unknown,
    /// No archive has yet to settle.
    None,
    /// Those that may have settled are being looked at.
    Looking,
    At(Duration),
}

impl Engine {
    /// An engine that starts from what the catalog remembers.
    pub fn new(mut settings: Settings, memory: Memory) -> Self {
        let Memory { records, pods, strays, discards, cluster, governing, reclaim } = memory;
        let mut clock = ClockWatch::new();
        if settings.needs_server_clock {
            clock.need_server();
        }
        let pod_index = settings.cluster.map(|known| {
            let mut pod_index = PodIndex::new(known.node_pods != NodePods::Unknown, pods);
            pod_index.remember_cluster(cluster);
            if known.eager {
                pod_index.set_eager_lookups();
            }
            if known.node_pods == NodePods::Watched {
                pod_index.set_pods_watched();
            }
            pod_index
        });
        let limiter = settings.limiter.take();
        let reclaim = reclaim.map_or_else(Reclaim::default, |before| {
            if before.boot == settings.boot { before.reclaim } else { before.reclaim.after_reboot() }
        });
        Self {
            effects: Vec::new(),
            config: None,
            index: Index::default(),
            clock,
            pod_index,
            history: GoverningHistory::new(governing),
            limiter,
            deletions: Deletions::default(),
            strays: Strays::new(strays),
            discards: Discards::new(discards),
            published_discards: DiscardResults::new(),
            reclaim_remembered: reclaim.clone(),
            reclaim,
            remembered: records,
            unwritten: Vec::new(),
            forgotten: Vec::new(),
            governing_changes: HashMap::new(),
            is_here: true,
            has_looked: false,
            has_news: false,
            is_planning: false,
            is_new_round: false,
            is_asking: false,
            has_asked_time: false,
            confirmations_left: deciding::MOST_CONFIRMATIONS,
            last_view: None,
            has_undecided_times: false,
            arrivals: BTreeMap::new(),
            next_to_settle: NextToSettle::Unknown,
            dumps: RecentDumps::default(),
            to_read: VecDeque::new(),
            is_reading: false,
            progress: Progress::default(),
            settings,
        }
    }

    /// Takes something that happened, and returns what to do.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        match input {
            Input::Sweep => {
                self.is_here = true;
                self.effects.push(Effect::List);
            }
            Input::Listed(Ok(listing)) => self.learn_listing(listing, now),
            Input::Listed(Err(error)) => {
                self.report(Problem::List(error));
                (self.has_news, self.is_new_round) = (true, true);
            }
            Input::Looked(files) => self.learn_looks(files, now),
            Input::Stats(files) => self.learn_stats(files),
            Input::Read(archives) => self.learn_contents(archives, now),
            Input::FileSystem(filesystem) => self.plan(filesystem, now),
            Input::MarkersRemoved(markers) => markers.iter().for_each(|marker| self.strays.forget(marker)),
            Input::Deleted(outcome) => self.learn_outcome(&outcome, now),
            Input::Resolved(answers) => self.learn_answers(answers),
            Input::Dumped(end) => self.learn_dump(end, now),
            Input::Cluster(update) => self.learn_update(update),
            Input::Config(config, haste) => self.follow(config, haste),
            Input::DirectoryAway => self.is_here = false,
            Input::DirectoryReplaced => self.move_on(),
            Input::MemoryLost => self.remember_all(),
            Input::CarryOut => self.carry_out(),
            Input::Plan => self.has_news = true,
            Input::Tick => self.decide(now),
            Input::Stop => self.persist(),
        }
        std::mem::take(&mut self.effects)
    }

    /// How long until the engine needs a tick even if nothing happens; none: it needs none.
    pub fn wakes_in(&mut self, now: Now) -> Option<Duration> {
        if self.has_news && self.is_here && !self.is_reading {
            return Some(Duration::ZERO);
        }
        self.settles_in(now).filter(|_| self.is_here)
    }

    /// What is known of each archive.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// How far the reading of archives has come.
    pub fn progress(&self) -> Progress {
        self.progress
    }

    fn report(&mut self, problem: Problem) {
        self.effects.push(Effect::Report(problem));
    }

    /// Continues with the directory that replaced the old one.
    fn move_on(&mut self) {
        self.is_here = true;
        // The waiting deletions were decided for the old directory.
        self.take_back();
        self.index = Index::default();
        self.dumps = RecentDumps::default();
        self.to_read.clear();
        self.next_to_settle = NextToSettle::Unknown;
        self.has_looked = false;
        self.reclaim = Reclaim::default();
    }
}

//! What goes into the engine and what comes out of it.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::cluster::{Resolved, TimedUpdate};
use super::config::EngineConfig;
use super::discard::DiscardResult;
use super::file::{Deletion, Listing, Looked, Outcome, ReadArchive, Stat};
use super::memory::Changes;
use super::problem::Problem;
use crate::creation::DumpEnd;
use crate::deletion_limiter::DeletionLimiter;
use crate::name::FileName;
use crate::plan::{FileSystem, Plan, Snapshot};
use crate::pods::Lookup;
use crate::policy::{Confidence, PolicySet};

/// Something that happened. The engine learns of the world by these alone.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "each is handed in once, and none is kept")]
pub enum Input {
    /// It is time to look at the whole directory, which is where it should be: at the start, by a timer, or because
    /// a notice was lost.
    Sweep,
    /// The answer to [`Effect::List`].
    Listed(io::Result<Listing>),
    /// Some files were looked at: the answer to [`Effect::Look`], or because the system told of a change.
    Looked(Vec<Looked>),
    /// The answer to [`Effect::Stat`].
    Stats(Vec<(FileName, io::Result<Option<Stat>>)>),
    /// The answer to [`Effect::Read`].
    Read(Vec<ReadArchive>),
    /// The answer to [`Effect::MeasureFileSystem`].
    FileSystem(io::Result<FileSystem>),
    /// The answer to [`Effect::RemoveMarkers`]: these are gone.
    MarkersRemoved(Vec<FileName>),
    /// The answer to one [`Effect::Unlink`].
    Deleted(Outcome),
    /// The answer to [`Effect::LookUp`].
    Resolved(Vec<Resolved>),
    /// A dump that this program asked for has ended.
    Dumped(DumpEnd),
    /// A watch shows something of the cluster.
    Cluster(TimedUpdate),
    /// From now on the engine goes by this.
    Config(EngineConfig, Haste),
    /// The directory is not where it was.
    DirectoryAway,
    /// Another directory took its place.
    DirectoryReplaced,
    /// The catalog was lost, and a new one was begun.
    MemoryLost,
    /// Carry out the plan that was published last. Only for an engine that deletes [`DeletionTiming::WhenTold`].
    CarryOut,
    /// Someone wants to see a plan: one is made, although nothing changed.
    Plan,
    /// Everything that has arrived so far was handed in: time to decide.
    Tick,
    /// This is the end: have remembered what is not yet.
    Stop,
}

/// When a new configuration is acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Haste {
    /// With the next plan, whatever that is made for.
    NextPlan,
    /// At once.
    AtOnce,
}

/// When the engine deletes what a plan wants gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeletionTiming {
    /// As soon as the plan is made.
    #[default]
    AtOnce,
    /// When it is told to, and only what the last plan wanted.
    WhenTold,
}

/// Something to do for the engine. Effects are carried out in their order.
#[derive(Debug)]
pub enum Effect {
    /// List the directory.
    List,
    /// Look at these files again.
    Look(Vec<FileName>),
    /// Find out which files have these names at this moment.
    Stat(Vec<FileName>),
    /// Read these archives, each only if it is still that file.
    Read(Vec<(FileName, Stat)>),
    /// Ask the file system for its size.
    MeasureFileSystem,
    /// Remove these markers: their archives have been away for long.
    RemoveMarkers(Vec<FileName>),
    /// Delete this archive, if it still is that file. Each has an outcome.
    Unlink(Deletion),
    /// Begin none of the deletions that have not begun: they come back as withdrawn.
    Withdraw,
    /// Ask the cluster.
    LookUp(Vec<Lookup>),
    /// Keep this across restarts.
    Persist(Changes),
    /// Begin a new memory with this: all there is to remember.
    PersistAnew(Changes),
    /// A plan was made.
    Publish(Arc<View>),
    /// What came of the requests to discard a file has changed: this is all of it.
    PublishDiscards(DiscardResults),
    /// Tell the administrator.
    Report(Problem),
}

/// What came of each file that is wanted gone by its name; none while it waits.
pub type DiscardResults = BTreeMap<FileName, Option<DiscardResult>>;

/// A plan with what it was made from.
#[derive(Debug, Clone)]
pub struct View {
    /// What lay in the directory.
    pub snapshot: Snapshot,
    /// The policies.
    pub policies: Arc<PolicySet>,
    /// What becomes of each archive.
    pub plan: Plan,
    /// How certain it was that the policies are those of now.
    pub confidence: Confidence,
    /// The wall clock when it was made.
    pub made_at: Timestamp,
}

/// How far the reading of archives has come since the engine last knew them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Archives read.
    pub done: usize,
    /// Archives read or still to be read.
    pub total: usize,
}

/// What an engine is told once, when it begins.
#[derive(Debug, Default)]
pub struct Settings {
    /// How long an archive is left alone before it counts as whole.
    pub settle: Duration,
    /// Which boot of the machine this is: uptimes of two are not to be compared.
    pub boot: String,
    /// Whether there is a catalog that carries out [`Effect::Persist`].
    pub remembers: bool,
    /// When it deletes.
    pub deletion_timing: DeletionTiming,
    /// Whether the clock is trusted although files here were changed later than it shows.
    pub trusts_clock: bool,
    /// Whether the clock is compared with the API server's before it is trusted. Where there is a cluster and a policy goes
    /// by time it is in any case.
    pub needs_server_clock: bool,
    /// The time by which it plans, for a preview of another day; none: the time that it is.
    pub plan_at: Option<jiff::Timestamp>,
    /// How fast policies may delete; none: as fast as they want.
    pub limiter: Option<DeletionLimiter>,
    /// What there is of a cluster; none: there is none to ask.
    pub cluster: Option<ClusterSettings>,
}

/// How an engine learns of the cluster.
#[derive(Debug, Clone, Copy)]
pub struct ClusterSettings {
    /// How much it asks in one round.
    pub budget: crate::pods::RequestBudget,
    /// How it learns which pods run on this node.
    pub node_pods: NodePods,
    /// Whether each pod whose archive comes is asked about once, whatever the policies need now.
    pub eager: bool,
}

/// How it becomes known which pods run on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodePods {
    /// They cannot be listed, as the name of this node is unknown.
    Unknown,
    /// The API is asked.
    Asked,
    /// A watch shows them.
    Watched,
}

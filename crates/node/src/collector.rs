//! One directory under collection: look, remember, and say what is there.
//!
//! A collector looks at everything ([`Collector::look`]) or at some names
//! ([`Collector::look_at`]), and turns what it knows into a [`Snapshot`] for the plan. It deletes
//! nothing: carrying out is [`crate::sweeper`]'s part.

mod asking;
mod dating;
mod remembering;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use checkpoint_keeper_core::archive::{Contents, State};
use checkpoint_keeper_core::checkpoint_time::{CheckpointTime, Source};
use checkpoint_keeper_core::handover::GoverningHistory;
use checkpoint_keeper_core::identity::Identity;
use checkpoint_keeper_core::name::{FileName, NameKind};
use checkpoint_keeper_core::plan::{Action, Archive, Clock, Dated, Plan, Reason, Snapshot};
use checkpoint_keeper_core::pods::{PodIndex, PodKey, PodRecord};
use checkpoint_keeper_core::policy::{Labels, PolicyRef};
use checkpoint_keeper_core::reclaim::Reclaim;

use crate::catalog::Record;
use crate::catalog_writer::CatalogWriter;
use crate::clock::{self, ClockWatch, Distrust, Now};
use crate::discard::{DiscardResult, Discards};
use crate::index::{Index, Known, Read, Sighting};
use crate::litter::Strays;
use crate::problem::Problem;
use crate::reading;
use crate::store::{Stat, Store};
use crate::sweeper::{Deletion, Outcome};

/// How long the watermark looks elsewhere after the system refused to delete an archive.
const REFUSED: Duration = Duration::from_mins(10);

/// How many archives are read before it is asked whether it is time to do something else.
const BATCH: usize = 128;

/// A directory under collection.
#[derive(Debug)]
pub struct Collector {
    store: Arc<Store>,
    index: Index,
    settle: Duration,
    clock: ClockWatch,
    catalog: Option<CatalogWriter>,
    /// What the catalog remembered of archives that have not been looked at yet.
    remembered: HashMap<FileName, Record>,
    /// What the catalog remembered of their pods, for whoever asks a cluster.
    remembered_pods: BTreeMap<PodKey, PodRecord>,
    /// The cluster that said so.
    remembered_cluster: Option<String>,
    /// What is known of a cluster; none where there is none to ask.
    pod_index: Option<PodIndex>,
    /// Whether something was asked in this round only to hear what time it is.
    has_asked_time: bool,
    /// What the catalog does not have yet.
    unwritten: Vec<(FileName, Record)>,
    forgotten: Vec<FileName>,
    has_looked: bool,
    /// Markers without an archive.
    strays: Strays,
    /// What became of the watermark's rounds.
    reclaim: Reclaim,
    /// The same as the catalog has it.
    reclaim_remembered: Reclaim,
    /// Which policy governed each container's archives until a moment ago.
    history: GoverningHistory,
    /// Whether policies may change while it collects, so that what falls from one to another waits.
    follows_policies: bool,
    /// What of that the catalog does not have yet.
    governor_changes: HashMap<Identity, Option<PolicyRef>>,
    /// Whether some archive's time depends on a clock that is not trusted yet.
    has_undecided_times: bool,
    /// Which boot of the machine this is.
    boot: String,
    /// Whether the clock is trusted although files here were changed later than it shows.
    trusts_clock: bool,
    node_labels: Option<Labels>,
    /// Archives of unknown identity that are wanted gone.
    discards: Discards,
    /// How many archives of each namespace came since somebody asked; what is nobody's has no name.
    arrivals: BTreeMap<String, u64>,
    next_to_settle: NextToSettle,
    /// For how long archives are read in one go; none: until all are read.
    read_for: Option<Duration>,
    /// Whether the last go came to no end.
    is_reading: bool,
}

/// When the next archive may have settled, by the uptime; kept, as finding out takes a look at each.
#[derive(Debug, Clone, Copy)]
enum NextToSettle {
    /// Something changed since that was found out.
    Unknown,
    /// No archive has yet to settle.
    None,
    At(Duration),
}

/// How far a long look has come: archives read, of how many.
pub type Progress<'a> = &'a mut dyn FnMut(usize, usize);

impl Collector {
    /// Collects in `store`; archives count as settled when left alone for `settle`.
    pub fn new(store: Store, settle: Duration) -> Self {
        Self {
            store: Arc::new(store),
            index: Index::default(),
            settle,
            clock: ClockWatch::new(),
            catalog: None,
            remembered: HashMap::new(),
            remembered_pods: BTreeMap::new(),
            remembered_cluster: None,
            pod_index: None,
            has_asked_time: false,
            unwritten: Vec::new(),
            forgotten: Vec::new(),
            has_looked: false,
            strays: Strays::default(),
            reclaim: Reclaim::default(),
            reclaim_remembered: Reclaim::default(),
            history: GoverningHistory::default(),
            follows_policies: false,
            governor_changes: HashMap::new(),
            has_undecided_times: false,
            boot: clock::boot(),
            trusts_clock: false,
            node_labels: None,
            discards: Discards::default(),
            arrivals: BTreeMap::new(),
            next_to_settle: NextToSettle::Unknown,
            read_for: None,
            is_reading: false,
        }
    }

    /// Has archives read for so long in one go at most, if not all have been read by then. The next look at
    /// what has not settled goes on.
    pub fn read_for(&mut self, time: Duration) {
        self.read_for = Some(self.read_for.map_or(time, |before| before.min(time)));
    }

    /// Whether there are settled archives that were not read yet, for want of time: a plan would be made
    /// of a part.
    pub fn is_reading(&self) -> bool {
        self.is_reading
    }

    /// Says which labels this node has, for storage policies that select nodes.
    pub fn set_node_labels(&mut self, labels: Option<Labels>) {
        self.node_labels = labels;
    }

    /// Says which archives of unknown identity are wanted gone: each name stands for the file that has
    /// it when the name is first said.
    pub fn set_discards(&mut self, requested: &BTreeSet<FileName>) -> Vec<Problem> {
        let failures = self.discards.request(requested, |name| self.store.stat(name));
        failures.into_iter().map(|(name, error)| Problem::Look(name, error)).collect()
    }

    /// What came of each file that is wanted gone; none while it waits.
    pub fn discard_results(&self) -> impl Iterator<Item = (&FileName, Option<DiscardResult>)> {
        self.discards.results()
    }

    /// Notes what came of requests for files that are not what they were any more.
    fn answer_discards(&mut self) {
        let mut results = Vec::new();
        for (name, file) in self.discards.waiting() {
            let known = self.index.get(name).filter(|known| known.stat.is_same(file));
            let identity = known.and_then(|known| known.read.as_ref()?.identity.as_ref());
            // What is known may be older than the request.
            let result = match self.store.stat(name) {
                Ok(None) => DiscardResult::NotFound,
                Ok(Some(stat)) if !stat.is_same(file) => DiscardResult::Changed,
                Ok(Some(_)) if identity.is_some() => DiscardResult::IdentityKnown,
                Ok(Some(_)) | Err(_) => continue,
            };
            results.push((name.clone(), result));
        }
        for (name, result) in results {
            self.discards.note(&name, result);
        }
    }

    /// From here on policies may change while it collects: what falls from one to another is left alone for a
    /// while, as the former one may be created anew.
    pub fn follow_policies(&mut self) {
        self.follows_policies = true;
    }

    /// Trusts the clock although files here were changed later than it shows.
    pub fn trust_clock(&mut self) {
        self.trusts_clock = true;
    }

    /// The clock is compared with the API server's before it is trusted.
    pub fn need_server_clock(&mut self) {
        self.clock.need_server();
    }

    /// How many archives of each namespace came since the last call.
    pub fn take_arrivals(&mut self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.arrivals)
    }

    /// The directory.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Collects in another directory from now on: the one that took the old one's place.
    pub fn move_to(&mut self, store: Store) {
        self.store = Arc::new(store);
        self.index = Index::default();
        self.next_to_settle = NextToSettle::Unknown;
        self.has_looked = false;
        self.reclaim = Reclaim::default();
    }

    /// What is known of each archive.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Looks at everything: the sweep that heals whatever an event missed.
    pub fn look(&mut self, now: Now, progress: Progress<'_>) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.reopen_catalog();
        let listing = match self.store.list() {
            Ok(listing) => listing,
            Err(error) => {
                problems.push(Problem::List(error));
                return problems;
            }
        };
        let sighting = if self.has_looked { Sighting::Again } else { Sighting::First };
        let last_change = listing.files.iter().map(|(_, stat)| stat.changed_at()).max();
        if let Some(last_change) = last_change.filter(|_| !self.trusts_clock) {
            self.clock.see_last_change(last_change);
        }
        let at = (now, self.clock.judge(now));
        self.has_undecided_times |= at.1 == Clock::Suspect;
        for (name, stat) in &listing.files {
            self.index.sight(name, *stat, listing.pinned.contains(name), sighting, at);
        }
        let mut there: std::collections::HashSet<&FileName> =
            listing.files.iter().map(|(name, _)| name).collect();
        // What could not be looked at may well be there.
        there.extend(listing.failures.iter().map(|(name, _)| name));
        self.forgotten.extend(self.index.forget_others(|name| there.contains(name)));
        self.forgotten.extend(self.remembered.keys().filter(|name| !there.contains(name)).cloned());
        let stray = listing.pinned.iter().filter(|archive| !there.contains(archive)).map(FileName::marker);
        let strays = stray.chain(listing.unfinished_markers);
        // What is no file is nobody's litter.
        let strays = strays.filter_map(|marker| Some((marker.clone(), self.store.stat(&marker).ok()??)));
        self.strays.see(strays, now.uptime);
        problems.extend(self.store.no_leases().map(|error| Problem::NoLeases(error.to_string())));
        problems.extend(listing.misnamed_markers.into_iter().map(Problem::PinsNothing));
        problems.extend(listing.failures.into_iter().map(|(name, error)| Problem::Look(name, error)));
        self.index.retry_failures();
        self.recall_all(now);
        problems.extend(self.read_settled(now, progress));
        self.has_looked = true;
        if !self.is_reading {
            self.forget_what_was_remembered();
        }
        problems
    }

    /// Looks at some names, as an event asked for; says whether anything is new. The second part of
    /// each is whether a writer closed the file.
    pub fn look_at(&mut self, names: &[(FileName, bool)], now: Now) -> (bool, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut news = false;
        let at = (now, self.clock.judge(now));
        self.has_undecided_times |= at.1 == Clock::Suspect;
        for (name, whole) in names {
            let kind = name.kind();
            if matches!(kind, NameKind::Kubelet | NameKind::OtherTar) {
                // Gone again or not, somebody moves it about.
                self.strays.is_back(name);
            }
            match kind {
                NameKind::Marker { archive } => {
                    let pinned = self.store.is_pinned(&archive);
                    if let Some(known) = self.index.get_mut(&archive) {
                        news |= known.pinned != pinned;
                        known.pinned = pinned;
                    }
                }
                NameKind::Kubelet | NameKind::OtherTar => match self.store.stat(name) {
                    Ok(Some(stat)) => {
                        let sighting = if *whole { Sighting::Closed } else { Sighting::Again };
                        let pinned = self.store.is_pinned(name);
                        news |= self.index.sight(name, stat, pinned, sighting, at);
                    }
                    Ok(None) => {
                        news |= self.index.forget(name);
                        self.forgotten.push(name.clone());
                    }
                    Err(error) => problems.push(Problem::Look(name.clone(), error)),
                },
                NameKind::MarkerBeingWritten | NameKind::Other => {}
            }
        }
        if news {
            self.next_to_settle = NextToSettle::Unknown;
        }
        (news, problems)
    }

    /// Looks again at what was last seen changing; says whether anything settled.
    pub fn look_at_unsettled(&mut self, now: Now) -> (bool, Vec<Problem>) {
        if self.settles_in(now).is_none_or(|wait| !wait.is_zero()) {
            self.is_reading = false;
            return (false, Vec::new());
        }
        let waiting: Vec<(FileName, bool)> = self
            .index
            .iter()
            .filter(|(_, known)| known.read.is_none() && known.is_settled(self.settle, now))
            .map(|(name, _)| (name.clone(), false))
            .collect();
        let (changed, mut problems) = self.look_at(&waiting, now);
        problems.extend(self.read_settled(now, &mut |_, _| {}));
        (changed || !waiting.is_empty(), problems)
    }

    /// Removes markers whose archives have been away for a day while this watched, and says how many. A
    /// single look never makes one litter.
    pub fn clear_litter(&mut self) -> usize {
        let litter = self.strays.litter();
        let removed = litter.iter().filter(|marker| self.store.remove_litter(marker));
        let removed: Vec<&FileName> = removed.collect();
        removed.iter().for_each(|marker| self.strays.forget(marker));
        removed.len()
    }

    /// How long until an archive that is being written may have settled.
    pub fn settles_in(&mut self, now: Now) -> Option<Duration> {
        if matches!(self.next_to_settle, NextToSettle::Unknown) {
            let unread = self.index.iter().filter(|(_, known)| known.read.is_none());
            let next = unread.map(|(_, known)| known.settles_in(self.settle, now)).min();
            self.next_to_settle = next.map_or(NextToSettle::None, |wait| NextToSettle::At(now.uptime + wait));
        }
        match self.next_to_settle {
            NextToSettle::At(uptime) => Some(uptime.saturating_sub(now.uptime)),
            NextToSettle::Unknown | NextToSettle::None => None,
        }
    }

    /// Reads what has settled and was not read yet.
    fn read_settled(&mut self, now: Now, progress: Progress<'_>) -> Vec<Problem> {
        self.next_to_settle = NextToSettle::Unknown;
        let due: Vec<(FileName, Stat)> = self
            .index
            .iter()
            .filter(|(_, known)| known.read.is_none() && known.is_settled(self.settle, now))
            .map(|(name, known)| (name.clone(), known.stat))
            .collect();
        let begin = Instant::now();
        let mut problems = Vec::new();
        let total = due.len();
        let mut due = due.into_iter();
        self.is_reading = false;
        while due.len() > 0 {
            progress(total - due.len(), total);
            if due.len() < total && self.read_for.is_some_and(|time| begin.elapsed() >= time) {
                self.is_reading = true;
                return problems;
            }
            let batch: Vec<_> = due.by_ref().take(BATCH).collect();
            let files: Vec<_> = batch.iter().map(|(name, stat)| (name, stat)).collect();
            let contents = reading::read_all(&self.store, &files);
            for ((name, stat), contents) in batch.into_iter().zip(contents) {
                problems.extend(self.note_contents(name, stat, contents, now));
            }
        }
        progress(total, total);
        // Whatever was remembered was for the first look.
        if self.has_looked {
            self.forget_what_was_remembered();
        }
        problems
    }

    fn forget_what_was_remembered(&mut self) {
        (self.remembered, self.remembered_pods) = (HashMap::new(), BTreeMap::new());
    }

    /// Notes what came of reading an archive, and says what is wrong with it.
    fn note_contents(
        &mut self,
        name: FileName,
        stat: Stat,
        contents: io::Result<Option<Contents>>,
        now: Now,
    ) -> Option<Problem> {
        let contents = match contents {
            Ok(Some(contents)) => contents,
            // It changes without an event: the next look, when it may have settled anew, sees that.
            Ok(None) => {
                self.index.get_mut(&name)?.distrust_close(now);
                return None;
            }
            Err(error) => {
                self.index.note_failure(&name, unread(&name, &stat), &format!("cannot be read: {error}"));
                return Some(Problem::Read(name, error));
            }
        };
        // A close is anybody's. What is whole then is done; what is not may have another writer.
        if !contents.state.is_whole()
            && let Some(known) = self.index.get_mut(&name)
            && known.is_settled_by_close()
        {
            known.distrust_close(now);
            return None;
        }
        self.index.note(&name, &contents, unread(&name, &stat));
        if let Some(known) = self.index.get_mut(&name)
            && std::mem::take(&mut known.is_arrival)
        {
            let namespace = contents.identity.map(|identity| identity.namespace).unwrap_or_default();
            *self.arrivals.entry(namespace).or_default() += 1;
        }
        self.date(&name, now)
    }

    /// What lies here at this moment, for the plan.
    pub fn snapshot(&mut self, now: Now) -> (Snapshot, Vec<Problem>) {
        let mut problems = Vec::new();
        let clock = self.clock.judge(now);
        problems.extend(match self.clock.distrust(now) {
            // Why it was not heard yet is said of what was asked.
            None | Some(Distrust::ServerUnheard) => None,
            Some(Distrust::ServerDiffers) => Some(Problem::ServerClock),
            Some(Distrust::IsBehind) => Some(Problem::ClockIsBehind),
            Some(Distrust::WasSet) => Some(Problem::Clock),
        });
        self.date_undecided(now);
        let mut snapshot = Snapshot { clock, node_labels: self.node_labels.clone(), ..Snapshot::default() };
        self.answer_discards();
        let mut deleting = false;
        for (name, known) in self.index.iter() {
            if known.deleting {
                deleting = true;
            } else if !is_foreign(name, known) {
                let archive = archive(name, known, now);
                // Whose it is decides who may discard it; here is what nobody else can name. What could
                // not be read may be anybody's.
                let is_unknown =
                    known.read.as_ref().is_some_and(|read| read.identity.is_none() && !read.is_failure);
                let discarded = is_unknown && self.discards.is_wanted(name, &known.stat);
                snapshot.archives.push(Archive { discarded, ..archive });
            }
        }
        if let Some(pod_index) = &self.pod_index {
            pod_index.fill(&mut snapshot, now.wall);
        }
        if self.follows_policies {
            self.history.fill(&mut snapshot, now.uptime);
        }
        match self.store.filesystem() {
            Ok(mut filesystem) => {
                filesystem.release = self.reclaim.observe(filesystem.available_bytes, deleting, now.uptime);
                snapshot.filesystem = Some(filesystem);
                if self.reclaim.failures() > 0 {
                    problems.push(Problem::WatermarkIneffective(self.reclaim.failures()));
                }
            }
            Err(error) => problems.push(Problem::FileSystem(error)),
        }
        (snapshot, problems)
    }

    /// The deletions of a plan, each with the file that was decided about. From here on these
    /// archives count as gone, until [`Self::finish`] says otherwise.
    pub fn mark_for_deletion(&mut self, snapshot: &Snapshot, plan: &Plan) -> Vec<Deletion> {
        let mut deletions = Vec::new();
        let mut is_for_space = false;
        let decided = snapshot.archives.iter().zip(&plan.verdicts).zip(&plan.draws);
        for ((archive, verdict), draw) in decided {
            if verdict.action() != Action::Delete {
                continue;
            }
            let Some(known) = self.index.get_mut(&archive.file) else { continue };
            known.deleting = true;
            is_for_space |= verdict.reason == Reason::StorageWatermark;
            let (archive, verdict) = (archive.clone(), verdict.clone());
            deletions.push(Deletion { archive, stat: known.stat, verdict, draw: *draw });
        }
        if let Some(filesystem) = snapshot.filesystem.filter(|_| is_for_space) {
            self.reclaim.begin(filesystem.available_bytes);
        }
        deletions
    }

    /// Notes which policies govern by a plan.
    pub fn note_governing(&mut self, snapshot: &Snapshot, plan: &Plan, now: Now) {
        let changes = self.history.note(snapshot, plan, now.uptime);
        if self.catalog.is_some() {
            self.governor_changes.extend(changes.forget.into_iter().map(|identity| (identity, None)));
            let remember = changes.remember.into_iter().map(|(identity, policy)| (identity, Some(policy)));
            self.governor_changes.extend(remember);
        }
    }

    /// Notes that a deletion will not be begun: its archive is judged again by the next plan.
    pub fn take_back(&mut self, deletion: &Deletion) {
        if let Some(known) = self.index.get_mut(&deletion.archive.file)
            && known.stat.is_same(&deletion.stat)
        {
            known.deleting = false;
        }
    }

    /// Notes what became of a deletion.
    pub fn finish(&mut self, outcome: &Outcome, now: Now) {
        use crate::store::Removal;
        let name = &outcome.deletion.archive.file;
        let is_for_space = outcome.deletion.verdict.reason == Reason::StorageWatermark;
        if is_for_space {
            self.reclaim.unlinked(outcome.freed_bytes());
        }
        if matches!(outcome.removal, Removal::Removed) && outcome.deletion.verdict.reason == Reason::Discarded
        {
            self.discards.note_deletion(name, &outcome.deletion.stat);
        }
        // Another file may have taken the name since: this outcome says nothing of that one.
        if !self.index.get(name).is_some_and(|known| known.stat.is_same(&outcome.deletion.stat)) {
            return;
        }
        match &outcome.removal {
            Removal::Removed | Removal::AlreadyGone => {
                self.index.forget(name);
                self.forgotten.push(name.clone());
            }
            Removal::Pinned
            | Removal::Changed
            | Removal::InUse
            | Removal::DirectoryMoved
            | Removal::Withdrawn
            | Removal::Failed(_) => {
                if let Some(known) = self.index.get_mut(name) {
                    known.deleting = false;
                }
                if matches!(outcome.removal, Removal::Failed(_))
                    && let Some(known) = self.index.get_mut(name)
                {
                    known.failed_at = Some(now.uptime);
                }
                self.look_at(&[(name.clone(), false)], now);
            }
        }
    }
}

/// Files that only look like archives by their names are somebody else's. What the kubelet names
/// counts as an archive even if it cannot be read, and so does what is one inside.
fn is_foreign(name: &FileName, known: &Known) -> bool {
    let whole = known.read.as_ref().is_some_and(|read| read.state.is_whole());
    name.kind() != NameKind::Kubelet && !whole
}

/// When the checkpoint was taken of an archive of which nothing was read: nobody goes by it.
fn unread(name: &FileName, stat: &Stat) -> CheckpointTime {
    let at = name.checkpoint_time().unwrap_or_else(|| stat.modified_at());
    CheckpointTime { at, claimed: at, dated: Dated::Untrusted, source: Source::Modified }
}

fn archive(name: &FileName, known: &Known, now: Now) -> Archive {
    let not_read = || Read {
        state: State::Unread,
        identity: None,
        inside: None,
        taken: unread(name, &known.stat),
        runtime: None,
        problem: None,
        is_failure: false,
    };
    let read = known.read.clone().unwrap_or_else(not_read);
    Archive {
        file: name.clone(),
        identity: read.identity,
        state: read.state,
        taken: read.taken.at,
        claimed: read.taken.claimed,
        dated: read.taken.dated,
        changed: known.changed_at(now),
        size: known.stat.size,
        allocated: known.stat.allocated,
        pinned: known.pinned,
        settled: known.read.is_some(),
        discarded: false,
        undeletable: known.failed_at.is_some_and(|failed| now.uptime < failed + REFUSED),
        pod_labels: None,
        namespace_labels: None,
        workload: None,
        absences: None,
        idle_since: None,
        seen_in: None,
        governed_by: None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may")]
mod tests {
    use super::*;

    #[test]
    fn archives_are_read_several_at_once_and_not_all_in_one_go() {
        let (directory, state) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
        let containers: Vec<String> = (0..=3 * BATCH).map(|number| format!("c{number}")).collect();
        for container in &containers {
            let archive = checkpoint_keeper_testkit::ArchiveBuilder::new("team", "web-0", container);
            archive.write_to(directory.path()).unwrap();
        }
        let start = Now::read();
        let now = Now { wall: start.wall.checked_add(Duration::from_mins(1)).unwrap(), ..start };
        let open = || {
            let store = Store::open(directory.path()).unwrap();
            let mut collector = Collector::new(store, Duration::from_secs(5));
            assert!(collector.remember_in(state.path().join("catalog")).is_empty());
            collector.read_for(Duration::ZERO);
            assert_eq!(collector.look(now, &mut |_, _| {}).len(), 0);
            collector
        };
        let mut collector = open();
        let mut goes = 1;
        while collector.is_reading() {
            assert_eq!(collector.settles_in(now), Some(Duration::ZERO), "it goes on at once");
            assert!(collector.look_at_unsettled(now).0);
            goes += 1;
        }
        assert_eq!(goes, 4);
        for (name, known) in collector.index.iter() {
            let identity = known.read.as_ref().unwrap().identity.as_ref().unwrap();
            assert!(
                name.to_string().contains(&format!("team-{}-2", identity.container)),
                "{name}: {identity:?}"
            );
        }
        // What was read is remembered, also of the later goes.
        assert!(collector.write_catalog().is_empty());
        drop(collector);
        assert!(!open().is_reading());
    }

    /// A file that is rewritten over and over, or whose times are not told the same way twice.
    #[test]
    fn what_changes_while_it_is_read_is_read_again_only_when_it_may_have_settled() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("checkpoint-a.tar");
        std::fs::write(&path, "no archive").unwrap();
        let (now, settle) = (Now::read(), Duration::from_secs(5));
        let mut collector = Collector::new(Store::open(directory.path()).unwrap(), settle);
        collector.look_at(&[(FileName::new(&b"checkpoint-a.tar"[..]).unwrap(), true)], now);
        assert_eq!(collector.settles_in(now), Some(Duration::ZERO), "closed");
        std::fs::write(&path, "nor this").unwrap();
        assert_eq!(collector.read_settled(now, &mut |_, _| {}).len(), 0);
        assert_eq!(collector.settles_in(now), Some(settle));
    }

    /// Whose it is may turn out when the disk is back.
    #[test]
    fn what_the_system_refused_to_have_read_is_not_discarded() {
        let directory = tempfile::TempDir::new().unwrap();
        let name = FileName::new(&b"checkpoint-a.tar"[..]).unwrap();
        std::fs::write(directory.path().join("checkpoint-a.tar"), "no archive").unwrap();
        let start = Now::read();
        let now = Now { uptime: start.uptime + Duration::from_secs(5), ..start };
        let mut collector = Collector::new(Store::open(directory.path()).unwrap(), Duration::ZERO);
        collector.look(now, &mut |_, _| {});
        assert_eq!(collector.set_discards(&[name.clone()].into()).len(), 0);
        let discarded = |collector: &mut Collector| collector.snapshot(now).0.archives[0].discarded;
        assert!(discarded(&mut collector));
        let file = collector.store.stat(&name).unwrap().unwrap();
        collector.index.note_failure(&name, unread(&name, &file), "cannot be read: the disk is away");
        assert!(!discarded(&mut collector));
        collector.index.retry_failures();
        assert!(!discarded(&mut collector), "not read yet");
        collector.look(now, &mut |_, _| {});
        assert!(discarded(&mut collector));
    }
}

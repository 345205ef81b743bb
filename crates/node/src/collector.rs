//! One directory under collection: look, remember, and say what is there.
//!
//! A collector looks at everything ([`Collector::look`]) or at some names
//! ([`Collector::look_at`]), and turns what it knows into a [`Snapshot`] for the plan. It deletes
//! nothing: carrying out is [`crate::sweeper`]'s part.

mod asking;
mod remembering;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_core::archive::{Contents, State};
use checkpoint_keeper_core::name::{FileName, NameKind};
use checkpoint_keeper_core::owners::{Owners, PodKey, PodRecord};
use checkpoint_keeper_core::plan::{Action, Archive, Clock, Plan, Reason, Snapshot};
use checkpoint_keeper_core::policy::Labels;
use checkpoint_keeper_core::taken::{self, Claims, Taken};
use jiff::Timestamp;

use crate::catalog::{Catalog, Record};
use crate::clock::{ClockWatch, Now};
use crate::index::{Index, Known, Read, Sighting};
use crate::problem::Problem;
use crate::store::{Stat, Store};
use crate::sweeper::{Deletion, Outcome};

/// How long the file system gets to show what the watermark deleted before it is asked to free
/// more: somebody may hold a deleted archive open, or write as fast as space is freed.
const RELEASE: Duration = Duration::from_mins(5);

/// How long the watermark looks elsewhere after the system refused to delete an archive.
const REFUSED: Duration = Duration::from_mins(10);

/// A directory under collection.
#[derive(Debug)]
pub struct Collector {
    store: Arc<Store>,
    index: Index,
    settle: Duration,
    clock: ClockWatch,
    catalog_path: Option<PathBuf>,
    catalog: Option<Catalog>,
    /// What the catalog remembered of archives that have not been looked at yet.
    remembered: HashMap<FileName, Record>,
    /// What the catalog remembered of their pods, for whoever asks a cluster.
    remembered_pods: BTreeMap<PodKey, PodRecord>,
    /// What is known of a cluster; none where there is none to ask.
    owners: Option<Owners>,
    /// Whether something was asked in this round only to hear what time it is.
    has_asked_time: bool,
    /// What the catalog does not have yet.
    unwritten: Vec<(FileName, Record)>,
    forgotten: Vec<FileName>,
    has_looked: bool,
    /// Markers without an archive, at the last look at everything.
    stray_markers: Vec<FileName>,
    /// What a watermark round freed and the file system has yet to show.
    release: Option<Release>,
    node_labels: Option<Labels>,
    /// Archives of unknown identity that are wanted gone.
    discard: Arc<BTreeSet<FileName>>,
    /// Archives that came since somebody asked.
    arrivals: u64,
}

#[derive(Debug, Clone, Copy)]
struct Release {
    available_bytes: u64,
    until: Duration,
}

/// How far a long look has come: archives read, of how many.
pub type Progress<'a> = &'a mut dyn FnMut(usize, usize);

impl Collector {
    /// Collects in `store`; archives count as settled when left alone for `settle`.
    pub fn new(store: Store, settle: Duration, now: Now) -> Self {
        Self {
            store: Arc::new(store),
            index: Index::default(),
            settle,
            clock: ClockWatch::new(now),
            catalog_path: None,
            catalog: None,
            remembered: HashMap::new(),
            remembered_pods: BTreeMap::new(),
            owners: None,
            has_asked_time: false,
            unwritten: Vec::new(),
            forgotten: Vec::new(),
            has_looked: false,
            stray_markers: Vec::new(),
            release: None,
            node_labels: None,
            discard: Arc::default(),
            arrivals: 0,
        }
    }

    /// Says which labels this node has, for storage policies that select nodes.
    pub fn know_node_labels(&mut self, labels: Option<Labels>) {
        self.node_labels = labels;
    }

    /// Says which archives of unknown identity are wanted gone.
    pub fn know_discards(&mut self, discard: Arc<BTreeSet<FileName>>) {
        self.discard = discard;
    }

    /// How many archives came since the last call.
    pub fn take_arrivals(&mut self) -> u64 {
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
        self.has_looked = false;
        self.release = None;
    }

    /// What is known of each archive.
    pub fn index(&self) -> &Index {
        &self.index
    }

    /// Looks at everything: the sweep that heals whatever a ring missed.
    pub fn look(&mut self, now: Now, progress: Progress<'_>) -> Vec<Problem> {
        let mut problems = Vec::new();
        problems.extend(self.reopen_catalog());
        let listing = match self.store.list() {
            Ok(listing) => listing,
            Err(error) => {
                problems.push(Problem::List(error));
                return problems;
            }
        };
        let sighting = if self.has_looked { Sighting::Again } else { Sighting::First };
        for (name, stat) in &listing.files {
            self.index.sight(name, *stat, listing.pinned.contains(name), sighting, now);
        }
        let mut there: std::collections::HashSet<&FileName> =
            listing.files.iter().map(|(name, _)| name).collect();
        // What could not be looked at may well be there.
        there.extend(listing.failures.iter().map(|(name, _)| name));
        self.forgotten.extend(self.index.forget_others(|name| there.contains(name)));
        self.forgotten.extend(self.remembered.keys().filter(|name| !there.contains(name)).cloned());
        let stray = listing.pinned.iter().filter(|archive| !there.contains(archive)).map(FileName::marker);
        self.stray_markers = stray.chain(listing.unfinished_markers).collect();
        problems.extend(listing.failures.into_iter().map(|(name, error)| Problem::Look(name, error)));
        self.index.retry_failures();
        if self.clock.judge(now) == Clock::Trusted {
            self.index.retry_provisional();
        }
        problems.extend(self.read_settled(now, progress));
        (self.remembered, self.remembered_pods) = (HashMap::new(), BTreeMap::new());
        self.has_looked = true;
        problems
    }

    /// Looks at some names, as a ring asked for; says whether anything is new. The second part of
    /// each is whether a writer closed the file.
    pub fn look_at(&mut self, names: &[(FileName, bool)], now: Now) -> (bool, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut news = false;
        for (name, whole) in names {
            match name.kind() {
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
                        news |= self.index.sight(name, stat, pinned, sighting, now);
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
        (news, problems)
    }

    /// Looks again at what was last seen changing; says whether anything settled.
    pub fn look_at_unsettled(&mut self, now: Now) -> (bool, Vec<Problem>) {
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

    /// Removes markers whose archive is long gone, and says how many.
    pub fn clear_litter(&mut self, now: Now) -> usize {
        if self.clock.judge(now) == Clock::Suspect {
            return 0;
        }
        let stray = std::mem::take(&mut self.stray_markers);
        stray.iter().filter(|marker| self.store.remove_litter(marker, now.wall)).count()
    }

    /// How long until an archive that is being written may have settled.
    pub fn settles_in(&self, now: Now) -> Option<Duration> {
        let unread = self.index.iter().filter(|(_, known)| known.read.is_none());
        unread.map(|(_, known)| known.settles_in(self.settle, now)).min()
    }

    /// Reads what has settled and was not read yet.
    fn read_settled(&mut self, now: Now, progress: Progress<'_>) -> Vec<Problem> {
        let due: Vec<(FileName, Stat, Option<Timestamp>)> = self
            .index
            .iter()
            .filter(|(_, known)| known.read.is_none() && known.is_settled(self.settle, now))
            .map(|(name, known)| (name.clone(), known.stat, known.first_seen))
            .collect();
        let mut problems = Vec::new();
        let total = due.len();
        for (done, (name, stat, first_seen)) in due.into_iter().enumerate() {
            progress(done, total);
            if let Some(record) = self.remembered.get(&name).filter(|record| record.stat.is_same(&stat)) {
                self.index.note(&name, &record.contents, record.taken);
                if let Some(known) = self.index.get_mut(&name) {
                    known.first_seen = Some(record.first_seen);
                }
                continue;
            }
            let contents = match self.store.read(&name, &stat) {
                Ok(Some(contents)) => contents,
                // Changed since it was looked at: the next look sees that.
                Ok(None) => continue,
                Err(error) => {
                    let at = name.checkpoint_time().unwrap_or_else(|| stat.modified_at());
                    let taken = Taken { at, source: taken::Source::Modified };
                    self.index.note_failure(&name, taken, &format!("cannot be read: {error}"));
                    problems.push(Problem::Read(name, error));
                    continue;
                }
            };
            // A close is anybody's. What is whole then is done; what is not may have another writer.
            if contents.state != State::Complete
                && let Some(known) = self.index.get_mut(&name)
                && known.is_settled_by_close()
            {
                known.distrust_close(now);
                continue;
            }
            let taken = when(&name, &stat, &contents, first_seen, now.wall);
            self.index.note(&name, &contents, taken);
            if let Some(known) = self.index.get_mut(&name) {
                self.arrivals += u64::from(std::mem::take(&mut known.is_arrival));
            }
            if taken.source == taken::Source::Corrected {
                // What the future is, only a clock that is right knows. Once one says so it is for good.
                if self.clock.judge(now) == Clock::Suspect {
                    if let Some(read) = self.index.get_mut(&name).and_then(|known| known.read.as_mut()) {
                        read.is_provisional = true;
                    }
                    continue;
                }
                problems.push(Problem::Future(name.clone(), taken.at));
            }
            if self.catalog.is_some() {
                let first_seen = first_seen.unwrap_or(now.wall);
                self.unwritten.push((name, Record { stat, contents, taken, first_seen }));
            }
        }
        progress(total, total);
        problems
    }

    /// What lies here at this moment, for the plan.
    pub fn snapshot(&mut self, now: Now) -> (Snapshot, Vec<Problem>) {
        let mut problems = Vec::new();
        let clock = self.clock.judge(now);
        // Why it was not heard yet is said of what was asked.
        if clock == Clock::Suspect && !self.clock.is_unheard() {
            let strays = self.clock.strays_from_server(now);
            problems.push(if strays { Problem::ServerClock } else { Problem::Clock });
        }
        let mut snapshot = Snapshot { clock, node_labels: self.node_labels.clone(), ..Snapshot::default() };
        let mut deleting = false;
        for (name, known) in self.index.iter() {
            if known.condemned {
                deleting = true;
            } else if !is_foreign(name, known) {
                let archive = archive(name, known, now);
                // Whose it is decides who may discard it; here is what nobody else can name.
                let discarded = archive.identity.is_none() && self.discard.contains(name);
                snapshot.archives.push(Archive { discarded, ..archive });
            }
        }
        if let Some(owners) = &self.owners {
            owners.fill(&mut snapshot, now.wall);
        }
        match self.store.filesystem() {
            Ok(mut filesystem) => {
                let shown = |release: &Release| {
                    filesystem.available_bytes >= release.available_bytes || now.uptime >= release.until
                };
                self.release = self.release.filter(|release| !shown(release));
                filesystem.awaiting_release = deleting || self.release.is_some();
                snapshot.filesystem = Some(filesystem);
            }
            Err(error) => problems.push(Problem::FileSystem(error)),
        }
        (snapshot, problems)
    }

    /// The deletions of a plan, each with the file that was decided about. From here on these
    /// archives count as gone, until [`Self::finish`] says otherwise.
    pub fn condemn(&mut self, snapshot: &Snapshot, plan: &Plan, now: Now) -> Vec<Deletion> {
        let mut deletions = Vec::new();
        let mut for_space = 0_u64;
        for (archive, verdict) in snapshot.archives.iter().zip(&plan.verdicts) {
            if verdict.action() != Action::Delete {
                continue;
            }
            let Some(known) = self.index.get_mut(&archive.file) else { continue };
            known.condemned = true;
            if verdict.reason == Reason::StorageWatermark {
                for_space = for_space.saturating_add(known.stat.allocated);
            }
            deletions.push(Deletion { archive: archive.clone(), stat: known.stat, verdict: verdict.clone() });
        }
        if let (1.., Some(filesystem)) = (for_space, snapshot.filesystem) {
            // Nine tenths: metadata and other writers take their part meanwhile.
            let expected = filesystem.available_bytes.saturating_add(for_space / 10 * 9);
            self.release = Some(Release { available_bytes: expected, until: now.uptime + RELEASE });
        }
        deletions
    }

    /// Notes what became of a deletion.
    pub fn finish(&mut self, outcome: &Outcome, now: Now) {
        use crate::store::Removal;
        let name = &outcome.deletion.archive.file;
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
            | Removal::DirectoryMoved
            | Removal::Withdrawn
            | Removal::Failed(_) => {
                if let Some(known) = self.index.get_mut(name) {
                    known.condemned = false;
                }
                if matches!(outcome.removal, Removal::Failed(_) | Removal::Withdrawn) {
                    // Nothing comes back that could be waited for.
                    self.release = None;
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
    let whole = known.read.as_ref().is_some_and(|read| read.state == State::Complete);
    name.kind() != NameKind::Kubelet && !whole
}

fn when(
    name: &FileName,
    stat: &Stat,
    contents: &Contents,
    first_seen: Option<Timestamp>,
    now: Timestamp,
) -> Taken {
    let claims = Claims {
        inside: contents.checkpointed_at,
        name: name.checkpoint_time(),
        modified: stat.modified_at(),
    };
    taken::taken(claims, first_seen, now)
}

fn archive(name: &FileName, known: &Known, now: Now) -> Archive {
    let unread = || Read {
        state: State::Unreadable,
        identity: None,
        taken: Taken {
            at: name.checkpoint_time().unwrap_or_else(|| known.stat.modified_at()),
            source: taken::Source::Modified,
        },
        runtime: None,
        problem: None,
        is_failure: false,
        is_provisional: false,
    };
    let read = known.read.clone().unwrap_or_else(unread);
    Archive {
        file: name.clone(),
        identity: read.identity,
        state: read.state,
        taken: read.taken.at,
        changed: known.changed_at(now),
        size: known.stat.size,
        allocated: known.stat.allocated,
        pinned: known.pinned,
        settled: known.read.is_some(),
        discarded: false,
        undeletable: known.failed_at.is_some_and(|failed| now.uptime < failed + REFUSED),
        pod_labels: None,
        workload: None,
        absences: None,
        idle_since: None,
        seen_in: None,
    }
}

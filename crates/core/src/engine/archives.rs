//! The archives of the directory: updated from listings, single looks and reads, and handed to the plan.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::clock::Now;
use super::deciding::MOST_CONFIRMATIONS;
use super::discard::DiscardResult;
use super::file::{Listing, Looked, ReadArchive, Sighting, Stat};
use super::index::Known;
use super::problem::Problem;
use super::{Effect, Engine, NextToSettle};
use crate::archive::{Contents, State};
use crate::checkpoint_time::{CheckpointTime, Source};
use crate::name::{FileName, NameKind};
use crate::plan::{Archive, Clock, Dated, FileId, Home, Snapshot};

/// How long the watermark passes over an archive after the system refused to delete it.
const REFUSED: Duration = Duration::from_mins(10);

/// How many archives are read at a time; other inputs are handled in between.
const BATCH: usize = 128;

impl Engine {
    /// Applies a listing of the whole directory, which also shows changes for which no notification arrived.
    pub(super) fn learn_listing(&mut self, listing: Listing, now: Now) {
        let sighting = if self.has_looked { Sighting::Again } else { Sighting::First };
        let last_change = listing.files.iter().map(|(_, stat)| stat.changed_at()).max();
        if let Some(last_change) = last_change.filter(|_| !self.settings.trusts_clock) {
            self.clock.see_last_change(last_change);
        }
        let at = self.judge_clock(now);
        for (name, stat) in &listing.files {
            self.index.sight(name, *stat, listing.pinned.contains(name), sighting, at);
        }
        let mut there: HashSet<&FileName> = listing.files.iter().map(|(name, _)| name).collect();
        // A file whose `stat` failed may still be there.
        there.extend(listing.failures.iter().map(|(name, _)| name));
        self.forgotten.extend(self.index.forget_others(|name| there.contains(name)));
        self.forgotten.extend(self.remembered.keys().filter(|name| !there.contains(name)).cloned());
        self.strays.see(listing.strays, now.uptime);
        let litter = self.strays.litter();
        if !litter.is_empty() {
            self.effects.push(Effect::RemoveMarkers(litter));
        }
        let misnamed = listing.misnamed_markers.into_iter().map(Problem::PinsNothing);
        let failures = listing.failures.into_iter().map(|(name, error)| Problem::Look(name, error));
        self.effects.extend(misnamed.chain(failures).map(Effect::Report));
        self.index.retry_failures();
        self.recall_all(now);
        self.to_read = self.settled_and_unread(now).collect();
        self.next_to_settle = NextToSettle::Unknown;
        (self.has_looked, self.has_news, self.is_new_round) = (true, true, true);
        self.confirmations_left = MOST_CONFIRMATIONS;
        self.read_next(now);
    }

    /// Applies the present state of some files, and starts reading those that have settled.
    pub(super) fn learn_looks(&mut self, files: Vec<Looked>, now: Now) {
        let at = self.judge_clock(now);
        let mut is_news = false;
        for looked in files {
            match looked {
                Looked::Marker { archive, is_pinned } => {
                    if let Some(known) = self.index.get_mut(&archive) {
                        is_news |= known.pinned != is_pinned;
                        known.pinned = is_pinned;
                    }
                }
                Looked::Archive { name, sighting, stat, is_pinned } => {
                    // Even if it is gone again: it was here a moment ago, so its marker is no litter.
                    self.strays.is_back(&name);
                    match stat {
                        Ok(Some(stat)) => {
                            is_news |= self.index.sight(&name, stat, is_pinned, sighting, at);
                            self.to_read.extend(self.is_to_be_read(&name, now).then_some(name));
                        }
                        Ok(None) => {
                            is_news |= self.index.forget(&name);
                            self.forgotten.push(name);
                        }
                        Err(error) => self.report(Problem::Look(name, error)),
                    }
                }
            }
        }
        let is_looking = matches!(self.next_to_settle, NextToSettle::Looking);
        if is_news || is_looking || !self.to_read.is_empty() {
            self.next_to_settle = NextToSettle::Unknown;
        }
        self.has_news |= is_news;
        self.read_next(now);
    }

    /// Looks at archives that may have settled by now. Returns whether there are any.
    pub(super) fn look_at_settled(&mut self, now: Now) -> bool {
        let is_busy = self.is_reading || !self.to_read.is_empty();
        if is_busy || self.settles_in(now).is_none_or(|wait| !wait.is_zero()) {
            return false;
        }
        let due = self.settled_and_unread(now).collect();
        // The result of this look determines when the next one settles.
        self.next_to_settle = NextToSettle::Looking;
        self.effects.push(Effect::Look(due));
        true
    }

    /// How long until the next archive that is being written may have settled; none: there is none.
    pub(super) fn settles_in(&mut self, now: Now) -> Option<Duration> {
        if matches!(self.next_to_settle, NextToSettle::Unknown) {
            let unread = self.index.iter().filter(|(_, known)| known.read.is_none());
            let next = unread.map(|(_, known)| known.settles_in(self.settings.settle, now)).min();
            self.next_to_settle = next.map_or(NextToSettle::None, |wait| NextToSettle::At(now.uptime + wait));
        }
        match self.next_to_settle {
            NextToSettle::At(uptime) => Some(uptime.saturating_sub(now.uptime)),
            NextToSettle::Unknown | NextToSettle::None | NextToSettle::Looking => None,
        }
    }

    fn judge_clock(&mut self, now: Now) -> (Now, Clock) {
        let clock = self.clock.judge(now);
        self.has_undecided_times |= clock == Clock::Suspect;
        (now, clock)
    }

    fn settled_and_unread(&self, now: Now) -> impl Iterator<Item = FileName> {
        let settle = self.settings.settle;
        let due =
            self.index.iter().filter(move |(_, known)| known.read.is_none() && known.is_settled(settle, now));
        due.map(|(name, _)| name.clone())
    }

    fn is_to_be_read(&self, name: &FileName, now: Now) -> bool {
        let known = self.index.get(name);
        known.is_some_and(|known| known.read.is_none() && known.is_settled(self.settings.settle, now))
    }

    /// Starts reading the next archives, unless some are being read.
    fn read_next(&mut self, now: Now) {
        if self.is_reading {
            return;
        }
        let mut batch = Vec::new();
        while batch.len() < BATCH
            && let Some(name) = self.to_read.pop_front()
        {
            if self.is_to_be_read(&name, now)
                && let Some(known) = self.index.get(&name)
            {
                batch.push((name, known.stat));
            }
        }
        if batch.is_empty() {
            self.progress = super::Progress::default();
            return;
        }
        self.progress.total = self.progress.done + batch.len() + self.to_read.len();
        self.is_reading = true;
        self.effects.push(Effect::Read(batch));
    }

    /// Applies the contents of archives that were read.
    pub(super) fn learn_contents(&mut self, archives: Vec<ReadArchive>, now: Now) {
        self.is_reading = false;
        self.has_news = true;
        self.progress.done += archives.len();
        self.next_to_settle = NextToSettle::Unknown;
        for ReadArchive { name, stat, contents } in archives {
            // Another file may have taken the name since.
            let is_that = |known: &Known| known.read.is_none() && known.stat.is_same(&stat);
            if self.index.get(&name).is_some_and(is_that)
                && let Some(problem) = self.learn_content(name, stat, contents, now)
            {
                self.report(problem);
            }
        }
        self.read_next(now);
    }

    /// Applies the contents of one archive. Returns the problem that it has, if any.
    fn learn_content(
        &mut self,
        name: FileName,
        stat: Stat,
        contents: io::Result<Option<Contents>>,
        now: Now,
    ) -> Option<Problem> {
        let contents = match contents {
            Ok(Some(contents)) => contents,
            // It changed although no event came. It is looked at again once it may have settled.
            Ok(None) => {
                self.index.get_mut(&name)?.distrust_close(now);
                return None;
            }
            Err(error) => {
                self.index.note_failure(&name, unread(&name, &stat), &format!("cannot be read: {error}"));
                return Some(Problem::Read(name, error));
            }
        };
        // Any process may have closed it, not only the last writer. A whole archive is finished; one that is not
        // whole may still have another writer.
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
            && self.limiter.is_some()
        {
            let namespace = contents.identity.map(|identity| identity.namespace).unwrap_or_default();
            *self.arrivals.entry(namespace).or_default() += 1;
        }
        self.note_creation(&name, now);
        self.date(&name, now)
    }

    /// Takes the files that now have the names whose deletion was requested.
    pub(super) fn learn_stats(&mut self, files: Vec<(FileName, io::Result<Option<Stat>>)>) {
        for (name, file) in files {
            let file = match file {
                Ok(file) => file,
                Err(error) => {
                    self.report(Problem::Look(name, error));
                    continue;
                }
            };
            let Some(bound) = self.discards.bind(&name, file) else { continue };
            let result = match file {
                None => DiscardResult::NotFound,
                Some(file) if !file.is_same(&bound) => DiscardResult::Changed,
                Some(_) => continue,
            };
            self.discards.note(&name, result);
        }
    }

    /// Adds all archives to a snapshot, each among those that are being deleted, or among the others.
    pub(super) fn fill_archives(&self, snapshot: &mut Snapshot, now: Now) {
        for (name, known) in self.index.iter() {
            if known.deleting {
                snapshot.being_deleted.insert(name.clone());
            } else if !is_foreign(name, known) {
                snapshot.archives.push(archive(name, known, now));
            }
        }
    }

    /// Marks the archives whose deletion was requested, once it is known whose they are. By the file's name alone go
    /// those of nobody: an archive with an identity is discarded through its namespace, while there is one.
    pub(super) fn mark_discarded(
        &mut self,
        snapshot: &mut Snapshot,
        in_namespaces: &BTreeMap<FileName, FileId>,
    ) {
        let has_any = self.discards.results().next().is_some();
        if in_namespaces.is_empty() && !has_any {
            return;
        }
        for archive in &mut snapshot.archives {
            let is_wanted = |known: &&Known| self.discards.is_wanted(&archive.file, &known.stat);
            let wanted = self.index.get(&archive.file).filter(is_wanted);
            let home = match &archive.identity {
                // The identity of a file that could not be read may still become known.
                None if archive.state == State::Unreadable => Home::Unknown,
                None => Home::None,
                Some(_) if self.pod_index.is_none() => Home::There,
                Some(_) => archive.home(&snapshot.namespaces),
            };
            match home {
                Home::None => archive.discarded = wanted.is_some(),
                Home::There => {
                    archive.discarded = in_namespaces.get(&archive.file) == Some(&archive.file_id);
                    if wanted.is_some() {
                        self.discards.note(&archive.file, DiscardResult::IdentityKnown);
                    }
                }
                Home::Unknown => {}
            }
        }
    }
}

/// Whether it is the file of another program that only has a name like an archive's. A file that is named as the
/// kubelet names them always counts as an archive, and so does one whose contents are a whole archive.
fn is_foreign(name: &FileName, known: &Known) -> bool {
    let whole = known.read.as_ref().is_some_and(|read| read.state.is_whole());
    name.kind() != NameKind::Kubelet && !whole
}

/// A time for an archive that was not read. No decision depends on it.
pub(super) fn unread(name: &FileName, stat: &Stat) -> CheckpointTime {
    let at = name.checkpoint_time().unwrap_or_else(|| stat.modified_at());
    CheckpointTime { at, claimed: at, dated: Dated::Untrusted, source: Source::Modified }
}

fn archive(name: &FileName, known: &Known, now: Now) -> Archive {
    let read = known.read.as_ref();
    let taken = read.map_or_else(|| unread(name, &known.stat), |read| read.taken);
    Archive {
        file: name.clone(),
        file_id: known.stat.id(),
        identity: known.identity().cloned(),
        state: read.map_or(State::Unread, |read| read.state),
        texts: read.map(|read| Arc::clone(&read.texts)),
        taken: taken.at,
        claimed: taken.claimed,
        dated: taken.dated,
        changed: known.changed_at(now),
        size: known.stat.size,
        allocated: known.stat.allocated,
        pinned: known.pinned,
        settled: read.is_some(),
        discarded: false,
        undeletable: known.failed_at().is_some_and(|failed| now.uptime < failed + REFUSED),
        pod_labels: None,
        former_labels: None,
        namespace_labels: None,
        workload: None,
        absences: None,
        idle_since: None,
        seen_in: None,
        governed_by: None,
        creation: known.creation().cloned(),
    }
}

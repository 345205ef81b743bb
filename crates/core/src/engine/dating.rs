//! When the archives' checkpoints were taken: what each claims, when it was first seen, and what the clock is worth.

use std::sync::Arc;
use std::time::Duration;

use crate::checkpoint_time::{CheckpointTime, Claims, Reading, Sighting, TOLERANCE, checkpoint_time};
use crate::name::FileName;
use crate::plan::{Clock, Dated};
use crate::pods::TakenWhen;

use jiff::Timestamp;

use super::Engine;
use super::archives::unread;
use super::clock::{ClockWatch, Now};
use super::index::{Arrival, FirstSeen, Known, Read};
use super::memory::Record;
use super::problem::Problem;
use super::remembering::record_of;

impl Engine {
    /// Dates an archive that was just read, and queues its record for the catalog. Returns a problem if the archive
    /// cannot be dated.
    pub(super) fn date(&mut self, name: &FileName, now: Now) -> Option<Problem> {
        let reading = self.clock.reading(now);
        let known = self.index.get_mut(name)?;
        if let Arrival::Unjudged(shown) = known.arrival() {
            known.set_arrival(judge_arrival(name, known, shown, now));
        }
        let found = date(name, known, &self.clock, reading, now)?;
        if let Some(read) = &mut known.read {
            read.taken = found;
        }
        let known = self.index.get(name)?;
        self.has_undecided_times |= !is_decided(known, found, now);
        // Before the API server's time is known, the date is not worth keeping, as it is about to change; the
        // arrival of an archive that is dated by it is.
        if self.settings.remembers && (!self.clock.is_unheard() || known.arrival() != Arrival::Unremarkable) {
            self.unwritten.extend(record_of(name, known, &self.settings.boot));
        }
        (found.dated == Dated::Undated).then(|| Problem::Undated(name.clone(), found.claimed))
    }

    /// Restores the records of all archives whose files did not change since the record was written. The wall clock
    /// does not matter for that.
    pub(super) fn recall_all(&mut self, now: Now) {
        for (name, record) in std::mem::take(&mut self.remembered) {
            let is_as_it_was = |known: &Known| known.read.is_none() && known.stat.is_same(&record.stat);
            if self.index.get(&name).is_some_and(is_as_it_was) {
                self.recall_archive(&name, &record, now);
            }
        }
    }

    fn recall_archive(&mut self, name: &FileName, record: &Record, now: Now) {
        self.index.note(name, &record.contents, unread(name, &record.stat));
        let reading = self.clock.reading(now);
        let is_of_this_boot = record.boot == self.settings.boot;
        let mut is_seen_anew = false;
        if let Some(known) = self.index.get_mut(name) {
            known.set_creation(record.creation.clone().map(Arc::new));
            match record.first_seen {
                FirstSeen::Uptime(_) if !is_of_this_boot => {
                    is_seen_anew = matches!(known.first_seen, FirstSeen::At(_));
                    // The uptime of an earlier boot cannot be converted to a time.
                    known.set_arrival(match record.arrival {
                        Arrival::Unremarkable => Arrival::Unremarkable,
                        Arrival::Unjudged(_) | Arrival::DatesIt | Arrival::Lost => Arrival::Lost,
                    });
                }
                first_seen => {
                    known.first_seen = first_seen;
                    known.set_arrival(record.arrival);
                }
            }
            if let Some(found) = date(name, known, &self.clock, reading, now)
                && let Some(read) = &mut known.read
            {
                read.taken = found;
                self.has_undecided_times |= !is_decided(known, found, now);
            }
        }
        // The time at which it was first seen has just become final: the catalog gets it for the next start.
        if self.settings.remembers
            && is_seen_anew
            && let Some(known) = self.index.get(name)
        {
            self.unwritten.extend(record_of(name, known, &self.settings.boot));
        }
    }

    /// Dates again all archives whose time is not final, by the present state of the clock.
    pub(super) fn date_undecided(&mut self, now: Now) {
        let reading = self.clock.reading(now);
        if !self.has_undecided_times && reading.clock == Clock::Trusted {
            return;
        }
        self.has_undecided_times = false;
        let mut changed = Vec::new();
        for (name, known) in self.index.iter_mut() {
            let before = known.first_seen;
            if is_ahead(known, now) {
                known.first_seen = FirstSeen::Uptime(now.uptime);
            }
            if let FirstSeen::Uptime(uptime) = known.first_seen
                && reading.clock == Clock::Trusted
            {
                known.first_seen = FirstSeen::At(self.clock.at(uptime, now));
            }
            let Some(found) = date(name, known, &self.clock, reading, now) else { continue };
            if let Some(read) = &mut known.read {
                read.taken = found;
            }
            self.has_undecided_times |= !is_decided(known, found, now);
            if known.first_seen != before {
                changed.push(name.clone());
            }
        }
        if self.settings.remembers {
            let known = changed.iter().filter_map(|name| Some((name, self.index.get(name)?)));
            let records = known.filter_map(|(name, known)| record_of(name, known, &self.settings.boot));
            self.unwritten.extend(records);
        }
    }
}

/// Whether it was first seen, by a clock that was trusted, at a time later than now. One of the two times is wrong,
/// and it is only certain that the archive is here now. An archive that could not be dated then is left as it is.
fn is_ahead(known: &Known, now: Now) -> bool {
    let is_undated = known.read.as_ref().is_some_and(|read| read.taken.dated == Dated::Undated);
    !is_undated && is_first_seen_after(known, now)
}

fn is_first_seen_after(known: &Known, now: Now) -> bool {
    let latest = now.wall.checked_add(TOLERANCE).unwrap_or(Timestamp::MAX);
    matches!(known.first_seen, FirstSeen::At(time) if time > latest)
}

/// Whether its time is final: it stays the same whatever is found out about the clock later.
fn is_decided(known: &Known, found: CheckpointTime, now: Now) -> bool {
    let is_seen = matches!(known.first_seen, FirstSeen::At(_)) && !is_first_seen_after(known, now);
    is_seen && matches!(found.dated, Dated::Trusted | Dated::Undated)
}

/// When it was taken, and so when its pod ran.
pub(super) fn taken_when(known: &Known, read: &Read) -> TakenWhen {
    match (read.taken.dated, known.first_seen) {
        (Dated::Trusted, _) => TakenWhen::At(read.taken.at),
        (Dated::Undated, FirstSeen::At(first)) => TakenWhen::Before(first),
        (Dated::Undated | Dated::Untrusted | Dated::Ahead, _) => TakenWhen::Unknown,
    }
}

fn claims(name: &FileName, known: &Known) -> Claims {
    let inside = known.read.as_ref().and_then(Read::inside);
    Claims { inside, name: name.checkpoint_time(), modified: known.stat.modified_at() }
}

/// When its checkpoint was taken; none where the archive was not read.
fn date(
    name: &FileName,
    known: &Known,
    clock: &ClockWatch,
    reading: Reading,
    now: Now,
) -> Option<CheckpointTime> {
    known.read.as_ref().filter(|read| !read.is_failure)?;
    let first = match known.first_seen {
        FirstSeen::At(time) => Some(time),
        FirstSeen::Uptime(_) => None,
    };
    let arrived = match (known.arrival(), known.first_seen) {
        (Arrival::DatesIt, FirstSeen::At(time)) => Some(time),
        (Arrival::DatesIt, FirstSeen::Uptime(uptime)) => Some(clock.at(uptime, now)),
        _ => None,
    };
    let is_misdated = known.arrival() == Arrival::Lost;
    Some(checkpoint_time(claims(name, known), Sighting { first, arrived, is_misdated }, reading))
}

/// Whether the time in an archive is from this node's clock, which was not trusted and showed `shown` when the
/// archive arrived. It is if the clock showed that time while the archive was being written. A copy of an older
/// archive has an earlier time.
fn judge_arrival(name: &FileName, known: &Known, shown: Timestamp, now: Now) -> Arrival {
    let written_for = match known.first_seen {
        FirstSeen::Uptime(came) => now.uptime.saturating_sub(came),
        FirstSeen::At(came) => Duration::try_from(now.wall.duration_since(came)).unwrap_or_default(),
    };
    let (claimed, _) = claims(name, known).first();
    let is_by_that_clock = shown.checked_sub(TOLERANCE).is_ok_and(|begin| claimed >= begin)
        && shown.checked_add(written_for + TOLERANCE).is_ok_and(|end| claimed <= end);
    if is_by_that_clock { Arrival::DatesIt } else { Arrival::Unremarkable }
}

//! When the archives' checkpoints were taken: what each claims, when it was first seen, and what the clock is worth.

use std::time::Duration;

use checkpoint_keeper_core::checkpoint_time::{
    CheckpointTime, Claims, Reading, Sighting, TOLERANCE, checkpoint_time,
};
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::{Clock, Dated};
use checkpoint_keeper_core::pods::TakenWhen;

use jiff::Timestamp;

use super::Collector;
use super::remembering::record_of;
use crate::catalog::Record;
use crate::clock::{ClockWatch, Now};
use crate::index::{Arrival, FirstSeen, Known, Read};
use crate::problem::Problem;

impl Collector {
    /// Dates an archive that was just read, and has it remembered; says if it cannot be dated.
    pub(super) fn date(&mut self, name: &FileName, now: Now) -> Option<Problem> {
        let reading = self.clock.reading(now);
        let known = self.index.get_mut(name)?;
        if let Arrival::Unjudged(shown) = known.arrival {
            known.arrival = judge_arrival(name, known, shown, now);
        }
        let found = date(name, known, &self.clock, reading, now)?;
        if let Some(read) = &mut known.read {
            read.taken = found;
        }
        let known = self.index.get(name)?;
        self.has_undecided_times |= !is_decided(known, found, now);
        // Before the API server was heard, the next moment knows better; but not when this came.
        if self.catalog.is_some() && (!self.clock.is_unheard() || known.arrival != Arrival::Unremarkable) {
            self.unwritten.extend(record_of(name, known, &self.boot));
        }
        (found.dated == Dated::Undated).then(|| Problem::Undated(name.clone(), found.claimed))
    }

    /// Knows again what was remembered of archives that are as they were: whatever the clock shows by now, nobody
    /// has written to them since.
    pub(super) fn recall_all(&mut self, now: Now) {
        for (name, record) in std::mem::take(&mut self.remembered) {
            let is_as_it_was = |known: &Known| known.read.is_none() && known.stat.is_same(&record.stat);
            if self.index.get(&name).is_some_and(is_as_it_was) {
                self.recall_archive(&name, &record, now);
            }
        }
    }

    fn recall_archive(&mut self, name: &FileName, record: &Record, now: Now) {
        self.index.note(name, &record.contents, super::unread(name, &record.stat));
        let reading = self.clock.reading(now);
        let is_of_this_boot = record.boot == self.boot;
        let mut is_seen_anew = false;
        if let Some(known) = self.index.get_mut(name) {
            match record.first_seen {
                FirstSeen::Uptime(_) if !is_of_this_boot => {
                    is_seen_anew = matches!(known.first_seen, FirstSeen::At(_));
                    // When that was, nobody can tell any more.
                    known.arrival = match record.arrival {
                        Arrival::Unremarkable => Arrival::Unremarkable,
                        Arrival::Unjudged(_) | Arrival::DatesIt | Arrival::Lost => Arrival::Lost,
                    };
                }
                first_seen => (known.first_seen, known.arrival) = (first_seen, record.arrival),
            }
            if let Some(found) = date(name, known, &self.clock, reading, now)
                && let Some(read) = &mut known.read
            {
                read.taken = found;
                self.has_undecided_times |= !is_decided(known, found, now);
            }
        }
        // Now it is known for good when it was first seen, and the next start is to know it too.
        if self.catalog.is_some()
            && is_seen_anew
            && let Some(known) = self.index.get(name)
        {
            self.unwritten.extend(record_of(name, known, &self.boot));
        }
    }

    /// Dates anew what could not be dated for good before, by what the clock is worth by now.
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
        if self.catalog.is_some() {
            let known = changed.iter().filter_map(|name| Some((name, self.index.get(name)?)));
            let records = known.filter_map(|(name, known)| record_of(name, known, &self.boot));
            self.unwritten.extend(records);
        }
    }
}

/// Whether it was dated, and first seen, by a clock that was believed and showed a later time than now: one of the
/// two is wrong, and for certain is only that it was seen by now. What was not believed then is not to be now.
fn is_ahead(known: &Known, now: Now) -> bool {
    let is_undated = known.read.as_ref().is_some_and(|read| read.taken.dated == Dated::Undated);
    !is_undated && is_first_seen_after(known, now)
}

fn is_first_seen_after(known: &Known, now: Now) -> bool {
    let latest = now.wall.checked_add(TOLERANCE).unwrap_or(Timestamp::MAX);
    matches!(known.first_seen, FirstSeen::At(time) if time > latest)
}

/// Whether nothing that the clock will turn out to be worth changes that.
fn is_decided(known: &Known, found: CheckpointTime, now: Now) -> bool {
    let is_seen = matches!(known.first_seen, FirstSeen::At(_)) && !is_first_seen_after(known, now);
    is_seen && matches!(found.dated, Dated::Trusted | Dated::Undated)
}

/// When it was taken, for what that tells of its pod.
pub(super) fn taken_when(known: &Known, read: &Read) -> TakenWhen {
    match (read.taken.dated, known.first_seen) {
        (Dated::Trusted, _) => TakenWhen::At(read.taken.at),
        (Dated::Undated, FirstSeen::At(first)) => TakenWhen::Before(first),
        (Dated::Undated | Dated::Untrusted | Dated::Ahead, _) => TakenWhen::Unknown,
    }
}

fn claims(name: &FileName, known: &Known) -> Claims {
    let inside = known.read.as_ref().and_then(|read| read.inside);
    Claims { inside, name: name.checkpoint_time(), modified: known.stat.modified_at() }
}

/// When its checkpoint was taken; none where it was not read.
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
    let arrived = match (known.arrival, known.first_seen) {
        (Arrival::DatesIt, FirstSeen::At(time)) => Some(time),
        (Arrival::DatesIt, FirstSeen::Uptime(uptime)) => Some(clock.at(uptime, now)),
        _ => None,
    };
    let is_misdated = known.arrival == Arrival::Lost;
    Some(checkpoint_time(claims(name, known), Sighting { first, arrived, is_misdated }, reading))
}

/// Whether an archive that came while the clock was not trusted, and showed that time, is dated by that clock: then
/// it claims to be of a time that the clock showed while it was written. A copy of an older one does not.
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may")]
mod tests {
    use checkpoint_keeper_core::plan::Archive;
    use checkpoint_keeper_testkit::ArchiveBuilder;
    use jiff::SignedDuration;
    use tempfile::TempDir;

    use super::*;
    use crate::store::Store;

    const DAY: i64 = 24 * 60 * 60;

    /// A node that boots again and again, and whose clock is off by so many seconds.
    struct Node {
        directory: TempDir,
        state: TempDir,
        collector: Collector,
        truth: Now,
        off_by: i64,
    }

    impl Node {
        fn new() -> Self {
            let (directory, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
            let collector = Collector::new(Store::open(directory.path()).unwrap(), Duration::from_secs(5));
            let mut node = Self { directory, state, collector, truth: Now::read(), off_by: 0 };
            node.start("first");
            node
        }

        /// The collector starts, or starts again, in that boot of the machine.
        fn start(&mut self, boot: &str) {
            let store = Store::open(self.directory.path()).unwrap();
            self.collector = Collector::new(store, Duration::from_secs(5));
            boot.clone_into(&mut self.collector.boot);
            assert!(self.collector.remember_in(self.state.path().join("catalog")).is_empty());
            let now = self.now();
            self.collector.look(now, &mut |_, _| {});
        }

        /// The machine boots again.
        fn boot(&mut self) {
            assert!(self.collector.flush_catalog().is_empty());
            self.truth.uptime = Duration::from_secs(1);
            self.pass(60);
            self.start("second");
        }

        fn pass(&mut self, seconds: u64) {
            let length = Duration::from_secs(seconds);
            self.truth = Now { wall: self.truth.wall + length, uptime: self.truth.uptime + length };
        }

        fn now(&self) -> Now {
            let wall = self.truth.wall.checked_add(SignedDuration::from_secs(self.off_by)).unwrap();
            Now { wall, ..self.truth }
        }

        /// An archive comes that says it is of then, by its name, its content and its times.
        fn arrive(&mut self, claimed: Timestamp, is_closed: bool) {
            let archive = ArchiveBuilder::new("team", "web-0", "server").at(&format!("{claimed:.0}"));
            let path = archive.write_to(self.directory.path()).unwrap();
            let since = Duration::try_from(claimed.duration_since(Timestamp::UNIX_EPOCH)).unwrap();
            let file = std::fs::File::options().append(true).open(&path).unwrap();
            file.set_modified(std::time::SystemTime::UNIX_EPOCH + since).unwrap();
            let name = FileName::new(path.file_name().unwrap().as_encoded_bytes()).unwrap();
            let now = self.now();
            self.collector.look_at(&[(name, is_closed)], now);
            self.collector.look_at_unsettled(now);
        }

        /// The only archive, as a plan gets it now.
        fn archive(&mut self) -> Archive {
            let now = self.now();
            self.collector.look_at_unsettled(now);
            let mut archives = self.collector.snapshot(now).0.archives;
            assert_eq!(archives.len(), 1);
            archives.remove(0)
        }
    }

    #[test]
    fn what_a_wrong_clock_dated_goes_by_its_arrival_after_a_boot_if_the_clock_was_right_before_that() {
        for is_restarted in [false, true] {
            let mut node = Node::new();
            node.off_by = -2 * DAY;
            node.pass(60);
            let arrived = node.truth.wall;
            node.arrive(node.now().wall, true);
            assert_eq!(node.archive().dated, Dated::Untrusted);
            node.off_by = 0;
            node.pass(60);
            if is_restarted {
                assert!(node.collector.flush_catalog().is_empty());
                node.start("first");
            }
            for is_booted in [false, true] {
                let archive = node.archive();
                assert_eq!(archive.dated, Dated::Trusted, "{is_restarted}, {is_booted}");
                assert_eq!(archive.taken, arrived, "{is_restarted}, {is_booted}");
                node.boot();
            }
        }
    }

    #[test]
    fn what_a_wrong_clock_dated_is_undated_after_a_boot_if_the_clock_was_not_right_before_that() {
        let mut node = Node::new();
        node.off_by = -2 * DAY;
        node.pass(60);
        node.arrive(node.now().wall, true);
        node.boot();
        assert_eq!(node.archive().dated, Dated::Undated);
        node.off_by = 0;
        node.pass(60);
        let archive = node.archive();
        assert_eq!(archive.dated, Dated::Undated, "nobody knows any more when it came");
    }

    /// It was seen while the clock was wrong, and read when it was right.
    #[test]
    fn what_claims_to_be_later_than_its_first_sight_by_a_wrong_clock_stays_undated_after_a_boot() {
        let mut node = Node::new();
        node.off_by = -2 * DAY;
        node.pass(60);
        let first_seen = node.truth.wall;
        node.arrive(first_seen + Duration::from_hours(1), false);
        assert!(!node.archive().settled);
        node.off_by = 0;
        node.pass(60);
        assert_eq!(node.archive().dated, Dated::Undated);
        // Its time has come.
        node.pass(2 * 60 * 60);
        node.boot();
        let archive = node.archive();
        assert_eq!((archive.dated, archive.taken), (Dated::Undated, first_seen));
    }
}

//! When a schedule's interval is over, and when its cron expression names a time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::cron::{Cron, MOST_COUNTED};
use super::memory::ScheduleMemory;
use super::spec::Schedule;
use crate::engine::clock::Now;
use crate::plan::Clock;

/// A time kept that lies so far ahead is by a clock that was wrong then.
const AHEAD: SignedDuration = SignedDuration::from_hours(1);

/// The time triggers of one schedule.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// When the interval is over, by the uptime: no clock that is set moves it.
    interval: Option<IntervalTimer>,
    cron: Option<CronTimer>,
    /// Whether they were armed: from then on, an expression that is new is an edit.
    are_armed: bool,
}

#[derive(Debug, Clone, Copy)]
struct IntervalTimer {
    length: Duration,
    over_at: Duration,
    /// For how long it was over already when it was armed.
    late: Duration,
    /// The same by the wall clock of then, for people: computed anew each time it would differ by moments.
    shown: Timestamp,
}

#[derive(Debug, Clone)]
struct CronTimer {
    cron: Cron,
    /// The time that `next` was looked for from.
    since: Timestamp,
    /// The next time that it names, without this node's delay; none: it names no more.
    next: Option<Timestamp>,
}

/// A time that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// It is to be served.
    Serve {
        due: Timestamp,
        /// How many before it were missed.
        missed: u32,
    },
    /// It is too late for it, and for so many.
    TooLate { due: Timestamp, missed: u32 },
}

impl Timers {
    /// Arms what is not armed yet, or is not as the schedule says any more. By a clock that is not trusted nothing
    /// is armed: how long ago the last time was is not known. Returns a time that is to be kept as the last one of
    /// the cron expression: what it names before that is neither served nor missed.
    pub(super) fn arm(
        &mut self,
        schedule: &Schedule,
        memory: &ScheduleMemory,
        clock: Clock,
        now: Now,
    ) -> Option<Timestamp> {
        let triggers = &schedule.triggers;
        match (&mut self.interval, triggers.interval) {
            (Some(timer), Some(length)) => timer.change(length, now),
            (interval, None) => *interval = None,
            (None, Some(_)) => {}
        }
        if triggers.cron.is_none() {
            self.cron = None;
        }
        if clock == Clock::Suspect {
            return None;
        }
        // What other nodes report helps only one that has nothing of its own to go by.
        let since = |last: Option<Timestamp>| {
            let last = last.or(schedule.last_reported).unwrap_or(schedule.created);
            if is_ahead(last, now) { now.wall } else { last }
        };
        if let (None, Some(length)) = (self.interval, triggers.interval) {
            let passed = now.wall.duration_since(since(memory.last_interval));
            let passed = Duration::try_from(passed).unwrap_or(Duration::ZERO);
            let over_at = now.uptime.saturating_add(length.saturating_sub(passed));
            let late = passed.saturating_sub(length);
            let shown = shown(over_at, now);
            self.interval = Some(IntervalTimer { length, over_at, late, shown });
        }
        let was_armed = std::mem::replace(&mut self.are_armed, true);
        let cron = triggers.cron.as_ref()?;
        let timer = self.cron.as_ref().filter(|timer| timer.cron == *cron);
        // What a new expression names before now was never due. A time from before the clock was set right is waited
        // for no longer.
        let counts_from_now = timer.map_or(was_armed, |timer| is_ahead(timer.since, now));
        if timer.is_some() && !counts_from_now {
            return None;
        }
        let since = if counts_from_now { now.wall } else { since(memory.last_cron) };
        self.cron = Some(CronTimer { cron: cron.clone(), since, next: cron.next(since) });
        (counts_from_now || memory.last_cron.is_some_and(|last| is_ahead(last, now))).then_some(now.wall)
    }

    /// Whether the interval is over; if so, it begins anew.
    pub(super) fn take_interval(&mut self, schedule: &Schedule, delay: Duration, now: Now) -> Option<Due> {
        let timer = self.interval.as_mut()?;
        let late = now.uptime.checked_sub(timer.over_at.saturating_add(delay))?;
        let late = late.saturating_add(std::mem::take(&mut timer.late));
        timer.over_at = now.uptime.saturating_add(timer.length).saturating_sub(delay);
        timer.shown = shown(timer.over_at, now);
        let is_too_late = schedule.triggers.starting_deadline.is_some_and(|deadline| late > deadline);
        let missed = late.as_nanos().checked_div(timer.length.as_nanos()).unwrap_or(0);
        let missed = u32::try_from(missed).unwrap_or(u32::MAX).min(MOST_COUNTED - 1);
        // Without this node's delay, which comes on top again when the next one is counted from what was kept.
        let due = now.wall.checked_sub(delay).unwrap_or(now.wall);
        Some(if is_too_late { Due::TooLate { due, missed: missed + 1 } } else { Due::Serve { due, missed } })
    }

    /// Whether a time of the cron expression has come.
    pub(super) fn take_cron(
        &mut self,
        schedule: &Schedule,
        delay: Duration,
        clock: Clock,
        now: Now,
    ) -> Option<Due> {
        let timer = self.cron.as_mut().filter(|_| clock == Clock::Trusted)?;
        let until = now.wall.checked_sub(delay).unwrap_or(now.wall);
        let first = timer.next.filter(|next| *next <= until)?;
        let just_before = first.checked_sub(Duration::from_nanos(1)).unwrap_or(first);
        let passed = timer.cron.last_between(just_before, until)?;
        (timer.since, timer.next) = (passed.last, timer.cron.next(passed.last));
        let late = Duration::try_from(until.duration_since(passed.last)).unwrap_or(Duration::ZERO);
        let is_too_late = schedule.triggers.starting_deadline.is_some_and(|deadline| late > deadline);
        let due = passed.last;
        Some(if is_too_late {
            Due::TooLate { due, missed: passed.count }
        } else {
            Due::Serve { due, missed: passed.count - 1 }
        })
    }

    /// When the next one comes, by the wall clock; for people.
    pub(super) fn next(&self, delay: Duration) -> Option<Timestamp> {
        let interval = self.interval.as_ref().map(|timer| timer.shown);
        let cron = self.cron.as_ref().and_then(|timer| timer.next);
        let next = interval.into_iter().chain(cron).min()?;
        next.checked_add(delay).ok()
    }

    /// How long until the next one comes.
    pub(super) fn wakes_in(&self, delay: Duration, clock: Clock, now: Now) -> Option<Duration> {
        let interval = self.interval.map(|timer| (timer.over_at + delay).saturating_sub(now.uptime));
        let cron = self.cron.as_ref().filter(|_| clock == Clock::Trusted).and_then(|timer| timer.next);
        let cron = cron.map(|next| {
            let wait = next.duration_since(now.wall);
            let wait = wait.saturating_add(SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX));
            Duration::try_from(wait).unwrap_or(Duration::ZERO)
        });
        interval.into_iter().chain(cron).min()
    }
}

impl IntervalTimer {
    /// Another length counts from where this one did.
    fn change(&mut self, length: Duration, now: Now) {
        if self.length == length {
            return;
        }
        self.over_at = self.over_at.saturating_add(length).saturating_sub(self.length);
        self.length = length;
        self.shown = shown(self.over_at, now);
    }
}

/// Whether a time that was kept is by a clock that was far ahead.
fn is_ahead(kept: Timestamp, now: Now) -> bool {
    kept.duration_since(now.wall) > AHEAD
}

/// A moment of the uptime by the wall clock, in whole seconds.
fn shown(at: Duration, now: Now) -> Timestamp {
    let wait = at.saturating_sub(now.uptime);
    let shown = now.wall.checked_add(wait).unwrap_or(now.wall);
    Timestamp::from_second(shown.as_second()).unwrap_or(shown)
}

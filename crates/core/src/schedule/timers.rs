//! When a schedule's interval is over, and when its cron expression names a time.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::cron::Cron;
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
    /// is armed: how long ago the last time was is not known.
    pub(super) fn arm(&mut self, schedule: &Schedule, memory: &ScheduleMemory, clock: Clock, now: Now) {
        let triggers = &schedule.triggers;
        if clock == Clock::Suspect {
            return;
        }
        // What other nodes report helps only one that has nothing of its own to go by.
        let since = |last: Option<Timestamp>| {
            let last = last.or(schedule.last_reported).unwrap_or(schedule.created);
            if is_ahead(last, now) { now.wall } else { last }
        };
        match triggers.interval {
            Some(length) if self.interval.is_none_or(|timer| timer.length != length) => {
                let passed = now.wall.duration_since(since(memory.last_interval));
                let passed = Duration::try_from(passed).unwrap_or(Duration::ZERO);
                let over_at = now.uptime.saturating_add(length.saturating_sub(passed));
                let late = passed.saturating_sub(length);
                let shown = shown(over_at, now);
                self.interval = Some(IntervalTimer { length, over_at, late, shown });
            }
            Some(_) => {}
            None => self.interval = None,
        }
        let is_armed = match (&self.cron, &triggers.cron) {
            (Some(timer), Some(cron)) => timer.cron == *cron,
            (None, None) => true,
            _ => false,
        };
        // A time from before the clock was set right is waited for no longer.
        if !is_armed || memory.last_cron.is_some_and(|last| is_ahead(last, now)) {
            let timer =
                |cron: &Cron| CronTimer { next: cron.next(since(memory.last_cron)), cron: cron.clone() };
            self.cron = triggers.cron.as_ref().map(timer);
        }
    }

    /// Whether the interval is over; if so, it begins anew.
    pub(super) fn take_interval(&mut self, schedule: &Schedule, delay: Duration, now: Now) -> Option<Due> {
        let timer = self.interval.as_mut()?;
        let late = now.uptime.checked_sub(timer.over_at.saturating_add(delay))?;
        let late = late.saturating_add(std::mem::take(&mut timer.late));
        timer.over_at = now.uptime.saturating_add(timer.length).saturating_sub(delay);
        timer.shown = shown(timer.over_at, now);
        let is_too_late = schedule.triggers.starting_deadline.is_some_and(|deadline| late > deadline);
        let due = now.wall;
        Some(if is_too_late { Due::TooLate { due, missed: 1 } } else { Due::Serve { due, missed: 0 } })
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
        timer.next = timer.cron.next(passed.last);
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

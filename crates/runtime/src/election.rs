//! Leader election, decided from what was seen of one lease. `lease` sends the requests.
//!
//! Clocks of two machines are never compared. Another replica's lease has expired once this replica, by its own
//! clock, has seen it unchanged for the lease's duration. The own lease counts from the moment at which the request
//! that renewed it was *sent*: every other replica saw the renewal later than that, and so waits longer.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// Durations of the lease, and of what is done about it.
#[derive(Debug, Clone, Copy)]
pub struct LeaseTimings {
    /// How long a lease holds after it was renewed.
    pub duration: Duration,
    /// How long after the last renewal it is renewed.
    pub renew: Duration,
    /// How long to wait until the lease is looked at again.
    pub retry: Duration,
}

impl LeaseTimings {
    /// Of a lease that holds for so long.
    pub fn of(duration: Duration) -> Self {
        Self { duration, renew: duration / 3, retry: Duration::from_secs(2) }
    }
}

/// What the lease says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Which version of it.
    pub version: String,
    /// The identity of the holder; none: it was given back.
    pub holder: Option<String>,
    /// How long it holds.
    pub duration: Duration,
    /// When it was renewed, by the holder's clock. It is only compared for equality, to recognise a renewal.
    pub renewed: Option<Timestamp>,
}

/// This replica's leadership, while it lasts.
#[derive(Debug, Clone)]
struct Leadership {
    /// When the last renewal that is known to have arrived was begun.
    since: Instant,
    /// Whether another client has written the lease, or may have.
    disputed: bool,
    /// Renewals whose outcome is not known: what they wrote, and when they were begun.
    unanswered: Vec<(Timestamp, Instant)>,
    /// When the last renewal that failed was begun.
    refused: Option<Instant>,
}

/// What was seen of the lease so far.
#[derive(Debug, Clone)]
pub struct Seen {
    me: String,
    timings: LeaseTimings,
    record: Option<Record>,
    /// From when on it was seen to be as it is.
    since: Instant,
    /// Until when it was.
    until: Instant,
    /// When the last request was begun; none: there was none yet.
    tried: Option<Instant>,
    /// Whether that request's answer is what `record` says.
    is_fresh: bool,
    leadership: Option<Leadership>,
    lost: Option<Lost>,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Look at the lease.
    Look,
    /// Create it: there is none.
    Create,
    /// Take it: it was given back or has expired.
    Take,
    /// Renew it.
    Renew,
    /// Nothing until then.
    Wait(Instant),
    /// Give up: what this process knows may be wrong by now.
    GiveUp(Lost),
}

/// Why a leader does not lead any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// Another replica has it.
    #[error("the lease was taken by {0}")]
    Taken(String),
    /// It is not there any more.
    #[error("the lease was deleted")]
    Deleted,
    /// The API did not answer in time.
    #[error("the lease could not be renewed in time")]
    NotRenewed,
}

/// How writing the lease went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// It is another version than the one that was to be replaced, or there is one already.
    Conflict,
    /// Whether it was written is not known.
    Unanswered,
}

/// What to do next, and nothing else.
pub fn next(seen: &Seen, now: Instant) -> Step {
    if let Some(lost) = &seen.lost {
        return Step::GiveUp(lost.clone());
    }
    let at_or_wait = |at: Instant, step: Step| if now >= at { step } else { Step::Wait(at) };
    if let Some(leadership) = &seen.leadership {
        let end = leadership.since + seen.timings.duration;
        if now >= end {
            return Step::GiveUp(Lost::NotRenewed);
        }
        if leadership.disputed && seen.is_fresh {
            return Step::Look;
        }
        if !seen.is_fresh {
            return at_or_wait(seen.look_again().min(end), Step::Look);
        }
        let again = leadership.refused.map(|refused| refused + seen.timings.retry);
        let due = leadership.since + seen.timings.renew;
        return at_or_wait(again.map_or(due, |again| again.max(due)).min(end), Step::Renew);
    }
    if !seen.is_fresh {
        return seen.tried.map_or(Step::Look, |tried| at_or_wait(tried + seen.timings.retry, Step::Look));
    }
    match &seen.record {
        None => Step::Create,
        Some(record) if record.holder.is_none() => Step::Take,
        // Even with our own name in it: another process may have been given the same one.
        Some(record) if seen.until >= seen.since + record.duration => Step::Take,
        Some(_) => at_or_wait(seen.look_again(), Step::Look),
    }
}

impl Seen {
    /// Nothing yet.
    pub fn nothing(me: String, timings: LeaseTimings, now: Instant) -> Self {
        Self {
            me,
            timings,
            record: None,
            since: now,
            until: now,
            tried: None,
            is_fresh: false,
            leadership: None,
            lost: None,
        }
    }

    /// Until when the lease is known to be ours.
    pub fn held_until(&self) -> Option<Instant> {
        let leadership =
            self.leadership.as_ref().filter(|leadership| !leadership.disputed && self.lost.is_none())?;
        Some(leadership.since + self.timings.duration)
    }

    fn look_again(&self) -> Instant {
        self.tried.map_or(self.until, |tried| tried + self.timings.retry)
    }

    /// A request that was begun then found this.
    pub fn found(&mut self, found: Option<Record>, begun: Instant, now: Instant) {
        self.tried = Some(begun);
        self.is_fresh = true;
        if self.leadership.is_some() {
            self.judge(found.as_ref());
        }
        if found.as_ref().map(|record| &record.version) != self.record.as_ref().map(|record| &record.version)
        {
            // It may have become so at any time before the answer came.
            self.since = now;
        }
        self.until = begun;
        self.record = found;
    }

    /// Whether what was found is what we have written.
    fn judge(&mut self, found: Option<&Record>) {
        let (Some(leadership), known) = (&mut self.leadership, &self.record) else { return };
        let Some(found) = found else {
            self.lost = Some(Lost::Deleted);
            return;
        };
        if known.as_ref().is_some_and(|known| known.version == found.version) {
            leadership.disputed = false;
            return;
        }
        let ours = found.holder.as_ref() == Some(&self.me);
        let written = leadership.unanswered.iter().find(|(renewed, _)| found.renewed == Some(*renewed));
        if let Some((_, begun)) = written.filter(|_| ours) {
            leadership.since = *begun;
            leadership.disputed = false;
            leadership.unanswered.clear();
            leadership.refused = None;
        } else {
            let holder = found.holder.clone();
            let holder = holder.unwrap_or_else(|| "another replica, which gave it back".to_owned());
            self.lost = Some(Lost::Taken(holder));
        }
    }

    /// A request that was begun then did not say what the lease is.
    pub fn not_found_out(&mut self, begun: Instant) {
        self.tried = Some(begun);
        self.is_fresh = false;
    }

    /// A request that was begun then has made it ours.
    pub fn written(&mut self, record: Record, begun: Instant, now: Instant) {
        self.tried = Some(begun);
        self.is_fresh = true;
        (self.since, self.until) = (now, begun);
        self.record = Some(record);
        self.leadership =
            Some(Leadership { since: begun, disputed: false, unanswered: Vec::new(), refused: None });
    }

    /// A request is begun that is to write this time. Whatever becomes of it, it may arrive.
    pub fn attempt(&mut self, renewal: Timestamp, begun: Instant) {
        if let Some(leadership) = &mut self.leadership {
            leadership.unanswered.push((renewal, begun));
        }
    }

    /// A request that was begun then, to write, did not do so as far as is known.
    pub fn refused(&mut self, how: Refused, begun: Instant) {
        self.tried = Some(begun);
        self.is_fresh = false;
        if let Some(leadership) = &mut self.leadership {
            leadership.refused = Some(begun);
            if how == Refused::Conflict {
                // To be cleared up at once: it is looked at without waiting.
                leadership.disputed = true;
                self.is_fresh = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timings() -> LeaseTimings {
        LeaseTimings::of(Duration::from_secs(15))
    }

    fn after(begin: Instant, seconds: u64) -> Instant {
        begin + Duration::from_secs(seconds)
    }

    fn record(version: &str, holder: &str) -> Record {
        Record {
            version: version.to_owned(),
            holder: Some(holder.to_owned()).filter(|holder| !holder.is_empty()),
            duration: Duration::from_secs(15),
            renewed: None,
        }
    }

    fn renewal(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn nothing(begin: Instant) -> Seen {
        Seen::nothing("me".to_owned(), timings(), begin)
    }

    fn leading(begin: Instant) -> Seen {
        let mut seen = nothing(begin);
        seen.written(record("1", "me"), begin, after(begin, 1));
        seen
    }

    /// What is seen one after the other, and what is done next at which second.
    fn found(begin: Instant, observations: &[(u64, Option<Record>)]) -> Seen {
        let mut seen = nothing(begin);
        for (second, found) in observations {
            seen.found(found.clone(), after(begin, *second), after(begin, *second));
        }
        seen
    }

    #[test]
    fn a_follower_takes_only_what_nobody_holds() {
        type Case = (&'static str, Vec<(u64, Option<Record>)>, u64, Step);
        let begin = Instant::now();
        let wait = |second| Step::Wait(after(begin, second));
        let theirs = || Some(record("1", "other"));
        let renewed = || Some(record("2", "other"));
        let table: Vec<Case> = vec![
            ("nothing was seen", vec![], 0, Step::Look),
            ("there is none", vec![(0, None)], 0, Step::Create),
            ("it was given back", vec![(0, Some(record("1", "")))], 0, Step::Take),
            ("it is new to us", vec![(0, theirs())], 0, wait(2)),
            ("it is looked at again", vec![(0, theirs())], 2, Step::Look),
            ("unchanged, not for long enough", vec![(0, theirs()), (14, theirs())], 14, wait(16)),
            ("unchanged for as long as it holds", vec![(0, theirs()), (15, theirs())], 15, Step::Take),
            ("not looked at since: nobody knows", vec![(0, theirs()), (2, theirs())], 60, Step::Look),
            ("renewed meanwhile", vec![(0, theirs()), (14, renewed()), (16, renewed())], 16, wait(18)),
            (
                "renewed, and then no more",
                vec![(0, theirs()), (14, renewed()), (29, renewed())],
                29,
                Step::Take,
            ),
            ("our name, written by another process", vec![(0, Some(record("1", "me")))], 0, wait(2)),
        ];
        for (what, observations, second, step) in table {
            assert_eq!(next(&found(begin, &observations), after(begin, second)), step, "{what}");
        }
    }

    #[test]
    fn how_long_a_lease_holds_is_what_it_says_itself() {
        let begin = Instant::now();
        let long = || Some(Record { duration: Duration::from_mins(1), ..record("1", "other") });
        let seen = found(begin, &[(0, long()), (59, long())]);
        assert_eq!(next(&seen, after(begin, 59)), Step::Wait(after(begin, 61)));
        let seen = found(begin, &[(0, long()), (60, long())]);
        assert_eq!(next(&seen, after(begin, 60)), Step::Take);
    }

    #[test]
    fn an_answer_that_took_its_time_says_nothing_about_before() {
        let begin = Instant::now();
        let mut seen = nothing(begin);
        let theirs = || Some(record("1", "other"));
        // It may have been renewed just before the answer came.
        seen.found(theirs(), begin, after(begin, 1));
        // And these may have been answered as soon as they were asked.
        seen.found(theirs(), after(begin, 15), after(begin, 17));
        assert_eq!(next(&seen, after(begin, 17)), Step::Look);
        seen.found(theirs(), after(begin, 16), after(begin, 17));
        assert_eq!(next(&seen, after(begin, 17)), Step::Take);
    }

    #[test]
    fn what_was_not_answered_is_looked_at_again_and_not_at_once() {
        let begin = Instant::now();
        let mut seen = found(begin, &[(0, None)]);
        seen.attempt(renewal(1), begin);
        seen.refused(Refused::Unanswered, begin);
        assert_eq!(next(&seen, begin), Step::Wait(after(begin, 2)));
        assert_eq!(next(&seen, after(begin, 2)), Step::Look);
        seen.not_found_out(after(begin, 2));
        assert_eq!(next(&seen, after(begin, 3)), Step::Wait(after(begin, 4)));
        assert_eq!(seen.held_until(), None);
    }

    #[test]
    fn a_leader_renews_at_a_third_and_leads_from_when_it_asked() {
        let begin = Instant::now();
        let mut seen = leading(begin);
        // The answer came a second later, and counts from the question.
        assert_eq!(seen.held_until(), Some(after(begin, 15)));
        assert_eq!(next(&seen, after(begin, 4)), Step::Wait(after(begin, 5)));
        assert_eq!(next(&seen, after(begin, 5)), Step::Renew);
        seen.written(record("2", "me"), after(begin, 5), after(begin, 6));
        assert_eq!(seen.held_until(), Some(after(begin, 20)));
        assert_eq!(next(&seen, after(begin, 20)), Step::GiveUp(Lost::NotRenewed));
    }

    #[test]
    fn a_conflict_ends_the_right_to_write_at_once_and_loses() {
        let begin = Instant::now();
        let mut seen = leading(begin);
        seen.attempt(renewal(5), after(begin, 5));
        seen.refused(Refused::Conflict, after(begin, 5));
        assert_eq!(seen.held_until(), None);
        assert_eq!(next(&seen, after(begin, 5)), Step::Look);
        for (found, lost) in [
            (Some(record("7", "other")), Lost::Taken("other".to_owned())),
            (Some(record("7", "")), Lost::Taken("another replica, which gave it back".to_owned())),
            // Another process of our name.
            (Some(record("7", "me")), Lost::Taken("me".to_owned())),
            (None, Lost::Deleted),
        ] {
            let mut seen = seen.clone();
            seen.found(found, after(begin, 5), after(begin, 5));
            assert_eq!(next(&seen, after(begin, 5)), Step::GiveUp(lost));
            assert_eq!(seen.held_until(), None);
        }
    }

    #[test]
    fn a_renewal_that_arrived_without_an_answer_is_known_by_what_it_wrote() {
        let begin = Instant::now();
        let mut seen = leading(begin);
        seen.attempt(renewal(5), after(begin, 5));
        seen.refused(Refused::Unanswered, after(begin, 5));
        // It may not have arrived: only the one before counts.
        assert_eq!(seen.held_until(), Some(after(begin, 15)));
        assert_eq!(next(&seen, after(begin, 6)), Step::Wait(after(begin, 7)));
        assert_eq!(next(&seen, after(begin, 7)), Step::Look);
        let arrived = Record { renewed: Some(renewal(5)), ..record("2", "me") };
        let mut lucky = seen.clone();
        lucky.found(Some(arrived.clone()), after(begin, 7), after(begin, 7));
        assert_eq!(lucky.held_until(), Some(after(begin, 20)));
        assert_eq!(next(&lucky, after(begin, 7)), Step::Wait(after(begin, 10)));
        // It has not: once more, and if it arrives after all, the conflict is with ourselves.
        seen.found(Some(record("1", "me")), after(begin, 7), after(begin, 7));
        assert_eq!(next(&seen, after(begin, 7)), Step::Renew);
        seen.attempt(renewal(7), after(begin, 7));
        seen.refused(Refused::Conflict, after(begin, 7));
        seen.found(Some(arrived), after(begin, 7), after(begin, 7));
        assert_eq!(seen.held_until(), Some(after(begin, 20)));
    }

    #[test]
    fn a_leader_that_nobody_answers_gives_up_when_its_lease_ends() {
        let begin = Instant::now();
        let mut seen = leading(begin);
        let mut now = after(begin, 5);
        let mut steps = 0;
        while next(&seen, now) != Step::GiveUp(Lost::NotRenewed) {
            match next(&seen, now) {
                Step::Wait(until) => now = until,
                Step::Renew => seen.refused(Refused::Unanswered, now),
                Step::Look => seen.not_found_out(now),
                other => panic!("{other:?}"),
            }
            steps += 1;
            assert!(steps < 100 && now <= after(begin, 15), "{now:?}");
        }
        assert_eq!(now, after(begin, 15));
    }
}

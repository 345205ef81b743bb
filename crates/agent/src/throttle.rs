//! When the status is written. Pure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::problem_type::ProblemType;

/// No two writes are closer to each other than that.
const APART: Duration = Duration::from_secs(5);

/// The longest pause after writes that failed.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// The part of a status whose changes are written soon. It holds no figures, as those of a full disk change all the
/// time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct UrgentPart {
    /// The reason of the condition `Ready`.
    pub(super) reason: String,
    /// The kinds of things that are wrong.
    pub(super) problems: BTreeSet<ProblemType>,
}

/// How long changed figures wait at least and at most for those that follow from the same cause: a policy changes, a
/// plan is made, and then archives go. What was written in the midst of it would stay there for the whole interval. Each
/// agent waits for another time, as a policy reaches all of them in the same moment.
const SHORTEST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// When the status was last written, and with which urgent part.
#[derive(Debug)]
pub(super) struct StatusThrottle {
    /// How long figures wait after a write.
    interval: Duration,
    /// How long they wait after the first of them changed.
    wait: Duration,
    /// Since when the status differs from the one written.
    differs: Option<Instant>,
    /// When the last attempt was made.
    at: Option<Instant>,
    /// How many attempts in a row have failed.
    failures: u32,
    written: UrgentPart,
}

impl StatusThrottle {
    /// `place` is anything by which agents are told apart.
    pub(super) fn new(interval: Duration, place: u64) -> Self {
        let (shortest, longest) = (SHORTEST_WAIT.min(interval), LONGEST_WAIT.min(interval));
        let spread = u64::try_from(longest.saturating_sub(shortest).as_millis()).unwrap_or_default();
        let wait = shortest + Duration::from_millis(place % (spread + 1));
        Self { interval, wait, differs: None, at: None, failures: 0, written: UrgentPart::default() }
    }

    /// When the status, which differs from the one written, may be written.
    pub(super) fn due(&mut self, urgent: &UrgentPart, now: Instant) -> Instant {
        let since = *self.differs.get_or_insert(now);
        let is_urgent =
            urgent.reason != self.written.reason || !urgent.problems.is_subset(&self.written.problems);
        // What is well again waits for no more than what else may be, so that not all agents tell of it in one moment.
        let has_ended = !self.written.problems.is_subset(&urgent.problems);
        let pause = match self.failures {
            0 if is_urgent || has_ended => APART,
            0 => self.interval.max(APART),
            failures => APART.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE),
        };
        let Some(at) = self.at else { return now };
        let gathered = if is_urgent { now } else { since + self.wait };
        gathered.max(at + pause)
    }

    /// Notes that the status is the one written.
    pub(super) fn note_same(&mut self) {
        self.differs = None;
    }

    /// Notes an attempt.
    pub(super) fn note(&mut self, urgent: UrgentPart, has_failed: bool, now: Instant) {
        (self.at, self.differs) = (Some(now), None);
        if has_failed {
            self.failures += 1;
        } else {
            (self.failures, self.written) = (0, urgent);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn urgent(problems: &[ProblemType]) -> UrgentPart {
        UrgentPart { reason: "Collecting".to_owned(), problems: problems.iter().copied().collect() }
    }

    fn is_due(throttle: &mut StatusThrottle, urgent: &UrgentPart, now: Instant) -> bool {
        throttle.due(urgent, now) <= now
    }

    #[test]
    fn only_a_problem_of_a_new_kind_does_not_wait_and_even_that_for_a_moment() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let mut throttle = StatusThrottle::new(Duration::from_mins(1), 0);
        assert!(is_due(&mut throttle, &urgent(&[ProblemType::WatermarkUnreachable]), begin));
        throttle.note(urgent(&[ProblemType::WatermarkUnreachable]), false, begin);
        // The same disk with other figures.
        assert!(
            !is_due(&mut throttle, &urgent(&[ProblemType::WatermarkUnreachable]), at(50))
                && !is_due(&mut throttle, &urgent(&[ProblemType::WatermarkUnreachable]), at(59))
                && is_due(&mut throttle, &urgent(&[ProblemType::WatermarkUnreachable]), at(60))
        );
        let more = urgent(&[ProblemType::DeletionFailed, ProblemType::WatermarkUnreachable]);
        assert!(!is_due(&mut throttle, &more, at(4)) && is_due(&mut throttle, &more, at(5)));
        let other =
            UrgentPart { reason: "DirectoryGone".to_owned(), ..urgent(&[ProblemType::WatermarkUnreachable]) };
        assert!(!is_due(&mut throttle, &other, at(4)) && is_due(&mut throttle, &other, at(5)));
    }

    #[test]
    fn that_a_problem_ended_is_written_soon_but_not_by_all_agents_at_once() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let mut throttle = StatusThrottle::new(Duration::from_mins(1), 6_000);
        throttle.note(urgent(&[ProblemType::StoreUnwatched]), false, begin);
        assert!(!is_due(&mut throttle, &urgent(&[]), at(10)) && !is_due(&mut throttle, &urgent(&[]), at(17)));
        assert!(is_due(&mut throttle, &urgent(&[]), at(18)));
        // However often it comes and goes.
        throttle.note(urgent(&[]), false, at(18));
        assert!(!is_due(&mut throttle, &urgent(&[ProblemType::StoreUnwatched]), at(22)));
    }

    #[test]
    fn writes_that_fail_are_tried_ever_more_rarely() {
        let mut now = Instant::now();
        let mut throttle = StatusThrottle::new(Duration::from_mins(1), 0);
        for pause in [10, 20, 40, 80, 160, 300, 300].map(Duration::from_secs) {
            throttle.note(urgent(&[ProblemType::DeletionFailed]), true, now);
            let before = now;
            now += pause;
            assert!(
                !is_due(&mut throttle, &urgent(&[ProblemType::DeletionFailed]), before + pause / 10 * 9),
                "{pause:?}"
            );
            assert!(is_due(&mut throttle, &urgent(&[ProblemType::DeletionFailed]), now), "{pause:?}");
        }
        throttle.note(urgent(&[ProblemType::DeletionFailed]), false, now);
        assert!(is_due(&mut throttle, &urgent(&[ProblemType::DirectoryUnreadable]), now + APART));
    }

    #[test]
    fn what_follows_from_one_change_is_written_at_once_and_not_half_of_it() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let same = urgent(&[]);
        let mut throttle = StatusThrottle::new(Duration::from_mins(1), 0);
        throttle.note(same.clone(), false, begin);
        assert!(!is_due(&mut throttle, &same, at(600)), "more may follow");
        assert!(is_due(&mut throttle, &same, at(602)));
        throttle.note(same.clone(), false, at(602));
        // All was as before again, and then something else changed.
        assert!(!is_due(&mut throttle, &same, at(610)));
        throttle.note_same();
        assert!(!is_due(&mut throttle, &same, at(700)) && is_due(&mut throttle, &same, at(702)));
        // What is urgent waits for nothing.
        assert!(is_due(&mut throttle, &urgent(&[ProblemType::DeletionFailed]), at(700)));
        // Where figures wait for less, they do so here.
        let mut hasty = StatusThrottle::new(Duration::from_secs(1), 8_000);
        hasty.note(same.clone(), false, begin);
        assert!(!is_due(&mut hasty, &same, at(10)) && is_due(&mut hasty, &same, at(11)));
    }

    #[test]
    fn agents_that_learn_of_something_in_the_same_moment_write_in_different_ones() {
        let begin = Instant::now();
        let waits = (0..1_000_u64).map(|agent| {
            let mut throttle =
                StatusThrottle::new(Duration::from_mins(1), agent.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            throttle.note(urgent(&[]), false, begin);
            let changed = begin + Duration::from_hours(1);
            (0..=11)
                .find(|second| is_due(&mut throttle, &urgent(&[]), changed + Duration::from_secs(*second)))
        });
        let mut by_second = BTreeMap::new();
        waits.for_each(|second| *by_second.entry(second).or_insert(0) += 1);
        assert!(by_second.keys().all(|second| second.is_some_and(|second| (2..=10).contains(&second))));
        assert!(by_second.values().all(|agents| *agents < 200), "{by_second:?}");
    }
}

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

/// When the status was last written, and with which urgent part.
#[derive(Debug)]
pub(super) struct StatusThrottle {
    /// How long figures wait after a write.
    interval: Duration,
    /// When the last attempt was made.
    at: Option<Instant>,
    /// How many attempts in a row have failed.
    failures: u32,
    written: UrgentPart,
}

impl StatusThrottle {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, at: None, failures: 0, written: UrgentPart::default() }
    }

    /// Whether a status that differs from the one written may be written now.
    pub(super) fn is_due(&self, urgent: &UrgentPart, now: Instant) -> bool {
        let is_urgent =
            urgent.reason != self.written.reason || !urgent.problems.is_subset(&self.written.problems);
        let pause = match self.failures {
            0 if is_urgent => APART,
            0 => self.interval.max(APART),
            failures => APART.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE),
        };
        self.at.is_none_or(|at| now.duration_since(at) >= pause)
    }

    /// Notes an attempt.
    pub(super) fn note(&mut self, urgent: UrgentPart, has_failed: bool, now: Instant) {
        self.at = Some(now);
        if has_failed {
            self.failures += 1;
        } else {
            (self.failures, self.written) = (0, urgent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urgent(problems: &[ProblemType]) -> UrgentPart {
        UrgentPart { reason: "Collecting".to_owned(), problems: problems.iter().copied().collect() }
    }

    #[test]
    fn only_a_problem_of_a_new_kind_does_not_wait_and_even_that_for_a_moment() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let mut throttle = StatusThrottle::new(Duration::from_mins(1));
        assert!(throttle.is_due(&urgent(&[ProblemType::WatermarkUnreachable]), begin));
        throttle.note(urgent(&[ProblemType::WatermarkUnreachable]), false, begin);
        // The same disk with other figures.
        assert!(
            !throttle.is_due(&urgent(&[ProblemType::WatermarkUnreachable]), at(59))
                && throttle.is_due(&urgent(&[ProblemType::WatermarkUnreachable]), at(60))
        );
        assert!(!throttle.is_due(&urgent(&[]), at(59)), "what is well again may wait");
        let more = urgent(&[ProblemType::DeletionFailed, ProblemType::WatermarkUnreachable]);
        assert!(!throttle.is_due(&more, at(4)) && throttle.is_due(&more, at(5)));
        let other =
            UrgentPart { reason: "DirectoryGone".to_owned(), ..urgent(&[ProblemType::WatermarkUnreachable]) };
        assert!(!throttle.is_due(&other, at(4)) && throttle.is_due(&other, at(5)));
    }

    #[test]
    fn writes_that_fail_are_tried_ever_more_rarely() {
        let mut now = Instant::now();
        let mut throttle = StatusThrottle::new(Duration::from_mins(1));
        for pause in [10, 20, 40, 80, 160, 300, 300].map(Duration::from_secs) {
            throttle.note(urgent(&[ProblemType::DeletionFailed]), true, now);
            let before = now;
            now += pause;
            assert!(
                !throttle.is_due(&urgent(&[ProblemType::DeletionFailed]), before + pause / 10 * 9),
                "{pause:?}"
            );
            assert!(throttle.is_due(&urgent(&[ProblemType::DeletionFailed]), now), "{pause:?}");
        }
        throttle.note(urgent(&[ProblemType::DeletionFailed]), false, now);
        assert!(throttle.is_due(&urgent(&[ProblemType::DirectoryUnreadable]), now + APART));
    }
}

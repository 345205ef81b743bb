//! When the status is written. Pure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::problem_type::ProblemType;

/// No two writes are closer to each other than that.
const APART: Duration = Duration::from_secs(5);

/// The longest pause after writes that failed.
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// What of a status does not wait: without any figure, as those of a full disk are others at each look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct News {
    /// The reason of the condition `Ready`.
    pub(super) reason: String,
    /// The kinds of things that are wrong.
    pub(super) problems: BTreeSet<ProblemType>,
}

/// What was written, and when.
#[derive(Debug)]
pub(super) struct StatusThrottle {
    /// How long figures rest after a write.
    rest: Duration,
    /// The last attempt.
    at: Option<Instant>,
    /// How many have failed in a row.
    failures: u32,
    written: News,
}

impl StatusThrottle {
    pub(super) fn new(rest: Duration) -> Self {
        Self { rest, at: None, failures: 0, written: News::default() }
    }

    /// Whether a status that differs from the one written may be written now.
    pub(super) fn is_due(&self, news: &News, now: Instant) -> bool {
        let is_urgent =
            news.reason != self.written.reason || !news.problems.is_subset(&self.written.problems);
        let pause = match self.failures {
            0 if is_urgent => APART,
            0 => self.rest.max(APART),
            failures => APART.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE),
        };
        self.at.is_none_or(|at| now.duration_since(at) >= pause)
    }

    /// Notes an attempt.
    pub(super) fn note(&mut self, news: News, has_failed: bool, now: Instant) {
        self.at = Some(now);
        if has_failed {
            self.failures += 1;
        } else {
            (self.failures, self.written) = (0, news);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(problems: &[ProblemType]) -> News {
        News { reason: "Collecting".to_owned(), problems: problems.iter().copied().collect() }
    }

    #[test]
    fn only_a_problem_of_a_new_kind_does_not_wait_and_even_that_for_a_moment() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let mut throttle = StatusThrottle::new(Duration::from_mins(1));
        assert!(throttle.is_due(&news(&[ProblemType::WatermarkUnreachable]), begin));
        throttle.note(news(&[ProblemType::WatermarkUnreachable]), false, begin);
        // The same disk with other figures.
        assert!(
            !throttle.is_due(&news(&[ProblemType::WatermarkUnreachable]), at(59))
                && throttle.is_due(&news(&[ProblemType::WatermarkUnreachable]), at(60))
        );
        assert!(!throttle.is_due(&news(&[]), at(59)), "what is well again may wait");
        let more = news(&[ProblemType::DeletionFailed, ProblemType::WatermarkUnreachable]);
        assert!(!throttle.is_due(&more, at(4)) && throttle.is_due(&more, at(5)));
        let other = News { reason: "DirectoryGone".to_owned(), ..news(&[ProblemType::WatermarkUnreachable]) };
        assert!(!throttle.is_due(&other, at(4)) && throttle.is_due(&other, at(5)));
    }

    #[test]
    fn writes_that_fail_are_tried_ever_more_rarely() {
        let mut now = Instant::now();
        let mut throttle = StatusThrottle::new(Duration::from_mins(1));
        for pause in [10, 20, 40, 80, 160, 300, 300].map(Duration::from_secs) {
            throttle.note(news(&[ProblemType::DeletionFailed]), true, now);
            let before = now;
            now += pause;
            assert!(
                !throttle.is_due(&news(&[ProblemType::DeletionFailed]), before + pause / 10 * 9),
                "{pause:?}"
            );
            assert!(throttle.is_due(&news(&[ProblemType::DeletionFailed]), now), "{pause:?}");
        }
        throttle.note(news(&[ProblemType::DeletionFailed]), false, now);
        assert!(throttle.is_due(&news(&[ProblemType::DirectoryUnreadable]), now + APART));
    }
}

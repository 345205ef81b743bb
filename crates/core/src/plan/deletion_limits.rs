//! The deletion limits of a node's storage policies as one.

use std::time::Duration;

use crate::policy::{DeletionLimit, PartialDeletionLimit};

/// The deletion limits of all storage policies of a node: never is deleted faster than any of them allows.
///
/// What a policy leaves out it takes from the others, of several the strictest. Built-in defaults count for what none
/// says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeletionLimits(Vec<DeletionLimit>);

impl Default for DeletionLimits {
    fn default() -> Self {
        Self(vec![DeletionLimit::default()])
    }
}

impl DeletionLimits {
    /// Those of the policies for this node, and of those of which that is not known: these count only as far as they
    /// slow down.
    pub fn new(asked: &[PartialDeletionLimit], unjudged: &[PartialDeletionLimit]) -> Self {
        let mut limits = completed(asked);
        if !unjudged.is_empty() {
            limits.extend(completed(&[asked, unjudged].concat()));
        }
        Self(limits)
    }

    /// The one limit that they come to where `archives` lie in the directory: the least burst, the least percentage, and
    /// as long a period as makes it the slowest of their rates. Which one is the slowest depends on the number of
    /// archives: ten a minute are less than half of them an hour only where there are more than 1200.
    pub fn among(&self, archives: u64) -> DeletionLimit {
        let default = DeletionLimit::default();
        let mut limit = DeletionLimit {
            burst: self.0.iter().map(|limit| limit.burst).min().unwrap_or(default.burst),
            percent: self.0.iter().map(|limit| limit.percent).min().unwrap_or(default.percent),
            period: default.period,
        };
        let capacity = limit.capacity(archives);
        let period = |one: &DeletionLimit| scaled(one.period, capacity, one.capacity(archives));
        limit.period = self.0.iter().map(period).max().unwrap_or(default.period);
        limit
    }
}

/// Each with what it leaves out taken from the others.
fn completed(asked: &[PartialDeletionLimit]) -> Vec<DeletionLimit> {
    let default = DeletionLimit::default();
    let burst = asked.iter().filter_map(|limit| limit.burst).min().unwrap_or(default.burst);
    let percent = asked.iter().filter_map(|limit| limit.percent).min().unwrap_or(default.percent);
    let period = asked.iter().filter_map(|limit| limit.period).max().unwrap_or(default.period);
    if asked.is_empty() {
        return vec![default];
    }
    let complete = |limit: &PartialDeletionLimit| DeletionLimit {
        burst: limit.burst.unwrap_or(burst),
        percent: limit.percent.unwrap_or(percent),
        period: limit.period.unwrap_or(period),
    };
    asked.iter().map(complete).collect()
}

/// `period` times `numerator` by `denominator`, rounded up.
fn scaled(period: Duration, numerator: u64, denominator: u64) -> Duration {
    let nanoseconds = period.as_nanos().saturating_mul(numerator.into()).div_ceil(denominator.max(1).into());
    let seconds = u64::try_from(nanoseconds / 1_000_000_000).unwrap_or(u64::MAX);
    Duration::new(seconds, u32::try_from(nanoseconds % 1_000_000_000).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);
    const HOUR: Duration = Duration::from_hours(1);

    fn limit(burst: u64, percent: u64, period: Duration) -> DeletionLimit {
        DeletionLimit { burst, percent, period }
    }

    fn among(limits: &[DeletionLimit], archives: u64) -> DeletionLimit {
        let asked: Vec<PartialDeletionLimit> = limits.iter().copied().map(Into::into).collect();
        DeletionLimits::new(&asked, &[]).among(archives)
    }

    #[test]
    fn two_limits_of_the_same_rate_come_to_that_rate() {
        let limits = [limit(10, 5, MINUTE), limit(600, 50, HOUR)];
        assert_eq!(among(&limits, 100), limit(10, 5, MINUTE));
        // Of 12 000 archives the one is 600 a minute, the other 6 000 an hour: a hundred a minute.
        assert_eq!(among(&limits, 12_000), limit(10, 5, 6 * MINUTE));
    }

    #[test]
    fn what_a_policy_leaves_out_it_takes_from_the_others() {
        let none = PartialDeletionLimit::default();
        let one = PartialDeletionLimit { burst: Some(200), percent: Some(20), ..none };
        let other = PartialDeletionLimit { period: Some(MINUTE / 2), ..none };
        for asked in [&[one, other][..], &[other, none, one]] {
            assert_eq!(DeletionLimits::new(asked, &[]).among(100), limit(200, 20, MINUTE / 2));
        }
        assert_eq!(DeletionLimits::new(&[one], &[]).among(100), limit(200, 20, MINUTE));
        assert_eq!(DeletionLimits::new(&[other], &[]).among(100), limit(10, 5, MINUTE / 2));
        for nothing in [&[][..], &[none]] {
            assert_eq!(DeletionLimits::new(nothing, &[]).among(100), DeletionLimit::default());
        }
        assert_eq!(DeletionLimits::default().among(100), DeletionLimit::default());
    }

    #[test]
    fn a_policy_that_may_be_for_other_nodes_does_not_make_it_faster() {
        let none = PartialDeletionLimit::default();
        let fast = PartialDeletionLimit { period: Some(MINUTE / 60), ..none };
        let slow = PartialDeletionLimit { period: Some(HOUR), ..none };
        let burst = PartialDeletionLimit { burst: Some(20), ..none };
        for (asked, expected) in [(&[][..], limit(10, 5, MINUTE)), (&[burst], limit(20, 5, MINUTE))] {
            assert_eq!(DeletionLimits::new(asked, &[fast]).among(100), expected);
            assert_eq!(
                DeletionLimits::new(asked, &[slow]).among(100),
                DeletionLimit { period: HOUR, ..expected }
            );
        }
    }

    /// Deletions a second, with what rounding may change.
    #[allow(clippy::cast_precision_loss, reason = "the figures are small")]
    fn rate(limit: DeletionLimit, archives: u64) -> f64 {
        limit.capacity(archives) as f64 / limit.period.as_secs_f64()
    }

    #[test]
    fn together_they_are_as_slow_as_the_slowest_and_no_slower() {
        let mut limits = Vec::new();
        for burst in [0, 1, 10, 600] {
            for percent in [0, 1, 5, 50, 100] {
                limits.extend([MINUTE / 60, MINUTE, HOUR].map(|period| limit(burst, percent, period)));
            }
        }
        for one in &limits {
            for other in &limits {
                for archives in [0, 1, 30, 1_000, 1_000_000] {
                    let both = [*one, *other];
                    let together = among(&both, archives);
                    let slowest = rate(*one, archives).min(rate(*other, archives));
                    let rate = rate(together, archives);
                    assert!((rate / slowest - 1.0).abs() < 1e-6, "{both:?} of {archives}: {together:?}");
                    for limit in both {
                        assert!(together.capacity(archives) <= limit.capacity(archives), "{both:?}");
                    }
                }
            }
        }
    }
}

//! The deletion bucket: how fast policies may empty a node, so that a typo does not empty the fleet.

use std::time::Duration;

use crate::policy::DeletionLimit;

/// How long an arrival's token is good for, and at most twice as long: an archive displaces another as
/// soon as it has settled. Were it good for ever, a node that was filled in peace would have saved up
/// for the very day on which a limit is mistyped.
const ARRIVALS_COUNT_FOR: Duration = Duration::from_mins(1);

/// A token bucket that policy deletions draw from (promise 11).
///
/// By default it starts full; it refills at its capacity a period. Every archive that arrives puts a
/// token on top, so that steady rotation never waits, and that token is soon gone again. Time is the
/// monotonic clock's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeletionBucket {
    tokens: f64,
    /// When it was last refilled; none before the first use.
    filled_at: Option<Duration>,
    arrivals: Arrivals,
}

/// What arrivals put on top.
#[derive(Debug, Clone, Default, PartialEq)]
struct Arrivals {
    /// Of the current minute.
    fresh: f64,
    /// Of the one before.
    stale: f64,
    /// When the current one began.
    since: Duration,
}

impl Arrivals {
    fn expire(&mut self, uptime: Duration) {
        let passed = uptime.saturating_sub(self.since);
        if passed < ARRIVALS_COUNT_FOR {
            return;
        }
        let fresh = std::mem::take(&mut self.fresh);
        self.stale = if passed < 2 * ARRIVALS_COUNT_FOR { fresh } else { 0.0 };
        self.since = uptime;
    }
}

impl DeletionBucket {
    /// A bucket that has yet to fill: whoever restarts again and again deletes no faster for it.
    pub fn empty(uptime: Duration) -> Self {
        Self { tokens: 0.0, filled_at: Some(uptime), arrivals: Arrivals::default() }
    }

    /// Refills for the time since the last call and says how many deletions may begin now.
    /// `uptime` is monotonic; `archives` is how many lie in the directory; `arrived` is how many came
    /// since the last call.
    pub fn allowance(&mut self, limit: DeletionLimit, archives: u64, arrived: u64, uptime: Duration) -> u64 {
        let capacity = limit.capacity(archives) as f64;
        let period = limit.period.as_secs_f64().max(1.0);
        let refill = self
            .filled_at
            .map_or(capacity, |then| capacity * uptime.saturating_sub(then).as_secs_f64() / period);
        // Filling ends at the brim.
        self.tokens = self.tokens.max((self.tokens + refill).min(capacity));
        self.filled_at = Some(uptime);
        self.arrivals.expire(uptime);
        self.arrivals.fresh += arrived as f64;
        whole(self.tokens + self.arrivals.stale + self.arrivals.fresh)
    }

    /// Takes a token for every policy deletion that was begun: first those that go soonest.
    pub fn spend(&mut self, deletions: u64) {
        let mut due = deletions as f64;
        for tokens in [&mut self.arrivals.stale, &mut self.arrivals.fresh, &mut self.tokens] {
            let taken = tokens.min(due);
            *tokens -= taken;
            due -= taken;
        }
    }
}

/// Whole tokens.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `as` saturates, and tokens are never negative
fn whole(tokens: f64) -> u64 {
    tokens as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn starts_full_and_refills_at_its_capacity_a_minute() {
        let limit = DeletionLimit::default();
        let mut bucket = DeletionBucket::default();
        assert_eq!(bucket.allowance(limit, 1_000, 0, MINUTE), 50);
        bucket.spend(50);
        assert_eq!(bucket.allowance(limit, 1_000, 0, MINUTE), 0);
        assert_eq!(bucket.allowance(limit, 1_000, 0, MINUTE + MINUTE / 2), 25);
        assert_eq!(bucket.allowance(limit, 1_000, 0, 60 * MINUTE), 50);
    }

    #[test]
    fn an_empty_one_fills_within_a_period() {
        let mut bucket = DeletionBucket::empty(MINUTE);
        assert_eq!(bucket.allowance(DeletionLimit::default(), 1_000, 0, MINUTE), 0);
        assert_eq!(bucket.allowance(DeletionLimit::default(), 1_000, 0, 2 * MINUTE), 50);
    }

    #[test]
    fn never_holds_less_than_ten() {
        let mut bucket = DeletionBucket::default();
        assert_eq!(bucket.allowance(DeletionLimit::default(), 3, 0, MINUTE), 10);
    }

    #[test]
    fn an_arrival_pays_for_the_archive_it_displaces() {
        let limit = DeletionLimit::default();
        let mut bucket = DeletionBucket::default();
        bucket.allowance(limit, 10, 0, MINUTE);
        bucket.spend(10);
        for _ in 0..100 {
            assert_eq!(bucket.allowance(limit, 10, 1, MINUTE), 1);
            bucket.spend(1);
        }
        assert_eq!(bucket.allowance(limit, 10, 0, MINUTE), 0);
        // A burst larger than the bucket pays for itself, too.
        assert_eq!(bucket.allowance(limit, 10, 500, MINUTE), 500);
        bucket.spend(495);
        assert_eq!(bucket.allowance(limit, 10, 0, MINUTE), 5);
    }

    #[test]
    fn what_arrived_in_peace_saves_nothing_up_for_a_mistyped_limit() {
        let limit = DeletionLimit::default();
        let mut bucket = DeletionBucket::default();
        let mut uptime = MINUTE;
        for archives in 0..10_000 {
            uptime += Duration::from_secs(10);
            assert!(bucket.allowance(limit, archives, 1, uptime) <= limit.capacity(archives) + 12);
        }
        // Two minutes later, the bucket is all there is.
        assert_eq!(bucket.allowance(limit, 10_000, 0, uptime + 2 * MINUTE), 500);
        bucket.spend(500);
        assert_eq!(bucket.allowance(limit, 9_500, 0, uptime + 2 * MINUTE), 0);
    }

    #[test]
    fn the_tokens_that_expire_first_are_spent_first() {
        let limit = DeletionLimit::default();
        let mut bucket = DeletionBucket::default();
        assert_eq!(bucket.allowance(limit, 10, 7, MINUTE), 17);
        bucket.spend(7);
        // Of those on top nothing is left, and the bucket is still full.
        assert_eq!(bucket.allowance(limit, 10, 0, MINUTE), 10);
        assert_eq!(bucket.allowance(limit, 10, 0, 10 * MINUTE), 10);
    }
}

//! The deletion bucket: how fast policies may empty a node, so that a typo does not empty the fleet.

use std::time::Duration;

use crate::policy::DeletionLimit;

/// A token bucket that policy deletions draw from (promise 11).
///
/// By default it starts full; it refills at its capacity a period, and gains a token for every archive that
/// arrives, so that steady rotation never waits. Time is the monotonic clock's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeletionBucket {
    tokens: f64,
    /// When it was last refilled; none before the first use.
    filled_at: Option<Duration>,
}

impl DeletionBucket {
    /// A bucket that has yet to fill: whoever restarts again and again deletes no faster for it.
    pub fn empty(uptime: Duration) -> Self {
        Self { tokens: 0.0, filled_at: Some(uptime) }
    }

    /// Refills for the time since the last call and says how many deletions may begin now.
    /// `uptime` is monotonic; `archives` is how many lie in the directory.
    pub fn allowance(&mut self, limit: DeletionLimit, archives: u64, uptime: Duration) -> u64 {
        let capacity = limit.capacity(archives) as f64;
        let period = limit.period.as_secs_f64().max(1.0);
        let refill = self
            .filled_at
            .map_or(capacity, |then| capacity * uptime.saturating_sub(then).as_secs_f64() / period);
        // Filling ends at the brim; what arrivals put on top stays.
        self.tokens = self.tokens.max((self.tokens + refill).min(capacity));
        self.filled_at = Some(uptime);
        whole(self.tokens)
    }

    /// Adds a token for every archive that arrived.
    pub fn arrived(&mut self, archives: u64) {
        self.tokens += archives as f64;
    }

    /// Takes a token for every policy deletion that was begun.
    pub fn spend(&mut self, deletions: u64) {
        self.tokens = (self.tokens - deletions as f64).max(0.0);
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
        assert_eq!(bucket.allowance(limit, 1_000, MINUTE), 50);
        bucket.spend(50);
        assert_eq!(bucket.allowance(limit, 1_000, MINUTE), 0);
        assert_eq!(bucket.allowance(limit, 1_000, MINUTE + MINUTE / 2), 25);
        assert_eq!(bucket.allowance(limit, 1_000, 60 * MINUTE), 50);
    }

    #[test]
    fn an_empty_one_fills_within_a_period() {
        let mut bucket = DeletionBucket::empty(MINUTE);
        assert_eq!(bucket.allowance(DeletionLimit::default(), 1_000, MINUTE), 0);
        assert_eq!(bucket.allowance(DeletionLimit::default(), 1_000, 2 * MINUTE), 50);
    }

    #[test]
    fn never_holds_less_than_ten() {
        let mut bucket = DeletionBucket::default();
        assert_eq!(bucket.allowance(DeletionLimit::default(), 3, MINUTE), 10);
    }

    #[test]
    fn an_arrival_pays_for_the_archive_it_displaces() {
        let limit = DeletionLimit::default();
        let mut bucket = DeletionBucket::default();
        bucket.allowance(limit, 10, MINUTE);
        bucket.spend(10);
        for _ in 0..100 {
            bucket.arrived(1);
            assert_eq!(bucket.allowance(limit, 10, MINUTE), 1);
            bucket.spend(1);
        }
        assert_eq!(bucket.allowance(limit, 10, MINUTE), 0);
        // A burst larger than the bucket pays for itself, too.
        bucket.arrived(500);
        assert_eq!(bucket.allowance(limit, 10, MINUTE), 500);
        bucket.spend(495);
        assert_eq!(bucket.allowance(limit, 10, 2 * MINUTE), 10);
    }
}

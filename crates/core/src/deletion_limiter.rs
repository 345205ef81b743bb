//! The limit on deletions, as buckets that fill up: how fast policies may empty a node, so that a typo does not empty the fleet.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::plan::{Allowance, Draw};
use crate::policy::DeletionLimit;

/// How long a token from an arrival lasts: it expires after one to two of these periods. That is enough, as an archive
/// displaces another as soon as it has settled. If tokens did not expire, a node that filled up slowly would have saved
/// enough of them to be emptied at once by a mistyped limit.
const ARRIVALS_COUNT_FOR: Duration = Duration::from_mins(1);

/// The buckets of a node: one that policies' deletions draw from, and one for the watermark.
///
/// By default they start full; they refill at their capacity a period. Every archive that arrives brings a
/// token along for deletions of its own namespace, so that steady rotation never waits, and that token is
/// soon gone again. Time is the monotonic clock's.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeletionLimiter {
    policies: Bucket,
    watermark: Bucket,
    /// By namespace; the empty name stands for archives whose namespace is unknown.
    arrivals: BTreeMap<String, Arrivals>,
}

/// A bucket of tokens.
#[derive(Debug, Clone, Default, PartialEq)]
struct Bucket {
    tokens: f64,
    /// When it was last refilled; none before the first use.
    filled_at: Option<Duration>,
}

impl Bucket {
    fn empty(uptime: Duration) -> Self {
        Self { tokens: 0.0, filled_at: Some(uptime) }
    }

    fn refill(&mut self, limit: DeletionLimit, archives: u64, uptime: Duration) -> u64 {
        let capacity = limit.capacity(archives) as f64;
        let period = limit.period.as_secs_f64().max(1.0);
        let refill = self
            .filled_at
            .map_or(capacity, |then| capacity * uptime.saturating_sub(then).as_secs_f64() / period);
        // Filling ends at the brim.
        self.tokens = self.tokens.max((self.tokens + refill).min(capacity));
        self.filled_at = Some(uptime);
        whole(self.tokens)
    }

    fn spend(&mut self) {
        self.tokens = (self.tokens - 1.0).max(0.0);
    }
}

/// The tokens that arrivals in one namespace brought along.
#[derive(Debug, Clone, Default, PartialEq)]
struct Arrivals {
    /// Of the current minute.
    fresh: u64,
    /// Of the one before.
    stale: u64,
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
        self.stale = if passed < 2 * ARRIVALS_COUNT_FOR { fresh } else { 0 };
        self.since = uptime;
    }

    fn tokens(&self) -> u64 {
        self.stale.saturating_add(self.fresh)
    }
}

impl DeletionLimiter {
    /// Empty buckets: a process that restarts again and again does not delete faster.
    pub fn empty(uptime: Duration) -> Self {
        Self { policies: Bucket::empty(uptime), watermark: Bucket::empty(uptime), ..Self::default() }
    }

    /// Refills for the time since the last call and says how many deletions may begin now.
    /// `uptime` is monotonic; `archives` is how many lie in the directory; `arrived` is how many came
    /// since the last call, by namespace.
    pub fn allowance(
        &mut self,
        limit: DeletionLimit,
        archives: u64,
        arrived: BTreeMap<String, u64>,
        uptime: Duration,
    ) -> Allowance {
        for (namespace, count) in arrived {
            let own = self
                .arrivals
                .entry(namespace)
                .or_insert_with(|| Arrivals { since: uptime, ..Arrivals::default() });
            own.expire(uptime);
            own.fresh = own.fresh.saturating_add(count);
        }
        self.arrivals.retain(|_, own| {
            own.expire(uptime);
            own.tokens() > 0
        });
        Allowance {
            shared: self.policies.refill(limit, archives, uptime),
            arrived: self.arrivals.iter().map(|(name, own)| (name.clone(), own.tokens())).collect(),
            watermark: self.watermark.refill(limit, archives, uptime),
        }
    }

    /// Takes the token for a deletion that was begun, of an archive of that namespace; of those that arrivals
    /// brought along, the one that goes soonest.
    pub fn spend(&mut self, draw: Draw, namespace: &str) {
        match draw {
            Draw::Nothing => {}
            Draw::Shared => self.policies.spend(),
            Draw::Watermark => self.watermark.spend(),
            Draw::Arrival => {
                if let Some(own) = self.arrivals.get_mut(namespace) {
                    if own.stale > 0 {
                        own.stale -= 1;
                    } else {
                        own.fresh = own.fresh.saturating_sub(1);
                    }
                }
            }
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

    fn none() -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    fn of(namespace: &str, count: u64) -> BTreeMap<String, u64> {
        [(namespace.to_owned(), count)].into()
    }

    fn spend(buckets: &mut DeletionLimiter, draw: Draw, namespace: &str, times: u64) {
        (0..times).for_each(|_| buckets.spend(draw, namespace));
    }

    #[test]
    fn each_starts_full_and_refills_at_its_capacity_a_minute() {
        let limit = DeletionLimit::default();
        let mut buckets = DeletionLimiter::default();
        let at = |buckets: &mut DeletionLimiter, uptime| {
            let allowance = buckets.allowance(limit, 1_000, none(), uptime);
            (allowance.shared, allowance.watermark)
        };
        assert_eq!(at(&mut buckets, MINUTE), (50, 50));
        spend(&mut buckets, Draw::Shared, "", 50);
        assert_eq!(at(&mut buckets, MINUTE), (0, 50), "the watermark has one of its own");
        spend(&mut buckets, Draw::Watermark, "", 30);
        spend(&mut buckets, Draw::Nothing, "", 30);
        assert_eq!(at(&mut buckets, MINUTE), (0, 20));
        assert_eq!(at(&mut buckets, MINUTE + MINUTE / 2), (25, 45));
        assert_eq!(at(&mut buckets, 60 * MINUTE), (50, 50));
    }

    #[test]
    fn an_empty_one_fills_within_a_period() {
        let mut buckets = DeletionLimiter::empty(MINUTE);
        let mut shared = |uptime| {
            let allowance = buckets.allowance(DeletionLimit::default(), 1_000, none(), uptime);
            assert_eq!(allowance.shared, allowance.watermark);
            allowance.shared
        };
        assert_eq!((shared(MINUTE), shared(2 * MINUTE)), (0, 50));
    }

    #[test]
    fn never_holds_less_than_ten_and_by_no_limit_less_than_one() {
        let capacity =
            |burst, percent, archives| DeletionLimit { burst, percent, period: MINUTE }.capacity(archives);
        assert_eq!(DeletionLimit::default().capacity(3), 10);
        assert_eq!((capacity(0, 5, 3), capacity(0, 0, 1_000), capacity(0, 5, 1_000)), (1, 1, 50));
    }

    #[test]
    fn an_arrival_pays_for_the_archive_it_displaces_in_its_own_namespace() {
        let limit = DeletionLimit::default();
        let mut buckets = DeletionLimiter::default();
        buckets.allowance(limit, 10, none(), MINUTE);
        spend(&mut buckets, Draw::Shared, "", 10);
        for _ in 0..100 {
            let allowance = buckets.allowance(limit, 10, of("shop", 1), MINUTE);
            assert_eq!((allowance.shared, &allowance.arrived), (0, &of("shop", 1)));
            buckets.spend(Draw::Arrival, "elsewhere");
            buckets.spend(Draw::Arrival, "shop");
        }
        assert_eq!(buckets.allowance(limit, 10, none(), MINUTE).arrived, none());
        // A burst larger than the bucket pays for itself, too.
        assert_eq!(buckets.allowance(limit, 10, of("shop", 500), MINUTE).arrived, of("shop", 500));
        spend(&mut buckets, Draw::Arrival, "shop", 495);
        assert_eq!(buckets.allowance(limit, 10, none(), MINUTE).arrived, of("shop", 5));
    }

    #[test]
    fn what_arrived_in_peace_saves_nothing_up_for_a_mistyped_limit() {
        let limit = DeletionLimit::default();
        let mut buckets = DeletionLimiter::default();
        let mut uptime = MINUTE;
        for archives in 0..10_000 {
            uptime += Duration::from_secs(10);
            let allowance = buckets.allowance(limit, archives, of("shop", 1), uptime);
            assert!(allowance.shared <= limit.capacity(archives));
            assert!(allowance.arrived["shop"] <= 12);
        }
        // Two minutes later, the bucket is all there is.
        let later = buckets.allowance(limit, 10_000, none(), uptime + 2 * MINUTE);
        assert_eq!((later.shared, later.arrived), (500, none()));
        assert_eq!(buckets.arrivals.len(), 0, "nothing is remembered of namespaces that are quiet");
    }

    #[test]
    fn the_tokens_that_expire_first_are_spent_first() {
        let limit = DeletionLimit::default();
        let mut buckets = DeletionLimiter::default();
        let own = |buckets: &mut DeletionLimiter, arrived, uptime| {
            buckets.allowance(limit, 10, arrived, uptime).arrived.get("shop").copied()
        };
        assert_eq!(own(&mut buckets, of("shop", 7), MINUTE), Some(7));
        assert_eq!(own(&mut buckets, of("shop", 2), 2 * MINUTE), Some(9));
        spend(&mut buckets, Draw::Arrival, "shop", 4);
        assert_eq!(own(&mut buckets, none(), 2 * MINUTE), Some(5));
        spend(&mut buckets, Draw::Arrival, "shop", 3);
        assert_eq!(own(&mut buckets, none(), 3 * MINUTE), Some(2), "the seven would be gone by now");
    }

    #[test]
    fn what_an_arrival_brought_along_is_gone_after_two_minutes() {
        let left = |began: u64, later: u64| {
            let limit = DeletionLimit::default();
            let mut buckets = DeletionLimiter::default();
            buckets.allowance(limit, 10, of("shop", 3), Duration::from_secs(began));
            let allowance = buckets.allowance(limit, 10, none(), Duration::from_secs(began + later));
            allowance.arrived.get("shop").copied()
        };
        // Also if it came right after the boot.
        for began in [60, 30] {
            assert_eq!([60, 119, 120].map(|later| left(began, later)), [Some(3), Some(3), None], "{began}");
        }
    }
}

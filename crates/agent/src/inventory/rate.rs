//! How fast the API is written to.

use std::time::{Duration, Instant};

/// So many writes may be made at once.
const BURST: f64 = 40.0;

/// So many writes a second may follow.
const RATE: f64 = 5.0;

/// A bucket of writes.
#[derive(Debug)]
pub(super) struct WriteRate {
    tokens: f64,
    at: Instant,
}

impl WriteRate {
    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: BURST, at: now }
    }

    /// How long to wait before the next write, which is counted here.
    pub(super) fn next(&mut self, now: Instant) -> Duration {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.tokens, self.at) = (RATE.mul_add(passed, self.tokens).min(BURST) - 1.0, now.max(self.at));
        Duration::from_secs_f64((-self.tokens / RATE).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_written_at_once_and_a_flood_at_a_steady_rate() {
        let mut now = Instant::now();
        let begin = now;
        let mut rate = WriteRate::new(now);
        for _ in 0..40 {
            assert_eq!(rate.next(now), Duration::ZERO);
        }
        for _ in 0..100 {
            now += rate.next(now);
        }
        let took = (now - begin).as_secs_f64();
        assert!((19.0..=21.0).contains(&took), "{took}");
        now += Duration::from_mins(1);
        assert_eq!(rate.next(now), Duration::ZERO);
    }
}

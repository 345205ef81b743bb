//! Limits how often the memory is written while nothing begins or ends: what has begun or ended is written at once.

use std::time::Duration;

/// So often it may be written at once.
const BURST: u32 = 10;
/// After this time it may be written once more.
const REFILL: Duration = Duration::from_secs(5);

/// How often something may still be kept.
#[derive(Debug)]
pub(super) struct Keeping {
    left: u32,
    /// Since when the next time comes, by the uptime.
    since: Duration,
    /// Whether there is something that is not kept yet.
    waits: bool,
}

impl Default for Keeping {
    fn default() -> Self {
        Self { left: BURST, since: Duration::ZERO, waits: false }
    }
}

impl Keeping {
    /// Whether what only waits may be kept now; if so, it is. Otherwise it waits.
    pub(super) fn take(&mut self, uptime: Duration) -> bool {
        self.fill(uptime);
        self.waits = self.left == 0;
        self.left = self.left.saturating_sub(1);
        !self.waits
    }

    /// Notes that all is kept.
    pub(super) fn note_kept(&mut self) {
        self.waits = false;
    }

    /// How long until what waits may be kept; none: nothing waits.
    pub(super) fn wakes_in(&self, uptime: Duration) -> Option<Duration> {
        self.waits.then(|| self.since.saturating_add(REFILL).saturating_sub(uptime))
    }

    fn fill(&mut self, uptime: Duration) {
        let passed = uptime.saturating_sub(self.since);
        let more = u32::try_from(passed.as_secs() / REFILL.as_secs()).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(more).min(BURST);
        // A full one begins to count when it is taken from.
        self.since = if self.left == BURST { uptime } else { self.since.saturating_add(REFILL * more) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_some_at_once_and_then_one_each_five_seconds() {
        let mut keeping = Keeping::default();
        let second = Duration::from_secs;
        let kept: Vec<u64> = (100..130).filter(|at| keeping.take(second(*at))).collect();
        assert_eq!(kept, [100, 101, 102, 103, 104, 105, 106, 107, 108, 109, 110, 111, 115, 120, 125]);
        assert_eq!(keeping.wakes_in(second(129)), Some(second(1)));
        keeping.note_kept();
        assert_eq!(keeping.wakes_in(second(129)), None);
        // After a rest there are as many again as at first, however long it was.
        let rested = second(100_000_000_000);
        assert_eq!((0..100).filter(|_| keeping.take(rested)).count(), BURST as usize);
    }
}

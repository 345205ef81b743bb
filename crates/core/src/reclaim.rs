//! Whether deleting for the watermark frees space, and so how it continues.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::plan::Release;

/// How long to wait for deleted blocks to appear as free space: some file systems free them only with their next
/// commit.
const SHOWS_WITHIN: Duration = Duration::from_mins(5);

/// Back-off of the watermark after the first round that freed nothing; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_mins(1);

/// Longest back-off.
const LONGEST_PAUSE: Duration = Duration::from_hours(6);

/// The outcome of the watermark's rounds so far. Times are from the monotonic clock.
///
/// A round has freed what `statvfs` shows afterwards. A snapshot, a reflink or an open file may still hold the
/// blocks, or another process may fill the space as fast as it is freed: deleting more archives would then not
/// help. So after a round that freed less than half of the expected bytes, one archive is deleted at a time, with
/// growing pauses, until free space grows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reclaim {
    round: Option<Round>,
    /// How many rounds in a row freed too little.
    failures: u32,
    /// When the next one may begin, if any failed.
    next: Duration,
}

/// A round that was begun.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Round {
    /// What was available before, in bytes.
    available: u64,
    /// What was unlinked since, in bytes.
    unlinked: u64,
    /// Until when to wait for the freed space, once the last deletion is over.
    until: Option<Duration>,
}

impl Reclaim {
    /// Begins a round; `available` is the free space before it, in bytes.
    pub fn begin(&mut self, available: u64) {
        self.round.get_or_insert(Round { available, unlinked: 0, until: None });
    }

    /// Notes that an archive that occupied `bytes` was deleted for the watermark.
    pub fn unlinked(&mut self, bytes: u64) {
        if let Some(round) = &mut self.round {
            round.unlinked = round.unlinked.saturating_add(bytes);
        }
    }

    /// Takes the free space in bytes, and whether deletions are still under way. Returns whether the watermark may
    /// delete more.
    pub fn observe(&mut self, available: u64, is_deleting: bool, uptime: Duration) -> Release {
        if is_deleting {
            return Release::Awaited;
        }
        if let Some(round) = &mut self.round {
            let is_shown = available >= round.available.saturating_add(round.unlinked / 2);
            if round.unlinked == 0 {
                // Nothing went, so there is nothing to wait for, and nothing was learned.
                self.round = None;
            } else if is_shown {
                *self = Self::default();
            } else if uptime < *round.until.get_or_insert(uptime + SHOWS_WITHIN) {
                return Release::Awaited;
            } else {
                self.round = None;
                let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(20)).min(LONGEST_PAUSE);
                (self.failures, self.next) = (self.failures + 1, uptime + pause);
            }
        }
        match self.failures {
            0 => Release::Shown,
            _ if uptime < self.next => Release::Awaited,
            _ => Release::Probing,
        }
    }

    /// The same after a reboot, which restarts the uptime: all waiting is over.
    #[must_use]
    pub fn after_reboot(mut self) -> Self {
        if let Some(round) = &mut self.round {
            round.until = Some(Duration::ZERO);
        }
        self.next = Duration::ZERO;
        self
    }

    /// How many rounds in a row freed too little.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn a_round_that_shows_is_followed_by_the_next_one() {
        let mut reclaim = Reclaim::default();
        assert_eq!(reclaim.observe(100, false, SECOND), Release::Shown);
        reclaim.begin(100);
        reclaim.unlinked(50);
        assert_eq!(reclaim.observe(100, true, SECOND), Release::Awaited, "deletions are under way");
        assert_eq!(reclaim.observe(124, false, SECOND), Release::Awaited);
        assert_eq!(reclaim.observe(124, false, 5 * MINUTE), Release::Awaited);
        assert_eq!(reclaim.observe(125, false, 5 * MINUTE), Release::Shown, "half is enough");
        assert_eq!(reclaim, Reclaim::default());
    }

    #[test]
    fn after_rounds_that_do_not_show_one_archive_goes_at_a_time_and_more_and_more_rarely() {
        let mut reclaim = Reclaim::default();
        let mut now = SECOND;
        for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360].map(|minutes| minutes * MINUTE) {
            reclaim.begin(100);
            reclaim.unlinked(50);
            assert_eq!(reclaim.observe(110, false, now), Release::Awaited);
            now += SHOWS_WITHIN;
            assert_eq!(reclaim.observe(110, false, now), Release::Awaited, "rests for {pause:?}");
            assert!(reclaim.failures() > 0);
            assert_eq!(
                reclaim.observe(110, false, now.saturating_add(pause).saturating_sub(SECOND)),
                Release::Awaited
            );
            now += pause;
            assert_eq!(reclaim.observe(110, false, now), Release::Probing);
        }
        reclaim.begin(110);
        reclaim.unlinked(10);
        assert_eq!(reclaim.observe(115, false, now), Release::Shown, "what holds the blocks is gone");
        assert_eq!(reclaim.failures(), 0);
    }

    /// What holds the blocks may hold them still.
    #[test]
    fn a_reboot_ends_all_waiting_and_forgets_no_round_that_did_not_show() {
        let mut failed = Reclaim::default();
        failed.begin(100);
        failed.unlinked(50);
        assert_eq!(failed.observe(110, false, SECOND), Release::Awaited);
        let mut under_way = failed.clone().after_reboot();
        assert_eq!(failed.observe(110, false, SECOND + SHOWS_WITHIN), Release::Awaited);
        let mut failed = failed.after_reboot();
        assert_eq!((failed.observe(110, false, SECOND), failed.failures()), (Release::Probing, 1));
        // One that was under way has had its time.
        assert_eq!((under_way.observe(110, false, SECOND), under_way.failures()), (Release::Awaited, 1));
        assert_eq!(under_way.observe(110, false, SECOND + MINUTE), Release::Probing);
    }

    #[test]
    fn a_round_in_which_nothing_went_is_not_waited_for() {
        let mut reclaim = Reclaim::default();
        reclaim.begin(100);
        assert_eq!(reclaim.observe(100, false, SECOND), Release::Shown);
        reclaim.unlinked(10);
        assert_eq!(reclaim.observe(100, false, SECOND), Release::Shown, "no round was begun");
    }
}

//! The two clocks, and whether the one that people set can be believed.

use std::time::Duration;

use checkpoint_keeper_core::plan;
use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// How far the wall clock may stray from the monotonic clock's progress.
const TOLERANCE: Duration = Duration::from_mins(5);

/// One moment by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The wall clock: what ages are measured by.
    pub wall: Timestamp,
    /// The time since some fixed moment, sleep included: what waiting is measured by.
    pub uptime: Duration,
}

impl Now {
    /// Reads both clocks.
    pub fn read() -> Self {
        let uptime = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(uptime.tv_sec).unwrap_or(0);
        let nanoseconds = u32::try_from(uptime.tv_nsec).unwrap_or(0);
        Self { wall: Timestamp::now(), uptime: Duration::new(seconds, nanoseconds) }
    }
}

/// Watches whether the wall clock goes on as the monotonic clock does.
#[derive(Debug, Clone, Copy)]
pub struct ClockWatch {
    start: Now,
}

impl ClockWatch {
    /// Believes the wall clock as it is at `start`.
    pub fn new(start: Now) -> Self {
        Self { start }
    }

    /// Whether the wall clock still agrees. It is believed again when it comes back.
    pub fn judge(&self, now: Now) -> plan::Clock {
        let elapsed = now.uptime.saturating_sub(self.start.uptime);
        let expected = self.start.wall.checked_add(elapsed).unwrap_or(Timestamp::MAX);
        if now.wall.duration_since(expected).unsigned_abs() <= TOLERANCE {
            plan::Clock::Trusted
        } else {
            plan::Clock::Suspect
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_jumps_is_not_believed_until_it_comes_back() {
        let now = |wall, uptime| Now {
            wall: Timestamp::from_second(wall).unwrap(),
            uptime: Duration::from_secs(uptime),
        };
        let watch = ClockWatch::new(now(1_000_000, 50));
        assert_eq!(watch.judge(now(1_003_600, 3_650)), plan::Clock::Trusted);
        assert_eq!(watch.judge(now(1_003_900, 3_650)), plan::Clock::Trusted);
        assert_eq!(watch.judge(now(1_003_901, 3_650)), plan::Clock::Suspect);
        assert_eq!(watch.judge(now(1_003_299, 3_650)), plan::Clock::Suspect);
        assert_eq!(watch.judge(now(9_000_000, 51)), plan::Clock::Suspect);
        assert_eq!(watch.judge(now(1_000_010, 60)), plan::Clock::Trusted);
    }
}

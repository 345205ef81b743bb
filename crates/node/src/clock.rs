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

/// How long a wall clock that was set must then go on as it should, to be believed as it is.
const PROBATION: Duration = Duration::from_hours(1);

/// Watches whether the wall clock goes on as the monotonic clock does.
#[derive(Debug, Clone, Copy)]
pub struct ClockWatch {
    believed: Now,
    /// When the wall clock was first seen as it is since it was set.
    doubted: Option<Now>,
    /// What time it last was by the API server's clock.
    server: Option<Now>,
    /// Whether there is a server, so that nothing is believed before it was heard.
    needs_server: bool,
}

impl ClockWatch {
    /// Believes the wall clock as it is at `start`.
    pub fn new(start: Now) -> Self {
        Self { believed: start, doubted: None, server: None, needs_server: false }
    }

    /// There is a server whose clock is to be heard before this one is believed. Once is enough: a
    /// server that is away later is no reason to doubt.
    pub fn need_server(&mut self) {
        self.needs_server = true;
    }

    /// Whether the server's clock has yet to be heard.
    pub fn is_unheard(&self) -> bool {
        self.needs_server && self.server.is_none()
    }

    /// Hears what time it is by the API server's clock.
    pub fn hear(&mut self, server_time: Timestamp, now: Now) {
        self.server = Some(Now { wall: server_time, ..now });
    }

    /// Whether the wall clock strays from the API server's, as far as that was heard.
    pub fn strays_from_server(&self, now: Now) -> bool {
        self.server.is_some_and(|server| !agrees(server, now))
    }

    /// Whether the wall clock is to be believed: it agrees with the API server's, and with the time
    /// that passed, again, or for long enough since it was set.
    pub fn judge(&mut self, now: Now) -> plan::Clock {
        let progress = self.judge_progress(now);
        let is_wrong = self.is_unheard() || self.strays_from_server(now);
        if is_wrong { plan::Clock::Suspect } else { progress }
    }

    fn judge_progress(&mut self, now: Now) -> plan::Clock {
        if agrees(self.believed, now) {
            self.doubted = None;
            return plan::Clock::Trusted;
        }
        let doubted = *self.doubted.get_or_insert(now);
        if !agrees(doubted, now) {
            self.doubted = Some(now);
        } else if now.uptime.saturating_sub(doubted.uptime) >= PROBATION {
            (self.believed, self.doubted) = (now, None);
            return plan::Clock::Trusted;
        }
        plan::Clock::Suspect
    }
}

/// Whether as much time has passed by the one clock as by the other.
fn agrees(then: Now, now: Now) -> bool {
    let elapsed = now.uptime.saturating_sub(then.uptime);
    let expected = then.wall.checked_add(elapsed).unwrap_or(Timestamp::MAX);
    now.wall.duration_since(expected).unsigned_abs() <= TOLERANCE
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
        let mut watch = ClockWatch::new(now(1_000_000, 50));
        assert_eq!(watch.judge(now(1_003_600, 3_650)), plan::Clock::Trusted);
        assert_eq!(watch.judge(now(1_003_900, 3_650)), plan::Clock::Trusted);
        assert_eq!(watch.judge(now(1_003_901, 3_650)), plan::Clock::Suspect);
        assert_eq!(watch.judge(now(1_003_299, 3_650)), plan::Clock::Suspect);
        assert_eq!(watch.judge(now(9_000_000, 51)), plan::Clock::Suspect);
        assert_eq!(watch.judge(now(1_000_010, 60)), plan::Clock::Trusted);
    }

    #[test]
    fn a_wall_clock_that_strays_from_the_api_servers_is_not_believed() {
        let now = |wall, uptime| Now {
            wall: Timestamp::from_second(wall).unwrap(),
            uptime: Duration::from_secs(uptime),
        };
        let mut watch = ClockWatch::new(now(1_000_000, 0));
        watch.hear(now(1_000_310, 0).wall, now(1_000_010, 10));
        assert_eq!(watch.judge(now(1_000_010, 10)), plan::Clock::Trusted);
        watch.hear(now(1_000_311, 0).wall, now(1_000_010, 10));
        assert_eq!(watch.judge(now(1_000_010, 10)), plan::Clock::Suspect);
        // It strays no less for nobody having asked since.
        assert_eq!(watch.judge(now(1_090_010, 90_010)), plan::Clock::Suspect);
        assert!(watch.strays_from_server(now(1_090_010, 90_010)));
        watch.hear(now(999_710, 0).wall, now(1_000_010, 10));
        assert_eq!(watch.judge(now(1_000_010, 10)), plan::Clock::Trusted);
        // The server's word does not make up for a jump.
        watch.hear(now(2_000_000, 0).wall, now(2_000_000, 20));
        assert_eq!(watch.judge(now(2_000_000, 20)), plan::Clock::Suspect);
    }

    #[test]
    fn a_wall_clock_is_not_believed_before_the_server_was_heard_that_there_is() {
        let now = |wall, uptime| Now {
            wall: Timestamp::from_second(wall).unwrap(),
            uptime: Duration::from_secs(uptime),
        };
        let mut watch = ClockWatch::new(now(1_000_000, 0));
        watch.need_server();
        assert_eq!(watch.judge(now(1_000_010, 10)), plan::Clock::Suspect);
        watch.hear(now(1_000_020, 0).wall, now(1_000_020, 20));
        assert_eq!(watch.judge(now(1_000_020, 20)), plan::Clock::Trusted);
        // It may be away for days.
        assert_eq!(watch.judge(now(1_900_020, 900_020)), plan::Clock::Trusted);
    }

    #[test]
    fn a_wall_clock_that_was_put_right_is_believed_after_an_hour() {
        let now = |wall, uptime| Now {
            wall: Timestamp::from_second(wall).unwrap(),
            uptime: Duration::from_secs(uptime),
        };
        let mut watch = ClockWatch::new(now(1_000_000, 0));
        assert_eq!(watch.judge(now(2_000_000, 10)), plan::Clock::Suspect);
        assert_eq!(watch.judge(now(2_001_800, 1_810)), plan::Clock::Suspect);
        // Set once more: the hour begins anew.
        assert_eq!(watch.judge(now(3_000_000, 2_000)), plan::Clock::Suspect);
        assert_eq!(watch.judge(now(3_003_599, 5_599)), plan::Clock::Suspect);
        assert_eq!(watch.judge(now(3_003_600, 5_600)), plan::Clock::Trusted);
        assert_eq!(watch.judge(now(3_003_700, 5_700)), plan::Clock::Trusted);
    }
}

//! The wall clock and the monotonic clock, and whether the wall clock can be trusted.

use std::time::Duration;

use crate::checkpoint_time::{Reading, TOLERANCE};
use crate::plan;
use jiff::Timestamp;

/// One moment by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The wall clock: what ages are measured by.
    pub wall: Timestamp,
    /// The time since some fixed moment, sleep included: what waiting is measured by.
    pub uptime: Duration,
}

/// How long a wall clock must run at the right speed after it was set, until it is trusted again.
const PROBATION: Duration = Duration::from_hours(1);

/// 2018-01-01: a clock that shows an earlier time was never set.
const NOT_SET_BEFORE: Timestamp = Timestamp::constant(1_514_764_800, 0);

/// Why the wall clock is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distrust {
    /// There is an API server, and its time is not known yet.
    ServerUnheard,
    /// It differs from the API server's.
    ServerDiffers,
    /// It shows an earlier time than that at which a file here was last changed, or one before 2018.
    IsBehind,
    /// It did not go on as the monotonic clock did: it was set.
    WasSet,
}

/// Since when the wall clock is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Untrusted {
    since: Duration,
    /// The earliest time that it showed since then.
    earliest: Timestamp,
}

/// Watches whether the wall clock can be trusted: it agrees with the API server's, where there is one, else with
/// what is known of the files here; and it goes on as the monotonic clock does.
#[derive(Debug, Clone, Copy)]
pub struct ClockWatch {
    /// A moment at which it showed the right time.
    believed: Option<Now>,
    /// The first moment after it was set.
    set: Option<Now>,
    /// The last known time of the API server.
    server: Option<Now>,
    /// Whether there is an API server, so that the clock is not trusted before the server's time is known.
    needs_server: bool,
    /// When a file here was last changed, by the clock at that time.
    last_change: Timestamp,
    /// Since when it is not trusted; none: it is trusted.
    untrusted: Option<Untrusted>,
}

impl ClockWatch {
    /// A watch that knows nothing yet.
    pub fn new() -> Self {
        Self {
            believed: None,
            set: None,
            server: None,
            needs_server: false,
            last_change: Timestamp::MIN,
            untrusted: None,
        }
    }

    /// From now on the clock is trusted only after the API server's time is known. Once is enough: a server that is
    /// not reachable later does not make the clock untrusted.
    pub fn need_server(&mut self) {
        self.needs_server = true;
    }

    /// Whether the API server's time is needed and not known yet.
    pub fn is_unheard(&self) -> bool {
        self.needs_server && self.server.is_none()
    }

    /// Takes the API server's time.
    pub fn hear(&mut self, server_time: Timestamp, now: Now) {
        if self.server.is_none() {
            // Nothing had confirmed the clock before that.
            self.believed = None;
        }
        self.server = Some(Now { wall: server_time, ..now });
    }

    /// Takes the time of the last change of any file here: a clock that shows an earlier time is behind.
    pub fn see_last_change(&mut self, last_change: Timestamp) {
        self.last_change = last_change;
    }

    /// Whether the wall clock is to be trusted.
    pub fn judge(&mut self, now: Now) -> plan::Clock {
        if self.distrust(now).is_none() {
            self.untrusted = None;
            return plan::Clock::Trusted;
        }
        let first = Untrusted { since: now.uptime, earliest: now.wall };
        let untrusted = self.untrusted.get_or_insert(first);
        untrusted.earliest = untrusted.earliest.min(now.wall);
        plan::Clock::Suspect
    }

    /// Why it is not to be trusted; none: it is.
    pub fn distrust(&mut self, now: Now) -> Option<Distrust> {
        if self.is_unheard() {
            return Some(Distrust::ServerUnheard);
        }
        let outside = match self.server {
            Some(server) => (!agrees(server, now)).then_some(Distrust::ServerDiffers),
            None => self.is_behind(now).then_some(Distrust::IsBehind),
        };
        if outside.is_some() {
            // The moment at which it seemed right was wrong as well, so it must not count against the clock once
            // that is set right.
            self.believed = self.believed.filter(|believed| self.server.is_some() || !agrees(*believed, now));
            return outside;
        }
        let believed = *self.believed.get_or_insert(now);
        if agrees(believed, now) {
            self.set = None;
            return None;
        }
        let set = *self.set.get_or_insert(now);
        if !agrees(set, now) {
            self.set = Some(now);
        } else if now.uptime.saturating_sub(set.uptime) >= PROBATION {
            (self.believed, self.set) = (Some(now), None);
            return None;
        }
        Some(Distrust::WasSet)
    }

    fn is_behind(&self, now: Now) -> bool {
        now.wall < NOT_SET_BEFORE
            || self.last_change > now.wall.checked_add(TOLERANCE).unwrap_or(Timestamp::MAX)
    }

    /// A time for something that happened at `uptime`, to order archives by. While the clock is trusted, it is the
    /// time at which that happened; otherwise it is counted from the earliest time that the untrusted clock showed.
    pub fn at(&self, uptime: Duration, now: Now) -> Timestamp {
        let (then, since) = match self.untrusted {
            None => (now.wall, now.uptime),
            Some(untrusted) => (untrusted.earliest, untrusted.since),
        };
        let later = uptime.checked_sub(since).map(|later| then.checked_add(later));
        let earlier = since.checked_sub(uptime).map(|earlier| then.checked_sub(earlier));
        later.or(earlier).and_then(Result::ok).unwrap_or(then)
    }

    /// The time by which archives are dated.
    pub fn reading(&mut self, now: Now) -> Reading {
        let clock = self.judge(now);
        let earliest_untrusted = self.untrusted.map_or(now.wall, |untrusted| untrusted.earliest);
        Reading { now: now.wall, clock, earliest_untrusted }
    }
}

impl Default for ClockWatch {
    fn default() -> Self {
        Self::new()
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

    fn now(wall: i64, uptime: u64) -> Now {
        // Seconds after 2026-01-01T00:00:00Z.
        let wall = Timestamp::from_second(1_767_225_600 + wall).unwrap();
        Now { wall, uptime: Duration::from_secs(uptime) }
    }

    #[test]
    fn a_wall_clock_that_jumps_is_not_trusted_until_it_comes_back() {
        let mut watch = ClockWatch::new();
        assert_eq!(watch.judge(now(1_000_000, 50)), plan::Clock::Trusted);
        assert_eq!(watch.judge(now(1_003_600, 3_650)), plan::Clock::Trusted);
        assert_eq!(watch.judge(now(1_003_900, 3_650)), plan::Clock::Trusted);
        assert_eq!(watch.judge(now(1_003_901, 3_650)), plan::Clock::Suspect);
        assert_eq!(watch.judge(now(1_003_299, 3_650)), plan::Clock::Suspect);
        assert_eq!(watch.distrust(now(9_000_000, 51)), Some(Distrust::WasSet));
        assert_eq!(watch.judge(now(1_000_010, 60)), plan::Clock::Trusted);
    }

    #[test]
    fn a_wall_clock_that_differs_from_the_api_servers_is_not_trusted() {
        let mut watch = ClockWatch::new();
        watch.hear(now(1_000_310, 0).wall, now(1_000_010, 10));
        assert_eq!(watch.judge(now(1_000_010, 10)), plan::Clock::Trusted);
        watch.hear(now(1_000_311, 0).wall, now(1_000_010, 10));
        assert_eq!(watch.judge(now(1_000_010, 10)), plan::Clock::Suspect);
        // That there was no newer answer does not make the clock right.
        assert_eq!(watch.distrust(now(1_090_010, 90_010)), Some(Distrust::ServerDiffers));
        watch.hear(now(1_000_012, 0).wall, now(1_000_010, 10));
        assert_eq!(watch.judge(now(1_000_010, 10)), plan::Clock::Trusted);
        // The server's word does not make up for a jump of both.
        watch.hear(now(2_000_000, 0).wall, now(2_000_000, 20));
        assert_eq!(watch.distrust(now(2_000_000, 20)), Some(Distrust::WasSet));
        assert_eq!(watch.judge(now(2_003_601, 3_621)), plan::Clock::Trusted);
    }

    #[test]
    fn a_wall_clock_is_not_trusted_before_the_server_was_heard_that_there_is() {
        let mut watch = ClockWatch::new();
        watch.need_server();
        assert_eq!(watch.distrust(now(1_000_010, 10)), Some(Distrust::ServerUnheard));
        watch.hear(now(1_000_020, 0).wall, now(1_000_020, 20));
        assert_eq!(watch.judge(now(1_000_020, 20)), plan::Clock::Trusted);
        // It may be away for days.
        assert_eq!(watch.judge(now(1_900_020, 900_020)), plan::Clock::Trusted);
    }

    #[test]
    fn a_wall_clock_that_was_wrong_from_the_start_is_trusted_as_soon_as_it_is_put_right() {
        for needs_server in [true, false] {
            let mut watch = ClockWatch::new();
            if needs_server {
                watch.need_server();
                assert_eq!(watch.judge(now(-200_000, 0)), plan::Clock::Suspect);
                watch.hear(now(1, 0).wall, now(-199_999, 1));
            } else {
                assert_eq!(watch.judge(now(-200_000, 0)), plan::Clock::Trusted, "nothing says otherwise");
                watch.see_last_change(now(-3_600, 0).wall);
            }
            assert_eq!(watch.judge(now(-199_990, 10)), plan::Clock::Suspect);
            assert_eq!(watch.judge(now(-196_000, 4_000)), plan::Clock::Suspect);
            assert_eq!(watch.judge(now(4_010, 4_010)), plan::Clock::Trusted, "{needs_server}");
            // And is watched from there.
            assert_eq!(watch.judge(now(40_010, 4_020)), plan::Clock::Suspect);
            assert_eq!(watch.judge(now(4_030, 4_030)), plan::Clock::Trusted);
        }
    }

    #[test]
    fn files_that_were_changed_later_than_the_clock_shows_tell_on_it_only_where_no_server_does() {
        let mut watch = ClockWatch::new();
        watch.see_last_change(now(301, 0).wall);
        assert_eq!(watch.distrust(now(0, 0)), Some(Distrust::IsBehind));
        watch.see_last_change(now(300, 0).wall);
        assert_eq!(watch.distrust(now(0, 0)), None);
        watch.see_last_change(now(900_000, 0).wall);
        watch.hear(now(0, 0).wall, now(0, 0));
        assert_eq!(watch.distrust(now(0, 0)), None);
        let before_2018 = Now { wall: "2017-12-31T23:00:00Z".parse().unwrap(), uptime: Duration::ZERO };
        assert_eq!(ClockWatch::new().distrust(before_2018), Some(Distrust::IsBehind));
        let in_2018 = Now { wall: "2018-01-01T00:00:00Z".parse().unwrap(), uptime: Duration::ZERO };
        assert_eq!(ClockWatch::new().distrust(in_2018), None);
    }

    #[test]
    fn a_wall_clock_that_was_set_is_trusted_after_an_hour() {
        let mut watch = ClockWatch::new();
        assert_eq!(watch.judge(now(1_000_000, 0)), plan::Clock::Trusted);
        assert_eq!(watch.judge(now(2_000_000, 10)), plan::Clock::Suspect);
        assert_eq!(watch.judge(now(2_001_800, 1_810)), plan::Clock::Suspect);
        // Set once more: the hour begins anew.
        assert_eq!(watch.judge(now(3_000_000, 2_000)), plan::Clock::Suspect);
        assert_eq!(watch.judge(now(3_003_599, 5_599)), plan::Clock::Suspect);
        assert_eq!(watch.judge(now(3_003_600, 5_600)), plan::Clock::Trusted);
        assert_eq!(watch.judge(now(3_003_700, 5_700)), plan::Clock::Trusted);
    }

    #[test]
    fn arrivals_are_in_order_after_all_that_a_wrong_clock_could_have_dated_before() {
        let mut watch = ClockWatch::new();
        watch.judge(now(1_000, 1_000));
        // Set back by a day.
        watch.judge(now(-85_300, 1_100));
        assert_eq!(watch.reading(now(-85_200, 1_200)).earliest_untrusted, now(-85_300, 0).wall);
        assert_eq!(watch.at(Duration::from_secs(1_150), now(-85_200, 1_200)), now(-85_250, 0).wall);
        // Set back further: what came before that still comes before what comes now.
        watch.judge(now(-900_000, 1_300));
        let (one, other) = (Duration::from_secs(1_150), Duration::from_secs(1_350));
        let at = |watch: &ClockWatch, uptime| watch.at(uptime, now(-899_900, 1_400));
        assert!(at(&watch, one) < at(&watch, other));
        assert!(at(&watch, one) > watch.reading(now(-899_900, 1_400)).earliest_untrusted);
        // Put right: when each came.
        watch.judge(now(1_500, 1_500));
        assert_eq!(watch.at(one, now(1_500, 1_500)), now(1_150, 0).wall);
    }
}

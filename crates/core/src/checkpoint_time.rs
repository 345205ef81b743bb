//! When a checkpoint was taken: which claim about it is believed, and how far.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::plan::{Clock, Dated};

/// How far apart two clocks may be that both count as right, and so how far past the moment at which
/// an archive was first seen a claim about it may lie.
pub const TOLERANCE: Duration = Duration::from_mins(5);

/// 2018-01-01: containers of pods could not be checkpointed before that, so an earlier time comes from a clock that
/// was never set.
const EARLIEST: Timestamp = Timestamp::constant(1_514_764_800, 0);

/// Whether a container of a pod can have been checkpointed then, whatever the time is now.
pub fn is_possible(at: Timestamp) -> bool {
    at >= EARLIEST
}

/// What claims to know when a checkpoint was taken, the most trustworthy first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claims {
    /// The time inside the archive (`config.dump`).
    pub inside: Option<Timestamp>,
    /// The time in the file's name.
    pub name: Option<Timestamp>,
    /// When the file's bytes last changed.
    pub modified: Timestamp,
}

/// When an archive was first seen here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sighting {
    /// When it was first seen, by a clock that was trusted; none where none was yet.
    pub first: Option<Timestamp>,
    /// When it arrived, where it was written while the clock was not trusted and is dated by that clock.
    /// While the clock still is not trusted, counted from [`Reading::earliest_untrusted`].
    pub arrived: Option<Timestamp>,
    /// Whether it was dated by a clock that was wrong, and it is not known any more when it arrived.
    pub is_misdated: bool,
}

/// What time it is, and how far that is to be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// The wall clock.
    pub now: Timestamp,
    /// Whether the clock is trusted.
    pub clock: Clock,
    /// The earliest time that the wall clock showed since it is not trusted; [`Self::now`] while it is trusted.
    pub earliest_untrusted: Timestamp,
}

impl Reading {
    /// A clock that is trusted.
    pub fn trusted(now: Timestamp) -> Self {
        Self { now, clock: Clock::Trusted, earliest_untrusted: now }
    }
}

/// When a checkpoint was taken, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointTime {
    /// The time to go by.
    pub at: Timestamp,
    /// What the archive itself says, believed or not: it orders those of equal times.
    pub claimed: Timestamp,
    /// How far that is to be believed.
    pub dated: Dated,
    /// Where it comes from.
    pub source: Source,
}

/// Where the time of a checkpoint comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The archive says so.
    Inside,
    /// The file's name says so.
    Name,
    /// It is the file's modification time.
    Modified,
    /// It is when the archive was seen being written, as the clock that dated it was wrong.
    Arrival,
    /// No claim is plausible: it is when the archive was first seen.
    FirstSeen,
}

impl Claims {
    fn in_order(self) -> impl Iterator<Item = (Timestamp, Source)> {
        let inside = self.inside.map(|at| (at, Source::Inside));
        let name = self.name.map(|at| (at, Source::Name));
        inside.into_iter().chain(name).chain([(self.modified, Source::Modified)])
    }

    /// What the archive itself says: its first claim, plausible or not.
    pub fn first(self) -> (Timestamp, Source) {
        self.in_order().next().unwrap_or((self.modified, Source::Modified))
    }
}

/// Decides when a checkpoint was taken: the first plausible claim (2018 or later, and no later than
/// 5 minutes past a trusted clock or past the moment at which the archive was first seen by one).
///
/// By a clock that is not trusted no claim is implausible for being late; an archive that claims to be later
/// than any time which that clock showed since it is not trusted is [`Dated::Ahead`]. What arrived meanwhile
/// and was dated by that clock goes by its arrival.
pub fn checkpoint_time(claims: Claims, seen: Sighting, reading: Reading) -> CheckpointTime {
    let (claimed, _) = claims.first();
    let is_trusted = reading.clock == Clock::Trusted;
    if let Some(arrived) = seen.arrived {
        let agrees = |at: &(Timestamp, Source)| at.0.duration_since(arrived).unsigned_abs() <= TOLERANCE;
        let (at, source) =
            claims.in_order().find(agrees).filter(|_| is_trusted).unwrap_or((arrived, Source::Arrival));
        let dated = if is_trusted { Dated::Trusted } else { Dated::Untrusted };
        return CheckpointTime { at, claimed, dated, source };
    }
    let latest = if is_trusted { seen.first.unwrap_or(reading.now).min(reading.now) } else { Timestamp::MAX };
    let latest = latest.min(seen.first.unwrap_or(Timestamp::MAX));
    let latest = latest.checked_add(TOLERANCE).unwrap_or(Timestamp::MAX);
    let is_plausible = |(at, _): &(Timestamp, Source)| (EARLIEST..=latest).contains(at);
    let plausible = claims.in_order().find(is_plausible).filter(|_| !seen.is_misdated);
    let Some((at, source)) = plausible else {
        let at = seen.first.unwrap_or(reading.now);
        return CheckpointTime { at, claimed, dated: Dated::Undated, source: Source::FirstSeen };
    };
    let dated = if is_trusted {
        Dated::Trusted
    } else if at > reading.earliest_untrusted {
        Dated::Ahead
    } else if seen.first.is_some() {
        // A clock that was trusted had seen it by then.
        Dated::Trusted
    } else {
        Dated::Untrusted
    };
    CheckpointTime { at, claimed, dated, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds after 2026-01-01T00:00:00Z.
    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).unwrap()
    }

    fn claims(inside: Option<Timestamp>, name: Option<Timestamp>, modified: Timestamp) -> Claims {
        Claims { inside, name, modified }
    }

    fn suspect(now: Timestamp, earliest_untrusted: Timestamp) -> Reading {
        Reading { now, clock: Clock::Suspect, earliest_untrusted }
    }

    const FIVE_MINUTES: i64 = 300;

    #[test]
    fn the_first_plausible_claim_decides() {
        let now = at(10_000);
        let long_ago = "2017-12-31T23:59:59Z".parse().unwrap();
        let earliest = "2018-01-01T00:00:00Z".parse().unwrap();
        let (late, latest) = (at(10_000 + FIVE_MINUTES + 1), at(10_000 + FIVE_MINUTES));
        let table = [
            (claims(Some(at(100)), Some(at(200)), at(300)), Some((at(100), Source::Inside))),
            (claims(None, Some(at(200)), at(300)), Some((at(200), Source::Name))),
            (claims(None, None, at(300)), Some((at(300), Source::Modified))),
            (claims(Some(latest), None, at(300)), Some((latest, Source::Inside))),
            (claims(Some(late), Some(at(200)), at(300)), Some((at(200), Source::Name))),
            (claims(Some(late), Some(late), at(300)), Some((at(300), Source::Modified))),
            (claims(Some(earliest), None, at(300)), Some((earliest, Source::Inside))),
            (claims(Some(long_ago), Some(at(200)), at(300)), Some((at(200), Source::Name))),
            (claims(Some(late), Some(late), late), None),
            (claims(Some(long_ago), None, long_ago), None),
        ];
        for (claims, expected) in table {
            let found = checkpoint_time(claims, Sighting::default(), Reading::trusted(now));
            let expected = expected.unwrap_or((now, Source::FirstSeen));
            assert_eq!((found.at, found.source), expected, "{claims:?}");
            assert_eq!(found.claimed, claims.first().0);
            let is_undated = expected.1 == Source::FirstSeen;
            assert_eq!(found.dated, if is_undated { Dated::Undated } else { Dated::Trusted }, "{claims:?}");
        }
    }

    #[test]
    fn what_claims_to_be_later_than_its_first_sight_stays_undated_when_that_time_comes() {
        let future = claims(Some(at(3_600)), None, at(3_600));
        let seen = Sighting { first: Some(at(0)), ..Sighting::default() };
        for now in [at(0), at(3_600), at(1_000_000)] {
            let found = checkpoint_time(future, seen, Reading::trusted(now));
            assert_eq!((found.at, found.dated), (at(0), Dated::Undated), "{now}");
        }
        // The same by a clock that is not trusted now: when it was seen, one was.
        let found = checkpoint_time(future, seen, suspect(at(9_000), at(9_000)));
        assert_eq!(found.dated, Dated::Undated);
        let honest = claims(Some(at(-60)), None, at(-60));
        let found = checkpoint_time(honest, seen, suspect(at(9_000), at(9_000)));
        assert_eq!((found.at, found.dated), (at(-60), Dated::Trusted));
    }

    #[test]
    fn by_a_clock_that_is_not_trusted_nothing_is_too_late_and_what_is_ahead_of_it_is_said_to_be() {
        let reading = suspect(at(5_000), at(1_000));
        let found =
            |second| checkpoint_time(claims(Some(at(second)), None, at(0)), Sighting::default(), reading);
        assert_eq!((found(1_000).at, found(1_000).dated), (at(1_000), Dated::Untrusted));
        // Also what the clock has passed since: what arrived meanwhile is later.
        assert_eq!((found(1_001).at, found(1_001).dated), (at(1_001), Dated::Ahead));
        assert_eq!((found(900_000).at, found(900_000).dated), (at(900_000), Dated::Ahead));
        let found = checkpoint_time(
            claims(Some(at(900_000)), None, at(0)),
            Sighting::default(),
            Reading::trusted(at(0)),
        );
        assert_eq!((found.at, found.source), (at(0), Source::Modified));
    }

    #[test]
    fn what_a_wrong_clock_dated_goes_by_its_arrival_once_that_is_known() {
        let by_wrong_clock = claims(Some(at(-200_000)), None, at(-200_000));
        let seen = |second| Sighting { arrived: Some(at(second)), ..Sighting::default() };
        let found = checkpoint_time(by_wrong_clock, seen(-199_990), suspect(at(-199_000), at(-200_100)));
        assert_eq!((found.at, found.dated, found.source), (at(-199_990), Dated::Untrusted, Source::Arrival));
        let mended = Sighting { first: Some(at(10)), arrived: Some(at(10)), is_misdated: false };
        let found = checkpoint_time(by_wrong_clock, mended, Reading::trusted(at(1_000)));
        assert_eq!((found.at, found.dated, found.source), (at(10), Dated::Trusted, Source::Arrival));
        // The clock turns out to have been right.
        let right = claims(Some(at(5)), None, at(9));
        let found = checkpoint_time(right, mended, Reading::trusted(at(1_000)));
        assert_eq!((found.at, found.dated, found.source), (at(5), Dated::Trusted, Source::Inside));
        // When it arrived is not known any more.
        let lost = Sighting { first: Some(at(500)), is_misdated: true, ..Sighting::default() };
        assert_eq!(checkpoint_time(by_wrong_clock, lost, Reading::trusted(at(1_000))).dated, Dated::Undated);
    }
}

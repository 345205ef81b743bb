//! Keeping the newest archive of each hour, day, week, month and year, as restic's `forget` does.
//!
//! For each tier, walking from the newest to the oldest, the first archive of every period not seen
//! before is kept until the tier's number is used up. Where a tier has some of its number left at
//! the end, the oldest archive is kept too, so that history starts as early as it can. Periods are
//! UTC's; weeks are ISO weeks. Semantics: restic's manual, "Removing snapshots according to a policy".

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::verdict::KeptBy;
use crate::policy::Tiers;

/// The periods that a moment lies in, each as a number that no other period of its kind has.
struct Periods {
    hour: i64,
    day: i64,
    week: i64,
    month: i64,
    year: i64,
}

impl Periods {
    fn of(moment: Timestamp) -> Self {
        // Before 1970, a fraction of a second counts back from the second after it.
        let second = moment.as_second() - i64::from(moment.subsec_nanosecond() < 0);
        let hour = second.div_euclid(3_600);
        let day = hour.div_euclid(24);
        let date = moment.to_zoned(TimeZone::UTC).date();
        let (year, month) = (i64::from(date.year()), i64::from(date.month()));
        Self {
            hour,
            day,
            // The epoch was a Thursday, and ISO weeks begin on Monday.
            week: (day + 3).div_euclid(7),
            month: year * 12 + month,
            year,
        }
    }
}

/// One tier while the archives go by.
struct Tier {
    left: u32,
    last: Option<i64>,
}

impl Tier {
    fn new(left: u32) -> Self {
        Self { left, last: None }
    }

    fn keeps(&mut self, period: i64, oldest: bool) -> bool {
        let keeps = self.left > 0 && (self.last != Some(period) || oldest);
        if keeps {
            self.last = Some(period);
            self.left -= 1;
        }
        keeps
    }
}

/// Which tiers keep each of the archives taken at `newest_first`.
pub(super) fn kept_by(tiers: Tiers, newest_first: &[Timestamp]) -> Vec<KeptBy> {
    let mut hourly = Tier::new(tiers.hourly);
    let mut daily = Tier::new(tiers.daily);
    let mut weekly = Tier::new(tiers.weekly);
    let mut monthly = Tier::new(tiers.monthly);
    let mut yearly = Tier::new(tiers.yearly);
    let last = newest_first.len().saturating_sub(1);
    newest_first
        .iter()
        .enumerate()
        .map(|(place, moment)| {
            let (periods, oldest) = (Periods::of(*moment), place == last);
            KeptBy {
                hourly: hourly.keeps(periods.hour, oldest),
                daily: daily.keeps(periods.day, oldest),
                weekly: weekly.keeps(periods.week, oldest),
                monthly: monthly.keeps(periods.month, oldest),
                yearly: yearly.keeps(periods.year, oldest),
            }
        })
        .collect()
}

//! Times by a cron expression.
//!
//! Where clocks are put forward, a time in the hour that does not exist is left out; where they are put back, one
//! in the hour that is twice is there twice.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

/// Five fields and a time zone.
#[derive(Debug, Clone)]
pub struct Cron {
    text: String,
    crontab: cronexpr::Crontab,
}

/// An expression or a time zone that cannot be used. Its message is one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Not five fields.
    #[error("has {0} fields; write five: minute, hour, day of month, month, day of week")]
    FieldCount(usize),
    /// A field that does not parse.
    #[error("{message} at {at:?}")]
    Field {
        /// The field, or what is left of it from the fault on.
        at: String,
        /// What is wrong.
        message: String,
    },
    /// No such time zone.
    #[error("unknown time zone {0:?}; write a name of the IANA database, for example Europe/Berlin, or UTC")]
    TimeZone(String),
    /// It never comes, as 31 February.
    #[error("names no time within the next four years")]
    Never,
}

impl Cron {
    /// Reads five fields, and the name of a time zone; `now` is where it looks for a first time from.
    pub fn parse(fields: &str, time_zone: &str, now: Timestamp) -> Result<Self, CronError> {
        let count = fields.split_ascii_whitespace().count();
        if count != 5 {
            return Err(CronError::FieldCount(count));
        }
        if jiff::tz::TimeZone::get(time_zone).is_err() {
            return Err(CronError::TimeZone(time_zone.to_owned()));
        }
        let normal = fields.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
        let text = format!("{normal} {time_zone}");
        let crontab =
            cronexpr::parse_crontab(&text).map_err(|error| field_error(&text, &error.to_string()))?;
        let cron = Self { text, crontab };
        cron.next(now).map(|_| cron.clone()).ok_or(CronError::Never)
    }

    /// The first time after that one.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.crontab.find_next(after).ok().map(|next| next.timestamp())
    }

    /// The last time up to `now` that is after `after`, and how many there are.
    pub fn last_between(&self, after: Timestamp, now: Timestamp) -> Option<Missed> {
        let first = self.next(after).filter(|first| *first <= now)?;
        let mut missed = Missed { last: first, count: 1 };
        while let Some(next) = self.next(missed.last).filter(|next| *next <= now) {
            missed = Missed { last: next, count: missed.count + 1 };
            if missed.count == MOST_COUNTED {
                missed.last = self.last_before(now).unwrap_or(missed.last).max(missed.last);
                break;
            }
        }
        Some(missed)
    }

    /// The last time up to `now`, where there is one in the last four years.
    fn last_before(&self, now: Timestamp) -> Option<Timestamp> {
        const HOUR: Duration = Duration::from_hours(1);
        for window in [HOUR, HOUR * 24, HOUR * 24 * 31, HOUR * 24 * 366, HOUR * 24 * 366 * 4] {
            let mut last = None;
            let mut next = self.next(now.checked_sub(window).ok()?);
            while let Some(time) = next.filter(|time| *time <= now) {
                last = Some(time);
                next = self.next(time);
            }
            if last.is_some() {
                return last;
            }
        }
        None
    }
}

/// Times that have passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed {
    /// The last of them.
    pub last: Timestamp,
    /// How many there are, the last one included; at most [`MOST_COUNTED`].
    pub count: u32,
}

/// So many times that have passed are counted.
pub const MOST_COUNTED: u32 = 100;

impl PartialEq for Cron {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Cron {}

impl fmt::Display for Cron {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

/// The library's error has three lines: a title, the text, and below it a mark with the fault.
fn field_error(text: &str, error: &str) -> CronError {
    let (mark, message) = error.lines().last().and_then(|line| line.split_once('^')).unwrap_or(("", error));
    let at = text.get(mark.len()..).unwrap_or(text);
    let at = at.split_ascii_whitespace().next().unwrap_or(text).to_owned();
    CronError::Field { at, message: message.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_780_000_000, 0); // 2026-05-28

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn next(fields: &str, zone: &str, after: &str) -> String {
        Cron::parse(fields, zone, NOW).unwrap().next(time(after)).unwrap().to_string()
    }

    #[test]
    fn times_are_those_of_the_zone_and_what_the_clocks_skip_is_left_out() {
        assert_eq!(next("30 4 * * *", "UTC", "2026-03-01T00:00:00Z"), "2026-03-01T04:30:00Z");
        assert_eq!(next("30 4 * * *", "Europe/Berlin", "2026-03-01T00:00:00Z"), "2026-03-01T03:30:00Z");
        // 29 March, 02:30 is not there.
        assert_eq!(next("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z"), "2026-03-30T00:30:00Z");
        // 25 October, 02:30 is there twice.
        let first = next("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z");
        let second = next("30 2 * * *", "Europe/Berlin", &first);
        assert_eq!([first.as_str(), second.as_str()], ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"]);
        assert_eq!(next("30 2 * * *", "Europe/Berlin", &second), "2026-10-26T01:30:00Z");
    }

    #[test]
    fn a_fault_is_told_with_its_place_in_one_line() {
        let error = |fields: &str, zone: &str| Cron::parse(fields, zone, NOW).unwrap_err().to_string();
        assert_eq!(
            error("* * * *", "UTC"),
            "has 4 fields; write five: minute, hour, day of month, month, day of week"
        );
        assert_eq!(error("0 61 * * *", "UTC"), "value must be in range 0..=23; found 61 at \"61\"");
        assert!(error("0 0 * * *", "Mars/Base").starts_with("unknown time zone \"Mars/Base\""));
        assert_eq!(error("0 0 31 2 *", "UTC"), "names no time within the next four years");
        // A sixth field would be taken for the time zone.
        assert!(error("0 0 * * * UTC", "Europe/Berlin").starts_with("has 6 fields"));
        for text in ["", "@daily", "a b c d e", "\n\n\n\n\n", "*/0 * * * *", "5-1 * * * *"] {
            assert_eq!(error(text, "UTC").lines().count(), 1, "{text:?}");
        }
    }

    #[test]
    fn of_missed_times_the_last_one_counts() {
        let cron = Cron::parse("0 * * * *", "UTC", NOW).unwrap();
        let missed = |after, now| cron.last_between(time(after), time(now));
        assert_eq!(missed("2026-03-01T00:00:00Z", "2026-03-01T00:59:59Z"), None);
        let three = Missed { last: time("2026-03-01T03:00:00Z"), count: 3 };
        assert_eq!(missed("2026-03-01T00:00:00Z", "2026-03-01T03:30:00Z"), Some(three));
        let many = missed("2020-03-01T00:00:00Z", "2026-03-01T03:30:00Z").unwrap();
        assert_eq!(many, Missed { last: time("2026-03-01T03:00:00Z"), count: MOST_COUNTED });
        assert_eq!(missed("2026-03-02T00:00:00Z", "2026-03-01T00:00:00Z"), None, "the clock was set back");
    }
}

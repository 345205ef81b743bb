//! Lengths of time as users write them: Go's durations, with days and weeks.

use std::time::Duration;

/// A text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Nothing there.
    #[error("is empty; write a length of time such as 30m, 24h or 7d")]
    Empty,
    /// A minus sign.
    #[error("is negative")]
    Negative,
    /// A number with no unit behind it.
    #[error("lacks a unit behind {0:?}; write for example {0}h or {0}d")]
    MissingUnit(String),
    /// A unit that is none.
    #[error("has the unknown unit {0:?}; known are ns, us, ms, s, m, h, d (24 h) and w (7 d)")]
    UnknownUnit(String),
    /// No number where one must stand.
    #[error("is not a length of time; write for example 30m, 24h or 7d")]
    NotANumber,
    /// Longer than is understood.
    #[error("is too long; the most are 9999w, 99999d or 999999h")]
    TooLong,
}

/// Each unit with its nanoseconds, and with how many digits a number of it may have before the point. The API
/// server's rule has the same bounds: with them no 64 characters come to more than [`LONGEST`].
const UNITS: [(&str, u128, usize); 10] = [
    ("ns", 1, 12),
    ("us", 1_000, 12),
    ("µs", 1_000, 12),
    ("μs", 1_000, 12),
    ("ms", 1_000_000, 12),
    ("s", 1_000_000_000, 9),
    ("m", 60_000_000_000, 8),
    ("h", 3_600_000_000_000, 6),
    ("d", 86_400_000_000_000, 5),
    ("w", 604_800_000_000_000, 4),
];

/// The longest length of time that is understood: 3000 years, so that no sum with a date overflows.
const LONGEST: u128 = 3_000 * 366 * 86_400_000_000_000;

/// Reads `1h30m`, `1.5h`, `300ms` as Go does, and `7d` (7 × 24 h), `2w`.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    if text.is_empty() {
        return Err(DurationError::Empty);
    }
    if text.starts_with('-') {
        return Err(DurationError::Negative);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    let mut nanoseconds = 0_u128;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        let unit_length = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, next) = behind.split_at(unit_length);
        if number.is_empty() {
            return Err(DurationError::NotANumber);
        }
        if unit.is_empty() {
            return Err(DurationError::MissingUnit(number.to_owned()));
        }
        let (_, scale, most_digits) = UNITS
            .iter()
            .find(|(name, ..)| *name == unit)
            .ok_or_else(|| DurationError::UnknownUnit(unit.to_owned()))?;
        let whole = number.split('.').next().unwrap_or_default().trim_start_matches('0');
        if whole.len() > *most_digits {
            return Err(DurationError::TooLong);
        }
        nanoseconds = nanoseconds.saturating_add(scaled(number, *scale)?);
        rest = next;
    }
    if nanoseconds > LONGEST {
        return Err(DurationError::TooLong);
    }
    let seconds = u64::try_from(nanoseconds / 1_000_000_000).map_err(|_| DurationError::TooLong)?;
    let fraction = u32::try_from(nanoseconds % 1_000_000_000).unwrap_or(0);
    Ok(Duration::new(seconds, fraction))
}

/// `number` (digits with at most one point) times `scale`, fractions of a nanosecond dropped.
fn scaled(number: &str, scale: u128) -> Result<u128, DurationError> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(DurationError::NotANumber);
    }
    let digit = |c: char| u128::from(c.to_digit(10).unwrap_or(0));
    let mut total = whole
        .chars()
        .try_fold(0_u128, |sum, c| sum.checked_mul(10)?.checked_add(digit(c)))
        .and_then(|whole| whole.checked_mul(scale))
        .ok_or(DurationError::TooLong)?;
    let mut place = scale;
    for c in fraction.chars().take(20) {
        place /= 10;
        total = total.saturating_add(digit(c) * place);
    }
    Ok(total)
}

/// The two largest units of a length of time, for people: `3d4h`, `12m`, `45s`, `0s`.
pub fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let Some(first) = units.iter().position(|(_, length)| seconds >= *length) else {
        return "0s".to_owned();
    };
    let (unit, length) = units[first];
    let mut text = format!("{}{unit}", seconds / length);
    if let Some((unit, next)) = units.get(first + 1) {
        let rest = (seconds % length) / next;
        // A second unit helps below ten of the first and is noise above.
        if rest > 0 && seconds / length < 10 {
            text = format!("{text}{rest}{unit}");
        }
    }
    text
}

/// A length of time to the second, in the notation that policies use: `90d`, `1d12h`, `1m30s`, `0s`.
pub fn exact(duration: Duration) -> String {
    let mut seconds = duration.as_secs();
    let mut text = String::new();
    for (unit, length) in [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)] {
        if seconds >= length {
            text = format!("{text}{}{unit}", seconds / length);
            seconds %= length;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_go_durations_days_and_weeks() {
        for (text, seconds) in [
            ("0", 0.0),
            ("0s", 0.0),
            ("45s", 45.0),
            ("1h30m", 5_400.0),
            ("1.5h", 5_400.0),
            (".5m", 30.0),
            ("300ms", 0.3),
            ("7d", 604_800.0),
            ("2w", 1_209_600.0),
            ("1w1d1h", 694_800.0),
            ("+5m", 300.0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        assert_eq!(parse("1µs"), Ok(Duration::from_micros(1)));
    }

    #[test]
    fn refuses_what_is_no_length_of_time() {
        assert_eq!(parse(""), Err(DurationError::Empty));
        assert_eq!(parse("-1h"), Err(DurationError::Negative));
        assert_eq!(parse("30"), Err(DurationError::MissingUnit("30".into())));
        assert_eq!(parse("30x"), Err(DurationError::UnknownUnit("x".into())));
        assert_eq!(parse("1y"), Err(DurationError::UnknownUnit("y".into())));
        assert_eq!(parse("h"), Err(DurationError::NotANumber));
        assert_eq!(parse("1.2.3h"), Err(DurationError::NotANumber));
        assert_eq!(parse(".h"), Err(DurationError::NotANumber));
        assert_eq!(parse("1h "), Err(DurationError::UnknownUnit("h ".into())));
        assert_eq!(parse("99999999999999999999999999999999999999999w"), Err(DurationError::TooLong));
        assert_eq!(parse("60000w"), Err(DurationError::TooLong));
    }

    #[test]
    fn shows_two_units_where_they_help() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (61, "1m1s"),
            (3_600 * 5 + 120, "5h2m"),
            (86_400 * 3 + 3_600 * 4, "3d4h"),
            (86_400 * 30 + 3_600 * 4, "30d"),
        ] {
            assert_eq!(human(Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn exact_lengths_of_time_are_read_as_what_they_are() {
        for (seconds, text) in [(0, "0s"), (60, "1m"), (90, "1m30s"), (129_600, "1d12h"), (7_776_000, "90d")]
        {
            assert_eq!(exact(Duration::from_secs(seconds)), text);
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)));
        }
    }
}

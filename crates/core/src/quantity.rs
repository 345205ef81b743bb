//! Sizes as Kubernetes writes them: `10Gi`, `1500M`, `1.5Ti`, `1e9`, plain bytes; and shares, `10%`.
//!
//! Grammar and suffixes: Kubernetes' `k8s.io/apimachinery/pkg/api/resource.Quantity`.

use std::fmt;

/// A text that is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number with a known suffix.
    #[error("is not a size; write for example 500Mi, 20Gi or 1Ti")]
    NotASize,
    /// A suffix that is none.
    #[error("has the unknown suffix {0:?}; known are Ki Mi Gi Ti Pi Ei and k M G T P E")]
    UnknownSuffix(String),
    /// A minus sign.
    #[error("is negative")]
    Negative,
    /// More than 2⁶³ − 1 bytes.
    #[error("is more bytes than can be counted")]
    TooLarge,
    /// Not between 0 % and 100 %.
    #[error("is not a share between 0% and 100%")]
    NotAShare,
}

/// Bytes of a Kubernetes quantity; fractions of a byte are rounded up, as Kubernetes does.
pub fn parse(text: &str) -> Result<u64, QuantityError> {
    read(text, u128::div_ceil)
}

/// The same with fractions of a byte left out: of what [`human`] says, so that [`human`] says the same of it again.
pub fn parse_down(text: &str) -> Result<u64, QuantityError> {
    read(text, |product, divisor| product / divisor)
}

fn read(text: &str, divide: impl Fn(u128, u128) -> u128) -> Result<u64, QuantityError> {
    if text.starts_with('-') {
        return Err(QuantityError::Negative);
    }
    let unsigned = text.strip_prefix('+').unwrap_or(text);
    let digits = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(digits);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return Err(QuantityError::NotASize);
    }
    let (multiplier, exponent) = scale(suffix)?;
    // The number as an integer of `places` decimal places.
    let fraction = fraction.trim_end_matches('0');
    if whole.trim_start_matches('0').len() + fraction.len() > 36 {
        return Err(QuantityError::TooLarge);
    }
    let digits: u128 = format!("0{whole}{fraction}").parse().map_err(|_| QuantityError::NotASize)?;
    let exponent = exponent - i32::try_from(fraction.len()).unwrap_or(i32::MAX);
    if digits == 0 {
        return Ok(0);
    }
    let product = digits.checked_mul(multiplier).ok_or(QuantityError::TooLarge)?;
    let bytes = if exponent >= 0 {
        ten_to(exponent).and_then(|factor| product.checked_mul(factor)).ok_or(QuantityError::TooLarge)?
    } else {
        ten_to(-exponent).map_or(divide(1, 2), |divisor| divide(product, divisor))
    };
    u64::try_from(bytes).ok().filter(|bytes| i64::try_from(*bytes).is_ok()).ok_or(QuantityError::TooLarge)
}

fn ten_to(exponent: i32) -> Option<u128> {
    10_u128.checked_pow(u32::try_from(exponent).ok()?)
}

/// What a suffix multiplies by: a binary factor, and a power of ten.
fn scale(suffix: &str) -> Result<(u128, i32), QuantityError> {
    let binary = |power: u32| Ok((1_u128 << (10 * power), 0));
    match suffix {
        "" => Ok((1, 0)),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        "n" => Ok((1, -9)),
        "u" => Ok((1, -6)),
        "m" => Ok((1, -3)),
        "k" => Ok((1, 3)),
        "M" => Ok((1, 6)),
        "G" => Ok((1, 9)),
        "T" => Ok((1, 12)),
        "P" => Ok((1, 15)),
        "E" => Ok((1, 18)),
        _ => suffix
            .strip_prefix(['e', 'E'])
            .and_then(|exponent| exponent.parse::<i32>().ok())
            .filter(|exponent| exponent.unsigned_abs() <= 40)
            .map(|exponent| (1, exponent))
            .ok_or_else(|| QuantityError::UnknownSuffix(suffix.to_owned())),
    }
}

/// A part of a file system, in hundredths of a percent.
#[derive(Default, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Share(u32);

impl Share {
    /// A share of whole percents; `None` above 100.
    pub const fn percent(percent: u32) -> Option<Self> {
        if percent <= 100 { Some(Self(percent * 100)) } else { None }
    }

    /// Reads `10%` or `12.5%`; more than two decimal places are refused.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let number = text.strip_suffix('%').ok_or(QuantityError::NotAShare)?;
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits =
            |text: &str| !text.is_empty() && text.len() <= 3 && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 2 {
            return Err(QuantityError::NotAShare);
        }
        let hundredths = format!("{whole}{fraction:0<2}").parse().map_err(|_| QuantityError::NotAShare)?;
        if hundredths > 10_000 { Err(QuantityError::NotAShare) } else { Ok(Self(hundredths)) }
    }

    /// This share of `total`, rounded down.
    pub fn of(self, total: u64) -> u64 {
        u64::try_from(u128::from(total) * u128::from(self.0) / 10_000).unwrap_or(u64::MAX)
    }

    /// This share less `percent` whole percents, not below nothing.
    #[must_use]
    pub fn minus_percent(self, percent: u32) -> Self {
        Self(self.0.saturating_sub(percent * 100))
    }

    /// Whether it is no share at all.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Share {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, fraction) = (self.0 / 100, self.0 % 100);
        match fraction {
            0 => write!(formatter, "{whole}%"),
            _ if fraction % 10 == 0 => write!(formatter, "{whole}.{}%", fraction / 10),
            _ => write!(formatter, "{whole}.{fraction:02}%"),
        }
    }
}

/// A number of bytes for people and for statuses: a Kubernetes quantity of three digits and a suffix, rounded up, `512`,
/// `286Ki`, `1.71Mi`, `28Gi`. At most one percent more than it is. What is over a limit of three digits does not look like it.
pub fn human(bytes: u64) -> String {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let bytes = u128::from(bytes);
    for (power, suffix) in SUFFIXES.iter().enumerate() {
        let unit = 1_u128 << (10 * power);
        // In hundredths, tenths or wholes of the unit, whichever leaves three digits.
        for (parts, digits) in [(100, 2), (10, 1), (1, 0)] {
            let value = (bytes * parts).div_ceil(unit);
            if value < 1_000 || (parts == 1 && value < 1_024) {
                let text = format!("{}.{:0digits$}", value / parts, value % parts);
                let text = if parts == 1 { value.to_string() } else { text };
                let text =
                    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
                return format!("{text}{suffix}");
            }
        }
    }
    bytes.to_string()
}

/// A number of bytes as a Kubernetes quantity, to the byte: with the largest binary suffix that divides it, `3Gi`,
/// `1536Mi`, `3221225473`.
pub fn exact(bytes: u64) -> String {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let power = if bytes == 0 { 0 } else { bytes.trailing_zeros() / 10 };
    let suffix = SUFFIXES.get(usize::try_from(power).unwrap_or(0)).copied().unwrap_or_default();
    format!("{}{suffix}", bytes >> (10 * power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_kubernetes_quantities() {
        for (text, bytes) in [
            ("0", 0),
            ("10", 10),
            ("1Ki", 1 << 10),
            ("20Gi", 20 << 30),
            ("1.5Gi", 3 << 29),
            ("4Mi", 4 << 20),
            ("1k", 1_000),
            ("1500M", 1_500_000_000),
            ("1e9", 1_000_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("1E3", 1_000),
            ("12e-1", 2),
            ("1500m", 2),
            (".5Ki", 512),
            ("+1Mi", 1 << 20),
            ("7Ei", 7 << 60),
            ("0.000000000000000000000000000000000001", 1),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_size() {
        assert_eq!(parse(""), Err(QuantityError::NotASize));
        assert_eq!(parse("Gi"), Err(QuantityError::NotASize));
        assert_eq!(parse("."), Err(QuantityError::NotASize));
        assert_eq!(parse("1.2.3"), Err(QuantityError::NotASize));
        assert_eq!(parse("-1Gi"), Err(QuantityError::Negative));
        for text in ["10GB", "10gi", "1 Gi", "1e", "1e99", "1e-41", "1e-2147483648", "1e2147483648", "10%"] {
            assert!(matches!(parse(text), Err(QuantityError::UnknownSuffix(_))), "{text}");
        }
        assert_eq!(parse("8Ei"), Err(QuantityError::TooLarge));
        assert_eq!(parse("1e40"), Err(QuantityError::TooLarge));
        assert_eq!(parse(&"9".repeat(400)), Err(QuantityError::TooLarge));
    }

    #[test]
    fn reads_shares() {
        assert_eq!(Share::parse("10%").map(|share| share.of(1_000)), Ok(100));
        assert_eq!(Share::parse("12.5%").map(|share| share.of(1_000)), Ok(125));
        assert_eq!(Share::parse("100%").map(|share| share.of(u64::MAX)), Ok(u64::MAX));
        assert_eq!(Share::parse("0.05%").map(|share| share.of(10_000)), Ok(5));
        for text in ["", "%", "10", "101%", "100.01%", "-1%", "1.234%", "a%", "1.%"] {
            assert_eq!(Share::parse(text), Err(QuantityError::NotAShare), "{text}");
        }
        for text in ["0%", "10%", "12.5%", "0.05%"] {
            assert_eq!(Share::parse(text).map(|share| share.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn sizes_for_people_have_three_digits_and_are_never_too_small() {
        for (bytes, text) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1000"),
            (1_023, "1023"),
            (1_024, "1Ki"),
            (1_025, "1.01Ki"),
            (88_124, "86.1Ki"),
            (292_864, "286Ki"),
            ((1 << 20) - 1, "1Mi"),
            (1_786_368, "1.71Mi"),
            (3 << 30, "3Gi"),
            ((3 << 30) + 1, "3.01Gi"),
            (252 << 30, "252Gi"),
            (1_023 << 30, "1023Gi"),
            ((1_023 << 30) + 1, "1Ti"),
            (u64::MAX, "16Ei"),
        ] {
            assert_eq!(human(bytes), text, "{bytes}");
        }
        for shift in 0..63 {
            for bytes in [(1_u64 << shift) - 1, 1 << shift, (1 << shift) + 1, 3 << (shift / 2)] {
                let read = parse(&human(bytes)).unwrap();
                assert!(read >= bytes && read - bytes <= bytes / 100 + 1, "{bytes}: {}", human(bytes));
                assert_eq!(human(parse_down(&human(bytes)).unwrap()), human(bytes), "{bytes}");
            }
        }
    }

    #[test]
    fn exact_sizes_lose_no_byte() {
        for (bytes, text) in [
            (0, "0"),
            (1, "1"),
            (1_023, "1023"),
            (1 << 10, "1Ki"),
            (3 << 29, "1536Mi"),
            (3 << 30, "3Gi"),
            ((3 << 30) + 1, "3221225473"),
            (1 << 63, "8Ei"),
            (u64::MAX, "18446744073709551615"),
        ] {
            assert_eq!(exact(bytes), text);
            if bytes < 1 << 63 {
                assert_eq!(parse(text), Ok(bytes), "{text}");
            }
        }
    }
}

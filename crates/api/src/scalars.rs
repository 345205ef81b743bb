//! Single values as they are written: lengths of time, sizes, shares, exact names.
//!
//! Each keeps what the user wrote, knows its schema, and reads itself into core's plain numbers.

use std::borrow::Cow;
use std::time::Duration;

use checkpoint_keeper_core::policy::{KeepFor, Size};
use checkpoint_keeper_core::quantity::{QuantityError, Share};
use checkpoint_keeper_core::{duration, quantity};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::error::Problems;
use crate::rules::{self, validations};

/// Declares a text of the wire: its type, and the maximum and rules of its schema.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $longest:expr, [$($rule:ident),+]) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "maxLength": $longest,
                    "x-kubernetes-validations": validations(&[$(&rules::$rule),+]),
                })
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

text!(
    /// A length of time: Go's durations, `d` (24 h) and `w` (7 d).
    LengthOfTime, 64, [DURATION, DURATION_NOT_TOO_LONG]
);
text!(
    /// A length of time that is more than none.
    Period, 64, [DURATION, DURATION_NOT_TOO_LONG, PERIOD_NOT_ZERO]
);
text!(
    /// A length of time of at least a second.
    Interval, 64, [DURATION, DURATION_NOT_TOO_LONG, INTERVAL_AT_LEAST_A_SECOND]
);
text!(
    /// How long something may take, at least a second and at most an hour.
    Timeout, 64, [DURATION, DURATION_NOT_TOO_LONG, TIMEOUT_AT_LEAST_A_SECOND, TIMEOUT_AT_MOST_AN_HOUR]
);
text!(
    /// How often something is looked at, at most every five seconds.
    PollInterval, 64, [DURATION, DURATION_NOT_TOO_LONG, POLL_AT_LEAST_FIVE_SECONDS]
);
text!(
    /// A cron expression of five fields.
    CronText, 256, [CRON_FIELDS]
);
text!(
    /// The name of a time zone in the IANA database.
    TimeZoneText, 64, [TIME_ZONE]
);
text!(
    /// A length of time, or `Forever`.
    LengthOfTimeOrForever, 64, [DURATION_OR_FOREVER, DURATION_NOT_TOO_LONG]
);
text!(
    /// A share of a file system: `85%`.
    ShareText, 7, [SHARE]
);
text!(
    /// A share of a file system from which on it counts as full: `88%`.
    WatermarkText, 7, [SHARE, WATERMARK_AT_LEAST_HALF]
);
text!(
    /// The exact name of a namespace, pod or container.
    ExactName, rules::LONGEST_NAME, [NAME]
);
text!(
    /// The name of a file in the checkpoint directory.
    FileNameText, 255, [FILE_NAME]
);
text!(
    /// Why a user wants something, for people.
    ReasonText, 256, [NOT_EMPTY]
);
text!(
    /// The name of a user, as the API server knows them.
    UserName, 512, [NOT_EMPTY]
);
text!(
    /// The key of a label.
    LabelKey, 317, [LABEL_KEY]
);
text!(
    /// The value of a label.
    LabelValue, 63, [LABEL_VALUE]
);

/// A time that is there; one that cannot be held here is the latest that can.
pub fn any_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
    let text = Cow::<str>::deserialize(deserializer)?;
    Ok(Time(text.parse().unwrap_or(Timestamp::MAX)))
}

/// The end of something; none where there is none, or it is in the year 9999 or later, as what is never to end may say.
pub(crate) fn end_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    #[derive(Deserialize)]
    struct Any(#[serde(deserialize_with = "any_time")] Time);
    let end = Option::<Any>::deserialize(deserializer)?.map(|any| any.0);
    Ok(end.filter(|end| end.0 < NEVER))
}

/// From this time on (the beginning of the year 9999) an end counts as none.
const NEVER: Timestamp = Timestamp::constant(253_370_764_800, 0);

/// A number or a size in a status, as a Kubernetes quantity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct QuantityText(pub String);

impl QuantityText {
    /// A size, rounded up to three digits.
    pub fn bytes(bytes: u64) -> Self {
        Self(quantity::human(bytes))
    }

    /// A size to the byte, with the largest suffix that divides it.
    pub fn exact_bytes(bytes: u64) -> Self {
        Self(quantity::exact(bytes))
    }

    /// A number.
    pub fn number(number: u64) -> Self {
        Self(number.to_string())
    }

    /// What it says, as far as that is a quantity and fits. It was rounded up already.
    pub fn value(&self) -> u64 {
        match quantity::parse_down(&self.0) {
            Ok(value) => value,
            Err(QuantityError::TooLarge) => u64::MAX,
            Err(_) => 0,
        }
    }
}

impl Default for QuantityText {
    fn default() -> Self {
        Self::number(0)
    }
}

impl JsonSchema for QuantityText {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "QuantityText".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 32,
            "pattern": "^[0-9]+([.][0-9]+)?(Ki|Mi|Gi|Ti|Pi|Ei)?$",
        })
    }
}

impl LengthOfTime {
    /// The time; 0 is what "absent" is: none.
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> Option<Duration> {
        self.read_with_zero(path, problems).filter(|time| !time.is_zero())
    }

    /// The time, where 0 is a value like others (a grace period).
    pub(crate) fn read_with_zero(&self, path: &str, problems: &mut Problems) -> Option<Duration> {
        read_duration(&self.0, path, problems)
    }
}

impl Period {
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> Option<Duration> {
        let period = read_duration(&self.0, path, problems)?;
        if period.is_zero() {
            problems.add(&path, rules::PERIOD_NOT_ZERO.message, None);
            return None;
        }
        Some(period)
    }
}

impl Interval {
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> Option<Duration> {
        let (rule, shortest) = (&rules::INTERVAL_AT_LEAST_A_SECOND, Duration::from_secs(1));
        read_at_least(&self.0, shortest, rule, path, problems)
    }
}

impl Timeout {
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> Option<Duration> {
        let (rule, shortest) = (&rules::TIMEOUT_AT_LEAST_A_SECOND, Duration::from_secs(1));
        let time = read_at_least(&self.0, shortest, rule, path, problems)?;
        if !rules::is_at_most_an_hour(&self.0, time) {
            problems.add(&path, rules::TIMEOUT_AT_MOST_AN_HOUR.message, None);
            return None;
        }
        Some(time)
    }
}

impl PollInterval {
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> Option<Duration> {
        let (rule, shortest) = (&rules::POLL_AT_LEAST_FIVE_SECONDS, rules::SHORTEST_POLL);
        read_at_least(&self.0, shortest, rule, path, problems)
    }
}

fn read_at_least(
    text: &str,
    shortest: Duration,
    rule: &rules::Rule,
    path: &str,
    problems: &mut Problems,
) -> Option<Duration> {
    let time = read_duration(text, path, problems)?;
    if !rules::is_at_least(text, time, shortest) {
        problems.add(&path, rule.message, None);
        return None;
    }
    Some(time)
}

impl LengthOfTimeOrForever {
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> Option<KeepFor> {
        match self.0.as_str() {
            "Forever" => Some(KeepFor::Forever),
            other if other.eq_ignore_ascii_case("forever") => {
                problems.add(
                    &path,
                    rules::DURATION_OR_FOREVER.message,
                    Some("did you mean \"Forever\"?".to_owned()),
                );
                None
            }
            other => read_duration(other, path, problems).map(KeepFor::For),
        }
    }
}

fn read_duration(text: &str, path: &str, problems: &mut Problems) -> Option<Duration> {
    match duration::parse(text) {
        Ok(time) => Some(time),
        Err(error) => {
            let trimmed = text.trim();
            let hint = duration_hint(trimmed).filter(|better| better != text);
            problems.add(
                &path,
                format!("{text:?} {error}"),
                hint.map(|better| format!("did you mean {better:?}?")),
            );
            None
        }
    }
}

/// The duration that was probably meant by `30 days`, `1y` or ` 7d`.
fn duration_hint(text: &str) -> Option<String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = unit.trim().to_lowercase();
    let better = match unit.as_str() {
        "day" | "days" | "d" => format!("{number}d"),
        "week" | "weeks" | "w" => format!("{number}w"),
        "hour" | "hours" | "hr" | "hrs" | "h" => format!("{number}h"),
        "min" | "mins" | "minute" | "minutes" => format!("{number}m"),
        "sec" | "secs" | "second" | "seconds" => format!("{number}s"),
        "mo" | "month" | "months" => format!("{}d", number.checked_mul(30)?),
        "y" | "yr" | "year" | "years" => format!("{}d", number.checked_mul(365)?),
        _ => return None,
    };
    duration::parse(&better).is_ok().then_some(better)
}

impl ShareText {
    /// The share; 0% is what "absent" is: none.
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> Option<Share> {
        self.read_with_zero(path, problems).filter(|share| !share.is_zero())
    }

    /// The share, where 0% is a value like others.
    pub(crate) fn read_with_zero(&self, path: &str, problems: &mut Problems) -> Option<Share> {
        read_share(&self.0, path, problems)
    }
}

impl WatermarkText {
    /// The share; 0% is a value like others, and turns the watermark off.
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> Option<Share> {
        let share = read_share(&self.0, path, problems)?;
        if !rules::watermark_is_plausible(share) {
            problems.add(&path, format!("{share} {}", rules::WATERMARK_AT_LEAST_HALF.message), None);
        }
        Some(share)
    }
}

fn read_share(text: &str, path: &str, problems: &mut Problems) -> Option<Share> {
    match Share::parse(text) {
        Ok(share) => Some(share),
        Err(error) => {
            let hint =
                Share::parse(&format!("{text}%")).ok().map(|share| format!("did you mean \"{share}\"?"));
            problems.add(&path, format!("{text:?} {error}"), hint);
            None
        }
    }
}

impl ExactName {
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> String {
        if !rules::is_name(&self.0) || self.0.len() > rules::LONGEST_NAME {
            let hint = self.0.contains(['*', '?', '[']).then(|| {
                "names are compared as they are; to select many pods, use podSelector with a label".to_owned()
            });
            problems.add(&path, format!("{:?} {}", self.0, rules::NAME.message), hint);
        }
        self.0.clone()
    }
}

/// A number or a text, as Kubernetes' quantities may be written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum IntOrText {
    /// A plain number of bytes.
    Int(i64),
    /// A number with a suffix.
    Text(String),
}

impl IntOrText {
    fn text(&self) -> Cow<'_, str> {
        match self {
            Self::Int(number) => number.to_string().into(),
            Self::Text(text) => text.into(),
        }
    }
}

/// Declares a size of the wire.
macro_rules! size {
    ($(#[$doc:meta])* $name:ident, $schema:tt) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub IntOrText);

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(IntOrText::Text(text.to_owned()))
            }
        }
    };
}

size!(
    /// A number of bytes: `20Gi`, `1500M`, plain bytes.
    SizeText,
    {
        "x-kubernetes-int-or-string": true,
        "x-kubernetes-validations": validations(&[&rules::SIZE, &rules::SIZE_MINIMUM]),
    }
);
size!(
    /// A number of bytes that are to be free.
    FreeSizeText,
    {
        "x-kubernetes-int-or-string": true,
        "x-kubernetes-validations": validations(&[&rules::SIZE, &rules::FREE_SIZE_MINIMUM]),
    }
);
size!(
    /// A number of bytes that may be held, or a share of the file system; 0 is one like others.
    HeldSizeText,
    {
        "x-kubernetes-int-or-string": true,
        "x-kubernetes-validations": validations(&[&rules::SIZE_OR_SHARE, &rules::HELD_SIZE_MINIMUM]),
    }
);
size!(
    /// A number of bytes that a quota allows, of which 0 is one like others.
    QuotaSizeText,
    {
        "x-kubernetes-int-or-string": true,
        "x-kubernetes-validations": validations(&[&rules::SIZE, &rules::QUOTA_SIZE_MINIMUM]),
    }
);
size!(
    /// A number of bytes, or a share of the file system: `10%`.
    SizeOrShareText,
    {
        "x-kubernetes-int-or-string": true,
        "x-kubernetes-validations": validations(&[&rules::SIZE_OR_SHARE, &rules::SIZE_MINIMUM]),
    }
);
size!(
    /// A number of bytes inside a list, where the API server can afford only cheap rules.
    ListedSizeText,
    {
        "x-kubernetes-int-or-string": true,
        "pattern": "^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[kMGTPE]|[eE][+-]?[0-9]+)?$",
        "x-kubernetes-validations": validations(&[&rules::SIZE_MINIMUM_IN_LIST]),
    }
);

impl SizeText {
    /// The bytes; 0 is what "absent" is: none.
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> Option<u64> {
        read_bytes(&self.0, path, problems)
    }
}

impl QuotaSizeText {
    /// The bytes, where 0 is a value like others.
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> Option<u64> {
        read_size(&self.0, &rules::QUOTA_SIZE_MINIMUM, path, problems)
    }
}

impl FreeSizeText {
    /// The bytes; 0 is what "absent" is: none.
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> Option<u64> {
        read_size(&self.0, &rules::FREE_SIZE_MINIMUM, path, problems).filter(|bytes| *bytes > 0)
    }
}

impl HeldSizeText {
    /// The size, where 0 and 0% are values like others.
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> Option<Size> {
        match &self.0 {
            IntOrText::Text(text) if text.ends_with('%') => {
                let share = read_share(text, path, problems)?;
                // Of however large a file system that is nothing, also while its size is not known.
                Some(if share.is_zero() { Size::Bytes(0) } else { Size::Share(share) })
            }
            other => read_size(other, &rules::HELD_SIZE_MINIMUM, path, problems).map(Size::Bytes),
        }
    }
}

impl ListedSizeText {
    /// The bytes; 0 is what "absent" is: none.
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> Option<u64> {
        read_bytes(&self.0, path, problems)
    }
}

impl SizeOrShareText {
    /// The size; 0 and 0% are what "absent" is: none.
    pub(crate) fn read(&self, path: &str, problems: &mut Problems) -> Option<Size> {
        match &self.0 {
            IntOrText::Text(text) if text.ends_with('%') => {
                ShareText(text.clone()).read(path, problems).map(Size::Share)
            }
            other => read_bytes(other, path, problems).map(Size::Bytes),
        }
    }
}

/// The bytes; 0 is what "absent" is: none.
fn read_bytes(value: &IntOrText, path: &str, problems: &mut Problems) -> Option<u64> {
    read_size(value, &rules::SIZE_MINIMUM, path, problems).filter(|bytes| *bytes > 0)
}

fn read_size(value: &IntOrText, minimum: &rules::Rule, path: &str, problems: &mut Problems) -> Option<u64> {
    let text = value.text();
    match quantity::parse(&text) {
        Ok(bytes) if rules::size_is_plausible(bytes) => Some(bytes),
        Ok(bytes) => {
            let hint = matches!(text.parse::<u64>(), Ok(number) if number == bytes);
            problems.add(
                &path,
                format!("{text} {}", minimum.message),
                hint.then(|| format!("did you mean \"{bytes}Mi\"?")),
            );
            None
        }
        Err(error) => {
            let message = match error {
                QuantityError::UnknownSuffix(suffix) if suffix == "%" => {
                    format!("{text:?} is a share, and this limit takes only a size such as 20Gi")
                }
                error => format!("{text:?} {error}"),
            };
            problems.add(&path, message, size_hint(&text).map(|better| format!("did you mean {better:?}?")));
            None
        }
    }
}

/// The size that was probably meant by `10GB`, `10gi`, `10 Gi` or `-1`.
fn size_hint(text: &str) -> Option<String> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let suffix = suffix.trim().to_lowercase();
    let better = match suffix.as_str() {
        "b" | "byte" | "bytes" => "",
        "k" | "kb" => "k",
        "m" | "mb" => "M",
        "g" | "gb" => "G",
        "t" | "tb" => "T",
        "ki" | "kib" => "Ki",
        "mi" | "mib" => "Mi",
        "gi" | "gib" => "Gi",
        "ti" | "tib" => "Ti",
        _ => return None,
    };
    let better = format!("{number}{better}");
    quantity::parse(&better).is_ok_and(rules::size_is_plausible).then_some(better)
}

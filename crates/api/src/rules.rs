//! What is refused beyond types, each rule once for the API server and once for files.
//!
//! A rule's CEL expression goes into the CRD; the function beside it is the same rule for manifests
//! and for objects that were stored before the rule existed. Both speak with the same message.
//!
//! CEL costs are estimated from declared maxima. An int-or-string has none (Kubernetes assumes the
//! 3 MiB of a whole request), so inside lists only what costs the same at any length is used. Only the
//! API server's own estimate counts: the tests on a real cluster show it every definition.

use std::time::Duration;

use checkpoint_keeper_core::quantity::Share;
use serde_json::{Value, json};

/// One rule as the API server evaluates it.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// A CEL expression over `self` that must be true.
    pub cel: &'static str,
    /// What the user reads when it is not.
    pub message: &'static str,
}

/// `x-kubernetes-validations` of a schema.
pub(crate) fn validations(rules: &[&Rule]) -> Value {
    rules.iter().map(|rule| json!({"rule": rule.cel, "message": rule.message})).collect()
}

/// A length of time.
pub const DURATION: Rule = Rule {
    cel: r"self.matches('^[+]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h|d|w))+)$')",
    message: "must be a length of time such as 30m, 24h, 7d or 2w",
};

/// A length of time that no sum of it with a date makes overflow. Each unit has its most digits, as in
/// [`checkpoint_keeper_core::duration`].
pub const DURATION_NOT_TOO_LONG: Rule = Rule {
    cel: r"!self.matches('(^|[+a-zµμ])0*([1-9][0-9]{4,}([.][0-9]*)?w|[1-9][0-9]{5,}([.][0-9]*)?d|[1-9][0-9]{6,}([.][0-9]*)?h|[1-9][0-9]{8,}([.][0-9]*)?m([^s]|$)|[1-9][0-9]{9,}([.][0-9]*)?s|[1-9][0-9]{12,}([.][0-9]*)?(ns|us|µs|μs|ms))')",
    message: "is too long; the most are 9999w, 99999d or 999999h",
};

/// A length of time, or no end.
pub const DURATION_OR_FOREVER: Rule = Rule {
    cel: r"self == 'Forever' || self.matches('^[+]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h|d|w))+)$')",
    message: "must be a length of time such as 24h, 7d or 2w, or Forever",
};

/// A share of a file system.
pub const SHARE: Rule = Rule {
    cel: r"self.matches('^(100([.]00?)?|[0-9]{1,2}([.][0-9]{1,2})?)%$')",
    message: "must be a share between 0% and 100%, such as 85% or 12.5%",
};

/// A number of bytes.
pub const SIZE: Rule = Rule {
    cel: "type(self) == int || isQuantity(self)",
    message: "must be a size such as 500Mi, 20Gi or 1Ti",
};

/// A number of bytes or a share of a file system.
pub const SIZE_OR_SHARE: Rule = Rule {
    cel: r"type(self) == int || (self.endsWith('%') ? self.matches('^(100([.]00?)?|[0-9]{1,2}([.][0-9]{1,2})?)%$') : isQuantity(self))",
    message: "must be a size such as 500Mi or 20Gi, or a share of the file system such as 10%",
};

const TOO_SMALL: &str = "is below 1Ki: the value is in bytes, and so small a limit would delete every archive; \
    write a unit, for example 10Mi (0 turns the limit off)";

/// No size is below 1Ki, except 0.
pub const SIZE_MINIMUM: Rule = Rule {
    cel: "type(self) == int ? self == 0 || self >= 1024 : !isQuantity(self) \
        || quantity(self).compareTo(quantity('0')) == 0 || quantity(self).compareTo(quantity('1Ki')) >= 0",
    message: TOO_SMALL,
};

/// The same inside lists, where reading a whole quantity would cost too much: what it does costs the same
/// at any length. A number in a text needs a suffix or four digits, and no fraction of a Ki is enough. The
/// schema's pattern refuses what is no size; what both let through (`00.5Ki`) is refused when it is read.
pub const SIZE_MINIMUM_IN_LIST: Rule = Rule {
    cel: "type(self) in [int] ? self == 0 || self >= 1024 : self == '0' \
        || (self.endsWith('Ki') || self.endsWith('k') ? !self.startsWith('0.') && !self.startsWith('.') \
        : self.endsWith('i') || self.endsWith('M') || self.endsWith('G') || self.endsWith('T') \
        || self.endsWith('P') || self.endsWith('E') || size(self) > 4 || (size(self) == 4 && self >= '1024') \
        || self.endsWith('e4') || self.endsWith('e5') || self.endsWith('e6') || self.endsWith('e7') \
        || self.endsWith('e8') || self.endsWith('e9') || self.endsWith('E4') || self.endsWith('E5') \
        || self.endsWith('E6') || self.endsWith('E7') || self.endsWith('E8') || self.endsWith('E9'))",
    message: TOO_SMALL,
};

/// No free space to be had is below 1Ki, except 0.
pub const FREE_SIZE_MINIMUM: Rule = Rule {
    cel: SIZE_MINIMUM.cel,
    message: "is below 1Ki: the value is in bytes, and with so little left the file system is full; write a unit, for \
        example 10Gi (0 turns the limit off)",
};

/// No size of what may be held is below 1Ki, except 0.
pub const HELD_SIZE_MINIMUM: Rule = Rule {
    cel: SIZE_MINIMUM.cel,
    message: "is below 1Ki: the value is in bytes, and so little would refuse every hold; write a unit, for example \
        10Gi (0 refuses every hold on purpose)",
};

/// The smallest size, in bytes, that is no unit mistake.
pub const SMALLEST_SIZE: u64 = 1024;

/// [`SIZE_MINIMUM`] for bytes that were read.
pub fn size_is_plausible(bytes: u64) -> bool {
    bytes == 0 || bytes >= SMALLEST_SIZE
}

/// The exact name of a namespace, pod or container.
pub const NAME: Rule = Rule {
    cel: r"self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
    message: "must be an exact name (lower-case letters, digits, '-' and '.'); it can neither be empty nor a pattern",
};

/// The longest name of a pod.
pub const LONGEST_NAME: usize = 253;

/// [`NAME`] for files.
pub fn is_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let (Some(first), Some(last)) = (text.bytes().next(), text.bytes().last()) else { return false };
    inner(first) && inner(last) && text.bytes().all(|byte| inner(byte) || byte == b'-' || byte == b'.')
}

/// Tiers instead of an age, not together.
pub const TIERS_AND_MAX_AGE: Rule = Rule {
    cel: "!has(self.tiers) || !has(self.maxAge)",
    message: "tiers and maxAge exclude each other: tiers already say how long archives stay",
};

/// Tiers instead of a count, not together.
pub const TIERS_AND_MAX_COUNT: Rule = Rule {
    cel: "!has(self.tiers) || !has(self.perContainer) || !has(self.perContainer.maxCount)",
    message: "tiers and perContainer.maxCount exclude each other: tiers already say how many archives stay",
};

/// Tiers that keep something.
pub const TIERS_KEEP: Rule = Rule {
    cel: "(has(self.hourly) && self.hourly > 0) || (has(self.daily) && self.daily > 0) \
        || (has(self.weekly) && self.weekly > 0) || (has(self.monthly) && self.monthly > 0) \
        || (has(self.yearly) && self.yearly > 0)",
    message: "tiers that are all 0 keep nothing; set at least one of hourly, daily, weekly, monthly, yearly, \
        or leave tiers out",
};

/// An end needs a beginning.
pub const LOW_NEEDS_HIGH: Rule = Rule {
    cel: "!has(self.lowWatermark) || has(self.highWatermark)",
    message: "lowWatermark says where the deletions end that highWatermark begins: set highWatermark as well, \
        or leave lowWatermark out",
};

/// The watermark's end below its beginning; one of 0% is off. What is no share, other rules refuse.
pub const LOW_BELOW_HIGH: Rule = Rule {
    cel: r"!has(self.lowWatermark) || !has(self.highWatermark) || !self.lowWatermark.matches('^[0-9]{1,3}([.][0-9]{1,2})?%$') || !self.highWatermark.matches('^[0-9]{1,3}([.][0-9]{1,2})?%$') || double(self.highWatermark.replace('%', '')) == 0.0 || double(self.lowWatermark.replace('%', '')) < double(self.highWatermark.replace('%', ''))",
    message: "lowWatermark must be below highWatermark",
};

/// The point of no more waiting not before the watermark itself.
pub const CRITICAL_NOT_BELOW_HIGH: Rule = Rule {
    cel: r"!has(self.criticalWatermark) || !has(self.highWatermark) || !self.criticalWatermark.matches('^[0-9]{1,3}([.][0-9]{1,2})?%$') || !self.highWatermark.matches('^[0-9]{1,3}([.][0-9]{1,2})?%$') || double(self.criticalWatermark.replace('%', '')) == 0.0 || double(self.criticalWatermark.replace('%', '')) >= double(self.highWatermark.replace('%', ''))",
    message: "criticalWatermark must not be below highWatermark: from there on nothing slows the watermark down",
};

/// No watermark that a mistyped digit makes of a sound one: 8% for 88% would empty a node.
pub const WATERMARK_AT_LEAST_HALF: Rule = Rule {
    cel: r"!self.matches('^[0-9]{1,2}([.][0-9]{1,2})?%$') || self.matches('^(00?([.]00?)?|[5-9][0-9]([.][0-9]{1,2})?)%$')",
    message: "must be at least 50%: below that no disk is full, and a mistyped watermark (8% for 88%) would \
        empty the node; 0% turns it off",
};

/// [`WATERMARK_AT_LEAST_HALF`] for files.
pub fn watermark_is_plausible(share: Share) -> bool {
    share.is_zero() || Share::percent(50).is_some_and(|half| share >= half)
}

/// A refill that ends.
pub const PERIOD_NOT_ZERO: Rule =
    Rule { cel: "self.matches('[1-9]')", message: "must be longer than 0, for example 1m" };

/// CEL: the text names neither days nor weeks, which `duration()` does not know. No other unit has these letters.
macro_rules! no_days {
    () => {
        "!self.matches('[dw]')"
    };
}

/// CEL: the text is a length of time that compares so. What `duration()` does not read passes, as [`DURATION`] refuses it.
macro_rules! compared {
    ($operator:literal, $bound:literal) => {
        concat!(
            "(!self.matches('^[+]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$') || duration(self) ",
            $operator,
            " duration('",
            $bound,
            "'))"
        )
    };
}

/// CEL: the text is a length of time of so many seconds, of five at most, or a longer one. `duration()` ends at 292 years, so
/// what has a long part (`has_long_part`) is not compared, and other days and weeks are refused.
macro_rules! at_least {
    ($shortest:literal) => {
        concat!(
            "self.matches('(^|[^0-9.])[0-9]*[1-9][0-9]*([.][0-9]*)?(h|d|w|m([^s]|$))",
            "|(^|[^0-9.])[0-9]*[.][0-9]{0,3}[1-9][0-9]*(d|w)') || (",
            no_days!(),
            " && ",
            compared!(">=", $shortest),
            ")"
        )
    };
}

/// A length of time that is no busy loop.
pub const INTERVAL_AT_LEAST_A_SECOND: Rule =
    Rule { cel: at_least!("1s"), message: "interval must be at least 1s" };

/// A time that the kubelet can be given, which is whole seconds.
pub const TIMEOUT_AT_LEAST_A_SECOND: Rule =
    Rule { cel: INTERVAL_AT_LEAST_A_SECOND.cel, message: "timeout must be at least 1s" };

/// A time that a checkpoint may keep the others of its node waiting. Days and weeks are refused, however few; a thousand hours
/// or minutes and more are refused without adding them up, as `duration()` could not.
pub const TIMEOUT_AT_MOST_AN_HOUR: Rule = Rule {
    cel: concat!(
        no_days!(),
        " && !self.matches('(^|[^0-9.])0*[1-9][0-9]{3,}([.][0-9]*)?(h|m([^s]|$))') && ",
        compared!("<=", "1h")
    ),
    message: "timeout must be at most 1h",
};

/// [`TIMEOUT_AT_MOST_AN_HOUR`] for files.
pub fn is_at_most_an_hour(text: &str, time: Duration) -> bool {
    !has_days(text) && time <= Duration::from_hours(1)
}

/// A length of time that asks the kubelet for figures no more often than it has new ones.
pub const POLL_AT_LEAST_FIVE_SECONDS: Rule =
    Rule { cel: at_least!("5s"), message: "poll must be at least 5s" };

/// [`POLL_AT_LEAST_FIVE_SECONDS`] for files.
pub const SHORTEST_POLL: Duration = Duration::from_secs(5);

/// [`INTERVAL_AT_LEAST_A_SECOND`] and [`POLL_AT_LEAST_FIVE_SECONDS`] for files.
pub fn is_at_least(text: &str, time: Duration, shortest: Duration) -> bool {
    time >= shortest && (has_long_part(text) || !has_days(text))
}

/// Whether a length of time names days or weeks: no other unit has these letters.
fn has_days(text: &str) -> bool {
    text.contains(['d', 'w'])
}

/// Whether one number of a length of time alone comes to five seconds and more: of whole minutes, hours, days and weeks
/// any but 0, and of days and weeks also a ten-thousandth (8.64 s).
fn has_long_part(text: &str) -> bool {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    while let Some(begin) = rest.find(|c: char| !c.is_ascii_digit() && c != '.') {
        let (number, behind) = rest.split_at(begin);
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, next) = behind.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let is_some = |digits: &str, most: usize| digits.chars().take(most).any(|digit| digit != '0');
        let is_long = match unit {
            "m" | "h" => is_some(whole, usize::MAX),
            "d" | "w" => is_some(whole, usize::MAX) || is_some(fraction, 4),
            _ => false,
        };
        if is_long {
            return true;
        }
        rest = next;
    }
    false
}

/// A cron expression; what its fields say is read by the agents, and told in the condition Ready.
pub const CRON_FIELDS: Rule = Rule {
    cel: r"self.matches('^[ \\t]*[^ \\t]+([ \\t]+[^ \\t]+){4}[ \\t]*$')",
    message: "must have five fields: minute, hour, day of month, month, day of week",
};

/// The name of a time zone, as far as its letters go.
pub const TIME_ZONE: Rule = Rule {
    cel: "self.matches('^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$')",
    message: "must be the name of a time zone, such as UTC or Europe/Berlin",
};

/// A schedule that asks for something.
pub const TRIGGER_THERE: Rule = Rule {
    cel: "has(self.interval) || has(self.schedule) || (has(self.onAnnotation) && self.onAnnotation) || (has(self.onDisruption) && self.onDisruption.size() > 0) || has(self.resources)",
    message: "must have one of interval, schedule, onAnnotation true, onDisruption and resources",
};

/// A time zone with something that is in it.
pub const TIME_ZONE_NEEDS_SCHEDULE: Rule = Rule {
    cel: "!has(self.timeZone) || has(self.schedule)",
    message: "timeZone is for schedule, which is not there",
};

/// A resource trigger with something that it looks at.
pub const THRESHOLD_THERE: Rule = Rule {
    cel: "has(self.cpuPercent) || has(self.memoryPercent)",
    message: "must have cpuPercent or memoryPercent",
};

/// A pair of thresholds with at least one.
pub const ABOVE_OR_BELOW: Rule =
    Rule { cel: "has(self.above) || has(self.below)", message: "must have above or below" };

/// A schedule's retention that says something.
pub const SCHEDULE_RETENTION_THERE: Rule = Rule {
    cel: "has(self.keepLatest) || has(self.maxAge)",
    message: "must have keepLatest or maxAge; leave retention out to keep all",
};

/// A quota that bounds something.
pub const QUOTA_THERE: Rule =
    Rule { cel: "has(self.count) || has(self.bytes)", message: "must have count or bytes" };

/// No quota of bytes is below 1Ki, except 0.
pub const QUOTA_SIZE_MINIMUM: Rule = Rule {
    cel: SIZE_MINIMUM.cel,
    message: "is below 1Ki: the value is in bytes, and so little would reject every checkpoint; write a unit, for \
        example 10Gi (0 rejects every checkpoint on purpose)",
};

/// A bucket that lets something through.
pub const DELETION_LIMIT_NOT_ZERO: Rule = Rule {
    cel: "!has(self.burst) || self.burst > 0 || !has(self.percent) || self.percent > 0",
    message: "burst 0 and percent 0 together would never allow a deletion; leave deletionLimit out for the default",
};

/// The values that an operator of a label selector takes.
pub const SELECTOR_VALUES: Rule = Rule {
    cel: "self.operator in ['In', 'NotIn'] ? has(self.values) && size(self.values) > 0 \
        : !has(self.values) || size(self.values) == 0",
    message: "In and NotIn need at least one value; Exists and DoesNotExist take none",
};

/// The key of a label.
pub const LABEL_KEY: Rule = Rule {
    cel: r"self.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",
    message: "must be a label's key such as app or app.kubernetes.io/name",
};

/// The keys of `matchLabels`, which are a map's: a schema cannot bound them.
pub const LABEL_KEYS: Rule = Rule {
    cel: r"self.all(key, size(key) <= 317 && key.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$'))",
    message: "each key must be a label's key such as app or app.kubernetes.io/name",
};

/// The name of a file, without a directory.
pub const FILE_NAME: Rule = Rule {
    cel: "self != '' && self != '.' && self != '..' && !self.contains('/')",
    message: "must be the name of a file in the checkpoint directory, without a path",
};

/// A text that says something.
pub const NOT_EMPTY: Rule = Rule { cel: r"self.matches('[^ \\t\\r\\n]')", message: "must not be empty" };

/// A hold and a discard of one archive contradict each other.
pub const HOLD_OR_DISCARD: Rule = Rule {
    cel: "!has(self.hold) || !has(self.discard)",
    message: "hold and discard exclude each other: take hold out in a change of its own first",
};

/// The last two days of the year 9999 cannot be held in memory; this leaves room for any time zone.
pub const UNTIL_IN_TIME: Rule = Rule {
    cel: "!has(self.until) || string(self.until) < '9999'",
    message: "until must be before the year 9999; without it a hold does not end",
};

/// A discard may be carried out already.
pub const DISCARD_IS_FINAL: Rule = Rule {
    cel: "!has(oldSelf.discard) || (has(self.discard) && self.discard == oldSelf.discard)",
    message: "discard cannot be changed or taken back once it is set",
};

/// [`LABEL_KEY`] for files.
pub fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => {
            is_name(prefix) && prefix.len() <= LONGEST_NAME && !name.is_empty() && is_label_value(name)
        }
        None => !text.is_empty() && is_label_value(text),
    }
}

/// The value of a label.
pub const LABEL_VALUE: Rule = Rule {
    cel: r"self.matches('^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$')",
    message: "must be a label's value: at most 63 letters, digits, '-', '_' and '.'",
};

/// [`LABEL_VALUE`] for files.
pub fn is_label_value(text: &str) -> bool {
    let ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.is_empty()
        || (text.len() <= 63
            && ends(text.bytes().next())
            && ends(text.bytes().last())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)))
}

//! One JSON value or key, as it stands in the text that it comes from.
//!
//! What is longer than what may be kept is never copied, and what is escaped in it never put together: a member of an
//! archive may hold one text of many megabytes.

use std::borrow::Cow;

use jiff::Timestamp;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;

/// The longest name, image or other text that is kept from `config.dump`, in bytes.
pub(crate) const MAX_TEXT: usize = 4 << 10;

/// How many bytes of JSON one byte of text takes at most: `\u0000`.
const MOST_ESCAPED: usize = 6;

/// A JSON value or key.
pub(crate) struct Scalar<'a>(&'a RawValue);

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Deserialize::deserialize(deserializer).map(Self)
    }
}

/// What a JSON value is as a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Text<'a> {
    /// A text that may be kept.
    Short(Cow<'a, str>),
    /// A text that is too long to be kept.
    TooLong,
    /// Another value.
    None,
}

impl<'a> Scalar<'a> {
    /// The value as a text of at most so many bytes. Fails where what is escaped in it is no text.
    pub(crate) fn as_text<E: Error>(&self, longest: usize) -> Result<Text<'a>, E> {
        let json = self.0.get();
        let Some(inner) = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            return Ok(Text::None);
        };
        if inner.len() > longest.saturating_mul(MOST_ESCAPED) {
            return Ok(Text::TooLong);
        }
        let text = if inner.contains('\\') {
            Cow::Owned(serde_json::from_str::<String>(json).map_err(E::custom)?)
        } else {
            Cow::Borrowed(inner)
        };
        Ok(if text.len() > longest { Text::TooLong } else { Text::Short(text) })
    }

    /// The text, if it is one that is neither empty nor too long.
    pub(crate) fn text<E: Error>(&self) -> Result<Option<String>, E> {
        Ok(match self.as_text(MAX_TEXT)? {
            Text::Short(text) if !text.is_empty() => Some(text.into_owned()),
            _ => None,
        })
    }

    /// Whether it is `true` or `false`.
    pub(crate) fn bool(&self) -> Option<bool> {
        match self.0.get() {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    /// A time, unless it is Go's zero time, which means none.
    pub(crate) fn time<E: Error>(&self) -> Result<Option<Timestamp>, E> {
        /// 0001-01-01T00:00:00Z, in seconds from the epoch.
        const GO_ZERO: i64 = -62_135_596_800;
        let time = self.text()?.and_then(|text| text.parse::<Timestamp>().ok());
        Ok(time.filter(|time| time.as_second() != GO_ZERO || time.subsec_nanosecond() != 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(json: &str, longest: usize) -> Result<Text<'_>, serde_json::Error> {
        serde_json::from_str::<Scalar<'_>>(json)?.as_text(longest)
    }

    #[test]
    fn a_text_is_taken_up_to_its_longest_and_copied_only_where_it_is_escaped() {
        let is_copied = |json: &str| matches!(text(json, 4).unwrap(), Text::Short(Cow::Owned(_)));
        for (json, expected, copied) in [
            (r#""abcd""#, Text::Short("abcd".into()), false),
            (r#" "abcd" "#, Text::Short("abcd".into()), false),
            (r#""""#, Text::Short("".into()), false),
            (r#""a\nb""#, Text::Short("a\nb".into()), true),
            (r#""\u0061\u0062\u0063\u0064""#, Text::Short("abcd".into()), true),
            (r#""\"""#, Text::Short("\"".into()), true),
            (r#""abcde""#, Text::TooLong, false),
            (r#""abcd\n""#, Text::TooLong, false),
            ("7", Text::None, false),
            ("null", Text::None, false),
            (r#"["abcd"]"#, Text::None, false),
            (r#"{"a": "b"}"#, Text::None, false),
        ] {
            assert_eq!((text(json, 4).unwrap(), is_copied(json)), (expected, copied), "{json}");
        }
        assert!(text(r#""\ud800""#, 4).is_err(), "half of a character");
        // However long it is, no more of it is looked at.
        for begin in ["", "\\n", "\\ud800"] {
            let long = format!("\"{begin}{}\"", "a".repeat(1 << 20));
            assert_eq!(text(&long, 4).unwrap(), Text::TooLong);
            assert_eq!(text(&long, MAX_TEXT).unwrap(), Text::TooLong);
        }
    }
}

//! A YAML document as a tree in which every key and value knows its place.
//!
//! Values keep the type that YAML gives them: text, whole number, number, boolean, null. What a field
//! wants is decided later, against the schema.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};

/// A place in a file, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl Place {
    fn of(location: Location, above: u64) -> Self {
        Self { line: location.line().max(1) + above, column: location.column().max(1) }
    }
}

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) value: Tree,
}

/// A value.
#[derive(Debug, Clone)]
pub(super) enum Tree {
    Null,
    Bool(bool),
    Int(i64),
    Number(f64),
    /// A text, and whether it stood there without quotes.
    Text(String, bool),
    List(Vec<Node>),
    /// Members in the order of the file, repeated ones included.
    Map(Vec<Member>),
}

/// A key with its value.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) key: String,
    pub(super) at: Place,
    pub(super) node: Node,
}

impl Node {
    /// The member of that name.
    pub(super) fn get(&self, key: &str) -> Option<&Member> {
        match &self.value {
            Tree::Map(members) => members.iter().find(|member| member.key == key),
            _ => None,
        }
    }

    /// The text of the member of that name.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        match &self.get(key)?.node.value {
            Tree::Text(text, _) => Some(text),
            _ => None,
        }
    }

    /// Where a field such as `spec.pods[1]` stands, or the innermost part of its path that is there.
    pub(super) fn place_of(&self, path: &str) -> Place {
        let (mut node, mut place) = (self, self.at);
        let mut rest = path;
        while !rest.is_empty() {
            if let Some((index, behind)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
                let Tree::List(items) = &node.value else { break };
                let Some(item) = index.parse::<usize>().ok().and_then(|index| items.get(index)) else {
                    break;
                };
                (node, place, rest) = (item, item.at, behind.trim_start_matches('.'));
                continue;
            }
            // A label's key may hold dots, so the longest member that the path begins with counts.
            let Tree::Map(members) = &node.value else { break };
            let begins = |member: &&Member| {
                rest.strip_prefix(member.key.as_str())
                    .is_some_and(|behind| behind.is_empty() || behind.starts_with(['.', '[']))
            };
            let Some(member) = members.iter().filter(begins).max_by_key(|member| member.key.len()) else {
                break;
            };
            rest = rest[member.key.len()..].trim_start_matches('.');
            (node, place) = (&member.node, member.at);
        }
        place
    }

    /// The value without places.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Tree::Null => serde_json::Value::Null,
            Tree::Bool(value) => (*value).into(),
            Tree::Int(value) => (*value).into(),
            Tree::Number(value) => (*value).into(),
            Tree::Text(value, _) => value.as_str().into(),
            Tree::List(items) => items.iter().map(Self::to_json).collect(),
            Tree::Map(members) => {
                members.iter().map(|member| (member.key.clone(), member.node.to_json())).collect()
            }
        }
    }
}

/// Why a document could not be read.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) at: Place,
    pub(super) message: String,
}

/// The deepest nesting of a document.
///
/// Reading recurses, so this bounds the stack: what a policy needs (ten, with what a cluster adds) is
/// far below, and what a thread's stack of 2 MiB holds, even unoptimized, is above.
pub(super) const DEEPEST: usize = 24;
/// The most values of a document.
const MOST_NODES: usize = 200_000;
/// The most values that the aliases of a document may stand for.
const MOST_REPLAYED: usize = 5_000;

/// Reads one document that begins `above` lines below the top of its file; none where it is empty.
pub(super) fn parse(text: &str, above: u64) -> Result<Option<Node>, SyntaxError> {
    let options = serde_saphyr::options! {
        // All repeated keys are reported, not the first.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // What kubectl reads differently stays text, and is refused where it is no text that is wanted.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        ignore_binary_tag_for_string: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: DEEPEST,
            max_nodes: MOST_NODES,
            max_events: 3 * MOST_NODES,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_recorded_anchor_events: 100_000,
            max_recorded_anchor_bytes: super::LARGEST_FILE,
            max_merge_keys: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MOST_REPLAYED },
    };
    let read = serde_saphyr::from_str_with_options::<Spanned<Raw>>(text, options);
    match read {
        Ok(raw) => {
            let node = raw_to_node(raw, text, above);
            Ok(if matches!(node.value, Tree::Null) { None } else { Some(node) })
        }
        Err(error) => {
            let error = error.without_snippet();
            let at = error.location().map_or(Place { line: above + 1, column: 1 }, |at| Place::of(at, above));
            Err(SyntaxError { at, message: one_line(&error.to_string()) })
        }
    }
}

/// An error's text without the place that it repeats, and in plain words where a limit was met.
fn one_line(text: &str) -> String {
    let text = text.lines().next().unwrap_or_default();
    let text = text.find(" at line ").map_or(text, |end| &text[..end]).trim_end_matches([',', ':']);
    if text.contains("alias") && text.contains("limit") {
        format!("its aliases stand for more than {MOST_REPLAYED} values")
    } else if text.contains("Depth {") || text.contains("recursion limit") {
        format!("it is nested deeper than {DEEPEST} levels")
    } else if text.contains("Nodes {") || text.contains("Events {") {
        format!("it has more than {MOST_NODES} values")
    } else if let Some((_, breach)) = text.split_once("budget breached: ") {
        let what = breach.split([' ', '{', '(']).next().unwrap_or_default();
        format!("it is larger than any policy ({what})")
    } else if text.contains("recursive references") {
        "an alias stands inside what it refers to".to_owned()
    } else {
        text.to_owned()
    }
}

fn raw_to_node(raw: Spanned<Raw>, source: &str, above: u64) -> Node {
    let at = Place::of(raw.referenced, above);
    let value = match raw.value {
        Raw::Null => Tree::Null,
        Raw::Bool(value) => Tree::Bool(value),
        Raw::Int(value) => Tree::Int(value),
        Raw::Number(value) => Tree::Number(value),
        Raw::Text(value) => {
            let begin = raw.defined.span().byte_offset().and_then(|offset| usize::try_from(offset).ok());
            let first = begin.and_then(|begin| source.as_bytes().get(begin));
            Tree::Text(value, !first.is_some_and(|first| b"\"'|>".contains(first)))
        }
        Raw::List(items) => {
            Tree::List(items.into_iter().map(|item| raw_to_node(item, source, above)).collect())
        }
        Raw::Map(members) => Tree::Map(
            members
                .into_iter()
                .map(|(key, value)| Member {
                    at: Place::of(key.referenced, above),
                    key: key.value,
                    node: raw_to_node(value, source, above),
                })
                .collect(),
        ),
    };
    Node { at, value }
}

enum Raw {
    Null,
    Bool(bool),
    Int(i64),
    Number(f64),
    Text(String),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<String>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Raw, D::Error> {
        Raw::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        Ok(Raw::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(i64::try_from(value).map_or(Raw::Number(value as f64), Raw::Int))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Raw, E> {
        Ok(i64::try_from(value).map_or(Raw::Number(value as f64), Raw::Int))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Raw, E> {
        Ok(i64::try_from(value).map_or(Raw::Number(value as f64), Raw::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Raw::Map(members))
    }
}

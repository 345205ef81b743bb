//! A document against its kind's schema: unknown and missing fields, wrong types, values out of bounds.
//!
//! The schema is the CRD's own, so a file and the API server agree on what a field is. Rules beyond
//! that (CEL there, code here) come afterwards.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::MOST_ERRORS;
use super::tree::{Node, Place, Tree};
use crate::rules;

/// Something wrong at a place.
pub(super) struct Finding {
    pub(super) at: Place,
    pub(super) path: String,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Finding {
    pub(super) fn new(at: Place, path: &str, message: impl Into<String>, hint: Option<String>) -> Self {
        Self { at, path: path.to_owned(), message: message.into(), hint }
    }

    /// Whether it is about that field or a part of it.
    pub(super) fn is_within(&self, path: &str) -> bool {
        self.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    }
}

/// Collects what is wrong with a document.
pub(super) struct Check<'a> {
    /// The schema of the whole kind, for finding where a misplaced field belongs.
    pub(super) root: &'a Value,
    pub(super) found: Vec<Finding>,
}

impl Check<'_> {
    /// Whether there are more findings than are reported. The check then stops, as a finding takes more memory than
    /// the field that it is about.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() > MOST_ERRORS
    }

    pub(super) fn add(&mut self, at: Place, path: &str, message: impl Into<String>, hint: Option<String>) {
        self.found.push(Finding::new(at, path, message, hint));
    }

    /// Reports every key that stands twice in one map.
    pub(super) fn repeated_keys(&mut self, node: &Node, path: &str) {
        match &node.value {
            Tree::Map(members) => {
                let mut first_places = BTreeMap::new();
                for member in members {
                    if self.is_full() {
                        break;
                    }
                    let here = join(path, &member.key);
                    let first = *first_places.entry(member.key.as_str()).or_insert(member.at);
                    if first != member.at {
                        let message = format!("is there twice; the first is in line {}", first.line);
                        self.add(member.at, &here, message, None);
                    }
                    self.repeated_keys(&member.node, &here);
                }
            }
            Tree::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    if self.is_full() {
                        break;
                    }
                    self.repeated_keys(item, &format!("{path}[{index}]"));
                }
            }
            _ => {}
        }
    }

    /// The value as JSON without nulls and unknown fields; none where it is not what the schema wants.
    pub(super) fn value(&mut self, schema: &Value, node: &Node, at: Place, path: &str) -> Option<Value> {
        if schema["x-kubernetes-int-or-string"] == true {
            return self.int_or_text(node, at, path);
        }
        match schema["type"].as_str() {
            Some("object") => self.object(schema, node, at, path),
            Some("array") => self.list(schema, node, at, path),
            Some("string") => self.text(schema, node, at, path),
            Some("integer") => self.integer(schema, node, at, path),
            Some("boolean") => match &node.value {
                Tree::Bool(value) => Some((*value).into()),
                Tree::Text(text, true) if is_yaml_1_1_bool(text) => {
                    self.add(at, path, format!("is {text}; write true or false"), None);
                    None
                }
                _ => self.wrong(node, at, path, "true or false is wanted", None),
            },
            _ => Some(node.to_json()),
        }
    }

    fn object(&mut self, schema: &Value, node: &Node, at: Place, path: &str) -> Option<Value> {
        let Tree::Map(members) = &node.value else {
            return self.wrong(node, at, path, "a group of fields is wanted", None);
        };
        let (fields, others) = (schema["properties"].as_object(), &schema["additionalProperties"]);
        if members.len() as u64 > schema["maxProperties"].as_u64().unwrap_or(u64::MAX) {
            self.add(at, path, format!("has more than {} entries", schema["maxProperties"]), None);
            return None;
        }
        let mut object = Map::new();
        let (mut present, mut unknown) = (BTreeSet::new(), Vec::new());
        for member in members {
            if self.is_full() {
                return None;
            }
            let here = join(path, &member.key);
            let known =
                fields.and_then(|fields| fields.get(&member.key)).or(others.is_object().then_some(others));
            let Some(known) = known else {
                let open = fields.is_none() && others.is_null();
                if open {
                    object.insert(member.key.clone(), member.node.to_json());
                } else {
                    unknown.push(member.key.as_str());
                    let hint = self.unknown_field_hint(fields, &member.key, path);
                    self.add(member.at, &here, "unknown field", hint);
                }
                continue;
            };
            // As for the API server, null is the same as not there.
            if matches!(member.node.value, Tree::Null) {
                continue;
            }
            present.insert(member.key.as_str());
            if let Some(value) = self.value(known, &member.node, member.at, &here) {
                object.insert(member.key.clone(), value);
            }
        }
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            // A mistyped name of the field was reported and is all that is wrong.
            let mistyped = |unknown: &&str| nearest(unknown, std::iter::once(required)).is_some();
            if !present.contains(required) && !unknown.iter().any(mistyped) {
                self.add(at, &join(path, required), "is required", None);
            }
            // With any of its values in place of one that is missing or wrong, the rest can be judged.
            let stand_in = || fields?.get(required)?["enum"].get(0).cloned();
            if !object.contains_key(required)
                && let Some(value) = stand_in()
            {
                object.insert(required.to_owned(), value);
            }
        }
        Some(Value::Object(object))
    }

    fn unknown_field_hint(
        &self,
        fields: Option<&Map<String, Value>>,
        key: &str,
        path: &str,
    ) -> Option<String> {
        let elsewhere = || {
            let mut places = Vec::new();
            find_field(self.root, key, "", &mut places);
            (!places.is_empty() && places.len() <= 4)
                .then(|| format!("{key:?} belongs in {}", places.join(" or ")))
        };
        if key == "namespaces" && path == "spec.selector" {
            let label = "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: <namespace>}}";
            return Some(format!("select a namespace by its name with {label}"));
        }
        let near = fields.and_then(|fields| nearest(key, fields.keys().map(String::as_str)));
        near.map(|near| format!("did you mean {near:?}?")).or_else(elsewhere).or_else(|| {
            let known: Vec<_> = fields?.keys().map(String::as_str).collect();
            (known.len() <= 12).then(|| format!("known here: {}", known.join(", ")))
        })
    }

    fn list(&mut self, schema: &Value, node: &Node, at: Place, path: &str) -> Option<Value> {
        let Tree::List(items) = &node.value else {
            return self.wrong(node, at, path, "a list is wanted", None);
        };
        if items.len() as u64 > schema["maxItems"].as_u64().unwrap_or(u64::MAX) {
            self.add(at, path, format!("has more than {} entries", schema["maxItems"]), None);
            return None;
        }
        let mut list = Vec::new();
        for (index, item) in items.iter().enumerate() {
            if self.is_full() {
                return None;
            }
            let value = self.value(&schema["items"], item, item.at, &format!("{path}[{index}]"));
            // What could not be read keeps its place, so that what follows keeps its index. Every list
            // of single values is one of names or label values, and this is a legal one of both.
            list.push(value.unwrap_or_else(|| "unreadable".into()));
        }
        Some(Value::Array(list))
    }

    fn text(&mut self, schema: &Value, node: &Node, at: Place, path: &str) -> Option<Value> {
        let text = match &node.value {
            Tree::Text(text, true) if is_yaml_1_1_bool(text) && schema["enum"].is_null() => {
                let message = format!("is the bare word {text}, which kubectl reads as true or false");
                self.add(at, path, message, Some(format!("put it in quotes: \"{text}\"")));
                return None;
            }
            Tree::Text(text, _) => text,
            Tree::Int(0) if is_duration(schema) => {
                return self.wrong(node, at, path, "a length of time is wanted", Some("write 0s".to_owned()));
            }
            Tree::Int(number) if is_duration(schema) => {
                let hint = format!("did you mean \"{number}d\" (days) or \"{number}h\" (hours)?");
                return self.wrong(node, at, path, "a length of time is wanted", Some(hint));
            }
            Tree::Int(number) if is_rule(schema, &rules::SHARE) => {
                let hint = format!("did you mean \"{number}%\"?");
                self.wrong(node, at, path, "a share is wanted", Some(hint));
                // The rest is judged with what was meant, where that is a share.
                return (0..=100).contains(number).then(|| format!("{number}%").into());
            }
            Tree::Int(number) => {
                return self.wrong(
                    node,
                    at,
                    path,
                    "text is wanted",
                    Some(format!("put it in quotes: \"{number}\"")),
                );
            }
            Tree::Bool(value) if schema["enum"].is_null() => {
                return self.wrong(
                    node,
                    at,
                    path,
                    "text is wanted",
                    Some(format!("put it in quotes: \"{value}\"")),
                );
            }
            _ => return self.wrong(node, at, path, "text is wanted", None),
        };
        if let Some(values) = schema["enum"].as_array() {
            let values: Vec<_> = values.iter().filter_map(Value::as_str).collect();
            if !values.contains(&text.as_str()) {
                let near = nearest(text, values.iter().copied());
                let message = format!("{text:?} is none of {}", values.join(", "));
                self.add(at, path, message, near.map(|near| format!("did you mean {near:?}?")));
                return None;
            }
        }
        if text.chars().count() as u64 > schema["maxLength"].as_u64().unwrap_or(u64::MAX) {
            self.add(at, path, format!("is longer than {} characters", schema["maxLength"]), None);
            return None;
        }
        Some(text.as_str().into())
    }

    fn integer(&mut self, schema: &Value, node: &Node, at: Place, path: &str) -> Option<Value> {
        let number = match &node.value {
            Tree::Int(number) => *number,
            // 1e+06 and 3.0 are what Helm and JSON make of whole numbers.
            Tree::Number(number) if let Some(whole) = whole_number(*number) => whole,
            Tree::Text(text, true) if text.starts_with('0') => {
                let hint = "kubectl reads a leading 0 as octal; write the number without it".to_owned();
                return self.wrong(node, at, path, "a whole number is wanted", Some(hint));
            }
            Tree::Text(text, _) => {
                let hint =
                    text.trim().parse::<i64>().ok().map(|number| format!("write {number} without quotes"));
                return self.wrong(node, at, path, "a whole number is wanted", hint);
            }
            _ => return self.wrong(node, at, path, "a whole number is wanted", None),
        };
        let bound = |name: &str| schema[name].as_f64();
        let beyond_format = schema["format"] == "int32" && i32::try_from(number).is_err();
        if number < 0 && bound("minimum").is_some_and(|minimum| minimum >= 0.0) {
            self.add(at, path, format!("{number} is negative"), None);
        } else if bound("minimum").is_some_and(|minimum| (number as f64) < minimum) {
            self.add(at, path, format!("{number} is less than {}", schema["minimum"]), None);
        } else if let Some(maximum) = bound("maximum").filter(|maximum| number as f64 > *maximum) {
            self.add(at, path, format!("{number} is more than {maximum}"), None);
        } else if beyond_format {
            self.add(at, path, format!("{number} is more than {}", i32::MAX), None);
        } else {
            return Some(number.into());
        }
        None
    }

    fn int_or_text(&mut self, node: &Node, at: Place, path: &str) -> Option<Value> {
        match &node.value {
            Tree::Int(number) => Some((*number).into()),
            Tree::Text(text, _) if text.len() > 64 => {
                self.add(at, path, "is longer than 64 characters", None);
                None
            }
            Tree::Text(text, _) => Some(text.as_str().into()),
            // 1e9 is a floating-point number for YAML and a size for everybody else.
            Tree::Number(number) if let Some(whole) = whole_number(*number) => Some(whole.into()),
            _ => self.wrong(node, at, path, "a size such as 20Gi is wanted", None),
        }
    }

    fn wrong(
        &mut self,
        node: &Node,
        at: Place,
        path: &str,
        wanted: &str,
        hint: Option<String>,
    ) -> Option<Value> {
        let is = match &node.value {
            Tree::Null => "is null".to_owned(),
            Tree::Bool(value) => format!("is {value}"),
            Tree::Int(value) => format!("is the number {value}"),
            Tree::Number(value) => format!("is the number {value}"),
            Tree::Text(value, _) => format!("is the text {:?}", shortened(value)),
            Tree::List(_) => "is a list".to_owned(),
            Tree::Map(_) => "is a group of fields".to_owned(),
        };
        self.add(at, path, format!("{is}; {wanted}"), hint);
        None
    }
}

/// The whole number that a floating-point one is, where it is one and exactly so.
fn whole_number(number: f64) -> Option<i64> {
    let is_whole = number.fract() == 0.0 && number.abs() < 9e15;
    is_whole.then(|| format!("{number:.0}").parse().ok()).flatten()
}

/// A text of which an error message can bear to repeat the beginning.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

pub(super) fn join(path: &str, key: &str) -> String {
    let key = shortened(key);
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

fn is_rule(schema: &Value, rule: &rules::Rule) -> bool {
    schema["x-kubernetes-validations"][0]["message"] == rule.message
}

fn is_duration(schema: &Value) -> bool {
    is_rule(schema, &rules::DURATION) || is_rule(schema, &rules::DURATION_OR_FOREVER)
}

/// Words that YAML 1.1, and so kubectl, reads as a boolean and YAML 1.2 as text.
fn is_yaml_1_1_bool(text: &str) -> bool {
    let word = |lower: &str| {
        let capital = lower[..1].to_uppercase() + &lower[1..];
        text == lower || text == capital || text == lower.to_uppercase()
    };
    ["y", "yes", "on", "n", "no", "off"].into_iter().any(word)
}

/// The candidate that was most likely meant.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_lowercase();
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 5)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Paths of groups in a schema that have a field of that name.
fn find_field(schema: &Value, key: &str, path: &str, places: &mut Vec<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if path.is_empty() && name == "status" {
            continue;
        }
        if name == key && !path.is_empty() {
            places.push(path.to_owned());
        }
        find_field(field, key, &join(path, name), places);
        find_field(&field["items"], key, &format!("{}[]", join(path, name)), places);
    }
}

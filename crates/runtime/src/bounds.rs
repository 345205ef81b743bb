//! How much is kept of the objects that tenants write: so many of a namespace, and so large together. Whoever may write
//! objects in one namespace decides neither how much memory an agent needs nor what becomes of other namespaces.

use std::collections::BTreeMap;

use serde_json::Value;

/// The most objects of a kind that are read in one namespace.
pub const MOST_OBJECTS: usize = 500;

/// How large they may be together, in bytes of text. The largest policy is about two thirds of it.
pub const MOST_BYTES: usize = 512 << 10;

/// By namespace and name.
pub(super) type Key = (String, String);

/// The objects of one kind, as far as they take up room.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    objects: BTreeMap<Key, Object>,
    namespaces: BTreeMap<String, Usage>,
}

#[derive(Debug, Clone, Copy)]
struct Object {
    bytes: usize,
    is_read: bool,
}

#[derive(Debug, Default)]
struct Usage {
    /// Of what is read.
    read: Sum,
    /// Of what is not.
    left_out: Sum,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    objects: usize,
    bytes: usize,
}

impl Sum {
    fn fits(self) -> bool {
        self.objects <= MOST_OBJECTS && self.bytes <= MOST_BYTES
    }

    fn with(self, bytes: usize) -> Self {
        Self { objects: self.objects + 1, bytes: self.bytes + bytes }
    }

    fn without(self, bytes: usize) -> Self {
        Self { objects: self.objects.saturating_sub(1), bytes: self.bytes.saturating_sub(bytes) }
    }
}

impl Bounds {
    /// Notes an object that is there; says whether it is read. Those of the whole cluster always are: administrators
    /// write them.
    pub(super) fn admit(&mut self, key: &Key, bytes: usize) -> bool {
        if key.0.is_empty() {
            return true;
        }
        self.remove(key);
        let usage = self.namespaces.entry(key.0.clone()).or_default();
        let is_read = usage.read.with(bytes).fits();
        let sum = if is_read { &mut usage.read } else { &mut usage.left_out };
        *sum = sum.with(bytes);
        self.objects.insert(key.clone(), Object { bytes, is_read });
        is_read
    }

    /// Notes that an object is gone.
    pub(super) fn remove(&mut self, key: &Key) {
        let Some(Object { bytes, is_read }) = self.objects.remove(key) else { return };
        let Some(usage) = self.namespaces.get_mut(&key.0) else { return };
        let sum = if is_read { &mut usage.read } else { &mut usage.left_out };
        *sum = sum.without(bytes);
        if usage.read.objects + usage.left_out.objects == 0 {
            self.namespaces.remove(&key.0);
        }
    }

    /// Whether a namespace has room by now for all that was left out of it.
    pub(super) fn have_room_again(&self) -> bool {
        self.namespaces.values().any(|Usage { read, left_out }| {
            let all = Sum { objects: read.objects + left_out.objects, bytes: read.bytes + left_out.bytes };
            left_out.objects > 0 && all.fits()
        })
    }
}

/// About how large a value is as text, in bytes.
pub(super) fn size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 3,
        Value::Array(all) => 2 + all.iter().map(size).sum::<usize>(),
        Value::Object(fields) => {
            2 + fields.iter().map(|(key, value)| key.len() + 3 + size(value)).sum::<usize>()
        }
    }
}

/// Why an object is not read.
pub(super) fn too_much(kind: &str) -> String {
    format!(
        "is not read: the {kind} objects of this namespace are more than {MOST_OBJECTS}, or larger than {} KiB together",
        MOST_BYTES >> 10
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: usize) -> Key {
        (namespace.to_owned(), name.to_string())
    }

    #[test]
    fn what_exceeds_a_namespaces_room_is_left_out_and_concerns_no_other_one() {
        let mut bounds = Bounds::default();
        for number in 0..MOST_OBJECTS {
            assert!(bounds.admit(&key("many", number), 1));
        }
        assert!(!bounds.admit(&key("many", MOST_OBJECTS), 1));
        assert!(bounds.admit(&key("many", 7), 1), "it is the same one once more");
        assert!(bounds.admit(&key("large", 0), MOST_BYTES) && !bounds.admit(&key("large", 1), 1));
        assert!(bounds.admit(&key("other", 0), 1));
        assert!(bounds.admit(&key("", 0), usize::MAX) && bounds.admit(&key("", 1), usize::MAX));
    }

    #[test]
    fn what_was_left_out_has_room_once_others_are_gone() {
        let mut bounds = Bounds::default();
        for number in 0..3 {
            bounds.admit(&key("a", number), MOST_BYTES / 2);
        }
        assert!(!bounds.have_room_again());
        bounds.remove(&key("a", 0));
        assert!(bounds.have_room_again());
        bounds.remove(&key("a", 2));
        assert!(!bounds.have_room_again());
        bounds.remove(&key("a", 1));
        assert!(bounds.namespaces.is_empty() && bounds.objects.is_empty());
    }

    #[test]
    fn a_size_is_about_that_of_the_text() {
        let value = serde_json::json!({"a": ["x".repeat(1_000), {"b": "y".repeat(500)}], "c": 1, "d": null});
        let (text, size) = (value.to_string().len(), size(&value));
        assert!(size.abs_diff(text) < 20, "{size} {text}");
    }
}

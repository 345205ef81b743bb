//! What is wrong with a field, and collecting all of it instead of the first.

use std::fmt;

/// What is wrong with one field of an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FieldError {
    /// The field: `spec.retention.perPod.maxCount`, `spec.selector.pods[1]`.
    pub path: String,
    /// What is wrong, a sentence without its subject.
    pub message: String,
    /// How to mend it, where that is known.
    pub hint: Option<String>,
}

/// Where in an object a conversion is, and what it found wrong so far.
#[derive(Debug, Default)]
pub(crate) struct Problems(pub(crate) Vec<FieldError>);

impl Problems {
    pub(crate) fn add(&mut self, path: &impl fmt::Display, message: impl Into<String>, hint: Option<String>) {
        self.0.push(FieldError { path: path.to_string(), message: message.into(), hint });
    }

    /// `value` where nothing was wrong.
    pub(crate) fn unless<T>(self, value: T) -> Result<T, Vec<FieldError>> {
        if self.0.is_empty() { Ok(value) } else { Err(self.0) }
    }
}

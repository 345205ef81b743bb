//! What is wrong with a file, for the person who wrote it.

use std::fmt;

use super::tree::Place;

/// One thing that is wrong with a manifest, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestError {
    /// The file, as it was named.
    pub file: String,
    /// The line in it, from 1; 0 where the whole file is meant.
    pub line: u64,
    /// The column in that line, from 1; 0 where the whole file is meant.
    pub column: u64,
    /// Which document of the file, from 1; 0 where the whole file is meant.
    pub document: usize,
    /// The object, as far as it is known: `CheckpointPolicy/shop/default`.
    pub object: Option<String>,
    /// The field: `spec.retention.perPod.maxCount`.
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    /// How to mend it, where that is known.
    pub hint: Option<String>,
}

impl ManifestError {
    /// An error about a whole file.
    pub(super) fn of_file(file: &str, message: impl Into<String>, hint: Option<&str>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            document: 0,
            object: None,
            field: None,
            message: message.into(),
            hint: hint.map(str::to_owned),
        }
    }

    pub(super) fn at(mut self, place: Place, document: usize) -> Self {
        (self.line, self.column, self.document) = (place.line, place.column, document);
        self
    }
}

impl fmt::Display for ManifestError {
    /// `policy.yaml:12: ClusterCheckpointPolicy/default: spec.retention.maxAgee: unknown field`, and the
    /// hint in a line of its own.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:", self.file)?;
        if self.line > 0 {
            write!(formatter, "{}:", self.line)?;
        }
        for part in [&self.object, &self.field].into_iter().flatten() {
            write!(formatter, " {part}:")?;
        }
        write!(formatter, " {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(formatter, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for ManifestError {}

/// Something that is legal and perhaps not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestWarning {
    /// The file, as it was named.
    pub file: String,
    /// The line of the object or field, from 1.
    pub line: u64,
    /// The object.
    pub object: String,
    /// What may not be meant.
    pub message: String,
}

impl fmt::Display for ManifestWarning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {}: {}", self.file, self.line, self.object, self.message)
    }
}

//! What `gc` and `gc --watch` say of each deletion when it happens, so that an interrupted run has said what it did.

use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use checkpoint_keeper_core::engine::file::{Outcome, Removal};
use jiff::Timestamp;

use super::output_files::refuse_archive;
use crate::cli::{GcArguments, Output};
use crate::failure::{Failure, say};
use crate::output::audit::AuditFile;
use crate::output::{json, text};

/// Where the lines go, and as what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lines {
    /// Text on standard output.
    Text,
    /// JSON on standard output.
    Json,
    /// Text on standard error: standard output is to be one JSON document.
    TextOnStderr,
}

/// Records deletions.
#[derive(Debug)]
pub(super) struct DeletionLog {
    lines: Lines,
    audit: Option<AuditFile>,
    /// Errors of the audit file that were said: each deletion would say them again.
    said: HashSet<String>,
    /// How many lines of the audit file could not be written.
    pub(super) audit_failures: u64,
}

impl DeletionLog {
    /// As it was asked for. Errors: the audit file is not one that could ever be written to.
    pub(super) fn new(arguments: &GcArguments) -> Result<Self, Failure> {
        let lines = match (arguments.output, arguments.watch) {
            (Output::Json, true) => Lines::Json,
            (Output::Json, false) => Lines::TextOnStderr,
            (Output::Text | Output::Wide, _) => Lines::Text,
        };
        // A dry run writes nothing at all.
        let audit = arguments.audit.clone().filter(|_| !arguments.only_shows()).map(open).transpose()?;
        Ok(Self { lines, audit, said: HashSet::new(), audit_failures: 0 })
    }

    /// Records a deletion. Errors: the line could not be written; that the audit file could not be is said here.
    pub(super) fn deleted(&mut self, outcome: &Outcome) -> io::Result<()> {
        let now = Timestamp::now();
        if let Some(audit) = &mut self.audit
            && let Err(error) = audit.append(&json::deletion(outcome, now))
        {
            self.audit_failures += 1;
            let error = cannot_write(audit.path(), &error);
            if self.said.insert(error.clone()) {
                say("error", error);
            }
        }
        match self.lines {
            Lines::Text => text::deletion(&mut io::stdout().lock(), outcome, now),
            Lines::TextOnStderr => text::deletion(&mut io::stderr().lock(), outcome, now),
            Lines::Json => {
                let mut out = io::stdout().lock();
                json::line(&mut out, &json::deletion(outcome, now))?;
                out.flush()
            }
        }
    }
}

/// Why an archive stays that was to be deleted, with the kind of the message; none where there is nothing to say.
pub(super) fn why_it_stays(outcome: &Outcome) -> Option<(&'static str, String)> {
    let file = &outcome.deletion.archive.file;
    match &outcome.removal {
        Removal::Failed(error) => Some(("error", format!("cannot delete {file}: {error}"))),
        Removal::Pinned => Some(("note", format!("{file} was pinned meanwhile and stays"))),
        Removal::InUse => Some(("note", format!("{file} is open for writing and stays"))),
        Removal::Changed => Some(("note", format!("{file} changed meanwhile and stays"))),
        Removal::DirectoryMoved => {
            Some(("warning", format!("{file} stays: the directory was moved meanwhile")))
        }
        Removal::Removed | Removal::AlreadyGone | Removal::Withdrawn => None,
    }
}

fn open(path: PathBuf) -> Result<AuditFile, Failure> {
    refuse_archive("--audit", &path)?;
    AuditFile::open(path.clone()).or_else(|error| {
        let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if is_full {
            // What frees the disk must not wait for it to be free. It is tried again with each deletion.
            say("error", cannot_write(&path, &error));
            return Ok(AuditFile::unopened(path));
        }
        Err(Failure::Usage(vec![format!("--audit {}: cannot be written: {error}", path.display())]))
    })
}

fn cannot_write(path: &Path, error: &io::Error) -> String {
    format!("cannot write the audit file {}: {error}", path.display())
}

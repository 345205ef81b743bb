//! The audit file of `gc`: a JSON line for each deletion, appended.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::json;

/// A file that lines are appended to. It is opened for each of them, so that it may be renamed (log rotation) at
/// any time.
#[derive(Debug)]
pub struct AuditFile {
    path: PathBuf,
    /// Whether the last line may have been written in part.
    is_torn: bool,
}

impl AuditFile {
    /// The file at this path, which is made if it is not there. Errors: it cannot be opened.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let file = Self::unopened(path);
        options().open(&file.path)?;
        Ok(file)
    }

    /// The same, where it could not be opened yet.
    pub fn unopened(path: PathBuf) -> Self {
        Self { path, is_torn: false }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line.
    pub fn append(&mut self, line: &impl Serialize) -> io::Result<()> {
        let mut text = if self.is_torn { vec![b'\n'] } else { Vec::new() };
        json::line(&mut text, line)?;
        let written = options().open(&self.path).and_then(|mut file| file.write_all(&text));
        self.is_torn = written.is_err();
        written
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // A pipe without a reader must not block deletions.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    options.append(true).create(true).mode(0o640).custom_flags(flags);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_appended_also_after_the_file_was_renamed() {
        let directory = tempfile::TempDir::new().unwrap();
        let (path, old) = (directory.path().join("audit"), directory.path().join("audit.1"));
        std::fs::write(&path, "0\n").unwrap();
        let mut file = AuditFile::open(path.clone()).unwrap();
        file.append(&1).unwrap();
        std::fs::rename(&path, &old).unwrap();
        file.append(&2).unwrap();
        let read = |path| std::fs::read_to_string(path).unwrap();
        assert_eq!((read(&old).as_str(), read(&path).as_str()), ("0\n1\n", "2\n"));
    }

    #[test]
    fn a_line_after_a_failed_one_begins_on_its_own() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("audit");
        let mut file = AuditFile::open(path.clone()).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        file.append(&1).unwrap_err();
        std::fs::remove_dir(&path).unwrap();
        file.append(&2).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "\n2\n");
    }
}

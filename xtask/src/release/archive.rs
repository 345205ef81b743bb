//! `.tar.gz` archives that are equal for equal contents.

use std::path::Path;

use anyhow::Context;
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

/// An archive that is being made. Every member has the time that it was made with, and belongs to root.
pub(super) struct Archive {
    tar: tar::Builder<GzEncoder<Vec<u8>>>,
    modified: u64,
}

impl Archive {
    /// `modified` are seconds since 1970.
    pub(super) fn new(modified: u64) -> Self {
        Self { tar: tar::Builder::new(GzEncoder::new(Vec::new(), Compression::best())), modified }
    }

    pub(super) fn add(&mut self, name: &str, contents: &[u8], mode: u32) -> anyhow::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_mtime(self.modified);
        header.set_size(contents.len() as u64);
        Ok(self.tar.append_data(&mut header, name, contents)?)
    }

    pub(super) fn program(mut self, name: &str, from: &Path) -> anyhow::Result<Self> {
        let contents = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.add(name, &contents, 0o755)?;
        Ok(self)
    }

    /// Writes it, and says its digest.
    pub(super) fn write(self, to: &Path) -> anyhow::Result<String> {
        let bytes = self.tar.into_inner()?.finish()?;
        std::fs::write(to, &bytes).with_context(|| format!("cannot write {}", to.display()))?;
        Ok(digest(&bytes))
    }
}

/// SHA-256 in hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

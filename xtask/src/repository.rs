//! Where this repository is.

use std::path::PathBuf;

/// The root directory of the repository that this program was built from.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

//! Where this repository is, and what is built of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use checkpoint_keeper_testcluster::process::output;

/// The root directory of the repository that this program was built from.
pub(crate) fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}

/// Where cargo builds.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| repository().join("target"), PathBuf::from)
}

/// The commit that is built. What is made of it has its time, so that it is equal whenever it is made.
pub(crate) struct Commit {
    pub(crate) revision: String,
    /// Since 1970.
    pub(crate) seconds: u64,
}

/// The last commit; of sources without a repository nothing is known.
pub(crate) fn commit() -> anyhow::Result<Commit> {
    let mut git = Command::new("git");
    git.current_dir(repository()).args(["log", "-1", "--format=%H %ct"]);
    let said = output(&mut git).unwrap_or_default();
    let (revision, seconds) = said.trim().split_once(' ').unwrap_or(("unknown", "0"));
    Ok(Commit { revision: revision.to_owned(), seconds: seconds.parse()? })
}

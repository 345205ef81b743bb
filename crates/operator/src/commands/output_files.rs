//! Which files `gc` may be told to write beside archives.

use std::path::Path;

use checkpoint_keeper_core::name::FileName;

use crate::failure::Failure;

/// Refuses a file to write that is named as archives and their markers are: it would be taken for one.
pub(super) fn refuse_archive(option: &str, path: &Path) -> Result<(), Failure> {
    if FileName::of_path(path).is_some_and(|name| name.is_archive_or_marker()) {
        return Err(Failure::Usage(vec![format!("{option} {}: names an archive", path.display())]));
    }
    Ok(())
}

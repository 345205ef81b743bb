//! Debian's packages of the release that this machine has, unpacked into the cache and not installed.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::components::{key, once, run};
use crate::paths::Cache;
use crate::process::output;

/// The folder with what is in these packages, downloaded unless it is there. `finish` adds to it what they lack, as said
/// in `adds`: another text there makes another folder.
pub(crate) fn unpacked(
    cache: &Cache,
    name: &str,
    packages: &[&str],
    adds: &str,
    finish: impl FnOnce(&Path) -> std::io::Result<()>,
) -> anyhow::Result<PathBuf> {
    let folder = cache.folder(&format!("{name}-{}", key(&[&packages.join(" "), adds])));
    once(&folder, |folder| {
        let log = |step: &str| cache.folder(&format!("{name}-{step}.log"));
        let download = || {
            let mut apt = Command::new("apt-get");
            run(apt.arg("download").args(packages).current_dir(folder), &log("download"))
        };
        if download().is_err() {
            // On a new machine apt's lists may be empty, and on an old one name what is gone.
            output(Command::new("apt-get").arg("update"))?;
            download()?;
        }
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "deb") {
                run(Command::new("dpkg-deb").arg("-x").args([path.as_path(), folder]), &log("unpack"))?;
                std::fs::remove_file(path)?;
            }
        }
        Ok(finish(folder)?)
    })?;
    Ok(folder)
}

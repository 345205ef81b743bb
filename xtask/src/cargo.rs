//! Cargo, started from here.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::paths::Cache;

use crate::repository::repository;

/// Cargo in the repository, as if it were started from a shell.
///
/// What cargo sets for the program that it runs, which is this one, would else reach the cargo that it starts. There
/// are build scripts that ask to be run again where such a variable differs (`ring`'s does), so whatever is built on
/// their crates would be built anew each time that another program had started cargo.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(repository());
    std::env::vars_os().map(|(name, _)| name).filter(is_of_this_program).for_each(|name| {
        command.env_remove(name);
    });
    command
}

/// A program of another package, which is built once and kept with what test clusters are made from.
pub(crate) struct Tool {
    /// The package, and its program.
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// What else `cargo install` is told.
    pub(crate) arguments: &'static [&'static str],
}

impl Tool {
    /// Where the program is, which is built if it is not there yet.
    pub(crate) fn provide(&self) -> anyhow::Result<PathBuf> {
        let Self { name, version, arguments } = self;
        let folder = Cache::of_user()?.folder(&format!("{name}-{version}"));
        let program = folder.join("bin").join(name);
        if program.is_file() {
            return Ok(program);
        }
        let mut cargo = cargo();
        cargo.args(["install", name, "--version", version, "--locked", "--quiet"]).args(*arguments);
        // Optimized, it would take longer to build than it then saves. It is built in a folder that cargo removes again.
        cargo.arg("--root").arg(&folder).arg("--debug");
        cargo.env("CARGO_PROFILE_DEV_DEBUG", "0").env_remove("CARGO_TARGET_DIR");
        let status = cargo.status().context("cannot run cargo")?;
        ensure!(status.success() && program.is_file(), "{name} {version} cannot be built");
        Ok(program)
    }
}

fn is_of_this_program(name: &OsString) -> bool {
    let name = name.to_string_lossy();
    let is_of_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CFG_", "CARGO_FEATURE_"]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    is_of_package || ["CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"].contains(&&*name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests are run by cargo, too, and so have what it sets.
    #[test]
    fn cargo_is_started_without_what_cargo_set_for_this_program() {
        assert!(std::env::var_os("CARGO_PKG_NAME").is_some());
        let command = cargo();
        let removed: Vec<_> = command.get_envs().filter(|(_, value)| value.is_none()).collect();
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR"] {
            assert!(removed.iter().any(|(removed, _)| *removed == name), "{name} is left");
        }
        // Where the caller wants things built, and how.
        for name in ["CARGO_TARGET_DIR", "CARGO_HOME", "RUSTFLAGS", "CARGO_BUILD_JOBS"] {
            assert!(!is_of_this_program(&name.into()), "{name}");
        }
    }
}

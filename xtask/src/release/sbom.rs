//! What the programs are made of, in the form of `CycloneDX`, by its tool for cargo.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::process::output;

use super::VERSION;
use crate::cargo::Tool;
use crate::repository::repository;

/// The tool, which is built once.
const CYCLONEDX: Tool = Tool { name: "cargo-cyclonedx", version: "0.5.9", arguments: &[] };

/// Each program's package, and where it is.
const PACKAGES: [(&str, &str); 2] =
    [("checkpoint-keeper", "crates/operator"), ("kubectl-checkpoints", "crates/kubectl-checkpoints")];

/// What of the repository cargo needs to see, to say what it is made of.
const SOURCES: [&str; 6] = ["Cargo.toml", "Cargo.lock", "rust-toolchain.toml", "crates", "tests", "xtask"];

/// Writes a list for each program; `created` are seconds since 1970.
pub(super) fn write(to: &Path, created: u64) -> anyhow::Result<()> {
    let tool = CYCLONEDX.provide()?;
    // The tool writes a file beside the manifest of each package of the workspace, so it gets a copy.
    let copy = tempfile::tempdir()?;
    let sources = SOURCES.map(|name| repository().join(name));
    output(Command::new("cp").arg("-r").args(sources).arg(copy.path()))?;
    for (package, folder) in PACKAGES {
        let folder = copy.path().join(folder);
        let name = format!("{package}-{VERSION}.cdx");
        let mut command = Command::new(&tool);
        command.arg("cyclonedx").args(["--format", "json", "--spec-version", "1.5", "--quiet"]);
        command.args(["--override-filename", &name]).arg("--manifest-path").arg(folder.join("Cargo.toml"));
        command.current_dir(copy.path()).env("SOURCE_DATE_EPOCH", created.to_string());
        let status = command.status().context("cannot run cargo-cyclonedx")?;
        ensure!(status.success(), "cargo-cyclonedx failed: {status}");
        let name = format!("{name}.json");
        let made = std::fs::read_to_string(folder.join(&name))?;
        // It names packages by where they are.
        let here = copy.path().canonicalize()?.display().to_string();
        std::fs::write(to.join(name), made.replace(&here, "/source"))?;
    }
    Ok(())
}

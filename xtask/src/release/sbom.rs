//! What the programs are made of, in the form of `CycloneDX`, by its tool for cargo.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

use super::VERSION;
use crate::cargo::Tool;
use crate::repository::repository;

/// The tool, which is built once.
const CYCLONEDX: Tool = Tool { name: "cargo-cyclonedx", version: "0.5.9", arguments: &[] };

/// Each program's package, and where it is.
const PACKAGES: [(&str, &str); 2] =
    [("checkpoint-keeper", "crates/operator"), ("kubectl-checkpoints", "crates/kubectl-checkpoints")];

/// Writes a list for each program; `created` are seconds since 1970.
pub(super) fn write(output: &Path, created: u64) -> anyhow::Result<()> {
    let tool = CYCLONEDX.provide()?;
    for (package, folder) in PACKAGES {
        let folder = repository().join(folder);
        let name = format!("{package}-{VERSION}.cdx");
        let mut command = Command::new(&tool);
        command.arg("cyclonedx").args(["--format", "json", "--spec-version", "1.5", "--quiet"]);
        command.args(["--override-filename", &name]).arg("--manifest-path").arg(folder.join("Cargo.toml"));
        command.current_dir(repository()).env("SOURCE_DATE_EPOCH", created.to_string());
        let status = command.status().context("cannot run cargo-cyclonedx")?;
        ensure!(status.success(), "cargo-cyclonedx failed: {status}");
        // It writes beside each package that it looked at.
        let made = folder.join(format!("{name}.json"));
        std::fs::copy(&made, output.join(format!("{name}.json")))?;
        std::fs::remove_file(&made)?;
    }
    Ok(())
}

//! `cargo xtask image`: the program as a container image holds it, linked so that it needs nothing else there.
//!
//! No image is made here, as that takes a registry's tools: it is `FROM scratch` and this one file.

use std::path::PathBuf;

use anyhow::{Context, ensure};

use crate::cargo::cargo;
use crate::repository::target;

/// Also the host's, but named: only then are build scripts and macros not linked statically, which they
/// cannot be.
const TARGET: &str = "x86_64-unknown-linux-gnu";

pub(crate) fn run() -> anyhow::Result<()> {
    println!("{}", build()?.display());
    Ok(())
}

/// Builds it, and says where it is.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--locked", "--package", "checkpoint-keeper", "--target", TARGET]);
    cargo.env("RUSTFLAGS", "-C target-feature=+crt-static");
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(status.success(), "the static build failed: {status}");
    let program = program();
    ensure!(program.is_file(), "there is no {}", program.display());
    Ok(program)
}

/// Where it is, if it was built.
pub(crate) fn program() -> PathBuf {
    target().join(TARGET).join("release/checkpoint-keeper")
}

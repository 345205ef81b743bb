//! The programs as users get them: linked statically.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::cross::Arm64;
use checkpoint_keeper_testcluster::paths::Cache;
use clap::ValueEnum;

use crate::cargo::cargo;
use crate::repository::{repository, target};

/// What a node's processor is, by the name that Kubernetes has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Architecture {
    Amd64,
    Arm64,
}

impl Architecture {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// The compiler's name for it. Also where it is the host's it is named: only then are build scripts and macros not
    /// linked statically, which they cannot be.
    fn target(self) -> &'static str {
        match self {
            Self::Amd64 => "x86_64-unknown-linux-gnu",
            Self::Arm64 => "aarch64-unknown-linux-gnu",
        }
    }
}

/// What users run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// What the image holds: agent, controller, and the commands for one machine.
    Operator,
    /// `kubectl checkpoints`.
    Plugin,
}

impl Program {
    /// The package, and its program.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Operator => "checkpoint-keeper",
            Self::Plugin => "kubectl-checkpoints",
        }
    }
}

/// Builds it, and says where it is.
pub(crate) fn build(program: Program, architecture: Architecture) -> anyhow::Result<PathBuf> {
    let target = architecture.target();
    let paths = paths_of_this_machine()?;
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--locked", "--package", program.name(), "--target", target]);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags(&paths));
    if architecture == Architecture::Arm64 {
        let cross = Arm64::provide(&Cache::of_user()?)?;
        cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", cross.compiler());
        cargo.env("CC_aarch64_unknown_linux_gnu", cross.compiler());
        cargo.env("AR_aarch64_unknown_linux_gnu", cross.archiver());
        provide_library(target)?;
    }
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(status.success(), "the static build for {} failed: {status}", architecture.name());
    let program = self::program(program, architecture);
    let contents = std::fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    let text = String::from_utf8_lossy(&contents);
    for (path, _) in paths {
        let path = path.display().to_string();
        ensure!(
            !text.contains(&path),
            "{} contains {path}: elsewhere it would be another",
            program.display()
        );
    }
    Ok(program)
}

/// Where it is as users get it, if it was built.
pub(crate) fn program(program: Program, architecture: Architecture) -> PathBuf {
    target().join(architecture.target()).join("release").join(program.name())
}

/// Has rustup install Rust's library for an architecture, into the toolchain of this repository. A toolchain that is not
/// rustup's has it, or the build says what is missing.
fn provide_library(target: &str) -> anyhow::Result<()> {
    let mut rustup = Command::new("rustup");
    match rustup.args(["target", "add", target]).current_dir(repository()).status() {
        Ok(status) => ensure!(status.success(), "rustup target add {target} failed: {status}"),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).context("cannot run rustup"),
    }
    Ok(())
}

/// Directories whose names the compiler would write into a program, and what it is to write instead. Of several that
/// contain a file the last one counts.
fn paths_of_this_machine() -> anyhow::Result<Vec<(PathBuf, &'static str)>> {
    let home = std::env::var_os("HOME").map(PathBuf::from).context("HOME is not set")?;
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(|| home.join(".cargo"), PathBuf::from);
    let mut paths = vec![(repository().canonicalize()?, "/source")];
    if let Ok(target) = target().canonicalize() {
        paths.push((target, "/target"));
    }
    paths.push((cargo, "/cargo"));
    Ok(paths)
}

/// Static linking, and one program of one source wherever it lies; in the form that cargo takes paths with spaces in.
fn flags(paths: &[(PathBuf, &str)]) -> String {
    let remap = paths.iter().map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display()));
    let flags: Vec<String> = ["-Ctarget-feature=+crt-static".to_owned()].into_iter().chain(remap).collect();
    flags.join("\x1f")
}

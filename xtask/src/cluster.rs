//! `cargo xtask cluster`: the test cluster's own program.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::Cluster;
use checkpoint_keeper_testcluster::paths::Cache;
use clap::Args;

use crate::cargo::cargo;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// See `cargo xtask cluster --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut cargo = program();
    // In its place, so that its exit code and its terminal are that program's.
    let error = cargo.args(&arguments.arguments).exec();
    Err(error).context("cannot run cargo")
}

fn program() -> Command {
    let mut cargo = cargo();
    cargo.args(["run", "--quiet", "--locked", "--package", "checkpoint-keeper-testcluster", "--"]);
    cargo
}

/// A cluster that goes down with this, unless it is told to stay.
pub(crate) struct Up {
    pub(crate) cluster: Cluster,
    name: &'static str,
    stays: bool,
}

impl Up {
    /// Brings one of this name up, with further arguments of `cargo xtask cluster up`. It also ends with this process.
    pub(crate) fn new(name: &'static str, more: &[&str]) -> anyhow::Result<Self> {
        let owner = std::process::id().to_string();
        Self::begin(name, &[&["--owner", &owner], more].concat(), false)
    }

    /// Brings one up that is there until it is told to end.
    pub(crate) fn and_stay(name: &'static str) -> anyhow::Result<Self> {
        Self::begin(name, &[], true)
    }

    fn begin(name: &'static str, more: &[&str], stays: bool) -> anyhow::Result<Self> {
        to_success(&[&["up", "--name", name], more].concat())?;
        Ok(Self { cluster: Cluster::open(&Cache::of_user()?.cluster(name))?, name, stays })
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if self.stays {
            return;
        }
        if let Err(error) = to_success(&["down", "--name", self.name]) {
            eprintln!("the cluster could not be taken down: {error:#}");
        }
    }
}

fn to_success(arguments: &[&str]) -> anyhow::Result<()> {
    let status = program().args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "cargo xtask cluster {} failed: {status}", arguments.join(" "));
    Ok(())
}

//! `cargo xtask cluster`: the test cluster's own program.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::Context;
use clap::Args;

use crate::cargo::cargo;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// See `cargo xtask cluster --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut cargo = cargo();
    cargo.args(["run", "--quiet", "--locked", "--package", "checkpoint-keeper-testcluster", "--"]);
    // In its place, so that its exit code and its terminal are that program's.
    let error = cargo.args(&arguments.arguments).exec();
    Err(error).context("cannot run cargo")
}

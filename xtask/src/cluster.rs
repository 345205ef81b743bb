//! `cargo xtask cluster`: the test cluster's own program.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use clap::Args;

use crate::test::repository;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// See `cargo xtask cluster --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--locked", "--package", "checkpoint-keeper-testcluster", "--"]);
    // In its place, so that its exit code and its terminal are that program's.
    let error = cargo.args(&arguments.arguments).current_dir(repository()).exec();
    Err(error).context("cannot run cargo")
}

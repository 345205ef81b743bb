//! `cargo xtask test`: the checks that a change must pass, cheapest first.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Leave out what is slow: the release build, its README example, and each crate on its own
    #[arg(long)]
    fast: bool,
}

/// The crates that must also compile alone, so that none leans on another's features. `api` does so
/// with its tests: which version of the Kubernetes API is meant is for binaries and tests to say.
const CRATES: [(&str, &str); 5] = [
    ("checkpoint-keeper-core", "--lib"),
    ("checkpoint-keeper-testkit", "--lib"),
    ("checkpoint-keeper-api", "--tests"),
    ("checkpoint-keeper-node", "--lib"),
    ("checkpoint-keeper", "--bins"),
];

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut steps = Steps { times: Vec::new() };
    steps.cargo("format", &["fmt", "--all", "--check"])?;
    steps.cargo(
        "lint",
        &["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"],
    )?;
    steps.cargo("test", &["test", "--workspace", "--locked"])?;
    if arguments.fast {
        steps.print();
        println!("left out with --fast: crates alone, documentation, release build, README example");
        return Ok(());
    }
    for (package, what) in CRATES {
        steps.cargo(package, &["check", "--package", package, what, "--locked", "--quiet"])?;
    }
    steps.cargo("documentation", &["doc", "--workspace", "--no-deps", "--locked", "--quiet"])?;
    steps.cargo("release build", &["build", "--release", "--locked", "--package", "checkpoint-keeper"])?;
    steps.time("README example", readme_example)?;
    steps.print();
    Ok(())
}

/// The steps so far and how long each took.
struct Steps {
    times: Vec<(String, Duration)>,
}

impl Steps {
    fn cargo(&mut self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        self.time(name, || {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(arguments).current_dir(repository()).env("RUSTDOCFLAGS", "-D warnings");
            let status = cargo.status().context("cannot run cargo")?;
            ensure!(status.success(), "cargo {} failed: {status}", arguments.join(" "));
            Ok(())
        })
    }

    fn time(&mut self, name: &str, step: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        println!("── {name}");
        let begin = Instant::now();
        step().with_context(|| format!("step {name:?}"))?;
        self.times.push((name.to_owned(), begin.elapsed()));
        Ok(())
    }

    fn print(&self) {
        println!("── all steps passed");
        for (name, time) in &self.times {
            println!("{:>7.1}s  {name}", time.as_secs_f64());
        }
    }
}

/// The command that the README begins with, word for word, on the archives of this repository.
fn readme_example() -> anyhow::Result<()> {
    let readme = std::fs::read_to_string(repository().join("README.md"))?;
    let command = readme.lines().find(|line| line.trim_start().starts_with("cargo run --release -- gc"));
    let command = command.context("the README has no example command")?;
    let words: Vec<&str> = command.split_whitespace().skip(1).collect();
    let output = Command::new(env!("CARGO")).args(&words).current_dir(repository()).output()?;
    let shown = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{command} failed: {}", String::from_utf8_lossy(&output.stderr));
    if !shown.contains("9 archives") {
        bail!("{command} does not show the nine archives of this repository:\n{shown}");
    }
    println!("{shown}");
    Ok(())
}

/// The repository's root.
pub(crate) fn repository() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

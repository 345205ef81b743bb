//! `cargo xtask test`: the checks that a change must pass, cheapest first.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Leave out what is slow: the release build, its README example, and each crate on its own
    #[arg(long)]
    fast: bool,
    /// Which tests to run on a real cluster; with --fast none, unless asked for
    #[arg(long, value_enum, value_name = "WHICH")]
    cluster: Option<ClusterTests>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ClusterTests {
    /// None
    None,
    /// Whether anything works at all
    Smoke,
    /// All of them
    Full,
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

/// What became of the tests that need a real cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Ran,
    Skipped,
}

/// The package of the tests that need a real cluster.
const CLUSTER: &str = "checkpoint-keeper-testcluster";

/// Its exit code where this machine cannot have one.
const CANNOT: i32 = 3;

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut steps = Steps { times: Vec::new() };
    steps.cargo("format", &["fmt", "--all", "--check"])?;
    steps.cargo(
        "lint",
        &["clippy", "--workspace", "--all-targets", "--locked", "--quiet", "--", "-D", "warnings"],
    )?;
    // Not among all targets, as it is not among all tests.
    let cluster_tests = ["--package", CLUSTER, "--test", "cluster", "--locked"];
    let lint = [&["clippy"][..], &cluster_tests, &["--quiet", "--", "-D", "warnings"]].concat();
    steps.cargo("lint cluster tests", &lint)?;
    steps.cargo("test", &["test", "--workspace", "--locked"])?;
    if !arguments.fast {
        slow(&mut steps)?;
    }
    let which = match arguments.cluster {
        Some(which) => which,
        None if arguments.fast => ClusterTests::None,
        None => ClusterTests::Full,
    };
    let outcome = match which {
        ClusterTests::None => Outcome::Ran,
        ClusterTests::Smoke => on_cluster(&mut steps, arguments, &cluster_tests, &["smoke::"])?,
        ClusterTests::Full => on_cluster(&mut steps, arguments, &cluster_tests, &[])?,
    };
    steps.print();
    if arguments.fast {
        println!("left out with --fast: crates alone, documentation, release build, README example");
    }
    if which == ClusterTests::None {
        println!("left out: tests on a real cluster (--cluster smoke|full)");
    }
    if outcome == Outcome::Skipped {
        println!("SKIPPED: tests on a real cluster; above it says what this machine lacks for them");
    }
    Ok(())
}

/// What takes long and needs no cluster.
fn slow(steps: &mut Steps) -> anyhow::Result<()> {
    for (package, what) in CRATES {
        steps.cargo(package, &["check", "--package", package, what, "--locked", "--quiet"])?;
    }
    steps.cargo("documentation", &["doc", "--workspace", "--no-deps", "--locked", "--quiet"])?;
    steps.cargo("release build", &["build", "--release", "--locked", "--package", "checkpoint-keeper"])?;
    steps.time("README example", readme_example)
}

/// The tests that need real nodes. A machine that cannot have them skips them, but not in CI.
fn on_cluster(
    steps: &mut Steps,
    arguments: &Arguments,
    tests: &[&str],
    filter: &[&str],
) -> anyhow::Result<Outcome> {
    let binary = env!("CARGO");
    let cluster = |arguments: &[&str]| {
        let mut command = Command::new(binary);
        command.args(["run", "--quiet", "--locked", "--package", CLUSTER, "--"]).args(arguments);
        command.current_dir(repository());
        command
    };
    println!("── cluster components");
    let begin = Instant::now();
    let status = cluster(&["provide"]).status()?;
    if status.code() == Some(CANNOT) {
        ensure!(std::env::var_os("CI").is_none(), "tests on a real cluster may not be skipped in CI");
        return Ok(Outcome::Skipped);
    }
    ensure!(status.success(), "what the cluster is made of cannot be made: {status}");
    steps.times.push(("cluster components".to_owned(), begin.elapsed()));

    let run = |command: &mut Command| {
        let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
        ensure!(status.success(), "{command:?} failed: {status}");
        Ok(())
    };
    // Somebody's own cluster is used, and left to him.
    let found = cluster(&["status"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success();
    if !found {
        let owner = std::process::id().to_string();
        steps.time("cluster up", || run(&mut cluster(&["up", "--owner", &owner])))?;
    }
    // What an image holds, for the tests that run it as a pod.
    let image = match filter {
        [] => Some(steps.time("static build", crate::image::build)?),
        _ => None,
    };
    let test = [&["test"][..], tests, &["--"], filter].concat();
    let outcome = steps.time("cluster tests", || {
        let mut command = Command::new(binary);
        command.args(&test).current_dir(repository());
        if !arguments.fast {
            // What users get, as it was just built.
            command.env("CHECKPOINT_KEEPER", repository().join("target/release/checkpoint-keeper"));
        }
        if let Some(program) = image {
            command.env("CHECKPOINT_KEEPER_STATIC", program);
        }
        run(&mut command)
    });
    if !found {
        let keep: &[&str] = if outcome.is_err() { &["down", "--keep-logs"] } else { &["down"] };
        steps.time("cluster down", || run(&mut cluster(keep)))?;
    }
    outcome?;
    println!(
        "CRI-O is not in Debian: its tests on a cluster did not run; its archives in tests/archives were read"
    );
    Ok(Outcome::Ran)
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

    fn time<T>(&mut self, name: &str, step: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        println!("── {name}");
        let begin = Instant::now();
        let done = step().with_context(|| format!("step {name:?}"))?;
        self.times.push((name.to_owned(), begin.elapsed()));
        Ok(done)
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

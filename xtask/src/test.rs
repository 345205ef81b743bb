//! `cargo xtask test`: the checks that a change must pass, cheapest first.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use checkpoint_keeper_testcluster::process::find_program;
use clap::{Args, ValueEnum};

use crate::book;
use crate::cargo::cargo;
use crate::image::{self, Architecture, Program};
use crate::release;
use crate::repository::repository;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Leave out what is slow: the book, the image, the README example, the files of a release, and each crate alone
    #[arg(long)]
    fast: bool,
    /// Which tests to run on a real cluster; with --fast none, unless asked for
    #[arg(long, value_enum, value_name = "WHICH")]
    cluster: Option<ClusterTests>,
    /// On nodes with which container runtime; by default all on containerd's, then on CRI-O's those
    /// that such a thing can make a difference to
    #[arg(long, value_enum)]
    runtime: Option<Runtime>,
}

/// What nodes run containers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
enum Runtime {
    Containerd,
    CriO,
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
const CRATES: [(&str, &str); 10] = [
    ("checkpoint-keeper-core", "--lib"),
    ("checkpoint-keeper-testkit", "--lib"),
    ("checkpoint-keeper-api", "--tests"),
    ("checkpoint-keeper-node", "--lib"),
    ("checkpoint-keeper-runtime", "--tests"),
    ("checkpoint-keeper-agent", "--tests"),
    ("checkpoint-keeper-controller", "--tests"),
    ("checkpoint-keeper", "--bins"),
    ("checkpoint-keeper-terminal", "--lib"),
    ("kubectl-checkpoints", "--bins"),
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

/// The tests that speak to the kubelet and its runtime: the others would find the same with any.
const OF_THE_RUNTIME: [&str; 5] = ["smoke::", "collector::", "kubelet::", "retention::", "mishaps::"];

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
    let image = if arguments.fast { None } else { Some(slow(&mut steps)?) };
    let which = match arguments.cluster {
        Some(which) => which,
        None if arguments.fast => ClusterTests::None,
        None => ClusterTests::Full,
    };
    let runs: &[(Runtime, &[&str])] = match (which, arguments.runtime) {
        (ClusterTests::None, _) => &[],
        (ClusterTests::Smoke, Some(Runtime::CriO)) => &[(Runtime::CriO, &["smoke::"])],
        (ClusterTests::Smoke, _) => &[(Runtime::Containerd, &["smoke::"])],
        (ClusterTests::Full, Some(Runtime::CriO)) => &[(Runtime::CriO, &[])],
        (ClusterTests::Full, Some(Runtime::Containerd)) => &[(Runtime::Containerd, &[])],
        (ClusterTests::Full, None) => &[(Runtime::Containerd, &[]), (Runtime::CriO, &OF_THE_RUNTIME)],
    };
    let mut skipped = Vec::new();
    for (runtime, filter) in runs {
        let cluster = TestCluster::of(*runtime);
        if cluster.test(&mut steps, image.as_deref(), &cluster_tests, filter)? == Outcome::Skipped {
            skipped.push(cluster.named);
        }
    }
    steps.print();
    if arguments.fast {
        println!(
            "left out with --fast: crates alone, documentation, book, image, README example, release files"
        );
    }
    if which == ClusterTests::None {
        println!("left out: tests on a real cluster (--cluster smoke|full)");
    }
    for named in skipped {
        println!("SKIPPED: tests on a real cluster with {named}; above it says why there can be none here");
    }
    Ok(())
}

/// What takes long and needs no cluster; where the archive of the image is that users get.
fn slow(steps: &mut Steps) -> anyhow::Result<PathBuf> {
    for (package, what) in CRATES {
        steps.cargo(package, &["check", "--package", package, what, "--locked", "--quiet"])?;
    }
    steps.cargo("documentation", &["doc", "--workspace", "--no-deps", "--locked", "--quiet"])?;
    steps.time("book", book::build)?;
    let program = steps.time("release build", || image::build(Program::Operator, Architecture::Amd64))?;
    steps.time("README example", || readme_example(&mut Command::new(&program)))?;
    // The chart is packed by helm, which is built with Go.
    if find_program("go").is_some() || std::env::var_os("CI").is_some() {
        steps.time("release files", release::try_out)?;
    } else {
        println!("SKIPPED: the files of a release, which need Go");
    }
    steps.time("image", || image::archive(&program))
}

/// A real cluster for tests, of nodes with one container runtime.
struct TestCluster {
    runtime: Runtime,
    /// The runtime's name for people, and for programs.
    named: &'static str,
    argument: &'static str,
    name: String,
}

impl TestCluster {
    fn of(runtime: Runtime) -> Self {
        let name = std::env::var("CHECKPOINT_KEEPER_CLUSTER").unwrap_or_else(|_| "default".to_owned());
        match runtime {
            Runtime::Containerd => Self { runtime, named: "containerd", argument: "containerd", name },
            Runtime::CriO => Self { runtime, named: "CRI-O", argument: "crio", name: name + "-crio" },
        }
    }

    /// Cargo, for a program that is to be about this cluster.
    fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = cargo();
        command.args(arguments);
        command.env("CHECKPOINT_KEEPER_CLUSTER", &self.name).env("CHECKPOINT_KEEPER_RUNTIME", self.argument);
        command
    }

    /// The cluster's own program.
    fn command(&self, arguments: &[&str]) -> Command {
        let program = ["run", "--quiet", "--locked", "--package", CLUSTER, "--"];
        self.cargo(&[&program[..], arguments].concat())
    }

    /// What this machine cannot have is skipped: in CI that may be CRI-O, but not everything.
    fn provide(&self, steps: &mut Steps) -> anyhow::Result<Outcome> {
        let name = format!("{} cluster components", self.named);
        println!("── {name}");
        let begin = Instant::now();
        let status = self.command(&["provide"]).status()?;
        if !status.success() {
            let in_ci = std::env::var_os("CI").is_some();
            // CRI-O is one more registry and compiler than all else needs: where these are not, that stops no CI. A developer
            // sees it as the failure that it is.
            let may_fail = in_ci && self.runtime == Runtime::CriO;
            let is_lacking = status.code() == Some(CANNOT);
            ensure!(is_lacking || may_fail, "what the cluster is made of cannot be made: {status}");
            ensure!(!in_ci || may_fail, "tests on a real cluster may not be skipped in CI");
            return Ok(Outcome::Skipped);
        }
        steps.times.push((name, begin.elapsed()));
        Ok(Outcome::Ran)
    }

    /// Runs the tests that need real nodes.
    fn test(
        &self,
        steps: &mut Steps,
        image: Option<&Path>,
        tests: &[&str],
        filter: &[&str],
    ) -> anyhow::Result<Outcome> {
        if self.provide(steps)? == Outcome::Skipped {
            return Ok(Outcome::Skipped);
        }
        let step = |what: &str| format!("{} cluster {what}", self.named);
        // A cluster that is already up is used, and left up.
        let found = self.command(&["status"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?.success();
        if !found {
            let owner = std::process::id().to_string();
            steps.time(&step("up"), || run_to_success(&mut self.command(&["up", "--owner", &owner])))?;
        }
        // For the tests that run it as a pod.
        let image = match (image, filter) {
            (Some(image), _) => Some(image.to_owned()),
            (None, []) => Some(steps.time("image", image::build_archive)?),
            (None, _) => None,
        };
        let outcome = steps.time(&step("tests"), || {
            let mut command = self.cargo(&[&["test"][..], tests, &["--"], filter].concat());
            if let Some(image) = image {
                command.env("CHECKPOINT_KEEPER_IMAGE", image);
            }
            run_to_success(&mut command)
        });
        if !found {
            let keep: &[&str] = if outcome.is_err() { &["down", "--keep-logs"] } else { &["down"] };
            steps.time(&step("down"), || run_to_success(&mut self.command(keep)))?;
        }
        outcome.map(|()| Outcome::Ran)
    }
}

fn run_to_success(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

/// The steps so far and how long each took.
struct Steps {
    times: Vec<(String, Duration)>,
}

impl Steps {
    fn cargo(&mut self, name: &str, arguments: &[&str]) -> anyhow::Result<()> {
        self.time(name, || {
            let mut cargo = cargo();
            cargo.args(arguments).env("RUSTDOCFLAGS", "-D warnings");
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

/// What a reader of the README types first, behind which stand the program's arguments.
const README_CARGO: &str = "cargo run -- ";

/// The command that the README begins with, on the archives of this repository, by the program that was built:
/// cargo would build it once more.
fn readme_example(program: &mut Command) -> anyhow::Result<()> {
    let readme = std::fs::read_to_string(repository().join("README.md"))?;
    let command = readme.lines().find_map(|line| line.trim_start().strip_prefix(README_CARGO));
    let command = command.context("the README has no example command")?;
    let words = command.split_whitespace();
    let output = program.args(words).current_dir(repository()).output()?;
    let shown = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{command} failed: {}", String::from_utf8_lossy(&output.stderr));
    if !shown.contains("9 archives") {
        bail!("{command} does not show the nine archives of this repository:\n{shown}");
    }
    println!("{shown}");
    Ok(())
}

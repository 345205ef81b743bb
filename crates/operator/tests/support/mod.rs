//! A place with archives, and the program run on it.
#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod api;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime};

use checkpoint_keeper_testkit::ArchiveBuilder;
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take before a test gives up on it.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// A directory of archives and a file of policies.
pub(crate) struct Place {
    parent: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let parent = TempDir::new().unwrap();
        fs::create_dir(parent.path().join("checkpoints")).unwrap();
        Self { parent }
    }

    pub(crate) fn root(&self) -> &Path {
        self.parent.path()
    }

    pub(crate) fn directory(&self) -> PathBuf {
        self.parent.path().join("checkpoints")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.parent.path().join("catalog")
    }

    /// Writes an archive as if it had been there for long.
    pub(crate) fn add(&self, archive: &ArchiveBuilder) -> PathBuf {
        let path = archive.write_to(&self.directory()).unwrap();
        age(&path);
        path
    }

    pub(crate) fn add_bytes(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.directory().join(name);
        fs::write(&path, bytes).unwrap();
        age(&path);
        path
    }

    /// Writes `policy.yaml` and returns its path.
    pub(crate) fn policy(&self, yaml: &str) -> PathBuf {
        let path = self.parent.path().join("policy.yaml");
        fs::write(&path, yaml).unwrap();
        path
    }

    /// A policy for everything whose spec is this.
    pub(crate) fn cluster_policy(&self, spec: &str) -> PathBuf {
        self.policy(&cluster_policy("default", spec))
    }

    pub(crate) fn files(&self) -> BTreeSet<String> {
        files(&self.directory())
    }

    /// `gc --yes DIRECTORY --policy policy.yaml` and these.
    pub(crate) fn gc(&self, arguments: &[&str]) -> Run {
        Run::of(self.unconfirmed_gc().arg("--yes").args(arguments))
    }

    /// `gc DIRECTORY --policy policy.yaml`, to which nobody said yes.
    pub(crate) fn unconfirmed_gc(&self) -> Command {
        let mut command = program();
        command.arg("gc").arg(self.directory()).arg("--policy").arg(self.parent.path().join("policy.yaml"));
        command
    }

    /// `gc --watch` on it, to be spawned.
    pub(crate) fn watch(&self) -> Command {
        let mut command = program();
        command.args(["gc", "--watch", "--policy"]).arg(self.parent.path().join("policy.yaml"));
        command.arg(self.directory());
        command
    }

    pub(crate) fn gc_json(&self, arguments: &[&str]) -> Value {
        let run = self.gc(&[arguments, &["--output", "json"]].concat());
        assert_eq!(run.code, Some(0), "{run:#?}");
        serde_json::from_str(&run.stdout).unwrap()
    }
}

/// The program, in an environment of its own; it ends with the test, also with one that fails or is killed.
pub(crate) fn program() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_checkpoint-keeper")]);
    command.env_clear().env("TZ", "UTC").stdin(Stdio::null());
    command
}

/// What a run of the program said.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }
}

pub(crate) fn cluster_policy(name: &str, spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: checkpoint-keeper.io/v1alpha1\nkind: ClusterCheckpointPolicy\nmetadata:\n  name: {name}\nspec:\n{spec}"
    )
}

/// The verdict on each file: `Keep WithinLimits`.
pub(crate) fn verdicts(report: &Value) -> Vec<(String, String)> {
    let archives = report["archives"].as_array().unwrap();
    let mut verdicts: Vec<_> = archives
        .iter()
        .map(|row| {
            let text = |key: &str| row[key].as_str().unwrap().to_owned();
            (text("file"), format!("{} {}", text("verdict"), text("reason")))
        })
        .collect();
    verdicts.sort();
    verdicts
}

/// Makes a file look as if it had last changed long ago.
pub(crate) fn age(path: &Path) {
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    fs::File::options().append(true).open(path).unwrap().set_modified(long_ago).unwrap();
}

pub(crate) fn files(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// An archive of `team/web-0/server`, taken at that second of a morning long ago.
pub(crate) fn server(second: u32) -> ArchiveBuilder {
    of("team", "web-0", "server", second)
}

pub(crate) fn of(namespace: &str, pod: &str, container: &str, second: u32) -> ArchiveBuilder {
    let (minute, second) = (second / 60, second % 60);
    ArchiveBuilder::new(namespace, pod, container).at(&format!("2026-01-01T06:{minute:02}:{second:02}Z"))
}

/// Waits until `condition` holds, and says what is wrong if it never does.
pub(crate) fn wait_until<T: std::fmt::Debug>(
    what: &str,
    mut observe: impl FnMut() -> T,
    condition: impl Fn(&T) -> bool,
) -> T {
    let begin = Instant::now();
    loop {
        let seen = observe();
        if condition(&seen) {
            return seen;
        }
        assert!(begin.elapsed() < DEADLINE, "never came true: {what}; last seen: {seen:#?}");
        std::thread::yield_now();
    }
}

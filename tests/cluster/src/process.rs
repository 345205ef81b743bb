//! Processes that we started, told from others that may have got their numbers since.

use std::path::Path;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::wait;

/// A process by its number and the moment it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number on the host.
    pub pid: i32,
    /// Its start, in clock ticks since the host booted.
    started: u64,
}

impl Process {
    /// This very process.
    pub fn current() -> anyhow::Result<Self> {
        Self::find(i32::try_from(std::process::id())?).context("this process is not in /proc")
    }

    /// The living process of this number.
    pub fn find(pid: i32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in brackets may hold anything; proc(5) numbers the fields after it from 3.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        let started = fields.nth(18)?.parse().ok()?;
        (state != "Z" && state != "X").then_some(Self { pid, started })
    }

    /// Whether it still lives.
    pub fn is_alive(self) -> bool {
        Self::find(self.pid) == Some(self)
    }

    /// Its direct children.
    pub fn children(self) -> Vec<Self> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let children = std::fs::read_to_string(path).unwrap_or_default();
        children.split_whitespace().filter_map(|pid| Self::find(pid.parse().ok()?)).collect()
    }

    /// Sends it a signal; it is no error if it has ended.
    pub fn signal(self, signal: Signal) -> anyhow::Result<()> {
        if !self.is_alive() {
            return Ok(());
        }
        let pid = Pid::from_raw(self.pid).context("no process has the number 0")?;
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot signal process {pid:?}")),
        }
    }

    /// Kills it and waits until it is gone.
    pub fn kill(self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        wait::until(&format!("the end of process {}", self.pid), wait::SOON, || Ok(!self.is_alive()))
    }
}

/// Runs a command to its end; its output is what it says, or the error.
pub fn output(command: &mut std::process::Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    let output =
        command.stdin(std::process::Stdio::null()).output().with_context(|| format!("cannot run {shown}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        output.status.success(),
        "{shown} failed ({}): {}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    Ok(text(&output.stdout))
}

/// Where a program of this name is, by `PATH`.
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH")?;
    let standard = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path)
        .chain(standard)
        .map(|folder| folder.join(name))
        .find(|program: &std::path::PathBuf| is_file(program))
}

fn is_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file())
}

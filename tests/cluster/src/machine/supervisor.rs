//! Starting programs and keeping daemons running, as the machine's first process has to: whoever
//! is left an orphan in the machine becomes its child, and is reaped here.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use rustix::process::{WaitOptions, wait};

use super::{MACHINE, PROGRAM_PATH, RUN};

/// How long a daemon that ended stays down.
const PAUSE: Duration = Duration::from_millis(500);

/// Who waits for the end of which child.
type Waiters = Arc<Mutex<HashMap<i32, Sender<String>>>>;

/// Starts children, and reaps everybody's.
#[derive(Debug, Clone)]
pub(super) struct Supervisor {
    waiters: Waiters,
}

impl Supervisor {
    pub(super) fn start() -> Self {
        let waiters = Waiters::default();
        let reaped = Arc::clone(&waiters);
        std::thread::spawn(move || {
            loop {
                match wait(WaitOptions::empty()) {
                    Ok(Some((pid, status))) => {
                        let waiter = lock(&reaped).remove(&pid.as_raw_nonzero().get());
                        if let Some(waiter) = waiter {
                            // Who no longer waits does not want to know.
                            let _ = waiter.send(describe(status));
                        }
                    }
                    // No child at the moment.
                    _ => std::thread::sleep(Duration::from_millis(20)),
                }
            }
        });
        Self { waiters }
    }

    /// Starts a program; its end is told by the receiver.
    fn spawn(&self, command: &mut Command) -> anyhow::Result<(u32, std::sync::mpsc::Receiver<String>)> {
        command.env_clear().env("PATH", PROGRAM_PATH).env("HOME", "/root").stdin(Stdio::null());
        let (ended, end) = channel();
        // Held until the child is known, or it might be reaped before anybody waits for it.
        let mut waiters = lock(&self.waiters);
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        waiters.insert(i32::try_from(child.id())?, ended);
        Ok((child.id(), end))
    }

    /// Runs a program to its end.
    pub(super) fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let log = open_log("boot")?;
        let mut command = Command::new(program);
        command.args(arguments).stdout(log.try_clone()?).stderr(log);
        let (_, end) = self.spawn(&mut command)?;
        let status = end.recv().context("nobody reaps children")?;
        ensure!(status == "0", "{command:?} ended with {status}; see {MACHINE}/log/boot.log");
        Ok(())
    }

    /// Keeps a daemon running, but for as long as its hold file exists.
    pub(super) fn keep(&self, name: &'static str, command: impl Fn() -> Command + Send + 'static) {
        let supervisor = self.clone();
        std::thread::spawn(move || {
            loop {
                while hold_file(name).exists() {
                    std::thread::sleep(Duration::from_millis(50));
                }
                if let Err(error) = supervisor.run_daemon(name, &mut command()) {
                    eprintln!("{name}: {error:#}");
                }
                std::thread::sleep(PAUSE);
            }
        });
    }

    fn run_daemon(&self, name: &str, command: &mut Command) -> anyhow::Result<()> {
        let mut log = open_log(name)?;
        command.stdout(log.try_clone()?).stderr(log.try_clone()?);
        let (pid, end) = self.spawn(command)?;
        fs::write(Path::new(RUN).join(format!("{name}.pid")), pid.to_string())?;
        let status = end.recv().context("nobody reaps children")?;
        Ok(writeln!(log, "### {} {name} ended: {status}", Timestamp::now())?)
    }
}

fn hold_file(name: &str) -> PathBuf {
    Path::new(RUN).join(format!("{name}.hold"))
}

fn open_log(name: &str) -> anyhow::Result<File> {
    let path = Path::new(MACHINE).join("log").join(format!("{name}.log"));
    File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn describe(status: rustix::process::WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => code.to_string(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => format!("{status:?}"),
    }
}

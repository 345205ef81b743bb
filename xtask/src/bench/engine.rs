//! A collector at work in a process of its own: `checkpoint-keeper gc --watch` where that has been
//! built, else the same engine in this program.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use checkpoint_keeper_core::engine::Settings;
use checkpoint_keeper_core::engine::config::EngineConfig;
use checkpoint_keeper_node::driver::{CatalogUse, Driver, Event};
use checkpoint_keeper_node::mailbox;
use checkpoint_keeper_node::store::Store;

use super::directory::Bench;
use super::policies;

/// What it says once it has looked at everything and made its first plan.
const READY: &str = "watching;";

/// How long an archive must have been unchanged, where it was not seen being closed.
const SETTLE: Duration = Duration::from_secs(5);

/// The process. It ends when this does.
pub(super) struct Engine {
    child: Child,
    /// Held open: a collector that cannot say anything any more ends.
    said: BufReader<ChildStderr>,
    /// Which program it is.
    pub(super) what: &'static str,
}

impl Engine {
    /// Starts one and waits until it is at work. Where a `state` is named, its catalog is there.
    pub(super) fn start(
        bench: &Bench,
        directory: &Path,
        policies: usize,
        interval: u64,
        state: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let (mut command, what) = if let Some(binary) = &bench.binary {
            let mut command = Command::new(binary);
            command.arg("gc").arg(directory).args(["--watch", "--output", "json", "--interval"]);
            command.arg(format!("{interval}s")).arg("--policy");
            command.arg(policies::write(bench.path(), policies)?);
            if let Some(state) = state {
                command.arg("--state").arg(state);
            }
            (command, "checkpoint-keeper gc --watch")
        } else {
            let mut command = Command::new(std::env::current_exe()?);
            command.args(["bench", "--engine"]).arg(directory);
            command.args(["--engine-policies", &policies.to_string()]);
            command.args(["--engine-interval", &interval.to_string()]);
            if let Some(state) = state {
                command.arg("--engine-state").arg(state);
            }
            (command, "the engine alone: checkpoint-keeper is not built")
        };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let stderr = child.stderr.take().context("the collector has no standard error")?;
        let mut engine = Self { child, said: BufReader::new(stderr), what };
        engine.wait_until_ready()?;
        Ok(engine)
    }

    fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let mut said = String::new();
        while !said.contains(READY) {
            if self.said.read_line(&mut said)? == 0 {
                bail!("the collector ended too early: {said}");
            }
        }
        Ok(())
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Is such a process, until standard input ends.
pub(super) fn run(
    directory: &Path,
    policies: usize,
    interval: u64,
    state: Option<&Path>,
) -> anyhow::Result<()> {
    let store = Store::open(directory)?;
    store.lock()?;
    let catalog = state.map_or(CatalogUse::None, |state| CatalogUse::File(state.to_owned()));
    let (mut driver, problems) =
        Driver::new(store, Settings { settle: SETTLE, ..Settings::default() }, catalog);
    ensure!(problems.is_empty(), "{problems:?}");
    driver.configure(EngineConfig::policies(policies::set(policies)));
    let (_sender, mailbox) = mailbox::channel()?;
    let mut begun = false;
    driver.run(&mailbox, Duration::from_secs(interval), std::io::stdin(), |event| match event {
        Event::Planned(view) if !begun => {
            begun = true;
            eprintln!("{READY} {} archives here", view.snapshot.archives.len());
        }
        Event::Problem(problem) => eprintln!("{problem}"),
        _ => {}
    })?;
    Ok(())
}

//! `checkpoint-keeper gc --watch`: collecting until told to stop, with a line for each deletion.

use std::collections::HashSet;
use std::io::{self, Write};

use anyhow::Context;
use checkpoint_keeper_core::engine::config::EngineConfig;
use checkpoint_keeper_core::engine::file::{Outcome, Removal};
use checkpoint_keeper_core::engine::{Haste, View};
use checkpoint_keeper_core::policy::PolicySet;
use checkpoint_keeper_core::policy_lint;
use checkpoint_keeper_node::driver::{Driver, Event};
use checkpoint_keeper_node::mailbox;
use checkpoint_keeper_runtime::chain;

use super::deletion_log::{DeletionLog, why_it_stays};
use super::policy_files::PolicyFiles;
use crate::cli::GcArguments;
use crate::failure::{Failure, say};
use crate::output::text;
use checkpoint_keeper_runtime::signals;

/// Collects until SIGTERM or SIGINT.
pub(super) fn run(
    driver: Driver,
    files: PolicyFiles,
    policies: PolicySet,
    config: impl Fn(PolicySet) -> EngineConfig + Send + 'static,
    deletions: DeletionLog,
    arguments: &GcArguments,
) -> Result<(), Failure> {
    let (stop, signalled) = signals::until_told().context("cannot listen for signals")?;
    let mut log = Log { deletions, said: HashSet::new(), begun: false };
    let closed = signalled.try_clone().context("cannot make a pipe for signals")?;
    let (sender, mailbox) = mailbox::channel().context("cannot make a mailbox for policies")?;
    let send = move |policies| sender.send_config(config(policies), Haste::AtOnce);
    files.follow(policies, arguments.interval, send)?;
    driver
        .run(&mailbox, arguments.interval, stop, |event| {
            match log.event(&event) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    // The reader of the output is gone: end as with SIGTERM.
                    let _ = (&closed).write_all(b"x");
                }
                // A full disk may stop the log, and must not stop what frees it.
                Err(error) => log.complain("error", format!("cannot write the log: {error}")),
            }
        })
        .map_err(anyhow::Error::new)?;
    Ok(())
}

/// What is said while watching.
struct Log {
    deletions: DeletionLog,
    /// Problems that were said already: each sweep meets them again.
    said: HashSet<String>,
    begun: bool,
}

/// More different problems than this, and old ones may be said again.
const MOST_SAID: usize = 1_000;

impl Log {
    fn event(&mut self, event: &Event<'_>) -> io::Result<()> {
        match event {
            Event::Planned(view) => {
                let View { snapshot, plan, policies, .. } = &***view;
                if !self.begun {
                    self.begun = true;
                    let archives = text::count(snapshot.archives.len() as u64);
                    let deletions = plan.deletions().count();
                    say("note", format!("watching; {archives} here, {deletions} to delete"));
                    for found in policy_lint::without_effect_here(policies, snapshot) {
                        say("warning", found);
                    }
                }
                if let Some(shortfall) = plan.watermark.and_then(|round| round.shortfall()) {
                    if self.said.insert("the disk is too full".to_owned()) {
                        say("warning", format!("the disk is too full: {shortfall}"));
                    }
                } else {
                    self.said.remove("the disk is too full");
                }
            }
            Event::Finished(outcome) => self.finished(outcome)?,
            // Discarding cannot be asked for here.
            Event::Discards(_) | Event::Reading(_) | Event::Timed(..) => {}
            Event::Problem(problem) => self.complain("warning", problem.to_string()),
            Event::Catalog(problem) => self.complain("warning", problem.to_string()),
            Event::DirectoryDead => {
                say("error", "the directory was removed under its mount; start again to mount the new one");
            }
            Event::DirectoryGone => say("error", "the directory is gone; waiting for it to come back"),
            Event::DirectoryReplaced => {
                self.said.clear();
                say("note", "another directory took the place of the old one; collecting there");
            }
            Event::DirectoryUnusable(error) => self.complain("error", chain(*error)),
            Event::NoDirWatcher(error) => {
                self.complain(
                    "warning",
                    format!("the system gives no notice of changes ({error}): looking by the timer only"),
                );
            }
        }
        Ok(())
    }

    fn finished(&mut self, outcome: &Outcome) -> io::Result<()> {
        match &outcome.removal {
            Removal::Removed => return self.deletions.deleted(outcome),
            // The next plan decides about it again.
            Removal::Changed | Removal::DirectoryMoved => {}
            Removal::Failed(_)
            | Removal::Pinned
            | Removal::InUse
            | Removal::AlreadyGone
            | Removal::Withdrawn => {
                if let Some((kind, why)) = why_it_stays(outcome) {
                    self.complain(kind, why);
                }
            }
        }
        Ok(())
    }

    /// Says it once: the next sweep would say it again.
    fn complain(&mut self, kind: &str, what: String) {
        if self.said.len() > MOST_SAID {
            self.said.clear();
        }
        if self.said.insert(what.clone()) {
            say(kind, what);
        }
    }
}

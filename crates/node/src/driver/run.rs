//! Driving the engine until it is told to stop: waiting for changes of the directory, for mail and for the timer,
//! and following the directory where its path leads to another one.

use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use checkpoint_keeper_core::engine::Input;
use checkpoint_keeper_core::engine::file::{Removal, Sighting};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::{DeletionExecutor, Driver, Event, LookupExecutor, Operation};
use crate::catalog_writer::CatalogWriter;
use crate::dir_watcher::DirWatcher;
use crate::mailbox::{Mail, Receiver, Unlinked};
use crate::resolver::Resolver;
use crate::store::{OpenError, Presence, Store};
use crate::sweeper::Sweeper;

/// How often the mailbox is emptied before something is done about what was in it.
const MOST_MAIL: usize = 16;

/// Why driving ended before it was stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The thread that deletes could not be started.
    #[error("cannot start the sweeper thread")]
    Sweeper(#[source] std::io::Error),
    /// The thread that asks the cluster could not be started.
    #[error("cannot start the resolver thread")]
    Resolver(#[source] std::io::Error),
    /// Waiting failed.
    #[error("cannot wait for events")]
    Wait(#[source] std::io::Error),
}

impl Driver {
    /// Collects until `stop` becomes readable. The store must be locked by the caller.
    pub fn run(
        mut self,
        mailbox: &Receiver,
        interval: Duration,
        stop: impl AsFd,
        mut report: impl FnMut(Event<'_>),
    ) -> Result<(), RunError> {
        let sweeper = Sweeper::start(mailbox.sender()).map_err(RunError::Sweeper)?;
        self.deletion_executor = DeletionExecutor::Thread(sweeper);
        self.lookup_executor = match self.lookup_executor {
            LookupExecutor::Inline(ask) => {
                LookupExecutor::Thread(Resolver::start(ask, mailbox.sender()).map_err(RunError::Resolver)?)
            }
            executor => executor,
        };
        let mut dir_watcher: Option<DirWatcher> = None;
        let mut next_sweep = Duration::ZERO;
        let mut presence = Presence::Here;
        loop {
            let now = (self.now)();
            let events = dir_watcher.as_ref().map(DirWatcher::events).unwrap_or_default();
            if events.overflow || events.directory_moved || now.uptime >= next_sweep {
                next_sweep = now.uptime + around(interval);
                presence = self.follow_directory(presence, &mut dir_watcher, &mut report);
                if presence == Presence::Here {
                    if dir_watcher.is_none() {
                        dir_watcher = self.watch(&mut report);
                    }
                    self.sweep(&mut report);
                }
            } else if presence == Presence::Here && !events.names.is_empty() {
                if events.names.iter().any(|(_, how)| *how == Sighting::Closed) {
                    self.first_close.get_or_insert_with(Instant::now);
                }
                let looked = events.names.iter().filter_map(|(name, how)| self.store.look(name, *how));
                let looked = looked.collect();
                self.handle(Input::Looked(looked));
            }
            self.carry_out(Some(self.slice), &mut report);
            self.handle(Input::Tick);
            self.carry_out(Some(self.slice), &mut report);
            let problems = self.catalog.as_ref().map(CatalogWriter::problems).unwrap_or_default();
            problems.iter().for_each(|problem| report(Event::Catalog(problem)));
            // All of that may have taken long.
            let now = (self.now)();
            let mut wake = next_sweep.saturating_sub(now.uptime);
            if !self.effects.is_empty() {
                wake = Duration::ZERO;
            } else if let Some(wanted) = self.engine.wakes_in(now) {
                wake = wake.min(wanted);
            }
            let wakers = [Some(mailbox.as_fd()), dir_watcher.as_ref().map(AsFd::as_fd)];
            if wait(&stop, wakers, wake).map_err(RunError::Wait)? {
                if let DeletionExecutor::Thread(sweeper) =
                    std::mem::replace(&mut self.deletion_executor, DeletionExecutor::Inline)
                {
                    sweeper.stop();
                }
                self.receive(Mail { outcomes: mailbox.take().outcomes, ..Mail::default() }, &mut report);
                self.flush(report);
                return Ok(());
            }
            // What comes of reporting something may be in the mailbox already.
            for _ in 0..MOST_MAIL {
                let mail = mailbox.take();
                if mail.is_empty() {
                    break;
                }
                self.receive(mail, &mut report);
            }
        }
    }

    /// Hands in what has arrived.
    fn receive(&mut self, mail: Mail, report: &mut impl FnMut(Event<'_>)) {
        for Unlinked { outcome, begun, ended } in mail.outcomes {
            let closed = self.first_close_of.remove(&outcome.deletion.archive.file);
            // What stays, or was gone before, takes no time.
            if matches!(outcome.removal, Removal::Removed) {
                report(Event::Timed(Operation::Unlink, ended.duration_since(begun)));
                if let Some(closed) = closed {
                    report(Event::Timed(Operation::CloseToUnlink, ended.duration_since(closed)));
                }
            }
            report(Event::Finished(&outcome));
            self.handle(Input::Deleted(outcome));
        }
        if let Some((config, haste)) = mail.config {
            self.handle(Input::Config(config, haste));
        }
        mail.answers.into_iter().for_each(|answers| self.handle(Input::Resolved(answers)));
        for task in mail.tasks {
            match &self.deletion_executor {
                DeletionExecutor::Thread(sweeper) => sweeper.carry_out(&self.store, task),
                DeletionExecutor::Inline => (task.run)(&self.store),
            }
        }
        mail.dumps.into_iter().for_each(|end| self.handle(Input::Dumped(end)));
        mail.updates.into_iter().for_each(|update| self.handle(Input::Cluster(update)));
        if mail.is_plan_wanted {
            self.handle(Input::Plan);
        }
    }

    /// Has the system tell of changes of the directory, or says why it does not.
    fn watch(&mut self, report: &mut impl FnMut(Event<'_>)) -> Option<DirWatcher> {
        (self.watch_by)(&self.store).map_err(|error| report(Event::NoDirWatcher(error))).ok()
    }

    /// Continues with the directory to which the path leads now. Returns whether there is one.
    fn follow_directory(
        &mut self,
        before: Presence,
        dir_watcher: &mut Option<DirWatcher>,
        report: &mut impl FnMut(Event<'_>),
    ) -> Presence {
        let presence = self.store.presence();
        match presence {
            Presence::Here => return presence,
            // It was said when that began.
            Presence::Dead | Presence::Gone | Presence::Unknown(_) if before == presence => return presence,
            Presence::Dead => report(Event::DirectoryDead),
            Presence::Gone => report(Event::DirectoryGone),
            Presence::Unknown(error) => {
                let error = OpenError::Look { path: self.store.path().to_owned(), source: error.into() };
                report(Event::DirectoryUnusable(&error));
            }
            Presence::Replaced => match reopen(self.store.path()) {
                Ok(store) => {
                    report(Event::DirectoryReplaced);
                    self.store = Arc::new(store);
                    *dir_watcher = None;
                    self.handle(Input::DirectoryReplaced);
                    return Presence::Here;
                }
                Err(error) => report(Event::DirectoryUnusable(&error)),
            },
        }
        self.handle(Input::DirectoryAway);
        presence
    }
}

fn reopen(path: &Path) -> Result<Store, OpenError> {
    let store = Store::open(path)?;
    store.lock()?;
    Ok(store)
}

/// The interval, changed by up to a tenth at random, so that thousands of nodes that were started together do not all
/// sweep and send lookups at the same time.
fn around(interval: Duration) -> Duration {
    // Each `RandomState` has random keys.
    let chance = RandomState::new().hash_one(()) % 1_001;
    interval.mul_f64(0.9 + 0.2 * (chance as f64 / 1_000.0))
}

/// Waits until `stop` or one of the others is readable, but not longer than `timeout`. Returns whether `stop` is.
fn wait(stop: &impl AsFd, others: [Option<BorrowedFd<'_>>; 2], timeout: Duration) -> std::io::Result<bool> {
    let mut descriptors = vec![PollFd::new(stop, PollFlags::IN)];
    let others = others.iter().flatten();
    descriptors.extend(others.map(|other| PollFd::from_borrowed_fd(*other, PollFlags::IN)));
    // At least a moment: with a deadline that has just passed, the loop must not spin.
    let timeout = Timespec::try_from(timeout.max(Duration::from_millis(1))).ok();
    match poll(&mut descriptors, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(descriptors.first().is_some_and(|stop| !stop.revents().is_empty()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Mutex, mpsc};

    use checkpoint_keeper_core::engine::Settings;
    use checkpoint_keeper_core::engine::clock::Now;

    use super::*;
    use crate::driver::CatalogUse;
    use crate::mailbox::channel;

    /// The time so many hours after an uptime of nothing.
    fn at_hour(hour: u64) -> Now {
        let uptime = Duration::from_hours(hour);
        Now { wall: "2026-06-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap() + uptime, uptime }
    }

    /// What another process takes may be given back.
    #[test]
    fn notice_of_changes_is_asked_for_at_each_look_until_there_is_some_and_its_lack_is_said_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let looks_at_the_clock = AtomicU64::new(0);
        let an_hour_later = move || at_hour(looks_at_the_clock.fetch_add(1, Ordering::Relaxed));
        let (mut driver, _) =
            Driver::with_clock(store, Settings::default(), CatalogUse::None, Box::new(an_hour_later));
        let mut refusals = 3;
        driver.watch_by = Box::new(move |store| {
            if refusals == 0 {
                return DirWatcher::new(store);
            }
            refusals -= 1;
            Err(Errno::MFILE)
        });
        let (mut stop, stopped) = UnixStream::pair().unwrap();
        let (_sender, mailbox) = channel().unwrap();
        let mut seen = Vec::new();
        let report = |event: Event<'_>| {
            match event {
                Event::NoDirWatcher(error) => seen.push(error.to_string()),
                Event::Timed(Operation::Sweep, _) => seen.push("look".to_owned()),
                _ => {}
            }
            if seen.len() == 8 {
                stop.write_all(b"x").unwrap();
            }
        };
        driver.run(&mailbox, Duration::from_millis(1), stopped, report).unwrap();
        let no = Errno::MFILE.to_string();
        assert_eq!(seen, [&no, "look", &no, "look", &no, "look", "look", "look"]);
    }

    #[test]
    fn a_look_that_takes_longer_than_the_interval_is_followed_by_the_next_one() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let clock = Arc::new(Mutex::new(0));
        let shown = Arc::clone(&clock);
        let now = Box::new(move || at_hour(*shown.lock().unwrap()));
        let (mut stop, stopped) = UnixStream::pair().unwrap();
        let (look, looks) = mpsc::channel();
        let driving = std::thread::spawn(move || {
            let (driver, _) = Driver::with_clock(store, Settings::default(), CatalogUse::None, now);
            let (_sender, mailbox) = channel().unwrap();
            let report = |event: Event<'_>| {
                if matches!(event, Event::Timed(Operation::Sweep, _)) {
                    *clock.lock().unwrap() += 2;
                    let _ = look.send(());
                }
            };
            driver.run(&mailbox, Duration::from_hours(1), stopped, report).unwrap();
        });
        for number in 0..3 {
            assert!(looks.recv_timeout(Duration::from_secs(30)).is_ok(), "only {number} looks");
        }
        stop.write_all(b"x").unwrap();
        driving.join().unwrap();
    }

    #[test]
    fn looks_are_spread_by_a_tenth() {
        let looks: BTreeSet<Duration> = (0..100).map(|_| around(Duration::from_mins(1))).collect();
        assert!(looks.len() > 50, "{looks:?}");
        assert!(looks.first() >= Some(&Duration::from_secs(54)), "{looks:?}");
        assert!(looks.last() <= Some(&Duration::from_secs(66)), "{looks:?}");
    }
}

//! Carrying out deletions on a thread of its own: unlinking gigabytes takes time, and the next archive is closed
//! meanwhile.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use checkpoint_keeper_core::engine::file::{Deletion, Outcome, Removal};

use crate::mailbox::{Sender, StoreTask, Unlinked};
use crate::store::Store;

/// Something to do in a directory.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "few wait at a time")]
enum Work {
    /// Delete an archive, unless deletions were withdrawn since: the number is that of the withdrawals by then.
    Delete(u64, Deletion),
    Task(StoreTask),
}

/// A thread that carries out deletions and other tasks in the order in which they come.
#[derive(Debug)]
pub struct Sweeper {
    queue: Option<mpsc::Sender<(Arc<Store>, Work)>>,
    /// How often the deletions that wait were withdrawn. One that was queued at a lower number is not carried out.
    withdrawals: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    /// Starts the thread, which puts the outcomes into the mailbox.
    pub fn start(mailbox: Sender) -> io::Result<Self> {
        Self::removing_by(mailbox, |store, deletion| store.remove(&deletion.archive.file, &deletion.stat))
    }

    /// The same with another way to remove an archive.
    fn removing_by(
        mailbox: Sender,
        remove: impl Fn(&Store, &Deletion) -> Removal + Send + 'static,
    ) -> io::Result<Self> {
        let (queue, deletions) = mpsc::channel::<(Arc<Store>, Work)>();
        let stop = Arc::new(AtomicBool::new(false));
        let withdrawals = Arc::new(AtomicU64::new(0));
        let (is_stopped, withdrawn) = (Arc::clone(&stop), Arc::clone(&withdrawals));
        let work = move || {
            for (store, work) in deletions {
                if is_stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (withdrawn_before, deletion) = match work {
                    Work::Delete(withdrawn_before, deletion) => (withdrawn_before, deletion),
                    Work::Task(task) => {
                        // Who waits for the task learns that it came to no end.
                        let _ = catch_unwind(AssertUnwindSafe(|| (task.run)(&store)));
                        continue;
                    }
                };
                let begun = Instant::now();
                let removal = if withdrawn_before == withdrawn.load(Ordering::Relaxed) {
                    // Without an outcome the engine would wait for ever, and begin no other deletion.
                    catch_unwind(AssertUnwindSafe(|| remove(&store, &deletion)))
                        .unwrap_or_else(|_| Removal::Failed(io::Error::other("deleting it panicked")))
                } else {
                    Removal::Withdrawn
                };
                let outcome = Outcome { deletion, removal };
                mailbox.send_outcome(Unlinked { outcome, begun, ended: Instant::now() });
            }
        };
        let thread = std::thread::Builder::new().name("sweeper".to_owned()).spawn(work)?;
        Ok(Self { queue: Some(queue), withdrawals, stop, thread: Some(thread) })
    }

    /// Has an archive deleted, after those before it.
    pub fn delete(&self, store: &Arc<Store>, deletion: Deletion) {
        if let Some(queue) = &self.queue {
            let withdrawals = self.withdrawals.load(Ordering::Relaxed);
            // The thread ends only with this.
            let _ = queue.send((Arc::clone(store), Work::Delete(withdrawals, deletion)));
        }
    }

    /// Has a task carried out after the deletion under way. If it protects, those that have not begun come back as
    /// withdrawn, to be decided about anew.
    pub fn carry_out(&self, store: &Arc<Store>, task: StoreTask) {
        if task.protects {
            self.withdraw();
        }
        if let Some(queue) = &self.queue {
            let _ = queue.send((Arc::clone(store), Work::Task(task)));
        }
    }

    /// Begins none of the deletions that wait: they come back as withdrawn.
    pub fn withdraw(&self) {
        self.withdrawals.fetch_add(1, Ordering::Relaxed);
    }

    /// Finishes the deletion under way, and begins no other. All outcomes are in the mailbox then.
    pub fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use checkpoint_keeper_core::engine::file::Stat;
    use checkpoint_keeper_core::identity::Identity;
    use checkpoint_keeper_core::name::FileName;
    use checkpoint_keeper_core::plan::{Archive, Detail, Draw, Reason, Verdict};
    use jiff::Timestamp;

    use super::*;
    use crate::mailbox::channel;

    fn deletion(file: &str) -> Deletion {
        let identity = Identity {
            namespace: "team".to_owned(),
            pod: "web-0".to_owned(),
            pod_uid: None,
            container: "server".to_owned(),
        };
        let file = FileName::new(file.as_bytes()).unwrap();
        Deletion {
            archive: Archive::whole(file, Arc::new(identity), Timestamp::UNIX_EPOCH, 1),
            stat: Stat { device: 1, inode: 1, size: 1, modified: (0, 0), changed: (0, 0), allocated: 0 },
            verdict: Verdict { reason: Reason::MaxAge, policy: None, detail: Detail::None },
            policy_generation: None,
            draw: Draw::Nothing,
        }
    }

    #[test]
    fn whatever_panics_the_next_deletion_is_carried_out_and_each_has_an_outcome() {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(directory.path()).unwrap());
        let (sender, mailbox) = channel().unwrap();
        let sweeper = Sweeper::removing_by(sender, |_, deletion| {
            assert!(deletion.archive.file.to_string() != "checkpoint-bad.tar", "it is bad");
            Removal::Removed
        })
        .unwrap();
        sweeper.delete(&store, deletion("checkpoint-bad.tar"));
        let panicking = Box::new(|_: &Store| panic!("it is bad as well"));
        sweeper.carry_out(&store, StoreTask { protects: false, run: panicking });
        sweeper.delete(&store, deletion("checkpoint-good.tar"));
        let begin = Instant::now();
        let mut outcomes = Vec::new();
        while outcomes.len() < 2 {
            assert!(begin.elapsed() < Duration::from_secs(30), "{outcomes:?}");
            outcomes.extend(mailbox.take().outcomes);
            std::thread::yield_now();
        }
        let outcomes: Vec<_> = outcomes
            .iter()
            .map(|unlinked| match &unlinked.outcome.removal {
                Removal::Failed(error) => error.to_string(),
                other => format!("{other:?}"),
            })
            .collect();
        assert_eq!(outcomes, ["deleting it panicked", "Removed"]);
        sweeper.stop();
    }
}

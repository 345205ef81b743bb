//! Carrying out deletions on a thread of its own: unlinking gigabytes takes time, and the next archive is closed
//! meanwhile.

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
    pub fn start(mailbox: Sender) -> std::io::Result<Self> {
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
                        (task.run)(&store);
                        continue;
                    }
                };
                let begin = Instant::now();
                let removal = if withdrawn_before == withdrawn.load(Ordering::Relaxed) {
                    store.remove(&deletion.archive.file, &deletion.stat)
                } else {
                    Removal::Withdrawn
                };
                let outcome = Outcome { deletion, removal };
                mailbox.send_outcome(Unlinked { outcome, took: begin.elapsed() });
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

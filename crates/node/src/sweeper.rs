//! Carrying out deletions on a thread of its own: unlinking gigabytes takes time, and the next archive is closed
//! meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use checkpoint_keeper_core::engine::file::{Deletion, Outcome, Removal};

use crate::mailbox::{Sender, Unlinked};
use crate::store::Store;

/// A thread that carries out deletions in the order in which they come.
#[derive(Debug)]
pub struct Sweeper {
    queue: Option<mpsc::Sender<(u64, Arc<Store>, Deletion)>>,
    /// How often what was wanted before was withdrawn; each deletion carries what it was by then.
    withdrawals: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sweeper {
    /// Starts the thread, which puts the outcomes into the mailbox.
    pub fn start(mailbox: Sender) -> std::io::Result<Self> {
        let (queue, deletions) = mpsc::channel::<(u64, Arc<Store>, Deletion)>();
        let stop = Arc::new(AtomicBool::new(false));
        let withdrawals = Arc::new(AtomicU64::new(0));
        let (stopped, now) = (Arc::clone(&stop), Arc::clone(&withdrawals));
        let work = move || {
            for (then, store, deletion) in deletions {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let begin = Instant::now();
                let removal = if then == now.load(Ordering::Relaxed) {
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
            let _ = queue.send((withdrawals, Arc::clone(store), deletion));
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

//! Carrying out deletions, on a thread of its own where somebody waits: unlinking gigabytes takes
//! time, and the next archive is closed meanwhile.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use checkpoint_keeper_core::plan::{Archive, Draw, Verdict};
use rustix::event::{EventfdFlags, eventfd};

use crate::store::{Removal, Stat, Store};

/// An archive that is to go.
#[derive(Debug, Clone)]
pub struct Deletion {
    /// The archive as it was decided about.
    pub archive: Archive,
    /// Its file as it was decided about.
    pub stat: Stat,
    /// Why it goes.
    pub verdict: Verdict,
    /// What pays for it.
    pub draw: Draw,
}

impl Deletion {
    /// The namespace of the archive's pod; empty where that is not known.
    pub fn namespace(&self) -> &str {
        self.archive.identity.as_ref().map_or("", |identity| identity.namespace.as_str())
    }
}

/// What became of a deletion.
#[derive(Debug)]
pub struct Outcome {
    /// Which.
    pub deletion: Deletion,
    /// What became of it.
    pub removal: Removal,
}

impl Outcome {
    /// What the file system gets back, in bytes: nothing but for an archive that this removed itself.
    pub fn freed_bytes(&self) -> u64 {
        if matches!(self.removal, Removal::Removed) { self.deletion.stat.allocated } else { 0 }
    }
}

/// Carries out deletions one after the other.
pub fn sweep(store: &Store, deletions: Vec<Deletion>, mut done: impl FnMut(Outcome)) {
    for deletion in deletions {
        let removal = store.remove(&deletion.archive.file, &deletion.stat);
        done(Outcome { deletion, removal });
    }
}

/// A thread that carries out deletions in the order in which they come.
#[derive(Debug)]
pub struct Sweeper {
    queue: Option<mpsc::Sender<(u64, Arc<Store>, Deletion)>>,
    /// How often what was wanted before was withdrawn; each deletion carries what it was by then.
    withdrawals: Arc<AtomicU64>,
    outcomes: mpsc::Receiver<Outcome>,
    bell: Arc<OwnedFd>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    in_flight: usize,
}

impl Sweeper {
    /// Starts the thread.
    pub fn start() -> std::io::Result<Self> {
        let (queue, deletions) = mpsc::channel::<(u64, Arc<Store>, Deletion)>();
        let (done, outcomes) = mpsc::channel();
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let stop = Arc::new(AtomicBool::new(false));
        let withdrawals = Arc::new(AtomicU64::new(0));
        let (ring, stopped, now) = (Arc::clone(&bell), Arc::clone(&stop), Arc::clone(&withdrawals));
        let work = move || {
            for (then, store, deletion) in deletions {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let removal = if then == now.load(Ordering::Relaxed) {
                    store.remove(&deletion.archive.file, &deletion.stat)
                } else {
                    Removal::Withdrawn
                };
                // Nobody listens any more when the watch has ended: there is nothing left to do.
                let _ = done.send(Outcome { deletion, removal });
                let _ = rustix::io::write(&*ring, &1_u64.to_ne_bytes());
            }
        };
        let thread = std::thread::Builder::new().name("sweeper".to_owned()).spawn(work)?;
        Ok(Self { queue: Some(queue), withdrawals, outcomes, bell, stop, thread: Some(thread), in_flight: 0 })
    }

    /// Has an archive deleted, after those before it.
    pub fn delete(&mut self, store: &Arc<Store>, deletion: Deletion) {
        if let Some(queue) = &self.queue {
            let withdrawals = self.withdrawals.load(Ordering::Relaxed);
            let is_taken = queue.send((withdrawals, Arc::clone(store), deletion)).is_ok();
            self.in_flight += usize::from(is_taken);
        }
    }

    /// How many deletions were begun whose outcome was not taken yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Begins none of the deletions that wait: they come back as withdrawn.
    pub fn withdraw(&self) {
        self.withdrawals.fetch_add(1, Ordering::Relaxed);
    }

    /// What has been done since the last call; does not wait.
    pub fn outcomes(&mut self) -> Vec<Outcome> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.bell, &mut count);
        let outcomes: Vec<Outcome> = self.outcomes.try_iter().collect();
        self.in_flight = self.in_flight.saturating_sub(outcomes.len());
        outcomes
    }

    /// Finishes the deletion under way, begins no other, and returns what was done.
    pub fn stop(mut self) -> Vec<Outcome> {
        self.stop.store(true, Ordering::Relaxed);
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.outcomes.try_iter().collect()
    }
}

impl AsFd for Sweeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

//! Writing the catalog on a thread of its own, so that planning and deleting never wait for its disk.
//!
//! What is to be written waits by its keys, the latest for each, so that a disk that hangs costs no
//! more memory than there is to remember.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use checkpoint_keeper_core::engine::memory::Changes;

use crate::catalog::{Catalog, CatalogError, CatalogProblem};

/// How long a flush, or the end, waits for what was not written yet.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How long the thread waits for more to write: a burst is then a few transactions, each with its fsync, and not
/// one for each archive.
const GATHER: Duration = Duration::from_millis(50);

/// The most changes that wait. Where there are more, those that forget something are dropped: the next start finds out by
/// itself that it is gone.
const MOST_WAITING: usize = 20_000;

/// A thread that writes a catalog.
#[derive(Debug)]
pub struct CatalogWriter {
    shared: Arc<Shared>,
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Changes,
    is_writing: bool,
    is_open: bool,
    /// Whether it is to be opened again.
    reopen: bool,
    stop: bool,
    /// Whether a caller waits until everything is written.
    is_urgent: bool,
    /// Whether a flush has waited for it in vain: the end does not wait again.
    is_given_up: bool,
    problems: Vec<CatalogProblem>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while `condition` holds, but no longer than `limit`; says whether it still does.
    fn wait_while(&self, limit: Duration, mut condition: impl FnMut(&mut State) -> bool) -> bool {
        let end = Instant::now() + limit;
        let mut state = self.state();
        while condition(&mut state) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Writes what is to be written until it is told to stop.
    fn work(&self, mut catalog: Option<Catalog>, path: &Path) {
        loop {
            let mut state = self.state();
            while state.waiting.is_empty() && !state.reopen && !state.stop {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.waiting.is_empty() && !state.reopen {
                return;
            }
            let no_haste = |state: &mut State| !state.stop && !state.is_urgent;
            state = match self.changed.wait_timeout_while(state, GATHER, no_haste) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
            let reopen = std::mem::take(&mut state.reopen);
            let changes = std::mem::take(&mut state.waiting);
            state.is_writing = true;
            drop(state);
            let mut problems = Vec::new();
            if reopen {
                // It has to be closed before it can be opened.
                drop(catalog.take());
                match Catalog::open(path) {
                    Ok(opened) => {
                        catalog = Some(opened.catalog);
                        problems.extend(opened.set_aside.map(CatalogProblem::SetAside));
                    }
                    Err(error) => problems.push(CatalogProblem::Unusable(error)),
                }
            }
            if let Some(Err(error)) = catalog.as_ref().map(|catalog| catalog.update(&changes)) {
                catalog = None;
                problems.push(CatalogProblem::Unusable(error));
            }
            let mut state = self.state();
            state.is_writing = false;
            state.is_open = catalog.is_some();
            state.problems.extend(problems);
            self.changed.notify_all();
        }
    }
}

impl CatalogWriter {
    /// Starts the thread. Without a catalog it writes nothing until it is told to open it again.
    pub fn start(catalog: Option<Catalog>, path: PathBuf) -> Result<Self, CatalogError> {
        let state = State { is_open: catalog.is_some(), ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let (work, opened) = (Arc::clone(&shared), path.clone());
        let thread = std::thread::Builder::new()
            .name("catalog".to_owned())
            .spawn(move || work.work(catalog, &opened))
            .map_err(CatalogError::Thread)?;
        Ok(Self { shared, path, thread: Some(thread) })
    }

    /// Whether the catalog is open, as far as is known: after an error it is not.
    pub fn is_open(&self) -> bool {
        let state = self.shared.state();
        state.is_open || state.reopen || state.is_writing
    }

    /// Has these written; does not wait.
    pub fn write(&self, changes: Changes) {
        if changes.is_empty() {
            return;
        }
        let mut state = self.shared.state();
        state.waiting.add(changes);
        if state.waiting.len() > MOST_WAITING {
            state.waiting.forget_less();
        }
        self.shared.changed.notify_all();
    }

    /// Has the catalog opened again, and everything written that is to be remembered; does not wait.
    pub fn reopen(&self, everything: Changes) {
        let mut state = self.shared.state();
        (state.waiting, state.reopen) = (everything, true);
        self.shared.changed.notify_all();
    }

    /// What went wrong since the last call; does not wait.
    pub fn problems(&self) -> Vec<CatalogProblem> {
        std::mem::take(&mut self.shared.state().problems)
    }

    /// Waits until everything is written, but not for long, and says what went wrong.
    pub fn flush(&self) -> Vec<CatalogProblem> {
        let is_busy = |state: &mut State| !state.waiting.is_empty() || state.is_writing || state.reopen;
        self.shared.state().is_urgent = true;
        self.shared.changed.notify_all();
        let is_late = self.shared.wait_while(TIMEOUT, is_busy);
        self.shared.state().is_urgent = false;
        let mut problems = self.problems();
        if is_late {
            self.shared.state().is_given_up = true;
            problems.push(CatalogProblem::Unusable(CatalogError::Slow(self.path.clone())));
        }
        problems
    }
}

impl Drop for CatalogWriter {
    /// Has everything written, and closes the catalog, unless that takes long.
    fn drop(&mut self) {
        self.shared.state().stop = true;
        self.shared.changed.notify_all();
        let Some(thread) = self.thread.take() else { return };
        let end = Instant::now() + TIMEOUT;
        let is_busy = |state: &mut State| !state.waiting.is_empty() || state.is_writing || state.reopen;
        let is_given_up = self.shared.state().is_given_up;
        if !is_given_up && !self.shared.wait_while(end.saturating_duration_since(Instant::now()), is_busy) {
            // It has nothing left to do but to close the file.
            let _ = thread.join();
        }
    }
}

//! Asking the cluster, on a thread of its own: whoever plans and deletes never waits for an API.
//!
//! Here is neither a client nor what answers mean: the one comes in as a function, the other is
//! [`checkpoint_keeper_core::pods`]' part.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};

use checkpoint_keeper_core::pods::{Lookup, LookupResult};
use jiff::Timestamp;
use rustix::event::{EventfdFlags, eventfd};

use crate::clock::Now;

/// What came of a question, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// What was asked.
    pub question: Lookup,
    /// What came of it.
    pub finding: LookupResult,
    /// When.
    pub at: Now,
    /// What time it was by the clock of whoever answered.
    pub server_time: Option<Timestamp>,
}

impl Resolved {
    /// None that can be believed.
    pub fn failed(question: Lookup, why: impl Into<String>) -> Self {
        Self { question, finding: LookupResult::Failed(why.into()), at: Now::read(), server_time: None }
    }
}

/// A line to whoever asks the cluster.
#[derive(Debug)]
pub struct Resolver {
    questions: mpsc::Sender<Vec<Lookup>>,
    answers: mpsc::Receiver<Vec<Resolved>>,
    bell: Arc<OwnedFd>,
    is_waiting: bool,
}

impl Resolver {
    /// Starts the thread. It ends by itself some time after the line is dropped.
    pub fn start(
        mut ask: impl FnMut(Vec<Lookup>) -> Vec<Resolved> + Send + 'static,
    ) -> std::io::Result<Self> {
        let (questions, asked) = mpsc::channel::<Vec<Lookup>>();
        let (answer, answers) = mpsc::channel();
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let ring = Arc::clone(&bell);
        let work = move || {
            for questions in asked {
                let about = questions.clone();
                let answers = catch_unwind(AssertUnwindSafe(|| ask(questions))).unwrap_or_else(|_| {
                    about.into_iter().map(|question| Resolved::failed(question, "asking panicked")).collect()
                });
                if answer.send(answers).is_err() {
                    return;
                }
                let _ = rustix::io::write(&*ring, &1_u64.to_ne_bytes());
            }
        };
        std::thread::Builder::new().name("resolver".to_owned()).spawn(work)?;
        Ok(Self { questions, answers, bell, is_waiting: false })
    }

    /// Has these asked, after those before them.
    pub fn ask(&mut self, questions: Vec<Lookup>) {
        if !questions.is_empty() {
            self.is_waiting = self.questions.send(questions).is_ok();
        }
    }

    /// Whether questions are yet to be answered.
    pub fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// All answers to what was asked last, once they are there; does not wait.
    pub fn answers(&mut self) -> Option<Vec<Resolved>> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.bell, &mut count);
        let answers = self.answers.try_recv().ok()?;
        self.is_waiting = false;
        Some(answers)
    }
}

impl AsFd for Resolver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

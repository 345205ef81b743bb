//! Sending lookups on a thread of its own, so that planning and deleting never wait for the API.
//!
//! Here is neither a client nor what answers mean: the one comes in as a function, the other is
//! [`checkpoint_keeper_core::pods`]' part.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use checkpoint_keeper_core::engine::cluster::Resolved;
use checkpoint_keeper_core::pods::Lookup;

use crate::clock;
use crate::mailbox::Sender;

/// What asks the cluster: it takes lookups and returns an answer to each.
pub type Ask = Box<dyn FnMut(Vec<Lookup>) -> Vec<Resolved> + Send>;

/// A thread that asks the cluster.
#[derive(Debug)]
pub struct Resolver {
    lookups: mpsc::Sender<Vec<Lookup>>,
}

impl Resolver {
    /// Starts the thread, which puts the answers into the mailbox. It ends by itself some time after this is dropped.
    pub fn start(mut ask: Ask, mailbox: Sender) -> std::io::Result<Self> {
        let (lookups, asked) = mpsc::channel::<Vec<Lookup>>();
        let work = move || {
            for lookups in asked {
                let about = lookups.clone();
                let answers = catch_unwind(AssertUnwindSafe(|| ask(lookups))).unwrap_or_else(|_| {
                    let failed = |lookup| Resolved::failed(lookup, "asking panicked", clock::now());
                    about.into_iter().map(failed).collect()
                });
                mailbox.send_answers(answers);
            }
        };
        std::thread::Builder::new().name("resolver".to_owned()).spawn(work)?;
        Ok(Self { lookups })
    }

    /// Has these asked, after those before them.
    pub fn ask(&self, lookups: Vec<Lookup>) {
        // The thread ends only after this.
        let _ = self.lookups.send(lookups);
    }
}

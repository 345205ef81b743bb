//! Sending events, and saying in the log when that begins and when it ceases to fail.

use checkpoint_keeper_runtime::events::{Note, Publisher};
use checkpoint_keeper_runtime::liveness::now;
use checkpoint_keeper_runtime::problem_log::{Entry, Problem, ProblemLog};
use kube::Client;

use crate::api_write::{WRITER, within_timeout};

/// Sends events of one kind.
pub(super) struct EventSender {
    publisher: Publisher,
    log: ProblemLog,
    /// The type of the problem in the log, and what the events are of.
    kind: &'static str,
    what: &'static str,
}

impl EventSender {
    /// For the agent of a node; `kind` is the type of the problem in the log, and `what` goes on with `events`.
    pub(super) fn new(client: &Client, node: &str, kind: &'static str, what: &'static str) -> Self {
        let publisher = Publisher::new(client.clone(), WRITER, node.to_owned());
        Self { publisher, log: ProblemLog::default(), kind, what }
    }

    /// Sends one. One that cannot be sent is lost, and that is logged.
    pub(super) async fn send(&mut self, note: Note) {
        let entry = match within_timeout(self.publisher.publish(note)).await {
            Ok(()) => self.log.end(self.kind, "", now()),
            Err(error) => {
                let message = format!("events {} cannot be written: {error}", self.what);
                self.log.begin(Problem { kind: self.kind, subject: String::new(), message }, now())
            }
        };
        entry.iter().for_each(Entry::log);
    }
}

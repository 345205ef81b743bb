//! Sending events, and saying in the log when that begins and when it ceases to fail.

use std::time::Duration;

use checkpoint_keeper_runtime::events::{Note, Publisher};
use checkpoint_keeper_runtime::liveness::now;
use checkpoint_keeper_runtime::plain;
use checkpoint_keeper_runtime::problem_log::{Entry, Problem, ProblemLog};
use kube::Client;
use tokio::time::timeout;

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(10);

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
        let publisher = Publisher::new(client.clone(), "checkpoint-keeper-agent", node.to_owned());
        Self { publisher, log: ProblemLog::default(), kind, what }
    }

    /// Sends one. One that cannot be sent is lost, and that is logged.
    pub(super) async fn send(&mut self, note: Note) {
        let failed = match timeout(REQUEST, self.publisher.publish(note)).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(plain(&error)),
            Err(_) => Some(format!("no answer within {REQUEST:?}")),
        };
        let entry = match failed {
            None => self.log.end(self.kind, "", now()),
            Some(why) => {
                let message = format!("events {} cannot be written: {why}", self.what);
                self.log.begin(Problem { kind: self.kind, subject: String::new(), message }, now())
            }
        };
        entry.iter().for_each(Entry::log);
    }
}

//! Making one checkpoint through the node's kubelet, from the question whether there is room to the proof that the
//! archive is whole.

use std::path::Path;
use std::time::Duration;

use checkpoint_keeper_core::creation::{DumpEnd, DumpResult};
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::quantity::human;
use checkpoint_keeper_core::schedule::{ContainerId, Dump, Outcome, Request};
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::mailbox::Sender;
use checkpoint_keeper_runtime::chain;
use checkpoint_keeper_runtime::kubelet::{CheckpointError, Kubelet};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::archives::{Found, Room, SeenArchives};

/// A runtime writes the images before it packs them: until it is done, there are both.
const STAGING: u64 = 2;

/// How long an archive that the kubelet named may take until the engine has read it.
const CONFIRMED_WITHIN: Duration = Duration::from_mins(2);

/// How long an archive may still come of a request that was not answered in full: CRI-O finishes without its client.
const CLAIMED_WITHIN: Duration = Duration::from_mins(2);

/// How long after a restart an archive may still come of a dump that was under way before: with the program went its
/// request, and containerd gives the dump up then. Meanwhile no other dump begins.
const RECOVERED_WITHIN: Duration = Duration::from_secs(30);

/// Makes dumps.
pub(super) struct Dumper {
    pub(super) kubelet: Kubelet,
    pub(super) archives: SeenArchives,
    pub(super) engine: Sender,
}

impl Dumper {
    /// Makes one, tells the engine how it ended, and returns that.
    pub(super) async fn make(&self, dump: &Dump) -> Outcome {
        let ended = self.ask(dump).await;
        self.tell_engine(dump, &ended);
        ended.outcome()
    }

    /// Finds out how one ended that an earlier process began.
    pub(super) async fn recover(&self, dump: &Dump) -> Outcome {
        let appeared = self.archives.wait_for(&dump.container, None, dump.started);
        let ended = match timeout(RECOVERED_WITHIN, appeared).await {
            Ok(Ok(found)) => Ended::Found(found),
            _ => Ended::Uncertain(Outcome::Failed(
                "the agent was restarted while it was made, and no archive came of it".to_owned(),
            )),
        };
        self.tell_engine(dump, &ended);
        ended.outcome()
    }

    /// Tells the engine, for certain ends only, so that it knows of an archive that a schedule had it made, and removes
    /// what a failed dump left.
    fn tell_engine(&self, dump: &Dump, ended: &Ended) {
        let result = match ended {
            Ended::Found(Found { file, fault: None }) => match FileName::new(file.as_bytes()) {
                Some(file) => DumpResult::Made { file },
                None => return,
            },
            Ended::Found(_) | Ended::Refused(_) => DumpResult::Failed,
            Ended::Uncertain(_) => return,
        };
        let ContainerId { namespace, pod, container, .. } = dump.container.clone();
        self.engine.send_dump(DumpEnd {
            namespace,
            pod,
            container,
            started: dump.started,
            ended: clock::now().wall,
            requests: dump.requests.iter().map(Request::creation).collect(),
            result,
        });
    }

    async fn ask(&self, dump: &Dump) -> Ended {
        let container = &dump.container;
        if let Some(shortage) =
            self.archives.room().and_then(|room| shortage(room, self.archives.last_size(container)))
        {
            return Ended::Uncertain(Outcome::InsufficientStorage(shortage));
        }
        // Before it is asked for: the engine may have read the archive before the answer is here.
        let appeared = self.archives.wait_for(container, None, dump.started);
        let asked =
            self.kubelet.checkpoint(&container.namespace, &container.pod, &container.container, dump.timeout);
        match asked.await {
            Ok(path) => self.confirm(dump, path.as_path(), appeared).await,
            Err(error) if error.archive_may_appear() => self.claim(appeared, &error).await,
            Err(error) => failed(&error),
        }
    }

    /// Waits until the engine has read the archive that the kubelet named.
    async fn confirm(&self, dump: &Dump, path: &Path, appeared: oneshot::Receiver<Found>) -> Ended {
        let Some(file) = path.file_name().and_then(|file| file.to_str()) else {
            let what = format!("the kubelet named {}, which is no file", path.display());
            return Ended::Uncertain(Outcome::FailedForGood(what));
        };
        let told = self.archives.wait_for(&dump.container, Some(file.to_owned()), dump.started);
        // The engine may have read it before its name was known here. An archive that somebody else asked for may have
        // come first, and one that cannot be read is nobody's.
        let found = async {
            match appeared.await {
                Ok(found) if found.file == file => Some(found),
                _ => None,
            }
        };
        let found = async {
            tokio::select! {
                Some(found) = found => Some(found),
                Ok(found) = told => Some(found),
                else => None,
            }
        };
        match timeout(CONFIRMED_WITHIN, found).await {
            Ok(Some(found)) => Ended::Found(found),
            _ => Ended::Uncertain(Outcome::Failed(format!(
                "the kubelet named {file}, which did not appear in the checkpoint directory"
            ))),
        }
    }

    /// Waits for what may come of a request that was not answered in full.
    async fn claim(&self, appeared: oneshot::Receiver<Found>, error: &CheckpointError) -> Ended {
        match timeout(CLAIMED_WITHIN, appeared).await {
            Ok(Ok(found)) => Ended::Found(found),
            _ => Ended::Uncertain(Outcome::Failed(chain(error))),
        }
    }
}

/// How a dump ended.
#[derive(Debug)]
enum Ended {
    /// There is an archive of it, whole or not.
    Found(Found),
    /// The kubelet said that it failed. Nothing is written any more.
    Refused(Outcome),
    /// It was not made, or it is not known for certain what came of it.
    Uncertain(Outcome),
}

impl Ended {
    fn outcome(self) -> Outcome {
        match self {
            Self::Found(Found { file, fault: None }) => Outcome::Done { file },
            Self::Found(Found { file, fault: Some(fault) }) => Outcome::Failed(format!("{file}: {fault}")),
            Self::Refused(outcome) | Self::Uncertain(outcome) => outcome,
        }
    }
}

/// What is missing for a dump that is as large as the last one; none: there is room, as far as is known.
fn shortage(room: Room, last: Option<u64>) -> Option<String> {
    let expected = last.unwrap_or(0).saturating_mul(STAGING);
    let usable = room.available.saturating_sub(room.min_free);
    if expected <= usable && (usable > 0 || room.min_free == 0) {
        return None;
    }
    let (available, min_free) = (human(room.available), human(room.min_free));
    Some(format!(
        "{available} are available, of which {min_free} are to stay free, and {} are expected to be needed",
        human(expected)
    ))
}

fn failed(error: &CheckpointError) -> Ended {
    let text = chain(error);
    match error {
        // Another dump of the container is under way, and may be the one that writes.
        CheckpointError::Transient { .. } => Ended::Uncertain(Outcome::Collided(text)),
        error if error.retry_may_help() => Ended::Refused(Outcome::Failed(text)),
        _ => Ended::Refused(Outcome::FailedForGood(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_dump_where_what_it_needs_would_not_leave_what_is_to_stay_free() {
        let room = |available, min_free| Room { available, min_free };
        assert_eq!(shortage(room(100, 0), None), None);
        assert_eq!(shortage(room(100, 0), Some(50)), None);
        assert!(shortage(room(100, 0), Some(51)).is_some());
        assert_eq!(shortage(room(100, 40), Some(30)), None);
        assert!(shortage(room(100, 41), Some(30)).is_some());
        assert!(shortage(room(100, 100), None).is_some(), "nothing is left to use");
        assert!(shortage(room(100, 200), Some(u64::MAX)).is_some());
    }
}

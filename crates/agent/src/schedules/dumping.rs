//! Making one checkpoint through the node's kubelet, up to the proof that the archive is whole.

use std::path::Path;
use std::time::Duration;

use checkpoint_keeper_core::creation::{DumpEnd, DumpResult};
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::schedule::{ContainerId, Dump, Outcome, Request};
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::mailbox::Sender;
use checkpoint_keeper_runtime::chain;
use checkpoint_keeper_runtime::kubelet::{CheckpointError, Kubelet};
use checkpoint_keeper_runtime::liveness::now;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::archives::{Found, SeenArchives};
use super::node_pods::NodePods;
use super::usage::NodeUsage;
use super::warnings::QuotaWarnings;
use crate::quotas::QuotaGate;

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
    pub(super) pods: NodePods,
    pub(super) usage: NodeUsage,
    pub(super) quotas: QuotaGate,
    pub(super) warnings: QuotaWarnings,
}

impl Dumper {
    /// Makes one, tells the engine how it ended, and returns that.
    pub(super) async fn make(&self, dump: &Dump) -> Ended {
        let name = self.pods.watch_name(&dump.container, now());
        let ended = self.ask(dump).await;
        // While the watch is down, there may be pods that are not seen.
        let is_name_certain = name.is_unambiguous() && self.pods.pods(now()).is_some();
        self.tell_engine(dump, &ended, is_name_certain);
        ended
    }

    /// Finds out how one ended that an earlier process began.
    pub(super) async fn recover(&self, dump: &Dump) -> Outcome {
        let (container, expected) = (&dump.container, self.archives.last_size(&dump.container));
        // Until it is known what came of it.
        let _reserved = self.quotas.reserve_anyway(&container.namespace, expected);
        let appeared = self.archives.wait_for(container, None, dump.started);
        let ended = match timeout(RECOVERED_WITHIN, appeared).await {
            Ok(Ok(found)) => Ended::Found(found),
            _ => Ended::Uncertain(Outcome::Failed(
                "the agent was restarted while it was made, and no archive came of it".to_owned(),
            )),
        };
        // Which pods there were before the restart is not known.
        self.tell_engine(dump, &ended, false);
        ended.outcome()
    }

    /// Tells the engine, for certain ends only, so that it knows of an archive that a schedule had it made, and removes
    /// what a failed dump left: this only if no other container of this node had archives of the same names meanwhile.
    fn tell_engine(&self, dump: &Dump, ended: &Ended, is_name_certain: bool) {
        let result = match ended {
            Ended::Found(Found { file, fault: None }) => match FileName::new(file.as_bytes()) {
                Some(file) => DumpResult::Made { file },
                None => return,
            },
            // What it left may say nothing of itself, and has to be told by its name.
            Ended::Found(_) | Ended::Refused(_) if is_name_certain => DumpResult::Failed,
            Ended::Found(_) | Ended::Refused(_) | Ended::Uncertain(_) => return,
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
        // What is reserved stays so until its archive is counted.
        let _reserved = match self.permission(dump).await {
            Ok(reserved) => reserved,
            Err(objection) => return Ended::Uncertain(objection),
        };
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
            _ if matches!(error, CheckpointError::RuntimeTimedOut(_)) => {
                Ended::Uncertain(Outcome::RuntimeLost(chain(error)))
            }
            _ => Ended::Uncertain(Outcome::Failed(chain(error))),
        }
    }
}

/// How a dump ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// There is an archive of it, whole or not.
    Found(Found),
    /// The kubelet said that it failed. Nothing is written any more.
    Refused(Outcome),
    /// It was not made, or it is not known for certain what came of it.
    Uncertain(Outcome),
}

impl Ended {
    /// The file of the archive that was made; none where there is none, or it is not whole.
    pub(super) fn file(&self) -> Option<&str> {
        match self {
            Self::Found(Found { file, fault: None }) => Some(file),
            _ => None,
        }
    }

    /// What the scheduler is told.
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Found(Found { file, fault: None }) => Outcome::Done { file },
            Self::Found(Found { file, fault: Some(fault) }) => Outcome::Failed(format!("{file}: {fault}")),
            Self::Refused(outcome) | Self::Uncertain(outcome) => outcome,
        }
    }
}

fn failed(error: &CheckpointError) -> Ended {
    let text = chain(error);
    match error {
        // Another dump of the container is under way, and may be the one that writes.
        CheckpointError::Transient { .. } => Ended::Uncertain(Outcome::Collided(text)),
        error if error.is_runtime_lost() => Ended::Uncertain(Outcome::RuntimeLost(text)),
        error if error.retry_may_help() => Ended::Refused(Outcome::Failed(text)),
        _ => Ended::Refused(Outcome::FailedForGood(text)),
    }
}

//! What the containers of the node use by the kubelet's metrics, read once for all dumps that begin at about the same
//! time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_runtime::chain;
use checkpoint_keeper_runtime::kubelet::{ContainerKey, Kubelet, Usage};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How old figures may be that serve another dump. The kubelet itself measures every 10 seconds or so.
const RECENT: Duration = Duration::from_secs(15);

/// By the containers' names.
pub(super) type AllUsage = Arc<BTreeMap<ContainerKey, Usage>>;

/// What containers use.
#[derive(Debug, Clone)]
pub(super) struct NodeUsage {
    kubelet: Kubelet,
    last: Arc<Mutex<Option<Reading>>>,
}

/// What the kubelet said, and when.
#[derive(Debug)]
struct Reading {
    at: Instant,
    /// None where it gave no answer: it is not asked again by each dump.
    usage: Option<AllUsage>,
}

impl NodeUsage {
    pub(super) fn new(kubelet: Kubelet) -> Self {
        Self { kubelet, last: Arc::default() }
    }

    /// What containers used a moment ago; none where the kubelet gives no answer.
    pub(super) async fn recent(&self) -> Option<AllUsage> {
        recent(&self.last, async || {
            let read = self.kubelet.resource_usage().await;
            read.map(Arc::new)
                .inspect_err(|error| tracing::debug!("what a dump will need is not known: {}", chain(error)))
                .ok()
        })
        .await
    }
}

/// What was read a moment ago; if that is too old, it is read anew, and others wait for it.
async fn recent(
    last: &Mutex<Option<Reading>>,
    read: impl AsyncFnOnce() -> Option<AllUsage>,
) -> Option<AllUsage> {
    let mut last = last.lock().await;
    if let Some(reading) = last.as_ref().filter(|reading| reading.at.elapsed() < RECENT) {
        return reading.usage.clone();
    }
    let usage = read().await;
    *last = Some(Reading { at: Instant::now(), usage: usage.clone() });
    usage
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_reading_serves_all_dumps_of_a_moment_also_when_it_failed() {
        for answer in [Some(AllUsage::default()), None] {
            let (last, reads) = (Mutex::default(), Cell::new(0));
            let ask = || {
                recent(&last, async || {
                    reads.set(reads.get() + 1);
                    tokio::task::yield_now().await;
                    answer.clone()
                })
            };
            let (one, other) = tokio::join!(ask(), ask());
            assert_eq!((one, other, reads.get()), (answer.clone(), answer.clone(), 1));
            tokio::time::advance(RECENT).await;
            ask().await;
            assert_eq!(reads.get(), 2, "old figures serve no dump");
        }
    }
}

//! How the agent writes to the API: by what name, how long a write may take, and which of two answers is the later one.

use std::time::Duration;

use checkpoint_keeper_runtime::plain;
use kube::ResourceExt;
use tokio::time::timeout;

/// How long one write may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Who writes: in the objects' managed fields, and as the reporter of events.
pub(super) const WRITER: &str = "checkpoint-keeper-agent";

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The API refused it, or could not be reached.
    #[error("{}", plain(.0))]
    Api(#[from] kube::Error),
    /// No reply came in time.
    #[error("no reply within {} s", TIMEOUT.as_secs())]
    Late,
}

/// Waits for the reply to a write, but not for longer than the timeout.
pub(super) async fn within_timeout<T>(write: impl Future<Output = kube::Result<T>>) -> Result<T, WriteError> {
    Ok(timeout(TIMEOUT, write).await.map_err(|_| WriteError::Late)??)
}

/// Whether an object is as it was before it had this version and this generation. Versions are told apart by their order,
/// as a status has no generation. Where versions began anew, as after a restore of etcd, a list comes before any such
/// change, and replaces all.
pub(super) fn is_earlier(object: &impl ResourceExt, version: &str, generation: i64) -> bool {
    let number = |text: &str| text.parse::<u64>().ok();
    match object.resource_version().as_deref().and_then(number).zip(number(version)) {
        Some((object, other)) => object < other,
        // An API server that does not count its versions.
        None => object.meta().generation.is_some_and(|object| object < generation),
    }
}

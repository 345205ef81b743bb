//! How the agent writes to the API: by what name, and how long a write may take.

use std::time::Duration;

use checkpoint_keeper_runtime::plain;
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

//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

use anyhow::bail;

/// Longer than anything local should take.
pub const SOON: Duration = Duration::from_secs(20);

/// How often a condition is looked at.
const INTERVAL: Duration = Duration::from_millis(50);

/// Waits until `condition` gives a value. When that takes too long, its last error is the reason.
pub fn for_value<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        let outcome = condition();
        if let Ok(Some(value)) = outcome {
            return Ok(value);
        }
        if Instant::now() >= end {
            let why = outcome.err().map(|error| format!(": {error:#}")).unwrap_or_default();
            bail!("waited {limit:?} in vain for {what}{why}");
        }
        std::thread::sleep(INTERVAL);
    }
}

/// Waits until `condition` holds.
pub fn until(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    for_value(what, limit, || Ok(condition()?.then_some(())))
}

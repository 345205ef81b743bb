//! What the log says of holds: who asked for one is to be found there also when its marker is gone.

use std::time::Instant;

use checkpoint_keeper_core::hold::{Hold, Marker};
use checkpoint_keeper_node::markers::HoldError;

use crate::schedules::budget::{Budget, MESSAGES};

/// Writes to the log, within a budget of each namespace and of the node.
#[derive(Debug)]
pub(super) struct HoldLog {
    lines: Budget,
    left_out: u64,
}

impl HoldLog {
    pub(super) fn new(now: Instant) -> Self {
        Self { lines: Budget::new(MESSAGES, now), left_out: 0 }
    }

    /// Whether there is a line about a namespace, and how many were left out since the last one that there was.
    fn take(&mut self, namespace: &str, now: Instant) -> Option<u64> {
        if self.lines.take(namespace, now) {
            return Some(std::mem::take(&mut self.left_out));
        }
        self.left_out = self.left_out.saturating_add(1);
        None
    }

    /// Says what became of a hold: none is the wish that there is none.
    pub(super) fn note(
        &mut self,
        namespace: &str,
        file: &str,
        hold: Option<&Hold>,
        outcome: &Result<Marker, HoldError>,
        now: Instant,
    ) {
        let Some(left_out) = self.take(namespace, now) else { return };
        if left_out > 0 {
            tracing::warn!(left_out, "holds change so often that not all changes are in the log");
        }
        match (hold, outcome) {
            (Some(hold), Ok(_)) => {
                let until = hold.until.map(|until| until.to_string());
                let by = hold.by.as_deref();
                tracing::info!(file, reason = hold.reason, by, until, "an archive is held");
            }
            (None, Ok(_)) => tracing::info!(file, "the hold of an archive has ended"),
            (_, Err(error)) => tracing::warn!(file, %error, "the hold of an archive could not be changed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_namespace_does_not_flood_the_log_and_what_is_left_out_is_counted() {
        let begin = Instant::now();
        let mut log = HoldLog::new(begin);
        let taken: Vec<u64> = (0..1_000).filter_map(|_| log.take("aaa", begin)).collect();
        assert_eq!(taken, [0; 100]);
        assert_eq!(log.take("bbb", begin), Some(900));
        assert_eq!(log.take("bbb", begin), Some(0));
        assert_eq!(log.take("aaa", begin + Duration::from_secs(2)), Some(0));
    }
}

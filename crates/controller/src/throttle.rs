//! Which of the statuses to be written are written now, and which later. Pure.
//!
//! Thousands of nodes report each minute; figures that change all the time are written now and then.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use checkpoint_keeper_core::policy::PolicyRef;
use tokio::time::Instant;

use super::statuses::StatusWrite;

/// The shortest time between two writes of a status of which nothing but figures has changed.
pub(super) const MIN_INTERVAL: Duration = Duration::from_secs(30);

/// So many nodes may watch a status that is written each [`MIN_INTERVAL`].
const FREQUENT_UP_TO: u32 = 250;

/// The longest that figures wait, however many nodes watch them.
const MAX_INTERVAL: Duration = MIN_INTERVAL.saturating_mul(4);

/// The shortest time between two writes of nothing but figures that are sent to the agents of all nodes: the more
/// these are, the longer.
pub(super) fn interval_for(nodes: usize) -> Duration {
    let nodes = u32::try_from(nodes).unwrap_or(u32::MAX);
    (MIN_INTERVAL.saturating_mul(nodes) / FREQUENT_UP_TO).clamp(MIN_INTERVAL, MAX_INTERVAL)
}

/// How long a write waits after it failed.
const RETRY_DELAY: Duration = Duration::from_secs(30);

/// What was written, and when.
#[derive(Debug, Default)]
pub struct StatusThrottle(BTreeMap<PolicyRef, Last>);

#[derive(Debug)]
struct Last {
    at: Instant,
    write: StatusWrite,
    has_failed: bool,
}

impl StatusThrottle {
    /// Those that are due, and when the next of the others is.
    pub fn due(&mut self, writes: Vec<StatusWrite>, now: Instant) -> (Vec<StatusWrite>, Option<Instant>) {
        // What needs no writing any more need not be remembered once figures may follow.
        let wanted: BTreeSet<&PolicyRef> = writes.iter().map(|write| &write.id).collect();
        self.0.retain(|id, last| now.duration_since(last.at) < MIN_INTERVAL || wanted.contains(id));
        let mut next = None;
        let due = writes.into_iter().filter(|write| {
            let Some(last) = self.0.get(&write.id) else { return true };
            // Written already: the watch has not shown it yet, or the API found nothing to change.
            if !last.has_failed && same(&last.write, write) {
                return false;
            }
            let wait = match (last.has_failed, write.is_urgent) {
                (true, _) => RETRY_DELAY,
                (false, false) => MIN_INTERVAL,
                (false, true) => Duration::ZERO,
            };
            let at = last.at + wait;
            if now < at {
                next = Some(next.map_or(at, |next: Instant| next.min(at)));
            }
            now >= at
        });
        (due.collect(), next)
    }

    /// Notes that one was written, or that it failed.
    pub fn note(&mut self, write: StatusWrite, has_failed: bool, at: Instant) {
        self.0.insert(write.id.clone(), Last { at, write, has_failed });
    }
}

/// A write that waits for the minimum interval where it brings nothing but figures.
pub trait ThrottledWrite {
    /// Which object it is of.
    fn uid(&self) -> &str;
    /// Whether a condition says something else: other figures may wait.
    fn is_urgent(&self) -> bool;
}

/// When the status of each object was last written, by its UID.
#[derive(Debug, Default)]
pub struct FigureThrottle {
    written: HashMap<String, Instant>,
}

impl FigureThrottle {
    /// Those that may be written now, where figures wait for so long; and when the next of the others may be.
    pub fn due<W: ThrottledWrite>(
        &mut self,
        writes: Vec<W>,
        interval: Duration,
        now: Instant,
    ) -> (Vec<W>, Option<Instant>) {
        self.written.retain(|_, at| now.saturating_duration_since(*at) < interval);
        let (due, waiting): (Vec<_>, Vec<_>) = writes
            .into_iter()
            .partition(|write| write.is_urgent() || !self.written.contains_key(write.uid()));
        let later = waiting.iter().filter_map(|write| self.written.get(write.uid())).min();
        (due, later.map(|at| *at + interval))
    }

    /// Notes a writing, whatever came of it.
    pub fn note<W: ThrottledWrite>(&mut self, write: &W, now: Instant) {
        self.written.insert(write.uid().to_owned(), now);
    }
}

/// Whether the same is written over the same. When a condition changed is from the moment of asking.
fn same(one: &StatusWrite, other: &StatusWrite) -> bool {
    let without_times = |write: &StatusWrite| {
        let mut status = write.status.clone();
        for condition in &mut status.conditions {
            condition.last_transition_time.0 = jiff::Timestamp::UNIX_EPOCH;
        }
        status
    };
    one.uid == other.uid
        && one.resource_version == other.resource_version
        && without_times(one) == without_times(other)
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_api::status::{PolicyStatus, PolicyTotals};
    use checkpoint_keeper_core::policy::Kind;

    use super::*;

    fn write(version: &str, is_urgent: bool, archives: i64) -> StatusWrite {
        StatusWrite {
            id: PolicyRef {
                kind: Kind::ClusterCheckpointPolicy,
                namespace: None,
                name: "a".to_owned(),
                part: None,
            },
            uid: "u".to_owned(),
            resource_version: version.to_owned(),
            status: PolicyStatus {
                totals: Some(PolicyTotals { archives, ..PolicyTotals::default() }),
                ..PolicyStatus::default()
            },
            is_urgent,
            transition: None,
        }
    }

    #[test]
    fn news_goes_out_at_once_and_figures_now_and_then() {
        let begin = Instant::now();
        let later = |seconds| begin + Duration::from_secs(seconds);
        let table = [
            ("the same again", false, write("1", true, 1), 100, false, None),
            ("figures, soon after", false, write("2", false, 2), 29, false, Some(30)),
            ("figures, later", false, write("2", false, 2), 30, true, None),
            ("news, soon after", false, write("2", true, 2), 1, true, None),
            ("the same after a failure, soon", true, write("1", true, 1), 29, false, Some(30)),
            ("the same after a failure, later", true, write("1", true, 1), 30, true, None),
            ("news after a failure, soon", true, write("2", true, 2), 1, false, Some(30)),
        ];
        for (what, has_failed, wanted, second, is_due, next) in table {
            let mut throttle = StatusThrottle::default();
            assert_eq!(throttle.due(vec![write("1", true, 1)], begin).0.len(), 1);
            throttle.note(write("1", true, 1), has_failed, begin);
            let (due, again) = throttle.due(vec![wanted.clone()], later(second));
            assert_eq!(due, if is_due { vec![wanted] } else { vec![] }, "{what}");
            assert_eq!(again, next.map(later), "{what}");
        }
    }

    #[test]
    fn figures_for_many_nodes_wait_longer_so_that_no_more_is_sent() {
        let table = [(0, 30), (1, 30), (250, 30), (500, 60), (1_000, 120), (5_000, 120), (usize::MAX, 120)];
        for (nodes, seconds) in table {
            assert_eq!(interval_for(nodes), Duration::from_secs(seconds), "{nodes}");
        }
    }

    #[test]
    fn what_is_no_longer_wanted_is_forgotten() {
        let begin = Instant::now();
        let mut throttle = StatusThrottle::default();
        throttle.note(write("1", true, 1), false, begin);
        throttle.due(vec![], begin + MIN_INTERVAL - Duration::from_secs(1));
        assert_eq!(throttle.0.len(), 1);
        throttle.due(vec![], begin + MIN_INTERVAL);
        assert!(throttle.0.is_empty());
    }
}

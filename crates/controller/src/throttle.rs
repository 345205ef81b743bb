//! Which of the statuses to be written are written now, and which later. Pure.
//!
//! Thousands of nodes report each minute; figures that change all the time are written now and then.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::status_write::StatusWrite;

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

/// What was written to each object, by its UID, and when.
#[derive(Debug, Default)]
pub struct Throttle(HashMap<String, Last>);

#[derive(Debug)]
struct Last {
    at: Instant,
    write: StatusWrite,
    has_failed: bool,
}

impl Throttle {
    /// Those that are due, and when the next of the others is.
    pub fn due(&mut self, writes: Vec<StatusWrite>, now: Instant) -> (Vec<StatusWrite>, Option<Instant>) {
        // What needs no writing any more need not be remembered once figures may follow.
        let wanted: HashSet<&str> = writes.iter().map(|write| write.object.uid.as_str()).collect();
        self.0.retain(|uid, last| {
            now.duration_since(last.at) < last.write.figures_wait || wanted.contains(uid.as_str())
        });
        let mut next = None;
        let due = writes.into_iter().filter(|write| {
            let Some(last) = self.0.get(&write.object.uid) else { return true };
            // Written already: the watch has not shown it yet, or the API found nothing to change.
            if !last.has_failed && last.write.is_same_as(write) {
                return false;
            }
            let wait = match (last.has_failed, write.is_urgent) {
                (true, _) => RETRY_DELAY,
                (false, false) => write.figures_wait,
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
        self.0.insert(write.object.uid.clone(), Last { at, write, has_failed });
    }
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_api::ClusterCheckpointPolicy;
    use kube::api::ApiResource;
    use serde_json::json;

    use super::super::status_write::ObjectId;
    use super::*;

    fn write(version: &str, is_urgent: bool, archives: i64) -> StatusWrite {
        StatusWrite {
            object: ObjectId {
                resource: ApiResource::erase::<ClusterCheckpointPolicy>(&()),
                namespace: None,
                name: "a".to_owned(),
                uid: "u".to_owned(),
            },
            resource_version: version.to_owned(),
            status: json!({"totals": {"archives": archives}, "conditions": [{
                "type": "Ready", "lastTransitionTime": format!("2026-01-01T00:00:{archives:02}Z"),
            }]}),
            is_urgent,
            figures_wait: MIN_INTERVAL,
            event: None,
            problem: "StatusUnwritten",
        }
    }

    fn changed_at(mut write: StatusWrite) -> StatusWrite {
        write.status["conditions"][0]["lastTransitionTime"] = json!("2026-01-01T00:01:00Z");
        write
    }

    #[test]
    fn news_goes_out_at_once_and_figures_now_and_then() {
        let begin = Instant::now();
        let later = |seconds| begin + Duration::from_secs(seconds);
        let table = [
            ("the same again", false, write("1", true, 1), 100, false, None),
            (
                "the same again, as of another moment",
                false,
                changed_at(write("1", true, 1)),
                100,
                false,
                None,
            ),
            ("figures, soon after", false, write("2", false, 2), 29, false, Some(30)),
            ("figures, later", false, write("2", false, 2), 30, true, None),
            ("news, soon after", false, write("2", true, 2), 1, true, None),
            ("the same after a failure, soon", true, write("1", true, 1), 29, false, Some(30)),
            ("the same after a failure, later", true, write("1", true, 1), 30, true, None),
            ("news after a failure, soon", true, write("2", true, 2), 1, false, Some(30)),
        ];
        for (what, has_failed, wanted, second, is_due, next) in table {
            let mut throttle = Throttle::default();
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
    fn figures_that_are_sent_to_many_wait_as_long_as_they_say() {
        let begin = Instant::now();
        let mut throttle = Throttle::default();
        let slow = |archives| StatusWrite { figures_wait: 4 * MIN_INTERVAL, ..write("2", false, archives) };
        throttle.note(slow(1), false, begin);
        let next = begin + 4 * MIN_INTERVAL;
        assert_eq!(throttle.due(vec![slow(2)], begin + MIN_INTERVAL), (vec![], Some(next)));
        assert_eq!(throttle.due(vec![slow(2)], next), (vec![slow(2)], None));
    }

    #[test]
    fn what_is_no_longer_wanted_is_forgotten() {
        let begin = Instant::now();
        let mut throttle = Throttle::default();
        throttle.note(write("1", true, 1), false, begin);
        throttle.due(vec![], begin + MIN_INTERVAL - Duration::from_secs(1));
        assert_eq!(throttle.0.len(), 1);
        throttle.due(vec![], begin + MIN_INTERVAL);
        assert!(throttle.0.is_empty());
    }
}

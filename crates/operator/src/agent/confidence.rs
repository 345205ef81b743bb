//! How certain it is that the policies last seen are those of the cluster. Pure.
//!
//! Each kind is watched by itself. So a kind whose watch has failed says nothing while another's news arrive, and
//! of two changes that somebody made one after the other, the second may be seen first. Where policies are not
//! certain, an archive goes only if those last confirmed together want it gone as well.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use checkpoint_keeper_core::policy::{Confidence, PolicySet};

/// How far apart the watches of two kinds may be while both are well.
pub(super) const APART: Duration = Duration::from_secs(2);

/// So many changes within [`APART`] are told apart.
const MOST: usize = 16;

/// What was seen while all kinds were confirmed.
#[derive(Debug)]
pub(super) struct Certainty {
    /// For how long policies may go unconfirmed until they pause.
    staleness: Duration,
    /// The sets that were seen, each since when, oldest first: those since the last one that is certain.
    seen: VecDeque<(Instant, Arc<PolicySet>)>,
    /// When all kinds were last confirmed together.
    confirmed: Option<Instant>,
    /// Whether they were when that was last looked at.
    was_confirmed: bool,
}

impl Certainty {
    pub(super) fn new(staleness: Duration) -> Self {
        Self { staleness, seen: VecDeque::new(), confirmed: None, was_confirmed: false }
    }

    /// How certain this newest set is. `is_confirmed`: all kinds are being watched at this moment.
    pub(super) fn judge(&mut self, newest: &Arc<PolicySet>, is_confirmed: bool, now: Instant) -> Confidence {
        let was_confirmed = std::mem::replace(&mut self.was_confirmed, is_confirmed);
        if is_confirmed {
            self.confirmed = Some(now);
            // What was seen just before a watch failed never became certain.
            if !was_confirmed {
                self.seen.truncate(1);
            }
            if self.seen.back().is_none_or(|(_, last)| last != newest) {
                // Earlier ones grow old and become certain one after the other, so the newest takes the last
                // one's place.
                self.seen.truncate(MOST - 1);
                self.seen.push_back((now, Arc::clone(newest)));
            }
            while self.seen.get(1).is_some_and(|(since, _)| now.saturating_duration_since(*since) >= APART) {
                self.seen.pop_front();
            }
        }
        let Some(((_, certain), confirmed)) = self.seen.front().zip(self.confirmed) else {
            // All were listed, and never confirmed together.
            return Confidence::Paused;
        };
        if is_confirmed && self.seen.len() == 1 {
            Confidence::Current
        } else if is_confirmed || now.saturating_duration_since(confirmed) < self.staleness {
            Confidence::Stale { confirmed: Arc::clone(certain) }
        } else {
            Confidence::Paused
        }
    }

    /// When the next set becomes certain if nothing changes; none: the newest is, or waiting does not help.
    pub(super) fn settles_at(&self) -> Option<Instant> {
        self.seen.get(1).filter(|_| self.was_confirmed).map(|(since, _)| *since + APART)
    }
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_core::policy::{InvalidPolicy, Kind, PolicyRef, Precedence};

    use super::*;

    /// A set that is told from others by its name.
    fn set(name: &str) -> Arc<PolicySet> {
        let id =
            PolicyRef { kind: Kind::CheckpointPolicy, namespace: None, name: name.to_owned(), part: None };
        let invalid = vec![InvalidPolicy { id, namespace: None, precedence: Precedence::Default }];
        Arc::new(PolicySet { invalid, ..PolicySet::default() })
    }

    const HOUR: Duration = Duration::from_hours(1);

    fn stale(name: &str) -> Confidence {
        Confidence::Stale { confirmed: set(name) }
    }

    #[test]
    fn what_is_seen_while_a_kind_fails_counts_beside_what_was_confirmed_before() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let mut certainty = Certainty::new(HOUR);
        assert_eq!(certainty.judge(&set("a"), true, at(0)), Confidence::Current);
        assert_eq!(certainty.judge(&set("a"), false, at(10)), stale("a"));
        assert_eq!(certainty.judge(&set("b"), false, at(20)), stale("a"));
        assert_eq!(certainty.judge(&set("c"), false, at(3_599)), stale("a"));
        assert_eq!(certainty.judge(&set("c"), false, at(3_600)), Confidence::Paused);
        // The watch is back: what was seen meanwhile is certain as soon as any other change would be.
        assert_eq!(certainty.judge(&set("c"), true, at(4_000)), stale("a"));
        assert_eq!(certainty.settles_at(), Some(at(4_002)));
        assert_eq!(certainty.judge(&set("c"), true, at(4_002)), Confidence::Current);
        assert_eq!(certainty.settles_at(), None);
    }

    #[test]
    fn two_kinds_news_may_come_in_the_wrong_order() {
        let begin = Instant::now();
        let at = |millisecond| begin + Duration::from_millis(millisecond);
        let mut certainty = Certainty::new(HOUR);
        certainty.judge(&set("old"), true, at(0));
        assert_eq!(certainty.judge(&set("gone"), true, at(10_000)), stale("old"));
        assert_eq!(certainty.judge(&set("gone and new"), true, at(11_900)), stale("old"));
        assert_eq!(certainty.judge(&set("gone and new"), true, at(12_000)), stale("gone"));
        assert_eq!(certainty.judge(&set("gone and new"), true, at(13_900)), Confidence::Current);
    }

    #[test]
    fn who_changes_policies_all_the_time_does_not_keep_old_ones_in_force() {
        let begin = Instant::now();
        let mut certainty = Certainty::new(HOUR);
        for number in 0..1_000_u64 {
            let now = begin + Duration::from_millis(number * 10);
            let confidence = certainty.judge(&set(&number.to_string()), true, now);
            assert!(certainty.seen.len() <= MOST, "{number}");
            let Confidence::Stale { confirmed } = confidence else { continue };
            let certain: u64 = confirmed.invalid[0].id.name.parse().unwrap();
            assert!(number - certain <= 2 * 200 + MOST as u64, "{number} {certain}");
        }
        let now = begin + Duration::from_secs(10) + APART;
        assert_eq!(certainty.judge(&set("999"), true, now), Confidence::Current);
    }

    #[test]
    fn what_was_seen_just_before_a_watch_failed_is_not_certain_when_it_is_back() {
        let begin = Instant::now();
        let at = |millisecond| begin + Duration::from_millis(millisecond);
        let mut certainty = Certainty::new(HOUR);
        certainty.judge(&set("a"), true, at(0));
        certainty.judge(&set("b"), true, at(10_000));
        assert_eq!(certainty.judge(&set("b"), false, at(10_500)), stale("a"));
        assert_eq!(certainty.settles_at(), None, "waiting does not help");
        assert_eq!(certainty.judge(&set("c"), true, at(60_000)), stale("a"));
        assert_eq!(certainty.judge(&set("c"), true, at(62_000)), Confidence::Current);
    }

    #[test]
    fn nothing_is_enforced_that_was_never_confirmed() {
        let mut certainty = Certainty::new(HOUR);
        assert_eq!(certainty.judge(&set("a"), false, Instant::now()), Confidence::Paused);
    }
}

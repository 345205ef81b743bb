//! How certain it is that the policies last seen are those of the cluster. Pure.
//!
//! Each kind of policy has its own watch. So one watch may have failed while others still deliver changes, and of
//! two changes to different kinds, the later one may arrive first. While the policies are uncertain, an archive is
//! deleted only if the last certain set of policies would delete it, too. Times are from a monotonic clock.

use std::sync::Arc;
use std::time::Duration;

use crate::policy::{Confidence, PolicySet};

/// Largest difference in delay between the watches of two kinds while both work. A set of policies that did not
/// change for so long existed in the cluster at one moment.
pub const APART: Duration = Duration::from_secs(2);

/// Longest time for which a series of changes, each within [`APART`] of the one before, keeps an earlier set in
/// force. Without this limit, a user who may write one policy could block all changes by changing it constantly.
pub const UNREST: Duration = Duration::from_mins(1);

/// The sets of policies that were seen while the watches of all kinds worked.
#[derive(Debug)]
pub struct Certainty {
    /// How long a watch may fail until retention policies delete nothing any more.
    staleness: Duration,
    /// The last certain set.
    certain: Option<Arc<PolicySet>>,
    /// A newer set that is not certain yet; none: there is none.
    uncertain: Option<Uncertain>,
    /// When all watches last worked at the same time.
    confirmed: Option<Duration>,
    /// Whether they all worked at the last call.
    was_confirmed: bool,
}

/// A set that may never have existed in the cluster: one kind may be newer than another.
#[derive(Debug)]
struct Uncertain {
    newest: Arc<PolicySet>,
    since: Duration,
    /// Since when the policies have been changing without a pause of [`APART`].
    unrest: Duration,
}

impl Uncertain {
    /// When it becomes certain if nothing changes.
    fn settles_at(&self) -> Duration {
        (self.since + APART).min(self.unrest + UNREST)
    }
}

impl Certainty {
    /// No policies were seen yet. Retention policies pause once a watch has failed for `staleness`.
    pub fn new(staleness: Duration) -> Self {
        Self { staleness, certain: None, uncertain: None, confirmed: None, was_confirmed: false }
    }

    /// How certain the newest set is. `is_confirmed`: the watches of all kinds work at this moment.
    pub fn judge(&mut self, newest: &Arc<PolicySet>, is_confirmed: bool, now: Duration) -> Confidence {
        let was_confirmed = std::mem::replace(&mut self.was_confirmed, is_confirmed);
        if is_confirmed {
            self.confirmed = Some(now);
            let before = self.uncertain.take();
            if was_confirmed && before.is_none() && self.certain.as_ref() == Some(newest) {
                return Confidence::Current;
            }
            // A set that was seen just before a watch failed did not become certain. After the failure the waiting
            // time starts again, even for an unchanged set: in between it may have been different.
            self.see(newest, before.filter(|_| was_confirmed), now);
        }
        let Some((certain, confirmed)) = self.certain.as_ref().zip(self.confirmed) else {
            // All kinds were listed, but their watches never worked at the same time.
            return Confidence::Paused;
        };
        if is_confirmed && self.uncertain.is_none() {
            Confidence::Current
        } else if is_confirmed || now.saturating_sub(confirmed) < self.staleness {
            Confidence::Stale { confirmed: Arc::clone(certain) }
        } else {
            Confidence::Paused
        }
    }

    /// Notes a set while all watches work; `before` is the set of the last call, if that was not certain.
    fn see(&mut self, newest: &Arc<PolicySet>, before: Option<Uncertain>, now: Duration) {
        let begun = |unrest| Uncertain { newest: Arc::clone(newest), since: now, unrest };
        let seen = match (&self.certain, before) {
            (Some(_), None) => begun(now),
            (Some(_), Some(before)) if before.newest == *newest => before,
            (Some(_), Some(before)) => begun(before.unrest),
            (None, _) => {
                self.certain = Some(Arc::clone(newest));
                return;
            }
        };
        if now >= seen.settles_at() {
            self.certain = Some(seen.newest);
        } else {
            self.uncertain = Some(seen);
        }
    }

    /// When the newest set becomes certain if nothing changes; none: it is certain, or a watch has to recover first.
    pub fn settles_at(&self) -> Option<Duration> {
        self.uncertain.as_ref().filter(|_| self.was_confirmed).map(Uncertain::settles_at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use crate::policy::{InvalidPolicy, Kind, PolicyRef, Precedence};
    use proptest::prelude::*;

    use super::*;

    /// A set of policies that differs from others only in this name.
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
        let at = Duration::from_secs;
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
        let at = Duration::from_millis;
        let mut certainty = Certainty::new(HOUR);
        certainty.judge(&set("old"), true, at(0));
        assert_eq!(certainty.judge(&set("gone"), true, at(10_000)), stale("old"));
        assert_eq!(certainty.judge(&set("gone and new"), true, at(11_900)), stale("old"));
        assert_eq!(certainty.judge(&set("gone and new"), true, at(12_000)), stale("old"), "it did not stand");
        assert_eq!(certainty.settles_at(), Some(at(13_900)));
        assert_eq!(certainty.judge(&set("gone and new"), true, at(13_900)), Confidence::Current);
        // Also what was there before may be a mixture by now.
        assert_eq!(certainty.judge(&set("gone"), true, at(20_000)), stale("gone and new"));
        assert_eq!(certainty.judge(&set("gone and new"), true, at(21_000)), stale("gone and new"));
        assert_eq!(certainty.judge(&set("gone and new"), true, at(23_000)), Confidence::Current);
    }

    #[test]
    fn who_changes_policies_all_the_time_does_not_keep_old_ones_in_force_for_long() {
        let at = Duration::from_secs;
        let mut certainty = Certainty::new(HOUR);
        for second in 0..1_000 {
            let confidence = certainty.judge(&set(&second.to_string()), true, at(second));
            let Confidence::Stale { confirmed } = confidence else { continue };
            let certain: u64 = confirmed.invalid[0].id.name.parse().unwrap();
            assert!(second - certain <= UNREST.as_secs(), "{second} {certain}");
        }
        assert_eq!(certainty.judge(&set("999"), true, at(999) + APART), Confidence::Current);
    }

    #[test]
    fn what_was_seen_just_before_a_watch_failed_is_not_certain_when_it_is_back() {
        let at = Duration::from_millis;
        let mut certainty = Certainty::new(HOUR);
        certainty.judge(&set("a"), true, at(0));
        certainty.judge(&set("b"), true, at(10_000));
        assert_eq!(certainty.judge(&set("b"), false, at(10_500)), stale("a"));
        assert_eq!(certainty.settles_at(), None, "waiting does not help");
        assert_eq!(certainty.judge(&set("b"), true, at(50_000)), stale("a"), "it was not seen to stand");
        assert_eq!(certainty.judge(&set("c"), true, at(60_000)), stale("a"));
        assert_eq!(certainty.judge(&set("c"), true, at(62_000)), Confidence::Current);
    }

    /// The policies may have been changed and changed back while the watch failed.
    #[test]
    fn what_is_the_same_when_a_watch_is_back_has_to_stand_all_the_same() {
        let at = Duration::from_secs;
        let mut certainty = Certainty::new(HOUR);
        certainty.judge(&set("a"), true, at(0));
        assert_eq!(certainty.judge(&set("a"), false, at(10)), stale("a"));
        assert_eq!(certainty.judge(&set("a"), true, at(20)), stale("a"));
        assert_eq!(certainty.settles_at(), Some(at(22)));
        assert_eq!(certainty.judge(&set("b"), true, at(21)), stale("a"));
        assert_eq!(certainty.judge(&set("b"), true, at(23)), Confidence::Current);
    }

    #[test]
    fn nothing_is_enforced_that_was_never_confirmed() {
        let mut certainty = Certainty::new(HOUR);
        assert_eq!(certainty.judge(&set("a"), false, Duration::ZERO), Confidence::Paused);
    }

    /// What can happen to two kinds of policies and their watches.
    #[derive(Debug, Clone)]
    enum Step {
        /// A user writes a policy of this kind, as this variant.
        Write(usize, usize),
        /// The watch of this kind delivers the next change.
        Tell(usize),
        /// The watch of this kind fails.
        Ends(usize),
        /// The watch of this kind works again.
        Returns(usize),
        /// So many tenths of a second pass.
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..2_usize, 0..3_usize).prop_map(|(kind, variant)| Step::Write(kind, variant)),
            4 => (0..2_usize).prop_map(Step::Tell),
            1 => (0..2_usize).prop_map(Step::Ends),
            1 => (0..2_usize).prop_map(Step::Returns),
            4 => (1..25_u64).prop_map(Step::Wait),
        ]
    }

    /// The watch of one kind.
    #[derive(Default)]
    struct Watch {
        shown: usize,
        untold: VecDeque<(u64, usize)>,
        is_broken: bool,
    }

    /// A cluster whose policies change, and its two watches, each late by less than [`APART`]. Times are in tenths
    /// of a second.
    struct Cluster {
        now: u64,
        /// The variants of both kinds in the cluster, each with the time of the change.
        truth: Vec<(u64, [usize; 2])>,
        watches: [Watch; 2],
        certainty: Certainty,
        /// When the policies were last certain.
        was_certain: u64,
    }

    const LATE: u64 = 19;

    impl Cluster {
        fn new() -> Self {
            let certainty = Certainty::new(HOUR);
            let watches = Default::default();
            Self { now: 100, truth: vec![(0, [0, 0])], watches, certainty, was_certain: 100 }
        }

        fn do_one(&mut self, step: &Step) {
            match *step {
                Step::Write(kind, variant) => {
                    let mut next = self.truth[self.truth.len() - 1].1;
                    next[kind] = variant;
                    self.truth.push((self.now, next));
                    self.watches[kind].untold.push_back((self.now, variant));
                }
                Step::Tell(kind) if !self.watches[kind].is_broken => self.tell(kind, self.now),
                Step::Ends(kind) => {
                    self.watches[kind].is_broken = true;
                    self.judge();
                }
                // It lists everything anew.
                Step::Returns(kind) if self.watches[kind].is_broken => {
                    self.watches[kind].is_broken = false;
                    while !self.watches[kind].untold.is_empty() {
                        self.tell(kind, self.now);
                    }
                }
                Step::Wait(tenths) => {
                    for _ in 0..tenths {
                        self.now += 1;
                        let late = self.now - LATE;
                        for kind in [0, 1]
                            .into_iter()
                            .filter(|kind| !self.watches[*kind].is_broken)
                            .collect::<Vec<_>>()
                        {
                            while self.watches[kind].untold.front().is_some_and(|(at, _)| *at <= late) {
                                self.tell(kind, late);
                            }
                        }
                        self.judge();
                    }
                }
                Step::Tell(_) | Step::Returns(_) => {}
            }
        }

        /// Delivers the next change if it is at least as old as `age`.
        fn tell(&mut self, kind: usize, age: u64) {
            let watch = &mut self.watches[kind];
            if let Some((_, variant)) = watch.untold.pop_front_if(|(at, _)| *at <= age) {
                watch.shown = variant;
            }
        }

        /// The sets of policies that must all want an archive gone for it to be deleted; empty: nothing is deleted.
        fn judge(&mut self) -> Vec<[usize; 2]> {
            let shown = [self.watches[0].shown, self.watches[1].shown];
            let is_confirmed = !self.watches[0].is_broken && !self.watches[1].is_broken;
            let now = Duration::from_millis(self.now * 100);
            match self.certainty.judge(&set(&format!("{}{}", shown[0], shown[1])), is_confirmed, now) {
                Confidence::Current => {
                    self.was_certain = self.now;
                    vec![shown]
                }
                Confidence::Stale { confirmed } => {
                    let name = confirmed.invalid[0].id.name.as_bytes();
                    vec![shown, [usize::from(name[0] - b'0'), usize::from(name[1] - b'0')]]
                }
                Confidence::Paused => Vec::new(),
            }
        }

        /// All variants that existed in the cluster since the policies were last certain.
        fn were_in_force(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
            let since = self.was_certain - LATE - 1;
            let ends = self.truth.iter().skip(1).map(|(at, _)| *at).chain([u64::MAX]);
            self.truth.iter().zip(ends).filter(move |(_, end)| *end >= since).map(|((_, set), _)| *set)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 5_000, ..ProptestConfig::default() })]

        /// `wants`: for each combination of variants, whether it would delete the archive. If none that existed
        /// since the policies were last certain would, the archive stays. The steps take less time than [`UNREST`].
        #[test]
        fn what_was_protected_throughout_stays_however_watches_lag_and_fail(
            steps in proptest::collection::vec(step(), 1..40), wants in proptest::bits::u16::between(0, 9),
        ) {
            let wants = |set: [usize; 2]| wants >> (set[0] * 3 + set[1]) & 1 == 1;
            let mut cluster = Cluster::new();
            cluster.judge();
            for step in &steps {
                cluster.do_one(step);
                let by = cluster.judge();
                let goes = !by.is_empty() && by.iter().all(|set| wants(*set));
                let mut were = cluster.were_in_force();
                prop_assert!(!goes || were.any(wants), "by {by:?}, in force {:?}", cluster.truth);
            }
        }
    }
}

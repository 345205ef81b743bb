//! How certain it is that the policies last seen are those of the cluster. Pure.
//!
//! Each kind is watched by itself. So a kind whose watch has failed says nothing while another's news arrive, and
//! of two changes that somebody made one after the other, the second may be seen first. Where policies are not
//! certain, an archive goes only if those last confirmed together want it gone as well. Time is that of a
//! monotonic clock.

use std::sync::Arc;
use std::time::Duration;

use crate::policy::{Confidence, PolicySet};

/// How far apart the watches of two kinds may be while both are well. A set that stood for so long was once in
/// force: each of its kinds was seen as it was then.
pub const APART: Duration = Duration::from_secs(2);

/// For how long changes that follow each other within [`APART`] keep an earlier set in force. Longer, and whoever
/// may write one policy could keep everybody's from acting.
pub const UNREST: Duration = Duration::from_mins(1);

/// What was seen while all kinds were confirmed.
#[derive(Debug)]
pub struct Certainty {
    /// For how long policies may go unconfirmed until they pause.
    staleness: Duration,
    /// The last set that is certain.
    certain: Option<Arc<PolicySet>>,
    /// What was seen since, while all kinds were confirmed; none: nothing else.
    uncertain: Option<Uncertain>,
    /// When all kinds were last confirmed together.
    confirmed: Option<Duration>,
    /// Whether they were when that was last looked at.
    was_confirmed: bool,
}

/// A set that may be a mixture of what was never in force together.
#[derive(Debug)]
struct Uncertain {
    newest: Arc<PolicySet>,
    since: Duration,
    /// Since when no set stood for long enough.
    unrest: Duration,
}

impl Uncertain {
    /// When it becomes certain if nothing changes.
    fn settles_at(&self) -> Duration {
        (self.since + APART).min(self.unrest + UNREST)
    }
}

impl Certainty {
    /// Nothing was seen yet; policies that could not be confirmed for `staleness` pause.
    pub fn new(staleness: Duration) -> Self {
        Self { staleness, certain: None, uncertain: None, confirmed: None, was_confirmed: false }
    }

    /// How certain this newest set is. `is_confirmed`: all kinds are being watched at this moment.
    pub fn judge(&mut self, newest: &Arc<PolicySet>, is_confirmed: bool, now: Duration) -> Confidence {
        let was_confirmed = std::mem::replace(&mut self.was_confirmed, is_confirmed);
        if is_confirmed {
            self.confirmed = Some(now);
            let before = self.uncertain.take();
            if was_confirmed && before.is_none() && self.certain.as_ref() == Some(newest) {
                return Confidence::Current;
            }
            // What was seen just before a watch failed never became certain; and what is seen when it is back has
            // to stand anew, though it be the same as before: meanwhile it may have been another.
            self.see(newest, before.filter(|_| was_confirmed), now);
        }
        let Some((certain, confirmed)) = self.certain.as_ref().zip(self.confirmed) else {
            // All were listed, and never confirmed together.
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

    /// Sees a set while all kinds are confirmed; `before` was the last one that was seen, if that was not certain.
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

    /// When the newest set becomes certain if nothing changes; none: it is, or waiting does not help.
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

    /// Somebody changed it, and changed it back: what protected meanwhile may have moved to the other kind.
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
        /// Somebody writes one of its policies.
        Write(usize, usize),
        /// Its watch tells what is next.
        Tell(usize),
        Ends(usize),
        Returns(usize),
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

    /// One kind, as its watch tells of it.
    #[derive(Default)]
    struct Watch {
        shown: usize,
        untold: VecDeque<(u64, usize)>,
        is_broken: bool,
    }

    /// A cluster whose policies change, and what its two watches, each late by less than [`APART`], tell. Time is
    /// in tenths of a second.
    struct Cluster {
        now: u64,
        /// What was in force, each since when.
        truth: Vec<(u64, [usize; 2])>,
        watches: [Watch; 2],
        certainty: Certainty,
        /// When all was last certain.
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

        /// Tells of the next change that is as old.
        fn tell(&mut self, kind: usize, age: u64) {
            let watch = &mut self.watches[kind];
            if let Some((_, variant)) = watch.untold.pop_front_if(|(at, _)| *at <= age) {
                watch.shown = variant;
            }
        }

        /// What goes by what is seen: a set, and one that has to want it gone as well.
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

        /// What was in force at some time since all was last certain, and what that was then.
        fn were_in_force(&self) -> impl Iterator<Item = [usize; 2]> + '_ {
            let since = self.was_certain - LATE - 1;
            let ends = self.truth.iter().skip(1).map(|(at, _)| *at).chain([u64::MAX]);
            self.truth.iter().zip(ends).filter(move |(_, end)| *end >= since).map(|((_, set), _)| *set)
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 5_000, ..ProptestConfig::default() })]

        /// Whatever an archive is to each set of policies: one that none of those wants gone which were in force
        /// since all was last certain, stays. Shorter than [`UNREST`].
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

//! When each lookup is repeated, and how many are sent in a round: nodes are many, and one API server answers
//! them all.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::lookup::Lookup;

/// Most lookups in one round, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestBudget {
    /// Lookups of objects of which nothing is known yet.
    pub new: usize,
    /// Lookups of objects that are likely to have changed, or that a deletion waits for.
    pub again: usize,
    /// Lookups of all other objects, each in its turn, as one may have been deleted unnoticed.
    pub idle: usize,
}

impl RequestBudget {
    /// No limit: each round sends all lookups.
    pub const EVERYTHING: Self = Self { new: usize::MAX, again: usize::MAX, idle: usize::MAX };
}

/// Longest back-off between lookups of one object, in rounds.
const LONGEST_BACKOFF: u64 = 8;

/// Which lookups were sent, and when.
#[derive(Debug)]
pub(super) struct Asked {
    round: u64,
    /// How many were sent in this round.
    count: Count,
    lookups: HashMap<Lookup, Times>,
    /// Those that deletions wait for.
    awaited: BTreeSet<Lookup>,
}

impl Default for Asked {
    fn default() -> Self {
        // 0 is before all rounds.
        Self { round: 1, count: Count::default(), lookups: HashMap::new(), awaited: BTreeSet::new() }
    }
}

#[derive(Debug, Default)]
struct Count {
    new: usize,
    again: usize,
    idle: usize,
}

/// When a lookup was last sent, and when it is due.
#[derive(Debug, Default, Clone, Copy)]
struct Times {
    /// The round in which it was last sent, or its result became known without it; 0: none.
    last: u64,
    /// The round from which on it goes before those that wait for their turn.
    due: Option<u64>,
    /// Rounds between the next lookup and the one after it; 0: that one waits for its turn.
    recheck_after: u64,
    /// Back-off after the last failure, in rounds; 0: the last lookup did not fail.
    backoff: u64,
}

impl Asked {
    pub(super) fn begin_round(&mut self) {
        self.round += 1;
        self.count = Count::default();
    }

    /// Whether it was never sent.
    pub(super) fn is_new(&self, lookup: &Lookup) -> bool {
        self.last(lookup) == 0
    }

    fn last(&self, lookup: &Lookup) -> u64 {
        self.lookups.get(lookup).map_or(0, |times| times.last)
    }

    /// Whether it may still be sent in this round.
    pub(super) fn is_open(&self, lookup: &Lookup) -> bool {
        self.lookups.get(lookup).is_none_or(|times| times.last < self.round || times.is_due(self.round))
    }

    /// Chooses the lookups to send now from those that are `needed`, each with whether anything waits for it. Those
    /// that were sent longest ago come first.
    pub(super) fn ask(&mut self, needed: BTreeMap<Lookup, bool>, budget: RequestBudget) -> Vec<Lookup> {
        let (mut new, mut again, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        let mut chosen = Vec::new();
        for (lookup, is_awaited) in needed {
            if !self.is_open(&lookup) {
                continue;
            }
            if lookup == Lookup::Cluster {
                // It is outside the budget, as nothing counts as gone before it is answered, and one answer is
                // enough.
                let backs_off = self.lookups.get(&lookup).is_some_and(|times| times.backs_off(self.round));
                chosen.extend((!backs_off).then_some(lookup));
                continue;
            }
            match self.lookups.get(&lookup) {
                _ if is_awaited && self.is_new(&lookup) => new.push(lookup),
                // One list of all pods of the node, in each round.
                _ if lookup == Lookup::NodePods => new.push(lookup),
                None => again.push(lookup),
                Some(times) if times.is_due(self.round) => again.push(lookup),
                Some(times) if self.awaited.contains(&lookup) && times.backoff == 0 => again.push(lookup),
                Some(_) => idle.push(lookup),
            }
        }
        for lookups in [&mut new, &mut again, &mut idle] {
            lookups.sort_by_key(|lookup| self.last(lookup));
        }
        for (mut lookups, most, count) in [
            (new, budget.new, &mut self.count.new),
            (again, budget.again, &mut self.count.again),
            (idle, budget.idle, &mut self.count.idle),
        ] {
            lookups.truncate(most.saturating_sub(*count));
            *count += lookups.len();
            chosen.append(&mut lookups);
        }
        for lookup in &chosen {
            self.note_sent(lookup.clone());
        }
        chosen
    }

    fn note_sent(&mut self, lookup: Lookup) {
        let round = self.round;
        let times = self.lookups.entry(lookup).or_default();
        let recheck_after = times.recheck_after;
        *times = Times { last: round, backoff: times.backoff, ..Times::default() };
        if (1..=LONGEST_BACKOFF).contains(&recheck_after) {
            (times.due, times.recheck_after) = (Some(round + recheck_after), recheck_after * 2);
        }
    }

    /// Notes that the result became known without the lookup.
    pub(super) fn was_answered(&mut self, lookup: Lookup) {
        let last = self.round;
        self.lookups.insert(lookup, Times { last, ..Times::default() });
    }

    /// Notes that the lookup was answered.
    pub(super) fn succeeded(&mut self, lookup: &Lookup) {
        if let Some(times) = self.lookups.get_mut(lookup) {
            times.backoff = 0;
        }
    }

    /// Notes that the lookup failed: it is due again after a back-off, which doubles with each failure.
    pub(super) fn failed(&mut self, lookup: &Lookup) {
        let round = self.round;
        let times = self.lookups.entry(lookup.clone()).or_default();
        times.backoff = (times.backoff * 2).clamp(1, LONGEST_BACKOFF);
        (times.last, times.due) = (round, Some(round + times.backoff));
    }

    /// Notes that the lookup was not sent after all, or its result cannot be used: it is due in the next round.
    pub(super) fn was_not_asked(&mut self, lookup: &Lookup) {
        let round = self.round;
        let times = self.lookups.entry(lookup.clone()).or_default();
        (times.last, times.due) = (round, Some(round + 1));
    }

    /// Makes the lookup due at once, as its object may have been deleted a moment ago or be about to. It is then
    /// repeated at growing intervals.
    pub(super) fn enqueue_now(&mut self, lookup: &Lookup) {
        let round = self.round;
        let times = self.lookups.entry(lookup.clone()).or_default();
        (times.due, times.recheck_after, times.backoff) = (Some(round), 1, 0);
    }

    /// Sets the lookups that deletions wait for; no deletion waits for any other.
    pub(super) fn set_awaited(&mut self, lookups: BTreeSet<Lookup>) {
        self.awaited = lookups;
    }

    /// Forgets the lookup, as if it had never been sent.
    pub(super) fn forget(&mut self, lookup: &Lookup) {
        self.lookups.remove(lookup);
    }

    pub(super) fn retain(&mut self, is_needed: impl Fn(&Lookup) -> bool) {
        self.lookups.retain(|lookup, _| is_needed(lookup));
    }
}

impl Times {
    /// Whether it failed, and its back-off is not over.
    fn backs_off(&self, round: u64) -> bool {
        self.due.is_some_and(|due| due > round)
    }

    fn is_due(&self, round: u64) -> bool {
        self.due.is_some_and(|due| due <= round)
    }
}

//! When each lookup is repeated, and how many are sent in a round: nodes are many, and one API server answers
//! them all.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::lookup::Lookup;

/// Most lookups in one round, by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestBudget {
    /// About what nothing is known of yet.
    pub new: usize,
    /// About what is likely to have changed, or what a deletion waits for.
    pub again: usize,
    /// About all the rest, of which each has its turn: it may have gone unnoticed.
    pub idle: usize,
}

impl RequestBudget {
    /// Everything is asked in each round.
    pub const EVERYTHING: Self = Self { new: usize::MAX, again: usize::MAX, idle: usize::MAX };
}

/// Longest back-off between re-checks of what may be about to be gone, in rounds.
const LONGEST_BACKOFF: u64 = 8;

/// What was asked, and when.
#[derive(Debug)]
pub(super) struct Asked {
    round: u64,
    /// How many were asked in this round.
    count: Count,
    lookups: HashMap<Lookup, Times>,
    /// What deletions wait for.
    wanted: BTreeSet<Lookup>,
}

impl Default for Asked {
    fn default() -> Self {
        // 0 is before all rounds.
        Self { round: 1, count: Count::default(), lookups: HashMap::new(), wanted: BTreeSet::new() }
    }
}

#[derive(Debug, Default)]
struct Count {
    new: usize,
    again: usize,
    idle: usize,
}

/// When a lookup was asked, and when it is to be.
#[derive(Debug, Default, Clone, Copy)]
struct Times {
    /// The round in which it was last asked, or answered unasked; 0: none.
    last: u64,
    /// The round from which on it does not wait for its turn.
    urgent: Option<u64>,
    /// How many rounds after that it is to be asked once more; 0: when its turn comes.
    rest: u64,
    /// Back-off after the next failure, in rounds.
    patience: u64,
}

impl Asked {
    pub(super) fn begin_round(&mut self) {
        self.round += 1;
        self.count = Count::default();
    }

    /// Whether it was never asked.
    pub(super) fn is_new(&self, lookup: &Lookup) -> bool {
        self.last(lookup) == 0
    }

    fn last(&self, lookup: &Lookup) -> u64 {
        self.lookups.get(lookup).map_or(0, |times| times.last)
    }

    /// Whether it is to be asked in this round.
    pub(super) fn is_open(&self, lookup: &Lookup) -> bool {
        self.lookups.get(lookup).is_none_or(|times| times.last < self.round || times.is_urgent(self.round))
    }

    /// Chooses from what is needed, each with whether anything waits for it, what is asked now: what was
    /// asked longest ago first.
    pub(super) fn ask(&mut self, needed: BTreeMap<Lookup, bool>, budget: RequestBudget) -> Vec<Lookup> {
        let (mut new, mut again, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        let mut chosen = Vec::new();
        for (lookup, is_awaited) in needed {
            if !self.is_open(&lookup) {
                continue;
            }
            if lookup == Lookup::Cluster {
                // Nothing counts as gone before it is answered, and it is answered but once.
                let waits = self.lookups.get(&lookup).is_some_and(|times| times.waits(self.round));
                chosen.extend((!waits).then_some(lookup));
                continue;
            }
            match self.lookups.get(&lookup) {
                _ if is_awaited && self.is_new(&lookup) => new.push(lookup),
                // One list for all that run here, in each round.
                _ if lookup == Lookup::NodePods => new.push(lookup),
                None => again.push(lookup),
                Some(times) if times.is_urgent(self.round) => again.push(lookup),
                Some(times) if self.wanted.contains(&lookup) && times.patience == 0 => again.push(lookup),
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
            self.was_asked(lookup.clone());
        }
        chosen
    }

    fn was_asked(&mut self, lookup: Lookup) {
        let round = self.round;
        let times = self.lookups.entry(lookup).or_default();
        let rest = times.rest;
        *times = Times { last: round, patience: times.patience, ..Times::default() };
        if (1..=LONGEST_BACKOFF).contains(&rest) {
            (times.urgent, times.rest) = (Some(round + rest), rest * 2);
        }
    }

    /// It was answered without being asked.
    pub(super) fn was_answered(&mut self, lookup: Lookup) {
        let last = self.round;
        self.lookups.insert(lookup, Times { last, ..Times::default() });
    }

    /// There was an answer.
    pub(super) fn succeeded(&mut self, lookup: &Lookup) {
        if let Some(times) = self.lookups.get_mut(lookup) {
            times.patience = 0;
        }
    }

    /// There was no answer: in the next round it is asked again, and more and more rarely if it fails again.
    pub(super) fn failed(&mut self, lookup: &Lookup) {
        let round = self.round;
        let times = self.lookups.entry(lookup.clone()).or_default();
        times.patience = (times.patience * 2).clamp(1, LONGEST_BACKOFF);
        (times.last, times.urgent) = (round, Some(round + times.patience));
    }

    /// It was not asked: in the next round it is.
    pub(super) fn was_not_asked(&mut self, lookup: &Lookup) {
        let round = self.round;
        let times = self.lookups.entry(lookup.clone()).or_default();
        (times.last, times.urgent) = (round, Some(round + 1));
    }

    /// It may have gone a moment ago, or be about to: it is asked at once, and then again and again, more
    /// and more rarely.
    pub(super) fn hasten(&mut self, lookup: &Lookup) {
        let round = self.round;
        let times = self.lookups.entry(lookup.clone()).or_default();
        (times.urgent, times.rest, times.patience) = (Some(round), 1, 0);
    }

    /// Deletions wait for these, and for no others.
    pub(super) fn want(&mut self, lookups: BTreeSet<Lookup>) {
        self.wanted = lookups;
    }

    /// As if it had never been asked.
    pub(super) fn forget(&mut self, lookup: &Lookup) {
        self.lookups.remove(lookup);
    }

    pub(super) fn retain(&mut self, is_needed: impl Fn(&Lookup) -> bool) {
        self.lookups.retain(|lookup, _| is_needed(lookup));
    }
}

impl Times {
    /// Whether it failed, and it is not yet time to ask again.
    fn waits(&self, round: u64) -> bool {
        self.urgent.is_some_and(|urgent| urgent > round)
    }

    fn is_urgent(&self, round: u64) -> bool {
        self.urgent.is_some_and(|urgent| urgent <= round)
    }
}

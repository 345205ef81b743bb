//! What becomes of the archives that schedules had made: the older ones go once newer ones are there, and so does what
//! a failed dump left.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::governing::Governing;
use super::judgement::{Because, Outcome};
use super::limits::{Limit, Measure};
use super::planner::{By, Planner, Scope, age};
use super::verdict::{Detail, Reason};
use crate::archive::State;
use crate::policy::{Precedence, ScheduleRetention};

impl Planner<'_> {
    /// Takes what a dump left that failed for certain: it was made by us, and is of no use. No policy is needed; where
    /// one goes before all others, or may, its own rule for incomplete archives decides.
    pub(super) fn take_failed_dumps(&mut self) {
        for place in 0..self.archives.len() {
            if self.archives[place].is_of_failed_dump
                && self.reason(place).is_none()
                && !self.may_be_overridden(place)
            {
                self.take(place, Reason::FailedDump, By::NO_POLICY, Detail::None);
            }
        }
    }

    /// Whether a policy that goes before those of namespaces governs an archive, or may do so.
    fn may_be_overridden(&self, place: usize) -> bool {
        if !self.archives[place].has_identity {
            // No selector can tell.
            return self.policy_index.may_override();
        }
        match self.groups.of(place).governing {
            Governing::Policy(policy) | Governing::Uncertain(policy, _) => {
                self.policy_index.is_overriding(policy)
            }
            Governing::Invalid(policy) => {
                policy.namespace.is_none() && policy.precedence == Precedence::Override
            }
            // From whichever policy.
            Governing::Handover(_) => true,
            Governing::Nothing => false,
        }
    }

    /// Takes archives that every schedule that had them made has let go. The newest of each lineage stay, and what is
    /// younger than the `minAge` of the policy that governs it; and all that a policy governs which is not understood,
    /// or which goes before those of namespaces: a schedule is a namespace's own as well.
    pub(super) fn take_replaced(&mut self, schedules: &[ScheduleRetention]) {
        for (place, by, detail) in self.replaced(schedules) {
            let reason = Reason::ScheduleRetention;
            let min_age = match self.schedules_may_take(place) {
                MayTake::From(min_age) => min_age,
                MayTake::Overridden => {
                    self.watch_outcome(place, by, Outcome::DoesNotApply(Because::Overridden));
                    continue;
                }
                MayTake::Uncertain => continue,
            };
            let limit = Limit {
                measure: Measure::Count,
                most: 0,
                keep_newest: 0,
                min_age,
                scope: Scope::Retention,
                reason,
                by,
            };
            if self.floor[place] {
                self.keep_as_newest(place, reason, by);
            } else if self.is_too_young(place, &limit) {
            } else if matches!(detail, Detail::Age { .. }) {
                self.take_by_time(place, reason, by, detail);
            } else {
                self.take(place, reason, by, detail);
            }
        }
    }

    /// Whether schedules may let an archive go, as far as the policy is concerned that governs it.
    pub(super) fn schedules_may_take(&self, place: usize) -> MayTake {
        match self.groups.of(place).governing {
            Governing::Nothing => MayTake::From(Duration::ZERO),
            Governing::Policy(policy) if self.policy_index.is_overriding(policy) => MayTake::Overridden,
            Governing::Policy(policy) => {
                MayTake::From(self.policy_index.ranked()[policy].retention.min_age.unwrap_or_default())
            }
            Governing::Uncertain(..) | Governing::Invalid(_) | Governing::Handover(_) => MayTake::Uncertain,
        }
    }

    /// The archives that may be taken and that no schedule keeps of those that had them made, oldest first.
    fn replaced(&mut self, schedules: &[ScheduleRetention]) -> Vec<(usize, By, Detail)> {
        if schedules.is_empty() {
            return Vec::new();
        }
        let Made { groups, makers } = self.made_by(schedules);
        let mut let_go: BTreeMap<usize, Vec<(usize, Detail)>> = BTreeMap::new();
        for (schedule, places) in groups {
            let ScheduleRetention { keep_latest, max_age, .. } = &schedules[schedule];
            let keep = usize::try_from(*keep_latest).unwrap_or(usize::MAX);
            for &place in places.iter().rev().skip(keep) {
                let taken = self.archives[place].taken;
                let detail = match *max_age {
                    Some(limit) if !self.is_due(taken, limit) => continue,
                    Some(limit) => Detail::Age { age: age(taken, self.now), limit },
                    None => Detail::Count { have: places.len() as u64, limit: u64::from(*keep_latest) },
                };
                let_go.entry(place).or_default().push((schedule, detail));
            }
        }
        let mut replaced = Vec::new();
        for (place, by) in let_go {
            let is_let_go_by_all = makers.get(&place) == Some(&by.len());
            if let Some(&(schedule, detail)) = by.first().filter(|_| is_let_go_by_all && self.may_take(place))
            {
                replaced.push((place, self.by(&schedules[schedule].id), detail));
            }
        }
        replaced
    }
    /// The archives that schedules had made and that count.
    pub(super) fn made_by(&self, schedules: &[ScheduleRetention]) -> Made {
        let by_uid: HashMap<&str, usize> =
            schedules.iter().enumerate().map(|(at, schedule)| (schedule.uid.as_str(), at)).collect();
        let mut groups: BTreeMap<_, Vec<usize>> = BTreeMap::new();
        let mut makers: HashMap<usize, usize> = HashMap::new();
        for place in 0..self.archives.len() {
            let archive = self.archive(place);
            let (Some(creation), Some(identity)) = (&archive.creation, &archive.identity) else { continue };
            let is_whole = self.archives[place].state == State::Complete;
            if creation.is_failed || !is_whole || !self.counts(place, Scope::Retention) {
                continue;
            }
            let uids: HashSet<&str> = creation.requests.iter().map(|request| request.uid.as_str()).collect();
            // A schedule that keeps all of its archives, or is not known, is counted here and lets none go.
            makers.insert(place, uids.len());
            let container = (&identity.namespace, &identity.pod, &identity.container);
            for schedule in uids.iter().filter_map(|uid| by_uid.get(uid)) {
                groups.entry((*schedule, container)).or_default().push(place);
            }
        }
        let groups = groups.into_iter().map(|((schedule, _), places)| (schedule, places)).collect();
        Made { groups, makers }
    }
}

/// Whether schedules may let an archive go.
pub(super) enum MayTake {
    /// Once it is that old.
    From(Duration),
    /// A policy that goes before those of namespaces governs it, and decides alone.
    Overridden,
    /// It is not certain which policy governs it.
    Uncertain,
}

/// Archives that schedules had made.
pub(super) struct Made {
    /// Of each schedule, by its place among them, the archives of each container, oldest first.
    pub(super) groups: Vec<(usize, Vec<usize>)>,
    /// How many schedules had each archive made.
    pub(super) makers: HashMap<usize, usize>,
}

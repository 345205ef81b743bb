//! When each archive goes by the passing of time alone.
//!
//! The times come from the rules' own figures, and the floor from the rule's own code, asked at another time. Limits and the
//! watermark are not foreseen, and tiers only of what the floor alone keeps from them: they depend on archives that are yet to
//! come.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jiff::Timestamp;

use super::governing::{Governing, PolicyIndex};
use super::groups::Groups;
use super::planner::{By, Planner, Scope, end_of};
use super::rules::{BROKEN, max_age};
use super::schedules::{Made, MayTake};
use super::snapshot::{Clock, Snapshot};
use super::tiers::kept_by;
use super::verdict::{Action, Detail, Reason, Verdict};
use super::{Plan, QUIET, effective_storage, facts};
use crate::archive::State;
use crate::policy::{PolicyRef, PolicySet, ScheduleRetention, Tiers};

/// When an archive goes if nothing changes but the time, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiration {
    /// The earliest time at which a plan takes it. It lies in the past for an orphan whose grace period is over: that
    /// one goes as soon as the API confirms it.
    pub at: Timestamp,
    /// The reason that the verdict will have.
    pub reason: Reason,
    /// The policy that will give that reason.
    pub policy: Option<Arc<PolicyRef>>,
}

/// So many archives are looked at to find out which are the newest of their lineages at other times. Only lineages in
/// which many archives go before newer ones of another policy need more; of what is left, nothing is foreseen.
const MOST_STEPS: usize = 10_000_000;

/// When each archive of a snapshot goes by the passing of time alone, in the snapshot's order; none: it does not, or is
/// to go already by `plan`, which is the plan of this snapshot by these policies.
///
/// The rules that act by time are those of ages and of grace periods. Orphans are taken to be confirmed again when their
/// time comes. Where the clock is not to be trusted, no time is foreseen.
pub fn expirations(
    snapshot: &Snapshot,
    policies: &PolicySet,
    plan: &Plan,
    now: Timestamp,
) -> Vec<Option<Expiration>> {
    let mut expirations = vec![None; snapshot.archives.len()];
    if snapshot.clock == Clock::Suspect {
        return expirations;
    }
    let order = facts::order(snapshot);
    let policy_index = PolicyIndex::new(policies, &snapshot.namespaces);
    let groups = Groups::new(snapshot, &policy_index, &order);
    let storage = effective_storage(snapshot, policies);
    let mut planner = Planner::new((snapshot, order), storage, &policy_index, &groups, now);
    planner.protect();
    planner.discard();
    planner.take_failed_dumps();
    planner.take_oversized();
    let mut forecast = Forecast::new(planner);
    forecast.foresee_grace_periods();
    forecast.find_newest();
    forecast.foresee_schedules(&policies.schedules);
    forecast.foresee_tiers(plan);
    forecast.foresee_ages();
    forecast.foresee_ceilings();
    for place in 0..forecast.foreseen.len() {
        let in_snapshot = forecast.planner.order[place];
        let is_to_go = plan.verdicts.get(in_snapshot).is_none_or(is_to_go);
        if let Some((at, reason, by)) = forecast.foreseen[place].filter(|_| !is_to_go) {
            expirations[in_snapshot] =
                Some(Expiration { at, reason, policy: forecast.planner.policy_ref(by) });
        }
    }
    expirations
}

fn is_to_go(verdict: &Verdict) -> bool {
    verdict.action() == Action::Delete || verdict.reason == Reason::DeletionPending
}

/// The archives of a lineage that could be its newest, newest first.
#[derive(Default)]
struct Newest {
    places: Vec<usize>,
    idle_since: Option<Timestamp>,
}

/// What is foreseen, over a plan in the making in which the rules have acted that do not act by time.
struct Forecast<'a> {
    planner: Planner<'a>,
    now: Timestamp,
    /// When each archive goes, why, and by which policy; by the places of the plan's order, as all here.
    foreseen: Vec<Option<(Timestamp, Reason, By)>>,
    /// When the rules before the floor take each archive, so that others are the newest from then on.
    gone_at: Vec<Timestamp>,
    newest: Vec<Newest>,
    /// Which of these an archive is in.
    newest_of: HashMap<usize, usize>,
    steps_left: usize,
}

impl<'a> Forecast<'a> {
    fn new(planner: Planner<'a>) -> Self {
        let archives = planner.archives.len();
        Self {
            now: planner.now,
            planner,
            foreseen: vec![None; archives],
            gone_at: vec![Timestamp::MAX; archives],
            newest: Vec::new(),
            newest_of: HashMap::new(),
            steps_left: MOST_STEPS,
        }
    }

    /// Notes that a rule takes an archive at that time, unless something was decided about it that does not end. Of equal times the rule counts that was noted first.
    fn note(&mut self, place: usize, at: Timestamp, reason: Reason, by: By) {
        let is_never = at == Timestamp::MAX || self.planner.reason(place).is_some();
        if !is_never && self.foreseen[place].is_none_or(|(earlier, ..)| at < earlier) {
            self.foreseen[place] = Some((at, reason, by));
        }
    }

    /// The same, unless the time has come already: then something else keeps it, which time does not end.
    fn note_later(&mut self, place: usize, at: Timestamp, reason: Reason, by: By) {
        if at > self.now {
            self.note(place, at, reason, by);
        }
    }

    /// The orphan rule, and those of archives that are not whole.
    fn foresee_grace_periods(&mut self) {
        for (place, by, rule) in self.planner.governed(|policy| policy.orphans) {
            if let Some(absence) = self.planner.absence(place, rule.when) {
                let end = end_of(absence.since, rule.grace);
                self.note(place, end, Reason::Orphaned, by);
                self.gone_at[place] = end;
            }
        }
        for (state, reason, grace) in BROKEN {
            for (place, by, grace) in self.planner.governed(grace) {
                if self.planner.archives[place].state == state {
                    let end = end_of(self.planner.archive(place).changed, grace);
                    self.note_later(place, end, reason, by);
                }
            }
        }
    }

    /// Finds what could be the newest of each lineage.
    fn find_newest(&mut self) {
        let groups = self.planner.groups;
        for lineage in groups.lineages() {
            let idle_since = self.planner.idle_since(lineage);
            for is_candidate in [Planner::is_candidate_for_newest, Planner::is_candidate_ahead] {
                let places = lineage.iter().rev().copied();
                let places: Vec<usize> = places.filter(|&place| is_candidate(&self.planner, place)).collect();
                let number = self.newest.len();
                self.newest_of.extend(places.iter().map(|&place| (place, number)));
                self.newest.push(Newest { places, idle_since });
            }
        }
    }

    /// The first time from `at` on at which its place among the newest does not keep an archive; none: never, or that
    /// takes too long to find out.
    fn after_floor(&mut self, place: usize, at: Timestamp) -> Option<Timestamp> {
        let Some(&number) = self.newest_of.get(&place) else { return Some(at) };
        let Newest { places, idle_since } = &self.newest[number];
        self.planner.now = at;
        let mut newer = 0;
        let mut is_on_floor = true;
        for &other in places {
            is_on_floor = self.planner.is_on_floor(place, newer, *idle_since);
            if !is_on_floor || other == place {
                break;
            }
            self.steps_left = self.steps_left.checked_sub(1)?;
            if self.gone_at[other] > at {
                newer += usize::from(self.planner.stands_in(other, newer, *idle_since));
            }
        }
        let end = self.planner.floor_end(place, *idle_since);
        self.planner.now = self.now;
        if is_on_floor { end.filter(|end| *end > at) } else { Some(at) }
    }

    /// Schedules' `maxAge`, where every schedule that had an archive made lets it go in the end.
    fn foresee_schedules(&mut self, schedules: &[ScheduleRetention]) {
        if schedules.is_empty() {
            return;
        }
        let Made { groups, makers } = self.planner.made_by(schedules);
        // Of each archive: which schedules let it go, when, and its group and its place there from the newest on.
        let mut let_go: HashMap<usize, Vec<(Timestamp, usize, usize)>> = HashMap::new();
        for (number, (schedule, places)) in groups.iter().enumerate() {
            let ScheduleRetention { keep_latest, max_age, .. } = &schedules[*schedule];
            let keep = usize::try_from(*keep_latest).unwrap_or(usize::MAX);
            for (newer, &place) in places.iter().rev().enumerate().skip(keep) {
                let taken = self.planner.archives[place].taken;
                let due = max_age.map_or(Timestamp::MIN, |limit| end_of(taken, limit));
                let_go.entry(place).or_default().push((due, number, newer));
            }
        }
        for (place, by) in let_go {
            let is_let_go_by_all = makers.get(&place) == Some(&by.len())
                && matches!(self.planner.schedules_may_take(place), MayTake::From(_));
            let (Some(due), Some(first)) =
                (by.iter().map(|(due, ..)| *due).max(), by.iter().map(|(_, number, _)| *number).min())
            else {
                continue;
            };
            let Some(old_enough) = self.min_age_end(place).filter(|_| is_let_go_by_all) else { continue };
            let Some(at) = self.after_floor(place, due.max(old_enough)) else { continue };
            let mut is_replaced = true;
            for (_, number, newer) in by {
                let (schedule, places) = &groups[number];
                let keep = usize::try_from(schedules[*schedule].keep_latest).unwrap_or(usize::MAX);
                let there = places.iter().rev().take(newer).filter(|&&other| self.gone_at[other] > at);
                is_replaced &= there.take(keep).count() == keep;
            }
            if is_replaced {
                let by = self.planner.by(&schedules[groups[first].0].id);
                self.note_later(place, at, Reason::ScheduleRetention, by);
            }
        }
    }

    /// When an archive is as old as the policy wants that governs it; none: it is not certain which does.
    fn min_age_end(&self, place: usize) -> Option<Timestamp> {
        match self.planner.groups.of(place).governing {
            Governing::Nothing => Some(Timestamp::MIN),
            Governing::Policy(_) => {
                let min_age = self.planner.policy(place).and_then(|(_, policy)| policy.retention.min_age);
                let taken = self.planner.archives[place].taken;
                Some(min_age.map_or(Timestamp::MIN, |min_age| end_of(taken, min_age)))
            }
            Governing::Uncertain(..) | Governing::Invalid(_) | Governing::Handover(_) => None,
        }
    }

    /// What tiers do not keep and only the floor does, once that ends.
    fn foresee_tiers(&mut self, plan: &Plan) {
        let (groups, policies) = (self.planner.groups, self.planner.policy_index.ranked());
        for (policy, asked) in policies.iter().enumerate() {
            let Some(wanted) = asked.retention.tiers else { continue };
            for lineage in groups.governed_lineages(policy) {
                let mut kept: Option<(Timestamp, HashSet<usize>)> = None;
                for &place in lineage {
                    let verdict = plan.verdicts.get(self.planner.order[place]);
                    let is_spared = verdict.is_some_and(|verdict| {
                        verdict.reason == Reason::KeepLatest && verdict.detail == Detail::Would(Reason::Tiers)
                    });
                    let Some(old_enough) = self.min_age_end(place).filter(|_| is_spared) else { continue };
                    let Some(at) = self.after_floor(place, self.now).map(|at| at.max(old_enough)) else {
                        continue;
                    };
                    if kept.as_ref().is_none_or(|(time, _)| *time != at) {
                        let Some(left) = self.steps_left.checked_sub(lineage.len()) else { return };
                        self.steps_left = left;
                        kept = Some((at, self.kept_by_tiers(lineage, wanted, at)));
                    }
                    if kept.as_ref().is_some_and(|(_, kept)| !kept.contains(&place)) {
                        self.note_later(place, at, Reason::Tiers, By::policy(policy));
                    }
                }
            }
        }
    }

    /// The archives of a lineage that tiers keep at that time, when those are gone that other rules take before.
    fn kept_by_tiers(&self, lineage: &[usize], tiers: Tiers, at: Timestamp) -> HashSet<usize> {
        let is_there = |other: &usize| {
            let is_replaced = self.foreseen[*other]
                .is_some_and(|(then, reason, _)| reason == Reason::ScheduleRetention && then <= at);
            self.planner.counts(*other, Scope::Retention)
                && self.planner.archives[*other].state == State::Complete
                && self.gone_at[*other] > at
                && !is_replaced
        };
        let there: Vec<usize> = lineage.iter().rev().copied().filter(is_there).collect();
        let times: Vec<Timestamp> = there.iter().map(|&place| self.planner.archives[place].taken).collect();
        let kept = there.into_iter().zip(kept_by(tiers, &times));
        kept.filter(|(_, kept)| kept.any()).map(|(place, _)| place).collect()
    }

    fn foresee_ages(&mut self) {
        for (place, by, limit) in self.planner.governed(max_age) {
            let due = end_of(self.planner.archives[place].taken, limit).max(self.quiet_from(place));
            if let Some(at) = self.after_floor(place, due) {
                self.note_later(place, at, Reason::MaxAge, by);
            }
        }
    }

    fn foresee_ceilings(&mut self) {
        let Some((limit, id)) = self.planner.storage.namespace_age.clone() else { return };
        let by = self.planner.by(&id);
        let groups = self.planner.groups;
        for &place in groups.namespaces().flatten() {
            let due = end_of(self.planner.archives[place].taken, limit);
            self.note_later(place, due.max(self.quiet_from(place)), Reason::NamespaceCeiling, by);
        }
    }

    /// From when on limits may take an archive that is not whole.
    fn quiet_from(&self, place: usize) -> Timestamp {
        let is_quiet = self.planner.archives[place].is_whole_or_quiet;
        if is_quiet { Timestamp::MIN } else { end_of(self.planner.archive(place).changed, QUIET) }
    }
}

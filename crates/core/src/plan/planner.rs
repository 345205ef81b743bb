//! A plan in the making: the state that the rules share. The rules themselves are in the files
//! beside this one.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::effective_storage::{EffectiveStorage, WatermarkReport};
use super::facts::{self, Facts};
use super::governing::{Governing, PolicyIndex};
use super::groups::Groups;
use super::judgement::{Outcome, Watch};
use super::snapshot::{Allowance, Archive, Clock, Dated, Draw, Snapshot};
use super::verdict::{Action, Detail, Reason, Verdict};
use super::{Governed, Plan, Unreachable};
use crate::archive::State;
use crate::policy::{Policy, PolicyRef};

/// The policy that gives a reason, by its place among [`Planner::policies`], or none. Small, as
/// there are two for every archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct By(Option<NonZeroU32>);

impl By {
    pub(super) const NO_POLICY: Self = Self(None);

    pub(super) fn policy(place: usize) -> Self {
        Self(u32::try_from(place).ok().and_then(|place| NonZeroU32::MIN.checked_add(place)))
    }

    fn place(self) -> Option<usize> {
        self.0.and_then(|number| usize::try_from(number.get() - 1).ok())
    }
}

/// A reason, who gave it, and its figures.
#[derive(Debug, Clone, Copy)]
struct Decision {
    reason: Reason,
    by: By,
    detail: Detail,
}

/// How an archive stands while rules go over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ArchiveState {
    /// Undecided: it counts, and may be taken.
    Open,
    /// Undecided, but not whole and perhaps still being written: it neither counts nor may be taken
    /// by a limit.
    Unfinished,
    /// Pinned, and known well enough to count.
    Counted,
    /// Stays, and does not count.
    PassedBy,
    /// Goes.
    Taken,
}

impl ArchiveState {
    fn of_undecided(archive: &Facts) -> Self {
        if archive.is_whole_or_quiet { Self::Open } else { Self::Unfinished }
    }

    fn of_decided(archive: &Facts, reason: Reason) -> Self {
        let counts = reason == Reason::Pinned && archive.unjudgeable().is_none() && archive.is_whole_or_quiet;
        match reason.action() {
            Action::Delete => Self::Taken,
            Action::Keep if counts => Self::Counted,
            Action::Keep => Self::PassedBy,
        }
    }

    fn is_decided(self) -> bool {
        matches!(self, Self::Counted | Self::PassedBy | Self::Taken)
    }
}

/// Whose rule it is that compares archives by their times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// A retention policy's: what is not dated for certain neither counts nor goes.
    Retention,
    /// A storage policy's: what cannot be dated goes by its first sight.
    Storage,
}

/// Who says how many of the newest of each lineage stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FloorRule {
    /// The policy that governs each archive: `keepLatest` and `keepLatestFor`.
    Retention,
    /// The storage policies: `protectLatest`, whatever a tenant's policy says.
    Storage,
}

pub(super) struct Planner<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) now: Timestamp,
    pub(super) storage: EffectiveStorage,
    /// What the rules ask of each archive, oldest first. Everywhere in a plan in the making, an
    /// archive's place is its place here.
    pub(super) archives: Vec<Facts>,
    /// Each archive's place in the snapshot.
    pub(super) order: Vec<usize>,
    pub(super) groups: &'a Groups<'a>,
    /// Whether the archive is among the newest of its lineage.
    pub(super) floor: Vec<bool>,
    /// Who says how many of these there are.
    pub(super) floor_rule: FloorRule,
    /// Whether one of these was taken, so that others are the newest now.
    pub(super) floor_taken: bool,
    pub(super) policy_index: &'a PolicyIndex<'a>,
    /// What rules ask most about, in a byte for each archive.
    states: Vec<ArchiveState>,
    /// What was decided about each archive; or, where nothing was yet, what nearly took it.
    reasons: Vec<Option<Decision>>,
    /// The objects that reasons refer to: the ranked policies first, then others as they come up.
    policies: Vec<Arc<PolicyRef>>,
    extra_policies: HashMap<PolicyRef, usize>,
    /// What pays for the deletion of each archive.
    pub(super) draws: Vec<Draw>,
    /// The limits that pins make unreachable.
    pub(super) unreachable: Vec<Unreachable>,
    /// How many deletions the buckets allow now; none: as many as the plan wants.
    pub(super) allowance: Option<&'a Allowance>,
    /// What rules say of the one archive that is watched, if any is.
    pub(super) watch: Option<Box<Watch>>,
}

impl<'a> Planner<'a> {
    /// `order`: the archives' places in the snapshot, in the plan's order.
    pub(super) fn new(
        (snapshot, order): (&'a Snapshot, Vec<usize>),
        storage: EffectiveStorage,
        policy_index: &'a PolicyIndex<'a>,
        groups: &'a Groups<'a>,
        now: Timestamp,
    ) -> Self {
        let archives = facts::facts(snapshot, &order, now);
        let policies = policy_index.ranked().iter().map(|policy| Arc::new(policy.id.clone())).collect();
        Self {
            snapshot,
            now,
            storage,
            groups,
            floor: vec![false; archives.len()],
            floor_rule: FloorRule::Retention,
            floor_taken: false,
            policy_index,
            states: archives.iter().map(ArchiveState::of_undecided).collect(),
            reasons: vec![None; archives.len()],
            draws: vec![Draw::Nothing; archives.len()],
            archives,
            order,
            policies,
            extra_policies: HashMap::new(),
            unreachable: Vec::new(),
            allowance: snapshot.allowance.as_ref(),
            watch: None,
        }
    }

    /// The archive at `place`.
    pub(super) fn archive(&self, place: usize) -> &'a Archive {
        &self.snapshot.archives[self.order[place]]
    }

    /// The policy that governs the archive at `place`.
    pub(super) fn policy(&self, place: usize) -> Option<(usize, &'a Policy)> {
        match self.groups.of(place).governing {
            Governing::Policy(policy) => Some((policy, self.policy_index.ranked()[policy])),
            _ => None,
        }
    }

    /// Refers to an object that is not one of the ranked policies.
    pub(super) fn by(&mut self, id: &PolicyRef) -> By {
        if let Some(&policy) = self.extra_policies.get(id) {
            return By::policy(policy);
        }
        self.policies.push(Arc::new(id.clone()));
        self.extra_policies.insert(id.clone(), self.policies.len() - 1);
        By::policy(self.policies.len() - 1)
    }

    /// The object that gives a reason.
    pub(super) fn policy_ref(&self, by: By) -> Option<Arc<PolicyRef>> {
        by.place().map(|policy| Arc::clone(&self.policies[policy]))
    }

    /// Whether nothing has been decided about the archive yet, so that a rule may take it: it is
    /// neither protected nor gone, and, if it is not whole, it is not being written any more.
    pub(super) fn may_take(&self, place: usize) -> bool {
        self.states[place] == ArchiveState::Open
    }

    /// Whether the archive is still there when this rule looks.
    pub(super) fn stays(&self, place: usize) -> bool {
        self.states[place] != ArchiveState::Taken
    }

    /// Whether a marker holds it, and it counts all the same.
    pub(super) fn is_counted_pin(&self, place: usize) -> bool {
        self.states[place] == ArchiveState::Counted
    }

    /// Whether the archive counts toward limits, and may displace others: pinned ones do; what cannot be
    /// judged does not, pinned or not, nor does what cannot be dated well enough.
    pub(super) fn counts(&self, place: usize, scope: Scope) -> bool {
        matches!(self.states[place], ArchiveState::Open | ArchiveState::Counted)
            && self.is_dated(place, scope)
    }

    fn is_dated(&self, place: usize, scope: Scope) -> bool {
        match self.archives[place].dated {
            Dated::Trusted | Dated::Untrusted => true,
            Dated::Undated => scope == Scope::Storage,
            Dated::Ahead => false,
        }
    }

    /// Whether it could be among the newest of its lineage or group.
    pub(super) fn is_candidate_for_newest(&self, place: usize) -> bool {
        self.is_whole_and_open(place) && self.is_dated(place, Scope::Retention)
    }

    /// Whether it could be among the newest, if it is right and the clock, which is not trusted, is not.
    pub(super) fn is_candidate_ahead(&self, place: usize) -> bool {
        self.is_whole_and_open(place) && self.archives[place].dated == Dated::Ahead
    }

    fn is_whole_and_open(&self, place: usize) -> bool {
        self.states[place] == ArchiveState::Open && self.archives[place].state == State::Complete
    }

    /// Whether it is that time by now, by a clock that can be trusted.
    pub(super) fn has_come(&self, time: Timestamp) -> bool {
        self.snapshot.clock == Clock::Trusted && time <= self.now
    }

    pub(super) fn is_due(&self, start: Timestamp, length: Duration) -> bool {
        end_of(start, length) <= self.now
    }

    /// Decides that the archive goes.
    pub(super) fn take(&mut self, place: usize, reason: Reason, by: By, detail: Detail) {
        debug_assert!(self.stays(place), "an archive has one verdict");
        self.floor_taken |= self.floor[place];
        self.decide(place, reason, by, detail);
    }

    /// Takes by the wall clock, or remarks that the clock is not to be trusted.
    pub(super) fn take_by_time(&mut self, place: usize, reason: Reason, by: By, detail: Detail) {
        if self.snapshot.clock == Clock::Trusted {
            self.take(place, reason, by, detail);
        } else {
            self.note(place, Reason::ClockSuspect, by, Detail::Would(reason));
        }
    }

    /// Remarks that only its place among the newest saved the archive.
    pub(super) fn keep_as_newest(&mut self, place: usize, reason: Reason, by: By) {
        self.note(place, Reason::KeepLatest, by, Detail::Would(reason));
    }

    /// Notes why an archive that stays does so; the first remark is the strongest.
    pub(super) fn note(&mut self, place: usize, reason: Reason, by: By, detail: Detail) {
        self.watch_outcome(place, by, Outcome::Spared { reason, detail });
        self.reasons[place].get_or_insert(Decision { reason, by, detail });
    }

    /// What has been decided about the archive so far.
    pub(super) fn reason(&self, place: usize) -> Option<Reason> {
        self.reasons[place].filter(|_| self.states[place].is_decided()).map(|decision| decision.reason)
    }

    /// Decides about the archive, for good.
    pub(super) fn decide(&mut self, place: usize, reason: Reason, by: By, detail: Detail) {
        let outcome = match reason.action() {
            Action::Delete => Outcome::Took { reason, detail },
            Action::Keep => Outcome::Spared { reason, detail },
        };
        self.watch_outcome(place, by, outcome);
        self.states[place] = ArchiveState::of_decided(&self.archives[place], reason);
        self.reasons[place] = Some(Decision { reason, by, detail });
    }

    /// The archives that are to go, but for those whose deletion was requested.
    pub(super) fn taken_by_rules(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.archives.len()).filter(|&place| {
            self.states[place] == ArchiveState::Taken && self.reason(place) != Some(Reason::Discarded)
        })
    }

    /// Lets an archive stay that was to go, and says why; it counts again.
    pub(super) fn keep_after_all(&mut self, place: usize, reason: Reason) {
        self.states[place] = ArchiveState::of_undecided(&self.archives[place]);
        if let Some(decision) = &mut self.reasons[place] {
            // It is next to go, so no weaker remark may speak for it.
            decision.detail = Detail::Would(decision.reason);
            decision.reason = reason;
            let Decision { by, detail, .. } = *decision;
            self.watch_outcome(place, by, Outcome::Spared { reason, detail });
        }
    }

    /// Has an archive wait that was to go, with nothing else decided about it any more.
    pub(super) fn let_wait(&mut self, place: usize) {
        self.keep_after_all(place, Reason::DeletionPending);
        self.states[place] = ArchiveState::PassedBy;
    }

    /// Lets all stay that rules wanted gone, but for what is wanted gone for certain.
    pub(super) fn keep_unless(&mut self, is_certain: impl Fn(usize) -> bool) {
        let uncertain: Vec<usize> = self.taken_by_rules().filter(|&place| !is_certain(place)).collect();
        for place in uncertain {
            self.keep_after_all(place, Reason::PolicyStale);
        }
    }

    /// Gives every archive that nothing took its reason to stay.
    pub(super) fn finish(mut self, watermark: Option<WatermarkReport>) -> Plan {
        let unknown = Verdict { reason: Reason::NoPolicy, policy: None, detail: Detail::None };
        let mut verdicts = vec![unknown; self.archives.len()];
        let mut governed = vec![Governed::NoPolicy; self.archives.len()];
        let mut draws = vec![Draw::Nothing; self.archives.len()];
        for place in 0..self.archives.len() {
            let Decision { reason, by, detail } = self.reason_in_the_end(place);
            verdicts[self.order[place]] = Verdict { reason, policy: self.policy_ref(by), detail };
            governed[self.order[place]] = match self.groups.of(place).governing {
                Governing::Policy(policy) => Governed::By(Arc::clone(&self.policies[policy])),
                Governing::Handover(policy) => Governed::SoonBy(Arc::clone(&self.policies[policy])),
                Governing::Nothing => Governed::NoPolicy,
                Governing::Uncertain(..) | Governing::Invalid(_) => Governed::Uncertain,
            };
            draws[self.order[place]] = self.draws[place];
        }
        let in_snapshot = |mut limit: Unreachable| {
            limit.pinned.iter_mut().for_each(|place| *place = self.order[*place]);
            limit
        };
        Plan {
            verdicts,
            governed,
            draws,
            watermark,
            unreachable: std::mem::take(&mut self.unreachable).into_iter().map(in_snapshot).collect(),
            unjudged_storage: self.storage.unjudged.iter().cloned().map(Arc::new).collect(),
        }
    }

    /// What was decided about the archive, or why it stays as nothing was.
    fn reason_in_the_end(&mut self, place: usize) -> Decision {
        let decided = |reason, by, detail| Decision { reason, by, detail };
        let noted = self.reasons[place];
        if let Some(decision) = noted.filter(|_| self.states[place].is_decided()) {
            return decision;
        }
        match (self.groups.of(place).governing, noted) {
            (_, Some(remark)) if remark.reason == Reason::DeletionPending => remark,
            (Governing::Invalid(policy), _) => {
                decided(Reason::PolicyInvalid, self.by(&policy.id), Detail::None)
            }
            // Where no policy governs, this note is from a storage policy, which acts whichever policy governs.
            (_, Some(remark)) => remark,
            (Governing::Nothing, None) => decided(Reason::NoPolicy, By::NO_POLICY, Detail::None),
            (Governing::Uncertain(policy, detail), None) => {
                decided(Reason::NoPolicy, By::policy(policy), detail)
            }
            (Governing::Handover(policy), None) => {
                decided(Reason::Handover, By::policy(policy), Detail::HandedOver)
            }
            (Governing::Policy(policy), None) => {
                let (reason, detail) = match self.archives[place].dated {
                    Dated::Trusted | Dated::Untrusted => (Reason::WithinLimits, Detail::None),
                    Dated::Ahead => (Reason::ClockSuspect, Detail::AheadOfClock),
                    Dated::Undated => (Reason::Undated, Detail::Claims(self.archive(place).claimed)),
                };
                decided(reason, By::policy(policy), detail)
            }
        }
    }

    /// Whether the watermark may take the archive: a policy that does not parse does not stop it.
    pub(super) fn watermark_may_take(&self, place: usize) -> bool {
        self.may_take(place) && !self.archives[place].undeletable
    }
}

pub(super) fn end_of(start: Timestamp, length: Duration) -> Timestamp {
    start.checked_add(length).unwrap_or(Timestamp::MAX)
}

pub(super) fn age(start: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(start)).unwrap_or_default()
}

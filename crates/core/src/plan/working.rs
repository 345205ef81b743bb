//! A plan in the making: the state that the rules share. The rules themselves are in the files
//! beside this one.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Plan;
use super::facts::{self, Facts};
use super::governing::{Governing, Governors};
use super::groups::Cells;
use super::rules::unjudgeable;
use super::snapshot::{Archive, Clock, Snapshot};
use super::storage::{EffectiveStorage, WatermarkReport};
use super::verdict::{Action, Detail, Reason, Verdict};
use crate::archive::State;
use crate::policy::{Policy, PolicyRef, PolicySet};

/// Who gives a reason: the object at this place among [`Working::givers`], or nobody. Small, as
/// there are two for every archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct By(Option<NonZeroU32>);

impl By {
    pub(super) const NOBODY: Self = Self(None);

    pub(super) fn giver(place: usize) -> Self {
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
enum Standing {
    /// Undecided: it counts, and may be taken.
    Open,
    /// Undecided, but incomplete and perhaps still being written: it neither counts nor may be taken
    /// by a limit.
    Unfinished,
    /// Pinned, and known well enough to count.
    Counted,
    /// Decided about: limits pass it by.
    Decided,
}

impl Standing {
    fn of_undecided(archive: &Facts) -> Self {
        if archive.is_whole_or_quiet { Self::Open } else { Self::Unfinished }
    }

    fn of_decided(archive: &Facts, reason: Reason) -> Self {
        let counts = reason == Reason::Pinned && unjudgeable(archive).is_none() && archive.is_whole_or_quiet;
        if counts { Self::Counted } else { Self::Decided }
    }
}

pub(super) struct Working<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) now: Timestamp,
    pub(super) storage: EffectiveStorage,
    /// What the rules ask of each archive, oldest first. Everywhere in a plan in the making, an
    /// archive's place is its place here.
    pub(super) archives: Vec<Facts>,
    /// Each archive's place in the snapshot.
    order: Vec<usize>,
    pub(super) cells: Cells<'a>,
    /// Whether the archive is among the newest of its lineage.
    pub(super) floor: Vec<bool>,
    /// Whether one of these was taken, so that others are the newest now.
    pub(super) floor_taken: bool,
    pub(super) governors: Governors<'a>,
    decisions: Vec<Option<Decision>>,
    /// What rules ask most about, in a byte for each archive.
    standings: Vec<Standing>,
    /// Why archives stay that nothing was decided about: what nearly took them.
    remarks: Vec<Option<Decision>>,
    /// The objects that reasons refer to: the ranked policies first, then others as they come up.
    givers: Vec<Arc<PolicyRef>>,
    extra_givers: HashMap<PolicyRef, usize>,
    metered_deletions: u64,
}

impl<'a> Working<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, policies: &'a PolicySet, now: Timestamp) -> Self {
        let order = facts::order(snapshot);
        let archives = facts::facts(snapshot, &order, now);
        let governors = Governors::new(policies, &snapshot.namespaces);
        let cells = Cells::new(snapshot, &governors, &order);
        let givers = governors.ranked().iter().map(|policy| Arc::new(policy.id.clone())).collect();
        Self {
            snapshot,
            now,
            storage: EffectiveStorage::new(
                &policies.storage,
                snapshot.node_labels.as_ref(),
                snapshot.filesystem,
            ),
            cells,
            floor: vec![false; archives.len()],
            floor_taken: false,
            governors,
            decisions: vec![None; archives.len()],
            standings: archives.iter().map(Standing::of_undecided).collect(),
            remarks: vec![None; archives.len()],
            archives,
            order,
            givers,
            extra_givers: HashMap::new(),
            metered_deletions: 0,
        }
    }

    /// The archive at `place`.
    pub(super) fn archive(&self, place: usize) -> &'a Archive {
        &self.snapshot.archives[self.order[place]]
    }

    /// The policy that governs the archive at `place`.
    pub(super) fn policy(&self, place: usize) -> Option<(usize, &'a Policy)> {
        match self.cells.of(place).governing {
            Governing::Policy(policy) => Some((policy, self.governors.ranked()[policy])),
            _ => None,
        }
    }

    /// Refers to an object that is not one of the ranked policies.
    pub(super) fn by(&mut self, id: &PolicyRef) -> By {
        if let Some(&giver) = self.extra_givers.get(id) {
            return By::giver(giver);
        }
        self.givers.push(Arc::new(id.clone()));
        self.extra_givers.insert(id.clone(), self.givers.len() - 1);
        By::giver(self.givers.len() - 1)
    }

    /// Whether nothing has been decided about the archive yet, so that a rule may take it: it is
    /// neither protected nor gone, and, if it is incomplete, nobody can still be writing it.
    pub(super) fn may_take(&self, place: usize) -> bool {
        self.standings[place] == Standing::Open
            && !matches!(self.cells.of(place).governing, Governing::Invalid(_))
    }

    /// Whether the archive is still there when this rule looks.
    pub(super) fn stays(&self, place: usize) -> bool {
        self.decisions[place].is_none_or(|decision| decision.reason.action() == Action::Keep)
    }

    /// Whether the archive counts toward limits: pinned ones do; what cannot be judged does not,
    /// pinned or not.
    pub(super) fn counts(&self, place: usize) -> bool {
        matches!(self.standings[place], Standing::Open | Standing::Counted)
    }

    /// Whether it could be among the newest of its lineage or group.
    pub(super) fn is_candidate_for_newest(&self, place: usize) -> bool {
        self.standings[place] == Standing::Open && self.archives[place].state == State::Complete
    }

    /// Whether `length` has passed since `start`, by a clock that can be trusted.
    pub(super) fn has_passed(&self, start: Timestamp, length: Duration) -> bool {
        self.snapshot.clock == Clock::Trusted && self.is_due(start, length)
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
            self.remark(place, Reason::ClockSuspect, by, Detail::Would(reason));
        }
    }

    /// Remarks that only its place among the newest saved the archive.
    pub(super) fn spare(&mut self, place: usize, reason: Reason, by: By) {
        self.remark(place, Reason::KeepLatest, by, Detail::Would(reason));
    }

    /// Notes why an archive that stays does so; the first remark is the strongest.
    pub(super) fn remark(&mut self, place: usize, reason: Reason, by: By, detail: Detail) {
        self.remarks[place].get_or_insert(Decision { reason, by, detail });
    }

    /// What has been decided about the archive so far.
    pub(super) fn reason(&self, place: usize) -> Option<Reason> {
        self.decisions[place].map(|decision| decision.reason)
    }

    /// Decides about the archive, for good.
    pub(super) fn decide(&mut self, place: usize, reason: Reason, by: By, detail: Detail) {
        self.standings[place] = Standing::of_decided(&self.archives[place], reason);
        self.decisions[place] = Some(Decision { reason, by, detail });
    }

    /// Lets the oldest of what is to go, go now, and has the rest wait for the deletion bucket.
    pub(super) fn draw_from_bucket(&mut self) {
        let metered: Vec<usize> = (0..self.archives.len())
            .filter(|&place| {
                self.decisions[place].is_some_and(|decision| {
                    decision.reason.action() == Action::Delete && decision.reason != Reason::Discarded
                })
            })
            .collect();
        let allowed = match self.snapshot.allowance {
            Some(allowance) => usize::try_from(allowance).unwrap_or(usize::MAX).min(metered.len()),
            None => metered.len(),
        };
        for &place in &metered[allowed..] {
            if let Some(decision) = self.decisions[place].take() {
                self.standings[place] = Standing::of_undecided(&self.archives[place]);
                let pending = Detail::Would(decision.reason);
                // It is next to go, so no weaker remark may speak for it.
                self.remarks[place] =
                    Some(Decision { reason: Reason::DeletionPending, by: decision.by, detail: pending });
            }
        }
        self.metered_deletions = allowed as u64;
    }

    /// Gives every archive that nothing took its reason to stay.
    pub(super) fn finish(mut self, watermark: Option<WatermarkReport>) -> Plan {
        for place in 0..self.archives.len() {
            if self.decisions[place].is_some() {
                continue;
            }
            let unremarkable =
                Decision { reason: Reason::WithinLimits, by: By::NOBODY, detail: Detail::None };
            let remark = self.remarks[place].unwrap_or(unremarkable);
            // What a storage policy wanted, it wanted whoever governs.
            let speaks_for_itself =
                matches!(remark.reason, Reason::DeletionPending | Reason::KeepLatest | Reason::ClockSuspect);
            let (reason, by, detail) = match self.cells.of(place).governing {
                Governing::Invalid(policy) => (Reason::PolicyInvalid, self.by(&policy.id), Detail::None),
                _ if speaks_for_itself => (remark.reason, remark.by, remark.detail),
                Governing::Nothing => (Reason::NoPolicy, By::NOBODY, Detail::None),
                Governing::Doubtful(policy) => (Reason::NoPolicy, By::giver(policy), Detail::LabelsUnknown),
                Governing::Unasked(policy) => (Reason::NoPolicy, By::giver(policy), Detail::NamespaceUnasked),
                Governing::Policy(policy) => (
                    remark.reason,
                    if remark.by == By::NOBODY { By::giver(policy) } else { remark.by },
                    remark.detail,
                ),
            };
            self.decisions[place] = Some(Decision { reason, by, detail });
        }
        let unknown = Verdict { reason: Reason::NoPolicy, policy: None, detail: Detail::None };
        let mut verdicts = vec![unknown; self.archives.len()];
        for (decision, &in_snapshot) in self.decisions.iter().zip(&self.order) {
            if let Some(Decision { reason, by, detail }) = *decision {
                let policy = by.place().map(|giver| Arc::clone(&self.givers[giver]));
                verdicts[in_snapshot] = Verdict { reason, policy, detail };
            }
        }
        Plan {
            verdicts,
            watermark,
            unjudged_storage: self.storage.unjudged.iter().cloned().map(Arc::new).collect(),
            metered_deletions: self.metered_deletions,
        }
    }

    /// Whether the watermark may take the archive: a policy that does not parse does not stop it.
    pub(super) fn watermark_may_take(&self, place: usize) -> bool {
        let archive = &self.archives[place];
        self.standings[place] == Standing::Open && archive.state != State::Unreadable && !archive.undeletable
    }
}

pub(super) fn end_of(start: Timestamp, length: Duration) -> Timestamp {
    start.checked_add(length).unwrap_or(Timestamp::MAX)
}

pub(super) fn age(start: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(start)).unwrap_or_default()
}

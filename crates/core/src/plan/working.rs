//! A plan in the making: the state that the rules share, and the rules that are about one archive.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::governing::{Governing, Governors};
use super::groups::Cells;
use super::limits::Measure;
use super::snapshot::{Absences, Archive, Clock, Snapshot};
use super::storage::{EffectiveStorage, WatermarkReport};
use super::tiers;
use super::verdict::{Action, Detail, Level, Reason, Verdict};
use super::{Plan, QUIET};
use crate::archive::State;
use crate::name::NameKind;
use crate::policy::{DEFAULT_KEEP_LATEST, KeepFor, OrphanWhen, Policy, PolicyRef, PolicySet, Size, Tiers};

/// Who gives a reason: an index into [`Working::givers`], or nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct By(pub(super) Option<usize>);

impl By {
    pub(super) const NOBODY: Self = Self(None);
}

/// A reason, who gave it, and its figures.
#[derive(Debug, Clone, Copy)]
struct Decision {
    reason: Reason,
    by: By,
    detail: Detail,
}

pub(super) struct Working<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) now: Timestamp,
    pub(super) storage: EffectiveStorage,
    /// Each archive's place in the order oldest first, equal times by file name.
    pub(super) rank: Vec<usize>,
    pub(super) oldest_first: Vec<usize>,
    pub(super) cells: Cells<'a>,
    /// Whether the archive is among the newest of its lineage.
    pub(super) floor: Vec<bool>,
    /// Whether one of these was taken, so that others are the newest now.
    floor_taken: bool,
    governors: Governors<'a>,
    decisions: Vec<Option<Decision>>,
    /// Why archives stay that nothing was decided about: what nearly took them.
    remarks: Vec<Option<Decision>>,
    /// The objects that reasons refer to: the ranked policies first, then others as they come up.
    givers: Vec<Arc<PolicyRef>>,
    extra_givers: HashMap<PolicyRef, usize>,
    metered_deletions: u64,
}

impl<'a> Working<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, policies: &'a PolicySet, now: Timestamp) -> Self {
        let archives = &snapshot.archives;
        let mut oldest_first: Vec<usize> = (0..archives.len()).collect();
        oldest_first.sort_unstable_by(|&one, &other| {
            let (one, other) = (&archives[one], &archives[other]);
            one.taken.cmp(&other.taken).then_with(|| one.file.cmp(&other.file))
        });
        let mut rank = vec![0; archives.len()];
        for (order, &place) in oldest_first.iter().enumerate() {
            rank[place] = order;
        }
        let governors = Governors::new(policies, &snapshot.namespaces);
        let cells = Cells::new(snapshot, &governors, &oldest_first);
        let givers = governors.ranked().iter().map(|policy| Arc::new(policy.id.clone())).collect();
        Self {
            snapshot,
            now,
            storage: EffectiveStorage::new(
                &policies.storage,
                snapshot.node_labels.as_ref(),
                snapshot.filesystem,
            ),
            rank,
            oldest_first,
            cells,
            floor: vec![false; archives.len()],
            floor_taken: false,
            governors,
            decisions: vec![None; archives.len()],
            remarks: vec![None; archives.len()],
            givers,
            extra_givers: HashMap::new(),
            metered_deletions: 0,
        }
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
            return By(Some(giver));
        }
        self.givers.push(Arc::new(id.clone()));
        self.extra_givers.insert(id.clone(), self.givers.len() - 1);
        By(Some(self.givers.len() - 1))
    }

    /// Whether nothing has been decided about the archive yet, so that a rule may take it: it is
    /// neither protected nor gone, and, if it is incomplete, nobody can still be writing it.
    pub(super) fn may_take(&self, place: usize) -> bool {
        self.decisions[place].is_none()
            && self.is_whole_or_quiet(place)
            && !matches!(self.cells.of(place).governing, Governing::Invalid(_))
    }

    /// Whether the archive is still there when this rule looks.
    pub(super) fn stays(&self, place: usize) -> bool {
        self.decisions[place].is_none_or(|decision| decision.reason.action() == Action::Keep)
    }

    /// Whether the archive counts toward limits: pinned ones do; what cannot be judged does not,
    /// pinned or not.
    pub(super) fn counts(&self, place: usize) -> bool {
        let judged = self.decisions[place].is_none_or(|decision| {
            decision.reason == Reason::Pinned && unjudgeable(&self.snapshot.archives[place]).is_none()
        });
        judged && self.is_whole_or_quiet(place)
    }

    /// Whether it could be among the newest of its lineage or group.
    pub(super) fn is_candidate_for_newest(&self, place: usize) -> bool {
        self.decisions[place].is_none() && self.snapshot.archives[place].state == State::Complete
    }

    fn is_whole_or_quiet(&self, place: usize) -> bool {
        let archive = &self.snapshot.archives[place];
        archive.state == State::Complete || self.has_passed(archive.changed, QUIET)
    }

    /// Whether `length` has passed since `start`, by a clock that can be trusted.
    fn has_passed(&self, start: Timestamp, length: Duration) -> bool {
        self.snapshot.clock == Clock::Trusted && self.is_due(start, length)
    }

    fn is_due(&self, start: Timestamp, length: Duration) -> bool {
        end_of(start, length) <= self.now
    }

    /// Decides that the archive goes.
    pub(super) fn take(&mut self, place: usize, reason: Reason, by: By, detail: Detail) {
        debug_assert!(self.stays(place), "an archive has one verdict");
        self.floor_taken |= self.floor[place];
        self.decisions[place] = Some(Decision { reason, by, detail });
    }

    /// Takes by the wall clock, or remarks that the clock is not to be trusted.
    fn take_by_time(&mut self, place: usize, reason: Reason, by: By, detail: Detail) {
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
    fn remark(&mut self, place: usize, reason: Reason, by: By, detail: Detail) {
        self.remarks[place].get_or_insert(Decision { reason, by, detail });
    }

    fn keep(&mut self, place: usize, reason: Reason, detail: Detail) {
        self.decisions[place] = Some(Decision { reason, by: By::NOBODY, detail });
    }

    /// What no rule may touch.
    pub(super) fn protect(&mut self) {
        for place in 0..self.snapshot.archives.len() {
            let archive = &self.snapshot.archives[place];
            if archive.pinned {
                self.keep(place, Reason::Pinned, Detail::None);
            } else if let Some((reason, detail)) = unjudgeable(archive) {
                self.keep(place, reason, detail);
            }
        }
    }

    /// What somebody asked to be deleted. A request names the archive, so not knowing whose it is
    /// does not stand in its way; a pin does, and so does a writer.
    pub(super) fn discard(&mut self) {
        for place in 0..self.snapshot.archives.len() {
            let unknown = |decision: Decision| decision.reason == Reason::UnknownIdentity;
            let open = self.decisions[place].is_none_or(unknown);
            let archive = &self.snapshot.archives[place];
            if archive.discarded && open && archive.file.kind() == NameKind::Kubelet {
                self.decisions[place] =
                    Some(Decision { reason: Reason::Discarded, by: By::NOBODY, detail: Detail::None });
            }
        }
    }

    /// Every undecided archive with the policy that governs it.
    fn governed(&self) -> Vec<(usize, By, &'a Policy)> {
        let open = self.oldest_first.iter().filter(|&&place| self.decisions[place].is_none());
        open.filter_map(|&place| self.policy(place).map(|(by, policy)| (place, By(Some(by)), policy)))
            .collect()
    }

    pub(super) fn take_orphans(&mut self) {
        for (place, by, policy) in self.governed() {
            let (Some(rule), Some(absences)) = (policy.orphans, &self.snapshot.archives[place].absences)
            else {
                continue;
            };
            let absence = match rule.when {
                OrphanWhen::WorkloadDeleted => absences.workload,
                OrphanWhen::PodDeleted => absences.pod,
                OrphanWhen::NamespaceDeleted => absences.namespace,
            };
            let Some(absence) = absence else { continue };
            let end = end_of(absence.since, rule.grace);
            // Absent at the end of the grace period, not only at its beginning.
            if absence.confirmed >= end && self.is_due(absence.since, rule.grace) {
                self.take_by_time(place, Reason::Orphaned, by, Detail::GoneSince(absence.since));
            } else {
                self.remark(place, Reason::OrphanGracePeriod, by, Detail::GraceEnds(end));
            }
        }
    }

    pub(super) fn take_incomplete(&mut self) {
        for (place, by, policy) in self.governed() {
            let archive = &self.snapshot.archives[place];
            let (State::Incomplete, Some(grace)) = (archive.state, policy.incomplete_grace) else { continue };
            if self.is_due(archive.changed, grace) {
                let age = age(archive.changed, self.now);
                self.take_by_time(place, Reason::Incomplete, by, Detail::Age { age, limit: grace });
            } else {
                let ends = Detail::GraceEnds(end_of(archive.changed, grace));
                self.remark(place, Reason::WithinLimits, by, ends);
            }
        }
    }

    pub(super) fn take_oversized(&mut self) {
        for (place, by, policy) in self.governed() {
            // 0 is off.
            let Some(limit) = policy.retention.max_archive_size.filter(|limit| *limit > 0) else { continue };
            let have = self.snapshot.archives[place].size;
            if have > limit && self.may_take(place) {
                self.take(place, Reason::MaxArchiveSize, by, Detail::Size { have, limit });
            }
        }
    }

    /// Marks the newest complete archives of each lineage that are still there.
    pub(super) fn raise_floor(&mut self) {
        for lineage in self.cells.lineages(&self.rank) {
            let archives = &self.snapshot.archives;
            // The lineage has left the node when that is confirmed for all that is known of it.
            let idle_since = lineage
                .iter()
                .map(|&place| archives[place].idle_since)
                .try_fold(Timestamp::MIN, |latest, idle| Some(latest.max(idle?)));
            let newest: Vec<usize> =
                lineage.iter().rev().copied().filter(|&place| self.is_candidate_for_newest(place)).collect();
            for (newer, place) in newest.into_iter().enumerate() {
                let retention = self.policy(place).map(|(_, policy)| &policy.retention);
                let keep = retention.map_or(DEFAULT_KEEP_LATEST, |retention| retention.keep_latest);
                let ended =
                    match retention.map_or_else(KeepFor::default, |retention| retention.keep_latest_for) {
                        KeepFor::Forever => false,
                        KeepFor::For(length) => idle_since.is_some_and(|idle| self.has_passed(idle, length)),
                    };
                self.floor[place] = !ended && newer < usize::try_from(keep).unwrap_or(usize::MAX);
            }
        }
    }

    /// Marks them again where a limit took some, so that the rules after it spare the newest of
    /// what it left.
    pub(super) fn renew_floor(&mut self) {
        if std::mem::take(&mut self.floor_taken) {
            self.raise_floor();
        }
    }

    pub(super) fn take_by_tiers(&mut self) {
        for policy in 0..self.governors.ranked().len() {
            // Tiers that keep nothing are off, each of them.
            let tiers = self.governors.ranked()[policy].retention.tiers;
            let Some(wanted) = tiers.filter(|tiers| *tiers != Tiers::default()) else { continue };
            let by = By(Some(policy));
            for lineage in self.cells.governed_lineages(policy, &self.rank) {
                let archives = &self.snapshot.archives;
                let whole: Vec<usize> = lineage
                    .iter()
                    .rev()
                    .copied()
                    .filter(|&place| self.counts(place) && archives[place].state == State::Complete)
                    .collect();
                let times: Vec<Timestamp> = whole.iter().map(|&place| archives[place].taken).collect();
                // Of incomplete ones, tiers keep none and take none: these have a rule of their own.
                for (place, kept_by) in whole.into_iter().zip(tiers::kept_by(wanted, &times)) {
                    if !self.may_take(place) {
                    } else if kept_by.any() {
                        self.remark(place, Reason::TierKept, by, Detail::KeptBy(kept_by));
                    } else if self.floor[place] {
                        self.spare(place, Reason::Tiers, by);
                    } else {
                        self.take_by_time(place, Reason::Tiers, by, Detail::None);
                    }
                }
            }
        }
    }

    pub(super) fn take_by_age(&mut self) {
        for (place, by, policy) in self.governed() {
            // 0 is off.
            let Some(limit) = policy.retention.max_age.filter(|limit| !limit.is_zero()) else { continue };
            let taken = self.snapshot.archives[place].taken;
            if !self.is_due(taken, limit) || !self.may_take(place) {
            } else if self.floor[place] {
                self.spare(place, Reason::MaxAge, by);
            } else {
                self.take_by_time(
                    place,
                    Reason::MaxAge,
                    by,
                    Detail::Age { age: age(taken, self.now), limit },
                );
            }
        }
    }

    pub(super) fn take_by_count(&mut self, level: Level) {
        self.take_by_level(level, Measure::Count, level.count_reason());
    }

    pub(super) fn take_by_total_size(&mut self, level: Level) {
        self.take_by_level(level, Measure::TotalSize, level.size_reason());
    }

    fn take_by_level(&mut self, level: Level, measure: Measure, reason: Reason) {
        self.renew_floor();
        let total = self.snapshot.filesystem.map(|filesystem| filesystem.total_bytes);
        for policy in 0..self.governors.ranked().len() {
            let retention = &self.governors.ranked()[policy].retention;
            let limits = match level {
                Level::Container => retention.per_container,
                Level::Workload => retention.per_workload,
                Level::Pod => retention.per_pod,
                Level::Namespace => retention.per_namespace,
            };
            let keep_latest = retention.keep_latest;
            let limit = match measure {
                Measure::Count => limits.max_count,
                Measure::TotalSize => limits.max_total_size.and_then(|size: Size| size.bytes(total)),
            };
            // 0 is off.
            let Some(limit) = limit.filter(|limit| *limit > 0) else { continue };
            for group in self.cells.governed_groups(policy, level, &self.rank) {
                self.limit(&group, measure, limit, keep_latest, (reason, By(Some(policy))));
            }
        }
    }

    pub(super) fn take_ceiling_age(&mut self, place: usize, limit: Duration, by: By) {
        let taken = self.snapshot.archives[place].taken;
        if self.is_due(taken, limit) && self.may_take(place) {
            let detail = Detail::Age { age: age(taken, self.now), limit };
            self.take_by_time(place, Reason::NamespaceCeiling, by, detail);
        }
    }

    /// Lets the oldest of what is to go, go now, and has the rest wait for the deletion bucket.
    pub(super) fn draw_from_bucket(&mut self) {
        let metered: Vec<usize> = self
            .oldest_first
            .iter()
            .copied()
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
        for place in 0..self.snapshot.archives.len() {
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
                Governing::Doubtful(policy) => (Reason::NoPolicy, By(Some(policy)), Detail::LabelsUnknown),
                Governing::Policy(policy) => (remark.reason, By(remark.by.0.or(Some(policy))), remark.detail),
            };
            self.decisions[place] = Some(Decision { reason, by, detail });
        }
        let givers = &self.givers;
        let verdict = |decision: &Option<Decision>| {
            let fallback = Decision { reason: Reason::NoPolicy, by: By::NOBODY, detail: Detail::None };
            let Decision { reason, by, detail } = decision.unwrap_or(fallback);
            Verdict { reason, policy: by.0.map(|giver| Arc::clone(&givers[giver])), detail }
        };
        Plan {
            verdicts: self.decisions.iter().map(verdict).collect(),
            watermark,
            unjudged_storage: self.storage.unjudged.iter().cloned().map(Arc::new).collect(),
            metered_deletions: self.metered_deletions,
        }
    }

    /// Whether what the archive belongs to is known to be gone, by its policy's measure.
    pub(super) fn is_orphan(&self, place: usize) -> bool {
        let absences: Absences =
            self.snapshot.archives[place].absences.as_deref().copied().unwrap_or_default();
        let when = self.policy(place).and_then(|(_, policy)| policy.orphans).map(|rule| rule.when);
        match when.unwrap_or_default() {
            OrphanWhen::WorkloadDeleted => absences.workload.is_some(),
            OrphanWhen::PodDeleted => absences.pod.is_some(),
            OrphanWhen::NamespaceDeleted => absences.namespace.is_some(),
        }
    }

    /// Whether the watermark may take the archive: a policy that does not parse does not stop it.
    pub(super) fn watermark_may_take(&self, place: usize) -> bool {
        let archive = &self.snapshot.archives[place];
        self.decisions[place].is_none() && self.is_whole_or_quiet(place) && archive.state != State::Unreadable
    }
}

/// Why an archive is not judged at all: it may still be being written, it is not the kubelet's, or
/// whose it is cannot be told.
fn unjudgeable(archive: &Archive) -> Option<(Reason, Detail)> {
    if !archive.settled {
        Some((Reason::Settling, Detail::None))
    } else if archive.file.kind() != NameKind::Kubelet && archive.identity.is_some() {
        Some((Reason::NoPolicy, Detail::ForeignName))
    } else if archive.file.kind() != NameKind::Kubelet || is_unknown(archive) {
        Some((Reason::UnknownIdentity, Detail::None))
    } else {
        None
    }
}

/// A complete archive without an identity, or one that is not understood at all. Incomplete ones
/// are different: a cut-off dump has lost the end, where its identity would be.
fn is_unknown(archive: &Archive) -> bool {
    match archive.state {
        State::Complete => archive.identity.is_none(),
        State::Incomplete => false,
        State::Unreadable => true,
    }
}

fn end_of(start: Timestamp, length: Duration) -> Timestamp {
    start.checked_add(length).unwrap_or(Timestamp::MAX)
}

fn age(start: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(start)).unwrap_or_default()
}

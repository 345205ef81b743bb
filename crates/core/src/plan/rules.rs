//! The rules that are about one archive at a time, and how limits are applied level by level.

use std::time::Duration;

use jiff::Timestamp;

use super::judgement::{Rule, Saw};
use super::limits::{Limit, Measure};
use super::planner::{By, Planner, Scope, age, end_of};
use super::snapshot::Absence;
use super::tiers;
use super::verdict::{Detail, Level, Reason};
use crate::archive::State;
use crate::policy::{Kind, OrphanWhen, Policy, Size, Tiers};

/// The states that have a rule of their own, and the grace period that a policy gives them.
pub(super) const BROKEN: [(State, Reason, GracePeriod); 2] = [
    (State::Incomplete, Reason::Incomplete, |policy| policy.incomplete_grace),
    (State::Damaged, Reason::Damaged, |policy| policy.damaged_grace),
];

type GracePeriod = fn(&Policy) -> Option<Duration>;

impl<'a> Planner<'a> {
    /// What no rule may touch.
    pub(super) fn protect(&mut self) {
        for place in 0..self.archives.len() {
            let archive = &self.archives[place];
            if archive.pinned {
                self.decide(place, Reason::Pinned, By::NO_POLICY, Detail::None);
            } else if let Some((reason, detail)) = archive.unjudgeable() {
                self.decide(place, reason, By::NO_POLICY, detail);
            }
        }
    }

    /// Takes archives whose deletion was requested. A request names the archive, so not knowing whose it is
    /// does not stand in its way; a pin does, and so does a writer.
    pub(super) fn discard(&mut self) {
        for place in 0..self.archives.len() {
            let open = self.reason(place).is_none_or(|reason| reason == Reason::UnknownIdentity);
            let archive = &self.archives[place];
            if archive.discarded && open && archive.is_kubelets {
                self.decide(place, Reason::Discarded, By::NO_POLICY, Detail::None);
            }
        }
    }

    /// Every undecided archive that a policy governs to which `rule` applies, and that rule.
    pub(super) fn governed<T: Copy>(&self, rule: impl Fn(&'a Policy) -> Option<T>) -> Vec<(usize, By, T)> {
        let rules: Vec<Option<T>> = self.policy_index.ranked().iter().map(|policy| rule(policy)).collect();
        if rules.iter().all(Option::is_none) {
            return Vec::new();
        }
        let open = (0..self.archives.len()).filter(|&place| self.reason(place).is_none());
        open.filter_map(|place| {
            let (policy, _) = self.policy(place)?;
            rules[policy].map(|rule| (place, By::policy(policy), rule))
        })
        .collect()
    }

    pub(super) fn take_orphans(&mut self) {
        for (place, by, rule) in self.governed(|policy| policy.orphans) {
            let Some(absence) = self.absence(place, rule.when) else {
                self.watch_saw(place, by, Saw::NotGone);
                continue;
            };
            let end = end_of(absence.since, rule.grace);
            self.watch_saw(place, by, Saw::Gone { since: absence.since, until: end });
            // Absent at the end of the grace period, not only at its beginning.
            if absence.confirmed >= end && self.is_due(absence.since, rule.grace) {
                self.take_by_time(place, Reason::Orphaned, by, Detail::GoneSince(absence.since));
            } else {
                self.note(place, Reason::OrphanGracePeriod, by, Detail::GraceEnds(end));
            }
        }
    }

    /// What was cut off, and what contradicts itself: each by a rule of its own.
    pub(super) fn take_broken(&mut self) {
        for (state, reason, grace) in BROKEN {
            self.begin(Rule::Taking(reason));
            for (place, by, grace) in self.governed(grace) {
                if self.archives[place].state != state {
                    continue;
                }
                let changed = self.archive(place).changed;
                self.watch_saw(place, by, Saw::Age { age: age(changed, self.now), limit: grace });
                if self.is_due(changed, grace) {
                    let age = age(changed, self.now);
                    self.take_by_time(place, reason, by, Detail::Age { age, limit: grace });
                } else {
                    let ends = Detail::GraceEnds(end_of(changed, grace));
                    self.note(place, Reason::WithinLimits, by, ends);
                }
            }
        }
    }

    pub(super) fn take_oversized(&mut self) {
        // 0 is off.
        let rule = |policy: &Policy| policy.retention.max_archive_size.filter(|limit| *limit > 0);
        for (place, by, limit) in self.governed(rule) {
            let have = self.archives[place].size;
            self.watch_saw(place, by, Saw::Size { have, limit });
            if have > limit && self.may_take(place) {
                self.take(place, Reason::MaxArchiveSize, by, Detail::Size { have, limit });
            }
        }
    }

    pub(super) fn take_by_tiers(&mut self) {
        for policy in 0..self.policy_index.ranked().len() {
            // Tiers that keep nothing are off, each of them.
            let retention = &self.policy_index.ranked()[policy].retention;
            let Some(wanted) = retention.tiers.filter(|tiers| *tiers != Tiers::default()) else { continue };
            let by = By::policy(policy);
            let limit = Limit {
                measure: Measure::Count,
                most: 0,
                keep_newest: 0,
                min_age: retention.min_age.unwrap_or_default(),
                scope: Scope::Retention,
                reason: Reason::Tiers,
                by,
            };
            for lineage in self.groups.governed_lineages(policy) {
                let archives = &self.archives;
                let whole: Vec<usize> = lineage
                    .iter()
                    .rev()
                    .copied()
                    .filter(|&place| {
                        self.counts(place, Scope::Retention) && archives[place].state == State::Complete
                    })
                    .collect();
                let times: Vec<Timestamp> = whole.iter().map(|&place| archives[place].taken).collect();
                // Of what is not complete, tiers keep none and take none: these have rules of their own.
                for (place, kept_by) in whole.into_iter().zip(tiers::kept_by(wanted, &times)) {
                    if self.may_take(place) {
                        self.watch_saw(place, by, Saw::Tiers(kept_by));
                    }
                    if !self.may_take(place) {
                    } else if kept_by.any() {
                        self.note(place, Reason::TierKept, by, Detail::KeptBy(kept_by));
                    } else if self.floor[place] {
                        self.keep_as_newest(place, Reason::Tiers, by);
                    } else if !self.is_too_young(place, &limit) {
                        self.take_by_time(place, Reason::Tiers, by, Detail::None);
                    }
                }
            }
        }
    }

    pub(super) fn take_by_age(&mut self) {
        for (place, by, limit) in self.governed(max_age) {
            let taken = self.archives[place].taken;
            self.watch_saw(place, by, Saw::Age { age: age(taken, self.now), limit });
            if !self.is_due(taken, limit) || !self.may_take(place) {
            } else if self.floor[place] {
                self.keep_as_newest(place, Reason::MaxAge, by);
            } else {
                let detail = Detail::Age { age: age(taken, self.now), limit };
                self.take_by_time(place, Reason::MaxAge, by, detail);
            }
        }
    }

    /// Limits on counts, then on total sizes, each level by level. The older operator's policies go by its order:
    /// of each level the count, then the size.
    pub(super) fn take_by_limits(&mut self) {
        for level in Level::ALL {
            self.take_by_level(level, Measure::Count, |_| true);
            self.take_by_level(level, Measure::TotalSize, is_older_operators);
        }
        for level in Level::ALL {
            self.take_by_level(level, Measure::TotalSize, |policy| !is_older_operators(policy));
        }
    }

    fn take_by_level(&mut self, level: Level, measure: Measure, is_meant: impl Fn(&Policy) -> bool) {
        self.renew_floor();
        self.begin(Rule::Taking(match measure {
            Measure::Count => level.count_reason(),
            Measure::TotalSize => level.size_reason(),
        }));
        let total = self.snapshot.filesystem.map(|filesystem| filesystem.total_bytes);
        for place in 0..self.policy_index.ranked().len() {
            let policy = self.policy_index.ranked()[place];
            let retention = &policy.retention;
            let limits = match level {
                Level::Container => retention.per_container,
                Level::Workload => retention.per_workload,
                Level::Pod => retention.per_pod,
                Level::Namespace => retention.per_namespace,
            };
            let (most, reason) = match measure {
                Measure::Count => (limits.max_count, level.count_reason()),
                Measure::TotalSize => {
                    (limits.max_total_size.and_then(|size: Size| size.bytes(total)), level.size_reason())
                }
            };
            // 0 is off.
            let Some(most) = most.filter(|most| *most > 0 && is_meant(policy)) else { continue };
            let limit = Limit {
                measure,
                most,
                keep_newest: retention.keep_latest,
                min_age: retention.min_age.unwrap_or_default(),
                scope: Scope::Retention,
                reason,
                by: By::policy(place),
            };
            for group in self.groups.governed_groups(place, level) {
                self.limit(group, limit);
            }
        }
    }

    pub(super) fn take_ceiling_age(&mut self, place: usize, limit: Duration, by: By) {
        let taken = self.archives[place].taken;
        if self.may_take(place) {
            self.watch_saw(place, by, Saw::Age { age: age(taken, self.now), limit });
        }
        if self.is_due(taken, limit) && self.may_take(place) {
            let detail = Detail::Age { age: age(taken, self.now), limit };
            self.take_by_time(place, Reason::NamespaceCeiling, by, detail);
        }
    }

    /// Whether what the archive belongs to is known to be gone, by its policy's measure.
    pub(super) fn is_orphan(&self, place: usize) -> bool {
        let when = self.policy(place).and_then(|(_, policy)| policy.orphans).map(|rule| rule.when);
        self.absence(place, when.unwrap_or_default()).is_some()
    }

    /// That what the archive belongs to is gone, by that measure.
    pub(super) fn absence(&self, place: usize, when: OrphanWhen) -> Option<Absence> {
        let absences = self.archive(place).absences.as_deref()?;
        match when {
            OrphanWhen::WorkloadDeleted => absences.workload,
            OrphanWhen::PodDeleted => absences.pod,
            OrphanWhen::NamespaceDeleted => absences.namespace,
        }
    }
}

/// The age from which on a policy takes archives.
pub(super) fn max_age(policy: &Policy) -> Option<Duration> {
    // 0 is off.
    policy.retention.max_age.filter(|limit| !limit.is_zero())
}

/// Whether a policy is one of the older operator's.
fn is_older_operators(policy: &Policy) -> bool {
    policy.id.kind == Kind::CheckpointRestoreOperator
}

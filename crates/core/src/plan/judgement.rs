//! What the rules of a plan say of one archive that is watched: noted by the rules themselves as they act, so that an
//! explanation cannot differ from the plan. Where no archive is watched, nothing is noted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::governing::Governing;
use super::limits::Measure;
use super::planner::{By, Planner, Scope};
use super::verdict::{Action, Detail, KeptBy, Reason, seconds};
use crate::duration;
use crate::policy::PolicyRef;
use crate::quantity;

/// A rule, in the order in which rules act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Which policy governs the archive.
    Governing,
    /// What no rule may touch: pins, archives that are still being written, and archives whose container is unknown.
    Protection,
    /// A rule that takes archives for this reason.
    Taking(Reason),
    /// Whether it is certain that the policies known here are those of now.
    Confidence,
    /// A storage policy's `perNamespace.maxAge`.
    NamespaceMaxAge,
    /// A storage policy's `perNamespace.maxCount`.
    NamespaceMaxCount,
    /// A storage policy's `perNamespace.maxTotalSize`.
    NamespaceMaxTotalSize,
    /// A storage policy's `maxTotalSize`.
    NodeMaxTotalSize,
    /// How many archives policies may delete a minute.
    DeletionLimit,
    /// The watermarks of the file system.
    Watermark,
}

impl Rule {
    /// The rule's name on the wire.
    pub fn name(self) -> String {
        match self {
            Self::Governing => "Governing".to_owned(),
            Self::Protection => "Protection".to_owned(),
            Self::Taking(reason) => reason.to_string(),
            Self::Confidence => "Confidence".to_owned(),
            Self::NamespaceMaxAge => "NamespaceMaxAge".to_owned(),
            Self::NamespaceMaxCount => "NamespaceMaxCount".to_owned(),
            Self::NamespaceMaxTotalSize => "NamespaceMaxTotalSize".to_owned(),
            Self::NodeMaxTotalSize => "NodeMaxTotalSize".to_owned(),
            Self::DeletionLimit => "DeletionLimit".to_owned(),
            Self::Watermark => "Watermark".to_owned(),
        }
    }
}

/// What a rule saw of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Saw {
    /// Nothing with figures.
    Nothing,
    /// Its pod had the labels that the policy selects, and does not have them any more.
    FormerLabels,
    /// Its policy would govern it, but for this.
    Uncertain(Detail),
    /// Its age, by when it was taken or last changed, and how old it may be.
    Age {
        /// Its age.
        age: Duration,
        /// How old it may be.
        limit: Duration,
    },
    /// Its size in bytes.
    Size {
        /// Its bytes.
        have: u64,
        /// How many it may have.
        limit: u64,
    },
    /// So many archives in its group where so many may be.
    Count {
        /// Archives that count.
        have: u64,
        /// How many may be.
        limit: u64,
        /// Its place among these, the newest first, from 1; 0: it does not count.
        position: u64,
        /// How many archives the limit takes.
        taken: u64,
    },
    /// So many bytes in its group where so many may be.
    TotalSize {
        /// Bytes that count.
        have: u64,
        /// How many may be.
        limit: u64,
        /// Its place among the archives that count, the newest first, from 1; 0: it does not count.
        position: u64,
        /// How many archives the limit takes.
        taken: u64,
    },
    /// What it belongs to is gone.
    Gone {
        /// When the API first said so.
        since: Timestamp,
        /// When the grace period ends.
        until: Timestamp,
    },
    /// What it belongs to is not known to be gone.
    NotGone,
    /// The tiers that keep it, if any.
    Tiers(KeptBy),
    /// The policies' bucket holds so many deletions.
    Deletions(u64),
    /// The file system's use.
    Disk {
        /// In hundredths of a percent.
        used: u32,
        /// Bytes to be freed.
        wanted: u64,
    },
}

impl fmt::Display for Saw {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = |formatter: &mut fmt::Formatter<'_>, position: u64| match position {
            0 => formatter.write_str("; this one does not count"),
            1 => formatter.write_str("; this one is the newest"),
            _ => write!(formatter, "; this one is number {position}, the newest first"),
        };
        let goes = |formatter: &mut fmt::Formatter<'_>, taken: u64| match taken {
            0 => Ok(()),
            1 => formatter.write_str(", so 1 of them goes"),
            _ => write!(formatter, ", so {taken} of them go"),
        };
        match self {
            Self::Nothing => Ok(()),
            Self::FormerLabels => formatter.write_str(
                "by labels that its pod had before: it overrides, so removing them changes nothing",
            ),
            Self::Uncertain(detail) => detail.fmt(formatter),
            Self::Age { age, limit } => {
                write!(formatter, "{}, limit {}", duration::human(*age), duration::human(*limit))
            }
            Self::Size { have, limit } => {
                write!(formatter, "{}, limit {}", quantity::human(*have), quantity::human(*limit))
            }
            Self::Count { have, limit, position, taken } => {
                write!(formatter, "{have} archives, limit {limit}")?;
                goes(formatter, *taken)?;
                place(formatter, *position)
            }
            Self::TotalSize { have, limit, position, taken } => {
                let (have, limit) = (quantity::human(*have), quantity::human(*limit));
                write!(formatter, "{have} together, limit {limit}")?;
                goes(formatter, *taken)?;
                place(formatter, *position)
            }
            Self::Gone { since, until } => {
                write!(formatter, "gone since {}, grace period until {}", seconds(*since), seconds(*until))
            }
            Self::NotGone => formatter.write_str("what it belongs to is not known to be gone"),
            Self::Tiers(kept_by) if kept_by.any() => write!(formatter, "the newest of its period: {kept_by}"),
            Self::Tiers(_) => formatter.write_str("no tier keeps it"),
            Self::Deletions(1) => formatter.write_str("1 deletion is allowed now"),
            Self::Deletions(allowed) => write!(formatter, "{allowed} deletions are allowed now"),
            Self::Disk { used, wanted } => {
                let wanted = quantity::human(*wanted);
                write!(formatter, "disk {}.{:02}% used, {wanted} to be freed", used / 100, used % 100)
            }
        }
    }
}

/// What a rule decided about the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It goes.
    Took {
        /// Why.
        reason: Reason,
        /// The figures behind it.
        detail: Detail,
    },
    /// It stays, for now, although a rule would take it; or no rule may touch it.
    Spared {
        /// Why.
        reason: Reason,
        /// The figures behind it.
        detail: Detail,
    },
    /// The rule has nothing against it.
    Kept,
    /// The rule is not about it.
    DoesNotApply(Because),
}

/// Why a rule is not about an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Because {
    /// An earlier rule decided.
    Decided(Reason),
    /// No policy governs it for certain.
    NoPolicy,
    /// The policy that governs it, or the policies of this node, have no such rule.
    NoSuchRule,
    /// The rule is for other archives.
    OtherArchives,
    /// The policy that governs it has `precedence: Override`, and decides alone.
    Overridden,
}

/// What one rule saw of the archive, and what it decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The rule.
    pub rule: Rule,
    /// The policy that has the rule; none where no policy is needed or none has it.
    pub policy: Option<Arc<PolicyRef>>,
    /// What it saw.
    pub saw: Saw,
    /// What it decided.
    pub outcome: Outcome,
}

/// What is noted of the archive that is watched.
#[derive(Debug)]
pub(super) struct Watch {
    place: usize,
    rule: Option<Rule>,
    /// What was decided when the rule began.
    decided: Option<Reason>,
    /// Where the rule's judgements begin.
    begin: usize,
    judgements: Vec<Judgement>,
}

impl Watch {
    /// Watches the archive at that place of the plan's order.
    pub(super) fn new(place: usize) -> Self {
        Self { place, rule: None, decided: None, begin: 0, judgements: Vec::new() }
    }
}

impl Planner<'_> {
    /// Notes that a rule begins.
    pub(super) fn begin(&mut self, rule: Rule) {
        if self.watch.is_some() {
            self.end_rule();
            let decided = self.watch.as_ref().and_then(|watch| self.reason(watch.place));
            if let Some(watch) = &mut self.watch {
                (watch.rule, watch.decided, watch.begin) = (Some(rule), decided, watch.judgements.len());
            }
        }
    }

    /// Notes what the rule sees, if the archive is the one that is watched.
    pub(super) fn watch_saw(&mut self, place: usize, by: By, saw: Saw) {
        if self.watch.as_ref().is_some_and(|watch| watch.place == place) {
            let policy = self.policy_ref(by);
            if let Some(watch) = &mut self.watch
                && let Some(rule) = watch.rule
            {
                watch.judgements.push(Judgement { rule, policy, saw, outcome: Outcome::Kept });
            }
        }
    }

    /// Notes what the rule decides, if the archive is the one that is watched.
    pub(super) fn watch_outcome(&mut self, place: usize, by: By, outcome: Outcome) {
        if self.watch.as_ref().is_some_and(|watch| watch.place == place) {
            let policy = self.policy_ref(by);
            if let Some(watch) = &mut self.watch
                && let Some(rule) = watch.rule
            {
                if watch.judgements.len() == watch.begin {
                    watch.judgements.push(Judgement { rule, policy, saw: Saw::Nothing, outcome });
                } else if let Some(last) = watch.judgements.last_mut() {
                    last.outcome = outcome;
                }
            }
        }
    }

    /// Notes what a limit sees: how much counts of the archive's group, and its place among that. Returns whether the archive is
    /// in the group.
    pub(super) fn watch_limit(
        &mut self,
        group: &[usize],
        (measure, scope): (Measure, Scope),
        by: By,
        most: u64,
    ) -> bool {
        let Some(place) = self.watch.as_ref().map(|watch| watch.place) else { return false };
        let is_in_group = group.contains(&place) && self.stays(place);
        if is_in_group {
            let newest_first = group.iter().rev().copied().filter(|&other| self.counts(other, scope));
            let counted: Vec<usize> = newest_first.collect();
            let bytes = counted.iter().map(|&other| measure.of(&self.archives[other]));
            let have = bytes.fold(0, u64::saturating_add);
            let position = counted.iter().position(|&other| other == place);
            let position = position.map_or(0, |before| before as u64 + 1);
            let saw = match measure {
                Measure::Count => Saw::Count { have, limit: most, position, taken: 0 },
                Measure::TotalSize => Saw::TotalSize { have, limit: most, position, taken: 0 },
            };
            self.watch_saw(place, by, saw);
        }
        is_in_group
    }

    /// Notes how many archives the limit takes that was noted last.
    pub(super) fn watch_taken(&mut self, count: u64) {
        let last = self.watch.as_mut().and_then(|watch| watch.judgements.last_mut());
        if let Some(Judgement { saw: Saw::Count { taken, .. } | Saw::TotalSize { taken, .. }, .. }) = last {
            *taken = count;
        }
    }

    /// Notes which policy governs the archive.
    pub(super) fn watch_governing(&mut self) {
        self.begin(Rule::Governing);
        let Some(place) = self.watch.as_ref().map(|watch| watch.place) else { return };
        match self.groups.of(place).governing {
            Governing::Policy(policy) => {
                let selector = &self.policy_index.ranked()[policy].selector.pod_labels;
                let labels = self.archive(place).pod_labels.as_deref();
                let has_them = selector.0.is_empty() || labels.is_some_and(|labels| selector.matches(labels));
                let saw = if has_them { Saw::Nothing } else { Saw::FormerLabels };
                self.watch_saw(place, By::policy(policy), saw);
            }
            Governing::Nothing => {}
            Governing::Handover(policy) => {
                self.watch_saw(place, By::policy(policy), Saw::Uncertain(Detail::HandedOver));
                let (reason, detail) = (Reason::Handover, Detail::HandedOver);
                self.watch_outcome(place, By::NO_POLICY, Outcome::Spared { reason, detail });
            }
            Governing::Uncertain(policy, detail) => {
                self.watch_saw(place, By::policy(policy), Saw::Uncertain(detail));
                let reason = Reason::NoPolicy;
                self.watch_outcome(place, By::NO_POLICY, Outcome::Spared { reason, detail });
            }
            Governing::Invalid(policy) => {
                let by = self.by(&policy.id);
                let (reason, detail) = (Reason::PolicyInvalid, Detail::None);
                self.watch_outcome(place, by, Outcome::Spared { reason, detail });
            }
        }
    }

    /// The archive that is watched.
    pub(super) fn watched(&self) -> Option<usize> {
        self.watch.as_ref().map(|watch| watch.place)
    }

    /// Notes that a rule said nothing about the archive, where it did not.
    fn end_rule(&mut self) {
        let Some(watch) = &self.watch else { return };
        let governing = self.groups.of(watch.place).governing;
        if let Some(watch) = &mut self.watch
            && let Some(rule) = watch.rule.take()
            && watch.judgements.len() == watch.begin
        {
            let is_retention = matches!(rule, Rule::Taking(reason)
                if !matches!(reason, Reason::Discarded | Reason::FailedDump | Reason::ScheduleRetention));
            let because = match (rule, watch.decided) {
                (Rule::Governing, _) => Because::NoPolicy,
                (Rule::Confidence, _)
                | (
                    Rule::Protection
                    | Rule::DeletionLimit
                    | Rule::Taking(Reason::Discarded | Reason::FailedDump),
                    None,
                ) => Because::OtherArchives,
                (Rule::DeletionLimit, Some(reason)) if reason.action() == Action::Delete => {
                    Because::NoSuchRule
                }
                (_, Some(reason)) => Because::Decided(reason),
                _ if is_retention && !matches!(governing, Governing::Policy(_)) => Because::NoPolicy,
                _ => Because::NoSuchRule,
            };
            // A rule that acts in several turns is told of once.
            if watch.judgements.iter().all(|judgement| judgement.rule != rule) {
                let (saw, outcome) = (Saw::Nothing, Outcome::DoesNotApply(because));
                watch.judgements.push(Judgement { rule, policy: None, saw, outcome });
            }
        }
    }

    /// All that was noted of the archive that is watched, in the order of the rules.
    pub(super) fn judgements(&mut self) -> Vec<Judgement> {
        self.end_rule();
        let mut judgements = self.watch.take().map(|watch| watch.judgements).unwrap_or_default();
        // A rule that had nothing to say in its first turn may have had in a later one.
        let told: Vec<Rule> = judgements
            .iter()
            .filter(|judgement| !matches!(judgement.outcome, Outcome::DoesNotApply(_)))
            .map(|judgement| judgement.rule)
            .collect();
        judgements.retain(|judgement| {
            !matches!(judgement.outcome, Outcome::DoesNotApply(_)) || !told.contains(&judgement.rule)
        });
        judgements
    }
}

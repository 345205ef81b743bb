//! Why one archive has its verdict, and what would take it next.

use jiff::Timestamp;

use super::judgement::Judgement;
use super::planner::end_of;
use super::snapshot::Snapshot;
use super::verdict::{Action, Detail, Reason, Verdict};
use super::{Expiration, Governed, Look, Plan, expirations, plan_watching, plan_with};
use crate::policy::{Confidence, PolicySet};

/// Why an archive has its verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The place of the archive in the snapshot.
    pub place: usize,
    /// What each rule saw and decided, in the order of the rules.
    pub judgements: Vec<Judgement>,
    /// The verdict, which is the plan's.
    pub verdict: Verdict,
    /// What governs the archive.
    pub governed: Governed,
    /// What takes it next.
    pub next: Next,
}

/// What takes an archive next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It is to go now.
    Now,
    /// It goes as soon as the deletion limit allows.
    DeletionLimit,
    /// It goes as soon as it is certain that the policies are those of now.
    PoliciesConfirmed,
    /// It goes as soon as the clock is to be trusted.
    ClockTrusted,
    /// It goes as soon as the API confirms once more that what it belongs to is gone.
    OrphanConfirmed,
    /// It goes at that time, if nothing else changes.
    At(Expiration),
    /// Time alone does not take it.
    Nothing,
}

/// Explains the verdict about the archive at `place` in the snapshot by making the plan once more, with that archive
/// watched; none where there is no such archive. Tiers, limits and the watermark are not foreseen.
pub fn explain(
    snapshot: &Snapshot,
    policies: &PolicySet,
    confidence: &Confidence,
    now: Timestamp,
    place: usize,
) -> Option<Explanation> {
    let (plan, judgements) =
        plan_watching(snapshot, policies, confidence, now, Look { watched: Some(place), ..Look::default() });
    let verdict = plan.verdicts.get(place)?.clone();
    let governed = plan.governed.get(place).cloned().unwrap_or_default();
    let next = next(snapshot, policies, confidence, now, (&plan, place));
    Some(Explanation { place, judgements, verdict, governed, next })
}

fn next(
    snapshot: &Snapshot,
    policies: &PolicySet,
    confidence: &Confidence,
    now: Timestamp,
    (plan, place): (&Plan, usize),
) -> Next {
    let Some(verdict) = plan.verdicts.get(place) else { return Next::Nothing };
    match verdict.reason {
        reason if reason.action() == Action::Delete => return Next::Now,
        Reason::DeletionPending => return Next::DeletionLimit,
        Reason::PolicyStale => return Next::PoliciesConfirmed,
        Reason::ClockSuspect if matches!(verdict.detail, Detail::Would(_)) => return Next::ClockTrusted,
        _ if verdict.awaits_confirmation(now) => return Next::OrphanConfirmed,
        _ => {}
    }
    let foreseen = expirations(snapshot, policies, plan, now).swap_remove(place);
    // Of policies that are not certain to be those of now, only storage policies act.
    let acts = |reason: Reason| *confidence == Confidence::Current || reason == Reason::NamespaceCeiling;
    let foreseen = foreseen.filter(|foreseen| acts(foreseen.reason));
    let old_enough = old_enough(snapshot, policies, plan, place);
    let at = old_enough.filter(|at| foreseen.as_ref().is_none_or(|foreseen| *at < foreseen.at));
    let by_then = at.and_then(|at| {
        let then = plan_with(snapshot, policies, confidence, at).verdicts.swap_remove(place);
        let reason = match then.detail {
            Detail::Would(reason) if then.reason == Reason::DeletionPending => reason,
            _ => then.reason,
        };
        (reason.action() == Action::Delete).then_some(Expiration { at, reason, policy: then.policy })
    });
    by_then.or(foreseen).map_or(Next::Nothing, Next::At)
}

/// When the archive is as old as the policy wants that spares it until then.
fn old_enough(snapshot: &Snapshot, policies: &PolicySet, plan: &Plan, place: usize) -> Option<Timestamp> {
    let verdict = plan.verdicts.get(place).filter(|verdict| verdict.reason == Reason::MinAge)?;
    debug_assert!(matches!(verdict.detail, Detail::Would(_)), "a limit would take it");
    let id = plan.policy_of(place)?;
    let policy = policies.retention.iter().find(|policy| policy.id == *id)?;
    Some(end_of(snapshot.archives.get(place)?.taken, policy.retention.min_age?))
}

//! What a dry-run policy would change.

use jiff::Timestamp;

use super::snapshot::Snapshot;
use super::verdict::{Action, Reason, Verdict};
use super::{Plan, plan};
use crate::policy::{Mode, PolicyRef, PolicySet};

/// The archives whose fate a policy would change if it were enforced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference {
    /// Kept now, deleted then: place in the snapshot, and the verdict it would get.
    pub would_delete: Vec<(usize, Verdict)>,
    /// Deleted now, kept then.
    pub would_keep: Vec<(usize, Verdict)>,
}

/// Compares `current`, the plan of `policies`, with the plan in which the policy `id` is enforced.
pub fn difference(
    snapshot: &Snapshot,
    policies: &PolicySet,
    now: Timestamp,
    current: &Plan,
    id: &PolicyRef,
) -> Difference {
    let mut enforced = policies.clone();
    // An object of several parts is enforced as a whole.
    for policy in enforced.retention.iter_mut().filter(|policy| policy.id.is_same_object(id)) {
        policy.mode = Mode::Enforce;
    }
    for policy in enforced.storage.iter_mut().filter(|policy| policy.id.is_same_object(id)) {
        policy.mode = Mode::Enforce;
    }
    let mut difference = Difference::default();
    let then = plan(snapshot, &enforced, now);
    for (place, (verdict, then)) in current.verdicts.iter().zip(then.verdicts).enumerate() {
        match (goes(verdict, now), goes(&then, now)) {
            (false, true) => difference.would_delete.push((place, then)),
            (true, false) => difference.would_keep.push((place, then)),
            _ => {}
        }
    }
    difference
}

/// Whether the archive is to go, now or when the deletion bucket lets it, or once the API is asked whether
/// it still is an orphan: how fast a policy may act is no part of what it would change.
fn goes(verdict: &Verdict, now: Timestamp) -> bool {
    verdict.action() == Action::Delete
        || verdict.reason == Reason::DeletionPending
        || verdict.awaits_confirmation(now)
}

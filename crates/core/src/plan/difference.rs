//! What a dry-run policy would change, of all archives or of one.

use jiff::Timestamp;

use super::snapshot::Snapshot;
use super::verdict::{Action, Reason, Verdict};
use super::{Plan, plan};
use crate::policy::{Mode, Policy, PolicyRef, PolicySet};

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
    let mut difference = Difference::default();
    let then = plan(snapshot, &enforced(policies, id), now);
    for (place, (verdict, then)) in current.verdicts.iter().zip(then.verdicts).enumerate() {
        match (goes(verdict, now), goes(&then, now)) {
            (false, true) => difference.would_delete.push((place, then)),
            (true, false) => difference.would_keep.push((place, then)),
            _ => {}
        }
    }
    difference
}

/// What one policy in dry-run mode would do with one archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// The policy.
    pub policy: PolicyRef,
    /// What would become of the archive.
    pub effect: Effect,
    /// The verdict that the archive would have.
    pub verdict: Verdict,
}

/// What would become of an archive if a policy were enforced that is in dry-run mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It would be deleted, and stays now.
    Deletes,
    /// It would stay, and is to be deleted now.
    Keeps,
    /// The policy would decide about it, as is decided now.
    DecidesTheSame,
    /// The policy would not decide about it.
    Nothing,
}

/// What each policy in dry-run mode would do with the archive at `place`, of `most` policies at most: each takes a
/// plan of its own. Those of other namespaces are none of its policies.
pub fn tried(
    snapshot: &Snapshot,
    policies: &PolicySet,
    now: Timestamp,
    (current, place): (&Plan, usize),
    most: usize,
) -> Vec<Tried> {
    let (Some(archive), Some(verdict)) = (snapshot.archives.get(place), current.verdicts.get(place)) else {
        return Vec::new();
    };
    let namespace = archive.identity.as_deref().map(|identity| identity.namespace.as_str());
    let may_govern =
        |policy: &&Policy| policy.namespace.is_none() || policy.namespace.as_deref() == namespace;
    let retention = policies.retention.iter().filter(may_govern).map(|policy| (policy.mode, &policy.id));
    let storage = policies.storage.iter().map(|policy| (policy.mode, &policy.id));
    let dry_runs = retention.chain(storage).filter(|(mode, _)| *mode == Mode::DryRun);
    let mut ids: Vec<&PolicyRef> = Vec::new();
    for (_, id) in dry_runs {
        if !ids.iter().any(|known| known.is_same_object(id)) {
            ids.push(id);
        }
    }
    let one = |id: &PolicyRef| {
        let mut then = plan(snapshot, &enforced(policies, id), now);
        let decides = then.policy_of(place).is_some_and(|policy| policy.is_same_object(id));
        let then = then.verdicts.swap_remove(place);
        let decides = decides || then.policy.as_ref().is_some_and(|policy| policy.is_same_object(id));
        let effect = match (goes(verdict, now), goes(&then, now)) {
            (false, true) => Effect::Deletes,
            (true, false) => Effect::Keeps,
            _ if decides => Effect::DecidesTheSame,
            _ => Effect::Nothing,
        };
        Tried { policy: PolicyRef { part: None, ..id.clone() }, effect, verdict: then }
    };
    ids.into_iter().take(most).map(one).collect()
}

/// The policies, with that one enforced.
fn enforced(policies: &PolicySet, id: &PolicyRef) -> PolicySet {
    let mut enforced = policies.clone();
    // An object of several parts is enforced as a whole.
    for policy in enforced.retention.iter_mut().filter(|policy| policy.id.is_same_object(id)) {
        policy.mode = Mode::Enforce;
    }
    for policy in enforced.storage.iter_mut().filter(|policy| policy.id.is_same_object(id)) {
        policy.mode = Mode::Enforce;
    }
    enforced
}

/// Whether the archive is to go, now or when the deletion bucket lets it, or once the API is asked whether
/// it still is an orphan: how fast a policy may act is no part of what it would change.
fn goes(verdict: &Verdict, now: Timestamp) -> bool {
    verdict.action() == Action::Delete
        || verdict.reason == Reason::DeletionPending
        || verdict.awaits_confirmation(now)
}

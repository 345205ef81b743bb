//! The deletions of a plan: which wait, which have begun, and what became of them.

use std::collections::VecDeque;
use std::time::Duration;

use super::clock::Now;
use super::file::{Deletion, Outcome, Removal};
use super::{DeletionTiming, Effect, Engine};
use crate::plan::{Action, Plan, Reason, Snapshot};
use crate::policy::PolicySet;

/// The most deletions in flight: unlinking what is large takes long, and what has not begun can still be
/// judged anew. More than one, so that the thread that deletes never waits for the engine.
const MOST_IN_FLIGHT: usize = 4;

/// How long the rest of a plan's deletions may be begun without another plan: what it was made from
/// changes with time, too.
const PLAN_HOLDS: Duration = Duration::from_secs(1);

/// The deletions of the last plan.
#[derive(Debug, Default)]
pub(super) struct Deletions {
    /// Those that have not begun.
    waiting: VecDeque<Deletion>,
    in_flight: usize,
    planned_at: Duration,
    /// Whether some were taken back for that plan while others were in flight: what it had to wait for with
    /// those, as the watermark does, is to be judged when they are done.
    pub(super) is_provisional: bool,
}

impl Deletions {
    /// Whether the plan is too old to begin any more of its deletions.
    pub(super) fn is_stale(&self, now: Now) -> bool {
        !self.waiting.is_empty() && now.uptime.saturating_sub(self.planned_at) >= PLAN_HOLDS
    }

    /// Whether all is done, and the plan was made before that could be known.
    pub(super) fn is_done_with_provisional(&self) -> bool {
        self.is_provisional && self.waiting.is_empty() && self.in_flight == 0
    }

    /// Whether some are in flight.
    pub(super) fn is_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    /// Notes which deletions a plan wants.
    pub(super) fn set(&mut self, waiting: Vec<Deletion>, now: Now) {
        (self.waiting, self.planned_at) = (waiting.into(), now.uptime);
    }
}

impl Engine {
    /// The deletions of a plan by these policies, each with the file that was decided about. From here on these
    /// archives count as gone, until an outcome says otherwise.
    pub(super) fn mark_for_deletion(
        &mut self,
        snapshot: &Snapshot,
        plan: &Plan,
        policies: &PolicySet,
    ) -> Vec<Deletion> {
        let mut deletions = Vec::new();
        let mut is_for_space = false;
        let decided = snapshot.archives.iter().zip(&plan.verdicts).zip(&plan.draws);
        for ((archive, verdict), draw) in decided {
            if verdict.action() != Action::Delete {
                continue;
            }
            let Some(known) = self.index.get_mut(&archive.file) else { continue };
            known.deleting = true;
            is_for_space |= verdict.reason == Reason::StorageWatermark;
            let policy_generation = verdict.policy.as_deref().and_then(|policy| policies.generation(policy));
            let (archive, verdict) = (archive.clone(), verdict.clone());
            deletions.push(Deletion { archive, stat: known.stat, verdict, policy_generation, draw: *draw });
        }
        if let Some(filesystem) = snapshot.filesystem.filter(|_| is_for_space) {
            self.reclaim.begin(filesystem.available_bytes);
        }
        deletions
    }

    /// Has what waits judged by the next plan; says whether there is any.
    pub(super) fn take_back(&mut self) -> bool {
        let waiting = std::mem::take(&mut self.deletions.waiting);
        for deletion in &waiting {
            if let Some(known) = self.index.get_mut(&deletion.archive.file)
                && known.stat.is_same(&deletion.stat)
            {
                known.deleting = false;
            }
        }
        self.deletions.is_provisional |= !waiting.is_empty();
        !waiting.is_empty()
    }

    /// Begins as many of the deletions that wait as may be in flight. Only these are paid for.
    pub(super) fn begin_deletions(&mut self) {
        while self.deletions.in_flight < MOST_IN_FLIGHT {
            let Some(deletion) = self.deletions.waiting.pop_front() else { return };
            let known = self.index.get(&deletion.archive.file);
            if !known.is_some_and(|known| known.stat.is_same(&deletion.stat)) {
                // It was seen to be gone while it waited.
                continue;
            }
            if let Some(limiter) = &mut self.limiter {
                limiter.spend(deletion.draw, deletion.namespace());
            }
            self.deletions.in_flight += 1;
            self.effects.push(Effect::Unlink(deletion));
        }
    }

    /// Carries out the plan that was published last, once.
    pub(super) fn carry_out(&mut self) {
        if self.settings.deletion_timing != DeletionTiming::WhenTold {
            return;
        }
        let Some(view) = self.last_view.take() else { return };
        let deletions = self.mark_for_deletion(&view.snapshot, &view.plan, &view.policies);
        self.deletions.waiting = deletions.into();
        self.begin_deletions();
    }

    /// Notes what became of a deletion.
    pub(super) fn learn_outcome(&mut self, outcome: &Outcome, now: Now) {
        self.deletions.in_flight = self.deletions.in_flight.saturating_sub(1);
        let name = &outcome.deletion.archive.file;
        let reason = outcome.deletion.verdict.reason;
        if reason == Reason::StorageWatermark {
            self.reclaim.unlinked(outcome.freed_bytes());
        }
        if matches!(outcome.removal, Removal::Removed) && reason == Reason::Discarded {
            self.discards.note_deletion(name, &outcome.deletion.stat);
        }
        // What an earlier configuration wanted is judged by the present one.
        self.has_news |= matches!(outcome.removal, Removal::Withdrawn);
        // Another file may have taken the name since: this outcome says nothing of that one.
        let known = self.index.get_mut(name).filter(|known| known.stat.is_same(&outcome.deletion.stat));
        match (&outcome.removal, known) {
            (_, None) => {}
            (Removal::Removed | Removal::AlreadyGone, Some(_)) => {
                self.index.forget(name);
                self.forgotten.push(name.clone());
            }
            (
                Removal::Pinned
                | Removal::Changed
                | Removal::InUse
                | Removal::DirectoryMoved
                | Removal::Withdrawn
                | Removal::Failed(_),
                Some(known),
            ) => {
                known.deleting = false;
                if matches!(outcome.removal, Removal::Failed(_)) {
                    known.note_failed_deletion(now.uptime);
                }
                self.effects.push(Effect::Look(vec![name.clone()]));
            }
        }
        if self.settings.deletion_timing == DeletionTiming::WhenTold {
            self.begin_deletions();
        }
    }
}

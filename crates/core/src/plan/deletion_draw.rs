//! What pays for deletions: each namespace first with what its own arrivals brought along, then all of them in
//! turns from the common bucket, so that what one tenant has queued does not delay another's rotation.

use std::collections::BTreeMap;

use super::judgement::{Rule, Saw};
use super::planner::{By, Planner};
use super::snapshot::Draw;
use super::verdict::Reason;

impl Planner<'_> {
    /// Lets the oldest of what is to go, go now, and has the rest wait for the deletion bucket.
    pub(super) fn draw_from_bucket(&mut self) {
        self.begin(Rule::DeletionLimit);
        let Some(allowance) = self.allowance else {
            let taken: Vec<usize> = self.taken_by_rules().collect();
            taken.into_iter().for_each(|place| self.draws[place] = Draw::Shared);
            return;
        };
        if let Some(place) = self.watched().filter(|&place| !self.stays(place)) {
            self.watch_saw(place, By::NO_POLICY, Saw::Deletions(allowance.shared));
        }
        let mut queues: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for place in self.taken_by_rules() {
            let namespace = self.groups.of(place).identity.map_or("", |identity| identity.namespace.as_str());
            queues.entry(namespace).or_default().push(place);
        }
        let mut waiting: Vec<std::vec::IntoIter<usize>> = Vec::new();
        for (namespace, mut queue) in queues {
            // What could not be deleted a moment ago comes last, or it would keep all others waiting.
            queue.sort_by_key(|&place| self.archives[place].undeletable);
            let own = allowance.arrived.get(namespace).copied().unwrap_or_default();
            let mut queue = queue.into_iter();
            let paid = usize::try_from(own).unwrap_or(usize::MAX);
            queue.by_ref().take(paid).for_each(|place| self.draws[place] = Draw::Arrival);
            waiting.push(queue);
        }
        // In each turn, the namespace with the fewest deletions comes first; of equal ones, that of the oldest
        // archive.
        waiting.sort_by_key(|queue| (queue.len(), queue.as_slice().first().copied()));
        let mut shared = allowance.shared;
        while shared > 0 && !waiting.is_empty() {
            waiting.retain_mut(|queue| {
                if shared == 0 {
                    return true;
                }
                let next = queue.next();
                if let Some(place) = next {
                    self.draws[place] = Draw::Shared;
                    shared -= 1;
                }
                next.is_some()
            });
        }
        for place in waiting.into_iter().flatten() {
            self.keep_after_all(place, Reason::DeletionPending);
        }
    }
}

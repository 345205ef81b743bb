//! What policies in dry-run mode would change. Each takes a plan of its own, and tenants may create many such
//! policies: so a few are computed at a time, at intervals.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use checkpoint_keeper_core::plan::{Plan, Snapshot, difference};
use checkpoint_keeper_core::policy::{Mode, PolicyRef, PolicySet};
use jiff::Timestamp;

use super::summary::{Share, Summary, whole};

/// So many are computed at a time.
const AT_A_TIME: usize = 8;

/// What was computed, and when.
#[derive(Debug)]
pub(super) struct DryRuns {
    /// How long nothing is computed after something was.
    interval: Duration,
    at: Option<Instant>,
    /// The last one computed: the next time it is the turn of the others.
    last: Option<PolicyRef>,
    shares: BTreeMap<PolicyRef, Share>,
}

impl DryRuns {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, at: None, last: None, shares: BTreeMap::new() }
    }

    /// Adds to a summary what is known of the dry runs; `share_of_dry_run` finds out about one.
    pub(super) fn add_to(
        &mut self,
        summary: &mut Summary,
        policies: &PolicySet,
        now: Instant,
        share_of_dry_run: impl Fn(&PolicyRef) -> Share,
    ) {
        // Where a namespace has nothing, its policies change nothing.
        let concerned = policies.retention.iter().filter(|policy| {
            policy.mode == Mode::DryRun
                && policy.namespace.as_ref().is_none_or(|name| summary.namespaces.contains_key(name))
        });
        let dry: BTreeSet<PolicyRef> = concerned.map(|policy| whole(&policy.id)).collect();
        self.shares.retain(|id, _| dry.contains(id));
        if summary.archives == 0 {
            // Where there is no archive, there is nothing to compute.
            let nothing = Share { mode: Mode::DryRun, ..Share::default() };
            self.shares = dry.iter().map(|id| (id.clone(), nothing)).collect();
        } else if self.at.is_none_or(|at| now.duration_since(at) >= self.interval) {
            self.at = Some(now);
            let last = self.last.take();
            let (earlier, later): (Vec<_>, Vec<_>) = dry.iter().partition(|id| Some(*id) <= last.as_ref());
            for id in later.into_iter().chain(earlier).take(AT_A_TIME) {
                self.shares.insert(id.clone(), share_of_dry_run(id));
                self.last = Some(id.clone());
            }
        }
        for id in dry {
            match self.shares.get(&id) {
                Some(share) => {
                    let generation = policies.generations.get(&id).copied();
                    summary.policies.insert(id, Share { generation, ..*share });
                }
                None => summary.dry_runs_waiting += 1,
            }
        }
    }
}

/// What a policy would change if it were enforced.
pub(super) fn share_of_dry_run(
    snapshot: &Snapshot,
    policies: &PolicySet,
    plan: &Plan,
    now: Timestamp,
    id: &PolicyRef,
) -> Share {
    let difference = difference(snapshot, policies, now, plan, id);
    let pending = difference.would_delete.len() as u64;
    let bytes = difference.would_delete.iter().map(|(place, _)| snapshot.archives[*place].size);
    Share {
        mode: Mode::DryRun,
        generation: None,
        archives: 0,
        bytes: bytes.sum(),
        pending,
        spared: difference.would_keep.len() as u64,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use checkpoint_keeper_core::policy::{Kind, Policy, Precedence, Retention, Selector};

    use super::*;

    fn dry_run(namespace: &str, name: &str) -> Policy {
        let namespace = Some(namespace.to_owned());
        Policy {
            id: PolicyRef {
                kind: Kind::CheckpointPolicy,
                namespace: namespace.clone(),
                name: name.to_owned(),
                part: None,
            },
            created: None,
            namespace,
            mode: Mode::DryRun,
            selector: Selector::default(),
            retention: Retention::default(),
            orphans: None,
            incomplete_grace: None,
            damaged_grace: None,
            precedence: Precedence::Default,
        }
    }

    #[test]
    fn however_many_dry_runs_there_are_a_plan_computes_few_of_them_and_most_none() {
        const MANY: usize = 1_000;
        let mut retention: Vec<Policy> =
            (0..MANY).map(|number| dry_run("busy", &format!("{number:04}"))).collect();
        retention.push(dry_run("elsewhere", "a"));
        let policies = PolicySet { retention, ..PolicySet::default() };
        let mut dry_runs = DryRuns::new(Duration::from_mins(1));
        let begin = Instant::now();
        let computed = RefCell::new(Vec::new());
        let mut plan_at = |second| {
            let mut summary = Summary { archives: 1, ..Summary::default() };
            summary.namespaces.insert("busy".to_owned(), (1, 1));
            let share = Share { mode: Mode::DryRun, ..Share::default() };
            computed.borrow_mut().clear();
            dry_runs.add_to(&mut summary, &policies, begin + Duration::from_secs(second), |id| {
                computed.borrow_mut().push(id.name.clone());
                Share { pending: 7, ..share }
            });
            let told = summary.policies.values().filter(|share| share.pending == 7).count();
            (computed.borrow().clone(), told, summary.policies.len(), summary.dry_runs_waiting)
        };
        let names = |range: std::ops::Range<usize>| range.map(|number| format!("{number:04}")).collect();
        // Of the one in a namespace without archives here nothing is told.
        let left = |told: usize| (MANY - told) as u64;
        assert_eq!(plan_at(0), (names(0..8), 8, 8, left(8)));
        for second in 1..60 {
            assert_eq!(plan_at(second), (vec![], 8, 8, left(8)), "{second}");
        }
        assert_eq!(plan_at(60), (names(8..16), 16, 16, left(16)));
        // After the last one it is the first one's turn again.
        for round in 2..125 {
            plan_at(60 * round);
        }
        assert_eq!(plan_at(60 * 125), (names(0..8), MANY, MANY, 0));
    }
}

//! What policies in dry-run mode would change. Each takes a plan of its own, and tenants may create many such
//! policies, and change them often: so a few are computed in each interval, those first that are new or have changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use checkpoint_keeper_core::plan::{Plan, Snapshot, difference};
use checkpoint_keeper_core::policy::{Mode, PolicyRef, PolicySet};
use jiff::Timestamp;

use super::summary::{Share, Summary, whole};

/// So many are computed in an interval at most.
const IN_AN_INTERVAL: usize = 8;

/// What was computed, and when.
#[derive(Debug)]
pub(super) struct DryRuns {
    /// How long what was computed stands, unless its policy changes.
    interval: Duration,
    /// When the interval of now began, and how many were computed in it.
    begin: Option<Instant>,
    computed: usize,
    /// The last one computed: the next time it is the turn of the others.
    last: Option<PolicyRef>,
    /// Each with the generation of the policy that it was computed by.
    shares: BTreeMap<PolicyRef, Share>,
}

impl DryRuns {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, begin: None, computed: 0, last: None, shares: BTreeMap::new() }
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
        let generation = |id: &PolicyRef| policies.generations.get(id).copied();
        if summary.archives == 0 {
            // Where there is no archive, there is nothing to compute.
            let nothing = Share { mode: Mode::DryRun, ..Share::default() };
            let shares = dry.iter().map(|id| (id.clone(), Share { generation: generation(id), ..nothing }));
            self.shares = shares.collect();
        } else {
            for id in self.due(&dry, now, generation) {
                let share = Share { generation: generation(&id), ..share_of_dry_run(&id) };
                self.shares.insert(id.clone(), share);
                self.computed += 1;
                self.last = Some(id);
            }
        }
        for id in dry {
            match self.shares.get(&id) {
                // Of one that has changed since it is said by which generation it was computed.
                Some(share) => drop(summary.policies.insert(id, *share)),
                None => summary.dry_runs_waiting += 1,
            }
        }
    }

    /// Which are computed now: those that are new or have changed, and once in an interval also those whose turn it is.
    fn due(
        &mut self,
        dry: &BTreeSet<PolicyRef>,
        now: Instant,
        generation: impl Fn(&PolicyRef) -> Option<i64>,
    ) -> Vec<PolicyRef> {
        let is_begin = self.begin.is_none_or(|begin| now.duration_since(begin) >= self.interval);
        if is_begin {
            (self.begin, self.computed) = (Some(now), 0);
        }
        let is_news =
            |id: &&PolicyRef| self.shares.get(*id).is_none_or(|share| share.generation != generation(id));
        let (news, known): (Vec<_>, Vec<_>) = dry.iter().partition(is_news);
        // Nobody who changes a policy again and again is before all others.
        let in_turn = |ids: Vec<&PolicyRef>| {
            let (earlier, later): (Vec<_>, Vec<_>) =
                ids.into_iter().cloned().partition(|id| Some(id) <= self.last.as_ref());
            later.into_iter().chain(earlier)
        };
        let left = IN_AN_INTERVAL.saturating_sub(self.computed);
        let again = if is_begin { known } else { Vec::new() };
        in_turn(news).chain(in_turn(again)).take(left).collect()
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

    #[test]
    fn a_dry_run_that_is_new_or_has_changed_is_computed_at_once_and_told_by_its_generation() {
        let mut dry_runs = DryRuns::new(Duration::from_mins(1));
        let begin = Instant::now();
        let mut plan_at = |second, generations: &[(&str, i64)]| {
            let retention: Vec<Policy> = generations.iter().map(|(name, _)| dry_run("busy", name)).collect();
            let known = retention.iter().zip(generations).map(|(policy, (_, at))| (policy.id.clone(), *at));
            let generations = known.collect();
            let policies = PolicySet { retention, generations, ..PolicySet::default() };
            let mut summary = Summary { archives: 1, ..Summary::default() };
            summary.namespaces.insert("busy".to_owned(), (1, 1));
            let computed = RefCell::new(Vec::new());
            dry_runs.add_to(&mut summary, &policies, begin + Duration::from_secs(second), |id| {
                computed.borrow_mut().push(id.name.clone());
                Share { mode: Mode::DryRun, ..Share::default() }
            });
            let told: Vec<_> = summary.policies.values().filter_map(|share| share.generation).collect();
            (computed.into_inner(), told, summary.dry_runs_waiting)
        };
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        // The plans of a node whose policies are no dry runs use nothing up.
        assert_eq!(plan_at(0, &[]), (vec![], vec![], 0));
        assert_eq!(plan_at(1, &[("a", 1)]), (names(&["a"]), vec![1], 0));
        assert_eq!(plan_at(2, &[("a", 1)]), (vec![], vec![1], 0));
        assert_eq!(plan_at(3, &[("a", 2)]), (names(&["a"]), vec![2], 0));
        assert_eq!(plan_at(4, &[("a", 2), ("b", 1)]), (names(&["b"]), vec![2, 1], 0));
        // Who changes one again and again has it computed as often as that is allowed for all, and no more.
        for generation in 3..8 {
            assert_eq!(plan_at(5, &[("a", generation)]), (names(&["a"]), vec![generation], 0));
        }
        assert_eq!(
            plan_at(6, &[("a", 9), ("b", 1)]),
            (vec![], vec![7], 1),
            "it is the answer to an older one"
        );
        assert_eq!(plan_at(60, &[("a", 9), ("b", 1)]), (names(&["b", "a"]), vec![9, 1], 0));
    }
}

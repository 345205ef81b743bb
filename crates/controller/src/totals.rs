//! What policies govern, added up over the nodes: from what each node's agent reports. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use checkpoint_keeper_api::node_store::{PolicyUsage, UnreachableLimit};
use checkpoint_keeper_api::parts::{Mode, PolicyTotals};
use checkpoint_keeper_core::policy::PolicyRef;

/// What one node's agent reports, as far as it concerns policies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeReport {
    /// The node, by whose name its store goes.
    pub node: String,
    /// What each policy governs there.
    pub policies: Vec<PolicyUsage>,
    /// How many more policies govern archives there.
    pub more_policies: i64,
    /// Limits that pins make unreachable there.
    pub unreachable: Vec<UnreachableLimit>,
}

/// What one policy governs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// Over all nodes.
    pub totals: PolicyTotals,
    /// How many archives are to go by it and wait.
    pub waiting: i64,
    /// On how many nodes.
    pub waiting_nodes: i64,
    /// How many of its limits pins make unreachable, over all nodes.
    pub unreachable: usize,
    /// The first of these, and its node.
    pub first_unreachable: Option<(String, UnreachableLimit)>,
}

/// A policy as reports name it: kind, namespace and name.
type Key<'a> = (&'a str, &'a str, &'a str);

/// Usage by policy.
#[derive(Debug, Clone, Default)]
pub struct Totals<'a> {
    /// Each policy's usage, and how many of those nodes name it that do not name all.
    sums: BTreeMap<Key<'a>, (Usage, usize)>,
    /// How many nodes do not name all policies.
    partial: usize,
}

impl<'a> Totals<'a> {
    /// The sums. No node's nonsense spoils what the others say: nothing counts as less than nothing.
    pub fn of(reports: &'a [Arc<NodeReport>]) -> Self {
        let mut sums: BTreeMap<Key<'a>, (Usage, usize)> = BTreeMap::new();
        let mut partial = 0;
        for report in reports {
            let is_partial = usize::from(report.more_policies > 0);
            partial += is_partial;
            for (key, there) in on_one_node(&report.policies) {
                let (sum, named) = sums.entry(key).or_default();
                *named += is_partial;
                let totals = &mut sum.totals;
                totals.nodes += there.totals.nodes;
                totals.archives = totals.archives.saturating_add(there.totals.archives);
                totals.bytes = totals.bytes.saturating_add(there.totals.bytes);
                totals.pending = totals.pending.saturating_add(there.totals.pending);
                sum.waiting = sum.waiting.saturating_add(there.waiting);
                sum.waiting_nodes += there.waiting_nodes;
            }
            for limit in &report.unreachable {
                let namespace = limit.namespace.as_deref().unwrap_or_default();
                let (sum, _) = sums.entry((limit.kind.as_str(), namespace, limit.name.as_str())).or_default();
                sum.unreachable += 1;
                // The same one each time, whatever comes in which order.
                let found = (&report.node, &limit.limit);
                if sum.first_unreachable.as_ref().is_none_or(|(node, first)| found < (node, &first.limit)) {
                    sum.first_unreachable = Some((report.node.clone(), limit.clone()));
                }
            }
        }
        Self { sums, partial }
    }

    /// What this policy governs.
    pub fn usage(&self, id: &PolicyRef) -> Usage {
        let key = (id.kind.name(), id.namespace.as_deref().unwrap_or_default(), id.name.as_str());
        let (mut usage, named) = self.sums.get(&key).cloned().unwrap_or_default();
        usage.totals.partial = named < self.partial;
        usage
    }
}

/// An object may be named several times, as its parts govern each for itself: it is one node all the same.
fn on_one_node(policies: &[PolicyUsage]) -> BTreeMap<Key<'_>, Usage> {
    let mut usages: BTreeMap<Key<'_>, Usage> = BTreeMap::new();
    for policy in policies {
        let namespace = policy.namespace.as_deref().unwrap_or_default();
        let key = (policy.kind.as_str(), namespace, policy.name.as_str());
        let usage = usages.entry(key).or_default();
        let (archives, pending) = (policy.archives.max(0), policy.pending.max(0));
        let totals = &mut usage.totals;
        totals.nodes = totals.nodes.max(i64::from(archives > 0));
        totals.archives = totals.archives.saturating_add(archives);
        totals.bytes = totals.bytes.saturating_add(policy.bytes.max(0));
        totals.pending = totals.pending.saturating_add(pending);
        // What a dry run would delete does not wait for anything.
        if policy.mode == Mode::Enforce && pending > 0 {
            usage.waiting = usage.waiting.saturating_add(pending);
            usage.waiting_nodes = 1;
        }
    }
    usages
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_core::policy::Kind;

    use super::*;

    fn usage(name: &str, mode: Mode, archives: i64, bytes: i64, pending: i64) -> PolicyUsage {
        PolicyUsage {
            kind: "CheckpointPolicy".to_owned(),
            namespace: Some("team".to_owned()),
            name: name.to_owned(),
            mode,
            archives,
            bytes,
            pending,
            spared: 0,
        }
    }

    fn report(node: &str, policies: Vec<PolicyUsage>) -> Arc<NodeReport> {
        Arc::new(NodeReport { node: node.to_owned(), policies, more_policies: 0, unreachable: Vec::new() })
    }

    fn sum(reports: &[Arc<NodeReport>], name: &str) -> (i64, i64, i64, i64, i64, i64) {
        let id = PolicyRef {
            kind: Kind::CheckpointPolicy,
            namespace: Some("team".to_owned()),
            name: name.to_owned(),
            part: None,
        };
        let Usage { totals, waiting, waiting_nodes, .. } = Totals::of(reports).usage(&id);
        (totals.nodes, totals.archives, totals.bytes, totals.pending, waiting, waiting_nodes)
    }

    #[test]
    fn nodes_add_up_and_no_policy_gets_what_is_anothers() {
        let enforce = Mode::Enforce;
        let reports = [
            report("n1", vec![usage("a", enforce, 3, 300, 1), usage("b", enforce, 1, 10, 0)]),
            report("n2", vec![usage("a", enforce, 4, 400, 0)]),
            // Listed, and governing nothing.
            report("n3", vec![usage("a", enforce, 0, 0, 0)]),
            report(
                "n4",
                vec![PolicyUsage { namespace: Some("other".into()), ..usage("a", enforce, 9, 9, 9) }],
            ),
            report(
                "n5",
                vec![PolicyUsage {
                    kind: "CheckpointRestoreOperator".into(),
                    ..usage("a", enforce, 9, 9, 9)
                }],
            ),
        ];
        assert_eq!(sum(&reports, "a"), (2, 7, 700, 1, 1, 1));
        assert_eq!(sum(&reports, "b"), (1, 1, 10, 0, 0, 0));
        assert_eq!(sum(&reports, "none"), (0, 0, 0, 0, 0, 0));
    }

    #[test]
    fn sums_over_reports_that_leave_this_policy_out_are_partial() {
        let leaves_out = |node: &str, name: &str| {
            let whole = report(node, vec![usage(name, Mode::Enforce, 1, 1, 0)]);
            Arc::new(NodeReport { more_policies: 1, ..(*whole).clone() })
        };
        let reports = [report("n1", vec![]), leaves_out("n2", "a"), leaves_out("n3", "a")];
        let is_partial = |reports: &[Arc<NodeReport>], name: &str| {
            let (kind, namespace) = (Kind::CheckpointPolicy, Some("team".to_owned()));
            let id = PolicyRef { kind, namespace, name: name.to_owned(), part: None };
            Totals::of(reports).usage(&id).totals.partial
        };
        assert!(!is_partial(&reports, "a"), "each node that leaves any out names this one");
        assert!(is_partial(&reports, "b"));
        assert!(!is_partial(&reports[..1], "b"));
    }

    #[test]
    fn parts_of_one_object_are_on_one_node() {
        let reports =
            [report("n1", vec![usage("a", Mode::Enforce, 3, 30, 2), usage("a", Mode::Enforce, 4, 40, 1)])];
        assert_eq!(sum(&reports, "a"), (1, 7, 70, 3, 3, 1));
    }

    #[test]
    fn what_a_dry_run_would_delete_does_not_wait() {
        assert_eq!(sum(&[report("n1", vec![usage("a", Mode::DryRun, 5, 50, 4)])], "a"), (1, 5, 50, 4, 0, 0));
    }

    #[test]
    fn a_nodes_nonsense_takes_nothing_from_the_others() {
        let reports = [
            report("n1", vec![usage("a", Mode::Enforce, -5, -50, -1)]),
            report("n2", vec![usage("a", Mode::Enforce, 2, i64::MAX, 0)]),
            report("n3", vec![usage("a", Mode::Enforce, 2, i64::MAX, 0)]),
        ];
        assert_eq!(sum(&reports, "a"), (2, 4, i64::MAX, 0, 0, 0));
    }
}

//! What policies govern, added up over the nodes: from what each node's agent reports. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use checkpoint_keeper_api::node_store::{PolicyUsage, UnreachableLimit};
use checkpoint_keeper_api::scalars::QuantityText;
use checkpoint_keeper_api::status::{DryRunUsage, PolicyReference, PolicyTotals};
use checkpoint_keeper_core::policy::PolicyRef;

use super::node_report::NodeReport;

/// What one policy governs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Usage {
    /// Over all nodes.
    pub totals: PolicyTotals,
    /// On how many nodes archives are to go by it and wait.
    pub waiting_nodes: i64,
    /// How many of its limits pins make unreachable, over all nodes.
    pub unreachable: usize,
    /// The first of these, and its node.
    pub first_unreachable: Option<(String, UnreachableLimit)>,
}

/// A policy as reports name it: kind, namespace and name.
pub(super) type Key<'a> = (&'a str, &'a str, &'a str);

/// The policy that a report refers to.
pub(super) fn key(policy: &PolicyReference) -> Key<'_> {
    (&policy.kind, policy.namespace.as_deref().unwrap_or_default(), &policy.name)
}

/// The policy as a report would refer to it.
pub(super) fn key_of(id: &PolicyRef) -> Key<'_> {
    (id.kind.name(), id.namespace.as_deref().unwrap_or_default(), &id.name)
}

/// Sums of what the nodes say, none of which counts as less than nothing.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    archives: i64,
    bytes: u64,
    pending: i64,
    /// What dry runs would change; none where no node reports one.
    dry_run: Option<(i64, u64, i64)>,
}

impl Figures {
    fn of(policy: &PolicyUsage) -> Self {
        let dry_run = policy.dry_run.as_ref();
        Self {
            archives: policy.archives.max(0),
            bytes: policy.size.value(),
            pending: policy.deletion_pending.max(0),
            dry_run: dry_run.map(|dry_run| {
                (dry_run.would_delete.max(0), dry_run.would_delete_size.value(), dry_run.would_keep.max(0))
            }),
        }
    }

    fn add(&mut self, other: Self) {
        self.archives = self.archives.saturating_add(other.archives);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.pending = self.pending.saturating_add(other.pending);
        if let Some((delete, bytes, keep)) = other.dry_run {
            let sum = self.dry_run.get_or_insert_default();
            *sum = (sum.0.saturating_add(delete), sum.1.saturating_add(bytes), sum.2.saturating_add(keep));
        }
    }

    /// Whether the policy governs anything there, or would change anything.
    fn is_any(&self) -> bool {
        self.archives > 0 || self.dry_run.is_some_and(|(delete, _, keep)| delete > 0 || keep > 0)
    }
}

/// The sums for one policy.
#[derive(Debug, Clone, Default)]
struct Sum {
    figures: Figures,
    nodes: i64,
    waiting_nodes: i64,
    unreachable: usize,
    first_unreachable: Option<(String, UnreachableLimit)>,
    /// How many of the nodes that do not name all policies name this one.
    named: usize,
}

/// Usage by policy.
#[derive(Debug, Clone, Default)]
pub struct Totals<'a> {
    sums: BTreeMap<Key<'a>, Sum>,
    /// How many nodes do not name all policies.
    partial: usize,
}

impl<'a> Totals<'a> {
    /// The sums. No node's nonsense spoils what the others say.
    pub fn of(reports: &'a [Arc<NodeReport>]) -> Self {
        let mut all = Self::default();
        for report in reports {
            let is_partial = usize::from(report.more_policies > 0);
            all.partial += is_partial;
            for (key, there) in on_one_node(&report.policies) {
                let sum = all.sums.entry(key).or_default();
                sum.named += is_partial;
                sum.nodes += i64::from(there.is_any());
                sum.waiting_nodes += i64::from(there.pending > 0);
                sum.figures.add(there);
            }
            for limit in &report.unreachable {
                let sum = all.sums.entry(key(&limit.policy_ref)).or_default();
                sum.unreachable += 1;
                // The same one each time, whatever comes in which order.
                let found = (&report.node, &limit.limit);
                if sum.first_unreachable.as_ref().is_none_or(|(node, first)| found < (node, &first.limit)) {
                    sum.first_unreachable = Some((report.node.clone(), limit.clone()));
                }
            }
        }
        all
    }

    /// What this policy governs.
    pub fn usage(&self, id: &PolicyRef) -> Usage {
        let sum = self.sums.get(&key_of(id)).cloned().unwrap_or_default();
        let Figures { archives, bytes, pending, dry_run } = sum.figures;
        Usage {
            totals: PolicyTotals {
                nodes: sum.nodes,
                archives,
                size: QuantityText::bytes(bytes),
                deletion_pending: pending,
                dry_run: dry_run.map(|(delete, bytes, keep)| DryRunUsage {
                    would_delete: delete,
                    would_delete_size: QuantityText::bytes(bytes),
                    would_keep: keep,
                }),
                partial: sum.named < self.partial,
            },
            waiting_nodes: sum.waiting_nodes,
            unreachable: sum.unreachable,
            first_unreachable: sum.first_unreachable,
        }
    }
}

/// An object may be named several times, as its parts govern each for itself: it is one node all the same.
fn on_one_node(policies: &[PolicyUsage]) -> BTreeMap<Key<'_>, Figures> {
    let mut usages: BTreeMap<Key<'_>, Figures> = BTreeMap::new();
    for policy in policies {
        usages.entry(key(&policy.policy_ref)).or_default().add(Figures::of(policy));
    }
    usages
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_core::policy::Kind;

    use super::*;

    fn usage(name: &str, archives: i64, bytes: u64, pending: i64) -> PolicyUsage {
        PolicyUsage {
            policy_ref: PolicyReference {
                kind: "CheckpointPolicy".to_owned(),
                namespace: Some("team".to_owned()),
                name: name.to_owned(),
                entry: None,
            },
            archives,
            size: QuantityText::bytes(bytes),
            deletion_pending: pending,
            ..PolicyUsage::default()
        }
    }

    fn report(node: &str, policies: Vec<PolicyUsage>) -> Arc<NodeReport> {
        Arc::new(NodeReport { node: node.to_owned(), policies, ..NodeReport::default() })
    }

    /// Nodes, archives, their size, archives that wait, and on how many nodes.
    fn sum(reports: &[Arc<NodeReport>], name: &str) -> (i64, i64, u64, i64, i64) {
        let id = PolicyRef {
            kind: Kind::CheckpointPolicy,
            namespace: Some("team".to_owned()),
            name: name.to_owned(),
            part: None,
        };
        let Usage { totals, waiting_nodes, .. } = Totals::of(reports).usage(&id);
        (totals.nodes, totals.archives, totals.size.value(), totals.deletion_pending, waiting_nodes)
    }

    #[test]
    fn nodes_add_up_and_no_policy_gets_what_is_anothers() {
        let elsewhere = |change: fn(&mut PolicyReference)| {
            let mut usage = usage("a", 9, 9, 9);
            change(&mut usage.policy_ref);
            usage
        };
        let reports = [
            report("n1", vec![usage("a", 3, 300, 1), usage("b", 1, 10, 0)]),
            report("n2", vec![usage("a", 4, 400, 0)]),
            // Listed, and governing nothing.
            report("n3", vec![usage("a", 0, 0, 0)]),
            report("n4", vec![elsewhere(|policy| policy.namespace = Some("other".into()))]),
            report("n5", vec![elsewhere(|policy| policy.kind = "CheckpointRestoreOperator".into())]),
        ];
        assert_eq!(sum(&reports, "a"), (2, 7, 700, 1, 1));
        assert_eq!(sum(&reports, "b"), (1, 1, 10, 0, 0));
        assert_eq!(sum(&reports, "none"), (0, 0, 0, 0, 0));
    }

    #[test]
    fn sums_over_reports_that_leave_this_policy_out_are_partial() {
        let leaves_out = |node: &str, name: &str| {
            let whole = report(node, vec![usage(name, 1, 1, 0)]);
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
        let reports = [report("n1", vec![usage("a", 3, 30, 2), usage("a", 4, 40, 1)])];
        assert_eq!(sum(&reports, "a"), (1, 7, 70, 3, 1));
    }

    #[test]
    fn what_dry_runs_would_change_adds_up_and_does_not_wait() {
        let dry = |delete, keep| PolicyUsage {
            dry_run: Some(DryRunUsage {
                would_delete: delete,
                would_delete_size: QuantityText::number(50),
                would_keep: keep,
            }),
            ..usage("a", 0, 0, 0)
        };
        let reports =
            [report("n1", vec![dry(4, 0)]), report("n2", vec![dry(0, 0)]), report("n3", vec![dry(0, 2)])];
        assert_eq!(sum(&reports, "a"), (2, 0, 0, 0, 0));
        let id = PolicyRef {
            kind: Kind::CheckpointPolicy,
            namespace: Some("team".to_owned()),
            name: "a".to_owned(),
            part: None,
        };
        let expected =
            DryRunUsage { would_delete: 4, would_delete_size: QuantityText::number(150), would_keep: 2 };
        assert_eq!(Totals::of(&reports).usage(&id).totals.dry_run, Some(expected));
    }

    #[test]
    fn a_nodes_nonsense_takes_nothing_from_the_others() {
        let nonsense = PolicyUsage { size: QuantityText("-1.5x".to_owned()), ..usage("a", -5, 0, -1) };
        let reports = [
            report("n1", vec![nonsense]),
            report("n2", vec![usage("a", 2, u64::MAX, 0)]),
            report("n3", vec![usage("a", i64::MAX, u64::MAX, 0)]),
        ];
        assert_eq!(sum(&reports, "a"), (2, i64::MAX, u64::MAX, 0, 0));
    }
}

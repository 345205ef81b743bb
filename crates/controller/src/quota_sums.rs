//! What namespaces with quotas hold, added up over the nodes: from what each node's agent reports. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use checkpoint_keeper_core::quota::Held;
use jiff::Timestamp;

use super::node_report::{Coverage, NodeReport};

/// What each namespace holds over all nodes, at least: a node with archives of very many names only some of them.
pub fn namespaces_held(reports: &[Arc<NodeReport>]) -> BTreeMap<&str, Held> {
    let mut sums: BTreeMap<&str, Held> = BTreeMap::new();
    for usage in reports.iter().flat_map(|report| &report.held) {
        let sum = sums.entry(&*usage.namespace).or_default();
        *sum = sum.plus(usage.held);
    }
    sums
}

/// What one namespace holds over all nodes.
#[derive(Debug, Default)]
pub struct NamespaceSum<'a> {
    /// In all.
    pub held: Held,
    /// On each node that has any.
    pub nodes: Vec<(&'a Arc<NodeReport>, Held)>,
    /// A node whose report may leave the namespace out, and how many more there are; none: there is none.
    pub left_out: Option<(&'a str, usize)>,
}

impl NamespaceSum<'_> {
    /// On how many nodes the figures are old, and since when the oldest are.
    pub fn stale(&self) -> (usize, Option<Timestamp>) {
        let since = || self.nodes.iter().filter_map(|(report, _)| report.stale_since);
        (since().count(), since().min())
    }
}

/// What namespaces hold.
#[derive(Debug)]
pub struct Sums<'a> {
    nodes: BTreeMap<&'a str, Vec<(&'a Arc<NodeReport>, Held)>>,
    /// The nodes that do not name all namespaces.
    incomplete: Vec<&'a Arc<NodeReport>>,
}

impl<'a> Sums<'a> {
    /// Adds up what the nodes say of these namespaces.
    pub fn of(namespaces: &'a BTreeSet<String>, reports: &'a [Arc<NodeReport>]) -> Self {
        let mut nodes: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        if !namespaces.is_empty() {
            for report in reports {
                for usage in &report.held {
                    if let Some(namespace) = namespaces.get(&*usage.namespace) {
                        nodes.entry(namespace).or_default().push((report, usage.held));
                    }
                }
            }
        }
        let incomplete = reports.iter().filter(|report| report.coverage != Coverage::All).collect();
        Self { nodes, incomplete }
    }

    /// What a namespace holds, by the reports that are to name it for a quota that is that old.
    pub fn of_namespace(&self, namespace: &str, created: Timestamp) -> NamespaceSum<'a> {
        let nodes = self.nodes.get(namespace).cloned().unwrap_or_default();
        let naming: BTreeSet<&str> = nodes.iter().map(|(report, _)| report.node.as_str()).collect();
        let leaves_out = |report: &&&'a Arc<NodeReport>| {
            !report.coverage.includes_quota_of(created) && !naming.contains(report.node.as_str())
        };
        let mut left_out = self.incomplete.iter().filter(leaves_out).map(|report| report.node.as_str());
        let left_out = left_out.next().map(|first| (first, left_out.count()));
        let held = nodes.iter().fold(Held::default(), |sum, (_, held)| sum.plus(*held));
        NamespaceSum { held, nodes, left_out }
    }
}

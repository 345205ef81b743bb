//! On how many nodes agents act by each policy as it is now. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use checkpoint_keeper_core::policy::PolicyRef;

use super::node_report::NodeReport;
use super::totals::{Key, key, key_of};

/// Which nodes a policy concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Every node: one that does not name it has not seen it.
    EveryNode,
    /// Nodes that name it: those it selects, or with archives in its namespace.
    NodesThatNameIt,
}

/// By how many nodes one policy is acted by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Enforced {
    /// Nodes that act by the generation asked for.
    pub acting: usize,
    /// Nodes that act by another one, or have not seen it.
    pub lagging: usize,
    /// One of these that acts by another one.
    pub lags: Option<String>,
    /// Nodes of which that is not known, as their agent is away, does not go by policies at present, or cannot name
    /// all of them.
    pub unknown: usize,
}

/// Why a policy is enforced or not: the reason of the condition `Enforced`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnforcedReason {
    /// Every node that it concerns acts by it.
    AllNodes,
    /// No node has archives that it could govern.
    NoArchives,
    /// Some nodes do not act by it yet.
    NodesLag,
    /// Of some nodes that is not known.
    NodesNotReporting,
    /// No node reports at all.
    NoNodes,
    /// It is not in force.
    NotAccepted,
}

impl EnforcedReason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::AllNodes,
        Self::NoArchives,
        Self::NodesLag,
        Self::NodesNotReporting,
        Self::NoNodes,
        Self::NotAccepted,
    ];

    /// Its name in a condition.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllNodes => "AllNodes",
            Self::NoArchives => "NoArchives",
            Self::NodesLag => "NodesLag",
            Self::NodesNotReporting => "NodesNotReporting",
            Self::NoNodes => "NoNodes",
            Self::NotAccepted => "NotAccepted",
        }
    }

    /// The condition's status with it.
    pub const fn status(self) -> &'static str {
        match self {
            Self::AllNodes | Self::NoArchives => "True",
            Self::NodesLag | Self::NotAccepted => "False",
            Self::NodesNotReporting | Self::NoNodes => "Unknown",
        }
    }
}

impl Enforced {
    /// The reason that these figures give.
    pub fn reason(&self, reach: Reach) -> EnforcedReason {
        match (self.acting, self.lagging, self.unknown) {
            (_, 1.., _) => EnforcedReason::NodesLag,
            (_, 0, 1..) => EnforcedReason::NodesNotReporting,
            (1.., 0, 0) => EnforcedReason::AllNodes,
            (0, 0, 0) if reach == Reach::NodesThatNameIt => EnforcedReason::NoArchives,
            (0, 0, 0) => EnforcedReason::NoNodes,
        }
    }

    /// The figures in words: `2 of 4 nodes act by generation 7; n1 does not yet; 1 does not report.`
    pub fn message(&self, reach: Reach, generation: Option<i64>) -> String {
        match self.reason(reach) {
            EnforcedReason::NoArchives => return "No node reports archives that it could govern.".to_owned(),
            EnforcedReason::NoNodes => return "No agent reports yet.".to_owned(),
            _ => {}
        }
        let all = self.acting + self.lagging + self.unknown;
        let generation = generation.map(|generation| format!(" {generation}")).unwrap_or_default();
        let noun = if all == 1 { "node acts" } else { "nodes act" };
        let mut text = format!("{} of {all} {noun} by generation{generation}", self.acting);
        match (&self.lags, self.lagging) {
            (_, 0) => {}
            (Some(node), 1) => text = format!("{text}; {node} does not yet"),
            (Some(node), lagging) => text = format!("{text}; {node} and {} more do not yet", lagging - 1),
            (None, 1) => text += "; 1 does not yet",
            (None, lagging) => text = format!("{text}; {lagging} do not yet"),
        }
        if self.unknown > 0 {
            text = format!("{text}; of {} that is not known", self.unknown);
        }
        text + "."
    }
}

/// What the nodes say of one policy.
#[derive(Debug, Default)]
struct PolicyReports<'a> {
    /// How many nodes act by each generation, and the first of them.
    acting: BTreeMap<Option<i64>, (usize, &'a str)>,
    /// How many nodes name it that do not go by policies at present.
    idle: usize,
    /// How many nodes name it that go by policies and name all of them.
    complete: usize,
}

/// What the nodes say of every policy.
#[derive(Debug, Default)]
pub struct Enforcement<'a> {
    named: BTreeMap<Key<'a>, PolicyReports<'a>>,
    nodes: usize,
    /// How many nodes go by policies and name all of them.
    complete: usize,
}

impl<'a> Enforcement<'a> {
    /// What these reports say.
    pub fn of(reports: &'a [Arc<NodeReport>]) -> Self {
        let mut all = Self { nodes: reports.len(), ..Self::default() };
        for report in reports {
            let is_complete = report.acts_by_policies && report.more_policies == 0;
            all.complete += usize::from(is_complete);
            let mut seen = BTreeSet::new();
            for policy in &report.policies {
                let key = key(&policy.policy_ref);
                if !seen.insert(key) {
                    continue;
                }
                let named = all.named.entry(key).or_default();
                named.complete += usize::from(is_complete);
                if report.acts_by_policies {
                    named.acting.entry(policy.generation).or_insert((0, &report.node)).0 += 1;
                } else {
                    named.idle += 1;
                }
            }
        }
        all
    }

    /// What they say of this policy, which now has that generation.
    pub fn enforced(&self, id: &PolicyRef, generation: Option<i64>, reach: Reach) -> Enforced {
        let nothing = PolicyReports::default();
        let named = self.named.get(&key_of(id)).unwrap_or(&nothing);
        let acting = named.acting.get(&generation).map_or(0, |(count, _)| *count);
        let others = named.acting.iter().filter(|(other, _)| **other != generation);
        let mut enforced = Enforced {
            acting,
            lagging: others.clone().map(|(_, (count, _))| count).sum(),
            lags: others.map(|(_, (_, node))| (*node).to_owned()).min(),
            unknown: named.idle,
        };
        if reach == Reach::EveryNode {
            let naming = enforced.acting + enforced.lagging + enforced.unknown;
            enforced.lagging += self.complete - named.complete;
            enforced.unknown += (self.nodes - self.complete) - (naming - named.complete);
        }
        enforced
    }
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_api::node_store::PolicyUsage;
    use checkpoint_keeper_core::policy::Kind;

    use super::*;

    fn id() -> PolicyRef {
        PolicyRef { kind: Kind::ClusterCheckpointPolicy, namespace: None, name: "a".to_owned(), part: None }
    }

    /// The report of a node that goes by that generation of the policy, if any.
    fn node(name: &str, generation: Option<i64>) -> NodeReport {
        let usage = |generation| PolicyUsage {
            policy_ref: (&id()).into(),
            generation: Some(generation),
            ..PolicyUsage::default()
        };
        NodeReport {
            node: name.to_owned(),
            policies: generation.map(usage).into_iter().collect(),
            acts_by_policies: true,
            ..NodeReport::default()
        }
    }

    #[test]
    fn a_policy_is_enforced_once_every_node_that_it_concerns_acts_by_its_newest_generation() {
        use Reach::{EveryNode, NodesThatNameIt};
        let away = |report: NodeReport| NodeReport { acts_by_policies: false, ..report };
        let cut = |report: NodeReport| NodeReport { more_policies: 1, ..report };
        let (new, old, none) =
            (|name| node(name, Some(7)), |name| node(name, Some(6)), |name| node(name, None));
        for (reports, reach, reason, message) in [
            (vec![], EveryNode, "NoNodes", "No agent reports yet."),
            (vec![], NodesThatNameIt, "NoArchives", "No node reports archives that it could govern."),
            (
                vec![none("n1")],
                NodesThatNameIt,
                "NoArchives",
                "No node reports archives that it could govern.",
            ),
            (vec![new("n1")], EveryNode, "AllNodes", "1 of 1 node acts by generation 7."),
            (vec![new("n1"), new("n2")], EveryNode, "AllNodes", "2 of 2 nodes act by generation 7."),
            (vec![new("n1"), none("n2")], NodesThatNameIt, "AllNodes", "1 of 1 node acts by generation 7."),
            (
                vec![new("n1"), none("n2")],
                EveryNode,
                "NodesLag",
                "1 of 2 nodes act by generation 7; 1 does not yet.",
            ),
            (
                vec![new("n1"), old("n3"), old("n2")],
                EveryNode,
                "NodesLag",
                "1 of 3 nodes act by generation 7; n3 and 1 more do not yet.",
            ),
            (
                vec![new("n1"), old("n2"), away(new("n3"))],
                NodesThatNameIt,
                "NodesLag",
                "1 of 3 nodes act by generation 7; n2 does not yet; of 1 that is not known.",
            ),
            (
                vec![new("n1"), away(new("n2")), away(none("n3")), cut(none("n4"))],
                EveryNode,
                "NodesNotReporting",
                "1 of 4 nodes act by generation 7; of 3 that is not known.",
            ),
            (vec![cut(new("n1")), new("n2")], EveryNode, "AllNodes", "2 of 2 nodes act by generation 7."),
        ] {
            let reports: Vec<_> = reports.into_iter().map(Arc::new).collect();
            let enforced = Enforcement::of(&reports).enforced(&id(), Some(7), reach);
            assert_eq!(
                (enforced.reason(reach).name(), enforced.message(reach, Some(7)).as_str()),
                (reason, message),
                "{reports:?}"
            );
        }
    }
}

//! What the controller counts.

use std::collections::BTreeMap;

use checkpoint_keeper_api::effective::EffectivePolicies;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// How a writing went.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

/// What became of policies.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct Became {
    kind: &'static str,
    reason: &'static str,
}

/// The counts.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    leader: Gauge,
    writes: Family<Outcome, Counter>,
    policies: Family<Became, Gauge>,
    nodes_without_agent: Gauge,
}

impl Metrics {
    /// Shows them, with the program's prefix.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("checkpoint_keeper");
        registry.register("leader", "Whether this replica leads", self.leader.clone());
        registry.register("status_writes", "Statuses written, by how it went", self.writes.clone());
        registry.register(
            "policies",
            "Policy objects by the reason of their Ready condition; the leader counts them",
            self.policies.clone(),
        );
        registry.register(
            "nodes_without_agent",
            "Nodes with a NodeCheckpointStore and no agent that is ready; the leader counts them",
            self.nodes_without_agent.clone(),
        );
    }

    /// Notes on how many nodes no agent is at work.
    pub fn nodes_without_agent(&self, nodes: usize) {
        self.nodes_without_agent.set(i64::try_from(nodes).unwrap_or(i64::MAX));
    }

    /// Notes whether this replica leads. Who does not counts no policies: each would be counted twice.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        if !leads {
            self.policies.clear();
            self.nodes_without_agent.set(0);
        }
    }

    /// Counts a writing.
    pub fn wrote(&self, result: &'static str) {
        self.writes.get_or_create(&Outcome { result }).inc();
    }

    /// Counts the policies; at most the kinds times the reasons.
    pub fn policies(&self, effective: &EffectivePolicies) {
        let mut counts: BTreeMap<Became, i64> = BTreeMap::new();
        for (id, (_, acceptance)) in &effective.acceptances {
            let became = Became { kind: id.kind.name(), reason: acceptance.reason() };
            *counts.entry(became).or_default() += 1;
        }
        self.policies.clear();
        for (became, count) in counts {
            self.policies.get_or_create(&became).set(count);
        }
    }
}

/// A page of all that there can be, with one of each label.
pub fn example() -> String {
    let metrics = Metrics::default();
    metrics.wrote("written");
    let became = Became { kind: "CheckpointPolicy", reason: "Accepted" };
    metrics.policies.get_or_create(&became).set(1);
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let mut text = String::new();
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

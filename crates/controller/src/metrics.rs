//! What the controller counts.

use std::collections::BTreeMap;

use checkpoint_keeper_api::effective::EffectivePolicies;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::writer::Written;
use checkpoint_keeper_runtime::telemetry;

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
#[derive(Debug, Clone)]
pub struct Metrics {
    leader: Gauge,
    writes: Family<Outcome, Counter>,
    policies: Family<Became, Gauge>,
    nodes_without_agent: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let writes = Family::<Outcome, Counter>::default();
        for result in Written::LABELS {
            let _ = writes.get_or_create(&Outcome { result });
        }
        Self {
            leader: Gauge::default(),
            writes,
            policies: Family::default(),
            nodes_without_agent: Gauge::default(),
        }
    }
}

impl Metrics {
    fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix(telemetry::PREFIX);
        registry.register("leader", "1 while this replica leads, 0 otherwise", self.leader.clone());
        registry.register(
            "status_writes",
            "Number of writes of a policy's status, by result",
            self.writes.clone(),
        );
        registry.register(
            "policies",
            "Number of policy objects by kind and by the reason of their Accepted condition; only the leader reports it",
            self.policies.clone(),
        );
        registry.register(
            "nodes_without_agent",
            "Number of nodes with a NodeCheckpointStore and no agent that is ready; only the leader reports it",
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

/// A registry with these and the shared ones.
pub(super) fn registry(metrics: &Metrics, sources: telemetry::Sources) -> Registry {
    let mut registry = telemetry::registry(sources);
    metrics.register(&mut registry);
    registry
}

/// A page of all that there can be, with one of each label.
pub fn example() -> String {
    let metrics = Metrics::default();
    let became = Became { kind: "CheckpointPolicy", reason: "Accepted" };
    metrics.policies.get_or_create(&became).set(1);
    let mut text = String::new();
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry(&metrics, telemetry::example()));
    text
}

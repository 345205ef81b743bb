//! What the controller counts.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use checkpoint_keeper_api::effective::EffectivePolicies;
use checkpoint_keeper_core::quota::Held;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::quotas::{QuotaState, UsedRatio};
use super::writer::Written;
use checkpoint_keeper_runtime::telemetry;

/// Labels of the writes: how each went.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    result: &'static str,
}

/// Labels of the policy objects: their kind, and the reason of their condition `Accepted`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct PolicyLabels {
    kind: &'static str,
    reason: &'static str,
}

/// Labels of the quotas: their state.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QuotaStateLabels {
    state: &'static str,
}

/// Labels of one limit of a quota. A scrape adds the label `namespace` of the program that it is from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QuotaLimitLabels {
    quota_namespace: String,
    quota: String,
    resource: &'static str,
}

/// Labels of a node on which no agent is ready. A scrape may add the label `node` of the program that it is from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeWithoutAgentLabels {
    agent_node: String,
    health: &'static str,
}

/// Labels of a namespace with archives.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NamespaceLabels {
    archive_namespace: String,
}

/// The most limits of quotas that have a series of their own.
const MOST_LIMITS: usize = 500;

/// The most nodes without an agent that have a series of their own.
const MOST_NODES: usize = 100;

/// The most namespaces that have a series of their own.
const MOST_NAMESPACES: usize = 200;

/// The counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    leader: Gauge,
    writes: Family<WriteLabels, Counter>,
    policies: Family<PolicyLabels, Gauge>,
    nodes_without_agent: Gauge,
    node_without_agent: Family<NodeWithoutAgentLabels, Gauge>,
    namespace_archives: Family<NamespaceLabels, Gauge>,
    namespace_bytes: Family<NamespaceLabels, Gauge>,
    quotas: Family<QuotaStateLabels, Gauge>,
    quota_used: Family<QuotaLimitLabels, Gauge<f64, AtomicU64>>,
    quota_warns: Family<QuotaLimitLabels, Gauge<f64, AtomicU64>>,
}

impl Default for Metrics {
    fn default() -> Self {
        let writes = Family::<WriteLabels, Counter>::default();
        for result in Written::LABELS {
            let _ = writes.get_or_create(&WriteLabels { result });
        }
        Self {
            leader: Gauge::default(),
            writes,
            policies: Family::default(),
            nodes_without_agent: Gauge::default(),
            node_without_agent: Family::default(),
            namespace_archives: Family::default(),
            namespace_bytes: Family::default(),
            quotas: Family::default(),
            quota_used: Family::default(),
            quota_warns: Family::default(),
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
        registry.register(
            "quotas",
            "Number of CheckpointQuota objects by how they are; only the leader reports it",
            self.quotas.clone(),
        );
        registry.register(
            "quota_used_ratio",
            "What a namespace holds divided by what a CheckpointQuota allows, of the 500 limits that are used most; only the leader reports it",
            self.quota_used.clone(),
        );
        registry.register(
            "quota_warn_ratio",
            "From which used ratio on a CheckpointQuota warns (warnAt), of the same limits; only the leader reports it",
            self.quota_warns.clone(),
        );
        registry.register(
            "node_without_agent",
            "1 for a node with a NodeCheckpointStore and no agent that is ready, of up to 100 such nodes; only the leader reports it",
            self.node_without_agent.clone(),
        );
        registry.register(
            "namespace_archives",
            "Number of archives of a namespace over all nodes, of the 200 namespaces whose archives are largest; only the leader reports it",
            self.namespace_archives.clone(),
        );
        registry.register_with_unit(
            "namespace_archives_size",
            "Size of the archives of a namespace over all nodes, of the same namespaces; only the leader reports it",
            Unit::Bytes,
            self.namespace_bytes.clone(),
        );
    }

    /// Notes how the quotas are, and how much of their limits is used.
    pub fn quotas(&self, states: &[QuotaState], mut ratios: Vec<UsedRatio>) {
        self.quotas.clear();
        for state in QuotaState::ALL {
            let count = states.iter().filter(|its| **its == state).count();
            self.quotas
                .get_or_create(&QuotaStateLabels { state: state.name() })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        ratios.sort_by(|one, other| {
            let by_name = || (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name));
            other.ratio.total_cmp(&one.ratio).then_with(by_name)
        });
        self.quota_used.clear();
        self.quota_warns.clear();
        for UsedRatio { namespace, name, resource, ratio, warn_ratio } in ratios.into_iter().take(MOST_LIMITS)
        {
            let labels = QuotaLimitLabels { quota_namespace: namespace, quota: name, resource };
            self.quota_used.get_or_create(&labels).set(ratio);
            if let Some(warn_ratio) = warn_ratio {
                self.quota_warns.get_or_create(&labels).set(warn_ratio);
            }
        }
    }

    /// Notes on which nodes no agent is at work, each with what its agent is instead.
    pub fn nodes_without_agent(&self, nodes: &[(&str, &'static str)]) {
        self.nodes_without_agent.set(i64::try_from(nodes.len()).unwrap_or(i64::MAX));
        self.node_without_agent.clear();
        for (node, health) in nodes.iter().take(MOST_NODES) {
            let labels = NodeWithoutAgentLabels { agent_node: (*node).to_owned(), health };
            self.node_without_agent.get_or_create(&labels).set(1);
        }
    }

    /// Notes what namespaces hold over all nodes.
    pub fn namespaces(&self, held: &BTreeMap<&str, Held>) {
        let mut largest: Vec<(&str, Held)> = held.iter().map(|(name, held)| (*name, *held)).collect();
        largest.sort_by_key(|(name, held)| (Reverse(held.bytes), *name));
        self.namespace_archives.clear();
        self.namespace_bytes.clear();
        for (namespace, held) in largest.into_iter().take(MOST_NAMESPACES) {
            let labels = NamespaceLabels { archive_namespace: namespace.to_owned() };
            let signed = |value| i64::try_from(value).unwrap_or(i64::MAX);
            self.namespace_archives.get_or_create(&labels).set(signed(held.count));
            self.namespace_bytes.get_or_create(&labels).set(signed(held.bytes));
        }
    }

    /// Notes whether this replica leads. Who does not counts no policies: each would be counted twice.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        if !leads {
            self.policies.clear();
            self.nodes_without_agent(&[]);
            self.namespaces(&BTreeMap::new());
            self.quotas.clear();
            self.quota_used.clear();
            self.quota_warns.clear();
        }
    }

    /// Counts a writing.
    pub fn wrote(&self, result: &'static str) {
        self.writes.get_or_create(&WriteLabels { result }).inc();
    }

    /// Counts the policies; at most the kinds times the reasons.
    pub fn policies(&self, effective: &EffectivePolicies) {
        let mut counts: BTreeMap<PolicyLabels, i64> = BTreeMap::new();
        for (id, (_, acceptance)) in &effective.acceptances {
            let labels = PolicyLabels { kind: id.kind.name(), reason: acceptance.reason() };
            *counts.entry(labels).or_default() += 1;
        }
        self.policies.clear();
        for (labels, count) in counts {
            self.policies.get_or_create(&labels).set(count);
        }
    }
}

/// A registry with these and the shared ones.
pub(super) fn registry(metrics: &Metrics, sources: telemetry::Sources) -> Registry {
    let mut registry = telemetry::registry(sources);
    metrics.register(&mut registry);
    registry
}

/// All metrics that there can be, with one value of each label, as they are served.
pub fn example() -> String {
    let metrics = Metrics::default();
    let labels = PolicyLabels { kind: "CheckpointPolicy", reason: "Accepted" };
    metrics.policies.get_or_create(&labels).set(1);
    let (namespace, name) = ("shop".to_owned(), "evidence".to_owned());
    let ratio = UsedRatio { namespace, name, resource: "count", ratio: 0.5, warn_ratio: Some(0.8) };
    metrics.quotas(&[QuotaState::Fine], vec![ratio]);
    metrics.nodes_without_agent(&[("node-1", "Missing")]);
    metrics.namespaces(&[("shop", Held { count: 1, bytes: 1 })].into());
    let mut text = String::new();
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry(&metrics, telemetry::example()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn served(metrics: &Metrics) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry(metrics, telemetry::example()))
            .unwrap();
        text
    }

    #[test]
    fn of_however_many_nodes_namespaces_and_quotas_a_bounded_number_is_named() {
        let metrics = Metrics::default();
        let names: Vec<String> = (0..2_000).map(|number| format!("name-{number:04}")).collect();
        let away: Vec<_> = names.iter().map(|name| (name.as_str(), "Missing")).collect();
        metrics.nodes_without_agent(&away);
        let held = |number: usize| Held { count: 1, bytes: number as u64 };
        metrics.namespaces(&names.iter().enumerate().map(|(at, name)| (name.as_str(), held(at))).collect());
        let ratio = |name: &String| UsedRatio {
            namespace: name.clone(),
            name: "q".to_owned(),
            resource: "count",
            ratio: 0.5,
            warn_ratio: Some(0.8),
        };
        metrics.quotas(&[], names.iter().map(ratio).collect());
        let text = served(&metrics);
        let count = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
        assert_eq!(count("checkpoint_keeper_node_without_agent{"), MOST_NODES);
        assert!(text.contains("checkpoint_keeper_nodes_without_agent 2000\n"), "{text}");
        assert_eq!(count("checkpoint_keeper_namespace_archives{"), MOST_NAMESPACES);
        assert_eq!(count("checkpoint_keeper_namespace_archives_size_bytes{"), MOST_NAMESPACES);
        assert!(text.contains("archives_size_bytes{archive_namespace=\"name-1999\"} 1999\n"), "{text}");
        assert_eq!(count("checkpoint_keeper_quota_used_ratio{"), MOST_LIMITS);
        assert_eq!(count("checkpoint_keeper_quota_warn_ratio{"), MOST_LIMITS);
        // A replica that lost the lease names nothing: the other one does.
        metrics.leads(false);
        let text = served(&metrics);
        assert!(!text.contains("name-"), "{text}");
    }
}

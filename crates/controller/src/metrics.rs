//! What the controller counts.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use checkpoint_keeper_api::effective::EffectivePolicies;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::quotas::{QuotaState, UsedRatio};
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

/// How a quota is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Is {
    state: &'static str,
}

/// One limit of a quota.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Limit {
    namespace: String,
    quota: String,
    resource: &'static str,
}

/// The most limits of quotas that have a series of their own.
const MOST_LIMITS: usize = 500;

/// The counts.
#[derive(Debug, Clone)]
pub struct Metrics {
    leader: Gauge,
    writes: Family<Outcome, Counter>,
    policies: Family<Became, Gauge>,
    nodes_without_agent: Gauge,
    quotas: Family<Is, Gauge>,
    quota_used: Family<Limit, Gauge<f64, AtomicU64>>,
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
            quotas: Family::default(),
            quota_used: Family::default(),
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
    }

    /// Notes how the quotas are, and how much of their limits is used.
    pub fn quotas(&self, states: &[QuotaState], mut ratios: Vec<UsedRatio>) {
        self.quotas.clear();
        for state in QuotaState::ALL {
            let count = states.iter().filter(|its| **its == state).count();
            self.quotas
                .get_or_create(&Is { state: state.name() })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        ratios.sort_by(|one, other| {
            let by_name = || (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name));
            other.ratio.total_cmp(&one.ratio).then_with(by_name)
        });
        self.quota_used.clear();
        for UsedRatio { namespace, name, resource, ratio } in ratios.into_iter().take(MOST_LIMITS) {
            self.quota_used.get_or_create(&Limit { namespace, quota: name, resource }).set(ratio);
        }
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
            self.quotas.clear();
            self.quota_used.clear();
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
    let (namespace, name) = ("shop".to_owned(), "evidence".to_owned());
    let ratio = UsedRatio { namespace, name, resource: "count", ratio: 0.5 };
    metrics.quotas(&[QuotaState::Fine], vec![ratio]);
    let mut text = String::new();
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry(&metrics, telemetry::example()));
    text
}

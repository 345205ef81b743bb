//! The agent's metrics: read from the observations when they are asked for, so that nothing is counted twice.
//!
//! No label names an archive, a pod or a namespace: what there is of each metric is bounded by the
//! reasons.

use std::fmt::Error;

use checkpoint_keeper_runtime::telemetry;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::state::{AgentState, Observations};

/// The agent's metrics and the shared ones.
pub(super) fn registry(state: AgentState, sources: telemetry::Sources) -> Registry {
    let mut registry = telemetry::registry(sources);
    registry.sub_registry_with_prefix(telemetry::PREFIX).register_collector(Box::new(Observed(state)));
    registry
}

#[derive(Debug)]
struct Observed(AgentState);

impl Collector for Observed {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        self.0.read(|observed| encode(observed, &mut encoder))
    }
}

fn encode(observed: &Observations, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let known = observed.summary.is_some();
    gauge(
        encoder,
        "policies_known",
        "Whether the policies are known: 0, and nothing is deleted.",
        u64::from(known),
    )?;
    counter(encoder, "plans", "How often was decided about everything.", observed.plans)?;
    counter(encoder, "deletion_failures", "Deletions that the system refused.", observed.failed)?;
    gauge(
        encoder,
        "problems",
        "What is wrong on the node, as its NodeCheckpointStore names it.",
        observed.problems().count() as u64,
    )?;
    by_reason(encoder, "deletions", "Deleted archives.", None, observed, |(count, _)| count)?;
    by_reason(
        encoder,
        "deleted",
        "What deleted archives had.",
        Some(&Unit::Bytes),
        observed,
        |(_, bytes)| bytes,
    )?;
    let Some(summary) = &observed.summary else { return Ok(()) };
    gauge(encoder, "archives", "Archives in the directory.", summary.archives)?;
    sized(encoder, "archives_size", "What they have together.", summary.bytes)?;
    gauge(encoder, "archives_pinned", "Archives that a marker holds.", summary.pinned)?;
    gauge(encoder, "archives_incomplete", "Archives that were cut off.", summary.incomplete)?;
    gauge(encoder, "archives_unreadable", "Archives that cannot be read.", summary.unreadable)?;
    gauge(encoder, "archives_unknown", "Archives of a container that is not known.", summary.unknown)?;
    gauge(
        encoder,
        "deletions_pending",
        "Archives that are to go and wait, as policies may only delete so many a minute.",
        summary.pending(),
    )?;
    let mut verdicts = encoder.encode_descriptor(
        "verdicts",
        "Archives by the reason of their verdict.",
        None,
        prometheus_client::metrics::MetricType::Gauge,
    )?;
    for (reason, count) in &summary.verdicts {
        let labels = [("reason", reason.to_string())];
        ConstGauge::new(signed(*count)).encode(verdicts.encode_family(&labels)?)?;
    }
    if let Some((total, available)) = summary.filesystem {
        sized(encoder, "filesystem_size", "The size of the file system that they lie on.", total)?;
        sized(encoder, "filesystem_available", "What ordinary processes may still use of it.", available)?;
    }
    let (wanted, freed) = summary.watermark.map_or((0, 0), |round| (round.wanted_bytes, round.freed_bytes));
    sized(encoder, "watermark_wanted", "What the storage policies want freed.", wanted)?;
    sized(encoder, "watermark_freed", "What of it can be freed.", freed)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), Error> {
    let gauge = ConstGauge::new(signed(value));
    let encoder = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
    gauge.encode(encoder)
}

fn sized(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, bytes: u64) -> Result<(), Error> {
    let gauge = ConstGauge::new(signed(bytes));
    let encoder = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), gauge.metric_type())?;
    gauge.encode(encoder)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> Result<(), Error> {
    let counter = ConstCounter::new(value);
    let encoder = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
    counter.encode(encoder)
}

fn by_reason(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    observed: &Observations,
    value: impl Fn((u64, u64)) -> u64,
) -> Result<(), Error> {
    let kind = prometheus_client::metrics::MetricType::Counter;
    let mut family = encoder.encode_descriptor(name, help, unit, kind)?;
    for (reason, figures) in &observed.deleted {
        let labels = [("reason", reason.to_string())];
        ConstCounter::new(value(*figures)).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A page of all that there can be, with one of each label.
pub fn example() -> String {
    use checkpoint_keeper_core::plan::Reason;

    use super::summary::Summary;

    let state = AgentState::new();
    let summary = Summary {
        filesystem: Some((2, 1)),
        verdicts: [(Reason::WithinLimits, 1)].into(),
        ..Summary::default()
    };
    state.planned(summary, std::time::Instant::now());
    state.count_deletion(Reason::MaxAge);
    let mut text = String::new();
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry(state, telemetry::example()));
    text
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use prometheus_client::encoding::text::encode;

    use super::*;
    use crate::summary::Summary;

    #[test]
    fn no_metric_grows_with_archives_pods_or_namespaces() {
        let text = |namespaces: u32| {
            let state = AgentState::new();
            let mut summary = Summary { archives: u64::from(namespaces), ..Summary::default() };
            for number in 0..namespaces {
                summary.namespaces.insert(format!("team-{number}"), (1, 1));
            }
            state.planned(summary, Instant::now());
            let mut text = String::new();
            encode(&mut text, &registry(state, telemetry::example())).unwrap();
            text
        };
        let (few, many) = (text(1), text(10_000));
        assert_eq!(few.lines().count(), many.lines().count(), "{many}");
        assert!(many.contains("checkpoint_keeper_archives 10000\n"), "{many}");
        assert!(!many.contains("team-"), "{many}");
    }
}

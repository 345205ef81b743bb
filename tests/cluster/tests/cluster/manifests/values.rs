//! Which values the chart takes, and that those which it takes come out as they are meant.

use anyhow::{Context, ensure};

use super::{objects, render};

fn refused(values: &str, named: &str) -> anyhow::Result<()> {
    let refused = render(values, &[]).err().with_context(|| format!("{values} is taken"))?;
    ensure!(format!("{refused:#}").contains(named), "{values}: {refused:#}");
    Ok(())
}

/// helm takes such a key out of the values, with its default.
#[test]
fn a_key_without_a_value_is_refused_and_named() -> anyhow::Result<()> {
    for (value, named) in [
        ("agent: {inventoryLimit: }", "inventoryLimit"),
        ("crds: {enabled: }", "enabled"),
        ("agent: {kubeletRootDir: }", "kubeletRootDir"),
        ("metricsPort:", "metricsPort"),
        ("labels:", "'labels'"),
        ("agent: {kubelet: {port: }}", "port"),
        ("agent: {pools: {gpu: {nodeLabel: {key: a, values: [b]}, resources: }}}", "resources"),
    ] {
        refused(value, named)?;
    }
    let part = "agent: {pools: {gpu: {nodeLabel: {key: a, values: [b]}, kubelet: {port: 1}}}}";
    ensure!(render(part, &[])?.contains("--kubelet-port=1\n"), "a pool must set all of kubelet");
    Ok(())
}

#[test]
fn a_node_that_two_pools_could_have_is_in_the_first() -> anyhow::Result<()> {
    let values = "agent: {pools: {a: {nodeLabel: {key: k1, values: [v]}}, b: {nodeLabel: {key: k2, values: [v]}}, \
                  c: {nodeLabel: {key: k3, values: [v]}}}}";
    let sets = objects(&render(values, &["--show-only", "templates/agent.yaml"])?)?;
    let found: Vec<Vec<String>> = sets
        .iter()
        .map(|set| {
            let affinity = &set["spec"]["template"]["spec"]["affinity"]["nodeAffinity"];
            let terms = &affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
            let expressions = terms[0]["matchExpressions"].as_array().cloned().unwrap_or_default();
            let ours = expressions
                .iter()
                .filter(|one| one["key"].as_str().is_some_and(|key| key.starts_with('k') && key.len() == 2));
            ours.map(|one| format!("{} {}", one["key"], one["operator"]).replace('"', "")).collect()
        })
        .collect();
    let expected = [
        &["k1 NotIn", "k2 NotIn", "k3 NotIn"][..],
        &["k1 In"],
        &["k1 NotIn", "k2 In"],
        &["k1 NotIn", "k2 NotIn", "k3 In"],
    ];
    ensure!(found == expected, "{found:?}");
    Ok(())
}

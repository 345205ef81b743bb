//! Which values the chart takes, and that those which it takes come out as they are meant.

use anyhow::{Context, ensure};

use super::render;

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

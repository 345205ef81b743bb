//! Which values the chart takes, and that those which it takes come out as they are meant.

use std::path::Path;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::chart;
use checkpoint_keeper_testcluster::process::output;
use serde_json::{Value, json};

use super::{objects, render, tools};
use crate::support::REPOSITORY;

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

#[test]
fn names_are_names_and_collide_with_no_role_that_every_cluster_has() -> anyhow::Result<()> {
    for name in ["it's", "A", "a_b", "-a", "a-", "a.b"] {
        refused(&format!("fullnameOverride: \"{name}\""), "fullnameOverride")?;
        refused(&format!("nameOverride: \"{name}\""), "nameOverride")?;
    }
    // `cluster-admin` is what administrators are.
    let roles =
        objects(&render("fullnameOverride: cluster", &["--show-only", "templates/user-roles.yaml"])?)?;
    let roles: Vec<_> = roles.iter().map(|role| role["metadata"]["name"].clone()).collect();
    let expected = ["view", "edit", "admin"].map(|role| json!(format!("cluster-checkpoints-{role}")));
    ensure!(roles == expected, "{roles:?}");
    // Names are cut after 40 characters, and a dot is no end of one.
    let release = format!("{}.b.c", "a".repeat(39));
    let mut helm = std::process::Command::new(tools().helm());
    let chart = Path::new(REPOSITORY).join(chart::CHART);
    helm.args(["template", &release]).arg(chart).args(["--show-only", "templates/accounts.yaml"]);
    let cut = output(helm.args(["--set", "nameOverride=b"]))?;
    ensure!(cut.contains(&format!("name: {}-agent\n", "a".repeat(39))), "{cut}");
    Ok(())
}

#[test]
fn a_chart_around_this_one_may_switch_it_on_and_share_values() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let chart = "apiVersion: v2\nname: around\nversion: 1.0.0\ndependencies: [{name: checkpoint-keeper, version: 0.1.0, \
                 condition: checkpoint-keeper.enabled}]\n";
    std::fs::write(folder.path().join("Chart.yaml"), chart)?;
    std::fs::create_dir(folder.path().join("charts"))?;
    let copy = folder.path().join("charts/checkpoint-keeper");
    output(
        std::process::Command::new("cp").arg("-r").arg(Path::new(REPOSITORY).join(chart::CHART)).arg(&copy),
    )?;
    let rendered = |enabled: bool| {
        let enabled = format!("checkpoint-keeper.enabled={enabled},global.a=b");
        chart::template(&tools().helm(), folder.path(), &["--set", &enabled])
    };
    ensure!(rendered(true)?.contains("kind: DaemonSet"), "there are no agents");
    ensure!(!rendered(false)?.contains("kind: DaemonSet"), "there are agents");
    // A copy that was made without them.
    for (file, value) in [("files/alerts.yaml", "prometheusRule"), ("files/dashboards", "dashboards")] {
        output(std::process::Command::new("rm").arg("-r").arg(copy.join(file)))?;
        let asked = format!("{value}.enabled=true");
        let refused = chart::template(&tools().helm(), &copy, &["--set", &asked]).err();
        let refused = refused.with_context(|| format!("{asked} is taken without {file}"))?;
        ensure!(format!("{refused:#}").contains(file), "{refused:#}");
    }
    Ok(())
}

#[test]
fn values_come_out_as_they_are() -> anyhow::Result<()> {
    let values = "log: {level: 'a: b #c'}\nlabels: {team: storage, same: one}\n\
                  podMonitor: {enabled: true, interval: 60s, labels: {same: two}}\n\
                  agent: {priorityClassName: '1', seLinuxType: 'true', kubeletRootDir: /var/snap/a.b_c-1/@kubelet, \
                  annotations: {kubectl.kubernetes.io/default-container: other}}\n\
                  controller: {priorityClassName: '2', terminationGracePeriodSeconds: 2000000}";
    let objects = objects(&render(values, &[])?)?;
    let one = |kind: &str| objects.iter().find(|object| object["kind"] == kind).cloned().unwrap_or_default();
    let pod = |kind: &str| one(kind)["spec"]["template"]["spec"].clone();
    let (agent, controller) = (pod("DaemonSet"), pod("Deployment"));
    for (pod, class) in [(&agent, "1"), (&controller, "2")] {
        ensure!(pod["priorityClassName"] == class, "{}", pod["priorityClassName"]);
        let arguments = pod["containers"][0]["args"].as_array().cloned().unwrap_or_default();
        for argument in ["--log-level=a: b #c", "--directory=/var/snap/a.b_c-1/@kubelet/checkpoints"] {
            ensure!(arguments.contains(&json!(argument)), "{arguments:?}");
        }
    }
    ensure!(agent["securityContext"]["seLinuxOptions"]["type"] == "true", "{agent}");
    ensure!(agent["volumes"][0]["hostPath"]["path"] == "/var/snap/a.b_c-1/@kubelet/checkpoints", "{agent}");
    ensure!(controller["terminationGracePeriodSeconds"] == 2_000_000, "{controller}");
    let annotations = &one("DaemonSet")["spec"]["template"]["metadata"]["annotations"];
    ensure!(*annotations == json!({"kubectl.kubernetes.io/default-container": "other"}), "{annotations}");
    // No key twice, of which a reader might take either.
    let rendered = render(values, &["--show-only", "templates/monitoring.yaml"])?;
    ensure!(rendered.matches("same: ").count() == 1, "{rendered}");
    ensure!(one("PodMonitor")["metadata"]["labels"]["same"] == "two", "{}", one("PodMonitor"));
    let rendered = render(values, &["--show-only", "templates/agent.yaml"])?;
    ensure!(rendered.matches("default-container: ").count() == 1, "{rendered}");
    Ok(())
}

/// The rules of the alerts, as these values render them.
fn alerts(values: &str) -> anyhow::Result<Vec<Value>> {
    let rendered = objects(&render(values, &["--show-only", "templates/monitoring.yaml"])?)?;
    let rule = rendered.iter().find(|object| object["kind"] == "PrometheusRule");
    let groups = rule.context("there is no PrometheusRule")?["spec"]["groups"].as_array().cloned();
    let rules = groups.context("it has no groups")?;
    Ok(rules.iter().filter_map(|group| group["rules"].as_array()).flatten().cloned().collect())
}

#[test]
fn alerts_have_no_dead_links() -> anyhow::Result<()> {
    let unset = alerts("prometheusRule: {enabled: true}")?;
    ensure!(
        unset.len() > 20 && unset.iter().all(|rule| rule["annotations"]["summary"].is_string()),
        "{unset:?}"
    );
    ensure!(unset.iter().all(|rule| rule["annotations"]["runbook_url"].is_null()), "{unset:?}");
    let url = "https://book.example/runbooks/";
    let set = alerts(&format!("prometheusRule: {{enabled: true, runbookUrl: {url}}}"))?;
    ensure!(set.len() == unset.len(), "{set:?}");
    for rule in &set {
        let expected = format!("{url}{}.html", rule["alert"].as_str().context("it has a name")?);
        ensure!(rule["annotations"]["runbook_url"] == expected, "{rule}");
    }
    Ok(())
}

#[test]
fn alerts_have_further_labels_and_are_left_out_as_values_say() -> anyhow::Result<()> {
    let all = alerts("prometheusRule: {enabled: true}")?;
    let some = alerts(
        "prometheusRule: {enabled: true, additionalLabels: {team: storage}, \
         disabled: [CheckpointKeeperOldPinsHoldSpace, CheckpointKeeperAgentMissing]}",
    )?;
    ensure!(some.len() + 2 == all.len(), "{some:?}");
    for rule in &some {
        ensure!(
            !["CheckpointKeeperOldPinsHoldSpace", "CheckpointKeeperAgentMissing"]
                .contains(&rule["alert"].as_str().unwrap_or_default()),
            "{rule}"
        );
        let labels = &rule["labels"];
        ensure!(labels["team"] == "storage" && labels["severity"].is_string(), "{rule}");
    }
    let relabelings = "[{sourceLabels: [__name__], regex: a_bucket, action: drop}]";
    let values = format!("podMonitor: {{enabled: true, metricRelabelings: {relabelings}}}");
    let monitor = objects(&render(&values, &["--show-only", "templates/monitoring.yaml"])?)?;
    let expected = json!([{"sourceLabels": ["__name__"], "regex": "a_bucket", "action": "drop"}]);
    let endpoint = &monitor[0]["spec"]["podMetricsEndpoints"][0];
    ensure!(endpoint["metricRelabelings"] == expected, "{endpoint}");
    Ok(())
}

#[test]
fn values_that_would_render_nonsense_are_refused() -> anyhow::Result<()> {
    for (value, named) in [
        ("podMonitor: {interval: '60'}", "interval"),
        ("agent: {kubeletRootDir: /a/../b}", "kubeletRootDir"),
        ("agent: {kubeletRootDir: '/a, type: File'}", "kubeletRootDir"),
        ("agent: {kubeletRootDir: /}", "kubeletRootDir"),
        ("agent: {stateDirectory: /a b}", "stateDirectory"),
        ("image: {tag: ''}", "tag"),
        ("image: {repository: 'registry.example/a:1.0'}", "repository"),
        ("image: {repository: 'registry.example/a@sha256:0'}", "repository"),
        ("agent: {architectures: []}", "architectures"),
        ("agent: {maxUnavailable: 0}", "maxUnavailable"),
        ("agent: {maxUnavailable: 0%}", "maxUnavailable"),
        ("networkPolicies: {apiServerPorts: []}", "apiServerPorts"),
        ("clusterPolicyNamespaces: ['a,b']", "clusterPolicyNamespaces"),
        ("labels: {app.kubernetes.io/name: mine}", "app.kubernetes.io/name"),
        ("agent: {labels: {checkpoint-keeper.io/pool: mine}}", "checkpoint-keeper.io/pool"),
        ("controller: {labels: {app.kubernetes.io/component: mine}}", "app.kubernetes.io/component"),
        ("podMonitor: {labels: {helm.sh/chart: mine}}", "helm.sh/chart"),
        ("podMonitor: {metricRelabelings: [drop]}", "metricRelabelings"),
        ("prometheusRule: {runbookUrl: 'https://book.example/runbooks'}", "runbookUrl"),
        ("prometheusRule: {additionalLabels: {severity: info}}", "severity"),
        ("prometheusRule: {additionalLabels: {a.b: c}}", "a.b"),
        ("prometheusRule: {enabled: true, disabled: [OldPins]}", "OldPins"),
    ] {
        refused(value, named)?;
    }
    for taken in [
        "image: {repository: 'registry.example:5000/a/b'}",
        "image: {repository: a}",
        "agent: {maxUnavailable: 1}",
        "podMonitor: {interval: 1m30s}",
        "labels: {app.kubernetes.io/part-of: mine}",
    ] {
        render(taken, &[]).with_context(|| taken.to_owned())?;
    }
    Ok(())
}

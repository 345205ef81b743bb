//! What the chart renders for kinds of clusters that differ from others: `OpenShift`, those that limit system priorities, and
//! those whose objects Argo CD or kustomize bring.

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::process::output;
use serde_json::{Value, json};

use super::{name, objects, render};
use crate::support::{REPOSITORY, cluster};

/// The objects of one kind.
fn of_kind(objects: &[Value], kind: &str) -> Vec<Value> {
    objects.iter().filter(|object| object["kind"] == kind).cloned().collect()
}

/// `restricted-v2`, the constraints that pods have by default, takes no user but one of the namespace's own range.
#[test]
fn on_openshift_the_controller_runs_as_the_user_that_it_is_given() -> anyhow::Result<()> {
    let user = |rendered: &str| -> anyhow::Result<Value> {
        let deployments = of_kind(&objects(rendered)?, "Deployment");
        Ok(deployments[0]["spec"]["template"]["spec"]["securityContext"].clone())
    };
    let elsewhere = user(&render("", &[])?)?;
    ensure!(elsewhere["runAsUser"] == 65532 && elsewhere["runAsGroup"] == 65532, "{elsewhere}");
    let constraints = "security.openshift.io/v1/SecurityContextConstraints";
    for (values, arguments) in [("openshift: {scc: true}", &[][..]), ("", &["--api-versions", constraints])] {
        let rendered = render(values, arguments)?;
        let context = user(&rendered)?;
        ensure!(context["runAsUser"].is_null() && context["runAsGroup"].is_null(), "{context}");
        ensure!(context["runAsNonRoot"] == true, "{context}");
        let found = of_kind(&objects(&rendered)?, "SecurityContextConstraints");
        let volumes = found.first().context("there are no constraints")?["volumes"].clone();
        let volumes = volumes.as_array().cloned().unwrap_or_default();
        for volume in ["hostPath", "csi", "persistentVolumeClaim", "downwardAPI", "ephemeral"] {
            ensure!(volumes.contains(&json!(volume)), "agent.extraVolumes of {volume} are refused");
        }
    }
    Ok(())
}

/// Without a cluster to look at nobody knows whose definitions are there.
#[test]
fn the_older_operators_definitions_are_not_rendered_without_a_cluster() -> anyhow::Result<()> {
    let refused = render("crds: {legacy: true}", &[]).err().context("they are rendered")?;
    ensure!(format!("{refused:#}").contains("config/crd-legacy"), "{refused:#}");
    Ok(())
}

/// helm applies kinds that it does not know last; Argo CD can be told.
#[test]
fn argo_cd_applies_the_admission_rules_first() -> anyhow::Result<()> {
    let mut rules = 0;
    for object in objects(&render("", &[])?)? {
        let is_rule = object["kind"].as_str().unwrap_or_default().starts_with("ValidatingAdmissionPolicy");
        let wave = &object["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"];
        ensure!(is_rule == (*wave == "-1"), "{}: {wave}", name(&object));
        rules += usize::from(is_rule);
    }
    ensure!(rules == 12, "{rules} rules and bindings");
    Ok(())
}

#[test]
fn a_quota_allows_system_priorities_wherever_one_is_used() -> anyhow::Result<()> {
    let pool = "agent: {priorityClassName: mine, pools: {a: {nodeLabel: {key: k, values: [v]}, \
                priorityClassName: system-node-critical}}}";
    for (values, is_there) in [
        ("", true),
        ("agent: {priorityClassName: mine}", false),
        ("agent: {priorityClassName: mine}\ncontroller: {priorityClassName: system-cluster-critical}", true),
        (pool, true),
        ("priorityClassQuota: false", false),
        ("agent: {priorityClassName: mine}\npriorityClassQuota: true", true),
    ] {
        let quotas = of_kind(&objects(&render(values, &[])?)?, "ResourceQuota");
        ensure!(quotas.len() == usize::from(is_there), "{values}: {quotas:?}");
    }
    Ok(())
}

/// Deleting the definitions deletes every policy, quota and hold.
#[test]
fn what_kustomize_deletes_of_the_operator_has_no_definitions() -> anyhow::Result<()> {
    let built = |folder: &str| {
        objects(&output(&mut cluster().kubectl(&["kustomize", &format!("{REPOSITORY}/{folder}")]))?)
    };
    for folder in ["config", "examples/kustomize"] {
        let definitions = of_kind(&built(folder)?, "CustomResourceDefinition");
        ensure!(definitions.is_empty(), "{folder}: {}", definitions.len());
    }
    let definitions = built("config/crd")?;
    ensure!(of_kind(&definitions, "CustomResourceDefinition").len() == definitions.len());
    let files = std::fs::read_dir(format!("{REPOSITORY}/config/crd"))?;
    let files = files.filter_map(Result::ok).filter(|file| file.path().extension().is_some()).count();
    ensure!(definitions.len() == files, "{} of {files} definitions", definitions.len());
    // And kubectl, told the folder, takes what is beside them for no object.
    output(&mut cluster().kubectl(&[
        "create",
        "--dry-run=client",
        "--filename",
        &format!("{REPOSITORY}/config/crd"),
    ]))?;
    Ok(())
}

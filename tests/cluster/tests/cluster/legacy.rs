//! The older operator's kind, whose definition is that project's: it may be missing, come later, or be replaced by
//! that project's own while an agent runs.

use anyhow::Context;
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::{Namespace, wait};
use serde_json::{Value, json};

use crate::agents::{Agent, checkpoints, left, stays};
use crate::install;
use crate::support::{DEADLINE, NODES, REPOSITORY, cluster, counting_pod};

const DEFINITION: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/checkpointrestoreoperators.criu.org";

/// An object of the older operator in a namespace, for that namespace: one archive of each container stays.
fn keep_one(namespace: &Namespace<'_>, annotations: &Value) -> anyhow::Result<()> {
    let name = namespace.name();
    let object = json!({
        "apiVersion": "criu.org/v1", "kind": "CheckpointRestoreOperator",
        "metadata": {"name": "limit", "namespace": name, "annotations": annotations},
        "spec": {"applyPoliciesImmediately": true, "globalPolicy": {"maxCheckpointsPerContainer": 1}},
    });
    cluster().apply(&object.to_string())
}

/// Our definition of the kind, installed as users do.
fn install_ours() -> anyhow::Result<()> {
    let folder = format!("{REPOSITORY}/config/crd-legacy");
    output(&mut cluster().kubectl(&["apply", "--server-side", "--force-conflicts", "--filename", &folder]))?;
    let wait = ["wait", "--for=condition=Established", "--timeout=60s", "--filename", &folder];
    output(&mut cluster().kubectl(&wait)).map(drop)
}

/// The definition as the older operator has it: the same fields, no rule but types, and a status with no field.
fn install_theirs() -> anyhow::Result<()> {
    let mut definition = cluster().get(DEFINITION)?;
    definition["metadata"] = json!({
        "name": "checkpointrestoreoperators.criu.org",
        "annotations": {"controller-gen.kubebuilder.io/version": "v0.16.1"},
    });
    definition.as_object_mut().context("no object")?.remove("status");
    let version = &mut definition["spec"]["versions"][0];
    version["additionalPrinterColumns"] = json!([]);
    let schema = &mut version["schema"]["openAPIV3Schema"];
    without_rules(schema);
    schema["properties"]["status"] = json!({"type": "object"});
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), definition.to_string())?;
    let path = file.path().to_string_lossy().into_owned();
    output(&mut cluster().kubectl(&["replace", "--filename", &path])).map(drop)
}

fn without_rules(schema: &mut Value) {
    let Value::Object(members) = schema else { return };
    for rule in ["x-kubernetes-validations", "minimum", "maxItems", "maxLength", "pattern", "description"] {
        if !members.get(rule).is_some_and(Value::is_object) {
            members.remove(rule);
        }
    }
    members.values_mut().for_each(without_rules);
}

#[test]
fn another_projects_definition_over_ours_changes_no_decision() -> anyhow::Result<()> {
    let _broken = NODES.write();
    install::agents()?;
    install_ours()?;
    let node = cluster().nodes()[0];
    let web = |prefix| -> anyhow::Result<Namespace<'static>> {
        let namespace = cluster().namespace(prefix)?;
        namespace.apply(&counting_pod("web", node, &["server"]))?;
        namespace.wait_until_running("web")?;
        Ok(namespace)
    };
    let (enforced, dry) = (web("enforced")?, web("dry")?);
    keep_one(&enforced, &json!({}))?;
    keep_one(&dry, &json!({"checkpoint-keeper.io/mode": "DryRun"}))?;
    let agent = Agent::start(node)?;
    let mut one = checkpoints(node, enforced.name(), "web", 2)?;
    let mut all = checkpoints(node, dry.name(), "web", 2)?;
    left(node, enforced.name(), &one[1..])?;
    stays(&agent, node, dry.name(), &all)?;
    install_theirs()?;
    wait::until("their definition to be there", DEADLINE, || {
        let definition = cluster().get(DEFINITION)?;
        let status = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
        Ok(status["x-kubernetes-preserve-unknown-fields"].is_null())
    })?;
    one.extend(checkpoints(node, enforced.name(), "web", 2)?);
    all.extend(checkpoints(node, dry.name(), "web", 2)?);
    left(node, enforced.name(), &one[3..])?;
    stays(&agent, node, dry.name(), &all)?;
    stays(&agent, node, enforced.name(), &one[3..])?;
    agent.ready()?;
    install_ours()
}

#[test]
fn an_agent_works_without_the_older_operators_definition_and_sees_when_it_comes() -> anyhow::Result<()> {
    let _broken = NODES.write();
    install::agents()?;
    let folder = format!("{REPOSITORY}/config/crd-legacy");
    let delete = ["delete", "--ignore-not-found", "--timeout=60s", "--filename", &folder];
    output(&mut cluster().kubectl(&delete))?;
    let node = cluster().nodes()[0];
    let namespace = cluster().namespace("later")?;
    namespace.apply(&counting_pod("web", node, &["server"]))?;
    namespace.wait_until_running("web")?;
    let agent = Agent::start(node)?;
    let made = checkpoints(node, namespace.name(), "web", 2)?;
    stays(&agent, node, namespace.name(), &made)?;
    install_ours()?;
    wait::until("the object to be taken", DEADLINE, || keep_one(&namespace, &json!({})).map(|()| true))?;
    left(node, namespace.name(), &made[1..])?;
    agent.ready()
}

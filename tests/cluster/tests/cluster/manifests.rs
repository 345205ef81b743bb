//! What is rendered from the chart, by helm itself, held against the files in `config`, the schemas of Kubernetes, and a
//! linter. No node is needed for it.

mod platforms;
mod values;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::components::kubernetes_version;
use checkpoint_keeper_testcluster::paths::Cache;
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::tools::{self, Tools};
use checkpoint_keeper_testcluster::{chart, schemas};
use serde_json::{Value, json};

use crate::support::{REPOSITORY, cluster};

/// helm and kubeconform, built once.
pub(crate) fn tools() -> &'static Tools {
    static TOOLS: OnceLock<Tools> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let cache = Cache::of_user().expect("there is no cache");
        Tools::provide(&cache).expect("helm cannot be built")
    })
}

/// Kinds that Kubernetes itself does not have: only their own operators know their schemas.
const FOREIGN: &str = "PodMonitor,PrometheusRule,SecurityContextConstraints";

/// Values by which the chart renders everything that it can.
const EVERYTHING: &str = r"
namespace: {create: true}
imagePullSecrets: [{name: registry}]
labels: {team: storage}
clusterPolicyNamespaces: [one, two]
otherOperatorNamespaces: [three]
log: {level: debug, format: json}
metricsPort: 9999
priorityClassQuota: true
networkPolicies: {enabled: true, metricsFrom: [{namespaceSelector: {}}]}
openshift: {scc: true}
podMonitor: {enabled: true, interval: 30s, labels: {release: prometheus}}
prometheusRule: {enabled: true, runbookUrl: https://runbooks.example/}
dashboards: {enabled: true}
agent:
  kubelet: {useNodeCertificate: true, port: 10251}
  inventoryLimit: 0
  extraArgs: [--settle=10s]
  extraEnv: [{name: A, value: b}]
  extraVolumes: [{name: more, emptyDir: {}}]
  extraVolumeMounts: [{name: more, mountPath: /more}]
  labels: {a: b}
  annotations: {c: d}
  pools:
    gpu:
      nodeLabel: {key: example.com/pool, values: [gpu, gpu-large]}
      kubeletRootDir: /data/kubelet
      resources: {limits: {memory: 256Mi}}
controller:
  replicas: 3
  priorityClassName: system-cluster-critical
  tolerations: [{operator: Exists}]
  extraArgs: [--log-level=info]
  extraEnv: [{name: A, value: b}]
  extraVolumes: [{name: more, emptyDir: {}}]
  extraVolumeMounts: [{name: more, mountPath: /more}]
";

fn render(values: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    file.write_all(values.as_bytes())?;
    let values = file.path().to_string_lossy().into_owned();
    let arguments = [&["--values", &values][..], arguments].concat();
    chart::template(&tools().helm(), &Path::new(REPOSITORY).join(chart::CHART), &arguments)
}

/// Manifests as objects, which kubectl reads.
fn objects(manifests: &str) -> anyhow::Result<Vec<Value>> {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    file.write_all(manifests.as_bytes())?;
    let file = file.path().to_string_lossy().into_owned();
    // Of kinds that the cluster may not have, too: a patch without a change is made without asking it.
    let text = output(&mut cluster().kubectl(&[
        "patch",
        "--local",
        "--type=json",
        "--patch=[]",
        "--output=json",
        "--filename",
        &file,
    ]))?;
    let stream = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    stream.map(|object| object.context("kubectl writes JSON")).collect()
}

fn name(object: &Value) -> String {
    format!("{} {}", object["kind"], object["metadata"]["name"]).replace('"', "")
}

#[test]
fn the_plain_manifests_are_those_that_the_chart_renders() -> anyhow::Result<()> {
    let folder = Path::new(REPOSITORY).join("config/deploy");
    let rendered = chart::manifests(&tools().helm(), Path::new(REPOSITORY))?;
    for (name, content) in &rendered {
        let committed = std::fs::read_to_string(folder.join(name))?;
        ensure!(committed == *content, "config/deploy/{name} is old: run `cargo xtask manifests`");
    }
    ensure!(std::fs::read_dir(folder)?.count() == rendered.len(), "config/deploy has files of no template");
    Ok(())
}

/// Labels and annotations that only helm's objects have.
fn without_helm(mut object: Value) -> Value {
    for (field, names) in [
        ("labels", &["app.kubernetes.io/instance", "app.kubernetes.io/managed-by", "helm.sh/chart"][..]),
        ("annotations", &["helm.sh/resource-policy"][..]),
    ] {
        let fields = object["metadata"].get_mut(field).and_then(Value::as_object_mut);
        if let Some(fields) = fields {
            fields.retain(|name, _| !names.contains(&name.as_str()));
        }
    }
    object
}

/// The same with single spaces in its texts: kustomize breaks the lines of expressions differently.
fn without_line_breaks(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.split_whitespace().collect::<Vec<_>>().join(" ")),
        Value::Array(list) => list.into_iter().map(without_line_breaks).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, without_line_breaks(value))).collect()
        }
        other => other,
    }
}

#[test]
fn kustomize_makes_the_same_objects_as_the_chart() -> anyhow::Result<()> {
    let kustomize =
        |folder: &str| output(&mut cluster().kubectl(&["kustomize", &format!("{REPOSITORY}/{folder}")]));
    let sorted = |objects: Vec<Value>| {
        let mut objects: Vec<_> = objects.into_iter().map(without_line_breaks).collect();
        objects.sort_by_key(name);
        objects
    };
    let built = [kustomize("config/crd")?, kustomize("config")?].join("---\n");
    let built = sorted(objects(&built)?);
    let rendered = objects(&render("namespace: {create: true}", &[])?)?;
    let rendered = sorted(rendered.into_iter().map(without_helm).collect());
    let names = |objects: &[Value]| objects.iter().map(name).collect::<BTreeSet<_>>();
    ensure!(names(&built) == names(&rendered), "{:?}\n{:?}", names(&built), names(&rendered));
    for (built, rendered) in built.iter().zip(&rendered) {
        ensure!(built == rendered, "{}:\n{built}\n{rendered}", name(built));
    }
    let overlay = kustomize("examples/kustomize")?;
    ensure!(overlay.contains("image: registry.example/checkpoint-keeper:1.0"), "{overlay}");
    ensure!(!overlay.contains("localhost/"), "an image is left as it was");
    Ok(())
}

/// Holds manifests against the schemas of a version; what kubeconform said of them, and whether all is well.
fn check(manifests: &str, version: &str) -> anyhow::Result<(bool, Value)> {
    let folder = schemas::provide(&Cache::of_user()?, version)?;
    let mut command = Command::new(tools().kubeconform());
    command.args(["-strict", "-summary", "-output", "json", "-skip", FOREIGN, "-schema-location"]);
    command.arg(schemas::location(&folder));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("kubeconform has no input")?.write_all(manifests.as_bytes())?;
    let output = child.wait_with_output()?;
    Ok((output.status.success(), serde_json::from_slice(&output.stdout)?))
}

#[test]
fn what_the_chart_renders_fits_the_oldest_and_the_newest_kubernetes() -> anyhow::Result<()> {
    for version in [schemas::OLDEST, kubernetes_version()?] {
        for values in ["", EVERYTHING] {
            let rendered = render(values, &[])?;
            let (is_valid, said) = check(&rendered, version)?;
            ensure!(is_valid, "{version}: {said}");
            ensure!(said["summary"]["valid"].as_u64() >= Some(30), "{version}: {said}");
            let foreign =
                FOREIGN.split(',').filter(|kind| rendered.contains(&format!("kind: {kind}\n"))).count();
            ensure!(said["summary"]["skipped"] == foreign, "{version}: {said}");
            ensure!(values.is_empty() == (foreign == 0), "{foreign} kinds of others");
        }
        let plain = render("", &[])?;
        for (from, to) in [
            ("enableServiceLinks:", "enableServiceLink:"),
            ("maxSurge: 0", "maxSurge: []"),
            ("failurePolicy: Fail", "failurePolicy: 1"),
        ] {
            let (is_valid, said) = check(&plain.replacen(from, to, 1), version)?;
            ensure!(plain.contains(from) && !is_valid, "{version} takes {to}: {said}");
        }
    }
    Ok(())
}

/// What kube-score finds and is meant to be so: the object's kind, the check, and why.
const EXCEPTIONS: [(&str, &str, &str); 7] = [
    (
        "DaemonSet",
        "container-security-context-user-group-id",
        "the checkpoint directory is root's, mode 0700",
    ),
    ("DaemonSet", "container-resources", "no limit of CPU: a full disk is to be freed as soon as it can be"),
    ("Deployment", "container-resources", "no limit of CPU: after a start all objects are read at once"),
    (
        "DaemonSet",
        "container-image-pull-policy",
        "Always would let no agent start while the registry is away",
    ),
    ("Deployment", "container-image-pull-policy", "the same; the image may be named by its digest"),
    ("DaemonSet", "container-ephemeral-storage-request-and-limit", "its root file system is read-only"),
    ("Deployment", "container-ephemeral-storage-request-and-limit", "its root file system is read-only"),
];

#[test]
fn kube_score_finds_nothing_but_what_is_meant_to_be_so() -> anyhow::Result<()> {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    file.write_all(render("networkPolicies: {enabled: true}", &[])?.as_bytes())?;
    let kube_score = tools::kube_score(&Cache::of_user()?)?;
    // Its exit code says only that there are findings.
    let said =
        Command::new(kube_score).args(["score", "--output-format", "json"]).arg(file.path()).output()?;
    let objects: Vec<Value> = serde_json::from_slice(&said.stdout)
        .with_context(|| String::from_utf8_lossy(&said.stderr).into_owned())?;
    let mut found = BTreeSet::new();
    for object in &objects {
        for check in object["checks"].as_array().into_iter().flatten() {
            // 10 is what is well; less than 7 is a warning or worse.
            if check["skipped"] == false && check["grade"].as_u64() < Some(7) {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                found.insert((text(&object["type_meta"]["kind"]), text(&check["check"]["id"])));
            }
        }
    }
    let meant = EXCEPTIONS.iter().map(|(kind, check, _)| ((*kind).to_owned(), (*check).to_owned()));
    let meant: BTreeSet<_> = meant.collect();
    ensure!(found == meant, "{:?}", found.symmetric_difference(&meant).collect::<Vec<_>>());
    Ok(())
}

#[test]
fn names_and_rules_follow_the_release_and_its_namespace() -> anyhow::Result<()> {
    let chart = Path::new(REPOSITORY).join(chart::CHART);
    let mut helm = Command::new(tools().helm());
    helm.args(["template", "mine", "--namespace", "elsewhere"])
        .arg(chart)
        .args(["--set", "crds.enabled=false"]);
    let objects = objects(&output(&mut helm)?)?;
    ensure!(objects.len() > 20, "{} objects", objects.len());
    let mut users = BTreeSet::new();
    for object in objects {
        let name = name(&object);
        ensure!(name.contains(" mine-checkpoint-keeper"), "{name}");
        ensure!([json!("elsewhere"), Value::Null].contains(&object["metadata"]["namespace"]), "{name}");
        let text = object.to_string();
        for user in text.split("system:serviceaccount:").skip(1) {
            users.insert(user.split('\'').next().unwrap_or_default().to_owned());
        }
        for subject in object["subjects"].as_array().into_iter().flatten() {
            ensure!(subject["namespace"] == "elsewhere", "{name}: {subject}");
        }
    }
    let expected = ["agent", "controller"].map(|part| format!("elsewhere:mine-checkpoint-keeper-{part}"));
    ensure!(users == BTreeSet::from(expected), "{users:?}");
    Ok(())
}

#[test]
fn every_node_is_in_one_pool_and_pools_override_what_they_name() -> anyhow::Result<()> {
    let sets: Vec<Value> = objects(&render(EVERYTHING, &["--show-only", "templates/agent.yaml"])?)?;
    ensure!(sets.len() == 2, "{} DaemonSets", sets.len());
    let expressions = |set: &Value| {
        let affinity = &set["spec"]["template"]["spec"]["affinity"]["nodeAffinity"];
        let terms = &affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"];
        terms[0]["matchExpressions"].as_array().cloned().unwrap_or_default()
    };
    let pod = |set: &Value| set["spec"]["template"]["spec"].clone();
    for (set, operator, directory, memory) in [
        (&sets[0], "NotIn", "/var/lib/kubelet/checkpoints", "128Mi"),
        (&sets[1], "In", "/data/kubelet/checkpoints", "256Mi"),
    ] {
        let label = json!({"key": "example.com/pool", "operator": operator, "values": ["gpu", "gpu-large"]});
        ensure!(expressions(set).contains(&label), "{set}");
        let pod = pod(set);
        ensure!(pod["volumes"][0]["hostPath"]["path"] == directory, "{pod}");
        let container = &pod["containers"][0];
        ensure!(container["resources"]["limits"]["memory"] == memory, "{container}");
        // Reports name it as the node has it.
        ensure!(container["volumeMounts"][0]["mountPath"] == directory, "{container}");
        let elsewhere = format!("--directory={directory}");
        let mut arguments = vec![
            "agent",
            "--cluster-policy-namespaces=one,two",
            "--other-operator-namespace=three",
            "--log-level=debug",
            "--log-format=json",
            "--listen=[::]:9999",
            "--inventory-limit=0",
            "--kubelet-port=10251",
            "--kubelet-certificate=/kubelet.crt",
            "--settle=10s",
        ];
        if operator == "In" {
            arguments.insert(6, &elsewhere);
        }
        ensure!(container["args"] == json!(arguments), "{}", container["args"]);
    }
    let selector = |set: &Value| set["spec"]["selector"]["matchLabels"].clone();
    ensure!(selector(&sets[0]) != selector(&sets[1]), "two DaemonSets would select the same pods");
    Ok(())
}

/// Their expressions are templates too, of Prometheus and Grafana: helm is to leave them as they are.
#[test]
fn alerts_and_dashboards_are_rendered_as_they_are() -> anyhow::Result<()> {
    let files = Path::new(REPOSITORY).join(chart::CHART).join("files");
    let rendered = objects(&render(EVERYTHING, &[])?)?;
    let only = |kind: &str| rendered.iter().find(|object| object["kind"] == kind);
    let alerts = std::fs::read_to_string(files.join("alerts.yaml"))?;
    let rule = only("PrometheusRule").context("there is no PrometheusRule")?;
    let object = "apiVersion: a/v1\nkind: Rule\nmetadata: {name: a}\nspec:\n  ";
    let rules = objects(&format!("{object}{}", alerts.replace('\n', "\n  ")))?;
    ensure!(rules[0]["spec"]["groups"].is_array(), "{rules:?}");
    ensure!(rule["spec"] == rules[0]["spec"], "{rule}");
    let dashboards = std::fs::read_dir(files.join("dashboards"))?;
    let mut expected = serde_json::Map::new();
    for entry in dashboards {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        expected.insert(name, Value::String(std::fs::read_to_string(&path)?.trim_end().to_owned()));
    }
    let data = only("ConfigMap").map(|map| map["data"].clone()).unwrap_or_default();
    for (name, content) in &expected {
        let shown = data[name].as_str().unwrap_or_default().trim_end();
        ensure!(content == shown, "{name}: {shown}");
    }
    ensure!(
        !expected.is_empty() && data.as_object().map_or(0, serde_json::Map::len) == expected.len(),
        "{data}"
    );
    Ok(())
}

#[test]
fn the_examples_of_values_are_taken() -> anyhow::Result<()> {
    let mut count = 0;
    for entry in std::fs::read_dir(Path::new(REPOSITORY).join(chart::CHART).join("examples"))? {
        let path = entry?.path();
        let rendered = render(&std::fs::read_to_string(&path)?, &[])?;
        ensure!(rendered.contains("kind: DaemonSet"), "{}: {rendered}", path.display());
        ensure!(rendered != render("", &[])?, "{} changes nothing", path.display());
        count += 1;
    }
    ensure!(count > 0, "there are no examples");
    Ok(())
}

#[test]
fn values_that_are_mistyped_are_refused() -> anyhow::Result<()> {
    for (value, named) in [
        ("agent: {tolerationz: []}", "tolerationz"),
        ("image: {pullPolicy: Sometimes}", "pullPolicy"),
        ("agent: {kubeletRootDir: relative}", "kubeletRootDir"),
        ("agent: {pools: {gpu: {kubeletRootDir: /data}}}", "nodeLabel"),
        ("agent: {pools: {gpu: {nodeLabel: {key: a, values: [b]}, tolerationz: []}}}", "tolerationz"),
        ("agent: {pools: {default: {nodeLabel: {key: a, values: [b]}}}}", "default"),
        ("controller: {replicas: 0}", "replicas"),
    ] {
        let refused = render(value, &[]).err().with_context(|| format!("{value} is taken"))?;
        ensure!(format!("{refused:#}").contains(named), "{value}: {refused:#}");
    }
    Ok(())
}

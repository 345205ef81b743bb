//! The chart on a real cluster, by the real helm, in a namespace that is not the plain manifests'. It has a cluster of its
//! own: what another install left there would answer for it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::lifecycle::{self, Wanted};
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::{Cluster, Node, chart, wait};
use serde_json::{Value, json};

use crate::install::image_archive;
use crate::manifests::tools;
use crate::support::{DEADLINE, REPOSITORY, program};

/// The cluster of these tests.
const CLUSTER: &str = "chart-test";
/// Where the release is, and what it is called.
const NAMESPACE: &str = "node-storage";
const RELEASE: &str = "archives";
/// What a release's objects are called.
const FULL_NAME: &str = "archives-checkpoint-keeper";
/// Has agents look and report at once, and not once a minute.
const PROMPT: &str = "--set=agent.extraArgs={--status-interval=1s,--interval=2s}";
/// The version of the copy of the chart that is installed before.
const EARLIER: &str = "0.0.9";

/// A cluster with the image on its nodes, which is taken down at the end; it ends with this process in any case.
struct Installation {
    cluster: Cluster,
    files: tempfile::TempDir,
}

impl Installation {
    fn begin() -> anyhow::Result<Self> {
        let owner = Some(i32::try_from(std::process::id())?);
        let wanted = Wanted { owner, name: CLUSTER.to_owned(), ..Wanted::default() };
        let cluster = lifecycle::up(&wanted, program())?;
        let installation = Self { cluster, files: tempfile::tempdir()? };
        installation.cluster.load(&image_archive()).context("first: cargo xtask image")?;
        Ok(installation)
    }

    fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(tools().helm());
        command.env("KUBECONFIG", self.cluster.state().kubeconfig());
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, self.files.path());
        }
        output(command.args(arguments).args(["--namespace", NAMESPACE, "--timeout=120s"]))
    }

    fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output(&mut self.cluster.kubectl(arguments))
    }

    /// What the operator's pods said and are, for whoever looks into a failure.
    fn state(&self) -> String {
        let pods = self.kubectl(&["--namespace", NAMESPACE, "describe", "pods"]);
        let events = self.kubectl(&[
            "--namespace",
            NAMESPACE,
            "logs",
            "--prefix",
            "--tail=20",
            "--selector",
            "app.kubernetes.io/name=checkpoint-keeper",
        ]);
        format!("{}\n{}", pods.unwrap_or_default(), events.unwrap_or_default())
    }

    /// The chart as an earlier version of itself, whose definitions say so.
    fn earlier_chart(&self) -> anyhow::Result<PathBuf> {
        let folder = self.files.path().join("earlier");
        chart::copy_as(&Path::new(REPOSITORY).join(chart::CHART), &folder, EARLIER)?;
        for entry in std::fs::read_dir(folder.join("files/crd"))? {
            let path = entry?.path();
            let text = std::fs::read_to_string(&path)?;
            let earlier = text.replace("bundle-version: v0.1.0", &format!("bundle-version: v{EARLIER}"));
            ensure!(text != earlier, "{} does not say which version it is of", path.display());
            std::fs::write(&path, earlier)?;
        }
        Ok(folder)
    }

    fn store(&self, node: Node<'_>) -> anyhow::Result<Value> {
        self.cluster.get(&format!("/apis/checkpoint-keeper.io/v1alpha1/nodecheckpointstores/{}", node.name()))
    }

    /// Waits until the agents of all nodes are ready and report, in as many `DaemonSet`s.
    fn agents_report(&self, daemon_sets: usize) -> anyhow::Result<()> {
        let path = format!("/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets");
        let nodes = self.cluster.nodes();
        let outcome = wait::until("all agents", DEADLINE, || {
            let sets = self.cluster.get(&path)?["items"].as_array().cloned().unwrap_or_default();
            let sum = |field: &str| sets.iter().filter_map(|set| set["status"][field].as_u64()).sum::<u64>();
            let (desired, ready) = (sum("desiredNumberScheduled"), sum("numberReady"));
            ensure!(sets.len() == daemon_sets, "{} DaemonSets", sets.len());
            ensure!(desired == nodes.len() as u64, "{desired} agents are wanted");
            ensure!(ready == desired, "{ready} of {desired} are ready");
            for node in &nodes {
                let status = self.store(*node)?["status"].take();
                let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
                let is_ready = |one: &Value| one["type"] == "Ready" && one["status"] == "True";
                ensure!(conditions.iter().any(is_ready), "{status}");
            }
            Ok(true)
        });
        outcome.with_context(|| self.state())
    }

    /// Whether this object is there.
    fn has(&self, path: &str) -> anyhow::Result<bool> {
        Ok(self.cluster.request("GET", path)?.0 == 200)
    }

    /// Which version the definition of policies says that it is of.
    fn definitions(&self) -> anyhow::Result<String> {
        let crd = self.cluster.get(&definition("clustercheckpointpolicies.checkpoint-keeper.io"))?;
        Ok(crd["metadata"]["annotations"]["checkpoint-keeper.io/bundle-version"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        let _ = lifecycle::down(self.cluster.state());
    }
}

fn definition(name: &str) -> String {
    format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}")
}

/// Puts a dozen archives of one container into a node's directory, one of which is pinned; their names. They are copies of
/// a real one: whether the kubelet makes any is not the question here.
fn dozen(node: Node<'_>) -> anyhow::Result<Vec<String>> {
    let (of, folder) = ("checkpoint-web-b97f476fd-5dfj4_shop-server-2026-11-22T15:59", node.checkpoints());
    for second in 42..54 {
        let to = folder.join(format!("{of}:{second}Z.tar"));
        std::fs::copy(format!("{REPOSITORY}/tests/archives/{of}:42Z.tar"), to)?;
    }
    std::fs::write(folder.join(format!("{of}:42Z.tar.keep")), "")?;
    let files = node.files()?;
    ensure!(files.len() >= 12, "{files:?}");
    Ok(files)
}

#[test]
fn helm_installs_upgrades_rolls_back_and_uninstalls_and_what_is_users_stays() -> anyhow::Result<()> {
    let installation = Installation::begin()?;
    let (this, cluster) = (&installation, &installation.cluster);
    let node = cluster.node("node-1")?;
    let earlier = this.earlier_chart()?;
    let (earlier, current) = (earlier.to_string_lossy(), format!("{REPOSITORY}/{}", chart::CHART));

    // The older operator's definitions are somebody else's.
    this.kubectl(&["apply", "--filename", &format!("{REPOSITORY}/config/crd-legacy")])?;
    // A virtual node, which has no kubelet that could run an agent, and one of another architecture.
    for (name, labels) in [
        (
            "virtual",
            json!({"type": "virtual-kubelet", "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}),
        ),
        ("power", json!({"kubernetes.io/arch": "ppc64le", "kubernetes.io/os": "linux"})),
    ] {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}});
        ensure!(cluster.create("/api/v1/nodes", &node)?.0 == 201);
    }

    // A namespace that would allow no agent is refused, with what to do about it.
    this.kubectl(&["create", "namespace", NAMESPACE])?;
    let label = |level: &str| {
        let level = format!("pod-security.kubernetes.io/enforce={level}");
        this.kubectl(&["label", "--overwrite", "namespace", NAMESPACE, &level])
    };
    label("baseline")?;
    let refused = this.helm(&["install", RELEASE, &earlier]).err().context("it is installed all the same")?;
    ensure!(format!("{refused:#}").contains("pod-security.kubernetes.io/enforce=privileged"), "{refused:#}");
    label("privileged")?;

    // Install: an agent on each real node; the first policies delete nothing.
    this.helm(&["install", RELEASE, &earlier, "--wait", PROMPT]).with_context(|| this.state())?;
    this.agents_report(1)?;
    ensure!(this.definitions()? == format!("v{EARLIER}"), "{}", this.definitions()?);

    // A second release is refused, and which one is there is said.
    let without_definitions = "--set=crds.enabled=false";
    for arguments in [
        &["install", "second", &current, without_definitions, "--dry-run=server"][..],
        &["install", "archives-checkpoint-keeper-2", &current, "--take-ownership", "--dry-run=server"],
    ] {
        let refused = this.helm(arguments).err().context("there may be a second release")?;
        let said = format!("the release {RELEASE} in the namespace {NAMESPACE}");
        ensure!(format!("{refused:#}").contains(&said), "{refused:#}");
    }
    // So is an upgrade that would delete the definitions, as they are annotated in the cluster.
    let without = ["upgrade", RELEASE, &current, without_definitions, "--dry-run=server"];
    this.helm(&without).context("the definitions would be kept")?;
    let policies = "customresourcedefinition/clustercheckpointpolicies.checkpoint-keeper.io";
    this.kubectl(&["annotate", policies, "helm.sh/resource-policy-"])?;
    let refused = this.helm(&without).err().context("all policies would be deleted")?;
    ensure!(format!("{refused:#}").contains("helm.sh/resource-policy=keep"), "{refused:#}");
    this.kubectl(&["annotate", policies, "helm.sh/resource-policy=keep"])?;

    let plugin = program().with_file_name("kubectl-checkpoints");
    let mut doctor = Command::new(plugin);
    doctor.env("KUBECONFIG", cluster.state().kubeconfig());
    let said = output(doctor.args(["doctor", "--operator-namespace", NAMESPACE]))?;
    let nodes =
        "2 of 4 nodes have an agent that has reported; there is none for power (ppc64le), virtual (virtual)";
    ensure!(said.contains(nodes), "{said}");
    ensure!(said.contains("all admission policies are there and bound"), "{said}");
    ensure!(said.contains("no agent has found an archive"), "{said}");
    let files = dozen(node)?;
    this.kubectl(&["apply", "--filename", &format!("{REPOSITORY}/examples/policy.yaml")])?;
    wait::until("the dry run", DEADLINE, || {
        let status = this.store(node)?["status"].take();
        let policies = status["policies"].as_array().cloned().unwrap_or_default();
        ensure!(
            policies.iter().any(|policy| policy["dryRun"]["wouldDelete"].as_u64() >= Some(1)),
            "{status}"
        );
        Ok(true)
    })?;
    ensure!(node.files()? == files, "{:?}", node.files()?);

    // Upgrade: a pool of nodes whose kubelet has no checkpoint directory does not hold it up, and what is somebody else's
    // is not taken.
    let pool = "agent.pools.second={\"nodeLabel\":{\"key\":\"kubernetes.io/hostname\",\"values\":[\"node-2\"]},\
                \"kubeletRootDir\":\"/var/lib/no-kubelet\"}";
    let upgrade =
        ["upgrade", RELEASE, &current, "--wait", PROMPT, "--set=crds.legacy=true", "--set-json", pool];
    this.helm(&upgrade).with_context(|| this.state())?;
    this.agents_report(2)?;
    ensure!(this.definitions()? == "v0.1.0", "{}", this.definitions()?);

    // Back to the first version.
    this.helm(&["rollback", RELEASE, "1", "--wait"]).with_context(|| this.state())?;
    this.agents_report(1)?;
    ensure!(this.definitions()? == format!("v{EARLIER}"), "{}", this.definitions()?);
    ensure!(node.files()? == files, "{:?}", node.files()?);

    // Uninstall: what ran and its rights go; archives, pins, and what users wrote stay.
    this.helm(&["uninstall", RELEASE, "--wait"])?;
    let rules = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    for gone in [
        format!("/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{FULL_NAME}-agent"),
        format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{FULL_NAME}-controller"),
        format!("/apis/rbac.authorization.k8s.io/v1/clusterroles/{FULL_NAME}-agent"),
        format!("{rules}/{FULL_NAME}-agent-own-node"),
    ] {
        ensure!(!this.has(&gone)?, "{gone} is left");
    }
    for kept in [
        definition("clustercheckpointpolicies.checkpoint-keeper.io"),
        definition("checkpointschedules.criu.org"),
        definition("checkpointrestoreoperators.criu.org"),
        "/apis/checkpoint-keeper.io/v1alpha1/clustercheckpointpolicies/default".to_owned(),
    ] {
        ensure!(this.has(&kept)?, "{kept} is gone");
    }
    ensure!(node.files()? == files, "{:?}", node.files()?);

    // What was left is taken up again.
    this.helm(&["install", RELEASE, &current, "--wait", PROMPT]).with_context(|| this.state())?;
    this.agents_report(1)
}

//! What a cluster needs after its API server was away, before anybody may count on it again.
//!
//! A server that answers is not enough: whoever watched it tries again after up to half a minute, each kind of object
//! by itself. Until then new namespaces get no account, and workloads no pods.

use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Namespace};
use crate::fault::{self, Daemon};
use crate::lifecycle::BUSYBOX;
use crate::machine::CONTROL_PLANE;
use crate::wait;

/// How long each part of a recovery may take: a kubelet's longest pause between two tries is half a minute.
const RECOVERY: Duration = Duration::from_mins(2);

/// When this is dropped, it waits until the whole control plane works again, if it has to recover.
#[derive(Debug)]
#[must_use = "the control plane is waited for when this is dropped, and only the code before that meets what recovers"]
pub struct Recovery<'a> {
    cluster: &'a Cluster,
    is_due: bool,
}

impl<'a> Recovery<'a> {
    pub(crate) fn new(cluster: &'a Cluster, is_due: bool) -> Self {
        Self { cluster, is_due }
    }
}

impl Drop for Recovery<'_> {
    fn drop(&mut self) {
        if !self.is_due {
            return;
        }
        if let Err(error) = self.cluster.wait_until_whole() {
            eprintln!("the control plane did not recover: {error:#}");
        }
    }
}

impl Cluster {
    /// Waits until the API server answers.
    pub fn wait_until_answering(&self) -> anyhow::Result<()> {
        wait::until("the API server to answer", RECOVERY, || {
            let (status, answer) = self.request("GET", "/readyz")?;
            ensure!(status == 200, "{status} {answer}");
            Ok(true)
        })
    }

    /// Waits until the whole control plane works: the API server answers, nodes are Ready by heartbeats of now, a new
    /// namespace gets its service account, and pods of new workloads of each kind run, one of them on each node.
    ///
    /// Daemons that watch the API are started anew: they begin without the pauses between tries that they had come to.
    /// Of kubelets, a pod that is new is seen three quarters of a minute later otherwise.
    pub fn wait_until_whole(&self) -> anyhow::Result<()> {
        self.wait_until_answering()?;
        for daemon in [Daemon::KubeControllerManager, Daemon::KubeScheduler, Daemon::KubeProxy] {
            fault::start_anew(self, CONTROL_PLANE, daemon)?;
        }
        for node in self.nodes() {
            fault::start_anew(self, node.name(), Daemon::Kubelet)?;
            fault::start_anew(self, node.name(), Daemon::KubeProxy)?;
        }
        let since = Timestamp::now();
        self.nodes().into_iter().try_for_each(|node| node.wait_until_ready(since, RECOVERY))?;
        let namespace = wait::for_value("a new namespace", RECOVERY, || self.namespace("whole").map(Some))?;
        namespace.apply(&workloads())?;
        wait::until("pods of new workloads to run", RECOVERY, || self.workloads_run(&namespace))
            .with_context(|| namespace.events().unwrap_or_default())
    }

    fn workloads_run(&self, namespace: &Namespace<'_>) -> anyhow::Result<bool> {
        let nodes = self.description().nodes.len();
        let expected = [
            ("daemonsets", "numberReady", nodes),
            ("statefulsets", "readyReplicas", 1),
            ("deployments", "readyReplicas", 1),
        ];
        for (kind, field, count) in expected {
            let path = format!("/apis/apps/v1/namespaces/{}/{kind}/probe", namespace.name());
            let status = self.get(&path)?["status"].take();
            ensure!(status[field] == count, "{kind}: {status}");
        }
        Ok(true)
    }
}

/// A workload of each kind that tests use, with pods that run for as long as they are let.
fn workloads() -> String {
    let workload = |kind: &str| {
        let container = json!({
            "name": "idle", "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sleep", "100000"],
        });
        let labels = json!({"of": kind});
        let mut spec = json!({
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
            },
        });
        if kind == "StatefulSet" {
            spec["serviceName"] = Value::from("probe");
        }
        // As text, as a namespace's manifests are.
        format!("apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: probe}}\nspec: {spec}")
    };
    ["DaemonSet", "StatefulSet", "Deployment"].map(workload).join("\n---\n")
}

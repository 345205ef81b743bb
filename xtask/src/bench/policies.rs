//! Policies that a node may well have and that take nothing from a population, except for what a
//! container has beyond its limit: for the engine, and as manifests for the binary.

use std::path::{Path, PathBuf};
use std::time::Duration;

use checkpoint_keeper_core::policy::{
    Ceiling, Kind, LabelSelector, Limit, Mode, Operator, Policy, PolicyRef, PolicySet, Precedence,
    Requirement, Retention, Selector, StoragePolicy,
};
use serde_json::{Value, json};

use super::directory::PER_CONTAINER;

/// Days that no archive here is old.
const DAYS: u64 = 3_650;
/// More than any namespace here has.
const MANY: u64 = 100_000;

/// The kinds of policies in a set, one after the other: policy `n` is the `n % 4`th kind.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Cluster-wide, for everything.
    Default,
    /// Cluster-wide, for one pod.
    Pod,
    /// Of a namespace: ages and counts.
    Ages,
    /// Of a namespace, for one of a pod's containers.
    Container,
    /// Cluster-wide, by a label of the pod.
    Label,
}

fn shape(number: usize) -> Shape {
    match number % 4 {
        0 if number == 0 => Shape::Default,
        0 => Shape::Pod,
        1 => Shape::Ages,
        2 => Shape::Container,
        _ => Shape::Label,
    }
}

fn name(number: usize) -> String {
    format!("policy-{number}")
}

fn namespace(number: usize) -> Option<String> {
    matches!(shape(number), Shape::Ages | Shape::Container).then(|| format!("team-{number}"))
}

/// So many retention policies and one for the storage.
pub(super) fn set(count: usize) -> PolicySet {
    PolicySet {
        retention: (0..count).map(policy).collect(),
        storage: vec![storage()],
        ..PolicySet::default()
    }
}

fn policy(number: usize) -> Policy {
    let namespace = namespace(number);
    let kind = if namespace.is_some() { Kind::CheckpointPolicy } else { Kind::ClusterCheckpointPolicy };
    let shape = shape(number);
    let mut selector = Selector::default();
    let mut retention = Retention { per_container: count(PER_CONTAINER as u64), ..Retention::default() };
    match shape {
        Shape::Default => {}
        Shape::Pod => selector.pods = vec![pod(number)],
        Shape::Ages => {
            retention.max_age = Some(Duration::from_hours(DAYS * 24));
            retention.per_namespace = count(MANY);
        }
        Shape::Container => selector.containers = vec!["sidecar".to_owned()],
        Shape::Label => selector.pod_labels = LabelSelector(vec![requirement(number)]),
    }
    Policy {
        id: PolicyRef { kind, namespace: namespace.clone(), name: name(number), part: None },
        created: None,
        namespace,
        mode: if shape == Shape::Label { Mode::DryRun } else { Mode::Enforce },
        selector,
        retention,
        orphans: None,
        incomplete_grace: Some(Duration::from_hours(1)),
        damaged_grace: None,
        precedence: Precedence::Default,
    }
}

fn requirement(number: usize) -> Requirement {
    Requirement { key: "app".to_owned(), operator: Operator::In(vec![pod(number)]) }
}

fn pod(number: usize) -> String {
    format!("app-{number}-5dfj4")
}

fn count(most: u64) -> Limit {
    Limit { max_count: Some(most), max_total_size: None }
}

fn storage() -> StoragePolicy {
    StoragePolicy {
        id: PolicyRef {
            kind: Kind::CheckpointStoragePolicy,
            namespace: None,
            name: "storage".to_owned(),
            part: None,
        },
        node_selector: LabelSelector::default(),
        mode: Mode::Enforce,
        critical_watermark: None,
        protect_latest: None,
        high_watermark: None,
        low_watermark: None,
        min_free_bytes: None,
        min_free_inodes: None,
        reserved: None,
        max_total_size: None,
        per_namespace: Ceiling { limit: count(MANY), ..Ceiling::default() },
        deletion_limit: None,
    }
}

/// Writes the same as manifests; where they are then.
pub(super) fn write(directory: &Path, policies: usize) -> anyhow::Result<PathBuf> {
    let mut documents: Vec<Value> = (0..policies).map(manifest).collect();
    documents.push(json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1",
        "kind": "CheckpointStoragePolicy",
        "metadata": {"name": "storage"},
        "spec": {"perNamespace": {"maxCount": MANY}},
    }));
    // JSON is YAML.
    let text: Vec<String> = documents.iter().map(Value::to_string).collect();
    let path = directory.join(format!("policies-{policies}.yaml"));
    std::fs::write(&path, text.join("\n---\n"))?;
    Ok(path)
}

fn manifest(number: usize) -> Value {
    let mut retention = json!({"perContainer": {"maxCount": PER_CONTAINER}});
    let selector = match shape(number) {
        Shape::Default => None,
        Shape::Pod => Some(json!({"pods": [pod(number)]})),
        Shape::Ages => {
            retention["maxAge"] = json!(format!("{DAYS}d"));
            retention["perNamespace"] = json!({"maxCount": MANY});
            None
        }
        Shape::Container => Some(json!({"containers": ["sidecar"]})),
        Shape::Label => Some(json!({"podSelector": {"matchLabels": {"app": pod(number)}}})),
    };
    let mut spec = json!({"retention": retention, "incomplete": {"action": "Delete", "gracePeriod": "1h"}});
    if let Some(selector) = selector {
        spec["selector"] = selector;
    }
    if shape(number) == Shape::Label {
        spec["mode"] = json!("DryRun");
    }
    let (kind, metadata) = match namespace(number) {
        Some(namespace) => ("CheckpointPolicy", json!({"name": name(number), "namespace": namespace})),
        None => ("ClusterCheckpointPolicy", json!({"name": name(number)})),
    };
    json!({"apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
}

//! The CustomResourceDefinitions, as they are committed below `config/crd` and printed by `crds`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

use crate::{
    CheckpointPolicy, CheckpointRestoreOperator, CheckpointStoragePolicy, ClusterCheckpointPolicy,
    NodeCheckpointStore,
};

/// Every definition, as the API server takes it.
pub fn crds() -> Vec<CustomResourceDefinition> {
    [
        ClusterCheckpointPolicy::crd(),
        CheckpointPolicy::crd(),
        CheckpointStoragePolicy::crd(),
        CheckpointRestoreOperator::crd(),
        NodeCheckpointStore::crd(),
    ]
    .into_iter()
    .map(without_nulls)
    .collect()
}

/// Every definition in one YAML stream.
pub fn crds_yaml() -> String {
    let documents: Vec<_> = crds().iter().map(|crd| format!("---\n{}", yaml(crd))).collect();
    format!("{HEADER}{}", documents.concat())
}

/// The files below `config/crd`: name and content.
pub fn crd_files() -> Vec<(String, String)> {
    crds()
        .iter()
        .map(|crd| {
            (
                format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural),
                format!("{HEADER}---\n{}", yaml(crd)),
            )
        })
        .collect()
}

const HEADER: &str = "# Generated from crates/api by `cargo xtask generate`; do not edit.\n";

/// The definition with no field that takes null: the API server then drops a null before anything
/// looks at it, and a rule never sees one.
fn without_nulls(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let Ok(mut value) = serde_json::to_value(&crd) else { return crd };
    if let Some(versions) = value.pointer_mut("/spec/versions").and_then(Value::as_array_mut) {
        for version in versions {
            if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
                plain(schema, false);
            }
        }
    }
    serde_json::from_value(value).unwrap_or(crd)
}

/// Removes `nullable` from a schema and all within, and line breaks from descriptions, which
/// `kubectl explain` breaks itself; `names` says whether the keys are field names.
fn plain(schema: &mut Value, names: bool) {
    match schema {
        Value::Object(members) => {
            if !names {
                members.remove("nullable");
                if let Some(Value::String(description)) = members.get_mut("description") {
                    *description = description.replace('\n', " ");
                }
            }
            for (key, member) in members {
                plain(member, !names && key == "properties");
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| plain(item, false)),
        _ => {}
    }
}

/// YAML with keys in alphabetical order, whatever order the JSON map was compiled with.
fn yaml(crd: &CustomResourceDefinition) -> String {
    let value = serde_json::to_value(crd).map(sorted).unwrap_or_default();
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    serde_saphyr::to_string_with_options(&value, options).unwrap_or_default()
}

fn sorted(value: Value) -> Value {
    match value {
        // Bounds are floating-point numbers in the definition's type and whole numbers here.
        Value::Number(number) => match number.as_f64() {
            Some(bound) if number.is_f64() && bound.fract() == 0.0 && bound.abs() < 1e15 => {
                format!("{bound:.0}").parse::<i64>().map_or(Value::Number(number), Value::from)
            }
            _ => Value::Number(number),
        },
        Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().collect();
            members.sort_by(|(left, _), (right, _)| left.cmp(right));
            members.into_iter().map(|(key, member)| (key, sorted(member))).collect()
        }
        Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

/// The schema of the newest version of a kind, for checking manifests against.
pub(crate) fn schema<K: CustomResourceExt>() -> Value {
    serde_json::to_value(without_nulls(K::crd()))
        .ok()
        .and_then(|crd| crd.pointer("/spec/versions/0/schema/openAPIV3Schema").cloned())
        .unwrap_or_default()
}

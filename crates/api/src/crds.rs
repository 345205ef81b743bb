//! The CustomResourceDefinitions, as they are committed below `config` and printed by `crds`.
//!
//! The native kinds are in `config/crd`. The older operator's kinds are apart, in `config/crd-legacy`: they
//! belong to that project, and are only for clusters where its own definitions were never installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{
    CheckpointPolicy, CheckpointQuota, CheckpointRestoreOperator, CheckpointSchedule,
    CheckpointStoragePolicy, ClusterCheckpointPolicy, ContainerCheckpoint, LegacyCheckpointSchedule,
    NodeCheckpointStore,
};

/// The annotation of a definition that says which release it is of.
pub const BUNDLE_VERSION: &str = "checkpoint-keeper.io/bundle-version";

/// The reason of a policy's condition `Ready` before the controller has looked at it.
pub const PENDING: &str = "Pending";

/// The definitions of the native kinds, as the API server takes them.
pub fn crds() -> Vec<CustomResourceDefinition> {
    let judged = [
        ClusterCheckpointPolicy::crd(),
        CheckpointPolicy::crd(),
        CheckpointStoragePolicy::crd(),
        CheckpointSchedule::crd(),
        CheckpointQuota::crd(),
    ];
    let judged = judged.into_iter().map(waiting_for_the_controller);
    judged.chain([ContainerCheckpoint::crd(), NodeCheckpointStore::crd()]).map(finished).collect()
}

/// The definitions of the older operator's kinds, with their fields and no others. What their statuses may hold is open:
/// that is what their own operator writes.
pub fn legacy_crds() -> Vec<CustomResourceDefinition> {
    [CheckpointRestoreOperator::crd(), LegacyCheckpointSchedule::crd()].map(legacy).into()
}

fn legacy(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut crd = finished(crd);
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let status = schema.and_then(|schema| schema.properties.as_mut()?.get_mut("status"));
        if let Some(status) = status {
            status.properties = None;
            status.x_kubernetes_preserve_unknown_fields = Some(true);
        }
    }
    crd
}

/// The definitions of the native kinds in one YAML stream.
pub fn crds_yaml() -> String {
    let documents: Vec<_> = crds().iter().map(|crd| format!("---\n{}", yaml(crd))).collect();
    format!("{HEADER}{}", documents.concat())
}

/// The generated files: each path below `config`, and its content.
pub fn crd_files() -> Vec<(String, String)> {
    let native = crds().into_iter().map(|crd| ("crd", crd));
    let legacy = legacy_crds().into_iter().map(|crd| ("crd-legacy", crd));
    native
        .chain(legacy)
        .map(|(folder, crd)| {
            let name = format!("{folder}/{}_{}.yaml", crd.spec.group, crd.spec.names.plural);
            (name, format!("{HEADER}---\n{}", yaml(&crd)))
        })
        .collect()
}

const HEADER: &str = "# Generated from crates/api by `cargo xtask generate`; do not edit.\n";

/// A definition with what the types do not say: the name of its lists, which release it is of, and descriptions of
/// spec and status that name them.
fn finished(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut crd = plain_schemas(crd);
    crd.spec.names.list_kind = Some(format!("{}List", crd.spec.names.kind));
    let version = format!("v{}", env!("CARGO_PKG_VERSION"));
    crd.metadata.annotations.get_or_insert_default().insert(BUNDLE_VERSION.to_owned(), version);
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let fields = schema.and_then(|schema| schema.properties.as_mut());
        for (name, field) in fields.into_iter().flatten() {
            if let ("spec" | "status", Some(description)) = (name.as_str(), &mut field.description) {
                let first = description.chars().next().map_or(0, char::len_utf8);
                let (first, rest) = description.split_at(first);
                *description = format!("{name} is {}{rest}", first.to_lowercase());
            }
        }
    }
    crd
}

/// Gives conditions the bounds that Kubernetes has for them, which its published schema leaves out.
fn bound_conditions(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if let Some(fields) =
                members.get_mut("conditions").and_then(|list| list.pointer_mut("/items/properties"))
            {
                for (field, bounds) in [
                    ("type", json!({"minLength": 1, "maxLength": 316})),
                    ("status", json!({"enum": ["True", "False", "Unknown"]})),
                    (
                        "reason",
                        json!({
                            "minLength": 1, "maxLength": 1024,
                            "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                        }),
                    ),
                    ("message", json!({"maxLength": 32768})),
                    ("observedGeneration", json!({"minimum": 0})),
                ] {
                    if let (Some(field), Value::Object(bounds)) = (fields[field].as_object_mut(), bounds) {
                        field.extend(bounds);
                    }
                }
            }
            members.values_mut().for_each(bound_conditions);
        }
        Value::Array(items) => items.iter_mut().for_each(bound_conditions),
        _ => {}
    }
}

/// A policy's definition with what its status says until the controller has looked at it.
fn waiting_for_the_controller(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let condition = serde_json::json!({
        "type": "Ready",
        "status": "Unknown",
        "reason": PENDING,
        "message": "Waiting for the controller.",
        "lastTransitionTime": "1970-01-01T00:00:00Z",
    });
    for version in &mut crd.spec.versions {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        if let Some(status) = schema.and_then(|schema| schema.properties.as_mut()?.get_mut("status")) {
            status.default = Some(JSON(serde_json::json!({"conditions": [condition]})));
        }
    }
    crd
}

/// The definition with conditions that are bounded, and with no field that takes null: the API server then drops a null
/// before anything looks at it, and a rule never sees one.
fn plain_schemas(crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let Ok(mut value) = serde_json::to_value(&crd) else { return crd };
    if let Some(versions) = value.pointer_mut("/spec/versions").and_then(Value::as_array_mut) {
        for version in versions {
            if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
                plain(schema, false);
                bound_conditions(schema);
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
    serde_json::to_value(plain_schemas(K::crd()))
        .ok()
        .and_then(|crd| crd.pointer("/spec/versions/0/schema/openAPIV3Schema").cloned())
        .unwrap_or_default()
}

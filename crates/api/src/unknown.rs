//! Fields of an object that its kind does not have.
//!
//! The API server keeps what a newer definition knows, and serde drops it in silence: a policy whose selector
//! says more than is understood here would be taken for one that selects everything.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::crds::schema;
use crate::{
    CheckpointPolicy, CheckpointQuota, CheckpointRestoreOperator, CheckpointSchedule,
    CheckpointStoragePolicy, ClusterCheckpointPolicy, GROUP, LEGACY_GROUP, LegacyCheckpointSchedule,
};

/// The fields of a value, as its schema has them. What is below a leaf is not looked at.
#[derive(Debug)]
enum Fields {
    /// A scalar, or a value of any form.
    Leaf,
    /// These fields and no others.
    Known(BTreeMap<String, Fields>),
    /// Any keys, with values of this form.
    Each(Box<Fields>),
    /// A list of these.
    List(Box<Fields>),
}

/// The fields of `spec` of each kind that says what may be deleted, what is checkpointed or how much of it may be; by group
/// and kind.
static SPECS: LazyLock<BTreeMap<(&str, &str), Fields>> = LazyLock::new(|| {
    let spec = |schema: Value| fields(&schema["properties"]["spec"]);
    BTreeMap::from([
        ((GROUP, "ClusterCheckpointPolicy"), spec(schema::<ClusterCheckpointPolicy>())),
        ((GROUP, "CheckpointPolicy"), spec(schema::<CheckpointPolicy>())),
        ((GROUP, "CheckpointStoragePolicy"), spec(schema::<CheckpointStoragePolicy>())),
        ((GROUP, "CheckpointSchedule"), spec(schema::<CheckpointSchedule>())),
        ((GROUP, "CheckpointQuota"), spec(schema::<CheckpointQuota>())),
        ((LEGACY_GROUP, "CheckpointRestoreOperator"), spec(schema::<CheckpointRestoreOperator>())),
        ((LEGACY_GROUP, "CheckpointSchedule"), spec(schema::<LegacyCheckpointSchedule>())),
    ])
});

fn fields(schema: &Value) -> Fields {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return Fields::Leaf;
    }
    if let Some(known) = schema["properties"].as_object() {
        return Fields::Known(known.iter().map(|(name, schema)| (name.clone(), fields(schema))).collect());
    }
    match (&schema["additionalProperties"], &schema["items"]) {
        (others @ Value::Object(_), _) => Fields::Each(Box::new(fields(others))),
        (_, items @ Value::Object(_)) => Fields::List(Box::new(fields(items))),
        _ => Fields::Leaf,
    }
}

/// The path of the first field of `spec` that the kind of that group does not have, if there is one. Of kinds that
/// say nothing of that nothing is unknown. The older operator's kinds are
/// judged in the same way, as in files: what a newer release of it means by a field is not to be guessed.
pub fn unknown_field(group: &str, kind: &str, spec: &Value) -> Option<String> {
    SPECS.get(&(group, kind)).and_then(|fields| unknown(fields, spec, "spec"))
}

fn unknown(fields: &Fields, value: &Value, path: &str) -> Option<String> {
    match (fields, value) {
        (Fields::Known(known), Value::Object(members)) => members.iter().find_map(|(name, member)| {
            let path = format!("{path}.{name}");
            // As for the API server, null is the same as not there.
            match known.get(name) {
                Some(fields) => unknown(fields, member, &path),
                None => (!member.is_null()).then_some(path),
            }
        }),
        (Fields::Each(each), Value::Object(members)) => {
            members.iter().find_map(|(name, member)| unknown(each, member, &format!("{path}.{name}")))
        }
        (Fields::List(each), Value::Array(items)) => {
            let mut items = items.iter().enumerate();
            items.find_map(|(place, item)| unknown(each, item, &format!("{path}[{place}]")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_that_the_kind_does_not_have_is_found_at_every_depth() {
        let legacy = "CheckpointRestoreOperator";
        for (kind, spec, expected) in [
            ("ClusterCheckpointPolicy", json!({"neverDelete": true}), Some("spec.neverDelete")),
            ("CheckpointQuota", json!({"hard": {"count": 1}, "scopes": ["a"]}), Some("spec.scopes")),
            ("ClusterCheckpointPolicy", json!({"selector": {"images": ["a"]}}), Some("spec.selector.images")),
            (
                "CheckpointPolicy",
                json!({"retention": {"perPod": {"maxAge": "1d"}}}),
                Some("spec.retention.perPod.maxAge"),
            ),
            (
                "CheckpointPolicy",
                json!({"selector": {"namespaceSelector": {}}}),
                Some("spec.selector.namespaceSelector"),
            ),
            (
                "CheckpointPolicy",
                json!({"selector": {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "not": 1}]}}}),
                Some("spec.selector.podSelector.matchExpressions[0].not"),
            ),
            (
                "CheckpointPolicy",
                json!({"selector": {"podSelector": {"matchLabels": {"anything": "goes"}}}}),
                None,
            ),
            (
                "CheckpointPolicy",
                json!({"orphans": {"action": "Delete", "unless": "x"}}),
                Some("spec.orphans.unless"),
            ),
            ("CheckpointPolicy", json!({"incomplete": null, "another": null}), None),
            (
                "CheckpointStoragePolicy",
                json!({"deletionLimit": {"jitter": 1}}),
                Some("spec.deletionLimit.jitter"),
            ),
            (
                legacy,
                json!({"globalPolicy": {"retainOrphan": false, "retainNewest": 1}}),
                Some("spec.globalPolicy.retainNewest"),
            ),
            (
                legacy,
                json!({"containerPolicies": [{"pod": "a"}, {"image": "b"}]}),
                Some("spec.containerPolicies[1].image"),
            ),
            ("NodeCheckpointStore", json!({"whatever": 1}), None),
        ] {
            let group = if kind == legacy { LEGACY_GROUP } else { GROUP };
            assert_eq!(unknown_field(group, kind, &spec).as_deref(), expected, "{kind} {spec}");
        }
    }

    #[test]
    fn of_two_kinds_of_one_name_each_has_its_own_fields() {
        let kind = "CheckpointSchedule";
        let native = json!({"selector": {}, "containers": ["app"], "triggers": {"schedule": "0 * * * *"}});
        let legacy = json!({"selector": {}, "containerNames": ["app"], "triggers": {"interval": "1h"}});
        assert_eq!(
            (unknown_field(GROUP, kind, &native), unknown_field(LEGACY_GROUP, kind, &legacy)),
            (None, None)
        );
        assert_eq!(unknown_field(LEGACY_GROUP, kind, &native).as_deref(), Some("spec.containers"));
        assert_eq!(unknown_field(GROUP, kind, &legacy).as_deref(), Some("spec.containerNames"));
        // What says that fewer pods are meant, or that more is to be done, is not left out in silence.
        let selector = json!({"selector": {"namespaces": ["a"]}, "triggers": {}});
        assert_eq!(unknown_field(GROUP, kind, &selector).as_deref(), Some("spec.selector.namespaces"));
        let volumes = json!({"selector": {}, "triggers": {}, "volumeSnapshots": {"enabled": true}});
        assert_eq!(unknown_field(LEGACY_GROUP, kind, &volumes).as_deref(), Some("spec.volumeSnapshots"));
    }
}

//! What an object of the older operator means here that it does not mean there: what a user has to know before that
//! operator ends, and these objects are obeyed here.

use kube::ResourceExt;

use crate::legacy_annotations::{KEEP_LATEST, ORPHAN_GRACE_PERIOD};
use crate::{CheckpointRestoreOperator, GlobalPolicySpec};

/// The same as lines for people: which object it is, and then what will be different.
pub fn in_words(object: &CheckpointRestoreOperator, operator_namespace: &str) -> Vec<String> {
    let namespace = object.namespace().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let name = object.name_any();
    let mut lines =
        vec![format!("CheckpointRestoreOperator {namespace}{name}, once the older operator has ended:")];
    let differences = differences(object, operator_namespace);
    lines.extend(differences.iter().map(|difference| format!("  * {difference}")));
    lines
}

/// What will be different for this object, a sentence each. `operator_namespace` is where this operator is installed.
pub fn differences(object: &CheckpointRestoreOperator, operator_namespace: &str) -> Vec<String> {
    let mut all = Vec::new();
    let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
    if namespace == operator_namespace {
        all.push(
            "it governs every node of the cluster; there it governs the one node that the operator runs on"
                .to_owned(),
        );
    } else {
        all.push(format!(
            "it governs the namespace {namespace} alone, on every node; there it governs the whole cluster, on one node. \
             To govern the cluster it has to be in {operator_namespace}, or in a namespace that \
             --cluster-policy-namespaces names"
        ));
    }
    let spec = &object.spec;
    if let Some(global) = &spec.global_policy {
        all.extend(levels_of_zero(global));
    }
    let global_orphans = spec.global_policy.as_ref().and_then(|global| global.retain_orphan);
    let containers = spec.container_policies.iter().map(|entry| entry.retain_orphan);
    let pods = spec.pod_policies.iter().map(|entry| entry.retain_orphan);
    let namespaces = spec.namespace_policies.iter().map(|entry| entry.retain_orphan);
    let mut orphans = containers.chain(pods).chain(namespaces).chain([global_orphans]);
    if orphans.any(|retain| retain == Some(false)) {
        let grace_period = annotation(object, ORPHAN_GRACE_PERIOD).unwrap_or("1h");
        all.push(format!(
            "retainOrphan: false deletes an archive {grace_period} after the API has said that its pod (for namespacePolicies, \
             its namespace) is not found, and says so again; there it goes at once, also where the API cannot be asked. A \
             container that is missing from a living pod is no orphan"
        ));
    }
    let keep_latest = annotation(object, KEEP_LATEST).unwrap_or("1");
    let keeps_none = keep_latest.trim_start_matches('0').is_empty();
    all.extend((!keeps_none).then(|| format!(
        "of the archives that a limit counts or adds up the newest complete ones stay ({keep_latest}; the annotation \
         {KEEP_LATEST} says how many); there none need stay. The limit of a pod or a namespace may still take the last \
         archive of one of its containers, and so may maxCheckpointSize and retainOrphan: false"
    )));
    all.push(
        "the time inside an archive says which is older; there it is the time at which its file last changed"
            .to_owned(),
    );
    all
}

/// A number or a length of time that an annotation says; what is neither is refused elsewhere.
fn annotation<'a>(object: &'a CheckpointRestoreOperator, name: &str) -> Option<&'a str> {
    let value = object.annotations().get(name)?;
    value.chars().all(|character| character.is_ascii_alphanumeric()).then_some(value)
}

/// A level whose count is 0 is off there with all that it has; here the count alone is off.
fn levels_of_zero(global: &GlobalPolicySpec) -> Vec<String> {
    let levels = [
        ("Container", global.max_checkpoints_per_container, &global.max_total_size_per_container),
        ("Pod", global.max_checkpoints_per_pod, &global.max_total_size_per_pod),
        ("Namespace", global.max_checkpoints_per_namespace, &global.max_total_size_per_namespace),
    ];
    let is_off = levels.into_iter().filter(|(_, count, size)| *count == Some(0) && size.is_some());
    let differs = is_off.map(|(level, ..)| {
        format!(
            "maxCheckpointsPer{level}: 0 turns that one limit off, and maxTotalSizePer{level} goes on acting; there 0 turns \
             the whole level off, its size included"
        )
    });
    differs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(namespace: &str, spec: &serde_json::Value) -> CheckpointRestoreOperator {
        let metadata = serde_json::json!({"name": "sample", "namespace": namespace});
        serde_json::from_value(serde_json::json!({
            "apiVersion": "criu.org/v1", "kind": "CheckpointRestoreOperator", "metadata": metadata, "spec": spec,
        }))
        .unwrap()
    }

    fn says(namespace: &str, spec: &serde_json::Value, text: &str) -> bool {
        differences(&object(namespace, spec), "checkpoint-keeper").iter().any(|one| one.contains(text))
    }

    #[test]
    fn whom_it_governs_is_said_first() {
        assert!(says("default", &serde_json::json!({}), "the namespace default alone"));
        assert!(says("checkpoint-keeper", &serde_json::json!({}), "every node of the cluster"));
    }

    #[test]
    fn a_zero_is_said_where_it_leaves_a_size_in_force() {
        let zero = "maxCheckpointsPerPod: 0";
        let spec = |size: serde_json::Value| serde_json::json!({"globalPolicy": {"maxCheckpointsPerPod": 0, "maxTotalSizePerPod": size}});
        assert!(says("default", &spec("1Gi".into()), zero));
        assert!(!says("default", &serde_json::json!({"globalPolicy": {"maxCheckpointsPerPod": 0}}), zero));
        assert!(!says(
            "default",
            &serde_json::json!({"globalPolicy": {"maxCheckpointsPerPod": 1, "maxTotalSizePerPod": "1Gi"}}),
            zero
        ));
    }

    #[test]
    fn orphans_are_said_where_they_matter() {
        let entry = serde_json::json!({"namespacePolicies": [{"namespace": "team", "retainOrphan": false}]});
        assert!(says("default", &entry, "retainOrphan: false deletes"));
        let retained = serde_json::json!({"globalPolicy": {"retainOrphan": true}});
        assert!(!says("default", &retained, "retainOrphan: false deletes"));
    }

    #[test]
    fn the_annotations_of_the_object_are_in_what_is_said() {
        let spec = serde_json::json!({"globalPolicy": {"retainOrphan": false}});
        assert!(says("default", &spec, "an archive 1h after") && says("default", &spec, "stay (1;"));
        let mut annotated = object("default", &spec);
        annotated.annotations_mut().insert(ORPHAN_GRACE_PERIOD.to_owned(), "2h".to_owned());
        annotated.annotations_mut().insert(KEEP_LATEST.to_owned(), "3".to_owned());
        let said = differences(&annotated, "checkpoint-keeper").join("\n");
        assert!(said.contains("an archive 2h after") && said.contains("stay (3;"), "{said}");
        annotated.annotations_mut().insert(KEEP_LATEST.to_owned(), "0".to_owned());
        let said = differences(&annotated, "checkpoint-keeper").join("\n");
        assert!(!said.contains("the newest complete ones"), "{said}");
    }
}

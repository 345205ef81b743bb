//! The finalizer that the older operator puts on its schedules. Where that operator does not run any more, nothing takes
//! it off: a schedule that is deleted stays, and so does its namespace. The controller takes it off then, and no other.

use checkpoint_keeper_api::legacy_schedule::FINALIZER;
use checkpoint_keeper_runtime::schedule_objects::AllSchedules;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A deleted schedule of the older operator that only waits for its finalizer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// The schedule's namespace.
    pub namespace: String,
    /// The schedule's name.
    pub name: String,
    /// Which object of that name.
    pub uid: String,
    /// The version of it that this follows from: no other is written over.
    pub resource_version: String,
    /// The finalizers that stay, in their order.
    pub finalizers: Vec<String>,
}

/// The schedules whose finalizer is to be taken off. While the older operator runs, that is its own work.
pub fn releases(objects: &AllSchedules, other_operator: bool) -> Vec<Release> {
    let metadata = objects.legacy.iter().map(|object| match object {
        Ok(schedule) => &schedule.metadata,
        Err(broken) => &broken.metadata,
    });
    metadata.filter(|_| !other_operator).filter_map(release).collect()
}

fn release(metadata: &ObjectMeta) -> Option<Release> {
    metadata.deletion_timestamp.as_ref()?;
    let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return None;
    }
    Some(Release {
        namespace: metadata.namespace.clone()?,
        name: metadata.name.clone()?,
        uid: metadata.uid.clone()?,
        resource_version: metadata.resource_version.clone()?,
        finalizers: finalizers.iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use checkpoint_keeper_api::LegacyCheckpointSchedule;
    use serde_json::{Value, json};

    use super::*;

    fn objects(metadata: &Value) -> AllSchedules {
        let mut object = json!({
            "apiVersion": "criu.org/v1", "kind": "CheckpointSchedule",
            "metadata": {"namespace": "shop", "name": "s", "uid": "u", "resourceVersion": "7"},
            "spec": {"namespace": "shop", "selector": {}, "triggers": {"interval": "1h"}},
        });
        object["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        let object: LegacyCheckpointSchedule = serde_json::from_value(object).unwrap();
        AllSchedules { legacy: vec![Ok(Arc::new(object))], ..AllSchedules::default() }
    }

    #[test]
    fn only_the_older_operators_finalizer_goes_of_what_is_deleted_and_only_where_that_operator_does_not_run()
    {
        let deleted = |finalizers: Value| {
            objects(&json!({"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": finalizers}))
        };
        let both = deleted(json!(["a/b", FINALIZER, "c/d"]));
        let released = releases(&both, false);
        assert_eq!(released.len(), 1);
        assert_eq!(released[0].finalizers, ["a/b", "c/d"]);
        assert_eq!(releases(&both, true), []);
        assert_eq!(releases(&deleted(json!(["a/b"])), false), []);
        assert_eq!(releases(&objects(&json!({"finalizers": [FINALIZER]})), false), [], "it is not deleted");
    }
}

//! An object of a watched kind, or what could be read of one that is not what its kind says.
//!
//! An object with a field below `spec` that its kind does not have is such a one, too: the field may say that
//! less is to be deleted than the rest of it does.
//!
//! kube's own `DeserializeGuard` keeps the metadata of such an object. Its status is needed as well: who
//! writes that something is wrong must see that it is written already.

use checkpoint_keeper_api::legacy_annotations::deciding_annotations;
use checkpoint_keeper_api::unknown::unknown_field;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::Value;

use checkpoint_keeper_api::api_object::ApiObject;

/// An object that is not what its kind says.
#[derive(Debug, Clone, Default)]
pub struct Broken {
    /// Its metadata.
    pub metadata: ObjectMeta,
    /// Its status, whatever that is.
    pub status: Option<Value>,
    /// Its `spec.deletionLimit`, if there is one: that of a storage policy binds all the same.
    pub deletion_limit: Option<Value>,
    /// Its `spec.precedence`, if there is one: an object that goes before namespaces' policies stands for them too.
    pub precedence: Option<Value>,
    /// What is wrong with it.
    pub error: String,
}

/// Removes all metadata of an object except its identity and the annotations that decisions depend on. The rest may
/// be as large as the API allows.
pub fn strip(metadata: &mut ObjectMeta) {
    let all = std::mem::take(metadata);
    *metadata = ObjectMeta {
        name: all.name,
        namespace: all.namespace,
        uid: all.uid,
        resource_version: all.resource_version,
        generation: all.generation,
        creation_timestamp: all.creation_timestamp,
        // What a deleted object waits for.
        finalizers: all.finalizers.filter(|_| all.deletion_timestamp.is_some()),
        deletion_timestamp: all.deletion_timestamp,
        annotations: all.annotations.map(deciding_annotations).filter(|kept| !kept.is_empty()),
        ..ObjectMeta::default()
    };
}

/// An object as its kind, or what is left of it.
pub fn read<K: DeserializeOwned + Resource<DynamicType = ()>>(object: ApiObject) -> Result<K, Box<Broken>> {
    let ApiObject { metadata, mut data, .. } = object;
    let unknown = data.get("spec").and_then(|spec| unknown_field(&K::group(&()), &K::kind(&()), spec));
    if let (Some(fields), Ok(metadata)) = (data.as_object_mut(), serde_json::to_value(&metadata)) {
        fields.insert("metadata".to_owned(), metadata);
    }
    let read = match unknown {
        Some(path) => Err(format!("{path}: unknown field")),
        None => K::deserialize(&data).map_err(|error| error.to_string()),
    };
    read.map_err(|error| {
        let status = data.get("status").cloned();
        let deletion_limit = data.pointer("/spec/deletionLimit").cloned();
        let precedence = data.pointer("/spec/precedence").cloned();
        Box::new(Broken { metadata, status, deletion_limit, precedence, error })
    })
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_api::{
        CheckpointSchedule, CheckpointStoragePolicy, ClusterCheckpointPolicy, LegacyCheckpointSchedule,
    };
    use serde_json::json;

    use super::*;

    fn object(kind: &str, spec: &Value) -> ApiObject {
        let metadata = json!({"name": "newer", "generation": 2, "annotations": {"any": "thing"}});
        let version = "checkpoint-keeper.io/v1alpha1";
        let object = json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_policy_with_a_field_that_is_not_known_here_is_not_read_without_it() {
        let spec = json!({"selector": {"images": ["scratch"]}, "retention": {"maxAge": "30d"}});
        let broken = read::<ClusterCheckpointPolicy>(object("ClusterCheckpointPolicy", &spec)).unwrap_err();
        assert_eq!(broken.error, "spec.selector.images: unknown field");
        assert_eq!((broken.metadata.name.as_deref(), broken.metadata.generation), (Some("newer"), Some(2)));
        let known =
            json!({"selector": {"podSelector": {"matchLabels": {"a": "b"}}}, "retention": {"maxAge": "30d"}});
        assert!(read::<ClusterCheckpointPolicy>(object("ClusterCheckpointPolicy", &known)).is_ok());
    }

    #[test]
    fn an_object_that_is_being_deleted_says_so_and_no_longer_who_wrote_it() {
        let metadata = json!({
            "name": "a", "deletionTimestamp": "2026-05-28T00:00:00Z", "labels": {"a": "b"},
            "managedFields": [{"manager": "kubectl"}],
        });
        let mut metadata: ObjectMeta = serde_json::from_value(metadata).unwrap();
        strip(&mut metadata);
        let kept = json!({"name": "a", "deletionTimestamp": "2026-05-28T00:00:00Z"});
        assert_eq!(serde_json::to_value(metadata).unwrap(), kept);
    }

    #[test]
    fn a_schedule_whose_selector_says_more_than_is_known_here_is_not_read_without_it() {
        let spec = json!({"selector": {"namespaces": ["a"]}, "triggers": {"interval": "1h"}});
        let broken = read::<CheckpointSchedule>(object("CheckpointSchedule", &spec)).unwrap_err();
        assert_eq!(broken.error, "spec.selector.namespaces: unknown field");
        let older = json!({"namespace": "a", "selector": {}, "triggers": {}, "volumeSnapshots": {}});
        let broken = read::<LegacyCheckpointSchedule>(object("CheckpointSchedule", &older)).unwrap_err();
        assert_eq!(broken.error, "spec.volumeSnapshots: unknown field");
    }

    #[test]
    fn the_limit_of_a_storage_policy_binds_although_something_else_in_it_is_not_known() {
        let spec = json!({"deletionLimit": {"burst": 1}, "maxUse": "10%"});
        let read = read::<CheckpointStoragePolicy>(object("CheckpointStoragePolicy", &spec));
        assert_eq!(read.unwrap_err().deletion_limit, Some(json!({"burst": 1})));
    }
}

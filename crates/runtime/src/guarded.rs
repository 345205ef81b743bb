//! An object of a watched kind, or what could be read of one that is not what its kind says.
//!
//! An object with a field below `spec` that its kind does not have is such a one, too: the field may say that
//! less is to be deleted than the rest of it does.
//!
//! kube's own `DeserializeGuard` keeps the metadata of such an object. Its status is needed as well: who
//! writes that something is wrong must see that it is written already.

use std::borrow::Cow;

use checkpoint_keeper_api::legacy::deciding_annotations;
use checkpoint_keeper_api::unknown::unknown_field;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// An object, or what is left of it.
#[derive(Debug, Clone)]
pub struct Guarded<K>(pub Result<K, Box<Broken>>);

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

/// Leaves of an object's metadata what says which object it is, and the annotations that decide. Whoever may
/// write it may add as much as fits.
pub fn strip(metadata: &mut ObjectMeta) {
    let all = std::mem::take(metadata);
    *metadata = ObjectMeta {
        name: all.name,
        namespace: all.namespace,
        uid: all.uid,
        resource_version: all.resource_version,
        generation: all.generation,
        creation_timestamp: all.creation_timestamp,
        annotations: all.annotations.map(deciding_annotations).filter(|kept| !kept.is_empty()),
        ..ObjectMeta::default()
    };
}

impl<'de, K: DeserializeOwned + Resource<DynamicType = ()>> Deserialize<'de> for Guarded<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let unknown = value.get("spec").and_then(|spec| unknown_field(&K::kind(&()), spec));
        let read = match unknown {
            Some(path) => Err(format!("{path}: unknown field")),
            None => K::deserialize(&value).map_err(|error| error.to_string()),
        };
        match read {
            Ok(object) => Ok(Self(Ok(object))),
            Err(error) => {
                let metadata = value.get("metadata").map(ObjectMeta::deserialize).transpose();
                let metadata = metadata.map_err(D::Error::custom)?.unwrap_or_default();
                let status = value.get("status").cloned();
                let deletion_limit = value.pointer("/spec/deletionLimit").cloned();
                let precedence = value.pointer("/spec/precedence").cloned();
                Ok(Self(Err(Box::new(Broken { metadata, status, deletion_limit, precedence, error }))))
            }
        }
    }
}

impl<K: Resource> Resource for Guarded<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|broken| &broken.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|broken| &mut broken.metadata, K::meta_mut)
    }
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_api::{CheckpointStoragePolicy, ClusterCheckpointPolicy};
    use serde_json::json;

    use super::*;

    fn object(kind: &str, spec: &Value) -> Value {
        let metadata = json!({"name": "newer", "generation": 2, "annotations": {"any": "thing"}});
        json!({"apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
    }

    #[test]
    fn a_policy_with_a_field_that_is_not_known_here_is_not_read_without_it() {
        let spec = json!({"selector": {"images": ["scratch"]}, "retention": {"maxAge": "30d"}});
        let read: Guarded<ClusterCheckpointPolicy> =
            serde_json::from_value(object("ClusterCheckpointPolicy", &spec)).unwrap();
        let broken = read.0.unwrap_err();
        assert_eq!(broken.error, "spec.selector.images: unknown field");
        assert_eq!((broken.metadata.name.as_deref(), broken.metadata.generation), (Some("newer"), Some(2)));
        let known =
            json!({"selector": {"podSelector": {"matchLabels": {"a": "b"}}}, "retention": {"maxAge": "30d"}});
        let read: Guarded<ClusterCheckpointPolicy> =
            serde_json::from_value(object("ClusterCheckpointPolicy", &known)).unwrap();
        assert!(read.0.is_ok());
    }

    #[test]
    fn the_limit_of_a_storage_policy_binds_although_something_else_in_it_is_not_known() {
        let spec = json!({"deletionLimit": {"burst": 1}, "maxUse": "10%"});
        let read: Guarded<CheckpointStoragePolicy> =
            serde_json::from_value(object("CheckpointStoragePolicy", &spec)).unwrap();
        assert_eq!(read.0.unwrap_err().deletion_limit, Some(json!({"burst": 1})));
    }
}

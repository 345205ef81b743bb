//! Objects as the API sends them, as far as they are read here.
//!
//! kube's own types read all of an object's metadata, and where they cannot read one part of one object they refuse the whole
//! list. Users may write much into the metadata of what is theirs: a time in `managedFields` that these types cannot hold, or
//! as many labels as fit. Here neither keeps any object from being read: who wrote which field is skipped, and of more
//! labels than anyone needs none is kept.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope};
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::scalars::any_time;

/// The most labels of an object that are kept, in bytes, names and values together. No limit of Kubernetes but that of a
/// whole object bounds them.
pub const LARGEST_LABELS: usize = 32 << 10;

/// An object's metadata: one type for all kinds, as the code of a watch is in the program once for each type.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    /// What is kept of the metadata.
    pub metadata: ObjectMeta,
    /// Whether the object has more labels than are kept, so that none is: they are not known.
    pub has_too_many_labels: bool,
}

/// An object of any kind.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ApiObject {
    /// What is kept of the metadata.
    pub metadata: ObjectMeta,
    /// Whether the object has more labels than are kept, so that none is: they are not known.
    pub has_too_many_labels: bool,
    /// All else, by the names of its fields, without version and kind.
    pub data: Value,
}

impl ApiObject {
    /// The same as an object of that kind.
    pub fn parse<K: DeserializeOwned>(self) -> serde_json::Result<K> {
        let Self { metadata, mut data, .. } = self;
        if let Some(fields) = data.as_object_mut() {
            fields.insert("metadata".to_owned(), serde_json::to_value(metadata)?);
        }
        serde_json::from_value(data)
    }
}

macro_rules! resource {
    ($type:ty) => {
        impl Resource for $type {
            type DynamicType = ApiResource;
            type Scope = DynamicResourceScope;

            fn group(kind: &ApiResource) -> Cow<'_, str> {
                kind.group.as_str().into()
            }

            fn version(kind: &ApiResource) -> Cow<'_, str> {
                kind.version.as_str().into()
            }

            fn kind(kind: &ApiResource) -> Cow<'_, str> {
                kind.kind.as_str().into()
            }

            fn api_version(kind: &ApiResource) -> Cow<'_, str> {
                kind.api_version.as_str().into()
            }

            fn plural(kind: &ApiResource) -> Cow<'_, str> {
                kind.plural.as_str().into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(Metadata);
resource!(ApiObject);

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: MetadataParts,
        }
        Object::deserialize(deserializer).map(|object| object.metadata.into())
    }
}

impl<'de> Deserialize<'de> for ApiObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = ApiObject;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of the API")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<ApiObject, A::Error> {
                let (mut metadata, mut data) = (Metadata::default(), Map::new());
                while let Some(name) = fields.next_key::<String>()? {
                    match name.as_str() {
                        "metadata" => metadata = fields.next_value::<MetadataParts>()?.into(),
                        "apiVersion" | "kind" => _ = fields.next_value::<IgnoredAny>()?,
                        _ => _ = data.insert(name, fields.next_value()?),
                    }
                }
                let Metadata { metadata, has_too_many_labels } = metadata;
                Ok(ApiObject { metadata, has_too_many_labels, data: Value::Object(data) })
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// The parts of metadata that are read. What users decide has no other form than the API server lets through.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct MetadataParts {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<AnyTime>,
    // A pod's is as far away as the user who deletes it says.
    deletion_timestamp: Option<AnyTime>,
    labels: Option<Labels>,
    annotations: Option<BTreeMap<String, String>>,
    finalizers: Option<Vec<String>>,
    owner_references: Option<Vec<OwnerReference>>,
}

impl From<MetadataParts> for Metadata {
    fn from(parts: MetadataParts) -> Self {
        let (labels, has_too_many_labels) = match parts.labels {
            None => (None, false),
            Some(Labels(Some(labels))) => (Some(labels), false),
            Some(Labels(None)) => (None, true),
        };
        let metadata = ObjectMeta {
            name: parts.name,
            namespace: parts.namespace,
            uid: parts.uid,
            resource_version: parts.resource_version,
            generation: parts.generation,
            creation_timestamp: parts.creation_timestamp.map(|time| time.0),
            deletion_timestamp: parts.deletion_timestamp.map(|time| time.0),
            labels,
            annotations: parts.annotations,
            finalizers: parts.finalizers,
            owner_references: parts.owner_references,
            ..ObjectMeta::default()
        };
        Self { metadata, has_too_many_labels }
    }
}

#[derive(Debug, Deserialize)]
struct AnyTime(#[serde(deserialize_with = "any_time")] Time);

/// Labels; none of more than are kept.
#[derive(Debug)]
struct Labels(Option<BTreeMap<String, String>>);

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Few;

        impl<'de> Visitor<'de> for Few {
            type Value = Labels;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("labels")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Labels, A::Error> {
                let (mut labels, mut size) = (BTreeMap::new(), 0);
                while size <= LARGEST_LABELS {
                    let Some((name, value)) = fields.next_entry::<String, String>()? else {
                        return Ok(Labels(Some(labels)));
                    };
                    size += name.len() + value.len();
                    labels.insert(name, value);
                }
                while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Labels(None))
            }
        }

        deserializer.deserialize_map(Few)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use kube::ResourceExt;
    use kube::core::ObjectList;
    use serde_json::json;

    use super::*;

    fn list<K: DeserializeOwned + Clone>(items: &Value) -> Vec<K> {
        let list =
            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items});
        serde_json::from_str::<ObjectList<K>>(&list.to_string()).unwrap().items
    }

    fn named(name: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod", "spec": {"a": [1]},
            "metadata": {"namespace": "shop", "name": name, "labels": {"app": "web"}, "resourceVersion": "7"},
        })
    }

    #[test]
    fn nothing_that_one_user_writes_into_metadata_hides_the_other_objects_of_a_list() {
        let mut late = named("late");
        late["metadata"]["managedFields"] = json!([{"manager": "x", "time": "9999-12-31T23:59:59Z"}]);
        let mut leaving = named("leaving");
        leaving["metadata"]["deletionTimestamp"] = json!("9999-12-31T23:59:59Z");
        let mut labelled = named("labelled");
        let labels = (0..5_000).map(|number| (format!("label-{number}"), json!("")));
        labelled["metadata"]["labels"] = Value::Object(labels.collect());
        let items = json!([late, leaving, labelled, named("other")]);
        let objects = list::<ApiObject>(&items);
        let names: Vec<String> = objects.iter().map(ResourceExt::name_any).collect();
        assert_eq!(names, ["late", "leaving", "labelled", "other"]);
        assert_eq!(objects[0].labels()["app"], "web");
        assert_eq!(objects[1].metadata.deletion_timestamp, Some(Time(Timestamp::MAX)));
        assert!(objects[2].has_too_many_labels && objects[2].metadata.labels.is_none());
        assert!(!objects[3].has_too_many_labels);
        assert_eq!(objects[3].data, json!({"spec": {"a": [1]}}));
        let metadata = list::<Metadata>(&items);
        let same = |(metadata, object): (&Metadata, &ApiObject)| {
            metadata.metadata == object.metadata && metadata.has_too_many_labels == object.has_too_many_labels
        };
        assert!(metadata.len() == 4 && metadata.iter().zip(&objects).all(same));
    }

    #[test]
    fn as_many_labels_as_are_kept_are_kept() {
        let labels = |size: usize| {
            let labels = json!({"a": "x".repeat(size - 2), "b": ""});
            list::<Metadata>(&json!([{"metadata": {"name": "a", "labels": labels}}])).remove(0)
        };
        assert_eq!(labels(LARGEST_LABELS).metadata.labels.unwrap().len(), 2);
        assert!(labels(LARGEST_LABELS + 1).has_too_many_labels);
    }
}

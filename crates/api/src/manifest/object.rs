//! One document: which kind it is, and the typed object that it holds.

use std::sync::LazyLock;

use checkpoint_keeper_core::policy::{Kind, Policy, StoragePolicy};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::check::{Check, Finding, nearest, shortened};
use super::tree::{Node, Tree};
use crate::crds::schema;
use crate::effective::{Objects, Seen};
use crate::rules;
use crate::{
    CheckpointPolicy, CheckpointQuota, CheckpointRestoreOperator, CheckpointSchedule,
    CheckpointStoragePolicy, ClusterCheckpointPolicy, FieldError, Governs, LegacyCheckpointSchedule,
    LegacyPolicies, LegacySettings, ScheduleError,
};

/// An object of a kind that says what may be deleted, or of one that says what is checkpointed.
pub(super) enum Object {
    Cluster(ClusterCheckpointPolicy),
    Namespaced(CheckpointPolicy),
    Storage(CheckpointStoragePolicy),
    Legacy(CheckpointRestoreOperator),
    Schedule(CheckpointSchedule),
    LegacySchedule(LegacyCheckpointSchedule),
    Quota(CheckpointQuota),
}

/// What an object means to the engine.
pub(super) enum Meaning {
    Retention(Box<Policy>),
    Storage(Box<StoragePolicy>),
    Legacy(Box<(LegacySettings, LegacyPolicies)>),
    /// Nothing, as it says what is checkpointed: with what of it agents do not act on.
    Schedule(Vec<FieldError>),
    /// Nothing, as it says how much is checkpointed.
    Quota,
}

/// Whether a cron expression names a time that comes, is asked from here on: a file means the same whenever it is
/// read.
const ANY_TIME: Timestamp = Timestamp::UNIX_EPOCH;

impl Object {
    /// Adds it to the objects that say what is kept, if it is one.
    pub(super) fn add_to(self, objects: &mut Objects) {
        match self {
            Self::Cluster(object) => objects.cluster.push(Seen::Parsed(object)),
            Self::Namespaced(object) => objects.namespaced.push(Seen::Parsed(object)),
            Self::Storage(object) => objects.storage.push(Seen::Parsed(object)),
            Self::Legacy(object) => objects.legacy.push(Seen::Parsed(object)),
            Self::Schedule(_) | Self::LegacySchedule(_) | Self::Quota(_) => {}
        }
    }

    /// What it means; an object of the older operator is taken to be for the whole cluster.
    pub(super) fn meaning(&self) -> Result<Meaning, Vec<FieldError>> {
        match self {
            Self::Cluster(object) => object.to_policy().map(|policy| Meaning::Retention(Box::new(policy))),
            Self::Namespaced(object) => object.to_policy().map(|policy| Meaning::Retention(Box::new(policy))),
            Self::Storage(object) => object.to_policy().map(|policy| Meaning::Storage(Box::new(policy))),
            Self::Legacy(object) => object
                .to_policies(Governs::Cluster)
                .map(|policies| Meaning::Legacy(Box::new((object.settings(), policies)))),
            Self::Schedule(object) => {
                let read = object.to_schedule(ANY_TIME).map(|_| Meaning::Schedule(Vec::new()));
                read.map_err(ScheduleError::into_fields)
            }
            Self::LegacySchedule(object) => {
                let own = object.metadata.namespace.clone().unwrap_or_default();
                let read = object.to_schedule(&own, ANY_TIME);
                read.map(|read| Meaning::Schedule(read.ignored)).map_err(ScheduleError::into_fields)
            }
            Self::Quota(object) => object.to_quota().map(|_| Meaning::Quota),
        }
    }
}

/// Which object it is, by its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectId {
    api_version: &'static str,
    kind: &'static str,
    namespace: Option<String>,
    name: Option<String>,
}

/// An object, and which one it is.
pub(super) struct Read {
    pub(super) id: ObjectId,
    pub(super) object: Object,
}

/// A kind that is understood.
struct Known {
    kind: &'static str,
    api_version: &'static str,
    is_policy: bool,
    namespaced: bool,
    schema: LazyLock<Value>,
    build: fn(ObjectMeta, Value) -> Result<Object, serde_path_to_error::Error<serde_json::Error>>,
}

fn spec<S: DeserializeOwned>(value: Value) -> Result<S, serde_path_to_error::Error<serde_json::Error>> {
    serde_path_to_error::deserialize(value)
}

static KNOWN: [Known; 7] = [
    Known {
        kind: Kind::ClusterCheckpointPolicy.name(),
        api_version: Kind::ClusterCheckpointPolicy.api_version(),
        is_policy: true,
        namespaced: false,
        schema: LazyLock::new(|| with_metadata(schema::<ClusterCheckpointPolicy>())),
        build: |metadata, value| {
            Ok(Object::Cluster(ClusterCheckpointPolicy { metadata, spec: spec(value)?, status: None }))
        },
    },
    Known {
        kind: Kind::CheckpointPolicy.name(),
        api_version: Kind::CheckpointPolicy.api_version(),
        is_policy: true,
        namespaced: true,
        schema: LazyLock::new(|| with_metadata(schema::<CheckpointPolicy>())),
        build: |metadata, value| {
            Ok(Object::Namespaced(CheckpointPolicy { metadata, spec: spec(value)?, status: None }))
        },
    },
    Known {
        kind: Kind::CheckpointStoragePolicy.name(),
        api_version: Kind::CheckpointStoragePolicy.api_version(),
        is_policy: true,
        namespaced: false,
        schema: LazyLock::new(|| with_metadata(schema::<CheckpointStoragePolicy>())),
        build: |metadata, value| {
            Ok(Object::Storage(CheckpointStoragePolicy { metadata, spec: spec(value)?, status: None }))
        },
    },
    Known {
        kind: Kind::CheckpointRestoreOperator.name(),
        api_version: Kind::CheckpointRestoreOperator.api_version(),
        is_policy: true,
        namespaced: true,
        schema: LazyLock::new(|| with_metadata(schema::<CheckpointRestoreOperator>())),
        build: |metadata, value| {
            Ok(Object::Legacy(CheckpointRestoreOperator { metadata, spec: spec(value)?, status: None }))
        },
    },
    Known {
        kind: SCHEDULE,
        api_version: "checkpoint-keeper.io/v1alpha1",
        is_policy: false,
        namespaced: true,
        schema: LazyLock::new(|| with_metadata(schema::<CheckpointSchedule>())),
        build: |metadata, value| {
            Ok(Object::Schedule(CheckpointSchedule { metadata, spec: spec(value)?, status: None }))
        },
    },
    Known {
        kind: SCHEDULE,
        api_version: "criu.org/v1",
        is_policy: false,
        namespaced: true,
        schema: LazyLock::new(|| with_metadata(schema::<LegacyCheckpointSchedule>())),
        build: |metadata, value| {
            Ok(Object::LegacySchedule(LegacyCheckpointSchedule {
                metadata,
                spec: spec(value)?,
                status: None,
            }))
        },
    },
    Known {
        kind: QUOTA,
        api_version: "checkpoint-keeper.io/v1alpha1",
        is_policy: false,
        namespaced: true,
        schema: LazyLock::new(|| with_metadata(schema::<CheckpointQuota>())),
        build: |metadata, value| {
            Ok(Object::Quota(CheckpointQuota { metadata, spec: spec(value)?, status: None }))
        },
    },
];

/// The kind, of both groups, that says what is checkpointed.
const SCHEDULE: &str = "CheckpointSchedule";

/// The kind that says how much a namespace may hold.
const QUOTA: &str = "CheckpointQuota";

/// Kinds of either group that decide nothing about deletion, and are not looked at.
const OTHER_KINDS: [&str; 4] =
    ["ContainerCheckpoint", "NodeCheckpointStore", "ForensicSnapshotChain", "PodRestore"];

/// The schema of a whole object: the CRD leaves out what every object has.
fn with_metadata(mut schema: Value) -> Value {
    let text = json!({"type": "string"});
    let texts = json!({"type": "object", "additionalProperties": text});
    let metadata = json!({"type": "object", "properties": {
        "name": text, "generateName": text, "namespace": text, "uid": text, "resourceVersion": text,
        "selfLink": text, "creationTimestamp": text, "deletionTimestamp": text,
        "labels": texts, "annotations": texts,
        "generation": {"type": "integer"}, "deletionGracePeriodSeconds": {"type": "integer"},
        "finalizers": {"type": "array", "items": text},
        "ownerReferences": {"type": "array", "items": {"type": "object"}},
        "managedFields": {"type": "array", "items": {"type": "object"}},
    }});
    schema["properties"]["apiVersion"] = text.clone();
    schema["properties"]["kind"] = text;
    schema["properties"]["metadata"] = metadata;
    // What a cluster reported is of no interest here, whichever version wrote it.
    schema["properties"]["status"] = json!({"type": "object"});
    schema["required"] = json!(["metadata", "spec"]);
    schema
}

/// The object's kind and name as far as a broken document tells them.
pub(super) fn describe(node: &Node) -> Option<String> {
    let kind = shortened(node.text("kind")?);
    let metadata = node.get("metadata").map(|member| &member.node);
    let part = |key| metadata.and_then(|metadata| metadata.text(key)).map(shortened);
    let namespace = part("namespace").map_or(String::new(), |namespace| format!("{namespace}/"));
    Some(part("name").map_or(kind.clone(), |name| format!("{kind}/{namespace}{name}")))
}

/// The kind of an object of ours that decides nothing about deletion; none of any other.
pub(super) fn other_kind(node: &Node) -> Option<&'static str> {
    let kind = node.text("kind")?;
    group(node).filter(|group| [crate::GROUP, crate::LEGACY_GROUP].contains(group))?;
    OTHER_KINDS.into_iter().find(|known| *known == kind)
}

/// The group that `apiVersion` names.
fn group(node: &Node) -> Option<&str> {
    node.text("apiVersion")?.split_once('/').map(|(group, _)| group)
}

/// Whether the document is a list of objects.
pub(super) fn items(node: &Node) -> Option<&Node> {
    node.text("kind").filter(|kind| kind.ends_with("List"))?;
    node.get("items").map(|member| &member.node).filter(|items| matches!(items.value, Tree::List(_)))
}

/// Reads one object and what is wrong with its shape; the object without its wrong fields is there
/// even then where that is possible, so that the rest of it can be judged too.
pub(super) fn read(node: &Node) -> (Option<Read>, Vec<Finding>) {
    let mut check = Check { root: &Value::Null, found: Vec::new() };
    if !matches!(node.value, Tree::Map(_)) {
        check.add(
            node.at,
            "",
            "is no Kubernetes object: apiVersion, kind, metadata and spec are wanted",
            None,
        );
        return (None, check.found);
    }
    let Some(known) = kind(node, &mut check) else { return (None, check.found) };
    let found = check.found;
    let mut check = Check { root: &known.schema, found };
    check.repeated_keys(node, "");
    let value = check.value(&known.schema, node, node.at, "").unwrap_or_default();
    let metadata = metadata(known, node, &value, &mut check);
    let Check { mut found, .. } = check;
    let id = ObjectId {
        api_version: known.api_version,
        kind: known.kind,
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
    };
    match (known.build)(metadata, value["spec"].clone()) {
        Ok(object) => (Some(Read { id, object }), found),
        Err(error) if found.is_empty() => {
            let path = format!("spec.{}", error.path());
            found.push(Finding::new(node.place_of(&path), &path, error.inner().to_string(), None));
            (None, found)
        }
        Err(_) => (None, found),
    }
}

fn kind(node: &Node, check: &mut Check<'_>) -> Option<&'static Known> {
    const ACCEPTED: &str = "ClusterCheckpointPolicy, CheckpointPolicy, CheckpointStoragePolicy \
        (checkpoint-keeper.io/v1alpha1) and CheckpointRestoreOperator (criu.org/v1)";
    let place = |key| node.get(key).map_or(node.at, |member| member.at);
    let Some(kind) = node.text("kind") else {
        check.add(place("kind"), "kind", "is required", Some(format!("one of {ACCEPTED}")));
        return None;
    };
    // Of schedules there are two kinds, which their groups tell apart.
    let is_it = |known: &&Known| {
        let is_group = || known.api_version.split_once('/').map(|(group, _)| group) == group(node);
        known.kind == kind && (known.is_policy || is_group())
    };
    let Some(known) = KNOWN.iter().find(is_it) else {
        let policies = KNOWN.iter().filter(|known| known.is_policy).map(|known| known.kind);
        let near = nearest(kind, policies).map(|near| format!("did you mean {near:?}?"));
        let other = [SCHEDULE, QUOTA].contains(&kind) || OTHER_KINDS.contains(&kind);
        let message = format!("{:?} is not a kind that says what is kept", shortened(kind));
        let hint = near
            .filter(|_| !other)
            .unwrap_or_else(|| format!("only retention kinds are taken here: {ACCEPTED}"));
        check.add(place("kind"), "kind", message, Some(hint));
        return None;
    };
    match node.text("apiVersion") {
        Some(version) if version == known.api_version => {}
        Some(version) => {
            let message = format!("{:?} has no {kind}", shortened(version));
            check.add(
                place("apiVersion"),
                "apiVersion",
                message,
                Some(format!("did you mean {:?}?", known.api_version)),
            );
        }
        None => {
            check.add(
                place("apiVersion"),
                "apiVersion",
                "is required",
                Some(format!("write {:?}", known.api_version)),
            );
        }
    }
    Some(known)
}

fn metadata(known: &Known, node: &Node, value: &Value, check: &mut Check<'_>) -> ObjectMeta {
    let metadata = &value["metadata"];
    let text = |key: &str| metadata[key].as_str().map(str::to_owned);
    let (name, namespace) = (text("name"), text("namespace"));
    if metadata.is_object() {
        match &name {
            Some(name) => must_be_name(name, "metadata.name", node, check),
            // A name of the wrong type was reported already.
            None if node.get("metadata").is_some_and(|metadata| metadata.node.get("name").is_some()) => {}
            None => {
                let generated = metadata["generateName"].is_string();
                let hint = generated
                    .then(|| "generateName is for a cluster; a file's objects need names".to_owned());
                check.add(node.place_of("metadata"), "metadata.name", "is required", hint);
            }
        }
    }
    match &namespace {
        Some(namespace) if known.namespaced => must_be_name(namespace, "metadata.namespace", node, check),
        Some(_) => {
            let hint = (known.kind == Kind::ClusterCheckpointPolicy.name()).then(|| {
                "for one namespace, use the kind CheckpointPolicy or spec.selector.namespaceSelector"
                    .to_owned()
            });
            let message = format!("{} is for the whole cluster and has no namespace", known.kind);
            check.add(node.place_of("metadata.namespace"), "metadata.namespace", message, hint);
        }
        None if known.kind == Kind::CheckpointPolicy.name() && metadata.is_object() => {
            let hint = "a file has no current namespace; write the one that the policy is for".to_owned();
            check.add(node.place_of("metadata"), "metadata.namespace", "is required", Some(hint));
        }
        None => {}
    }
    let created = text("creationTimestamp").and_then(|time| {
        let parsed = time.parse::<jiff::Timestamp>();
        if parsed.is_err() {
            let path = "metadata.creationTimestamp";
            check.add(
                node.place_of(path),
                path,
                format!("{:?} is no time in RFC 3339", shortened(&time)),
                None,
            );
        }
        parsed.ok().map(Time)
    });
    let annotations = metadata["annotations"].as_object().map(|annotations| {
        let texts =
            annotations.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        texts.collect()
    });
    ObjectMeta { name, namespace, annotations, creation_timestamp: created, ..ObjectMeta::default() }
}

fn must_be_name(name: &str, path: &str, node: &Node, check: &mut Check<'_>) {
    if !rules::is_name(name) || name.len() > rules::LONGEST_NAME {
        let message = format!("{:?} {}", shortened(name), rules::NAME.message);
        check.add(node.place_of(path), path, message, None);
    }
}

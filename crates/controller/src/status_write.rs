//! A status to be written, of an object of any kind.

use std::fmt;
use std::time::Duration;

use checkpoint_keeper_api::GROUP;
use kube::api::ApiResource;
use serde_json::Value;

/// A status to be written, of an object of any kind.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusWrite {
    /// The object.
    pub object: ObjectId,
    /// The version of it that the status was computed from: no other is written over.
    pub resource_version: String,
    /// The fields of the status that are ours, as JSON; null takes one away.
    pub status: Value,
    /// Whether more than figures has changed. Other figures alone may wait.
    pub is_urgent: bool,
    /// The shortest time between two writes of nothing but figures.
    pub figures_wait: Duration,
    /// What the status newly says, to be published as an event about the object; none: nothing worth one.
    pub event: Option<StatusEvent>,
    /// The type of the problem that it is if this cannot be written.
    pub problem: &'static str,
}

/// An object of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectId {
    /// Its kind.
    pub resource: ApiResource,
    /// Its namespace; none: it is the cluster's.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Which object of that name.
    pub uid: String,
}

/// Something that has come true of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusEvent {
    /// Whether it is as it should be.
    pub is_good: bool,
    /// The reason, in CamelCase.
    pub reason: &'static str,
    /// The reason as a sentence.
    pub note: String,
}

impl StatusWrite {
    /// Whether the same is written over the same. When a condition changed is from the moment of asking.
    pub fn is_same_as(&self, other: &Self) -> bool {
        let without_times = |write: &Self| {
            let mut status = write.status.clone();
            let conditions = status.get_mut("conditions").and_then(Value::as_array_mut);
            for condition in conditions.into_iter().flatten() {
                if let Some(fields) = condition.as_object_mut() {
                    fields.remove("lastTransitionTime");
                }
            }
            status
        };
        self.object == other.object
            && self.resource_version == other.resource_version
            && without_times(self) == without_times(other)
    }
}

impl fmt::Display for ObjectId {
    /// `CheckpointPolicy/shop/default`, `ClusterCheckpointPolicy/default`, `CheckpointSchedule/shop/hourly (criu.org)`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, namespace, name, .. } = self;
        write!(formatter, "{}/", resource.kind)?;
        if let Some(namespace) = namespace {
            write!(formatter, "{namespace}/")?;
        }
        formatter.write_str(name)?;
        if resource.group == GROUP { Ok(()) } else { write!(formatter, " ({})", resource.group) }
    }
}

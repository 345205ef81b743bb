//! What the API keeps of a policy object beside what its author wants: which object and version it is,
//! and its status. The same for every kind, and for objects that are not what their kind says.

use checkpoint_keeper_core::policy::{Kind, PolicyRef};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::effective::{self, Objects, Seen};
use crate::status::PolicyStatus;

/// One object, whatever its kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Record<'a> {
    /// Which object it is, by its name.
    pub id: PolicyRef,
    /// Which object of that name.
    pub uid: Option<&'a str>,
    /// Which version of the whole object.
    pub resource_version: Option<&'a str>,
    /// Its status; none where it was not written yet.
    pub status: Option<&'a PolicyStatus>,
}

impl Objects {
    /// A record of every object.
    pub fn records(&self) -> Vec<Record<'_>> {
        let mut records = Vec::new();
        for seen in &self.cluster {
            records.push(record(Kind::ClusterCheckpointPolicy, seen, |object| {
                (object.policy_ref(), &object.metadata, object.status.as_ref())
            }));
        }
        for seen in &self.namespaced {
            records.push(record(Kind::CheckpointPolicy, seen, |object| {
                (object.policy_ref(), &object.metadata, object.status.as_ref())
            }));
        }
        for seen in &self.storage {
            records.push(record(Kind::CheckpointStoragePolicy, seen, |object| {
                (object.policy_ref(), &object.metadata, object.status.as_ref())
            }));
        }
        for seen in &self.legacy {
            records.push(record(Kind::CheckpointRestoreOperator, seen, |object| {
                (object.policy_ref(), &object.metadata, object.status.as_ref())
            }));
        }
        records
    }
}

fn record<K>(
    kind: Kind,
    seen: &Seen<K>,
    parts: impl Fn(&K) -> (PolicyRef, &ObjectMeta, Option<&PolicyStatus>),
) -> Record<'_> {
    match seen {
        Seen::Parsed(object) => {
            let (id, metadata, status) = parts(object);
            let (uid, resource_version) = (metadata.uid.as_deref(), metadata.resource_version.as_deref());
            Record { id, uid, resource_version, status }
        }
        Seen::Unparsable(object) => Record {
            id: effective::id(kind, object),
            uid: object.uid.as_deref(),
            resource_version: object.resource_version.as_deref(),
            status: object.status.as_ref(),
        },
    }
}

//! Writing statuses, and events about them. What to write is computed by `statuses`, `schedules` and `quotas`, and
//! `throttle` decides when.

use std::time::Duration;

use checkpoint_keeper_api::api_object::ApiObject;
use checkpoint_keeper_api::node_store::ReadyReason;
use checkpoint_keeper_api::{LegacyCheckpointSchedule, NodeCheckpointStore};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{ApiResource, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use super::FIELD_MANAGER;
use super::finalizers::Release;
use super::node_report::NodeReport;
use super::status_write::{ObjectId, StatusEvent, StatusWrite};
use checkpoint_keeper_runtime::events::{Note, Publisher};
use checkpoint_keeper_runtime::plain;

/// How long one writing may take.
pub const WRITE: Duration = Duration::from_secs(4);

/// How a writing went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// It is written.
    Done,
    /// The object has changed; what follows from the new version is seen when the watch shows it.
    Conflict,
    /// The object is gone.
    Gone,
    /// The API refused it.
    Refused(String),
    /// The API did not answer.
    Unanswered(String),
}

impl Written {
    /// All its labels in metrics.
    pub const LABELS: [&'static str; 5] = ["written", "conflict", "gone", "refused", "unanswered"];

    fn of<T>(reply: Result<kube::Result<T>, Elapsed>) -> Self {
        match reply {
            Ok(Ok(_)) => Self::Done,
            Ok(Err(error)) => match &error {
                kube::Error::Api(status) if status.code == 409 => Self::Conflict,
                kube::Error::Api(status) if status.code == 404 => Self::Gone,
                // 429 and 5xx (too many requests, no server available) count as no answer.
                kube::Error::Api(status) if status.code < 500 && status.code != 429 => {
                    Self::Refused(plain(&error))
                }
                _ => Self::Unanswered(plain(&error)),
            },
            Err(_) => Self::Unanswered("no answer in time".to_owned()),
        }
    }

    /// Its label in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Done => "written",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::Refused(_) => "refused",
            Self::Unanswered(_) => "unanswered",
        }
    }
}

/// Writes statuses and events.
pub struct Writer {
    client: Client,
    publisher: Publisher,
}

impl Writer {
    /// A writer of this name.
    pub fn new(client: Client, identity: String) -> Self {
        let publisher = Publisher::new(client.clone(), FIELD_MANAGER, identity);
        Self { client, publisher }
    }

    /// Writes a status over the version that it follows from, and over no other.
    pub async fn write(&self, write: &StatusWrite) -> Written {
        let ObjectId { resource, namespace, name, uid } = &write.object;
        // As no kind in particular: an object that is not what its kind says gets its status, too.
        let api: Api<ApiObject> = match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, resource),
            None => Api::all_with(self.client.clone(), resource),
        };
        let patch = Patch::Merge(json!({
            "metadata": {"uid": uid, "resourceVersion": write.resource_version},
            "status": write.status,
        }));
        let how = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        Written::of(timeout(WRITE, api.patch_status(name, &how, &patch)).await)
    }

    /// Publishes what has come true of an object as an event about it.
    pub async fn publish(&self, object: &ObjectId, event: &StatusEvent) -> Written {
        let ObjectId { resource, namespace, name, uid } = object;
        let about = ObjectReference {
            api_version: Some(resource.api_version.clone()),
            kind: Some(resource.kind.clone()),
            namespace: namespace.clone(),
            name: Some(name.clone()),
            uid: Some(uid.clone()),
            ..ObjectReference::default()
        };
        let note = Note {
            about,
            is_good: event.is_good,
            reason: event.reason.to_owned(),
            action: "Reconcile",
            note: event.note.clone(),
        };
        Written::of(timeout(WRITE, self.publisher.publish(note)).await)
    }

    /// Takes the older operator's finalizer off a schedule that is deleted, unless the schedule has changed since.
    pub async fn release(&self, release: &Release) -> Written {
        let patch = Patch::Merge(json!({"metadata": {
            "uid": release.uid, "resourceVersion": release.resource_version, "finalizers": release.finalizers,
        }}));
        let how = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let resource = ApiResource::erase::<LegacyCheckpointSchedule>(&());
        // As no kind in particular: an object that is not what its kind says is deleted, too.
        let api: Api<ApiObject> = Api::namespaced_with(self.client.clone(), &release.namespace, &resource);
        Written::of(timeout(WRITE, api.patch(&release.name, &how, &patch)).await)
    }

    /// Says in a node's store that no agent is at work there, unless the store has changed since.
    pub async fn agent_is_away(&self, report: &NodeReport, now: Timestamp) -> Written {
        let reason = ReadyReason::AgentNotReady.name();
        let time = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let patch = Patch::Merge(json!({
            "metadata": {"uid": report.uid, "resourceVersion": report.resource_version},
            "status": {"conditions": [{
                "type": "Ready", "status": "Unknown", "reason": reason, "lastTransitionTime": time,
                "message": "No agent is at work on this node: the rest is as it last reported.",
            }]},
        }));
        let how = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api = Api::<NodeCheckpointStore>::all(self.client.clone());
        Written::of(timeout(WRITE, api.patch_status(&report.node, &how, &patch)).await)
    }
}

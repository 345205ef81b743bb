//! Events on the policies that had archives deleted: one for each reason, not one for each archive.

use std::collections::BTreeMap;

use checkpoint_keeper_core::plan::Reason;
use checkpoint_keeper_core::policy::{Kind, PolicyRef};
use checkpoint_keeper_core::quantity;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};

/// The reason of the event that a policy had archives deleted.
pub(crate) const DELETED: &str = "Deleted";

/// Sends events.
pub(super) struct Events {
    recorder: Recorder,
    node: String,
}

impl Events {
    pub(super) fn new(client: Client, node: String) -> Self {
        let reporter =
            Reporter { controller: "checkpoint-keeper-agent".to_owned(), instance: Some(node.clone()) };
        Self { recorder: Recorder::new(client, reporter), node }
    }

    /// Says that a policy had archives deleted here; what no policy asked for is said on the node's store.
    pub(super) async fn deleted(
        &self,
        policy: Option<&PolicyRef>,
        uids: &BTreeMap<PolicyRef, String>,
        reason: Reason,
        count: u64,
        bytes: u64,
    ) {
        let noun = if count == 1 { "archive" } else { "archives" };
        let note = format!(
            "Deleted {count} checkpoint {noun} ({}) on {}: {reason}",
            quantity::human(bytes),
            self.node
        );
        let event = Event {
            type_: EventType::Normal,
            reason: DELETED.to_owned(),
            note: Some(note),
            action: "DeleteArchives".to_owned(),
            secondary: None,
        };
        let about = match policy {
            Some(policy) => reference(policy, uids.get(policy).cloned()),
            None => ObjectReference {
                api_version: Some("criu.org/v1alpha1".to_owned()),
                kind: Some("NodeCheckpointStore".to_owned()),
                name: Some(self.node.clone()),
                ..ObjectReference::default()
            },
        };
        let _ = self.recorder.publish(&event, &about).await;
    }
}

/// How the API refers to a policy's object.
fn reference(policy: &PolicyRef, uid: Option<String>) -> ObjectReference {
    let version = if policy.kind == Kind::CheckpointRestoreOperator { "v1" } else { "v1alpha1" };
    ObjectReference {
        api_version: Some(format!("criu.org/{version}")),
        kind: Some(format!("{:?}", policy.kind)),
        namespace: policy.namespace.clone(),
        name: Some(policy.name.clone()),
        uid,
        ..ObjectReference::default()
    }
}

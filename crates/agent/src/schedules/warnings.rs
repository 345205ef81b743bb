//! Telling people of checkpoints that were made although a quota is exceeded that only warns.

use std::sync::{Arc, Mutex, PoisonError};

use checkpoint_keeper_core::schedule::ContainerId;
use checkpoint_keeper_runtime::events::Note;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use tokio::sync::mpsc;

use super::event_sender::EventSender;

/// So many wait at most; of more nothing is told, as the quota's conditions say it as well.
const MOST_WAITING: usize = 100;

/// The type of problem in the log.
const EVENTS_UNWRITTEN: &str = "QuotaEventsUnwritten";

/// Takes warnings, and has them published once it is run.
#[derive(Clone)]
pub(super) struct QuotaWarnings {
    sender: mpsc::Sender<Note>,
    /// Taken by who publishes.
    receiver: Arc<Mutex<Option<mpsc::Receiver<Note>>>>,
}

impl Default for QuotaWarnings {
    fn default() -> Self {
        let (sender, receiver) = mpsc::channel(MOST_WAITING);
        Self { sender, receiver: Arc::new(Mutex::new(Some(receiver))) }
    }
}

impl QuotaWarnings {
    /// Says of a container that a checkpoint of it exceeds these quotas and is made all the same.
    pub(super) fn warn(&self, container: &ContainerId, quotas: &[String]) {
        if !quotas.is_empty() {
            let _ = self.sender.try_send(note(container, quotas));
        }
    }

    /// Publishes, for as long as it is polled. Only the first that is run does.
    pub(super) async fn run(&self, client: &Client, node: &str) {
        let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut receiver) = receiver else { return };
        let mut events = EventSender::new(client, node, EVENTS_UNWRITTEN, "about quotas");
        while let Some(note) = receiver.recv().await {
            events.send(note).await;
        }
    }
}

fn note(container: &ContainerId, quotas: &[String]) -> Note {
    Note {
        about: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(container.namespace.clone()),
            name: Some(container.pod.clone()),
            uid: Some(container.pod_uid.clone()),
            field_path: Some(format!("spec.containers{{{}}}", container.container)),
            ..ObjectReference::default()
        },
        is_good: false,
        reason: "QuotaExceeded".to_owned(),
        action: "CheckpointContainer",
        note: format!(
            "Container {}: is checkpointed although a quota that only warns has no room for it: {}",
            container.container,
            quotas.join("; ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_about_the_pod_and_says_the_figures() {
        let container = ContainerId {
            namespace: "shop".to_owned(),
            pod: "db-0".to_owned(),
            pod_uid: "u".to_owned(),
            container: "app".to_owned(),
        };
        let warnings = QuotaWarnings::default();
        warnings.warn(&container, &[]);
        warnings.warn(&container, &["CheckpointQuota/shop/q: 3 of 3 archives are there".to_owned()]);
        let mut receiver = warnings.receiver.lock().unwrap().take().unwrap();
        let told = receiver.try_recv().unwrap();
        assert_eq!((told.reason.as_str(), told.is_good), ("QuotaExceeded", false));
        assert_eq!((told.about.name.as_deref(), told.about.uid.as_deref()), (Some("db-0"), Some("u")));
        assert!(told.note.ends_with("CheckpointQuota/shop/q: 3 of 3 archives are there"), "{}", told.note);
        assert!(receiver.try_recv().is_err(), "nothing is told of what exceeds nothing");
    }
}

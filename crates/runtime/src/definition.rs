//! Whether the API defines a kind, by its `CustomResourceDefinition`: that it has none says for certain that there are no
//! such objects.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use checkpoint_keeper_api::api_object::Metadata;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::runtime::watcher::watcher;
use tokio::sync::watch;

use super::cache::Cache;
use super::liveness::{now, policy_watch};
use super::problem_log::Problem;
use super::watch::{follow_anew, metadata_of};

/// A kind's definition, as far as it was seen, shared by the task that watches it and those that read it.
#[derive(Debug, Clone)]
pub struct Definition {
    name: Arc<str>,
    seen: Arc<Mutex<Cache<()>>>,
    changed: watch::Sender<()>,
}

impl Definition {
    /// The definition of that name, not seen yet. `changed` is notified when it comes or goes.
    pub fn new(name: &str, changed: watch::Sender<()>) -> Self {
        Self { name: name.into(), seen: Arc::default(), changed }
    }

    /// Watches it, for as long as it is polled.
    pub async fn watch(&self, client: &Client) {
        let only = format!("metadata.name={}", self.name);
        let config = policy_watch().fields(&only);
        let begin = || watcher(metadata_of::<CustomResourceDefinition>(client), config.clone());
        follow_anew(begin, |change| {
            let before = self.is_defined();
            self.seen().note(change, now(), |_: Metadata| ());
            if self.is_defined() != before {
                self.changed.send_replace(());
            }
        })
        .await;
    }

    /// Whether the API has it; none while that is not known.
    pub fn is_defined(&self) -> Option<bool> {
        let seen = self.seen();
        seen.is_listed().then_some(!seen.objects.is_empty())
    }

    /// Waits until it is known to be there, or not to be.
    pub async fn until(&self, wanted: bool) {
        let mut changes = self.changed.subscribe();
        while self.is_defined() != Some(wanted) {
            // The sender lives as long as this does.
            let _ = changes.changed().await;
        }
    }

    /// What is wrong with the watch at this moment, for the log.
    pub fn problem(&self, now: Instant) -> Option<Problem> {
        self.seen().problem(&format!("the definition {}", self.name), now)
    }

    fn seen(&self) -> MutexGuard<'_, Cache<()>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

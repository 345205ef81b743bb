//! The objects of one kind, as a watch shows them now.

use std::collections::BTreeMap;
use std::time::Instant;

use kube::ResourceExt;

use super::problem_log::Problem;
use super::watch::{Change, WatchHealth};

/// One kind, as far as it was seen.
#[derive(Debug)]
pub struct Cache<T> {
    /// By namespace and name.
    pub objects: BTreeMap<(String, String), T>,
    pub(super) health: WatchHealth,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new(), health: WatchHealth::default() }
    }
}

impl<T> Cache<T> {
    /// Notes a change; says whether it is one.
    pub fn note<O: ResourceExt>(&mut self, change: Change<O>, now: Instant, keep: impl Fn(O) -> T) -> bool {
        let key = |object: &O| (object.namespace().unwrap_or_default(), object.name_any());
        self.health.note(&change, now);
        match change {
            Change::Listed(objects) => {
                self.objects = objects.into_iter().map(|object| (key(&object), keep(object))).collect();
            }
            Change::Applied(object) => _ = self.objects.insert(key(&object), keep(object)),
            Change::Deleted(object) => _ = self.objects.remove(&key(&object)),
            Change::Failed(_) => return false,
        }
        true
    }

    /// Whether these are all that there are, now.
    pub fn is_up(&self, now: Instant) -> bool {
        self.health.is_up(now)
    }

    /// Whether all of them were seen once.
    pub fn is_listed(&self) -> bool {
        self.health.is_listed()
    }

    /// What is wrong with the watch at this moment, for the log.
    pub fn problem(&self, kind: &str, now: Instant) -> Option<Problem> {
        self.health.problem(kind, now)
    }

    /// What is wrong with the watch, if that is so for so long that it counts.
    pub fn error(&self, kind: &str, now: Instant) -> Option<String> {
        self.health.error(kind, now)
    }
}

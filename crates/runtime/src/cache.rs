//! The objects of one kind, as a watch shows them now.

use std::collections::BTreeMap;
use std::time::Instant;

use futures_util::{Stream, TryStreamExt};
use kube::ResourceExt;
use kube::runtime::watcher;

use super::bounds::Key;
use super::problem_log::Problem;
use super::watch::{Change, WatchHealth};

/// An object's namespace, empty for one that has none, and its name.
pub(super) fn key(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Keeps of each object what is needed of it, as it arrives: a listing in whole may be larger than the memory that there is.
pub fn kept<O: ResourceExt, T>(
    events: impl Stream<Item = watcher::Result<watcher::Event<O>>>,
    keep: impl Fn(O) -> T,
) -> impl Stream<Item = watcher::Result<watcher::Event<(Key, T)>>> {
    let keep = move |object: O| (key(&object), keep(object));
    events.map_ok(move |event| match event {
        watcher::Event::Init => watcher::Event::Init,
        watcher::Event::InitApply(object) => watcher::Event::InitApply(keep(object)),
        watcher::Event::InitDone => watcher::Event::InitDone,
        watcher::Event::Apply(object) => watcher::Event::Apply(keep(object)),
        watcher::Event::Delete(object) => watcher::Event::Delete(keep(object)),
    })
}

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
        self.note_kept(change.map(|object| (key(&object), keep(object))), now)
    }

    /// Notes a change of what is kept of objects, each with its key; says whether it is one.
    pub fn note_kept(&mut self, change: Change<(Key, T)>, now: Instant) -> bool {
        self.health.note(&change, now);
        match change {
            Change::Listed(objects) => self.objects = objects.into_iter().collect(),
            Change::Applied((key, kept)) => _ = self.objects.insert(key, kept),
            Change::Deleted((key, _)) => _ = self.objects.remove(&key),
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

    /// Why the watch fails, where errors have followed each other for a while.
    pub fn lasting_error(&self, now: Instant) -> Option<&str> {
        self.health.lasting_error(now)
    }

    /// What is wrong with the watch, if that is so for so long that it counts.
    pub fn error(&self, kind: &str, now: Instant) -> Option<String> {
        self.health.error(kind, now)
    }
}

//! The inventory: a `ContainerCheckpoint` for each archive of the node, and what users ask through it.
//!
//! [`entries`] says which archives are shown, [`difference`] what has to change on the disk and in the API, and here it
//! is done: markers by the thread that deletes, so that none is deleted meanwhile, and writes to the API one after the
//! other. What fails is told and tried again; nothing else waits for it.

mod difference;
mod entries;
mod expiry;
mod rate;
mod shown_archives;
mod writes;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use checkpoint_keeper_api::ContainerCheckpoint;
use checkpoint_keeper_api::container_checkpoint::{NODE_LABEL, node_label};
use checkpoint_keeper_core::hold::{Hold, HoldStep, Marker, step};
use checkpoint_keeper_node::mailbox::Sender;
use checkpoint_keeper_node::markers::HoldError;
use checkpoint_keeper_runtime::cache::Cache;
use checkpoint_keeper_runtime::guarded::{self, Broken};
use checkpoint_keeper_runtime::liveness::{now, other_watch};
use checkpoint_keeper_runtime::watch::{Change, follow_anew, objects_of};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watcher;
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

use self::difference::{HeldSums, MarkerChange, Markers, NoHold, Object, Objects};
pub(crate) use self::entries::Unlisted;
use self::entries::{Entries, HiddenPin, Key};
pub(crate) use self::shown_archives::ShownArchives;
use self::writes::Progress;
use super::context::{ApiContext, TICK};
use super::problem_type::ProblemType;

/// So many objects are listed at a time.
const PAGE: u32 = 100;

/// How often the pins of archives that are not shown are looked at, for holds that are over, and how many of them.
const HIDDEN: Duration = Duration::from_mins(1);
const MOST_HIDDEN: usize = 1_000;

/// What keeps the objects of this node's archives as they should be.
pub(super) struct Inventory {
    pub(super) context: ApiContext,
    pub(super) archives: ShownArchives,
    pub(super) engine: Sender,
    objects: Mutex<Cache<Option<Object>>>,
    changed: watch::Sender<()>,
}

impl Inventory {
    pub(super) fn new(context: ApiContext, archives: ShownArchives, engine: Sender) -> Self {
        Self { context, archives, engine, objects: Mutex::default(), changed: watch::Sender::new(()) }
    }

    fn objects(&self) -> MutexGuard<'_, Cache<Option<Object>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches the objects of this node and keeps them as they should be, for as long as it is polled.
    pub(super) async fn run(&self) {
        tokio::join!(self.watch(), self.keep());
    }

    async fn watch(&self) {
        let label = format!("{NODE_LABEL}={}", node_label(&self.context.node));
        let config = other_watch().labels(&label).page_size(PAGE);
        let begin = || {
            let events = watcher(objects_of::<ContainerCheckpoint>(&self.context.client), config.clone());
            events.modify(|object| object.managed_fields_mut().clear())
        };
        follow_anew(begin, |change| {
            if let Change::Failed(error) = &change {
                let what = format!("the node's ContainerCheckpoints cannot be watched: {error}");
                self.context.problem(ProblemType::CheckpointsUnwatched, what);
            }
            // Of one that cannot be read nothing is changed: it may ask for what is not understood.
            let read = |object| -> Option<Object> {
                let read: Result<ContainerCheckpoint, Box<Broken>> = guarded::read(object);
                read.ok().as_ref().map(Object::of)
            };
            let mut cache = self.objects();
            // A watch may be behind what the API answered to a write.
            if let Change::Applied(object) = &change
                && cache.objects.get(&key_of(object)).is_some_and(|known| is_older(object, known.as_ref()))
            {
                return;
            }
            if cache.note(change, now(), read) {
                drop(cache);
                self.changed.send_replace(());
            }
        })
        .await;
    }

    async fn keep(&self) {
        let mut entries = self.archives.subscribe();
        let mut objects = self.changed.subscribe();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progress = Progress::new();
        loop {
            tokio::select! {
                ended = entries.changed() => if ended.is_err() { return },
                ended = objects.changed() => if ended.is_err() { return },
                _ = tick.tick() => {}
            }
            let shown = entries.borrow_and_update().clone();
            objects.borrow_and_update();
            let Some(shown) = shown else { continue };
            if self.objects().is_listed() {
                self.reconcile(&shown, &mut progress, &objects).await;
                self.end_hidden_holds(&shown, &mut progress).await;
            }
        }
    }

    /// The objects that can be read, and the archives without those whose objects cannot.
    fn readable(&self, shown: &Entries) -> (Objects, Entries) {
        let cache = self.objects();
        let mut entries = shown.clone();
        entries.shown.retain(|key, _| !matches!(cache.objects.get(key), Some(None)));
        let read = cache.objects.iter().filter_map(|(key, object)| Some((key.clone(), object.clone()?)));
        (read.collect(), entries)
    }

    /// Looks once at everything, and does what is to be done.
    async fn reconcile(&self, shown: &Entries, progress: &mut Progress, news: &watch::Receiver<()>) {
        let (objects, entries) = self.readable(shown);
        self.archives.ask(difference::asking(&objects));
        let discards = Arc::new(difference::discards(&entries, &objects));
        if self.context.own.now().discards != discards {
            self.context.own.note(|own| own.discards = discards);
            self.context.objects.notify();
        }
        let Some(mut markers) = self.read_markers(&entries, &objects).await else { return };
        let unseen = difference::hidden_to_be_read(&entries, &objects, &markers);
        let Some(hidden) = self.hidden_holds(unseen).await else { return };
        let (changes, mut no_holds) =
            difference::marker_changes(&entries, &objects, &markers, &hidden, Timestamp::now());
        if !changes.is_empty() {
            let Some(outcomes) = self.change_markers(changes).await else { return };
            for (key, outcome) in outcomes {
                match outcome {
                    Ok(marker) => _ = markers.insert(key, marker),
                    Err(why) => _ = no_holds.insert(key, why),
                }
            }
        }
        let writes = difference::api_writes(&entries, &objects, &markers, &no_holds, Timestamp::now());
        for write in writes {
            // What a user asks meanwhile does not wait for all of them: the next look goes on with the rest.
            if !self.write(write, progress).await || news.has_changed().unwrap_or(true) {
                return;
            }
        }
    }

    /// Ends the holds that are over of archives that are not shown.
    async fn end_hidden_holds(&self, entries: &Entries, progress: &mut Progress) {
        let is_soon = |looked: Instant| now().saturating_duration_since(looked) < HIDDEN;
        if entries.hidden_pins.is_empty() || progress.looked_for_ends.is_some_and(is_soon) {
            return;
        }
        progress.looked_for_ends = Some(now());
        let pins: Vec<HiddenPin> = entries.hidden_pins.iter().take(MOST_HIDDEN).cloned().collect();
        let clock = entries.clock;
        let believed = entries.believed(Timestamp::now());
        let (tell, told) = oneshot::channel();
        self.engine.send_task(false, move |store| {
            for HiddenPin { file, .. } in pins {
                if step(&store.marker_of(&file), None, believed, clock) == HoldStep::Remove {
                    let outcome = store.remove_hold(&file).map(|_| Marker::None).map_err(HoldError::Io);
                    log(&file.to_string(), None, &outcome);
                }
            }
            let _ = tell.send(());
        });
        let _ = told.await;
    }

    async fn read_markers(&self, entries: &Entries, objects: &Objects) -> Option<Markers> {
        let concerned = difference::to_be_read(entries, objects);
        if concerned.is_empty() {
            return Some(Markers::new());
        }
        let (tell, told) = oneshot::channel();
        self.engine.send_task(false, move |store| {
            let read = concerned.into_iter().map(|(key, file)| (key, store.marker_of(&file)));
            let _ = tell.send(read.collect());
        });
        told.await.ok()
    }

    /// What users hold of archives that are not shown.
    async fn hidden_holds(&self, pins: Vec<HiddenPin>) -> Option<HeldSums> {
        if pins.is_empty() {
            return Some(HeldSums::new());
        }
        let (tell, told) = oneshot::channel();
        self.engine.send_task(false, move |store| {
            let mut sums = HeldSums::new();
            for HiddenPin { file, bytes, namespace } in pins {
                if let Some(namespace) = namespace
                    && matches!(store.marker_of(&file), Marker::Hold(_))
                {
                    difference::add(&mut sums, namespace, bytes);
                }
            }
            let _ = tell.send(sums);
        });
        told.await.ok()
    }

    async fn change_markers(&self, changes: Vec<MarkerChange>) -> Option<Vec<(Key, Result<Marker, NoHold>)>> {
        let (tell, told) = oneshot::channel();
        self.engine.send_task(true, move |store| {
            let change = |MarkerChange { key, file, file_id, hold }: MarkerChange| {
                let outcome = match &hold {
                    Some(hold) => store.write_hold(&file, file_id, hold).map(|()| Marker::Hold(hold.clone())),
                    None => store.remove_hold(&file).map(|_| store.marker_of(&file)).map_err(HoldError::Io),
                };
                log(&file.to_string(), hold.as_ref(), &outcome);
                let outcome = outcome.map_err(|error| match error {
                    HoldError::Gone => NoHold::Gone,
                    error => NoHold::Failed(error.to_string()),
                });
                (key, outcome)
            };
            let _ = tell.send(changes.into_iter().map(change).collect());
        });
        told.await.ok()
    }
}

fn key_of(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Whether it is the same object at an earlier time than it is known. Versions are told apart by their order, as a status
/// has no generation: the watch may show an object as it was made after the API has answered that its status is written.
/// Where versions began anew, as after a restore of etcd, a list comes before any such change, and replaces all.
fn is_older(object: &impl ResourceExt, known: Option<&Object>) -> bool {
    known.is_some_and(|known| {
        let version = |text: &str| text.parse::<u64>().ok();
        let versions = object.resource_version().as_deref().and_then(version).zip(version(&known.version));
        let is_earlier = match versions {
            Some((version, known)) => version < known,
            // An API server that does not count its versions.
            None => object.meta().generation.is_some_and(|generation| generation < known.generation),
        };
        object.uid().as_deref() == Some(&known.uid) && is_earlier
    })
}

/// Who asked for a hold is to be found in the log also when the marker is gone.
fn log(file: &str, hold: Option<&Hold>, outcome: &Result<Marker, HoldError>) {
    match (hold, outcome) {
        (Some(hold), Ok(_)) => {
            let until = hold.until.map(|until| until.to_string());
            let by = hold.by.as_deref();
            tracing::info!(file, reason = hold.reason, by, until, "an archive is held");
        }
        (None, Ok(_)) => tracing::info!(file, "the hold of an archive has ended"),
        (_, Err(error)) => tracing::warn!(file, %error, "the hold of an archive could not be changed"),
    }
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_api::{ContainerCheckpoint, ContainerCheckpointSpec};

    use super::*;

    #[test]
    fn an_object_without_its_status_is_older_than_with_it_though_its_generation_is_the_same() {
        let object = |uid: &str, version: &str, generation| {
            let mut object = ContainerCheckpoint::new("one", ContainerCheckpointSpec::default());
            object.metadata.uid = Some(uid.to_owned());
            object.metadata.resource_version = Some(version.to_owned());
            object.metadata.generation = Some(generation);
            object
        };
        let known = Object::of(&object("uid", "100", 1));
        assert!(is_older(&object("uid", "99", 1), Some(&known)));
        assert!(!is_older(&object("uid", "100", 1), Some(&known)));
        assert!(!is_older(&object("uid", "1000", 1), Some(&known)));
        // Another object of that name, made anew.
        assert!(!is_older(&object("other", "99", 1), Some(&known)));
        assert!(!is_older(&object("uid", "99", 1), None));
        // Where versions are no numbers, what is known of generations counts.
        assert!(!is_older(&object("uid", "a", 1), Some(&known)));
        assert!(is_older(&object("uid", "a", 1), Some(&Object::of(&object("uid", "b", 2)))));
    }
}

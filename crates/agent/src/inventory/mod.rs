//! The inventory: a `ContainerCheckpoint` for each archive of the node, and what users ask through it.
//!
//! [`entries`] says which archives are shown, [`difference`] what has to change on the disk and in the API, and here it
//! is done: markers by the thread that deletes, so that none is deleted meanwhile, and writes to the API one after the
//! other. What fails is told and tried again; nothing else waits for it.

mod difference;
mod entries;
mod expiry;
mod rate;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use checkpoint_keeper_api::container_checkpoint::{NODE_LABEL, node_label};
use checkpoint_keeper_api::{ContainerCheckpoint, ContainerCheckpointSpec};
use checkpoint_keeper_core::engine::View;
use checkpoint_keeper_core::engine::cluster::{ClusterUpdate, TimedUpdate};
use checkpoint_keeper_core::hold::{Hold, HoldStep, Marker, step};
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::FileId;
use checkpoint_keeper_core::pods::LookupResult;
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::mailbox::Sender;
use checkpoint_keeper_node::markers::HoldError;
use checkpoint_keeper_runtime::cache::Cache;
use checkpoint_keeper_runtime::guarded::{self, Broken};
use checkpoint_keeper_runtime::liveness::{now, other_watch};
use checkpoint_keeper_runtime::watch::{Change, follow, objects_of};
use jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watcher;
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::difference::{ApiWrite, MarkerChange, Markers, NoHold, Object, Objects};
pub(crate) use self::entries::Unlisted;
use self::entries::{Entries, Entry, Key};
use self::expiry::Expiry;
use self::rate::WriteRate;
use super::api::{ApiContext, TICK};
use super::problem_type::ProblemType;
use super::status_publisher::{WRITER, WriteError, within};

/// So many objects are listed at a time.
const PAGE: u32 = 100;

/// How long the objects of a namespace are left alone after a write there failed, at first and at most.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_mins(5);

/// How often the pins of archives that are not shown are looked at.
const HIDDEN: Duration = Duration::from_mins(1);

/// What the engine's side shows of the node's archives.
#[derive(Debug, Clone)]
pub(crate) struct ShownArchives {
    node: String,
    limit: usize,
    entries: watch::Sender<Option<Arc<Entries>>>,
    expiry: Arc<Mutex<Expiry>>,
}

impl ShownArchives {
    /// Of this node, at most so many.
    pub(crate) fn new(node: String, limit: usize) -> Self {
        Self { node, limit, entries: watch::Sender::new(None), expiry: Arc::default() }
    }

    /// Learns from what the engine published. Returns what is not shown.
    pub(crate) fn note(&self, view: &View) -> Unlisted {
        let mut expiry = self.expiry.lock().unwrap_or_else(PoisonError::into_inner);
        if self.limit > 0 {
            expiry.update(view, Timestamp::now(), now());
        }
        let entries = Entries::of(view, &self.node, self.limit, |archive| expiry.of(archive));
        drop(expiry);
        let unlisted = entries.unlisted.clone();
        self.entries.send_if_modified(|before| {
            // That time has passed is no news by itself.
            let is_same = before
                .as_deref()
                .is_some_and(|before| *before == Entries { judged_at: before.judged_at, ..entries.clone() });
            *before = Some(Arc::new(entries));
            !is_same
        });
        unlisted
    }

    /// Shows an archive no more that was deleted: the next plan may be far off.
    pub(crate) fn forget(&self, file: &FileName, file_id: FileId) {
        self.entries.send_if_modified(|entries| {
            let is_it = |entry: &Entry| entry.file == *file && entry.file_id == file_id;
            let Some(known) = entries else { return false };
            let Some(key) = known.shown.iter().find(|(_, entry)| is_it(entry)).map(|(key, _)| key.clone())
            else {
                return false;
            };
            Arc::make_mut(known).shown.remove(&key);
            true
        });
    }
}

/// What keeps the objects of this node's archives as they should be.
pub(super) struct Inventory {
    pub(super) context: ApiContext,
    pub(super) archives: ShownArchives,
    pub(super) engine: Sender,
    objects: Mutex<Cache<Option<Object>>>,
    changed: watch::Sender<()>,
}

/// What is remembered from one look to the next.
struct Progress {
    rate: WriteRate,
    /// Where a write failed, a namespace or one object of it: until when it is left alone, and for how long that was.
    paused: BTreeMap<(String, Option<String>), (Instant, Duration)>,
    /// When the pins that are not shown were last looked at.
    looked_for_ends: Option<Instant>,
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
        let events = watcher(objects_of::<ContainerCheckpoint>(&self.context.client), config);
        follow(events.modify(|object| object.managed_fields_mut().clear()), |change| {
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
        let mut entries = self.archives.entries.subscribe();
        let mut objects = self.changed.subscribe();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut progress =
            Progress { rate: WriteRate::new(now()), paused: BTreeMap::new(), looked_for_ends: None };
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
        let discards = Arc::new(difference::discards(&entries, &objects));
        if self.context.own.now().discards != discards {
            self.context.own.note(|own| own.discards = discards);
            self.context.objects.notify();
        }
        let Some(mut markers) = self.read_markers(&entries, &objects).await else { return };
        let (changes, mut no_holds) =
            difference::marker_changes(&entries, &objects, &markers, Timestamp::now());
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
        let (pins, clock) = (entries.hidden_pins.clone(), entries.clock);
        let believed = entries.believed(Timestamp::now());
        let (tell, told) = oneshot::channel();
        self.engine.send_task(false, move |store| {
            for (file, _) in pins {
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

    /// Writes to the API. Returns whether the next write may follow: an API that does not answer one does not answer
    /// the next either.
    async fn write(&self, write: ApiWrite, progress: &mut Progress) -> bool {
        let (namespace, name) = write.key().clone();
        let (all, one) = ((namespace.clone(), None), (namespace.clone(), Some(name)));
        let is_paused = |key| progress.paused.get(key).is_some_and(|(until, _)| now() < *until);
        if is_paused(&all) || is_paused(&one) {
            return true;
        }
        sleep(progress.rate.next(now())).await;
        let is_new = matches!(write, ApiWrite::Create(..));
        let Err(error) = self.carry_out(write).await else {
            progress.paused.remove(&all);
            progress.paused.remove(&one);
            return true;
        };
        // Where nothing can be made, the namespace is gone, or going: the engine asks, and knows better then. What is
        // refused otherwise is one object's affair.
        let code = match &error {
            WriteError::Api(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        };
        let is_namespaces = is_new || code.is_none_or(|code| code == 429 || code >= 500);
        if is_new && code.is_some_and(|code| [403, 404].contains(&code)) {
            let what = ClusterUpdate::Namespaces(vec![(namespace.clone(), LookupResult::NotFound)]);
            self.engine.send_update(TimedUpdate { at: clock::now(), what });
        }
        let place = if is_namespaces { all } else { one };
        let pause = progress.paused.get(&place).map_or(PAUSE, |(_, pause)| (*pause * 2).min(LONGEST_PAUSE));
        progress.paused.retain(|_, (until, _)| now() < *until + LONGEST_PAUSE);
        progress.paused.insert(place, (now() + pause, pause));
        let what = format!("ContainerCheckpoints of the namespace {namespace} cannot be written: {error}");
        self.context.state.problem(ProblemType::CheckpointsUnwritten, namespace, what, now());
        code.is_some()
    }

    async fn carry_out(&self, write: ApiWrite) -> Result<(), WriteError> {
        let (namespace, name) = write.key().clone();
        // Where nothing can be made, the namespace is gone: that is no success.
        let is_new = matches!(write, ApiWrite::Create(..));
        let api = Api::<ContainerCheckpoint>::namespaced(self.context.client.clone(), &namespace);
        let params = PatchParams { field_manager: Some(WRITER.to_owned()), ..PatchParams::default() };
        let written = match write {
            ApiWrite::Create(_, hold) => {
                let mut object = ContainerCheckpoint::new(&name, spec(hold.as_ref()));
                object.labels_mut().insert(NODE_LABEL.to_owned(), node_label(&self.context.node));
                let params = PostParams { field_manager: Some(WRITER.to_owned()), ..PostParams::default() };
                within(api.create(&params, &object)).await
            }
            ApiWrite::Restore(_, hold) => {
                let patch = Patch::Merge(json!({"spec": spec(Some(&hold))}));
                within(api.patch(&name, &params, &patch)).await
            }
            ApiWrite::Status(_, status) => {
                let mut object = json!({"apiVersion": api_version(), "kind": ContainerCheckpoint::kind(&())});
                object["metadata"] = json!({"name": name});
                object["status"] = serde_json::to_value(&status).map_err(kube::Error::SerdeError)?;
                let params = PatchParams::apply(WRITER).force();
                within(api.patch_status(&name, &params, &Patch::Apply(&object))).await
            }
            ApiWrite::Delete(key, uid) => {
                let preconditions = Preconditions { uid: Some(uid), ..Preconditions::default() };
                let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                return match within(api.delete(&name, &params)).await {
                    Err(WriteError::Api(kube::Error::Api(status))) if status.code == 404 => Ok(()),
                    Ok(_) => {
                        // The watch says so a moment later.
                        self.objects().objects.remove(&key);
                        Ok(())
                    }
                    Err(error) => Err(error),
                };
            }
        };
        match written {
            Ok(object) => {
                self.note(&object);
                Ok(())
            }
            // It was deleted meanwhile: the watch says so.
            Err(WriteError::Api(kube::Error::Api(status))) if status.code == 404 && !is_new => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes over what the API answered, which the watch shows a moment later: until then it would be written again.
    fn note(&self, object: &ContainerCheckpoint) {
        let mut cache = self.objects();
        let key = key_of(object);
        if !cache.objects.get(&key).is_some_and(|known| is_older(object, known.as_ref())) {
            cache.objects.insert(key, Some(Object::of(object)));
        }
    }
}

fn key_of(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Whether it is the same object at an earlier time than it is known.
fn is_older(object: &impl ResourceExt, known: Option<&Object>) -> bool {
    known.is_some_and(|known| {
        object.uid().as_deref() == Some(&known.uid)
            && object.meta().generation.is_some_and(|generation| generation < known.generation)
    })
}

fn api_version() -> String {
    ContainerCheckpoint::api_version(&()).into_owned()
}

/// A spec with this hold and nothing else.
fn spec(hold: Option<&Hold>) -> ContainerCheckpointSpec {
    ContainerCheckpointSpec { hold: hold.map(difference::spec_of), discard: None }
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

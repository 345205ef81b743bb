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
use checkpoint_keeper_core::hold::{Hold, Marker};
use checkpoint_keeper_core::pods::LookupResult;
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::mailbox::Sender;
use checkpoint_keeper_node::markers::HoldError;
use checkpoint_keeper_runtime::cache::Cache;
use checkpoint_keeper_runtime::guarded::{self, Broken};
use checkpoint_keeper_runtime::liveness::now;
use checkpoint_keeper_runtime::watch::{Change, follow, objects_of};
use jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::difference::{ApiWrite, MarkerChange, Markers, NoHold, Object, Objects};
pub(crate) use self::entries::Unlisted;
use self::entries::{Entries, Key};
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
            let is_news = before.as_deref() != Some(&entries);
            if is_news {
                *before = Some(Arc::new(entries));
            }
            is_news
        });
        unlisted
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
    /// Namespaces in which a write failed: until when they are left alone, and for how long that was.
    paused: BTreeMap<String, (Instant, Duration)>,
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
        let config = watcher::Config::default().labels(&label).page_size(PAGE);
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
            if self.objects().note(change, now(), read) {
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
        let mut progress = Progress { rate: WriteRate::new(now()), paused: BTreeMap::new() };
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
                self.reconcile(&shown, &mut progress).await;
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
    async fn reconcile(&self, shown: &Entries, progress: &mut Progress) {
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
            if !self.write(write, progress).await {
                return;
            }
        }
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
        let namespace = write.key().0.clone();
        if progress.paused.get(&namespace).is_some_and(|(until, _)| now() < *until) {
            return true;
        }
        sleep(progress.rate.next(now())).await;
        let is_new = matches!(write, ApiWrite::Create(..));
        let Err(error) = self.carry_out(write).await else {
            progress.paused.remove(&namespace);
            return true;
        };
        let pause =
            progress.paused.get(&namespace).map_or(PAUSE, |(_, pause)| (*pause * 2).min(LONGEST_PAUSE));
        progress.paused.insert(namespace.clone(), (now() + pause, pause));
        // Where nothing can be made, the namespace is gone, or going: the engine asks, and knows better then.
        if is_new
            && matches!(&error, WriteError::Api(kube::Error::Api(status)) if [403, 404].contains(&status.code))
        {
            let what = ClusterUpdate::Namespaces(vec![(namespace.clone(), LookupResult::NotFound)]);
            self.engine.send_update(TimedUpdate { at: clock::now(), what });
        }
        let what = format!("ContainerCheckpoints of the namespace {namespace} cannot be written: {error}");
        self.context.state.problem(ProblemType::CheckpointsUnwritten, namespace, what, now());
        matches!(error, WriteError::Api(kube::Error::Api(_)))
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
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        self.objects().objects.insert(key, Some(Object::of(object)));
    }
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

//! The inventory: a `ContainerCheckpoint` for each archive of the node, and what users ask through it.
//!
//! [`entries`] says which archives are shown, [`difference`] what has to change on the disk and in the API, [`turns`] what
//! of that comes first, and here it is done: markers by the thread that deletes, so that none is deleted meanwhile, and
//! writes to the API one after the other. What fails is told and tried again; nothing else waits for it.

mod difference;
mod entries;
mod expiry;
mod hold_log;
mod rate;
mod shown_archives;
mod turns;
mod writes;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use checkpoint_keeper_api::ContainerCheckpoint;
use checkpoint_keeper_api::container_checkpoint::{NODE_LABEL, node_label};
use checkpoint_keeper_core::hold::{HoldStep, Marker, step};
use checkpoint_keeper_node::mailbox::Sender;
use checkpoint_keeper_node::markers::HoldError;
use checkpoint_keeper_runtime::cache::Cache;
use checkpoint_keeper_runtime::guarded::{self, Broken};
use checkpoint_keeper_runtime::liveness::{now, other_watch};
use checkpoint_keeper_runtime::watch::{Change, follow_anew, objects_of};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::watcher::watcher;
use tokio::sync::{oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::difference::{HeldSums, MarkerChange, Markers, NoHold, Object, Objects};
pub(crate) use self::entries::Unlisted;
use self::entries::{Entries, HiddenPin, Key};
pub(crate) use self::shown_archives::ShownArchives;
use self::writes::Progress;
use super::api_write::is_earlier;
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
        let begin = || watcher(objects_of::<ContainerCheckpoint>(&self.context.client), config.clone());
        follow_anew(begin, |change| {
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
            let is_changed = cache.note(change, now(), read);
            let why = cache.lasting_error(now()).map(str::to_owned);
            drop(cache);
            let what = "the node's ContainerCheckpoints";
            self.context.note_watch(ProblemType::CheckpointsUnwatched, what, why);
            if is_changed {
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
            let wait = progress.holds.take_wait(now());
            tokio::select! {
                ended = entries.changed() => if ended.is_err() { return },
                ended = objects.changed() => if ended.is_err() { return },
                _ = tick.tick() => {}
                () = sleep(wait.unwrap_or_default()), if wait.is_some() => {}
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
        self.archives.note_discards(difference::discard_reasons(&entries, &objects));
        let discards = Arc::new(difference::discards(&entries, &objects));
        if self.context.own.now().discards != discards {
            self.context.own.note(|own| own.discards = discards);
            self.context.objects.notify();
        }
        let Some(mut markers) = self.read_markers(&entries, &objects).await else { return };
        let unseen = difference::hidden_to_be_read(&entries, &objects, &markers);
        let Some(hidden) = self.hidden_holds(unseen).await else { return };
        let (mut changes, mut no_holds) =
            difference::marker_changes(&entries, &objects, &markers, &hidden, Timestamp::now());
        let put_off = progress.holds.put_off(&mut changes, &markers, now());
        if !changes.is_empty() {
            // What is pinned already is not among the deletions that wait.
            let is_new = |change: &MarkerChange| {
                change.hold.is_some() && !matches!(markers.get(&change.key), Some(Marker::Hold(_)))
            };
            let protects = changes.iter().any(is_new);
            let Some(outcomes) = self.change_markers(protects, changes).await else { return };
            for (MarkerChange { key, file, hold, .. }, outcome) in outcomes {
                progress.log.note(&key.0, &file.to_string(), hold.as_ref(), &outcome, now());
                match outcome {
                    Ok(marker) => _ = markers.insert(key, marker),
                    Err(HoldError::Gone) => _ = no_holds.insert(key, NoHold::Gone),
                    Err(error) => _ = no_holds.insert(key, NoHold::Failed(error.to_string())),
                }
            }
        }
        let store = self.context.own.store_uid();
        let mut writes = difference::api_writes(
            &entries,
            &objects,
            &markers,
            &no_holds,
            store.as_deref(),
            Timestamp::now(),
        );
        writes.retain(|write| !put_off.contains(write.key()) && !progress.is_paused(write.key()));
        for write in progress.turns.order(writes) {
            if progress.is_paused(write.key()) {
                continue;
            }
            progress.turns.note(&write);
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
        let pins = turns::next_pins(&entries.hidden_pins, progress.last_hidden.as_ref(), MOST_HIDDEN);
        progress.last_hidden = pins.last().map(|pin| pin.file.clone());
        let clock = entries.clock;
        let believed = entries.believed(Timestamp::now());
        let (tell, told) = oneshot::channel();
        self.engine.send_task(false, move |store| {
            let mut outcomes = Vec::new();
            for pin in pins {
                if step(&store.marker_of(&pin.file), None, believed, clock) == HoldStep::Remove {
                    let outcome = store.remove_hold(&pin.file).map(|_| Marker::None).map_err(HoldError::Io);
                    outcomes.push((pin, outcome));
                }
            }
            let _ = tell.send(outcomes);
        });
        for (HiddenPin { file, namespace, .. }, outcome) in told.await.unwrap_or_default() {
            progress.log.note(&namespace.unwrap_or_default(), &file.to_string(), None, &outcome, now());
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

    /// Changes markers; `protects` as for [`Sender::send_task`].
    async fn change_markers(
        &self,
        protects: bool,
        changes: Vec<MarkerChange>,
    ) -> Option<Vec<(MarkerChange, Result<Marker, HoldError>)>> {
        let (tell, told) = oneshot::channel();
        self.engine.send_task(protects, move |store| {
            let change = |change: MarkerChange| {
                let MarkerChange { file, file_id, hold, .. } = &change;
                let outcome = match hold {
                    Some(hold) => store.write_hold(file, *file_id, hold).map(|()| Marker::Hold(hold.clone())),
                    None => store.remove_hold(file).map(|_| store.marker_of(file)).map_err(HoldError::Io),
                };
                (change, outcome)
            };
            let _ = tell.send(changes.into_iter().map(change).collect());
        });
        told.await.ok()
    }
}

fn key_of(object: &impl ResourceExt) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// Whether it is the same object at an earlier time than it is known: the watch may show an object as it was made after the
/// API has answered that its status is written.
fn is_older(object: &impl ResourceExt, known: Option<&Object>) -> bool {
    known.is_some_and(|known| {
        object.uid().as_deref() == Some(&known.uid) && is_earlier(object, &known.version, known.generation)
    })
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_api::{ContainerCheckpoint, ContainerCheckpointSpec};
    use checkpoint_keeper_node::mailbox;
    use checkpoint_keeper_node::store::Store;
    use checkpoint_keeper_runtime::policy_objects::PolicyObjects;
    use checkpoint_keeper_runtime::quota_objects::QuotaObjects;

    use super::entries::tests::entries_in;
    use super::*;
    use crate::cluster_watch::ClusterWatch;
    use crate::own_objects::OwnObjects;
    use crate::state::AgentState;

    /// An API that does what it is told, and keeps nothing.
    async fn answer(request: axum::extract::Request) -> axum::response::Response {
        let path: Vec<String> = request.uri().path().split('/').map(str::to_owned).collect();
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
        let mut object: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let namespace = path.iter().skip_while(|part| *part != "namespaces").nth(1).unwrap();
        object["metadata"]["namespace"] = namespace.as_str().into();
        object["metadata"]["uid"] = format!("uid {}", object["metadata"]["name"]).into();
        object["metadata"]["generation"] = 1.into();
        object["metadata"]["resourceVersion"] = "1".into();
        if object.get("spec").is_none() {
            object["spec"] = serde_json::json!({});
        }
        axum::response::Response::new(axum::body::Body::from(object.to_string()))
    }

    /// Its user changes an object so often that there is news after each write.
    #[tokio::test(start_paused = true)]
    async fn what_one_namespace_changes_all_the_time_does_not_keep_the_others_from_their_objects() {
        let directory = tempfile::tempdir().unwrap();
        let (engine, mail) = mailbox::channel().unwrap();
        let client = kube::Client::new(axum::Router::new().fallback(answer), "default");
        let context = ApiContext {
            client,
            node: "node-1".to_owned(),
            objects: PolicyObjects::new(&[]),
            quotas: QuotaObjects::new(None),
            state: AgentState::new(),
            own: OwnObjects::default(),
            cluster_watch: ClusterWatch::default(),
        };
        let inventory = Inventory::new(context, ShownArchives::new("node-1".to_owned(), 100), engine);
        let entries = entries_in(&["aaa", "bbb", "zzz"]);
        let restless = entries.shown.keys().next().unwrap().clone();
        assert_eq!(restless.0, "aaa");
        let work = async {
            let store = Store::open(directory.path()).unwrap();
            loop {
                mail.take().tasks.into_iter().for_each(|task| (task.run)(&store));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let passes = async {
            let mut progress = Progress::new();
            for number in 0..20 {
                let news = inventory.changed.subscribe();
                if let Some(Some(object)) = inventory.objects().objects.get_mut(&restless) {
                    object.status = None;
                }
                inventory.changed.send_replace(());
                inventory.reconcile(&entries, &mut progress, &news).await;
                let cache = inventory.objects();
                let written = |key: &Key| {
                    cache.objects.get(key).is_some_and(|object| object.as_ref().unwrap().status.is_some())
                };
                if entries.shown.keys().filter(|key| **key != restless).all(written) {
                    return number;
                }
            }
            panic!("these had no turn but {:?}", inventory.objects().objects.keys());
        };
        let passes = tokio::select! { passes = passes => passes, never = work => never };
        assert!(passes <= 8, "{passes}");
    }

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

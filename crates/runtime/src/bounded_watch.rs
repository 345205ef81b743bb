//! Watching objects that tenants write: each is read as it arrives, and of a namespace that has too much of them the rest is
//! not read.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::TryStreamExt;
use kube::api::DynamicObject;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::bounds::{Bounds, Key, size, too_much};
use super::cache::key;
use super::guarded::{self, Broken};
use super::watch::{Change, follow_anew, objects_of};

/// How long it takes at least until all are listed once more, after a namespace has room for what was left out of it.
const LISTED_AGAIN_AFTER: Duration = Duration::from_mins(1);

/// An object as its kind, or what is left of it.
pub(super) type Read<K> = Result<K, Box<Broken>>;

/// Watches all objects of a kind for as long as it is polled. It tells of each with its key; of one that is gone the rest
/// means nothing.
pub(super) async fn watch_bounded<K>(
    client: &Client,
    config: Config,
    mut tell: impl FnMut(Change<(Key, Read<K>)>) + Send,
) where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + 'static,
{
    loop {
        let (bounds, room) = (Arc::new(Mutex::new(Bounds::default())), Notify::new());
        let begin = || {
            watcher(objects_of::<K>(client), config.clone()).map_ok(|event| {
                let mut bounds = bounds.lock().unwrap_or_else(PoisonError::into_inner);
                let event = read_event(event, &mut bounds);
                if bounds.have_room_again() {
                    room.notify_one();
                }
                event
            })
        };
        tokio::select! {
            () = follow_anew(begin, &mut tell) => return,
            () = async {
                room.notified().await;
                sleep(LISTED_AGAIN_AFTER).await;
            } => {}
        }
    }
}

fn read_event<K: DeserializeOwned + Resource<DynamicType = ()>>(
    event: Event<DynamicObject>,
    bounds: &mut Bounds,
) -> Event<(Key, Read<K>)> {
    match event {
        Event::Init => {
            *bounds = Bounds::default();
            Event::Init
        }
        Event::InitApply(object) => Event::InitApply(read(object, bounds)),
        Event::InitDone => Event::InitDone,
        Event::Apply(object) => Event::Apply(read(object, bounds)),
        Event::Delete(object) => {
            let key = key(&object);
            bounds.remove(&key);
            Event::Delete((key, Err(Box::default())))
        }
    }
}

fn read<K: DeserializeOwned + Resource<DynamicType = ()>>(
    mut object: DynamicObject,
    bounds: &mut Bounds,
) -> (Key, Read<K>) {
    let key = key(&object);
    guarded::strip(&mut object.metadata);
    let annotations = object.metadata.annotations.iter().flatten();
    let annotations: usize = annotations.map(|(key, value)| key.len() + value.len()).sum();
    if bounds.admit(&key, size(&object.data) + annotations) {
        return (key, guarded::read(object));
    }
    let error = too_much(&K::kind(&()));
    // What is written already has to be known, and is small.
    let status = object.data.get("status").filter(|status| size(status) <= MOST_STATUS).cloned();
    object.metadata.annotations = None;
    (key, Err(Box::new(Broken { metadata: object.metadata, status, error, ..Broken::default() })))
}

/// How large the status may be that is kept of an object that is not read, in bytes.
const MOST_STATUS: usize = 4 << 10;

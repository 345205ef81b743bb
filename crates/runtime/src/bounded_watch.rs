//! Watching objects that tenants write: each is read as it arrives, and of a namespace that has too much of them the rest is
//! not read.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use checkpoint_keeper_api::api_object::ApiObject;
use futures_util::TryStreamExt;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::time::sleep;

use super::bounds::{Bounds, Key, size, too_much};
use super::cache::key;
use super::guarded::{self, Broken};
use super::liveness::varied;
use super::watch::{Change, follow_anew, objects_of};

/// How long it takes at least until all are listed once more, after a namespace has room for what was left out of it.
const LISTED_AGAIN_AFTER: Duration = Duration::from_mins(1);

/// How long it takes at most until all are listed anew, however well the watch seems. An API server whose data were
/// restored from a backup takes up a watch from a version that it has not reached yet, and shows nothing on it until it has:
/// kubernetes/kubernetes#107457.
const LISTED_ANEW_AFTER_SECONDS: u32 = 3_600;

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
            () = sleep(Duration::from_secs(varied(LISTED_ANEW_AFTER_SECONDS).into())) => {}
        }
    }
}

fn read_event<K: DeserializeOwned + Resource<DynamicType = ()>>(
    event: Event<ApiObject>,
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
    mut object: ApiObject,
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::extract::Request;
    use checkpoint_keeper_api::ClusterCheckpointPolicy;
    use serde_json::json;
    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_a_watch_from_a_later_version_than_there_is_does_not_show_is_listed_within_an_hour() {
        let lists = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&lists);
        let answer = move |request: Request| {
            let lists = Arc::clone(&count);
            async move {
                if request.uri().query().unwrap_or_default().contains("watch=") {
                    // From the version of before the restore: it is open, and nothing ever comes.
                    return std::future::pending().await;
                }
                // The second time, it has been restored.
                let (name, version) = match lists.fetch_add(1, Ordering::Relaxed) {
                    0 => ("newer", "1200"),
                    _ => ("restored", "1000"),
                };
                let item = json!({"metadata": {"name": name, "resourceVersion": version}, "spec": {}});
                let list = json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": [item]});
                axum::response::Response::new(axum::body::Body::from(list.to_string()))
            }
        };
        let client = Client::new(axum::Router::new().fallback(answer), "default");
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let begin = Instant::now();
        let watching = watch_bounded::<ClusterCheckpointPolicy>(&client, Config::default(), move |change| {
            if let Change::Listed(objects) = change {
                let names = objects.into_iter().map(|((_, name), _)| name);
                let _ = tell.send(names.collect::<Vec<_>>());
            }
        });
        let checks = async {
            assert_eq!(told.recv().await.unwrap(), ["newer"]);
            assert_eq!(told.recv().await.unwrap(), ["restored"]);
            begin.elapsed()
        };
        tokio::select! {
            () = watching => panic!("it ends never"),
            passed = timeout(Duration::from_hours(2), checks) => {
                let passed = passed.unwrap();
                assert!(passed <= Duration::from_mins(61) && passed >= Duration::from_mins(39), "{passed:?}");
            }
        }
    }
}

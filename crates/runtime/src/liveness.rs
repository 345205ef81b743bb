//! Whether watches are alive: by what the API says on their connections.
//!
//! A watch that nothing happens on and one that hangs look the same from kube's stream of events: bookmarks and
//! the watch's own reopening are not among them. So the client of a watch is wrapped, and each opened watch and
//! each piece of its body is noted.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use futures_util::StreamExt;
use http::{Request, Response};
use kube::Client;
use kube::runtime::watcher;
use tower::service_fn;

/// How long a watch of policies stays open at most. It is then opened anew, and if nothing comes then, it hangs. Each of
/// the four kinds costs an API server one request in about this time and for each node.
const WATCH_SECONDS: u32 = 120;

/// How long any other watch stays open at most, which is kube's own figure: less than the client waits for something
/// to come.
const OTHER_WATCH_SECONDS: u32 = 290;

/// How long nothing is heard on a watch until it counts as hanging: longer than it takes one to be opened anew,
/// which kube does five seconds after its end at the latest.
pub const SILENCE: Duration = Duration::from_secs(150);

/// How long a watch that failed must be open again until it counts: one whose version is too old is opened and
/// then told so.
pub const RESUMED: Duration = Duration::from_secs(2);

/// How a kind is watched whose watch must be known to be alive: policies.
pub fn policy_watch() -> watcher::Config {
    watcher::Config::default().timeout(varied(WATCH_SECONDS))
}

/// How any other kind is watched.
pub fn other_watch() -> watcher::Config {
    watcher::Config::default().timeout(varied(OTHER_WATCH_SECONDS))
}

/// A random length of two thirds of the longest at least. Where all agents' watches begin at once, as after an API
/// server has restarted, they would else be opened anew at once for ever after.
pub(super) fn varied(longest: u32) -> u32 {
    let part = longest / 3;
    // Each `RandomState` has random keys.
    longest - u32::try_from(RandomState::new().hash_one(()) % u64::from(part + 1)).unwrap_or_default()
}

/// What was heard on a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The API opened it.
    Opened,
    /// Something came: an event or a bookmark.
    Something,
}

/// The clock of all that is told of watches; tests can pause it.
pub fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A client that notes what is heard on the watches that it opens.
pub fn listened(client: &Client, heard: impl Fn(Heard) + Send + Sync + 'static) -> Client {
    let (client, heard) = (client.clone(), Arc::new(heard));
    let namespace = client.default_namespace().to_owned();
    let service = service_fn(move |request: Request<kube::client::Body>| {
        let (client, heard) = (client.clone(), Arc::clone(&heard));
        let is_watch =
            request.uri().query().is_some_and(|query| query.split('&').any(|part| part == "watch=true"));
        async move {
            let (parts, body) = client.send(request).await?.into_parts();
            if !is_watch || !parts.status.is_success() {
                return Ok::<_, kube::Error>(Response::from_parts(parts, Body::new(body)));
            }
            heard(Heard::Opened);
            let pieces = Body::new(body).into_data_stream();
            let pieces = pieces.inspect(move |piece| {
                if piece.is_ok() {
                    heard(Heard::Something);
                }
            });
            Ok(Response::from_parts(parts, Body::from_stream(pieces)))
        }
    });
    Client::new(service, namespace)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn watches_that_begin_together_do_not_end_together() {
        for (watch, longest) in
            [(policy_watch as fn() -> _, WATCH_SECONDS), (other_watch, OTHER_WATCH_SECONDS)]
        {
            let lengths: BTreeSet<u32> = (0..1_000).filter_map(|_| watch().timeout).collect();
            assert!(lengths.len() > 30, "{lengths:?}");
            assert!(lengths.iter().all(|length| (longest / 3 * 2..=longest).contains(length)), "{lengths:?}");
        }
        assert!(Duration::from_secs(u64::from(WATCH_SECONDS) + 5) < SILENCE);
    }
}

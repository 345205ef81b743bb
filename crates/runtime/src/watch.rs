//! One watch: what it shows, and whether it is alive.
//!
//! kube's watcher does the listing, resuming and backing off. Its reflector is not used: that store keeps objects
//! whole (here next to nothing of each is kept, as tenants decide how large they are), says neither since when a
//! watch has been failing nor when it was last confirmed, and holds only objects that are what their kind says,
//! while one that is not must stay known with what is wrong with it.

use std::pin::pin;
use std::time::{Duration, Instant};

use checkpoint_keeper_api::api_object::{ApiObject, Metadata};
use futures_util::{Stream, StreamExt};
use kube::api::ApiResource;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use tokio::time::sleep;

use super::error_text::of_watch;
use super::liveness::{Heard, RESUMED, SILENCE};
use super::problem_log::Problem;

/// How long a watch may fail until what it showed is old news.
const STALE: Duration = Duration::from_mins(5);

/// How soon one error follows the other where a watch fails: a reply that does not come is waited for, and
/// then comes a pause.
const REPEATED: Duration = Duration::from_mins(3);

/// For how long errors must have followed each other until they are more than a moment's: a connection that was reset, or
/// a kind that was just defined and is not served yet.
const LASTING: Duration = Duration::from_secs(15);

/// The longest pause between two tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What a watch shows.
#[derive(Debug)]
pub enum Change<T> {
    /// These are all there are.
    Listed(Vec<T>),
    /// This one is new, or changed.
    Applied(T),
    /// This one is gone.
    Deleted(T),
    /// Nothing, at the moment.
    Failed(String),
}

impl<T> Change<T> {
    /// The same of something else.
    pub fn map<U>(self, map: impl Fn(T) -> U) -> Change<U> {
        match self {
            Self::Listed(objects) => Change::Listed(objects.into_iter().map(map).collect()),
            Self::Applied(object) => Change::Applied(map(object)),
            Self::Deleted(object) => Change::Deleted(map(object)),
            Self::Failed(error) => Change::Failed(error),
        }
    }
}

/// All objects of a kind, as far as their metadata go.
pub fn metadata_of<K: Resource<DynamicType = ()>>(client: &Client) -> Api<Metadata> {
    Api::all_with(client.clone(), &ApiResource::erase::<K>(&()))
}

/// All objects of a kind, as whatever they are. What cannot be read as its kind keeps no other from being seen, and
/// one type for all kinds makes one watch in the program.
pub fn objects_of<K: Resource<DynamicType = ()>>(client: &Client) -> Api<ApiObject> {
    Api::all_with(client.clone(), &ApiResource::erase::<K>(&()))
}

/// Follows a watch for as long as it is polled. It backs off by itself.
pub async fn follow<T: Send>(
    events: impl Stream<Item = watcher::Result<watcher::Event<T>>> + Send,
    mut tell: impl FnMut(Change<T>),
) {
    let mut events = pin!(events.default_backoff());
    let mut listing = Vec::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => listing.clear(),
            Ok(watcher::Event::InitApply(object)) => listing.push(object),
            Ok(watcher::Event::InitDone) => tell(Change::Listed(std::mem::take(&mut listing))),
            Ok(watcher::Event::Apply(object)) => tell(Change::Applied(object)),
            Ok(watcher::Event::Delete(object)) => tell(Change::Deleted(object)),
            Err(error) => tell(Change::Failed(of_watch(&error))),
        }
    }
}

/// The same for what deletions may follow from: after an interruption everything is listed anew, where a watch would
/// otherwise be resumed at the version that was seen last. Meanwhile the cluster's store may have been restored from a
/// copy, and its versions begun anew where the copy was made. A watch that is resumed at a later one is opened without an
/// error, and says nothing until the versions have come to it: what was seen would count as current, and would not be.
pub async fn follow_anew<T: Send, E>(begin: impl Fn() -> E + Send, mut tell: impl FnMut(Change<T>) + Send)
where
    E: Stream<Item = watcher::Result<watcher::Event<T>>> + Send,
{
    let mut backoff = watcher::DefaultBackoff::default();
    loop {
        let mut events = pin!(begin());
        let mut listing = Vec::new();
        loop {
            match events.next().await {
                None => return,
                Some(Ok(watcher::Event::Init)) => listing.clear(),
                Some(Ok(watcher::Event::InitApply(object))) => listing.push(object),
                // A list alone is no reason to try sooner: the watch after it may fail each time.
                Some(Ok(watcher::Event::InitDone)) => tell(Change::Listed(std::mem::take(&mut listing))),
                Some(Ok(watcher::Event::Apply(object))) => {
                    backoff.reset();
                    tell(Change::Applied(object));
                }
                Some(Ok(watcher::Event::Delete(object))) => {
                    backoff.reset();
                    tell(Change::Deleted(object));
                }
                Some(Err(error)) => {
                    tell(Change::Failed(of_watch(&error)));
                    sleep(backoff.next().unwrap_or(LONGEST_PAUSE)).await;
                    if is_interruption(&error) {
                        break;
                    }
                }
            }
        }
    }
}

/// Whether the API may have been away: it is not where a server that works refuses a request.
fn is_interruption(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => {
            // One that has just begun asks for patience.
            !(400..500).contains(&status.code) || status.code == 429
        }
        watcher::Error::WatchStartFailed(_) | watcher::Error::WatchFailed(_) => true,
        // What is listed anew in any case, or was told on a watch that goes on.
        _ => false,
    }
}

/// Whether a watch is up, as far as its changes tell. One that is taken up again after an error says so by
/// nothing but that no other error follows.
#[derive(Debug, Default)]
pub struct WatchHealth {
    /// Whether all was seen once.
    is_listed: bool,
    failing: Option<Failing>,
    /// Whether the connection itself is observed: see [`WatchHealth::note_heard`].
    is_listened: bool,
    /// When the API last opened the watch, and when anything last came of it.
    opened: Option<Instant>,
    heard: Option<Instant>,
    /// When what it showed was last known to be how things are.
    confirmed: Option<Instant>,
}

#[derive(Debug)]
struct Failing {
    since: Instant,
    last: Instant,
    why: String,
}

impl WatchHealth {
    /// Notes a change that the watch showed at that time.
    pub fn note<T>(&mut self, change: &Change<T>, now: Instant) {
        match change {
            Change::Failed(why) => {
                let since = self.failing(now).map_or(now, |failing| failing.since);
                self.failing = Some(Failing { since, last: now, why: why.clone() });
            }
            Change::Listed(_) => {
                (self.is_listed, self.failing) = (true, None);
                self.heard = Some(now);
            }
            Change::Applied(_) | Change::Deleted(_) => self.failing = None,
        }
    }

    /// From here on what is heard on the connection is noted.
    pub(super) fn listen(&mut self) {
        self.is_listened = true;
    }

    /// Notes what was heard on the connection.
    pub(super) fn note_heard(&mut self, heard: Heard, now: Instant) {
        self.heard = Some(now);
        if heard == Heard::Opened {
            self.opened = Some(now);
        }
    }

    /// The errors of now, if there are any. One that nothing is known of but that no other followed is over after
    /// a while; where the connection is listened to, when the watch was opened again.
    fn failing(&self, now: Instant) -> Option<&Failing> {
        self.failing.as_ref().filter(|failing| {
            if self.is_listened {
                let opened = self.opened.filter(|opened| *opened > failing.last);
                opened.is_none_or(|opened| now.saturating_duration_since(opened) < RESUMED)
            } else {
                now.saturating_duration_since(failing.last) < REPEATED
            }
        })
    }

    /// What is wrong with the watch of a kind at this moment, for the log. One that has not listed yet and meets no
    /// error is only slow.
    pub fn problem(&self, kind: &str, now: Instant) -> Option<Problem> {
        let why = match self.failing(now) {
            Some(failing) => Some(failing.why.clone()),
            None => self.hangs(now).then(|| "nothing is heard of the watch".to_owned()),
        }?;
        let message = format!("{kind} cannot be watched: {why}");
        Some(Problem { kind: "WatchFailing", subject: kind.to_owned(), message })
    }

    /// Why the watch fails, where errors have followed each other for a while. One that shows anything else, or that failed
    /// once, is none.
    pub fn lasting_error(&self, now: Instant) -> Option<&str> {
        let failing = self.failing(now)?;
        let lasted = failing.last.saturating_duration_since(failing.since);
        (lasted >= LASTING).then_some(failing.why.as_str())
    }

    /// How long ago anything last arrived from the API; none where the connection is not observed.
    pub(super) fn age(&self, now: Instant) -> Option<Duration> {
        let heard = self.heard.filter(|_| self.is_listened)?;
        Some(now.saturating_duration_since(heard))
    }

    /// Whether nothing is heard on a watch that must say something by now.
    fn hangs(&self, now: Instant) -> bool {
        self.is_listened && self.heard.is_some_and(|heard| now.saturating_duration_since(heard) >= SILENCE)
    }

    /// Why the objects that the watch showed may be out of date, and since when; none: they are current.
    pub fn unconfirmed(&mut self, kind: &'static str, now: Instant) -> Option<Unconfirmed> {
        let why = match self.failing(now) {
            Some(failing) => Some(failing.why.clone()),
            None if !self.is_listed => Some("not listed yet".to_owned()),
            None => self.hangs(now).then(|| "nothing is heard of the watch".to_owned()),
        };
        let Some(why) = why else {
            self.confirmed = Some(now);
            return None;
        };
        Some(Unconfirmed { kind, why, since: self.confirmed.unwrap_or(now) })
    }

    /// Whether all was seen once.
    pub fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// Whether what it showed is how things are.
    pub(super) fn is_up(&self, now: Instant) -> bool {
        self.is_listed && self.failing(now).is_none()
    }

    /// What is wrong with the watch, if that is so for so long that it counts.
    pub fn error(&self, kind: &str, now: Instant) -> Option<String> {
        match self.failing(now) {
            Some(Failing { since, why, .. }) if !self.is_listed || now.duration_since(*since) >= STALE => {
                Some(format!("{kind} cannot be watched: {why}"))
            }
            None if !self.is_listed => Some(format!("{kind} were not listed yet")),
            None if self.hangs(now) => Some(format!("nothing is heard of the watch of {kind}")),
            _ => None,
        }
    }
}

/// A kind whose objects may be out of date, as its watch does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unconfirmed {
    /// The kind's plural name.
    pub kind: &'static str,
    /// What is wrong with the watch.
    pub why: String,
    /// When the objects were last known to be current.
    pub since: Instant,
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use futures_util::stream;
    use kube::core::Status;
    use kube::runtime::watcher::{Error, Event};

    use super::*;

    fn refused(code: u16) -> watcher::Result<Event<&'static str>> {
        let status = Status { code, ..Status::default() };
        Err(Error::WatchStartFailed(kube::Error::Api(status.boxed())))
    }

    /// What is told where the watches, begun one after the other, show these events.
    async fn told(watches: Vec<Vec<watcher::Result<Event<&'static str>>>>) -> Vec<String> {
        let watches = Mutex::new(VecDeque::from(watches));
        let begin = || stream::iter(watches.lock().unwrap().pop_front().unwrap_or_default());
        let mut told = Vec::new();
        follow_anew(begin, |change| {
            told.push(match change {
                Change::Listed(objects) => format!("all: {}", objects.join(" ")),
                Change::Applied(object) => object.to_owned(),
                Change::Deleted(object) => format!("no {object}"),
                Change::Failed(_) => "failed".to_owned(),
            });
        })
        .await;
        told
    }

    #[tokio::test(start_paused = true)]
    async fn after_an_interruption_all_is_listed_anew_as_the_versions_may_be_others() {
        let first = || vec![Ok(Event::Init), Ok(Event::InitApply("old")), Ok(Event::InitDone)];
        let second = || vec![Ok(Event::Init), Ok(Event::InitApply("new")), Ok(Event::InitDone)];
        for code in [429, 500, 503] {
            let first = first().into_iter().chain([refused(code), Ok(Event::Apply("lost"))]).collect();
            assert_eq!(told(vec![first, second()]).await, ["all: old", "failed", "all: new"], "{code}");
        }
        // A server that works and refuses has not been away: nothing is listed again and again.
        for code in [403, 404] {
            let first = first().into_iter().chain([refused(code), Ok(Event::Delete("old"))]).collect();
            assert_eq!(told(vec![first, second()]).await, ["all: old", "failed", "no old"], "{code}");
        }
    }

    #[test]
    fn a_watch_is_in_trouble_while_its_errors_repeat() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let failed = Change::<()>::Failed("refused".to_owned());
        let error = |health: &WatchHealth, second| health.error("nodes", at(second));
        let mut health = WatchHealth::default();
        assert_eq!(error(&health, 0).as_deref(), Some("nodes were not listed yet"));
        health.note(&failed, at(0));
        assert_eq!(error(&health, 0).as_deref(), Some("nodes cannot be watched: refused"));
        health.note(&Change::<()>::Listed(vec![]), at(0));
        assert_eq!(error(&health, 0), None);
        // A connection was reset, and the watch goes on where nothing happens.
        health.note(&failed, at(10));
        for second in 10..3_600 {
            assert_eq!(error(&health, second), None, "{second}");
        }
        // The API is away. A reply that never comes is an error every minute and a half at the latest.
        for round in 0..4 {
            assert_eq!(error(&health, 4_000 + 90 * round), None);
            health.note(&failed, at(4_000 + 90 * round));
        }
        assert_eq!(error(&health, 4_300).as_deref(), Some("nodes cannot be watched: refused"));
        health.note(&Change::Applied(()), at(4_301));
        assert_eq!(error(&health, 4_301), None);
    }

    #[test]
    fn what_fails_for_a_moment_only_is_no_lasting_error_and_none_outlasts_a_list_or_an_event() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let failed = || Change::<()>::Failed("refused".to_owned());
        for shown in [Change::Listed(vec![]), Change::Applied(()), Change::Deleted(())] {
            let mut health = WatchHealth::default();
            for second in [0, 1, 3, 6, 13] {
                health.note(&failed(), at(second));
                assert_eq!(health.lasting_error(at(second)), None, "{second}");
            }
            assert_eq!(health.lasting_error(at(20)), None, "no error followed");
            health.note(&failed(), at(25));
            assert_eq!(health.lasting_error(at(26)), Some("refused"));
            health.note(&shown, at(27));
            assert_eq!(health.lasting_error(at(27)), None, "{shown:?}");
            // The next one begins anew.
            health.note(&failed(), at(40));
            assert_eq!(health.lasting_error(at(40)), None);
        }
    }

    #[test]
    fn a_watch_that_is_listened_to_is_well_again_when_it_was_opened_again() {
        let begin = Instant::now();
        let at = |second| begin + Duration::from_secs(second);
        let failed = || Change::<()>::Failed("refused".to_owned());
        let mut health = WatchHealth::default();
        health.listen();
        health.note(&Change::<()>::Listed(vec![]), at(0));
        health.note_heard(Heard::Opened, at(0));
        assert_eq!(health.unconfirmed("policies", at(100)), None);
        health.note(&failed(), at(120));
        let unconfirmed = |health: &mut WatchHealth, second| health.unconfirmed("policies", at(second));
        let refused = Some(Unconfirmed { kind: "policies", why: "refused".to_owned(), since: at(100) });
        assert_eq!(unconfirmed(&mut health, 120), refused);
        assert_eq!(unconfirmed(&mut health, 3_000), refused, "silence is no sign of life");
        // Opened, and told at once that its version is too old.
        health.note_heard(Heard::Opened, at(3_010));
        assert_eq!(unconfirmed(&mut health, 3_011), refused);
        health.note(&failed(), at(3_011));
        assert_eq!(unconfirmed(&mut health, 3_015), refused);
        health.note_heard(Heard::Opened, at(3_020));
        assert_eq!(unconfirmed(&mut health, 3_022), None);
        // It says nothing more, not even that it was opened again.
        assert_eq!(unconfirmed(&mut health, 3_169), None);
        assert_eq!(unconfirmed(&mut health, 3_170).map(|unconfirmed| unconfirmed.since), Some(at(3_169)));
        health.note_heard(Heard::Something, at(3_200));
        assert_eq!(unconfirmed(&mut health, 3_201), None);
    }
}

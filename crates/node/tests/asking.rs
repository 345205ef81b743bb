//! What is asked of a cluster, remembered of its answers, and never waited for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use checkpoint_keeper_core::engine::clock::Now;
use checkpoint_keeper_core::engine::cluster::Resolved;
use checkpoint_keeper_core::engine::config::EngineConfig;
use checkpoint_keeper_core::engine::memory::Changes;
use checkpoint_keeper_core::engine::{ClusterSettings, NodePods, Settings};
use checkpoint_keeper_core::plan::{Clock, Reason};
use checkpoint_keeper_core::pods::{LivePod, Lookup, LookupResult, Owner, PodKey, PodRecord, RequestBudget};
use checkpoint_keeper_core::policy::{OrphanRule, OrphanWhen, PolicySet, Retention};
use checkpoint_keeper_node::catalog::Catalog;
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::driver::{CatalogUse, Driver, Event, UNHURRIED};
use checkpoint_keeper_node::mailbox;
use checkpoint_keeper_node::store::Store;
use redb::{Database, TableDefinition};
use support::{Hand, SETTLE, archive, by_hand, files, per_container, policy, wait_until, write_old};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_hours(1);

struct Place {
    parent: TempDir,
}

impl Place {
    fn new() -> Self {
        let parent = TempDir::new().unwrap();
        fs::create_dir(parent.path().join("checkpoints")).unwrap();
        let place = Self { parent };
        write_old(&place.directory(), &archive("server", 1));
        place
    }

    fn directory(&self) -> std::path::PathBuf {
        self.parent.path().join("checkpoints")
    }

    fn state(&self) -> std::path::PathBuf {
        self.parent.path().join("catalog")
    }

    /// One that remembers, and asks a cluster.
    fn hand(&self, now: Now) -> Hand {
        self.hand_with(Settings { cluster: Some(cluster()), ..by_hand() }, now)
    }

    /// One that asks about everything that comes, and what time it is.
    fn eager(&self, now: Now) -> Hand {
        let cluster = Some(ClusterSettings { eager: true, ..cluster() });
        self.hand_with(Settings { cluster, needs_server_clock: true, ..by_hand() }, now)
    }

    fn hand_with(&self, settings: Settings, now: Now) -> Hand {
        let hand = Hand::new(&self.directory(), settings, CatalogUse::File(self.state()), now);
        assert_eq!(hand.problems, [""; 0]);
        hand
    }

    fn remembered(&self) -> BTreeMap<PodKey, PodRecord> {
        Catalog::peek(&self.state()).pods
    }
}

fn cluster() -> ClusterSettings {
    ClusterSettings { budget: RequestBudget::EVERYTHING, node_pods: NodePods::Unknown, eager: false }
}

fn orphans(grace: Duration) -> PolicySet {
    let mut policies = policy(Retention::default());
    policies.retention[0].orphans = Some(OrphanRule { when: OrphanWhen::PodDeleted, grace });
    policies
}

fn later(now: Now, by: Duration) -> Now {
    Now { wall: now.wall.checked_add(by).unwrap(), uptime: now.uptime + by }
}

/// The namespace is there for long, and what else is asked for is what `pod` says.
fn answer(lookup: &Lookup, pod: &LookupResult) -> LookupResult {
    match lookup {
        Lookup::Cluster => LookupResult::Cluster("one".to_owned()),
        Lookup::Namespace(_) => LookupResult::Namespace {
            labels: BTreeMap::new(),
            created: "2025-01-01T00:00:00Z".parse().unwrap(),
        },
        _ => pod.clone(),
    }
}

fn bare_pod() -> LookupResult {
    LookupResult::Pod(LivePod {
        namespace: "team".to_owned(),
        name: "web-0".to_owned(),
        uid: None,
        labels: Some(BTreeMap::from([("app".to_owned(), "web".to_owned())])),
        controller: None,
    })
}

/// Looks, asks all there is to ask of a cluster that says that of each pod, says how many failed, and has it all
/// remembered.
fn ask(hand: &mut Hand, policies: &PolicySet, now: Now, pod: &LookupResult) -> usize {
    let pod = pod.clone();
    ask_by(hand, policies, now, now.wall, move |lookup| answer(lookup, &pod)).len()
}

/// The same of any cluster, whose clock shows that time; says what is wrong.
fn ask_by(
    hand: &mut Hand,
    policies: &PolicySet,
    now: Now,
    server_time: jiff::Timestamp,
    answer: impl Fn(&Lookup) -> LookupResult + Send + 'static,
) -> Vec<String> {
    hand.driver.ask_by(Box::new(move |lookups| {
        let answers = lookups.into_iter().map(|lookup| {
            let result = answer(&lookup);
            Resolved { lookup, result, at: now, server_time: Some(server_time) }
        });
        answers.collect()
    }));
    hand.go_by(policies, now);
    let problems = hand.look(now);
    assert_eq!(hand.flush(), [""; 0]);
    problems
}

fn reasons(hand: &mut Hand, policies: &PolicySet, now: Now) -> Vec<Reason> {
    hand.plan(policies, now).plan.verdicts.iter().map(|verdict| verdict.reason).collect()
}

#[test]
fn what_is_known_of_pods_survives_a_restart() {
    let place = Place::new();
    let (policies, now) = (orphans(HOUR), clock::now());
    let mut first = place.hand(now);
    ask(&mut first, &policies, now, &bare_pod());
    ask(&mut first, &policies, now, &LookupResult::NotFound);
    assert_eq!(reasons(&mut first, &policies, now), [Reason::OrphanGracePeriod]);
    drop(first);
    let remembered = place.remembered();
    let record = remembered.values().next().unwrap();
    assert_eq!((remembered.len(), &record.owner, record.pod_gone), (1, &Owner::Bare, Some(now.wall)));
    let now = later(now, HOUR);
    let mut second = place.hand(now);
    // Nobody answers yet.
    second.look(now);
    let labels = second.snapshot(now).snapshot.archives[0].pod_labels.clone();
    assert_eq!(labels.unwrap()["app"], "web");
    assert_eq!(reasons(&mut second, &policies, now), [Reason::OrphanGracePeriod], "not confirmed yet");
    drop(second);
    let mut second = place.hand(now);
    ask(&mut second, &policies, now, &LookupResult::NotFound);
    assert_eq!(reasons(&mut second, &policies, now), [Reason::Orphaned]);
    drop(second);
    // With the file gone, the grace period begins anew.
    fs::remove_file(place.state()).unwrap();
    let mut third = place.hand(now);
    ask(&mut third, &policies, now, &LookupResult::NotFound);
    assert_eq!(reasons(&mut third, &policies, now), [Reason::OrphanGracePeriod]);
}

/// Another kubeconfig, or a cluster that was built anew.
#[test]
fn what_another_cluster_said_to_be_gone_is_forgotten_and_that_is_remembered() {
    let place = Place::new();
    let (policies, now) = (orphans(HOUR), clock::now());
    let ask_cluster = |cluster: LookupResult, now: Now| {
        let mut hand = place.hand(now);
        let problems = ask_by(&mut hand, &policies, now, now.wall, move |lookup| match lookup {
            Lookup::Cluster => cluster.clone(),
            other => answer(other, &LookupResult::NotFound),
        });
        (reasons(&mut hand, &policies, now)[0], problems.join(", "))
    };
    let waits = (Reason::OrphanGracePeriod, String::new());
    let uid = |uid: &str| LookupResult::Cluster(uid.to_owned());
    // One that has no UID is one, too, as long as none was asked that has one.
    assert_eq!(ask_cluster(LookupResult::NotFound, now), waits);
    assert_eq!(ask_cluster(uid("one"), later(now, HOUR)), waits, "it begins anew");
    let now = later(now, HOUR * 2);
    let (reason, problem) = ask_cluster(LookupResult::NotFound, now);
    assert_eq!(reason, Reason::OrphanGracePeriod, "it is being built anew");
    assert!(problem.contains("no namespace kube-system"), "{problem}");
    let (reason, problem) = ask_cluster(LookupResult::Forbidden("no".to_owned()), now);
    assert_eq!(
        (reason, problem.contains("which cluster it is")),
        (Reason::OrphanGracePeriod, true),
        "{problem}"
    );
    assert_eq!(ask_cluster(uid("one"), now), (Reason::Orphaned, String::new()));
    assert_eq!(ask_cluster(uid("two"), now), waits);
    assert_eq!(ask_cluster(uid("one"), now), waits, "and once more");
    assert_eq!(ask_cluster(uid("one"), later(now, HOUR)), (Reason::Orphaned, String::new()));
}

#[test]
fn without_a_cluster_what_is_known_of_pods_is_left_alone() {
    let place = Place::new();
    let (policies, now) = (orphans(Duration::ZERO), clock::now());
    ask(&mut place.hand(now), &policies, now, &LookupResult::NotFound);
    let remembered = place.remembered();
    let mut alone = place.hand_with(by_hand(), now);
    assert_eq!(ask(&mut alone, &policies, now, &LookupResult::NotFound), 0);
    assert_eq!(reasons(&mut alone, &policies, now), [Reason::WithinLimits]);
    drop(alone);
    assert_eq!((place.remembered(), remembered.len()), (remembered, 1));
}

#[test]
fn what_is_known_of_a_pod_goes_with_its_last_archive_and_not_before() {
    let place = Place::new();
    let (policies, now) = (orphans(HOUR), clock::now());
    let path = write_old(&place.directory(), &archive("engine", 2));
    ask(&mut place.hand(now), &policies, now, &bare_pod());
    assert_eq!(place.remembered().len(), 1, "one pod of two containers");
    fs::remove_file(path).unwrap();
    // The other was written to a moment ago, so that what it holds is not known for now.
    let other = place.directory().join(archive("server", 1).file_name());
    fs::File::options().append(true).open(&other).unwrap().write_all(&[0; 512]).unwrap();
    let now = clock::now();
    let mut hand = place.hand(now);
    ask(&mut hand, &policies, now, &bare_pod());
    assert!(hand.index().iter().all(|(_, known)| known.read.is_none()));
    drop(hand);
    assert_eq!(place.remembered().len(), 1);
    fs::remove_file(other).unwrap();
    ask(&mut place.hand(now), &policies, now, &bare_pod());
    assert_eq!(place.remembered().len(), 0);
}

#[test]
fn a_pods_record_that_is_not_understood_is_as_good_as_none() {
    let place = Place::new();
    let (policies, now) = (orphans(HOUR), clock::now());
    ask(&mut place.hand(now), &policies, now, &bare_pod());
    let good = place.remembered();
    let table: TableDefinition<&[u8], &[u8]> = TableDefinition::new("pods-1");
    let database = Database::open(place.state()).unwrap();
    let write = database.begin_write().unwrap();
    {
        let mut table = write.open_table(table).unwrap();
        let key = br#"{"namespace":"team","pod":"web-1"}"#.as_slice();
        table.insert(key, br#"{"owner":{"president":"x"}}"#.as_slice()).unwrap();
        table.insert(b"web-2".as_slice(), b"{}".as_slice()).unwrap();
        let key = br#"{"namespace":"team","pod":"web-3"}"#.as_slice();
        table.insert(key, br#"{"owner":"bare","fromTheFuture":1}"#.as_slice()).unwrap();
    }
    write.commit().unwrap();
    drop(database);
    let mut wanted = good;
    let key = PodKey { namespace: "team".to_owned(), pod: "web-3".to_owned(), uid: None };
    wanted.insert(key, PodRecord { owner: Owner::Bare, ..PodRecord::default() });
    assert_eq!(place.remembered(), wanted);
}

#[test]
fn archives_and_pods_are_remembered_and_forgotten_together() {
    let place = Place::new();
    let now = clock::now();
    let mut hand = place.hand(now);
    hand.look(now);
    hand.flush();
    drop(hand);
    let catalog = Catalog::open(&place.state()).unwrap().catalog;
    let key = |pod: &str| PodKey { namespace: "team".to_owned(), pod: pod.to_owned(), uid: None };
    let pods = ["a", "b"].map(|pod| (key(pod), Some(PodRecord::default()))).into();
    catalog.update(&Changes { pods, ..Changes::default() }).unwrap();
    let pods = [(key("a"), None), (key("b"), Some(PodRecord::default()))].into();
    catalog.update(&Changes { pods, ..Changes::default() }).unwrap();
    drop(catalog);
    assert_eq!(place.remembered().into_keys().collect::<Vec<_>>(), [key("b")]);
}

#[test]
fn a_clock_that_strays_from_the_api_servers_pauses_the_orphan_rule_and_begins_no_grace_period() {
    let place = Place::new();
    let (policies, now) = (orphans(Duration::ZERO), clock::now());
    let mut hand = place.hand(now);
    let gone = |lookup: &Lookup| answer(lookup, &LookupResult::NotFound);
    ask_by(&mut hand, &policies, now, later(now, HOUR).wall, gone);
    let view = hand.snapshot(now);
    let snapshot = &view.snapshot;
    assert_eq!((snapshot.clock, snapshot.archives[0].absences.clone()), (Clock::Suspect, None));
    assert!(hand.problems[0].contains("the API server's"), "{:?}", hand.problems);
    ask_by(&mut hand, &policies, now, now.wall, gone);
    assert_eq!(reasons(&mut hand, &policies, now), [Reason::Orphaned]);
}

/// Whoever starts with a wrong clock must not find that out after the first plan.
#[test]
fn rules_by_time_wait_until_the_clock_was_compared_with_the_api_servers() {
    let place = Place::new();
    let by_age = policy(Retention { max_age: Some(HOUR), keep_latest: 0, ..Retention::default() });
    let now = clock::now();
    let mut hand = place.eager(now);
    hand.driver.ask_by(Box::new(|lookups| {
        lookups.into_iter().map(|lookup| Resolved::failed(lookup, "refused", clock::now())).collect()
    }));
    hand.look(now);
    assert_eq!(reasons(&mut hand, &by_age, now), [Reason::ClockSuspect]);
    ask(&mut hand, &by_age, now, &bare_pod());
    assert_eq!(reasons(&mut hand, &by_age, now), [Reason::MaxAge]);
    drop(hand);
    // Without a cluster it is as good as it goes on.
    let mut alone = place.hand_with(by_hand(), now);
    alone.look(now);
    assert_eq!(reasons(&mut alone, &by_age, now), [Reason::MaxAge]);
}

#[test]
fn where_nothing_is_to_be_asked_something_is_asked_once_a_round_until_the_time_was_heard() {
    let place = Place::new();
    let (policies, now) = (per_container(9), clock::now());
    ask(&mut place.hand(now), &orphans(HOUR), now, &bare_pod());
    let mut hand = place.eager(now);
    let asked: Arc<Mutex<Vec<Vec<Lookup>>>> = Arc::default();
    let note = Arc::clone(&asked);
    hand.driver.ask_by(Box::new(move |lookups| {
        note.lock().unwrap().push(lookups.clone());
        lookups.into_iter().map(|lookup| Resolved::failed(lookup, "refused", now)).collect()
    }));
    let asked = || std::mem::take(&mut *asked.lock().unwrap());
    let anything = || vec![vec![Lookup::Cluster]];
    for _ in 0..3 {
        hand.go_by(&policies, now);
        assert_eq!(hand.look(now).len(), 1);
        assert_eq!(asked(), anything());
        assert_eq!(hand.snapshot(now).snapshot.clock, Clock::Suspect);
        assert_eq!(asked(), [[]; 0], "not again in this round");
    }
    // Whatever the answer is, it says what time it is.
    let forbidden = |_: &Lookup| LookupResult::Forbidden("forbidden".to_owned());
    ask_by(&mut hand, &policies, now, now.wall, forbidden);
    assert_eq!(hand.snapshot(now).snapshot.clock, Clock::Trusted);
    let note: Arc<Mutex<usize>> = Arc::default();
    let count = Arc::clone(&note);
    hand.driver.ask_by(Box::new(move |_| {
        *count.lock().unwrap() += 1;
        Vec::new()
    }));
    hand.look(now);
    assert_eq!(*note.lock().unwrap(), 0);
}

/// A watch with a resolver, ended when told to.
struct Running {
    stop: UnixStream,
    thread: thread::JoinHandle<()>,
    said: mpsc::Receiver<String>,
}

impl Running {
    fn start(
        place: &Place,
        policies: PolicySet,
        interval: Duration,
        ask: impl FnMut(Vec<Lookup>) -> Vec<Resolved> + Send + 'static,
    ) -> Self {
        let (stop, stopped) = UnixStream::pair().unwrap();
        let (say, said) = mpsc::channel();
        let store = Store::open(&place.directory()).unwrap();
        let thread = thread::spawn(move || {
            let cluster = Some(ClusterSettings { budget: UNHURRIED, ..cluster() });
            let settings = Settings { settle: SETTLE, cluster, ..Settings::default() };
            let (mut driver, _) = Driver::new(store, settings, CatalogUse::None);
            driver.ask_by(Box::new(ask));
            driver.configure(EngineConfig::policies(policies));
            let (_sender, mailbox) = mailbox::channel().unwrap();
            driver
                .run(&mailbox, interval, stopped, |event| {
                    let _ = match event {
                        Event::Problem(problem) => say.send(problem.to_string()),
                        Event::Planned(_) => say.send("planned".to_owned()),
                        _ => Ok(()),
                    };
                })
                .unwrap();
        });
        Self { stop, thread, said }
    }

    fn wait_for(&self, words: &str) {
        loop {
            let said =
                self.said.recv_timeout(support::DEADLINE).unwrap_or_else(|_| panic!("never said {words}"));
            if said.contains(words) {
                return;
            }
        }
    }

    fn end(mut self) {
        self.stop.write_all(b"x").unwrap();
        self.thread.join().unwrap();
    }
}

fn web_0() -> Lookup {
    Lookup::Pod { namespace: "team".to_owned(), name: "web-0".to_owned() }
}

fn answers(lookups: Vec<Lookup>, pod: &LookupResult) -> Vec<Resolved> {
    let answer = |lookup: Lookup| {
        let result = answer(&lookup, pod);
        let at = clock::now();
        Resolved { lookup, result, at, server_time: Some(at.wall) }
    };
    lookups.into_iter().map(answer).collect()
}

#[test]
fn the_watch_does_not_wait_for_the_api_and_its_answers_ring() {
    let place = Place::new();
    let mut policies = per_container(1);
    policies.retention[0].orphans = orphans(Duration::ZERO).retention[0].orphans;
    let (asked, is_asked) = mpsc::channel();
    let (let_go, may_go) = mpsc::channel::<()>();
    let running = Running::start(&place, policies, HOUR, move |lookups| {
        let _ = asked.send(lookups.clone());
        let _ = may_go.recv();
        answers(lookups, &LookupResult::NotFound)
    });
    assert_eq!(is_asked.recv_timeout(support::DEADLINE).unwrap(), [Lookup::Cluster], "what time it is");
    // While the API hangs, the directory is kept tidy.
    let newest = archive("server", 2);
    newest.write_to(&place.directory()).unwrap();
    let left = wait_until("the older one is gone", || files(&place.directory()), |left| left.len() == 1);
    assert!(left.contains(&newest.file_name()));
    for then in [Lookup::Namespace("team".to_owned()), web_0()] {
        let_go.send(()).unwrap();
        assert_eq!(is_asked.recv_timeout(support::DEADLINE).unwrap(), [then]);
    }
    let_go.send(()).unwrap();
    // Long before the next look at everything.
    wait_until("the orphan is gone", || files(&place.directory()).len(), |left| *left == 0);
    running.end();
}

#[test]
fn there_is_one_round_of_questions_an_interval_and_none_before_the_last_is_answered() {
    let place = Place::new();
    let (asked, is_asked) = mpsc::channel();
    let (let_go, may_go) = mpsc::channel::<()>();
    let interval = Duration::from_millis(50);
    let begin = clock::now().uptime;
    let running = Running::start(&place, orphans(HOUR), interval, move |lookups| {
        let _ = asked.send((lookups.clone(), clock::now().uptime));
        // The first time, until told to; later on, not at all.
        let _ = may_go.recv();
        answers(lookups, &LookupResult::NotFound)
    });
    // The first round takes three steps, as the orphan rule needs the time, and the pod may be of a
    // namespace that is not known yet, and longer than several intervals.
    let (namespace, pod) = (Lookup::Namespace("team".to_owned()), web_0());
    let mut rounds = vec![is_asked.recv_timeout(support::DEADLINE).unwrap().1];
    (0..4).for_each(|_| running.wait_for("planned"));
    let_go.send(()).unwrap();
    drop(let_go);
    for then in [&namespace, &pod] {
        assert_eq!(is_asked.recv_timeout(support::DEADLINE).unwrap().0, std::slice::from_ref(then));
    }
    for _ in 0..5 {
        let (lookups, at) = is_asked.recv_timeout(support::DEADLINE).unwrap();
        assert_eq!(lookups, [namespace.clone(), pod.clone()]);
        rounds.push(at);
    }
    running.end();
    // However late this thread or that one was: the last cannot have come before its turn.
    let turn = begin + interval * u32::try_from(rounds.len() - 1).unwrap();
    assert!(*rounds.last().unwrap() >= turn, "{rounds:?}");
}

#[test]
fn asking_that_panics_or_fails_keeps_everything_and_is_said() {
    let place = Place::new();
    let running = Running::start(&place, orphans(Duration::ZERO), HOUR, |_| panic!("as it should"));
    running.wait_for("nothing known of namespace team, so what depends on it stays: asking panicked");
    running.wait_for("pod team/web-0");
    running.end();
    let running = Running::start(&place, orphans(Duration::ZERO), HOUR, |lookups| {
        lookups
            .into_iter()
            .map(|lookup| Resolved::failed(lookup, "connection refused", clock::now()))
            .collect()
    });
    running.wait_for("pod team/web-0, so what depends on it stays: connection refused");
    running.end();
    assert_eq!(files(&place.directory()).len(), 1);
}

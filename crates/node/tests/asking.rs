//! What is asked of a cluster, remembered of its answers, and never waited for.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use checkpoint_keeper_core::plan::{Clock, Reason, plan};
use checkpoint_keeper_core::pods::{LivePod, Lookup, LookupResult, Owner, PodKey, PodRecord, RequestBudget};
use checkpoint_keeper_core::policy::{OrphanRule, OrphanWhen, PolicySet, Retention};
use checkpoint_keeper_node::catalog::{Catalog, Changes};
use checkpoint_keeper_node::clock::Now;
use checkpoint_keeper_node::collector::Collector;
use checkpoint_keeper_node::config::EngineConfig;
use checkpoint_keeper_node::resolver::{Resolved, Resolver};
use checkpoint_keeper_node::store::Store;
use checkpoint_keeper_node::watch::{Event, Watch};
use redb::{Database, TableDefinition};
use support::{archive, files, per_container, policy, wait_until, write_old};
use tempfile::TempDir;

const SETTLE: Duration = Duration::from_secs(5);
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

    /// A collector that has looked, remembers, and asks a cluster.
    fn collector(&self, now: Now) -> Collector {
        let mut collector = Collector::new(Store::open(&self.directory()).unwrap(), SETTLE);
        assert_eq!(collector.remember_in(self.state()).len(), 0);
        collector.set_cluster(false);
        collector.look(now, &mut |_, _| {});
        collector
    }

    fn remembered(&self) -> BTreeMap<PodKey, PodRecord> {
        Catalog::peek(&self.state()).pods
    }
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
fn answer(question: &Lookup, pod: &LookupResult) -> LookupResult {
    match question {
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
        labels: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        controller: None,
    })
}

/// Asks all there is to ask, says how many failed, and writes the catalog.
fn ask(collector: &mut Collector, policies: &PolicySet, now: Now, pod: &LookupResult) -> usize {
    let mut failed = 0;
    collector.begin_lookups(policies);
    loop {
        let questions = collector.lookups(RequestBudget::EVERYTHING);
        if questions.is_empty() {
            break;
        }
        let answers = questions.into_iter().map(|question| {
            let finding = answer(&question, pod);
            Resolved { question, finding, at: now, server_time: Some(now.wall) }
        });
        failed += collector.learn(answers.collect()).len();
    }
    assert_eq!(collector.write_catalog().len(), 0);
    failed
}

fn reasons(collector: &mut Collector, policies: &PolicySet, now: Now) -> Vec<Reason> {
    let (snapshot, _) = collector.snapshot(now);
    plan(&snapshot, policies, now.wall).verdicts.iter().map(|verdict| verdict.reason).collect()
}

#[test]
fn what_is_known_of_pods_survives_a_restart() {
    let place = Place::new();
    let (policies, now) = (orphans(HOUR), Now::read());
    let mut first = place.collector(now);
    ask(&mut first, &policies, now, &bare_pod());
    ask(&mut first, &policies, now, &LookupResult::NotFound);
    assert_eq!(reasons(&mut first, &policies, now), [Reason::OrphanGracePeriod]);
    drop(first);
    let remembered = place.remembered();
    let record = remembered.values().next().unwrap();
    assert_eq!((remembered.len(), &record.owner, record.pod_gone), (1, &Owner::Bare, Some(now.wall)));
    let now = later(now, HOUR);
    let mut second = place.collector(now);
    assert_eq!(second.snapshot(now).0.archives[0].pod_labels.as_ref().unwrap()["app"], "web");
    assert_eq!(reasons(&mut second, &policies, now), [Reason::OrphanGracePeriod], "not confirmed yet");
    ask(&mut second, &policies, now, &LookupResult::NotFound);
    assert_eq!(reasons(&mut second, &policies, now), [Reason::Orphaned]);
    drop(second);
    // With the file gone, the grace period begins anew.
    fs::remove_file(place.state()).unwrap();
    let mut third = place.collector(now);
    ask(&mut third, &policies, now, &LookupResult::NotFound);
    assert_eq!(reasons(&mut third, &policies, now), [Reason::OrphanGracePeriod]);
}

/// Another kubeconfig, or a cluster that was built anew.
#[test]
fn what_another_cluster_said_to_be_gone_is_forgotten_and_that_is_remembered() {
    let place = Place::new();
    let (policies, now) = (orphans(HOUR), Now::read());
    let ask_cluster = |cluster: LookupResult, now: Now| {
        let mut collector = place.collector(now);
        collector.begin_lookups(&policies);
        let mut problems = Vec::new();
        while let questions @ [_, ..] = &*collector.lookups(RequestBudget::EVERYTHING) {
            let answers = questions.iter().cloned().map(|question| {
                let finding = match &question {
                    Lookup::Cluster => cluster.clone(),
                    other => answer(other, &LookupResult::NotFound),
                };
                Resolved { question, finding, at: now, server_time: Some(now.wall) }
            });
            problems.extend(collector.learn(answers.collect()).iter().map(ToString::to_string));
        }
        assert_eq!(collector.write_catalog().len(), 0);
        (reasons(&mut collector, &policies, now)[0], problems.join(", "))
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
    let (policies, now) = (orphans(Duration::ZERO), Now::read());
    ask(&mut place.collector(now), &policies, now, &LookupResult::NotFound);
    let remembered = place.remembered();
    let mut collector = Collector::new(Store::open(&place.directory()).unwrap(), SETTLE);
    collector.remember_in(place.state());
    collector.look(now, &mut |_, _| {});
    assert_eq!(ask(&mut collector, &policies, now, &LookupResult::NotFound), 0);
    assert_eq!(reasons(&mut collector, &policies, now), [Reason::WithinLimits]);
    drop(collector);
    assert_eq!((place.remembered(), remembered.len()), (remembered, 1));
}

#[test]
fn what_is_known_of_a_pod_goes_with_its_last_archive_and_not_before() {
    let place = Place::new();
    let (policies, now) = (orphans(HOUR), Now::read());
    let path = write_old(&place.directory(), &archive("engine", 2));
    ask(&mut place.collector(now), &policies, now, &bare_pod());
    assert_eq!(place.remembered().len(), 1, "one pod of two containers");
    fs::remove_file(path).unwrap();
    // The other was written to a moment ago, so that what it holds is not known for now.
    let other = place.directory().join(archive("server", 1).file_name());
    fs::File::options().append(true).open(&other).unwrap().write_all(&[0; 512]).unwrap();
    let mut collector = place.collector(Now::read());
    assert!(collector.index().iter().all(|(_, known)| known.read.is_none()));
    ask(&mut collector, &policies, now, &bare_pod());
    drop(collector);
    assert_eq!(place.remembered().len(), 1);
    fs::remove_file(other).unwrap();
    ask(&mut place.collector(now), &policies, now, &bare_pod());
    assert_eq!(place.remembered().len(), 0);
}

#[test]
fn a_pods_record_that_is_not_understood_is_as_good_as_none() {
    let place = Place::new();
    let (policies, now) = (orphans(HOUR), Now::read());
    ask(&mut place.collector(now), &policies, now, &bare_pod());
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
    let now = Now::read();
    drop(place.collector(now));
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
    let (policies, now) = (orphans(Duration::ZERO), Now::read());
    let mut collector = place.collector(now);
    collector.begin_lookups(&policies);
    let ask_at = |collector: &mut Collector, server_time| {
        while let questions @ [_, ..] = &*collector.lookups(RequestBudget::EVERYTHING) {
            let answers = questions.iter().cloned().map(|question| {
                let finding = answer(&question, &LookupResult::NotFound);
                Resolved { question, finding, at: now, server_time: Some(server_time) }
            });
            collector.learn(answers.collect());
        }
    };
    ask_at(&mut collector, later(now, HOUR).wall);
    let (snapshot, problems) = collector.snapshot(now);
    assert_eq!((snapshot.clock, snapshot.archives[0].absences.clone()), (Clock::Suspect, None));
    assert!(problems[0].to_string().contains("the API server's"), "{problems:?}");
    collector.begin_lookups(&policies);
    ask_at(&mut collector, now.wall);
    assert_eq!(reasons(&mut collector, &policies, now), [Reason::Orphaned]);
}

/// Whoever starts with a wrong clock must not find that out after the first plan.
#[test]
fn rules_by_time_wait_until_the_clock_was_compared_with_the_api_servers() {
    let place = Place::new();
    let by_age = policy(Retention { max_age: Some(HOUR), keep_latest: 0, ..Retention::default() });
    let now = Now::read();
    let mut collector = place.collector(now);
    collector.set_eager_lookups();
    assert_eq!(reasons(&mut collector, &by_age, now), [Reason::ClockSuspect]);
    ask(&mut collector, &by_age, now, &bare_pod());
    assert_eq!(reasons(&mut collector, &by_age, now), [Reason::MaxAge]);
    drop(collector);
    // Without a cluster it is as good as it goes on.
    let mut alone = place.collector(now);
    assert_eq!(reasons(&mut alone, &by_age, now), [Reason::MaxAge]);
}

#[test]
fn where_nothing_is_to_be_asked_something_is_asked_once_a_round_until_the_time_was_heard() {
    let place = Place::new();
    let (policies, now) = (per_container(9), Now::read());
    ask(&mut place.collector(now), &orphans(HOUR), now, &bare_pod());
    let mut collector = place.collector(now);
    collector.set_eager_lookups();
    // Also before there is any policy.
    let anything = [Lookup::Cluster];
    assert_eq!(collector.lookups(RequestBudget::EVERYTHING), anything);
    for _ in 0..2 {
        let failures = collector.learn(vec![Resolved::failed(anything[0].clone(), "refused")]);
        assert_eq!((failures.len(), collector.lookups(RequestBudget::EVERYTHING)), (1, Vec::new()));
        assert_eq!(collector.snapshot(now).0.clock, Clock::Suspect);
        collector.begin_lookups(&policies);
        assert_eq!(collector.lookups(RequestBudget::EVERYTHING), anything);
    }
    let finding = LookupResult::Forbidden("forbidden".to_owned());
    let server_time = Some(now.wall);
    collector.learn(vec![Resolved { question: anything[0].clone(), finding, at: now, server_time }]);
    assert_eq!(collector.snapshot(now).0.clock, Clock::Trusted);
    collector.begin_lookups(&policies);
    assert!(collector.lookups(RequestBudget::EVERYTHING).is_empty());
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
            let mut collector = Collector::new(store, SETTLE);
            collector.set_cluster(false);
            let resolver = Some(Resolver::start(ask).unwrap());
            let watch =
                Watch { resolver, ..Watch::new(collector, EngineConfig::policies(policies), interval) };
            watch
                .run(stopped, |event| {
                    let _ = match event {
                        Event::Problem(problem) => say.send(problem.to_string()),
                        Event::Planned { .. } => say.send("planned".to_owned()),
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

fn answers(questions: Vec<Lookup>, pod: &LookupResult) -> Vec<Resolved> {
    let answer = |question: Lookup| {
        let finding = answer(&question, pod);
        Resolved { question, finding, at: Now::read(), server_time: None }
    };
    questions.into_iter().map(answer).collect()
}

#[test]
fn the_watch_does_not_wait_for_the_api_and_its_answers_ring() {
    let place = Place::new();
    let mut policies = per_container(1);
    policies.retention[0].orphans = orphans(Duration::ZERO).retention[0].orphans;
    let (asked, is_asked) = mpsc::channel();
    let (let_go, may_go) = mpsc::channel::<()>();
    let running = Running::start(&place, policies, HOUR, move |questions| {
        let _ = asked.send(questions.clone());
        let _ = may_go.recv();
        answers(questions, &LookupResult::NotFound)
    });
    let first = [Lookup::Cluster, Lookup::Namespace("team".to_owned())];
    assert_eq!(is_asked.recv_timeout(support::DEADLINE).unwrap(), first);
    // While the API hangs, the directory is kept tidy.
    let newest = archive("server", 2);
    newest.write_to(&place.directory()).unwrap();
    let left = wait_until("the older one is gone", || files(&place.directory()), |left| left.len() == 1);
    assert!(left.contains(&newest.file_name()));
    let_go.send(()).unwrap();
    assert_eq!(is_asked.recv_timeout(support::DEADLINE).unwrap().len(), 1, "then the pod");
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
    let begin = Now::read().uptime;
    let running = Running::start(&place, orphans(HOUR), interval, move |questions| {
        let _ = asked.send((questions.clone(), Now::read().uptime));
        // The first time, until told to; later on, not at all.
        let _ = may_go.recv();
        answers(questions, &LookupResult::NotFound)
    });
    // The first round takes two steps, as the pod may be of a namespace that is not known yet, and
    // longer than several intervals.
    let pod = Lookup::Pod { namespace: "team".to_owned(), name: "web-0".to_owned() };
    let namespace = Lookup::Namespace("team".to_owned());
    let mut rounds = vec![is_asked.recv_timeout(support::DEADLINE).unwrap().1];
    (0..4).for_each(|_| running.wait_for("planned"));
    let_go.send(()).unwrap();
    drop(let_go);
    assert_eq!(is_asked.recv_timeout(support::DEADLINE).unwrap().0, std::slice::from_ref(&pod));
    for _ in 0..5 {
        let (questions, at) = is_asked.recv_timeout(support::DEADLINE).unwrap();
        assert_eq!(questions, [namespace.clone(), pod.clone()]);
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
    let running = Running::start(&place, orphans(Duration::ZERO), HOUR, |questions| {
        questions.into_iter().map(|question| Resolved::failed(question, "connection refused")).collect()
    });
    running.wait_for("pod team/web-0, so what depends on it stays: connection refused");
    running.end();
    assert_eq!(files(&place.directory()).len(), 1);
}

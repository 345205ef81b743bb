//! What a watching collector goes by, told at any time: before it is told it deletes nothing, and what
//! it is told wrongly costs at most the bucket.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use checkpoint_keeper_core::deletion_limiter::DeletionLimiter;
use checkpoint_keeper_core::engine::cluster::Resolved;
use checkpoint_keeper_core::engine::config::EngineConfig;
use checkpoint_keeper_core::engine::{ClusterSettings, Haste, NodePods, Settings};
use checkpoint_keeper_core::pods::{Lookup, LookupResult};
use checkpoint_keeper_core::policy::{Kind, Labels, PolicySet};
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::driver::{CatalogUse, Driver, Event, SPARING};
use checkpoint_keeper_node::mailbox::{Sender, channel};
use checkpoint_keeper_node::resolver::Ask;
use checkpoint_keeper_node::store::Store;
use checkpoint_keeper_testkit::ArchiveBuilder;
use support::{DEADLINE, archive, files, name, per_container, wait_until, write_old};
use tempfile::TempDir;

const HOUR: Duration = Duration::from_hours(1);

/// A watch that goes by what it is told.
struct Told {
    config: Sender,
    stop: UnixStream,
    /// Of how many archives each plan is, and how many of these it deletes.
    plans: mpsc::Receiver<(usize, usize)>,
    thread: Option<JoinHandle<()>>,
}

impl Told {
    fn start(directory: &Path, bucket: Option<DeletionLimiter>) -> Self {
        Self::asking(directory, bucket, None)
    }

    /// One that asks a cluster, whatever its policies need to know.
    fn asking(directory: &Path, bucket: Option<DeletionLimiter>, ask: Option<Ask>) -> Self {
        let (stop, stopped) = UnixStream::pair().unwrap();
        let (plan, plans) = mpsc::channel();
        let (config, receiver) = channel().unwrap();
        let store = Store::open(directory).unwrap();
        let thread = thread::spawn(move || {
            let cluster = ClusterSettings { budget: SPARING, node_pods: NodePods::Asked, eager: true };
            let settings = Settings {
                settle: Duration::from_secs(5),
                limiter: bucket,
                needs_server_clock: ask.is_some(),
                cluster: ask.is_some().then_some(cluster),
                ..Settings::default()
            };
            let (mut driver, _) = Driver::new(store, settings, CatalogUse::None);
            ask.into_iter().for_each(|ask| driver.ask_by(ask));
            let report = |event: Event<'_>| {
                if let Event::Planned(view) = event {
                    let _ = plan.send((view.snapshot.archives.len(), view.plan.deletions().count()));
                }
            };
            driver.run(&receiver, HOUR, stopped, report).unwrap();
        });
        Self { config, stop, plans, thread: Some(thread) }
    }

    /// How many archives the next plan deletes.
    fn next_plan(&self) -> usize {
        self.plans.recv_timeout(DEADLINE).unwrap().1
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.stop.write_all(b"x");
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking());
        }
    }
}

fn with(archives: u32) -> TempDir {
    let directory = TempDir::new().unwrap();
    for second in 0..archives {
        write_old(directory.path(), &archive("server", second));
    }
    directory
}

#[test]
fn nothing_is_planned_before_the_first_orders_and_these_take_effect_at_once() {
    let directory = with(5);
    let told = Told::start(directory.path(), None);
    // An archive that comes is looked at, and still nothing is planned.
    archive("server", 100).write_to(directory.path()).unwrap();
    assert!(told.plans.try_recv().is_err());
    assert_eq!(files(directory.path()).len(), 6);
    told.config.send_config(EngineConfig::policies(per_container(2)), Haste::NextPlan);
    wait_until("two are left", || files(directory.path()).len(), |left| *left == 2);
}

#[test]
fn orders_that_are_not_urgent_wait_for_the_next_archive() {
    let directory = with(5);
    let told = Told::start(directory.path(), None);
    told.config.send_config(EngineConfig::policies(per_container(100)), Haste::AtOnce);
    assert_eq!(told.next_plan(), 0);
    told.config.send_config(EngineConfig::policies(per_container(2)), Haste::NextPlan);
    // The configuration that may wait was there first: were it acted upon, its plan would be the next one, and of what
    // was there by then. Whether the new one is closed already when the next plan is made, is up to chance.
    archive("server", 100).write_to(directory.path()).unwrap();
    assert_eq!(told.plans.recv_timeout(DEADLINE).unwrap().0, 6);
    wait_until("two are left", || files(directory.path()).len(), |left| *left == 2);
    told.config.send_config(EngineConfig::policies(per_container(1)), Haste::AtOnce);
    wait_until("one is left", || files(directory.path()).len(), |left| *left == 1);
}

#[test]
fn a_limit_mistyped_and_mended_costs_at_most_the_bucket() {
    let directory = with(300);
    // Full: 5 % of 300 archives.
    let told = Told::start(directory.path(), Some(DeletionLimiter::default()));
    told.config.send_config(EngineConfig::policies(per_container(300)), Haste::AtOnce);
    assert_eq!(told.next_plan(), 0);
    told.config.send_config(EngineConfig::policies(per_container(1)), Haste::AtOnce);
    let deleted = told.next_plan();
    assert_eq!(deleted, 15);
    wait_until("they are gone", || files(directory.path()).len(), |left| *left == 285);
    told.config.send_config(EngineConfig::policies(per_container(300)), Haste::AtOnce);
    // The mended configuration came last, and leaves the rest.
    while let Ok((_, more)) = told.plans.recv_timeout(Duration::from_millis(300)) {
        assert_eq!(more, 0);
    }
    assert_eq!(files(directory.path()).len(), 285);
}

#[test]
fn the_bucket_is_not_charged_for_what_was_planned_and_never_begun() {
    let directory = with(300);
    let (mut stop, stopped) = UnixStream::pair().unwrap();
    let (config, receiver) = channel().unwrap();
    let (plan, plans) = mpsc::channel();
    let store = Store::open(directory.path()).unwrap();
    let mend = config.clone();
    let thread = thread::spawn(move || {
        // Full: 5 % of 300 archives.
        let limiter = Some(DeletionLimiter::default());
        let settings = Settings { settle: Duration::from_secs(5), limiter, ..Settings::default() };
        let (mut driver, _) = Driver::new(store, settings, CatalogUse::None);
        driver.configure(EngineConfig::policies(per_container(1)));
        let mut is_first = true;
        let report = |event: Event<'_>| match event {
            Event::Planned(view) => _ = plan.send(view.plan.deletions().count()),
            Event::Finished(_) if std::mem::take(&mut is_first) => {
                mend.send_config(EngineConfig::policies(per_container(300)), Haste::AtOnce);
            }
            _ => {}
        };
        driver.run(&receiver, HOUR, stopped, report).unwrap();
    });
    assert_eq!(plans.recv_timeout(DEADLINE).unwrap(), 15);
    assert_eq!(plans.recv_timeout(DEADLINE).unwrap(), 0, "mended");
    config.send_config(EngineConfig::policies(per_container(1)), Haste::AtOnce);
    let left = loop {
        match plans.recv_timeout(DEADLINE).unwrap() {
            0 => {}
            left => break left,
        }
    };
    assert!((11..15).contains(&left), "four were begun, and {left} are left");
    stop.write_all(b"x").unwrap();
    thread.join().unwrap();
}

/// Unlinking what is large takes minutes, and somebody may see his mistake in time.
#[test]
fn what_waits_to_be_deleted_is_withdrawn_with_the_orders_that_wanted_it() {
    // How far the sweeper has come by then is up to chance; that it has always come to the end is not.
    let withdrawn = (0..20).any(|_| {
        let directory = with(600);
        let told = Told::start(directory.path(), None);
        told.config.send_config(EngineConfig::policies(per_container(1)), Haste::AtOnce);
        assert_eq!(told.next_plan(), 599);
        told.config.send_config(EngineConfig::policies(PolicySet::default()), Haste::AtOnce);
        let planned = Cell::new(0);
        let see = || {
            for (archives, deleted) in told.plans.try_iter() {
                assert_eq!(deleted, 0, "no policy, no deletion");
                planned.set(archives);
            }
            (planned.get(), files(directory.path()).len())
        };
        let (mended, _) = wait_until("what stays is planned anew", see, |(planned, there)| planned == there);
        // It can be wanted gone again.
        told.config.send_config(EngineConfig::policies(per_container(1)), Haste::AtOnce);
        wait_until("one is left", || files(directory.path()).len(), |left| *left == 1);
        mended > 1
    });
    assert!(withdrawn, "the sweeper went through with it");
}

#[test]
fn rotation_of_what_arrives_never_waits_for_the_bucket() {
    let directory = with(30);
    // Empty, and an hour to fill.
    let bucket = DeletionLimiter::empty(clock::now().uptime);
    let told = Told::start(directory.path(), Some(bucket));
    told.config.send_config(EngineConfig::policies(per_container(30)), Haste::AtOnce);
    assert_eq!(told.next_plan(), 0);
    for second in 0..20 {
        archive("server", 100 + second).write_to(directory.path()).unwrap();
    }
    wait_until("thirty are left", || files(directory.path()).len(), |left| *left == 30);
}

/// A policy of namespace `team`, which was made anew since its archives were taken.
fn of_the_new_owner(max_count: u64) -> EngineConfig {
    let mut policies = per_container(max_count);
    let policy = &mut policies.retention[0];
    (policy.id.kind, policy.id.namespace) = (Kind::CheckpointPolicy, Some("team".to_owned()));
    policy.namespace = Some("team".to_owned());
    let policies_by_namespace = BTreeMap::from([("team".to_owned(), BTreeSet::from(["uid".to_owned()]))]);
    EngineConfig {
        policies_by_namespace: Arc::new(policies_by_namespace),
        ..EngineConfig::policies(policies)
    }
}

/// Answers that the namespace is a month younger than its archives, as soon as that is let go.
fn cluster_of_a_new_namespace() -> (Ask, mpsc::Sender<()>) {
    let (let_go, may_go) = mpsc::channel::<()>();
    let ask = move |lookups: Vec<Lookup>| {
        let _ = may_go.recv();
        let answer = |lookup| {
            let result = match &lookup {
                Lookup::Namespace(_) => LookupResult::Namespace {
                    labels: Labels::new(),
                    created: "2026-02-01T00:00:00Z".parse().unwrap(),
                },
                Lookup::NodePods => LookupResult::NodePods(Vec::new()),
                _ => LookupResult::NotFound,
            };
            Resolved { lookup, result, at: clock::now(), server_time: Some(clock::now().wall) }
        };
        lookups.into_iter().map(answer).collect()
    };
    (Box::new(ask), let_go)
}

/// tenants stay apart, from the first plan on.
#[test]
fn a_namespaces_policy_governs_nothing_before_it_was_asked_whose_namespace_that_is() {
    let directory = with(5);
    let (ask, let_go) = cluster_of_a_new_namespace();
    let told = Told::asking(directory.path(), None, Some(ask));
    told.config.send_config(of_the_new_owner(1), Haste::AtOnce);
    assert_eq!(told.next_plan(), 0, "nobody has answered yet");
    let_go.send(()).unwrap();
    assert_eq!(told.next_plan(), 0, "they are the former namespace's");
    drop(let_go);
    while let Ok((_, more)) = told.plans.recv_timeout(Duration::from_millis(300)) {
        assert_eq!(more, 0);
    }
    assert_eq!(files(directory.path()).len(), 5);
}

/// It is moved in from a backup while the API takes its time.
#[test]
fn nor_an_archive_that_comes_while_others_are_being_asked_about() {
    let directory = TempDir::new().unwrap();
    write_old(directory.path(), &ArchiveBuilder::new("bank", "ledger-0", "engine"));
    let (ask, let_go) = cluster_of_a_new_namespace();
    let told = Told::asking(directory.path(), None, Some(ask));
    told.config.send_config(
        EngineConfig { policies_by_namespace: Arc::default(), ..of_the_new_owner(1) },
        Haste::AtOnce,
    );
    assert_eq!(told.next_plan(), 0);
    for second in 0..5 {
        archive("server", second).write_to(directory.path()).unwrap();
    }
    while let Ok((_, more)) = told.plans.recv_timeout(Duration::from_millis(300)) {
        assert_eq!(more, 0);
    }
    drop(let_go);
    while let Ok((_, more)) = told.plans.recv_timeout(Duration::from_millis(300)) {
        assert_eq!(more, 0);
    }
    assert_eq!(files(directory.path()).len(), 6);
}

#[test]
fn what_is_of_unknown_identity_can_be_discarded_and_nothing_else() {
    let directory = with(1);
    let known = archive("server", 0).file_name();
    let write = |file: &str| std::fs::write(directory.path().join(file), nameless()).unwrap();
    let (unknown, pinned, other) = (
        "checkpoint-x_y-z-2026-01-01T00:00:00Z.tar",
        "checkpoint-x_y-z-2026-01-02T00:00:00Z.tar",
        "checkpoint-x_y-z-2026-01-03T00:00:00Z.tar",
    );
    for file in [unknown, pinned, other] {
        write(file);
        support::age(&directory.path().join(file));
    }
    std::fs::write(directory.path().join(format!("{pinned}.keep")), "").unwrap();
    let told = Told::start(directory.path(), None);
    let discard = [&known, unknown, pinned, "checkpoint-no_such-file.tar"].map(name);
    let config = EngineConfig {
        discard: Some(Arc::new(discard.into())),
        ..EngineConfig::policies(PolicySet::default())
    };
    told.config.send_config(config, Haste::AtOnce);
    wait_until("it is gone", || files(directory.path()), |left| !left.contains(unknown));
    assert_eq!(told.next_plan(), 1);
    let left: BTreeSet<String> = files(directory.path());
    assert!(left.contains(&known) && left.contains(pinned) && left.contains(other), "{left:?}");
}

/// A whole archive that does not say whose it is.
fn nameless() -> Vec<u8> {
    archive("server", 0).runtime_name(Some("ledger")).spec_json(b"{}".as_slice()).build().unwrap()
}

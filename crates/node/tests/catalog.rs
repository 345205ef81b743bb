//! The catalog: a record counts only for its very file, and no damage stops the collecting.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use checkpoint_keeper_core::archive::State;
use checkpoint_keeper_core::engine::clock::Now;
use checkpoint_keeper_core::engine::config::EngineConfig;
use checkpoint_keeper_core::engine::file::Outcome;
use checkpoint_keeper_core::engine::memory::Changes;
use checkpoint_keeper_core::engine::problem::Problem;
use checkpoint_keeper_core::engine::{DeletionTiming, Engine, Haste, Input, Settings, View};
use checkpoint_keeper_core::plan::{FileSystem, Reason, Release};
use checkpoint_keeper_core::policy::{Kind, LabelSelector, PolicyRef, PolicySet, StoragePolicy};
use checkpoint_keeper_node::catalog::{Catalog, CatalogError, CatalogProblem};
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::driver::{CatalogUse, Driver, Event};
use checkpoint_keeper_node::mailbox::channel;
use checkpoint_keeper_node::store::Store;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use support::{EngineOnly, Hand, SETTLE, archive, by_hand, files, per_container, wait_until, write_old};
use tempfile::TempDir;

struct Place {
    _parent: TempDir,
    directory: std::path::PathBuf,
    state: std::path::PathBuf,
}

fn place() -> Place {
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("checkpoints");
    fs::create_dir(&directory).unwrap();
    let state = parent.path().join("catalog");
    Place { _parent: parent, directory, state }
}

/// Looks once with the catalog, and says what was wrong.
fn look(place: &Place) -> (Hand, Vec<String>) {
    let now = clock::now();
    let mut hand = Hand::new(&place.directory, by_hand(), CatalogUse::File(place.state.clone()), now);
    let mut problems = std::mem::take(&mut hand.problems);
    problems.extend(hand.look(now));
    problems.extend(hand.flush());
    (hand, problems)
}

#[test]
fn what_was_read_is_not_read_again_and_what_changed_is() {
    let place = place();
    let kept = write_old(&place.directory, &archive("server", 1));
    let changed = write_old(&place.directory, &archive("engine", 2));
    assert_eq!(look(&place).1, Vec::<String>::new());
    // A record is believed for its very file: one that lies shows that it was used.
    let opened = Catalog::open(&place.state).unwrap();
    assert_eq!(opened.memory.records.len(), 2);
    let records = opened
        .memory
        .records
        .into_iter()
        .map(|(name, mut record)| {
            record.contents.state = State::Incomplete;
            (name, Some(record))
        })
        .collect();
    opened.catalog.update(&Changes { records, ..Changes::default() }).unwrap();
    drop(opened.catalog);
    fs::write(&changed, archive("engine", 2).build().unwrap()).unwrap();
    support::age(&changed);
    let (hand, problems) = look(&place);
    assert_eq!(problems, Vec::<String>::new());
    let state = |path: &std::path::Path| {
        let name = support::name(path.file_name().unwrap().as_encoded_bytes());
        hand.index().get(&name).unwrap().read.as_ref().unwrap().state
    };
    assert_eq!(state(&kept), State::Incomplete, "remembered, not read");
    assert_eq!(state(&changed), State::Complete, "read again");
}

#[test]
fn what_is_gone_is_forgotten() {
    let place = place();
    let path = write_old(&place.directory, &archive("server", 1));
    drop(look(&place));
    fs::remove_file(path).unwrap();
    drop(look(&place));
    assert_eq!(Catalog::open(&place.state).unwrap().memory.records.len(), 0);
}

#[test]
fn a_damaged_catalog_is_moved_aside_and_made_anew() {
    let place = place();
    write_old(&place.directory, &archive("server", 1));
    drop(look(&place));
    let sound = fs::read(&place.state).unwrap();
    let damages: Vec<(&str, Vec<u8>)> = vec![
        ("cut off", sound[..sound.len() / 3].to_vec()),
        ("only a header", sound[..512].to_vec()),
        (
            "zeroed pages",
            sound.iter().enumerate().map(|(at, byte)| if at < 4096 { *byte } else { 0 }).collect(),
        ),
        (
            "random pages",
            sound
                .iter()
                .enumerate()
                .map(|(at, byte)| if at < 4096 { *byte } else { u8::try_from(at * 31 % 251).unwrap() })
                .collect(),
        ),
        (
            "not made to its end",
            sound.iter().enumerate().map(|(at, byte)| if at < 9 { 0 } else { *byte }).collect(),
        ),
        (
            "zeroed header",
            sound
                .iter()
                .enumerate()
                .map(|(at, byte)| if (9..512).contains(&at) { 0 } else { *byte })
                .collect(),
        ),
    ];
    for (what, bytes) in damages {
        fs::write(&place.state, &bytes).unwrap();
        let (hand, problems) = look(&place);
        assert_eq!(hand.index().len(), 1, "{what}: the archive is known");
        drop(hand);
        // redb mends some damage by itself; what it cannot mend is moved aside, whole.
        if let [problem] = problems.as_slice() {
            assert!(problem.contains("catalog.damaged"), "{what}: {problem}");
            let aside = fs::read(place.state.with_file_name("catalog.damaged")).unwrap();
            assert_eq!(aside.len(), bytes.len(), "{what}");
        }
        let (_, problems) = look(&place);
        assert_eq!(problems, Vec::<String>::new(), "{what}: the new catalog is sound");
        let _ = fs::remove_file(place.state.with_file_name("catalog.damaged"));
    }
    // What lies there under that name is not ours to replace.
    fs::write(place.state.with_file_name("catalog.damaged"), "precious").unwrap();
    fs::write(&place.state, &sound[..512]).unwrap();
    drop(look(&place));
    assert_eq!(fs::read(place.state.with_file_name("catalog.damaged")).unwrap(), b"precious");
    assert_eq!(fs::read(place.state.with_file_name("catalog.damaged.1")).unwrap(), &sound[..512]);
}

/// `--state /etc/fstab`.
#[test]
fn what_is_no_catalog_is_named_and_left_as_it_is() {
    let place = place();
    write_old(&place.directory, &archive("server", 1));
    for bytes in
        [b"#!/bin/sh\necho precious\n".to_vec(), b"precious ".repeat(100_000), b"r".to_vec(), vec![0; 9_000]]
    {
        fs::write(&place.state, &bytes).unwrap();
        let before = fs::metadata(&place.state).unwrap().modified().unwrap();
        let (hand, problems) = look(&place);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(&format!("{} is not a catalog", place.state.display())), "{problems:?}");
        assert_eq!(hand.index().len(), 1, "collecting goes on without");
        assert_eq!(fs::read(&place.state).unwrap(), bytes);
        assert_eq!(fs::metadata(&place.state).unwrap().modified().unwrap(), before);
        assert_eq!(fs::read_dir(place.state.parent().unwrap()).unwrap().count(), 2, "nothing beside it");
    }
}

/// What a dry run says must be what is done without one.
#[test]
fn a_dry_run_does_not_believe_a_record_that_was_altered() {
    let place = place();
    write_old(&place.directory, &archive("server", 1));
    drop(look(&place));
    let sound = fs::read(&place.state).unwrap();
    assert_eq!(Catalog::peek(&place.state).records.len(), 1);
    assert_eq!(fs::read(&place.state).unwrap(), sound, "a dry run writes nothing");
    let mut bytes = sound.clone();
    let (name, altered) = (br#""pod":"web-0""#, br#""pod":"web-9""#);
    let places: Vec<usize> =
        (0..bytes.len() - name.len()).filter(|at| bytes[*at..].starts_with(name)).collect();
    assert!(!places.is_empty(), "the catalog holds the name");
    for at in places {
        bytes[at..at + altered.len()].copy_from_slice(altered);
    }
    fs::write(&place.state, &bytes).unwrap();
    assert_eq!(Catalog::peek(&place.state).records.len(), 0);
    assert_eq!(fs::read(&place.state).unwrap(), bytes, "a dry run writes nothing");
}

/// One that a killed process left behind is repaired, though not on the disk.
#[test]
fn a_dry_run_reads_a_catalog_that_was_not_closed() {
    let place = place();
    write_old(&place.directory, &archive("server", 1));
    let (hand, _) = look(&place);
    let copy = place.state.with_file_name("copy");
    fs::copy(&place.state, &copy).unwrap();
    drop(hand);
    let left = fs::read(&copy).unwrap();
    assert_eq!(Catalog::peek(&copy).records.len(), 1);
    assert_eq!(fs::read(&copy).unwrap(), left);
}

/// A flipped bit in a name would have the wrong policy govern.
#[test]
fn a_record_that_was_altered_is_noticed_before_it_is_believed() {
    let place = place();
    write_old(&place.directory, &archive("server", 1));
    drop(look(&place));
    let mut bytes = fs::read(&place.state).unwrap();
    let (name, altered) = (br#""pod":"web-0""#, br#""pod":"web-9""#);
    let places: Vec<usize> =
        (0..bytes.len() - name.len()).filter(|at| bytes[*at..].starts_with(name)).collect();
    assert!(!places.is_empty(), "the catalog holds the name");
    for at in places {
        bytes[at..at + altered.len()].copy_from_slice(altered);
    }
    fs::write(&place.state, &bytes).unwrap();
    let (hand, problems) = look(&place);
    assert_eq!(problems.len(), 1, "{problems:?}");
    let pods = hand.index().iter().map(|(_, known)| known.read.as_ref().unwrap().identity.clone());
    assert!(pods.into_iter().all(|identity| identity.unwrap().pod == "web-0"));
}

#[test]
fn every_truncation_and_flipped_byte_is_survived() {
    let place = place();
    for second in 0..20 {
        write_old(&place.directory, &archive("server", second));
    }
    drop(look(&place));
    let sound = fs::read(&place.state).unwrap();
    let step = sound.len() / 200;
    for at in (0..sound.len()).step_by(step.max(1)) {
        let _ = fs::remove_file(place.state.with_file_name("catalog.damaged"));
        fs::write(&place.state, &sound[..at]).unwrap();
        assert_eq!(look(&place).0.index().len(), 20, "cut off at {at}");
        let _ = fs::remove_file(place.state.with_file_name("catalog.damaged"));
        let mut flipped = sound.clone();
        flipped[at] ^= 0x55;
        fs::write(&place.state, &flipped).unwrap();
        let (hand, _) = look(&place);
        // Whatever was believed, it is about the right archives.
        for (name, known) in hand.index().iter() {
            let read = known.read.as_ref().unwrap();
            assert_eq!(read.state, State::Complete, "{name} flipped at {at}");
            assert_eq!(read.identity.as_ref().unwrap().pod, "web-0", "{name} flipped at {at}");
        }
    }
}

#[test]
fn a_catalog_in_use_is_left_alone() {
    let place = place();
    write_old(&place.directory, &archive("server", 1));
    let (first, _) = look(&place);
    let (second, problems) = look(&place);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("another process uses"), "{problems:?}");
    assert_eq!(second.index().len(), 1, "collecting goes on without");
    drop(first);
}

#[test]
fn a_catalog_that_cannot_be_made_is_reported() {
    let place = place();
    write_old(&place.directory, &archive("server", 1));
    let state = place.state.join("no/such/directory");
    let store = Store::open(&place.directory).unwrap();
    let (driver, problems) = Driver::new(store, by_hand(), CatalogUse::File(state.clone()));
    assert!(
        matches!(problems.as_slice(), [CatalogProblem::Unusable(CatalogError::Open { .. })]),
        "{problems:?}"
    );
    drop(driver);
    let mut hand = Hand::new(&place.directory, by_hand(), CatalogUse::File(state), clock::now());
    assert_eq!(hand.look(clock::now()), [""; 0], "it goes on without");
    assert_eq!(hand.index().len(), 1);
}

/// A disk that can be made to hang, or to be full.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<(Mutex<Mood>, Condvar)>);

#[derive(Debug, Default, PartialEq, Clone, Copy)]
enum Mood {
    #[default]
    Sound,
    Full,
    /// Whether anybody waits for it.
    Hangs(bool),
}

impl Disk {
    fn set(&self, mood: Mood) {
        *self.0.0.lock().unwrap() = mood;
        self.0.1.notify_all();
    }

    fn is_waited_for(&self) -> bool {
        *self.0.0.lock().unwrap() == Mood::Hangs(true)
    }

    fn write<T>(&self, write: impl FnOnce() -> Result<T, std::io::Error>) -> Result<T, std::io::Error> {
        let mut mood = self.0.0.lock().unwrap();
        while let Mood::Hangs(_) = *mood {
            *mood = Mood::Hangs(true);
            mood = self.0.1.wait(mood).unwrap();
        }
        if *mood == Mood::Full { Err(std::io::ErrorKind::StorageFull.into()) } else { write() }
    }
}

/// A catalog's file on such a disk.
#[derive(Debug)]
struct OnDisk(Disk, InMemoryBackend);

impl StorageBackend for OnDisk {
    fn len(&self) -> Result<u64, std::io::Error> {
        self.1.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        self.1.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.0.write(|| self.1.set_len(len))
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.0.write(|| self.1.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        self.0.write(|| self.1.write(offset, data))
    }
}

/// a full disk never blocks deletion, and neither does one that hangs.
#[test]
fn orders_and_deletions_go_on_while_the_catalogs_disk_hangs_or_is_full() {
    for mood in [Mood::Hangs(false), Mood::Full] {
        let (place, disk) = (place(), Disk::default());
        let catalog = Catalog::create_in(OnDisk(disk.clone(), InMemoryBackend::new()), &place.state).unwrap();
        disk.set(mood);
        (0..5).for_each(|second| _ = write_old(&place.directory, &archive("server", second)));
        let (mut stop, stopped) = UnixStream::pair().unwrap();
        let (config, receiver) = channel().unwrap();
        let (say, said) = mpsc::channel();
        let store = Store::open(&place.directory).unwrap();
        let watching = thread::spawn(move || {
            let settings = Settings { settle: SETTLE, ..Settings::default() };
            let (mut driver, problems) = Driver::new(store, settings, CatalogUse::New(catalog));
            assert_eq!(problems.len(), 0);
            driver.configure(EngineConfig::policies(per_container(3)));
            let report = |event: Event<'_>| match event {
                Event::Problem(problem) => _ = say.send(problem.to_string()),
                Event::Catalog(problem) => _ = say.send(problem.to_string()),
                _ => {}
            };
            driver.run(&receiver, Duration::from_millis(20), stopped, report).unwrap();
        });
        let left = |wanted| {
            wait_until("the rest is gone", || files(&place.directory).len(), |left| *left == wanted);
        };
        left(3);
        if mood == Mood::Full {
            assert!(said.recv_timeout(support::DEADLINE).unwrap().contains("cannot write the catalog"));
        } else {
            wait_until("somebody waits for the disk", || disk.is_waited_for(), |waits| *waits);
        }
        archive("server", 100).write_to(&place.directory).unwrap();
        left(3);
        config.send_config(EngineConfig::policies(per_container(1)), Haste::AtOnce);
        left(1);
        stop.write_all(b"x").unwrap();
        if mood != Mood::Full {
            let said = said.recv_timeout(support::DEADLINE).unwrap();
            assert!(said.contains("takes too long"), "the end does not wait for ever: {said}");
        }
        disk.set(Mood::Sound);
        watching.join().unwrap();
    }
}

/// It is made anew where it was, with everything that is known by then.
#[test]
fn a_catalog_that_could_not_be_written_is_opened_again_and_knows_everything() {
    let (place, disk) = (place(), Disk::default());
    write_old(&place.directory, &archive("server", 1));
    let catalog = Catalog::create_in(OnDisk(disk.clone(), InMemoryBackend::new()), &place.state).unwrap();
    disk.set(Mood::Full);
    let now = clock::now();
    let mut hand = Hand::new(&place.directory, by_hand(), CatalogUse::New(catalog), now);
    assert_eq!(hand.look(now), [""; 0]);
    assert_eq!(hand.flush().len(), 1);
    write_old(&place.directory, &archive("server", 2));
    let later = Now { uptime: now.uptime + SETTLE, ..now };
    hand.look(now);
    hand.look(later);
    assert_eq!(hand.flush(), [""; 0]);
    drop(hand);
    assert_eq!(Catalog::open(&place.state).unwrap().memory.records.len(), 2);
}

/// Whoever deletes a policy while the agent restarts loses nothing for it.
#[test]
fn which_policy_governed_outlives_a_restart() {
    let place = place();
    (0..3).for_each(|second| _ = write_old(&place.directory, &archive("server", second)));
    let now = clock::now();
    let open = |deletion_timing| {
        let settings = Settings { deletion_timing, ..by_hand() };
        let mut hand = Hand::new(&place.directory, settings, CatalogUse::File(place.state.clone()), now);
        assert_eq!(hand.look(now), [""; 0]);
        hand
    };
    let mut protecting = per_container(9);
    protecting.retention[0].id.name = "protecting".to_owned();
    let mut hand = open(DeletionTiming::AtOnce);
    hand.plan(&protecting, now);
    assert_eq!(hand.flush(), [""; 0]);
    drop(hand);
    // Policies that do not change hand nothing over.
    let mut once = open(DeletionTiming::WhenTold);
    let view = once.plan(&per_container(1), now);
    assert!(view.snapshot.archives.iter().all(|archive| archive.governed_by.is_none()));
    assert_eq!(view.plan.deletions().count(), 2);
    drop(once);
    let mut hand = open(DeletionTiming::AtOnce);
    let view = hand.plan(&per_container(1), now);
    let governed_by = view.snapshot.archives[0].governed_by.as_ref().map(|policy| policy.name.as_str());
    assert_eq!(governed_by, Some("protecting"));
    assert!(view.plan.verdicts.iter().any(|verdict| verdict.reason == Reason::Handover));
    assert_eq!(files(&place.directory).len(), 3);
}

/// A round that the file system never shows.
#[test]
fn what_the_watermark_waits_for_outlives_a_restart() {
    let place = place();
    (0..3).for_each(|second| _ = write_old(&place.directory, &archive("server", second)));
    let now = clock::now();
    let mut node = FullDisk::start(&place, now);
    let (view, _) = node.plan(now);
    assert_eq!(view.snapshot.filesystem.unwrap().release, Release::Shown);
    assert!(files(&place.directory).len() < 3, "something went");
    assert_eq!(node.plan(now).0.snapshot.filesystem.unwrap().release, Release::Awaited);
    drop(node);
    let mut node = FullDisk::start(&place, now);
    assert_eq!(node.plan(now).0.snapshot.filesystem.unwrap().release, Release::Awaited);
    // Minutes later, one archive at a time.
    let later = Now { uptime: now.uptime + Duration::from_mins(5), ..now };
    node.plan(later);
    let later = Now { uptime: later.uptime + Duration::from_mins(1), ..now };
    let (view, problems) = node.plan(later);
    assert_eq!(view.snapshot.filesystem.unwrap().release, Release::Probing);
    assert!(matches!(problems[..], [.., Problem::WatermarkIneffective(1)]), "{problems:?}");
}

/// An engine on a disk that is full and stays so, whatever is deleted.
struct FullDisk(EngineOnly);

impl FullDisk {
    fn start(place: &Place, now: Now) -> Self {
        let opened = Catalog::open(&place.state).unwrap();
        let settings = Settings { boot: "first".to_owned(), remembers: true, ..Settings::default() };
        let full = FileSystem {
            total_bytes: 1 << 40,
            available_bytes: 0,
            total_inodes: 1_000,
            available_inodes: 1_000,
            release: Release::Shown,
        };
        let mut node = EngineOnly {
            engine: Engine::new(settings, opened.memory),
            store: Store::open(&place.directory).unwrap(),
            filesystem: Some(full),
            catalog: Some(opened.catalog),
        };
        let id = PolicyRef {
            kind: Kind::CheckpointStoragePolicy,
            namespace: None,
            name: "full".to_owned(),
            part: None,
        };
        let storage = StoragePolicy {
            min_free_bytes: Some(1 << 30),
            reserved: checkpoint_keeper_core::quantity::Share::percent(0),
            protect_latest: Some(0),
            ..StoragePolicy::silent(id, LabelSelector::default())
        };
        let policies = PolicySet { storage: vec![storage], ..PolicySet::default() };
        node.handle(Input::Config(EngineConfig::policies(policies), Haste::NextPlan), now);
        Self(node)
    }

    /// Looks at everything, plans, and carries that out.
    fn plan(&mut self, now: Now) -> (Arc<View>, Vec<Problem>) {
        let Self(node) = self;
        let mut problems = node.handle(Input::Sweep, now).problems;
        let planned = node.handle(Input::Tick, now);
        problems.extend(planned.problems);
        for deletion in planned.deletions {
            let removal = node.store.remove(&deletion.archive.file, &deletion.stat);
            problems.extend(node.handle(Input::Deleted(Outcome { deletion, removal }), now).problems);
        }
        // What is to be remembered of its end.
        node.handle(Input::Stop, now);
        (planned.view.unwrap(), problems)
    }
}

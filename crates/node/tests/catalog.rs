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
use checkpoint_keeper_core::plan::{Action, Reason, Release, plan};
use checkpoint_keeper_node::catalog::{Catalog, CatalogError, Changes};
use checkpoint_keeper_node::clock::Now;
use checkpoint_keeper_node::collector::Collector;
use checkpoint_keeper_node::config::{EngineConfig, channel};
use checkpoint_keeper_node::problem::Problem;
use checkpoint_keeper_node::store::{Removal, Store};
use checkpoint_keeper_node::sweeper::Outcome;
use checkpoint_keeper_node::watch::{Event, Watch};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use support::{archive, files, per_container, wait_until, write_old};
use tempfile::TempDir;

const SETTLE: Duration = Duration::from_secs(5);

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
fn look(place: &Place) -> (Collector, Vec<String>) {
    let now = Now::read();
    let mut collector = Collector::new(Store::open(&place.directory).unwrap(), SETTLE);
    let mut problems = collector.remember_in(place.state.clone());
    problems.extend(collector.look(now, &mut |_, _| {}));
    problems.extend(collector.write_catalog());
    (collector, problems.iter().map(ToString::to_string).collect())
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
    let (collector, problems) = look(&place);
    assert_eq!(problems, Vec::<String>::new());
    let state = |path: &std::path::Path| {
        let name = support::name(path.file_name().unwrap().as_encoded_bytes());
        collector.index().get(&name).unwrap().read.as_ref().unwrap().state
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
        let (collector, problems) = look(&place);
        assert_eq!(collector.index().len(), 1, "{what}: the archive is known");
        drop(collector);
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
        let (collector, problems) = look(&place);
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].contains(&format!("{} is not a catalog", place.state.display())), "{problems:?}");
        assert_eq!(collector.index().len(), 1, "collecting goes on without");
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
    let (mut collector, _) = look(&place);
    assert_eq!(collector.flush_catalog().len(), 0);
    let copy = place.state.with_file_name("copy");
    fs::copy(&place.state, &copy).unwrap();
    drop(collector);
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
    let (collector, problems) = look(&place);
    assert_eq!(problems.len(), 1, "{problems:?}");
    let pods = collector.index().iter().map(|(_, known)| known.read.as_ref().unwrap().identity.clone());
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
        let (collector, _) = look(&place);
        // Whatever was believed, it is about the right archives.
        for (name, known) in collector.index().iter() {
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
    let mut collector = Collector::new(Store::open(&place.directory).unwrap(), SETTLE);
    let problems = collector.remember_in(state);
    assert!(matches!(problems.as_slice(), [Problem::Catalog(CatalogError::Open { .. })]), "{problems:?}");
    assert!(
        collector
            .look(Now::read(), &mut |_, _| {})
            .iter()
            .all(|problem| matches!(problem, Problem::Catalog(_)))
    );
    assert_eq!(collector.index().len(), 1);
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
            let mut collector = Collector::new(store, SETTLE);
            assert_eq!(collector.remember_in_new(catalog).len(), 0);
            let interval = Duration::from_millis(20);
            let mut watch = Watch::new(collector, EngineConfig::policies(per_container(3)), interval);
            watch.config_changes = Some(receiver);
            let report = |event: Event<'_>| {
                if let Event::Problem(problem) = event {
                    let _ = say.send(problem.to_string());
                }
            };
            watch.run(stopped, report).unwrap();
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
        config.send(EngineConfig::policies(per_container(1)), true);
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
    let now = Now::read();
    let mut collector = Collector::new(Store::open(&place.directory).unwrap(), SETTLE);
    collector.remember_in_new(catalog);
    assert_eq!(collector.look(now, &mut |_, _| {}).len(), 0);
    assert_eq!(collector.flush_catalog().len(), 1);
    write_old(&place.directory, &archive("server", 2));
    let later = Now { uptime: now.uptime + SETTLE, ..now };
    collector.look(now, &mut |_, _| {});
    collector.look(later, &mut |_, _| {});
    assert_eq!(collector.flush_catalog().len(), 0);
    drop(collector);
    assert_eq!(Catalog::open(&place.state).unwrap().memory.records.len(), 2);
}

/// Whoever deletes a policy while the agent restarts loses nothing for it.
#[test]
fn which_policy_governed_and_what_the_watermark_waits_for_outlive_a_restart() {
    let place = place();
    (0..3).for_each(|second| _ = write_old(&place.directory, &archive("server", second)));
    let (mut collector, _) = look(&place);
    let now = Now::read();
    let mut protecting = per_container(9);
    protecting.retention[0].id.name = "protecting".to_owned();
    let (snapshot, _) = collector.snapshot(now);
    collector.note_governing(&snapshot, &plan(&snapshot, &protecting, now.wall), now);
    // A round that the file system never shows: it can only be as large as all there is.
    let mut full = plan(&snapshot, &per_container(1), now.wall);
    for verdict in full.verdicts.iter_mut().filter(|verdict| verdict.action() == Action::Delete) {
        verdict.reason = Reason::StorageWatermark;
    }
    for mut deletion in collector.mark_for_deletion(&snapshot, &full) {
        let removal = collector.store().remove(&deletion.archive.file, &deletion.stat);
        assert!(matches!(removal, Removal::Removed), "{removal:?}");
        deletion.stat.allocated = u64::MAX / 4;
        collector.finish(&Outcome { deletion, removal }, now);
    }
    assert_eq!(collector.snapshot(now).0.filesystem.unwrap().release, Release::Awaited);
    assert_eq!(collector.flush_catalog().len(), 0);
    drop(collector);
    let (mut collector, _) = look(&place);
    assert_eq!(
        collector.snapshot(now).0.archives[0].governed_by,
        None,
        "policies that do not change hand nothing over"
    );
    collector.follow_policies();
    let (snapshot, _) = collector.snapshot(now);
    assert_eq!(snapshot.filesystem.unwrap().release, Release::Awaited);
    let governed_by = snapshot.archives[0].governed_by.as_ref().map(|policy| policy.name.as_str());
    assert_eq!(governed_by, Some("protecting"));
    assert_eq!(plan(&snapshot, &per_container(1), now.wall).verdicts[0].reason, Reason::Handover);
    // Minutes later, one archive at a time.
    let later = Now { uptime: now.uptime + Duration::from_mins(5), ..now };
    collector.snapshot(later);
    let later = Now { uptime: later.uptime + Duration::from_mins(1), ..now };
    let (snapshot, problems) = collector.snapshot(later);
    assert_eq!(snapshot.filesystem.unwrap().release, Release::Probing);
    assert!(matches!(problems[..], [.., Problem::WatermarkIneffective(1)]), "{problems:?}");
}

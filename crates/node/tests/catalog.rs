//! The catalog: a record counts only for its very file, and no damage stops the collecting.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::fs;
use std::time::Duration;

use checkpoint_keeper_core::archive::State;
use checkpoint_keeper_node::catalog::{Catalog, CatalogError, Changes};
use checkpoint_keeper_node::clock::Now;
use checkpoint_keeper_node::collector::Collector;
use checkpoint_keeper_node::problem::Problem;
use checkpoint_keeper_node::store::Store;
use support::{archive, write_old};
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
    let lies: Vec<_> = opened
        .memory
        .records
        .into_iter()
        .map(|(name, mut record)| {
            record.contents.state = State::Incomplete;
            (name, record)
        })
        .collect();
    opened.catalog.update(Changes { records: &lies, ..Changes::default() }).unwrap();
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
    let (collector, _) = look(&place);
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

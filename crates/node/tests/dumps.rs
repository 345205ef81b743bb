//! What the engine knows of archives that this program had made, and what becomes of a failed dump's file.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use checkpoint_keeper_core::creation::{CreationRequest, DumpEnd, DumpResult};
use checkpoint_keeper_core::engine::clock::Now;
use checkpoint_keeper_core::engine::file::Sighting;
use checkpoint_keeper_core::engine::{Input, Settings};
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::Reason;
use checkpoint_keeper_core::policy::{Kind, PolicyRef, PolicySet, ScheduleRetention};
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::driver::CatalogUse;
use jiff::Timestamp;
use support::{Hand, SETTLE, archive, by_hand, files, name};
use tempfile::TempDir;

/// A dump of `app` in `team/web-0` that began when the archives of these tests say they were taken.
fn end(result: DumpResult, now: Now) -> DumpEnd {
    let request = CreationRequest {
        api_version: "checkpoint-keeper.io/v1alpha1".to_owned(),
        namespace: "team".to_owned(),
        name: "nightly".to_owned(),
        uid: "u1".to_owned(),
        trigger: "Schedule".to_owned(),
        due: now.wall,
    };
    DumpEnd {
        namespace: "team".to_owned(),
        pod: "web-0".to_owned(),
        container: "app".to_owned(),
        started: "2026-01-01T06:00:00Z".parse().unwrap(),
        ended: now.wall,
        requests: vec![request],
        result,
    }
}

fn file_of(path: &Path) -> FileName {
    name(path.file_name().unwrap().as_encoded_bytes())
}

/// Long enough after now for files that were just written.
fn settled() -> Now {
    let now = clock::now();
    Now { wall: now.wall.checked_add(SETTLE).unwrap(), uptime: now.uptime + SETTLE }
}

fn hand(directory: &TempDir, state: &TempDir, now: Now) -> Hand {
    let settings = Settings { remembers: true, ..by_hand() };
    let mut hand = Hand::new(directory.path(), settings, CatalogUse::File(state.path().join("catalog")), now);
    assert_eq!(hand.look(now), [""; 0]);
    hand
}

fn keeps_one() -> PolicySet {
    let id = PolicyRef {
        kind: Kind::CheckpointSchedule,
        namespace: Some("team".to_owned()),
        name: "nightly".to_owned(),
        part: None,
    };
    let schedule = ScheduleRetention { id, uid: "u1".to_owned(), keep_latest: 1, max_age: None };
    PolicySet { schedules: vec![schedule], ..PolicySet::default() }
}

#[test]
fn a_schedule_replaces_what_it_had_made_and_nothing_else_also_after_a_restart() {
    let (directory, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let paths: Vec<_> =
        (1..5).map(|second| archive("app", second).write_to(directory.path()).unwrap()).collect();
    let now = settled();
    let mut first = hand(&directory, &state, now);
    for path in &paths[1..] {
        assert_eq!(
            first.input(Input::Dumped(end(DumpResult::Made { file: file_of(path) }, now)), now),
            [""; 0]
        );
    }
    assert_eq!(first.flush(), [""; 0]);
    drop(first);

    let mut second = hand(&directory, &state, now);
    // A mode that is changed makes no other archive of it.
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    std::fs::set_permissions(&paths[2], permissions).unwrap();
    second.look_at(&file_of(&paths[2]), Sighting::Again, now);
    let now = Now { wall: now.wall.checked_add(SETTLE).unwrap(), uptime: now.uptime + SETTLE };
    second.look(now);
    let view = second.plan(&keeps_one(), now);
    let gone = view.plan.deletions().map(|place| view.snapshot.archives[place].file.clone());
    let gone: BTreeSet<FileName> = gone.collect();
    assert_eq!(gone, BTreeSet::from([file_of(&paths[1]), file_of(&paths[2])]));
    assert_eq!(second.carry_out(now), 2);
    assert_eq!(files(directory.path()).len(), 2);
}

#[test]
fn what_a_failed_dump_left_goes_whether_its_end_or_its_file_is_seen_first() {
    for is_end_first in [true, false] {
        let (directory, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let now = clock::now();
        let mut hand = hand(&directory, &state, now);
        let left = archive("app", 1).truncate(700).write_to(directory.path()).unwrap();
        let others = archive("other", 1).truncate(700).write_to(directory.path()).unwrap();
        let now = clock::now();
        let tell = |hand: &mut Hand| {
            assert_eq!(hand.input(Input::Dumped(end(DumpResult::Failed, now)), now), [""; 0]);
        };
        if is_end_first {
            tell(&mut hand);
        }
        hand.look_at(&file_of(&left), Sighting::Again, now);
        hand.look_at(&file_of(&others), Sighting::Again, now);
        let later = Now { wall: now.wall.checked_add(SETTLE).unwrap(), uptime: now.uptime + SETTLE };
        hand.tick(later);
        assert!(hand.index().get(&file_of(&left)).unwrap().read.is_some());
        if !is_end_first {
            tell(&mut hand);
        }
        let view = hand.plan(&PolicySet::default(), later);
        let reasons = |file: &FileName| {
            let place = view.snapshot.archives.iter().position(|archive| archive.file == *file).unwrap();
            view.plan.verdicts[place].reason
        };
        assert_eq!(reasons(&file_of(&left)), Reason::FailedDump, "end first: {is_end_first}");
        assert_eq!(reasons(&file_of(&others)), Reason::NoPolicy);
        assert_eq!(hand.carry_out(later), 1);
        assert!(!left.exists() && others.exists());
    }
}

#[test]
fn an_end_that_was_long_ago_marks_nothing() {
    let (directory, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let now = clock::now();
    let mut hand = hand(&directory, &state, now);
    let mut told = end(DumpResult::Failed, now);
    told.ended = Timestamp::MAX;
    hand.input(Input::Dumped(told), now);
    let left = archive("app", 1).truncate(700).write_to(directory.path()).unwrap();
    let hour = Duration::from_hours(1);
    let later = Now { wall: now.wall.checked_add(hour).unwrap(), uptime: now.uptime + hour };
    hand.look(later);
    hand.look(Now { wall: later.wall.checked_add(SETTLE).unwrap(), uptime: later.uptime + SETTLE });
    let known = hand.index().get(&file_of(&left)).unwrap();
    assert!(known.read.is_some() && known.creation().is_none());
}

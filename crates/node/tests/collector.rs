//! Looking, remembering, and what a snapshot says of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::fs;
use std::time::Duration;

use checkpoint_keeper_core::plan::{Clock, Reason, Release, plan};
use checkpoint_keeper_core::policy::Retention;
use checkpoint_keeper_node::clock::Now;
use checkpoint_keeper_node::collector::Collector;
use checkpoint_keeper_node::store::{Removal, Store};
use checkpoint_keeper_node::sweeper::{self, Outcome};
use jiff::{Timestamp, ToSpan};
use support::{archive, files, name, per_container, policy, write_old};
use tempfile::TempDir;

const SETTLE: Duration = Duration::from_secs(5);

fn collector(directory: &TempDir, now: Now) -> Collector {
    let mut collector = Collector::new(Store::open(directory.path()).unwrap(), SETTLE);
    assert_eq!(collector.look(now, &mut |_, _| {}).len(), 0);
    collector
}

fn later(now: Now, wall: Duration, uptime: Duration) -> Now {
    Now { wall: now.wall.checked_add(wall).unwrap(), uptime: now.uptime + uptime }
}

#[test]
fn a_clock_that_jumps_pauses_rules_by_time_and_no_others() {
    let directory = TempDir::new().unwrap();
    let recent = Timestamp::now().checked_sub(2.hours()).unwrap();
    for second in 0..3_i64 {
        let at = recent.checked_add(second.seconds()).unwrap();
        let archive = archive("server", 1).at(&format!("{at:.0}"));
        support::age(&archive.write_to(directory.path()).unwrap());
    }
    let by_age = policy(Retention { max_age: Some(Duration::from_hours(24)), ..Retention::default() });
    let start = Now::read();
    let mut collector = collector(&directory, start);
    let reasons = |collector: &mut Collector, now: Now, policies: &_| -> Vec<Reason> {
        let (snapshot, _) = collector.snapshot(now);
        let mut reasons: Vec<_> =
            plan(&snapshot, policies, now.wall).verdicts.iter().map(|verdict| verdict.reason).collect();
        reasons.sort();
        reasons
    };
    let minute = Duration::from_mins(1);
    // Somebody sets the clock to next year.
    let jumped = later(start, Duration::from_hours(24 * 365), minute);
    assert_eq!(collector.snapshot(jumped).0.clock, Clock::Suspect);
    assert_eq!(
        reasons(&mut collector, jumped, &by_age),
        [Reason::KeepLatest, Reason::ClockSuspect, Reason::ClockSuspect]
    );
    let by_count = [Reason::WithinLimits, Reason::MaxCountPerContainer, Reason::MaxCountPerContainer];
    assert_eq!(reasons(&mut collector, jumped, &per_container(1)), by_count);
    // And back.
    let back = later(start, 2 * minute, 2 * minute);
    assert_eq!(reasons(&mut collector, back, &by_age), [Reason::WithinLimits; 3]);
    // A year that really passes is another matter.
    let year = Duration::from_hours(24 * 365);
    assert_eq!(
        reasons(&mut collector, later(start, year, year), &by_age),
        [Reason::KeepLatest, Reason::MaxAge, Reason::MaxAge]
    );
}

#[test]
fn an_archive_seen_changing_settles_by_the_clock_that_nobody_sets() {
    let directory = TempDir::new().unwrap();
    let start = Now::read();
    let mut collector = collector(&directory, start);
    let path = archive("server", 1).write_to(directory.path()).unwrap();
    let file = name(path.file_name().unwrap().as_encoded_bytes());
    collector.look_at(&[(file.clone(), false)], start);
    // The wall clock jumps ahead; whoever writes is still writing.
    let jumped = later(start, Duration::from_hours(1), Duration::from_secs(1));
    collector.look(jumped, &mut |_, _| {});
    assert!(collector.index().get(&file).unwrap().read.is_none());
    assert_eq!(collector.settles_in(jumped), Some(Duration::from_secs(4)));
    let settled = later(start, Duration::from_secs(5), Duration::from_secs(5));
    assert!(collector.look_at_unsettled(settled).0);
    assert!(collector.index().get(&file).unwrap().read.is_some());
}

/// Each gives a token for a deletion, so nothing may arrive twice.
#[test]
fn an_archive_arrives_once_and_what_lay_there_does_not() {
    let (directory, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let now = Now::read();
    let there = write_old(directory.path(), &archive("server", 1));
    let open = || {
        let mut collector = Collector::new(Store::open(directory.path()).unwrap(), SETTLE);
        assert!(collector.remember_in(state.path().join("catalog")).is_empty());
        collector.look(now, &mut |_, _| {});
        collector
    };
    let see = |collector: &mut Collector, path: &std::path::Path| {
        collector.look_at(&[(name(path.file_name().unwrap().as_encoded_bytes()), true)], now);
        collector.look_at_unsettled(now);
        collector.take_arrivals().values().sum::<u64>()
    };
    // Its change time changes, and then its bytes.
    let touch = |path: &std::path::Path| {
        let other = path.with_added_extension("link");
        fs::hard_link(path, &other).unwrap();
        fs::remove_file(other).unwrap();
    };
    let append = |path: &std::path::Path| {
        fs::File::options().append(true).open(path).unwrap().set_len(1 << 20).unwrap();
    };
    let mut first = open();
    assert_eq!(first.take_arrivals().len(), 0);
    touch(&there);
    assert_eq!(see(&mut first, &there), 0);
    let came = write_old(directory.path(), &archive("server", 2));
    assert_eq!(see(&mut first, &came), 1);
    touch(&came);
    assert_eq!(see(&mut first, &came), 0);
    append(&came);
    assert_eq!(see(&mut first, &came), 0);
    assert!(first.write_catalog().is_empty());
    drop(first);
    let mut second = open();
    assert_eq!(second.take_arrivals().len(), 0);
    touch(&there);
    append(&came);
    assert_eq!((see(&mut second, &there), see(&mut second, &came)), (0, 0));
    // Another file is another archive, whatever its name.
    let another = directory.path().join("new");
    fs::write(&another, archive("server", 2).build().unwrap()).unwrap();
    fs::rename(&another, &came).unwrap();
    assert_eq!(see(&mut second, &came), 1);
}

#[test]
fn a_condemned_archive_counts_as_gone_until_its_deletion_fails() {
    let directory = TempDir::new().unwrap();
    let now = Now::read();
    (0..3).for_each(|second| _ = write_old(directory.path(), &archive("server", second)));
    let mut collector = collector(&directory, now);
    let (snapshot, _) = collector.snapshot(now);
    let deletions = collector.condemn(&snapshot, &plan(&snapshot, &per_container(1), now.wall));
    assert_eq!(deletions.len(), 2);
    let (snapshot, _) = collector.snapshot(now);
    assert_eq!(snapshot.archives.len(), 1, "a second plan does not decide about them again");
    assert_eq!(snapshot.filesystem.unwrap().release, Release::Awaited);
    for deletion in deletions {
        let removal = Removal::Failed(std::io::ErrorKind::PermissionDenied.into());
        collector.finish(&Outcome { deletion, removal }, now);
    }
    assert_eq!(collector.snapshot(now).0.archives.len(), 3);
}

#[test]
fn another_archive_of_the_same_name_is_not_forgotten_with_the_old_one() {
    let directory = TempDir::new().unwrap();
    let now = Now::read();
    (0..2).for_each(|second| _ = write_old(directory.path(), &archive("server", second)));
    let mut collector = collector(&directory, now);
    let (snapshot, _) = collector.snapshot(now);
    let deletions = collector.condemn(&snapshot, &plan(&snapshot, &per_container(1), now.wall));
    let store = std::sync::Arc::clone(collector.store());
    let mut outcomes = Vec::new();
    sweeper::sweep(&store, deletions, |outcome| outcomes.push(outcome));
    // Two checkpoints within one second have one name: here comes the second, before anybody has
    // looked at what became of the first.
    let again = archive("server", 0).write_to(directory.path()).unwrap();
    let file = name(again.file_name().unwrap().as_encoded_bytes());
    collector.look_at(&[(file.clone(), true)], now);
    outcomes.iter().for_each(|outcome| collector.finish(outcome, now));
    assert!(collector.index().get(&file).is_some());
    assert_eq!(collector.snapshot(now).0.archives.len(), 2);
}

#[test]
fn markers_whose_archive_is_gone_are_removed_after_a_day_if_they_are_empty_or_ours() {
    let directory = TempDir::new().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    let beside = write_old(directory.path(), &archive("server", 1));
    fs::write(beside.with_added_extension("keep"), "").unwrap();
    write("checkpoint-empty.tar.keep", "");
    write("checkpoint-ours.tar.keep", r#"{"managedBy": "checkpoint-keeper", "reason": "x"}"#);
    write("checkpoint-theirs.tar.keep", r#"{"managedBy": "somebody"}"#);
    write("checkpoint-text.tar.keep", "incident 4711");
    write("checkpoint-begun.tar.keep.tmp", "");
    fs::create_dir(directory.path().join("checkpoint-directory.tar.keep")).unwrap();
    write("notes.keep", "");
    let all = files(directory.path());
    let now = Now::read();
    let mut collector = collector(&directory, now);
    assert_eq!(collector.clear_litter(now), 0, "not before a day has passed");
    assert_eq!(files(directory.path()), all);
    let day = Duration::from_hours(25);
    let tomorrow = later(now, day, day);
    collector.look(tomorrow, &mut |_, _| {});
    assert_eq!(collector.clear_litter(tomorrow), 3);
    let gone: Vec<String> = all.difference(&files(directory.path())).cloned().collect();
    assert_eq!(
        gone,
        ["checkpoint-begun.tar.keep.tmp", "checkpoint-empty.tar.keep", "checkpoint-ours.tar.keep"]
    );
}

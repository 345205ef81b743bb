//! Looking, remembering, and what a snapshot says of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_core::plan::{Clock, Reason, Release, plan};
use checkpoint_keeper_core::policy::{PolicySet, Retention};
use checkpoint_keeper_node::clock::Now;
use checkpoint_keeper_node::collector::Collector;
use checkpoint_keeper_node::discard::DiscardResult;
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
    let deletions = collector.mark_for_deletion(&snapshot, &plan(&snapshot, &per_container(1), now.wall));
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
    let deletions = collector.mark_for_deletion(&snapshot, &plan(&snapshot, &per_container(1), now.wall));
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

/// Watches for so long, with a look an hour, and then removes what is litter by now.
fn watch_for(collector: &mut Collector, hours: u32, now: &mut Now) -> usize {
    for _ in 0..hours {
        *now = later(*now, Duration::from_hours(1), Duration::from_hours(1));
        collector.look(*now, &mut |_, _| {});
    }
    collector.clear_litter()
}

#[test]
fn markers_whose_archive_is_away_for_a_day_are_removed_if_they_are_empty_or_ours() {
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
    let mut now = Now::read();
    let mut collector = collector(&directory, now);
    assert_eq!(watch_for(&mut collector, 23, &mut now), 0, "not before a day has passed");
    assert_eq!(files(directory.path()), all);
    assert_eq!(watch_for(&mut collector, 1, &mut now), 3);
    let gone: Vec<String> = all.difference(&files(directory.path())).cloned().collect();
    assert_eq!(
        gone,
        ["checkpoint-begun.tar.keep.tmp", "checkpoint-empty.tar.keep", "checkpoint-ours.tar.keep"]
    );
}

/// pinned is forever, also while somebody moves the archive out and back in.
#[test]
fn a_pin_outlives_the_absence_of_its_archive() {
    let (directory, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let path = write_old(directory.path(), &archive("server", 1));
    let away = elsewhere.path().join("away");
    let file = name(path.file_name().unwrap().as_encoded_bytes());
    let marker = path.with_added_extension("keep");
    fs::write(&marker, "").unwrap();
    support::age(&marker);
    let start = Now::read();
    let mut now = start;
    let mut collector = collector(&directory, now);
    let month = Duration::from_hours(24 * 31);
    now = later(now, month, month);
    collector.look(now, &mut |_, _| {});
    // Moved out, and the marker is a month old by then.
    fs::rename(&path, &away).unwrap();
    assert_eq!(watch_for(&mut collector, 23, &mut now), 0);
    // A wrong clock is not time that passed.
    now = later(now, month, Duration::ZERO);
    collector.look(now, &mut |_, _| {});
    assert_eq!(collector.clear_litter(), 0);
    // It came for a moment between two looks: whoever moves it about is not done with it.
    fs::rename(&away, &path).unwrap();
    collector.look_at(&[(file.clone(), true)], now);
    fs::rename(&path, &away).unwrap();
    collector.look_at(&[(file.clone(), false)], now);
    assert_eq!(watch_for(&mut collector, 23, &mut now), 0);
    fs::rename(&away, &path).unwrap();
    collector.look(now, &mut |_, _| {});
    assert!(collector.index().get(&file).unwrap().pinned);
    // One look is none that watches, whatever the ages.
    fs::rename(&path, &away).unwrap();
    let mut once = Collector::new(Store::open(directory.path()).unwrap(), SETTLE);
    once.look(now, &mut |_, _| {});
    assert_eq!(once.clear_litter(), 0);
    assert!(marker.exists());
}

#[test]
fn for_how_long_an_archive_was_away_adds_up_over_restarts() {
    let (directory, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let marker = directory.path().join("checkpoint-gone.tar.keep");
    fs::write(&marker, "").unwrap();
    let mut now = Now::read();
    for round in 0..3 {
        let mut collector = Collector::new(Store::open(directory.path()).unwrap(), SETTLE);
        assert!(collector.remember_in(state.path().join("catalog")).is_empty());
        collector.look(now, &mut |_, _| {});
        assert_eq!(watch_for(&mut collector, 8, &mut now), usize::from(round == 2));
        assert!(collector.write_catalog().is_empty());
        drop(collector);
        // Nobody watches for a year.
        let year = Duration::from_hours(24 * 365);
        now = later(now, year, year);
    }
    assert!(!marker.exists());
}

#[test]
fn a_marker_that_pins_nothing_is_said() {
    let directory = TempDir::new().unwrap();
    let misnamed = "checkpoint-web-0_team-server-2026-01-01T06:00:01Z.keep";
    for file in [misnamed, "checkpoint-web-0_team-server-2026-01-01T06:00:01Z.tar.keep", "notes.keep"] {
        fs::write(directory.path().join(file), "").unwrap();
    }
    let now = Now::read();
    let mut collector = Collector::new(Store::open(directory.path()).unwrap(), SETTLE);
    let problems: Vec<String> = collector.look(now, &mut |_, _| {}).iter().map(ToString::to_string).collect();
    assert!(matches!(&*problems, [problem] if problem.starts_with(misnamed)), "{problems:?}");
}

/// Puts a whole archive of unknown identity there, as if it had been there for long.
fn write_nameless(directory: &TempDir, file: &str) -> PathBuf {
    let path = directory.path().join(file);
    let spec = b"{}".as_slice();
    fs::write(&path, archive("server", 0).runtime_name(Some("ledger")).spec_json(spec).build().unwrap())
        .unwrap();
    support::age(&path);
    path
}

/// Carries out what a plan without policies deletes, and says how much that was.
fn carry_out(collector: &mut Collector, now: Now) -> usize {
    let (snapshot, _) = collector.snapshot(now);
    let deletions = collector.mark_for_deletion(&snapshot, &plan(&snapshot, &PolicySet::default(), now.wall));
    let (store, mut outcomes) = (Arc::clone(collector.store()), Vec::new());
    sweeper::sweep(&store, deletions, |outcome| outcomes.push(outcome));
    outcomes.iter().for_each(|outcome| collector.finish(outcome, now));
    outcomes.len()
}

#[test]
fn a_request_to_discard_is_for_the_file_that_was_there_and_carried_out_once() {
    let (directory, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let now = Now::read();
    let open = || {
        let mut collector = Collector::new(Store::open(directory.path()).unwrap(), SETTLE);
        assert!(collector.remember_in(state.path().join("catalog")).is_empty());
        collector.look(now, &mut |_, _| {});
        collector
    };
    let known = write_old(directory.path(), &archive("server", 1));
    let known = known.file_name().unwrap().to_str().unwrap();
    let [there, later, changed] = ["there", "later", "changed"].map(|file| format!("checkpoint-{file}.tar"));
    for file in [&there, &changed] {
        write_nameless(&directory, file);
    }
    let mut collector = open();
    let requested: BTreeSet<_> = [known, &there, &later, &changed].map(name).into();
    assert_eq!(collector.set_discards(&requested).len(), 0);
    fs::remove_file(directory.path().join(&changed)).unwrap();
    for file in [&later, &changed] {
        write_nameless(&directory, file);
    }
    collector.look(now, &mut |_, _| {});
    // What is new has settled by then.
    let now = self::later(now, SETTLE, SETTLE);
    collector.look_at_unsettled(now);
    let results = |collector: &Collector| -> Vec<_> {
        let result =
            |file: &str| collector.discard_results().find(|(known, _)| **known == name(file)).unwrap().1;
        [known, &there, &later, &changed].iter().map(|file| result(file)).collect()
    };
    assert_eq!(carry_out(&mut collector, now), 1);
    let answered = [
        Some(DiscardResult::IdentityKnown),
        Some(DiscardResult::Deleted),
        Some(DiscardResult::NotFound),
        Some(DiscardResult::Changed),
    ];
    assert_eq!(results(&collector), answered);
    // Once, and also after a restart, before and after the request is seen again.
    write_nameless(&directory, &there);
    assert!(collector.write_catalog().is_empty());
    drop(collector);
    let mut collector = open();
    assert_eq!(carry_out(&mut collector, now), 0);
    assert_eq!(collector.set_discards(&requested).len(), 0);
    assert_eq!(carry_out(&mut collector, now), 0);
    assert_eq!(results(&collector), answered);
    // A new request is for what is there now.
    collector.set_discards(&BTreeSet::new());
    collector.set_discards(&[name(&there)].into());
    assert_eq!(carry_out(&mut collector, now), 1);
    assert!(directory.path().join(&later).exists() && directory.path().join(&changed).exists());
}

/// Somebody may be writing it still.
#[test]
fn what_has_not_settled_is_not_discarded() {
    let directory = TempDir::new().unwrap();
    let now = Now::read();
    let mut collector = collector(&directory, now);
    let path = write_nameless(&directory, "checkpoint-unread.tar");
    collector.look(now, &mut |_, _| {});
    collector.set_discards(&[name(path.file_name().unwrap().as_encoded_bytes())].into());
    assert_eq!(carry_out(&mut collector, now), 0);
    let settled = later(now, SETTLE, SETTLE);
    collector.look(settled, &mut |_, _| {});
    assert_eq!(carry_out(&mut collector, settled), 1, "read by now");
}

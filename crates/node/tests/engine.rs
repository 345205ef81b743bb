//! Looking, remembering, and what a snapshot says of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_core::deletion_limiter::DeletionLimiter;
use checkpoint_keeper_core::engine::clock::Now;
use checkpoint_keeper_core::engine::config::EngineConfig;
use checkpoint_keeper_core::engine::discard::{DiscardReport, DiscardResult};
use checkpoint_keeper_core::engine::file::{Deletion, Outcome, ReadArchive, Removal, Sighting};
use checkpoint_keeper_core::engine::memory::Memory;
use checkpoint_keeper_core::engine::{Effect, Engine, Haste, Input, Settings, View};
use checkpoint_keeper_core::plan::{Clock, Reason, Release};
use checkpoint_keeper_core::policy::{PolicySet, Retention};
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::driver::CatalogUse;
use checkpoint_keeper_node::store::Store;
use checkpoint_keeper_testkit::ArchiveBuilder;
use jiff::{Timestamp, ToSpan};
use support::{
    EngineOnly, Followed, Hand, SETTLE, archive, by_hand, files, name, per_container, policy, write_old,
};
use tempfile::TempDir;

/// One that has looked.
fn hand(directory: &TempDir, now: Now) -> Hand {
    let mut hand = Hand::new(directory.path(), by_hand(), CatalogUse::None, now);
    assert_eq!(hand.look(now), [""; 0]);
    hand
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
    let start = clock::now();
    let mut hand = hand(&directory, start);
    let reasons = |hand: &mut Hand, now: Now, policies: &_| -> Vec<Reason> {
        let view = hand.plan(policies, now);
        let mut reasons: Vec<_> = view.plan.verdicts.iter().map(|verdict| verdict.reason).collect();
        reasons.sort();
        reasons
    };
    let minute = Duration::from_mins(1);
    // Somebody sets the clock to next year.
    let jumped = later(start, Duration::from_hours(24 * 365), minute);
    assert_eq!(hand.snapshot(jumped).snapshot.clock, Clock::Suspect);
    assert_eq!(
        reasons(&mut hand, jumped, &by_age),
        [Reason::KeepLatest, Reason::ClockSuspect, Reason::ClockSuspect]
    );
    let by_count = [Reason::WithinLimits, Reason::MaxCountPerContainer, Reason::MaxCountPerContainer];
    assert_eq!(reasons(&mut hand, jumped, &per_container(1)), by_count);
    // And back.
    let back = later(start, 2 * minute, 2 * minute);
    assert_eq!(reasons(&mut hand, back, &by_age), [Reason::WithinLimits; 3]);
    // A year that really passes is another matter.
    let year = Duration::from_hours(24 * 365);
    assert_eq!(
        reasons(&mut hand, later(start, year, year), &by_age),
        [Reason::KeepLatest, Reason::MaxAge, Reason::MaxAge]
    );
}

#[test]
fn an_archive_seen_changing_settles_by_the_clock_that_nobody_sets() {
    let directory = TempDir::new().unwrap();
    let start = clock::now();
    let mut hand = hand(&directory, start);
    let path = archive("server", 1).write_to(directory.path()).unwrap();
    let file = name(path.file_name().unwrap().as_encoded_bytes());
    hand.look_at(&file, Sighting::Again, start);
    let is_read = |hand: &Hand| hand.index().get(&file).unwrap().read.is_some();
    // The wall clock jumps ahead; whoever writes is still writing.
    hand.look(later(start, Duration::from_hours(1), Duration::from_secs(1)));
    assert!(!is_read(&hand));
    hand.tick(later(start, Duration::from_hours(1), Duration::from_millis(4_999)));
    assert!(!is_read(&hand));
    hand.tick(later(start, SETTLE, SETTLE));
    assert!(is_read(&hand));
}

/// Each gives a token for a deletion, so nothing may arrive twice.
#[test]
fn an_archive_arrives_once_and_what_lay_there_does_not() {
    let (directory, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let now = clock::now();
    let there = write_old(directory.path(), &archive("server", 1));
    let open = || {
        // Empty, and no time to fill: what may go is what has arrived.
        let settings = Settings { limiter: Some(DeletionLimiter::empty(now.uptime)), ..by_hand() };
        let mut hand =
            Hand::new(directory.path(), settings, CatalogUse::File(state.path().join("catalog")), now);
        assert_eq!(hand.look(now), [""; 0]);
        hand
    };
    let arrived = |hand: &mut Hand| hand.snapshot(now).snapshot.allowance.as_ref().unwrap().arrived.clone();
    let see = |hand: &mut Hand, path: &std::path::Path| {
        hand.look_at(&name(path.file_name().unwrap().as_encoded_bytes()), Sighting::Closed, now);
        arrived(hand).values().sum::<u64>()
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
    assert_eq!(arrived(&mut first).len(), 0);
    touch(&there);
    assert_eq!(see(&mut first, &there), 0);
    let came = write_old(directory.path(), &archive("server", 2));
    assert_eq!(see(&mut first, &came), 1);
    touch(&came);
    assert_eq!(see(&mut first, &came), 1);
    append(&came);
    assert_eq!(see(&mut first, &came), 1);
    assert_eq!(first.flush(), [""; 0]);
    drop(first);
    let mut second = open();
    assert_eq!(arrived(&mut second).len(), 0);
    touch(&there);
    append(&came);
    assert_eq!((see(&mut second, &there), see(&mut second, &came)), (0, 0));
    // Another file is another archive, whatever its name.
    let another = directory.path().join("new");
    fs::write(&another, archive("server", 2).build().unwrap()).unwrap();
    fs::rename(&another, &came).unwrap();
    assert_eq!(see(&mut second, &came), 1);
}

impl EngineOnly {
    fn new(directory: &TempDir, policies: PolicySet, now: Now) -> (Self, Vec<Deletion>) {
        let store = Store::open(directory.path()).unwrap();
        let settings = Settings { settle: SETTLE, ..Settings::default() };
        let engine = Engine::new(settings, Memory::default());
        let mut alone = Self { engine, store, filesystem: None, catalog: None };
        alone.input(Input::Config(EngineConfig::policies(policies), Haste::AtOnce), now);
        let deletions = alone.input(Input::Sweep, now).deletions;
        (alone, deletions)
    }

    /// Hands it in, and a tick after it.
    fn input(&mut self, input: Input, now: Now) -> Followed {
        let mut first = self.handle(input, now);
        let then = self.handle(Input::Tick, now);
        first.deletions.extend(then.deletions);
        Followed { view: then.view.or(first.view.take()), ..first }
    }

    /// The plan that an order to make one leads to.
    fn plan(&mut self, policies: PolicySet, now: Now) -> Arc<View> {
        self.input(Input::Config(EngineConfig::policies(policies), Haste::AtOnce), now).view.unwrap()
    }
}

#[test]
fn an_archive_that_is_being_deleted_counts_as_gone_until_that_fails() {
    let directory = TempDir::new().unwrap();
    let now = clock::now();
    (0..3).for_each(|second| _ = write_old(directory.path(), &archive("server", second)));
    let (mut alone, deletions) = EngineOnly::new(&directory, per_container(1), now);
    assert_eq!(deletions.len(), 2);
    let view = alone.plan(per_container(1), now);
    assert_eq!(view.snapshot.archives.len(), 1, "a second plan does not decide about them again");
    assert_eq!(view.snapshot.filesystem.unwrap().release, Release::Awaited);
    for deletion in deletions {
        let removal = Removal::Failed(std::io::ErrorKind::PermissionDenied.into());
        alone.input(Input::Deleted(Outcome { deletion, removal }), now);
    }
    assert_eq!(alone.plan(PolicySet::default(), now).snapshot.archives.len(), 3);
}

#[test]
fn another_archive_of_the_same_name_is_not_forgotten_with_the_old_one() {
    let directory = TempDir::new().unwrap();
    let now = clock::now();
    (0..2).for_each(|second| _ = write_old(directory.path(), &archive("server", second)));
    let (mut alone, deletions) = EngineOnly::new(&directory, per_container(1), now);
    let [deletion] = <[Deletion; 1]>::try_from(deletions).unwrap();
    let removal = alone.store.remove(&deletion.archive.file, &deletion.stat);
    // Two checkpoints within one second have one name: here comes the second, before anybody has
    // looked at what became of the first.
    let again = archive("server", 0).write_to(directory.path()).unwrap();
    let file = name(again.file_name().unwrap().as_encoded_bytes());
    alone.input(Input::Config(EngineConfig::default(), Haste::NextPlan), now);
    alone.input(Input::Looked(alone.store.look(&file, Sighting::Closed).into_iter().collect()), now);
    alone.input(Input::Deleted(Outcome { deletion, removal }), now);
    assert!(alone.engine.index().get(&file).is_some());
    assert_eq!(alone.plan(PolicySet::default(), now).snapshot.archives.len(), 2);
}

/// What waited was decided about in the directory before.
#[test]
fn nothing_that_waited_is_deleted_in_the_directory_that_took_the_place() {
    let directory = TempDir::new().unwrap();
    let now = clock::now();
    (0..9).for_each(|second| _ = write_old(directory.path(), &archive("server", second)));
    let (mut alone, mut deletions) = EngineOnly::new(&directory, per_container(1), now);
    let deletion = deletions.pop().unwrap();
    let removal = alone.store.remove(&deletion.archive.file, &deletion.stat);
    alone.engine.handle(Input::Deleted(Outcome { deletion, removal }), now);
    alone.engine.handle(Input::DirectoryReplaced, now);
    // It was not listed yet.
    let effects = alone.engine.handle(Input::Tick, now);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Unlink(_))), "{effects:?}");
}

/// Watches for so long, with a look an hour, and says how many files that removed.
fn watch_for(hand: &mut Hand, hours: u32, now: &mut Now) -> usize {
    let path = hand.driver.store().path().to_owned();
    let before = files(&path).len();
    for _ in 0..hours {
        *now = later(*now, Duration::from_hours(1), Duration::from_hours(1));
        hand.look(*now);
    }
    before - files(&path).len()
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
    let mut now = clock::now();
    let mut hand = hand(&directory, now);
    assert_eq!(watch_for(&mut hand, 23, &mut now), 0, "not before a day has passed");
    assert_eq!(files(directory.path()), all);
    assert_eq!(watch_for(&mut hand, 1, &mut now), 3);
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
    let start = clock::now();
    let mut now = start;
    let mut hand = hand(&directory, now);
    let month = Duration::from_hours(24 * 31);
    now = later(now, month, month);
    hand.look(now);
    // Moved out, and the marker is a month old by then.
    fs::rename(&path, &away).unwrap();
    assert_eq!(watch_for(&mut hand, 23, &mut now), 0);
    // A wrong clock is not time that passed.
    now = later(now, month, Duration::ZERO);
    hand.look(now);
    assert!(marker.exists());
    // It came for a moment between two looks: whoever moves it about is not done with it.
    fs::rename(&away, &path).unwrap();
    hand.look_at(&file, Sighting::Closed, now);
    fs::rename(&path, &away).unwrap();
    hand.look_at(&file, Sighting::Again, now);
    assert_eq!(watch_for(&mut hand, 23, &mut now), 0);
    fs::rename(&away, &path).unwrap();
    hand.look(now);
    assert!(hand.index().get(&file).unwrap().pinned);
    // One look is none that watches, whatever the ages.
    fs::rename(&path, &away).unwrap();
    Hand::new(directory.path(), by_hand(), CatalogUse::None, now).look(now);
    assert!(marker.exists());
}

#[test]
fn for_how_long_an_archive_was_away_adds_up_over_restarts() {
    let (directory, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let marker = directory.path().join("checkpoint-gone.tar.keep");
    fs::write(&marker, "").unwrap();
    let mut now = clock::now();
    for round in 0..3 {
        let mut hand =
            Hand::new(directory.path(), by_hand(), CatalogUse::File(state.path().join("catalog")), now);
        hand.look(now);
        assert_eq!(watch_for(&mut hand, 8, &mut now), usize::from(round == 2));
        assert_eq!(hand.flush(), [""; 0]);
        drop(hand);
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
    let now = clock::now();
    let problems = Hand::new(directory.path(), by_hand(), CatalogUse::None, now).look(now);
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
fn carry_out(hand: &mut Hand, now: Now) -> usize {
    hand.snapshot(now);
    hand.carry_out(now)
}

#[test]
fn a_request_to_discard_is_for_the_file_that_was_there_and_carried_out_once() {
    let (directory, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let now = clock::now();
    let open = || {
        let mut hand =
            Hand::new(directory.path(), by_hand(), CatalogUse::File(state.path().join("catalog")), now);
        assert_eq!(hand.look(now), [""; 0]);
        hand
    };
    let known = write_old(directory.path(), &archive("server", 1));
    let known = known.file_name().unwrap().to_str().unwrap();
    let [there, later, changed] = ["there", "later", "changed"].map(|file| format!("checkpoint-{file}.tar"));
    for file in [&there, &changed] {
        write_nameless(&directory, file);
    }
    let mut hand = open();
    let requested: BTreeSet<_> = [known, &there, &later, &changed].map(name).into();
    assert_eq!(hand.discard(requested.clone(), now), [""; 0]);
    fs::remove_file(directory.path().join(&changed)).unwrap();
    for file in [&later, &changed] {
        write_nameless(&directory, file);
    }
    hand.look(now);
    // What is new has settled by then.
    let now = self::later(now, SETTLE, SETTLE);
    hand.tick(now);
    let results = |hand: &Hand| -> Vec<_> {
        [known, &there, &later, &changed].iter().map(|file| hand.discards[&name(file)]).collect()
    };
    assert_eq!(carry_out(&mut hand, now), 1);
    let answered = [
        Some(DiscardResult::IdentityKnown),
        Some(DiscardResult::Deleted),
        Some(DiscardResult::NotFound),
        Some(DiscardResult::Changed),
    ];
    assert_eq!(results(&hand), answered);
    // Once, and also after a restart, before and after the request is seen again.
    write_nameless(&directory, &there);
    assert_eq!(hand.flush(), [""; 0]);
    drop(hand);
    let mut hand = open();
    assert_eq!(carry_out(&mut hand, now), 0);
    assert_eq!(hand.discard(requested.clone(), now), [""; 0]);
    assert_eq!(carry_out(&mut hand, now), 0);
    assert_eq!(results(&hand), answered);
    // A new request is for what is there now.
    hand.discard(BTreeSet::new(), now);
    hand.discard([name(&there)].into(), now);
    assert_eq!(carry_out(&mut hand, now), 1);
    assert!(directory.path().join(&later).exists() && directory.path().join(&changed).exists());
}

/// The state directory may be lost, and the report of what came of requests is not.
#[test]
fn without_a_catalog_a_request_that_was_answered_is_not_carried_out_again() {
    let directory = TempDir::new().unwrap();
    let now = clock::now();
    let [answered, waiting, touched, new] =
        ["answered", "waiting", "touched", "new"].map(|file| format!("checkpoint-{file}.tar"));
    for file in [&answered, &waiting, &touched, &new] {
        write_nameless(&directory, file);
    }
    let report = |result, since| DiscardReport { result, since };
    let whole = |seconds: i64| Timestamp::from_second(now.wall.as_second() + seconds).unwrap();
    let reported = BTreeMap::from([
        (name(&answered), report(Some(DiscardResult::Deleted), whole(-60))),
        (name(&waiting), report(None, whole(60))),
        (name(&touched), report(None, whole(-60))),
        (name("checkpoint-other.tar"), report(Some(DiscardResult::NotFound), whole(-60))),
    ]);
    let mut hand = hand(&directory, now);
    hand.configure(EngineConfig { reported_discards: Arc::new(reported), ..EngineConfig::default() }, now);
    hand.look(now);
    let requested: BTreeSet<_> = [&answered, &waiting, &touched, &new].map(name).into();
    hand.discard(requested.clone(), now);
    let now = later(now, SETTLE, SETTLE);
    hand.look(now);
    assert_eq!(carry_out(&mut hand, now), 2);
    let results: Vec<_> = hand.discards.iter().map(|(file, result)| (file.clone(), *result)).collect();
    let expected = [
        (&answered, DiscardResult::Deleted),
        (&new, DiscardResult::Deleted),
        (&touched, DiscardResult::Changed),
        (&waiting, DiscardResult::Deleted),
    ];
    assert_eq!(results, expected.map(|(file, result)| (name(file), Some(result))));
    assert!([&answered, &touched].iter().all(|file| directory.path().join(file).exists()));
    // A new request is for what is there now.
    hand.discard(BTreeSet::new(), now);
    hand.discard([name(&answered)].into(), now);
    assert_eq!(carry_out(&mut hand, now), 1);
}

/// Somebody may be writing it still.
#[test]
fn what_has_not_settled_is_not_discarded() {
    let directory = TempDir::new().unwrap();
    let now = clock::now();
    let mut hand = hand(&directory, now);
    let path = write_nameless(&directory, "checkpoint-unread.tar");
    hand.look(now);
    hand.discard([name(path.file_name().unwrap().as_encoded_bytes())].into(), now);
    assert_eq!(carry_out(&mut hand, now), 0);
    let settled = later(now, SETTLE, SETTLE);
    hand.look(settled);
    assert_eq!(carry_out(&mut hand, settled), 1, "read by now");
}

#[test]
fn archives_are_read_several_at_once_and_each_is_known_by_its_own_name() {
    let (directory, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let containers: Vec<String> = (0..=400).map(|number| format!("c{number}")).collect();
    for container in &containers {
        ArchiveBuilder::new("team", "web-0", container).write_to(directory.path()).unwrap();
    }
    let now = later(clock::now(), Duration::from_mins(1), Duration::from_mins(1));
    let open = || {
        let catalog = CatalogUse::File(state.path().join("catalog"));
        let mut hand = Hand::new(directory.path(), by_hand(), catalog, now);
        assert_eq!(hand.look(now), [""; 0]);
        hand
    };
    let mut hand = open();
    assert_eq!(hand.index().len(), containers.len());
    for (file, known) in hand.index().iter() {
        let container = &known.identity().unwrap().container;
        assert!(file.to_string().contains(&format!("team-{container}-2")), "{file}: {container}");
    }
    // What was read is remembered.
    assert_eq!(hand.flush(), [""; 0]);
    drop(hand);
    let known = checkpoint_keeper_node::catalog::Catalog::peek(&state.path().join("catalog")).records;
    assert_eq!(known.len(), containers.len());
}

/// A file that is rewritten over and over, or whose times are not told the same way twice.
#[test]
fn what_changes_while_it_is_read_is_read_again_only_when_it_may_have_settled() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("checkpoint-a.tar");
    fs::write(&path, "no archive").unwrap();
    let now = clock::now();
    let store = Store::open(directory.path()).unwrap();
    let settings = Settings { settle: SETTLE, ..Settings::default() };
    let mut engine = Engine::new(settings, Memory::default());
    let looked = store.look(&name("checkpoint-a.tar"), Sighting::Closed).into_iter().collect();
    let effects = engine.handle(Input::Looked(looked), now);
    let [Effect::Read(archives)] = &effects[..] else { panic!("closed: {effects:?}") };
    let (file, stat) = archives[0].clone();
    fs::write(&path, "nor this").unwrap();
    let contents = store.read(&file, &stat);
    let effects = engine.handle(Input::Read(vec![ReadArchive { name: file, stat, contents }]), now);
    assert_eq!(effects.len(), 0);
    engine.handle(Input::Tick, now);
    assert_eq!(engine.wakes_in(now), Some(SETTLE));
}

/// Whose it is may turn out when the disk is back.
#[test]
fn what_the_system_refused_to_have_read_is_not_discarded() {
    let directory = TempDir::new().unwrap();
    let file = name("checkpoint-a.tar");
    fs::write(directory.path().join("checkpoint-a.tar"), "no archive").unwrap();
    let now = later(clock::now(), SETTLE, SETTLE);
    let store = Store::open(directory.path()).unwrap();
    let mut engine = Engine::new(Settings::default(), Memory::default());
    let discard = Some(Arc::new(BTreeSet::from([file.clone()])));
    let config = EngineConfig { discard, ..EngineConfig::default() };
    engine.handle(Input::Config(config, Haste::AtOnce), now);
    // Reads fail, and then they do not.
    for is_away in [true, false] {
        let effects = engine.handle(Input::Listed(store.list()), now);
        let [Effect::Read(archives)] = &effects[..] else { panic!("{effects:?}") };
        let (name, stat) = archives[0].clone();
        let contents =
            if is_away { Err(std::io::Error::other("the disk is away")) } else { store.read(&name, &stat) };
        engine.handle(Input::Read(vec![ReadArchive { name, stat, contents }]), now);
        engine.handle(Input::Tick, now);
        engine.handle(Input::Stats(vec![(file.clone(), store.stat(&file))]), now);
        let effects = engine.handle(Input::FileSystem(store.filesystem()), now);
        let is_deleted = effects.iter().any(|effect| matches!(effect, Effect::Unlink(_)));
        assert_eq!(is_deleted, !is_away);
    }
}

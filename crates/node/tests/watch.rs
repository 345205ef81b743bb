//! The driver at work: bursts, events that get lost, directories that go and come.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Barrier, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use checkpoint_keeper_core::engine::Settings;
use checkpoint_keeper_core::engine::config::EngineConfig;
use checkpoint_keeper_core::policy::PolicySet;
use checkpoint_keeper_node::driver::{CatalogUse, Driver, Event};
use checkpoint_keeper_node::mailbox;
use checkpoint_keeper_node::store::Store;
use support::{SETTLE, archive, files, per_container, wait_until, write_old};
use tempfile::TempDir;

/// A watch on a thread, ended when it goes out of scope.
struct Running {
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
    said: mpsc::Receiver<String>,
}

impl Running {
    fn start(directory: &Path, policies: PolicySet, settle: Duration, interval: Duration) -> Self {
        let (stop, stopped) = UnixStream::pair().unwrap();
        let (say, said) = mpsc::channel();
        let store = Store::open(directory).unwrap();
        store.lock().unwrap();
        let thread = thread::spawn(move || {
            let (_sender, mailbox) = mailbox::channel().unwrap();
            driver(store, settle, policies)
                .run(&mailbox, interval, stopped, |event| {
                    let line = match event {
                        Event::Planned(_) => "planned".to_owned(),
                        Event::Finished(outcome) => {
                            format!("{:?} {}", outcome.removal, outcome.deletion.archive.file)
                        }
                        Event::Problem(problem) => problem.to_string(),
                        other => format!("{other:?}"),
                    };
                    let _ = say.send(line);
                })
                .unwrap();
        });
        Self { stop, thread: Some(thread), said }
    }

    fn wait_for(&self, line: &str) {
        self.next_of(line);
    }

    /// The next line that begins so.
    fn next_of(&self, begin: &str) -> String {
        loop {
            let said =
                self.said.recv_timeout(support::DEADLINE).unwrap_or_else(|_| panic!("never said {begin}"));
            if said.starts_with(begin) {
                return said;
            }
        }
    }

    fn end(mut self) {
        self.stop.write_all(b"x").unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

const HOUR: Duration = Duration::from_hours(1);

fn driver(store: Store, settle: Duration, policies: PolicySet) -> Driver {
    let settings = Settings { settle, ..Settings::default() };
    let (mut driver, _) = Driver::new(store, settings, CatalogUse::None);
    driver.configure(EngineConfig::policies(policies));
    driver
}

/// compat: "ten checkpoints finishing together under limit 30 leave 0–2 of 30 archives".
#[test]
fn a_burst_of_ten_writers_under_limit_thirty_leaves_exactly_the_newest_thirty() {
    for round in 0..20 {
        let directory = TempDir::new().unwrap();
        for second in 0..30 {
            write_old(directory.path(), &archive("server", second));
        }
        let running = Running::start(directory.path(), per_container(30), SETTLE, HOUR);
        running.wait_for("planned");
        let start = Arc::new(Barrier::new(10));
        let writers: Vec<_> = (0..10)
            .map(|writer| {
                let (start, path) = (Arc::clone(&start), directory.path().to_owned());
                thread::spawn(move || {
                    let archive = archive("server", 100 + writer).pages(vec![7; 200_000]);
                    start.wait();
                    archive.write_to(&path).unwrap()
                })
            })
            .collect();
        let written: Vec<_> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        wait_until("thirty are left", || files(directory.path()).len(), |left| *left <= 30);
        running.end();
        let newest: BTreeSet<String> = (10..30)
            .map(|second| archive("server", second).file_name())
            .chain(written.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()))
            .collect();
        assert_eq!(files(directory.path()), newest, "round {round}");
    }
}

#[test]
fn what_takes_time_is_measured_from_the_look_at_everything_to_the_unlink() {
    let directory = TempDir::new().unwrap();
    write_old(directory.path(), &archive("server", 1));
    let running = Running::start(directory.path(), per_container(2), SETTLE, HOUR);
    for line in ["Timed(Sweep, ", "Timed(Read, ", "Timed(Plan, ", "planned"] {
        running.wait_for(line);
    }
    let lines_until = |end: &str| {
        let next = || running.said.recv_timeout(support::DEADLINE).unwrap();
        std::iter::successors(Some(next()), |line| (!line.starts_with(end)).then(next)).collect::<Vec<_>>()
    };
    // Within the limit: nothing is deleted for this one.
    archive("server", 2).write_to(directory.path()).unwrap();
    let lines = lines_until("planned");
    assert!(!lines.iter().any(|line| line.contains("Unlink")), "{lines:?}");
    archive("server", 3).write_to(directory.path()).unwrap();
    let lines = lines_until("Removed");
    let last = |begin: &str| lines.iter().rposition(|line| line.starts_with(begin)).unwrap();
    let order =
        ["Timed(Read, ", "Timed(Plan, ", "planned", "Timed(Unlink, ", "Timed(CloseToUnlink, ", "Removed"];
    assert!(order.map(last).is_sorted(), "{lines:?}");
    running.end();
}

#[test]
fn of_a_deletion_that_does_not_happen_no_time_is_told() {
    let directory = TempDir::new().unwrap();
    let oldest = write_old(directory.path(), &archive("server", 1));
    write_old(directory.path(), &archive("server", 2));
    let (say, said) = mpsc::channel();
    let mut is_first = true;
    let report = move |event: Event<'_>| match event {
        // It is pinned after it was decided about.
        Event::Planned(_) if std::mem::take(&mut is_first) => {
            fs::write(oldest.with_added_extension("keep"), "").unwrap();
        }
        Event::Timed(operation, _) => _ = say.send(format!("{operation:?}")),
        Event::Finished(outcome) => _ = say.send(format!("{:?}", outcome.removal)),
        _ => {}
    };
    run_until(directory.path(), per_container(1), report, || {
        let next = || said.recv_timeout(support::DEADLINE).unwrap();
        let lines: Vec<_> =
            std::iter::successors(Some(next()), |line| (line != "Pinned").then(next)).collect();
        assert!(!lines.iter().any(|line| line.contains("Unlink")), "{lines:?}");
    });
}

#[test]
fn an_archive_is_not_judged_while_it_is_being_written() {
    let directory = TempDir::new().unwrap();
    write_old(directory.path(), &archive("server", 1));
    let running = Running::start(directory.path(), per_container(1), HOUR, HOUR);
    running.wait_for("planned");
    let new = archive("server", 2);
    let bytes = new.build().unwrap();
    let path = directory.path().join(new.file_name());
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&bytes[..bytes.len() / 2]).unwrap();
    // Another archive comes and is closed, so that a plan is made in the middle of the writing.
    archive("engine", 3).write_to(directory.path()).unwrap();
    running.wait_for("planned");
    file.write_all(&bytes[bytes.len() / 2..]).unwrap();
    assert_eq!(files(directory.path()).len(), 3, "the half-written one displaces nothing");
    drop(file);
    running.wait_for("Removed checkpoint-web-0_team-server-2026-01-01T06:00:01Z.tar");
    running.end();
    assert!(path.exists());
}

#[test]
fn an_archive_whose_writer_never_closes_settles_by_time() {
    let directory = TempDir::new().unwrap();
    write_old(directory.path(), &archive("server", 1));
    let settle = Duration::from_millis(300);
    let running = Running::start(directory.path(), per_container(1), settle, HOUR);
    running.wait_for("planned");
    let new = archive("server", 2);
    let mut file = fs::File::create(directory.path().join(new.file_name())).unwrap();
    file.write_all(&new.build().unwrap()).unwrap();
    running.wait_for("Removed checkpoint-web-0_team-server-2026-01-01T06:00:01Z.tar");
    drop(file);
    running.end();
}

#[test]
fn a_marker_put_beside_an_archive_counts_from_then_on() {
    let directory = TempDir::new().unwrap();
    let old = write_old(directory.path(), &archive("server", 1));
    let running = Running::start(directory.path(), per_container(1), SETTLE, HOUR);
    running.wait_for("planned");
    fs::write(old.with_added_extension("keep"), "").unwrap();
    running.wait_for("planned");
    archive("server", 2).write_to(directory.path()).unwrap();
    running.wait_for("planned");
    fs::remove_file(old.with_added_extension("keep")).unwrap();
    running.wait_for("Removed checkpoint-web-0_team-server-2026-01-01T06:00:01Z.tar");
    running.end();
    assert_eq!(files(directory.path()).len(), 1);
}

/// More changes at once than the kernel keeps for us: the sweep heals what the events missed.
#[test]
fn an_overflow_of_rings_leads_to_a_look_at_everything() {
    let directory = TempDir::new().unwrap();
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let (mut stop, stopped) = UnixStream::pair().unwrap();
    let (deaf, hearing) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
    let gates = (Arc::clone(&deaf), Arc::clone(&hearing));
    let thread = thread::spawn(move || {
        let mut first = true;
        let (_sender, mailbox) = mailbox::channel().unwrap();
        driver(store, SETTLE, per_container(3))
            .run(&mailbox, HOUR, stopped, |event| {
                if matches!(event, Event::Planned(_)) && std::mem::take(&mut first) {
                    gates.0.wait();
                    gates.1.wait();
                }
            })
            .unwrap();
    });
    deaf.wait();
    // While it does not listen, the queue fills to the brim, and of the archives it hears nothing.
    for noise in 0..=limit {
        fs::File::create(directory.path().join(format!("noise-{}", noise % 2))).unwrap();
    }
    for second in 0..10 {
        archive("server", second).write_to(directory.path()).unwrap();
    }
    hearing.wait();
    let archives = || files(directory.path()).iter().filter(|file| file.ends_with(".tar")).count();
    wait_until("three are left", archives, |left| *left == 3);
    stop.write_all(b"x").unwrap();
    thread.join().unwrap();
}

#[test]
fn a_directory_that_is_replaced_is_collected_anew() {
    let parent = TempDir::new().unwrap();
    let here = parent.path().join("checkpoints");
    fs::create_dir(&here).unwrap();
    write_old(&here, &archive("server", 1));
    let running = Running::start(&here, per_container(1), SETTLE, Duration::from_millis(100));
    running.wait_for("planned");
    fs::rename(&here, parent.path().join("moved")).unwrap();
    running.wait_for("DirectoryGone");
    fs::create_dir(&here).unwrap();
    running.wait_for("DirectoryReplaced");
    for second in 2..5 {
        archive("server", second).write_to(&here).unwrap();
    }
    wait_until("one is left", || files(&here), |left| left.len() == 1);
    running.end();
    assert_eq!(files(&here).len(), 1);
    assert_eq!(files(&parent.path().join("moved")).len(), 1, "what was moved away is nobody's business");
}

#[test]
fn why_a_directory_cannot_be_looked_at_is_said_and_told_apart_from_its_absence() {
    let parent = TempDir::new().unwrap();
    let (here, moved) = (parent.path().join("checkpoints"), parent.path().join("moved"));
    fs::create_dir(&here).unwrap();
    let running = Running::start(&here, per_container(1), SETTLE, Duration::from_millis(10));
    running.wait_for("planned");
    fs::rename(&here, &moved).unwrap();
    running.wait_for("DirectoryGone");
    std::os::unix::fs::symlink(&here, &here).unwrap();
    let said = running.next_of("Directory");
    let code = format!("code: {}", rustix::io::Errno::LOOP.raw_os_error());
    assert!(said.contains("Look {") && said.contains(&code), "{said}");
    fs::remove_file(&here).unwrap();
    // Once for all looks meanwhile.
    assert_eq!(running.next_of("Directory"), "DirectoryGone");
    fs::rename(&moved, &here).unwrap();
    running.wait_for("planned");
    running.end();
}

#[test]
fn nothing_is_deleted_in_a_directory_that_was_moved_away() {
    let parent = TempDir::new().unwrap();
    let (here, moved) = (parent.path().join("checkpoints"), parent.path().join("moved"));
    fs::create_dir(&here).unwrap();
    write_old(&here, &archive("server", 1));
    let running = Running::start(&here, per_container(1), SETTLE, Duration::from_millis(50));
    running.wait_for("planned");
    fs::rename(&here, &moved).unwrap();
    running.wait_for("DirectoryGone");
    for second in 2..5 {
        archive("server", second).write_to(&moved).unwrap();
    }
    // It comes back with what was put into it meanwhile, and only then is collected.
    assert_eq!(files(&moved).len(), 4);
    fs::rename(&moved, &here).unwrap();
    wait_until("one is left", || files(&here), |left| left.len() == 1);
    running.end();
}

/// A close is anybody's: somebody else's says nothing of the writer who is still at it.
#[test]
fn the_close_of_another_does_not_settle_a_half_written_archive() {
    let directory = TempDir::new().unwrap();
    let mut policies = per_container(1);
    policies.retention[0].incomplete_grace = Some(Duration::from_nanos(1));
    let running = Running::start(directory.path(), policies, HOUR, HOUR);
    running.wait_for("planned");
    let new = archive("server", 2);
    let bytes = new.build().unwrap();
    let path = directory.path().join(new.file_name());
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&bytes[..bytes.len() / 2]).unwrap();
    drop(fs::File::options().append(true).open(&path).unwrap());
    // Something else is rotated, again and again: all that came before has been judged, and what
    // was to go is gone.
    archive("engine", 3).write_to(directory.path()).unwrap();
    for second in 4..7 {
        archive("engine", second).write_to(directory.path()).unwrap();
        running.wait_for(&format!("Removed {}", archive("engine", second - 1).file_name()));
    }
    file.write_all(&bytes[bytes.len() / 2..]).unwrap();
    running.end();
    assert_eq!(fs::read(path).unwrap(), bytes);
}

/// Runs until `done`, with a report that may do as it likes while the watch waits for it.
fn run_until(
    directory: &Path,
    policies: PolicySet,
    report: impl FnMut(Event<'_>) + Send + 'static,
    done: impl FnOnce(),
) {
    run_in_slices(directory, policies, None, report, done);
}

fn run_in_slices(
    directory: &Path,
    policies: PolicySet,
    slice: Option<Duration>,
    report: impl FnMut(Event<'_>) + Send + 'static,
    done: impl FnOnce(),
) {
    let store = Store::open(directory).unwrap();
    let (mut stop, stopped) = UnixStream::pair().unwrap();
    let thread = thread::spawn(move || {
        let mut driver = driver(store, SETTLE, policies);
        slice.into_iter().for_each(|slice| driver.set_slice(slice));
        let (_sender, mailbox) = mailbox::channel().unwrap();
        driver.run(&mailbox, HOUR, stopped, report).unwrap();
    });
    done();
    stop.write_all(b"x").unwrap();
    thread.join().unwrap();
}

/// Unlinking what is large takes long: what waits for that is not as good as gone.
#[test]
fn deletions_that_wait_are_judged_again_by_the_next_plan() {
    let directory = TempDir::new().unwrap();
    let archives: Vec<_> =
        (0..600).map(|second| write_old(directory.path(), &archive("server", second))).collect();
    let newest = archives[301..].to_vec();
    let (say, said) = mpsc::channel();
    let here = directory.path().to_owned();
    let mut is_first = true;
    let mut is_settled = false;
    let report = move |event: Event<'_>| match event {
        Event::Finished(_) if std::mem::take(&mut is_first) => {
            // However long this takes, only what is in flight goes on.
            let begin = std::time::Instant::now();
            while files(&here).len() > 300 && begin.elapsed() < Duration::from_millis(500) {
                thread::yield_now();
            }
            // Somebody tidies up himself, and the limit is kept without any more deletions.
            newest.iter().for_each(|path| fs::remove_file(path).unwrap());
            is_settled = true;
        }
        Event::Planned(view) if is_settled => {
            let _ = say.send((view.snapshot.archives.len(), view.plan.deletions().count()));
        }
        _ => {}
    };
    run_until(directory.path(), per_container(300), report, || {
        assert_eq!(said.recv_timeout(support::DEADLINE).unwrap(), (297, 0));
    });
    assert_eq!(files(directory.path()).len(), 297, "four were in flight");
}

/// As the watermark does: what had to wait for the deletions in flight has its turn when they are done.
#[test]
fn a_plan_that_was_made_while_deletions_were_in_flight_is_followed_by_one_when_they_are_done() {
    // Whether some are in flight at the second plan is up to chance; that never are any is not.
    let is_followed = (0..20).any(|_| {
        let directory = TempDir::new().unwrap();
        (0..30).for_each(|second| _ = write_old(directory.path(), &archive("server", second)));
        let here = directory.path().to_owned();
        let (say, said) = mpsc::channel();
        let mut is_first = true;
        let report = move |event: Event<'_>| match event {
            Event::Finished(_) if std::mem::take(&mut is_first) => {
                archive("server", 100).write_to(&here).unwrap();
            }
            Event::Planned(view) => _ = say.send(view.snapshot.archives.len()),
            _ => {}
        };
        let mut is_followed = false;
        run_until(directory.path(), per_container(1), report, || {
            wait_until("one is left", || files(directory.path()).len(), |left| *left == 1);
            while let Ok(archives) = said.recv_timeout(Duration::from_millis(300)) {
                is_followed |= archives == 1;
            }
        });
        is_followed
    });
    assert!(is_followed);
}

/// So that a queue of any length costs but a few plans.
#[test]
fn a_plan_is_good_for_all_its_deletions_while_there_is_no_news() {
    let directory = TempDir::new().unwrap();
    (0..600).for_each(|second| _ = write_old(directory.path(), &archive("server", second)));
    let plans = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = Arc::clone(&plans);
    let begin = std::time::Instant::now();
    let report = move |event: Event<'_>| {
        if matches!(event, Event::Planned(_)) {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    };
    run_until(directory.path(), per_container(1), report, || {
        wait_until("one is left", || files(directory.path()).len(), |left| *left == 1);
    });
    let plans = plans.load(std::sync::atomic::Ordering::Relaxed);
    let seconds = usize::try_from(begin.elapsed().as_secs()).unwrap();
    assert!(plans <= 1 + seconds, "{plans} plans in {seconds} s");
}

#[test]
fn nothing_is_planned_before_all_that_has_settled_was_read() {
    let directory = TempDir::new().unwrap();
    (0..600).for_each(|second| _ = write_old(directory.path(), &archive("server", second)));
    let (say, said) = mpsc::channel();
    let report = move |event: Event<'_>| {
        if let Event::Planned(view) = event {
            let _ = say.send(view.snapshot.archives.iter().filter(|archive| archive.settled).count());
        }
    };
    // As little at once as can be.
    run_in_slices(directory.path(), PolicySet::default(), Some(Duration::ZERO), report, || {
        assert_eq!(said.recv_timeout(support::DEADLINE).unwrap(), 600);
    });
}

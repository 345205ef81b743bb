//! Wrong clocks: behind, ahead, wrong from boot and set while it runs, with an API server and without. Whatever
//! they wrote, the newest archive stays, and once the clock is right all is judged by it at once.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use checkpoint_keeper_core::plan::{Action, Clock, Dated, Reason, plan};
use checkpoint_keeper_core::pods::{Lookup, LookupResult};
use checkpoint_keeper_core::policy::PolicySet;
use checkpoint_keeper_node::clock::Now;
use checkpoint_keeper_node::collector::Collector;
use checkpoint_keeper_node::problem::Problem;
use checkpoint_keeper_node::resolver::Resolved;
use checkpoint_keeper_node::store::Store;
use jiff::{SignedDuration, Timestamp};
use support::{archive, name, per_container, write_old};
use tempfile::TempDir;

const SETTLE: Duration = Duration::from_secs(5);
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// A node whose clock is off by so many seconds, and what collects on it.
struct Node {
    directory: TempDir,
    state: TempDir,
    collector: Collector,
    /// The true time, and the uptime.
    truth: Now,
    off_by: i64,
    has_server: bool,
    /// Whether its server answers.
    is_heard: bool,
}

impl Node {
    /// With an archive of each of these ages in hours, by the true time.
    fn new(off_by: i64, has_server: bool, ages: &[i64]) -> Self {
        let directory = TempDir::new().unwrap();
        let truth = Now::read();
        let store = Store::open(directory.path()).unwrap();
        let state = TempDir::new().unwrap();
        let collector = Collector::new(store, SETTLE);
        let mut node = Self { directory, state, collector, truth, off_by, has_server, is_heard: true };
        for hours in ages {
            node.write(-hours * HOUR);
        }
        node.start();
        node
    }

    /// Starts, or starts again.
    fn start(&mut self) {
        self.collector = Collector::new(Store::open(self.directory.path()).unwrap(), SETTLE);
        self.collector.remember_in(self.state.path().join("catalog"));
        if self.has_server {
            self.collector.set_cluster(true);
            self.collector.need_server_clock();
        }
        self.collector.look(self.now(), &mut |_, _| {});
        self.hear();
    }

    fn now(&self) -> Now {
        let wall = self.truth.wall.checked_add(SignedDuration::from_secs(self.off_by)).unwrap();
        Now { wall, uptime: self.truth.uptime }
    }

    fn hear(&mut self) {
        if self.has_server && self.is_heard {
            let question = Lookup::Namespace("default".to_owned());
            let finding = LookupResult::NotFound;
            let (at, server_time) = (self.now(), Some(self.truth.wall));
            self.collector.learn(vec![Resolved { question, finding, at, server_time }]);
        }
    }

    fn pass(&mut self, seconds: i64) {
        let length = Duration::from_secs(seconds.unsigned_abs());
        self.truth = Now { wall: self.truth.wall + length, uptime: self.truth.uptime + length };
    }

    /// An archive that says it was taken that much after now, by this node's clock; its name's number.
    fn write(&mut self, seconds: i64) -> String {
        let at = self.truth.wall.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        let path = write_old(self.directory.path(), &archive("server", 1).at(&format!("{at:.0}")));
        set_modified(&path, at);
        path.file_name().unwrap().to_string_lossy().into_owned()
    }

    /// A checkpoint is taken: it is dated by the node's clock, and seen to be closed.
    fn checkpoint(&mut self) -> String {
        self.pass(10);
        let file = self.write(self.off_by);
        let now = self.now();
        self.collector.look_at(&[(name(&file), true)], now);
        self.collector.look_at_unsettled(now);
        self.collector.write_catalog();
        file
    }

    /// Plans, and says what is to go, and why what stays does.
    fn plan(&mut self, policies: &PolicySet) -> (Vec<String>, Vec<(String, Reason)>) {
        // What a clock that is behind calls changed just now has been left alone by then.
        self.pass(10);
        let now = self.now();
        self.collector.look_at_unsettled(now);
        let (snapshot, _) = self.collector.snapshot(now);
        let plan = plan(&snapshot, policies, now.wall);
        let named = snapshot.archives.iter().map(|archive| archive.file.to_string());
        let decided = named.zip(&plan.verdicts);
        let (gone, kept): (Vec<_>, Vec<_>) =
            decided.partition(|(_, verdict)| verdict.action() == Action::Delete);
        let kept = kept.into_iter().map(|(file, verdict)| (file, verdict.reason)).collect();
        (gone.into_iter().map(|(file, _)| file).collect(), kept)
    }

    fn gone(&mut self, most: u64) -> usize {
        self.plan(&per_container(most)).0.len()
    }

    fn clock(&mut self) -> Clock {
        let now = self.now();
        self.collector.snapshot(now).0.clock
    }
}

fn set_modified(path: &std::path::Path, at: Timestamp) {
    let file = std::fs::File::options().append(true).open(path).unwrap();
    let since = Duration::try_from(at.duration_since(Timestamp::UNIX_EPOCH)).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH + since).unwrap();
}

/// Offsets of clocks that are wrong: behind and ahead, by little more than is tolerated and by years.
const WRONG: [i64; 6] = [-10 * 60, -2 * DAY, -2_000 * DAY, 10 * 60, 2 * DAY, 2_000 * DAY];

#[test]
fn a_clock_that_is_wrong_from_boot_costs_no_newest_archive_and_all_is_judged_as_soon_as_it_is_right() {
    for off_by in WRONG {
        let mut node = Node::new(off_by, true, &[40, 30, 20, 10, 1]);
        assert_eq!(node.clock(), Clock::Suspect, "{off_by}");
        let (gone, _) = node.plan(&per_container(2));
        // Those that are behind any reading of the clock may be put in order; the newest two are never among them.
        let oldest = node_files(&node, 3);
        assert!(gone.iter().all(|file| oldest.contains(file)), "{off_by}: {gone:?}");
        // Those that come now are dated by a wrong clock, and are the newest all the same.
        let newest = [node.checkpoint(), node.checkpoint()];
        let (gone, _) = node.plan(&per_container(2));
        assert!(newest.iter().all(|file| !gone.contains(file)), "{off_by}: {gone:?}");
        node.pass(2 * HOUR);
        assert!(newest.iter().all(|file| !node.plan(&per_container(2)).0.contains(file)), "{off_by}");
        // It is put right.
        node.off_by = 0;
        assert_eq!(node.clock(), Clock::Trusted, "{off_by}");
        let (gone, kept) = node.plan(&per_container(2));
        assert_eq!(gone.len(), 5, "{off_by}: {kept:?}");
        assert!(newest.iter().all(|file| !gone.contains(file)), "{off_by}: {gone:?}");
    }
}

/// The files of the `count` oldest archives, by what they say.
fn node_files(node: &Node, count: usize) -> Vec<String> {
    let entries = std::fs::read_dir(node.directory.path()).unwrap();
    let mut files: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    files.sort_by_key(|file| name(file).checkpoint_time());
    files.truncate(count);
    files
}

#[test]
fn a_clock_that_is_set_while_it_runs_costs_no_newest_archive() {
    for (off_by, has_server) in WRONG.into_iter().flat_map(|off_by| [(off_by, true), (off_by, false)]) {
        let what = format!("{off_by}, {has_server}");
        let mut node = Node::new(0, has_server, &[4, 3, 2]);
        assert_eq!(node.clock(), Clock::Trusted, "{what}");
        let right = node.checkpoint();
        node.off_by = off_by;
        assert_eq!(node.clock(), Clock::Suspect, "{what}");
        let newest = node.checkpoint();
        let (gone, _) = node.plan(&per_container(1));
        assert!(!gone.contains(&newest), "{what}: {gone:?}");
        // Long enough for the clock to show times that it has shown before.
        node.pass(3 * DAY);
        let latest = node.checkpoint();
        let (gone, _) = node.plan(&per_container(2));
        assert!(!gone.contains(&newest) && !gone.contains(&latest), "{what}: {gone:?}");
        if has_server {
            node.off_by = 0;
            assert_eq!(node.clock(), Clock::Trusted, "{what}");
            let (gone, _) = node.plan(&per_container(2));
            assert_eq!(gone.len(), 4, "{what}: {gone:?}");
            assert!(gone.contains(&right) && !gone.contains(&newest) && !gone.contains(&latest), "{what}");
        }
    }
}

#[test]
fn what_came_by_a_wrong_clock_is_still_the_newest_after_a_restart() {
    for off_by in [-2 * DAY, 2 * DAY] {
        let mut node = Node::new(off_by, true, &[40, 30, 20]);
        let newest = [node.checkpoint(), node.checkpoint()];
        node.start();
        node.pass(60);
        node.off_by = 0;
        assert_eq!(node.clock(), Clock::Trusted);
        let (gone, _) = node.plan(&per_container(2));
        assert_eq!(gone.len(), 3, "{off_by}: {gone:?}");
        assert!(newest.iter().all(|file| !gone.contains(file)), "{off_by}: {gone:?}");
        // And once more, from what is remembered for good.
        node.collector.write_catalog();
        node.start();
        let (gone, _) = node.plan(&per_container(2));
        assert!(gone.len() == 3 && newest.iter().all(|file| !gone.contains(file)), "{off_by}: {gone:?}");
    }
}

#[test]
fn without_a_server_files_that_were_changed_later_tell_on_a_clock_that_is_behind() {
    let mut node = Node::new(-2_000 * DAY, false, &[40, 30, 20, 10, 1]);
    assert_eq!(node.clock(), Clock::Suspect);
    assert_eq!(node.gone(1), 0);
    let now = node.now();
    let problems = node.collector.snapshot(now).1;
    assert!(matches!(problems[..], [Problem::ClockIsBehind]), "{problems:?}");
    // As soon as it is put right.
    node.off_by = 0;
    assert_eq!(node.clock(), Clock::Trusted);
    assert_eq!(node.gone(1), 4);
    // Somebody knows better.
    let mut node = Node::new(-2_000 * DAY, false, &[40, 30]);
    node.collector = Collector::new(Store::open(node.directory.path()).unwrap(), SETTLE);
    node.collector.trust_clock();
    let now = node.now();
    node.collector.look(now, &mut |_, _| {});
    assert_eq!(node.clock(), Clock::Trusted);
}

#[test]
fn what_claims_to_be_from_the_future_or_from_before_2018_is_undated_for_good_and_said_once() {
    let mut node = Node::new(0, true, &[2, 1]);
    let mut problems = Vec::new();
    let mut claimed = Vec::new();
    for seconds in [70 * 365 * DAY, -20 * 365 * DAY] {
        let file = node.write(seconds);
        let now = node.now();
        node.collector.look_at(&[(name(&file), true)], now);
        problems.extend(node.collector.look_at_unsettled(now).1);
        claimed.push(file);
    }
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().all(|problem| problem.to_string().contains("claims to be of")), "{problems:?}");
    for round in 0..3 {
        let (gone, kept) = node.plan(&per_container(2));
        assert_eq!(gone, [""; 0], "{round}");
        let undated = kept.iter().filter(|(_, reason)| *reason == Reason::Undated).count();
        assert_eq!(undated, 2, "{round}: {kept:?}");
        // The time comes, and nothing changes: it was there before.
        node.collector.write_catalog();
        node.pass(40 * 365 * DAY);
        node.start();
    }
    let now = node.now();
    let (snapshot, _) = node.collector.snapshot(now);
    let undated = snapshot.archives.iter().filter(|archive| archive.dated == Dated::Undated);
    assert!(
        undated.map(|archive| archive.taken).all(|taken| taken < node.truth.wall - Duration::from_hours(24))
    );
}

#[test]
fn a_copy_of_an_older_archive_goes_by_what_it_says_whenever_it_comes() {
    let mut node = Node::new(-2 * DAY, true, &[2, 1]);
    node.pass(10);
    let copy = node.write(-100 * DAY);
    let now = node.now();
    node.collector.look_at(&[(name(&copy), true)], now);
    node.collector.look_at_unsettled(now);
    node.off_by = 0;
    assert_eq!(node.plan(&per_container(2)).0, [copy]);
}

/// What is large takes long: its name and its content say when that began, by the clock of then.
#[test]
fn what_is_written_for_long_goes_by_when_that_began_whether_or_not_the_clock_is_put_right_meanwhile() {
    for off_by in [-2 * DAY, 2 * DAY] {
        // Longer than the settle time: what is there by then is read as having been cut off.
        for (is_mended_meanwhile, stalls) in [(false, 4), (true, 4), (false, 60), (true, 60)] {
            let mut node = Node::new(off_by, true, &[40, 30, 20]);
            node.pass(10);
            let newest = node.write(off_by);
            let path = node.directory.path().join(&newest);
            let whole = std::fs::read(&path).unwrap();
            for part in [0, 512, 1_024] {
                std::fs::write(&path, &whole[..part]).unwrap();
                let now = node.now();
                node.collector.look_at(&[(name(&newest), false)], now);
                node.pass(stalls);
                let now = node.now();
                node.collector.look_at_unsettled(now);
            }
            node.off_by *= i64::from(!is_mended_meanwhile);
            // Minutes later, and a moment after the last part.
            node.pass(20 * 60);
            std::fs::write(&path, &whole).unwrap();
            let ended = node.truth.wall.checked_add(SignedDuration::from_secs(node.off_by)).unwrap();
            set_modified(&path, ended);
            let now = node.now();
            node.collector.look_at(&[(name(&newest), true)], now);
            node.collector.look_at_unsettled(now);
            node.off_by = 0;
            node.pass(60);
            assert_eq!(node.clock(), Clock::Trusted);
            let (gone, _) = node.plan(&per_container(1));
            assert_eq!(
                (gone.len(), gone.contains(&newest)),
                (3, false),
                "{off_by} {is_mended_meanwhile} {stalls}: {gone:?}"
            );
        }
    }
}

/// A clock that is far off may itself be why the API cannot be reached.
#[test]
fn what_came_before_the_api_server_was_heard_is_still_the_newest_after_a_restart() {
    let mut node = Node::new(-2 * DAY, true, &[40, 30, 20]);
    node.is_heard = false;
    node.start();
    let newest = [node.checkpoint(), node.checkpoint()];
    node.start();
    node.pass(60);
    (node.off_by, node.is_heard) = (0, true);
    node.hear();
    assert_eq!(node.clock(), Clock::Trusted);
    let (gone, _) = node.plan(&per_container(2));
    assert!(gone.len() == 3 && newest.iter().all(|file| !gone.contains(file)), "{gone:?}");
}

/// It is put right while an archive is being written: what a wrong clock dated is read by a right one.
#[test]
fn what_is_read_after_the_clock_was_put_right_goes_by_when_it_came() {
    for off_by in [-2 * DAY, 2 * DAY] {
        let mut node = Node::new(off_by, true, &[3, 2, 1]);
        node.pass(10);
        let newest = node.write(off_by);
        let now = node.now();
        node.collector.look_at(&[(name(&newest), false)], now);
        node.off_by = 0;
        node.pass(1);
        assert_eq!(node.clock(), Clock::Trusted);
        node.pass(60);
        let (gone, _) = node.plan(&per_container(1));
        assert_eq!((gone.len(), gone.contains(&newest)), (3, false), "{off_by}: {gone:?}");
    }
}

/// Nobody told it better, so it believed a clock that was days ahead. Once that was set back, the time comes again
/// that it showed then.
#[test]
fn what_a_clock_dated_that_was_wrongly_believed_is_never_newer_than_what_came_after_it_was_put_right() {
    for is_started_anew in [false, true] {
        let mut node = Node::new(3 * DAY, false, &[]);
        let ahead = [node.checkpoint(), node.checkpoint()];
        assert_eq!(node.clock(), Clock::Trusted, "nothing says otherwise");
        node.off_by = 0;
        node.pass(HOUR);
        assert_eq!(node.clock(), Clock::Suspect);
        node.collector.write_catalog();
        if is_started_anew {
            node.start();
        }
        let honest = [node.checkpoint(), node.checkpoint()];
        for day in 0..6 {
            let (gone, kept) = node.plan(&per_container(1));
            assert!(!gone.contains(&honest[1]), "{is_started_anew}, day {day}: {gone:?}, {kept:?}");
            node.collector.write_catalog();
            if is_started_anew {
                node.start();
            }
            node.pass(DAY);
        }
        assert_eq!(node.clock(), Clock::Trusted);
        let (gone, kept) = node.plan(&per_container(1));
        assert_eq!(gone, [honest[0].clone()], "{is_started_anew}: {kept:?}");
        assert!(ahead.iter().all(|file| kept.contains(&(file.clone(), Reason::Undated))), "{kept:?}");
    }
}

#[test]
fn what_is_ahead_of_a_clock_that_was_set_back_is_compared_with_nothing_before_anything_is_looked_at_anew() {
    let mut node = Node::new(0, true, &[4, 3, 2]);
    assert_eq!(node.gone(1), 2);
    node.off_by = -DAY;
    assert_eq!(node.clock(), Clock::Suspect);
    let (gone, kept) = node.plan(&per_container(1));
    assert_eq!(gone, [""; 0]);
    assert!(kept.iter().all(|(_, reason)| *reason == Reason::ClockSuspect), "{kept:?}");
    node.off_by = 0;
    assert_eq!(node.gone(1), 2);
}

#[test]
fn what_a_wrong_clock_dated_is_put_in_order_by_its_arrival_also_while_that_clock_is_wrong() {
    for off_by in WRONG {
        let mut node = Node::new(off_by, true, &[]);
        let came = [node.checkpoint(), node.checkpoint(), node.checkpoint()];
        let (mut gone, _) = node.plan(&per_container(1));
        gone.sort_by_key(|file| name(file).checkpoint_time());
        assert_eq!(gone, came[..2], "{off_by}");
    }
}

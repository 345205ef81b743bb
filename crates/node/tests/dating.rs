//! Wrong clocks: behind, ahead, wrong from boot and set while it runs, with an API server and without. Whatever
//! they wrote, the newest archive stays, and once the clock is right all is judged by it at once.
#![allow(clippy::unwrap_used)]

mod support;

use std::time::Duration;

use checkpoint_keeper_core::engine::clock::Now;
use checkpoint_keeper_core::engine::cluster::Resolved;
use checkpoint_keeper_core::engine::file::Sighting;
use checkpoint_keeper_core::engine::{ClusterSettings, NodePods, Settings};
use checkpoint_keeper_core::plan::{Action, Archive, Clock, Dated, Reason};
use checkpoint_keeper_core::pods::{Lookup, LookupResult, RequestBudget};
use checkpoint_keeper_core::policy::PolicySet;
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::driver::CatalogUse;
use jiff::{SignedDuration, Timestamp};
use support::{Hand, archive, by_hand, name, per_container, write_old};
use tempfile::TempDir;

const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;

/// A node whose clock is off by so many seconds, and what collects on it.
struct Node {
    directory: TempDir,
    state: TempDir,
    hand: Hand,
    /// The true time, and the uptime.
    truth: Now,
    off_by: i64,
    has_server: bool,
    /// Whether its server answers.
    is_heard: bool,
    /// Which boot of the machine it is.
    boot: String,
}

impl Node {
    /// With an archive of each of these ages in hours, by the true time.
    fn new(off_by: i64, has_server: bool, ages: &[i64]) -> Self {
        let (directory, state) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        let truth = clock::now();
        let hand = Hand::new(directory.path(), by_hand(), CatalogUse::None, truth);
        let boot = "first".to_owned();
        let mut node = Self { directory, state, hand, truth, off_by, has_server, is_heard: true, boot };
        for hours in ages {
            node.write(-hours * HOUR);
        }
        node.start();
        node
    }

    /// Starts, or starts again.
    fn start(&mut self) {
        self.start_with(by_hand());
    }

    fn start_with(&mut self, settings: Settings) {
        // A catalog is one's only.
        self.hand = Hand::new(self.directory.path(), by_hand(), CatalogUse::None, self.now());
        let budget = RequestBudget::EVERYTHING;
        let cluster = ClusterSettings { budget, node_pods: NodePods::Asked, eager: false };
        let settings = Settings {
            boot: self.boot.clone(),
            needs_server_clock: self.has_server,
            cluster: self.has_server.then_some(cluster),
            ..settings
        };
        let catalog = CatalogUse::File(self.state.path().join("catalog"));
        self.hand = Hand::new(self.directory.path(), settings, catalog, self.now());
        self.hand.look(self.now());
        self.hear();
    }

    /// The machine boots again.
    fn boot(&mut self) {
        assert_eq!(self.hand.flush(), [""; 0]);
        self.truth.uptime = Duration::from_secs(1);
        self.pass(60);
        "second".clone_into(&mut self.boot);
        self.start();
    }

    fn now(&self) -> Now {
        let wall = self.truth.wall.checked_add(SignedDuration::from_secs(self.off_by)).unwrap();
        Now { wall, uptime: self.truth.uptime }
    }

    fn hear(&mut self) {
        if self.has_server && self.is_heard {
            let lookup = Lookup::Namespace("default".to_owned());
            let result = LookupResult::NotFound;
            let (at, server_time) = (self.now(), Some(self.truth.wall));
            self.hand.learn(vec![Resolved { lookup, result, at, server_time }], at);
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
        self.hand.look_at(&name(&file), Sighting::Closed, self.now());
        self.hand.flush();
        file
    }

    /// Plans, and says what is to go, and why what stays does.
    fn plan(&mut self, policies: &PolicySet) -> (Vec<String>, Vec<(String, Reason)>) {
        // What a clock that is behind calls changed just now has been left alone by then.
        self.pass(10);
        let now = self.now();
        self.hand.tick(now);
        let view = self.hand.plan(policies, now);
        let (snapshot, plan) = (&view.snapshot, &view.plan);
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
        self.hand.snapshot(self.now()).snapshot.clock
    }

    /// An archive comes that says it is of then, by its name, its content and its times.
    fn arrive(&mut self, claimed: Timestamp, how: Sighting) {
        let file = self.write(seconds_between(self.truth.wall, claimed));
        self.hand.look_at(&name(&file), how, self.now());
    }

    /// The only archive, as a plan gets it now.
    fn archive(&mut self) -> Archive {
        let now = self.now();
        self.hand.tick(now);
        let archives = &self.hand.snapshot(now).snapshot.archives;
        assert_eq!(archives.len(), 1);
        archives[0].clone()
    }
}

fn seconds_between(begin: Timestamp, end: Timestamp) -> i64 {
    end.duration_since(begin).as_secs()
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
        node.hand.flush();
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
    node.hand.snapshot(node.now());
    let problems = &node.hand.problems;
    assert!(matches!(&problems[..], [problem] if problem.starts_with("the clock is behind")), "{problems:?}");
    // As soon as it is put right.
    node.off_by = 0;
    assert_eq!(node.clock(), Clock::Trusted);
    assert_eq!(node.gone(1), 4);
    // Somebody knows better.
    let mut node = Node::new(-2_000 * DAY, false, &[40, 30]);
    node.start_with(Settings { trusts_clock: true, ..by_hand() });
    assert_eq!(node.clock(), Clock::Trusted);
}

#[test]
fn what_claims_to_be_from_the_future_or_from_before_2018_is_undated_for_good_and_said_once() {
    let mut node = Node::new(0, true, &[2, 1]);
    let mut problems = Vec::new();
    let mut claimed = Vec::new();
    for seconds in [70 * 365 * DAY, -20 * 365 * DAY] {
        let file = node.write(seconds);
        problems.extend(node.hand.look_at(&name(&file), Sighting::Closed, node.now()));
        claimed.push(file);
    }
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().all(|problem| problem.contains("claims to be of")), "{problems:?}");
    for round in 0..3 {
        let (gone, kept) = node.plan(&per_container(2));
        assert_eq!(gone, [""; 0], "{round}");
        let undated = kept.iter().filter(|(_, reason)| *reason == Reason::Undated).count();
        assert_eq!(undated, 2, "{round}: {kept:?}");
        // The time comes, and nothing changes: it was there before.
        node.hand.flush();
        node.pass(40 * 365 * DAY);
        node.start();
    }
    let view = node.hand.snapshot(node.now());
    let undated = view.snapshot.archives.iter().filter(|archive| archive.dated == Dated::Undated);
    assert!(
        undated.map(|archive| archive.taken).all(|taken| taken < node.truth.wall - Duration::from_hours(24))
    );
}

#[test]
fn a_copy_of_an_older_archive_goes_by_what_it_says_whenever_it_comes() {
    let mut node = Node::new(-2 * DAY, true, &[2, 1]);
    node.pass(10);
    let copy = node.write(-100 * DAY);
    node.hand.look_at(&name(&copy), Sighting::Closed, node.now());
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
                node.hand.look_at(&name(&newest), Sighting::Again, node.now());
                node.pass(stalls);
                node.hand.tick(node.now());
            }
            node.off_by *= i64::from(!is_mended_meanwhile);
            // Minutes later, and a moment after the last part.
            node.pass(20 * 60);
            std::fs::write(&path, &whole).unwrap();
            let ended = node.truth.wall.checked_add(SignedDuration::from_secs(node.off_by)).unwrap();
            set_modified(&path, ended);
            node.hand.look_at(&name(&newest), Sighting::Closed, node.now());
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
        node.hand.look_at(&name(&newest), Sighting::Again, node.now());
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
        node.hand.flush();
        if is_started_anew {
            node.start();
        }
        let honest = [node.checkpoint(), node.checkpoint()];
        for day in 0..6 {
            let (gone, kept) = node.plan(&per_container(1));
            assert!(!gone.contains(&honest[1]), "{is_started_anew}, day {day}: {gone:?}, {kept:?}");
            node.hand.flush();
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

#[test]
fn what_a_wrong_clock_dated_goes_by_its_arrival_after_a_boot_if_the_clock_was_right_before_that() {
    for is_restarted in [false, true] {
        let mut node = Node::new(0, false, &[]);
        node.off_by = -2 * DAY;
        node.pass(60);
        let arrived = node.truth.wall;
        node.arrive(node.now().wall, Sighting::Closed);
        assert_eq!(node.archive().dated, Dated::Untrusted);
        node.off_by = 0;
        node.pass(60);
        if is_restarted {
            assert!(node.hand.flush().is_empty());
            node.start();
        }
        for is_booted in [false, true] {
            let archive = node.archive();
            assert_eq!(archive.dated, Dated::Trusted, "{is_restarted}, {is_booted}");
            assert_eq!(archive.taken, arrived, "{is_restarted}, {is_booted}");
            node.boot();
        }
    }
}

#[test]
fn what_a_wrong_clock_dated_is_undated_after_a_boot_if_the_clock_was_not_right_before_that() {
    let mut node = Node::new(0, false, &[]);
    node.off_by = -2 * DAY;
    node.pass(60);
    node.arrive(node.now().wall, Sighting::Closed);
    node.boot();
    assert_eq!(node.archive().dated, Dated::Undated);
    node.off_by = 0;
    node.pass(60);
    let archive = node.archive();
    assert_eq!(archive.dated, Dated::Undated, "nobody knows any more when it came");
}

/// It was seen while the clock was wrong, and read when it was right.
#[test]
fn what_claims_to_be_later_than_its_first_sight_by_a_wrong_clock_stays_undated_after_a_boot() {
    let mut node = Node::new(0, false, &[]);
    node.off_by = -2 * DAY;
    node.pass(60);
    let first_seen = node.truth.wall;
    node.arrive(first_seen + Duration::from_hours(1), Sighting::Again);
    assert!(!node.archive().settled);
    node.off_by = 0;
    node.pass(60);
    assert_eq!(node.archive().dated, Dated::Undated);
    // Its time has come.
    node.pass(2 * 60 * 60);
    node.boot();
    let archive = node.archive();
    assert_eq!((archive.dated, archive.taken), (Dated::Undated, first_seen));
}

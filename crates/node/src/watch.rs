//! Collecting for as long as wanted: a loop that waits for the directory watcher, the timer, its sweeper and
//! whoever asks the cluster.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_core::deletion_limiter::DeletionLimiter;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::{EffectiveStorage, Plan, Snapshot, plan_with};
use checkpoint_keeper_core::pods::RequestBudget;
use checkpoint_keeper_core::policy::PolicySet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::clock::Now;
use crate::cluster_updates::ClusterUpdateReceiver;
use crate::collector::Collector;
use crate::config::{ConfigReceiver, EngineConfig};
use crate::dir_watcher::DirWatcher;
use crate::discard::DiscardResult;
use crate::problem::Problem;
use crate::resolver::Resolver;
use crate::store::{OpenError, Presence, Removal, Store};
use crate::sweeper::{Deletion, Outcome, Sweeper};

/// The most questions in one round. A node has at most some hundred pods, and all of them are asked about
/// within a few intervals; an orphan has hours of grace.
const UNHURRIED: RequestBudget = RequestBudget { new: 100, again: 100, idle: 100 };

/// The same where thousands of nodes ask the same API. What of a mass deletion waits for its confirmation can
/// wait, and what may have gone unnoticed has its turn.
pub const SPARING: RequestBudget = RequestBudget { new: 100, again: 20, idle: 1 };

/// The most deletions in flight: unlinking what is large takes long, and what has not begun can still be
/// judged anew. More than one, so that the thread that deletes never waits for this one.
const MOST_IN_FLIGHT: usize = 4;

/// How long the rest of a plan's deletions may be begun without another plan: what it was made from
/// changes with time, too.
const PLAN_HOLDS: Duration = Duration::from_secs(1);

/// The deletions of the last plan that have not begun.
#[derive(Debug, Default)]
struct Waiting {
    deletions: VecDeque<Deletion>,
    planned_at: Duration,
    /// Whether some were taken back for that plan while others were in flight: what it had to wait for with
    /// those, as the watermark does, is to be judged when they are done.
    is_provisional: bool,
}

impl Waiting {
    /// Whether the plan is too old to begin any more of its deletions.
    fn is_stale(&self, now: Now) -> bool {
        !self.deletions.is_empty() && now.uptime.saturating_sub(self.planned_at) >= PLAN_HOLDS
    }

    /// Whether all is done, and the plan was made before that could be known.
    fn is_done_with_provisional(&self, sweeper: &Sweeper) -> bool {
        self.is_provisional && self.deletions.is_empty() && sweeper.in_flight() == 0
    }
}

/// What came of each file that is wanted gone by its name; none while it waits.
pub type Discarded = BTreeMap<FileName, Option<DiscardResult>>;

/// For how long archives are read before it is looked whether there is anything else to do.
const READ_FOR: Duration = Duration::from_millis(100);

/// What happens while watching, for whoever reports it.
#[derive(Debug)]
pub enum Event<'a> {
    /// A plan was made; its deletions begin.
    Planned {
        /// From this,
        snapshot: &'a Snapshot,
        /// by these,
        policies: &'a PolicySet,
        /// and it is this.
        plan: &'a Plan,
    },
    /// A deletion was carried out, or was not.
    Finished(&'a Outcome),
    /// What came of each file that is wanted gone by its name, none while it waits: something of it changed.
    Discards(&'a Discarded),
    /// Something is wrong.
    Problem(&'a Problem),
    /// The directory is not there.
    DirectoryGone,
    /// The directory was removed, and a mount holds what is left of it: only whoever mounts anew sees
    /// the one that took its place.
    DirectoryDead,
    /// Another directory took its place, and collecting goes on there.
    DirectoryReplaced,
    /// The new directory cannot be used.
    DirectoryUnusable(&'a OpenError),
    /// The system gives no notice of changes: only the timer looks.
    NoDirWatcher(Errno),
}

/// Why watching ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The thread that deletes could not be started.
    #[error("cannot start the sweeper thread")]
    Sweeper(#[source] std::io::Error),
    /// Waiting failed.
    #[error("cannot wait for events")]
    Wait(#[source] std::io::Error),
}

/// A collector at work.
pub struct Watch {
    /// What it collects.
    pub collector: Collector,
    /// What it goes by. None until it is known: it then looks and reads, and deletes nothing.
    pub config: Option<EngineConfig>,
    /// Who tells it to go by something else; none: nobody does.
    pub config_changes: Option<ConfigReceiver>,
    /// How fast policies may delete; none: as fast as they want.
    pub buckets: Option<DeletionLimiter>,
    /// How often it looks at everything, whether or not an event came.
    pub interval: Duration,
    /// Who asks the cluster, a round of questions an interval at most; none where there is none.
    pub resolver: Option<Resolver>,
    /// How many of them.
    pub budget: RequestBudget,
    /// Who shows what it is of the cluster without being asked; none: nobody does.
    pub cluster_updates: Option<ClusterUpdateReceiver>,
}

impl Watch {
    /// A collector that goes by these configurations to its end.
    pub fn new(collector: Collector, config: EngineConfig, interval: Duration) -> Self {
        Self {
            collector,
            config: Some(config),
            config_changes: None,
            buckets: None,
            interval,
            resolver: None,
            budget: UNHURRIED,
            cluster_updates: None,
        }
    }

    /// Collects until `stop` becomes readable. The store must be locked by the caller.
    pub fn run(mut self, stop: impl AsFd, mut report: impl FnMut(Event<'_>)) -> Result<(), WatchError> {
        let mut sweeper = Sweeper::start().map_err(WatchError::Sweeper)?;
        self.collector.follow_policies();
        let mut waiting = Waiting::default();
        self.collector.read_for(READ_FOR);
        let mut dir_watcher = listen(self.collector.store(), &mut report);
        let mut next_look = Duration::ZERO;
        let mut is_here = true;
        let mut answered = false;
        let mut as_new_round = false;
        let mut urgent = false;
        let mut discarded = Discarded::new();
        loop {
            let now = Now::read();
            let events = dir_watcher.as_ref().map(DirWatcher::events).unwrap_or_default();
            let due = events.overflow || events.directory_moved || now.uptime >= next_look;
            let mut news = due || std::mem::take(&mut answered) || std::mem::take(&mut urgent);
            news |= waiting.is_stale(now) || waiting.is_done_with_provisional(&sweeper);
            if due {
                next_look = now.uptime + around(self.interval);
                let was_here = is_here;
                is_here = self.follow_directory(was_here, &mut dir_watcher, &mut report);
                if is_here {
                    report_all(&self.collector.look(now, &mut |_, _| {}), &mut report);
                    self.collector.clear_litter();
                }
            } else if is_here {
                let (changed, problems) = self.collector.look_at(&events.names, now);
                report_all(&problems, &mut report);
                let (settled, problems) = self.collector.look_at_unsettled(now);
                report_all(&problems, &mut report);
                news |= changed || settled;
            }
            // What was moved away is nobody's business but his who moved it.
            news &= is_here;
            if news || !is_here {
                // Judged again, by what is known now.
                let any = self.take_back(&mut waiting);
                waiting.is_provisional |= any;
            }
            as_new_round |= due;
            if news && self.collector.is_reading() {
                // Of a part of the archives nothing is decided.
                (news, urgent) = (false, true);
            }
            if news {
                // Before anything is judged: what is not known of the new ones is then known to be unknown.
                self.see_owners(std::mem::take(&mut as_new_round));
                waiting.is_provisional &= sweeper.in_flight() > 0;
                self.sweep(now, &mut waiting, &mut report);
                self.begin(&mut waiting, &mut sweeper);
                // Whose the new ones are is asked while it still can be.
                self.ask();
            } else {
                self.begin(&mut waiting, &mut sweeper);
            }
            if self.collector.discard_results().ne(discarded.iter().map(|(name, result)| (name, *result))) {
                let results = self.collector.discard_results();
                discarded = results.map(|(name, result)| (name.clone(), result)).collect();
                report(Event::Discards(&discarded));
            }
            report_all(&self.collector.write_catalog(), &mut report);
            let wake = next_look.saturating_sub(now.uptime);
            let settles = self.collector.settles_in(now).filter(|_| is_here);
            let wake = settles.map_or(wake, |settles| settles.min(wake));
            let wake = if urgent { Duration::ZERO } else { wake };
            let others = [
                dir_watcher.as_ref().map(AsFd::as_fd),
                self.resolver.as_ref().map(AsFd::as_fd),
                self.config_changes.as_ref().map(AsFd::as_fd),
                self.cluster_updates.as_ref().map(AsFd::as_fd),
            ];
            if wait(&stop, &sweeper, others, wake).map_err(WatchError::Wait)? {
                for outcome in sweeper.stop() {
                    self.finish(&outcome, &mut report);
                }
                report_all(&self.collector.flush_catalog(), &mut report);
                return Ok(());
            }
            for outcome in sweeper.outcomes() {
                // What an earlier configuration wanted is judged by the present one.
                urgent |= matches!(outcome.removal, Removal::Withdrawn);
                self.finish(&outcome, &mut report);
            }
            if let Some((config, at_once)) = self.config_changes.as_ref().and_then(ConfigReceiver::latest) {
                urgent |= at_once || self.config.is_none();
                if self.config.as_ref() != Some(&config) {
                    sweeper.withdraw();
                    // What an earlier configuration wanted is judged by the present one.
                    let any = self.take_back(&mut waiting);
                    waiting.is_provisional |= any;
                    urgent |= any;
                }
                self.follow(config);
            }
            if let Some(answers) = self.resolver.as_mut().and_then(Resolver::answers) {
                report_all(&self.collector.learn(answers), &mut report);
                self.ask();
                answered = true;
            }
            if let Some(receiver) = &self.cluster_updates {
                let mut concerns = false;
                for shown in receiver.drain() {
                    concerns |= self.collector.apply(shown);
                }
                if concerns {
                    self.ask();
                    answered = true;
                }
            }
        }
    }

    /// Notes what there is to ask about whoever owned what is here; as a new round if wanted, unless the
    /// last one is still going on.
    fn see_owners(&mut self, as_new_round: bool) {
        let (Some(config), Some(resolver)) = (&self.config, &self.resolver) else { return };
        if as_new_round && !resolver.is_waiting() {
            self.collector.begin_lookups(&config.policies);
        } else {
            self.collector.go_on_with_lookups(&config.policies);
        }
    }

    /// Goes by these from now on.
    fn follow(&mut self, config: EngineConfig) {
        let nobody = BTreeSet::new();
        let before = self.config.as_ref().map(|config| Arc::clone(&config.governors)).unwrap_or_default();
        for (namespace, governors) in &*config.governors {
            if !governors.is_subset(before.get(namespace).unwrap_or(&nobody)) {
                self.collector.invalidate_namespace(namespace);
            }
        }
        self.config = Some(config);
    }

    /// Asks what comes next, unless there are questions yet to be answered.
    fn ask(&mut self) {
        if let Some(resolver) = self.resolver.as_mut().filter(|resolver| !resolver.is_waiting()) {
            resolver.ask(self.collector.lookups(self.budget));
        }
    }

    /// Goes on in whatever directory the path leads to by now; says whether there is one.
    fn follow_directory(
        &mut self,
        was_here: bool,
        dir_watcher: &mut Option<DirWatcher>,
        report: &mut impl FnMut(Event<'_>),
    ) -> bool {
        match self.collector.store().presence() {
            Presence::Here => return true,
            Presence::Dead => {
                if was_here {
                    report(Event::DirectoryDead);
                }
                return false;
            }
            Presence::Gone => {
                if was_here {
                    report(Event::DirectoryGone);
                }
                return false;
            }
            Presence::Replaced => {}
        }
        match reopen(self.collector.store().path()) {
            Ok(store) => {
                report(Event::DirectoryReplaced);
                self.collector.move_to(store);
                *dir_watcher = listen(self.collector.store(), report);
                true
            }
            Err(error) => {
                report(Event::DirectoryUnusable(&error));
                false
            }
        }
    }

    fn finish(&mut self, outcome: &Outcome, report: &mut impl FnMut(Event<'_>)) {
        self.collector.finish(outcome, Now::read());
        report(Event::Finished(outcome));
    }

    /// Has what waits judged by the next plan; says whether there is any.
    fn take_back(&mut self, waiting: &mut Waiting) -> bool {
        let any = !waiting.deletions.is_empty();
        for deletion in waiting.deletions.drain(..) {
            self.collector.take_back(&deletion);
        }
        any
    }

    /// Begins as many of the deletions that wait as may be in flight. Only these are paid for.
    fn begin(&mut self, waiting: &mut Waiting, sweeper: &mut Sweeper) {
        while sweeper.in_flight() < MOST_IN_FLIGHT {
            let Some(deletion) = waiting.deletions.pop_front() else { return };
            if let Some(buckets) = &mut self.buckets {
                buckets.spend(deletion.draw, deletion.namespace());
            }
            sweeper.delete(self.collector.store(), deletion);
        }
    }

    /// Plans, and has what is to go wait for its turn.
    fn sweep(&mut self, now: Now, waiting: &mut Waiting, report: &mut impl FnMut(Event<'_>)) {
        let Some(config) = &self.config else { return };
        self.collector.set_node_labels(config.node_labels.clone());
        let discard = config.discard.as_deref();
        report_all(&discard.map(|files| self.collector.set_discards(files)).unwrap_or_default(), report);
        let (mut snapshot, problems) = self.collector.snapshot(now);
        report_all(&problems, report);
        if let Some(buckets) = &mut self.buckets {
            let arrived = self.collector.take_arrivals();
            let storage = &config.policies.storage;
            let storage = EffectiveStorage::new(storage, snapshot.node_labels.as_ref(), snapshot.filesystem);
            let archives = snapshot.archives.len() as u64;
            snapshot.allowance =
                Some(buckets.allowance(storage.deletion_limit, archives, arrived, now.uptime));
        }
        let plan = plan_with(&snapshot, &config.policies, &config.confidence, now.wall);
        self.collector.note_governing(&snapshot, &plan, now);
        waiting.deletions = self.collector.mark_for_deletion(&snapshot, &plan).into();
        waiting.planned_at = now.uptime;
        self.collector.confirm(&snapshot, &plan, &config.policies, now.wall);
        report(Event::Planned { snapshot: &snapshot, policies: &config.policies, plan: &plan });
    }
}

fn report_all(problems: &[Problem], report: &mut impl FnMut(Event<'_>)) {
    for problem in problems {
        report(Event::Problem(problem));
    }
}

fn reopen(path: &Path) -> Result<Store, OpenError> {
    let store = Store::open(path)?;
    store.lock()?;
    Ok(store)
}

fn listen(store: &Store, report: &mut impl FnMut(Event<'_>)) -> Option<DirWatcher> {
    DirWatcher::new(store).map_err(|error| report(Event::NoDirWatcher(error))).ok()
}

/// A tenth more or less: of thousands of nodes that were started at once, not all look, and ask, at once.
fn around(interval: Duration) -> Duration {
    // Each state has keys of its own.
    let chance = RandomState::new().hash_one(()) % 1_001;
    interval.mul_f64(0.9 + 0.2 * (chance as f64 / 1_000.0))
}

/// Waits for the sweeper, others or the end, but not longer than `timeout`; says whether it
/// is the end.
fn wait(
    stop: &impl AsFd,
    sweeper: &Sweeper,
    others: [Option<BorrowedFd<'_>>; 4],
    timeout: Duration,
) -> std::io::Result<bool> {
    let mut descriptors = vec![PollFd::new(stop, PollFlags::IN), PollFd::new(sweeper, PollFlags::IN)];
    let others = others.iter().flatten();
    descriptors.extend(others.map(|other| PollFd::from_borrowed_fd(*other, PollFlags::IN)));
    // A moment at least: a deadline that has just passed is not to be waited for in circles.
    let timeout = Timespec::try_from(timeout.max(Duration::from_millis(1))).ok();
    match poll(&mut descriptors, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(descriptors.first().is_some_and(|stop| !stop.revents().is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_are_spread_by_a_tenth() {
        let looks: BTreeSet<Duration> = (0..100).map(|_| around(Duration::from_mins(1))).collect();
        assert!(looks.len() > 50, "{looks:?}");
        assert!(looks.first() >= Some(&Duration::from_secs(54)), "{looks:?}");
        assert!(looks.last() <= Some(&Duration::from_secs(66)), "{looks:?}");
    }
}

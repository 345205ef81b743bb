//! The dumps that wait or are under way: which may begin, and what came of those that ended.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;

use super::memory::RunMemory;
use super::messages::{ContainerId, Dump, DumpId, Outcome, Request, RunResult, Trigger};
use super::spec::{Disruption, Dumping};
use super::turns::{Candidate, Turns};
use crate::engine::clock::Now;

/// How often a dump that collided with another one is tried again at once.
const COLLISIONS: u32 = 3;

/// How long after a collision.
const AFTER_COLLISION: Duration = Duration::from_secs(1);

/// The longest wait between two tries.
const LONGEST_BACKOFF: Duration = Duration::from_mins(5);

/// After so many dumps of a namespace that made nothing its next ones begin so far apart. Each is kept on the disk before it
/// begins, and those that are refused end at once.
const MOST_FAILURES: u32 = 100;
const AFTER_FAILURES: Duration = Duration::from_secs(1);

/// So many requests wait for one dump of a container at most.
const MOST_REQUESTS: usize = 16;

/// So many dumps of one namespace wait or are under way at most.
const MOST_OF_NAMESPACE: usize = 500;

/// From so many dumps on that wait or are under way on the node, a namespace has room for this many only.
const MANY_ON_NODE: usize = 2_000;
const MOST_OF_NAMESPACE_THEN: usize = 50;

/// A dump that waits or is under way.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) container: ContainerId,
    /// What it is for.
    pub(super) requests: Vec<Request>,
    pub(super) dumping: Dumping,
    pub(super) state: State,
    /// How often it failed.
    tries: u32,
    collisions: u32,
    /// Whether it began before. Of one that an earlier process left that is not known.
    was_begun: bool,
    /// When the back-off of the last failure is over, by the wall clock: for a process that takes over.
    not_before: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It waits, at least until that uptime.
    Waiting { until: Duration },
    /// It is under way.
    UnderWay { dump: DumpId, started: Timestamp },
    /// It was under way when the program before this one ended.
    Interrupted { started: Timestamp },
}

/// All of them.
#[derive(Debug)]
pub(super) struct Runs {
    /// In the order in which they were asked for.
    all: BTreeMap<u64, Run>,
    /// The number of the last one.
    last_run: u64,
    /// Those of each container. One may be under way while another one waits.
    by_container: HashMap<ContainerId, Vec<u64>>,
    /// How many each namespace has.
    by_namespace: HashMap<String, usize>,
    /// Until when each namespace's failures count, by the uptime: each of them does for a while, one after the other.
    failures_until: HashMap<String, Duration>,
    /// How many may be under way at once.
    most: usize,
    turns: Turns,
    last_dump: u64,
    /// In which seconds a dump of a container began, from this one on: archives are named by them, and a clock that
    /// is set back comes to them again.
    seconds: HashSet<(ContainerId, i64)>,
    /// The second in which this process took over from an earlier one, which may have begun some in it.
    took_over: Option<i64>,
}

/// What came of a run that ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) container: ContainerId,
    pub(super) requests: Vec<Request>,
    pub(super) result: RunResult,
}

/// What is known of a dump that waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tried {
    /// Whether it may have begun before, in an earlier process, too.
    pub(super) was_begun: bool,
    /// Whether it failed before.
    pub(super) was_tried: bool,
}

/// What is not served as a request came.
#[derive(Debug, Default)]
pub(super) struct GivenUp {
    /// A request for the same container: an earlier due time of the same timer, what had to go for this one, or this one.
    pub(super) request: Option<Request>,
    /// What waited, and had to go for this one.
    pub(super) run: Option<(ContainerId, Vec<Request>)>,
    /// Whether a dump for it may have begun before.
    pub(super) was_begun: bool,
}

impl GivenUp {
    fn request(request: Request, was_begun: bool) -> Self {
        Self { request: Some(request), run: None, was_begun }
    }
}

impl Runs {
    /// None yet; at most so many are under way at once, and at least one.
    pub(super) fn new(most: u32) -> Self {
        Self {
            all: BTreeMap::new(),
            last_run: 0,
            by_container: HashMap::new(),
            by_namespace: HashMap::new(),
            failures_until: HashMap::new(),
            most: most.max(1) as usize,
            turns: Turns::default(),
            last_dump: 0,
            seconds: HashSet::new(),
            took_over: None,
        }
    }

    /// Adds a request, to a dump of that container that has not begun yet, if there is one. Returns what is not served
    /// because of it: an earlier due time of the same timer that waited there, as one dump is enough for both; and where
    /// there is no room, what goes without it: of what time asks for the latest, and this one where it is by time, too.
    pub(super) fn add(&mut self, container: &ContainerId, request: Request, dumping: Dumping) -> GivenUp {
        let waiting = self.ids_of(container).find(|id| self.all.get(id).is_some_and(Run::is_waiting));
        match waiting.and_then(|id| self.all.get_mut(&id)) {
            Some(run) => run.add(request, dumping),
            None => self.add_run(container, request, dumping),
        }
    }

    fn add_run(&mut self, container: &ContainerId, request: Request, dumping: Dumping) -> GivenUp {
        let mut given_up = GivenUp::default();
        if self.is_full(&container.namespace) {
            // Time asks again, and others do not.
            let last = Some(&container.namespace).filter(|_| !request.is_timed());
            let last = last.and_then(|namespace| {
                let is_of = |run: &Run| run.container.namespace == *namespace && run.is_waiting();
                let is_timed = |run: &Run| run.requests.iter().all(Request::is_timed);
                self.all.iter().rev().find(|(_, run)| is_of(run) && is_timed(run)).map(|(id, _)| *id)
            });
            let Some(run) = last.and_then(|id| self.remove(id)) else {
                return GivenUp::request(request, false);
            };
            given_up.was_begun = run.was_begun;
            given_up.run = Some((run.container, run.requests));
        }
        self.insert(Run {
            container: container.clone(),
            requests: vec![request],
            dumping,
            state: State::Waiting { until: Duration::ZERO },
            tries: 0,
            collisions: 0,
            was_begun: false,
            not_before: None,
        });
        given_up
    }

    /// Whether a namespace has as many as it may have.
    fn is_full(&self, namespace: &str) -> bool {
        let most = if self.all.len() < MANY_ON_NODE { MOST_OF_NAMESPACE } else { MOST_OF_NAMESPACE_THEN };
        self.by_namespace.get(namespace).is_some_and(|count| *count >= most)
    }

    fn insert(&mut self, run: Run) {
        self.last_run += 1;
        self.by_container.entry(run.container.clone()).or_default().push(self.last_run);
        *self.by_namespace.entry(run.container.namespace.clone()).or_default() += 1;
        self.all.insert(self.last_run, run);
    }

    fn remove(&mut self, id: u64) -> Option<Run> {
        let run = self.all.remove(&id)?;
        if let Some(ids) = self.by_container.get_mut(&run.container) {
            ids.retain(|one| *one != id);
            if ids.is_empty() {
                self.by_container.remove(&run.container);
            }
        }
        if let Some(count) = self.by_namespace.get_mut(&run.container.namespace) {
            *count -= 1;
            if *count == 0 {
                self.by_namespace.remove(&run.container.namespace);
            }
        }
        Some(run)
    }

    /// Those of a container, in their order.
    fn ids_of(&self, container: &ContainerId) -> impl Iterator<Item = u64> {
        self.by_container.get(container).into_iter().flatten().copied()
    }

    /// Notes when this process took over from an earlier one, whose back-offs go on.
    pub(super) fn take_over(&mut self, now: Now) {
        self.took_over = Some(now.wall.as_second());
        for run in self.all.values_mut().filter(|run| run.is_waiting()) {
            let left = run.not_before.map(|end| end.duration_since(now.wall));
            let left = left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default();
            // By a clock that was set meanwhile it could be years.
            run.state = State::Waiting { until: now.uptime + left.min(LONGEST_BACKOFF) };
        }
    }

    /// Takes up one that an earlier process left.
    pub(super) fn restore(&mut self, memory: RunMemory, dumping: Dumping) {
        let RunMemory { container, requests, tries, started, not_before } = memory;
        let state = match started {
            Some(started) => State::Interrupted { started },
            None => State::Waiting { until: Duration::ZERO },
        };
        self.insert(Run {
            container,
            requests,
            dumping,
            state,
            tries,
            collisions: 0,
            was_begun: true,
            not_before,
        });
    }

    /// Goes by what schedules say by now: of one that is under way, for when it is tried again.
    pub(super) fn follow(&mut self, dumping_of: impl Fn(&str) -> Option<Dumping>) {
        for run in self.all.values_mut() {
            let asked = run.requests.iter().filter_map(|request| dumping_of(&request.schedule_uid));
            run.dumping = asked.reduce(Dumping::with).unwrap_or(run.dumping);
        }
    }

    /// Those that an earlier process had begun; each is under way from now on.
    pub(super) fn recover(&mut self) -> Vec<Dump> {
        let last_dump = &mut self.last_dump;
        let interrupted = self.all.values_mut().filter_map(|run| {
            let State::Interrupted { started } = run.state else { return None };
            *last_dump += 1;
            Some(run.begin(DumpId(*last_dump), started))
        });
        interrupted.collect()
    }

    /// Begins those that may, while the node has room for one more: namespaces in turn, and in each of them what is
    /// about to end first, then who was asked for, then what has waited longest.
    pub(super) fn begin(&mut self, now: Timestamp, uptime: Duration) -> Vec<Dump> {
        let mut begun = Vec::new();
        while let Some(run) = self.take_next(now, uptime).and_then(|id| self.all.get_mut(&id)) {
            self.last_dump += 1;
            self.seconds.insert((run.container.clone(), now.as_second()));
            begun.push(run.begin(DumpId(self.last_dump), now));
        }
        begun
    }

    /// Which run begins now. It has had its turn then.
    fn take_next(&mut self, now: Timestamp, uptime: Duration) -> Option<u64> {
        let mut turns = std::mem::take(&mut self.turns);
        let next = turns.next(self.candidates(now, uptime)).map(|next| {
            turns.take(&next);
            next.run
        });
        self.turns = turns;
        next
    }

    /// Of each namespace, the run that would begin next, if the node and the namespace have room for one more. What
    /// waits behind it does not go past it, so that it has its turn although it allows fewer at once.
    fn candidates(&self, now: Timestamp, uptime: Duration) -> impl Iterator<Item = Candidate<'_>> {
        let mut under_way: HashMap<&str, usize> = HashMap::new();
        let mut busy: HashSet<&ContainerId> = HashSet::new();
        for run in self.all.values().filter(|run| !run.is_waiting()) {
            *under_way.entry(&run.container.namespace).or_default() += 1;
            busy.insert(&run.container);
        }
        let mut first: HashMap<&str, (u64, &Run, (u8, Timestamp))> = HashMap::new();
        let is_full = under_way.values().sum::<usize>() >= self.most;
        for (id, run) in self.all.iter().filter(|_| !is_full) {
            if busy.contains(&run.container) || !self.wait_of(run, now, uptime).is_zero() {
                continue;
            }
            let (namespace, rank) = (run.container.namespace.as_str(), run.rank());
            let known = first.entry(namespace).or_insert((*id, run, rank));
            if rank < known.2 {
                *known = (*id, run, rank);
            }
        }
        // One place is left for the others, where there is more than one.
        let share = (self.most - 1).max(1);
        first.into_iter().filter_map(move |(namespace, (id, run, rank))| {
            let under_way = under_way.get(namespace).copied().unwrap_or(0);
            let is_free = under_way < share.min(run.dumping.max_concurrent_per_node.max(1) as usize);
            let is_drained = run.tries == 0 && run.is_drained();
            is_free.then_some(Candidate { namespace, run: id, is_drained, under_way, rank })
        })
    }

    /// How long a run has to wait, whatever else is under way.
    fn wait_of(&self, run: &Run, now: Timestamp, uptime: Duration) -> Duration {
        let State::Waiting { until } = run.state else { return Duration::MAX };
        let wait = until.saturating_sub(uptime).max(self.wait_of_failures(run, uptime));
        // Two that begin in one second have one name, and the second is written over the first.
        let second = now.as_second();
        let is_same_second = self.took_over == Some(second)
            || self.seconds.iter().any(|(container, its)| *its == second && *container == run.container);
        if is_same_second { wait.max(until_next_second(now)) } else { wait }
    }

    /// How long a run has to wait as too many of its namespace have failed. What a drain ends does not.
    fn wait_of_failures(&self, run: &Run, uptime: Duration) -> Duration {
        let until = self.failures_until.get(&run.container.namespace).filter(|_| !run.is_drained());
        let counted = until.map_or(Duration::ZERO, |until| until.saturating_sub(uptime));
        counted.saturating_sub(AFTER_FAILURES * MOST_FAILURES)
    }

    fn note_failure(&mut self, namespace: &str, uptime: Duration) {
        self.failures_until.retain(|_, until| *until > uptime);
        let until = self.failures_until.entry(namespace.to_owned()).or_insert(uptime);
        *until = until.saturating_add(AFTER_FAILURES);
    }

    /// Notes how a dump ended. A run that is tried again stays.
    pub(super) fn end(&mut self, dump: DumpId, outcome: Outcome, now: Now) -> Option<Ended> {
        let is_it = |run: &Run| matches!(run.state, State::UnderWay { dump: its, .. } if its == dump);
        let (id, run) = self.all.iter_mut().find(|(_, run)| is_it(run))?;
        let id = *id;
        let result = match outcome {
            Outcome::Done { file } => RunResult::Done(file),
            Outcome::FailedForGood(text) => RunResult::Failed(text),
            Outcome::TooLarge(text) => RunResult::InsufficientStorage(text),
            Outcome::QuotaExceeded(text) => RunResult::QuotaExceeded(text),
            Outcome::Collided(text) => {
                run.collisions += 1;
                if run.collisions < COLLISIONS {
                    run.state = State::Waiting { until: now.uptime + AFTER_COLLISION };
                    RunResult::Retrying(text)
                } else {
                    run.try_again(now).map_or(RunResult::Failed(text.clone()), |()| RunResult::Retrying(text))
                }
            }
            Outcome::Failed(text) | Outcome::RuntimeLost(text) => {
                run.try_again(now).map_or(RunResult::Failed(text.clone()), |()| RunResult::Retrying(text))
            }
            Outcome::InsufficientStorage(text) => run
                .try_again(now)
                .map_or(RunResult::InsufficientStorage(text.clone()), |()| RunResult::Retrying(text)),
        };
        let (container, requests) = (run.container.clone(), run.requests.clone());
        if !matches!(result, RunResult::Done(_)) {
            self.note_failure(&container.namespace, now.uptime);
        }
        if result.is_final() {
            self.remove(id);
        }
        Some(Ended { container, requests, result })
    }

    /// Takes those requests out of dumps that wait of which `reason_of` gives a reason. It is told whether the dump was
    /// tried before.
    pub(super) fn withdraw<R>(
        &mut self,
        mut reason_of: impl FnMut(&ContainerId, &Request, Tried) -> Option<R>,
    ) -> Vec<(ContainerId, Request, R)> {
        let (mut withdrawn, mut empty) = (Vec::new(), Vec::new());
        for (id, run) in self.all.iter_mut().filter(|(_, run)| run.is_waiting()) {
            let container = &run.container;
            let tried = Tried { was_begun: run.was_begun, was_tried: run.tries > 0 || run.collisions > 0 };
            run.requests.retain(|request| match reason_of(container, request, tried) {
                Some(reason) => {
                    withdrawn.push((container.clone(), request.clone(), reason));
                    false
                }
                None => true,
            });
            if run.requests.is_empty() {
                empty.push(*id);
            }
        }
        for id in empty {
            self.remove(id);
        }
        withdrawn
    }

    /// How long until one may begin, as far as only time keeps it from that.
    pub(super) fn wakes_in(&self, now: Timestamp, uptime: Duration) -> Option<Duration> {
        let busy: HashSet<&ContainerId> =
            self.all.values().filter(|run| !run.is_waiting()).map(|run| &run.container).collect();
        if busy.len() >= self.most {
            return None;
        }
        if self.candidates(now, uptime).next().is_some() {
            return Some(Duration::ZERO);
        }
        // What has waited long enough waits for the end of another one.
        let waiting = self.all.values().filter(|run| run.is_waiting() && !busy.contains(&run.container));
        waiting.map(|run| self.wait_of(run, now, uptime)).filter(|wait| !wait.is_zero()).min()
    }

    /// How many dumps are under way for each schedule that has one, by its UID.
    pub(super) fn under_way(&self) -> HashMap<&str, u32> {
        let mut counts: HashMap<&str, u32> = HashMap::new();
        for run in self.all.values().filter(|run| !run.is_waiting()) {
            let schedules: HashSet<&str> = run.requests.iter().map(|one| one.schedule_uid.as_str()).collect();
            for schedule in schedules {
                *counts.entry(schedule).or_default() += 1;
            }
        }
        counts
    }

    /// Whether a request of this trigger for this container waits or is under way.
    pub(super) fn is_asked(&self, container: &ContainerId, schedule_uid: &str, trigger: Trigger) -> bool {
        let mut of_container = self.ids_of(container).filter_map(|id| self.all.get(&id));
        of_container.any(|run| {
            run.requests.iter().any(|one| one.schedule_uid == schedule_uid && one.trigger == trigger)
        })
    }

    /// Whether any request of this trigger for this pod waits or is under way.
    pub(super) fn is_pod_asked(&self, pod_uid: &str, trigger: Trigger) -> bool {
        let mut of_pod = self.all.values().filter(|run| run.container.pod_uid == pod_uid);
        of_pod.any(|run| run.requests.iter().any(|one| one.trigger == trigger))
    }

    /// Forgets the seconds that have passed.
    pub(super) fn retain_seconds(&mut self, now: Timestamp) {
        self.seconds.retain(|(_, second)| *second >= now.as_second());
    }

    pub(super) fn memory(&self) -> Vec<RunMemory> {
        let memory = |run: &Run| RunMemory {
            container: run.container.clone(),
            requests: run.requests.clone(),
            tries: run.tries,
            started: run.started(),
            not_before: run.not_before,
        };
        self.all.values().map(memory).collect()
    }

    /// Whether this is what [`Self::memory`] returns.
    pub(super) fn are_kept(&self, memory: &[RunMemory]) -> bool {
        self.all.len() == memory.len()
            && self
                .all
                .values()
                .zip(memory)
                .all(|(run, kept)| run.is_kept(kept) && run.requests == kept.requests)
    }

    /// Whether this has all that [`Self::memory`] returns of dumps that have begun once, and no others: what only waits is
    /// asked for again where it is lost.
    pub(super) fn begun_are_kept(&self, memory: &[RunMemory]) -> bool {
        let mut kept = memory.iter().filter(|run| run.started.is_some() || run.tries > 0);
        let mut begun = self.all.values().filter(|run| run.started().is_some() || run.tries > 0);
        let is_same = |run: &Run, kept: &RunMemory| {
            run.is_kept(kept) && (run.is_waiting() || run.requests == kept.requests)
        };
        begun.all(|run| kept.next().is_some_and(|kept| is_same(run, kept))) && kept.next().is_none()
    }
}

impl Run {
    /// Adds a request to one that waits.
    fn add(&mut self, request: Request, dumping: Dumping) -> GivenUp {
        let known = self.requests.iter().position(|known| known.is_of_same_trigger(&request));
        // Of a disruption, an annotation or a threshold there is but one at a time.
        let is_served = |known: &Request| !known.is_timed() || known.due == request.due;
        if known.and_then(|at| self.requests.get(at)).is_some_and(is_served) {
            return GivenUp::default();
        }
        let given_up = if known.is_none() && self.requests.len() < MOST_REQUESTS {
            self.requests.push(request);
            GivenUp::default()
        } else {
            // Time asks again, and others do not.
            let last = || self.requests.iter().rposition(Request::is_timed).filter(|_| !request.is_timed());
            let place = known.or_else(last).and_then(|at| self.requests.get_mut(at));
            let Some(place) = place else { return GivenUp::request(request, false) };
            GivenUp::request(std::mem::replace(place, request), self.was_begun)
        };
        // A new request does not wait out the back-off of an earlier failure.
        (self.state, self.not_before) = (State::Waiting { until: Duration::ZERO }, None);
        self.dumping = self.dumping.with(dumping);
        given_up
    }

    /// Whether this is what is kept of it, but for its requests.
    fn is_kept(&self, kept: &RunMemory) -> bool {
        self.started() == kept.started
            && self.tries == kept.tries
            && self.not_before == kept.not_before
            && self.container == kept.container
    }

    fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// When it began; none while it waits.
    fn started(&self) -> Option<Timestamp> {
        match self.state {
            State::Waiting { .. } => None,
            State::UnderWay { started, .. } | State::Interrupted { started } => Some(started),
        }
    }

    fn begin(&mut self, dump: DumpId, started: Timestamp) -> Dump {
        (self.state, self.not_before) = (State::UnderWay { dump, started }, None);
        self.was_begun = true;
        Dump {
            id: dump,
            container: self.container.clone(),
            timeout: self.dumping.timeout,
            requests: self.requests.clone(),
            started,
        }
    }

    /// Whether the drain of the node is among what it is for.
    fn is_drained(&self) -> bool {
        self.requests.iter().any(|request| request.trigger == Trigger::Disruption(Disruption::NodeDrain))
    }

    /// What is served first has the lowest.
    fn rank(&self) -> (u8, Timestamp) {
        let of = |request: &Request| {
            let urgency = match request.trigger {
                Trigger::Disruption(_) => 0,
                Trigger::Annotation => 1,
                Trigger::Cpu | Trigger::Memory => 2,
                Trigger::Interval | Trigger::Cron => 3,
            };
            (urgency, request.due)
        };
        self.requests.iter().map(of).min().unwrap_or((u8::MAX, Timestamp::MAX))
    }

    /// Waits for another try, if there is one left. Who asked by an annotation is served as long as it is there.
    fn try_again(&mut self, now: Now) -> Option<()> {
        let is_asked_for = self.requests.iter().any(|request| request.trigger == Trigger::Annotation);
        if self.tries >= self.dumping.retries && !is_asked_for {
            return None;
        }
        let doubled = 1_u32.checked_shl(self.tries).unwrap_or(u32::MAX);
        let backoff = self.dumping.backoff.saturating_mul(doubled).min(LONGEST_BACKOFF);
        self.state = State::Waiting { until: now.uptime + backoff };
        self.not_before = now.wall.checked_add(backoff).ok();
        self.tries += 1;
        self.collisions = 0;
        Some(())
    }
}

impl Request {
    fn is_of_same_trigger(&self, other: &Self) -> bool {
        self.schedule_uid == other.schedule_uid && self.trigger == other.trigger
    }

    pub(super) fn is_timed(&self) -> bool {
        matches!(self.trigger, Trigger::Interval | Trigger::Cron)
    }
}

impl Dumping {
    /// What two schedules ask of one dump: it may take as long as the more patient one allows, and is made only
    /// where both allow it.
    fn with(self, other: Self) -> Self {
        Self {
            timeout: self.timeout.max(other.timeout),
            max_concurrent_per_node: self.max_concurrent_per_node.min(other.max_concurrent_per_node),
            retries: self.retries.max(other.retries),
            backoff: self.backoff.min(other.backoff),
        }
    }
}

fn until_next_second(now: Timestamp) -> Duration {
    let into = u64::try_from(now.subsec_nanosecond()).unwrap_or(0);
    Duration::from_nanos(1_000_000_000_u64.saturating_sub(into))
}

//! The dumps that wait or are under way: which may begin, and what came of those that ended.

use std::collections::{HashMap, HashSet};
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
    all: Vec<Run>,
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

impl Runs {
    /// None yet; at most so many are under way at once, and at least one.
    pub(super) fn new(most: u32) -> Self {
        Self {
            all: Vec::new(),
            most: most.max(1) as usize,
            turns: Turns::default(),
            last_dump: 0,
            seconds: HashSet::new(),
            took_over: None,
        }
    }

    /// Adds a request, to a dump of that container that has not begun yet, if there is one. Returns an earlier due
    /// time of the same timer that waited there: one dump is enough for both, and what waits does not grow.
    pub(super) fn add(
        &mut self,
        container: ContainerId,
        request: Request,
        dumping: Dumping,
    ) -> Option<Request> {
        let waiting = self.all.iter_mut().find(|run| run.container == container && run.is_waiting());
        let Some(run) = waiting else {
            let state = State::Waiting { until: Duration::ZERO };
            let requests = vec![request];
            let (tries, collisions, not_before) = (0, 0, None);
            self.all.push(Run { container, requests, dumping, state, tries, collisions, not_before });
            return None;
        };
        let known = run.requests.iter_mut().find(|known| known.is_of_same_trigger(&request));
        // Of a disruption, an annotation or a threshold there is but one at a time.
        if known.as_ref().is_some_and(|known| !known.is_timed() || known.due == request.due) {
            return None;
        }
        // A new request does not wait out the back-off of an earlier failure.
        (run.state, run.not_before) = (State::Waiting { until: Duration::ZERO }, None);
        run.dumping = run.dumping.with(dumping);
        if let Some(known) = known {
            return Some(std::mem::replace(known, request));
        }
        run.requests.push(request);
        None
    }

    /// Notes when this process took over from an earlier one, whose back-offs go on.
    pub(super) fn take_over(&mut self, now: Now) {
        self.took_over = Some(now.wall.as_second());
        for run in self.all.iter_mut().filter(|run| run.is_waiting()) {
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
        self.all.push(Run { container, requests, dumping, state, tries, collisions: 0, not_before });
    }

    /// Goes by what schedules say by now: of one that is under way, for when it is tried again.
    pub(super) fn follow(&mut self, dumping_of: impl Fn(&str) -> Option<Dumping>) {
        for run in &mut self.all {
            let asked = run.requests.iter().filter_map(|request| dumping_of(&request.schedule_uid));
            run.dumping = asked.reduce(Dumping::with).unwrap_or(run.dumping);
        }
    }

    /// Those that an earlier process had begun; each is under way from now on.
    pub(super) fn recover(&mut self) -> Vec<Dump> {
        let last_dump = &mut self.last_dump;
        let interrupted = self.all.iter_mut().filter_map(|run| {
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
        while let Some(at) = self.take_next(now, uptime) {
            self.last_dump += 1;
            let run = &mut self.all[at];
            self.seconds.insert((run.container.clone(), now.as_second()));
            begun.push(run.begin(DumpId(self.last_dump), now));
        }
        begun
    }

    /// Which run begins now. It has had its turn then.
    fn take_next(&mut self, now: Timestamp, uptime: Duration) -> Option<usize> {
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
        for run in self.all.iter().filter(|run| !run.is_waiting()) {
            *under_way.entry(&run.container.namespace).or_default() += 1;
            busy.insert(&run.container);
        }
        let mut first: HashMap<&str, usize> = HashMap::new();
        let is_full = under_way.values().sum::<usize>() >= self.most;
        for (at, run) in self.all.iter().enumerate().filter(|_| !is_full) {
            if busy.contains(&run.container) || !self.wait_of(run, now, uptime).is_zero() {
                continue;
            }
            let known = first.entry(&run.container.namespace).or_insert(at);
            if run.rank() < self.all[*known].rank() {
                *known = at;
            }
        }
        // One place is left for the others, where there is more than one.
        let share = (self.most - 1).max(1);
        first.into_iter().filter_map(move |(namespace, at)| {
            let (run, under_way) = (&self.all[at], under_way.get(namespace).copied().unwrap_or(0));
            let is_free = under_way < share.min(run.dumping.max_concurrent_per_node.max(1) as usize);
            let (rank, is_drained) = (run.rank(), run.tries == 0 && run.is_drained());
            is_free.then_some(Candidate { namespace, run: at, is_drained, under_way, rank })
        })
    }

    /// How long a run has to wait, whatever else is under way.
    fn wait_of(&self, run: &Run, now: Timestamp, uptime: Duration) -> Duration {
        let State::Waiting { until } = run.state else { return Duration::MAX };
        let wait = until.saturating_sub(uptime);
        // Two that begin in one second have one name, and the second is written over the first.
        let second = now.as_second();
        let is_same_second = self.took_over == Some(second)
            || self.seconds.iter().any(|(container, its)| *its == second && *container == run.container);
        if is_same_second { wait.max(until_next_second(now)) } else { wait }
    }

    /// Notes how a dump ended. A run that is tried again stays.
    pub(super) fn end(&mut self, dump: DumpId, outcome: Outcome, now: Now) -> Option<Ended> {
        let is_it = |run: &Run| matches!(run.state, State::UnderWay { dump: its, .. } if its == dump);
        let at = self.all.iter().position(is_it)?;
        let run = &mut self.all[at];
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
        if result.is_final() {
            self.all.remove(at);
        }
        Some(Ended { container, requests, result })
    }

    /// Takes those requests out of dumps that wait of which `reason_of` gives a reason. It is told whether the dump was
    /// tried before.
    pub(super) fn withdraw<R>(
        &mut self,
        mut reason_of: impl FnMut(&ContainerId, &Request, bool) -> Option<R>,
    ) -> Vec<(ContainerId, Request, R)> {
        let mut withdrawn = Vec::new();
        self.all.retain_mut(|run| {
            if !run.is_waiting() {
                return true;
            }
            let container = run.container.clone();
            let was_tried = run.tries > 0 || run.collisions > 0;
            run.requests.retain(|request| match reason_of(&container, request, was_tried) {
                Some(reason) => {
                    withdrawn.push((container.clone(), request.clone(), reason));
                    false
                }
                None => true,
            });
            !run.requests.is_empty()
        });
        withdrawn
    }

    /// How long until one may begin, as far as only time keeps it from that.
    pub(super) fn wakes_in(&self, now: Timestamp, uptime: Duration) -> Option<Duration> {
        let busy: HashSet<&ContainerId> =
            self.all.iter().filter(|run| !run.is_waiting()).map(|run| &run.container).collect();
        if busy.len() >= self.most {
            return None;
        }
        if self.candidates(now, uptime).next().is_some() {
            return Some(Duration::ZERO);
        }
        // What has waited long enough waits for the end of another one.
        let waiting = self.all.iter().filter(|run| run.is_waiting() && !busy.contains(&run.container));
        waiting.map(|run| self.wait_of(run, now, uptime)).filter(|wait| !wait.is_zero()).min()
    }

    /// How many dumps are under way for a schedule.
    pub(super) fn under_way(&self, schedule_uid: &str) -> u32 {
        let of =
            |run: &&Run| !run.is_waiting() && run.requests.iter().any(|one| one.schedule_uid == schedule_uid);
        u32::try_from(self.all.iter().filter(of).count()).unwrap_or(u32::MAX)
    }

    /// Whether a request of this trigger for this container waits or is under way.
    pub(super) fn is_asked(&self, container: &ContainerId, schedule_uid: &str, trigger: Trigger) -> bool {
        let mut of_container = self.all.iter().filter(|run| run.container == *container);
        of_container.any(|run| {
            run.requests.iter().any(|one| one.schedule_uid == schedule_uid && one.trigger == trigger)
        })
    }

    /// Whether any request of this trigger for this pod waits or is under way.
    pub(super) fn is_pod_asked(&self, pod_uid: &str, trigger: Trigger) -> bool {
        let mut of_pod = self.all.iter().filter(|run| run.container.pod_uid == pod_uid);
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
        self.all.iter().map(memory).collect()
    }

    /// Whether this is what [`Self::memory`] returns.
    pub(super) fn are_kept(&self, memory: &[RunMemory]) -> bool {
        self.all.len() == memory.len()
            && self.all.iter().zip(memory).all(|(run, kept)| {
                run.started() == kept.started
                    && run.tries == kept.tries
                    && run.not_before == kept.not_before
                    && run.container == kept.container
                    && run.requests == kept.requests
            })
    }
}

impl Run {
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

//! The scheduler of one node: from schedules, pods and time to dumps, and from their ends to reports.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::annotations::{Annotations, why_nothing};
use super::keeping::Keeping;
use super::memory::{Failure, Memory, NoticedDisruption, ScheduleMemory};
use super::messages::{
    ContainerId, Effect, Input, NodePod, Outcome, Report, Request, RunResult, SkipReason, Trigger,
};
use super::occasions::{containers_of, disruptions_of, is_selected};
use super::runs::{GivenUp, Runs};
use super::spec::{Disruption, Dumping, Schedule, ScheduleRef};
use super::tally::Tally;
use super::timers::{Due, Timers};
use super::usage::UsageWatch;
use crate::engine::clock::Now;
use crate::plan::Clock;
use crate::policy::Mode;

/// How often it is looked at the timers of schedules that select nothing here.
const OTHERS: Duration = Duration::from_secs(5);

/// Timers have the scheduler called no more often than this.
const LEAST_SLEEP: Duration = Duration::from_millis(100);

/// Of the schedules of one namespace that select a pod here, so many are carried out: the oldest.
const MOST_SCHEDULES: usize = 100;

/// Decides which containers are dumped when. It does no I/O and reads no clock.
#[derive(Debug)]
pub struct Scheduler {
    /// The node's name, so that not all nodes dump at once.
    node: String,
    schedules: BTreeMap<String, Arc<Schedule>>,
    timers: HashMap<String, Timers>,
    /// The active schedules that select a pod here that runs, and are carried out: only their timers have to be on time.
    here: BTreeMap<String, Arc<Schedule>>,
    /// The UIDs of those that do so as well, and are too many.
    crowded_out: BTreeSet<String>,
    /// When it was last looked at those timers, and at all of them, by the uptime.
    looked: (Duration, Duration),
    /// At how many timers it was looked.
    looks: u64,
    /// Whether an earlier process left something, and nothing was handled since.
    takes_over: bool,
    /// Whether the schedules were told yet.
    knows_schedules: bool,
    pods: Option<Arc<BTreeMap<String, NodePod>>>,
    is_unschedulable: bool,
    clock: Clock,
    memory: BTreeMap<String, ScheduleMemory>,
    disruptions: BTreeSet<NoticedDisruption>,
    annotations: Annotations,
    usage: UsageWatch,
    runs: Runs,
    /// What was last persisted.
    persisted: Arc<Memory>,
    keeping: Keeping,
    tally: Tally,
    effects: Vec<Effect>,
}

/// What a schedule has done on this node, and does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleState {
    /// The schedule.
    pub schedule: ScheduleRef,
    /// The generation that it acts by.
    pub generation: i64,
    /// The last time at which its interval or cron expression asked here.
    pub last_due: Option<Timestamp>,
    /// When its interval was last over while it selected a container here.
    pub last_interval: Option<Timestamp>,
    /// When a dump for it last succeeded.
    pub last_success: Option<Timestamp>,
    /// How many dumps that its interval asked for have succeeded.
    pub interval_successes: u64,
    /// When one of its time triggers is due next.
    pub next: Option<Timestamp>,
    /// How many dumps for it are under way.
    pub active: u32,
    /// How many of its requests have failed since the last success.
    pub failures: u32,
    /// When the first of them failed.
    pub failing_since: Option<Timestamp>,
    /// What failed last, since then.
    pub last_failure: Option<Failure>,
    /// How many containers it selects here.
    pub containers: usize,
}

impl Scheduler {
    /// A scheduler of that node that goes on from what was kept. It has at most so many dumps made at once, and at
    /// least one.
    pub fn new(node: String, memory: Memory, most_dumps: u32) -> Self {
        let mut runs = Runs::new(most_dumps);
        for run in memory.runs.iter().cloned() {
            runs.restore(run, Dumping::default());
        }
        Self {
            node,
            schedules: BTreeMap::new(),
            timers: HashMap::new(),
            here: BTreeMap::new(),
            crowded_out: BTreeSet::new(),
            looked: (Duration::ZERO, Duration::ZERO),
            looks: 0,
            takes_over: memory != Memory::default(),
            knows_schedules: false,
            pods: None,
            is_unschedulable: false,
            clock: Clock::Suspect,
            memory: memory.schedules.clone(),
            disruptions: memory.disruptions.clone(),
            annotations: Annotations::new(memory.annotated.clone()),
            usage: UsageWatch::default(),
            runs,
            persisted: Arc::new(memory),
            keeping: Keeping::default(),
            tally: Tally::default(),
            effects: Vec::new(),
        }
    }

    /// Learns something, and returns what is to be done, in this order.
    pub fn handle(&mut self, input: Input, now: Now) -> Vec<Effect> {
        if std::mem::take(&mut self.takes_over) {
            self.runs.take_over(now);
        }
        match input {
            Input::Schedules(schedules) => self.learn_schedules(schedules, now),
            Input::Pods(pods) => self.learn_pods(pods, now),
            Input::Node { is_unschedulable } => {
                self.is_unschedulable = is_unschedulable;
                if !is_unschedulable {
                    self.disruptions.retain(|noticed| !noticed.is_drain);
                }
                self.notice_disruptions(now);
            }
            Input::Clock(clock) => {
                self.clock = clock;
                self.arm(now);
            }
            Input::Usage(usage) => self.learn_usage(&usage, now),
            Input::Ended { dump, outcome } => {
                let frozen = match &outcome {
                    Outcome::RuntimeLost(text) => Some(RunResult::MayBeFrozen(text.clone())),
                    _ => None,
                };
                if let Some(ended) = self.runs.end(dump, outcome, now) {
                    for result in frozen.iter().chain([&ended.result]) {
                        for request in &ended.requests {
                            self.note_result(&ended.container, request.clone(), result, now);
                        }
                    }
                    // One that is tried again may not be asked for any more.
                    self.withdraw(now);
                }
            }
            Input::Tick => {}
        }
        self.ask_by_time(now);
        self.begin(now);
        std::mem::take(&mut self.effects)
    }

    /// How long until something is due by time alone; none: never.
    pub fn wakes_in(&self, now: Now) -> Option<Duration> {
        let keeps_in = self.keeping.wakes_in(now.uptime);
        if !self.can_begin() {
            return keeps_in;
        }
        let timers = self.here.values().filter_map(|schedule| {
            self.timers.get(&schedule.uid)?.wakes_in(self.delay_of(schedule), self.clock, now)
        });
        let soonest = self.looked.0.saturating_add(LEAST_SLEEP).saturating_sub(now.uptime);
        timers
            .min()
            .map(|wait| wait.max(soonest))
            .into_iter()
            .chain(self.runs.wakes_in(now.wall, now.uptime))
            .chain(keeps_in)
            .min()
    }

    /// How often usage is to be looked at; none: no schedule asks for it.
    pub fn polls_usage(&self) -> Option<Duration> {
        self.active().filter_map(|schedule| schedule.triggers.resources.map(|resources| resources.poll)).min()
    }

    /// At how many timers it was looked since the start: what many schedules cost.
    pub fn looks(&self) -> u64 {
        self.looks
    }

    /// What each schedule has done here, and does next.
    pub fn states(&self) -> Vec<ScheduleState> {
        let (pods, under_way) = (self.pods_by_namespace(), self.runs.under_way());
        let state = |schedule: &Arc<Schedule>| {
            let mut memory = self.memory.get(&schedule.uid).cloned().unwrap_or_default();
            let is_crowded_out = self.crowded_out.contains(&schedule.uid);
            if is_crowded_out {
                memory.note_crowded_out(schedule.created);
            }
            if schedule.suspend {
                memory.note_suspended();
            }
            let timers = self.timers.get(&schedule.uid).filter(|_| !schedule.suspend && !is_crowded_out);
            let pods = pods.get(schedule.pods_namespace.as_str()).into_iter().flatten();
            let selected = pods.filter(|pod| is_selected(schedule, pod));
            ScheduleState {
                schedule: schedule.id.clone(),
                generation: schedule.generation,
                last_due: memory.last_interval.max(memory.last_cron),
                last_interval: memory.last_interval,
                last_success: memory.last_success,
                interval_successes: memory.interval_successes,
                next: timers.and_then(|timers| timers.next(self.delay_of(schedule))),
                active: under_way.get(schedule.uid.as_str()).copied().unwrap_or(0),
                failures: memory.failures,
                failing_since: memory.failing_since,
                last_failure: memory.last_failure,
                containers: selected.map(|pod| containers_of(schedule, pod).count()).sum(),
            }
        };
        self.schedules.values().map(state).collect()
    }

    /// The pods that run, by their namespaces.
    fn pods_by_namespace(&self) -> HashMap<&str, Vec<&NodePod>> {
        let mut pods: HashMap<&str, Vec<&NodePod>> = HashMap::new();
        for pod in self.pods.iter().flat_map(|pods| pods.values()).filter(|pod| pod.is_running) {
            pods.entry(&pod.namespace).or_default().push(pod);
        }
        pods
    }

    /// Finds out which schedules select a pod here that runs, and which of these are carried out. The older ones are, so
    /// that a new one takes no place of another one.
    fn find_here(&mut self) {
        let pods = self.pods_by_namespace();
        let selects = |schedule: &&Arc<Schedule>| {
            let mut pods = pods.get(schedule.pods_namespace.as_str()).into_iter().flatten();
            pods.any(|pod| is_selected(schedule, pod))
        };
        // One of another namespace, which is an administrator's, takes no place of this one's.
        let mut by_namespace: BTreeMap<(&str, &str), Vec<&Arc<Schedule>>> = BTreeMap::new();
        for schedule in self.active().filter(selects) {
            by_namespace
                .entry((&schedule.id.namespace, &schedule.pods_namespace))
                .or_default()
                .push(schedule);
        }
        let (mut here, mut crowded_out) = (BTreeMap::new(), BTreeSet::new());
        for schedules in by_namespace.values_mut() {
            schedules.sort_by(|one, other| (one.created, &one.uid).cmp(&(other.created, &other.uid)));
            let (few, others) = schedules.split_at(schedules.len().min(MOST_SCHEDULES));
            here.extend(few.iter().map(|schedule| (schedule.uid.clone(), Arc::clone(schedule))));
            crowded_out.extend(others.iter().map(|schedule| schedule.uid.clone()));
        }
        (self.here, self.crowded_out) = (here, crowded_out);
    }

    fn learn_schedules(&mut self, schedules: Vec<Arc<Schedule>>, now: Now) {
        self.pass_others(now);
        self.schedules = schedules.into_iter().map(|schedule| (schedule.uid.clone(), schedule)).collect();
        self.knows_schedules = true;
        self.find_here();
        let is_there = |uid: &String| self.schedules.contains_key(uid);
        self.timers.retain(|uid, _| is_there(uid));
        self.memory.retain(|uid, _| is_there(uid));
        self.disruptions.retain(|noticed| is_there(&noticed.schedule_uid));
        self.arm(now);
        let schedules = &self.schedules;
        self.runs.follow(|uid| schedules.get(uid).map(|schedule| schedule.dumping));
        let dumps = self.runs.recover();
        self.effects.extend(dumps.into_iter().map(Effect::Recover));
        self.withdraw(now);
        self.notice_pods(now);
    }

    fn learn_pods(&mut self, pods: Option<Vec<NodePod>>, now: Now) {
        let Some(pods) = pods else {
            // Who is here is not known for now. What was asked for goes on.
            self.pods = None;
            return;
        };
        let pods: BTreeMap<String, NodePod> = pods.into_iter().map(|pod| (pod.uid.clone(), pod)).collect();
        self.annotations.learn_pods(&pods);
        self.disruptions.retain(|noticed| pods.contains_key(&noticed.pod_uid));
        self.usage.retain(|container| pods.contains_key(&container.pod_uid));
        if self.pods.as_deref() != Some(&pods) {
            // One that selects nothing until now has missed nothing.
            self.pass_others(now);
            self.pods = Some(Arc::new(pods));
            self.find_here();
        }
        self.withdraw(now);
        self.notice_pods(now);
    }

    /// What the pods themselves ask for.
    fn notice_pods(&mut self, now: Now) {
        self.notice_annotations(now);
        self.notice_disruptions(now);
    }

    fn notice_annotations(&mut self, now: Now) {
        // Before schedules are known, none allows anything.
        let Some(pods) = self.pods.clone().filter(|_| self.knows_schedules) else { return };
        for pod in pods.values().filter(|pod| pod.is_annotated && pod.is_running) {
            let allows =
                |schedule: &Arc<Schedule>| schedule.triggers.on_annotation && is_selected(schedule, pod);
            let schedules: Vec<Arc<Schedule>> =
                self.here.values().filter(|schedule| allows(schedule)).cloned().collect();
            if self.annotations.is_noticed(&pod.uid) {
                let is_asked = self.runs.is_pod_asked(&pod.uid, Trigger::Annotation);
                if self.annotations.take_unanswered(&pod.uid) && !is_asked {
                    self.answer(&pod.container(""), || why_nothing(pod, &schedules), now);
                }
                continue;
            }
            // One that is not carried out here allows it as well, and so there is an answer.
            let mut others = self.crowded_out.iter().filter_map(|uid| self.schedules.get(uid));
            if schedules.is_empty() && !others.any(allows) {
                // The right to annotate a pod is not enough to freeze it.
                continue;
            }
            self.annotations.notice(&pod.uid);
            for schedule in &schedules {
                self.ask(schedule, pod, &request(schedule, Trigger::Annotation, now.wall), now);
            }
            if !self.runs.is_pod_asked(&pod.uid, Trigger::Annotation) {
                // No container matches, or nothing but dry runs.
                self.answer(&pod.container(""), || why_nothing(pod, &schedules), now);
            }
        }
    }

    fn notice_disruptions(&mut self, now: Now) {
        let Some(pods) = self.pods.clone() else { return };
        for schedule in self.here.values().cloned().collect::<Vec<_>>() {
            if schedule.triggers.on_disruption.is_empty() {
                continue;
            }
            for pod in pods.values().filter(|pod| pod.is_running && is_selected(&schedule, pod)) {
                for disruption in disruptions_of(&schedule, pod, self.is_unschedulable) {
                    let noticed = NoticedDisruption {
                        schedule_uid: schedule.uid.clone(),
                        pod_uid: pod.uid.clone(),
                        is_drain: disruption == Disruption::NodeDrain,
                    };
                    if self.disruptions.insert(noticed) {
                        let trigger = Trigger::Disruption(disruption);
                        self.ask(&schedule, pod, &request(&schedule, trigger, now.wall), now);
                    }
                }
            }
        }
    }

    fn learn_usage(&mut self, usage: &BTreeMap<ContainerId, super::messages::Usage>, now: Now) {
        let Some(pods) = self.pods.clone() else { return };
        let fired = self.usage.learn(usage, &pods, self.here.values(), now.uptime);
        for (schedule_uid, container, trigger) in fired {
            let Some(schedule) = self.schedules.get(&schedule_uid).cloned() else { continue };
            if !self.runs.is_asked(&container, &schedule_uid, trigger) {
                self.ask_for(&schedule, &container, request(&schedule, trigger, now.wall), now);
            }
        }
    }

    /// Asks for what is due by time.
    fn ask_by_time(&mut self, now: Now) {
        // Before it is known who is here, a due time would be served with nothing.
        if self.pods.is_none() {
            return;
        }
        if now.uptime.saturating_sub(self.looked.1) >= OTHERS {
            self.pass_others(now);
        }
        self.looked.0 = now.uptime;
        self.take_all_due(self.here.values().cloned().collect(), now);
    }

    /// Lets the times pass of schedules that select nothing here, or are too many. None is late when a pod comes that one of
    /// them selects, or there is room for it.
    fn pass_others(&mut self, now: Now) {
        if self.pods.is_none() {
            return;
        }
        self.looked.1 = now.uptime;
        let others = self.active().filter(|schedule| !self.here.contains_key(&schedule.uid));
        self.take_all_due(others.cloned().collect(), now);
    }

    fn take_all_due(&mut self, schedules: Vec<Arc<Schedule>>, now: Now) {
        self.looks += schedules.len() as u64;
        for schedule in schedules {
            let delay = self.delay_of(&schedule);
            let Some(timers) = self.timers.get_mut(&schedule.uid) else { continue };
            let interval = timers.take_interval(&schedule, delay, now);
            let cron = timers.take_cron(&schedule, delay, self.clock, now);
            for (due, trigger) in [(interval, Trigger::Interval), (cron, Trigger::Cron)] {
                if let Some(due) = due {
                    self.take_due(&schedule, trigger, due, now);
                }
            }
        }
    }

    fn take_due(&mut self, schedule: &Arc<Schedule>, trigger: Trigger, due: Due, now: Now) {
        let (due, missed, is_served) = match due {
            Due::Serve { due, missed } => (due, missed, true),
            Due::TooLate { due, missed } => (due, missed, false),
        };
        let Some(all) = self.pods.clone() else { return };
        let pods: Vec<&NodePod> =
            all.values().filter(|pod| pod.is_running && is_selected(schedule, pod)).collect();
        if pods.is_empty() || self.crowded_out.contains(&schedule.uid) {
            // Nothing to do on this node. Where it did something before, the time counts as served: after a restart it
            // would else be missed.
            if let Some(memory) = self.memory.get_mut(&schedule.uid) {
                *memory.last_of(trigger) = Some(due);
            }
            return;
        }
        let memory = self.memory.entry(schedule.uid.clone()).or_default();
        *memory.last_of(trigger) = Some(due);
        let request = request(schedule, trigger, due);
        if missed > 0 {
            let result = RunResult::Skipped(SkipReason::Missed(missed));
            memory.note(&result, None, 1, now.wall);
            self.report(Report { request: request.clone(), container: None, result, count: 1 });
        }
        if is_served {
            for pod in pods {
                self.ask(schedule, pod, &request, now);
            }
        }
    }

    /// Asks for the containers of a pod that the schedule selects.
    fn ask(&mut self, schedule: &Schedule, pod: &NodePod, request: &Request, now: Now) {
        for name in containers_of(schedule, pod) {
            self.ask_for(schedule, &pod.container(name), request.clone(), now);
        }
    }

    fn ask_for(&mut self, schedule: &Schedule, container: &ContainerId, request: Request, now: Now) {
        if schedule.mode == Mode::DryRun {
            self.note_result(container, request, &RunResult::WouldDump, now);
            return;
        }
        let GivenUp { request, run, was_begun } = self.runs.add(container, request, schedule.dumping);
        if let Some(request) = request {
            self.note_missed(container, request, was_begun, now);
        }
        if let Some((container, requests)) = run {
            for request in requests {
                self.note_missed(&container, request, was_begun, now);
            }
        }
    }

    /// Notes that a request was missed. Those for which no dump has begun are told together.
    fn note_missed(&mut self, container: &ContainerId, request: Request, was_begun: bool, now: Now) {
        let missed = RunResult::Skipped(SkipReason::Missed(1));
        if was_begun || request.trigger == Trigger::Annotation {
            self.note_result(container, request, &missed, now);
        } else {
            self.tally.miss(container, request);
        }
    }

    /// Takes back what is not asked for any more.
    fn withdraw(&mut self, now: Now) {
        if !self.knows_schedules {
            return;
        }
        let (schedules, pods) = (&self.schedules, &self.pods);
        let withdrawn = self.runs.withdraw(|container, request, _| {
            let Some(schedule) = schedules.get(&request.schedule_uid).filter(|schedule| !schedule.suspend)
            else {
                return Some(SkipReason::ScheduleChanged);
            };
            if schedule.mode == Mode::DryRun || !schedule.triggers.has(request.trigger) {
                return Some(SkipReason::ScheduleChanged);
            }
            let pod = pods.as_ref()?.get(&container.pod_uid).filter(|pod| pod.is_running);
            let Some(pod) = pod else { return Some(SkipReason::PodEnded) };
            let is_asked = selects(schedule, pod, container);
            // An annotation that is taken off asks for nothing more.
            let is_wanted = request.trigger != Trigger::Annotation || pod.is_annotated;
            match (is_asked, is_wanted) {
                (true, true) => None,
                (true, false) => Some(SkipReason::RequestWithdrawn),
                (false, _) => Some(SkipReason::ScheduleChanged),
            }
        });
        for (container, request, reason) in withdrawn {
            self.note_result(&container, request, &RunResult::Skipped(reason), now);
        }
    }

    /// Takes back what has waited for too long.
    fn withdraw_late(&mut self, now: Now) {
        if !self.knows_schedules || self.clock != Clock::Trusted {
            return;
        }
        let (schedules, node) = (&self.schedules, &self.node);
        let late = self.runs.withdraw(|_, request, tried| {
            let schedule = schedules.get(&request.schedule_uid).filter(|_| !tried.was_tried)?;
            let is_late = is_too_late(schedule, request, || delay_on(node, schedule), now);
            is_late.then_some(tried.was_begun)
        });
        for (container, request, was_begun) in late {
            self.note_missed(&container, request, was_begun, now);
        }
    }

    /// Whether it is known what is asked for, and who is here.
    fn can_begin(&self) -> bool {
        self.knows_schedules && self.pods.is_some()
    }

    fn begin(&mut self, now: Now) {
        self.runs.retain_seconds(now.wall);
        self.withdraw_late(now);
        let begun = if self.can_begin() { self.runs.begin(now.wall, now.uptime) } else { Vec::new() };
        self.report_tally(now);
        self.keep(now);
        self.effects.extend(begun.into_iter().map(Effect::Dump));
    }

    /// Has it kept what is not: at once where a dump has begun or ended, and otherwise not too often. What is lost in a crash is
    /// asked for again.
    fn keep(&mut self, now: Now) {
        if self.is_persisted() {
            self.keeping.note_kept();
        } else if !self.runs.begun_are_kept(&self.persisted.runs) || self.keeping.take(now.uptime) {
            self.keeping.note_kept();
            self.persisted = Arc::new(self.memory());
            self.effects.push(Effect::Persist(Arc::clone(&self.persisted)));
        }
    }

    /// Tells of what is told of together.
    fn report_tally(&mut self, now: Now) {
        for report in self.tally.take_missed() {
            let uid = &report.request.schedule_uid;
            if self.schedules.contains_key(uid) {
                let memory = self.memory.entry(uid.clone()).or_default();
                memory.note(&report.result, None, report.count, now.wall);
            }
            self.report(report);
        }
        self.effects.extend(self.tally.take_further().map(Effect::Report));
    }

    fn note_result(&mut self, container: &ContainerId, request: Request, result: &RunResult, now: Now) {
        if let Some(schedule) = self.schedules.get(&request.schedule_uid) {
            let memory = self.memory.entry(request.schedule_uid.clone()).or_default();
            let pods = self.pods.as_deref();
            let selects = |other: &ContainerId| {
                pods.is_none_or(|pods| {
                    pods.get(&other.pod_uid).is_some_and(|pod| selects(schedule, pod, other))
                })
            };
            memory.note_of(container, result, request.is_timed(), selects, now.wall);
            let is_by_interval = request.trigger == Trigger::Interval;
            if is_by_interval && matches!(result, RunResult::Done(_)) {
                memory.interval_successes = memory.interval_successes.saturating_add(1);
            }
        }
        let is_by_use = matches!(request.trigger, Trigger::Cpu | Trigger::Memory);
        if is_by_use && matches!(result, RunResult::Done(_) | RunResult::WouldDump) {
            self.usage.note_success(&request.schedule_uid, container, now.uptime);
        }
        let is_annotation = request.trigger == Trigger::Annotation;
        let report = match result {
            RunResult::WouldDump | RunResult::Skipped(_) => {
                self.tally.report_or_count(container, request, result.clone())
            }
            // There are no more of these than dumps.
            _ => {
                Some(Report { request, container: Some(container.clone()), result: result.clone(), count: 1 })
            }
        };
        self.effects.extend(report.map(Effect::Report));
        if is_annotation && self.annotations.note(container, result) {
            // Something came of this container.
            self.answer(container, String::new, now);
        }
    }

    /// Answers the annotation of a container's pod.
    fn answer(&mut self, container: &ContainerId, why_nothing: impl FnOnce() -> String, now: Now) {
        let is_over = !self.runs.is_pod_asked(&container.pod_uid, Trigger::Annotation);
        let answer = self.annotations.answer(container, is_over, why_nothing, now.wall);
        self.effects.extend(answer.map(Effect::Answer));
    }

    fn report(&mut self, report: Report) {
        self.effects.push(Effect::Report(report));
    }

    fn arm(&mut self, now: Now) {
        for schedule in self.schedules.values().filter(|schedule| !schedule.suspend) {
            let memory = self.memory.get(&schedule.uid).cloned().unwrap_or_default();
            let timers = self.timers.entry(schedule.uid.clone()).or_default();
            if let Some(last) = timers.arm(schedule, &memory, self.clock, now) {
                self.memory.entry(schedule.uid.clone()).or_default().last_cron = Some(last);
            }
        }
        // One that is suspended counts anew from its last time once it goes on.
        self.timers.retain(|uid, _| self.schedules.get(uid).is_some_and(|schedule| !schedule.suspend));
    }

    fn active(&self) -> impl Iterator<Item = &Arc<Schedule>> {
        self.schedules.values().filter(|schedule| !schedule.suspend)
    }

    fn delay_of(&self, schedule: &Schedule) -> Duration {
        delay_on(&self.node, schedule)
    }

    fn memory(&self) -> Memory {
        Memory {
            schedules: self.memory.clone(),
            disruptions: self.disruptions.clone(),
            annotated: self.annotations.memory().clone(),
            runs: self.runs.memory(),
        }
    }

    /// Whether nothing has changed since it was persisted.
    fn is_persisted(&self) -> bool {
        let Memory { schedules, disruptions, annotated, runs } = &*self.persisted;
        self.memory == *schedules
            && self.disruptions == *disruptions
            && self.annotations.memory() == annotated
            && self.runs.are_kept(runs)
    }
}

/// Whether a schedule selects a container of a pod that runs.
fn selects(schedule: &Schedule, pod: &NodePod, container: &ContainerId) -> bool {
    pod.is_running
        && is_selected(schedule, pod)
        && containers_of(schedule, pod).any(|name| name == container.container)
}

fn request(schedule: &Schedule, trigger: Trigger, due: Timestamp) -> Request {
    Request { schedule: schedule.id.clone(), schedule_uid: schedule.uid.clone(), trigger, due }
}

/// A node's part of a schedule's jitter.
fn delay_on(node: &str, schedule: &Schedule) -> Duration {
    let text = format!("{} {node}", schedule.uid);
    // FNV-1a: any hash that is the same after a restart.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    schedule.triggers.jitter.mul_f64((hash % 1_000) as f64 / 1_000.0)
}

/// Whether a due time has waited for its turn for longer than its schedule allows, by a clock that is trusted; `delay` tells this
/// node's part of the jitter.
fn is_too_late(schedule: &Schedule, request: &Request, delay: impl Fn() -> Duration, now: Now) -> bool {
    let Some(deadline) = schedule.triggers.starting_deadline.filter(|_| request.is_timed()) else {
        return false;
    };
    let latest = deadline.saturating_add(delay());
    Duration::try_from(now.wall.duration_since(request.due)).is_ok_and(|late| late > latest)
}

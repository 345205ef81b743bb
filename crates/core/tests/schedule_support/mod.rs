//! A node with its scheduler, as its agent drives it, and small builders of schedules and pods.
#![allow(dead_code)] // each test crate uses its own part
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_core::engine::clock::Now;
use checkpoint_keeper_core::plan::Clock;
use checkpoint_keeper_core::policy::{LabelSelector, Mode};
use checkpoint_keeper_core::schedule::cron::Cron;
use checkpoint_keeper_core::schedule::{
    Answer, ArchiveRetention, Disruption, Dump, Dumping, Effect, Input, MOST_DUMPS, Memory, NodePod, Outcome,
    PodContainer, Report, Schedule, ScheduleKind, ScheduleRef, Scheduler, Triggers,
};
use jiff::Timestamp;

pub(crate) const HOUR: Duration = Duration::from_hours(1);
pub(crate) const MINUTE: Duration = Duration::from_mins(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const BEGIN: Timestamp = Timestamp::constant(1_780_000_000, 0);

/// A node with its scheduler, whose dumps end when a test says so.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) most: u32,
    pub(crate) scheduler: Scheduler,
    pub(crate) now: Now,
    pub(crate) schedules: Vec<Schedule>,
    pub(crate) pods: Vec<NodePod>,
    pub(crate) running: Vec<Dump>,
    pub(crate) recovering: Vec<Dump>,
    pub(crate) dumped: Vec<Dump>,
    pub(crate) reports: Vec<Report>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) kept: Memory,
    /// How often something was to be kept.
    pub(crate) writes: usize,
    /// The most reports that one input had.
    pub(crate) most_reports: usize,
}

impl Node {
    pub(crate) fn new(schedules: Vec<Schedule>, pods: Vec<NodePod>) -> Self {
        Self::with_most(MOST_DUMPS, schedules, pods)
    }

    /// One on which at most so many dumps are made at once.
    pub(crate) fn with_most(most: u32, schedules: Vec<Schedule>, pods: Vec<NodePod>) -> Self {
        let mut node = Self {
            most,
            scheduler: Scheduler::new("node-1".to_owned(), Memory::default(), most),
            now: Now { wall: BEGIN, uptime: HOUR },
            schedules,
            pods,
            running: Vec::new(),
            recovering: Vec::new(),
            dumped: Vec::new(),
            reports: Vec::new(),
            answers: Vec::new(),
            kept: Memory::default(),
            writes: 0,
            most_reports: 0,
        };
        node.tell_all();
        node
    }

    pub(crate) fn tell_all(&mut self) {
        self.tell(Input::Clock(Clock::Trusted));
        self.tell_schedules();
        self.tell_pods();
    }

    pub(crate) fn tell_schedules(&mut self) {
        self.tell(Input::Schedules(self.schedules.iter().cloned().map(Arc::new).collect()));
    }

    pub(crate) fn tell_pods(&mut self) {
        self.tell(Input::Pods(Some(self.pods.clone())));
    }

    pub(crate) fn tell(&mut self, input: Input) {
        let reported = self.reports.len();
        for effect in self.scheduler.handle(input, self.now) {
            match effect {
                Effect::Persist(memory) => {
                    self.kept = Arc::unwrap_or_clone(memory);
                    self.writes += 1;
                }
                Effect::Dump(dump) => {
                    assert!(
                        self.kept
                            .runs
                            .iter()
                            .any(|run| run.container == dump.container && run.started.is_some()),
                        "that it begins is kept before it does"
                    );
                    self.check(&dump);
                    self.dumped.push(dump.clone());
                    self.running.push(dump);
                }
                Effect::Recover(dump) => {
                    self.recovering.push(dump.clone());
                    self.running.push(dump);
                }
                Effect::Report(report) => self.reports.push(report),
                Effect::Answer(answer) => self.answers.push(answer),
            }
        }
        self.most_reports = self.most_reports.max(self.reports.len() - reported);
    }

    /// What must hold of each dump that begins.
    fn check(&self, dump: &Dump) {
        let container = &dump.container;
        assert!(self.running.iter().all(|one| one.container != *container), "two at once: {dump:?}");
        let pod = self.pods.iter().find(|pod| pod.uid == container.pod_uid && pod.is_running);
        let pod = pod.unwrap_or_else(|| panic!("it does not run: {dump:?}"));
        assert!(!dump.requests.is_empty());
        assert!(self.running.len() < self.most as usize, "too many at once: {dump:?}");
        let of_namespace = |one: &&Dump| one.container.namespace == container.namespace;
        let of_namespace = self.running.iter().filter(of_namespace).count();
        for request in &dump.requests {
            let asks = self.schedules.iter().find(|schedule| schedule.uid == request.schedule_uid);
            let asks = asks.unwrap_or_else(|| panic!("nobody asks: {dump:?}"));
            assert!(!asks.suspend && asks.mode == Mode::Enforce, "{asks:?}: {dump:?}");
            let most = asks.dumping.max_concurrent_per_node as usize;
            assert!(of_namespace < most, "more than {most} at once: {dump:?}");
            let is_selected =
                asks.selector.0.iter().all(|one| one.holds(pod.labels.get(&one.key).map(String::as_str)));
            assert!(asks.pods_namespace == pod.namespace && is_selected, "{asks:?}: {dump:?}");
            let names = &asks.containers;
            assert!(names.is_empty() || names.contains(&container.container), "{asks:?}: {dump:?}");
        }
    }

    pub(crate) fn pass(&mut self, length: Duration) -> &mut Self {
        self.now = Now { wall: self.now.wall + length, uptime: self.now.uptime + length };
        self.tell(Input::Tick);
        self
    }

    /// Sleeps as the agent does, until that much has passed; what begins meanwhile succeeds at once.
    pub(crate) fn live(&mut self, length: Duration) -> &mut Self {
        let end = self.now.uptime + length;
        for _ in 0..10_000 {
            self.finish_all();
            let wait = self.scheduler.wakes_in(self.now).unwrap_or(Duration::MAX);
            let left = end.saturating_sub(self.now.uptime);
            if wait >= left {
                return self.pass(left);
            }
            self.pass(wait);
        }
        panic!("it never sleeps");
    }

    pub(crate) fn end(&mut self, outcome: Outcome) -> &mut Self {
        let dump = self.running.remove(0);
        self.tell(Input::Ended { dump: dump.id, outcome });
        self
    }

    pub(crate) fn finish_all(&mut self) {
        while !self.running.is_empty() {
            self.end(done());
        }
    }

    /// The program ends, and another one begins.
    pub(crate) fn restart(&mut self) -> &mut Self {
        let kept = serde_json::to_string(&self.kept).unwrap();
        self.scheduler = Scheduler::new("node-1".to_owned(), serde_json::from_str(&kept).unwrap(), self.most);
        self.running.clear();
        self.tell_all();
        self
    }

    /// What was dumped since the last call: pod and container.
    pub(crate) fn dumps(&mut self) -> Vec<String> {
        let dumps = std::mem::take(&mut self.dumped);
        dumps.iter().map(|dump| format!("{}/{}", dump.container.pod, dump.container.container)).collect()
    }

    pub(crate) fn results(&mut self) -> Vec<&'static str> {
        std::mem::take(&mut self.reports).iter().map(|report| report.result.name()).collect()
    }
}

pub(crate) fn done() -> Outcome {
    Outcome::Done { file: "a.tar".to_owned() }
}

pub(crate) fn failed() -> Outcome {
    Outcome::Failed("no".to_owned())
}

pub(crate) fn schedule(triggers: Triggers) -> Schedule {
    Schedule {
        id: ScheduleRef { kind: ScheduleKind::Native, namespace: "shop".to_owned(), name: "s".to_owned() },
        uid: "s".to_owned(),
        generation: 1,
        created: BEGIN,
        last_reported: None,
        pods_namespace: "shop".to_owned(),
        selector: LabelSelector::default(),
        containers: Vec::new(),
        triggers,
        mode: Mode::Enforce,
        suspend: false,
        dumping: Dumping::default(),
        retention: ArchiveRetention::default(),
    }
}

pub(crate) fn every(interval: Duration) -> Schedule {
    schedule(Triggers { interval: Some(interval), ..Triggers::default() })
}

pub(crate) fn at(fields: &str, zone: &str) -> Schedule {
    schedule(Triggers { cron: Some(Cron::parse(fields, zone, BEGIN).unwrap()), ..Triggers::default() })
}

pub(crate) fn on_annotation() -> Schedule {
    schedule(Triggers { on_annotation: true, ..Triggers::default() })
}

pub(crate) fn on(disruptions: &[Disruption]) -> Schedule {
    schedule(Triggers { on_disruption: disruptions.iter().copied().collect(), ..Triggers::default() })
}

pub(crate) fn container(name: &str, is_main: bool) -> PodContainer {
    PodContainer { name: name.to_owned(), is_main, cpu_limit: Some(1_000), memory_limit: Some(500) }
}

pub(crate) fn pod(name: &str) -> NodePod {
    NodePod {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: format!("uid of {name}"),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        is_running: true,
        containers: vec![container("app", true)],
        ..NodePod::default()
    }
}

pub(crate) fn asked(name: &str) -> NodePod {
    NodePod { is_annotated: true, ..pod(name) }
}

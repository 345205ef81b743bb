//! What is told of the results of schedules: which of them have a line in the log, and which are to have events. All of
//! them are counted.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use checkpoint_keeper_core::schedule::{Report, RunResult, Trigger};

use super::budget::{Budget, MESSAGES, RESULTS};

/// The shortest time between two messages of the same result of the same schedule for the same container.
const MIN_INTERVAL: Duration = Duration::from_mins(1);

/// What was told, and may be.
#[derive(Debug)]
pub(super) struct Telling {
    /// When which result that may come again and again was told: by a hash, as only equality counts.
    told: HashMap<u64, Instant>,
    hasher: RandomState,
    /// When what is too old was last forgotten.
    forgot: Instant,
    lines: Budget,
    results: Budget,
}

/// What is done with a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing: the same was told a moment ago.
    Before,
    /// It is told, unless there is too much to tell.
    Now {
        /// Whether it gets a line in the log.
        in_log: bool,
        /// Whether it is among what events tell of.
        in_events: bool,
    },
}

impl Telling {
    /// Nothing was told yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            told: HashMap::new(),
            hasher: RandomState::new(),
            forgot: now,
            lines: Budget::new(MESSAGES, now),
            results: Budget::new(RESULTS, now),
        }
    }

    /// What is done with a result that came just now.
    pub(super) fn admit(&mut self, report: &Report, now: Instant) -> Told {
        let Report { request, container, result } = report;
        let is_recent = |told: &Instant| now.saturating_duration_since(*told) < MIN_INTERVAL;
        if !is_recent(&self.forgot) {
            self.told.retain(|_, told| is_recent(told));
            self.forgot = now;
        }
        let key = self.hasher.hash_one((&request.schedule_uid, container, result.name()));
        let comes_again = comes_again(report);
        if comes_again && self.told.get(&key).is_some_and(is_recent) {
            return Told::Before;
        }
        let namespace = &request.schedule.namespace;
        let (in_log, in_events) = (self.lines.take(namespace, now), self.results.take(namespace, now));
        // So what is remembered is no more than the budgets allow in a minute or two.
        if comes_again && (in_log || in_events) {
            self.told.insert(key, now);
        }
        Told::Now { in_log, in_events }
    }
}

/// Whether it may come as often as a schedule is due, and costs nobody anything: of a dry run, and of what time asks for and
/// is not made.
fn comes_again(report: &Report) -> bool {
    match report.result {
        RunResult::WouldDump => true,
        RunResult::Done(_) => false,
        _ => matches!(report.request.trigger, Trigger::Interval | Trigger::Cron),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use checkpoint_keeper_core::engine::clock::Now;
    use checkpoint_keeper_core::plan::Clock;
    use checkpoint_keeper_core::policy::{LabelSelector, Mode};
    use checkpoint_keeper_core::schedule::{
        ArchiveRetention, ContainerId, Dumping, Effect, Input, MOST_DUMPS, Memory, NodePod, PodContainer,
        Request, Schedule, ScheduleKind, ScheduleRef, Scheduler, Triggers,
    };
    use jiff::Timestamp;

    use super::super::reports;
    use super::*;

    const BEGIN: Timestamp = Timestamp::constant(1_780_000_000, 0);

    fn dry_run(namespace: &str, number: usize) -> Arc<Schedule> {
        let name = format!("s{number}");
        Arc::new(Schedule {
            uid: format!("{namespace} {name}"),
            id: ScheduleRef { kind: ScheduleKind::Native, namespace: namespace.to_owned(), name },
            generation: 1,
            created: BEGIN,
            last_reported: None,
            pods_namespace: namespace.to_owned(),
            selector: LabelSelector::default(),
            containers: Vec::new(),
            triggers: Triggers { interval: Some(Duration::from_secs(1)), ..Triggers::default() },
            mode: Mode::DryRun,
            suspend: false,
            dumping: Dumping::default(),
            retention: ArchiveRetention::default(),
        })
    }

    fn pod(namespace: &str, number: usize) -> NodePod {
        NodePod {
            namespace: namespace.to_owned(),
            name: format!("web-{number}"),
            uid: format!("{namespace} {number}"),
            is_running: true,
            containers: vec![PodContainer {
                name: "app".to_owned(),
                is_main: true,
                ..PodContainer::default()
            }],
            ..NodePod::default()
        }
    }

    /// How many results there were, how many lines, and the events' namespaces.
    fn told(asking: Vec<Arc<Schedule>>, pods: Vec<NodePod>, seconds: u64) -> (usize, usize, Vec<String>) {
        let mut scheduler = Scheduler::new("n".to_owned(), Memory::default(), MOST_DUMPS);
        let begin = Instant::now();
        let (mut telling, mut budget) = (Telling::new(begin), Budget::new(MESSAGES, begin));
        let (mut results, mut lines, mut events) = (0, 0, Vec::new());
        let mut collected = Vec::new();
        let inputs = [Input::Clock(Clock::Trusted), Input::Schedules(asking), Input::Pods(Some(pods))];
        let ticks = (1..=seconds).map(|second| (second, Input::Tick));
        for (second, input) in inputs.into_iter().map(|input| (0, input)).chain(ticks) {
            let passed = Duration::from_secs(second);
            let now = begin + passed;
            for effect in scheduler.handle(input, Now { wall: BEGIN + passed, uptime: passed }) {
                let Effect::Report(report) = effect else { continue };
                results += 1;
                let Told::Now { in_log, in_events } = telling.admit(&report, now) else { continue };
                lines += usize::from(in_log);
                collected.extend(in_events.then_some(report));
            }
            assert!(collected.len() <= reports::MOST_WAITING);
            if second % 2 == 0 {
                let (notes, _) = reports::due(&collected, "n", |_| None, &mut budget, now);
                events.extend(notes.into_iter().filter_map(|note| note.about.namespace));
                collected.clear();
            }
        }
        (results, lines, events)
    }

    #[test]
    fn dry_runs_that_are_always_due_flood_neither_the_events_nor_the_log() {
        let schedules = (0..100).map(|number| dry_run("greedy", number)).collect();
        let pods = (0..50).map(|number| pod("greedy", number)).collect();
        let (results, lines, events) = told(schedules, pods, 60);
        assert_eq!(results, 100 * 50 * 60);
        assert!((100..=131).contains(&lines), "{lines}");
        assert!((100..=131).contains(&events.len()), "{}", events.len());
    }

    #[test]
    fn another_tenant_is_told_all_the_same() {
        let greedy = (0..100).map(|number| dry_run("greedy", number));
        let schedules = greedy.chain([dry_run("other", 0)]).collect();
        let pods = (0..50).map(|number| pod("greedy", number)).chain([pod("other", 0)]).collect();
        let (_, _, events) = told(schedules, pods, 60);
        assert!(events.iter().any(|namespace| namespace == "other"), "{events:?}");
    }

    #[test]
    fn the_same_result_is_told_once_a_minute_and_each_checkpoint_at_once() {
        let (results, lines, events) = told(vec![dry_run("shop", 0)], vec![pod("shop", 0)], 130);
        // One on the pod and one on the schedule, for each line.
        assert_eq!((results, lines, events.len()), (130, 3, 6));
        let begin = Instant::now();
        let mut telling = Telling::new(begin);
        let mut told = |trigger: Trigger, result: RunResult, second: u64| {
            let schedule = dry_run("shop", 0);
            let request =
                Request { schedule: schedule.id.clone(), schedule_uid: "u".to_owned(), trigger, due: BEGIN };
            let container = ContainerId {
                namespace: "shop".to_owned(),
                pod: "web-0".to_owned(),
                pod_uid: "u".to_owned(),
                container: "app".to_owned(),
            };
            let report = Report { request, container: Some(container), result };
            telling.admit(&report, begin + Duration::from_secs(second)) != Told::Before
        };
        let failed = || RunResult::Failed("no".to_owned());
        let done = || RunResult::Done("a.tar".to_owned());
        assert!(told(Trigger::Interval, failed(), 0) && !told(Trigger::Interval, failed(), 1));
        assert!(told(Trigger::Interval, RunResult::QuotaExceeded("no".to_owned()), 1), "it is another one");
        assert!(told(Trigger::Interval, done(), 2) && told(Trigger::Interval, done(), 3));
        assert!(told(Trigger::Annotation, failed(), 4) && told(Trigger::Annotation, failed(), 5));
        assert!(told(Trigger::Interval, failed(), 61));
    }
}

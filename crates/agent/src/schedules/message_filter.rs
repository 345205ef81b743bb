//! Which results of schedules have a line in the log, and which have events, so that neither is flooded. Metrics count all
//! of them.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use checkpoint_keeper_core::schedule::{Report, RunResult, Trigger};

use super::budget::{Budget, MESSAGES, RESULTS};

/// The shortest time between two messages of the same result of the same schedule for the same container.
const MIN_INTERVAL: Duration = Duration::from_mins(1);

/// Remembers which messages were sent, and how many more may be.
#[derive(Debug)]
pub(super) struct MessageFilter {
    /// When a message of each result that comes again and again was last sent: by a hash, as only equality counts.
    sent: HashMap<u64, Instant>,
    hasher: RandomState,
    /// When old entries were last removed.
    forgot: Instant,
    lines: Budget,
    results: Budget,
}

/// Which messages a result has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// There is no message: the same was sent a moment ago.
    Repeated,
    /// There are messages, as far as the budgets allow them.
    New {
        /// Whether there is a line in the log.
        in_log: bool,
        /// Whether it is among the results that events are made of.
        in_events: bool,
    },
}

impl MessageFilter {
    /// No message was sent yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            sent: HashMap::new(),
            hasher: RandomState::new(),
            forgot: now,
            lines: Budget::new(MESSAGES, now),
            results: Budget::new(RESULTS, now),
        }
    }

    /// Which messages a result has that came just now.
    pub(super) fn admit(&mut self, report: &Report, now: Instant) -> Admission {
        let Report { request, container, result, .. } = report;
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < MIN_INTERVAL;
        if !is_recent(&self.forgot) {
            self.sent.retain(|_, at| is_recent(at));
            self.forgot = now;
        }
        let key = self.hasher.hash_one((&request.schedule_uid, container, result.name()));
        let comes_again = comes_again(report);
        if comes_again && self.sent.get(&key).is_some_and(is_recent) {
            return Admission::Repeated;
        }
        let namespace = &request.schedule.namespace;
        let (in_log, in_events) = (self.lines.take(namespace, now), self.results.take(namespace, now));
        // So what is remembered is no more than the budgets allow in a minute or two.
        if comes_again && (in_log || in_events) {
            self.sent.insert(key, now);
        }
        Admission::New { in_log, in_events }
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
        let (mut filter, mut budget) = (MessageFilter::new(begin), Budget::new(MESSAGES, begin));
        let (mut results, mut lines, mut events) = (0, 0, Vec::new());
        let mut collected = Vec::new();
        let inputs = [Input::Clock(Clock::Trusted), Input::Schedules(asking), Input::Pods(Some(pods))];
        let ticks = (1..=seconds).map(|second| (second, Input::Tick));
        for (second, input) in inputs.into_iter().map(|input| (0, input)).chain(ticks) {
            let passed = Duration::from_secs(second);
            let now = begin + passed;
            for effect in scheduler.handle(input, Now { wall: BEGIN + passed, uptime: passed }) {
                let Effect::Report(report) = effect else { continue };
                results += report.count as usize;
                let Admission::New { in_log, in_events } = filter.admit(&report, now) else { continue };
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
        let mut filter = MessageFilter::new(begin);
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
            let report = Report { request, container: Some(container), result, count: 1 };
            filter.admit(&report, begin + Duration::from_secs(second)) != Admission::Repeated
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

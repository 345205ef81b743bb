//! What edits, restarts, clocks that are set and long waits do to what is asked for.
#![allow(clippy::unwrap_used, clippy::panic)]

mod schedule_support;

use std::time::Duration;

use checkpoint_keeper_core::plan::Clock;
use checkpoint_keeper_core::policy::Mode;
use checkpoint_keeper_core::schedule::cron::Cron;
use checkpoint_keeper_core::schedule::{
    ContainerId, Disruption, Dumping, Input, ResourceTrigger, RunResult, Schedule, SkipReason, Thresholds,
    Triggers, Usage,
};
use schedule_support::{
    BEGIN, HOUR, MINUTE, Node, SECOND, asked, at, container, done, every, failed, on, on_annotation, pod,
    schedule,
};

const NOTHING: [&str; 0] = [];

/// How many times each report tells of as missed, of all its containers together.
fn missed(node: &mut Node) -> Vec<u32> {
    let reports = std::mem::take(&mut node.reports);
    let missed = reports.iter().filter_map(|report| match report.result {
        RunResult::Skipped(SkipReason::Missed(count)) => Some(count * report.count),
        _ => None,
    });
    missed.collect()
}

#[test]
fn a_dump_that_fails_after_the_schedule_stopped_asking_is_not_tried_again() {
    let stops: [fn(&mut Node); 4] = [
        |node| node.schedules[0].suspend = true,
        |node| node.schedules[0].mode = Mode::DryRun,
        |node| node.schedules.clear(),
        |node| node.schedules[0].triggers = Triggers { on_annotation: true, ..Triggers::default() },
    ];
    for stop in stops {
        let mut node = Node::new(vec![every(HOUR)], vec![pod("web")]);
        node.pass(HOUR);
        stop(&mut node);
        node.tell_schedules();
        node.end(failed());
        node.dumps();
        assert_eq!(node.results(), ["CheckpointRetrying", "ScheduleChanged"]);
        assert_eq!(node.live(HOUR / 2).dumps(), NOTHING);
    }
    // The same of a pod that ended meanwhile.
    let mut node = Node::new(vec![every(HOUR)], vec![pod("web")]);
    node.pass(HOUR);
    node.pods.clear();
    node.tell_pods();
    node.end(failed());
    assert_eq!(node.results(), ["CheckpointRetrying", "PodEnded"]);
}

#[test]
fn what_a_trigger_asked_for_that_is_taken_off_is_not_made() {
    let resources = ResourceTrigger {
        cpu: Thresholds::default(),
        memory: Thresholds { above: Some(1), below: None },
        poll: SECOND,
        cooldown: HOUR,
    };
    let all = schedule(Triggers {
        interval: Some(HOUR),
        on_annotation: true,
        resources: Some(resources),
        ..on(&[Disruption::NodeDrain]).triggers
    });
    let asks: [fn(&mut Node); 4] = [
        |node| _ = node.pass(HOUR),
        |node| node.tell(Input::Node { is_unschedulable: true }),
        |node| {
            node.pods.iter_mut().for_each(|pod| pod.is_annotated = true);
            node.tell_pods();
        },
        |node| {
            let usage = node.pods.iter().map(|pod| {
                let id = ContainerId {
                    namespace: pod.namespace.clone(),
                    pod: pod.name.clone(),
                    pod_uid: pod.uid.clone(),
                    container: "app".to_owned(),
                };
                (id, Usage { cpu_seconds: None, memory_bytes: Some(400), at: node.now.uptime })
            });
            let usage = Input::Usage(usage.collect());
            node.tell(usage);
        },
    ];
    for ask in asks {
        let mut node = Node::new(vec![all.clone()], vec![pod("one"), pod("two")]);
        ask(&mut node);
        assert_eq!(node.dumps().len(), 1);
        node.schedules[0].triggers = at("0 0 1 1 *", "UTC").triggers;
        node.tell_schedules();
        node.finish_all();
        assert_eq!(node.results(), ["ScheduleChanged", "CheckpointCreated"]);
        assert_eq!(node.live(MINUTE).dumps(), NOTHING);
    }
}

#[test]
fn what_a_failed_dump_is_tried_again_by_is_what_the_schedule_says_by_then() {
    let mut node = Node::new(vec![every(HOUR)], vec![pod("web")]);
    node.pass(HOUR);
    node.schedules[0].dumping.backoff = MINUTE;
    node.tell_schedules();
    node.end(failed());
    assert_eq!(node.scheduler.wakes_in(node.now), Some(MINUTE));
    // And so it is of one that an earlier process began.
    let once = Dumping { retries: 0, timeout: MINUTE, ..Dumping::default() };
    let mut node = Node::new(vec![Schedule { dumping: once, ..every(HOUR) }], vec![pod("web")]);
    node.pass(HOUR).restart();
    assert_eq!(node.recovering[0].timeout, MINUTE);
    node.end(failed());
    assert_eq!(node.results(), ["CheckpointFailed"]);
}

#[test]
fn an_edit_of_the_interval_acts_while_the_clock_is_suspect_too() {
    let mut node = Node::new(vec![every(HOUR)], vec![pod("web")]);
    node.tell(Input::Clock(Clock::Suspect));
    node.schedules[0].triggers.interval = Some(HOUR * 2);
    node.tell_schedules();
    assert_eq!(node.live(HOUR + MINUTE).dumps(), NOTHING);
    assert_eq!(node.live(HOUR).dumps(), ["web/app"]);
    node.schedules[0].triggers = on_annotation().triggers;
    node.tell_schedules();
    assert_eq!(node.live(HOUR * 5).dumps(), NOTHING);
}

#[test]
fn an_edit_of_the_interval_counts_from_the_last_run_though_the_clock_was_set() {
    for jump in [-3_600 * 24 * 365_i64, 3_600 * 24 * 365] {
        let mut node = Node::new(vec![every(HOUR)], vec![pod("web")]);
        node.live(HOUR).finish_all();
        node.dumps();
        node.now.wall += jiff::SignedDuration::from_secs(jump);
        node.schedules[0].triggers.interval = Some(MINUTE * 30);
        node.tell_schedules();
        assert_eq!(node.live(MINUTE * 29).dumps(), NOTHING, "{jump}");
        assert_eq!(node.live(MINUTE * 2).dumps(), ["web/app"], "{jump}");
    }
}

/// What an expression names before it was written was never due.
#[test]
fn a_cron_expression_that_is_edited_or_added_serves_no_time_before_that() {
    let old = Schedule { created: BEGIN - HOUR * 24 * 30, ..every(HOUR * 24 * 365) };
    let mut node = Node::new(vec![old], vec![pod("web")]);
    node.schedules[0].triggers = at("0 * * * *", "UTC").triggers;
    node.tell_schedules();
    assert_eq!((node.dumps(), node.results()), (vec![], vec![]), "added");
    // BEGIN is 20:26:40.
    assert_eq!(node.live(HOUR).dumps(), ["web/app"]);
    node.results();
    node.schedules[0].triggers.cron = Some(Cron::parse("10 * * * *", "UTC", BEGIN).unwrap());
    node.tell_schedules();
    assert_eq!((node.dumps(), node.results()), (vec![], vec![]), "edited");
    // Nor does the next process.
    node.restart().pass(SECOND);
    assert_eq!((node.dumps(), node.results()), (vec![], vec![]));
    assert_eq!(node.live(HOUR).dumps(), ["web/app"]);
}

/// Also where nothing was dumped by the wrong clock, and where due times wait for their part of the jitter.
#[test]
fn after_a_clock_that_was_far_ahead_each_time_of_the_right_one_is_served() {
    let mut node = Node::new(vec![at("0 * * * *", "UTC")], vec![]);
    node.now.wall += HOUR * 24 * 400;
    node.tell(Input::Tick);
    node.now.wall = BEGIN;
    node.tell(Input::Clock(Clock::Suspect));
    node.tell(Input::Clock(Clock::Trusted));
    node.pods.push(pod("web"));
    node.tell_pods();
    assert_eq!(node.live(HOUR * 2).dumps().len(), 2, "nothing was dumped by the wrong clock");
    let mut jittered = at("0 * * * *", "UTC");
    jittered.triggers.jitter = MINUTE * 25;
    let mut node = Node::new(vec![jittered], vec![pod("web")]);
    node.now.wall += HOUR * 24 * 400;
    node.tell(Input::Tick);
    node.finish_all();
    node.now.wall = BEGIN;
    node.tell(Input::Clock(Clock::Suspect));
    node.tell(Input::Clock(Clock::Trusted));
    node.dumps();
    for _ in 0..120 {
        node.live(MINUTE);
        node.tell_schedules();
    }
    assert_eq!(node.dumps().len(), 2, "however often schedules are told while a time waits for its delay");
}

#[test]
fn a_clock_that_is_set_back_by_little_begins_no_two_dumps_in_one_second() {
    let mut node = Node::new(vec![on_annotation()], vec![asked("web")]);
    let mut again_at = |milliseconds: u64| {
        node.finish_all();
        node.now.wall = BEGIN + Duration::from_millis(milliseconds);
        node.pods[0].answer = node.answers.last().map(|answer| answer.text.clone());
        node.tell_pods();
        (node.running.len(), node.scheduler.wakes_in(node.now))
    };
    assert_eq!(again_at(2_000), (1, None));
    assert_eq!(again_at(1_000), (1, None), "set back, to a second in which none began");
    assert_eq!(again_at(2_300), (0, Some(Duration::from_millis(700))), "and on, to one in which one did");
    assert_eq!(again_at(3_000), (1, None));
}

#[test]
fn of_intervals_that_passed_in_an_outage_one_is_made_and_the_others_are_told_of() {
    let mut node = Node::new(vec![every(HOUR)], vec![pod("web")]);
    node.live(HOUR).finish_all();
    node.dumps();
    // Due 4, 3, 2 and 1 hours ago, and now.
    node.now.wall += HOUR * 5;
    node.restart().pass(SECOND).finish_all();
    assert_eq!(node.dumps(), ["web/app"]);
    assert_eq!(missed(&mut node), [4]);
    assert_eq!(node.live(HOUR).dumps(), ["web/app"]);
    assert_eq!(missed(&mut node), [0_u32; 0]);
    // The same where no watch shows the pods.
    node.tell(Input::Pods(None));
    node.pass(HOUR * 2 + MINUTE * 59 + SECOND * 59);
    node.tell_pods();
    node.finish_all();
    assert_eq!(node.dumps(), ["web/app"]);
    assert_eq!(missed(&mut node), [2]);
    // Too late for the last one as well.
    let mut node = Node::new(vec![every(HOUR)], vec![pod("web")]);
    node.schedules[0].triggers.starting_deadline = Some(MINUTE);
    node.tell_schedules();
    node.tell(Input::Pods(None));
    node.pass(HOUR * 3 + MINUTE * 2);
    node.tell_pods();
    assert_eq!((node.dumps(), missed(&mut node)), (vec![], vec![3]));
}

#[test]
fn restarts_do_not_add_the_jitter_again() {
    let mut jittered = every(HOUR);
    jittered.triggers.jitter = MINUTE * 30;
    let mut node = Node::new(vec![jittered], vec![pod("web")]);
    let first = node.scheduler.wakes_in(node.now).unwrap();
    assert!(first > HOUR, "this node has a part of the jitter");
    for _ in 0..5 {
        let wait = node.scheduler.wakes_in(node.now).unwrap();
        node.pass(wait).finish_all();
        node.restart();
        assert_eq!(node.scheduler.wakes_in(node.now), Some(HOUR));
    }
    assert_eq!(node.dumps().len(), 5);
}

#[test]
fn due_times_that_come_while_an_earlier_one_waits_do_not_pile_up() {
    let mut node = Node::new(vec![every(SECOND)], vec![pod("one"), pod("two")]);
    node.pass(SECOND);
    for _ in 0..100 {
        node.pass(SECOND);
    }
    assert_eq!(node.dumps(), ["one/app"], "it takes long");
    let waiting: usize = node.kept.runs.iter().map(|run| run.requests.len()).sum();
    assert_eq!(waiting, 3, "one under way, and one of each container that waits");
    let missed = missed(&mut node);
    assert_eq!(missed.len(), 100, "once each time, whatever the number of containers");
    assert_eq!(missed.iter().sum::<u32>(), 99 + 100, "the others are told of");
}

#[test]
fn a_restart_in_the_middle_of_an_annotation_says_nothing_that_is_wrong() {
    let mut web = asked("web");
    web.containers.push(container("side", true));
    let mut node = Node::new(vec![on_annotation()], vec![web]);
    node.restart();
    assert_eq!(node.answers, [], "nothing has come of it yet");
    node.end(done()).pass(SECOND).end(done());
    let answer = node.answers.last().unwrap();
    assert!(answer.is_over && answer.text.contains("app") && answer.text.contains("side"), "{answer:?}");
    // Its answer was written, and it was put on anew while nothing ran.
    node.pods[0].answer = Some(answer.text.clone());
    node.dumps();
    node.restart().pass(SECOND);
    assert_eq!(node.dumps().len(), 1);
}

#[test]
fn a_dry_run_by_use_is_told_once_a_cooldown() {
    let resources = ResourceTrigger {
        cpu: Thresholds::default(),
        memory: Thresholds { above: Some(1), below: None },
        poll: SECOND * 10,
        cooldown: MINUTE,
    };
    let triggers = Triggers { resources: Some(resources), ..Triggers::default() };
    let mut node = Node::new(vec![Schedule { mode: Mode::DryRun, ..schedule(triggers) }], vec![pod("web")]);
    let id = ContainerId {
        namespace: "shop".to_owned(),
        pod: "web".to_owned(),
        pod_uid: "uid of web".to_owned(),
        container: "app".to_owned(),
    };
    for _ in 0..12 {
        node.pass(SECOND * 10);
        let usage = Usage { cpu_seconds: None, memory_bytes: Some(400), at: node.now.uptime };
        node.tell(Input::Usage([(id.clone(), usage)].into()));
    }
    assert_eq!((node.dumps(), node.results()), (vec![], vec!["CheckpointDryRun"; 2]));
}

/// It is told by the pods that run whether a time is served, also after a restart.
#[test]
fn a_node_that_had_no_pods_for_a_while_has_missed_nothing() {
    let mut node = Node::new(vec![every(HOUR), at("0 * * * *", "UTC")], vec![pod("web")]);
    node.live(HOUR + SECOND);
    node.finish_all();
    let pods = std::mem::take(&mut node.pods);
    node.tell_pods();
    node.live(HOUR * 10);
    node.pods = pods;
    node.restart();
    node.live(SECOND * 5);
    assert!(!node.results().contains(&"ScheduleMissed"));
}

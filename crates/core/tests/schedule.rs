//! Which containers are dumped when, and what came of it: the scheduler as a node's agent drives it. The letters and
//! numbers stand for behaviours of the older operator (A: one request, B: its `CheckpointSchedule`, in the order of its
//! tests); where ours is meant to differ, the test says so.
#![allow(clippy::unwrap_used, clippy::panic)]

mod schedule_support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use checkpoint_keeper_core::engine::clock::Now;
use checkpoint_keeper_core::plan::Clock;
use checkpoint_keeper_core::policy::{LabelSelector, Mode, Operator, Requirement};
use checkpoint_keeper_core::schedule::{
    ContainerId, Disruption, Input, MOST_DUMPS, Memory, NodePod, Outcome, PodContainer, ResourceTrigger,
    RunResult, Schedule, Scheduler, SkipReason, Thresholds, Triggers, Usage,
};
use schedule_support::{
    BEGIN, HOUR, MINUTE, Node, SECOND, asked, at, container, done, every, failed, on, on_annotation, pod,
    schedule,
};

/// B1.1–B1.9.
#[test]
fn all_main_containers_of_the_running_pods_that_are_selected_or_those_that_are_named() {
    let mut web = pod("web");
    web.containers = vec![container("app", true), container("sidecar", true), container("init", false)];
    let pending = NodePod { is_running: false, ..pod("pending") };
    let elsewhere = NodePod { namespace: "other".to_owned(), ..pod("elsewhere") };
    let other = NodePod { labels: BTreeMap::new(), ..pod("unlabelled") };
    let pods = vec![web, pending, elsewhere, other];
    let of = |names: &[&str], selector: Vec<Requirement>| {
        let containers = names.iter().map(|name| (*name).to_owned()).collect();
        let asked = Schedule { containers, selector: LabelSelector(selector), ..every(MINUTE) };
        let mut node = Node::new(vec![asked], pods.clone());
        let mut dumps = node.live(MINUTE + SECOND * 5).dumps();
        dumps.sort();
        dumps
    };
    let app = || Requirement { key: "app".to_owned(), operator: Operator::In(vec!["web".to_owned()]) };
    assert_eq!(of(&[], vec![]), ["unlabelled/app", "web/app", "web/sidecar"]);
    assert_eq!(of(&[], vec![app()]), ["web/app", "web/sidecar"]);
    assert_eq!(of(&["app", "init"], vec![app()]), ["web/app", "web/init"]);
    assert_eq!(of(&["unknown"], vec![]), [""; 0]);
    let none = Requirement { key: "x".to_owned(), operator: Operator::Exists };
    assert_eq!(of(&[], vec![none]), [""; 0]);
}

/// B2.1, B2.2, B2.5, B2.6: the first run is one interval after the creation; of missed ones one is made up for.
#[test]
fn an_interval_begins_with_the_creation_and_of_missed_ones_one_is_served() {
    let mut node = Node::new(vec![every(HOUR)], vec![pod("web")]);
    assert_eq!(node.scheduler.wakes_in(node.now), Some(HOUR));
    assert_eq!(node.live(SECOND * 3_599).dumps(), [""; 0]);
    assert_eq!(node.live(SECOND * 2).dumps(), ["web/app"]);
    assert_eq!(node.live(HOUR).dumps(), ["web/app"]);
    let old = Schedule { created: BEGIN - HOUR * 5, ..every(HOUR) };
    let mut node = Node::new(vec![old.clone()], vec![pod("web")]);
    assert_eq!(node.dumps(), ["web/app"], "one, not five");
    node.finish_all();
    assert_eq!(node.live(SECOND * 3_599).dumps(), [""; 0]);
    assert_eq!(node.live(SECOND * 2).dumps(), ["web/app"]);
    // A changed interval counts from the old anchor.
    node.live(MINUTE * 20);
    node.schedules[0].triggers.interval = Some(MINUTE * 10);
    node.tell_schedules();
    assert_eq!(node.dumps(), ["web/app"]);
}

/// B2.3: its own memory first, then what any node has reported.
#[test]
fn the_cadence_survives_restarts_and_new_nodes() {
    let old =
        Schedule { created: BEGIN - HOUR * 24, last_reported: Some(BEGIN - MINUTE * 10), ..every(HOUR) };
    let mut node = Node::new(vec![old], vec![pod("web")]);
    assert_eq!(node.scheduler.wakes_in(node.now), Some(MINUTE * 50));
    assert_eq!(node.live(MINUTE * 51).dumps(), ["web/app"]);
    // Another node reports a later time: this one goes by its own.
    node.schedules[0].last_reported = Some(node.now.wall);
    node.restart();
    assert_eq!(node.dumps(), [""; 0]);
    let wait = node.scheduler.wakes_in(node.now).unwrap();
    assert!((MINUTE * 58..=MINUTE * 59).contains(&wait), "{wait:?}");
}

#[test]
fn a_clock_that_is_set_neither_repeats_an_interval_nor_stops_it() {
    for jump in [-3_600 * 24 * 365_i64, -1_800, 1_800, 3_600 * 24 * 365] {
        let mut node = Node::new(vec![every(HOUR)], vec![pod("web")]);
        assert_eq!(node.live(HOUR + SECOND).dumps(), ["web/app"]);
        node.now.wall += jiff::SignedDuration::from_secs(jump);
        node.tell(Input::Clock(Clock::Suspect));
        assert_eq!(node.live(SECOND * 3_598).dumps(), [""; 0], "{jump}");
        assert_eq!(node.live(SECOND * 2).dumps(), ["web/app"], "{jump}");
        node.tell(Input::Clock(Clock::Trusted));
        assert_eq!(node.live(SECOND * 3_598).dumps(), [""; 0], "{jump}");
        assert_eq!(node.live(SECOND * 2).dumps(), ["web/app"], "{jump}");
    }
}

#[test]
fn cron_times_are_served_once_each_and_wait_for_a_clock_that_is_trusted() {
    let mut node = Node::new(vec![at("0 * * * *", "UTC")], vec![pod("web")]);
    assert_eq!(node.live(HOUR * 3).dumps().len(), 3);
    // The clock is set back behind a time that was served: it is not served again.
    node.now.wall -= MINUTE * 40;
    let before = node.now.wall;
    node.tell(Input::Clock(Clock::Suspect));
    assert_eq!(node.live(MINUTE * 30).dumps(), [""; 0]);
    node.tell(Input::Clock(Clock::Trusted));
    let again = node.live(HOUR).dumps().len();
    let hours = (before.as_second()..node.now.wall.as_second()).filter(|second| second % 3_600 == 0).count();
    assert!(again <= hours, "{again} of {hours}");
    // An outage of the whole node: one catches up, and the others are told of as missed.
    node.reports.clear();
    node.now = Now { wall: node.now.wall + HOUR * 10, uptime: SECOND };
    // The process before this one may have begun one in the same second.
    assert_eq!(node.restart().dumps(), [""; 0]);
    assert_eq!(node.pass(SECOND).dumps(), ["web/app"]);
    assert!(
        node.reports
            .iter()
            .any(|report| matches!(report.result, RunResult::Skipped(SkipReason::Missed(8..=10)))),
        "{:?}",
        node.reports
    );
}

#[test]
fn a_clock_that_was_far_ahead_does_not_stop_cron_for_good() {
    let mut node = Node::new(vec![at("0 * * * *", "UTC")], vec![pod("web")]);
    node.now.wall += HOUR * 24 * 400;
    node.tell(Input::Tick);
    node.finish_all();
    assert_eq!(node.dumps(), ["web/app"], "one, however many were passed over");
    node.now.wall = BEGIN + HOUR;
    node.tell(Input::Clock(Clock::Suspect));
    node.tell(Input::Clock(Clock::Trusted));
    assert_eq!(node.live(HOUR * 2).dumps().len(), 2);
}

#[test]
fn what_is_too_late_is_told_of_and_not_made() {
    let late = |mut schedule: Schedule| {
        schedule.created = BEGIN - HOUR * 5;
        schedule.triggers.starting_deadline = Some(MINUTE * 10);
        let mut node = Node::new(vec![schedule], vec![pod("web")]);
        (node.dumps(), node.results())
    };
    assert_eq!(late(every(HOUR)), (vec![], vec!["ScheduleMissed"]));
    assert_eq!(late(at("50 * * * *", "UTC")), (vec![], vec!["ScheduleMissed"]));
}

#[test]
fn each_node_has_its_own_part_of_the_jitter_and_keeps_it() {
    let schedule = Schedule {
        triggers: Triggers { interval: Some(HOUR), jitter: MINUTE * 10, ..Triggers::default() },
        ..every(HOUR)
    };
    let wait = |number: u64| {
        let mut node = Node::new(vec![], vec![]);
        node.scheduler = Scheduler::new(format!("node-{number}"), Memory::default(), MOST_DUMPS);
        (node.schedules, node.pods) = (vec![schedule.clone()], vec![pod("web")]);
        node.tell_all();
        let wait = node.scheduler.wakes_in(node.now).unwrap();
        node.pass(wait);
        assert_eq!(node.dumps().len(), 1);
        assert_eq!(node.scheduler.wakes_in(node.now), Some(HOUR), "from here on an interval is an interval");
        wait
    };
    let waits: BTreeSet<Duration> = (0..50).map(wait).collect();
    assert!(waits.len() > 20, "{waits:?}");
    assert!(waits.iter().all(|wait| (HOUR..=HOUR + MINUTE * 10).contains(wait)), "{waits:?}");
    assert_eq!(wait(7), wait(7));
}

/// B4.1, B4.2, B4.6, and that a pod which no schedule allows it is not answered.
#[test]
fn an_annotation_asks_once_and_is_answered() {
    let mut node = Node::new(vec![on_annotation()], vec![asked("web"), pod("other")]);
    assert_eq!(node.dumps(), ["web/app"]);
    node.tell_pods();
    node.end(done());
    let [answer] = &node.answers[..] else { panic!("{:?}", node.answers) };
    assert!(answer.is_over && answer.text.contains(r#""archive":"a.tar""#), "{answer:?}");
    // It is not seen yet that the annotation is gone.
    node.tell_pods();
    assert_eq!((node.dumps(), node.answers.len()), (vec![], 1));
    // Put on anew before that was seen: the answer beside it is ours.
    node.pods[0].answer = Some(node.answers[0].text.clone());
    node.tell_pods();
    node.pass(SECOND);
    assert_eq!(node.dumps(), ["web/app"]);
    let mut node = Node::new(vec![every(HOUR)], vec![asked("web")]);
    node.live(MINUTE);
    assert_eq!((node.dumps(), node.answers.len()), (vec![], 0));
}

/// Whoever asked can tell what to change.
#[test]
fn an_annotation_that_leads_to_no_checkpoint_is_answered_with_the_reason_for_that() {
    let named = |name: &str, schedule: Schedule| {
        let mut schedule = Schedule { uid: name.to_owned(), ..schedule };
        name.clone_into(&mut schedule.id.name);
        schedule
    };
    let dry = |name: &str| named(name, Schedule { mode: Mode::DryRun, ..on_annotation() });
    let other =
        |name: &str| named(name, Schedule { containers: vec!["unknown".to_owned()], ..on_annotation() });
    let answered = |schedules: Vec<Schedule>| {
        let node = Node::new(schedules, vec![asked("web")]);
        let [answer] = &node.answers[..] else { panic!("{:?}", node.answers) };
        assert!(answer.is_over && node.dumped.is_empty(), "{answer:?}");
        let answer: serde_json::Value = serde_json::from_str(&answer.text).unwrap();
        answer["message"].as_str().unwrap().strip_suffix("; nothing was checkpointed").unwrap().to_owned()
    };
    assert_eq!(
        answered(vec![other("a")]),
        "the schedule a names none of the pod's containers in spec.containers"
    );
    assert_eq!(
        answered(vec![other("a"), other("b")]),
        "the schedules a, b name none of the pod's containers in spec.containers"
    );
    // One that names no container here is not why.
    assert_eq!(answered(vec![other("a"), dry("b")]), "the schedule b is a dry run");
    let many = (0..7).map(|number| dry(&format!("s{number}"))).collect();
    assert_eq!(answered(many), "the schedules s0, s1, s2, s3, s4 and 2 more are dry runs");
    let older = (0..100).map(|number| {
        let triggers = every(HOUR).triggers;
        named(&format!("s{number}"), Schedule { created: BEGIN - SECOND, triggers, ..on_annotation() })
    });
    assert_eq!(
        answered(older.chain([on_annotation()]).collect()),
        "the pod's namespace has too many schedules for this node"
    );
}

/// B4.4, B4.5: what failed is tried as long as the annotation is there, and only that.
#[test]
fn an_annotation_stays_until_what_failed_has_succeeded() {
    let mut web = asked("web");
    web.containers.push(container("side", true));
    let mut node = Node::new(vec![on_annotation()], vec![web]);
    assert_eq!(node.dumps(), ["web/app"]);
    node.end(failed());
    assert_eq!(node.dumps(), ["web/side"]);
    node.end(done());
    let last = node.answers.last().unwrap();
    assert!(!last.is_over && last.text.contains("no") && last.text.contains("a.tar"), "{last:?}");
    for _ in 0..10 {
        node.pass(Duration::from_mins(5));
        assert_eq!(node.dumps(), ["web/app"], "and not the other one");
        node.end(failed());
    }
    node.pass(Duration::from_mins(5)).end(done());
    assert!(node.answers.last().unwrap().is_over);
    // Taken off while it waits, it is over as well.
    let mut node = Node::new(vec![on_annotation()], vec![asked("web")]);
    node.end(failed());
    node.pods[0].is_annotated = false;
    node.tell_pods();
    assert_eq!(node.results(), ["CheckpointRetrying", "RequestWithdrawn"]);
    node.dumps();
    assert_eq!(node.live(HOUR).dumps(), [""; 0]);
}

/// B5.1–B5.15.
#[test]
fn thresholds_ask_by_percent_of_the_limit_and_leave_alone_for_a_while() {
    let cooldown = MINUTE * 5;
    let resources = |cpu: Thresholds, memory: Thresholds| {
        let resources = Some(ResourceTrigger { cpu, memory, poll: SECOND * 30, cooldown });
        schedule(Triggers { resources, ..Triggers::default() })
    };
    let usage = |at: Duration, cpu: f64, memory: u64| {
        let id = ContainerId {
            namespace: "shop".to_owned(),
            pod: "web".to_owned(),
            pod_uid: "uid of web".to_owned(),
            container: "app".to_owned(),
        };
        Input::Usage([(id, Usage { cpu_seconds: Some(cpu), memory_bytes: Some(memory), at })].into())
    };
    let band = |below, above| Thresholds { below, above };
    let memory = resources(Thresholds::default(), band(Some(25), Some(80)));
    for (used, fires) in
        [(420, true), (400, true), (399, false), (250, false), (130, false), (125, true), (0, true)]
    {
        let mut node = Node::new(vec![memory.clone()], vec![pod("web")]);
        node.tell(usage(HOUR, 0.0, used));
        assert_eq!(node.dumps().len(), usize::from(fires), "{used}");
    }
    // CPU use is the difference of two figures, and the first alone says nothing.
    let cpu = resources(band(Some(50), None), Thresholds::default());
    let mut node = Node::new(vec![cpu.clone()], vec![pod("web")]);
    node.tell(usage(HOUR, 100.0, 0));
    assert_eq!(node.dumps(), [""; 0]);
    node.tell(usage(HOUR + SECOND * 30, 101.0, 0));
    assert_eq!(node.dumps(), ["web/app"]);
    // A failure sets no cooldown; a success does.
    node.end(Outcome::FailedForGood("no".to_owned()));
    node.pass(SECOND).tell(usage(HOUR + SECOND * 60, 102.0, 0));
    assert_eq!(node.dumps(), ["web/app"]);
    node.end(done());
    node.pass(SECOND * 299);
    node.tell(usage(HOUR + SECOND * 90, 103.0, 0));
    assert_eq!(node.dumps(), [""; 0]);
    node.pass(SECOND).tell(usage(HOUR + SECOND * 120, 104.0, 0));
    assert_eq!(node.dumps(), ["web/app"]);
    // Without a limit, and after the container was started anew, nothing is known.
    let mut unlimited = pod("web");
    unlimited.containers[0] =
        PodContainer { cpu_limit: None, memory_limit: Some(0), ..container("app", true) };
    let mut node = Node::new(vec![memory, cpu], vec![unlimited]);
    node.tell(usage(HOUR, 5.0, 1_000));
    node.tell(usage(HOUR + SECOND, 5.0, 1_000));
    assert_eq!(node.dumps(), [""; 0]);
}

/// B6.1–B6.12; ours goes by the UID, and by the reasons that Kubernetes writes (B6.7).
#[test]
fn a_disruption_is_served_once_and_only_if_it_is_asked_for() {
    use Disruption::{NodeDrain, PodDeletion, PodEviction, Preemption};
    let of = |asked: &[Disruption], pod: NodePod, is_unschedulable: bool| {
        let mut node = Node::new(vec![on(asked)], vec![pod]);
        node.tell(Input::Node { is_unschedulable });
        node.tell_pods();
        node.live(MINUTE);
        node.tell_pods();
        node.dumps().len()
    };
    let with = |reason: &str| NodePod { disruption_target: Some(reason.to_owned()), ..pod("web") };
    let deleted = || NodePod { is_deleted: true, ..pod("web") };
    assert_eq!((of(&[NodeDrain], pod("web"), true), of(&[NodeDrain], pod("web"), false)), (1, 0));
    assert_eq!((of(&[PodDeletion], deleted(), false), of(&[PodEviction], deleted(), false)), (1, 0));
    assert_eq!(of(&[PodEviction], pod("web"), true), 0, "only listed events");
    assert_eq!(of(&[Preemption], with("PreemptionByScheduler"), false), 1);
    assert_eq!(of(&[PodEviction], with("PreemptionByScheduler"), false), 0);
    for reason in
        ["EvictionByEvictionAPI", "DeletionByTaintManager", "TerminationByKubelet", "DeletionByPodGC"]
    {
        assert_eq!((of(&[PodEviction], with(reason), false), of(&[Preemption], with(reason), false)), (1, 0));
    }
    // Several at once are one dump; the pod's end after its node's drain is another.
    let all = [NodeDrain, PodEviction, Preemption, PodDeletion];
    let mut node = Node::new(vec![on(&all)], vec![pod("web")]);
    node.tell(Input::Node { is_unschedulable: true });
    node.finish_all();
    node.pods[0].is_deleted = true;
    node.pods[0].disruption_target = Some("EvictionByEvictionAPI".to_owned());
    node.tell_pods();
    node.live(MINUTE);
    assert_eq!(node.dumps().len(), 2);
    // B6.4 and B6.13: a drain that ended may come again, and a pod that comes later is noticed, too.
    node.pods = vec![pod("web")];
    node.pods[0].uid = "another".to_owned();
    node.tell_pods();
    node.live(MINUTE);
    assert_eq!(node.dumps().len(), 1, "the successor of that name on the drained node");
    node.tell(Input::Node { is_unschedulable: false });
    node.tell(Input::Node { is_unschedulable: true });
    node.live(MINUTE);
    assert_eq!(node.dumps().len(), 1);
    node.restart();
    node.tell(Input::Node { is_unschedulable: true });
    node.live(MINUTE);
    assert_eq!(node.dumps(), [""; 0], "a restart does not forget what was served");
}

/// A5, B6.10: a collision is tried again at once, other failures later and later, and then no more.
#[test]
fn what_fails_is_tried_again_with_growing_pauses() {
    let mut node = Node::new(vec![every(HOUR * 10)], vec![pod("web")]);
    node.pass(HOUR * 10);
    assert_eq!(node.dumps().len(), 1);
    let mut waits = Vec::new();
    while !node.running.is_empty() {
        node.end(failed());
        let wait = node.scheduler.wakes_in(node.now).unwrap();
        if wait < HOUR {
            waits.push(wait.as_secs());
            node.pass(wait);
        }
    }
    assert_eq!(waits, [10, 20, 40]);
    assert_eq!(
        node.results(),
        ["CheckpointRetrying", "CheckpointRetrying", "CheckpointRetrying", "CheckpointFailed"]
    );
    let mut node = Node::new(vec![every(HOUR)], vec![pod("web")]);
    node.pass(HOUR);
    for _ in 0..2 {
        node.end(Outcome::Collided("paused".to_owned()));
        assert_eq!(node.scheduler.wakes_in(node.now), Some(SECOND));
        node.pass(SECOND);
    }
    node.end(done());
    assert_eq!(node.results(), ["CheckpointRetrying", "CheckpointRetrying", "CheckpointCreated"]);
    node.pass(HOUR).end(Outcome::FailedForGood("no such pod".to_owned()));
    assert_eq!(node.results(), ["CheckpointFailed"]);
}

/// A6, B2.9, B7.4: triggers that meet share a dump that has not begun; one at a time on a node.
#[test]
fn triggers_that_meet_are_served_by_one_dump_and_dumps_go_one_by_one() {
    let drain = Schedule { uid: "d".to_owned(), ..on(&[Disruption::NodeDrain]) };
    let pods: Vec<NodePod> = (0..10).map(|number| pod(&format!("web-{number}"))).collect();
    let mut node = Node::new(vec![every(HOUR), drain], pods);
    node.pass(HOUR);
    assert_eq!(node.running.len(), 1);
    node.tell(Input::Node { is_unschedulable: true });
    assert_eq!(node.running.len(), 1, "the first is under way for the interval");
    let mut most = 0;
    for _ in 0..100 {
        most = most.max(node.running.len());
        if node.running.is_empty() {
            node.pass(SECOND);
        } else {
            node.end(done());
        }
    }
    assert_eq!(most, 1);
    let dumps = node.dumps();
    assert_eq!(dumps.len(), 11, "the one that had begun was made before the drain: {dumps:?}");
    let results = node.results();
    assert_eq!((results.len(), results.iter().all(|result| *result == "CheckpointCreated")), (20, true));
    assert_eq!(dumps[1], "web-1/app", "the first one's next second has not begun");
}

#[test]
fn two_dumps_of_one_container_never_begin_in_one_second() {
    let mut node = Node::new(vec![on_annotation()], vec![asked("web")]);
    node.end(done());
    node.pods[0].answer = Some(node.answers[0].text.clone());
    node.now.wall = BEGIN + Duration::from_millis(300);
    node.now.uptime += Duration::from_millis(300);
    node.tell_pods();
    assert_eq!(node.dumps().len(), 1, "they would have one name");
    assert_eq!(node.scheduler.wakes_in(node.now), Some(Duration::from_millis(700)));
    node.pass(Duration::from_millis(700));
    assert_eq!(node.dumps().len(), 1);
}

/// B3.2, B3.3: edits and deletions act at once.
#[test]
fn what_is_not_asked_for_any_more_is_not_made() {
    let pods = || vec![pod("one"), pod("two")];
    let changes: [fn(&mut Node); 4] = [
        |node| node.schedules[0].suspend = true,
        |node| node.schedules.clear(),
        |node| node.schedules[0].containers = vec!["other".to_owned()],
        |node| node.schedules[0].mode = Mode::DryRun,
    ];
    for change in changes {
        let mut node = Node::new(vec![every(HOUR)], pods());
        node.pass(HOUR);
        change(&mut node);
        node.tell_schedules();
        node.finish_all();
        assert_eq!(node.dumps(), ["one/app"], "what has begun goes on");
        let results = node.results();
        assert!(
            results.contains(&"ScheduleChanged") && results.contains(&"CheckpointCreated"),
            "{results:?}"
        );
        assert_eq!(node.live(HOUR * 3).dumps(), [""; 0]);
    }
    let mut node = Node::new(vec![every(HOUR)], pods());
    node.pass(HOUR);
    node.pods.remove(1);
    node.tell_pods();
    assert_eq!(node.results(), ["PodEnded"]);
    // Suspended, and going on: it counts from the last time.
    node.finish_all();
    node.schedules[0].suspend = true;
    node.tell_schedules();
    assert_eq!(node.scheduler.wakes_in(node.now), None);
    node.pass(MINUTE * 30);
    node.schedules[0].suspend = false;
    node.tell_schedules();
    assert_eq!(node.scheduler.wakes_in(node.now), Some(MINUTE * 30));
}

#[test]
fn a_dry_run_tells_what_it_would_do_and_does_nothing() {
    let dry = Schedule { mode: Mode::DryRun, ..every(HOUR) };
    let mut node = Node::new(vec![dry], vec![pod("web")]);
    node.live(HOUR * 3);
    assert_eq!((node.dumps(), node.results()), (vec![], vec!["CheckpointDryRun"; 3]));
}

#[test]
fn while_nobody_shows_the_pods_nothing_is_asked_for_and_nothing_is_lost() {
    let mut node = Node::new(vec![every(HOUR)], vec![pod("web")]);
    node.tell(Input::Pods(None));
    assert_eq!(node.scheduler.wakes_in(node.now), None);
    assert_eq!(node.pass(HOUR * 2).dumps(), [""; 0]);
    node.tell_pods();
    assert_eq!(node.dumps(), ["web/app"]);
}

#[test]
fn a_restart_at_any_moment_serves_no_due_time_twice_and_none_without_a_word() {
    // While it is under way.
    let mut node = Node::new(vec![every(HOUR)], vec![pod("one"), pod("two")]);
    node.pass(HOUR);
    assert_eq!(node.dumps(), ["one/app"]);
    node.restart();
    let recovered: Vec<String> = node.recovering.iter().map(|dump| dump.container.pod.clone()).collect();
    assert_eq!((recovered, node.dumps()), (vec!["one".to_owned()], vec![]), "and the other waits its turn");
    node.end(done()).pass(SECOND);
    assert_eq!(node.dumps(), ["two/app"]);
    node.end(done());
    assert_eq!(node.results(), ["CheckpointCreated"; 2]);
    node.restart();
    assert_eq!((node.dumps(), node.running.len()), (vec![], 0));
    // Between the dump and the answer.
    let mut node = Node::new(vec![on_annotation()], vec![asked("web")]);
    node.end(done());
    node.dumps();
    node.answers.clear();
    node.restart();
    assert_eq!(node.dumps(), [""; 0], "it is not dumped again");
    assert!(node.answers[0].is_over && node.answers[0].text.contains("a.tar"), "{:?}", node.answers);
}

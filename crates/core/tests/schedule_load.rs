//! What many schedules cost a node: how often the scheduler is called, and at how many timers it looks.
#![allow(clippy::unwrap_used, clippy::panic)]

mod schedule_support;

use std::time::Duration;

use checkpoint_keeper_core::policy::Mode;
use checkpoint_keeper_core::schedule::cron::Cron;
use checkpoint_keeper_core::schedule::{Disruption, Input, NodePod, Outcome, Schedule};
use schedule_support::{
    BEGIN, Node, SECOND, asked, at, container, done, every, on, on_annotation, pod, schedule,
};

/// So many schedules of an interval of a second, each with a part of the jitter of its own.
const MANY: u64 = 5_000;

/// How often an agent tells of all pods at least.
const TICK: Duration = Duration::from_secs(5);

fn many(namespace: &str) -> impl Iterator<Item = Schedule> {
    (0..MANY).map(move |number| {
        let mut schedule = every(SECOND);
        schedule.uid = format!("{namespace} {number}");
        schedule.created = BEGIN + Duration::from_micros(number * 199);
        schedule.triggers.jitter = Duration::from_millis(number % 1_000);
        schedule.mode = Mode::DryRun;
        namespace.clone_into(&mut schedule.id.namespace);
        namespace.clone_into(&mut schedule.pods_namespace);
        schedule
    })
}

/// Lives as an agent does. Returns how often the scheduler was called, and at how many timers it looked.
fn cost(node: &mut Node, length: Duration) -> (u64, u64) {
    let (end, before) = (node.now.uptime + length, node.scheduler.looks());
    let (mut calls, mut tick) = (0, node.now.uptime + TICK);
    while node.now.uptime < end {
        assert!(calls < 100_000, "it never sleeps");
        calls += 1;
        let wait = node.scheduler.wakes_in(node.now).unwrap_or(Duration::MAX);
        let until_tick = tick.saturating_sub(node.now.uptime);
        node.pass(wait.min(until_tick));
        if node.now.uptime >= tick {
            tick += TICK;
            node.tell_pods();
        }
    }
    (calls, node.scheduler.looks() - before)
}

#[test]
fn schedules_that_select_nothing_here_cost_next_to_nothing() {
    let pods: Vec<NodePod> = (0..110).map(|number| pod(&format!("web-{number}"))).collect();
    let own = Schedule { mode: Mode::DryRun, ..every(SECOND * 10) };
    let mut node = Node::new(many("empty").chain([own]).collect(), pods);
    let (calls, looks) = cost(&mut node, SECOND * 60);
    assert!(calls <= 20, "{calls}");
    assert!(looks <= 14 * MANY, "{looks}");
    // Its own one is on time all the same.
    assert_eq!(node.reports.len(), 110 * 6);
}

/// As many as are carried out, in as many namespaces as that takes.
#[test]
fn however_many_schedules_select_something_the_scheduler_sleeps_in_between() {
    let namespaces = MANY / 100;
    let named = |number: u64| format!("shop-{}", number % namespaces);
    let schedules = (0..).map(named).zip(many("shop")).map(|(namespace, mut schedule)| {
        namespace.clone_into(&mut schedule.id.namespace);
        Schedule { pods_namespace: namespace, ..schedule }
    });
    let pods = (0..namespaces).map(|number| NodePod { namespace: named(number), ..pod(&named(number)) });
    let mut node = Node::new(schedules.collect(), pods.collect());
    let (calls, looks) = cost(&mut node, SECOND * 10);
    assert!(calls <= 10 * 10 + 5, "{calls}");
    assert!(looks <= (10 * 10 + 5) * MANY, "{looks}");
    assert!(node.reports.len() as u64 >= 9 * MANY, "{}", node.reports.len());
}

/// What passed while a schedule selected nothing here is not made up for, and was not missed.
#[test]
fn a_pod_that_comes_is_taken_at_the_next_time() {
    let mut node = Node::new(vec![every(SECOND)], vec![]);
    node.pass(Duration::from_millis(3_700));
    node.pods.push(pod("web"));
    node.tell_pods();
    assert_eq!((node.dumps(), node.results()), (vec![], vec![]));
    node.live(SECOND);
    assert_eq!(node.dumps().len(), 1);
}

/// So many schedules of one namespace, each of which asks every second and every minute.
fn greedy(count: usize) -> Vec<Schedule> {
    let schedule = |number: usize| {
        let mut schedule = every(SECOND);
        schedule.triggers.cron = Some(Cron::parse("* * * * *", "UTC", BEGIN).unwrap());
        schedule.uid = format!("{number:0>3}");
        schedule.id.name = format!("s{number}");
        schedule
    };
    (0..count).map(schedule).collect()
}

/// Five pods with twenty containers each.
fn hundred_containers() -> Vec<NodePod> {
    let containers = || (0..20).map(|number| container(&format!("c{number}"), true)).collect();
    (0..5).map(|number| NodePod { containers: containers(), ..pod(&format!("web-{number}")) }).collect()
}

fn held(node: &Node) -> usize {
    node.kept.runs.iter().map(|run| run.requests.len()).sum()
}

/// However much one namespace asks for: what waits, what is told and what is written stay few.
#[test]
fn what_a_namespace_asks_for_in_vain_is_bounded() {
    let mut node = Node::new(greedy(500), hundred_containers());
    let written = node.writes;
    for _ in 0..60 {
        // One dump is under way all the time.
        node.pass(SECOND);
    }
    // With those of the dump that is under way.
    assert!(held(&node) <= 101 * 16, "{} requests wait", held(&node));
    assert!(held(&node) >= 100, "each container waits: {}", held(&node));
    assert!(node.most_reports <= 100 * 2, "{} reports at once", node.most_reports);
    let written = node.writes - written;
    assert!((1..=26).contains(&written), "{written} writes in a minute");
    // What is left out is told: each schedule has missed times, or is not carried out here.
    let told = |reason: &str| {
        let states = node.scheduler.states();
        let failures = states.into_iter().filter_map(|state| state.last_failure.map(|last| last.reason));
        failures.filter(|last| last == reason).count()
    };
    assert_eq!((told("ScheduleMissed"), told("TooManySchedules")), (100, 400));
    // What waited is served, and what was decided before a crash is decided again, and not lost.
    for schedule in &mut node.schedules {
        schedule.triggers = every(SECOND * 86_400).triggers;
    }
    node.restart();
    for _ in 0..250 {
        if node.running.is_empty() {
            node.pass(SECOND);
        } else {
            node.end(done());
        }
    }
    node.dumped.dedup_by_key(|dump| dump.container.clone());
    assert!(node.dumped.len() >= 100, "{}", node.dumped.len());
}

/// The same of dry runs, of which nothing waits.
#[test]
fn what_dry_runs_tell_is_bounded_and_counted() {
    let mut schedules = greedy(500);
    schedules.iter_mut().for_each(|schedule| schedule.mode = Mode::DryRun);
    let mut node = Node::new(schedules, hundred_containers());
    let written = node.writes;
    for _ in 0..60 {
        node.pass(SECOND);
    }
    assert!(node.most_reports <= 500 + 100 * 2, "{} reports at once", node.most_reports);
    let written = node.writes - written;
    assert!((1..=26).contains(&written), "{written} writes in a minute");
}

/// Each dump is kept on the disk before it begins, also one that is refused at once.
#[test]
fn dumps_that_are_refused_at_once_do_not_begin_ever_faster() {
    let mut schedules = greedy(1);
    schedules.push(Schedule { uid: "on drain".to_owned(), ..on(&[Disruption::NodeDrain]) });
    let mut node = Node::new(schedules, hundred_containers());
    let refuse = |node: &mut Node, seconds: usize| {
        for _ in 0..seconds {
            node.pass(SECOND);
            while !node.running.is_empty() {
                node.end(Outcome::QuotaExceeded("no".to_owned()));
            }
        }
        node.dumps().len()
    };
    assert_eq!(refuse(&mut node, 1), 100, "a hundred are asked for each second");
    assert!(refuse(&mut node, 60) <= 61);
    assert!(node.scheduler.wakes_in(node.now).is_some(), "it goes on");
    // A drain waits for none of this, and what failed is forgotten after a while.
    node.tell(Input::Node { is_unschedulable: true });
    assert!(refuse(&mut node, 1) >= 99);
    node.schedules[0].suspend = true;
    node.tell_schedules();
    node.pass(SECOND * 300);
    node.schedules[0].suspend = false;
    node.tell_schedules();
    assert!(refuse(&mut node, 1) >= 100);
}

/// More containers than may wait: the drain of the node and the annotation of a user go before what time asks for.
#[test]
fn what_ends_and_what_was_asked_for_has_its_place_among_what_waits() {
    let wide = |name: &str, count: usize| {
        let containers = (0..count).map(|number| container(&format!("c{number}"), true)).collect();
        NodePod { containers, ..pod(name) }
    };
    let mut schedules = greedy(20);
    schedules.push(Schedule { uid: "on annotation".to_owned(), ..on_annotation() });
    schedules.push(Schedule { uid: "on drain".to_owned(), ..on(&[Disruption::NodeDrain]) });
    let mut node = Node::new(schedules, vec![wide("wide", 700), pod("zoo")]);
    node.pass(SECOND * 60);
    assert!(node.kept.runs.len() <= 500, "{} dumps wait", node.kept.runs.len());
    assert!(node.kept.runs.iter().all(|run| run.container.pod != "zoo"), "there was no place for it");
    node.pods[1] = asked("zoo");
    node.tell_pods();
    node.end(done());
    assert_eq!(node.dumps().last().unwrap(), "zoo/app");
    node.end(done());
    assert!(node.answers.last().unwrap().is_over && node.answers.last().unwrap().text.contains("a.tar"));
    // The first container's dump holds as many requests of time as there may be.
    node.tell(Input::Node { is_unschedulable: true });
    node.end(Outcome::FailedForGood("no".to_owned()));
    let drained = node.dumped.last().unwrap();
    assert!(drained.requests.iter().any(|one| one.schedule_uid == "on drain"), "{drained:?}");
    assert!(drained.requests.len() <= 16, "{drained:?}");
}

/// Of a namespace, the oldest schedules that select something here are carried out.
#[test]
fn the_oldest_schedules_are_carried_out_and_the_next_one_once_there_is_room() {
    let mut schedules = greedy(101);
    schedules.iter_mut().for_each(|schedule| schedule.triggers.cron = None);
    // Older than all others, and suspended: it takes no place.
    let suspended =
        Schedule { suspend: true, created: BEGIN - SECOND * 60, ..schedule(on_annotation().triggers) };
    schedules.push(suspended);
    schedules[0].created = BEGIN + SECOND;
    // Those that select nothing here take none, either.
    let elsewhere = |number: usize| {
        let mut schedule = every(SECOND);
        schedule.uid = format!("elsewhere {number}");
        schedule.created = BEGIN - SECOND * 60;
        schedule.containers = vec!["app".to_owned()];
        schedule.pods_namespace = "elsewhere".to_owned();
        schedule
    };
    schedules.extend((0..200).map(elsewhere));
    let mut node = Node::new(schedules, vec![pod("zoo")]);
    let crowded_out = |node: &Node| {
        let states = node.scheduler.states().into_iter();
        let states = states.filter(|state| {
            state.last_failure.as_ref().is_some_and(|last| last.reason == "TooManySchedules")
        });
        states.map(|state| (state.schedule.name, state.failures, state.next)).collect::<Vec<_>>()
    };
    node.pass(SECOND);
    assert_eq!(crowded_out(&node), [("s0".to_owned(), 1, None)]);
    assert!(node.dumped[0].requests.iter().all(|request| request.schedule.name != "s0"));
    node.schedules.remove(1);
    node.tell_schedules();
    assert_eq!(crowded_out(&node), []);
    node.schedules.retain(|schedule| schedule.id.name == "s0");
    node.tell_schedules();
    node.finish_all();
    node.live(SECOND * 3);
    assert!(node.dumped.last().unwrap().requests.iter().any(|request| request.schedule.name == "s0"));
}

/// Not even a user who may annotate only is left without an answer.
#[test]
fn an_annotation_that_only_a_schedule_beyond_the_limit_would_serve_is_answered() {
    let mut late = Schedule { uid: "late".to_owned(), ..on_annotation() };
    late.created = BEGIN + SECOND;
    let schedules = greedy(100).into_iter().chain([late]).collect();
    let node = Node::new(schedules, vec![asked("web")]);
    let [answer] = &node.answers[..] else { panic!("{:?}", node.answers) };
    assert!(answer.is_over && answer.text.contains("too many schedules"), "{answer:?}");
}

/// A crash loses nothing that was made or answered, and no time that is due, however much else there is to keep.
#[test]
fn what_is_not_kept_yet_at_a_crash_is_asked_for_again_and_what_was_made_is_kept_at_once() {
    let mut schedules = greedy(1);
    schedules[0].mode = Mode::DryRun;
    schedules.push(Schedule { uid: "on annotation".to_owned(), ..on_annotation() });
    let mut each_minute = at("* * * * *", "UTC");
    (each_minute.uid, each_minute.containers) = ("each minute".to_owned(), vec!["timed".to_owned()]);
    schedules.push(each_minute);
    let timed = NodePod { containers: vec![container("timed", true)], ..pod("timed") };
    let mut node = Node::new(schedules, vec![asked("web"), timed]);
    assert_eq!(node.dumps(), ["web/app"]);
    // The minute is full 20 seconds after the beginning: its time waits for the end of that dump.
    for _ in 0..20 {
        node.pass(SECOND);
    }
    let is_waiting = |node: &Node| node.kept.runs.iter().any(|run| run.container.pod == "timed");
    assert!(!is_waiting(&node), "it is not kept yet");
    node.restart();
    node.end(done()).pass(SECOND);
    assert_eq!(node.dumps(), ["timed/timed"], "nor is it lost");
    node.end(done());
    assert!(node.answers.last().unwrap().is_over);
    node.answers.clear();
    node.restart().pass(SECOND);
    assert_eq!(node.dumps(), [""; 0], "nothing is made twice");
    assert!(node.answers[0].is_over && node.answers[0].text.contains("a.tar"), "{:?}", node.answers);
}

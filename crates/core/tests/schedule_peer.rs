//! Behaviours of the older operator's `CheckpointSchedule` of which `schedule.rs` has no test, one row each. Where ours
//! is meant to differ, the test says so.
#![allow(clippy::unwrap_used, clippy::panic)]

mod schedule_support;

use std::time::Duration;

use checkpoint_keeper_core::schedule::{
    ContainerId, Disruption, Input, NodePod, Outcome, PodContainer, ResourceTrigger, Schedule, ScheduleState,
    Thresholds, Triggers, Usage,
};
use schedule_support::{
    BEGIN, HOUR, MINUTE, Node, SECOND, asked, container, done, every, failed, on, on_annotation, pod,
    schedule,
};

fn state(node: &Node) -> ScheduleState {
    node.scheduler.states().remove(0)
}

/// A pod with two containers.
fn with_sidecar(pod: NodePod) -> NodePod {
    NodePod { containers: vec![container("app", true), container("sidecar", true)], ..pod }
}

fn only_app(schedule: Schedule) -> Schedule {
    Schedule { containers: vec!["app".to_owned()], ..schedule }
}

/// Asks by use of CPU or memory, and waits five minutes after a success.
fn by_use(cpu: Thresholds, memory: Thresholds) -> Schedule {
    let resources = Some(ResourceTrigger { cpu, memory, poll: SECOND * 10, cooldown: MINUTE * 5 });
    schedule(Triggers { resources, ..Triggers::default() })
}

fn above(percent: u32) -> Thresholds {
    Thresholds { above: Some(percent), below: None }
}

fn below(percent: u32) -> Thresholds {
    Thresholds { above: None, below: Some(percent) }
}

/// What containers used: pod, container, seconds of CPU time, bytes of memory.
fn usage(node: &mut Node, used: &[(&str, &str, f64, u64)]) {
    let at = node.now.uptime;
    let one = |&(pod, container, cpu, memory): &(&str, &str, f64, u64)| {
        let id = ContainerId {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            pod_uid: format!("uid of {pod}"),
            container: container.to_owned(),
        };
        (id, Usage { cpu_seconds: Some(cpu), memory_bytes: Some(memory), at })
    };
    node.tell(Input::Usage(used.iter().map(one).collect()));
}

/// What two figures ten seconds apart lead to, of a pod with a limit of one core and 500 bytes.
fn dumped_at(schedule: Schedule, cpu_cores: f64, memory: u64) -> usize {
    let mut node = Node::new(vec![schedule], vec![pod("web")]);
    usage(&mut node, &[("web", "app", 100.0, memory)]);
    node.pass(SECOND * 10);
    usage(&mut node, &[("web", "app", 100.0 + cpu_cores * 10.0, memory)]);
    node.live(SECOND * 2);
    node.dumps().len()
}

#[test]
fn b1_10_a_pod_that_is_terminating_still_runs_and_is_taken() {
    let ends = |pod: NodePod| NodePod { is_deleted: true, ..pod };
    assert_eq!(Node::new(vec![every(HOUR)], vec![ends(pod("web"))]).live(HOUR + SECOND).dumps(), ["web/app"]);
    assert_eq!(Node::new(vec![on_annotation()], vec![ends(asked("web"))]).dumps(), ["web/app"]);
}

#[test]
fn b2_7_other_triggers_move_neither_the_cadence_nor_the_count_of_the_interval() {
    let mut both = every(HOUR);
    both.triggers.on_annotation = true;
    let mut node = Node::new(vec![both], vec![asked("web")]);
    node.finish_all();
    let after = state(&node);
    assert_eq!((after.last_interval, after.interval_successes), (None, 0));
    assert_eq!(after.last_success, Some(BEGIN), "which has a field of its own");
    node.pods = vec![pod("web")];
    node.tell_pods();
    assert_eq!(node.live(SECOND * 3_599).dumps().len(), 1);
    assert_eq!(node.live(SECOND * 2).dumps(), ["web/app"]);
    assert_eq!(state(&node).interval_successes, 1);
}

#[test]
fn b2_8_failures_are_counted_and_do_not_count_as_a_success_which_is_not_so_there() {
    let mut node = Node::new(vec![every(HOUR)], vec![pod("web")]);
    node.pass(HOUR).end(Outcome::FailedForGood("no".to_owned()));
    let state = state(&node);
    assert_eq!((state.last_success, state.interval_successes, state.failures), (None, 0, 1));
    assert_eq!(state.last_interval, Some(BEGIN + HOUR), "the cadence goes on");
}

#[test]
fn b4_3_and_b5_13_only_the_containers_that_are_named_are_taken() {
    let mut node = Node::new(vec![only_app(on_annotation())], vec![with_sidecar(asked("web"))]);
    assert_eq!(node.live(SECOND * 5).dumps(), ["web/app"]);
    let schedule = only_app(by_use(Thresholds::default(), above(80)));
    let mut node = Node::new(vec![schedule], vec![with_sidecar(pod("web"))]);
    usage(&mut node, &[("web", "app", 0.0, 450), ("web", "sidecar", 0.0, 450)]);
    assert_eq!(node.live(SECOND * 5).dumps(), ["web/app"]);
}

#[test]
fn b5_3_b5_7_and_b5_9_percents_are_of_the_limit_and_bounds_are_part_of_what_fires() {
    let none = Thresholds::default;
    for (row, schedule, cores, memory, dumps) in [
        ("B5.3, 50 %", by_use(above(50), none()), 0.5, 0, 1),
        ("B5.3, below it", by_use(above(51), none()), 0.5, 0, 0),
        ("B5.7", by_use(none(), Thresholds { above: Some(80), below: Some(25) }), 0.0, 250, 0),
        ("B5.9, above", by_use(above(90), none()), 0.95, 0, 1),
        ("B5.9, below", by_use(below(5), none()), 0.03, 250, 1),
    ] {
        assert_eq!(dumped_at(schedule, cores, memory), dumps, "{row}");
    }
}

#[test]
fn b5_10_and_b5_11_after_a_success_a_container_is_left_alone_for_five_minutes() {
    let mut node = Node::new(vec![by_use(Thresholds::default(), above(80))], vec![pod("web")]);
    let mut at = Vec::new();
    for poll in 0..64 {
        usage(&mut node, &[("web", "app", 0.0, 450)]);
        node.finish_all();
        if !node.dumps().is_empty() {
            at.push(poll * 10);
        }
        node.pass(SECOND * 10);
    }
    assert_eq!(at, [0, 300, 600]);
}

#[test]
fn b5_12_and_b5_14_what_is_not_known_of_one_container_keeps_no_other_from_being_taken() {
    let unlimited = PodContainer { memory_limit: None, ..container("app", true) };
    let pods =
        vec![pod("no-figures"), NodePod { containers: vec![unlimited], ..pod("no-limit") }, pod("web")];
    let mut node = Node::new(vec![by_use(Thresholds::default(), above(80))], pods);
    usage(&mut node, &[("no-limit", "app", 0.0, 1_000_000), ("web", "app", 0.0, 450)]);
    assert_eq!(node.live(SECOND * 5).dumps(), ["web/app"]);
}

#[test]
fn b5_15_memory_is_looked_at_first_and_a_failure_is_tried_again_at_the_next_poll() {
    let mut node = Node::new(vec![by_use(above(50), above(80))], vec![pod("web")]);
    usage(&mut node, &[("web", "app", 0.0, 0)]);
    node.pass(SECOND * 10);
    usage(&mut node, &[("web", "app", 10.0, 450)]);
    node.end(Outcome::FailedForGood("no".to_owned()));
    assert_eq!(node.reports[0].request.trigger.name(), "Memory");
    node.pass(SECOND * 10);
    usage(&mut node, &[("web", "app", 20.0, 450)]);
    assert_eq!(node.dumps().len(), 2);
}

#[test]
fn b5_16_an_idle_container_falls_below_a_cpu_threshold_at_the_second_poll() {
    let mut node = Node::new(vec![by_use(below(50), Thresholds::default())], vec![pod("pause")]);
    usage(&mut node, &[("pause", "app", 0.02, 0)]);
    assert_eq!(node.dumps(), [""; 0], "a counter says nothing before its second figure");
    node.pass(SECOND * 10);
    usage(&mut node, &[("pause", "app", 0.02, 0)]);
    assert_eq!(node.dumps(), ["pause/app"]);
}

#[test]
fn b6_2_b6_3_b6_6_and_b6_8_nothing_is_taken_without_the_disruption_and_each_is_taken_once() {
    use Disruption::{NodeDrain, PodDeletion, PodEviction, Preemption};
    let target = |reason: &str| NodePod { disruption_target: Some(reason.to_owned()), ..pod("web") };
    let deleted = NodePod { is_deleted: true, ..pod("web") };
    for (row, disruption, disrupted) in [
        ("B6.3", NodeDrain, pod("web")),
        ("B6.6", PodDeletion, deleted),
        ("B6.6, eviction", PodEviction, target("EvictionByEvictionAPI")),
        ("B6.8", Preemption, target("PreemptionByScheduler")),
    ] {
        let mut node = Node::new(vec![on(&[disruption])], vec![pod("web")]);
        node.tell(Input::Node { is_unschedulable: false });
        assert_eq!(node.live(MINUTE).dumps(), [""; 0], "{row}");
        node.pods = vec![disrupted];
        for _ in 0..3 {
            node.tell(Input::Node { is_unschedulable: disruption == NodeDrain });
            node.tell_pods();
            node.live(MINUTE);
        }
        assert_eq!(node.dumps(), ["web/app"], "{row}");
    }
}

#[test]
fn b6_10_and_b6_11_only_the_pod_that_failed_is_tried_again_which_is_not_so_there() {
    let mut node = Node::new(vec![on(&[Disruption::NodeDrain])], vec![pod("a"), pod("b")]);
    node.tell(Input::Node { is_unschedulable: true });
    node.end(failed());
    node.end(done());
    node.pass(Duration::from_secs(10));
    node.end(done());
    assert_eq!(node.dumps(), ["a/app", "b/app", "a/app"]);
    node.tell(Input::Node { is_unschedulable: true });
    assert_eq!(node.live(HOUR).dumps(), [""; 0]);
}

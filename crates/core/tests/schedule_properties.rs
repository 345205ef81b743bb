//! What holds of the scheduler whatever happens: random schedules, pods, clocks, outages and restarts.
#![allow(clippy::unwrap_used, clippy::panic)]

mod schedule_support;

use std::collections::BTreeSet;
use std::time::Duration;

use checkpoint_keeper_core::plan::Clock;
use checkpoint_keeper_core::schedule::{
    ContainerId, Disruption, Dumping, Input, NodePod, Outcome, Schedule, Trigger,
};
use proptest::collection::vec;
use proptest::prelude::*;
use schedule_support::{MINUTE, Node, at, container, done, failed, on, on_annotation, pod};

/// What can happen.
#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Jump(i64),
    Clock(Clock),
    Pods(bool),
    Annotate(usize, bool),
    Delete(usize),
    Run(usize),
    Cordon(bool),
    Suspend(usize, bool),
    End(usize, u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u64..4_000).prop_map(Step::Pass),
        2 => (0_u64..3).prop_map(Step::Pass),
        1 => (-100_000_i64..100_000).prop_map(Step::Jump),
        1 => any::<bool>().prop_map(|is| Step::Clock(if is { Clock::Trusted } else { Clock::Suspect })),
        1 => any::<bool>().prop_map(Step::Pods),
        2 => (0_usize..3, any::<bool>()).prop_map(|(pod, is)| Step::Annotate(pod, is)),
        1 => (0_usize..3).prop_map(Step::Delete),
        1 => (0_usize..3).prop_map(Step::Run),
        1 => any::<bool>().prop_map(Step::Cordon),
        1 => (0_usize..3, any::<bool>()).prop_map(|(which, is)| Step::Suspend(which, is)),
        8 => (0_usize..4, 0_u8..6).prop_map(|(which, how)| Step::End(which, how)),
        1 => Just(Step::Restart),
    ]
}

/// Three schedules with all triggers between them, over three pods with two containers each.
fn random_node(concurrent: u32) -> Node {
    let named = |name: &str, schedule: Schedule| Schedule {
        uid: name.to_owned(),
        dumping: Dumping { max_concurrent_per_node: concurrent, ..Dumping::default() },
        ..schedule
    };
    let mut mixed = on(&[Disruption::NodeDrain, Disruption::PodDeletion]);
    mixed.triggers.interval = Some(MINUTE * 7);
    let schedules =
        vec![named("a", mixed), named("b", at("*/15 * * * *", "Europe/Berlin")), named("c", on_annotation())];
    let pods = (0..3).map(|number| {
        let mut pod = pod(&format!("web-{number}"));
        pod.containers.push(container("side", true));
        pod
    });
    Node::new(schedules, pods.collect())
}

fn take(node: &mut Node, step: &Step, uids: &mut u32) {
    match *step {
        Step::Pass(seconds) => _ = node.pass(Duration::from_secs(seconds)),
        Step::Jump(seconds) => {
            node.now.wall += jiff::SignedDuration::from_secs(seconds);
            node.tell(Input::Tick);
        }
        Step::Clock(clock) => node.tell(Input::Clock(clock)),
        Step::Pods(true) => node.tell_pods(),
        Step::Pods(false) => node.tell(Input::Pods(None)),
        Step::Annotate(pod, is) => {
            node.pods[pod].is_annotated = is;
            node.tell_pods();
        }
        Step::Delete(pod) => {
            node.pods[pod].is_deleted = true;
            node.tell_pods();
        }
        Step::Run(pod) => {
            *uids += 1;
            let name = node.pods[pod].name.clone();
            let containers = node.pods[pod].containers.clone();
            node.pods[pod] = NodePod { uid: uids.to_string(), containers, ..self::pod(&name) };
            node.tell_pods();
        }
        Step::Cordon(is_unschedulable) => node.tell(Input::Node { is_unschedulable }),
        Step::Suspend(which, is) => {
            node.schedules[which].suspend = is;
            node.tell_schedules();
        }
        Step::End(which, how) => {
            if node.running.is_empty() {
                return;
            }
            let dump = node.running.remove(which % node.running.len());
            let outcome = match how {
                0 => failed(),
                1 => Outcome::Collided("x".to_owned()),
                2 => Outcome::FailedForGood("x".to_owned()),
                3 => Outcome::InsufficientStorage("x".to_owned()),
                _ => done(),
            };
            node.tell(Input::Ended { dump: dump.id, outcome });
        }
        Step::Restart => _ = node.restart(),
    }
}

/// What must hold of the dumps that are under way.
fn check(node: &Node, concurrent: u32) -> Result<(), TestCaseError> {
    let containers: BTreeSet<&ContainerId> = node.running.iter().map(|dump| &dump.container).collect();
    prop_assert_eq!(containers.len(), node.running.len(), "two dumps of one container at once");
    prop_assert!(node.running.len() <= concurrent as usize, "too many at once");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn dumps_never_overlap_and_each_request_ends_in_exactly_one_way(
        steps in vec(step(), 0..80),
        concurrent in 1_u32..4,
    ) {
        let mut node = random_node(concurrent);
        let mut uids = 0;
        for step in &steps {
            take(&mut node, step, &mut uids);
            check(&node, concurrent)?;
        }
        // All is well from now on, and nothing more is asked for.
        node.tell_all();
        for pod in &mut node.pods {
            pod.is_annotated = false;
        }
        node.tell_pods();
        for schedule in &mut node.schedules {
            schedule.triggers.interval = None;
            schedule.triggers.cron = None;
        }
        node.tell_schedules();
        for _ in 0..1_000 {
            check(&node, concurrent)?;
            if !node.running.is_empty() {
                node.end(done());
            } else if let Some(wait) = node.scheduler.wakes_in(node.now) {
                node.pass(wait);
            } else {
                break;
            }
        }
        prop_assert_eq!(node.scheduler.wakes_in(node.now), None, "it comes to rest");
        prop_assert!(node.kept.runs.is_empty(), "{:?}", node.kept.runs);
        // Of one container no two begin in one second: they would have one name.
        // (A clock that is set may show a second twice.)
        let is_clock_set = steps.iter().any(|step| matches!(step, Step::Jump(_)));
        let mut begun = BTreeSet::new();
        for dump in node.dumped.iter().filter(|_| !is_clock_set) {
            prop_assert!(begun.insert((dump.container.clone(), dump.started.as_second())), "two in one second: {dump:?}");
        }
        let mut ended = BTreeSet::new();
        for report in node.reports.iter().filter(|report| report.result.is_final()) {
            let Some(container) = &report.container else { continue };
            let request = &report.request;
            // By a clock that was set back a time may come that was served by the wrong clock.
            let is_timed = matches!(request.trigger, Trigger::Interval | Trigger::Cron) && !is_clock_set;
            let key = (request.schedule_uid.clone(), request.trigger, request.due, container.clone());
            prop_assert!(ended.insert(key) || !is_timed, "a due time ended twice: {report:?}");
        }
        for dump in &node.dumped {
            for request in &dump.requests {
                let key = (request.schedule_uid.clone(), request.trigger, request.due, dump.container.clone());
                prop_assert!(ended.contains(&key), "no word of {request:?} for {:?}", dump.container);
            }
        }
    }
}

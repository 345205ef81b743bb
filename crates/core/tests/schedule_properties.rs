//! What holds of the scheduler whatever happens: random schedules, pods, clocks, outages and restarts.
#![allow(clippy::unwrap_used, clippy::panic)]

mod schedule_support;

use std::collections::BTreeSet;
use std::time::Duration;

use checkpoint_keeper_core::plan::Clock;
use checkpoint_keeper_core::policy::{LabelSelector, Mode, Operator, Requirement};
use checkpoint_keeper_core::schedule::cron::Cron;
use checkpoint_keeper_core::schedule::{
    Disruption, Dumping, Input, NodePod, Outcome, Schedule, Trigger, Triggers,
};
use proptest::collection::vec;
use proptest::prelude::*;
use schedule_support::{BEGIN, Node, container, done, failed, pod, schedule};

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
        2 => (0_usize..5, any::<bool>()).prop_map(|(pod, is)| Step::Annotate(pod, is)),
        1 => (0_usize..5).prop_map(Step::Delete),
        1 => (0_usize..5).prop_map(Step::Run),
        1 => any::<bool>().prop_map(Step::Cordon),
        1 => (0_usize..5, any::<bool>()).prop_map(|(which, is)| Step::Suspend(which, is)),
        8 => (0_usize..4, 0_u8..7).prop_map(|(which, how)| Step::End(which, how)),
        1 => Just(Step::Restart),
    ]
}

/// Up to four schedules, over up to five pods with up to three containers each.
fn node() -> impl Strategy<Value = Node> {
    let triggers = (
        prop::option::of((1_u64..2_000).prop_map(Duration::from_secs)),
        prop::option::of(prop::sample::select(vec!["* * * * *", "*/15 * * * *", "0 3 * * *"])),
        (0_u64..600).prop_map(Duration::from_secs),
        prop::option::of((0_u64..600).prop_map(Duration::from_secs)),
        any::<bool>(),
        prop::sample::subsequence(vec![Disruption::NodeDrain, Disruption::PodDeletion], 0..=2),
    );
    let dumping = (1_u32..4, 0_u32..4, 1_u64..100);
    let whom = (any::<bool>(), any::<bool>(), any::<bool>(), 0_u8..5);
    let schedules = vec((triggers, dumping, whom), 1..=4);
    let pods = vec((1_usize..=3, any::<bool>()), 0..=5);
    (schedules, pods).prop_map(|(schedules, pods)| {
        let schedules = schedules.into_iter().enumerate().map(|(number, (triggers, dumping, whom))| {
            let (interval, cron, jitter, starting_deadline, on_annotation, on_disruption) = triggers;
            let cron = cron.map(|fields| Cron::parse(fields, "Europe/Berlin", BEGIN).unwrap());
            let (max_concurrent_per_node, retries, backoff) = dumping;
            let (is_labelled, is_named, suspend, mode) = whom;
            let label = Requirement { key: "app".to_owned(), operator: Operator::Exists };
            Schedule {
                uid: number.to_string(),
                containers: is_named.then(|| "container-1".to_owned()).into_iter().collect(),
                selector: LabelSelector(is_labelled.then_some(label).into_iter().collect()),
                suspend,
                mode: if mode == 0 { Mode::DryRun } else { Mode::Enforce },
                dumping: Dumping {
                    max_concurrent_per_node,
                    retries,
                    backoff: Duration::from_secs(backoff),
                    ..Dumping::default()
                },
                ..schedule(Triggers {
                    interval,
                    cron,
                    jitter,
                    starting_deadline,
                    on_annotation,
                    on_disruption: on_disruption.into_iter().collect(),
                    resources: None,
                })
            }
        });
        let pods = pods.into_iter().enumerate().map(|(number, (containers, is_labelled))| {
            let mut pod = pod(&format!("web-{number}"));
            pod.containers =
                (0..containers).map(|number| container(&format!("container-{number}"), true)).collect();
            if !is_labelled {
                pod.labels.clear();
            }
            pod
        });
        Node::new(schedules.collect(), pods.collect())
    })
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
        // There may be fewer pods and schedules than a step names.
        Step::Annotate(pod, _) | Step::Delete(pod) | Step::Run(pod) if pod >= node.pods.len() => {}
        Step::Suspend(which, _) if which >= node.schedules.len() => {}
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
            let NodePod { containers, labels, .. } = node.pods[pod].clone();
            node.pods[pod] = NodePod { uid: uids.to_string(), containers, labels, ..self::pod(&name) };
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
                4 => Outcome::QuotaExceeded("x".to_owned()),
                _ => done(),
            };
            node.tell(Input::Ended { dump: dump.id, outcome });
        }
        Step::Restart => _ = node.restart(),
    }
}

/// So many cases, or as many as the environment says.
fn tries(cases: u32) -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: wanted.unwrap_or(cases), failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(tries(1_000))]

    #[test]
    fn dumps_never_overlap_and_each_request_ends_in_exactly_one_way(
        steps in vec(step(), 0..80),
        mut node in node(),
    ) {
        let mut uids = 0;
        for step in &steps {
            take(&mut node, step, &mut uids);
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
            let second = (dump.container.clone(), dump.started.as_second());
            prop_assert!(begun.insert(second), "two in one second: {dump:?}");
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

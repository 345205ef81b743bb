//! What many schedules cost a node: how often the scheduler is called, and at how many timers it looks.
#![allow(clippy::unwrap_used, clippy::panic)]

mod schedule_support;

use std::time::Duration;

use checkpoint_keeper_core::policy::Mode;
use checkpoint_keeper_core::schedule::{NodePod, Schedule};
use schedule_support::{BEGIN, Node, SECOND, every, pod};

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

#[test]
fn however_many_schedules_select_something_the_scheduler_sleeps_in_between() {
    let mut node = Node::new(many("shop").collect(), vec![pod("web")]);
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

//! What schedules cost a node on which nothing is due.

use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_core::engine::clock::Now;
use checkpoint_keeper_core::plan::Clock;
use checkpoint_keeper_core::policy::{LabelSelector, Mode, Operator, Requirement};
use checkpoint_keeper_core::schedule::{
    ArchiveRetention, Disruption, Dumping, Effect, Input, MOST_DUMPS, Memory, NodePod, PodContainer,
    Schedule, ScheduleKind, ScheduleRef, Scheduler, Triggers,
};
use jiff::Timestamp;

use super::directory::Bench;
use super::row::{Budget, Row};
use super::timing::{self, milliseconds};

const ID: &str = "schedules";
const PODS: usize = 500;
const SCHEDULES: usize = 200;
const NAMESPACES: usize = 50;

/// How often the agent tells the scheduler of all pods at least (`crates/agent/src/api.rs`).
const TICK: Duration = Duration::from_secs(5);

/// One hundredth of that.
const MOST: Duration = Duration::from_millis(50);

pub(super) fn rows(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let pods: Vec<NodePod> = (0..PODS).map(pod).collect();
    let begin = Timestamp::now();
    let mut now = Now { wall: begin, uptime: Duration::from_hours(1) };
    let mut scheduler = Scheduler::new("node-1".to_owned(), Memory::default(), MOST_DUMPS);
    let mut tell = |input: Input, now: Now| {
        let effects = scheduler.handle(input, now);
        let states = scheduler.states().len();
        let dumps = effects.iter().filter(|effect| matches!(effect, Effect::Dump(_))).count();
        anyhow::ensure!(dumps == 0 && states <= SCHEDULES, "{dumps} dumps began");
        Ok(states)
    };
    tell(Input::Clock(Clock::Trusted), now)?;
    tell(Input::Schedules((0..SCHEDULES).map(|number| Arc::new(schedule(number, begin))).collect()), now)?;
    tell(Input::Pods(Some(pods.clone())), now)?;
    let times = timing::rounds(bench.either(50, 10), || {
        now = Now { wall: now.wall + TICK, uptime: now.uptime + TICK };
        tell(Input::Node { is_unschedulable: false }, now)?;
        tell(Input::Pods(Some(pods.clone())), now)
    })?;
    let what = format!(
        "{PODS} pods, {SCHEDULES} schedules, nothing is due: what happens every {} s",
        TICK.as_secs()
    );
    let row = Row::new(ID, what, milliseconds(times.median()), "ms");
    Ok(vec![row.budget(Budget::AtMost(milliseconds(MOST))).samples(times.len())])
}

fn namespace(number: usize) -> String {
    format!("team-{}", number % NAMESPACES)
}

fn pod(number: usize) -> NodePod {
    let container = |name: &str| PodContainer {
        name: name.to_owned(),
        is_main: true,
        cpu_limit: Some(1_000),
        memory_limit: Some(1 << 30),
    };
    NodePod {
        namespace: namespace(number),
        name: format!("web-{number}"),
        uid: format!("uid-{number}"),
        labels: [("app", "web"), ("tier", "front"), ("release", "r1"), ("pod-template-hash", "abc")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
        is_running: true,
        containers: vec![container("app"), container("side")],
        ..NodePod::default()
    }
}

/// One with every trigger that is looked at when pods are told, and a timer.
fn schedule(number: usize, created: Timestamp) -> Schedule {
    let requirement = Requirement { key: "app".to_owned(), operator: Operator::In(vec!["web".to_owned()]) };
    let name = format!("schedule-{number}");
    Schedule {
        id: ScheduleRef { kind: ScheduleKind::Native, namespace: namespace(number), name },
        uid: format!("schedule-uid-{number}"),
        generation: 1,
        created,
        last_reported: None,
        pods_namespace: namespace(number),
        selector: LabelSelector(vec![requirement]),
        containers: Vec::new(),
        triggers: Triggers {
            interval: Some(Duration::from_hours(24)),
            on_annotation: true,
            on_disruption: [Disruption::NodeDrain, Disruption::PodDeletion].into(),
            ..Triggers::default()
        },
        mode: Mode::Enforce,
        suspend: false,
        dumping: Dumping::default(),
        retention: ArchiveRetention::default(),
    }
}

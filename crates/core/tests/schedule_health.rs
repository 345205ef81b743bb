//! What a schedule says of itself when all is not well: times that were missed, dumps that cannot be made, containers
//! that may be frozen.
#![allow(clippy::unwrap_used, clippy::panic)]

mod schedule_support;

use checkpoint_keeper_core::engine::clock::Now;
use checkpoint_keeper_core::plan::Clock;
use checkpoint_keeper_core::schedule::{Input, Outcome, Schedule, ScheduleState};
use schedule_support::{BEGIN, HOUR, MINUTE, Node, SECOND, asked, done, every, failed, on_annotation, pod};

fn state(node: &Node) -> ScheduleState {
    node.scheduler.states().remove(0)
}

/// How often it failed since its last success, and the reason of the last failure.
fn health(node: &Node) -> (u32, Option<String>) {
    let state = state(node);
    (state.failures, state.last_failure.map(|failure| failure.reason))
}

fn with_deadline(mut schedule: Schedule) -> Schedule {
    schedule.triggers.starting_deadline = Some(MINUTE * 5);
    schedule
}

#[test]
fn a_time_that_was_missed_shows_until_the_next_success_also_after_a_restart() {
    let created = BEGIN - HOUR - MINUTE * 30;
    let mut node = Node::new(vec![with_deadline(Schedule { created, ..every(HOUR) })], vec![pod("web")]);
    assert_eq!((node.dumps(), node.results()), (vec![], vec!["ScheduleMissed"]));
    let missed = (1, Some("ScheduleMissed".to_owned()));
    assert_eq!(health(&node), missed);
    node.restart();
    assert_eq!(health(&node), missed);
    node.live(HOUR);
    node.finish_all();
    assert_eq!((node.dumps(), health(&node)), (vec!["web/app".to_owned()], (0, None)));
}

#[test]
fn while_requests_fail_the_reason_stays_what_ended_the_last_one_and_the_first_failure_is_known() {
    let mut schedule = every(HOUR);
    schedule.dumping.backoff = MINUTE;
    let mut node = Node::new(vec![schedule], vec![pod("web")]);
    let mut reasons = Vec::new();
    let mut first = None;
    for _ in 0..3 * 60 {
        node.pass(MINUTE);
        while !node.dumps().is_empty() {
            node.end(failed());
        }
        let (failures, reason) = health(&node);
        if failures > 0 {
            first = first.or(Some(node.now.wall));
            reasons.extend(reason);
            assert_eq!(state(&node).failing_since, first);
        }
    }
    assert!(state(&node).failures > 1, "{:?}", state(&node));
    reasons.dedup();
    assert_eq!(reasons, ["CheckpointFailed"]);
}

#[test]
fn a_container_that_fails_is_not_hidden_by_others_that_succeed_while_it_is_there() {
    let mut schedule = every(HOUR);
    schedule.dumping.retries = 0;
    let mut node = Node::new(vec![schedule], vec![pod("a"), pod("b")]);
    let failing = Some("CheckpointFailed".to_owned());
    for round in 1..4 {
        node.pass(HOUR);
        // In whichever order they have their turns.
        while let Some(dumped) = node.dumps().first().cloned() {
            node.end(if dumped == "a/app" { failed() } else { done() }).pass(SECOND);
        }
        assert!(state(&node).last_success.is_some());
        assert_eq!(health(&node), (round, failing.clone()), "round {round}");
    }
    // It is gone, and the next success counts for all.
    node.tell(Input::Pods(Some(vec![pod("b")])));
    assert_eq!(health(&node), (3, failing));
    node.pass(HOUR);
    node.finish_all();
    assert_eq!(health(&node), (0, None));
}

#[test]
fn a_container_that_is_tried_again_hides_none_that_failed() {
    let mut schedule = every(HOUR);
    (schedule.dumping.retries, schedule.dumping.backoff) = (1, MINUTE);
    let mut node = Node::new(vec![schedule], vec![pod("a"), pod("b")]);
    node.pass(HOUR);
    let first = node.dumps().remove(0);
    // The first one is to be tried again; the other one fails for good, and then the first one succeeds.
    node.end(failed()).pass(SECOND);
    node.end(Outcome::FailedForGood("500: no".to_owned())).pass(MINUTE);
    assert_eq!(health(&node), (1, Some("CheckpointFailed".to_owned())));
    assert_eq!(node.dumps().last(), Some(&first));
    node.finish_all();
    assert_eq!(health(&node), (1, Some("CheckpointFailed".to_owned())));
}

#[test]
fn what_waits_for_its_turn_until_its_starting_deadline_is_over_is_missed() {
    let mut node = Node::new(vec![with_deadline(every(HOUR))], vec![pod("a"), pod("b")]);
    node.pass(HOUR);
    assert_eq!(node.dumps(), ["a/app"], "one at a time");
    node.pass(MINUTE * 5);
    assert_eq!(node.results(), [""; 0], "it is not too late yet");
    node.pass(SECOND);
    assert_eq!(node.results(), ["ScheduleMissed"]);
    // The one that is under way began in time.
    node.finish_all();
    assert_eq!((node.dumps(), node.results()), (vec![], vec!["CheckpointCreated"]));
}

#[test]
fn the_starting_deadline_is_for_the_first_try_for_timed_requests_and_by_a_clock_that_is_trusted() {
    // A second try comes after the deadline.
    let mut late = with_deadline(every(HOUR));
    late.dumping.backoff = MINUTE * 10;
    let mut node = Node::new(vec![late], vec![pod("a")]);
    node.pass(HOUR).end(failed());
    node.pass(MINUTE * 10);
    assert_eq!((node.dumps().len(), node.results()), (2, vec!["CheckpointRetrying"]));
    // An annotation asks for as long as it is there.
    let mut node = Node::new(vec![with_deadline(on_annotation())], vec![asked("a"), asked("b")]);
    node.pass(HOUR);
    assert_eq!(node.results(), [""; 0]);
    // By a clock that was set, nothing is late.
    let mut node = Node::new(vec![with_deadline(every(HOUR))], vec![pod("a"), pod("b")]);
    node.pass(HOUR);
    node.tell(Input::Clock(Clock::Suspect));
    node.now = Now { wall: node.now.wall + HOUR * 24, ..node.now };
    node.pass(SECOND);
    assert_eq!(node.results(), [""; 0]);
}

#[test]
fn this_nodes_part_of_the_jitter_does_not_count_against_the_deadline() {
    let mut schedule = with_deadline(every(HOUR));
    schedule.triggers.jitter = MINUTE * 50;
    let mut node = Node::new(vec![schedule], vec![pod("a"), pod("b")]);
    let wait = node.scheduler.wakes_in(node.now).unwrap();
    assert!(wait > HOUR + MINUTE * 5, "this node's part must be longer than the deadline: {wait:?}");
    node.pass(wait);
    assert_eq!((node.dumps().len(), node.results()), (1, vec![]));
    node.pass(MINUTE * 5 + SECOND);
    assert_eq!(node.results(), ["ScheduleMissed"]);
}

#[test]
fn an_archive_that_its_policy_would_delete_at_once_is_not_tried_again() {
    let mut node = Node::new(vec![every(HOUR)], vec![pod("web")]);
    node.pass(HOUR).end(Outcome::TooLarge("too large".to_owned()));
    assert_eq!(node.results(), ["InsufficientStorage"]);
    node.dumps();
    node.pass(MINUTE * 59);
    assert_eq!(node.dumps(), [""; 0]);
    assert_eq!(health(&node), (1, Some("InsufficientStorage".to_owned())));
}

/// Times are missed because of what fails; what failed says what to do.
#[test]
fn that_times_were_missed_does_not_hide_why_checkpoints_failed() {
    let mut node = Node::new(vec![with_deadline(every(HOUR))], vec![pod("a")]);
    node.pass(HOUR).end(Outcome::TooLarge("too large".to_owned()));
    assert_eq!(health(&node), (1, Some("InsufficientStorage".to_owned())));
    node.pass(HOUR * 3);
    assert!(node.results().contains(&"ScheduleMissed"));
    let (failures, reason) = health(&node);
    assert_eq!((failures > 1, reason.as_deref()), (true, Some("InsufficientStorage")));
    node.live(HOUR);
    node.finish_all();
    assert_eq!(health(&node), (0, None));
}

/// Whoever suspends it as a disk is full has seen to it.
#[test]
fn a_schedule_that_is_suspended_does_not_fail_and_does_once_it_goes_on() {
    let suspend = |node: &mut Node, suspend: bool| {
        node.schedules[0].suspend = suspend;
        node.tell_schedules();
    };
    let mut node = Node::new(vec![every(HOUR)], vec![pod("web")]);
    node.pass(HOUR).end(Outcome::TooLarge("too large".to_owned()));
    let failed = (1, Some("InsufficientStorage".to_owned()));
    assert_eq!(health(&node), failed);
    suspend(&mut node, true);
    assert_eq!(health(&node), (0, None));
    suspend(&mut node, false);
    assert_eq!(health(&node), failed);
    // A container may be frozen all the same.
    node.pass(HOUR).end(Outcome::RuntimeLost("gone".to_owned()));
    suspend(&mut node, true);
    assert_eq!(health(&node).1.as_deref(), Some("ContainerMayBeFrozen"));
}

/// It is refused, as by the quotas of Kubernetes: whoever asked asks again once there is room.
#[test]
fn a_checkpoint_that_exceeds_a_quota_is_refused_and_not_tried_again_before_the_next_time() {
    let mut node = Node::new(vec![every(HOUR)], vec![pod("web")]);
    node.pass(HOUR).end(Outcome::QuotaExceeded("3 of 3 archives are there".to_owned()));
    assert_eq!(node.results(), ["QuotaExceeded"]);
    node.dumps();
    node.pass(MINUTE * 59);
    assert_eq!(node.dumps(), [""; 0]);
    assert_eq!(health(&node), (1, Some("QuotaExceeded".to_owned())));
    node.pass(MINUTE);
    assert_eq!(node.dumps().len(), 1, "the next time asks again");

    let mut node = Node::new(vec![on_annotation()], vec![asked("a")]);
    node.pass(SECOND).end(Outcome::QuotaExceeded("3 of 3 archives are there".to_owned()));
    assert_eq!(node.results(), ["QuotaExceeded"]);
    let answer = node.answers.pop().unwrap();
    assert!(answer.is_over && answer.text.contains("QuotaExceeded: 3 of 3 archives"), "{answer:?}");
}

#[test]
fn a_container_that_may_be_frozen_is_reported_and_stays_in_the_status_until_a_success() {
    let mut node = Node::new(vec![every(HOUR)], vec![pod("web")]);
    node.pass(HOUR).end(Outcome::RuntimeLost("it went away".to_owned()));
    assert_eq!(node.results(), ["ContainerMayBeFrozen", "CheckpointRetrying"]);
    let frozen = Some("ContainerMayBeFrozen".to_owned());
    assert_eq!(health(&node), (1, frozen.clone()));
    for _ in 0..3 {
        node.pass(MINUTE).end(failed());
    }
    assert_eq!(node.results().last(), Some(&"CheckpointFailed"), "each request has one end");
    assert_eq!(health(&node), (2, frozen), "what fails because of it does not hide it");
    assert_eq!(state(&node).last_failure.unwrap().message, "shop/web/app: it went away");
    node.live(HOUR);
    node.finish_all();
    assert_eq!(health(&node), (0, None));
}

#[test]
fn the_pause_after_a_failure_goes_on_across_a_restart_and_is_bounded_whatever_the_clock_says() {
    let node = || {
        let mut patient = every(HOUR);
        patient.dumping.backoff = MINUTE * 4;
        let mut node = Node::new(vec![patient], vec![pod("web")]);
        node.pass(HOUR).end(failed());
        node.dumps();
        node
    };
    let mut restarted = node();
    restarted.pass(MINUTE).restart();
    assert_eq!(restarted.pass(SECOND * 179).dumps(), [""; 0]);
    assert_eq!(restarted.pass(SECOND).dumps(), ["web/app"]);
    // The clock is set back a year while nothing runs.
    let mut set_back = node();
    set_back.now.wall -= HOUR * 24 * 365;
    set_back.restart();
    assert_eq!(set_back.pass(MINUTE * 4).dumps(), [""; 0]);
    assert_eq!(set_back.pass(MINUTE).dumps(), ["web/app"]);
}

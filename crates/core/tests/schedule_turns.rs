//! Whose dump comes next where there are more than a node may make at once: namespaces take turns, and none keeps the
//! others from having theirs.
#![allow(clippy::unwrap_used, clippy::panic)]

mod schedule_support;

use std::collections::BTreeMap;

use checkpoint_keeper_core::schedule::{Disruption, Dumping, Input, NodePod, Schedule};
use proptest::collection::vec;
use proptest::prelude::*;
use schedule_support::{Node, SECOND, asked, container, done, every, on, on_annotation, pod};

fn of(namespace: &str, mut schedule: Schedule) -> Schedule {
    namespace.clone_into(&mut schedule.id.namespace);
    namespace.clone_into(&mut schedule.pods_namespace);
    schedule.uid = format!("{namespace} {}", schedule.uid);
    schedule
}

fn pod_of(namespace: &str, pod: NodePod) -> NodePod {
    NodePod { namespace: namespace.to_owned(), uid: format!("{namespace} {}", pod.uid), ..pod }
}

/// A schedule that asks every second, for as many dumps at once as the API allows.
fn greedy(namespace: &str) -> Schedule {
    let dumping = Dumping { max_concurrent_per_node: 100, ..Dumping::default() };
    of(namespace, Schedule { dumping, ..every(SECOND) })
}

/// A pod with so many containers.
fn wide(namespace: &str, containers: usize) -> NodePod {
    let containers = (0..containers).map(|number| container(&format!("c{number}"), true)).collect();
    pod_of(namespace, NodePod { containers, ..pod("web") })
}

fn under_way(node: &Node, namespace: &str) -> usize {
    node.running.iter().filter(|dump| dump.container.namespace == namespace).count()
}

#[test]
fn a_tenant_whose_dumps_never_cease_keeps_no_other_one_waiting_for_longer_than_one_of_them() {
    for (most, containers) in [(1, 3), (4, 3), (4, 30)] {
        let pods = vec![wide("greedy", containers), pod_of("other", pod("db"))];
        let mut node = Node::with_most(most, vec![greedy("greedy"), of("other", on_annotation())], pods);
        for _ in 0..20 {
            node.pass(SECOND);
        }
        assert!(under_way(&node, "greedy") > 0);
        node.pods[1].is_annotated = true;
        node.tell_pods();
        // The oldest dump ends each second, and the next one of its tenant is due.
        node.pass(SECOND).end(done());
        assert_eq!(under_way(&node, "other"), 1, "{most} at once, {containers} containers");
        assert!(node.running.len() <= most as usize);
    }
}

#[test]
fn the_node_has_a_limit_of_its_own_and_no_namespace_takes_all_of_it() {
    let pods = vec![wide("greedy", 30), pod_of("other", pod("db"))];
    let mut node = Node::with_most(4, vec![greedy("greedy"), of("other", every(SECOND * 5))], pods);
    node.pass(SECOND);
    assert_eq!((under_way(&node, "greedy"), node.running.len()), (3, 3));
    node.pass(SECOND * 4);
    assert_eq!((under_way(&node, "other"), node.running.len()), (1, 4));
    // Where the node makes one at a time, that one is anybody's.
    let mut node = Node::with_most(1, vec![greedy("greedy")], vec![wide("greedy", 30)]);
    node.pass(SECOND);
    assert_eq!(under_way(&node, "greedy"), 1);
}

/// Also one that asks by what goes before times: annotations and ends of pods are in the hands of tenants, too.
#[test]
fn namespaces_take_turns_whatever_each_asks_by() {
    let ends = of("ends", on(&[Disruption::PodDeletion]));
    let schedules = vec![ends, of("asked", on_annotation()), of("timed", every(SECOND))];
    let pods = (0..40).map(|number| {
        let pod = asked(&format!("web-{number}"));
        match number % 4 {
            0 => pod_of("ends", NodePod { is_deleted: true, ..pod }),
            1 => pod_of("asked", pod),
            _ => pod_of("timed", pod),
        }
    });
    let mut node = Node::with_most(1, schedules, pods.collect());
    node.pass(SECOND);
    for _ in 0..29 {
        node.end(done());
    }
    let mut begun = BTreeMap::<String, usize>::new();
    for dump in &node.dumped {
        *begun.entry(dump.container.namespace.clone()).or_default() += 1;
    }
    let expected = ["asked", "ends", "timed"].map(|namespace| (namespace.to_owned(), 10));
    assert_eq!(begun, BTreeMap::from(expected), "{:?}", node.dumps());
    // Within a turn the most urgent one goes first; the very first dump found nobody else.
    let urgent = node.dumped[3..6].iter().map(|dump| dump.container.namespace.as_str()).collect::<Vec<_>>();
    assert_eq!(urgent, ["ends", "asked", "timed"]);
}

/// A drain is the administrator's, and what it ends cannot wait.
#[test]
fn what_a_drain_ends_waits_for_no_turn() {
    let drain = of("drained", on(&[Disruption::NodeDrain]));
    let mut pods: Vec<NodePod> =
        (0..5).map(|number| pod_of("drained", pod(&format!("web-{number}")))).collect();
    pods.push(wide("greedy", 3));
    let mut node = Node::with_most(1, vec![greedy("greedy"), drain], pods);
    node.pass(SECOND);
    node.tell(Input::Node { is_unschedulable: true });
    for _ in 0..5 {
        node.pass(SECOND).end(done());
        assert_eq!(under_way(&node, "drained"), 1, "{:?}", node.running);
    }
    node.pass(SECOND).end(done());
    assert_eq!(under_way(&node, "greedy"), 1);
}

/// In one namespace, a schedule that allows many at once does not go past another one that allows one.
#[test]
fn what_goes_first_in_a_namespace_is_not_passed_by_what_allows_more_at_once() {
    let careful = Schedule { uid: "careful".to_owned(), ..on_annotation() };
    let careful = Schedule { containers: vec!["db".to_owned()], ..of("shop", careful) };
    let mut database = asked("db");
    database.containers = vec![container("db", true)];
    database.is_annotated = false;
    let mut greedy = greedy("shop");
    greedy.containers = (0..3).map(|number| format!("c{number}")).collect();
    let mut node = Node::new(vec![greedy, careful], vec![wide("shop", 3), pod_of("shop", database)]);
    node.pass(SECOND);
    assert_eq!(node.running.len(), 3);
    node.pods[1].is_annotated = true;
    node.tell_pods();
    for _ in 0..3 {
        assert!(node.dumped.iter().all(|dump| dump.container.container != "db"));
        node.pass(SECOND).end(done());
    }
    assert!(node.running.iter().any(|dump| dump.container.container == "db"), "{:?}", node.running);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// However many ask for however much: until a request's turn comes, each other namespace has one at most.
    #[test]
    fn a_request_waits_for_no_more_than_one_dump_of_each_other_namespace(
        most in 1_u32..=5,
        tenants in vec((1_usize..6, prop::sample::select(vec![1, 2, 100]), 1_u32..4), 1..5),
        ends in vec((0_usize..6, 0_u32..3), 0..60),
    ) {
        let named = |number: usize| format!("tenant-{number}");
        let mut schedules = vec![of("other", on_annotation())];
        let mut pods = vec![pod_of("other", pod("db"))];
        for (number, (containers, max_concurrent_per_node, seconds)) in tenants.iter().copied().enumerate() {
            let dumping = Dumping { max_concurrent_per_node, ..Dumping::default() };
            schedules.push(of(&named(number), Schedule { dumping, ..every(SECOND * seconds) }));
            pods.push(wide(&named(number), containers));
        }
        let mut node = Node::with_most(most, schedules, pods);
        let end = |node: &mut Node, which: usize| {
            if !node.running.is_empty() {
                let dump = node.running.remove(which % node.running.len());
                node.tell(Input::Ended { dump: dump.id, outcome: done() });
            }
        };
        for (which, seconds) in ends {
            node.pass(SECOND * seconds);
            end(&mut node, which);
        }
        node.pods[0].is_annotated = true;
        node.tell_pods();
        let mut ended = 0;
        while under_way(&node, "other") == 0 {
            prop_assert!(ended < tenants.len(), "{:?}", node.running);
            end(&mut node, 0);
            node.pass(SECOND);
            ended += 1;
        }
    }
}

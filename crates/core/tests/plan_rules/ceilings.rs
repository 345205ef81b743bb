//! The ceilings of storage policies.

use std::time::Duration;

use checkpoint_keeper_core::plan::Reason;
use checkpoint_keeper_core::policy::Size;

use crate::plan_support::*;

#[test]
fn ceilings_bind_whatever_policies_say_and_where_none_governs() {
    let archives = || series("a", "shop/web-0/server", 5);
    let lax = keep(|retention| retention.keep_latest = 5);
    for ceiling in [count(2), total(2 * MI + 1)] {
        let ceiling = with(storage("ceiling"), |policy| policy.per_namespace.limit = ceiling);
        let governed = case(archives()).storage(ceiling.clone()).policy(lax.clone()).run();
        assert_eq!(governed.deleted(), ["a1", "a2", "a3"]);
        assert_eq!(
            (governed.reason("a1"), governed.policy("a1")),
            (Reason::NamespaceCeiling, "ceiling".into())
        );
        assert_eq!(case(archives()).storage(ceiling).deleted(), ["a1", "a2", "a3"]);
    }
    for (limit, left) in [(3 * MI, 3), (1, 1)] {
        let node = with(storage("node"), |policy| policy.max_total_size = Some(Size::Bytes(limit)));
        let outcome = case(archives()).storage(node).policy(lax.clone()).run();
        assert_eq!(outcome.kept().len(), left);
        assert_eq!((outcome.reason("a1"), outcome.policy("a1")), (Reason::StorageWatermark, "node".into()));
    }
}

/// Two pods of a Deployment under two policies: the newer one's archive goes, and so stands in for no other.
#[test]
fn what_its_own_policy_takes_for_its_age_is_nobody_elses_newest() {
    let of = |short: &str, pod: &str, age: Duration| {
        archive(short).of(&format!("shop/{pod}/server")).owned_by("Deployment", "web").aged(age)
    };
    let for_pod = |name: &str, pod: &str, latest: u32, age: Duration| {
        with(cluster(name), |policy| {
            policy.selector.pods = vec![pod.to_owned()];
            policy.retention.keep_latest = latest;
            policy.retention.max_age = Some(age);
        })
    };
    let stable = for_pod("stable", "web-1", 1, DAY * 30);
    let archives = || [of("a", "web-1", DAY * 31), of("b", "web-2", DAY * 2)];
    let canary = for_pod("canary", "web-2", 0, DAY);
    assert_eq!(case(archives()).policy(stable.clone()).policy(canary).run().kept(), ["a"]);
    // Where the newer one stays, the older one goes.
    let canary = for_pod("canary", "web-2", 0, DAY * 3);
    assert_eq!(case(archives()).policy(stable).policy(canary).run().kept(), ["b"]);
}

#[test]
fn a_ceiling_keeps_the_newest_complete_one_of_each_namespace() {
    let archives = [
        series("a", "shop/web-0/server", 2),
        series("b", "bank/web-0/server", 2),
        vec![archive("cut").of("bank/web-0/server").incomplete().aged(MINUTE * 30)],
    ]
    .concat();
    let ceiling = with(storage("ceiling"), |policy| policy.per_namespace.limit = total(1));
    assert_eq!(case(archives.clone()).storage(ceiling).run().kept(), ["a2", "b2"]);
    let node = with(storage("node"), |policy| policy.max_total_size = Some(Size::Bytes(1)));
    // The newest of each lineage stay, on the node too.
    assert_eq!(case(archives).storage(node).run().kept(), ["a2", "b2"]);
}

#[test]
fn complete_archives_of_unknown_identity_count_in_no_limit_and_incomplete_ones_only_on_the_node() {
    let mut archives = series("a", "shop/web-0/server", 3);
    archives.extend([archive("x").unknown().aged(DAY), archive("bad").unreadable().aged(DAY)]);
    let node = with(storage("node"), |policy| policy.max_total_size = Some(Size::Bytes(3 * MI)));
    assert_eq!(case(archives.clone()).storage(node.clone()).deleted(), [""; 0]);
    archives.push(archive("cut").unknown().incomplete().aged(DAY));
    assert_eq!(case(archives).storage(node).deleted(), ["cut"]);
}

#[test]
fn a_policy_without_the_nodes_labels_says_nothing_and_is_named() {
    let gpu = with(storage("gpu"), |policy| {
        policy.node_selector = label_is("pool", "gpu");
        policy.per_namespace.limit = count(1);
    });
    let mut case = case(series("a", "shop/web-0/server", 2)).storage(gpu);
    let outcome = case.run();
    assert_eq!(outcome.deleted(), [""; 0]);
    let unjudged: Vec<_> = outcome.plan.unjudged_storage.iter().map(|id| id.name.clone()).collect();
    assert_eq!(unjudged, ["gpu"]);
    for (pool, gone) in [("cpu", 0), ("gpu", 1)] {
        case.snapshot.node_labels = Some(labels(&[("pool", pool)]));
        let outcome = case.run();
        assert_eq!((outcome.deleted().len(), outcome.plan.unjudged_storage.len()), (gone, 0));
    }
}

//! Namespaces and workloads stay apart.

use std::sync::Arc;

use checkpoint_keeper_core::plan::{Archive, Detail, Reason};
use checkpoint_keeper_core::policy::{Operator, Requirement};

use crate::governing::namespace_labels;
use crate::plan_support::*;

#[test]
fn an_archive_older_than_its_namespace_is_not_the_new_owners() {
    let created = Some(ago(HOUR * 3 + MINUTE * 5));
    let own = with(local("shop", "own"), |policy| policy.retention.per_container = count(1));
    let archives = series("a", "shop/web-0/server", 5);
    let case = case(archives).namespace("shop", &[("env", "prod")], created).policy(own);
    // a3 was taken as late as the API's clock and this node's may differ.
    let outcome = case.run();
    assert_eq!(outcome.deleted(), ["a3", "a4"]);
    assert_eq!((outcome.reason("a1"), outcome.reason("a2")), (Reason::NoPolicy, Reason::NoPolicy));

    // A cluster policy governs both, as two namespaces.
    let wide = keep(|retention| retention.per_namespace = count(1));
    let mut both = case.clone();
    both.policies.retention = vec![wide];
    assert_eq!(both.deleted(), ["a1", "a3", "a4"]);
    // The labels of the new namespace say nothing about the old one.
    both.policies.retention = vec![namespace_labels(keep(|retention| retention.per_namespace = count(1)))];
    assert_eq!(both.deleted(), ["a3", "a4"]);
    // Nor does an object of the new owner that does not parse hold the old archives.
    both.policies.retention = vec![keep(|retention| retention.per_namespace = count(1))];
    assert_eq!(both.broken(Some("shop")).deleted(), ["a1"]);
}

/// `gc` without a cluster recommends it.
#[test]
fn a_namespace_is_selected_by_the_label_that_is_its_name_also_without_a_cluster() {
    let requirement = |operator| Requirement { key: "kubernetes.io/metadata.name".into(), operator };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let archives = [
        archive("ours").of("shop/web-0/server").aged(DAY),
        archive("theirs").of("bank/web-0/server").aged(DAY),
    ];
    let none: [&str; 0] = [];
    for (operator, expected) in [
        (Operator::In(names(&["shop"])), &["ours"][..]),
        (Operator::NotIn(names(&["shop"])), &["theirs"]),
        (Operator::Exists, &["ours", "theirs"]),
        (Operator::DoesNotExist, &none),
    ] {
        let by_name = keep(|keep| (keep.max_age, keep.keep_latest) = (Some(MINUTE), 0));
        let by_name = with(by_name, |policy| policy.selector.namespace_labels.0.push(requirement(operator)));
        assert_eq!(case(archives.clone()).policy(by_name.clone()).deleted(), expected);
        // What else is asked of labels that are not known keeps, unless the name decides.
        let both = with(by_name, |policy| {
            policy.selector.namespace_labels.0.extend(label_is("env", "prod").0);
        });
        let wider = keep(|keep| (keep.max_age, keep.keep_latest) = (Some(MINUTE), 0));
        let wider = case(archives.clone()).policy(both).policy(wider).deleted();
        assert!(wider.iter().all(|gone| !expected.contains(&gone.as_str())), "{wider:?}");
        assert_eq!(wider.len(), 2 - expected.len(), "{wider:?}");
    }
}

/// `apps` and `apps.kruise.io` both have a `DaemonSet`.
#[test]
fn owners_of_one_kind_and_name_in_two_groups_are_two_workloads() {
    let of = |short: &str, group: &str, age| {
        let owner = Some(Arc::new(workload(group, "DaemonSet", "log")));
        Archive { workload: owner, ..archive(short).of(&format!("shop/{short}/c")).aged(age) }
    };
    let archives = [
        of("a1", "apps", HOUR),
        of("a2", "apps", HOUR * 2),
        of("k3", "apps.kruise.io", HOUR * 3),
        of("k4", "apps.kruise.io", HOUR * 4),
    ];
    let aged = case(archives.clone()).policy(keep(|keep| keep.max_age = Some(MINUTE)));
    assert_eq!(aged.deleted(), ["a2", "k4"], "the newest of each lineage stays");
    let limited = keep(|keep| (keep.per_workload, keep.keep_latest) = (count(1), 0));
    assert_eq!(case(archives).policy(limited).deleted(), ["a2", "k4"]);
}

/// Two clocks cannot tell whether the namespace was there already; its pod can.
#[test]
fn what_was_taken_when_its_namespace_was_made_is_governed_if_its_pod_was_seen_in_it() {
    let own = with(local("shop", "own"), |policy| policy.retention.per_container = count(1));
    // a3 was taken three hours ago.
    for created in [ago(MINUTE * 175), ago(MINUTE * 184)] {
        let mut case = case(series("a", "shop/web-0/server", 5))
            .namespace("shop", &[("env", "prod")], Some(created))
            .policy(own.clone());
        let outcome = case.run();
        assert_eq!(outcome.deleted(), ["a4"]);
        assert_eq!(outcome.detail("a3"), Detail::NamespaceUncertain);
        case.snapshot.archives[2].seen_in = Some(created);
        assert_eq!(case.deleted(), ["a3", "a4"]);
        // In the one before that, it was not in this one.
        case.snapshot.archives[2].seen_in = Some(ago(HOUR * 9));
        assert_eq!(case.deleted(), ["a4"]);
    }
}

#[test]
fn a_vanished_namespace_is_a_lineage_and_a_ceiling_of_its_own() {
    let case =
        case(series("a", "shop/web-0/server", 4)).namespace("shop", &[], Some(ago(HOUR * 2 + MINUTE * 10)));
    let aged = case.clone().policy(keep(|retention| retention.max_age = Some(MINUTE)));
    assert_eq!(aged.deleted(), ["a1", "a3"]);
    let ceiling = with(storage("ceiling"), |policy| policy.per_namespace.limit = count(1));
    assert_eq!(case.storage(ceiling).deleted(), ["a1", "a3"]);
}

#[test]
fn a_namespaced_policy_does_nothing_elsewhere() {
    let strict = with(local("shop", "strict"), |policy| {
        (policy.retention.keep_latest, policy.retention.max_age) = (0, Some(MINUTE));
        policy.incomplete_grace = Some(MINUTE);
    });
    let archives = [
        archive("own").of("shop/web-0/server").aged(HOUR),
        archive("prefix").of("shop-prod/web-0/server").aged(HOUR),
        archive("other").of("sho/p-web-0/server").aged(HOUR),
        archive("cut").unknown().incomplete().aged(HOUR),
    ];
    assert_eq!(case(archives).policy(strict).deleted(), ["own"]);
}

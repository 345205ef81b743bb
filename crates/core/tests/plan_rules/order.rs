//! The order of the rules, and of archives within a rule.

use std::time::Duration;

use checkpoint_keeper_core::plan::{Absences, Reason};
use checkpoint_keeper_core::policy::{Limit, OrphanRule, OrphanWhen, Size, Tiers};

use crate::governing::older_operator;
use crate::plan_support::*;

/// Takes away what makes one rule delete.
type Strip = fn(&mut Case);

#[test]
fn each_rule_gives_its_reason_before_the_next_one() {
    let gone = Absences { pod: absent(DAY * 2, Duration::ZERO), ..Absences::default() };
    let tiers = Some(Tiers { yearly: 1, ..Tiers::default() });
    let strip: [(Strip, Reason); 16] = [
        (|case| case.snapshot.archives[0].discarded = false, Reason::Discarded),
        (|case| case.snapshot.archives[0].absences = None, Reason::Orphaned),
        (
            |case| case.snapshot.archives[0].state = checkpoint_keeper_core::archive::State::Complete,
            Reason::Incomplete,
        ),
        (|case| case.policies.retention[0].retention.max_archive_size = None, Reason::MaxArchiveSize),
        (|case| case.policies.retention[0].retention.tiers = None, Reason::Tiers),
        (|case| case.policies.retention[0].retention.max_age = None, Reason::MaxAge),
        (
            |case| case.policies.retention[0].retention.per_container.max_count = None,
            Reason::MaxCountPerContainer,
        ),
        (
            |case| case.policies.retention[0].retention.per_workload.max_count = None,
            Reason::MaxCountPerWorkload,
        ),
        (|case| case.policies.retention[0].retention.per_pod.max_count = None, Reason::MaxCountPerPod),
        (
            |case| case.policies.retention[0].retention.per_namespace.max_count = None,
            Reason::MaxCountPerNamespace,
        ),
        (
            |case| case.policies.retention[0].retention.per_container.max_total_size = None,
            Reason::MaxTotalSizePerContainer,
        ),
        (
            |case| case.policies.retention[0].retention.per_workload.max_total_size = None,
            Reason::MaxTotalSizePerWorkload,
        ),
        (
            |case| case.policies.retention[0].retention.per_pod.max_total_size = None,
            Reason::MaxTotalSizePerPod,
        ),
        (
            |case| case.policies.retention[0].retention.per_namespace.max_total_size = None,
            Reason::MaxTotalSizePerNamespace,
        ),
        (
            |case| {
                case.policies.storage[0].per_namespace = checkpoint_keeper_core::policy::Ceiling::default();
            },
            Reason::NamespaceCeiling,
        ),
        (|case| case.policies.storage[0].max_total_size = None, Reason::StorageWatermark),
    ];
    let both = Limit { max_count: Some(1), max_total_size: Some(Size::Bytes(5 * MI)) };
    let policy = with(
        keep(|retention| {
            retention.max_archive_size = Some(5 * MI);
            retention.max_age = Some(DAY);
            retention.tiers = tiers;
            (retention.per_container, retention.per_workload) = (both, both);
            (retention.per_pod, retention.per_namespace) = (both, both);
        }),
        |policy| {
            policy.orphans = Some(OrphanRule { when: OrphanWhen::PodDeleted, grace: HOUR });
            policy.incomplete_grace = Some(HOUR);
        },
    );
    let limits = with(storage("limits"), |policy| {
        policy.per_namespace.limit = both;
        policy.max_total_size = Some(Size::Bytes(5 * MI));
    });
    let mut case = case([
        archive("a")
            .aged(DAY * 2)
            .sized(6 * MI)
            .incomplete()
            .discarded()
            .gone(gone)
            .owned_by("Deployment", "web"),
        archive("b").aged(HOUR).owned_by("Deployment", "web"),
    ])
    .policy(policy)
    .storage(limits);
    for (strip, reason) in strip {
        assert_eq!((case.reason("a"), case.deleted()), (reason, vec!["a".to_owned()]));
        strip(&mut case);
    }
    assert_eq!(case.reason("a"), Reason::WithinLimits);
    let full = case.storage(watermark(50, 10)).disk(disk(10 * MI, 0));
    assert_eq!((full.reason("a"), full.deleted()), (Reason::StorageWatermark, vec!["a".to_owned()]));
}

#[test]
fn protection_comes_before_discard_but_a_discard_names_its_archive() {
    let reasons = [
        (archive("a").discarded().pinned(), Reason::Pinned),
        (archive("a").discarded().unsettled(), Reason::Settling),
        (archive("a").discarded().unsettled().unknown(), Reason::Settling),
        (archive("a").discarded().unknown(), Reason::Discarded),
        (archive("a").discarded().unreadable(), Reason::Discarded),
        (archive("a").discarded().incomplete(), Reason::Discarded),
        (archive("a").discarded().pinned().unknown(), Reason::Pinned),
        (archive("a").unreadable(), Reason::UnknownIdentity),
        (archive("a").unknown(), Reason::UnknownIdentity),
    ];
    for (archive, reason) in reasons {
        let case = case([archive.aged(DAY)]).policy(keep(|retention| retention.max_age = Some(DAY * 9)));
        assert_eq!(case.reason("a"), reason);
        assert_eq!(case.clone().suspect_clock().allowance(0).broken(None).reason("a"), reason);
        assert_eq!(case.run().policy("a"), "");
    }
}

#[test]
fn oldest_first_and_equal_times_in_byte_order_of_the_name() {
    let names = ["B", "a", "a-", "a.", "aa", "z", "é"];
    for left in 1..names.len() {
        let archives = names.iter().rev().map(|name| archive(name).aged(HOUR));
        let limit = left as u64;
        let case = case(archives).policy(keep(|retention| retention.per_container = count(limit)));
        // Compared by whole file names: the byte after `a` in `checkpoint-a.tar` is `.`.
        let mut order: Vec<&str> = names.to_vec();
        order.sort_by_key(|name| format!("checkpoint-{name}.tar").into_bytes());
        let mut gone: Vec<String> =
            order[..names.len() - left].iter().map(|name| (*name).to_owned()).collect();
        gone.sort();
        assert_eq!(case.deleted(), gone);
    }
}

#[test]
fn sizes_are_file_sizes_in_limits_and_blocks_in_the_watermark() {
    let archives = || {
        vec![
            archive("sparse").aged(HOUR * 3).sized(10 * MI).allocating(0),
            archive("b").aged(HOUR * 2),
            archive("c").aged(HOUR),
        ]
    };
    let limited = case(archives()).policy(keep(|retention| retention.per_pod = total(2 * MI)));
    assert_eq!(limited.deleted(), ["sparse"]);
    let full = case(archives()).storage(watermark(50, 49)).disk(disk(100 * MI, 49 * MI)).run();
    let report = full.plan.watermark.unwrap();
    assert_eq!((report.wanted_bytes, report.freed_bytes), (2 * MI, MI));
    assert!(full.deleted().contains(&"b".to_owned()));
}

#[test]
fn zero_and_absent_switch_one_rule_off() {
    let zeroes = keep(|retention| {
        retention.keep_latest = 0;
        retention.max_age = Some(Duration::ZERO);
        retention.max_archive_size = Some(0);
        let zero = Limit { max_count: Some(0), max_total_size: Some(Size::Bytes(0)) };
        (retention.per_container, retention.per_workload) = (zero, zero);
        (retention.per_pod, retention.per_namespace) = (zero, zero);
        retention.tiers = Some(Tiers::default());
    });
    let none = with(storage("none"), |policy| {
        policy.high_watermark = Some(percent(0));
        policy.min_free_bytes = Some(0);
        policy.min_free_inodes = Some(0);
        policy.max_total_size = Some(Size::Bytes(0));
        policy.per_namespace.limit = Limit { max_count: Some(0), max_total_size: Some(Size::Bytes(0)) };
        policy.per_namespace.max_age = Some(Duration::ZERO);
    });
    let archives = || {
        series("a", "shop/web-0/server", 3).into_iter().map(|archive| archive.owned_by("Deployment", "web"))
    };
    let off = case(archives()).policy(zeroes.clone()).storage(none.clone()).disk(disk(GI, 0));
    assert_eq!(off.deleted(), [""; 0]);
    // One rule that is off leaves the others on.
    let one = with(zeroes, |policy| policy.retention.per_pod = count(2));
    assert_eq!(case(archives()).policy(one).deleted(), ["a1"]);
}

#[test]
fn a_storage_policy_that_switches_a_ceiling_off_does_not_switch_off_anothers() {
    let zero = with(storage("a-zero"), |policy| {
        policy.max_total_size = Some(Size::Bytes(0));
        policy.per_namespace.limit = Limit { max_count: Some(0), max_total_size: Some(Size::Bytes(0)) };
        policy.per_namespace.max_age = Some(Duration::ZERO);
    });
    let archives = || series("a", "shop/web-0/server", 3);
    let limits = [
        with(storage("b"), |policy| policy.max_total_size = Some(Size::Bytes(2 * MI))),
        with(storage("b"), |policy| policy.per_namespace.limit = count(2)),
        with(storage("b"), |policy| policy.per_namespace.limit = total(2 * MI)),
        with(storage("b"), |policy| policy.per_namespace.max_age = Some(HOUR * 3)),
    ];
    for limit in limits {
        let outcome = case(archives()).storage(zero.clone()).storage(limit).run();
        assert_eq!((outcome.deleted(), outcome.policy("a1")), (vec!["a1".to_owned()], "b".into()));
    }
}

#[test]
fn every_level_groups_by_what_its_name_says() {
    // Two namespaces, two pods of one Deployment in each, two containers in each, three of each.
    let mut archives = Vec::new();
    for path in ["n/p/c", "n/p/d", "n/q/c", "n/q/d", "m/p/c", "m/p/d", "m/q/c", "m/q/d"] {
        let prefix = path.replace('/', "-");
        archives.extend(
            series(&prefix, path, 3).into_iter().map(|archive| archive.owned_by("Deployment", "web")),
        );
    }
    let left = |change: fn(&mut checkpoint_keeper_core::policy::Retention)| {
        let outcome = case(archives.clone()).policy(keep(change)).run();
        (outcome.kept().len(), outcome.verdicts.values().filter(|verdict| verdict.policy.is_some()).count())
    };
    assert_eq!(left(|retention| retention.per_container = count(2)).0, 16);
    assert_eq!(left(|retention| retention.per_workload = count(2)).0, 8);
    assert_eq!(left(|retention| retention.per_pod = count(2)).0, 8);
    assert_eq!(left(|retention| retention.per_namespace = count(2)).0, 4);
    assert_eq!(left(|retention| retention.per_container = total(2 * MI)).0, 16);
    assert_eq!(left(|retention| retention.per_workload = total(2 * MI)).0, 8);
    assert_eq!(left(|retention| retention.per_pod = total(2 * MI)).0, 8);
    assert_eq!(left(|retention| retention.per_namespace = total(2 * MI)).0, 4);
}

/// compat: each level's count, then its size; new policies: all counts, then all sizes.
#[test]
fn an_older_operators_policy_limits_the_size_of_one_level_before_the_count_of_the_next() {
    let archives = || {
        vec![
            archive("old").of("shop/web-0/proxy").aged(HOUR * 9),
            archive("new").of("shop/web-0/proxy").aged(HOUR * 8),
            archive("large").of("shop/web-0/server").aged(HOUR * 7).sized(10 * MI),
            archive("small").of("shop/web-0/server").aged(HOUR * 6),
        ]
    };
    let policy =
        keep(|retention| (retention.per_container, retention.per_namespace) = (total(5 * MI), count(3)));
    assert_eq!(case(archives()).policy(older_operator(policy.clone())).deleted(), ["large"]);
    assert_eq!(case(archives()).policy(policy).deleted(), ["large", "old"]);
}

#[test]
fn a_limit_per_workload_has_no_effect_where_the_owner_is_not_known() {
    let policy = keep(|retention| retention.per_workload = count(1));
    assert_eq!(case(series("a", "shop/web-0/server", 5)).policy(policy).deleted(), [""; 0]);
}

#[test]
fn a_stateful_sets_pods_count_together_per_workload() {
    let archives = [series("a", "shop/db-0/server", 2), series("b", "shop/db-1/server", 2)].concat();
    let archives = archives.into_iter().map(|archive| archive.owned_by("StatefulSet", "db"));
    let case = case(archives).policy(keep(|retention| retention.per_workload = count(2)));
    assert_eq!(case.deleted(), ["a1", "b1"]);
}

#[test]
fn shares_follow_the_size_of_the_disk() {
    let share =
        |percents: u32| Limit { max_count: None, max_total_size: Some(Size::Share(percent(percents))) };
    let policy = || keep(|retention| retention.per_pod = share(10));
    let archives = || series("a", "shop/web-0/server", 5);
    assert_eq!(case(archives()).policy(policy()).disk(disk(40 * MI, 20 * MI)).deleted(), ["a1"]);
    assert_eq!(case(archives()).policy(policy()).disk(disk(20 * MI, 10 * MI)).deleted(), ["a1", "a2", "a3"]);
    assert_eq!(case(archives()).policy(policy()).disk(disk(50 * MI, 50 * MI)).deleted(), [""; 0]);
    // Where the disk cannot be asked, a share is of nothing known, and takes nothing.
    assert_eq!(case(archives()).policy(policy()).deleted(), [""; 0]);
    let node = with(storage("node"), |policy| policy.max_total_size = Some(Size::Share(percent(10))));
    assert_eq!(case(archives()).storage(node.clone()).deleted(), [""; 0]);
    assert_eq!(case(archives()).storage(node).disk(disk(40 * MI, 20 * MI)).deleted(), ["a1"]);
}

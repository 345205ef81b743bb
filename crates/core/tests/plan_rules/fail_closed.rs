//! Without a policy, or where policies, labels or the clock are in doubt, nothing is deleted.

use std::time::Duration;

use checkpoint_keeper_core::plan::{Absences, Detail, Reason};
use checkpoint_keeper_core::policy::{OrphanRule, OrphanWhen, Size, Tiers};

use crate::plan_support::*;

#[test]
fn without_a_policy_nothing_is_deleted() {
    let archives = vec![
        archive("old").aged(DAY * 1_000).sized(GI * 100),
        archive("cut").incomplete().aged(DAY),
        archive("gone").gone(Absences {
            pod: absent(DAY * 9, Duration::ZERO),
            workload: absent(DAY * 9, Duration::ZERO),
            namespace: absent(DAY * 9, Duration::ZERO),
        }),
    ];
    let case = case(archives).disk(disk(GI, 0));
    assert_eq!(case.deleted(), [""; 0]);
    assert!(case.run().verdicts.values().all(|verdict| verdict.reason == Reason::NoPolicy));
    let elsewhere = with(local("other", "strict"), |policy| {
        policy.retention.max_age = Some(HOUR);
        policy.retention.keep_latest = 0;
    });
    assert_eq!(case.policy(elsewhere).deleted(), [""; 0]);
}

// Where something is in doubt.

#[test]
fn an_object_that_does_not_parse_stands_for_its_namespace() {
    let strict = keep(|retention| retention.per_container = count(1));
    let own = with(local("shop", "own"), |policy| policy.retention.per_container = count(1));
    let archives = [series("a", "shop/web-0/server", 3), series("b", "bank/web-0/server", 3)].concat();
    let outcome = case(archives).policy(strict).policy(own).broken(Some("shop")).run();
    assert_eq!(outcome.deleted(), ["b1", "b2"]);
    assert_eq!((outcome.reason("a1"), outcome.policy("a1")), (Reason::PolicyInvalid, "broken".into()));
}

#[test]
fn a_cluster_object_that_does_not_parse_stands_for_all_without_a_namespaced_policy() {
    let strict = keep(|retention| retention.per_container = count(1));
    let own = with(local("shop", "own"), |policy| policy.retention.per_container = count(1));
    let narrow = with(local("bank", "narrow"), |policy| policy.selector.containers = vec!["other".into()]);
    let archives = [
        series("a", "shop/web-0/server", 2),
        series("b", "bank/web-0/server", 2),
        series("c", "else/web-0/server", 2),
        vec![archive("cut").unknown().incomplete().aged(DAY)],
    ]
    .concat();
    let outcome = case(archives).policy(strict).policy(own).policy(narrow).broken(None).run();
    assert_eq!(outcome.deleted(), ["a1"]);
    for kept in ["b1", "c1", "cut"] {
        assert_eq!(outcome.reason(kept), Reason::PolicyInvalid, "{kept}");
    }
}

#[test]
fn what_an_invalid_policy_holds_is_only_taken_by_discard_and_storage_policies() {
    let mut archives = series("a", "shop/web-0/server", 4);
    archives[1].discarded = true;
    let strict = keep(|retention| (retention.keep_latest, retention.max_age) = (0, Some(MINUTE)));
    let held = case(archives).policy(strict).broken(None);
    assert_eq!(held.deleted(), ["a2"]);
    assert_eq!(held.reason("a2"), Reason::Discarded);
    for (limit, gone) in [
        (with(storage("limits"), |policy| policy.per_namespace.limit = count(2)), vec!["a1", "a2"]),
        (with(storage("limits"), |policy| policy.per_namespace.limit = total(1_024)), vec!["a1", "a2", "a3"]),
        (
            with(storage("limits"), |policy| policy.max_total_size = Some(Size::Bytes(1))),
            vec!["a1", "a2", "a3"],
        ),
        (
            with(storage("limits"), |policy| policy.per_namespace.max_age = Some(HOUR * 2)),
            vec!["a1", "a2", "a3"],
        ),
    ] {
        let outcome = held.clone().storage(limit).run();
        assert_eq!(outcome.deleted(), gone);
        assert_eq!(outcome.policy("a1"), "limits");
    }
    let waiting = with(storage("limits"), |policy| policy.per_namespace.limit = count(2));
    assert_eq!(held.clone().storage(waiting).allowance(0).reason("a1"), Reason::DeletionPending);
    let full = held.storage(watermark(50, 10)).disk(disk(10 * MI, 0)).run();
    assert_eq!(full.deleted(), ["a1", "a2", "a3"]);
    assert_eq!((full.reason("a1"), full.policy("a1")), (Reason::StorageWatermark, "disk".into()));
    // Its newest stays, as wherever no policy says otherwise.
    assert_eq!(full.reason("a4"), Reason::PolicyInvalid);
}

#[test]
fn rules_by_time_pause_while_the_clock_is_suspect() {
    let gone = Absences { pod: absent(DAY * 3, Duration::ZERO), ..Absences::default() };
    let policy = with(keep(|retention| retention.max_age = Some(HOUR)), |policy| {
        policy.orphans = Some(OrphanRule { when: OrphanWhen::PodDeleted, grace: HOUR });
        policy.incomplete_grace = Some(HOUR);
    });
    let archives = || {
        vec![
            archive("cut").incomplete().aged(DAY * 4),
            archive("old").aged(DAY * 3),
            archive("orphan").of("shop/gone-0/server").aged(DAY * 3).gone(gone),
            archive("new"),
        ]
    };
    assert_eq!(case(archives()).policy(policy.clone()).deleted(), ["cut", "old", "orphan"]);
    let suspect = case(archives()).policy(policy).suspect_clock();
    let outcome = suspect.run();
    assert_eq!(outcome.deleted(), [""; 0]);
    for (short, would) in [("cut", Reason::Incomplete), ("old", Reason::MaxAge), ("orphan", Reason::Orphaned)]
    {
        assert_eq!(
            (outcome.reason(short), outcome.detail(short)),
            (Reason::ClockSuspect, Detail::Would(would))
        );
    }
    // A ceiling's age is a rule by time too, and says so even where no policy governs.
    let ceiling = with(storage("ceiling"), |policy| policy.per_namespace.max_age = Some(HOUR));
    let outcome = case([archive("old").aged(DAY)]).storage(ceiling).suspect_clock().run();
    assert_eq!(outcome.detail("old"), Detail::Would(Reason::NamespaceCeiling));
    assert_eq!((outcome.reason("old"), outcome.policy("old")), (Reason::ClockSuspect, "ceiling".into()));
}

#[test]
fn tiers_are_a_rule_by_time() {
    let policy = keep(|retention| retention.tiers = Some(Tiers { daily: 1, ..Tiers::default() }));
    let archives = [archive("a").aged(DAY), archive("b").aged(DAY.checked_sub(HOUR).unwrap()), archive("c")];
    let case = case(archives).policy(policy);
    assert_eq!(case.deleted(), ["a", "b"]);
    let outcome = case.suspect_clock().run();
    assert_eq!(outcome.deleted(), [""; 0]);
    assert_eq!(
        (outcome.reason("a"), outcome.detail("a")),
        (Reason::ClockSuspect, Detail::Would(Reason::Tiers))
    );
}

#[test]
fn limits_and_the_watermark_act_under_a_suspect_clock() {
    let policy = keep(|retention| retention.per_container = count(3));
    let case = case(series("a", "shop/web-0/server", 5)).policy(policy).suspect_clock();
    assert_eq!(case.deleted(), ["a1", "a2"]);
    let full = case.storage(watermark(50, 10)).disk(disk(10 * MI, 0));
    assert_eq!(full.deleted(), ["a1", "a2", "a3", "a4"]);
}

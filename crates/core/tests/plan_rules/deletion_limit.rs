//! The deletion limit: who waits, and who does not.

use checkpoint_keeper_core::plan::{Allowance, Detail, Draw, Reason, explain};
use checkpoint_keeper_core::policy::{Confidence, Size};
use checkpoint_keeper_core::report::Explanation;

use crate::plan_support::*;

#[test]
fn the_bucket_lets_the_oldest_go_and_the_rest_wait() {
    let policy = keep(|retention| retention.per_container = count(1));
    let case = case(series("a", "shop/web-0/server", 6)).policy(policy).allowance(2);
    let outcome = case.run();
    assert_eq!(outcome.deleted(), ["a1", "a2"]);
    assert_eq!(outcome.plan.metered_deletions(), 2);
    for waiting in ["a3", "a4", "a5"] {
        assert_eq!(outcome.reason(waiting), Reason::DeletionPending);
        assert_eq!(outcome.detail(waiting), Detail::Would(Reason::MaxCountPerContainer));
        assert_eq!(outcome.policy(waiting), "default");
    }
    // The newest was spared by its place, and waits for nothing.
    assert_ne!(outcome.reason("a6"), Reason::DeletionPending);
    assert_eq!(case.clone().allowance(0).deleted(), [""; 0]);
    assert_eq!(case.allowance(99).run().plan.metered_deletions(), 5);
}

#[test]
fn an_explanation_of_what_waits_names_the_rule_that_takes_it() {
    let policy = keep(|retention| retention.per_container = count(1));
    let case = case(series("a", "shop/web-0/server", 6)).policy(policy).allowance(2);
    let explained = |place: usize| {
        let explanation =
            explain(&case.snapshot, &case.policies, &Confidence::Current, case.now, place).unwrap();
        Explanation::new(&case.snapshot, &explanation, case.now).unwrap().to_string()
    };
    let (waiting, newest) = (explained(2), explained(5));
    let by = "by ClusterCheckpointPolicy/default.\nIt goes as soon as the deletion limit allows.\n";
    assert!(waiting.contains(&format!("\nIt waits to be deleted: MaxCountPerContainer, {by}")), "{waiting}");
    assert!(newest.contains("\nIt stays: "), "{newest}");
}

#[test]
fn what_the_system_refuses_to_delete_does_not_keep_the_rest_waiting() {
    let policy = keep(|retention| retention.per_container = count(1));
    let mut case = case(series("a", "shop/web-0/server", 6)).policy(policy).allowance(2);
    for archive in &mut case.snapshot.archives[..2] {
        archive.undeletable = true;
    }
    assert_eq!(case.deleted(), ["a3", "a4"]);
    // With what is left for them, they are tried again.
    assert_eq!(case.allowance(4).deleted(), ["a1", "a3", "a4", "a5"]);
}

#[test]
fn the_bucket_meters_every_rule_of_a_policy_over_all_namespaces_by_age() {
    let archives = [series("a", "shop/web-0/server", 3), series("b", "bank/web-0/server", 4)].concat();
    let ceiling = with(storage("ceiling"), |policy| policy.per_namespace.limit = count(1));
    let node = with(storage("node"), |policy| policy.max_total_size = Some(Size::Bytes(1)));
    let case = case(archives).storage(ceiling).storage(node);
    assert_eq!(case.deleted(), ["a1", "a2", "b1", "b2", "b3"]);
    // Each namespace in its turn, and first the one that wants least.
    assert_eq!(case.clone().allowance(1).deleted(), ["a1"]);
    assert_eq!(case.clone().allowance(2).deleted(), ["a1", "b1"]);
    assert_eq!(case.clone().allowance(4).deleted(), ["a1", "a2", "b1", "b2"]);
    let outcome = case.allowance(0).run();
    assert_eq!(outcome.reason("a1"), Reason::DeletionPending);
    assert_eq!(
        (outcome.detail("a1"), outcome.policy("a1")),
        (Detail::Would(Reason::NamespaceCeiling), "ceiling".into())
    );
    let node = with(storage("node"), |policy| policy.max_total_size = Some(Size::Bytes(1)));
    let outcome = self::case(series("a", "shop/web-0/server", 3)).storage(node).allowance(0).run();
    assert_eq!(
        (outcome.detail("a2"), outcome.policy("a2")),
        (Detail::Would(Reason::StorageWatermark), "node".into())
    );
}

/// What one tenant has queued does not delay another's rotation.
#[test]
fn a_backlog_of_one_namespace_keeps_no_other_waiting() {
    let one = keep(|retention| retention.per_container = count(1));
    let archives = [series("a", "bank/web-0/server", 40), series("b", "shop/web-0/server", 2)].concat();
    let mut case = case(archives).policy(one).allowance(1);
    assert_eq!(case.deleted(), ["b1"]);
    // What arrives in a namespace pays for what it displaces there, and for nothing else.
    let arrived = [("shop".to_owned(), 1), ("elsewhere".to_owned(), 9)].into();
    case.snapshot.allowance = Some(Allowance { shared: 0, arrived, watermark: 0 });
    let outcome = case.run();
    assert_eq!(outcome.deleted(), ["b1"]);
    assert_eq!(outcome.plan.draws.iter().filter(|draw| **draw == Draw::Arrival).count(), 1);
    case.snapshot.allowance = Some(Allowance { shared: 2, ..Allowance::default() });
    assert_eq!(case.deleted(), ["a01", "b1"].map(|name| name.replace("a01", "a1")));
}

#[test]
fn discard_and_watermark_are_exempt_and_the_watermark_may_take_what_waits() {
    let mut archives = series("a", "shop/web-0/server", 6);
    archives[5].discarded = true;
    let policy = keep(|retention| retention.per_container = count(1));
    let case = case(archives).policy(policy).allowance(0);
    let outcome = case.run();
    assert_eq!((outcome.deleted(), outcome.plan.metered_deletions()), (vec!["a6".to_owned()], 0));
    let full = case.storage(watermark(50, 10)).disk(disk(100 * MI, 48 * MI)).run();
    assert_eq!(full.deleted(), ["a1", "a2", "a3", "a4", "a6"]);
    assert_eq!(full.reason("a4"), Reason::StorageWatermark);
    assert_eq!(full.plan.metered_deletions(), 0);
}

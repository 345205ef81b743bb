//! What is pinned stays, whatever the rules say.

use std::time::Duration;

use checkpoint_keeper_core::plan::{Absences, Detail, Reason, explain};
use checkpoint_keeper_core::policy::{Confidence, OrphanRule, OrphanWhen, Size};
use checkpoint_keeper_core::report::Explanation;

use crate::plan_support::*;

#[test]
fn no_rule_takes_what_is_pinned() {
    let gone = Absences {
        pod: absent(DAY * 9, Duration::ZERO),
        workload: absent(DAY * 9, Duration::ZERO),
        namespace: absent(DAY * 9, Duration::ZERO),
    };
    let everything = with(
        keep(|retention| {
            retention.keep_latest = 0;
            retention.max_age = Some(MINUTE);
            retention.max_archive_size = Some(1);
            retention.per_container = count(1);
            retention.per_pod = total(1);
        }),
        |policy| {
            policy.orphans = Some(OrphanRule { when: OrphanWhen::PodDeleted, grace: MINUTE });
            policy.incomplete_grace = Some(MINUTE);
        },
    );
    let limits = with(watermark(1, 1), |policy| {
        policy.per_namespace.limit = count(1);
        policy.per_namespace.max_age = Some(MINUTE);
        policy.max_total_size = Some(Size::Bytes(1));
    });
    let old = |short: &str| archive(short).aged(DAY * 9).gone(gone).idle(DAY * 9).discarded().pinned();
    let archives = [
        old("whole"),
        old("cut").incomplete(),
        old("unknown").unknown(),
        old("bad").unreadable(),
        old("wet").unsettled(),
    ];
    let case = case(archives).policy(everything).storage(limits).disk(disk(GI, 0));
    let outcome = case.run();
    assert_eq!(outcome.deleted(), [""; 0]);
    assert!(outcome.verdicts.values().all(|verdict| verdict.reason == Reason::Pinned));
    // The same without pins goes, all that is not protected otherwise.
    let mut bare = case;
    bare.snapshot.archives.iter_mut().for_each(|archive| archive.pinned = false);
    assert_eq!(bare.deleted(), ["bad", "cut", "unknown", "whole"]);
}

#[test]
fn pinned_archives_count_but_are_never_chosen() {
    let mut archives = series("a", "shop/web-0/server", 5);
    archives[0].pinned = true;
    archives[1].pinned = true;
    let by_count = case(archives.clone()).policy(keep(|retention| retention.per_container = count(3)));
    assert_eq!(by_count.deleted(), ["a3", "a4"]);
    let by_size = case(archives.clone()).policy(keep(|retention| retention.per_pod = total(4 * MI)));
    assert_eq!(by_size.deleted(), ["a3"]);
    let ceiling = with(storage("ceiling"), |policy| policy.per_namespace.limit = count(4));
    assert_eq!(case(archives.clone()).storage(ceiling).deleted(), ["a3"]);
    let node = with(storage("node"), |policy| policy.max_total_size = Some(Size::Bytes(4 * MI)));
    assert_eq!(case(archives).storage(node).deleted(), ["a3"]);
}

#[test]
fn an_explanation_says_that_nothing_takes_what_is_pinned_and_how_many_others_a_limit_takes() {
    let mut archives = series("a", "shop/web-0/server", 6);
    archives[0].pinned = true;
    let case = case(archives).policy(keep(|retention| retention.per_container = count(3)));
    assert_eq!(case.deleted(), ["a2", "a3", "a4"]);
    let explained = |place: usize| {
        let explanation =
            explain(&case.snapshot, &case.policies, &Confidence::Current, case.now, place).unwrap();
        let explanation = Explanation::new(&case.snapshot, &explanation, case.now).unwrap();
        let rule = explanation.rules.iter().find(|rule| rule.rule == "MaxCountPerContainer").unwrap();
        (explanation.next_text.clone(), rule.detail.clone())
    };
    let pinned = "While it is pinned, no rule takes it.";
    let count = "6 archives, limit 3, so 3 of them go";
    assert_eq!(explained(0), (pinned.to_owned(), format!("{count}; this one is number 6, the newest first")));
    let of_taken = explained(1);
    assert_eq!(
        of_taken,
        ("It is to go now.".to_owned(), format!("{count}; this one is number 5, the newest first"))
    );
    let (next, last) = explained(5);
    assert_eq!(
        (next.contains("limits, tiers and a full disk may"), last),
        (true, format!("{count}; this one is the newest"))
    );
}

/// Each limit is exceeded by what is pinned; one of them by more than that, as the newest stays besides.
#[test]
fn a_limit_that_pins_make_unreachable_is_told_with_the_figures_and_the_pins() {
    let mut archives = series("a", "shop/web-0/server", 4);
    (0..3).for_each(|place| archives[place].pinned = true);
    let told = |case: Case| {
        let plan = case.run().plan;
        let told = plan.unreachable.iter().map(|limit| {
            let (policy, reason, detail) = (&limit.policy.name, limit.limit, limit.detail);
            (format!("{policy} {reason}: {detail}"), limit.pinned.clone())
        });
        told.collect::<Vec<_>>()
    };
    let pinned = vec![0, 1, 2];
    let case = || case(archives.clone());
    let count_of = |most| keep(|retention| retention.per_container = count(most));
    assert_eq!(
        told(case().policy(count_of(1))),
        [("default MaxCountPerContainer: 4 archives, limit 1".to_owned(), pinned.clone())]
    );
    assert_eq!(told(case().policy(count_of(3))).len(), 1, "the newest stays besides");
    assert_eq!(told(case().policy(count_of(4))), []);
    let size = keep(|retention| (retention.keep_latest, retention.per_pod) = (0, total(2 * MI)));
    assert_eq!(
        told(case().policy(size)),
        [("default MaxTotalSizePerPod: 3Mi together, limit 2Mi".to_owned(), pinned.clone())]
    );
    let ceiling = with(storage("ceiling"), |policy| policy.per_namespace.limit = count(2));
    assert_eq!(
        told(case().storage(ceiling)),
        [("ceiling NamespaceCeiling: 4 archives, limit 2".to_owned(), pinned.clone())]
    );
    let node = with(storage("node"), |policy| policy.max_total_size = Some(Size::Bytes(2 * MI)));
    assert_eq!(
        told(case().storage(node)),
        [("node StorageWatermark: 4Mi together, limit 2Mi".to_owned(), pinned.clone())]
    );
}

#[test]
fn pinned_files_that_never_count_do_not_count_for_being_pinned() {
    let mut archives = series("a", "shop/web-0/server", 2);
    archives.extend([
        archive("x").named("backup.tar").pinned(),
        archive("y").unsettled().pinned(),
        archive("cut").incomplete().quiet_for(MINUTE).pinned(),
    ]);
    let strict = keep(|retention| retention.per_container = count(2));
    assert_eq!(case(archives.clone()).policy(strict).deleted(), [""; 0]);
    archives.extend([archive("z").unknown().pinned(), archive("bad").unreadable().aged(DAY).pinned()]);
    let node = with(storage("node"), |policy| policy.max_total_size = Some(Size::Bytes(2 * MI)));
    assert_eq!(case(archives).storage(node).deleted(), [""; 0]);
}

#[test]
fn a_limit_that_pins_make_unreachable_is_told_and_no_other() {
    let unreachable = |pins: usize, of: u32, keep_latest: u32, most: u64| {
        let mut archives = series("a", "shop/web-0/server", of);
        archives[..pins].iter_mut().for_each(|archive| archive.pinned = true);
        // Told by their places in the snapshot, whatever their order.
        archives.reverse();
        let policy = keep(|retention| {
            (retention.keep_latest, retention.per_container) = (keep_latest, count(most));
        });
        let limits = case(archives).policy(policy).run().plan.unreachable;
        let told = limits.into_iter().map(|limit| {
            assert_eq!((limit.policy.name.as_str(), limit.limit), ("default", Reason::MaxCountPerContainer));
            let Detail::Count { have, limit: most } = limit.detail else { panic!("{:?}", limit.detail) };
            (have - most, limit.pinned)
        });
        told.collect::<Vec<_>>()
    };
    assert_eq!(unreachable(4, 6, 1, 2), [(3, vec![5, 4, 3, 2])]);
    assert_eq!(unreachable(1, 3, 2, 2), [(1, vec![2])], "without the pin it would be reached");
    assert_eq!(unreachable(1, 4, 3, 1), [], "the newest alone are too many");
    assert_eq!(unreachable(0, 4, 3, 1), []);
    assert_eq!(unreachable(2, 6, 1, 3), [], "it is reached");
}

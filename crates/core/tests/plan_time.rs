//! Times that are wrong: what cannot be dated, what is dated ahead of a clock that is not trusted, and every rule
//! that orders archives by time. The newest honest one stays, whatever a wrong clock wrote.
#![allow(clippy::unwrap_used)]

mod plan_support;

use checkpoint_keeper_core::plan::{Archive, Clock, Dated, Detail, Reason};
use checkpoint_keeper_core::policy::{Retention, Size, Tiers};
use plan_support::*;

/// A rule that orders archives by time, alone in a case, as strict as it can be.
type Rule = (&'static str, fn(Case) -> Case);

const RULES: [Rule; 8] = [
    ("count", |case| case.policy(keep(|retention| retention.per_container = count(1)))),
    ("count of the namespace", |case| case.policy(keep(|retention| retention.per_namespace = count(1)))),
    ("total size", |case| case.policy(keep(|retention| retention.per_pod = total(1_024)))),
    ("tiers", |case| {
        case.policy(keep(|retention| retention.tiers = Some(Tiers { yearly: 1, ..Tiers::default() })))
    }),
    ("age", |case| case.policy(keep(|retention| retention.max_age = Some(MINUTE)))),
    ("ceiling", |case| case.storage(with(storage("s"), |policy| policy.per_namespace.limit = count(1)))),
    ("total of the node", |case| {
        case.storage(with(storage("s"), |policy| policy.max_total_size = Some(Size::Bytes(1))))
    }),
    ("watermark", |case| case.storage(watermark(50, 0)).disk(disk(100 * MI, 0))),
];

fn dated(archive: Archive, dated: Dated) -> Archive {
    Archive { dated, ..archive }
}

/// Three honest archives, hours old, the newest `h3`; and three whose time is not certain, all newer by it.
fn honest_and(uncertain: Dated) -> Vec<Archive> {
    let mut archives = series("h", "shop/web-0/server", 3);
    archives.extend((1..=3).map(|number| dated(archive(&format!("x{number}")), uncertain)));
    archives
}

#[test]
fn what_cannot_be_dated_never_pushes_out_the_newest_honest_one() {
    for (rule, with_rule) in RULES {
        let outcome = with_rule(case(honest_and(Dated::Undated))).run();
        assert!(outcome.kept().contains(&"h3".to_owned()), "{rule}: {:?}", outcome.verdicts);
        assert!(
            outcome.deleted().iter().any(|gone| gone.starts_with('h')),
            "{rule} does take the older ones"
        );
    }
}

#[test]
fn what_cannot_be_dated_neither_counts_for_policies_nor_goes_by_them_and_says_so() {
    let archives = honest_and(Dated::Undated);
    let three = case(archives.clone()).policy(keep(|retention| retention.per_container = count(3)));
    assert_eq!(three.deleted(), [""; 0]);
    assert_eq!(three.reason("x1"), Reason::Undated);
    assert_eq!(three.run().detail("x1"), Detail::Claims(now()));
    let two = case(archives).policy(keep(|retention| retention.per_container = count(2)));
    assert_eq!(two.deleted(), ["h1"]);
}

#[test]
fn what_cannot_be_dated_goes_by_age_from_its_first_sight_and_by_ceilings_in_that_order() {
    let archives = || {
        let mut archives = series("h", "shop/web-0/server", 2);
        archives.push(dated(archive("old").aged(DAY * 9), Dated::Undated));
        archives.push(dated(archive("new"), Dated::Undated));
        archives
    };
    let aged = case(archives()).policy(keep(|retention| retention.max_age = Some(DAY * 7)));
    assert_eq!(aged.deleted(), ["old"]);
    let ceiling = with(storage("s"), |policy| policy.per_namespace.limit = count(3));
    assert_eq!(case(archives()).storage(ceiling).deleted(), ["old"]);
    let ceiling = with(storage("s"), |policy| policy.per_namespace.max_age = Some(DAY * 7));
    assert_eq!(case(archives()).storage(ceiling).deleted(), ["old"]);
}

/// The clock is behind: what is dated ahead of it may well be honest, and the newest.
#[test]
fn what_is_dated_ahead_of_a_clock_that_is_not_trusted_displaces_nothing_and_is_not_displaced() {
    for (rule, with_rule) in RULES {
        let mut case = with_rule(case(honest_and(Dated::Ahead)));
        case.snapshot.clock = Clock::Suspect;
        let outcome = case.run();
        let kept = outcome.kept();
        // By either reading the newest is there.
        assert!(kept.contains(&"h3".to_owned()), "{rule}: {:?}", outcome.verdicts);
        assert!(kept.contains(&"x3".to_owned()), "{rule}: {:?}", outcome.verdicts);
        if rule != "watermark" {
            let ahead = kept.iter().filter(|kept| kept.starts_with('x')).count();
            assert_eq!(ahead, 3, "{rule}: {:?}", outcome.verdicts);
            if !case.policies.retention.is_empty() {
                assert_eq!(outcome.detail("x1"), Detail::AheadOfClock, "{rule}");
            }
        }
    }
}

#[test]
fn the_watermark_takes_what_is_dated_ahead_of_a_wrong_clock_last() {
    let mut case = case(honest_and(Dated::Ahead)).storage(watermark(50, 49));
    case.snapshot.clock = Clock::Suspect;
    for (wanted, gone) in [
        (1, vec!["h1"]),
        (2, vec!["h1", "h2"]),
        (3, vec!["h1", "h2", "x1"]),
        (9, vec!["h1", "h2", "x1", "x2"]),
    ] {
        let full = case.clone().disk(disk(100 * MI, (51 - wanted) * MI));
        let full = with(full, |case| case.policies.storage[0].high_watermark = Some(percent(49)));
        assert_eq!(full.deleted(), gone, "{wanted}");
    }
}

#[test]
fn by_a_clock_that_is_not_trusted_count_rules_go_on_among_what_is_not_ahead_of_it() {
    let archives: Vec<_> = series("h", "shop/web-0/server", 4)
        .into_iter()
        .map(|archive| dated(archive, Dated::Untrusted))
        .collect();
    let two = case(archives).policy(keep(|retention| retention.per_container = count(2))).suspect_clock();
    assert_eq!(two.deleted(), ["h1", "h2"]);
}

#[test]
fn equal_times_order_by_what_they_claim_before_they_order_by_name() {
    let mut archives: Vec<_> = ["c", "b", "a"].map(archive).into();
    for (archive, hours) in archives.iter_mut().zip(1..) {
        archive.claimed = ago(HOUR * (10 - hours));
    }
    let one = case(archives).policy(keep(|retention| retention.per_container = count(1)));
    assert_eq!(one.run().kept(), ["a"]);
}

#[test]
fn a_young_archive_counts_and_is_not_taken_by_count_size_or_tiers() {
    let young = |change: fn(&mut Retention)| {
        case(series("a", "shop/web-0/server", 5)).policy(keep(|retention| {
            retention.min_age = Some(HOUR * 3 + MINUTE);
            change(retention);
        }))
    };
    for case in [
        young(|retention| retention.per_container = count(1)),
        young(|retention| retention.per_namespace = total(1_024)),
        young(|retention| retention.tiers = Some(Tiers { yearly: 1, ..Tiers::default() })),
    ] {
        let outcome = case.run();
        assert!(
            outcome.deleted().iter().all(|gone| ["a1", "a2"].contains(&gone.as_str())),
            "{:?}",
            outcome.verdicts
        );
        assert_eq!(outcome.reason("a4"), Reason::MinAge, "{:?}", outcome.verdicts);
        assert!(!outcome.deleted().is_empty());
        // How old anything is, nobody knows then.
        assert_eq!(case.clone().suspect_clock().deleted(), [""; 0]);
        assert_eq!(case.suspect_clock().reason("a2"), Reason::ClockSuspect);
    }
    let aged = young(|retention| retention.max_age = Some(MINUTE));
    assert_eq!(aged.deleted(), ["a1", "a2", "a3", "a4"], "minAge is no shield from maxAge");
}

#[test]
fn an_uncertain_time_does_not_say_which_namespace_an_archive_is_from() {
    let theirs = with(local("shop", "theirs"), |policy| policy.retention.per_container = count(1));
    for (uncertain, gone) in
        [(Dated::Trusted, 2), (Dated::Untrusted, 0), (Dated::Ahead, 0), (Dated::Undated, 0)]
    {
        let archives =
            series("a", "shop/web-0/server", 3).into_iter().map(|archive| dated(archive, uncertain));
        let mut case = case(archives).policy(theirs.clone()).namespace("shop", &[], Some(ago(DAY)));
        case.snapshot.clock = if uncertain == Dated::Trusted { Clock::Trusted } else { Clock::Suspect };
        let outcome = case.run();
        assert_eq!(outcome.deleted().len(), gone, "{uncertain:?}");
        if gone == 0 {
            assert_eq!(outcome.detail("a1"), Detail::NamespaceUncertain, "{uncertain:?}");
        }
    }
    // A pod that was seen in it settles that.
    let archives = series("a", "shop/web-0/server", 3).into_iter().map(|archive| Archive {
        dated: Dated::Untrusted,
        seen_in: Some(ago(DAY)),
        ..archive
    });
    let case = case(archives).policy(theirs).namespace("shop", &[], Some(ago(DAY))).suspect_clock();
    assert_eq!(case.deleted(), ["a1", "a2"]);
}

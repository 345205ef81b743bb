//! Tiers, against a second writing-down of what restic's `forget` keeps.
//!
//! restic (`internal/restic/snapshot_policy.go`, `ApplyPolicy`) walks from the newest snapshot to the
//! oldest with one bucket a tier, and a tier with counts left keeps a snapshot when its period is not
//! the one last kept, or when it is the oldest of all. The reference here says the same without a walk.
#![allow(clippy::unwrap_used)]

mod plan_support;

use checkpoint_keeper_core::plan::{Archive, Detail, KeptBy, Reason};
use checkpoint_keeper_core::policy::Tiers;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use plan_support::*;
use proptest::prelude::*;

/// The period of a moment, as a text that a calendar would print.
fn period(tier: usize, moment: Timestamp) -> String {
    let local = moment.to_zoned(TimeZone::UTC).datetime();
    let (date, week) = (local.date(), local.date().iso_week_date());
    match tier {
        0 => format!("{date} {}", local.hour()),
        1 => date.to_string(),
        2 => format!("{} week {}", week.year(), week.week()),
        3 => format!("{} {}", date.year(), date.month()),
        _ => date.year().to_string(),
    }
}

/// Which tiers keep each of `newest_first`, by definition: an archive is kept by a tier of `n` if it
/// is the newest of its period and fewer than `n` periods are newer; the oldest also if fewer than
/// `n` periods were kept before it.
fn reference(tiers: Tiers, newest_first: &[Timestamp]) -> Vec<KeptBy> {
    let newest_of_period = |tier: usize, place: usize| {
        let own = period(tier, newest_first[place]);
        newest_first[..place].iter().all(|newer| period(tier, *newer) != own)
    };
    let kept = |tier: usize, wanted: u32, place: usize| {
        let newer = (0..place).filter(|&newer| newest_of_period(tier, newer)).count();
        newer < wanted as usize && (newest_of_period(tier, place) || place + 1 == newest_first.len())
    };
    (0..newest_first.len())
        .map(|place| KeptBy {
            hourly: kept(0, tiers.hourly, place),
            daily: kept(1, tiers.daily, place),
            weekly: kept(2, tiers.weekly, place),
            monthly: kept(3, tiers.monthly, place),
            yearly: kept(4, tiers.yearly, place),
        })
        .collect()
}

/// Archives of one container taken at these times, oldest first, named so that equal times keep
/// the order given.
fn taken_at(times: &[Timestamp]) -> Vec<Archive> {
    let numbered = times.iter().enumerate();
    numbered.map(|(place, time)| Archive { taken: *time, ..archive(&format!("{place:03}")) }).collect()
}

/// The places, oldest first, that the plan keeps of these times.
fn kept(tiers: Tiers, keep_latest: u32, times: &[&str]) -> Vec<usize> {
    let times: Vec<Timestamp> = times.iter().map(|time| time.parse().unwrap()).collect();
    assert!(times.is_sorted());
    let policy = keep(|retention| (retention.keep_latest, retention.tiers) = (keep_latest, Some(tiers)));
    case(taken_at(&times)).policy(policy).run().kept().iter().map(|short| short.parse().unwrap()).collect()
}

const NONE: Tiers = Tiers { hourly: 0, daily: 0, weekly: 0, monthly: 0, yearly: 0 };

#[test]
fn the_newest_of_each_period_stays() {
    let times = [
        "2026-11-19T08:00:00Z",
        "2026-11-20T00:00:00Z",
        "2026-11-20T23:59:59.999999999Z",
        "2026-11-21T00:00:00Z",
        "2026-11-21T10:05:00Z",
        "2026-11-21T10:55:00Z",
        "2026-11-22T09:00:00Z",
    ];
    assert_eq!(kept(Tiers { daily: 1, ..NONE }, 0, &times), [6]);
    assert_eq!(kept(Tiers { daily: 2, ..NONE }, 0, &times), [5, 6]);
    assert_eq!(kept(Tiers { daily: 3, ..NONE }, 0, &times), [2, 5, 6]);
    assert_eq!(kept(Tiers { daily: 4, ..NONE }, 0, &times), [0, 2, 5, 6]);
    assert_eq!(kept(Tiers { hourly: 3, ..NONE }, 0, &times), [3, 5, 6]);
    assert_eq!(kept(Tiers { hourly: 2, daily: 3, ..NONE }, 0, &times), [2, 5, 6]);
}

#[test]
fn the_oldest_stays_too_while_a_tier_has_counts_left() {
    let times =
        ["2026-03-01T00:00:00Z", "2026-03-01T06:00:00Z", "2026-03-01T12:00:00Z", "2026-03-02T00:00:00Z"];
    assert_eq!(kept(Tiers { daily: 2, ..NONE }, 0, &times), [2, 3]);
    assert_eq!(kept(Tiers { daily: 3, ..NONE }, 0, &times), [0, 2, 3]);
    assert_eq!(kept(Tiers { yearly: 2, ..NONE }, 0, &times), [0, 3]);
    assert_eq!(kept(Tiers { yearly: 1, ..NONE }, 0, &times), [3]);
}

#[test]
fn weeks_are_iso_weeks_over_the_turn_of_the_year() {
    // 2026-12-28 is a Monday; its week 53 ends on Sunday, 2027-01-03.
    let times = [
        "2026-12-21T00:00:00Z",
        "2026-12-27T23:59:59Z",
        "2026-12-28T00:00:00Z",
        "2026-12-31T12:00:00Z",
        "2027-01-03T23:59:59Z",
        "2027-01-04T00:00:00Z",
    ];
    assert_eq!(kept(Tiers { weekly: 2, ..NONE }, 0, &times), [4, 5]);
    assert_eq!(kept(Tiers { weekly: 3, ..NONE }, 0, &times), [1, 4, 5]);
    assert_eq!(kept(Tiers { weekly: 4, ..NONE }, 0, &times), [0, 1, 4, 5]);
    assert_eq!(kept(Tiers { yearly: 2, ..NONE }, 0, &times), [3, 5]);
    assert_eq!(kept(Tiers { monthly: 2, weekly: 2, ..NONE }, 0, &times), [3, 4, 5]);
    // The same month or hour of another year is another one.
    assert_eq!(
        kept(
            Tiers { monthly: 2, ..NONE },
            0,
            &["2025-01-04T00:00:00Z", "2026-01-04T00:00:00Z", "2027-01-04T00:00:00Z"]
        ),
        [1, 2]
    );
}

#[test]
fn times_before_1970_have_periods_too() {
    let times = [
        "1969-12-28T23:59:59Z",
        "1969-12-29T00:00:00Z",
        "1969-12-31T22:59:59Z",
        "1969-12-31T23:00:00Z",
        "1969-12-31T23:59:59.5Z",
        "1970-01-01T00:00:00Z",
        "1970-01-04T23:59:59Z",
    ];
    assert_eq!(kept(Tiers { hourly: 4, ..NONE }, 0, &times), [2, 4, 5, 6]);
    assert_eq!(kept(Tiers { daily: 3, ..NONE }, 0, &times), [4, 5, 6]);
    assert_eq!(kept(Tiers { weekly: 1, ..NONE }, 0, &times), [6]);
    assert_eq!(kept(Tiers { weekly: 2, ..NONE }, 0, &times), [0, 6]);
    assert_eq!(kept(Tiers { monthly: 2, ..NONE }, 0, &times), [4, 6]);
}

#[test]
fn keep_latest_is_keep_last() {
    let times =
        ["2026-11-22T01:00:00Z", "2026-11-22T02:00:00Z", "2026-11-22T03:00:00Z", "2026-11-22T04:00:00Z"];
    assert_eq!(kept(Tiers { daily: 1, ..NONE }, 3, &times), [1, 2, 3]);
    assert_eq!(kept(Tiers { daily: 1, ..NONE }, 1, &times), [3]);
    assert_eq!(kept(Tiers { daily: 2, ..NONE }, 2, &times), [0, 2, 3]);
}

#[test]
fn of_the_same_second_the_last_by_name_is_the_newest() {
    let times = ["2026-11-22T01:00:00Z"; 4];
    assert_eq!(kept(Tiers { hourly: 1, ..NONE }, 0, &times), [3]);
    assert_eq!(kept(Tiers { hourly: 2, ..NONE }, 0, &times), [0, 3]);
    assert_eq!(kept(Tiers { hourly: 9, ..NONE }, 0, &times[..1]), [0]);
}

#[test]
fn tiers_apply_per_lineage_and_only_to_complete_archives() {
    let policy =
        keep(|retention| (retention.keep_latest, retention.tiers) = (0, Some(Tiers { daily: 1, ..NONE })));
    let of = |short: &str, path: &str, hours: u32| archive(short).of(path).aged(HOUR * hours);
    let archives = [
        of("a1", "shop/web-0/server", 4),
        of("a2", "shop/web-1/server", 3),
        of("b1", "shop/db-0/server", 4),
        of("b2", "shop/db-1/server", 3),
        of("c1", "shop/web-0/server", 2).incomplete(),
        of("c2", "shop/web-0/server", 1).unsettled(),
    ];
    let mut case = case(archives).policy(policy);
    for archive in &mut case.snapshot.archives {
        let pod = archive.identity.as_ref().unwrap().pod.clone();
        let kind = if pod.starts_with("db") { "StatefulSet" } else { "Deployment" };
        *archive = archive.clone().owned_by(kind, &pod[..2]);
    }
    let outcome = case.run();
    assert_eq!(outcome.deleted(), ["a1"]);
    assert_eq!(outcome.reason("a1"), Reason::Tiers);
    assert_eq!(outcome.detail("a2"), Detail::KeptBy(KeptBy { daily: true, ..KeptBy::default() }));
    assert_eq!((outcome.reason("b1"), outcome.reason("b2")), (Reason::TierKept, Reason::TierKept));
    assert_eq!(outcome.reason("c2"), Reason::Settling);
}

#[test]
fn a_pinned_archive_can_be_the_one_of_its_period() {
    let policy =
        keep(|retention| (retention.keep_latest, retention.tiers) = (0, Some(Tiers { daily: 1, ..NONE })));
    let archives = [archive("a").aged(HOUR * 2), archive("b").aged(HOUR).pinned()];
    assert_eq!(case(archives).policy(policy).deleted(), ["a"]);
}

#[test]
fn the_figures_say_which_tiers_keep_it() {
    let policy = keep(|retention| {
        retention.tiers = Some(Tiers { hourly: 1, daily: 1, weekly: 1, monthly: 1, yearly: 1 });
    });
    let outcome = case([archive("a")]).policy(policy).run();
    assert_eq!(outcome.reason("a"), Reason::TierKept);
    assert_eq!(outcome.detail("a").to_string(), "hourly, daily, weekly, monthly, yearly");
}

/// Moments close to where periods begin and end: some seconds, hours, days or months from a turn.
fn moments() -> impl Strategy<Value = Timestamp> {
    let turns = prop::sample::select(vec![
        "1969-12-29T00:00:00Z",
        "1970-01-01T00:00:00Z",
        "2020-02-29T00:00:00Z",
        "2020-12-28T00:00:00Z",
        "2021-01-01T00:00:00Z",
        "2021-01-04T00:00:00Z",
        "2024-12-30T00:00:00Z",
        "2026-03-29T01:00:00Z",
        "2026-10-25T01:00:00Z",
        "2026-11-22T12:00:00Z",
    ]);
    let offset = prop_oneof![
        (-2_i64..=2).prop_map(jiff::ToSpan::seconds),
        (-3_i64..=3).prop_map(|number| (number * 500).milliseconds()),
        (-30_i64..=30).prop_map(|number| (number * 1_800).seconds()),
        (-12_i64..=12).prop_map(|number| (number * 43_200).seconds()),
        (-12_i64..=12).prop_map(|number| (number * 15 * 86_400).seconds()),
    ];
    (turns, offset).prop_map(|(turn, offset)| {
        let turn: Timestamp = turn.parse().unwrap();
        turn.checked_add(offset).unwrap()
    })
}

fn tiers() -> impl Strategy<Value = Tiers> {
    let number = || prop_oneof![2 => Just(0_u32), 4 => 1_u32..5, 1 => 5_u32..40, 1 => Just(u32::MAX)];
    (number(), number(), number(), number(), number())
        .prop_map(|(hourly, daily, weekly, monthly, yearly)| Tiers { hourly, daily, weekly, monthly, yearly })
}

proptest! {
    #![proptest_config(tries(150))]

    #[test]
    fn tiers_keep_what_restic_keeps(
        mut times in prop::collection::vec(moments(), 0..40),
        tiers in tiers(),
        keep_latest in 0_u32..4,
    ) {
        prop_assume!(tiers != NONE);
        times.sort();
        let policy = keep(|retention| (retention.keep_latest, retention.tiers) = (keep_latest, Some(tiers)));
        let outcome = case(taken_at(&times)).policy(policy).run();
        times.reverse();
        for (place, kept) in reference(tiers, &times).into_iter().enumerate() {
            let verdict = outcome.verdict(&format!("{:03}", times.len() - 1 - place));
            let wanted = if kept.any() {
                (Reason::TierKept, Detail::KeptBy(kept))
            } else if place < keep_latest as usize {
                (Reason::KeepLatest, Detail::Would(Reason::Tiers))
            } else {
                (Reason::Tiers, Detail::None)
            };
            prop_assert_eq!((verdict.reason, verdict.detail), wanted, "{} of {:?}", place, times);
        }
    }
}

//! What becomes of archives that schedules had made, and of what a failed dump left.
#![allow(clippy::unwrap_used)]

mod plan_support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_core::archive::State;
use checkpoint_keeper_core::creation::{Creation, CreationRequest};
use checkpoint_keeper_core::plan::{Archive, Dated, Detail, Reason};
use checkpoint_keeper_core::policy::{Kind, Mode, Policy, Precedence, ScheduleRetention};
use plan_support::*;
use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

const PATHS: [&str; 3] = ["shop/web-0/server", "shop/web-0/proxy", "shop/web-1/server"];

/// An archive that a dump for these schedules made.
fn made_by(archive: Archive, uids: &[&str]) -> Archive {
    created(archive, uids, false)
}

fn created(archive: Archive, uids: &[&str], is_failed: bool) -> Archive {
    let request = |uid: &&str| CreationRequest {
        api_version: "checkpoint-keeper.io/v1alpha1".to_owned(),
        namespace: "shop".to_owned(),
        name: format!("schedule-{uid}"),
        uid: (*uid).to_owned(),
        trigger: "Interval".to_owned(),
        due: now(),
    };
    let requests = uids.iter().map(request).collect();
    Archive { creation: Some(Arc::new(Creation { requests, is_failed })), ..archive }
}

fn schedule(uid: &str, keep_latest: u32, max_age: Option<Duration>) -> ScheduleRetention {
    let id = reference(Kind::CheckpointSchedule, Some("shop"), &format!("schedule-{uid}"));
    ScheduleRetention { id, uid: uid.to_owned(), keep_latest, max_age }
}

fn scheduled(archives: impl IntoIterator<Item = Archive>, schedules: Vec<ScheduleRetention>) -> Case {
    let mut case = case(archives);
    case.policies.schedules = schedules;
    case
}

fn hourly(prefix: &str, path: &str, count: u32) -> Vec<Archive> {
    series(prefix, path, count).into_iter().map(|archive| made_by(archive, &["a"])).collect()
}

#[test]
fn a_schedule_keeps_the_newest_of_each_container_that_it_had_made_and_no_other_archive_counts() {
    let mut archives = hourly("s", PATHS[0], 4);
    archives.extend(hourly("p", PATHS[1], 2));
    archives.extend(series("other", PATHS[0], 5));
    archives.push(made_by(archive("another").of(PATHS[0]).aged(HOUR * 90), &["b"]));
    let outcome = scheduled(archives, vec![schedule("a", 2, None)]).run();
    assert_eq!(outcome.deleted(), ["s1", "s2"]);
    assert_eq!(outcome.reason("s1"), Reason::ScheduleRetention);
    assert_eq!(outcome.detail("s1"), Detail::Count { have: 4, limit: 2 });
    assert_eq!(outcome.policy("s1"), "schedule-a");
}

#[test]
fn what_is_young_stays_beside_the_newest() {
    let archives = hourly("s", PATHS[0], 6);
    let outcome = scheduled(archives, vec![schedule("a", 1, Some(HOUR * 3))]).run();
    // The newest is an hour old. Three hours old is not younger than that any more.
    assert_eq!(outcome.deleted(), ["s1", "s2", "s3", "s4"]);
    assert_eq!(outcome.detail("s1"), Detail::Age { age: HOUR * 6, limit: HOUR * 3 });
    // The newest stays however old it is.
    let old: Vec<_> = hourly("s", PATHS[0], 2).into_iter().map(|archive| archive.aged(DAY * 9)).collect();
    assert_eq!(scheduled(old, vec![schedule("a", 1, Some(HOUR))]).deleted().len(), 1);
}

#[test]
fn an_archive_that_is_not_complete_replaces_none() {
    for state in [State::Incomplete, State::NoImages, State::Damaged, State::Unreadable] {
        let mut archives = hourly("s", PATHS[0], 2);
        archives.push(Archive { state, ..made_by(archive("new").of(PATHS[0]), &["a"]) });
        assert_eq!(
            scheduled(archives, vec![schedule("a", 2, None)]).deleted(),
            Vec::<String>::new(),
            "{state:?}"
        );
    }
    for dated in [Dated::Ahead, Dated::Undated] {
        let mut archives = hourly("s", PATHS[0], 2);
        archives.push(Archive { dated, ..made_by(archive("new").of(PATHS[0]), &["a"]) });
        assert_eq!(
            scheduled(archives, vec![schedule("a", 2, None)]).deleted(),
            Vec::<String>::new(),
            "{dated:?}"
        );
    }
}

#[test]
fn what_several_schedules_had_made_goes_when_all_of_them_let_it_go() {
    let archives = || {
        series("s", PATHS[0], 4).into_iter().map(|archive| made_by(archive, &["a", "b"])).collect::<Vec<_>>()
    };
    let both = |a, b| scheduled(archives(), vec![schedule("a", a, None), schedule("b", b, None)]).deleted();
    assert_eq!(both(1, 3), ["s1"]);
    assert_eq!(both(3, 1), ["s1"]);
    // The second keeps all, was deleted, or is not known.
    assert_eq!(scheduled(archives(), vec![schedule("a", 1, None)]).deleted(), Vec::<String>::new());
}

#[test]
fn the_floor_and_the_minimum_age_of_the_governing_policy_hold() {
    let archives = || hourly("s", PATHS[0], 4);
    let with_policy = |change: &dyn Fn(&mut checkpoint_keeper_core::policy::Retention)| {
        scheduled(archives(), vec![schedule("a", 1, None)]).policy(keep(change)).run()
    };
    let outcome = with_policy(&|retention| retention.keep_latest = 3);
    assert_eq!(outcome.deleted(), ["s1"]);
    assert_eq!(outcome.reason("s2"), Reason::KeepLatest);
    let outcome = with_policy(&|retention| {
        (retention.keep_latest, retention.min_age) = (1, Some(HOUR * 4));
    });
    assert_eq!(outcome.deleted(), ["s1"]);
    assert_eq!(outcome.reason("s2"), Reason::MinAge);
}

#[test]
fn a_policy_that_is_not_understood_keeps_all_that_it_could_govern() {
    let case = scheduled(hourly("s", PATHS[0], 4), vec![schedule("a", 1, None)]);
    assert_eq!(case.deleted().len(), 3);
    let outcome = case.clone().broken(Some("shop")).run();
    assert_eq!(outcome.deleted(), Vec::<String>::new());
    assert_eq!(outcome.reason("s1"), Reason::PolicyInvalid);
    let mut over_all = case.broken(None);
    over_all.policies.invalid[0].precedence = Precedence::Override;
    assert_eq!(over_all.deleted(), Vec::<String>::new());
}

/// A policy that goes before those of namespaces, and has no rule.
fn evidence() -> Policy {
    with(cluster("evidence"), |policy| policy.precedence = Precedence::Override)
}

#[test]
fn a_policy_that_goes_before_those_of_namespaces_goes_before_their_schedules() {
    let outcome = scheduled(hourly("s", PATHS[0], 4), vec![schedule("a", 1, None)]).policy(evidence()).run();
    assert_eq!(outcome.deleted(), Vec::<String>::new());
    // What it takes itself, it takes.
    let mut one = evidence();
    one.retention.per_container = count(2);
    let outcome = scheduled(hourly("s", PATHS[0], 4), vec![schedule("a", 1, None)]).policy(one).run();
    assert_eq!(outcome.deleted(), ["s1", "s2"]);
    assert_eq!(outcome.reason("s1"), Reason::MaxCountPerContainer);
    // Where it governs other pods only, and where it does not act.
    for change in [
        (|policy: &mut Policy| policy.selector.pods = vec!["web-7".to_owned()]) as fn(&mut Policy),
        |policy| policy.mode = Mode::DryRun,
    ] {
        let mut other = evidence();
        change(&mut other);
        let case = scheduled(hourly("s", PATHS[0], 4), vec![schedule("a", 1, None)]).policy(other);
        assert_eq!(case.deleted().len(), 3);
    }
}

#[test]
fn a_policy_that_goes_before_those_of_namespaces_decides_about_what_a_failed_dump_left() {
    let left = || created(archive("left").of(PATHS[0]).incomplete(), &["a"], true);
    for of_pods in [vec![], vec!["web-0".to_owned()]] {
        let mut policy = evidence();
        policy.selector.pods = of_pods;
        assert_eq!(case([left()]).policy(policy.clone()).deleted(), Vec::<String>::new());
        // Of which container it is is not known, so it may be of that pod.
        assert_eq!(case([left().unknown()]).policy(policy).deleted(), Vec::<String>::new());
    }
    let mut other = evidence();
    other.selector.pods = vec!["web-7".to_owned()];
    assert_eq!(case([left()]).policy(other).reason("left"), Reason::FailedDump);
    for left in [left(), left().unknown()] {
        let mut invalid = case([left]).broken(None);
        assert_eq!(invalid.deleted(), ["left"]);
        invalid.policies.invalid[0].precedence = Precedence::Override;
        assert_eq!(invalid.deleted(), Vec::<String>::new());
    }
}

#[test]
fn pins_and_a_suspect_clock_hold() {
    let pinned = |archive: Archive| if archive.file == file("s1") { archive.pinned() } else { archive };
    let archives = hourly("s", PATHS[0], 3).into_iter().map(pinned);
    assert_eq!(scheduled(archives, vec![schedule("a", 1, None)]).deleted(), ["s2"]);
    let case = scheduled(hourly("s", PATHS[0], 3), vec![schedule("a", 1, Some(HOUR))]).suspect_clock();
    assert_eq!(case.deleted(), Vec::<String>::new());
    assert_eq!(case.reason("s1"), Reason::ClockSuspect);
}

#[test]
fn what_a_failed_dump_left_goes_at_once_whatever_policies_there_are() {
    let left = || created(archive("left").of(PATHS[0]).incomplete(), &["a"], true);
    assert_eq!(case([left()]).reason("left"), Reason::FailedDump);
    assert_eq!(case([left().unknown()]).reason("left"), Reason::FailedDump);
    assert_eq!(case([left().pinned()]).reason("left"), Reason::Pinned);
    assert_eq!(case([left().unsettled()]).reason("left"), Reason::Settling);
    // Something whole is there by that name now.
    let whole = Archive { state: State::Complete, ..left() };
    assert_eq!(case([whole]).reason("left"), Reason::NoPolicy);
    // What is incomplete, and of no dump of ours.
    assert_eq!(case([archive("left").incomplete()]).reason("left"), Reason::NoPolicy);
}

/// Which archives go by schedules alone, said once more: all that each of their schedules lets go, but the newest of
/// each lineage (here the container).
fn reference_deleted(archives: &[Archive], schedules: &[ScheduleRetention]) -> BTreeSet<String> {
    let uids = |archive: &Archive| -> BTreeSet<String> {
        archive.creation.iter().flat_map(|creation| &creation.requests).map(|one| one.uid.clone()).collect()
    };
    let newest_first = |wanted: &dyn Fn(&Archive) -> bool, one: &Archive| -> Vec<String> {
        let mut all: Vec<&Archive> =
            archives.iter().filter(|other| other.identity == one.identity && wanted(other)).collect();
        all.sort_by_key(|archive| std::cmp::Reverse((archive.taken, archive.file.clone())));
        all.iter().map(|archive| archive.file.to_string()).collect()
    };
    let is_let_go = |archive: &&Archive| {
        let name = archive.file.to_string();
        let of = uids(archive);
        let is_let_go_by = |uid: &String| {
            let Some(rule) = schedules.iter().find(|schedule| schedule.uid == *uid) else { return false };
            let own = newest_first(&|other| uids(other).contains(uid), archive);
            let place = own.iter().position(|other| *other == name).unwrap();
            place >= rule.keep_latest as usize && rule.max_age.is_none_or(|limit| archive.taken <= ago(limit))
        };
        !of.is_empty() && of.iter().all(is_let_go_by) && newest_first(&|_| true, archive)[0] != name
    };
    archives.iter().filter(is_let_go).map(|archive| archive.file.to_string()).collect()
}

proptest! {
    #![proptest_config(tries(300))]

    /// In any order, and nothing goes in a second round that did not in the first.
    #[test]
    fn schedules_let_go_what_each_of_them_says(
        drawn in vec((0_usize..3, 0_u32..50, btree_set(0_u8..4, 0..3)), 0..30),
        rules in vec((1_u32..5, option::of(0_u32..50)), 0..4),
    ) {
        let uids = ["a", "b", "c", "d"];
        let archives: Vec<Archive> = drawn.iter().enumerate().map(|(number, (path, hours, by))| {
            let by: Vec<&str> = by.iter().map(|uid| uids[usize::from(*uid)]).collect();
            let archive = archive(&format!("{number:02}")).of(PATHS[*path]).aged(HOUR * *hours);
            if by.is_empty() { archive } else { made_by(archive, &by) }
        }).collect();
        let schedules: Vec<_> = rules.iter().enumerate().map(|(number, (keep, age))| {
            schedule(uids[number], *keep, age.map(|hours| HOUR * hours))
        }).collect();
        let case = scheduled(archives.clone(), schedules.clone());
        let names = |short: Vec<String>| short.into_iter().map(|short| format!("checkpoint-{short}.tar")).collect::<BTreeSet<_>>();
        let deleted = names(case.deleted());
        prop_assert_eq!(&deleted, &reference_deleted(&archives, &schedules));
        let mut reversed = case.clone();
        reversed.snapshot.archives.reverse();
        prop_assert_eq!(&names(reversed.deleted()), &deleted);
        let mut after = case;
        after.snapshot.archives.retain(|archive| !deleted.contains(&archive.file.to_string()));
        prop_assert_eq!(after.deleted(), Vec::<String>::new());
    }
}

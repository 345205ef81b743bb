//! Accidents of the operator before this one, as far as the plan decides them (`compat.md` §5), and the
//! behaviours that its own tests hold (§6). Each test is named after its line.
#![allow(clippy::unwrap_used)]

mod plan_support;

use std::time::Duration;

use checkpoint_keeper_core::plan::{Absences, Archive, Reason};
use checkpoint_keeper_core::policy::{
    Kind, Limit, OrphanRule, OrphanWhen, Policy, Retention, Selector, Size,
};
use plan_support::*;

/// A `v1` object's level: exact names where given.
fn older(part: &str, names: [&str; 3], change: impl FnOnce(&mut Retention)) -> Policy {
    let name = |name: &str| if name.is_empty() { vec![] } else { vec![name.to_owned()] };
    with(cluster("v1"), |policy| {
        policy.id.kind = Kind::CheckpointRestoreOperator;
        policy.id.part = Some(part.into());
        policy.selector = Selector {
            namespaces: name(names[0]),
            pods: name(names[1]),
            containers: name(names[2]),
            ..Selector::default()
        };
        change(&mut policy.retention);
    })
}

fn global(change: impl FnOnce(&mut Retention)) -> Policy {
    older("globalPolicy", ["", "", ""], change)
}

const NEVER: Absences = Absences { pod: None, workload: None, namespace: None };

// ---- §5 -------------------------------------------------------------------------------------------

#[test]
fn ten_checkpoints_finishing_together_under_limit_30_leave_exactly_the_newest_30() {
    let policy = global(|retention| {
        retention.per_namespace = count(30);
        retention.per_pod = count(20);
        retention.per_container = count(10);
    });
    let pods = ["web-0", "web-1", "web-2"];
    let mut archives: Vec<Archive> =
        pods.iter().flat_map(|pod| series(pod, &format!("shop/{pod}/server"), 10)).collect();
    // Ten more of one container, all in the same second, seen in any order.
    archives.extend((0..10).map(|number| archive(&format!("new{number}"))));
    for turn in 0..archives.len() {
        archives.rotate_left(1);
        let mut case = case(archives.clone()).policy(policy.clone());
        let outcome = case.run();
        assert_eq!(outcome.kept().len(), 30, "turn {turn}");
        assert!(outcome.deleted().iter().all(|short| short.starts_with("web-0")));
        // Judged again before and after the deletions: not one more.
        assert_eq!(case.run().deleted(), outcome.deleted());
        let kept = outcome.kept();
        case.snapshot.archives.retain(|archive| kept.iter().any(|short| archive.file == file(short)));
        assert_eq!(case.deleted(), [""; 0]);
    }
}

#[test]
fn an_api_error_is_not_pod_gone() {
    let orphans = with(global(|_| {}), |policy| {
        policy.orphans = Some(OrphanRule { when: OrphanWhen::PodDeleted, grace: Duration::ZERO });
    });
    // An error leaves no absence, whatever was asked.
    let archives = [archive("never-asked").aged(DAY), archive("error").aged(DAY).gone(NEVER)];
    assert_eq!(case(archives).policy(orphans).deleted(), [""; 0]);
}

#[test]
fn namespace_team_does_not_match_team_prod_nor_pod_web_0_web_01() {
    let strict = |retention: &mut Retention| (retention.keep_latest, retention.max_age) = (0, Some(HOUR));
    let archives = || {
        [
            "team/web-0/c",
            "team-prod/web-0/c",
            "team-prod/team/c",
            "tea/web-0/c",
            "team/web-01/c",
            "team/web/c",
        ]
        .map(|path| archive(&path.replace('/', "+")).of(path).aged(DAY))
    };
    let by_namespace = case(archives()).policy(older("namespacePolicies[0]", ["team", "", ""], strict));
    assert_eq!(by_namespace.deleted(), ["team+web+c", "team+web-0+c", "team+web-01+c"]);
    let by_pod = case(archives()).policy(older("podPolicies[0]", ["team", "web-0", ""], strict));
    assert_eq!(by_pod.deleted(), ["team+web-0+c"]);
}

#[test]
fn a_b_c_and_a_b_c_share_a_file_name_pattern_but_no_limit() {
    let archives = [series("x", "ns-a/pod/b-c", 2), series("y", "ns-a-b/pod/c", 2)].concat();
    let per_container = case(archives.clone()).policy(global(|retention| retention.per_container = count(2)));
    assert_eq!(per_container.deleted(), [""; 0]);
    let per_pod = case(archives).policy(global(|retention| retention.per_pod = count(1)));
    assert_eq!(per_pod.deleted(), ["x1", "y1"]);
}

#[test]
fn identity_strings_are_never_a_pattern() {
    let strict = |retention: &mut Retention| (retention.keep_latest, retention.max_age) = (0, Some(HOUR));
    let archives = || {
        [
            archive("star").of("*/*/*").aged(DAY),
            archive("class").of("sho?/web-[0]/s*").aged(DAY),
            archive("a").aged(DAY),
        ]
    };
    for names in [["*", "*", "*"], ["sho?", "web-[0]", "s*"], ["shop", "web-0", "server"]] {
        assert_eq!(case(archives()).policy(older("containerPolicies[0]", names, strict)).deleted().len(), 1);
    }
    assert_eq!(
        case(archives()).policy(global(|retention| retention.per_namespace = count(1))).deleted(),
        [""; 0]
    );
}

#[test]
fn no_object_no_deletion() {
    let case = case(series("a", "shop/web-0/server", 50));
    assert_eq!(case.deleted(), [""; 0]);
    assert_eq!(case.reason("a1"), Reason::NoPolicy);
}

#[test]
fn of_several_objects_the_oldest_is_in_force_in_any_order() {
    let strict = with(global(|retention| retention.per_container = count(1)), |policy| {
        policy.created = Some(ago(DAY));
    });
    let lax = with(global(|retention| retention.per_container = count(4)), |policy| {
        policy.id.name = "w2".into();
        policy.created = Some(ago(DAY * 2));
    });
    for pair in [[strict.clone(), lax.clone()], [lax, strict]] {
        let mut case = case(series("a", "shop/web-0/server", 5));
        case.policies.retention = pair.to_vec();
        assert_eq!(case.deleted(), ["a1"]);
    }
}

#[test]
fn count_and_size_limit_together_both_hold() {
    let both = Limit { max_count: Some(4), max_total_size: Some(Size::Bytes(5 * MI)) };
    let mut archives = series("a", "shop/web-0/server", 6);
    archives[4] = archives[4].clone().sized(3 * MI);
    // The count takes a1 and a2; of a3 + a4 + a5 + a6 = 6 MiB, the size takes a3.
    let outcome = case(archives).policy(global(|retention| retention.per_container = both)).run();
    assert_eq!(outcome.deleted(), ["a1", "a2", "a3"]);
    assert_eq!(outcome.reason("a2"), Reason::MaxCountPerContainer);
    assert_eq!(outcome.reason("a3"), Reason::MaxTotalSizePerContainer);
}

#[test]
fn pins_that_fill_the_limit_leave_the_newest() {
    let mut archives = series("a", "shop/web-0/server", 6);
    archives[..4].iter_mut().for_each(|archive| archive.pinned = true);
    for limit in [count(3), total(3 * MI)] {
        let outcome =
            case(archives.clone()).policy(global(|retention| retention.per_container = limit)).run();
        assert_eq!(outcome.deleted(), ["a5"]);
        assert_eq!(outcome.reason("a6"), Reason::KeepLatest);
    }
}

#[test]
fn a_total_size_below_the_newest_archives_size_leaves_the_newest() {
    let mut archives = series("a", "shop/web-0/server", 3);
    archives[2] = archives[2].clone().sized(GI);
    let outcome = case(archives).policy(global(|retention| retention.per_namespace = total(10 * MI))).run();
    assert_eq!(outcome.kept(), ["a3"]);
}

#[test]
fn checkpoint_time_decides_not_mtime() {
    let mut archives = series("a", "shop/web-0/server", 4);
    // `touch` on the oldest, and a restore from backup that left the newest with an old mtime.
    archives[0].changed = now();
    archives[3].changed = ago(DAY * 1_000);
    let counted = case(archives.clone()).policy(global(|retention| retention.per_container = count(2)));
    assert_eq!(counted.deleted(), ["a1", "a2"]);
    let aged = case(archives).policy(global(|retention| retention.max_age = Some(HOUR * 3)));
    assert_eq!(aged.deleted(), ["a1", "a2"]);
}

#[test]
fn an_orphan_at_the_second_of_a_reschedule_has_a_grace_period_and_is_confirmed() {
    let orphans = with(global(|_| {}), |policy| {
        policy.orphans = Some(OrphanRule { when: OrphanWhen::PodDeleted, grace: HOUR });
    });
    let seen = |since, confirmed| Absences { pod: absent(since, confirmed), ..NEVER };
    let archives = [
        archive("just-now").aged(DAY).gone(seen(Duration::ZERO, Duration::ZERO)),
        archive("not-asked-again").of("shop/web-1/c").aged(DAY).gone(seen(DAY, DAY)),
        archive("confirmed").of("shop/web-2/c").aged(DAY).gone(seen(HOUR, Duration::ZERO)),
    ];
    let outcome = case(archives).policy(orphans).run();
    assert_eq!(outcome.deleted(), ["confirmed"]);
    assert_eq!(outcome.reason("just-now"), Reason::OrphanGracePeriod);
}

#[test]
fn truncated_archives_are_counted_and_first_to_go_under_disk_pressure() {
    let mut archives = series("a", "shop/web-0/server", 3);
    archives.push(archive("cut").incomplete().unknown().aged(HOUR));
    let full = case(archives.clone()).storage(watermark(50, 50)).disk(disk(100 * MI, 49 * MI));
    assert_eq!(full.deleted(), ["cut"]);
    let own = with(global(|_| {}), |policy| policy.incomplete_grace = Some(HOUR));
    assert_eq!(case(archives.clone()).policy(own).deleted(), ["cut"]);
    assert_eq!(case(archives).policy(global(|_| {})).reason("cut"), Reason::WithinLimits);
}

// ---- §6 -------------------------------------------------------------------------------------------

fn five(bytes: u64) -> Vec<Archive> {
    series("a", "shop/web-0/server", 5).into_iter().map(|archive| archive.sized(bytes)).collect()
}

fn left(policy: Policy, archives: Vec<Archive>) -> usize {
    case(archives).policy(policy).run().kept().len()
}

#[test]
fn max_checkpoints_2_1_and_0_of_five() {
    for (limit, stay) in [(2, 2), (1, 1), (0, 5), (5, 5), (6, 5)] {
        for level in 0..3 {
            let names = [["shop", "web-0", "server"], ["shop", "web-0", ""], ["shop", "", ""]][level];
            let policy = older("policies[0]", names, |retention| match level {
                0 => retention.per_container = count(limit),
                1 => retention.per_pod = count(limit),
                _ => retention.per_namespace = count(limit),
            });
            assert_eq!(left(policy, five(5 * MI)), stay, "{limit} at level {level}");
        }
    }
}

#[test]
fn five_of_5_mib_with_total_12_mib_leave_two() {
    let levels: [fn(&mut Retention); 3] = [
        |retention| retention.per_container = total(12 * MI),
        |retention| retention.per_pod = total(12 * MI),
        |retention| retention.per_namespace = total(12 * MI),
    ];
    for level in levels {
        assert_eq!(case(five(5 * MI)).policy(global(level)).deleted(), ["a1", "a2", "a3"]);
    }
}

#[test]
fn per_archive_4_mib_leaves_none_of_five_of_5_mib() {
    assert_eq!(left(global(|retention| retention.max_archive_size = Some(4 * MI)), five(5 * MI)), 0);
    assert_eq!(left(global(|retention| retention.max_archive_size = Some(5 * MI)), five(5 * MI)), 5);
}

#[test]
fn retain_orphan_false_with_a_pod_that_never_existed_leaves_none() {
    let orphans = with(global(|_| {}), |policy| {
        policy.orphans = Some(OrphanRule { when: OrphanWhen::PodDeleted, grace: HOUR });
    });
    let gone = Absences { pod: absent(HOUR, Duration::ZERO), ..NEVER };
    let archives: Vec<_> = five(MI).into_iter().map(|archive| archive.gone(gone)).collect();
    assert_eq!(left(orphans, archives.clone()), 0);
    assert_eq!(left(global(|_| {}), archives), 5);
}

#[test]
fn a_marker_added_between_sweeps_counts_at_the_next() {
    let mut case = case(five(MI)).policy(global(|retention| retention.per_container = count(2)));
    assert_eq!(case.deleted(), ["a1", "a2", "a3"]);
    case.snapshot.archives[1].pinned = true;
    assert_eq!(case.deleted(), ["a1", "a3", "a4"]);
}

#[test]
fn pinned_archives_count_toward_totals() {
    let mut archives = five(5 * MI);
    archives[0].pinned = true;
    let case = case(archives).policy(global(|retention| retention.per_container = total(12 * MI)));
    assert_eq!(case.deleted(), ["a2", "a3", "a4"]);
}

#[test]
fn an_excess_larger_than_the_deletable_set_is_no_error() {
    let mut archives = five(GI);
    for archive in &mut archives {
        archive.pinned = true;
    }
    let limits = Limit { max_count: Some(1), max_total_size: Some(Size::Bytes(MI)) };
    assert_eq!(left(global(|retention| retention.per_container = limits), archives), 5);
}

#[test]
fn not_over_deleting_by_count_after_oversized_ones_went() {
    let mut archives = five(MI);
    archives[1] = archives[1].clone().sized(GI);
    archives[4] = archives[4].clone().sized(GI);
    let policy = global(|retention| {
        retention.max_archive_size = Some(2 * MI);
        retention.per_container = count(3);
    });
    assert_eq!(case(archives).policy(policy).deleted(), ["a2", "a5"]);
}

#[test]
fn the_most_specific_level_replaces_the_rest_and_counts_for_itself() {
    let archives = [
        series("a", "shop/web-0/server", 4),
        series("b", "shop/web-0/proxy", 4),
        series("c", "shop/web-1/server", 4),
        series("d", "bank/web-0/server", 4),
    ]
    .concat();
    let outcome = case(archives)
        .policy(global(|retention| retention.per_namespace = count(1)))
        .policy(older("namespacePolicies[0]", ["shop", "", ""], |retention| {
            retention.per_namespace = count(2);
        }))
        .policy(older("podPolicies[0]", ["shop", "web-0", ""], |retention| retention.per_pod = count(3)))
        .policy(older("containerPolicies[0]", ["shop", "web-0", "server"], |_| {}))
        .run();
    assert_eq!(outcome.deleted(), ["b1", "c1", "c2", "d1", "d2", "d3"]);
}

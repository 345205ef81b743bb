//! The newest archives of a lineage stay, and incomplete ones go first.

use std::time::Duration;

use checkpoint_keeper_core::plan::{Absences, Detail, Reason, difference};
use checkpoint_keeper_core::policy::{
    KeepFor, Mode, OrphanRule, OrphanWhen, Policy, Size, StoragePolicy, Tiers,
};

use crate::plan_support::*;

#[test]
fn keep_latest_0_1_and_3() {
    for (keep_latest, deleted) in [(0, 5), (1, 4), (3, 2), (9, 0)] {
        let policy =
            keep(|retention| (retention.keep_latest, retention.max_age) = (keep_latest, Some(MINUTE)));
        let case = case(series("a", "shop/web-0/server", 5)).policy(policy);
        let gone: Vec<String> = (1..=deleted).map(|number| format!("a{number}")).collect();
        assert_eq!(case.deleted(), gone, "keepLatest {keep_latest}");
    }
}

#[test]
fn the_floor_survives_age_tiers_and_the_watermark() {
    let archives = || series("a", "shop/web-0/server", 4);
    let aged = case(archives()).policy(keep(|retention| {
        (retention.keep_latest, retention.max_age) = (2, Some(MINUTE));
    }));
    assert_eq!(aged.deleted(), ["a1", "a2"]);
    assert_eq!(aged.run().detail("a4"), Detail::Would(Reason::MaxAge));
    assert_eq!(aged.reason("a3"), Reason::KeepLatest);

    let tiered = case(archives()).policy(keep(|retention| {
        (retention.keep_latest, retention.tiers) = (3, Some(Tiers { yearly: 1, ..Tiers::default() }));
    }));
    assert_eq!(tiered.deleted(), ["a1"]);
    assert_eq!((tiered.reason("a4"), tiered.reason("a3")), (Reason::TierKept, Reason::KeepLatest));

    let full = case(archives()).policy(keep(|retention| retention.keep_latest = 2));
    let full = full.storage(watermark(50, 10)).disk(disk(10 * MI, 0));
    assert_eq!(full.deleted(), ["a1", "a2", "a3"], "protectLatest is 1, whatever a tenant's keepLatest is");
    assert_eq!((full.reason("a4"), full.run().policy("a4")), (Reason::KeepLatest, "disk".into()));
}

#[test]
fn nobody_buys_immunity_from_a_full_disk() {
    let archives = || series("a", "shop/web-0/server", 6);
    let immune = || {
        with(local("shop", "immune"), |policy| {
            (policy.retention.keep_latest, policy.retention.keep_latest_for) = (10_000, KeepFor::Forever);
        })
    };
    let full = |policy: StoragePolicy| {
        let full = case(archives()).policy(immune()).storage(policy).disk(disk(10 * MI, 0));
        full.run().kept()
    };
    for (protected, kept) in [
        (None, vec!["a6"]),
        (Some(3), vec!["a4", "a5", "a6"]),
        (Some(0), vec![]),
        (Some(9), vec!["a1", "a2", "a3", "a4", "a5", "a6"]),
    ] {
        let protecting = |policy: StoragePolicy| with(policy, |policy| policy.protect_latest = protected);
        assert_eq!(full(protecting(watermark(50, 0))), kept, "watermark, {protected:?}");
        let node = with(storage("node"), |policy| policy.max_total_size = Some(Size::Bytes(1)));
        assert_eq!(full(protecting(node)), kept, "total of the node, {protected:?}");
        let ceiling = with(storage("ceiling"), |policy| policy.per_namespace.limit = total(1));
        assert_eq!(full(protecting(ceiling)), kept, "ceiling, {protected:?}");
    }
    // Of several policies, the one that spares fewest counts.
    let two = case(archives()).disk(disk(10 * MI, 0)).storage(watermark(50, 0));
    let two = two.storage(with(storage("a"), |policy| policy.protect_latest = Some(4)));
    let two = two.storage(with(storage("b"), |policy| policy.protect_latest = Some(2)));
    assert_eq!(two.run().kept(), ["a5", "a6"]);
}

#[test]
fn what_protects_from_a_full_disk_ends_a_week_after_the_last_pod_left() {
    let idle = |days: u32| archive("a").aged(DAY * 30).idle(DAY * days);
    for (days, gone) in [(6, 0), (7, 1)] {
        let forever = with(cluster("p"), |policy| policy.retention.keep_latest_for = KeepFor::Forever);
        let full = case([idle(days)]).policy(forever).storage(watermark(50, 0)).disk(disk(10 * MI, 0));
        assert_eq!(full.deleted().len(), gone, "{days}");
    }
}

#[test]
fn a_storage_policy_in_dry_run_governs_nothing_and_says_what_it_would() {
    let archives = series("a", "shop/web-0/server", 3);
    let dry = with(storage("dry"), |policy| {
        (policy.mode, policy.per_namespace.limit) = (Mode::DryRun, count(1));
    });
    let case = case(archives).storage(dry.clone());
    let outcome = case.run();
    assert_eq!(outcome.deleted(), [""; 0]);
    let would = difference(&case.snapshot, &case.policies, case.now, &outcome.plan, &dry.id);
    assert_eq!((would.would_delete.len(), would.would_keep.len()), (2, 0));
}

#[test]
fn an_incomplete_or_pinned_archive_is_no_newest() {
    let policy = || keep(|retention| retention.max_age = Some(MINUTE));
    let whole = || vec![archive("a").aged(DAY), archive("b").aged(HOUR * 2)];
    for newer in [
        archive("c").aged(HOUR).incomplete(),
        archive("c").aged(HOUR).pinned(),
        archive("c").aged(HOUR).unsettled(),
        archive("c").aged(HOUR).unreadable(),
        archive("c").aged(HOUR).discarded(),
        archive("c").aged(HOUR).named("other.tar"),
    ] {
        let case = case([whole(), vec![newer]].concat()).policy(policy());
        assert_eq!(case.reason("b"), Reason::KeepLatest);
        assert_eq!(case.reason("a"), Reason::MaxAge);
    }
}

#[test]
fn archives_of_a_deployments_pods_stand_in_for_each_other_and_those_of_a_stateful_set_do_not() {
    let policy = || keep(|retention| retention.max_age = Some(MINUTE));
    let pair = |kind: &str| {
        let of =
            |short: &str, pod: &str, hours| archive(short).of(pod).aged(HOUR * hours).owned_by(kind, "web");
        vec![of("a", "shop/web-0/server", 2), of("b", "shop/web-1/server", 1)]
    };
    for kind in ["Deployment", "DaemonSet", "CronJob", "Job", "ReplicaSet", "Rollout"] {
        assert_eq!(case(pair(kind)).policy(policy()).deleted(), ["a"], "{kind}");
    }
    assert_eq!(case(pair("StatefulSet")).policy(policy()).deleted(), [""; 0]);
    let mut unowned = pair("Deployment");
    for archive in &mut unowned {
        archive.workload = None;
    }
    assert_eq!(case(unowned).policy(policy()).deleted(), [""; 0]);
    // Another container, kind, owner or namespace is another lineage.
    let base = || archive("a").of("shop/web-0/server").aged(HOUR * 2).owned_by("Deployment", "web");
    for other in [
        archive("b").of("shop/web-0/proxy").aged(HOUR).owned_by("Deployment", "web"),
        archive("b").of("shop/web-0/server").aged(HOUR).owned_by("DaemonSet", "web"),
        archive("b").of("shop/web-0/server").aged(HOUR).owned_by("Deployment", "api"),
        archive("b").of("bank/web-0/server").aged(HOUR).owned_by("Deployment", "web"),
        archive("b").of("shop/web-0/server").aged(HOUR),
    ] {
        assert_eq!(case([base(), other]).policy(policy()).deleted(), [""; 0]);
    }
}

#[test]
fn a_limit_takes_what_is_no_newest_first_then_those_but_never_its_groups_newest() {
    let archives = || {
        vec![
            archive("a1").of("shop/web-0/server").aged(HOUR * 9),
            archive("b1").of("shop/web-0/proxy").aged(HOUR * 8),
            archive("b2").of("shop/web-0/proxy").aged(HOUR * 7),
            archive("c1").of("shop/web-0/init").aged(HOUR * 6),
            archive("c2").of("shop/web-0/init").aged(HOUR * 5),
        ]
    };
    for (limit, gone) in [
        (5, &[][..]),
        (4, &["b1"]),
        (3, &["b1", "c1"]),
        (2, &["a1", "b1", "c1"]),
        (1, &["a1", "b1", "b2", "c1"]),
    ] {
        for level in [0, 1, 2] {
            let outcome = match level {
                0 => case(archives()).policy(keep(|retention| retention.per_pod = count(limit))),
                1 => case(archives()).policy(keep(|retention| retention.per_namespace = count(limit))),
                _ => case(archives()).policy(keep(|retention| retention.per_pod = total(limit * MI))),
            }
            .run();
            assert_eq!(outcome.deleted(), gone, "limit {limit}, level {level}");
        }
    }
    // The group's own newest stay whatever the limit.
    let tight = keep(|retention| (retention.keep_latest, retention.per_pod) = (2, total(1_024)));
    let outcome = case(archives()).policy(tight).run();
    assert_eq!(outcome.kept(), ["c1", "c2"]);
    assert_eq!(outcome.detail("c2"), Detail::Would(Reason::MaxTotalSizePerPod));
}

#[test]
fn the_floor_ends_keep_latest_for_after_the_last_pod_was_confirmed_gone() {
    let week = |retention: &mut checkpoint_keeper_core::policy::Retention| retention.max_age = Some(HOUR);
    let run = |idle: Option<Duration>, policy: Policy| {
        let mut archives = series("a", "shop/web-0/server", 2);
        for archive in &mut archives {
            archive.idle_since = idle.map(ago);
        }
        case(archives).policy(policy)
    };
    // The newest is an hour old, which is as old as it may be.
    assert_eq!(run(None, keep(week)).deleted(), ["a1"], "no cluster");
    assert_eq!(run(Some((DAY * 7).checked_sub(MINUTE).unwrap()), keep(week)).deleted(), ["a1"], "not yet");
    assert_eq!(run(Some(DAY * 7), keep(week)).deleted(), ["a1", "a2"]);
    assert_eq!(run(Some(DAY * 70), keep(week)).suspect_clock().deleted(), [""; 0]);
    let forever = with(keep(week), |policy| policy.retention.keep_latest_for = KeepFor::Forever);
    assert_eq!(run(Some(DAY * 7_000), forever).deleted(), ["a1"]);
    let short = with(keep(week), |policy| policy.retention.keep_latest_for = KeepFor::For(MINUTE));
    assert_eq!(run(Some(MINUTE * 2), short).deleted(), ["a1", "a2"]);
}

#[test]
fn a_suspect_clock_does_not_end_the_floor_for_the_watermark() {
    let mut archives = series("a", "shop/web-0/server", 2);
    for archive in &mut archives {
        archive.idle_since = Some(ago(DAY * 70));
    }
    let full = case(archives).policy(cluster("p")).storage(watermark(50, 10)).disk(disk(10 * MI, 0));
    assert_eq!(full.deleted(), ["a1", "a2"]);
    assert_eq!(full.suspect_clock().deleted(), ["a1"]);
}

#[test]
fn a_lineage_is_idle_only_when_all_that_is_known_of_it_is() {
    let of = |short: &str, pod: &str, hours: u32| {
        archive(short).of(&format!("shop/{pod}/server")).aged(HOUR * hours).owned_by("Deployment", "web")
    };
    let policy = || keep(|retention| retention.max_age = Some(MINUTE));
    let both = [of("a", "web-0", 2).idle(DAY * 30), of("b", "web-1", 1).idle(DAY * 8)];
    assert_eq!(case(both).policy(policy()).deleted(), ["a", "b"]);
    let later = [of("a", "web-0", 2).idle(DAY), of("b", "web-1", 1).idle(DAY * 30)];
    assert_eq!(case(later).policy(policy()).deleted(), ["a"]);
    let unconfirmed = [of("a", "web-0", 2), of("b", "web-1", 1).idle(DAY * 30)];
    assert_eq!(case(unconfirmed).policy(policy()).deleted(), ["a"]);
}

#[test]
fn only_discard_orphan_archive_size_and_the_ceilings_age_go_below_the_floor() {
    let newest = || archive("a").aged(DAY);
    assert_eq!(case([newest().discarded()]).reason("a"), Reason::Discarded);
    let gone = Absences { pod: absent(HOUR * 2, Duration::ZERO), ..Absences::default() };
    let orphans = with(cluster("p"), |policy| {
        policy.orphans = Some(OrphanRule { when: OrphanWhen::PodDeleted, grace: HOUR });
    });
    assert_eq!(case([newest().gone(gone)]).policy(orphans).reason("a"), Reason::Orphaned);
    let small = keep(|retention| retention.max_archive_size = Some(MI - 1));
    let outcome = case([newest()]).policy(small).run();
    assert_eq!(
        (outcome.reason("a"), outcome.detail("a")),
        (Reason::MaxArchiveSize, Detail::Size { have: MI, limit: MI - 1 })
    );
    assert_eq!(
        case([newest()]).policy(keep(|retention| retention.max_archive_size = Some(MI))).deleted(),
        [""; 0]
    );
    let ceiling = with(storage("ceiling"), |policy| policy.per_namespace.max_age = Some(DAY));
    let outcome = case([newest()]).storage(ceiling).policy(cluster("p")).run();
    assert_eq!((outcome.reason("a"), outcome.policy("a")), (Reason::NamespaceCeiling, "ceiling".into()));
}

#[test]
fn the_watermark_spares_the_newest_of_what_the_limits_left() {
    // perPod takes the newest of (web, server), as that of (web, proxy) in its pod is newer still;
    // then the older one of (web, server) in the other pod is all that is left of its lineage.
    let of = |short: &str, path: &str, hours: u32| {
        archive(short).of(path).aged(HOUR * hours).owned_by("Deployment", "web")
    };
    let archives = [
        of("other", "shop/web-1/server", 3),
        of("server", "shop/web-0/server", 2),
        of("proxy", "shop/web-0/proxy", 1),
    ];
    let case = case(archives).policy(keep(|retention| retention.per_pod = count(1)));
    assert_eq!(case.deleted(), ["server"]);
    let full = case.storage(watermark(50, 10)).disk(disk(10 * MI, 0)).run();
    assert_eq!(full.deleted(), ["server"]);
    assert_eq!(full.reason("other"), Reason::KeepLatest);
}

#[test]
fn a_later_limit_spares_first_what_is_now_a_newest() {
    let of = |short: &str, path: &str, hours: u32| {
        archive(short).of(path).aged(HOUR * hours).owned_by("Deployment", "web")
    };
    let archives = [
        of("other", "shop/web-1/server", 9),
        of("server", "shop/web-0/server", 8),
        of("spare", "shop/web-2/proxy", 7),
        of("proxy", "shop/web-0/proxy", 6),
    ];
    let policy = keep(|retention| (retention.per_pod, retention.per_namespace) = (count(1), count(2)));
    assert_eq!(case(archives).policy(policy).deleted(), ["server", "spare"]);
}

#[test]
fn incomplete_archives_go_first_after_ten_quiet_minutes_and_do_not_count_before() {
    let mut archives = series("a", "shop/web-0/server", 3);
    archives.push(
        archive("cut").incomplete().quiet_for((MINUTE * 10).checked_sub(Duration::from_secs(1)).unwrap()),
    );
    for policy in [
        keep(|retention| retention.per_container = count(3)),
        keep(|retention| retention.per_namespace = total(3 * MI)),
    ] {
        assert_eq!(case(archives.clone()).policy(policy.clone()).deleted(), [""; 0]);
        let mut quiet = archives.clone();
        quiet[3].changed = ago(MINUTE * 10);
        assert_eq!(case(quiet.clone()).policy(policy.clone()).deleted(), ["cut"]);
        // Quiet cannot be told by a clock that is not to be trusted.
        assert_eq!(case(quiet).policy(policy).suspect_clock().deleted(), [""; 0]);
    }
}

#[test]
fn incomplete_archives_go_before_complete_ones_and_by_their_age() {
    let mut archives = series("a", "shop/web-0/server", 3);
    archives
        .extend([archive("x").incomplete().aged(MINUTE * 20), archive("y").incomplete().aged(MINUTE * 15)]);
    for (limit, gone) in [(4, &["x"][..]), (3, &["x", "y"]), (2, &["a1", "x", "y"])] {
        let case = case(archives.clone()).policy(keep(|retention| retention.per_pod = count(limit)));
        assert_eq!(case.deleted(), gone);
    }
    let policy = with(cluster("p"), |policy| policy.incomplete_grace = Some(MINUTE * 18));
    let outcome = case(archives).policy(policy).run();
    assert_eq!(outcome.deleted(), ["x"]);
    assert_eq!(outcome.detail("x"), Detail::Age { age: MINUTE * 20, limit: MINUTE * 18 });
    assert_eq!(outcome.detail("y"), Detail::GraceEnds(ago(Duration::ZERO).checked_add(MINUTE * 3).unwrap()));
}

#[test]
fn tiers_leave_incomplete_archives_to_their_own_rule() {
    let policy = keep(|retention| retention.tiers = Some(Tiers { daily: 3, ..Tiers::default() }));
    let archives = [archive("cut").incomplete().aged(HOUR * 2), archive("a").aged(HOUR)];
    assert_eq!(case(archives.clone()).policy(policy.clone()).deleted(), [""; 0]);
    let policy = with(policy, |policy| policy.incomplete_grace = Some(HOUR));
    assert_eq!(case(archives).policy(policy).reason("cut"), Reason::Incomplete);
}

//! The watermark: what goes when the disk is full.

use std::time::Duration;

use checkpoint_keeper_core::plan::{Absences, Allowance, Detail, Draw, FileSystem, Reason, Release};
use checkpoint_keeper_core::policy::{Limit, Size, StoragePolicy};

use crate::plan_support::*;

#[test]
fn the_watermark_acts_above_the_high_one_and_frees_down_to_the_low_one() {
    let archives = || series("a", "shop/web-0/server", 9);
    let run =
        |available: u64| case(archives()).storage(watermark(88, 85)).disk(disk(100 * MI, available)).run();
    let at = run(12 * MI);
    assert_eq!((at.deleted().len(), at.plan.watermark), (0, None));
    let above = run(12 * MI - 1);
    assert_eq!(above.deleted(), ["a1", "a2", "a3", "a4"]);
    let report = above.plan.watermark.unwrap();
    assert_eq!((report.wanted_bytes, report.freed_bytes, report.used), (3 * MI + 1, 4 * MI, 8_800));
    assert!(report.shortfall().is_none() && !report.waiting && !report.below_reserve);
    // What cannot be done is told: the newest stays.
    let full = run(0);
    let report = full.plan.watermark.unwrap();
    assert_eq!((report.wanted_bytes, report.freed_bytes, report.used), (15 * MI, 8 * MI, 10_000));
    assert_eq!(
        report.shortfall().unwrap().to_string(),
        "7Mi cannot be freed, as what is left is pinned, protected, of unknown containers, or would free nothing"
    );
    assert_eq!(full.kept(), ["a9"]);
}

#[test]
fn without_a_low_watermark_it_is_three_percent_below_and_never_above_the_high_one() {
    let archives = || series("a", "shop/web-0/server", 9);
    let run = |low: Option<u32>| {
        let policy = with(watermark(88, 85), |policy| policy.low_watermark = low.map(percent));
        case(archives())
            .storage(policy)
            .disk(disk(100 * MI, 11 * MI))
            .run()
            .plan
            .watermark
            .unwrap()
            .wanted_bytes
    };
    assert_eq!((run(None), run(Some(80)), run(Some(95))), (4 * MI, 9 * MI, MI));
}

#[test]
fn too_little_free_space_or_too_few_free_inodes_trigger_it_too() {
    let archives = || series("a", "shop/web-0/server", 9);
    let bytes = with(storage("bytes"), |policy| {
        policy.min_free_bytes = Some(5 * MI);
        policy.reserved = Some(percent(0));
    });
    let enough = case(archives()).storage(bytes.clone()).disk(disk(100 * MI, 5 * MI)).run();
    assert_eq!((enough.deleted().len(), enough.plan.watermark), (0, None));
    let low = case(archives()).storage(bytes).disk(disk(100 * MI, 2 * MI)).run();
    assert_eq!((low.deleted().len(), low.policy("a1")), (3, "bytes".into()));

    let inodes = with(storage("inodes"), |policy| {
        policy.min_free_inodes = Some(1_000);
        policy.reserved = Some(percent(0));
    });
    let mut few = disk(100 * MI, 50 * MI);
    few.available_inodes = 998;
    let outcome = case(archives()).storage(inodes.clone()).disk(few).run();
    assert_eq!(outcome.deleted(), ["a1", "a2"]);
    let report = outcome.plan.watermark.unwrap();
    assert_eq!((report.wanted_inodes, report.freed_inodes, report.wanted_bytes), (2, 2, 0));
    few.available_inodes = 1_000;
    assert_eq!(case(archives()).storage(inodes.clone()).disk(few).run().plan.watermark, None);
    // What other rules delete frees its inode, too.
    few.available_inodes = 997;
    let two = keep(|retention| retention.per_container = count(7));
    let outcome = case(archives()).policy(two).storage(inodes.clone()).disk(few).run();
    assert_eq!(outcome.deleted(), ["a1", "a2", "a3"]);
    assert_eq!(outcome.plan.watermark.unwrap().wanted_inodes, 1);
    // A file system that does not count inodes has not run out of them.
    few.total_inodes = 0;
    few.available_inodes = 0;
    assert_eq!(case(archives()).storage(inodes).disk(few).run().plan.watermark, None);
}

#[test]
fn more_free_space_than_there_is_counts_for_nothing_and_stands_in_nobodys_way() {
    let archives = || series("a", "shop/web-0/server", 9);
    let wants = |name: &str, bytes: u64| {
        with(storage(name), |policy| {
            policy.min_free_bytes = Some(bytes);
            policy.reserved = Some(percent(0));
        })
    };
    let case_of = |available: u64, policies: &[StoragePolicy]| {
        let case = case(archives()).disk(disk(100 * MI, available));
        policies.iter().cloned().fold(case, Case::storage)
    };
    assert_eq!(case_of(0, &[wants("all", 101 * MI)]).run().deleted(), [""; 0]);
    // What another policy asks for is done all the same.
    let both = case_of(2 * MI, &[wants("all", 101 * MI), wants("some", 5 * MI)]).run();
    assert_eq!((both.deleted().len(), both.policy("a1")), (3, "some".into()));
    // It does not make the disk critically full, where nothing waits for the deletion limit.
    let mut limited = case_of(45 * MI, &[watermark(54, 50), wants("all", 101 * MI)]);
    limited.snapshot.allowance = Some(Allowance::default());
    assert_eq!(limited.run().reason("a1"), Reason::DeletionPending);
}

#[test]
fn below_the_reserve_the_watermark_takes_nothing() {
    let run = |reserved: Option<u32>, archives: u32| {
        let policy = with(watermark(88, 10), |policy| policy.reserved = reserved.map(percent));
        case(series("a", "shop/web-0/server", archives)).storage(policy).disk(disk(100 * MI, 0)).run()
    };
    let below = run(Some(5), 5);
    assert_eq!(below.deleted(), [""; 0]);
    assert_eq!(
        below.plan.watermark.unwrap().shortfall().unwrap().to_string(),
        "90Mi cannot be freed, as checkpoints use no more than is reserved for them; something else fills the disk"
    );
    let down_to_it = run(Some(5), 7);
    assert_eq!(down_to_it.deleted(), ["a1", "a2"]);
    let shortfall = down_to_it.plan.watermark.unwrap().shortfall().unwrap();
    assert!(shortfall.below_reserve && shortfall.bytes > 0, "{shortfall}");
    // 5 % where no policy says otherwise, and none where one says 0.
    assert_eq!(run(None, 7).deleted(), ["a1", "a2"]);
    assert_eq!(run(Some(0), 3).deleted(), ["a1", "a2"]);
}

#[test]
fn no_new_round_until_the_file_system_shows_the_last_one() {
    let mut full = disk(100 * MI, 0);
    full.release = Release::Awaited;
    let outcome = case(series("a", "shop/web-0/server", 9)).storage(watermark(88, 85)).disk(full).run();
    assert_eq!(outcome.deleted(), [""; 0]);
    let report = outcome.plan.watermark.unwrap();
    assert!(report.waiting && report.wanted_bytes == 15 * MI && report.freed_bytes == 0);
    assert_eq!(report.shortfall(), None, "what the next round can free is not known yet");
    // Where it did not show it for long, one archive at a time.
    full.release = Release::Probing;
    let outcome = case(series("a", "shop/web-0/server", 9)).storage(watermark(88, 85)).disk(full).run();
    assert_eq!(outcome.deleted(), ["a1"]);
    let report = outcome.plan.watermark.unwrap();
    assert!(report.probing && report.wanted_bytes == 15 * MI && report.freed_bytes == MI);
    assert_eq!(report.shortfall(), None);
}

#[test]
fn a_file_system_of_no_size_is_never_full() {
    let case = case(series("a", "shop/web-0/server", 3)).storage(watermark(50, 10)).disk(disk(0, 0));
    assert_eq!((case.deleted().len(), case.run().plan.watermark), (0, None));
}

#[test]
fn the_watermark_takes_as_much_as_its_bucket_lets_and_has_the_rest_of_what_is_wanted_wait() {
    let inodes = with(storage("disk"), |policy| {
        policy.min_free_inodes = Some(900_005);
        policy.reserved = Some(percent(0));
    });
    for (policy, wanted) in [(watermark(54, 50), (5 * MI, 0)), (inodes, (0, 5))] {
        let mut case =
            case(series("a", "shop/web-0/server", 9)).storage(policy).disk(disk(100 * MI, 45 * MI));
        case.snapshot.allowance = Some(Allowance { shared: 9, watermark: 2, ..Allowance::default() });
        let outcome = case.run();
        assert_eq!(outcome.deleted(), ["a1", "a2"]);
        for waiting in ["a3", "a4", "a5"] {
            assert_eq!(outcome.reason(waiting), Reason::DeletionPending);
            assert_eq!(outcome.detail(waiting), Detail::Would(Reason::StorageWatermark));
            assert_eq!(outcome.policy(waiting), "disk");
        }
        assert_eq!(outcome.reason("a6"), Reason::NoPolicy, "no more than that is wanted");
        let report = outcome.plan.watermark.unwrap();
        assert_eq!((report.wanted_bytes, report.wanted_inodes), wanted);
        assert_eq!((report.freed_bytes, report.freed_inodes), (2 * MI, 2));
        assert_eq!((report.pending_bytes, report.pending_inodes), (3 * MI, 3));
        assert_eq!(report.shortfall(), None, "it is to be had, and only later");
        let drawn = outcome.plan.draws.iter().filter(|draw| **draw == Draw::Watermark).count();
        assert_eq!((drawn, outcome.plan.draws.contains(&Draw::Shared)), (2, false));
    }
}

#[test]
fn a_disk_that_is_critically_full_waits_for_no_bucket() {
    let critical = with(watermark(50, 50), |policy| policy.critical_watermark = Some(percent(90)));
    let free = with(storage("free"), |policy| {
        policy.min_free_bytes = Some(60 * MI);
        policy.reserved = Some(percent(0));
    });
    // What is still available when it is not critical yet: 95 % where no policy says otherwise, or half of what
    // is to be free.
    for (policy, available) in
        [(watermark(50, 50), 5 * MI + 1), (critical, 10 * MI + 1), (free.clone(), 30 * MI)]
    {
        let run = |available: u64| {
            let mut case = case(series("a", "shop/web-0/server", 9)).storage(policy.clone());
            case.snapshot.allowance = Some(Allowance::default());
            case.disk(disk(100 * MI, available)).run()
        };
        let waits = run(available);
        assert_eq!((waits.deleted().len(), waits.reason("a1")), (0, Reason::DeletionPending), "{available}");
        let goes = run(available - 1);
        assert_eq!((goes.deleted().len(), goes.reason("a1")), (8, Reason::StorageWatermark), "{available}");
        assert!(goes.plan.draws.iter().all(|draw| *draw == Draw::Nothing), "{available}");
    }
}

#[test]
fn a_disk_that_has_less_than_half_of_the_inodes_that_are_to_be_free_waits_for_no_bucket() {
    let inodes = |least: u64| {
        with(storage("inodes"), |policy| {
            policy.min_free_inodes = Some(least);
            policy.reserved = Some(percent(0));
        })
    };
    let run = |least: u64| {
        let mut case = case(series("a", "shop/web-0/server", 9)).storage(inodes(least));
        case.snapshot.allowance = Some(Allowance::default());
        case.disk(FileSystem { available_inodes: 400_000, ..disk(100 * MI, 50 * MI) }).run().reason("a1")
    };
    assert_eq!((run(800_001), run(800_003)), (Reason::DeletionPending, Reason::StorageWatermark));
}

#[test]
fn a_disk_is_never_critically_full_where_one_policy_says_so() {
    // Not by a lack of free space or inodes either.
    let never = with(watermark(50, 50), |policy| {
        policy.critical_watermark = Some(percent(0));
        policy.min_free_bytes = Some(60 * MI);
        policy.min_free_inodes = Some(900_000);
    });
    let late = with(storage("late"), |policy| policy.critical_watermark = Some(percent(99)));
    for (policies, reason) in [
        (vec![never.clone()], Reason::DeletionPending),
        (vec![never, late.clone()], Reason::DeletionPending),
        (vec![watermark(50, 50), late], Reason::StorageWatermark),
    ] {
        let case = case(series("a", "shop/web-0/server", 9));
        let mut case = policies.into_iter().fold(case, Case::storage);
        case.snapshot.allowance = Some(Allowance::default());
        let full = FileSystem { available_inodes: 100_000, ..disk(100 * MI, 0) };
        assert_eq!(case.disk(full).run().reason("a1"), reason);
    }
}

#[test]
fn what_has_no_blocks_on_the_disk_goes_only_where_inodes_are_wanted() {
    let archives = || {
        [
            archive("sparse").aged(HOUR * 3).allocating(0),
            archive("cut").incomplete().aged(HOUR * 3).allocating(0),
            archive("b").aged(HOUR * 2),
            archive("c").aged(HOUR),
        ]
    };
    let bytes = case(archives()).storage(watermark(50, 49)).disk(disk(100 * MI, 49 * MI));
    assert_eq!(bytes.deleted(), ["b"]);
    let inodes = with(storage("inodes"), |policy| {
        policy.min_free_inodes = Some(900_002);
        policy.reserved = Some(percent(0));
    });
    assert_eq!(case(archives()).storage(inodes).disk(disk(100 * MI, 49 * MI)).deleted(), ["cut", "sparse"]);
}

#[test]
fn what_other_rules_delete_counts_as_freed() {
    let policy = keep(|retention| retention.per_container = count(5));
    let case = case(series("a", "shop/web-0/server", 9)).policy(policy).storage(watermark(88, 85));
    let enough = case.clone().disk(disk(100 * MI, 9 * MI)).run();
    assert_eq!((enough.deleted().len(), enough.plan.watermark), (4, None));
    let more = case.disk(disk(100 * MI, 7 * MI)).run();
    assert_eq!(more.deleted().len(), 8);
    assert_eq!(more.reason("a4"), Reason::MaxCountPerContainer);
    assert_eq!(more.reason("a5"), Reason::StorageWatermark);
}

#[test]
fn incomplete_then_orphans_then_the_oldest_of_the_namespace_that_uses_most() {
    let gone = Absences { workload: absent(MINUTE, Duration::ZERO), ..Absences::default() };
    let archives = || {
        vec![
            archive("big-1").of("big/web-0/server").aged(HOUR * 9).sized(4 * MI),
            archive("big-2").of("big/web-0/server").aged(HOUR * 8).sized(4 * MI),
            archive("big-3").of("big/web-0/server").aged(HOUR * 7).sized(4 * MI),
            archive("mid-1").of("mid/web-0/server").aged(HOUR * 20).sized(5 * MI),
            archive("mid-2").of("mid/web-0/server").aged(HOUR * 19).sized(5 * MI),
            archive("orphan").of("low/web-0/server").aged(HOUR * 2).gone(gone),
            archive("newest").of("low/web-0/server").aged(HOUR).gone(gone),
            archive("cut").of("low/web-0/server").aged(MINUTE * 11).incomplete(),
            archive("cut-new").of("low/web-0/server").aged(MINUTE * 9).incomplete(),
            archive("cut-unknown").unknown().aged(MINUTE * 12).incomplete(),
        ]
    };
    // One after the other, as more and more is wanted.
    let order = ["cut-unknown", "cut", "orphan", "big-1", "mid-1", "big-2"];
    let frees = [1, 1, 1, 4, 5, 4];
    let mut wanted = 0;
    for (number, free) in frees.iter().enumerate() {
        wanted += free;
        let outcome =
            case(archives()).storage(watermark(50, 50)).disk(disk(100 * MI, (50 - wanted) * MI)).run();
        let mut gone: Vec<_> = order[..=number].to_vec();
        gone.sort_unstable();
        assert_eq!(outcome.deleted(), gone, "{wanted} MiB wanted");
    }
    let all = case(archives()).storage(watermark(50, 50)).disk(disk(100 * MI, 0)).run();
    assert_eq!(all.kept(), ["big-3", "cut-new", "mid-2", "newest"]);
    // What is pinned is used, too, and may not go.
    let mut pinned = archives();
    pinned[3].pinned = true;
    let outcome = case(pinned).storage(watermark(50, 50)).disk(disk(100 * MI, 46 * MI)).run();
    assert_eq!(outcome.deleted(), ["big-1", "cut", "cut-unknown", "orphan"]);
}

#[test]
fn the_watermark_never_takes_unknown_unreadable_or_foreign_archives() {
    let archives = [
        archive("unknown").unknown().aged(DAY),
        archive("bad").unreadable().aged(DAY),
        archive("foreign").named("foreign.tar").aged(DAY),
        archive("wet").unsettled(),
        archive("pin").pinned().aged(DAY),
    ];
    let outcome = case(archives).storage(watermark(50, 50)).disk(disk(100 * MI, 0)).run();
    assert_eq!(outcome.deleted(), [""; 0]);
    let report = outcome.plan.watermark.unwrap();
    assert_eq!((report.wanted_bytes, report.freed_bytes), (50 * MI, 0));
}

#[test]
fn the_strictest_value_wins_field_by_field() {
    use checkpoint_keeper_core::plan::EffectiveStorage;
    use checkpoint_keeper_core::policy::DeletionLimit;
    let one = with(storage("one"), |policy| {
        policy.high_watermark = Some(percent(88));
        policy.low_watermark = Some(percent(80));
        policy.min_free_bytes = Some(10 * GI);
        policy.min_free_inodes = Some(100);
        policy.reserved = Some(percent(5));
        policy.max_total_size = Some(Size::Bytes(200 * GI));
        policy.per_namespace.limit =
            Limit { max_count: Some(500), max_total_size: Some(Size::Bytes(50 * GI)) };
        policy.per_namespace.max_age = Some(DAY * 90);
        policy.deletion_limit = Some(DeletionLimit { burst: 5, percent: 9, period: MINUTE }.into());
    });
    let two = with(storage("two"), |policy| {
        policy.high_watermark = Some(percent(90));
        policy.low_watermark = Some(percent(75));
        policy.min_free_bytes = Some(5 * GI);
        policy.min_free_inodes = Some(1_000);
        policy.reserved = Some(percent(3));
        policy.max_total_size = Some(Size::Share(percent(10)));
        policy.per_namespace.limit =
            Limit { max_count: Some(600), max_total_size: Some(Size::Share(percent(1))) };
        policy.per_namespace.max_age = Some(DAY * 30);
        policy.deletion_limit = Some(DeletionLimit { burst: 10, percent: 5, period: MINUTE * 4 }.into());
    });
    let elsewhere = with(storage("elsewhere"), |policy| {
        policy.node_selector = label_is("pool", "gpu");
        policy.high_watermark = Some(percent(1));
    });
    let node = labels(&[("pool", "cpu")]);
    let policies = [elsewhere, two, one, storage("empty")];
    let effective = EffectiveStorage::new(&policies, Some(&node), Some(disk(1_000 * GI, 500 * GI)));
    let id = |name: &str| storage(name).id;
    assert_eq!(effective.high_watermark, Some((percent(88), id("one"))));
    assert_eq!(effective.low_watermark, Some((percent(75), id("two"))));
    assert_eq!(effective.min_free_bytes, Some((10 * GI, id("one"))));
    assert_eq!(effective.min_free_inodes, Some((1_000, id("two"))));
    assert_eq!(effective.reserved, Some((percent(3), id("two"))));
    assert_eq!(effective.max_total_size, Some((100 * GI, id("two"))));
    assert_eq!(effective.namespace_count, Some((500, id("one"))));
    assert_eq!(effective.namespace_size, Some((10 * GI, id("two"))));
    assert_eq!(effective.namespace_age, Some((DAY * 30, id("two"))));
    // Five at once and ten in four minutes.
    let limit = effective.deletion_limits.among(20);
    assert_eq!(limit, DeletionLimit { burst: 5, percent: 5, period: MINUTE * 2 });
    assert_eq!(effective.unjudged, []);
}

#[test]
fn of_storage_policies_that_ask_for_the_same_the_first_by_name_gives_the_reason() {
    use checkpoint_keeper_core::plan::EffectiveStorage;
    let asking = |name: &str, free| {
        with(storage(name), |policy| {
            (policy.min_free_bytes, policy.min_free_inodes) = (Some(free), Some(free));
            (policy.high_watermark, policy.per_namespace.limit) = (Some(percent(88)), count(5));
        })
    };
    let effective = EffectiveStorage::new(&[asking("b", GI), asking("a", GI)], None, None);
    let first = storage("a").id;
    assert_eq!(effective.min_free_bytes, Some((GI, first.clone())));
    assert_eq!(effective.min_free_inodes, Some((GI, first.clone())));
    assert_eq!(effective.high_watermark, Some((percent(88), first.clone())));
    assert_eq!(effective.namespace_count, Some((5, first)));
    // 0 is off, and asks for nothing.
    let off = EffectiveStorage::new(&[asking("a", 0)], None, None);
    assert_eq!((off.min_free_bytes, off.min_free_inodes), (None, None));
}

//! The plan, rule by rule: what the design says about who governs, what goes and what never does.
#![allow(clippy::unwrap_used)]

mod plan_support;

use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_core::plan::{Absences, Allowance, Archive, Detail, Draw, Reason, Release, difference};
use checkpoint_keeper_core::policy::{
    KeepFor, Kind, LabelSelector, Limit, Mode, Operator, OrphanRule, OrphanWhen, Policy, Requirement, Size,
    StoragePolicy, Tiers,
};
use plan_support::*;

// ---- Which policy governs ----------------------------------------------------------------------

/// Who governs an archive of `shop/web-0/server` with the pod label `app: db`, in a namespace with
/// the label `env: prod`.
fn governor(policies: &[Policy]) -> String {
    let case = case([archive("a").labelled(&[("app", "db")])]).namespace("shop", &[("env", "prod")], None);
    policies.iter().fold(case, |case, policy| case.policy(policy.clone())).run().policy("a")
}

fn containers(policy: Policy) -> Policy {
    with(policy, |policy| policy.selector.containers = vec!["server".into()])
}
fn pods(policy: Policy) -> Policy {
    with(policy, |policy| policy.selector.pods = vec!["web-0".into()])
}
fn pod_labels(policy: Policy) -> Policy {
    with(policy, |policy| policy.selector.pod_labels = label_is("app", "db"))
}
fn namespace_labels(policy: Policy) -> Policy {
    with(policy, |policy| policy.selector.namespace_labels = label_is("env", "prod"))
}
fn namespaces(policy: Policy) -> Policy {
    with(policy, |policy| policy.selector.namespaces = vec!["shop".into()])
}
fn older_operator(policy: Policy) -> Policy {
    with(policy, |policy| policy.id.kind = Kind::CheckpointRestoreOperator)
}
fn created(age: Duration, policy: Policy) -> Policy {
    with(policy, |policy| policy.created = Some(ago(age)))
}

#[test]
fn the_more_binding_of_any_two_policies_governs() {
    // Most binding first. Names and ages are against the order, so that neither decides early.
    let ranked: Vec<Policy> = vec![
        containers(created(DAY, local("shop", "z01"))),
        pods(created(DAY * 2, local("shop", "y02"))),
        pod_labels(created(DAY * 3, local("shop", "x03"))),
        created(DAY * 4, local("shop", "w04")),
        older_operator(created(DAY * 5, local("shop", "v05"))),
        containers(pods(created(DAY * 6, cluster("u06")))),
        containers(pod_labels(created(DAY * 7, cluster("t07")))),
        containers(namespace_labels(created(DAY * 8, cluster("s08")))),
        containers(created(DAY * 9, cluster("r09"))),
        older_operator(containers(created(DAY * 10, cluster("q10")))),
        pods(created(DAY * 11, cluster("p11"))),
        pod_labels(namespace_labels(created(DAY * 12, cluster("o12")))),
        pod_labels(created(DAY * 13, cluster("n13"))),
        namespace_labels(created(DAY * 14, cluster("m14"))),
        namespaces(created(DAY * 13, cluster("l14"))),
        older_operator(namespace_labels(created(DAY * 15, cluster("l15")))),
        created(DAY * 18, cluster("k16")),
        created(DAY * 17, cluster("j17")),
        created(DAY * 16, cluster("h18")),
        created(DAY * 16, cluster("i19")),
        with(cluster("a20"), |policy| policy.created = None),
        older_operator(created(DAY * 99, cluster("b21"))),
    ];
    for (place, binding) in ranked.iter().enumerate() {
        for weaker in &ranked[place + 1..] {
            for pair in [[binding.clone(), weaker.clone()], [weaker.clone(), binding.clone()]] {
                assert_eq!(governor(&pair), binding.id.name, "{} before {}", binding.id, weaker.id);
            }
        }
    }
}

#[test]
fn exactly_one_policy_governs_and_the_others_rules_are_not_added() {
    let strict = keep(|retention| retention.max_age = Some(HOUR));
    let lax = with(local("shop", "lax"), |policy| policy.retention.max_age = Some(DAY));
    let case = case(series("a", "shop/web-0/server", 5)).policy(strict).policy(lax);
    assert_eq!(case.deleted(), [""; 0]);
    assert_eq!(case.run().policy("a1"), "lax");
}

#[test]
fn all_parts_of_a_selector_must_match() {
    let whole = pods(containers(namespace_labels(pod_labels(cluster("whole")))));
    assert_eq!(governor(std::slice::from_ref(&whole)), "whole");
    let spoilers: [fn(&mut Policy); 5] = [
        |policy| policy.selector.containers = vec!["serve".into(), "servers".into(), "*".into()],
        |policy| policy.selector.pods = vec!["web".into(), "web-*".into(), "web-01".into()],
        |policy| policy.selector.pod_labels = label_is("app", "web"),
        |policy| policy.selector.namespace_labels = label_is("env", "test"),
        |policy| policy.selector.namespaces = vec!["sho".into(), "shop-prod".into()],
    ];
    for spoil in spoilers {
        assert_eq!(governor(&[with(whole.clone(), spoil)]), "");
    }
}

#[test]
fn label_selectors_mean_what_kubernetes_says() {
    let requirement = |key: &str, operator| LabelSelector(vec![Requirement { key: key.into(), operator }]);
    let list = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    let table = [
        (requirement("app", Operator::In(list(&["x", "db"]))), true),
        (requirement("app", Operator::In(list(&["x"]))), false),
        (requirement("none", Operator::In(list(&["db"]))), false),
        (requirement("app", Operator::NotIn(list(&["db"]))), false),
        (requirement("app", Operator::NotIn(list(&["x"]))), true),
        (requirement("none", Operator::NotIn(list(&["x"]))), true),
        (requirement("app", Operator::Exists), true),
        (requirement("none", Operator::Exists), false),
        (requirement("app", Operator::DoesNotExist), false),
        (requirement("none", Operator::DoesNotExist), true),
    ];
    for (selector, matches) in table {
        assert_eq!(selector.matches(&labels(&[("app", "db")])), matches, "{selector:?}");
        let policy = with(cluster("p"), |policy| policy.selector.pod_labels = selector.clone());
        assert_eq!(governor(&[policy]), if matches { "p" } else { "" }, "{selector:?}");
    }
}

#[test]
fn where_labels_are_unknown_nothing_is_deleted_unless_a_more_binding_policy_governs() {
    let strict = keep(|retention| (retention.keep_latest, retention.max_age) = (0, Some(HOUR)));
    let old = archive("a").aged(DAY);
    for doubtful in [pod_labels(cluster("doubtful")), namespace_labels(cluster("doubtful"))] {
        let outcome = case([old.clone()]).policy(strict.clone()).policy(doubtful.clone()).run();
        assert_eq!((outcome.reason("a"), outcome.detail("a")), (Reason::NoPolicy, Detail::LabelsUnknown));
        assert_eq!(outcome.policy("a"), "doubtful");
        // What outranks it is certain, and so is what a name rules out.
        let binding = with(local("shop", "binding"), |policy| policy.retention = strict.retention.clone());
        assert_eq!(case([old.clone()]).policy(binding).policy(doubtful.clone()).deleted(), ["a"]);
        let elsewhere = with(doubtful, |policy| policy.selector.containers = vec!["other".into()]);
        assert_eq!(case([old.clone()]).policy(strict.clone()).policy(elsewhere).deleted(), ["a"]);
    }
}

#[test]
fn a_dry_run_policy_governs_nothing_and_reports_the_difference() {
    let strict = with(local("shop", "trial"), |policy| {
        policy.mode = Mode::DryRun;
        policy.retention.per_container = count(2);
    });
    let lax = keep(|retention| retention.max_age = Some(HOUR * 4));
    let case = case(series("a", "shop/web-0/server", 5)).policy(strict.clone()).policy(lax);
    let outcome = case.run();
    assert_eq!(
        (outcome.deleted(), outcome.policy("a5")),
        (vec!["a1".to_owned(), "a2".into()], "default".into())
    );

    let difference = difference(&case.snapshot, &case.policies, case.now, &outcome.plan, &strict.id);
    // a1 and a2 go either way; a3 would go only then; nothing would be spared.
    let would: Vec<_> =
        difference.would_delete.iter().map(|(place, verdict)| (*place, verdict.reason)).collect();
    assert_eq!(would, [(2, Reason::MaxCountPerContainer)]);
    assert_eq!(difference.would_keep, []);
}

#[test]
fn a_dry_run_policy_also_reports_what_it_would_spare() {
    let strict = keep(|retention| retention.max_age = Some(HOUR * 4));
    let lax = with(local("shop", "trial"), |policy| policy.mode = Mode::DryRun);
    let case = case(series("a", "shop/web-0/server", 5)).policy(strict).policy(lax.clone());
    let current = case.run().plan;
    let difference = difference(&case.snapshot, &case.policies, case.now, &current, &lax.id);
    let spared: Vec<_> =
        difference.would_keep.iter().map(|(place, verdict)| (*place, verdict.reason)).collect();
    assert_eq!(spared, [(0, Reason::WithinLimits), (1, Reason::WithinLimits)]);
    assert_eq!(difference.would_delete, []);
}

#[test]
fn the_difference_of_a_dry_run_policy_is_not_cut_short_by_the_bucket() {
    let strict =
        with(keep(|retention| retention.per_container = count(1)), |policy| policy.mode = Mode::DryRun);
    let case = case(series("a", "shop/web-0/server", 5)).policy(strict.clone()).allowance(1);
    let current = case.run().plan;
    let difference = difference(&case.snapshot, &case.policies, case.now, &current, &strict.id);
    let would: Vec<_> = difference.would_delete.iter().map(|(place, _)| *place).collect();
    assert_eq!(would, [0, 1, 2, 3]);

    // What waits already is no difference.
    let also = with(local("shop", "same"), |policy| {
        policy.mode = Mode::DryRun;
        policy.retention.per_container = count(1);
    });
    let mut enforced = case.clone().policy(also.clone());
    enforced.policies.retention[0].mode = Mode::Enforce;
    let current = enforced.run().plan;
    let none = difference_of(&enforced, &current, &also);
    assert_eq!(none, (vec![], vec![]));
}

fn difference_of(
    case: &Case,
    current: &checkpoint_keeper_core::plan::Plan,
    policy: &Policy,
) -> (Vec<usize>, Vec<usize>) {
    let difference = difference(&case.snapshot, &case.policies, case.now, current, &policy.id);
    let places = |list: &[(usize, _)]| list.iter().map(|(place, _)| *place).collect();
    (places(&difference.would_delete), places(&difference.would_keep))
}

/// Whether the API still says so is asked before it goes, not before it is told of.
#[test]
fn the_difference_of_a_dry_run_policy_has_the_orphans_whose_grace_period_is_over() {
    let dry = with(orphans(OrphanWhen::PodDeleted, HOUR), |policy| policy.mode = Mode::DryRun);
    let gone = |since| Absences { pod: absent(since, since), ..Absences::default() };
    let archives = [
        archive("over").aged(DAY).gone(gone(HOUR)),
        archive("runs").of("shop/web-1/server").aged(DAY).gone(gone(MINUTE * 59)),
        archive("there").of("shop/web-2/server").aged(DAY),
    ];
    let case = case(archives).policy(dry.clone());
    assert_eq!(difference_of(&case, &case.run().plan, &dry), (vec![0], vec![]));
}

#[test]
fn an_object_of_several_parts_is_tried_as_a_whole() {
    let part = |number: u32, container: &str| {
        with(keep(|retention| retention.per_container = count(1)), |policy| {
            policy.mode = Mode::DryRun;
            policy.id.part = Some(format!("containerPolicies[{number}]"));
            policy.selector.containers = vec![container.into()];
        })
    };
    let archives = [series("a", "shop/web-0/server", 2), series("b", "shop/web-0/proxy", 2)].concat();
    let case = case(archives).policy(part(0, "server")).policy(part(1, "proxy"));
    let current = case.run().plan;
    assert_eq!(difference_of(&case, &current, &case.policies.retention[0]), (vec![0, 2], vec![]));
}

#[test]
fn limits_count_only_what_their_policy_governs() {
    let narrow = with(containers(cluster("narrow")), |policy| policy.retention.per_namespace = count(3));
    let wide = keep(|retention| retention.per_namespace = count(2));
    let archives = [series("a", "shop/web-0/server", 3), series("b", "shop/web-0/proxy", 3)].concat();
    let outcome = case(archives).policy(narrow).policy(wide).run();
    assert_eq!(outcome.deleted(), ["b1"]);
    assert_eq!(
        (outcome.reason("b1"), outcome.policy("b1")),
        (Reason::MaxCountPerNamespace, "default".into())
    );
    assert_eq!(outcome.detail("b1"), Detail::Count { have: 3, limit: 2 });
}

#[test]
fn incomplete_archives_of_unknown_identity_belong_to_cluster_policies_without_a_selector() {
    let cut = archive("cut").unknown().incomplete().aged(DAY);
    let grace = |policy: Policy| with(policy, |policy| policy.incomplete_grace = Some(HOUR));
    assert_eq!(case([cut.clone()]).policy(grace(cluster("all"))).reason("cut"), Reason::Incomplete);
    for selecting in
        [containers(cluster("p")), pods(cluster("p")), namespace_labels(cluster("p")), local("shop", "p")]
    {
        let case = case([cut.clone()]).namespace("shop", &[("env", "prod")], None).policy(grace(selecting));
        assert_eq!(case.reason("cut"), Reason::NoPolicy);
    }
    // A complete one is nobody's, whatever its policy.
    let whole = archive("whole").unknown().aged(DAY);
    let strict = keep(|retention| (retention.keep_latest, retention.max_age) = (0, Some(HOUR)));
    assert_eq!(case([whole]).policy(grace(strict)).reason("whole"), Reason::UnknownIdentity);
}

// ---- Promise 1: no policy, no deletion ---------------------------------------------------------

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

// ---- Promise 2: fail closed --------------------------------------------------------------------

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

// ---- Promise 3: pinned is forever ---------------------------------------------------------------

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

// ---- Promise 4: the newest stays ---------------------------------------------------------------

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

// ---- Promise 5: never half-written -------------------------------------------------------------

#[test]
fn what_is_being_written_is_neither_judged_nor_deleted_nor_counted() {
    let mut archives = series("a", "shop/web-0/server", 3);
    archives.push(archive("wet").unsettled().discarded().sized(GI));
    archives.push(archive("growing").unsettled().incomplete().aged(DAY));
    let policy = with(
        keep(|retention| (retention.per_container, retention.max_archive_size) = (count(3), Some(2 * MI))),
        |policy| {
            policy.incomplete_grace = Some(MINUTE);
        },
    );
    let outcome = case(archives).policy(policy).storage(watermark(1, 1)).disk(disk(100 * GI, 0)).run();
    assert_eq!(outcome.deleted(), ["a1", "a2"]);
    assert_eq!((outcome.reason("wet"), outcome.reason("growing")), (Reason::Settling, Reason::Settling));
}

// ---- Promise 7 and names -------------------------------------------------------------------------

#[test]
fn files_with_foreign_names_are_never_deleted_and_never_count() {
    let foreign = |short: &str| archive(short).named(&format!("{short}.tar.gz")).aged(DAY * 9).discarded();
    let archives = [
        archive("new").aged(HOUR),
        foreign("known"),
        foreign("unknown").unknown(),
        foreign("cut").incomplete(),
        foreign("cut-unknown").incomplete().unknown(),
    ];
    let policy = with(
        keep(|retention| (retention.per_container, retention.max_age) = (count(1), Some(HOUR * 2))),
        |policy| {
            policy.incomplete_grace = Some(MINUTE);
        },
    );
    let limits = with(watermark(1, 1), |policy| policy.max_total_size = Some(Size::Bytes(MI)));
    let outcome = case(archives).policy(policy).storage(limits).disk(disk(GI, 0)).run();
    assert_eq!(outcome.deleted(), [""; 0]);
    assert_eq!(
        (outcome.reason("known.tar.gz"), outcome.detail("known.tar.gz")),
        (Reason::NoPolicy, Detail::ForeignName)
    );
    assert_eq!(outcome.reason("cut.tar.gz"), Reason::NoPolicy);
    assert_eq!(outcome.reason("unknown.tar.gz"), Reason::UnknownIdentity);
    assert_eq!(outcome.reason("cut-unknown.tar.gz"), Reason::UnknownIdentity);
}

// ---- Promise 10: tenants stay apart ---------------------------------------------------------------

#[test]
fn an_archive_older_than_its_namespace_is_not_the_new_owners() {
    let created = Some(ago(HOUR * 3 + MINUTE * 5));
    let own = with(local("shop", "own"), |policy| policy.retention.per_container = count(1));
    let archives = series("a", "shop/web-0/server", 5);
    let case = case(archives).namespace("shop", &[("env", "prod")], created).policy(own);
    // a3 was taken as late as the API's clock and this node's may differ.
    let outcome = case.run();
    assert_eq!(outcome.deleted(), ["a3", "a4"]);
    assert_eq!((outcome.reason("a1"), outcome.reason("a2")), (Reason::NoPolicy, Reason::NoPolicy));

    // A cluster policy governs both, as two namespaces.
    let wide = keep(|retention| retention.per_namespace = count(1));
    let mut both = case.clone();
    both.policies.retention = vec![wide];
    assert_eq!(both.deleted(), ["a1", "a3", "a4"]);
    // The labels of the new namespace say nothing about the old one.
    both.policies.retention = vec![namespace_labels(keep(|retention| retention.per_namespace = count(1)))];
    assert_eq!(both.deleted(), ["a3", "a4"]);
    // Nor does an object of the new owner that does not parse hold the old archives.
    both.policies.retention = vec![keep(|retention| retention.per_namespace = count(1))];
    assert_eq!(both.broken(Some("shop")).deleted(), ["a1"]);
}

/// `gc` without a cluster recommends it.
#[test]
fn a_namespace_is_selected_by_the_label_that_is_its_name_also_without_a_cluster() {
    let requirement = |operator| Requirement { key: "kubernetes.io/metadata.name".into(), operator };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let archives = [
        archive("ours").of("shop/web-0/server").aged(DAY),
        archive("theirs").of("bank/web-0/server").aged(DAY),
    ];
    let none: [&str; 0] = [];
    for (operator, expected) in [
        (Operator::In(names(&["shop"])), &["ours"][..]),
        (Operator::NotIn(names(&["shop"])), &["theirs"]),
        (Operator::Exists, &["ours", "theirs"]),
        (Operator::DoesNotExist, &none),
    ] {
        let by_name = keep(|keep| (keep.max_age, keep.keep_latest) = (Some(MINUTE), 0));
        let by_name = with(by_name, |policy| policy.selector.namespace_labels.0.push(requirement(operator)));
        assert_eq!(case(archives.clone()).policy(by_name.clone()).deleted(), expected);
        // What else is asked of labels that are not known keeps, unless the name decides.
        let both = with(by_name, |policy| {
            policy.selector.namespace_labels.0.extend(label_is("env", "prod").0);
        });
        let wider = keep(|keep| (keep.max_age, keep.keep_latest) = (Some(MINUTE), 0));
        let wider = case(archives.clone()).policy(both).policy(wider).deleted();
        assert!(wider.iter().all(|gone| !expected.contains(&gone.as_str())), "{wider:?}");
        assert_eq!(wider.len(), 2 - expected.len(), "{wider:?}");
    }
}

/// `apps` and `apps.kruise.io` both have a `DaemonSet`.
#[test]
fn owners_of_one_kind_and_name_in_two_groups_are_two_workloads() {
    let of = |short: &str, group: &str, age| {
        let owner = Some(Arc::new(workload(group, "DaemonSet", "log")));
        Archive { workload: owner, ..archive(short).of(&format!("shop/{short}/c")).aged(age) }
    };
    let archives = [
        of("a1", "apps", HOUR),
        of("a2", "apps", HOUR * 2),
        of("k3", "apps.kruise.io", HOUR * 3),
        of("k4", "apps.kruise.io", HOUR * 4),
    ];
    let aged = case(archives.clone()).policy(keep(|keep| keep.max_age = Some(MINUTE)));
    assert_eq!(aged.deleted(), ["a2", "k4"], "the newest of each lineage stays");
    let limited = keep(|keep| (keep.per_workload, keep.keep_latest) = (count(1), 0));
    assert_eq!(case(archives).policy(limited).deleted(), ["a2", "k4"]);
}

/// Two clocks cannot tell whether the namespace was there already; its pod can.
#[test]
fn what_was_taken_when_its_namespace_was_made_is_governed_if_its_pod_was_seen_in_it() {
    let own = with(local("shop", "own"), |policy| policy.retention.per_container = count(1));
    // a3 was taken three hours ago.
    for created in [ago(MINUTE * 175), ago(MINUTE * 184)] {
        let mut case = case(series("a", "shop/web-0/server", 5))
            .namespace("shop", &[("env", "prod")], Some(created))
            .policy(own.clone());
        let outcome = case.run();
        assert_eq!(outcome.deleted(), ["a4"]);
        assert_eq!(outcome.detail("a3"), Detail::NamespaceUncertain);
        case.snapshot.archives[2].seen_in = Some(created);
        assert_eq!(case.deleted(), ["a3", "a4"]);
        // In the one before that, it was not in this one.
        case.snapshot.archives[2].seen_in = Some(ago(HOUR * 9));
        assert_eq!(case.deleted(), ["a4"]);
    }
}

#[test]
fn a_vanished_namespace_is_a_lineage_and_a_ceiling_of_its_own() {
    let case =
        case(series("a", "shop/web-0/server", 4)).namespace("shop", &[], Some(ago(HOUR * 2 + MINUTE * 10)));
    let aged = case.clone().policy(keep(|retention| retention.max_age = Some(MINUTE)));
    assert_eq!(aged.deleted(), ["a1", "a3"]);
    let ceiling = with(storage("ceiling"), |policy| policy.per_namespace.limit = count(1));
    assert_eq!(case.storage(ceiling).deleted(), ["a1", "a3"]);
}

#[test]
fn a_namespaced_policy_does_nothing_elsewhere() {
    let strict = with(local("shop", "strict"), |policy| {
        (policy.retention.keep_latest, policy.retention.max_age) = (0, Some(MINUTE));
        policy.incomplete_grace = Some(MINUTE);
    });
    let archives = [
        archive("own").of("shop/web-0/server").aged(HOUR),
        archive("prefix").of("shop-prod/web-0/server").aged(HOUR),
        archive("other").of("sho/p-web-0/server").aged(HOUR),
        archive("cut").unknown().incomplete().aged(HOUR),
    ];
    assert_eq!(case(archives).policy(strict).deleted(), ["own"]);
}

// ---- Promise 11: the bucket --------------------------------------------------------------------

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

// ---- Order of rules ------------------------------------------------------------------------------

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

// ---- Orphans ----------------------------------------------------------------------------------------

fn orphans(when: OrphanWhen, grace: Duration) -> Policy {
    with(cluster("default"), |policy| policy.orphans = Some(OrphanRule { when, grace }))
}

#[test]
fn each_kind_of_orphan_goes_by_its_own_absence() {
    let gone = absent(HOUR * 2, Duration::ZERO);
    let absences = [
        (OrphanWhen::PodDeleted, Absences { pod: gone, ..Absences::default() }),
        (OrphanWhen::WorkloadDeleted, Absences { workload: gone, ..Absences::default() }),
        (OrphanWhen::NamespaceDeleted, Absences { namespace: gone, ..Absences::default() }),
    ];
    for (when, _) in absences {
        for (what, absences) in absences {
            let outcome = case([archive("a").aged(DAY).gone(absences)]).policy(orphans(when, HOUR)).run();
            assert_eq!(outcome.deleted().len(), usize::from(when == what), "{when:?} {what:?}");
            if when == what {
                assert_eq!(outcome.reason("a"), Reason::Orphaned);
                assert_eq!(outcome.detail("a"), Detail::GoneSince(ago(HOUR * 2)));
            } else {
                assert_eq!(outcome.reason("a"), Reason::WithinLimits);
            }
        }
    }
}

#[test]
fn orphans_are_retained_by_default_and_without_knowledge() {
    let all = Absences {
        pod: absent(DAY * 9, Duration::ZERO),
        workload: absent(DAY * 9, Duration::ZERO),
        namespace: absent(DAY * 9, Duration::ZERO),
    };
    assert_eq!(case([archive("a").aged(DAY).gone(all)]).policy(cluster("p")).deleted(), [""; 0]);
    for when in [OrphanWhen::PodDeleted, OrphanWhen::WorkloadDeleted, OrphanWhen::NamespaceDeleted] {
        let unknown = [archive("a").aged(DAY), archive("b").aged(DAY).gone(Absences::default())];
        assert_eq!(case(unknown).policy(orphans(when, Duration::ZERO)).deleted(), [""; 0]);
    }
}

#[test]
fn an_orphan_goes_when_confirmed_again_after_the_grace_period_and_not_before() {
    let run = |since: Duration, confirmed: Duration| {
        let gone = Absences { pod: absent(since, confirmed), ..Absences::default() };
        case([archive("a").aged(DAY * 9).gone(gone)]).policy(orphans(OrphanWhen::PodDeleted, HOUR)).run()
    };
    assert_eq!(run(HOUR, Duration::ZERO).reason("a"), Reason::Orphaned);
    assert_eq!(run(HOUR * 3, HOUR * 2).reason("a"), Reason::Orphaned);
    let early = run(HOUR.checked_sub(Duration::from_secs(1)).unwrap(), Duration::ZERO);
    assert_eq!(early.reason("a"), Reason::OrphanGracePeriod);
    assert_eq!(early.detail("a"), Detail::GraceEnds(now().checked_add(Duration::from_secs(1)).unwrap()));
    // Long gone, but last confirmed before the end of the grace period.
    assert_eq!(run(HOUR * 3, HOUR * 2 + Duration::from_secs(1)).reason("a"), Reason::OrphanGracePeriod);
    assert_eq!(run(DAY * 5, DAY * 5).reason("a"), Reason::OrphanGracePeriod);
}

#[test]
fn a_grace_period_that_never_ends_never_takes() {
    let gone = Absences { pod: absent(DAY * 900, Duration::ZERO), ..Absences::default() };
    let case =
        case([archive("a").aged(DAY).gone(gone)]).policy(orphans(OrphanWhen::PodDeleted, Duration::MAX));
    assert_eq!(case.reason("a"), Reason::OrphanGracePeriod);
}

// ---- Storage ceilings ------------------------------------------------------------------------------

#[test]
fn ceilings_bind_whatever_policies_say_and_where_none_governs() {
    let archives = || series("a", "shop/web-0/server", 5);
    let lax = keep(|retention| retention.keep_latest = 5);
    for ceiling in [count(2), total(2 * MI + 1)] {
        let ceiling = with(storage("ceiling"), |policy| policy.per_namespace.limit = ceiling);
        let governed = case(archives()).storage(ceiling.clone()).policy(lax.clone()).run();
        assert_eq!(governed.deleted(), ["a1", "a2", "a3"]);
        assert_eq!(
            (governed.reason("a1"), governed.policy("a1")),
            (Reason::NamespaceCeiling, "ceiling".into())
        );
        assert_eq!(case(archives()).storage(ceiling).deleted(), ["a1", "a2", "a3"]);
    }
    for (limit, left) in [(3 * MI, 3), (1, 1)] {
        let node = with(storage("node"), |policy| policy.max_total_size = Some(Size::Bytes(limit)));
        let outcome = case(archives()).storage(node).policy(lax.clone()).run();
        assert_eq!(outcome.kept().len(), left);
        assert_eq!((outcome.reason("a1"), outcome.policy("a1")), (Reason::StorageWatermark, "node".into()));
    }
}

/// Two pods of a Deployment under two policies: the newer one's archive goes, and so stands in for no other.
#[test]
fn what_its_own_policy_takes_for_its_age_is_nobody_elses_newest() {
    let of = |short: &str, pod: &str, age: Duration| {
        archive(short).of(&format!("shop/{pod}/server")).owned_by("Deployment", "web").aged(age)
    };
    let for_pod = |name: &str, pod: &str, latest: u32, age: Duration| {
        with(cluster(name), |policy| {
            policy.selector.pods = vec![pod.to_owned()];
            policy.retention.keep_latest = latest;
            policy.retention.max_age = Some(age);
        })
    };
    let stable = for_pod("stable", "web-1", 1, DAY * 30);
    let archives = || [of("a", "web-1", DAY * 31), of("b", "web-2", DAY * 2)];
    let canary = for_pod("canary", "web-2", 0, DAY);
    assert_eq!(case(archives()).policy(stable.clone()).policy(canary).run().kept(), ["a"]);
    // Where the newer one stays, the older one goes.
    let canary = for_pod("canary", "web-2", 0, DAY * 3);
    assert_eq!(case(archives()).policy(stable).policy(canary).run().kept(), ["b"]);
}

#[test]
fn a_ceiling_keeps_the_newest_complete_one_of_each_namespace() {
    let archives = [
        series("a", "shop/web-0/server", 2),
        series("b", "bank/web-0/server", 2),
        vec![archive("cut").of("bank/web-0/server").incomplete().aged(MINUTE * 30)],
    ]
    .concat();
    let ceiling = with(storage("ceiling"), |policy| policy.per_namespace.limit = total(1));
    assert_eq!(case(archives.clone()).storage(ceiling).run().kept(), ["a2", "b2"]);
    let node = with(storage("node"), |policy| policy.max_total_size = Some(Size::Bytes(1)));
    // The newest of each lineage stay, on the node too.
    assert_eq!(case(archives).storage(node).run().kept(), ["a2", "b2"]);
}

#[test]
fn complete_archives_of_unknown_identity_count_in_no_limit_and_incomplete_ones_only_on_the_node() {
    let mut archives = series("a", "shop/web-0/server", 3);
    archives.extend([archive("x").unknown().aged(DAY), archive("bad").unreadable().aged(DAY)]);
    let node = with(storage("node"), |policy| policy.max_total_size = Some(Size::Bytes(3 * MI)));
    assert_eq!(case(archives.clone()).storage(node.clone()).deleted(), [""; 0]);
    archives.push(archive("cut").unknown().incomplete().aged(DAY));
    assert_eq!(case(archives).storage(node).deleted(), ["cut"]);
}

#[test]
fn a_policy_without_the_nodes_labels_says_nothing_and_is_named() {
    let gpu = with(storage("gpu"), |policy| {
        policy.node_selector = label_is("pool", "gpu");
        policy.per_namespace.limit = count(1);
    });
    let mut case = case(series("a", "shop/web-0/server", 2)).storage(gpu);
    let outcome = case.run();
    assert_eq!(outcome.deleted(), [""; 0]);
    let unjudged: Vec<_> = outcome.plan.unjudged_storage.iter().map(|id| id.name.clone()).collect();
    assert_eq!(unjudged, ["gpu"]);
    for (pool, gone) in [("cpu", 0), ("gpu", 1)] {
        case.snapshot.node_labels = Some(labels(&[("pool", pool)]));
        let outcome = case.run();
        assert_eq!((outcome.deleted().len(), outcome.plan.unjudged_storage.len()), (gone, 0));
    }
}

// ---- The watermark ----------------------------------------------------------------------------------

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
    assert!(report.is_satisfied() && !report.waiting && !report.below_reserve);
    // "wanted X, freed Y" where that cannot be done: the newest stays.
    let full = run(0);
    let report = full.plan.watermark.unwrap();
    assert_eq!((report.wanted_bytes, report.freed_bytes, report.used), (15 * MI, 8 * MI, 10_000));
    assert!(!report.is_satisfied());
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
fn below_the_reserve_the_watermark_takes_nothing() {
    let run = |reserved: Option<u32>, archives: u32| {
        let policy = with(watermark(88, 10), |policy| policy.reserved = reserved.map(percent));
        case(series("a", "shop/web-0/server", archives)).storage(policy).disk(disk(100 * MI, 0)).run()
    };
    let below = run(Some(5), 5);
    assert_eq!(below.deleted(), [""; 0]);
    assert!(below.plan.watermark.unwrap().below_reserve);
    assert_eq!(run(Some(5), 7).deleted(), ["a1", "a2"]);
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
    // Where it did not show it for long, one archive at a time.
    full.release = Release::Probing;
    let outcome = case(series("a", "shop/web-0/server", 9)).storage(watermark(88, 85)).disk(full).run();
    assert_eq!(outcome.deleted(), ["a1"]);
    let report = outcome.plan.watermark.unwrap();
    assert!(report.probing && report.wanted_bytes == 15 * MI && report.freed_bytes == MI);
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
        assert_eq!((report.freed_bytes, report.freed_inodes, report.pending_bytes), (2 * MI, 2, 3 * MI));
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
fn a_disk_is_never_critically_full_where_policies_say_so_and_none_says_otherwise() {
    let never = with(watermark(50, 50), |policy| policy.critical_watermark = Some(percent(0)));
    let late = with(storage("late"), |policy| policy.critical_watermark = Some(percent(99)));
    for (policies, reason) in
        [(vec![never.clone()], Reason::DeletionPending), (vec![never, late], Reason::StorageWatermark)]
    {
        let case = case(series("a", "shop/web-0/server", 9));
        let mut case = policies.into_iter().fold(case, Case::storage);
        case.snapshot.allowance = Some(Allowance::default());
        assert_eq!(case.disk(disk(100 * MI, 0)).run().reason("a1"), reason);
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
        policy.deletion_limit = Some(DeletionLimit { burst: 5, percent: 9, period: MINUTE });
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
        policy.deletion_limit = Some(DeletionLimit { burst: 10, percent: 5, period: MINUTE * 2 });
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
    assert_eq!(effective.deletion_limit, DeletionLimit { burst: 5, percent: 5, period: MINUTE * 2 });
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

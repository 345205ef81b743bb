//! Which policy governs an archive, and what a dry run says that it would.

use std::time::Duration;

use checkpoint_keeper_core::plan::{Absences, Detail, Reason, difference};
use checkpoint_keeper_core::policy::{Kind, LabelSelector, Mode, Operator, OrphanWhen, Policy, Requirement};

use crate::orphans::orphans;
use crate::plan_support::*;

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
pub(crate) fn namespace_labels(policy: Policy) -> Policy {
    with(policy, |policy| policy.selector.namespace_labels = label_is("env", "prod"))
}
fn namespaces(policy: Policy) -> Policy {
    with(policy, |policy| policy.selector.namespaces = vec!["shop".into()])
}
pub(crate) fn older_operator(policy: Policy) -> Policy {
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

//! What is said to have no effect has none: the plan is asked.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod plan_support;

use checkpoint_keeper_core::plan::{Archive, Snapshot, plan};
use checkpoint_keeper_core::policy::{
    Kind, LabelSelector, Labels, Mode, Operator, Policy, PolicySet, Precedence, Requirement,
};
use checkpoint_keeper_core::policy_lint::{NoEffect, Why, beyond_disk, without_effect, without_effect_here};
use plan_support::{
    Archives, archive, cluster, count, disk, keep, now, percent, reference, storage, watermark, with,
};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

fn app(value: &str) -> LabelSelector {
    let operator = Operator::In(vec![value.to_owned()]);
    LabelSelector(vec![Requirement { key: "app".to_owned(), operator }])
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let one = (
        select(vec![None, Some("a"), Some("b")]),
        subsequence(vec!["p", "q"], 0..=2),
        subsequence(vec!["c", "d"], 0..=2),
        select(vec![None, Some("x"), Some("y")]),
        subsequence(vec!["a", "b"], 0..=2),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
    );
    prop::collection::vec(one, 1..6).prop_map(|policies| {
        let mut made = Vec::new();
        for (place, (namespace, pods, containers, label, namespaces, dry_run, legacy)) in
            policies.into_iter().enumerate()
        {
            let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
            let name = format!("p{place}");
            made.push(with(cluster(&name), |policy| {
                let kind = match (legacy, namespace) {
                    (true, _) => Kind::CheckpointRestoreOperator,
                    (false, Some(_)) => Kind::CheckpointPolicy,
                    (false, None) => Kind::ClusterCheckpointPolicy,
                };
                policy.id = reference(kind, namespace, &name);
                policy.namespace = namespace.map(str::to_owned);
                policy.mode = if dry_run { Mode::DryRun } else { Mode::Enforce };
                policy.selector.pods = owned(pods);
                policy.selector.containers = owned(containers);
                policy.selector.namespaces = owned(namespaces);
                policy.selector.pod_labels = label.map(app).unwrap_or_default();
            }));
        }
        made
    })
}

/// An archive of everything that the policies tell apart.
fn everything() -> Vec<Archive> {
    let mut archives = Vec::new();
    for namespace in ["a", "b"] {
        for pod in ["p", "q"] {
            for container in ["c", "d"] {
                for label in ["x", "y", "z"] {
                    let short = format!("{namespace}{pod}{container}{label}");
                    let path = format!("{namespace}/{pod}/{container}");
                    archives.push(archive(&short).of(&path).labelled(&[("app", label)]));
                }
            }
        }
    }
    archives
}

proptest! {
    #[test]
    fn what_is_said_to_be_shadowed_governs_nothing(retention in policies()) {
        let policies = PolicySet { retention, ..PolicySet::default() };
        let snapshot = Snapshot { archives: everything(), ..Snapshot::default() };
        let plan = plan(&snapshot, &policies, now());
        for found in without_effect(&policies) {
            let governs = plan.verdicts.iter().filter(|verdict| verdict.policy.as_deref() == Some(&found.policy)).count();
            prop_assert!(!matches!(found.why, Why::Shadowed(_)) || governs == 0, "{}", found);
        }
    }
}

fn told(found: &[NoEffect]) -> Vec<String> {
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn one_goes_before_another_only_where_it_is_for_all_of_it() {
    let wide = keep(|_| {});
    let team = with(cluster("team"), |policy| {
        policy.id = reference(Kind::CheckpointPolicy, Some("shop"), "team");
        policy.namespace = Some("shop".to_owned());
    });
    let shadowed =
        |retention: Vec<Policy>| told(&without_effect(&PolicySet { retention, ..PolicySet::default() }));
    assert_eq!(shadowed(vec![wide.clone(), team.clone()]), Vec::<String>::new());
    let other = with(team.clone(), |policy| policy.id.name = "tean".to_owned());
    assert_eq!(shadowed(vec![wide.clone(), team.clone(), other]).len(), 1);
    // A dry run governs nothing, and so goes before nobody.
    let dry = with(wide.clone(), |policy| {
        policy.id.name = "a".to_owned();
        policy.mode = Mode::DryRun;
    });
    assert_eq!(shadowed(vec![dry, wide.clone()]), Vec::<String>::new());
    let first = with(wide, |policy| policy.precedence = Precedence::Override);
    assert_eq!(
        shadowed(vec![first, team]),
        [
            "CheckpointPolicy/shop/team governs nothing: ClusterCheckpointPolicy/default goes before it for every \
          archive that it is for"
        ]
    );
}

#[test]
fn limits_are_compared_from_the_narrow_group_to_the_wide_one() {
    let limits = |container: u64, namespace: u64, keep_latest: u32| {
        let policy = keep(|rules| {
            rules.per_container = count(container);
            rules.per_namespace = count(namespace);
            rules.keep_latest = keep_latest;
        });
        without_effect(&PolicySet { retention: vec![policy], ..PolicySet::default() }).len()
    };
    assert_eq!(limits(10, 10, 1), 0);
    assert_eq!(limits(10, 9, 1), 1);
    assert_eq!(limits(3, 10, 3), 0);
    assert_eq!(limits(3, 10, 4), 1);
}

#[test]
fn a_low_watermark_of_one_policy_may_belong_to_the_high_one_of_another() {
    let low = with(storage("low"), |policy| policy.low_watermark = Some(percent(70)));
    let storage =
        |policies: Vec<_>| told(&without_effect(&PolicySet { storage: policies, ..PolicySet::default() }));
    assert_eq!(storage(vec![low.clone()]).len(), 1);
    assert_eq!(storage(vec![low, watermark(88, 85)]), Vec::<String>::new());
}

#[test]
fn what_a_disk_does_not_have_is_said_of_the_policies_of_this_node() {
    let wants = |name: &str, mode: Mode| {
        with(storage(name), |policy| {
            policy.min_free_bytes = Some(1_001);
            policy.mode = mode;
        })
    };
    let elsewhere = with(wants("elsewhere", Mode::Enforce), |policy| {
        policy.node_selector = app("x");
    });
    let policies = [wants("disk", Mode::Enforce), wants("trial", Mode::DryRun), elsewhere];
    let said = |node: Option<&Labels>, total| told(&beyond_disk(&policies, node, Some(disk(total, 500))));
    let what = |name: &str| {
        format!(
            "CheckpointStoragePolicy/{name} minFree.bytes has no effect: 1001 is more than the 1000 of this disk"
        )
    };
    assert_eq!(said(None, 1_000), [what("disk")]);
    let chosen = Labels::from([("app".to_owned(), "x".to_owned())]);
    assert_eq!(said(Some(&chosen), 1_000), [what("disk"), what("elsewhere")]);
    assert_eq!(said(Some(&chosen), 1_001), Vec::<String>::new());
}

#[test]
fn what_is_not_here_is_said_only_where_something_is() {
    let policy = with(keep(|_| {}), |policy| policy.selector.pods = vec!["web-9".to_owned()]);
    let wants = with(storage("disk"), |policy| policy.min_free_bytes = Some(1_001));
    let policies = PolicySet { retention: vec![policy], storage: vec![wants], ..PolicySet::default() };
    let empty = Snapshot::default();
    assert_eq!(told(&without_effect_here(&policies, &empty)), Vec::<String>::new());
    let here = Snapshot {
        archives: vec![archive("one")],
        filesystem: Some(disk(1_000, 500)),
        ..Snapshot::default()
    };
    assert_eq!(
        told(&without_effect_here(&policies, &here)),
        [
            "ClusterCheckpointPolicy/default governs nothing here: no archive is of the pod web-9",
            "CheckpointStoragePolicy/disk minFree.bytes has no effect: 1001 is more than the 1000 of this disk",
        ]
    );
}

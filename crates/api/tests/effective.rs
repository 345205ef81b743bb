//! Which of a cluster's objects are in force, and what the others are told.

#![allow(clippy::unwrap_used, clippy::panic, clippy::needless_pass_by_value)]

use checkpoint_keeper_api::CheckpointStoragePolicy;
use checkpoint_keeper_api::effective::{
    Acceptance, EffectivePolicies, Objects, Scope, Seen, Unparsable, effective_policies,
};
use checkpoint_keeper_core::plan::EffectiveStorage;
use checkpoint_keeper_core::policy::{Kind, Labels, PolicyRef, Precedence, Retention};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const DIRECTORY: &str = "/var/lib/kubelet/checkpoints";

fn scope() -> Scope {
    Scope {
        operator_namespaces: ["keeper".to_owned()].into(),
        other_operator: false,
        directory: DIRECTORY.to_owned(),
    }
}

fn object<K: DeserializeOwned>(metadata: Value, spec: Value) -> Seen<K> {
    let mut object = json!({"metadata": metadata, "spec": spec});
    for (kind, version) in [
        ("ClusterCheckpointPolicy", "checkpoint-keeper.io/v1alpha1"),
        ("CheckpointPolicy", "checkpoint-keeper.io/v1alpha1"),
        ("CheckpointStoragePolicy", "checkpoint-keeper.io/v1alpha1"),
        ("CheckpointRestoreOperator", "criu.org/v1"),
    ] {
        if std::any::type_name::<K>().ends_with(&format!("::{kind}")) {
            object["apiVersion"] = json!(version);
            object["kind"] = json!(kind);
        }
    }
    Seen::Parsed(serde_json::from_value(object).unwrap())
}

fn legacy(
    namespace: &str,
    name: &str,
    created: &str,
    spec: Value,
) -> Seen<checkpoint_keeper_api::CheckpointRestoreOperator> {
    object(json!({"namespace": namespace, "name": name, "creationTimestamp": created, "generation": 3}), spec)
}

/// One in the operator's own namespace, with annotations.
fn annotated(
    name: &str,
    annotations: Value,
    spec: Value,
) -> Seen<checkpoint_keeper_api::CheckpointRestoreOperator> {
    let metadata = json!({
        "namespace": "keeper", "name": name, "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 3,
        "annotations": annotations,
    });
    object(metadata, spec)
}

fn acceptance<'a>(
    found: &'a EffectivePolicies,
    kind: Kind,
    namespace: Option<&str>,
    name: &str,
) -> &'a Acceptance {
    let id = PolicyRef { kind, namespace: namespace.map(str::to_owned), name: name.to_owned(), part: None };
    &found.acceptances.get(&id).unwrap_or_else(|| panic!("{id} has no acceptance: {:?}", found.acceptances)).1
}

#[test]
fn an_object_that_does_not_parse_stands_for_all_that_it_could_govern() {
    let unparsable = |namespace: Option<&str>| {
        Box::new(Unparsable {
            namespace: namespace.map(str::to_owned),
            name: "broken".to_owned(),
            error: "spec.retention.maxAge: invalid type: integer".to_owned(),
            generation: Some(4),
            ..Unparsable::default()
        })
    };
    let objects = Objects {
        cluster: vec![Seen::Unparsable(unparsable(None))],
        namespaced: vec![Seen::Unparsable(unparsable(Some("team")))],
        storage: vec![Seen::Unparsable(unparsable(None))],
        legacy: vec![
            Seen::Unparsable(unparsable(Some("keeper"))),
            Seen::Unparsable(unparsable(Some("other"))),
        ],
    };
    let found = effective_policies(&objects, &scope());
    let invalid: Vec<(Kind, Option<&str>)> =
        found.policies.invalid.iter().map(|policy| (policy.id.kind, policy.namespace.as_deref())).collect();
    assert_eq!(
        invalid,
        [
            (Kind::ClusterCheckpointPolicy, None),
            (Kind::CheckpointPolicy, Some("team")),
            // In the operator's own namespace it could govern everything, elsewhere only that namespace.
            (Kind::CheckpointRestoreOperator, None),
            (Kind::CheckpointRestoreOperator, Some("other")),
        ]
    );
    assert!(found.policies.retention.is_empty());
    let told = acceptance(&found, Kind::CheckpointStoragePolicy, None, "broken");
    assert_eq!(told.reason(), "Invalid");
    assert!(!told.is_ready());
    // Whoever mends it sees which version was looked at.
    assert!(
        found.acceptances.values().all(|(generation, _)| *generation == Some(4)),
        "{:?}",
        found.acceptances
    );
}

#[test]
fn however_little_of_a_storage_policy_is_understood_its_deletion_limit_binds() {
    let limit_on = |node: Option<&Labels>, storage: Seen<CheckpointStoragePolicy>| {
        let objects = Objects { storage: vec![storage], ..Objects::default() };
        let found = effective_policies(&objects, &scope());
        // Nothing else of it is in force.
        let effective = EffectiveStorage::new(&found.policies.storage, node, None);
        assert!(effective.high_watermark.is_none() && effective.min_free_inodes.is_none());
        let limit = effective.deletion_limits.among(10);
        (limit.burst, limit.percent, limit.period)
    };
    // Nobody has told the node's labels.
    let limit = |storage| limit_on(None, storage);
    let seconds = std::time::Duration::from_secs;
    let spec = |more: Value| {
        let mut spec = json!({"deletionLimit": {"burst": 2, "percent": 1, "period": "1h"}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object(json!({"name": "slow"}), spec)
    };
    let kept = (2, 1, seconds(3_600));
    assert_eq!(limit(spec(json!({"highWatermark": "80%", "lowWatermark": "90%"}))), kept);
    assert_eq!(limit(spec(json!({"nodeSelector": {"matchLabels": {"pool": "gpu"}}}))), kept);
    let other: Labels = [("pool".to_owned(), "cpu".to_owned())].into();
    let no_selector = json!({"nodeSelector": {
        "matchLabels": {"pool": "gpu"}, "matchExpressions": [{"key": "zone", "operator": "In"}],
    }});
    assert_eq!(limit_on(Some(&other), spec(no_selector)), kept);
    let elsewhere = json!({"nodeSelector": {"matchLabels": {"pool": "gpu"}}, "minFree": {"inodes": -1}});
    assert_eq!(limit_on(Some(&other), spec(elsewhere)), (10, 5, seconds(60)));
    let slowest = (1, 0, seconds(60));
    assert_eq!(limit(spec(json!({"deletionLimit": {"burst": -1}}))), slowest);
    let unparsable = |deletion_limit: Option<Value>| {
        Seen::Unparsable(Box::new(Unparsable { deletion_limit, ..Unparsable::default() }))
    };
    assert_eq!(limit(unparsable(Some(json!({"burst": 2, "percent": 1, "period": "1h"})))), kept);
    assert_eq!(limit(unparsable(Some(json!("slow")))), slowest);
    // Who set no limit has the usual one.
    assert_eq!(limit(unparsable(None)), (10, 5, seconds(60)));
}

#[test]
fn an_object_that_was_stored_before_a_rule_existed_is_invalid_too() {
    let objects = Objects {
        cluster: vec![object(json!({"name": "old"}), json!({"retention": {"maxArchiveSize": 10}}))],
        ..Objects::default()
    };
    let found = effective_policies(&objects, &scope());
    assert_eq!(found.policies.invalid.len(), 1);
    assert!(found.policies.retention.is_empty());
    let Acceptance::Invalid(error) = acceptance(&found, Kind::ClusterCheckpointPolicy, None, "old") else {
        panic!("not invalid")
    };
    assert!(error.contains("spec.retention.maxArchiveSize") && error.contains("below 1Ki"), "{error}");
}

#[test]
fn of_several_in_the_operators_namespace_the_oldest_is_in_force() {
    let spec = |count: i64| json!({"globalPolicy": {"maxCheckpointsPerContainer": count}});
    let objects = Objects {
        legacy: vec![
            legacy("keeper", "young", "2026-03-01T00:00:00Z", spec(1)),
            legacy("keeper", "old", "2026-01-01T00:00:00Z", spec(7)),
            legacy("keeper", "middle", "2026-02-01T00:00:00Z", spec(2)),
        ],
        ..Objects::default()
    };
    let found = effective_policies(&objects, &scope());
    let kind = Kind::CheckpointRestoreOperator;
    assert_eq!(acceptance(&found, kind, Some("keeper"), "old"), &Acceptance::Accepted);
    let superseded = acceptance(&found, kind, Some("keeper"), "young");
    assert_eq!(superseded.reason(), "Superseded");
    assert_eq!(acceptance(&found, kind, Some("keeper"), "middle").reason(), "Superseded");
    let id = PolicyRef { kind, namespace: Some("keeper".to_owned()), name: "young".to_owned(), part: None };
    assert!(superseded.message(&id).contains("CheckpointRestoreOperator/keeper/old is older"));
    let limits: Vec<_> =
        found.policies.retention.iter().map(|policy| policy.retention.per_container.max_count).collect();
    assert_eq!(limits, [Some(7)]);
}

#[test]
fn an_object_in_a_tenants_namespace_governs_only_that_namespace() {
    let spec = json!({"namespacePolicies": [
        {"namespace": "team", "maxCheckpoints": 5}, {"namespace": "victim", "maxCheckpoints": 1},
    ]});
    let objects =
        Objects { legacy: vec![legacy("team", "mine", "2026-01-01T00:00:00Z", spec)], ..Objects::default() };
    let found = effective_policies(&objects, &scope());
    assert!(found.policies.retention.iter().all(|policy| policy.namespace.as_deref() == Some("team")));
    let told = acceptance(&found, Kind::CheckpointRestoreOperator, Some("team"), "mine");
    assert_eq!(told, &Acceptance::ForeignNamespace(vec!["namespacePolicies[1]".to_owned()]));
    let id = found.acceptances.keys().next().unwrap();
    assert!(told.message(id).contains("kubectl"), "{}", told.message(id));
}

#[test]
fn while_the_older_operator_runs_its_objects_govern_and_take_nothing_and_ours_are_enforced() {
    let theirs = json!({
        "globalPolicy": {
            "maxCheckpointsPerContainer": 3, "maxCheckpointSize": "1Gi", "retainOrphan": false,
        },
    });
    let objects = Objects {
        cluster: vec![object(json!({"name": "ours"}), json!({"retention": {"maxAge": "30d"}}))],
        legacy: vec![
            annotated("theirs", json!({"checkpoint-keeper.io/keep-latest": "2"}), theirs),
            legacy("keeper", "younger", "2026-02-01T00:00:00Z", json!({})),
            Seen::Unparsable(Box::new(Unparsable {
                namespace: Some("team".to_owned()),
                name: "broken".to_owned(),
                ..Unparsable::default()
            })),
        ],
        ..Objects::default()
    };
    let alone = effective_policies(&objects, &scope());
    let beside = effective_policies(&objects, &Scope { other_operator: true, ..scope() });
    // The same archives are governed by the same objects, so that none falls to another one.
    let governing = |found: &EffectivePolicies| {
        let policies = found.policies.retention.iter();
        policies.map(|policy| (policy.id.clone(), policy.selector.clone(), policy.mode)).collect::<Vec<_>>()
    };
    assert_eq!(governing(&beside), governing(&alone));
    assert_eq!(beside.policies.invalid, alone.policies.invalid);
    let [ours, theirs] = &beside.policies.retention[..] else { panic!("{:?}", beside.policies.retention) };
    assert_eq!(ours, &alone.policies.retention[0]);
    assert_eq!(theirs.retention, Retention { keep_latest: 2, ..Retention::default() });
    assert_eq!((theirs.orphans, theirs.incomplete_grace), (None, None));
    for (namespace, name) in [("keeper", "theirs"), ("keeper", "younger"), ("team", "broken")] {
        let told = acceptance(&beside, Kind::CheckpointRestoreOperator, Some(namespace), name);
        assert_eq!(told, &Acceptance::OtherOperator, "{name}");
    }
}

#[test]
fn a_directory_that_agents_do_not_have_is_not_collected_in() {
    let objects = Objects {
        legacy: vec![legacy(
            "keeper",
            "far",
            "2026-01-01T00:00:00Z",
            json!({"checkpointDirectory": "/srv/dumps"}),
        )],
        ..Objects::default()
    };
    let found = effective_policies(&objects, &scope());
    assert!(found.policies.retention.is_empty());
    let told = acceptance(&found, Kind::CheckpointRestoreOperator, Some("keeper"), "far");
    assert_eq!(told, &Acceptance::DirectoryNotMounted("/srv/dumps".to_owned()));
}

#[test]
fn directories_are_compared_as_paths_and_an_empty_one_is_the_default() {
    for directory in ["/var/lib/kubelet/checkpoints/", "/var//lib/kubelet/./checkpoints", ""] {
        let spec = json!({"checkpointDirectory": directory});
        let objects = Objects {
            legacy: vec![legacy("keeper", "a", "2026-01-01T00:00:00Z", spec)],
            ..Objects::default()
        };
        let found = effective_policies(&objects, &scope());
        let is = acceptance(&found, Kind::CheckpointRestoreOperator, Some("keeper"), "a");
        assert_eq!(*is, Acceptance::Accepted, "{directory:?}");
        // And so are the agents'.
        let scope = Scope { directory: "/var/lib/kubelet/checkpoints/".to_owned(), ..scope() };
        let found = effective_policies(&objects, &scope);
        assert!(!found.policies.retention.is_empty(), "{directory:?}");
    }
}

#[test]
fn a_watermark_that_was_stored_before_it_was_refused_is_not_obeyed_and_spares_what_it_spared() {
    let spec = json!({"highWatermark": "8%", "protectLatest": 3});
    let objects = Objects { storage: vec![object(json!({"name": "typo"}), spec)], ..Objects::default() };
    let found = effective_policies(&objects, &scope());
    let is = acceptance(&found, Kind::CheckpointStoragePolicy, None, "typo");
    assert!(is.message(&found.policies.storage[0].id).contains("8% must be at least 50%"), "{is:?}");
    let policy = &found.policies.storage[0];
    assert_eq!((policy.high_watermark, policy.protect_latest), (None, Some(3)));
}

/// What protects evidence must not let a team's limit of one have it for a field that is not understood.
#[test]
fn one_that_goes_before_namespaces_policies_stands_for_them_too_while_it_is_not_understood() {
    let wrong = json!({"precedence": "Override", "retention": {"maxAge": "1 day"}});
    let unparsable = |precedence: Option<&str>| {
        Seen::Unparsable(Box::new(Unparsable {
            name: "evidence".to_owned(),
            precedence: precedence.map(Value::from),
            ..Unparsable::default()
        }))
    };
    for (evidence, stands) in [
        (object(json!({"name": "evidence"}), wrong), true),
        (unparsable(Some("Override")), true),
        (unparsable(Some("Evidence")), true),
        (unparsable(Some("Default")), false),
        (unparsable(None), false),
    ] {
        let team = object(
            json!({"name": "one", "namespace": "shop"}),
            json!({"retention": {"perPod": {"maxCount": 1}}}),
        );
        let objects = Objects { cluster: vec![evidence], namespaced: vec![team], ..Objects::default() };
        let invalid = effective_policies(&objects, &scope()).policies.invalid;
        let [invalid] = &invalid[..] else { panic!("{invalid:?}") };
        let expected = if stands { Precedence::Override } else { Precedence::Default };
        assert_eq!((invalid.precedence, invalid.namespace.as_deref()), (expected, None));
    }
}

#[test]
fn a_storage_policy_may_be_a_dry_run() {
    let spec = json!({"mode": "DryRun", "highWatermark": "80%"});
    let objects = Objects { storage: vec![object(json!({"name": "try"}), spec)], ..Objects::default() };
    let found = effective_policies(&objects, &scope());
    assert_eq!(*acceptance(&found, Kind::CheckpointStoragePolicy, None, "try"), Acceptance::DryRun);
    assert_eq!(found.policies.storage[0].mode, checkpoint_keeper_core::policy::Mode::DryRun);
}

#[test]
fn a_dry_run_is_understood_and_said_to_delete_nothing() {
    let objects = Objects {
        cluster: vec![object(
            json!({"name": "try", "generation": 5}),
            json!({"mode": "DryRun", "retention": {"maxAge": "1d"}}),
        )],
        legacy: vec![annotated("try", json!({"checkpoint-keeper.io/mode": "DryRun"}), json!({}))],
        ..Objects::default()
    };
    let found = effective_policies(&objects, &scope());
    for (id, (generation, acceptance)) in &found.acceptances {
        assert_eq!(acceptance, &Acceptance::DryRun, "{id}");
        assert!(generation.is_some(), "{id}");
    }
    assert_eq!(found.acceptances.len(), 2);
}

//! What quotas mean, what is wrong with those that mean nothing, and what a file's reader does with them.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use checkpoint_keeper_api::quota::{QuotaReadyReason, QuotaUsed};
use checkpoint_keeper_api::{CheckpointQuota, FieldError, manifest};
use checkpoint_keeper_core::quantity::Share;
use checkpoint_keeper_core::quota::{Hard, Held, OnExceed, Quota};
use serde_json::{Value, json};

fn read(spec: &Value) -> Result<Quota, Vec<FieldError>> {
    let object: CheckpointQuota = serde_json::from_value(json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointQuota",
        "metadata": {"name": "evidence", "namespace": "shop"}, "spec": spec,
    }))
    .unwrap();
    object.to_quota()
}

#[test]
fn every_field_of_a_quota_arrives() {
    let quota = read(&json!({
        "hard": {"count": 200, "bytes": "100Gi"}, "warnAt": "62.5%", "onExceed": "Warn",
    }))
    .unwrap();
    assert_eq!((quota.namespace.as_str(), quota.name.as_str()), ("shop", "evidence"));
    assert_eq!(quota.hard, Hard { count: Some(200), bytes: Some(100 << 30) });
    assert_eq!((quota.warn_at, quota.on_exceed), (Share::parse("62.5%").ok(), OnExceed::Warn));
    assert_eq!(quota.to_string(), "CheckpointQuota/shop/evidence");
}

#[test]
fn a_quota_that_says_little_rejects_and_warns_at_80_percent() {
    let quota = read(&json!({"hard": {"count": 5}})).unwrap();
    assert_eq!(quota.hard, Hard { count: Some(5), bytes: None });
    assert_eq!((quota.warn_at, quota.on_exceed), (Share::percent(80), OnExceed::Reject));
    assert_eq!(read(&json!({"hard": {"bytes": 1024}, "warnAt": "0%"})).unwrap().warn_at, None);
}

/// Elsewhere 0 turns a limit off.
#[test]
fn a_quota_of_nothing_is_one() {
    for hard in [json!({"count": 0, "bytes": 0}), json!({"count": 0, "bytes": "0"})] {
        assert_eq!(read(&json!({"hard": hard})).unwrap().hard, Hard { count: Some(0), bytes: Some(0) });
    }
}

#[test]
fn what_is_wrong_with_a_quota_is_told_field_by_field() {
    let told = |spec: Value| -> Vec<String> {
        read(&spec).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(told(json!({"hard": {}})), ["spec.hard: must have count or bytes"]);
    let both = told(json!({"hard": {"count": -1, "bytes": 100}, "warnAt": "80"}));
    assert_eq!(both.len(), 3, "{both:?}");
    assert!(both[0].starts_with("spec.warnAt: "), "{both:?}");
    assert!(both[1].starts_with("spec.hard.count: -1 is negative"), "{both:?}");
    assert!(both[2].starts_with("spec.hard.bytes: 100 is below 1Ki"), "{both:?}");
}

#[test]
fn what_is_used_is_told_to_the_byte() {
    for (bytes, text) in [(3 << 30, "3Gi"), (3_221_225_473, "3221225473"), (0, "0")] {
        let used: QuotaUsed = Held { count: 12, bytes }.into();
        assert_eq!((used.count, used.bytes.0.as_str()), (12, text));
        assert_eq!(used.held(), Held { count: 12, bytes });
    }
    let nonsense = QuotaUsed { count: -3, ..QuotaUsed::default() };
    assert_eq!(nonsense.held(), Held::default());
}

#[test]
fn reasons_have_names_of_their_own_and_only_one_is_good() {
    let names: Vec<_> = QuotaReadyReason::ALL.map(|reason| (reason.name(), reason.status())).into();
    assert_eq!(names, [("Accepted", "True"), ("UsagePartial", "Unknown"), ("InvalidQuota", "False")]);
}

const POLICY: &str = "apiVersion: checkpoint-keeper.io/v1alpha1\nkind: ClusterCheckpointPolicy\n\
    metadata: {name: a}\nspec: {retention: {maxAge: 1d}}\n---\n";

#[test]
fn a_file_may_hold_a_quota_beside_policies_and_it_is_left_to_the_cluster() {
    let quota = "apiVersion: checkpoint-keeper.io/v1alpha1\nkind: CheckpointQuota\n\
        metadata: {name: q, namespace: shop}\nspec: {hard: {count: 1}}\n";
    let loaded = manifest::load(&[("p.yaml", format!("{POLICY}{quota}"))]).unwrap();
    assert_eq!((loaded.policies.retention.len(), loaded.notes.len()), (1, 1));
    let note = loaded.notes[0].to_string();
    assert!(note.starts_with("p.yaml:6: CheckpointQuota/shop/q: is skipped: it says how much"), "{note}");
    // Alone it is no policy.
    assert!(manifest::load(&[("p.yaml", quota)]).is_err());
    let broken = quota.replace("{count: 1}", "{count: 1, size: 3}");
    let errors = manifest::load(&[("p.yaml", format!("{POLICY}{broken}"))]).unwrap_err();
    assert!(errors[0].to_string().contains("spec.hard.size"), "{errors:?}");
}

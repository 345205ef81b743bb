//! Whatever a file holds, reading it ends in policies or in errors, never in a panic.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use checkpoint_keeper_api::manifest;
use checkpoint_keeper_api::{ClusterCheckpointPolicy, ClusterCheckpointPolicySpec};
use checkpoint_keeper_core::policy::{KeepFor, Size};
use proptest::prelude::*;
use serde_json::{Value, json};

const EXAMPLES: [&str; 7] = [
    include_str!("../../../examples/policy.yaml"),
    include_str!("../../../examples/newest-only.yaml"),
    include_str!("../../../examples/team-policy.yaml"),
    include_str!("../../../examples/storage.yaml"),
    include_str!("../../../examples/existing-operator.yaml"),
    include_str!("../../../examples/schedule.yaml"),
    include_str!("../../../examples/quota.yaml"),
];

fn must_not_panic(text: &str) {
    if let Err(errors) = manifest::load(&[("p.yaml", text)]) {
        assert!(!errors.is_empty());
        let lines = text.lines().count() as u64 + 1;
        for error in errors {
            assert!(error.line <= lines, "{error:?}");
            assert!(error.to_string().len() < 4_096, "{error:?}");
        }
    }
}

fn size() -> impl Strategy<Value = Value> {
    prop_oneof![
        (1_024_i64..1 << 50).prop_map(Value::from),
        (1_u32..4_096, "[KMGT]i").prop_map(|(number, suffix)| json!(format!("{number}{suffix}"))),
        (0_u32..=100).prop_map(|percent| json!(format!("{percent}%"))),
    ]
}

fn limit() -> impl Strategy<Value = Value> {
    (proptest::option::of(0_i64..1_000), proptest::option::of(size()))
        .prop_map(|(count, size)| json!({"maxCount": count, "maxTotalSize": size}))
}

fn duration() -> impl Strategy<Value = String> {
    (1_u32..5_000, "[smhdw]").prop_map(|(number, unit)| format!("{number}{unit}"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}") {
        must_not_panic(&text);
    }

    #[test]
    fn arbitrary_yaml_like_text_never_panics(text in "([a-c]: |- |[\\[{}\\],:&*!|>'\"#%~?]|\n|  |---|[0-9]|<<: |\\*a|&a){0,120}") {
        must_not_panic(&text);
    }

    #[test]
    fn a_mutilated_manifest_never_panics(
        which in 0..EXAMPLES.len(), cut in 0_usize..4_000, length in 0_usize..40, insert in "\\PC{0,8}",
    ) {
        let text = EXAMPLES[which];
        let boundary = |mut at: usize| { at = at.min(text.len()); while !text.is_char_boundary(at) { at -= 1; } at };
        let (begin, end) = (boundary(cut), boundary(cut + length));
        must_not_panic(&format!("{}{insert}{}", &text[..begin], &text[end..]));
    }

    #[test]
    fn what_a_spec_says_is_what_the_policy_means(
        age in duration(), keep in 0_i32..100, per_pod in limit(), per_namespace in limit(),
        pods in proptest::collection::vec("[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?", 0..5),
    ) {
        let spec = json!({
            "selector": {"pods": pods},
            "retention": {"keepLatest": keep, "keepLatestFor": "Forever", "maxAge": age, "perPod": per_pod, "perNamespace": per_namespace},
        });
        let text = json!({
            "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "ClusterCheckpointPolicy", "metadata": {"name": "a"}, "spec": spec,
        }).to_string();
        let loaded = manifest::load(&[("p.json", &text)]).unwrap();
        let policy = &loaded.policies.retention[0];
        prop_assert_eq!(&policy.selector.pods, &pods);
        prop_assert_eq!(policy.retention.keep_latest, u32::try_from(keep).unwrap());
        prop_assert_eq!(policy.retention.keep_latest_for, KeepFor::Forever);
        prop_assert_eq!(policy.retention.max_age, Some(checkpoint_keeper_core::duration::parse(&age).unwrap()));
        let count = per_pod["maxCount"].as_u64().filter(|count| *count > 0);
        prop_assert_eq!(policy.retention.per_pod.max_count, count);
        if let Some(bytes) = per_pod["maxTotalSize"].as_u64() {
            prop_assert_eq!(policy.retention.per_pod.max_total_size, Some(Size::Bytes(bytes)));
        }
        // The typed object, written and read again, is the same and means the same.
        let object: ClusterCheckpointPolicy = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&object.to_policy().unwrap(), policy);
        let again: ClusterCheckpointPolicySpec =
            serde_json::from_value(serde_json::to_value(&object.spec).unwrap()).unwrap();
        prop_assert_eq!(again, object.spec);
    }
}

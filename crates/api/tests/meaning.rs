//! What manifests mean to the engine: every field, every default, every example.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use checkpoint_keeper_api::legacy_annotations::deciding_annotations;
use checkpoint_keeper_api::manifest::{self, Loaded};
use checkpoint_keeper_api::{CheckpointRestoreOperator, Governs, is_same_path};
use checkpoint_keeper_core::plan::EffectiveStorage;
use checkpoint_keeper_core::policy::{
    Ceiling, DeletionLimit, KeepFor, Limit, Mode, Operator, OrphanRule, OrphanWhen, PartialDeletionLimit,
    Policy, Precedence, Requirement, Retention, Size, StoragePolicy, Tiers,
};
use checkpoint_keeper_core::quantity::Share;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
const GI: u64 = 1 << 30;

fn load(text: &str) -> Loaded {
    manifest::load(&[("p.yaml", text)]).unwrap_or_else(|errors| {
        panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    })
}

fn example(name: &str) -> Loaded {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // A file has to hold a policy; schedules and quotas are checked beside it.
    let is_none = ["schedule.yaml", "quota.yaml"].contains(&name);
    let policy = if is_none { include_str!("../../../examples/newest-only.yaml") } else { "" };
    load(&format!("{text}\n---\n{policy}"))
}

fn cluster(spec: &str) -> Policy {
    let text = format!(
        "{{apiVersion: checkpoint-keeper.io/v1alpha1, kind: ClusterCheckpointPolicy, metadata: {{name: a}}, spec: {spec}}}"
    );
    load(&text).policies.retention.remove(0)
}

fn storage(spec: &str) -> StoragePolicy {
    let text = format!(
        "{{apiVersion: checkpoint-keeper.io/v1alpha1, kind: CheckpointStoragePolicy, metadata: {{name: a}}, spec: {spec}}}"
    );
    load(&text).policies.storage.remove(0)
}

fn legacy(spec: &str) -> Loaded {
    load(&format!(
        "{{apiVersion: criu.org/v1, kind: CheckpointRestoreOperator, metadata: {{name: a, namespace: o}}, spec: {spec}}}"
    ))
}

fn limit(count: u64, size: u64) -> Limit {
    Limit { max_count: Some(count), max_total_size: Some(Size::Bytes(size)) }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn every_example_loads_without_a_warning_that_is_not_meant() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut told = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if Path::new(&name).extension().is_some_and(|extension| extension == "yaml") {
            told.extend(
                example(&name).warnings.into_iter().map(|warning| format!("{name}: {}", warning.message)),
            );
        }
    }
    told.sort();
    assert_eq!(
        told,
        [
            "dev-cluster.yaml: is a dry run: it deletes nothing",
            "dev-cluster.yaml: is a dry run: it governs nothing and deletes nothing",
            "evidence.yaml: has no rule, so it keeps every archive that it governs",
            "gpu-nodes.yaml: is a dry run: it deletes nothing",
            "gpu-nodes.yaml: is a dry run: it governs nothing and deletes nothing",
            "gpu-nodes.yaml: selects nodes by their labels, which are not known without a cluster",
            "policy.yaml: is a dry run: it deletes nothing",
            "policy.yaml: is a dry run: it governs nothing and deletes nothing",
            "production.yaml: is a dry run: it deletes nothing",
            "production.yaml: is a dry run: it governs nothing and deletes nothing",
            "storage.yaml: selects nodes by their labels, which are not known without a cluster",
            "team-policy.yaml: is a dry run: it governs nothing and deletes nothing",
        ]
    );
}

#[test]
fn an_empty_policy_keeps_everything_and_warns() {
    let loaded = load(
        "# comment\n---\napiVersion: checkpoint-keeper.io/v1alpha1\nkind: ClusterCheckpointPolicy\nmetadata:\n  name: a\n  \
         creationTimestamp: 2026-01-02T03:04:05Z\n  labels: {x: z}\nspec: {}\nstatus: {whatever: [1]}\n",
    );
    let policy = &loaded.policies.retention[0];
    assert_eq!(policy.retention, Retention::default());
    assert_eq!((policy.mode, policy.orphans, policy.incomplete_grace), (Mode::Enforce, None, None));
    assert!(policy.selector.is_empty() && policy.namespace.is_none());
    assert_eq!(policy.created, Some("2026-01-02T03:04:05Z".parse().unwrap()));
    assert_eq!(
        loaded.warnings[0].to_string(),
        "p.yaml:6: ClusterCheckpointPolicy/a: has no rule, so it keeps every archive that it governs"
    );
}

#[test]
fn every_field_of_a_team_policy_arrives() {
    let loaded = example("team-policy.yaml");
    let policy = &loaded.policies.retention[0];
    assert_eq!(policy.id.to_string(), "CheckpointPolicy/shop-eu/database");
    assert_eq!(policy.namespace.as_deref(), Some("shop-eu"));
    assert_eq!(policy.selector.pods, ["db-0", "db-1"]);
    assert_eq!(policy.selector.containers, ["engine"]);
    assert_eq!(
        policy.selector.pod_labels.0,
        [
            Requirement { key: "app".into(), operator: Operator::In(vec!["db".into()]) },
            Requirement { key: "tier".into(), operator: Operator::NotIn(vec!["cache".into()]) },
        ]
    );
    assert_eq!(
        policy.retention,
        Retention {
            keep_latest: 2,
            keep_latest_for: KeepFor::Forever,
            min_age: Some(seconds(HOUR)),
            max_age: None,
            max_archive_size: Some(20 * GI),
            per_container: Limit { max_count: None, max_total_size: Some(Size::Bytes(50 * GI)) },
            per_workload: Limit { max_count: Some(60), max_total_size: None },
            per_pod: limit(60, 60 * GI),
            per_namespace: Limit {
                max_count: Some(200),
                max_total_size: Share::percent(10).map(Size::Share),
            },
            tiers: Some(Tiers { hourly: 24, daily: 7, weekly: 4, monthly: 12, yearly: 3 }),
        }
    );
    let grace = Duration::from_secs(7 * DAY);
    assert_eq!(policy.orphans, Some(OrphanRule { when: OrphanWhen::NamespaceDeleted, grace }));
    assert_eq!(policy.incomplete_grace, Some(seconds(1_800)));
    assert_eq!(policy.damaged_grace, Some(seconds(3 * DAY)));
    assert_eq!(policy.precedence, Precedence::Default);
    assert_eq!(loaded.policies.retention[1].mode, Mode::DryRun);
}

#[test]
fn defaults_are_the_documented_ones() {
    let policy =
        cluster("{orphans: {action: Delete}, incomplete: {action: Delete}, damaged: {action: Delete}}");
    assert_eq!(policy.damaged_grace, Some(seconds(DAY)));
    assert_eq!(policy.precedence, Precedence::Default);
    assert_eq!(cluster("{precedence: Override}").precedence, Precedence::Override);
    let grace = Duration::from_secs(24 * HOUR);
    assert_eq!(policy.orphans, Some(OrphanRule { when: OrphanWhen::WorkloadDeleted, grace }));
    assert_eq!(policy.incomplete_grace, Some(seconds(HOUR)));
    assert_eq!(
        (policy.retention.keep_latest, policy.retention.keep_latest_for),
        (1, KeepFor::For(Duration::from_secs(7 * DAY)))
    );
    let policy =
        cluster("{orphans: {action: Retain}, incomplete: {action: Retain}, damaged: {action: Retain}}");
    assert_eq!((policy.orphans, policy.incomplete_grace, policy.damaged_grace), (None, None, None));
    let policy = cluster(
        "{orphans: {action: Delete, when: PodDeleted, gracePeriod: '0'}, incomplete: {action: Delete, gracePeriod: 0s}}",
    );
    assert_eq!(policy.orphans, Some(OrphanRule { when: OrphanWhen::PodDeleted, grace: Duration::ZERO }));
    assert_eq!(policy.incomplete_grace, Some(seconds(0)));
}

#[test]
fn zero_turns_one_rule_off() {
    let policy = cluster(
        "{retention: {minAge: '0', maxAge: 0s, maxArchiveSize: 0, keepLatest: 0, perPod: {maxCount: 0, maxTotalSize: 0%}, \
         perContainer: {maxCount: 3, maxTotalSize: \"0\"}}}",
    );
    let only = Limit { max_count: Some(3), max_total_size: None };
    assert_eq!(policy.retention, Retention { keep_latest: 0, per_container: only, ..Retention::default() });
}

#[test]
fn sizes_are_bytes_with_kubernetes_suffixes() {
    for (text, bytes) in
        [("1024", 1024), ("1e9", 1_000_000_000), ("1.5Gi", 3 << 29), ("2k", 2_000), ("'4Mi'", 4 << 20)]
    {
        let policy = cluster(&format!("{{retention: {{maxArchiveSize: {text}}}}}"));
        assert_eq!(policy.retention.max_archive_size, Some(bytes), "{text}");
    }
}

#[test]
fn every_field_of_a_storage_policy_arrives() {
    let policy = &example("storage.yaml").policies.storage[0];
    assert_eq!(
        (policy.high_watermark, policy.low_watermark, policy.reserved),
        (Share::percent(88), Share::percent(85), Share::percent(5))
    );
    assert_eq!(
        (policy.mode, policy.critical_watermark, policy.protect_latest),
        (Mode::Enforce, Share::percent(95), Some(1))
    );
    assert_eq!((policy.min_free_bytes, policy.min_free_inodes), (Some(10 * GI), Some(1_000)));
    assert_eq!(policy.max_total_size, Some(Size::Bytes(200 * GI)));
    let ceiling =
        Ceiling { limit: limit(500, 50 * GI), max_age: Some(seconds(90 * DAY)), ..Ceiling::default() };
    assert_eq!(policy.per_namespace, ceiling);
    assert_eq!(policy.deletion_limit, Some(DeletionLimit::default().into()));
    let gpu = &example("storage.yaml").policies.storage[1];
    assert_eq!(
        gpu.node_selector.0,
        [Requirement { key: "pool".into(), operator: Operator::In(vec!["gpu".into()]) }]
    );
    assert_eq!((gpu.max_total_size, gpu.reserved), (Share::percent(40).map(Size::Share), None));
}

#[test]
fn of_a_storage_policy_arrives_what_is_written_and_no_default() {
    let policy = storage("{highWatermark: 88.5%}");
    assert_eq!(policy.high_watermark, Share::parse("88.5%").ok());
    let silent = storage("{}");
    for policy in [&policy, &silent] {
        assert_eq!((policy.low_watermark, policy.reserved), (None, None));
        assert_eq!((policy.critical_watermark, policy.protect_latest), (None, None));
    }
    assert_eq!((silent.mode, silent.high_watermark, silent.deletion_limit), (Mode::Enforce, None, None));
    assert_eq!(storage("{mode: DryRun}").mode, Mode::DryRun);
    let nothing = Share::percent(0);
    let zero = storage(
        "{highWatermark: 0%, lowWatermark: 0%, criticalWatermark: 0%, reserved: 0%, protectLatest: 0}",
    );
    assert_eq!((zero.high_watermark, zero.low_watermark), (nothing, nothing));
    assert_eq!((zero.critical_watermark, zero.reserved), (nothing, nothing));
    assert_eq!(zero.protect_latest, Some(0));
    let limit = storage("{deletionLimit: {burst: 3}}").deletion_limit;
    assert_eq!(limit, Some(PartialDeletionLimit { burst: Some(3), ..PartialDeletionLimit::default() }));
}

#[test]
fn where_nothing_may_be_held_0_is_a_limit() {
    let read = |limit: &str| storage(&format!("{{perNamespace: {{maxHeld: {limit}}}}}"));
    for (limit, count, size) in [
        ("{}", None, None),
        ("{maxCount: 0}", Some(0), None),
        ("{maxCount: 3, maxTotalSize: 0}", Some(3), Some(0)),
        ("{maxTotalSize: 0%}", None, Some(0)),
        ("{maxTotalSize: 1Gi}", None, Some(GI)),
    ] {
        // Another policy that allows some does not allow it, and one that says nothing changes nothing.
        let policies = [read("{maxCount: 9, maxTotalSize: 9Gi}"), read(limit), storage("{}")];
        let alone = EffectiveStorage::new(&policies[1..], None, None);
        let value = |asked: &Option<(u64, _)>| asked.as_ref().map(|(value, _)| *value);
        assert_eq!((value(&alone.held_count), value(&alone.held_size)), (count, size), "{limit}");
        let together = EffectiveStorage::new(&policies, None, None);
        let both = (value(&together.held_count), value(&together.held_size));
        assert_eq!(both, (count.or(Some(9)), size.or(Some(9 * GI))), "{limit}");
    }
}

#[test]
fn a_low_watermark_that_may_lack_a_digit_is_said() {
    let warnings = |spec: &str| {
        load(&format!("apiVersion: checkpoint-keeper.io/v1alpha1\nkind: CheckpointStoragePolicy\nmetadata: {{name: a}}\nspec: {spec}\n"))
            .warnings
            .iter()
            .map(|warning| warning.message.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        warnings("{highWatermark: 88%, lowWatermark: 8%}"),
        ["lowWatermark 8% is far below highWatermark 88%: one full disk, and so much goes"]
    );
    assert_eq!(warnings("{highWatermark: 88%, lowWatermark: 60%}"), Vec::<String>::new());
    assert_eq!(warnings("{highWatermark: 88%, lowWatermark: 0%}"), Vec::<String>::new());
}

#[test]
fn a_reserve_of_nothing_is_nothing_and_a_default_is_not_lost_beside_another_policy() {
    let policies = [storage("{highWatermark: 88%, reserved: 0%}"), storage("{highWatermark: 80%}")];
    let together = EffectiveStorage::new(&policies, None, None);
    assert_eq!(together.reserved.map(|(share, _)| share), Share::percent(0));
    assert_eq!(together.high_watermark.map(|(share, _)| share), Share::percent(80));
    // Not 85%, three points below a watermark that is not the one in effect.
    assert_ne!(together.low_watermark.map(|(share, _)| share), Share::percent(85));
}

#[test]
fn a_deletion_limit_never_comes_to_nothing() {
    let limit = |text: &str| storage(&format!("{{deletionLimit: {text}}}"));
    let share_only = limit("{burst: 0, percent: 5}");
    let capacity = |policies: &[StoragePolicy], archives| {
        let limits = EffectiveStorage::new(policies, None, None).deletion_limits;
        limits.among(archives).capacity(archives)
    };
    assert_eq!(capacity(std::slice::from_ref(&share_only), 3), 1);
    assert_eq!(capacity(&[share_only, limit("{burst: 10, percent: 0}")], 1_000), 1);
}

#[test]
fn whole_numbers_may_be_written_as_helm_and_json_write_them() {
    for (text, count) in [("1e+06", 1_000_000), ("3.0", 3), ("1E3", 1_000)] {
        let policy =
            cluster(&format!("{{retention: {{keepLatest: 2.0, perContainer: {{maxCount: {text}}}}}}}"));
        let limit = policy.retention.per_container;
        assert_eq!((limit.max_count, policy.retention.keep_latest), (Some(count), 2), "{text}");
    }
}

#[test]
fn other_kinds_of_ours_are_skipped_with_a_note() {
    let restore = "---\napiVersion: criu.org/v1\nkind: PodRestore\nmetadata: {name: s, namespace: n}\nspec: {whatever: 1}\n";
    let loaded = load(&format!("{restore}{POLICY}"));
    assert_eq!((loaded.policies.retention.len(), loaded.warnings.len()), (1, 0));
    let notes: Vec<_> = loaded.notes.iter().map(ToString::to_string).collect();
    assert_eq!(notes, ["p.yaml:2: PodRestore/n/s: is skipped: a PodRestore says nothing about what is kept"]);
    let alone = manifest::load(&[("p.yaml", restore)]).unwrap_err();
    assert_eq!(alone[0].message, "no policy in this file");
    let beside = manifest::load(&[("s.yaml", restore), ("p.yaml", POLICY)]).unwrap();
    assert_eq!(beside.policies.retention.len(), 1);
}

const POLICY: &str = "---\napiVersion: checkpoint-keeper.io/v1alpha1\nkind: ClusterCheckpointPolicy\nmetadata: {name: a}\nspec: {retention: {maxAge: 1d}}\n";

fn schedule(version: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: {version}\nkind: CheckpointSchedule\nmetadata: {{name: s, namespace: shop}}\nspec: {spec}\n"
    )
}

#[test]
fn schedules_beside_policies_are_checked_and_left_to_the_agents() {
    let native =
        schedule("checkpoint-keeper.io/v1alpha1", "{selector: {}, triggers: {schedule: '0 * * * *'}}");
    let older = schedule(
        "criu.org/v1",
        "{namespace: another, selector: {}, triggers: {onKubernetesEvents: [NodeDrain, Reboot]}}",
    );
    let loaded = load(&format!("{native}{older}{POLICY}"));
    assert_eq!(loaded.policies.retention.len(), 1);
    let told = |told: &[manifest::ManifestWarning]| told.iter().map(ToString::to_string).collect::<Vec<_>>();
    let skipped =
        "CheckpointSchedule/shop/s: is skipped: it says what is checkpointed, and agents carry it out";
    assert_eq!(told(&loaded.notes), [format!("p.yaml:2: {skipped}"), format!("p.yaml:7: {skipped}")]);
    assert_eq!(
        told(&loaded.warnings),
        ["p.yaml:10: CheckpointSchedule/shop/s: spec.triggers.onKubernetesEvents[1]: \"Reboot\" is none of \
            NodeDrain, PodEviction, Preemption"]
    );
    let alone = manifest::load(&[("p.yaml", native)]).unwrap_err();
    assert_eq!(alone[0].message, "no policy in this file");
}

#[test]
fn what_is_wrong_with_a_schedule_beside_policies_is_told() {
    let wrong = |version: &str, spec: &str| {
        let errors =
            manifest::load(&[("p.yaml", format!("{POLICY}{}", schedule(version, spec)))]).unwrap_err();
        let told: Vec<_> = errors.iter().map(|error| error.to_string().replace("p.yaml:", "")).collect();
        told.join("\n").replace(" CheckpointSchedule/shop/s: ", " ")
    };
    let native = |spec: &str| wrong("checkpoint-keeper.io/v1alpha1", spec);
    for (spec, expected) in [
        ("{}", "10: spec.selector: is required\n10: spec.triggers: is required"),
        (
            "{selector: {}, triggers: {schedule: '0 25 * * *'}}",
            "10: spec.triggers.schedule: value must be in range 0..=23; found 25 at \"25\"",
        ),
        (
            "{selector: {}, triggers: {schedule: '0 2 * * *', timeZone: Mars/Base}}",
            "10: spec.triggers.timeZone: unknown time zone \"Mars/Base\"; write a name of the IANA database, for \
             example Europe/Berlin, or UTC",
        ),
        (
            "{selector: {}, triggers: {onDisruption: [NodeDrian]}}",
            "10: spec.triggers.onDisruption[0]: \"NodeDrian\" is none of NodeDrain, PodEviction, Preemption, \
             PodDeletion\n  hint: did you mean \"NodeDrain\"?",
        ),
        (
            "{selector: {}, schedule: '0 * * * *', triggers: {interval: 1h}}",
            "10: spec.schedule: unknown field\n  hint: \"schedule\" belongs in spec.triggers",
        ),
        (
            "{selector: {}, triggers: {interval: 0s}}",
            "10: spec.triggers.interval: interval must be at least 1s",
        ),
    ] {
        assert_eq!(native(spec), expected, "{spec}");
    }
    assert_eq!(wrong("criu.org/v1", "{selector: {}, triggers: {}}"), "10: spec.namespace: is required");
    assert!(wrong("criu.org/v2", "{}").contains("apiVersion: \"criu.org/v2\" has no CheckpointSchedule"));
    // Two of one name are one object only in one group.
    let interval = "{selector: {}, namespace: shop, triggers: {interval: 1h}}";
    let older = schedule("criu.org/v1", interval);
    let native = schedule("checkpoint-keeper.io/v1alpha1", "{selector: {}, triggers: {interval: 1h}}");
    assert_eq!(load(&format!("{POLICY}{older}{native}")).notes.len(), 2);
    let twice = manifest::load(&[("p.yaml", format!("{POLICY}{older}{older}"))]).unwrap_err();
    assert_eq!(twice[0].message, "is there twice; the first is in p.yaml:9");
}

#[test]
fn an_older_object_for_another_directory_is_not_applied_and_says_so() {
    let object = |name: &str, created: &str, directory: &str| {
        format!(
            "---\napiVersion: criu.org/v1\nkind: CheckpointRestoreOperator\nmetadata: {{name: {name}, namespace: o, creationTimestamp: {created}}}\n\
             spec: {{checkpointDirectory: {directory}}}\n"
        )
    };
    let text = object("old", "2026-01-01T00:00:00Z", "/elsewhere")
        + &object("young", "2026-01-02T00:00:00Z", "//here/./dir/");
    let files = [("p.yaml", text)];
    let loaded = manifest::load_for(&files, |path| is_same_path(path, "/here/dir")).unwrap();
    assert!(!loaded.policies.retention.is_empty());
    assert!(loaded.policies.retention.iter().all(|policy| policy.id.name == "young"));
    let told: Vec<_> = loaded.warnings.iter().map(|warning| &warning.message).collect();
    assert_eq!(
        told,
        ["is not applied: its checkpointDirectory is /elsewhere, which is another directory than this one"]
    );
    // One that names none is for whichever directory it is given for.
    for silent in [object("a", "2026-01-01T00:00:00Z", "''"), object("a", "2026-01-01T00:00:00Z", "~")] {
        assert!(!manifest::load_for(&[("p.yaml", silent)], |_| false).unwrap().policies.retention.is_empty());
    }
}

#[test]
fn every_field_of_the_older_kind_arrives() {
    let loaded = example("existing-operator.yaml");
    let settings = &loaded.legacy[0];
    assert_eq!(settings.checkpoint_directory, "/var/lib/kubelet/checkpoints");
    assert!(!settings.apply_policies_immediately && settings.effective);
    let parts: Vec<_> = loaded.policies.retention.iter().map(|policy| policy.id.part.as_deref()).collect();
    assert_eq!(
        parts,
        [Some("containerPolicies[0]"), Some("podPolicies[0]"), Some("namespacePolicies[0]"), None]
    );
    let [container, pod, namespace, global] = &loaded.policies.retention[..] else { panic!("{parts:?}") };

    assert_eq!(container.selector.namespaces, ["shop"]);
    assert_eq!(
        (&container.selector.pods[..], &container.selector.containers[..]),
        (&["web-0".to_owned()][..], &["server".to_owned()][..])
    );
    assert_eq!(
        container.retention,
        Retention {
            keep_latest: 2,
            keep_latest_for: KeepFor::For(Duration::from_secs(3 * DAY)),
            max_archive_size: Some(2 * GI),
            per_container: limit(5, 8 * GI),
            ..Retention::default()
        }
    );
    let grace = Duration::from_secs(2 * HOUR);
    assert_eq!(container.orphans, Some(OrphanRule { when: OrphanWhen::PodDeleted, grace }));

    assert_eq!((&pod.selector.pods[..], pod.selector.containers.len()), (&["web-0".to_owned()][..], 0));
    assert_eq!(pod.retention.per_pod, limit(10, 16 * GI));
    assert_eq!(pod.orphans, None);

    assert_eq!((namespace.selector.namespaces.len(), namespace.selector.pods.len()), (1, 0));
    assert_eq!((namespace.retention.per_namespace, namespace.retention.keep_latest), (limit(40, 64 * GI), 2));

    assert!(global.selector.is_empty() && global.namespace.is_none());
    assert_eq!(
        global.retention,
        Retention {
            keep_latest: 2,
            keep_latest_for: KeepFor::For(Duration::from_secs(3 * DAY)),
            max_archive_size: Some(4 * GI),
            per_container: limit(10, 20 * GI),
            per_pod: limit(30, 50 * GI),
            per_namespace: limit(50, 100 * GI),
            ..Retention::default()
        }
    );
    assert_eq!((global.mode, global.incomplete_grace), (Mode::Enforce, None));
}

#[test]
fn the_older_kind_has_its_effective_defaults_once_it_exists() {
    let count = |count| Limit { max_count: count, max_total_size: None };
    let loaded = legacy("{}");
    let global = &loaded.policies.retention[0];
    assert_eq!(global.retention.per_namespace, count(Some(30)));
    assert_eq!(global.retention.per_pod, count(Some(20)));
    assert_eq!(global.retention.per_container, count(Some(10)));
    assert_eq!(global.orphans, None);
    let loaded = legacy("{globalPolicy: {maxCheckpointsPerPod: 0, retainOrphan: false}}");
    let global = &loaded.policies.retention[0];
    assert_eq!((global.retention.per_pod, global.retention.per_namespace), (count(None), count(Some(30))));
    let grace = Duration::from_secs(HOUR);
    assert_eq!(global.orphans, Some(OrphanRule { when: OrphanWhen::PodDeleted, grace }));
    let loaded = legacy("{containerPolicies: [{namespace: shop, pod: p, container: c}]}");
    assert_eq!(loaded.policies.retention[0].retention, Retention::default());
    let loaded = legacy(
        "{applyPoliciesImmediately: true, checkpointDirectory: /c, podPolicies: [{namespace: shop, pod: p}]}",
    );
    assert!(loaded.legacy[0].apply_policies_immediately);
    assert_eq!(loaded.legacy[0].checkpoint_directory, "/c");
}

/// Its definition has no place for what is added here, so annotations say it, for all parts of an object.
#[test]
fn annotations_add_what_the_older_kind_lacks_and_a_mistyped_one_deletes_nothing() {
    let annotated = |annotations: &str| {
        let text = format!(
            "apiVersion: criu.org/v1\nkind: CheckpointRestoreOperator\nmetadata:\n  name: a\n  namespace: o\n  \
             annotations:\n    another.io/mode: whatever\n    {annotations}\n\
             spec: {{globalPolicy: {{retainOrphan: false}}, podPolicies: [{{namespace: shop, pod: p}}]}}\n"
        );
        manifest::load(&[("p.yaml", text)])
    };
    let policies = |annotations: &str| annotated(annotations).unwrap().policies.retention;
    assert!(policies("a/b: c").iter().all(|policy| policy.mode == Mode::Enforce));
    let dry = policies("checkpoint-keeper.io/mode: DryRun");
    assert!(dry.iter().all(|policy| policy.mode == Mode::DryRun) && dry.len() == 2);
    let kept = policies("checkpoint-keeper.io/keep-latest: '3'");
    assert!(kept.iter().all(|policy| policy.retention.keep_latest == 3));
    let kept = policies("checkpoint-keeper.io/keep-latest-for: Forever");
    assert!(kept.iter().all(|policy| policy.retention.keep_latest_for == KeepFor::Forever));
    let grace = policies("checkpoint-keeper.io/orphan-grace-period: 2h")[1].orphans.unwrap().grace;
    assert_eq!(grace, seconds(2 * HOUR));
    for (wrong, told) in [
        (
            "mode: dryrun",
            "metadata.annotations.checkpoint-keeper.io/mode: \"dryrun\" is none of Enforce, DryRun",
        ),
        ("Mode: DryRun", "metadata.annotations.checkpoint-keeper.io/Mode: is an unknown annotation"),
        ("keep-latest: many", "keep-latest: \"many\" is not a whole number"),
        ("keep-latest: '-1'", "keep-latest: \"-1\" is not a whole number"),
        ("keep-latest-for: ever", "keep-latest-for: \"ever\""),
        ("orphan-grace-period: 1", "orphan-grace-period: "),
    ] {
        let errors = annotated(&format!("checkpoint-keeper.io/{wrong}")).unwrap_err();
        assert!(errors[0].to_string().contains(told), "{wrong}: {}", errors[0]);
    }
}

#[test]
fn of_however_many_annotations_those_that_decide_are_kept_and_no_more_than_a_few() {
    let many = (0..1_000).map(|number| (format!("checkpoint-keeper.io/a{number}"), "x".repeat(1_000)));
    let others = (0..1_000).map(|number| (format!("another.io/{number}"), String::new()));
    let known = [("mode", "DryRun"), ("suspend", "true")];
    let known = known.map(|(key, value)| (format!("checkpoint-keeper.io/{key}"), value.to_owned()));
    let kept = deciding_annotations(many.chain(others).chain(known).collect());
    assert_eq!((kept.len(), kept["checkpoint-keeper.io/mode"].as_str()), (8, "DryRun"));
    assert_eq!(kept["checkpoint-keeper.io/suspend"], "true");
    assert!(kept.iter().all(|(key, value)| key.starts_with("checkpoint-keeper.io/") && value.len() <= 64));
}

/// There, a namespace's archives go when the namespace is gone, and not with each pod.
#[test]
fn what_is_an_orphan_to_an_entry_of_the_older_kind_depends_on_what_it_names() {
    let entry = |list: &str, names: &str| format!("{list}: [{{{names}, retainOrphan: false}}]");
    for (spec, when) in [
        ("globalPolicy: {retainOrphan: false}".to_owned(), OrphanWhen::PodDeleted),
        (entry("namespacePolicies", "namespace: shop"), OrphanWhen::NamespaceDeleted),
        (entry("podPolicies", "namespace: shop, pod: p"), OrphanWhen::PodDeleted),
        (entry("containerPolicies", "namespace: shop, pod: p, container: c"), OrphanWhen::PodDeleted),
    ] {
        let loaded = legacy(&format!("{{{spec}}}"));
        let rule = loaded.policies.retention[0].orphans.unwrap();
        assert_eq!((rule.when, rule.grace), (when, Duration::from_secs(HOUR)), "{spec}");
    }
}

#[test]
fn of_several_older_objects_the_oldest_is_in_force() {
    let object = |name: &str, created: &str| {
        format!(
            "---\napiVersion: criu.org/v1\nkind: CheckpointRestoreOperator\nmetadata: {{name: {name}, namespace: o{created}}}\n\
             spec: {{podPolicies: [{{namespace: shop, pod: p}}, {{namespace: shop, pod: p}}]}}\n"
        )
    };
    let loaded = load(
        &(object("a", "")
            + &object("b", ", creationTimestamp: 2026-01-02T00:00:00Z")
            + &object("c", ", creationTimestamp: 2026-01-01T00:00:00Z")),
    );
    assert_eq!(loaded.policies.retention.len(), 2);
    assert!(loaded.policies.retention.iter().all(|policy| policy.id.name == "c"));
    let told: Vec<_> =
        loaded.warnings.iter().map(|warning| format!("{} {}", warning.object, warning.message)).collect();
    assert_eq!(
        told,
        [
            "CheckpointRestoreOperator/o/c podPolicies[1] names the same as podPolicies[0], which is in force",
            "CheckpointRestoreOperator/o/b is superseded by CheckpointRestoreOperator/o/c, which is older",
            "CheckpointRestoreOperator/o/a is superseded by CheckpointRestoreOperator/o/c, which is older",
        ]
    );
    assert_eq!(
        loaded.legacy.iter().map(|settings| settings.effective).collect::<Vec<_>>(),
        [true, false, false]
    );
}

#[test]
fn an_older_object_elsewhere_governs_only_its_namespace() {
    let object: CheckpointRestoreOperator = serde_json::from_value(serde_json::json!({
        "apiVersion": "criu.org/v1", "kind": "CheckpointRestoreOperator", "metadata": {"name": "a", "namespace": "own"},
        "spec": {"namespacePolicies": [{"namespace": "own"}, {"namespace": "other"}]},
    }))
    .unwrap();
    let means = object.to_policies(Governs::Namespace("own")).unwrap();
    assert_eq!(means.foreign, ["namespacePolicies[1]"]);
    assert_eq!(means.policies.len(), 2);
    assert!(means.policies.iter().all(|policy| policy.namespace.as_deref() == Some("own")));
}

#[test]
fn json_lists_and_yaml_features_are_read() {
    let text = r#"{"apiVersion": "v1", "kind": "List", "metadata": {}, "items": [
        {"apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "ClusterCheckpointPolicy", "metadata": {"name": "a"}, "spec": {"retention": {"maxAge": "1d"}}},
        {"apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointStoragePolicy", "metadata": {"name": "a"}, "spec": {}}]}"#;
    let loaded = load(text);
    assert_eq!((loaded.policies.retention.len(), loaded.policies.storage.len()), (1, 1));
    let text = "\u{feff}%YAML 1.2\n---\r\napiVersion: checkpoint-keeper.io/v1alpha1\r\nkind: ClusterCheckpointPolicy\r\n\
        metadata: {name: a}\r\nspec:\r\n  retention:\r\n    perPod: &few {maxCount: 3}\r\n    perNamespace: {<<: *few, maxTotalSize: 1Gi}\r\n...\r\n";
    let policy = load(text).policies.retention.remove(0);
    assert_eq!(policy.retention.per_namespace, limit(3, GI));
}

#[test]
fn null_is_the_same_as_absent() {
    assert_eq!(cluster("{retention: ~, selector: null, orphans:}"), cluster("{}"));
}

//! What the older operator did wrong, with the older operator's manifests. Each test is named after
//! the accident that must not come back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::fs;

use checkpoint_keeper_testkit::ArchiveBuilder;
use support::{Place, of, server, verdicts};

/// A `v1` object with this spec.
fn v1(spec: &str) -> String {
    let spec: String = spec.lines().map(|line| format!("  {line}\n")).collect();
    format!(
        "apiVersion: criu.org/v1\nkind: CheckpointRestoreOperator\n\
         metadata: {{name: collector, namespace: ops}}\nspec:\n{spec}"
    )
}

/// How many of five archives of one container stay under this spec.
fn stay(spec: &str, pages: usize) -> usize {
    let place = Place::new();
    (0..5).for_each(|second| _ = place.add(&server(second).pages(vec![1; pages])));
    place.policy(&v1(spec));
    let run = place.gc(&[]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let left = place.files();
    // Whatever stays is the newest.
    let newest: Vec<String> = (0..5).skip(5 - left.len()).map(|second| server(second).file_name()).collect();
    assert_eq!(left.into_iter().collect::<Vec<_>>(), newest);
    newest.len()
}

#[test]
fn limits_mean_what_the_older_documentation_says() {
    let container = |field: &str| {
        format!("containerPolicies:\n- {{namespace: team, pod: web-0, container: server, {field}}}")
    };
    assert_eq!(stay(&container("maxCheckpoints: 2"), 0), 2);
    assert_eq!(stay(&container("maxCheckpoints: 1"), 0), 1);
    assert_eq!(stay(&container("maxCheckpoints: 0"), 0), 5);
    assert_eq!(stay(&container("maxTotalSize: 12Mi"), 5 << 20), 2);
    assert_eq!(stay(&container("maxCheckpointSize: 4Mi"), 5 << 20), 0);
    assert_eq!(stay("podPolicies:\n- {namespace: team, pod: web-0, maxCheckpoints: 3}", 0), 3);
    assert_eq!(stay("namespacePolicies:\n- {namespace: team, maxCheckpoints: 4}", 0), 4);
    assert_eq!(stay("globalPolicy: {maxCheckpointsPerContainer: 2}", 0), 2);
    assert_eq!(stay("globalPolicy: {maxCheckpointsPerContainer: 0}", 0), 5);
}

#[test]
fn defaults_are_ten_a_container_twenty_a_pod_thirty_a_namespace() {
    let place = Place::new();
    for pod in 0..3 {
        for container in 0..3 {
            for second in 0..12 {
                place.add(&of("team", &format!("web-{pod}"), &format!("c{container}"), second));
            }
        }
    }
    place.policy(&v1("applyPoliciesImmediately: true"));
    place.gc_json(&[]);
    assert_eq!(place.files().len(), 30);
}

#[test]
fn a_namespace_matched_by_prefix() {
    let place = Place::new();
    for second in 0..3 {
        place.add(&of("team", "web-0", "server", second));
        place.add(&of("team-prod", "web-0", "server", second));
        place.add(&of("team", "web-01", "server", second));
    }
    place.policy(&v1("podPolicies:\n- {namespace: team, pod: web-0, maxCheckpoints: 1}"));
    place.gc_json(&[]);
    let left = place.files();
    let count = |part: &str| left.iter().filter(|file| file.contains(part)).count();
    assert_eq!((count("web-0_team-server"), count("web-0_team-prod"), count("web-01_team")), (1, 3, 3));
}

#[test]
fn names_that_share_a_file_name_pattern() {
    // `a`/`b-c` and `a-b`/`c` give one file name: only what is inside tells them apart.
    let one = of("a", "web", "b-c", 1);
    let other = of("a-b", "web", "c", 1);
    assert_eq!(one.file_name(), other.file_name());
    let place = Place::new();
    for second in 1..4 {
        place.add(&of("a", "web", "b-c", second));
        let path = of("a-b", "web", "c", second + 10).write_to(&place.directory()).unwrap();
        support::age(&path);
    }
    place.policy(&v1("containerPolicies:\n- {namespace: a, pod: web, container: b-c, maxCheckpoints: 1}"));
    let report = place.gc_json(&[]);
    let left = |namespace: &str| {
        let rows = report["archives"].as_array().unwrap().iter();
        rows.filter(|row| row["namespace"] == namespace && row["deleted"] == false).count()
    };
    assert_eq!((left("a"), left("a-b")), (1, 3));
}

#[test]
fn identity_strings_used_as_a_glob_pattern() {
    let place = Place::new();
    (0..3).for_each(|second| _ = place.add(&server(second)));
    let forged = ArchiveBuilder::new("*", "*", "*").at("2026-01-01T07:00:00Z");
    let forged = place.add_bytes("checkpoint-star.tar", &forged.build().unwrap());
    place.policy(&v1("namespacePolicies:\n- {namespace: \"*\", maxCheckpoints: 1}"));
    let run = place.gc(&[]);
    // Refused as no namespace at all: never a pattern.
    assert_eq!(run.code, Some(2), "{run:?}");
    assert!(run.stderr.contains("namespacePolicies[0].namespace"), "{run:?}");
    assert_eq!(place.files().len(), 4);
    assert!(forged.exists());
}

#[test]
fn a_size_of_ten_means_ten_bytes_and_deletes_all() {
    let place = Place::new();
    place.add(&server(1));
    for spec in [
        "globalPolicy: {maxCheckpointSize: 10}",
        "globalPolicy: {maxTotalSizePerPod: 500}",
        "podPolicies:\n- {namespace: team, pod: web-0, maxTotalSize: 1023}",
    ] {
        place.policy(&v1(spec));
        let run = place.gc(&[]);
        assert_eq!(run.code, Some(2), "{spec}: {run:?}");
        assert!(run.stderr.contains("byte"), "it says which unit: {}", run.stderr);
    }
    assert_eq!(place.files().len(), 1);
}

#[test]
fn deletes_with_no_object_installed() {
    let place = Place::new();
    (0..50).for_each(|second| _ = place.add(&server(second)));
    place.policy("apiVersion: checkpoint-keeper.io/v1alpha1\nkind: CheckpointPolicy\nmetadata: {name: x, namespace: other}\nspec: {retention: {perContainer: {maxCount: 1}}}\n");
    let report = place.gc_json(&[]);
    assert_eq!(place.files().len(), 50);
    assert!(verdicts(&report).iter().all(|(_, verdict)| verdict == "Keep NoPolicy"));
}

#[test]
fn the_last_object_wins_at_random() {
    let place = Place::new();
    (0..5).for_each(|second| _ = place.add(&server(second)));
    let object = |name: &str, created: &str, count: u32| {
        format!(
            "apiVersion: criu.org/v1\nkind: CheckpointRestoreOperator\n\
             metadata: {{name: {name}, namespace: ops, creationTimestamp: \"{created}\"}}\n\
             spec: {{globalPolicy: {{maxCheckpointsPerContainer: {count}}}}}\n"
        )
    };
    let old = object("b", "2026-01-01T00:00:00Z", 4);
    let new = object("a", "2026-02-01T00:00:00Z", 1);
    for order in [format!("{old}---\n{new}"), format!("{new}---\n{old}")] {
        place.policy(&order);
        let run = place.gc(&[]);
        assert_eq!(run.code, Some(0));
        assert!(run.stderr.contains("ops/a"), "the one that is not in force is named: {}", run.stderr);
        assert_eq!(place.files().len(), 4, "the oldest object is in force");
    }
}

#[test]
fn count_and_size_limit_together_crash_it() {
    let spec = "containerPolicies:\n- {namespace: team, pod: web-0, container: server, maxCheckpoints: 3, maxTotalSize: 12Mi}";
    assert_eq!(stay(spec, 5 << 20), 2);
    let spec = spec.replace("12Mi", "100Mi");
    assert_eq!(stay(&spec, 5 << 20), 3);
}

#[test]
fn pins_fill_the_limit_so_every_new_archive_is_deleted_on_arrival() {
    let place = Place::new();
    for second in 0..3 {
        let path = place.add(&server(second));
        fs::write(path.with_added_extension("keep"), "").unwrap();
    }
    let newest = place.add(&server(10));
    place.policy(&v1("globalPolicy: {maxCheckpointsPerContainer: 2}"));
    place.gc_json(&[]);
    assert!(newest.exists(), "the newest stays");
    assert_eq!(place.files().len(), 7);
}

#[test]
fn total_size_below_the_newest_archives_size_deletes_everything() {
    assert_eq!(stay("globalPolicy: {maxTotalSizePerContainer: 1Mi}", 5 << 20), 1);
    assert_eq!(stay("globalPolicy: {maxTotalSizePerNamespace: 1Mi}", 5 << 20), 1);
}

#[test]
fn modification_times_decide_age() {
    let place = Place::new();
    for second in 0..5 {
        let path = place.add(&server(second));
        // Copied in the wrong order: the oldest checkpoint has the newest file.
        let modified = std::time::SystemTime::UNIX_EPOCH
            + std::time::Duration::from_secs(1_700_000_000 - u64::from(second));
        fs::File::options().append(true).open(path).unwrap().set_modified(modified).unwrap();
    }
    place.policy(&v1("globalPolicy: {maxCheckpointsPerContainer: 2}"));
    place.gc_json(&[]);
    assert_eq!(place.files().into_iter().collect::<Vec<_>>(), [server(3).file_name(), server(4).file_name()]);
}

#[test]
fn a_pod_annotation_makes_a_tenants_archives_unreadable_and_exempt() {
    let place = Place::new();
    for second in 0..3 {
        let archive = server(second)
            .annotation("io.kubernetes.cri-o.Labels", "{not json")
            .annotation("io.kubernetes.cri.sandbox-namespace", "somebody-else")
            .annotation("io.kubernetes.pod.namespace", "*");
        place.add(&archive);
    }
    place.policy(&v1("namespacePolicies:\n- {namespace: team, maxCheckpoints: 1}"));
    let report = place.gc_json(&[]);
    assert_eq!(place.files().len(), 1);
    assert!(report["archives"].as_array().unwrap().iter().all(|row| row["namespace"] == "team"));
}

#[test]
fn a_pod_name_so_long_that_no_marker_can_exist_exempts_its_archives() {
    let place = Place::new();
    let pod = format!("{}.{}", "p".repeat(63), "q".repeat(150));
    let archives: Vec<ArchiveBuilder> = (0..3).map(|second| of("t", &pod, "c", second)).collect();
    for archive in &archives {
        let mut name = archive.file_name();
        assert!(name.len() <= 255, "{}", name.len());
        name.insert_str("checkpoint-".len(), &"x".repeat(255 - name.len()));
        place.add_bytes(&name, &archive.build().unwrap());
    }
    place.policy(&v1("globalPolicy: {maxCheckpointsPerContainer: 1}"));
    place.gc_json(&[]);
    assert_eq!(place.files().len(), 1);
}

#[test]
fn truncated_archives_are_invisible_and_immortal() {
    let place = Place::new();
    let archive = server(1).build().unwrap();
    place.add_bytes(&server(1).file_name(), &archive[..archive.len() / 2]);
    place.add_bytes(&server(2).file_name(), b"");
    place.add(&server(3));
    place.policy(&v1("globalPolicy: {}"));
    let report = place.gc_json(&[]);
    assert_eq!(report["totals"]["archives"], 3, "counted and shown");
    assert_eq!(place.files().len(), 3, "kept by default");
    place.cluster_policy("incomplete: {action: Delete, gracePeriod: 1h}");
    place.gc_json(&[]);
    assert_eq!(place.files().into_iter().collect::<Vec<_>>(), [server(3).file_name()], "its own rule");
}

#[test]
fn no_scan_at_start() {
    // One pass is nothing but a scan at start; watching begins with one too.
    assert_eq!(stay("globalPolicy: {maxCheckpointsPerContainer: 3}", 0), 3);
}

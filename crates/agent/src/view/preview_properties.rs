//! That a preview says what happens: over generated directories, policies that there are and policies that are applied, it
//! shows exactly the verdicts that the planner gives once they have been in force for long.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_api::effective::{Scope, effective_policies};
use checkpoint_keeper_api::manifest;
use checkpoint_keeper_core::archive::State;
use checkpoint_keeper_core::engine::View;
use checkpoint_keeper_core::identity::Identity;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::{Allowance, Archive, FileSystem, Plan, Release, Snapshot, plan};
use checkpoint_keeper_core::policy::{Confidence, PolicySet};
use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::preview::preview;

fn now() -> Timestamp {
    "2026-11-26T12:00:00Z".parse().unwrap()
}

/// Whose it is, how many hours old, how many MiB, whether it is pinned, and whether it is whole.
type Drawn = ((usize, usize, usize), u32, u64, bool, bool);

fn archive(
    number: usize,
    ((namespace, pod, container), hours, mebibytes, pinned, is_whole): Drawn,
) -> Archive {
    let identity = Identity {
        namespace: ["shop", "bank"][namespace].to_owned(),
        pod: ["web-0", "web-1"][pod].to_owned(),
        pod_uid: None,
        container: ["a", "b"][container].to_owned(),
    };
    let taken = now() - SignedDuration::from_hours(i64::from(hours)) - SignedDuration::from_secs(3_600);
    let file = FileName::new(format!("checkpoint-{number}.tar").into_bytes()).unwrap();
    let state = if is_whole { State::Complete } else { State::Incomplete };
    Archive { pinned, state, ..Archive::whole(file, Arc::new(identity), taken, mebibytes << 20) }
}

fn directory() -> impl Strategy<Value = Vec<Archive>> {
    let weighted = proptest::bool::weighted;
    let drawn = ((0_usize..2, 0_usize..2, 0_usize..2), 0_u32..72, 1_u64..9, weighted(0.1), weighted(0.9));
    vec(drawn, 0..30)
        .prop_map(|drawn| drawn.into_iter().enumerate().map(|(at, drawn)| archive(at, drawn)).collect())
}

/// A retention policy's spec.
fn retention() -> impl Strategy<Value = Value> {
    let count = || option::weighted(0.5, 1_u32..5);
    let age = option::weighted(0.4, 1_u32..72);
    let mode = select(vec!["Enforce", "Enforce", "DryRun"]);
    (count(), count(), count(), age, 0_u32..3, mode).prop_map(
        |(container, pod, namespace, hours, keep_latest, mode)| {
            let mut retention = json!({"keepLatest": keep_latest, "maxAge": "4w"});
            let limits = [("perContainer", container), ("perPod", pod), ("perNamespace", namespace)];
            for (level, count) in limits {
                if let Some(count) = count {
                    retention[level] = json!({"maxCount": count});
                }
            }
            if let Some(hours) = hours {
                retention["maxAge"] = json!(format!("{hours}h"));
            }
            json!({"mode": mode, "retention": retention})
        },
    )
}

/// The same, of some pods only.
fn selecting() -> impl Strategy<Value = Value> {
    (retention(), option::of(select(vec!["web-0", "web-1"]))).prop_map(|(mut spec, pod)| {
        if let Some(pod) = pod {
            spec["selector"] = json!({"pods": [pod]});
        }
        spec
    })
}

fn storage() -> impl Strategy<Value = Value> {
    let mode = select(vec!["Enforce", "Enforce", "DryRun"]);
    (1_u32..9, option::of(50_u32..95), mode).prop_map(|(count, high, mode)| {
        let mut spec = json!({"mode": mode, "perNamespace": {"maxCount": count}});
        if let Some(high) = high {
            spec["highWatermark"] = json!(format!("{high}%"));
        }
        spec
    })
}

/// The objects that may be there: kind, namespace, name.
const OBJECTS: [(&str, Option<&str>, &str); 7] = [
    ("ClusterCheckpointPolicy", None, "a"),
    ("ClusterCheckpointPolicy", None, "b"),
    ("CheckpointPolicy", Some("shop"), "a"),
    ("CheckpointPolicy", Some("shop"), "b"),
    ("CheckpointPolicy", Some("bank"), "a"),
    ("CheckpointStoragePolicy", None, "a"),
    ("CheckpointStoragePolicy", None, "b"),
];

/// The specs of some of these objects, by their places among them.
type Specs = BTreeMap<usize, Value>;

fn specs(share: f64) -> impl Strategy<Value = Specs> {
    let of = move |spec: BoxedStrategy<Value>| option::weighted(share, spec);
    let all = [
        of(selecting().boxed()),
        of(selecting().boxed()),
        of(selecting().boxed()),
        of(selecting().boxed()),
        of(retention().boxed()),
        of(storage().boxed()),
        of(storage().boxed()),
    ];
    all.prop_map(|specs| specs.into_iter().enumerate().filter_map(|(at, spec)| Some((at, spec?))).collect())
}

/// Manifests of these specs. The age of an object counts where two would govern the same: `created` says it.
fn manifests(specs: &Specs, created: impl Fn(usize) -> Option<Timestamp>) -> String {
    let document = |(at, spec): (&usize, &Value)| {
        let (kind, namespace, name) = OBJECTS[*at];
        let mut metadata = json!({"name": name});
        if let Some(namespace) = namespace {
            metadata["namespace"] = json!(namespace);
        }
        if let Some(created) = created(*at) {
            metadata["creationTimestamp"] = json!(created);
        }
        let version = "checkpoint-keeper.io/v1alpha1";
        format!("---\n{}\n", json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}))
    };
    specs.iter().map(document).collect()
}

/// What users see of a plan: of each file its verdict's reason and policy.
fn seen(snapshot: &Snapshot, plan: &Plan) -> BTreeMap<String, (String, Value)> {
    let archives = snapshot.archives.iter().zip(&plan.verdicts);
    let seen = archives.map(|(archive, verdict)| {
        let policy = verdict.policy.as_ref().map(ToString::to_string);
        (archive.file.to_json_text().into_owned(), (verdict.reason.to_string(), json!(policy)))
    });
    seen.collect()
}

/// The directory when nothing waits any more: no policy has only just taken over, and no limit holds deletions back.
fn in_the_end(snapshot: &Snapshot) -> Snapshot {
    let mut snapshot = snapshot.clone();
    snapshot.allowance = None;
    snapshot.archives.iter_mut().for_each(|archive| archive.governed_by = None);
    snapshot
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn a_preview_shows_what_the_planner_decides_once_the_policies_are_applied(
        archives in directory(),
        there in specs(0.4),
        applied in specs(0.3),
        tokens in 0_u64..4,
        free in 0_u64..100,
    ) {
        let hour = |hour: usize| now() - Duration::from_hours(1_000 - hour as u64);
        let disk = FileSystem {
            total_bytes: 200 << 20,
            available_bytes: free * (2 << 20),
            total_inodes: 1_000,
            available_inodes: 500,
            release: Release::Shown,
        };
        let mut snapshot = Snapshot { archives, filesystem: Some(disk), ..Snapshot::default() };
        let load = |text: &str| manifest::load(&[("policies", text)]).unwrap();
        let (objects, policies) = if there.is_empty() {
            Default::default()
        } else {
            let objects = load(&manifests(&there, |at| Some(hour(at)))).objects;
            let policies = effective_policies(&objects, &Scope::default()).policies;
            (objects, policies)
        };
        // As on a node where they have been in force, and whose deletion limit is nearly used up.
        let governing = plan(&snapshot, &policies, now());
        for (place, archive) in snapshot.archives.iter_mut().enumerate() {
            archive.governed_by = governing.policy_of(place).cloned().map(Arc::new);
        }
        snapshot.allowance = Some(Allowance { shared: tokens, ..Allowance::default() });
        let view = View {
            plan: plan(&snapshot, &policies, now()),
            snapshot,
            policies: Arc::new(policies),
            confidence: Confidence::Current,
            made_at: now(),
        };
        let text = manifests(&applied, |_| None);
        let Ok(shown) = preview("node-1", &view, &objects, &Scope::default(), &text) else {
            panic!("the manifests are understood");
        };
        let shown = serde_json::to_value(&shown).unwrap();

        // Applied, they take the place of those of their name, or are the youngest, and they are enforced.
        let mut all = there.clone();
        for (at, spec) in &applied {
            let mut spec = spec.clone();
            spec["mode"] = json!("Enforce");
            all.insert(*at, spec);
        }
        let age = |at: usize| Some(if there.contains_key(&at) { hour(at) } else { hour(500) });
        let then = if all.is_empty() { PolicySet::default() } else { load(&manifests(&all, age)).policies };
        let end = in_the_end(&view.snapshot);
        let expected = seen(&end, &plan(&end, &then, now()));

        let mut found = seen(&end, &plan(&end, &view.policies, now()));
        for change in shown["changes"].as_array().unwrap() {
            let (file, after) = (change["file"].as_str().unwrap(), &change["after"]);
            let reason = after["reason"].as_str().unwrap().to_owned();
            let before = found.insert(file.to_owned(), (reason, after["policy"].clone())).unwrap();
            let told = &change["before"];
            prop_assert_eq!(&before, &(told["reason"].as_str().unwrap().to_owned(), told["policy"].clone()));
            prop_assert_ne!(&before, &found[file], "no change");
        }
        prop_assert_eq!(&found, &expected);
        let goes = plan(&end, &then, now()).deletions().count();
        prop_assert_eq!(&shown["after"]["deleteArchives"], goes);
    }
}

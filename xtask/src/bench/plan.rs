//! The plan for many archives under many policies of all kinds: pure, so no disk is needed.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use checkpoint_keeper_core::archive::State;
use checkpoint_keeper_core::identity::Identity;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::{Archive, FileSystem, Namespace, Release, Snapshot, Workload, plan};
use checkpoint_keeper_core::policy::{
    Ceiling, Kind, LabelSelector, Labels, Limit, Mode, Operator, Policy, PolicyRef, PolicySet, Precedence,
    Requirement, Retention, Selector, Size, StoragePolicy, Tiers,
};
use checkpoint_keeper_core::quantity::Share;
use jiff::Timestamp;

use super::directory::Bench;
use super::row::{Budget, Row};
use super::timing::{self, milliseconds};

const ID: &str = "plan-100k";
const POLICIES: usize = 100;

/// How many times longer than sorting the same it may take.
const TIMES: f64 = 8.0;

/// Milliseconds for each archive: 100 for 100 000.
const EACH: f64 = 0.001;

const NAMESPACES: usize = 1_000;
const PER_POD: usize = 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const DAY: Duration = Duration::from_hours(24);

pub(super) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let archives = bench.either(100_000, 20_000);
    let now = Timestamp::from_second(1_790_000_000)?;
    let snapshot = snapshot(archives, now)?;
    let policies = policies()?;
    let decide = || Ok(plan(black_box(&snapshot), black_box(&policies), now));
    let sort = || {
        let mut places: Vec<usize> = (0..archives).collect();
        let key = |place: usize| snapshot.archives.get(place).map(|archive| (archive.taken, &archive.file));
        places.sort_unstable_by(|&one, &other| key(one).cmp(&key(other)));
        Ok(places)
    };
    let deleted = decide()?.deletions().count();
    let (plans, sorts) = timing::in_turns(bench.either(15, 7), decide, sort)?;
    let what = format!("{archives} archives, {POLICIES} policies of all kinds, a full disk");
    Ok(vec![
        Row::new(ID, what, milliseconds(plans.median()), "ms")
            .baseline("sorting the same by time and name", milliseconds(sorts.median()))
            .budget(Budget::TimesBaseline(TIMES))
            .budget(Budget::AtMost(EACH * archives as f64))
            .samples(plans.len())
            .note(format!("fastest {:.1} ms; {deleted} are to go", milliseconds(plans.percentile(0)))),
    ])
}

/// Archives of pods in many namespaces, ten each; half of the pods are a Deployment's.
fn snapshot(archives: usize, now: Timestamp) -> anyhow::Result<Snapshot> {
    let mut snapshot = Snapshot {
        filesystem: Some(FileSystem {
            total_bytes: 1_000 * GIB,
            available_bytes: 100 * GIB,
            total_inodes: 1 << 26,
            available_inodes: 1 << 25,
            release: Release::Shown,
        }),
        ..Snapshot::default()
    };
    for number in 0..NAMESPACES {
        snapshot.namespaces.insert(namespace(number), Namespace::default());
    }
    let labels: Vec<Arc<Labels>> = (0..NAMESPACES)
        .map(|number| {
            let environment = ["prod", "test", "dev"].get(number % 3).copied().unwrap_or_default();
            Arc::new(Labels::from([("env".to_owned(), environment.to_owned())]))
        })
        .collect();
    for pod in 0..archives.div_ceil(PER_POD) {
        of_pod(pod, now, labels.get(pod % NAMESPACES), &mut snapshot.archives)?;
    }
    snapshot.archives.truncate(archives);
    // As a directory lists them: in no order. The step shares no factor with any round number.
    let count = snapshot.archives.len();
    for place in 0..count {
        snapshot.archives.swap(place, place.wrapping_mul(7_919) % count);
    }
    Ok(snapshot)
}

fn of_pod(
    pod: usize,
    now: Timestamp,
    namespace_labels: Option<&Arc<Labels>>,
    archives: &mut Vec<Archive>,
) -> anyhow::Result<()> {
    let app = pod / 2 % 500;
    let identity = Arc::new(Identity {
        namespace: namespace(pod % NAMESPACES),
        pod: format!("app-{app}-{pod}"),
        pod_uid: Some(format!("5744a2df-d174-487a-aa0c-{pod:012}")),
        container: ["server", "sidecar"].get(pod % 5 / 4).copied().unwrap_or_default().to_owned(),
    });
    let labels = Arc::new(Labels::from([
        ("app".to_owned(), format!("app-{app}")),
        ("tier".to_owned(), format!("tier-{}", pod % 4)),
    ]));
    let workload = pod.is_multiple_of(2).then(|| {
        Arc::new(Workload {
            group: "apps".to_owned(),
            kind: "Deployment".to_owned(),
            name: format!("app-{app}"),
        })
    });
    for number in 0..PER_POD {
        // Hours to months ago, no two of a pod at the same time.
        let age = Duration::from_secs((number * number * 40_000 + pod * 131 % 35_000) as u64);
        let taken = now.checked_sub(age)?;
        let file = format!(
            "checkpoint-{}_{}-{}-{taken:.0}.tar",
            identity.pod, identity.namespace, identity.container
        );
        let size = (1 + (pod * 7 + number * 3) as u64 % 64) * MIB;
        let place = pod * PER_POD + number;
        let file = FileName::new(file.into_bytes()).context("a file name")?;
        archives.push(Archive {
            state: if place.is_multiple_of(101) { State::Incomplete } else { State::Complete },
            pinned: place.is_multiple_of(97),
            pod_labels: Some(Arc::clone(&labels)),
            namespace_labels: namespace_labels.cloned(),
            workload: workload.clone(),
            ..Archive::whole(file, Arc::clone(&identity), taken, size)
        });
    }
    Ok(())
}

fn namespace(number: usize) -> String {
    format!("team-{number}")
}

fn policies() -> anyhow::Result<PolicySet> {
    let percent = |percent| Share::percent(percent).context("a percentage");
    let storage = StoragePolicy {
        id: PolicyRef {
            kind: Kind::CheckpointStoragePolicy,
            namespace: None,
            name: "storage".to_owned(),
            part: None,
        },
        node_selector: LabelSelector::default(),
        mode: Mode::Enforce,
        critical_watermark: None,
        protect_latest: None,
        high_watermark: Some(percent(70)?),
        low_watermark: Some(percent(65)?),
        min_free_bytes: Some(10 * GIB),
        min_free_inodes: Some(1_000),
        reserved: Some(percent(5)?),
        max_total_size: Some(Size::Bytes(2_000 * GIB)),
        per_namespace: Ceiling {
            limit: Limit { max_count: Some(500), max_total_size: Some(Size::Bytes(50 * GIB)) },
            max_age: Some(90 * DAY),
            ..Ceiling::default()
        },
        deletion_limit: None,
    };
    Ok(PolicySet {
        retention: (0..POLICIES).map(policy).collect(),
        storage: vec![storage],
        ..PolicySet::default()
    })
}

/// Policy `number`: in turns a namespace's, and the cluster's by pod labels, by namespace labels, by
/// pods and by containers; the last one is for everything.
fn policy(number: usize) -> Policy {
    let kind = number % 5;
    let is_last = number + 1 == POLICIES;
    let namespaced = (kind == 0).then(|| namespace(number));
    let mut selector = Selector::default();
    match kind {
        _ if is_last => {}
        1 => selector.pod_labels = labels("app", &format!("app-{number}")),
        2 => {
            selector.namespace_labels = labels("env", "dev");
            selector.pod_labels = labels("tier", &format!("tier-{}", number % 7));
        }
        3 => selector.pods = vec![format!("app-{number}-{}", number * 2), format!("app-{number}-x")],
        4 => {
            selector.containers = vec!["sidecar".to_owned()];
            selector.namespace_labels = labels("env", if number.is_multiple_of(2) { "prod" } else { "test" });
        }
        _ => {}
    }
    Policy {
        id: PolicyRef {
            kind: if namespaced.is_some() { Kind::CheckpointPolicy } else { Kind::ClusterCheckpointPolicy },
            namespace: namespaced.clone(),
            name: format!("policy-{number}"),
            part: None,
        },
        created: None,
        namespace: namespaced,
        mode: Mode::Enforce,
        selector,
        retention: retention(number),
        orphans: None,
        incomplete_grace: Some(Duration::from_hours(1)),
        damaged_grace: None,
        precedence: Precedence::Default,
    }
}

/// Tiers, counts or sizes, in turns.
fn retention(number: usize) -> Retention {
    let common = Retention {
        max_archive_size: Some(20 * GIB),
        per_pod: Limit { max_count: Some(20), max_total_size: Some(Size::Bytes(10 * GIB)) },
        per_namespace: Limit { max_count: Some(90), max_total_size: None },
        ..Retention::default()
    };
    match number % 3 {
        0 => Retention {
            tiers: Some(Tiers { hourly: 24, daily: 7, weekly: 4, monthly: 12, yearly: 3 }),
            ..common
        },
        1 => Retention {
            max_age: Some(30 * DAY),
            per_container: Limit { max_count: Some(8), max_total_size: None },
            per_workload: Limit { max_count: Some(30), max_total_size: None },
            ..common
        },
        _ => Retention {
            per_container: Limit { max_count: None, max_total_size: Some(Size::Bytes(300 * MIB)) },
            ..common
        },
    }
}

fn labels(key: &str, value: &str) -> LabelSelector {
    LabelSelector(vec![Requirement { key: key.to_owned(), operator: Operator::In(vec![value.to_owned()]) }])
}

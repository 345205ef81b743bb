//! What holds of every plan, over generated directories, policies and knowledge.
#![allow(clippy::unwrap_used)]

mod plan_support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_core::archive::State;
use checkpoint_keeper_core::creation::{Creation, CreationRequest};
use checkpoint_keeper_core::name::{FileName, NameKind};
use checkpoint_keeper_core::plan::{
    Absence, Absences, Action, Allowance, Archive, Clock, Dated, Detail, Expiration, FileSystem, Level, Next,
    Origin, Outcome as RuleOutcome, Plan, Reason, Release, Verdict, expirations, explain, plan, plan_with,
};
use checkpoint_keeper_core::policy::{
    Ceiling, Confidence, KeepFor, Kind, LabelSelector, Limit, Mode, OrphanRule, OrphanWhen, Policy,
    PolicySet, Retention, ScheduleRetention, Selector, Size, StoragePolicy, Tiers,
};
use jiff::Timestamp;
use plan_support::*;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

// ---- Generators -------------------------------------------------------------------------------------

const NAMESPACES: [&str; 3] = ["bank", "shop", "shop-prod"];
const PODS: [&str; 3] = ["web-0", "web-1", "web-2"];
const CONTAINERS: [&str; 2] = ["proxy", "server"];

/// What is the same for all archives of a pod, or of a lineage: the cluster says it of these.
#[derive(Debug, Clone)]
struct Cluster {
    /// Owner kind, label and absences for each pod.
    pods: Vec<(Option<&'static str>, Option<&'static str>, Absences)>,
    /// How many hours each lineage has been without a pod.
    idle: Vec<Option<u32>>,
}

fn cluster_state() -> impl Strategy<Value = Cluster> {
    let absence = || {
        option::weighted(0.2, (0_u32..100, 0_u32..100)).prop_map(|seen| {
            seen.map(|(since, later)| Absence {
                since: ago(HOUR * since),
                confirmed: ago(HOUR * since.saturating_sub(later)),
            })
        })
    };
    let absences = (absence(), absence(), absence()).prop_map(|(pod, workload, namespace)| Absences {
        pod,
        workload,
        namespace,
    });
    let kind = option::of(select(vec!["Deployment", "StatefulSet"]));
    let label = option::of(select(vec!["db", "web"]));
    (vec((kind, label, absences), 9), vec(option::weighted(0.15, 0_u32..400), 24))
        .prop_map(|(pods, idle)| Cluster { pods, idle })
}

/// Namespace, pod, container; age and quiet time; size; name; and what is odd about it.
type Drawn = ((usize, usize, usize), (u32, u32), u64, u8, [bool; 7], (u8, u8));

fn drawn() -> impl Strategy<Value = Drawn> {
    let sizes = select(vec![0, 1, 4_096, MI, MI, 3 * MI, GI, 10 * GI]);
    let odd = [0.1, 0.1, 0.08, 0.03, 0.05, 0.1, 0.3].map(proptest::bool::weighted);
    (
        (0_usize..3, 0_usize..3, 0_usize..2),
        (0_u32..72, 0_u32..30),
        sizes,
        any::<u8>(),
        odd,
        (0_u8..20, 0_u8..20),
    )
}

fn archive_of(number: usize, drawn: Drawn, cluster: &Cluster) -> Archive {
    let ((namespace, pod, container), (hours, minutes), size, letter, odd, (state, dated)) = drawn;
    let [pinned, unsettled, unknown, discarded, foreign, forgotten, touched] = odd;
    let path = format!("{}/{}/{}", NAMESPACES[namespace], PODS[pod], CONTAINERS[container]);
    let (kind, label, absences) = &cluster.pods[namespace * 3 + pod];
    let kind = kind.filter(|_| !forgotten);
    let shared = kind == Some("Deployment");
    let lineage = (namespace * 2 + container) * 4 + if shared { 3 } else { pod };
    let base = archive(&format!("{letter:03}-{number}")).of(&path).aged(HOUR * hours).sized(size);
    let name = if foreign { format!("{letter:03}-{number}.tar") } else { base.file.to_string() };
    let state = match state {
        0..2 => State::Incomplete,
        2 => State::NoImages,
        3 => State::Damaged,
        4 => State::Unreadable,
        _ => State::Complete,
    };
    let dated = match dated {
        0 => Dated::Untrusted,
        1 => Dated::Ahead,
        2 => Dated::Undated,
        _ => Dated::Trusted,
    };
    Archive {
        file: FileName::new(name.into_bytes()).unwrap(),
        identity: base.identity.filter(|_| !unknown && !matches!(state, State::Unreadable | State::Damaged)),
        state,
        dated,
        changed: if touched { ago(MINUTE * minutes) } else { base.changed },
        pinned,
        settled: !unsettled,
        discarded,
        pod_labels: label.filter(|_| !forgotten).map(|app| Arc::new(labels(&[("app", app)]))),
        workload: kind.map(|kind| Arc::new(workload("apps", kind, "web"))),
        absences: Some(Arc::new(*absences)),
        idle_since: cluster.idle[lineage].map(|hours| ago(HOUR * hours)),
        ..base
    }
}

fn directory() -> impl Strategy<Value = Vec<Archive>> {
    (vec(drawn(), 0..60), cluster_state()).prop_map(|(drawn, cluster)| {
        drawn.into_iter().enumerate().map(|(number, drawn)| archive_of(number, drawn, &cluster)).collect()
    })
}

fn limit() -> impl Strategy<Value = Limit> {
    let size = prop_oneof![
        select(vec![0, 1_024, MI, 2 * MI, 5 * MI, GI, 30 * GI]).prop_map(Size::Bytes),
        (0_u32..30).prop_map(|share| Size::Share(percent(share))),
    ];
    (option::weighted(0.3, 0_u64..8), option::weighted(0.3, size))
        .prop_map(|(max_count, max_total_size)| Limit { max_count, max_total_size })
}

fn tiers() -> impl Strategy<Value = Tiers> {
    (0_u32..5, 0_u32..4, 0_u32..3, 0_u32..3, 0_u32..2)
        .prop_map(|(hourly, daily, weekly, monthly, yearly)| Tiers { hourly, daily, weekly, monthly, yearly })
}

fn keep_for() -> impl Strategy<Value = KeepFor> {
    prop_oneof![Just(KeepFor::Forever), (0_u32..300).prop_map(|hours| KeepFor::For(HOUR * hours))]
}

/// Retention without limits: age, tiers and the floor.
fn floored() -> impl Strategy<Value = Retention> {
    (
        0_u32..4,
        keep_for(),
        option::of((0_u32..72).prop_map(|hours| HOUR * hours)),
        option::weighted(0.3, tiers()),
    )
        .prop_map(|(keep_latest, keep_latest_for, max_age, tiers)| Retention {
            keep_latest,
            keep_latest_for,
            max_age,
            tiers,
            ..Retention::default()
        })
}

fn retention() -> impl Strategy<Value = Retention> {
    let archive_size = option::weighted(0.2, select(vec![0, MI, 5 * MI, 5 * GI]));
    (floored(), archive_size, limit(), limit(), limit(), limit()).prop_map(
        |(floored, max_archive_size, per_container, per_workload, per_pod, per_namespace)| Retention {
            max_archive_size,
            per_container,
            per_workload,
            per_pod,
            per_namespace,
            ..floored
        },
    )
}

fn selector() -> impl Strategy<Value = Selector> {
    let names = |from: &[&'static str]| option::weighted(0.2, select(from.to_vec()));
    let app = option::weighted(0.2, select(vec!["db", "web"]));
    let env = option::weighted(0.2, select(vec!["prod", "test"]));
    (names(&NAMESPACES), names(&PODS), names(&CONTAINERS), app, env).prop_map(
        |(namespace, pod, container, app, env)| {
            let list = |name: Option<&str>| name.into_iter().map(str::to_owned).collect();
            let label = |key: &str, value: Option<&str>| {
                value.map_or_else(LabelSelector::default, |value| label_is(key, value))
            };
            Selector {
                namespaces: list(namespace),
                namespace_labels: label("env", env),
                pod_labels: label("app", app),
                pods: list(pod),
                containers: list(container),
            }
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let orphans = option::weighted(
        0.4,
        (
            select(vec![OrphanWhen::PodDeleted, OrphanWhen::WorkloadDeleted, OrphanWhen::NamespaceDeleted]),
            0_u32..80,
        )
            .prop_map(|(when, hours)| OrphanRule { when, grace: HOUR * hours }),
    );
    let incomplete = option::of((0_u32..600).prop_map(|minutes| MINUTE * minutes));
    let namespace = option::weighted(0.5, select(NAMESPACES.to_vec()));
    let created = option::of((0_u32..3).prop_map(|days| ago(DAY * days)));
    let kind = proptest::bool::weighted(0.2);
    let dry = proptest::bool::weighted(0.15);
    (retention(), selector(), orphans, incomplete, namespace, created, kind, dry).prop_map(
        |(retention, selector, orphans, incomplete_grace, namespace, created, older, dry)| {
            let base = namespace.map_or_else(|| cluster("p"), |namespace| local(namespace, "p"));
            let mut id = base.id.clone();
            if older {
                id.kind = Kind::CheckpointRestoreOperator;
            }
            let mode = if dry { Mode::DryRun } else { Mode::Enforce };
            Policy { id, created, selector, retention, orphans, incomplete_grace, mode, ..base }
        },
    )
}

/// Storage policies; `node_wide` ones also have a total for the node and watermarks.
fn storage_policy(node_wide: bool) -> impl Strategy<Value = StoragePolicy> {
    let share = || option::weighted(0.5, (0_u32..=100).prop_map(percent));
    let age = option::weighted(0.2, (0_u32..80).prop_map(|hours| HOUR * hours));
    let size = option::weighted(0.2, select(vec![0, MI, 10 * MI, 40 * GI]).prop_map(Size::Bytes));
    let free = (option::weighted(0.3, 0..60 * GI), option::weighted(0.3, 0_u64..50));
    let gpu = proptest::bool::weighted(0.2);
    (share(), share(), share(), free, size, limit(), age, gpu).prop_map(
        move |(high, low, reserved, free, max_total_size, limit, max_age, gpu)| {
            with(storage("s"), |policy| {
                policy.per_namespace = Ceiling { limit, max_age, ..Ceiling::default() };
                if gpu {
                    policy.node_selector = label_is("pool", "gpu");
                }
                if node_wide {
                    (policy.high_watermark, policy.low_watermark, policy.reserved) = (high, low, reserved);
                    (policy.min_free_bytes, policy.min_free_inodes) = free;
                    policy.max_total_size = max_total_size;
                }
            })
        },
    )
}

const SCHEDULES: [&str; 3] = ["s0", "s1", "s2"];

/// How an archive came into being: most did not by a schedule.
fn creation() -> impl Strategy<Value = Option<Arc<Creation>>> {
    let requests = subsequence(SCHEDULES.to_vec(), 1..=3).prop_map(|uids| {
        let request = |uid: &str| CreationRequest {
            api_version: String::new(),
            namespace: String::new(),
            name: uid.to_owned(),
            uid: uid.to_owned(),
            trigger: "Interval".to_owned(),
            due: now(),
        };
        uids.into_iter().map(request).collect()
    });
    let creation = (requests, proptest::bool::weighted(0.1))
        .prop_map(|(requests, is_failed)| Arc::new(Creation { requests, is_failed }));
    option::weighted(0.4, creation)
}

fn schedule_retention() -> impl Strategy<Value = ScheduleRetention> {
    (1_u32..4, option::of((0_u32..72).prop_map(|hours| HOUR * hours))).prop_map(|(keep_latest, max_age)| {
        let id = reference(Kind::CheckpointSchedule, Some("shop"), "s");
        ScheduleRetention { id, uid: String::new(), keep_latest, max_age }
    })
}

fn file_system() -> impl Strategy<Value = FileSystem> {
    (select(vec![10 * MI, GI, 100 * GI, 1_000 * GI]), 0_u64..=100, 0_u64..100, proptest::bool::weighted(0.1))
        .prop_map(|(total, free, inodes, awaiting)| FileSystem {
            total_bytes: total,
            available_bytes: total / 100 * free,
            total_inodes: if inodes == 0 { 0 } else { 1_000 },
            available_inodes: inodes,
            release: if awaiting { Release::Awaited } else { Release::Shown },
        })
}

/// Anything; with no bucket, and rules that reach over the whole node only if asked for.
fn cases(node_wide: bool) -> impl Strategy<Value = Case> {
    let namespaces = vec(option::of((option::of(select(vec!["prod", "test"])), option::of(0_u32..80))), 3);
    let invalid = vec(option::weighted(0.5, select(NAMESPACES.to_vec())), 0..2);
    let invalid = prop_oneof![3 => Just(vec![]), 1 => invalid];
    let node = option::of(select(vec!["gpu", "cpu"]));
    (
        directory(),
        vec(policy(), 0..5),
        vec(storage_policy(node_wide), 0..3),
        invalid,
        namespaces,
        option::weighted(0.8, file_system()),
        node,
        proptest::bool::weighted(0.1),
        (vec(creation(), 60), vec(option::weighted(0.5, schedule_retention()), 3)),
    )
        .prop_map(
            |(archives, policies, storage, invalid, namespaces, disk, node, suspect, by_schedule)| {
                let (creations, schedules) = by_schedule;
                let created = archives.into_iter().zip(creations);
                let mut case = case(created.map(|(archive, creation)| Archive { creation, ..archive }));
                for (number, schedule) in schedules.into_iter().enumerate() {
                    let named =
                        |schedule| ScheduleRetention { uid: SCHEDULES[number].to_owned(), ..schedule };
                    case.policies.schedules.extend(schedule.map(named));
                }
                for (number, mut policy) in policies.into_iter().enumerate() {
                    policy.id.name = format!("p{number}");
                    case = case.policy(policy);
                }
                for (number, mut policy) in storage.into_iter().enumerate() {
                    policy.id.name = format!("s{number}");
                    case = case.storage(policy);
                }
                for namespace in invalid {
                    case = case.broken(namespace);
                }
                for (name, known) in NAMESPACES.iter().zip(namespaces) {
                    let Some((env, created)) = known else { continue };
                    let labels: Vec<_> = env.map(|env| ("env", env)).into_iter().collect();
                    case = case.namespace(name, &labels, created.map(|hours| ago(HOUR * hours)));
                }
                case.snapshot.filesystem = disk;
                case.snapshot.node_labels = node.map(|pool| labels(&[("pool", pool)]));
                case.snapshot.clock = if suspect { Clock::Suspect } else { Clock::Trusted };
                case
            },
        )
}

// ---- What the design says, once more ------------------------------------------------------------------

fn kubelet(archive: &Archive) -> bool {
    archive.file.kind() == NameKind::Kubelet
}

fn unknown(archive: &Archive) -> bool {
    let is_whole = matches!(archive.state, State::Complete | State::NoImages);
    archive.state == State::Unreadable || (is_whole && archive.identity.is_none())
}

/// Whether any rule but a discard could ever take it.
fn judged(archive: &Archive) -> bool {
    archive.settled && kubelet(archive) && !unknown(archive)
}

fn could_be_newest(archive: &Archive) -> bool {
    let is_whole = judged(archive) && archive.state == State::Complete;
    is_whole && !archive.pinned && !archive.discarded && is_dated(archive)
}

/// Whether its time can be compared with others'.
fn is_dated(archive: &Archive) -> bool {
    matches!(archive.dated, Dated::Trusted | Dated::Untrusted)
}

fn counts(archive: &Archive) -> bool {
    judged(archive)
        && (archive.pinned || !archive.discarded)
        && is_dated(archive)
        && (matches!(archive.state, State::Complete | State::NoImages) || archive.changed <= ago(MINUTE * 10))
}

type GroupKey = [String; 5];

fn level_of(level: Level, archive: &Archive) -> Option<GroupKey> {
    let identity = archive.identity.as_ref()?;
    let (namespace, pod, container) =
        (identity.namespace.clone(), identity.pod.clone(), identity.container.clone());
    let none = String::new;
    Some(match level {
        Level::Container => [namespace, pod, container, none(), none()],
        Level::Pod => [namespace, pod, none(), none(), none()],
        Level::Namespace => [namespace, none(), none(), none(), none()],
        Level::Workload => {
            let workload = archive.workload.as_ref()?;
            [namespace, none(), container, workload.kind.clone(), workload.name.clone()]
        }
    })
}

fn lineage_of(archive: &Archive) -> Option<GroupKey> {
    let identity = archive.identity.as_ref()?;
    let owner = archive.workload.as_ref().filter(|workload| workload.kind != "StatefulSet");
    let names = owner.map_or([identity.pod.clone(), String::new(), String::new()], |owner| {
        [String::new(), owner.kind.clone(), owner.name.clone()]
    });
    let [pod, kind, name] = names;
    Some([identity.namespace.clone(), identity.container.clone(), pod, kind, name])
}

/// The places of each group, newest first.
fn groups(archives: &[Archive], key: impl Fn(&Archive) -> Option<GroupKey>) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<GroupKey, Vec<usize>> = BTreeMap::new();
    for (place, archive) in archives.iter().enumerate() {
        if let Some(key) = key(archive) {
            groups.entry(key).or_default().push(place);
        }
    }
    for group in groups.values_mut() {
        group.sort_by(|one, other| {
            let of = |place: usize| (archives[place].taken, archives[place].file.as_bytes());
            of(*other).cmp(&of(*one))
        });
    }
    groups.into_values().collect()
}

fn deleted_places(case: &Case) -> Vec<usize> {
    case.run().plan.deletions().collect()
}

/// The directory after the deletions, and the file system with what they freed.
fn applied(case: &Case) -> Case {
    let gone = deleted_places(case);
    let mut after = case.clone();
    let archives = &case.snapshot.archives;
    let freed: u64 = gone.iter().map(|&place| archives[place].allocated).sum();
    if let Some(filesystem) = &mut after.snapshot.filesystem {
        filesystem.available_bytes =
            filesystem.available_bytes.saturating_add(freed).min(filesystem.total_bytes);
        filesystem.available_inodes += gone.len() as u64;
    }
    let kept = archives.iter().enumerate().filter(|(place, _)| !gone.contains(place));
    after.snapshot.archives = kept.map(|(_, archive)| archive.clone()).collect();
    after
}

const LEVELS: [Level; 4] = Level::ALL;

fn set_limit(retention: &mut Retention, level: Level, limit: Limit) {
    match level {
        Level::Container => retention.per_container = limit,
        Level::Workload => retention.per_workload = limit,
        Level::Pod => retention.per_pod = limit,
        Level::Namespace => retention.per_namespace = limit,
    }
}

fn lone_limit(archives: Vec<Archive>, level: Level, limit: Limit, keep_latest: u32) -> Case {
    case(archives).policy(keep(|retention| {
        retention.keep_latest = keep_latest;
        set_limit(retention, level, limit);
    }))
}

fn is_subset(one: &[usize], other: &[usize]) -> bool {
    one.iter().all(|place| other.contains(place))
}

// ---- Properties -----------------------------------------------------------------------------------------

proptest! {
    #![proptest_config(tries(200))]

    /// Promises 2, 3, 5, 7, 8.
    #[test]
    fn one_verdict_each_and_the_protected_stay(case in cases(true), allowance in option::of(0_u64..20)) {
        let mut case = case;
        case.snapshot.allowance = allowance.map(shared);
        let outcome = case.run();
        prop_assert_eq!(outcome.verdicts.len(), case.snapshot.archives.len());
        let metered = outcome.plan.verdicts.iter().filter(|verdict| {
            verdict.action() == Action::Delete && verdict.reason != Reason::Discarded
        });
        let mut metered_or_watermark = 0;
        for _ in metered { metered_or_watermark += 1; }
        prop_assert!(outcome.plan.metered_deletions() <= metered_or_watermark);
        prop_assert!(allowance.is_none_or(|allowance| outcome.plan.metered_deletions() <= allowance));
        for (archive, verdict) in case.snapshot.archives.iter().zip(&outcome.plan.verdicts) {
            let may_go = !archive.pinned && archive.settled && kubelet(archive) && (archive.discarded || !unknown(archive));
            prop_assert!(may_go || verdict.action() == Action::Keep, "{:?} {:?}", archive, verdict);
            prop_assert_eq!(verdict.reason == Reason::Pinned, archive.pinned);
            prop_assert_eq!(verdict.reason == Reason::Discarded, archive.discarded && may_go);
            prop_assert_eq!(verdict.reason == Reason::Settling, !archive.pinned && !archive.settled);
            let needs_no_policy = matches!(verdict.reason, Reason::Discarded | Reason::FailedDump);
            let by_policy = verdict.action() == Action::Delete && !needs_no_policy;
            prop_assert!(!by_policy || verdict.policy.is_some(), "{:?}", verdict);
        }
    }

    /// Promise 1.
    #[test]
    fn without_policies_only_discards_go(case in cases(true)) {
        let mut case = case;
        case.policies.retention.clear();
        case.policies.storage.clear();
        case.policies.schedules.clear();
        for verdict in &case.run().plan.verdicts {
            let is_no_policys = matches!(verdict.reason, Reason::Discarded | Reason::FailedDump);
            prop_assert!(verdict.action() == Action::Keep || is_no_policys);
        }
    }

    /// Promise 4, where nothing may go below it: age, tiers, the incomplete rule and the watermark.
    #[test]
    fn the_newest_of_each_lineage_survive_age_tiers_and_watermark(
        archives in directory(), retention in floored(), disk in file_system(),
        high in 1_u32..100, incomplete in option::of(Just(MINUTE)),
    ) {
        let keep_latest = retention.keep_latest as usize;
        let policy = with(cluster("p"), |policy| (policy.retention, policy.incomplete_grace) = (retention, incomplete));
        let keep_for = policy.retention.keep_latest_for;
        let case = case(archives).policy(policy).storage(watermark(high, 1)).disk(disk);
        let gone = deleted_places(&case);
        let archives = &case.snapshot.archives;
        for lineage in groups(archives, lineage_of) {
            let idle = lineage.iter().map(|&place| archives[place].idle_since).collect::<Option<Vec<_>>>();
            let ended = match (keep_for, idle) {
                (KeepFor::For(length), Some(idle)) => idle.iter().all(|idle| *idle <= ago(length)),
                _ => false,
            };
            let newest = || lineage.iter().filter(|&&place| could_be_newest(&archives[place]));
            for place in newest().take(keep_latest) {
                let for_space = is_for_space(&case, *place);
                prop_assert!(ended || for_space || !gone.contains(place), "{:?}", archives[*place]);
            }
            // Storage rules spare one, until a week after the last pod left.
            let has_left = lineage.iter().all(|&place| archives[place].idle_since.is_some_and(|idle| idle <= ago(DAY * 7)));
            let left = newest().find(|place| !gone.contains(place) || is_for_space(&case, **place));
            prop_assert!(has_left || left.is_none_or(|place| !gone.contains(place)));
        }
    }

    /// Promise 4, where limits go below it.
    #[test]
    fn the_newest_of_a_limited_group_survive_its_limit_and_what_limits_left_of_lineages_the_watermark(
        archives in directory(), keep_latest in 0_u32..4, level in select(LEVELS.to_vec()),
        limit in limit(), disk in file_system(),
    ) {
        let mut case = lone_limit(archives, level, limit, keep_latest);
        case.snapshot.archives.iter_mut().for_each(|archive| archive.idle_since = None);
        let full = case.clone().storage(watermark(2, 1)).disk(disk);
        let archives = &case.snapshot.archives;
        let (gone, gone_when_full) = (deleted_places(&case), deleted_places(&full));
        let newest = |group: &[usize], gone: &[usize], many: u32| -> Vec<usize> {
            let there = group.iter().copied().filter(|place| could_be_newest(&archives[*place]) && !gone.contains(place));
            there.take(many as usize).collect()
        };
        for group in groups(archives, |archive| level_of(level, archive)) {
            prop_assert!(newest(&group, &[], keep_latest).iter().all(|place| !gone.contains(place)));
        }
        // Shares are off without a disk, so that both runs have the same limits only for bytes.
        if !matches!(limit.max_total_size, Some(Size::Share(_))) {
            for lineage in groups(archives, lineage_of) {
                // Storage rules spare one, whatever `keepLatest` says.
                let spared = newest(&lineage, &gone, 1);
                prop_assert!(spared.iter().all(|place| !gone_when_full.contains(place)));
            }
        }
    }

    /// Promise 6.
    #[test]
    fn a_plan_that_was_carried_out_wants_nothing_more(case in cases(true)) {
        let mut case = case;
        // What lies on a disk fits on it.
        let lying: u64 = case.snapshot.archives.iter().map(|archive| archive.allocated).sum();
        if let Some(filesystem) = &mut case.snapshot.filesystem {
            filesystem.total_bytes = filesystem.total_bytes.max(filesystem.available_bytes + lying);
        }
        let after = applied(&case);
        let outcome = after.run();
        prop_assert_eq!(outcome.deleted(), Vec::<String>::new(), "{:?}", outcome.verdicts);
    }

    #[test]
    fn the_order_of_archives_and_policies_does_not_matter(
        case in cases(true), allowance in option::of(0_u64..20), keys in vec(any::<u32>(), 70),
    ) {
        let mut case = case;
        case.snapshot.allowance = allowance.map(shared);
        let mut shuffled = case.clone();
        let mut number = 0;
        let mut next = || { number += 1; keys[number % keys.len()] };
        shuffled.snapshot.archives.sort_by_cached_key(|_| next());
        shuffled.policies.retention.sort_by_cached_key(|_| next());
        shuffled.policies.storage.sort_by_cached_key(|_| next());
        shuffled.policies.invalid.sort_by_cached_key(|_| next());
        let (one, other) = (case.run(), shuffled.run());
        prop_assert_eq!(one.verdicts, other.verdicts);
        prop_assert_eq!(one.plan.watermark, other.plan.watermark);
        prop_assert_eq!(one.plan.metered_deletions(), other.plan.metered_deletions());
    }

    #[test]
    fn a_dry_run_policy_never_changes_a_verdict(case in cases(true), policy in policy()) {
        let dry = Policy { mode: Mode::DryRun, ..policy };
        prop_assert_eq!(case.clone().policy(dry).run().verdicts, case.run().verdicts);
    }

    /// Promise 10. What rules for the whole node do elsewhere depends on what is freed here, and so
    /// they are left out.
    #[test]
    fn a_namespaced_policy_never_changes_a_verdict_elsewhere(case in cases(false), policy in policy()) {
        let own = with(policy, |policy| {
            policy.namespace = Some("shop".into());
            policy.id.namespace = Some("shop".into());
            policy.mode = Mode::Enforce;
        });
        let (before, after) = (case.run().plan.verdicts, case.clone().policy(own).run().plan.verdicts);
        let created = case.snapshot.namespaces.get("shop").and_then(|namespace| namespace.created);
        for ((archive, before), after) in case.snapshot.archives.iter().zip(before).zip(after) {
            // What may be of this namespace or of an earlier one it keeps at most (where others stay, the figures of a
            // limit are others, too); and then what the namespace may have at most takes another of these.
            let origin = archive.origin(created);
            if origin == Origin::Uncertain {
                prop_assert!(
                    before == after
                        || before.action() == Action::Delete
                        || after.action() == Action::Keep
                        || after.reason == Reason::NamespaceCeiling
                );
            } else if origin == Origin::Former || archive.identity.as_ref().is_none_or(|identity| identity.namespace != "shop") {
                prop_assert_eq!(before, after);
            }
        }
    }

    #[test]
    fn a_lone_count_limit_deletes_exactly_the_surplus(
        archives in directory(), level in select(LEVELS.to_vec()), limit in 1_u64..8, keep_latest in 0_u32..4,
    ) {
        let case = lone_limit(archives, level, count(limit), keep_latest);
        let gone = deleted_places(&case);
        let archives = &case.snapshot.archives;
        for group in groups(archives, |archive| level_of(level, archive)) {
            let counted: Vec<usize> = group.iter().copied().filter(|&place| counts(&archives[place])).collect();
            let newest: Vec<usize> =
                group.iter().copied().filter(|&place| could_be_newest(&archives[place])).take(keep_latest as usize).collect();
            let deletable = counted.iter().filter(|place| !archives[**place].pinned && !newest.contains(place)).count();
            let surplus = counted.len().saturating_sub(usize::try_from(limit).unwrap());
            let deleted = group.iter().filter(|place| gone.contains(place) && !archives[**place].discarded).count();
            prop_assert_eq!(deleted, surplus.min(deletable), "{:?}", group);
        }
    }

    #[test]
    fn a_lone_size_limit_deletes_no_more_than_it_must_and_as_much_as_it_may(
        archives in directory(), level in select(LEVELS.to_vec()), limit in select(vec![1_024, MI, 5 * MI, 2 * GI, 25 * GI]),
        keep_latest in 0_u32..4,
    ) {
        let case = lone_limit(archives, level, total(limit), keep_latest);
        let gone = deleted_places(&case);
        let archives = &case.snapshot.archives;
        for group in groups(archives, |archive| level_of(level, archive)) {
            let counted: Vec<usize> = group.iter().copied().filter(|&place| counts(&archives[place])).collect();
            let (deleted, left): (Vec<usize>, Vec<usize>) = counted.iter().partition(|place| gone.contains(place));
            let bytes = |places: &[usize]| places.iter().map(|&place| archives[place].size).sum::<u64>();
            let newest: Vec<usize> =
                group.iter().copied().filter(|&place| could_be_newest(&archives[place])).take(keep_latest as usize).collect();
            let stuck = left.iter().all(|place| archives[*place].pinned || newest.contains(place));
            prop_assert!(bytes(&left) <= limit || stuck);
            // Without the last one it would not have been enough.
            let last_was_needed = deleted.iter().any(|&place| bytes(&left) + archives[place].size > limit);
            prop_assert!(deleted.is_empty() || last_was_needed);
        }
    }

    #[test]
    fn a_laxer_limit_never_deletes_more(
        archives in directory(), level in select(LEVELS.to_vec()), keep_latest in 0_u32..4,
        figures in (1_u64..8, 1_u64..8), sizes in (1_u64..20 * GI, 1_u64..20 * GI), hours in (1_u32..72, 1_u32..72),
        which in 0..5, tiers in tiers(), fewer in tiers(),
    ) {
        let policy = |lax: bool| keep(|retention| {
            let pick = |pair: (u64, u64)| if lax { pair.0.max(pair.1) } else { pair.0.min(pair.1) };
            retention.keep_latest = keep_latest;
            match which {
                0 => set_limit(retention, level, count(pick(figures))),
                1 => set_limit(retention, level, total(pick(sizes))),
                2 => retention.max_age = Some(HOUR * u32::try_from(pick((hours.0.into(), hours.1.into()))).unwrap()),
                3 => retention.max_archive_size = Some(pick(sizes)),
                _ => {
                    let least = |one: u32, other: u32| if lax { one.max(other) } else { one.min(other) };
                    retention.tiers = Some(Tiers {
                        hourly: 1 + least(tiers.hourly, fewer.hourly),
                        daily: least(tiers.daily, fewer.daily),
                        weekly: least(tiers.weekly, fewer.weekly),
                        monthly: least(tiers.monthly, fewer.monthly),
                        yearly: least(tiers.yearly, fewer.yearly),
                    });
                }
            }
        });
        let strict = deleted_places(&case(archives.clone()).policy(policy(false)));
        let lax = deleted_places(&case(archives).policy(policy(true)));
        prop_assert!(is_subset(&lax, &strict), "{:?} {:?}", lax, strict);
    }

    #[test]
    fn a_laxer_storage_limit_never_deletes_more(
        archives in directory(), figures in (1_u64..12, 1_u64..12), sizes in (1_u64..40 * GI, 1_u64..40 * GI),
        hours in (1_u32..72, 1_u32..72), high in (1_u32..=100, 1_u32..=100), which in 0..5, disk in file_system(),
    ) {
        let policy = |lax: bool| with(storage("s"), |policy| {
            let pick = |pair: (u64, u64)| if lax { pair.0.max(pair.1) } else { pair.0.min(pair.1) };
            match which {
                0 => policy.per_namespace.limit = count(pick(figures)),
                1 => policy.per_namespace.limit = total(pick(sizes)),
                2 => {
                    let hours = u32::try_from(pick((hours.0.into(), hours.1.into()))).unwrap();
                    policy.per_namespace.max_age = Some(HOUR * hours);
                }
                3 => policy.max_total_size = Some(Size::Bytes(pick(sizes))),
                _ => {
                    let share = u32::try_from(pick((high.0.into(), high.1.into()))).unwrap();
                    policy.high_watermark = Some(percent(share));
                }
            }
        });
        let strict = deleted_places(&case(archives.clone()).storage(policy(false)).disk(disk));
        let lax = deleted_places(&case(archives).storage(policy(true)).disk(disk));
        prop_assert!(is_subset(&lax, &strict), "{:?} {:?}", lax, strict);
    }

    /// For a limit on the total size this says nothing about numbers: where a big one is spared,
    /// several small ones may go in its place.
    #[test]
    fn a_larger_keep_latest_never_deletes_more(
        archives in directory(), level in select(LEVELS.to_vec()), keep_latest in (0_u32..5, 0_u32..5),
        limit in 1_u64..8, retention in floored(), by_count in any::<bool>(),
    ) {
        let run = |keep_latest: u32| {
            let mut retention = Retention { keep_latest, ..retention.clone() };
            if by_count {
                retention = Retention { keep_latest, ..Retention::default() };
                set_limit(&mut retention, level, count(limit));
            }
            deleted_places(&case(archives.clone()).policy(keep(|changed| *changed = retention)))
        };
        let (fewer, more) = (run(keep_latest.0.min(keep_latest.1)), run(keep_latest.0.max(keep_latest.1)));
        if by_count {
            prop_assert!(more.len() <= fewer.len());
        } else {
            prop_assert!(is_subset(&more, &fewer));
        }
    }

    /// A suspect clock, a smaller bucket, a pin or no knowledge of the cluster never let more go
    /// than a discard asked for and what the node's disk needs.
    #[test]
    fn doubt_never_deletes_more(case in cases(false), pins in vec(any::<bool>(), 60), allowance in 0_u64..10) {
        let sure = deleted_places(&case);
        prop_assert!(is_subset(&deleted_places(&case.clone().allowance(allowance)), &sure));
        let mut pinned = case.clone();
        for (archive, pin) in pinned.snapshot.archives.iter_mut().zip(pins) {
            archive.pinned |= pin;
        }
        for place in deleted_places(&pinned) {
            prop_assert!(!pinned.snapshot.archives[place].pinned);
        }
        let mut alone = case.clone();
        alone.policies.storage.clear();
        alone.policies.retention.iter_mut().for_each(|policy| {
            let Retention { keep_latest, keep_latest_for, max_age, .. } = policy.retention;
            policy.retention = Retention { keep_latest, keep_latest_for, max_age, ..Retention::default() };
            // Where an orphan goes, an older archive is the newest in its place.
            policy.orphans = None;
        });
        let known = deleted_places(&alone);
        for archive in &mut alone.snapshot.archives {
            archive.idle_since = None;
        }
        prop_assert!(is_subset(&deleted_places(&alone), &known));
        prop_assert!(is_subset(&deleted_places(&alone.suspect_clock()), &known));
    }
}

// ---- Extremes ---------------------------------------------------------------------------------------------

fn extreme_time() -> impl Strategy<Value = Timestamp> {
    select(vec![Timestamp::MIN, Timestamp::MAX, Timestamp::UNIX_EPOCH, now()])
}

fn extreme_number() -> impl Strategy<Value = u64> {
    select(vec![0, 1, 5, u64::MAX - 1, u64::MAX, u64::MAX / 2])
}

fn extreme_duration() -> impl Strategy<Value = Duration> {
    select(vec![
        Duration::ZERO,
        Duration::from_nanos(1),
        DAY,
        Duration::MAX,
        Duration::from_secs(u64::MAX / 2),
    ])
}

proptest! {
    #![proptest_config(tries(200))]

    #[test]
    fn no_number_is_too_extreme(
        case in cases(true),
        times in vec((extreme_time(), extreme_time(), extreme_number(), extreme_number()), 60),
        numbers in (extreme_number(), extreme_number(), extreme_number(), extreme_number(), extreme_number()),
        durations in (extreme_duration(), extreme_duration(), extreme_duration()),
        now in extreme_time(), keep_latest in select(vec![0, 1, u32::MAX]), inodes in any::<bool>(),
        waiting in any::<bool>(),
    ) {
        let mut case = case;
        case.now = now;
        for (archive, (taken, changed, size, allocated)) in case.snapshot.archives.iter_mut().zip(times) {
            (archive.taken, archive.changed) = (taken, changed);
            (archive.size, archive.allocated) = (size, allocated);
            archive.idle_since = archive.idle_since.map(|_| changed);
            archive.absences = Some(Arc::new(Absences {
                pod: Some(Absence { since: taken, confirmed: changed }),
                workload: Some(Absence { since: changed, confirmed: taken }),
                namespace: None,
            }));
        }
        let (one, two, three, four, five) = numbers;
        case.snapshot.filesystem = Some(FileSystem {
            total_bytes: one,
            available_bytes: two,
            total_inodes: if inodes { three } else { 0 },
            available_inodes: four,
            release: if waiting { Release::Awaited } else { Release::Shown },
        });
        case.snapshot.allowance = Some(shared(five));
        let limit = Limit { max_count: Some(four), max_total_size: Some(Size::Bytes(two)) };
        for policy in &mut case.policies.retention {
            let retention = &mut policy.retention;
            retention.keep_latest = keep_latest;
            retention.keep_latest_for = KeepFor::For(durations.0);
            retention.max_age = retention.max_age.map(|_| durations.1);
            (retention.per_pod, retention.per_namespace) = (limit, limit);
            policy.orphans = policy.orphans.map(|rule| OrphanRule { grace: durations.2, ..rule });
        }
        for policy in &mut case.policies.storage {
            policy.per_namespace.limit = limit;
            policy.per_namespace.max_age = Some(durations.1);
            policy.min_free_bytes = Some(three);
            policy.min_free_inodes = Some(one);
            policy.max_total_size = Some(Size::Bytes(five));
        }
        let outcome = case.run();
        for verdict in &outcome.plan.verdicts {
            prop_assert!(verdict.detail.to_string().len() < 200);
        }
    }
}

/// Any case, with `minAge` and `damagedGracePeriod` as well. `minAge` and ceilings end at no time at which something
/// else does: of equal times it is not foreseen which limit takes what.
fn timed_cases() -> impl Strategy<Value = Case> {
    let hours = |weight| option::weighted(weight, (0_u32..90).prop_map(|hours| HOUR * hours));
    (cases(false), vec((hours(0.4), hours(0.4)), 5)).prop_map(|(mut case, extra)| {
        for (policy, (min_age, damaged_grace)) in case.policies.retention.iter_mut().zip(extra) {
            policy.retention.min_age = min_age.map(|age| age + MINUTE);
            policy.damaged_grace = damaged_grace;
        }
        for policy in &mut case.policies.storage {
            policy.per_namespace.max_age = policy.per_namespace.max_age.map(|age| age + MINUTE * 2);
        }
        case
    })
}

/// The plan at another time, with everything else as it was: what is gone was confirmed again.
fn plan_at(case: &Case, time: Timestamp) -> Plan {
    let mut snapshot = case.snapshot.clone();
    for archive in &mut snapshot.archives {
        archive.absences = archive.absences.as_deref().map(|absences| {
            let again =
                |absence: Option<Absence>| absence.map(|absence| Absence { confirmed: time, ..absence });
            let Absences { pod, workload, namespace } = *absences;
            Arc::new(Absences { pod: again(pod), workload: again(workload), namespace: again(namespace) })
        });
    }
    plan(&snapshot, &case.policies, time)
}

/// Whether a verdict says that an archive goes for its age or the end of a grace period.
fn is_by_time(verdict: &Verdict) -> bool {
    let is_by_age = matches!(verdict.detail, Detail::Age { .. });
    match verdict.reason {
        Reason::Orphaned | Reason::Incomplete | Reason::Damaged | Reason::MaxAge => true,
        Reason::ScheduleRetention | Reason::NamespaceCeiling => is_by_age,
        _ => false,
    }
}

const SECOND: jiff::SignedDuration = jiff::SignedDuration::from_secs(1);

proptest! {
    #![proptest_config(tries(100))]

    /// What is foreseen comes true, and not a second earlier, unless another rule comes first.
    #[test]
    fn an_archive_expires_when_that_is_foreseen(case in timed_cases()) {
        let current = case.run().plan;
        let foreseen = expirations(&case.snapshot, &case.policies, &current, now());
        for (place, expiration) in foreseen.iter().enumerate() {
            let archive = &case.snapshot.archives[place];
            let Some(Expiration { at, reason, policy }) = expiration else { continue };
            prop_assert!(current.verdicts[place].action() == Action::Keep);
            let is_overdue = *reason == Reason::Orphaned && *at <= now();
            prop_assert!(is_overdue || *at > now());
            let before = plan_at(&case, (*at - SECOND).max(now())).verdicts[place].clone();
            prop_assert!(is_overdue || before.reason != *reason || !is_by_time(&before), "{before:?} before {expiration:?} of {archive:?}");
            let then = plan_at(&case, (*at).max(now())).verdicts[place].clone();
            // Limits may take what is not whole from the same moment on as the rules of age.
            let becomes_quiet = !archive.state.is_whole() && *at == archive.changed + MINUTE * 10;
            let is_as_foreseen = (then.reason == *reason && then.policy == *policy) || becomes_quiet;
            prop_assert!(is_as_foreseen || before.action() == Action::Delete, "{then:?} in place of {expiration:?} of {archive:?}");
            prop_assert!(then.action() == Action::Delete, "{then:?} at {expiration:?} of {archive:?}");
        }
    }

    /// What is not foreseen to go by time never does.
    #[test]
    fn what_does_not_expire_is_taken_by_no_rule_of_time(case in timed_cases(), later in 0_u32..400) {
        let current = case.run().plan;
        let foreseen = expirations(&case.snapshot, &case.policies, &current, now());
        for hours in [later, 10_000] {
            let then = plan_at(&case, now() + HOUR * hours);
            for (place, verdict) in then.verdicts.iter().enumerate() {
                let was_to_go = current.verdicts[place].action() == Action::Delete;
                let is_foreseen = foreseen[place].as_ref().is_some_and(|foreseen| foreseen.at <= now() + HOUR * hours);
                prop_assert!(is_foreseen || was_to_go || !is_by_time(verdict),
                    "{verdict:?} after {hours} h, {:?} before; {:?}", current.verdicts[place], case.snapshot.archives[place]);
            }
        }
    }
}

proptest! {
    #![proptest_config(tries(200))]

    /// An explanation ends in the plan's verdict, and one of the rules it names gave that.
    #[test]
    fn an_explanation_is_of_the_plan_s_verdict(
        case in cases(true), index in any::<proptest::sample::Index>(), allowance in option::of(0_u64..20),
        confidence in 0..3,
    ) {
        let mut case = case;
        if case.snapshot.archives.is_empty() { return Ok(()); }
        case.snapshot.allowance = allowance.map(shared);
        let confidence = match confidence {
            0 => Confidence::Current,
            1 => Confidence::Stale { confirmed: Arc::new(PolicySet { retention: case.policies.retention.iter().skip(1).cloned().collect(), ..case.policies.clone() }) },
            _ => Confidence::Paused,
        };
        let plan = plan_with(&case.snapshot, &case.policies, &confidence, now());
        let place = index.index(case.snapshot.archives.len());
        let explanation = explain(&case.snapshot, &case.policies, &confidence, now(), place).unwrap();
        prop_assert_eq!(&explanation.verdict, &plan.verdicts[place]);
        prop_assert_eq!(&explanation.governed, &plan.governed[place]);
        let verdict = &explanation.verdict;
        let given = explanation.judgements.iter().any(|judgement| match judgement.outcome {
            RuleOutcome::Took { reason, detail } => (reason, detail) == (verdict.reason, verdict.detail),
            RuleOutcome::Spared { reason, detail } => {
                (reason, detail) == (verdict.reason, verdict.detail) && verdict.action() == Action::Keep
            }
            RuleOutcome::Kept | RuleOutcome::DoesNotApply(_) => false,
        });
        let by_no_rule = matches!(verdict.reason, Reason::WithinLimits | Reason::NoPolicy | Reason::Undated | Reason::ClockSuspect);
        prop_assert!(given || by_no_rule, "{explanation:?}");
        prop_assert_eq!(matches!(explanation.next, Next::Now), verdict.action() == Action::Delete);
    }

    /// What is foreseen in an explanation comes true.
    #[test]
    fn what_an_explanation_foresees_comes_true(case in timed_cases(), index in any::<proptest::sample::Index>()) {
        if case.snapshot.archives.is_empty() { return Ok(()); }
        let place = index.index(case.snapshot.archives.len());
        let explanation = explain(&case.snapshot, &case.policies, &Confidence::Current, now(), place).unwrap();
        if let Next::At(Expiration { at, .. }) = explanation.next {
            prop_assert_eq!(plan_at(&case, at + SECOND).verdicts[place].action(), Action::Delete);
        }
    }
}

/// Whether it goes as the disk is too full.
fn is_for_space(case: &Case, place: usize) -> bool {
    let plan = case.run().plan;
    plan.verdicts[place].reason == Reason::StorageWatermark
}

fn shared(shared: u64) -> Allowance {
    Allowance { shared, watermark: u64::MAX, ..Allowance::default() }
}

#[test]
fn sums_of_sizes_beyond_64_bits_are_still_sums() {
    let sizes = [5, u64::MAX, u64::MAX, 7];
    let archives = || {
        sizes
            .iter()
            .zip(series("a", "shop/web-0/server", 4))
            .map(|(size, archive)| archive.sized(*size))
            .collect()
    };
    let deleted = |limit: u64| lone_limit(archives(), Level::Pod, total(limit), 0).deleted();
    assert_eq!(deleted(1_024), ["a1", "a2", "a3"]);
    assert_eq!(deleted(u64::MAX), ["a1", "a2", "a3"]);
    assert_eq!(deleted(6), ["a1", "a2", "a3", "a4"]);
}

#[test]
fn what_becomes_the_newest_as_an_orphan_goes_does_not_expire() {
    let gone = Absences { pod: absent(HOUR, MINUTE), ..Absences::default() };
    let older = archive("old").of("shop/web-0/server").owned_by("Deployment", "web").aged(HOUR * 20);
    let newer = archive("new").of("shop/web-1/server").owned_by("Deployment", "web").aged(HOUR).gone(gone);
    let mut policy = keep(|retention| retention.max_age = Some(DAY));
    policy.orphans = Some(OrphanRule { when: OrphanWhen::PodDeleted, grace: HOUR * 2 });
    let case = case([older, newer]).policy(policy);
    let current = case.run().plan;
    let foreseen = expirations(&case.snapshot, &case.policies, &current, now());
    let reasons = foreseen.iter().map(|foreseen| foreseen.as_ref().map(|foreseen| foreseen.reason));
    assert_eq!(reasons.collect::<Vec<_>>(), [None, Some(Reason::Orphaned)]);
}

#[test]
fn what_a_tier_keeps_as_an_orphan_goes_does_not_expire() {
    let gone = Absences { pod: absent(HOUR, MINUTE), ..Absences::default() };
    let idle = |archive: Archive| archive.idle(HOUR);
    let older = idle(archive("old").of("shop/web-0/server").owned_by("Deployment", "web").aged(HOUR * 2));
    let newer =
        idle(archive("new").of("shop/web-1/server").owned_by("Deployment", "web").aged(HOUR).gone(gone));
    let mut policy = keep(|retention| {
        retention.tiers = Some(Tiers { monthly: 1, ..Tiers::default() });
        (retention.keep_latest, retention.keep_latest_for) = (2, KeepFor::For(DAY));
    });
    policy.orphans = Some(OrphanRule { when: OrphanWhen::PodDeleted, grace: HOUR * 2 });
    let case = case([older, newer]).policy(policy);
    let current = case.run().plan;
    assert_eq!(current.verdicts[0].detail, Detail::Would(Reason::Tiers), "only the floor keeps it now");
    let foreseen = expirations(&case.snapshot, &case.policies, &current, now());
    let reasons = foreseen.iter().map(|foreseen| foreseen.as_ref().map(|foreseen| foreseen.reason));
    assert_eq!(reasons.collect::<Vec<_>>(), [None, Some(Reason::Orphaned)]);
}

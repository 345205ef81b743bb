//! What holds of what is known about owners, whatever happens in a cluster and whoever answers.
#![allow(clippy::unwrap_used, clippy::panic)]

mod plan_support;
mod pods_support;

use std::collections::BTreeSet;
use std::time::Duration;

use checkpoint_keeper_core::plan::{Absence, Archive, Clock, Reason};
use checkpoint_keeper_core::pods::{CONFIRMED, RequestBudget};
use checkpoint_keeper_core::policy::OrphanWhen;
use jiff::Timestamp;
use plan_support::{HOUR, ago, tries};
use pods_support::{Cluster, Node, of, orphans};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// What can happen.
#[derive(Debug, Clone)]
enum Step {
    CreateNamespace,
    DeleteNamespace,
    Run { pod: &'static str, uid: &'static str, controller: Option<&'static str>, here: bool },
    Stop(&'static str),
    CreateOwner(&'static str, &'static str),
    DeleteOwner(&'static str, &'static str),
    Down(bool),
    Forbid(bool),
    Clock(Clock),
    Wait(u32),
    Restart,
    Ask,
}

const PODS: [&str; 2] = ["shop/db-0", "shop/web-0"];
const OWNERS: [(&str, &str); 3] = [("StatefulSet", "db"), ("ReplicaSet", "web-1"), ("Deployment", "web")];

fn step() -> impl Strategy<Value = Step> {
    let controller =
        option::of(select(vec!["apps/v1 StatefulSet db", "apps/v1 ReplicaSet web-1", "v1 Node worker"]));
    let run = (select(PODS.to_vec()), select(vec!["u1", "u2", "u3"]), controller, any::<bool>());
    prop_oneof![
        1 => Just(Step::CreateNamespace),
        1 => Just(Step::DeleteNamespace),
        6 => run.prop_map(|(pod, uid, controller, here)| Step::Run { pod, uid, controller, here }),
        3 => select(PODS.to_vec()).prop_map(Step::Stop),
        4 => select(OWNERS.to_vec()).prop_map(|(kind, name)| Step::CreateOwner(kind, name)),
        2 => select(OWNERS.to_vec()).prop_map(|(kind, name)| Step::DeleteOwner(kind, name)),
        2 => any::<bool>().prop_map(Step::Down),
        1 => any::<bool>().prop_map(Step::Forbid),
        1 => select(vec![Clock::Trusted, Clock::Trusted, Clock::Suspect]).prop_map(Step::Clock),
        2 => (0_u32..90).prop_map(Step::Wait),
        1 => Just(Step::Restart),
        8 => Just(Step::Ask),
    ]
}

fn take(node: &mut Node, step: &Step) {
    let shop = |kind: &str, name: &str| ("shop".to_owned(), kind.to_owned(), name.to_owned());
    let path = |pod: &str| ("shop".to_owned(), pod["shop/".len()..].to_owned());
    let cluster = &mut node.cluster;
    let before = lives(cluster);
    match *step {
        Step::CreateNamespace if cluster.namespaces.is_empty() => cluster.create_namespace("shop", node.now),
        Step::DeleteNamespace => cluster.delete_namespace("shop"),
        // No UID comes again.
        Step::Run { pod, uid, controller, here }
            if !cluster.namespaces.is_empty() && !cluster.ended.contains(&(path(pod), uid.to_owned())) =>
        {
            cluster.run(pod, uid, controller);
            cluster.pods.get_mut(&path(pod)).unwrap().1 = here;
        }
        Step::Stop(pod) => _ = cluster.pods.remove(&path(pod)),
        Step::CreateOwner(kind, name) if !cluster.namespaces.is_empty() => {
            let above = (kind == "ReplicaSet").then_some("apps/v1 Deployment web");
            cluster.create_owner("shop", kind, name, above);
        }
        Step::DeleteOwner(kind, name) => _ = cluster.owners.remove(&shop(kind, name)),
        Step::Down(down) => cluster.is_down = down,
        Step::Forbid(true) => _ = cluster.forbidden.insert("ReplicaSet".to_owned()),
        Step::Forbid(false) => cluster.forbidden.clear(),
        Step::Clock(clock) => node.clock = clock,
        Step::Wait(minutes) => _ = node.later(Duration::from_mins(minutes.into())),
        Step::Restart => _ = node.restart(),
        Step::Ask => _ = node.ask(),
        _ => {}
    }
    let after = lives(&node.cluster);
    node.cluster.ended.extend(before.difference(&after).cloned());
}

/// The pods that live, by path and UID.
fn lives(cluster: &Cluster) -> BTreeSet<((String, String), String)> {
    let pods = cluster.pods.iter();
    pods.filter_map(|(path, (pod, _))| Some((path.clone(), pod.uid.clone()?))).collect()
}

/// What was there at each round that was answered, by a clock that was trusted.
type History = Vec<(Timestamp, Cluster)>;

fn archives() -> Vec<Archive> {
    let mut archives = Vec::new();
    for (number, pod) in PODS.iter().enumerate() {
        for uid in ["u1", "u2", ""] {
            archives.push(of(&format!("{number}{uid}"), &format!("{pod}/c"), uid));
        }
    }
    // Taken in the time to come: from whatever namespace there is then.
    for pod in PODS {
        let late = of(&format!("late{}", &pod[5..]), &format!("{pod}/c"), "u3");
        archives.push(Archive { taken: ago(Duration::ZERO) + HOUR * 8, ..late });
    }
    archives
}

/// Whether a pod of its name is there.
fn is_pod(cluster: &Cluster, archive: &Archive) -> bool {
    let identity = archive.identity.as_ref().unwrap();
    cluster.pods.contains_key(&(identity.namespace.clone(), identity.pod.clone()))
}

fn is_former(cluster: &Cluster, archive: &Archive) -> bool {
    cluster.namespaces.get("shop").is_none_or(|(_, created)| archive.taken < *created)
}

/// An absence that a rule may act on was true in every answer since it began.
fn holds(
    absence: Option<Absence>,
    now: Timestamp,
    history: &History,
    gone: impl Fn(&Cluster) -> bool,
) -> Result<(), TestCaseError> {
    let Some(absence) = absence.filter(|absence| absence.confirmed != Timestamp::MIN) else { return Ok(()) };
    prop_assert!(absence.since <= absence.confirmed && absence.confirmed <= now);
    let since: Vec<&(Timestamp, Cluster)> =
        history.iter().filter(|(at, _)| *at >= absence.confirmed).collect();
    prop_assert!(!since.is_empty(), "somebody said so");
    prop_assert!(gone(&since.last().unwrap().1), "it is gone by the last answer");
    prop_assert!(history.iter().any(|(at, cluster)| *at == absence.since && gone(cluster)), "since then");
    let seen = history.iter().find(|(at, cluster)| *at > absence.since && !gone(cluster));
    prop_assert!(seen.is_none(), "it was seen at {:?}", seen.map(|(at, _)| at));
    Ok(())
}

/// An absence that a rule may act on was true when it began and when it was last confirmed, whatever was asked
/// in between.
fn held(
    absence: Option<Absence>,
    now: Timestamp,
    history: &History,
    gone: impl Fn(&Cluster) -> bool,
) -> Result<(), TestCaseError> {
    let Some(absence) = absence.filter(|absence| absence.confirmed != Timestamp::MIN) else { return Ok(()) };
    prop_assert!(absence.since <= absence.confirmed && absence.confirmed <= now);
    prop_assert!(now.duration_since(absence.confirmed).unsigned_abs() <= CONFIRMED);
    for at in [absence.since, absence.confirmed] {
        let then = history.iter().find(|(then, _)| *then == at);
        prop_assert!(then.is_some_and(|(_, cluster)| gone(cluster)), "it was gone at {at}");
    }
    Ok(())
}

/// The reasons why an archive's pod, workload and namespace count as gone, each by what was there then.
fn each_holds(
    archive: &Archive,
    now: Timestamp,
    history: &History,
    holds: impl Fn(Option<Absence>, Timestamp, &History, &dyn Fn(&Cluster) -> bool) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let Some(absences) = archive.absences.as_deref().copied() else { return Ok(()) };
    // By its name, whoever has that.
    holds(absences.pod, now, history, &|then| !is_pod(then, archive))?;
    holds(absences.namespace, now, history, &|then| then.namespaces.is_empty())?;
    holds(absences.workload, now, history, &|then| match &archive.workload {
        None => !is_pod(then, archive),
        Some(workload) => {
            let owner = ("shop".to_owned(), workload.kind.clone(), workload.name.clone());
            !then.owners.contains_key(&owner)
        }
    })
}

proptest! {
    #![proptest_config(tries(400))]

    #[test]
    fn nothing_goes_but_what_the_api_said_is_gone_right_before(
        steps in vec(step(), 1..80),
        when in select(vec![OrphanWhen::PodDeleted, OrphanWhen::WorkloadDeleted, OrphanWhen::NamespaceDeleted]),
        grace in select(vec![Duration::ZERO, HOUR]),
        (new, again) in (1_usize..5, 1_usize..3),
    ) {
        let policy = plan_support::with(orphans(when, grace), |policy| policy.retention.max_age = Some(HOUR * 900));
        let mut node = Node::new(policy, archives()).sparing();
        node.budget = RequestBudget { new, again, idle: 1 };
        node.cluster.create_owner("shop", "Deployment", "web", None);
        let mut history = History::new();
        for step in &steps {
            take(&mut node, step);
            node.later(Duration::from_secs(1));
            if matches!(step, Step::Ask) && !node.cluster.is_down {
                history.push((node.now.checked_sub(Duration::from_secs(1)).unwrap(), node.cluster.clone()));
            }
            if node.clock == Clock::Suspect {
                prop_assert!(!node.reasons().contains(&Reason::Orphaned));
                continue;
            }
            for archive in node.snapshot().archives {
                each_holds(&archive, node.now, &history, |absence, now, history, gone| held(absence, now, history, gone))?;
            }
        }
    }

    #[test]
    fn nothing_is_gone_but_what_the_api_said_is_not_there(
        steps in vec(step(), 1..60),
        when in select(vec![OrphanWhen::PodDeleted, OrphanWhen::WorkloadDeleted, OrphanWhen::NamespaceDeleted]),
        grace in select(vec![Duration::ZERO, HOUR]),
        named in any::<bool>(),
    ) {
        let policy = plan_support::with(orphans(when, grace), |policy| policy.retention.max_age = Some(HOUR * 900));
        let mut node = Node::new(policy, archives());
        if named {
            node = node.named();
        }
        node.cluster.create_owner("shop", "Deployment", "web", None);
        let mut history = History::new();
        for step in &steps {
            take(&mut node, step);
            // Each answer has a time of its own.
            node.later(Duration::from_secs(1));
            if matches!(step, Step::Ask) {
                let at = node.now.checked_sub(Duration::from_secs(1)).unwrap();
                if node.cluster.is_down {
                    prop_assert!(!node.reasons().contains(&Reason::Orphaned), "a question that fails keeps");
                } else {
                    history.push((at, node.cluster.clone()));
                }
            }
            if node.clock == Clock::Suspect {
                prop_assert!(!node.reasons().contains(&Reason::Orphaned));
                // What was said then is not in what is known now.
                continue;
            }
            for archive in node.snapshot().archives {
                each_holds(&archive, node.now, &history, |absence, now, history, gone| holds(absence, now, history, gone))?;
            }
        }
    }

    #[test]
    fn labels_and_owners_are_those_of_the_pod_and_outlive_it(steps in vec(step(), 1..60)) {
        let mut node = Node::new(orphans(OrphanWhen::WorkloadDeleted, HOUR), archives());
        node.cluster.create_owner("shop", "Deployment", "web", None);
        for step in &steps {
            take(&mut node, step);
            for archive in node.snapshot().archives {
                let identity = archive.identity.as_ref().unwrap();
                let Some((labels, uid)) = archive.pod_labels.zip(identity.pod_uid.as_ref()) else { continue };
                let is_stateful = archive.workload.is_some_and(|owner| owner.kind == "StatefulSet");
                prop_assert!(labels["uid"] == *uid || is_stateful);
            }
        }
        let before = node.snapshot().archives;
        node.cluster.is_down = true;
        node.restart().ask();
        for (one, other) in before.iter().zip(node.snapshot().archives) {
            prop_assert_eq!(&one.pod_labels, &other.pod_labels);
            prop_assert_eq!(&one.workload, &other.workload);
            let since = |archive: &Archive| archive.absences.as_deref().map(|absences| {
                [absences.pod, absences.workload, absences.namespace].map(|gone| gone.map(|gone| gone.since))
            });
            prop_assert_eq!(since(one), since(&other));
        }
    }

    #[test]
    fn a_lineage_is_idle_only_while_none_of_its_pods_runs_here(
        steps in vec(step(), 1..60),
        is_shown in any::<bool>(),
    ) {
        let policy = plan_support::keep(|keep| keep.max_age = Some(HOUR * 900));
        let policy = plan_support::with(policy, |policy| policy.orphans = orphans(OrphanWhen::PodDeleted, HOUR).orphans);
        let node = Node::new(policy, archives());
        let mut node = if is_shown { node.sparing() } else { node.named() };
        node.cluster.create_owner("shop", "Deployment", "web", None);
        let mut answered: Option<Cluster> = None;
        for step in &steps {
            take(&mut node, step);
            if matches!(step, Step::Ask) {
                answered = (!node.cluster.is_down).then(|| node.cluster.clone());
            }
            for archive in node.snapshot().archives.iter().filter(|archive| archive.idle_since.is_some()) {
                let then = answered.as_ref();
                prop_assert!(then.is_some(), "somebody said so");
                let identity = archive.identity.as_ref().unwrap();
                let here = then.unwrap().pods.get(&("shop".to_owned(), identity.pod.clone()));
                let same = here.filter(|(_, is_here)| *is_here && !is_former(then.unwrap(), archive));
                prop_assert!(same.is_none_or(|_| archive.workload.as_ref().is_some_and(|owner| owner.kind == "Deployment")),
                    "its pod runs here");
                if archive.workload.as_ref().is_some_and(|owner| owner.kind == "Deployment") && !is_former(then.unwrap(), archive) {
                    let replica = then.unwrap().pods.values().any(|(pod, is_here)| {
                        *is_here && pod.controller.as_ref().is_some_and(|owner| owner.kind == "ReplicaSet")
                    });
                    prop_assert!(!replica, "a pod of its Deployment may run here");
                }
            }
        }
    }
}

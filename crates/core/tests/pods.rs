//! What counts as gone, since when, and what is asked to find out.
#![allow(clippy::unwrap_used, clippy::panic)]

mod plan_support;
mod pods_support;

use std::collections::BTreeSet;
use std::time::Duration;

use Reason::{OrphanGracePeriod, Orphaned, WithinLimits};
use checkpoint_keeper_core::plan::{self, Clock, Detail, Reason, plan};
use checkpoint_keeper_core::pods::{
    self, CONFIRMED, LIVE, Lookup, LookupResult, Owner, PodKey, RequestBudget, TakenWhen,
};
use checkpoint_keeper_core::policy::OrphanWhen::{NamespaceDeleted, PodDeleted, WorkloadDeleted};
use checkpoint_keeper_core::policy::{KeepFor, Labels, OrphanWhen, Policy, Retention, Tiers};
use plan_support::{DAY, HOUR, ago, cluster, count, keep, label_is, labels, local, watermark, with};
use pods_support::*;

const GRACE: Duration = HOUR;
const MINUTE: Duration = Duration::from_mins(1);
const ALL: [OrphanWhen; 3] = [PodDeleted, WorkloadDeleted, NamespaceDeleted];

/// A node with one archive of `shop/web-0`, whose pod has the UID `u1`.
fn node(when: OrphanWhen, grace: Duration) -> Node {
    Node::new(orphans(when, grace), [of("a", "shop/web-0/server", "u1")])
}

#[test]
fn an_orphan_goes_when_it_is_still_gone_after_the_grace_period() {
    let mut node = node(PodDeleted, GRACE);
    node.cluster.run("shop/web-0", "u1", None);
    assert_eq!(node.ask().reasons(), [WithinLimits]);
    node.cluster.stop("shop/web-0");
    assert_eq!(node.ask().reasons(), [OrphanGracePeriod]);
    assert_eq!(node.later(GRACE / 2).ask().reasons(), [OrphanGracePeriod]);
    // That the time has passed is not enough: it must be gone at the end, too.
    assert_eq!(node.later(GRACE / 2).reasons(), [OrphanGracePeriod]);
    assert_eq!(node.ask().reasons(), [Orphaned]);
}

/// compat: `retainOrphan: false` with a pod that never existed.
#[test]
fn a_pod_that_never_existed_is_gone() {
    assert_eq!(node(PodDeleted, Duration::ZERO).ask().reasons(), [Orphaned]);
    let mut waits = node(PodDeleted, GRACE);
    assert_eq!(waits.ask().reasons(), [OrphanGracePeriod]);
    assert_eq!(waits.later(GRACE).ask().reasons(), [Orphaned]);
    assert_eq!(node(WorkloadDeleted, Duration::ZERO).ask().reasons(), [WithinLimits], "an unknown owner");
}

/// compat: "orphan at the very second of a reschedule".
#[test]
fn a_pod_that_comes_back_is_no_orphan_and_its_grace_period_begins_anew() {
    let mut node = node(PodDeleted, GRACE);
    node.ask().later(GRACE / 2);
    node.cluster.run("shop/web-0", "u2", None);
    assert_eq!(node.ask().later(GRACE).ask().reasons(), [WithinLimits]);
    node.cluster.stop("shop/web-0");
    assert_eq!(node.ask().reasons(), [OrphanGracePeriod]);
    assert_eq!(node.later(GRACE / 2).ask().reasons(), [OrphanGracePeriod]);
    assert_eq!(node.later(GRACE / 2).ask().reasons(), [Orphaned]);
}

/// compat: "an API error counts as pod gone".
#[test]
fn a_question_that_fails_keeps_whatever_was_known_to_be_gone() {
    for when in ALL {
        let mut node = node(when, Duration::ZERO);
        node.cluster.is_down = true;
        assert_eq!(node.ask().reasons(), [WithinLimits], "{when:?}: never known to be gone");
        node.cluster.is_down = false;
        node.cluster.run("shop/web-0", "u1", None);
        node.ask();
        node.cluster.delete_namespace("shop");
        assert_eq!(node.ask().reasons(), [Orphaned], "{when:?}");
        node.cluster.is_down = true;
        assert_eq!(node.ask().reasons(), [OrphanGracePeriod], "{when:?}: known, and not confirmed now");
        node.cluster.is_down = false;
        assert_eq!(node.ask().reasons(), [Orphaned], "{when:?}");
        // An answer does not stay live by itself.
        assert_eq!(node.later(LIVE + Duration::from_secs(1)).reasons(), [OrphanGracePeriod], "{when:?}");
    }
}

#[test]
fn grace_periods_survive_a_restart_and_confirmations_do_not() {
    for when in ALL {
        let mut node = node(when, GRACE);
        node.cluster.run("shop/web-0", "u1", None);
        node.ask();
        node.cluster.delete_namespace("shop");
        node.ask().later(GRACE);
        assert_eq!(node.ask().reasons(), [Orphaned], "{when:?}");
        assert_eq!(node.restart().reasons(), [OrphanGracePeriod], "{when:?}");
        assert_eq!(node.ask().reasons(), [Orphaned], "{when:?}: since the first time, not since the restart");
    }
}

#[test]
fn a_workload_is_gone_when_its_topmost_owner_is() {
    let mut node = node(WorkloadDeleted, Duration::ZERO);
    node.cluster.deploy("shop/web-0", "u1");
    assert_eq!(node.ask().reasons(), [WithinLimits]);
    let lookups = ["namespace shop", "pod shop/web-0", "ReplicaSet shop/web-1"];
    assert_eq!(
        node.asked(),
        lookups
            .map(str::to_owned)
            .iter()
            .cloned()
            .chain(["Deployment shop/web".to_owned()])
            .collect::<Vec<_>>()
    );
    let workload = node.filled("a").workload.unwrap();
    assert_eq!((workload.kind.as_str(), workload.name.as_str()), ("Deployment", "web"));
    // The pod goes and so does its ReplicaSet; the Deployment stays.
    node.cluster.stop("shop/web-0");
    node.cluster.delete_owner("shop", "ReplicaSet", "web-1");
    assert_eq!(node.restart().ask().reasons(), [WithinLimits]);
    assert_eq!(node.asked(), ["namespace shop", "Deployment shop/web"]);
    node.cluster.delete_owner("shop", "Deployment", "web");
    assert_eq!(node.ask().reasons(), [Orphaned]);
    // Made anew by the same name, it is the same workload.
    node.cluster.create_owner("shop", "Deployment", "web", None);
    assert_eq!(node.ask().reasons(), [WithinLimits]);
}

#[test]
fn that_an_owner_is_gone_says_nothing_of_another_of_its_kind_or_name() {
    let owners = [("Deployment", "api"), ("Deployment", "web"), ("StatefulSet", "web")];
    for gone in 0..owners.len() {
        let archives = (0..owners.len()).map(|pod| of(&format!("a{pod}"), &format!("shop/p{pod}/c"), "u"));
        let mut node = Node::new(orphans(WorkloadDeleted, Duration::ZERO), archives);
        for (pod, (kind, name)) in owners.iter().enumerate() {
            node.cluster.create_owner("shop", kind, name, None);
            node.cluster.run(&format!("shop/p{pod}"), "u", Some(&format!("apps/v1 {kind} {name}")));
        }
        assert_eq!(node.ask().reasons(), [WithinLimits; 3]);
        node.cluster.delete_owner("shop", owners[gone].0, owners[gone].1);
        let mut expected = [WithinLimits; 3];
        expected[gone] = Orphaned;
        assert_eq!(node.ask().reasons(), expected, "{:?}", owners[gone]);
    }
}

#[test]
fn every_kind_of_owner_is_climbed_to_its_top() {
    /// Owners with what controls each, the one that the pod names, and the kind of the topmost.
    type Chain =
        (&'static [(&'static str, &'static str, Option<&'static str>)], &'static str, Option<&'static str>);
    let chains: [Chain; 9] = [
        (&[], "apps/v1 StatefulSet db", Some("StatefulSet")),
        (&[], "apps/v1 DaemonSet log", Some("DaemonSet")),
        (&[("ReplicaSet", "web", None)], "apps/v1 ReplicaSet web", Some("ReplicaSet")),
        (
            &[("ReplicationController", "web", None)],
            "v1 ReplicationController web",
            Some("ReplicationController"),
        ),
        (&[("Job", "once", None)], "batch/v1 Job once", Some("Job")),
        (
            &[("Job", "nightly-1", Some("batch/v1 CronJob nightly"))],
            "batch/v1 Job nightly-1",
            Some("CronJob"),
        ),
        (
            &[("ReplicaSet", "web", Some("argoproj.io/v1 Rollout web")), ("Rollout", "web", None)],
            "apps/v1 ReplicaSet web",
            Some("Rollout"),
        ),
        // The ReplicaSet was gone before it could be asked.
        (&[], "apps/v1 ReplicaSet web", None),
        // A circle ends somewhere.
        (&[("A", "a", Some("x.io/v1 B b")), ("B", "b", Some("x.io/v1 A a"))], "x.io/v1 A a", Some("A")),
    ];
    for (owners, controller, wanted) in chains {
        let mut node = node(WorkloadDeleted, GRACE);
        for (kind, name, above) in owners {
            node.cluster.create_owner("shop", kind, name, *above);
        }
        node.cluster.run("shop/web-0", "u1", Some(controller));
        let workload = node.ask().filled("a").workload;
        assert_eq!(workload.as_ref().map(|workload| workload.kind.as_str()), wanted, "{controller}");
    }
}

#[test]
fn an_owner_that_went_before_it_could_be_asked_is_not_asked_for_ever() {
    let mut node = node(WorkloadDeleted, Duration::ZERO);
    node.cluster.run("shop/web-0", "u1", Some("apps/v1 ReplicaSet web"));
    node.ask();
    node.cluster.stop("shop/web-0");
    assert_eq!(node.ask().asked(), ["namespace shop", "pod shop/web-0"]);
    assert_eq!(node.reasons(), [WithinLimits], "what stood above it will never be known");
}

#[test]
fn an_owner_that_may_not_be_read_is_never_gone() {
    // A custom one is the topmost owner by the reference to it; a built-in one may have another above.
    for (controller, known) in [("kafka.io/v1 PodSet web", true), ("apps/v1 ReplicaSet web", false)] {
        let mut node = node(WorkloadDeleted, Duration::ZERO);
        node.cluster.forbidden = ["PodSet", "ReplicaSet"].map(str::to_owned).into();
        node.cluster.run("shop/web-0", "u1", Some(controller));
        assert_eq!(node.ask().filled("a").workload.is_some(), known, "{controller}");
        node.cluster.stop("shop/web-0");
        assert_eq!(node.ask().ask().reasons(), [WithinLimits], "{controller}");
        assert!(node.asked().last().unwrap().contains("Set shop/web"), "it is asked again each round");
    }
}

/// As a restore from a backup does.
#[test]
fn a_bare_pod_made_anew_by_its_name_is_not_gone_and_a_static_pod_is_bare() {
    let mut node = node(WorkloadDeleted, Duration::ZERO);
    node.cluster.run("shop/web-0", "u1", None);
    assert_eq!(node.ask().reasons(), [WithinLimits]);
    node.cluster.run("shop/web-0", "u2", None);
    assert_eq!(node.ask().reasons(), [WithinLimits]);
    assert_eq!(node.filled("a").pod_labels.unwrap()["uid"], "u1", "the labels are those of the first");
    assert_eq!(node.filled("a").absences, None, "a pod of that name is there");
    node.cluster.stop("shop/web-0");
    assert_eq!(node.ask().reasons(), [Orphaned]);
    node.cluster.run("shop/web-0", "u3", None);
    assert_eq!(node.ask().reasons(), [WithinLimits], "it is back");
    assert!(node.records.values().all(|record| record.workload_gone.is_none()), "its grace begins anew");
    // The mirror of a static pod has another UID than the kubelet writes, and its node as owner.
    let mut mirror = self::node(WorkloadDeleted, Duration::ZERO);
    mirror.cluster.run("shop/web-0", "", Some("v1 Node worker"));
    assert_eq!(mirror.ask().reasons(), [WithinLimits]);
    assert_eq!((mirror.asked().len(), mirror.filled("a").workload), (2, None));
    mirror.cluster.stop("shop/web-0");
    assert_eq!(mirror.ask().reasons(), [Orphaned]);
}

/// Its pod was rescheduled before we ever saw it.
#[test]
fn a_pod_that_a_stateful_set_made_anew_has_the_same_owner_and_no_other_has() {
    for (controller, kind) in [
        (Some("apps/v1 StatefulSet web"), Some("StatefulSet")),
        (Some("apps/v1 DaemonSet web"), None),
        (Some("batch/v1 Job web"), None),
        (None, None),
    ] {
        let mut node = node(WorkloadDeleted, Duration::ZERO);
        node.cluster.run("shop/web-0", "u2", controller);
        let known = node.ask().filled("a");
        assert_eq!(known.workload.as_ref().map(|workload| &*workload.kind), kind, "{controller:?}");
        assert_eq!(known.pod_labels.is_some(), kind.is_some(), "{controller:?}");
        // What is not known to be its owner says nothing of it when it goes.
        node.cluster.stop("shop/web-0");
        let expected = if kind.is_some() { Orphaned } else { WithinLimits };
        assert_eq!(node.ask().reasons(), [expected], "{controller:?}");
    }
}

/// Whoever makes a pod anew by the name of one that was known says nothing of that one's owner.
#[test]
fn a_stateful_sets_pod_is_not_the_next_of_a_pod_whose_owner_is_known() {
    let mut node = node(WorkloadDeleted, Duration::ZERO);
    node.cluster.run("shop/web-0", "u1", None);
    node.ask();
    node.cluster.create_owner("shop", "StatefulSet", "web", None);
    node.cluster.run("shop/web-0", "u2", Some("apps/v1 StatefulSet web"));
    assert_eq!(node.restart().ask().filled("a").workload, None);
    assert_eq!(node.records.values().next().unwrap().owner, Owner::Bare);
}

#[test]
fn a_pod_that_another_controller_adopts_belongs_to_what_stands_above_that_one() {
    let mut node = node(WorkloadDeleted, GRACE).sparing();
    node.cluster.deploy("shop/web-0", "u1");
    let name = |node: &Node| node.filled("a").workload.map(|workload| workload.name.clone());
    node.ask();
    assert_eq!(name(&node).as_deref(), Some("web"));
    node.cluster.create_owner("shop", "Deployment", "api", None);
    node.cluster.create_owner("shop", "ReplicaSet", "api-1", Some("apps/v1 Deployment api"));
    node.cluster.run("shop/web-0", "u1", Some("apps/v1 ReplicaSet api-1"));
    node.ask();
    assert_eq!(name(&node).as_deref(), Some("api"));
    // While it is the same controller, what stood above it stays known, also once that cannot be asked any more.
    node.cluster.delete_owner("shop", "ReplicaSet", "api-1");
    (0..9).for_each(|_| _ = node.restart().ask());
    assert_eq!(name(&node).as_deref(), Some("api"));
}

#[test]
fn a_namespace_younger_than_an_archive_is_another_whose_pods_are_others() {
    for when in ALL {
        for uid in ["u1", ""] {
            let old = of("old", "shop/db-0/engine", uid);
            let mut new = of("new", "shop/db-0/engine", if uid.is_empty() { "" } else { "u2" });
            new.taken = ago(HOUR);
            let mut node = Node::new(orphans(when, GRACE), [old, new]);
            node.cluster.create_namespace("shop", ago(HOUR * 2));
            node.cluster.create_owner("shop", "StatefulSet", "db", None);
            node.cluster.run("shop/db-0", "u2", Some("apps/v1 StatefulSet db"));
            assert_eq!(node.ask().reasons(), [WithinLimits; 2], "{when:?} {uid}: what has the name keeps");
            let (old, new) = (node.filled("old"), node.filled("new"));
            assert_eq!((old.workload, old.pod_labels), (None, None), "{when:?} {uid}: not its pod");
            assert_eq!(old.namespace_labels, None, "{when:?} {uid}: not its namespace");
            if when != NamespaceDeleted {
                assert_eq!(new.pod_labels.unwrap()["uid"], "u2", "{when:?} {uid}");
            }
            assert_eq!(node.restart().later(GRACE).ask().reasons(), [WithinLimits; 2], "{when:?} {uid}");
            // What owned the old ones nobody ever saw.
            node.cluster.delete_namespace("shop");
            let gone = if when == WorkloadDeleted {
                [WithinLimits, OrphanGracePeriod]
            } else {
                [OrphanGracePeriod; 2]
            };
            assert_eq!(node.ask().reasons(), gone, "{when:?} {uid}");
        }
    }
}

/// The mirror of a static pod has no UID of its own by which it could be told from another.
#[test]
fn a_static_pod_of_a_namespace_made_anew_says_nothing_of_one_from_before_it() {
    let selecting = with(cluster("p"), |policy| {
        policy.selector.pod_labels = label_is("uid", "");
        (policy.retention.max_age, policy.retention.keep_latest) = (Some(MINUTE), 0);
    });
    let old = || of("old", "shop/web-0/server", "u1");
    let new = plan::Archive { taken: ago(HOUR), ..of("new", "shop/web-0/server", "u2") };
    let with_new = || {
        let mut node = Node::new(selecting.clone(), [new.clone()]);
        node.cluster.create_namespace("shop", ago(HOUR * 2));
        node.cluster.run("shop/web-0", "", Some("v1 Node worker"));
        node
    };
    let mut node = with_new();
    node.archives.push(old());
    assert_eq!(node.ask().reasons(), [Reason::MaxAge, Reason::NoPolicy]);
    assert_eq!(node.filled("old").pod_labels, None);
    // It comes later, perhaps when not all is known any more, and what runs is shown before anything is asked.
    for all_are_known in [true, false] {
        let mut node = with_new().sparing();
        assert_eq!(node.ask().reasons(), [Reason::MaxAge]);
        node.archives.push(old());
        if !all_are_known {
            node.archives.remove(0);
            node.all_are_known = false;
        }
        assert_eq!(node.ask().reasons().last(), Some(&Reason::NoPolicy), "{all_are_known}");
        assert_eq!(node.filled("old").pod_labels, None, "{all_are_known}");
    }
}

/// All has other UIDs then, and is younger than every archive.
#[test]
fn in_a_cluster_restored_from_a_backup_nothing_is_an_orphan_whose_workload_is_there_by_name() {
    for when in ALL {
        for sparing in [false, true] {
            let archives = [
                of("deployed", "shop/web-1-x/server", "u1"),
                of("stateful", "shop/db-0/engine", "u2"),
                of("bare", "shop/tool/main", "u3"),
            ];
            let mut node = Node::new(orphans(when, GRACE), archives);
            node.policies.retention[0].retention.max_age = Some(DAY * 30);
            if sparing {
                node = node.sparing();
            }
            let run = |cluster: &mut Cluster, uids: [&str; 3]| {
                cluster.deploy("shop/web-1-x", uids[0]);
                cluster.create_owner("shop", "StatefulSet", "db", None);
                cluster.run("shop/db-0", uids[1], Some("apps/v1 StatefulSet db"));
                cluster.run("shop/tool", uids[2], None);
            };
            run(&mut node.cluster, ["u1", "u2", "u3"]);
            node.ask();
            node.cluster.delete_namespace("shop");
            node.cluster.uid = "restored".into();
            node.cluster.create_namespace("shop", node.now);
            run(&mut node.cluster, ["v1", "v2", "v3"]);
            node.restart();
            for _ in 0..40 {
                assert_eq!(node.later(MINUTE * 5).ask().reasons(), [WithinLimits; 3], "{when:?}");
                // Nor does the floor of its lineage end.
                let idle = |short| node.filled(short).idle_since;
                assert_eq!(["deployed", "stateful", "bare"].map(idle), [None; 3], "{when:?}");
            }
            // A workload that is not restored is gone, though, two times a grace period apart.
            if when == WorkloadDeleted {
                node.cluster.delete_owner("shop", "Deployment", "web");
                node.cluster.stop("shop/tool");
                (0..40).for_each(|_| _ = node.later(MINUTE).ask());
                assert_eq!(node.reasons(), [OrphanGracePeriod, WithinLimits, OrphanGracePeriod]);
                (0..40).for_each(|_| _ = node.later(MINUTE).ask());
                assert_eq!(node.reasons(), [Orphaned, WithinLimits, Orphaned]);
            }
        }
    }
}

/// Another kubeconfig, or a cluster that was built anew.
#[test]
fn what_another_cluster_said_to_be_gone_counts_for_nothing() {
    for when in ALL {
        let mut node = node(when, GRACE);
        node.policies.retention[0].retention.max_age = Some(DAY * 30);
        node = node.named();
        node.cluster.uid = "first".into();
        node.cluster.run("shop/web-0", "u1", None);
        node.ask();
        node.cluster.delete_namespace("shop");
        let since = Some(node.now);
        assert_eq!((node.ask().reasons(), node.filled("a").idle_since), (vec![OrphanGracePeriod], since));
        node.cluster.uid = "second".into();
        // Nothing is gone before the cluster has said which it is.
        node.cluster.forbidden.insert("Cluster".to_owned());
        assert_eq!(node.restart().later(GRACE).ask().reasons(), [OrphanGracePeriod], "{when:?}");
        assert_eq!(node.later(GRACE).ask().ask().reasons(), [OrphanGracePeriod], "{when:?}");
        assert_eq!(node.filled("a").idle_since, None, "{when:?}");
        node.cluster.forbidden.clear();
        (0..9).for_each(|_| _ = node.ask());
        assert_eq!(node.reasons(), [OrphanGracePeriod], "{when:?}: it begins anew");
        assert_eq!(node.filled("a").idle_since, Some(node.now), "{when:?}");
        // The same cluster again is asked but for confirmation.
        assert_eq!(node.restart().later(GRACE).ask().reasons(), [Orphaned], "{when:?}");
    }
}

/// One that had a UID and has none is being built.
#[test]
fn a_cluster_that_never_had_a_uid_is_one_of_its_own_and_one_that_had_one_is_not_believed_without_it() {
    for when in [PodDeleted, NamespaceDeleted] {
        let mut node = node(when, Duration::ZERO);
        node.cluster.delete_namespace("shop");
        node.cluster.is_nameless = true;
        for _ in 0..2 {
            assert_eq!(node.ask().reasons(), [Orphaned], "{when:?}");
            assert!(node.pod_index.knows_cluster());
            node.restart();
            assert!(!node.pod_index.knows_cluster(), "not before it is asked");
        }
        let mut node = self::node(when, Duration::ZERO);
        node.cluster.uid = "first".into();
        node.cluster.delete_namespace("shop");
        assert_eq!(node.ask().reasons(), [Orphaned], "{when:?}");
        node.cluster.is_nameless = true;
        node.restart();
        for _ in 0..9 {
            assert_eq!(node.ask().reasons(), [OrphanGracePeriod], "{when:?}");
            assert!(!node.pod_index.knows_cluster());
        }
        node.cluster.is_nameless = false;
        (0..9).for_each(|_| _ = node.ask());
        assert_eq!(node.reasons(), [Orphaned], "{when:?}");
    }
}

#[test]
fn all_that_is_known_can_be_written_into_a_memory_that_was_lost() {
    let mut node = node(PodDeleted, GRACE);
    node.cluster.uid = "first".into();
    node.cluster.delete_namespace("shop");
    node.ask();
    assert_eq!((node.pod_index.take_changes(), node.pod_index.take_cluster()), ((vec![], vec![]), None));
    node.pod_index.remember_all();
    let (records, forgotten) = node.pod_index.take_changes();
    assert_eq!((records.into_iter().collect(), forgotten), (node.records.clone(), vec![]));
    assert_eq!(node.pod_index.take_cluster(), Some("first".to_owned()));
    // Which cluster it is is not written before it said so.
    node.restart().pod_index.remember_all();
    assert_eq!(node.pod_index.take_cluster(), None);
}

#[test]
fn while_a_cluster_does_not_say_which_it_is_what_it_shows_is_learned_all_the_same() {
    let mut node = node(WorkloadDeleted, Duration::ZERO);
    node.cluster.forbidden.insert("Cluster".to_owned());
    node.cluster.deploy("shop/web-0", "u1");
    assert_eq!(node.ask().filled("a").workload.unwrap().name, "web");
    node.cluster.delete_namespace("shop");
    for _ in 0..20 {
        assert_eq!(node.ask().reasons(), [WithinLimits]);
    }
    node.cluster.forbidden.clear();
    (0..9).for_each(|_| _ = node.ask());
    assert_eq!(node.reasons(), [Orphaned], "what it said meanwhile is asked again");
}

/// A namespace, its pod and a checkpoint, made within a minute on a node whose clock is behind by one.
fn behind_by_a_minute(policy: Policy) -> Node {
    let mut archive = of("a", "shop/web-0/server", "u1");
    archive.taken = ago(HOUR + MINUTE);
    let mut node = Node::new(policy, [archive]);
    node.cluster.create_namespace("shop", ago(HOUR));
    node.pod_index.set_eager_lookups();
    node
}

/// No clock says that what lives is gone.
#[test]
fn a_pod_that_lives_is_not_from_a_former_namespace_however_the_clocks_differ() {
    for when in ALL {
        let mut node = behind_by_a_minute(orphans(when, Duration::ZERO));
        node.cluster.deploy("shop/web-0", "u1");
        assert_eq!(node.ask().reasons(), [WithinLimits], "{when:?}");
        assert_eq!(node.restart().ask().reasons(), [WithinLimits], "{when:?}");
        // When it is gone, the API says so itself.
        node.cluster.delete_namespace("shop");
        assert_eq!(node.restart().ask().reasons(), [Orphaned], "{when:?}");
        // Nor is it gone with a former namespace if nobody ever saw it.
        let mut unseen = behind_by_a_minute(orphans(when, Duration::ZERO));
        unseen.cluster.deploy("shop/web-0", "u2");
        assert_eq!(unseen.ask().reasons(), [WithinLimits], "{when:?}");
    }
}

#[test]
fn a_policy_governs_what_was_taken_when_its_namespace_was_made_once_the_pod_was_seen_there() {
    let theirs = with(local("shop", "theirs"), |policy| {
        (policy.retention.max_age, policy.retention.keep_latest) = (Some(MINUTE), 0);
    });
    let mut node = behind_by_a_minute(theirs.clone());
    node.cluster.run("shop/web-0", "u1", None);
    assert_eq!(node.ask().reasons(), [Reason::MaxAge]);
    // For good: a pod that is gone was there all the same.
    node.cluster.stop("shop/web-0");
    assert_eq!(node.restart().ask().reasons(), [Reason::MaxAge]);
    // The next one's first archive comes when the namespace was asked about long ago.
    let mut next = of("b", "shop/web-1/server", "u2");
    next.taken = ago(HOUR + MINUTE / 2);
    node.archives.push(next);
    node.cluster.run("shop/web-1", "u2", None);
    node.pod_index.set_eager_lookups();
    assert_eq!(node.ask().reasons(), [Reason::MaxAge, Reason::MaxAge]);
}

#[test]
fn a_pod_that_alone_can_tell_which_namespace_it_is_from_is_asked_about_until_it_is_gone() {
    let theirs = with(local("shop", "theirs"), |policy| {
        (policy.retention.max_age, policy.retention.keep_latest) = (Some(MINUTE), 0);
        policy.orphans = orphans(NamespaceDeleted, DAY).orphans;
    });
    let taken = ago(HOUR + MINUTE);
    let at_its_beginning = |uid: &str| {
        let archive = plan::Archive { taken, ..of("a", "shop/web-0/server", uid) };
        let mut node = Node::new(theirs.clone(), [archive]);
        node.cluster.create_namespace("shop", ago(HOUR));
        node
    };
    let asked_about_pod = |node: &Node| node.asked.contains(&about("web-0"));
    // Without a UID it can tell nothing.
    for (uid, expected) in [("u1", Reason::MaxAge), ("", Reason::NoPolicy)] {
        let mut node = at_its_beginning(uid);
        node.cluster.run("shop/web-0", "u1", None);
        assert_eq!(node.ask().reasons(), [expected], "{uid}");
        assert_eq!(asked_about_pod(&node), !uid.is_empty(), "{uid}");
        node.ask();
        assert!(!asked_about_pod(&node), "{uid}: it was seen");
    }
    let mut gone = at_its_beginning("u1");
    assert!(asked_about_pod(gone.ask()));
    assert!(!asked_about_pod(gone.ask()));
    assert_eq!(gone.reasons(), [Reason::NoPolicy]);
    let mut replaced = at_its_beginning("u1");
    replaced.cluster.run("shop/web-0", "u2", None);
    assert!(asked_about_pod(replaced.ask()));
    assert!(!asked_about_pod(replaced.ask()));
    assert_eq!(replaced.reasons(), [Reason::NoPolicy]);
}

/// Either the clock was ahead when the former namespace's pod was checkpointed, or it is the new one's.
#[test]
fn nobody_governs_what_was_taken_when_the_namespace_was_made_by_a_pod_that_was_not_seen() {
    let theirs = with(local("shop", "theirs"), |policy| {
        (policy.retention.max_age, policy.retention.keep_latest) = (Some(MINUTE), 0);
    });
    for uid in ["u1", ""] {
        let mut archive = of("a", "shop/web-0/server", uid);
        archive.taken = ago(MINUTE * 59);
        let mut node = Node::new(theirs.clone(), [archive]);
        node.cluster.create_namespace("shop", ago(HOUR));
        node.pod_index.set_eager_lookups();
        node.cluster.run("shop/web-0", "u2", Some("apps/v1 StatefulSet web"));
        assert_eq!(node.ask().reasons(), [Reason::NoPolicy], "{uid}");
        let filled = node.filled("a");
        assert_eq!((filled.workload, filled.pod_labels), (None, None), "{uid}: not its pod's");
        let plan = plan(&node.snapshot(), &node.policies, node.now);
        assert_eq!(plan.verdicts[0].detail, Detail::NamespaceUncertain);
        // What is too old or too young for that is governed or not as ever.
        node.archives[0].taken = ago(MINUTE * 55);
        assert_eq!(node.ask().reasons(), [Reason::MaxAge], "{uid}");
        node.archives[0].taken = ago(HOUR + MINUTE * 5 + Duration::from_secs(1));
        assert_eq!(node.ask().reasons(), [Reason::NoPolicy], "{uid}");
    }
}

/// A namespace that was restored cannot be told from one that somebody else made.
#[test]
fn a_namespace_made_anew_by_its_name_is_not_gone() {
    let mut node = node(NamespaceDeleted, HOUR * 5);
    for _ in 0..9 {
        node.cluster.create_namespace("shop", node.now);
        assert_eq!(node.ask().reasons(), [WithinLimits]);
        node.cluster.delete_namespace("shop");
        assert_eq!(node.later(HOUR / 2).ask().reasons(), [OrphanGracePeriod]);
        node.later(HOUR / 2);
    }
    // While nobody answers, old archives stay those of another namespace.
    node.cluster.is_down = true;
    node.ask();
    let namespace = &node.snapshot().namespaces["shop"];
    assert!(namespace.created.is_some() && node.filled("a").namespace_labels.is_none());
    node.cluster.is_down = false;
    node.ask();
    assert_eq!(node.later(HOUR * 5).ask().reasons(), [Orphaned]);
}

#[test]
fn a_clock_that_is_not_trusted_begins_no_grace_period() {
    let mut node = node(PodDeleted, Duration::ZERO);
    node.clock = Clock::Suspect;
    node.ask();
    node.clock = Clock::Trusted;
    assert_eq!(node.reasons(), [WithinLimits]);
    assert!(node.records.values().all(|record| record.pod_gone.is_none()));
    let policy = keep(|keep| keep.max_age = Some(DAY * 30));
    let mut idle = Node::new(policy, [of("a", "shop/web-0/server", "u1")]).named();
    idle.clock = Clock::Suspect;
    idle.ask();
    assert_eq!(idle.filled("a").idle_since, None);
    assert_eq!(idle.records.len(), 0, "there is nothing to remember");
    // That something is there counts by any clock.
    node.ask();
    node.cluster.run("shop/web-0", "u1", None);
    node.clock = Clock::Suspect;
    node.ask();
    node.clock = Clock::Trusted;
    assert!(node.records.values().all(|record| record.pod_gone.is_none()));
    assert_eq!(*node.filled("a").pod_labels.unwrap(), labels(&[("uid", "u1")]));
}

#[test]
fn only_what_a_policy_could_need_is_asked_and_each_thing_once() {
    let archives = || {
        let mut archives = Vec::new();
        for (number, path) in ["shop/a/x", "shop/a/y", "shop/a/x", "bank/b/x", "bank/c/x"].iter().enumerate()
        {
            archives.push(of(&number.to_string(), path, &path[5..6]));
        }
        archives
    };
    let asked = |policy, policies: &dyn Fn(&mut Node)| {
        let mut node = Node::new(policy, archives()).named();
        node.cluster.create_namespace("bank", ago(DAY * 100));
        for pod in ["shop/a", "bank/b", "bank/c"] {
            let controller = format!("batch/v1 Job {}", &pod[..4]);
            node.cluster.run(pod, &pod[5..], Some(&controller));
            node.cluster.pods.values_mut().for_each(|(_, is_here)| *is_here = false);
            node.cluster.create_owner(&pod[..4], "Job", &pod[..4], None);
        }
        policies(&mut node);
        node.ask().asked()
    };
    let as_it_is = |_: &mut Node| {};
    let all = ["namespace bank", "namespace shop"];
    // None of them is here, so that the list answers for none.
    let pods = ["the pods of this node", "pod bank/b", "pod bank/c", "pod shop/a"];
    let jobs = ["Job bank/bank", "Job shop/shop"];
    let none: [&str; 0] = [];
    assert_eq!(asked(cluster("p"), &as_it_is), none);
    assert_eq!(asked(keep(|keep| keep.keep_latest_for = KeepFor::Forever), &as_it_is), none);
    assert_eq!(asked(orphans(NamespaceDeleted, GRACE), &as_it_is), all);
    assert_eq!(asked(orphans(PodDeleted, GRACE), &as_it_is), [&all[..], &pods].concat());
    assert_eq!(asked(orphans(WorkloadDeleted, GRACE), &as_it_is), [&all[..], &pods, &jobs].concat());
    let by_workload = keep(|keep| (keep.per_workload, keep.keep_latest) = (count(1), 0));
    assert_eq!(asked(by_workload, &as_it_is), [&all[..], &pods, &jobs].concat());
    let selecting = with(cluster("p"), |policy| policy.selector.pod_labels = label_is("a", "b"));
    assert_eq!(asked(selecting, &as_it_is), [&all[..], &pods].concat());
    let selecting = with(cluster("p"), |policy| policy.selector.namespace_labels = label_is("a", "b"));
    assert_eq!(asked(selecting, &as_it_is), all);
    let local = with(local("shop", "p"), |policy| policy.orphans = orphans(PodDeleted, GRACE).orphans);
    assert_eq!(asked(local, &as_it_is), ["namespace shop", "the pods of this node", "pod shop/a"]);
    let named = with(orphans(PodDeleted, GRACE), |policy| policy.selector.containers = vec!["y".into()]);
    assert_eq!(asked(named, &as_it_is), ["namespace shop", "the pods of this node", "pod shop/a"]);
    assert_eq!(asked(keep(|keep| keep.max_age = Some(DAY)), &as_it_is), ["the pods of this node"]);
    // Who runs here matters where the newest stay for a while only, and something would take them else.
    let changes: [fn(&mut Retention); 2] = [
        |keep| keep.tiers = Some(Tiers { daily: 1, ..Tiers::default() }),
        |keep| keep.per_namespace = count(1),
    ];
    for change in changes {
        assert_eq!(asked(keep(change), &as_it_is), ["the pods of this node"]);
        let forever = keep(|keep| {
            change(keep);
            keep.keep_latest_for = KeepFor::Forever;
        });
        assert_eq!(asked(forever, &as_it_is), none);
        let never = keep(|keep| {
            change(keep);
            keep.keep_latest = 0;
        });
        assert_eq!(asked(never, &as_it_is), none);
    }
    assert_eq!(asked(keep(|keep| keep.tiers = Some(Tiers::default())), &as_it_is), none);
    let disk = |node: &mut Node| node.policies.storage.push(watermark(80, 70));
    assert_eq!(asked(cluster("p"), &disk), ["the pods of this node"]);
}

#[test]
fn a_round_has_its_measure_and_the_next_goes_on_where_it_ended() {
    let archives = (0..10).map(|pod| of(&format!("a{pod}"), &format!("shop/p{pod}/c"), "u"));
    let mut node = Node::new(orphans(PodDeleted, GRACE), archives);
    node.budget = RequestBudget { new: 3, again: 0, idle: 1 };
    let rounds: Vec<Vec<Lookup>> = (0..30).map(|_| node.ask().asked.clone()).collect();
    let counts: Vec<usize> = rounds.iter().map(Vec::len).collect();
    assert_eq!(
        counts[..5],
        [3, 3 + 1, 3 + 1, 2 + 1, 1],
        "three new ones, and one of which nobody expects news"
    );
    assert!(counts[5..].iter().all(|count| *count == 1), "{counts:?}");
    let different = |rounds: &[Vec<Lookup>]| rounds.iter().flatten().collect::<BTreeSet<_>>().len();
    assert_eq!((different(&rounds[..4]), different(&rounds[4..15])), (11, 11), "each has its turn");
}

#[test]
fn the_pods_of_this_node_answer_for_themselves_and_for_nobody_else() {
    let mut node = Node::new(
        with(orphans(WorkloadDeleted, Duration::ZERO), |policy| policy.retention.max_age = Some(DAY * 30)),
        [of("here", "shop/web-0/server", "u1"), of("elsewhere", "shop/web-1/server", "u2")],
    )
    .named();
    node.cluster.deploy("shop/web-0", "u1");
    node.cluster.deploy("shop/web-1", "u2");
    node.cluster.pods.get_mut(&("shop".into(), "web-1".into())).unwrap().1 = false;
    node.ask();
    assert!(!node.asked().contains(&"pod shop/web-0".to_owned()));
    assert!(node.asked().contains(&"pod shop/web-1".to_owned()));
    assert_eq!(node.reasons(), [WithinLimits, WithinLimits]);
    for short in ["here", "elsewhere"] {
        let known = node.filled(short);
        assert!(known.workload.is_some() && known.pod_labels.is_some(), "{short}");
        // One lineage, of which one pod runs here.
        assert_eq!(known.idle_since, None, "{short}");
    }
}

/// A tenant may write any date into an archive, and the floor under the rest is to end all the same.
#[test]
fn what_cannot_be_dated_says_no_more_of_its_pod_than_that_it_ran_before_the_archive_was_seen() {
    let policy = keep(|keep| keep.max_age = Some(DAY * 30));
    let mut node = Node::new(policy, [of("a", "shop/web-0/c", "u"), of("b", "shop/web-0/c", "u")]).named();
    node.ask();
    let since = |taken: TakenWhen, node: &mut Node| {
        let known: Vec<_> = node.archives.iter().map(|archive| archive.identity.clone().unwrap()).collect();
        let taken = [TakenWhen::At(node.archives[0].taken), taken];
        node.asked.clear();
        node.pod_index.begin_round(known.iter().zip(taken), true, &node.policies);
        node.ask_on();
        node.filled("a").idle_since
    };
    assert_eq!(since(TakenWhen::Unknown, &mut node), None, "it may run now");
    let seen = node.now;
    node.later(HOUR);
    assert_eq!(since(TakenWhen::Before(seen), &mut node), Some(seen), "as was known of the other one");
}

#[test]
fn a_lineage_is_idle_since_the_api_first_said_that_none_of_its_pods_runs_here() {
    let policy = || keep(|keep| keep.max_age = Some(DAY * 30));
    let archives = || [of("a", "shop/web-0/server", "u1"), of("b", "shop/web-1/server", "u2")];
    let mut node = Node::new(policy(), archives()).named();
    node.cluster.deploy("shop/web-0", "u1");
    node.cluster.deploy("shop/web-1", "u2");
    node.ask();
    node.cluster.stop("shop/web-0");
    node.cluster.stop("shop/web-1");
    // A pod of the same Deployment that has no archive here.
    node.cluster.deploy("shop/web-2", "u3");
    assert_eq!((node.ask().filled("a").idle_since, node.filled("b").idle_since), (None, None));
    node.cluster.stop("shop/web-2");
    let since = Some(node.later(HOUR).now);
    assert_eq!((node.ask().filled("a").idle_since, node.filled("b").idle_since), (since, since));
    // One of another Deployment, whose ReplicaSet nobody asked about before.
    node.cluster.create_owner("shop", "ReplicaSet", "api-1", Some("apps/v1 Deployment api"));
    node.cluster.run("shop/api", "u5", Some("apps/v1 ReplicaSet api-1"));
    assert_eq!(node.ask().filled("a").idle_since, since);
    node.cluster.stop("shop/api");
    // Whose pod it is cannot be told for now.
    node.cluster.run("shop/other", "u4", Some("apps/v1 ReplicaSet unreadable"));
    node.cluster.forbidden.insert("ReplicaSet".to_owned());
    assert_eq!(node.later(HOUR).ask().filled("a").idle_since, None);
    node.cluster.stop("shop/other");
    assert_eq!(node.later(HOUR).ask().filled("a").idle_since, since, "it was never seen to run");
    node.cluster.is_down = true;
    assert_eq!(node.ask().filled("a").idle_since, None);
    node.cluster.is_down = false;
    assert_eq!(node.restart().filled("a").idle_since, None);
    assert_eq!(node.ask().filled("a").idle_since, since, "a restart does not begin it anew");
    assert_eq!(node.later(LIVE * 2).filled("a").idle_since, None);
    // Without a node's name nothing is known.
    let mut unnamed = Node::new(policy(), archives());
    assert_eq!(unnamed.ask().filled("a").idle_since, None);
}

/// Its first archive comes after it was asked which pods run here.
#[test]
fn an_answer_says_nothing_of_a_pod_whose_archive_came_after_it() {
    for runs_already in [true, false] {
        let policy = keep(|keep| keep.max_age = Some(DAY * 30));
        let mut node = Node::new(policy, [of("a", "bank/ledger-0/server", "u1")]).named();
        node.cluster.create_namespace("bank", ago(DAY * 100));
        if runs_already {
            node.cluster.run("shop/web-0", "u2", None);
        }
        node.ask();
        node.cluster.run("shop/web-0", "u2", None);
        node.later(Duration::from_secs(10));
        let mut new = of("b", "shop/web-0/server", "u2");
        new.taken = node.now;
        node.archives.push(new);
        let known: Vec<_> =
            node.archives.iter().map(|archive| (archive.identity.clone().unwrap(), archive.taken)).collect();
        node.pod_index.go_on(
            known.iter().map(|(identity, taken)| (identity, TakenWhen::At(*taken))),
            true,
            &node.policies,
        );
        // Some answer comes, to whatever lookup.
        let lookup = Lookup::Namespace("shop".to_owned());
        let answer = node.cluster.answer(&lookup);
        node.pod_index.fold([(lookup, answer, node.now, Clock::Trusted)]);
        assert_eq!(node.filled("b").idle_since, None, "runs already: {runs_already}");
        node.cluster.stop("shop/web-0");
        assert_eq!(node.later(HOUR).ask().filled("b").idle_since, Some(node.now));
    }
}

/// Asked for all pods of the node at once, nothing was noted of those without an archive.
#[test]
fn a_pod_whose_first_archive_comes_in_the_middle_of_a_round_is_asked_about_in_it() {
    let policy = with(orphans(PodDeleted, GRACE), |policy| policy.retention.max_age = Some(DAY * 30));
    let mut node = Node::new(policy, [of("a", "shop/web-0/server", "u1")]).named();
    node.cluster.run("shop/web-0", "u1", None);
    node.cluster.run("shop/web-1", "u2", None);
    node.ask();
    node.archives.push(of("b", "shop/web-1/server", "u2"));
    let known: Vec<_> =
        node.archives.iter().map(|archive| (archive.identity.clone().unwrap(), archive.taken)).collect();
    node.pod_index.go_on(
        known.iter().map(|(identity, taken)| (identity, TakenWhen::At(*taken))),
        true,
        &node.policies,
    );
    let lookup = Lookup::Pod { namespace: "shop".to_owned(), name: "web-1".to_owned() };
    assert_eq!(node.pod_index.lookups(RequestBudget::EVERYTHING), [lookup]);
    // So is its namespace, where policies select by the labels that this has while the pod is there.
    let mut node = by_environment([of("a", "shop/web-0/server", "u1")]);
    node.ask().archives.push(of("b", "shop/web-1/server", "u2"));
    let lookup = Lookup::Namespace("shop".to_owned());
    assert_eq!(node.look().pod_index.lookups(RequestBudget::EVERYTHING), [lookup]);
}

#[test]
fn stateful_and_bare_pods_are_lineages_of_their_own() {
    for controller in [Some("apps/v1 StatefulSet db"), None] {
        let archives = [of("a", "shop/db-0/engine", "u1"), of("b", "shop/db-1/engine", "u2")];
        let mut node = Node::new(keep(|keep| keep.max_age = Some(DAY * 30)), archives).named();
        node.cluster.run("shop/db-0", "u1", controller);
        node.cluster.run("shop/db-1", "u2", controller);
        node.ask();
        node.cluster.stop("shop/db-1");
        node.ask();
        assert_eq!(node.filled("a").idle_since, None, "{controller:?}");
        assert_eq!(node.filled("b").idle_since, Some(node.now), "{controller:?}");
    }
}

#[test]
fn what_has_no_archive_here_any_more_is_forgotten() {
    let mut node = node(PodDeleted, GRACE);
    node.archives.push(of("b", "shop/web-1/server", "u2"));
    node.ask();
    assert_eq!(node.records.len(), 2);
    node.archives.pop();
    // Perhaps the archive that is being read is one of its.
    node.all_are_known = false;
    node.ask();
    assert_eq!(
        (node.records.len(), node.asked()),
        (2, vec!["namespace shop".to_owned(), "pod shop/web-0".to_owned()])
    );
    node.all_are_known = true;
    node.ask();
    let left = PodKey { namespace: "shop".into(), pod: "web-0".into(), uid: Some("u1".into()) };
    assert_eq!(node.records.keys().collect::<Vec<_>>(), [&left]);
    // What cannot be learned again stays, whatever the policies ask at the moment.
    node.policies.retention.clear();
    node.ask();
    assert_eq!((node.records.len(), node.asked.len()), (1, 0));
    assert_eq!(node.records[&left].owner, Owner::Unknown);
}

#[test]
fn the_curious_learn_whose_an_archive_is_whatever_the_policies_need_and_ask_but_once() {
    let mut node = Node::new(cluster("no-need"), [of("a", "shop/web-0/server", "u1")]);
    node.cluster.deploy("shop/web-0", "u1");
    assert!(node.ask().asked.is_empty(), "asked without a need");
    node.pod_index.set_eager_lookups();
    assert!(!node.ask().asked.is_empty());
    assert!(node.ask().asked.is_empty(), "asked again what is known: {:?}", node.asked());
    // What was learned outlives the pod, and a restart.
    node.cluster.stop("shop/web-0");
    node.restart().pod_index.set_eager_lookups();
    assert!(node.ask().asked.is_empty(), "{:?}", node.asked());
    let archive = node.filled("a");
    assert_eq!(archive.workload.unwrap().kind, "Deployment");
    assert!(archive.pod_labels.is_some());
}

#[test]
fn the_curious_give_up_on_what_is_gone_and_try_again_after_a_failure() {
    let mut node = Node::new(cluster("no-need"), [of("a", "shop/web-0/server", "u1")]);
    node.pod_index.set_eager_lookups();
    node.cluster.is_down = true;
    assert!(!node.ask().asked.is_empty());
    node.cluster.is_down = false;
    assert!(!node.ask().asked.is_empty(), "a failure is no answer");
    assert!(node.ask().asked.is_empty(), "the pod is gone, and asked about again: {:?}", node.asked());
    let mut node = Node::new(cluster("no-need"), [of("a", "shop/web-0/server", "u1")]);
    node.pod_index.set_eager_lookups();
    node.cluster.deploy("shop/web-0", "u1");
    node.cluster.is_down = true;
    node.ask();
    node.cluster.is_down = false;
    assert_eq!(node.ask().filled("a").workload.unwrap().kind, "Deployment");
}

#[test]
fn the_curious_give_up_on_a_pod_whose_name_another_has() {
    for taken in [ago(DAY), ago(HOUR)] {
        for controller in [None, Some("apps/v1 StatefulSet web")] {
            let mut archive = of("a", "shop/web-0/server", "u1");
            archive.taken = taken;
            let mut node = Node::new(cluster("no-need"), [archive]);
            node.pod_index.set_eager_lookups();
            node.cluster.create_namespace("shop", ago(HOUR));
            node.cluster.run("shop/web-0", "u2", controller);
            node.ask();
            assert!(node.ask().asked.is_empty(), "asked about again: {:?}", node.asked());
        }
    }
}

/// tenants stay apart: whoever makes a deleted namespace anew governs nothing that the old one left.
#[test]
fn a_policy_that_comes_up_in_a_namespace_waits_until_the_namespace_was_asked_about() {
    let archives = ["a", "b"].map(|short| of(short, "shop/web-0/server", "u1"));
    let mut node = Node::new(
        with(local("shop", "theirs"), |policy| policy.retention.per_container = count(1)),
        archives,
    );
    node.pod_index.set_eager_lookups();
    node.cluster.run("shop/web-0", "u1", None);
    node.ask();
    let surplus = [Reason::MaxCountPerContainer, WithinLimits];
    assert_eq!(node.reasons(), surplus);
    // The namespace is deleted and made anew, and a policy comes up in it before anybody asks.
    node.cluster.delete_namespace("shop");
    node.cluster.create_namespace("shop", node.now);
    node.pod_index.invalidate_namespace("shop");
    assert_eq!(node.reasons(), [Reason::NoPolicy, Reason::NoPolicy]);
    node.cluster.is_down = true;
    assert_eq!(node.ask().reasons(), [Reason::NoPolicy, Reason::NoPolicy], "a failure is no answer");
    node.cluster.is_down = false;
    assert_eq!(node.ask().reasons(), [Reason::NoPolicy, Reason::NoPolicy], "they are the former one's");
    // In a namespace that is still the same, they are governed as before.
    let mut same = Node::new(
        with(local("shop", "ours"), |policy| policy.retention.per_container = count(1)),
        node.archives.clone(),
    );
    same.pod_index.set_eager_lookups();
    same.ask().pod_index.invalidate_namespace("shop");
    assert_eq!(same.reasons(), [Reason::NoPolicy, Reason::NoPolicy]);
    assert_eq!(same.ask().reasons(), surplus);
    // That it is gone says nothing of whoever takes its name next.
    same.pod_index.invalidate_namespace("shop");
    same.cluster.delete_namespace("shop");
    assert_eq!(same.ask().reasons(), [Reason::NoPolicy, Reason::NoPolicy]);
}

/// Until then nobody asks about that namespace, whose first archive may come from the one before.
#[test]
fn a_policy_that_comes_up_before_the_first_archive_of_its_namespace_waits_too() {
    let mut node =
        Node::new(with(local("bank", "theirs"), |policy| policy.retention.per_container = count(1)), []);
    node.cluster.create_namespace("bank", ago(DAY * 100));
    node.pod_index.invalidate_namespace("bank");
    node.ask().ask();
    node.archives.extend(["a", "b"].map(|short| of(short, "bank/web-0/server", "u1")));
    assert_eq!(node.look().reasons(), [Reason::NoPolicy; 2]);
    assert_eq!(node.ask().reasons(), [Reason::MaxCountPerContainer, WithinLimits]);
}

#[test]
fn a_question_that_fails_does_not_end_a_doubt_and_that_the_namespace_is_gone_does_without_watches() {
    let archives = ["a", "b"].map(|short| of(short, "shop/web-0/server", "u1"));
    let policy = with(local("shop", "theirs"), |policy| policy.retention.per_container = count(1));
    let mut node = Node::new(policy, archives);
    node.pod_index.invalidate_namespace("shop");
    node.cluster.is_down = true;
    assert_eq!(node.ask().reasons(), [Reason::NoPolicy; 2]);
    node.cluster.is_down = false;
    node.cluster.delete_namespace("shop");
    assert_eq!(node.ask().reasons(), [Reason::MaxCountPerContainer, WithinLimits]);
}

#[test]
fn a_namespace_that_is_shown_late_does_not_make_the_next_ones_of_what_it_left() {
    let theirs = with(local("shop", "theirs"), |policy| policy.retention.per_container = count(1));
    let archives = ["a", "b"].map(|short| of(short, "shop/web-0/server", "u1"));
    let mut node = Node::new(theirs, archives).sparing();
    node.pod_index.set_eager_lookups();
    let late = node.cluster.answer(&Lookup::Namespace("shop".to_owned()));
    node.cluster.create_namespace("shop", ago(HOUR));
    assert_eq!(node.ask().reasons(), [Reason::NoPolicy; 2], "the former one's");
    assert!(node.pod_index.apply_namespaces(vec![("shop".to_owned(), late.clone())], node.now));
    assert_eq!(node.reasons(), [Reason::NoPolicy; 2]);
    assert!(
        !node.pod_index.apply_namespaces(vec![("bank".to_owned(), late)], node.now),
        "nothing of it is here"
    );
}

#[test]
fn an_answer_to_an_earlier_question_does_not_end_a_doubt() {
    let mut node = Node::new(
        with(local("shop", "theirs"), |policy| policy.retention.per_container = count(1)),
        [of("a", "shop/web-0/server", "u1")],
    );
    node.pod_index.set_eager_lookups();
    node.ask();
    node.pod_index.invalidate_namespace("shop");
    let lookup = Lookup::Namespace("shop".to_owned());
    let answer = node.cluster.answer(&lookup);
    node.pod_index.fold([(lookup.clone(), answer, node.now, Clock::Trusted)]);
    assert_eq!(node.reasons(), [Reason::NoPolicy]);
    assert!(
        node.pod_index.lookups(RequestBudget::EVERYTHING).contains(&lookup),
        "it is asked again in the same round"
    );
}

fn about(name: &str) -> Lookup {
    Lookup::Pod { namespace: "shop".to_owned(), name: name.to_owned() }
}

#[test]
fn what_is_known_is_asked_again_in_turn_and_what_ended_or_failed_at_once() {
    let names: Vec<String> = (0..30).map(|pod| format!("shop/web-{pod}")).collect();
    let archives = names.iter().map(|name| of(&name[5..], &format!("{name}/server"), "u1"));
    let mut node = Node::new(orphans(WorkloadDeleted, DAY), archives.collect::<Vec<_>>()).sparing();
    for name in &names {
        node.cluster.run(name, "u1", None);
    }
    // These pods are elsewhere by now, so that nobody shows them.
    for name in ["web-1", "web-3"] {
        node.cluster.pods.get_mut(&("shop".into(), name.into())).unwrap().1 = false;
    }
    assert_eq!(node.ask().asked.len(), 3, "{:?}", node.asked());
    let mut turns = BTreeSet::new();
    for _ in 0..9 {
        assert_eq!(node.ask().asked.len(), 1, "one of all in each round: {:?}", node.asked());
        turns.extend(node.asked.iter().cloned());
    }
    assert_eq!(turns, [Lookup::Namespace("shop".into()), about("web-1"), about("web-3")].into());
    // Who ends here is asked about at once, and then again and again, in case he was only about to go.
    node.cluster.pods.get_mut(&("shop".into(), "web-2".into())).unwrap().1 = false;
    let asked: Vec<bool> = (0..16).map(|_| node.ask().asked.contains(&about("web-2"))).collect();
    let rounds: Vec<usize> = (0..16).filter(|round| asked[*round]).collect();
    assert_eq!(rounds[..4], [0, 1, 3, 7]);
    assert!(rounds.contains(&15), "{rounds:?}");
    // What failed is no answer.
    node.cluster.is_down = true;
    let failed: usize = (0..32).map(|_| node.ask().asked.len()).sum();
    assert!(failed <= 32 + 3 * 7, "what fails is asked more and more rarely: {failed}");
    node.cluster.is_down = false;
    let asked: BTreeSet<Lookup> = (0..8).flat_map(|_| node.ask().asked.clone()).collect();
    assert!(turns.is_subset(&asked), "{asked:?}");
}

#[test]
fn a_namespace_is_asked_about_when_its_last_pod_here_ended_and_an_owner_when_its_own_did() {
    let archives = [of("a", "shop/web-0/server", "u1"), of("b", "shop/db-0/server", "u2")];
    let mut node = Node::new(orphans(WorkloadDeleted, DAY), archives).sparing();
    node.cluster.create_owner("shop", "StatefulSet", "db", None);
    node.cluster.deploy("shop/web-0", "u1");
    node.cluster.run("shop/db-0", "u2", Some("apps/v1 StatefulSet db"));
    (0..9).for_each(|_| _ = node.ask());
    node.cluster.stop("shop/web-0");
    let asked = node.ask().asked();
    assert!(asked.contains(&"Deployment shop/web".to_owned()), "{asked:?}");
    assert!(asked.len() <= 2 + 1, "what ended, and one in turn: {asked:?}");
    node.cluster.stop("shop/db-0");
    let asked = node.ask().asked();
    for expected in ["StatefulSet shop/db", "namespace shop"] {
        assert!(asked.contains(&expected.to_owned()), "{asked:?}");
    }
}

/// A deletion for an orphan follows the API's word, and a pod that came back in time saves its archives.
#[test]
fn what_is_to_go_is_confirmed_when_it_is_due_whoever_s_turn_it_is() {
    let many = (0..200).map(|pod| of(&format!("z{pod}"), &format!("shop/z{pod}/c"), "u"));
    let two = [of("a", "shop/gone/c", "u1"), of("b", "shop/back/c", "u2")];
    let mut node = Node::new(orphans(PodDeleted, HOUR), two.into_iter().chain(many)).sparing();
    for pod in 0..200 {
        node.cluster.run(&format!("shop/z{pod}"), "u", None);
    }
    for (pod, _) in node.cluster.pods.values_mut() {
        pod.uid = Some("u".to_owned());
    }
    node.cluster.pods.values_mut().for_each(|(_, is_here)| *is_here = false);
    (0..4).for_each(|_| _ = node.ask());
    let reasons = |node: &Node| node.reasons()[..2].to_vec();
    assert_eq!(reasons(&node), [OrphanGracePeriod, OrphanGracePeriod]);
    node.cluster.run("shop/back", "u3", None);
    node.cluster.pods.get_mut(&("shop".into(), "back".into())).unwrap().1 = false;
    assert_eq!(reasons(node.later(HOUR)), [OrphanGracePeriod, OrphanGracePeriod], "not before it is asked");
    assert_eq!(reasons(node.ask()), [Orphaned, WithinLimits]);
    assert_eq!(reasons(node.later(CONFIRMED + Duration::from_secs(1))), [OrphanGracePeriod, WithinLimits]);
    assert_eq!(reasons(node.ask()), [Orphaned, WithinLimits]);
}

#[test]
fn what_is_to_go_is_confirmed_by_asking_about_what_it_goes_for() {
    for (when, controller, expected) in [
        (PodDeleted, Some("apps/v1 Deployment web"), "pod shop/web-0"),
        (WorkloadDeleted, Some("apps/v1 Deployment web"), "Deployment shop/web"),
        (WorkloadDeleted, None, "pod shop/web-0"),
        (NamespaceDeleted, Some("apps/v1 Deployment web"), "namespace shop"),
    ] {
        let mut node = node(when, GRACE).sparing();
        node.cluster.run("shop/web-0", "u1", controller);
        node.ask();
        node.cluster.delete_namespace("shop");
        // Until nothing is asked any more but what a deletion waits for.
        node.budget = RequestBudget { new: 100, again: 20, idle: 0 };
        (0..1_000).for_each(|_| _ = node.ask());
        assert_eq!(node.asked(), [""; 0], "{when:?}");
        assert_eq!(node.later(GRACE).ask().asked(), [expected], "{when:?}");
        assert_eq!(node.reasons(), [Orphaned], "{when:?}");
    }
}

/// A mass deletion is no burst, and all of it goes in the end.
#[test]
fn a_mass_deletion_is_confirmed_at_a_measured_pace() {
    let archives = (0..200).map(|pod| of(&format!("z{pod}"), &format!("shop/z{pod}/c"), "u"));
    let mut node = Node::new(orphans(PodDeleted, HOUR), archives).sparing();
    for pod in 0..200 {
        node.cluster.run(&format!("shop/z{pod}"), "u", None);
    }
    (0..4).for_each(|_| _ = node.ask());
    node.cluster.pods.clear();
    let mut gone = 0;
    for _ in 0..100 {
        node.later(Duration::from_mins(1)).ask();
        assert!(node.asked.len() <= 20 + 1, "{}", node.asked.len());
        let reasons = node.reasons();
        let mut reasons = reasons.iter();
        let before = node.archives.len();
        node.archives.retain(|_| *reasons.next().unwrap() != Orphaned);
        gone += before - node.archives.len();
    }
    assert_eq!(gone, 200);
}

#[test]
fn namespaces_that_are_shown_are_known_as_they_are_and_asked_about_when_they_are_not() {
    let policy = with(cluster("prod"), |policy| {
        policy.selector.namespace_labels = label_is("env", "prod");
        policy.retention.per_container = count(1);
    });
    let archives = ["a", "b"].map(|short| of(short, "shop/web-0/server", "u1"));
    let mut node = Node::new(policy, archives).sparing();
    node.cluster.run("shop/web-0", "u1", None);
    let surplus = [Reason::MaxCountPerContainer, WithinLimits];
    assert_eq!(node.ask().reasons(), surplus);
    let (labels, created) = node.cluster.namespaces["shop"].clone();
    let shown = |labels: &Labels, created| {
        vec![("shop".to_owned(), LookupResult::Namespace { labels: labels.clone(), created })]
    };
    node.pod_index.apply_namespaces(shown(&Labels::new(), created), node.now);
    assert_eq!(node.reasons(), [Reason::NoPolicy; 2], "its labels are others by now");
    // What is shown may be late: of a namespace that is older than the one that answered, it says nothing.
    let earlier = created.checked_sub(HOUR).unwrap();
    assert!(
        node.pod_index.apply_all_namespaces(shown(&labels, earlier), node.now),
        "of this one something is here"
    );
    assert_eq!(node.reasons(), [Reason::NoPolicy; 2]);
    node.pod_index.apply_namespaces(shown(&labels, created), node.now);
    assert_eq!(node.reasons(), surplus);
    // That it is not shown is no answer, and a reason to ask.
    let about = Lookup::Namespace("shop".to_owned());
    node.ask();
    assert!(node.pod_index.apply_all_namespaces(Vec::new(), node.now), "what is here is missing there");
    assert_eq!(node.reasons(), surplus);
    assert_eq!(node.pod_index.lookups(node.budget), [about]);
    let mut bare = Node::new(cluster("p"), []);
    assert!(!bare.pod_index.apply_all_namespaces(shown(&labels, created), bare.now), "nothing is here");
    // Nor does it make an invalidated namespace valid.
    node.pod_index.invalidate_namespace("shop");
    node.pod_index.apply_namespaces(shown(&labels, created), node.now);
    assert_eq!(node.reasons(), [Reason::NoPolicy; 2]);
}

/// An API server that is started anew is away for seconds: no reason to ask thousands of nodes for their lookups.
#[test]
fn a_watch_that_fails_for_a_while_leads_to_no_questions_and_hides_no_end() {
    let archives = (0..30).map(|pod| of(&format!("z{pod}"), &format!("shop/z{pod}/c"), "u"));
    let mut node = Node::new(orphans(PodDeleted, HOUR), archives).sparing();
    for pod in 0..30 {
        node.cluster.run(&format!("shop/z{pod}"), "u", None);
    }
    (0..4).for_each(|_| _ = node.ask());
    node.pod_index.apply_pods(None, node.now, Clock::Trusted);
    assert_eq!(node.pod_index.lookups(node.budget), []);
    node.cluster.stop("shop/z7");
    assert!(node.ask().asked.contains(&about("z7")), "{:?}", node.asked());
}

/// The first configuration may come before the first round.
#[test]
fn before_the_first_round_each_thing_is_asked_once_too() {
    let mut node = Node::new(orphans(PodDeleted, HOUR), [of("a", "shop/web-0/c", "u")]).sparing();
    let known: Vec<_> = node.archives.iter().map(|a| (a.identity.clone().unwrap(), a.taken)).collect();
    let known = known.iter().map(|(identity, taken)| (identity, TakenWhen::At(*taken)));
    node.pod_index.go_on(known, true, &node.policies);
    let mut asked = Vec::new();
    while let lookups @ [_, ..] = &*node.pod_index.lookups(node.budget) {
        asked.extend_from_slice(lookups);
        let answers = lookups.iter().map(|lookup| (lookup.clone(), node.cluster.answer(lookup)));
        let answers: Vec<_> =
            answers.map(|(lookup, found)| (lookup, found, node.now, Clock::Trusted)).collect();
        node.pod_index.fold(answers);
    }
    assert_eq!(asked, [Lookup::Cluster, Lookup::Namespace("shop".to_owned()), about("web-0")]);
}

#[test]
fn an_answer_that_was_overtaken_by_what_was_shown_does_not_count() {
    let policy = with(cluster("prod"), |policy| {
        policy.selector.namespace_labels = label_is("env", "prod");
        policy.retention.per_container = count(1);
    });
    let archives = ["a", "b"].map(|short| of(short, "shop/web-0/server", "u1"));
    let mut node = Node::new(policy, archives).sparing();
    node.ask();
    let surplus = [Reason::MaxCountPerContainer, WithinLimits];
    assert_eq!(node.reasons(), surplus);
    // Asked, then shown with other labels, then answered as it was before.
    node.pod_index.invalidate_namespace("shop");
    let lookup = Lookup::Namespace("shop".to_owned());
    let early = node.cluster.answer(&lookup);
    assert_eq!(node.ask().reasons(), surplus);
    let LookupResult::Namespace { created, .. } = early.clone() else { panic!("it is there") };
    let bare = LookupResult::Namespace { labels: Labels::new(), created };
    node.pod_index.apply_namespaces(vec![("shop".to_owned(), bare)], node.now);
    node.pod_index.fold([(lookup, early, node.now, Clock::Trusted)]);
    assert_eq!(node.reasons(), [Reason::NoPolicy; 2]);
    // When nobody can show them any more, nothing is known of them until somebody says.
    let (labels, created) = node.cluster.namespaces["shop"].clone();
    let prod = LookupResult::Namespace { labels, created };
    node.pod_index.apply_namespaces(vec![("shop".to_owned(), prod)], node.now);
    assert_eq!(node.reasons(), surplus);
    node.pod_index.invalidate_labels();
    assert_eq!(node.reasons(), [Reason::NoPolicy; 2]);
}

/// Of thousands of answers the first are old by the time the last one comes.
#[test]
fn only_what_was_answered_too_long_ago_is_confirmed_once_more() {
    let two = [of("a", "shop/gone/c", "u1"), of("b", "shop/here/c", "u2")];
    let mut node = Node::new(orphans(PodDeleted, Duration::ZERO), two).named();
    node.cluster.run("shop/here", "u2", None);
    assert_eq!(node.ask().reasons(), [Orphaned, WithinLimits]);
    let late = CONFIRMED + Duration::from_secs(1);
    assert_eq!(node.later(late).reasons(), [OrphanGracePeriod, WithinLimits]);
    node.budget = RequestBudget { idle: 0, ..RequestBudget::EVERYTHING };
    assert_eq!(node.ask().reasons(), [Orphaned, WithinLimits]);
    assert_eq!(node.asked(), ["the pods of this node", "pod shop/gone"]);
}

/// Prod stays for ten years, and what no such policy selects for a minute.
fn by_environment(archives: impl IntoIterator<Item = plan::Archive>) -> Node {
    let aged = |policy: Policy, age| {
        with(policy, |policy| (policy.retention.max_age, policy.retention.keep_latest) = (Some(age), 0))
    };
    let prod = with(aged(cluster("prod"), DAY * 3650), |policy| {
        policy.selector.namespace_labels = label_is("env", "prod");
    });
    let mut node = Node::new(prod, archives);
    node.policies.retention.push(aged(cluster("default"), MINUTE));
    node
}

#[test]
fn what_a_namespace_left_goes_by_the_labels_that_it_had_whoever_has_its_name_now() {
    for (had, expected) in [("prod", WithinLimits), ("dev", Reason::MaxAge)] {
        for uid in ["u1", ""] {
            for next in [None, Some("prod"), Some("dev"), Some("test")] {
                let mut node = by_environment([of("a", "shop/web-0/server", uid)]);
                node.cluster.label_namespace("shop", had);
                assert_eq!(node.ask().reasons(), [expected], "{had} {uid}");
                node.cluster.delete_namespace("shop");
                if let Some(next) = next {
                    node.cluster.create_namespace("shop", node.now);
                    node.cluster.label_namespace("shop", next);
                }
                // Nobody has seen that yet.
                node.restart().look();
                assert_eq!(
                    node.reasons(),
                    [Reason::NoPolicy],
                    "{had} {uid} {next:?}: not before it is asked"
                );
                // Without a UID there may have been another of that name in between.
                let left = if uid.is_empty() { Reason::NoPolicy } else { expected };
                assert_eq!(node.ask().reasons(), [left], "{had} {uid} {next:?}");
                assert_eq!(node.restart().ask().reasons(), [left], "{had} {uid} {next:?}");
                // Once more, and by a watch.
                node.cluster.namespaces.remove("shop");
                node.later(HOUR);
                node.cluster.create_namespace("shop", node.now);
                node.cluster.label_namespace("shop", if had == "dev" { "prod" } else { "dev" });
                node.look().show("shop");
                assert_eq!(node.reasons(), [left], "{had} {uid} {next:?}");
            }
        }
    }
}

#[test]
fn what_nobody_saw_the_labels_of_stays() {
    for made_anew in [false, true] {
        let mut node = by_environment([of("a", "shop/web-0/server", "u1")]);
        node.cluster.delete_namespace("shop");
        if made_anew {
            node.cluster.create_namespace("shop", node.now);
        }
        for _ in 0..3 {
            assert_eq!(node.later(HOUR).ask().reasons(), [Reason::NoPolicy]);
            let plan = plan(&node.snapshot(), &node.policies, node.now);
            assert_eq!(plan.verdicts[0].detail, Detail::LabelsUnknown);
        }
    }
}

/// Whoever labels his namespace anew means what is there, too; and what he leaves goes by the last ones.
#[test]
fn what_is_from_the_namespace_that_is_there_goes_by_the_labels_that_it_has() {
    let mut node = by_environment([of("a", "shop/web-0/server", "u1")]);
    assert_eq!(node.ask().reasons(), [WithinLimits]);
    node.cluster.label_namespace("shop", "dev");
    assert_eq!(node.ask().reasons(), [Reason::MaxAge]);
    node.cluster.delete_namespace("shop");
    assert_eq!(node.restart().ask().reasons(), [Reason::MaxAge]);
}

/// They are not known without a policy that asks for them: nobody hears when they change.
#[test]
fn a_policy_that_comes_up_does_not_go_by_labels_of_any_age() {
    for is_shown in [false, true] {
        for comes_back in [false, true] {
            let dev = with(cluster("dev"), |policy| {
                policy.selector.namespace_labels = label_is("env", "dev");
                (policy.retention.max_age, policy.retention.keep_latest) = (Some(MINUTE), 0);
            });
            let mut node = Node::new(dev.clone(), [of("a", "shop/web-0/server", "u1")]);
            if is_shown {
                node = node.sparing();
            }
            node.pod_index.set_eager_lookups();
            node.cluster.label_namespace("shop", "dev");
            node.cluster.run("shop/web-0", "u1", None);
            if comes_back {
                assert_eq!(node.ask().reasons(), [Reason::MaxAge]);
                node.look().show("shop");
            }
            node.policies.retention.clear();
            node.ask();
            // Nobody sees this.
            node.cluster.label_namespace("shop", "prod");
            node.policies.retention.push(dev);
            assert_eq!(node.look().reasons(), [Reason::NoPolicy], "{is_shown} {comes_back}");
            let plan = plan(&node.snapshot(), &node.policies, node.now);
            assert_eq!(plan.verdicts[0].detail, Detail::LabelsUnknown);
            assert_eq!(node.ask().reasons(), [Reason::NoPolicy]);
            node.cluster.label_namespace("shop", "dev");
            assert_eq!(node.look().show("shop").reasons(), [Reason::MaxAge]);
        }
    }
}

#[test]
fn an_answer_to_a_question_from_before_a_policy_came_up_says_nothing_of_labels() {
    let dev = with(cluster("dev"), |policy| {
        policy.selector.namespace_labels = label_is("env", "dev");
        (policy.retention.max_age, policy.retention.keep_latest) = (Some(MINUTE), 0);
    });
    let mut node = Node::new(dev.clone(), [of("a", "shop/web-0/server", "u1")]);
    node.policies.retention.clear();
    node.pod_index.set_eager_lookups();
    node.cluster.label_namespace("shop", "dev");
    let lookup = Lookup::Namespace("shop".to_owned());
    assert!(node.look().pod_index.lookups(RequestBudget::EVERYTHING).contains(&lookup));
    let answer = node.cluster.answer(&lookup);
    node.cluster.label_namespace("shop", "prod");
    node.policies.retention.push(dev);
    node.look();
    node.pod_index.fold([(lookup.clone(), answer, node.now, Clock::Trusted)]);
    assert_eq!(node.reasons(), [Reason::NoPolicy]);
    // A second such policy is one that comes up, too.
    let mut node = by_environment([of("a", "shop/web-0/server", "u1")]);
    node.cluster.label_namespace("shop", "dev");
    node.ask();
    node.cluster.label_namespace("shop", "prod");
    node.policies.retention[0].selector.namespace_labels = label_is("env", "test");
    assert_eq!(node.look().reasons(), [Reason::NoPolicy]);
    assert!(node.pod_index.lookups(RequestBudget::EVERYTHING).contains(&lookup), "it is asked at once");
}

#[test]
fn labels_that_a_watch_shows_hold_as_long_as_it_lives_and_those_that_were_asked_for_not_for_long() {
    for is_shown in [false, true] {
        let mut node = by_environment([of("a", "shop/web-0/server", "u1")]);
        if is_shown {
            node = node.sparing();
        }
        node.cluster.label_namespace("shop", "dev");
        assert_eq!(node.ask().reasons(), [Reason::MaxAge]);
        let age = if is_shown { CONFIRMED } else { LIVE };
        assert_eq!(node.later(age).reasons(), [Reason::MaxAge]);
        assert_eq!(node.later(Duration::from_secs(1)).reasons(), [Reason::NoPolicy], "{is_shown}");
        assert_eq!(node.show("shop").later(DAY).reasons(), [Reason::MaxAge]);
        assert_eq!(node.look().ask().later(DAY).reasons(), [Reason::MaxAge], "an answer ends no watch");
        node.pod_index.invalidate_labels();
        assert_eq!(node.reasons(), [Reason::NoPolicy], "{is_shown}");
    }
}

/// They are those of the namespace that has the name, and no answer is none.
#[test]
fn labels_are_not_known_once_an_answer_about_their_namespace_fails_or_is_about_another() {
    let mut node = by_environment([of("a", "shop/web-0/server", "u1")]);
    node.cluster.label_namespace("shop", "dev");
    assert_eq!(node.ask().reasons(), [Reason::MaxAge]);
    node.cluster.is_down = true;
    assert_eq!(node.ask().reasons(), [Reason::NoPolicy]);
    node.cluster.is_down = false;
    assert_eq!(node.ask().reasons(), [Reason::MaxAge]);
    // A watch showed those of the one before; the next one's were asked for, and hold no longer for that.
    node.show("shop");
    node.cluster.create_namespace("shop", node.now);
    node.cluster.label_namespace("shop", "dev");
    let mut next = of("b", "shop/web-0/server", "u2");
    next.taken = node.later(HOUR).now;
    node.archives.push(next);
    assert_eq!(node.later(MINUTE * 2).ask().reasons()[1], Reason::MaxAge);
    assert_eq!(node.later(LIVE + Duration::from_secs(1)).reasons()[1], Reason::NoPolicy);
}

/// An archive without its pod's UID may be from any namespace but one that was asked about since it was taken.
#[test]
fn labels_that_are_shown_after_an_answer_are_no_less_answered() {
    let mut node = by_environment([of("a", "shop/web-0/server", "")]);
    node.cluster.label_namespace("shop", "dev");
    assert_eq!(node.ask().reasons(), [Reason::MaxAge]);
    assert_eq!(node.show("shop").reasons(), [Reason::MaxAge]);
    // Of the next namespace of that name nobody has answered.
    node.cluster.create_namespace("shop", ago(DAY * 2));
    node.cluster.label_namespace("shop", "dev");
    assert_eq!(node.show("shop").reasons(), [Reason::NoPolicy]);
    assert_eq!(node.ask().reasons(), [Reason::MaxAge]);
}

/// It is made anew, and a pod of the new one checkpointed, while the lookup of the old one is under way.
#[test]
fn an_answer_to_a_question_from_before_the_first_archive_says_nothing_of_its_namespace() {
    let mut node = by_environment([of("a", "shop/web-0/server", "u1")]);
    node.cluster.label_namespace("shop", "dev");
    let lookup = Lookup::Namespace("shop".to_owned());
    assert!(node.look().pod_index.lookups(RequestBudget::EVERYTHING).contains(&lookup));
    let answer = node.cluster.answer(&lookup);
    node.cluster.delete_namespace("shop");
    node.cluster.create_namespace("shop", node.now);
    let mut new = of("b", "shop/web-0/server", "u2");
    new.taken = node.later(HOUR).now;
    node.archives.push(new);
    node.look();
    node.pod_index.fold([(lookup, answer, node.now, Clock::Trusted)]);
    assert_eq!(node.later(MINUTE * 2).reasons(), [Reason::MaxAge, Reason::NoPolicy]);
    assert_eq!(node.ask().reasons(), [Reason::MaxAge, WithinLimits]);
}

/// The next pod's first archive comes when its namespace was asked about long ago.
#[test]
fn the_labels_of_a_namespace_are_remembered_of_each_pod_as_they_are_when_its_archives_come() {
    let mut node = Node::new(cluster("no-need"), [of("a", "shop/web-0/server", "u1")]).sparing();
    node.pod_index.set_eager_lookups();
    node.cluster.label_namespace("shop", "dev");
    node.cluster.run("shop/web-0", "u1", None);
    node.cluster.run("shop/web-1", "u2", None);
    (0..9).for_each(|_| _ = node.ask());
    node.cluster.label_namespace("shop", "prod");
    node.archives.push(of("b", "shop/web-1/server", "u2"));
    node.ask();
    node.cluster.delete_namespace("shop");
    node.policies = by_environment([]).policies;
    (0..9).for_each(|_| _ = node.restart().ask());
    assert_eq!(node.reasons()[1], WithinLimits);
    assert_eq!(*node.filled("b").namespace_labels.unwrap(), labels(&[("env", "prod")]));
    // Records from before labels were remembered are completed while that can be done.
    let mut old = Node::new(cluster("no-need"), [of("a", "shop/web-0/server", "u1")]).sparing();
    old.pod_index.set_eager_lookups();
    old.cluster.run("shop/web-0", "u1", None);
    old.ask();
    old.records.values_mut().for_each(|record| record.namespace_labels = None);
    old.restart().pod_index.set_eager_lookups();
    assert_eq!(old.ask().asked(), ["namespace shop"]);
    assert!(old.records.values().all(|record| record.namespace_labels.is_some()));
    assert!(old.ask().asked.is_empty(), "{:?}", old.asked());
}

/// Before the first look nobody knows how old what is here is.
#[test]
fn what_is_shown_before_the_archives_are_known_is_not_taken_for_theirs() {
    let mut node = by_environment([of("a", "shop/web-0/server", "u1")]);
    node.ask();
    node.records.values_mut().for_each(|record| record.namespace_labels = None);
    node.cluster.delete_namespace("shop");
    node.cluster.create_namespace("shop", node.now);
    node.restart().show("shop");
    let live = |owners: &mut pods::PodIndex, node: &Cluster| {
        let LookupResult::NodePods(pods) = node.answer(&Lookup::NodePods) else { panic!("pods") };
        owners.apply_pods(Some(pods), ago(Duration::ZERO), Clock::Trusted);
    };
    node.cluster.run("shop/web-0", "u2", Some("apps/v1 StatefulSet web"));
    live(&mut node.pod_index, &node.cluster);
    node.look();
    let archive = node.filled("a");
    assert_eq!((archive.namespace_labels, archive.workload, archive.pod_labels), (None, None, None));
}

#[test]
fn nothing_piles_up_of_namespaces_that_come_and_go() {
    let mut node = by_environment([of("a", "shop/web-0/server", "u1")]).sparing();
    node.pod_index.set_eager_lookups();
    node.ask();
    for number in 0..100 {
        let name = format!("team-{number}");
        node.cluster.create_namespace(&name, node.now);
        node.pod_index.invalidate_namespace(&name);
        // Of this one nothing was ever here.
        node.pod_index.invalidate_namespace(&format!("other-{name}"));
        node.archives.push(of("b", &format!("{name}/web-0/server"), "u2"));
        node.show(&name).ask().show(&name).look();
        node.archives.pop();
        node.cluster.delete_namespace(&name);
        node.show(&name);
    }
    let known = format!("{:?}", node.ask().pod_index);
    assert!(!known.contains("team-") && known.contains("shop"), "{known}");
    // A policy that is there may yet have its first archive.
    node.policies.retention.push(local("bank", "theirs"));
    node.pod_index.invalidate_namespace("bank");
    node.ask().archives.push(of("c", "bank/web-0/server", "u3"));
    assert!(node.look().snapshot().namespaces["bank"].is_invalidated);
}

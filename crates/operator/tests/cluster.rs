//! `gc` with a cluster to ask: what the API must have said for an archive to go, and what it never
//! may.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, and so may what tests share")]

mod support;

use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use checkpoint_keeper_testkit::ArchiveBuilder;
use jiff::SignedDuration;
use serde_json::json;
use support::api::{Api, Reply, kubeconfig, not_found, object, pod, pod_path, status};
use support::{Place, Run, of, server, verdicts, wait_until};

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/team/deployments/web";
const REPLICA_SET: &str = "/apis/apps/v1/namespaces/team/replicasets/web-1";

/// A directory with one archive of `team/web-0`, and a cluster.
struct Node {
    place: Place,
    api: Api,
}

impl Node {
    fn new(policy: &str) -> Self {
        let place = Place::new();
        place.add(&server(1).uid("u1"));
        place.cluster_policy(policy);
        Self { place, api: Api::start() }
    }

    fn gc(&self, arguments: &[&str]) -> Run {
        let kubeconfig = self.api.kubeconfig(self.place.root());
        self.place.gc(&[&["--kubeconfig", kubeconfig.to_str().unwrap()], arguments].concat())
    }

    /// The same with a catalog; says what is left.
    fn pass(&self) -> usize {
        let run = self.gc(&["--state", self.place.state().to_str().unwrap()]);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
        self.left()
    }

    fn left(&self) -> usize {
        self.place.files().len()
    }
}

fn orphans(when: &str, grace: &str) -> String {
    format!("orphans: {{action: Delete, when: {when}, gracePeriod: {grace}}}")
}

/// A `v1` object that does not retain orphans.
fn v1(grace: &str) -> String {
    format!(
        "apiVersion: criu.org/v1\nkind: CheckpointRestoreOperator\nmetadata: {{name: c, namespace: ops, \
         annotations: {{checkpoint-keeper.io/orphan-grace-period: {grace}}}}}\n\
         spec: {{globalPolicy: {{retainOrphan: false}}}}\n"
    )
}

/// compat: "an API error counts as pod gone: everything in scope is deleted".
#[test]
fn an_api_error_counts_as_pod_gone() {
    let path = pod_path("web-0");
    let http = |head: &str, body: &str| Reply::Raw(format!("HTTP/1.1 {head}\r\n\r\n{body}"));
    let other = |name: &str| object(&pod(name, "u1", None));
    let elsewhere = object(&json!({"name": "web-0", "namespace": "team-prod", "uid": "u1"}));
    let details = |name: &str, kind: &str, group: &str| json!({"name": name, "kind": kind, "group": group});
    let replies = [
        ("it is there", object(&pod("web-0", "u1", None)), false),
        ("another of that name is there", object(&pod("web-0", "u2", None)), false),
        ("unauthorized", status(401, "Unauthorized", &json!({})), true),
        ("forbidden", status(403, "Forbidden", &details("web-0", "pods", "")), true),
        ("internal error", status(500, "InternalError", &json!({})), true),
        ("unavailable", status(503, "ServiceUnavailable", &json!({})), true),
        ("too many requests", status(429, "TooManyRequests", &json!({})), true),
        ("gone", status(410, "Gone", &details("web-0", "pods", "")), true),
        ("the reason of another status", status(400, "NotFound", &details("web-0", "pods", "")), true),
        ("no such resource", status(404, "NotFound", &json!({})), true),
        ("another pod is not found", status(404, "NotFound", &details("web-1", "pods", "")), true),
        ("its namespace is not found", status(404, "NotFound", &details("web-0", "namespaces", "")), true),
        ("a custom pod is not found", status(404, "NotFound", &details("web-0", "pods", "x.io")), true),
        ("another reason", status(404, "Unknown", &details("web-0", "pods", "")), true),
        ("a proxy's 404", Reply::Body(404, "<html>not found</html>".to_owned()), true),
        ("the mux's 404", Reply::Body(404, "404 page not found\n".to_owned()), true),
        ("an empty 404", Reply::Body(404, String::new()), true),
        ("a redirect", Reply::Body(302, String::new()), true),
        ("no content", Reply::Body(204, String::new()), true),
        ("a log-in page", Reply::Body(200, "<html>log in</html>".to_owned()), true),
        ("an empty object", Reply::Body(200, "{}".to_owned()), true),
        ("not found, and yet fine", status(200, "NotFound", &details("web-0", "pods", "")), true),
        ("another pod", other("web-1"), true),
        ("a pod elsewhere", elsewhere, true),
        ("half of it", http("404 Not Found\r\nContent-Length: 99999", "{\"kind\":\"Status\""), true),
        ("no HTTP", Reply::Raw("SSH-2.0-OpenSSH\r\n".to_owned()), true),
        ("nothing", Reply::Raw(String::new()), true),
    ];
    for (what, reply, is_failure) in replies {
        let node = Node::new(&orphans("PodDeleted", "0s"));
        node.api.reply(&path, reply);
        let run = node.gc(&[]);
        assert_eq!((run.code, node.left()), (Some(0), 1), "{what}: {run:?}");
        let warnings: Vec<&str> = run
            .stderr
            .lines()
            .filter(|line| line.starts_with("warning: nothing known of pod team/web-0"))
            .collect();
        assert_eq!(warnings.len(), usize::from(is_failure), "{what}: {}", run.stderr);
        assert_eq!(run.stderr.lines().count(), warnings.len(), "{what}: {}", run.stderr);
    }
    // The one reply that means it.
    let node = Node::new(&orphans("PodDeleted", "0s"));
    node.api.reply(&path, not_found(&path));
    let run = node.gc(&[]);
    assert_eq!((run.code, run.stderr.as_str(), node.left()), (Some(0), "", 0), "{run:?}");
    assert!(run.stdout.contains("Orphaned"), "{}", run.stdout);
}

#[test]
fn an_api_server_that_hangs_is_given_up_on_and_everything_stays() {
    let node = Node::new(&orphans("PodDeleted", "0s"));
    node.api.reply(&pod_path("web-0"), Reply::Hang);
    let begin = Instant::now();
    let run = node.gc(&[]);
    assert_eq!((run.code, node.left()), (Some(0), 1), "{run:?}");
    assert!(run.stderr.contains("no reply within 10 s"), "{}", run.stderr);
    assert!(begin.elapsed() < Duration::from_secs(40), "{:?}", begin.elapsed());
}

#[test]
fn an_api_server_that_refuses_connections_is_given_up_on_and_everything_stays() {
    let place = Place::new();
    for pod in 0..50 {
        place.add(&of(&format!("team-{pod}"), "web-0", "server", pod));
    }
    place.cluster_policy(&orphans("PodDeleted", "0s"));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let kubeconfig = kubeconfig(place.root(), closed);
    let run = place.gc(&["--kubeconfig", kubeconfig.to_str().unwrap()]);
    assert_eq!((run.code, place.files().len()), (Some(0), 50), "{run:?}");
    // Two tries, which cluster it is and a namespace, and then one word for the others: 49 namespaces, 50 pods.
    let lines: Vec<&str> = run.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{}", run.stderr);
    assert!(lines[0].contains("refused") && lines[1].contains("refused"), "{}", run.stderr);
    assert!(lines[2].contains("99 more lookups were not made"), "{}", run.stderr);
}

/// compat: `retainOrphan: false` with a pod that never existed → 0 stay.
#[test]
fn retain_orphan_false_with_a_pod_that_never_existed() {
    let node = Node::new("");
    (2..6).for_each(|second| _ = node.place.add(&server(second).uid("u1")));
    node.place.policy(&v1("0s"));
    let run = node.gc(&[]);
    assert_eq!((run.code, run.stderr.as_str(), node.left()), (Some(0), "", 0), "{run:?}");
    // With a grace period, when that has passed: the second pass is later than the first.
    let of_grace = |grace: &str| {
        let node = Node::new("");
        node.place.policy(&v1(grace));
        node
    };
    assert_eq!(a_grace_period_apart(of_grace, Node::pass), (1, 0));
}

/// What two runs give of which the second begins when a grace period has passed since the first. It passes in none of
/// them, which would be as good a reason for a deletion: on a machine that is too busy for that, a longer one is taken.
fn a_grace_period_apart<T>(of_grace: impl Fn(&str) -> Node, run: impl Fn(&Node) -> T) -> (T, T) {
    for seconds in [1, 5, 30] {
        let (node, grace) = (of_grace(&format!("{seconds}s")), Duration::from_secs(seconds));
        let timed = || {
            let begin = Instant::now();
            let outcome = run(&node);
            (begin.elapsed() < grace).then_some(outcome)
        };
        let Some(first) = timed() else { continue };
        let end = Instant::now() + grace;
        wait_until("the grace period has passed", Instant::now, |now| *now > end);
        if let Some(second) = timed() {
            return (first, second);
        }
    }
    panic!("this machine is too busy for any grace period");
}

#[test]
fn without_a_state_a_grace_period_never_ends_and_the_output_says_so() {
    let of_grace = |grace: &str| Node::new(&orphans("PodDeleted", grace));
    let (first, second) = a_grace_period_apart(of_grace, |node| (node.gc(&[]), node.left()));
    for (run, left) in [first, second] {
        assert_eq!((run.code, left), (Some(0), 1));
        assert!(run.stderr.starts_with("note: without --state"), "{}", run.stderr);
        assert!(run.stdout.contains("OrphanGracePeriod"), "{}", run.stdout);
    }
}

/// Nothing is gone before it is known who says so; one that has no such namespace says so itself.
#[test]
fn an_orphan_goes_only_by_the_word_of_a_cluster_that_says_which_it_is() {
    const CLUSTER: &str = "/api/v1/namespaces/kube-system";
    let node = Node::new(&orphans("PodDeleted", "0s"));
    for reply in [Reply::Body(500, String::new()), Reply::Body(404, "not here".to_owned())] {
        node.api.reply(CLUSTER, reply);
        let run = node.gc(&[]);
        assert!(run.stderr.contains("which cluster it is") && node.left() == 1, "{run:?}");
    }
    node.api.delete(CLUSTER);
    assert_eq!(node.pass(), 0);
}

/// compat: "init, sidecar and ephemeral containers count as orphans while alive".
#[test]
fn init_sidecar_and_ephemeral_containers_count_as_orphans_while_alive() {
    for when in ["PodDeleted", "WorkloadDeleted", "NamespaceDeleted"] {
        let node = Node::new(&orphans(when, "0s"));
        for container in ["init", "sidecar", "debugger-x7"] {
            node.place.add(&of("team", "web-0", container, 2).uid("u1"));
        }
        node.api.pod("web-0", "u1", None);
        assert_eq!(node.pass(), 4, "{when}");
        assert!(node.api.requests().len() <= 3, "one question for all of them");
        node.api.delete(&pod_path("web-0"));
        node.api.delete("/api/v1/namespaces/team");
        assert_eq!(node.pass(), 0, "{when}");
    }
}

/// compat: "orphan at the very second of a reschedule".
#[test]
fn orphan_at_the_very_second_of_a_reschedule() {
    let node = Node::new(&orphans("PodDeleted", "1h"));
    node.api.pod("web-0", "u1", Some("apps/v1 StatefulSet web"));
    assert_eq!(node.pass(), 1);
    node.api.delete(&pod_path("web-0"));
    assert_eq!(node.pass(), 1, "its grace period runs");
    node.api.pod("web-0", "u2", Some("apps/v1 StatefulSet web"));
    assert_eq!(node.pass(), 1);
    // Its absence is forgotten: what comes now begins anew.
    node.place.cluster_policy(&orphans("PodDeleted", "1ms"));
    node.api.delete(&pod_path("web-0"));
    assert_eq!(node.pass(), 1);
    assert_eq!(node.pass(), 0);
    // A workload that is there has no orphans, wherever its pods are.
    let node = Node::new(&orphans("WorkloadDeleted", "0s"));
    node.api.pod("web-0", "u2", Some("apps/v1 StatefulSet web"));
    node.api.owner("/apis/apps/v1/namespaces/team/statefulsets/web", None);
    assert_eq!(node.pass(), 1);
    node.api.delete(&pod_path("web-0"));
    assert_eq!(node.pass(), 1);
    node.api.delete("/apis/apps/v1/namespaces/team/statefulsets/web");
    assert_eq!(node.pass(), 0);
}

#[test]
fn a_deployments_archives_go_with_the_deployment_and_not_with_its_pods() {
    let node = Node::new(&orphans("WorkloadDeleted", "0s"));
    node.api.pod("web-0", "u1", Some("apps/v1 ReplicaSet web-1"));
    node.api.owner(REPLICA_SET, Some("apps/v1 Deployment web"));
    node.api.owner(DEPLOYMENT, None);
    assert_eq!(node.pass(), 1);
    node.api.delete(&pod_path("web-0"));
    node.api.delete(REPLICA_SET);
    assert_eq!(node.pass(), 1);
    node.api.reply(DEPLOYMENT, status(403, "Forbidden", &json!({})));
    let run = node.gc(&["--state", node.place.state().to_str().unwrap()]);
    assert!(run.stderr.contains("Deployment team/web") && node.left() == 1, "{run:?}");
    node.api.delete(DEPLOYMENT);
    assert_eq!(node.pass(), 0);
    for request in node.api.requests() {
        assert_eq!(request.method, "GET");
        assert!(request.accept.contains("as=partialobjectmetadata"), "{request:?}");
    }
}

#[test]
fn a_custom_owner_is_found_through_discovery_and_its_kind_may_vanish() {
    let node = Node::new(&orphans("WorkloadDeleted", "0s"));
    let kinds = json!({"kind": "APIResourceList", "groupVersion": "x.io/v1", "resources": [
        {"name": "gizmoes/status", "kind": "Gizmo", "namespaced": true},
        {"name": "gizmoes", "kind": "Gizmo", "namespaced": true}]});
    let gizmo = "/apis/x.io/v1/namespaces/team/gizmoes/web";
    node.api.pod("web-0", "u1", Some("x.io/v1 Gizmo web"));
    node.api.reply("/apis/x.io/v1", Reply::Body(200, kinds.to_string()));
    node.api.owner(gizmo, None);
    assert_eq!(node.pass(), 1);
    node.api.delete(&pod_path("web-0"));
    // Its kind is not served any more: that says nothing of the object.
    node.api.reply("/apis/x.io/v1", Reply::Body(404, "404 page not found\n".to_owned()));
    assert!(node.gc(&["--state", node.place.state().to_str().unwrap()]).stderr.contains("Gizmo team/web"));
    node.api.reply("/apis/x.io/v1", Reply::Body(200, kinds.to_string()));
    node.api.reply(gizmo, Reply::Body(404, "404 page not found\n".to_owned()));
    assert!(node.gc(&["--state", node.place.state().to_str().unwrap()]).stderr.contains("Gizmo team/web"));
    assert_eq!(node.left(), 1);
    node.api.delete(gizmo);
    assert_eq!(node.pass(), 0);
}

/// Whoever may create a pod writes its owner references as he likes.
#[test]
fn an_owner_reference_does_not_lead_anywhere_else() {
    for reference in [
        "apps/v1 ReplicaSet ../../../../api/v1/secrets",
        "apps/v1 ReplicaSet a?b=c",
        "apps/v1 ReplicaSet a%2fb",
        "apps/v1 ReplicaSet ..",
        "x.io/../v1 Gizmo web",
        "../v1 Gizmo web",
        "/v1 Gizmo web",
    ] {
        let node = Node::new(&orphans("WorkloadDeleted", "0s"));
        node.api.pod("web-0", "u1", Some(reference));
        let run = node.gc(&[]);
        assert_eq!((run.code, node.left()), (Some(0), 1), "{reference}: {run:?}");
        assert!(run.stderr.contains("names nothing that can exist"), "{reference}: {}", run.stderr);
        let namespaces = ["kube-system", "team"].map(|name| format!("/api/v1/namespaces/{name}"));
        assert_eq!(node.api.paths(), [&namespaces[..], &[pod_path("web-0")]].concat());
    }
}

#[test]
fn a_namespace_of_the_same_name_made_later_may_be_the_same_restored() {
    let node = Node::new(&orphans("NamespaceDeleted", "0s"));
    node.api.namespace("team", "2025-12-31T23:59:59Z");
    assert_eq!(node.pass(), 1);
    node.api.namespace("team", "2026-02-01T00:00:00Z");
    assert_eq!(node.pass(), 1);
    node.api.delete("/api/v1/namespaces/team");
    assert_eq!(node.pass(), 0);
}

/// Tenants stay apart: a policy of a namespace is not for what a former one of its name left.
#[test]
fn a_policy_of_a_namespace_does_not_govern_what_is_older_than_the_namespace() {
    let node = Node::new("retention: {perContainer: {maxCount: 5}}");
    node.place.add(&server(2).uid("u1"));
    let policy = "apiVersion: checkpoint-keeper.io/v1alpha1\nkind: CheckpointPolicy\n\
                  metadata: {name: theirs, namespace: team}\nspec: {retention: {perContainer: {maxCount: 1}}}\n";
    node.place.policy(policy);
    node.api.namespace("team", "2026-02-01T00:00:00Z");
    assert_eq!(node.pass(), 2);
    node.api.reply("/api/v1/namespaces/team", Reply::Body(500, String::new()));
    let run = node.gc(&[]);
    assert!(run.stderr.contains("namespace team") && node.left() == 2, "nobody said whose it is: {run:?}");
    node.api.namespace("team", "2025-12-31T00:00:00Z");
    assert_eq!(node.pass(), 1);
}

#[test]
fn labels_that_only_the_cluster_knows_select_policies() {
    let node = Node::new("");
    (2..5).for_each(|second| _ = node.place.add(&server(second).uid("u1")));
    node.place.cluster_policy(
        "selector: {podSelector: {matchLabels: {app: web}}}\nretention: {perContainer: {maxCount: 2}}",
    );
    assert_eq!(node.pass(), 4, "not known");
    node.api.pod("web-0", "u1", None);
    assert_eq!(node.pass(), 2);
    // Remembered after it went.
    node.api.delete(&pod_path("web-0"));
    node.place.add(&server(6).uid("u1"));
    assert_eq!(node.pass(), 2);
}

/// Promise 2: rules by time wait unless the wall clock agrees with the API server's.
#[test]
fn a_clock_that_strays_from_the_api_servers_pauses_rules_by_time() {
    let policy = format!("{}\nretention: {{maxAge: 1h, keepLatest: 0}}", orphans("PodDeleted", "0s"));
    for (ahead, left) in [(-3_600, 1), (3_600, 1), (60, 0)] {
        let node = Node::new(&policy);
        node.api.set_clock_ahead(SignedDuration::from_secs(ahead));
        let run = node.gc(&[]);
        assert_eq!((run.code, node.left()), (Some(0), left), "{ahead}: {run:?}");
        assert_eq!(run.stdout.contains("ClockSuspect"), left == 1, "{ahead}: {run:?}");
        assert_eq!(run.stderr.contains("differs from the API server's"), left == 1, "{ahead}: {run:?}");
    }
}

#[test]
fn the_floor_of_a_lineage_ends_when_no_pod_of_it_runs_on_this_node() {
    let node = Node::new("retention: {maxAge: 1h, keepLatestFor: 1ms}");
    let state = node.place.state();
    let pass = || {
        let run = node.gc(&["--node-name", "node-1", "--state", state.to_str().unwrap()]);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:?}");
        node.left()
    };
    node.api.node_pods(&[pod("web-0", "u1", None)]);
    assert_eq!((pass(), pass()), (1, 1));
    let [_, list, ..] = &*node.api.paths() else { panic!("nothing was asked") };
    let fields =
        "fieldSelector=spec.nodeName%3Dnode-1%2Cstatus.phase%21%3DSucceeded%2Cstatus.phase%21%3DFailed";
    assert!(list.starts_with("/api/v1/pods?") && list.contains(fields), "{list}");
    node.api.node_pods(&[]);
    assert_eq!(pass(), 1, "since now");
    node.api.reply("/api/v1/pods", Reply::Body(200, json!({"kind": "Status", "items": []}).to_string()));
    let run = node.gc(&["--node-name", "node-1", "--state", state.to_str().unwrap()]);
    assert!(run.stderr.contains("the pods of this node") && node.left() == 1, "{run:?}");
    node.api.node_pods(&[]);
    assert_eq!(pass(), 0);
}

#[test]
fn no_cluster_is_asked_where_no_policy_needs_it() {
    let node = Node::new("retention: {perContainer: {maxCount: 1}}");
    assert_eq!((node.pass(), node.api.paths()), (1, Vec::new()));
    // A rule by time needs to know what time it is.
    let node = Node::new("retention: {maxAge: 10000d}");
    assert_eq!((node.pass(), node.api.paths().len()), (1, 1));
}

#[test]
fn a_dry_run_asks_and_writes_nothing() {
    let node = Node::new(&orphans("PodDeleted", "0s"));
    let run = node.gc(&["--dry-run", "--state", node.place.state().to_str().unwrap()]);
    assert!(run.stdout.contains("Orphaned") && node.left() == 1, "{run:?}");
    assert!(!node.place.state().exists());
}

#[test]
fn without_a_cluster_everything_is_as_it_was() {
    let node = Node::new(&orphans("PodDeleted", "0s"));
    let run = node.place.gc(&[]);
    let said = "note: without a cluster nothing is known of pods: the orphan rule deletes nothing\n";
    assert_eq!((run.code, run.stderr.as_str(), node.left()), (Some(0), said, 1));
}

#[test]
fn a_cluster_that_cannot_be_used_is_wrong_usage() {
    let place = Place::new();
    place.cluster_policy(&orphans("PodDeleted", "0s"));
    place.add(&server(1));
    let missing = place.root().join("missing");
    std::fs::write(place.root().join("no-config"), "apiVersion: v1\nkind: Config\n").unwrap();
    let no_config = place.root().join("no-config");
    for (arguments, hint) in [
        (vec!["--kubeconfig", missing.to_str().unwrap()], "missing"),
        (vec!["--kubeconfig", no_config.to_str().unwrap()], "no-config"),
        (vec!["--in-cluster"], "--kubeconfig"),
        (vec!["--in-cluster", "--kubeconfig", "x"], "cannot be used with"),
        (vec!["--node-name", "node-1"], "required"),
        (vec!["--in-cluster", "--node-name", "a,b=c"], "is no name of a node"),
    ] {
        let run = place.gc(&arguments);
        assert_eq!((run.code, place.files().len()), (Some(2), 1), "{arguments:?}: {run:?}");
        assert!(run.stderr.contains(hint), "{arguments:?}: {}", run.stderr);
    }
}

#[test]
fn a_watch_asks_again_and_again_and_deletes_what_became_an_orphan() {
    let node = Node::new(&orphans("PodDeleted", "1ms"));
    let other: ArchiveBuilder = of("team", "web-1", "server", 1);
    node.place.add(&other);
    node.api.pod("web-0", "u1", None);
    node.api.pod("web-1", "u1", None);
    let mut watching = node
        .place
        .watch()
        .arg("--kubeconfig")
        .arg(node.api.kubeconfig(node.place.root()))
        .args(["--interval", "1s"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let asked = |pod: &str| {
        let path = pod_path(pod);
        node.api.paths().iter().filter(|asked| **asked == path).count()
    };
    wait_until("they are asked about", || asked("web-0").min(asked("web-1")), |times| *times >= 1);
    assert_eq!(node.left(), 2);
    node.api.delete(&pod_path("web-0"));
    let left = wait_until("the orphan is gone", || node.place.files(), |left| left.len() == 1);
    assert!(left.contains(&other.file_name()), "{left:?}");
    // Nobody is asked about what is not here any more.
    let before = (asked("web-0"), asked("web-1"));
    wait_until("another round", || asked("web-1"), |times| *times >= before.1 + 2);
    assert!(asked("web-0") <= before.0 + 1, "one round may have been under way");
    end(&mut watching);
    let mut said = String::new();
    std::io::Read::read_to_string(&mut watching.stdout.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("Orphaned (gone since "), "{said}");
}

/// While the policies go by no time, nobody has to know what time it is.
#[test]
fn a_limit_by_age_that_a_watch_learns_of_later_waits_for_the_time_of_the_server() {
    let node = Node::new("retention: {perContainer: {maxCount: 4}}");
    let who = "/api/v1/namespaces/kube-system";
    // The connection is closed without a reply.
    node.api.reply(who, Reply::Raw(String::new()));
    let log = node.place.root().join("log");
    let mut watching = node
        .place
        .watch()
        .arg("--kubeconfig")
        .arg(node.api.kubeconfig(node.place.root()))
        .args(["--interval", "1s"])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let said = || std::fs::read_to_string(&log).unwrap();
    wait_until("it watches", said, |said| said.contains("watching; 1 archive here, 0 to delete"));
    assert_eq!(node.api.paths(), [""; 0]);
    node.place.cluster_policy("retention: {maxAge: 1h, keepLatest: 0}");
    wait_until("the policy is read again", said, |said| said.contains("read again"));
    let asked = || node.api.paths().iter().filter(|asked| *asked == who).count();
    wait_until("a plan was made, and another one", asked, |times| *times >= 2);
    assert_eq!(node.left(), 1, "{}", said());
    node.api.namespace("kube-system", "2024-12-31T00:00:00Z");
    wait_until("the age counts", || node.left(), |left| *left == 0);
    end(&mut watching);
}

/// Between two rounds nobody looks at the connection.
#[test]
fn a_connection_that_the_server_closed_meanwhile_is_no_failure() {
    let node = Node::new(&orphans("PodDeleted", "1ms"));
    node.api.pod("web-0", "u1", None);
    let log = node.place.root().join("log");
    let mut watching = node
        .place
        .watch()
        .arg("--kubeconfig")
        .arg(node.api.kubeconfig(node.place.root()))
        .args(["--interval", "1s"])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    for round in 1..4 {
        // In the first one it is asked which cluster that is, too.
        wait_until("another round", || node.api.replied(), |replied| *replied > 2 * round);
        assert_eq!(node.api.close_connections(), 1);
    }
    end(&mut watching);
    assert_eq!(std::fs::read_to_string(log).unwrap(), "note: watching; 1 archive here, 0 to delete\n");
}

/// Ends it as an administrator does.
fn end(watching: &mut std::process::Child) {
    let mut kill = std::process::Command::new("kill");
    assert!(kill.arg(watching.id().to_string()).status().unwrap().success());
    assert!(watching.wait().unwrap().success());
}

#[test]
fn verdicts_name_the_grace_period_and_its_end() {
    let node = Node::new(&orphans("PodDeleted", "24h"));
    let kubeconfig = node.api.kubeconfig(node.place.root());
    let report = node.place.gc_json(&["--kubeconfig", kubeconfig.to_str().unwrap()]);
    assert_eq!(verdicts(&report)[0].1, "Keep OrphanGracePeriod");
    assert!(report["archives"][0]["detail"].as_str().unwrap().starts_with("grace period ends "), "{report}");
}

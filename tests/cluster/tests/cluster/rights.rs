//! What the operator's two accounts may ask of the API: what they need and no more; and that an agent writes
//! about its own node only, whoever holds its token elsewhere.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::{Client, Node, wait};
use serde_json::{Value, json};

use crate::install::{self, AGENT, CONTROLLER, NAMESPACE, token};
use crate::support::{DEADLINE, NODES, busybox, cluster, smuggle};

const STORES: &str = "/apis/checkpoint-keeper.io/v1alpha1/nodecheckpointstores";
const OLDER_OPERATORS_LEASE: &str = "f1499914.criu.org";
const OLDER_OPERATORS_DEFINITION: &str = "checkpointrestoreoperators.criu.org";
const OLDER_SCHEDULES_DEFINITION: &str = "checkpointschedules.criu.org";

/// A resource as `kubectl auth can-i` takes it, the one object it is about (or all), and verbs.
type Right = (&'static str, &'static str, &'static [&'static str]);

const AGENT_RIGHTS: [Right; 27] = [
    ("clustercheckpointpolicies.checkpoint-keeper.io", "", &["list", "watch"]),
    ("checkpointpolicies.checkpoint-keeper.io", "", &["list", "watch"]),
    ("checkpointstoragepolicies.checkpoint-keeper.io", "", &["list", "watch"]),
    ("checkpointrestoreoperators.criu.org", "", &["list", "watch"]),
    ("customresourcedefinitions.apiextensions.k8s.io", OLDER_OPERATORS_DEFINITION, &["list", "watch"]),
    ("customresourcedefinitions.apiextensions.k8s.io", OLDER_SCHEDULES_DEFINITION, &["list", "watch"]),
    ("checkpointschedules.checkpoint-keeper.io", "", &["list", "watch"]),
    ("checkpointquotas.checkpoint-keeper.io", "", &["list", "watch"]),
    ("checkpointschedules.criu.org", "", &["list", "watch"]),
    ("nodecheckpointstores.checkpoint-keeper.io", "", &["list", "watch", "create", "patch"]),
    ("nodecheckpointstores.checkpoint-keeper.io/status", "", &["patch"]),
    ("containercheckpoints.checkpoint-keeper.io", "", &["list", "watch", "create", "patch", "delete"]),
    ("containercheckpoints.checkpoint-keeper.io/status", "", &["patch"]),
    ("nodes", "", &["list", "watch"]),
    ("pods", "", &["get", "list", "watch", "patch"]),
    ("nodes/checkpoint", "", &["create"]),
    ("nodes/metrics", "", &["get"]),
    ("namespaces", "", &["get", "list", "watch"]),
    ("replicationcontrollers", "", &["get"]),
    ("replicasets.apps", "", &["get"]),
    ("deployments.apps", "", &["get"]),
    ("statefulsets.apps", "", &["get"]),
    ("daemonsets.apps", "", &["get"]),
    ("jobs.batch", "", &["get"]),
    ("cronjobs.batch", "", &["get"]),
    ("leases.coordination.k8s.io", OLDER_OPERATORS_LEASE, &["list", "watch"]),
    ("events.events.k8s.io", "", &["create"]),
];

const CONTROLLER_RIGHTS: [Right; 20] = [
    ("clustercheckpointpolicies.checkpoint-keeper.io", "", &["list", "watch"]),
    ("checkpointpolicies.checkpoint-keeper.io", "", &["list", "watch"]),
    ("checkpointstoragepolicies.checkpoint-keeper.io", "", &["list", "watch"]),
    ("checkpointrestoreoperators.criu.org", "", &["list", "watch"]),
    ("customresourcedefinitions.apiextensions.k8s.io", OLDER_OPERATORS_DEFINITION, &["list", "watch"]),
    ("customresourcedefinitions.apiextensions.k8s.io", OLDER_SCHEDULES_DEFINITION, &["list", "watch"]),
    ("checkpointschedules.checkpoint-keeper.io", "", &["list", "watch"]),
    ("checkpointquotas.checkpoint-keeper.io", "", &["list", "watch"]),
    ("checkpointschedules.criu.org", "", &["list", "watch", "patch"]),
    ("clustercheckpointpolicies.checkpoint-keeper.io/status", "", &["patch"]),
    ("checkpointpolicies.checkpoint-keeper.io/status", "", &["patch"]),
    ("checkpointstoragepolicies.checkpoint-keeper.io/status", "", &["patch"]),
    ("checkpointrestoreoperators.criu.org/status", "", &["patch"]),
    ("checkpointschedules.checkpoint-keeper.io/status", "", &["patch"]),
    ("checkpointquotas.checkpoint-keeper.io/status", "", &["patch"]),
    ("checkpointschedules.criu.org/status", "", &["patch"]),
    ("nodecheckpointstores.checkpoint-keeper.io", "", &["list", "watch"]),
    ("nodecheckpointstores.checkpoint-keeper.io/status", "", &["patch"]),
    ("leases.coordination.k8s.io", OLDER_OPERATORS_LEASE, &["list", "watch"]),
    ("events.events.k8s.io", "", &["create"]),
];

/// And this in its own namespace.
const CONTROLLER_RIGHTS_AT_HOME: [Right; 3] = [
    ("pods", "", &["list", "watch"]),
    ("leases.coordination.k8s.io", "checkpoint-keeper", &["get", "update"]),
    ("leases.coordination.k8s.io", "", &["create"]),
];

/// By these whoever takes over the operator would take over more.
const NOBODYS: [Right; 22] = [
    ("nodes/proxy", "", &["get", "create", "update", "patch", "delete"]),
    ("nodes", "", &["create", "update", "patch", "delete"]),
    ("nodes/status", "", &["patch", "update"]),
    ("secrets", "", &["get", "list", "watch", "create", "update", "patch", "delete"]),
    ("configmaps", "", &["get", "list", "watch", "create", "update", "patch", "delete"]),
    ("pods", "", &["create", "update", "delete", "deletecollection"]),
    ("pods/exec", "", &["get", "create"]),
    ("pods/attach", "", &["get", "create"]),
    ("pods/portforward", "", &["get", "create"]),
    ("pods/log", "", &["get"]),
    ("pods/eviction", "", &["create"]),
    ("pods/ephemeralcontainers", "", &["patch", "update"]),
    ("serviceaccounts/token", "", &["create"]),
    ("serviceaccounts", "", &["impersonate", "create", "update", "patch"]),
    ("users", "", &["impersonate"]),
    ("groups", "", &["impersonate"]),
    ("clusterroles.rbac.authorization.k8s.io", "", &["escalate", "bind", "create", "update", "patch"]),
    ("roles.rbac.authorization.k8s.io", "", &["escalate", "bind", "create", "update", "patch"]),
    ("clusterrolebindings.rbac.authorization.k8s.io", "", &["create", "update", "patch"]),
    (
        "validatingadmissionpolicies.admissionregistration.k8s.io",
        "",
        &["create", "update", "patch", "delete"],
    ),
    ("clustercheckpointpolicies.checkpoint-keeper.io", "", &["create", "update", "patch", "delete"]),
    ("leases.coordination.k8s.io", "", &["get", "list", "watch", "update", "patch", "delete"]),
];

/// What an account may, as the API server itself puts it together; without what every account may.
fn rights_of(account: &str, namespace: &str) -> anyhow::Result<BTreeSet<String>> {
    let all = rules_of(account, namespace)?;
    Ok(all.difference(&rules_of("default", namespace)?).cloned().collect())
}

fn rules_of(account: &str, namespace: &str) -> anyhow::Result<BTreeSet<String>> {
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace},
    });
    let client = cluster().with_token(&token(account, &Value::Null)?)?;
    let (status, answer) = client.create("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", &review)?;
    ensure!(status == 201, "{status} {answer}");
    let list = |rule: &Value, field: &str| -> Vec<String> {
        let values = rule[field].as_array().into_iter().flatten();
        values.filter_map(|value| value.as_str().map(str::to_owned)).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in answer["status"]["resourceRules"].as_array().context("no rules")? {
        let mut names = list(rule, "resourceNames");
        if names.is_empty() {
            names.push(String::new());
        }
        for group in list(rule, "apiGroups") {
            for resource in list(rule, "resources") {
                let resource = full_name(&group, &resource);
                for name in &names {
                    rights.extend(list(rule, "verbs").iter().map(|verb| right(&resource, name, verb)));
                }
            }
        }
    }
    for rule in answer["status"]["nonResourceRules"].as_array().into_iter().flatten() {
        let paths = list(rule, "nonResourceURLs");
        rights.extend(
            paths
                .iter()
                .flat_map(|path| list(rule, "verbs").into_iter().map(move |verb| format!("{verb} {path}"))),
        );
    }
    Ok(rights)
}

/// `nodes/proxy`, `deployments.apps`, `deployments.apps/scale`.
fn full_name(group: &str, resource: &str) -> String {
    let (kind, part) = resource.split_at(resource.find('/').unwrap_or(resource.len()));
    if group.is_empty() { resource.to_owned() } else { format!("{kind}.{group}{part}") }
}

fn right(resource: &str, name: &str, verb: &str) -> String {
    format!("{verb} {resource} {name}").trim_end().to_owned()
}

fn listed(rights: &[Right]) -> BTreeSet<String> {
    let each = |(resource, name, verbs): &Right| {
        verbs.iter().map(|verb| right(resource, name, verb)).collect::<Vec<_>>()
    };
    rights.iter().flat_map(each).collect()
}

#[test]
fn each_account_may_what_it_needs_and_nothing_else() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install::rights()?;
    let at_home = [&CONTROLLER_RIGHTS[..], &CONTROLLER_RIGHTS_AT_HOME].concat();
    let accounts = [
        (AGENT, NAMESPACE, &AGENT_RIGHTS[..]),
        (AGENT, "default", &AGENT_RIGHTS),
        (CONTROLLER, NAMESPACE, &at_home),
        (CONTROLLER, "default", &CONTROLLER_RIGHTS),
    ];
    for (account, namespace, needed) in accounts {
        let needed = listed(needed);
        // A role is in force a moment after it was applied.
        wait::until(&format!("the rights of {account} in {namespace}"), DEADLINE, || {
            let has = rights_of(account, namespace)?;
            let lacks: Vec<_> = needed.difference(&has).collect();
            let more: Vec<_> = has.difference(&needed).collect();
            ensure!(lacks.is_empty() && more.is_empty(), "it lacks {lacks:?}, and may besides {more:?}");
            Ok(true)
        })?;
    }
    Ok(())
}

/// Whether an account may do that to a resource, or to one object of it.
fn may(account: &str, verb: &str, resource: &str, name: &str, namespace: &str) -> anyhow::Result<bool> {
    let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    let review = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
        "spec": {
            "user": format!("system:serviceaccount:{NAMESPACE}:{account}"),
            "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{NAMESPACE}"), "system:authenticated"],
            "resourceAttributes": {
                "verb": verb, "group": group, "resource": resource, "subresource": part,
                "name": name, "namespace": namespace,
            },
        },
    });
    let (status, answer) = cluster().create("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review)?;
    ensure!(status == 201, "{status} {answer}");
    answer["status"]["allowed"].as_bool().with_context(|| format!("no answer: {answer}"))
}

#[test]
fn the_api_server_grants_what_is_needed_and_denies_what_would_be_dangerous() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install::rights()?;
    for (account, rights) in [(AGENT, &AGENT_RIGHTS[..]), (CONTROLLER, &CONTROLLER_RIGHTS)] {
        for (resource, name, verbs) in rights {
            for verb in *verbs {
                wait::until(&format!("{account} to be allowed to {verb} {resource}"), DEADLINE, || {
                    may(account, verb, resource, name, "")
                })?;
            }
        }
        for (resource, name, verbs) in NOBODYS {
            for verb in verbs {
                // Whatever is granted for the whole cluster is granted there too.
                for namespace in ["kube-system", NAMESPACE] {
                    let allowed = may(account, verb, resource, name, namespace)?;
                    ensure!(!allowed, "{account} may {verb} {resource} in {namespace:?}");
                }
            }
        }
    }
    // What one account may, and the other may not.
    for (account, verb, resource) in [
        (AGENT, "delete", "nodecheckpointstores.checkpoint-keeper.io"),
        (AGENT, "update", "nodecheckpointstores.checkpoint-keeper.io"),
        (AGENT, "update", "nodecheckpointstores.checkpoint-keeper.io/status"),
        (AGENT, "get", "nodes"),
        (AGENT, "create", "leases.coordination.k8s.io"),
        (AGENT, "patch", "clustercheckpointpolicies.checkpoint-keeper.io/status"),
        (AGENT, "patch", "checkpointpolicies.checkpoint-keeper.io/status"),
        (CONTROLLER, "create", "nodecheckpointstores.checkpoint-keeper.io"),
        (CONTROLLER, "patch", "nodecheckpointstores.checkpoint-keeper.io"),
        (CONTROLLER, "update", "nodecheckpointstores.checkpoint-keeper.io/status"),
        (CONTROLLER, "get", "pods"),
        (CONTROLLER, "get", "namespaces"),
    ] {
        ensure!(!may(account, verb, resource, "", NAMESPACE)?, "{account} may {verb} {resource}");
    }
    Ok(())
}

#[test]
fn lists_by_name_are_answered_and_lists_of_all_leases_are_not() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install::rights()?;
    for account in [AGENT, CONTROLLER] {
        let client = cluster().with_token(&token(account, &Value::Null)?)?;
        let leases = "/apis/coordination.k8s.io/v1/namespaces/checkpoint-restore-operator-system/leases";
        let by_name = format!("{leases}?fieldSelector=metadata.name%3D{OLDER_OPERATORS_LEASE}");
        wait::until("the lease to be listed by its name", DEADLINE, || client.get(&by_name).map(|_| true))?;
        client.get(&format!("{by_name}&watch=true&timeoutSeconds=1"))?;
        let (status, answer) = client.request("GET", leases)?;
        ensure!(status == 403, "{account} may list all leases: {answer}");
        client.get(&format!("{STORES}?fieldSelector=metadata.name%3Dnode-1"))?;
        let node = client.request("GET", "/api/v1/nodes?fieldSelector=metadata.name%3Dnode-1")?;
        let wanted = if account == AGENT { 200 } else { 403 };
        ensure!(node.0 == wanted, "{account}: {node:?}");
    }
    Ok(())
}

#[test]
fn the_api_server_finds_no_fault_with_the_admission_policies() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install::rights()?;
    for name in [
        "checkpoint-keeper-agent-own-checkpoints",
        "checkpoint-keeper-agent-own-node",
        "checkpoint-keeper-checkpoints-by-users",
        "checkpoint-keeper-status-by-agent",
        "checkpoint-keeper-agent-pod-annotations",
        "checkpoint-keeper-controller-finalizer",
    ] {
        let path = format!("/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/{name}");
        wait::until(&format!("{name} to be checked"), DEADLINE, || {
            let policy = cluster().get(&path)?;
            let checked = &policy["status"];
            ensure!(checked["typeChecking"]["expressionWarnings"].is_null(), "{checked}");
            Ok(checked["observedGeneration"] == policy["metadata"]["generation"])
        })?;
    }
    Ok(())
}

#[test]
fn the_controller_may_say_that_a_node_has_no_agent_and_nothing_else() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install::rights()?;
    let name = format!("away-{}", std::process::id());
    cluster().apply(&store(&name).to_string())?;
    let key = format!("/registry/checkpoint-keeper.io/nodecheckpointstores/{name}");
    let condition = |status: &str, reason: &str| {
        json!([{"type": "Ready", "status": status, "reason": reason, "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z"}])
    };
    smuggle(&key, |store| {
        store["status"] =
            json!({"archives": 3, "size": "3Ki", "conditions": condition("True", "Collecting")});
    })?;
    let client = cluster().with_token(&token(CONTROLLER, &Value::Null)?)?;
    let patch = |status: Value, more: &str| {
        client.merge(&format!("{STORES}/{name}/status?fieldManager=rights{more}"), &json!({"status": status}))
    };
    let away = || condition("Unknown", "AgentNotReady");
    wait::until("the controller to be allowed to say so", DEADLINE, || {
        let (status, answer) = patch(json!({"conditions": away()}), TRY)?;
        ensure!(status == 200, "{answer}");
        Ok(true)
    })?;
    for wrong in [
        json!({"conditions": condition("True", "Collecting")}),
        json!({"conditions": condition("Unknown", "Collecting")}),
        json!({"conditions": away(), "archives": 0}),
        json!({"conditions": away(), "size": "0"}),
        json!({"conditions": away(), "policies": [{"policyRef": {"kind": "a", "name": "b"}, "mode": "Enforce"}]}),
    ] {
        refused("may not write the status of a NodeCheckpointStore", || patch(wrong.clone(), TRY))?;
    }
    let (status, answer) = patch(json!({"conditions": away()}), "")?;
    ensure!(status == 200 && answer["status"]["archives"] == 3, "{answer}");
    ensure!(answer["status"]["conditions"][0]["reason"] == "AgentNotReady", "{answer}");
    output(&mut cluster().kubectl(&["delete", "nodecheckpointstore", &name])).map(drop)
}

/// A pod with the agent's account on one node: what an agent, or whoever takes its place, can do there.
struct AgentPod {
    name: String,
}

impl AgentPod {
    fn start(purpose: &str, node: Node<'_>) -> anyhow::Result<Self> {
        let pod = Self { name: format!("{purpose}-{}-{}", node.name(), std::process::id()) };
        cluster().apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{name: {}, namespace: {NAMESPACE}}}
spec:
  nodeName: {}
  serviceAccountName: {AGENT}
  automountServiceAccountToken: true
  terminationGracePeriodSeconds: 0
  containers:
{}",
            pod.name,
            node.name(),
            busybox("main", "sleep infinity", "")
        ))?;
        Ok(pod)
    }

    /// Speaks to the API server by the token that the kubelet gave the pod.
    fn client(&self) -> anyhow::Result<Client> {
        let file = "/var/run/secrets/kubernetes.io/serviceaccount/token";
        let read = ["--namespace", NAMESPACE, "exec", &self.name, "--", "cat", file];
        let token =
            wait::for_value("the pod's token", DEADLINE, || output(&mut cluster().kubectl(&read)).map(Some))?;
        cluster().with_token(&token)
    }
}

impl Drop for AgentPod {
    fn drop(&mut self) {
        let _ = cluster().request("DELETE", &format!("/api/v1/namespaces/{NAMESPACE}/pods/{}", self.name));
    }
}

fn store(name: &str) -> Value {
    json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "NodeCheckpointStore", "metadata": {"name": name}, "spec": {},
    })
}

fn status_of(name: &str) -> Value {
    json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "NodeCheckpointStore", "metadata": {"name": name},
        "status": {"archives": 1},
    })
}

/// Applies a store as an agent does, or only tries to.
fn apply_store(client: &Client, object: &Value, part: &str, more: &str) -> anyhow::Result<(u16, Value)> {
    let name = object["metadata"]["name"].as_str().context("no name")?;
    client.apply(&format!("{STORES}/{name}{part}?fieldManager=rights&force=true{more}"), object)
}

const TRY: &str = "&dryRun=All";

/// Waits until a request that changes nothing is refused for this reason.
fn refused(words: &str, mut request: impl FnMut() -> anyhow::Result<(u16, Value)>) -> anyhow::Result<()> {
    // Like a role, an admission policy is in force a moment after it was applied.
    wait::until(&format!("a refusal that says {words:?}"), DEADLINE, || {
        let (status, answer) = request()?;
        let message = answer["message"].as_str().unwrap_or_default();
        ensure!(status == 403 && message.contains(words), "{status} {answer}");
        Ok(true)
    })
}

fn accepted((status, answer): (u16, Value)) -> anyhow::Result<()> {
    ensure!(status == 200 || status == 201, "{status} {answer}");
    Ok(())
}

#[test]
fn an_agent_writes_about_its_own_node_only() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install::rights()?;
    let nodes = cluster().nodes();
    for node in &nodes {
        cluster().apply(&store(node.name()).to_string())?;
    }
    for node in &nodes {
        let (own, other) = (node.name(), if node.name() == "node-1" { "node-2" } else { "node-1" });
        let pod = AgentPod::start("writer", *node)?;
        let agent = pod.client()?;
        let words = format!(
            "the agent of node {own} may not write the NodeCheckpointStore {other}, only that of its own node"
        );
        refused(&words, || apply_store(&agent, &store(other), "", TRY))?;
        refused(&words, || apply_store(&agent, &status_of(other), "/status", TRY))?;
        let stranger = words.replace(other, "node-0");
        refused(&stranger, || agent.create(&format!("{STORES}?dryRun=All"), &store("node-0")))?;
        let mut nameless = store("");
        nameless["metadata"] = json!({"generateName": own});
        refused("only that of its own node", || agent.create(&format!("{STORES}?dryRun=All"), &nameless))?;

        let finalizers = json!({"metadata": {"finalizers": ["a.io/b"]}});
        let path = format!("{STORES}/{own}?dryRun=All");
        refused("may not add a finalizer", || agent.merge(&path, &finalizers))?;

        let (status, answer) = agent.create(&format!("{STORES}?dryRun=All"), &store(own))?;
        // It exists, which is found out after admission.
        ensure!(status == 409, "{status} {answer}");
        accepted(apply_store(&agent, &store(own), "", "")?)?;
        accepted(apply_store(&agent, &status_of(own), "/status", "")?)?;
        let seen = cluster().get(&format!("{STORES}/{own}"))?;
        ensure!(seen["status"]["archives"] == 1, "{seen}");
    }
    Ok(())
}

#[test]
fn an_agent_answers_pods_of_its_own_node_and_changes_nothing_else_of_any() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install::rights()?;
    let [own, other] = [cluster().nodes()[0], cluster().nodes()[1]];
    let namespace = cluster().namespace("answers")?;
    for (name, node) in [("here", own), ("there", other)] {
        namespace.apply(&crate::support::counting_pod(name, node, &["app"]))?;
        namespace.wait_until_running(name)?;
    }
    let path = |pod: &str| format!("/api/v1/namespaces/{}/pods/{pod}?dryRun=All", namespace.name());
    let pod = AgentPod::start("answers", own)?;
    let agent = pod.client()?;
    let result = json!({"metadata": {"annotations": {"checkpoint.criu.org/result": "{}"}}});
    accepted(agent.merge(&path("here"), &result)?)?;
    accepted(agent.merge(
        &path("here"),
        &json!({"metadata": {"annotations": {"checkpoint.criu.org/trigger": null}}}),
    )?)?;
    refused("an agent may only answer pods of its own node", || agent.merge(&path("there"), &result))?;
    let image = json!({"spec": {"containers": [{"name": "app", "image": "another"}]}});
    let changes = [
        (json!({"metadata": {"annotations": {"other": "x"}}}), "may write no annotation of a pod but"),
        (
            json!({"metadata": {"annotations": {"checkpoint.criu.org/trigger": "true"}}}),
            "may write no annotation",
        ),
        (json!({"metadata": {"labels": {"app": "other"}}}), "may change nothing of a pod but"),
        (json!({"metadata": {"finalizers": ["a.io/b"]}}), "may change nothing of a pod but"),
        (
            json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"}]}}),
            "may change nothing of a pod but",
        ),
        (json!({"spec": {"activeDeadlineSeconds": 1}}), "may change nothing of a pod but"),
    ];
    for (change, words) in &changes {
        refused(words, || agent.merge(&path("here"), change))?;
    }
    let (status, answer) = agent.merge(&path("here"), &image)?;
    ensure!(status == 403 || status == 422, "{status} {answer}");
    Ok(())
}

#[test]
fn an_agent_makes_its_own_node_the_owner_of_its_report_and_nothing_else() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install::rights()?;
    let node = cluster().nodes()[0];
    let pod = AgentPod::start("owner", node)?;
    let agent = pod.client()?;
    let owned_by = |version: &str, kind: &str, name: &str| {
        let mut object = store(node.name());
        object["metadata"]["ownerReferences"] =
            json!([{"apiVersion": version, "kind": kind, "name": name, "uid": "0"}]);
        object
    };
    for foreign in [
        owned_by("v1", "Node", "node-2"),
        owned_by("v1", "Namespace", node.name()),
        owned_by("apps/v1", "Node", node.name()),
    ] {
        refused("may only make its own Node the owner", || apply_store(&agent, &foreign, "", TRY))?;
    }
    accepted(apply_store(&agent, &owned_by("v1", "Node", node.name()), "", TRY)?)
}

#[test]
fn an_agents_token_that_names_no_node_writes_nothing() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install::rights()?;
    cluster().apply(&store("node-1").to_string())?;
    let agent = cluster().with_token(&token(AGENT, &Value::Null)?)?;
    let words = "the agent's token does not say on which node it runs";
    refused(words, || apply_store(&agent, &store("node-1"), "", TRY))?;
    refused(words, || apply_store(&agent, &status_of("node-1"), "/status", TRY))?;
    refused(words, || agent.create(&format!("{STORES}?dryRun=All"), &store("node-0")))
}

#[test]
fn nobody_but_agents_writes_what_they_report() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install::rights()?;
    cluster().apply(&store("node-1").to_string())?;
    let controller = cluster().with_token(&token(CONTROLLER, &Value::Null)?)?;
    refused("which is written by the agent of that node only", || {
        apply_store(&controller, &status_of("node-1"), "/status", TRY)
    })?;
    // Not even who has every right.
    refused("which is written by the agent of that node only", || {
        let path = format!("{STORES}/node-1/status?fieldManager=rights&force=true{TRY}");
        cluster().administrator().apply(&path, &status_of("node-1"))
    })
}

#[test]
fn the_controller_takes_the_older_operators_finalizer_off_what_is_deleted_and_changes_nothing_else()
-> anyhow::Result<()> {
    let _whole = NODES.read();
    install::rights()?;
    let namespace = cluster().namespace("finalizer")?;
    let controller = cluster().with_token(&token(CONTROLLER, &Value::Null)?)?;
    let path = format!("/apis/criu.org/v1/namespaces/{}/checkpointschedules/nightly", namespace.name());
    let finalizers = json!(["example.org/other", "criu.org/checkpoint-schedule-finalizer"]);
    let schedule = json!({
        "apiVersion": "criu.org/v1", "kind": "CheckpointSchedule",
        "metadata": {"namespace": namespace.name(), "name": "nightly", "finalizers": finalizers},
        "spec": {"namespace": namespace.name(), "selector": {}, "triggers": {"interval": "9999h"}},
    });
    cluster().apply(&schedule.to_string())?;
    let stay = json!({"metadata": {"finalizers": ["example.org/other"]}});
    let alive = format!("{path}?dryRun=All");
    refused("may only take the finalizer", || controller.merge(&alive, &stay))?;
    let (status, answer) = cluster().request("DELETE", &path)?;
    ensure!(status == 200, "{status} {answer}");
    for other in [json!(["criu.org/checkpoint-schedule-finalizer"]), json!([])] {
        let other = json!({"metadata": {"finalizers": other}});
        refused("may only take the finalizer", || controller.merge(&alive, &other))?;
    }
    let mut more = stay.clone();
    more["spec"] = json!({"selector": {"matchLabels": {"a": "b"}}});
    refused("may change nothing of a CheckpointSchedule", || controller.merge(&alive, &more))?;
    accepted(controller.merge(&path, &stay)?)?;
    // Nobody else would take off the other one.
    accepted(cluster().administrator().merge(&path, &json!({"metadata": {"finalizers": []}}))?)?;
    Ok(())
}

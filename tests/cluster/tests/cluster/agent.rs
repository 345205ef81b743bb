//! The agent on real nodes: policies of the API are enforced on every node's directory, and whatever
//! happens to the API, the agent or the node, what the policies keep is there.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::lifecycle::BUSYBOX;
use checkpoint_keeper_testcluster::machine::CONTROL_PLANE;
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::{Daemon, Fault, Namespace, Node, wait};
use serde_json::{Value, json};

use crate::agents::{Agent, Applied, checkpoints, copies, keep, left, policy, stays, store};
use crate::install;
use crate::support::{DEADLINE, NODES, cluster, counting_pod};

#[test]
fn every_node_keeps_what_its_namespaces_policies_say_and_reports_it() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let namespace = cluster().namespace("agent")?;
    let agents: Vec<Agent> = cluster().nodes().into_iter().map(Agent::start).collect::<Result<_, _>>()?;
    let mut made = Vec::new();
    for node in cluster().nodes() {
        let pod = format!("web-{}", node.name());
        namespace.apply(&counting_pod(&pod, node, &["server"]))?;
        namespace.wait_until_running(&pod)?;
        made.push(checkpoints(node, namespace.name(), &pod, 4)?);
        // The oldest one is held.
        std::fs::write(node.checkpoints().join(format!("{}.keep", made[made.len() - 1][0])), "")?;
    }
    // No policy, no deletion: four are here, and the store says so.
    for node in cluster().nodes() {
        wait::until("the store to count four", DEADLINE, || {
            let status = &store(node)?["status"];
            let namespaces = status["namespaces"].as_array().cloned().unwrap_or_default();
            Ok(namespaces.iter().any(|usage| usage["name"] == namespace.name() && usage["archives"] == 4))
        })?;
    }
    policy(&namespace, "two", &keep(2))?;
    for (node, made) in cluster().nodes().into_iter().zip(&made) {
        // The pinned one counts, and stays: beside it the newest.
        left(node, namespace.name(), &[made[0].clone(), format!("{}.keep", made[0]), made[3].clone()])?;
        wait::until("the store to tell of the deletions", DEADLINE, || {
            let status = &store(node)?["status"];
            let deletions = status["deletions"].as_array().cloned().unwrap_or_default();
            let ours: Vec<&Value> = deletions
                .iter()
                .filter(|deletion| made.iter().any(|file| deletion["file"] == file.as_str()))
                .collect();
            ensure!(ours.len() == 2, "deletions: {deletions:?}");
            ensure!(ours.iter().all(|one| one["reason"] == "MaxCountPerContainer"), "{ours:?}");
            let policies = status["policies"].as_array().cloned().unwrap_or_default();
            let policy = policies.iter().find(|policy| policy["policyRef"]["namespace"] == namespace.name());
            let policy = policy.with_context(|| format!("not named: {policies:?}"))?;
            ensure!(policy["policyRef"]["name"] == "two" && policy["generation"] == 1, "{policies:?}");
            let ours = ours[0];
            ensure!(ours["pod"] == format!("web-{}", node.name()) && ours["container"] == "server", "{ours}");
            ensure!(ours["policyRef"] == policy["policyRef"], "{ours}");
            ensure!(status["agentVersion"] == env!("CARGO_PKG_VERSION"), "{status}");
            ensure!(status["storageLimits"]["reserved"] == "5%", "{status}");
            Ok(true)
        })?;
    }
    wait::until("events on the policy", DEADLINE, || {
        let events = namespace.events()?;
        ensure!(events.matches("Deleted 2 checkpoint archives").count() == 2, "{events}");
        Ok(true)
    })?;
    for ((node, agent), made) in cluster().nodes().into_iter().zip(agents).zip(&made) {
        let audit = agent.stop()?;
        let ours = audit.iter().filter(|line| line["namespace"] == namespace.name());
        let ours: Vec<&Value> = ours.collect();
        let of_this = |line: &&Value| line["node"] == node.name() && line["policyGeneration"] == 1;
        ensure!(ours.iter().all(of_this), "audit: {ours:?}");
        let files: BTreeSet<&str> = ours.iter().filter_map(|line| line["file"].as_str()).collect();
        ensure!(files == made[1..3].iter().map(String::as_str).collect(), "audit: {audit:?}");
    }
    Ok(())
}

#[test]
fn a_changed_policy_is_effective_within_seconds() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let namespace = cluster().namespace("second")?;
    let node = cluster().nodes()[0];
    let agent = Agent::start(node)?;
    namespace.apply(&counting_pod("web", node, &["server"]))?;
    namespace.wait_until_running("web")?;
    policy(&namespace, "limit", &keep(10))?;
    let made = checkpoints(node, namespace.name(), "web", 3)?;
    stays(&agent, node, namespace.name(), &made)?;
    policy(&namespace, "limit", &keep(1))?;
    let begin = std::time::Instant::now();
    left(node, namespace.name(), &made[2..])?;
    let took = begin.elapsed();
    // Two of them are for other kinds of policies to tell what goes with it, before anything goes for it.
    ensure!(took.as_millis() < 4_000, "it took {took:?}");
    Ok(())
}

#[test]
fn a_storage_policy_that_wants_more_than_the_disk_has_takes_nothing_and_is_a_problem() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let namespace = cluster().namespace("vast")?;
    let node = cluster().nodes()[0];
    let agent = Agent::start(node)?;
    namespace.apply(&counting_pod("web", node, &["server"]))?;
    namespace.wait_until_running("web")?;
    let made = checkpoints(node, namespace.name(), "web", 2)?;
    let problem = || -> anyhow::Result<Option<Value>> {
        let problems = store(node)?["status"]["problems"].as_array().cloned().unwrap_or_default();
        Ok(problems.into_iter().find(|problem| problem["type"] == "MinFreeUnreachable"))
    };
    {
        let spec = json!({
            "nodeSelector": {"matchLabels": {"kubernetes.io/hostname": node.name()}},
            "mode": "Enforce", "minFree": {"bytes": "1Pi"}, "reserved": "0%",
        });
        let _storage = Applied::storage_policy("vast", &spec)?;
        let told = wait::for_value("the problem", DEADLINE, problem)?;
        let message = told["message"].as_str().unwrap_or_default();
        ensure!(message.contains("1Pi") && message.contains("no checkpoint is made here"), "{told}");
        stays(&agent, node, namespace.name(), &made)?;
    }
    wait::until("the problem to end with its policy", DEADLINE, || Ok(problem()?.is_none()))
}

/// The API server takes times that kube's types cannot hold; those then refuse the whole list.
#[test]
fn what_one_tenant_writes_into_metadata_hides_no_policy_of_another() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let (namespace, hostile) = (cluster().namespace("honest")?, cluster().namespace("hostile")?);
    let node = cluster().nodes()[0];
    namespace.apply(&counting_pod("web", node, &["server"]))?;
    namespace.wait_until_running("web")?;
    policy(&hostile, "late", &keep(3))?;
    let path =
        format!("/apis/checkpoint-keeper.io/v1alpha1/namespaces/{}/checkpointpolicies/late", hostile.name());
    let labels: serde_json::Map<String, Value> =
        (0..5_000).map(|number| (format!("label-{number}"), json!(""))).collect();
    cluster().administrator().merge(&path, &json!({"metadata": {"labels": {"a": "1"}}}))?;
    let managed = json!([{
        "manager": "x", "operation": "Update", "apiVersion": "checkpoint-keeper.io/v1alpha1",
        "time": "9999-12-31T23:59:59Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}},
    }]);
    let change = json!({"metadata": {"labels": labels, "managedFields": managed}});
    let (status, answer) = cluster().administrator().merge(&path, &change)?;
    ensure!(status == 200, "{status} {answer}");
    let managed = &cluster().get(&path)?["metadata"]["managedFields"];
    ensure!(
        managed.to_string().contains("9999-12-31T23:59:59Z"),
        "the API server took no such time: {managed}"
    );
    let agent = Agent::start(node)?;
    let made = checkpoints(node, namespace.name(), "web", 2)?;
    policy(&namespace, "one", &keep(1))?;
    left(node, namespace.name(), &made[1..])?;
    agent.stop().map(drop)
}

#[test]
fn without_the_api_an_agent_that_starts_deletes_nothing_until_it_is_back() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let namespace = cluster().namespace("away")?;
    let node = cluster().nodes()[1];
    namespace.apply(&counting_pod("web", node, &["server"]))?;
    namespace.wait_until_running("web")?;
    policy(&namespace, "one", &keep(1))?;
    let made = checkpoints(node, namespace.name(), "web", 3)?;
    let down =
        cluster().inject(Fault::Down { machine: CONTROL_PLANE.to_owned(), daemon: Daemon::KubeApiserver })?;
    let agent = Agent::spawn(node)?;
    wait::until("the agent to say why it does nothing", DEADLINE, || {
        let troubles = agent.ready().err().map(|error| error.to_string()).unwrap_or_default();
        Ok(troubles.contains("clustercheckpointpolicies"))
    })?;
    ensure!(agent.metric("policies_known")? == 0.0, "it knows policies without the API");
    // Nothing goes that would go if it were decided about.
    ensure!(agent.metric("plans_total")? == 0.0, "it plans without knowing policies");
    left(node, namespace.name(), &made)?;
    drop(down);
    stays(&agent, node, namespace.name(), &made[2..])
}

#[test]
fn while_the_api_hangs_known_policies_are_enforced_and_orphans_are_left_alone() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let namespace = cluster().namespace("hangs")?;
    let node = cluster().nodes()[0];
    for pod in ["web", "gone"] {
        namespace.apply(&counting_pod(pod, node, &["server"]))?;
        namespace.wait_until_running(pod)?;
    }
    let agent = Agent::start(node)?;
    let orphans = json!({"action": "Delete", "when": "PodDeleted", "gracePeriod": "0s"});
    let mut spec = keep(1);
    spec["orphans"] = orphans;
    policy(&namespace, "one", &spec)?;
    let web = checkpoints(node, namespace.name(), "web", 1)?;
    let gone = checkpoints(node, namespace.name(), "gone", 1)?;
    wait::until("the policy to be known", DEADLINE, || {
        let policies = store(node)?["status"]["policies"].as_array().cloned().unwrap_or_default();
        Ok(policies.iter().any(|policy| policy["policyRef"]["namespace"] == namespace.name()))
    })?;
    let hung =
        cluster().inject(Fault::Hung { machine: CONTROL_PLANE.to_owned(), daemon: Daemon::KubeApiserver })?;
    // What is copied in needs no kubelet, which would ask the API as well.
    let newer = copies(node, &web[0], 1)?.remove(0);
    stays(&agent, node, namespace.name(), &[gone[0].clone(), newer.clone()])?;
    drop(hung);
    wait::until("the API to answer", DEADLINE, || Ok(cluster().request("GET", "/readyz")?.0 == 200))?;
    // Nobody was taken for gone; whoever is gone by now, goes.
    stays(&agent, node, namespace.name(), &[gone[0].clone(), newer.clone()])?;
    namespace.delete_pod("gone")?;
    stays(&agent, node, namespace.name(), &[newer])
}

#[test]
fn an_agent_killed_again_and_again_during_a_burst_leaves_exactly_the_newest() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let namespace = cluster().namespace("killed")?;
    let node = cluster().nodes()[1];
    namespace.apply(&counting_pod("web", node, &["server"]))?;
    namespace.wait_until_running("web")?;
    policy(&namespace, "three", &keep(3))?;
    let mut agent = Agent::start(node)?;
    let mut made = Vec::new();
    for _ in 0..8 {
        made.extend(checkpoints(node, namespace.name(), "web", 1)?);
        agent.kill()?;
        agent = Agent::spawn(node)?;
    }
    stays(&agent, node, namespace.name(), &made[made.len() - 3..])
}

#[test]
fn a_dry_run_beside_an_enforcing_policy_deletes_nothing_and_reports_the_difference() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let namespace = cluster().namespace("dryrun")?;
    let node = cluster().nodes()[0];
    let agent = Agent::start(node)?;
    namespace.apply(&counting_pod("web", node, &["server"]))?;
    namespace.wait_until_running("web")?;
    let mut dry = keep(1);
    dry["mode"] = json!("DryRun");
    policy(&namespace, "a-dry-run", &dry)?;
    policy(&namespace, "enforced", &keep(3))?;
    let made = checkpoints(node, namespace.name(), "web", 4)?;
    stays(&agent, node, namespace.name(), &made[1..])?;
    wait::until("the difference", DEADLINE, || {
        let policies = store(node)?["status"]["policies"].as_array().cloned().unwrap_or_default();
        let find = |name: &str| {
            let mut ours = policies.iter().map(|policy| (&policy["policyRef"], policy));
            let ours = ours.find(|(id, _)| id["namespace"] == namespace.name() && id["name"] == name);
            ours.map(|(_, policy)| policy).cloned().context("the policy is not in the report")
        };
        let (dry, enforced) = (find("a-dry-run")?, find("enforced")?);
        ensure!(dry["mode"] == "DryRun" && dry["dryRun"]["wouldDelete"] == 2, "{dry}");
        ensure!(enforced["archives"] == 3 && enforced["deletionPending"] == 0, "{enforced}");
        Ok(true)
    })
}

#[test]
fn a_directory_replaced_under_its_mount_ends_the_agent_with_a_clear_message() -> anyhow::Result<()> {
    let _broken = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    // As in a pod: the directory is mounted elsewhere, and removed where it was.
    node.run("sh", &["-ec", "mkdir -p /tmp/real /tmp/mounted && mount --bind /tmp/real /tmp/mounted"])?;
    let agent = Agent::spawn_in(node, "/tmp/mounted")?;
    wait::until("the agent to be ready", DEADLINE, || agent.ready().map(|()| true))?;
    node.run("rmdir", &["/tmp/real"])?;
    let (code, said) = agent.end()?;
    node.run("umount", &["/tmp/mounted"])?;
    ensure!(code == Some(1), "it ended with {code:?}");
    ensure!(said.contains("the directory was removed under its mount"), "{said}");
    Ok(())
}

fn deployment(namespace: &Namespace<'_>, node: Node<'_>) -> anyhow::Result<()> {
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": namespace.name()},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "Recreate"},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                "nodeName": node.name(), "terminationGracePeriodSeconds": 0,
                "containers": [{
                    "name": "server", "image": BUSYBOX, "imagePullPolicy": "Never",
                    "command": ["/bin/sh", "-c", "while :; do sleep 1; done"],
                }],
            }},
        },
    });
    cluster().apply(&object.to_string())
}

/// The one running pod of a Deployment, when it is another one than before.
fn pod_of(namespace: &Namespace<'_>, before: Option<&str>) -> anyhow::Result<String> {
    let path = format!("/api/v1/namespaces/{}/pods?labelSelector=app%3Dweb", namespace.name());
    let pod = wait::for_value("the Deployment's pod", DEADLINE, || {
        let pods = cluster().get(&path)?["items"].as_array().cloned().unwrap_or_default();
        let names = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let names = names.filter_map(|pod| pod["metadata"]["name"].as_str()).map(str::to_owned);
        let names: Vec<String> = names.filter(|name| Some(name.as_str()) != before).collect();
        Ok(if names.len() == 1 { names.into_iter().next() } else { None })
    })?;
    namespace.wait_until_running(&pod)?;
    Ok(pod)
}

#[test]
fn a_deployment_that_is_rolled_out_is_one_workload() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let namespace = cluster().namespace("rollout")?;
    let node = cluster().nodes()[1];
    // No policy is there while the first pod lives: what it belongs to is learned all the same.
    let agent = Agent::start(node)?;
    deployment(&namespace, node)?;
    let first = pod_of(&namespace, None)?;
    let mut made = checkpoints(node, namespace.name(), &first, 2)?;
    wait::until("the agent to have read them", DEADLINE, || {
        let namespaces = store(node)?["status"]["namespaces"].as_array().cloned().unwrap_or_default();
        Ok(namespaces.iter().any(|usage| usage["name"] == namespace.name() && usage["archives"] == 2))
    })?;
    let name = namespace.name();
    output(&mut cluster().kubectl(&["-n", name, "rollout", "restart", "deployment", "web"]))?;
    let second = pod_of(&namespace, Some(&first))?;
    made.extend(checkpoints(node, name, &second, 1)?);
    policy(&namespace, "two", &json!({"retention": {"perWorkload": {"maxCount": 2}}}))?;
    left(node, name, &made[1..])?;
    // As long as the Deployment is there, no archive of it is an orphan.
    let orphans = json!({"action": "Delete", "when": "WorkloadDeleted", "gracePeriod": "0s"});
    policy(&namespace, "two", &json!({"retention": {"perWorkload": {"maxCount": 2}}, "orphans": orphans}))?;
    let more = checkpoints(node, name, &second, 1)?;
    stays(&agent, node, name, &[made[2].clone(), more[0].clone()])?;
    output(&mut cluster().kubectl(&["-n", name, "delete", "deployment", "web"]))?;
    left(node, name, &[])
}

#[test]
fn who_makes_a_deleted_namespace_anew_neither_governs_nor_deletes_what_the_old_one_left() -> anyhow::Result<()>
{
    let _alone = NODES.write();
    install::agents()?;
    let namespace = cluster().namespace("anew")?;
    let name = namespace.name();
    let node = cluster().nodes()[0];
    let agent = Agent::start(node)?;
    namespace.apply(&counting_pod("web", node, &["server"]))?;
    namespace.wait_until_running("web")?;
    policy(&namespace, "many", &keep(10))?;
    let old = checkpoints(node, name, "web", 3)?;
    output(&mut cluster().kubectl(&["delete", "namespace", name, "--grace-period=0"]))?;
    let anew = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    cluster().apply(&anew.to_string())?;
    policy(&namespace, "one", &keep(1))?;
    let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
    wait::until("the new namespace", DEADLINE, || Ok(cluster().get(&account).is_ok()))?;
    namespace.apply(&counting_pod("web", node, &["server"]))?;
    namespace.wait_until_running("web")?;
    let new = checkpoints(node, name, "web", 2)?;
    let mut kept = old.clone();
    kept.push(new[1].clone());
    stays(&agent, node, name, &kept)
}

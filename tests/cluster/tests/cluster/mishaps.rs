//! What happens to a node, to the API and to people's manifests, with an agent on the node: afterwards exactly
//! what the policies keep is there, and nobody had to help.

use std::time::Duration;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::machine::CONTROL_PLANE;
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::{Daemon, Fault, Namespace, Node, wait};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::agents::{Agent, Applied, checkpoints, copies, keep, left, next_round, policy, stays, store};
use crate::install;
use crate::support::{DEADLINE, NODES, REPOSITORY, cluster, counting_pod, files_of, smuggle};

/// A pod of a namespace of its own that runs on a node.
fn web(prefix: &str, node: Node<'_>) -> anyhow::Result<Namespace<'static>> {
    let namespace = cluster().namespace(prefix)?;
    namespace.apply(&counting_pod("web", node, &["server"]))?;
    namespace.wait_until_running("web")?;
    Ok(namespace)
}

/// What the agent's report says about a namespace's policy.
fn reported(node: Node<'_>, namespace: &Namespace<'_>) -> anyhow::Result<Value> {
    let policies = store(node)?["status"]["policies"].as_array().cloned().unwrap_or_default();
    let ours = policies.iter().find(|policy| policy["policyRef"]["namespace"] == namespace.name());
    ours.cloned().with_context(|| format!("the report does not name the policy: {policies:?}"))
}

#[test]
fn a_node_that_boots_anew_goes_on_where_it_was() -> anyhow::Result<()> {
    let _broken = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[1];
    let namespace = web("reboot", node)?;
    policy(&namespace, "two", &keep(2))?;
    let agent = Agent::start(node)?;
    let mut made = checkpoints(node, namespace.name(), "web", 3)?;
    left(node, namespace.name(), &made[1..])?;
    let since = Timestamp::now();
    drop(cluster().inject(Fault::Off { machine: node.name().to_owned() })?);
    let (code, _) = agent.end()?;
    ensure!(code != Some(0), "the agent outlived its node");
    node.wait_until_ready(since, DEADLINE)?;
    let agent = Agent::start(node)?;
    stays(&agent, node, namespace.name(), &made[1..])?;
    // What the API says of the pod is from before; the kubelet has yet to start it again.
    wait::until("the pod to run again", DEADLINE, || {
        made.extend(checkpoints(node, namespace.name(), "web", 1)?);
        Ok(true)
    })?;
    stays(&agent, node, namespace.name(), &made[2..])
}

#[test]
fn definitions_that_are_deleted_and_applied_anew_are_found_again() -> anyhow::Result<()> {
    let _broken = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let namespace = web("crds", node)?;
    policy(&namespace, "two", &keep(2))?;
    let agent = Agent::start(node)?;
    let mut made = checkpoints(node, namespace.name(), "web", 3)?;
    left(node, namespace.name(), &made[1..])?;
    let folder = format!("{REPOSITORY}/config/crd");
    output(&mut cluster().kubectl(&["delete", "--filename", &folder, "--timeout=60s"]))?;
    // The objects went with their definition, so nothing governs these.
    made.extend(checkpoints(node, namespace.name(), "web", 2)?);
    stays(&agent, node, namespace.name(), &made[1..])?;
    output(&mut cluster().kubectl(&["apply", "--filename", &folder]))?;
    let established = ["wait", "--for=condition=Established", "--timeout=60s", "--filename", &folder];
    output(&mut cluster().kubectl(&established))?;
    // Under its old name, or what it replaces would have its say for a while.
    wait::until("the policy to be taken", DEADLINE, || policy(&namespace, "two", &keep(1)).map(|()| true))?;
    left(node, namespace.name(), &made[4..])?;
    wait::until("the agent to be ready", DEADLINE, || agent.ready().map(|()| true))
}

#[test]
fn a_policy_that_does_not_parse_keeps_all_that_it_could_govern_until_it_is_mended() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let (namespace, other) = (web("broken", node)?, web("whole", node)?);
    let agent = Agent::start(node)?;
    policy(&namespace, "limit", &keep(10))?;
    policy(&namespace, "second", &keep(1))?;
    smuggle(
        &format!("/registry/checkpoint-keeper.io/checkpointpolicies/{}/limit", namespace.name()),
        |object| {
            object["spec"]["mode"] = "Gently".into();
        },
    )?;
    policy(&other, "one", &keep(1))?;
    let made = checkpoints(node, namespace.name(), "web", 3)?;
    let theirs = checkpoints(node, other.name(), "web", 2)?;
    // Another namespace's are collected as ever, and here also the policy that does parse takes nothing.
    left(node, other.name(), &theirs[1..])?;
    stays(&agent, node, namespace.name(), &made)?;
    let page = agent.page("metrics")?;
    ensure!(page.contains("verdicts{reason=\"PolicyInvalid\"} 3\n"), "{page}");
    // What does not parse has to be named: what an apply leaves out, it leaves as it is.
    let mut mended = keep(2);
    mended["mode"] = "Enforce".into();
    policy(&namespace, "limit", &mended)?;
    left(node, namespace.name(), &made[1..])
}

#[test]
fn by_a_clock_that_is_off_no_rule_by_time_acts_and_every_other_does() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let (aged, counted) = (web("aged", node)?, web("counted", node)?);
    let old = checkpoints(node, aged.name(), "web", 3)?;
    let surplus = checkpoints(node, counted.name(), "web", 3)?;
    let agent = Agent::spawn_by_clock(node, "+40d")?;
    policy(&aged, "month", &json!({"retention": {"maxAge": "30d", "keepLatest": 0}}))?;
    policy(&counted, "one", &keep(1))?;
    left(node, counted.name(), &surplus[2..])?;
    stays(&agent, node, aged.name(), &old)?;
    let suspected = agent.page("metrics")?;
    ensure!(suspected.contains("verdicts{reason=\"ClockSuspect\"} 3\n"), "{suspected}");
    // By the right clock they are minutes old; and nothing that the wrong one said is remembered.
    agent.stop()?;
    let agent = Agent::start(node)?;
    stays(&agent, node, aged.name(), &old)?;
    policy(&aged, "month", &json!({"retention": {"maxAge": "1s", "keepLatest": 1}}))?;
    stays(&agent, node, aged.name(), &old[2..])
}

/// Set while the agent works, and set right again: nothing goes by a time that is none, and nothing is
/// remembered of it.
#[test]
fn a_clock_that_steps_pauses_the_rules_by_time_until_it_is_right_again() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[1];
    let (aged, counted) = (web("stepped", node)?, web("unmoved", node)?);
    let old = checkpoints(node, aged.name(), "web", 3)?;
    let agent = Agent::spawn_by_clock(node, "+0")?;
    policy(&aged, "month", &json!({"retention": {"maxAge": "30d", "keepLatest": 0}}))?;
    policy(&counted, "one", &keep(1))?;
    let suspected = |expected: bool| {
        wait::until("the clock's verdicts", DEADLINE, || {
            let page = agent.page("metrics")?;
            Ok(page.contains("verdicts{reason=\"ClockSuspect\"} 3\n") == expected)
        })
    };
    next_round(&agent)?;
    suspected(false)?;
    node.set_clock("+40d")?;
    suspected(true)?;
    let surplus = checkpoints(node, counted.name(), "web", 2)?;
    left(node, counted.name(), &surplus[1..])?;
    node.set_clock("-40d")?;
    stays(&agent, node, aged.name(), &old)?;
    node.set_clock("+0")?;
    suspected(false)?;
    stays(&agent, node, aged.name(), &old)?;
    policy(&aged, "month", &json!({"retention": {"maxAge": "1s", "keepLatest": 1}}))?;
    left(node, aged.name(), &old[2..])?;
    left(node, counted.name(), &surplus[1..])
}

#[test]
fn a_full_disk_does_not_stop_the_agent_and_what_it_cut_off_goes_by_its_rule() -> anyhow::Result<()> {
    let _broken = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[1];
    let namespace = web("full", node)?;
    let made = checkpoints(node, namespace.name(), "web", 3)?;
    let size = std::fs::metadata(node.checkpoints().join(&made[0]))?.len();
    let full =
        cluster().inject(Fault::DiskFull { node: node.name().to_owned(), free_kib: size / 2 / 1024 })?;
    let answer = node.checkpoint(namespace.name(), "web", "server")?;
    ensure!(answer.status == 500, "{answer:?}");
    let files = files_of(node, namespace.name())?;
    let cut = files.iter().find(|file| !made.contains(file)).context("the kubelet left nothing behind")?;
    let agent = Agent::start(node)?;
    policy(&namespace, "two", &keep(2))?;
    // By default what was cut off stays, and displaces nothing that is whole.
    stays(&agent, node, namespace.name(), &[made[1].clone(), made[2].clone(), cut.clone()])?;
    let page = agent.page("metrics")?;
    ensure!(page.contains("checkpoint_keeper_archives_incomplete 1"), "{page}");
    // Whose it is went with its end, so only a policy of the cluster for everything governs it.
    let cut_off = json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "ClusterCheckpointPolicy", "metadata": {"name": "cut-off"},
        "spec": {"incomplete": {"action": "Delete", "gracePeriod": "1s"}},
    });
    let _cut_off = Applied::new("/apis/checkpoint-keeper.io/v1alpha1/clustercheckpointpolicies", &cut_off)?;
    left(node, namespace.name(), &made[1..])?;
    drop(full);
    let more = checkpoints(node, namespace.name(), "web", 1)?;
    left(node, namespace.name(), &[made[2].clone(), more[0].clone()])
}

#[test]
fn while_the_api_answers_errors_known_policies_are_enforced_and_afterwards_all_is_well() -> anyhow::Result<()>
{
    let _broken = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let namespace = web("errors", node)?;
    policy(&namespace, "two", &keep(2))?;
    let agent = Agent::start(node)?;
    let made = checkpoints(node, namespace.name(), "web", 2)?;
    wait::until("the policy to be known", DEADLINE, || reported(node, &namespace).map(|_| true))?;
    // Without its store the API server answers, and what it answers are errors.
    let down = cluster().inject(Fault::Down { machine: CONTROL_PLANE.to_owned(), daemon: Daemon::Etcd })?;
    wait::until("the API server to answer errors", DEADLINE, || {
        Ok(cluster().request("GET", "/readyz")?.0 >= 500)
    })?;
    let newer = copies(node, &made[1], 2)?;
    stays(&agent, node, namespace.name(), &newer)?;
    drop(down);
    wait::until("the API to be back", DEADLINE, || {
        Ok(cluster().request("GET", "/api/v1/namespaces/default")?.0 == 200)
    })?;
    wait::until("a policy to be taken", DEADLINE, || policy(&namespace, "two", &keep(1)).map(|()| true))?;
    left(node, namespace.name(), &newer[1..])?;
    wait::until("the agent to be ready", DEADLINE, || agent.ready().map(|()| true))
}

#[test]
fn a_limit_mistyped_and_mended_costs_at_most_the_bucket() -> anyhow::Result<()> {
    const MANY: usize = 30;
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let namespace = web("typo", node)?;
    let mut all = checkpoints(node, namespace.name(), "web", 1)?;
    all.extend(copies(node, &all[0], MANY - 1)?);
    // All of them were there before, so none of them pays for another.
    let _agent = Agent::start(node)?;
    policy(&namespace, "limit", &keep(100))?;
    wait::until("the policy to be known", DEADLINE, || {
        Ok(reported(node, &namespace)?["archives"].as_u64() == Some(MANY as u64))
    })?;
    policy(&namespace, "limit", &keep(1))?;
    // At least one goes, and the rest waits and says so.
    wait::until("the typo to be noticed", DEADLINE, || {
        let here = files_of(node, namespace.name())?.len();
        let pending = reported(node, &namespace)?["deletionPending"].as_u64().unwrap_or_default();
        ensure!(here < MANY && pending > 0, "{here} are here, {pending} wait");
        Ok(true)
    })?;
    policy(&namespace, "limit", &keep(100))?;
    wait::until("nothing to wait any more", DEADLINE, || {
        Ok(reported(node, &namespace)?["deletionPending"] == 0)
    })?;
    let here = files_of(node, namespace.name())?;
    ensure!(here.len() >= MANY - 10, "only {} of {MANY} are left", here.len());
    ensure!(here.contains(&all[MANY - 1]), "the newest is gone");
    Ok(())
}

#[test]
fn a_policy_deleted_in_the_middle_of_its_work_takes_nothing_more() -> anyhow::Result<()> {
    const MANY: usize = 30;
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[1];
    let namespace = web("middle", node)?;
    let mut all = checkpoints(node, namespace.name(), "web", 1)?;
    all.extend(copies(node, &all[0], MANY - 1)?);
    let agent = Agent::start(node)?;
    policy(&namespace, "one", &keep(1))?;
    wait::until("the first to go", DEADLINE, || Ok(files_of(node, namespace.name())?.len() < MANY))?;
    let path =
        format!("/apis/checkpoint-keeper.io/v1alpha1/namespaces/{}/checkpointpolicies/one", namespace.name());
    ensure!(cluster().request("DELETE", &path)?.0 == 200, "it could not be deleted");
    wait::until("the agent to know", Duration::from_secs(10), || Ok(reported(node, &namespace).is_err()))?;
    let here = files_of(node, namespace.name())?;
    stays(&agent, node, namespace.name(), &here)?;
    ensure!(here.len() > 1, "all went before the policy was deleted");
    Ok(())
}

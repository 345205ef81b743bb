//! What users asked for through the API outlives a restart of the API server: holds and quotas. A server that is killed
//! answers nobody, and everything that watched it has to begin anew.

use anyhow::ensure;
use checkpoint_keeper_testcluster::machine::CONTROL_PLANE;
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::{Daemon, Fault, wait};
use serde_json::json;

use crate::agents::{Agent, CATALOG, checkpoints, keep, left, next_round, policy, stays, store};
use crate::controller::Replica;
use crate::install;
use crate::inventory::{
    discard, discard_in_store, discarded, has_marker, held, hold, marker, shown, with_pod,
};
use crate::quota::{counted, quota};
use crate::schedules::{archives, schedule};
use crate::support::{DEADLINE, NODES, checkpoint_alone, cluster, empty, files_of};

fn down() -> Fault {
    Fault::Down { machine: CONTROL_PLANE.to_owned(), daemon: Daemon::KubeApiserver }
}

fn wait_until_gone() -> anyhow::Result<()> {
    wait::until("the API server to be gone", DEADLINE, || Ok(cluster().request("GET", "/readyz").is_err()))
}

#[test]
fn a_hold_outlives_a_restart_of_the_api_server_and_a_new_one_is_carried_out_right_after() -> anyhow::Result<()>
{
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    empty(node)?;
    let agent = Agent::start(node)?;
    let namespace = with_pod("restart", node)?;
    let of = namespace.name();
    let files = checkpoints(node, of, "app", 4)?;
    let first = &files[0];
    let objects = shown(of, &files)?;
    hold(of, &objects[first], "incident 4711")?;
    let before = held(of, first, "True", "Held")?;
    policy(&namespace, "two", &keep(2))?;
    // Beside what is held, which counts, the newest.
    let kept = [first.clone(), marker(first), files[3].clone()];
    left(node, of, &kept)?;

    let fault = cluster().inject(down())?;
    wait_until_gone()?;
    // A person at the node pins what is held already.
    node.run("touch", &[&format!("{}/{}", node.directory(), marker(first))])?;
    stays(&agent, node, of, &kept)?;
    let recovery = fault.mend()?;
    cluster().wait_until_answering()?;
    let newest = &files[3];
    hold(of, &objects[newest], "incident 4712")?;
    held(of, newest, "True", "Held")?;
    ensure!(has_marker(node, newest), "it is said to be held, and is not");
    let after = held(of, first, "True", "Held")?;
    for field in ["uid", "generation"] {
        let of = |object: &serde_json::Value| object["metadata"][field].clone();
        ensure!(of(&before) == of(&after), "the object was made anew or changed: {before} {after}");
    }
    ensure!(after["spec"]["hold"]["reason"] == "incident 4711", "{after}");

    // One that is killed in the moment after it has accepted a hold.
    let third = checkpoint_alone(node, of, "app", "server")?;
    let kept = [first, newest, &third].map(Clone::clone);
    let objects = shown(of, &kept)?;
    hold(of, &objects[&third], "incident 4713")?;
    drop(recovery);
    let _recovery = cluster().kill(CONTROL_PLANE, Daemon::KubeApiserver)?;
    cluster().wait_until_answering()?;
    held(of, &third, "True", "Held")?;
    let fourth = checkpoint_alone(node, of, "app", "server")?;
    let held = [first, newest, &third].into_iter().flat_map(|file| [file.clone(), marker(file)]);
    stays(&agent, node, of, &held.chain([fourth]).collect::<Vec<_>>())?;
    agent.stop().map(drop)
}

/// An agent that is killed before it learns of the requests, an API server that is killed right after it took them, and a
/// state directory that is lost after they were carried out.
#[test]
fn a_discard_is_carried_out_by_whoever_comes_after_a_restart_and_never_again() -> anyhow::Result<()> {
    const LOST: &str = "checkpoint-lost.tar";
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    empty(node)?;
    let agent = Agent::start(node)?;
    let namespace = with_pod("discard-restart", node)?;
    let of = namespace.name();
    let files = checkpoints(node, of, "app", 2)?;
    let objects = shown(of, &files)?;
    // The file of nobody, which no object stands for.
    let lost = format!("{}/{LOST}", node.directory());
    let write_lost =
        || node.run("sh", &["-c", &format!("echo of nobody > {lost} && touch --date '1 hour ago' {lost}")]);
    let is_lost_there = || node.run("test", &["-e", &lost]).is_ok();
    write_lost()?;
    agent.kill()?;

    discard(of, &objects[&files[0]], "a leaked key")?;
    discard_in_store(node, &[LOST])?;
    let _recovery = cluster().kill(CONTROL_PLANE, Daemon::KubeApiserver)?;
    ensure!(is_lost_there() && files_of(node, of)? == files, "nobody was there to delete anything");
    let agent = Agent::spawn(node)?;
    cluster().wait_until_answering()?;
    left(node, of, &files[1..])?;
    let deleted_at = discarded(node, LOST, "Deleted")?;
    ensure!(!is_lost_there(), "it is said to be deleted, and is there");

    // Whatever comes later under that name was not meant, also by an agent that remembers nothing.
    write_lost()?;
    agent.stop()?;
    node.run("sh", &["-c", &format!("rm -f -- {CATALOG}*")])?;
    let agent = Agent::start(node)?;
    stays(&agent, node, of, &files[1..])?;
    ensure!(is_lost_there(), "a file was deleted for a request that was carried out before");
    ensure!(discarded(node, LOST, "Deleted")? == deleted_at, "it is said to be deleted anew");
    discard_in_store(node, &[])?;
    agent.stop()?;
    node.run("rm", &[&lost]).map(drop)
}

/// The API server, the controller and the agent are killed one after the other, while a schedule wants more than the quota
/// lets it have.
#[test]
fn a_quota_binds_across_a_restart_of_everything_that_knows_of_it() -> anyhow::Result<()> {
    const REFUSED: &str = r#"checkpoint_requests_total{trigger="Interval",result="QuotaExceeded"}"#;
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let namespace = with_pod("quota-restart", node)?;
    let name = namespace.name();
    let replica = Replica::start(name, "one", 9466)?;
    let agent = Agent::start(node)?;
    quota(&namespace, &json!({"hard": {"count": 1}}))?;
    counted(&namespace, 0)?;
    schedule(name, "often", &json!({"triggers": {"interval": "2s"}}))?;
    let made = archives(node, name, 1)?;
    // Each refusal is counted: that none was made is then no accident.
    let refused = |agent: &Agent<'_>, made: &[String]| -> anyhow::Result<()> {
        let begin = agent.metric(REFUSED).unwrap_or(0.0);
        wait::until("checkpoints to be refused", DEADLINE, || Ok(agent.metric(REFUSED)? >= begin + 2.0))?;
        let here = files_of(node, name)?;
        ensure!(here == made, "the quota is full, and all the same there is more: {here:?}");
        Ok(())
    };
    refused(&agent, &made)?;

    let fault = cluster().inject(down())?;
    wait_until_gone()?;
    // Four plans.
    stays(&agent, node, name, &made)?;
    stays(&agent, node, name, &made)?;
    replica.kill()?;
    agent.kill()?;
    let agent = Agent::spawn(node)?;
    wait::until("the new agent to say what it lacks", DEADLINE, || {
        let lacks = agent.ready().err().map(|error| error.to_string()).unwrap_or_default();
        Ok(lacks.contains("clustercheckpointpolicies"))
    })?;
    ensure!(files_of(node, name)? == made, "an agent that knows no schedule made a checkpoint");
    let _recovery = fault.mend()?;
    // Without any controller the quota's last status counts, and what the agent finds on its own disk.
    refused(&agent, &made)?;
    let replica = Replica::start(name, "two", 9466)?;
    counted(&namespace, 1)?;

    // What is used is right: there is room for exactly one more.
    quota(&namespace, &json!({"hard": {"count": 2}}))?;
    let made = archives(node, name, 2)?;
    ensure!(made.len() == 2, "{made:?}");
    counted(&namespace, 2)?;
    refused(&agent, &made)?;
    agent.stop()?;
    replica.stop().map(drop)
}

/// etcd as it was before, whose revisions begin anew where the copy was made: watches that are opened at a later one say
/// nothing, and no error.
#[test]
fn after_a_restore_of_etcd_nothing_goes_by_a_policy_that_is_no_more() -> anyhow::Result<()> {
    const DATA: &str = "/cluster/machine/disk/etcd";
    /// Further than a cluster at rest gets while this test runs.
    const LATER_WRITES: usize = 300;
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    empty(node)?;
    let agent = Agent::start(node)?;
    let namespace = with_pod("restore", node)?;
    let of = namespace.name();
    policy(&namespace, "some", &keep(3))?;
    let first = checkpoint_alone(node, of, "app", "server")?;
    let etcd = || cluster().inject(Fault::Down { machine: CONTROL_PLANE.to_owned(), daemon: Daemon::Etcd });
    let on_control_plane = |script: String| {
        output(cluster().command(CONTROL_PLANE, "/bin/sh")?.args(["-ec", &script])).map(drop)
    };
    let stopped = etcd()?;
    on_control_plane(format!("rm -rf {DATA}.copy && cp -a {DATA} {DATA}.copy"))?;
    drop(stopped);
    // What is lost: that only one is to stay.
    policy(&namespace, "some", &keep(1))?;
    wait::until("the agent to go by the new policy", DEADLINE, || {
        let policies = store(node)?["status"]["policies"].as_array().cloned().unwrap_or_default();
        let is_it =
            |policy: &serde_json::Value| policy["policyRef"]["namespace"] == of && policy["generation"] == 2;
        Ok(policies.iter().any(is_it))
    })?;
    let path = format!("/api/v1/namespaces/{of}");
    for number in 0..LATER_WRITES {
        let change = json!({"metadata": {"annotations": {"number": number.to_string()}}});
        cluster().administrator().merge(&path, &change)?;
    }
    let server = cluster().inject(down())?;
    let stopped = etcd()?;
    on_control_plane(format!("rm -rf {DATA} && mv {DATA}.copy {DATA}"))?;
    let _recovery = (stopped.mend()?, server.mend()?);
    cluster().wait_until_answering()?;
    let path = format!("/apis/checkpoint-keeper.io/v1alpha1/namespaces/{of}/checkpointpolicies/some");
    ensure!(cluster().get(&path)?["metadata"]["generation"] == 1, "nothing was restored");
    // What was made after the restore is of a version before the last that the agent saw.
    policy(&namespace, "later", &keep(5))?;
    let knows = |name: &str| {
        let policies = store(node)?["status"]["policies"].as_array().cloned().unwrap_or_default();
        let is_it = |policy: &serde_json::Value| {
            policy["policyRef"]["namespace"] == of && policy["policyRef"]["name"] == name
        };
        Ok(policies.iter().any(is_it))
    };
    wait::until("the agent to see what is there now", DEADLINE, || knows("later"))?;
    for _ in 0..2 {
        wait::until("the kubelet to make another", DEADLINE, || {
            checkpoint_alone(node, of, "app", "server").map(|_| true)
        })?;
    }
    next_round(&agent)?;
    let here = files_of(node, of)?;
    ensure!(here.len() == 3 && here.contains(&first), "the agent goes by a policy that is no more: {here:?}");
    agent.stop().map(drop)
}

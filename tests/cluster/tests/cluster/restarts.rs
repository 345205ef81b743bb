//! What users asked for through the API outlives a restart of the API server: holds and quotas. A server that is killed
//! answers nobody, and everything that watched it has to begin anew.

use anyhow::ensure;
use checkpoint_keeper_testcluster::machine::CONTROL_PLANE;
use checkpoint_keeper_testcluster::{Daemon, Fault, wait};
use jiff::Timestamp;
use serde_json::json;

use crate::agents::{Agent, checkpoints, keep, left, next_round, policy, stays};
use crate::controller::Replica;
use crate::install;
use crate::inventory::{has_marker, held, hold, marker, shown, with_pod};
use crate::quota::{counted, quota};
use crate::schedules::{archives, schedule};
use crate::support::{DEADLINE, NODES, checkpoint_alone, cluster, counting_pod, empty, files_of};

fn down() -> Fault {
    Fault::Down { machine: CONTROL_PLANE.to_owned(), daemon: Daemon::KubeApiserver }
}

fn wait_until_gone() -> anyhow::Result<()> {
    wait::until("the API server to be gone", DEADLINE, || Ok(cluster().request("GET", "/readyz").is_err()))
}

fn wait_until_back() -> anyhow::Result<()> {
    let is_ready = || Ok(cluster().request("GET", "/readyz").is_ok_and(|(status, _)| status == 200));
    wait::until("the API server to be back", DEADLINE, is_ready)
}

/// Waits until the nodes have found the API server again, so that the next test finds them whole.
fn wait_until_nodes_are_back() -> anyhow::Result<()> {
    wait_until_back()?;
    cluster().nodes().into_iter().try_for_each(|node| node.wait_until_ready(Timestamp::now(), DEADLINE))
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
    drop(fault);
    wait_until_back()?;
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
    cluster().kill(CONTROL_PLANE, Daemon::KubeApiserver)?;
    wait_until_back()?;
    held(of, &third, "True", "Held")?;
    let fourth = checkpoint_alone(node, of, "app", "server")?;
    let held = [first, newest, &third].into_iter().flat_map(|file| [file.clone(), marker(file)]);
    stays(&agent, node, of, &held.chain([fourth]).collect::<Vec<_>>())?;
    agent.stop()?;
    wait_until_nodes_are_back()
}

/// An interval goes on without the API: the agent knows the schedule, and it knows the quota as well.
#[test]
fn a_quota_rejects_while_the_api_server_is_down_and_after_it_is_back() -> anyhow::Result<()> {
    const REJECTED: &str = r#"checkpoint_requests_total{trigger="Interval",result="QuotaExceeded"}"#;
    let _alone = NODES.write();
    install::agents()?;
    let node = cluster().nodes()[0];
    let namespace = cluster().namespace("quota-restart")?;
    let name = namespace.name();
    let replica = Replica::start(name, "one", 9466)?;
    let agent = Agent::start(node)?;
    namespace.apply(&counting_pod("web", node, &["app"]))?;
    namespace.wait_until_running("web")?;
    quota(&namespace, &json!({"hard": {"count": 1}}))?;
    counted(&namespace, 0)?;
    schedule(name, "often", &json!({"triggers": {"interval": "2s"}}))?;
    let made = archives(node, name, 1)?;
    ensure!(made.len() == 1, "{made:?}");
    // Each refusal is counted: that none was made is then no accident.
    let refused = || agent.metric(REJECTED);
    let refused_again = |what: &str| -> anyhow::Result<()> {
        let begin = refused().unwrap_or(0.0);
        wait::until(what, DEADLINE, || Ok(refused()? >= begin + 2.0))?;
        let here = files_of(node, name)?;
        ensure!(here == made, "{what}, and all the same there is more: {here:?}");
        Ok(())
    };
    refused_again("the quota to be full")?;
    let fault = cluster().inject(down())?;
    wait_until_gone()?;
    refused_again("requests to be refused without the API server")?;
    drop(fault);
    wait_until_back()?;
    refused_again("requests to be refused once it is back")?;
    next_round(&agent)?;
    counted(&namespace, 1)?;
    wait::until("the event that says why", DEADLINE, || {
        let events = namespace.events()?;
        ensure!(events.contains("QuotaExceeded") && events.contains("1 of 1 archives are there"), "{events}");
        Ok(true)
    })?;
    // An agent that begins while the server is away knows no schedule, and makes none either.
    let fault = cluster().inject(down())?;
    wait_until_gone()?;
    agent.kill()?;
    let agent = Agent::spawn(node)?;
    wait::until("the new agent to say what it lacks", DEADLINE, || {
        let lacks = agent.ready().err().map(|error| error.to_string()).unwrap_or_default();
        Ok(lacks.contains("clustercheckpointpolicies"))
    })?;
    ensure!(files_of(node, name)? == made, "more was made without the API");
    drop(fault);
    wait_until_back()?;
    let is_refused = || Ok(agent.metric(REJECTED).is_ok_and(|count| count >= 2.0));
    wait::until("the new agent to refuse as well", DEADLINE, is_refused)?;
    ensure!(files_of(node, name)? == made, "more was made by the new agent");
    agent.stop()?;
    replica.stop()?;
    wait_until_nodes_are_back()
}

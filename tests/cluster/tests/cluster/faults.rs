//! That each fault does what its name says, and is gone when it is undone: tests that build on a fault
//! which does nothing would prove nothing.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use checkpoint_keeper_testcluster::{Daemon, Fault, process, wait};
use jiff::Timestamp;

use crate::support::{DEADLINE, NODES, cluster, counting_pod, files_of, pod};

const CONTROL_PLANE: &str = checkpoint_keeper_testcluster::machine::CONTROL_PLANE;

fn api_answers() -> anyhow::Result<bool> {
    Ok(cluster().get("/readyz?verbose").is_ok() || cluster().request("GET", "/readyz")?.0 == 200)
}

#[test]
fn a_daemon_that_is_down_stays_down_until_it_is_undone() -> anyhow::Result<()> {
    let _broken = NODES.write();
    let fault = Fault::Down { machine: CONTROL_PLANE.to_owned(), daemon: Daemon::KubeApiserver };
    let down = cluster().inject(fault)?;
    let is_gone = || Ok(cluster().request("GET", "/readyz").is_err());
    wait::until("the API server to be gone", DEADLINE, is_gone)?;
    // Far longer than what starts daemons anew takes to do so.
    let end = Instant::now() + Duration::from_secs(5);
    wait::until("five seconds to pass", DEADLINE, || {
        ensure!(
            cluster().request("GET", "/readyz").is_err() || Instant::now() >= end,
            "it is back by itself"
        );
        Ok(Instant::now() >= end)
    })?;
    ensure!(is_gone()?, "it is back by itself");
    drop(down);
    ensure!(api_answers()?, "it is not back");
    // So does what gives new namespaces their accounts, which nobody but the guard has waited for.
    let begin = Instant::now();
    cluster().namespace("back")?;
    let took = begin.elapsed();
    ensure!(took < Duration::from_secs(5), "a namespace took {took:?}");
    Ok(())
}

#[test]
fn a_daemon_that_is_killed_comes_back_by_itself() -> anyhow::Result<()> {
    let _broken = NODES.write();
    for node in cluster().nodes() {
        let before = node.run("cat", &["/run/cluster/kubelet.pid"])?;
        let _recovery = cluster().kill(node.name(), Daemon::Kubelet)?;
        wait::until("another kubelet", DEADLINE, || {
            Ok(node.run("cat", &["/run/cluster/kubelet.pid"])? != before)
        })?;
        node.wait_until_ready(Timestamp::now(), DEADLINE)?;
    }
    Ok(())
}

#[test]
fn a_daemon_that_hangs_keeps_its_connections_and_answers_nobody() -> anyhow::Result<()> {
    let _broken = NODES.write();
    let node = cluster().nodes()[0];
    let (daemon, question) = (node.runtime().daemon(), node.runtime().question());
    let hung = cluster().inject(Fault::Hung { machine: node.name().to_owned(), daemon })?;
    let asked = node.command("timeout")?.arg("2").args(&question).output()?;
    ensure!(asked.status.code() == Some(124), "a hung {daemon} answered: {asked:?}");
    drop(hung);
    node.run("timeout", &[&["20"][..], &question].concat()).map(drop)
}

#[test]
fn a_node_that_is_cut_off_is_not_ready_until_its_cable_is_back() -> anyhow::Result<()> {
    let _broken = NODES.write();
    let node = cluster().nodes()[1];
    let path = format!("/api/v1/nodes/{}", node.name());
    let cut = cluster().inject(Fault::Cut { node: node.name().to_owned() })?;
    wait::until("the node to be missed", DEADLINE, || {
        let conditions =
            cluster().get(&path)?["status"]["conditions"].as_array().cloned().unwrap_or_default();
        Ok(conditions
            .iter()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "Unknown"))
    })?;
    drop(cut);
    node.wait_until_ready(Timestamp::now(), DEADLINE)
}

#[test]
fn pods_can_be_kept_from_the_api_server() -> anyhow::Result<()> {
    let _broken = NODES.write();
    let namespace = cluster().namespace("blocked")?;
    for node in cluster().nodes() {
        let name = format!("asks-{}", node.name());
        namespace.apply(&pod(&name, node, &["asks"], "sleep 100000"))?;
        namespace.wait_until_running(&name)?;
        let asks = || {
            let exec = ["-n", namespace.name(), "exec", &name, "--"];
            let ask = ["sh", "-c", "nc -w 2 10.96.0.1 443 </dev/null && echo yes || echo no"];
            let told = process::output(&mut cluster().kubectl(&[&exec[..], &ask].concat()))?;
            match told.trim() {
                "yes" => anyhow::Ok(true),
                "no" => Ok(false),
                other => bail!("the pod could not be asked: {other}"),
            }
        };
        wait::until("the pod to reach the API server", DEADLINE, asks)?;
        let blocked = cluster().inject(Fault::Blocked { node: node.name().to_owned() })?;
        ensure!(!asks()?, "the pod reaches the API server all the same");
        // The kubelet does: `exec` went through it, and its heartbeats go on.
        node.wait_until_ready(Timestamp::now(), DEADLINE)?;
        drop(blocked);
        wait::until("the pod to reach the API server again", DEADLINE, asks)?;
    }
    Ok(())
}

#[test]
fn a_node_that_was_powered_off_boots_with_its_archives() -> anyhow::Result<()> {
    let _broken = NODES.write();
    let namespace = cluster().namespace("off")?;
    for node in cluster().nodes() {
        let name = format!("web-{}", node.name());
        namespace.apply(&counting_pod(&name, node, &["server"]))?;
        namespace.wait_until_running(&name)?;
        let before = node.containers(namespace.name(), &name)?.remove(0);
        let file = node.checkpoint(namespace.name(), &name, "server")?.file()?;
        let off = cluster().inject(Fault::Off { machine: node.name().to_owned() })?;
        ensure!(node.run("true", &[]).is_err(), "a machine that is off runs programs");
        drop(off);
        node.wait_until_ready(Timestamp::now(), DEADLINE)?;
        ensure!(files_of(node, namespace.name())?.contains(&file), "the archive did not survive");
        wait::until("the container to run again", DEADLINE, || {
            let now = node.containers(namespace.name(), &name)?;
            Ok(now.first().is_some_and(|now| now.id != before.id))
        })?;
        wait::until("the container to be dumped again", DEADLINE, || {
            Ok(node.checkpoint(namespace.name(), &name, "server")?.status == 200)
        })?;
    }
    Ok(())
}

#[test]
fn a_frozen_container_stands_still() -> anyhow::Result<()> {
    let _whole = NODES.read();
    let namespace = cluster().namespace("frozen")?;
    for node in cluster().nodes() {
        let name = format!("counts-{}", node.name());
        namespace.apply(&pod(&name, node, &["counts"], "while :; do date +%s%N >/tmp/n; done"))?;
        namespace.wait_until_running(&name)?;
        let container = node.containers(namespace.name(), &name)?.remove(0);
        // Read from the node: a frozen container runs no command.
        let file = format!("{}/tmp/n", node.root_of(&container)?);
        let read = || node.run("cat", &[&file]);
        let counts = || {
            let before = read()?;
            wait::until("the container to count", Duration::from_secs(2), || Ok(read()? != before))
        };
        wait::until("the container to begin", DEADLINE, || Ok(read().is_ok()))?;
        counts()?;
        let fault = Fault::Frozen { node: node.name().to_owned(), container: container.id.clone() };
        let frozen = cluster().inject(fault)?;
        ensure!(counts().is_err(), "it counts while it is frozen");
        drop(frozen);
        counts()?;
    }
    Ok(())
}

#[test]
fn a_program_can_be_shown_another_time() -> anyhow::Result<()> {
    let _whole = NODES.read();
    for node in cluster().nodes() {
        let mut command = node.command_by_clock("date", "+30d")?;
        let shown = checkpoint_keeper_testcluster::process::output(command.args(["--utc", "+%s"]))?;
        let ahead = shown.trim().parse::<i64>()? - Timestamp::now().as_second();
        ensure!((ahead - 30 * 24 * 3600).abs() < 60, "{ahead} s ahead");
    }
    Ok(())
}

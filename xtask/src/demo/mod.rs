//! `cargo xtask demo`: a real cluster, the chart, a small workload that is checkpointed on a schedule, and a policy; and what
//! `kubectl checkpoints` says of it all. It shows each command before it runs it, so that a recording can be made of it, and
//! fails where something does not come about.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use checkpoint_keeper_api::ContainerCheckpoint;
use checkpoint_keeper_testcluster::paths::Cache;
use checkpoint_keeper_testcluster::tools::Tools;
use checkpoint_keeper_testcluster::{Cluster, wait};
use clap::Args;

use crate::cluster::Up;
use crate::image::{self, Architecture, Program};
use crate::repository::repository;

/// The cluster's name, so that it meets no other.
const NAME: &str = "demo";

/// Our kinds in the API.
const API: &str = "/apis/checkpoint-keeper.io/v1alpha1";

/// How long anything may take to come about. A pod of the chart may be restarted in it.
const DEADLINE: Duration = Duration::from_mins(2);

/// What is applied, under the names that the commands say.
const MANIFESTS: [(&str, &str); 3] = [
    ("shop.yaml", include_str!("shop.yaml")),
    ("schedule.yaml", include_str!("schedule.yaml")),
    ("policy.yaml", include_str!("policy.yaml")),
];

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Leave the cluster up at the end, to go on by hand; `cargo xtask cluster down --name demo` ends it
    #[arg(long)]
    keep: bool,
    /// Wait so many seconds before each command, for people who read along
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    pause: u64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let archive = image::build_archive()?;
    let plugin = image::build(Program::Plugin, Architecture::Amd64)?;
    let tools = Tools::provide(&Cache::of_user()?)?;
    eprintln!("A cluster of two nodes begins …");
    let up = if arguments.keep { Up::and_stay(NAME)? } else { Up::new(NAME, &[])? };
    let cluster = &up.cluster;
    cluster.load(&archive)?;
    let stage = Stage::new(cluster, &plugin, &tools.helm(), Duration::from_secs(arguments.pause))?;
    play(&stage)?;
    if arguments.keep {
        println!("\nThe cluster is up: export KUBECONFIG={}", cluster.state().kubeconfig().display());
    } else {
        println!("\nThat was it: the cluster is taken down.");
    }
    Ok(())
}

fn play(stage: &Stage<'_>) -> anyhow::Result<()> {
    say("checkpoint-keeper is installed with helm");
    stage.run("kubectl create namespace checkpoint-keeper")?;
    stage.run("kubectl label namespace checkpoint-keeper pod-security.kubernetes.io/enforce=privileged")?;
    stage.run(
        "helm install checkpoint-keeper ./chart --namespace checkpoint-keeper --wait --timeout 2m --hide-notes",
    )?;
    stage.run("kubectl checkpoints doctor")?;

    say("A small workload, and a schedule that has checkpoints made of it");
    stage.run("kubectl apply -f shop.yaml")?;
    stage.run("kubectl --namespace shop rollout status deployment/web")?;
    stage.run("cat schedule.yaml")?;
    stage.run("kubectl apply -f schedule.yaml")?;
    stage.until("five checkpoints", || Ok(stage.checkpoints()?.len() >= 5))?;
    stage.run("kubectl checkpoints list --namespace shop")?;

    say("A developer wants the last three. A policy says so; first it only tells what it would do");
    stage.run("cat policy.yaml")?;
    stage.run("kubectl apply -f policy.yaml")?;
    stage.run("kubectl checkpoints plan --filename policy.yaml")?;

    let oldest = stage.checkpoints()?.into_iter().next().context("there is no checkpoint")?;
    say("The oldest one is evidence: it stays, whatever policies say");
    stage.run(&format!("kubectl checkpoints pin {oldest} --namespace shop --reason incident-4711"))?;

    say("The policy is enforced. New checkpoints come, and old ones go");
    stage.run(
        r#"kubectl --namespace shop patch checkpointpolicy last-three --type merge --patch '{"spec": {"mode": "Enforce"}}'"#,
    )?;
    let before: BTreeSet<String> = stage.checkpoints()?.into_iter().collect();
    stage.until("the deletion of old checkpoints", || {
        let now = stage.checkpoints()?;
        let gone = before.iter().filter(|name| !now.contains(name)).count();
        // The newest is beside the three for the moment that its arrival takes to be looked at.
        Ok(gone >= 2 && now.len() <= 5 && now.contains(&oldest))
    })?;
    stage.run("kubectl checkpoints list --namespace shop")?;

    say("Why they went is an event of the policy. Why one stays, explain says");
    let events = "kubectl --namespace shop get events --field-selector reason=MaxCountPerContainer";
    stage.until("an event about the deletions", || {
        Ok(String::from_utf8_lossy(&stage.command(events).output()?.stdout).contains("last-three"))
    })?;
    stage.run(&format!("{events} --output custom-columns=OBJECT:.involvedObject.name,MESSAGE:.message"))?;
    stage.run(&format!("kubectl checkpoints explain {oldest} --namespace shop"))?;

    // Nodes report figures once a minute.
    say("What there is, by namespace");
    stage.until("the figures of the nodes", || {
        let policy = stage.cluster.get(&format!("{API}/namespaces/shop/checkpointpolicies/last-three"))?;
        Ok(policy["status"]["totals"]["archives"].as_i64() > Some(0))
    })?;
    stage.run("kubectl checkpoints usage")?;

    say("It is removed. What lies on the nodes stays there, also that one is held");
    stage.run("helm uninstall checkpoint-keeper --namespace checkpoint-keeper --wait")?;
    let mut archives = 0;
    for node in stage.cluster.nodes() {
        show_command(&format!("ls /var/lib/kubelet/checkpoints    # on {}", node.name()));
        for entry in std::fs::read_dir(node.checkpoints())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            archives += usize::from(name.ends_with(".tar"));
            println!("{name}");
        }
    }
    ensure!(archives >= 3, "{archives} archives are left on the nodes");
    Ok(())
}

/// Where commands are shown and run.
struct Stage<'a> {
    cluster: &'a Cluster,
    /// The working directory: the manifests, the chart, and `bin`.
    folder: tempfile::TempDir,
    pause: Duration,
}

impl<'a> Stage<'a> {
    fn new(cluster: &'a Cluster, plugin: &Path, helm: &Path, pause: Duration) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let bin = folder.path().join("bin");
        std::fs::create_dir(&bin)?;
        let kubectl = cluster.kubectl(&[]);
        for (name, program) in
            [("kubectl", Path::new(kubectl.get_program())), ("helm", helm), ("kubectl-checkpoints", plugin)]
        {
            std::os::unix::fs::symlink(program, bin.join(name))?;
        }
        std::os::unix::fs::symlink(
            repository().join("charts/checkpoint-keeper"),
            folder.path().join("chart"),
        )?;
        for (name, text) in MANIFESTS {
            std::fs::write(folder.path().join(name), text)?;
        }
        Ok(Self { cluster, folder, pause })
    }

    /// A shell that sees the cluster and nothing of this machine's user.
    fn command(&self, line: &str) -> Command {
        let here = self.folder.path();
        let mut path = here.join("bin").into_os_string();
        path.push(":/usr/bin:/bin");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", line]).current_dir(here).env("PATH", path);
        command.env("KUBECONFIG", self.cluster.state().kubeconfig());
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(name, here.join("helm"));
        }
        command
    }

    fn run(&self, line: &str) -> anyhow::Result<()> {
        std::thread::sleep(self.pause);
        show_command(line);
        std::io::stdout().flush()?;
        let status = self.command(line).status().with_context(|| format!("cannot run {line}"))?;
        ensure!(status.success(), "{line} failed: {status}");
        Ok(())
    }

    fn until(&self, what: &str, condition: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        let outcome = wait::until(what, DEADLINE, condition);
        outcome.with_context(|| {
            let state =
                self.cluster.kubectl(&["--namespace=shop", "get", "pods,checkpointschedules"]).output();
            state.map(|state| String::from_utf8_lossy(&state.stdout).into_owned()).unwrap_or_default()
        })
    }

    /// The names of the checkpoints there are, the oldest first.
    fn checkpoints(&self) -> anyhow::Result<Vec<String>> {
        let mut list = self.cluster.get(&format!("{API}/namespaces/shop/containercheckpoints"))?;
        let list: Vec<ContainerCheckpoint> = serde_json::from_value(list["items"].take())?;
        let named = |one: ContainerCheckpoint| Some((one.status?.checkpointed_at?.0, one.metadata.name?));
        let mut found: Vec<_> = list.into_iter().filter_map(named).collect();
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, name)| name).collect())
    }
}

fn show_command(line: &str) {
    println!("{}", styled("1", &format!("$ {line}")));
}

fn say(what: &str) {
    println!("\n{}", styled("1;36", &format!("# {what}")));
}

/// Text in a style of terminals, where it is one.
fn styled(style: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

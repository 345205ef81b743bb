//! `kubectl checkpoints` against real agents in their pods, for an administrator and for a user of one namespace.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::wait;
use serde_json::{Value, json};

use crate::agents::{checkpoints, keep, left, policy};
use crate::deployed::{Deployed, agents_are_ready};
use crate::install;
use crate::inventory::{shown, user_token};
use crate::support::{DEADLINE, NODES, cluster, counting_pod, program};

/// The plugin as a user has it, who has this kubeconfig.
struct Plugin<'a> {
    kubeconfig: &'a Path,
    namespace: &'a str,
}

impl Plugin<'_> {
    /// Its exit code, and what it says on both streams.
    fn run(&self, arguments: &[&str]) -> anyhow::Result<(i32, String, String)> {
        let program = program().with_file_name("kubectl-checkpoints");
        ensure!(program.exists(), "first: cargo build --package kubectl-checkpoints");
        let mut command = Command::new(program);
        command.env_clear().env("KUBECONFIG", self.kubeconfig).stdin(Stdio::null());
        let done = command.args(["--namespace", self.namespace]).args(arguments).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((done.status.code().unwrap_or(-1), text(&done.stdout), text(&done.stderr)))
    }

    /// What it says where it succeeds.
    fn ok(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let (code, out, error) = self.run(arguments)?;
        ensure!(code == 0, "{arguments:?}: exit code {code}: {out} {error}");
        Ok(out)
    }
}

/// A kubeconfig of the cluster for whoever has this token.
fn kubeconfig_of(token: &str, file: &Path) -> anyhow::Result<()> {
    let view = output(&mut cluster().kubectl(&["config", "view", "--raw", "--flatten", "--output", "json"]))?;
    let mut config: Value = serde_json::from_str(&view)?;
    for user in config["users"].as_array_mut().context("no users")? {
        user["user"] = json!({"token": token});
    }
    Ok(std::fs::write(file, config.to_string())?)
}

/// The token of an account that the roles for those on call are bound to.
fn on_call_token(namespace: &str) -> anyhow::Result<String> {
    let token = user_token(namespace, "checkpoint-keeper-cluster-view")?;
    let account = json!({
        "kind": "ServiceAccount", "name": "checkpoint-keeper-cluster-view", "namespace": namespace,
    });
    let binding = |kind: &str, role: &str, role_name: &str, metadata: Value| {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": role_name},
            "subjects": [account],
        });
        cluster().apply(&binding.to_string())
    };
    let cluster_wide = json!({"name": format!("on-call-{namespace}")});
    binding("ClusterRoleBinding", "ClusterRole", "checkpoint-keeper-cluster-view", cluster_wide)?;
    let own = json!({"name": "on-call", "namespace": install::NAMESPACE});
    binding("RoleBinding", "Role", "checkpoint-keeper-agents-view", own)?;
    Ok(token)
}

#[test]
fn it_shows_explains_previews_and_protects_as_far_as_its_user_may() -> anyhow::Result<()> {
    let _alone = NODES.write();
    install::rights()?;
    install::image()?;
    let node = cluster().nodes()[0];
    let _agents = Deployed::apply("5-agent.yaml")?;
    agents_are_ready()?;
    let namespace = cluster().namespace("plugin")?;
    let of = namespace.name();
    namespace.apply(&counting_pod("app", node, &["server"]))?;
    namespace.wait_until_running("app")?;
    let files = checkpoints(node, of, "app", 4)?;
    let objects = shown(of, &files)?;
    let name = |file: &str| objects[file]["metadata"]["name"].as_str().unwrap_or_default().to_owned();

    let admin = Plugin { kubeconfig: &cluster().state().kubeconfig(), namespace: of };
    let list = admin.ok(&["list"])?;
    println!("{list}");
    ensure!(list.contains("4 checkpoints") && files.iter().all(|file| list.contains(&name(file))), "{list}");
    let all = admin.ok(&["list", "--node", node.name()])?;
    ensure!(files.iter().all(|file| all.contains(file)), "{all}");
    let explained = admin.ok(&["explain", &name(&files[0])])?;
    println!("{explained}");
    ensure!(explained.contains("It stays: NoPolicy"), "{explained}");

    // What a plan says of a policy is what the policy then does; what is held is not among it.
    let pinned = admin.ok(&["pin", &name(&files[0]), "--reason", "incident 4711", "--until", "30d"])?;
    ensure!(pinned.contains("held"), "{pinned}");
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("policy.json");
    let manifest = json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointPolicy",
        "metadata": {"name": "one", "namespace": of}, "spec": keep(2),
    });
    std::fs::write(&file, manifest.to_string())?;
    let file = file.to_string_lossy();
    println!("{}", admin.ok(&["plan", "-f", &file])?);
    // What was just pinned is known to the planner a moment later.
    wait::until("the plan without what is held", DEADLINE, || {
        let plan: Value = serde_json::from_str(&admin.ok(&["plan", "-f", &file, "-o", "json"])?)?;
        ensure!(plan["isComplete"] == true, "{plan}");
        let nodes = plan["nodes"].as_array().context("no nodes")?;
        let changes = nodes.iter().flat_map(|node| node["changes"].as_array().into_iter().flatten());
        let going: BTreeSet<&str> = changes
            .filter(|change| change["after"]["verdict"] == "Delete")
            .filter_map(|change| change["file"].as_str())
            .collect();
        ensure!(going == [files[1].as_str(), files[2].as_str()].into(), "{plan}");
        Ok(true)
    })?;
    policy(&namespace, "one", &keep(2))?;
    left(node, of, &[files[0].clone(), format!("{}.keep", files[0]), files[3].clone()])?;
    let usage = admin.ok(&["usage", "--by", "workload"])?;
    ensure!(usage.contains("Pod/app"), "{usage}");
    println!("{}", admin.run(&["doctor"])?.1);

    // A user who may edit the namespace.
    let config = directory.path().join("kubeconfig");
    kubeconfig_of(&user_token(of, "edit")?, &config)?;
    let user = Plugin { kubeconfig: &config, namespace: of };
    wait::until("the user's rights", DEADLINE, || user.ok(&["list"]).map(|_| true))?;
    let (code, _, error) = user.run(&["explain", &name(&files[3])])?;
    ensure!(code == 1 && error.contains("hint"), "{code} {error}");
    let (code, _, error) = user.run(&["discard", &name(&files[3]), "--reason", "mine", "--yes"])?;
    ensure!(code == 1 && error.contains("needs the verb discard"), "{code} {error}");
    // With the roles for those on call, all is shown.
    let config = directory.path().join("on-call");
    kubeconfig_of(&on_call_token(of)?, &config)?;
    let on_call = Plugin { kubeconfig: &config, namespace: of };
    wait::until("the rights of those on call", DEADLINE, || on_call.ok(&["list", "-A"]).map(|_| true))?;
    let found = on_call.run(&["doctor"])?.1;
    ensure!(!found.contains("unknown") && found.contains("2 of 2 nodes have an agent"), "{found}");
    on_call.ok(&["list", "--node", node.name()])?;
    on_call.ok(&["explain", &name(&files[3])])?;
    let unpinned = user.ok(&["unpin", &name(&files[0])])?;
    ensure!(unpinned.contains("not held any more"), "{unpinned}");
    left(node, of, &[files[0].clone(), files[3].clone()])?;
    let discarded = admin.ok(&["discard", &name(&files[0]), "--reason", "a leaked key", "--yes"])?;
    ensure!(discarded.contains("deleted"), "{discarded}");
    left(node, of, &files[3..])
}

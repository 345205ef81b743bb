//! The agents of many nodes in one process, or a few: each is the real one, with its engine and its side of the API, and has a
//! directory, a catalog and a token of its own.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use checkpoint_keeper_agent::Settings;
use checkpoint_keeper_runtime::kubelet::{KubeletConfig, Trust};
use rustix::process::Uid;
use serde::{Deserialize, Serialize};

/// What a process of agents is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Plan {
    /// The operator's own namespace.
    pub(super) namespace: String,
    /// The most archives that each shows as `ContainerCheckpoint`s.
    pub(super) inventory_limit: usize,
    /// How long a status rests after it was written, in seconds.
    pub(super) status_seconds: u64,
    /// The place of the first of these nodes among all.
    pub(super) first: usize,
    /// The nodes.
    pub(super) nodes: Vec<NodePlan>,
}

impl Plan {
    /// The same for processes with so many nodes each at most.
    pub(super) fn parts(&self, most: usize) -> Vec<Self> {
        let part = |(number, nodes): (usize, &[NodePlan])| Self {
            first: self.first + number * most,
            nodes: nodes.to_vec(),
            namespace: self.namespace.clone(),
            ..*self
        };
        self.nodes.chunks(most).enumerate().map(part).collect()
    }
}

/// The name of the file with the plan of a process.
pub(super) fn plan_file(process: usize) -> String {
    format!("scale-plan-{process}.json")
}

/// How long it takes at least until so many agents have been started.
pub(super) fn time_to_start(agents: usize) -> Duration {
    APART.saturating_mul(u32::try_from(agents).unwrap_or(u32::MAX))
}

/// One agent's node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NodePlan {
    /// Its name.
    pub(super) name: String,
    /// Whom the agent is at the API.
    pub(super) kubeconfig: PathBuf,
    /// The directory of its archives.
    pub(super) directory: PathBuf,
    /// Its catalog.
    pub(super) state: PathBuf,
}

/// How long one agent starts after the other, at least: Kubernetes' controller manager makes 20 requests a second unless
/// it was told otherwise (--kube-api-qps), so a `DaemonSet` gets no more pods than that.
const APART: Duration = Duration::from_millis(50);

/// The first of the agents' users: no such user need be there.
const FIRST_USER: u32 = 2_000_000;

/// The user of an agent, by its place among the nodes. It owns the directory and what lies in it.
///
/// Instances of inotify are counted by user, 128 each unless the machine was told otherwise: so nothing of the machine
/// has to be changed for so many agents.
pub(super) fn user(place: usize) -> anyhow::Result<u32> {
    Ok(FIRST_USER + u32::try_from(place)?)
}

/// Is all these agents, until standard input ends.
pub(super) fn run(plan: &Path) -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).init();
    let file = File::open(plan).with_context(|| format!("cannot open {}", plan.display()))?;
    let plan: Plan = serde_json::from_reader(std::io::BufReader::new(file))?;
    let plan = Arc::new(plan);
    for place in 0..plan.nodes.len() {
        let plan = Arc::clone(&plan);
        let run = move || {
            let node = &plan.nodes[place];
            let outcome = become_user(plan.first + place)
                .and_then(|()| Ok(checkpoint_keeper_agent::run(settings(&plan, node))?))
                .with_context(|| format!("the agent of {} ended", node.name));
            if let Err(error) = outcome {
                tracing::error!("{error:#}");
            }
        };
        thread::Builder::new().name("engine".to_owned()).spawn(run).context("cannot start a thread")?;
        thread::sleep(APART);
    }
    std::io::stdin().read_to_end(&mut Vec::new())?;
    // Agents end by signals only, and leave nothing behind that matters here.
    std::process::exit(0)
}

/// Makes this thread, and those that it starts, this agent's user: none of root's rights are left.
fn become_user(place: usize) -> anyhow::Result<()> {
    let user = Uid::from_raw(user(place)?);
    rustix::thread::set_thread_res_uid(user, user, user).context("cannot become another user")
}

fn settings(plan: &Plan, node: &NodePlan) -> Settings {
    let any_port = ([127, 0, 0, 1], 0).into();
    Settings {
        node_name: node.name.clone(),
        namespace: plan.namespace.clone(),
        // Asked only for checkpoints, and nobody wants any; but where agents may make some, they watch schedules.
        kubelet: Some(KubeletConfig {
            address: ([127, 0, 0, 1], 10_250).into(),
            node_name: node.name.clone(),
            token_file: node.kubeconfig.clone(),
            trust: Trust::Verify { authorities: node.kubeconfig.clone(), pinned: None },
        }),
        operator_namespaces: [plan.namespace.clone()].into(),
        other_operator_namespaces: ["checkpoint-restore-operator", "checkpoint-restore-operator-system"]
            .map(str::to_owned)
            .to_vec(),
        policy_staleness: Duration::from_hours(1),
        directory: node.directory.clone(),
        state: node.state.clone(),
        interval: Duration::from_mins(1),
        settle: Duration::from_secs(5),
        status_interval: Duration::from_secs(plan.status_seconds),
        inventory_limit: plan.inventory_limit,
        max_concurrent_checkpoints: checkpoint_keeper_core::schedule::MOST_DUMPS,
        listen: any_port,
        view_listen: any_port,
        kubeconfig: Some(node.kubeconfig.clone()),
        audit: Box::new(|_, _| Ok(())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_is_in_one_process_and_keeps_its_place() {
        let node = |number: usize| NodePlan {
            name: number.to_string(),
            kubeconfig: PathBuf::new(),
            directory: PathBuf::new(),
            state: PathBuf::new(),
        };
        let nodes: Vec<_> = (0..10).map(node).collect();
        let plan = Plan { namespace: "n".to_owned(), inventory_limit: 1, status_seconds: 2, first: 0, nodes };
        let parts = plan.parts(4);
        assert_eq!(parts.iter().map(|part| part.nodes.len()).collect::<Vec<_>>(), [4, 4, 2]);
        for part in &parts {
            for (place, node) in part.nodes.iter().enumerate() {
                assert_eq!(node.name, (part.first + place).to_string());
            }
        }
    }
}

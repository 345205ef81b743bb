//! What the agents of many nodes and the controller cost the API server, and how long policies take to reach all of
//! them: real agents and a real API server with etcd, and nodes that are only objects.
//!
//! `agents` is all the agents in a few processes, `nodes` makes what they need, `observed` is what is seen from outside
//! (`requests` and `exposition` are its sources), `rows` is what is told of it; here is what happens, in its order.

mod agents;
mod exposition;
mod nodes;
mod observed;
mod requests;
mod rows;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::machine::{CONTROL_PLANE, SHARED};
use checkpoint_keeper_testcluster::paths::write_json;
use checkpoint_keeper_testcluster::{Cluster, wait};
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use super::row::Row;
use crate::cluster::Up;
use crate::image::{self, Architecture, Program};
use agents::Plan;
use nodes::{NAMESPACE, PER_CONTAINER};
use observed::{Observer, Progress};
use rows::{Change, Measured};

/// What is simulated.
#[derive(Debug, Args)]
pub(crate) struct Scale {
    /// Measure instead what many agents cost the API server: agents are real, their nodes only objects
    #[arg(long = "scale", conflicts_with_all = ["only", "cluster"])]
    pub is_wanted: bool,
    /// With --scale: how many nodes
    #[arg(long = "scale-agents", value_name = "COUNT", default_value_t = 1_000)]
    pub agents: usize,
    /// With --scale: how many archives on each
    #[arg(long = "scale-archives", value_name = "COUNT", default_value_t = 100)]
    pub archives: usize,
    /// With --scale: how many of them are shown as `ContainerCheckpoint`s; none with --quick
    #[arg(long = "scale-inventory", value_name = "COUNT", default_value_t = 100)]
    pub inventory: usize,
    /// Be the agents of a simulation until standard input ends
    #[arg(long = "scale-process", value_name = "FILE", hide = true)]
    pub process: Option<PathBuf>,
}

/// The cluster's name, so that it meets no other.
const NAME: &str = "scale";

/// Files that each agent may have open, most of them connections of its watches, and that a process has beside them.
const FILES_PER_AGENT: u64 = 64;
const FILES: u64 = 512;

/// Connections that the API server has with each agent: more than it has watches.
const CONNECTIONS: u64 = 16;

/// The controllers that a real cluster has and that matter here. Not the one that finds nodes without a kubelet not
/// ready and evicts their pods.
const CONTROLLERS: &str = "--controllers=serviceaccount-controller,namespace-controller,garbage-collector-controller,\
                           root-ca-certificate-publisher-controller";

/// The longest that any phase may take.
const DEADLINE: Duration = Duration::from_mins(40);

/// Is the agents of a simulation.
pub(super) fn run_process(plan: &Path) -> anyhow::Result<()> {
    agents::run(plan)
}

/// How long things take.
struct Pace {
    /// How long a status rests after it was written.
    status: Duration,
    /// How long nobody must have asked for anything until all are idle: longer than that.
    quiet: Duration,
    /// How long idle ones are watched.
    idle: Duration,
}

impl Pace {
    const REAL: Self =
        Self { status: Duration::from_mins(1), quiet: Duration::from_secs(75), idle: Duration::from_mins(2) };
    const QUICK: Self =
        Self { status: Duration::from_secs(5), quiet: Duration::from_secs(8), idle: Duration::from_secs(10) };
}

pub(super) fn rows(arguments: &Scale, quick: bool) -> anyhow::Result<Vec<Row>> {
    ensure!(arguments.agents > 0 && arguments.archives >= PER_CONTAINER, "there is nothing to measure");
    let pace = if quick { Pace::QUICK } else { Pace::REAL };
    let program = image::program(Program::Operator, Architecture::Amd64);
    ensure!(program.is_file(), "there is no {}: cargo xtask image makes it", program.display());
    let in_a_process = agents_in_a_process(arguments.agents)?;
    let up =
        Up::new(NAME, &["--nodes", "1", "--oci-runtime", "runc", "--controller-manager-flag", CONTROLLERS])?;
    let cluster = &up.cluster;
    nodes::install(cluster)?;
    // Archives are shown in namespaces that are older by minutes only.
    let inventory = if quick { 0 } else { arguments.inventory };
    let older = if inventory > 0 { nodes::OLDER } else { Duration::ZERO };
    let plan = Plan {
        namespace: NAMESPACE.to_owned(),
        inventory_limit: inventory,
        status_seconds: pace.status.as_secs(),
        first: 0,
        nodes: nodes::make(cluster, arguments.agents, arguments.archives, older)?,
    };
    eprintln!("{} nodes with {} archives each are made", arguments.agents, arguments.archives);
    apply_policy(cluster, PER_CONTAINER, "Enforce")?;
    let controller = Controller::start(cluster, &program)?;
    wait::until("the controller to lead", wait::SOON, || Ok(policy(cluster)?["status"].is_object()))?;

    let plans = plan.parts(in_a_process);
    let mut observer = Observer::new(cluster, plans.len())?;
    let _agents = start_agents(cluster, &plans)?;
    let wanted =
        Wanted { nodes: arguments.agents, archives: arguments.archives, would_delete: None, generation: 1 };
    let (told, judged) = settle(&mut observer, &wanted)?;
    let shown = arguments.agents * arguments.archives.min(inventory);
    let listed = observer.until("every archive to be shown", DEADLINE, |cluster| {
        let listed = shown_archives(cluster)?;
        Ok(if listed == shown { Progress::Done } else { Progress::Not(format!("{listed} of {shown}")) })
    })?;
    observer.until_quiet(pace.quiet, DEADLINE)?;
    let start = Change { told, judged, phase: observer.phase()? };

    std::thread::sleep(pace.idle);
    let idle = observer.phase()?;

    let mut change = |limit: usize, mode: &str, wanted: Wanted| -> anyhow::Result<Change> {
        apply_policy(cluster, limit, mode)?;
        let (told, judged) = settle(&mut observer, &wanted)?;
        observer.until_quiet(pace.quiet, DEADLINE)?;
        Ok(Change { told, judged, phase: observer.phase()? })
    };
    let less = arguments.archives / PER_CONTAINER;
    let wanted = Wanted { would_delete: Some(less), generation: 2, ..wanted };
    let dry_run = change(PER_CONTAINER - 1, "DryRun", wanted)?;
    let wanted = Wanted { archives: arguments.archives - less, would_delete: None, generation: 3, ..wanted };
    let enforce = change(PER_CONTAINER - 1, "Enforce", wanted)?;
    let measured = Measured {
        agents: arguments.agents,
        archives: arguments.archives,
        start,
        listed,
        idle,
        dry_run,
        enforce,
        restarts: controller.restarts(),
    };
    Ok(measured.rows())
}

/// How many agents a process may hold, as files are limited. This process's limit is that of all that it starts.
fn agents_in_a_process(agents: usize) -> anyhow::Result<usize> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
        .context("cannot have as many files as are allowed")?;
    let connections = FILES + CONNECTIONS * agents as u64;
    ensure!(most >= connections, "the API server needs {connections} open files: {most} are allowed");
    let in_a_process = usize::try_from(most.saturating_sub(FILES) / FILES_PER_AGENT).unwrap_or(usize::MAX);
    ensure!(in_a_process > 0, "{most} open files are too few for an agent");
    Ok(in_a_process)
}

/// A process of the control plane's machine: it ends with this, and with the machine.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // The agents end with their input. Who else is left ends with the machine, right after this.
        drop(self.0.stdin.take());
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The controller. It ends when it loses its lease, as it may where the API server is busy; then it is started anew, as
/// a kubelet does it.
struct Controller {
    restarts: Arc<AtomicUsize>,
    is_ending: Arc<AtomicBool>,
    keeping: Option<JoinHandle<()>>,
}

/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(500);

impl Controller {
    fn start(cluster: &Cluster, program: &Path) -> anyhow::Result<Self> {
        let program = cluster.share(program)?;
        let mut command = cluster.command(CONTROL_PLANE, &program)?;
        command.args(["controller", "--namespace", NAMESPACE, "--identity", "scale"]);
        command.args(["--listen", "127.0.0.1:9464", "--kubeconfig", &nodes::controller_kubeconfig()]);
        let log = File::create(cluster.state().shared().join("controller.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut running = Running(command.spawn()?);
        let (restarts, is_ending) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, end) = (Arc::clone(&restarts), Arc::clone(&is_ending));
        let keeping = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
                if !matches!(running.0.try_wait(), Ok(Some(_))) {
                    continue;
                }
                eprintln!("the controller ended: see controller.log");
                match command.spawn() {
                    Ok(child) => running = Running(child),
                    Err(error) => return eprintln!("it cannot be started anew: {error}"),
                }
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self { restarts, is_ending, keeping: Some(keeping) })
    }

    /// How often it ended.
    fn restarts(&self) -> usize {
        self.restarts.load(Ordering::Relaxed)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::Relaxed);
        let _ = self.keeping.take().map(JoinHandle::join);
    }
}

fn start_agents(cluster: &Cluster, plans: &[Plan]) -> anyhow::Result<Vec<Running>> {
    let program = cluster.share(&std::env::current_exe()?)?;
    let mut running = Vec::new();
    for (number, plan) in plans.iter().enumerate() {
        if number > 0 {
            // One process's agents after the other's, as one after the other starts in a process.
            std::thread::sleep(agents::time_to_start(plans[number - 1].nodes.len()));
        }
        write_json(&cluster.state().shared().join(agents::plan_file(number)), plan)?;
        let mut command = cluster.command(CONTROL_PLANE, &program)?;
        command.args(["bench", "--scale-process", &format!("{SHARED}/{}", agents::plan_file(number))]);
        let log = File::create(cluster.state().shared().join(format!("agents-{number}.log")))?;
        let command = command.stdin(Stdio::piped()).stdout(log.try_clone()?).stderr(log);
        running.push(Running(command.spawn()?));
    }
    Ok(running)
}

const POLICY: &str = "/apis/checkpoint-keeper.io/v1alpha1/clustercheckpointpolicies/limit";

/// Applies the policy: so many archives of each container stay.
fn apply_policy(cluster: &Cluster, limit: usize, mode: &str) -> anyhow::Result<()> {
    let policy = json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "ClusterCheckpointPolicy",
        "metadata": {"name": "limit"},
        "spec": {"mode": mode, "retention": {"perContainer": {"maxCount": limit}}},
    });
    let path = format!("{POLICY}?fieldManager=bench&force=true");
    let (status, answer) = cluster.administrator().apply(&path, &policy)?;
    ensure!([200, 201].contains(&status), "the policy cannot be applied: {status} {answer}");
    Ok(())
}

fn policy(cluster: &Cluster) -> anyhow::Result<Value> {
    cluster.get(POLICY)
}

/// What is right.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    nodes: usize,
    /// On each node.
    archives: usize,
    /// For a dry run, how many of them would go.
    would_delete: Option<usize>,
    /// The policy's generation.
    generation: i64,
}

/// Waits until every node reports that it acts by the policy and what it has, and until the policy's status says so;
/// how long each took.
fn settle(observer: &mut Observer<'_>, wanted: &Wanted) -> anyhow::Result<(Duration, Duration)> {
    let told = observer.until("every node's report to be right", DEADLINE, |cluster| {
        let stores =
            cluster.get("/apis/checkpoint-keeper.io/v1alpha1/nodecheckpointstores?resourceVersion=0")?;
        let stores = stores["items"].as_array().context("no list")?;
        let right = stores.iter().filter(|store| wanted.is_right(&store["status"])).count();
        let (nodes, reports) = (wanted.nodes, stores.len());
        Ok(if right == nodes {
            Progress::Done
        } else {
            Progress::Not(format!("{right} of {nodes}, {reports} report"))
        })
    })?;
    let judged = observer.until("the policy's status to be right", DEADLINE, |cluster| {
        let status = &policy(cluster)?["status"];
        Ok(if wanted.is_judged(status) {
            Progress::Done
        } else {
            Progress::Not(status["conditions"].to_string())
        })
    })?;
    Ok((told, judged))
}

impl Wanted {
    /// Whether this status of a node's store is right.
    fn is_right(&self, status: &Value) -> bool {
        let is_this = |usage: &Value| {
            usage["policyRef"]["name"] == "limit"
                && usage["generation"].as_i64() == Some(self.generation)
                && self.are_figures_right(usage, 1)
        };
        let policies = status["policies"].as_array();
        status["archives"].as_u64() == Some(self.archives as u64)
            && policies.is_some_and(|policies| policies.iter().any(is_this))
    }

    /// Whether this is what the policy does on so many nodes.
    fn are_figures_right(&self, figures: &Value, nodes: usize) -> bool {
        let is = |figure: &Value, value: usize| figure.as_u64() == Some((nodes * value) as u64);
        match self.would_delete {
            Some(would_delete) => is(&figures["dryRun"]["wouldDelete"], would_delete),
            None => is(&figures["archives"], self.archives) && is(&figures["deletionPending"], 0),
        }
    }

    /// Whether this status of the policy is right.
    fn is_judged(&self, status: &Value) -> bool {
        let conditions = status["conditions"].as_array();
        let nodes = self.nodes;
        let message = format!("{nodes} of {nodes} ");
        let is_enforced = |condition: &Value| {
            condition["type"] == "Enforced"
                && condition["status"] == "True"
                && condition["message"].as_str().is_some_and(|text| text.starts_with(&message))
        };
        status["observedGeneration"].as_i64() == Some(self.generation)
            && conditions.is_some_and(|conditions| conditions.iter().any(is_enforced))
            && self.are_figures_right(&status["totals"], nodes)
    }
}

/// How many `ContainerCheckpoint`s there are.
fn shown_archives(cluster: &Cluster) -> anyhow::Result<usize> {
    let page = cluster.get("/apis/checkpoint-keeper.io/v1alpha1/containercheckpoints?limit=1")?;
    let here = page["items"].as_array().map_or(0, Vec::len);
    let others = page["metadata"]["remainingItemCount"].as_u64().unwrap_or_default();
    Ok(here + usize::try_from(others)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_right_once_it_names_the_policy_as_it_is_now_and_what_is_there() {
        let wanted = Wanted { nodes: 3, archives: 90, would_delete: None, generation: 2 };
        let report = |archives: u64, generation: i64, pending: u64| {
            let usage = json!({"policyRef": {"name": "limit"}, "generation": generation, "archives": archives, "deletionPending": pending});
            json!({"archives": archives, "policies": [usage]})
        };
        assert!(wanted.is_right(&report(90, 2, 0)));
        assert!(!wanted.is_right(&report(100, 2, 0)) && !wanted.is_right(&report(90, 1, 0)));
        assert!(!wanted.is_right(&report(90, 2, 10)));
        assert!(!wanted.is_right(&json!({"archives": 90})) && !wanted.is_right(&Value::Null));
        let judged = |generation: i64, status: &str, message: &str, archives: u64| {
            let condition = json!({"type": "Enforced", "status": status, "message": message});
            let totals = json!({"archives": archives, "deletionPending": 0});
            wanted.is_judged(
                &json!({"observedGeneration": generation, "conditions": [condition], "totals": totals}),
            )
        };
        let all = "3 of 3 nodes act by generation 2.";
        assert!(judged(2, "True", all, 270));
        assert!(
            !judged(1, "True", all, 270) && !judged(2, "False", all, 270) && !judged(2, "True", all, 271)
        );
        assert!(!judged(2, "True", "2 of 2 nodes act by generation 2.", 270));
    }

    #[test]
    fn a_report_of_a_dry_run_is_right_once_it_says_how_many_would_go() {
        let wanted = Wanted { nodes: 3, archives: 100, would_delete: Some(10), generation: 2 };
        let report = |would_delete: u64| {
            let usage = json!({"policyRef": {"name": "limit"}, "generation": 2, "dryRun": {"wouldDelete": would_delete}});
            json!({"archives": 100, "policies": [usage]})
        };
        assert!(wanted.is_right(&report(10)) && !wanted.is_right(&report(0)));
        assert!(!wanted.is_right(
            &json!({"archives": 100, "policies": [{"policyRef": {"name": "limit"}, "generation": 2}]})
        ));
    }
}

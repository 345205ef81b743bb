//! Bringing a cluster up and taking it down.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::components::Components;
use crate::image::Image;
use crate::keeper::{self, Keeper};
use crate::machine::CONTROL_PLANE;
use crate::paths::{Cache, State, read_json, write_json};
use crate::process::Process;
use crate::runtime::Runtime;
use crate::wait;
use crate::{cgroups, pki};

/// The image of tests: busybox, without a registry.
pub const BUSYBOX: &str = "checkpoint-keeper.test/busybox:1";

/// How long all nodes may take to be Ready.
const READY: Duration = Duration::from_mins(3);

/// What a cluster consists of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Description {
    /// Its nodes.
    pub nodes: Vec<NodeDescription>,
    /// Their container runtime.
    pub runtime: Runtime,
    /// What the API server is told besides.
    pub api_server_flags: Vec<String>,
    /// What the controller manager is told besides.
    pub controller_manager_flags: Vec<String>,
}

/// One node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeDescription {
    /// `node-1`, `node-2`, …
    pub name: String,
    /// That number.
    pub number: u8,
    /// `runc` or `crun`.
    pub oci_runtime: String,
}

impl NodeDescription {
    /// Its address in the machines' network.
    pub fn address(&self) -> [u8; 4] {
        [10, 77, 0, 10 + self.number]
    }

    /// The same as text.
    pub fn ip(&self) -> String {
        std::net::Ipv4Addr::from(self.address()).to_string()
    }

    /// Its pods' addresses.
    pub fn pod_network(&self) -> String {
        format!("10.88.{}.0/24", self.number)
    }
}

/// What is wanted of a cluster.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its name: clusters of different names do not meet.
    pub name: String,
    /// How many nodes.
    pub nodes: u8,
    /// The container runtime of the nodes.
    pub runtime: Runtime,
    /// The OCI runtimes of the nodes, in turn.
    pub oci_runtimes: Vec<String>,
    /// The process with whose end the cluster ends; none: it stays until it is taken down.
    pub owner: Option<i32>,
    /// What the API server is told besides.
    pub api_server_flags: Vec<String>,
    /// What the controller manager is told besides.
    pub controller_manager_flags: Vec<String>,
}

impl Wanted {
    fn description(&self) -> anyhow::Result<Description> {
        ensure!((1..=9).contains(&self.nodes), "a cluster has 1 to 9 nodes");
        ensure!(!self.oci_runtimes.is_empty(), "no OCI runtime is named");
        let node = |number: u8| NodeDescription {
            name: format!("node-{number}"),
            number,
            oci_runtime: self.oci_runtimes[usize::from(number - 1) % self.oci_runtimes.len()].clone(),
        };
        Ok(Description {
            nodes: (1..=self.nodes).map(node).collect(),
            runtime: self.runtime,
            api_server_flags: self.api_server_flags.clone(),
            controller_manager_flags: self.controller_manager_flags.clone(),
        })
    }
}

/// Brings a cluster up and waits until all its nodes are Ready. `program` is this crate's program,
/// which goes on as the cluster's keeper and, within, as each machine's first process.
pub fn up(wanted: &Wanted, program: &Path) -> anyhow::Result<Cluster> {
    let cache = Cache::of_user()?;
    let state = cache.cluster(&wanted.name);
    if state.root().exists() {
        ensure!(
            Keeper::find(&state).is_err(),
            "the cluster {:?} is up already; take it down first, or give another name",
            wanted.name
        );
        eprintln!("removing what is left of an earlier cluster");
        down(&state)?;
    }
    let description = wanted.description()?;
    let components = Components::provide(&cache, wanted.runtime)?;
    let begin = Instant::now();
    std::fs::create_dir_all(state.images())?;
    std::fs::create_dir_all(state.shared())?;
    write_json(&state.description(), &description)?;
    let mut keeper = spawn_keeper(&state, program, wanted.owner)?;
    let started = start(&state, &description, &components, begin);
    match started {
        Ok(cluster) => {
            // From here on it outlives this process.
            keeper.promise()?;
            Ok(cluster)
        }
        Err(error) => {
            let kept = keep_logs(&state);
            down(&state)?;
            Err(error.context(kept))
        }
    }
}

fn start(
    state: &State,
    description: &Description,
    components: &Components,
    begin: Instant,
) -> anyhow::Result<Cluster> {
    let keeper = wait::for_value("the keeper", wait::SOON, || Keeper::find(state).map(Some))?;
    pki::issue(state, description, keeper.api_port)?;
    Image::busybox(&components.debian)?.write(&state.images().join("busybox.tar"), BUSYBOX)?;
    let since = jiff::Timestamp::now();
    keeper.boot(CONTROL_PLANE)?;
    for node in &description.nodes {
        keeper.boot(&node.name)?;
    }
    let cluster = Cluster::open(state)?;
    for node in cluster.nodes() {
        // A second: the API tells times without fractions.
        node.wait_until_ready(since - Duration::from_secs(1), READY)?;
    }
    wait::until("the default service account", READY, || {
        cluster.get("/api/v1/namespaces/default/serviceaccounts/default").map(|_| true)
    })?;
    eprintln!("{} nodes Ready after {:.1} s", description.nodes.len(), begin.elapsed().as_secs_f64());
    Ok(cluster)
}

/// The keeper at its birth: it takes the cluster down unless it hears that the start succeeded.
struct NewKeeper {
    line: std::process::ChildStdin,
}

impl NewKeeper {
    fn promise(&mut self) -> anyhow::Result<()> {
        use std::io::Write;
        self.line.write_all(keeper::PROMISE).context("the keeper has ended")
    }
}

fn spawn_keeper(state: &State, program: &Path, owner: Option<i32>) -> anyhow::Result<NewKeeper> {
    let log = std::fs::File::create(state.root().join("keeper.log"))?;
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "setsid"])
        .arg(program)
        .args(["keeper", "--state"])
        .arg(state.root());
    if let Some(owner) = owner {
        command.arg("--owner").arg(owner.to_string());
    }
    let child = command
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start the keeper")?;
    Ok(NewKeeper { line: child.stdin.context("the keeper has no standard input")? })
}

/// Copies a failed start's logs to where they outlive it, and says where.
pub fn keep_logs(state: &State) -> String {
    let kept = state.root().with_extension("logs");
    let copy = || -> anyhow::Result<()> {
        if kept.exists() {
            std::fs::remove_dir_all(&kept)?;
        }
        std::fs::create_dir_all(&kept)?;
        let _ = std::fs::copy(state.root().join("keeper.log"), kept.join("keeper.log"));
        for machine in std::fs::read_dir(state.root().join("machines"))?.flatten() {
            let to = kept.join(machine.file_name());
            std::fs::create_dir_all(&to)?;
            for log in std::fs::read_dir(machine.path().join("log"))?.flatten() {
                std::fs::copy(log.path(), to.join(log.file_name()))?;
            }
        }
        Ok(())
    };
    match copy() {
        Ok(()) => format!("logs are kept in {}", kept.display()),
        Err(error) => format!("logs could not be kept: {error:#}"),
    }
}

/// Takes a cluster down, whatever state it is in, and leaves nothing of it behind.
pub fn down(state: &State) -> anyhow::Result<()> {
    if !state.root().exists() {
        return Ok(());
    }
    // The keeper first, or it would tell of machines that die.
    if let Ok(record) = read_json::<keeper::Record>(&state.keeper()) {
        record.process.kill()?;
    }
    tear_down(state)
}

/// Ends the machines, and removes their cgroups and the cluster's folder.
pub(crate) fn tear_down(state: &State) -> anyhow::Result<()> {
    let machines = state.root().join("machines");
    let names: Vec<String> = std::fs::read_dir(&machines)
        .map(|entries| {
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        })
        .unwrap_or_default();
    for name in &names {
        if let Ok(process) = read_json::<Process>(&state.machine(name).join(keeper::PROCESS)) {
            process.signal(rustix::process::Signal::KILL)?;
        }
    }
    // The base may lie elsewhere than this process's own cgroup: it was written down at the start.
    let parents: Vec<std::path::PathBuf> = read_json(&state.root().join(keeper::CGROUPS)).unwrap_or_default();
    for name in &names {
        cgroups::Cgroups::of(&parents, name).remove()?;
    }
    cgroups::remove_parents(&parents)?;
    // The keeper's mounts ended with its namespace, unless somebody still looks into it.
    wait::until("the cluster's folder to be removable", wait::SOON, || {
        match std::fs::remove_dir_all(state.root()) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
            Err(error) => bail!("{error}"),
        }
    })
}

//! A running cluster as tests use it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::client::Client;
use crate::fault::{Fault, Injected};
use crate::image;
use crate::keeper::{self, Keeper};
use crate::lifecycle::{self, BUSYBOX, Description, Wanted};
use crate::machine::{AUDIT_LOG, CONTROL_PLANE, IMAGES, SHARED};
use crate::node::Node;
use crate::paths::{Cache, State, read_json, write_json};
use crate::process::{Process, output};
use crate::runtime::Runtime;
use crate::wait;

/// A cluster that is up.
#[derive(Debug, Clone)]
pub struct Cluster {
    state: State,
    description: Description,
    keeper: Keeper,
    administrator: Client,
}

impl Cluster {
    /// The name of the cluster that tests share, unless another one is wished for.
    pub const SHARED: &str = "default";
    /// The environment variable by which one is: whoever breaks things has a cluster of his own.
    pub const NAME: &str = "CHECKPOINT_KEEPER_CLUSTER";

    /// The name of the cluster that this process is about.
    pub fn name() -> String {
        std::env::var(Self::NAME).unwrap_or_else(|_| Self::SHARED.to_owned())
    }

    /// The cluster that this test run shares. Where none is up it is brought up with `program`, and
    /// ends with whoever runs the tests.
    pub fn join(program: &Path) -> anyhow::Result<Self> {
        let state = Cache::of_user()?.cluster(&Self::name());
        let wanted = Runtime::of_environment()?;
        if Keeper::find(&state).is_ok() {
            let cluster = Self::open(&state)?;
            let has = cluster.description.runtime;
            ensure!(
                wanted.is_none_or(|wanted| wanted == has),
                "the cluster {:?} is up already, with {}",
                state.name(),
                has.name()
            );
            return Ok(cluster);
        }
        let owner = rustix::process::getppid().map(rustix::process::Pid::as_raw_pid);
        let runtime = wanted.unwrap_or_default();
        lifecycle::up(&Wanted { owner, runtime, name: Self::name(), ..Wanted::default() }, program)
    }

    /// A cluster that is up already.
    pub fn open(state: &State) -> anyhow::Result<Self> {
        let description = read_json(&state.description()).context("the cluster is not up")?;
        let keeper = Keeper::find(state)?;
        let administrator = Client::with_certificate(state, "admin", keeper.api_port)?;
        Ok(Self { state: state.clone(), description, keeper, administrator })
    }

    /// Speaks to the API server as whoever has this token.
    pub fn with_token(&self, token: &str) -> anyhow::Result<Client> {
        Client::with_token(&self.state, token, self.keeper.api_port)
    }

    /// Where its files are.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Its keeper.
    pub(crate) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// What it consists of.
    pub fn description(&self) -> &Description {
        &self.description
    }

    /// Its nodes: tests that are about containers go through all of them.
    pub fn nodes(&self) -> Vec<Node<'_>> {
        let nodes = self.description.nodes.iter().zip(&self.keeper.kubelet_ports);
        nodes.map(|(node, port)| Node::new(self, node, *port)).collect()
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> anyhow::Result<Node<'_>> {
        let mut nodes = self.nodes().into_iter();
        nodes.find(|node| node.name() == name).with_context(|| format!("there is no node {name}"))
    }

    /// A machine's first process.
    pub(crate) fn machine(&self, name: &str) -> anyhow::Result<Process> {
        keeper::process_of(&self.state, name)
    }

    /// A program to be run in a machine: by its root, in its namespaces and cgroups.
    pub fn command(&self, machine: &str, program: &str) -> anyhow::Result<Command> {
        let pid = self.machine(machine)?.pid.to_string();
        // Moved into the machine's cgroups from within, where these are the topmost.
        let join = "for file in /sys/fs/cgroup/*/cgroup.procs; do [ ! -e $file ] || echo $$ >$file; done
                    exec \"$@\"";
        let mut command = Command::new("nsenter");
        command.args(["--target", &pid, "--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup", "--"]);
        command.env_clear().env("PATH", crate::machine::PROGRAM_PATH).env("HOME", "/root");
        command.env("KUBECONFIG", format!("{}/admin-inside.kubeconfig", crate::machine::PKI));
        command.args(["/bin/sh", "-c", join, "sh", program]);
        Ok(command)
    }

    /// Puts a file of the host where all machines see it, and says where that is.
    pub fn share(&self, file: &Path) -> anyhow::Result<String> {
        let name = file.file_name().context("the file has no name")?;
        let to = self.state.shared().join(name);
        // Whole at once, and not into a program that is running.
        let partial = to.with_extension(format!("{}.partial", std::process::id()));
        std::fs::copy(file, &partial).with_context(|| format!("cannot copy {}", file.display()))?;
        std::fs::rename(&partial, &to)?;
        Ok(format!("{SHARED}/{}", name.to_string_lossy()))
    }

    /// Runs `kubectl` as the administrator.
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.kubectl_program());
        command.env("KUBECONFIG", self.state.kubeconfig()).args(arguments).stdin(Stdio::null());
        command
    }

    fn kubectl_program(&self) -> PathBuf {
        // The tree is what the machines run from, so it is there for as long as they are.
        let spec = read_json::<crate::machine::Spec>(&self.state.machine(CONTROL_PLANE).join("machine.json"));
        spec.map_or_else(|_| "kubectl".into(), |spec| spec.debian.join("usr/bin/kubectl"))
    }

    /// Applies manifests.
    pub fn apply(&self, yaml: &str) -> anyhow::Result<()> {
        let mut command = self.kubectl(&["apply", "--filename", "-"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("kubectl has no input")?.write_all(yaml.as_bytes())?;
        let output = child.wait_with_output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cannot apply the manifests: {said}\n{yaml}");
        Ok(())
    }

    /// Writes a kubeconfig for programs in the machines, by which they are whoever has this token. It is among
    /// what they share.
    pub fn write_kubeconfig(&self, name: &str, token: &str) -> anyhow::Result<()> {
        let mut config: Value = read_json(&self.state.pki().join("admin-inside.kubeconfig"))?;
        config["users"][0]["user"] = json!({"token": token});
        write_json(&self.state.shared().join(name), &config)
    }

    /// Speaks to the API server as the administrator, as this does by itself.
    pub fn administrator(&self) -> &Client {
        &self.administrator
    }

    /// An object or a list, by its path in the API.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.administrator.get(path)
    }

    /// Any request without a body; its status, and what came back.
    pub fn request(&self, method: &str, path: &str) -> anyhow::Result<(u16, Value)> {
        self.administrator.request(method, path)
    }

    /// Creates an object below this path; the status, and what came back.
    pub fn create(&self, path: &str, object: &Value) -> anyhow::Result<(u16, Value)> {
        self.administrator.create(path, object)
    }

    /// The requests that pods' service accounts made so far, as audit events, in the order in which they came.
    pub fn requests_of_pods(&self) -> anyhow::Result<Vec<Value>> {
        let path = self.audit_log();
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // The last line may be half written.
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Where the API server writes down these requests, a line of JSON each.
    pub fn audit_log(&self) -> PathBuf {
        self.state.logs(CONTROL_PLANE).join(AUDIT_LOG)
    }

    /// Imports an image of an archive on every node, by the name that the archive says.
    pub fn load(&self, archive: &Path) -> anyhow::Result<()> {
        let reference = image::reference(archive)?;
        ensure!(reference != BUSYBOX, "{BUSYBOX} is there already");
        let file = archive.file_name().context("the archive has no name")?.to_string_lossy();
        let shared = self.state.images().join(&*file);
        std::fs::copy(archive, &shared).with_context(|| format!("cannot write {}", shared.display()))?;
        let import = self.description.runtime.import(&shared, &format!("{IMAGES}/{file}"))?;
        let (program, arguments) = import.split_first().context("images are imported by no program")?;
        for node in self.nodes() {
            output(node.command(program)?.args(arguments))?;
        }
        Ok(())
    }

    /// A namespace of the caller's own, gone when the guard is dropped.
    pub fn namespace(&self, prefix: &str) -> anyhow::Result<Namespace<'_>> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{prefix}-{}-{number}", std::process::id());
        self.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}"))?;
        let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        wait::until("the namespace's service account", wait::SOON, || self.get(&account).map(|_| true))?;
        Ok(Namespace { cluster: self, name })
    }

    /// Breaks something until the guard is dropped.
    pub fn inject(&self, fault: Fault) -> anyhow::Result<Injected<'_>> {
        fault.inject(self)?;
        Ok(Injected::new(self, fault))
    }
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            name: Cluster::name(),
            nodes: 2,
            runtime: Runtime::default(),
            oci_runtimes: vec!["runc".to_owned(), "crun".to_owned()],
            owner: None,
            api_server_flags: Vec::new(),
            // A node that is cut off is noticed after a quarter of the usual time.
            controller_manager_flags: ["--node-monitor-grace-period=12s", "--node-monitor-period=1s"]
                .map(str::to_owned)
                .to_vec(),
        }
    }
}

/// A namespace that is deleted when this is dropped.
#[derive(Debug)]
pub struct Namespace<'a> {
    cluster: &'a Cluster,
    name: String,
}

impl Namespace<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Applies manifests in it.
    pub fn apply(&self, yaml: &str) -> anyhow::Result<()> {
        let documents = yaml.split("\n---\n").map(|document| {
            // Inserted as text, so that a manifest in a test reads as users write it.
            document.replacen("metadata: {", &format!("metadata: {{namespace: {}, ", self.name), 1)
        });
        self.cluster.apply(&documents.collect::<Vec<_>>().join("\n---\n"))
    }

    /// A pod of it.
    pub fn pod(&self, pod: &str) -> anyhow::Result<Value> {
        self.cluster.get(&format!("/api/v1/namespaces/{}/pods/{pod}", self.name))
    }

    /// Waits until all containers of a pod run (init containers only if they stay) and are ready.
    /// When that takes too long, the error says what the pod's status and events are.
    pub fn wait_until_running(&self, pod: &str) -> anyhow::Result<()> {
        let running = || {
            let object = self.pod(pod)?;
            let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
            Ok(conditions
                .iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True"))
        };
        wait::until(&format!("pod {pod} to run"), Duration::from_mins(1), running).with_context(|| {
            let status = self.pod(pod).map(|pod| pod["status"].to_string()).unwrap_or_default();
            format!("status: {status}\nevents:\n{}", self.events().unwrap_or_default())
        })
    }

    /// What happened in it, a line each.
    pub fn events(&self) -> anyhow::Result<String> {
        output(&mut self.cluster.kubectl(&["--namespace", &self.name, "events", "--no-headers"]))
    }

    /// Deletes a pod and waits until it is gone.
    pub fn delete_pod(&self, pod: &str) -> anyhow::Result<()> {
        let path = format!("/api/v1/namespaces/{}/pods/{pod}", self.name);
        self.cluster.request("DELETE", &format!("{path}?gracePeriodSeconds=0"))?;
        wait::until(&format!("pod {pod} to go"), wait::SOON, || {
            Ok(self.cluster.request("GET", &path)?.0 == 404)
        })
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        // Nobody waits for it: the next namespace has another name.
        let _ = self.cluster.request("DELETE", &format!("/api/v1/namespaces/{}", self.name));
    }
}

//! The one process of the host that a cluster needs: it holds the machines' disks in a mount
//! namespace of its own, so that they outlive a machine's reboot, starts the machines, and forwards
//! their ports to loopback. With its end, however it comes, the machines end as well.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde::{Deserialize, Serialize};

use crate::cgroups::{self, Cgroups};
use crate::components::Components;
use crate::lifecycle::{self, Description};
use crate::machine::{BOOTED, CONTROL_PLANE, PLUGGED, Spec};
use crate::network;
use crate::paths::{Cache, State, read_json, write_json};
use crate::process::Process;
use crate::wait;

/// The file in a machine's folder that says which process it is.
pub(crate) const PROCESS: &str = "process.json";
/// The file that says where the machines' cgroups lie.
pub(crate) const CGROUPS: &str = "cgroups.json";
/// What the keeper is told when the start has succeeded.
pub(crate) const PROMISE: &[u8] = b"up\n";

/// The machines' disks: folder, size, and the folders on it.
const DISKS: &[(&str, &str, &[&str])] =
    &[("disk", "4g", &["etcd", "kubelet", "containerd", "containers"]), ("checkpoints", "2g", &[])];

/// What is written down of a keeper, for those who look for it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) process: Process,
    pub(crate) api_port: u16,
    /// The kubelets' ports, in the nodes' order.
    pub(crate) kubelet_ports: Vec<u16>,
}

/// A running keeper.
#[derive(Debug, Clone)]
pub struct Keeper {
    /// Its process.
    pub process: Process,
    /// Where the host reaches the API server.
    pub api_port: u16,
    /// Where the host reaches the kubelets, in the nodes' order.
    pub kubelet_ports: Vec<u16>,
    state: State,
}

impl Keeper {
    /// The keeper of a cluster, if it lives.
    pub fn find(state: &State) -> anyhow::Result<Self> {
        let record: Record = read_json(&state.keeper()).context("the cluster is not up")?;
        ensure!(record.process.is_alive(), "the cluster's keeper has died; take the cluster down");
        let Record { process, api_port, kubelet_ports } = record;
        Ok(Self { process, api_port, kubelet_ports, state: state.clone() })
    }

    /// Powers a machine on, and waits until it is plugged in.
    pub fn boot(&self, machine: &str) -> anyhow::Result<()> {
        self.ask(&format!("boot {machine}"))
    }

    /// Powers a machine off: no process of it, nothing in its memory and no connection survives.
    pub fn power_off(&self, machine: &str) -> anyhow::Result<()> {
        self.ask(&format!("off {machine}"))
    }

    fn ask(&self, what: &str) -> anyhow::Result<()> {
        let mut line =
            UnixStream::connect_addr(&socket_of(&self.state)?).context("cannot reach the keeper")?;
        writeln!(line, "{what}")?;
        let mut answer = String::new();
        BufReader::new(line).read_to_string(&mut answer)?;
        match answer.trim() {
            "done" => Ok(()),
            other => bail!("{what}: {other}"),
        }
    }
}

/// An abstract name: it needs no file, and ends with its process.
fn socket_of(state: &State) -> anyhow::Result<UnixAddress> {
    Ok(UnixAddress::from_abstract_name(format!("checkpoint-keeper-cluster-{}", state.identity()))?)
}

/// Runs as the keeper until the cluster's end.
pub(crate) fn run(state: &State, owner: Option<i32>) -> anyhow::Result<()> {
    let owner = match owner {
        Some(pid) => Some(Process::find(pid).context("the cluster's owner has ended already")?),
        None => None,
    };
    let cluster: Description = read_json(&state.description())?;
    let parents = cgroups::parents(state)?;
    write_json(&state.root().join(CGROUPS), &parents)?;
    for name in machine_names(&cluster) {
        make_disks(state, &name)?;
    }
    let socket = UnixListener::bind_addr(&socket_of(state)?).context("cannot listen for requests")?;
    let api_port = forward(state, CONTROL_PLANE, 6443)?;
    let kubelet_ports = cluster
        .nodes
        .iter()
        .map(|node| forward(state, &node.name, 10_250))
        .collect::<anyhow::Result<Vec<u16>>>()?;
    end_with(state.clone(), cluster.clone(), owner);
    write_json(&state.keeper(), &Record { process: Process::current()?, api_port, kubelet_ports })?;
    let components = Components::provide(&Cache::of_user()?, cluster.runtime)?;
    let machines = Machines { state: state.clone(), cluster, components, parents };
    // On this thread, as machines end with the thread that started them.
    for line in socket.incoming() {
        if let Err(error) = line.map_err(Into::into).and_then(|line| machines.serve(line)) {
            eprintln!("a request failed: {error:#}");
        }
    }
    Ok(())
}

fn machine_names(cluster: &Description) -> Vec<String> {
    let nodes = cluster.nodes.iter().map(|node| node.name.clone());
    std::iter::once(CONTROL_PLANE.to_owned()).chain(nodes).collect()
}

fn make_disks(state: &State, machine: &str) -> anyhow::Result<()> {
    std::fs::create_dir_all(state.logs(machine))?;
    for (name, size, folders) in DISKS {
        let at = state.machine(machine).join(name);
        std::fs::create_dir_all(&at)?;
        let options = std::ffi::CString::new(format!("mode=700,size={size}"))?;
        mount("tmpfs", &at, "tmpfs", MountFlags::empty(), options.as_c_str())
            .with_context(|| format!("cannot mount {}", at.display()))?;
        for folder in *folders {
            std::fs::create_dir(at.join(folder))?;
        }
    }
    Ok(())
}

/// Takes the cluster down when whoever starts it goes away before it is up, or when its owner ends.
fn end_with(state: State, cluster: Description, owner: Option<Process>) {
    std::thread::spawn(move || {
        let mut heard = Vec::new();
        let _ = std::io::stdin().take(PROMISE.len() as u64).read_to_end(&mut heard);
        if heard == PROMISE {
            let Some(owner) = owner else { return };
            while owner.is_alive() {
                std::thread::sleep(Duration::from_millis(200));
            }
        }
        eprintln!("nobody wants this cluster any more");
        for machine in machine_names(&cluster) {
            for (disk, ..) in DISKS {
                // The machines look at it still; it goes with them.
                let _ = unmount(state.machine(&machine).join(disk), UnmountFlags::DETACH);
            }
        }
        if let Err(error) = lifecycle::tear_down(&state) {
            eprintln!("cannot take it down: {error:#}");
        }
        std::process::exit(1);
    });
}

/// The machines, as the keeper starts and stops them.
struct Machines {
    state: State,
    cluster: Description,
    components: Components,
    parents: Vec<std::path::PathBuf>,
}

impl Machines {
    fn serve(&self, mut line: UnixStream) -> anyhow::Result<()> {
        let mut request = String::new();
        BufReader::new(&line).read_line(&mut request)?;
        let outcome = match request.trim().split_once(' ') {
            Some(("boot", machine)) => self.boot(machine),
            Some(("off", machine)) => self.power_off(machine),
            _ => Err(anyhow::anyhow!("not understood")),
        };
        match outcome {
            Ok(()) => writeln!(line, "done")?,
            Err(error) => writeln!(line, "{error:#}")?,
        }
        Ok(())
    }

    fn boot(&self, machine: &str) -> anyhow::Result<()> {
        let names = machine_names(&self.cluster);
        ensure!(
            names.iter().any(|name| name == machine),
            "there is no machine {machine:?}; there are {names:?}"
        );
        ensure!(process_of(&self.state, machine).is_err(), "{machine} runs already");
        let folder = self.state.machine(machine);
        for file in [BOOTED, PLUGGED, PROCESS] {
            let _ = std::fs::remove_file(folder.join(file));
        }
        let spec = Spec {
            name: machine.to_owned(),
            state: self.state.root().to_owned(),
            debian: self.components.debian.clone(),
            kubernetes: self.components.kubernetes.clone(),
            crio: self.components.crio.clone(),
            cluster: self.cluster.clone(),
        };
        write_json(&folder.join("machine.json"), &spec)?;
        let cgroups = Cgroups::of(&self.parents, machine);
        cgroups.make()?;
        cgroups.clear()?;
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.state.logs(machine).join("init.log"))?;
        let mut child = Command::new(program_of(rustix::process::getpid()))
            .args(["launch", "--state"])
            .arg(self.state.root())
            .arg(machine)
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let launcher = Process::find(i32::try_from(child.id())?);
        let first = wait::for_value("the machine's first process", wait::SOON, || {
            let init = self.state.logs(machine).join("init.log");
            if let Some(status) = child.try_wait()? {
                bail!("it ended ({status}): {}", std::fs::read_to_string(init).unwrap_or_default());
            }
            Ok(launcher.and_then(|launcher| launcher.children().first().copied()))
        })?;
        // Reaped when it ends, so that it does not stay as a zombie.
        std::thread::spawn(move || child.wait());
        write_json(&folder.join(PROCESS), &first)?;
        wait::until(&format!("{machine} to boot"), wait::SOON, || {
            ensure!(first.is_alive(), "it died; see {}", self.state.logs(machine).display());
            Ok(folder.join(BOOTED).exists())
        })?;
        self.plug(machine, first)?;
        Ok(std::fs::write(folder.join(PLUGGED), "")?)
    }

    fn plug(&self, machine: &str, process: Process) -> anyhow::Result<()> {
        if let Some(node) = self.cluster.nodes.iter().find(|node| node.name == machine) {
            let control_plane = process_of(&self.state, CONTROL_PLANE)?;
            return network::plug(control_plane, process, node, &self.cluster);
        }
        network::route_to_all(process, &self.cluster)?;
        // A control plane that was powered off took the other ends of the cables with it.
        for node in &self.cluster.nodes {
            if let Ok(running) = process_of(&self.state, &node.name) {
                network::plug(process, running, node, &self.cluster)?;
            }
        }
        Ok(())
    }

    fn power_off(&self, machine: &str) -> anyhow::Result<()> {
        let process = process_of(&self.state, machine)?;
        process.signal(Signal::KILL)?;
        let cgroups = Cgroups::of(&self.parents, machine);
        wait::until(&format!("the end of {machine}"), wait::SOON, || {
            cgroups.thaw();
            Ok(!process.is_alive())
        })
    }
}

/// The program of a process, also if its file was replaced by a newer one since.
fn program_of(process: rustix::process::Pid) -> std::path::PathBuf {
    format!("/proc/{}/exe", process.as_raw_nonzero()).into()
}

/// A machine's first process, if it runs.
pub(crate) fn process_of(state: &State, machine: &str) -> anyhow::Result<Process> {
    let not_running = || format!("{machine} does not run");
    let process: Process = read_json(&state.machine(machine).join(PROCESS)).with_context(not_running)?;
    ensure!(process.is_alive(), not_running());
    Ok(process)
}

/// Becomes a machine's first process: in its cgroups, below namespaces of its own.
pub(crate) fn launch(state: &State, machine: &str) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    // The machine ends with the keeper, also when that is killed.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let parents: Vec<std::path::PathBuf> = read_json(&state.root().join(CGROUPS))?;
    Cgroups::of(&parents, machine).join()?;
    let error = Command::new("unshare")
        .args(["--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "--net", "--cgroup"])
        .args(["--propagation", "private"])
        .arg(program_of(rustix::process::getppid().context("the keeper has ended")?))
        .arg("machine")
        .arg(state.machine(machine).join("machine.json"))
        .exec();
    Err(error).context("cannot become a machine")
}

/// Forwards a port of loopback to one of a machine's loopback, and says which.
fn forward(state: &State, machine: &str, port: u16) -> anyhow::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
    let bound = listener.local_addr()?.port();
    let (state, machine) = (state.clone(), machine.to_owned());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (state, machine) = (state.clone(), machine.clone());
            // A machine that is off or hangs up: the client sees its connection end.
            std::thread::spawn(move || connect(&state, &machine, port, &stream));
        }
    });
    Ok(bound)
}

fn connect(state: &State, machine: &str, port: u16, client: &TcpStream) -> anyhow::Result<()> {
    let process = process_of(state, machine)?;
    let network = std::fs::File::open(Path::new("/proc").join(process.pid.to_string()).join("ns/net"))?;
    // Only this thread, which ends with the connection.
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))?;
    let server = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let (from, mut to) = (client.try_clone()?, server.try_clone()?);
    let upward = std::thread::spawn(move || copy(from, &mut to));
    copy(server, &mut client.try_clone()?);
    let _ = upward.join();
    Ok(())
}

fn copy(mut from: TcpStream, to: &mut TcpStream) {
    let _ = std::io::copy(&mut from, to);
    let _ = to.shutdown(std::net::Shutdown::Write);
}

//! The cluster by hand: `cargo xtask cluster …`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use clap::{Args, Parser, Subcommand};

use crate::cluster::Cluster;
use crate::components;
use crate::fault::{Daemon, Fault};
use crate::keeper::{self, Keeper};
use crate::lifecycle::{self, Wanted};
use crate::machine::{self, CONTROL_PLANE};
use crate::paths::{Cache, State};
use crate::runtime::Runtime;

/// A real throw-away Kubernetes cluster on this machine, in namespaces of its own.
#[derive(Debug, Parser)]
#[command(
    name = "cluster",
    bin_name = "cargo xtask cluster",
    arg_required_else_help = true,
    max_term_width = 100
)]
struct Arguments {
    /// Which cluster: several of different names do not meet
    #[arg(long, global = true, env = Cluster::NAME, default_value = Cluster::SHARED, value_parser = parse_name)]
    name: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Bring it up and wait until every node is Ready; what it is made of is made once
    Up(Up),
    /// End everything of it, and leave nothing behind
    Down {
        /// Keep what its daemons said, and say where
        #[arg(long)]
        keep_logs: bool,
    },
    /// Show its machines
    Status,
    /// Make what machines are made of, without starting any
    Provide(Wish),
    /// Run a program in a machine
    Exec {
        /// control-plane, node-1, …
        machine: String,
        /// The program and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<String>,
    },
    /// Run kubectl as the administrator
    Kubectl {
        /// Its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Have a kubelet checkpoint a container
    Checkpoint {
        /// Which node's kubelet
        node: String,
        /// The pod's namespace
        namespace: String,
        /// The pod
        pod: String,
        /// The container
        container: String,
    },
    /// Make an image of one program and import it on every node
    Load {
        /// The image, as `docker load` takes it; busybox is there as checkpoint-keeper.test/busybox:1
        archive: PathBuf,
    },
    /// Break something, mend it, or kill a daemon that then restarts
    #[command(subcommand)]
    Fault(FaultCommand),
    /// Runs as the keeper of a cluster
    #[command(hide = true)]
    Keeper {
        #[arg(long)]
        state: PathBuf,
        #[arg(long)]
        owner: Option<i32>,
    },
    /// Becomes a machine
    #[command(hide = true)]
    Launch {
        #[arg(long)]
        state: PathBuf,
        machine: String,
    },
    /// Runs as a machine's first process
    #[command(hide = true)]
    Machine { spec: PathBuf },
}

#[derive(Debug, Args)]
struct Wish {
    /// The nodes' container runtime
    #[arg(long, value_enum, env = Runtime::VARIABLE, default_value_t)]
    runtime: Runtime,
}

#[derive(Debug, Args)]
struct Up {
    #[command(flatten)]
    wish: Wish,
    /// How many nodes
    #[arg(long, default_value_t = 2)]
    nodes: u8,
    /// The nodes' OCI runtimes, in turn
    #[arg(long, value_delimiter = ',', default_values = ["runc", "crun"], value_parser = ["runc", "crun"])]
    oci_runtime: Vec<String>,
    /// End it with the end of this process
    #[arg(long, value_name = "PID")]
    owner: Option<i32>,
    /// A further flag for the API server; may be given several times
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    api_server_flag: Vec<String>,
    /// A further flag for the controller manager; may be given several times
    #[arg(long, value_name = "FLAG", allow_hyphen_values = true)]
    controller_manager_flag: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum FaultCommand {
    /// Break something
    #[command(subcommand)]
    Inject(Fault),
    /// Mend what was broken
    #[command(subcommand)]
    Undo(Fault),
    /// Kill a daemon; it is back half a second later
    Kill {
        /// Where
        machine: String,
        /// Which
        daemon: Daemon,
    },
}

/// The exit code that says that this machine lacks something.
const CANNOT: u8 = 3;

/// Runs the command line of this process.
pub fn run() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let state = Cache::of_user()?.cluster(&arguments.name);
    let open = || Cluster::open(&state);
    if let Command::Up(Up { wish, .. }) | Command::Provide(wish) = &arguments.command {
        let missing = components::missing(wish.runtime);
        if !missing.is_empty() {
            eprintln!("this machine cannot run the test cluster; it lacks: {}", missing.join(", "));
            return Ok(ExitCode::from(CANNOT));
        }
    }
    match arguments.command {
        Command::Up(up) => {
            let program = std::env::current_exe()?;
            let cluster = lifecycle::up(&wanted(up, arguments.name), &program)?;
            println!("export KUBECONFIG={}", cluster.state().kubeconfig().display());
        }
        Command::Down { keep_logs } => {
            if keep_logs {
                eprintln!("{}", lifecycle::keep_logs(&state));
            }
            lifecycle::down(&state)?;
        }
        Command::Status => status(&state)?,
        Command::Provide(wish) => {
            components::Components::provide(&Cache::of_user()?, wish.runtime)?;
        }
        Command::Exec { machine, command } => {
            let (program, arguments) = command.split_first().context("no program is named")?;
            return code(open()?.command(&machine, program)?.args(arguments));
        }
        Command::Kubectl { arguments } => {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            return code(open()?.kubectl(&arguments).stdin(std::process::Stdio::inherit()));
        }
        Command::Checkpoint { node, namespace, pod, container } => {
            let checkpoint = open()?.node(&node)?.checkpoint(&namespace, &pod, &container)?;
            println!("{} {}", checkpoint.status, checkpoint.body);
            ensure!(checkpoint.status == 200, "the kubelet made no checkpoint");
        }
        Command::Load { archive } => open()?.load(&archive)?,
        Command::Fault(FaultCommand::Inject(fault)) => fault.inject(&open()?)?,
        Command::Fault(FaultCommand::Undo(fault)) => fault.undo(&open()?)?,
        Command::Fault(FaultCommand::Kill { machine, daemon }) => drop(open()?.kill(&machine, daemon)?),
        Command::Keeper { state, owner } => keeper::run(&State::at(state), owner)?,
        Command::Launch { state, machine } => keeper::launch(&State::at(state), &machine)?,
        Command::Machine { spec } => machine::run(&spec)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn wanted(up: Up, name: String) -> Wanted {
    let usual = Wanted::default();
    let flags = [usual.controller_manager_flags, up.controller_manager_flag].concat();
    Wanted {
        name,
        nodes: up.nodes,
        runtime: up.wish.runtime,
        oci_runtimes: up.oci_runtime,
        owner: up.owner,
        api_server_flags: up.api_server_flag,
        controller_manager_flags: flags,
    }
}

/// Part of a file's, a cgroup's and a socket's name.
fn parse_name(text: &str) -> Result<String, String> {
    let plain = |sign: char| sign.is_ascii_lowercase() || sign.is_ascii_digit() || sign == '-';
    let sound = !text.is_empty() && text.len() <= 30 && text.chars().all(plain);
    if sound { Ok(text.to_owned()) } else { Err("takes small letters, digits and -".to_owned()) }
}

fn status(state: &State) -> anyhow::Result<()> {
    let keeper = Keeper::find(state)?;
    let cluster = Cluster::open(state)?;
    let shown = |machine: &str| match cluster.machine(machine) {
        Ok(process) => format!("process {}", process.pid),
        Err(_) => "off".to_owned(),
    };
    println!(
        "{CONTROL_PLANE:<14} {:<12} {:<16} 127.0.0.1:{}",
        "10.77.0.1",
        shown(CONTROL_PLANE),
        keeper.api_port
    );
    let runtime = cluster.description().runtime.name();
    for (node, port) in cluster.description().nodes.iter().zip(&keeper.kubelet_ports) {
        let (name, oci) = (&node.name, &node.oci_runtime);
        println!("{name:<14} {:<12} {:<16} 127.0.0.1:{port} {runtime} {oci}", node.ip(), shown(name));
    }
    Ok(())
}

/// Runs a program of the terminal's.
fn code(command: &mut std::process::Command) -> anyhow::Result<ExitCode> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

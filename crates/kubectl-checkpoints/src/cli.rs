//! What can be asked for on the command line.

#![allow(
    clippy::doc_markdown,
    reason = "the comments are also the help text, which shows backticks as they are"
)]

use std::path::PathBuf;
use std::time::Duration;

use checkpoint_keeper_core::duration;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Lists, explains, protects and previews container checkpoints.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl checkpoints",
    bin_name = "kubectl checkpoints",
    version,
    arg_required_else_help = true,
    max_term_width = 100
)]
pub struct Arguments {
    /// What all commands have.
    #[command(flatten, next_help_heading = "Options of all commands")]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What all commands have.
#[derive(Debug, Args)]
pub struct Global {
    /// Reach the cluster by this kubeconfig; without it, by KUBECONFIG or ~/.kube/config
    #[arg(long, value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Use this context of the kubeconfig; without it, the current one
    #[arg(long, value_name = "NAME", global = true)]
    pub context: Option<String>,
    /// Work in this namespace; without it, in that of the context
    #[arg(long, short, value_name = "NAME", global = true)]
    pub namespace: Option<String>,
    /// Act as this user, as far as you may impersonate others
    #[arg(long = "as", value_name = "USER", global = true)]
    pub impersonate: Option<String>,
    /// Look for the agents in this namespace, where checkpoint-keeper is installed
    #[arg(long, value_name = "NAME", default_value = checkpoint_keeper_api::NAMESPACE, global = true)]
    pub operator_namespace: String,
    /// Ask the agent at this address, rather than through a forwarded port of its pod
    #[arg(long, value_name = "ADDRESS:PORT", global = true)]
    pub agent_address: Option<String>,
    /// Give up a request after this time
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_duration, global = true)]
    pub request_timeout: Duration,
    /// Choose when to use colours
    #[arg(long, value_name = "WHEN", default_value = "auto", global = true)]
    pub color: Color,
}

/// Whether to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// Colours on a terminal, and none elsewhere
    Auto,
    /// Colours everywhere
    Always,
    /// No colours
    Never,
}

impl Color {
    /// Has all output go by it.
    pub fn apply(self) {
        match self {
            Self::Auto => {}
            Self::Always => anstream::ColorChoice::Always.write_global(),
            Self::Never => anstream::ColorChoice::Never.write_global(),
        }
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List checkpoints
    List(List),
    /// Show all that is known of a checkpoint
    Show(Show),
    /// Say what becomes of an archive and why, rule by rule, and what would take it next
    Explain(Explain),
    /// Show what is to be deleted; with -f, what would change if these policies were applied
    Plan(Plan),
    /// Show what checkpoints use, by node, namespace or workload
    Usage(Usage),
    /// Keep a checkpoint from every rule
    Pin(Pin),
    /// End what pin began
    Unpin(Unpin),
    /// Have a checkpoint deleted
    Discard(Discard),
    /// Make a checkpoint of a pod's containers now
    Create(Create),
    /// Look for what is wrong, with a hint for each finding
    ///
    /// Each finding is ok, unknown (it could not be seen), a warning or an error. The exit code is 1 where there is an
    /// error, and 0 otherwise.
    Doctor,
    /// Print a script that completes commands and names in a shell
    Completion(Completion),
    /// Write manual pages, one for each command
    Man(Man),
    /// Print the version
    Version,
    /// What completes the words of a command line
    #[command(name = "__complete", hide = true)]
    Complete(Complete),
}

/// A format for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DataFormat {
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// What `list` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ListFormat {
    /// A table with more columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// The names alone, one a line
    Name,
}

impl ListFormat {
    /// The format for programs; none: it is one for people, or names.
    pub fn data(self) -> Option<DataFormat> {
        match self {
            Self::Json => Some(DataFormat::Json),
            Self::Yaml => Some(DataFormat::Yaml),
            Self::Wide | Self::Name => None,
        }
    }
}

/// What `explain` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExplainFormat {
    /// A table that has the rules that do not apply as well
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

impl ExplainFormat {
    /// The format for programs; none: it is one for people.
    pub fn data(self) -> Option<DataFormat> {
        match self {
            Self::Json => Some(DataFormat::Json),
            Self::Yaml => Some(DataFormat::Yaml),
            Self::Wide => None,
        }
    }
}

/// What `plan` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanFormat {
    /// A table with the names of files, of which nothing is shortened
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

impl PlanFormat {
    /// The format for programs; none: it is one for people.
    pub fn data(self) -> Option<DataFormat> {
        match self {
            Self::Json => Some(DataFormat::Json),
            Self::Yaml => Some(DataFormat::Yaml),
            Self::Wide => None,
        }
    }
}

/// By what a list is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SortBy {
    /// By name
    Name,
    /// The newest first
    Age,
    /// The largest first
    Size,
    /// By node, and on each by name
    Node,
}

/// `list`.
#[derive(Debug, Args)]
pub struct List {
    /// List the checkpoints of all namespaces
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// List all archives on this node, with what becomes of each, as its agent knows them; needs the right to forward a port of the agent's pod
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// List only checkpoints of this pod
    #[arg(long, value_name = "NAME")]
    pub pod: Option<String>,
    /// List only checkpoints of containers of this name
    #[arg(long, value_name = "NAME")]
    pub container: Option<String>,
    /// List only checkpoints whose own labels match this selector: checkpoint-keeper.io/node, and what users add. They do not have their pods' labels
    #[arg(long, short = 'l', value_name = "SELECTOR", conflicts_with = "node")]
    pub selector: Option<String>,
    /// List only checkpoints whose fields match this selector: status.nodeName=worker-1, status.podName, status.containerName or status.state
    #[arg(long, value_name = "SELECTOR", conflicts_with = "node")]
    pub field_selector: Option<String>,
    /// Sort the checkpoints in this order
    #[arg(long, value_name = "ORDER", default_value = "age")]
    pub sort_by: SortBy,
    /// Print the checkpoints in this format
    #[arg(long, short, value_name = "FORMAT")]
    pub output: Option<ListFormat>,
}

/// `show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The name of a ContainerCheckpoint, or of its archive's file
    pub name: String,
    /// Print the checkpoint in this format
    #[arg(long, short, value_name = "FORMAT")]
    pub output: Option<DataFormat>,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The name of a ContainerCheckpoint, or of its archive's file; with --node, of any archive's file there
    pub archive: String,
    /// Explain the file of that name on this node, which needs no ContainerCheckpoint
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Print the explanation in this format
    #[arg(long, short, value_name = "FORMAT")]
    pub output: Option<ExplainFormat>,
}

/// `plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// Show what would change if the policies in this file were applied; may be given several times, and - is standard input
    #[arg(long = "filename", short = 'f', value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// Show what the older operator's objects (criu.org/v1 CheckpointRestoreOperator) will mean here once it has ended
    #[arg(long, conflicts_with = "files")]
    pub from_older_operator: bool,
    /// Show the plan of this node only
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Print the plan in this format
    #[arg(long, short, value_name = "FORMAT")]
    pub output: Option<PlanFormat>,
}

/// By what usage is added up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// By node
    Node,
    /// By the namespace of the pods
    Namespace,
    /// By the topmost owner of the pods, such as a Deployment
    Workload,
}

/// `usage`.
#[derive(Debug, Args)]
pub struct Usage {
    /// Add usage up by this
    #[arg(long, value_name = "WHAT", default_value = "namespace")]
    pub by: By,
    /// Add up the checkpoints of all namespaces, as is done by node and by namespace unless --namespace names one
    #[arg(long, short = 'A')]
    pub all_namespaces: bool,
    /// Print the figures in this format
    #[arg(long, short, value_name = "FORMAT")]
    pub output: Option<DataFormat>,
}

/// `pin`.
#[derive(Debug, Args)]
pub struct Pin {
    /// The names of ContainerCheckpoints, or of their archives' files
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Say why, for other people
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// End the hold at this time, such as 2027-01-01T00:00:00Z, or after this length of time, such as 30d; without it, never
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Do not wait until the archive is held
    #[arg(long)]
    pub no_wait: bool,
}

/// `unpin`.
#[derive(Debug, Args)]
pub struct Unpin {
    /// The names of ContainerCheckpoints, or of their archives' files
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Do not wait until the hold has ended
    #[arg(long)]
    pub no_wait: bool,
}

/// `discard`.
#[derive(Debug, Args)]
pub struct Discard {
    /// The names of ContainerCheckpoints, or of their archives' files
    #[arg(required = true)]
    pub names: Vec<String>,
    /// Say why, for other people
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Delete without a question
    #[arg(long, short)]
    pub yes: bool,
    /// Do not wait until the archive is gone
    #[arg(long)]
    pub no_wait: bool,
}

/// How much of a change is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DryRun {
    /// All of it
    None,
    /// Nothing is sent; it is only said what would be
    Client,
    /// The API server checks it, and does not store it
    Server,
}

/// `create`.
#[derive(Debug, Args)]
pub struct Create {
    /// The name of the pod
    pub pod: String,
    /// Wait for the checkpoint of this container only; which containers are checkpointed is up to the schedule
    #[arg(long, short, value_name = "NAME", requires = "wait")]
    pub container: Option<String>,
    /// Wait until it is known what came of it
    #[arg(long)]
    pub wait: bool,
    /// Say what would be annotated, and ask for no checkpoint
    #[arg(long, value_name = "WHERE", default_value = "none", conflicts_with = "wait")]
    pub dry_run: DryRun,
    /// Give up waiting after this time; the checkpoint is then tried on
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration, requires = "wait")]
    pub timeout: Duration,
}

/// `completion`.
#[derive(Debug, Args)]
pub struct Completion {
    /// The shell; none: the script by which kubectl itself completes `kubectl checkpoints`, with the names of objects
    pub shell: Option<Shell>,
}

/// `man`.
#[derive(Debug, Args)]
pub struct Man {
    /// The directory to write the pages to, which is made if it is not there
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
}

/// `__complete`.
#[derive(Debug, Args)]
pub struct Complete {
    /// The words of the command line after `--`, the last one unfinished
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub words: Vec<String>,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|error| error.to_string())
}

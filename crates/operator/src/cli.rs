//! What can be asked for on the command line.

// What documents an option is what the help shows: plain text.
#![allow(clippy::doc_markdown)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use checkpoint_keeper_api::AGENT_VIEW_PORT;
use checkpoint_keeper_core::duration;
use checkpoint_keeper_core::schedule::MOST_DUMPS;
use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum, value_parser};
use jiff::Timestamp;

use crate::logging::LogArguments;
use checkpoint_keeper_runtime::cluster;
use checkpoint_keeper_runtime::other_operator::OTHER_OPERATOR_NAMESPACES;

/// Where the kubelet writes checkpoint archives.
const KUBELET_DIRECTORY: &str = "/var/lib/kubelet/checkpoints";

/// Decides which container checkpoints stay, deletes the others, and says why.
#[derive(Debug, Parser)]
#[command(name = "checkpoint-keeper", version, arg_required_else_help = true, max_term_width = 100)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "there is one, once")]
pub enum Command {
    /// Delete what the policies do not keep, in one directory; a cluster is only asked, and only if given
    #[command(after_help = GC_HELP)]
    Gc(GcArguments),
    /// Show what an archive is: whose checkpoint, when, how large, whether it is complete
    #[command(after_help = INSPECT_HELP)]
    Inspect(InspectArguments),
    /// Collect on this node, as the policies of the cluster say, until told to end
    #[command(after_help = AGENT_HELP)]
    Agent(AgentArguments),
    /// Say in every policy object whether it is in force, and clear up after nodes that are gone;
    /// of several replicas one works
    #[command(after_help = CONTROLLER_HELP)]
    Controller(ControllerArguments),
    /// Print the custom resource definitions
    Crds,
    /// Print a script that completes commands and options in a shell
    #[command(after_help = COMPLETION_HELP)]
    Completion(CompletionArguments),
    /// Write manual pages, one for each command
    Man(ManArguments),
    /// Print the version
    Version,
}

const GC_HELP: &str = "\
Examples:
  See what would happen, and change nothing:
    checkpoint-keeper gc --dry-run --policy policy.yaml
  See what will be kept in a month:
    checkpoint-keeper gc --dry-run --policy policy.yaml --now 2027-01-01T00:00:00Z
  Delete what the policy does not keep, without being asked, and record each deletion:
    checkpoint-keeper gc --policy policy.yaml --yes --audit /var/log/checkpoint-keeper.json
  Keep a directory tidy for as long as this runs:
    checkpoint-keeper gc --watch --policy policy.yaml --state /var/lib/checkpoint-keeper/catalog
  Ask why one archive stays or goes, and what would take it next:
    checkpoint-keeper gc --policy policy.yaml --explain checkpoint-web-0_shop-server-2026-11-22T15:59:42Z.tar
  See what an object of the older operator means here, and which archives it would take:
    checkpoint-keeper gc --from-older-operator --policy sample.yaml
  See which archives are orphans by what a cluster says, and since when:
    checkpoint-keeper gc --dry-run --policy policy.yaml --kubeconfig reader.kubeconfig

On a terminal it shows what would go and asks, unless --yes is given. Elsewhere it refuses to delete more than half of
the archives in one run, unless --yes is given; --watch neither asks nor refuses.

An archive with a file <archive>.keep beside it is never deleted.

Exit codes: 0 done; 1 something failed (each failure is named); 2 wrong usage or policy.";

const INSPECT_HELP: &str = "\
Exit codes: 0 done; 1 a path could not be read (each one is named); 2 wrong usage.";

const COMPLETION_HELP: &str = "\
Examples:
  bash: checkpoint-keeper completion bash >/etc/bash_completion.d/checkpoint-keeper
  zsh:  checkpoint-keeper completion zsh >\"${fpath[1]}/_checkpoint-keeper\"
  fish: checkpoint-keeper completion fish >~/.config/fish/completions/checkpoint-keeper.fish";

const AGENT_HELP: &str = "\
Exit codes: 0 told to stop; 1 something failed, or the directory was removed under its mount; 2 wrong usage.";

const CONTROLLER_HELP: &str = "\
Exit codes: 0 told to stop; 1 the lease was lost, or something failed; 2 wrong usage.";

/// How `gc` shows results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// A table that fits the terminal
    Text,
    /// A table with all columns, nothing shortened, and the archives' file names
    Wide,
    /// JSON for programs
    Json,
}

/// How `inspect` shows results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum InspectOutput {
    /// A block of lines for each archive
    Text,
    /// JSON for programs
    Json,
}

/// What `gc` is told.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("only_shows").args(["dry_run", "explain", "from_older_operator"]).multiple(true)))]
pub struct GcArguments {
    /// The directory that archives lie in
    #[arg(default_value = KUBELET_DIRECTORY)]
    pub directory: PathBuf,
    /// A YAML file of policies, of any retention kind; may be given several times; with --watch, it is read again
    /// when it changes, and on SIGHUP
    #[arg(short = 'f', long = "policy", value_name = "FILE", required = true)]
    pub policies: Vec<PathBuf>,
    /// Only show what would be deleted; write nothing at all
    #[arg(long, conflicts_with = "watch")]
    pub dry_run: bool,
    /// Explain the verdict about this one archive, rule by rule, and what would take it next; implies --dry-run
    #[arg(long, value_name = "FILE", conflicts_with = "watch")]
    pub explain: Option<String>,
    /// First say what the older operator's objects (criu.org/v1 CheckpointRestoreOperator) among the policies mean here
    /// that they do not mean there; implies --dry-run
    #[arg(long, conflicts_with_all = ["watch", "explain"])]
    pub from_older_operator: bool,
    /// Go on until stopped: collect whenever something changes
    #[arg(long)]
    pub watch: bool,
    /// Delete without asking; without a terminal: delete also more than half of the archives
    #[arg(long, short)]
    pub yes: bool,
    /// Show results as a table or as JSON; with --watch, each deletion is a line of text or of JSON
    #[arg(long, short, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Append a line of JSON to FILE for each deletion; if that fails later, it is said, and deleting goes on
    #[arg(long, value_name = "FILE")]
    pub audit: Option<PathBuf>,
    /// Decide as if it were that time
    #[arg(long, value_name = "RFC3339", requires = "only_shows")]
    pub now: Option<Timestamp>,
    /// Remember in FILE what was read, so that it need not be read again, and since when what is gone
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Believe this machine's clock although files here are dated ahead of it
    #[arg(long)]
    pub trust_clock: bool,
    /// An archive counts as written once it has been left alone for this long
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub settle: Duration,
    /// With --watch: look at everything this often, however quiet it is
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_interval, requires = "watch")]
    pub interval: Duration,
    /// This node's labels, for storage policies with a nodeSelector
    #[arg(long, value_name = "KEY=VALUE,…", value_delimiter = ',', value_parser = parse_label)]
    pub node_labels: Option<Vec<(String, String)>>,
    /// Ask the cluster of this kubeconfig, by GET alone, about pods, their owners and namespaces:
    /// for orphans, selectors by labels and perWorkload limits
    #[arg(long, value_name = "FILE", group = "cluster")]
    pub kubeconfig: Option<PathBuf>,
    /// Ask the cluster around this pod, by its service account
    #[arg(long, group = "cluster")]
    pub in_cluster: bool,
    /// This node's name, so that keepLatest ends keepLatestFor after the last pod left it
    #[arg(long, value_name = "NAME", requires = "cluster", value_parser = parse_node_name)]
    pub node_name: Option<String>,
}

impl GcArguments {
    /// Whether nothing is to be written.
    pub fn only_shows(&self) -> bool {
        self.dry_run || self.explain.is_some() || self.from_older_operator
    }

    /// Whether there is a cluster to ask.
    pub fn has_cluster(&self) -> bool {
        self.kubeconfig.is_some() || self.in_cluster
    }
}

/// What `agent` is told.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub struct AgentArguments {
    /// This node's name in the cluster
    #[arg(long, env = "NODE_NAME", value_name = "NAME", value_parser = parse_node_name)]
    pub node_name: String,
    /// The options that the agent and the controller share
    #[command(flatten)]
    pub cluster: ClusterArguments,
    /// Policies that could not be confirmed for this long, as the API cannot be watched, delete nothing until they
    /// are; storage policies go on
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_interval)]
    pub policy_staleness: Duration,
    /// The directory that archives lie in
    #[arg(long, default_value = KUBELET_DIRECTORY)]
    pub directory: PathBuf,
    /// Remember in FILE what was read, and how long pods have been gone
    #[arg(long, value_name = "FILE", default_value = "/var/lib/checkpoint-keeper/catalog")]
    pub state: PathBuf,
    /// Look at everything this often, however quiet it is, and ask the API about one more object that may be
    /// gone
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_interval)]
    pub interval: Duration,
    /// An archive counts as written once it has been left alone for this long
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = parse_duration)]
    pub settle: Duration,
    /// Write the status of this node's store no more often than this, unless a problem appears
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_interval)]
    pub status_interval: Duration,
    /// Show at most so many archives of this node as ContainerCheckpoints: those that are pinned, then the newest.
    /// 0: none
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    pub inventory_limit: usize,
    /// Make at most so many checkpoints at once on this node, whatever schedules say; one namespace has all but one of
    /// them at the most
    #[arg(long, value_name = "COUNT", default_value_t = MOST_DUMPS, value_parser = value_parser!(u32).range(1..=100))]
    pub max_concurrent_checkpoints: u32,
    /// Serve every archive, explanations and previews here, for kubectl port-forward: a loopback address, as it names
    /// the pods of all tenants. kubectl checkpoints looks for it at the default port
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_loopback,
        default_value_t = (Ipv4Addr::LOCALHOST, AGENT_VIEW_PORT).into())]
    pub view_listen: SocketAddr,
    /// The node's kubelet, by which checkpoints are made
    #[command(flatten)]
    pub kubelet: KubeletArguments,
    /// What is logged, and how
    #[command(flatten)]
    pub log: LogArguments,
}

/// The options that `agent` and `controller` share.
#[derive(Debug, Args)]
pub struct ClusterArguments {
    /// The namespace that the operator runs in: the controller's lease is there, and the older operator's objects there
    /// govern the cluster
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE", value_parser = NonEmptyStringValueParser::new())]
    pub namespace: String,
    /// Further namespaces in which the older operator's objects govern the cluster
    #[arg(long, value_name = "NAMESPACE,…", value_delimiter = ',')]
    pub cluster_policy_namespaces: Vec<String>,
    /// The namespaces that the older operator may be installed in: while its lease in one of them is being
    /// renewed, what its objects govern is left to it
    #[arg(long = "other-operator-namespace", value_name = "NAMESPACE,…", value_delimiter = ',',
        default_values = OTHER_OPERATOR_NAMESPACES, value_parser = NonEmptyStringValueParser::new())]
    pub other_operator_namespaces: Vec<String>,
    /// Serve /livez, /readyz and /metrics here; the address :: is every one of both families, or of IPv4
    /// alone where there is no IPv6
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "[::]:9464")]
    pub listen: SocketAddr,
    /// Reach the API by this kubeconfig, rather than as a pod of the cluster
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// How an agent reaches the kubelet of its node.
#[derive(Debug, Args)]
pub struct KubeletArguments {
    /// The kubelet's address, at which checkpoints are asked for; without it none are made
    #[arg(long, value_name = "ADDRESS", env = "HOST_IP")]
    pub kubelet_host: Option<IpAddr>,
    /// The kubelet's port
    #[arg(long, value_name = "PORT", default_value_t = 10250)]
    pub kubelet_port: u16,
    /// The token that the kubelet is shown
    #[arg(long, value_name = "FILE", default_value = "/var/run/secrets/kubernetes.io/serviceaccount/token")]
    pub kubelet_token: PathBuf,
    /// The certificates of the authorities that may vouch for the kubelet
    #[arg(long, value_name = "FILE", default_value = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")]
    pub kubelet_authorities: PathBuf,
    /// The kubelet's own certificate, pki/kubelet.crt below its directory, where no authority vouches for it
    #[arg(long, value_name = "FILE")]
    pub kubelet_certificate: Option<PathBuf>,
    /// Show the token to whoever answers at the kubelet's address, without verifying that it is the kubelet
    #[arg(long)]
    pub kubelet_insecure_skip_verify: bool,
}

/// What `inspect` is told.
#[derive(Debug, Args)]
pub struct InspectArguments {
    /// Archives, or directories of archives
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Show results as text or as JSON
    #[arg(long, short, value_enum, default_value_t = InspectOutput::Text)]
    pub output: InspectOutput,
}

/// What `completion` is told.
#[derive(Debug, Args)]
pub struct CompletionArguments {
    /// The shell that the script is for
    #[arg(value_enum)]
    pub shell: clap_complete::Shell,
}

/// What `man` is told.
#[derive(Debug, Args)]
pub struct ManArguments {
    /// The directory to write the pages to, which is made if it is not there
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
}

/// What `controller` is told.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub struct ControllerArguments {
    /// This replica's name, which no other one has
    #[arg(long, value_name = "NAME", env = "POD_NAME", value_parser = NonEmptyStringValueParser::new())]
    pub identity: String,
    /// The options that the agent and the controller share
    #[command(flatten)]
    pub cluster: ClusterArguments,
    /// The directory that agents collect in
    #[arg(long, value_name = "PATH", default_value = KUBELET_DIRECTORY)]
    pub directory: String,
    /// What is logged, and how
    #[command(flatten)]
    pub log: LogArguments,
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    duration::parse(text).map_err(|error| error.to_string())
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval < Duration::from_secs(1) { Err("is below 1s".to_owned()) } else { Ok(interval) }
}

fn parse_loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "is not ADDRESS:PORT".to_owned())?;
    if address.ip().is_loopback() { Ok(address) } else { Err("is no loopback address".to_owned()) }
}

fn parse_node_name(text: &str) -> Result<String, String> {
    if cluster::is_node_name(text) { Ok(text.to_owned()) } else { Err("is no name of a node".to_owned()) }
}

fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("is not KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    /// The chart gives an option by its value, and a user the same one by extraArgs.
    #[test]
    fn of_an_option_that_is_given_twice_the_last_one_counts() {
        let listen = ["--listen=[::]:1", "--listen=[::]:2"];
        let lists = ["--cluster-policy-namespaces=a,b", "--cluster-policy-namespaces=c"];
        for command in ["agent", "controller"] {
            let own: &[&str] = if command == "agent" { &["--node-name=n"] } else { &["--identity=i"] };
            let given = [&["checkpoint-keeper", command, "--namespace=o"][..], own, &listen, &lists].concat();
            let parsed = Arguments::try_parse_from(given).map(|arguments| match arguments.command {
                Command::Agent(agent) => {
                    (agent.cluster.listen.port(), agent.cluster.cluster_policy_namespaces)
                }
                Command::Controller(one) => {
                    (one.cluster.listen.port(), one.cluster.cluster_policy_namespaces)
                }
                other => panic!("{other:?}"),
            });
            let expected = (2, ["a", "b", "c"].map(str::to_owned).to_vec());
            assert_eq!(parsed.map_err(|error| error.to_string()), Ok(expected), "{command}");
        }
    }
}

//! That alerts fire, and only then: promtool runs their tests, and a real Prometheus scrapes real agents and a real
//! controller while the faults that they are about are made one by one.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::machine::CONTROL_PLANE;
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::{Daemon, Fault, Namespace, Node, Runtime, wait};
use checkpoint_keeper_testkit::ArchiveBuilder;
use serde_json::{Value, json};

use crate::agents::{Agent, Applied, checkpoints, copies, keep, next_round, policy};
use crate::alerts_prometheus::{Prometheus, chart_file, programs};
use crate::controller::Replica;
use crate::install;
use crate::schedules::{annotate, answered, schedule};
use crate::support::{
    self, DEADLINE, NODES, REPOSITORY, Watching, cluster, counting_pod, files_of, smuggle,
    wait_until_criu_starts,
};

/// How long the controller waits before it says that an agent is missing, and a little more.
const MISSED: Duration = Duration::from_mins(3);

#[test]
fn promtool_finds_that_each_alert_fires_when_it_should_and_not_otherwise() -> anyhow::Result<()> {
    let promtool = programs()?.promtool;
    output(
        Command::new(&promtool)
            .args(["check", "rules", "--lint=all", "--lint-fatal"])
            .arg(chart_file("alerts.yaml")),
    )?;
    let tests = format!("{REPOSITORY}/tests/monitoring/alerts_test.yaml");
    let said = output(Command::new(&promtool).args(["test", "rules", &tests]))?;
    ensure!(said.contains("SUCCESS"), "{said}");
    Ok(())
}

/// All alerts in one run, as most of the time is spent on pods, archives and the controller's patience. The rules are
/// those of the chart, but that no alert waits and that hours and minutes of looking back are seconds.
#[test]
fn each_alert_fires_in_a_real_prometheus_when_its_fault_is_made() -> anyhow::Result<()> {
    let _alone = NODES.write();
    let nodes = cluster().nodes();
    let (node, other) = (nodes[0], nodes[1]);
    if node.runtime() != Runtime::Containerd {
        // What leaves a container frozen differs, and nothing else here depends on the runtime.
        return Ok(());
    }
    install::agents()?;
    let _emptied = [Emptied::new(node)?, Emptied::new(other)?];
    let operator = cluster().namespace("alerts")?;
    let agents = [node, other].map(|node| (node.name(), format!("{}:9464", node.address())));
    let prometheus = Prometheus::start(&agents, "127.0.0.1:9465")?;
    let replica = Replica::start(operator.name(), "one", 9465)?;
    let other_agent = Agent::start(other)?;
    let begun = Instant::now();
    // Before its agent begins, so that none of its archives makes room for the deletion of another.
    let web = Web::new(node)?;
    let agent = Agent::spawn_by_clock(node, "+0")?;
    // Nothing is wrong yet. A controller that has just begun does not lead at once.
    wait::until("no alert to fire", DEADLINE, || {
        let is_scraped = prometheus.query("checkpoint_keeper_policies_known == 1")?.len() == 2
            && prometheus.query("checkpoint_keeper_leader == 1")?.len() == 1;
        ensure!(is_scraped, "not all is scraped");
        let firing = prometheus.firing()?;
        ensure!(firing.is_empty(), "these fire: {firing:?}");
        Ok(true)
    })?;
    let quiet = Instant::now();
    ensure!(prometheus.fired_since(quiet)?.is_empty());

    std::thread::scope(|scope| {
        let archives = scope.spawn(|| archives(&prometheus, node, &web, agent));
        let disk = scope.spawn(|| disk(&prometheus, other, other_agent));
        for thread in [archives, disk] {
            thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        anyhow::Ok(())
    })?;

    // Both agents have ended.
    prometheus.fires("AgentsNotScraped", "")?;
    dashboards(&prometheus)?;
    // Agents that are no pods are none for the controller.
    wait::until("the missing agents to be told", MISSED.saturating_sub(begun.elapsed()), || {
        prometheus.fires("AgentMissing", &format!(",agent_node={:?}", other.name())).map(|()| true)
    })?;
    replica.stop()?;
    prometheus.fires("ControllerMissing", "")?;
    offline(&prometheus, node, &web)?;

    let rules = std::fs::read_to_string(chart_file("alerts.yaml"))?;
    let all: BTreeSet<String> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).map(str::to_owned).collect();
    let fired = prometheus.fired_since(quiet)?;
    ensure!(fired == all, "these did not fire: {:?}", all.difference(&fired).collect::<Vec<_>>());
    Ok(())
}

/// A node without archives and without a catalog, also when this is dropped: other tests count what is damaged, and a
/// watermark of which it is remembered that it frees nothing holds back.
struct Emptied(Node<'static>);

impl Emptied {
    fn new(node: Node<'static>) -> anyhow::Result<Self> {
        let emptied = Self(node);
        emptied.empty().map(|()| emptied)
    }

    fn empty(&self) -> anyhow::Result<()> {
        let script = "cd \"$1\"; for file in *.tar; do umount -q \"$file\" || true; done
                      rm -f -- * .ballast /var/lib/kubelet/checkpoint-keeper-catalog*";
        self.0.run("sh", &["-ec", script, "sh", self.0.directory()]).map(drop)
    }
}

impl Drop for Emptied {
    fn drop(&mut self) {
        if let Err(error) = self.empty() {
            eprintln!("{} could not be emptied: {error:#}", self.0.directory());
        }
    }
}

/// A pod with many archives.
struct Web {
    namespace: Namespace<'static>,
    files: Vec<String>,
}

impl Web {
    /// More than may go within the time of this test.
    const MANY: usize = 60;

    fn new(node: Node<'_>) -> anyhow::Result<Self> {
        let namespace = cluster().namespace("shop")?;
        namespace.apply(&counting_pod("web", node, &["server"]))?;
        namespace.wait_until_running("web")?;
        let mut files = checkpoints(node, namespace.name(), "web", 1)?;
        files.extend(copies(node, &files[0], Self::MANY)?);
        Ok(Self { namespace, files })
    }
}

/// What is wrong with archives, with the objects that govern them, and with the clock. Afterwards, no agent runs there.
fn archives(prometheus: &Prometheus, node: Node<'_>, web: &Web, agent: Agent<'_>) -> anyhow::Result<()> {
    let of_node = format!(",node={:?}", node.name());
    let shell = |script: &str| node.run("sh", &["-ec", &format!("cd {} && {script}", node.directory())]);
    let (full, broken) = (cluster().namespace("full")?, cluster().namespace("broken")?);

    // The clock is set while the agent works, and set right again.
    node.set_clock("+40d")?;
    prometheus.fires("ClockSuspect", &of_node)?;
    node.set_clock("+0")?;

    // One file is none of ours, one is cut off, and one is old, large and pinned.
    let last = web.files.last().context("no archive")?;
    shell(&format!("head -c 100000 '{last}' >checkpoint-cut-off.tar; echo nothing >checkpoint-foreign.tar"))?;
    let old = ArchiveBuilder::new(full.name(), "db", "engine").at("2026-01-02T03:04:05Z");
    let old = old.write_sparse(&node.checkpoints(), 400 << 20)?;
    let old = old.file_name().context("no name")?.to_string_lossy().into_owned();
    shell(&format!("touch -d 2026-01-02T03:04:05Z '{old}' && touch '{old}.keep'"))?;

    // A marker that lacks the `.tar` of its archive.
    shell("touch checkpoint-misnamed.keep")?;
    prometheus.fires("Problem", &format!("{of_node},type=\"MarkerMisnamed\""))?;

    // Pins make a limit unreachable, the system refuses one deletion, and the other ones wait.
    let (pinned, refused) = (&web.files[web.files.len() - 4..], &web.files[1]);
    for file in pinned {
        shell(&format!("touch '{file}.keep'"))?;
    }
    shell(&format!("mount --bind '{refused}' '{refused}'"))?;
    policy(&web.namespace, "one", &keep(1))?;
    // What was refused waits with the others for its next try.
    let failing = prometheus.fires("DeletionsFailing", &of_node);
    shell(&format!("umount '{refused}'"))?;
    failing?;
    for alert in
        ["ArchivesDamaged", "ArchivesUnreadable", "OldPinsHoldSpace", "LimitUnreachable", "DeletionsWaiting"]
    {
        prometheus.fires(alert, &of_node)?;
    }

    // A policy that does not parse, where it can do no harm.
    policy(&broken, "limit", &keep(10))?;
    let key = format!("/registry/checkpoint-keeper.io/checkpointpolicies/{}/limit", broken.name());
    smuggle(&key, |object| object["spec"]["mode"] = "Gently".into())?;
    prometheus.fires("PolicyInvalid", "")?;

    // A namespace that has as much as one quota allows, and nearly as much as another one does.
    full.apply(&counting_pod("web", node, &["server"]))?;
    full.wait_until_running("web")?;
    let made = checkpoints(node, full.name(), "web", 1)?;
    copies(node, &made[0], 2)?;
    quota(&full, "reached", 4)?;
    quota(&full, "near", 5)?;
    let of_quota = |name: &str| format!(",quota_namespace={:?},quota={name:?}", full.name());
    prometheus.fires("QuotaUsed", &of_quota("reached"))?;
    prometheus.fires("QuotaNearlyUsed", &of_quota("near"))?;
    schedule(full.name(), "on-demand", &json!({"triggers": {"onAnnotation": true}}))?;
    annotate(full.name(), "web", "true")?;
    answered(full.name(), "web")?;
    prometheus.fires("ScheduleFailing", &format!("{of_node},schedule_namespace={:?}", full.name()))?;
    let refused = format!(
        "checkpoint_keeper_schedule_failures{{schedule_namespace={:?},reason=\"QuotaExceeded\"}}",
        full.name()
    );
    ensure!(!prometheus.query(&refused)?.is_empty(), "it fails for another reason than its quota");

    // Another collector takes the directory, and this one has to wait until it has ended.
    agent.stop()?;
    let nothing = support::policy("nothing", NOTHING)?;
    let gc = Watching::start(node, &nothing)?;
    wait::until("gc to have the directory", DEADLINE, || {
        Ok(node.run("pgrep", &["--full", "gc --watch"]).is_ok()
            && node.run("flock", &["--nonblock", node.directory(), "true"]).is_err())
    })?;
    let agent = Agent::spawn(node)?;
    prometheus.fires("TwoCollectors", &of_node)?;
    gc.stop(node)?;
    wait::until("the agent to begin", DEADLINE, || Ok(agent.metric("policies_known")? > 0.0))?;
    agent.stop().map(drop)
}

/// A policy that takes nothing.
const NOTHING: &str = "apiVersion: checkpoint-keeper.io/v1alpha1
kind: ClusterCheckpointPolicy
metadata: {name: nothing}
spec: {retention: {perContainer: {maxCount: 100000}}}
";

fn quota(namespace: &Namespace<'_>, name: &str, count: usize) -> anyhow::Result<()> {
    let object = json!({
        "apiVersion": "checkpoint-keeper.io/v1alpha1", "kind": "CheckpointQuota",
        "metadata": {"name": name, "namespace": namespace.name()}, "spec": {"hard": {"count": count}},
    });
    cluster().apply(&object.to_string())
}

/// What is wrong with schedules and with the disk. Afterwards, no agent runs there.
fn disk(prometheus: &Prometheus, node: Node<'_>, agent: Agent<'_>) -> anyhow::Result<()> {
    let of_node = format!(",node={:?}", node.name());
    let busy = cluster().namespace("busy")?;
    let name = busy.name();
    busy.apply(&counting_pod("web", node, &["server"]))?;
    busy.wait_until_running("web")?;
    checkpoints(node, name, "web", 2)?;
    // So that a new archive leads to the deletion of an older one.
    policy(&busy, "two", &keep(2))?;

    // Due more often than it can be served; and then the runtime dies in the middle.
    let spec = json!({"triggers": {"interval": "1s"}, "retries": {"limit": 10, "backoff": "1s"}});
    schedule(name, "often", &spec)?;
    let success =
        format!("checkpoint_keeper_schedule_last_success_timestamp_seconds{{schedule_namespace={name:?}}}");
    wait::until("a success", DEADLINE, || Ok(!prometheus.query(&success)?.is_empty()))?;
    let slow = cluster().inject(Fault::SlowCriu { node: node.name().to_owned(), seconds: 4 })?;
    prometheus.fires("ScheduleMissed", &of_node)?;
    wait_until_criu_starts(node)?;
    let down =
        cluster().inject(Fault::Down { machine: node.name().to_owned(), daemon: Daemon::Containerd })?;
    let frozen = prometheus.fires("ContainerMayBeFrozen", &of_node);
    drop(down);
    drop(slow);
    frozen?;
    let path = format!("/apis/checkpoint-keeper.io/v1alpha1/namespaces/{name}/checkpointschedules/often");
    cluster().request("DELETE", &path)?;

    // The disk fills, bit by bit, and then is fuller than a policy allows. Of what may go a process holds the blocks.
    let shell = |script: &str| node.run("sh", &["-ec", &format!("cd {} && {script}", node.directory())]);
    shell("head -c 60M /dev/zero >.ballast")?;
    let _small = cluster().inject(Fault::DiskFull { node: node.name().to_owned(), free_kib: 30 << 10 })?;
    // Archives that no policy of this test takes, and that occupy little of what they say: one that is large, and then more
    // and more small ones, as the alert is about a disk that archives fill.
    let elsewhere = |taken: &str, size: u64| {
        let archive = ArchiveBuilder::new("elsewhere", "db", "engine").at(taken);
        let archive = archive.write_sparse(&node.checkpoints(), size)?;
        shell(&format!("touch '{}.keep'", archive.file_name().context("no name")?.to_string_lossy()))
    };
    elsewhere("2026-01-02T03:04:05Z", 60 << 20)?;
    let mut count = 0;
    wait::until("the growth to be noticed", DEADLINE, || {
        count += 1;
        elsewhere(&format!("2026-01-03T03:{:02}:{:02}Z", count / 60 % 60, count % 60), 1 << 20)?;
        // Little by little: that the disk has become smaller must be out of sight before it is full.
        shell("head -c 50K /dev/zero >>.ballast")?;
        let fires =
            prometheus.query(&format!("ALERTS{{alertname=\"CheckpointKeeperStorageFilling\"{of_node}}}"))?;
        Ok(!fires.is_empty())
    })?;
    shell("head -c $(($(df --block-size=1 --output=avail . | tail -n 1) - 4000000)) /dev/zero >>.ballast")?;
    prometheus.fires("StorageFull", &of_node)?;
    let held = Held::new(node, &files_of(node, name)?)?;
    let _watermark = Applied::storage_policy("alerts", &watermark(node))?;
    wait::until("the watermark to delete", DEADLINE, || {
        let page = agent.page("metrics")?;
        Ok(page.contains("deletions_total{reason=\"StorageWatermark\"} ")
            && !page.contains("deletions_total{reason=\"StorageWatermark\"} 0\n"))
    })?;
    next_round(&agent)?;
    prometheus.fires("StorageAboveWatermark", &of_node)?;
    // That the file system does not show it is believed after five minutes, which the next agent takes for over.
    agent.kill()?;
    let agent = Agent::spawn_by_uptime(node, Duration::from_mins(6))?;
    prometheus.fires("WatermarkIneffective", &of_node)?;
    drop(held);
    agent.stop().map(drop)
}

/// That no more than half of the disk may be used, on one node.
fn watermark(node: Node<'_>) -> Value {
    json!({
        "nodeSelector": {"matchLabels": {"kubernetes.io/hostname": node.name()}},
        "mode": "Enforce", "highWatermark": "50%", "reserved": "0%",
    })
}

/// A process that has files open until this is dropped.
struct Held<'a> {
    node: Node<'a>,
    process: Child,
}

impl<'a> Held<'a> {
    fn new(node: Node<'a>, files: &[String]) -> anyhow::Result<Self> {
        let mut command = node.command("tail")?;
        command.args(["-f", "-c", "0"]).args(files.iter().map(|file| format!("{}/{file}", node.directory())));
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let held = Self { node, process };
        let last = files.last().context("no file")?;
        wait::until("the files to be open", DEADLINE, || {
            Ok(node.run("sh", &["-c", &format!("ls -l /proc/[0-9]*/fd | grep -q '{last}'")]).is_ok())
        })?;
        Ok(held)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let _ = self.node.run("pkill", &["-KILL", "--full", "tail -f -c 0"]);
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The API is away for longer than policies may go unconfirmed.
fn offline(prometheus: &Prometheus, node: Node<'_>, web: &Web) -> anyhow::Result<()> {
    let of_node = format!(",node={:?}", node.name());
    let mut arguments = install::kubelet_arguments(node).to_vec();
    arguments.extend(["--policy-staleness".to_owned(), "3s".to_owned()]);
    // Something is to go by then. Of the first archives none may be left but those that are pinned.
    copies(node, web.files.last().context("no archive")?, 20)?;
    let agent = Agent::spawn_by_kubelet(node, &arguments)?;
    wait::until("the agent to be ready", DEADLINE, || agent.ready().map(|()| true))?;
    prometheus.fires("DeletionsWaiting", &of_node)?;
    let down =
        cluster().inject(Fault::Down { machine: CONTROL_PLANE.to_owned(), daemon: Daemon::KubeApiserver })?;
    let stale = prometheus.fires("PoliciesStale", &of_node);
    // One that begins without the API knows no policies.
    agent.stop()?;
    let agent = Agent::spawn(node)?;
    let not_ready = prometheus.fires("AgentNotReady", &of_node);
    drop(down);
    stale.and(not_ready)?;
    agent.stop().map(drop)
}

/// Each query of each dashboard gives something, at some time of this test.
fn dashboards(prometheus: &Prometheus) -> anyhow::Result<()> {
    let mut empty = Vec::new();
    let mut asked = 0;
    for name in ["fleet", "node", "namespace"] {
        let dashboard = std::fs::read_to_string(chart_file(&format!("dashboards/{name}.json")))?;
        let dashboard: Value = serde_json::from_str(&dashboard)?;
        let variables = dashboard["templating"]["list"].as_array().context("no variables")?;
        for variable in variables {
            let Some(query) = variable["query"]["query"].as_str() else { continue };
            // label_values(METRIC, LABEL), or query_result(QUERY) of which a regular expression takes LABEL="…".
            let inner = |function: &str| query.strip_prefix(function).and_then(|rest| rest.strip_suffix(')'));
            let (asking, label) = if let Some(asking) = inner("query_result(") {
                let regex = variable["regex"].as_str().unwrap_or_default().trim_start_matches('/');
                (asking, regex.split_once('=').with_context(|| format!("{query}: no label in {regex}"))?.0)
            } else {
                let inner = inner("label_values(").and_then(|inner| inner.rsplit_once(", "));
                inner.with_context(|| format!("{query} is no label_values"))?
            };
            let series = prometheus.history(&chosen(asking)?)?;
            asked += 1;
            if series.iter().all(|series| !series["metric"][label].is_string()) {
                empty.push(format!("{name}: the variable {query}"));
            }
        }
        for panel in dashboard["panels"].as_array().context("no panels")? {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let query = target["expr"].as_str().context("no query")?;
                let series = prometheus.history(&chosen(query)?)?;
                asked += 1;
                // A quantile of what did not happen is no number: where many watch files, the system may give an agent no
                // notice of closed ones.
                let may_be_none = query.starts_with("histogram_quantile(");
                let has_values = |one: &Value| {
                    let mut values = one["values"].as_array().into_iter().flatten();
                    values.any(|value| may_be_none || value[1] != "NaN")
                };
                if !series.iter().any(has_values) {
                    empty.push(format!("{name}: {}: {query}", panel["title"]));
                }
            }
        }
    }
    ensure!(asked > 90, "only {asked} queries were found");
    ensure!(empty.is_empty(), "of {asked} queries, these give nothing:\n{}", empty.join("\n"));
    Ok(())
}

/// A query as Grafana would send it with everything selected; hours of looking back are seconds.
fn chosen(query: &str) -> anyhow::Result<String> {
    let chosen = query.replace("$__rate_interval", "15s").replace("[6h]", "[20s]");
    let names = ["$job", "$node", "$instance", "$namespace"];
    let chosen = names.iter().fold(chosen, |query, name| query.replace(name, ".+"));
    ensure!(!chosen.contains('$'), "an unknown variable: {chosen}");
    Ok(chosen)
}

//! A real Prometheus on the control plane that scrapes agents on nodes and a controller, with the alerts' rules.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::machine::CONTROL_PLANE;
use checkpoint_keeper_testcluster::paths::Cache;
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::{prometheus, wait};
use serde_json::{Value, json};

use crate::support::{DEADLINE, REPOSITORY, cluster};

/// Where it is asked.
const ADDRESS: &str = "127.0.0.1:9090";

/// Where it keeps what it scraped, on the control plane.
const DATA: &str = "/tmp/prometheus-of-a-test";

/// For how many seconds it lives at most, should the test that started it be killed.
const LONGEST: &str = "900";

/// The programs, downloaded once.
pub(crate) fn programs() -> anyhow::Result<prometheus::Prometheus> {
    static PROGRAMS: OnceLock<Result<prometheus::Prometheus, String>> = OnceLock::new();
    let provide = || {
        let programs = Cache::of_user().and_then(|cache| prometheus::Prometheus::provide(&cache));
        programs.map_err(|error| format!("{error:#}"))
    };
    PROGRAMS.get_or_init(provide).clone().map_err(anyhow::Error::msg)
}

/// A file of the chart.
pub(crate) fn chart_file(name: &str) -> PathBuf {
    PathBuf::from(REPOSITORY).join("charts/checkpoint-keeper/files").join(name)
}

/// How far rules look back, and how far they do here. A day becomes more than the test takes, so that what it breaks stays
/// new until its end.
const TIMES: [(&str, &str); 6] = [
    ("[6h]", "[20s]"),
    ("[15m]", "[15s]"),
    ("[10m]", "[15s]"),
    ("[1d:10m]", "[900s:1s]"),
    ("offset 15m", "offset 15s"),
    ("offset 1h", "offset 5s"),
];

/// The rules as they are, but for time: no alert waits or outlasts its cause, and what looks back over hours or minutes looks
/// back over seconds. Thresholds and all else stay.
fn hurried_rules() -> anyhow::Result<String> {
    let rules = fs::read_to_string(chart_file("alerts.yaml"))?;
    let mut hurried = String::new();
    for line in rules.lines() {
        let (indent, text) = line.split_at(line.len() - line.trim_start().len());
        let time = ["for: ", "keep_firing_for: "].into_iter().find(|field| text.starts_with(field));
        let line = time.map_or_else(|| line.to_owned(), |field| format!("{indent}{field}0s"));
        hurried.push_str(&TIMES.iter().fold(line, |line, (long, short)| line.replace(long, short)));
        hurried.push('\n');
    }
    let is_long = |time: &str| ["m", "h", "d"].iter().any(|unit| time.ends_with(unit));
    let ranges = hurried.split('[').skip(1).filter_map(|rest| rest.split([']', ':']).next());
    let offsets = hurried.split("offset ").skip(1).filter_map(|rest| rest.split([')', '\n', ' ']).next());
    let long: Vec<&str> = ranges.chain(offsets).filter(|time| is_long(time)).collect();
    ensure!(long.is_empty(), "these are not shortened: {long:?}");
    Ok(hurried)
}

/// It, until it is dropped.
pub(crate) struct Prometheus {
    process: Child,
    address: &'static str,
    started: Instant,
}

impl Prometheus {
    /// Starts one that scrapes these agents, by their nodes' names and addresses, and this controller, every second.
    pub(crate) fn start(agents: &[(&str, String)], controller: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let rules = folder.path().join("alerts-of-a-test.yaml");
        fs::write(&rules, hurried_rules()?)?;
        let agents: Vec<Value> = agents
            .iter()
            .map(|(node, address)| json!({"targets": [address], "labels": {"node": node}}))
            .collect();
        let job = |name: &str, targets: Value| json!({"job_name": name, "static_configs": targets});
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [cluster().share(&rules)?],
            "scrape_configs": [job("agent", json!(agents)), job("controller", json!([{"targets": [controller]}]))],
        });
        // JSON is YAML.
        let file = folder.path().join("prometheus-of-a-test.yaml");
        fs::write(&file, config.to_string())?;
        let file = cluster().share(&file)?;
        let server = cluster().share(&programs()?.server)?;
        output(cluster().command(CONTROL_PLANE, "rm")?.args(["-rf", DATA]))?;
        let mut command = cluster().command(CONTROL_PLANE, "timeout")?;
        command.args(["--kill-after=5", LONGEST, &server, "--log.level=warn"]);
        command.args([format!("--config.file={file}"), format!("--storage.tsdb.path={DATA}")]);
        command.arg(format!("--web.listen-address={ADDRESS}"));
        let process = command.stdin(Stdio::null()).spawn()?;
        let prometheus = Self { process, address: ADDRESS, started: Instant::now() };
        wait::until("Prometheus to be ready", DEADLINE, || {
            Ok(prometheus.page(&["/-/ready"])?.contains("is Ready"))
        })?;
        Ok(prometheus)
    }

    /// A page of it, by its path and what else curl is told.
    fn page(&self, path: &[&str]) -> anyhow::Result<String> {
        let (path, arguments) = path.split_first().context("no path")?;
        let mut command = cluster().command(CONTROL_PLANE, "curl")?;
        command.args(["--silent", "--max-time", "10", "--get"]).args(arguments);
        output(command.arg(format!("http://{}{path}", self.address)))
    }

    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
        let mut arguments = vec![path.to_owned()];
        for (name, value) in parameters {
            arguments.extend(["--data-urlencode".to_owned(), format!("{name}={value}")]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let answer: Value = serde_json::from_str(&self.page(&arguments)?)?;
        ensure!(answer["status"] == "success", "{parameters:?}: {answer}");
        let result = answer["data"]["result"].as_array();
        Ok(result.with_context(|| format!("{parameters:?}: {answer}"))?.clone())
    }

    /// What a query gives now: its series.
    pub(crate) fn query(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        self.ask("/api/v1/query", &[("query", query)])
    }

    /// What a query gives of the time since the start: its series.
    pub(crate) fn history(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        let now = jiff::Timestamp::now().as_second();
        let begin = now - i64::try_from(self.started.elapsed().as_secs())? - 1;
        let (begin, now) = (begin.to_string(), now.to_string());
        let parameters = [("query", query), ("start", &begin), ("end", &now), ("step", "1")];
        self.ask("/api/v1/query_range", &parameters)
    }

    /// The names of the alerts that fire now.
    pub(crate) fn firing(&self) -> anyhow::Result<BTreeSet<String>> {
        self.names("ALERTS{alertstate=\"firing\"}")
    }

    /// The names of the alerts that have fired at any time since then.
    pub(crate) fn fired_since(&self, since: Instant) -> anyhow::Result<BTreeSet<String>> {
        let seconds = since.elapsed().as_secs().max(1);
        self.names(&format!("max_over_time(ALERTS{{alertstate=\"firing\"}}[{seconds}s])"))
    }

    fn names(&self, query: &str) -> anyhow::Result<BTreeSet<String>> {
        let series = self.query(query)?;
        let name = |series: &Value| Some(series["metric"]["alertname"].as_str()?.to_owned());
        Ok(series.iter().filter_map(name).collect())
    }

    /// Waits until this alert fires.
    pub(crate) fn fires(&self, alert: &str, of: &str) -> anyhow::Result<()> {
        let alert = format!("CheckpointKeeper{alert}");
        let query = format!("ALERTS{{alertstate=\"firing\",alertname=\"{alert}\"{of}}}");
        wait::until(&format!("{alert} to fire"), DEADLINE, || {
            ensure!(!self.query(&query)?.is_empty(), "these fire: {:?}", self.firing()?);
            Ok(true)
        })
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let kill = || -> anyhow::Result<()> {
            let pattern = format!("--web.listen-address={}", self.address);
            output(cluster().command(CONTROL_PLANE, "pkill")?.args(["-KILL", "--full", "--", &pattern]))?;
            output(cluster().command(CONTROL_PLANE, "rm")?.args(["-rf", DATA])).map(drop)
        };
        if let Err(error) = kill() {
            eprintln!("Prometheus could not be ended: {error:#}");
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

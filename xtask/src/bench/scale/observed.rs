//! What is seen of the simulation from outside: the processes, the API server's figures, and what was asked of it.

use std::time::{Duration, Instant};

use anyhow::Context;
use checkpoint_keeper_testcluster::Cluster;
use checkpoint_keeper_testcluster::machine::CONTROL_PLANE;
use checkpoint_keeper_testcluster::process::output;
use jiff::Timestamp;

use super::agents::plan_file;
use super::exposition::Exposition;
use super::requests::{Record, Requests, Who};
use crate::bench::process;

/// Processes that are looked at, by what their command lines hold.
const API_SERVER: &str = "kube-apiserver --";
const ETCD: &str = "etcd --data-dir";
pub(super) const CONTROLLER: &str = "checkpoint-keeper controller";

/// A process of the control plane's machine.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ProcessFigures {
    /// Resident memory in MiB: now, and the most there ever was.
    pub(super) resident: f64,
    pub(super) highest: f64,
    /// The time that it has spent on a CPU.
    pub(super) cpu: Duration,
    pub(super) threads: u64,
}

impl ProcessFigures {
    fn of(cluster: &Cluster, pattern: &str) -> anyhow::Result<Self> {
        let run = |program: &str, arguments: &[&str]| {
            output(cluster.command(CONTROL_PLANE, program)?.args(arguments))
        };
        let found = run("pgrep", &["--full", "--oldest", "--", pattern]);
        let found = found.with_context(|| format!("no process is there of {pattern:?}"))?;
        let path = |file: &str| format!("/proc/{}/{file}", found.trim());
        let (status, stat) = (run("cat", &[&path("status")])?, run("cat", &[&path("stat")])?);
        let (resident, highest) = process::resident_by(&status)?;
        let threads = status.lines().find_map(|line| line.strip_prefix("Threads:"));
        let threads = threads.context("the kernel does not say")?.trim().parse()?;
        Ok(Self { resident, highest, cpu: process::cpu_of_all_by(&stat)?, threads })
    }

    /// Those of all agents, in so many processes; nothing of a process that does not run.
    fn of_agents(cluster: &Cluster, processes: usize) -> Self {
        let of = |number| Self::of(cluster, &format!("--scale-process .*{}", plan_file(number)));
        (0..processes).filter_map(|number| of(number).ok()).fold(Self::default(), |sum, one| Self {
            resident: sum.resident + one.resident,
            highest: sum.highest + one.highest,
            cpu: sum.cpu + one.cpu,
            threads: sum.threads + one.threads,
        })
    }
}

/// All at one moment.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) at: Instant,
    pub(super) api_server: ProcessFigures,
    pub(super) etcd: ProcessFigures,
    pub(super) controller: ProcessFigures,
    /// Nothing before they were started.
    pub(super) agents: ProcessFigures,
    pub(super) metrics: Exposition,
    /// The size of the database in MiB: in all, and without what may be taken by others.
    pub(super) etcd_size: f64,
    pub(super) etcd_used: f64,
}

const MEBIBYTE: f64 = 1_048_576.0;

impl Reading {
    pub(super) fn take(cluster: &Cluster, processes: usize) -> anyhow::Result<Self> {
        let metrics = cluster.get("/metrics")?;
        let metrics = Exposition::new(metrics.as_str().context("the API server has no metrics")?.to_owned());
        let curl = ["--silent", "--max-time", "20", "http://127.0.0.1:2379/metrics"];
        let etcd = Exposition::new(output(cluster.command(CONTROL_PLANE, "curl")?.args(curl))?);
        Ok(Self {
            at: Instant::now(),
            api_server: ProcessFigures::of(cluster, API_SERVER)?,
            etcd: ProcessFigures::of(cluster, ETCD)?,
            controller: ProcessFigures::of(cluster, CONTROLLER)?,
            agents: ProcessFigures::of_agents(cluster, processes),
            metrics,
            etcd_size: etcd.total("etcd_mvcc_db_total_size_in_bytes") / MEBIBYTE,
            etcd_used: etcd.total("etcd_mvcc_db_total_size_in_use_in_bytes") / MEBIBYTE,
        })
    }

    /// How many watches are open.
    pub(super) fn watches(&self) -> f64 {
        self.metrics.sum("apiserver_longrunning_requests", |labels| labels.get("verb") == Some("WATCH"))
    }
}

/// What happened between two readings.
pub(super) struct Phase {
    pub(super) requests: Requests,
    begin: Reading,
    pub(super) end: Reading,
    /// When it began, by the clock of requests.
    began: Timestamp,
}

impl Phase {
    pub(super) fn seconds(&self) -> f64 {
        (self.end.at - self.begin.at).as_secs_f64()
    }

    /// For how long agents and controller asked, but for watches; 0 where they asked nothing.
    pub(super) fn busy_seconds(&self) -> f64 {
        let last = self.requests.last().map(|last| last.duration_since(self.began).as_secs_f64());
        last.unwrap_or_default().max(0.0)
    }

    /// By how much a metric of the API server grew.
    fn grown(&self, metric: &str) -> f64 {
        self.end.metrics.total(metric) - self.begin.metrics.total(metric)
    }

    /// What the API server sent, in MiB: in replies, and as news of watches.
    pub(super) fn sent(&self) -> (f64, f64) {
        let replies = self.grown("apiserver_response_sizes_sum");
        (replies / MEBIBYTE, self.grown("apiserver_watch_events_sizes_sum") / MEBIBYTE)
    }

    /// How many requests of anybody were not carried out: those that are told to come later, and all with an error of
    /// the server.
    pub(super) fn refused(&self) -> (f64, f64) {
        let of = |is_meant: fn(&str) -> bool| {
            let count = |reading: &Reading| {
                reading
                    .metrics
                    .sum("apiserver_request_total", |labels| labels.get("code").is_some_and(is_meant))
            };
            count(&self.end) - count(&self.begin)
        };
        (of(|code| code == "429"), of(|code| code.starts_with('5')))
    }

    /// The share of one CPU that a process had, in per cent.
    pub(super) fn cpu(&self, of: impl Fn(&Reading) -> ProcessFigures) -> f64 {
        let cpu = |reading| of(reading).cpu;
        cpu(&self.end).saturating_sub(cpu(&self.begin)).as_secs_f64() / self.seconds() * 100.0
    }

    /// The time that a process had on a CPU, in seconds.
    pub(super) fn cpu_seconds(&self, of: impl Fn(&Reading) -> ProcessFigures) -> f64 {
        self.cpu(of) / 100.0 * self.seconds()
    }
}

/// Reads the simulation, phase by phase.
pub(super) struct Observer<'a> {
    cluster: &'a Cluster,
    /// How many processes of agents there are, or will be.
    processes: usize,
    record: Record,
    requests: Requests,
    begin: Reading,
    began: Timestamp,
}

/// How often it is looked whether something is so. Less often than conditions of tests: what is measured is to notice
/// nothing of it.
const LOOK: Duration = Duration::from_secs(1);

impl<'a> Observer<'a> {
    pub(super) fn new(cluster: &'a Cluster, processes: usize) -> anyhow::Result<Self> {
        let mut record = Record::open(&cluster.audit_log())?;
        // What was before is no part of the first phase.
        record.advance(&mut Requests::default())?;
        let begin = Reading::take(cluster, processes)?;
        Ok(Self { cluster, processes, record, requests: Requests::default(), begin, began: Timestamp::now() })
    }

    /// Ends a phase and begins the next.
    pub(super) fn phase(&mut self) -> anyhow::Result<Phase> {
        self.record.advance(&mut self.requests)?;
        let end = Reading::take(self.cluster, self.processes)?;
        Ok(Phase {
            requests: std::mem::take(&mut self.requests),
            begin: std::mem::replace(&mut self.begin, end.clone()),
            end,
            began: std::mem::replace(&mut self.began, Timestamp::now()),
        })
    }

    /// Waits until something is so, and says how long after the phase's begin that was.
    pub(super) fn until(
        &mut self,
        what: &str,
        limit: Duration,
        mut is_so: impl FnMut(&Cluster) -> anyhow::Result<Progress>,
    ) -> anyhow::Result<Duration> {
        let deadline = Instant::now() + limit;
        let mut told = String::new();
        loop {
            let seen = is_so(self.cluster);
            self.record.advance(&mut self.requests)?;
            if matches!(seen, Ok(Progress::Done)) {
                return Ok(self.begin.at.elapsed());
            }
            let how_far = match seen {
                Ok(Progress::Done) => String::new(),
                Ok(Progress::Not(how_far)) => how_far,
                Err(error) => format!("{error:#}"),
            };
            anyhow::ensure!(Instant::now() < deadline, "waited {limit:?} in vain for {what}: {how_far}");
            if how_far != told {
                eprintln!("{:4.0} s: {what}: {how_far}", self.begin.at.elapsed().as_secs_f64());
                told = how_far;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits until neither agents nor controller have asked for anything but watches for that long.
    pub(super) fn until_quiet(&mut self, quiet: Duration, limit: Duration) -> anyhow::Result<()> {
        let begin = Instant::now();
        let mut before = (self.asked(), Instant::now());
        loop {
            std::thread::sleep(LOOK);
            self.record.advance(&mut self.requests)?;
            let asked = self.asked();
            if asked != before.0 {
                before = (asked, Instant::now());
            }
            if before.1.elapsed() >= quiet {
                return Ok(());
            }
            anyhow::ensure!(begin.elapsed() < limit, "agents still ask after {limit:?}");
        }
    }

    fn asked(&self) -> u64 {
        let is_news = |what: &super::requests::What| !what.is_watch() && what.resource != "leases";
        self.requests.count(Who::Agents, is_news) + self.requests.count(Who::Controller, is_news)
    }
}

/// How far something is.
pub(super) enum Progress {
    Done,
    /// In words.
    Not(String),
}

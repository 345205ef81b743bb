//! Metrics that agent and controller share: what the program is, whether it is ready, its requests and watches, and
//! its process.

use std::fmt::Error;
use std::fs::read_to_string;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::requests::RequestCounts;

/// What every metric of ours begins with.
pub const PREFIX: &str = "checkpoint_keeper";

/// Where the shared metrics are read from.
pub struct Sources {
    /// The requests to the API.
    pub requests: RequestCounts,
    /// Whether the program is ready.
    pub is_ready: Box<dyn Fn() -> bool + Send + Sync>,
    /// How long ago the API was last heard on the watch of each kind of policies.
    pub watch_ages: Box<dyn Fn() -> Vec<WatchAge> + Send + Sync>,
}

/// How long ago the API was last heard on the watch of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchAge {
    /// The kind's plural name.
    pub kind: &'static str,
    /// How long ago.
    pub age: Duration,
}

/// A registry with the shared metrics; the program adds its own below [`PREFIX`].
pub fn registry(sources: Sources) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process));
    let ours = registry.sub_registry_with_prefix(PREFIX);
    ours.register("build", "The version of the program", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
    ours.register(
        "api_requests",
        "Number of requests to the Kubernetes API, by kind, verb and result",
        sources.requests.family(),
    );
    ours.register_collector(Box::new(Shared(sources)));
    registry
}

struct Shared(Sources);

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Shared")
    }
}

impl Collector for Shared {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let help =
            "1 while the program does its work; 0 while something named by /readyz keeps it from that.";
        let ready = ConstGauge::new(i64::from((self.0.is_ready)()));
        ready.encode(encoder.encode_descriptor("ready", help, None, ready.metric_type())?)?;
        let help = "Time since the API was last heard on the watch of a kind of policies; it normally stays below 150 seconds.";
        let mut ages =
            encoder.encode_descriptor("watch_age", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        for WatchAge { kind, age } in (self.0.watch_ages)() {
            ConstGauge::new(age.as_secs_f64()).encode(ages.encode_family(&[("kind", kind)])?)?;
        }
        Ok(())
    }
}

/// The process, as the system shows it, by the names that all client libraries use.
#[derive(Debug)]
struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Some(usage) = Usage::now() else { return Ok(()) };
        let cpu = ConstCounter::new(usage.cpu.as_secs_f64());
        let help = "Processor time that the process has used.";
        cpu.encode(encoder.encode_descriptor(
            "process_cpu",
            help,
            Some(&Unit::Seconds),
            cpu.metric_type(),
        )?)?;
        let mut gauge = |name, help, unit: Option<&Unit>, value: f64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
        };
        let (bytes, seconds) = (Some(&Unit::Bytes), Some(&Unit::Seconds));
        gauge(
            "process_resident_memory",
            "Memory of the process that is in RAM.",
            bytes,
            usage.resident as f64,
        )?;
        gauge("process_virtual_memory", "Address space of the process.", bytes, usage.virtual_size as f64)?;
        gauge(
            "process_start_time",
            "Start of the process, since 1970.",
            seconds,
            usage.started.as_secs_f64(),
        )?;
        if let Some(open) = open_files() {
            gauge("process_open_fds", "Number of open file descriptors.", None, open as f64)?;
        }
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        limit.map_or(Ok(()), |limit| {
            gauge("process_max_fds", "Number of file descriptors that may be open.", None, limit as f64)
        })
    }
}

/// What the process uses.
#[derive(Debug, PartialEq)]
struct Usage {
    cpu: Duration,
    resident: u64,
    virtual_size: u64,
    /// Since 1970.
    started: Duration,
}

impl Usage {
    fn now() -> Option<Self> {
        let ticks = rustix::param::clock_ticks_per_second();
        let page = rustix::param::page_size() as u64;
        Self::parse(
            &read_to_string("/proc/self/stat").ok()?,
            &read_to_string("/proc/stat").ok()?,
            ticks,
            page,
        )
    }

    /// From what `/proc/self/stat` and `/proc/stat` hold (proc(5)).
    fn parse(process: &str, system: &str, ticks: u64, page: u64) -> Option<Self> {
        // The second field is the program's name in brackets, which may hold anything.
        let (_, fields) = process.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        // Fields are counted from 1 there, and the third one is the first here.
        let field = |number: usize| fields.get(number - 3)?.trim().parse::<u64>().ok();
        let time = |count: u64| Duration::from_secs_f64(count as f64 / ticks.max(1) as f64);
        let boot = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
        Some(Self {
            cpu: time(field(14)? + field(15)?),
            resident: field(24)? * page,
            virtual_size: field(23)?,
            started: Duration::from_secs(boot) + time(field(22)?),
        })
    }
}

/// Without the one that it takes to look.
fn open_files() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1))
}

/// Sources for all metrics that there can be, with one value of each label.
pub fn example() -> Sources {
    Sources {
        requests: RequestCounts::example(),
        is_ready: Box::new(|| true),
        watch_ages: Box::new(|| vec![WatchAge { kind: "checkpointpolicies", age: Duration::ZERO }]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_read_as_the_system_writes_it() {
        let process = "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 3 0 1000 4096000 25 18446744073709551615 1";
        let expected = Usage {
            cpu: Duration::from_secs(2),
            resident: 25 * 4096,
            virtual_size: 4_096_000,
            started: Duration::from_secs(1_700_000_010),
        };
        assert_eq!(Usage::parse(process, "cpu 1 2\nbtime 1700000000\n", 100, 4096), Some(expected));
        assert_eq!(Usage::parse("7 (a) S 1", "btime 1\n", 100, 4096), None);
        let now = Usage::now().unwrap();
        assert!(now.resident > 1 << 20 && now.virtual_size >= now.resident, "{now:?}");
        assert!(now.started.as_secs() > 1_700_000_000, "{now:?}");
        assert!(open_files().unwrap() >= 3);
    }

    #[test]
    fn the_shared_metrics_have_the_names_that_others_expect() {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry(example())).unwrap();
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_start_time_seconds",
            "process_open_fds",
            "process_max_fds",
            "checkpoint_keeper_ready",
            "checkpoint_keeper_build_info{version=",
            "checkpoint_keeper_api_requests_total{kind=",
            "checkpoint_keeper_watch_age_seconds{kind=",
        ] {
            assert!(text.lines().any(|line| line.starts_with(name)), "lacks {name}: {text}");
        }
    }
}

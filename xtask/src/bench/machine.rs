//! What a run was measured on, and having it forget what it read.

use std::fmt;
use std::path::Path;
use std::thread::available_parallelism;

use serde::Serialize;

/// The machine.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    cpus: usize,
    cpu: String,
    memory_mib: u64,
    kernel: String,
    filesystem: String,
    /// How many processes wanted a CPU in the minute before: above 0 figures are noisy.
    load: String,
}

/// Describes it; the file system is the one that `directory` lies on.
pub(super) fn describe(directory: &Path) -> anyhow::Result<Machine> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, key: &str| {
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_once(':').map_or_else(String::new, |(_, value)| value.trim().to_owned())
    };
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let kib: u64 = memory.split(' ').next().and_then(|kib| kib.parse().ok()).unwrap_or(0);
    Ok(Machine {
        cpus: available_parallelism()?.get(),
        cpu: field(&read("/proc/cpuinfo"), "model name"),
        memory_mib: kib / 1024,
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        filesystem: filesystem(directory, &read("/proc/self/mounts"))?,
        load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
    })
}

/// Has the kernel drop whatever it cached of files, directories and inodes. An error where this process may not.
pub(super) fn forget_files() -> std::io::Result<()> {
    // What is not written yet cannot be dropped.
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3")
}

/// The type of the file system that `directory` lies on: of its mount point, the longest there is.
fn filesystem(directory: &Path, mounts: &str) -> anyhow::Result<String> {
    let directory = directory.canonicalize()?;
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let below = mounts.filter(|(point, _)| directory.starts_with(point));
    Ok(below.max_by_key(|(point, _)| point.len()).map_or("unknown", |(_, kind)| kind).to_owned())
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpus, cpu, memory_mib, kernel, filesystem, load } = self;
        write!(
            formatter,
            "{cpus} CPUs ({cpu}), {memory_mib} MiB, Linux {kernel}, {filesystem}; load when it began: {load}"
        )
    }
}

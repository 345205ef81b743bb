//! What the kernel says a process has used.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// Resident memory in MiB: now, and the most there ever was.
pub(super) fn resident(pid: u32) -> anyhow::Result<(f64, f64)> {
    resident_by(&fs::read_to_string(format!("/proc/{pid}/status"))?)
}

/// The same, by what `/proc/<pid>/status` says.
pub(super) fn resident_by(status: &str) -> anyhow::Result<(f64, f64)> {
    let mebibytes = |key: &str| -> anyhow::Result<f64> {
        let line =
            status.lines().find_map(|line| line.strip_prefix(key)).context("the kernel does not say")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024.0)
    };
    Ok((mebibytes("VmRSS:")?, mebibytes("VmHWM:")?))
}

/// The time that all threads of a process have spent on a CPU, in user and kernel mode.
pub(super) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // In nanoseconds, where `stat` has hundredths of a second.
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}

/// How often its threads have gone to sleep.
pub(super) fn sleeps(pid: u32) -> anyhow::Result<u64> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(task?.path().join("status"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        total += line.context("the kernel does not say")?.trim().parse::<u64>()?;
    }
    Ok(total)
}

//! What the kernel says a process has used.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// What `/proc/<pid>/stat` counts in, on every architecture that Linux has for years.
pub(super) const TICK: Duration = Duration::from_millis(10);

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

/// The time that all threads that a process has now have spent on a CPU, in user and kernel mode.
pub(super) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // In nanoseconds, where `stat` has hundredths of a second.
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}

/// The same of all threads that it ever had, in steps of [`TICK`].
pub(super) fn cpu_of_all(pid: u32) -> anyhow::Result<Duration> {
    cpu_of_all_by(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
}

pub(super) fn cpu_of_all_by(stat: &str) -> anyhow::Result<Duration> {
    // The program's name is in parentheses and may hold anything; user and system time come eleven fields after it.
    let (_, fields) = stat.rsplit_once(')').context("the kernel does not say")?;
    let times = fields.split_whitespace().skip(11).take(2);
    let ticks = times.map(str::parse::<u32>).sum::<Result<u32, _>>()?;
    Ok(TICK * ticks)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_on_a_cpu_is_user_and_system_time_whatever_the_program_is_called() -> anyhow::Result<()> {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 17 5 6 7 20 0 3 0 100 1 1";
        assert_eq!(cpu_of_all_by(stat)?, Duration::from_millis(220));
        assert!(cpu_of_all_by("nonsense").is_err());
        Ok(())
    }
}

//! What a collector costs while nothing happens.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use super::directory::Bench;
use super::engine::Engine;
use super::process;
use super::row::Row;
use super::timing::milliseconds;

const ID: &str = "idle-cost";
const POLICIES: usize = 20;
const WINDOW: Duration = Duration::from_secs(5);

/// Sweeps in a minute, as `gc --watch` does by itself.
const SWEEPS: f64 = 1.0;

pub(super) fn rows(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let archives = bench.either(10_000, 2_000);
    let directory = bench.population(archives)?;
    let windows = 60.0 / WINDOW.as_secs_f64();

    let engine = Engine::start(bench, &directory, POLICIES, 3_600, None)?;
    // What it still does after its first look is not idleness.
    thread::sleep(Duration::from_millis(500));
    let waiting = used(&engine)?;
    let calls_waiting = system_calls(&engine)?;
    drop(engine);

    let engine = Engine::start(bench, &directory, POLICIES, 1, None)?;
    let sweeping = used(&engine)?;
    let calls_sweeping = system_calls(&engine)?;
    let sweeps = WINDOW.as_secs_f64();

    let between = milliseconds(waiting.cpu) * windows;
    let each = milliseconds(sweeping.cpu) / sweeps;
    let what = format!("{archives} archives present, a minute with its one sweep: CPU time");
    let calls = match (calls_waiting, calls_sweeping) {
        (Some(waiting), Some(sweeping)) => {
            let (between, each) = (waiting as f64 * windows, sweeping as f64 / sweeps);
            format!("system calls: {each:.0} a sweep, {between:.0} a minute between sweeps (by strace)")
        }
        _ => "system calls not counted: no strace".to_owned(),
    };
    let note = format!(
        "{between:.2} ms between sweeps, {} wake-ups in {WINDOW:?}; {each:.1} ms a sweep; {calls}; {}",
        waiting.sleeps, engine.what
    );
    Ok(vec![Row::new(ID, what, between + each * SWEEPS, "ms").note(note)])
}

/// What was used in a window.
struct Used {
    cpu: Duration,
    sleeps: u64,
}

fn used(engine: &Engine) -> anyhow::Result<Used> {
    let (cpu, sleeps) = (process::cpu(engine.pid())?, process::sleeps(engine.pid())?);
    thread::sleep(WINDOW);
    Ok(Used {
        cpu: process::cpu(engine.pid())?.saturating_sub(cpu),
        sleeps: process::sleeps(engine.pid())?.saturating_sub(sleeps),
    })
}

/// How many system calls it makes in a window; none where they cannot be counted.
fn system_calls(engine: &Engine) -> anyhow::Result<Option<u64>> {
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-q", "-p", &engine.pid().to_string()]);
    let Ok(mut strace) = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn() else {
        return Ok(None);
    };
    thread::sleep(WINDOW);
    let pid = Pid::from_child(&strace);
    kill_process(pid, Signal::INT)?;
    let mut table = String::new();
    strace.stderr.take().context("strace has no standard error")?.read_to_string(&mut table)?;
    strace.wait()?;
    if !table.contains("calls") {
        // It made none, or strace may not look.
        return Ok(table.trim().is_empty().then_some(0));
    }
    let total = table.lines().find(|line| line.trim_end().ends_with(" total"));
    Ok(total.and_then(|line| line.split_whitespace().nth(3)?.parse().ok()))
}

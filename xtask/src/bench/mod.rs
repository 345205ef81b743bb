//! `cargo xtask bench`: the budgets of the design, measured beside their baselines in one run.
//!
//! Each row has a file of its own. Here is what can be asked for, and the order; `row` is what a
//! measurement says, `directory` makes archives to measure with, `engine` runs a collector in a
//! process of its own, `saturation` one that keeps a disk busy, `reads` are a baseline, and `machine`,
//! `process` and `timing` are how figures are taken.

mod binary;
mod burst;
mod close_to_unlink;
mod cluster;
mod directory;
mod engine;
mod first_index;
mod identify;
mod idle;
mod machine;
mod memory;
mod plan;
mod policies;
mod process;
mod reads;
mod row;
mod saturated;
mod saturation;
mod scale;
mod schedules;
mod sparse;
mod sweep;
mod timing;
mod unlink_space;

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

use directory::Bench;
use row::{Results, Row};

use crate::cargo::cargo;
use crate::image::{self, Architecture, Program};

/// What is to be measured, and where.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 1 when a budget is missed.")]
pub(crate) struct Arguments {
    /// Print a Markdown table and not JSON
    #[arg(long)]
    pub markdown: bool,
    /// Smaller directories and fewer rounds: for a first impression, within a minute
    #[arg(long)]
    pub quick: bool,
    /// Measure only these rows
    #[arg(long, value_name = "ROW", value_enum, num_args = 1..)]
    pub only: Vec<RowId>,
    /// Measure instead what the agent costs that runs in its pod on a real cluster
    #[arg(long, conflicts_with = "only")]
    pub cluster: bool,
    /// The agents of many nodes
    #[command(flatten)]
    pub scale: scale::Scale,
    /// Write there and not to standard output
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Make the temporary directory of archives (up to 5 GB) below this one
    #[arg(long, value_name = "DIRECTORY")]
    pub dir: Option<PathBuf>,
    /// Be the collector of a directory until standard input ends: how a bench measures one
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    pub engine: Option<PathBuf>,
    /// Its number of policies
    #[arg(long, value_name = "COUNT", hide = true, default_value_t = 1)]
    pub engine_policies: usize,
    /// Its seconds between two looks at everything
    #[arg(long, value_name = "SECONDS", hide = true, default_value_t = 60)]
    pub engine_interval: u64,
    /// Its catalog
    #[arg(long, value_name = "FILE", hide = true)]
    pub engine_state: Option<PathBuf>,
    /// Keep the disk of a directory busy until standard input ends: what a bench measures beside
    #[arg(long, value_name = "DIRECTORY", hide = true)]
    pub saturate: Option<PathBuf>,
}

/// The rows, in the order in which they are measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum RowId {
    /// Bytes read to identify an archive
    IdentifyBytes,
    /// Time for that
    IdentifyTime,
    /// First look at 10 000 real archives
    FirstIndex,
    /// Sweep of 10 000 unchanged archives
    SweepUnchanged,
    /// Plan for 100 000 archives
    #[value(name = "plan-100k")]
    Plan,
    /// Many archives that arrive at once
    Burst,
    /// From an archive's closing to the unlink of the surplus one
    CloseToUnlink,
    /// The same while the catalog's disk is saturated
    #[value(name = "close-to-unlink-saturated")]
    Saturated,
    /// Resident memory
    Memory,
    /// The binary's size
    Binary,
    /// Sparse archives and a directory of 100 000
    Sparse,
    /// Time to free written blocks
    UnlinkSpace,
    /// What an idle collector costs
    IdleCost,
    /// What schedules cost while nothing is due
    Schedules,
}

/// Measures and prints. An error where a budget is missed.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(directory) = &arguments.engine {
        let state = arguments.engine_state.as_deref();
        return engine::run(directory, arguments.engine_policies, arguments.engine_interval, state);
    }
    if let Some(directory) = &arguments.saturate {
        return saturation::run(directory);
    }
    if let Some(plan) = &arguments.scale.process {
        return scale::run_process(plan);
    }
    if cfg!(debug_assertions) && !(arguments.scale.is_wanted && arguments.quick) {
        return run_optimised();
    }
    let mut bench = Bench::new(arguments.dir.as_deref(), arguments.quick)?;
    let mut results = Results { machine: machine::describe(bench.path())?, rows: Vec::new() };
    if arguments.cluster {
        results.rows = cluster::rows(&bench)?;
    }
    if arguments.scale.is_wanted {
        results.rows = scale::rows(&arguments.scale, arguments.quick)?;
    }
    let are_rows_wanted = !arguments.cluster && !arguments.scale.is_wanted;
    for id in RowId::value_variants().iter().filter(|_| are_rows_wanted) {
        if arguments.only.is_empty() || arguments.only.contains(id) {
            let name = id.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
            let start = Instant::now();
            let rows = measure(*id, &mut bench).with_context(|| format!("failed to measure {name}"))?;
            eprintln!("measured {name} in {:.1?}", start.elapsed());
            results.rows.extend(rows);
        }
    }
    drop(bench);
    let text = if arguments.markdown { results.markdown() } else { results.json()? };
    match &arguments.output {
        Some(path) => {
            std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
        }
        None => std::io::stdout().write_all(text.as_bytes())?,
    }
    let missed = results.missed();
    if !missed.is_empty() {
        bail!("budgets missed: {}", missed.join(", "));
    }
    Ok(())
}

fn measure(id: RowId, bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    match id {
        RowId::IdentifyBytes => identify::bytes(bench),
        RowId::IdentifyTime => identify::time(bench),
        RowId::FirstIndex => first_index::rows(bench),
        RowId::SweepUnchanged => sweep::rows(bench),
        RowId::Plan => plan::rows(bench),
        RowId::Burst => burst::rows(bench),
        RowId::CloseToUnlink => close_to_unlink::rows(bench),
        RowId::Saturated => saturated::rows(bench),
        RowId::Memory => memory::rows(bench),
        RowId::Binary => binary::rows(bench),
        RowId::Sparse => sparse::rows(bench),
        RowId::UnlinkSpace => unlink_space::rows(bench),
        RowId::IdleCost => idle::rows(bench),
        RowId::Schedules => schedules::rows(bench),
    }
}

/// Figures of an unoptimised program say nothing: builds the binary and this program as they are
/// shipped, and has that one measure.
fn run_optimised() -> anyhow::Result<()> {
    if let Err(error) = image::build(Program::Operator, Architecture::Amd64) {
        eprintln!("checkpoint-keeper cannot be built: measuring without it what can be: {error:#}");
    }
    let status = cargo()
        .args(["run", "--release", "--quiet", "--package", "xtask", "--"])
        .args(std::env::args_os().skip(1))
        .status()?;
    if status.success() { Ok(()) } else { bail!("the measurement failed, or a budget was missed") }
}

//! Results for people.

use std::fmt::{self, Write as _};
use std::io::{self, Write as _};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use checkpoint_keeper_core::archive::State;
use checkpoint_keeper_core::name::{FileName, printable};
use checkpoint_keeper_core::plan::{Action, Reason};
use checkpoint_keeper_core::{duration, quantity};
use jiff::Timestamp;

use super::inspection::Inspected;
use super::report::{Report, Row};
use super::table::Table;

/// The widest that a file name may make the column of pods; the JSON has it whole.
const WIDEST_NAME: usize = 44;

/// Prints a table of all archives, and a line of totals below.
pub fn report(report: &Report, dry_run: bool) -> io::Result<()> {
    let mut text = String::new();
    render_report(&mut text, report, dry_run).map_err(io::Error::other)?;
    print(&text)
}

/// Prints what was inspected, a block for each archive.
pub fn inspected(inspected: &[Inspected]) -> io::Result<()> {
    let mut text = String::new();
    render_inspected(&mut text, inspected).map_err(io::Error::other)?;
    print(&text)
}

/// In colour on a terminal that has it, plain elsewhere.
fn print(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn render_report(out: &mut String, report: &Report, dry_run: bool) -> fmt::Result {
    if report.archives.is_empty() {
        return writeln!(out, "No archives in {}.", printable(&report.directory));
    }
    let header = ["VERDICT", "NAMESPACE", "POD", "CONTAINER", "AGE", "SIZE", "REASON", "POLICY", "DETAIL"];
    let mut table = Table::new(&header, &[4, 5]);
    for row in &report.archives {
        table.row(style(row), cells(row, report.now));
    }
    for line in table.lines() {
        writeln!(out, "{line}")?;
    }
    writeln!(out)?;
    writeln!(out, "{}", totals(report, dry_run))?;
    for policy in &report.dry_run_policies {
        let (delete, keep) = (policy.would_delete.len(), policy.would_keep.len());
        let id = printable(&policy.policy);
        writeln!(out, "{id} (DryRun) would delete {delete} more and keep {keep} that go now.")?;
        for file in &policy.would_delete {
            writeln!(out, "  would delete {}", safe(file))?;
        }
        for file in &policy.would_keep {
            writeln!(out, "  would keep   {}", safe(file))?;
        }
    }
    if let Some(watermark) =
        report.watermark.filter(|watermark| watermark.freed_bytes < watermark.wanted_bytes)
    {
        let (wanted, freed) =
            (quantity::human(watermark.wanted_bytes), quantity::human(watermark.freed_bytes));
        let why = if watermark.below_reserve {
            "checkpoints use no more than is reserved for them; something else fills the disk"
        } else {
            "the rest is pinned, is the newest of its container, or cannot be told whose it is"
        };
        writeln!(out, "The disk is too full: wanted {wanted}, freed {freed}; {why}.")?;
    }
    Ok(())
}

fn render_inspected(out: &mut String, inspected: &[Inspected]) -> fmt::Result {
    let (name, dim) = (Style::new().bold(), Style::new().dimmed());
    for (place, archive) in inspected.iter().enumerate() {
        if place > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{name}{}{name:#}", archive.shown)?;
        for (key, value) in facts(archive) {
            writeln!(out, "  {dim}{key:<13}{dim:#} {}", safe(&value))?;
        }
    }
    Ok(())
}

fn style(row: &Row) -> Style {
    match (row.verdict, row.state) {
        (Action::Delete, _) => AnsiColor::Red.on_default(),
        (Action::Keep, State::Complete) => Style::new(),
        (Action::Keep, _) => AnsiColor::Yellow.on_default(),
    }
}

fn cells(row: &Row, now: Timestamp) -> Vec<String> {
    let mark = match (row.verdict, row.deleted) {
        (Action::Keep, _) => "keep",
        (Action::Delete, false) => "delete",
        (Action::Delete, true) => "deleted",
    };
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    // Without an identity the file's name is all there is to go by.
    let pod = row.pod.clone().unwrap_or_else(|| shorten(&row.shown));
    let age = Duration::try_from(now.duration_since(row.checkpointed_at)).unwrap_or_default();
    vec![
        mark.to_owned(),
        or_dash(&row.namespace),
        pod,
        or_dash(&row.container),
        duration::human(age),
        quantity::human(row.size_bytes),
        row.reason.to_string(),
        or_dash(&row.short_policy),
        detail(row),
    ]
}

/// The figures, and what they do not say: that an archive is cut off although that is not why it
/// goes or stays.
fn detail(row: &Row) -> String {
    let said = row.state == State::Complete || !row.detail.is_empty() || row.reason == Reason::Incomplete;
    if said { row.detail.clone() } else { format!("{:?}", row.state) }
}

/// `1 archive`, `2 archives`.
pub fn count(archives: u64) -> String {
    if archives == 1 { "1 archive".to_owned() } else { format!("{archives} archives") }
}

fn totals(report: &Report, dry_run: bool) -> String {
    let totals = &report.totals;
    let archives = count(totals.archives);
    let all = quantity::human(totals.bytes);
    let done: Vec<&Row> = report.archives.iter().filter(|row| row.deleted).collect();
    let what = if dry_run {
        format!("{} to delete, which frees {}", totals.delete_archives, quantity::human(totals.delete_bytes))
    } else {
        let freed = done.iter().map(|row| row.size_bytes).fold(0, u64::saturating_add);
        format!("{} deleted, which frees {}", done.len(), quantity::human(freed))
    };
    let failed = match totals.failures {
        0 => String::new(),
        failures => format!("; {failures} failed"),
    };
    let disk = report.filesystem.filter(|filesystem| filesystem.total_bytes > 0).map(|filesystem| {
        let used = filesystem.total_bytes.saturating_sub(filesystem.free_bytes);
        let percent = u128::from(used) * 100 / u128::from(filesystem.total_bytes);
        format!("; the disk of {} is {percent}% used", quantity::human(filesystem.total_bytes))
    });
    format!("{archives}, {all}; {what}{failed}{}.", disk.unwrap_or_default())
}

fn facts(archive: &Inspected) -> Vec<(&'static str, String)> {
    let container = match (&archive.namespace, &archive.pod, &archive.container) {
        (Some(namespace), Some(pod), Some(container)) => format!("{namespace}/{pod}/{container}"),
        _ => "unknown".to_owned(),
    };
    let mut facts = vec![("container", container)];
    let mut add = |key, value: Option<String>| facts.extend(value.map(|value| (key, value)));
    add("pod UID", archive.pod_uid.clone());
    let state = format!("{:?}", archive.state);
    add(
        "state",
        Some(archive.problem.as_ref().map_or(state.clone(), |problem| format!("{state}: {problem}"))),
    );
    add("checkpointed", Some(format!("{:.3}", archive.checkpointed_at)));
    add("size", Some(format!("{} ({} bytes)", quantity::human(archive.size_bytes), archive.size_bytes)));
    add("members", Some(format!("{} ({:?})", archive.members, archive.format)));
    add("image", archive.image.clone());
    add("image ref", archive.image_ref.clone());
    add("engine", archive.engine.map(|engine| engine.to_string()));
    add("runtime", archive.runtime.clone());
    add("container ID", archive.container_id.clone());
    add("created", archive.created_at.map(|created| format!("{created:.3}")));
    add("restarts", archive.restart_count.map(|count| count.to_string()));
    add("restored", archive.restored_at.map(|restored| format!("{restored:.3}")));
    add("CRIU", archive.statistics.as_ref().map(criu));
    facts
}

/// CRIU's figures in one line: for how long the container stood still, and how much was written.
fn criu(statistics: &checkpoint_keeper_core::archive::Statistics) -> String {
    let milliseconds = |microseconds: u32| format!("{:.1}ms", f64::from(microseconds) / 1_000.0);
    format!(
        "frozen for {}, memory dumped in {}, {} pages written",
        milliseconds(statistics.frozen_time),
        milliseconds(statistics.memdump_time),
        statistics.pages_written
    )
}

/// Text from outside, made safe for a terminal: what it would act on or hide is spelled out.
pub fn safe(text: &str) -> String {
    // Names follow these rules; a slash is the one thing that they cannot have.
    let part = |part: &str| {
        FileName::new(part.as_bytes()).map_or_else(|| printable(part).into_owned(), |name| name.to_string())
    };
    text.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// A long name with its middle left out: its beginning says which pod, its end says when.
fn shorten(name: &str) -> String {
    let length = name.chars().count();
    if length <= WIDEST_NAME {
        return name.to_owned();
    }
    let half = (WIDEST_NAME - 1) / 2;
    let (begin, end): (String, String) =
        (name.chars().take(half).collect(), name.chars().skip(length - half).collect());
    format!("{begin}…{end}")
}

//! What `gc` shows people.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use anstyle::{AnsiColor, Style};
use checkpoint_keeper_core::archive::State;
use checkpoint_keeper_core::engine::file::Outcome;
use checkpoint_keeper_core::name::{FileName, printable};
use checkpoint_keeper_core::plan::{Action, Reason};
use checkpoint_keeper_core::{duration, quantity};
use jiff::Timestamp;

use super::summary::{Mark, NamespaceSum, Sum, Summary};
use checkpoint_keeper_core::report::{Explanation, Report, Row};
use checkpoint_keeper_terminal::table::{Column, Fitted, Kind, Table};

/// The widest that a file name may make the column of pods; the column FILE and the JSON have it whole.
const WIDEST_NAME: usize = 44;

/// The most archives, and the most namespaces, that a question names.
const MOST_ASKED: usize = 10;

/// How much of a table is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// What fits the terminal, if there is one.
    Terminal,
    /// Everything, and the files' names.
    Everything,
}

impl Fit {
    /// The widest that a line may be; none: as wide as it is.
    fn width(self) -> Option<usize> {
        let stdout = io::stdout();
        let (width, _) = terminal_size::terminal_size_of(&stdout).filter(|_| self == Self::Terminal)?;
        Some(usize::from(width.0))
    }
}

/// Prints a table of the archives, and totals below. What was deleted is left out, as it was reported when it
/// happened.
pub fn report(report: &Report, dry_run: bool, fit: Fit) -> io::Result<()> {
    let mut text = String::new();
    render_report(&mut text, report, dry_run, fit).map_err(io::Error::other)?;
    print(&text)
}

/// Prints lines, and an empty one below.
pub fn lines(lines: &[String]) -> io::Result<()> {
    let mut text: String = lines.iter().map(|line| format!("{}\n", printable(line))).collect();
    text.push('\n');
    print(&text)
}

/// Prints the explanation of one verdict.
pub fn explanation(explanation: &Explanation) -> io::Result<()> {
    write!(io::stdout().lock(), "{explanation}")
}

/// Shows on standard error what would be deleted, before the user is asked to confirm it.
pub fn deletions_to_confirm(report: &Report) -> io::Result<()> {
    let (directory, totals) = (printable(&report.directory), &report.totals);
    let text = format!(
        "To be deleted from {directory}: {} of {}, which frees {} of {}.\n\n{}",
        totals.delete_archives,
        count(totals.archives),
        quantity::human(totals.delete_bytes),
        quantity::human(totals.bytes),
        render_question(report),
    );
    let mut err = anstream::stderr().lock();
    err.write_all(text.as_bytes())?;
    err.flush()
}

/// Writes one line about a deletion.
pub fn deletion(out: &mut impl io::Write, outcome: &Outcome, time: Timestamp) -> io::Result<()> {
    let (archive, verdict) = (&outcome.deletion.archive, &outcome.deletion.verdict);
    let whose = archive.identity.as_ref().map_or_else(
        || "of unknown identity".to_owned(),
        |identity| format!("{}/{}/{}", identity.namespace, identity.pod, identity.container),
    );
    let policy = verdict.policy.as_ref().map(|policy| format!(" by {policy}")).unwrap_or_default();
    let detail = verdict.detail.to_string();
    let detail = if detail.is_empty() { detail } else { format!(" ({detail})") };
    let (size, reason) = (quantity::human(archive.size), verdict.reason);
    let what = format!("deleted {} {whose} {size} {reason}{detail}{policy}", archive.file);
    writeln!(out, "{time:.3} {}", printable(&what))?;
    out.flush()
}

/// In colour on a terminal that has it, plain elsewhere.
pub(super) fn print(text: &str) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn render_report(out: &mut String, report: &Report, dry_run: bool, fit: Fit) -> fmt::Result {
    if report.archives.is_empty() {
        return writeln!(out, "No archives in {}.", printable(&report.directory));
    }
    let rows: Vec<&Row> = report.archives.iter().filter(|row| !row.deleted).collect();
    if rows.len() < report.archives.len() {
        // Lines about what was deleted stand above.
        writeln!(out)?;
    }
    if !rows.is_empty() {
        render_archives(out, &rows, report.now, fit)?;
    }
    for lines in totals_by(&Summary::of(&report.archives), dry_run) {
        lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
        writeln!(out)?;
    }
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
    if let Some(shortfall) = report.watermark.and_then(|watermark| watermark.shortfall()) {
        writeln!(out, "The disk is too full: {shortfall}.")?;
    }
    Ok(())
}

fn render_archives(out: &mut String, rows: &[&Row], now: Timestamp, fit: Fit) -> fmt::Result {
    let names_files = fit == Fit::Everything || !are_told_apart(rows, now);
    let mut columns = vec![
        Column::new("VERDICT", Kind::Word),
        Column::new("NAMESPACE", Kind::Name(9)),
        Column::new("POD", Kind::Name(12)),
        Column::new("CONTAINER", Kind::Name(9)),
        Column::new("AGE", Kind::Figure),
        Column::new("SIZE", Kind::Figure),
        Column::new("REASON", Kind::Word),
        Column::optional("POLICY", Kind::Name(12)),
        Column::optional("DETAIL", Kind::Prose(12)),
    ];
    if names_files {
        columns.push(Column::optional("FILE", Kind::Name(32)));
    }
    let mut table = Table::new(&columns);
    for row in rows {
        let mut cells = cells(row, now);
        if names_files {
            cells[2] = row.pod.clone().unwrap_or_else(|| "-".to_owned());
            cells.push(row.shown.clone());
        }
        table.row(style(row), cells);
    }
    let Fitted { lines, left_out } = table.fit(fit.width());
    lines.iter().try_for_each(|line| writeln!(out, "{line}"))?;
    if !left_out.is_empty() {
        let dim = Style::new().dimmed();
        writeln!(out, "{dim}Not shown: {}; see them with -o wide.{dim:#}", left_out.join(", "))?;
    }
    writeln!(out)
}

/// Whether no two rows say the same of whose checkpoint it is, how old and how large.
fn are_told_apart(rows: &[&Row], now: Timestamp) -> bool {
    let mut seen = HashSet::new();
    rows.iter().all(|row| seen.insert(cells(row, now)[1..6].to_vec()))
}

/// Totals by reason, and by namespace.
fn totals_by(summary: &Summary, dry_run: bool) -> [Vec<String>; 2] {
    let mut reasons = Table::new(&[
        Column::new("VERDICT", Kind::Word),
        Column::new("REASON", Kind::Word),
        Column::new("ARCHIVES", Kind::Figure),
        Column::new("SIZE", Kind::Figure),
    ]);
    for ((mark, reason), sum) in &summary.by_reason {
        let style = if *mark == Mark::Keep { Style::new() } else { AnsiColor::Red.on_default() };
        let cells = [mark.name().to_owned(), reason.to_string(), sum.archives.to_string()];
        reasons.row(style, [&cells[..], &[quantity::human(sum.bytes)]].concat());
    }
    let delete = if dry_run { ["DELETE", "FREES"] } else { ["DELETED", "FREED"] };
    let mut namespaces = Table::new(&[
        Column::new("NAMESPACE", Kind::Word),
        Column::new("ARCHIVES", Kind::Figure),
        Column::new("SIZE", Kind::Figure),
        Column::new(delete[0], Kind::Figure),
        Column::new(delete[1], Kind::Figure),
    ]);
    // What is of unknown identity comes last, as in the table above.
    let unknown_last = |entry: &(&Option<String>, &NamespaceSum)| entry.0.is_none();
    let mut by_namespace: Vec<_> = summary.by_namespace.iter().collect();
    by_namespace.sort_by_key(unknown_last);
    for (namespace, sum) in by_namespace {
        let delete = if dry_run { sum.delete } else { sum.deleted };
        namespaces.row(
            Style::new(),
            vec![
                namespace_name(namespace.as_deref()),
                sum.all.archives.to_string(),
                quantity::human(sum.all.bytes),
                delete.archives.to_string(),
                quantity::human(delete.bytes),
            ],
        );
    }
    [reasons.fit(None).lines, namespaces.fit(None).lines]
}

fn namespace_name(namespace: Option<&str>) -> String {
    namespace.unwrap_or("-").to_owned()
}

/// What is to go, by reason and by namespace: the largest ones.
fn render_question(report: &Report) -> String {
    let going = || report.archives.iter().filter(|row| row.verdict == Action::Delete);
    let summary = Summary::of(going());
    let files: Vec<String> = going().take(MOST_ASKED).map(|row| format!("  {}\n", row.shown)).collect();
    let more_files = match going().count().saturating_sub(MOST_ASKED) {
        0 => String::new(),
        left_out => format!("  … and {left_out} more; --dry-run names all\n"),
    };
    let mut namespaces: Vec<_> = summary.by_namespace.iter().collect();
    namespaces.sort_by_key(|(_, sum)| Reverse((sum.delete.bytes, sum.delete.archives)));
    let left_out = namespaces.len().saturating_sub(MOST_ASKED);
    let table = |title: &'static str, rows: Vec<(String, Sum)>| {
        let titles = [(title, Kind::Word), ("DELETE", Kind::Figure), ("FREES", Kind::Figure)];
        let mut table = Table::new(&titles.map(|(title, kind)| Column::new(title, kind)));
        for (name, sum) in rows {
            table.row(Style::new(), vec![name, sum.archives.to_string(), quantity::human(sum.bytes)]);
        }
        table.fit(None).lines.join("\n")
    };
    let by_reason = summary.by_reason.iter().map(|((_, reason), sum)| (reason.to_string(), *sum));
    let by_namespace = namespaces
        .iter()
        .take(MOST_ASKED)
        .map(|(namespace, sum)| (namespace_name(namespace.as_deref()), sum.delete));
    let more = match left_out {
        0 => String::new(),
        left_out => format!("… and {left_out} more namespaces\n"),
    };
    format!(
        "{}{more_files}\n{}\n\n{}\n{more}\n",
        files.concat(),
        table("REASON", by_reason.collect()),
        table("NAMESPACE", by_namespace.collect())
    )
}

fn style(row: &Row) -> Style {
    match (row.verdict, row.state) {
        (Action::Delete, _) => AnsiColor::Red.on_default(),
        (Action::Keep, State::Complete) => Style::new(),
        (Action::Keep, _) => AnsiColor::Yellow.on_default(),
    }
}

fn cells(row: &Row, now: Timestamp) -> Vec<String> {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    // Without an identity the file's name is all there is to go by.
    let pod = row.pod.clone().unwrap_or_else(|| shorten(&row.shown));
    let age = |taken: Timestamp| duration::human(now.duration_since(taken).try_into().unwrap_or_default());
    vec![
        Mark::of(row).name().to_owned(),
        or_dash(&row.namespace),
        pod,
        or_dash(&row.container),
        row.checkpointed_at.map_or_else(|| "unknown".to_owned(), age),
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
    if said { row.detail.clone() } else { row.state.name().to_owned() }
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
        let (all, available) = (filesystem.total_bytes, filesystem.free_bytes);
        format!(
            "; the disk of {} is {percent}% used, {} available",
            quantity::human(all),
            quantity::human(available)
        )
    });
    format!("{archives}, {all}; {what}{failed}{}.", disk.unwrap_or_default())
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

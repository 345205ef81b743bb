//! How results are shown: tables, bars, JSON and YAML.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use checkpoint_keeper_core::name::printable;
use checkpoint_keeper_core::policy::Kind as PolicyKind;
use checkpoint_keeper_terminal::table::{Column, Fitted, Kind, Table, wrapped};
use serde::Serialize;

use crate::cli::DataFormat;
use crate::failure::Failure;

/// How many characters a bar has.
const BAR: usize = 20;

/// In less room than this no text is parted.
const LEAST_LINE: usize = 20;

/// A column with text.
pub const fn name(title: &'static str) -> Column {
    Column::new(title, Kind::Name(12))
}

/// A column with a word.
pub const fn word(title: &'static str) -> Column {
    Column::new(title, Kind::Word)
}

/// A column with a figure.
pub const fn figure(title: &'static str) -> Column {
    Column::new(title, Kind::Figure)
}

/// A column with a sentence, of which nothing is cut: it goes on in the next line.
pub const fn text(title: &'static str) -> Column {
    Column::new(title, Kind::Text(24))
}

/// How wide the terminal is; none: there is no terminal.
pub fn width() -> Option<usize> {
    let out = io::stdout();
    out.is_terminal()
        .then(|| terminal_size::terminal_size_of(out))
        .flatten()
        .map(|(width, _)| usize::from(width.0))
}

/// Prints a table that fits the terminal, where there is one.
pub fn table(columns: &[Column], rows: Vec<(Style, Vec<String>)>) -> Result<(), Failure> {
    print_table(columns, rows, width()).map(drop)
}

/// The same of a command that has `-o wide`, which shows everything.
pub fn table_or_wide(
    columns: &[Column],
    rows: Vec<(Style, Vec<String>)>,
    is_wide: bool,
) -> Result<(), Failure> {
    let left_out = print_table(columns, rows, width().filter(|_| !is_wide))?;
    if left_out.is_empty() {
        return Ok(());
    }
    let what = format!("Not shown: {}; see them with -o wide.", left_out.join(", "));
    styled(Style::new().dimmed(), &what)
}

/// Prints a table, and returns the titles of the columns that were left out.
fn print_table(
    columns: &[Column],
    rows: Vec<(Style, Vec<String>)>,
    most: Option<usize>,
) -> Result<Vec<&'static str>, Failure> {
    let mut table = Table::new(columns);
    rows.into_iter().for_each(|(style, cells)| table.row(style, cells));
    let mut out = anstream::stdout().lock();
    let Fitted { lines, left_out } = table.fit(most);
    for line in lines {
        writeln!(out, "{line}")?;
    }
    Ok(left_out)
}

/// Prints a line; what comes from outside does nothing to the terminal.
pub fn line(text: &str) -> Result<(), Failure> {
    Ok(writeln!(anstream::stdout().lock(), "{}", printable(text))?)
}

/// Prints a line in a style.
pub fn styled(style: Style, text: &str) -> Result<(), Failure> {
    Ok(writeln!(anstream::stdout().lock(), "{style}{}{style:#}", printable(text))?)
}

/// Prints a line in a style, with something before it; what does not fit the terminal goes on in the next line, below the text.
pub fn indented(style: Style, begin: &str, text: &str) -> Result<(), Failure> {
    let indent = begin.chars().count();
    let text = printable(text);
    let lines = match width().map(|width| width.saturating_sub(indent)) {
        Some(room) if room >= LEAST_LINE => wrapped(&text, room),
        _ => vec![text.into_owned()],
    };
    let mut out = anstream::stdout().lock();
    for (number, line) in lines.iter().enumerate() {
        let begin = if number == 0 { begin } else { "" };
        writeln!(out, "{style}{begin:indent$}{line}{style:#}")?;
    }
    Ok(())
}

/// Prints a value for programs.
pub fn data(value: &impl Serialize, format: DataFormat) -> Result<(), Failure> {
    let wrong = |error: &dyn std::fmt::Display| Failure::new(format!("cannot write the output: {error}"));
    let text = match format {
        DataFormat::Yaml => serde_saphyr::to_string(value).map_err(|error| wrong(&error))?,
        DataFormat::Json => serde_json::to_string_pretty(value).map_err(|error| wrong(&error))? + "\n",
    };
    Ok(io::stdout().lock().write_all(text.as_bytes())?)
}

/// A bar that is as long as the share of the whole.
pub fn bar(part: u64, whole: u64) -> String {
    let eighths = if whole == 0 { 0 } else { u128::from(part) * (BAR as u128 * 8) / u128::from(whole) };
    let eighths = usize::try_from(eighths).unwrap_or(0).min(BAR * 8);
    let rest = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"][eighths % 8];
    // The least that there is shows.
    let rest = if eighths == 0 && part > 0 { "▏" } else { rest };
    "█".repeat(eighths / 8) + rest
}

/// What is good, what needs a look, and what is bad.
pub fn good() -> Style {
    AnsiColor::Green.on_default()
}

/// What needs a look.
pub fn doubtful() -> Style {
    AnsiColor::Yellow.on_default()
}

/// What is bad.
pub fn bad() -> Style {
    AnsiColor::Red.on_default()
}

/// So many of something.
pub fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Names, of which the first 20 are written out.
pub fn some(names: &[String]) -> String {
    const MOST: usize = 20;
    match names.get(..MOST).map(|first| (first, names.len() - MOST)) {
        Some((first, more)) if more > 0 => format!("{} and {more} more", first.join(", ")),
        _ => names.join(", "),
    }
}

/// A policy as agents name it, with its kind's short name: `cckpol/default`.
pub fn short_policy(policy: &str) -> String {
    let short = policy.split_once('/').and_then(|(kind, name)| {
        let kind = PolicyKind::ALL.into_iter().find(|known| known.name() == kind)?;
        Some(format!("{}/{name}", kind.short_name()))
    });
    short.unwrap_or_else(|| policy.to_owned())
}

/// A verdict as a word, as `gc` has it: `keep` or `delete`.
pub fn verdict(verdict: &str) -> String {
    verdict.to_lowercase()
}

/// A runtime's name without what all of containerd's have: `runc` for `io.containerd.runc.v2` and `/usr/bin/runc`.
pub fn runtime(name: &str) -> &str {
    let name = name.rsplit_once('/').map_or(name, |(_, name)| name);
    let Some(rest) = name.strip_prefix("io.containerd.") else { return name };
    match rest.rsplit_once(".v") {
        Some((runtime, version)) if version.chars().all(|char| char.is_ascii_digit()) => runtime,
        _ => rest,
    }
}

/// Text that is there, or a dash.
pub fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_names_the_first_are_written_out() {
        let names = |count: usize| (1..=count).map(|number| format!("n{number}")).collect::<Vec<_>>();
        assert_eq!((some(&names(0)), some(&names(2))), (String::new(), "n1, n2".to_owned()));
        assert!(some(&names(20)).ends_with(", n20") && some(&names(21)).ends_with(", n20 and 1 more"));
    }

    #[test]
    fn names_that_all_have_in_common_are_left_out() {
        assert_eq!(short_policy("ClusterCheckpointPolicy/default"), "cckpol/default");
        assert_eq!(short_policy("CheckpointPolicy/shop/three"), "ckpol/shop/three");
        for as_it_is in ["cckpol/default", "Another/a/b", "-", "none"] {
            assert_eq!(short_policy(as_it_is), as_it_is);
        }
        let runtimes =
            ["io.containerd.runc.v2", "/usr/bin/crun", "runc", "io.containerd.kata", "io.containerd.a.vm"];
        assert_eq!(runtimes.map(runtime), ["runc", "crun", "runc", "kata", "a.vm"]);
    }

    #[test]
    fn a_bar_is_as_long_as_its_share() {
        assert_eq!(bar(0, 100), "");
        assert_eq!(bar(1, 1_000_000), "▏");
        assert_eq!(bar(50, 100), "█".repeat(10));
        assert_eq!(bar(200, 100), "█".repeat(20));
        assert_eq!(bar(5, 0), "▏");
    }
}

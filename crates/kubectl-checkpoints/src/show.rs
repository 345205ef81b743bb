//! How results are shown: tables, bars, JSON and YAML.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use checkpoint_keeper_core::name::printable;
use checkpoint_keeper_terminal::table::{Column, Kind, Table};
use serde::Serialize;

use crate::cli::DataFormat;
use crate::failure::Failure;

/// How many characters a bar has.
const BAR: usize = 20;

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

/// A column with a sentence.
pub const fn prose(title: &'static str) -> Column {
    Column::new(title, Kind::Prose(24))
}

/// How wide the terminal is; none: there is no terminal.
pub fn width() -> Option<usize> {
    let out = io::stdout();
    out.is_terminal()
        .then(|| terminal_size::terminal_size_of(out))
        .flatten()
        .map(|(width, _)| usize::from(width.0))
}

/// Prints a table.
pub fn table(columns: &[Column], rows: Vec<(Style, Vec<String>)>) -> Result<(), Failure> {
    let mut table = Table::new(columns);
    rows.into_iter().for_each(|(style, cells)| table.row(style, cells));
    let mut out = anstream::stdout().lock();
    for line in table.fit(width()).lines {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// Prints a line; what comes from outside does nothing to the terminal.
pub fn line(text: &str) -> Result<(), Failure> {
    Ok(writeln!(anstream::stdout().lock(), "{}", printable(text))?)
}

/// Prints a line in a style.
pub fn styled(style: Style, text: &str) -> Result<(), Failure> {
    Ok(writeln!(anstream::stdout().lock(), "{style}{}{style:#}", printable(text))?)
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
    fn a_bar_is_as_long_as_its_share() {
        assert_eq!(bar(0, 100), "");
        assert_eq!(bar(1, 1_000_000), "▏");
        assert_eq!(bar(50, 100), "█".repeat(10));
        assert_eq!(bar(200, 100), "█".repeat(20));
        assert_eq!(bar(5, 0), "▏");
    }
}

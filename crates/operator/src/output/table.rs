//! Columns of text, as wide as what stands in them.

use anstyle::Style;
use checkpoint_keeper_core::name::printable;

/// A table.
pub(super) struct Table {
    header: Vec<&'static str>,
    /// The columns that hold figures, and are set to the right.
    right: &'static [usize],
    rows: Vec<(Style, Vec<String>)>,
}

impl Table {
    pub(super) fn new(header: &[&'static str], right: &'static [usize]) -> Self {
        Self { header: header.to_vec(), right, rows: Vec::new() }
    }

    /// Adds a row; what comes from outside does nothing to the terminal.
    pub(super) fn row(&mut self, style: Style, cells: Vec<String>) {
        let cells = cells.into_iter().map(|cell| printable(&cell).into_owned()).collect();
        self.rows.push((style, cells));
    }

    /// The lines, each in its row's style. The last column is not padded.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut widths: Vec<usize> = self.header.iter().map(|title| title.chars().count()).collect();
        for (_, cells) in &self.rows {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let header: Vec<String> = self.header.iter().map(|title| (*title).to_owned()).collect();
        let bold = Style::new().bold();
        std::iter::once((&bold, &header))
            .chain(self.rows.iter().map(|(style, cells)| (style, cells)))
            .map(|(style, cells)| format!("{style}{}{style:#}", self.line(cells, &widths)))
            .collect()
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let padded = cells.iter().zip(widths).enumerate().map(|(column, (cell, &width))| {
            if self.right.contains(&column) { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them() {
        let mut table = Table::new(&["POD", "SIZE", "WHY"], &[1]);
        table.row(Style::new(), vec!["web-0".into(), "1Ki".into(), "old".into()]);
        table.row(Style::new(), vec!["é".into(), "1023".into(), String::new()]);
        table.row(Style::new(), vec!["\u{1b}]0;x".into(), "1".into(), "\u{202e}".into()]);
        let plain: Vec<String> =
            table.lines().iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
        assert_eq!(
            plain,
            ["POD       SIZE  WHY", "web-0      1Ki  old", "é         1023", r"\x1b]0;x     1  \u{202e}"]
        );
    }
}

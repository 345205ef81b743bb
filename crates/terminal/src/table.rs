//! Columns of text: as wide as what stands in them, or as narrow as the terminal wants them.

use anstyle::Style;
use checkpoint_keeper_core::name::printable;

/// What stands between two columns.
const GAP: usize = 2;

/// What a column holds, which says how it may be shortened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A figure, set to the right and never shortened.
    Figure,
    /// A word that is never shortened.
    Word,
    /// A name that may lose its middle, down to this width: its beginning and its end say most.
    Name(usize),
    /// A sentence that may lose its end, down to this width.
    Prose(usize),
    /// Text that goes on in the next line where it is wider than its column, which may become as narrow as this.
    Text(usize),
}

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    /// What stands above it.
    pub title: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it may be left out where the table does not fit otherwise. The first such column goes first.
    pub is_optional: bool,
}

impl Column {
    /// One that is always there.
    pub const fn new(title: &'static str, kind: Kind) -> Self {
        Self { title, kind, is_optional: false }
    }

    /// One that may be left out where there is no room.
    pub const fn optional(title: &'static str, kind: Kind) -> Self {
        Self { title, kind, is_optional: true }
    }

    /// How narrow it may become.
    fn least(&self, natural: usize) -> usize {
        match self.kind {
            Kind::Figure | Kind::Word => natural,
            Kind::Name(least) | Kind::Prose(least) | Kind::Text(least) => {
                natural.min(least.max(self.title.len()))
            }
        }
    }
}

/// A table.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<(Style, Vec<String>)>,
}

/// A table as it is shown.
#[derive(Debug)]
pub struct Fitted {
    /// The lines, each in its row's style. The last column is not padded.
    pub lines: Vec<String>,
    /// The titles of the columns that were left out.
    pub left_out: Vec<&'static str>,
}

impl Table {
    /// One without rows.
    pub fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row; what comes from outside does nothing to the terminal.
    pub fn row(&mut self, style: Style, cells: Vec<String>) {
        let cells = cells.into_iter().map(|cell| printable(&cell).into_owned()).collect();
        self.rows.push((style, cells));
    }

    /// The table, not wider than `most` characters if it can be made so; none: as wide as it is.
    pub fn fit(mut self, most: Option<usize>) -> Fitted {
        let mut widths = self.widths();
        let mut left_out = Vec::new();
        if let Some(most) = most {
            while self.least_width(&widths) > most {
                let Some(place) = self.columns.iter().position(|column| column.is_optional) else { break };
                left_out.push(self.columns.remove(place).title);
                widths.remove(place);
                self.rows.iter_mut().for_each(|(_, cells)| _ = cells.remove(place));
            }
            self.narrow(&mut widths, most);
        }
        let header: Vec<String> = self.columns.iter().map(|column| column.title.to_owned()).collect();
        let bold = Style::new().bold();
        let lines = std::iter::once((&bold, &header))
            .chain(self.rows.iter().map(|(style, cells)| (style, cells)))
            .flat_map(|(style, cells)| {
                let lines = self.lines(cells, &widths).into_iter();
                lines.map(move |line| format!("{style}{line}{style:#}"))
            })
            .collect();
        Fitted { lines, left_out }
    }

    /// The width of each column as it is.
    fn widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(|column| column.title.chars().count()).collect();
        for (_, cells) in &self.rows {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        widths
    }

    fn least_width(&self, widths: &[usize]) -> usize {
        let columns = self.columns.iter().zip(widths).map(|(column, width)| column.least(*width));
        columns.sum::<usize>() + GAP * self.columns.len().saturating_sub(1)
    }

    /// Takes from the widest column that can give, again and again.
    fn narrow(&self, widths: &mut [usize], most: usize) {
        let natural = widths.to_vec();
        loop {
            let total = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
            let can_give = |place: &usize| widths[*place] > self.columns[*place].least(natural[*place]);
            let widest = (0..widths.len()).filter(can_give).max_by_key(|place| widths[*place]);
            match widest {
                Some(place) if total > most => widths[place] -= 1,
                _ => return,
            }
        }
    }

    /// The lines of a row: one, or several where text goes on.
    fn lines(&self, cells: &[String], widths: &[usize]) -> Vec<String> {
        let columns = cells.iter().zip(widths).zip(&self.columns);
        let parts: Vec<(Vec<String>, usize, Kind)> = columns
            .map(|((cell, &width), column)| match column.kind {
                Kind::Text(_) => (wrapped(cell, width), width, column.kind),
                kind => (vec![shorten(cell, width, kind)], width, kind),
            })
            .collect();
        let height = parts.iter().map(|(parts, ..)| parts.len()).max().unwrap_or_default();
        let line = |number: usize| {
            let padded = parts.iter().map(|(parts, width, kind)| {
                let part = parts.get(number).map_or("", String::as_str);
                if *kind == Kind::Figure { format!("{part:>width$}") } else { format!("{part:<width$}") }
            });
            padded.collect::<Vec<_>>().join(&" ".repeat(GAP)).trim_end().to_owned()
        };
        (0..height).map(line).collect()
    }
}

/// Text in lines that are not wider than that. It is parted between words, and within one that is too long for a line where
/// a name has a sign.
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut room = width;
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        let is_first = room == width;
        if !is_first && word.len() < room {
            room -= 1;
            lines.last_mut().into_iter().for_each(|line| line.push(' '));
        } else if !is_first {
            lines.push(String::new());
            room = width;
        }
        while word.len() > width && width > 0 {
            let is_sign = |char: &char| !char.is_alphanumeric();
            let sign = word.iter().take(width).rposition(is_sign).filter(|sign| *sign > 0);
            let rest = word.split_off(sign.map_or(width, |sign| sign + 1));
            lines.last_mut().into_iter().for_each(|line| line.extend(&word));
            lines.push(String::new());
            word = rest;
        }
        room -= word.len().min(room);
        lines.last_mut().into_iter().for_each(|line| line.extend(&word));
    }
    lines
}

/// Text that is not wider than that, with … where something is missing.
fn shorten(text: &str, width: usize, kind: Kind) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let room = width.saturating_sub(1);
    let end = match kind {
        Kind::Name(_) => room / 2,
        Kind::Prose(_) | Kind::Text(_) | Kind::Word | Kind::Figure => 0,
    };
    let begin = text.chars().take(room - end);
    begin.chain(['…']).chain(text.chars().skip(length - end)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 4] = [
        Column::new("POD", Kind::Name(8)),
        Column::new("SIZE", Kind::Figure),
        Column::optional("POLICY", Kind::Name(8)),
        Column::optional("WHY", Kind::Prose(8)),
    ];

    fn fitted(most: Option<usize>) -> (Vec<String>, Vec<&'static str>) {
        let mut table = Table::new(&COLUMNS);
        table.row(
            Style::new(),
            vec!["web-0".into(), "1Ki".into(), "ccp/default".into(), "older than 30d".into()],
        );
        table.row(Style::new(), vec!["é".into(), "1023".into(), "-".into(), String::new()]);
        table
            .row(Style::new(), vec!["\u{1b}]0;x-and-more".into(), "1".into(), "-".into(), "\u{202e}".into()]);
        let Fitted { lines, left_out } = table.fit(most);
        (lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect(), left_out)
    }

    #[test]
    fn columns_are_as_wide_as_what_stands_in_them() {
        let expected = [
            "POD                SIZE  POLICY       WHY",
            "web-0               1Ki  ccp/default  older than 30d",
            "é                  1023  -",
            r"\x1b]0;x-and-more     1  -            \u{202e}",
        ];
        for most in [None, Some(52), Some(500)] {
            assert_eq!(fitted(most), (expected.map(str::to_owned).to_vec(), vec![]), "{most:?}");
        }
    }

    #[test]
    fn a_table_that_is_too_wide_is_shortened_where_that_says_least() {
        let expected = [
            "POD         SIZE  POLICY      WHY",
            "web-0        1Ki  ccp/d…ault  older tha…",
            "é           1023  -",
            r"\x1b]…more     1  -           \u{202e}",
        ];
        assert_eq!(fitted(Some(40)), (expected.map(str::to_owned).to_vec(), vec![]));
    }

    #[test]
    fn a_table_that_is_much_too_wide_loses_columns_and_says_which() {
        let (lines, left_out) = fitted(Some(24));
        assert_eq!(left_out, ["POLICY"]);
        assert_eq!(lines[1], "web-0      1Ki  older t…");
        let (lines, left_out) = fitted(Some(10));
        assert_eq!(left_out, ["POLICY", "WHY"]);
        assert_eq!(lines[3], r"\x1b…ore     1", "what cannot be made to fit is as narrow as it can be");
    }

    #[test]
    fn text_is_never_cut_and_goes_on_in_the_next_line() {
        let columns = [
            Column::new("RULE", Kind::Word),
            Column::new("POLICY", Kind::Text(10)),
            Column::new("WHY", Kind::Text(16)),
        ];
        let row = ["MaxCount", "ckpol/shop/last-three", "6 archives, limit 3: 3 go"];
        let fitted = |most| {
            let mut table = Table::new(&columns);
            table.row(Style::new(), row.map(str::to_owned).to_vec());
            let lines = table.fit(most).lines;
            lines.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect::<Vec<_>>()
        };
        assert_eq!(fitted(None)[1], "MaxCount  ckpol/shop/last-three  6 archives, limit 3: 3 go");
        let expected = [
            "RULE      POLICY          WHY",
            "MaxCount  ckpol/shop/     6 archives,",
            "          last-three      limit 3: 3 go",
        ];
        assert_eq!(fitted(Some(42)), expected);
        assert_eq!(wrapped("abcdefgh 1", 3), ["abc", "def", "gh", "1"]);
        assert_eq!(wrapped("", 3), [""]);
        for most in 36..70 {
            let lines = fitted(Some(most));
            assert!(lines.iter().all(|line| line.chars().count() <= most), "{most}: {lines:#?}");
            let (all, of_row) = (lines.concat(), row.concat());
            let letters = |text: &str| {
                let mut letters: Vec<char> = text.chars().filter(|char| *char != ' ').collect();
                letters.sort_unstable();
                letters
            };
            assert_eq!(letters(&all), letters(&format!("RULEPOLICYWHY{of_row}")), "{most}");
        }
    }

    #[test]
    fn no_line_is_wider_than_wanted_while_that_can_be() {
        for most in 14..60 {
            let (lines, _) = fitted(Some(most));
            assert!(lines.iter().all(|line| line.chars().count() <= most), "{most}: {lines:#?}");
        }
    }
}

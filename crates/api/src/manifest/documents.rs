//! A YAML stream cut into its documents, so that an error in one leaves the others readable.
//!
//! YAML allows `---` and `...` at the beginning of a line nowhere but between documents, not even in
//! quotes, so the cut needs no parser.

/// A document's text, and how many lines of the file are above it.
pub(super) struct Document<'a> {
    pub(super) text: &'a str,
    pub(super) above: u64,
}

/// The documents of a file that hold more than comments.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut begin, mut above) = (0, 0);
    let (mut offset, mut line) = (0, 0);
    let mut finish = |begin: usize, end: usize, above: u64| {
        let text = &text[begin..end];
        if text.lines().any(|line| !is_blank(line)) {
            documents.push(Document { text, above });
        }
    };
    for current in text.split_inclusive('\n') {
        let marker = is_marker(current, "---");
        if marker && offset > begin {
            finish(begin, offset, above);
            (begin, above) = (offset, line);
        }
        offset += current.len();
        line += 1;
        if is_marker(current, "...") {
            finish(begin, offset, above);
            (begin, above) = (offset, line);
        }
    }
    finish(begin, text.len(), above);
    documents
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Whether a line says nothing: empty, a comment, a marker or a directive.
fn is_blank(line: &str) -> bool {
    let line = line.trim_start_matches('\u{feff}');
    let rest = line.strip_prefix("---").or_else(|| line.strip_prefix("...")).unwrap_or(line).trim();
    rest.is_empty() || rest.starts_with('#') || line.starts_with('%')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_at_markers_and_keeps_line_numbers() {
        let text =
            "# only a comment\n---\na: 1\n---\n# nothing\n---\n  b: '--- no'\n...\n%YAML 1.2\n--- {c: 3}\n";
        let cut: Vec<_> = split(text).iter().map(|document| (document.above, document.text)).collect();
        assert_eq!(cut, [(1, "---\na: 1\n"), (5, "---\n  b: '--- no'\n...\n"), (9, "--- {c: 3}\n")]);
    }

    #[test]
    fn finds_nothing_in_nothing() {
        for text in ["", "\n\n", "# comment\n", "---\n", "---\n---\n...\n", "\u{feff}# comment"] {
            assert_eq!(split(text).len(), 0, "{text:?}");
        }
        assert_eq!(split("a: 1").len(), 1);
        assert_eq!(split("---a: 1").len(), 1);
    }
}

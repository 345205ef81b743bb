//! Messages for people, on standard error.

use std::fmt::Display;
use std::io::Write;

use checkpoint_keeper_core::name::printable;

/// For the person at the terminal, beside the output: `error`, `warning` or `note`. What comes from outside can
/// neither act on the terminal nor begin a line.
pub fn say(kind: &str, what: impl Display) {
    use anstyle::{AnsiColor, Style};
    let style = match kind {
        "error" => AnsiColor::Red.on_default().bold(),
        "warning" => AnsiColor::Yellow.on_default().bold(),
        _ => Style::new().bold(),
    };
    let _ = writeln!(anstream::stderr(), "{style}{kind}:{style:#} {}", lines(&what.to_string()));
}

/// Text of one line, or several of which only the first begins where lines begin.
fn lines(text: &str) -> String {
    let indented = |line: &str| {
        if line.starts_with("  ") { printable(line).into_owned() } else { format!("  {}", printable(line)) }
    };
    let mut lines = text.trim_end().split('\n');
    let first = lines.next().map(|line| printable(line).into_owned());
    first.into_iter().chain(lines.map(indented)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_stays_in_its_lines_and_does_nothing_to_a_terminal() {
        assert_eq!(lines("a.yaml:1: wrong\n  hint: right"), "a.yaml:1: wrong\n  hint: right");
        assert_eq!(lines("a\nerror: forged\r\u{1b}[2J\u{202e}\n"), "a\n  error: forged\\r\\x1b[2J\\u{202e}");
    }
}

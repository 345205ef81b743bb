//! How a command fails: what it says, and the exit code that follows from the kind.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use checkpoint_keeper_core::name::printable;

/// A command that did not do all it should.
#[derive(Debug)]
pub enum Failure {
    /// Wrong usage or a wrong policy: exit code 2. Each line is a complaint of its own.
    Usage(Vec<String>),
    /// Something went wrong: exit code 1.
    Failed(anyhow::Error),
    /// Something went wrong and was named where it happened: exit code 1.
    Named,
    /// Whoever reads the output has had enough, which is not an error.
    ClosedPipe,
}

impl Failure {
    /// Says what is wrong, and gives the exit code.
    pub fn report(self) -> ExitCode {
        match self {
            Self::Usage(complaints) => {
                complaints.iter().for_each(|complaint| say("error", complaint));
                ExitCode::from(2)
            }
            Self::Failed(error) => {
                say("error", format!("{error:#}"));
                ExitCode::FAILURE
            }
            Self::Named => ExitCode::FAILURE,
            Self::ClosedPipe => ExitCode::SUCCESS,
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// A failure to write output.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ClosedPipe
        } else {
            Self::Failed(anyhow::Error::new(error).context("cannot write the output"))
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::from(io::Error::from(error))
    }
}

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

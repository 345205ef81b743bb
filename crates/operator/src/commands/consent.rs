//! Whether `gc` may carry out its plan. A user at a terminal is asked. Without a terminal, a run that would delete
//! more than half of the archives is refused unless `--yes` was given.

use std::io::{self, BufRead, IsTerminal, Write};

use crate::failure::{Failure, say};
use crate::output::text;
use checkpoint_keeper_core::report::{Report, Totals};

/// What is to be done before anything is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Delete.
    Proceed,
    /// Ask the person at the terminal.
    Ask,
    /// Delete nothing: there is no user to ask, and this is more than half of the archives.
    Refuse,
}

/// Who could be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    /// `--yes` was given: no question is needed.
    Confirmed,
    /// A user at a terminal.
    Terminal,
    /// A script, a timer or a pipe.
    None,
}

impl Audience {
    fn of_this_process(yes: bool) -> Self {
        if yes {
            Self::Confirmed
        } else if io::stdin().is_terminal() && io::stderr().is_terminal() {
            Self::Terminal
        } else {
            Self::None
        }
    }
}

fn next_step(totals: &Totals, audience: Audience) -> Step {
    let is_most = totals.delete_archives > totals.archives / 2;
    match audience {
        _ if totals.delete_archives == 0 => Step::Proceed,
        Audience::Terminal => Step::Ask,
        Audience::None if is_most => Step::Refuse,
        Audience::None | Audience::Confirmed => Step::Proceed,
    }
}

/// That a plan may be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Consent {
    /// No question was needed.
    NotNeeded,
    /// The user was asked and said yes, after any length of time.
    Answered,
}

/// Returns when the plan may be carried out. Fails when it is refused, or when the answer is not yes.
pub(super) fn obtain(report: &Report, yes: bool) -> Result<Consent, Failure> {
    let totals = &report.totals;
    match next_step(totals, Audience::of_this_process(yes)) {
        Step::Proceed => Ok(Consent::NotNeeded),
        Step::Refuse => Err(Failure::Usage(vec![format!(
            "refusing to delete {} of {}, which is more than half\n  \
             hint: run with --dry-run to see them, or give --yes",
            totals.delete_archives,
            text::count(totals.archives),
        )])),
        Step::Ask => {
            text::deletions_to_confirm(report)?;
            let mut err = io::stderr().lock();
            write!(err, "Delete {}? [y/N] ", text::count(totals.delete_archives))?;
            err.flush()?;
            drop(err);
            let mut answer = String::new();
            io::stdin().lock().read_line(&mut answer)?;
            if is_yes(&answer) {
                return Ok(Consent::Answered);
            }
            if !answer.ends_with('\n') {
                eprintln!();
            }
            say("note", "nothing was deleted");
            Err(Failure::AlreadyReported)
        }
    }
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_is_asked_and_a_script_may_not_delete_more_than_half_without_yes() {
        use Audience::{Confirmed, Terminal};
        for (audience, delete_archives, archives, expected) in [
            (Terminal, 0, 0, Step::Proceed),
            (Terminal, 0, 9, Step::Proceed),
            (Terminal, 1, 9, Step::Ask),
            (Terminal, 9, 9, Step::Ask),
            (Audience::None, 0, 0, Step::Proceed),
            (Audience::None, 1, 1, Step::Refuse),
            (Audience::None, 1, 2, Step::Proceed),
            (Audience::None, 2, 3, Step::Refuse),
            (Audience::None, 4, 9, Step::Proceed),
            (Audience::None, 5, 9, Step::Refuse),
            (Audience::None, 5, 10, Step::Proceed),
            (Audience::None, 6, 10, Step::Refuse),
            (Confirmed, 9, 9, Step::Proceed),
        ] {
            let totals = Totals { archives, delete_archives, ..Totals::default() };
            assert_eq!(
                next_step(&totals, audience),
                expected,
                "{delete_archives} of {archives} with {audience:?}"
            );
        }
    }

    #[test]
    fn only_yes_is_yes() {
        for answer in ["y\n", "Y\n", "yes\n", " YES \n", "y"] {
            assert!(is_yes(answer), "{answer:?}");
        }
        for answer in ["", "\n", "n\n", "no\n", "yep\n", "yy\n"] {
            assert!(!is_yes(answer), "{answer:?}");
        }
    }
}

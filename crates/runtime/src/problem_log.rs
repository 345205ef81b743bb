//! Which problems are logged, and when: each once when it appears and once when it ends. Deciding is pure;
//! [`Entry::log`] writes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The most problems that are known at a time; more are not logged until others end.
const MOST: usize = 1_000;

/// A problem as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Its type, such as `watch`.
    pub kind: &'static str,
    /// The object or file that it is about; empty where the type says it all.
    pub subject: String,
    /// The problem in words, which may hold figures that change while it lasts.
    pub message: String,
}

/// What is to be logged of a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// It appeared.
    Appeared(Problem),
    /// It ended.
    Ended {
        /// Its type.
        kind: &'static str,
        /// What it was about.
        subject: String,
        /// How long it lasted.
        lasted: Duration,
    },
}

impl Entry {
    /// Writes it to the log.
    pub fn log(&self) {
        match self {
            Self::Appeared(Problem { kind, subject, message }) => {
                tracing::warn!(problem = kind, subject, "{message}");
            }
            Self::Ended { kind, subject, lasted } => {
                tracing::info!(
                    problem = kind,
                    subject,
                    lasted_seconds = lasted.as_secs(),
                    "the problem ended"
                );
            }
        }
    }
}

/// The problems of one part of the program that are logged and have not ended.
#[derive(Debug, Default)]
pub struct ProblemLog {
    /// By type and subject: since when.
    known: BTreeMap<(&'static str, String), Instant>,
}

impl ProblemLog {
    /// Notes a problem; returns what to log if it was not there before.
    pub fn begin(&mut self, problem: Problem, now: Instant) -> Option<Entry> {
        let key = (problem.kind, problem.subject.clone());
        if self.known.len() >= MOST || self.known.contains_key(&key) {
            return None;
        }
        self.known.insert(key, now);
        Some(Entry::Appeared(problem))
    }

    /// Notes that a problem is over; returns what to log if it was there.
    pub fn end(&mut self, kind: &'static str, subject: &str, now: Instant) -> Option<Entry> {
        let ((kind, subject), since) = self.known.remove_entry(&(kind, subject.to_owned()))?;
        Some(Entry::Ended { kind, subject, lasted: now.saturating_duration_since(since) })
    }

    /// Ends all problems that are not among those still there; returns what to log.
    pub fn retain(&mut self, is_there: impl Fn(&'static str, &str) -> bool, now: Instant) -> Vec<Entry> {
        let ended = self.known.extract_if(.., |(kind, subject), _| !is_there(kind, subject));
        let entry = |((kind, subject), since)| Entry::Ended {
            kind,
            subject,
            lasted: now.saturating_duration_since(since),
        };
        ended.map(entry).collect()
    }

    /// Notes all problems that there are now; returns what to log: what ended, then what appeared.
    pub fn update(&mut self, current: Vec<Problem>, now: Instant) -> Vec<Entry> {
        let there: BTreeSet<_> =
            current.iter().map(|problem| (problem.kind, problem.subject.as_str())).collect();
        let mut entries = self.retain(|kind, subject| there.contains(&(kind, subject)), now);
        entries.extend(current.into_iter().filter_map(|problem| self.begin(problem, now)));
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(kind: &'static str, subject: &str, message: &str) -> Problem {
        Problem { kind, subject: subject.to_owned(), message: message.to_owned() }
    }

    fn ended(kind: &'static str, subject: &str, seconds: u64) -> Entry {
        Entry::Ended { kind, subject: subject.to_owned(), lasted: Duration::from_secs(seconds) }
    }

    #[test]
    fn each_problem_is_logged_once_when_it_appears_and_once_when_it_ends() {
        let (mut log, begin) = (ProblemLog::default(), Instant::now());
        let at = |second| begin + Duration::from_secs(second);
        let full = problem("watermark", "", "freed 1 GiB");
        let unread = problem("read", "a.tar", "cannot read a.tar");
        assert_eq!(log.update(vec![full.clone()], at(0)), [Entry::Appeared(full)]);
        // The same one with other figures is no news; the second one is.
        let full = problem("watermark", "", "freed 2 GiB");
        let both = vec![full.clone(), unread.clone()];
        assert_eq!(log.update(both.clone(), at(60)), [Entry::Appeared(unread.clone())]);
        assert_eq!(log.update(both, at(120)), []);
        assert_eq!(log.update(vec![unread], at(180)), [ended("watermark", "", 180)]);
        assert_eq!(
            log.update(vec![full.clone()], at(240)),
            [ended("read", "a.tar", 180), Entry::Appeared(full)]
        );
    }

    #[test]
    fn a_write_that_fails_again_and_again_is_logged_once_until_one_succeeds() {
        let (mut log, begin) = (ProblemLog::default(), Instant::now());
        let at = |second| begin + Duration::from_secs(second);
        let refused = || problem("write status", "team/a", "refused");
        assert!(log.begin(refused(), at(0)).is_some());
        assert!(log.begin(refused(), at(5)).is_none());
        assert_eq!(log.end("write status", "team/a", at(10)), Some(ended("write status", "team/a", 10)));
        assert!(log.end("write status", "team/a", at(11)).is_none());
        assert!(log.begin(refused(), at(12)).is_some());
        assert_eq!(
            log.retain(|_, subject| subject != "team/a", at(13)),
            [ended("write status", "team/a", 1)]
        );
    }

    #[test]
    fn however_many_problems_there_are_few_are_remembered() {
        let (mut log, now) = (ProblemLog::default(), Instant::now());
        let many = || (0..3 * MOST).map(|number| problem("read", &number.to_string(), "broken")).collect();
        assert_eq!(log.update(many(), now).len(), MOST);
        assert_eq!(log.update(many(), now).len(), 0);
        assert_eq!(log.known.len(), MOST);
        assert_eq!(log.update(Vec::new(), now).len(), MOST);
    }
}

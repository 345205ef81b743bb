//! Whose turn it is: of the dumps that could begin, which one does.
//!
//! Namespaces take turns. Each one that has something to be dumped gets one dump in a round, whatever it asks by: what
//! goes first within a namespace (ends of pods, annotations) is in its tenants' hands, and would else keep the others
//! from ever having theirs. Only what a drain ends waits for no turn, as draining is up to administrators.

use std::collections::HashSet;

use jiff::Timestamp;

/// What waits in a namespace and would begin next there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate<'a> {
    /// The namespace.
    pub(super) namespace: &'a str,
    /// Which of the runs it is.
    pub(super) run: u64,
    /// Whether the drain of the node asks for it, and it was not tried yet.
    pub(super) is_drained: bool,
    /// How many dumps are under way in the namespace.
    pub(super) under_way: usize,
    /// How urgent it is, and since when it is due.
    pub(super) rank: (u8, Timestamp),
}

/// Who had a turn.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// The namespaces that had theirs in this round.
    had: HashSet<String>,
}

impl Turns {
    /// Whose turn it is: of those that had none in this round the one with the fewest dumps under way, then the most
    /// urgent, then the one that is due the longest.
    pub(super) fn next<'a>(&self, candidates: impl Iterator<Item = Candidate<'a>>) -> Option<Candidate<'a>> {
        candidates.min_by_key(|one| {
            (!one.is_drained, self.had.contains(one.namespace), one.under_way, one.rank, one.run)
        })
    }

    /// Notes that a namespace had a turn. Where all that wait had theirs before, another round begins.
    pub(super) fn take(&mut self, candidate: &Candidate<'_>) {
        if candidate.is_drained {
            return;
        }
        if self.had.contains(candidate.namespace) {
            self.had.clear();
        }
        self.had.insert(candidate.namespace.to_owned());
    }
}

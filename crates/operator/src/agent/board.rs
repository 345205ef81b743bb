//! What the engine says, kept for whoever shows it: the status, the metrics, the events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use checkpoint_keeper_api::node_store::MOST_DELETIONS;
use checkpoint_keeper_core::plan::{Archive, Reason, Verdict};
use checkpoint_keeper_core::policy::PolicyRef;
use checkpoint_keeper_node::store::Removal;
use checkpoint_keeper_node::sweeper::Outcome;
use checkpoint_keeper_node::watch::Discarded;
use jiff::Timestamp;
use tokio::sync::watch;

use super::summary::Summary;

/// The board. The engine writes, and never waits for those who read.
#[derive(Debug, Clone)]
pub(super) struct Board {
    notes: Arc<Mutex<Notes>>,
    changed: watch::Sender<()>,
}

/// What is on it.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// The latest plan's figures; none before the first plan.
    pub(super) summary: Option<Summary>,
    /// The latest deletions, newest first.
    pub(super) deletions: VecDeque<Deleted>,
    /// What came of each file that was wanted gone by its name.
    pub(super) discarded: Discarded,
    /// How many archives were deleted for each reason, and their bytes, since the start.
    pub(super) deleted: BTreeMap<Reason, (u64, u64)>,
    /// How many deletions failed since the start.
    pub(super) failed: u64,
    /// How often was planned since the start.
    pub(super) plans: u64,
    /// When the engine last looked at everything.
    pub(super) looked: Option<Instant>,
    /// Why there is no directory to collect in; none: there is one.
    pub(super) gone: Option<String>,
    /// What is wrong, by its kind and what it is about: in words, and when it was last said. The words may
    /// hold figures that are others each time.
    problems: BTreeMap<(&'static str, String), (String, Instant)>,
    /// What was deleted by each policy and reason, and no event tells of yet.
    fresh: BTreeMap<Cause, (u64, u64)>,
}

/// One deletion.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Deleted {
    pub(super) at: Timestamp,
    pub(super) file: String,
    /// namespace/pod/container, where that was known.
    pub(super) container: Option<String>,
    pub(super) bytes: u64,
    pub(super) verdict: Verdict,
}

impl Deleted {
    fn new(archive: &Archive, verdict: &Verdict, at: Timestamp) -> Self {
        let container = archive
            .identity
            .as_ref()
            .map(|identity| format!("{}/{}/{}", identity.namespace, identity.pod, identity.container));
        let file = archive.file.to_json_text().into_owned();
        Self { at, file, container, bytes: archive.size, verdict: verdict.clone() }
    }
}

/// Which policy, or part of one, had archives deleted, and for which reason.
pub(super) type Cause = (Option<PolicyRef>, Reason);

/// The most causes whose deletions wait for their events; what there is of more is told of the node's store.
const MOST_CAUSES: usize = 1_000;

/// The most problems that are known at a time. What is left out comes up as soon as others are mended.
const MOST_PROBLEMS: usize = 1_000;

impl Board {
    pub(super) fn new() -> Self {
        Self { notes: Arc::default(), changed: watch::Sender::new(()) }
    }

    /// Tells of every change from here on.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Looks at the board. Nobody writes meanwhile, so it is not for long.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Notes) -> T) -> T {
        look(&self.notes())
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn planned(&self, mut summary: Summary, now: Instant) {
        let mut notes = self.notes();
        if let Some(before) = notes.summary.take() {
            summary.count_deleting(before.deleting);
        }
        notes.summary = Some(summary);
        notes.plans += 1;
        notes.looked = Some(now);
        notes.gone = None;
        drop(notes);
        self.changed.send_replace(());
    }

    pub(super) fn discarded(&self, discarded: &Discarded) {
        self.notes().discarded.clone_from(discarded);
        self.changed.send_replace(());
    }

    #[cfg(test)]
    pub(super) fn count_deletion(&self, reason: Reason) {
        self.notes().deleted.insert(reason, (1, 1));
    }

    /// Notes what became of a deletion.
    pub(super) fn finished(&self, outcome: &Outcome, at: Timestamp) {
        let (archive, verdict) = (&outcome.deletion.archive, &outcome.deletion.verdict);
        let mut notes = self.notes();
        if let Some(summary) = &mut notes.summary {
            let is_gone = matches!(outcome.removal, Removal::Removed | Removal::AlreadyGone);
            summary.finish(&archive.file, is_gone);
        }
        match &outcome.removal {
            Removal::Removed => {
                let by_reason = notes.deleted.entry(verdict.reason).or_default();
                *by_reason = (by_reason.0 + 1, by_reason.1 + archive.size);
                notes.add_fresh((verdict.policy.as_deref().cloned(), verdict.reason), (1, archive.size));
                notes.deletions.push_front(Deleted::new(archive, verdict, at));
                notes.deletions.truncate(MOST_DELETIONS);
            }
            Removal::Failed(_) => notes.failed += 1,
            Removal::AlreadyGone => {}
            Removal::Changed
            | Removal::Pinned
            | Removal::InUse
            | Removal::DirectoryMoved
            | Removal::Withdrawn => return,
        }
        drop(notes);
        self.changed.send_replace(());
    }

    /// Notes that there is no directory to collect in, until the next plan; or that there is one again.
    pub(super) fn gone(&self, why: Option<String>) {
        self.notes().gone = why;
        self.changed.send_replace(());
    }

    /// Notes something that is wrong; it counts for as long as it is said again.
    pub(super) fn problem(&self, kind: &'static str, about: String, what: String, now: Instant) {
        let mut notes = self.notes();
        let problem = (kind, about);
        // One of each kind has its place: conditions go by the kinds.
        if notes.problems.len() >= MOST_PROBLEMS
            && !notes.problems.contains_key(&problem)
            && notes.problem_of(kind).is_some()
        {
            return;
        }
        if notes.problems.insert(problem, (what, now)).is_none() {
            drop(notes);
            self.changed.send_replace(());
        }
    }

    /// Forgets what was not said again for so long.
    pub(super) fn forget_problems(&self, age: Duration, now: Instant) {
        let mut notes = self.notes();
        let before = notes.problems.len();
        notes.problems.retain(|_, (_, said)| now.duration_since(*said) < age);
        if notes.problems.len() != before {
            drop(notes);
            self.changed.send_replace(());
        }
    }

    /// What was deleted and no event tells of yet: of the causes that are wanted, so many at most.
    pub(super) fn take_fresh(
        &self,
        most: usize,
        is_wanted: impl Fn(&Cause) -> bool,
    ) -> Vec<(Cause, (u64, u64))> {
        let mut notes = self.notes();
        let causes: Vec<Cause> =
            notes.fresh.keys().filter(|cause| is_wanted(cause)).take(most).cloned().collect();
        causes.into_iter().filter_map(|cause| notes.fresh.remove_entry(&cause)).collect()
    }

    /// Takes back what could not be told of.
    pub(super) fn return_fresh(&self, cause: Cause, figures: (u64, u64)) {
        self.notes().add_fresh(cause, figures);
    }
}

impl Notes {
    fn add_fresh(&mut self, cause: Cause, (count, bytes): (u64, u64)) {
        let is_one_more = self.fresh.len() >= MOST_CAUSES && !self.fresh.contains_key(&cause);
        let cause = if is_one_more { (None, cause.1) } else { cause };
        let fresh = self.fresh.entry(cause).or_default();
        *fresh = (fresh.0.saturating_add(count), fresh.1.saturating_add(bytes));
    }

    /// What is wrong, in words.
    pub(super) fn problems(&self) -> impl Iterator<Item = &str> {
        let problems = self.problems.values().map(|(what, _)| what.as_str());
        self.gone.as_deref().into_iter().chain(problems)
    }

    /// The first problem of a kind, in words.
    pub(super) fn problem_of(&self, kind: &'static str) -> Option<&str> {
        let mut of_kind =
            self.problems.range((kind, String::new())..).take_while(|((other, _), _)| *other == kind);
        of_kind.next().map(|(_, (what, _))| what.as_str())
    }

    /// What kinds of things are wrong.
    pub(super) fn kinds_of_problems(&self) -> BTreeSet<&'static str> {
        self.problems.keys().map(|(kind, _)| *kind).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_problem_with_other_figures_is_the_same_problem() {
        let (board, now) = (Board::new(), Instant::now());
        let mut changes = board.changes();
        let full = |what: &str| board.problem("watermark", String::new(), what.to_owned(), now);
        full("wanted 5 GiB, freed 1 GiB");
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        full("wanted 6 GiB, freed 512 MiB");
        assert!(!changes.has_changed().unwrap());
        let told = board.read(|notes| notes.problems().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(told, ["wanted 6 GiB, freed 512 MiB"]);
        assert_eq!(board.read(Notes::kinds_of_problems), ["watermark"].into());
    }

    #[test]
    fn however_much_is_wrong_little_of_it_is_remembered_and_each_kind_is() {
        let (board, now) = (Board::new(), Instant::now());
        for number in 0..10 * MOST_PROBLEMS {
            board.problem("read", number.to_string(), "it cannot be read".to_owned(), now);
        }
        board.problem("server clock", String::new(), "it differs".to_owned(), now);
        assert_eq!(board.read(|notes| notes.problems().count()), MOST_PROBLEMS + 1);
        assert_eq!(
            board.read(|notes| notes.problem_of("server clock").map(str::to_owned)).as_deref(),
            Some("it differs")
        );
        board.forget_problems(Duration::from_secs(1), now + Duration::from_secs(1));
        board.problem("read", "another".to_owned(), "it cannot be read".to_owned(), now);
        assert_eq!(board.read(|notes| notes.problems().count()), 1);
    }

    #[test]
    fn of_however_many_policies_all_deletions_are_told() {
        let board = Board::new();
        let policy = |number: usize| PolicyRef {
            kind: checkpoint_keeper_core::policy::Kind::CheckpointPolicy,
            namespace: Some(number.to_string()),
            name: "a".to_owned(),
            part: None,
        };
        for number in 0..3 * MOST_CAUSES {
            board.return_fresh((Some(policy(number)), Reason::MaxAge), (1, 10));
        }
        let fresh = board.take_fresh(usize::MAX, |_| true);
        assert_eq!(fresh.len(), MOST_CAUSES + 1);
        assert_eq!(fresh.iter().map(|(_, (count, _))| *count).sum::<u64>(), 3 * MOST_CAUSES as u64);
        assert_eq!(fresh[0].0, (None, Reason::MaxAge));
    }
}

//! What the engine says, kept for whoever shows it: the status, the metrics, the events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use checkpoint_keeper_api::node_store::MOST_DELETIONS;
use checkpoint_keeper_core::plan::{Archive, Reason, Verdict};
use checkpoint_keeper_core::policy::PolicyRef;
use checkpoint_keeper_node::store::Removal;
use checkpoint_keeper_node::sweeper::Outcome;
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
    /// The generations of the policies' objects by which the engine decides.
    generations: BTreeMap<PolicyRef, i64>,
    /// What is wrong, by its kind and what it is about: in words, and when it was last said. The words may
    /// hold figures that are others each time.
    problems: BTreeMap<(&'static str, String), (String, Instant)>,
    /// What was deleted by each policy and reason since events were last made of it.
    fresh: BTreeMap<(Option<PolicyRef>, Reason), (u64, u64)>,
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

/// What was deleted since it was last asked: by which policy, for which reason, how many, their bytes.
pub(super) type Fresh = Vec<(Option<PolicyRef>, Reason, u64, u64)>;

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

    pub(super) fn planned(&self, summary: Summary, now: Instant) {
        let mut notes = self.notes();
        notes.summary = Some(summary);
        notes.plans += 1;
        notes.looked = Some(now);
        notes.gone = None;
        drop(notes);
        self.changed.send_replace(());
    }

    #[cfg(test)]
    pub(super) fn count_deletion(&self, reason: Reason) {
        self.notes().deleted.insert(reason, (1, 1));
    }

    /// Notes which generations of the policies' objects the engine was told. Deletions that wait are withdrawn
    /// with the orders that wanted them, so these are a deletion's own.
    pub(super) fn told(&self, generations: BTreeMap<PolicyRef, i64>) {
        self.notes().generations = generations;
    }

    /// The generation of the object that a policy is of.
    pub(super) fn generation(&self, policy: &PolicyRef) -> Option<i64> {
        let object = PolicyRef { part: None, ..policy.clone() };
        self.notes().generations.get(&object).copied()
    }

    /// Notes what became of a deletion.
    pub(super) fn finished(&self, outcome: &Outcome, at: Timestamp) {
        let (archive, verdict) = (&outcome.deletion.archive, &outcome.deletion.verdict);
        let mut notes = self.notes();
        match &outcome.removal {
            Removal::Removed => {
                let by_reason = notes.deleted.entry(verdict.reason).or_default();
                *by_reason = (by_reason.0 + 1, by_reason.1 + archive.size);
                let policy = verdict.policy.as_deref().map(|id| PolicyRef { part: None, ..id.clone() });
                let fresh = notes.fresh.entry((policy, verdict.reason)).or_default();
                *fresh = (fresh.0 + 1, fresh.1 + archive.size);
                notes.deletions.push_front(Deleted::new(archive, verdict, at));
                notes.deletions.truncate(MOST_DELETIONS);
            }
            Removal::Failed(_) => notes.failed += 1,
            Removal::AlreadyGone
            | Removal::Changed
            | Removal::Pinned
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
        if self.notes().problems.insert((kind, about), (what, now)).is_none() {
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

    /// What was deleted since the last call.
    pub(super) fn take_fresh(&self) -> Fresh {
        let fresh = std::mem::take(&mut self.notes().fresh);
        fresh.into_iter().map(|((policy, reason), (count, bytes))| (policy, reason, count, bytes)).collect()
    }
}

impl Notes {
    /// What is wrong, in words.
    pub(super) fn problems(&self) -> impl Iterator<Item = &str> {
        let problems = self.problems.values().map(|(what, _)| what.as_str());
        self.gone.as_deref().into_iter().chain(problems)
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
}

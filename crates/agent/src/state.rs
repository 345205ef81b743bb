//! What the agent has observed. The status, the metrics and the events are made from it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use checkpoint_keeper_api::node_store::MOST_DELETIONS;
use checkpoint_keeper_core::engine::DiscardResults;
use checkpoint_keeper_core::engine::file::{Outcome, Removal};
use checkpoint_keeper_core::identity::Identity;
use checkpoint_keeper_core::plan::{Archive, Reason, Verdict};
use checkpoint_keeper_core::policy::PolicyRef;
use checkpoint_keeper_core::schedule::{Report, ScheduleState};
use jiff::Timestamp;
use tokio::sync::watch;

use super::problem_type::ProblemType;
use super::summary::Summary;

/// What the agent has observed, shared. The engine writes, and never waits for those who read.
#[derive(Debug, Clone)]
pub(super) struct AgentState {
    observed: Arc<Mutex<Observations>>,
    changed: watch::Sender<()>,
}

/// Everything that was observed of the node's directory.
#[derive(Debug, Default)]
pub(super) struct Observations {
    /// The latest plan's figures; none before the first plan.
    pub(super) summary: Option<Summary>,
    /// The latest deletions, newest first.
    pub(super) deletions: VecDeque<Deleted>,
    /// What came of each file that was wanted gone by its name.
    pub(super) discarded: DiscardResults,
    /// How many archives were deleted for each reason, and their bytes, since the start.
    pub(super) deleted: BTreeMap<Reason, (u64, u64)>,
    /// How many deletions failed since the start.
    pub(super) failed: u64,
    /// How often was planned since the start.
    pub(super) plans: u64,
    /// When the engine last looked at everything.
    pub(super) looked: Option<Instant>,
    /// When the directory was last listed.
    pub(super) swept: Option<Timestamp>,
    /// What each schedule has done on this node, and does next.
    pub(super) schedules: Vec<ScheduleState>,
    /// How many requests for checkpoints ended how since the start, by their triggers' and results' names.
    pub(super) requests: BTreeMap<(&'static str, &'static str), u64>,
    /// How many events about schedules, and lines about them in the log, were left out since the start, as there were too
    /// many.
    pub(super) left_out: (u64, u64),
    /// Why there is no directory to collect in; none: there is one.
    pub(super) gone: Option<String>,
    /// What is wrong, by its kind and what it is about: in words, and when it was last said. The words may
    /// hold figures that are others each time.
    problems: BTreeMap<(ProblemType, String), (String, Instant)>,
    /// What was deleted by each policy and reason, and no event tells of yet.
    pending_events: BTreeMap<Cause, (u64, u64)>,
}

/// One deletion.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Deleted {
    pub(super) at: Timestamp,
    pub(super) file: String,
    /// Whose checkpoint it was, where that was known.
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) bytes: u64,
    pub(super) verdict: Verdict,
}

impl Deleted {
    fn new(archive: &Archive, verdict: &Verdict, at: Timestamp) -> Self {
        let (file, identity) = (archive.file.to_json_text().into_owned(), archive.identity.clone());
        Self { at, file, identity, bytes: archive.size, verdict: verdict.clone() }
    }
}

/// Which policy, or part of one, had archives deleted, and for which reason.
pub(super) type Cause = (Option<PolicyRef>, Reason);

/// The most causes whose deletions wait for their events; what there is of more is told of the node's store.
const MOST_CAUSES: usize = 1_000;

/// The most problems that are known at a time. What is left out comes up as soon as others are mended.
const MOST_PROBLEMS: usize = 1_000;

impl AgentState {
    pub(super) fn new() -> Self {
        Self { observed: Arc::default(), changed: watch::Sender::new(()) }
    }

    /// A receiver that is notified of each later change.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Reads the observations under their lock, which `look` should hold only for a moment.
    pub(super) fn read<T>(&self, look: impl FnOnce(&Observations) -> T) -> T {
        look(&self.observed())
    }

    fn observed(&self) -> MutexGuard<'_, Observations> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn planned(&self, mut summary: Summary, now: Instant) {
        let mut observed = self.observed();
        if let Some(before) = observed.summary.take() {
            summary.count_deleting(before.deleting);
        }
        observed.summary = Some(summary);
        observed.plans += 1;
        observed.looked = Some(now);
        observed.gone = None;
        drop(observed);
        self.changed.send_replace(());
    }

    /// Notes that the directory was listed.
    pub(super) fn swept(&self, now: Timestamp) {
        self.observed().swept = Some(now);
    }

    /// Notes what each schedule has done, and does next.
    pub(super) fn scheduled(&self, schedules: Vec<ScheduleState>) {
        let mut observed = self.observed();
        if observed.schedules != schedules {
            observed.schedules = schedules;
            drop(observed);
            self.changed.send_replace(());
        }
    }

    /// Counts what came of a request for a checkpoint.
    pub(super) fn reported(&self, report: &Report) {
        self.counted_requests(report.request.trigger.name(), report.result.name(), report.count);
    }

    pub(super) fn counted_requests(&self, trigger: &'static str, result: &'static str, count: u32) {
        *self.observed().requests.entry((trigger, result)).or_default() += u64::from(count);
    }

    /// Counts events about schedules, and lines about them in the log, that were left out.
    pub(super) fn left_out(&self, events: u64, lines: u64) {
        let mut observed = self.observed();
        let (events_before, lines_before) = observed.left_out;
        observed.left_out = (events_before + events, lines_before + lines);
    }

    pub(super) fn discarded(&self, discarded: &DiscardResults) {
        self.observed().discarded.clone_from(discarded);
        self.changed.send_replace(());
    }

    /// Notes what became of a deletion.
    pub(super) fn finished(&self, outcome: &Outcome, at: Timestamp) {
        let (archive, verdict) = (&outcome.deletion.archive, &outcome.deletion.verdict);
        let mut observed = self.observed();
        if let Some(summary) = &mut observed.summary {
            summary.finish(&archive.file, outcome.removal.is_gone());
        }
        match &outcome.removal {
            Removal::Removed => {
                let by_reason = observed.deleted.entry(verdict.reason).or_default();
                *by_reason = (by_reason.0 + 1, by_reason.1 + archive.size);
                observed.add_pending_event(
                    (verdict.policy.as_deref().cloned(), verdict.reason),
                    (1, archive.size),
                );
                observed.deletions.push_front(Deleted::new(archive, verdict, at));
                observed.deletions.truncate(MOST_DELETIONS);
            }
            Removal::Failed(_) => observed.failed += 1,
            Removal::AlreadyGone => {}
            Removal::Changed
            | Removal::Pinned
            | Removal::InUse
            | Removal::DirectoryMoved
            | Removal::Withdrawn => return,
        }
        drop(observed);
        self.changed.send_replace(());
    }

    /// Notes that there is no directory to collect in, until the next plan; or that there is one again.
    pub(super) fn gone(&self, why: Option<String>) {
        self.observed().gone = why;
        self.changed.send_replace(());
    }

    /// Notes something that is wrong; it counts for as long as it is said again, or until it is said to have ended.
    pub(super) fn problem(&self, kind: ProblemType, about: String, what: String, now: Instant) {
        let mut observed = self.observed();
        let problem = (kind, about);
        // One of each kind has its place: conditions go by the kinds.
        if observed.problems.len() >= MOST_PROBLEMS
            && !observed.problems.contains_key(&problem)
            && observed.problem_of(kind).is_some()
        {
            return;
        }
        if observed.problems.insert(problem, (what, now)).is_none() {
            drop(observed);
            self.changed.send_replace(());
        }
    }

    /// Notes that nothing of that kind is wrong any more.
    pub(super) fn problem_ended(&self, kind: ProblemType) {
        let mut observed = self.observed();
        let before = observed.problems.len();
        observed.problems.retain(|(its, _), _| *its != kind);
        if observed.problems.len() != before {
            drop(observed);
            self.changed.send_replace(());
        }
    }

    /// Forgets what was not said again for so long.
    pub(super) fn forget_problems(&self, age: Duration, now: Instant) {
        let mut observed = self.observed();
        let before = observed.problems.len();
        observed.problems.retain(|_, (_, said)| now.duration_since(*said) < age);
        if observed.problems.len() != before {
            drop(observed);
            self.changed.send_replace(());
        }
    }

    /// What was deleted and no event tells of yet: of the causes that are wanted, so many at most.
    pub(super) fn take_pending_events(
        &self,
        most: usize,
        is_wanted: impl Fn(&Cause) -> bool,
    ) -> Vec<(Cause, (u64, u64))> {
        let mut observed = self.observed();
        let causes: Vec<Cause> =
            observed.pending_events.keys().filter(|cause| is_wanted(cause)).take(most).cloned().collect();
        causes.into_iter().filter_map(|cause| observed.pending_events.remove_entry(&cause)).collect()
    }

    /// Takes back what could not be told of.
    pub(super) fn return_pending_events(&self, cause: Cause, figures: (u64, u64)) {
        self.observed().add_pending_event(cause, figures);
    }
}

impl Observations {
    fn add_pending_event(&mut self, cause: Cause, (count, bytes): (u64, u64)) {
        let is_one_more =
            self.pending_events.len() >= MOST_CAUSES && !self.pending_events.contains_key(&cause);
        let cause = if is_one_more { (None, cause.1) } else { cause };
        let pending_events = self.pending_events.entry(cause).or_default();
        *pending_events = (pending_events.0.saturating_add(count), pending_events.1.saturating_add(bytes));
    }

    /// What is wrong: of which kind it is, what it is about, and what it is in words.
    pub(super) fn problems(&self) -> impl Iterator<Item = (ProblemType, &str, &str)> {
        let problems =
            self.problems.iter().map(|((kind, about), (what, _))| (*kind, about.as_str(), what.as_str()));
        let gone = self.gone.as_deref().map(|why| (ProblemType::DirectoryGone, "", why));
        gone.into_iter().chain(problems)
    }

    /// The first problem of a kind, in words.
    pub(super) fn problem_of(&self, kind: ProblemType) -> Option<&str> {
        let mut of_kind =
            self.problems.range((kind, String::new())..).take_while(|((other, _), _)| *other == kind);
        of_kind.next().map(|(_, (what, _))| what.as_str())
    }

    /// How many problems there are of each type.
    pub(super) fn problem_counts(&self) -> BTreeMap<ProblemType, u64> {
        let mut counts: BTreeMap<_, _> = ProblemType::all().map(|kind| (kind, 0)).collect();
        self.problems().for_each(|(kind, ..)| *counts.entry(kind).or_default() += 1);
        counts
    }

    /// What kinds of things are wrong.
    pub(super) fn kinds_of_problems(&self) -> BTreeSet<ProblemType> {
        self.problems.keys().map(|(kind, _)| *kind).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_problem_with_other_figures_is_the_same_problem() {
        let (state, now) = (AgentState::new(), Instant::now());
        let mut changes = state.changes();
        let full = |what: &str| {
            state.problem(ProblemType::WatermarkUnreachable, String::new(), what.to_owned(), now);
        };
        full("wanted 5 GiB, freed 1 GiB");
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        full("wanted 6 GiB, freed 512 MiB");
        assert!(!changes.has_changed().unwrap());
        let told = state
            .read(|observed| observed.problems().map(|(_, _, what)| what.to_owned()).collect::<Vec<_>>());
        assert_eq!(told, ["wanted 6 GiB, freed 512 MiB"]);
        assert_eq!(state.read(Observations::kinds_of_problems), [ProblemType::WatermarkUnreachable].into());
    }

    #[test]
    fn however_much_is_wrong_little_of_it_is_remembered_and_each_kind_is() {
        let (state, now) = (AgentState::new(), Instant::now());
        for number in 0..10 * MOST_PROBLEMS {
            state.problem(
                ProblemType::FileUnreadable,
                number.to_string(),
                "it cannot be read".to_owned(),
                now,
            );
        }
        state.problem(ProblemType::ServerClockDiffers, String::new(), "it differs".to_owned(), now);
        assert_eq!(state.read(|observed| observed.problems().count()), MOST_PROBLEMS + 1);
        assert_eq!(
            state
                .read(|observed| observed.problem_of(ProblemType::ServerClockDiffers).map(str::to_owned))
                .as_deref(),
            Some("it differs")
        );
        state.forget_problems(Duration::from_secs(1), now + Duration::from_secs(1));
        state.problem(ProblemType::FileUnreadable, "another".to_owned(), "it cannot be read".to_owned(), now);
        assert_eq!(state.read(|observed| observed.problems().count()), 1);
    }

    #[test]
    fn of_however_many_policies_all_deletions_are_told() {
        let state = AgentState::new();
        let policy = |number: usize| PolicyRef {
            kind: checkpoint_keeper_core::policy::Kind::CheckpointPolicy,
            namespace: Some(number.to_string()),
            name: "a".to_owned(),
            part: None,
        };
        for number in 0..3 * MOST_CAUSES {
            state.return_pending_events((Some(policy(number)), Reason::MaxAge), (1, 10));
        }
        let pending_events = state.take_pending_events(usize::MAX, |_| true);
        assert_eq!(pending_events.len(), MOST_CAUSES + 1);
        assert_eq!(pending_events.iter().map(|(_, (count, _))| *count).sum::<u64>(), 3 * MOST_CAUSES as u64);
        assert_eq!(pending_events[0].0, (None, Reason::MaxAge));
    }
}

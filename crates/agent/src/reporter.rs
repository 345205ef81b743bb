//! What the engine's work leads to: the agent's state, audit lines, and the end when the directory is dead.

use std::time::{Duration, Instant};

use checkpoint_keeper_core::engine::View;
use checkpoint_keeper_core::engine::file::{Deletion, Outcome, Removal};
use checkpoint_keeper_core::engine::problem::Problem;
use checkpoint_keeper_core::plan::{EffectiveStorage, Reason};
use checkpoint_keeper_core::policy_lint::{self, Why};
use checkpoint_keeper_node::catalog::CatalogProblem;
use checkpoint_keeper_node::driver::{Event, Operation};
use checkpoint_keeper_runtime::chain;
use jiff::Timestamp;

use super::Audit;
use super::dry_runs::{DryRuns, share_of_dry_run};
use super::inventory::ShownArchives;
use super::metrics::Timings;
use super::problem_type::ProblemType;
use super::schedules::SeenArchives;
use super::state::AgentState;
use super::summary::Summary;
use super::view::LatestView;

/// Reports what the engine does.
pub(super) struct Reporter {
    pub(super) state: AgentState,
    pub(super) audit: Audit,
    pub(super) dry_runs: DryRuns,
    pub(super) timings: Timings,
    /// How often everything is looked at.
    pub(super) interval: Duration,
    /// Tells schedules of their archives.
    pub(super) archives: SeenArchives,
    /// Shows archives through the API.
    pub(super) shown: ShownArchives,
    /// Hands plans over to who asks for one.
    pub(super) latest: LatestView,
    /// Whether the directory was removed under its mount.
    pub(super) is_dead: bool,
    /// Has the driver end.
    pub(super) end: Box<dyn Fn()>,
}

impl Reporter {
    /// Notes what happened.
    pub(super) fn note(&mut self, event: &Event<'_>) {
        let now = Instant::now();
        if let Event::Planned(view) = event {
            let View { snapshot, policies, plan, .. } = &***view;
            let wall = Timestamp::now();
            let storage =
                EffectiveStorage::new(&policies.storage, snapshot.node_labels.as_ref(), snapshot.filesystem);
            let mut summary = Summary::of(snapshot, policies, &storage, plan, wall);
            summary.unlisted = self.shown.note(view, &storage);
            self.latest.note(view);
            for limit in summary.unreachable.iter().take(MOST_UNREACHABLE) {
                let about = format!("{} {}", limit.policy, limit.limit);
                self.state.problem(ProblemType::LimitUnreachable, about, limit.to_string(), now);
            }
            for found in policy_lint::beyond_disk(
                &policies.storage,
                snapshot.node_labels.as_ref(),
                snapshot.filesystem,
            ) {
                let (field, what) = match &found.why {
                    Why::MinFreeBytes { .. } => {
                        ("minFree.bytes", format!("{found}; no checkpoint is made here either"))
                    }
                    _ => ("minFree.inodes", found.to_string()),
                };
                let about = format!("{} {field}", found.policy);
                self.state.problem(ProblemType::MinFreeUnreachable, about, what, now);
            }
            self.dry_runs.add_to(&mut summary, policies, now, |id| {
                share_of_dry_run(snapshot, policies, plan, wall, id)
            });
            self.state.planned(summary, now);
            // Who waits for an archive then finds it counted.
            self.archives.note(view);
        }
        let state = &self.state;
        let wrong = |kind, about, what| state.problem(kind, about, what, now);
        match event {
            Event::Planned(view) => {
                let plan = &view.plan;
                if let Some(shortfall) = plan.watermark.and_then(|round| round.shortfall()) {
                    let what = format!("the disk is too full: {shortfall}");
                    wrong(ProblemType::WatermarkUnreachable, String::new(), what);
                }
                for policy in &plan.unjudged_storage {
                    let what = format!("{policy} selects nodes, and this node's labels are not known");
                    wrong(ProblemType::NodeLabelsUnknown, policy.to_string(), what);
                }
                // What is still wrong was said again at the last look, or will be at the next.
                let age = (self.interval * 2 + Duration::from_secs(1)).max(super::context::TICK * 3);
                self.state.forget_problems(age, now);
            }
            Event::Finished(outcome) => {
                self.audit(outcome);
                if let Removal::Failed(error) = &outcome.removal {
                    let file = outcome.deletion.archive.file.to_string();
                    let what = format!("cannot delete {file}: {error}");
                    wrong(ProblemType::DeletionFailed, file, what);
                }
                if outcome.removal.is_gone() {
                    let archive = &outcome.deletion.archive;
                    self.shown.forget(&archive.file, archive.file_id);
                }
                self.state.finished(outcome, Timestamp::now());
            }
            Event::Discards(discarded) => self.state.discarded(discarded),
            Event::Problem(problem) => note_problem(state, problem, now),
            Event::Catalog(problem) => note_catalog_problem(state, problem, now),
            Event::Reading(_) => {}
            Event::Timed(operation, took) => {
                self.timings.observe(*operation, *took);
                if *operation == Operation::Sweep {
                    self.state.swept(Timestamp::now());
                }
            }
            Event::DirectoryGone => self.state.gone(Some("the directory is gone".to_owned())),
            Event::DirectoryReplaced => {
                tracing::warn!("another directory took the place of the old one");
                self.state.gone(None);
            }
            Event::DirectoryUnusable(error) => self.state.gone(Some(chain(*error))),
            Event::NoDirWatcher(error) => {
                wrong(
                    ProblemType::NoDirWatcher,
                    String::new(),
                    format!("the system gives no notice of changes: {error}"),
                );
            }
            Event::DirectoryDead => {
                tracing::error!(
                    "the directory was removed under its mount: exiting, so that the restart mounts the new one",
                );
                self.is_dead = true;
                (self.end)();
            }
        }
    }

    /// One line for each deletion, for good.
    fn audit(&self, outcome: &Outcome) {
        if !matches!(outcome.removal, Removal::Removed) {
            return;
        }
        // A full disk may stop the log, and must not stop what frees it.
        let Deletion { archive, verdict, .. } = &outcome.deletion;
        let is_asked = verdict.reason == Reason::Discarded;
        let asked = is_asked.then(|| self.shown.discard_of(&archive.file)).flatten();
        if let Err(error) = (self.audit)(outcome, asked) {
            let what = format!("cannot write the audit line of a deletion: {error}");
            self.state.problem(ProblemType::AuditFailed, String::new(), what, Instant::now());
        }
    }
}

/// So many limits that pins make unreachable are told of at a time.
const MOST_UNREACHABLE: usize = 100;

fn note_problem(state: &AgentState, problem: &Problem, now: Instant) {
    let (kind, about) = ProblemType::of(problem);
    state.problem(kind, about, problem.to_string(), now);
}

pub(super) fn note_catalog_problem(state: &AgentState, problem: &CatalogProblem, now: Instant) {
    state.problem(ProblemType::of_catalog(problem), String::new(), problem.to_string(), now);
}

#[cfg(test)]
mod tests {
    use std::io;

    use checkpoint_keeper_node::store::OpenError;

    use super::*;

    fn reporter(state: AgentState) -> Reporter {
        Reporter {
            state,
            audit: Box::new(|_, _| Ok(())),
            dry_runs: DryRuns::new(Duration::from_mins(1)),
            timings: Timings::default(),
            interval: Duration::from_mins(1),
            archives: SeenArchives::default(),
            shown: ShownArchives::new(String::new(), 0),
            latest: LatestView::default(),
            is_dead: false,
            end: Box::new(|| {}),
        }
    }

    #[test]
    fn why_the_directory_cannot_be_used_is_told_as_the_system_says_it() {
        let state = AgentState::new();
        let source = io::Error::from_raw_os_error(13);
        let error = OpenError::Look { path: "/archives".into(), source };
        reporter(state.clone()).note(&Event::DirectoryUnusable(&error));
        assert_eq!(
            state.read(|observed| observed.gone.clone()).as_deref(),
            Some("cannot look at the directory /archives: Permission denied (os error 13)")
        );
    }
}

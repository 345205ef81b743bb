//! What is kept across restarts, so that no due time is served twice, and none is lost without a word.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::TOO_MANY_SCHEDULES;
use super::messages::{ContainerId, Request, RunResult, RunResultKind, SkipReason, Trigger};

/// What is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// By the schedule's UID.
    pub schedules: BTreeMap<String, ScheduleMemory>,
    /// Disruptions that were noticed.
    pub disruptions: BTreeSet<NoticedDisruption>,
    /// The pods whose annotation asks, by their UID.
    pub annotated: BTreeMap<String, AnnotationMemory>,
    /// Dumps that wait or are under way.
    pub runs: Vec<RunMemory>,
}

/// What is kept of a pod whose annotation asks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AnnotationMemory {
    /// What came of its containers by now, by their names: a file, or an error.
    pub results: BTreeMap<String, Result<String, String>>,
    /// The answer that ended the request; none: it is not over.
    pub last_answer: Option<String>,
}

/// What is kept of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ScheduleMemory {
    /// The last time at which its interval was over.
    pub last_interval: Option<Timestamp>,
    /// The last time of its cron expression that was served or skipped, or when the expression was changed.
    pub last_cron: Option<Timestamp>,
    /// When a dump for it last succeeded.
    pub last_success: Option<Timestamp>,
    /// How many dumps that its interval asked for have succeeded.
    pub interval_successes: u64,
    /// How many requests have failed since then.
    pub failures: u32,
    /// When the first of them failed.
    pub failing_since: Option<Timestamp>,
    /// What failed last.
    pub last_failure: Option<Failure>,
}

/// What failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// The name of the result.
    pub reason: String,
    /// What happened.
    pub message: String,
    /// When.
    pub at: Timestamp,
    /// The container that counts as failing until it succeeds or is not selected any more; none: any success ends it.
    #[serde(default)]
    pub container: Option<ContainerId>,
}

impl Failure {
    /// Whether it is of that kind. It is kept by its name, as another version may have kept one that is not known here.
    pub fn is(&self, kind: RunResultKind) -> bool {
        self.reason == kind.name()
    }
}

/// A disruption of a pod that a schedule was told of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NoticedDisruption {
    /// The schedule's UID.
    pub schedule_uid: String,
    /// The pod's UID.
    pub pod_uid: String,
    /// Whether it was the node's drain, which may come again, and not the pod's own end.
    pub is_drain: bool,
}

/// A dump that waits or is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunMemory {
    /// Of which container.
    pub container: ContainerId,
    /// What it is for.
    pub requests: Vec<Request>,
    /// How often it was tried.
    pub tries: u32,
    /// When it began; none while it waits.
    pub started: Option<Timestamp>,
    /// When it is tried again after a failure; none: at once.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
}

impl ScheduleMemory {
    /// Notes that the schedule is not carried out, as too many of its namespace are. That a container may be frozen is not hidden
    /// by it.
    pub(super) fn note_crowded_out(&mut self, at: Timestamp) {
        self.failures = self.failures.max(1);
        self.failing_since.get_or_insert(at);
        if !self.may_be_frozen() {
            let message = "not carried out here, as many older schedules of its namespace select containers on this node";
            let (reason, message) = (TOO_MANY_SCHEDULES.to_owned(), message.to_owned());
            self.last_failure = Some(Failure { reason, message, at, container: None });
        }
    }

    /// Notes that the schedule is suspended: that it failed before is nothing to be mended, but that a container may be frozen.
    pub(super) fn note_suspended(&mut self) {
        if !self.may_be_frozen() {
            (self.failures, self.failing_since, self.last_failure) = (0, None, None);
        }
    }

    /// Whether something failed that missed times are a mere consequence of.
    fn has_cause(&self) -> bool {
        self.last_failure.as_ref().is_some_and(|failure| !failure.is(RunResultKind::Missed))
    }

    fn may_be_frozen(&self) -> bool {
        self.last_failure.as_ref().is_some_and(|failure| failure.is(RunResultKind::MayBeFrozen))
    }

    /// When a time trigger was last due.
    pub(super) fn last_of(&mut self, trigger: Trigger) -> &mut Option<Timestamp> {
        match trigger {
            Trigger::Cron => &mut self.last_cron,
            _ => &mut self.last_interval,
        }
    }

    /// Notes what came of the request for a container. While the schedule selects a container that failed, successes and
    /// failures of others do not take the place of its failure.
    pub(super) fn note_of(
        &mut self,
        container: &ContainerId,
        result: &RunResult,
        is_timed: bool,
        is_selected: impl Fn(&ContainerId) -> bool,
        now: Timestamp,
    ) {
        let kind = result.kind();
        // One that is tried again has not failed yet.
        let failed = self.last_failure.as_ref().filter(|_| self.failures > 0);
        let failed = failed.and_then(|failure| failure.container.as_ref());
        let is_of_another = failed.is_some_and(|failed| failed != container && is_selected(failed));
        match kind {
            RunResultKind::Done if is_of_another => self.last_success = Some(now),
            RunResultKind::Retrying if is_of_another => {}
            RunResultKind::Failed | RunResultKind::InsufficientStorage | RunResultKind::QuotaExceeded
                if is_of_another =>
            {
                self.failures = self.failures.saturating_add(1);
            }
            RunResultKind::Missed => self.note(result, None, 1, now),
            _ => {
                // What no time asks for may never be asked for again.
                let failing = is_timed.then(|| container.clone());
                match result {
                    // Events about it end long before it is thawed.
                    RunResult::MayBeFrozen(message) => {
                        let named = RunResult::MayBeFrozen(format!("{container}: {message}"));
                        self.note(&named, failing, 1, now);
                    }
                    result => self.note(result, failing, 1, now),
                }
            }
        }
    }

    /// Notes what came of a request for so many containers; `container` is the one that counts as failing with it.
    pub(super) fn note(
        &mut self,
        result: &RunResult,
        container: Option<ContainerId>,
        containers: u32,
        now: Timestamp,
    ) {
        let message = match result {
            RunResult::Done(_) => {
                (self.last_success, self.failures) = (Some(now), 0);
                (self.failing_since, self.last_failure) = (None, None);
                return;
            }
            RunResult::Failed(message)
            | RunResult::InsufficientStorage(message)
            | RunResult::QuotaExceeded(message)
            | RunResult::MayBeFrozen(message) => {
                self.failures = self.failures.saturating_add(1);
                message.clone()
            }
            RunResult::Skipped(SkipReason::Missed(count)) => {
                self.failures = self.failures.saturating_add(containers);
                match (count, containers) {
                    (1, 0 | 1) => "a due time was missed".to_owned(),
                    (1, containers) => format!("a due time of {containers} containers was missed"),
                    (count, _) => format!("{count} due times were missed"),
                }
            }
            // While requests fail, why they do stays the same until one is over.
            RunResult::Retrying(_) if self.failures > 0 => return,
            RunResult::Retrying(message) => message.clone(),
            RunResult::WouldDump | RunResult::Skipped(_) => return,
        };
        if self.failures > 0 {
            self.failing_since.get_or_insert(now);
        }
        // What failed is not hidden by what follows from it: that a container may be frozen by anything, and why a
        // checkpoint could not be made by times that were missed meanwhile.
        let is_hidden = match result.kind() {
            RunResultKind::MayBeFrozen => false,
            RunResultKind::Missed => self.has_cause(),
            _ => self.may_be_frozen(),
        };
        if !is_hidden {
            let reason = result.name().to_owned();
            self.last_failure = Some(Failure { reason, message, at: now, container });
        }
    }
}

//! The pods whose annotation asks for a checkpoint, and what they are answered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;

use super::memory::AnnotationMemory;
use super::messages::{Answer, ContainerId, NodePod, RunResult};
use super::occasions::containers_of;
use super::spec::Schedule;
use crate::policy::Mode;

/// So many schedules are named in an answer.
const MOST_NAMES: usize = 5;

/// The pods whose annotation asks, by their UID.
#[derive(Debug)]
pub(super) struct Annotations {
    asking: BTreeMap<String, AnnotationMemory>,
    /// Those of them whose answer an earlier process may not have written.
    to_be_answered: BTreeSet<String>,
}

impl Annotations {
    /// Goes on from what was kept.
    pub(super) fn new(memory: BTreeMap<String, AnnotationMemory>) -> Self {
        let to_be_answered = memory.keys().cloned().collect();
        Self { asking: memory, to_be_answered }
    }

    /// What is kept of them.
    pub(super) fn memory(&self) -> &BTreeMap<String, AnnotationMemory> {
        &self.asking
    }

    /// Forgets the pods that ask no more. Where the answer that ended a request can be read beside the annotation, the
    /// annotation was put on anew.
    pub(super) fn learn_pods(&mut self, pods: &BTreeMap<String, NodePod>) {
        self.asking.retain(|uid, asked| {
            let is_answered = |pod: &NodePod| asked.last_answer.is_some() && asked.last_answer == pod.answer;
            pods.get(uid).is_some_and(|pod| pod.is_annotated && !is_answered(pod))
        });
        self.to_be_answered.retain(|uid| self.asking.contains_key(uid));
    }

    /// Whether the pod's request was noticed.
    pub(super) fn is_noticed(&self, pod_uid: &str) -> bool {
        self.asking.contains_key(pod_uid)
    }

    /// Whether an earlier process may have left the pod without its answer; says so once.
    pub(super) fn take_unanswered(&mut self, pod_uid: &str) -> bool {
        self.to_be_answered.remove(pod_uid)
    }

    /// Notices a pod's request.
    pub(super) fn notice(&mut self, pod_uid: &str) {
        self.asking.insert(pod_uid.to_owned(), AnnotationMemory::default());
    }

    /// Notes what came of a container of a pod that asks. Returns whether there is something to answer.
    pub(super) fn note(&mut self, container: &ContainerId, result: &RunResult) -> bool {
        let Some(asked) = self.asking.get_mut(&container.pod_uid) else { return false };
        let result = match result {
            RunResult::Done(file) => Ok(file.clone()),
            RunResult::Retrying(text) => Err(format!("{text}; it is tried again")),
            RunResult::Failed(text) | RunResult::InsufficientStorage(text) => Err(text.clone()),
            // Whoever reads the answer can tell it from a failure.
            RunResult::QuotaExceeded(text) => Err(format!("{}: {text}", result.name())),
            RunResult::Skipped(_) => Err(result.name().to_owned()),
            RunResult::WouldDump | RunResult::MayBeFrozen(_) => return false,
        };
        asked.results.insert(container.container.clone(), result);
        true
    }

    /// The answer for a container's pod, if that asks; `is_over`: nothing more comes of its request. Where nothing came of any
    /// container, `why_nothing` says why.
    pub(super) fn answer(
        &mut self,
        container: &ContainerId,
        is_over: bool,
        why_nothing: impl FnOnce() -> String,
        now: Timestamp,
    ) -> Option<Answer> {
        let asked = self.asking.get_mut(&container.pod_uid)?;
        let text = text(&asked.results, why_nothing, now);
        if is_over {
            asked.last_answer = Some(text.clone());
        }
        Some(Answer {
            namespace: container.namespace.clone(),
            pod: container.pod.clone(),
            pod_uid: container.pod_uid.clone(),
            text,
            is_over,
        })
    }
}

/// Why nothing is checkpointed of a pod whose annotation asks: `schedules` are those that select it, go by annotations and are
/// carried out; where there are none, there are too many of them.
pub(super) fn why_nothing(pod: &NodePod, schedules: &[Arc<Schedule>]) -> String {
    let is_dry_run = |schedule: &&Arc<Schedule>| {
        schedule.mode == Mode::DryRun && containers_of(schedule, pod).next().is_some()
    };
    let dry_runs = names(schedules.iter().filter(is_dry_run));
    let why = match (dry_runs, names(schedules.iter())) {
        (Some((schedules, 1)), _) => format!("{schedules} is a dry run"),
        (Some((schedules, _)), _) => format!("{schedules} are dry runs"),
        (None, Some((schedules, 1))) => {
            format!("{schedules} names none of the pod's containers in spec.containers")
        }
        (None, Some((schedules, _))) => {
            format!("{schedules} name none of the pod's containers in spec.containers")
        }
        (None, None) => "the pod's namespace has too many schedules for this node".to_owned(),
    };
    format!("{why}; nothing was checkpointed")
}

/// The names of schedules, of which the first are written out, and how many they are; none where there are none.
fn names<'a>(schedules: impl Iterator<Item = &'a Arc<Schedule>>) -> Option<(String, usize)> {
    let names: Vec<&str> = schedules.map(|schedule| schedule.id.name.as_str()).collect();
    let (first, more) = (names.get(..MOST_NAMES).unwrap_or(&names), names.len().saturating_sub(MOST_NAMES));
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let noun = match names.len() {
        0 => return None,
        1 => "schedule",
        _ => "schedules",
    };
    Some((format!("the {noun} {}{more}", first.join(", ")), names.len()))
}

/// An answer: a time that no two answers share, and what came of each container.
fn text(
    results: &BTreeMap<String, Result<String, String>>,
    why_nothing: impl FnOnce() -> String,
    now: Timestamp,
) -> String {
    let container = |(name, result): (&String, &Result<String, String>)| match result {
        Ok(file) => json!({"name": name, "archive": file}),
        Err(error) => json!({"name": name, "error": error}),
    };
    let containers: Vec<_> = results.iter().map(container).collect();
    if containers.is_empty() {
        let message = why_nothing();
        return json!({"time": now.to_string(), "message": message}).to_string();
    }
    json!({"time": now.to_string(), "containers": containers}).to_string()
}

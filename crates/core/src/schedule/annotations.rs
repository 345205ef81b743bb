//! The pods whose annotation asks for a checkpoint, and what they are answered.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::json;

use super::memory::AnnotationMemory;
use super::messages::{Answer, ContainerId, NodePod, RunResult};

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
            RunResult::Skipped(reason) => Err(reason.name().to_owned()),
            RunResult::WouldDump | RunResult::MayBeFrozen(_) => return false,
        };
        asked.results.insert(container.container.clone(), result);
        true
    }

    /// The answer for a container's pod, if that asks; `is_over`: nothing more comes of its request.
    pub(super) fn answer(
        &mut self,
        container: &ContainerId,
        is_over: bool,
        now: Timestamp,
    ) -> Option<Answer> {
        let asked = self.asking.get_mut(&container.pod_uid)?;
        let text = text(&asked.results, now);
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

/// An answer: a time that no two answers share, and what came of each container.
fn text(results: &BTreeMap<String, Result<String, String>>, now: Timestamp) -> String {
    let container = |(name, result): (&String, &Result<String, String>)| match result {
        Ok(file) => json!({"name": name, "archive": file}),
        Err(error) => json!({"name": name, "error": error}),
    };
    let containers: Vec<_> = results.iter().map(container).collect();
    if containers.is_empty() {
        let message = "no container matched, the schedule is a dry run, or its namespace has too many schedules for this \
                       node; nothing was checkpointed";
        return json!({"time": now.to_string(), "message": message}).to_string();
    }
    json!({"time": now.to_string(), "containers": containers}).to_string()
}

//! Telling people what came of schedules: events on pods and schedules, and the answers to annotations.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use checkpoint_keeper_api::api_object::ApiObject;
use checkpoint_keeper_core::schedule::{
    Answer, RESULT_ANNOTATION, Report, RunResult, RunResultKind, ScheduleRef, SkipReason, TRIGGER_ANNOTATION,
};
use checkpoint_keeper_runtime::events::Note;
use checkpoint_keeper_runtime::liveness::now;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::api::{ApiResource, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::answers::write_answers;
use super::budget::{Budget, MESSAGES};
use super::event_sender::EventSender;
use crate::api_write::within_timeout;
use crate::context::ApiContext;

/// What events say was done.
const ACTION: &str = "CheckpointContainer";

/// The type of problem in the log.
const EVENTS_UNWRITTEN: &str = "ScheduleEventsUnwritten";

/// How long results are collected before their schedules are told of: of many there is one event.
const COLLECTED: Duration = Duration::from_secs(2);

/// So many reports wait at most; of more nothing is told. They come no faster than [`super::budget::RESULTS`].
pub(super) const MOST_WAITING: usize = 4_000;

/// Takes results that are to have events, and answers to annotations.
#[derive(Debug, Clone)]
pub(super) struct MessageSender {
    reports: mpsc::Sender<Report>,
    answers: mpsc::UnboundedSender<Answer>,
}

/// Publishes the events, and writes the answers.
pub(super) struct MessageReceiver {
    reports: mpsc::Receiver<Report>,
    answers: mpsc::UnboundedReceiver<Answer>,
}

/// Both ends.
pub(super) fn channel() -> (MessageSender, MessageReceiver) {
    let (report_sender, reports) = mpsc::channel(MOST_WAITING);
    // As many as there are pods, each a few times.
    let (answer_sender, answers) = mpsc::unbounded_channel();
    (MessageSender { reports: report_sender, answers: answer_sender }, MessageReceiver { reports, answers })
}

impl MessageSender {
    /// Has an event made of a result. Returns false where too many wait: there is none then, and the metrics count it all
    /// the same.
    pub(super) fn report(&self, report: Report) -> bool {
        self.reports.try_send(report).is_ok()
    }

    pub(super) fn answer(&self, answer: Answer) {
        let _ = self.answers.send(answer);
    }
}

impl MessageReceiver {
    /// Publishes and writes for as long as it is polled.
    pub(super) async fn run(self, context: &ApiContext, uid_of: impl Fn(&ScheduleRef) -> Option<String>) {
        let Self { reports, answers } = self;
        let write = async |answer| within_timeout(write_answer(&answer, &context.client)).await;
        tokio::join!(publish(reports, context, uid_of), write_answers(answers, write, &context.state));
    }
}

async fn publish(
    mut reports: mpsc::Receiver<Report>,
    context: &ApiContext,
    uid_of: impl Fn(&ScheduleRef) -> Option<String>,
) {
    let mut events = EventSender::new(&context.client, &context.node, EVENTS_UNWRITTEN, "of schedules");
    let mut budget = Budget::new(MESSAGES, now());
    while let Some(first) = reports.recv().await {
        let mut collected = vec![first];
        sleep(COLLECTED).await;
        while let Ok(next) = reports.try_recv() {
            collected.push(next);
        }
        let (notes, left_out) = due(&collected, &context.node, &uid_of, &mut budget, now());
        context.state.left_out(left_out, 0);
        for note in notes {
            events.send(note).await;
        }
    }
}

/// The events that tell of these, as far as the budget goes, and how many are left out. Those of the schedules come first:
/// they are fewer, and name their pods.
pub(super) fn due(
    reports: &[Report],
    node: &str,
    uid_of: impl Fn(&ScheduleRef) -> Option<String>,
    budget: &mut Budget,
    now: Instant,
) -> (Vec<Note>, u64) {
    let notes = schedule_notes(reports, node, uid_of).into_iter().chain(pod_notes(reports));
    let (due, left_out): (Vec<Note>, Vec<Note>) =
        notes.partition(|note| budget.take(note.about.namespace.as_deref().unwrap_or_default(), now));
    (due, left_out.len() as u64)
}

/// One event for each container and result, whichever schedules asked for it.
fn pod_notes(reports: &[Report]) -> Vec<Note> {
    let mut told = BTreeMap::new();
    for report in reports {
        let Some(container) = &report.container else { continue };
        let triggers: &mut BTreeSet<&str> =
            told.entry((container, report.result.kind(), text(&report.result))).or_default();
        triggers.insert(report.request.trigger.name());
    }
    let note = |((container, kind, text), triggers): ((&_, RunResultKind, String), BTreeSet<&str>)| {
        let container: &checkpoint_keeper_core::schedule::ContainerId = container;
        let triggers: Vec<&str> = triggers.into_iter().collect();
        Note {
            about: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                namespace: Some(container.namespace.clone()),
                name: Some(container.pod.clone()),
                uid: Some(container.pod_uid.clone()),
                field_path: Some(format!("spec.containers{{{}}}", container.container)),
                ..ObjectReference::default()
            },
            is_good: kind.is_good(),
            reason: kind.name().to_owned(),
            action: ACTION,
            note: format!("Container {} ({}): {text}", container.container, triggers.join(", ")),
        }
    };
    told.into_iter().map(note).collect()
}

/// One event for each schedule and result.
fn schedule_notes(
    reports: &[Report],
    node: &str,
    uid_of: impl Fn(&ScheduleRef) -> Option<String>,
) -> Vec<Note> {
    let mut told: BTreeMap<(&ScheduleRef, RunResultKind), Vec<&Report>> = BTreeMap::new();
    for report in reports {
        told.entry((&report.request.schedule, report.result.kind())).or_default().push(report);
    }
    let told_of = |((schedule, kind), reports): ((&ScheduleRef, RunResultKind), Vec<&Report>)| {
        let first = reports.first().map(|report| {
            let whose = report.container.as_ref();
            let whose = whose.map(|whose| format!("{}/{}: ", whose.pod, whose.container)).unwrap_or_default();
            format!("{whose}{}", text(&report.result))
        });
        let more = match reports.iter().map(|report| u64::from(report.count)).sum::<u64>() {
            0 | 1 => String::new(),
            count => format!(" (and {} more of the kind)", count - 1),
        };
        Note {
            about: reference(schedule, uid_of(schedule)),
            is_good: kind.is_good(),
            reason: kind.name().to_owned(),
            action: ACTION,
            note: format!("On {node}: {}{more}", first.unwrap_or_default()),
        }
    };
    told.into_iter().map(told_of).collect()
}

/// A result in words.
fn text(result: &RunResult) -> String {
    match result {
        RunResult::Done(file) => format!("checkpointed to {file}"),
        RunResult::WouldDump => "would have been checkpointed; the schedule is a dry run".to_owned(),
        RunResult::MayBeFrozen(error) => format!(
            "may have been left frozen, though its pod shows Running: the runtime did not finish a checkpoint of it \
             ({error}). Where it does not answer, delete the pod"
        ),
        RunResult::Retrying(error) => format!("not checkpointed yet, and tried again: {error}"),
        RunResult::Failed(error) => format!("not checkpointed: {error}"),
        RunResult::InsufficientStorage(error) => format!("not checkpointed for want of room: {error}"),
        RunResult::QuotaExceeded(error) => {
            format!("not checkpointed, as a quota has no room for it: {error}")
        }
        RunResult::Skipped(SkipReason::Missed(1)) => "missed a due time".to_owned(),
        RunResult::Skipped(SkipReason::Missed(count)) => format!("missed {count} due times"),
        RunResult::Skipped(SkipReason::PodEnded) => "not checkpointed: it ended before".to_owned(),
        RunResult::Skipped(SkipReason::ScheduleChanged) => {
            "not checkpointed: the schedule was changed, suspended or deleted before".to_owned()
        }
        RunResult::Skipped(SkipReason::RequestWithdrawn) => {
            "not checkpointed: its annotation was taken off before".to_owned()
        }
    }
}

fn reference(schedule: &ScheduleRef, uid: Option<String>) -> ObjectReference {
    ObjectReference {
        api_version: Some(schedule.kind.api_version().to_owned()),
        kind: Some("CheckpointSchedule".to_owned()),
        namespace: Some(schedule.namespace.clone()),
        name: Some(schedule.name.clone()),
        uid,
        ..ObjectReference::default()
    }
}

async fn write_answer(answer: &Answer, client: &Client) -> kube::Result<()> {
    let kind = ApiResource::erase::<Pod>(&());
    let api: Api<ApiObject> = Api::namespaced_with(client.clone(), &answer.namespace, &kind);
    let mut annotations = json!({RESULT_ANNOTATION: answer.text});
    if answer.is_over {
        annotations[TRIGGER_ANNOTATION] = json!(null);
    }
    // With the UID it is refused where another pod has the name by now.
    let patch = json!({"metadata": {"uid": answer.pod_uid, "annotations": annotations}});
    match api.patch_metadata(&answer.pod, &PatchParams::default(), &Patch::Merge(&patch)).await {
        // It is written, and what the API shows of the pod then cannot be read: users decide what is in its metadata.
        Ok(_) | Err(kube::Error::SerdeError(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_core::schedule::{ContainerId, Request, ScheduleKind, Trigger};
    use jiff::Timestamp;

    use super::*;

    fn report(schedule: &str, container: &str, trigger: Trigger, result: RunResult) -> Report {
        let id = ScheduleRef {
            kind: ScheduleKind::Native,
            namespace: "shop".to_owned(),
            name: schedule.to_owned(),
        };
        let due = Timestamp::UNIX_EPOCH;
        Report {
            request: Request { schedule: id, schedule_uid: schedule.to_owned(), trigger, due },
            container: Some(ContainerId {
                namespace: "shop".to_owned(),
                pod: "db-0".to_owned(),
                pod_uid: "u".to_owned(),
                container: container.to_owned(),
            }),
            result,
            count: 1,
        }
    }

    #[test]
    fn one_dump_for_two_schedules_is_one_event_of_the_pod_and_one_of_each_schedule() {
        let done = || RunResult::Done("a.tar".to_owned());
        let reports = [
            report("hourly", "app", Trigger::Interval, done()),
            report("on-drain", "app", Trigger::Annotation, done()),
            report("hourly", "log", Trigger::Interval, RunResult::Failed("no".to_owned())),
        ];
        let pods = pod_notes(&reports);
        let of = |notes: &[Note]| notes.iter().map(|note| note.note.clone()).collect::<Vec<_>>();
        assert_eq!(
            of(&pods),
            [
                "Container app (Annotation, Interval): checkpointed to a.tar",
                "Container log (Interval): not checkpointed: no"
            ]
        );
        assert_eq!((pods[0].is_good, pods[1].is_good), (true, false));
        assert_eq!(pods[0].about.uid.as_deref(), Some("u"));
        let schedules = schedule_notes(&reports, "n1", |id| Some(format!("uid of {}", id.name)));
        assert_eq!(
            of(&schedules),
            [
                "On n1: db-0/app: checkpointed to a.tar",
                "On n1: db-0/log: not checkpointed: no",
                "On n1: db-0/app: checkpointed to a.tar"
            ]
        );
        assert_eq!(schedules[2].about.uid.as_deref(), Some("uid of on-drain"));
    }
}

//! `docs/signals.md`: all that agents and the controller tell, made from what they tell it with.

use std::fmt::Write;
use std::path::Path;

use checkpoint_keeper_api::container_checkpoint::HeldReason;
use checkpoint_keeper_api::effective::Acceptance;
use checkpoint_keeper_api::node_store::ReadyReason;
use checkpoint_keeper_api::quota::QuotaReadyReason;
use checkpoint_keeper_api::schedule_status::{ScheduleHealthyReason, ScheduleReadyReason};
use checkpoint_keeper_controller::enforcement::EnforcedReason;
use checkpoint_keeper_core::policy::{Kind, PolicyRef};
use checkpoint_keeper_core::schedule::{RunResult, SkipReason};

use checkpoint_keeper_agent as agent;
use checkpoint_keeper_controller as controller;

use crate::output;

/// Set by `cargo xtask generate`, which has the page written and not compared.
pub(crate) const GENERATE: &str = "CHECKPOINT_KEEPER_GENERATE";

#[test]
fn the_page_of_signals_is_what_the_code_tells() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/signals.md");
    let page = page();
    if std::env::var_os(GENERATE).is_some() {
        std::fs::write(&path, page).unwrap();
        return;
    }
    let committed = std::fs::read_to_string(&path).unwrap();
    assert!(committed == page, "docs/signals.md is not what the code makes: cargo xtask generate\n{page}");
}

fn page() -> String {
    let mut page = "# What it tells\n\nMade from the code by `cargo xtask generate`. No metric names an archive or a pod; \
                    those that name a schedule or a quota do so for a bounded number of them.\n\n## Metrics\n\n| metric | type | labels | of | what |\n| --- | --- | --- | --- | --- |\n"
        .to_owned();
    let (of_agent, of_controller) =
        (metrics(&agent::metrics::example()), metrics(&controller::metrics::example()));
    let shared = |metric: &Metric| of_agent.contains(metric) && of_controller.contains(metric);
    let of_one = |metric: &&Metric| !shared(metric);
    let rows = of_agent.iter().filter(|metric| shared(metric)).map(|metric| ("agent, controller", metric));
    let rows = rows.chain(of_agent.iter().filter(of_one).map(|metric| ("agent", metric)));
    for (of, metric) in rows.chain(of_controller.iter().filter(of_one).map(|metric| ("controller", metric))) {
        let Metric { name, kind, labels, help } = metric;
        let _ = writeln!(page, "| `{name}` | {kind} | {labels} | {of} | {help} |");
    }
    page.push_str("\n## Events\n\n| reason | of | on | when |\n| --- | --- | --- | --- |\n");
    page.push_str(
        "| the verdict's reason, such as `MaxAge` | agent | the policy, or the node's `NodeCheckpointStore` where none \
         asked for it | archives were deleted: one event for each reason and a minute at most, with the number and size \
         of what was deleted since the last one |\n| `LimitUnreachable` | agent | the policy | pins keep one of its limits \
         from being reached on a node; told of again when it was within reach for an hour in between |\n",
    );
    let faults = ReadyReason::ALL.into_iter().filter(|reason| reason.is_fault_of_node());
    let faults: Vec<String> = faults.map(|reason| format!("`{}`", reason.name())).collect();
    let _ = writeln!(
        page,
        "| {}, and `Collecting` once they are over | agent | the node's `NodeCheckpointStore` | why less is done there than policies \
         want; each once while it lasts, and again when it was over for an hour in between |",
        faults.join(", ")
    );
    for acceptance in acceptances() {
        let message = acceptance.message(&policy()).replace('|', "\\|");
        let _ = writeln!(page, "| `{}` | controller | the policy | {message} |", acceptance.reason());
    }
    page.push_str(
        "| `QuotaNearlyExceeded`, `QuotaExceeded` | controller | the `CheckpointQuota` | the namespace holds nearly as much as \
         the quota, or more than it: each once whenever it comes true |\n",
    );
    for result in results() {
        let when = when(&result);
        let name = result.name();
        let _ =
            writeln!(page, "| `{name}` | agent | the pod, or the `CheckpointSchedule`, or both | {when} |");
    }
    page.push_str(
        "\nThe same reasons are those of the policies' condition `Accepted`. Beside it stand `Enforced` (whether every \
         node that the policy concerns acts by it as it is now), `Ready` (both in one; `Pending` until the controller has \
         looked at it), `DeletionPending` (archives wait, as only so many may go a minute), `LimitsUnreachable` (pins \
         keep limits from being reached) and `WithoutEffect` (a part of it can never act, as a policy or limit before it is for all the same archives). \
         `Enforced` has the reasons ",
    );
    page.push_str(&names(EnforcedReason::ALL.map(|reason| (reason.name(), reason.status())).into_iter()));
    page.push_str(".\n\nA `NodeCheckpointStore` has the condition `Ready`, with the reasons ");
    let status = |reason: ReadyReason| match reason {
        ReadyReason::Collecting => "True",
        ReadyReason::AgentNotReady => "Unknown",
        _ => "False",
    };
    page.push_str(&names(ReadyReason::ALL.map(|reason| (reason.name(), status(reason))).into_iter()));
    page.push_str(
        ".\n\nA `CheckpointQuota` has the conditions `Exceeded` (more is used than `hard` allows; `WithinHard`, \
         `CountExceeded`, `BytesExceeded`, `CountAndBytesExceeded`), `NearlyExceeded` (`BelowWarnAt`, `WarnAtReached`, \
         `HardReached`) and `Ready`, with the reasons ",
    );
    page.push_str(&names(QuotaReadyReason::ALL.map(|reason| (reason.name(), reason.status())).into_iter()));
    page.push_str(
        ".\n\nA `CheckpointSchedule`, also one of the older operator, has the conditions `Ready`, with the reasons ",
    );
    let ready = ScheduleReadyReason::ALL.map(|reason| (reason.name(), reason.status().name()));
    page.push_str(&names(ready.into_iter()));
    page.push_str(", and `Healthy`, with the reasons ");
    let healthy = ScheduleHealthyReason::ALL.map(|reason| (reason.name(), reason.status().name()));
    page.push_str(&names(healthy.into_iter()));
    page.push_str(".\n\nA `ContainerCheckpoint` has the condition `Held`, with the reasons ");
    page.push_str(&names(HeldReason::ALL.map(|reason| (reason.name(), reason.status())).into_iter()));
    page.push_str(
        ", and, once a discard was asked for, `Discarded` (False), with the reasons `Waiting` (it is to be deleted) and \
         `Pinned` (it is deleted once nothing keeps it any more)",
    );
    page.push_str(
        ".\n\n## Audit lines\n\nAn agent writes one line of \
         JSON to standard output for each archive that it deleted:\n\n",
    );
    for field in output::json::audit_fields() {
        let _ = writeln!(page, "* `{field}`");
    }
    page.push_str(
        "\n`gc --audit FILE` appends the same lines to a file, and `gc --watch --output json` writes them to standard \
         output, both without `node` and `policyGeneration`.\n",
    );
    page.push_str(
        "\n## Log\n\nAgent and controller log to standard error, as text or JSON (`--log-format`): when they start, with \
         version and options; each problem once as a warning when it appears, and once when it ends, with the fields \
         `problem`, `subject` and then `lasted_seconds`; who leads; and why they end. `--log-level debug` logs more, and \
         `info,kube=debug` what a library logs.\n",
    );
    page.push_str(
        "\n## Probes\n\n`/livez`, `/readyz` (what is missing, if anything) and `/metrics`, on the address of `--listen`.\n",
    );
    page
}

/// Reasons with the status of their condition.
fn names(reasons: impl Iterator<Item = (&'static str, &'static str)>) -> String {
    let reasons: Vec<_> = reasons.map(|(reason, status)| format!("`{reason}` ({status})")).collect();
    reasons.join(", ")
}

fn policy() -> PolicyRef {
    let (kind, namespace) = (Kind::CheckpointRestoreOperator, Some("NAMESPACE".to_owned()));
    PolicyRef { kind, namespace, name: "NAME".to_owned(), part: None }
}

/// One of each. A new one does not compile before it stands here.
fn acceptances() -> Vec<Acceptance> {
    let next = |acceptance: &Acceptance| match acceptance {
        Acceptance::Accepted => Some(Acceptance::OwnNamespace),
        Acceptance::OwnNamespace => Some(Acceptance::DryRun),
        Acceptance::DryRun => Some(Acceptance::Superseded(policy())),
        Acceptance::Superseded(_) => Some(Acceptance::ForeignNamespace(vec!["ENTRIES".to_owned()])),
        Acceptance::ForeignNamespace(_) => Some(Acceptance::OtherOperator),
        Acceptance::OtherOperator => Some(Acceptance::DirectoryNotMounted("DIRECTORY".to_owned())),
        Acceptance::DirectoryNotMounted(_) => Some(Acceptance::Invalid("ERROR".to_owned())),
        Acceptance::Invalid(_) => None,
    };
    std::iter::successors(Some(Acceptance::Accepted), next).collect()
}

/// One of each. A new one does not compile before it stands here.
fn results() -> Vec<RunResult> {
    let text = String::new;
    let next = |result: &RunResult| match result {
        RunResult::Done(_) => Some(RunResult::WouldDump),
        RunResult::WouldDump => Some(RunResult::Retrying(text())),
        RunResult::Retrying(_) => Some(RunResult::Failed(text())),
        RunResult::Failed(_) => Some(RunResult::InsufficientStorage(text())),
        RunResult::InsufficientStorage(_) => Some(RunResult::QuotaExceeded(text())),
        RunResult::QuotaExceeded(_) => Some(RunResult::MayBeFrozen(text())),
        RunResult::MayBeFrozen(_) => Some(RunResult::Skipped(SkipReason::Missed(1))),
        RunResult::Skipped(SkipReason::Missed(_)) => Some(RunResult::Skipped(SkipReason::PodEnded)),
        RunResult::Skipped(SkipReason::PodEnded) => Some(RunResult::Skipped(SkipReason::ScheduleChanged)),
        RunResult::Skipped(SkipReason::ScheduleChanged) => {
            Some(RunResult::Skipped(SkipReason::RequestWithdrawn))
        }
        RunResult::Skipped(SkipReason::RequestWithdrawn) => None,
    };
    std::iter::successors(Some(RunResult::Done(text())), next).collect()
}

fn when(result: &RunResult) -> &'static str {
    match result {
        RunResult::Done(_) => "a checkpoint was made",
        RunResult::WouldDump => "the schedule is a dry run, and would have made a checkpoint",
        RunResult::Retrying(_) => "a try failed, and there will be another one",
        RunResult::Failed(_) => "a checkpoint failed for good, with the words of the kubelet",
        RunResult::InsufficientStorage(_) => {
            "a checkpoint was not made, as the disk has too little room for it"
        }
        RunResult::QuotaExceeded(_) => {
            "a checkpoint was not made, as a quota has no room for it; with `onExceed: Warn` it is made all the same, and this \
             is on the pod only"
        }
        RunResult::MayBeFrozen(_) => {
            "the runtime went away in the middle of a checkpoint, and may have left the container frozen"
        }
        RunResult::Skipped(SkipReason::Missed(_)) => "due times passed, and nothing was done for them",
        RunResult::Skipped(SkipReason::PodEnded) => "the pod ended before its turn came",
        RunResult::Skipped(SkipReason::ScheduleChanged) => {
            "the schedule was deleted, suspended or changed before the turn came"
        }
        RunResult::Skipped(SkipReason::RequestWithdrawn) => "the annotation that asked was taken off",
    }
}

#[derive(PartialEq, Eq)]
struct Metric {
    name: String,
    kind: String,
    labels: String,
    help: String,
}

/// What a page of metrics describes, in its order.
fn metrics(page: &str) -> Vec<Metric> {
    let mut metrics: Vec<Metric> = Vec::new();
    for line in page.lines() {
        let mut words = line.splitn(4, ' ');
        let (Some(sign), Some(what), Some(name), rest) =
            (words.next(), words.next(), words.next(), words.next().unwrap_or_default())
        else {
            // A sample: which labels there are.
            if let (Some((name, labels)), Some(metric)) = (line.split_once('{'), metrics.last_mut()) {
                assert!(name.starts_with(metric.name.trim_end_matches("_total")), "{name} is not described");
                let names = labels.split(',').filter_map(|label| label.split_once('='));
                // Which bucket it is, is no label of a histogram's own.
                let names = names.filter(|(name, _)| *name != "le");
                let names: Vec<String> = names.map(|(name, _)| format!("`{name}`")).collect();
                if !names.is_empty() {
                    metric.labels = names.join(", ");
                }
            }
            continue;
        };
        assert_eq!(sign, "#", "{line}");
        match (what, metrics.last_mut()) {
            ("HELP", _) => {
                let help =
                    rest.strip_suffix('.').unwrap_or_else(|| panic!("{name} ends without a full stop"));
                assert!(!help.ends_with('.'), "{name} ends with two: the registry adds one of its own");
                metrics.push(Metric {
                    name: name.to_owned(),
                    kind: String::new(),
                    labels: "—".to_owned(),
                    help: help.to_owned(),
                });
            }
            ("TYPE", Some(metric)) => {
                // The samples of such a metric have this suffix, and queries use it, too.
                match rest {
                    "counter" => metric.name.push_str("_total"),
                    "info" => metric.name.push_str("_info"),
                    _ => {}
                }
                rest.clone_into(&mut metric.kind);
            }
            _ => {}
        }
    }
    assert!(metrics.iter().all(|metric| !metric.kind.is_empty()), "{page}");
    metrics
}

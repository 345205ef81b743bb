//! What is told of one plan, as data: a row for each archive, totals, and what else was noticed. `gc` prints it, and the
//! agent serves it.

mod explanation;
mod json;
mod node_report;
#[cfg(test)]
pub(crate) mod schema;

use std::collections::HashMap;

use jiff::Timestamp;
use serde::Serialize;

pub use self::explanation::{DryRunRow, Explanation, Figures, NextRow, NoSuchArchive, RuleRow, VerdictRow};
pub use self::json::{write_line, write_pretty};
pub use self::node_report::NodeReport;
use crate::archive::State;
use crate::creation::Creation;
use crate::engine::file::{Outcome, Removal};
use crate::name::FileName;
use crate::plan::{
    self, Action, Archive, Dated, Difference, Plan, Reason, Shortfall, Snapshot, Verdict, WatermarkReport,
};
use crate::policy::{Mode, PolicySet};

/// So many policies in dry-run mode are told of for a node: each takes a plan of its own.
const MOST_DRY_RUNS: usize = 8;

/// One pass over a directory: what became of each archive, and why.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The directory's path, as it was given.
    pub directory: String,
    /// The file system that the directory lies on; null where its size is not known.
    pub filesystem: Option<FileSystem>,
    /// Every archive: by namespace, pod and container, the newest first; those of unknown identity come last.
    pub archives: Vec<Row>,
    /// Sums over all archives.
    pub totals: Totals,
    /// What each policy whose mode is `DryRun` would change.
    pub dry_run_policies: Vec<DryRunPolicy>,
    /// What the storage watermark wanted to free and found; null where it wanted nothing.
    pub watermark: Option<Watermark>,
    /// The time that ages refer to.
    #[serde(skip)]
    pub now: Timestamp,
    #[serde(skip)]
    places: HashMap<FileName, usize>,
}

/// The size of a file system.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct FileSystem {
    /// Its size in bytes.
    pub total_bytes: u64,
    /// Bytes that ordinary processes may still use.
    pub free_bytes: u64,
}

/// One archive and what becomes of it.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The file's name in the directory. Bytes that are not UTF-8 are written as `\xff`.
    pub file: String,
    /// The same, safe for a terminal.
    #[serde(skip)]
    pub shown: String,
    /// The pod's namespace; null where it is not known whose checkpoint it is.
    pub namespace: Option<String>,
    /// The pod's name; null where that is not known.
    pub pod: Option<String>,
    /// The pod's UID; null where that is not known.
    pub pod_uid: Option<String>,
    /// The container's name; null where that is not known.
    pub container: Option<String>,
    /// The OCI runtime; null where the archive does not say.
    pub runtime: Option<String>,
    /// When the checkpoint was taken, by the first of these that is plausible: what the archive says, the file's
    /// name, its modification time; null where none is, and its age counts from when it was first seen.
    pub checkpointed_at: Option<Timestamp>,
    /// The file's size in bytes.
    pub size_bytes: u64,
    /// Whether a container could be restored from it (Complete), or what is wrong with it.
    #[cfg_attr(test, schemars(schema_with = "schema::names::<State>"))]
    pub state: State,
    /// Whether it stays or is to be deleted.
    #[cfg_attr(test, schemars(schema_with = "schema::names::<Action>"))]
    pub verdict: Action,
    /// Why it stays or is to be deleted.
    #[cfg_attr(test, schemars(schema_with = "schema::names::<Reason>"))]
    pub reason: Reason,
    /// The policy that gave the reason, as Kind/name or Kind/namespace/name; null where none did.
    pub policy: Option<String>,
    /// The same with its kind's short name, for tables.
    #[serde(skip)]
    pub short_policy: Option<String>,
    /// The figures behind the reason, and what is wrong with the archive.
    pub detail: String,
    /// Whether this run deleted it; false in a dry run.
    pub deleted: bool,
    /// The request that the checkpoint was made for; null where it was not made by a schedule, or that is not known any
    /// more.
    pub created_by: Option<CreatedBy>,
}

/// The request that a checkpoint was made for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct CreatedBy {
    /// The API group and version of the schedule.
    pub api_version: String,
    /// The schedule's name, in the namespace of the pod.
    pub schedule: String,
    /// What asked: Interval, Schedule, Annotation, …
    pub trigger: String,
    /// When the checkpoint was due.
    pub requested_at: Timestamp,
}

impl CreatedBy {
    /// The first of the requests that a dump served.
    fn of(creation: &Creation) -> Option<Self> {
        let request = creation.requests.first()?;
        Some(Self {
            api_version: request.api_version.clone(),
            schedule: request.name.clone(),
            trigger: request.trigger.clone(),
            requested_at: request.due,
        })
    }
}

/// Sums over all archives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Number of archives.
    pub archives: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// Number of archives that are to be deleted, or were.
    pub delete_archives: u64,
    /// The size of those in bytes.
    pub delete_bytes: u64,
    /// Number of things that went wrong, each of which was named on standard error.
    pub failures: u64,
}

/// What a policy in dry-run mode would change.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct DryRunPolicy {
    /// The policy, as Kind/name or Kind/namespace/name.
    pub policy: String,
    /// Files that it would delete and that stay now.
    pub would_delete: Vec<String>,
    /// Files that it would keep and that go now.
    pub would_keep: Vec<String>,
}

/// What the storage watermark wanted and found.
#[derive(Debug, Clone, Copy, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Watermark {
    /// Bytes that were to be freed.
    pub wanted_bytes: u64,
    /// Bytes that could be found to be freed.
    pub freed_bytes: u64,
    /// Inodes that were to be freed.
    pub wanted_inodes: u64,
    /// Inodes that could be found to be freed.
    pub freed_inodes: u64,
    /// Whether checkpoints use no more than is reserved for them, so that something else fills the disk.
    pub below_reserve: bool,
}

impl Watermark {
    /// What could not be found to be freed; none: all was found.
    pub fn shortfall(&self) -> Option<Shortfall> {
        let (bytes, inodes) =
            ((self.wanted_bytes, self.freed_bytes), (self.wanted_inodes, self.freed_inodes));
        Shortfall::new(bytes, inodes, self.below_reserve)
    }
}

impl Row {
    /// One archive, and what a plan says about it.
    pub fn new(archive: &Archive, verdict: &Verdict) -> Self {
        let identity = archive.identity.as_deref();
        let texts = archive.texts.as_deref();
        let problem = texts.and_then(|texts| texts.problem.as_deref());
        let figures = verdict.detail.to_string();
        let detail: Vec<&str> =
            [figures.as_str()].into_iter().filter(|text| !text.is_empty()).chain(problem).collect();
        Self {
            file: archive.file.to_json_text().into_owned(),
            shown: archive.file.to_string(),
            namespace: identity.map(|identity| identity.namespace.clone()),
            pod: identity.map(|identity| identity.pod.clone()),
            pod_uid: identity.and_then(|identity| identity.pod_uid.clone()),
            container: identity.map(|identity| identity.container.clone()),
            runtime: texts.and_then(|texts| texts.runtime.clone()),
            checkpointed_at: (archive.dated != Dated::Undated).then_some(archive.taken),
            size_bytes: archive.size,
            state: archive.state,
            verdict: verdict.action(),
            reason: verdict.reason,
            policy: verdict.policy.as_ref().map(ToString::to_string),
            short_policy: verdict.policy.as_ref().map(|policy| policy.short()),
            detail: detail.join("; "),
            deleted: false,
            created_by: archive.creation.as_deref().and_then(CreatedBy::of),
        }
    }
}

impl Report {
    /// Everything that a plan says about `directory`, before anything is done.
    pub fn new(directory: String, snapshot: &Snapshot, plan: &Plan, now: Timestamp) -> Self {
        let mut report = Self {
            directory,
            filesystem: FileSystem::of(snapshot),
            archives: Vec::new(),
            totals: Totals::default(),
            dry_run_policies: Vec::new(),
            watermark: plan.watermark.map(watermark),
            now,
            places: HashMap::new(),
        };
        report.totals = Totals::of(snapshot, plan);
        for place in in_order(snapshot) {
            let (Some(archive), Some(verdict)) = (snapshot.archives.get(place), plan.verdicts.get(place))
            else {
                continue;
            };
            report.places.insert(archive.file.clone(), report.archives.len());
            report.archives.push(Row::new(archive, verdict));
        }
        report
    }

    /// Adds what policies in dry-run mode would change.
    pub fn add_differences(&mut self, snapshot: &Snapshot, differences: &[(String, Difference)]) {
        self.dry_run_policies.extend(dry_run_policies(snapshot, differences));
    }

    /// Notes what became of a deletion.
    pub fn note(&mut self, outcome: &Outcome) {
        match outcome.removal {
            Removal::Removed => {
                if let Some(row) =
                    self.places.get(&outcome.deletion.archive.file).map(|place| &mut self.archives[*place])
                {
                    row.deleted = true;
                }
            }
            Removal::Failed(_) => self.totals.failures += 1,
            Removal::AlreadyGone
            | Removal::Pinned
            | Removal::InUse
            | Removal::Changed
            | Removal::DirectoryMoved
            | Removal::Withdrawn => {}
        }
    }
}

/// The places of archives in a snapshot: by container, newest first; what is of unknown identity comes last.
fn in_order(snapshot: &Snapshot) -> Vec<usize> {
    let mut order: Vec<usize> = (0..snapshot.archives.len()).collect();
    order.sort_by(|&one, &other| {
        let key = |place: usize| {
            let archive = &snapshot.archives[place];
            (
                archive.identity.is_none(),
                archive
                    .identity
                    .as_deref()
                    .map(|identity| (&identity.namespace, &identity.pod, &identity.container)),
            )
        };
        let (archive, beside) = (&snapshot.archives[one], &snapshot.archives[other]);
        key(one)
            .cmp(&key(other))
            .then_with(|| beside.taken.cmp(&archive.taken))
            .then_with(|| archive.file.cmp(&beside.file))
    });
    order
}

impl FileSystem {
    fn of(snapshot: &Snapshot) -> Option<Self> {
        let filesystem = snapshot.filesystem?;
        Some(Self { total_bytes: filesystem.total_bytes, free_bytes: filesystem.available_bytes })
    }
}

impl Totals {
    /// The sums of a plan.
    pub fn of(snapshot: &Snapshot, plan: &Plan) -> Self {
        let mut totals = Self::default();
        for (archive, verdict) in snapshot.archives.iter().zip(&plan.verdicts) {
            totals.archives += 1;
            totals.bytes = totals.bytes.saturating_add(archive.size);
            if verdict.action() == Action::Delete {
                totals.delete_archives += 1;
                totals.delete_bytes = totals.delete_bytes.saturating_add(archive.size);
            }
        }
        totals
    }
}

fn dry_run_policies(snapshot: &Snapshot, differences: &[(String, Difference)]) -> Vec<DryRunPolicy> {
    let files = |changes: &[(usize, Verdict)]| {
        let names = changes.iter().filter_map(|(place, _)| snapshot.archives.get(*place));
        names.map(|archive| archive.file.to_json_text().into_owned()).collect()
    };
    let row = |(policy, difference): &(String, Difference)| DryRunPolicy {
        policy: policy.clone(),
        would_delete: files(&difference.would_delete),
        would_keep: files(&difference.would_keep),
    };
    differences.iter().map(row).collect()
}

/// What each policy in dry-run mode would change, of so many at the most.
pub fn differences(
    snapshot: &Snapshot,
    policies: &PolicySet,
    now: Timestamp,
    plan: &Plan,
    most: usize,
) -> Vec<(String, Difference)> {
    let dry_runs = policies.retention.iter().filter(|policy| policy.mode == Mode::DryRun);
    let mut ids: Vec<_> = dry_runs.map(|policy| &policy.id).collect();
    // The parts of one object are shown as one policy.
    ids.dedup_by_key(|id| id.to_string());
    ids.into_iter()
        .take(most)
        .map(|id| (id.to_string(), plan::difference(snapshot, policies, now, plan, id)))
        .collect()
}

fn watermark(report: WatermarkReport) -> Watermark {
    Watermark {
        wanted_bytes: report.wanted_bytes,
        freed_bytes: report.freed_bytes,
        wanted_inodes: report.wanted_inodes,
        freed_inodes: report.freed_inodes,
        below_reserve: report.below_reserve,
    }
}

//! What would change on this node if other policies were applied.

use std::collections::BTreeSet;

use checkpoint_keeper_api::effective::{Acceptance, Objects, Scope, effective_policies};
use checkpoint_keeper_api::manifest::{self, ManifestError};
use checkpoint_keeper_core::engine::View;
use checkpoint_keeper_core::plan::{Dated, Plan, plan_in_the_end};
use checkpoint_keeper_core::policy::{Mode, PolicyRef, PolicySet};
use checkpoint_keeper_core::policy_lint::{self, NoEffect, Why};
use checkpoint_keeper_core::report::{Totals, VerdictRow};
use jiff::Timestamp;
use serde::Serialize;

/// What would change.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Preview {
    node: String,
    before: Totals,
    after: Totals,
    changes: Vec<Change>,
    problems: Vec<String>,
}

/// One archive whose verdict would change.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Change {
    file: String,
    namespace: Option<String>,
    pod: Option<String>,
    container: Option<String>,
    /// When the checkpoint was taken; null where no date of it can be.
    checkpointed_at: Option<Timestamp>,
    size_bytes: u64,
    before: VerdictRow,
    after: VerdictRow,
}

/// Manifests that are not understood.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Refused {
    error: String,
    /// Each as `line: object: field: what is wrong`, and its hint in a line of its own.
    errors: Vec<String>,
    details: Vec<Detail>,
}

/// One thing that is wrong with manifests.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Detail {
    line: u64,
    column: u64,
    document: usize,
    object: Option<String>,
    field: Option<String>,
    message: String,
    hint: Option<String>,
}

impl From<Vec<ManifestError>> for Refused {
    fn from(errors: Vec<ManifestError>) -> Self {
        Self {
            error: errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            errors: errors.iter().map(ToString::to_string).collect(),
            details: errors
                .into_iter()
                .map(|error| Detail {
                    line: error.line,
                    column: error.column,
                    document: error.document,
                    object: error.object,
                    field: error.field,
                    message: error.message,
                    hint: error.hint,
                })
                .collect(),
        }
    }
}

/// What would change if the objects in `manifests` were applied to `objects`, the ones there are.
///
/// Both plans are those of policies that have been in force for long: none waits for another one's handover, and the
/// deletion limit is left out.
pub(super) fn preview(
    node: &str,
    view: &View,
    objects: &Objects,
    scope: &Scope,
    manifests: &str,
) -> Result<Preview, Refused> {
    let View { snapshot, policies, made_at, .. } = view;
    let mut all = objects.clone();
    let (mut applied, mut problems) = (Vec::new(), Vec::new());
    // Without any, it shows what the objects that there are would do.
    if !manifests.trim().is_empty() {
        let loaded = manifest::load(&[("manifests", manifests)])?;
        applied = loaded.objects.refs();
        problems.extend(loaded.notes.iter().map(ToString::to_string));
        all.apply(loaded.objects);
    }
    let found = effective_policies(&all, scope);
    for id in &applied {
        if let Some((_, acceptance)) = found.acceptances.get(id) {
            problems.extend(problem(id, acceptance));
        }
    }
    // What schedules keep is no part of these kinds, and stays.
    let mut then = PolicySet { schedules: policies.schedules.clone(), ..found.policies };
    let is_applied = |id: &PolicyRef| applied.iter().any(|applied| applied.is_same_object(id));
    let retention = then.retention.iter_mut().filter(|policy| is_applied(&policy.id));
    retention.for_each(|policy| policy.mode = Mode::Enforce);
    let storage = then.storage.iter_mut().filter(|policy| is_applied(&policy.id));
    storage.for_each(|policy| policy.mode = Mode::Enforce);
    let concerns_applied = |found: &NoEffect| match &found.why {
        Why::Shadowed(first) => is_applied(&found.policy) || is_applied(first),
        _ => is_applied(&found.policy),
    };
    let without_effect = policy_lint::without_effect(&then);
    problems.extend(without_effect.into_iter().filter(concerns_applied).map(|found| found.to_string()));
    let before = plan_in_the_end(snapshot, policies, *made_at);
    let after = plan_in_the_end(snapshot, &then, *made_at);
    let unjudged: BTreeSet<_> = after.unjudged_storage.iter().collect();
    problems.extend(
        unjudged.into_iter().map(|id| format!("{id} selects nodes, and this node's labels are not known")),
    );
    Ok(Preview {
        node: node.to_owned(),
        before: Totals::of(snapshot, &before),
        after: Totals::of(snapshot, &after),
        changes: changes(view, &before, &after),
        problems,
    })
}

fn problem(id: &PolicyRef, acceptance: &Acceptance) -> Option<String> {
    match acceptance {
        Acceptance::Accepted => None,
        Acceptance::DryRun => Some(format!(
            "{id} has mode DryRun and would delete nothing; this shows what it would do if it were enforced"
        )),
        acceptance => Some(format!("{id}: {}", acceptance.message(id))),
    }
}

fn changes(view: &View, before: &Plan, after: &Plan) -> Vec<Change> {
    let verdicts = before.verdicts.iter().zip(&after.verdicts);
    let archives = view.snapshot.archives.iter().zip(verdicts);
    // The figures alone may differ by what else goes.
    let changed = archives
        .filter(|(_, (before, after))| (before.reason, &before.policy) != (after.reason, &after.policy));
    changed
        .map(|(archive, (before, after))| {
            let identity = archive.identity.as_deref();
            Change {
                file: archive.file.to_json_text().into_owned(),
                namespace: identity.map(|identity| identity.namespace.clone()),
                pod: identity.map(|identity| identity.pod.clone()),
                container: identity.map(|identity| identity.container.clone()),
                checkpointed_at: (archive.dated != Dated::Undated).then_some(archive.taken),
                size_bytes: archive.size,
                before: VerdictRow::new(before),
                after: VerdictRow::new(after),
            }
        })
        .collect()
}

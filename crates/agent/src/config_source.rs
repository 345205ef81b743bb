//! Where the engine's configuration comes from: the policies in force, how certain they are, and this node.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_api::effective::{Acceptance, EffectivePolicies, Scope, effective_policies};
use checkpoint_keeper_core::confidence::Certainty;
use checkpoint_keeper_core::engine::Haste;
use checkpoint_keeper_core::engine::config::EngineConfig;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::policy::{Confidence, Kind, PolicyRef, PolicySet};
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::mailbox::Sender;
use checkpoint_keeper_runtime::liveness::now;
use checkpoint_keeper_runtime::schedule_objects::ScheduleObjects;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::context::{ApiContext, TICK};
use super::problem_type::ProblemType;

/// What sends the engine its configuration.
pub(super) struct ConfigSource {
    pub(super) context: ApiContext,
    pub(super) scope: Scope,
    /// The schedules, which say what stays of the archives that they had made; none where no checkpoints are made.
    pub(super) schedules: Option<ScheduleObjects>,
    /// For how long policies may go unconfirmed until they pause.
    pub(super) staleness: Duration,
}

impl ConfigSource {
    /// Sends the engine what is in force, whenever that changes, for as long as it is polled. Before every kind was
    /// listed in full it is sent nothing, and so deletes nothing.
    pub(super) async fn run(&self, engine: &Sender) {
        let mut changes = self.context.objects.changes();
        let mut schedule_changes = self.schedules.as_ref().map(ScheduleObjects::changes);
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sent: Option<(EngineConfig, BTreeSet<PolicyRef>)> = None;
        let mut looked = None;
        let mut certainty = Certainty::new(self.staleness);
        let begin = now();
        let mut known: Option<Known> = None;
        loop {
            let settles = certainty.settles_at().map(|elapsed| begin + elapsed);
            let has_changed = tokio::select! {
                ended = changes.changed() => if ended.is_err() { return } else { true },
                () = changed(&mut schedule_changes) => false,
                () = sleep_until(settles.unwrap_or_else(now).into()), if settles.is_some() => false,
                _ = tick.tick() => false,
            };
            // Before the objects are read: what they say is then at least as new.
            let is_confirmed = self.context.objects.unconfirmed(now()).is_empty();
            let other_operator = self.context.objects.other_operator_runs();
            if has_changed || looked != Some(other_operator) {
                let Some(objects) = self.context.objects.all() else { continue };
                looked = Some(other_operator);
                let found = effective_policies(&objects, &Scope { other_operator, ..self.scope.clone() });
                self.context.cluster_watch.want_namespaces(selects_namespaces(&found.policies));
                known = Some(Known::of(found));
            }
            let Some(known) = &mut known else { continue };
            let schedules = self.schedules.as_ref();
            let schedules = schedules.map(|objects| objects.retention(now(), clock::now().wall));
            let schedules = schedules.unwrap_or_default();
            if known.policies.schedules != schedules {
                Arc::make_mut(&mut known.policies).schedules = schedules;
            }
            for (policy, why) in &known.invalid {
                self.context.state.problem(
                    ProblemType::PolicyInvalid,
                    policy.clone(),
                    format!("{policy}: {why}"),
                    now(),
                );
            }
            let own = self.context.own.now();
            let generation = own.store.as_ref().and_then(|store| store.metadata.generation);
            let discard = own.store.map(|store| store.spec.discard).unwrap_or_default();
            let discard = discard.iter().filter_map(|file| FileName::new(file.0.as_bytes())).collect();
            let next = EngineConfig {
                policies: Arc::clone(&known.policies),
                confidence: certainty.judge(
                    &known.policies,
                    is_confirmed,
                    now().saturating_duration_since(begin),
                ),
                policies_by_namespace: Arc::new(self.context.objects.policies_by_namespace()),
                node_labels: own.node.map(|(labels, _)| labels),
                discard: own.is_listed.then(|| Arc::new(discard)),
                reported_discards: own.reported_discards.unwrap_or_default(),
                discard_in_namespaces: own.discards,
            };
            self.context.own.note(|own| own.is_paused = next.confidence == Confidence::Paused);
            let haste = match &sent {
                Some((before, _)) if *before == next => None,
                Some((before, deferred)) if only_deferred(before, &next, deferred, &known.deferred) => {
                    Some(Haste::NextPlan)
                }
                Some(_) | None => Some(Haste::AtOnce),
            };
            if let Some(haste) = haste {
                engine.send_config(next.clone(), haste);
                sent = Some((next, known.deferred.clone()));
            }
            self.context.own.note(|own| own.sent = generation);
        }
    }
}

/// Waits for a change; for ever where there can be none.
async fn changed(changes: &mut Option<watch::Receiver<()>>) {
    if let Some(changes) = changes
        && changes.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// The most policies that are said not to be understood.
const MOST_INVALID: usize = 100;

/// What is in force, as it was last read.
struct Known {
    policies: Arc<PolicySet>,
    /// The objects whose changes may wait for the next plan.
    deferred: BTreeSet<PolicyRef>,
    /// The policies of the whole cluster that are not understood, and what follows.
    invalid: Vec<(String, String)>,
}

impl Known {
    fn of(found: EffectivePolicies) -> Self {
        // An invalid policy of one namespace is reported in its own status only, as it affects no other namespace.
        let is_ours = |id: &PolicyRef| {
            id.kind == Kind::CheckpointStoragePolicy
                || found
                    .policies
                    .invalid
                    .iter()
                    .any(|invalid| invalid.id == *id && invalid.namespace.is_none())
        };
        let invalid = found
            .acceptances
            .iter()
            .filter(|(_, (_, acceptance))| matches!(acceptance, Acceptance::Invalid(_)));
        let invalid = invalid.filter(|(id, _)| is_ours(id));
        let invalid = invalid.map(|(id, (_, acceptance))| (id.to_string(), acceptance.message(id)));
        Self {
            invalid: invalid.take(MOST_INVALID).collect(),
            policies: Arc::new(found.policies),
            deferred: found.deferred,
        }
    }
}

/// Whether a policy goes by the labels of namespaces.
fn selects_namespaces(policies: &PolicySet) -> bool {
    policies.retention.iter().any(|policy| policy.selector.needs_namespace_labels())
}

/// Whether nothing changed but what may wait: policies of objects whose author left it so.
fn only_deferred(
    before: &EngineConfig,
    next: &EngineConfig,
    deferred_before: &BTreeSet<PolicyRef>,
    deferred: &BTreeSet<PolicyRef>,
) -> bool {
    let may_wait = |id: &PolicyRef| {
        let whole = PolicyRef { part: None, ..id.clone() };
        deferred_before.contains(&whole) || deferred.contains(&whole)
    };
    let urgent = |policies: &PolicySet| {
        let retention = policies.retention.iter().filter(|policy| !may_wait(&policy.id)).cloned();
        let schedules = policies.schedules.clone();
        (retention.collect::<Vec<_>>(), schedules, policies.storage.clone(), policies.invalid.clone())
    };
    let certain = |config: &EngineConfig| match &config.confidence {
        Confidence::Current => Some(urgent(&config.policies)),
        Confidence::Stale { confirmed } => Some(urgent(confirmed)),
        Confidence::Paused => None,
    };
    urgent(&before.policies) == urgent(&next.policies)
        && certain(before) == certain(next)
        && before.node_labels == next.node_labels
        && before.discard == next.discard
        && before.discard_in_namespaces == next.discard_in_namespaces
}

//! When a plan is made, from what, and what follows from it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::Arc;

use super::clock::{Distrust, Now};
use super::config::EngineConfig;
use super::problem::Problem;
use super::{DeletionTiming, DiscardResults, Effect, Engine, Haste, View};
use crate::plan::{EffectiveStorage, FileSystem, Plan, Snapshot, plan_with};
use crate::pods::PodKey;
use crate::policy::{LabelSelector, PolicyRef, PolicySet};

/// How often orphans are confirmed where only one plan is carried out. With many lookups, the first answers are too
/// old by the time the last one arrives; orphans that are still unconfirmed after so many attempts stay.
pub(super) const MOST_CONFIRMATIONS: u32 = 3;

impl Engine {
    /// Uses this configuration from now on.
    pub(super) fn follow(&mut self, config: EngineConfig, haste: Haste) {
        self.has_news |= haste == Haste::AtOnce || self.config.is_none();
        if self.config.as_ref() == Some(&config) {
            return;
        }
        // What an earlier configuration wanted is judged by the present one.
        self.effects.push(Effect::Withdraw);
        self.has_news |= self.take_back();
        let none = BTreeSet::new();
        let before: Arc<BTreeMap<_, _>> =
            self.config.as_ref().map(|config| Arc::clone(&config.policies_by_namespace)).unwrap_or_default();
        if let Some(pod_index) = &mut self.pod_index {
            for (namespace, policies) in &*config.policies_by_namespace {
                if !policies.is_subset(before.get(namespace).unwrap_or(&none)) {
                    pod_index.invalidate_namespace(namespace);
                }
            }
        }
        // Also where an earlier configuration had no rule by time.
        if self.settings.cluster.is_some() && config.policies.goes_by_time() {
            self.clock.need_server();
        }
        self.config = Some(config);
    }

    /// Decides what to do next, after all inputs that had arrived were handed in.
    pub(super) fn decide(&mut self, now: Now) {
        // What has settled by now is read before anything is decided.
        let is_looking = self.is_here && self.look_at_settled(now);
        let is_carrying_out =
            self.settings.deletion_timing == DeletionTiming::WhenTold && self.deletions.is_in_flight();
        let mut has_news = self.has_news;
        if self.settings.deletion_timing == DeletionTiming::AtOnce {
            has_news |= self.deletions.is_stale(now) || self.deletions.is_done_with_provisional();
        }
        // Nothing is deleted in a directory that was moved away.
        has_news &= self.is_here && !is_carrying_out;
        if (has_news || !self.is_here) && self.settings.deletion_timing == DeletionTiming::AtOnce {
            // Judged again, by what is known now.
            self.take_back();
        }
        self.has_news = false;
        if has_news && (is_looking || self.is_reading) {
            // No plan is made before all archives are known.
            self.has_news = true;
            self.begin_deletions();
        } else if has_news && !self.is_planning {
            self.is_planning = true;
            let config = self.config.as_ref();
            let requested = config.and_then(|config| config.discard.as_deref());
            if let Some((config, requested)) = config.zip(requested) {
                self.discards.take_over(requested, &config.reported_discards);
            }
            let discards = self.discards.to_look_at(requested);
            if !discards.is_empty() {
                self.effects.push(Effect::Stat(discards));
            }
            self.effects.push(Effect::MeasureFileSystem);
        } else {
            self.begin_deletions();
        }
        self.publish_discards();
        self.persist();
    }

    fn publish_discards(&mut self) {
        let results = self.discards.results();
        if results.ne(self.published_discards.iter().map(|(name, result)| (name, *result))) {
            let results = self.discards.results().map(|(name, result)| (name.clone(), result));
            let results: DiscardResults = results.collect();
            self.published_discards.clone_from(&results);
            self.effects.push(Effect::PublishDiscards(results));
        }
    }

    /// Makes a plan, and has what is to go wait for its turn.
    pub(super) fn plan(&mut self, filesystem: io::Result<FileSystem>, now: Now) {
        self.is_planning = false;
        if !self.is_here {
            // It was moved away meanwhile: the sweep of whatever comes in its place plans anew.
            return;
        }
        if self.is_reading {
            // Something came meanwhile: of a part of the archives nothing is decided.
            self.has_news = true;
            return;
        }
        let Some(config) = self.config.clone() else {
            // What time it is can be asked all the same.
            self.ask();
            return;
        };
        // Before anything is judged: what is not known of the new ones is then known to be unknown.
        self.see_pods(&config.policies);
        self.deletions.is_provisional &= self.deletions.is_in_flight();
        let mut snapshot = self.snapshot(filesystem, config.node_labels.as_ref(), now);
        self.mark_discarded(&mut snapshot, &config.discard_in_namespaces);
        if let Some(limiter) = &mut self.limiter {
            let arrived = std::mem::take(&mut self.arrivals);
            let storage = &config.policies.storage;
            let storage = EffectiveStorage::new(storage, snapshot.node_labels.as_ref(), snapshot.filesystem);
            let archives = snapshot.archives.len() as u64;
            let limit = storage.deletion_limits.among(archives);
            snapshot.allowance = Some(limiter.allowance(limit, archives, arrived, now.uptime));
        }
        let wall = self.settings.plan_at.unwrap_or(now.wall);
        let plan = plan_with(&snapshot, &config.policies, &config.confidence, wall);
        if plan.watermark.is_some() && self.reclaim.failures() > 0 {
            self.report(Problem::WatermarkIneffective(self.reclaim.failures()));
        }
        if self.settings.deletion_timing == DeletionTiming::AtOnce {
            self.note_governing(&snapshot, &plan, now);
            self.note_selections(&snapshot, &plan, &config.policies);
            let deletions = self.mark_for_deletion(&snapshot, &plan, &config.policies);
            self.deletions.set(deletions, now);
            self.confirm(&snapshot, &plan, &config.policies, wall);
        } else if self.confirmations_left > 0
            && !self.is_asking
            && plan.unconfirmed_orphans(wall).next().is_some()
        {
            // The lookups of this round are sent once more.
            self.confirmations_left -= 1;
            self.is_new_round = true;
            self.see_pods(&config.policies);
            self.confirm(&snapshot, &plan, &config.policies, wall);
        }
        let view = Arc::new(View {
            snapshot,
            policies: Arc::clone(&config.policies),
            plan,
            confidence: config.confidence,
            made_at: wall,
        });
        if self.settings.deletion_timing == DeletionTiming::WhenTold {
            self.last_view = Some(Arc::clone(&view));
        }
        self.effects.push(Effect::Publish(view));
        self.publish_discards();
        if self.settings.deletion_timing == DeletionTiming::AtOnce {
            self.begin_deletions();
        }
        // The pods of new archives are looked up while they still exist.
        self.ask();
    }

    /// The archives and all that is known about them, at this moment.
    fn snapshot(
        &mut self,
        filesystem: io::Result<FileSystem>,
        node_labels: Option<&crate::policy::Labels>,
        now: Now,
    ) -> Snapshot {
        let clock = self.clock.judge(now);
        match self.clock.distrust(now) {
            // A server that does not answer is reported for the lookup itself.
            None | Some(Distrust::ServerUnheard) => {}
            Some(Distrust::ServerDiffers) => self.report(Problem::ServerClock),
            Some(Distrust::IsBehind) => self.report(Problem::ClockIsBehind),
            Some(Distrust::WasSet) => self.report(Problem::Clock),
        }
        self.date_undecided(now);
        let mut snapshot = Snapshot { clock, node_labels: node_labels.cloned(), ..Snapshot::default() };
        self.fill_archives(&mut snapshot, now);
        let is_deleting = !snapshot.being_deleted.is_empty();
        if let Some(pod_index) = &self.pod_index {
            pod_index.fill(&mut snapshot, now.wall);
        }
        if self.settings.deletion_timing == DeletionTiming::AtOnce {
            self.history.fill(&mut snapshot, now.uptime);
        }
        match filesystem {
            Ok(mut filesystem) => {
                filesystem.release =
                    self.reclaim.observe(filesystem.available_bytes, is_deleting, now.uptime);
                snapshot.filesystem = Some(filesystem);
            }
            Err(error) => self.report(Problem::FileSystem(error)),
        }
        snapshot
    }

    /// Notes by which of their labels overriding policies select pods.
    fn note_selections(&mut self, snapshot: &Snapshot, plan: &Plan, policies: &PolicySet) {
        let Some(pod_index) = &mut self.pod_index else { return };
        let overriding = policies.retention.iter().filter(|policy| policy.overrides());
        let selecting = overriding.filter(|policy| !policy.selector.pod_labels.0.is_empty());
        let selecting: HashMap<&PolicyRef, &LabelSelector> =
            selecting.map(|policy| (&policy.id, &policy.selector.pod_labels)).collect();
        if selecting.is_empty() {
            return;
        }
        for (place, archive) in snapshot.archives.iter().enumerate() {
            if let Some(policy) = plan.policy_of(place)
                && let Some(selector) = selecting.get(policy)
                && let Some(identity) = &archive.identity
                && let Some(labels) = archive.pod_labels.as_ref().filter(|labels| selector.matches(labels))
            {
                pod_index.remember_selection(&PodKey::of(identity), &policy.name, labels);
            }
        }
    }

    /// Notes which policies govern by a plan.
    fn note_governing(&mut self, snapshot: &Snapshot, plan: &Plan, now: Now) {
        let changes = self.history.note(snapshot, plan, now.uptime);
        if self.settings.remembers {
            self.governing_changes.extend(changes.forget.into_iter().map(|identity| (identity, None)));
            let remember = changes.remember.into_iter().map(|(identity, policy)| (identity, Some(policy)));
            self.governing_changes.extend(remember);
        }
    }
}

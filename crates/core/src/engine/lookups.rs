//! What the engine asks the cluster about the archives, and what it learns from the answers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::name::NameKind;
use crate::plan::{Clock, Plan, Snapshot};
use crate::pods::{Lookup, LookupResult, RequestBudget};
use crate::policy::{OrphanWhen, PolicyRef, PolicySet};
use jiff::Timestamp;

use super::cluster::{ClusterUpdate, Resolved, TimedUpdate};
use super::dating::taken_when;
use super::problem::Problem;
use super::{Effect, Engine};

impl Engine {
    /// Learns what a watch shows; asks, and plans anew, where that is about anything here.
    pub(super) fn learn_update(&mut self, shown: TimedUpdate) {
        let clock = self.clock.judge(shown.at);
        let Some(pod_index) = &mut self.pod_index else { return };
        let at = shown.at.wall;
        let concerns = match shown.what {
            ClusterUpdate::Pods(pods) => {
                pod_index.apply_pods(pods, at, clock);
                true
            }
            ClusterUpdate::Namespaces(namespaces) => pod_index.apply_namespaces(namespaces, at),
            ClusterUpdate::AllNamespaces(namespaces) => pod_index.apply_all_namespaces(namespaces, at),
            ClusterUpdate::NamespacesUnknown => {
                pod_index.invalidate_labels();
                true
            }
        };
        if concerns {
            self.has_news = true;
            self.ask();
        }
    }

    /// Has it asked whether the orphans still are orphans that a plan would delete if they were.
    pub(super) fn confirm(&mut self, snapshot: &Snapshot, plan: &Plan, policies: &PolicySet, now: Timestamp) {
        let Some(pod_index) = &mut self.pod_index else { return };
        let rules: BTreeMap<&PolicyRef, OrphanWhen> =
            policies.retention.iter().filter_map(|policy| Some((&policy.id, policy.orphans?.when))).collect();
        let unconfirmed = plan.unconfirmed_orphans(now).filter_map(|place| {
            let archive = &snapshot.archives[place];
            let policy = plan.verdicts[place].policy.as_deref()?;
            Some((archive.identity.as_deref()?, *rules.get(policy)?))
        });
        // By a clock that is not trusted nothing is confirmed.
        pod_index.confirm(unconfirmed.filter(|_| snapshot.clock == Clock::Trusted));
    }

    /// Notes what there is to ask about the pods of what is here; as a new round if it is time for one, unless the
    /// last one is still going on.
    pub(super) fn see_pods(&mut self, policies: &PolicySet) {
        let is_new_round = std::mem::take(&mut self.is_new_round) && !self.is_asking;
        self.index_pods(policies, is_new_round);
    }

    /// Asks what comes next, unless there are lookups yet to be answered.
    pub(super) fn ask(&mut self) {
        let Some(cluster) = self.settings.cluster.filter(|_| !self.is_asking) else { return };
        let lookups = self.lookups(cluster.budget);
        if !lookups.is_empty() {
            self.is_asking = true;
            self.effects.push(Effect::LookUp(lookups));
        }
    }

    fn index_pods(&mut self, policies: &PolicySet, is_new_round: bool) {
        let Some(pod_index) = &mut self.pod_index else { return };
        self.has_asked_time &= !is_new_round;
        let archives = || self.index.iter().filter(|(name, _)| name.kind() == NameKind::Kubelet);
        let all = archives().all(|(_, known)| known.read.as_ref().is_some_and(|read| !read.is_failure));
        let known = archives().filter_map(|(_, known)| {
            let read = known.read.as_ref()?;
            Some((read.identity.as_ref()?, taken_when(known, read)))
        });
        if is_new_round {
            pod_index.begin_round(known, all, policies);
        } else {
            pod_index.go_on(known, all, policies);
        }
    }

    /// What to ask next, within that budget; empty when the round is over, or no policy needs
    /// to know anything and the clock is known to be right or wrong.
    fn lookups(&mut self, budget: RequestBudget) -> Vec<Lookup> {
        let Some(pod_index) = &mut self.pod_index else { return Vec::new() };
        // What time it is comes first: it dates the archives, and so says which pods they may be of. Whatever the
        // answer is, it says that; and this one is to be asked at the start anyway.
        if self.clock.is_unheard() && !std::mem::replace(&mut self.has_asked_time, true) {
            return vec![Lookup::Cluster];
        }
        pod_index.lookups(budget)
    }

    /// Learns from answers, and asks what comes next.
    pub(super) fn learn_answers(&mut self, answers: Vec<Resolved>) {
        self.is_asking = false;
        let was_unheard = self.clock.is_unheard();
        let Some(pod_index) = &mut self.pod_index else { return };
        let mut problems = Vec::new();
        let mut is_nameless = false;
        let last = answers.last().map(|answer| answer.at);
        pod_index.fold(answers.into_iter().map(|Resolved { lookup, result, at, server_time }| {
            if let Some(time) = server_time {
                self.clock.hear(time, at);
            }
            let failure = result.failure();
            is_nameless |= lookup == Lookup::Cluster && result == LookupResult::NotFound;
            problems.extend(failure.map(|why| Problem::Unanswered(lookup.clone(), why.to_owned())));
            (lookup, result, at.wall, self.clock.judge(at))
        }));
        if is_nameless && !pod_index.knows_cluster() {
            let why = "it has no namespace kube-system, as the cluster had that was asked before".to_owned();
            problems.push(Problem::Unanswered(Lookup::Cluster, why));
        }
        // Whose time it was too early to decide about, it may be late enough for now.
        if let Some(now) = last {
            self.date_undecided(now);
        }
        self.effects.extend(problems.into_iter().map(Effect::Report));
        // Which pods the archives may be of may be known only now.
        if was_unheard
            && !self.clock.is_unheard()
            && let Some(config) = &self.config
        {
            let policies = Arc::clone(&config.policies);
            self.index_pods(&policies, false);
        }
        self.has_news = true;
        self.ask();
    }
}

//! What a collector asks a cluster about its archives, and what it learns from the answers.

use std::collections::BTreeMap;

use checkpoint_keeper_core::name::NameKind;
use checkpoint_keeper_core::plan::{Clock, Plan, Snapshot};
use checkpoint_keeper_core::pods::{Lookup, LookupResult, PodIndex, RequestBudget};
use checkpoint_keeper_core::policy::{OrphanWhen, PolicyRef, PolicySet};
use jiff::Timestamp;

use super::Collector;
use super::dating::taken_when;
use crate::cluster_updates::{ClusterUpdate, TimedUpdate};
use crate::problem::Problem;
use crate::resolver::Resolved;

impl Collector {
    /// There is a cluster to ask; what the catalog remembers of pods counts from here on.
    /// `knows_node`: whether it can be asked which pods run on this node.
    pub fn set_cluster(&mut self, knows_node: bool) {
        let mut pod_index = PodIndex::new(knows_node, std::mem::take(&mut self.remembered_pods));
        pod_index.remember_cluster(self.remembered_cluster.take());
        self.pod_index = Some(pod_index);
    }

    /// Each pod whose archive comes is asked about once, whatever the policies need now; and the clock is
    /// not believed before it was compared with the API server's.
    pub fn set_eager_lookups(&mut self) {
        self.clock.need_server();
        if let Some(pod_index) = &mut self.pod_index {
            pod_index.set_eager_lookups();
        }
    }

    /// Which pods run on this node is shown ([`Self::apply`]), and not asked.
    pub fn set_pods_watched(&mut self) {
        if let Some(pod_index) = &mut self.pod_index {
            pod_index.set_pods_watched();
        }
    }

    /// Learns from what is shown; says whether that is about anything here.
    pub fn apply(&mut self, shown: TimedUpdate) -> bool {
        let clock = self.clock.judge(shown.at);
        let Some(pod_index) = &mut self.pod_index else { return false };
        let at = shown.at.wall;
        match shown.what {
            ClusterUpdate::Pods(pods) => {
                pod_index.apply_pods(pods, at, clock);
                true
            }
            ClusterUpdate::Namespaces(namespaces) => pod_index.apply_namespaces(namespaces),
            ClusterUpdate::AllNamespaces(namespaces) => pod_index.apply_all_namespaces(namespaces),
            ClusterUpdate::NamespacesUnknown => {
                pod_index.invalidate_labels();
                true
            }
        }
    }

    /// Has it asked whether the orphans still are orphans that a plan would delete if they were.
    pub fn confirm(&mut self, snapshot: &Snapshot, plan: &Plan, policies: &PolicySet, now: Timestamp) {
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

    /// Policies came up in this namespace: it has to be asked about before they govern.
    pub fn invalidate_namespace(&mut self, namespace: &str) {
        if let Some(pod_index) = &mut self.pod_index {
            pod_index.invalidate_namespace(namespace);
        }
    }

    /// Begins a round of questions about the pods of what is here.
    pub fn begin_lookups(&mut self, policies: &PolicySet) {
        self.index_pods(policies, true);
    }

    /// Goes on with the round for what came since it was begun.
    pub fn go_on_with_lookups(&mut self, policies: &PolicySet) {
        self.index_pods(policies, false);
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
    pub fn lookups(&mut self, budget: RequestBudget) -> Vec<Lookup> {
        let Some(pod_index) = &mut self.pod_index else { return Vec::new() };
        let questions = pod_index.lookups(budget);
        if questions.is_empty()
            && self.clock.is_unheard()
            && !std::mem::replace(&mut self.has_asked_time, true)
        {
            // Whatever the answer is, it says what time it is; and this one is to be asked at the start anyway.
            return vec![Lookup::Cluster];
        }
        questions
    }

    /// Learns from answers, and says which were none, and what is wrong with archives by the time it
    /// turned out to be.
    pub fn learn(&mut self, answers: Vec<Resolved>) -> Vec<Problem> {
        let Some(pod_index) = &mut self.pod_index else { return Vec::new() };
        let mut problems = Vec::new();
        let mut is_nameless = false;
        let last = answers.last().map(|answer| answer.at);
        pod_index.fold(answers.into_iter().map(|Resolved { question, finding, at, server_time }| {
            if let Some(time) = server_time {
                self.clock.hear(time, at);
            }
            let failure = finding.failure();
            is_nameless |= question == Lookup::Cluster && finding == LookupResult::NotFound;
            problems.extend(failure.map(|why| Problem::Unanswered(question.clone(), why.to_owned())));
            (question, finding, at.wall, self.clock.judge(at))
        }));
        if is_nameless && !pod_index.knows_cluster() {
            let why = "it has no namespace kube-system, as the cluster had that was asked before".to_owned();
            problems.push(Problem::Unanswered(Lookup::Cluster, why));
        }
        // Whose time it was too early to decide about, it may be late enough for now.
        if let Some(now) = last {
            self.date_undecided(now);
        }
        problems
    }
}

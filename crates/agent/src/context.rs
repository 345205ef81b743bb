//! What every part of the agent needs that speaks with the API.

use std::time::{Duration, Instant};

use checkpoint_keeper_runtime::liveness::now;
use checkpoint_keeper_runtime::policy_objects::PolicyObjects;
use checkpoint_keeper_runtime::quota_objects::QuotaObjects;
use kube::Client;

use super::cluster_watch::ClusterWatch;
use super::own_objects::OwnObjects;
use super::problem_type::ProblemType;
use super::state::AgentState;

/// How often each part looks for what no watch tells it, such as the end of a time.
pub(super) const TICK: Duration = Duration::from_secs(5);

/// The client, and what is known of the cluster and of the engine's work; all parts share it.
#[derive(Clone)]
pub(super) struct ApiContext {
    pub(super) client: Client,
    /// The node's name.
    pub(super) node: String,
    pub(super) objects: PolicyObjects,
    pub(super) quotas: QuotaObjects,
    pub(super) own: OwnObjects,
    pub(super) cluster_watch: ClusterWatch,
    pub(super) state: AgentState,
}

impl ApiContext {
    /// What keeps the agent from its work.
    pub(super) fn not_ready_reasons(&self, now: Instant) -> Vec<String> {
        let gone = self.state.read(|observed| observed.gone.clone());
        gone.into_iter().chain(self.api_not_ready_reasons(now)).collect()
    }

    /// What of that is the API's.
    pub(super) fn api_not_ready_reasons(&self, now: Instant) -> Vec<String> {
        self.objects
            .not_ready_reasons(now)
            .into_iter()
            .chain(self.own.not_ready_reasons(now))
            .chain(self.cluster_watch.not_ready_reasons(now))
            .collect()
    }

    /// Notes why a watch fails, or that it does not.
    pub(super) fn note_watch(&self, kind: ProblemType, what: &str, why: Option<String>) {
        match why {
            Some(why) => self.problem(kind, format!("{what} cannot be watched: {why}")),
            None => self.state.problem_ended(kind),
        }
    }

    /// Notes that something is wrong.
    pub(super) fn problem(&self, kind: ProblemType, what: String) {
        self.state.problem(kind, String::new(), what, now());
    }
}

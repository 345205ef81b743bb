//! The configuration of the engine.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::discard::DiscardReport;
use crate::name::FileName;
use crate::plan::FileId;
use crate::policy::{Confidence, Labels, PolicySet};

/// The configuration of the engine: the policies, and what is known about them and about this node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineConfig {
    /// The policies.
    pub policies: Arc<PolicySet>,
    /// How certain it is that these policies are the current ones.
    pub confidence: Confidence,
    /// This node's labels, for storage policies that select nodes; none where they are not known.
    pub node_labels: Option<Labels>,
    /// The UIDs of the policy objects in each namespace. When a new one appears, the API is asked whether the
    /// namespace is still the one that the archives are from.
    pub policies_by_namespace: Arc<BTreeMap<String, BTreeSet<String>>>,
    /// Files whose deletion was requested in the node's `spec.discard`: of unknown identity, or of a namespace that is
    /// gone. None where it is not known whether there are any.
    pub discard: Option<Arc<BTreeSet<FileName>>>,
    /// What was last reported of such files by whoever collected here before. It is used once, with the first
    /// `discard` that is known, for requests that the catalog does not have, as it was lost.
    pub reported_discards: Arc<BTreeMap<FileName, DiscardReport>>,
    /// Archives whose deletion was requested in their namespace, each by the very file that was meant.
    pub discard_in_namespaces: Arc<BTreeMap<FileName, FileId>>,
}

impl EngineConfig {
    /// A configuration of these policies and nothing else.
    pub fn policies(policies: PolicySet) -> Self {
        Self { policies: Arc::new(policies), ..Self::default() }
    }
}

//! What the engine goes by.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::name::FileName;
use crate::policy::{Confidence, Labels, PolicySet};

/// Everything that the engine goes by.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineConfig {
    /// The policies.
    pub policies: Arc<PolicySet>,
    /// How certain it is that these are the policies of now.
    pub confidence: Confidence,
    /// This node's labels, for storage policies that select nodes; none where they are not known.
    pub node_labels: Option<Labels>,
    /// The UIDs of the objects in each namespace that say what may be deleted there. A new one is a
    /// reason to ask whether the namespace is still the one that the archives are from.
    pub governors: Arc<BTreeMap<String, BTreeSet<String>>>,
    /// Archives of unknown identity that somebody with the right to do so wants deleted; none where it is
    /// not known whether there are any.
    pub discard: Option<Arc<BTreeSet<FileName>>>,
}

impl EngineConfig {
    /// These policies, and nothing else.
    pub fn policies(policies: PolicySet) -> Self {
        Self { policies: Arc::new(policies), ..Self::default() }
    }
}

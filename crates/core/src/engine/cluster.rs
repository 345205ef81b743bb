//! What becomes known of the cluster: what watches show unasked, and the answers to look-ups.

use jiff::Timestamp;

use super::clock::Now;
use crate::pods::{LivePod, Lookup, LookupResult};

/// What is shown, as it was at some moment.
#[derive(Debug, Clone, PartialEq)]
pub struct TimedUpdate {
    /// When.
    pub at: Now,
    /// What.
    pub what: ClusterUpdate,
}

/// Something to see.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterUpdate {
    /// All pods that run on this node; none where that cannot be told.
    Pods(Option<Vec<LivePod>>),
    /// Namespaces that changed, or are no longer seen.
    Namespaces(Vec<(String, LookupResult)>),
    /// All namespaces that there are.
    AllNamespaces(Vec<(String, LookupResult)>),
    /// What was shown of namespaces need not be so any more.
    NamespacesUnknown,
}

/// What came of a lookup, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// What was asked.
    pub lookup: Lookup,
    /// What came of it.
    pub result: LookupResult,
    /// When.
    pub at: Now,
    /// What time it was by the clock of whoever answered.
    pub server_time: Option<Timestamp>,
}

impl Resolved {
    /// An answer that nobody gave, and why.
    pub fn failed(lookup: Lookup, why: impl Into<String>, at: Now) -> Self {
        Self { lookup, result: LookupResult::Failed(why.into()), at, server_time: None }
    }
}

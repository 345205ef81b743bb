//! Inputs about the cluster: updates from watches, and results of lookups.

use jiff::Timestamp;

use super::clock::Now;
use crate::pods::{LivePod, Lookup, LookupResult};

/// An update from a watch, with its time.
#[derive(Debug, Clone, PartialEq)]
pub struct TimedUpdate {
    /// When the watch delivered it.
    pub at: Now,
    /// The update.
    pub what: ClusterUpdate,
}

/// An update from a watch.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterUpdate {
    /// All pods that run on this node; none while the watch does not tell.
    Pods(Option<Vec<LivePod>>),
    /// Namespaces that changed or were deleted.
    Namespaces(Vec<(String, LookupResult)>),
    /// All namespaces of the cluster.
    AllNamespaces(Vec<(String, LookupResult)>),
    /// The watch of namespaces ended: their labels are unknown from now on.
    NamespacesUnknown,
}

/// A lookup with its result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The lookup.
    pub lookup: Lookup,
    /// Its result.
    pub result: LookupResult,
    /// When the result arrived.
    pub at: Now,
    /// The time by the API server's clock, from the answer's `Date` header.
    pub server_time: Option<Timestamp>,
}

impl Resolved {
    /// A lookup that was not answered, and why.
    pub fn failed(lookup: Lookup, why: impl Into<String>, at: Now) -> Self {
        Self { lookup, result: LookupResult::Failed(why.into()), at, server_time: None }
    }
}

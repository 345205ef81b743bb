//! What somebody who watches the cluster shows a collector, unasked.

use checkpoint_keeper_core::owners::{Finding, LivePod};

use crate::clock::Now;
use crate::line::{Line, Teller};

/// What is shown, as it was at some moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// When.
    pub at: Now,
    /// What.
    pub what: Sight,
}

/// Something to see.
#[derive(Debug, Clone, PartialEq)]
pub enum Sight {
    /// All pods that run on this node; none where that cannot be told.
    Pods(Option<Vec<LivePod>>),
    /// Namespaces that changed, or are no longer seen.
    Namespaces(Vec<(String, Finding)>),
    /// All namespaces that there are.
    AllNamespaces(Vec<(String, Finding)>),
    /// What was shown of namespaces need not be so any more.
    NamespacesUnknown,
}

/// The end that shows.
pub type ShownSender = Teller<Shown>;

/// The end that is shown.
pub type ShownLine = Line<Shown>;

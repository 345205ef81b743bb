//! What a watching collector goes by, and the line by which it is told anew at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::policy::{Confidence, Labels, PolicySet};

use crate::line::{Line, Teller};

/// What a collector goes by.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Orders {
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

impl Orders {
    /// These policies, and nothing else.
    pub fn policies(policies: PolicySet) -> Self {
        Self { policies: Arc::new(policies), ..Self::default() }
    }
}

/// The end that tells of orders.
#[derive(Debug, Clone)]
pub struct OrderSender(Teller<(Orders, bool)>);

/// The end that listens for orders.
#[derive(Debug)]
pub struct OrderLine(Line<(Orders, bool)>);

/// A line for orders.
pub fn line() -> std::io::Result<(OrderSender, OrderLine)> {
    let (teller, line) = crate::line::line()?;
    Ok((OrderSender(teller), OrderLine(line)))
}

impl OrderSender {
    /// Tells the collector to go by these from now on, and to act on it at once or when it next looks
    /// of its own accord.
    pub fn tell(&self, orders: Orders, at_once: bool) {
        self.0.tell((orders, at_once));
    }
}

impl OrderLine {
    /// The latest orders, if there are new ones, and whether any since the last call were urgent; does
    /// not wait.
    pub fn latest(&self) -> Option<(Orders, bool)> {
        self.0.told().reduce(|(_, earlier), (orders, at_once)| (orders, at_once || earlier))
    }
}

impl AsFd for OrderLine {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

//! What a collector at work goes by, and the mailbox through which it is configured anew at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::policy::{Confidence, Labels, PolicySet};

use crate::mailbox::{Receiver, Sender};

/// Everything that a collector goes by.
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

/// Sender of new configurations.
#[derive(Debug, Clone)]
pub struct ConfigSender(Sender<(EngineConfig, bool)>);

/// Receiver of new configurations.
#[derive(Debug)]
pub struct ConfigReceiver(Receiver<(EngineConfig, bool)>);

/// A mailbox for configurations.
pub fn channel() -> std::io::Result<(ConfigSender, ConfigReceiver)> {
    let (sender, receiver) = crate::mailbox::channel()?;
    Ok((ConfigSender(sender), ConfigReceiver(receiver)))
}

impl ConfigSender {
    /// Has the collector go by this from now on, and act on it at once or when it next looks of its
    /// own accord.
    pub fn send(&self, config: EngineConfig, at_once: bool) {
        self.0.send((config, at_once));
    }
}

impl ConfigReceiver {
    /// The latest configuration, if there are new ones, and whether any since the last call was urgent;
    /// does not wait.
    pub fn latest(&self) -> Option<(EngineConfig, bool)> {
        self.0.drain().reduce(|(_, earlier), (config, at_once)| (config, at_once || earlier))
    }
}

impl AsFd for ConfigReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

//! What a plan amounts to: the figures of status and metrics. Pure.

use std::collections::BTreeMap;

use checkpoint_keeper_core::archive::State;
use checkpoint_keeper_core::plan::{Plan, Reason, Snapshot, WatermarkReport};
use checkpoint_keeper_core::policy::{Mode, PolicyRef, PolicySet};

/// The figures of one plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Summary {
    /// How many archives there are.
    pub(super) archives: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// How many are pinned.
    pub(super) pinned: u64,
    /// How many were cut off.
    pub(super) incomplete: u64,
    /// How many cannot be read.
    pub(super) unreadable: u64,
    /// How many are of a container that is not known.
    pub(super) unknown: u64,
    /// How many there are of each verdict's reason.
    pub(super) verdicts: BTreeMap<Reason, u64>,
    /// What each namespace has: archives and bytes.
    pub(super) namespaces: BTreeMap<String, (u64, u64)>,
    /// What each policy governs.
    pub(super) policies: BTreeMap<PolicyRef, Share>,
    /// How many dry runs are left out, as what they would change was not reckoned yet.
    pub(super) unreckoned: u64,
    /// The file system's size and what is available, in bytes.
    pub(super) filesystem: Option<(u64, u64)>,
    /// What the watermark wanted and found.
    pub(super) watermark: Option<WatermarkReport>,
}

/// What one policy governs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) mode: Mode,
    pub(super) archives: u64,
    pub(super) bytes: u64,
    /// To go, and waiting; for a dry run, what more would go.
    pub(super) pending: u64,
    /// For a dry run, what would stay that goes.
    pub(super) spared: u64,
}

impl Summary {
    pub(super) fn of(snapshot: &Snapshot, policies: &PolicySet, plan: &Plan) -> Self {
        let mut summary = Self {
            filesystem: snapshot.filesystem.map(|disk| (disk.total_bytes, disk.available_bytes)),
            watermark: plan.watermark,
            ..Self::default()
        };
        for policy in &policies.retention {
            summary.policies.entry(whole(&policy.id)).or_default().mode = policy.mode;
        }
        for (archive, verdict) in snapshot.archives.iter().zip(&plan.verdicts) {
            summary.archives += 1;
            summary.bytes += archive.size;
            summary.pinned += u64::from(archive.pinned);
            match archive.state {
                State::Complete | State::Unread => {}
                State::NoImages | State::Incomplete | State::Damaged => summary.incomplete += 1,
                State::Unreadable | State::Foreign => summary.unreadable += 1,
            }
            *summary.verdicts.entry(verdict.reason).or_default() += 1;
            match &archive.identity {
                Some(identity) => {
                    let (archives, bytes) = summary.namespaces.entry(identity.namespace.clone()).or_default();
                    *archives += 1;
                    *bytes += archive.size;
                }
                None => summary.unknown += 1,
            }
            if let Some(share) = verdict.policy.as_ref().and_then(|id| summary.policies.get_mut(&whole(id))) {
                share.archives += 1;
                share.bytes += archive.size;
                share.pending += u64::from(verdict.reason == Reason::DeletionPending);
            }
        }
        summary
    }

    /// How many archives are to go and wait.
    pub(super) fn pending(&self) -> u64 {
        self.verdicts.get(&Reason::DeletionPending).copied().unwrap_or_default()
    }
}

/// The object, where a policy is one of its parts.
pub(super) fn whole(id: &PolicyRef) -> PolicyRef {
    PolicyRef { part: None, ..id.clone() }
}

//! The one decision: which archive stays and which goes, and why.
//!
//! [`plan`] is pure. What lies on the disk and what the cluster knows come in as a [`Snapshot`],
//! what people want as a [`PolicySet`], and out comes exactly one [`Verdict`] for every archive.
//! The rules run in a fixed order, each seeing what the earlier ones left; that order is the body
//! of [`plan`]. Each rule's arithmetic has a file of its own beside this one.

mod difference;
mod facts;
mod floor;
mod governing;
mod groups;
mod limits;
mod rules;
mod snapshot;
mod storage;
mod tiers;
mod verdict;
mod working;

use std::sync::Arc;

use jiff::Timestamp;

pub use difference::{Difference, difference};
pub use snapshot::{Absence, Absences, Archive, Clock, FileSystem, Namespace, Origin, Snapshot, Workload};
pub use storage::{EffectiveStorage, WatermarkReport};
pub use verdict::{Action, Detail, KeptBy, Level, Reason, Verdict};

use crate::policy::{PolicyRef, PolicySet};
use governing::Governors;
use groups::Cells;
use working::Working;

/// How long an incomplete archive must have been left alone before limits and the watermark may
/// take it. It guards a writer that stalls, as one does on a nearly full disk.
pub const QUIET: std::time::Duration = std::time::Duration::from_mins(10);

/// What is to be done about every archive, and what the storage rules could not reach.
#[derive(Debug, Clone)]
pub struct Plan {
    /// One verdict for each of the snapshot's archives, in the snapshot's order.
    pub verdicts: Vec<Verdict>,
    /// What the watermark wanted and found; none where the file system is below it.
    pub watermark: Option<WatermarkReport>,
    /// Storage policies whose `nodeSelector` could not be judged, as the node's labels are unknown.
    pub unjudged_storage: Vec<Arc<PolicyRef>>,
    /// How many deletions draw from the deletion bucket.
    pub metered_deletions: u64,
}

impl Plan {
    /// The places in the snapshot of the archives that are to be deleted.
    pub fn deletions(&self) -> impl Iterator<Item = usize> + '_ {
        let delete = |verdict: &Verdict| verdict.action() == Action::Delete;
        self.verdicts.iter().enumerate().filter(move |(_, verdict)| delete(verdict)).map(|(place, _)| place)
    }

    /// The places in the snapshot of the orphans whose grace period is over at `now`, and which stay only
    /// until the API confirms once more that they are orphans.
    pub fn unconfirmed_orphans(&self, now: Timestamp) -> impl Iterator<Item = usize> + '_ {
        let verdicts = self.verdicts.iter().enumerate();
        verdicts.filter(move |(_, verdict)| verdict.awaits_confirmation(now)).map(|(place, _)| place)
    }
}

/// Decides about every archive.
///
/// `now` is the wall clock. Where the snapshot says that it is not to be trusted, no rule by time
/// takes anything.
pub fn plan(snapshot: &Snapshot, policies: &PolicySet, now: Timestamp) -> Plan {
    let order = facts::order(snapshot);
    let governors = Governors::new(policies, &snapshot.namespaces);
    let cells = Cells::new(snapshot, &governors, &order);
    let node_labels = snapshot.node_labels.as_ref();
    let storage = EffectiveStorage::new(&policies.storage, node_labels, snapshot.filesystem);
    let mut working = Working::new((snapshot, order), storage, &governors, &cells, now);
    working.protect();
    working.discard();
    working.take_orphans();
    working.take_incomplete();
    working.take_oversized();
    // From here on the newest of each lineage stay.
    working.raise_floor();
    working.take_by_tiers();
    working.take_by_age();
    for level in Level::ALL {
        working.take_by_count(level);
    }
    for level in Level::ALL {
        working.take_by_total_size(level);
    }
    working.take_by_storage_limits();
    working.renew_floor();
    working.draw_from_bucket();
    let watermark = working.take_by_watermark();
    working.finish(watermark)
}

//! The one decision: which archive stays and which goes, and why.
//!
//! [`plan`] is pure. What lies on the disk and what the cluster knows come in as a [`Snapshot`],
//! what people want as a [`PolicySet`], and out comes exactly one [`Verdict`] for every archive.
//! The rules run in a fixed order, each seeing what the earlier ones left; that order is the body
//! of [`plan`]. Each rule's arithmetic has a file of its own beside this one.

mod deletion_draw;
mod deletion_limits;
mod difference;
mod effective_storage;
mod expirations;
mod explain;
mod facts;
mod floor;
mod governing;
mod groups;
mod judgement;
mod limits;
mod planner;
mod rules;
mod schedules;
mod snapshot;
mod storage;
mod tiers;
mod verdict;

use std::sync::Arc;

use jiff::Timestamp;

pub use deletion_limits::DeletionLimits;
pub use difference::{Difference, Effect, Tried, difference, tried};
pub use effective_storage::{EffectiveStorage, Shortfall, WatermarkReport};
pub use expirations::{Expiration, expirations};
pub use explain::{Explanation, Next, explain};
pub(crate) use governing::precedence;
pub use judgement::{Because, Judgement, Outcome, Rule, Saw};
pub use snapshot::{
    Absence, Absences, Allowance, Archive, Clock, Dated, Draw, FileId, FileSystem, Home, Namespace, Origin,
    Release, Snapshot, Workload,
};
pub(crate) use verdict::seconds;
pub use verdict::{Action, Detail, KeptBy, Level, Reason, Verdict};

use crate::policy::{Confidence, PolicyRef, PolicySet};
use governing::PolicyIndex;
use groups::Groups;
use judgement::Watch;
use planner::Planner;

/// How long an archive that is not whole must have been left alone before limits and the watermark may
/// take it. It guards a writer that stalls, as one does on a nearly full disk.
pub const QUIET: std::time::Duration = std::time::Duration::from_mins(10);

/// What is to be done about every archive, and what the storage rules could not reach.
#[derive(Debug, Clone)]
pub struct Plan {
    /// One verdict for each of the snapshot's archives, in the snapshot's order.
    pub verdicts: Vec<Verdict>,
    /// Which policy governs each of them, in the same order.
    pub governed: Vec<Governed>,
    /// What pays for the deletion of each of them, in the same order.
    pub draws: Vec<Draw>,
    /// What the watermark wanted and found; none where the file system is below it.
    pub watermark: Option<WatermarkReport>,
    /// The limits that pinned archives make unreachable.
    pub unreachable: Vec<Unreachable>,
    /// Storage policies whose `nodeSelector` could not be judged, as the node's labels are unknown.
    pub unjudged_storage: Vec<Arc<PolicyRef>>,
}

/// What governs an archive, whatever its verdict says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Governed {
    /// No policy.
    #[default]
    NoPolicy,
    /// This policy.
    By(Arc<PolicyRef>),
    /// This policy, after [`HANDOVER`](crate::handover::HANDOVER) from another one.
    SoonBy(Arc<PolicyRef>),
    /// Uncertain: a lookup or a policy that does not parse could change it.
    Uncertain,
}

/// A limit that is not kept, as too much of what counts is pinned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    /// The policy that has the limit.
    pub policy: Arc<PolicyRef>,
    /// The limit, by the reason for which it takes archives.
    pub limit: Reason,
    /// What there is, and what may be.
    pub detail: Detail,
    /// The places in the snapshot of the pinned archives.
    pub pinned: Vec<usize>,
}

impl Plan {
    /// The policy that governs the archive at that place in the snapshot, whatever its verdict says.
    pub fn policy_of(&self, place: usize) -> Option<&PolicyRef> {
        match self.governed.get(place)? {
            Governed::By(policy) | Governed::SoonBy(policy) => Some(policy),
            Governed::NoPolicy | Governed::Uncertain => None,
        }
    }

    /// How many deletions draw from the policies' bucket, or from what arrivals brought along.
    pub fn metered_deletions(&self) -> u64 {
        let is_metered = |draw: &&Draw| matches!(draw, Draw::Shared | Draw::Arrival);
        self.draws.iter().filter(is_metered).count() as u64
    }

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

/// Decides about every archive, by policies that are certain to be those of now.
///
/// `now` is the wall clock. Where the snapshot says that it is not to be trusted, no rule by time
/// takes anything, and what is dated ahead of it is not compared with the rest.
pub fn plan(snapshot: &Snapshot, policies: &PolicySet, now: Timestamp) -> Plan {
    plan_with(snapshot, policies, &Confidence::Current, now)
}

/// Decides about every archive, by policies of which it may not be certain that they are those of now.
pub fn plan_with(snapshot: &Snapshot, policies: &PolicySet, confidence: &Confidence, now: Timestamp) -> Plan {
    plan_watching(snapshot, policies, confidence, now, Look::default()).0
}

/// The plan of policies that have been in force for long: none waits to take over from another one, and all that is to
/// go goes at once, whatever the deletion limit says.
pub fn plan_in_the_end(snapshot: &Snapshot, policies: &PolicySet, now: Timestamp) -> Plan {
    let look = Look { is_in_the_end: true, ..Look::default() };
    plan_watching(snapshot, policies, &Confidence::Current, now, look).0
}

/// What is wanted of a plan besides.
#[derive(Debug, Clone, Copy, Default)]
struct Look {
    /// The place in the snapshot of the archive of which rules note what they see.
    watched: Option<usize>,
    /// Whether nothing waits for its turn.
    is_in_the_end: bool,
}

/// The same, with what each rule says of the archive that is watched.
fn plan_watching(
    snapshot: &Snapshot,
    policies: &PolicySet,
    confidence: &Confidence,
    now: Timestamp,
    look: Look,
) -> (Plan, Vec<Judgement>) {
    let order = facts::order(snapshot);
    let confirmed = match confidence {
        Confidence::Stale { confirmed } => Some(wanted_gone(snapshot, confirmed, order.clone(), now)),
        Confidence::Current | Confidence::Paused => None,
    };
    let mut policy_index = PolicyIndex::new(policies, &snapshot.namespaces);
    policy_index.is_handover_over = look.is_in_the_end;
    let groups = Groups::new(snapshot, &policy_index, &order);
    let storage = effective_storage(snapshot, policies);
    let watched = look.watched.and_then(|watched| order.iter().position(|&place| place == watched));
    let mut planner = Planner::new((snapshot, order), storage, &policy_index, &groups, now);
    planner.watch = watched.map(|place| Box::new(Watch::new(place)));
    if look.is_in_the_end {
        planner.allowance = None;
    }
    take_by_retention(&mut planner, policies);
    planner.begin(Rule::Confidence);
    match (confidence, confirmed) {
        (Confidence::Current, _) => {}
        (Confidence::Stale { .. }, Some(wanted)) => planner.keep_unless(|place| wanted[place]),
        (Confidence::Stale { .. } | Confidence::Paused, _) => planner.keep_unless(|_| false),
    }
    planner.take_by_storage_limits();
    planner.draw_from_bucket();
    let watermark = planner.take_by_watermark();
    let judgements = planner.judgements();
    (planner.finish(watermark), judgements)
}

fn effective_storage(snapshot: &Snapshot, policies: &PolicySet) -> EffectiveStorage {
    EffectiveStorage::new(&policies.storage, snapshot.node_labels.as_ref(), snapshot.filesystem)
}

/// Which archives retention policies would have gone, by their places in the plan's order.
fn wanted_gone(snapshot: &Snapshot, policies: &PolicySet, order: Vec<usize>, now: Timestamp) -> Vec<bool> {
    let policy_index = PolicyIndex::new(policies, &snapshot.namespaces);
    let groups = Groups::new(snapshot, &policy_index, &order);
    let storage = effective_storage(snapshot, policies);
    let mut planner = Planner::new((snapshot, order), storage, &policy_index, &groups, now);
    take_by_retention(&mut planner, policies);
    let mut wanted = vec![false; planner.archives.len()];
    planner.taken_by_rules().for_each(|place| wanted[place] = true);
    wanted
}

/// The rules of retention policies and schedules, in their order.
fn take_by_retention(planner: &mut Planner<'_>, policies: &PolicySet) {
    planner.watch_governing();
    planner.begin(Rule::Protection);
    planner.protect();
    planner.begin(Rule::Taking(Reason::Discarded));
    planner.discard();
    planner.begin(Rule::Taking(Reason::FailedDump));
    planner.take_failed_dumps();
    planner.begin(Rule::Taking(Reason::Orphaned));
    planner.take_orphans();
    planner.take_broken();
    planner.begin(Rule::Taking(Reason::MaxArchiveSize));
    planner.take_oversized();
    // From here on the newest of each lineage stay.
    planner.raise_floor();
    planner.begin(Rule::Taking(Reason::ScheduleRetention));
    planner.take_replaced(&policies.schedules);
    planner.renew_floor();
    planner.begin(Rule::Taking(Reason::Tiers));
    planner.take_by_tiers();
    planner.begin(Rule::Taking(Reason::MaxAge));
    planner.take_by_age();
    planner.take_by_limits();
}

//! The archives in the plan's order, each with what the rules ask of it.
//!
//! Rules go over all archives again and again. What they ask lies close together here and in the
//! order in which they go, as looking it up all over a large snapshot is what a plan would spend
//! most of its time on.

use jiff::Timestamp;

use super::QUIET;
use super::snapshot::{Archive, Clock, Dated, Snapshot};
use super::verdict::{Detail, Reason};
use crate::archive::State;
use crate::name::NameKind;

/// What all rules ask of an archive. What only a few ask of few, they look up in the snapshot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    pub(super) taken: Timestamp,
    pub(super) dated: Dated,
    pub(super) size: u64,
    pub(super) allocated: u64,
    pub(super) state: State,
    pub(super) pinned: bool,
    pub(super) settled: bool,
    /// Whether it is whole, or has not changed for so long that no process can still be writing it.
    pub(super) is_whole_or_quiet: bool,
    pub(super) discarded: bool,
    pub(super) undeletable: bool,
    pub(super) has_identity: bool,
    /// Whether the kubelet names archives like this.
    pub(super) is_kubelets: bool,
    /// Whether it is what a dump left that this program asked for and that failed for certain.
    pub(super) is_of_failed_dump: bool,
}

impl Facts {
    /// `quiet_since`: what changed later than this may still be being written.
    fn of(archive: &Archive, quiet_since: Option<Timestamp>) -> Self {
        let is_quiet = quiet_since.is_some_and(|since| archive.changed <= since);
        Self {
            taken: archive.taken,
            dated: archive.dated,
            size: archive.size,
            allocated: archive.allocated,
            state: archive.state,
            pinned: archive.pinned,
            settled: archive.settled,
            is_whole_or_quiet: archive.state.is_whole() || is_quiet,
            discarded: archive.discarded,
            undeletable: archive.undeletable,
            has_identity: archive.identity.is_some(),
            is_kubelets: archive.file.kind() == NameKind::Kubelet,
            is_of_failed_dump: archive.state == State::Incomplete
                && archive.creation.as_ref().is_some_and(|creation| creation.is_failed),
        }
    }

    /// Why an archive is not judged at all: it may still be being written, it is not the kubelet's, or its pod is
    /// not known.
    pub(super) fn unjudgeable(&self) -> Option<(Reason, Detail)> {
        if !self.settled {
            Some((Reason::Settling, Detail::None))
        } else if !self.is_kubelets && self.has_identity {
            Some((Reason::NoPolicy, Detail::ForeignName))
        } else if !self.is_kubelets || self.is_unknown() {
            Some((Reason::UnknownIdentity, Detail::None))
        } else {
            None
        }
    }

    /// A whole archive without an identity, or one that is not understood at all. What is cut off or damaged is
    /// different: it has lost its end, where its identity would be.
    fn is_unknown(&self) -> bool {
        match self.state {
            State::Complete | State::NoImages => !self.has_identity,
            State::Incomplete | State::Damaged => false,
            State::Unreadable | State::Foreign | State::Unread => true,
        }
    }
}

/// The archives' places in the snapshot, oldest first; of equal times by what they claim themselves, and then
/// in byte order of the file name.
pub(super) fn order(snapshot: &Snapshot) -> Vec<usize> {
    let archives = &snapshot.archives;
    let time = |archive: &Archive| (archive.taken.as_second(), archive.taken.subsec_nanosecond());
    let mut order: Vec<_> =
        archives.iter().enumerate().map(|(place, archive)| (time(archive), place)).collect();
    // First by numbers alone, as names lie all over the memory and few times are equal.
    order.sort_unstable();
    for same_time in order.chunk_by_mut(|(one, _), (other, _)| one == other) {
        same_time.sort_unstable_by_key(|(_, place)| (archives[*place].claimed, &archives[*place].file));
    }
    order.into_iter().map(|(_, place)| place).collect()
}

/// What the rules ask of each archive, in that order.
pub(super) fn facts(snapshot: &Snapshot, order: &[usize], now: Timestamp) -> Vec<Facts> {
    // By a clock that is not to be trusted, nothing is known to be quiet.
    let trusted = snapshot.clock == Clock::Trusted;
    let quiet_since = trusted.then(|| now.checked_sub(QUIET).unwrap_or(Timestamp::MIN));
    // First as they lie in memory, then in order: what is put in order is small.
    let by_snapshot_order: Vec<Facts> =
        snapshot.archives.iter().map(|archive| Facts::of(archive, quiet_since)).collect();
    order.iter().map(|&place| by_snapshot_order[place]).collect()
}

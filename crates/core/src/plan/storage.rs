//! What checkpoints may use on a node: ceilings that bind whatever policies say, and the watermark.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::limits::Measure;
use super::snapshot::FileSystem;
use super::verdict::{Detail, Reason};
use super::working::{By, Working};
use crate::archive::State;
use crate::policy::{DeletionLimit, Labels, PolicyRef, StoragePolicy};
use crate::quantity::Share;

/// Use by checkpoints below which the watermark takes nothing, where no policy says otherwise.
const DEFAULT_RESERVED: Option<Share> = Share::percent(5);

/// How far below the high watermark the low one lies where no policy says otherwise, in percent.
const DEFAULT_HYSTERESIS: u32 = 3;

/// A value and the policy that asked for it.
type Asked<T> = Option<(T, PolicyRef)>;

/// All storage policies of this node as one: the strictest value of each field.
#[derive(Debug, Clone, Default)]
pub struct EffectiveStorage {
    /// Use of the file system above which archives go.
    pub high_watermark: Asked<Share>,
    /// Use of the file system at which that ends.
    pub low_watermark: Asked<Share>,
    /// Free bytes below which archives go.
    pub min_free_bytes: Asked<u64>,
    /// Free inodes below which archives go.
    pub min_free_inodes: Asked<u64>,
    /// Use by checkpoints below which the watermark takes nothing.
    pub reserved: Asked<Share>,
    /// Bytes that all archives may have together.
    pub max_total_size: Asked<u64>,
    /// Archives that a namespace may have.
    pub namespace_count: Asked<u64>,
    /// Bytes that a namespace's archives may have together.
    pub namespace_size: Asked<u64>,
    /// How old an archive may be.
    pub namespace_age: Asked<Duration>,
    /// How fast policies may delete.
    pub deletion_limit: DeletionLimit,
    /// Policies that say nothing here, as the node's labels are not known.
    pub unjudged: Vec<PolicyRef>,
}

impl EffectiveStorage {
    /// Combines the policies whose `nodeSelector` matches.
    pub fn new(policies: &[StoragePolicy], node: Option<&Labels>, filesystem: Option<FileSystem>) -> Self {
        let mut storage = Self::default();
        let mut deletion_limits = Vec::new();
        let mut sorted: Vec<&StoragePolicy> = policies.iter().collect();
        sorted.sort_by_key(|policy| &policy.id);
        let total = filesystem.map(|filesystem| filesystem.total_bytes);
        for policy in sorted {
            if !policy.node_selector.0.is_empty() {
                match node {
                    None => {
                        storage.unjudged.push(policy.id.clone());
                        // Everything else only ever takes more: this may be what holds others back.
                        deletion_limits.extend(policy.deletion_limit);
                        continue;
                    }
                    Some(labels) if !policy.node_selector.matches(labels) => continue,
                    Some(_) => {}
                }
            }
            let id = &policy.id;
            let ceiling = &policy.per_namespace;
            let bytes = |size: crate::policy::Size| size.bytes(total);
            // 0 is off, and so never the strictest; but no reserve is stricter than any.
            let on = |share: &Share| !share.is_zero();
            let some = |amount: &u64| *amount > 0;
            least(&mut storage.high_watermark, policy.high_watermark.filter(on), id);
            least(&mut storage.low_watermark, policy.low_watermark.filter(on), id);
            most(&mut storage.min_free_bytes, policy.min_free_bytes, id);
            most(&mut storage.min_free_inodes, policy.min_free_inodes, id);
            least(&mut storage.reserved, policy.reserved, id);
            least(&mut storage.max_total_size, policy.max_total_size.and_then(bytes).filter(some), id);
            least(&mut storage.namespace_count, ceiling.limit.max_count.filter(some), id);
            least(&mut storage.namespace_size, ceiling.limit.max_total_size.and_then(bytes).filter(some), id);
            least(&mut storage.namespace_age, ceiling.max_age.filter(|age| !age.is_zero()), id);
            deletion_limits.extend(policy.deletion_limit);
        }
        if let Some(limit) = deletion_limits.into_iter().reduce(slowest) {
            storage.deletion_limit = limit;
        }
        storage
    }

    /// The use at which the watermark stops.
    fn low(&self) -> Option<Share> {
        let (high, _) = self.high_watermark.as_ref()?;
        let asked = self.low_watermark.as_ref().map(|(low, _)| *low);
        Some(asked.unwrap_or_else(|| high.minus_percent(DEFAULT_HYSTERESIS)).min(*high))
    }
}

fn least<T: Ord + Copy>(strictest: &mut Asked<T>, asked: Option<T>, id: &PolicyRef) {
    if let Some(asked) = asked
        && strictest.as_ref().is_none_or(|(value, _)| asked < *value)
    {
        *strictest = Some((asked, id.clone()));
    }
}

fn most<T: Ord + Copy + Default>(strictest: &mut Asked<T>, asked: Option<T>, id: &PolicyRef) {
    if let Some(asked) = asked.filter(|asked| *asked > T::default())
        && strictest.as_ref().is_none_or(|(value, _)| asked > *value)
    {
        *strictest = Some((asked, id.clone()));
    }
}

fn slowest(one: DeletionLimit, other: DeletionLimit) -> DeletionLimit {
    DeletionLimit {
        burst: one.burst.min(other.burst),
        percent: one.percent.min(other.percent),
        period: one.period.max(other.period),
    }
}

/// What the watermark wanted and found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WatermarkReport {
    /// The file system's use when it was asked, in hundredths of a percent.
    pub used: u32,
    /// Bytes to be freed.
    pub wanted_bytes: u64,
    /// Bytes that this plan's watermark deletions free.
    pub freed_bytes: u64,
    /// Inodes to be freed.
    pub wanted_inodes: u64,
    /// Archives that the watermark takes.
    pub freed_inodes: u64,
    /// Whether it waits for the file system to show what was deleted before.
    pub waiting: bool,
    /// Whether checkpoints use no more than is reserved for them: somebody else fills the disk.
    pub below_reserve: bool,
}

impl WatermarkReport {
    /// Whether this round frees as much as is wanted.
    pub fn is_satisfied(&self) -> bool {
        self.freed_bytes >= self.wanted_bytes && self.freed_inodes >= self.wanted_inodes
    }
}

/// The watermark's round: what is wanted still, and what may be taken.
struct Round {
    report: WatermarkReport,
    /// Bytes that checkpoints may lose before only the reserve is left.
    above_reserve: u64,
}

impl Round {
    fn goes_on(&self) -> bool {
        !self.report.is_satisfied() && self.report.freed_bytes < self.above_reserve
    }
}

impl Working<'_> {
    /// Ceilings for each namespace, then the node's total. What counts here is what lies there,
    /// whoever governs it; the newest one of what is limited always stays.
    pub(super) fn take_by_storage_limits(&mut self) {
        let storage = self.storage.clone();
        let cells = self.cells;
        if let Some((limit, id)) = &storage.namespace_age {
            let by = self.by(id);
            for place in cells.namespaces().flatten() {
                self.take_ceiling_age(*place, *limit, by);
            }
        }
        let ceilings =
            [(Measure::Count, storage.namespace_count), (Measure::TotalSize, storage.namespace_size)];
        for (measure, ceiling) in ceilings {
            let Some((limit, id)) = ceiling else { continue };
            self.renew_floor();
            let by = self.by(&id);
            for namespace in cells.namespaces() {
                self.limit(namespace, measure, limit, 1, (Reason::NamespaceCeiling, by));
            }
        }
        if let Some((limit, id)) = storage.max_total_size {
            self.renew_floor();
            let by = self.by(&id);
            let all: Vec<usize> = (0..self.archives.len()).collect();
            self.limit(&all, Measure::TotalSize, limit, 1, (Reason::StorageWatermark, by));
        }
    }

    /// Frees space while the file system is too full: what was cut off first, then orphans, then
    /// the oldest of whichever namespace uses most, again and again.
    pub(super) fn take_by_watermark(&mut self) -> Option<WatermarkReport> {
        let filesystem = self.snapshot.filesystem.filter(|filesystem| filesystem.total_bytes > 0)?;
        let (mut round, id) = self.begin_round(filesystem)?;
        if round.report.waiting || round.report.below_reserve {
            return Some(round.report);
        }
        let by = self.by(&id);
        let detail = Detail::DiskUse(round.report.used);
        for kind in [Self::is_cut_off, Self::is_orphan] {
            for place in 0..self.archives.len() {
                if round.goes_on()
                    && self.watermark_may_take(place)
                    && self.frees_something(place, &round)
                    && !self.floor[place]
                    && kind(self, place)
                {
                    self.take_for_space(place, by, detail, &mut round);
                }
            }
        }
        self.take_from_the_largest(&mut round, by, detail);
        Some(round.report)
    }

    /// Takes the oldest of the namespace that uses most, again and again.
    fn take_from_the_largest(&mut self, round: &mut Round, by: By, detail: Detail) {
        // What each namespace uses, its name for the order among equals, and what of it may go.
        let mut largest = BinaryHeap::new();
        for namespace in self.cells.namespaces() {
            let cell = namespace.first().map(|&place| self.cells.of(place));
            let Some((identity, origin)) = cell.and_then(|cell| Some((cell.identity?, cell.origin))) else {
                continue;
            };
            let stay = namespace.iter().filter(|&&place| self.stays(place));
            let used = stay.map(|&place| self.archives[place].allocated).fold(0, u64::saturating_add);
            let may_go =
                |place: &usize| self.watermark_may_take(*place) && self.frees_something(*place, round);
            let candidates: VecDeque<usize> = namespace.iter().copied().filter(may_go).collect();
            largest.push((used, Reverse((identity.namespace.as_str(), origin)), Reverse(candidates)));
        }
        while let Some((used, name, Reverse(mut candidates))) = largest.pop() {
            if !round.goes_on() {
                break;
            }
            let Some(place) = candidates.pop_front() else { continue };
            let left = if self.floor[place] {
                self.spare(place, Reason::StorageWatermark, by);
                used
            } else {
                self.take_for_space(place, by, detail, round);
                used.saturating_sub(self.archives[place].allocated)
            };
            largest.push((left, name, Reverse(candidates)));
        }
    }

    /// An archive of no blocks is of no use to a disk that lacks bytes.
    fn frees_something(&self, place: usize, round: &Round) -> bool {
        self.archives[place].allocated > 0 || round.report.wanted_inodes > 0
    }

    fn is_cut_off(&self, place: usize) -> bool {
        self.archives[place].state == State::Incomplete
    }

    /// What is to be freed, if anything, and the policy that wants it.
    fn begin_round(&self, filesystem: FileSystem) -> Option<(Round, PolicyRef)> {
        let (mut kept_bytes, mut gone_bytes, mut gone_inodes) = (0_u64, 0_u64, 0_u64);
        for (place, archive) in self.archives.iter().enumerate() {
            if self.stays(place) {
                kept_bytes = kept_bytes.saturating_add(archive.allocated);
            } else {
                gone_bytes = gone_bytes.saturating_add(archive.allocated);
                gone_inodes += 1;
            }
        }
        let total = filesystem.total_bytes;
        let available = filesystem.available_bytes.saturating_add(gone_bytes).min(total);
        let used = total - available;
        let mut report =
            WatermarkReport { waiting: filesystem.awaiting_release, ..WatermarkReport::default() };
        report.used = u32::try_from(u128::from(used) * 10_000 / u128::from(total)).unwrap_or(10_000);
        let mut wanted_by = None;
        if let (Some((high, id)), Some(low)) = (&self.storage.high_watermark, self.storage.low())
            && used > high.of(total)
        {
            report.wanted_bytes = used - low.of(total);
            wanted_by = Some(id);
        }
        if let Some((least, id)) = &self.storage.min_free_bytes
            // More than there is cannot be meant: it would take everything, every time.
            && *least <= total
            && available < *least
        {
            report.wanted_bytes = report.wanted_bytes.max(least - available);
            wanted_by = wanted_by.or(Some(id));
        }
        let free_inodes = filesystem.available_inodes.saturating_add(gone_inodes);
        if let Some((least, id)) = &self.storage.min_free_inodes
            // The same; and some file systems make inodes as they need them, and report none.
            && *least <= filesystem.total_inodes
            && free_inodes < *least
        {
            report.wanted_inodes = least - free_inodes;
            wanted_by = wanted_by.or(Some(id));
        }
        let id = wanted_by?.clone();
        let reserved = self.storage.reserved.as_ref().map(|(share, _)| *share).or(DEFAULT_RESERVED);
        let above_reserve = kept_bytes.saturating_sub(reserved.map_or(0, |share| share.of(total)));
        report.below_reserve = above_reserve == 0;
        Some((Round { report, above_reserve }, id))
    }

    fn take_for_space(&mut self, place: usize, by: By, detail: Detail, round: &mut Round) {
        round.report.freed_bytes = round.report.freed_bytes.saturating_add(self.archives[place].allocated);
        round.report.freed_inodes += 1;
        self.take(place, Reason::StorageWatermark, by, detail);
    }
}

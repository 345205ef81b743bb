//! The storage policies of a node as one, and what a plan says of its watermark.

use std::fmt;
use std::time::Duration;

use super::deletion_limits::DeletionLimits;
use super::snapshot::FileSystem;
use crate::policy::{DEFAULT_KEEP_LATEST, Labels, Mode, PolicyRef, StoragePolicy};
use crate::quantity::{self, Share};

/// Use by checkpoints below which the watermark takes nothing, where no policy says otherwise.
const DEFAULT_RESERVED: Option<Share> = Share::percent(5);

/// How far below its high watermark a policy's low one lies where it does not say, in percent.
const DEFAULT_HYSTERESIS: u32 = 3;

/// Use of the file system from which on the watermark does not wait for its bucket, where no policy says
/// otherwise: the kubelet evicts pods by then.
const DEFAULT_CRITICAL: Option<Share> = Share::percent(95);

/// A value and the policy that asked for it.
type Asked<T> = Option<(T, PolicyRef)>;

/// All storage policies of this node as one: the strictest value of each field.
#[derive(Debug, Clone, Default)]
pub struct EffectiveStorage {
    /// Use of the file system above which archives go.
    pub high_watermark: Asked<Share>,
    /// Use of the file system at which that ends.
    pub low_watermark: Asked<Share>,
    /// Use of the file system from which on that does not wait for its bucket.
    pub critical_watermark: Asked<Share>,
    /// Whether policies want it to always wait, and none says otherwise.
    pub is_never_critical: bool,
    /// How many of the newest of each lineage these rules spare.
    pub protect_latest: Asked<u32>,
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
    /// Archives that a namespace's users may hold; 0: none.
    pub held_count: Asked<u64>,
    /// Bytes that the archives together may have which a namespace's users hold; 0: none may be held.
    pub held_size: Asked<u64>,
    /// How fast policies may delete.
    pub deletion_limits: DeletionLimits,
    /// Policies that say nothing here, as the node's labels are not known.
    pub unjudged: Vec<PolicyRef>,
}

impl EffectiveStorage {
    /// Combines the policies whose `nodeSelector` matches. A `minFree` that is more than the file system, where it is given, has
    /// counts for nothing; [`crate::policy_lint::beyond_disk`] says which ones are.
    pub fn new(policies: &[StoragePolicy], node: Option<&Labels>, filesystem: Option<FileSystem>) -> Self {
        let mut storage = Self::default();
        let (mut deletion_limits, mut unjudged_limits) = (Vec::new(), Vec::new());
        let mut sorted: Vec<&StoragePolicy> =
            policies.iter().filter(|policy| policy.mode == Mode::Enforce).collect();
        sorted.sort_by_key(|policy| &policy.id);
        let total = filesystem.map(|filesystem| filesystem.total_bytes);
        for policy in sorted {
            if !policy.node_selector.0.is_empty() {
                match node {
                    None => {
                        storage.unjudged.push(policy.id.clone());
                        // Everything else only ever takes more: this may be what holds others back.
                        unjudged_limits.extend(policy.deletion_limit);
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
            let high = policy.high_watermark.filter(on);
            // What a policy leaves out belongs to its own high watermark, whatever others say.
            let low = policy.low_watermark.filter(on);
            let low = low.or_else(|| high.map(|high| high.minus_percent(DEFAULT_HYSTERESIS)));
            least(&mut storage.low_watermark, low, id);
            least(&mut storage.critical_watermark, policy.critical_watermark.filter(on), id);
            storage.is_never_critical |= policy.critical_watermark.is_some_and(Share::is_zero);
            least(&mut storage.protect_latest, policy.protect_latest, id);
            // More than there is cannot be meant: it would take everything, every time. Some file systems make inodes
            // as they need them, and report none.
            let bytes_are_there = |least: &u64| filesystem.is_none_or(|disk| *least <= disk.total_bytes);
            let inodes_are_there = |least: &u64| filesystem.is_none_or(|disk| *least <= disk.total_inodes);
            most(&mut storage.min_free_bytes, policy.min_free_bytes.filter(bytes_are_there), id);
            most(&mut storage.min_free_inodes, policy.min_free_inodes.filter(inodes_are_there), id);
            least(&mut storage.reserved, policy.reserved, id);
            least(&mut storage.max_total_size, policy.max_total_size.and_then(bytes).filter(some), id);
            least(&mut storage.namespace_count, ceiling.limit.max_count.filter(some), id);
            least(&mut storage.namespace_size, ceiling.limit.max_total_size.and_then(bytes).filter(some), id);
            least(&mut storage.namespace_age, ceiling.max_age.filter(|age| !age.is_zero()), id);
            let held = ceiling.max_held;
            // Here 0 is the strictest: nothing may be held.
            least(&mut storage.held_count, held.max_count, id);
            least(&mut storage.held_size, held.max_total_size.and_then(bytes), id);
            deletion_limits.extend(policy.deletion_limit);
        }
        storage.deletion_limits = DeletionLimits::new(&deletion_limits, &unjudged_limits);
        storage
    }

    /// The use at which the watermark stops.
    pub(super) fn low(&self) -> Option<Share> {
        let (high, _) = self.high_watermark.as_ref()?;
        let low = self.low_watermark.as_ref().map_or(*high, |(low, _)| *low);
        Some(low.min(*high))
    }

    /// The use of the file system from which on freeing space does not wait for the bucket; none: it always waits.
    pub fn critical_watermark(&self) -> Option<Share> {
        if self.is_never_critical {
            return None;
        }
        self.critical_watermark.as_ref().map(|(share, _)| *share).or(DEFAULT_CRITICAL)
    }

    /// The use by checkpoints below which the watermark takes nothing.
    pub fn reserved(&self) -> Share {
        self.reserved.as_ref().map(|(share, _)| *share).or(DEFAULT_RESERVED).unwrap_or_default()
    }

    /// How many of the newest complete archives of each lineage storage rules spare.
    pub fn protect_latest(&self) -> u32 {
        self.protect_latest.as_ref().map_or(DEFAULT_KEEP_LATEST, |(latest, _)| *latest)
    }

    /// Whether the file system is so full that freeing space does not wait for the bucket: above the critical
    /// watermark, or with less than half of what is to be free.
    pub(super) fn is_critical(&self, filesystem: &FileSystem) -> bool {
        let critical = self.critical_watermark();
        let used = filesystem.total_bytes.saturating_sub(filesystem.available_bytes);
        let is_below_half =
            |free: u64, least: &Asked<u64>| least.as_ref().is_some_and(|(least, _)| free < least / 2);
        critical.is_some_and(|critical| used >= critical.of(filesystem.total_bytes))
            || !self.is_never_critical
                && (is_below_half(filesystem.available_bytes, &self.min_free_bytes)
                    || is_below_half(filesystem.available_inodes, &self.min_free_inodes))
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
    /// Bytes that are to be freed by deletions which wait for the watermark's bucket.
    pub pending_bytes: u64,
    /// Archives of such deletions.
    pub pending_inodes: u64,
    /// Whether it waits for the file system to show what was deleted before.
    pub waiting: bool,
    /// Whether it deletes one archive at a time, as the file system did not show what was deleted before.
    pub probing: bool,
    /// Whether checkpoints use no more than is reserved for them: other data fills the disk.
    pub below_reserve: bool,
}

impl WatermarkReport {
    /// What is wanted and will not be freed, also once all that waits has gone. None where all is freed, and while the
    /// outcome of earlier deletions is not known.
    pub fn shortfall(&self) -> Option<Shortfall> {
        if self.waiting || self.probing {
            return None;
        }
        let bytes = self.freed_bytes.saturating_add(self.pending_bytes);
        let inodes = self.freed_inodes.saturating_add(self.pending_inodes);
        Shortfall::new((self.wanted_bytes, bytes), (self.wanted_inodes, inodes), self.below_reserve)
    }
}

/// What the watermark cannot free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortfall {
    /// Bytes.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
    /// Whether that is since checkpoints use no more than is reserved for them.
    pub below_reserve: bool,
}

impl Shortfall {
    /// What is missing where so much is wanted and so much found, of bytes and of inodes; none where nothing is.
    pub(crate) fn new(bytes: (u64, u64), inodes: (u64, u64), below_reserve: bool) -> Option<Self> {
        let missing = |(wanted, found): (u64, u64)| wanted.saturating_sub(found);
        let shortfall = Self { bytes: missing(bytes), inodes: missing(inodes), below_reserve };
        (shortfall.bytes > 0 || shortfall.inodes > 0).then_some(shortfall)
    }
}

impl fmt::Display for Shortfall {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = (self.bytes > 0).then(|| quantity::human(self.bytes));
        let inodes = (self.inodes > 0).then(|| format!("{} inodes", self.inodes));
        let missing: Vec<String> = bytes.into_iter().chain(inodes).collect();
        let why = if self.below_reserve {
            "checkpoints use no more than is reserved for them; something else fills the disk"
        } else {
            "what is left is pinned, protected, of unknown containers, or would free nothing"
        };
        write!(formatter, "{} cannot be freed, as {why}", missing.join(" and "))
    }
}

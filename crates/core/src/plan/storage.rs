//! What checkpoints may use on a node: ceilings that bind whatever policies say, and the watermark.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::effective_storage::WatermarkReport;
use super::facts::Facts;
use super::judgement::{Rule, Saw};
use super::limits::{Limit, Measure};
use super::planner::{By, Planner, Scope};
use super::snapshot::{Dated, Draw, FileSystem, Release};
use super::verdict::{Detail, Reason};
use crate::archive::State;
use crate::policy::PolicyRef;

/// A round that frees space: what is wanted still, and what may be taken.
struct Round {
    /// Whose round it is.
    by: By,
    detail: Detail,
    measure: Space,
    wanted_bytes: u64,
    wanted_inodes: u64,
    freed_bytes: u64,
    freed_inodes: u64,
    pending_bytes: u64,
    pending_inodes: u64,
    /// Bytes that checkpoints may lose before only the reserve is left.
    above_reserve: u64,
    /// How many archives may go now; none: as many as are wanted.
    allowance: Option<u64>,
    /// Whether one archive is all that may go.
    is_probe: bool,
}

/// What a round counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Space {
    /// Blocks on the disk.
    Allocated,
    /// Sizes of files.
    Size,
}

impl Round {
    fn goes_on(&self) -> bool {
        let bytes = self.freed_bytes.saturating_add(self.pending_bytes);
        let inodes = self.freed_inodes.saturating_add(self.pending_inodes);
        (bytes < self.wanted_bytes || inodes < self.wanted_inodes)
            && bytes < self.above_reserve
            && !(self.is_probe && self.freed_inodes > 0)
    }

    fn of(&self, archive: &Facts) -> u64 {
        match self.measure {
            Space::Allocated => archive.allocated,
            Space::Size => archive.size,
        }
    }
}

impl Planner<'_> {
    /// Ceilings for each namespace, then the node's total. What counts here is what lies there,
    /// whichever policy governs it; the newest of each lineage always stay.
    pub(super) fn take_by_storage_limits(&mut self) {
        let storage = self.storage.clone();
        let groups = self.groups;
        self.begin(Rule::NamespaceMaxAge);
        if let Some((limit, id)) = &storage.namespace_age {
            let by = self.by(id);
            for place in groups.namespaces().flatten() {
                self.take_ceiling_age(*place, *limit, by);
            }
        }
        self.raise_storage_floor();
        let ceilings =
            [(Measure::Count, storage.namespace_count), (Measure::TotalSize, storage.namespace_size)];
        for (measure, ceiling) in ceilings {
            self.begin(match measure {
                Measure::Count => Rule::NamespaceMaxCount,
                Measure::TotalSize => Rule::NamespaceMaxTotalSize,
            });
            let Some((most, id)) = ceiling else { continue };
            self.renew_floor();
            let limit = Limit {
                measure,
                most,
                keep_newest: self.storage.protect_latest(),
                min_age: Duration::ZERO,
                scope: Scope::Storage,
                reason: Reason::NamespaceCeiling,
                by: self.by(&id),
            };
            for namespace in groups.namespaces() {
                self.limit(namespace, limit);
            }
        }
        self.begin(Rule::NodeMaxTotalSize);
        if let Some((most, id)) = storage.max_total_size {
            self.renew_floor();
            self.take_by_node_total(most, &id);
        }
    }

    /// The node's total goes down as the watermark does: the largest namespace loses its oldest first.
    fn take_by_node_total(&mut self, most: u64, id: &PolicyRef) {
        if self.watched().is_some() {
            let all: Vec<usize> = (0..self.archives.len()).collect();
            let by = self.by(id);
            self.watch_limit(&all, (Measure::TotalSize, Scope::Storage), by, most);
        }
        let counted = (0..self.archives.len()).filter(|&place| self.counts(place, Scope::Storage));
        let have = counted.map(|place| self.archives[place].size).fold(0, u64::saturating_add);
        if have <= most {
            return;
        }
        let mut round = Round {
            by: self.by(id),
            detail: Detail::TotalSize { have, limit: most },
            measure: Space::Size,
            wanted_bytes: have - most,
            wanted_inodes: 0,
            freed_bytes: 0,
            freed_inodes: 0,
            pending_bytes: 0,
            pending_inodes: 0,
            above_reserve: u64::MAX,
            allowance: None,
            is_probe: false,
        };
        self.free_space(&mut round, |planner, place| {
            planner.may_take(place) && planner.counts(place, Scope::Storage)
        });
        if round.goes_on() {
            let limit = Limit {
                measure: Measure::TotalSize,
                most,
                keep_newest: 0,
                min_age: Duration::ZERO,
                scope: Scope::Storage,
                reason: Reason::StorageWatermark,
                by: round.by,
            };
            let left: Vec<usize> =
                (0..self.archives.len()).filter(|&place| self.counts(place, Scope::Storage)).collect();
            // Wider than any one size, so that a sum of absurd ones is still a sum.
            let bytes = left.iter().map(|&place| u128::from(self.archives[place].size)).sum();
            self.note_pins(&left, limit, bytes);
        }
    }

    /// Frees space while the file system is too full.
    pub(super) fn take_by_watermark(&mut self) -> Option<WatermarkReport> {
        self.begin(Rule::Watermark);
        let filesystem = self.snapshot.filesystem.filter(|filesystem| filesystem.total_bytes > 0)?;
        let (mut round, mut report) = self.begin_round(filesystem)?;
        if let Some(place) = self.watched().filter(|&place| self.stays(place)) {
            let saw = Saw::Disk { used: report.used, wanted: report.wanted_bytes };
            self.watch_saw(place, round.by, saw);
        }
        if report.waiting || report.below_reserve {
            return Some(report);
        }
        // What is dated ahead of a clock that is not trusted goes last of all.
        for is_ahead in [false, true] {
            self.free_space(&mut round, |planner, place| {
                planner.watermark_may_take(place)
                    && (planner.archives[place].dated == Dated::Ahead) == is_ahead
            });
        }
        report.freed_bytes = round.freed_bytes;
        report.freed_inodes = round.freed_inodes;
        report.pending_bytes = round.pending_bytes;
        report.pending_inodes = round.pending_inodes;
        let taken = round.freed_bytes.saturating_add(round.pending_bytes);
        report.below_reserve = taken < round.wanted_bytes && taken >= round.above_reserve;
        Some(report)
    }

    /// Takes what is worth less, then orphans, then the oldest of whichever namespace uses most, again and
    /// again, until the round is done.
    fn free_space(&mut self, round: &mut Round, may_take: impl Fn(&Self, usize) -> bool) {
        for kind in [Self::is_worth_less, Self::is_orphan] {
            for place in 0..self.archives.len() {
                if round.goes_on()
                    && may_take(self, place)
                    && self.frees_something(place, round)
                    && !self.floor[place]
                    && kind(self, place)
                {
                    self.take_for_space(place, round);
                }
            }
        }
        self.take_from_the_largest(round, may_take);
    }

    /// Takes the oldest of the namespace that uses most, again and again.
    fn take_from_the_largest(&mut self, round: &mut Round, may_take: impl Fn(&Self, usize) -> bool) {
        // What each namespace uses, its name for the order among equals, and what of it may go.
        let mut largest = BinaryHeap::new();
        for namespace in self.groups.namespaces() {
            let class = namespace.first().map(|&place| self.groups.of(place));
            let Some((identity, origin)) = class.and_then(|class| Some((class.identity?, class.origin)))
            else {
                continue;
            };
            let stay = namespace.iter().filter(|&&place| self.stays(place));
            let used = stay.map(|&place| round.of(&self.archives[place])).fold(0, u64::saturating_add);
            let may_go = |place: &usize| may_take(self, *place) && self.frees_something(*place, round);
            let candidates: VecDeque<usize> = namespace.iter().copied().filter(may_go).collect();
            largest.push((used, Reverse((identity.namespace.as_str(), origin)), Reverse(candidates)));
        }
        while let Some((used, name, Reverse(mut candidates))) = largest.pop() {
            if !round.goes_on() {
                break;
            }
            let Some(place) = candidates.pop_front() else { continue };
            let left = if self.floor[place] {
                self.keep_as_newest(place, Reason::StorageWatermark, round.by);
                used
            } else {
                self.take_for_space(place, round);
                used.saturating_sub(round.of(&self.archives[place]))
            };
            largest.push((left, name, Reverse(candidates)));
        }
    }

    /// An archive of no blocks is of no use to a disk that lacks bytes.
    fn frees_something(&self, place: usize, round: &Round) -> bool {
        round.of(&self.archives[place]) > 0 || round.wanted_inodes > 0
    }

    fn is_worth_less(&self, place: usize) -> bool {
        self.archives[place].state != State::Complete
    }

    /// What is to be freed, if anything.
    fn begin_round(&mut self, filesystem: FileSystem) -> Option<(Round, WatermarkReport)> {
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
        let mut report = WatermarkReport {
            waiting: filesystem.release == Release::Awaited,
            probing: filesystem.release == Release::Probing,
            ..WatermarkReport::default()
        };
        report.used = u32::try_from(u128::from(used) * 10_000 / u128::from(total)).unwrap_or(10_000);
        let mut wanted_by = None;
        if let (Some((high, id)), Some(low)) = (&self.storage.high_watermark, self.storage.low())
            && used > high.of(total)
        {
            report.wanted_bytes = used - low.of(total);
            wanted_by = Some(id);
        }
        if let Some((least, id)) = &self.storage.min_free_bytes
            && available < *least
        {
            report.wanted_bytes = report.wanted_bytes.max(least - available);
            wanted_by = wanted_by.or(Some(id));
        }
        let free_inodes = filesystem.available_inodes.saturating_add(gone_inodes);
        if let Some((least, id)) = &self.storage.min_free_inodes
            && free_inodes < *least
        {
            report.wanted_inodes = least - free_inodes;
            wanted_by = wanted_by.or(Some(id));
        }
        let id = wanted_by?.clone();
        let above_reserve = kept_bytes.saturating_sub(self.storage.reserved().of(total));
        report.below_reserve = above_reserve == 0;
        let is_critical = self.storage.is_critical(&filesystem);
        let allowance = self.allowance.filter(|_| !is_critical);
        let round = Round {
            by: self.by(&id),
            detail: Detail::DiskUse(report.used),
            measure: Space::Allocated,
            wanted_bytes: report.wanted_bytes,
            wanted_inodes: report.wanted_inodes,
            freed_bytes: 0,
            freed_inodes: 0,
            pending_bytes: 0,
            pending_inodes: 0,
            above_reserve,
            allowance: allowance.map(|allowance| allowance.watermark),
            is_probe: report.probing,
        };
        Some((round, report))
    }

    fn take_for_space(&mut self, place: usize, round: &mut Round) {
        let bytes = round.of(&self.archives[place]);
        self.take(place, Reason::StorageWatermark, round.by, round.detail);
        if round.allowance == Some(0) {
            self.let_wait(place);
            round.pending_bytes = round.pending_bytes.saturating_add(bytes);
            round.pending_inodes += 1;
            return;
        }
        if let Some(left) = &mut round.allowance {
            *left -= 1;
            self.draws[place] = Draw::Watermark;
        }
        round.freed_bytes = round.freed_bytes.saturating_add(bytes);
        round.freed_inodes += 1;
    }
}

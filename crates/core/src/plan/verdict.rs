//! What was decided about an archive, and how to say it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::duration;
use crate::policy::PolicyRef;
use crate::quantity;

/// What becomes of an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// It stays.
    Keep,
    /// It goes.
    Delete,
}

/// Why. Each reason belongs to one action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// No policy governs it, or none that can be told for certain.
    NoPolicy,
    /// Its policy keeps it.
    WithinLimits,
    /// A rule would take it, were it not among the newest of its lineage or group.
    KeepLatest,
    /// A limit would take it, were it not younger than its policy's `minAge`.
    MinAge,
    /// A `.keep` marker lies beside it.
    Pinned,
    /// It changed a moment ago and may still be being written.
    Settling,
    /// Whose checkpoint it is cannot be told for certain.
    UnknownIdentity,
    /// When it was taken cannot be told: nothing that is said of that is plausible.
    Undated,
    /// It is the newest of an hour, day, week, month or year that its policy keeps.
    TierKept,
    /// Its pod or workload is gone, and the grace period runs.
    OrphanGracePeriod,
    /// It is to go, and waits for the deletion bucket.
    DeletionPending,
    /// The policy that governed it is gone or does not select it any more: the next one waits.
    Handover,
    /// A rule would take it, or may compare it with others, and the clock is not to be trusted.
    ClockSuspect,
    /// A rule would take it, and it is not certain that the policies known here are those of now.
    PolicyStale,
    /// A policy that could govern it does not parse.
    PolicyInvalid,
    /// Its deletion was requested.
    Discarded,
    /// A dump that this program asked for failed, and left it.
    FailedDump,
    /// Its pod, workload or namespace is gone for longer than the grace period.
    Orphaned,
    /// It was cut off, longer ago than the grace period.
    Incomplete,
    /// It contradicts itself, and was last changed longer ago than the grace period.
    Damaged,
    /// It is larger than one archive may be.
    MaxArchiveSize,
    /// The schedule that had it made keeps newer ones in its place.
    ScheduleRetention,
    /// No tier keeps it.
    Tiers,
    /// It is older than archives may be.
    MaxAge,
    /// The container has more archives than it may.
    MaxCountPerContainer,
    /// The workload has more archives than it may.
    MaxCountPerWorkload,
    /// The pod has more archives than it may.
    MaxCountPerPod,
    /// The namespace has more archives than it may.
    MaxCountPerNamespace,
    /// The container's archives are larger together than they may be.
    MaxTotalSizePerContainer,
    /// The workload's archives are larger together than they may be.
    MaxTotalSizePerWorkload,
    /// The pod's archives are larger together than they may be.
    MaxTotalSizePerPod,
    /// The namespace's archives are larger together than they may be.
    MaxTotalSizePerNamespace,
    /// A storage policy's ceiling for the namespace.
    NamespaceCeiling,
    /// A storage policy's limit for the node, or the file system is too full.
    StorageWatermark,
}

impl Reason {
    /// The action that this is a reason for.
    pub fn action(self) -> Action {
        match self {
            Self::NoPolicy
            | Self::WithinLimits
            | Self::KeepLatest
            | Self::MinAge
            | Self::Pinned
            | Self::Settling
            | Self::UnknownIdentity
            | Self::Undated
            | Self::TierKept
            | Self::OrphanGracePeriod
            | Self::DeletionPending
            | Self::Handover
            | Self::ClockSuspect
            | Self::PolicyStale
            | Self::PolicyInvalid => Action::Keep,
            Self::Discarded
            | Self::FailedDump
            | Self::Orphaned
            | Self::Incomplete
            | Self::Damaged
            | Self::MaxArchiveSize
            | Self::ScheduleRetention
            | Self::Tiers
            | Self::MaxAge
            | Self::MaxCountPerContainer
            | Self::MaxCountPerWorkload
            | Self::MaxCountPerPod
            | Self::MaxCountPerNamespace
            | Self::MaxTotalSizePerContainer
            | Self::MaxTotalSizePerWorkload
            | Self::MaxTotalSizePerPod
            | Self::MaxTotalSizePerNamespace
            | Self::NamespaceCeiling
            | Self::StorageWatermark => Action::Delete,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, formatter)
    }
}

/// What a limit is a limit of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// One container of one pod.
    Container,
    /// One topmost owner and container.
    Workload,
    /// One pod.
    Pod,
    /// One namespace.
    Namespace,
}

impl Level {
    /// In the order in which their limits act.
    pub const ALL: [Self; 4] = [Self::Container, Self::Workload, Self::Pod, Self::Namespace];

    /// The reason of a limit on the count at this level.
    pub fn count_reason(self) -> Reason {
        match self {
            Self::Container => Reason::MaxCountPerContainer,
            Self::Workload => Reason::MaxCountPerWorkload,
            Self::Pod => Reason::MaxCountPerPod,
            Self::Namespace => Reason::MaxCountPerNamespace,
        }
    }

    /// The reason of a limit on the total size at this level.
    pub fn size_reason(self) -> Reason {
        match self {
            Self::Container => Reason::MaxTotalSizePerContainer,
            Self::Workload => Reason::MaxTotalSizePerWorkload,
            Self::Pod => Reason::MaxTotalSizePerPod,
            Self::Namespace => Reason::MaxTotalSizePerNamespace,
        }
    }
}

/// The figures behind a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The reason says it all.
    None,
    /// Its name is not one that the kubelet gives, so another program made it.
    ForeignName,
    /// Whether the policy selects it depends on labels that are not known.
    LabelsUnknown,
    /// Whether the policy's namespace is the archive's has yet to be asked.
    NamespaceUnasked,
    /// Whether the policy's namespace is the archive's cannot be told: it was taken at about the time at
    /// which that was created, and its pod was not seen in it.
    NamespaceUncertain,
    /// So many archives where so many may be.
    Count {
        /// Archives that count.
        have: u64,
        /// How many may be.
        limit: u64,
    },
    /// So many bytes together where so many may be.
    TotalSize {
        /// Bytes that count.
        have: u64,
        /// How many may be.
        limit: u64,
    },
    /// One archive's bytes and how many it may have.
    Size {
        /// Its bytes.
        have: u64,
        /// How many it may have.
        limit: u64,
    },
    /// Its age and how old it may be.
    Age {
        /// Its age.
        age: Duration,
        /// How old it may be.
        limit: Duration,
    },
    /// When a grace period ends.
    GraceEnds(Timestamp),
    /// Since when what it belongs to is gone.
    GoneSince(Timestamp),
    /// The tiers that keep it.
    KeptBy(KeptBy),
    /// The reason for which it would go.
    Would(Reason),
    /// It claims to have been taken later than a clock shows that is not to be trusted.
    AheadOfClock,
    /// It claims to have been taken then, which is not plausible.
    Claims(Timestamp),
    /// The policy that governed it before is gone or does not select it any more.
    HandedOver,
    /// The file system's use in hundredths of a percent when the watermark took it.
    DiskUse(u32),
}

/// The tiers that keep an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KeptBy {
    /// As the newest of its hour.
    pub hourly: bool,
    /// As the newest of its day.
    pub daily: bool,
    /// As the newest of its ISO week.
    pub weekly: bool,
    /// As the newest of its month.
    pub monthly: bool,
    /// As the newest of its year.
    pub yearly: bool,
}

impl KeptBy {
    /// Whether any tier keeps it.
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

impl fmt::Display for KeptBy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tiers = [
            (self.hourly, "hourly"),
            (self.daily, "daily"),
            (self.weekly, "weekly"),
            (self.monthly, "monthly"),
            (self.yearly, "yearly"),
        ];
        let names: Vec<_> = tiers.into_iter().filter(|(kept, _)| *kept).map(|(_, name)| name).collect();
        formatter.write_str(&names.join(", "))
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::ForeignName => formatter.write_str("not named checkpoint-….tar, so not the kubelet's"),
            Self::NamespaceUnasked => {
                formatter.write_str("whether its namespace is still the same has yet to be asked")
            }
            Self::NamespaceUncertain => formatter.write_str(
                "taken at about the time at which its namespace was created, so it may be an earlier one's",
            ),
            Self::LabelsUnknown => formatter.write_str("a policy selects by labels that are not known here"),
            Self::Count { have, limit } => write!(formatter, "{have} archives, limit {limit}"),
            Self::TotalSize { have, limit } => {
                write!(formatter, "{} together, limit {}", quantity::human(*have), quantity::human(*limit))
            }
            Self::Size { have, limit } => {
                write!(formatter, "{}, limit {}", quantity::human(*have), quantity::human(*limit))
            }
            Self::Age { age, limit } => {
                write!(formatter, "{} old, limit {}", duration::human(*age), duration::human(*limit))
            }
            Self::GraceEnds(end) => write!(formatter, "grace period ends {}", seconds(*end)),
            Self::GoneSince(since) => write!(formatter, "gone since {}", seconds(*since)),
            Self::KeptBy(tiers) => tiers.fmt(formatter),
            Self::Would(reason) => write!(formatter, "else {reason}"),
            Self::AheadOfClock => {
                formatter.write_str("dated later than this node's clock, which is not trusted")
            }
            Self::Claims(time) => {
                write!(formatter, "claims to be of {}, so it goes by when it was first seen", seconds(*time))
            }
            Self::HandedOver => formatter.write_str(
                "the policy that governed it is gone or does not select it any more; this one waits 5 minutes",
            ),
            Self::DiskUse(hundredths) => {
                write!(formatter, "disk {}.{:02}% used", hundredths / 100, hundredths % 100)
            }
        }
    }
}

/// A time to the second.
pub(crate) fn seconds(time: Timestamp) -> Timestamp {
    time.round(jiff::Unit::Second).unwrap_or(time)
}

/// What was decided about one archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Why; it implies what.
    pub reason: Reason,
    /// The policy that gave the reason; none where no policy did.
    pub policy: Option<Arc<PolicyRef>>,
    /// The figures behind it.
    pub detail: Detail,
}

impl Verdict {
    /// What becomes of the archive.
    pub fn action(&self) -> Action {
        self.reason.action()
    }

    /// Whether it is an orphan's whose grace period is over at `now`, so that only the API's word is missing.
    pub(super) fn awaits_confirmation(&self, now: Timestamp) -> bool {
        let is_over = matches!(self.detail, Detail::GraceEnds(end) if end <= now);
        self.reason == Reason::OrphanGracePeriod && is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_split_into_keeping_and_deleting() {
        assert_eq!(Reason::NoPolicy.action(), Action::Keep);
        assert_eq!(Reason::PolicyInvalid.action(), Action::Keep);
        assert_eq!(Reason::Discarded.action(), Action::Delete);
        assert_eq!(Reason::StorageWatermark.action(), Action::Delete);
    }

    #[test]
    fn a_reason_and_the_figures_behind_it_are_said_in_words() {
        let time: Timestamp = "2026-11-22T12:00:00.4Z".parse().unwrap();
        let hour = Duration::from_hours(1);
        let tiers = KeptBy { hourly: true, weekly: true, ..KeptBy::default() };
        let table = [
            (Detail::None, ""),
            (Detail::Count { have: 3, limit: 2 }, "3 archives, limit 2"),
            (Detail::TotalSize { have: 2 << 20, limit: 1 << 20 }, "2Mi together, limit 1Mi"),
            (Detail::Size { have: 2 << 20, limit: 1 << 20 }, "2Mi, limit 1Mi"),
            (Detail::Age { age: hour * 2, limit: hour }, "2h old, limit 1h"),
            (Detail::GraceEnds(time), "grace period ends 2026-11-22T12:00:00Z"),
            (Detail::GoneSince(time), "gone since 2026-11-22T12:00:00Z"),
            (Detail::KeptBy(tiers), "hourly, weekly"),
            (Detail::Would(Reason::MaxAge), "else MaxAge"),
            (Detail::DiskUse(9_005), "disk 90.05% used"),
        ];
        for (detail, words) in table {
            assert_eq!(detail.to_string(), words);
        }
    }
}

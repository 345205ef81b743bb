//! The types of problems that an agent has, as status, metrics and log name them.

use checkpoint_keeper_core::engine::problem::Problem;
use checkpoint_keeper_node::catalog::CatalogProblem;

/// A type of problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ProblemType {
    /// An audit line could not be written.
    AuditFailed,
    /// The catalog was set aside, as it could not be read.
    CatalogSetAside,
    /// The catalog cannot be used.
    CatalogUnusable,
    /// The node's `ContainerCheckpoint`s cannot be watched.
    CheckpointsUnwatched,
    /// `ContainerCheckpoint`s cannot be written.
    CheckpointsUnwritten,
    /// The wall clock is behind the files.
    ClockBehind,
    /// The wall clock was set.
    ClockSet,
    /// The system refused a deletion.
    DeletionFailed,
    /// There is no directory to collect in.
    DirectoryGone,
    /// The directory cannot be listed.
    DirectoryUnreadable,
    /// An archive cannot be read.
    FileUnreadable,
    /// A file cannot be looked at.
    FileUnseen,
    /// The file system does not tell its size.
    FileSystemUnknown,
    /// A policy's limit is out of reach, as archives are pinned.
    LimitUnreachable,
    /// The API did not answer a lookup.
    LookupFailed,
    /// A file is named nearly as a marker, and pins nothing.
    MarkerMisnamed,
    /// A storage policy wants more free space than the disk has.
    MinFreeUnreachable,
    /// The system gives no notice of changes.
    NoDirWatcher,
    /// The file system does not tell who writes.
    NoFileLeases,
    /// A policy selects nodes, and this node's labels are not known.
    NodeLabelsUnknown,
    /// The node cannot be watched.
    NodeUnwatched,
    /// A policy for the whole cluster does not parse.
    PolicyInvalid,
    /// Quotas cannot be watched: those that are known may be out of date.
    QuotasUnwatched,
    /// What schedules have done cannot be kept across restarts.
    ScheduleMemoryUnusable,
    /// Schedules cannot be watched: those that are known may be out of date.
    SchedulesUnwatched,
    /// The wall clock differs from the API server's.
    ServerClockDiffers,
    /// The node's store cannot be watched.
    StoreUnwatched,
    /// The node's store cannot be written.
    StoreUnwritten,
    /// When an archive was taken cannot be told.
    Undated,
    /// What containers use is not known, and a schedule goes by it.
    UsageUnknown,
    /// What the watermark deletes frees nothing.
    WatermarkIneffective,
    /// The disk is too full, and not enough may be deleted.
    WatermarkUnreachable,
}

impl ProblemType {
    /// All of them.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        std::iter::successors(Some(Self::AuditFailed), |problem| problem.next())
    }

    fn next(self) -> Option<Self> {
        Some(match self {
            Self::AuditFailed => Self::CatalogSetAside,
            Self::CatalogSetAside => Self::CatalogUnusable,
            Self::CatalogUnusable => Self::CheckpointsUnwatched,
            Self::CheckpointsUnwatched => Self::CheckpointsUnwritten,
            Self::CheckpointsUnwritten => Self::ClockBehind,
            Self::ClockBehind => Self::ClockSet,
            Self::ClockSet => Self::DeletionFailed,
            Self::DeletionFailed => Self::DirectoryGone,
            Self::DirectoryGone => Self::DirectoryUnreadable,
            Self::DirectoryUnreadable => Self::FileUnreadable,
            Self::FileUnreadable => Self::FileUnseen,
            Self::FileUnseen => Self::FileSystemUnknown,
            Self::FileSystemUnknown => Self::LimitUnreachable,
            Self::LimitUnreachable => Self::LookupFailed,
            Self::LookupFailed => Self::MarkerMisnamed,
            Self::MarkerMisnamed => Self::MinFreeUnreachable,
            Self::MinFreeUnreachable => Self::NoDirWatcher,
            Self::NoDirWatcher => Self::NoFileLeases,
            Self::NoFileLeases => Self::NodeLabelsUnknown,
            Self::NodeLabelsUnknown => Self::NodeUnwatched,
            Self::NodeUnwatched => Self::PolicyInvalid,
            Self::PolicyInvalid => Self::QuotasUnwatched,
            Self::QuotasUnwatched => Self::ScheduleMemoryUnusable,
            Self::ScheduleMemoryUnusable => Self::SchedulesUnwatched,
            Self::SchedulesUnwatched => Self::ServerClockDiffers,
            Self::ServerClockDiffers => Self::StoreUnwatched,
            Self::StoreUnwatched => Self::StoreUnwritten,
            Self::StoreUnwritten => Self::Undated,
            Self::Undated => Self::UsageUnknown,
            Self::UsageUnknown => Self::WatermarkIneffective,
            Self::WatermarkIneffective => Self::WatermarkUnreachable,
            Self::WatermarkUnreachable => return None,
        })
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::AuditFailed => "AuditFailed",
            Self::CatalogSetAside => "CatalogSetAside",
            Self::CatalogUnusable => "CatalogUnusable",
            Self::CheckpointsUnwatched => "CheckpointsUnwatched",
            Self::CheckpointsUnwritten => "CheckpointsUnwritten",
            Self::ClockBehind => "ClockBehind",
            Self::ClockSet => "ClockSet",
            Self::DeletionFailed => "DeletionFailed",
            Self::DirectoryGone => "DirectoryGone",
            Self::DirectoryUnreadable => "DirectoryUnreadable",
            Self::FileUnreadable => "FileUnreadable",
            Self::FileUnseen => "FileUnseen",
            Self::FileSystemUnknown => "FileSystemUnknown",
            Self::LimitUnreachable => "LimitUnreachable",
            Self::LookupFailed => "LookupFailed",
            Self::MarkerMisnamed => "MarkerMisnamed",
            Self::MinFreeUnreachable => "MinFreeUnreachable",
            Self::NoDirWatcher => "NoDirWatcher",
            Self::NoFileLeases => "NoFileLeases",
            Self::NodeLabelsUnknown => "NodeLabelsUnknown",
            Self::NodeUnwatched => "NodeUnwatched",
            Self::PolicyInvalid => "PolicyInvalid",
            Self::QuotasUnwatched => "QuotasUnwatched",
            Self::ScheduleMemoryUnusable => "ScheduleMemoryUnusable",
            Self::SchedulesUnwatched => "SchedulesUnwatched",
            Self::ServerClockDiffers => "ServerClockDiffers",
            Self::StoreUnwatched => "StoreUnwatched",
            Self::StoreUnwritten => "StoreUnwritten",
            Self::Undated => "Undated",
            Self::UsageUnknown => "UsageUnknown",
            Self::WatermarkIneffective => "WatermarkIneffective",
            Self::WatermarkUnreachable => "WatermarkUnreachable",
        }
    }

    /// The type of one of the engine's problems, and the file or object that it is about; empty where there is none.
    pub(super) fn of(problem: &Problem) -> (Self, String) {
        match problem {
            Problem::List(_) => (Self::DirectoryUnreadable, String::new()),
            Problem::Look(file, _) => (Self::FileUnseen, file.to_string()),
            Problem::Read(file, _) => (Self::FileUnreadable, file.to_string()),
            Problem::Clock => (Self::ClockSet, String::new()),
            Problem::ServerClock => (Self::ServerClockDiffers, String::new()),
            Problem::Unanswered(lookup, _) => (Self::LookupFailed, lookup.to_string()),
            Problem::PinsNothing(file) => (Self::MarkerMisnamed, file.to_string()),
            Problem::Undated(file, _) => (Self::Undated, file.to_string()),
            Problem::ClockIsBehind => (Self::ClockBehind, String::new()),
            Problem::WatermarkIneffective(_) => (Self::WatermarkIneffective, String::new()),
            Problem::NoLeases(_) => (Self::NoFileLeases, String::new()),
            Problem::FileSystem(_) => (Self::FileSystemUnknown, String::new()),
        }
    }

    /// The type of a problem with the catalog.
    pub(super) fn of_catalog(problem: &CatalogProblem) -> Self {
        match problem {
            CatalogProblem::SetAside(_) => Self::CatalogSetAside,
            CatalogProblem::Unusable(_) => Self::CatalogUnusable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alerts go by them.
    #[test]
    fn each_type_has_a_name_of_its_own_that_holds_no_spaces() {
        let names: Vec<_> = ProblemType::all().map(ProblemType::name).collect();
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!((names.len(), distinct.len()), (32, 32), "{names:?}");
        assert!(names.iter().all(|name| name.chars().all(char::is_alphabetic)), "{names:?}");
    }
}

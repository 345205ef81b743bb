//! Totals of `gc` by reason and by namespace.

use std::collections::BTreeMap;

use checkpoint_keeper_core::plan::{Action, Reason};

use checkpoint_keeper_core::report::Row;

/// Some archives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sum {
    /// How many they are.
    pub archives: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Sum {
    fn add(&mut self, row: &Row) {
        self.archives += 1;
        self.bytes = self.bytes.saturating_add(row.size_bytes);
    }
}

/// What becomes of an archive, as the table says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// It stays.
    Keep,
    /// It is to go, and is still there.
    Delete,
    /// It is gone.
    Deleted,
}

impl Mark {
    /// What becomes of the archive of this row.
    pub fn of(row: &Row) -> Self {
        match (row.verdict, row.deleted) {
            (Action::Keep, _) => Self::Keep,
            (Action::Delete, false) => Self::Delete,
            (Action::Delete, true) => Self::Deleted,
        }
    }

    /// Its name in tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Delete => "delete",
            Self::Deleted => "deleted",
        }
    }
}

/// The archives of one namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NamespaceSum {
    /// All of them.
    pub all: Sum,
    /// Those of them that the plan wanted deleted.
    pub delete: Sum,
    /// Those of them that are gone.
    pub deleted: Sum,
}

/// Totals.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// By what becomes of them and why.
    pub by_reason: BTreeMap<(Mark, Reason), Sum>,
    /// By namespace; those of unknown identity have none.
    pub by_namespace: BTreeMap<Option<String>, NamespaceSum>,
}

impl Summary {
    /// The totals of these rows.
    pub fn of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Self {
        let mut summary = Self::default();
        for row in rows {
            summary.by_reason.entry((Mark::of(row), row.reason)).or_default().add(row);
            let namespace = summary.by_namespace.entry(row.namespace.clone()).or_default();
            namespace.all.add(row);
            if row.verdict == Action::Delete {
                namespace.delete.add(row);
            }
            if row.deleted {
                namespace.deleted.add(row);
            }
        }
        summary
    }
}

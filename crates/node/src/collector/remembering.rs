//! What a collector remembers in its catalog, and does without where the disk has no room for it.

use std::path::PathBuf;

use checkpoint_keeper_core::archive::Contents;
use checkpoint_keeper_core::handover::GoverningHistory;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::pods::PodIndex;

use super::Collector;
use crate::catalog::{Catalog, Changes, Memory, Record, RememberedReclaim};
use crate::catalog_writer::CatalogWriter;
use crate::index::{FirstSeen, Known};
use crate::problem::Problem;

impl Collector {
    /// Remembers in the file at `path` what is read, and knows what it remembers.
    pub fn remember_in(&mut self, path: PathBuf) -> Vec<Problem> {
        self.open_catalog(path)
    }

    /// Knows what the file at `path` remembers, and writes nothing.
    pub fn recall_from(&mut self, path: &std::path::Path) {
        self.recall(Catalog::peek(path));
    }

    /// Remembers in a catalog that is open already, and new.
    pub fn remember_in_new(&mut self, catalog: Catalog) -> Vec<Problem> {
        let path = catalog.path().to_owned();
        self.start_writer(Some(catalog), path)
    }

    fn recall(&mut self, memory: Memory) {
        let Memory { records, pods, strays, discards, cluster, governors, reclaim } = memory;
        self.history = GoverningHistory::new(governors);
        if let Some(RememberedReclaim { reclaim, boot }) = reclaim {
            self.reclaim = if boot == self.boot { reclaim } else { reclaim.after_reboot() };
            self.reclaim_remembered = self.reclaim.clone();
        }
        (self.remembered, self.remembered_pods, self.remembered_cluster) = (records, pods, cluster);
        self.strays.recall(strays);
        self.discards.recall(discards);
    }

    fn open_catalog(&mut self, path: PathBuf) -> Vec<Problem> {
        let mut problems = Vec::new();
        let catalog = match Catalog::open(&path) {
            Ok(opened) => {
                self.recall(opened.memory);
                problems.extend(opened.set_aside.map(Problem::CatalogSetAside));
                Some(opened.catalog)
            }
            Err(error) => {
                problems.push(Problem::Catalog(error));
                None
            }
        };
        problems.extend(self.start_writer(catalog, path));
        problems
    }

    fn start_writer(&mut self, catalog: Option<Catalog>, path: PathBuf) -> Vec<Problem> {
        match CatalogWriter::start(catalog, path) {
            Ok(writer) => {
                self.catalog = Some(writer);
                Vec::new()
            }
            Err(error) => vec![Problem::Catalog(error)],
        }
    }

    /// Has a catalog opened again that was given up.
    pub(super) fn reopen_catalog(&mut self) {
        if !self.has_looked || self.catalog.as_ref().is_none_or(CatalogWriter::is_open) {
            return;
        }
        // What is known by now is what a new catalog is to know.
        let boot = &self.boot;
        self.unwritten = self.index.iter().filter_map(|(name, known)| record_of(name, known, boot)).collect();
        if let Some(pod_index) = &mut self.pod_index {
            pod_index.remember_all();
        }
        self.governor_changes.extend(self.history.all().map(|(identity, policy)| (identity, Some(policy))));
        self.strays.remember_all();
        self.discards.remember_all();
        let everything = self.take_changes();
        if let Some(catalog) = &self.catalog {
            catalog.reopen(everything);
        }
    }

    /// What the catalog does not have yet.
    fn take_changes(&mut self) -> Changes {
        let (pods, forgotten_pods) = self.pod_index.as_mut().map(PodIndex::take_changes).unwrap_or_default();
        let (strays, discards) = (self.strays.take_changes(), self.discards.take_changes());
        let cluster = self.pod_index.as_mut().and_then(PodIndex::take_cluster);
        let reclaim = (self.reclaim != self.reclaim_remembered).then(|| {
            self.reclaim_remembered = self.reclaim.clone();
            RememberedReclaim { reclaim: self.reclaim.clone(), boot: self.boot.clone() }
        });
        let governors = std::mem::take(&mut self.governor_changes);
        let mut changes = Changes { strays, discards, cluster, governors, reclaim, ..Changes::default() };
        changes.records.extend(std::mem::take(&mut self.forgotten).into_iter().map(|name| (name, None)));
        let records = std::mem::take(&mut self.unwritten);
        changes.records.extend(records.into_iter().map(|(name, record)| (name, Some(record))));
        changes.pods.extend(forgotten_pods.into_iter().map(|key| (key, None)));
        changes.pods.extend(pods.into_iter().map(|(key, record)| (key, Some(record))));
        changes
    }

    /// Has the catalog brought up to date, and says what went wrong since the last call; does not wait.
    /// Where that fails collecting goes on without, and the next look at everything tries again.
    pub fn write_catalog(&mut self) -> Vec<Problem> {
        let changes = self.take_changes();
        let Some(catalog) = &self.catalog else { return Vec::new() };
        catalog.write(changes);
        catalog.problems()
    }

    /// Brings the catalog up to date, unless that takes long, and says what went wrong.
    pub fn flush_catalog(&mut self) -> Vec<Problem> {
        let mut problems = self.write_catalog();
        problems.extend(self.catalog.as_ref().map(CatalogWriter::flush).unwrap_or_default());
        problems
    }
}

/// What is to be remembered of an archive; none where nothing is known for good.
pub(super) fn record_of(name: &FileName, known: &Known, boot: &str) -> Option<(FileName, Record)> {
    let read = known.read.as_ref().filter(|read| !read.is_failure)?;
    let contents = Contents {
        state: read.state,
        problem: read.problem.as_deref().map(str::to_owned),
        identity: read.identity.as_deref().cloned(),
        checkpointed_at: read.inside,
        runtime: read.runtime.as_deref().map(str::to_owned),
        image: None,
    };
    let boot = match known.first_seen {
        FirstSeen::At(_) => String::new(),
        FirstSeen::Uptime(_) => boot.to_owned(),
    };
    let (stat, first_seen, arrival) = (known.stat, known.first_seen, known.arrival);
    Some((name.clone(), Record { stat, contents, first_seen, arrival, boot }))
}

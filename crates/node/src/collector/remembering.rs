//! What a collector remembers in its catalog, and does without where the disk has no room for it.

use std::path::PathBuf;

use checkpoint_keeper_core::archive::Contents;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::owners::Owners;

use super::Collector;
use crate::catalog::{Catalog, Changes, Memory, Record};
use crate::index::{FirstSeen, Known};
use crate::problem::Problem;

impl Collector {
    /// Remembers in the file at `path` what is read, and knows what it remembers.
    pub fn remember_in(&mut self, path: PathBuf) -> Vec<Problem> {
        self.catalog_path = Some(path);
        self.open_catalog()
    }

    /// Knows what the file at `path` remembers, and writes nothing.
    pub fn recall_from(&mut self, path: &std::path::Path) {
        let Memory { records, pods } = Catalog::peek(path);
        (self.remembered, self.remembered_pods) = (records, pods);
    }

    fn open_catalog(&mut self) -> Vec<Problem> {
        let Some(path) = &self.catalog_path else { return Vec::new() };
        match Catalog::open(path) {
            Ok(opened) => {
                self.catalog = Some(opened.catalog);
                self.remembered = opened.memory.records;
                match &mut self.owners {
                    Some(owners) => owners.remember_all(),
                    None => self.remembered_pods = opened.memory.pods,
                }
                opened.set_aside.map(Problem::CatalogSetAside).into_iter().collect()
            }
            Err(error) => vec![Problem::Catalog(error)],
        }
    }

    /// Opens a catalog again that was given up.
    pub(super) fn reopen_catalog(&mut self) -> Vec<Problem> {
        if self.catalog.is_some() || self.catalog_path.is_none() || !self.has_looked {
            return Vec::new();
        }
        let problems = self.open_catalog();
        // What is known by now is what a new catalog is to know.
        let boot = &self.boot;
        self.unwritten = self.index.iter().filter_map(|(name, known)| record_of(name, known, boot)).collect();
        problems
    }

    /// Brings the catalog up to date. Where that fails collecting goes on without, and the next
    /// look at everything tries again.
    pub fn write_catalog(&mut self) -> Vec<Problem> {
        let (records, forget) = (std::mem::take(&mut self.unwritten), std::mem::take(&mut self.forgotten));
        let (pods, forget_pods) = self.owners.as_mut().map(Owners::take_changes).unwrap_or_default();
        let Some(catalog) = &self.catalog else { return Vec::new() };
        let changes = Changes { records: &records, forget: &forget, pods: &pods, forget_pods: &forget_pods };
        match catalog.update(changes) {
            Ok(()) => Vec::new(),
            Err(error) => {
                self.catalog = None;
                vec![Problem::Catalog(error)]
            }
        }
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

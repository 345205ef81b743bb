//! What the engine's side hands over: which archives of the last plan the API shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use checkpoint_keeper_core::engine::View;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::{EffectiveStorage, FileId};
use checkpoint_keeper_runtime::liveness::now;
use jiff::Timestamp;
use tokio::sync::watch;

use super::entries::{Entries, Entry, Key, Unlisted};
use super::expiry::Expiry;

/// What the engine's side shows of the node's archives.
#[derive(Debug, Clone)]
pub(crate) struct ShownArchives {
    node: String,
    limit: usize,
    entries: watch::Sender<Option<Arc<Entries>>>,
    expiry: Arc<Mutex<Expiry>>,
    /// The objects that ask for something that was not answered yet.
    asking: Arc<Mutex<Arc<BTreeSet<Key>>>>,
    /// Who asked for the deletion of which archive, and why.
    discards: Arc<Mutex<BTreeMap<FileName, String>>>,
}

impl ShownArchives {
    /// Of this node, at most so many.
    pub(crate) fn new(node: String, limit: usize) -> Self {
        Self {
            node,
            limit,
            entries: watch::Sender::new(None),
            expiry: Arc::default(),
            asking: Arc::default(),
            discards: Arc::default(),
        }
    }

    /// Learns from what the engine published, and from what the storage policies mean here. Returns what is not shown.
    pub(crate) fn note(&self, view: &View, storage: &EffectiveStorage) -> Unlisted {
        let mut expiry = self.expiry.lock().unwrap_or_else(PoisonError::into_inner);
        if self.limit > 0 {
            expiry.update(view, Timestamp::now(), now());
        }
        let asking = Arc::clone(&self.asking.lock().unwrap_or_else(PoisonError::into_inner));
        let entries =
            Entries::of(view, &self.node, self.limit, &asking, storage, |archive| expiry.of(archive));
        drop(expiry);
        let unlisted = entries.unlisted.clone();
        self.entries.send_if_modified(|before| {
            // That time has passed is no news by itself.
            let is_same = before
                .as_deref()
                .is_some_and(|before| *before == Entries { judged_at: before.judged_at, ..entries.clone() });
            *before = Some(Arc::new(entries));
            !is_same
        });
        unlisted
    }

    /// Which objects ask for something that was not answered yet: their archives are shown from the next plan on, however
    /// many others there are.
    pub(super) fn ask(&self, asking: BTreeSet<Key>) {
        let mut known = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if **known != asking {
            *known = Arc::new(asking);
        }
    }

    /// Of which archives the deletion is asked for: by whom, and why.
    pub(super) fn note_discards(&self, discards: BTreeMap<FileName, String>) {
        *self.discards.lock().unwrap_or_else(PoisonError::into_inner) = discards;
    }

    /// Who asked for the deletion of an archive, and why.
    pub(crate) fn discard_of(&self, file: &FileName) -> Option<String> {
        self.discards.lock().unwrap_or_else(PoisonError::into_inner).get(file).cloned()
    }

    /// The entries, whenever they change.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Arc<Entries>>> {
        self.entries.subscribe()
    }

    /// Shows an archive no more that was deleted: the next plan may be far off.
    pub(crate) fn forget(&self, file: &FileName, file_id: FileId) {
        self.entries.send_if_modified(|entries| {
            let is_it = |entry: &Entry| entry.file == *file && entry.file_id == file_id;
            let Some(known) = entries else { return false };
            let Some(key) = known.shown.iter().find(|(_, entry)| is_it(entry)).map(|(key, _)| key.clone())
            else {
                return false;
            };
            Arc::make_mut(known).shown.remove(&key);
            true
        });
    }
}

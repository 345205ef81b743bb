//! Files of unknown identity that somebody wants deleted by their names.
//!
//! A request is for the very file that had the name when the request was first seen. It is carried out
//! once, and a later file of that name is not taken.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;

use checkpoint_keeper_core::name::FileName;
use serde::{Deserialize, Serialize};

use crate::store::Stat;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discard {
    /// The file that it is for; none where there was none.
    pub file: Option<Stat>,
    /// What came of it; none while it waits.
    pub result: Option<DiscardResult>,
}

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiscardResult {
    /// The file was deleted for it.
    Deleted,
    /// There was no such file, or it is gone by other means.
    NotFound,
    /// The file changed since, or another one took its name.
    Changed,
    /// It is known whose archive it is: only they can discard it.
    IdentityKnown,
}

/// All requests by the names of the files.
#[derive(Debug, Default)]
pub struct Discards {
    known: BTreeMap<FileName, Discard>,
    /// What the catalog does not have yet.
    unwritten: HashMap<FileName, Option<Discard>>,
}

impl Discards {
    /// Requests that were seen before, each with its file.
    pub fn recall(&mut self, known: BTreeMap<FileName, Discard>) {
        self.known = known;
    }

    /// These are all requests that there are. Each new one is bound to the file that `stat` finds;
    /// where that fails, it is tried again with the next call.
    pub fn request(
        &mut self,
        requested: &BTreeSet<FileName>,
        stat: impl Fn(&FileName) -> io::Result<Option<Stat>>,
    ) -> Vec<(FileName, io::Error)> {
        for name in self.known.extract_if(.., |name, _| !requested.contains(name)) {
            self.unwritten.insert(name.0, None);
        }
        let mut failures = Vec::new();
        for name in
            requested.iter().filter(|name| !self.known.contains_key(*name)).cloned().collect::<Vec<_>>()
        {
            match stat(&name) {
                Ok(file) => {
                    let result = file.is_none().then_some(DiscardResult::NotFound);
                    self.put(name, Discard { file, result });
                }
                Err(error) => failures.push((name, error)),
            }
        }
        failures
    }

    /// The requests that wait, each with its file.
    pub fn waiting(&self) -> impl Iterator<Item = (&FileName, &Stat)> {
        let waiting = self.known.iter().filter(|(_, discard)| discard.result.is_none());
        waiting.filter_map(|(name, discard)| Some((name, discard.file.as_ref()?)))
    }

    /// Whether this very file is to be discarded.
    pub fn is_wanted(&self, name: &FileName, stat: &Stat) -> bool {
        self.known.get(name).is_some_and(|discard| {
            discard.result.is_none() && discard.file.as_ref().is_some_and(|file| file.is_same(stat))
        })
    }

    /// Notes what came of a request, unless that is known already.
    pub fn note(&mut self, name: &FileName, result: DiscardResult) {
        let Some(discard) = self.known.get(name).filter(|discard| discard.result.is_none()) else { return };
        let discard = Discard { result: Some(result), ..discard.clone() };
        self.put(name.clone(), discard);
    }

    /// Notes that this file was deleted for a request. That it is gone may have been noticed before.
    pub fn note_deletion(&mut self, name: &FileName, file: &Stat) {
        let is_bound = |discard: &&Discard| discard.file.as_ref().is_some_and(|bound| bound.is_same(file));
        if let Some(discard) = self.known.get(name).filter(is_bound) {
            self.put(name.clone(), Discard { result: Some(DiscardResult::Deleted), ..discard.clone() });
        }
    }

    /// What came of each request that there is.
    pub fn results(&self) -> impl Iterator<Item = (&FileName, Option<DiscardResult>)> {
        self.known.iter().map(|(name, discard)| (name, discard.result))
    }

    /// What changed since the last call; where there is nothing for a name, there is no request any more.
    pub fn take_changes(&mut self) -> HashMap<FileName, Option<Discard>> {
        std::mem::take(&mut self.unwritten)
    }

    /// Has everything written anew, as into a memory that was lost.
    pub fn remember_all(&mut self) {
        let all = self.known.iter().map(|(name, discard)| (name.clone(), Some(discard.clone())));
        self.unwritten = all.collect();
    }

    fn put(&mut self, name: FileName, discard: Discard) {
        self.unwritten.insert(name.clone(), Some(discard.clone()));
        self.known.insert(name, discard);
    }
}

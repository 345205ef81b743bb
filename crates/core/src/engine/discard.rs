//! Files of unknown identity whose deletion was requested by name.
//!
//! A request is for the very file that had the name when the request was first seen. It is carried out
//! once, and a later file of that name is not taken.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::name::FileName;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::file::Stat;

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

/// What was reported of a request before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiscardReport {
    /// What came of it; none while it waited.
    pub result: Option<DiscardResult>,
    /// Since when that was so, by this node's clock, in whole seconds.
    pub since: Timestamp,
}

/// All requests by the names of the files.
#[derive(Debug, Default)]
pub struct Discards {
    known: BTreeMap<FileName, Discard>,
    /// Since when requests wait whose files are not known any more, in whole seconds.
    unbound: BTreeMap<FileName, Timestamp>,
    /// Whether it was ever known which requests there are.
    has_begun: bool,
    /// What the catalog does not have yet.
    unwritten: HashMap<FileName, Option<Discard>>,
}

impl Discards {
    /// Begins with requests that were seen before, each with its file.
    pub fn new(known: BTreeMap<FileName, Discard>) -> Self {
        Self { known, ..Self::default() }
    }

    /// Takes over what was reported of requests before, the first time that it is known which are there. The catalog
    /// knows better, unless it was lost.
    pub fn take_over(
        &mut self,
        requested: &BTreeSet<FileName>,
        reported: &BTreeMap<FileName, DiscardReport>,
    ) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        for (name, report) in reported {
            if !requested.contains(name) || self.known.contains_key(name) {
                continue;
            }
            match report.result {
                Some(_) => self.put(name.clone(), Discard { file: None, result: report.result }),
                None => {
                    self.unbound.insert(name.clone(), report.since);
                }
            }
        }
    }

    /// Which files to look at before the next plan: those of requests that wait, and of `requested` ones that are
    /// new. Requests that are not among them any more are forgotten; none: it is not known which there are.
    pub fn to_look_at(&mut self, requested: Option<&BTreeSet<FileName>>) -> Vec<FileName> {
        let mut names: Vec<FileName> = Vec::new();
        if let Some(requested) = requested {
            self.unbound.retain(|name, _| requested.contains(name));
            for (name, _) in self.known.extract_if(.., |name, _| !requested.contains(name)) {
                self.unwritten.insert(name, None);
            }
            names.extend(requested.iter().filter(|name| !self.known.contains_key(*name)).cloned());
        }
        let waiting = self.known.iter().filter(|(_, discard)| discard.result.is_none());
        names.extend(waiting.map(|(name, _)| name.clone()));
        names
    }

    /// Binds a new request to the file that has the name now. For one that waits already it returns the file that
    /// it is bound to. One that waited for a file that is not known any more is for a file that was not touched
    /// since.
    pub fn bind(&mut self, name: &FileName, file: Option<Stat>) -> Option<Stat> {
        if let Some(discard) = self.known.get(name) {
            return discard.file.filter(|_| discard.result.is_none());
        }
        let since = self.unbound.remove(name);
        let is_later =
            |file: Stat| since.is_some_and(|since| file.changed_at().as_second() > since.as_second());
        let result = match file {
            None => Some(DiscardResult::NotFound),
            Some(file) => is_later(file).then_some(DiscardResult::Changed),
        };
        self.put(name.clone(), Discard { file, result });
        file
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

//! Markers whose archives are away: for how long this program has watched them lie there so.
//!
//! A pin outlives the absence of its archive, which may be moved out and back in. By the marker's own
//! age nothing is told of that, and neither by a clock that people set: what counts is the time in which
//! somebody watched, added up over restarts where there is a catalog.

use std::collections::HashMap;
use std::time::Duration;

use crate::name::FileName;
use serde::{Deserialize, Serialize};

use super::file::Stat;

/// How long an archive must have been away, while this program watched, for its marker to be litter.
const AWAY: Duration = Duration::from_hours(24);

/// How much of the time that was watched may be lost by a restart.
const UNWRITTEN: Duration = Duration::from_mins(30);

/// A marker without an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stray {
    /// The marker's file.
    pub marker: Stat,
    /// For how long it was watched lying there without its archive.
    pub watched: Duration,
}

/// All markers without an archive.
#[derive(Debug, Default)]
pub(super) struct Strays {
    known: HashMap<FileName, Watched>,
    /// What the catalog remembers of those that were not seen yet.
    remembered: HashMap<FileName, Stray>,
    /// What the catalog does not have yet.
    unwritten: HashMap<FileName, Option<Stray>>,
}

#[derive(Debug, Clone, Copy)]
struct Watched {
    stray: Stray,
    /// When it was last seen, by the uptime.
    seen: Duration,
    /// How much of the time the catalog has.
    written: Duration,
}

impl Strays {
    /// Begins with strays that were watched before.
    pub(super) fn new(remembered: HashMap<FileName, Stray>) -> Self {
        Self { remembered, ..Self::default() }
    }

    /// These are all strays that there are at this uptime.
    pub(super) fn see(&mut self, strays: impl IntoIterator<Item = (FileName, Stat)>, uptime: Duration) {
        let before = std::mem::take(&mut self.known);
        let mut remembered = std::mem::take(&mut self.remembered);
        for (name, marker) in strays {
            let known = before.get(&name).filter(|known| known.stray.marker.is_same(&marker));
            let remembered = remembered.get(&name).filter(|stray| stray.marker.is_same(&marker));
            let watched = match (known, remembered) {
                (Some(known), _) => {
                    let since = uptime.saturating_sub(known.seen);
                    let stray = Stray { marker, watched: known.stray.watched.saturating_add(since) };
                    Watched { stray, seen: uptime, ..*known }
                }
                (None, Some(stray)) => Watched { stray: *stray, seen: uptime, written: stray.watched },
                (None, None) => {
                    let stray = Stray { marker, watched: Duration::ZERO };
                    self.unwritten.insert(name.clone(), Some(stray));
                    Watched { stray, seen: uptime, written: Duration::ZERO }
                }
            };
            self.known.insert(name, watched);
        }
        for (name, known) in &mut self.known {
            if known.stray.watched.saturating_sub(known.written) >= UNWRITTEN {
                known.written = known.stray.watched;
                self.unwritten.insert(name.clone(), Some(known.stray));
            }
        }
        let gone = before.into_keys().chain(remembered.drain().map(|(name, _)| name));
        let gone = gone.filter(|name| !self.known.contains_key(name));
        self.unwritten.extend(gone.map(|name| (name, None)));
    }

    /// The archive is back, or was for a moment.
    pub(super) fn is_back(&mut self, archive: &FileName) {
        if !self.known.is_empty() {
            self.forget(&archive.marker());
        }
    }

    /// The marker is gone.
    pub(super) fn forget(&mut self, marker: &FileName) {
        if self.known.remove(marker).is_some() {
            self.unwritten.insert(marker.clone(), None);
        }
    }

    /// The markers whose archives have been away for so long that nobody will bring them back.
    pub(super) fn litter(&self) -> Vec<FileName> {
        let litter = self.known.iter().filter(|(_, known)| known.stray.watched >= AWAY);
        litter.map(|(name, _)| name.clone()).collect()
    }

    /// What changed since the last call; where there is nothing for a marker, it is no stray any more.
    pub(super) fn take_changes(&mut self) -> HashMap<FileName, Option<Stray>> {
        std::mem::take(&mut self.unwritten)
    }

    /// Has everything written anew, as into a memory that was lost.
    pub(super) fn remember_all(&mut self) {
        for known in self.known.values_mut() {
            known.written = known.stray.watched;
        }
        self.unwritten = self.known.iter().map(|(name, known)| (name.clone(), Some(known.stray))).collect();
    }
}

//! Markers without an archive, and for how long this program has observed that the archive is missing.
//!
//! A pin stays while its archive is away, as that may be moved out and back in. The age of the marker does not tell
//! how long the archive has been away, and the wall clock may be changed: so only the time in which this program
//! ran and observed it counts. Where there is a catalog, that time is added up over restarts.

use std::collections::HashMap;
use std::time::Duration;

use crate::name::FileName;
use serde::{Deserialize, Serialize};

use super::file::Stat;

/// How long an archive must have been missing, as observed by this program, until its marker is deleted.
const AWAY: Duration = Duration::from_hours(24);

/// How much of the observed time a restart may lose.
const UNWRITTEN: Duration = Duration::from_mins(30);

/// A marker without an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stray {
    /// The marker's file.
    pub marker: Stat,
    /// For how long it was observed without its archive.
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

    /// Takes all markers without an archive, as listed at this uptime.
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

    /// Notes that the archive is back, or was back for a moment.
    pub(super) fn is_back(&mut self, archive: &FileName) {
        if !self.known.is_empty() {
            self.forget(&archive.marker());
        }
    }

    /// Notes that the marker is gone.
    pub(super) fn forget(&mut self, marker: &FileName) {
        if self.known.remove(marker).is_some() {
            self.unwritten.insert(marker.clone(), None);
        }
    }

    /// The markers whose archives have been missing for [`AWAY`].
    pub(super) fn litter(&self) -> Vec<FileName> {
        let litter = self.known.iter().filter(|(_, known)| known.stray.watched >= AWAY);
        litter.map(|(name, _)| name.clone()).collect()
    }

    /// What changed since the last call; where there is nothing for a marker, it is no stray any more.
    pub(super) fn take_changes(&mut self) -> HashMap<FileName, Option<Stray>> {
        std::mem::take(&mut self.unwritten)
    }

    /// Marks everything as changed, for a new catalog.
    pub(super) fn remember_all(&mut self) {
        for known in self.known.values_mut() {
            known.written = known.stray.watched;
        }
        self.unwritten = self.known.iter().map(|(name, known)| (name.clone(), Some(known.stray))).collect();
    }
}

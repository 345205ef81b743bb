//! What is known about each archive at this moment: its file, whether it is settled, what it holds.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use crate::archive::{Contents, State, Texts};
use crate::checkpoint_time::CheckpointTime;
use crate::creation::Creation;
use crate::identity::Identity;
use crate::name::FileName;
use crate::plan::Clock;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::clock::Now;
use super::file::{Sighting, Stat};

/// One archive.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its file as it was last seen.
    pub stat: Stat,
    /// Whether a marker lies beside it.
    pub pinned: bool,
    /// When it was first seen.
    pub first_seen: FirstSeen,
    /// Whether it came while the directory was being watched, until that was counted.
    pub is_arrival: bool,
    /// What its bytes said; none until it is settled.
    pub read: Option<Read>,
    /// Whether its deletion is under way.
    pub deleting: bool,
    quiet: Quiet,
    /// What holds for few archives. There may be 100 000 of them: what is rare takes a pointer in all the others.
    rare: Option<Box<Rare>>,
}

/// What holds for few archives.
#[derive(Debug, Clone, Default)]
struct Rare {
    arrival: Arrival,
    failed_at: Option<Duration>,
    creation: Option<Arc<Creation>>,
}

/// What an archive's bytes said.
#[derive(Debug, Clone)]
pub struct Read {
    /// Whether the archive is complete, and if not, what is wrong with it.
    pub state: State,
    /// Whose checkpoint it is.
    pub identity: Option<Arc<Identity>>,
    /// When the checkpoint was taken, as far as that is known by now.
    pub taken: CheckpointTime,
    /// Whether `config.dump` says when it was taken: that is the time which the archive claims.
    pub is_claimed_inside: bool,
    /// What few archives do not share with others.
    pub texts: Arc<Texts>,
    /// Whether the system refused to have it read: the next look at everything tries again.
    pub is_failure: bool,
}

impl Read {
    /// When `config.dump` says that the checkpoint was taken.
    pub fn inside(&self) -> Option<Timestamp> {
        self.is_claimed_inside.then_some(self.taken.claimed)
    }
}

/// When an archive was first seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FirstSeen {
    /// Then, by a clock that was trusted.
    At(Timestamp),
    /// At that uptime, as no clock was trusted yet.
    Uptime(Duration),
}

/// How far an archive may be dated by a clock that was not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Arrival {
    /// It lay there already, or came while the clock was trusted.
    #[default]
    Unremarkable,
    /// It came while the clock was not trusted and showed this time. Whether it is dated by that clock shows when
    /// it is read.
    Unjudged(Timestamp),
    /// It was dated by that clock: it goes by when it was first seen.
    DatesIt,
    /// It was dated by that clock, and it is not known any more when it came.
    Lost,
}

/// How it is known that an archive is not written to any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quiet {
    /// It lay there at the first look: its own times tell.
    FoundThere,
    /// It was seen to change, at this uptime; waiting from there is not fooled by a clock that is set.
    ChangedAt(Duration),
    /// A writer was seen closing it.
    Closed,
}

impl Arrival {
    fn is_unjudged(self) -> bool {
        matches!(self, Self::Unjudged(_))
    }
}

impl Known {
    /// How far it may be dated by a clock that was not trusted.
    pub fn arrival(&self) -> Arrival {
        self.rare.as_ref().map(|rare| rare.arrival).unwrap_or_default()
    }

    /// Notes how far it may be dated by a clock that was not trusted.
    pub fn set_arrival(&mut self, arrival: Arrival) {
        if arrival != self.arrival() {
            self.rare.get_or_insert_default().arrival = arrival;
        }
    }

    /// How it came into being; none where this program did not ask for it, or does not know any more that it did.
    pub fn creation(&self) -> Option<&Arc<Creation>> {
        self.rare.as_ref()?.creation.as_ref()
    }

    /// Notes how it came into being.
    pub fn set_creation(&mut self, creation: Option<Arc<Creation>>) {
        if creation.is_some() || self.creation().is_some() {
            self.rare.get_or_insert_default().creation = creation;
        }
    }

    /// When its deletion last failed, by the uptime.
    pub fn failed_at(&self) -> Option<Duration> {
        self.rare.as_ref()?.failed_at
    }

    /// Notes that its deletion failed at that uptime.
    pub fn note_failed_deletion(&mut self, at: Duration) {
        self.rare.get_or_insert_default().failed_at = Some(at);
    }

    /// Whose checkpoint it is; none where that is not known.
    pub fn identity(&self) -> Option<&Arc<Identity>> {
        self.read.as_ref()?.identity.as_ref()
    }

    /// Whether it has been left alone for the settle time.
    pub fn is_settled(&self, settle: Duration, now: Now) -> bool {
        self.settles_in(settle, now).is_zero()
    }

    /// Waits from now on: the close that was seen was not the last writer's.
    pub fn distrust_close(&mut self, now: Now) {
        self.quiet = Quiet::ChangedAt(now.uptime);
    }

    /// Whether only a close that was seen says that it is settled.
    pub fn is_settled_by_close(&self) -> bool {
        self.quiet == Quiet::Closed
    }

    /// How long until it is settled if it is not written to.
    pub fn settles_in(&self, settle: Duration, now: Now) -> Duration {
        match self.quiet {
            Quiet::Closed => Duration::ZERO,
            Quiet::ChangedAt(uptime) => settle.saturating_sub(now.uptime.saturating_sub(uptime)),
            Quiet::FoundThere => {
                let since = now.wall.duration_since(self.changed_at(now));
                settle.saturating_sub(since.try_into().unwrap_or(Duration::ZERO))
            }
        }
    }

    /// When its bytes last changed. A modification time in the future was set by hand; the time
    /// that the system keeps for itself is then the better one.
    pub fn changed_at(&self, now: Now) -> Timestamp {
        let modified = self.stat.modified_at();
        if modified <= now.wall { modified } else { self.stat.changed_at() }
    }
}

/// Every archive by its name.
#[derive(Debug, Default)]
pub struct Index {
    /// Boxed: the table has up to twice as many places as archives, and an empty one is then a pointer's size.
    known: HashMap<FileName, Box<Known>>,
    identities: HashSet<Arc<Identity>>,
    texts: HashSet<Arc<Texts>>,
}

impl Index {
    /// All archives.
    pub fn iter(&self) -> impl Iterator<Item = (&FileName, &Known)> {
        self.known.iter().map(|(name, known)| (name, &**known))
    }

    /// One archive.
    pub fn get(&self, name: &FileName) -> Option<&Known> {
        self.known.get(name).map(AsRef::as_ref)
    }

    /// One archive, to change what is known of it.
    pub fn get_mut(&mut self, name: &FileName) -> Option<&mut Known> {
        self.known.get_mut(name).map(AsMut::as_mut)
    }

    /// How many archives there are.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Notes how a file looks now; says whether that is news.
    pub fn sight(
        &mut self,
        name: &FileName,
        stat: Stat,
        pinned: bool,
        sighting: Sighting,
        (now, clock): (Now, Clock),
    ) -> bool {
        if let Some(known) = self.known.get_mut(name)
            && known.stat.is_same(&stat)
        {
            let news =
                known.pinned != pinned || (sighting == Sighting::Closed && known.quiet != Quiet::Closed);
            known.stat.allocated = stat.allocated;
            known.pinned = pinned;
            if sighting == Sighting::Closed {
                known.quiet = Quiet::Closed;
            }
            return news;
        }
        let quiet = match sighting {
            // Written by a clock that was set back since: its times tell nothing.
            Sighting::First if stat.modified_at() > now.wall && stat.changed_at() > now.wall => {
                Quiet::ChangedAt(now.uptime)
            }
            Sighting::First => Quiet::FoundThere,
            Sighting::Again => Quiet::ChangedAt(now.uptime),
            Sighting::Closed => Quiet::Closed,
        };
        // Another file of the same name, or the same with other contents: nothing old holds for it,
        // but when it was first seen, if only its owner, mode or links changed.
        // An archive that is still being written came when that began, and was dated by the clock of then.
        // So has one that was read meanwhile, as its writer had stalled, and was not whole.
        let is_still_coming = |known: &Known| {
            let is_by_a_wrong_clock = match &known.read {
                None => known.arrival().is_unjudged(),
                Some(read) => known.arrival() == Arrival::DatesIt && !read.state.is_whole(),
            };
            known.stat.is_same_file(&stat) && is_by_a_wrong_clock
        };
        let before =
            self.known.get(name).filter(|known| known.stat.has_same_bytes(&stat) || is_still_coming(known));
        let came_by_a_wrong_clock = sighting != Sighting::First && clock == Clock::Suspect;
        let (first_seen, arrival) = match before {
            Some(known) => (known.first_seen, known.arrival()),
            None if clock == Clock::Trusted => (FirstSeen::At(now.wall), Arrival::Unremarkable),
            None if came_by_a_wrong_clock => (FirstSeen::Uptime(now.uptime), Arrival::Unjudged(now.wall)),
            None => (FirstSeen::Uptime(now.uptime), Arrival::Unremarkable),
        };
        let creation = self.known.get(name).filter(|known| known.stat.has_same_bytes(&stat));
        let creation = creation.and_then(|known| known.creation()).cloned();
        // Whatever is done to a file that is known, it came but once.
        let same_file = self.known.get(name).filter(|known| known.stat.is_same_file(&stat));
        let is_arrival = same_file.map_or(sighting != Sighting::First, |known| known.is_arrival);
        let (read, deleting, rare) = (None, false, None);
        let mut known = Known { stat, pinned, first_seen, is_arrival, read, deleting, quiet, rare };
        known.set_arrival(arrival);
        known.set_creation(creation);
        self.known.insert(name.clone(), Box::new(known));
        true
    }

    /// Forgets an archive; says whether that is news.
    pub fn forget(&mut self, name: &FileName) -> bool {
        self.known.remove(name).is_some_and(|known| !known.deleting)
    }

    /// Forgets all archives that `is_there` does not know of, and returns their names.
    pub fn forget_others(&mut self, is_there: impl Fn(&FileName) -> bool) -> Vec<FileName> {
        let gone: Vec<FileName> = self.known.keys().filter(|name| !is_there(name)).cloned().collect();
        for name in &gone {
            self.known.remove(name);
        }
        // What only the forgotten ones shared goes with them.
        self.identities.retain(|identity| Arc::strong_count(identity) > 1);
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        gone
    }

    /// Notes that an archive could not be read.
    pub fn note_failure(&mut self, name: &FileName, taken: CheckpointTime, problem: &str) {
        let texts = share(&mut self.texts, Texts { problem: Some(problem.to_owned()), ..Texts::default() });
        let (state, identity, is_claimed_inside) = (State::Unreadable, None, false);
        if let Some(known) = self.known.get_mut(name) {
            known.read = Some(Read { state, identity, taken, is_claimed_inside, texts, is_failure: true });
        }
    }

    /// Forgets which archives could not be read, so that they are tried again.
    pub fn retry_failures(&mut self) {
        for known in self.known.values_mut() {
            known.read.take_if(|read| read.is_failure);
        }
    }

    /// All archives, to change what is known of them.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (&FileName, &mut Known)> {
        self.known.iter_mut().map(|(name, known)| (name, &mut **known))
    }

    /// Notes what an archive holds; `taken` is when it was taken, as far as that is known without it.
    pub fn note(&mut self, name: &FileName, contents: &Contents, taken: CheckpointTime) {
        let texts = Texts {
            runtime: contents.runtime.clone(),
            image: contents.image.clone(),
            problem: contents.problem.clone(),
        };
        let read = Read {
            state: contents.state,
            identity: contents.identity.clone().map(|identity| share(&mut self.identities, identity)),
            taken: CheckpointTime { claimed: contents.checkpointed_at.unwrap_or(taken.claimed), ..taken },
            is_claimed_inside: contents.checkpointed_at.is_some(),
            texts: share(&mut self.texts, texts),
            is_failure: false,
        };
        if let Some(known) = self.known.get_mut(name) {
            known.read = Some(read);
        }
    }
}

/// One allocation for what many archives have in common.
fn share<T: Eq + Hash>(shared: &mut HashSet<Arc<T>>, value: T) -> Arc<T> {
    if let Some(known) = shared.get(&value) {
        return Arc::clone(known);
    }
    let new = Arc::new(value);
    shared.insert(Arc::clone(&new));
    new
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_known_of_an_archive_is_small() {
        // There may be 100 000 of them. It is a boundary between size classes of common allocators.
        assert!(size_of::<super::Known>() <= 188, "{}", size_of::<super::Known>());
    }
}

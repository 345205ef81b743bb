//! When rules by age take archives, as far as it was found out.
//!
//! To find it out takes about as long as a plan. On a node with many archives it is done now and then: an archive that is
//! new meanwhile shows no time until then.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use checkpoint_keeper_core::engine::View;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::{Archive, FileId, expirations};
use jiff::Timestamp;

/// With so many archives it is done at each plan.
const FEW: usize = 1_000;

/// With more, so long after it was done last.
const APART: Duration = Duration::from_secs(30);

/// When rules by age take archives.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    done: Option<Instant>,
    times: HashMap<FileName, (FileId, Timestamp)>,
}

impl Expiry {
    /// Finds it out anew, if it is time to.
    pub(super) fn update(&mut self, view: &View, wall: Timestamp, now: Instant) {
        let View { snapshot, policies, plan, .. } = view;
        if !policies.goes_by_time() {
            *self = Self::default();
            return;
        }
        let is_soon = self.done.is_some_and(|done| now.saturating_duration_since(done) < APART);
        if snapshot.archives.len() > FEW && is_soon {
            return;
        }
        self.done = Some(now);
        let found = expirations(snapshot, policies, plan, wall);
        let times = snapshot.archives.iter().zip(found);
        let times = times.filter_map(|(archive, expiration)| {
            Some((archive.file.clone(), (archive.file_id, expiration?.at)))
        });
        self.times = times.collect();
    }

    /// When a rule by age takes this archive, as far as it is known.
    pub(super) fn of(&self, archive: &Archive) -> Option<Timestamp> {
        let (file_id, at) = self.times.get(&archive.file)?;
        (*file_id == archive.file_id).then_some(*at)
    }
}

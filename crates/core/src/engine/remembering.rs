//! What the engine wants kept across restarts.

use super::index::{FirstSeen, Known};
use super::memory::{Changes, Record, RememberedReclaim};
use super::{Effect, Engine};
use crate::archive::Contents;
use crate::creation::Creation;
use crate::name::FileName;
use crate::pods::PodIndex;

impl Engine {
    /// Has that remembered which is new since the last time.
    pub(super) fn persist(&mut self) {
        let changes = self.take_changes();
        if self.settings.remembers && !changes.is_empty() {
            self.effects.push(Effect::Persist(changes));
        }
    }

    /// Has everything remembered anew.
    pub(super) fn remember_all(&mut self) {
        if !self.has_looked || !self.settings.remembers {
            return;
        }
        let boot = &self.settings.boot;
        self.unwritten = self.index.iter().filter_map(|(name, known)| record_of(name, known, boot)).collect();
        if let Some(pod_index) = &mut self.pod_index {
            pod_index.remember_all();
        }
        self.governing_changes.extend(self.history.all().map(|(identity, policy)| (identity, Some(policy))));
        self.strays.remember_all();
        self.discards.remember_all();
        let everything = self.take_changes();
        self.effects.push(Effect::PersistAnew(everything));
    }

    /// What is not remembered yet.
    fn take_changes(&mut self) -> Changes {
        let (pods, forgotten_pods) = self.pod_index.as_mut().map(PodIndex::take_changes).unwrap_or_default();
        let (strays, discards) = (self.strays.take_changes(), self.discards.take_changes());
        let cluster = self.pod_index.as_mut().and_then(PodIndex::take_cluster);
        let reclaim = (self.reclaim != self.reclaim_remembered).then(|| {
            self.reclaim_remembered = self.reclaim.clone();
            RememberedReclaim { reclaim: self.reclaim.clone(), boot: self.settings.boot.clone() }
        });
        let governing = std::mem::take(&mut self.governing_changes);
        let mut changes = Changes { strays, discards, cluster, governing, reclaim, ..Changes::default() };
        changes.records.extend(std::mem::take(&mut self.forgotten).into_iter().map(|name| (name, None)));
        let records = std::mem::take(&mut self.unwritten);
        changes.records.extend(records.into_iter().map(|(name, record)| (name, Some(record))));
        changes.pods.extend(forgotten_pods.into_iter().map(|key| (key, None)));
        changes.pods.extend(pods.into_iter().map(|(key, record)| (key, Some(record))));
        changes
    }
}

/// What is to be remembered of an archive; none where nothing is known for good.
pub(super) fn record_of(name: &FileName, known: &Known, boot: &str) -> Option<(FileName, Record)> {
    let read = known.read.as_ref().filter(|read| !read.is_failure)?;
    let contents = Contents {
        state: read.state,
        problem: read.texts.problem.clone(),
        identity: read.identity.as_deref().cloned(),
        checkpointed_at: read.inside(),
        runtime: read.texts.runtime.clone(),
        image: read.texts.image.clone(),
    };
    let boot = match known.first_seen {
        FirstSeen::At(_) => String::new(),
        FirstSeen::Uptime(_) => boot.to_owned(),
    };
    let (stat, first_seen, arrival) = (known.stat, known.first_seen, known.arrival());
    let creation = known.creation().map(|creation| Creation::clone(creation));
    Some((name.clone(), Record { stat, contents, first_seen, arrival, creation, boot }))
}

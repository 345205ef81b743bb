//! Dumps that this program asked for: which archives they made, and what the failed ones left.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::clock::Now;
use super::index::Known;
use super::remembering::record_of;
use crate::creation::DumpEnd;
use crate::name::FileName;

/// How long an archive may take until it is read, after the end of its dump.
const READ_WITHIN: Duration = Duration::from_mins(10);

/// The most dumps that are kept: a node makes a few at a time.
const MOST_DUMPS: usize = 100;

/// Dumps that ended a moment ago, whose archives may still have to be read.
#[derive(Debug, Default)]
pub(super) struct RecentDumps {
    /// Each with the uptime until which it is kept.
    ended: VecDeque<(DumpEnd, Duration)>,
}

impl RecentDumps {
    fn add(&mut self, end: DumpEnd, now: Now) {
        self.ended.retain(|(_, until)| *until > now.uptime);
        if self.ended.len() >= MOST_DUMPS {
            self.ended.pop_front();
        }
        self.ended.push_back((end, now.uptime + READ_WITHIN));
    }

    fn find(&self, name: &FileName, known: &Known, now: Now) -> Option<&DumpEnd> {
        let kept = self.ended.iter().filter(|(_, until)| *until > now.uptime);
        kept.map(|(end, _)| end).find(|end| is_of(end, name, known))
    }
}

impl Engine {
    /// Learns of a dump that has ended, and marks what it made or left, if that was read already.
    pub(super) fn learn_dump(&mut self, end: DumpEnd, now: Now) {
        let made = self.index.iter().filter(|(name, known)| is_of(&end, name, known));
        let made: Vec<FileName> = made.map(|(name, _)| name.clone()).collect();
        self.dumps.add(end, now);
        for name in made {
            self.note_creation(&name, now);
            let known = self.index.get(&name).filter(|_| self.settings.remembers);
            self.unwritten.extend(known.and_then(|known| record_of(&name, known, &self.settings.boot)));
            self.has_news = true;
        }
    }

    /// Notes how an archive that was read came into being, if that was a dump that ended a moment ago.
    pub(super) fn note_creation(&mut self, name: &FileName, now: Now) {
        let Some(known) = self.index.get_mut(name) else { return };
        if let Some(end) = self.dumps.find(name, known, now) {
            known.set_creation(Some(Arc::new(end.creation())));
        }
    }
}

fn is_of(end: &DumpEnd, name: &FileName, known: &Known) -> bool {
    let identity = known.identity().map(AsRef::as_ref);
    known.read.as_ref().is_some_and(|read| end.is_of(name, read.state, identity, known.stat.modified_at()))
}

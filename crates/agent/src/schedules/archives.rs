//! What the engine sees of archives that schedules wait for: the engine reads each new one anyway.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use checkpoint_keeper_core::archive::State;
use checkpoint_keeper_core::engine::View;
use checkpoint_keeper_core::plan::{Archive, Clock, EffectiveStorage};
use checkpoint_keeper_core::schedule::ContainerId;
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

/// A container's archives are of these three names, whichever pod of that name it was.
type Names = (String, String, String);

/// What was seen of archives; shared by the engine's side, which tells, and that of the schedules, which waits.
#[derive(Debug, Clone)]
pub(crate) struct SeenArchives {
    seen: Arc<Mutex<Seen>>,
    /// Whether any schedule needs it: else it costs nothing.
    is_wanted: watch::Sender<bool>,
    clock: watch::Sender<Clock>,
}

#[derive(Debug, Default)]
struct Seen {
    awaited: Vec<Awaited>,
    room: Option<Room>,
    /// The size of the latest whole archive of each container.
    sizes: BTreeMap<Names, u64>,
}

#[derive(Debug)]
struct Awaited {
    container: ContainerId,
    /// The file's name, where the kubelet told one.
    file: Option<String>,
    /// When the dump began: older archives are others.
    since: Timestamp,
    tell: oneshot::Sender<Found>,
}

/// An archive that was waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) file: String,
    /// What is wrong with it; none: it is whole.
    pub(super) fault: Option<String>,
}

/// What the file system has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// What ordinary processes may still use, in bytes.
    pub(super) available: u64,
    /// What a storage policy wants left free, in bytes.
    pub(super) min_free: u64,
}

impl Default for SeenArchives {
    fn default() -> Self {
        Self {
            seen: Arc::default(),
            is_wanted: watch::Sender::new(false),
            clock: watch::Sender::new(Clock::Suspect),
        }
    }
}

impl SeenArchives {
    /// Learns from what the engine published.
    pub(crate) fn note(&self, view: &View) {
        let snapshot = &view.snapshot;
        self.clock.send_if_modified(|clock| std::mem::replace(clock, snapshot.clock) != snapshot.clock);
        if !*self.is_wanted.borrow() {
            return;
        }
        let storage =
            EffectiveStorage::new(&view.policies.storage, snapshot.node_labels.as_ref(), snapshot.filesystem);
        let mut seen = self.seen();
        seen.room = snapshot.filesystem.map(|filesystem| Room {
            available: filesystem.available_bytes,
            min_free: storage.min_free_bytes.as_ref().map_or(0, |(bytes, _)| *bytes),
        });
        let mut latest: BTreeMap<Names, (Timestamp, u64)> = BTreeMap::new();
        for archive in &snapshot.archives {
            let Some(identity) = archive.identity.as_deref().filter(|_| archive.state.is_whole()) else {
                continue;
            };
            let names = (identity.namespace.clone(), identity.pod.clone(), identity.container.clone());
            let next = (archive.claimed, archive.size);
            latest.entry(names).and_modify(|last| *last = next.max(*last)).or_insert(next);
        }
        seen.sizes = latest.into_iter().map(|(names, (_, size))| (names, size)).collect();
        if seen.awaited.is_empty() {
            return;
        }
        for archive in
            snapshot.archives.iter().filter(|archive| archive.settled && archive.state != State::Unread)
        {
            while let Some(at) = seen.awaited.iter().position(|awaited| awaited.is(archive)) {
                let Awaited { tell, .. } = seen.awaited.swap_remove(at);
                // Whoever waited may have given up.
                let _ = tell.send(Found::of(archive));
            }
        }
        seen.awaited.retain(|awaited| !awaited.tell.is_closed());
    }

    /// Says whether anything of this is needed.
    pub(super) fn want(&self, wanted: bool) {
        self.is_wanted.send_replace(wanted);
        if !wanted {
            *self.seen() = Seen::default();
        }
    }

    /// Tells whether the clock is trusted, from here on.
    pub(super) fn clock(&self) -> watch::Receiver<Clock> {
        self.clock.subscribe()
    }

    /// Waits for an archive of that container that is not older; by its file's name, where that is known.
    pub(super) fn wait_for(
        &self,
        container: &ContainerId,
        file: Option<String>,
        since: Timestamp,
    ) -> oneshot::Receiver<Found> {
        let (tell, told) = oneshot::channel();
        self.seen().awaited.push(Awaited { container: container.clone(), file, since, tell });
        told
    }

    /// What there is room for; none while that is not known.
    pub(super) fn room(&self) -> Option<Room> {
        self.seen().room
    }

    /// The size of the container's latest whole archive.
    pub(super) fn last_size(&self, container: &ContainerId) -> Option<u64> {
        let names = (container.namespace.clone(), container.pod.clone(), container.container.clone());
        self.seen().sizes.get(&names).copied()
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awaited {
    /// Whether this is the archive that is waited for.
    fn is(&self, archive: &Archive) -> bool {
        let is_of_time = archive.changed >= self.since;
        match &self.file {
            Some(file) => is_of_time && archive.file.to_json_text() == file.as_str(),
            None => archive.identity.as_deref().is_some_and(|identity| {
                is_of_time
                    && identity.namespace == self.container.namespace
                    && identity.pod == self.container.pod
                    && identity.container == self.container.container
            }),
        }
    }
}

impl Found {
    fn of(archive: &Archive) -> Self {
        let fault = match archive.state {
            State::Complete => None,
            State::NoImages => Some("the archive holds no images of the container"),
            State::Incomplete => Some("the archive is incomplete"),
            State::Damaged => Some("the archive is damaged"),
            State::Unreadable => Some("the archive cannot be read"),
            State::Foreign => Some("the file is no archive of a container"),
            State::Unread => Some("the archive was not read"),
        };
        let fault = fault.map(str::to_owned);
        Self { file: archive.file.to_json_text().into_owned(), fault }
    }
}

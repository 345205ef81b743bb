//! Being told that something changed in the directory: inotify, as a hint and nothing more.
//!
//! An event says where to look. What is there is found out by looking, and a sweep over everything
//! follows whenever an event may have been lost.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use checkpoint_keeper_core::engine::file::Sighting;
use checkpoint_keeper_core::name::FileName;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::store::Store;

/// More events than this at once, and looking at everything is cheaper.
const MANY: usize = 4_096;

/// A watch on one directory.
#[derive(Debug)]
pub struct DirWatcher {
    inotify: OwnedFd,
}

/// What changed since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DirEvents {
    /// Names that changed, and how.
    pub names: Vec<(FileName, Sighting)>,
    /// Events may have been lost: look at everything.
    pub overflow: bool,
    /// The directory itself was moved, removed or unmounted.
    pub directory_moved: bool,
}

impl DirWatcher {
    /// Watches the directory that the store holds, and not whatever its path leads to by now.
    pub fn new(store: &Store) -> rustix::io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let held = format!("/proc/self/fd/{}", store.handle().as_raw_fd());
        let events = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        inotify::add_watch(&inotify, held, events)?;
        Ok(Self { inotify })
    }

    /// All events since the last call; does not wait.
    pub fn events(&self) -> DirEvents {
        let mut events = DirEvents::default();
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let flags = event.events();
                    events.overflow |= flags.contains(ReadFlags::QUEUE_OVERFLOW);
                    let gone = ReadFlags::DELETE_SELF
                        | ReadFlags::MOVE_SELF
                        | ReadFlags::UNMOUNT
                        | ReadFlags::IGNORED;
                    events.directory_moved |= flags.intersects(gone);
                    if let Some(name) = event.file_name().and_then(|name| FileName::new(name.to_bytes())) {
                        let is_closed = flags.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO);
                        let sighting = if is_closed { Sighting::Closed } else { Sighting::Again };
                        events.names.push((name, sighting));
                    }
                    if events.names.len() > MANY {
                        events.names.clear();
                        events.overflow = true;
                        return events;
                    }
                }
                Err(Errno::WOULDBLOCK) => return events,
                Err(Errno::INTR) => {}
                Err(_) => {
                    events.overflow = true;
                    return events;
                }
            }
        }
    }
}

impl AsFd for DirWatcher {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

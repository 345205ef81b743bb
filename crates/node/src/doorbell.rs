//! Being told that something changed in the directory: inotify, as a hint and nothing more.
//!
//! A ring says where to look. What is there is found out by looking, and a sweep over everything
//! follows whenever a ring may have been lost.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use checkpoint_keeper_core::name::FileName;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;

use crate::store::Store;

/// More rings than this at once, and looking at everything is cheaper.
const MANY: usize = 4_096;

/// A watch on one directory.
#[derive(Debug)]
pub struct Doorbell {
    inotify: OwnedFd,
}

/// What changed since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Rings {
    /// Names that changed, and whether a writer closed the file or moved it into place whole.
    pub names: Vec<(FileName, bool)>,
    /// Rings may have been lost: look at everything.
    pub overflow: bool,
    /// The directory itself was moved, removed or unmounted.
    pub directory_moved: bool,
}

impl Doorbell {
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

    /// All rings since the last call; does not wait.
    pub fn rings(&self) -> Rings {
        let mut rings = Rings::default();
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = inotify::Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let events = event.events();
                    rings.overflow |= events.contains(ReadFlags::QUEUE_OVERFLOW);
                    let gone = ReadFlags::DELETE_SELF
                        | ReadFlags::MOVE_SELF
                        | ReadFlags::UNMOUNT
                        | ReadFlags::IGNORED;
                    rings.directory_moved |= events.intersects(gone);
                    if let Some(name) = event.file_name().and_then(|name| FileName::new(name.to_bytes())) {
                        let whole = events.intersects(ReadFlags::CLOSE_WRITE | ReadFlags::MOVED_TO);
                        rings.names.push((name, whole));
                    }
                    if rings.names.len() > MANY {
                        rings.names.clear();
                        rings.overflow = true;
                        return rings;
                    }
                }
                Err(Errno::WOULDBLOCK) => return rings,
                Err(Errno::INTR) => {}
                Err(_) => {
                    rings.overflow = true;
                    return rings;
                }
            }
        }
    }
}

impl AsFd for Doorbell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

//! A line to a collector at work, on which it can be told something at any time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, mpsc};

use rustix::event::{EventfdFlags, eventfd};

/// The end that tells.
#[derive(Debug)]
pub struct Teller<T> {
    queue: mpsc::Sender<T>,
    bell: Arc<OwnedFd>,
}

/// The end that listens.
#[derive(Debug)]
pub struct Line<T> {
    queue: mpsc::Receiver<T>,
    bell: Arc<OwnedFd>,
}

/// A line.
pub fn line<T>() -> std::io::Result<(Teller<T>, Line<T>)> {
    let (sender, receiver) = mpsc::channel();
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    Ok((Teller { queue: sender, bell: Arc::clone(&bell) }, Line { queue: receiver, bell }))
}

impl<T> Clone for Teller<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), bell: Arc::clone(&self.bell) }
    }
}

impl<T> Teller<T> {
    /// Tells, and does not wait.
    pub fn tell(&self, news: T) {
        // A collector that has ended needs no news.
        if self.queue.send(news).is_ok() {
            let _ = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
        }
    }
}

impl<T> Line<T> {
    /// All that was told since the last call; does not wait.
    pub fn told(&self) -> impl Iterator<Item = T> + '_ {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.bell, &mut count);
        self.queue.try_iter()
    }
}

impl<T> AsFd for Line<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

//! A mailbox of a collector at work, whose arrivals can be waited for with `poll`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, mpsc};

use rustix::event::{EventfdFlags, eventfd};

/// Sender of a mailbox.
#[derive(Debug)]
pub struct Sender<T> {
    queue: mpsc::Sender<T>,
    bell: Arc<OwnedFd>,
}

/// Receiver of a mailbox.
#[derive(Debug)]
pub struct Receiver<T> {
    queue: mpsc::Receiver<T>,
    bell: Arc<OwnedFd>,
}

/// A mailbox without a bound.
pub fn channel<T>() -> std::io::Result<(Sender<T>, Receiver<T>)> {
    let (sender, receiver) = mpsc::channel();
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    Ok((Sender { queue: sender, bell: Arc::clone(&bell) }, Receiver { queue: receiver, bell }))
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), bell: Arc::clone(&self.bell) }
    }
}

impl<T> Sender<T> {
    /// Sends, and does not wait.
    pub fn send(&self, news: T) {
        // A collector that has ended needs no news.
        if self.queue.send(news).is_ok() {
            let _ = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
        }
    }
}

impl<T> Receiver<T> {
    /// All that was sent since the last call; does not wait.
    pub fn drain(&self) -> impl Iterator<Item = T> + '_ {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.bell, &mut count);
        self.queue.try_iter()
    }
}

impl<T> AsFd for Receiver<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

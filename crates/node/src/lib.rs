//! One directory of checkpoint archives on one machine.
//!
//! What is decided about archives is [`checkpoint_keeper_core::engine`]'s part; here is everything that touches the
//! disk. [`store`] holds the directory's handle and the only `unlinkat`, [`dir_watcher`] says that something changed,
//! [`catalog`] keeps across restarts what was learned, [`sweeper`] deletes, [`resolver`] asks the cluster, and
//! [`driver`] carries out what the engine wants done, once or for as long as wanted.

pub mod catalog;
pub mod catalog_writer;
pub mod clock;
pub mod dir_watcher;
pub mod driver;
pub mod mailbox;
pub mod markers;
mod overlay;
mod reading;
pub mod resolver;
pub mod store;
pub mod sweeper;

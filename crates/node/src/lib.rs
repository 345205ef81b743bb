//! One directory of checkpoint archives on one machine.
//!
//! What is decided about archives is [`checkpoint_keeper_core::plan`]'s part; here is everything
//! that touches the disk. [`store`] holds the directory's handle and the only `unlinkat`,
//! [`dir_watcher`] says that something changed, [`catalog`] remembers across restarts what was read,
//! [`collector`] puts these together into a snapshot, and [`watch`] runs it for as long as wanted.
//! What only a cluster knows is asked through [`resolver`], or [`cluster_updates`] by whoever watches it.

pub mod catalog;
pub mod catalog_writer;
pub mod clock;
pub mod cluster_updates;
pub mod collector;
pub mod config;
pub mod dir_watcher;
pub mod discard;
pub mod index;
pub mod litter;
pub mod mailbox;
mod overlay;
pub mod problem;
mod reading;
pub mod resolver;
pub mod store;
pub mod sweeper;
pub mod watch;

//! One file for each command.

pub mod crds;
pub mod gc;
pub mod inspect;
mod watch;

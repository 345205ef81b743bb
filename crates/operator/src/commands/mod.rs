//! One file for each command.

pub mod agent;
pub mod controller;
pub mod crds;
pub mod gc;
pub mod inspect;
mod policy_files;
mod watch;

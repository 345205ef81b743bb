//! One file for each command.

pub mod agent;
mod consent;
pub mod controller;
pub mod crds;
mod deletion_log;
pub mod documents;
pub mod gc;
pub mod inspect;
mod output_files;
mod policy_files;
mod watch;

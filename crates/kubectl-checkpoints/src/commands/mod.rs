//! The commands, a file for each.

pub mod completion;
pub mod create;
pub mod discard;
pub mod doctor;
pub mod explain;
pub mod list;
pub mod pin;
pub mod plan;
pub mod show;
pub mod usage;

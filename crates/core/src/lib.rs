//! What a checkpoint archive is, and which one may go.
//!
//! Everything here is pure: no file system, no network, no clock and no global state. Bytes come
//! in through [`std::io::Read`] + [`std::io::Seek`], the time is an argument, and the one decision
//! this project exists for is one function: [`plan::plan`].

mod annotations;
pub mod archive;
pub mod checkpoint_time;
pub mod confidence;
pub mod creation;
pub mod deletion_limiter;
pub mod duration;
pub mod engine;
pub mod fact;
pub mod handover;
pub mod hold;
pub mod identity;
mod json_scalar;
pub mod name;
pub mod plan;
pub mod pods;
pub mod policy;
pub mod policy_lint;
pub mod quantity;
pub mod quota;
pub mod reclaim;
pub mod report;
pub mod schedule;

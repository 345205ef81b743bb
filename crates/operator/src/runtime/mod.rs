//! What the long-running commands share: guarded watches of the API, the page for probes and
//! metrics, and ending when told to.

pub mod admin;
pub mod events;
pub mod guarded;
pub mod liveness;
pub mod objects;
mod renewal;
pub mod signals;

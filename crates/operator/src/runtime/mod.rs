//! What the long-running commands share: guarded watches of the API, and the page for probes and metrics.

pub mod admin;
pub mod connection;
pub mod guarded;
pub mod objects;

//! What agent and controller share: the client of the API and live requests to it ([`cluster`]), watches of
//! the API ([`watch`], [`cache`]) and what they show of policies ([`policy_objects`]), the lease by which one replica
//! leads ([`lease`], [`election`]), the client of the own node's kubelet ([`kubelet`]), events, and the server for probes and metrics.

pub mod admin;
mod bounded_watch;
pub mod bounds;
pub mod cache;
pub mod cluster;
pub mod definition;
pub mod election;
mod error_text;
pub mod events;
pub mod guarded;
pub mod kubelet;
pub mod lease;
pub mod liveness;
pub mod other_operator;
pub mod policy_objects;
pub mod problem_log;
pub mod quota_objects;
pub mod requests;
pub mod schedule_objects;
pub mod signals;
pub mod telemetry;
pub mod watch;

pub use error_text::{chain, plain};

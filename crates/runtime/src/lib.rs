//! What agent and controller share: the client of the API and live requests to it ([`cluster`]), watches of
//! the API ([`watch`], [`cache`]) and what they show of policies ([`policy_objects`]), the lease by which one replica
//! leads ([`lease`], [`election`]), events, and the server for probes and metrics.

pub mod admin;
pub mod cache;
pub mod cluster;
pub mod election;
pub mod events;
pub mod guarded;
pub mod lease;
pub mod liveness;
pub mod other_operator;
pub mod policy_objects;
pub mod say;
pub mod signals;
pub mod watch;

/// What is wrong, in as few words as tell it.
pub fn plain(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return format!("{} {}: {}", status.code, status.reason, status.message);
    }
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

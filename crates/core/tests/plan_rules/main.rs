//! The plan, rule by rule: what the design says about who governs, what goes and what never does. A file for each rule
//! or promise.
#![allow(clippy::unwrap_used)]

#[path = "../plan_support/mod.rs"]
mod plan_support;

mod ceilings;
mod deletion_limit;
mod dry_runs;
mod fail_closed;
mod foreign_files;
mod governing;
mod newest;
mod order;
mod orphans;
mod pins;
mod tenants;
mod watermark;

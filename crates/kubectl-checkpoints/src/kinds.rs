//! The objects that are shown, as far as it takes: read leniently, as a newer operator may write more.

use checkpoint_keeper_api::ContainerCheckpoint;
use checkpoint_keeper_api::container_checkpoint::{ContainerCheckpointStatus, HELD};
use checkpoint_keeper_core::duration;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;

/// A status that says nothing.
static NONE: std::sync::LazyLock<ContainerCheckpointStatus> =
    std::sync::LazyLock::new(ContainerCheckpointStatus::default);

/// What its agent says of a checkpoint; nothing where it has not yet.
pub fn status(object: &ContainerCheckpoint) -> &ContainerCheckpointStatus {
    object.status.as_ref().unwrap_or(&NONE)
}

/// The condition of that type, if it is about the spec as it is now.
pub fn current<'a>(object: &'a ContainerCheckpoint, type_: &str) -> Option<&'a Condition> {
    let is_current = |condition: &&Condition| condition.observed_generation == object.metadata.generation;
    status(object).condition(type_).filter(is_current)
}

/// Whether the archive is kept from every rule.
pub fn is_held(object: &ContainerCheckpoint) -> bool {
    status(object).condition(HELD).is_some_and(|held| held.status == "True")
}

/// When the checkpoint was taken, or its object made.
pub fn taken(object: &ContainerCheckpoint) -> Option<Timestamp> {
    let created = || object.creation_timestamp().map(|time| time.0);
    status(object).checkpointed_at.as_ref().map(|time| time.0).or_else(created)
}

/// How long ago that was, in the largest two units.
pub fn age(time: Option<Timestamp>, now: Timestamp) -> String {
    let Some(time) = time else { return "-".to_owned() };
    match now.duration_since(time).try_into() {
        Ok(age) => duration::human(age),
        Err(_) => "0s".to_owned(),
    }
}

/// How long it is until then.
pub fn until(time: Option<Timestamp>, now: Timestamp) -> String {
    let Some(time) = time else { return "-".to_owned() };
    match time.duration_since(now).try_into() {
        Ok(left) => format!("in {}", duration::human(left)),
        Err(_) => "now".to_owned(),
    }
}

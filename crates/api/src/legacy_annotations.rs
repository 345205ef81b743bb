//! The annotations that this project adds to the older operator's objects: their names, and which of them are kept in
//! memory. What they mean, each kind says itself.

use std::collections::BTreeMap;

/// The prefix of the annotations that this project adds to the older operator's objects.
pub const ANNOTATION_PREFIX: &str = "checkpoint-keeper.io/";
/// The annotation that says whether an object deletes: `Enforce`, the default, or `DryRun`.
pub const MODE: &str = "checkpoint-keeper.io/mode";
/// The annotation for how many of the newest complete archives of each workload's container survive; default 1.
pub const KEEP_LATEST: &str = "checkpoint-keeper.io/keep-latest";
/// The annotation for how long these do after the workload's last pod left the node; default `7d`.
pub const KEEP_LATEST_FOR: &str = "checkpoint-keeper.io/keep-latest-for";
/// The annotation for how long orphans stay where `retainOrphan` is false; default `1h`.
pub const ORPHAN_GRACE_PERIOD: &str = "checkpoint-keeper.io/orphan-grace-period";
/// The annotation that stops a schedule of the older operator while it is `true`.
pub const SUSPEND: &str = "checkpoint-keeper.io/suspend";

/// The most annotations of an object that are kept.
const MOST_ANNOTATIONS: usize = 8;
/// The longest value of such an annotation that is kept, in bytes; a longer one is refused all the same.
const LONGEST_ANNOTATION: usize = 64;

/// The annotations that decisions depend on. A user may add many others, so no others are kept in memory.
pub fn deciding_annotations(annotations: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let ours = annotations.into_iter().filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX));
    let known = [MODE, KEEP_LATEST, KEEP_LATEST_FOR, ORPHAN_GRACE_PERIOD, SUSPEND];
    let (mut kept, unknown): (BTreeMap<_, _>, BTreeMap<_, _>) =
        ours.partition(|(key, _)| known.contains(&key.as_str()));
    let room = MOST_ANNOTATIONS - kept.len();
    kept.extend(unknown.into_iter().take(room));
    for value in kept.values_mut() {
        value.truncate(value.floor_char_boundary(LONGEST_ANNOTATION));
    }
    kept
}

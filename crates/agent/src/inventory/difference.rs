//! What is to be done so that disk and API say the same of each archive. Pure.

use std::collections::{BTreeMap, BTreeSet};

use checkpoint_keeper_api::ContainerCheckpoint;
use checkpoint_keeper_api::container_checkpoint::{
    ContainerCheckpointStatus, DISCARDED, DiscardSpec, HELD, HeldReason, HoldSpec,
};
use checkpoint_keeper_api::scalars::{ReasonText, UserName};
use checkpoint_keeper_core::hold::{Hold, HoldStep, Marker, Wish, step};
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::FileId;
use checkpoint_keeper_core::quantity::human;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;

use super::entries::{Entries, Entry, HiddenPin, Key, MaxHeld, seconds};

/// An object of this node, as far as it matters.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Object {
    pub(super) uid: String,
    /// Which version of the object it is, as the API server names it.
    pub(super) version: String,
    pub(super) generation: i64,
    pub(super) hold: Option<Hold>,
    /// Who asked for the archive's deletion and why; none: it is not asked for.
    pub(super) discard: Option<String>,
    /// Whether it is being deleted.
    pub(super) is_ending: bool,
    /// The UIDs of the objects that it is deleted with.
    pub(super) owners: Vec<String>,
    pub(super) status: Option<ContainerCheckpointStatus>,
}

impl Object {
    pub(super) fn of(object: &ContainerCheckpoint) -> Self {
        Self {
            uid: object.metadata.uid.clone().unwrap_or_default(),
            version: object.metadata.resource_version.clone().unwrap_or_default(),
            generation: object.metadata.generation.unwrap_or(0),
            hold: object.spec.hold.as_ref().map(hold_of),
            discard: object.spec.discard.as_ref().map(said),
            is_ending: object.metadata.deletion_timestamp.is_some(),
            owners: object.owner_references().iter().map(|owner| owner.uid.clone()).collect(),
            status: object.status.clone(),
        }
    }

    /// What it asks for. Only what the agent of this very node wrote into its status counts.
    fn wish(&self, entry: &Entry) -> Wish {
        let own = self.status.as_ref().filter(|status| status.node_name == entry.status.node_name);
        let held = own.and_then(|status| status.condition(HELD));
        let held = held.filter(|held| held.status == "True" && held.reason == HeldReason::Held.name());
        let observed = held.and_then(|held| held.observed_generation);
        Wish {
            hold: self.hold.clone(),
            was_held_before: observed.is_some_and(|generation| generation < self.generation),
            is_answered: observed == Some(self.generation),
        }
    }

    /// Whether it asks for something that its status does not answer yet. A deletion is answered by the archive's end.
    fn is_asking(&self) -> bool {
        let held = self.status.as_ref().and_then(|status| status.condition(HELD));
        let is_answered = held.is_some_and(|held| held.observed_generation == Some(self.generation));
        !self.is_ending && (self.discard.is_some() || self.hold.is_some() && !is_answered)
    }

    /// Whether its status says that the archive is held.
    fn is_held(&self) -> bool {
        let held = self.status.as_ref().and_then(|status| status.condition(HELD));
        held.is_some_and(|held| held.status == "True")
    }
}

fn hold_of(spec: &HoldSpec) -> Hold {
    Hold {
        reason: spec.reason.0.clone(),
        until: spec.until.as_ref().map(|until| until.0),
        by: spec.by.as_ref().map(|by| by.0.clone()),
    }
}

/// A hold as a spec says it.
pub(super) fn spec_of(hold: &Hold) -> HoldSpec {
    HoldSpec {
        reason: ReasonText(hold.reason.clone()),
        until: hold.until.map(seconds),
        by: hold.by.clone().map(UserName),
    }
}

/// What lies beside each archive that is pinned or whose object has a hold.
pub(super) type Markers = BTreeMap<Key, Marker>;

/// The objects of this node.
pub(super) type Objects = BTreeMap<Key, Object>;

/// How many archives users of each namespace hold, and their bytes.
pub(super) type HeldSums = BTreeMap<String, (u64, u64)>;

/// Adds an archive to the sums.
pub(super) fn add(sums: &mut HeldSums, namespace: String, bytes: u64) {
    let sum = sums.entry(namespace).or_default();
    *sum = (sum.0 + 1, sum.1.saturating_add(bytes));
}

/// The objects that ask for something that was not answered yet.
pub(super) fn asking(objects: &Objects) -> BTreeSet<Key> {
    objects.iter().filter(|(_, object)| object.is_asking()).map(|(key, _)| key.clone()).collect()
}

/// The archives that are not shown of which it has to be known whether users hold them: those of namespaces in which
/// another one is to be held, where not as many may be as they like.
pub(super) fn hidden_to_be_read(entries: &Entries, objects: &Objects, markers: &Markers) -> Vec<HiddenPin> {
    if entries.max_held == MaxHeld::default() || entries.hidden_pins.is_empty() {
        return Vec::new();
    }
    let is_new = |key: &Key| !markers.get(key).is_some_and(|marker| *marker != Marker::None);
    let wanted = objects.iter().filter(|(key, object)| object.hold.is_some() && is_new(key));
    let namespaces: BTreeSet<&str> = wanted.map(|(key, _)| key.0.as_str()).collect();
    let is_theirs =
        |pin: &&HiddenPin| pin.namespace.as_deref().is_some_and(|namespace| namespaces.contains(namespace));
    entries.hidden_pins.iter().filter(is_theirs).cloned().collect()
}

/// The archives of which it has to be known what lies beside them.
pub(super) fn to_be_read(entries: &Entries, objects: &Objects) -> Vec<(Key, FileName)> {
    let is_concerned = |(key, entry): &(&Key, &Entry)| {
        entry.is_pinned || objects.get(*key).is_some_and(|object| object.hold.is_some() || object.is_held())
    };
    let concerned = entries.shown.iter().filter(is_concerned);
    concerned.map(|(key, entry)| (key.clone(), entry.file.clone())).collect()
}

/// Why a hold that was asked for is not in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoHold {
    /// The namespace's users hold as much as they may.
    Refused(String),
    /// The archive was deleted before.
    Gone,
    /// The marker could not be written.
    Failed(String),
}

/// A change of what lies beside an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MarkerChange {
    pub(super) key: Key,
    pub(super) file: FileName,
    pub(super) file_id: FileId,
    /// The hold that is to be there; none: none.
    pub(super) hold: Option<Hold>,
}

/// What is to be changed on the disk, and which holds are refused. `hidden` is what users hold of archives that are not
/// shown.
pub(super) fn marker_changes(
    entries: &Entries,
    objects: &Objects,
    markers: &Markers,
    hidden: &HeldSums,
    now: Timestamp,
) -> (Vec<MarkerChange>, BTreeMap<Key, NoHold>) {
    let mut sums = hidden.clone();
    for (key, entry) in &entries.shown {
        if matches!(markers.get(key), Some(Marker::Hold(_))) {
            add(&mut sums, key.0.clone(), entry.bytes);
        }
    }
    let (mut changes, mut refused) = (Vec::new(), BTreeMap::new());
    for (key, entry) in &entries.shown {
        let marker = markers.get(key).unwrap_or(&Marker::None);
        let wish = objects.get(key).map(|object| object.wish(entry));
        let hold = match step(marker, wish.as_ref(), entries.believed(now), entries.clock) {
            HoldStep::None | HoldStep::Restore(_) => continue,
            HoldStep::Remove => None,
            HoldStep::Write(hold) => Some(hold),
        };
        if hold.is_some() && *marker == Marker::None {
            let sum = sums.entry(key.0.clone()).or_default();
            let (count, bytes) = (sum.0 + 1, sum.1.saturating_add(entry.bytes));
            if let Some(why) = too_much(entries.max_held, count, bytes) {
                refused.insert(key.clone(), NoHold::Refused(why));
                continue;
            }
            *sum = (count, bytes);
        }
        changes.push(MarkerChange {
            key: key.clone(),
            file: entry.file.clone(),
            file_id: entry.file_id,
            hold,
        });
    }
    (changes, refused)
}

/// Why a namespace may not hold so much.
fn too_much(max: MaxHeld, count: u64, bytes: u64) -> Option<String> {
    if max.count == Some(0) || max.bytes == Some(0) {
        return Some("the cluster's storage policy lets the users of a namespace hold nothing".to_owned());
    }
    if let Some(max) = max.count.filter(|max| count > *max) {
        return Some(format!(
            "this would be archive {count} that the namespace holds on this node, of at most {max} that the cluster's \
             storage policy allows"
        ));
    }
    let max = max.bytes.filter(|max| bytes > *max)?;
    let (bytes, max) = (human(bytes), human(max));
    Some(format!(
        "with this one the namespace would hold {bytes} on this node, of at most {max} that the cluster's storage \
         policy allows"
    ))
}

/// A write to the API.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ApiWrite {
    /// Make the object of an archive, with the hold that is in force.
    Create(Key, Option<Hold>),
    /// Have it deleted with the node's store of that UID, and so with the node.
    Own(Key, String),
    /// Give back the hold that is in force.
    Restore(Key, Hold),
    /// Say how it is.
    Status(Key, Box<ContainerCheckpointStatus>),
    /// Take an object away whose archive is gone, or not shown any more: this UID, in this version.
    Delete(Key, String, String),
}

impl ApiWrite {
    pub(super) fn key(&self) -> &Key {
        match self {
            Self::Create(key, _)
            | Self::Own(key, _)
            | Self::Restore(key, _)
            | Self::Status(key, _)
            | Self::Delete(key, ..) => key,
        }
    }
}

/// What is to be written to the API, once the disk is as it should be. `store` is the UID of the node's store, if there is
/// one.
pub(super) fn api_writes(
    entries: &Entries,
    objects: &Objects,
    markers: &Markers,
    no_holds: &BTreeMap<Key, NoHold>,
    store: Option<&str>,
    now: Timestamp,
) -> Vec<ApiWrite> {
    let mut writes = Vec::new();
    for (key, object) in objects {
        // Of one that asks for something, it has to have been seen that its archive is not there.
        let is_seen = !object.is_asking() || entries.asking.contains(key);
        if !entries.shown.contains_key(key) && !object.is_ending && is_seen {
            writes.push(ApiWrite::Delete(key.clone(), object.uid.clone(), object.version.clone()));
        }
    }
    for (key, entry) in &entries.shown {
        let marker = markers.get(key).unwrap_or(&Marker::None);
        let Some(object) = objects.get(key) else {
            if entry.is_home_known {
                let hold = match marker {
                    Marker::Hold(hold) => Some(hold.clone()),
                    Marker::None | Marker::Foreign => None,
                };
                writes.push(ApiWrite::Create(key.clone(), hold));
            }
            continue;
        };
        if object.is_ending {
            continue;
        }
        if let Some(store) = store.filter(|store| object.owners != [*store]) {
            writes.push(ApiWrite::Own(key.clone(), store.to_owned()));
        }
        let restore = match step(marker, Some(&object.wish(entry)), entries.believed(now), entries.clock) {
            HoldStep::Restore(hold) => Some(hold),
            HoldStep::None | HoldStep::Write(_) | HoldStep::Remove => None,
        };
        let seen = Seen { entry, object, marker, is_restored: restore.is_some(), no_hold: no_holds.get(key) };
        // Beside a discard the API takes none: the hold then stays on the disk alone.
        if let Some(hold) = restore.filter(|_| object.discard.is_none()) {
            writes.push(ApiWrite::Restore(key.clone(), hold));
        }
        let status = seen.status(now);
        if object.status.as_ref() != Some(&status) {
            writes.push(ApiWrite::Status(key.clone(), Box::new(status)));
        }
    }
    writes
}

/// The archives whose deletion was asked for through their objects.
pub(super) fn discards(entries: &Entries, objects: &Objects) -> BTreeMap<FileName, FileId> {
    let is_asked = |key: &Key| objects.get(key).is_some_and(|object| object.discard.is_some());
    let asked = entries.shown.iter().filter(|(key, _)| is_asked(key));
    asked.map(|(_, entry)| (entry.file.clone(), entry.file_id)).collect()
}

/// Of these archives, who asked for the deletion and why.
pub(super) fn discard_reasons(entries: &Entries, objects: &Objects) -> BTreeMap<FileName, String> {
    let reason =
        |(key, entry): (&Key, &Entry)| Some((entry.file.clone(), objects.get(key)?.discard.clone()?));
    entries.shown.iter().filter_map(reason).collect()
}

/// `by alice: holds a key`
fn said(discard: &DiscardSpec) -> String {
    match &discard.by {
        Some(by) => format!("by {}: {}", by.0, discard.reason.0),
        None => discard.reason.0.clone(),
    }
}

/// What the status of an object is made from.
struct Seen<'a> {
    entry: &'a Entry,
    object: &'a Object,
    marker: &'a Marker,
    /// Whether the object lacks the hold that is in force, and gets it back.
    is_restored: bool,
    no_hold: Option<&'a NoHold>,
}

impl Seen<'_> {
    fn status(&self, now: Timestamp) -> ContainerCheckpointStatus {
        let (reason, message) = self.held();
        let is_held = reason.status() == "True";
        let before = self.object.status.as_ref().and_then(|before| before.condition(HELD));
        // A hold that was taken out and is still there could not be removed: that it was is not to be forgotten.
        let is_unremoved = reason == HeldReason::Held && self.object.hold.is_none();
        let held = match before.filter(|_| is_unremoved) {
            Some(before) => before.clone(),
            None => self.condition(HELD, (is_held, reason.name(), message), now),
        };
        let mut conditions = vec![held];
        if self.object.discard.is_some() {
            let (reason, message) = if is_held {
                ("Pinned", "The archive is pinned: it is deleted once nothing keeps it any more.".to_owned())
            } else {
                ("Waiting", "The archive is to be deleted.".to_owned())
            };
            conditions.push(self.condition(DISCARDED, (false, reason, message), now));
        }
        ContainerCheckpointStatus {
            observed_generation: Some(self.object.generation),
            conditions,
            ..self.entry.status.clone()
        }
    }

    fn held(&self) -> (HeldReason, String) {
        match (self.marker, self.no_hold) {
            (Marker::Hold(hold), _) => {
                let until = hold.until.map(|until| format!(" until {until}")).unwrap_or_default();
                let by = hold.by.as_ref().map(|by| format!(", by {by}")).unwrap_or_default();
                let differs = if self.object.hold.as_ref().is_some_and(|wanted| wanted != hold) {
                    " (The spec has another hold, which was in force before and may be from a backup: change it, and \
                     it counts.)"
                } else {
                    ""
                };
                let message = format!("Held{until}{by}: {}{differs}", hold.reason);
                // Only what the object itself asks for can be ended by taking it out there.
                (if self.is_restored { HeldReason::Restoring } else { HeldReason::Held }, message)
            }
            (Marker::Foreign, _) => {
                let message = "A marker beside the archive pins it, which was put there on the node; it can only be \
                               removed there.";
                (HeldReason::PinnedOnNode, message.to_owned())
            }
            (Marker::None, Some(NoHold::Refused(why))) => {
                (HeldReason::MaxHeldExceeded, format!("Not held: {why}."))
            }
            (Marker::None, Some(NoHold::Gone)) => {
                (HeldReason::ArchiveGone, "The archive was deleted before it could be held.".to_owned())
            }
            (Marker::None, Some(NoHold::Failed(why))) => {
                (HeldReason::HoldFailed, format!("Not held yet: {why}."))
            }
            (Marker::None, None) if self.object.hold.is_some() => {
                (HeldReason::HoldExpired, "spec.hold.until is over.".to_owned())
            }
            (Marker::None, None) => (HeldReason::NotHeld, "Policies decide about the archive.".to_owned()),
        }
    }

    fn condition(
        &self,
        type_: &str,
        (status, reason, message): (bool, &str, String),
        now: Timestamp,
    ) -> Condition {
        let status = if status { "True" } else { "False" };
        let before = self.object.status.as_ref().and_then(|before| before.condition(type_));
        let same = before.filter(|before| before.status == status);
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.chars().take(1_024).collect(),
            observed_generation: Some(self.object.generation),
            last_transition_time: same
                .map_or_else(|| Time(seconds(now).0), |same| same.last_transition_time.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_core::plan::Clock;

    use super::super::entries::tests::{at, entries_of};
    use super::*;

    /// The UID of the node's store.
    const STORE: Option<&str> = Some("store");

    fn now() -> Timestamp {
        at("2026-11-27T12:00:00Z")
    }

    /// An API and a disk that do what they are told, for as long as there is anything to do.
    #[derive(Default)]
    struct World {
        objects: Objects,
        markers: Markers,
        /// What is held of archives that are not shown.
        hidden: HeldSums,
        /// How many writes the API saw.
        writes: usize,
    }

    impl World {
        fn settle(&mut self, entries: &Entries) {
            for _ in 0..10 {
                let (changes, refused) =
                    marker_changes(entries, &self.objects, &self.markers, &self.hidden, now());
                let is_disk_settled = changes.is_empty();
                for change in changes {
                    let marker = change.hold.map_or(Marker::None, Marker::Hold);
                    self.markers.insert(change.key, marker);
                }
                let writes = api_writes(entries, &self.objects, &self.markers, &refused, STORE, now());
                if is_disk_settled && writes.is_empty() {
                    return;
                }
                self.writes += writes.len();
                writes.into_iter().for_each(|write| self.carry_out(write));
            }
            panic!("it does not settle: {:?}", self.objects);
        }

        fn carry_out(&mut self, write: ApiWrite) {
            match write {
                ApiWrite::Create(key, hold) => {
                    let object = Object {
                        uid: format!("uid-{}", self.writes),
                        version: String::new(),
                        generation: 1,
                        hold,
                        discard: None,
                        is_ending: false,
                        owners: vec!["store".to_owned()],
                        status: None,
                    };
                    assert!(self.objects.insert(key, object).is_none(), "it was there already");
                }
                ApiWrite::Own(key, store) => {
                    self.objects.get_mut(&key).unwrap().owners = vec![store];
                }
                ApiWrite::Restore(key, hold) => {
                    self.edit(&key, |object| object.hold = Some(hold));
                }
                ApiWrite::Status(key, status) => {
                    self.objects.get_mut(&key).unwrap().status = Some(*status);
                }
                ApiWrite::Delete(key, ..) => _ = self.objects.remove(&key).unwrap(),
            }
        }

        /// A user changes a spec.
        fn edit(&mut self, key: &Key, change: impl FnOnce(&mut Object)) {
            let object = self.objects.get_mut(key).unwrap();
            change(object);
            object.generation += 1;
        }

        fn held(&self, key: &Key) -> (bool, String) {
            let condition = self.objects[key].status.as_ref().unwrap().condition(HELD).unwrap();
            (condition.status == "True", condition.reason.clone())
        }

        fn is_pinned(&self, key: &Key) -> bool {
            self.markers.get(key).is_some_and(|marker| *marker != Marker::None)
        }
    }

    fn hold(reason: &str) -> Hold {
        Hold { reason: reason.to_owned(), until: None, by: None }
    }

    /// An archive whose object is there.
    fn shown_archive() -> (Entries, Key, World) {
        let entries = entries_of(&[1]);
        let key = entries.shown.keys().next().unwrap().clone();
        let mut world = World::default();
        world.settle(&entries);
        (entries, key, world)
    }

    /// An archive that a user holds.
    fn held_archive() -> (Entries, Key, World) {
        let (entries, key, mut world) = shown_archive();
        world.edit(&key, |object| object.hold = Some(hold("evidence")));
        world.settle(&entries);
        (entries, key, world)
    }

    #[test]
    fn an_agent_that_starts_anew_writes_nothing_of_what_is_there() {
        let entries = entries_of(&[1, 2, 3]);
        let mut world = World::default();
        world.settle(&entries);
        // Each is made, and its status written.
        assert_eq!((world.objects.len(), world.writes), (3, 6));
        let (before, writes) = (world.objects.clone(), world.writes);
        let later = at("2026-11-28T12:00:00Z");
        assert_eq!(api_writes(&entries, &world.objects, &world.markers, &BTreeMap::new(), STORE, later), []);
        world.settle(&entries);
        assert_eq!((world.objects, world.writes), (before, writes));
    }

    #[test]
    fn an_object_goes_with_its_archive() {
        let mut world = World::default();
        world.settle(&entries_of(&[1, 2]));
        world.settle(&entries_of(&[2]));
        assert_eq!(
            world.objects.keys().collect::<Vec<_>>(),
            entries_of(&[2]).shown.keys().collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_hold_outlives_its_object_its_status_and_an_object_that_knows_nothing_of_it() {
        let (entries, key, mut world) = shown_archive();
        world.edit(&key, |object| object.hold = Some(hold("incident 4711")));
        world.settle(&entries);
        assert_eq!(world.held(&key), (true, "Held".to_owned()));
        // The object, its namespace or the kind is deleted.
        world.objects.clear();
        world.settle(&entries);
        assert_eq!(world.objects[&key].hold, Some(hold("incident 4711")));
        // It is brought back from a backup that is older than the hold, with or without what the status said.
        for status in [None, world.objects[&key].status.clone()] {
            let older = Object {
                uid: "other".to_owned(),
                generation: 1,
                hold: None,
                status,
                ..world.objects[&key].clone()
            };
            world.objects.insert(key.clone(), older);
            world.settle(&entries);
            assert!(world.is_pinned(&key));
            assert_eq!(world.objects[&key].hold, Some(hold("incident 4711")));
        }
    }

    #[test]
    fn a_hold_outlives_an_object_with_an_older_hold_from_a_backup() {
        let until = |time: &str| Some(Hold { until: Some(at(time)), ..hold("incident 4711") });
        // The backup's hold is over, it ends earlier, it ends later, and it does not end.
        for older in ["2026-11-01T00:00:00Z", "2027-01-01T00:00:00Z", "2029-01-01T00:00:00Z", ""] {
            let older = if older.is_empty() { Some(hold("incident 4711")) } else { until(older) };
            let (entries, key, mut world) = shown_archive();
            world.edit(&key, |object| object.hold = until("2026-12-01T00:00:00Z"));
            world.settle(&entries);
            let mut backup = Object { hold: older, ..world.objects[&key].clone() };
            world.edit(&key, |object| object.hold = until("2028-01-01T00:00:00Z"));
            world.settle(&entries);
            backup.uid = "restored".to_owned();
            world.objects.insert(key.clone(), backup);
            world.settle(&entries);
            assert_eq!(world.markers[&key], Marker::Hold(until("2028-01-01T00:00:00Z").unwrap()));
            let held = world.objects[&key].status.as_ref().unwrap().condition(HELD).unwrap();
            assert!(held.status == "True" && held.message.contains("from a backup"), "{}", held.message);
            // What a user changes from there counts.
            world.edit(&key, |object| object.hold = until("2026-12-24T00:00:00Z"));
            world.settle(&entries);
            assert_eq!(world.markers[&key], Marker::Hold(until("2026-12-24T00:00:00Z").unwrap()));
        }
    }

    #[test]
    fn what_a_user_takes_out_of_a_live_object_ends() {
        let (entries, key, mut world) = shown_archive();
        for _ in 0..2 {
            world.edit(&key, |object| object.hold = Some(hold("incident 4711")));
            world.settle(&entries);
            assert!(world.is_pinned(&key));
            world.edit(&key, |object| object.hold = None);
            world.settle(&entries);
            assert!(!world.is_pinned(&key));
            assert_eq!(world.held(&key), (false, "NotHeld".to_owned()));
        }
        // Also of an object that was made anew with its hold.
        world.edit(&key, |object| object.hold = Some(hold("incident 4712")));
        world.settle(&entries);
        world.objects.clear();
        world.settle(&entries);
        world.edit(&key, |object| object.hold = None);
        world.settle(&entries);
        assert!(!world.is_pinned(&key));
    }

    #[test]
    fn a_discard_beside_a_hold_that_the_object_lacks_ends_no_hold() {
        let (entries, key, mut world) = held_archive();
        let bare = Object { hold: None, status: None, generation: 1, ..world.objects[&key].clone() };
        world.objects.insert(key.clone(), bare);
        // The status is written, and before the hold is back the user asks for the deletion.
        let writes = api_writes(&entries, &world.objects, &world.markers, &BTreeMap::new(), STORE, now());
        for write in writes {
            if matches!(write, ApiWrite::Status(..)) {
                world.carry_out(write);
            }
        }
        world.edit(&key, |object| object.discard = Some("too much".to_owned()));
        let (changes, _) = marker_changes(&entries, &world.objects, &world.markers, &world.hidden, now());
        assert_eq!(changes, []);
        assert_eq!(discards(&entries, &world.objects).len(), 1);
        let reasons = discard_reasons(&entries, &world.objects);
        assert_eq!(reasons.into_values().collect::<Vec<_>>(), ["too much"]);
        let writes = api_writes(&entries, &world.objects, &world.markers, &BTreeMap::new(), STORE, now());
        // The API takes no hold beside a discard: it stays on the disk, and that is said.
        assert!(!writes.iter().any(|write| matches!(write, ApiWrite::Restore(..))), "{writes:?}");
        world.settle(&entries);
        assert!(world.is_pinned(&key));
        let status = world.objects[&key].status.as_ref().unwrap();
        assert_eq!(status.condition(DISCARDED).unwrap().reason, "Pinned");
    }

    #[test]
    fn no_more_is_held_than_may_be_and_the_figure_is_said() {
        let mut entries = entries_of(&[1, 2, 3]);
        entries.max_held.count = Some(2);
        let keys: Vec<Key> = entries.shown.keys().cloned().collect();
        let mut world = World::default();
        world.settle(&entries);
        for key in &keys {
            world.edit(key, |object| object.hold = Some(hold("mine")));
        }
        world.settle(&entries);
        assert!(world.is_pinned(&keys[0]) && world.is_pinned(&keys[1]) && !world.is_pinned(&keys[2]));
        let refused = world.objects[&keys[2]].status.as_ref().unwrap().condition(HELD).unwrap();
        assert_eq!(refused.reason, "MaxHeldExceeded");
        assert!(
            refused.message.contains("archive 3") && refused.message.contains("at most 2"),
            "{}",
            refused.message
        );
        // One that ends makes room.
        world.edit(&keys[0], |object| object.hold = None);
        world.settle(&entries);
        assert!(!world.is_pinned(&keys[0]) && world.is_pinned(&keys[2]));
        entries.max_held = MaxHeld { count: None, bytes: Some(2 * 1_234_567) };
        world.edit(&keys[0], |object| object.hold = Some(hold("mine")));
        world.settle(&entries);
        assert!(!world.is_pinned(&keys[0]));
        // What is held already stays so when the limit is lowered.
        entries.max_held.bytes = Some(1);
        world.settle(&entries);
        assert!(world.is_pinned(&keys[1]) && world.is_pinned(&keys[2]));
    }

    #[test]
    fn where_nothing_may_be_held_every_hold_is_refused() {
        let of_empty = |entries: &mut Entries| entries.shown.values_mut().for_each(|entry| entry.bytes = 0);
        for (max_held, change) in [
            (MaxHeld { count: Some(0), bytes: None }, None),
            (MaxHeld { count: None, bytes: Some(0) }, None),
            (MaxHeld { count: None, bytes: Some(0) }, Some(of_empty)),
        ] {
            let (mut entries, key, mut world) = shown_archive();
            change.into_iter().for_each(|change| change(&mut entries));
            entries.max_held = max_held;
            world.edit(&key, |object| object.hold = Some(hold("mine")));
            world.settle(&entries);
            assert_eq!(world.held(&key), (false, "MaxHeldExceeded".to_owned()));
            let held = world.objects[&key].status.as_ref().unwrap().condition(HELD).unwrap();
            assert!(held.message.contains("hold nothing"), "{}", held.message);
        }
    }

    #[test]
    fn what_is_held_of_archives_that_are_not_shown_counts_as_well() {
        let (mut entries, key, mut world) = shown_archive();
        entries.max_held.count = Some(3);
        let pin = |namespace: &str| HiddenPin {
            file: FileName::new(format!("checkpoint-{namespace}.tar").into_bytes()).unwrap(),
            bytes: 1,
            namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
        };
        entries.hidden_pins = vec![pin("shop"), pin("other"), pin(""), pin("shop")];
        // As long as nothing is to be held, it need not be known.
        assert_eq!(hidden_to_be_read(&entries, &world.objects, &world.markers), []);
        world.edit(&key, |object| object.hold = Some(hold("mine")));
        let read = hidden_to_be_read(&entries, &world.objects, &world.markers);
        assert_eq!(read, [pin("shop"), pin("shop")]);
        world.hidden = HeldSums::from([("shop".to_owned(), (3, 3)), ("other".to_owned(), (9, 9))]);
        world.settle(&entries);
        assert_eq!(world.held(&key), (false, "MaxHeldExceeded".to_owned()));
        let held = world.objects[&key].status.as_ref().unwrap().condition(HELD).unwrap();
        assert!(held.message.contains("archive 4"), "{}", held.message);
        world.hidden = HeldSums::from([("shop".to_owned(), (2, 2))]);
        world.settle(&entries);
        assert_eq!(world.held(&key), (true, "Held".to_owned()));
        // It is known already of what is in force.
        assert_eq!(hidden_to_be_read(&entries, &world.objects, &world.markers), []);
        entries.max_held = MaxHeld::default();
        world.markers.clear();
        assert_eq!(hidden_to_be_read(&entries, &world.objects, &world.markers), []);
    }

    #[test]
    fn what_an_object_asks_is_not_lost_when_its_archive_is_no_longer_among_the_newest() {
        let (entries, key, mut world) = shown_archive();
        let others = entries_of(&[2, 3]);
        let discard = |object: &mut Object| object.discard = Some("too much".to_owned());
        let hold = |object: &mut Object| (object.discard, object.hold) = (None, Some(hold("mine")));
        for ask in [discard as fn(&mut Object), hold] {
            world.edit(&key, ask);
            // Newer ones have its place, in a plan that did not know of it.
            assert_eq!(asking(&world.objects), BTreeSet::from([key.clone()]));
            world.settle(&others);
            assert!(world.objects.contains_key(&key));
            // The next one does, and shows it beside them.
            let mut next = others.clone();
            next.asking = asking(&world.objects).into();
            next.shown.extend(entries.shown.clone());
            world.settle(&next);
            assert!(world.is_pinned(&key) || discards(&next, &world.objects).len() == 1);
            // Or its archive is gone.
            next.shown.remove(&key);
            let mut ended = World { objects: world.objects.clone(), ..World::default() };
            ended.settle(&next);
            assert!(!ended.objects.contains_key(&key));
        }
        // A hold that is in force asks for nothing more, and one that was refused was answered.
        assert_eq!(asking(&world.objects), BTreeSet::new());
        world.settle(&others);
        assert!(!world.objects.contains_key(&key) && world.is_pinned(&key));
    }

    #[test]
    fn an_object_goes_with_the_store_of_its_node_that_there_is_now() {
        let (entries, key, mut world) = shown_archive();
        for owners in [vec![], vec!["an earlier one".to_owned()]] {
            world.objects.get_mut(&key).unwrap().owners = owners;
            let writes =
                |store| api_writes(&entries, &world.objects, &world.markers, &BTreeMap::new(), store, now());
            assert_eq!(writes(None), [], "there is none yet");
            assert_eq!(writes(STORE), [ApiWrite::Own(key.clone(), "store".to_owned())]);
            world.settle(&entries);
            assert_eq!(world.objects[&key].owners, ["store"]);
        }
    }

    #[test]
    fn until_ends_a_hold_and_the_object_says_so() {
        let (mut entries, key, mut world) = shown_archive();
        let until = Some(at("2026-11-27T11:59:59Z"));
        world.markers.insert(key.clone(), Marker::Hold(Hold { until, ..hold("evidence") }));
        world.edit(&key, |object| object.hold = Some(Hold { until, ..hold("evidence") }));
        entries.clock = Clock::Suspect;
        world.settle(&entries);
        assert_eq!(world.held(&key), (true, "Held".to_owned()));
        entries.clock = Clock::Trusted;
        world.settle(&entries);
        assert_eq!(world.held(&key), (false, "HoldExpired".to_owned()));
        assert!(!world.is_pinned(&key));
    }

    #[test]
    fn a_clock_that_was_set_since_it_was_judged_ends_no_hold() {
        let mut entries = entries_of(&[1]);
        let key = entries.shown.keys().next().unwrap().clone();
        let until = Some(at("2026-11-27T11:59:59Z"));
        let mut world = World::default();
        world.settle(&entries);
        world.markers.insert(key.clone(), Marker::Hold(Hold { until, ..hold("evidence") }));
        world.edit(&key, |object| object.hold = Some(Hold { until, ..hold("evidence") }));
        entries.judged_at = at("2026-11-27T11:00:00Z");
        world.settle(&entries);
        assert!(world.is_pinned(&key));
        entries.judged_at = now();
        world.settle(&entries);
        assert!(!world.is_pinned(&key));
    }

    #[test]
    fn a_hold_that_could_not_be_removed_is_removed_later() {
        let (entries, key, mut world) = held_archive();
        world.edit(&key, |object| object.hold = None);
        // The disk refuses, and the status is written all the same.
        let no_holds = BTreeMap::from([(key.clone(), NoHold::Failed("read-only".to_owned()))]);
        for write in api_writes(&entries, &world.objects, &world.markers, &no_holds, STORE, now()) {
            world.carry_out(write);
        }
        assert!(world.is_pinned(&key));
        world.settle(&entries);
        assert!(!world.is_pinned(&key));
        assert_eq!(world.held(&key), (false, "NotHeld".to_owned()));
    }

    #[test]
    fn what_another_node_says_of_a_hold_ends_none() {
        let (entries, key, mut world) = held_archive();
        world.edit(&key, |object| {
            object.hold = None;
            object.status.as_mut().unwrap().node_name = "node-2".to_owned();
        });
        world.settle(&entries);
        assert!(world.is_pinned(&key));
    }

    #[test]
    fn the_marker_of_what_the_status_says_is_held_is_read_before_a_view_shows_it() {
        let (entries, key, mut world) = held_archive();
        world.edit(&key, |object| object.hold = None);
        assert!(!entries.shown[&key].is_pinned);
        assert_eq!(to_be_read(&entries, &world.objects).len(), 1);
    }

    #[test]
    fn a_pin_on_the_node_is_shown_and_cannot_be_ended_through_the_api() {
        let entries = entries_of(&[1]);
        let key = entries.shown.keys().next().unwrap().clone();
        let mut world = World::default();
        world.markers.insert(key.clone(), Marker::Foreign);
        world.settle(&entries);
        assert_eq!(world.held(&key), (true, "PinnedOnNode".to_owned()));
        world.edit(&key, |object| object.hold = Some(hold("mine")));
        world.settle(&entries);
        world.edit(&key, |object| object.hold = None);
        world.settle(&entries);
        assert_eq!(world.markers[&key], Marker::Foreign);
    }

    #[test]
    fn of_an_archive_whose_namespace_is_in_doubt_no_object_is_made_and_none_taken_away() {
        let mut entries = entries_of(&[1]);
        let mut world = World::default();
        entries.shown.values_mut().for_each(|entry| entry.is_home_known = false);
        world.settle(&entries);
        assert_eq!(world.objects.len(), 0);
        world.settle(&entries_of(&[1]));
        world.settle(&entries);
        assert_eq!(world.objects.len(), 1);
    }
}

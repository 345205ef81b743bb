//! Which archives of a view the API shows, and as what. Pure.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use checkpoint_keeper_api::container_checkpoint::{
    CheckpointState, ContainerCheckpointStatus, CreatedBy, OwnerReference, fnv,
};
use checkpoint_keeper_api::node_store::{ArchiveStatus, MOST_WITHOUT_NAMESPACE};
use checkpoint_keeper_api::scalars::QuantityText;
use checkpoint_keeper_core::engine::View;
use checkpoint_keeper_core::identity::Identity;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::{Archive, Clock, Dated, EffectiveStorage, FileId, Home};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The namespace and the name of an object.
pub(super) type Key = (String, String);

/// The archives of a node that the API shows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Entries {
    /// Each by its object.
    pub(super) shown: BTreeMap<Key, Entry>,
    /// What is not shown.
    pub(crate) unlisted: Unlisted,
    /// Whether the clock could be trusted when it was judged last.
    pub(super) clock: Clock,
    /// When that was: by a later time no hold ends, as the clock may have been set since.
    pub(super) judged_at: Timestamp,
    /// The pinned archives that are not shown: their holds end as well, and count.
    pub(super) hidden_pins: Vec<HiddenPin>,
    /// The objects that were known to ask for something when it was said which archives are shown: theirs are.
    pub(super) asking: Arc<BTreeSet<Key>>,
    /// What a namespace's users may hold.
    pub(super) max_held: MaxHeld,
}

/// A pinned archive that is not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HiddenPin {
    pub(super) file: FileName,
    pub(super) bytes: u64,
    /// The namespace whose users may have pinned it; none: it is from no namespace that is there.
    pub(super) namespace: Option<String>,
}

/// The archives that have no object.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Unlisted {
    /// How many are of namespaces that are there, and more than may be shown.
    pub(crate) left_out: u64,
    /// The largest of those that no namespace has.
    pub(crate) homeless: Vec<ArchiveStatus>,
    /// How many more of these there are.
    pub(crate) more_homeless: u64,
}

impl Unlisted {
    /// Names an archive no more that was deleted.
    pub(crate) fn forget(&mut self, file: &FileName) {
        let name = shown_name(file);
        self.homeless.retain(|archive| archive.file != name);
    }
}

/// What a namespace's users may hold on the node: archives and bytes; none: as much as they like, 0: nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct MaxHeld {
    pub(super) count: Option<u64>,
    pub(super) bytes: Option<u64>,
}

impl From<&EffectiveStorage> for MaxHeld {
    fn from(storage: &EffectiveStorage) -> Self {
        Self {
            count: storage.held_count.as_ref().map(|(count, _)| *count),
            bytes: storage.held_size.as_ref().map(|(bytes, _)| *bytes),
        }
    }
}

/// One archive that the API shows.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) file: FileName,
    pub(super) file_id: FileId,
    pub(super) bytes: u64,
    /// Whether something lies beside it.
    pub(super) is_pinned: bool,
    /// Whether its namespace is certain to be the one that it is from. Of another one its object stays if it is there,
    /// and is not made.
    pub(super) is_home_known: bool,
    /// The status of its object, without what depends on its spec.
    pub(super) status: ContainerCheckpointStatus,
}

impl Entries {
    /// The time by which holds end: no later than the clock was judged.
    pub(super) fn believed(&self, now: Timestamp) -> Timestamp {
        now.min(self.judged_at)
    }

    /// What is shown of a view by the agent of this node: at most so many archives, in each namespace first those that
    /// are pinned, then the newest; and besides those whose objects are asking for something, so that it is not lost.
    /// `expires_at` says when a rule by age takes an archive.
    pub(super) fn of(
        view: &View,
        node: &str,
        limit: usize,
        asking: &Arc<BTreeSet<Key>>,
        storage: &EffectiveStorage,
        expires_at: impl Fn(&Archive) -> Option<Timestamp>,
    ) -> Self {
        let snapshot = &view.snapshot;
        let mut candidates: Vec<(usize, Home)> = Vec::new();
        let mut homeless: Vec<&Archive> = Vec::new();
        for (place, archive) in snapshot.archives.iter().enumerate() {
            if !archive.settled {
                continue;
            }
            let home = archive.identity.as_ref().map_or(Home::None, |_| archive.home(&snapshot.namespaces));
            match home {
                Home::None => homeless.push(archive),
                home => candidates.push((place, home)),
            }
        }
        let mut hidden: Vec<(usize, Home)> = Vec::new();
        if candidates.len() > limit {
            if limit > 0 {
                share_out(&mut candidates, &snapshot.archives, limit);
            }
            hidden = candidates.split_off(limit);
        }
        let key_of = |archive: &Archive, identity: &Identity| {
            (identity.namespace.clone(), object_name(archive, identity, node))
        };
        if limit > 0 && !asking.is_empty() {
            let is_asking = |(place, _): &mut (usize, Home)| {
                let archive = snapshot.archives.get(*place);
                let identity = archive.and_then(|archive| Some((archive, archive.identity.as_deref()?)));
                identity.is_some_and(|(archive, identity)| asking.contains(&key_of(archive, identity)))
            };
            candidates.extend(hidden.extract_if(.., is_asking));
        }
        let left_out = hidden.len();
        let pin = |archive: &Archive, namespace: Option<String>| {
            archive.pinned.then(|| HiddenPin { file: archive.file.clone(), bytes: archive.size, namespace })
        };
        let namespace_of = |archive: &Archive| Some(archive.identity.as_deref()?.namespace.clone());
        let left = hidden.iter().filter_map(|(place, _)| snapshot.archives.get(*place));
        let left = left.filter_map(|archive| pin(archive, namespace_of(archive)));
        let hidden_pins = left.chain(homeless.iter().filter_map(|archive| pin(archive, None))).collect();
        let shown = candidates.into_iter().filter_map(|(place, home)| {
            let archive = snapshot.archives.get(place)?;
            let identity = archive.identity.as_deref()?;
            let mut entry = Entry::of(archive, identity, node, home);
            entry.status.expires_at = expires_at(archive).map(seconds);
            Some((key_of(archive, identity), entry))
        });
        let more_homeless = homeless.len().saturating_sub(MOST_WITHOUT_NAMESPACE);
        let by_size = |archive: &&Archive| (Reverse(archive.size), archive.file.clone());
        if more_homeless > 0 {
            homeless.select_nth_unstable_by_key(MOST_WITHOUT_NAMESPACE, by_size);
            homeless.truncate(MOST_WITHOUT_NAMESPACE);
        }
        homeless.sort_by_key(by_size);
        let unlisted = Unlisted {
            left_out: left_out as u64,
            homeless: homeless.into_iter().map(archive_status).collect(),
            more_homeless: more_homeless as u64,
        };
        let (clock, judged_at) = (snapshot.clock, view.made_at);
        let shown = shown.collect();
        Self {
            shown,
            unlisted,
            clock,
            judged_at,
            hidden_pins,
            asking: Arc::clone(asking),
            max_held: storage.into(),
        }
    }
}

/// Puts those first that are shown where not all may be. Namespaces have their turns, one archive each, so that the many
/// of one do not push out the few of another.
fn share_out(candidates: &mut [(usize, Home)], archives: &[Archive], limit: usize) {
    let rank = |place: usize| {
        archives.get(place).map(|archive| {
            let is_dated = archive.dated == Dated::Trusted;
            (Reverse(archive.pinned), Reverse(is_dated), Reverse(archive.taken), place)
        })
    };
    let namespace_of = |place: usize| Some(archives.get(place)?.identity.as_ref()?.namespace.as_str());
    let mut by_namespace: HashMap<Option<&str>, Vec<usize>> = HashMap::new();
    for (place, _) in candidates.iter() {
        by_namespace.entry(namespace_of(*place)).or_default().push(*place);
    }
    let mut turns: HashMap<usize, usize> = HashMap::new();
    for places in by_namespace.values_mut() {
        if places.len() > limit {
            places.select_nth_unstable_by_key(limit, |place| rank(*place));
            places.truncate(limit);
        }
        places.sort_unstable_by_key(|place| rank(*place));
        turns.extend(places.iter().copied().zip(0..));
    }
    let turn = |place: usize| (turns.get(&place).copied().unwrap_or(usize::MAX), rank(place));
    candidates.select_nth_unstable_by_key(limit, |(place, _)| turn(*place));
}

impl Entry {
    fn of(archive: &Archive, identity: &Identity, node: &str, home: Home) -> Self {
        let texts = archive.texts.as_deref();
        let text = |text: Option<&String>, longest| text.map(|text| text.chars().take(longest).collect());
        let creation = archive.creation.as_deref();
        let request = creation.and_then(|creation| {
            creation.requests.iter().find(|request| request.namespace == identity.namespace)
        });
        let status = ContainerCheckpointStatus {
            node_name: node.to_owned(),
            file: archive.file.to_json_text().chars().take(255).collect(),
            pod_name: identity.pod.clone(),
            pod_uid: identity.pod_uid.clone(),
            container_name: identity.container.clone(),
            owner: archive.workload.as_deref().map(|owner| OwnerReference {
                api_group: owner.group.clone(),
                kind: owner.kind.clone(),
                name: owner.name.clone(),
            }),
            checkpointed_at: (archive.dated != Dated::Undated).then(|| seconds(archive.taken)),
            size: QuantityText::bytes(archive.size),
            image: text(texts.and_then(|texts| texts.image.as_ref()), 512),
            runtime: text(texts.and_then(|texts| texts.runtime.as_ref()), 63),
            state: CheckpointState::from(archive.state),
            created_by: request.map(|request| CreatedBy {
                api_version: request.api_version.clone(),
                schedule: request.name.clone(),
                trigger: request.trigger.clone(),
                requested_at: seconds(request.due),
            }),
            expires_at: None,
            observed_generation: None,
            conditions: Vec::new(),
        };
        Self {
            file: archive.file.clone(),
            file_id: archive.file_id,
            bytes: archive.size,
            is_pinned: archive.pinned,
            is_home_known: home == Home::There,
            status,
        }
    }
}

/// The name of a file as it is told.
fn shown_name(file: &FileName) -> String {
    file.to_json_text().chars().take(255).collect()
}

fn archive_status(archive: &Archive) -> ArchiveStatus {
    let identity = archive.identity.as_deref();
    ArchiveStatus {
        file: shown_name(&archive.file),
        namespace: identity.map(|identity| identity.namespace.clone()),
        pod: identity.map(|identity| identity.pod.clone()),
        container: identity.map(|identity| identity.container.clone()),
        size: QuantityText::bytes(archive.size),
        checkpointed_at: (archive.dated != Dated::Undated).then(|| seconds(archive.taken)),
    }
}

/// The API keeps times of whole seconds.
pub(super) fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// How much of a pod's and of a container's name the name of an object has.
const POD: usize = 40;
const CONTAINER: usize = 20;

/// The name of an archive's object. Another file of the same name has another one, so that what was asked for one is
/// never done to the other.
fn object_name(archive: &Archive, identity: &Identity, node: &str) -> String {
    let begin = |name: &str, longest: usize| {
        let begin: String = name.chars().take(longest).collect();
        begin.trim_end_matches(['-', '.']).to_owned()
    };
    let FileId { inode, modified: (seconds, nanoseconds) } = archive.file_id;
    let hash = fnv(&[
        node.as_bytes(),
        archive.file.as_bytes(),
        &inode.to_le_bytes(),
        &seconds.to_le_bytes(),
        &nanoseconds.to_le_bytes(),
    ]);
    let (pod, container) = (begin(&identity.pod, POD), begin(&identity.container, CONTAINER));
    format!("{pod}-{container}-{}-{hash:08x}", archive.taken.strftime("%Y%m%d%H%M%S"))
}

#[cfg(test)]
pub(super) mod tests {
    use checkpoint_keeper_core::archive::Texts;
    use checkpoint_keeper_core::creation::{Creation, CreationRequest};
    use checkpoint_keeper_core::plan::{Namespace, Snapshot, plan};
    use checkpoint_keeper_core::policy::PolicySet;

    use super::*;

    pub(in crate::inventory) fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    /// An archive of that pod's container `app`, taken at that second of the day.
    fn archive(namespace: &str, pod: &str, second: u32) -> Archive {
        let (hour, minute, rest) = (second / 3_600, second / 60 % 60, second % 60);
        let taken = at(&format!("2026-11-27T{hour:02}:{minute:02}:{rest:02}Z"));
        let file = format!("checkpoint-{pod}_{namespace}-app-{taken}.tar");
        let identity = Identity {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            pod_uid: Some("b1e0c6a2-0000-4000-8000-000000000001".to_owned()),
            container: "app".to_owned(),
        };
        let file = FileName::new(file.as_bytes()).unwrap();
        Archive {
            file_id: FileId { inode: u64::from(second), modified: (taken.as_second(), 0) },
            texts: Some(Arc::new(Texts {
                runtime: Some("runc".to_owned()),
                image: Some("docker.io/library/redis:7".to_owned()),
                problem: None,
            })),
            ..Archive::whole(file, Arc::new(identity), taken, 1_234_567)
        }
    }

    fn view(archives: Vec<Archive>, namespaces: &[(&str, Namespace)]) -> View {
        let namespaces = namespaces.iter().map(|(name, namespace)| ((*name).to_owned(), namespace.clone()));
        let snapshot = Snapshot { archives, namespaces: namespaces.collect(), ..Snapshot::default() };
        let policies = Arc::new(PolicySet::default());
        let plan = plan(&snapshot, &policies, at("2026-11-27T12:00:00Z"));
        let confidence = checkpoint_keeper_core::policy::Confidence::Current;
        View { snapshot, policies, plan, confidence, made_at: at("2026-11-27T12:00:00Z") }
    }

    fn there(created: &str) -> Namespace {
        Namespace { created: Some(at(created)), is_invalidated: false }
    }

    /// The entries of a node with one archive of each of these seconds, at noon.
    pub(in crate::inventory) fn entries_of(seconds: &[u32]) -> Entries {
        let archives = seconds.iter().map(|second| archive("shop", "web-0", *second)).collect();
        Entries::of(
            &view(archives, &[("shop", there("2026-01-01T00:00:00Z"))]),
            "node-1",
            100,
            &Arc::default(),
            &none(),
            |_| None,
        )
    }

    /// The entries of a node with one archive of each of these namespaces.
    pub(in crate::inventory) fn entries_in(namespaces: &[&str]) -> Entries {
        let archives = namespaces.iter().map(|namespace| archive(namespace, "web-0", 1)).collect();
        let there: Vec<_> =
            namespaces.iter().map(|namespace| (*namespace, there("2026-01-01T00:00:00Z"))).collect();
        Entries::of(&view(archives, &there), "node-1", 100, &Arc::default(), &none(), |_| None)
    }

    /// No storage policy.
    fn none() -> EffectiveStorage {
        EffectiveStorage::default()
    }

    fn names(entries: &Entries) -> Vec<String> {
        entries.shown.keys().map(|(namespace, name)| format!("{namespace}/{name}")).collect()
    }

    #[test]
    fn an_object_says_which_archive_it_is() {
        let mut made = archive("shop", "web-0", 3_600);
        made.creation = Some(Arc::new(Creation {
            requests: vec![CreationRequest {
                api_version: "checkpoint-keeper.io/v1alpha1".to_owned(),
                namespace: "shop".to_owned(),
                name: "hourly".to_owned(),
                uid: "u".to_owned(),
                trigger: "Interval".to_owned(),
                due: at("2026-11-27T00:59:59.5Z"),
            }],
            is_failed: false,
        }));
        let view = view(vec![made], &[("shop", there("2026-01-01T00:00:00Z"))]);
        let entries = Entries::of(&view, "node-1", 100, &Arc::default(), &none(), |_| None);
        let ((namespace, name), entry) = entries.shown.first_key_value().unwrap();
        assert_eq!(namespace, "shop");
        assert!(name.starts_with("web-0-app-20261127010000-") && name.len() == 33, "{name}");
        assert_eq!(
            serde_json::to_value(&entry.status).unwrap(),
            serde_json::json!({
                "nodeName": "node-1",
                "file": "checkpoint-web-0_shop-app-2026-11-27T01:00:00Z.tar",
                "podName": "web-0",
                "podUID": "b1e0c6a2-0000-4000-8000-000000000001",
                "containerName": "app",
                "checkpointedAt": "2026-11-27T01:00:00Z",
                "size": QuantityText::bytes(1_234_567).0,
                "image": "docker.io/library/redis:7",
                "runtime": "runc",
                "state": "Complete",
                "createdBy": {
                    "apiVersion": "checkpoint-keeper.io/v1alpha1", "schedule": "hourly", "trigger": "Interval",
                    "requestedAt": "2026-11-27T00:59:59Z",
                },
            })
        );
    }

    #[test]
    fn another_file_of_the_same_name_has_another_object() {
        let (first, mut second) = (archive("shop", "web-0", 1), archive("shop", "web-0", 1));
        second.file_id.inode += 1;
        let name =
            |archive: &Archive, node: &str| object_name(archive, archive.identity.as_deref().unwrap(), node);
        assert_ne!(name(&first, "a"), name(&second, "a"));
        assert_ne!(name(&first, "a"), name(&first, "b"));
        let long = archive("shop", &format!("{}.{}", "p".repeat(39), "q".repeat(100)), 1);
        let name = name(&long, "a");
        assert!(name.starts_with(&format!("{}-app-", "p".repeat(39))), "{name}");
    }

    #[test]
    fn the_newest_are_shown_after_those_that_are_pinned_and_the_rest_is_counted() {
        let mut archives: Vec<Archive> = (0..300).map(|second| archive("shop", "web-0", second)).collect();
        archives[7].pinned = true;
        let shop = [("shop", there("2026-01-01T00:00:00Z"))];
        let entries = Entries::of(&view(archives, &shop), "node-1", 3, &Arc::default(), &none(), |_| None);
        let shown: Vec<_> = entries.shown.values().map(|entry| entry.file_id.inode).collect();
        assert_eq!((shown, entries.unlisted.left_out), (vec![7, 298, 299], 297));
        let none = Entries::of(
            &view(vec![archive("shop", "web-0", 1)], &shop),
            "node-1",
            0,
            &Arc::default(),
            &none(),
            |_| None,
        );
        assert_eq!((none.shown.len(), none.unlisted.left_out), (0, 1));
    }

    #[test]
    fn the_many_of_one_namespace_do_not_push_out_the_few_of_another() {
        let mut archives: Vec<Archive> = (10..300).map(|second| archive("loud", "web-0", second)).collect();
        archives.iter_mut().for_each(|archive| archive.pinned = true);
        archives.extend((0..3).map(|second| archive("quiet", "web-0", second)));
        let namespaces = ["loud", "quiet"].map(|name| (name, there("2026-01-01T00:00:00Z")));
        let entries =
            Entries::of(&view(archives, &namespaces), "node-1", 100, &Arc::default(), &none(), |_| None);
        let quiet = entries.shown.keys().filter(|(namespace, _)| namespace == "quiet").count();
        assert_eq!((quiet, entries.shown.len(), entries.unlisted.left_out), (3, 100, 193));
        assert_eq!(entries.hidden_pins.len(), 193);
        assert!(entries.hidden_pins.iter().all(|pin| pin.namespace.as_deref() == Some("loud")));
    }

    #[test]
    fn an_archive_that_is_asked_about_is_shown_however_many_others_there_are() {
        let archives: Vec<Archive> = (0..300).map(|second| archive("shop", "web-0", second)).collect();
        let view = view(archives, &[("shop", there("2026-01-01T00:00:00Z"))]);
        let all = Entries::of(&view, "node-1", 300, &Arc::default(), &none(), |_| None);
        let key_of =
            |inode| all.shown.iter().find(|(_, entry)| entry.file_id.inode == inode).unwrap().0.clone();
        // One that is not among the newest, one that is, and one that is not there.
        let gone = ("shop".to_owned(), "gone".to_owned());
        let asking = Arc::new(BTreeSet::from([key_of(7), key_of(299), gone]));
        let entries = Entries::of(&view, "node-1", 3, &asking, &none(), |_| None);
        let shown: Vec<_> = entries.shown.values().map(|entry| entry.file_id.inode).collect();
        assert_eq!((shown, entries.unlisted.left_out), (vec![7, 297, 298, 299], 296));
        assert_eq!(entries.asking, asking);
        // Where none are to be shown, none is.
        assert!(Entries::of(&view, "node-1", 0, &asking, &none(), |_| None).shown.is_empty());
    }

    #[test]
    fn only_who_has_the_namespace_that_an_archive_is_from_sees_it() {
        let archives = ["there", "anew", "asked", "unknown"].map(|namespace| archive(namespace, "web-0", 1));
        let invalidated = Namespace { is_invalidated: true, ..there("2026-01-01T00:00:00Z") };
        let namespaces = [
            ("there", there("2026-01-01T00:00:00Z")),
            ("anew", there("2026-11-27T06:00:00Z")),
            ("asked", invalidated),
        ];
        let entries =
            Entries::of(&view(archives.into(), &namespaces), "node-1", 100, &Arc::default(), &none(), |_| {
                None
            });
        let shown: Vec<_> =
            names(&entries).iter().map(|name| name.split('/').next().unwrap().to_owned()).collect();
        assert_eq!(shown, ["asked", "there", "unknown"]);
        let known: Vec<_> = entries.shown.values().map(|entry| entry.is_home_known).collect();
        assert_eq!(known, [false, true, false]);
        let homeless: Vec<_> =
            entries.unlisted.homeless.iter().map(|archive| archive.namespace.as_deref().unwrap()).collect();
        assert_eq!(homeless, ["anew"]);
    }

    #[test]
    fn what_is_not_known_to_be_whose_or_still_written_is_not_shown() {
        let (mut unknown, mut growing) = (archive("shop", "web-0", 1), archive("shop", "web-0", 2));
        unknown.identity = None;
        growing.settled = false;
        let view = view(vec![unknown, growing], &[("shop", there("2026-01-01T00:00:00Z"))]);
        let entries = Entries::of(&view, "node-1", 100, &Arc::default(), &none(), |_| None);
        assert_eq!((entries.shown.len(), entries.unlisted.homeless.len()), (0, 1));
    }

    #[test]
    fn an_archive_that_was_deleted_is_shown_no_more_whenever_the_next_plan_is() {
        use crate::inventory::ShownArchives;
        let mut unknown = archive("shop", "web-0", 3);
        unknown.identity = None;
        let (first, second, third) = (archive("shop", "web-0", 1), archive("shop", "web-0", 2), unknown);
        let view = view(
            vec![first.clone(), second.clone(), third.clone()],
            &[("shop", there("2026-01-01T00:00:00Z"))],
        );
        let shown = ShownArchives::new("node-1".to_owned(), 100);
        let mut unlisted = shown.note(&view, &none());
        let mut entries = shown.subscribe();
        let files = |entries: &Entries| -> Vec<FileName> {
            entries.shown.values().map(|entry| entry.file.clone()).collect()
        };
        // One that took the name of another is not that one.
        shown.forget(&first.file, FileId { inode: first.file_id.inode + 1, ..first.file_id });
        assert!(!entries.has_changed().unwrap());
        shown.forget(&first.file, first.file_id);
        assert!(entries.has_changed().unwrap());
        assert_eq!(files(entries.borrow_and_update().as_deref().unwrap()), [second.file]);
        unlisted.forget(&first.file);
        assert_eq!(unlisted.homeless.len(), 1);
        unlisted.forget(&third.file);
        assert!(unlisted.homeless.is_empty());
    }
}

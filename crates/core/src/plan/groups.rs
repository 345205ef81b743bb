//! Which archives count together: per container, workload, pod, namespace and lineage.
//!
//! Archives that agree in everything that matters share a [`Class`], so that the work per archive is
//! one lookup, and the rest is done once for each of far fewer classes.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use jiff::Timestamp;

use super::governing::{Candidates, Governing, PodLabels, PolicyIndex};
use super::snapshot::{Archive, Origin, Snapshot, Workload};
use super::verdict::Level;
use crate::identity::Identity;

/// The owner kind whose pods are told apart by name, as each has its own state.
const STATEFUL_SET: &str = "StatefulSet";

/// What archives that are alike share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Class<'a> {
    pub(super) identity: Option<&'a Identity>,
    pub(super) origin: Origin,
    pub(super) governing: Governing<'a>,
    names: Option<Names>,
}

/// The class of every archive, and which archives count together.
pub(super) struct Groups<'a> {
    of_archive: Vec<usize>,
    alike: Vec<Class<'a>>,
    /// The archives of every class.
    members: GroupList,
    /// The groups of each policy, and those over all policies; both are made when a rule first asks for them.
    governed: [OnceCell<GroupList>; GroupBy::COUNT],
    all: [OnceCell<GroupList>; GroupBy::COUNT],
}

/// The names of a class, each as a number that no other name has: comparing and hashing text is what
/// a plan for many pods would else spend its time on.
#[derive(Debug, Clone, Copy)]
struct Names {
    namespace: u32,
    pod: u32,
    container: u32,
    /// The topmost owner's group, kind and name, and whether its pods are told apart by name.
    workload: Option<([u32; 3], bool)>,
}

/// Numbers for names, from 1.
#[derive(Default)]
struct Interner<'a>(HashMap<&'a str, u32>);

impl<'a> Interner<'a> {
    fn number(&mut self, text: &'a str) -> u32 {
        // There are far fewer names than would not fit.
        let next = u32::try_from(self.0.len()).map_or(u32::MAX, |known| known.saturating_add(1));
        *self.0.entry(text).or_insert(next)
    }

    fn names(&mut self, identity: &'a Identity, workload: Option<&'a Workload>) -> Names {
        Names {
            namespace: self.number(&identity.namespace),
            pod: self.number(&identity.pod),
            container: self.number(&identity.container),
            workload: workload.map(|workload| {
                let parts = [&workload.group, &workload.kind, &workload.name];
                (parts.map(|part| self.number(part)), workload.kind == STATEFUL_SET)
            }),
        }
    }
}

/// Archives that count together, by their places in the plan's order, oldest first.
pub(super) type Group = [usize];

/// Groups side by side: those that the first policy governs, then those of the second, and so on.
#[derive(Default)]
struct GroupList {
    places: Vec<usize>,
    /// Where each group ends among the places.
    ends: Vec<usize>,
    /// Where each policy's groups end among the groups.
    policy_ends: Vec<usize>,
}

impl GroupList {
    fn get(&self, group: usize) -> &Group {
        let begin = group.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.places[begin..self.ends[group]]
    }

    fn iter(&self) -> impl Iterator<Item = &Group> {
        (0..self.ends.len()).map(|group| self.get(group))
    }

    fn of_policy(&self, policy: usize) -> impl Iterator<Item = &Group> {
        let end = |policy: usize| self.policy_ends.get(policy).copied();
        let begin = policy.checked_sub(1).map_or(Some(0), end).unwrap_or(self.ends.len());
        (begin..end(policy).unwrap_or(self.ends.len())).map(|group| self.get(group))
    }
}

/// The addresses of an archive's identity, owner, labels, former labels and former policy. Archives with equal addresses are of the
/// same class, without comparing the values. The engine shares equal values in memory; where values are equal but
/// not shared, there are only more classes.
type SameInMemory = [usize; 6];

/// The classes of archives that are the same in memory.
#[derive(Default)]
struct Known {
    /// When the namespace that has the name now was created.
    created: Option<Timestamp>,
    /// The class of those from each [`Origin`].
    classes: [Option<usize>; 3],
}

impl<'a> Groups<'a> {
    /// Sorts every archive into its class. `order` are their places in the snapshot, oldest first.
    pub(super) fn new(snapshot: &'a Snapshot, policy_index: &PolicyIndex<'a>, order: &[usize]) -> Self {
        let mut known: HashMap<SameInMemory, Known, RandomState> = HashMap::default();
        let mut classes = Vec::new();
        let mut interner = Interner::default();
        // Labels that are the same are the same in memory, or else there are merely more of these.
        let mut candidates: HashMap<Option<(&str, Origin, usize)>, Candidates<'_, 'a>> = HashMap::new();
        // As they lie in memory, not in order: each archive is looked up but once.
        let by_snapshot_order: Vec<usize> = snapshot
            .archives
            .iter()
            .map(|archive| {
                let identity = archive.identity.as_deref();
                let known = known.entry(same_in_memory(archive)).or_insert_with(|| Known {
                    created: identity.and_then(|identity| policy_index.created(&identity.namespace)),
                    classes: [None; 3],
                });
                let origin = archive.origin(known.created);
                *known.classes[origin as usize].get_or_insert_with(|| {
                    let labels = archive.namespace_labels.as_ref();
                    let namespace =
                        identity.map(|identity| (identity.namespace.as_str(), origin, address(labels)));
                    let there = candidates.entry(namespace).or_insert_with(|| match namespace {
                        Some((name, origin, _)) => {
                            policy_index.candidates(name, origin, labels.map(|labels| &**labels))
                        }
                        None => policy_index.candidates_for_unknown(),
                    });
                    let workload = archive.workload.as_deref();
                    classes.push(Class {
                        identity,
                        origin,
                        governing: there.governing(
                            identity,
                            PodLabels::of(archive),
                            archive.governed_by.as_deref(),
                        ),
                        names: identity.map(|identity| interner.names(identity, workload)),
                    });
                    classes.len() - 1
                })
            })
            .collect();
        let of_archive: Vec<usize> =
            order.iter().map(|&in_snapshot| by_snapshot_order[in_snapshot]).collect();
        let members = members(&of_archive, classes.len());
        Self { of_archive, alike: classes, members, governed: Default::default(), all: Default::default() }
    }

    /// The class of the archive at `place`.
    pub(super) fn of(&self, place: usize) -> &Class<'a> {
        &self.alike[self.of_archive[place]]
    }

    /// A level's groups among the archives that the policy at place `policy` governs.
    pub(super) fn governed_groups(&self, policy: usize, level: Level) -> impl Iterator<Item = &Group> {
        self.governed(GroupBy::AtLevel(level)).of_policy(policy)
    }

    /// The lineages among the archives that the policy at place `policy` governs.
    pub(super) fn governed_lineages(&self, policy: usize) -> impl Iterator<Item = &Group> {
        self.governed(GroupBy::InLineage).of_policy(policy)
    }

    /// The lineages: each is what one checkpoint can stand in for.
    pub(super) fn lineages(&self) -> impl Iterator<Item = &Group> {
        self.all(GroupBy::InLineage).iter()
    }

    /// The archives of each namespace, whichever policies govern them.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = &Group> {
        self.all(GroupBy::AtLevel(Level::Namespace)).iter()
    }

    fn governed(&self, group_by: GroupBy) -> &GroupList {
        self.governed[group_by.place()].get_or_init(|| {
            self.join(group_by, |class| match class.governing {
                Governing::Policy(policy) => Some(policy),
                _ => None,
            })
        })
    }

    fn all(&self, group_by: GroupBy) -> &GroupList {
        self.all[group_by.place()].get_or_init(|| self.join(group_by, |_| Some(0)))
    }

    /// Joins the classes that count together, among those of each policy.
    fn join(&self, group_by: GroupBy, policy: impl Fn(&Class<'a>) -> Option<usize>) -> GroupList {
        // Keys are compared here, once, and numbers ever after.
        let mut seen: HashMap<Key, usize, RandomState> =
            HashMap::with_capacity_and_hasher(self.alike.len(), RandomState::default());
        let mut numbered: Vec<(usize, usize, usize)> = Vec::with_capacity(self.alike.len());
        for (place, class) in self.alike.iter().enumerate() {
            if let (Some(policy), Some(key)) = (policy(class), group_by.key(class)) {
                let next = seen.len();
                numbered.push((policy, *seen.entry(key).or_insert(next), place));
            }
        }
        numbered.sort_unstable();
        let mut groups =
            GroupList { places: Vec::with_capacity(self.of_archive.len()), ..GroupList::default() };
        for same in
            numbered.chunk_by(|(one_policy, one, _), (policy, other, _)| (one_policy, one) == (policy, other))
        {
            let begin = groups.places.len();
            for &(policy, _, class) in same {
                // Policies that govern nothing have no groups.
                while groups.policy_ends.len() < policy {
                    groups.policy_ends.push(groups.ends.len());
                }
                groups.places.extend_from_slice(self.members.get(class));
            }
            if same.len() > 1 {
                groups.places[begin..].sort_unstable();
            }
            groups.ends.push(groups.places.len());
        }
        groups
    }
}

/// The archives of every class, as groups.
fn members(of_archive: &[usize], classes: usize) -> GroupList {
    let mut ends = vec![0; classes];
    for &class in of_archive {
        ends[class] += 1;
    }
    // First where each begins; putting its members there moves that to where it ends.
    let mut begin = 0;
    for end in &mut ends {
        begin += std::mem::replace(end, begin);
    }
    let mut places = vec![0; of_archive.len()];
    for (place, &class) in of_archive.iter().enumerate() {
        places[ends[class]] = place;
        ends[class] += 1;
    }
    GroupList { places, ends, policy_ends: Vec::new() }
}

/// Why archives count together.
#[derive(Debug, Clone, Copy)]
enum GroupBy {
    /// A limit at that level counts them.
    AtLevel(Level),
    /// One can stand in for the other.
    InLineage,
}

impl GroupBy {
    const COUNT: usize = 5;

    fn place(self) -> usize {
        match self {
            Self::AtLevel(Level::Container) => 0,
            Self::AtLevel(Level::Workload) => 1,
            Self::AtLevel(Level::Pod) => 2,
            Self::AtLevel(Level::Namespace) => 3,
            Self::InLineage => 4,
        }
    }

    /// The key that the archives of a class share with all that they count with; none if they count alone.
    fn key(self, class: &Class<'_>) -> Option<Key> {
        match self {
            Self::AtLevel(level) => level_key(level, class.names?, class.origin),
            Self::InLineage => Some(lineage_key(class.names?, class.origin)),
        }
    }
}

fn address<T>(shared: Option<&Arc<T>>) -> usize {
    shared.map_or(0, |shared| Arc::as_ptr(shared).addr())
}

fn same_in_memory(archive: &Archive) -> SameInMemory {
    [
        address(archive.identity.as_ref()),
        address(archive.workload.as_ref()),
        address(archive.pod_labels.as_ref()),
        address(archive.former_labels.as_ref()),
        address(archive.governed_by.as_ref()),
        address(archive.namespace_labels.as_ref()),
    ]
}

/// What two archives must share to count together.
type Key = [u32; 6];

/// What it is at `level`; none where the level has no meaning.
fn level_key(level: Level, names: Names, origin: Origin) -> Option<Key> {
    let Names { namespace, pod, container, workload } = names;
    let origin = origin as u32;
    Some(match level {
        Level::Container => [origin, namespace, pod, container, 0, 0],
        Level::Workload => {
            let ([group, kind, name], _) = workload?;
            [origin, namespace, group, kind, name, container]
        }
        Level::Pod => [origin, namespace, pod, 0, 0, 0],
        Level::Namespace => [origin, namespace, 0, 0, 0, 0],
    })
}

/// What it is for one archive to stand in for the other.
fn lineage_key(names: Names, origin: Origin) -> Key {
    let Names { namespace, pod, container, workload } = names;
    let origin = origin as u32;
    match workload {
        Some(([group, kind, name], false)) => [origin, namespace, group, kind, name, container],
        _ => [origin, namespace, 0, 0, pod, container],
    }
}

//! Which archives count together: per container, workload, pod, namespace and lineage.
//!
//! Archives that agree in everything that matters share a [`Cell`], so that the work per archive is
//! one look-up, and the rest is done once for each of far fewer cells.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use jiff::Timestamp;

use super::governing::{Governing, Governors, Subject};
use super::snapshot::{Archive, Snapshot, Workload};
use super::verdict::Level;
use crate::identity::Identity;

/// The owner kind whose pods are told apart by name, as each has its own state.
const STATEFUL_SET: &str = "StatefulSet";

/// What archives that are alike share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cell<'a> {
    pub(super) identity: Option<&'a Identity>,
    pub(super) vanished: bool,
    pub(super) workload: Option<&'a Workload>,
    pub(super) governing: Governing<'a>,
}

/// The cell of every archive, and the archives of every cell in the plan's order.
pub(super) struct Cells<'a> {
    of_archive: Vec<usize>,
    alike: Vec<Cell<'a>>,
    members: Vec<Vec<usize>>,
    /// The cells that each policy governs, by the policy's place.
    of_policy: Vec<Vec<usize>>,
}

/// Archives that a limit counts together, by their places in the plan's order, oldest first.
pub(super) type Group = Vec<usize>;

/// What two archives share whose cells need not even be compared: the very same identity, owner and
/// labels in memory. Whoever makes snapshots shares these, and where he does not there are merely
/// more cells.
type SameInMemory = (usize, usize, usize);

/// The cells of archives that are the same in memory.
#[derive(Default)]
struct Known {
    /// When the namespace that has the name now was created.
    created: Option<Timestamp>,
    /// The cell of those taken since then, and of those taken before.
    cells: [Option<usize>; 2],
}

impl<'a> Cells<'a> {
    /// Sorts every archive into its cell. `order` are their places in the snapshot, oldest first.
    pub(super) fn new(snapshot: &'a Snapshot, governors: &Governors<'a>, order: &[usize]) -> Self {
        let mut known: HashMap<SameInMemory, Known> = HashMap::new();
        let mut of_archive = vec![0; snapshot.archives.len()];
        let mut cells = Vec::new();
        let mut members: Vec<Vec<usize>> = Vec::new();
        for (place, &in_snapshot) in order.iter().enumerate() {
            let archive = &snapshot.archives[in_snapshot];
            let identity = archive.identity.as_deref();
            let known = known.entry(same_in_memory(archive)).or_insert_with(|| Known {
                created: identity.and_then(|identity| governors.created(&identity.namespace)),
                cells: [None; 2],
            });
            let vanished = known.created.is_some_and(|created| archive.taken < created);
            let cell = *known.cells[usize::from(vanished)].get_or_insert_with(|| {
                let subject = Subject { identity, vanished, pod_labels: archive.pod_labels.as_deref() };
                let workload = archive.workload.as_deref();
                cells.push(Cell { identity, vanished, workload, governing: governors.governing(subject) });
                members.push(Vec::new());
                cells.len() - 1
            });
            of_archive[place] = cell;
            members[cell].push(place);
        }
        let mut of_policy = vec![Vec::new(); governors.ranked().len()];
        for (place, cell) in cells.iter().enumerate() {
            if let Governing::Policy(policy) = cell.governing {
                of_policy[policy].push(place);
            }
        }
        Self { of_archive, alike: cells, members, of_policy }
    }

    /// The cell of the archive at `place`.
    pub(super) fn of(&self, place: usize) -> &Cell<'a> {
        &self.alike[self.of_archive[place]]
    }

    /// The archives of a level's groups among those that the policy at place `policy` governs.
    pub(super) fn governed_groups(&self, policy: usize, level: Level) -> Vec<Group> {
        let cells = self.of_policy[policy].iter().copied();
        self.groups(cells, |cell| level_key(level, cell.identity?, cell))
    }

    /// The lineages among the archives that the policy at place `policy` governs.
    pub(super) fn governed_lineages(&self, policy: usize) -> Vec<Group> {
        let cells = self.of_policy[policy].iter().copied();
        self.groups(cells, |cell| Some(lineage_key(cell.identity?, cell)))
    }

    /// The lineages: each is what one checkpoint can stand in for.
    pub(super) fn lineages(&self) -> Vec<Group> {
        self.groups(0..self.alike.len(), |cell| Some(lineage_key(cell.identity?, cell)))
    }

    /// The namespaces, whoever governs what lies in them.
    pub(super) fn namespaces(&self) -> Vec<Group> {
        self.groups(0..self.alike.len(), |cell| Some((cell.identity?.namespace.as_str(), cell.vanished)))
    }

    /// Joins the cells that have the same key; cells without one are left out.
    fn groups<K: Hash + Eq>(
        &self,
        cells: impl Iterator<Item = usize>,
        key: impl Fn(&Cell<'a>) -> Option<K>,
    ) -> Vec<Group> {
        let mut places: HashMap<K, usize> = HashMap::new();
        let mut groups: Vec<Group> = Vec::new();
        for cell in cells {
            let Some(key) = key(&self.alike[cell]) else { continue };
            let place = *places.entry(key).or_insert_with(|| {
                groups.push(Vec::new());
                groups.len() - 1
            });
            groups[place].extend_from_slice(&self.members[cell]);
        }
        for group in &mut groups {
            group.sort_unstable();
        }
        groups
    }
}

fn same_in_memory(archive: &Archive) -> SameInMemory {
    fn address<T>(shared: Option<&Arc<T>>) -> usize {
        shared.map_or(0, |shared| Arc::as_ptr(shared).addr())
    }
    (
        address(archive.identity.as_ref()),
        address(archive.workload.as_ref()),
        address(archive.pod_labels.as_ref()),
    )
}

/// What two archives must share to count together at `level`; none where the level has no meaning.
fn level_key<'a>(level: Level, identity: &'a Identity, cell: &Cell<'a>) -> Option<[Option<&'a str>; 5]> {
    let vanished = cell.vanished.then_some("vanished");
    let namespace = Some(identity.namespace.as_str());
    let (pod, container) = (Some(identity.pod.as_str()), Some(identity.container.as_str()));
    Some(match level {
        Level::Container => [vanished, namespace, pod, container, None],
        Level::Workload => {
            let workload = cell.workload?;
            [vanished, namespace, Some(&workload.kind), Some(&workload.name), container]
        }
        Level::Pod => [vanished, namespace, pod, None, None],
        Level::Namespace => [vanished, namespace, None, None, None],
    })
}

/// What two archives must share for one to stand in for the other.
fn lineage_key<'a>(identity: &'a Identity, cell: &Cell<'a>) -> [Option<&'a str>; 5] {
    let vanished = cell.vanished.then_some("vanished");
    let (namespace, container) = (Some(identity.namespace.as_str()), Some(identity.container.as_str()));
    match cell.workload {
        Some(workload) if workload.kind != STATEFUL_SET => {
            [vanished, namespace, Some(&workload.kind), Some(&workload.name), container]
        }
        _ => [vanished, namespace, None, Some(&identity.pod), container],
    }
}

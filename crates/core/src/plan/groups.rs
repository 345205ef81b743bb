//! Which archives count together: per container, workload, pod, namespace and lineage.
//!
//! Archives that agree in everything that matters share a [`Cell`], so that the work per archive is
//! one look-up, and the rest is done once for each of far fewer cells.

use std::collections::HashMap;
use std::hash::Hash;

use super::governing::{Governing, Governors, Subject};
use super::snapshot::{Archive, Snapshot, Workload};
use super::verdict::Level;
use crate::identity::Identity;
use crate::policy::Labels;

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

/// Archives that a limit counts together, as lists of places, oldest first.
pub(super) type Group = Vec<usize>;

#[derive(PartialEq, Eq, Hash)]
struct CellKey<'a> {
    names: Option<(&'a str, &'a str, &'a str)>,
    vanished: bool,
    workload: Option<&'a Workload>,
    labels: Option<&'a Labels>,
}

impl<'a> Cells<'a> {
    /// Sorts every archive into its cell. `oldest_first` are all places in the plan's order.
    pub(super) fn new(snapshot: &'a Snapshot, governors: &Governors<'a>, oldest_first: &[usize]) -> Self {
        let mut places: HashMap<CellKey<'a>, usize> = HashMap::new();
        let mut of_archive = vec![0; snapshot.archives.len()];
        let mut cells = Vec::new();
        let mut members: Vec<Vec<usize>> = Vec::new();
        for &place in oldest_first {
            let archive = &snapshot.archives[place];
            let identity = archive.identity.as_deref();
            let vanished = identity.is_some_and(|identity| governors.vanished(identity, archive.taken));
            let key = cell_key(archive, vanished);
            let cell = *places.entry(key).or_insert_with(|| {
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
    pub(super) fn governed_groups(&self, policy: usize, level: Level, rank: &[usize]) -> Vec<Group> {
        let cells = self.of_policy[policy].iter().copied();
        self.groups(cells, rank, |cell| level_key(level, cell.identity?, cell))
    }

    /// The lineages among the archives that the policy at place `policy` governs.
    pub(super) fn governed_lineages(&self, policy: usize, rank: &[usize]) -> Vec<Group> {
        let cells = self.of_policy[policy].iter().copied();
        self.groups(cells, rank, |cell| Some(lineage_key(cell.identity?, cell)))
    }

    /// The lineages: each is what one checkpoint can stand in for.
    pub(super) fn lineages(&self, rank: &[usize]) -> Vec<Group> {
        self.groups(0..self.alike.len(), rank, |cell| Some(lineage_key(cell.identity?, cell)))
    }

    /// The namespaces, whoever governs what lies in them.
    pub(super) fn namespaces(&self, rank: &[usize]) -> Vec<Group> {
        self.groups(0..self.alike.len(), rank, |cell| {
            Some((cell.identity?.namespace.as_str(), cell.vanished))
        })
    }

    /// Joins the cells that have the same key; cells without one are left out. `rank` is each
    /// archive's place in the plan's order.
    fn groups<K: Hash + Eq>(
        &self,
        cells: impl Iterator<Item = usize>,
        rank: &[usize],
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
            group.sort_unstable_by_key(|&place| rank[place]);
        }
        groups
    }
}

fn cell_key(archive: &Archive, vanished: bool) -> CellKey<'_> {
    CellKey {
        names: archive.identity.as_deref().map(|identity| {
            (identity.namespace.as_str(), identity.pod.as_str(), identity.container.as_str())
        }),
        vanished,
        workload: archive.workload.as_deref(),
        labels: archive.pod_labels.as_deref(),
    }
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

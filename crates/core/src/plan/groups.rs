//! Which archives count together: per container, workload, pod, namespace and lineage.
//!
//! Archives that agree in everything that matters share a [`Cell`], so that the work per archive is
//! one look-up, and the rest is done once for each of far fewer cells.

use std::cell::OnceCell;
use std::collections::HashMap;
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
    pub(super) governing: Governing<'a>,
    names: Option<Names>,
}

/// The cell of every archive, and the archives of every cell in the plan's order.
pub(super) struct Cells<'a> {
    of_archive: Vec<usize>,
    alike: Vec<Cell<'a>>,
    members: Vec<Vec<usize>>,
    /// The cells that each policy governs, by the policy's place.
    of_policy: Vec<Vec<usize>>,
    /// See [`Self::numbers`].
    numbers: [OnceCell<Vec<Option<usize>>>; Together::COUNT],
}

/// The names of a cell, each as a number that no other name has: comparing and hashing text is what
/// a plan for many pods would else spend its time on.
#[derive(Debug, Clone, Copy)]
struct Names {
    namespace: u32,
    pod: u32,
    container: u32,
    /// The topmost owner's kind and name, and whether its pods are told apart by name.
    workload: Option<(u32, u32, bool)>,
}

/// Numbers for names, from 1.
#[derive(Default)]
struct Texts<'a>(HashMap<&'a str, u32>);

impl<'a> Texts<'a> {
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
                (self.number(&workload.kind), self.number(&workload.name), workload.kind == STATEFUL_SET)
            }),
        }
    }
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
        let mut cells = Vec::new();
        let mut texts = Texts::default();
        // As they lie in memory, not in order: each archive is looked up but once.
        let as_they_lie: Vec<usize> = snapshot
            .archives
            .iter()
            .map(|archive| {
                let identity = archive.identity.as_deref();
                let known = known.entry(same_in_memory(archive)).or_insert_with(|| Known {
                    created: identity.and_then(|identity| governors.created(&identity.namespace)),
                    cells: [None; 2],
                });
                let vanished = known.created.is_some_and(|created| archive.taken < created);
                *known.cells[usize::from(vanished)].get_or_insert_with(|| {
                    let subject = Subject { identity, vanished, pod_labels: archive.pod_labels.as_deref() };
                    let workload = archive.workload.as_deref();
                    cells.push(Cell {
                        identity,
                        vanished,
                        governing: governors.governing(subject),
                        names: identity.map(|identity| texts.names(identity, workload)),
                    });
                    cells.len() - 1
                })
            })
            .collect();
        let of_archive: Vec<usize> = order.iter().map(|&in_snapshot| as_they_lie[in_snapshot]).collect();
        let mut members = vec![Vec::new(); cells.len()];
        for (place, &cell) in of_archive.iter().enumerate() {
            members[cell].push(place);
        }
        let mut of_policy = vec![Vec::new(); governors.ranked().len()];
        for (place, cell) in cells.iter().enumerate() {
            if let Governing::Policy(policy) = cell.governing {
                of_policy[policy].push(place);
            }
        }
        Self { of_archive, alike: cells, members, of_policy, numbers: Default::default() }
    }

    /// The cell of the archive at `place`.
    pub(super) fn of(&self, place: usize) -> &Cell<'a> {
        &self.alike[self.of_archive[place]]
    }

    /// The archives of a level's groups among those that the policy at place `policy` governs.
    pub(super) fn governed_groups(&self, policy: usize, level: Level) -> Vec<Group> {
        self.groups(self.of_policy[policy].iter().copied(), Together::AtLevel(level))
    }

    /// The lineages among the archives that the policy at place `policy` governs.
    pub(super) fn governed_lineages(&self, policy: usize) -> Vec<Group> {
        self.groups(self.of_policy[policy].iter().copied(), Together::InLineage)
    }

    /// The lineages: each is what one checkpoint can stand in for.
    pub(super) fn lineages(&self) -> Vec<Group> {
        self.groups(0..self.alike.len(), Together::InLineage)
    }

    /// The namespaces, whoever governs what lies in them.
    pub(super) fn namespaces(&self) -> Vec<Group> {
        self.groups(0..self.alike.len(), Together::AtLevel(Level::Namespace))
    }

    /// Joins the cells that count together.
    fn groups(&self, cells: impl Iterator<Item = usize>, together: Together) -> Vec<Group> {
        let numbers = self.numbers(together);
        let mut numbered: Vec<(usize, usize)> =
            cells.filter_map(|cell| numbers[cell].map(|number| (number, cell))).collect();
        numbered.sort_unstable();
        let join = |same: &[(usize, usize)]| {
            let mut group: Group = same.iter().flat_map(|(_, cell)| &self.members[*cell]).copied().collect();
            if same.len() > 1 {
                group.sort_unstable();
            }
            group
        };
        numbered.chunk_by(|(one, _), (other, _)| one == other).map(join).collect()
    }

    /// A number for each cell, the same for those that count together; none for those that count
    /// with nobody. Keys are compared here, once, and numbers ever after.
    fn numbers(&self, together: Together) -> &[Option<usize>] {
        self.numbers[together.place()].get_or_init(|| {
            let mut seen: HashMap<Key, usize> = HashMap::with_capacity(self.alike.len());
            let number = |cell: &Cell<'a>| {
                let key = match together {
                    Together::AtLevel(level) => level_key(level, cell.names?, cell.vanished)?,
                    Together::InLineage => lineage_key(cell.names?, cell.vanished),
                };
                let next = seen.len();
                Some(*seen.entry(key).or_insert(next))
            };
            self.alike.iter().map(number).collect()
        })
    }
}

/// Why archives count together.
#[derive(Debug, Clone, Copy)]
enum Together {
    /// A limit at that level counts them.
    AtLevel(Level),
    /// One can stand in for the other.
    InLineage,
}

impl Together {
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

/// What two archives must share to count together.
type Key = [u32; 5];

/// What it is at `level`; none where the level has no meaning.
fn level_key(level: Level, names: Names, vanished: bool) -> Option<Key> {
    let Names { namespace, pod, container, workload } = names;
    let vanished = u32::from(vanished);
    Some(match level {
        Level::Container => [vanished, namespace, pod, container, 0],
        Level::Workload => {
            let (kind, name, _) = workload?;
            [vanished, namespace, kind, name, container]
        }
        Level::Pod => [vanished, namespace, pod, 0, 0],
        Level::Namespace => [vanished, namespace, 0, 0, 0],
    })
}

/// What it is for one archive to stand in for the other.
fn lineage_key(names: Names, vanished: bool) -> Key {
    let Names { namespace, pod, container, workload } = names;
    let vanished = u32::from(vanished);
    match workload {
        Some((kind, name, false)) => [vanished, namespace, kind, name, container],
        _ => [vanished, namespace, 0, pod, container],
    }
}

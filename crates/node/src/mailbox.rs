//! The mailbox of a driver: everything that others have for it, and the one descriptor that says that there is some.
//!
//! Nothing in it grows with how long the driver does not look: of the configuration and of the pods only the latest
//! is kept, of each namespace its latest change, and the driver itself bounds how many deletions and lookups are
//! under way.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use checkpoint_keeper_core::creation::DumpEnd;
use checkpoint_keeper_core::engine::Haste;
use checkpoint_keeper_core::engine::clock::Now;
use checkpoint_keeper_core::engine::cluster::{ClusterUpdate, Resolved, TimedUpdate};
use checkpoint_keeper_core::engine::config::EngineConfig;
use checkpoint_keeper_core::engine::file::Outcome;
use checkpoint_keeper_core::pods::LookupResult;
use rustix::event::{EventfdFlags, eventfd};

use crate::store::Store;

/// So many namespaces that changed and may be gone are kept. That one is gone is no more than a reason to ask,
/// and what is not asked about at once has its turn.
const MOST_CHANGED: usize = 10_000;

/// What has arrived.
#[derive(Debug, Default)]
pub struct Mail {
    /// The latest configuration, and the greatest haste of all that came.
    pub config: Option<(EngineConfig, Haste)>,
    /// What watches showed of the cluster: applied in this order, it gives the state that they showed last.
    pub updates: Vec<TimedUpdate>,
    /// The answers to lookups, a list for each round.
    pub answers: Vec<Vec<Resolved>>,
    /// What became of deletions.
    pub outcomes: Vec<Unlinked>,
    /// Dumps that have ended.
    pub dumps: Vec<DumpEnd>,
    /// Tasks for the store.
    pub tasks: Vec<StoreTask>,
    /// Whether someone wants to see a plan.
    pub is_plan_wanted: bool,
}

/// Something to do in the directory while nothing is being deleted there.
pub struct StoreTask {
    /// Whether it may protect an archive: deletions that have not begun then wait until they are decided about anew.
    pub protects: bool,
    /// What to do.
    pub run: Box<dyn FnOnce(&Store) + Send>,
}

impl std::fmt::Debug for StoreTask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreTask")
    }
}

/// What became of a deletion.
#[derive(Debug)]
pub struct Unlinked {
    /// What became of it.
    pub outcome: Outcome,
    /// When it was begun.
    pub begun: Instant,
    /// When it had ended.
    pub ended: Instant,
}

impl Mail {
    /// Whether nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.config.is_none()
            && self.updates.is_empty()
            && self.answers.is_empty()
            && self.outcomes.is_empty()
            && self.dumps.is_empty()
            && self.tasks.is_empty()
            && !self.is_plan_wanted
    }
}

#[derive(Debug, Default)]
struct Contents {
    config: Option<(EngineConfig, Haste)>,
    updates: Updates,
    answers: Vec<Vec<Resolved>>,
    outcomes: Vec<Unlinked>,
    dumps: Vec<DumpEnd>,
    tasks: Vec<StoreTask>,
    is_plan_wanted: bool,
}

#[derive(Debug)]
struct Shared {
    contents: Mutex<Contents>,
    /// Readable while there is mail: an eventfd.
    wakeup: OwnedFd,
}

/// Sender of a mailbox.
#[derive(Debug, Clone)]
pub struct Sender(Arc<Shared>);

/// Receiver of a mailbox; readable while there is mail.
#[derive(Debug)]
pub struct Receiver(Arc<Shared>);

/// A mailbox.
pub fn channel() -> std::io::Result<(Sender, Receiver)> {
    let wakeup = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let shared = Arc::new(Shared { contents: Mutex::default(), wakeup });
    Ok((Sender(Arc::clone(&shared)), Receiver(shared)))
}

impl Shared {
    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sender {
    /// Has the driver go by this from now on.
    pub fn send_config(&self, config: EngineConfig, haste: Haste) {
        self.add(|contents| {
            let earlier = contents.config.take().map_or(haste, |(_, earlier)| earlier);
            contents.config = Some((config, haste.max(earlier)));
        });
    }

    /// Sends an update from a watch.
    pub fn send_update(&self, update: TimedUpdate) {
        self.add(|contents| contents.updates.add(update));
    }

    /// Tells of a dump that has ended. The node's dumps are few, and each has one end.
    pub fn send_dump(&self, end: DumpEnd) {
        self.add(|contents| contents.dumps.push(end));
    }

    /// Has something done in the directory while nothing is being deleted there; `protects` as in [`StoreTask`]. The
    /// sender of one waits for it before the next, so there are few.
    pub fn send_task(&self, protects: bool, task: impl FnOnce(&Store) + Send + 'static) {
        self.add(|contents| contents.tasks.push(StoreTask { protects, run: Box::new(task) }));
    }

    /// Has a plan made, although nothing changed.
    pub fn request_plan(&self) {
        self.add(|contents| contents.is_plan_wanted = true);
    }

    pub(crate) fn send_answers(&self, answers: Vec<Resolved>) {
        self.add(|contents| contents.answers.push(answers));
    }

    pub(crate) fn send_outcome(&self, unlinked: Unlinked) {
        self.add(|contents| contents.outcomes.push(unlinked));
    }

    fn add(&self, add: impl FnOnce(&mut Contents)) {
        add(&mut self.0.contents());
        let _ = rustix::io::write(&self.0.wakeup, &1_u64.to_ne_bytes());
    }
}

impl Receiver {
    /// A sender to this.
    pub fn sender(&self) -> Sender {
        Sender(Arc::clone(&self.0))
    }

    /// Everything that arrived since the last call; does not wait.
    pub fn take(&self) -> Mail {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.0.wakeup, &mut count);
        let Contents { config, mut updates, answers, outcomes, dumps, tasks, is_plan_wanted } =
            std::mem::take(&mut *self.0.contents());
        Mail { config, updates: updates.take().collect(), answers, outcomes, dumps, tasks, is_plan_wanted }
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.wakeup.as_fd()
    }
}

/// Updates that the driver has not taken yet, as few as say the same.
#[derive(Debug, Default)]
struct Updates {
    pods: Option<TimedUpdate>,
    /// When the watch of namespaces was lost: what is known of them from before counts no more.
    unknown: Option<Now>,
    /// All namespaces, as a list had them, with the changes since.
    all: Option<(Now, BTreeMap<String, LookupResult>)>,
    /// The namespaces that have changed, where no list came since they were last taken.
    changed: Option<(Now, BTreeMap<String, LookupResult>)>,
}

impl Updates {
    fn add(&mut self, shown: TimedUpdate) {
        let TimedUpdate { at, what } = shown;
        match what {
            ClusterUpdate::Pods(_) => self.pods = Some(TimedUpdate { at, what }),
            ClusterUpdate::NamespacesUnknown => {
                (self.unknown, self.all, self.changed) = (Some(at), None, None);
            }
            ClusterUpdate::AllNamespaces(namespaces) => {
                self.all = Some((at, namespaces.into_iter().collect()));
                self.changed = None;
            }
            ClusterUpdate::Namespaces(namespaces) => {
                for (name, result) in namespaces {
                    self.change(name, result, at);
                }
            }
        }
    }

    fn change(&mut self, name: String, result: LookupResult, at: Now) {
        let is_gone = result == LookupResult::NotFound;
        if let Some((_, all)) = &mut self.all {
            if is_gone {
                all.remove(&name);
            } else {
                all.insert(name, result);
            }
            return;
        }
        let (last, changed) = self.changed.get_or_insert_with(|| (at, BTreeMap::new()));
        *last = at;
        if is_gone && changed.len() >= MOST_CHANGED {
            changed.remove(&name);
        } else {
            changed.insert(name, result);
        }
    }

    /// All updates; applied in this order, they give the state that was shown last.
    fn take(&mut self) -> impl Iterator<Item = TimedUpdate> + use<> {
        let Self { pods, unknown, all, changed } = std::mem::take(self);
        let unknown = unknown.map(|at| TimedUpdate { at, what: ClusterUpdate::NamespacesUnknown });
        let list = |namespaces: BTreeMap<String, LookupResult>| namespaces.into_iter().collect();
        let all = all.map(|(at, all)| TimedUpdate { at, what: ClusterUpdate::AllNamespaces(list(all)) });
        let changed =
            changed.map(|(at, changed)| TimedUpdate { at, what: ClusterUpdate::Namespaces(list(changed)) });
        [pods, unknown, all, changed].into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_core::engine::cluster::ClusterUpdate;

    use super::*;
    use crate::clock::now;

    fn there(label: &str) -> LookupResult {
        let labels = [("env".to_owned(), label.to_owned())].into();
        LookupResult::Namespace { labels, created: "2026-01-01T00:00:00Z".parse().unwrap() }
    }

    fn one(name: &str, result: LookupResult) -> ClusterUpdate {
        ClusterUpdate::Namespaces(vec![(name.to_owned(), result)])
    }

    #[test]
    fn only_what_it_is_by_now_waits_to_be_seen() {
        let (sender, receiver) = channel().unwrap();
        let show = |what| sender.send_update(TimedUpdate { at: now(), what });
        let seen = || receiver.take().updates.into_iter().map(|update| update.what).collect::<Vec<_>>();
        assert_eq!(seen(), []);
        show(ClusterUpdate::Pods(None));
        show(ClusterUpdate::Pods(Some(Vec::new())));
        show(one("a", there("prod")));
        show(one("a", there("dev")));
        assert_eq!(seen(), [ClusterUpdate::Pods(Some(Vec::new())), one("a", there("dev"))]);
        assert_eq!(seen(), []);
        // A list is all that there is, and what changes after it changes it.
        let all = |names: &[&str]| {
            ClusterUpdate::AllNamespaces(
                names.iter().map(|name| ((*name).to_owned(), there("prod"))).collect(),
            )
        };
        show(one("old", there("prod")));
        show(ClusterUpdate::NamespacesUnknown);
        show(one("early", there("prod")));
        show(all(&["a", "b", "c"]));
        show(one("b", LookupResult::NotFound));
        show(one("d", there("prod")));
        assert_eq!(seen(), [ClusterUpdate::NamespacesUnknown, all(&["a", "c", "d"])]);
        show(all(&["a"]));
        show(ClusterUpdate::NamespacesUnknown);
        assert_eq!(seen(), [ClusterUpdate::NamespacesUnknown]);
    }

    #[test]
    fn what_waits_does_not_grow_with_all_that_comes_and_goes() {
        let mut updates = Updates::default();
        for number in 0..3 * MOST_CHANGED {
            let name = format!("team-{number}");
            for result in [there("dev"), LookupResult::NotFound] {
                updates.add(TimedUpdate { at: now(), what: one(&name, result) });
            }
        }
        updates.add(TimedUpdate { at: now(), what: one("here", there("prod")) });
        let Some((_, changed)) = &updates.changed else { panic!("{updates:?}") };
        assert!(changed.len() <= MOST_CHANGED + 1 && changed["here"] == there("prod"), "{}", changed.len());
    }
}

//! What watches of the cluster tell a collector, unasked, and the mailbox for it.
//!
//! Only what it is by now is kept until the collector looks, however long that takes: of pods the latest list,
//! of each namespace the latest change.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use checkpoint_keeper_core::pods::{LivePod, LookupResult};
use rustix::event::{EventfdFlags, eventfd};

use crate::clock::Now;

/// So many namespaces that changed and may be gone are kept. That one is gone is no more than a reason to ask,
/// and what is not asked about at once has its turn.
const MOST_CHANGED: usize = 10_000;

/// What is shown, as it was at some moment.
#[derive(Debug, Clone, PartialEq)]
pub struct TimedUpdate {
    /// When.
    pub at: Now,
    /// What.
    pub what: ClusterUpdate,
}

/// Something to see.
#[derive(Debug, Clone, PartialEq)]
pub enum ClusterUpdate {
    /// All pods that run on this node; none where that cannot be told.
    Pods(Option<Vec<LivePod>>),
    /// Namespaces that changed, or are no longer seen.
    Namespaces(Vec<(String, LookupResult)>),
    /// All namespaces that there are.
    AllNamespaces(Vec<(String, LookupResult)>),
    /// What was shown of namespaces need not be so any more.
    NamespacesUnknown,
}

/// What was shown and not yet seen.
#[derive(Debug, Default)]
struct Waiting {
    pods: Option<TimedUpdate>,
    /// What was shown of namespaces before the rest was not so any more.
    unknown: Option<Now>,
    all: Option<(Now, BTreeMap<String, LookupResult>)>,
    changed: Option<(Now, BTreeMap<String, LookupResult>)>,
}

impl Waiting {
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
                for (name, finding) in namespaces {
                    self.change(name, finding, at);
                }
            }
        }
    }

    fn change(&mut self, name: String, finding: LookupResult, at: Now) {
        let is_gone = finding == LookupResult::NotFound;
        if let Some((_, all)) = &mut self.all {
            if is_gone {
                all.remove(&name);
            } else {
                all.insert(name, finding);
            }
            return;
        }
        let (last, changed) = self.changed.get_or_insert_with(|| (at, BTreeMap::new()));
        *last = at;
        if is_gone && changed.len() >= MOST_CHANGED {
            changed.remove(&name);
        } else {
            changed.insert(name, finding);
        }
    }

    /// All of it, in an order in which it is right.
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

/// Sender of cluster updates.
#[derive(Debug, Clone)]
pub struct ClusterUpdateSender {
    waiting: Arc<Mutex<Waiting>>,
    bell: Arc<OwnedFd>,
}

/// Receiver of cluster updates.
#[derive(Debug)]
pub struct ClusterUpdateReceiver {
    waiting: Arc<Mutex<Waiting>>,
    bell: Arc<OwnedFd>,
}

/// A mailbox for cluster updates, in which only the latest of each kind is kept.
pub fn channel() -> std::io::Result<(ClusterUpdateSender, ClusterUpdateReceiver)> {
    let waiting = Arc::<Mutex<Waiting>>::default();
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    Ok((
        ClusterUpdateSender { waiting: Arc::clone(&waiting), bell: Arc::clone(&bell) },
        ClusterUpdateReceiver { waiting, bell },
    ))
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ClusterUpdateSender {
    /// Sends, and does not wait.
    pub fn send(&self, shown: TimedUpdate) {
        lock(&self.waiting).add(shown);
        let _ = rustix::io::write(&*self.bell, &1_u64.to_ne_bytes());
    }
}

impl ClusterUpdateReceiver {
    /// The updates since the last call; does not wait.
    pub fn drain(&self) -> impl Iterator<Item = TimedUpdate> + use<> {
        let mut count = [0; 8];
        let _ = rustix::io::read(&*self.bell, &mut count);
        lock(&self.waiting).take()
    }
}

impl AsFd for ClusterUpdateReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(label: &str) -> LookupResult {
        let labels = [("env".to_owned(), label.to_owned())].into();
        LookupResult::Namespace { labels, created: "2026-01-01T00:00:00Z".parse().unwrap() }
    }

    fn one(name: &str, finding: LookupResult) -> ClusterUpdate {
        ClusterUpdate::Namespaces(vec![(name.to_owned(), finding)])
    }

    #[test]
    fn only_what_it_is_by_now_waits_to_be_seen() {
        let (sender, receiver) = channel().unwrap();
        let show = |what| sender.send(TimedUpdate { at: Now::read(), what });
        let seen = || receiver.drain().map(|shown| shown.what).collect::<Vec<_>>();
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
        let mut waiting = Waiting::default();
        for number in 0..3 * MOST_CHANGED {
            let name = format!("team-{number}");
            for finding in [there("dev"), LookupResult::NotFound] {
                waiting.add(TimedUpdate { at: Now::read(), what: one(&name, finding) });
            }
        }
        waiting.add(TimedUpdate { at: Now::read(), what: one("here", there("prod")) });
        let Some((_, changed)) = &waiting.changed else { panic!("{waiting:?}") };
        assert!(changed.len() <= MOST_CHANGED + 1 && changed["here"] == there("prod"), "{}", changed.len());
    }
}

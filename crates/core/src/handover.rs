//! Which policy governed each container's archives until a moment ago (promise 11).
//!
//! An archive that falls to another policy, as the one that governed it was deleted or does not select it any
//! more, is left alone by that one for a while: whoever deletes a policy and creates it anew, or under another
//! name, loses nothing in between. Whether the former one still selects an archive is the plan's to say.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::identity::Identity;
use crate::plan::{Governed, Plan, Snapshot};
use crate::policy::PolicyRef;

/// How long the next policy takes nothing of what another one governed before.
pub const HANDOVER: Duration = Duration::from_mins(5);

/// Which policy governed each container's archives. Time is the monotonic clock's.
#[derive(Debug, Default)]
pub struct GoverningHistory {
    containers: HashMap<Arc<Identity>, Former>,
}

/// What governed a container's archives.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Former {
    policy: Arc<PolicyRef>,
    /// When it was first seen not to any more; none: it still does.
    ceased: Option<Duration>,
}

impl Former {
    fn counts(&self, uptime: Duration) -> bool {
        self.ceased.is_none_or(|ceased| uptime.saturating_sub(ceased) < HANDOVER)
    }
}

impl GoverningHistory {
    /// Knows what was remembered: what governs it no more ceases to from now on.
    pub fn new(remembered: impl IntoIterator<Item = (Identity, PolicyRef)>) -> Self {
        let former = |policy| Former { policy: Arc::new(policy), ceased: None };
        let containers =
            remembered.into_iter().map(|(identity, policy)| (Arc::new(identity), former(policy)));
        Self { containers: containers.collect() }
    }

    /// Everything that is to be remembered, as into a memory that was lost.
    pub fn all(&self) -> impl Iterator<Item = (Identity, PolicyRef)> + '_ {
        let all = self.containers.iter();
        all.map(|(identity, former)| (Identity::clone(identity), PolicyRef::clone(&former.policy)))
    }

    /// Gives a snapshot's archives what governed them until a moment ago.
    pub fn fill(&self, snapshot: &mut Snapshot, uptime: Duration) {
        // Archives of one container share their identity: each is looked up once.
        let mut found: HashMap<*const Identity, Option<Arc<PolicyRef>>> = HashMap::new();
        for archive in &mut snapshot.archives {
            let Some(identity) = &archive.identity else { continue };
            let former = found.entry(Arc::as_ptr(identity)).or_insert_with(|| {
                let former = self.containers.get(identity).filter(|former| former.counts(uptime))?;
                Some(Arc::clone(&former.policy))
            });
            archive.governed_by.clone_from(former);
        }
    }

    /// Notes what governs by a plan. Returns what is to be remembered, and what is to be forgotten.
    pub fn note(&mut self, snapshot: &Snapshot, plan: &Plan, uptime: Duration) -> HistoryChanges {
        let mut now: HashMap<&Arc<Identity>, &Governed> = HashMap::new();
        for (archive, governed) in snapshot.archives.iter().zip(&plan.governed) {
            let Some(identity) = &archive.identity else { continue };
            let known = now.entry(identity).or_insert(governed);
            if matches!(governed, Governed::By(_)) {
                *known = governed;
            }
        }
        let mut changes = HistoryChanges::default();
        for (&identity, governed) in &now {
            match (governed, self.containers.get_mut(identity)) {
                (Governed::By(policy), Some(former)) if former.policy.is_same_object(policy) => {
                    former.ceased = None;
                }
                (Governed::By(policy), _) => {
                    changes.remember.push((Identity::clone(identity), PolicyRef::clone(policy)));
                    let former = Former { policy: Arc::clone(policy), ceased: None };
                    self.containers.insert(Arc::clone(identity), former);
                }
                (Governed::Nobody | Governed::SoonBy(_), Some(former)) => {
                    former.ceased.get_or_insert(uptime);
                }
                // What cannot be told changes nothing.
                (Governed::Uncertain, _) | (_, None) => {}
            }
        }
        self.containers.retain(|identity, former| {
            let stays = now.contains_key(identity) && former.counts(uptime);
            if !stays {
                changes.forget.push(Identity::clone(identity));
            }
            stays
        });
        changes
    }
}

/// The changes that the catalog is to write.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct HistoryChanges {
    /// What governs a container's archives now.
    pub remember: Vec<(Identity, PolicyRef)>,
    /// Containers of which nothing need be remembered any more.
    pub forget: Vec<Identity>,
}

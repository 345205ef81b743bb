//! Which policy governed each container's archives until a moment ago.
//!
//! When the policy that governed an archive is deleted or does not select it any more, another policy may govern it
//! next. That policy waits for a while ([`HANDOVER`]) before it deletes the archive: so a user may delete a policy
//! and create it again, also under another name, and loses no archive in between. Whether the former policy still
//! selects an archive is decided by the plan.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::identity::Identity;
use crate::plan::{Governed, Plan, Snapshot};
use crate::policy::PolicyRef;

/// How long the next policy deletes no archive that another one governed before.
pub const HANDOVER: Duration = Duration::from_mins(5);

/// Which policy governed each container's archives. Times are from the monotonic clock.
#[derive(Debug, Default)]
pub struct GoverningHistory {
    containers: HashMap<Arc<Identity>, Former>,
}

/// The policy that last governed a container's archives.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Former {
    policy: Arc<PolicyRef>,
    /// When it was first found that it does not govern them any more; none: it still does.
    ceased: Option<Duration>,
}

impl Former {
    fn counts(&self, uptime: Duration) -> bool {
        self.ceased.is_none_or(|ceased| uptime.saturating_sub(ceased) < HANDOVER)
    }
}

impl GoverningHistory {
    /// Starts from the catalog. A policy that does not govern its archives any more counts as ceasing now.
    pub fn new(remembered: impl IntoIterator<Item = (Identity, PolicyRef)>) -> Self {
        let former = |policy| Former { policy: Arc::new(policy), ceased: None };
        let containers =
            remembered.into_iter().map(|(identity, policy)| (Arc::new(identity), former(policy)));
        Self { containers: containers.collect() }
    }

    /// The whole history, for a new catalog.
    pub fn all(&self) -> impl Iterator<Item = (Identity, PolicyRef)> + '_ {
        let all = self.containers.iter();
        all.map(|(identity, former)| (Identity::clone(identity), PolicyRef::clone(&former.policy)))
    }

    /// Sets for each archive of a snapshot the policy that governed it until a moment ago.
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

    /// Notes which policies govern by a plan. Returns what the catalog is to write.
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
                (Governed::NoPolicy | Governed::SoonBy(_), Some(former)) => {
                    former.ceased.get_or_insert(uptime);
                }
                // Nothing changes while it is uncertain which policy governs.
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
    /// The policy that governs a container's archives now.
    pub remember: Vec<(Identity, PolicyRef)>,
    /// Containers of which nothing need be remembered any more.
    pub forget: Vec<Identity>,
}

//! What a plan is made from: the archives of one directory and what is known about their owners.
//!
//! Everything that only a cluster knows may be absent, and absence never makes a deletion likelier.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::archive::{State, Texts};
use crate::creation::Creation;
use crate::identity::Identity;
use crate::name::FileName;
use crate::policy::{FormerLabels, Labels, PolicyRef};

/// One directory at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// What lies in the directory, in any order; no two have the same file name.
    pub archives: Vec<Archive>,
    /// The archives whose deletion has begun and has not ended: they are not among `archives`.
    pub being_deleted: BTreeSet<FileName>,
    /// The file system below it; none where it could not be asked.
    pub filesystem: Option<FileSystem>,
    /// The namespaces that the API showed.
    pub namespaces: BTreeMap<String, Namespace>,
    /// This node's labels; none where they are not known.
    pub node_labels: Option<Labels>,
    /// Whether rules by time may act.
    pub clock: Clock,
    /// How many deletions the buckets allow now; none: as many as the plan wants.
    pub allowance: Option<Allowance>,
}

/// One archive as it lies on the disk.
#[derive(Debug, Clone)]
pub struct Archive {
    /// Its name in the directory.
    pub file: FileName,
    /// Which file that is.
    pub file_id: FileId,
    /// Whose checkpoint it holds; none where that is not certain.
    pub identity: Option<Arc<Identity>>,
    /// What its bytes said.
    pub state: State,
    /// What else they said; none before they were read.
    pub texts: Option<Arc<Texts>>,
    /// When the checkpoint was taken, as far as [`Self::dated`] says that this is known.
    pub taken: Timestamp,
    /// What the archive itself says of that, believed or not: it orders those of equal times.
    pub claimed: Timestamp,
    /// How far it is known when the checkpoint was taken.
    pub dated: Dated,
    /// When its bytes last changed.
    pub changed: Timestamp,
    /// The file's size in bytes.
    pub size: u64,
    /// What it occupies on the disk in bytes.
    pub allocated: u64,
    /// Whether a `.keep` marker lies beside it, or might.
    pub pinned: bool,
    /// Whether it has been left alone for the settle time, or was seen being closed.
    pub settled: bool,
    /// Whether its deletion was requested through the API by an authorised user.
    pub discarded: bool,
    /// Whether the system refused to delete it a moment ago: the watermark looks elsewhere.
    pub undeletable: bool,
    /// The pod's labels as they were remembered; none where they were never seen.
    pub pod_labels: Option<Arc<Labels>>,
    /// The labels by which overriding policies selected its pod before; none where there are no such policies.
    pub former_labels: Option<Arc<FormerLabels>>,
    /// The labels of its namespace by which policies select it; none where they are not known.
    pub namespace_labels: Option<Arc<Labels>>,
    /// The pod's topmost owner as it was remembered; none for a bare pod or where it was never seen.
    pub workload: Option<Arc<Workload>>,
    /// What the API confirmed to be gone.
    pub absences: Option<Arc<Absences>>,
    /// Since when the API confirms that no pod of its lineage runs on this node.
    pub idle_since: Option<Timestamp>,
    /// When the namespace was created in which its very pod was seen alive.
    pub seen_in: Option<Timestamp>,
    /// Which policy governed it until now or a moment ago; none where that is not known or long enough ago.
    pub governed_by: Option<Arc<PolicyRef>>,
    /// How it came into being; none where this program did not ask for it, or does not know any more that it did.
    pub creation: Option<Arc<Creation>>,
}

/// Which file an archive is: another one of the same name has another, and so has one whose bytes changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct FileId {
    /// Its number in the file system.
    pub inode: u64,
    /// When its bytes last changed: seconds and nanoseconds since 1970.
    pub modified: (i64, u32),
}

/// How far it is known when a checkpoint was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
pub enum Dated {
    /// A clock that is trusted agrees, or one that was trusted did.
    #[default]
    Trusted,
    /// No clock that is trusted can say, but it is no later than the one there is.
    Untrusted,
    /// It claims to be later than a clock that is not trusted: one of the two is wrong. It displaces nothing,
    /// and nothing displaces it.
    Ahead,
    /// Nothing that is said of it is plausible: the time is that of its first sight. It displaces nothing and is
    /// no newest.
    Undated,
}

impl Archive {
    /// A whole, settled archive of that container, taken at that time, of which nothing else is known.
    pub fn whole(file: FileName, identity: Arc<Identity>, taken: Timestamp, size: u64) -> Self {
        Self {
            file,
            file_id: FileId::default(),
            identity: Some(identity),
            state: State::Complete,
            texts: None,
            taken,
            claimed: taken,
            dated: Dated::Trusted,
            changed: taken,
            size,
            allocated: size,
            pinned: false,
            settled: true,
            discarded: false,
            undeletable: false,
            pod_labels: None,
            former_labels: None,
            namespace_labels: None,
            workload: None,
            absences: None,
            idle_since: None,
            seen_in: None,
            governed_by: None,
            creation: None,
        }
    }

    /// Which of the namespaces of its name it is from, by when that was created which has the name now.
    pub fn origin(&self, created: Option<Timestamp>) -> Origin {
        match self.dated {
            Dated::Trusted => Origin::of(self.taken, self.seen_in, created),
            // By times that may be wrong, only a pod that was seen proves anything.
            _ if created.is_some() && self.seen_in != created => Origin::Uncertain,
            _ => Origin::Present,
        }
    }

    /// Whether the namespace that it is from is there, where a cluster can be asked.
    pub fn home(&self, namespaces: &BTreeMap<String, Namespace>) -> Home {
        let Some(identity) = &self.identity else { return Home::Unknown };
        if self.absences.as_ref().is_some_and(|absences| absences.namespace.is_some()) {
            return Home::None;
        }
        let there = namespaces.get(&identity.namespace).filter(|namespace| !namespace.is_invalidated);
        let Some(created) = there.and_then(|namespace| namespace.created) else { return Home::Unknown };
        match self.origin(Some(created)) {
            Origin::Present => Home::There,
            Origin::Former => Home::None,
            Origin::Uncertain => Home::Unknown,
        }
    }
}

/// Whether the namespace that an archive is from is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Home {
    /// It is: its users see the archive, and ask for what becomes of it.
    There,
    /// It is gone, or one of the same name took its place: only administrators see the archive.
    None,
    /// That is not known yet: nobody's.
    Unknown,
}

/// How far apart this node's clock, which dates checkpoints, and the API's, which dates namespaces, may
/// be while both count as right.
const CLOCKS_DIFFER_BY: std::time::Duration = std::time::Duration::from_mins(5);

/// Which of the namespaces that have had a name an archive is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The one that is there.
    Present,
    /// One that is gone.
    Former,
    /// One of the two: it was taken at about the time at which the one that is there was created.
    Uncertain,
}

impl Origin {
    /// What is known of an archive: when it was taken, in a namespace of which age its pod was seen, and
    /// of which age the namespace is that is there. A pod that was seen proves what no clock can.
    pub fn of(taken: Timestamp, seen_in: Option<Timestamp>, created: Option<Timestamp>) -> Self {
        let Some(created) = created.filter(|_| seen_in != created) else { return Self::Present };
        if taken >= created.checked_add(CLOCKS_DIFFER_BY).unwrap_or(Timestamp::MAX) {
            Self::Present
        } else if taken < created.checked_sub(CLOCKS_DIFFER_BY).unwrap_or(Timestamp::MIN) {
            Self::Former
        } else {
            Self::Uncertain
        }
    }
}

/// A pod's topmost owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Workload {
    /// Its API group: `apps`; empty for the core group. Two groups may have a kind of the same name.
    pub group: String,
    /// `Deployment`, `StatefulSet`, `CronJob`, …
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// What live requests to the API found to be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Absences {
    /// The pod, by name.
    pub pod: Option<Absence>,
    /// The topmost owner; for a bare pod, the pod.
    pub workload: Option<Absence>,
    /// The namespace.
    pub namespace: Option<Absence>,
}

/// A `NotFound`, and the latest confirmation of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence {
    /// When the API first said so.
    pub since: Timestamp,
    /// When it last said so.
    pub confirmed: Timestamp,
}

impl Absence {
    /// One that the API has not confirmed of late: no rule may delete anything for it.
    pub fn unconfirmed(since: Timestamp) -> Self {
        Self { since, confirmed: Timestamp::MIN }
    }
}

/// A namespace as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Namespace {
    /// When it was created: an archive older than that belonged to another of the same name.
    pub created: Option<Timestamp>,
    /// Whether a policy appeared in it since the namespace was last looked up. The namespace may then be a new one of
    /// the same name, whose owner has no right to the archives that are here.
    pub is_invalidated: bool,
}

/// The file system that the archives lie on, as `statvfs` shows it to an ordinary process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    /// Its size in bytes.
    pub total_bytes: u64,
    /// Bytes that ordinary processes may still use.
    pub available_bytes: u64,
    /// Its inodes; 0 where the file system does not count them.
    pub total_inodes: u64,
    /// Inodes that ordinary processes may still use.
    pub available_inodes: u64,
    /// Whether it has shown what the last watermark round deleted.
    pub release: Release,
}

/// Whether a file system has shown what the last watermark round deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Release {
    /// It has, or there was none.
    #[default]
    Shown,
    /// It has not yet: no new round begins.
    Awaited,
    /// It did not: one archive is deleted, to see whether that shows.
    Probing,
}

/// How many deletions the buckets allow now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Allowance {
    /// Of any archives, by policies.
    pub shared: u64,
    /// Of a namespace's archives, as so many archives of that namespace arrived lately. The empty name stands for
    /// archives whose namespace is unknown.
    pub arrived: BTreeMap<String, u64>,
    /// By the watermark, while the file system is not critically full.
    pub watermark: u64,
}

/// What pays for a deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Draw {
    /// Nothing: it stays, or is exempt.
    #[default]
    Nothing,
    /// A token of the policies' bucket.
    Shared,
    /// A token that an archive of the same namespace brought along.
    Arrival,
    /// A token of the watermark's bucket.
    Watermark,
}

/// Whether the wall clock agrees with the monotonic clock's progress and with the API's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Clock {
    /// Rules by time act.
    #[default]
    Trusted,
    /// Rules by time wait.
    Suspect,
}

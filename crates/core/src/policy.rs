//! What a policy asks for, checked and in plain numbers.
//!
//! Manifests become these types in the `api` crate; what they lead to is [`crate::plan`]'s part.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::quantity::Share;

/// Labels of a pod, a namespace or a node.
pub type Labels = BTreeMap<String, String>;

/// The labels of a pod by which policies with `precedence: Override` last selected it, by the policy's name: what such
/// a policy has selected once it does not lose by a change of the pod's labels.
pub type FormerLabels = BTreeMap<String, Labels>;

/// The kinds that say what may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// `checkpoint-keeper.io/v1alpha1`, cluster-wide retention.
    ClusterCheckpointPolicy,
    /// `checkpoint-keeper.io/v1alpha1`, one namespace's retention.
    CheckpointPolicy,
    /// `checkpoint-keeper.io/v1alpha1`, what checkpoints may use on a node.
    CheckpointStoragePolicy,
    /// `criu.org/v1`, the older operator's retention.
    CheckpointRestoreOperator,
    /// `checkpoint-keeper.io/v1alpha1`, which checkpoints are made, and which of them stay.
    CheckpointSchedule,
}

/// Which object a policy came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PolicyRef {
    /// The object's kind.
    pub kind: Kind,
    /// The object's namespace; none where the kind is cluster-scoped.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
    /// The part of the object that it is, where one object holds several: `containerPolicies[1]`.
    pub part: Option<String>,
}

/// The API group of the native kinds.
pub const GROUP: &str = "checkpoint-keeper.io";
/// The version of the native kinds.
pub const VERSION: &str = "v1alpha1";
/// The API group of the older operator's kinds. It belongs to that project: they are read, and never extended.
pub const LEGACY_GROUP: &str = "criu.org";
/// The version of the older operator's kinds.
pub const LEGACY_VERSION: &str = "v1";

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::ClusterCheckpointPolicy,
        Self::CheckpointPolicy,
        Self::CheckpointStoragePolicy,
        Self::CheckpointRestoreOperator,
        Self::CheckpointSchedule,
    ];

    /// The kind's name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClusterCheckpointPolicy => "ClusterCheckpointPolicy",
            Self::CheckpointPolicy => "CheckpointPolicy",
            Self::CheckpointStoragePolicy => "CheckpointStoragePolicy",
            Self::CheckpointRestoreOperator => "CheckpointRestoreOperator",
            Self::CheckpointSchedule => "CheckpointSchedule",
        }
    }

    /// The kind's API group and version, as `apiVersion` has them.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::ClusterCheckpointPolicy
            | Self::CheckpointPolicy
            | Self::CheckpointStoragePolicy
            | Self::CheckpointSchedule => "checkpoint-keeper.io/v1alpha1",
            Self::CheckpointRestoreOperator => "criu.org/v1",
        }
    }

    /// The kind's short name in tables; of the native kinds, the one that `kubectl get` takes as well.
    pub const fn short_name(self) -> &'static str {
        match self {
            Self::ClusterCheckpointPolicy => "cckpol",
            Self::CheckpointPolicy => "ckpol",
            Self::CheckpointStoragePolicy => "ckstorage",
            Self::CheckpointRestoreOperator => "cro",
            Self::CheckpointSchedule => "cksched",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl PolicyRef {
    /// Whether both are parts of one object, by its name.
    pub fn is_same_object(&self, other: &Self) -> bool {
        (self.kind, &self.namespace, &self.name) == (other.kind, &other.namespace, &other.name)
    }

    /// `ckpol/shop/default`, for tables.
    pub fn short(&self) -> String {
        let namespace = self.namespace.as_deref().map(|namespace| format!("{namespace}/"));
        let part = self.part.as_deref().map(|part| format!(" {part}")).unwrap_or_default();
        format!("{}/{}{}{part}", self.kind.short_name(), namespace.unwrap_or_default(), self.name)
    }
}

impl fmt::Display for PolicyRef {
    /// `CheckpointPolicy/shop/default`, `ClusterCheckpointPolicy/default`,
    /// `CheckpointRestoreOperator/shop/default containerPolicies[1]`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/", self.kind)?;
        if let Some(namespace) = &self.namespace {
            write!(formatter, "{namespace}/")?;
        }
        formatter.write_str(&self.name)?;
        self.part.as_ref().map_or(Ok(()), |part| write!(formatter, " {part}"))
    }
}

/// Everything in force on a node.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PolicySet {
    /// Retention policies, in any order.
    pub retention: Vec<Policy>,
    /// Storage policies, in any order; the strictest value wins field by field.
    pub storage: Vec<StoragePolicy>,
    /// What schedules keep of the archives that they had made, of those of which this is known for certain.
    pub schedules: Vec<ScheduleRetention>,
    /// Objects that are there but could not be understood.
    pub invalid: Vec<InvalidPolicy>,
    /// The generation of each object that these policies come from, where it has one: a report of a decision names
    /// the version of the policy that made it.
    pub generations: BTreeMap<PolicyRef, i64>,
}

impl PolicySet {
    /// The generation of the object that a policy is of, or is a part of.
    pub fn generation(&self, policy: &PolicyRef) -> Option<i64> {
        let object = PolicyRef { part: None, ..policy.clone() };
        self.generations.get(&object).copied()
    }
}

impl PolicySet {
    /// Whether some rule goes by how old something is, or for how long it is gone: it needs a clock that is right.
    pub fn goes_by_time(&self) -> bool {
        let by_time = |policy: &Policy| {
            let retention = &policy.retention;
            policy.orphans.is_some()
                || policy.incomplete_grace.is_some()
                || policy.damaged_grace.is_some()
                || retention.min_age.is_some()
                || retention.max_age.is_some()
                || retention.tiers.is_some()
        };
        self.retention.iter().any(by_time)
            || self.schedules.iter().any(|schedule| schedule.max_age.is_some())
            || self.storage.iter().any(|policy| policy.per_namespace.max_age.is_some())
    }
}

/// Which of the archives that a schedule had made stay, of each container: the newest, and those that are young. The
/// others go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRetention {
    /// The schedule.
    pub id: PolicyRef,
    /// The schedule's UID.
    pub uid: String,
    /// So many of the newest stay, whatever their age.
    pub keep_latest: u32,
    /// Others stay up to this age; none: they go whatever their age.
    pub max_age: Option<Duration>,
}

/// How certain it is that a [`PolicySet`] is what the API holds now.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Confidence {
    /// Every kind of policy is being watched.
    #[default]
    Current,
    /// Some kind cannot be watched now. What this set, the last one of which all was known, keeps, stays.
    Stale {
        /// The policies when every kind was last known.
        confirmed: Arc<PolicySet>,
    },
    /// Some kind could not be watched for too long: only storage policies act.
    Paused,
}

/// An object that could not be understood: nothing that it could govern is deleted by policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidPolicy {
    /// Which object.
    pub id: PolicyRef,
    /// The only namespace it could govern; none: everything without a namespaced policy.
    pub namespace: Option<String>,
    /// Whether it could go before namespaced policies: then nothing at all is deleted by policy.
    pub precedence: Precedence,
}

/// A retention policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Which object it came from.
    pub id: PolicyRef,
    /// When the object was created; of two equally specific policies the older governs.
    pub created: Option<Timestamp>,
    /// The only namespace it affects; none: all of them.
    pub namespace: Option<String>,
    /// Whether it deletes or only says what it would delete.
    pub mode: Mode,
    /// Which archives it is for.
    pub selector: Selector,
    /// What stays.
    pub retention: Retention,
    /// What becomes of archives whose pod or workload is gone; none: they are retained.
    pub orphans: Option<OrphanRule>,
    /// How long an incomplete archive stays after its last change; none: it is retained.
    pub incomplete_grace: Option<Duration>,
    /// How long a damaged archive stays after its last change; none: it is retained.
    pub damaged_grace: Option<Duration>,
    /// Whether a cluster-wide policy goes before namespaced ones.
    pub precedence: Precedence,
}

impl Policy {
    /// Whether it goes before namespaced policies.
    pub fn overrides(&self) -> bool {
        self.namespace.is_none() && self.precedence == Precedence::Override
    }
}

/// Where a cluster-wide policy stands among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precedence {
    /// Namespaced policies go before it.
    #[default]
    Default,
    /// It goes before namespaced policies.
    Override,
}

/// Whether a policy acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// It governs.
    #[default]
    Enforce,
    /// It governs nothing and only reports the difference it would make.
    DryRun,
}

/// Which archives a policy is for: all parts must match, an absent part matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selector {
    /// Exact namespaces; empty: any.
    pub namespaces: Vec<String>,
    /// Labels of the namespace.
    pub namespace_labels: LabelSelector,
    /// Labels of the pod, as they were remembered while it lived.
    pub pod_labels: LabelSelector,
    /// Exact pod names; empty: any.
    pub pods: Vec<String>,
    /// Exact container names; empty: any.
    pub containers: Vec<String>,
}

impl Selector {
    /// Whether it matches every archive.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// Whether it takes to know a namespace's labels to tell what it matches. Its name is always known.
    pub fn needs_namespace_labels(&self) -> bool {
        self.namespace_labels.0.iter().any(|requirement| requirement.key != NAMESPACE_NAME)
    }
}

/// The label that every namespace has, whose value is its name (the API server sees to that).
pub const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// A Kubernetes label selector: every requirement must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector(pub Vec<Requirement>);

/// One requirement of a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold of its value.
    pub operator: Operator,
}

/// What a label selector asks of a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// The value is one of these.
    In(Vec<String>),
    /// The value is none of these, or the label is absent.
    NotIn(Vec<String>),
    /// The label is there.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl Requirement {
    /// Whether it holds of a label with this value; none: there is no such label.
    pub fn holds(&self, value: Option<&str>) -> bool {
        let is_one_of = |values: &[String]| value.is_some_and(|value| values.iter().any(|one| one == value));
        match &self.operator {
            Operator::In(values) => is_one_of(values),
            Operator::NotIn(values) => !is_one_of(values),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

impl LabelSelector {
    /// Whether `labels` satisfy every requirement.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|requirement| requirement.holds(labels.get(&requirement.key).map(String::as_str)))
    }
}

/// What a policy keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// How many of the newest complete archives of each lineage survive; 0: none is special.
    pub keep_latest: u32,
    /// How long that floor holds after the lineage's last pod left the node.
    pub keep_latest_for: KeepFor,
    /// Younger ones are not taken by count, size or tiers; they count all the same.
    pub min_age: Option<Duration>,
    /// Older ones go.
    pub max_age: Option<Duration>,
    /// Larger ones go; bytes.
    pub max_archive_size: Option<u64>,
    /// Limits on what one container has.
    pub per_container: Limit,
    /// Limits on what one topmost owner and container have.
    pub per_workload: Limit,
    /// Limits on what one pod has.
    pub per_pod: Limit,
    /// Limits on what one namespace has.
    pub per_namespace: Limit,
    /// Keep one archive of each period, in place of `max_age` and `per_container.max_count`.
    pub tiers: Option<Tiers>,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            keep_latest: DEFAULT_KEEP_LATEST,
            keep_latest_for: KeepFor::default(),
            min_age: None,
            max_age: None,
            max_archive_size: None,
            per_container: Limit::default(),
            per_workload: Limit::default(),
            per_pod: Limit::default(),
            per_namespace: Limit::default(),
            tiers: None,
        }
    }
}

/// The newest that stays where no policy says otherwise.
pub const DEFAULT_KEEP_LATEST: u32 = 1;

/// How long the newest of a lineage is kept after its last pod left the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeepFor {
    /// Until a user deletes it.
    Forever,
    /// That long.
    For(Duration),
}

impl Default for KeepFor {
    fn default() -> Self {
        Self::For(Duration::from_hours(7 * 24))
    }
}

/// Limits on a group of archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limit {
    /// How many archives; none: no limit.
    pub max_count: Option<u64>,
    /// How many bytes together; none: no limit.
    pub max_total_size: Option<Size>,
}

/// An amount of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// That many bytes.
    Bytes(u64),
    /// A part of the file system that the archives lie on.
    Share(Share),
}

impl Size {
    /// Bytes on a file system of `total` bytes; none where a share has nothing to be a share of.
    pub fn bytes(self, total: Option<u64>) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Share(share) => total.map(|total| share.of(total)),
        }
    }
}

/// How many periods keep their newest complete archive; 0: that tier is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tiers {
    /// Hours.
    pub hourly: u32,
    /// Days.
    pub daily: u32,
    /// ISO weeks.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
    /// Years.
    pub yearly: u32,
}

/// When an archive counts as an orphan, and for how long it then stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrphanRule {
    /// What must be gone.
    pub when: OrphanWhen,
    /// How long it stays after the first confirmed absence.
    pub grace: Duration,
}

/// What must be gone for an archive to be an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OrphanWhen {
    /// The topmost owner; for a bare pod, the pod.
    #[default]
    WorkloadDeleted,
    /// The pod, by name.
    PodDeleted,
    /// The namespace.
    NamespaceDeleted,
}

/// What checkpoints may use on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoragePolicy {
    /// Which object it came from.
    pub id: PolicyRef,
    /// Which nodes it is for.
    pub node_selector: LabelSelector,
    /// Whether it acts, or only says what it would do.
    pub mode: Mode,
    /// Use of the file system above which archives go.
    pub high_watermark: Option<Share>,
    /// Use of the file system at which that ends.
    pub low_watermark: Option<Share>,
    /// Use of the file system from which on the watermark does not wait for its bucket.
    pub critical_watermark: Option<Share>,
    /// How many of the newest complete archives of each lineage storage rules spare; none: one.
    pub protect_latest: Option<u32>,
    /// Free bytes below which archives go.
    pub min_free_bytes: Option<u64>,
    /// Free inodes below which archives go.
    pub min_free_inodes: Option<u64>,
    /// Use by checkpoints below which the watermark takes nothing.
    pub reserved: Option<Share>,
    /// Bytes that all archives of the node may have together.
    pub max_total_size: Option<Size>,
    /// What any one namespace may have, whatever policies say.
    pub per_namespace: Ceiling,
    /// How fast policies may delete.
    pub deletion_limit: Option<PartialDeletionLimit>,
}

impl StoragePolicy {
    /// One that says nothing.
    pub fn silent(id: PolicyRef, node_selector: LabelSelector) -> Self {
        Self {
            id,
            node_selector,
            mode: Mode::Enforce,
            high_watermark: None,
            low_watermark: None,
            critical_watermark: None,
            protect_latest: None,
            min_free_bytes: None,
            min_free_inodes: None,
            reserved: None,
            max_total_size: None,
            per_namespace: Ceiling::default(),
            deletion_limit: None,
        }
    }
}

/// What any one namespace may have on a node, whatever policies say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ceiling {
    /// Count and size.
    pub limit: Limit,
    /// How long a memory dump may lie around, the newest included.
    pub max_age: Option<Duration>,
    /// What its users may hold through the API.
    pub max_held: HeldLimit,
}

/// What a namespace's users may hold on a node. Unlike in [`Limit`], 0 is no absence: then nothing may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HeldLimit {
    /// Archives; none: any number.
    pub max_count: Option<u64>,
    /// What they may have together; none: any size.
    pub max_total_size: Option<Size>,
}

/// The capacity and refill of the deletion bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeletionLimit {
    /// The least capacity, in archives.
    pub burst: u64,
    /// The capacity as a percentage of the archives in the directory; it is at least 1.
    pub percent: u64,
    /// How long an empty bucket takes to fill.
    pub period: Duration,
}

/// What one policy says of the deletion limit; none: others say it, or nobody does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartialDeletionLimit {
    /// The least capacity, in archives.
    pub burst: Option<u64>,
    /// The capacity as a percentage of the archives in the directory.
    pub percent: Option<u64>,
    /// How long an empty bucket takes to fill.
    pub period: Option<Duration>,
}

impl From<DeletionLimit> for PartialDeletionLimit {
    fn from(limit: DeletionLimit) -> Self {
        Self { burst: Some(limit.burst), percent: Some(limit.percent), period: Some(limit.period) }
    }
}

impl Default for DeletionLimit {
    fn default() -> Self {
        Self { burst: 10, percent: 5, period: Duration::from_mins(1) }
    }
}

impl DeletionLimit {
    /// How many deletions a full bucket allows where `archives` lie in the directory: at least one, as a bucket
    /// without any token would stop all deletions for ever.
    pub fn capacity(self, archives: u64) -> u64 {
        self.burst.max(archives.saturating_mul(self.percent) / 100).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_an_object_holds_several_policies_its_name_says_which() {
        let object = PolicyRef {
            kind: Kind::CheckpointRestoreOperator,
            namespace: Some("team".to_owned()),
            name: "main".to_owned(),
            part: None,
        };
        assert_eq!(object.to_string(), "CheckpointRestoreOperator/team/main");
        let part = PolicyRef { part: Some("containerPolicies[1]".to_owned()), ..object };
        assert_eq!(part.to_string(), "CheckpointRestoreOperator/team/main containerPolicies[1]");
        assert_eq!(part.short(), "cro/team/main containerPolicies[1]");
    }
}

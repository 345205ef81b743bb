//! Small builders for directories, policies and what the cluster knows, and a run of the plan over
//! them whose outcome is asked by the short names that the archives were given.
#![allow(dead_code)] // each test crate uses its own part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_core::archive::State;
use checkpoint_keeper_core::identity::Identity;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::{
    Absence, Absences, Action, Allowance, Archive, Clock, Detail, FileSystem, Namespace, Origin, Plan,
    Reason, Release, Snapshot, Verdict, Workload, plan,
};
use checkpoint_keeper_core::policy::{
    Ceiling, InvalidPolicy, Kind, LabelSelector, Labels, Limit, Mode, Operator, Policy, PolicyRef, PolicySet,
    Precedence, Requirement, Retention, Selector, Size, StoragePolicy,
};
use checkpoint_keeper_core::quantity::Share;
use jiff::Timestamp;

pub(crate) const MINUTE: Duration = Duration::from_mins(1);
pub(crate) const HOUR: Duration = Duration::from_hours(1);
pub(crate) const DAY: Duration = Duration::from_hours(24);
pub(crate) const MI: u64 = 1 << 20;
pub(crate) const GI: u64 = 1 << 30;

/// The wall clock of every test that does not bring its own.
pub(crate) fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

pub(crate) fn ago(length: Duration) -> Timestamp {
    now().checked_sub(length).unwrap()
}

/// The file name behind a short name.
pub(crate) fn file(short: &str) -> FileName {
    FileName::new(format!("checkpoint-{short}.tar").into_bytes()).unwrap()
}

/// A complete, settled archive of 1 MiB of `shop/web-0/server`, a bare pod, taken just now.
pub(crate) fn archive(short: &str) -> Archive {
    Archive::whole(file(short), identity("shop/web-0/server"), now(), MI)
}

pub(crate) fn workload(group: &str, kind: &str, name: &str) -> Workload {
    Workload { group: group.into(), kind: kind.into(), name: name.into() }
}

/// `namespace/pod/container`.
pub(crate) fn identity(path: &str) -> Arc<Identity> {
    let mut parts = path.split('/').map(str::to_owned);
    let mut part = || parts.next().expect("namespace/pod/container");
    Arc::new(Identity { namespace: part(), pod: part(), pod_uid: None, container: part() })
}

/// What a test says about an archive.
pub(crate) trait Archives: Sized {
    fn of(self, path: &str) -> Self;
    fn aged(self, age: Duration) -> Self;
    fn quiet_for(self, length: Duration) -> Self;
    fn sized(self, bytes: u64) -> Self;
    fn allocating(self, bytes: u64) -> Self;
    fn owned_by(self, kind: &str, name: &str) -> Self;
    fn labelled(self, labels: &[(&str, &str)]) -> Self;
    fn gone(self, absences: Absences) -> Self;
    fn idle(self, length: Duration) -> Self;
    fn pinned(self) -> Self;
    fn incomplete(self) -> Self;
    fn unreadable(self) -> Self;
    fn unknown(self) -> Self;
    fn unsettled(self) -> Self;
    fn discarded(self) -> Self;
    fn named(self, name: &str) -> Self;
}

impl Archives for Archive {
    fn of(self, path: &str) -> Self {
        Self { identity: Some(identity(path)), ..self }
    }
    /// Taken and last written that long ago.
    fn aged(self, age: Duration) -> Self {
        Self { taken: ago(age), claimed: ago(age), changed: ago(age), ..self }
    }
    fn quiet_for(self, length: Duration) -> Self {
        Self { changed: ago(length), ..self }
    }
    fn sized(self, bytes: u64) -> Self {
        Self { size: bytes, allocated: bytes, ..self }
    }
    fn allocating(self, bytes: u64) -> Self {
        Self { allocated: bytes, ..self }
    }
    fn owned_by(self, kind: &str, name: &str) -> Self {
        Self { workload: Some(Arc::new(workload("apps", kind, name))), ..self }
    }
    fn labelled(self, labels: &[(&str, &str)]) -> Self {
        Self { pod_labels: Some(Arc::new(self::labels(labels))), ..self }
    }
    fn gone(self, absences: Absences) -> Self {
        Self { absences: Some(Arc::new(absences)), ..self }
    }
    fn idle(self, length: Duration) -> Self {
        Self { idle_since: Some(ago(length)), ..self }
    }
    fn pinned(self) -> Self {
        Self { pinned: true, ..self }
    }
    fn incomplete(self) -> Self {
        Self { state: State::Incomplete, ..self }
    }
    fn unreadable(self) -> Self {
        Self { state: State::Unreadable, identity: None, ..self }
    }
    fn unknown(self) -> Self {
        Self { identity: None, ..self }
    }
    fn unsettled(self) -> Self {
        Self { settled: false, ..self }
    }
    fn discarded(self) -> Self {
        Self { discarded: true, ..self }
    }
    fn named(self, name: &str) -> Self {
        Self { file: FileName::new(name.as_bytes()).unwrap(), ..self }
    }
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn label_is(key: &str, value: &str) -> LabelSelector {
    LabelSelector(vec![Requirement { key: key.into(), operator: Operator::In(vec![value.into()]) }])
}

/// First seen absent that long ago, and last confirmed that long ago.
#[allow(clippy::unnecessary_wraps)] // as the fields want it
pub(crate) fn absent(since: Duration, confirmed: Duration) -> Option<Absence> {
    Some(Absence { since: ago(since), confirmed: ago(confirmed) })
}

/// `count` archives `<prefix>1` (the oldest) … of one container, an hour apart, the newest an hour old.
pub(crate) fn series(prefix: &str, path: &str, count: u32) -> Vec<Archive> {
    (1..=count)
        .map(|number| archive(&format!("{prefix}{number}")).of(path).aged(HOUR * (count + 1 - number)))
        .collect()
}

pub(crate) fn reference(kind: Kind, namespace: Option<&str>, name: &str) -> PolicyRef {
    PolicyRef { kind, namespace: namespace.map(str::to_owned), name: name.into(), part: None }
}

/// A cluster policy without a selector that keeps everything.
pub(crate) fn cluster(name: &str) -> Policy {
    Policy {
        id: reference(Kind::ClusterCheckpointPolicy, None, name),
        created: Some(ago(DAY * 100)),
        namespace: None,
        mode: Mode::Enforce,
        selector: Selector::default(),
        retention: Retention::default(),
        orphans: None,
        incomplete_grace: None,
        damaged_grace: None,
        precedence: Precedence::Default,
    }
}

/// A namespaced policy that keeps everything.
pub(crate) fn local(namespace: &str, name: &str) -> Policy {
    Policy {
        id: reference(Kind::CheckpointPolicy, Some(namespace), name),
        namespace: Some(namespace.into()),
        ..cluster(name)
    }
}

/// The policy, changed.
pub(crate) fn with<T>(mut policy: T, change: impl FnOnce(&mut T)) -> T {
    change(&mut policy);
    policy
}

/// A cluster policy with this retention.
pub(crate) fn keep(change: impl FnOnce(&mut Retention)) -> Policy {
    with(cluster("default"), |policy| change(&mut policy.retention))
}

pub(crate) fn count(most: u64) -> Limit {
    Limit { max_count: Some(most), max_total_size: None }
}

pub(crate) fn total(bytes: u64) -> Limit {
    Limit { max_count: None, max_total_size: Some(Size::Bytes(bytes)) }
}

pub(crate) fn percent(percent: u32) -> Share {
    Share::percent(percent).unwrap()
}

pub(crate) fn storage(name: &str) -> StoragePolicy {
    StoragePolicy {
        id: reference(Kind::CheckpointStoragePolicy, None, name),
        node_selector: LabelSelector::default(),
        mode: Mode::Enforce,
        critical_watermark: None,
        protect_latest: None,
        high_watermark: None,
        low_watermark: None,
        min_free_bytes: None,
        min_free_inodes: None,
        reserved: None,
        max_total_size: None,
        per_namespace: Ceiling::default(),
        deletion_limit: None,
    }
}

/// A storage policy with watermarks in percent and no reserve.
pub(crate) fn watermark(high: u32, low: u32) -> StoragePolicy {
    with(storage("disk"), |policy| {
        policy.high_watermark = Some(percent(high));
        policy.low_watermark = Some(percent(low));
        policy.reserved = Some(percent(0));
    })
}

/// A file system of that many bytes, with plenty of inodes.
pub(crate) fn disk(total: u64, available: u64) -> FileSystem {
    FileSystem {
        total_bytes: total,
        available_bytes: available,
        total_inodes: 1_000_000,
        available_inodes: 900_000,
        release: Release::Shown,
    }
}

/// A snapshot, policies and a time, put together piece by piece.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) snapshot: Snapshot,
    pub(crate) policies: PolicySet,
    pub(crate) now: Timestamp,
}

pub(crate) fn case(archives: impl IntoIterator<Item = Archive>) -> Case {
    let snapshot = Snapshot { archives: archives.into_iter().collect(), ..Snapshot::default() };
    Case { snapshot, policies: PolicySet::default(), now: now() }
}

impl Case {
    pub(crate) fn policy(mut self, policy: Policy) -> Self {
        self.policies.retention.push(policy);
        self
    }
    pub(crate) fn storage(mut self, policy: StoragePolicy) -> Self {
        self.policies.storage.push(policy);
        self
    }
    /// An object that does not parse.
    pub(crate) fn broken(mut self, namespace: Option<&str>) -> Self {
        let kind = if namespace.is_some() { Kind::CheckpointPolicy } else { Kind::ClusterCheckpointPolicy };
        let id = reference(kind, namespace, "broken");
        self.policies.invalid.push(InvalidPolicy {
            id,
            namespace: namespace.map(str::to_owned),
            precedence: Precedence::Default,
        });
        self
    }
    pub(crate) fn disk(mut self, filesystem: FileSystem) -> Self {
        self.snapshot.filesystem = Some(filesystem);
        self
    }
    pub(crate) fn namespace(
        mut self,
        name: &str,
        labels: &[(&str, &str)],
        created: Option<Timestamp>,
    ) -> Self {
        let labels = Arc::new(self::labels(labels));
        for archive in &mut self.snapshot.archives {
            let is_in_it = archive.identity.as_ref().is_some_and(|identity| identity.namespace == name);
            if is_in_it && Origin::of(archive.taken, archive.seen_in, created) == Origin::Present {
                archive.namespace_labels = Some(Arc::clone(&labels));
            }
        }
        self.snapshot.namespaces.insert(name.into(), Namespace { created, is_invalidated: false });
        self
    }
    pub(crate) fn suspect_clock(mut self) -> Self {
        self.snapshot.clock = Clock::Suspect;
        self
    }
    pub(crate) fn allowance(mut self, deletions: u64) -> Self {
        self.snapshot.allowance =
            Some(Allowance { shared: deletions, watermark: u64::MAX, ..Allowance::default() });
        self
    }
    pub(crate) fn run(&self) -> Outcome {
        let plan = plan(&self.snapshot, &self.policies, self.now);
        assert_eq!(plan.verdicts.len(), self.snapshot.archives.len(), "one verdict an archive");
        let files = self.snapshot.archives.iter().map(|archive| short(&archive.file));
        let verdicts = files.zip(plan.verdicts.iter().cloned()).collect();
        Outcome { plan, verdicts }
    }
    /// The short names of what is deleted, in their order.
    pub(crate) fn deleted(&self) -> Vec<String> {
        self.run().deleted()
    }
    pub(crate) fn reason(&self, short: &str) -> Reason {
        self.run().verdict(short).reason
    }
}

fn short(file: &FileName) -> String {
    let name = file.to_string();
    let inner = name.strip_prefix("checkpoint-").and_then(|rest| rest.strip_suffix(".tar"));
    inner.map_or_else(|| name.clone(), str::to_owned)
}

/// A plan, and its verdicts by short name.
pub(crate) struct Outcome {
    pub(crate) plan: Plan,
    pub(crate) verdicts: BTreeMap<String, Verdict>,
}

impl Outcome {
    pub(crate) fn verdict(&self, short: &str) -> &Verdict {
        self.verdicts.get(short).unwrap_or_else(|| panic!("no archive {short}"))
    }
    pub(crate) fn reason(&self, short: &str) -> Reason {
        self.verdict(short).reason
    }
    pub(crate) fn detail(&self, short: &str) -> Detail {
        self.verdict(short).detail
    }
    /// The name of the policy that gave the reason; empty where none did.
    pub(crate) fn policy(&self, short: &str) -> String {
        self.verdict(short).policy.as_ref().map_or_else(String::new, |policy| policy.name.clone())
    }
    pub(crate) fn deleted(&self) -> Vec<String> {
        let deleted = self.verdicts.iter().filter(|(_, verdict)| verdict.action() == Action::Delete);
        deleted.map(|(short, _)| short.clone()).collect()
    }
    pub(crate) fn kept(&self) -> Vec<String> {
        let kept = self.verdicts.iter().filter(|(_, verdict)| verdict.action() == Action::Keep);
        kept.map(|(short, _)| short.clone()).collect()
    }
}

/// How often a property is tried: `PROPTEST_CASES`, else `cases`. No file keeps what failed: a
/// failure prints its input, and belongs into a test of its own.
pub(crate) fn tries(cases: u32) -> proptest::test_runner::Config {
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    proptest::test_runner::Config {
        cases: wanted.unwrap_or(cases),
        failure_persistence: None,
        ..Default::default()
    }
}

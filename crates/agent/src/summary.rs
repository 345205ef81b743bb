//! What a plan amounts to: the figures of status and metrics. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use checkpoint_keeper_api::node_store::MOST_PINNED;
use checkpoint_keeper_api::storage_limits::StorageLimits;
use checkpoint_keeper_core::archive::State;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::{
    Action, Archive, Detail, EffectiveStorage, Plan, Reason, Snapshot, Unreachable, WatermarkReport,
};
use checkpoint_keeper_core::policy::{Kind, Mode, PolicyRef, PolicySet, StoragePolicy};
use jiff::{SignedDuration, Timestamp};

use super::inventory::Unlisted;

/// The ages, in days, of which it is counted how much space older pinned archives take.
pub(super) const PIN_AGES: [u32; 3] = [7, 30, 90];

/// The figures of one plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Summary {
    /// How many archives there are.
    pub(super) archives: u64,
    /// Their bytes.
    pub(super) bytes: u64,
    /// How many are pinned, and their bytes.
    pub(super) pinned: u64,
    pub(super) pinned_bytes: u64,
    /// How many were cut off, and their bytes.
    pub(super) incomplete: u64,
    pub(super) incomplete_bytes: u64,
    /// How many cannot be read.
    pub(super) unreadable: u64,
    /// How many are of a container that is not known, and their bytes.
    pub(super) unknown: u64,
    pub(super) unknown_bytes: u64,
    /// The bytes of the pinned ones that are older than each of [`PIN_AGES`].
    pub(super) old_pinned_bytes: [u64; PIN_AGES.len()],
    /// When the oldest one was taken, and the oldest one that is pinned.
    pub(super) oldest: Option<Timestamp>,
    pub(super) oldest_pinned: Option<Timestamp>,
    /// How many deletions policies and the watermark might begin when the plan was made.
    pub(super) tokens: Option<Tokens>,
    /// How many there are of each verdict's reason.
    pub(super) verdicts: BTreeMap<Reason, u64>,
    /// What each namespace has: archives and bytes.
    pub(super) namespaces: BTreeMap<String, (u64, u64)>,
    /// What each policy governs: of those of the cluster, and of namespaces that have archives here.
    pub(super) policies: BTreeMap<PolicyRef, Share>,
    /// How many dry runs are left out, as what they would change was not computed yet.
    pub(super) dry_runs_waiting: u64,
    /// The file system's size and what is available, in bytes.
    pub(super) filesystem: Option<(u64, u64)>,
    /// The storage limits in effect here.
    pub(super) storage_limits: Option<StorageLimits>,
    /// What the watermark wanted and found.
    pub(super) watermark: Option<WatermarkReport>,
    /// The limits that pins make unreachable.
    pub(super) unreachable: Vec<HeldLimit>,
    /// The archives that have no object of their own in the API.
    pub(super) unlisted: Unlisted,
    /// The archives that it counts and that are to be deleted.
    pub(super) deleting: BTreeMap<FileName, Counted>,
    /// The archives that were being deleted already when the plan was made, which does not see them.
    pub(super) being_deleted: BTreeSet<FileName>,
}

/// How many deletions might begin when a plan was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) policies: u64,
    pub(super) watermark: u64,
}

/// A policy's limit that pins make unreachable.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct HeldLimit {
    pub(super) policy: PolicyRef,
    pub(super) limit: Reason,
    /// How many containers, pods or whatever it counts by exceed it for that. The rest is about the first.
    pub(super) groups: usize,
    pub(super) detail: Detail,
    /// How many archives that it counts are pinned.
    pub(super) pinned: usize,
    /// Some of these.
    pub(super) files: Vec<FileName>,
}

impl HeldLimit {
    /// The same without the names of files, where those of several namespaces may be among them and who reads it may not
    /// know of all of these.
    pub(super) fn without_others_files(&self) -> Self {
        let is_of_one_namespace = match self.policy.kind {
            Kind::CheckpointPolicy | Kind::CheckpointSchedule => true,
            // The older operator's kind has a namespace, and is about all of them.
            Kind::ClusterCheckpointPolicy
            | Kind::CheckpointStoragePolicy
            | Kind::CheckpointRestoreOperator => false,
        };
        let files = if is_of_one_namespace { self.files.clone() } else { Vec::new() };
        Self { files, ..self.clone() }
    }

    /// Those of a plan, each policy and limit once, however many groups exceed it.
    fn all(plan: &Plan, snapshot: &Snapshot) -> Vec<Self> {
        let mut held: BTreeMap<(&PolicyRef, Reason), Self> = BTreeMap::new();
        for limit in &plan.unreachable {
            held.entry((&limit.policy, limit.limit))
                .and_modify(|first| first.groups += 1)
                .or_insert_with(|| Self::new(limit, snapshot));
        }
        held.into_values().collect()
    }

    fn new(limit: &Unreachable, snapshot: &Snapshot) -> Self {
        let file = |place: &usize| snapshot.archives.get(*place).map(|archive| archive.file.clone());
        Self {
            policy: (*limit.policy).clone(),
            limit: limit.limit,
            groups: 1,
            detail: limit.detail,
            pinned: limit.pinned.len(),
            files: limit.pinned.iter().filter_map(file).take(MOST_PINNED).collect(),
        }
    }
}

/// `CheckpointPolicy/team/a: MaxCountPerPod is not reached (7 archives, limit 5), as 3 are pinned: one.tar, …`
impl fmt::Display for HeldLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = if self.pinned == 1 { "is" } else { "are" };
        write!(
            formatter,
            "{}: {} is not reached ({}), as {} {verb} pinned",
            self.policy, self.limit, self.detail, self.pinned
        )?;
        if !self.files.is_empty() {
            let files: Vec<String> = self.files.iter().map(ToString::to_string).collect();
            let more = if self.files.len() < self.pinned { ", …" } else { "" };
            write!(formatter, ": {}{more}", files.join(", "))?;
        }
        match self.groups {
            0 | 1 => Ok(()),
            2 => formatter.write_str("; so it is in another place"),
            groups => write!(formatter, "; so it is in {} other places", groups - 1),
        }
    }
}

/// One archive, as it is counted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Counted {
    bytes: u64,
    pinned: bool,
    /// None while it was not read yet.
    state: Option<State>,
    namespace: Option<String>,
    reason: Reason,
    policy: Option<(PolicyRef, Mode)>,
}

impl Counted {
    fn new(archive: &Archive, reason: Reason, policy: Option<(PolicyRef, Mode)>) -> Self {
        Self {
            bytes: archive.size,
            pinned: archive.pinned,
            state: archive.settled.then_some(archive.state),
            namespace: archive.identity.as_ref().map(|identity| identity.namespace.clone()),
            reason,
            policy,
        }
    }
}

/// What one policy governs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) mode: Mode,
    /// The generation of the policy that was planned by.
    pub(super) generation: Option<i64>,
    pub(super) archives: u64,
    pub(super) bytes: u64,
    /// To go, and waiting; for a dry run, what more would go.
    pub(super) pending: u64,
    /// For a dry run, what would stay that goes.
    pub(super) spared: u64,
}

impl Summary {
    /// The figures of a plan that was made at about `now`. `storage` is what the storage policies mean here.
    pub(super) fn of(
        snapshot: &Snapshot,
        policies: &PolicySet,
        storage: &EffectiveStorage,
        plan: &Plan,
        now: Timestamp,
    ) -> Self {
        let mut summary = Self {
            filesystem: snapshot.filesystem.map(|disk| (disk.total_bytes, disk.available_bytes)),
            watermark: plan.watermark,
            tokens: snapshot
                .allowance
                .as_ref()
                .map(|allowance| Tokens { policies: allowance.shared, watermark: allowance.watermark }),
            unreachable: HeldLimit::all(plan, snapshot),
            being_deleted: snapshot.being_deleted.clone(),
            ..Self::default()
        };
        summary.storage_limits = Some(StorageLimits::new(storage, snapshot.archives.len() as u64));
        let modes: BTreeMap<&PolicyRef, Mode> =
            policies.retention.iter().map(|policy| (&policy.id, policy.mode)).collect();
        for (place, (archive, verdict)) in snapshot.archives.iter().zip(&plan.verdicts).enumerate() {
            let policy = plan.policy_of(place).and_then(|id| Some((whole(id), *modes.get(id)?)));
            let counted = Counted::new(archive, verdict.reason, policy);
            summary.count(&counted);
            summary.note_age(archive, now);
            if verdict.action() == Action::Delete {
                summary.deleting.insert(archive.file.clone(), counted);
            }
        }
        summary.add_policies(policies, snapshot);
        summary
    }

    fn note_age(&mut self, archive: &Archive, now: Timestamp) {
        let earlier = |oldest: Option<Timestamp>| {
            Some(oldest.map_or(archive.taken, |oldest| oldest.min(archive.taken)))
        };
        self.oldest = earlier(self.oldest);
        if archive.pinned {
            self.oldest_pinned = earlier(self.oldest_pinned);
            self.note_pin(archive.size, now.duration_since(archive.taken));
        }
    }

    fn note_pin(&mut self, size: u64, age: SignedDuration) {
        for (days, bytes) in PIN_AGES.iter().zip(&mut self.old_pinned_bytes) {
            if age > SignedDuration::from_hours(24 * i64::from(*days)) {
                *bytes = bytes.saturating_add(size);
            }
        }
    }

    /// Adds the policies that govern nothing here and could: those of the cluster, those of namespaces that have
    /// archives here, and the storage policies for this node; and by which generation of each was planned.
    fn add_policies(&mut self, policies: &PolicySet, snapshot: &Snapshot) {
        let retention = policies.retention.iter().map(|policy| (&policy.id, &policy.namespace, policy.mode));
        let invalid = policies.invalid.iter().map(|policy| (&policy.id, &policy.namespace, Mode::Enforce));
        // What a dry run would change is added once it was computed.
        let retention = retention.chain(invalid).filter(|(_, namespace, mode)| {
            let is_here = |name: &String| self.namespaces.contains_key(name);
            *mode == Mode::Enforce && namespace.as_ref().is_none_or(is_here)
        });
        let here: Vec<PolicyRef> = retention.map(|(id, ..)| whole(id)).collect();
        let is_for_this_node = |policy: &&StoragePolicy| {
            policy.node_selector.0.is_empty()
                || snapshot.node_labels.as_ref().is_some_and(|labels| policy.node_selector.matches(labels))
        };
        let storage = policies.storage.iter().filter(is_for_this_node);
        for (id, mode) in here
            .into_iter()
            .map(|id| (id, Mode::Enforce))
            .chain(storage.map(|policy| (whole(&policy.id), policy.mode)))
        {
            self.policies.entry(id).or_insert(Share { mode, ..Share::default() });
        }
        for (id, share) in &mut self.policies {
            share.generation = policies.generations.get(id).copied();
        }
    }

    /// Counts one more archive.
    fn count(&mut self, archive: &Counted) {
        self.change(archive, |figure, by| *figure = figure.saturating_add(by));
    }

    /// Counts one archive less.
    fn discount(&mut self, archive: &Counted) {
        self.change(archive, |figure, by| *figure = figure.saturating_sub(by));
        self.verdicts.retain(|_, count| *count > 0);
        self.namespaces.retain(|_, (archives, _)| *archives > 0);
    }

    fn change(&mut self, archive: &Counted, change: impl Fn(&mut u64, u64)) {
        change(&mut self.archives, 1);
        change(&mut self.bytes, archive.bytes);
        if archive.pinned {
            change(&mut self.pinned, 1);
            change(&mut self.pinned_bytes, archive.bytes);
        }
        match archive.state {
            Some(State::Complete | State::Unread) | None => {}
            Some(State::NoImages | State::Incomplete | State::Damaged) => {
                change(&mut self.incomplete, 1);
                change(&mut self.incomplete_bytes, archive.bytes);
            }
            Some(State::Unreadable | State::Foreign) => change(&mut self.unreadable, 1),
        }
        change(self.verdicts.entry(archive.reason).or_default(), 1);
        if let Some(namespace) = &archive.namespace {
            let (archives, bytes) = self.namespaces.entry(namespace.clone()).or_default();
            change(archives, 1);
            change(bytes, archive.bytes);
        } else {
            change(&mut self.unknown, 1);
            change(&mut self.unknown_bytes, archive.bytes);
        }
        if let Some((policy, mode)) = &archive.policy {
            let share = self.policies.entry(policy.clone()).or_default();
            share.mode = *mode;
            change(&mut share.archives, 1);
            change(&mut share.bytes, archive.bytes);
            change(&mut share.pending, u64::from(archive.reason == Reason::DeletionPending));
        }
    }

    /// Counts what an earlier plan had deleted and is not gone yet: a later one does not see it any more. A deletion
    /// that had not begun leaves nothing to count: this plan has judged its archive anew, or it has vanished.
    pub(super) fn count_deleting(&mut self, earlier: BTreeMap<FileName, Counted>) {
        for (file, archive) in earlier {
            if self.being_deleted.contains(&file) && !self.deleting.contains_key(&file) {
                self.count(&archive);
                self.deleting.insert(file, archive);
            }
        }
    }

    /// Notes that a deletion came to its end: that the archive is gone, or stays until the next plan.
    pub(super) fn finish(&mut self, file: &FileName, is_gone: bool) {
        if let Some(archive) = self.deleting.remove(file).filter(|_| is_gone) {
            self.discount(&archive);
            self.unlisted.forget(file);
        }
    }

    /// How many archives are to go and wait.
    pub(super) fn pending(&self) -> u64 {
        self.verdicts.get(&Reason::DeletionPending).copied().unwrap_or_default()
    }
}

/// The object, where a policy is one of its parts.
pub(super) fn whole(id: &PolicyRef) -> PolicyRef {
    PolicyRef { part: None, ..id.clone() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use checkpoint_keeper_core::plan::plan;

    use super::*;

    #[test]
    fn a_limit_that_pins_make_unreachable_is_told_with_the_pins() {
        let policy = archive(Reason::MaxCountPerPod).policy.unwrap().0;
        let (limit, detail) = (Reason::MaxCountPerPod, Detail::Count { have: 7, limit: 5 });
        let told = |pinned: usize, groups: usize| {
            let files = (0..pinned.min(MOST_PINNED)).map(|number| file(&format!("{number}.tar"))).collect();
            HeldLimit { policy: policy.clone(), limit, groups, detail, pinned, files }.to_string()
        };
        let begin = "CheckpointPolicy/team/a: MaxCountPerPod is not reached (7 archives, limit 5), as";
        assert_eq!(told(1, 1), format!("{begin} 1 is pinned: 0.tar"));
        assert_eq!(told(9, 1), format!("{begin} 9 are pinned: 0.tar, 1.tar, 2.tar, …"));
        assert_eq!(told(1, 2), format!("{begin} 1 is pinned: 0.tar; so it is in another place"));
        assert_eq!(told(1, 5), format!("{begin} 1 is pinned: 0.tar; so it is in 4 other places"));
    }

    /// A policy may count by thousands of containers, each with its pins.
    #[test]
    fn each_policy_and_limit_is_told_of_once() {
        let policy = Arc::new(archive(Reason::MaxCountPerPod).policy.unwrap().0);
        let of = |limit, have| Unreachable {
            policy: Arc::clone(&policy),
            limit,
            detail: Detail::Count { have, limit: 1 },
            pinned: Vec::new(),
        };
        let (pod, container) = (Reason::MaxCountPerPod, Reason::MaxCountPerContainer);
        let unreachable = (2..1_000).map(|have| of(container, have)).chain([of(pod, 9)]).collect();
        let plan = Plan { unreachable, ..plan(&Snapshot::default(), &PolicySet::default(), Timestamp::MIN) };
        let told: Vec<_> = HeldLimit::all(&plan, &Snapshot::default())
            .into_iter()
            .map(|limit| (limit.limit, limit.groups, limit.detail))
            .collect();
        let count = |have| Detail::Count { have, limit: 1 };
        assert_eq!(told, [(container, 998, count(2)), (pod, 1, count(9))]);
    }

    fn file(name: &str) -> FileName {
        FileName::new(name.as_bytes()).unwrap()
    }

    fn archive(reason: Reason) -> Counted {
        let namespace = Some("team".to_owned());
        let policy = PolicyRef {
            kind: Kind::CheckpointPolicy,
            namespace: namespace.clone(),
            name: "a".to_owned(),
            part: None,
        };
        Counted {
            bytes: 10,
            pinned: false,
            state: Some(State::Complete),
            namespace,
            reason,
            policy: Some((policy, Mode::Enforce)),
        }
    }

    /// A plan's figures: so many stay, and these are to be deleted.
    fn planned(staying: usize, deleting: &[&str]) -> Summary {
        let mut summary = Summary::default();
        for _ in 0..staying {
            summary.count(&archive(Reason::WithinLimits));
        }
        for name in deleting {
            summary.count(&archive(Reason::MaxAge));
            summary.deleting.insert(file(name), archive(Reason::MaxAge));
        }
        summary
    }

    fn figures(summary: &Summary) -> (u64, u64, u64, u64, u64) {
        let (namespace, _) = summary.namespaces.get("team").copied().unwrap_or_default();
        let policy = summary.policies.values().next().copied().unwrap_or_default();
        let to_go = summary.verdicts.get(&Reason::MaxAge).copied().unwrap_or_default();
        (summary.archives, summary.bytes, namespace, policy.archives, to_go)
    }

    #[test]
    fn the_figures_follow_what_was_carried_out() {
        let mut summary = planned(1, &["a", "b", "c"]);
        assert_eq!(figures(&summary), (4, 40, 4, 4, 3));
        summary.finish(&file("a"), true);
        assert_eq!(figures(&summary), (3, 30, 3, 3, 2));
        // A pin held it, or the system refused: it is still there.
        summary.finish(&file("b"), false);
        assert_eq!(figures(&summary), (3, 30, 3, 3, 2));
        // The next plan sees that one again, and not the one on which the system is still at work.
        let mut next = Summary { being_deleted: [file("c")].into(), ..planned(2, &[]) };
        next.count_deleting(summary.deleting);
        assert_eq!(figures(&next), (3, 30, 3, 3, 1));
        next.finish(&file("c"), true);
        next.finish(&file("c"), true);
        assert_eq!(figures(&next), (2, 20, 2, 2, 0));
    }

    /// Few deletions are begun at a time. What a plan wanted and did not begin is judged anew by the next one.
    #[test]
    fn a_deletion_that_waited_and_is_not_wanted_any_more_counts_once() {
        let mut summary = planned(0, &["a", "b", "c", "d", "e", "f"]);
        summary.finish(&file("a"), true);
        // The policy was mended meanwhile, and another process removed the last one.
        let snapshot = Snapshot { being_deleted: [file("b")].into(), ..Snapshot::default() };
        let (none, now) = (PolicySet::default(), Timestamp::UNIX_EPOCH);
        let storage = EffectiveStorage::new(&none.storage, None, None);
        let mut next = Summary::of(&snapshot, &none, &storage, &plan(&snapshot, &none, now), now);
        for _ in ["c", "d", "e"] {
            next.count(&archive(Reason::WithinLimits));
        }
        next.count_deleting(summary.deleting);
        assert_eq!(figures(&next), (4, 40, 4, 4, 1));
        next.finish(&file("b"), true);
        assert_eq!(figures(&next), (3, 30, 3, 3, 0));
        assert!(next.deleting.is_empty(), "{:?}", next.deleting);
    }

    #[test]
    fn what_is_pinned_counts_by_each_age_that_it_has_passed() {
        let mut summary = Summary::default();
        let hours = SignedDuration::from_hours;
        for (size, age) in
            [(1, hours(7 * 24)), (10, hours(7 * 24 + 1)), (100, hours(31 * 24)), (1_000, hours(-1))]
        {
            summary.note_pin(size, age);
        }
        assert_eq!(summary.old_pinned_bytes, [110, 100, 0]);
    }

    #[test]
    fn who_has_nothing_left_is_told_no_more() {
        let mut summary = planned(0, &["a"]);
        summary.finish(&file("a"), true);
        let left = std::mem::take(&mut summary.policies);
        assert!(
            left.values().all(|share| (share.archives, share.bytes, share.pending) == (0, 0, 0)),
            "{left:?}"
        );
        assert_eq!(summary, Summary::default());
    }

    #[test]
    fn what_was_not_read_yet_is_not_unreadable() {
        let mut summary = Summary::default();
        summary.count(&Counted { state: None, ..archive(Reason::Settling) });
        summary.count(&Counted { state: Some(State::Unreadable), ..archive(Reason::WithinLimits) });
        assert_eq!(summary.unreadable, 1);
    }
}

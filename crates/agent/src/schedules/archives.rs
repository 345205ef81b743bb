//! What the engine sees of archives that schedules wait for: the engine reads each new one anyway.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use checkpoint_keeper_core::archive::State;
use checkpoint_keeper_core::engine::View;
use checkpoint_keeper_core::identity::Identity;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::plan::{Archive, Clock, EffectiveStorage, Namespace, Reason, Snapshot, plan};
use checkpoint_keeper_core::policy::{Labels, PolicySet};
use checkpoint_keeper_core::schedule::ContainerId;
use jiff::Timestamp;
use tokio::sync::{oneshot, watch};

/// What was seen of archives; shared by the engine's side, which tells, and that of the schedules, which waits.
#[derive(Debug, Clone)]
pub(crate) struct SeenArchives {
    seen: Arc<Mutex<Seen>>,
    /// Whether there is any schedule: else sizes and room cost nothing.
    is_followed: watch::Sender<bool>,
    /// Tells of each view.
    views: watch::Sender<()>,
    clock: watch::Sender<Clock>,
}

#[derive(Debug, Default)]
struct Seen {
    awaited: Vec<Awaited>,
    room: Option<Room>,
    rules: Rules,
    /// The latest whole archive of each container.
    latest: Vec<Latest>,
}

/// By what an archive would be judged.
#[derive(Debug, Default)]
struct Rules {
    policies: Arc<PolicySet>,
    namespaces: BTreeMap<String, Namespace>,
    clock: Clock,
}

/// The latest whole archive of a container.
#[derive(Debug)]
struct Latest {
    identity: Arc<Identity>,
    taken: Timestamp,
    size: u64,
}

#[derive(Debug)]
struct Awaited {
    container: ContainerId,
    /// The file's name, where the kubelet told one.
    file: Option<String>,
    /// When the dump began: older archives are others.
    since: Timestamp,
    tell: oneshot::Sender<Found>,
}

/// An archive that was waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) file: String,
    /// What is wrong with it; none: it is whole.
    pub(super) fault: Option<String>,
}

/// What the file system has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// What ordinary processes may still use, in bytes.
    pub(super) available: u64,
    /// What a storage policy wants left free, in bytes.
    pub(super) min_free: u64,
    /// How many archives are to be deleted now.
    pub(super) deletions: usize,
}

impl Default for SeenArchives {
    fn default() -> Self {
        Self {
            seen: Arc::default(),
            is_followed: watch::Sender::new(false),
            views: watch::Sender::new(()),
            clock: watch::Sender::new(Clock::Suspect),
        }
    }
}

impl SeenArchives {
    /// Learns from what the engine published.
    pub(crate) fn note(&self, view: &View) {
        let snapshot = &view.snapshot;
        self.clock.send_if_modified(|clock| std::mem::replace(clock, snapshot.clock) != snapshot.clock);
        let mut seen = self.seen();
        if *self.is_followed.borrow() {
            seen.note_room(view);
        }
        // Also of a schedule that was deleted while its last dump was under way.
        seen.tell(view);
        drop(seen);
        self.views.send_replace(());
    }

    /// From here on sizes and room are followed.
    pub(super) fn follow(&self) {
        self.is_followed.send_replace(true);
    }

    /// From here on sizes and room are not followed.
    pub(super) fn unfollow(&self) {
        self.is_followed.send_replace(false);
        let mut seen = self.seen();
        (seen.room, seen.rules, seen.latest) = (None, Rules::default(), Vec::new());
    }

    /// Tells of each view from here on.
    pub(super) fn views(&self) -> watch::Receiver<()> {
        self.views.subscribe()
    }

    /// Why a policy would take an archive of that size of a pod with these labels as soon as it is there, as it is
    /// larger than any may be. None where no policy would, or where that is not certain.
    pub(super) fn oversize_objection(
        &self,
        container: &ContainerId,
        pod_labels: Option<Labels>,
        size: u64,
        now: Timestamp,
    ) -> Option<String> {
        let seen = self.seen();
        let archive = expected(container, pod_labels, size, now)?;
        let snapshot = Snapshot {
            archives: vec![archive],
            namespaces: seen.rules.namespaces.clone(),
            clock: seen.rules.clock,
            ..Snapshot::default()
        };
        let verdict = plan(&snapshot, &seen.rules.policies, now).verdicts.pop()?;
        let policy = verdict.policy.filter(|_| verdict.reason == Reason::MaxArchiveSize)?;
        Some(format!("an archive as large as expected would not stay ({policy}: {})", verdict.detail))
    }

    /// Tells whether the clock is trusted, from here on.
    pub(super) fn clock(&self) -> watch::Receiver<Clock> {
        self.clock.subscribe()
    }

    /// Waits for an archive of that container that is not older; by its file's name, where that is known.
    pub(super) fn wait_for(
        &self,
        container: &ContainerId,
        file: Option<String>,
        since: Timestamp,
    ) -> oneshot::Receiver<Found> {
        let (tell, told) = oneshot::channel();
        self.seen().awaited.push(Awaited { container: container.clone(), file, since, tell });
        told
    }

    /// What there is room for; none while that is not known.
    pub(super) fn room(&self) -> Option<Room> {
        self.seen().room
    }

    /// The size of the container's latest whole archive.
    pub(super) fn last_size(&self, container: &ContainerId) -> Option<u64> {
        let seen = self.seen();
        let of_container = seen.latest.iter().filter(|latest| is_of(&latest.identity, container));
        of_container.max_by_key(|latest| latest.taken).map(|latest| latest.size)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn note_room(&mut self, view: &View) {
        let snapshot = &view.snapshot;
        // Without the file system's size: a minFree that is more than the disk has leaves no room for any checkpoint.
        let storage = EffectiveStorage::new(&view.policies.storage, snapshot.node_labels.as_ref(), None);
        self.room = snapshot.filesystem.map(|filesystem| Room {
            available: filesystem.available_bytes,
            min_free: storage.min_free_bytes.as_ref().map_or(0, |(bytes, _)| *bytes),
            deletions: view.plan.deletions().count(),
        });
        self.rules.policies = Arc::clone(&view.policies);
        self.rules.namespaces.clone_from(&snapshot.namespaces);
        self.rules.clock = snapshot.clock;
        // Archives of one container share their identity: no name is compared or copied, as there may be many.
        let mut latest: HashMap<*const Identity, Latest> = HashMap::new();
        for archive in snapshot.archives.iter().filter(|archive| archive.state.is_whole()) {
            let Some(identity) = &archive.identity else { continue };
            let (taken, size) = (archive.claimed, archive.size);
            let new = || Latest { identity: Arc::clone(identity), taken, size };
            let known = latest.entry(Arc::as_ptr(identity)).or_insert_with(new);
            if taken > known.taken {
                (known.taken, known.size) = (taken, size);
            }
        }
        self.latest = latest.into_values().collect();
    }

    /// Tells those that wait of what they wait for.
    fn tell(&mut self, view: &View) {
        if self.awaited.is_empty() {
            return;
        }
        let is_read = |archive: &&Archive| archive.settled && archive.state != State::Unread;
        for archive in view.snapshot.archives.iter().filter(is_read) {
            while let Some(at) = self.awaited.iter().position(|awaited| awaited.is(archive)) {
                let Awaited { tell, .. } = self.awaited.swap_remove(at);
                // Whoever waited may have given up.
                let _ = tell.send(Found::of(archive));
            }
        }
        self.awaited.retain(|awaited| !awaited.tell.is_closed());
    }
}

/// A whole archive of that size of a container, as it would come now.
fn expected(
    container: &ContainerId,
    pod_labels: Option<Labels>,
    size: u64,
    now: Timestamp,
) -> Option<Archive> {
    let ContainerId { namespace, pod, pod_uid, container } = container.clone();
    let file = FileName::new(format!("checkpoint-{pod}_{namespace}-{container}-{now:.0}.tar").into_bytes())?;
    let identity = Identity { namespace, pod, pod_uid: Some(pod_uid), container };
    // It is of a pod that runs: its namespace is the one of now.
    let archive = Archive::whole(file, Arc::new(identity), now, size);
    Some(Archive { pod_labels: pod_labels.map(Arc::new), ..archive })
}

/// Whether it is of that container, whichever pod of the name it was.
fn is_of(identity: &Identity, container: &ContainerId) -> bool {
    identity.namespace == container.namespace
        && identity.pod == container.pod
        && identity.container == container.container
}

impl Awaited {
    /// Whether this is the archive that is waited for.
    fn is(&self, archive: &Archive) -> bool {
        let is_it = match &self.file {
            Some(file) => archive.file.to_json_text() == file.as_str(),
            None => archive.identity.as_deref().is_some_and(|identity| is_of(identity, &self.container)),
        };
        is_it && archive.changed >= self.since
    }
}

impl Found {
    fn of(archive: &Archive) -> Self {
        let fault = match archive.state {
            State::Complete => None,
            State::NoImages => Some("the archive holds no images of the container"),
            State::Incomplete => Some("the archive is incomplete"),
            State::Damaged => Some("the archive is damaged"),
            State::Unreadable => Some("the archive cannot be read"),
            State::Foreign => Some("the file is no archive of a container"),
            State::Unread => Some("the archive was not read"),
        };
        let fault = fault.map(str::to_owned);
        Self { file: archive.file.to_json_text().into_owned(), fault }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use checkpoint_keeper_core::plan::FileSystem;
    use checkpoint_keeper_core::policy::{
        Kind, LabelSelector, Limit, Mode, Operator, Policy, PolicyRef, Precedence, Requirement, Retention,
        Selector, StoragePolicy,
    };

    use super::super::objections::shortage_in_the_end;

    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_780_000_000, 0);

    fn container() -> ContainerId {
        ContainerId {
            namespace: "shop".to_owned(),
            pod: "db-0".to_owned(),
            pod_uid: "u".to_owned(),
            container: "app".to_owned(),
        }
    }

    fn archive(file: &str, pod: &str, state: State, taken: i64, size: u64) -> Archive {
        let taken = Timestamp::from_second(NOW.as_second() + taken).unwrap();
        let identity = Identity {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            pod_uid: None,
            container: "app".to_owned(),
        };
        let file = FileName::new(file.as_bytes()).unwrap();
        Archive { state, ..Archive::whole(file, Arc::new(identity), taken, size) }
    }

    fn view(archives: Vec<Archive>) -> View {
        view_by(PolicySet::default(), archives, 40)
    }

    fn view_by(policies: PolicySet, archives: Vec<Archive>, available_bytes: u64) -> View {
        let filesystem = FileSystem {
            total_bytes: 100,
            available_bytes,
            total_inodes: 0,
            available_inodes: 0,
            release: checkpoint_keeper_core::plan::Release::Shown,
        };
        let created = NOW.checked_sub(Duration::from_hours(1)).ok();
        let namespaces = BTreeMap::from([("shop".to_owned(), Namespace { created, is_invalidated: false })]);
        let snapshot = Snapshot { archives, namespaces, filesystem: Some(filesystem), ..Snapshot::default() };
        let policies = Arc::new(policies);
        let plan = plan(&snapshot, &policies, NOW);
        let confidence = checkpoint_keeper_core::policy::Confidence::Current;
        View { snapshot, policies, plan, confidence, made_at: jiff::Timestamp::UNIX_EPOCH }
    }

    fn policies(selector: Selector, retention: Retention) -> PolicySet {
        let id = PolicyRef {
            kind: Kind::CheckpointPolicy,
            namespace: Some("shop".to_owned()),
            name: "default".to_owned(),
            part: None,
        };
        let policy = Policy {
            id,
            created: None,
            namespace: Some("shop".to_owned()),
            mode: Mode::Enforce,
            selector,
            retention,
            orphans: None,
            incomplete_grace: None,
            damaged_grace: None,
            precedence: Precedence::Default,
        };
        PolicySet { retention: vec![policy], ..PolicySet::default() }
    }

    #[test]
    fn an_archive_that_its_policy_would_take_for_its_size_is_told_before_it_is_made() {
        let seen = SeenArchives::default();
        seen.follow();
        let of_web = Selector {
            pod_labels: LabelSelector(vec![Requirement {
                key: "app".to_owned(),
                operator: Operator::In(vec!["web".to_owned()]),
            }]),
            ..Selector::default()
        };
        let retention = Retention { max_archive_size: Some(1_000), ..Retention::default() };
        seen.note(&view_by(policies(of_web, retention), Vec::new(), 40));
        let labelled = |app: &str| Some(Labels::from([("app".to_owned(), app.to_owned())]));
        let told = |labels, size| seen.oversize_objection(&container(), labels, size, NOW);
        let oversized = told(labelled("web"), 1_001).unwrap();
        assert!(
            oversized.contains("CheckpointPolicy/shop/default") && oversized.contains("limit"),
            "{oversized}"
        );
        assert_eq!(told(labelled("web"), 1_000), None);
        assert_eq!(told(labelled("db"), 1_001), None);
        assert_eq!(told(None, 1_001), None, "it is not known whether the policy governs it");
        let elsewhere = ContainerId { namespace: "other".to_owned(), ..container() };
        assert_eq!(seen.oversize_objection(&elsewhere, labelled("web"), 1_001, NOW), None);
    }

    /// The two archives beyond the limit of one are being deleted.
    #[tokio::test(start_paused = true)]
    async fn a_dump_waits_for_room_while_archives_are_being_deleted_and_no_longer() {
        let full = || {
            let archives =
                (0..3).map(|at| archive(&format!("checkpoint-{at}.tar"), "db-0", State::Complete, at, 1));
            let limit = Limit { max_count: Some(1), max_total_size: None };
            let retention = Retention { per_container: limit, ..Retention::default() };
            view_by(policies(Selector::default(), retention), archives.collect(), 10)
        };
        let begin = tokio::time::Instant::now();
        let seen = SeenArchives::default();
        seen.follow();
        seen.note(&full());
        assert_eq!(seen.room().unwrap().deletions, 2);
        let shortage = shortage_in_the_end(&seen, Some(20)).await;
        assert!(shortage.unwrap().contains("are expected to be needed"));
        assert_eq!(begin.elapsed(), Duration::from_secs(30));

        let waits = shortage_in_the_end(&seen, Some(20));
        tokio::pin!(waits);
        assert!(futures_util::poll!(&mut waits).is_pending());
        seen.note(&full());
        assert!(futures_util::poll!(&mut waits).is_pending());
        seen.note(&view_by(PolicySet::default(), Vec::new(), 40));
        assert_eq!(waits.await, None);
        // Nothing is being deleted: there is nothing to wait for.
        let begin = tokio::time::Instant::now();
        seen.note(&view_by(PolicySet::default(), Vec::new(), 10));
        assert!(shortage_in_the_end(&seen, Some(20)).await.is_some());
        assert!(begin.elapsed().is_zero());
    }

    #[test]
    fn an_archive_that_is_waited_for_is_told_also_when_its_schedule_is_gone_meanwhile() {
        let seen = SeenArchives::default();
        seen.follow();
        let mut told = seen.wait_for(&container(), None, NOW);
        let mut named = seen.wait_for(&container(), Some("b.tar".to_owned()), NOW);
        seen.unfollow();
        let others = vec![
            archive("old.tar", "db-0", State::Complete, -1, 1),
            archive("other.tar", "db-1", State::Complete, 1, 1),
        ];
        seen.note(&view(others));
        assert!(told.try_recv().is_err() && named.try_recv().is_err());
        seen.note(&view(vec![archive("a.tar", "db-0", State::Complete, 1, 1)]));
        assert_eq!(told.try_recv().unwrap(), Found { file: "a.tar".to_owned(), fault: None });
        seen.note(&view(vec![archive("b.tar", "db-0", State::Incomplete, 1, 1)]));
        assert_eq!(named.try_recv().unwrap().fault.as_deref(), Some("the archive is incomplete"));
    }

    #[test]
    fn the_size_of_the_latest_whole_archive_is_known_only_while_it_is_wanted() {
        let seen = SeenArchives::default();
        let all = || {
            view(vec![
                archive("a.tar", "db-0", State::Complete, 1, 10),
                archive("b.tar", "db-0", State::Complete, 3, 30),
                archive("c.tar", "db-0", State::Complete, 2, 20),
                archive("d.tar", "db-0", State::Incomplete, 4, 40),
                archive("e.tar", "db-1", State::Complete, 5, 50),
            ])
        };
        seen.note(&all());
        assert_eq!((seen.last_size(&container()), seen.room()), (None, None));
        seen.follow();
        seen.note(&all());
        assert_eq!(seen.last_size(&container()), Some(30));
        assert_eq!(seen.room(), Some(Room { available: 40, min_free: 0, deletions: 0 }));
        seen.unfollow();
        assert_eq!((seen.last_size(&container()), seen.room()), (None, None));
    }

    #[test]
    fn where_more_is_to_stay_free_than_the_disk_has_there_is_no_room() {
        let id = PolicyRef {
            kind: Kind::CheckpointStoragePolicy,
            namespace: None,
            name: "disk".to_owned(),
            part: None,
        };
        let mut disk = StoragePolicy::silent(id, LabelSelector::default());
        disk.min_free_bytes = Some(101);
        let seen = SeenArchives::default();
        seen.follow();
        seen.note(&view_by(PolicySet { storage: vec![disk], ..PolicySet::default() }, Vec::new(), 100));
        assert_eq!(seen.room(), Some(Room { available: 100, min_free: 101, deletions: 0 }));
    }
}

//! Whether the kubelet names archives of two containers alike at any time during a dump: in
//! `checkpoint-<pod>_<namespace>-<container>-<time>.tar`, namespace `b-c` and container `d` read like namespace `b` and
//! container `c-d`. Whose archive a file of such a name is cannot be told, also once one of the two pods is gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use checkpoint_keeper_core::schedule::{ContainerId, NodePod};

/// Watches the name of one container for as long as it is held.
#[derive(Debug, Clone)]
pub(super) struct NameWatch(Arc<Watched>);

#[derive(Debug)]
struct Watched {
    container: ContainerId,
    /// Whether another container had the name, or it was not known for a moment which ones there were.
    is_ambiguous: AtomicBool,
}

impl NameWatch {
    /// Whether no other container had that name since the watch began.
    pub(super) fn is_unambiguous(&self) -> bool {
        !self.0.is_ambiguous.load(Ordering::Relaxed)
    }
}

/// The names that are watched.
#[derive(Debug, Default)]
pub(super) struct NameWatches(Vec<Weak<Watched>>);

impl NameWatches {
    /// Begins to watch the name of a container; these pods are there now, if that is known.
    pub(super) fn begin<'a>(
        &mut self,
        container: &ContainerId,
        pods: Option<impl Iterator<Item = &'a NodePod>>,
    ) -> NameWatch {
        let is_ambiguous = pods.is_none_or(|mut pods| pods.any(|pod| shares_its_name(container, pod)));
        let watched =
            Arc::new(Watched { container: container.clone(), is_ambiguous: AtomicBool::new(is_ambiguous) });
        self.0.retain(|watched| watched.strong_count() > 0);
        self.0.push(Arc::downgrade(&watched));
        NameWatch(watched)
    }

    /// Notes that a pod is there.
    pub(super) fn note(&self, pod: &NodePod) {
        self.mark_ambiguous(|container| shares_its_name(container, pod));
    }

    /// Notes that there may have been pods that were not seen.
    pub(super) fn note_gap(&self) {
        self.mark_ambiguous(|_| true);
    }

    fn mark_ambiguous(&self, is_it: impl Fn(&ContainerId) -> bool) {
        for watched in self.0.iter().filter_map(Weak::upgrade).filter(|watched| is_it(&watched.container)) {
            watched.is_ambiguous.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether the kubelet names archives of a container of that pod like those of this one, which is of another pod.
fn shares_its_name(container: &ContainerId, pod: &NodePod) -> bool {
    let named = |namespace: &str, container: &str| format!("{namespace}-{container}");
    let ours = named(&container.namespace, &container.container);
    pod.name == container.pod
        && pod.namespace != container.namespace
        && pod.containers.iter().any(|one| named(&pod.namespace, &one.name) == ours)
}

#[cfg(test)]
mod tests {
    use checkpoint_keeper_core::schedule::PodContainer;

    use super::*;

    fn pod(namespace: &str, name: &str, container: &str) -> NodePod {
        NodePod {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            containers: vec![PodContainer { name: container.to_owned(), ..PodContainer::default() }],
            ..NodePod::default()
        }
    }

    fn ours() -> ContainerId {
        ContainerId {
            namespace: "b".to_owned(),
            pod: "a".to_owned(),
            pod_uid: "u".to_owned(),
            container: "c-d".to_owned(),
        }
    }

    #[test]
    fn a_name_that_fits_two_containers_is_noticed() {
        let mut watches = NameWatches::default();
        let mut is_unambiguous =
            |pods: &[NodePod]| watches.begin(&ours(), Some(pods.iter())).is_unambiguous();
        let own = pod("b", "a", "c-d");
        assert!(is_unambiguous(&[own.clone(), pod("b-c", "a", "e"), pod("b-c", "other", "d")]));
        assert!(!is_unambiguous(&[own, pod("b-c", "a", "d")]));
        assert!(!watches.begin(&ours(), None::<std::iter::Empty<_>>).is_unambiguous());
    }

    #[test]
    fn who_had_the_name_for_a_moment_had_it_and_a_gap_leaves_it_in_doubt() {
        let mut watches = NameWatches::default();
        let own = [pod("b", "a", "c-d")];
        let (first, second) =
            (watches.begin(&ours(), Some(own.iter())), watches.begin(&ours(), Some(own.iter())));
        watches.note(&own[0]);
        watches.note(&pod("b-c", "a", "e"));
        assert!(first.is_unambiguous());
        watches.note(&pod("b-c", "a", "d"));
        assert!(!first.is_unambiguous() && !second.is_unambiguous());
        drop((first, second));
        let third = watches.begin(&ours(), Some(own.iter()));
        assert!(third.is_unambiguous() && watches.0.len() == 1, "what is not watched any more is forgotten");
        watches.note_gap();
        assert!(!third.is_unambiguous());
    }
}

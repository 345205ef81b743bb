//! Which pods and containers a schedule is about, and what is about to happen to them.

use super::messages::{ContainerId, NodePod};
use super::spec::{Disruption, Schedule};

/// The reason that the scheduler gives when it makes room for another pod.
const PREEMPTED: &str = "PreemptionByScheduler";

/// Whether the schedule selects that pod.
pub(super) fn is_selected(schedule: &Schedule, pod: &NodePod) -> bool {
    schedule.pods_namespace == pod.namespace
        && schedule
            .selector
            .0
            .iter()
            .all(|requirement| requirement.holds(pod.labels.get(&requirement.key).map(String::as_str)))
}

/// The names of the containers of a pod that the schedule is about.
pub(super) fn containers_of<'a>(schedule: &'a Schedule, pod: &'a NodePod) -> impl Iterator<Item = &'a str> {
    let names = &schedule.containers;
    let containers = pod.containers.iter();
    containers
        .filter(
            |container| if names.is_empty() { container.is_main } else { names.contains(&container.name) },
        )
        .map(|container| container.name.as_str())
}

/// The disruptions of a pod that the schedule asks to be told of: at most one of its node's drain, and one of its
/// own end.
pub(super) fn disruptions_of(
    schedule: &Schedule,
    pod: &NodePod,
    is_unschedulable: bool,
) -> impl Iterator<Item = Disruption> {
    let target = pod.disruption_target.as_deref();
    let ends = [
        (Disruption::Preemption, target == Some(PREEMPTED)),
        (Disruption::PodEviction, target.is_some_and(|reason| reason != PREEMPTED)),
        (Disruption::PodDeletion, pod.is_deleted),
    ];
    let is_asked = |disruption: &Disruption| schedule.triggers.on_disruption.contains(disruption);
    let drain = Some(Disruption::NodeDrain).filter(|drain| is_unschedulable && is_asked(drain));
    let end = ends.into_iter().find(|(end, is_so)| *is_so && is_asked(end)).map(|(end, _)| end);
    drain.into_iter().chain(end)
}

impl NodePod {
    /// One of its containers.
    pub fn container(&self, name: &str) -> ContainerId {
        ContainerId {
            namespace: self.namespace.clone(),
            pod: self.name.clone(),
            pod_uid: self.uid.clone(),
            container: name.to_owned(),
        }
    }
}

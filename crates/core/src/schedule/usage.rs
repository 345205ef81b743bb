//! What containers use, against the thresholds of schedules.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::messages::{ContainerId, NodePod, Trigger, Usage};
use super::occasions::{containers_of, is_selected};
use super::spec::{Schedule, Thresholds};

/// What was last known of what containers use.
#[derive(Debug, Default)]
pub(super) struct UsageWatch {
    /// The last figures: CPU use is the difference of two.
    last: HashMap<ContainerId, Usage>,
    /// When a dump for a schedule last succeeded, by container and schedule UID.
    successes: HashMap<ContainerId, HashMap<String, Duration>>,
}

impl UsageWatch {
    /// Learns figures, and tells which schedules ask for which containers because of them.
    pub(super) fn learn<'a>(
        &mut self,
        usage: &BTreeMap<ContainerId, Usage>,
        pods: &BTreeMap<String, NodePod>,
        schedules: impl Iterator<Item = &'a Arc<Schedule>>,
        uptime: Duration,
    ) -> Vec<(String, ContainerId, Trigger)> {
        let mut fired = Vec::new();
        for schedule in schedules {
            let Some(thresholds) = schedule.triggers.resources else { continue };
            for pod in pods.values().filter(|pod| pod.is_running && is_selected(schedule, pod)) {
                for name in containers_of(schedule, pod) {
                    let container = pod.container(name);
                    let Some(now) = usage.get(&container) else { continue };
                    let limits = pod.containers.iter().find(|one| one.name == name);
                    let (cpu_limit, memory_limit) =
                        limits.map_or((None, None), |limits| (limits.cpu_limit, limits.memory_limit));
                    let memory = now.memory_bytes.and_then(|bytes| percent(u128::from(bytes), memory_limit));
                    let cpu = self.last.get(&container).and_then(|last| cpu_millis(last, now));
                    let cpu = cpu.and_then(|millis| percent(u128::from(millis), cpu_limit));
                    let trigger =
                        [(memory, thresholds.memory, Trigger::Memory), (cpu, thresholds.cpu, Trigger::Cpu)]
                            .into_iter()
                            .find(|(use_, thresholds, _)| {
                                use_.is_some_and(|use_| thresholds.are_crossed_by(use_))
                            });
                    let Some((_, _, trigger)) = trigger else { continue };
                    let last = self.successes.get(&container).and_then(|last| last.get(&schedule.uid));
                    if last.is_none_or(|last| uptime.saturating_sub(*last) >= thresholds.cooldown) {
                        fired.push((schedule.uid.clone(), container, trigger));
                    }
                }
            }
        }
        self.last = usage.iter().map(|(container, usage)| (container.clone(), *usage)).collect();
        fired
    }

    /// Notes a success: the container is left alone for a while.
    pub(super) fn note_success(&mut self, schedule_uid: &str, container: &ContainerId, uptime: Duration) {
        let of_container = match self.successes.get_mut(container) {
            Some(of_container) => of_container,
            None => self.successes.entry(container.clone()).or_default(),
        };
        of_container.insert(schedule_uid.to_owned(), uptime);
    }

    /// Forgets all other containers.
    pub(super) fn retain(&mut self, is_here: impl Fn(&ContainerId) -> bool) {
        self.last.retain(|container, _| is_here(container));
        self.successes.retain(|container, _| is_here(container));
    }
}

impl Thresholds {
    pub(super) fn any(self) -> bool {
        self.above.is_some() || self.below.is_some()
    }

    fn are_crossed_by(self, percent: u32) -> bool {
        self.above.is_some_and(|above| percent >= above) || self.below.is_some_and(|below| percent <= below)
    }
}

/// How much of a limit it is, in percent, rounded down; none where there is no limit.
fn percent(used: u128, limit: Option<u64>) -> Option<u32> {
    let limit = limit.filter(|limit| *limit > 0)?;
    Some(u32::try_from(used * 100 / u128::from(limit)).unwrap_or(u32::MAX))
}

/// The CPU use between two figures, in thousandths of a core; none where that cannot be told, as the container was
/// started anew between them.
fn cpu_millis(last: &Usage, now: &Usage) -> Option<u64> {
    let took = now.at.checked_sub(last.at).filter(|took| !took.is_zero())?;
    let used = now.cpu_seconds? - last.cpu_seconds?;
    // As many cores, by way of a duration: it can be no number that is none.
    let cores = Duration::try_from_secs_f64(used / took.as_secs_f64()).ok()?;
    u64::try_from(cores.as_millis()).ok()
}

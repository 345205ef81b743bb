//! What is told of one input at once: of many results of a kind there is one report, with their number.

use std::collections::{BTreeMap, HashMap};

use super::messages::{ContainerId, Report, Request, RunResult, SkipReason, Trigger};

/// Of a namespace there are so many reports that name their container. No more are told people at once anyway.
const MOST_NAMED: u32 = 500;

/// Reports that are told together.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Due times that were missed, by the schedule's UID and the trigger.
    missed: BTreeMap<String, BTreeMap<Trigger, Report>>,
    /// Further results, by those and the result's name.
    further: BTreeMap<String, BTreeMap<(Trigger, &'static str), Report>>,
    /// How many reports with a container each namespace has.
    named: HashMap<String, u32>,
}

impl Tally {
    /// Notes that a request for a container was missed.
    pub(super) fn miss(&mut self, container: &ContainerId, request: Request) {
        let result = RunResult::Skipped(SkipReason::Missed(1));
        add(&mut self.missed, request.trigger, container, request, result);
    }

    /// Returns the report of what came of a request without a dump, if it is to be told by itself.
    pub(super) fn report_or_count(
        &mut self,
        container: &ContainerId,
        request: Request,
        result: RunResult,
    ) -> Option<Report> {
        let namespace = &request.schedule.namespace;
        let named = match self.named.get_mut(namespace) {
            Some(named) => named,
            None => self.named.entry(namespace.clone()).or_default(),
        };
        if *named < MOST_NAMED {
            *named += 1;
            return Some(Report { request, container: Some(container.clone()), result, count: 1 });
        }
        add(&mut self.further, (request.trigger, result.name()), container, request, result);
        None
    }

    /// Takes what was missed.
    pub(super) fn take_missed(&mut self) -> impl Iterator<Item = Report> + use<> {
        std::mem::take(&mut self.missed).into_values().flat_map(BTreeMap::into_values)
    }

    /// Takes the other reports, and begins anew.
    pub(super) fn take_further(&mut self) -> impl Iterator<Item = Report> + use<> {
        self.named.clear();
        std::mem::take(&mut self.further).into_values().flat_map(BTreeMap::into_values)
    }
}

fn add<K: Ord>(
    reports: &mut BTreeMap<String, BTreeMap<K, Report>>,
    key: K,
    container: &ContainerId,
    request: Request,
    result: RunResult,
) {
    let of_schedule = match reports.get_mut(&request.schedule_uid) {
        Some(of_schedule) => of_schedule,
        None => reports.entry(request.schedule_uid.clone()).or_default(),
    };
    if let Some(report) = of_schedule.get_mut(&key) {
        report.count = report.count.saturating_add(1);
        report.container = None;
        return;
    }
    let container = Some(container.clone());
    of_schedule.insert(key, Report { request, container, result, count: 1 });
}

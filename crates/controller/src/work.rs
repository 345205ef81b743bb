//! The leader's work: it reconciles when something changed, and every minute.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_api::effective::{Scope, effective_policies};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::agents::{Absences, Agents};
use super::finalizers;
use super::metrics::Metrics;
use super::node_report::NodeReport;
use super::quota_sums::namespaces_held;
use super::quotas::{self, QuotaWrite};
use super::schedules;
use super::statuses::{StatusWrite, desired};
use super::store_cache::StoreCache;
use super::throttle::{FigureThrottle, MIN_INTERVAL, StatusThrottle, interval_for};
use super::writer::{WRITE, Writer, Written};
use checkpoint_keeper_runtime::lease::HeldUntil;
use checkpoint_keeper_runtime::policy_objects::PolicyObjects;
use checkpoint_keeper_runtime::problem_log::{Entry, Problem, ProblemLog};
use checkpoint_keeper_runtime::quota_objects::QuotaObjects;
use checkpoint_keeper_runtime::schedule_objects::ScheduleObjects;

/// No two reconciliations begin closer to each other: what comes in a burst is worked off at once.
const APART: Duration = Duration::from_secs(1);

/// How often everything is looked at again, however quiet it is.
const AGAIN: Duration = Duration::from_mins(1);

/// How long the API is left in peace when it did not answer.
const PAUSE: Duration = Duration::from_secs(5);

/// In so many stores it is said at a time that the node has no agent.
const AGENTS_AT_A_TIME: usize = 50;

/// How soon others follow.
const AGENTS_AGAIN: Duration = Duration::from_secs(30);

/// So much of the lease must be left when a request that changes something is begun: more than it may take.
const MARGIN: Duration = WRITE.saturating_add(Duration::from_secs(1));

/// All that the work needs.
pub struct Work {
    pub(super) writer: Writer,
    pub(super) objects: PolicyObjects,
    pub(super) schedules: ScheduleObjects,
    pub(super) stores: StoreCache,
    pub(super) agents: Agents,
    pub(super) absences: Absences,
    pub(super) operator_namespaces: BTreeSet<String>,
    pub(super) directory: String,
    pub(super) metrics: Metrics,
    /// Until when this replica leads.
    pub(super) held: watch::Receiver<HeldUntil>,
    /// Whether to stop.
    pub(super) stop: watch::Receiver<bool>,
    /// When it last got on.
    pub(super) pulse: watch::Sender<Instant>,
    pub(super) throttle: StatusThrottle,
    pub(super) schedule_throttle: FigureThrottle,
    pub(super) quotas: QuotaObjects,
    pub(super) quota_throttle: FigureThrottle,
    /// Which writes fail.
    pub(super) problems: ProblemLog,
}

/// The types of problems with writes, in the log.
const WRITE_STATUS: &str = "StatusUnwritten";
const WRITE_SCHEDULE: &str = "ScheduleUnwritten";
const WRITE_QUOTA: &str = "QuotaUnwritten";
const RELEASE_SCHEDULE: &str = "FinalizerStays";
const WRITE_STORE: &str = "StoreUnwritten";
const WRITE_EVENT: &str = "EventsUnwritten";

impl Work {
    /// Works until it is told to stop; the request under way is finished.
    pub async fn run(mut self) {
        let (mut objects, mut stores) = (self.objects.changes(), self.stores.changes());
        let (mut agents, mut schedules) = (self.agents.changes(), self.schedules.changes());
        let mut quotas = self.quotas.changes();
        let (mut held, mut stop) = (self.held.clone(), self.stop.clone());
        while !*stop.borrow_and_update() {
            let begun = Instant::now();
            self.pulse.send_replace(begun);
            objects.mark_unchanged();
            stores.mark_unchanged();
            agents.mark_unchanged();
            schedules.mark_unchanged();
            quotas.mark_unchanged();
            let led = held.borrow_and_update().is_some();
            let next = if self.may_write() { self.reconcile().await } else { None };
            self.metrics.leads(self.held.borrow().is_some());
            let next = next.map_or(begun + AGAIN, |next| next.min(begun + AGAIN));
            loop {
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => return,
                    // A renewal changes nothing for us; winning and losing do.
                    _ = held.changed() => if held.borrow_and_update().is_some() == led { continue },
                    _ = objects.changed() => {}
                    _ = stores.changed() => {}
                    _ = agents.changed() => {}
                    _ = schedules.changed() => {}
                    _ = quotas.changed() => {}
                    () = sleep_until(next) => {}
                }
                break;
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = sleep_until(begun + APART) => {}
            }
        }
    }

    /// Whether a request that is begun now ends while this replica still leads.
    fn may_write(&self) -> bool {
        self.held.borrow().is_some_and(|until| Instant::now() + MARGIN <= until)
    }

    fn may_go_on(&self) -> bool {
        self.pulse.send_replace(Instant::now());
        !*self.stop.borrow() && self.may_write()
    }

    /// Looks at everything once, and does what follows from it; says when to look again at the latest.
    async fn reconcile(&mut self) -> Option<Instant> {
        let objects = self.objects.all()?;
        let reports = self.stores.all()?;
        let scope = Scope {
            operator_namespaces: self.operator_namespaces.clone(),
            other_operator: self.objects.other_operator_runs(),
            directory: self.directory.clone(),
        };
        let effective = effective_policies(&objects, &scope);
        self.metrics.policies(&effective);
        let ids: BTreeSet<String> = effective.acceptances.keys().map(ToString::to_string).collect();
        // No status is written to a deleted policy, so problems with that are over.
        let is_there = |kind, subject: &str| kind != WRITE_STATUS || ids.contains(subject);
        self.problems.retain(is_there, Instant::now().into_std()).iter().for_each(Entry::log);
        let writes = desired(&objects, &effective, &reports, Timestamp::now());
        let (due, later) = self.throttle.due(writes, Instant::now());
        if !self.write(due).await {
            return Some(Instant::now() + PAUSE);
        }
        let schedules = self.write_schedules(&reports).await;
        let quotas = self.write_quotas(&reports).await;
        self.release_schedules().await;
        let agents = self.tell_of_agents(&reports).await;
        [later, schedules, quotas, agents].into_iter().flatten().min()
    }

    /// Says in schedules what became of them; says when to look again.
    async fn write_schedules(&mut self, reports: &[Arc<NodeReport>]) -> Option<Instant> {
        let objects = self.schedules.all()?;
        let (namespace, other) = (self.schedules.operator_namespace(), self.objects.other_operator_runs());
        let writes = schedules::desired(&objects, namespace, other, reports, Timestamp::now());
        let (due, later) = self.schedule_throttle.due(writes, MIN_INTERVAL, Instant::now());
        for write in due {
            if !self.may_go_on() {
                return later;
            }
            let written = self.writer.write_schedule(&write).await;
            self.metrics.wrote(written.label());
            self.schedule_throttle.note(&write, Instant::now());
            let id = write.id.to_string();
            match written {
                Written::Refused(why) | Written::Unanswered(why) => {
                    let message = format!("cannot write the status of {id}: {why}");
                    self.failed(WRITE_SCHEDULE, id, message);
                }
                Written::Done | Written::Conflict | Written::Gone => self.succeeded(WRITE_SCHEDULE, &id),
            }
        }
        later
    }

    /// Says in quotas what their namespaces hold; says when to look again.
    async fn write_quotas(&mut self, reports: &[Arc<NodeReport>]) -> Option<Instant> {
        let objects = self.quotas.all()?;
        let judged = quotas::desired(&objects, reports, Timestamp::now());
        self.metrics.quotas(&judged.states, judged.ratios);
        self.metrics.namespaces(&namespaces_held(reports));
        // Each is sent to the agents of all nodes.
        let interval = interval_for(reports.len());
        let (due, later) = self.quota_throttle.due(judged.writes, interval, Instant::now());
        for write in due {
            if !self.may_go_on() {
                return later;
            }
            let written = self.writer.write_quota(&write).await;
            self.metrics.wrote(written.label());
            self.quota_throttle.note(&write, Instant::now());
            let id = format!("CheckpointQuota/{}/{}", write.namespace, write.name);
            if let Written::Refused(why) | Written::Unanswered(why) = &written {
                let message = format!("cannot write the status of {id}: {why}");
                self.failed(WRITE_QUOTA, id, message);
                continue;
            }
            self.succeeded(WRITE_QUOTA, &id);
            if written == Written::Done && self.may_go_on() {
                self.tell_of_quota(&id, &write).await;
            }
        }
        later
    }

    /// Says as an event what has come true of a quota, if anything has.
    async fn tell_of_quota(&mut self, id: &str, write: &QuotaWrite) {
        let Some(event) = &write.event else { return };
        match self.writer.publish_quota(write, event).await {
            Ok(()) => self.succeeded(WRITE_EVENT, ""),
            Err(error) => {
                let message = format!("cannot write an event on {id}: {error}");
                self.failed(WRITE_EVENT, String::new(), message);
            }
        }
    }

    /// Takes the older operator's finalizer off schedules that are deleted. What fails is tried again the next time.
    async fn release_schedules(&mut self) {
        let Some(objects) = self.schedules.all() else { return };
        for release in finalizers::releases(&objects, self.objects.other_operator_runs()) {
            if !self.may_go_on() {
                return;
            }
            let written = self.writer.release(&release).await;
            self.metrics.wrote(written.label());
            let id = format!("{}/{}", release.namespace, release.name);
            match written {
                Written::Refused(why) | Written::Unanswered(why) => {
                    let message = format!(
                        "cannot take the older operator's finalizer off CheckpointSchedule {id} (criu.org), which is \
                         deleted: {why}"
                    );
                    self.failed(RELEASE_SCHEDULE, id, message);
                }
                Written::Done | Written::Conflict | Written::Gone => self.succeeded(RELEASE_SCHEDULE, &id),
            }
        }
    }

    /// Says in the stores of nodes without an agent that there is none; says when to look again.
    async fn tell_of_agents(&mut self, reports: &[Arc<NodeReport>]) -> Option<Instant> {
        let agents = self.agents.health()?;
        let without = self.absences.look(reports, &agents, Instant::now());
        let away: Vec<_> =
            without.nodes.iter().map(|(node, health)| (node.as_str(), health.name())).collect();
        self.metrics.nodes_without_agent(&away);
        for report in without.untold.iter().take(AGENTS_AT_A_TIME) {
            if !self.may_go_on() {
                return None;
            }
            let written = self.writer.agent_is_away(report, Timestamp::now()).await;
            self.metrics.wrote(written.label());
            let is_answered = !matches!(written, Written::Unanswered(_));
            match written {
                Written::Refused(why) | Written::Unanswered(why) => {
                    let node = &report.node;
                    let message =
                        format!("cannot write in the store of {node} that no agent is at work: {why}");
                    self.failed(WRITE_STORE, node.clone(), message);
                }
                Written::Done | Written::Conflict | Written::Gone => {
                    self.succeeded(WRITE_STORE, &report.node);
                }
            }
            // One store that is refused keeps no other from being written.
            if !is_answered {
                break;
            }
        }
        if without.untold.is_empty() { without.next } else { Some(Instant::now() + AGENTS_AGAIN) }
    }

    /// Writes these, for as long as the API answers.
    async fn write(&mut self, writes: Vec<StatusWrite>) -> bool {
        let mut tells = true;
        for write in writes {
            if !self.may_go_on() {
                return true;
            }
            let written = self.writer.write(&write).await;
            self.metrics.wrote(written.label());
            match &written {
                Written::Done => {
                    let transition = write.transition.as_ref().filter(|_| tells && self.may_go_on());
                    if let Some(transition) = transition {
                        match self.writer.publish(&write, transition).await {
                            Ok(()) => self.succeeded(WRITE_EVENT, ""),
                            Err(error) => {
                                let message = format!("cannot write an event on {}: {error}", write.id);
                                self.failed(WRITE_EVENT, String::new(), message);
                                tells = false;
                            }
                        }
                    }
                    self.succeeded(WRITE_STATUS, &write.id.to_string());
                    self.throttle.note(write, false, Instant::now());
                }
                Written::Conflict | Written::Gone => {}
                Written::Refused(why) => {
                    self.status_failed(&write, why);
                    self.throttle.note(write, true, Instant::now());
                }
                Written::Unanswered(why) => {
                    self.status_failed(&write, why);
                    self.throttle.note(write, true, Instant::now());
                    return false;
                }
            }
        }
        true
    }

    fn status_failed(&mut self, write: &StatusWrite, why: &str) {
        let id = write.id.to_string();
        let message = format!("cannot write the status of {id}: {why}");
        self.failed(WRITE_STATUS, id, message);
    }

    fn failed(&mut self, kind: &'static str, subject: String, message: String) {
        let problem = Problem { kind, subject, message };
        self.problems.begin(problem, Instant::now().into_std()).iter().for_each(Entry::log);
    }

    fn succeeded(&mut self, kind: &'static str, subject: &str) {
        self.problems.end(kind, subject, Instant::now().into_std()).iter().for_each(Entry::log);
    }
}

//! The leader's work: it reconciles when something changed, and every minute.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_api::effective::{Scope, effective_policies};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::agents::{Absences, Agents, WithoutAgent};
use super::finalizers::{self, Release};
use super::metrics::Metrics;
use super::node_report::NodeReport;
use super::quota_sums::namespaces_held;
use super::status_write::{ObjectId, StatusEvent, StatusWrite};
use super::store_cache::StoreCache;
use super::throttle::Throttle;
use super::writer::{WRITE, Writer, Written};
use super::{quotas, schedules, statuses};
use checkpoint_keeper_runtime::lease::HeldUntil;
use checkpoint_keeper_runtime::policy_objects::PolicyObjects;
use checkpoint_keeper_runtime::problem_log::{Entry, Problem, ProblemLog};
use checkpoint_keeper_runtime::quota_objects::QuotaObjects;
use checkpoint_keeper_runtime::schedule_objects::{AllSchedules, ScheduleObjects};

/// No two reconciliations begin closer to each other: what comes in a burst is worked off at once.
const APART: Duration = Duration::from_secs(1);

/// How often everything is looked at again, however quiet it is.
const AGAIN: Duration = Duration::from_mins(1);

/// How long the API is left in peace when it did not answer.
const PAUSE: Duration = Duration::from_secs(5);

/// In so many stores it is said at a time that the node has no agent.
const AGENTS_AT_A_TIME: usize = 50;

/// How soon others follow, and what was not answered is tried again.
const AGAIN_AFTER_FAILURE: Duration = Duration::from_secs(30);

/// After so many statuses that were not answered, the API is left in peace.
const MOST_UNANSWERED: usize = 3;

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
    pub(super) quotas: QuotaObjects,
    pub(super) throttle: Throttle,
    /// Which writes fail.
    pub(super) problems: ProblemLog,
}

/// The API did not answer.
struct Unanswered;

/// The types of problems with other writes than those of statuses.
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
        self.metrics.namespaces(&namespaces_held(&reports));
        let (schedules, quotas) = (self.schedules.all(), self.quotas.all());
        let now = Timestamp::now();
        let policies = statuses::desired(&objects, &effective, &reports, now);
        let mut writes: Vec<StatusWrite> = policies.into_iter().map(StatusWrite::from).collect();
        let mut known = vec![statuses::PROBLEM];
        if let Some(schedules) = &schedules {
            let namespace = self.schedules.operator_namespace();
            writes.extend(schedules::desired(schedules, namespace, scope.other_operator, &reports, now));
            known.push(schedules::PROBLEM);
        }
        if let Some(quotas) = &quotas {
            let judged = quotas::desired(quotas, &reports, now);
            self.metrics.quotas(&judged.states, judged.ratios);
            writes.extend(judged.writes);
            known.push(quotas::PROBLEM);
        }
        let wanted = writes.iter().map(|write| (write.problem, write.object.to_string())).collect();
        self.keep_problems(&known, &wanted);
        let (due, later) = self.throttle.due(writes, Instant::now());
        let without = self.look_at_agents(&reports);
        // What is not answered of one kind, as by a webhook that does not work, keeps nothing of another from being written.
        let statuses = self.write_statuses(due).await.err().map(|Unanswered| Instant::now() + PAUSE);
        let releases = match &schedules {
            Some(schedules) => self.release_schedules(schedules).await.err(),
            None => None,
        };
        let releases = releases.map(|Unanswered| Instant::now() + AGAIN_AFTER_FAILURE);
        let agents = match without {
            Some(without) => self.tell_of_agents(without).await,
            None => None,
        };
        [later, statuses, releases, agents].into_iter().flatten().min()
    }

    /// Writes these statuses, and says as an event what is worth one.
    async fn write_statuses(&mut self, writes: Vec<StatusWrite>) -> Result<(), Unanswered> {
        let (mut publishes, mut unanswered) = (true, 0);
        for write in writes {
            if !self.may_go_on() {
                return Ok(());
            }
            let written = self.writer.write(&write).await;
            let id = write.object.to_string();
            self.note(&written, write.problem, &id, |why| format!("cannot write the status of {id}: {why}"));
            match written {
                Written::Done => {
                    let event = write.event.as_ref().filter(|_| publishes && self.may_go_on());
                    if let Some(event) = event {
                        publishes = self.publish(&write.object, event).await;
                    }
                    self.throttle.note(write, false, Instant::now());
                }
                // What follows from the new version is seen when the watch shows it.
                Written::Conflict | Written::Gone => {}
                Written::Refused(_) => self.throttle.note(write, true, Instant::now()),
                Written::Unanswered(_) => {
                    self.throttle.note(write, true, Instant::now());
                    unanswered += 1;
                    if unanswered == MOST_UNANSWERED {
                        return Err(Unanswered);
                    }
                }
            }
        }
        if unanswered == 0 { Ok(()) } else { Err(Unanswered) }
    }

    /// Publishes an event; says whether the next one may follow: one that is refused, as in a namespace that ends, keeps no
    /// other from being published.
    async fn publish(&mut self, object: &ObjectId, event: &StatusEvent) -> bool {
        let published = self.writer.publish(object, event).await;
        match &published {
            Written::Done | Written::Conflict | Written::Gone => self.succeeded(WRITE_EVENT, ""),
            Written::Refused(why) | Written::Unanswered(why) => {
                let message = format!("cannot write an event on {object}: {why}");
                self.failed(WRITE_EVENT, String::new(), message);
            }
        }
        !matches!(published, Written::Unanswered(_))
    }

    /// Takes the older operator's finalizer off schedules that are deleted. What is refused is tried again the next time.
    async fn release_schedules(&mut self, objects: &AllSchedules) -> Result<(), Unanswered> {
        let releases = finalizers::releases(objects, self.objects.other_operator_runs());
        let id = |release: &Release| format!("{}/{}", release.namespace, release.name);
        let wanted = releases.iter().map(|release| (RELEASE_SCHEDULE, id(release))).collect();
        self.keep_problems(&[RELEASE_SCHEDULE], &wanted);
        for release in releases {
            if !self.may_go_on() {
                return Ok(());
            }
            let written = self.writer.release(&release).await;
            let id = id(&release);
            self.note(&written, RELEASE_SCHEDULE, &id, |why| {
                format!(
                    "cannot take the older operator's finalizer off CheckpointSchedule {id} (criu.org), which is \
                     deleted: {why}"
                )
            });
            if matches!(written, Written::Unanswered(_)) {
                return Err(Unanswered);
            }
        }
        Ok(())
    }

    /// Finds out which nodes have no agent; nothing before all were listed.
    fn look_at_agents(&mut self, reports: &[Arc<NodeReport>]) -> Option<WithoutAgent> {
        let agents = self.agents.health()?;
        let without = self.absences.look(reports, &agents, Instant::now());
        let away: Vec<_> =
            without.nodes.iter().map(|(node, health)| (node.as_str(), health.name())).collect();
        self.metrics.nodes_without_agent(&away);
        let wanted = without.untold.iter().map(|report| (WRITE_STORE, report.node.clone())).collect();
        self.keep_problems(&[WRITE_STORE], &wanted);
        Some(without)
    }

    /// Says in the stores of nodes without an agent that there is none; says when to look again.
    async fn tell_of_agents(&mut self, without: WithoutAgent) -> Option<Instant> {
        for report in without.untold.iter().take(AGENTS_AT_A_TIME) {
            if !self.may_go_on() {
                return None;
            }
            let written = self.writer.agent_is_away(report, Timestamp::now()).await;
            let node = &report.node;
            self.note(&written, WRITE_STORE, node, |why| {
                format!("cannot write in the store of {node} that no agent is at work: {why}")
            });
            // One store that is refused keeps no other from being written.
            if matches!(written, Written::Unanswered(_)) {
                break;
            }
        }
        if without.untold.is_empty() { without.next } else { Some(Instant::now() + AGAIN_AFTER_FAILURE) }
    }

    /// Notes how a writing went, in the metrics and among the problems; `message` tells of a failure.
    fn note(
        &mut self,
        written: &Written,
        problem: &'static str,
        subject: &str,
        message: impl FnOnce(&str) -> String,
    ) {
        self.metrics.wrote(written.label());
        match written {
            Written::Refused(why) | Written::Unanswered(why) => {
                self.failed(problem, subject.to_owned(), message(why));
            }
            Written::Done | Written::Conflict | Written::Gone => self.succeeded(problem, subject),
        }
    }

    /// Ends the problems of these types with what is not wanted any more: it is as it should be, or it is gone.
    fn keep_problems(&mut self, types: &[&'static str], wanted: &BTreeSet<(&'static str, String)>) {
        let is_there = |kind: &'static str, subject: &str| {
            !types.contains(&kind) || wanted.contains(&(kind, subject.to_owned()))
        };
        self.problems.retain(is_there, Instant::now().into_std()).iter().for_each(Entry::log);
    }

    fn failed(&mut self, kind: &'static str, subject: String, message: String) {
        let problem = Problem { kind, subject, message };
        self.problems.begin(problem, Instant::now().into_std()).iter().for_each(Entry::log);
    }

    fn succeeded(&mut self, kind: &'static str, subject: &str) {
        self.problems.end(kind, subject, Instant::now().into_std()).iter().for_each(Entry::log);
    }
}

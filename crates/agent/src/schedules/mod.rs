//! Checkpoints by schedule: what the scheduler decides for this node's pods is carried out here, through the node's own
//! kubelet.

mod answers;
mod archives;
pub(crate) mod budget;
mod dumping;
mod event_sender;
mod memory_file;
mod message_filter;
mod name_watch;
mod node_pods;
mod objections;
mod reports;
mod usage;
mod warnings;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use checkpoint_keeper_core::schedule::{
    ContainerId, Dump, DumpId, Effect, Input, Memory, Outcome, Report, RunResult, Scheduler, Usage,
};
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::mailbox::Sender;
use checkpoint_keeper_runtime::chain;
use checkpoint_keeper_runtime::kubelet::{self, Kubelet};
use checkpoint_keeper_runtime::liveness::now;
use checkpoint_keeper_runtime::problem_log::{Entry, ProblemLog};
use checkpoint_keeper_runtime::schedule_objects::ScheduleObjects;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{MissedTickBehavior, interval, sleep};

pub(super) use archives::SeenArchives;

use self::dumping::Dumper;
use self::memory_file::{MemoryFile, MemoryWriter};
use self::message_filter::{Admission, MessageFilter};
use self::node_pods::NodePods;
use self::reports::{MessageSender, channel};
use self::usage::NodeUsage;
use self::warnings::QuotaWarnings;
use super::context::{ApiContext, TICK};
use super::metrics::Timings;
use super::problem_type::ProblemType;
use super::quotas::QuotaGate;

/// The longest sleep: what wakes it otherwise may have been lost.
const LONGEST_SLEEP: Duration = Duration::from_mins(1);

/// How often it is found out at most what each schedule has done.
const STATES: Duration = Duration::from_secs(1);

/// How long after the start a watch that shows nothing yet is a problem.
const UNWATCHED: Duration = Duration::from_mins(3);

/// What the node's schedules need.
#[derive(Clone)]
pub(super) struct Schedules {
    context: ApiContext,
    objects: ScheduleObjects,
    pods: NodePods,
    dumper: Arc<Dumper>,
    memory: Arc<MemoryFile>,
    timings: Timings,
    /// The checkpoint directory.
    directory: PathBuf,
    /// How many dumps are made at once.
    most_dumps: u32,
}

/// What schedules are carried out with: the kubelet, the engine, and their settings.
pub(super) struct Dependencies {
    /// The operator's own namespace, whose objects of the older operator may name other namespaces.
    pub(super) operator_namespace: String,
    pub(super) kubelet: Kubelet,
    pub(super) archives: SeenArchives,
    /// The engine, which is told how dumps ended.
    pub(super) engine: Sender,
    pub(super) timings: Timings,
    /// The checkpoint directory.
    pub(super) directory: PathBuf,
    /// How many dumps are made at once.
    pub(super) most_dumps: u32,
}

/// A dump under way.
type Dumping = Pin<Box<dyn Future<Output = (DumpId, Outcome)> + Send>>;

impl Schedules {
    /// Schedules that are carried out with these; their memory is kept beside the catalog.
    pub(super) fn new(context: ApiContext, dependencies: Dependencies, catalog: &Path) -> Self {
        let Dependencies { operator_namespace, kubelet, archives, engine, timings, directory, most_dumps } =
            dependencies;
        let pods = NodePods::default();
        let quotas = QuotaGate::new(context.quotas.clone(), context.state.clone(), context.node.clone());
        Self {
            objects: ScheduleObjects::new(operator_namespace),
            dumper: Arc::new(Dumper {
                usage: NodeUsage::new(kubelet.clone()),
                kubelet,
                archives,
                engine,
                pods: pods.clone(),
                quotas,
                warnings: QuotaWarnings::default(),
            }),
            pods,
            memory: Arc::new(MemoryFile::beside(catalog)),
            timings,
            directory,
            most_dumps,
            context,
        }
    }

    /// The schedules' objects.
    pub(super) fn objects(&self) -> ScheduleObjects {
        self.objects.clone()
    }

    /// Carries them out for as long as it is polled.
    pub(super) async fn run(&self) {
        let (messages, receiver) = channel();
        let file = Arc::clone(&self.memory);
        let (mut memory, writing) = memory_file::writing(move |memory| file.write(memory));
        tokio::join!(
            self.objects.watch(&self.context.client),
            self.watch_pods(),
            self.decide(&messages, &mut memory),
            writing.run(),
            self.log_watch_problems(),
            self.dumper.warnings.run(&self.context.client, &self.context.node),
            receiver.run(&self.context, |schedule| self.objects.uid_of(schedule)),
        );
    }

    /// Logs what is wrong with each watch, when it begins and when it ends; what lasts is a problem of the node.
    async fn log_watch_problems(&self) {
        let mut log = ProblemLog::default();
        let started = now();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let problems =
                self.objects.watch_problems(now()).into_iter().chain(self.pods.watch_problems(now()));
            log.update(problems.collect(), now()).iter().for_each(Entry::log);
            let mut errors = self.objects.watch_errors(now());
            if self.objects.any() {
                errors.extend(self.pods.watch_errors(now()));
            }
            // A moment after the start nothing was listed yet.
            if started.elapsed() < UNWATCHED {
                continue;
            }
            let errors = (!errors.is_empty()).then(|| errors.join("; "));
            let of_quotas = self.context.quotas.watch_error(now());
            for (kind, error) in
                [(ProblemType::SchedulesUnwatched, errors), (ProblemType::QuotasUnwatched, of_quotas)]
            {
                match error {
                    Some(error) => self.context.problem(kind, error),
                    None => self.context.state.problem_ended(kind),
                }
            }
        }
    }

    /// Watches this node's pods while there is a schedule.
    async fn watch_pods(&self) {
        let mut changes = self.objects.changes();
        loop {
            while !self.objects.any() {
                if changes.changed().await.is_err() {
                    return;
                }
            }
            self.dumper.archives.follow();
            tokio::select! {
                () = self.pods.watch(&self.context.client, &self.context.node) => {}
                () = async {
                    while self.objects.any() && changes.changed().await.is_ok() {}
                } => {}
            }
            self.dumper.archives.unfollow();
            self.pods.forget();
        }
    }

    /// Decides what is dumped when.
    async fn decide(&self, messages: &MessageSender, writer: &mut MemoryWriter) {
        let memory = self.memory.read().unwrap_or_else(|error| {
            tracing::warn!("{}; schedules go on from what their status says", chain(&error));
            self.context.problem(ProblemType::ScheduleMemoryUnusable, error.to_string());
            Memory::default()
        });
        let mut scheduler = Scheduler::new(self.context.node.clone(), memory, self.most_dumps);
        let mut dumps: FuturesUnordered<Dumping> = FuturesUnordered::new();
        let (mut objects, mut pods) = (self.objects.changes(), self.pods.changes());
        let mut policies = self.context.objects.changes();
        let mut clocks = self.dumper.archives.clock();
        // What the engine published before this began counts as well.
        clocks.mark_changed();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut polled = now();
        // None or one: a kubelet that hangs holds up no dump.
        let mut polling = FuturesUnordered::new();
        let mut other_operator = None;
        let mut filter = MessageFilter::new(now());
        let mut shown = None;
        loop {
            let asleep = scheduler.wakes_in(clock::now()).unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP);
            let poll = scheduler.polls_usage().map(|poll| (polled + poll).saturating_duration_since(now()));
            let inputs = tokio::select! {
                Some((dump, outcome)) = dumps.next(), if !dumps.is_empty() => vec![Input::Ended { dump, outcome }],
                changed = pods.changed() => if changed.is_err() { return } else { self.pods_as_they_are() },
                changed = objects.changed() => if changed.is_err() { return } else { self.schedules_as_they_are() },
                changed = policies.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let runs = Some(self.context.objects.other_operator_runs());
                    if other_operator == runs {
                        continue;
                    }
                    other_operator = runs;
                    self.schedules_as_they_are()
                }
                changed = clocks.changed() => if changed.is_err() { return } else {
                    vec![Input::Clock(*clocks.borrow_and_update())]
                },
                () = sleep(poll.unwrap_or(LONGEST_SLEEP)), if poll.is_some() && polling.is_empty() => {
                    polled = now();
                    polling.push(self.usage());
                    continue;
                }
                Some(usage) = polling.next(), if !polling.is_empty() => {
                    usage.map(Input::Usage).into_iter().collect()
                }
                () = sleep(asleep) => vec![Input::Tick],
                // A watch that has gone quiet changes nothing by itself.
                _ = tick.tick() => self.pods_as_they_are(),
            };
            for input in inputs {
                for effect in scheduler.handle(input, clock::now()) {
                    self.carry_out(effect, messages, &mut filter, writer, &mut dumps).await;
                }
            }
            // With many schedules that takes a while. What is left out here is shown with the next tick.
            if shown.is_none_or(|shown| now().saturating_duration_since(shown) >= STATES) {
                shown = Some(now());
                self.context.state.scheduled(scheduler.states());
            }
        }
    }

    fn pods_as_they_are(&self) -> Vec<Input> {
        // Before it was seen it may be drained all the same: that a drain ended is nothing to conclude from that.
        let node = self.pods.is_unschedulable().map(|is_unschedulable| Input::Node { is_unschedulable });
        node.into_iter().chain([Input::Pods(self.pods.pods(now()))]).collect()
    }

    fn schedules_as_they_are(&self) -> Vec<Input> {
        let other_operator = self.context.objects.other_operator_runs();
        let schedules = self.objects.schedules(other_operator, clock::now().wall);
        schedules.map(Input::Schedules).into_iter().collect()
    }

    async fn carry_out(
        &self,
        effect: Effect,
        messages: &MessageSender,
        filter: &mut MessageFilter,
        writer: &mut MemoryWriter,
        dumps: &mut FuturesUnordered<Dumping>,
    ) {
        match effect {
            Effect::Persist(memory) => {
                if let Err(failed) = writer.write(memory).await {
                    let what = format!("what schedules have done cannot be kept: {failed}");
                    self.context.problem(ProblemType::ScheduleMemoryUnusable, what);
                }
            }
            Effect::Dump(dump) => dumps.push(self.dump(dump)),
            Effect::Recover(dump) => {
                let dumper = Arc::clone(&self.dumper);
                dumps.push(Box::pin(async move { (dump.id, dumper.recover(&dump).await) }));
            }
            Effect::Report(report) => self.report(report, messages, filter),
            Effect::Answer(answer) => messages.answer(answer),
        }
    }

    /// Counts a result, logs it and has an event made of it, as far as the filter admits that.
    fn report(&self, report: Report, messages: &MessageSender, filter: &mut MessageFilter) {
        self.context.state.reported(&report);
        let Admission::New { in_log, in_events } = filter.admit(&report, now()) else { return };
        if in_log {
            log(&report);
        }
        let has_event = in_events && messages.report(report);
        self.context.state.left_out(u64::from(!has_event), u64::from(!in_log));
    }

    fn dump(&self, dump: Dump) -> Dumping {
        let (dumper, timings, directory) =
            (Arc::clone(&self.dumper), self.timings.clone(), self.directory.clone());
        Box::pin(async move {
            let began = now();
            let ended = dumper.make(&dump).await;
            timings.checkpointed(now().saturating_duration_since(began));
            if let Some(file) = ended.file().map(|file| directory.join(file)) {
                let timings = timings.clone();
                // Beside all else: it is only for the figures.
                tokio::task::spawn_blocking(move || timings.made(&file));
            }
            (dump.id, ended.outcome())
        })
    }

    /// What the containers of this node use.
    async fn usage(&self) -> Option<BTreeMap<ContainerId, Usage>> {
        let usage = match self.dumper.kubelet.resource_usage().await {
            Ok(usage) => usage,
            Err(error) => {
                let what = format!("what containers use is not known: {}", chain(&error));
                self.context.problem(ProblemType::UsageUnknown, what);
                return None;
            }
        };
        let read = clock::now();
        let pods = self.pods.pods(now())?;
        let mut known = BTreeMap::new();
        for pod in &pods {
            for container in &pod.containers {
                let key = kubelet::ContainerKey {
                    namespace: pod.namespace.clone(),
                    pod: pod.name.clone(),
                    container: container.name.clone(),
                };
                let Some(used) = usage.get(&key) else { continue };
                // The kubelet measures now and then, and says when.
                let age = used.at.map(|at| read.wall.duration_since(at));
                let age = age.and_then(|age| Duration::try_from(age).ok()).unwrap_or_default();
                let at = read.uptime.saturating_sub(age);
                let usage = Usage { cpu_seconds: used.cpu_seconds, memory_bytes: used.memory_bytes, at };
                known.insert(pod.container(&container.name), usage);
            }
        }
        Some(known)
    }
}

fn log(report: &Report) {
    let Report { request, container, result, count } = report;
    let container = container.as_ref().map(ToString::to_string);
    let (schedule, trigger) = (request.schedule.to_string(), request.trigger.name());
    let (container, reason) = (container.unwrap_or_default(), result.name());
    match result {
        RunResult::Done(file) => tracing::info!(schedule, trigger, container, file, "checkpoint made"),
        RunResult::Retrying(error)
        | RunResult::MayBeFrozen(error)
        | RunResult::Failed(error)
        | RunResult::InsufficientStorage(error)
        | RunResult::QuotaExceeded(error) => {
            tracing::warn!(schedule, trigger, container, reason, error, "checkpoint not made");
        }
        RunResult::WouldDump | RunResult::Skipped(_) => {
            tracing::info!(schedule, trigger, container, containers = count, reason, "no checkpoint");
        }
    }
}

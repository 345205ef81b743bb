//! `checkpoint-keeper gc`: one pass over a directory. Going on and on is `watch`'s part.

use std::io::IsTerminal;
use std::path::Path;

use checkpoint_keeper_core::name::{FileName, NameKind};
use checkpoint_keeper_core::plan::{self, Plan, Snapshot};
use checkpoint_keeper_core::pods::{LookupResult, RequestBudget};
use checkpoint_keeper_core::policy::{Labels, Mode, PolicySet};
use checkpoint_keeper_core::policy_lint;
use checkpoint_keeper_node::catalog::Catalog;
use checkpoint_keeper_node::clock::Now;
use checkpoint_keeper_node::collector::Collector;
use checkpoint_keeper_node::problem::Problem;
use checkpoint_keeper_node::store::{Removal, Store};
use checkpoint_keeper_node::sweeper;
use indicatif::{ProgressBar, ProgressStyle};

use super::policy_files::{self, PolicyFiles};
use crate::cli::{GcArguments, Output};
use crate::cluster::{Cluster, ConnectError};
use crate::failure::{Failure, say};
use crate::output::{self, report::Report};

/// Collects once, or for as long as wanted.
pub fn run(arguments: &GcArguments) -> Result<(), Failure> {
    let mut files = PolicyFiles::new(&arguments.policies, &arguments.directory);
    let loaded = files.load()?;
    policy_files::say_all(&loaded);
    let policies = &loaded.policies;
    let mut cluster = connect(arguments)?;
    say_what_orphans_need(arguments, policies);
    if let Some(state) = arguments.state.as_deref().filter(|state| names_an_archive(state)) {
        return Err(Failure::Usage(vec![format!("--state {}: names an archive", state.display())]));
    }
    if let Some(state) = &arguments.state {
        Catalog::check(state).map_err(|error| Failure::Usage(vec![format!("--state: {error}")]))?;
    }
    let store = Store::open(&arguments.directory).map_err(anyhow::Error::new)?;
    if !arguments.dry_run {
        store.lock().map_err(anyhow::Error::new)?;
    }
    let now = Now::read();
    let mut collector = Collector::new(store, arguments.settle);
    let mut failures = 0;
    match &arguments.state {
        // Its watch lock and its repairs would be writing.
        Some(state) if arguments.dry_run => collector.recall_from(state),
        Some(state) => {
            for problem in collector.remember_in(state.clone()) {
                say("error", problem);
                failures += 1;
            }
        }
        None => {}
    }
    collector.set_node_labels(node_labels(arguments));
    if arguments.trust_clock {
        collector.trust_clock();
    }
    if cluster.is_some() {
        collector.set_cluster(arguments.node_name.is_some());
        if policies.goes_by_time() {
            collector.need_server_clock();
        }
        // Whose a namespace is that policies are written for, the API has to say before they govern.
        let namespaces = policies.retention.iter().filter_map(|policy| policy.namespace.as_deref());
        namespaces.for_each(|namespace| collector.invalidate_namespace(namespace));
    }
    if arguments.watch {
        return super::watch::run(collector, policies, files, cluster, arguments);
    }
    for problem in look(&mut collector, now) {
        say(if problem.is_failure() { "error" } else { "warning" }, &problem);
        failures += u64::from(problem.is_failure());
    }
    let mut now = now;
    if let Some(cluster) = &mut cluster {
        // What time it is comes first: it dates the archives, and so says which pods they may be of.
        ask(&mut collector, cluster, RequestBudget::EVERYTHING);
        collector.begin_lookups(policies);
        ask(&mut collector, cluster, RequestBudget::EVERYTHING);
        // That took its time.
        now = Now::read();
    }
    let mut wall = arguments.now.unwrap_or(now.wall);
    let (mut snapshot, mut problems) = collector.snapshot(now);
    let mut plan = plan::plan(&snapshot, policies, wall);
    let is_late = plan.unconfirmed_orphans(wall).next().is_some();
    if let Some(cluster) = cluster.as_mut().filter(|_| is_late) {
        // So many were asked that the first answers are too old by now to delete anything for.
        collector.begin_lookups(policies);
        collector.confirm(&snapshot, &plan, policies, wall);
        ask(&mut collector, cluster, RequestBudget { idle: 0, ..RequestBudget::EVERYTHING });
        now = Now::read();
        wall = arguments.now.unwrap_or(now.wall);
        (snapshot, problems) = collector.snapshot(now);
        plan = plan::plan(&snapshot, policies, wall);
    }
    problems.iter().for_each(|problem| say("warning", problem));
    for policy in &plan.unjudged_storage {
        say("warning", format!("{policy} has a nodeSelector; without --node-labels it does nothing here"));
    }
    for found in policy_lint::without_effect_here(policies, &snapshot) {
        say("warning", found);
    }
    let mut report = Report::new(&collector, &snapshot, &plan, wall);
    report.add_differences(&snapshot, &differences(&snapshot, policies, wall, &plan));
    if !arguments.dry_run {
        let deletions = collector.mark_for_deletion(&snapshot, &plan);
        let store = std::sync::Arc::clone(collector.store());
        let bar = progress_bar("deleting");
        bar.set_length(deletions.len() as u64);
        sweeper::sweep(&store, deletions, |outcome| {
            bar.inc(1);
            let file = &outcome.deletion.archive.file;
            match &outcome.removal {
                Removal::Failed(error) => {
                    bar.suspend(|| say("error", format!("cannot delete {file}: {error}")));
                }
                Removal::Pinned => {
                    bar.suspend(|| say("note", format!("{file} was pinned meanwhile and stays")));
                }
                Removal::InUse => {
                    bar.suspend(|| say("note", format!("{file} is open for writing and stays")));
                }
                Removal::Changed => {
                    bar.suspend(|| say("note", format!("{file} changed meanwhile and stays")));
                }
                Removal::DirectoryMoved => {
                    bar.suspend(|| {
                        say("warning", format!("{file} stays: the directory was moved meanwhile"));
                    });
                }
                Removal::Removed | Removal::AlreadyGone | Removal::Withdrawn => {}
            }
            report.note(&outcome);
            collector.finish(&outcome, now);
        });
        bar.finish_and_clear();
        if let Some(error) = store.no_leases() {
            say("note", Problem::NoLeases(error.to_string()));
        }
        for problem in collector.flush_catalog() {
            say("error", problem);
            failures += 1;
        }
    }
    report.totals.failures += failures;
    match arguments.output {
        Output::Json => output::json::report(&report)?,
        Output::Text => output::text::report(&report, arguments.dry_run)?,
    }
    if report.totals.failures > 0 { Err(Failure::Named) } else { Ok(()) }
}

/// This node's labels, where they were given.
pub(super) fn node_labels(arguments: &GcArguments) -> Option<Labels> {
    arguments.node_labels.as_ref().map(|labels| labels.iter().cloned().collect())
}

/// The cluster to ask, where one was given.
fn connect(arguments: &GcArguments) -> Result<Option<Cluster>, Failure> {
    let node_name = arguments.node_name.clone();
    let usage =
        |option: String| move |error: ConnectError| Failure::Usage(vec![format!("{option}: {error}")]);
    if let Some(path) = &arguments.kubeconfig {
        let option = format!("--kubeconfig {}", path.display());
        Cluster::new(Some(path), node_name).map(Some).map_err(usage(option))
    } else if arguments.in_cluster {
        Cluster::new(None, node_name).map(Some).map_err(usage("--in-cluster".to_owned()))
    } else {
        Ok(None)
    }
}

/// Says what keeps the orphan rule from deleting anything.
fn say_what_orphans_need(arguments: &GcArguments, policies: &PolicySet) {
    let mut rules = policies.retention.iter().filter_map(|policy| policy.orphans).peekable();
    if rules.peek().is_none() {
    } else if arguments.kubeconfig.is_none() && !arguments.in_cluster {
        say("note", "without a cluster nothing is known of pods: the orphan rule deletes nothing");
    } else if !arguments.watch && arguments.state.is_none() && rules.any(|rule| !rule.grace.is_zero()) {
        say(
            "note",
            "without --state nothing is remembered from one pass to the next: a grace period of orphans never ends",
        );
    }
}

/// Asks the cluster what there is to ask in this round.
fn ask(collector: &mut Collector, cluster: &mut Cluster, budget: RequestBudget) {
    let mut not_asked = 0;
    loop {
        let questions = collector.lookups(budget);
        if questions.is_empty() {
            break;
        }
        let answers = cluster.ask(questions);
        not_asked += answers.iter().filter(|answer| answer.finding == LookupResult::NotAsked).count();
        collector.learn(answers).iter().for_each(|problem| say("warning", problem));
    }
    if not_asked > 0 {
        say("warning", format!("the API does not answer: {not_asked} more questions were not asked"));
    }
}

/// Whether a path ends as archives and their markers do: a catalog there would be taken for one.
fn names_an_archive(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| FileName::new(name.as_encoded_bytes()));
    name.is_some_and(|name| name.kind() != NameKind::Other)
}

/// Looks at everything, and shows how far it is where that takes long.
fn look(collector: &mut Collector, now: Now) -> Vec<Problem> {
    let bar = progress_bar("reading archives");
    let problems = collector.look(now, &mut |done, total| {
        // Every so often: drawing must not cost more than reading.
        if done % 64 == 0 {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        }
    });
    bar.finish_and_clear();
    problems
}

/// A bar on a terminal, nothing elsewhere.
fn progress_bar(what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}");
    let bar = ProgressBar::no_length().with_message(what);
    style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
}

/// What each policy in dry-run mode would change.
fn differences(
    snapshot: &Snapshot,
    policies: &PolicySet,
    now: jiff::Timestamp,
    plan: &Plan,
) -> Vec<(String, plan::Difference)> {
    let mut ids: Vec<_> = policies
        .retention
        .iter()
        .filter(|policy| policy.mode == Mode::DryRun)
        .map(|policy| &policy.id)
        .collect();
    // An object of several parts is one policy to whoever wrote it.
    ids.dedup_by_key(|id| id.to_string());
    ids.into_iter().map(|id| (id.to_string(), plan::difference(snapshot, policies, now, plan, id))).collect()
}

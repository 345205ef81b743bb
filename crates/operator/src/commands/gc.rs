//! `checkpoint-keeper gc`: one pass over a directory. Going on and on is `watch`'s part.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::{ErrorKind, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use checkpoint_keeper_api::CheckpointRestoreOperator;
use checkpoint_keeper_api::effective::Seen;
use checkpoint_keeper_api::legacy_migration::in_words;
use checkpoint_keeper_api::manifest::Loaded;
use checkpoint_keeper_core::engine::config::EngineConfig;
use checkpoint_keeper_core::engine::file::Removal;
use checkpoint_keeper_core::engine::problem::Problem;
use checkpoint_keeper_core::engine::{ClusterSettings, DeletionTiming, NodePods, Progress, Settings, View};
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::pods::{LookupResult, RequestBudget};
use checkpoint_keeper_core::policy::{Labels, PolicySet};
use checkpoint_keeper_core::policy_lint;
use checkpoint_keeper_core::report::{Explanation, Report, differences};
use checkpoint_keeper_node::catalog::Catalog;
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::driver::{CatalogUse, Driver, Event, UNHURRIED};
use checkpoint_keeper_node::store::Store;
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;

use super::consent::{self, Consent};
use super::deletion_log::{DeletionLog, why_it_stays};
use super::output_files::refuse_archive;
use super::policy_files::{self, PolicyFiles};
use crate::cli::{GcArguments, Output};
use crate::failure::{Failure, say};
use crate::output::{self, text::Fit};
use checkpoint_keeper_runtime::cluster::{Cluster, ConnectError};

/// Collects once, or for as long as wanted.
pub fn run(arguments: &GcArguments) -> Result<(), Failure> {
    let mut files = PolicyFiles::new(&arguments.policies, &arguments.directory);
    let loaded = files.load()?;
    policy_files::say_all(&loaded);
    say_differences(&loaded, arguments)?;
    let policies = &loaded.policies;
    let cluster = connect(arguments)?;
    say_what_orphans_need(arguments, policies);
    if let Some(state) = &arguments.state {
        refuse_archive("--state", state)?;
        Catalog::check(state).map_err(|error| Failure::Usage(vec![format!("--state: {error}")]))?;
    }
    let mut deletions = DeletionLog::new(arguments)?;
    let store = Store::open(&arguments.directory).map_err(anyhow::Error::new)?;
    if !arguments.only_shows() {
        store.lock().map_err(anyhow::Error::new)?;
    }
    let catalog = match &arguments.state {
        None => CatalogUse::None,
        // Its lock and its repairs would be writing.
        Some(state) if arguments.only_shows() => CatalogUse::ReadOnly(state.clone()),
        Some(state) => CatalogUse::File(state.clone()),
    };
    let (mut driver, problems) = Driver::new(store, settings(arguments, cluster.is_some()), catalog);
    problems.iter().for_each(|problem| say("error", problem));
    let config = {
        let (node_labels, asks) = (node_labels(arguments), cluster.is_some());
        move |policies: PolicySet| {
            // Before a namespaced policy governs, its namespace is looked up: it may be a new one of that name.
            let policies_by_namespace =
                Arc::new(if asks { policies_by_namespace(&policies) } else { BTreeMap::new() });
            EngineConfig {
                node_labels: node_labels.clone(),
                policies_by_namespace,
                ..EngineConfig::policies(policies)
            }
        }
    };
    let not_asked = Arc::new(AtomicUsize::new(0));
    if let Some(mut cluster) = cluster {
        let not_asked = Arc::clone(&not_asked);
        driver.ask_by(Box::new(move |lookups| {
            let answers = cluster.ask(lookups);
            let count = answers.iter().filter(|answer| answer.result == LookupResult::NotAsked).count();
            not_asked.fetch_add(count, Ordering::Relaxed);
            answers
        }));
    }
    driver.configure(config(policies.clone()));
    if arguments.watch {
        return super::watch::run(driver, files, loaded.policies, config, deletions, arguments);
    }
    let mut said = Said { texts: HashSet::new(), failures: problems.len() as u64 };
    let mut view = make_plan(&mut driver, &mut said)?;
    let not_asked = not_asked.load(Ordering::Relaxed);
    if not_asked > 0 {
        say("warning", format!("the API does not answer: {not_asked} more lookups were not made"));
    }
    if let Some(file) = &arguments.explain {
        return explain(&view, file, arguments.output);
    }
    for policy in &view.plan.unjudged_storage {
        say("warning", format!("{policy} has a nodeSelector; without --node-labels it does nothing here"));
    }
    for found in policy_lint::without_effect_here(policies, &view.snapshot) {
        say("warning", found);
    }
    let mut report = report_of(&driver, &view, policies, arguments);
    if !arguments.only_shows() {
        let consent = loop {
            match consent::obtain(&report, arguments.yes) {
                // While the user was deciding, the directory and the cluster may have changed.
                Ok(Consent::Answered) => {
                    let shown = std::mem::replace(&mut view, make_plan(&mut driver, &mut said)?);
                    report = report_of(&driver, &view, policies, arguments);
                    if deletions_of(&view).is_subset(&deletions_of(&shown)) {
                        break Ok(());
                    }
                    say("note", "more is to be deleted by now than was shown");
                }
                Ok(Consent::NotNeeded) => break Ok(()),
                Err(refused) => break Err(refused),
            }
        };
        if consent.is_ok() {
            said.failures += delete(&mut driver, &mut deletions, &mut report);
            if let Some(error) = driver.store().no_leases() {
                say("note", Problem::NoLeases(error.to_string()));
            }
        }
        // What was read is remembered also where nothing may be deleted.
        driver.flush(|event| {
            if let Event::Catalog(problem) = event {
                say("error", problem);
                said.failures += 1;
            }
        });
        consent?;
    }
    report.totals.failures += said.failures;
    match arguments.output {
        Output::Json => output::json::report(&report)?,
        Output::Text => output::text::report(&report, arguments.only_shows(), Fit::Terminal)?,
        Output::Wide => output::text::report(&report, arguments.only_shows(), Fit::Everything)?,
    }
    if report.totals.failures > 0 { Err(Failure::AlreadyReported) } else { Ok(()) }
}

/// Explains one verdict.
fn explain(view: &View, file: &str, output: Output) -> Result<(), Failure> {
    let explanation =
        Explanation::of(view, file).map_err(|error| Failure::Usage(vec![format!("--explain: {error}")]))?;
    match output {
        Output::Json => output::json::explanation(&explanation)?,
        Output::Text | Output::Wide => output::text::explanation(&explanation)?,
    }
    Ok(())
}

fn settings(arguments: &GcArguments, has_cluster: bool) -> Settings {
    let cluster = ClusterSettings {
        budget: if arguments.watch { UNHURRIED } else { RequestBudget::EVERYTHING },
        node_pods: if arguments.node_name.is_some() { NodePods::Asked } else { NodePods::Unknown },
        eager: false,
    };
    Settings {
        settle: arguments.settle,
        deletion_timing: if arguments.watch { DeletionTiming::AtOnce } else { DeletionTiming::WhenTold },
        trusts_clock: arguments.trust_clock,
        plan_at: arguments.now,
        cluster: has_cluster.then_some(cluster),
        ..Settings::default()
    }
}

/// What was said to be wrong, each once.
struct Said {
    texts: HashSet<String>,
    /// How much of it is a failure.
    failures: u64,
}

/// Looks at everything, asks what there is to ask, and says what is wrong. Returns the last plan.
fn make_plan(driver: &mut Driver, said: &mut Said) -> Result<Arc<View>, Failure> {
    let bar = progress_bar("reading archives");
    let mut last = None;
    driver.plan(|event| match event {
        Event::Reading(Progress { done, total }) => {
            bar.set_length(total as u64);
            bar.set_position(done as u64);
        }
        Event::Problem(problem) => {
            let text = problem.to_string();
            if said.texts.insert(text.clone()) {
                said.failures += u64::from(problem.is_failure());
                bar.suspend(|| say(if problem.is_failure() { "error" } else { "warning" }, text));
            }
        }
        Event::Planned(view) => last = Some(Arc::clone(view)),
        _ => {}
    });
    bar.finish_and_clear();
    last.ok_or_else(|| anyhow::anyhow!("no plan was made").into())
}

/// What a plan is, for a person or a program.
fn report_of(driver: &Driver, view: &View, policies: &PolicySet, arguments: &GcArguments) -> Report {
    let View { snapshot, plan, .. } = view;
    let wall = arguments.now.unwrap_or_else(Timestamp::now);
    let directory = driver.store().path().display().to_string();
    let mut report = Report::new(directory, snapshot, plan, wall);
    report.add_differences(snapshot, &differences(snapshot, policies, wall, plan, usize::MAX));
    report
}

/// The archives that a plan deletes, each with what tells it from another file of its name.
fn deletions_of(view: &View) -> BTreeSet<(&FileName, u64, Timestamp)> {
    let archives = view.plan.deletions().map(|place| &view.snapshot.archives[place]);
    archives.map(|archive| (&archive.file, archive.size, archive.changed)).collect()
}

/// Carries the plan out, and reports each deletion when it happens. Returns how many lines about them could not be
/// written.
fn delete(driver: &mut Driver, deletions: &mut DeletionLog, report: &mut Report) -> u64 {
    let bar = progress_bar("deleting");
    bar.set_length(report.totals.delete_archives);
    let mut unwritten = 0;
    let mut is_first_error = true;
    driver.carry_out_plan(|event| {
        let Event::Finished(outcome) = event else { return };
        bar.inc(1);
        report.note(outcome);
        bar.suspend(|| {
            if !matches!(outcome.removal, Removal::Removed) {
                if let Some((kind, why)) = why_it_stays(outcome) {
                    say(kind, why);
                }
                return;
            }
            // Deleting goes on when a line cannot be written. A closed pipe is no error: its reader needs no more.
            match deletions.deleted(outcome) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(error) => {
                    if std::mem::take(&mut is_first_error) {
                        say("error", format!("cannot write the output: {error}"));
                    }
                    unwritten += 1;
                }
            }
        });
    });
    bar.finish_and_clear();
    unwritten + deletions.audit_failures
}

/// The policies of each namespace, by their names: in a file they have no UIDs.
fn policies_by_namespace(policies: &PolicySet) -> BTreeMap<String, BTreeSet<String>> {
    let mut by_namespace: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for policy in &policies.retention {
        if let Some(namespace) = &policy.namespace {
            by_namespace.entry(namespace.clone()).or_default().insert(policy.id.to_string());
        }
    }
    by_namespace
}

/// This node's labels, where they were given.
fn node_labels(arguments: &GcArguments) -> Option<Labels> {
    arguments.node_labels.as_ref().map(|labels| labels.iter().cloned().collect())
}

/// The cluster to ask, where one was given.
fn connect(arguments: &GcArguments) -> Result<Option<Cluster>, Failure> {
    let node_name = arguments.node_name.clone();
    let usage =
        |option: String| move |error: ConnectError| Failure::Usage(vec![format!("{option}: {error}")]);
    if let Some(path) = &arguments.kubeconfig {
        let option = format!("--kubeconfig {}", path.display());
        Cluster::new(Some(path), node_name, clock::now).map(Some).map_err(usage(option))
    } else if arguments.in_cluster {
        Cluster::new(None, node_name, clock::now).map(Some).map_err(usage("--in-cluster".to_owned()))
    } else {
        Ok(None)
    }
}

/// Says what each object of the older operator means here that it does not mean there, where that was asked; a dry run
/// that was not asked says that it can be. What a program reads is the report alone.
fn say_differences(loaded: &Loaded, arguments: &GcArguments) -> Result<(), Failure> {
    let parsed = loaded.objects.legacy.iter().filter_map(|object| match object {
        Seen::Parsed(object) => Some(object),
        Seen::Unparsable(_) => None,
    });
    let objects: Vec<&CheckpointRestoreOperator> = parsed.collect();
    if !arguments.from_older_operator {
        // What runs by itself, as cron runs it, says no more than it did.
        if !objects.is_empty() && arguments.dry_run {
            say(
                "note",
                "objects of the older operator mean other things here: --from-older-operator says which",
            );
        }
        return Ok(());
    }
    let mut lines: Vec<String> =
        objects.iter().flat_map(|object| in_words(object, checkpoint_keeper_api::NAMESPACE)).collect();
    lines.push(
        if objects.is_empty() {
            "there are no objects of the older operator"
        } else {
            "gc, which knows no namespace of an operator, goes by the object for the whole directory:"
        }
        .to_owned(),
    );
    if arguments.output == Output::Json {
        lines.iter().for_each(|line| say("note", line));
        return Ok(());
    }
    Ok(output::text::lines(&lines)?)
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

/// A bar on a terminal, nothing elsewhere.
fn progress_bar(what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {eta}");
    let bar = ProgressBar::no_length().with_message(what);
    style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style))
}

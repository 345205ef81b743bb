//! What a run of `gc` begins with: its options are checked, its policies read, its directory and catalog open, and the
//! cluster connected, where one was given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use checkpoint_keeper_api::CheckpointRestoreOperator;
use checkpoint_keeper_api::effective::Seen;
use checkpoint_keeper_api::legacy_migration::in_words;
use checkpoint_keeper_api::manifest::Loaded;
use checkpoint_keeper_core::engine::config::EngineConfig;
use checkpoint_keeper_core::engine::{ClusterSettings, DeletionTiming, NodePods, Settings};
use checkpoint_keeper_core::pods::{LookupResult, RequestBudget};
use checkpoint_keeper_core::policy::{Labels, PolicySet};
use checkpoint_keeper_node::catalog::{Catalog, CatalogProblem};
use checkpoint_keeper_node::clock;
use checkpoint_keeper_node::driver::{CatalogUse, Driver, UNHURRIED};
use checkpoint_keeper_node::store::Store;

use crate::cli::{GcArguments, Output};
use crate::commands::deletion_log::DeletionLog;
use crate::commands::output_files::refuse_archive;
use crate::commands::policy_files::{self, PolicyFiles};
use crate::failure::{Failure, say};
use crate::output;
use checkpoint_keeper_runtime::cluster::{Cluster, ConnectError};

/// A run that may begin.
pub(super) struct Session<'a> {
    pub(super) arguments: &'a GcArguments,
    pub(super) files: PolicyFiles,
    pub(super) policies: PolicySet,
    /// Goes by these policies already.
    pub(super) driver: Driver,
    pub(super) deletions: DeletionLog,
    /// What is wrong with the catalog, which was said.
    pub(super) catalog_problems: Vec<CatalogProblem>,
    /// How many lookups were not made, as the API answered none of those before.
    pub(super) unmade_lookups: Arc<AtomicUsize>,
}

impl<'a> Session<'a> {
    /// Opens all that a run needs. Errors: the options or the policies are wrong, or the directory cannot be used.
    pub(super) fn prepare(arguments: &'a GcArguments) -> Result<Self, Failure> {
        let mut files = PolicyFiles::new(&arguments.policies, &arguments.directory);
        let loaded = files.load()?;
        policy_files::say_all(&loaded);
        say_differences(&loaded, arguments)?;
        let cluster = connect(arguments)?;
        say_what_orphans_need(arguments, &loaded.policies);
        if let Some(state) = &arguments.state {
            refuse_archive("--state", state)?;
            Catalog::check(state).map_err(|error| Failure::Usage(vec![format!("--state: {error}")]))?;
        }
        let deletions = DeletionLog::new(arguments)?;
        let store = Store::open(&arguments.directory).map_err(anyhow::Error::new)?;
        if !arguments.only_shows() {
            store.lock().map_err(anyhow::Error::new)?;
        }
        let (mut driver, catalog_problems) = Driver::new(store, settings(arguments), catalog_use(arguments));
        catalog_problems.iter().for_each(|problem| say("error", problem));
        let unmade_lookups = Arc::new(AtomicUsize::new(0));
        if let Some(cluster) = cluster {
            look_up_in(cluster, &mut driver, &unmade_lookups);
        }
        let policies = loaded.policies;
        driver.configure(engine_config(arguments)(policies.clone()));
        Ok(Self { arguments, files, policies, driver, deletions, catalog_problems, unmade_lookups })
    }
}

/// Makes of policies what the engine goes by.
pub(super) fn engine_config(arguments: &GcArguments) -> impl Fn(PolicySet) -> EngineConfig + Send + use<> {
    let node_labels: Option<Labels> =
        arguments.node_labels.as_ref().map(|labels| labels.iter().cloned().collect());
    let has_cluster = arguments.has_cluster();
    move |policies| {
        // Before a namespaced policy governs, its namespace is looked up: it may be a new one of that name.
        let by_namespace = if has_cluster { policies_by_namespace(&policies) } else { BTreeMap::new() };
        EngineConfig {
            node_labels: node_labels.clone(),
            policies_by_namespace: Arc::new(by_namespace),
            ..EngineConfig::policies(policies)
        }
    }
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

fn settings(arguments: &GcArguments) -> Settings {
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
        cluster: arguments.has_cluster().then_some(cluster),
        ..Settings::default()
    }
}

fn catalog_use(arguments: &GcArguments) -> CatalogUse {
    match &arguments.state {
        None => CatalogUse::None,
        // Its lock and its repairs would be writing.
        Some(state) if arguments.only_shows() => CatalogUse::ReadOnly(state.clone()),
        Some(state) => CatalogUse::File(state.clone()),
    }
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

/// Has lookups made in the cluster, and counts those that are not made.
fn look_up_in(mut cluster: Cluster, driver: &mut Driver, unmade_lookups: &Arc<AtomicUsize>) {
    let unmade_lookups = Arc::clone(unmade_lookups);
    driver.ask_by(Box::new(move |lookups| {
        let answers = cluster.ask(lookups);
        let unmade = answers.iter().filter(|answer| answer.result == LookupResult::NotAsked).count();
        unmade_lookups.fetch_add(unmade, Ordering::Relaxed);
        answers
    }));
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
    } else if !arguments.has_cluster() {
        say("note", "without a cluster nothing is known of pods: the orphan rule deletes nothing");
    } else if !arguments.watch && arguments.state.is_none() && rules.any(|rule| !rule.grace.is_zero()) {
        say(
            "note",
            "without --state nothing is remembered from one pass to the next: a grace period of orphans never ends",
        );
    }
}

//! `usage`: what checkpoints use, by node, namespace or workload.

use std::collections::BTreeMap;

use anstyle::Style;
use checkpoint_keeper_api::{ContainerCheckpoint, NodeCheckpointStore};
use checkpoint_keeper_core::quantity::human;
use checkpoint_keeper_terminal::say::say;
use checkpoint_keeper_terminal::table::{Column, Kind};
use kube::ResourceExt;
use kube::api::ListParams;
use serde::Serialize;
use serde_json::json;

use crate::cli::{By, Usage};
use crate::failure::Failure;
use crate::kinds::status;
use crate::quotas;
use crate::session::Session;
use crate::show::{bar, count, data, figure, line, name, table};

/// What one node, namespace or workload uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Used {
    archives: u64,
    bytes: u64,
}

/// Shows what checkpoints use.
pub async fn run(session: &Session, arguments: &Usage) -> Result<(), Failure> {
    // One that is not named is the context's, which says nothing of what the whole cluster uses.
    let is_one = session.is_namespace_given && !arguments.all_namespaces;
    let only = is_one.then_some(session.namespace.as_str());
    let left_out = |more: u64| {
        (more > 0).then(|| format!("the smallest of some nodes' namespaces are left out ({more} in all)"))
    };
    // By workload the objects are added up, which are there as soon as their archives are.
    let stores = match arguments.by {
        By::Workload => Vec::new(),
        By::Node | By::Namespace => stores(session).await?,
    };
    let (title, used, incomplete) = match (arguments.by, only) {
        (By::Node, None) => ("NODE", by_node(&stores), None),
        (By::Node, Some(only)) => {
            let (used, more) = of_namespace(&stores, only);
            ("NODE", used, left_out(more))
        }
        (By::Namespace, Some(only)) => {
            let (nodes, more) = of_namespace(&stores, only);
            let sum = nodes.into_values().reduce(|one, other| Used {
                archives: one.archives + other.archives,
                bytes: one.bytes + other.bytes,
            });
            ("NAMESPACE", sum.map(|sum| (only.to_owned(), sum)).into_iter().collect(), left_out(more))
        }
        (By::Namespace, None) => {
            let (used, more) = by_namespace(&stores);
            let status = stores.iter().filter_map(|store| store.status.as_ref());
            let unknown: u64 = status.map(|status| whole(status.unknown)).sum();
            let unknown = (unknown > 0).then(|| {
                let archives = count(usize::try_from(unknown).unwrap_or(usize::MAX), "archive");
                format!("{archives} of unknown pods belong to no namespace")
            });
            let left_out: Vec<String> = left_out(more).into_iter().chain(unknown).collect();
            ("NAMESPACE", used, (!left_out.is_empty()).then(|| left_out.join("; ")))
        }
        (By::Workload, _) => {
            let namespace = (!arguments.all_namespaces).then_some(session.namespace.as_str());
            let objects = session
                .list::<ContainerCheckpoint>(namespace, &ListParams::default())
                .await
                .map_err(|error| Failure::of_request("list the checkpoints", &error))?;
            let unlisted: i64 = session
                .list_if_allowed::<NodeCheckpointStore>(None)
                .await
                .unwrap_or_default()
                .iter()
                .filter_map(|store| store.status.as_ref().map(|status| status.unlisted))
                .sum();
            let incomplete = (unlisted > 0)
                .then(|| format!("{unlisted} archives of the cluster have no ContainerCheckpoint"));
            ("WORKLOAD", by_workload(&objects, arguments.all_namespaces), incomplete)
        }
    };
    let quotas = match arguments.by {
        By::Node => Vec::new(),
        By::Workload if !arguments.all_namespaces => quotas::read(session, Some(&session.namespace)).await,
        By::Namespace => quotas::read(session, only).await,
        By::Workload => quotas::read(session, None).await,
    };
    if let Some(format) = arguments.output {
        let all = json!({
            "by": title.to_lowercase(), "usage": used, "incomplete": incomplete, "quotas": quotas,
        });
        return data(&all, format);
    }
    if used.is_empty() {
        let namespace = match arguments.by {
            By::Workload if !arguments.all_namespaces => Some(session.namespace.as_str()),
            _ => only,
        };
        let of = namespace.map(|name| format!(" of the namespace {name}")).unwrap_or_default();
        let what = match (arguments.by, &incomplete) {
            (By::Workload, None) => format!("there are no checkpoints{of}"),
            (By::Workload, Some(_)) => format!("no ContainerCheckpoints{of} are there"),
            _ if stores.iter().all(|store| store.status.is_none()) => {
                "no node has reported yet; `kubectl checkpoints doctor` says which have an agent".to_owned()
            }
            _ => format!("the nodes have reported no checkpoints{of}; {REPORTED}"),
        };
        say("note", what);
        if let Some(incomplete) = incomplete {
            say("note", format!("incomplete: {incomplete}"));
        }
        return quotas::show(&quotas);
    }
    let mut rows: Vec<(&String, &Used)> = used.iter().collect();
    rows.sort_by_key(|(name, used)| (std::cmp::Reverse(used.bytes), *name));
    let most = rows.first().map_or(0, |(_, used)| used.bytes);
    let row = |(name, used): &(&String, &Used)| {
        let cells =
            vec![(*name).clone(), used.archives.to_string(), human(used.bytes), bar(used.bytes, most)];
        (Style::new(), cells)
    };
    let columns = [name(title), figure("ARCHIVES"), figure("SIZE"), Column::optional("", Kind::Word)];
    table(&columns, rows.iter().map(row).collect())?;
    let (archives, bytes) = rows
        .iter()
        .fold((0, 0), |(archives, bytes), (_, used)| (archives + used.archives, bytes + used.bytes));
    line("")?;
    line(&format!(
        "{}, {}",
        count(usize::try_from(archives).unwrap_or(usize::MAX), "archive"),
        human(bytes)
    ))?;
    if arguments.by != By::Workload {
        say("note", format!("this is as the nodes last reported; {REPORTED}"));
    }
    if let Some(incomplete) = incomplete {
        say("note", format!("incomplete: {incomplete}"));
    }
    quotas::show(&quotas)
}

/// What is to be known of figures that are added up from the nodes' reports. A report has no time: one of a node of which
/// nothing changes is not written again.
const REPORTED: &str = "what is new is reported within a minute or so";

async fn stores(session: &Session) -> Result<Vec<NodeCheckpointStore>, Failure> {
    session.list(None, &ListParams::default()).await.map_err(|error| {
        let failure = Failure::of_request("list the nodes' stores", &error);
        match failure {
            Failure::Failed { what, .. } => Failure::with_hint(
                what,
                "`usage --by workload` adds up what you may see of your own namespace",
            ),
            other => other,
        }
    })
}

fn whole(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn by_node(stores: &[NodeCheckpointStore]) -> BTreeMap<String, Used> {
    let used = |store: &NodeCheckpointStore| {
        let status = store.status.as_ref()?;
        Some((store.name_any(), Used { archives: whole(status.archives), bytes: status.size.value() }))
    };
    stores.iter().filter_map(used).collect()
}

/// What one namespace uses on each node, and how many namespaces are not named by some node that does not name it.
fn of_namespace(stores: &[NodeCheckpointStore], namespace: &str) -> (BTreeMap<String, Used>, u64) {
    let (mut all, mut more) = (BTreeMap::new(), 0);
    for store in stores {
        let Some(status) = &store.status else { continue };
        match status.namespaces.iter().find(|one| one.name == namespace) {
            Some(one) => {
                let used = Used { archives: whole(one.archives), bytes: one.size.value() };
                all.insert(store.name_any(), used);
            }
            None => more += whole(status.more_namespaces),
        }
    }
    (all, more)
}

/// What each namespace uses, and how many are not named by some node.
fn by_namespace(stores: &[NodeCheckpointStore]) -> (BTreeMap<String, Used>, u64) {
    let (mut all, mut more) = (BTreeMap::<String, Used>::new(), 0);
    for status in stores.iter().filter_map(|store| store.status.as_ref()) {
        for namespace in &status.namespaces {
            let used = all.entry(namespace.name.clone()).or_default();
            used.archives += whole(namespace.archives);
            used.bytes += namespace.size.value();
        }
        more += whole(status.more_namespaces);
    }
    (all, more)
}

fn by_workload(objects: &[ContainerCheckpoint], with_namespace: bool) -> BTreeMap<String, Used> {
    let mut all = BTreeMap::<String, Used>::new();
    for object in objects {
        let is = status(object);
        let workload = match &is.owner {
            Some(owner) => format!("{}/{}", owner.kind, owner.name),
            None => format!("Pod/{}", is.pod_name),
        };
        let name = if with_namespace {
            format!("{}/{workload}", object.namespace().unwrap_or_default())
        } else {
            workload
        };
        let used = all.entry(name).or_default();
        used.archives += 1;
        used.bytes += is.size.value();
    }
    all
}

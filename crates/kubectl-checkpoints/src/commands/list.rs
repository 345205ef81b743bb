//! `list`: the checkpoints of a namespace, of all, or of one node.

mod of_node;

use std::cmp::Reverse;

use anstyle::Style;
use checkpoint_keeper_api::{ContainerCheckpoint, NodeCheckpointStore};
use checkpoint_keeper_core::quantity::human;
use checkpoint_keeper_terminal::say::say;
use checkpoint_keeper_terminal::table::{Column, Kind};
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::cli::{List, ListFormat, SortBy};
use crate::failure::Failure;
use crate::kinds::{age, is_held, status, taken, until};
use crate::session::Session;
use crate::show::{bad, count, data, doubtful, figure, line, name, or_dash, runtime, table_or_wide, word};

/// Lists checkpoints.
pub async fn run(session: &Session, arguments: &List) -> Result<(), Failure> {
    if let Some(node) = &arguments.node {
        return of_node::list(session, node, arguments).await;
    }
    let namespace = (!arguments.all_namespaces).then_some(session.namespace.as_str());
    let named = [("status.podName", &arguments.pod), ("status.containerName", &arguments.container)];
    let named =
        named.iter().filter_map(|(field, value)| value.as_ref().map(|value| format!("{field}={value}")));
    let fields: Vec<String> = arguments.field_selector.iter().cloned().chain(named).collect();
    let params = ListParams {
        label_selector: arguments.selector.clone(),
        field_selector: (!fields.is_empty()).then(|| fields.join(",")),
        ..ListParams::default()
    };
    let mut objects = session
        .list::<ContainerCheckpoint>(namespace, &params)
        .await
        .map_err(|error| Failure::of_request("list the checkpoints", &error))?;
    sort(&mut objects, arguments.sort_by);
    if let Some(format) = arguments.output.and_then(ListFormat::data) {
        return data(&json!({"apiVersion": "v1", "kind": "List", "items": objects}), format);
    }
    if arguments.output == Some(ListFormat::Name) {
        return objects.iter().try_for_each(|object| {
            line(&format!("containercheckpoint.checkpoint-keeper.io/{}", object.name_any()))
        });
    }
    if objects.is_empty() {
        let where_ =
            namespace.map_or_else(|| "the cluster".to_owned(), |name| format!("the namespace {name}"));
        let what = if params.label_selector.is_some() || params.field_selector.is_some() {
            format!("no checkpoints in {where_} match")
        } else {
            format!("there are no checkpoints in {where_}")
        };
        say("note", what);
    } else {
        show(&objects, namespace, arguments.output == Some(ListFormat::Wide))?;
    }
    say_unlisted(session).await;
    Ok(())
}

fn sort(objects: &mut [ContainerCheckpoint], by: SortBy) {
    // By name first, so that what is equal in the order that is asked for is in that one.
    objects.sort_by_key(|object| (object.namespace(), object.name_any()));
    match by {
        SortBy::Name => {}
        SortBy::Age => objects.sort_by_key(|object| Reverse(taken(object))),
        SortBy::Size => objects.sort_by_key(|object| Reverse(status(object).size.value())),
        SortBy::Node => objects.sort_by(|one, other| status(one).node_name.cmp(&status(other).node_name)),
    }
}

fn show(objects: &[ContainerCheckpoint], namespace: Option<&str>, is_wide: bool) -> Result<(), Failure> {
    let now = Timestamp::now();
    let mut columns = Vec::new();
    columns.extend(namespace.is_none().then(|| name("NAMESPACE")));
    columns.extend([
        // Other commands take it, and it says the pod and the container as well.
        word("NAME"),
        Column::optional("POD", Kind::Name(12)),
        Column::optional("CONTAINER", Kind::Name(8)),
        Column::optional("NODE", Kind::Name(12)),
        figure("SIZE"),
        word("STATE"),
        Column::optional("HELD", Kind::Word),
        Column::optional("EXPIRES", Kind::Word),
        word("AGE"),
    ]);
    if is_wide {
        columns.extend([name("OWNER"), word("RUNTIME"), name("CREATED BY"), name("IMAGE"), name("FILE")]);
    }
    let row = |object: &ContainerCheckpoint| {
        let is = status(object);
        let style = match is.state.name() {
            "Complete" => Style::new(),
            "Unread" => doubtful(),
            _ => bad(),
        };
        let mut cells = Vec::new();
        cells.extend(namespace.is_none().then(|| object.namespace().unwrap_or_default()));
        cells.extend([
            object.name_any(),
            is.pod_name.clone(),
            is.container_name.clone(),
            is.node_name.clone(),
            human(is.size.value()),
            is.state.name().to_owned(),
            if is_held(object) { "yes" } else { "-" }.to_owned(),
            until(is.expires_at.as_ref().map(|time| time.0), now),
            age(taken(object), now),
        ]);
        if is_wide {
            let owner = is.owner.as_ref().map(|owner| format!("{}/{}", owner.kind, owner.name));
            let by = is.created_by.as_ref().map(|by| format!("{} ({})", by.schedule, by.trigger));
            cells.extend([
                or_dash(owner.as_deref()),
                or_dash(is.runtime.as_deref().map(runtime)),
                or_dash(by.as_deref()),
                or_dash(is.image.as_deref()),
                is.file.clone(),
            ]);
        }
        (style, cells)
    };
    let rows = objects.iter().map(row).collect();
    table_or_wide(&columns, rows, is_wide)?;
    let bytes = objects.iter().map(|object| status(object).size.value()).sum();
    let held = objects.iter().filter(|object| is_held(object)).count();
    let held = if held == 0 { String::new() } else { format!(", {held} held") };
    line("")?;
    line(&format!("{}, {}{held}", count(objects.len(), "checkpoint"), human(bytes)))
}

/// Says which nodes have more than the API shows.
async fn say_unlisted(session: &Session) {
    // Who may not read the nodes' stores is not told of them at each list.
    let stores = session.list::<NodeCheckpointStore>(None, &ListParams::default()).await.unwrap_or_default();
    for store in stores {
        let unlisted = store.status.as_ref().map_or(0, |status| status.unlisted);
        if unlisted > 0 {
            let node = store.name_any();
            say(
                "note",
                format!(
                    "{node} has {unlisted} more, older ones, of all namespaces: kubectl checkpoints list --node {node}"
                ),
            );
        }
    }
}

//! `list --node`: all archives that a node's agent knows of, with what becomes of each.

use std::cmp::Reverse;

use anstyle::Style;
use checkpoint_keeper_core::quantity::human;
use checkpoint_keeper_terminal::table::{Column, Kind};
use jiff::Timestamp;
use serde_json::Value;

use crate::agents::{self, Question};
use crate::cli::{List, ListFormat, SortBy};
use crate::failure::Failure;
use crate::kinds::age;
use crate::session::Session;
use crate::show::{
    self, bad, count, data, figure, line, name, or_dash, short_policy, table_or_wide, verdict, word,
};

/// Lists the archives of one node.
pub(super) async fn list(session: &Session, node: &str, arguments: &List) -> Result<(), Failure> {
    let agent = agents::find(session, Some(node)).await?.remove(0);
    let mut answer = agents::ask(session, &agent, &Question::Archives).await?;
    let Value::Array(mut archives) = answer["archives"].take() else {
        return Err(Failure::new(format!(
            "the agent of {node} names no archives: is it of another version?"
        )));
    };
    archives.retain(|archive| is_wanted(archive, session, arguments));
    let text = |archive: &Value, field: &str| archive[field].as_str().map(str::to_owned);
    match arguments.sort_by {
        SortBy::Size => archives.sort_by_key(|archive| Reverse(archive["sizeBytes"].as_u64())),
        SortBy::Age => archives.sort_by_key(|archive| Reverse(checkpointed_at(archive))),
        SortBy::Name | SortBy::Node => archives.sort_by_key(|archive| text(archive, "file")),
    }
    if let Some(format) = arguments.output.and_then(ListFormat::data) {
        answer["archives"] = archives.into();
        return data(&answer, format);
    }
    if arguments.output == Some(ListFormat::Name) {
        return archives.iter().try_for_each(|archive| line(archive["file"].as_str().unwrap_or_default()));
    }
    print(node, &archives, arguments.output == Some(ListFormat::Wide))
}

fn is_wanted(archive: &Value, session: &Session, arguments: &List) -> bool {
    let is = |field: &str, wanted: Option<&String>| {
        wanted.is_none_or(|wanted| archive[field].as_str() == Some(wanted))
    };
    let is_of_one_namespace = session.is_namespace_given && !arguments.all_namespaces;
    is("pod", arguments.pod.as_ref())
        && is("container", arguments.container.as_ref())
        && is("namespace", is_of_one_namespace.then_some(&session.namespace))
}

fn checkpointed_at(archive: &Value) -> Option<Timestamp> {
    archive["checkpointedAt"].as_str()?.parse().ok()
}

fn print(node: &str, archives: &[Value], is_wide: bool) -> Result<(), Failure> {
    let mut columns = vec![
        // Other commands take it: it goes on in the next line rather than be cut. It says what the columns do that go first.
        Column::new("FILE", Kind::Text(32)),
        Column::optional("NAMESPACE", Kind::Name(8)),
        Column::optional("POD", Kind::Name(12)),
        Column::optional("CONTAINER", Kind::Name(8)),
        figure("SIZE"),
        Column::optional("STATE", Kind::Word),
        word("AGE"),
        word("VERDICT"),
        word("REASON"),
        Column::optional("POLICY", Kind::Text(12)),
        Column::optional("WHY", Kind::Text(12)),
    ];
    if is_wide {
        columns.extend([word("RUNTIME"), name("CREATED BY"), name("POD UID")]);
    }
    let now = Timestamp::now();
    let row = |archive: &Value| {
        let text = |field: &str| or_dash(archive[field].as_str());
        let style = if archive["verdict"] == "Delete" { bad() } else { Style::new() };
        let mut cells = vec![
            text("file"),
            text("namespace"),
            text("pod"),
            text("container"),
            human(archive["sizeBytes"].as_u64().unwrap_or(0)),
            text("state"),
            checkpointed_at(archive).map_or_else(|| "unknown".to_owned(), |taken| age(Some(taken), now)),
            verdict(&text("verdict")),
            text("reason"),
            archive["policy"].as_str().map_or_else(|| "-".to_owned(), short_policy),
            text("detail"),
        ];
        if is_wide {
            let by = &archive["createdBy"];
            let by =
                by["schedule"].as_str().map(|name| format!("{name} ({})", or_dash(by["trigger"].as_str())));
            let runtime = or_dash(archive["runtime"].as_str().map(show::runtime));
            cells.extend([runtime, or_dash(by.as_deref()), text("podUid")]);
        }
        (style, cells)
    };
    let rows = archives.iter().map(row).collect();
    table_or_wide(&columns, rows, is_wide)?;
    let bytes = archives.iter().filter_map(|archive| archive["sizeBytes"].as_u64()).sum();
    line("")?;
    line(&format!("{} on {node}, {}", count(archives.len(), "archive"), human(bytes)))
}

//! `plan`: what is to be deleted now, or what would change if other policies were applied.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::PathBuf;

use anstyle::Style;
use checkpoint_keeper_api::CheckpointRestoreOperator;
use checkpoint_keeper_api::NodeCheckpointStore;
use checkpoint_keeper_api::legacy_migration::in_words;
use checkpoint_keeper_core::quantity::human;
use checkpoint_keeper_terminal::say::say;
use checkpoint_keeper_terminal::table::{Column, Kind};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::agents::{self, Agent, Question};
use crate::cli::Plan;
use crate::failure::Failure;
use crate::session::Session;
use crate::show::{bad, data, figure, good, line, name, or_dash, table, word};

/// One archive of which something changes.
struct Change {
    node: String,
    namespace: String,
    file: String,
    bytes: u64,
    is_deleted: bool,
    /// Whether its deletion waits, as only so many may go a minute.
    waits: bool,
    /// Whether it is to go as things are.
    goes_now: bool,
    before: String,
    reason: String,
    policy: String,
    why: String,
}

/// Shows a plan.
pub async fn run(session: &Session, arguments: &Plan) -> Result<(), Failure> {
    let question = if arguments.from_older_operator {
        say_differences(session).await?;
        Question::WithoutOlderOperator
    } else if arguments.files.is_empty() {
        Question::Archives
    } else {
        Question::Preview(read(&arguments.files)?)
    };
    let agents = agents::find(session, arguments.node.as_deref()).await?;
    let mut failures = match (&arguments.node, &session.agent_address) {
        (None, None) => without_agent(session, &agents).await,
        _ => Vec::new(),
    };
    let answers = agents::ask_all(session, agents, &question).await;
    let mut given: Vec<(Agent, Value)> = Vec::new();
    for (agent, answer) in answers {
        match answer {
            Ok(answer) => given.push((agent, answer)),
            Err(failure) => failures.push(failure),
        }
    }
    if let Some(format) = arguments.output {
        let nodes: Vec<Value> = given.iter().map(|(_, answer)| answer.clone()).collect();
        data(&json!({"isComplete": failures.is_empty(), "nodes": nodes}), format)?;
    } else if !given.is_empty() {
        let is_preview = !matches!(question, Question::Archives);
        show(&given, is_preview)?;
    }
    if failures.is_empty() {
        return Ok(());
    }
    if !given.is_empty() {
        say("warning", "the plan is incomplete: these nodes are not in it");
    }
    for failure in failures {
        let _ = failure.report();
    }
    Err(Failure::AlreadyReported)
}

/// The nodes that have reported archives, and have no agent that could be asked now.
async fn without_agent(session: &Session, agents: &[Agent]) -> Vec<Failure> {
    let stores = session.list_if_allowed::<NodeCheckpointStore>(None).await.unwrap_or_default();
    let nodes = stores.iter().map(ResourceExt::name_any);
    let missing = nodes.filter(|node| !agents.iter().any(|agent| agent.node == *node));
    let hint = "kubectl checkpoints doctor says which agents are at work";
    missing.map(|node| Failure::with_hint(format!("no agent runs on the node {node}"), hint)).collect()
}

/// Says what each object of the older operator will mean here that it does not mean there.
async fn say_differences(session: &Session) -> Result<(), Failure> {
    let objects = session.list::<CheckpointRestoreOperator>(None, &ListParams::default()).await;
    let objects = match objects {
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        objects => {
            objects.map_err(|error| Failure::of_request("list the older operator's objects", &error))?
        }
    };
    if objects.is_empty() {
        return line("there are no objects of the older operator");
    }
    for object in objects {
        in_words(&object, &session.operator_namespace).iter().try_for_each(|text| line(text))?;
    }
    line("")
}

/// All files as one stream of documents.
fn read(files: &[PathBuf]) -> Result<String, Failure> {
    let mut all = String::new();
    for path in files {
        let text = if path.as_os_str() == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        } else {
            std::fs::read_to_string(path)
        };
        let text =
            text.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
        all = format!("{all}---\n{text}\n");
    }
    Ok(all)
}

fn changes(given: &[(Agent, Value)], is_preview: bool) -> Vec<Change> {
    let text = |value: &Value| or_dash(value.as_str());
    let mut changes = Vec::new();
    for (agent, answer) in given {
        let node = answer["node"].as_str().unwrap_or(&agent.node);
        let list = if is_preview { &answer["changes"] } else { &answer["archives"] };
        for archive in list.as_array().into_iter().flatten() {
            let (before, after) =
                if is_preview { (&archive["before"], &archive["after"]) } else { (archive, archive) };
            let waits = !is_preview && archive["reason"] == "DeletionPending";
            if !is_preview && archive["verdict"] != "Delete" && !waits {
                continue;
            }
            changes.push(Change {
                node: node.to_owned(),
                namespace: text(&archive["namespace"]),
                file: text(&archive["file"]),
                bytes: archive["sizeBytes"].as_u64().unwrap_or(0),
                is_deleted: after["verdict"] == "Delete" || waits,
                waits,
                goes_now: before["verdict"] == "Delete",
                before: format!("{} {}", text(&before["reason"]), text(&before["policy"])),
                reason: text(&after["reason"]),
                policy: text(&after["policy"]),
                why: text(&after["detail"]),
            });
        }
    }
    // What goes comes first.
    changes.sort_by_key(|change| !change.is_deleted);
    changes
}

/// What is to be known of the policies: most of it each agent says, and it is said once.
fn problems(given: &[(Agent, Value)]) -> BTreeSet<&str> {
    let lists = given.iter().filter_map(|(_, answer)| answer["problems"].as_array());
    lists.flatten().filter_map(Value::as_str).collect()
}

fn show(given: &[(Agent, Value)], is_preview: bool) -> Result<(), Failure> {
    let changes = changes(given, is_preview);
    for problem in problems(given) {
        say("note", problem);
    }
    if changes.is_empty() {
        let what = if is_preview { "nothing would change" } else { "nothing is to be deleted" };
        return line(what);
    }
    let mut columns = vec![
        Column::optional("NODE", Kind::Name(8)),
        // A file's name says it as well, and the pod; its end says when.
        Column::optional("NAMESPACE", Kind::Name(8)),
        Column::new("FILE", Kind::Name(30)),
        figure("SIZE"),
        word("VERDICT"),
    ];
    columns.extend(is_preview.then(|| Column::optional("NOW", Kind::Name(12))));
    columns.extend([
        word(if is_preview { "THEN" } else { "REASON" }),
        Column::optional("POLICY", Kind::Name(12)),
        Column::optional("WHY", Kind::Prose(16)),
    ]);
    let row = |change: &Change| {
        let (style, verdict) = match change.is_deleted {
            true if change.waits => (bad(), "Wait"),
            true => (bad(), "Delete"),
            false => (good(), "Keep"),
        };
        let mut cells = vec![
            change.node.clone(),
            change.namespace.clone(),
            change.file.clone(),
            human(change.bytes),
            verdict.to_owned(),
        ];
        cells.extend(is_preview.then(|| change.before.clone()));
        cells.extend([change.reason.clone(), change.policy.clone(), change.why.clone()]);
        (style, cells)
    };
    table(&columns, changes.iter().map(row).collect())?;
    line("")?;
    for (title, by) in [
        ("NODE", (|change: &Change| &change.node) as fn(&Change) -> &String),
        ("NAMESPACE", |change| &change.namespace),
    ] {
        let mut freed: BTreeMap<&String, (u64, u64)> = BTreeMap::new();
        for change in changes.iter().filter(|change| change.is_deleted) {
            let (count, bytes) = freed.entry(by(change)).or_default();
            (*count, *bytes) = (*count + 1, *bytes + change.bytes);
        }
        if freed.is_empty() {
            continue;
        }
        let row = |(name, (count, bytes)): (&&String, &(u64, u64))| {
            (Style::new(), vec![(*name).clone(), count.to_string(), human(*bytes)])
        };
        table(&[name(title), figure("DELETES"), figure("FREES")], freed.iter().map(row).collect())?;
        line("")?;
    }
    let is_new = |change: &&Change| change.is_deleted && !(is_preview && change.goes_now);
    let deleted = changes.iter().filter(is_new);
    let (count, bytes) = deleted.fold((0, 0), |(count, bytes), change| (count + 1, bytes + change.bytes));
    let kept = changes.iter().filter(|change| change.goes_now && !change.is_deleted).count();
    let kept = if kept == 0 { String::new() } else { format!("; {kept} would stay that go now") };
    let archives = crate::show::count(count, "archive");
    if is_preview {
        line(&format!("{archives} would be deleted that stay now, {}{kept}", human(bytes)))
    } else {
        let waiting = match changes.iter().filter(|change| change.waits).count() {
            0 => String::new(),
            1 => "; 1 of them waits, as only so many may go a minute".to_owned(),
            waiting => format!("; {waiting} of them wait, as only so many may go a minute"),
        };
        line(&format!("to be deleted: {archives}, {}{waiting}", human(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_every_agent_says_of_a_policy_is_said_once() {
        let agent = |node: &str| Agent { node: node.to_owned(), pod: String::new() };
        let given = [
            (agent("node-1"), json!({"problems": ["it is a dry run", "unreadable"]})),
            (agent("node-2"), json!({"problems": ["it is a dry run"]})),
            (agent("node-3"), json!({})),
        ];
        assert_eq!(Vec::from_iter(problems(&given)), ["it is a dry run", "unreadable"]);
    }
}

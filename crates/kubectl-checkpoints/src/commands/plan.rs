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
use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::agents::{self, Agent, Question};
use crate::cli::{Plan, PlanFormat};
use crate::failure::Failure;
use crate::kinds::age;
use crate::session::Session;
use crate::show::{
    bad, data, figure, good, line, name, or_dash, short_policy, some, table, table_or_wide, word,
};

/// One archive of which something changes.
struct Change {
    node: String,
    namespace: String,
    pod: Option<String>,
    container: String,
    file: String,
    taken: Option<Timestamp>,
    bytes: u64,
    is_deleted: bool,
    /// Whether its deletion waits, as only so many may go a minute.
    waits: bool,
    /// Whether it is to go as things are.
    goes_now: bool,
    /// By which reason and policy it is decided about as things are.
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
    let nodes: Vec<String> = agents.iter().map(|agent| agent.node.clone()).collect();
    let answers = agents::ask_all(session, agents, &question).await;
    let mut given: Vec<(Agent, Value)> = Vec::new();
    for (agent, answer) in answers {
        match answer {
            Ok(answer) => given.push((agent, answer)),
            Err(failure) => failures.push(failure),
        }
    }
    if let Some(format) = arguments.output.and_then(PlanFormat::data) {
        let nodes: Vec<Value> = given.iter().map(|(_, answer)| answer.clone()).collect();
        data(&json!({"isComplete": failures.is_empty(), "nodes": nodes}), format)?;
    } else if !given.is_empty() {
        let is_preview = !matches!(question, Question::Archives);
        show(&given, is_preview, arguments.output == Some(PlanFormat::Wide))?;
    }
    if failures.is_empty() {
        return Ok(());
    }
    if !given.is_empty() {
        say("warning", "the plan is incomplete: these nodes are not in it");
    }
    for failure in said_once(failures, &nodes) {
        let _ = failure.report();
    }
    Err(Failure::AlreadyReported)
}

/// What several agents say alike, as of a policy that is not understood, once.
fn said_once(failures: Vec<Failure>, nodes: &[String]) -> Vec<Failure> {
    let mut once: Vec<(Failure, Option<String>, Vec<&String>)> = Vec::new();
    for failure in failures {
        let of_node =
            nodes.iter().find_map(|node| Some((node, failure.text()?.strip_prefix(&agents::whose(node))?)));
        let Some((node, text)) = of_node.map(|(node, text)| (node, text.to_owned())) else {
            once.push((failure, None, Vec::new()));
            continue;
        };
        match once.iter_mut().find(|(_, known, _)| known.as_ref() == Some(&text)) {
            Some((.., nodes)) => nodes.push(node),
            None => once.push((failure, Some(text), vec![node])),
        }
    }
    let said = |(failure, text, nodes): (Failure, Option<String>, Vec<&String>)| match text {
        Some(text) if nodes.len() > 1 => {
            let nodes: Vec<String> = nodes.into_iter().cloned().collect();
            Failure::new(format!("the agents of {}: {text}", some(&nodes)))
        }
        _ => failure,
    };
    once.into_iter().map(said).collect()
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
    let policy = |of: &Value| of["policy"].as_str().map(short_policy);
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
            // What waits names the rule that takes it in the place of figures.
            let rule = after["detail"].as_str().map(|rule| rule.strip_prefix("else ").unwrap_or(rule));
            changes.push(Change {
                node: node.to_owned(),
                namespace: text(&archive["namespace"]),
                pod: archive["pod"].as_str().map(str::to_owned),
                container: text(&archive["container"]),
                file: text(&archive["file"]),
                taken: archive["checkpointedAt"].as_str().and_then(|taken| taken.parse().ok()),
                bytes: archive["sizeBytes"].as_u64().unwrap_or(0),
                is_deleted: after["verdict"] == "Delete" || waits,
                waits,
                goes_now: before["verdict"] == "Delete",
                before: match policy(before) {
                    Some(policy) => format!("{} {policy}", text(&before["reason"])),
                    None => text(&before["reason"]),
                },
                reason: if waits {
                    rule.unwrap_or("DeletionPending").to_owned()
                } else {
                    text(&after["reason"])
                },
                policy: or_dash(policy(after).as_deref()),
                why: if waits { "-".to_owned() } else { text(&after["detail"]) },
            });
        }
    }
    // What goes comes first, and of a container the oldest.
    changes.sort_by(|one, other| {
        let key = |change: &Change| (!change.is_deleted, change.taken);
        let whose = |change: &Change| {
            let Change { node, namespace, pod, container, .. } = change;
            (node.clone(), namespace.clone(), pod.clone(), container.clone())
        };
        let ((goes, taken), (other_goes, other_taken)) = (key(one), key(other));
        (goes, whose(one), taken).cmp(&(other_goes, whose(other), other_taken))
    });
    changes
}

/// What is to be known of the policies: most of it each agent says, and it is said once.
fn problems(given: &[(Agent, Value)]) -> BTreeSet<&str> {
    let lists = given.iter().filter_map(|(_, answer)| answer["problems"].as_array());
    lists.flatten().filter_map(Value::as_str).collect()
}

fn show(given: &[(Agent, Value)], is_preview: bool, is_wide: bool) -> Result<(), Failure> {
    let changes = changes(given, is_preview);
    for problem in problems(given) {
        say("note", problem);
    }
    if changes.is_empty() {
        let what = if is_preview { "nothing would change" } else { "nothing is to be deleted" };
        return line(what);
    }
    show_changes(&changes, is_preview, is_wide)?;
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

fn show_changes(changes: &[Change], is_preview: bool, is_wide: bool) -> Result<(), Failure> {
    let mut columns = vec![
        word("VERDICT"),
        Column::optional("NODE", Kind::Name(8)),
        Column::optional("NAMESPACE", Kind::Name(9)),
        name("POD"),
        Column::optional("CONTAINER", Kind::Name(9)),
        figure("AGE"),
        figure("SIZE"),
    ];
    columns.extend(is_preview.then(|| Column::optional("NOW", Kind::Text(12))));
    columns.extend([
        word(if is_preview { "THEN" } else { "REASON" }),
        Column::optional("POLICY", Kind::Text(12)),
        // The figures are what is read here: they go on in the next line rather than be cut.
        Column::new("WHY", Kind::Text(12)),
    ]);
    columns.extend(is_wide.then(|| name("FILE")));
    let now = Timestamp::now();
    let row = |change: &Change| {
        let (style, verdict) = match change.is_deleted {
            true if change.waits => (bad(), "wait"),
            true => (bad(), "delete"),
            false => (good(), "keep"),
        };
        let mut cells = vec![
            verdict.to_owned(),
            change.node.clone(),
            change.namespace.clone(),
            // Of an unknown pod the file's name is all there is to go by.
            change.pod.clone().unwrap_or_else(|| change.file.clone()),
            change.container.clone(),
            age(change.taken, now),
            human(change.bytes),
        ];
        cells.extend(is_preview.then(|| change.before.clone()));
        cells.extend([change.reason.clone(), change.policy.clone(), change.why.clone()]);
        cells.extend(is_wide.then(|| change.file.clone()));
        (style, cells)
    };
    table_or_wide(&columns, changes.iter().map(row).collect(), is_wide)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_that_no_agent_understands_is_refused_once() {
        let nodes = ["node-1", "node-2", "node-3"].map(str::to_owned);
        let of = |node: &str, text: &str| Failure::new(format!("{}{text}", agents::whose(node)));
        let failures = vec![
            Failure::new("no agent runs on the node node-4"),
            of("node-1", "line 7: wrong"),
            of("node-2", "another"),
            of("node-3", "line 7: wrong"),
        ];
        let said = said_once(failures, &nodes);
        let said: Vec<_> = said.iter().filter_map(Failure::text).collect();
        let alike = "the agents of node-1, node-3: line 7: wrong";
        assert_eq!(said, ["no agent runs on the node node-4", alike, "the agent of node-2: another"]);
    }

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

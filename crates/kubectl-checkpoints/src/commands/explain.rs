//! `explain`: what becomes of one archive, rule by rule, as its node's agent says.

use anstyle::Style;
use checkpoint_keeper_terminal::table::{Column, Kind};
use serde_json::Value;

use super::show::get;
use crate::agents::{self, Question};
use crate::cli::{Explain, ExplainFormat};
use crate::failure::Failure;
use crate::kinds::status;
use crate::session::Session;
use crate::show::{
    bad, data, doubtful, good, line, or_dash, short_policy, styled, table_or_wide, text, word,
};

/// Explains one archive.
pub async fn run(session: &Session, arguments: &Explain) -> Result<(), Failure> {
    let (node, file) = if let Some(node) = &arguments.node {
        (node.clone(), arguments.archive.clone())
    } else {
        let object = get(session, &arguments.archive).await?;
        (status(&object).node_name.clone(), status(&object).file.clone())
    };
    let agent = agents::find(session, Some(&node)).await?.remove(0);
    let answer = agents::ask(session, &agent, &Question::Explain(file.clone())).await?;
    if let Some(format) = arguments.output.and_then(ExplainFormat::data) {
        return data(&answer, format);
    }
    show(&node, &file, &answer, arguments.output == Some(ExplainFormat::Wide))
}

fn show(node: &str, file: &str, answer: &Value, is_wide: bool) -> Result<(), Failure> {
    let verdict = &answer["verdict"];
    let is_deleted = verdict["verdict"] == "Delete";
    line(&format!("{file} on {node}"))?;
    let waits = verdict["reason"] == "DeletionPending";
    let (style, what) = match (is_deleted, waits) {
        (true, _) => (bad(), "It is to be deleted"),
        (false, true) => (doubtful(), "It waits to be deleted"),
        (false, false) => (good(), "It stays"),
    };
    let by = verdict["policy"].as_str().map(|by| format!(", by {}", short_policy(by))).unwrap_or_default();
    let detail = verdict["detail"].as_str().unwrap_or_default();
    let (reason, detail) = match detail.strip_prefix("else ").filter(|_| waits) {
        // The rule that takes it once there is room.
        Some(rule) => (rule.to_owned(), ""),
        None => (or_dash(verdict["reason"].as_str()), detail),
    };
    let detail = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
    styled(style.bold(), &format!("{what}: {reason}{detail}{by}."))?;
    line("")?;
    let row = |rule: &Value| {
        let (style, outcome) = match or_dash(rule["outcome"].as_str()).as_str() {
            "Deletes" => (bad(), "deletes".to_owned()),
            "Protects" => (good(), "protects".to_owned()),
            "Passes" => (Style::new(), "passes".to_owned()),
            "DoesNotApply" => (Style::new(), "does not apply".to_owned()),
            other => (Style::new(), other.to_owned()),
        };
        (style, vec![or_dash(rule["rule"].as_str()), outcome, policy(rule), or_dash(rule["detail"].as_str())])
    };
    // Rules that no policy has say nothing about this archive; -o wide shows that they were asked.
    let applies = |rule: &&Value| is_wide || rule["outcome"] != "DoesNotApply";
    let rules: Vec<_> = answer["rules"].as_array().into_iter().flatten().filter(applies).map(row).collect();
    if rules.is_empty() {
        line("No policy governs it, and no rule applies.")?;
    } else {
        table_or_wide(&[word("RULE"), word("OUTCOME"), POLICY, text("WHY")], rules, is_wide)?;
    }
    line("")?;
    dry_runs(answer, is_wide)?;
    // An agent of an older version says it in figures only.
    answer["nextText"].as_str().map_or(Ok(()), line)
}

/// A column with a policy, of whose name nothing is cut.
const POLICY: Column = Column::new("POLICY", Kind::Text(12));

/// The policy that something names, by its short name.
fn policy(what: &Value) -> String {
    what["policy"].as_str().map_or_else(|| "-".to_owned(), short_policy)
}

/// Which policies in dry-run mode were tried, and what each would do.
fn dry_runs(answer: &Value, is_wide: bool) -> Result<(), Failure> {
    let row = |dry_run: &Value| {
        let (style, would) = match dry_run["effect"].as_str() {
            Some("Deletes") => (bad(), "delete it"),
            Some("Keeps") => (good(), "keep it"),
            Some("DecidesTheSame") => (Style::new(), "decide the same"),
            _ => (Style::new(), "change nothing"),
        };
        // Why it changes nothing is another policy's reason.
        let verdict = if would == "change nothing" { &Value::Null } else { &dry_run["verdict"] };
        let cells = vec![
            policy(dry_run),
            would.to_owned(),
            or_dash(verdict["reason"].as_str()),
            or_dash(verdict["detail"].as_str()),
        ];
        (style, cells)
    };
    let rows: Vec<_> = answer["dryRuns"].as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let columns = [Column { title: "DRY RUN OF", ..POLICY }, word("WOULD"), word("REASON"), text("WHY")];
    table_or_wide(&columns, rows, is_wide)?;
    line("")
}

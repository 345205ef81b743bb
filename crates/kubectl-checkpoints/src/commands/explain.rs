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
use crate::show::{bad, data, good, line, name, or_dash, prose, styled, table, word};

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
    let text = |value: &Value| or_dash(value.as_str());
    let verdict = &answer["verdict"];
    let is_deleted = verdict["verdict"] == "Delete";
    line(&format!("{file} on {node}"))?;
    let policy = verdict["policy"].as_str().map(|policy| format!(", by {policy}")).unwrap_or_default();
    let detail = verdict["detail"].as_str().filter(|detail| !detail.is_empty());
    let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
    let style = if is_deleted { bad().bold() } else { good().bold() };
    styled(style, &format!("{} ({}){detail}{policy}", text(&verdict["verdict"]), text(&verdict["reason"])))?;
    line("")?;
    let row = |rule: &Value| {
        let outcome = text(&rule["outcome"]);
        let style = match outcome.as_str() {
            "Deletes" => bad(),
            "Protects" => good(),
            _ => Style::new(),
        };
        (style, vec![text(&rule["rule"]), outcome, text(&rule["policy"]), text(&rule["detail"])])
    };
    // Rules that no policy has say nothing about this archive; -o wide shows that they were asked.
    let applies = |rule: &&Value| is_wide || rule["outcome"] != "DoesNotApply";
    let rules: Vec<_> = answer["rules"].as_array().into_iter().flatten().filter(applies).map(row).collect();
    let policy = Column::optional("POLICY", Kind::Name(12));
    if rules.is_empty() {
        line("No rule is about it.")?;
    } else {
        table(&[name("RULE"), word("OUTCOME"), policy, prose("WHY")], rules)?;
    }
    line("")?;
    dry_runs(answer)?;
    // An agent of an older version says it in figures only.
    answer["nextText"].as_str().map_or(Ok(()), line)
}

/// Which policies in dry-run mode were tried, and what each would do.
fn dry_runs(answer: &Value) -> Result<(), Failure> {
    let text = |value: &Value| or_dash(value.as_str());
    let row = |dry_run: &Value| {
        let (style, would) = match dry_run["effect"].as_str() {
            Some("Deletes") => (bad(), "delete it"),
            Some("Keeps") => (good(), "keep it"),
            Some("DecidesTheSame") => (Style::new(), "decide the same"),
            _ => {
                return (
                    Style::new(),
                    vec![
                        text(&dry_run["policy"]),
                        "change nothing".to_owned(),
                        "-".to_owned(),
                        "-".to_owned(),
                    ],
                );
            }
        };
        let verdict = &dry_run["verdict"];
        let cells = vec![
            text(&dry_run["policy"]),
            would.to_owned(),
            text(&verdict["reason"]),
            text(&verdict["detail"]),
        ];
        (style, cells)
    };
    let rows: Vec<_> = answer["dryRuns"].as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        return Ok(());
    }
    let columns =
        [name("DRY RUN OF"), word("WOULD"), word("REASON"), Column::optional("WHY", Kind::Prose(16))];
    table(&columns, rows)?;
    line("")
}

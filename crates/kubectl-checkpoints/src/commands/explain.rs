//! `explain`: what becomes of one archive, rule by rule, as its node's agent says.

use anstyle::Style;
use serde_json::Value;

use super::show::get;
use crate::agents::{self, Question};
use crate::cli::{Explain, Output};
use crate::failure::Failure;
use crate::kinds::status;
use crate::session::Session;
use crate::show::{bad, data, good, line, name, or_dash, prose, styled, table, word};

/// Explains one archive.
pub async fn run(session: &Session, arguments: &Explain) -> Result<(), Failure> {
    let (node, file) = match &arguments.node {
        Some(node) => (node.clone(), arguments.archive.clone()),
        None => {
            let object = get(session, &arguments.archive).await?;
            (status(&object).node_name.clone(), status(&object).file.clone())
        }
    };
    let agent = agents::find(session, Some(&node)).await?.remove(0);
    let answer = agents::ask(session, &agent, &Question::Explain(file.clone())).await?;
    if let Some(output @ (Output::Json | Output::Yaml)) = arguments.output {
        return data(&answer, output);
    }
    show(&node, &file, &answer)
}

fn show(node: &str, file: &str, answer: &Value) -> Result<(), Failure> {
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
        let style = if outcome == "Takes" { bad() } else { Style::new() };
        (style, vec![text(&rule["rule"]), outcome, text(&rule["detail"])])
    };
    let rules = answer["rules"].as_array().into_iter().flatten().map(row).collect();
    table(&[name("RULE"), word("OUTCOME"), prose("WHY")], rules)?;
    line("")?;
    match answer["next"].as_object() {
        Some(next) => {
            let at = next.get("at").map(text).unwrap_or_default();
            let reason = next.get("reason").map(text).unwrap_or_default();
            line(&format!("If nothing else changes, it goes at {at} ({reason})."))
        }
        None if is_deleted => Ok(()),
        None => line("If nothing else changes, no passing of time takes it."),
    }
}

//! The pages of reference, made from the definitions of the kinds and of the command lines: `cargo xtask generate` writes
//! them, and this test compares them.

use std::fmt::Write;
use std::fs;

use checkpoint_keeper_api::crds::{crds, legacy_crds};
use clap::CommandFactory;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

use crate::source::folder;

/// Set by `cargo xtask generate`, which has the pages written and not compared.
const GENERATE: &str = "CHECKPOINT_KEEPER_GENERATE";

#[test]
fn the_pages_of_reference_are_what_the_code_says() {
    let native = crds().into_iter().map(|crd| (crd.spec.names.kind.clone(), crd));
    let legacy = legacy_crds().into_iter().map(|crd| (format!("older-{}", crd.spec.names.kind), crd));
    let mut pages: Vec<(String, String)> =
        native.chain(legacy).map(|(name, crd)| (name.to_ascii_lowercase(), kind(&crd))).collect();
    pages.push(("checkpoint-keeper".to_owned(), program(checkpoint_keeper::cli::Arguments::command())));
    pages.push(("kubectl-checkpoints".to_owned(), program(kubectl_checkpoints::cli::Arguments::command())));
    for (name, page) in pages {
        let path = folder().join(format!("reference/{name}.md"));
        let page = format!("<!-- Made from the code by `cargo xtask generate`; do not edit. -->\n\n{page}");
        if std::env::var_os(GENERATE).is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, page).unwrap();
            continue;
        }
        let committed =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}; cargo xtask generate"));
        assert!(
            committed == page,
            "docs/book/src/reference/{name}.md is not what the code makes: cargo xtask generate"
        );
    }
}

/// Each alert has a page, and which ones there are is nothing to keep by hand.
#[test]
fn the_summary_lists_the_runbooks() {
    let path = folder().join("SUMMARY.md");
    let summary = fs::read_to_string(&path).unwrap();
    let mut names = Vec::new();
    for file in fs::read_dir(folder().join("runbooks")).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        names.extend(name.strip_suffix(".md").filter(|name| *name != "index").map(str::to_owned));
    }
    names.sort();
    let made = with_runbooks(&summary, &names);
    if std::env::var_os(GENERATE).is_some() {
        fs::write(&path, made).unwrap();
    } else {
        assert!(!names.is_empty());
        assert!(summary == made, "SUMMARY.md does not list the runbooks as they are: cargo xtask generate");
    }
}

/// The list of pages with these runbooks below troubleshooting, and no others.
fn with_runbooks(summary: &str, names: &[String]) -> String {
    let mut made = String::new();
    for line in summary.lines().filter(|line| !line.contains("(runbooks/")) {
        let _ = writeln!(made, "{line}");
        if line.contains("(troubleshooting.md)") && !names.is_empty() {
            made.push_str("- [Runbooks of alerts](runbooks/index.md)\n");
            for name in names {
                let _ = writeln!(made, "  - [{name}](runbooks/{name}.md)");
            }
        }
    }
    made
}

#[test]
fn runbooks_are_listed_once_and_those_that_are_gone_are_not() {
    let summary = "- [A](a.md)\n- [Troubleshooting](troubleshooting.md)\n- [B](b.md)\n";
    let names = ["One".to_owned(), "Two".to_owned()];
    let both = with_runbooks(summary, &names);
    assert!(both.contains(
        "(troubleshooting.md)\n- [Runbooks of alerts](runbooks/index.md)\n  - [One](runbooks/One.md)\n"
    ));
    assert_eq!(with_runbooks(&both, &names), both);
    assert_eq!(with_runbooks(&both, &[]), summary);
}

/// A kind's page.
fn kind(crd: &CustomResourceDefinition) -> String {
    let (names, version) = (&crd.spec.names, &crd.spec.versions[0]);
    let schema = serde_json::to_value(&version.schema).unwrap()["openAPIV3Schema"].clone();
    let older = if crd.spec.group == "criu.org" { " (criu.org)" } else { "" };
    let mut page = format!("# {}{older}\n\n{}\n\n", names.kind, words(&schema["description"]));
    let short = names.short_names.iter().flatten().map(|name| format!(", `{name}`")).collect::<String>();
    let scope = if crd.spec.scope == "Namespaced" { "of a namespace" } else { "of the whole cluster" };
    let _ = writeln!(page, "* `apiVersion: {}/{}`, {scope}", crd.spec.group, version.name);
    let _ = writeln!(page, "* for kubectl: `{}`{short}", names.plural);
    for part in ["spec", "status"] {
        let part_schema = &schema["properties"][part];
        if part_schema.is_null() {
            continue;
        }
        let _ = write!(page, "\n## {part}\n\n{}\n", words(&part_schema["description"]));
        let rules = rules(part_schema);
        if !rules.is_empty() {
            let _ = write!(page, "\n{rules}\n");
        }
        let mut rows = String::new();
        fields(part_schema, "", &mut rows);
        if rows.is_empty() {
            page.push_str("\nIts fields are not checked.\n");
        } else {
            let _ = write!(page, "\n{rows}");
        }
    }
    page
}

/// An entry for each field of a schema and of all within it.
fn fields(schema: &Value, path: &str, rows: &mut String) {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let default = match &field["default"] {
            Value::Null if required.contains(&name.as_str()) => ", required".to_owned(),
            Value::Null => String::new(),
            Value::String(text) => format!(", default `{text}`"),
            other => format!(", default `{other}`"),
        };
        let mut what = words(&field["description"]);
        let rules = rules(field);
        if !rules.is_empty() {
            let _ = write!(what, "<br>{rules}");
        }
        let _ = writeln!(rows, "* **`{path}`** ({}{default})<br>{what}", type_of(field));
        // Their fields are those of every kind of Kubernetes.
        if name == "conditions" {
            continue;
        }
        fields(field, &path, rows);
        fields(&field["items"], &format!("{path}[]"), rows);
        fields(&field["additionalProperties"], &format!("{path}.*"), rows);
    }
}

fn type_of(field: &Value) -> String {
    if let Some(values) = field["enum"].as_array() {
        let values = values.iter().filter_map(Value::as_str).map(|value| format!("`{value}`"));
        return values.collect::<Vec<_>>().join(" or ");
    }
    if field["x-kubernetes-int-or-string"] == true {
        return "integer or string".to_owned();
    }
    match field["type"].as_str() {
        Some("array") => format!("list of {}", type_of(&field["items"])),
        Some("object") if field["additionalProperties"].is_object() => {
            format!("map of {}", type_of(&field["additionalProperties"]))
        }
        Some("string") if field["format"] == "date-time" => "time".to_owned(),
        Some(name) => name.to_owned(),
        None => "any".to_owned(),
    }
}

/// What is refused, a sentence.
fn rules(field: &Value) -> String {
    let mut all = Vec::new();
    let bound = |name: &str| field[name].as_f64().map(|bound| format!("{bound}"));
    match (bound("minimum"), bound("maximum")) {
        (Some(least), Some(most)) => all.push(format!("{least} to {most}")),
        (Some(least), None) => all.push(format!("at least {least}")),
        (None, Some(most)) => all.push(format!("at most {most}")),
        (None, None) => {}
    }
    for (name, what) in [("maxItems", "entries"), ("maxProperties", "entries"), ("maxLength", "characters")] {
        all.extend(bound(name).map(|most| format!("at most {most} {what}")));
    }
    if let Some(pattern) = field["pattern"].as_str() {
        all.push(format!("matches `{pattern}`"));
    }
    for part in [field, &field["items"]] {
        let messages = part["x-kubernetes-validations"].as_array().into_iter().flatten();
        all.extend(messages.map(|rule| words(&rule["message"])));
    }
    if all.is_empty() { String::new() } else { format!("*Rules:* {}.", all.join("; ")) }
}

/// A text in one line of a page.
fn words(text: &Value) -> String {
    let text = text.as_str().unwrap_or_default();
    text.replace('\n', " ").replace('<', "&lt;").replace('*', "\\*")
}

/// A program's page: the help of the program and of each command.
fn program(command: clap::Command) -> String {
    let mut command = command.term_width(100).disable_help_subcommand(true);
    command.build();
    let mut page = format!("# {}\n", command.get_name());
    help(&mut command, &mut page);
    let commands: Vec<String> = command
        .get_subcommands()
        .filter(|one| !one.is_hide_set())
        .map(|one| one.get_name().to_owned())
        .collect();
    for name in commands {
        let command = command.find_subcommand_mut(&name).unwrap();
        let _ = write!(page, "\n## {name}\n");
        help(command, &mut page);
    }
    page
}

fn help(command: &mut clap::Command, page: &mut String) {
    let text = command.render_help().to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let _ = write!(page, "\n```text\n{}\n```\n", lines.join("\n").trim_end());
}

//! That the book's commands exist with all that they are told, and that those which need no cluster do what it says.

use std::process::Command as Process;

use clap::CommandFactory;
use clap::error::ErrorKind;
use serde_json::Value;

use crate::shell::{Command, commands};
use crate::source::{DEFINITIONS, Definition, files, repository};

/// Programs that are not ours, and of which nothing more is checked.
const OTHERS: [&str; 24] = [
    "export",
    "install",
    "sed",
    "git",
    "cd",
    "df",
    "ls",
    "mkdir",
    "jq",
    "touch",
    "rm",
    "grep",
    "sort",
    "head",
    "tail",
    "date",
    "du",
    "awk",
    "scp",
    "ssh",
    "tar",
    "sha256sum",
    "checkpointctl",
    "buildah",
];

/// What kubectl does in this book.
const VERBS: [&str; 20] = [
    "apply",
    "get",
    "describe",
    "diff",
    "patch",
    "delete",
    "annotate",
    "label",
    "rollout",
    "logs",
    "explain",
    "create",
    "wait",
    "port-forward",
    "auth",
    "cordon",
    "drain",
    "scale",
    "debug",
    "exec",
];

/// Resources of Kubernetes itself, as the book writes them.
const RESOURCES: [&str; 16] = [
    "pod",
    "pods",
    "node",
    "nodes",
    "namespace",
    "namespaces",
    "daemonset",
    "deployment",
    "deployments",
    "event",
    "events",
    "lease",
    "crd",
    "clusterrolebinding",
    "rolebinding",
    "service",
];

/// Options of kubectl that are followed by a value.
const WITH_VALUE: [&str; 20] = [
    "-n",
    "--namespace",
    "-f",
    "-k",
    "--filename",
    "-o",
    "--output",
    "-l",
    "--selector",
    "--field-selector",
    "--type",
    "--patch",
    "-p",
    "--for",
    "--timeout",
    "-c",
    "--container",
    "--dry-run",
    "--replicas",
    "--raw",
];

fn parses(mut command: clap::Command, words: &[String], place: &str) {
    let Err(error) = command.try_get_matches_from_mut(words) else { return };
    let is_fine = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    assert!(is_fine, "{place}: {}\n{error}", words.join(" "));
}

#[test]
fn every_command_exists_with_its_options() {
    let commands = commands();
    for Command { words, place, .. } in &commands {
        let mut words = words.as_slice();
        while words.first().is_some_and(|word| word == "sudo" || word.split_once('=').is_some()) {
            words = &words[1..];
        }
        let Some(program) = words.first() else { continue };
        match program.as_str() {
            "checkpoint-keeper" => parses(checkpoint_keeper::cli::Arguments::command(), words, place),
            "kubectl" if words.get(1).is_some_and(|word| word == "checkpoints") => {
                parses(kubectl_checkpoints::cli::Arguments::command(), &words[1..], place);
            }
            "kubectl" => kubectl(&words[1..], place),
            "cargo" => cargo(&words[1..], place),
            "helm" => helm(&words[1..], place),
            other => assert!(OTHERS.contains(&other), "{place}: what is {other}?"),
        }
    }
    assert!(commands.len() > 40, "only {} commands were found", commands.len());
}

/// What its options are told, and what else is said, in its order.
fn taken_apart<'w>(words: &'w [String], place: &str) -> (Vec<(&'w str, &'w str)>, Vec<&'w str>) {
    let (mut options, mut others) = (Vec::new(), Vec::new());
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        match word.split_once('=').filter(|_| word.starts_with('-')) {
            Some((name, value)) => options.push((name, value)),
            None if WITH_VALUE.contains(&word) => {
                let value = words.next().unwrap_or_else(|| panic!("{place}: {word} of what?"));
                options.push((word, value));
            }
            None if word.starts_with('-') && word != "-" => options.push((word, "")),
            None => others.push(word),
        }
    }
    (options, others)
}

fn kubectl(words: &[String], place: &str) {
    let (options, others) = taken_apart(words, place);
    let said = words.join(" ");
    let (verb, rest) = others.split_first().unwrap_or_else(|| panic!("{place}: kubectl {said}"));
    assert!(VERBS.contains(verb), "{place}: kubectl {said}: unknown {verb}");
    for (option, value) in &options {
        if ["-f", "--filename", "-k"].contains(option) {
            is_there(value, place);
        }
    }
    let rest = match *verb {
        "rollout" | "auth" => &rest[1..],
        "cordon" | "drain" | "logs" | "port-forward" | "apply" | "debug" | "exec" => &[],
        _ => rest,
    };
    let Some(first) = rest.first().filter(|_| *verb != "auth") else { return };
    for resource in first.split(',') {
        let (resource, name) = resource.split_once('/').unwrap_or((resource, rest.get(1).unwrap_or(&"")));
        let (resource, field) = resource.split_once('.').unwrap_or((resource, ""));
        let definition = definition(resource);
        let is_known =
            definition.is_some() || RESOURCES.contains(&resource) || resource == "checkpoint-keeper";
        assert!(is_known, "{place}: kubectl {said}: there is no resource {resource}");
        if name.starts_with("checkpoint-keeper-") {
            assert!(deployed(name), "{place}: config/deploy has no {name}");
        }
        let Some(definition) = definition else { continue };
        if *verb == "explain" {
            has_field(definition, field, place);
        }
        for (_, output) in options.iter().filter(|(name, _)| ["-o", "--output"].contains(name)) {
            let paths = output.split("{.").skip(1).filter_map(|part| part.split('}').next());
            paths.filter(|path| !path.contains('[')).for_each(|path| has_field(definition, path, place));
        }
    }
}

/// The schema of a kind of ours, by any of the names that kubectl takes.
fn definition(resource: &str) -> Option<&'static Value> {
    let is_it = |definition: &&Definition| definition.names.iter().any(|name| name == resource);
    DEFINITIONS.iter().find(is_it).map(|definition| &definition.schema)
}

fn has_field(definition: &Value, path: &str, place: &str) {
    let mut schema = definition;
    for field in path.split('.').filter(|field| !field.is_empty()) {
        if field == "metadata" {
            return;
        }
        schema = if schema["items"].is_object() { &schema["items"] } else { schema };
        schema = &schema["properties"][field];
        assert!(schema.is_object(), "{place}: there is no field {path}");
    }
}

/// Whether the manifests of the installation have an object of that name.
fn deployed(name: &str) -> bool {
    files(&repository().join("config/deploy"))
        .iter()
        .any(|file| std::fs::read_to_string(file).unwrap().contains(&format!("name: {name}\n")))
}

/// A path of this repository must be there; other paths are the reader's.
fn is_there(path: &str, place: &str) {
    let path = path.trim_start_matches("./");
    let is_ours =
        ["config/", "examples/", "charts/", "tests/", "docs/"].iter().any(|folder| path.starts_with(folder));
    assert!(
        !is_ours || path.contains('*') || repository().join(path).exists(),
        "{place}: there is no {path}"
    );
}

fn cargo(words: &[String], place: &str) {
    let said = words.join(" ");
    match words.first().map(String::as_str) {
        Some("xtask") => {
            let main = std::fs::read_to_string(repository().join("xtask/src/main.rs")).unwrap();
            let mut name = words[1].clone();
            name[..1].make_ascii_uppercase();
            assert!(main.contains(&format!("Command::{name}")), "{place}: cargo {said}");
        }
        Some("build" | "test" | "run" | "install") => {
            let package = words.iter().skip_while(|word| *word != "--package").nth(1);
            let is_known = package.is_none_or(|package| {
                [
                    "crates/operator",
                    &format!("crates/{package}"),
                    &format!("crates/{}", package.replace("checkpoint-keeper-", "")),
                ]
                .iter()
                .any(|folder| {
                    let manifest = std::fs::read_to_string(repository().join(folder).join("Cargo.toml"));
                    manifest.is_ok_and(|manifest| manifest.contains(&format!("name = \"{package}\"")))
                })
            });
            assert!(is_known, "{place}: cargo {said}");
        }
        _ => panic!("{place}: cargo {said}"),
    }
}

/// What helm does in this book.
const HELM_VERBS: [&str; 5] = ["install", "upgrade", "rollback", "uninstall", "history"];

fn helm(words: &[String], place: &str) {
    let said = words.join(" ");
    assert!(HELM_VERBS.contains(&words[0].as_str()), "{place}: helm {said}");
    words.iter().filter(|word| !word.starts_with('-')).for_each(|word| is_there(word, place));
    for pair in words.windows(2).filter(|pair| pair[0] == "--set") {
        let name = pair[1].split('=').next().unwrap_or_default();
        assert!(is_value(name), "{place}: helm {said}: the chart has no value {name}");
    }
}

/// The schema of one part of a value; a map such as labels takes any key.
fn part_of<'s>(schema: &'s Value, part: &str) -> Option<&'s Value> {
    let any = || schema.get("additionalProperties").filter(|any| any.is_object());
    schema["properties"].get(part).or_else(any)
}

/// Whether the chart has a value of that name.
fn is_value(name: &str) -> bool {
    let file = repository().join("charts/checkpoint-keeper/values.schema.json");
    let schema: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    name.split('.').try_fold(&schema, part_of).is_some()
}

/// Values that stand in the text as `agent.kubeletRootDir`, or with what they are set to.
#[test]
fn every_value_of_the_chart_that_is_named_is_there() {
    let groups = [
        "image.",
        "crds.",
        "rbac.",
        "agent.",
        "controller.",
        "podMonitor.",
        "prometheusRule.",
        "dashboards.",
        "networkPolicies.",
    ];
    let mut count = 0;
    for name in ["install.md", "operations.md"] {
        let page = &crate::source::pages()[name];
        for code in page.text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)) {
            let value = code.split('=').next().unwrap_or_default();
            if groups.iter().any(|group| value.starts_with(group)) {
                count += 1;
                assert!(is_value(value), "{name}: the chart has no value {value}");
            }
        }
    }
    assert!(count > 5, "only {count} values were found");
}

/// A session with our own program is played: it must print the lines that the book shows. A line with nothing but `…`
/// stands for any others.
#[test]
fn a_session_prints_what_the_book_shows() {
    let mut count = 0;
    for Command { words, output, place, is_part } in commands() {
        let Some(expected) = output.filter(|_| words[0] == "checkpoint-keeper" && !is_part) else { continue };
        count += 1;
        let mut process = Process::new(env!("CARGO_BIN_EXE_checkpoint-keeper"));
        let played =
            process.args(&words[1..]).current_dir(repository()).env_remove("COLUMNS").output().unwrap();
        let printed = String::from_utf8(played.stdout).unwrap();
        assert!(played.status.success(), "{place}: {}", String::from_utf8_lossy(&played.stderr));
        assert!(
            matches(&expected, &printed),
            "{place}: {} prints\n{printed}\nand not\n{expected}",
            words.join(" ")
        );
    }
    assert!(count >= 3, "only {count} sessions were found");
}

/// Whether a text has these lines, with others only where a line of `…` stands; how many blanks part words does not count.
fn matches(expected: &str, printed: &str) -> bool {
    let lines = |text: &str| -> Vec<String> {
        let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        text.lines().map(line).filter(|line| !line.is_empty()).collect()
    };
    let (expected, printed) = (lines(expected), lines(printed));
    let mut at = 0;
    let mut may_skip = false;
    for line in expected {
        if line == "…" {
            may_skip = true;
            continue;
        }
        let found = printed[at..].iter().position(|printed| *printed == line);
        match found {
            Some(skipped) if skipped == 0 || may_skip => at += skipped + 1,
            _ => return false,
        }
        may_skip = false;
    }
    may_skip || at == printed.len()
}

#[test]
fn a_session_is_compared_line_by_line() {
    assert!(matches("a  b\nc\n", "a b\n\nc\n"));
    assert!(matches("a\n…\nc\n…\n", "a\nb\nc\nd\n"));
    assert!(!matches("a\nc\n", "a\nb\nc\n"));
    assert!(!matches("a\n…\nd\n", "a\nb\nc\n"));
    assert!(!matches("a\n", "a\nb\n"));
}

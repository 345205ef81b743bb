//! That the book explains every name that users meet: reasons of verdicts, types of problems, and what may become of a
//! request for a checkpoint.

use std::fs;

use crate::source::{pages, repository};

/// The variants of an enum, from its source: each is a name on the wire.
fn variants(file: &str, declaration: &str) -> Vec<String> {
    let text = fs::read_to_string(repository().join(file)).unwrap();
    let (_, after) = text.split_once(declaration).unwrap_or_else(|| panic!("{file} has no {declaration}"));
    let (body, _) = after.split_once("\n}").unwrap();
    let lines = body.lines().map(str::trim);
    let names = lines.filter_map(|line| line.strip_suffix(','));
    names.filter(|name| name.chars().all(char::is_alphabetic)).map(str::to_owned).collect()
}

/// Whether a page has a row of a table, or an entry of a list, that begins with that name.
fn explains(page: &str, name: &str) -> bool {
    let lines = page.lines().filter(|line| line.starts_with("| ") || line.starts_with("* "));
    lines
        .map(|line| line.split(['|', ':']).find(|part| part.contains('`')).unwrap_or_default())
        .any(|first| first.contains(&format!("`{name}`")))
}

/// That a page explains every variant of an enum.
fn explains_all(page: &str, file: &str, declaration: &str) {
    let names = variants(file, declaration);
    assert!(names.len() > 30, "{names:?}");
    let pages = pages();
    for name in names {
        assert!(explains(&pages[page].text, &name), "{page} does not explain {name}");
    }
}

#[test]
fn every_reason_of_a_verdict_is_explained() {
    explains_all("deciding.md", "crates/core/src/plan/verdict.rs", "pub enum Reason {");
}

#[test]
fn every_type_of_problem_is_explained() {
    explains_all("troubleshooting.md", "crates/agent/src/problem_type.rs", "enum ProblemType {");
}

#[test]
fn every_result_of_a_request_is_explained() {
    let text = fs::read_to_string(repository().join("crates/core/src/schedule/messages.rs")).unwrap();
    let pages = pages();
    let mut count = 0;
    for name in text
        .lines()
        .filter_map(|line| line.trim().split_once("=> \""))
        .filter_map(|(_, name)| name.strip_suffix("\","))
    {
        // The triggers are named there, too.
        let is_result = !["Interval", "Schedule", "Annotation", "CPU", "Memory"].contains(&name);
        if is_result {
            count += 1;
            assert!(explains(&pages["schedules.md"].text, name), "schedules.md does not explain {name}");
        }
    }
    assert!(count > 8, "only {count} results were found");
}

//! That every page is in the list of pages, and that every link leads to something.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::source::{Page, folder, pages, repository};

/// The targets of the links of a page.
fn targets(page: &Page) -> Vec<String> {
    let mut targets = Vec::new();
    for line in page.prose() {
        let parts = line.split("](").skip(1);
        targets.extend(parts.map(|part| part.split(')').next().unwrap().to_owned()));
    }
    targets
}

/// A path of the book, seen from a page of it.
fn resolved(page: &str, target: &str) -> String {
    let mut path = PathBuf::new();
    for component in Path::new(page).parent().unwrap().join(target).components() {
        match component {
            Component::ParentDir => assert!(path.pop(), "{page}: {target} leads out of the book"),
            other => path.push(other),
        }
    }
    path.to_str().unwrap().to_owned()
}

/// Each page that is not listed would not be built, and each that is listed must be there.
#[test]
fn the_summary_lists_every_page_once() {
    let pages = pages();
    let listed = targets(&pages["SUMMARY.md"]);
    let names: BTreeSet<&str> = listed.iter().map(String::as_str).collect();
    assert_eq!(names.len(), listed.len(), "a page is listed twice: {listed:?}");
    let there: BTreeSet<&str> =
        pages.keys().map(String::as_str).filter(|name| *name != "SUMMARY.md").collect();
    assert_eq!(there, names);
}

#[test]
fn every_link_leads_to_a_page_and_a_heading_of_it() {
    let pages = pages();
    let mut count = 0;
    for page in pages.values() {
        for target in targets(page) {
            let is_elsewhere = target.starts_with("https://");
            if is_elsewhere {
                continue;
            }
            count += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let name = if path.is_empty() { page.name.clone() } else { resolved(&page.name, path) };
            match pages.get(&name) {
                Some(other) => {
                    let is_there = anchor.is_empty() || other.anchors().iter().any(|one| one == anchor);
                    assert!(
                        is_there,
                        "{}: {name} has no heading #{anchor}: {:?}",
                        page.name,
                        other.anchors()
                    );
                }
                None => assert!(folder().join(&name).is_file(), "{}: there is no {name}", page.name),
            }
        }
    }
    assert!(count > 30, "only {count} links were found");
}

/// The documents of the repository that are no pages of the book, but link to it.
#[test]
fn every_link_of_the_front_pages_leads_to_something() {
    let pages = pages();
    let mut count = 0;
    for name in ["README.md", "SECURITY.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let text = std::fs::read_to_string(repository().join(name)).unwrap();
        for target in targets(&Page { name: name.to_owned(), text }) {
            if target.starts_with("https://") {
                continue;
            }
            count += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            assert!(repository().join(path).is_file(), "{name}: there is no {path}");
            if !anchor.is_empty() {
                let page = pages.get(path.trim_start_matches("docs/book/src/"));
                let page = page.unwrap_or_else(|| panic!("{name}: {path} is no page of the book"));
                assert!(
                    page.anchors().iter().any(|one| one == anchor),
                    "{name}: {path} has no heading #{anchor}"
                );
            }
        }
    }
    assert!(count > 10, "only {count} links were found");
}

/// What stands in the text as a path of the repository.
#[test]
fn every_path_of_the_repository_that_is_named_is_there() {
    let folders = ["config/", "examples/", "docs/", "crates/", "charts/", "tests/", "xtask/", "fuzz/"];
    let mut count = 0;
    for page in pages().values() {
        for code in page.text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)) {
            if folders.iter().any(|folder| code.starts_with(folder)) && !code.contains(['*', '<', ' ']) {
                count += 1;
                assert!(repository().join(code).exists(), "{}: there is no {code}", page.name);
            }
        }
    }
    assert!(count > 10, "only {count} paths were found");
}

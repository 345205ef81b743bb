//! `cargo xtask book`: the book as web pages, by mdBook, and that none of their links is broken.
//!
//! What needs no mdBook is tested without it: `crates/operator/tests/book`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::cargo::Tool;
use crate::repository::{repository, target};

/// Only what makes pages and searches them is built, and no server.
const MDBOOK: Tool =
    Tool { name: "mdbook", version: "0.5.4", arguments: &["--no-default-features", "--features=search"] };

pub(crate) fn run() -> anyhow::Result<()> {
    let pages = build()?;
    println!("{}", pages.join("index.html").display());
    Ok(())
}

/// Builds the pages, and says in which folder they are.
pub(crate) fn build() -> anyhow::Result<PathBuf> {
    let program = MDBOOK.provide()?;
    let pages = target().join("book");
    if pages.exists() {
        std::fs::remove_dir_all(&pages).with_context(|| format!("cannot remove {}", pages.display()))?;
    }
    let mut command = Command::new(program);
    command.arg("build").arg(repository().join("docs/book")).arg("--dest-dir").arg(&pages);
    let output = command.output().context("cannot run mdbook")?;
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // A page that is not there and an inclusion that fails are warnings and errors of its log, and no failure.
    ensure!(
        output.status.success() && !said.contains("WARN") && !said.contains("ERROR"),
        "mdbook says:\n{said}"
    );
    check_links(&pages)?;
    Ok(pages)
}

/// What a page links to, and what can be linked to in it.
#[derive(Default)]
struct Page {
    targets: Vec<String>,
    anchors: BTreeSet<String>,
}

fn check_links(folder: &Path) -> anyhow::Result<()> {
    let mut pages = BTreeMap::new();
    for path in files(folder)? {
        let name = path.strip_prefix(folder)?.to_path_buf();
        let mut page = Page::default();
        if path.extension().is_some_and(|end| end == "html") {
            let text = std::fs::read_to_string(&path)?;
            page.targets = [attributes(&text, " href=\""), attributes(&text, " src=\"")].concat();
            page.anchors = attributes(&text, " id=\"").into_iter().collect();
        }
        pages.insert(name, page);
    }
    let mut broken = Vec::new();
    let mut count = 0;
    for (name, page) in &pages {
        // Which pages there are, for a path that nobody knows from where it is asked for.
        let is_of_anywhere = name.file_name().is_some_and(|name| name == "404.html");
        for target in page.targets.iter().filter(|target| !is_of_anywhere && !is_elsewhere(target)) {
            count += 1;
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let other = if path.is_empty() { Some(name.clone()) } else { resolved(name, path) };
            let other = other.and_then(|other| pages.get(&other));
            let is_there = other.is_some_and(|other| anchor.is_empty() || other.anchors.contains(anchor));
            if !is_there {
                broken.push(format!("{}: {target}", name.display()));
            }
        }
    }
    ensure!(count > 100, "only {count} links were found in {}", folder.display());
    if !broken.is_empty() {
        bail!("broken links in the book:\n{}", broken.join("\n"));
    }
    Ok(())
}

fn is_elsewhere(target: &str) -> bool {
    ["https://", "http://", "data:"].iter().any(|scheme| target.starts_with(scheme))
}

/// The values of an attribute in a page.
fn attributes(page: &str, attribute: &str) -> Vec<String> {
    let parts = page.split(attribute).skip(1);
    parts.filter_map(|part| Some(part.split_once('"')?.0.replace("&amp;", "&"))).collect()
}

/// A path of the book, seen from a page of it; none outside of it.
fn resolved(page: &Path, target: &str) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for component in page.parent()?.join(target).components() {
        match component {
            Component::ParentDir => path.pop().then_some(())?,
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    Some(path)
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() { all.extend(files(&path)?) } else { all.push(path) }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_link_is_found() {
        let folder = tempfile::TempDir::new().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        let links = "<a href=\"b.html#there\">b</a>".repeat(101);
        write("a.html", &links);
        write("b.html", "<h1 id=\"there\">b</h1><img src=\"https://example.com/picture\">");
        check_links(folder.path()).unwrap();
        for broken in ["b.html#gone", "c.html", "../b.html", "#gone"] {
            write("b.html", &format!("<h1 id=\"there\">b</h1><a href=\"{broken}\">c</a>"));
            let error = check_links(folder.path()).unwrap_err().to_string();
            assert!(error.contains(&format!("b.html: {broken}")), "{error}");
        }
    }
}

//! The pages of the book as they are rendered: with what they include, and taken apart into blocks.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use checkpoint_keeper_api::crds::{crds, legacy_crds};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

/// This repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The folder of the pages.
pub(crate) fn folder() -> PathBuf {
    repository().join("docs/book/src")
}

/// A kind of ours, or of the older operator.
pub(crate) struct Definition {
    /// Its group and version, as manifests have it.
    pub(crate) api_version: String,
    /// Its name.
    pub(crate) kind: String,
    /// All names by which kubectl knows it.
    pub(crate) names: Vec<String>,
    /// What its objects may hold.
    pub(crate) schema: Value,
}

/// All kinds.
pub(crate) static DEFINITIONS: LazyLock<Vec<Definition>> = LazyLock::new(|| {
    let all = [crds(), legacy_crds()].concat();
    let definition = |crd: CustomResourceDefinition| {
        let (names, version) = (crd.spec.names, &crd.spec.versions[0]);
        let schema = serde_json::to_value(&version.schema).unwrap()["openAPIV3Schema"].clone();
        let api_version = format!("{}/{}", crd.spec.group, version.name);
        let others = names.singular.into_iter().chain(names.short_names.unwrap_or_default());
        Definition { api_version, kind: names.kind, names: others.chain([names.plural]).collect(), schema }
    };
    all.into_iter().map(definition).collect()
});

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its path below the folder: `policies/production.md`.
    pub(crate) name: String,
    /// Its text, with what it includes in place.
    pub(crate) text: String,
}

/// A fenced block of code.
#[derive(Debug)]
pub(crate) struct Block {
    /// What is behind the fence: `yaml`.
    pub(crate) language: String,
    /// What is between the fences.
    pub(crate) text: String,
    /// Where it is, for messages.
    pub(crate) place: String,
}

/// All pages, the list of them included, by name.
pub(crate) fn pages() -> BTreeMap<String, Page> {
    let folder = folder();
    let mut pages = BTreeMap::new();
    for path in files(&folder).into_iter().filter(|path| path.extension().is_some_and(|end| end == "md")) {
        let name = path.strip_prefix(&folder).unwrap().to_str().unwrap().to_owned();
        let text = expanded(&path);
        pages.insert(name.clone(), Page { name, text });
    }
    assert!(pages.len() > 10, "only {} pages were found", pages.len());
    pages
}

/// All files below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

/// A page's text with what it includes, as mdBook puts it together: whole files, and the parts between two anchors.
fn expanded(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (mut whole, mut rest) = (String::new(), text.as_str());
    while let Some((before, after)) = rest.split_once("{{#include ") {
        let (target, after) = after.split_once("}}").unwrap();
        let (file, anchor) = target.trim().split_once(':').unwrap_or((target.trim(), ""));
        let included = path.parent().unwrap().join(file);
        let included = expanded(&included);
        whole.push_str(before);
        whole.push_str(
            &part(&included, anchor).unwrap_or_else(|| panic!("{}: no anchor {anchor}", path.display())),
        );
        rest = after;
    }
    whole + rest
}

/// What stands between the anchors of that name; all of it for none.
fn part(text: &str, anchor: &str) -> Option<String> {
    let is_mark = |line: &&str| line.contains("ANCHOR: ") || line.contains("ANCHOR_END: ");
    let keep = |lines: &mut dyn Iterator<Item = &str>| {
        let lines: Vec<&str> = lines.filter(|line| !is_mark(line)).collect();
        lines.join("\n")
    };
    if anchor.is_empty() {
        return Some(keep(&mut text.lines()));
    }
    let ends = |line: &str, mark: &str| {
        line.split_once(mark).is_some_and(|(_, name)| name.split_whitespace().next() == Some(anchor))
    };
    let from = text.lines().position(|line| ends(line, "ANCHOR: "))?;
    let length = text.lines().skip(from).position(|line| ends(line, "ANCHOR_END: "))?;
    Some(keep(&mut text.lines().skip(from).take(length)))
}

impl Page {
    /// Its blocks of code, in their order.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let (mut blocks, mut open): (_, Option<Block>) = (Vec::new(), None);
        for (number, line) in (1..).zip(self.text.lines()) {
            match (line.trim_start().strip_prefix("```"), &mut open) {
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(language), None) => {
                    let place = format!("{} (line {number} with its inclusions)", self.name);
                    open = Some(Block { language: language.to_owned(), text: String::new(), place });
                }
                (None, Some(block)) => {
                    block.text.push_str(line);
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block has no end", self.name);
        blocks
    }

    /// Its lines outside of blocks, without code within the line.
    pub(crate) fn prose(&self) -> Vec<String> {
        let mut is_open = false;
        let mut lines = Vec::new();
        for line in self.text.lines() {
            if line.trim_start().starts_with("```") {
                is_open = !is_open;
            } else if !is_open {
                // Every second part is code.
                lines.push(line.split('`').step_by(2).collect::<Vec<_>>().join("`"));
            }
        }
        lines
    }

    /// What can be linked to: the IDs that mdBook gives its headings.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let mut anchors: Vec<String> = Vec::new();
        let mut is_open = false;
        for line in self.text.lines() {
            is_open ^= line.trim_start().starts_with("```");
            let heading = line.trim_start_matches('#');
            if is_open || heading.len() == line.len() || !heading.starts_with(' ') {
                continue;
            }
            let letters = heading.trim().chars().filter_map(|letter| match letter {
                _ if letter.is_alphanumeric() || "_-".contains(letter) => letter.to_lowercase().next(),
                _ => letter.is_whitespace().then_some('-'),
            });
            let name: String = letters.collect();
            let times = anchors.iter().filter(|anchor| **anchor == name).count();
            anchors.push(if times == 0 { name } else { format!("{name}-{times}") });
        }
        anchors
    }
}

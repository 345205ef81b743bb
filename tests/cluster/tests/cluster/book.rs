//! That the real API server takes every manifest in the book, and knows what its commands are about.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::process::output;

use crate::support::{NODES, REPOSITORY, cluster, install_crds};

/// The pages.
fn pages(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            all.extend(pages(&path)?);
        } else if path.extension().is_some_and(|end| end == "md") {
            all.push(path);
        }
    }
    Ok(all)
}

/// The manifests that a page shows itself, also within lists. Those that it includes are examples, which `crds` applies.
fn manifests(page: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(indent) = line.strip_suffix("```yaml").filter(|indent| indent.trim().is_empty()) else {
            continue;
        };
        let block = lines.by_ref().take_while(|line| line.trim() != "```");
        all.push(block.map(|line| line.strip_prefix(indent).unwrap_or(line)).collect::<Vec<_>>().join("\n"));
    }
    all.retain(|block| !block.contains("{{#include"));
    all
}

#[test]
fn the_api_server_takes_every_manifest_of_the_book() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install_crds()?;
    let mut all = Vec::new();
    for path in pages(&Path::new(REPOSITORY).join("docs/book/src"))? {
        let page = std::fs::read_to_string(&path)?;
        all.extend(manifests(&page));
    }
    ensure!(all.len() >= 6, "only {} manifests were found", all.len());
    // What they are for need not be there, but a dry run wants the namespace.
    cluster().apply("{apiVersion: v1, kind: Namespace, metadata: {name: shop}}")?;
    let file = cluster().state().shared().join("book.yaml");
    std::fs::write(&file, all.join("\n---\n"))?;
    let file = file.to_str().context("a path of letters")?;
    let said = output(&mut cluster().kubectl(&[
        "apply",
        "--dry-run=server",
        "--validate=strict",
        "--filename",
        file,
    ]))?;
    let taken = said.lines().filter(|line| line.contains("(server dry run)")).count();
    ensure!(taken >= all.len(), "of {} manifests the API server took {taken}: {said}", all.len());
    Ok(())
}

/// The commands of a page that change nothing, or are told to: what is applied, and lists.
fn commands(page: &str) -> Vec<Vec<&str>> {
    let blocks = page.split("```sh\n").skip(1).filter_map(|block| block.split("```").next());
    let lines = blocks.flat_map(str::lines).filter_map(|line| line.trim().strip_prefix("kubectl "));
    let words = lines.map(|line| line.split_whitespace().take_while(|word| *word != "#").collect::<Vec<_>>());
    let is_list = |words: &[&str]| {
        let is_of_all = |word: &&str| ["-A", "--all-namespaces"].contains(word);
        matches!(words, ["get", _]) || matches!(words, ["get", _, all] if is_of_all(all))
    };
    let is_apply =
        |words: &[&str]| matches!(words, ["apply", "-f", file, ..] if file.starts_with("examples/"));
    words.filter(|words| is_list(words) || is_apply(words)).collect()
}

#[test]
fn commands_of_the_book_work() -> anyhow::Result<()> {
    let _whole = NODES.read();
    install_crds()?;
    let (mut applied, mut listed) = (0, 0);
    for path in pages(&Path::new(REPOSITORY).join("docs/book/src"))? {
        let page = std::fs::read_to_string(&path)?;
        for mut words in commands(&page) {
            if words[0] == "apply" {
                applied += 1;
                words.push("--dry-run=server");
            } else {
                listed += 1;
            }
            let mut command = cluster().kubectl(&words);
            output(command.current_dir(REPOSITORY)).with_context(|| format!("{}", path.display()))?;
        }
    }
    ensure!(applied >= 5 && listed >= 2, "only {applied} and {listed} commands were found");
    Ok(())
}

//! `checkpoint-keeper inspect`: what an archive is.

use std::path::Path;

use anyhow::Context;
use checkpoint_keeper_core::archive::Inspection;
use checkpoint_keeper_core::engine::file::Stat;
use checkpoint_keeper_core::name::{FileName, NameKind};
use checkpoint_keeper_node::store::{Store, inspect_file};

use crate::cli::{InspectArguments, InspectOutput};
use crate::failure::{Failure, say};
use crate::output::text::safe;
use crate::output::{self, inspection::Inspected};

/// Inspects every path, naming each that cannot be read.
pub fn run(arguments: &InspectArguments) -> Result<(), Failure> {
    let mut inspected = Vec::new();
    let mut failures = 0;
    for path in &arguments.paths {
        let found = if path.is_dir() {
            inspect_directory(path, &mut inspected)
        } else {
            inspect_one(path, &mut inspected)
        };
        match found {
            Ok(failed) => failures += failed,
            Err(error) => {
                say("error", format!("{error:#}"));
                failures += 1;
            }
        }
    }
    match arguments.output {
        InspectOutput::Json => output::json::inspected(&inspected)?,
        InspectOutput::Text => output::text::inspected(&inspected)?,
    }
    if failures > 0 { Err(Failure::Named) } else { Ok(()) }
}

fn inspect_one(path: &Path, inspected: &mut Vec<Inspected>) -> anyhow::Result<usize> {
    let (stat, inspection) = inspect_file(path).with_context(|| shown(path))?;
    let name = path.file_name().and_then(|name| FileName::new(name.as_encoded_bytes()));
    let name = name.with_context(|| format!("{} names no file", shown(path)))?;
    inspected.push(Inspected::new(&name, path, &stat, inspection));
    Ok(0)
}

/// Inspects all archives of a directory; says how many could not be read.
fn inspect_directory(path: &Path, inspected: &mut Vec<Inspected>) -> anyhow::Result<usize> {
    let store = Store::open(path)?;
    let mut listing = store.list().with_context(|| format!("cannot list {}", shown(path)))?;
    listing.files.sort_by(|(one, _), (other, _)| one.cmp(other));
    let mut failures = listing.failures.len();
    for (name, error) in &listing.failures {
        say("error", format!("{name}: {error}"));
    }
    for (name, _) in &listing.files {
        match store.inspect(name) {
            Ok((stat, inspection)) if is_archive(name, &inspection) => {
                let path = path.join(std::ffi::OsStr::new(&*String::from_utf8_lossy(name.as_bytes())));
                inspected.push(of(name, &path, &stat, inspection));
            }
            Ok(_) => {}
            Err(error) => {
                say("error", format!("{name}: {error}"));
                failures += 1;
            }
        }
    }
    Ok(failures)
}

fn of(name: &FileName, path: &Path, stat: &Stat, inspection: Inspection) -> Inspected {
    Inspected::new(name, path, stat, inspection)
}

/// A tar by another name than the kubelet's counts as an archive if it is one inside.
fn is_archive(name: &FileName, inspection: &Inspection) -> bool {
    name.kind() == NameKind::Kubelet || inspection.contents.state.is_whole()
}

/// A path, safe for a terminal.
fn shown(path: &Path) -> String {
    safe(&path.to_string_lossy())
}

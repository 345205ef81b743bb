//! `checkpoint-keeper inspect`: what an archive is.

use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::Context;
use checkpoint_keeper_core::archive::Inspection;
use checkpoint_keeper_core::name::{FileName, NameKind};
use checkpoint_keeper_node::store::{Store, inspect_file};

use crate::cli::{InspectArguments, InspectOutput};
use crate::failure::{Failure, say};
use crate::output::text::safe;
use crate::output::{
    self,
    inspection::{Inspected, InspectedFile},
};

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
        InspectOutput::Text => output::blocks::inspected(&inspected)?,
    }
    if failures > 0 { Err(Failure::AlreadyReported) } else { Ok(()) }
}

fn inspect_one(path: &Path, inspected: &mut Vec<Inspected>) -> anyhow::Result<usize> {
    let (stat, inspection) = inspect_file(path).with_context(|| shown(path))?;
    let name = FileName::of_path(path);
    let name = name.with_context(|| format!("{} names no file", shown(path)))?;
    let file = InspectedFile { name: &name, path, stat: &stat, is_pinned: is_pinned(path) };
    inspected.push(Inspected::new(&file, inspection));
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
                let is_pinned = store.is_pinned(name);
                let file = InspectedFile { name, path: &path, stat: &stat, is_pinned };
                inspected.push(Inspected::new(&file, inspection));
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

/// Whether a marker lies beside a file, wherever links lead to. As where archives are deleted, one that cannot be
/// looked at counts as one.
fn is_pinned(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return true };
    let name = FileName::of_path(&path);
    let Some(marker) = name.map(|name| name.marker()) else { return false };
    let found = path.with_file_name(OsStr::from_bytes(marker.as_bytes())).symlink_metadata();
    !matches!(found, Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidFilename))
}

/// A tar by another name than the kubelet's counts as an archive if it is one inside.
fn is_archive(name: &FileName, inspection: &Inspection) -> bool {
    name.kind() == NameKind::Kubelet || inspection.contents.state.is_whole()
}

/// A path, safe for a terminal.
fn shown(path: &Path) -> String {
    safe(&path.to_string_lossy())
}

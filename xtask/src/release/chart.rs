//! The chart as users get it: of this version, with the image that is released.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::chart::{self, CHART};
use checkpoint_keeper_testcluster::paths::Cache;
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::tools::Tools;

use super::VERSION;
use crate::repository::repository;

/// The image in the chart's values, until one is released.
const PLACEHOLDERS: [&str; 2] = ["  repository: \"localhost/checkpoint-keeper\"\n", "  tag: \"dev\"\n"];

/// Packs it for helm; `image` is the image's name without a tag.
pub(super) fn write(to: &Path, image: &str) -> anyhow::Result<()> {
    let helm = Tools::provide(&Cache::of_user()?)?.helm();
    let folder = tempfile::tempdir()?;
    let copy = folder.path().join("checkpoint-keeper");
    chart::copy_as(&repository().join(CHART), &copy, VERSION)?;
    let described = std::fs::read_to_string(repository().join(CHART).join("Chart.yaml"))?;
    for wanted in [format!("version: {VERSION}"), format!("appVersion: \"{VERSION}\"")] {
        ensure!(described.lines().any(|line| line == wanted), "Chart.yaml has no line {wanted:?}");
    }
    let path = copy.join("values.yaml");
    let mut values = std::fs::read_to_string(&path).context("cannot read the chart's values")?;
    let released = [format!("  repository: \"{image}\"\n"), format!("  tag: \"{VERSION}\"\n")];
    for (placeholder, released) in PLACEHOLDERS.iter().zip(released) {
        ensure!(values.contains(placeholder), "the chart's values have no line {placeholder:?}");
        values = values.replace(placeholder, &released);
    }
    std::fs::write(&path, values)?;
    output(Command::new(helm).arg("package").arg(&copy).arg("--destination").arg(to))?;
    Ok(())
}

/// That the packed chart names the image of its version.
pub(super) fn check(packed: &Path) -> anyhow::Result<()> {
    let helm = Tools::provide(&Cache::of_user()?)?.helm();
    let rendered = chart::template(&helm, packed, &[])?;
    let images: Vec<&str> = rendered.lines().filter_map(|line| line.trim().strip_prefix("image: ")).collect();
    ensure!(!images.is_empty(), "it runs no image");
    for image in images {
        let image = image.trim_matches('"');
        ensure!(
            image.ends_with(&format!(":{VERSION}")),
            "it runs {image}, which is not of version {VERSION}"
        );
    }
    Ok(())
}

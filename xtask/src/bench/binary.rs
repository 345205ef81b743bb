//! How large the program is: the one that an image holds, linked statically, and the one for a machine.

use super::directory::Bench;
use super::row::{Budget, Row};
use crate::image;

const ID: &str = "binary";

/// MiB of the static one.
const MOST: f64 = 18.0;

pub(super) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mebibytes = |size: u64| size as f64 / f64::from(1 << 20);
    let what = "checkpoint-keeper, release build, stripped";
    let row = match &bench.binary {
        Some(binary) => Row::new(ID, what, mebibytes(binary.metadata()?.len()), "MiB"),
        None => Row::skipped(ID, what, "not built: cargo build --release -p checkpoint-keeper"),
    };
    let what = "the same, linked statically, as an image holds it";
    let linked = if bench.quick {
        Row::skipped(ID, what, "not built for a first impression")
    } else {
        Row::new(ID, what, mebibytes(image::build()?.metadata()?.len()), "MiB").budget(Budget::AtMost(MOST))
    };
    Ok(vec![row, linked])
}

//! How large the program is.

use super::directory::Bench;
use super::row::{Budget, Row};

const ID: &str = "binary";
const MOST: f64 = 16.0;

pub(super) fn rows(bench: &Bench) -> Vec<Row> {
    let what = "checkpoint-keeper, release build, stripped";
    let size = bench.binary.as_deref().and_then(|binary| binary.metadata().ok()).map(|found| found.len());
    let row = match size {
        Some(size) => {
            Row::new(ID, what, size as f64 / f64::from(1 << 20), "MiB").budget(Budget::AtMost(MOST))
        }
        None => Row::skipped(ID, what, "not built: cargo build --release -p checkpoint-keeper"),
    };
    vec![row]
}

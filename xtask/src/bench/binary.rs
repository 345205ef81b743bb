//! How large the program is, as an image holds it: linked statically.

use super::directory::Bench;
use super::row::{Budget, Row};

const ID: &str = "binary";

/// MiB.
const MOST: f64 = 18.0;

pub(super) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let what = "checkpoint-keeper, release build, linked statically, stripped";
    let row = match &bench.binary {
        Some(binary) => {
            let size = binary.metadata()?.len() as f64 / f64::from(1 << 20);
            Row::new(ID, what, size, "MiB").budget(Budget::AtMost(MOST))
        }
        None => Row::skipped(ID, what, "not built: cargo xtask image"),
    };
    Ok(vec![row])
}

//! What has no budget and is good to know: huge archives, and a directory of 100 000.

use super::directory::Bench;
use super::row::Row;
use super::timing::{self, microseconds, milliseconds};
use super::{first_index, identify, sweep};

const ID: &str = "sparse";

pub(super) fn rows(bench: &mut Bench) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for subject in identify::sparse(&bench.empty("sparse")?)? {
        let times = identify::identify_again_and_again(&subject.path, bench.either(500, 100))?;
        let what = format!("identify an archive of {}", subject.what);
        rows.push(Row::new(ID, what, microseconds(times.median()), "µs").samples(times.len()));
    }
    let archives = bench.either(100_000, 10_000);
    let directory = bench.population(archives)?;
    first_index::look(&directory, archives)?;
    let looks = timing::rounds(3, || first_index::look(&directory, archives))?;
    let what = format!("first look at {archives} small archives");
    rows.push(Row::new(ID, what, milliseconds(looks.median()), "ms").samples(looks.len()));
    rows.push(sweep::row(ID, &directory, archives, 5)?);
    Ok(rows)
}

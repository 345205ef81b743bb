//! Freeing blocks that were really written, and whether anybody waits meanwhile.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use checkpoint_keeper_core::plan::plan;
use checkpoint_keeper_core::policy::{Kind, Policy, PolicyRef, PolicySet, Precedence, Retention, Selector};
use checkpoint_keeper_node::clock::Now;
use checkpoint_keeper_node::store::Removal;
use checkpoint_keeper_node::sweeper::Sweeper;

use super::directory::{self, Bench};
use super::first_index;
use super::row::Row;
use super::timing::milliseconds;

const ID: &str = "unlink-space";
const MIB: u64 = 1 << 20;
const FILES: u64 = 4;
const DEADLINE: Duration = Duration::from_mins(1);

pub(super) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let each = bench.either(256, 64) * MIB;
    let directory = bench.empty(ID)?;
    for container in 0..FILES {
        write(&directory, usize::try_from(container)?, each)?;
    }
    let mut collector = first_index::look(&directory, usize::try_from(FILES)?)?;
    let now = Now::read();
    let (snapshot, _) = collector.snapshot(now);
    let plan = plan(&snapshot, &nothing_stays(), now.wall);
    let deletions = collector.mark_for_deletion(&snapshot, &plan);
    ensure!(deletions.len() as u64 == FILES, "{} of {FILES} archives are to go", deletions.len());
    let mut sweeper = Sweeper::start()?;
    let start = Instant::now();
    for deletion in deletions {
        sweeper.delete(collector.store(), deletion);
    }
    let (mut done, mut looks, mut longest) = (0, 0_usize, Duration::ZERO);
    while done < FILES {
        ensure!(start.elapsed() < DEADLINE, "the archives are still there");
        for outcome in sweeper.outcomes() {
            ensure!(matches!(outcome.removal, Removal::Removed), "{:?}", outcome.removal);
            done += 1;
        }
        let look = Instant::now();
        collector.look(Now::read(), &mut |_, _| {});
        longest = longest.max(look.elapsed());
        looks += 1;
    }
    let time = start.elapsed();
    let what = format!("unlink {FILES} written archives, {} MiB together", FILES * each / MIB);
    let longest = milliseconds(longest);
    Ok(vec![
        Row::new(ID, what, milliseconds(time), "ms")
            .note(format!("{looks} looks at the directory meanwhile, the longest {longest:.2} ms")),
    ])
}

/// An archive whose pages are on the disk.
fn write(directory: &Path, container: usize, pages: u64) -> anyhow::Result<()> {
    let archive = directory::archive(container, jiff::Timestamp::from_second(1_750_000_000)?);
    let (before, after) = archive.around_pages(pages)?;
    let mut file = File::create(directory.join(archive.file_name()))?;
    file.write_all(&before)?;
    let block = vec![0xa5; usize::try_from(MIB)?];
    for _ in 0..pages / MIB {
        file.write_all(&block)?;
    }
    file.write_all(&after)?;
    file.set_modified(directory::long_ago())?;
    file.sync_all().context("cannot write archives to the disk")
}

fn nothing_stays() -> PolicySet {
    let id = PolicyRef {
        kind: Kind::ClusterCheckpointPolicy,
        namespace: None,
        name: "nothing-stays".to_owned(),
        part: None,
    };
    let retention =
        Retention { keep_latest: 0, max_age: Some(Duration::from_secs(1)), ..Retention::default() };
    let policy = Policy {
        id,
        created: None,
        namespace: None,
        mode: checkpoint_keeper_core::policy::Mode::Enforce,
        selector: Selector::default(),
        retention,
        orphans: None,
        incomplete_grace: None,
        damaged_grace: None,
        precedence: Precedence::Default,
    };
    PolicySet { retention: vec![policy], ..PolicySet::default() }
}

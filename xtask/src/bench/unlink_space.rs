//! Freeing blocks that were really written, and whether other processes have to wait meanwhile.

use std::fs::File;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use checkpoint_keeper_core::engine::config::EngineConfig;
use checkpoint_keeper_core::engine::{Haste, Settings};
use checkpoint_keeper_core::policy::{Kind, Policy, PolicyRef, PolicySet, Precedence, Retention, Selector};
use checkpoint_keeper_node::driver::{CatalogUse, Driver};
use checkpoint_keeper_node::mailbox;
use checkpoint_keeper_node::store::Store;

use super::directory::{self, Bench};
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
    let store = Store::open(&directory)?;
    store.lock()?;
    let (driver, _) = Driver::new(store, Settings::default(), CatalogUse::None);
    let (sender, receiver) = mailbox::channel()?;
    let (stop, stopped) = UnixStream::pair()?;
    let driving = std::thread::spawn(move || driver.run(&receiver, Duration::from_hours(1), stopped, |_| {}));
    let start = Instant::now();
    sender.send_config(EngineConfig::policies(nothing_stays()), Haste::AtOnce);
    let (mut looks, mut longest) = (0, Duration::ZERO);
    let other = Store::open(&directory)?;
    loop {
        ensure!(start.elapsed() < DEADLINE, "the archives are still there");
        let look = Instant::now();
        let left = other.list()?.files.len();
        longest = longest.max(look.elapsed());
        looks += 1;
        if left == 0 {
            break;
        }
    }
    let time = start.elapsed();
    (&stop).write_all(b"x")?;
    driving.join().map_err(|_| anyhow::anyhow!("the driver panicked"))??;
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

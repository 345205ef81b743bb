//! What the tests of this crate share.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_core::policy::{
    Kind, Limit, Mode, Policy, PolicyRef, PolicySet, Precedence, Retention, Selector,
};
use checkpoint_keeper_testkit::ArchiveBuilder;

pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) fn name(text: impl AsRef<[u8]>) -> FileName {
    FileName::new(text.as_ref()).unwrap()
}

/// An archive of `container` in `team/web-0`, taken at that second of a morning long ago.
pub(crate) fn archive(container: &str, second: u32) -> ArchiveBuilder {
    let (minute, second) = (second / 60, second % 60);
    ArchiveBuilder::new("team", "web-0", container).at(&format!("2026-01-01T06:{minute:02}:{second:02}Z"))
}

/// Writes it as if it had been there for long.
pub(crate) fn write_old(directory: &Path, archive: &ArchiveBuilder) -> PathBuf {
    let path = archive.write_to(directory).unwrap();
    age(&path);
    path
}

/// Makes a file look as if it had last changed long ago.
pub(crate) fn age(path: &Path) {
    let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    std::fs::File::options().append(true).open(path).unwrap().set_modified(long_ago).unwrap();
}

/// A policy for everything.
pub(crate) fn policy(retention: Retention) -> PolicySet {
    let id = PolicyRef {
        kind: Kind::ClusterCheckpointPolicy,
        namespace: None,
        name: "default".to_owned(),
        part: None,
    };
    let policy = Policy {
        id,
        created: None,
        namespace: None,
        mode: Mode::Enforce,
        selector: Selector::default(),
        retention,
        orphans: None,
        incomplete_grace: None,
        damaged_grace: None,
        precedence: Precedence::Default,
    };
    PolicySet { retention: vec![policy], ..PolicySet::default() }
}

pub(crate) fn per_container(max_count: u64) -> PolicySet {
    policy(Retention {
        per_container: Limit { max_count: Some(max_count), max_total_size: None },
        ..Retention::default()
    })
}

/// The names of all files in a directory.
pub(crate) fn files(directory: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Waits until `condition` holds, and says what is wrong if it never does.
pub(crate) fn wait_until<T: std::fmt::Debug>(
    what: &str,
    observe: impl Fn() -> T,
    condition: impl Fn(&T) -> bool,
) -> T {
    let begin = Instant::now();
    loop {
        let seen = observe();
        if condition(&seen) {
            return seen;
        }
        assert!(begin.elapsed() < DEADLINE, "never came true: {what}; last seen: {seen:#?}");
        std::thread::yield_now();
    }
}

//! Reading archives, several at once: most of it is waiting for the disk.

use std::io;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use checkpoint_keeper_core::archive::Contents;
use checkpoint_keeper_core::name::FileName;

use checkpoint_keeper_core::engine::file::Stat;

use crate::store::Store;

/// The most readers: each may hold the largest member that is read.
const MOST_READERS: usize = 4;

/// What a reader must have to do to be worth its start.
const WORTH_A_READER: usize = 8;

/// What [`Store::read`] says of each archive, in their order.
pub(crate) fn read_all(store: &Store, archives: &[(&FileName, &Stat)]) -> Vec<io::Result<Option<Contents>>> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let readers = MOST_READERS.min(cores).min(archives.len().div_ceil(WORTH_A_READER));
    if readers < 2 {
        return archives.iter().map(|(name, stat)| store.read(name, stat)).collect();
    }
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(archives.len()));
    let work = || {
        let mut read = Vec::new();
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            let Some((name, stat)) = archives.get(place) else { break };
            read.push((place, store.read(name, stat)));
        }
        results.lock().unwrap_or_else(PoisonError::into_inner).extend(read);
    };
    thread::scope(|scope| {
        for _ in 1..readers {
            // Without it, there are fewer.
            let _ = thread::Builder::new().name("reader".to_owned()).spawn_scoped(scope, work);
        }
        work();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, contents)| contents).collect()
}

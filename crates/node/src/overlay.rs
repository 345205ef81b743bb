//! A catalog's file as redb sees it in a dry run: it can be repaired and written, and stays as it is on the
//! disk. What is written stands in memory, page by page.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;

const PAGE: u64 = 4096;

/// A file below, and what was written above it.
#[derive(Debug)]
pub(crate) struct Overlay {
    file: File,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    /// How long it seems to be.
    length: u64,
    /// How much of the file below still shows: what was cut off does not come back.
    below: u64,
    pages: HashMap<u64, Vec<u8>>,
}

impl Overlay {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, written: Mutex::new(Written { length, below: length, pages: HashMap::new() }) })
    }

    fn written(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A page as the file below has it; zeros where that has none.
    fn page(&self, number: u64, below: u64) -> io::Result<Vec<u8>> {
        let mut page = vec![0; as_index(PAGE)];
        let begin = number * PAGE;
        let there = as_index(below.saturating_sub(begin).min(PAGE));
        self.file.read_exact_at(&mut page[..there], begin)?;
        Ok(page)
    }

    /// Calls `each` with every page that a range touches: its number, the range in it, and the range of the whole.
    fn pages(
        offset: u64,
        length: usize,
        mut each: impl FnMut(u64, std::ops::Range<usize>, std::ops::Range<usize>) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let at = offset + done as u64;
            let begin = as_index(at % PAGE);
            let count = (as_index(PAGE) - begin).min(length - done);
            each(at / PAGE, begin..begin + count, done..done + count)?;
            done += count;
        }
        Ok(())
    }
}

/// Never more than a page or a buffer.
fn as_index(amount: u64) -> usize {
    usize::try_from(amount).unwrap_or(usize::MAX)
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written();
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > written.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Self::pages(offset, out.len(), |number, inside, whole| {
            match written.pages.get(&number) {
                Some(page) => out[whole].copy_from_slice(&page[inside]),
                None => out[whole].copy_from_slice(&self.page(number, written.below)?[inside]),
            }
            Ok(())
        })
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut written = self.written();
        if length < written.length {
            written.below = written.below.min(length);
            written.pages.retain(|number, _| number * PAGE < length);
            if let Some(page) = written.pages.get_mut(&(length / PAGE)) {
                page[as_index(length % PAGE)..].fill(0);
            }
        }
        written.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written();
        Self::pages(offset, data.len(), |number, inside, whole| {
            let below = written.below;
            let page = match written.pages.entry(number) {
                std::collections::hash_map::Entry::Occupied(page) => page.into_mut(),
                std::collections::hash_map::Entry::Vacant(none) => none.insert(self.page(number, below)?),
            };
            page[inside].copy_from_slice(&data[whole]);
            Ok(())
        })?;
        written.length = written.length.max(offset + data.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back_and_the_file_stays_as_it_is() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("file");
        let below: Vec<u8> = (0..10_000_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
        std::fs::write(&path, &below).unwrap();
        let overlay = Overlay::new(File::open(&path).unwrap()).unwrap();
        overlay.write(4_000, &[7; 5_000]).unwrap();
        let mut expected = below.clone();
        expected[4_000..9_000].fill(7);
        let mut read = vec![0; 10_000];
        overlay.read(0, &mut read).unwrap();
        assert_eq!(read, expected);
        // What was cut off is gone, and what is added is nothing.
        overlay.set_len(5_000).unwrap();
        overlay.set_len(12_000).unwrap();
        expected.truncate(5_000);
        expected.resize(12_000, 0);
        read.resize(12_000, 1);
        overlay.read(0, &mut read).unwrap();
        assert_eq!(read, expected);
        assert!(overlay.read(11_999, &mut [0; 2]).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), below);
    }
}

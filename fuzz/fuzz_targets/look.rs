//! What holds for whatever bytes there are.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use checkpoint_keeper_core::archive::{self, Format, Inspection, State};

/// Counts what is read.
struct Counting<'a> {
    source: Cursor<&'a [u8]>,
    bytes: u64,
}

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

impl Seek for Counting<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = self.source.seek(to)?;
        assert!(position <= self.source.get_ref().len() as u64, "a seek past the end");
        Ok(position)
    }
}

/// The bytes with right checksums in all that looks like a tar header: a fuzzer does not find
/// those, and would test little else than their being wrong.
pub fn with_checksums(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.to_vec();
    let mut changed = false;
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        changed = true;
    }
    changed.then_some(bytes)
}

/// Reads in both ways, and checks what holds for all bytes.
pub fn look(bytes: &[u8]) -> Inspection {
    let length = bytes.len() as u64;
    let mut source = Counting { source: Cursor::new(bytes), bytes: 0 };
    let contents = archive::read(&mut source).expect("memory does not fail");
    let read = source.bytes;
    let mut source = Counting { source: Cursor::new(bytes), bytes: 0 };
    let inspection = archive::inspect(&mut source).expect("memory does not fail");
    assert_eq!(inspection.contents, contents);
    // The first block is read once more where the rest turns out to be compressed.
    let twice = if inspection.format == Format::Tar { 0 } else { 512 };
    assert!(read <= length + twice && source.bytes <= length + twice);
    assert!(source.bytes <= read.saturating_add(8 << 10), "only stats-dump is more");
    assert!(contents.state == State::Complete || contents.problem.is_some());
    match contents.state {
        State::Unreadable | State::Unread => panic!("bytes do not say that"),
        State::Damaged | State::Foreign => assert_eq!(contents.identity, None),
        State::Complete | State::NoImages | State::Incomplete => {}
    }
    inspection
}

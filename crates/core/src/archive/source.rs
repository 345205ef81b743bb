//! Where a walk's bytes come from: a plain file by seeking, or anything that can be read in order.
//!
//! Holds [`Plain`]. Unpacking is `packed`.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Seek, SeekFrom};

use super::input::{Input, Stop};
use super::walk::Block;

/// Reads until the buffer is full or the source has no more.
pub(super) fn read_full(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(count) => filled = filled.saturating_add(count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled.min(buffer.len()))
}

/// An uncompressed tar, read by seeking over what is not needed.
pub(super) struct Plain<'a, R> {
    source: &'a mut R,
    length: u64,
    /// Where the walk is.
    position: u64,
    /// Where the source is: a skip seeks only when the next bytes are wanted.
    source_position: u64,
}

impl<'a, R: Read + Seek> Plain<'a, R> {
    /// Takes the source's length, once, and its first block.
    pub(super) fn open(source: &'a mut R) -> Result<(Self, Block), Stop> {
        let length = source.seek(SeekFrom::End(0))?;
        let mut plain = Self { source, length, position: 0, source_position: length };
        let first = Block::read(&mut plain)?;
        Ok((plain, first))
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

impl<R: Read + Seek> Input for Plain<'_, R> {
    const ENDS_WITHIN_DATA: &'static str = "ends within a member's data";

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Stop> {
        // The length counts as it was at first: what is appended meanwhile is another archive.
        let left = usize::try_from(self.length.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let Some(buffer) = buffer.get_mut(..wanted).filter(|buffer| !buffer.is_empty()) else {
            return Ok(0);
        };
        if self.source_position != self.position {
            self.source.seek(SeekFrom::Start(self.position))?;
        }
        let count = read_full(self.source, buffer)?;
        self.position = self.position.saturating_add(count as u64);
        self.source_position = self.position;
        Ok(count)
    }

    fn skip(&mut self, bytes: u64) -> Result<(), Stop> {
        self.expect(bytes)?;
        self.position = self.position.saturating_add(bytes);
        Ok(())
    }

    fn expect(&self, bytes: u64) -> Result<(), Stop> {
        match self.position.checked_add(bytes) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(Stop::cut_off(Self::ENDS_WITHIN_DATA)),
        }
    }
}

/// A source that a decoder reads in order, and that remembers what a decoder's own error would
/// hide: whether the source failed, and whether its end was met.
pub(super) struct Watched<'a, R> {
    source: RefCell<&'a mut R>,
    failure: RefCell<Option<io::Error>>,
    ended: Cell<bool>,
}

impl<'a, R: Read> Watched<'a, R> {
    pub(super) fn new(source: &'a mut R) -> Self {
        Self { source: RefCell::new(source), failure: RefCell::default(), ended: Cell::new(false) }
    }

    /// What a decoder's failure really was.
    pub(super) fn explain(&self, corrupt: &'static str) -> Stop {
        match self.failure.take() {
            Some(error) => Stop::Source(error),
            None if self.ended.get() => Stop::cut_off("the packed stream ends too early"),
            None => Stop::contradiction(corrupt),
        }
    }
}

impl<R: Read> Read for &Watched<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.source.borrow_mut().read(buffer) {
                Ok(count) => {
                    self.ended.set(self.ended.get() || count == 0 && !buffer.is_empty());
                    return Ok(count);
                }
                // Not all decoders read again.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // `io::Error` is no `Clone`: the decoder gets the kind, the caller the error.
                    let kind = error.kind();
                    self.failure.replace(Some(error));
                    return Err(kind.into());
                }
            }
        }
    }
}

//! gzip (RFC 1952): members one after the other, unpacked block by block.
//!
//! Written on the inflater's own interface, because `flate2` does not say when a block begins: a
//! stream of blocks that hold next to nothing costs a table for each.

use std::io::{self, BufRead, Read};

use flate2::Crc;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::{Budget, Unpack};

/// What is unpacked at a time: at least DEFLATE's window, and a power of two, as it is used in turn.
const BUFFER: usize = 64 << 10;

const MAGIC: [u8; 2] = [0x1f, 0x8b];
const DEFLATE: u8 = 8;

// Flags in a member's header.
const HEADER_CRC: u8 = 1 << 1;
const EXTRA: u8 = 1 << 2;
const NAME: u8 = 1 << 3;
const COMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0xe0;

/// A gzip file's members.
pub(super) struct Members<S> {
    source: S,
    inflater: Box<DecompressorOxide>,
    buffer: Vec<u8>,
    /// What of the buffer is unpacked and was not asked for yet.
    ready: std::ops::Range<usize>,
    crc: Crc,
    /// Why no more comes, once that is so.
    ended: Option<io::Result<()>>,
}

impl<S: BufRead> Members<S> {
    pub(super) fn new(source: S) -> Self {
        let inflater = Box::new(DecompressorOxide::new());
        Self { source, inflater, buffer: vec![0; BUFFER], ready: 0..0, crc: Crc::new(), ended: None }
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.source.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Passes over text of a header, to the zero that ends it.
    fn skip_text(&mut self, budget: &mut Budget) -> io::Result<()> {
        while self.bytes()? != [0] {
            budget.spend(1)?;
        }
        Ok(())
    }

    /// Unpacks until there is something, or no more comes.
    fn inflate(&mut self, budget: &mut Budget) -> io::Result<()> {
        const FLAGS: u32 = TINFL_FLAG_HAS_MORE_INPUT | TINFL_FLAG_STOP_ON_BLOCK_BOUNDARY;
        while self.ready.is_empty() && self.ended.is_none() {
            let start = self.ready.end % BUFFER;
            let input = self.source.fill_buf()?;
            let is_end = input.is_empty();
            let (status, read, written) =
                decompress(&mut self.inflater, input, &mut self.buffer, start, FLAGS);
            self.source.consume(read);
            self.ready = start..start.saturating_add(written);
            self.crc.update(self.buffer.get(self.ready.clone()).unwrap_or_default());
            match status {
                TINFLStatus::BlockBoundary => budget.step()?,
                TINFLStatus::Done => self.ended = Some(self.check()),
                TINFLStatus::NeedsMoreInput if is_end => {
                    self.ended = Some(Err(io::ErrorKind::UnexpectedEof.into()));
                }
                TINFLStatus::NeedsMoreInput | TINFLStatus::HasMoreOutput => {}
                _ => self.ended = Some(Err(io::ErrorKind::InvalidData.into())),
            }
        }
        Ok(())
    }

    /// Compares what ends a member with what came out of it.
    fn check(&mut self) -> io::Result<()> {
        let (sum, length) = (u32::from_le_bytes(self.bytes()?), u32::from_le_bytes(self.bytes()?));
        let is_right = (sum, length) == (self.crc.sum(), self.crc.amount());
        if is_right { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

impl<S: BufRead> Unpack for Members<S> {
    fn begin(&mut self, budget: &mut Budget) -> io::Result<bool> {
        let mut magic = Vec::with_capacity(MAGIC.len());
        (&mut self.source).take(MAGIC.len() as u64).read_to_end(&mut magic)?;
        if magic != MAGIC {
            return Ok(false);
        }
        budget.step()?;
        // Method, flags, time (4 bytes), extra flags, system.
        let [method, flags, ..] = self.bytes::<8>()?;
        if method != DEFLATE || flags & RESERVED != 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if flags & EXTRA != 0 {
            for _ in 0..u16::from_le_bytes(self.bytes()?) {
                budget.spend(1)?;
                self.bytes::<1>()?;
            }
        }
        for text in [NAME, COMMENT] {
            if flags & text != 0 {
                self.skip_text(budget)?;
            }
        }
        if flags & HEADER_CRC != 0 {
            self.bytes::<2>()?;
        }
        self.inflater.init();
        self.crc.reset();
        (self.ready, self.ended) = (0..0, None);
        Ok(true)
    }

    fn unpack(&mut self, buffer: &mut [u8], budget: &mut Budget) -> io::Result<usize> {
        self.inflate(budget)?;
        // What came before the stream turned out to be corrupt still says what it was.
        if self.ready.is_empty() {
            return self.ended.take().unwrap_or(Ok(())).map(|()| 0);
        }
        let count = buffer.len().min(self.ready.len());
        let from = self.ready.start..self.ready.start.saturating_add(count);
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), self.buffer.get(from)) {
            to.copy_from_slice(from);
        }
        self.ready.start = self.ready.start.saturating_add(count);
        Ok(count)
    }
}

//! A tar inside a gzip or Zstandard stream, unpacked as it goes and never further than is sane.

use std::io::{self, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::Format;
use super::source::{Input, Stop, Watched, read_full};

/// How far a stream may expand: so much for any, and so many times its own size. Memory that was
/// never touched compresses about 1 000 times, a whole dump far less.
const FREE_OUTPUT: u64 = 64 << 20;
const MAX_RATIO: u64 = 200;
const MAX_OUTPUT: u64 = 64 << 30;

/// The largest Zstandard window that is taken, in bytes: RFC 8878 asks decoders for no more.
const MAX_WINDOW: u64 = 8 << 20;

/// How much is unpacked at a time where nobody wants the bytes.
const SCRATCH: usize = 64 << 10;

/// The unpacked bytes of a compressed archive.
pub(super) struct Stream<'a, 'b, R: Read> {
    source: &'a Watched<'b, R>,
    decoder: Decoder<'a, 'b, R>,
    scratch: Vec<u8>,
    /// How many more bytes may come out.
    left: u64,
}

enum Decoder<'a, 'b, R: Read> {
    Gzip(Box<MultiGzDecoder<BufReader<&'a Watched<'b, R>>>>),
    Zstd(Box<Frames<BufReader<&'a Watched<'b, R>>>>),
}

impl<'a, 'b, R: Read> Stream<'a, 'b, R> {
    /// A stream of `length` compressed bytes.
    pub(super) fn new(watched: &'a Watched<'b, R>, format: Format, length: u64) -> Self {
        let source = BufReader::with_capacity(SCRATCH, watched);
        let decoder = match format {
            Format::Zstd => Decoder::Zstd(Box::new(Frames::new(source))),
            Format::Gzip | Format::Tar => Decoder::Gzip(Box::new(MultiGzDecoder::new(source))),
        };
        let left = length.saturating_mul(MAX_RATIO).saturating_add(FREE_OUTPUT).min(MAX_OUTPUT);
        Self { source: watched, decoder, scratch: vec![0; SCRATCH], left }
    }

    /// Unpacks the rest, for its checksum's sake.
    pub(super) fn finish(&mut self) -> Result<(), Stop> {
        let mut scratch = std::mem::take(&mut self.scratch);
        while self.fill(&mut scratch)? > 0 {}
        Ok(())
    }
}

impl<R: Read> Input for Stream<'_, '_, R> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Stop> {
        let result = match &mut self.decoder {
            Decoder::Gzip(decoder) => read_full(decoder, buffer),
            Decoder::Zstd(decoder) => read_full(decoder, buffer),
        };
        let count = result.map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(WindowTooLarge) => Stop::refused("asks for a Zstandard window over 8 MiB"),
            None => self.source.explain("the compressed stream is corrupt"),
        })?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or(Stop::refused("the compressed stream expands too far"))?;
        Ok(count)
    }

    fn skip(&mut self, mut bytes: u64) -> Result<(), Stop> {
        let mut scratch = std::mem::take(&mut self.scratch);
        while bytes > 0 {
            let step = usize::try_from(bytes).unwrap_or(usize::MAX).min(scratch.len());
            let part = scratch.get_mut(..step).unwrap_or_default();
            let count = self.fill(part)?;
            if count == 0 {
                return Err(Stop::cut_off("the unpacked tar ends within a member's data"));
            }
            bytes = bytes.saturating_sub(count as u64);
        }
        self.scratch = scratch;
        Ok(())
    }

    /// How much is there shows only as it is unpacked. A member that promises more than may come
    /// out is not refused for that: the stream may have been cut off long before.
    fn expect(&self, _: u64) -> Result<(), Stop> {
        Ok(())
    }
}

/// Says why a frame was refused through an `io::Error`.
#[derive(Debug, thiserror::Error)]
#[error("window too large")]
struct WindowTooLarge;

/// Zstandard frames one after the other, skippable ones among them.
struct Frames<S> {
    source: S,
    decoder: FrameDecoder,
    within: bool,
}

impl<S: Read> Frames<S> {
    fn new(source: S) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_WINDOW);
        Self { source, decoder, within: false }
    }

    /// Begins the next frame; `false` at the end of the stream.
    fn begin(&mut self) -> io::Result<bool> {
        loop {
            let mut magic = [0; 4];
            match read_full(&mut self.source, &mut magic)? {
                0 => return Ok(false),
                4 => {}
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
            match self.decoder.reset((&magic[..]).chain(&mut self.source)) {
                Ok(()) => {
                    self.within = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    let skipped = io::copy(&mut (&mut self.source).take(length), &mut io::sink())?;
                    if skipped < length {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(FrameDecoderError::WindowSizeTooBig { .. }) => {
                    return Err(io::Error::other(WindowTooLarge));
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }

    /// After a frame's last byte: its checksum, if it has one.
    fn end(&mut self) -> io::Result<()> {
        self.within = false;
        match self.decoder.get_checksum_from_data() {
            Some(wanted) if self.decoder.get_calculated_checksum() != Some(wanted) => {
                Err(io::ErrorKind::InvalidData.into())
            }
            _ => Ok(()),
        }
    }
}

impl<S: Read> Read for Frames<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.within && !self.begin()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(io::Error::other)?;
            }
            let count = self.decoder.read(buffer)?;
            if count > 0 {
                return Ok(count);
            }
            self.end()?;
        }
    }
}

//! Zstandard (RFC 8878): frames one after the other, unpacked block by block.

use std::io::{self, Read};

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::super::source::read_full;
use super::{Budget, Refusal, Unpack};

/// The largest window that a frame may ask for, in bytes: what `zstd --long` makes.
const MAX_WINDOW: u64 = 128 << 20;

/// The window that is held in memory at most, in bytes. RFC 8878 asks decoders to bear 8 MiB.
const MAX_HELD: u64 = 16 << 20;

/// The most that a block unpacks to, in bytes.
const MAX_BLOCK: u64 = 128 << 10;

const TOO_LARGE: &str = "asks for a Zstandard window over 128 MiB";
const HOLDS_TOO_MUCH: &str = "needs more than 16 MiB for its Zstandard window";

/// Zstandard frames, skippable ones among them.
pub(super) struct Frames<S> {
    source: S,
    decoder: FrameDecoder,
    /// For a frame with a window over [`MAX_HELD`], how much it may hold by now.
    held: Option<u64>,
}

impl<S: Read> Frames<S> {
    pub(super) fn new(source: S) -> Self {
        Self { source, decoder: FrameDecoder::new(), held: None }
    }

    /// Begins a frame, or passes over one that is to be skipped; `false` for that.
    fn begin_frame(&mut self, magic: [u8; 4], budget: &mut Budget) -> io::Result<bool> {
        // A new one for each: to use one again takes memory for the whole window at once.
        self.decoder = FrameDecoder::new();
        self.decoder.set_max_window_size(MAX_HELD);
        self.held = None;
        let mut header = magic.to_vec();
        let mut begun =
            self.decoder.reset((&magic[..]).chain(Recorded { source: &mut self.source, bytes: &mut header }));
        if let Err(FrameDecoderError::WindowSizeTooBig { .. }) = begun {
            self.held = Some(0);
            self.decoder.set_max_window_size(MAX_WINDOW);
            begun = self.decoder.reset(header.as_slice());
        }
        match begun {
            Ok(()) => Ok(true),
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                length, ..
            })) => {
                let length = u64::from(length);
                // They are read all the same.
                budget.spend(length)?;
                let skipped = io::copy(&mut (&mut self.source).take(length), &mut io::sink())?;
                if skipped < length { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(false) }
            }
            Err(FrameDecoderError::WindowSizeTooBig { .. }) => Err(Refusal::error(TOO_LARGE)),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    /// Notes one more block that is unpacked.
    fn hold(&mut self) -> io::Result<()> {
        if let Some(held) = &mut self.held {
            *held = held.saturating_add(MAX_BLOCK);
            if *held > MAX_HELD {
                return Err(Refusal::error(HOLDS_TOO_MUCH));
            }
        }
        Ok(())
    }
}

impl<S: Read> Unpack for Frames<S> {
    fn begin(&mut self, budget: &mut Budget) -> io::Result<bool> {
        loop {
            let mut magic = [0; 4];
            let count = read_full(&mut self.source, &mut magic)?;
            if count < magic.len()
                || !matches!(magic, [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18])
            {
                return Ok(false);
            }
            budget.step()?;
            if self.begin_frame(magic, budget)? {
                return Ok(true);
            }
        }
    }

    fn unpack(&mut self, buffer: &mut [u8], budget: &mut Budget) -> io::Result<usize> {
        while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
            budget.step()?;
            self.hold()?;
            self.decoder
                .decode_blocks(&mut self.source, BlockDecodingStrategy::UptoBlocks(1))
                .map_err(io::Error::other)?;
        }
        let count = self.decoder.read(buffer)?;
        if count > 0 {
            return Ok(count);
        }
        match self.decoder.get_checksum_from_data() {
            Some(wanted) if self.decoder.get_calculated_checksum() != Some(wanted) => {
                Err(io::ErrorKind::InvalidData.into())
            }
            _ => Ok(0),
        }
    }
}

/// A source of which is kept what was read.
struct Recorded<'a, S> {
    source: &'a mut S,
    bytes: &'a mut Vec<u8>,
}

impl<S: Read> Read for Recorded<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.bytes.extend_from_slice(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

//! A tar inside a packed stream, unpacked as it goes and never for longer than it is worth.
//!
//! Holds what unpacking may cost, and how a stream is put together from its parts: a gzip file's
//! members, Zstandard frames, xz streams. Each packing has a file of its own.

mod gzip;
mod xz;
mod zstd;

use std::io::{self, BufReader, Read};

use super::Format;
use super::input::{Input, Stop};
use super::source::Watched;

/// How much is unpacked at a time where the bytes are skipped.
const SCRATCH: usize = 64 << 10;

/// The work that any stream may cost, in unpacked bytes. What it unpacks to says little: a node's
/// memory is full of zeros, of which a gigabyte packs into some kilobytes.
const FREE_WORK: u64 = 512 << 20;

/// How much more it may cost for each of its packed bytes that take room on the disk. The holes of a sparse file cost
/// its owner nothing, and read as zeros, of which some packings make empty blocks without end.
const WORK_PER_BYTE: u64 = 16;

/// The most that any stream may cost. The largest packed archives of real containers are some gigabytes.
const MOST_WORK: u64 = 64 << 30;

/// What a part and a block of a part cost besides their bytes, as tables are made for each. The
/// packers put at least so many bytes into one, unless they have no more.
const STEP: u64 = 16 << 10;

/// What unpacking may still cost.
pub(super) struct Budget {
    left: u64,
}

impl Budget {
    /// For a stream of so many packed bytes, holes not counted.
    fn of(length: u64) -> Self {
        Self { left: length.saturating_mul(WORK_PER_BYTE).saturating_add(FREE_WORK).min(MOST_WORK) }
    }

    /// Pays for unpacked bytes, and for packed ones that are passed over.
    fn spend(&mut self, work: u64) -> io::Result<()> {
        self.left = self.left.checked_sub(work).ok_or_else(|| Refusal::error(TOO_MUCH_WORK))?;
        Ok(())
    }

    /// Pays for a part's beginning, or a block's.
    fn step(&mut self) -> io::Result<()> {
        self.spend(STEP)
    }
}

const TOO_MUCH_WORK: &str = "takes too much work to unpack";

/// Says through an `io::Error` why a stream is not unpacked, though it may be sound.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(&'static str);

impl Refusal {
    fn error(problem: &'static str) -> io::Error {
        io::Error::other(Self(problem))
    }
}

/// A packing's stream: parts one after the other.
trait Unpack {
    /// Begins the next part; `false` if what follows is none.
    fn begin(&mut self, budget: &mut Budget) -> io::Result<bool>;

    /// Unpacks some bytes of the part; 0 at its end, once its checksum was found to be right.
    fn unpack(&mut self, buffer: &mut [u8], budget: &mut Budget) -> io::Result<usize>;
}

/// The unpacked bytes of a packed archive.
pub(super) struct Stream<'a, 'b, R: Read> {
    source: &'a Watched<'b, R>,
    parts: Box<dyn Unpack + 'a>,
    within: bool,
    scratch: Vec<u8>,
    budget: Budget,
}

impl<'a, 'b, R: Read> Stream<'a, 'b, R> {
    /// A stream of `length` packed bytes, holes not counted.
    pub(super) fn new(watched: &'a Watched<'b, R>, format: Format, length: u64) -> Self {
        let source = BufReader::with_capacity(SCRATCH, watched);
        let parts: Box<dyn Unpack + 'a> = match format {
            // Callers read a plain tar without this type; handled as gzip, it would be rejected.
            Format::Tar | Format::Gzip => Box::new(gzip::Members::new(source)),
            Format::Zstd => Box::new(zstd::Frames::new(source)),
            Format::Xz => Box::new(xz::Streams::new(source)),
        };
        let budget = Budget::of(length);
        Self { source: watched, parts, within: false, scratch: vec![0; SCRATCH], budget }
    }

    /// Unpacks the rest of the part in which the tar ended, for its checksum's sake. Whatever
    /// follows is of no interest.
    pub(super) fn finish(&mut self) -> Result<(), Stop> {
        let mut scratch = std::mem::take(&mut self.scratch);
        while self.within {
            self.read(&mut scratch).map_err(|error| self.explain(&error))?;
        }
        Ok(())
    }

    /// Unpacks some bytes; 0 at a part's end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.parts.unpack(buffer, &mut self.budget)?;
        self.within = count > 0;
        self.budget.spend(count as u64)?;
        Ok(count)
    }

    fn explain(&self, error: &io::Error) -> Stop {
        match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(Refusal(problem)) => Stop::refused(problem),
            None => match self.source.explain("the packed stream is corrupt") {
                Stop::CutOff(problem) if self.within => Stop::Unchecked(problem),
                stop => stop,
            },
        }
    }
}

impl<R: Read> Input for Stream<'_, '_, R> {
    const ENDS_WITHIN_DATA: &'static str = "the unpacked tar ends within a member's data";

    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, Stop> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            if !self.within {
                let begun = self.parts.begin(&mut self.budget).map_err(|error| self.explain(&error))?;
                if !begun {
                    break;
                }
                self.within = true;
            }
            let count = self.read(rest).map_err(|error| self.explain(&error))?;
            filled = filled.saturating_add(count);
        }
        Ok(filled.min(buffer.len()))
    }

    fn skip(&mut self, mut bytes: u64) -> Result<(), Stop> {
        let mut scratch = std::mem::take(&mut self.scratch);
        while bytes > 0 {
            let step = usize::try_from(bytes).unwrap_or(usize::MAX).min(scratch.len());
            let part = scratch.get_mut(..step).unwrap_or_default();
            let count = self.fill(part)?;
            if count == 0 {
                return Err(Stop::cut_off(Self::ENDS_WITHIN_DATA));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stream_may_cost_grows_with_it_up_to_a_limit() {
        let budget = |length| Budget::of(length).left;
        // A file system may say for a while that a file takes no room at all.
        assert_eq!(budget(0), 512 << 20);
        assert_eq!(budget(1 << 30), (16 << 30) + (512 << 20));
        assert_eq!((budget(1 << 40), budget(u64::MAX)), (64 << 30, 64 << 30));
    }
}

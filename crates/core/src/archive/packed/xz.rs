//! xz: streams one after the other, with zeros between them.

use std::cell::RefCell;
use std::io::{self, Read};
use std::rc::Rc;

use lzma_rust2::XzReader;

use super::super::source::read_full;
use super::{Budget, Refusal, Unpack};

/// What a stream begins with.
pub(super) const MAGIC: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];

/// The memory that a stream may ask for, in KiB: what `xz -7` makes asks for 16 MiB and a little.
const MAX_MEMORY: u32 = 17 << 10;

/// The packed bytes that are unpacked at most. The decoder does not say when a chunk begins, and a
/// chunk of a few bytes costs as much as one that is worth it.
const MAX_LENGTH: u64 = 8 << 20;

/// How much more work than others an unpacked byte is.
const WORK: u64 = 4;

const TOO_MUCH_MEMORY: &str = "needs more than 16 MiB to unpack its xz stream";
const TOO_LONG: &str = "is over 8 MiB of xz, which is not unpacked";

const UNSUPPORTED: &str = "uses a feature of xz that is not unpacked";

/// xz streams.
pub(super) struct Streams<S: Read> {
    source: Shared<S>,
    reader: Option<Box<XzReader<Whole<S>>>>,
}

impl<S: Read> Streams<S> {
    pub(super) fn new(source: S) -> Self {
        Self { source: Shared(Rc::new(RefCell::new(source.take(MAX_LENGTH)))), reader: None }
    }
}

impl<S: Read> Unpack for Streams<S> {
    fn begin(&mut self, budget: &mut Budget) -> io::Result<bool> {
        let mut start = [0; 4];
        // Padding is in units of four bytes.
        while start == [0; 4] {
            if read_full(&mut self.source, &mut start)? < start.len() {
                return Ok(false);
            }
            budget.spend(start.len() as u64)?;
        }
        let mut rest = [0; 2];
        read_full(&mut self.source, &mut rest)?;
        if [&start[..], &rest].concat() != MAGIC {
            return Ok(false);
        }
        budget.step()?;
        let source = MAGIC.as_slice().chain(self.source.clone());
        self.reader = Some(Box::new(XzReader::new_mem_limit(source, false, MAX_MEMORY)));
        Ok(true)
    }

    fn unpack(&mut self, buffer: &mut [u8], budget: &mut Budget) -> io::Result<usize> {
        let Some(reader) = &mut self.reader else { return Ok(0) };
        let count = reader.read(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::OutOfMemory => Refusal::error(TOO_MUCH_MEMORY),
            io::ErrorKind::Unsupported => Refusal::error(UNSUPPORTED),
            _ if self.source.is_used_up() => Refusal::error(TOO_LONG),
            _ => error,
        })?;
        budget.spend((count as u64).saturating_mul(WORK))?;
        Ok(count)
    }
}

/// A stream's magic number, which was read to see that it is one, and the rest.
type Whole<S> = io::Chain<&'static [u8], Shared<S>>;

/// A source that a decoder takes for itself, and that goes on when it is done.
struct Shared<S>(Rc<RefCell<io::Take<S>>>);

impl<S> Shared<S> {
    fn is_used_up(&self) -> bool {
        self.0.borrow().limit() == 0
    }
}

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S: Read> Read for Shared<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().read(buffer)
    }
}

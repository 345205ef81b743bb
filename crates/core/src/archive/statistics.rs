//! CRIU's own figures of a dump, from the member `stats-dump`.
//!
//! The member is an image file of CRIU: two 32-bit magic numbers (`IMG_SERVICE_MAGIC` and
//! `STATS_MAGIC`, `criu/include/magic.h`), a 32-bit length and one protobuf message `stats_entry`
//! (`images/stats.proto`), all little-endian.

use serde::{Deserialize, Serialize};

/// How long a dump took and what it wrote. Times are microseconds, pages are memory pages of the
/// node (4 KiB on amd64).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statistics {
    /// Microseconds until all tasks stood still.
    pub freezing_time: u32,
    /// Microseconds that the tasks stood still.
    pub frozen_time: u32,
    /// Microseconds spent on collecting memory.
    pub memdump_time: u32,
    /// Microseconds of that spent on writing memory.
    pub memwrite_time: u32,
    /// Microseconds spent on resolving inodes that are watched to paths; absent if there were none.
    pub irmap_resolve_time: Option<u32>,
    /// Pages that were looked at.
    pub pages_scanned: u64,
    /// Pages that a parent dump holds already.
    pub pages_skipped_parent: u64,
    /// Pages that were written.
    pub pages_written: u64,
    /// Pages left to be fetched on demand.
    pub pages_lazy: u64,
    /// Pipes that memory was moved through.
    pub page_pipes: Option<u64>,
    /// Buffers in those pipes.
    pub page_pipe_buffers: Option<u64>,
    /// Pages of shared memory that were looked at.
    pub shared_pages_scanned: Option<u64>,
    /// Pages of shared memory that a parent dump holds already.
    pub shared_pages_skipped_parent: Option<u64>,
    /// Pages of shared memory that were written.
    pub shared_pages_written: Option<u64>,
}

/// `IMG_SERVICE_MAGIC` and `STATS_MAGIC`.
const MAGIC: [u8; 8] = [0x40, 0x59, 0x10, 0x55, 0x06, 0x33, 0x09, 0x57];
/// `stats_entry.dump`; a restore's figures are field 2.
const DUMP: u64 = 1;

impl Statistics {
    /// The figures, or nothing if that is not what the bytes are.
    pub(super) fn parse(file: &[u8]) -> Option<Self> {
        let rest = file.strip_prefix(&MAGIC)?;
        let (length, message) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let mut fields = Fields(message.get(..length)?);
        while let Some((number, value)) = fields.next()? {
            if let (DUMP, Value::Bytes(dump)) = (number, value) {
                return Self::from_dump(dump);
            }
        }
        None
    }

    /// `dump_stats_entry`. A message without one of the fields that CRIU requires is none.
    fn from_dump(dump: &[u8]) -> Option<Self> {
        /// Fields 1 to 7. Lazy pages (9) are required too, but came later.
        const REQUIRED: u16 = 0b1111_1110;
        let mut found: u16 = 0;
        let mut figures = Self::default();
        let mut fields = Fields(dump);
        while let Some((number, value)) = fields.next()? {
            let Value::Number(value) = value else {
                continue;
            };
            // A `uint32` field takes the low bits of what is there (protobuf, "Updating a message").
            let short = u32::try_from(value & u64::from(u32::MAX)).ok()?;
            match number {
                1 => figures.freezing_time = short,
                2 => figures.frozen_time = short,
                3 => figures.memdump_time = short,
                4 => figures.memwrite_time = short,
                5 => figures.pages_scanned = value,
                6 => figures.pages_skipped_parent = value,
                7 => figures.pages_written = value,
                8 => figures.irmap_resolve_time = Some(short),
                9 => figures.pages_lazy = value,
                10 => figures.page_pipes = Some(value),
                11 => figures.page_pipe_buffers = Some(value),
                12 => figures.shared_pages_scanned = Some(value),
                13 => figures.shared_pages_skipped_parent = Some(value),
                14 => figures.shared_pages_written = Some(value),
                _ => continue,
            }
            found |= 1 << number;
        }
        (found & REQUIRED == REQUIRED).then_some(figures)
    }
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// A value of fixed width: none of ours is one.
    Fixed,
}

/// The fields of a protobuf message, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    /// The next field's number and value; `Some(None)` at the end, `None` for a malformed message.
    #[expect(clippy::option_option, reason = "`?` ends a malformed message, a pattern a complete one")]
    fn next(&mut self) -> Option<Option<(u64, Value<'a>)>> {
        if self.0.is_empty() {
            return Some(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => self.bytes(8).map(|_| Value::Fixed)?,
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.bytes(length)?)
            }
            5 => self.bytes(4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        Some(Some((key >> 3, value)))
    }

    fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(bytes)
    }

    /// At most 10 bytes of 7 bits each, the lowest first.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRI-O's `db-0` of the archives in `tests/archives`.
    const REAL: [u8; 49] = *b"\x40\x59\x10\x55\x06\x33\x09\x57\x25\0\0\0\x0a\x23\x08\xa9\x04\x10\xb4\xff\x07\x18\x9c\x0d\x20\xf5\x06\x28\x9a\x03\x30\0\x38\x8c\x03\x40\0\x48\0\x50\x05\x58\x09\x60\x06\x68\0\x70\0";

    #[test]
    fn a_real_one_is_understood_and_no_part_of_one() {
        let figures = Statistics::parse(&REAL).unwrap();
        assert_eq!(figures.freezing_time, 553);
        assert_eq!(figures.frozen_time, 130_996);
        assert_eq!(figures.memdump_time, 1692);
        assert_eq!(figures.memwrite_time, 885);
        assert_eq!(figures.pages_scanned, 410);
        assert_eq!(figures.pages_written, 396);
        assert_eq!(figures.irmap_resolve_time, Some(0));
        assert_eq!(figures.page_pipe_buffers, Some(9));
        assert_eq!(figures.shared_pages_scanned, Some(6));
        for length in 0..REAL.len() {
            assert_eq!(Statistics::parse(&REAL[..length]), None, "{length}");
        }
    }

    #[test]
    fn unknown_fields_are_passed_over_and_bad_ones_refused() {
        let file = |dump: &[u8]| {
            let length = u8::try_from(dump.len()).unwrap();
            [&MAGIC[..], &[length + 2, 0, 0, 0, 0x0a, length], dump].concat()
        };
        let all = [8, 1, 16, 2, 24, 3, 32, 4, 40, 5, 48, 6, 56, 7];
        assert_eq!(Statistics::parse(&file(&all)).unwrap().pages_written, 7);
        let more = [&all[..], b"\x7a\x02ab\x7d1234\x79abcdefgh", &[0x80, 1, 1], &[0xc8, 1, 1]].concat();
        assert_eq!(Statistics::parse(&file(&more)).unwrap().pages_written, 7);
        for bad in [
            &[0x78, 0xff][..],
            &[0x7b],
            &[0x7a, 0x7f],
            &[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        ] {
            assert_eq!(Statistics::parse(&file(&[&all[..], bad].concat())), None, "{bad:?}");
        }
        assert_eq!(Statistics::parse(&file(&all[2..])), None, "a required field is missing");
        assert_eq!(Statistics::parse(&file(&[])), None);
    }
}

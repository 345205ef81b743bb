//! Walks a tar from header to header and picks out the members that matter.
//!
//! Holds what makes a tar well-formed and what a walk may cost. The `tar` crate reads single header
//! fields; the loop is ours, because its own reads long names of any length into memory. Where
//! formats leave room, this reads as Go's `archive/tar` does, which is what the runtimes use.

use std::borrow::Cow;

use super::input::{Input, Stop};
use super::json::{Config, Spec};
use super::members::{CHECKPOINT_MEMBERS, Members, is_of_a_checkpoint};
use super::statistics::Statistics;
use super::{LARGE_MEMBER, MAX_JSON_MEMBER, pax};

/// The unit of a tar, in bytes.
const BLOCK: usize = 512;

/// The longest name or PAX header, in bytes. Linux' own limit for a path is 4 KiB; extended
/// attributes, which PAX headers hold too, are up to 64 KiB each.
const MAX_EXTENSION: u64 = 1 << 20;

/// `stats-dump` is below 100 bytes; a larger one is none.
const MAX_STATISTICS: u64 = 4 << 10;

/// The headers that are read at most. A container of a thousand processes has some ten thousand.
const MAX_HEADERS: u32 = 1 << 18;

/// One block of a tar, or what is left of one at the end of the bytes.
pub(super) struct Block {
    bytes: [u8; BLOCK],
    length: usize,
}

impl Block {
    pub(super) fn read(input: &mut impl Input) -> Result<Self, Stop> {
        let mut bytes = [0; BLOCK];
        let length = input.fill(&mut bytes)?;
        Ok(Self { bytes, length })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// The block, if all of it is there.
    fn full(&self) -> Option<&[u8; BLOCK]> {
        (self.length == BLOCK).then_some(&self.bytes)
    }
}

/// What headers before a member say about it.
#[derive(Default)]
struct Extensions {
    long_name: Option<Vec<u8>>,
    pax: pax::Pax,
}

/// How much more a walk may spend on headers that extend others, in bytes: enough for every real
/// archive, and little beside a member's own header for every other.
struct Allowance(u64);

impl Allowance {
    fn spend(&mut self, bytes: u64) -> Result<(), Stop> {
        self.0 = self.0.checked_sub(bytes).ok_or(Stop::refused("has too many extended headers"))?;
        Ok(())
    }
}

/// Walks to the end of the tar. `first` is its first block, if that has been read. `before_large` is called before a
/// large member is read.
pub(super) fn walk<I: Input>(
    input: &mut I,
    first: Option<Block>,
    members: &mut Members,
    before_large: &mut dyn FnMut(),
) -> Result<(), Stop> {
    let mut extensions = Extensions::default();
    let mut allowance = Allowance(MAX_EXTENSION);
    let mut is_first = true;
    let mut next = first;
    for _ in 0..MAX_HEADERS {
        let block = match next.take() {
            Some(block) => block,
            None => Block::read(input)?,
        };
        let Some(bytes) = block.full() else {
            if is_first && !could_begin_a_checkpoint(block.bytes()) {
                return Err(Stop::refused("not a tar archive"));
            }
            return Err(Stop::cut_off(match (is_first, block.length) {
                (true, 0) => "is empty",
                (true, _) => "is shorter than a tar's first header",
                (false, 0) => "ends without a tar's end mark",
                (false, _) => "ends within a header",
            }));
        };
        if is_zero(bytes) {
            return end(input, members);
        }
        let header = tar::Header::from_byte_slice(bytes);
        if !checksum_is_right(header) {
            if !members.has_checkpoint_member {
                members.has_checkpoint_member =
                    is_of_a_checkpoint(&header.path_bytes()) || goes_on_as_a_checkpoint(input, header)?;
            }
            return Err(match (is_first, members.has_checkpoint_member) {
                (true, false) => Stop::refused("not a tar archive"),
                _ => Stop::contradiction("a tar header's checksum is wrong"),
            });
        }
        is_first = false;
        allowance.0 = allowance.0.saturating_add(2 * BLOCK as u64);
        match header.as_old().linkflag {
            [b'L'] => {
                let mut name = extension(input, header, &mut allowance)?;
                name.truncate(name.iter().position(|&byte| byte == 0).unwrap_or(name.len()));
                extensions.long_name = Some(name);
            }
            [b'x'] => {
                let records = extension(input, header, &mut allowance)?;
                extensions.pax =
                    pax::parse(&records).ok_or(Stop::contradiction("a PAX header is malformed"))?;
            }
            // A long link name, or what holds for all members: nothing that a walk needs.
            [b'K' | b'g'] => input.skip(padded(stored_size(header)?)?)?,
            _ => {
                let extensions = std::mem::take(&mut extensions);
                member(input, header, extensions, &mut allowance, members, before_large)?;
            }
        }
    }
    Err(Stop::refused("has too many members"))
}

/// Whether a file cut off within its first header could have become a checkpoint. An empty one
/// could, so could zeros, as a crash leaves them, and so could a packed one's first bytes.
fn could_begin_a_checkpoint(start: &[u8]) -> bool {
    let start = start.strip_prefix(b"./").unwrap_or(start);
    let begins = |name: &&[u8]| start.iter().zip(name.iter()).all(|(byte, expected)| byte == expected);
    let packed = [&b"\x1f\x8b"[..], b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0"];
    is_zero(start)
        || packed.iter().any(|magic| magic.starts_with(start))
        || CHECKPOINT_MEMBERS.iter().any(begins)
}

/// After one block of zeros: a second one ends the tar. What follows is of no interest, unless the
/// zeros may have been written over something: then there is more of an archive behind them.
fn end(input: &mut impl Input, members: &mut Members) -> Result<(), Stop> {
    let block = Block::read(input)?;
    let Some(bytes) = block.full() else {
        return Err(Stop::cut_off("ends within a tar's end mark"));
    };
    if is_zero(bytes) {
        if !members.has_both_json_members() && has_more(input, None, members)? {
            return Err(Stop::contradiction("goes on after a tar's end mark that comes too early"));
        }
        return Ok(());
    }
    has_more(input, Some(block), members)?;
    Err(Stop::contradiction("goes on after half of a tar's end mark"))
}

/// How many blocks are looked at for what follows zeros that should not be there.
const LOOK_AHEAD: usize = 96;

/// Whether anything but zeros follows within some blocks; notes if that is of a checkpoint.
fn has_more(input: &mut impl Input, first: Option<Block>, members: &mut Members) -> Result<bool, Stop> {
    let mut more = false;
    let mut next = first;
    for _ in 0..LOOK_AHEAD {
        let block = match next.take() {
            Some(block) => block,
            None => Block::read(input)?,
        };
        more |= !is_zero(block.bytes());
        let Some(bytes) = block.full() else { break };
        let header = tar::Header::from_byte_slice(bytes);
        members.has_checkpoint_member |=
            checksum_is_right(header) && is_of_a_checkpoint(&header.path_bytes());
        if more && members.has_checkpoint_member {
            break;
        }
    }
    Ok(more)
}

/// Whether what follows a header that is wrong shows that it was a checkpoint's all the same.
fn goes_on_as_a_checkpoint(input: &mut impl Input, bent: &tar::Header) -> Result<bool, Stop> {
    if !bent.as_bytes().get(257..).is_some_and(|magic| magic.starts_with(b"ustar")) {
        return Ok(false);
    }
    let next = stored_size(bent).and_then(padded).and_then(|size| {
        input.skip(size)?;
        Block::read(input)
    });
    let next = match next {
        Err(Stop::Source(error)) => return Err(error.into()),
        Err(_) => return Ok(false),
        Ok(block) => block,
    };
    Ok(next.full().is_some_and(|bytes| {
        let header = tar::Header::from_byte_slice(bytes);
        checksum_is_right(header) && is_of_a_checkpoint(&header.path_bytes())
    }))
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == 0)
}

/// The data of a header that extends the next one.
fn extension(
    input: &mut impl Input,
    header: &tar::Header,
    allowance: &mut Allowance,
) -> Result<Vec<u8>, Stop> {
    let size = stored_size(header)?;
    if size > MAX_EXTENSION {
        return Err(Stop::refused("a member's long name or PAX header is over 1 MiB"));
    }
    allowance.spend(size)?;
    whole_data(input, size)
}

/// So many bytes of data and what fills up their last block: without that, nothing of the member
/// counts, and not either where it shows only as a stream is unpacked.
fn whole_data(input: &mut impl Input, size: u64) -> Result<Vec<u8>, Stop> {
    input.expect(padded(size)?)?;
    let data = input.take(size)?;
    input.skip(padding(size))?;
    Ok(data)
}

fn member(
    input: &mut impl Input,
    header: &tar::Header,
    extensions: Extensions,
    allowance: &mut Allowance,
    members: &mut Members,
    before_large: &mut dyn FnMut(),
) -> Result<(), Stop> {
    members.count = members.count.saturating_add(1);
    let [kind] = header.as_old().linkflag;
    let Extensions { long_name, pax } = extensions;
    // Go's order, and the `tar` crate's: a GNU name before a PAX one before the header's own.
    let name = match long_name.or(pax.path) {
        Some(name) => Cow::Owned(name),
        None => header.path_bytes(),
    };
    let name = name.strip_prefix(b"./").unwrap_or(&name);
    members.has_checkpoint_member |= is_of_a_checkpoint(name);
    let regular = matches!(kind, b'0' | 0 | b'7') && !pax.sparse;
    let size = match kind {
        // Links, devices, directories and pipes have no data, whatever their size says.
        b'1'..=b'6' => 0,
        _ => match pax.size {
            Some(size) => size,
            None => stored_size(header)?,
        },
    };
    if kind == b'S' {
        skip_sparse_map(input, header, allowance)?;
    }
    let whole = padded(size)?;
    if regular && size > 0 {
        members.images.note(name);
    }
    match name {
        b"config.dump" => {
            check_json_member(regular, members.config.is_some(), size, "config.dump")?;
            members.config = Some(Config::parse(&json_data(input, size, before_large)?));
            Ok(())
        }
        b"spec.dump" => {
            check_json_member(regular, members.spec.is_some(), size, "spec.dump")?;
            members.spec = Some(Spec::parse(&json_data(input, size, before_large)?));
            Ok(())
        }
        b"stats-dump" if members.wants_statistics && regular && size <= MAX_STATISTICS => {
            members.statistics = Statistics::parse(&whole_data(input, size)?);
            Ok(())
        }
        _ => input.skip(whole),
    }
}

/// A JSON member's data.
fn json_data(input: &mut impl Input, size: u64, before_large: &mut dyn FnMut()) -> Result<Vec<u8>, Stop> {
    if size > LARGE_MEMBER {
        before_large();
    }
    whole_data(input, size)
}

/// Two members of one name, or one that is no file, have two readers see two archives.
fn check_json_member(regular: bool, seen: bool, size: u64, name: &'static str) -> Result<(), Stop> {
    let problem = if !regular {
        "is not a regular file"
    } else if seen {
        "is there twice"
    } else if size > MAX_JSON_MEMBER {
        return Err(Stop::Refused(format!("{name} is over 16 MiB").into()));
    } else {
        return Ok(());
    };
    Err(Stop::Contradiction(format!("{name} {problem}").into()))
}

/// Passes over the blocks by which an old GNU sparse header goes on: they come before the data and
/// are not in its size.
fn skip_sparse_map(
    input: &mut impl Input,
    header: &tar::Header,
    allowance: &mut Allowance,
) -> Result<(), Stop> {
    /// Where such a block says that another one follows (GNU tar, "Extended sparse header").
    const IS_EXTENDED: usize = 504;
    let mut extended = header.as_gnu().is_some_and(tar::GnuHeader::is_extended);
    while extended {
        allowance.spend(BLOCK as u64)?;
        let block = Block::read(input)?;
        let bytes = block.full().ok_or(Stop::cut_off("ends within a sparse member's map"))?;
        extended = bytes.get(IS_EXTENDED).is_some_and(|&flag| flag == 1);
    }
    Ok(())
}

/// How many bytes of data follow a header, by the header itself.
fn stored_size(header: &tar::Header) -> Result<u64, Stop> {
    // A first byte with the high bit set makes the field a binary number. The `tar` crate takes its
    // last 8 bytes; the ones before have to be zero, or the size is negative or past 64 bits.
    let [first, upper @ .., _, _, _, _, _, _, _, _] = &header.as_old().size;
    if first & 0x80 != 0 && (*first != 0x80 || upper.iter().any(|&byte| byte != 0)) {
        return Err(Stop::contradiction("a member's size is out of range"));
    }
    if header.as_old().size.iter().all(|byte| matches!(byte, 0 | b' ')) {
        return Ok(0);
    }
    header.entry_size().map_err(|_| Stop::contradiction("a member's size is not a number"))
}

/// How many bytes fill up the last block of that much data.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// Data and padding.
fn padded(size: u64) -> Result<u64, Stop> {
    size.checked_add(padding(size)).ok_or(Stop::contradiction("a member's size is out of range"))
}

/// A header's checksum is the sum of its bytes, the checksum's own counted as spaces. Some old
/// writers summed them as signed.
fn checksum_is_right(header: &tar::Header) -> bool {
    let Ok(stored) = header.cksum() else {
        return false;
    };
    let sum = |value: fn(u8) -> i64| -> i64 {
        let all: i64 = header.as_bytes().iter().map(|&byte| value(byte)).sum();
        let own: i64 = header.as_old().cksum.iter().map(|&byte| value(byte)).sum();
        all - own + 8 * i64::from(b' ')
    };
    let stored = i64::from(stored);
    stored == sum(i64::from) || stored == sum(|byte| i64::from(byte.cast_signed()))
}

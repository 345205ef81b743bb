//! Packed archives. Bytes that begin as one are read as they are and with the checksums of their
//! packing put right, all others are taken for a tar: packed in any way, it says what it says plain.

#![no_main]

mod look;

use std::io::Write;
use std::num::NonZeroU64;

use checkpoint_keeper_core::archive::{Format, State};
use flate2::{Compression, Crc, Decompress, FlushDecompress, Status};
use libfuzzer_sys::fuzz_target;
use look::{look, with_checksums};

fuzz_target!(|bytes: &[u8]| {
    let mut mended = bytes.to_vec();
    match Format::of(bytes) {
        Format::Tar => return agree(&with_checksums(bytes).unwrap_or(mended)),
        Format::Gzip => while_some(|at| mend_member(&mut mended, at)),
        Format::Xz => while_some(|at| mend_stream(&mut mended, at)),
        // A frame need not have a checksum, and most of the seeds have none.
        Format::Zstd => {}
    }
    look(bytes);
    if mended != bytes {
        look(&mended);
    }
});

fn while_some(mut part: impl FnMut(usize) -> Option<usize>) {
    let mut at = 0;
    while let Some(next) = part(at) {
        at = next;
    }
}

/// However a tar is packed, it is the same archive.
fn agree(tar: &[u8]) {
    let plain = look(tar);
    if plain.format != Format::Tar {
        return;
    }
    let (first, second) = tar.split_at(tar.len() / 2);
    for (format, packed) in [
        (Format::Gzip, gzip(tar)),
        (Format::Gzip, [gzip(first), gzip(second)].concat()),
        (Format::Zstd, zstd(tar)),
        (Format::Zstd, [&b"\x50\x2a\x4d\x18\x02\0\0\0ab"[..], &zstd(first), &zstd(second)].concat()),
        (Format::Xz, xz(tar)),
        (Format::Xz, [xz(first), vec![0; 4], xz(second)].concat()),
    ] {
        let found = look(&packed);
        assert_eq!(found.format, format);
        assert_eq!(found.contents.state, plain.contents.state, "{:?}", found.contents.problem);
        assert_eq!(found.contents.identity, plain.contents.identity);
        if matches!(plain.contents.state, State::Complete | State::NoImages) {
            assert_eq!((found.contents, found.members), (plain.contents.clone(), plain.members));
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory does not fail");
    encoder.finish().expect("memory does not fail")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// In blocks of 4 KiB.
fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut options = lzma_rust2::XzOptions::with_preset(0);
    options.lzma_options.dict_size = 4 << 10;
    options.block_size = NonZeroU64::new(4 << 10);
    let mut encoder = lzma_rust2::XzWriter::new(Vec::new(), options).expect("the options are right");
    encoder.write_all(bytes).expect("memory does not fail");
    encoder.finish().expect("memory does not fail")
}

/// Puts the checksum and the length of a gzip member right; where the next one is.
fn mend_member(bytes: &mut [u8], start: usize) -> Option<usize> {
    let &[0x1f, 0x8b, 8, flags, ..] = bytes.get(start..)? else { return None };
    let mut at = start + 10;
    if flags & 4 != 0 {
        at += 2 + usize::from(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    }
    for text in [8, 16] {
        if flags & text != 0 {
            at += 1 + bytes.get(at..)?.iter().position(|&byte| byte == 0)?;
        }
    }
    if flags & 2 != 0 {
        at += 2;
    }
    let (mut inflater, mut crc) = (Decompress::new(false), Crc::new());
    let mut buffer = vec![0; 32 << 10];
    loop {
        let (read, written) = (inflater.total_in(), inflater.total_out());
        let input = bytes.get(at + read as usize..)?;
        let status = inflater.decompress(input, &mut buffer, FlushDecompress::None).ok()?;
        crc.update(&buffer[..(inflater.total_out() - written) as usize]);
        if status == Status::StreamEnd {
            break;
        }
        if (read, written) == (inflater.total_in(), inflater.total_out()) || written > 1 << 20 {
            return None;
        }
    }
    at += inflater.total_in() as usize;
    bytes.get_mut(at..at + 4)?.copy_from_slice(&crc.sum().to_le_bytes());
    bytes.get_mut(at + 4..at + 8)?.copy_from_slice(&crc.amount().to_le_bytes());
    Some(at + 8)
}

/// Puts the checksums of an xz stream's headers, index and footer right; where the next one is. The
/// checks of its blocks stay as they are: most of the seeds have none.
fn mend_stream(bytes: &mut [u8], start: usize) -> Option<usize> {
    let padding = bytes.get(start..)?.chunks(4).take_while(|chunk| **chunk == [0; 4]).count();
    let mut at = start + 4 * padding;
    let check = match bytes.get(at..)? {
        [0xfd, b'7', b'z', b'X', b'Z', 0, _, 0, ..] => 0,
        [0xfd, b'7', b'z', b'X', b'Z', 0, _, 1, ..] => 4,
        [0xfd, b'7', b'z', b'X', b'Z', 0, _, 4, ..] => 8,
        [0xfd, b'7', b'z', b'X', b'Z', 0, _, 10, ..] => 32,
        _ => return None,
    };
    mend_sum(bytes, at + 6, 2, at + 8)?;
    at += 12;
    while let size @ 1.. = *bytes.get(at)? {
        let block = at;
        let header = 4 * usize::from(size);
        mend_sum(bytes, at, header, at + header)?;
        at += header + 4;
        // Chunks of LZMA2, to the zero that ends them.
        loop {
            let number =
                |at: usize| Some(usize::from(*bytes.get(at)?) << 8 | usize::from(*bytes.get(at + 1)?));
            at += match *bytes.get(at)? {
                0 => break,
                1 | 2 => 4 + number(at + 1)?,
                control @ 0x80.. => 6 + usize::from(control >= 0xc0) + number(at + 3)?,
                _ => return None,
            };
        }
        at += 1;
        at = block + (at - block).next_multiple_of(4) + check;
    }
    let index = at;
    at += 1;
    let mut numbers = 1;
    let mut is_first = true;
    while numbers > 0 {
        let length = bytes.get(at..)?.iter().take(9).position(|byte| byte & 0x80 == 0)? + 1;
        if is_first {
            numbers += 2 * usize::from(bytes[at] & 0x7f);
            is_first = false;
        }
        at += length;
        numbers -= 1;
    }
    let length = (at - index).next_multiple_of(4);
    mend_sum(bytes, index, length, index + length)?;
    at = index + length + 4;
    mend_sum(bytes, at + 4, 6, at)?;
    Some(at + 12)
}

/// Writes the CRC-32 of so many bytes where it belongs.
fn mend_sum(bytes: &mut [u8], from: usize, length: usize, to: usize) -> Option<()> {
    let mut crc = Crc::new();
    crc.update(bytes.get(from..from + length)?);
    bytes.get_mut(to..to + 4)?.copy_from_slice(&crc.sum().to_le_bytes());
    Some(())
}

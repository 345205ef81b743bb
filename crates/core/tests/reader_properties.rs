//! What holds for every archive and for all bytes that are none.

#![allow(
    clippy::unwrap_used,
    reason = "the clippy.toml exemption covers test functions only, not what they share"
)]

use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::sync::LazyLock;

use checkpoint_keeper_core::archive::{self, Format, State};
use checkpoint_keeper_core::identity::Identity;
use checkpoint_keeper_core::name::FileName;
use checkpoint_keeper_testkit::{ArchiveBuilder, Dialect};
use proptest::prelude::*;

/// The real archives, the memory pages of the larger ones included.
static REAL: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/archives");
    let mut archives: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
        .collect();
    archives.sort();
    archives
});

/// Counts what is read, and never lets anybody past the end.
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

/// Reads in both ways, and checks what holds for whatever there is.
fn look(bytes: &[u8]) -> archive::Inspection {
    let mut source = Counting { source: Cursor::new(bytes), bytes: 0 };
    let contents = archive::read(&mut source).unwrap();
    // No byte is read twice, except the first block of what is compressed.
    assert!(source.bytes <= bytes.len() as u64 + 512);
    let inspection = archive::inspect(&mut Cursor::new(bytes)).unwrap();
    assert_eq!(inspection.contents, contents);
    assert!(contents.state == State::Complete || contents.problem.is_some());
    assert!(!matches!(contents.state, State::Unreadable | State::Unread), "bytes do not say that");
    assert!(!matches!(contents.state, State::Damaged | State::Foreign) || contents.identity.is_none());
    if inspection.format == Format::Tar {
        assert!(inspection.members <= bytes.len() as u64 / 512);
    }
    inspection
}

fn label() -> impl Strategy<Value = String> {
    "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
}

fn subdomain() -> impl Strategy<Value = String> {
    proptest::collection::vec("[a-z0-9]([a-z0-9-]{0,40}[a-z0-9])?", 1..6).prop_map(|parts| parts.join("."))
}

fn dialect() -> impl Strategy<Value = Dialect> {
    prop_oneof![
        Just(Dialect::Containerd),
        Just(Dialect::CriO),
        Just(Dialect::Checkpointctl),
        Just(Dialect::Podman)
    ]
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Packing {
    None,
    Gzip,
    Zstd,
    Xz,
}

impl Packing {
    fn pack(self, tar: &[u8]) -> Vec<u8> {
        match self {
            Self::None => tar.to_vec(),
            Self::Gzip => {
                let mut stream = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                io::Write::write_all(&mut stream, tar).unwrap();
                stream.finish().unwrap()
            }
            Self::Zstd => ruzstd::encoding::compress_to_vec(tar, ruzstd::encoding::CompressionLevel::Fastest),
            Self::Xz => {
                let options = lzma_rust2::XzOptions::with_preset(0);
                let mut writer = lzma_rust2::XzWriter::new(Vec::new(), options).unwrap();
                io::Write::write_all(&mut writer, tar).unwrap();
                writer.finish().unwrap()
            }
        }
    }
}

fn packing() -> impl Strategy<Value = Packing> {
    prop_oneof![Just(Packing::None), Just(Packing::Gzip), Just(Packing::Zstd), Just(Packing::Xz)]
}

/// Where a member's data is in a tar.
fn data_of(tar: &[u8], name: &str) -> std::ops::Range<usize> {
    let header = (0..tar.len()).step_by(512).find(|&at| tar[at..].starts_with(name.as_bytes())).unwrap();
    let size = tar::Header::from_byte_slice(&tar[header..header + 512]).entry_size().unwrap();
    header + 512..header + 512 + usize::try_from(size).unwrap()
}

/// The headers of the first two members of a built archive lie within so many bytes.
const FIRST_TWO_HEADERS: usize = 4_096;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
        look(&bytes);
    }

    #[test]
    fn any_bytes_after_a_magic_number_are_read_without_panic(
        magic in prop_oneof![
            Just(&b"\x1f\x8b\x08\0"[..]),
            Just(&b"\x28\xb5\x2f\xfd"[..]),
            Just(&b"\x50\x2a\x4d\x18"[..]),
            Just(&b"\xfd7zXZ\0\0\x04\xe6\xd6\xb4\x46"[..]),
        ],
        bytes in proptest::collection::vec(any::<u8>(), 0..2048),
    ) {
        look(&[magic, &bytes].concat());
    }

    #[test]
    fn a_real_archive_that_was_cut_off_is_never_complete(which in 0..9_usize, at in any::<prop::sample::Index>()) {
        let whole = &REAL[which];
        let cut = &whole[..at.index(whole.len())];
        let state = look(cut).contents.state;
        prop_assert_eq!(state, State::Incomplete);
    }

    #[test]
    fn a_real_archive_that_was_cut_off_near_its_end_is_never_complete(which in 0..9_usize, by in 1..3000_usize) {
        let whole = &REAL[which];
        prop_assert_eq!(look(&whole[..whole.len() - by]).contents.state, State::Incomplete);
    }

    /// However it is packed: what is cut off is a dump that was cut off, and nothing else.
    #[test]
    fn a_sound_archive_that_was_cut_off_is_incomplete(
        dialect in dialect(),
        packing in packing(),
        pages in 0..60_000_usize,
        at in any::<prop::sample::Index>(),
        tail in 0..3000_usize,
    ) {
        let archive = ArchiveBuilder::new("shop", "web-0", "server").dialect(dialect).pages(pages);
        let whole = packing.pack(&archive.build().unwrap());
        let sound = look(&whole).contents;
        prop_assert_eq!((sound.state, &sound.problem), (State::Complete, &None));
        let cut = look(&whole[..at.index(whole.len())]).contents;
        prop_assert_eq!(cut.state, State::Incomplete, "{:?}", cut.problem);
        prop_assert!(cut.identity.is_none() || cut.identity == sound.identity);
        // Whatever is behind it changes nothing.
        prop_assert_eq!(look(&[&whole[..], &vec![0xa5; tail]].concat()).contents, sound);
    }

    /// Bits flip where they like but in the two JSON members of a plain tar, whose text nothing
    /// vouches for: that has no other archive's identity, and is none of somebody else's files.
    #[test]
    fn a_flipped_bit_makes_no_other_identity(
        dialect in dialect(),
        packing in packing(),
        pages in 0..20_000_usize,
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0..8_u32), 1..6),
    ) {
        let archive = ArchiveBuilder::new("shop", "web-0", "server").dialect(dialect).pages(pages);
        let mut bytes = packing.pack(&archive.build().unwrap());
        let sound = look(&bytes).contents;
        let text: Vec<_> = if packing == Packing::None {
            ["config.dump", "spec.dump"].map(|name| data_of(&bytes, name)).to_vec()
        } else {
            Vec::new()
        };
        let mut early = 0;
        for (place, bit) in flips {
            let place = place.index(bytes.len());
            if !text.iter().any(|range| range.contains(&place)) {
                bytes[place] ^= 1 << bit;
                early += usize::from(place < FIRST_TWO_HEADERS);
            }
        }
        let bent = look(&bytes).contents;
        prop_assert!(bent.identity.is_none() || bent.identity == sound.identity, "{:?}", bent);
        prop_assert!(bent.state != State::Complete || bent == sound, "{:?}", bent);
        // A bent first header is vouched for by its magic, its size and the header behind it: once more than one of
        // these is bent, nothing says any more that this is an archive, and what is none stays.
        if packing == Packing::None && early <= 1 {
            prop_assert!(bent.state.is_archive(), "{:?}", bent);
        }
    }

    #[test]
    fn a_bent_archive_is_read_without_panic(
        which in 0..9_usize,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        near_end in any::<bool>(),
    ) {
        let mut bytes = REAL[which].clone();
        let span = if near_end { bytes.len().min(20_000) } else { bytes.len() };
        let start = bytes.len() - span;
        for (place, value) in edits {
            bytes[start + place.index(span)] = value;
        }
        look(&bytes);
    }

    #[test]
    fn headers_of_any_kind_are_read_without_panic(
        headers in proptest::collection::vec((any::<u8>(), any::<u32>(), any::<bool>(), 0..3_usize), 0..20),
    ) {
        let mut bytes = Vec::new();
        for (kind, size, real_kind, blocks) in headers {
            let mut header = tar::Header::new_gnu();
            let kinds = b"0LxSKg57";
            let kind = if real_kind { kinds[usize::from(kind) % kinds.len()] } else { kind };
            header.set_path("config.dump").unwrap();
            header.set_entry_type(tar::EntryType::new(kind));
            header.set_size(u64::from(if blocks == 2 { size } else { size % 1024 }));
            header.set_cksum();
            bytes.extend_from_slice(header.as_bytes());
            bytes.resize(bytes.len() + 512 * blocks, b'7');
        }
        bytes.resize(bytes.len() + 1024, 0);
        look(&bytes);
    }

    /// Cut off or bent before it was packed, or neither.
    #[test]
    fn a_tar_says_the_same_however_it_is_packed(
        dialect in dialect(),
        packing in packing(),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        split in any::<prop::sample::Index>(),
    ) {
        let archive = ArchiveBuilder::new("shop", "web-0", "server").dialect(dialect);
        let mut tar = archive.build().unwrap();
        for (place, value) in edits {
            let place = place.index(tar.len());
            tar[place] = value;
        }
        tar.truncate(cut.map_or(tar.len(), |at| at.index(tar.len())));
        let plain = look(&tar);
        prop_assume!(plain.format == Format::Tar);
        let (first, second) = tar.split_at(split.index(tar.len() + 1));
        for packed in [packing.pack(&tar), [packing.pack(first), packing.pack(second)].concat()] {
            let found = look(&packed);
            prop_assert_eq!(found.contents.state, plain.contents.state, "{:?}", found.contents.problem);
            prop_assert_eq!(&found.contents.identity, &plain.contents.identity);
            if plain.contents.state == State::Complete {
                prop_assert_eq!(&found.contents, &plain.contents);
                prop_assert_eq!(found.members, plain.members);
            }
        }
    }

    #[test]
    fn what_was_put_in_is_read_back(
        namespace in label(),
        pod in subdomain(),
        container in label(),
        uid in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32}",
        second in -62_000_000_000_i64..253_000_000_000,
        dialect in dialect(),
        image in "[ -~é]{1,80}",
        long_name in "[a-z/]{90,400}",
        extra in 0..40_usize,
        pages in 0..5000_usize,
        packing in 0..3_u8,
    ) {
        let at = jiff::Timestamp::from_second(second).unwrap();
        let archive = ArchiveBuilder::new(&namespace, &pod, &container)
            .uid(&uid)
            .at(&at.to_string())
            .dialect(dialect)
            .image(&image)
            .member(&format!("checkpoint/{}", long_name.replace("//", "/x").trim_end_matches('/')), b"data")
            .extra_members(extra)
            .pages(pages);
        let (bytes, format) = match packing {
            0 => (archive.build().unwrap(), Format::Tar),
            1 => (archive.gzip().unwrap(), Format::Gzip),
            _ => (archive.zstd().unwrap(), Format::Zstd),
        };
        let found = look(&bytes);
        let podman = dialect == Dialect::Podman;
        prop_assert_eq!(found.contents.problem, None);
        prop_assert_eq!(found.contents.state, State::Complete);
        prop_assert_eq!(found.format, format);
        prop_assert_eq!(found.contents.image, Some(image));
        prop_assert_eq!(found.contents.checkpointed_at, (!podman).then_some(at));
        let identity = Identity { namespace, pod, pod_uid: Some(uid), container };
        prop_assert_eq!(found.contents.identity, (!podman).then_some(identity));
        // The kubelet's name has the same time.
        let name = FileName::new(archive.file_name().into_bytes()).unwrap();
        if (0..=9999).contains(&at.to_zoned(jiff::tz::TimeZone::UTC).year()) {
            prop_assert_eq!(name.checkpoint_time(), Some(at));
        }
    }

    #[test]
    fn any_name_is_shown_without_control_characters(bytes in proptest::collection::vec(any::<u8>(), 1..64)) {
        if let Some(name) = FileName::new(bytes.clone()) {
            prop_assert!(!name.to_string().chars().any(char::is_control));
            if let Ok(text) = std::str::from_utf8(&bytes) {
                prop_assert_eq!(name.to_json_text(), text);
            }
            let _ = (name.kind(), name.checkpoint_time(), name.marker());
        }
    }
}

#[test]
fn many_members_are_read() {
    let archive = ArchiveBuilder::new("shop", "web-0", "server").extra_members(5_000);
    let found = look(&archive.build().unwrap());
    assert_eq!((found.contents.state, found.members), (State::Complete, 5_013));
}

/// What tells a flipped bit in a packed stream is the checksum at its end: once that is cut off, nothing vouches for
/// any text.
#[test]
fn a_packed_archive_that_was_cut_off_says_of_no_one_that_it_is_theirs() {
    let archive = ArchiveBuilder::new("shop", "web-0", "server").build().unwrap();
    for packing in [Packing::Gzip, Packing::Zstd, Packing::Xz] {
        let whole = packing.pack(&archive);
        let sound = look(&whole).contents;
        assert!(sound.identity.is_some(), "{packing:?}");
        for bit in (0..whole.len() * 8).step_by(3) {
            let mut bent = whole[..whole.len() - 4].to_vec();
            let Some(byte) = bent.get_mut(bit / 8) else { break };
            *byte ^= 1 << (bit % 8);
            let contents = look(&bent).contents;
            // The bit that says that there is a checksum.
            let is_whole = contents == sound;
            assert!(contents.identity.is_none() || is_whole, "{packing:?}, bit {bit}: {contents:?}");
        }
    }
}

/// Every single byte at which the smallest real archive of each runtime can be cut off.
#[test]
fn every_cut_of_a_real_archive_near_its_end_is_incomplete() {
    for whole in REAL.iter() {
        for by in 1..1600 {
            let state = look(&whole[..whole.len() - by]).contents.state;
            assert_eq!(state, State::Incomplete, "{by} bytes off {}", whole.len());
        }
    }
}

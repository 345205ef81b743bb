//! An archive's file name: any bytes, never a path, and never an identity.
//!
//! Holds what a name alone can tell (which kind of file it is, the time the kubelet wrote into it)
//! and how to show one safely. Who is in an archive is [`crate::identity`]'s part.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

/// The name of one file in a checkpoint directory: not empty, not `.` or `..`, without `/` and NUL.
/// Ordered by its bytes. Cheap to clone: plans and reports pass names around by the thousand.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileName {
    bytes: Arc<[u8]>,
    /// Told once: a plan asks this of every name, and its bytes lie somewhere else in memory.
    archive: Option<ArchiveName>,
}

/// How archives may be named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum ArchiveName {
    Kubelet,
    OtherTar,
}

/// What kind of file a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameKind {
    /// `checkpoint-*.tar`: how the kubelet names archives,
    /// `checkpoint-<pod>_<namespace>-<container>-<time>.tar` (kubelet `pkg/kubelet/kubelet.go`).
    Kubelet,
    /// Another name for an archive: `.tar`, `.tar.gz`, `.tgz`, `.tar.zst` or `.tar.zstd` at its
    /// end, no dot at its beginning.
    OtherTar,
    /// `<archive>.keep`: pins the archive beside it.
    Marker {
        /// The name of the archive that the marker pins.
        archive: FileName,
    },
    /// `<archive>.keep.tmp`: a marker that is being written.
    MarkerBeingWritten,
    /// None of these: a file that is not this program's.
    Other,
}

const MARKER: &[u8] = b".keep";
const MARKER_BEING_WRITTEN: &[u8] = b".keep.tmp";
const ARCHIVE_ENDINGS: [&[u8]; 5] = [b".tar", b".tar.gz", b".tgz", b".tar.zst", b".tar.zstd"];

impl FileName {
    /// A file name of these bytes, unless they are empty, `.`, `..`, or hold a `/` or a NUL.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Option<Self> {
        let bytes = bytes.into();
        let refused =
            matches!(&*bytes, b"" | b"." | b"..") || bytes.iter().any(|byte| matches!(byte, b'/' | 0));
        (!refused).then(|| Self::of_allowed(bytes))
    }

    /// The name at the end of a path; none where there is none, as in `/` and `a/..`.
    pub fn of_path(path: &Path) -> Option<Self> {
        path.file_name().and_then(|name| Self::new(name.as_encoded_bytes()))
    }

    fn of_allowed(bytes: Arc<[u8]>) -> Self {
        let archive = archive_name(&bytes);
        Self { bytes, archive }
    }

    /// The name's bytes, as the file system has them.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What kind of file the name stands for. A marker is one only beside a name that can be an
    /// archive's: `notes.keep` is not this program's file.
    pub fn kind(&self) -> NameKind {
        match self.archive {
            Some(ArchiveName::Kubelet) => return NameKind::Kubelet,
            Some(ArchiveName::OtherTar) => return NameKind::OtherTar,
            None => {}
        }
        if let Some(archive) = self.bytes.strip_suffix(MARKER)
            && archive_name(archive).is_some()
        {
            return NameKind::Marker { archive: Self::of_allowed(archive.into()) };
        }
        match self.bytes.strip_suffix(MARKER_BEING_WRITTEN) {
            Some(archive) if archive_name(archive).is_some() => NameKind::MarkerBeingWritten,
            _ => NameKind::Other,
        }
    }

    /// Whether the name is that of an archive, of a marker, or of a marker that is being written.
    pub fn is_archive_or_marker(&self) -> bool {
        self.kind() != NameKind::Other
    }

    /// The time that the kubelet wrote into the name: when the checkpoint was asked for, to the
    /// second, with the offset of the node's zone.
    pub fn checkpoint_time(&self) -> Option<Timestamp> {
        let stem = ARCHIVE_ENDINGS.iter().find_map(|ending| self.bytes.strip_suffix(*ending))?;
        // By length, since both the time and what is before it are full of dashes.
        ["-2006-01-02T15:04:05Z", "-2006-01-02T15:04:05+00:00"]
            .iter()
            .find_map(|shape| time_at_end(stem, shape.as_bytes()))
    }

    /// The name of the marker that pins this archive. It may be longer than a file system allows.
    #[must_use]
    pub fn marker(&self) -> Self {
        Self::of_allowed([&self.bytes, MARKER].concat().into())
    }

    /// The name of that marker until it is written to its end.
    #[must_use]
    pub fn marker_being_written(&self) -> Self {
        Self::of_allowed([&self.bytes, MARKER_BEING_WRITTEN].concat().into())
    }

    /// The name as JSON output has it: exactly the name where that is valid UTF-8, else the text
    /// of [`Display`](fmt::Display).
    pub fn to_json_text(&self) -> Cow<'_, str> {
        match std::str::from_utf8(&self.bytes) {
            Ok(name) => Cow::Borrowed(name),
            Err(_) => Cow::Owned(self.to_string()),
        }
    }
}

impl fmt::Debug for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

fn archive_name(name: &[u8]) -> Option<ArchiveName> {
    let kubelet = name.strip_prefix(b"checkpoint-").is_some_and(|rest| rest.ends_with(b".tar"));
    if kubelet {
        return Some(ArchiveName::Kubelet);
    }
    let tar = !name.starts_with(b".") && ARCHIVE_ENDINGS.iter().any(|ending| name.ends_with(ending));
    tar.then_some(ArchiveName::OtherTar)
}

/// The time at the end of a stem, if that has the very shape: digits where the shape has digits,
/// either sign where it has `+`, and the same bytes elsewhere.
fn time_at_end(stem: &[u8], shape: &[u8]) -> Option<Timestamp> {
    let end = stem.get(stem.len().checked_sub(shape.len())?..)?;
    let fits = end.iter().zip(shape).all(|(byte, shape)| match shape {
        b'0'..=b'9' => byte.is_ascii_digit(),
        b'+' => matches!(byte, b'+' | b'-'),
        _ => byte == shape,
    });
    if !fits {
        return None;
    }
    std::str::from_utf8(end.get(1..)?).ok()?.parse().ok()
}

/// The name made safe for terminals and logs, and still unambiguous: two names never give the same
/// text. Printable characters stay; control characters, invisible format characters and those that
/// turn the direction of text become `\n`, `\r`, `\t`, `\x1b` or `\u{202e}`; bytes that are no
/// UTF-8 become `\xff`. A backslash is doubled only where the text would otherwise read as one of
/// these (before `n`, `r`, `t`, `u`, `x`, another backslash or an escape).
impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.bytes.utf8_chunks() {
            let mut characters = chunk.valid().chars().peekable();
            while let Some(character) = characters.next() {
                match character {
                    '\\' => {
                        let ambiguous = characters.peek().map_or(!chunk.invalid().is_empty(), |&next| {
                            matches!(next, '\\' | 'n' | 'r' | 't' | 'u' | 'x') || is_unsafe(next)
                        });
                        f.write_str(if ambiguous { r"\\" } else { r"\" })?;
                    }
                    '\n' => f.write_str(r"\n")?,
                    '\r' => f.write_str(r"\r")?,
                    '\t' => f.write_str(r"\t")?,
                    control if control.is_ascii_control() => {
                        write!(f, r"\x{:02x}", u32::from(control))?;
                    }
                    hidden if is_unsafe(hidden) => write!(f, r"\u{{{:x}}}", u32::from(hidden))?,
                    plain => f.write_char(plain)?,
                }
            }
            for byte in chunk.invalid() {
                write!(f, r"\x{byte:02x}")?;
            }
        }
        Ok(())
    }
}

/// Text from outside made safe for terminals and logs: characters that a terminal acts on, does not show, or
/// shows somewhere else are spelled out as in a [`FileName`]'s text, everything else stays. Unlike there a
/// backslash stays one, so that text that was made safe stays as it is.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\n' => shown.push_str(r"\n"),
            '\r' => shown.push_str(r"\r"),
            '\t' => shown.push_str(r"\t"),
            control if control.is_ascii_control() => {
                let _ = write!(shown, r"\x{:02x}", u32::from(control));
            }
            hidden if is_unsafe(hidden) => {
                let _ = write!(shown, r"\u{{{:x}}}", u32::from(hidden));
            }
            plain => shown.push(plain),
        }
    }
    Cow::Owned(shown)
}

/// Characters that a terminal acts on, does not show, or shows somewhere else: Unicode's control
/// (Cc) and format (Cf) characters, line separators, and the letters that are drawn as nothing.
pub fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            u32::from(character),
            0xad | 0x34f
                | 0x600..=0x605
                | 0x61c
                | 0x6dd
                | 0x70f
                | 0x890..=0x891
                | 0x8e2
                | 0x115f..=0x1160
                | 0x17b4..=0x17b5
                | 0x180b..=0x180f
                | 0x200b..=0x200f
                | 0x2028..=0x202e
                | 0x2060..=0x206f
                | 0x3164
                | 0xfe00..=0xfe0f
                | 0xfeff
                | 0xffa0
                | 0xfff0..=0xfffb
                | 0x110bd
                | 0x110cd
                | 0x13430..=0x1343f
                | 0x1bca0..=0x1bca3
                | 0x1d173..=0x1d17a
                | 0xe0000..=0xe0fff
        )
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn name(bytes: impl AsRef<[u8]>) -> FileName {
        FileName::new(bytes.as_ref()).unwrap()
    }

    #[test]
    fn text_from_outside_does_nothing_to_a_terminal() {
        let evil = "a\x1b]0;b\x07\u{9b}31m\u{202e}c\u{2066}\u{2028}\u{200f}\x7f\r\n\t\0é \\x";
        assert_eq!(
            printable(evil),
            r"a\x1b]0;b\x07\u{9b}31m\u{202e}c\u{2066}\u{2028}\u{200f}\x7f\r\n\t\x00é \x"
        );
        let shown = printable(evil).into_owned();
        assert!(matches!(printable(&shown), Cow::Borrowed(again) if again == shown), "safe text stays");
    }

    #[test]
    fn a_name_is_never_a_path() {
        for refused in [&b""[..], b".", b"..", b"/", b"a/b", b"../x.tar", b"a\0.tar"] {
            assert_eq!(FileName::new(refused), None, "{refused:?}");
        }
        assert_eq!(name(b"...").as_bytes(), b"...");
        assert_eq!(name("a.tar").marker(), name("a.tar.keep"));
        assert!(name("B") < name("a") && name("a") < name("a-") && name("z") < name(b"\xff"));
    }

    #[test]
    fn kinds_of_files() {
        use NameKind::{Kubelet, MarkerBeingWritten, Other, OtherTar};
        let marker = |archive: &str| NameKind::Marker { archive: name(archive) };
        let table = [
            ("checkpoint-web-0_shop-server-2026-11-22T15:59:42Z.tar", Kubelet),
            ("checkpoint-x.tar", Kubelet),
            ("checkpoint-x.tar.gz", OtherTar),
            ("ledger.tar", OtherTar),
            ("ledger.tgz", OtherTar),
            ("ledger.tar.zst", OtherTar),
            ("ledger.tar.zstd", OtherTar),
            ("ledger.TAR", Other),
            (".ledger.tar", Other),
            (".tar", Other),
            ("ledger.zst", Other),
            ("checkpoint-x", Other),
            ("checkpoint-x.tar.keep", marker("checkpoint-x.tar")),
            ("ledger.tar.gz.keep", marker("ledger.tar.gz")),
            ("checkpoint-x.tar.keep.tmp", MarkerBeingWritten),
            ("notes.keep", Other),
            ("notes.keep.tmp", Other),
            (".keep", Other),
            (".keep.tmp", Other),
            ("checkpoint-x.tar.keep.keep", Other),
            ("checkpoint-x.tar.keep.tar", Kubelet),
        ];
        for (text, kind) in table {
            assert_eq!(name(text).kind(), kind, "{text}");
        }
    }

    #[test]
    fn the_kubelets_time_is_at_the_end_with_its_offset() {
        let at = |text: &str| name(text).checkpoint_time().map(|time| time.to_string());
        let noon = Some("2026-11-22T15:59:42Z".to_owned());
        assert_eq!(at("checkpoint-web-0_shop-server-2026-11-22T15:59:42Z.tar"), noon);
        assert_eq!(at("checkpoint-web-0_shop-server-2026-11-22T16:59:42+01:00.tar"), noon);
        assert_eq!(at("checkpoint-web-0_shop-server-2026-11-22T09:29:42-06:30.tar"), noon);
        assert_eq!(at("x-2026-11-22T15:59:42Z.tar.gz"), noon);
        for none in [
            "checkpoint-web-0_shop-server.tar",
            "2026-11-22T15:59:42Z.tar",
            "x-2026-11-22T15:59:42.tar",
            "x-2026-11-22T15:59:42z.tar",
            "x-2026-11-22 15:59:42Z.tar",
            "x-2026-13-22T15:59:42Z.tar",
            "x-2026-11-31T15:59:42Z.tar",
            "x-2026-11-22T15:59:42+99:00.tar",
            "x-2026-11-22T15:59:42Z.tar.keep",
            "x-2026-11-22T15:59:42Z.txt",
            "x-2026-11-22T15:59:42Zé.tar",
        ] {
            assert_eq!(at(none), None, "{none}");
        }
    }

    #[test]
    fn names_are_shown_safely_and_unambiguously() {
        let table: [(&[u8], &str); 14] = [
            (b"plain \xc3\xa9.tar", "plain é.tar"),
            (b"a\nb", r"a\nb"),
            (br"a\nb", r"a\\nb"),
            (br"a\b", r"a\b"),
            (br"a\\b", r"a\\\b"),
            (b"a\\\n", r"a\\\n"),
            (b"a\\", r"a\"),
            (b"\x1b[31m\x7f", r"\x1b[31m\x7f"),
            (b"\xff\xc3", r"\xff\xc3"),
            (b"\\\xff", r"\\\xff"),
            (br"\xff", r"\\xff"),
            ("\u{202e}rat".as_bytes(), r"\u{202e}rat"),
            ("\u{9b}31m".as_bytes(), r"\u{9b}31m"),
            ("a\u{200b}\u{2066}\u{feff}".as_bytes(), r"a\u{200b}\u{2066}\u{feff}"),
        ];
        for (bytes, shown) in table {
            assert_eq!(name(bytes).to_string(), shown);
        }
        assert_eq!(name("a\u{202e}\n").to_json_text(), "a\u{202e}\n");
        assert_eq!(name(b"a\xff\n").to_json_text(), r"a\xff\n");

        // Every name of up to four of these: no two are shown alike.
        let alphabet = [&b"\\"[..], b"n", b"x", b"0", b"a", b"\n", b"\x0a\xff", b"u", b"\xc2\x9b"];
        let mut seen: HashMap<String, Vec<u8>> = HashMap::new();
        let mut all: Vec<Vec<u8>> = vec![vec![]];
        for _ in 0..4 {
            all = all.iter().flat_map(|one| alphabet.iter().map(|more| [one, *more].concat())).collect();
            for bytes in &all {
                let before = seen.insert(name(bytes).to_string(), bytes.clone());
                assert!(before.as_ref().is_none_or(|before| before == bytes), "{before:?} {bytes:?}");
            }
        }
    }
}

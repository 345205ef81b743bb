//! What an archive holds, read with as few bytes as possible and without trusting any of them.
//!
//! Holds the two ways in, [`read`] and [`inspect`], and the judgement, a [`State`]. Walking the tar is `walk`, where its bytes come from `source` and `packed`, what
//! the JSON members say `json`, CRIU's figures `statistics`.

mod input;
mod json;
mod members;
mod packed;
mod pax;
mod source;
mod statistics;
mod walk;

use std::fmt;
use std::io::{self, Read, Seek};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use self::input::Stop;
use self::json::{Config, Spec};
use self::members::Members;
use self::source::{Plain, Watched};
pub use self::statistics::Statistics;
use crate::annotations::{self, Annotations};
use crate::identity::{Identity, RuntimeName};

/// The largest JSON member that is read, in bytes. Real ones are 24 KB and less.
pub const MAX_JSON_MEMBER: u64 = 16 << 20;

/// A JSON member over this many bytes counts as large: to hold it takes notable memory.
const LARGE_MEMBER: u64 = 1 << 20;

/// What a caller knows of the file that it has read, and wants to know of the reading.
pub struct ReadOptions<'a> {
    /// How many of the file's bytes take room on its disk, as far as that is known. What a packed archive may cost goes
    /// by that: a sparse file may be said to be of any length.
    pub occupied: u64,
    /// Called, once or several times, before something that takes many megabytes of memory: unpacking, or a JSON member
    /// over 1 MiB. The caller may have it wait.
    pub before_large: &'a mut dyn FnMut(),
}

/// Whether an archive can stand in for the container it was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// A whole tar with both JSON members and CRIU's images (`checkpoint/inventory.img` and
    /// `checkpoint/pstree.img`): a container could be restored from it.
    Complete,
    /// A whole tar with both JSON members but without CRIU's images: nothing could be restored.
    NoImages,
    /// The archive stops too early, or lacks one of its JSON members: a dump that was cut off.
    Incomplete,
    /// Begins as an archive and contradicts itself: a header with a wrong checksum, a JSON member
    /// that is no JSON, a packed stream that is corrupt, an older archive's bytes in its midst.
    Damaged,
    /// The system refused to read it. Says nothing of its bytes: the next try may succeed.
    Unreadable,
    /// Not an archive at all (encrypted, another format or packing, a tar of another program), or not
    /// one that is looked into so far. Never deleted for what it holds.
    Foreign,
    /// Not judged yet: it may still be being written.
    Unread,
}

impl State {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Complete => "Complete",
            Self::NoImages => "NoImages",
            Self::Incomplete => "Incomplete",
            Self::Damaged => "Damaged",
            Self::Unreadable => "Unreadable",
            Self::Foreign => "Foreign",
            Self::Unread => "Unread",
        }
    }

    /// Whether nothing is missing at its end, also where nothing can be restored from it.
    pub fn is_whole(self) -> bool {
        matches!(self, Self::Complete | Self::NoImages)
    }

    /// Whether it is an archive at all, by its own bytes.
    pub fn is_archive(self) -> bool {
        match self {
            Self::Complete | Self::NoImages | Self::Incomplete | Self::Damaged => true,
            Self::Unreadable | Self::Foreign | Self::Unread => false,
        }
    }
}

/// What an archive's bytes say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contents {
    /// Whether it is complete, and if not, what is wrong; never `Unreadable` nor `Unread`, which bytes do not say.
    pub state: State,
    /// Why the state is not `Complete`. Never holds text from the archive.
    pub problem: Option<String>,
    /// Whose checkpoint it is; `None` where that is not certain. Always `None` for `Foreign` and for
    /// `Damaged`: where one part of an archive is wrong, no other is taken at its word.
    pub identity: Option<Identity>,
    /// `config.dump`'s `checkpointedTime`, unless that is Go's zero time.
    pub checkpointed_at: Option<Timestamp>,
    /// The OCI runtime as `config.dump` names it: `runc`, `io.containerd.runc.v2`, `/usr/bin/crun`.
    pub runtime: Option<String>,
    /// The image's name as `config.dump` gives it.
    pub image: Option<String>,
}

/// What an archive says in words; many archives say the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Texts {
    /// The OCI runtime, such as `runc`.
    pub runtime: Option<String>,
    /// The image that the container was made of.
    pub image: Option<String>,
    /// What is wrong with the archive.
    pub problem: Option<String>,
}

/// How an archive's bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Format {
    /// Not compressed, or nothing that is known (then the archive is not complete).
    Tar,
    /// A tar in a gzip stream.
    Gzip,
    /// A tar in Zstandard frames.
    Zstd,
    /// A tar in an xz stream.
    Xz,
}

impl Format {
    /// The packing of a file that begins with these bytes: six tell all there are, fewer as far as they go.
    pub fn of(start: &[u8]) -> Self {
        match start {
            // DEFLATE is the one method there is, and flags that are not defined are not set.
            [0x1f, 0x8b] | [0x1f, 0x8b, 8] => Self::Gzip,
            [0x1f, 0x8b, 8, flags, ..] if flags & 0xe0 == 0 => Self::Gzip,
            // A skippable frame may come before the first real one (RFC 8878, 3.1.2).
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::Tar,
        }
    }
}

/// What files begin with that are packed or encrypted in a way that is not looked into.
const OTHER_PACKINGS: [(&[u8], &str); 11] = [
    (b"BZh", "is packed with bzip2, which is not unpacked"),
    (b"\x04\x22\x4d\x18", "is packed with lz4, which is not unpacked"),
    (b"\x02\x21\x4c\x18", "is packed with lz4, which is not unpacked"),
    (b"LZIP\x01", "is packed with lzip, which is not unpacked"),
    (b"\x5d\0\0", "is packed with lzma, which is not unpacked"),
    (b"\x89LZO\0\r\n\x1a\n", "is packed with lzop, which is not unpacked"),
    (b"\x1f\x9d", "is packed with compress, which is not unpacked"),
    (b"PK\x03\x04", "is a zip file"),
    (b"7z\xbc\xaf\x27\x1c", "is a 7z file"),
    (b"age-encryption.org/", "is encrypted with age"),
    (b"-----BEGIN PGP MESSAGE-----", "is encrypted with PGP"),
];

/// Why a file is not looked into, where its beginning says so.
fn other_packing(start: &[u8]) -> Option<&'static str> {
    OTHER_PACKINGS.iter().find(|(magic, _)| start.starts_with(magic)).map(|&(_, problem)| problem)
}

/// Which container engine wrote an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Engine {
    /// containerd.
    #[serde(rename = "containerd")]
    Containerd,
    /// CRI-O.
    #[serde(rename = "CRI-O")]
    CriO,
    /// Podman.
    Podman,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Containerd => "containerd",
            Self::CriO => "CRI-O",
            Self::Podman => "Podman",
        })
    }
}

/// All that can be said about an archive, for people who look at one. As in [`Contents`], what
/// comes from a damaged or foreign one is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// What [`read`] says.
    pub contents: Contents,
    /// How the bytes are packed.
    pub format: Format,
    /// Members that were found, whatever their kind, up to where the reading stopped.
    pub members: u64,
    /// The container engine, from what it wrote: a tenant who can add annotations can fake it.
    pub engine: Option<Engine>,
    /// `config.dump`'s `id`: the container's ID at the runtime.
    pub container_id: Option<String>,
    /// `config.dump`'s `rootfsImageRef` (Podman: `rootfsImageID`): the image by digest or ID.
    pub image_ref: Option<String>,
    /// `config.dump`'s `createdTime`: when the container was made.
    pub created_at: Option<Timestamp>,
    /// How often the kubelet had restarted the container: the last part of the runtime's name.
    pub restart_count: Option<u32>,
    /// Whether the container had itself been restored from a checkpoint.
    pub restored: Option<bool>,
    /// When it had been restored, if it had.
    pub restored_at: Option<Timestamp>,
    /// CRIU's figures of the dump.
    pub statistics: Option<Statistics>,
}

/// Says what an archive is, reading headers and its two JSON members only. `Err` is a failure of
/// the source itself (a disk's `EIO`); whatever the bytes are, the answer is in
/// [`Contents::state`].
///
/// Of a plain tar this reads at most 64 KiB + the two JSON members + 512 bytes a member, plus the
/// long names and PAX headers that it has. Of a packed one, everything up to the tar's end has to be
/// unpacked: what that may cost is bounded, and beyond that it is `Foreign`.
pub fn read<R: Read + Seek>(source: &mut R) -> io::Result<Contents> {
    read_with(source, ReadOptions { occupied: u64::MAX, before_large: &mut || {} })
}

/// The same of a file of which more is known.
pub fn read_with<R: Read + Seek>(source: &mut R, options: ReadOptions<'_>) -> io::Result<Contents> {
    take_in(source, false, options).map(|inspection| inspection.contents)
}

/// Says all that is known about an archive: as [`read`], and CRIU's `stats-dump` besides.
pub fn inspect<R: Read + Seek>(source: &mut R) -> io::Result<Inspection> {
    inspect_with(source, ReadOptions { occupied: u64::MAX, before_large: &mut || {} })
}

/// The same of a file of which more is known.
pub fn inspect_with<R: Read + Seek>(source: &mut R, options: ReadOptions<'_>) -> io::Result<Inspection> {
    take_in(source, true, options)
}

fn take_in<R: Read + Seek>(
    source: &mut R,
    statistics: bool,
    options: ReadOptions<'_>,
) -> io::Result<Inspection> {
    let mut members = Members::new(statistics);
    let mut format = Format::Tar;
    let walked = walk_source(source, options, &mut members, &mut format);
    match walked {
        Err(Stop::Source(error)) => Err(error),
        Err(Stop::CutOff(problem)) => Ok(judge(Some(problem.into()), members, format)),
        // A bit that flipped in a packed stream makes another text of it, and what would tell is behind the cut.
        Err(Stop::Unchecked(problem)) => {
            let count = members.count;
            let judged = judge(Some(problem.into()), members, format);
            let problem = judged.contents.problem.unwrap_or_default();
            Ok(unusable(judged.contents.state, problem, count, format))
        }
        // A packed stream that is corrupt before anything came out of it still began as one.
        Err(Stop::Contradiction(problem))
            if members.has_checkpoint_member || (members.count == 0 && format != Format::Tar) =>
        {
            Ok(unusable(State::Damaged, problem.into(), members.count, format))
        }
        Err(Stop::Contradiction(problem) | Stop::Refused(problem)) => {
            Ok(unusable(State::Foreign, problem.into(), members.count, format))
        }
        Ok(()) => Ok(judge(None, members, format)),
    }
}

fn walk_source<R: Read + Seek>(
    source: &mut R,
    options: ReadOptions<'_>,
    members: &mut Members,
    format: &mut Format,
) -> Result<(), Stop> {
    let ReadOptions { occupied, before_large } = options;
    let (mut plain, first) = Plain::open(source)?;
    *format = Format::of(first.bytes());
    if *format == Format::Tar {
        let packing = other_packing(first.bytes());
        return walk::walk(&mut plain, Some(first), members, before_large).map_err(|stop| {
            match (stop, packing) {
                (Stop::Refused(_), Some(packing)) if members.count == 0 => Stop::refused(packing),
                (stop, _) => stop,
            }
        });
    }
    let length = plain.length().min(occupied);
    source.rewind()?;
    before_large();
    let watched = Watched::new(source);
    let mut stream = packed::Stream::new(&watched, *format, length);
    walk::walk(&mut stream, None, members, before_large)?;
    // What follows the tar may be padding, but it holds the stream's checksum and its end.
    stream.finish()
}

/// The judgement over a walk that reached the tar's end or the file's (`cut_off` says which).
fn judge(cut_off: Option<String>, members: Members, format: Format) -> Inspection {
    let config = match &members.config {
        Some(Err(problem)) => return unusable(State::Damaged, (*problem).to_owned(), members.count, format),
        Some(Ok(config)) => Some(config),
        None => None,
    };
    let spec = match &members.spec {
        Some(Err(problem)) => return unusable(State::Damaged, (*problem).to_owned(), members.count, format),
        Some(Ok(spec)) => Some(spec),
        None => None,
    };
    let missing = match (&members.config, &members.spec) {
        (None, None) => Some("has neither config.dump nor spec.dump"),
        (None, Some(_)) => Some("has no config.dump"),
        (Some(_), None) => Some("has no spec.dump"),
        (Some(_), Some(_)) => None,
    };
    // The file of another program, cut off or not: this program must not call it incomplete.
    if missing.is_some() && !members.has_checkpoint_member && members.count > 0 {
        return unusable(State::Foreign, "holds nothing of a checkpoint".to_owned(), members.count, format);
    }
    let (state, problem) = match (cut_off.or_else(|| missing.map(str::to_owned)), members.images.missing()) {
        (Some(problem), _) => (State::Incomplete, Some(problem)),
        (None, Some(image)) => (State::NoImages, Some(format!("has no {image}, so nothing can be restored"))),
        (None, None) => (State::Complete, None),
    };
    // Without spec.dump there are no annotations; then only the container's name can tell the identity.
    let no_annotations = Annotations::default();
    let annotations = spec.map_or(&no_annotations, |spec| &spec.annotations);
    // Annotations are the tenant's to add to: without config.dump nothing could contradict them.
    let of_a_pod = config.filter(|config| !is_written_by_libpod(config, annotations));
    let name = of_a_pod.and_then(|config| config.name.as_deref());
    let identity = of_a_pod.and_then(|_| Identity::resolve(name, &annotations.0));
    let engine = engine(config, spec);
    let restart_count = name.and_then(RuntimeName::parse).and_then(|name| name.attempt);
    let config = members.config.and_then(Result::ok).unwrap_or_default();
    Inspection {
        contents: Contents {
            state,
            problem,
            identity,
            checkpointed_at: config.checkpointed_at,
            runtime: config.runtime,
            image: config.image,
        },
        format,
        members: members.count,
        engine,
        container_id: config.id,
        image_ref: config.image_ref,
        created_at: config.created_at,
        restart_count,
        restored: config.restored,
        restored_at: config.restored_at,
        statistics: members.statistics,
    }
}

/// An archive of which nothing but that is taken.
fn unusable(state: State, problem: String, members: u64, format: Format) -> Inspection {
    Inspection {
        contents: Contents {
            state,
            problem: Some(problem),
            identity: None,
            checkpointed_at: None,
            runtime: None,
            image: None,
        },
        format,
        members,
        engine: None,
        container_id: None,
        image_ref: None,
        created_at: None,
        restart_count: None,
        restored: None,
        restored_at: None,
        statistics: None,
    }
}

/// Whether Podman's library wrote the archive, whose containers have names that their users gave
/// (`my_app_web_api_1` is podman-compose's) and whose pods are none of Kubernetes'.
///
/// The mark alone does not say so, as a pod's own annotations get copied among the runtime's: with
/// one, a tenant would take all archives out of every policy. Only the CRI runtimes, though, write
/// checkpointctl's `checkpointedTime`, and only libpod a `rootfsImageID`.
fn is_written_by_libpod(config: &Config, annotations: &Annotations) -> bool {
    let is_marked = annotations.0.get(annotations::MANAGER).is_some_and(|manager| manager == "libpod");
    is_marked && (config.checkpointed_at.is_none() || config.has_image_id)
}

/// The engine by its own mark, then by whose annotations there are, then by the shim's name.
fn engine(config: Option<&Config>, spec: Option<&Spec>) -> Option<Engine> {
    let marks = spec.map(|spec| &spec.annotations.0);
    let mark = |key: &str| marks.and_then(|marks| marks.get(key)).map(String::as_str);
    match mark(annotations::MANAGER).or_else(|| mark(annotations::CHECKPOINTCTL_ENGINE)) {
        Some("cri-o" | "CRI-O") => return Some(Engine::CriO),
        Some("libpod" | "Podman") => return Some(Engine::Podman),
        Some("containerd") => return Some(Engine::Containerd),
        _ => {}
    }
    let shim = config.and_then(|config| config.runtime.as_deref());
    if shim.is_some_and(|shim| shim.starts_with("io.containerd.")) {
        return Some(Engine::Containerd);
    }
    let any = |prefix: &str| marks.is_some_and(|marks| marks.keys().any(|key| key.starts_with(prefix)));
    if any("io.kubernetes.cri-o.") {
        Some(Engine::CriO)
    } else if any("io.kubernetes.cri.") {
        Some(Engine::Containerd)
    } else {
        None
    }
}

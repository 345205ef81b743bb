//! Archives made to order, for tests and benchmarks.
//!
//! [`ArchiveBuilder`] writes what a container runtime writes: the same members in the same order,
//! with `config.dump` and `spec.dump` as it fills them in. Members are laid out as real ones are
//! (`checkpoint/…` with the memory pages, then the JSON members), so that a reader has to seek.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

/// Whose way of writing an archive is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// The kubelet with containerd.
    Containerd,
    /// The kubelet with CRI-O.
    CriO,
    /// containerd's members with checkpointctl's annotations.
    Checkpointctl,
    /// Podman: no pod identity at all.
    Podman,
}

/// Where the memory pages are in an archive.
const PAGES: &str = "checkpoint/pages-1.img";

/// The container's UID, where a test does not name one.
const UID: &str = "5744a2df-d174-487a-aa0c-c20695010502";

/// A checkpoint archive to be.
#[derive(Debug, Clone)]
pub struct ArchiveBuilder {
    namespace: String,
    pod: String,
    container: String,
    uid: Option<String>,
    at: String,
    dialect: Dialect,
    runtime_name: RuntimeName,
    image: String,
    annotations: Vec<(String, String)>,
    pages: Vec<u8>,
    extra_members: usize,
    named_members: Vec<(String, Vec<u8>)>,
    without: Vec<String>,
    config_json: Option<Vec<u8>>,
    spec_json: Option<Vec<u8>>,
    truncate: usize,
}

/// What `config.dump` says as the container's name.
#[derive(Debug, Clone)]
enum RuntimeName {
    OfDialect,
    Given(String),
    Absent,
}

/// One member: its name and its data.
type Member = (String, Vec<u8>);

impl ArchiveBuilder {
    /// A complete archive of this container as containerd writes it, with 8 KiB of pages.
    #[must_use]
    pub fn new(namespace: &str, pod: &str, container: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            container: container.to_owned(),
            uid: Some(UID.to_owned()),
            at: "2026-11-22T15:59:42Z".to_owned(),
            dialect: Dialect::Containerd,
            runtime_name: RuntimeName::OfDialect,
            image: "registry.example/demo/busybox:1".to_owned(),
            annotations: Vec::new(),
            pages: vec![0xa5; 8 << 10],
            extra_members: 0,
            named_members: Vec::new(),
            without: Vec::new(),
            config_json: None,
            spec_json: None,
            truncate: 0,
        }
    }

    /// The pod's UID.
    #[must_use]
    pub fn uid(mut self, uid: &str) -> Self {
        self.uid = Some(uid.to_owned());
        self
    }

    /// When the checkpoint was taken, as RFC 3339 has it. Podman does not write it.
    #[must_use]
    pub fn at(mut self, time: &str) -> Self {
        time.clone_into(&mut self.at);
        self
    }

    /// The runtime whose format is used; containerd's by default.
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// `config.dump`'s `name` instead of the one that the dialect makes; `None` leaves it out.
    #[must_use]
    pub fn runtime_name(mut self, name: Option<&str>) -> Self {
        self.runtime_name = name.map_or(RuntimeName::Absent, |name| RuntimeName::Given(name.to_owned()));
        self
    }

    /// The image's name.
    #[must_use]
    pub fn image(mut self, image: &str) -> Self {
        image.clone_into(&mut self.image);
        self
    }

    /// One more annotation; it replaces the dialect's own of that key.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.push((key.to_owned(), value.to_owned()));
        self
    }

    /// The memory pages: bytes, or how many.
    #[must_use]
    pub fn pages(mut self, pages: impl Into<Pages>) -> Self {
        self.pages = pages.into().0;
        self
    }

    /// So many small members more, before the JSON members.
    #[must_use]
    pub fn extra_members(mut self, count: usize) -> Self {
        self.extra_members = count;
        self
    }

    /// One more member of any name, before the JSON members. A long name gets a GNU header.
    #[must_use]
    pub fn member(mut self, name: &str, data: &[u8]) -> Self {
        self.named_members.push((name.to_owned(), data.to_vec()));
        self
    }

    /// Leaves out the members of this name.
    #[must_use]
    pub fn without(mut self, member: &str) -> Self {
        self.without.push(member.to_owned());
        self
    }

    /// `config.dump`, byte for byte.
    #[must_use]
    pub fn config_json(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.config_json = Some(bytes.into());
        self
    }

    /// `spec.dump`, byte for byte.
    #[must_use]
    pub fn spec_json(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.spec_json = Some(bytes.into());
        self
    }

    /// Cuts off so many bytes at the end (before any compression).
    #[must_use]
    pub fn truncate(mut self, by: usize) -> Self {
        self.truncate = by;
        self
    }

    /// The tar.
    pub fn build(&self) -> io::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, data) in self.members() {
            append(&mut tar, &name, &data)?;
        }
        let mut bytes = tar.into_inner()?;
        bytes.truncate(bytes.len().saturating_sub(self.truncate));
        Ok(bytes)
    }

    /// The tar in a gzip stream.
    pub fn gzip(&self) -> io::Result<Vec<u8>> {
        let mut stream = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        stream.write_all(&self.build()?)?;
        stream.finish()
    }

    /// The tar in a Zstandard frame.
    pub fn zstd(&self) -> io::Result<Vec<u8>> {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        Ok(ruzstd::encoding::compress_to_vec(self.build()?.as_slice(), level))
    }

    /// The name that the kubelet gives the archive.
    #[must_use]
    pub fn file_name(&self) -> String {
        let Self { namespace, pod, container, at, .. } = self;
        // The kubelet writes whole seconds.
        let time = match at.split_once('.') {
            Some((seconds, rest)) => {
                format!("{seconds}{}", rest.trim_start_matches(|digit: char| digit.is_ascii_digit()))
            }
            None => at.clone(),
        };
        format!("checkpoint-{pod}_{namespace}-{container}-{time}.tar")
    }

    /// Writes the tar under [`Self::file_name`]; where it is then.
    pub fn write_to(&self, directory: &Path) -> io::Result<PathBuf> {
        let path = directory.join(self.file_name());
        fs::write(&path, self.build()?)?;
        Ok(path)
    }

    /// Writes the tar under [`Self::file_name`] with pages that are a hole of so many bytes; where
    /// it is then.
    pub fn write_sparse(&self, directory: &Path, pages: u64) -> io::Result<PathBuf> {
        let (before, after) = self.around_pages(pages)?;
        let path = directory.join(self.file_name());
        let mut file = File::create(&path)?;
        file.write_all(&before)?;
        file.seek(SeekFrom::Current(i64::try_from(padded(pages)).map_err(io::Error::other)?))?;
        file.write_all(&after)?;
        Ok(path)
    }

    /// The bytes before and after pages of so many bytes (with padding to the next block between),
    /// for sources that make the pages up.
    pub fn around_pages(&self, pages: u64) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let mut before = Vec::new();
        let mut after = tar::Builder::new(Vec::new());
        let mut tar = tar::Builder::new(Vec::new());
        let mut passed = false;
        for (name, data) in self.members() {
            if name == PAGES {
                before = std::mem::take(tar.get_mut());
                let mut header = file_header(pages);
                header.set_path(&name)?;
                header.set_cksum();
                before.extend_from_slice(header.as_bytes());
                passed = true;
            } else if passed {
                append(&mut after, &name, &data)?;
            } else {
                append(&mut tar, &name, &data)?;
            }
        }
        Ok((before, after.into_inner()?))
    }

    /// The members in the order that the runtime has (`filepath.Walk` for containerd, a fixed list
    /// for CRI-O, Podman's own).
    fn members(&self) -> Vec<Member> {
        let config = self.config_json.clone().unwrap_or_else(|| self.config().to_string().into());
        let spec = self.spec_json.clone().unwrap_or_else(|| self.spec().to_string().into());
        let member = |name: &str, data: &[u8]| (name.to_owned(), data.to_vec());
        let mut checkpoint = vec![
            member("checkpoint/", b""),
            member("checkpoint/descriptors.json", br#"["/dev/null","pipe:[1]","pipe:[2]"]"#),
            member("checkpoint/inventory.img", &[0x41; 86]),
            (PAGES.to_owned(), self.pages.clone()),
            member("checkpoint/pstree.img", &[0x42; 36]),
        ];
        checkpoint
            .extend((0..self.extra_members).map(|n| (format!("checkpoint/extra-{n}.img"), vec![0x43; 18])));
        checkpoint.extend(self.named_members.iter().cloned());
        let config = ("config.dump".to_owned(), config);
        let spec = ("spec.dump".to_owned(), spec);
        let stats = member("stats-dump", &STATISTICS);
        let diff = member("rootfs-diff.tar", &[0; 1024]);
        let log = member("dump.log", b"(00.000000) Dumping finished successfully\n");
        let mut members = Vec::new();
        match self.dialect {
            Dialect::Containerd | Dialect::Checkpointctl => {
                members.extend(checkpoint);
                members.extend([config, member("container.log", b"tick\n"), log, diff, spec, stats]);
                members.extend([member("status", b"{}"), member("status.dump", b"{}")]);
            }
            Dialect::CriO => {
                members.extend([stats, log]);
                members.extend(checkpoint);
                members.extend([config, spec, member("bind.mounts", b"[]"), diff]);
                members.push(member("io.kubernetes.cri-o.LogPath", b"tick\n"));
            }
            Dialect::Podman => {
                members.extend([member("artifacts/", b""), member("devshm-checkpoint.tar", &[0; 1024])]);
                members.extend([config, spec, member("network.status", b"null"), stats]);
                members.push(member("ctr.log", b"tick\n"));
                members.extend(checkpoint);
                members.push(diff);
            }
        }
        members.retain(|(name, _)| !self.without.contains(name));
        members
    }

    fn config(&self) -> Value {
        let Self { namespace, pod, container, .. } = self;
        let uid = self.uid.as_deref().unwrap_or_default();
        let made = match self.dialect {
            Dialect::Containerd => Some(format!("{container}_{pod}_{namespace}_{uid}_0")),
            Dialect::CriO => Some(format!("k8s_{container}_{pod}_{namespace}_{uid}_0")),
            // A name that says nothing: the annotations decide.
            Dialect::Checkpointctl | Dialect::Podman => Some(container.clone()),
        };
        let name = match &self.runtime_name {
            RuntimeName::OfDialect => made,
            RuntimeName::Given(name) => Some(name.clone()),
            RuntimeName::Absent => None,
        };
        let digest = format!("sha256:{}", "8".repeat(64));
        let mut config = json!({
            "id": "6f".repeat(32),
            "rootfsImageName": self.image,
            "createdTime": "2026-11-22T15:59:10.148189092Z",
        });
        if let Some(fields) = config.as_object_mut() {
            if let Some(name) = name {
                fields.insert("name".to_owned(), name.into());
            }
            if self.dialect == Dialect::Podman {
                fields.insert("rootfsImageID".to_owned(), digest.into());
                fields.insert("runtime".to_owned(), "/usr/bin/crun".into());
            } else {
                let runtime = match self.dialect {
                    Dialect::CriO => "runc",
                    _ => "io.containerd.runc.v2",
                };
                fields.insert("rootfsImage".to_owned(), self.image.clone().into());
                fields.insert("rootfsImageRef".to_owned(), digest.into());
                fields.insert("runtime".to_owned(), runtime.into());
                fields.insert("checkpointedTime".to_owned(), self.at.clone().into());
                fields.insert("restoredTime".to_owned(), "0001-01-01T00:00:00Z".into());
                fields.insert("restored".to_owned(), false.into());
            }
        }
        config
    }

    fn spec(&self) -> Value {
        let Self { namespace, pod, container, .. } = self;
        let of = |keys: [&str; 4]| {
            let mut map = Map::new();
            for (key, value) in
                keys.into_iter().zip([Some(namespace), Some(pod), Some(container), self.uid.as_ref()])
            {
                if let Some(value) = value {
                    map.insert(key.to_owned(), value.clone().into());
                }
            }
            map
        };
        let mut annotations = match self.dialect {
            Dialect::Containerd => of([
                "io.kubernetes.cri.sandbox-namespace",
                "io.kubernetes.cri.sandbox-name",
                "io.kubernetes.cri.container-name",
                "io.kubernetes.cri.sandbox-uid",
            ]),
            Dialect::CriO => {
                let mut map = of([
                    "io.kubernetes.pod.namespace",
                    "io.kubernetes.pod.name",
                    "io.kubernetes.container.name",
                    "io.kubernetes.pod.uid",
                ]);
                let labels = Value::from(map.clone()).to_string();
                map.insert("io.kubernetes.cri-o.Labels".to_owned(), labels.into());
                map.insert("io.container.manager".to_owned(), "cri-o".into());
                map
            }
            Dialect::Checkpointctl => of([
                "org.criu.checkpoint.pod.namespace",
                "org.criu.checkpoint.pod.name",
                "org.criu.checkpoint.container.name",
                "org.criu.checkpoint.pod.uid",
            ]),
            Dialect::Podman => {
                let mut map = Map::new();
                map.insert("io.container.manager".to_owned(), "libpod".into());
                map
            }
        };
        for (key, value) in &self.annotations {
            annotations.insert(key.clone(), value.clone().into());
        }
        json!({"ociVersion": "1.2.0", "process": {"args": ["/server"]}, "annotations": annotations})
    }
}

/// Memory pages for [`ArchiveBuilder::pages`].
#[derive(Debug, Clone)]
pub struct Pages(Vec<u8>);

impl From<Vec<u8>> for Pages {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<usize> for Pages {
    fn from(length: usize) -> Self {
        Self(vec![0xa5; length])
    }
}

/// A `stats-dump` of a real checkpoint (containerd, a small shell).
const STATISTICS: [u8; 46] = *b"\x40\x59\x10\x55\x06\x33\x09\x57\x22\0\0\0\x0a\x20\x08\xd2\x03\x10\x8f\x92\x08\x18\xca\x04\x20\x6f\x28\x2f\x30\0\x38\x21\x40\0\x48\0\x50\x05\x58\x08\x60\x06\x68\0\x70\0";

fn padded(size: u64) -> u64 {
    size.next_multiple_of(512)
}

/// A header of a regular file as the runtimes write it (Go's `archive/tar`, USTAR where it fits).
fn file_header(size: u64) -> tar::Header {
    // Sizes past 8 GiB do not fit USTAR's octal digits: GNU's binary ones, as in Go's GNU format.
    let mut header = if size >> 33 == 0 { tar::Header::new_ustar() } else { tar::Header::new_gnu() };
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o600);
    header.set_size(size);
    header
}

fn append(tar: &mut tar::Builder<Vec<u8>>, name: &str, data: &[u8]) -> io::Result<()> {
    let mut header = if name.len() < 100 { file_header(data.len() as u64) } else { tar::Header::new_gnu() };
    header.set_size(data.len() as u64);
    header.set_mode(0o600);
    if name.ends_with('/') {
        header.set_entry_type(tar::EntryType::Directory);
    }
    tar.append_data(&mut header, name, data)
}

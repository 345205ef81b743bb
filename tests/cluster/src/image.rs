//! Container images made here, without a registry or a daemon: an OCI archive with one layer.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Everything is as old as that, so that equal contents make equal images.
const CREATED: &str = "2026-01-01T00:00:00Z";

/// The annotation of an archive's only image that is its whole name.
const NAME: &str = "io.containerd.image.name";

/// What an image holds and runs.
#[derive(Debug, Default)]
pub struct Image {
    entries: Vec<Entry>,
    entrypoint: Vec<String>,
}

#[derive(Debug)]
enum Entry {
    File { at: String, contents: Vec<u8> },
    Link { at: String, to: String },
    Folder { at: String, mode: u32 },
}

impl Image {
    /// An empty image that runs `entrypoint`.
    pub fn new(entrypoint: &[&str]) -> Self {
        let entrypoint = entrypoint.iter().map(ToString::to_string).collect();
        Self { entries: Vec::new(), entrypoint }
    }

    /// With a program of the host at this path.
    pub fn program(mut self, at: &str, from: &Path) -> anyhow::Result<Self> {
        let contents = std::fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        self.entries.push(Entry::File { at: at.to_owned(), contents });
        Ok(self)
    }

    /// With a symbolic link.
    #[must_use]
    pub fn link(mut self, at: &str, to: &str) -> Self {
        self.entries.push(Entry::Link { at: at.to_owned(), to: to.to_owned() });
        self
    }

    /// With an empty folder.
    #[must_use]
    pub fn folder(mut self, at: &str, mode: u32) -> Self {
        self.entries.push(Entry::Folder { at: at.to_owned(), mode });
        self
    }

    /// busybox with all its commands; it also serves as the pods' sandbox.
    pub fn busybox(debian: &Path) -> anyhow::Result<Self> {
        let program = debian.join("usr/bin/busybox");
        let commands = crate::process::output(std::process::Command::new(&program).arg("--list"))?;
        let image = Self::new(&["/bin/busybox", "sleep", "infinity"])
            .folder("/tmp", 0o1777)
            .folder("/etc", 0o755)
            .program("/bin/busybox", &program)?;
        let commands = commands.lines().filter(|name| *name != "busybox");
        Ok(commands.fold(image, |image, name| image.link(&format!("/bin/{name}"), "busybox")))
    }

    /// Writes it as an OCI archive that a runtime imports under `reference`.
    pub fn write(&self, to: &Path, reference: &str) -> anyhow::Result<()> {
        let layer = self.layer()?;
        let platform = json!({"architecture": "amd64", "os": "linux"});
        let config = serde_json::to_vec(&json!({
            "architecture": "amd64", "os": "linux", "created": CREATED,
            "config": {"Entrypoint": self.entrypoint, "WorkingDir": "/",
                       "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
            "history": [{"created": CREATED}],
        }))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &config),
            "layers": [descriptor("layer.v1.tar", &layer)],
        }))?;
        let mut listed = descriptor("manifest.v1+json", &manifest);
        listed["platform"] = platform;
        let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        listed["annotations"] = json!({NAME: reference, "org.opencontainers.image.ref.name": tag});
        let index = serde_json::to_vec(&json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [listed],
        }))?;
        let mut archive = tar::Builder::new(Vec::new());
        add_file(&mut archive, "oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        add_file(&mut archive, "index.json", 0o644, &index)?;
        for blob in [&manifest, &config, &layer] {
            let name = format!("blobs/sha256/{}", digest(blob).trim_start_matches("sha256:"));
            add_file(&mut archive, &name, 0o644, blob)?;
        }
        let bytes = archive.into_inner()?;
        // A node that boots meanwhile must not import half of it.
        let partial = to.with_extension("partial");
        let mut file = std::fs::File::create(&partial)?;
        file.write_all(&bytes)?;
        std::fs::rename(&partial, to).with_context(|| format!("cannot write {}", to.display()))
    }

    fn layer(&self) -> anyhow::Result<Vec<u8>> {
        let mut layer = tar::Builder::new(Vec::new());
        let mut known = BTreeSet::new();
        for entry in &self.entries {
            match entry {
                Entry::Folder { at, mode } => add_folder(&mut layer, &mut known, inside(at), *mode)?,
                Entry::File { at, contents } => {
                    add_parents(&mut layer, &mut known, inside(at))?;
                    add_file(&mut layer, inside(at), 0o755, contents)?;
                }
                Entry::Link { at, to } => {
                    add_parents(&mut layer, &mut known, inside(at))?;
                    let mut header = header(tar::EntryType::Symlink, 0o777, 0);
                    layer.append_link(&mut header, inside(at), to)?;
                }
            }
        }
        Ok(layer.into_inner()?)
    }
}

/// The name under which an archive that [`Image::write`] wrote is to be imported.
pub fn reference(archive: &Path) -> anyhow::Result<String> {
    let read = || -> anyhow::Result<String> {
        let mut members = tar::Archive::new(std::fs::File::open(archive)?);
        for member in members.entries()? {
            let member = member?;
            if member.path_bytes().as_ref() == b"index.json" {
                let index: Value = serde_json::from_reader(member)?;
                let name = index["manifests"][0]["annotations"][NAME].as_str();
                return Ok(name.context("its image has no name")?.to_owned());
            }
        }
        anyhow::bail!("it has no index")
    };
    read().with_context(|| format!("{} is no image of ours", archive.display()))
}

fn inside(path: &str) -> &str {
    path.trim_matches('/')
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header
}

fn add_parents(
    archive: &mut tar::Builder<Vec<u8>>,
    parents: &mut BTreeSet<String>,
    path: &str,
) -> anyhow::Result<()> {
    match path.rsplit_once('/') {
        Some((parent, _)) => add_folder(archive, parents, parent, 0o755),
        None => Ok(()),
    }
}

fn add_folder(
    archive: &mut tar::Builder<Vec<u8>>,
    parents: &mut BTreeSet<String>,
    path: &str,
    mode: u32,
) -> anyhow::Result<()> {
    if !parents.contains(path) {
        add_parents(archive, parents, path)?;
        parents.insert(path.to_owned());
        archive.append_data(&mut header(tar::EntryType::Directory, mode, 0), path, std::io::empty())?;
    }
    Ok(())
}

fn add_file(
    archive: &mut tar::Builder<Vec<u8>>,
    path: &str,
    mode: u32,
    contents: &[u8],
) -> anyhow::Result<()> {
    Ok(archive.append_data(
        &mut header(tar::EntryType::Regular, mode, contents.len() as u64),
        path,
        contents,
    )?)
}

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({
        "mediaType": format!("application/vnd.oci.image.{kind}"),
        "digest": digest(bytes),
        "size": bytes.len(),
    })
}

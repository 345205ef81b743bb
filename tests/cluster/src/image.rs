//! Container images made here, without a registry or a daemon: OCI layouts with one layer, as archive or directory.

use std::collections::{BTreeMap, BTreeSet};
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
    user: Option<String>,
    labels: BTreeMap<String, String>,
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
        Self { entrypoint, ..Self::default() }
    }

    /// Run as this user and group, where a pod does not say.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// With labels, for people and registries.
    #[must_use]
    pub fn labels<'a>(mut self, labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.labels.extend(labels);
        self
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

    /// Writes it as an archive that a runtime of this machine's architecture imports under `reference`.
    pub fn write(&self, to: &Path, reference: &str) -> anyhow::Result<()> {
        Layout::of(&[(AMD64, self)], reference, CREATED)?.write_archive(to)
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

/// The name that Go, and so images, have for the architecture of this machine.
const AMD64: &str = "amd64";

/// The files of an OCI image layout by their paths, with those that `docker load` looks for.
#[derive(Debug, Default)]
pub struct Layout {
    files: BTreeMap<String, Vec<u8>>,
}

impl Layout {
    /// One image under `reference`, for each of the architectures (`amd64`, `arm64`) that there is an [`Image`] for;
    /// `created` (RFC 3339) is the time that they are to have. Equal input makes equal bytes.
    pub fn of(images: &[(&str, &Image)], reference: &str, created: &str) -> anyhow::Result<Self> {
        // A colon before the last slash is a port's.
        let last = reference.rsplit('/').next().unwrap_or(reference);
        let tag = last.split_once(':').map(|(_, tag)| tag);
        let reference = if tag.is_some() { reference.to_owned() } else { format!("{reference}:latest") };
        let mut layout = Self::default();
        let mut manifests = Vec::new();
        let mut docker = Vec::new();
        for (architecture, image) in images {
            let tar = image.layer()?;
            let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            packed.write_all(&tar)?;
            let mut config = json!({
                "architecture": architecture, "os": "linux", "created": created,
                "config": {"Entrypoint": image.entrypoint, "WorkingDir": "/", "Labels": image.labels,
                           "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
                "rootfs": {"type": "layers", "diff_ids": [digest(&tar)]},
                "history": [{"created": created}],
            });
            if let Some(user) = &image.user {
                config["config"]["User"] = json!(user);
            }
            let layer = layout.add("layer.v1.tar+gzip", packed.finish()?);
            let config = layout.add("config.v1+json", serde_json::to_vec(&config)?);
            docker.push(json!({
                "Config": blob(&config), "RepoTags": [reference], "Layers": [blob(&layer)],
            }));
            let mut manifest = layout.add(
                "manifest.v1+json",
                serde_json::to_vec(&json!({
                    "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "config": config, "layers": [layer],
                }))?,
            );
            manifest["platform"] = json!({"architecture": architecture, "os": "linux"});
            manifests.push(manifest);
        }
        let index = |manifests: &[Value]| {
            serde_json::to_vec(&json!({
                "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": manifests,
            }))
        };
        let mut listed = match manifests.as_slice() {
            [only] => only.clone(),
            several => layout.add("index.v1+json", index(several)?),
        };
        listed["annotations"] =
            json!({NAME: reference, "org.opencontainers.image.ref.name": tag.unwrap_or("latest")});
        layout.files.insert("index.json".to_owned(), index(&[listed])?);
        layout.files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        // Docker takes one architecture at a time.
        if let [_] = docker.as_slice() {
            layout.files.insert("manifest.json".to_owned(), serde_json::to_vec(&docker)?);
        }
        Ok(layout)
    }

    /// Adds a blob, and returns its descriptor.
    fn add(&mut self, kind: &str, bytes: Vec<u8>) -> Value {
        let descriptor = json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": digest(&bytes),
            "size": bytes.len(),
        });
        self.files.insert(blob(&descriptor), bytes);
        descriptor
    }

    /// Writes it as a tar, all at once: `docker load`, `podman load` and `ctr images import` read it.
    pub fn write_archive(&self, to: &Path) -> anyhow::Result<()> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, contents) in &self.files {
            add_file(&mut archive, path, 0o644, contents)?;
        }
        let bytes = archive.into_inner()?;
        // A node that boots meanwhile must not import half of it.
        let partial = to.with_extension("partial");
        std::fs::write(&partial, bytes).with_context(|| format!("cannot write {}", partial.display()))?;
        std::fs::rename(&partial, to).with_context(|| format!("cannot write {}", to.display()))
    }

    /// Writes it as a directory, in the place of an earlier one.
    pub fn write_directory(&self, to: &Path) -> anyhow::Result<()> {
        let write = || -> std::io::Result<()> {
            if to.exists() {
                std::fs::remove_dir_all(to)?;
            }
            for (path, contents) in &self.files {
                let file = to.join(path);
                if let Some(folder) = file.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                std::fs::write(file, contents)?;
            }
            Ok(())
        };
        write().with_context(|| format!("cannot write {}", to.display()))
    }
}

/// Where a layout has what a descriptor names.
fn blob(descriptor: &Value) -> String {
    format!("blobs/{}", descriptor["digest"].as_str().unwrap_or_default().replace(':', "/"))
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

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const WHEN: &str = "2026-02-03T04:05:06Z";

    fn image(contents: &[u8]) -> Image {
        let mut image = Image::new(&["/program"]).user("1:1").labels([("a", "b")]);
        image.entries.push(Entry::File { at: "/bin/program".to_owned(), contents: contents.to_vec() });
        image
    }

    fn parse(layout: &Layout, path: &str) -> Value {
        serde_json::from_slice(&layout.files[path]).expect("JSON")
    }

    /// Follows a descriptor, which says how large its blob is and what its digest is.
    fn follow<'a>(layout: &'a Layout, descriptor: &Value) -> &'a [u8] {
        let bytes = &layout.files[&blob(descriptor)];
        assert_eq!(descriptor["digest"], digest(bytes));
        assert_eq!(descriptor["size"], bytes.len());
        bytes
    }

    #[test]
    fn a_layout_leads_from_its_index_to_the_program_of_each_architecture() {
        let (one, other) = (image(b"one"), image(b"other"));
        let layout = Layout::of(&[("amd64", &one), ("arm64", &other)], "registry.test/name:tag", WHEN)
            .expect("a layout");
        let listed = &parse(&layout, "index.json")["manifests"][0];
        assert_eq!(listed["annotations"]["org.opencontainers.image.ref.name"], "tag");
        let index: Value = serde_json::from_slice(follow(&layout, listed)).expect("JSON");
        for (at, architecture, contents) in [(0, "amd64", "one"), (1, "arm64", "other")] {
            let descriptor = &index["manifests"][at];
            assert_eq!(descriptor["platform"], json!({"architecture": architecture, "os": "linux"}));
            let manifest: Value = serde_json::from_slice(follow(&layout, descriptor)).expect("JSON");
            let config: Value = serde_json::from_slice(follow(&layout, &manifest["config"])).expect("JSON");
            assert_eq!(config["architecture"], architecture);
            assert_eq!(config["created"], WHEN);
            assert_eq!(config["config"]["User"], "1:1");
            assert_eq!(config["config"]["Labels"], json!({"a": "b"}));
            let mut tar = Vec::new();
            let packed = follow(&layout, &manifest["layers"][0]);
            flate2::read::GzDecoder::new(packed).read_to_end(&mut tar).expect("a layer");
            assert_eq!(config["rootfs"]["diff_ids"], json!([digest(&tar)]));
            let mut members = tar::Archive::new(tar.as_slice());
            let mut found = Vec::new();
            for member in members.entries().expect("a tar") {
                let mut member = member.expect("a member");
                let mut text = String::new();
                member.read_to_string(&mut text).expect("text");
                found.push((String::from_utf8_lossy(&member.path_bytes()).into_owned(), text));
            }
            let expected = [("bin", ""), ("bin/program", contents)];
            assert_eq!(found, expected.map(|(path, text)| (path.to_owned(), text.to_owned())));
        }
        assert!(!layout.files.contains_key("manifest.json"), "docker would take the first for all");
    }

    #[test]
    fn an_archive_of_one_architecture_is_also_in_the_form_of_docker_save() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("image.tar");
        let image = image(b"program");
        let layout = Layout::of(&[("arm64", &image)], "registry.test:5000/name:tag", WHEN).expect("a layout");
        layout.write_archive(&path).expect("an archive");
        assert_eq!(reference(&path).expect("its name"), "registry.test:5000/name:tag");
        let docker = &parse(&layout, "manifest.json")[0];
        assert_eq!(docker["RepoTags"], json!(["registry.test:5000/name:tag"]));
        let config = parse(&layout, docker["Config"].as_str().expect("a path"));
        assert_eq!(config["architecture"], "arm64");
        assert!(layout.files.contains_key(docker["Layers"][0].as_str().expect("a path")));
    }

    #[test]
    fn equal_images_are_equal_in_each_byte() {
        let (once, again, changed) = (image(b"program"), image(b"program"), image(b"programs"));
        let files = |image| Layout::of(&[("amd64", image)], "name:tag", WHEN).expect("a layout").files;
        assert_eq!(files(&once), files(&again));
        assert_ne!(files(&once), files(&changed));
    }

    #[test]
    fn a_name_without_a_tag_has_the_usual_one() {
        let layout =
            Layout::of(&[("amd64", &image(b""))], "registry.test:5000/name", WHEN).expect("a layout");
        let annotations = &parse(&layout, "index.json")["manifests"][0]["annotations"];
        assert_eq!(annotations["org.opencontainers.image.ref.name"], "latest");
        assert_eq!(annotations[NAME], "registry.test:5000/name:latest");
    }
}

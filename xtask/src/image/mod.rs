//! `cargo xtask image`: the container image, `FROM scratch`, of the one program, linked so that it needs nothing else.
//!
//! It takes neither a container engine nor a registry: what is written is an OCI image layout, which `skopeo` and `crane`
//! push, and an archive for each architecture, which `docker`, `podman` and `ctr` load.

mod program;

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use checkpoint_keeper_testcluster::image::{Image, Layout};
use clap::{Args, ValueEnum};
use jiff::Timestamp;

pub(crate) use self::program::{Architecture, Program, build, program};
use crate::repository::{Commit, commit, target};

/// The program's path in the image.
const PROGRAM: &str = "/checkpoint-keeper";

/// Who it runs as where a pod does not say: nobody in particular.
const USER: &str = "65532:65532";

/// The name that the manifests have for it until a registry is named.
const NAME: &str = "localhost/checkpoint-keeper:dev";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// For which architectures, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "amd64", num_args = 1..)]
    arch: Vec<Architecture>,
    /// The image's name and tag
    #[arg(long, default_value = NAME, value_name = "NAME:TAG")]
    name: String,
    /// The directory to write to, instead of target/image
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut programs = Vec::new();
    for architecture in each(&arguments.arch) {
        programs.push((architecture, build(Program::Operator, architecture)?));
    }
    let output = arguments.output.clone().unwrap_or_else(|| target().join("image"));
    for path in write(&programs, &arguments.name, &output)? {
        println!("{}", path.display());
    }
    Ok(())
}

/// Those that are named, each once.
pub(crate) fn each(architectures: &[Architecture]) -> BTreeSet<Architecture> {
    architectures.iter().copied().collect()
}

/// Builds the image for this machine's architecture, and says where its archive is.
pub(crate) fn build_archive() -> anyhow::Result<PathBuf> {
    archive(&build(Program::Operator, Architecture::Amd64)?)
}

/// Writes the image of this machine's program where tests and benchmarks have it, and says where its archive is. What
/// `cargo xtask image` wrote is left as it is: it may be for more than this machine.
pub(crate) fn archive(program: &Path) -> anyhow::Result<PathBuf> {
    let output = target().join("test-image");
    write(&[(Architecture::Amd64, program.to_owned())], NAME, &output)?;
    Ok(output.join(archive_of(Architecture::Amd64)))
}

/// What the archive for an architecture is called.
fn archive_of(architecture: Architecture) -> String {
    format!("checkpoint-keeper-{}.tar", architecture.name())
}

/// Writes the image of these programs, and says where to: the layout of all, and an archive of each.
pub(crate) fn write(
    programs: &[(Architecture, PathBuf)],
    name: &str,
    output: &Path,
) -> anyhow::Result<Vec<PathBuf>> {
    let Commit { revision, seconds } = commit()?;
    let created = Timestamp::from_second(i64::try_from(seconds)?)?.to_string();
    let mut images = Vec::new();
    for (architecture, program) in programs {
        images.push((*architecture, image(program, &revision, &created)?));
    }
    let named: Vec<(&str, &Image)> = images.iter().map(|(of, image)| (of.name(), image)).collect();
    std::fs::create_dir_all(output)?;
    // What an earlier build left is of other sources.
    for architecture in Architecture::value_variants() {
        let archive = output.join(archive_of(*architecture));
        match std::fs::remove_file(&archive) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", archive.display()));
            }
            _ => {}
        }
    }
    let layout = output.join("oci");
    Layout::of(&named, name, &created)?.write_directory(&layout)?;
    let mut written = vec![layout];
    for (architecture, image) in &images {
        let archive = output.join(archive_of(*architecture));
        Layout::of(&[(architecture.name(), image)], name, &created)?.write_archive(&archive)?;
        written.push(archive);
    }
    Ok(written)
}

fn image(program: &Path, revision: &str, created: &str) -> anyhow::Result<Image> {
    let labels = [
        ("org.opencontainers.image.title", "checkpoint-keeper"),
        ("org.opencontainers.image.description", "Manages container checkpoints on Kubernetes"),
        ("org.opencontainers.image.licenses", "Apache-2.0"),
        ("org.opencontainers.image.version", env!("CARGO_PKG_VERSION")),
        ("org.opencontainers.image.revision", revision),
        ("org.opencontainers.image.created", created),
    ];
    Image::new(&[PROGRAM]).user(USER).labels(labels).program(PROGRAM, program)
}

//! `cargo xtask release`: every file that a release publishes, in one directory, and the checks that they are whole.
//!
//! It signs nothing and uploads nothing: the workflow does that, with what only it has.

mod archive;
mod chart;
mod check;
mod krew;
mod sbom;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::process::output;
use clap::Args;

use self::archive::{Archive, digest};
pub(crate) use self::check::check;
use crate::image::{self, Architecture, Program};
use crate::repository::{commit, repository, target};

/// The version that is released: that of the workspace.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What lists the digest of every other file.
const SUMS: &str = "SHA256SUMS";

/// The plugin's program.
const PLUGIN: &str = "kubectl-checkpoints";

/// The shells that completions are made for.
const SHELLS: [&str; 3] = ["bash", "fish", "zsh"];

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// For which architectures, separated by commas
    #[arg(long, value_enum, value_delimiter = ',', default_value = "amd64,arm64")]
    arch: Vec<Architecture>,
    /// The version that is expected, as a tag has it; another one is an error
    #[arg(long, value_name = "VERSION")]
    tag: Option<String>,
    /// The image's name without a tag, as it will be pulled
    #[arg(long, value_name = "NAME", default_value = "localhost/checkpoint-keeper")]
    image: String,
    /// Where the files will be downloaded from; krew's manifest says it
    #[arg(long, value_name = "URL", default_value = "https://localhost/checkpoint-keeper")]
    url: String,
    /// A plugin that was built elsewhere, such as darwin-arm64=PATH
    #[arg(long, value_name = "OS-ARCHITECTURE=PATH")]
    plugin: Vec<String>,
    /// The directory to write to, instead of target/release-files. What is in it is removed
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let Some(tag) = &arguments.tag {
        ensure!(tag.trim_start_matches('v') == VERSION, "the tag is {tag}, but this is version {VERSION}");
    }
    let output = arguments.output.clone().unwrap_or_else(|| target().join("release-files"));
    write(arguments, &output)?;
    check(&output)?;
    for entry in std::fs::read_dir(&output)? {
        println!("{}", entry?.path().display());
    }
    Ok(())
}

/// Makes and checks what can be made in a moment: all files, but for this machine's architecture alone.
pub(crate) fn try_out() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let arguments = Arguments {
        arch: vec![Architecture::Amd64],
        tag: Some(format!("v{VERSION}")),
        image: "registry.test/checkpoint-keeper".to_owned(),
        url: "https://downloads.test".to_owned(),
        plugin: Vec::new(),
        output: Some(folder.path().join("files")),
    };
    run(&arguments)
}

fn write(arguments: &Arguments, output: &Path) -> anyhow::Result<()> {
    if output.exists() {
        std::fs::remove_dir_all(output).with_context(|| format!("cannot remove {}", output.display()))?;
    }
    std::fs::create_dir_all(output)?;
    let mut operators = Vec::new();
    let mut plugins = Vec::new();
    for architecture in image::each(&arguments.arch) {
        operators.push((architecture, image::build(Program::Operator, architecture)?));
        let platform = format!("linux-{}", architecture.name());
        plugins.push((platform, image::build(Program::Plugin, architecture)?));
    }
    for given in &arguments.plugin {
        let (platform, path) = given.split_once('=').with_context(|| format!("{given} has no ="))?;
        plugins.push((platform.to_owned(), PathBuf::from(path)));
    }
    image::write(&operators, &format!("{}:{VERSION}", arguments.image), &output.join("image"))?;
    let created = commit()?.seconds;

    let native = |program| image::build(program, Architecture::Amd64);
    let documents = Documents::of(&native(Program::Operator)?, "checkpoint-keeper")?;
    for (architecture, program) in &operators {
        let mut archive = Archive::new(created).program("checkpoint-keeper", program)?;
        documents.add_to(&mut archive)?;
        let name = format!("checkpoint-keeper-{VERSION}-linux-{}.tar.gz", architecture.name());
        archive.write(&output.join(name))?;
    }

    let documents = Documents::of(&native(Program::Plugin)?, PLUGIN)?;
    let mut packed = Vec::new();
    for (platform, program) in plugins {
        let mut archive = Archive::new(created).program(PLUGIN, &program)?;
        archive.add("kubectl_complete-checkpoints", documents.for_kubectl.as_bytes(), 0o755)?;
        documents.add_to(&mut archive)?;
        let name = format!("{PLUGIN}-{VERSION}-{platform}.tar.gz");
        let digest = archive.write(&output.join(&name))?;
        packed.push(krew::Platform { os_and_architecture: platform, file: name, digest });
    }
    std::fs::write(output.join(krew::FILE), krew::manifest(VERSION, &arguments.url, &packed)?)?;
    chart::write(output, &arguments.image)?;
    sbom::write(output, created)?;
    sums(output)
}

/// What a program says of itself, for its archive.
struct Documents {
    name: &'static str,
    manual: tempfile::TempDir,
    completions: Vec<(&'static str, String)>,
    for_kubectl: String,
}

impl Documents {
    fn of(program: &Path, name: &'static str) -> anyhow::Result<Self> {
        let manual = tempfile::tempdir()?;
        self::output(Command::new(program).arg("man").arg(manual.path()))?;
        let script =
            |shell: &'static str| Ok((shell, output(Command::new(program).args(["completion", shell]))?));
        let completions = SHELLS.into_iter().map(script).collect::<anyhow::Result<_>>()?;
        let for_kubectl = match name {
            PLUGIN => output(Command::new(program).arg("completion"))?,
            _ => String::new(),
        };
        Ok(Self { name, manual, completions, for_kubectl })
    }

    fn add_to(&self, archive: &mut Archive) -> anyhow::Result<()> {
        archive.add("LICENSE", &std::fs::read(repository().join("LICENSE"))?, 0o644)?;
        for (shell, script) in &self.completions {
            archive.add(&format!("completions/{}.{shell}", self.name), script.as_bytes(), 0o644)?;
        }
        let mut pages = std::fs::read_dir(self.manual.path())?
            .map(|entry| Ok(entry?.path()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        pages.sort();
        for page in pages {
            let name = page.file_name().context("a page has a name")?.to_string_lossy().into_owned();
            archive.add(&format!("man/man1/{name}"), &std::fs::read(&page)?, 0o644)?;
        }
        Ok(())
    }
}

/// Writes the digests of all files, in the form of `sha256sum`.
fn sums(output: &Path) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(output)? {
        let path = entry?.path();
        if path.is_file() {
            let name = path.file_name().context("a file has a name")?.to_string_lossy();
            lines.push(format!("{}  {name}\n", digest(&std::fs::read(&path)?)));
        }
    }
    lines.sort_by(|one, other| one.split_once("  ").cmp(&other.split_once("  ")));
    Ok(std::fs::write(output.join(SUMS), lines.concat())?)
}

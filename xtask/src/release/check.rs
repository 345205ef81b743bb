//! That the files of a release are whole, and do what they are for.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use checkpoint_keeper_testcluster::cross::Arm64;
use checkpoint_keeper_testcluster::paths::Cache;
use checkpoint_keeper_testcluster::process::output;
use checkpoint_keeper_testcluster::tools;
use serde_json::Value;

use super::{PLUGIN, SUMS, VERSION, chart, krew};
use crate::repository::repository;

/// Fails with what is wrong first.
pub(crate) fn check(folder: &Path) -> anyhow::Result<()> {
    output(Command::new("sha256sum").args(["--check", "--strict", "--quiet", SUMS]).current_dir(folder))?;
    for name in [
        krew::FILE.to_owned(),
        format!("checkpoint-keeper-{VERSION}.tgz"),
        format!("checkpoint-keeper-{VERSION}.cdx.json"),
        format!("{PLUGIN}-{VERSION}.cdx.json"),
        format!("checkpoint-keeper-{VERSION}-linux-amd64.tar.gz"),
        format!("{PLUGIN}-{VERSION}-linux-amd64.tar.gz"),
        "image/oci/index.json".to_owned(),
    ] {
        ensure!(folder.join(&name).is_file(), "{name} is missing of the release");
    }
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().context("a file has a name")?.to_string_lossy().into_owned();
        let checked = || -> anyhow::Result<()> {
            if let Some(rest) = name.strip_suffix(".tar.gz") {
                let (program, platform) =
                    rest.split_once(&format!("-{VERSION}-")).context("it is of another version")?;
                return unpacked(&path, program, platform);
            }
            if name == format!("checkpoint-keeper-{VERSION}.tgz") {
                return chart::check(&path);
            }
            if let Some(program) = name.strip_suffix(&format!("-{VERSION}.cdx.json")) {
                return parts(&path, program);
            }
            if name == krew::FILE { krew(&path, folder) } else { Ok(()) }
        };
        checked().with_context(|| format!("{name} of the release"))?;
    }
    Ok(())
}

/// An archive's program runs, on this machine or emulated, and has its documents beside it.
fn unpacked(archive: &Path, program: &str, platform: &str) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    output(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(folder.path()))?;
    let path = folder.path().join(program);
    let mut command = match platform {
        "linux-amd64" => Command::new(&path),
        "linux-arm64" => {
            let mut emulator = Command::new(Arm64::provide(&Cache::of_user()?)?.emulator());
            emulator.arg(&path);
            emulator
        }
        // What was built elsewhere was run elsewhere.
        _ => return Ok(()),
    };
    let said = output(command.arg("version"))?;
    ensure!(said.trim_end().ends_with(VERSION), "{program} version says {said}");
    let mut wanted = vec![
        "LICENSE".to_owned(),
        format!("man/man1/{program}.1"),
        format!("completions/{program}.bash"),
        format!("completions/{program}.zsh"),
        format!("completions/{program}.fish"),
    ];
    if program == PLUGIN {
        wanted.push("kubectl_complete-checkpoints".to_owned());
    }
    for name in wanted {
        let size =
            folder.path().join(&name).metadata().with_context(|| format!("{name} is not in it"))?.len();
        ensure!(size > 0, "{name} is empty");
    }
    Ok(())
}

/// Every platform's archive is here, with the digest that the manifest says, and krew installs this machine's.
fn krew(path: &Path, folder: &Path) -> anyhow::Result<()> {
    let manifest: Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let platforms = manifest["spec"]["platforms"].as_array().context("it has no platforms")?;
    ensure!(!platforms.is_empty(), "it has no platforms");
    let sums = std::fs::read_to_string(folder.join(SUMS))?;
    for platform in platforms {
        let text = |name: &str| platform[name].as_str().unwrap_or_default();
        let file = text("uri").rsplit('/').next().unwrap_or_default();
        let line = format!("{}  {file}", text("sha256"));
        ensure!(sums.lines().any(|one| one == line), "{file} has another digest");
    }
    let root = tempfile::tempdir()?;
    let archive = folder.join(format!("{PLUGIN}-{VERSION}-linux-amd64.tar.gz"));
    let mut install = Command::new(tools::krew(&Cache::of_user()?)?);
    install.arg("install").arg("--manifest").arg(path).arg("--archive").arg(archive);
    output(install.env("KREW_ROOT", root.path()).stdin(Stdio::null()))?;
    let said = output(Command::new(root.path().join("bin").join(PLUGIN)).arg("version"))?;
    ensure!(said.trim_end().ends_with(VERSION), "what krew installed says that it is {said}");
    Ok(())
}

/// The list of a program's parts has each that the lock file pins, as far as it names them.
fn parts(path: &Path, program: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path)?;
    ensure!(!text.contains(&*std::env::temp_dir().to_string_lossy()), "it names a path of this machine");
    let list: Value = serde_json::from_str(&text)?;
    ensure!(list["metadata"]["component"]["name"] == program, "it is of another program");
    let parts = list["components"].as_array().context("it has no components")?;
    let lock = std::fs::read_to_string(repository().join("Cargo.lock"))?;
    for part in parts {
        let (name, version) = (part["name"].as_str(), part["version"].as_str());
        let (Some(name), Some(version)) = (name, version) else { bail!("{part} has no name or version") };
        let pinned = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        ensure!(lock.contains(&pinned), "{name} {version} is not in Cargo.lock");
    }
    let has = |name: &str| parts.iter().any(|part| part["name"] == name);
    ensure!(
        has("kube") && has("rustls") && has("checkpoint-keeper-core"),
        "it does not list what we are made of"
    );
    Ok(())
}

//! Prometheus and promtool in the cache: Debian's package of the release that this machine has, unpacked and not
//! installed. Both are programs that need the C library and nothing else, so machines run them as well.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::packages::unpacked;
use crate::paths::Cache;
use crate::process::output;

/// Debian's package of both.
const PACKAGE: &str = "prometheus";

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Prometheus {
    /// The server.
    pub server: PathBuf,
    /// What checks rules and runs their tests.
    pub promtool: PathBuf,
}

impl Prometheus {
    /// Downloads and unpacks them unless they are there: the version that apt would install, so a newer one of a
    /// security update is taken once apt knows it.
    pub fn provide(cache: &Cache) -> anyhow::Result<Self> {
        let wanted = format!("{PACKAGE}={}", version()?);
        let folder = unpacked(cache, PACKAGE, &[&wanted], "", |_| Ok(()))?;
        let program = |name: &str| folder.join("usr/bin").join(name);
        Ok(Self { server: program("prometheus"), promtool: program("promtool") })
    }
}

/// The version that apt would install.
fn version() -> anyhow::Result<String> {
    let ask = || {
        let shown = output(Command::new("apt-cache").args(["show", "--no-all-versions", PACKAGE])).ok()?;
        shown.lines().find_map(|line| line.strip_prefix("Version: ")).map(str::to_owned)
    };
    if let Some(version) = ask() {
        return Ok(version);
    }
    // On a new machine apt's lists may be empty.
    output(Command::new("apt-get").arg("update"))?;
    ask().context("apt knows no package prometheus: see /etc/apt/sources.list")
}

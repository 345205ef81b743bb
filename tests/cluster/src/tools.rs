//! The tools that the chart is rendered, checked and installed with, built from their Go modules into the cache: `helm`,
//! `kubeconform` and `kube-score`; and `krew`, which installs plugins of kubectl.

use std::path::PathBuf;

use anyhow::{Context, ensure};

use crate::components::{GO_VERSION, go, go_version, key, make_module, once, run};
use crate::paths::Cache;

/// The module file of helm and kubeconform: their versions.
const GO_MOD: &str = include_str!("../tools/go.mod");
const GO_SUM: &str = include_str!("../tools/go.sum");

/// How both are built.
const BUILD: &[&str] = &["build", "-trimpath", "-ldflags=-s -w"];

/// These go by older modules of Kubernetes than the others, so they are built by their own module files.
const KUBE_SCORE: &str = "github.com/zegl/kube-score/cmd/kube-score@v1.20.0";
const KREW: &str = "sigs.k8s.io/krew/cmd/krew@v0.4.3";

/// A folder of tools.
#[derive(Debug, Clone)]
pub struct Tools {
    folder: PathBuf,
}

impl Tools {
    /// helm and kubeconform, which are built if they are not there yet: 1 min on two cores.
    pub fn provide(cache: &Cache) -> anyhow::Result<Self> {
        let folder = cache.folder(&format!("tools-{}", key(&[GO_MOD, GO_SUM, &BUILD.join(" ")])));
        once(&folder, |folder| {
            require_go()?;
            let module = folder.join("module");
            make_module(&module, [GO_MOD, GO_SUM])?;
            let mut build = go(cache, &module);
            build.args(BUILD).arg("-o").arg(folder).arg("tool");
            run(&mut build, &cache.folder("tools-build.log"))?;
            Ok(std::fs::remove_dir_all(&module)?)
        })?;
        Ok(Self { folder })
    }

    /// helm, which speaks to clusters.
    pub fn helm(&self) -> PathBuf {
        self.folder.join("helm")
    }

    /// kubeconform, which holds manifests against the API's schemas.
    pub fn kubeconform(&self) -> PathBuf {
        self.folder.join("kubeconform")
    }
}

/// kube-score, which looks for what is unwise in manifests; it is built if it is not there yet.
pub fn kube_score(cache: &Cache) -> anyhow::Result<PathBuf> {
    installed(cache, "kube-score", KUBE_SCORE)
}

/// krew, which installs plugins of kubectl; it is built if it is not there yet: 1 min on two cores.
pub fn krew(cache: &Cache) -> anyhow::Result<PathBuf> {
    installed(cache, "krew", KREW)
}

/// A program of a Go module, by the versions that the module itself names.
fn installed(cache: &Cache, name: &str, module: &str) -> anyhow::Result<PathBuf> {
    let folder = cache.folder(&format!("{name}-{}", key(&[module])));
    once(&folder, |folder| {
        require_go()?;
        let mut install = go(cache, folder);
        install.args(["install", "-trimpath", "-ldflags=-s -w", module]).env("GOBIN", folder);
        run(&mut install, &cache.folder(&format!("{name}-build.log")))
    })?;
    Ok(folder.join(name))
}

fn require_go() -> anyhow::Result<()> {
    let version = go_version().context("Go is needed to build helm and other tools")?;
    ensure!(
        version >= GO_VERSION,
        "Go {}.{} or newer is needed to build helm and other tools",
        GO_VERSION.0,
        GO_VERSION.1
    );
    Ok(())
}
